"""The machine that the counts are taken on has no other containers, and the program on it is an installed one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bench import installed
from tests.bench.machine import images
from tests.lifecycle.machine import Machine


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An installed minirun: that of a checkout would count the looks at its sources too."""
    return str(installed.make(tmp_path_factory.mktemp("installed")))


@pytest.fixture
def host() -> Iterator[Machine]:
    """A new machine for each test: a start looks at what others left, and that would be counted."""
    machine = Machine(images())
    try:
        yield machine
        machine.sweep()
    finally:
        machine.close()
