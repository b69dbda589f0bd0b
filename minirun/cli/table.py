"""Tables, JSON and durations for people and for programs."""

from __future__ import annotations

import sys
import time

from minirun import strict_json
from minirun.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any


def write(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell, three spaces apart."""
    # A control character in a name or a command must not reach the terminal.
    clean = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [columns, *clean]) for i in range(len(columns))]
    for row in [columns, *clean]:
        sys.stdout.write("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def complain(error: object) -> None:
    """An error in one line on standard error, for commands that go on after it."""
    sys.stderr.write("".join(c if c.isprintable() else repr(c)[1:-1] for c in f"minirun: {error}") + "\n")


def json_lines(rows: Iterable[Any]) -> None:
    """One JSON object a line, as ``docker ps --format json`` prints them."""
    for row in rows:
        sys.stdout.write(strict_json.dumps(row) + "\n")


def pretty(value: Any) -> None:
    """One JSON value, indented by four spaces as docker's inspect."""
    import json

    text = json.dumps(value, indent=4, ensure_ascii=False) + "\n"
    # An argument may be bytes that are no text; what stands for such a byte is also its escape in JSON: \udcff.
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode())


def check_format(text: str) -> None:
    """``--format`` knows "json" and "table"."""
    if text not in ("json", "table"):
        why = "templates are not understood" if "{{" in text else ""
        raise UsageError(f"--format {text!r}", why, "json or table")


def ago(moment: float) -> str:
    """How long ago, in the largest unit that makes sense: "5 seconds", "3 hours"."""
    seconds = max(0, int(time.time() - moment))
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}s"
    return f"{seconds} second{'' if seconds == 1 else 's'}"


def size(count: float) -> str:
    """A number of bytes for people: "8.4MB" (powers of 1000, as docker's)."""
    number, unit = _scaled(count, ("B", "kB", "MB", "GB", "TB"))
    return f"{number:.3g}{unit}"


def rate(bits: float) -> str:
    """Bits a second as tc(8) writes them: "10mbit" (powers of 1000)."""
    number, unit = _scaled(bits, ("bit", "kbit", "mbit", "gbit", "tbit"))
    return f"{number:.4g}{unit}"


def _scaled(number: float, units: Sequence[str]) -> tuple[float, str]:
    """A number in the unit that leaves less than 1000 of it, or in the last; each is 1000 of the one before."""
    place = 0
    while number >= 1000 and place < len(units) - 1:
        number, place = number / 1000, place + 1
    return number, units[place]


def binary_size(count: float) -> str:
    """A number of bytes for people: "64MiB" (powers of 1024, as limits are given)."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g}{unit}"
        count /= 1024
    return f"{count:.4g}TiB"
