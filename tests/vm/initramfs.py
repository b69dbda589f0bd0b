"""An initramfs in memory: the one file that tells a fresh kernel what to do.

Written here, and not by mkinitramfs or dracut, because ours holds five files: busybox, a script, the few modules that
the root file system needs, and the job itself. The format is cpio "newc" (the kernel's
Documentation/driver-api/early-userspace/buffer-format.rst).
"""

import lzma
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

DIRECTORIES = ("bin", "checkout", "dev", "lower", "proc", "root", "sys", "upper")
PROGRAM = stat.S_IFREG | 0o755


def archive(files: Mapping[str, bytes]) -> bytes:
    """A cpio archive of the directories that init.sh mounts on, and of these files."""
    entries = [_entry(name, stat.S_IFDIR | 0o755, b"") for name in DIRECTORIES]
    entries += [_entry(name, PROGRAM, data) for name, data in files.items()]
    return b"".join(entries) + _entry("TRAILER!!!", 0, b"")


def _entry(name: str, mode: int, data: bytes) -> bytes:
    inode = uid = gid = mtime = device = checksum = 0
    name_and_end = name.encode() + b"\0"
    fields = (inode, mode, uid, gid, 1, mtime, len(data), *(device,) * 4, len(name_and_end), checksum)
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    return _padded(header + name_and_end) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def modules(directory: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """The modules of these names and all they need, in the order in which they can be loaded.

    A name that modules.dep does not have is built into the kernel, which is as good.
    """
    needs = dict(_dependencies(directory))
    found: dict[str, bytes] = {}

    def add(path: str) -> None:
        for need in needs[path]:
            add(need)
        found.setdefault(f"{Path(path).name.removesuffix('.xz')}", _content(directory / path))

    for path in needs:
        if Path(path).name.split(".")[0] in wanted:
            add(path)
    return found


def _dependencies(directory: Path) -> Iterator[tuple[str, list[str]]]:
    for line in (directory / "modules.dep").read_text().splitlines():
        path, _, needs = line.partition(":")
        yield path, needs.split()


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data
