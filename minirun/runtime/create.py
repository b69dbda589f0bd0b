"""``create``: from a bundle to a process that waits for its start (runtime-spec, runtime.md, steps 1 to 6).

the document is read and checked          oci/runtime_spec.py
the id is taken, the plan is written      so that whoever comes after a crash can undo it
cgroup, limits                            placement.py
init, up to the op "ready"                init_ops.py; meanwhile it asks for what only we can do:
    id maps                               idmap.py
    network devices                       devices that the document moves in
    prestart and createRuntime hooks      hooks.py
    the terminal, the seccomp listener    handover.py
the state is written, init waits on the fifo
"""

from __future__ import annotations

import os

from minirun import step, store, strict_json
from minirun.errors import Conflict, HookFailed, MinirunError, NotFound
from minirun.linux import seccomp, syscalls
from minirun.linux.syscalls import Message
from minirun.oci import defaults, runtime_spec
from minirun.runtime import demands, handover, idmap, init_ops, mount_ops, namespaces, placement, process, rootfs
from minirun.runtime.container import CREATING, Bundled
from minirun.runtime.dialogue import Dialogue
from minirun.runtime.locked import Locked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class CreateOptions:
    """What the command line adds to the document. ``log`` is told what is no reason to fail."""

    __slots__ = (
        "config",
        "console_socket",
        "log",
        "no_new_keyring",
        "no_pivot",
        "pid_file",
        "preserve_fds",
        "rootless",
        "systemd_cgroup",
    )

    def __init__(self) -> None:
        self.config = "config.json"  # below the bundle
        self.pid_file: str | None = None
        self.console_socket: str | None = None
        self.preserve_fds = 0
        self.no_pivot = self.no_new_keyring = self.systemd_cgroup = self.rootless = False
        self.log: Callable[[str], None] = _say_nothing


def _say_nothing(text: str) -> None:
    """For whoever does not want to know."""


def read_config(bundle: str, options: CreateOptions) -> dict[str, Any]:
    """The document of a bundle. Raises InvalidDocument, NotFound, and Unsupported for what this machine has not."""
    path, warn = os.path.join(bundle, options.config), options.log
    text = store.read(path)
    if text is None:
        raise NotFound(path, "no such file or directory", "name the bundle's directory with --bundle")
    config: dict[str, Any] = strict_json.loads(text, path)
    for warning in runtime_spec.check(config):
        warn(warning)
    demands.check(config, options.rootless, warn)
    return config


def create(identity: str, bundle: str, root: str, options: CreateOptions) -> tuple[Bundled, int]:
    """Create a container in the state ``created``; returns it and its pid. On an error everything is undone."""
    config = read_config(bundle, options)
    if bool(config["process"].get("terminal")) != bool(options.console_socket):
        _terminal_mismatch(bool(options.console_socket))
    container = Bundled(identity, root)
    with take(container):
        hooked = False
        try:
            place = placement.place(config, identity, options.systemd_cgroup, options.rootless)
            steps = [*rootfs.host_steps(config, bundle), *place.steps]
            store.create(f"{container.directory}/config.json", strict_json.dumps(config))
            _make_fifo(f"{container.directory}/exec.fifo")
            store.write_json(f"{container.directory}/plan.json", [s.record() for s in steps])
            step.do_all(steps)
            hooked = bool(config.get("hooks"))
            pid = _Spawning(container, config, bundle, place, options).run()
        except BaseException:
            take_back(container, config if hooked else {}, options.log, bundle)
            raise
        unmark(container)
    return container, pid


def _terminal_mismatch(socket: bool) -> None:
    if socket:
        raise Conflict("--console-socket", "the document asks for no terminal", "set process.terminal, or leave it out")
    raise Conflict("config.json: process.terminal", "a terminal needs --console-socket", "or set it to false")


def take(container: Bundled) -> Locked:
    """Take the id: its directory exists and is ours. What was left half made or half removed is undone first."""
    marks = store.directory(container.root, CREATING)
    for name in store.entries(marks):
        if name.startswith("@"):  # a delete was killed
            store.remove_tree(f"{marks}/{name}")
        else:
            _undo_dead(Bundled(name, container.root))
    if os.path.exists(f"{container.directory}/process"):
        raise _exists(container)
    try:
        while True:
            store.create(f"{marks}/{container.id}", "")
            os.mkdir(container.directory, 0o700)
            try:
                return Locked(container.directory, container.id)
            except NotFound:  # somebody took it for a dead one, between the two lines above
                continue
    except FileExistsError:
        if os.path.exists(f"{container.directory}/process"):
            unmark(container)  # or else the mark is that of the other, who is at work
        raise _exists(container) from None
    except OSError:
        unmark(container)
        raise


def _make_fifo(path: str) -> None:
    try:
        os.mkfifo(path, 0o600)
    except OSError as error:  # Python leaves the name out
        raise OSError(error.errno, error.strerror, path) from None


def _exists(container: Bundled) -> Conflict:
    return Conflict(f"container {container.id!r}", "already exists", "delete it, or take another id")


def _undo_dead(container: Bundled) -> None:
    """Undo a create that was killed: its lock is free and its mark is still there."""
    try:
        with Locked(container.directory, container.id, wait=False):
            if not os.path.exists(f"{container.directory}/process"):
                container.undo(force=True)
    except NotFound:
        pass
    except (BlockingIOError, MinirunError):  # it is alive; or for the next one to try
        return
    unmark(container)


def unmark(container: Bundled) -> None:
    """Its create has ended, for good or ill; whoever saw that first may have done this."""
    try:
        os.unlink(f"{container.root}/{CREATING}/{container.id}")
    except FileNotFoundError:
        pass


def take_back(container: Bundled, config: dict[str, Any], warn: Callable[[str], None], bundle: str = "") -> None:
    """Undo a create that failed. Once hooks may have run, those for the end run too (runtime.md, step 13)."""
    try:
        container.undo()
        unmark(container)
    except (MinirunError, OSError) as error:
        warn(str(error))
    if not config:
        return
    from minirun.runtime import hooks

    try:
        hooks.run(config, "poststop", _state(container.id, bundle, config, "stopped", 0))
    except HookFailed as error:
        warn(str(error))


def _state(identity: str, bundle: str, config: dict[str, Any], status: str, pid: int) -> dict[str, Any]:
    """The state that hooks are told."""
    return {
        "ociVersion": defaults.VERSION,
        "id": identity,
        "status": status,
        "pid": pid,
        "bundle": bundle,
        "annotations": config.get("annotations") or {},
    }


def known(config: dict[str, Any], bundle: str, pid: int, place: placement.Placement) -> dict[str, Any]:
    """What state.json holds of a container whose first process is ``pid``."""
    kinds = namespaces.kinds(config)
    return {
        "pid": pid,
        "start": process.start_time(pid),
        "bundle": bundle,
        "annotations": config.get("annotations") or {},
        "cgroup": place.record,
        "owner": os.geteuid(),
        "created": process.now(),
        "rootfs": os.path.join(bundle, config["root"]["path"]),
        "hooks": bool(config.get("hooks")),
        "enter": namespaces.entered(kinds),
        "ends_all": kinds.get("pid") == "",
    }


def _listening(config: dict[str, Any]) -> int:
    """How many sockets systemd, or who speaks like it, hands to us for the container (sd_listen_fds(3)): they are the
    descriptors from 3 on, and the container is told so by its environment.
    """
    count = os.environ.get("LISTEN_FDS", "")
    is_number = count.isascii() and count.isdecimal() and len(count) < 6
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not is_number or int(count) == 0:
        return 0
    told = [f"LISTEN_FDS={int(count)}", "LISTEN_PID=1"]
    if names := os.environ.get("LISTEN_FDNAMES"):
        told.append(f"LISTEN_FDNAMES={names}")
    config["process"]["env"] = [*(config["process"].get("env") or []), *told]
    return int(count)


_OPENED = (("fifo", "exec.fifo"), ("report", "failed"))


class _Spawning:
    """The making of the first process: what init is told, and what it asks for on its way."""

    def __init__(
        self,
        container: Bundled,
        config: dict[str, Any],
        bundle: str,
        place: placement.Placement,
        options: CreateOptions,
    ) -> None:
        self.container, self.config, self.bundle, self.place = container, config, bundle, place
        self.options, self.kinds = options, namespaces.kinds(config)
        self.linux: dict[str, Any] = config.get("linux") or {}
        self.mapped = False
        self.talk: Dialogue
        self.kept: dict[str, Any] = {}
        self.keep = options.preserve_fds + _listening(self.config)

    def run(self) -> int:
        init = syscalls.sealed_copy(process.INIT)
        holders = idmap.Holders(init)
        try:
            return self._converse(init, self._ops(holders))
        finally:
            holders.close()
            os.close(init)

    def _ops(self, holders: idmap.Holders) -> list[list[str]]:
        profile = self.linux.get("seccomp")
        setting = init_ops.Setting(
            rootfs.root_op(self.config, self.bundle),
            self.place.joins,
            seccomp.filter_path(profile) if profile else None,
            [["ready"], ["wait"]],
        )
        setting.bundle = self.bundle
        setting.taken = mount_ops.before_fork(
            self.config, self.bundle, setting.root[1], self.place.joins, holders.path, self.options.rootless
        )
        # The caller's CPUs, a shim's perhaps, are not the container's: it has those of its cgroup.
        setting.affinity = [["affinity", "all"]]
        setting.opened = [[op, f"{self.container.directory}/{name}"] for op, name in _OPENED]
        setting.rootless = self.options.rootless
        setting.keyring = None if self.options.no_new_keyring else "minirun"
        setting.pivot = rootfs.pivot_op(self.config, self.options.no_pivot)
        if self.config.get("hooks"):
            from minirun.runtime import hooks

            setting.hooks = hooks.inside(self.config, self._state("creating", 0))
        return init_ops.create_ops(self.config, setting)

    def _state(self, status: str, pid: int) -> dict[str, Any]:
        return _state(self.container.id, self.bundle, self.config, status, pid)

    def _converse(self, init: int, ops: list[list[str]]) -> int:
        program = self.config["process"]["args"]
        words = process.memory_file("ops", init_ops.words(ops, program))
        born = -1
        if self.place.born:
            born = os.open(self.place.born, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        flags = namespaces.spawn_flags(self.kinds)
        pid, pidfd, control = syscalls.spawn(flags, init, words, (0, 1, 2), self.keep, born)
        self.talk = Dialogue(pid, control, ops, program)
        answers = {
            Message.BORN: self._born,
            Message.SYNC: self._sync,
            Message.CONSOLE: self._console,
            Message.LISTENER: self._listener,
        }
        try:
            self.talk.until_ready(answers)
            if not self.kept:
                self._know()
            if self.options.pid_file:
                store.write(self.options.pid_file, str(self.talk.pid), 0o644)
            self.container.write_state(self.kept)
            self.place.settle()
            self.talk.go_on()
            # The last, since it says that all is done: if we are killed before it, all is undone by the next create.
            self.container.write_done(self.kept, placement.load(self.place.record).freezer)
        except BaseException:
            self.talk.end()
            raise
        finally:
            for descriptor in (words, pidfd, control, *([born] if born >= 0 else [])):
                os.close(descriptor)
        return self.talk.pid

    def _know(self) -> None:
        """What is known of the container from now on, and told to hooks."""
        self.kept = known(self.config, self.bundle, self.talk.pid, self.place)

    def _born(self, message: Message) -> None:
        """Another process goes on; the first of them waits in the new user namespace."""
        if "user" in self.kinds and not self.kinds["user"] and not self.mapped:
            self.mapped = True
            idmap.write(self.talk.pid, self.linux.get("uidMappings") or [], self.linux.get("gidMappings") or [])

    def _sync(self, message: Message) -> None:
        if message.a == init_ops.DEVICES:
            from minirun.linux import netdevices

            netdevices.move(self.linux["netDevices"], f"/proc/{self.talk.pid}/ns/net")
        elif message.a == init_ops.HOOKS:
            from minirun.runtime import hooks

            self._know()
            self.container.write_state(self.kept)
            watched = syscalls.pidfd_open(self.talk.pid)
            for kind in ("prestart", "createRuntime"):
                hooks.run(self.config, kind, self._state("creating", self.talk.pid), watched)
            os.close(watched)
        self.talk.go_on()

    def _console(self, message: Message) -> None:
        handover.console(self.options.console_socket or "", message.descriptors[0])

    def _listener(self, message: Message) -> None:
        state = self._state("creating", self.talk.pid)
        handover.listener(self.linux["seccomp"], message.descriptors[0], self.talk.pid, state)
