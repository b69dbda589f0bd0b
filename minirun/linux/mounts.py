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
