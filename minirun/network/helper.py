"""Starting one of the few programs that minirun uses, at first use of something and never in a normal start."""

from __future__ import annotations

import os

from minirun.errors import MinirunError, Unsupported


def run(words: list[str], package: str, text: str = "") -> str:
    """Run a program with ``text`` as its input, and return what it prints.

    Raises Unsupported, naming the ``package``, if it is not there; MinirunError with the first line of what it said.
    """
    path = _path(words[0], package)
    source, output, complaint = os.memfd_create("input"), os.memfd_create("output"), os.memfd_create("errors")
    try:
        os.write(source, text.encode())
        os.lseek(source, 0, os.SEEK_SET)
        streams = [(os.POSIX_SPAWN_DUP2, new, old) for old, new in enumerate((source, output, complaint))]
        pid = os.posix_spawn(path, words, os.environ, file_actions=streams)
        _, status = os.waitpid(pid, 0)
        if status:
            said = os.pread(complaint, 4096, 0).decode(errors="replace").strip().split("\n")[0]
            raise MinirunError(" ".join(words), said or f"exit {os.waitstatus_to_exitcode(status)}")
        return os.pread(output, os.fstat(output).st_size, 0).decode(errors="replace")
    finally:
        for descriptor in (source, output, complaint):
            os.close(descriptor)


def installed(name: str) -> bool:
    """Whether a program is there."""
    try:
        return bool(_path(name, ""))
    except Unsupported:
        return False


def _path(name: str, package: str) -> str:
    """Where a program is; a shell of root that su(1) made may lack the sbin folders in its PATH."""
    for folder in [*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/sbin"]:
        if folder and os.access(f"{folder}/{name}", os.X_OK):
            return f"{folder}/{name}"
    raise Unsupported(name, "not installed", f"install the package {package}")
