"""The mounts that this process sees."""

from __future__ import annotations

import os

from minirun import store

MOUNTINFO = "/proc/self/mountinfo"
_read: list[list[str]] = []


def mountinfo(fresh: bool = False) -> list[str]:
    """The lines of proc_pid_mountinfo(5); ``fresh`` reads them again."""
    if fresh or not _read:
        _read[:] = [(store.read(MOUNTINFO) or "").splitlines()]
    return _read[0]


def old() -> list[str]:
    """The lines of mountinfo up to where there are only namespaces: each container has one, all younger than what the
    machine mounted for itself, and to read a thousand lines takes milliseconds.
    """
    descriptor = os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
    lines: list[str] = []
    try:
        while chunk := os.read(descriptor, 1 << 16):  # whole lines, 4 KiB of them
            found = chunk.decode("utf-8", "surrogateescape").splitlines()
            lines += found
            if all(" - nsfs " in line for line in found):
                break
    finally:
        os.close(descriptor)
    return lines


def points() -> list[tuple[int, str]]:
    """The id and the mount point of each mount, as they are now, in the order in which they were made.

    The kernel writes four characters of a path as octal numbers (proc_pid_mountinfo(5)); here they are themselves.
    """
    found = []
    for line in mountinfo(fresh=True):
        words = line.split(" ", 5)
        path = words[4]
        for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
            path = path.replace(code, character)
        found.append((int(words[0]), path))
    return found


def kind(path: str) -> str:
    """The type of the file system that is mounted at exactly this path, whole, such as "proc"; "" for none."""
    found = ""
    for line in mountinfo():
        before, _, after = line.partition(" - ")
        words = before.split(" ", 5)
        if words[4] == path and words[3] == "/":
            found = after.split(" ", 1)[0]  # the last one is on top
    return found
