"""Where minirun keeps what it knows: plain files that ``cat`` and ``ls`` can read.

    <state>  /run/minirun       what lives: containers/<id>/, networks/<name>/leases/; gone after a reboot, as it should
    <root>   /var/lib/minirun   what lasts: images/ layers/ containers/<id>/ networks/<name>/network.json

JSON is written by rename, so that a reader sees the old text or the new one. Nothing here is fsynced: what <state>
describes is kernel objects, and both are gone together when the power fails; a kill -9 loses no page cache.
"""

from __future__ import annotations

import os

from minirun import strict_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

root = os.environ.get("MINIRUN_ROOT", "/var/lib/minirun")
state = os.environ.get("MINIRUN_STATE", "/run/minirun")


_CHUNK = 1 << 16


def write(path: str, text: str, mode: int = 0o600) -> None:
    """Replace the file at ``path`` by ``text`` (UTF-8) in one rename."""
    temporary = f"{path}.{os.getpid()}"
    try:
        create(temporary, text, mode)
        os.rename(temporary, path)
    except OSError as error:  # who reads it does not know the temporary name
        raise OSError(error.errno, error.strerror, path) from None


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``: a disk that is nearly full shows it by a short write first, and by an error then."""
    while data:
        data = data[os.write(descriptor, data) :]


def create(path: str, text: str, mode: int = 0o600) -> None:
    """Write a file that nobody reads before we are done with all of them.

    A byte that is not UTF-8 (a surrogate, PEP 383) becomes ``\\udcff``, which in JSON is its escape: it comes back.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        write_all(descriptor, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(descriptor)


def create_whole(path: str, text: str, mode: int = 0o600) -> None:
    """Make a file that appears with all of its text, or, if we are killed, not at all: no temporary name is left.

    Raises FileExistsError if the name is taken.
    """
    folder, name = os.path.split(path)
    directory_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    descriptor = -1
    try:
        descriptor = os.open(".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, mode, dir_fd=directory_fd)
        write_all(descriptor, text.encode("utf-8", "backslashreplace"))
        os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=directory_fd)  # open(2), O_TMPFILE, has this idiom
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)
        os.close(directory_fd)


def read(path: str) -> str | None:
    """The text of a file, or None if there is none. Bytes that are not UTF-8 come as surrogates."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        chunks = [os.read(descriptor, _CHUNK)]
        # A file ends with a short read. Those of procfs do not, so there the end is asked for.
        while len(chunks[-1]) == _CHUNK or (chunks[-1] and path.startswith("/proc/")):
            chunks.append(os.read(descriptor, _CHUNK))
        return b"".join(chunks).decode("utf-8", "surrogateescape")
    except OSError as error:  # a directory, for one: read(2) does not know the name
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(descriptor)


def write_json(path: str, value: Any, mode: int = 0o600) -> None:
    """Replace the file at ``path`` by one line of JSON."""
    write(path, strict_json.dumps(value) + "\n", mode)


def read_json(path: str) -> Any:
    """The JSON value in a file, or None if there is no such file. Raises InvalidDocument."""
    text = read(path)
    return None if text is None else strict_json.loads(text, path)


def directory(*parts: str, mode: int = 0o700) -> str:
    """The path made of ``parts``, with every missing directory of it created."""
    path = os.path.join(*parts)
    try:
        os.mkdir(path, mode)
    except FileNotFoundError:
        if os.path.isdir(os.path.dirname(path)):  # a file system that makes none, such as /proc
            raise
        directory(os.path.dirname(path), mode=mode)
        directory(path, mode=mode)
    except FileExistsError:
        pass
    return path


def entries(path: str) -> list[str]:
    """The names in a directory, sorted; none if it does not exist."""
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []


def remove_tree(path: str) -> None:
    """Remove a directory and all below it, never following a symbolic link; missing is fine."""
    from minirun.linux import syscalls

    syscalls.remove_tree(path)
