"""Probes: mounts, the directories that minirun keeps things in, and the programs that it calls."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable

from minirun import store
from minirun.doctor import child, kernel
from minirun.doctor.finding import Doubt
from minirun.errors import MinirunError, Unsupported
from minirun.image import downloads

SCRATCH = "doctor"  # what probes make on disk or among the cgroups is called doctor.<pid>, and gone with the probe
_FREE_BYTES, _FREE_INODES = 256 << 20, 10_000
_AT_EMPTY_PATH, _OPEN_TREE_CLONE, _FSCONFIG_CMD_CREATE, _EMPTY_TO_EMPTY = 0x1000, 1, 6, 0x4
_AT_FDCWD = -100
_READ_ONLY = (1).to_bytes(8, sys.byteorder) + bytes(24)  # struct mount_attr: MOUNT_ATTR_RDONLY set


def mount_api() -> str:
    """Each call of the new mount API, as minirun-init makes them."""

    def act() -> str:
        file_system = kernel.syscall(kernel.FSOPEN, "fsopen", b"tmpfs", 0)
        kernel.syscall(kernel.FSCONFIG, "fsconfig", file_system, _FSCONFIG_CMD_CREATE, None, None, 0)
        made = kernel.syscall(kernel.FSMOUNT, "fsmount", file_system, 0, 0)
        attributes = (made, b"", _AT_EMPTY_PATH, _READ_ONLY, len(_READ_ONLY))
        kernel.syscall(kernel.MOUNT_SETATTR, "mount_setattr", *attributes)
        kernel.syscall(kernel.OPEN_TREE, "open_tree", _AT_FDCWD, b"/proc", _OPEN_TREE_CLONE)
        kernel.syscall(kernel.MOVE_MOUNT, "move_mount", made, b"", _AT_FDCWD, b"/proc", _EMPTY_TO_EMPTY)
        return "fsopen, open_tree, move_mount, mount_setattr"

    return child.run(act, "mount")


def overlay() -> str:
    """Join two directories on the store's own file system, then change, hide and replace what is below."""
    scratch = store.directory(_nearest(store.root), f"{SCRATCH}.{os.getpid()}")
    try:
        for name in ("lower/hidden", "lower/replaced/inner", "upper", "work", "merged"):
            store.directory(scratch, name)
        return child.run(lambda: _use_overlay(scratch), "mount")
    finally:
        store.remove_tree(scratch)


def _use_overlay(scratch: str) -> str:
    data = f"lowerdir={scratch}/lower,upperdir={scratch}/upper,workdir={scratch}/work"
    try:
        # volatile, as the containers of run --rm are mounted: it has to be known, too (Linux 5.10)
        kernel.mount("overlay", f"{scratch}/merged", "overlay", 0, f"{data},volatile")
    except OSError as error:
        raise _overlay_error(error) from None
    merged = f"{scratch}/merged"
    os.rmdir(f"{merged}/hidden")  # a whiteout
    store.remove_tree(f"{merged}/replaced")
    os.mkdir(f"{merged}/replaced")  # an opaque directory
    if os.listdir(merged) != ["replaced"] or os.listdir(f"{merged}/replaced"):
        raise Unsupported("overlay", "what was removed in the upper layer still shows", _OTHER_ROOT)
    return f"upper layer on {store.root}"


_OTHER_ROOT = "put --root on ext4, xfs, btrfs or tmpfs"


def _overlay_error(error: OSError) -> Exception:
    if error.errno == errno.EINVAL:
        return Unsupported("mount overlay", "the file system of the store cannot hold an upper layer", _OTHER_ROOT)
    return OSError(error.errno, error.strerror, "mount overlay")


def directory(which: str) -> Callable[[], str]:
    """The probe of ``store.root`` or ``store.state``: make a file in it without a name, as leases are made."""

    def probe() -> str:
        path = _nearest(getattr(store, which))
        try:
            os.close(os.open(path, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        return f"{path} is writable"

    return probe


def space() -> str:
    """What is free where images and containers are kept."""
    path = _nearest(store.root)
    free = os.statvfs(path)
    size = free.f_bavail * free.f_frsize
    if size < _FREE_BYTES:
        raise Doubt(f"{path} has {size >> 20} MiB free", "an image takes 2 to 250")
    if free.f_files and free.f_favail < _FREE_INODES:  # btrfs counts none
        raise Doubt(f"{path} has {free.f_favail} inodes free", "each file of an image takes one")
    return f"{path} has {size >> 20} MiB free"


def program(name: str, package: str) -> Callable[[], str]:
    """The probe of one helper program and of the Debian package that brings it."""

    def probe() -> str:
        path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if path is None:
            raise Unsupported(f"{name} is not installed", "", f"apt-get install {package}")
        return path

    return probe


def pip() -> str:
    """pip of the Python that runs us: some recipes take a file out of a wheel."""
    try:
        return " ".join(downloads.run(sys.executable, "-m", "pip", "--version").split()[:2])
    except MinirunError:
        raise Unsupported(f"{sys.executable} has no pip") from None


def _nearest(path: str) -> str:
    """The directory itself or, as it is made at first use, the nearest one above that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path
