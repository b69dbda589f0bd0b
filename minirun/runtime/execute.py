"""``exec``: one more process in a container's namespaces and cgroup.

Init prepares it on the host, out of the container's sight: it enters every other namespace first, and the PID namespace
last, by a fork. Until the program is executed nothing of the container is loaded, looked up or run.
"""

from __future__ import annotations

import os

from minirun import store
from minirun.errors import Conflict, MinirunError
from minirun.linux import seccomp, security, syscalls
from minirun.linux.syscalls import Message
from minirun.oci import check, process_spec
from minirun.runtime import demands, handover, init_ops, namespaces, placement, process
from minirun.runtime.container import Bundled
from minirun.runtime.dialogue import Dialogue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Op = list[str]


class ExecOptions:
    """What the command line of ``exec`` says besides the process."""

    __slots__ = ("cgroups", "console_socket", "ignore_paused", "log", "pid_file", "preserve_fds", "rootless")

    def __init__(self) -> None:
        self.pid_file: str | None = None
        self.console_socket: str | None = None
        self.preserve_fds = 0
        self.ignore_paused = self.rootless = False
        self.cgroups: Sequence[str] = ()  # below the container's own
        self.log: Callable[[str], None] = lambda text: None  # is told what is no reason to fail


# What a process document that does not speak of it takes over from the container's.
_INHERITED = (
    "capabilities",
    "rlimits",
    "apparmorProfile",
    "selinuxLabel",
    "scheduler",
    "ioPriority",
    "oomScoreAdj",
    "execCPUAffinity",
)


def execute(container: Bundled, process_document: dict[str, Any], options: ExecOptions) -> int:
    """Run a process (``process`` of the runtime-spec) in the container; its pid, a child of ours.

    Raises Conflict if the container does not run, CommandNotFound and CommandNotExecutable for the program.
    """
    kept = container.kept()
    status = container.status(kept)
    if status in ("stopped", "creating"):
        raise Conflict(f"cannot exec in a {status} container", f"container {container.id!r} is not running")
    if status == "paused" and not options.ignore_paused:
        raise Conflict("cannot exec in a paused container", f"container {container.id!r} is paused", "resume it first")
    config = container.config()
    wanted = {**{key: config["process"][key] for key in _INHERITED if config["process"].get(key)}, **process_document}
    if bool(wanted.get("terminal")) != bool(options.console_socket):
        raise Conflict("--console-socket", "it goes with a terminal, and a terminal with it")
    check.demand(wanted, process_spec.PROCESS, "process")
    demands.check_process(wanted, namespaces.kinds(config).get("user") == "", options.log)
    try:
        target = syscalls.open_process(kept["pid"], kept["start"])
    except ProcessLookupError:
        raise _ended(container) from None
    try:
        return _spawn(container, config, wanted, options, kept, target)
    except (MinirunError, OSError):
        if syscalls.ended([target], 0):  # that is why, whatever it looked like
            raise _ended(container) from None
        raise
    finally:
        os.close(target)


def _ended(container: Bundled) -> Conflict:
    return Conflict("cannot exec in a stopped container", f"container {container.id!r} is not running")


def _spawn(
    container: Bundled,
    config: dict[str, Any],
    wanted: dict[str, Any],
    options: ExecOptions,
    kept: dict[str, Any],
    target: int,
) -> int:
    group = placement.load(kept["cgroup"])
    joins, born = group.joins(options.cgroups, kept["pid"])
    ops, program = _ops(config, wanted, joins, kept, options), wanted["args"]
    init, words = syscalls.sealed_copy(process.INIT), process.memory_file("ops", init_ops.words(ops, program))
    cgroup = os.open(born, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if born else -1
    pid, pidfd, control = syscalls.spawn(0, init, words, (0, 1, 2), options.preserve_fds, cgroup, target)
    talk = Dialogue(pid, control, ops, program)

    def console(message: Message) -> None:
        handover.console(options.console_socket or "", message.descriptors[0])

    def listener(message: Message) -> None:
        handover.listener(config["linux"]["seccomp"], message.descriptors[0], talk.pid, container.state())

    try:
        talk.until_ready({Message.CONSOLE: console, Message.LISTENER: listener})
        # Without a mount namespace to enter, its root was found by its number, which may be another's by now.
        if "mount" not in kept["enter"] and syscalls.ended([target], 0):
            raise _ended(container)
        if options.pid_file:
            store.write(options.pid_file, str(talk.pid), 0o644)
        talk.go_on()
        talk.until_executed()
    except BaseException:
        talk.end()
        raise
    finally:
        for descriptor in (init, words, pidfd, control, *([cgroup] if cgroup >= 0 else [])):
            os.close(descriptor)
    return talk.pid


def _ops(
    config: dict[str, Any], wanted: dict[str, Any], joins: list[str], kept: dict[str, Any], options: ExecOptions
) -> list[Op]:
    kinds: list[str] = kept["enter"]
    mounts = "mount" in kinds  # else the root is by chroot(2) what it is: that of the first process
    profile = (config.get("linux") or {}).get("seccomp")
    filter_path = seccomp.filter_path(profile) if profile else None
    setting = init_ops.Setting([], joins, filter_path, [["ready"]])
    setting.rootless = options.rootless
    early = _born_early(wanted)
    setting.born = () if early else init_ops.BORN
    uid = str((wanted.get("user") or {}).get("uid", 0))
    affinity = wanted.get("execCPUAffinity") or {}
    return [
        ["undumpable"],
        *(_affinity(affinity, "initial")),
        *([["cgroup", path] for path in joins]),
        *(_affinity(affinity, "final") or ([] if affinity else [["affinity", "all"]])),
        *([["filter", filter_path]] if filter_path else []),
        *init_ops.oom_score(wanted, options.rootless),
        *init_ops.label_ops(wanted),
        *([] if mounts else [["inside", f"/proc/{kept['pid']}/root"]]),
        ["enter", f"{sum(security.NAMESPACES[kind] for kind in kinds):x}"],
        *([["be-root"]] if "user" in kinds else []),
        ["undumpable"],
        ["inside", "/"] if mounts else ["chroot"],
        ["keyring", "minirun"],
        *(init_ops.terminal(wanted, uid, device=False) if wanted.get("terminal") else [["own-stdio", uid]]),
        *(init_ops.BORN if early else ()),
        *init_ops.identity_ops(config, wanted, setting),
    ]


def _born_early(wanted: dict[str, Any]) -> bool:
    """Whether its scheduling would not come through a fork, and takes rights that it has not got after that."""
    scheduler = wanted.get("scheduler") or {}
    return scheduler.get("policy") == "SCHED_DEADLINE" or bool(scheduler.get("flags"))


def _affinity(affinity: dict[str, Any], when: str) -> list[Op]:
    text = affinity.get(when)
    return [["affinity", init_ops.cpus(text, f"process.execCPUAffinity.{when}")]] if text else []
