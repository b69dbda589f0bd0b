"""New limits for a container that runs: all of them, or none."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minirun.runtime.control import Handle


def update(handle: Handle, wanted: dict[str, Any]) -> None:
    """Write the limits of ``wanted``."""
    from minirun.runtime import placement

    for step in placement.limit_steps(handle.directories, wanted):
        step.do()
