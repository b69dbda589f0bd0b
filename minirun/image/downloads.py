"""What recipes are made from: packages, fetched only through their own package managers and kept in a cache.

A wheel is pinned by version and sha256. A Debian package is whatever the machine's own package lists offer, which apt
has verified by signature: a recipe that pinned it would stop building at the next security update.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from typing import Any

from minirun import store
from minirun.errors import InvalidDocument, MinirunError, NotFound, Unsupported

Progress = Callable[[str], None]

_DEBIAN_PACKAGE = {  # where the tools come from, for the error message
    "qemu-img": "qemu-utils",
    "debugfs": "e2fsprogs",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
    "apt-cache": "apt",
}


def tool(name: str) -> str:
    """The path of a program. Raises Unsupported, naming the Debian package that has it."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise Unsupported(name, "the program is missing", f"apt-get install {_DEBIAN_PACKAGE[name]}")
    return path


def run(*argv: str, stdin: str = "", directory: str | None = None) -> str:
    """The output of a helper program. Raises MinirunError with the last line that it complained with."""
    result = subprocess.run(
        argv, input=stdin, cwd=directory, capture_output=True, text=True, errors="replace", check=False
    )
    if result.returncode != 0:
        lines = (result.stderr.strip() or result.stdout.strip() or f"exit status {result.returncode}").splitlines()
        raise MinirunError(f"{os.path.basename(argv[0])} {argv[1] if len(argv) > 1 else ''} failed".strip(), lines[-1])
    return result.stdout


def wheel(source: dict[str, Any], progress: Progress) -> str:
    """The path of a wheel: ``{"wheel": name, "version": …, "sha256": …, "machine": …}``."""
    if os.uname().machine != source["machine"]:
        raise Unsupported(f"package {source['wheel']}", f"it is for {source['machine']}, not {os.uname().machine}")
    name = f"{source['wheel']} {source['version']}"
    cached = os.path.join(store.directory(store.root, "cache"), f"{source['wheel']}-{source['version']}.whl")
    if os.path.exists(cached) and _sha256(cached) == source["sha256"]:
        return cached
    progress(f"downloading {name}")
    incoming = f"{cached}.{os.getpid()}"
    store.remove_tree(incoming)
    try:
        _pip_download(source, store.directory(incoming))
        (file,) = os.listdir(incoming)
        if _sha256(os.path.join(incoming, file)) != source["sha256"]:
            raise InvalidDocument(f"package {name}", "its sha256 is not the one that the recipe pins")
        os.rename(os.path.join(incoming, file), cached)
    finally:
        store.remove_tree(incoming)
    return cached


def debian_packages(wanted: Sequence[str], without: Sequence[str], progress: Progress) -> list[str]:
    """The paths of the ``.deb`` files of some packages and all they depend on, except names that fit ``without``."""
    directory = store.directory(store.root, "cache", "debian")
    try:
        names = _closure(wanted, without)
    except MinirunError:
        progress("fetching Debian's package lists")
        run(tool("apt-get"), "update")
        names = _closure(wanted, without)
    progress(f"downloading {len(names)} Debian packages")
    uris = run(tool("apt-get"), "--print-uris", "download", *names)
    files = [line.split()[1] for line in uris.splitlines() if line.startswith("'")]
    run(tool("apt-get"), "download", *names, directory=directory)
    return [_deb(directory, file) for file in sorted(files)]


def _pip_download(source: dict[str, Any], directory: str) -> None:
    try:
        run(sys.executable, "-m", "pip", "--version")
    except MinirunError:
        raise Unsupported("pip", f"{sys.executable} does not have it", "apt-get install python3-pip") from None
    requirements = os.path.join(directory, "requirements.txt")
    store.write(requirements, f"{source['wheel']}=={source['version']} --hash=sha256:{source['sha256']}\n")
    run(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
        *("--only-binary=:all:", f"--platform=manylinux_2_17_{source['machine']}"),
        *("--dest", directory, "--requirement", requirements),
    )
    os.unlink(requirements)


def _closure(wanted: Sequence[str], without: Sequence[str]) -> list[str]:
    """The packages and what they depend on, directly or not; whatever ``without`` drops ends its branch."""
    depends = _depends(wanted)
    names: dict[str, None] = {}
    todo = list(wanted)
    while todo:
        name = todo.pop()
        if name not in names and not any(fnmatch(name, glob) for glob in without):
            names[name] = None
            todo += depends.get(name, [])
    return sorted(names)


def _depends(wanted: Sequence[str]) -> dict[str, list[str]]:
    """What each package below the wanted ones depends on: real packages only and, of alternatives, the first."""
    options = ("--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances")
    depends: dict[str, list[str]] = {}
    package, is_alternative = "", False
    for line in run(tool("apt-cache"), "depends", "--recurse", *options, *wanted).splitlines():
        relation, colon, name = line.strip().lstrip("|").partition(": ")
        if not line.startswith(" "):
            package, is_alternative = line.partition(":")[0], False
        elif colon and relation in ("Depends", "PreDepends"):
            if not is_alternative and not name.startswith("<"):
                depends.setdefault(package, []).append(name.partition(":")[0])
            is_alternative = line.lstrip(" ").startswith("|")
    return depends


def _deb(directory: str, file: str) -> str:
    path = os.path.join(directory, file)
    if not os.path.exists(path):
        raise NotFound(f"Debian package {file}", "apt-get did not download it")
    return path


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as content:
        while data := content.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()


def extract(archive: str, member: str, directory: str) -> str:
    """Take one file out of a wheel; returns its path."""
    path = os.path.join(directory, os.path.basename(member))
    with zipfile.ZipFile(archive) as source, open(path, "wb") as target:
        try:
            with source.open(member) as content:
                shutil.copyfileobj(content, target, 1 << 20)
        except KeyError:
            raise NotFound(f"{member} in {os.path.basename(archive)}", "the package does not hold it") from None
    return path


def gzipped(data: bytes) -> bytes:
    """The data in gzip form, without the time at which that was done."""
    return gzip.compress(data, mtime=0)
