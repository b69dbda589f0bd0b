"""Rate limits as a user asks for them: ``run``, ``inspect``, ``stats``, and what is left afterwards."""

from __future__ import annotations

import json

from tests.lifecycle.machine import Machine


def test_rates_of_a_container_are_set_shown_and_gone(host: Machine) -> None:
    host.out(
        "run", "-d", "--name", "slow", "--net-rate-in", "10mbit", "--net-rate-out=1.5m", "busybox", "sleep", "1000"
    )
    queues = host.run(["tc", "qdisc", "show"]).stdout
    assert "rate 10Mbit" in queues and "rate 1500Kbit" in queues
    (container,) = json.loads(host.out("inspect", "slow"))
    plug = container["NetworkSettings"]["Networks"]["br0"]
    assert (plug["RateIn"], plug["RateOut"]) == (10_000_000, 1_500_000)
    address = plug["IPAddress"]
    host.run(["ping", "-c2", "-i0.01", "-s1000", address])
    (row,) = map(json.loads, host.out("stats", "--format", "json", "slow").splitlines())
    assert row["NetLimits"] == "10mbit / 1.5mbit"
    received, sent = (float(text.removesuffix("kB")) for text in row["NetIO"].split(" / "))
    assert received >= 2 and sent >= 2, row
    assert "NET I/O" in host.out("stats") and "10mbit / 1.5mbit" in host.out("stats")
    host.out("rm", "-f", "slow")
    assert "tbf" not in host.run(["tc", "qdisc", "show", "dev", f"mi{container['Id'][:12]}"], check=False).stdout
    assert host.run(["ip", "-o", "link", "show", "type", "ifb"]).stdout == ""


def test_a_network_among_several_has_its_own_rate(host: Machine) -> None:
    host.out("network", "create", "lab")
    host.out("run", "-d", "--name", "two", "--net", "br0", "--net", "lab:rate-in=2mbit", "busybox", "sleep", "1000")
    (row,) = map(json.loads, host.out("stats", "--format", "json", "two").splitlines())
    assert row["NetLimits"] == "no limit, 2mbit / no limit"
    host.out("rm", "-f", "two")


def test_explain_shows_the_commands(host: Machine) -> None:
    shown = host.out("explain", "run", "--net-rate-out", "1gbit", "busybox", "true")
    assert "root tbf rate 1000000000bit burst 2500000 limit " in shown
    assert "action mirred egress redirect dev mi" in shown


def test_a_network_may_be_made_without_a_guard(host: Machine) -> None:
    host.out("network", "create", "loose", "--opt", "spoof=allow")
    host.out("run", "-d", "--name", "router", "--net", "loose", "busybox", "sleep", "1000")
    assert "claims" not in host.out("explain", "run", "--net", "loose", "busybox", "true")
    assert host.run(["ip", "-o", "link", "show", "group", "28018"]).stdout == ""
    host.out("rm", "-f", "router")
    assert "not allow or deny" in host.minirun("network", "create", "x", "--opt", "spoof=maybe", check=False).stderr
