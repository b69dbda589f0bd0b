"""Seccomp filters: an OCI ``linux.seccomp`` in, a file with the BPF program out, compiled once.

Compiling takes milliseconds and loads libseccomp; most containers have the same profile. So the program is kept under
the hash of all that it follows from, and a start costs a hash and three stats. ``minirun-init`` installs the file's
bytes, an array of ``struct sock_filter`` (seccomp(2)), just before it executes the program.

Who could write such a file could lift the filter of every container to come: the directory and the file must be ours
and nobody else's.
"""

from __future__ import annotations

import os

from minirun import __version__, store, strict_json
from minirun.errors import Conflict, InvalidDocument

try:  # hashlib would load OpenSSL
    from _sha256 import sha256  # type: ignore[import-not-found]
except ImportError:
    from _sha2 import sha256  # type: ignore[import-not-found]  # its name since Python 3.12

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FLAGS = {  # of seccomp(2), <linux/seccomp.h>
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
_TYPE, _REGULAR, _DIRECTORY, _OTHERS_WRITE = 0o170000, 0o100000, 0o040000, 0o022


def filter_path(profile: dict[str, Any]) -> str:
    """The file with the compiled ``profile``, made if it is not there yet. Raises InvalidDocument."""
    directory = _directory()
    path = os.path.join(directory, _key(profile, directory) + ".bpf")
    if not _is_ours(path, _REGULAR):
        _write(path, compile(profile))
    return path


def compile(profile: dict[str, Any]) -> bytes:
    """The BPF program of an OCI ``linux.seccomp`` object. Raises InvalidDocument, naming the JSON path."""
    from minirun.linux import seccomp_compiler

    return seccomp_compiler.compile(profile)


def flags(profile: dict[str, Any]) -> int:
    """What to pass to seccomp(2) along with the program. Raises InvalidDocument for a flag that does not exist."""
    wanted = profile.get("flags") or []
    if not isinstance(wanted, list):
        raise InvalidDocument("linux.seccomp.flags", "expected a list")
    result = 0
    for number, name in enumerate(wanted):
        if not isinstance(name, str) or name not in FLAGS:
            raise InvalidDocument(f"linux.seccomp.flags[{number}]", f"unknown flag {name!r:.60}")
        result |= FLAGS[name]
    return result


def _directory() -> str:
    path = f"{store.state}/seccomp"
    if not _is_ours(path, _DIRECTORY) and not _is_ours(store.directory(path), _DIRECTORY):
        raise Conflict(path, "others may write there", "remove it")
    return path


def _key(profile: dict[str, Any], directory: str) -> str:
    """The hash of what decides the program: the profile, we, the machine and the very file of libseccomp."""
    library = _library(os.path.join(directory, "libseccomp"))
    text = f"{__version__} {os.uname().machine} {library} {strict_json.dumps(profile)}"
    return str(sha256(text.encode("utf-8", "surrogatepass")).hexdigest())


def _library(link: str) -> str:
    """Which libseccomp we use, without loading it: a link to its file stays from the time when it was loaded.

    An upgrade removes the file or replaces it, and so changes the key: a filter never outlives a bug in its compiler.
    """
    try:
        found = os.stat(link)
    except FileNotFoundError:
        found = os.stat(_note_library(link))
    return f"{found.st_dev}.{found.st_ino}.{found.st_ctime_ns}"


def _note_library(link: str) -> str:
    from minirun.linux import seccomp_compiler

    path = seccomp_compiler.library()
    try:
        os.unlink(link)  # it may point to a file that is gone
    except FileNotFoundError:
        pass
    try:
        os.symlink(path, link)
    except FileExistsError:
        pass  # another start was quicker
    return path


def _is_ours(path: str, kind: int) -> bool:
    """Whether ``path`` itself, no link, is of this kind, belongs to us, and nobody else may write to it."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    return found.st_mode & _TYPE == kind and found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_WRITE


def _write(path: str, program: bytes) -> None:
    temporary = f"{path}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        store.write_all(descriptor, program)
    finally:
        os.close(descriptor)
    os.rename(temporary, path)
