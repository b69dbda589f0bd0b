"""What a start costs, in numbers that do not depend on how busy the machine is.

A time cannot be a test; what the time is made of can. Every limit here is a budget: a change that needs more of it has
to take it from somewhere else, or to show by `make bench` that it is worth its price. The modules that a start may
import have their own budget, in tests/lint/test_imports.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.bench import measure, ports
from tests.lifecycle.machine import Machine

RUN = ["run", "--rm", "--net", "br0", "alpine", "/bin/true"]
MOST_CALLS = 1000
MOST_MONITOR_KB = 512
CONNECTIONS = 20

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed: apt-get install strace")


@needs_strace
def test_a_start_is_at_most_a_thousand_system_calls(host: Machine, program: str) -> None:
    """In all processes, from the start of the interpreter to the clean-up."""
    command = [program, *RUN]
    host.run(command)  # the first one makes the network and compiles the seccomp filter
    # A wake-up of poll(2) more or less is a matter of timing; the fewest of some runs are what a start needs.
    assert min(measure.system_calls(host, command) for _ in range(4)) <= MOST_CALLS


@needs_strace
def test_a_start_runs_no_helper_program(host: Machine, program: str) -> None:
    """No ip, nft, iptables, mount or modprobe: each would cost some milliseconds, and can be missing."""
    command = [program, *RUN]
    host.run(command)
    executed = measure.programs(host, command)
    assert [Path(path).name for path in executed] == ["minirun", "minirun-monitor", "memfd:minirun-init", "true"]


def test_the_monitor_stays_small(host: Machine) -> None:
    """One of them stays in memory with every container."""
    host.start("busybox", "sleep", "100000")
    (size,) = measure.monitors(host).values()
    assert size <= MOST_MONITOR_KB, f"{size} kB"


def test_the_first_connection_to_a_new_container_is_never_lost(host: Machine, program: str) -> None:
    """A SYN that comes before the bridge's port forwards is lost, and sent again only after a second."""
    report = measure.first_connections(host, program, CONNECTIONS)
    assert len(report["seconds"]) == CONNECTIONS
    assert report["retransmitted"] == 0, report


@needs_strace
def test_a_published_port_costs_the_same_beside_thousands(host: Machine, program: str) -> None:
    """A start asks for its own port by the key; it never reads those of others (tests/bench/ports.py has the times)."""
    command = [program, "run", "--rm", "-p", "8080:80", "busybox", "true"]
    host.run(command)
    alone = min(measure.system_calls(host, command) for _ in range(3))
    ports.others(host, "add", 3000)
    assert min(measure.system_calls(host, command) for _ in range(3)) <= alone + 3
    ports.others(host, "delete", 3000)
