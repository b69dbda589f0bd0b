"""Where a container's cgroup is, and how it becomes this container's and nobody else's.

The path is ``linux.cgroupsPath`` below the mount of each hierarchy. A cgroup may be there already, made by who calls
us, and is taken if it is empty. Two containers could be given the same path, by mistake or at the same moment; at
the end of one the other's processes must not die. Therefore a cgroup is claimed: its directory is locked (flock(2))
while a container is made in it, and an extended attribute says whose it is for as long as it is there.
"""

from __future__ import annotations

import os

from minirun.errors import Conflict, InvalidDocument, MinirunError, Unsupported
from minirun.linux import cgroup
from minirun.runtime import resources
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minirun.runtime.control import Handle

_EACCES, _EROFS, _EPERM = 13, 30, 1


class Placement:
    """What `create` needs to know: the steps that make the cgroup, and how init gets into it.

    ``joins`` are files into which init writes "0"; ``born`` is a directory of v2 to be born in, or None; both are valid
    when the steps have been done. ``record`` is for state.json, and for ``load``.
    """

    __slots__ = ("born", "joins", "record", "steps")

    def __init__(self, steps: list[Step], directories: dict[str, str], claim: str = "") -> None:
        self.steps = steps
        self.born = directories.get("")
        self.joins = [f"{path}/tasks" for path in dict.fromkeys(directories.values()) if path != self.born]
        self.record: dict[str, Any] = {"directories": directories, "claim": claim}

    def settle(self) -> None:
        """To be called when init is inside: nobody can take the cgroup any longer, so the lock on it can go."""
        for step in self.steps:
            if isinstance(step, Claim):
                step.release()


def place(config: dict[str, Any], identity: str, systemd: bool = False, rootless: bool = False) -> Placement:
    """The place of container ``identity`` with this config.json. Raises InvalidDocument and Unsupported."""
    linux = config.get("linux") or {}
    wanted = linux.get("resources") or {}
    if systemd:
        raise Unsupported("systemd cgroup driver", "systemd does not run here", "leave --systemd-cgroup out")
    path = cgroup_path(linux.get("cgroupsPath"), identity)
    directories = cgroup.layout().everywhere(path)
    claim = f"{identity}:{os.getpid()}:{_now()}"
    steps: list[Step] = [Claim(list(dict.fromkeys(directories.values())), claim)]
    return Placement([*steps, *limit_steps(directories, wanted, rootless)], directories, claim)


def load(record: dict[str, Any]) -> Handle:
    """The cgroup that a placement's ``record`` describes."""
    from minirun.runtime.control import Handle

    return Handle(record)


def _now() -> int:
    from time import monotonic_ns

    return monotonic_ns()


def cgroup_path(wanted: Any, identity: str) -> str:
    """The path below the mounts that a cgroupsPath means. Raises InvalidDocument for the root and for "..".

    Whoever deletes the container kills what is in its cgroup.
    """
    if wanted is not None and not isinstance(wanted, str):
        raise InvalidDocument("linux.cgroupsPath", f"expected string, got {type(wanted).__name__}")
    parts = [part for part in wanted.split("/") if part and part != "."] if wanted else [cgroup.parent, identity]
    if not parts or ".." in parts or "\n" in str(wanted):
        raise InvalidDocument("linux.cgroupsPath", f"{wanted!r:.200} must name a cgroup below the root")
    return "/".join(parts)


def limit_steps(directories: dict[str, str], wanted: dict[str, Any], rootless: bool = False) -> list[Step]:
    """The steps that set the limits of ``linux.resources``."""
    files = limit_files(directories, wanted)
    steps: list[Step] = [Limits(files)] if files else []
    if cgroup.layout().unified and not rootless:
        rules = resources.device_rules(wanted)
        steps += [resources.DeviceFilter(directories[""], rules)] if rules else []
    return steps


def limit_files(directories: dict[str, str], wanted: dict[str, Any]) -> list[list[str]]:
    """[place in the document, file, value, and what else if there is no such file] of each limit.

    Raises Unsupported for a controller that this machine lacks.
    """
    layout = cgroup.layout()
    hugetlb_v2 = not layout.unified and "hugetlb" not in directories and "" in directories
    files = []
    for one in resources.settings(wanted, hugetlb_v2):
        base = directories.get(one.controller)
        if base is None:
            remedy = "leave it out, or mount the controller"
            raise Unsupported(one.where, f"cgroup controller {one.controller} is not mounted", remedy)
        otherwise = []
        if one.otherwise is not None:
            file, _, value = one.otherwise.partition("=")
            otherwise = [f"{base}/{file}" if file else "", value]
        files.append([one.where, f"{base}/{one.file}", one.value, *otherwise])
    return files


class Claim(Step):
    """Make the container's cgroup in all hierarchies, and make it ours."""

    kind = "cgroup-claim"
    fields = ("directories", "claim")
    directories: list[str]
    claim: str

    _lock = -1

    def sh(self) -> str:
        return f"mkdir -p {' '.join(self.directories)}\nsetfattr -n {_name()} -v '{self.claim}' {self.directories[0]}"

    def do(self) -> None:
        try:
            self._lock = _claim(self.directories[0], self.claim)
            for directory in self.directories[1:]:
                if not cgroup.create(directory):
                    _refuse_used(directory)
            _refuse_frozen(self.directories)
        except OSError as error:
            raise _not_made(error, self.directories[0]) from error

    def undo(self) -> None:
        """Remove it with all that is in it, if it is ours; the first directory last, since it says so."""
        self.release()
        owner = _owner(self.directories[0])
        if owner is None:
            _remove_unclaimed(self.directories[0])
        if owner != self.claim:
            return
        for directory in reversed(self.directories):
            cgroup.remove(directory)

    def release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class Limits(Step):
    """Set the limits of the container's cgroup."""

    kind = "limits"
    fields = ("files",)
    files: list[list[str]]

    def sh(self) -> str:
        return "\n".join(f"echo '{value}' > {path}" for _, path, value, *_ in self.files)

    def do(self) -> None:
        for file in self.files:
            write_limit(*file)

    def undo(self) -> None:
        """Nothing: they go with the cgroup."""


def write_limit(where: str, path: str, value: str, *otherwise: str) -> str:
    """Write one limit and return the file that took it. The error names the place in the document."""
    try:
        cgroup.write(path, value)
        return path
    except FileNotFoundError:
        if not otherwise:
            raise Unsupported(where, f"there is no {path}", _missing(path)) from None
    except OSError as error:
        why = f"the kernel refuses {value!r} for {path}: {error.strerror}"
        raise MinirunError(where, why, _refused(path)) from None
    if not otherwise[0]:
        return ""
    return write_limit(where, *otherwise)


def _missing(path: str) -> str:
    directory, name = path.rsplit("/", 1)
    if not os.path.isdir(directory):
        return "the cgroup is gone"
    controller = name.partition(".")[0]
    control = f"{os.path.dirname(directory)}/cgroup.subtree_control"
    if os.path.exists(control) and controller not in _words(control):
        return f"controller {controller} is not enabled in {control}"
    return "this kernel has no such limit"


def _refused(path: str) -> str:
    if path.endswith(("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")):
        try:
            usage = f"{path.removesuffix('limit_in_bytes')}usage_in_bytes"
            with open(usage) as file:
                return f"in use are {file.read().strip()}"
        except OSError:
            pass
    return ""


def _words(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().split()
    except OSError:
        return []


def _name() -> str:
    """The extended attribute that says whose a cgroup is: trusted ones are root's, the others the owner's."""
    return "trusted.minirun" if os.geteuid() == 0 else "user.minirun"


def _owner(directory: str) -> str | None:
    """Who has claimed a cgroup; None if it is gone or nobody's."""
    for name in ("trusted.minirun", "user.minirun"):
        try:
            return os.getxattr(directory, name).decode()
        except OSError:
            continue
    return None


def _claim(directory: str, claim: str) -> int:
    """Make the cgroup if need be, and make it ours: the locked descriptor. Raises Conflict if it is in use."""
    import fcntl

    while True:
        cgroup.create(directory)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _refuse_used(directory)
            os.setxattr(descriptor, _name(), claim.encode())
            return descriptor
        except FileNotFoundError:  # its last container was being deleted
            os.close(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            raise _in_use(directory) from None
        except BaseException:
            os.close(descriptor)
            raise


def _refuse_used(directory: str) -> None:
    """A cgroup that others use must not become ours: with the container its processes would be killed."""
    if os.stat(directory).st_nlink > 2 or cgroup.processes(directory):
        raise _in_use(directory)


def _refuse_frozen(directories: list[str]) -> None:
    """Frozen itself or below a frozen one: init would not come back from joining it."""
    for directory in directories:
        for name, word in (("freezer.state", "THAWED"), ("cgroup.events", "0")):
            words = _words(f"{directory}/{name}")
            if words and words[-1] != word and "populated" not in words[-2:]:
                raise Conflict(f"cgroup {directory}", "is frozen, and so would the container be", "thaw it first")


def _remove_unclaimed(directory: str) -> None:
    """Remove what we made and had no time to claim: it is empty, and nobody is at work in it."""
    import fcntl

    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rmdir(directory)
    except OSError:
        return
    finally:
        os.close(descriptor)


def _in_use(directory: str) -> Conflict:
    return Conflict(f"cgroup {directory}", "container's cgroup is not empty", "choose another linux.cgroupsPath")


def _not_made(error: OSError, directory: str) -> MinirunError:
    return MinirunError(f"cgroup {directory}", f"cannot be made: {error}")
