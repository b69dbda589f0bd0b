"""A directory that nothing can be created outside of, whatever the names in an archive say.

Every path is walked by the kernel itself: openat2(2) with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and
RESOLVE_NO_MAGICLINKS gives the descriptor of the parent directory, and the last name is created in it with O_EXCL and
O_NOFOLLOW. Checking names in Python and then using paths is how tarfile, docker and podman were broken
(CVE-2025-4517, CVE-2019-14271): between the check and the use a path can become another.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Callable

from minirun import store
from minirun.errors import InvalidDocument, Unsupported

OPAQUE = "trusted.overlay.opaque"  # the whole directory replaces those below it
MAX_DEPTH = 256  # directories; below what any program that walks a tree by recursion can stand

_SYS_OPENAT2 = 437  # the same number on every architecture
_RESOLVE = 0x08 | 0x04 | 0x02  # RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
_syscall.restype = ctypes.c_long


class Metadata:
    """What a tree keeps about a file besides its content."""

    __slots__ = ("gid", "mode", "mtime_ns", "uid", "xattrs")

    def __init__(self, uid: int, gid: int, mode: int, mtime_ns: int, xattrs: dict[str, bytes]) -> None:
        self.uid, self.gid, self.mode, self.mtime_ns, self.xattrs = uid, gid, mode, mtime_ns, xattrs


class Tree:
    """A directory opened for creating files below it. Use as a context manager; ``split`` every name first."""

    def __init__(self, path: str, implicit: Callable[[str], Metadata | None] | None = None) -> None:
        """``implicit`` tells the metadata of a parent directory that the archive does not mention."""
        self._root = os.open(path, _DIRECTORY)
        self._implicit = implicit or (lambda path: None)
        self._parent: tuple[str, int] = ("", self._root)  # the directory used last: archives are mostly sorted
        self._directories: dict[str, int] = {}  # mtime of each, set last because creating in one changes it

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget_parent()
        os.close(self._root)

    def file(self, path: str, write: Callable[[int], None], metadata: Metadata) -> None:
        """A regular file; ``write`` gets its descriptor."""
        parent, name = self._place(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            write(descriptor)
            _apply(descriptor, metadata)
            os.utime(descriptor, ns=(metadata.mtime_ns, metadata.mtime_ns))
        finally:
            os.close(descriptor)

    def directory(self, path: str, metadata: Metadata) -> None:
        """A directory; one that is there keeps its content, and one over a whiteout becomes opaque."""
        if path:
            parent, name = self._parent_of(path)
            old = _lstat(name, parent)
            if old is None or not stat.S_ISDIR(old.st_mode):
                self._clear(name, parent)
                os.mkdir(name, 0o700, dir_fd=parent)
                if old is not None and is_whiteout(old):
                    self.opaque(path)
        descriptor = self._open(path)
        try:
            _apply(descriptor, metadata)
        finally:
            os.close(descriptor)
        self._directories[path] = metadata.mtime_ns

    def symlink(self, path: str, target: str, metadata: Metadata) -> None:
        """A symbolic link: its target is text, and nothing here ever follows it."""
        parent, name = self._place(path)
        os.symlink(target, name, dir_fd=parent)
        os.chown(name, metadata.uid, metadata.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=(metadata.mtime_ns, metadata.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def fifo(self, path: str, metadata: Metadata) -> None:
        """A named pipe."""
        parent, name = self._place(path)
        os.mkfifo(name, 0o600, dir_fd=parent)
        os.chown(name, metadata.uid, metadata.gid, dir_fd=parent)
        os.chmod(name, metadata.mode, dir_fd=parent)
        os.utime(name, ns=(metadata.mtime_ns, metadata.mtime_ns), dir_fd=parent)

    def link(self, path: str, target: str) -> None:
        """A hard link to a file that this tree has already."""
        source_parent, source = self._parent_of(target, create=False)
        source_parent = os.dup(source_parent)  # the parent kept in mind changes with the next line
        try:
            found = os.stat(source, dir_fd=source_parent, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode) or stat.S_ISCHR(found.st_mode):
                raise InvalidDocument(target, "a hard link needs a file")
            if path != target:
                parent, name = self._place(path)
                os.link(source, name, src_dir_fd=source_parent, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source_parent)

    def whiteout(self, path: str) -> None:
        """Say that ``path`` of the layers below is gone.

        A whiteout speaks of the layers below only, so what this layer itself has at that place stays; if that is a
        directory, it replaces the one below.
        """
        parent, name = self._parent_of(path)
        old = _lstat(name, parent)
        if old is None:
            os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(0, 0), dir_fd=parent)
        elif stat.S_ISDIR(old.st_mode):
            self.opaque(path)

    def opaque(self, path: str) -> None:
        """Say that the directory ``path`` shows nothing of the layers below."""
        descriptor = self._open_or_create(path)
        try:
            os.setxattr(descriptor, OPAQUE, b"y")
        finally:
            os.close(descriptor)

    def finish(self) -> None:
        """Set the times of the directories, deepest first."""
        for path in sorted(self._directories, reverse=True):
            try:
                descriptor = self._open(path)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue  # a later entry of the archive replaced it
                raise
            try:
                os.utime(descriptor, ns=(self._directories[path],) * 2)
            finally:
                os.close(descriptor)

    def _place(self, path: str) -> tuple[int, str]:
        """The parent and the name of something to create; what was there is removed, as later entries win."""
        parent, name = self._parent_of(path)
        self._clear(name, parent)
        return parent, name

    def _parent_of(self, path: str, create: bool = True) -> tuple[int, str]:
        directory, _, name = path.rpartition("/")
        if self._parent[0] != directory:
            descriptor = self._open_or_create(directory) if create else self._open(directory)
            self._forget_parent()
            self._parent = (directory, descriptor)
        return self._parent[1], name

    def _open_or_create(self, path: str) -> int:
        try:
            return self._open(path)
        except FileNotFoundError:
            metadata = self._implicit(path) or Metadata(0, 0, 0o755, 0, {})
            self.directory(path, metadata)
            return self._open(path)

    def _open(self, path: str) -> int:
        """Open a directory below the root, with no symbolic link anywhere on the way."""
        how = struct.pack("QQQ", _DIRECTORY, 0, _RESOLVE)
        result = _syscall(_SYS_OPENAT2, self._root, os.fsencode(path or "."), how, len(how))
        if result < 0:
            number = ctypes.get_errno()
            if number == errno.ENOSYS:
                raise Unsupported("openat2", "this kernel lacks it", "images need Linux 5.6 or later")
            raise OSError(number, os.strerror(number), path)
        return int(result)

    def _clear(self, name: str, parent: int) -> None:
        old = _lstat(name, parent)
        if old is None:
            return
        if stat.S_ISDIR(old.st_mode):
            store.remove_tree(f"/proc/self/fd/{parent}/{name}")
        else:
            os.unlink(name, dir_fd=parent)

    def _forget_parent(self) -> None:
        if self._parent[1] != self._root:
            os.close(self._parent[1])
        self._parent = ("", self._root)


def split(name: str) -> str:
    """The path of an archive's entry below the root, without ``.`` and leading slashes; empty for the root itself.

    A layer's root is the container's ``/``, so /etc/passwd is etc/passwd. Raises InvalidDocument for ``..`` and NUL.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if "\0" in name:  # C would read the name only up to there
        raise InvalidDocument(repr(name[:80]), "holds a NUL")
    if ".." in parts:
        raise InvalidDocument(name[:80], "goes up by ..")
    if len(parts) > MAX_DEPTH:
        raise InvalidDocument(name[:80] + "...", f"deeper than {MAX_DEPTH} directories")
    return "/".join(parts)


def is_whiteout(status: os.stat_result) -> bool:
    """Whether this is overlayfs's mark for "gone"."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _lstat(name: str, parent: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _apply(descriptor: int, metadata: Metadata) -> None:
    """Owner, then mode, then attributes: chown(2) clears the set-id bits and the file's capabilities."""
    os.fchown(descriptor, metadata.uid, metadata.gid)
    os.fchmod(descriptor, metadata.mode)
    for name, value in metadata.xattrs.items():
        os.setxattr(descriptor, name, value)
