"""The fixtures of the network tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.fakehost import Namespace, both_hosts, host  # noqa: F401  (fixtures)
from tests.network.containers import SERVER, Attached, Serve


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server in a namespace or a container, and comes back when it listens."""
    running: list[subprocess.Popen[str]] = []

    def start(place: Namespace | Attached, port: int = 80, kind: str = "tcp") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SERVER, kind, str(port), place.name]
        namespace = place.host if isinstance(place, Attached) else place
        server = namespace.popen(place.command(*command) if isinstance(place, Attached) else command)
        running.append(server)
        assert server.stdout and server.stdout.readline() == "ready\n", server.communicate(timeout=10)
        return server

    yield start
    for server in running:
        server.kill()
        server.communicate(timeout=10)
