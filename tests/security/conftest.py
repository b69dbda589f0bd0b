"""A machine for hostile images and curious containers, with canaries on the host."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakehost import FakeHost
from tests.lifecycle.conftest import images_root  # noqa: F401
from tests.lifecycle.machine import Machine
from tests.security.oci import Vault

_IMAGE = """
import json, os, sys
from minirun.image import layout, writer
name, directory, config = sys.argv[1:]
with writer.Addition() as image:
    image.on_top_of(layout.find("busybox"))
    image.add_directory(directory, 1700000000)
    image.commit({"architecture": "amd64", "os": "linux", "config": json.loads(config)}, name)
"""
# The store of the tests below, what is added to it above: so it can hold hostile images and is never changed itself.
_STORE = """
mkdir -p /run/added /run/work /run/own "$2"
mount -t overlay -o "lowerdir=$1,upperdir=/run/added,workdir=/run/work" overlay "$2"
for folder in containers names networks; do
    mkdir -p "/run/own/$folder" "$2/$folder"
    mount --bind "/run/own/$folder" "$2/$folder"
done
mkdir /run/canary
echo alive > /run/canary/ptmx
"""


class Target(Machine):
    """A fake host with images of its own, and /run/canary, which nothing may change."""

    def __init__(self, images_root: Path) -> None:  # noqa: F811
        FakeHost.__init__(self)
        self.run(["sh", "-ec", _STORE, "sh", str(images_root), self.root])

    def image(self, name: str, directory: Path, **config: Any) -> str:
        """Add an image: the directory as a layer over busybox."""
        self.python(_IMAGE, name, str(directory), json.dumps({"Cmd": ["true"], **config}))
        return name

    def canary(self) -> list[tuple[Any, ...]]:
        """The canary folder: names, inodes, times, links, contents; and how many mounts this host has."""
        top = self.path("/run/canary")
        found: list[tuple[Any, ...]] = [(len(Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()),)]
        for path in sorted([top, *top.rglob("*")]):
            now = path.lstat()
            text = path.read_bytes() if path.is_file() else b""
            found.append((str(path), now.st_ino, now.st_mode, now.st_mtime_ns, now.st_ctime_ns, now.st_nlink, text))
        return found


@pytest.fixture(scope="module")
def target(images_root: Path) -> Iterator[Target]:  # noqa: F811
    """One machine for a file of tests."""
    made = Target(images_root)
    try:
        made.minirun("run", "--rm", "busybox", "true")
        yield made
    finally:
        made.close()


@pytest.fixture
def host(target: Target) -> Iterator[Target]:
    """The machine; after the test nothing of its containers may be left."""
    yield target
    target.sweep()


@pytest.fixture
def canary(host: Target) -> Iterator[None]:
    """The test may do to the canary what it can: at the end it must be as it was."""
    before = host.canary()
    yield
    assert host.canary() == before


@pytest.fixture(scope="module")
def vault() -> Iterator[Vault]:
    """One machine with the OCI runtime for a file of tests."""
    made = Vault()
    yield made
    made.close()


@pytest.fixture
def box(vault: Vault) -> Iterator[Vault]:
    """The machine; after the test its canary must be as it was, and nothing of its containers may be left."""
    before = vault.canary()
    yield vault
    assert vault.canary() == before
    vault.clean()


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """An empty directory to fill, for ``Target.image``."""
    path = tmp_path / "layer"
    path.mkdir()
    os.chmod(path, 0o755)
    return path
