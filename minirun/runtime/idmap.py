"""The id maps of user namespaces (user_namespaces(7)): which ids inside are which ids outside.

Root writes any map. An ordinary user may map the own ids alone, and more only through the set-uid programs
newuidmap(1) and newgidmap(1), which look into /etc/subuid and /etc/subgid.
"""

from __future__ import annotations

import os

from minirun import store
from minirun.errors import InvalidDocument, StepFailed, Unsupported
from minirun.linux import security, syscalls
from minirun.linux.syscalls import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Mapping = dict[str, int]  # containerID, hostID, size

_PROGRAMS = "/usr/bin", "/bin", "/usr/local/bin"


def write(pid: int, users: Sequence[Mapping], groups: Sequence[Mapping]) -> None:
    """Write the maps of the user namespace that process ``pid`` is the first in."""
    privileged = os.geteuid() == 0
    if privileged or _own_only(users, os.geteuid()):
        _write(f"/proc/{pid}/uid_map", users)
    else:
        _by_program("newuidmap", pid, users)
    if privileged:
        _write(f"/proc/{pid}/gid_map", groups)
    elif _own_only(groups, os.getegid()):
        # Or else a group whose members have fewer rights than others could be left (CVE-2014-8989).
        _write_file(f"/proc/{pid}/setgroups", "deny")
        _write(f"/proc/{pid}/gid_map", groups)
    else:
        _by_program("newgidmap", pid, groups)


def keeps_groups(groups: Sequence[Mapping]) -> bool:
    """Whether nobody inside may change the supplementary groups: see ``write``."""
    return os.geteuid() != 0 and _own_only(groups, os.getegid())


def _own_only(mappings: Sequence[Mapping], own: int) -> bool:
    return len(mappings) == 1 and mappings[0]["size"] == 1 and mappings[0]["hostID"] == own


def _numbers(mappings: Sequence[Mapping]) -> list[list[str]]:
    return [[str(mapping[key]) for key in ("containerID", "hostID", "size")] for mapping in mappings]


def _write(path: str, mappings: Sequence[Mapping]) -> None:
    if mappings:
        _write_file(path, "".join(" ".join(line) + "\n" for line in _numbers(mappings)))


def _write_file(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        name = path.rpartition("/")[2]
        key = {"uid_map": "linux.uidMappings", "gid_map": "linux.gidMappings"}.get(name, name)
        raise InvalidDocument(f"config.json: {key}", f"the kernel refuses it: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _by_program(name: str, pid: int, mappings: Sequence[Mapping]) -> None:
    path = next((f"{place}/{name}" for place in _PROGRAMS if os.path.exists(f"{place}/{name}")), None)
    if path is None:
        raise Unsupported(f"more than one id in a user namespace of user {os.geteuid()}", f"{name} is not installed")
    words = [name, str(pid), *(number for line in _numbers(mappings) for number in line)]
    _, status = os.waitpid(os.posix_spawn(path, words, os.environ), 0)
    if status:
        raise StepFailed(" ".join(words), "failed", f"see /etc/sub{name[3:6]} for what user {os.geteuid()} may map")


class Holder:
    """A user namespace with maps of its own that nobody is in but a process that waits: for mounts with mapped ids.

    ``path`` stands for the namespace until ``close``.
    """

    def __init__(self, init: int, users: Sequence[Mapping], groups: Sequence[Mapping]) -> None:
        ops = os.memfd_create("ops")
        store.write_all(ops, b"ready\0--\0holder\0")
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._pid, pidfd, self._control = syscalls.spawn(security.NAMESPACES["user"], init, ops, (null, null, null))
        for descriptor in (ops, null, pidfd):
            os.close(descriptor)
        message = syscalls.receive(self._control)
        self.path = f"/proc/{self._pid}/ns/user"
        try:
            if message is None or message.type != Message.READY:
                raise StepFailed("a user namespace for a mount could not be made")
            write(self._pid, users, groups)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the process end."""
        os.close(self._control)
        os.waitpid(self._pid, 0)


class Holders:
    """The namespaces that the mounts of one container need: one for each pair of maps, for as long as init starts."""

    def __init__(self, init: int) -> None:
        self._init = init
        self._made: dict[str, Holder] = {}

    def path(self, users: Sequence[Mapping], groups: Sequence[Mapping]) -> str:
        """A file that stands for a user namespace with these maps."""
        key = f"{_numbers(users)} {_numbers(groups)}"
        if key not in self._made:
            self._made[key] = Holder(self._init, users, groups)
        return self._made[key].path

    def close(self) -> None:
        """Let them go."""
        for holder in self._made.values():
            holder.close()
