"""What is counted and not timed: system calls, programs started, memory of the monitor, lost first packets."""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fakehost import REPOSITORY, FakeHost

LISTENING = ["run", "-d", "--net", "br0", "busybox", "httpd", "-f", "-p", "80"]
_EXECUTED = re.compile(r'^\d+ +(?:execveat\(\d+<([^>]*)>[^,]*, ""|execve\("([^"]*)")')


def system_calls(host: FakeHost, command: Sequence[str]) -> int:
    """The system calls of a command and of every process that it starts."""
    table = host.path("/run/strace")
    host.run(["strace", "-f", "-qq", "-c", "-U", "calls,name", "-o", "/run/strace", *command])
    calls, name = table.read_text().splitlines()[-1].split()
    assert name == "total", table.read_text()
    return int(calls)


def programs(host: FakeHost, command: Sequence[str]) -> list[str]:
    """The programs that a command and its processes try to execute, in order; an anonymous file as /memfd:NAME."""
    trace = host.path("/run/strace")
    host.run(["strace", "-f", "-qq", "-y", "-e", "trace=execve,execveat", "-o", "/run/strace", *command])
    found = [_EXECUTED.search(line) for line in trace.read_text().splitlines()]
    return [match[1] or match[2] for match in found if match]


def monitors(host: FakeHost) -> dict[int, int]:
    """Every monitor of a host, with its PSS in kB: its own memory, and its share of what it shares."""
    found = {}
    for pid in host.processes():
        if b"minirun-monitor" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            found[pid] = int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.M)[1])  # type: ignore[index]
    return found


def first_connections(host: FakeHost, program: str, times: int) -> dict[str, Any]:
    """Connect to new containers as early as possible; see tests/bench/connect.py."""
    script = str(REPOSITORY / "tests/bench/connect.py")
    done = host.run([sys.executable, script, str(times), program, *LISTENING])
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def growth(seconds: Sequence[float]) -> tuple[float, float]:
    """The medians of the first and of the last tenth of many starts in a row."""
    tenth = max(1, len(seconds) // 10)
    return statistics.median(seconds[:tenth]), statistics.median(seconds[-tenth:])
