"""The fixtures of the lifecycle tests: images that are built once, and one machine for each file of tests."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.lifecycle.machine", "tests.lifecycle.terminal")

from tests.fakehost import REPOSITORY  # noqa: E402
from tests.lifecycle.machine import MINIRUN, Machine  # noqa: E402


@pytest.fixture(scope="session")
def images_root() -> Path:
    """A root with the images busybox and alpine: MINIRUN_TEST_IMAGES, or the user's cache, filled at the first time."""
    if prepared := os.environ.get("MINIRUN_TEST_IMAGES"):
        return Path(prepared)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = cache / "minirun-test"
    root.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with open(root / "lock", "w") as lock:  # sessions that run at the same time build once
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [*MINIRUN, "--root", str(root), "--state", str(root / "state"), "image", "build", "busybox", "alpine"]
        subprocess.run(command, env=environment, check=True, timeout=600)
    return root


class Machines:
    """The machine of a file of tests; a new one after a test that left something behind, for the sake of the others."""

    def __init__(self, images_root: Path) -> None:
        self.images_root = images_root
        self.machine: Machine | None = None

    def get(self) -> Machine:
        if self.machine is None:
            self.machine = Machine(self.images_root)
            self.machine.minirun("run", "--rm", "busybox", "true")  # makes br0 and the firewall's table, which stay
        return self.machine

    def close(self) -> None:
        if self.machine is not None:
            machine, self.machine = self.machine, None
            machine.close()


@pytest.fixture(scope="module")
def machines(images_root: Path) -> Iterator[Machines]:
    """Keeps the machine between the tests of a file."""
    made = Machines(images_root)
    yield made
    made.close()


@pytest.fixture
def host(machines: Machines) -> Iterator[Machine]:
    """A machine; after the test its containers are removed, and nothing may be left."""
    machine = machines.get()
    yield machine
    try:
        machine.sweep()
    except BaseException:
        machines.close()
        raise
