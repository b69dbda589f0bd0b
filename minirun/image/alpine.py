"""The genuine Alpine Linux, taken out of a virtual machine's disk that holds it and much more.

Nobody has to be trusted for the files' content: Alpine's own package database, which lies on the same disk, lists every
file of every package with its SHA-1, and each file is checked against it. The few files that the builder of the disk
edited are put back first, so they pass the same check. The disk is only read, by qemu-img and debugfs: no mount.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import tarfile
from typing import Any

from minirun import store
from minirun.errors import InvalidDocument
from minirun.image import downloads

DATABASE = "lib/apk/db/installed"
SCRIPTS = "lib/apk/db/scripts.tar.gz"
TRIGGERS = "lib/apk/db/triggers"
WORLD = "etc/apk/world"
_COPIED = (DATABASE, SCRIPTS, TRIGGERS, "etc/apk/arch", "etc/apk/repositories")  # of no package


class File:
    """What the package database says about a file or directory."""

    __slots__ = ("checksum", "gid", "mode", "uid")

    def __init__(self, access: str, checksum: str = "") -> None:
        uid, gid, mode = access.split(":")
        self.uid, self.gid, self.mode, self.checksum = int(uid), int(gid), int(mode, 8), checksum


class Database:
    """The part of Alpine's package database that some packages make up."""

    def __init__(self, text: str, packages: list[str]) -> None:
        self.directories: dict[str, File] = {}
        self.files: dict[str, File] = {}
        self.checksums: set[str] = set()  # of the packages themselves: triggers and scripts are named by them
        records = [record for record in text.strip().split("\n\n") if _field(record, "P") in packages]
        if len(records) != len(packages):
            raise InvalidDocument("package database", f"it has {len(records)} of the {len(packages)} packages")
        for record in records:
            self._read(record)
        self.text = "".join(record + "\n\n" for record in records)

    def _read(self, record: str) -> None:
        directory = path = ""
        for line in record.splitlines():
            key, _, value = line.partition(":")
            if key == "C":
                self.checksums.add(value)
            elif key == "F":
                directory = value
                self.directories.setdefault(directory, File("0:0:755"))
            elif key == "M":
                self.directories[directory] = File(value)
            elif key == "R":
                path = f"{directory}/{value}".lstrip("/")
                self.files[path] = File("0:0:644")
            elif key == "a":
                self.files[path] = File(value)
            elif key == "Z":
                self.files[path].checksum = value


def build(root: str, work: str, step: dict[str, Any], progress: downloads.Progress) -> None:
    """Make the root file system of the packages that the recipe's step names."""
    disk = _disk(work, step, progress)
    progress("reading Alpine's package database")
    copied = _dump(disk, list(_COPIED), os.path.join(work, "copied"))
    database = Database(_read(copied[DATABASE]).decode(), step["packages"])
    progress(f"checking {len(database.files)} files of {len(step['packages'])} packages")
    links = _links(disk, list(database.files))
    content = _dump(disk, [path for path in database.files if path not in links], os.path.join(work, "files"))
    for path, access in database.directories.items():
        _make_directory(root, path, access)
    for path, access in database.files.items():
        _make_file(root, path, access, links.get(path), content.get(path), step["restore"].get(path, {}))
    _make_database(root, database, copied, step["world"])


def _disk(work: str, step: dict[str, Any], progress: downloads.Progress) -> str:
    """The raw disk image (1 GB, mostly holes)."""
    qemu_img = downloads.tool("qemu-img")
    packed = downloads.extract(downloads.wheel(step["source"], progress), step["disk"], work)
    raw = os.path.join(work, "disk")
    progress("converting the disk image")
    downloads.run(qemu_img, "convert", "-O", "raw", packed, raw)
    return raw


def _dump(disk: str, paths: list[str], directory: str) -> dict[str, str]:
    """Copy files out of the disk; returns where each is. They get numbers as names, as no path of a disk is trusted."""
    store.directory(directory)
    places = {path: os.path.join(directory, str(number)) for number, path in enumerate(paths)}
    commands = "".join(f'dump -p "/{path}" "{place}"\n' for path, place in places.items())
    downloads.run(downloads.tool("debugfs"), "-f", "-", disk, stdin=commands)
    for path, place in places.items():
        if not os.path.exists(place):
            raise InvalidDocument(f"/{path}", "the disk image does not hold it")
    return places


def _links(disk: str, paths: list[str]) -> dict[str, str]:
    """The targets of those paths that are symbolic links."""
    commands = "".join(f'stat "/{path}"\n' for path in paths)
    text = downloads.run(downloads.tool("debugfs"), "-f", "-", disk, stdin=commands)
    links: dict[str, str] = {}
    for path, answer in zip(paths, text.split("debugfs: stat ")[1:], strict=True):
        if found := re.search(r'^Fast link dest: "(.*)"$', answer, re.MULTILINE):
            links[path] = found[1]
    return links


def _make_directory(root: str, path: str, access: File) -> None:
    full = os.path.join(root, path)
    os.makedirs(full, exist_ok=True)
    os.chown(full, access.uid, access.gid)
    os.chmod(full, access.mode)


def _make_file(root: str, path: str, access: File, link: str | None, place: str | None, edits: dict[str, Any]) -> None:
    """Create one file, restored if the disk's builder changed it, after its SHA-1 was found right."""
    content = link.encode() if link is not None else _read(place or "")
    content = _restore(content, edits)
    checksum = "Q1" + base64.b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode()
    if checksum != access.checksum:
        raise InvalidDocument(f"/{path}", "its SHA-1 is not the one in Alpine's package database")
    full = os.path.join(root, path)
    if link is not None:
        os.symlink(content, full)
        return
    with open(full, "xb") as target:
        target.write(content)
    os.chown(full, access.uid, access.gid)
    os.chmod(full, access.mode)
    modified = int(os.stat(place or "").st_mtime)
    os.utime(full, (modified, modified))


def _restore(content: bytes, edits: dict[str, Any]) -> bytes:
    if "text" in edits:
        return bytes(edits["text"].encode())
    without = tuple(prefix.encode() for prefix in edits.get("without", ()))
    content = b"".join(line for line in content.splitlines(True) if not (without and line.startswith(without)))
    old, new = edits.get("replace", ("", ""))
    return content.replace(old.encode(), new.encode(), 1) if old else content


def _make_database(root: str, database: Database, copied: dict[str, str], world: list[str]) -> None:
    """What apk itself wrote when it installed the packages, for these packages alone."""
    os.makedirs(os.path.join(root, os.path.dirname(DATABASE)), exist_ok=True)
    triggers = _read(copied[TRIGGERS]).decode().splitlines(True)
    _write(root, DATABASE, database.text.encode())
    _write(root, TRIGGERS, "".join(line for line in triggers if line.split()[0] in database.checksums).encode())
    _write(root, SCRIPTS, _scripts(_read(copied[SCRIPTS]), database.checksums))
    _write(root, "lib/apk/db/lock", b"", 0o600)
    _write(root, WORLD, "".join(f"{name}\n" for name in world).encode())
    for path in ("etc/apk/arch", "etc/apk/repositories"):
        _write(root, path, _read(copied[path]))


def _scripts(archive: bytes, checksums: set[str]) -> bytes:
    """The packages' scripts; each is named by its package and the package's checksum, in hex after an X."""
    kept = {"X1" + base64.b64decode(checksum[2:]).hex() for checksum in checksums}
    result = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as source,
        tarfile.open(fileobj=result, mode="w:", format=tarfile.USTAR_FORMAT) as target,
    ):
        for entry in source:
            if entry.name.split(".")[-2] in kept:
                target.addfile(entry, source.extractfile(entry))
    return downloads.gzipped(result.getvalue())


def _field(record: str, key: str) -> str:
    found = re.search(rf"^{key}:(.*)$", record, re.MULTILINE)
    return found[1] if found else ""


def _read(path: str) -> bytes:
    with open(path, "rb") as source:
        return source.read()


def _write(root: str, path: str, content: bytes, mode: int = 0o644) -> None:
    with open(os.path.join(root, path), "wb") as target:
        target.write(content)
    os.chmod(os.path.join(root, path), mode)
