"""Where a container's cgroup is, and its limits: ``place`` before it is made, ``load`` ever after.

The path is ``linux.cgroupsPath`` below the mount of each hierarchy, or ``<cgroup.parent>/<id>``. A user has no
cgroup, unless one was handed over to them (v2, "Delegation"): then the container's is below that.
"""

from __future__ import annotations

import os

from minirun.errors import InvalidDocument, MinirunError, Unsupported
from minirun.linux import cgroup
from minirun.runtime import resources
from minirun.runtime.claim import Claim, Scope, owner
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minirun.runtime.control import Handle

_EBUSY, _EINVAL = 16, 22
_DELEGATE = "run it in a scope of its own: systemd-run --user --scope -p Delegate=yes"


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
            if isinstance(step, (Claim, Scope)):
                step.release()


def place(config: dict[str, Any], identity: str, systemd: bool = False, rootless: bool = False) -> Placement:
    """The place of container ``identity`` with this config.json. Raises InvalidDocument and Unsupported."""
    linux = config.get("linux") or {}
    wanted = linux.get("resources") or {}
    if not isinstance(wanted, dict):
        raise InvalidDocument("linux.resources", f"expected an object, got {type(wanted).__name__}")
    if systemd:
        return _scope(linux.get("cgroupsPath"), identity, wanted, rootless)
    asked = cgroup_path(linux.get("cgroupsPath"), identity)
    path = _allowed(asked, bool(linux.get("cgroupsPath")), wanted) if rootless else asked
    if path is None:
        return Placement([], {})
    directories = cgroup.layout().everywhere(path)
    claim = f"{identity}:{os.getpid()}:{_now()}"
    steps: list[Step] = [Claim(list(dict.fromkeys(directories.values())), claim)]
    return Placement([*steps, *limit_steps(directories, wanted, rootless)], directories, claim)


def _scope(wanted_path: Any, identity: str, wanted: dict[str, Any], user: bool) -> Placement:
    """A scope of systemd, in the slice that a cgroupsPath of another form names."""
    from minirun.runtime import systemd

    path, unit, slice_name = systemd.place(wanted_path, identity, user)
    directories = cgroup.layout().everywhere(path)
    claim = f"{identity}:{os.getpid()}:{_now()}"
    properties = systemd.properties(slice_name, identity, limit_files(directories, wanted, user))
    step = Scope(list(directories.values()), claim, unit, properties, user)
    found = Placement([step, *limit_steps(directories, wanted, user)], directories, claim)
    found.record |= {"unit": unit, "user": user}
    return found


def _allowed(path: str, explicit: bool, wanted: dict[str, Any]) -> str | None:
    """The path for a user who is not root; None where the user may have no cgroup and the container needs none."""
    layout = cgroup.layout()
    if all(_may_make(directory) for directory in layout.everywhere(path).values()):
        return path
    if explicit:
        raise Unsupported("linux.cgroupsPath", f"you may make no cgroup {path}", f"leave it out, or {_DELEGATE}")
    own = _delegated() if layout.unified else None
    if own is not None:
        return f"{own}/{path}"
    for limit in resources.settings(wanted, layout.unified):
        if limit.controller != "devices":
            raise Unsupported(limit.where, "you have no cgroup to set a limit in", f"leave it out, or {_DELEGATE}")
    return None


def _may_make(directory: str) -> bool:
    """Whether we may make this cgroup and move into it."""
    while not os.path.exists(directory):
        directory = os.path.dirname(directory)
    return os.access(directory, os.W_OK) and os.access(f"{directory}/cgroup.procs", os.W_OK)


def _delegated() -> str | None:
    """The highest cgroup at or above our own that was handed over to us: within it processes may be moved."""
    with open("/proc/self/cgroup") as file:
        own = next((line[3:].strip() for line in file if line.startswith("0::")), "/")
    parts = [part for part in own.split("/") if part]
    for length in range(1, len(parts) + 1):
        path = "/".join(parts[:length])
        if _may_make(cgroup.layout().directory(path)):
            return path
    return None


def load(record: dict[str, Any]) -> Handle:
    """The cgroup that a placement's ``record`` describes; one without directories if it is another container's now.

    That of a container that has ended is empty, and may be taken by the next one that asks for it.
    """
    from minirun.runtime.control import Handle

    top = next(iter((record.get("directories") or {}).values()), None)
    if top and owner(top) not in (record.get("claim"), None):
        return Handle({**record, "directories": {}})
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
    """The steps that set the limits of ``linux.resources``.

    Of a document that says nothing about devices everyone means the promised ones, and no others.
    """
    wanted = {**wanted, "devices": wanted.get("devices") or [{"allow": False, "access": "rwm"}]}
    files = limit_files(directories, wanted, rootless)
    steps: list[Step] = [Limits(files)] if files else []
    if cgroup.layout().unified and not rootless:
        rules = resources.device_rules(wanted)
        steps += [resources.DeviceFilter(directories[""], rules)] if rules else []
    return steps


def limit_files(directories: dict[str, str], wanted: dict[str, Any], rootless: bool = False) -> list[list[str]]:
    """[place in the document, file, value, and what else if there is no such file] of each limit.

    Raises Unsupported for a controller that this machine lacks.
    """
    layout = cgroup.layout()
    hugetlb_v2 = not layout.unified and "hugetlb" not in directories and "" in directories
    files = []
    if rootless:  # the kernel lets nobody else say which devices may be used, and a user needs no more walls there
        wanted = {key: value for key, value in wanted.items() if key != "devices"}
    for one in resources.settings(wanted, layout.unified, hugetlb_v2):
        base = directories.get(one.controller)
        if base is None:
            what = (
                f"cgroup controller {one.controller} is not mounted" if directories else "the container has no cgroup"
            )
            raise Unsupported(one.where, what, "leave it out")
        otherwise = []
        if one.otherwise is not None:
            file, _, value = one.otherwise.partition("=")
            otherwise = [f"{base}/{file}" if file else "", value]
        files.append([one.where, f"{base}/{one.file}", one.value, *otherwise])
    return files


class Limits(Step):
    """Set the limits of the container's cgroup."""

    kind = "limits"
    fields = ("files",)
    files: list[list[str]]

    def sh(self) -> str:
        return "\n".join(f"echo '{value}' > {path}" for _, path, value, *_ in self.files)

    def do(self) -> None:
        for path, settings in _by_file(self.files):
            try:
                cgroup.write(path, *(value for _, _, value, *_ in settings))
            except OSError:  # once more, one by one: which it was, and what else there may be for it
                for setting in settings:
                    write_limit(*setting)

    def undo(self) -> None:
        """Nothing: they go with the cgroup."""


def _by_file(files: list[list[str]]) -> list[tuple[str, list[list[str]]]]:
    """Settings in a row that are for the same file; the rules of v1's devices are a dozen for two files."""
    found: list[tuple[str, list[list[str]]]] = []
    for setting in files:
        if not found or found[-1][0] != setting[1]:
            found.append((setting[1], []))
        found[-1][1].append(setting)
    return found


def write_limit(where: str, path: str, value: str, *otherwise: str) -> str:
    """Write one limit and return the file that took it. The error names the place in the document."""
    try:
        cgroup.write(path, value)
        return path
    except FileNotFoundError:
        if cgroup.enable(path):
            return write_limit(where, path, value, *otherwise)
        if not otherwise:
            raise Unsupported(where, f"there is no {path}", _missing(path)) from None
    except OSError as error:
        why = f"the kernel refuses {value!r} for {path}: {error.strerror}"
        raise MinirunError(where, why, _remedy(path, error.errno or 0)) from None
    if not otherwise[0]:
        return ""
    return write_limit(where, *otherwise)


def _missing(path: str) -> str:
    directory, name = path.rsplit("/", 1)
    if not os.path.isdir(directory):
        return "the cgroup is gone"
    controller = name.partition(".")[0]
    control = f"{os.path.dirname(directory)}/cgroup.subtree_control"
    if os.path.exists(control) and controller not in cgroup.words(control):
        return f"controller {controller} is not enabled in {control}"
    return "this kernel has no such limit"


def _remedy(path: str, error: int) -> str:
    name = path.rsplit("/", 1)[1]
    if error == _EINVAL and name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
        return "memory must not be more than memory and swap together (linux.resources.memory.swap)"
    if error == _EBUSY and name.endswith("limit_in_bytes"):
        used = cgroup.words(path.replace("limit_in_bytes", "usage_in_bytes"))
        return f"{''.join(used)} bytes are in use"
    return ""
