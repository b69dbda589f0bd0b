"""Networks with IPv6: everybody reaches whom he should, at once, and the host stays what it was.

Published ports are in test_publish, isolation in test_isolation, neighbour discovery of attackers in test_guard.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator

import pytest

from tests.fakehost import FakeHost
from tests.network import frames
from tests.network.containers import Attached, Serve, ask

CREATE = """
import sys
from minirun.network import bridge, creation
wanted = creation.Wanted("six")
wanted.ipv6, wanted.subnets = True, sys.argv[1:]
bridge.create(wanted)
"""
# Each new container sends one datagram as soon as it is attached, from a socket that was made inside it.
FIRST_PACKETS = """
import ctypes, hashlib, os, socket
from minirun import step
from minirun.network import attach, bridge, endpoint, ipam
libc, home = ctypes.CDLL(None, use_errno=True), os.open("/proc/self/ns/net", os.O_RDONLY)
network = bridge.load("six")
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.bind(("", 9))
lost = []
for number in range(30):
    name, identity = f"c{number}", hashlib.sha256(str(number).encode()).hexdigest()
    plug = endpoint.decide(network, identity, 0, [ipam.allocate(network, identity, [], bits) for bits in (32, 128)])
    steps = [one for one in attach.attach_steps(identity, name, [plug], []) if one.kind != "names"]
    step.do_all(steps)
    inside = os.open(f"/run/netns/{name}", os.O_RDONLY)
    assert libc.setns(inside, 0) == 0
    client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    assert libc.setns(home, 0) == 0
    client.sendto(name.encode(), (network.ipv6[0].gateway, 9))
    server.settimeout(20)
    server.recv(100)
    assert libc.setns(inside, 0) == 0
    asked = [line.split()[1] for line in open("/proc/thread-self/net/snmp6") if "Icmp6OutNeighborSolicits " in line]
    assert libc.setns(home, 0) == 0
    if asked != ["1"]:  # the question for the gateway's MAC is repeated after a second
        lost.append(name)
    client.close()
    os.close(inside)
    step.undo_all(steps)
print("lost:", lost)
"""
FLAGS = "tentative|dadfailed|optimistic"


@pytest.fixture(params=["0", "1"], ids=["bridge-nf-0", "bridge-nf-1"])
def six(request: pytest.FixtureRequest) -> Iterator[FakeHost]:
    """A fake host with a network ``six`` and IPv6 outside, once with and once without the firewall in the bridge."""
    machine = FakeHost()
    try:
        for family in ("iptables", "ip6tables"):
            machine.sysctl(f"net.bridge.bridge-nf-call-{family}", request.param)
        for place, address in ((machine, "2001:db8::2"), (machine.outside, "2001:db8::1")):
            place.run(["ip", "address", "add", f"{address}/64", "dev", "eth0", "nodad"])
        machine.run(["ip", "-6", "route", "add", "default", "via", "2001:db8::1"])
        machine.python(CREATE)
        yield machine
    finally:
        machine.close()


OTHERS = """
ip link add docker0 type bridge
ip link add port type veth peer name far
ip link add tap type ifb
ip link set port master docker0
ip link set tap master docker0
ip link add wan type ifb
"""


def test_everybody_reaches_whom_he_should(six: FakeHost, serve: Serve) -> None:
    web, sibling = Attached(six, "web", "six"), Attached(six, "sibling", "six")
    serve(web, 80)
    serve(web, 53, "udp")
    serve(six.outside, 80)
    serve(six, 9999)
    own, other = web.addresses[1], sibling.addresses[1]
    assert own.startswith("fd") and other.startswith("fd")
    gateway = json.loads(web.run("ip", "-6", "-j", "route", "show", "default").stdout)[0]["gateway"]
    assert ask(sibling, own, 80) == f"web sees {other}"
    assert ask(sibling, own, 53, "udp") == f"web sees {other}"
    assert ask(sibling, web.address, 80) == f"web sees {sibling.address}"
    assert ask(six, own, 80) == f"web sees {gateway}"
    assert ask(web, gateway, 9999) == f"host sees {own}"
    assert ask(web, "2001:db8::1", 80) == "outside sees 2001:db8::2"
    for target in (own, gateway, "2001:db8::1"):
        sibling.run("ping", "-c1", "-W5", target)


def test_addresses_are_ready_when_they_are_there(six: FakeHost) -> None:
    assert six.python(FIRST_PACKETS) == "lost: []\n"
    web = Attached(six, "web", "six")
    shown = web.run("ip", "-6", "address").stdout
    assert shown.count("inet6") == 3 and not any(flag in shown for flag in FLAGS.split("|"))
    bridge = six.run(["ip", "-6", "address", "show", "dev", "six"]).stdout
    assert bridge.count("inet6") == 2 and not any(flag in bridge for flag in FLAGS.split("|"))


@pytest.mark.parametrize("subnets", [["fd00:77::/64"], ["10.77.0.0/24", "2001:db8:77::/64"]])
def test_the_subnet_may_be_given(host: FakeHost, serve: Serve, subnets: list[str]) -> None:
    host.python(CREATE, *subnets)
    web, sibling = Attached(host, "web", "six"), Attached(host, "sibling", "six")
    serve(web, 80)
    assert ask(sibling, web.addresses[-1], 80) == f"web sees {sibling.addresses[-1]}"
    assert web.addresses[-1].startswith(subnets[-1].partition("::")[0])


def test_nobody_listens_to_routers_but_the_host(host: FakeHost) -> None:
    """A host that has its way out from a router keeps it, although it becomes a router itself."""
    host.run(["sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra=1"])
    _advertise(host)
    host.wait_until("ip -6 route show default | grep -q 'proto ra'")
    host.python(CREATE)
    web = Attached(host, "web", "six")
    assert host.sysctl("net.ipv6.conf.all.forwarding") == "1"
    assert "proto ra" in host.run(["ip", "-6", "route", "show", "default"]).stdout
    host.run(["ip", "-6", "route", "del", "default"])
    _advertise(host)
    host.wait_until("ip -6 route show default | grep -q 'proto ra'")
    assert host.sysctl("net.ipv6.conf.six.accept_ra") == "0"
    assert web.run("sysctl", "-n", "net.ipv6.conf.eth0.accept_ra").stdout == "0\n"
    assert "proto ra" not in web.run("ip", "-6", "route").stdout


@pytest.mark.parametrize("by", ["us", "the script"])
def test_only_uplinks_go_on_listening_to_routers(host: FakeHost, by: str) -> None:
    """Neither bridges of others, that are there or are yet to come, nor what is plugged into them (CVE-2020-10749)."""
    host.run(["sysctl", "-qw", *(f"net.ipv6.conf.{name}.accept_ra=1" for name in ("all", "default", "eth0", "eth1"))])
    host.run(["sh", "-ec", OTHERS])
    host.run(["sysctl", "-qw", "net.ipv6.conf.eth1.accept_ra=1"])
    _advertise(host)
    host.wait_until("ip -6 route show default | grep -q 'proto ra'")
    if by == "us":
        host.python(CREATE)
    else:
        host.run(["sh", "-e"], stdin=host.minirun("explain", "network", "create", "six", "--ipv6").stdout)
    host.run(["ip", "link", "add", "late", "type", "bridge"])
    listen = {
        name: host.sysctl(f"net.ipv6.conf.{name}.accept_ra")
        for name in ("all", "default", "lo", "docker0", "port", "far", "tap", "late", "eth1", "eth0", "wan")
    }
    assert listen == dict.fromkeys(listen, "1") | {"eth0": "2", "wan": "2"}


def test_without_ipv6_it_is_off_at_both_ends(host: FakeHost) -> None:
    host.python(CREATE)
    Attached(host, "dual", "six")
    web = Attached(host, "web", "br0")
    for device in (f"mr{web.id[:12]}", "br0"):
        assert host.sysctl(f"net.ipv6.conf.{device}.disable_ipv6") == "1"
    for device in ("eth0", "lo"):
        assert web.run("sysctl", "-n", f"net.ipv6.conf.{device}.disable_ipv6").stdout == "1\n"
    assert "inet6" not in web.run("ip", "address").stdout


def _advertise(host: FakeHost) -> None:
    """Let ``outside`` say that it is a router (RFC 4861, 4.2)."""
    link = json.loads(host.outside.run(["ip", "-j", "link", "show", "eth0"]).stdout)[0]["address"]
    source = "fe80::1234"
    body = bytes([64, 0]) + struct.pack(">HII", 1800, 0, 0)
    packet = frames.ipv6(source, "ff02::1", 58, frames.icmp6(134, body, source, "ff02::1"))
    frame = frames.ether(frames.group("ff02::1"), frames.mac(link), 0x86DD, packet)
    host.outside.run([sys.executable, "-c", frames.SENDER, "eth0"], stdin=f"{frame.hex()}\n")
