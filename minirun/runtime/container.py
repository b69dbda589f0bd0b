"""The OCI life cycle on a bundle: create, start, state, kill, delete (runtime-spec, runtime.md).

    <state>/<id>/state.json     what `state` tells, and when the process started
                 config.json    the document as it was at create: a bundle that is edited later changes nothing
                 plan.json      the steps, written before the first of them is done
                 exec.fifo      init waits on it for `start`

There is no monitor here: whoever calls a runtime (conmon, a containerd shim) is one. The process is our child only
until this command ends; then it belongs to its subreaper.
"""

from __future__ import annotations

import os

from minirun import step, store, strict_json
from minirun.errors import Conflict, InvalidDocument, MinirunError, NotFound, Unsupported
from minirun.linux import cgroup, seccomp, syscalls
from minirun.linux.syscalls import Message
from minirun.oci import defaults
from minirun.runtime import init_ops, process, resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NOT_YET = (
    ("hooks", "hooks"),
    ("process.terminal", "console socket"),
    ("process.apparmorProfile", "AppArmor"),
    ("process.selinuxLabel", "SELinux"),
    ("linux.uidMappings", "user namespaces"),
    ("linux.timeOffsets", "time namespaces"),
    ("linux.intelRdt", "resctrl"),
)


class Bundled:
    """One container that was created from a bundle."""

    __slots__ = ("directory", "id")

    def __init__(self, identity: str, root: str) -> None:
        self.id, self.directory = identity, f"{root}/{identity}"

    def _load(self, name: str) -> Any:
        document = store.read_json(f"{self.directory}/{name}")
        if document is None:
            raise NotFound(f"container {self.id}", "does not exist")
        return document

    def state(self) -> dict[str, Any]:
        """The state as runtime.md has it; ``pid`` is 0 when the process is gone."""
        kept = self._load("state.json")
        alive = process.start_time(kept["pid"]) == kept["start"] and not _is_zombie(kept["pid"])
        status = "stopped" if not alive else "created" if os.path.exists(f"{self.directory}/exec.fifo") else "running"
        return {
            "ociVersion": defaults.VERSION,
            "id": self.id,
            "status": status,
            "pid": kept["pid"] if alive else 0,
            "bundle": kept["bundle"],
            "annotations": kept["annotations"],
        }

    def start(self) -> None:
        """Let init become the program. Raises Conflict unless the container is in the state ``created``."""
        self._demand("created")
        fifo = f"{self.directory}/exec.fifo"
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # ENXIO: init is gone
        try:
            os.write(descriptor, b"0")
        finally:
            os.close(descriptor)
        os.unlink(fifo)

    def kill(self, signal: int) -> None:
        """Send a signal to the first process. Raises Conflict if it is gone."""
        from _signal import pidfd_send_signal

        kept = self._load("state.json")
        try:
            pidfd = syscalls.pidfd_open(kept["pid"])
        except ProcessLookupError:
            raise Conflict(f"container {self.id}", "is not running") from None
        try:
            if process.start_time(kept["pid"]) != kept["start"] or _is_zombie(kept["pid"]):
                raise Conflict(f"container {self.id}", "is not running")
            pidfd_send_signal(pidfd, signal)
        finally:
            os.close(pidfd)

    def delete(self, force: bool = False) -> None:
        """Take back all that ``create`` made. With ``force`` a running container is killed, a missing one is fine."""
        try:
            running = self.state()["status"] in ("running", "created")
        except NotFound:
            if not force:
                raise
            running = False
        if running and not force:
            raise Conflict(f"container {self.id}", "is not stopped", "kill it first, or delete --force")
        plan = store.read_json(f"{self.directory}/plan.json") or []
        # The cgroup's undo kills what is still in it, and waits for the end.
        errors = step.undo_all([step.load(record) for record in plan])
        if errors:
            raise MinirunError(f"container {self.id}", f"could not be deleted: {errors[0]}")
        store.remove_tree(self.directory)

    def _demand(self, wanted: str) -> None:
        status = self.state()["status"]
        if status != wanted:
            raise Conflict(f"container {self.id}", f"is {status}, not {wanted}")


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return True


def read_config(bundle: str) -> dict[str, Any]:
    """config.json of a bundle. Raises InvalidDocument, NotFound, and Unsupported for what is not built yet."""
    config = store.read_json(f"{bundle}/config.json")
    if config is None:
        raise NotFound(f"{bundle}/config.json", "no such file", "name the bundle's directory with --bundle")
    if not isinstance(config, dict) or not isinstance(config.get("process"), dict):
        raise InvalidDocument("config.json: process", "expected an object")
    if not isinstance((config.get("root") or {}).get("path"), str):
        raise InvalidDocument("config.json: root.path", "expected a string")
    args = config["process"].get("args")
    if not isinstance(args, list) or not args or not all(isinstance(arg, str) for arg in args):
        raise InvalidDocument("config.json: process.args", "expected a list of strings")
    for path, what in _NOT_YET:
        found: Any = config
        for key in path.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        if found:
            raise Unsupported(f"config.json: {path}", f"minirun has no {what} yet")
    return config


def create(identity: str, bundle: str, root: str, pid_file: str | None = None) -> tuple[Bundled, int]:
    """Create a container in the state ``created``; returns it and its pid. On an error everything is undone."""
    config = read_config(bundle)
    container = Bundled(identity, root)
    store.directory(root)
    try:
        os.mkdir(container.directory, 0o711)
    except FileExistsError:
        raise Conflict(f"container {identity}", "exists already", "delete it, or take another id") from None
    steps: list[step.Step] = []
    try:
        wanted = config.get("linux", {}).get("resources") or {}
        limits = resources.plan(_cgroup_path(config, identity), wanted)
        _refuse_foreign(limits)
        steps = [limits, *resources.device_filters(limits, wanted)]
        store.write_json(f"{container.directory}/plan.json", [s.record() for s in steps])
        store.create(f"{container.directory}/config.json", strict_json.dumps(config))
        os.mkfifo(f"{container.directory}/exec.fifo", 0o600)
        step.do_all(steps)
        pid = _spawn(container, config, bundle, limits)
        if pid_file:
            store.write(pid_file, str(pid), 0o644)
    except BaseException:
        step.undo_all(steps)
        store.remove_tree(container.directory)
        raise
    return container, pid


def _cgroup_path(config: dict[str, Any], identity: str) -> str:
    wanted = config.get("linux", {}).get("cgroupsPath")
    parts = [part for part in str(wanted).split("/") if part] if wanted else [cgroup.parent, identity]
    if not parts or "." in parts or ".." in parts:  # the undo of a cgroup kills what is in it
        raise InvalidDocument(f"config.json: linux.cgroupsPath: {wanted!r}", "must name a cgroup below the root")
    return "/".join(parts)


def _refuse_foreign(limits: resources.Cgroup) -> None:
    """A cgroup that others use must not become ours: with the container its processes would be killed."""
    for directory in limits.directories:
        inner = store.entries(directory)
        if cgroup.processes(directory) or any(os.path.isdir(f"{directory}/{name}") for name in inner):
            raise Conflict(f"cgroup {directory}", "is in use", "choose another linux.cgroupsPath")


def _spawn(container: Bundled, config: dict[str, Any], bundle: str, limits: resources.Cgroup) -> int:
    linux = config.get("linux", {})
    layout = cgroup.layout()
    fifo = f"{container.directory}/exec.fifo"
    profile = linux.get("seccomp")
    ops = init_ops.create_ops(
        config,
        ["root", os.path.join(bundle, config["root"]["path"])],
        [] if layout.unified else [f"{directory}/tasks" for directory in limits.directories],
        seccomp.filter_path(profile) if profile else None,
        [["ready"], ["wait"]],
        [["fifo", fifo]],
    )
    program = config["process"]["args"]
    init, words = syscalls.sealed_copy(process.INIT), process.memory_file("ops", init_ops.words(ops, program))
    born = os.open(limits.directories[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if layout.unified else -1
    flags, joins = init_ops.namespaces(config)
    pid_paths = [path for kind, path in joins if kind == "pid"]
    pidns = os.open(pid_paths[0], os.O_RDONLY | os.O_CLOEXEC) if pid_paths else -1
    pid, pidfd, control = syscalls.spawn(flags, init, words, (0, 1, 2), cgroup=born, pidns=pidns)
    try:
        process.expect(control, Message.READY, ops, program)
        state = {
            "pid": pid,
            "start": process.start_time(pid),
            "bundle": os.path.abspath(bundle),
            "annotations": config.get("annotations") or {},
        }
        store.write_json(f"{container.directory}/state.json", state)
        syscalls.send(control, Message.START)
    except BaseException:
        from _signal import SIGKILL, pidfd_send_signal

        pidfd_send_signal(pidfd, SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        for descriptor in (init, words, pidfd, control, *([born] if born >= 0 else [])):
            os.close(descriptor)
    return pid


def wait(pid: int) -> int:
    """Stay with a child until it ends, pass signals on to it, and return its wait status."""
    import _signal as signals

    passed = {signals.SIGINT, signals.SIGTERM, signals.SIGHUP, signals.SIGQUIT, signals.SIGUSR1, signals.SIGUSR2}
    signals.pthread_sigmask(signals.SIG_BLOCK, {*passed, signals.SIGCHLD})
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        number = signals.sigwaitinfo({*passed, signals.SIGCHLD}).si_signo
        if number != signals.SIGCHLD:
            os.kill(pid, number)


def names(root: str) -> list[str]:
    """The ids of all containers below ``root``."""
    return [name for name in store.entries(root) if os.path.exists(f"{root}/{name}/state.json")]
