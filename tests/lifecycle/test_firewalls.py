"""`run` on a host with another firewall: said, refused or opened, as it was asked for."""

from __future__ import annotations

import re

import pytest

from tests.lifecycle.machine import Machine

SAID = (
    "the chain ip filter FORWARD (policy drop) stops packets of network br0 (to the outside); "
    "open it with: minirun network reload --allow-forward br0"
)


@pytest.fixture
def closed(host: Machine) -> Machine:
    """A host whose firewall passes nothing on, for bridged packets neither."""
    host.sysctl("net.bridge.bridge-nf-call-iptables", "0")
    host.run(["iptables-nft", "-P", "FORWARD", "DROP"])
    return host


def reset(host: Machine) -> None:
    """Take everything away, for the next test on this host."""
    host.minirun("network", "rm", "br0")
    host.run(["nft", "flush", "ruleset"])


def test_the_start_says_it_and_succeeds(closed: Machine) -> None:
    done = closed.minirun("run", "--rm", "busybox", "echo", "hello")
    assert done.stdout == "hello\n"
    assert done.stderr == f"minirun: warning: {SAID}\n"
    done = closed.minirun("run", "--rm", "-p", "8080:80", "busybox", "true")
    assert "stops packets of network br0 (to the outside, to published ports);" in done.stderr
    assert closed.minirun("run", "--rm", "--net", "none", "busybox", "true").stderr == ""
    closed.run(["iptables-nft", "-A", "FORWARD", "-i", "br0", "-j", "ACCEPT"])
    closed.run(["iptables-nft", "-A", "FORWARD", "-o", "br0", "-j", "ACCEPT"])
    assert closed.minirun("run", "--rm", "-p", "8080:80", "busybox", "true").stderr == ""
    reset(closed)


def test_connect_says_it_and_succeeds(closed: Machine) -> None:
    closed.minirun("run", "-d", "--net", "none", "--name", "a", "busybox", "sleep", "600")
    done = closed.minirun("network", "connect", "br0", "a")
    assert done.stderr == f"minirun: warning: {SAID}\n"
    assert "eth0" in closed.out("exec", "a", "ip", "-o", "-4", "address")
    closed.minirun("rm", "-f", "a")
    reset(closed)


def test_the_start_fails_where_it_has_to(closed: Machine) -> None:
    done = closed.minirun("run", "--rm", "--require-forward", "--name", "web", "busybox", "true", check=False)
    assert (done.returncode, done.stderr) == (125, f"minirun: --require-forward: {SAID}\n")
    assert closed.minirun("ps", "-aq").stdout == ""
    closed.run(["iptables-nft", "-P", "FORWARD", "ACCEPT"])
    assert closed.minirun("run", "--rm", "--require-forward", "--name", "web", "busybox", "true").stderr == ""
    reset(closed)


def test_the_start_opens_what_it_may(closed: Machine) -> None:
    script = closed.minirun("explain", "run", "--allow-forward", "busybox", "true").stdout
    assert re.search(r"^# \d+ opening\niptables-nft -w -I FORWARD -i br0 ", script, re.M)
    fetch = ["busybox", "sh", "-c", f"nc -w2 {closed.outside_address} 7 2>&1 | grep -q refused && echo through"]
    assert closed.minirun("run", "--rm", "--allow-forward", *fetch).stdout == "through\n"
    done = closed.minirun("run", "--rm", *fetch)  # it is the network that is open
    assert (done.stdout, done.stderr) == ("through\n", "")
    closed.run(["iptables-nft", "-F", "FORWARD"])
    assert closed.minirun("run", "--rm", *fetch).stdout == "through\n"
    reset(closed)
    assert closed.run(["iptables-nft", "-S", "FORWARD"]).stdout == "-P FORWARD ACCEPT\n"


def test_a_firewall_that_comes_later_is_opened_by_the_next_command(host: Machine) -> None:
    host.minirun("run", "--rm", "--allow-forward", "busybox", "true")
    host.run(["iptables-legacy", "-P", "FORWARD", "DROP"])
    host.minirun("ps")
    assert host.run(["iptables-legacy", "-S", "FORWARD"]).stdout.count("minirun network br0") == 2
    reset(host)
    assert host.run(["iptables-legacy", "-S", "FORWARD"]).stdout == "-P FORWARD DROP\n"
    host.run(["iptables-legacy", "-P", "FORWARD", "ACCEPT"])
