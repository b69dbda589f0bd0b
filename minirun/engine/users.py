"""Who a container runs as: ``-u``, or the image's User, to numbers, by the image's own passwd and group.

The files belong to the image, so they are read with suspicion: inside the root only, regular files only, 1 MiB at most
(CVE-2026-46680: a FIFO as /etc/passwd must not hang the host). A number is a number, never a name, and fits in 31
bits (CVE-2024-40635). No libc look-up: NSS would load code that the image chooses.
"""

from __future__ import annotations

import os
from stat import S_ISREG

from minirun.errors import UsageError
from minirun.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_FILE = 1 << 20
MAX_ID = 2**31 - 1


class User:
    """A process's identity: numbers, and the home directory for $HOME."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid, self.gid, self.groups, self.home = uid, gid, groups, home


def read_in(root: int, path: str) -> str | None:
    """A small regular file below the open directory ``root``, links resolved inside it; None if there is none."""
    try:
        found = syscalls.open_inside(root, path, os.O_PATH)
    except OSError:
        return None
    try:
        # Looked at before it is opened: to open a device node or a FIFO is itself an act.
        status = os.fstat(found)
        if not S_ISREG(status.st_mode) or status.st_size > MAX_FILE:
            return None
        descriptor = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, status.st_size).decode("utf-8", "replace")
        finally:
            os.close(descriptor)
    finally:
        os.close(found)


def reader(roots: Iterable[str]) -> Callable[[str], str]:
    """A function that reads a file from the topmost of ``roots`` (upper directory, layers downward) that has it."""
    order = list(roots)
    opened: dict[str, int] = {}  # for the command's short life

    def read(path: str) -> str:
        for root in order:
            if root not in opened:
                opened[root] = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            text = read_in(opened[root], path)
            if text is not None:
                return text
        return ""

    return read


def resolve(wanted: str, read: Callable[[str], str], extra_groups: Iterable[str] = ()) -> User:
    """``wanted`` is ``user[:group]``, names or numbers, as docker-run(1) takes it; "" is root.

    Raises UsageError for a name that is not in the container's files and a number out of range.
    """
    user, colon, group = (wanted or "0").partition(":")
    passwd = [line.split(":") for line in read("etc/passwd").splitlines()]
    groups = [line.split(":") for line in read("etc/group").splitlines()]
    uid = _number(user, wanted)
    entry = next((e for e in passwd if len(e) >= 6 and (e[0] == user if uid is None else e[2] == str(uid))), None)
    if uid is None:
        if entry is None or not entry[2].isdecimal():
            raise UsageError(f"user {user!r}", "not in the container's /etc/passwd", "use a number")
        uid = _in_range(int(entry[2]), wanted)
    gid = int(entry[3]) if entry and entry[3].isdecimal() else 0
    name = entry[0] if entry else None
    if colon:
        gid = _group(group, groups, wanted)
        member_of: list[int] = []  # as docker: naming the group drops those of /etc/group
    else:
        member_of = [int(e[2]) for e in groups if len(e) >= 4 and name in e[3].split(",") and e[2].isdecimal()]
    member_of += [_group(extra, groups, wanted) for extra in extra_groups]
    return User(uid, _in_range(gid, wanted), sorted({*member_of, gid}), entry[5] if entry and entry[5] else "/")


def _group(name: str, groups: list[list[str]], wanted: str) -> int:
    number = _number(name, wanted)
    if number is not None:
        return number
    for entry in groups:
        if len(entry) >= 3 and entry[0] == name and entry[2].isdecimal():
            return _in_range(int(entry[2]), wanted)
    raise UsageError(f"group {name!r}", "not in the container's /etc/group", "use a number")


def _number(text: str, wanted: str) -> int | None:
    if not text.isdecimal() or not text.isascii():
        return None
    return _in_range(int(text) if len(text) < 20 else MAX_ID + 1, wanted)


def _in_range(number: int, wanted: str) -> int:
    if number > MAX_ID:
        raise UsageError(f"user {wanted!r}", f"ids go from 0 to {MAX_ID}")
    return number
