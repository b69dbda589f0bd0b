"""``minirun port``: which ports of the host lead to a container's, as ``docker port`` tells."""

from __future__ import annotations

import sys

from minirun.cli.arguments import Values, help_text, parse
from minirun.engine import record as records
from minirun.engine.inspect import bindings, published
from minirun.errors import NotFound, UsageError
from minirun.network import ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = "port CONTAINER [PORT[/PROTO]]"


def run(argv: Sequence[str]) -> int:
    """``minirun port``."""
    if "--help" in argv:
        sys.stdout.write(help_text(USAGE, "Show which ports of the host lead to a container's ports.", []))
        return 0
    operands = parse(argv, [], Values())
    if not 0 < len(operands) < 3:
        raise UsageError("port", "a container, and at most one port", f"minirun {USAGE}")
    container = records.find(operands[0])
    alive = container.status() in ("created", "running", "paused")
    found = bindings(published(container.record())) if alive else {}
    if len(operands) == 1:
        lines = [f"{name} -> {_place(place)}" for name, places in found.items() for place in places]
    else:
        name, *more = ports.exposed(operands[1], "port")
        if more:
            raise UsageError(f"port {operands[1]}", "more than one", f"minirun {USAGE}")
        if name not in found:
            raise NotFound(f"port {name} of {operands[0]}", "it is not published", f"see: minirun port {operands[0]}")
        lines = [_place(place) for place in found[name]]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _place(place: dict[str, str]) -> str:
    address = place["HostIp"]
    return f"[{address}]:{place['HostPort']}" if ":" in address else f"{address}:{place['HostPort']}"
