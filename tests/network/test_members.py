"""Networks of several bridges: containers far from each other in their network notice nothing of it."""

from __future__ import annotations

import json

import pytest

from minirun.network.addresses import Subnet
from minirun.network.network import MAX_BRIDGES, PORTS_PER_BRIDGE, Network, Pool
from tests.fakehost import FakeHost
from tests.network.containers import Attached, Serve, ask, at_once

NEAR, FAR, FAR_SIBLING, FARTHER = "10.201.0.10", "10.201.4.10", "10.201.4.11", "10.201.8.10"
BOUND = "br0~1"

MEMBER = """
import sys
from minirun.network import bridge, member, network
found = bridge.ensure("br0")
step = member.Member("br0~1", "br0", found.mtu, network.comment("br0"), found.isolate)
print(step.sh() if sys.argv[1:] == ["sh"] else step.do())
"""


def network(name: str, *subnets: str) -> Network:
    return Network(name, name, [Pool(Subnet.parse(text), "") for text in subnets], "", 1500)


def links(host: FakeHost) -> dict[str, dict[str, object]]:
    """What ip-link(8) shows of the links of member bridges, without what differs from one making to the next."""
    kept = ("flags", "mtu", "master", "group", "ifalias", "linkinfo")
    found = {}
    for link in json.loads(host.run(["ip", "-j", "-d", "link"]).stdout):
        name = str(link["ifname"])
        if "~" in name:
            link["flags"] = sorted({*link["flags"]} - {"NO-CARRIER", "LOWER_UP"})
            found[name] = {key: link[key] for key in kept if key in link}
            if name == BOUND:
                found[name]["address"] = link["address"]
            for key in ("info_data", "info_slave_data"):  # numbers and timers
                settings = link["linkinfo"].get(key, {})
                link["linkinfo"][key] = {k: settings[k] for k in ("hairpin", "flood") if k in settings}
    return found


def test_the_bridge_follows_from_the_address() -> None:
    large = network("lab", "10.0.0.0/20", "10.9.0.0/24")
    assert [large.member(f"10.0.{a}.{b}") for a, b in ((0, 2), (3, 191), (3, 192), (15, 254))] == [
        "lab",
        "lab",
        "lab~1",
        "lab~4",
    ]
    assert large.member("10.9.0.200") == "lab~4"  # counted on from the first subnet
    assert large.members() == ["lab~1", "lab~2", "lab~3", "lab~4"]
    assert network("lab", "10.0.0.0/24").members() == []
    assert network("lab", "10.0.0.0/24", "fd00::/64").members() == []


def test_a_bridge_is_never_given_more_than_it_takes() -> None:
    plugs = MAX_BRIDGES + PORTS_PER_BRIDGE
    assert plugs <= 1023  # BR_MAX_PORTS - 1: those of the network's own bridge, with all trunks
    huge = network("lab", "10.0.0.0/16")
    assert len(huge.members()) == MAX_BRIDGES - 1
    assert {huge.member(f"10.0.{a}.77") for a in range(256)} == {"lab", *huge.members()}
    assert len(network("lab", "fd00::/64").members()) == MAX_BRIDGES - 1


@pytest.mark.parametrize("name", ["a", "elevenchars", "fifteen-letters", "fifteen-lettres"])
def test_names_fit_and_differ(name: str) -> None:
    members = network(name, "10.0.0.0/16").members()
    assert max(map(len, members)) <= 14  # a trunk has one character more
    assert len({*members, *network("fifteen-letterz", "10.0.0.0/16").members()}) == 2 * len(members)


def test_containers_on_different_bridges_reach_each_other_and_the_world(both_hosts: FakeHost, serve: Serve) -> None:
    host = both_hosts
    near = Attached(host, "near", "br0", address=NEAR)
    far = Attached(host, "far", "br0", "8080:80", address=FAR)
    sibling = Attached(host, "sibling", "br0", address=FAR_SIBLING)
    farther = Attached(host, "farther", "br0", address=FARTHER)
    everyone = (near, far, sibling, farther)
    for place in everyone:
        serve(place)
    serve(host.outside, 70)
    for _ in range(2):  # what goes back where it came from must not teach a bridge anything
        for place in everyone:
            for other in everyone:
                assert ask(place, other.address, 80) == f"{other.name} sees {place.address}"
            assert place.run("ping", "-c1", "-W5", "10.201.0.1", check=False).returncode == 0
            assert ask(place, host.outside_address, 70) == f"outside sees {host.address}"
            assert ask(place, host.address, 8080).startswith("far sees 10.201.")  # published, by itself too
    assert ask(host.outside, host.address, 8080) == f"far sees {host.outside_address}"
    assert ask(host, "127.0.0.1", 8080) == "far sees 10.201.0.1"
    assert ask(host.lan, FAR, 80).startswith("ConnectionRefused") or ask(host.lan, FAR, 80).startswith("OSError")


def test_a_published_port_of_another_network_and_isolation(both_hosts: FakeHost, serve: Serve) -> None:
    host = both_hosts
    host.minirun("network", "create", "--subnet", "10.77.0.0/20", "lab")
    far = Attached(host, "far", "br0", "8080:80", address=FAR)
    other = Attached(host, "other", "lab", address="10.77.9.9")
    serve(far)
    assert ask(other, host.address, 8080) == "far sees 10.77.9.9"
    assert "Refused" in ask(other, FAR, 80) or "OSError" in ask(other, FAR, 80)


def test_a_frame_to_a_members_own_mac_leads_nowhere(host: FakeHost, serve: Serve) -> None:
    """Who sends to it as to a router would come by rules that are the network's bridge's."""
    far = Attached(host, "far", "br0", address=FAR)
    serve(host.outside, 70)
    mac = json.loads(host.run(["ip", "-j", "link", "show", BOUND]).stdout)[0]["address"]
    far.run("ip", "neighbour", "replace", "10.201.0.1", "lladdr", mac, "dev", "eth0", "nud", "permanent")
    assert ask(far, host.outside_address, 70, patience=1).startswith("TimeoutError")


def test_the_commands_do_what_the_step_does(host: FakeHost) -> None:
    script = host.python(MEMBER, "sh")
    host.run(["sh", "-ec", script])
    by_hand = links(host)
    host.run(["sh", "-ec", script])  # it is there: nothing happens
    assert links(host) == by_hand
    host.run(["ip", "link", "del", f"{BOUND}a"])
    host.run(["ip", "link", "del", BOUND])
    host.python(MEMBER)
    assert links(host) == by_hand
    assert len(by_hand) == 3


@pytest.mark.parametrize(
    "damage",
    [
        ["ip link set br0~1 down"],
        ["ip link del br0~1a"],
        ["ip link del br0~1"],
        ["ip link set br0~1a down", "ip link set br0~1 down"],
        ["ip link set br0~1 alias ''", "ip link del br0~1a", "ip link set br0~1 down"],
    ],
)
def test_a_half_made_member_is_made_whole(host: FakeHost, damage: list[str]) -> None:
    host.python(MEMBER)
    whole = links(host)
    for command in damage:
        host.run(["sh", "-c", command])
    host.python(MEMBER)
    assert links(host) == whole


def test_many_at_once_make_one(host: FakeHost) -> None:
    host.python("from minirun.network import bridge; bridge.ensure('br0')")
    assert at_once(host, MEMBER, [[]] * 6) == ["None\n"] * 6
    assert sorted(links(host)) == ["br0~1", "br0~1a", "br0~1b"]


def test_a_strangers_interface_is_not_touched(host: FakeHost) -> None:
    host.run(["ip", "link", "add", BOUND, "type", "bridge"])
    host.run(["ip", "link", "set", BOUND, "up"])
    done = host.run(["python3", "-c", MEMBER], check=False)
    assert "Conflict" in done.stderr and BOUND in done.stderr
    host.minirun("network", "rm", "br0")
    assert sorted(links(host)) == [BOUND]


def test_they_go_with_the_network_and_without_a_record_they_are_leaks(host: FakeHost) -> None:
    for address in (FAR, FARTHER):
        Attached(host, f"at{address}", "br0", address=address).undo()
    assert len(links(host)) == 6
    inspected = json.loads(host.minirun("network", "inspect", "br0").stdout)
    assert inspected[0]["ports"] == [] if isinstance(inspected, list) else inspected["ports"] == []
    record = f"{host.root}/networks/br0/network.json"
    host.run(["mv", record, f"{record}.kept"])
    found = host.minirun("doctor", "--leaks", check=False).stdout
    assert all(name in found for name in ("br0~1", "br0~2a"))
    host.run(["mv", f"{record}.kept", record])
    assert "br0~" not in host.minirun("doctor", "--leaks").stdout
    host.minirun("network", "rm", "br0")
    assert links(host) == {}
    assert host.run(["nft", "list", "ruleset"]).stdout == ""
