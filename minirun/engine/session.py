"""``minirun exec``: one more process in a container's namespaces and cgroup, with a monitor of its own.

The container's own configuration says what the new process may do: the same capabilities, the same filter. Nothing of
the container is loaded or looked up by this process: minirun-init enters, from its sealed copy, and executes.
"""

from __future__ import annotations

import os

from minirun import store
from minirun.engine import users
from minirun.engine.record import Container
from minirun.errors import Conflict, MinirunError, UsageError
from minirun.linux import cgroup, seccomp, security, syscalls
from minirun.runtime import init_ops
from minirun.runtime.process import Spawn, exit_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ExecOptions:
    """The options of ``exec``."""

    __slots__ = ("command", "detach", "env", "interactive", "tty", "user", "workdir")

    def __init__(self) -> None:
        self.command: list[str] = []
        self.env: dict[str, str] = {}
        self.detach = self.interactive = self.tty = False
        self.user: str | None = None
        self.workdir: str | None = None


_ENTERED = ("mount", "uts", "ipc", "cgroup", "network", "pid")


def run(container: Container, options: ExecOptions) -> int:
    """Run a command in a running container; its exit code, or 0 at once if detached."""
    state = container.state()
    if state is None or container.status() not in ("running", "paused"):
        raise Conflict(f"container {container.id[:12]} is not running", "", "minirun ps shows which are")
    if container.status() == "paused":
        raise Conflict(f"container {container.id[:12]} is paused", "a process in it would stop at once", "unpause it")
    config = store.read_json(f"{container.live}/config.json")
    process = _process(config, state, container.record(), options)
    spawn = Spawn(_monitor_words(container, state, options), _ops(container, config, process), process["args"])
    spawn.attach = not options.detach
    if options.tty and not options.detach and os.isatty(0):
        spawn.terminal = syscalls.Terminal(0)
    spawn.do()
    if not options.detach:
        syscalls.hold_signals()
    spawn.start()
    if options.detach:
        return 0
    ended = syscalls.follow(spawn.control, spawn.terminal)
    if ended is None:
        raise MinirunError("the monitor of the session died")
    return exit_code(ended[0])


def _process(
    config: dict[str, Any], state: dict[str, Any], record: dict[str, Any], options: ExecOptions
) -> dict[str, Any]:
    """``process`` of the runtime-spec for the new process: the container's, with the options over it."""
    process = dict(config["process"])
    wanted = record["User"] if options.user is None else options.user
    if options.user is not None:
        user = users.resolve(wanted, users.reader([f"/proc/{state['pid']}/root"]))
        process["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups}
        bounding = process["capabilities"]["bounding"]
        held = bounding if user.uid == 0 else []
        process["capabilities"] = {"bounding": bounding, "effective": held, "permitted": held}
    if options.workdir:
        if not options.workdir.startswith("/"):
            raise UsageError(f"-w {options.workdir!r}", "must be absolute")
        process["cwd"] = options.workdir
    values = dict(entry.split("=", 1) for entry in process["env"])
    if options.tty:
        values["TERM"] = "xterm"
    values.update(options.env)
    process["env"] = [f"{name}={value}" for name, value in values.items()]
    process["args"] = options.command
    process["terminal"] = options.tty
    return process


def _monitor_words(container: Container, state: dict[str, Any], options: ExecOptions) -> list[str]:
    words = ["--id", f"{container.id[:12]}-exec", "--target", f"{state['pid']}:{state['start']}"]
    layout = cgroup.layout()
    if layout.unified:
        words += ["--cgroup", layout.directory(f"{cgroup.parent}/{container.id}")]
    words += ["--tty"] if options.tty else []
    return words + (["--stdin"] if options.interactive else [])


def _ops(container: Container, config: dict[str, Any], process: dict[str, Any]) -> list[list[str]]:
    flags = 0
    for kind in _ENTERED:
        flags |= security.NAMESPACES[kind]
    layout = cgroup.layout()
    joined = [] if layout.unified else [f"{d}/tasks" for d in layout.directories(f"{cgroup.parent}/{container.id}")]
    profile = config["linux"].get("seccomp")
    uid = str(process["user"]["uid"])
    filter_path = seccomp.filter_path(profile) if profile else None
    setting = init_ops.Setting([], joined, filter_path, [["ready"], ["die-with-parent"]])
    setting.born = init_ops.BORN
    return [
        ["undumpable"],
        *([["cgroup", path] for path in joined]),
        *([["filter", filter_path]] if filter_path else []),
        ["enter", f"{flags:x}"],
        ["inside", "/"],
        ["keyring", "minirun"],
        *([["console", uid]] if process["terminal"] else [["own-stdio", uid]]),
        *init_ops.identity_ops(config, process, setting),
    ]
