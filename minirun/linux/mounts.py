"""The mounts that this process sees, read once: a start asks twice, for cgroups and for the folder of namespaces."""

from __future__ import annotations

from minirun import store

_read: list[list[str]] = []


def mountinfo(fresh: bool = False) -> list[str]:
    """The lines of proc_pid_mountinfo(5); ``fresh`` reads them again."""
    if fresh or not _read:
        _read[:] = [(store.read("/proc/self/mountinfo") or "").splitlines()]
    return _read[0]


def is_mount_point(path: str, fresh: bool = False) -> bool:
    """Whether something is mounted at exactly this path (without blanks, which the kernel writes as octal)."""
    return any(line.split(" ", 5)[4] == path for line in mountinfo(fresh))


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
