"""Two fresh machines: on one a container is run, on the other its explanation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lifecycle.conftest import images_root  # noqa: F401
from tests.lifecycle.machine import Machine


@pytest.fixture
def host(images_root: Path) -> Iterator[Machine]:  # noqa: F811
    """A machine without a network yet, for ``run``."""
    made = Machine(images_root)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def other(images_root: Path) -> Iterator[Machine]:  # noqa: F811
    """Another one, for ``explain | sh``."""
    made = Machine(images_root)
    try:
        yield made
    finally:
        made.close()
