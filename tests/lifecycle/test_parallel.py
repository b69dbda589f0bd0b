"""Sixteen at once, three times."""

from __future__ import annotations

from tests.lifecycle.machine import Machine

AT_ONCE, ROUNDS = 16, 3
SHOW = "ip -4 -o addr show eth0 | sed 's/.*inet //; s/ .*//'; read x"


def test_runs_at_the_same_time_have_addresses_of_their_own(host: Machine) -> None:
    """All are alive together: each ends with its input, which is closed when the last has said its address."""
    for _ in range(ROUNDS):
        commands = [host.spawn("run", "--rm", "-i", "busybox", "sh", "-c", SHOW, stdin=-1) for _ in range(AT_ONCE)]
        addresses = [command.stdout.readline() for command in commands if command.stdout]
        ended = [(*command.communicate("\n", timeout=60), command.returncode) for command in commands]
        assert ended == [("", "", 0)] * AT_ONCE
        assert len(set(addresses)) == AT_ONCE and all(address.endswith("/20\n") for address in addresses), addresses
        host.settle()
        host.clean()


def test_short_runs_at_the_same_time(host: Machine) -> None:
    for _ in range(ROUNDS):
        commands = [host.spawn("run", "--rm", "busybox", "true") for _ in range(AT_ONCE)]
        ended = [(*command.communicate(timeout=60), command.returncode) for command in commands]
        assert ended == [("", "", 0)] * AT_ONCE


def test_the_first_runs_of_all(host: Machine) -> None:
    """There is no network, no firewall table, no bridge: all of them want to make the same."""
    host.minirun("network", "rm", "br0")
    assert "br0" not in host.run(["ip", "-o", "link"]).stdout
    commands = [host.spawn("run", "--rm", "busybox", "true") for _ in range(8)]
    ended = [(*command.communicate(timeout=60), command.returncode) for command in commands]
    assert ended == [("", "", 0)] * 8


def test_one_name_wanted_by_many(host: Machine) -> None:
    commands = [host.spawn("run", "-d", "--net", "none", "--name", "one", "busybox", "sleep", "600") for _ in range(8)]
    codes = [command.communicate(timeout=60) and command.returncode for command in commands]
    assert sorted(codes) == [0] + [125] * 7
