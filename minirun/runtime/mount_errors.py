"""Why a mount failed, in words: one errno of mount(2) or openat2(2) stands for many causes."""

from __future__ import annotations

import os
from errno import E2BIG, EINVAL, ELOOP, ENODEV, ENOENT, ENOTDIR, EPERM

from minirun.errors import StepFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_CAUSES = {
    E2BIG: ("its options are longer than a page", ""),
    ELOOP: ("must be mounted on ordinary directory", "a symbolic link of the image stands in the way"),
    ENOTDIR: ("one is a directory and the other is not", "mount a file on a file"),
}


def told(op: Sequence[str], error: int) -> StepFailed:
    """The error of a failed op ``mount`` or ``tree``: what was to be mounted where, and why it was not."""
    source, options = op[1], op[2 if op[0] == "tree" else 4].split(",")
    bind = "bind" in options or "rbind" in options
    if bind and not os.path.exists(source):
        return StepFailed(f"mount source {source!r}", os.strerror(ENOENT).lower())
    if op[0] == "tree":
        what, cause = f"mount source {source!r}", _of_tree(options, error)
    else:
        what = f"mount of {source!r} on {op[2]!r}" if bind else f"mount of {op[3]} on {op[2]!r}"
        cause = _of_link(op, error) if bind else _of_file_system(op[3], error)
    why, remedy = cause or _CAUSES.get(error) or (os.strerror(error).lower(), "")
    return StepFailed(what, why, remedy)


def _of_tree(options: Sequence[str], error: int) -> tuple[str, str] | None:
    if error in (EINVAL, EPERM) and ("idmap" in options or "ridmap" in options):
        return "its file system cannot show other owners", "leave idmap out, or use another file system"
    return None


def _of_link(op: Sequence[str], error: int) -> tuple[str, str] | None:
    if error == EPERM and not op[2].startswith("/proc"):
        return "not permitted: a link of the image may lead into /proc, or a flag of the source is locked", ""
    return None


def _of_file_system(kind: str, error: int) -> tuple[str, str] | None:
    if error == EPERM and kind == "proc":
        return "the kernel refuses a procfs", "give the container a PID namespace of its own, or bind the host's /proc"
    if error == EPERM:
        return f"the kernel refuses a new {kind} here", "what it shows belongs to a namespace of the host"
    if error == ENODEV:
        return f"the kernel has no file system {kind!r}", ""
    if error == EINVAL:
        return "the file system refuses an option", "see dmesg"
    return None
