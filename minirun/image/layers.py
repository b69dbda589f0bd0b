"""Layer archives: unpack one into the form that overlayfs wants, and pack a directory into one.

``tarfile`` is only the reader here. What an archive asks for is checked, bounded, and done by ``tree``; an archive that
asks for something a layer cannot hold is refused as a whole, with one line. Device nodes are left out: a container gets
its /dev from the runtime, and a node 0:0 in an archive would forge a whiteout.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from minirun.errors import InvalidDocument, MinirunError
from minirun.image import tree
from minirun.image.stream import Forward

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
MAX_ENTRIES = 1_000_000
MAX_BYTES = 64 * 1024**3  # of all files in one layer
MAX_XATTRS = 64 * 1024  # bytes of names and values on one file; the kernel's own limit for a list
_CHUNK = 1 << 16
_XATTR = "SCHILY.xattr."
_XATTRS_KEPT = ("user.", "security.capability", "system.posix_acl_")  # never trusted.*: overlayfs obeys those
# What tarfile and zlib raise on archives that are not what they seem; none of it is a fault of ours.
_BROKEN = (
    *(tarfile.TarError, zlib.error, EOFError, struct.error),
    *(ValueError, ArithmeticError, LookupError, RecursionError),
)
_HOSTS_FAULT = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EPERM),
)
_ARCHIVES_FAULT = {
    errno.ELOOP: "its path goes through a symbolic link",
    errno.EXDEV: "its path leaves the layer",
    errno.ENOTDIR: "its path goes through something that is not a directory",
    errno.ENOENT: "it needs a file that the archive does not hold",
}


def unpack(archive: BinaryIO, destination: str, below: Sequence[str] = ()) -> None:
    """Unpack an uncompressed layer archive into the empty directory ``destination``.

    ``below`` are the directories of the layers below, bottom first: a directory that the archive uses without
    mentioning it has its owner and mode from there. Raises InvalidDocument for an archive that is refused.
    """
    name = ""
    with tree.Tree(destination, lambda path: _metadata_below(path, below)) as target:
        try:
            target.directory("", tree.Metadata(0, 0, 0o755, 0, {}))
            source = Forward(archive)
            for entry in _entries(source):
                name = entry.name
                _unpack_one(target, entry, source, bool(below))
            name = ""
            target.finish()
        except InvalidDocument as error:
            raise _refused(name, str(error)) from None
        except _BROKEN as error:
            raise _refused(name, str(error) or type(error).__name__) from error
        except OSError as error:
            if error.errno in _HOSTS_FAULT:
                raise MinirunError(f"cannot unpack a layer to {destination}", os.strerror(error.errno)) from error
            raise _refused(name, _ARCHIVES_FAULT.get(error.errno or 0, str(error.strerror))) from error


def pack(directory: str, archive: BinaryIO, newest: int) -> None:
    """Write the directory as a layer archive: the same tree gives the same bytes.

    Entries are sorted, owners are numbers, and no time is later than ``newest`` (seconds), so that files made by the
    build itself do not carry the minute in which it ran.
    """
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        links: dict[tuple[int, int], str] = {}
        for path in _walk(directory, ""):
            full = os.path.join(directory, path)
            entry = _describe(path, os.lstat(full), full, links, newest)
            if entry.isreg():
                with open(full, "rb") as content:
                    tar.addfile(entry, content)
            else:
                tar.addfile(entry)


def size(directory: str) -> int:
    """The bytes in the files of an unpacked layer."""
    return sum(os.lstat(os.path.join(directory, path)).st_size for path in _walk(directory, ""))


def _entries(source: Forward) -> Iterator[tarfile.TarInfo]:
    """The entries of an archive, one at a time and within the limits."""
    tar = tarfile.TarFile(fileobj=source, encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
    count = total = 0
    while entry := tar.next():
        tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every entry; a million of them are gigabytes
        count, total = count + 1, total + entry.size
        if count > MAX_ENTRIES:
            raise InvalidDocument("archive", f"more than {MAX_ENTRIES} entries")
        if total > MAX_BYTES:
            raise InvalidDocument("archive", f"more than {MAX_BYTES} bytes of files")
        yield entry


def _unpack_one(target: tree.Tree, entry: tarfile.TarInfo, source: Forward, has_below: bool) -> None:
    path = tree.split(entry.name)
    parent, _, name = path.rpartition("/")
    if name == OPAQUE:
        target.opaque(parent)
    elif name.startswith(WHITEOUT + WHITEOUT):
        pass  # aufs's own notes, which docker's early layers carry
    elif name.startswith(WHITEOUT):
        hidden = tree.split(name.removeprefix(WHITEOUT))
        if not hidden:
            raise InvalidDocument(name, "a whiteout of nothing")
        if has_below:  # in the lowest layer there is nothing to hide, and overlayfs would list the mark itself
            target.whiteout(f"{parent}/{hidden}" if parent else hidden)
    else:
        _unpack_file(target, path, entry, source)


def _unpack_file(target: tree.Tree, path: str, entry: tarfile.TarInfo, source: Forward) -> None:
    if entry.issparse():
        raise InvalidDocument(path, "sparse files are not allowed in layers (image-spec)")
    if entry.isreg():
        target.file(path, _writer(source, entry.size), _metadata(entry))
    elif entry.isdir():
        target.directory(path, _metadata(entry))
    elif entry.issym():
        target.symlink(path, entry.linkname, _metadata(entry))
    elif entry.islnk():
        target.link(path, tree.split(entry.linkname))
    elif entry.isfifo():
        target.fifo(path, _metadata(entry))
    elif not entry.isdev():
        raise InvalidDocument(path, f"an entry of the unknown type {entry.type!r}")


def _writer(source: Forward, length: int) -> Callable[[int], None]:
    def write(descriptor: int) -> None:
        left = length
        while left:
            data = source.take(min(left, _CHUNK))
            if not data:
                raise EOFError("the archive ends in the middle of a file")
            left -= len(data)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]

    return write


def _metadata(entry: tarfile.TarInfo) -> tree.Metadata:
    xattrs = {
        key.removeprefix(_XATTR): value.encode("utf-8", "surrogateescape")
        for key, value in entry.pax_headers.items()
        if key.startswith(_XATTR) and key.removeprefix(_XATTR).startswith(_XATTRS_KEPT)
    }
    if sum(len(key) + len(value) for key, value in xattrs.items()) > MAX_XATTRS:
        raise InvalidDocument(entry.name, f"more than {MAX_XATTRS} bytes of extended attributes")
    for kept in [key for key in xattrs if key.startswith("user.overlay.")]:
        del xattrs[kept]  # overlayfs mounted with userxattr obeys these
    return tree.Metadata(entry.uid, entry.gid, entry.mode & 0o7777, int(entry.mtime * 1_000_000_000), xattrs)


def _metadata_below(path: str, below: Sequence[str]) -> tree.Metadata | None:
    """The owner, mode and time of a directory in the nearest layer below that has something there."""
    for layer in reversed(below):
        found = _lstat_beneath(layer, path)
        if found is None:
            continue
        if stat.S_ISLNK(found.st_mode):
            raise InvalidDocument(path, "a symbolic link in a layer below, and a directory here")
        if stat.S_ISDIR(found.st_mode):
            return tree.Metadata(found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode), found.st_mtime_ns, {})
        return None
    return None


def _lstat_beneath(root: str, path: str) -> os.stat_result | None:
    """The status of root/path, if every component before the last is a real directory."""
    found = None
    for component in path.split("/"):
        root = os.path.join(root, component)
        if found is not None and not stat.S_ISDIR(found.st_mode):
            return None
        try:
            found = os.lstat(root)
        except FileNotFoundError:
            return None
    return found


def _walk(directory: str, prefix: str) -> Iterator[str]:
    """Every path below a directory, parents first and sorted by name; never through a symbolic link."""
    for entry in sorted(os.scandir(os.path.join(directory, prefix)), key=lambda entry: entry.name):
        path = f"{prefix}/{entry.name}" if prefix else entry.name
        yield path
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(directory, path)


def _describe(
    path: str, status: os.stat_result, full: str, links: dict[tuple[int, int], str], newest: int
) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.uid, entry.gid, entry.mode = status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)
    entry.mtime = min(int(status.st_mtime), newest)
    if not stat.S_ISLNK(status.st_mode):
        kept = [name for name in os.listxattr(full) if name.startswith(_XATTRS_KEPT)]
        entry.pax_headers = {_XATTR + name: os.getxattr(full, name).decode("utf-8", "surrogateescape") for name in kept}
    if stat.S_ISLNK(status.st_mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(full)
    elif stat.S_ISDIR(status.st_mode):
        entry.type = tarfile.DIRTYPE
    elif not stat.S_ISREG(status.st_mode):
        raise InvalidDocument(path, "only files, directories and symbolic links belong in an image")
    elif (first := links.setdefault((status.st_dev, status.st_ino), path)) != path:
        entry.type, entry.linkname = tarfile.LNKTYPE, first
    else:
        entry.size = status.st_size
    return entry


def _refused(name: str, why: str) -> InvalidDocument:
    return InvalidDocument(f"layer archive refused at {name[:80]!r}" if name else "layer archive refused", why)
