"""Signals by name or number, as kill(1) takes them."""

from __future__ import annotations

import _signal

from minirun.errors import UsageError

NUMBERS: dict[str, int] = {
    name: value
    for name, value in vars(_signal).items()
    if name.startswith("SIG") and isinstance(value, int) and value > 0
}


_REALTIME = {"SIGRTMIN": _signal.SIGRTMIN, "SIGRTMAX": _signal.SIGRTMAX}


def number(text: str, null: bool = False) -> int:
    """``TERM``, ``SIGTERM``, ``RTMIN+3``, ``15``; UsageError for anything else. ``null`` allows 0, which asks only."""
    if text.isdecimal() and text.isascii() and len(text) < 3 and (null or int(text)) and int(text) < 65:
        return int(text)
    name = text.upper()
    name = name if name.startswith("SIG") else f"SIG{name}"
    known = NUMBERS.get(name) or _realtime(name)
    if not known or "_" in name:
        raise UsageError(f"signal {text!r}", "unknown", "a name such as TERM, or a number up to 64")
    return known


def _realtime(name: str) -> int:
    """``SIGRTMIN+3``, ``SIGRTMAX-2``; 0 if it is none."""
    base = _REALTIME.get(name[:8], 0)
    offset = name[9:]
    if not base or not offset.isdecimal() or not offset.isascii() or len(offset) > 2 or name[8] not in "+-":
        return 0
    value = base + int(name[8:])
    return value if _signal.SIGRTMIN <= value <= _signal.SIGRTMAX else 0
