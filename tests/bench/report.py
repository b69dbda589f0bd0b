"""The tables of the bench, and what the project promises about them.

A median of milliseconds says little about another machine; a ratio between two programs in the same minutes says much,
so the targets are ratios.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.peers import BARE, BRIDGE, CASES, LIFE, STATE

Times = dict[str, dict[str, dict[str, Any]]]  # case, runtime: what rounds.py gives


@dataclass(frozen=True)
class Target:
    """``case`` of minirun takes at most ``limit`` times as long as ``peer_case`` of the peer."""

    case: str
    peer: str
    peer_case: str
    limit: float

    def __str__(self) -> str:
        return f"{self.case} <= {self.limit:.2f} of {self.peer}'s {self.peer_case}"


TARGETS = (
    Target(BRIDGE, "docker", BRIDGE, 0.08),
    Target(BRIDGE, "podman", BRIDGE, 0.08),
    Target(BRIDGE, "runc", BARE, 0.65),
    Target(BARE, "runc", BARE, 0.60),
    Target(LIFE, "runc", LIFE, 0.80),
    Target(STATE, "runc", STATE, 1.00),
)


def measured(times: Times, case: str, name: str) -> tuple[float, float] | None:
    """Median and best seconds, or None if that was not measured."""
    result = times.get(case, {}).get(name)
    if not result or result["failed"]:
        return None
    return statistics.median(result["seconds"]), min(result["seconds"])


def rows(times: Times) -> list[list[str]]:
    """Case, runtime, median, best, and what part of the peer's median is minirun's."""
    found = [["what", "runtime", "median ms", "best ms", "minirun is"]]
    for case in (case for case in CASES if case in times):
        ours = measured(times, case, "minirun")
        for name, result in times[case].items():
            theirs = measured(times, case, name)
            if theirs is None:
                found.append([case, name, "-", "-", result["failed"]])
                continue
            ratio = f"{ours[0] / theirs[0]:.3f} of it" if ours and name != "minirun" else ""
            found.append([case, name, f"{theirs[0] * 1000:.1f}", f"{theirs[1] * 1000:.1f}", ratio])
    return found


def verdicts(times: Times) -> list[list[str]]:
    """Each target, the ratios of the medians and of the best times, and whether it holds (by the medians)."""
    found = [["target", "medians", "best", "holds"]]
    for target in TARGETS:
        ours, theirs = measured(times, target.case, "minirun"), measured(times, target.peer_case, target.peer)
        if ours is None or theirs is None:
            found.append([str(target), "-", "-", "not measured"])
        else:
            ratio = ours[0] / theirs[0]
            verdict = "yes" if ratio <= target.limit else "NO"
            found.append([str(target), f"{ratio:.3f}", f"{ours[1] / theirs[1]:.3f}", verdict])
    return found


def plain(table: Sequence[Sequence[str]]) -> str:
    """Columns, as on a terminal."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([*lines, ""])


def markdown(table: Sequence[Sequence[str]]) -> str:
    """The same for a document."""
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in table]
    return "\n".join([lines[0], "|" + " --- |" * len(table[0]), *lines[1:], ""])
