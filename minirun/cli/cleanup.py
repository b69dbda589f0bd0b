"""``minirun cleanup ID LOCK``: what the monitor calls at the end of a container whose command is not there any more."""

from __future__ import annotations

import os

from minirun.engine import lifecycle
from minirun.engine.record import find
from minirun.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def run(argv: Sequence[str]) -> int:
    """The lock is held already, by the descriptor that was inherited; that is checked, since anyone can type this."""
    if len(argv) != 2 or not argv[1].isdecimal():
        raise UsageError("cleanup", "is for minirun-monitor", "minirun rm removes a container")
    container = find(argv[0])
    try:
        held = os.path.samestat(os.fstat(int(argv[1])), os.stat(container.lock_path))
    except OSError:
        held = False
    if not held:
        raise UsageError(
            "cleanup", f"descriptor {argv[1]} is not the container's lock", "minirun rm removes a container"
        )
    lifecycle.clean(container)
    return 0
