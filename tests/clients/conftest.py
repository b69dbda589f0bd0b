"""Machines for clients: one with the images of real servers, and those of other engines, on each runtime.

A test of an engine that takes ``podman`` or ``docker`` runs on our runtime. If it is marked ``control`` it runs on runc
too, which shows that the test asks what a runtime owes and not what ours does; MINIRUN_CONTROLS=all is for all tests.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.clients.engines", "tests.clients.podman", "tests.clients.docker")
pytest.register_assert_rewrite("tests.clients.containerd", "tests.clients.cri")

from tests.clients.docker import Docker  # noqa: E402
from tests.clients.engines import RUNTIMES  # noqa: E402
from tests.clients.podman import Podman  # noqa: E402
from tests.fakehost import REPOSITORY  # noqa: E402
from tests.lifecycle.conftest import images_root  # noqa: E402, F401
from tests.lifecycle.machine import MINIRUN, Machine  # noqa: E402

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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Name the runtimes of a test."""
    if "runtime" in metafunc.fixturenames:
        both = metafunc.definition.get_closest_marker("control") or os.environ.get("MINIRUN_CONTROLS") == "all"
        metafunc.parametrize("runtime", RUNTIMES if both else RUNTIMES[:1])


@pytest.fixture(scope="module")
def podman_host() -> Iterator[Podman]:
    """A machine with podman for a file of tests."""
    made = Podman()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def podman(podman_host: Podman, runtime: str) -> Iterator[Podman]:
    """podman with one of the runtimes; after the test nothing of its containers may be left."""
    podman_host.runtime = runtime
    yield podman_host
    podman_host.sweep()


@pytest.fixture(scope="module")
def docker_host() -> Iterator[Docker]:
    """A machine with dockerd for a file of tests."""
    made = Docker()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def docker(docker_host: Docker, runtime: str) -> Iterator[Docker]:
    """docker with one of the runtimes; after the test nothing of its containers may be left."""
    docker_host.runtime = runtime
    yield docker_host
    docker_host.sweep()
