"""The kinds of build steps that a recipe can name. Each changes the root file system that is being made.

    alpine-packages   Alpine's own packages, from a virtual machine's disk     (in ``alpine``)
    wheel-files       files out of a wheel
    debian-packages   Debian packages and what they depend on, unpacked; the root is merged under /usr
    files             the recipe's own files, its directory ``rootfs``, and directories and links that it lists
    replace           one text for another in one file
    append            a text at the end of one file, which may be the base image's
    busybox-links     a symbolic link for each applet of busybox

A step is a JSON object with its ``kind`` and what that kind needs. No program of the new root is ever run, except
busybox, to list its applets.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any

from minirun import store
from minirun.errors import InvalidDocument
from minirun.image import alpine, downloads, tree

_PLAIN_FILE, _PLAIN_DIRECTORY = 0o644, 0o755
_MERGED = ("bin", "sbin", "lib", "lib64")


class Build:
    """A root file system being made, and what its steps found out about it."""

    def __init__(self, recipe_directory: str, work: str, below: list[str], progress: downloads.Progress) -> None:
        self.recipe_directory = recipe_directory
        self.below = below  # the layers of the base image, bottom first
        self.work = work  # scratch space, gone after the build
        self.root = store.directory(work, "rootfs", mode=0o755)
        self.progress = progress
        self.version = ""  # of the main package, if it was not known before
        self.newest = 0  # the latest time of a file that came with a package

    def do(self, step: dict[str, Any]) -> None:
        """Do one step. Raises InvalidDocument if the recipe names a kind that does not exist."""
        kind = KINDS.get(step.get("kind", ""))
        if kind is None:
            raise InvalidDocument(f"build step {step.get('kind')!r}", f"the kinds are {', '.join(KINDS)}")
        try:
            kind(self, step)
        except KeyError as error:
            raise InvalidDocument(f"build step {step['kind']}", f"it lacks {error}") from None

    def path(self, path: str) -> str:
        """A path in the root, which is only ever written to by recipes of our own."""
        return os.path.join(self.root, tree.split(path))


def _alpine_packages(build: Build, step: dict[str, Any]) -> None:
    alpine.build(build.root, build.work, step, build.progress)


def _wheel_files(build: Build, step: dict[str, Any]) -> None:
    archive = downloads.wheel(step["source"], build.progress)
    for member, place in step["files"].items():
        target = build.path(place["path"])
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.move(downloads.extract(archive, member, build.work), target)
        os.chmod(target, int(place["mode"], 8))


def _debian_packages(build: Build, step: dict[str, Any]) -> None:
    dpkg_deb = downloads.tool("dpkg-deb")
    packages = downloads.debian_packages(step["packages"], step.get("without", []), build.progress)
    for package in packages:
        downloads.run(dpkg_deb, "--extract", package, build.root)
    for package in packages:
        name, version = os.path.basename(package).split("_")[:2]
        if name == step["packages"][0]:
            build.version = version.replace("%3a", ":")
    _merge_usr(build.root)
    _drop(build.root, step.get("drop", []))
    build.newest = max(int(os.lstat(path).st_mtime) for path in _all_files(build.root))


def _files(build: Build, step: dict[str, Any]) -> None:
    source = os.path.join(build.recipe_directory, "rootfs")
    if os.path.isdir(source):
        shutil.copytree(source, build.root, dirs_exist_ok=True, symlinks=True, copy_function=_copy_plain)
        for directory, _, _ in os.walk(source):
            os.chmod(build.path(os.path.relpath(directory, source)), _PLAIN_DIRECTORY)
    for path, place in step.get("directories", {}).items():
        os.makedirs(build.path(path), exist_ok=True)
        os.chown(build.path(path), place.get("uid", 0), place.get("gid", 0))
        os.chmod(build.path(path), int(place.get("mode", "755"), 8))
    for path, mode in step.get("modes", {}).items():
        os.chmod(build.path(path), int(mode, 8))
    for path, target in step.get("links", {}).items():
        os.symlink(target, build.path(path))


def _replace(build: Build, step: dict[str, Any]) -> None:
    with open(build.path(step["path"]), encoding="utf-8") as source:
        text = source.read()
    if text.count(step["old"]) != 1:
        raise InvalidDocument(f"/{step['path']}", f"{step['old']!r} must stand in it exactly once")
    status = os.stat(build.path(step["path"]))
    with open(build.path(step["path"]), "w", encoding="utf-8") as target:
        target.write(text.replace(step["old"], step["new"]))
    os.utime(build.path(step["path"]), ns=(status.st_mtime_ns, status.st_mtime_ns))


def _append(build: Build, step: dict[str, Any]) -> None:
    target = build.path(step["path"])
    if not os.path.exists(target):
        _copy_up(build, tree.split(step["path"]))
    with open(target, "a", encoding="utf-8") as text:
        text.write(step["text"])


def _copy_up(build: Build, path: str) -> None:
    """Bring a file of the base image into the new layer, with its owner and mode."""
    source = next((f"{layer}/{path}" for layer in reversed(build.below) if os.path.isfile(f"{layer}/{path}")), None)
    if source is None:
        raise InvalidDocument(f"/{path}", "neither the recipe nor its base image has it")
    os.makedirs(os.path.dirname(build.path(path)), exist_ok=True)
    shutil.copy2(source, build.path(path))
    status = os.stat(source)
    os.chown(build.path(path), status.st_uid, status.st_gid)


def _busybox_links(build: Build, step: dict[str, Any]) -> None:
    busybox = build.path(step["busybox"])
    if "list" in step:
        with open(build.path(step["list"]), encoding="utf-8") as source:
            applets = source.read().split()
    else:
        applets = downloads.run(busybox, "--list-full").split()
    build.progress(f"linking {len(applets)} applets of busybox")
    for applet in applets:
        os.makedirs(os.path.dirname(build.path(applet)), exist_ok=True)
        if "/" in applet and not os.path.lexists(build.path(applet)):  # linuxrc is for an initrd
            os.symlink(f"/{step['busybox']}", build.path(applet))


KINDS: dict[str, Callable[[Build, dict[str, Any]], None]] = {
    "alpine-packages": _alpine_packages,
    "wheel-files": _wheel_files,
    "debian-packages": _debian_packages,
    "files": _files,
    "replace": _replace,
    "append": _append,
    "busybox-links": _busybox_links,
}


def _copy_plain(source: str, target: str) -> None:
    """Copy a file as root's, mode 644: owner and mode in a checkout or an installation say nothing."""
    shutil.copyfile(source, target)
    os.chmod(target, _PLAIN_FILE)


def _merge_usr(root: str) -> None:
    """Move /bin, /sbin and /lib* below /usr and link them, as installed Debian systems have it.

    Some releases' packages have files in /lib and others in /usr/lib; both kinds of names must work.
    """
    for name in _MERGED:
        source, target = os.path.join(root, name), os.path.join(root, "usr", name)
        if os.path.isdir(source):
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(source)
        if os.path.isdir(target) or name != "lib64":
            os.makedirs(target, exist_ok=True)
            os.symlink(f"usr/{name}", source)


def _drop(root: str, globs: list[str]) -> None:
    """Remove what a container does not need: paths that fit one of the globs, and directories left empty by that."""
    for directory, directories, files in os.walk(root, topdown=False):
        for name in [*files, *directories]:
            full = os.path.join(directory, name)
            if any(fnmatch(os.path.relpath(full, root), glob) for glob in globs):
                store.remove_tree(full)


def _all_files(root: str) -> list[str]:
    return [os.path.join(directory, name) for directory, _, names in os.walk(root) for name in names]
