"""A machine with the images of real servers; they are built, with a download, if no store has them yet."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakehost import REPOSITORY
from tests.lifecycle.conftest import images_root  # noqa: F401
from tests.lifecycle.machine import MINIRUN, Machine

SERVERS = ("nginx", "apache")


@pytest.fixture(scope="session")
def servers_root(images_root: Path) -> Path:  # noqa: F811
    """The root of ``images_root`` with nginx and Apache in it too."""
    if all(f"/{name}:latest" in (images_root / "images/index.json").read_text() for name in SERVERS):
        return images_root
    with open(images_root / "servers.lock", "w") as lock:  # sessions that run at the same time build once
        fcntl.flock(lock, fcntl.LOCK_EX)
        index = (images_root / "images/index.json").read_text()
        if missing := [name for name in SERVERS if f"/{name}:latest" not in index]:
            places = ["--root", str(images_root), "--state", str(images_root / "state")]
            environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
            subprocess.run([*MINIRUN, *places, "image", "build", *missing], env=environment, check=True, timeout=600)
    return images_root


@pytest.fixture
def host(servers_root: Path) -> Iterator[Machine]:
    """A fresh machine with the servers' images."""
    made = Machine(servers_root)
    try:
        yield made
    finally:
        made.close()
