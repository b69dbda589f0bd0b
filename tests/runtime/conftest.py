"""One fake host with a bundle for each file of tests of the OCI runtime's command line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite(
    "tests.lifecycle.machine", "tests.lifecycle.terminal", "tests.runtime.bundles", "tests.runtime.mounting"
)

from tests.runtime.bundles import RuntimeHost  # noqa: E402


@pytest.fixture(scope="module")
def machine() -> Iterator[RuntimeHost]:
    """The host; its containers are gone when it is closed."""
    made = RuntimeHost()
    yield made
    made.close()


@pytest.fixture
def box(machine: RuntimeHost) -> Iterator[RuntimeHost]:
    """The host; after the test no container may be left that `delete --force` cannot take away."""
    yield machine
    machine.clean()
