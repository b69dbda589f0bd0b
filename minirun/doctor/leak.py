"""One thing that was left behind, and how it goes away."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from minirun.errors import MinirunError


class Leak(NamedTuple):
    """One thing left behind, and the command that removes it."""

    kind: str
    name: str
    why: str
    command: str
    remove: Callable[[], object]

    def fix(self) -> Exception | None:
        """Remove it; what failed, if it did. Gone already is fine."""
        try:
            self.remove()
        except (FileNotFoundError, ProcessLookupError):
            return None
        except (OSError, MinirunError) as error:
            return error
        return None
