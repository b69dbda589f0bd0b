"""Signals by name or number, as kill(1) takes them."""

from __future__ import annotations

import _signal

from minirun.errors import UsageError

NUMBERS: dict[str, int] = {
    name: value
    for name, value in vars(_signal).items()
    if name.startswith("SIG") and isinstance(value, int) and value > 0
}


def number(text: str) -> int:
    """``TERM``, ``SIGTERM`` or ``15``; UsageError for anything else."""
    if text.isdecimal() and text.isascii() and len(text) < 3 and 0 < int(text) < 65:
        return int(text)
    name = text.upper()
    known = NUMBERS.get(name if name.startswith("SIG") else f"SIG{name}")
    if known is None or "_" in name:
        raise UsageError(f"signal {text!r}", "unknown", "a name such as TERM, or a number from 1 to 64")
    return known
