"""``minirun stats``: what containers use, beside the limits that the kernel holds for them."""

from __future__ import annotations

import sys
import time

from minirun.cli import table
from minirun.cli.arguments import Option, Values, help_text, parse, store
from minirun.engine import inspect
from minirun.engine import record as records
from minirun.engine.record import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

OPTIONS = [
    Option("--no-stream", "", store("once"), "accepted: the figures are printed once, in any case"),
    Option("--format", "json", store("format"), "one JSON object a line"),
]
INTERVAL = 0.2  # seconds between the two readings that a share of CPU time is computed from


def run(argv: Sequence[str]) -> int:
    """``minirun stats``."""
    if "--help" in argv:
        sys.stdout.write(help_text("stats [CONTAINER...]", "Show what containers use of their limits.", OPTIONS))
        return 0
    target = Values(once=True, format="table")
    operands = parse(argv, OPTIONS, target)
    table.check_format(target.format)
    chosen = [records.find(name) for name in operands] or [Container(identity) for identity in records.ids()]
    running = [container for container in chosen if container.status() in ("running", "paused")]
    before, start = [inspect.usage(container) for container in running], time.monotonic()
    if running:
        time.sleep(INTERVAL)
    rows = []
    for container, earlier in zip(running, before, strict=True):
        row = _row(container, earlier, time.monotonic() - start)
        if row:
            rows.append(row)
    if target.format == "json":
        table.json_lines(rows)
    else:
        columns = [
            "CONTAINER ID",
            "NAME",
            "CPU %",
            "CPUS",
            "MEM USAGE / LIMIT",
            "NET I/O",
            "NET LIMITS",
            "PIDS / LIMIT",
        ]
        keys = ("ID", "Name", "CPUPerc", "Cpus", "MemUsage", "NetIO", "NetLimits", "PIDs")
        table.write(columns, [[row[key] for key in keys] for row in rows])
    return 0


def _row(container: Container, earlier: dict[str, str], seconds: float) -> dict[str, Any] | None:
    now, limits = inspect.usage(container), inspect.limits(container)
    if "memory" not in now:  # it has just ended
        return None
    record = container.record()
    used = int(now.get("cpu", 0)) - int(earlier.get("cpu", now.get("cpu", 0)))
    received, sent = inspect.traffic(container)
    plugs = inspect.endpoints(container)
    return {
        "ID": container.id[:12],
        "Name": record["Name"],
        "CPUPerc": f"{used / seconds / 1e7:.2f}%",
        "Cpus": _cpus(limits),
        "MemUsage": f"{table.binary_size(int(now['memory']))} / {_bytes(limits.get('Memory', 'max'))}",
        "NetIO": f"{table.size(received)} / {table.size(sent)}",
        "NetLimits": f"{_rates([plug.rate_in for plug in plugs])} / {_rates([plug.rate_out for plug in plugs])}",
        "PIDs": f"{now['pids']} / {limits.get('Pids', 'max')}",
    }


def _rates(rates: Sequence[int]) -> str:
    """The limits of a container's networks, in their order, in bits a second."""
    return ", ".join(table.rate(rate) if rate else "no limit" for rate in rates) if any(rates) else "no limit"


def _bytes(value: str) -> str:
    """v1 writes "no limit" as the largest multiple of a page, v2 as ``max``."""
    return "no limit" if value == "max" or int(value) > 1 << 60 else table.binary_size(int(value))


def _cpus(limits: dict[str, str]) -> str:
    quota, _, period = f"{limits.get('CpuQuota', '-1')} {limits.get('CpuPeriod', '')}".strip().partition(" ")
    return "no limit" if quota in ("max", "-1") else f"{int(quota) / int(period or 100000):g}"
