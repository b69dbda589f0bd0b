"""What a container uses, in the shape that ``runc events --stats`` has made common."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minirun.runtime.control import Handle


def stats(handle: Handle) -> dict[str, Any]:
    """The "data" of an event of type stats."""
    return {}
