"""Real packets: who reaches whom, and as whom. Each with and without bridged packets passing the firewall."""

from __future__ import annotations

import sys

import pytest

from tests.fakehost import FakeHost
from tests.network.containers import Attached, Serve, ask

# An echo reply that nobody asked for: connection tracking calls it invalid.
ICMP_SENDER = """
import socket, struct, sys
checksum = 0xFFFF - (0x1234 + 1)
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sender:
    sender.sendto(struct.pack(">BBHHH", 0, 0, checksum, 0x1234, 1), (sys.argv[1], 0))
"""
# Sends one datagram from each new container as soon as it is attached, from a socket that was made inside it; every
# other container is the first one on a new bridge, the next comes while the kernel removes that one.
FIRST_PACKETS = """
import ctypes, hashlib, os, socket
from minirun import step
from minirun.network import attach, bridge, creation, endpoint, ipam
libc, home = ctypes.CDLL(None, use_errno=True), os.open("/proc/self/ns/net", os.O_RDONLY)
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 9))
lost = []
for number in range(80):
    name, identity = f"c{number}", hashlib.sha256(str(number).encode()).hexdigest()
    network = network if number % 2 else bridge.create(creation.Wanted(f"net{number}"))
    plug = endpoint.decide(network, identity, 0, [ipam.allocate(network, identity, [])])
    steps = attach.attach_steps(identity, name, [plug], [])
    step.do_all(steps)
    inside = os.open(f"/run/netns/{name}", os.O_RDONLY)
    assert libc.setns(inside, 0) == 0
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    assert libc.setns(home, 0) == 0
    client.sendto(name.encode(), (network.pools[0].gateway, 9))
    try:
        server.settimeout(0.5)  # a lost question for the gateway's MAC is repeated after a second
        server.recv(100)
    except TimeoutError:
        lost.append(name)
        server.settimeout(10)
        server.recv(100)
    client.close()
    os.close(inside)
    step.undo_all(steps)
print("lost:", lost)
"""
ICMP_RECEIVER = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as receiver:
    receiver.settimeout(5)
    print("ready", flush=True)
    try:
        print(receiver.recvfrom(100)[1][0])
    except TimeoutError:
        print("nothing came")
"""


def test_the_way_out_has_the_hosts_address(both_hosts: FakeHost, serve: Serve) -> None:
    serve(both_hosts.outside, 80)
    serve(both_hosts.outside, 53, "udp")
    web = Attached(both_hosts, "web", "br0")
    assert ask(web, both_hosts.outside_address, 80) == f"outside sees {both_hosts.address}"
    assert ask(web, both_hosts.outside_address, 53, "udp") == f"outside sees {both_hosts.address}"
    assert web.run("ping", "-c1", "-W5", both_hosts.outside_address)


def test_a_published_port_keeps_the_clients_address(both_hosts: FakeHost, serve: Serve) -> None:
    web = Attached(both_hosts, "web", "br0", "8080:80", "5353:53/udp")
    serve(web, 80)
    serve(web, 53, "udp")
    for client, address in (
        (both_hosts.outside, both_hosts.outside_address),
        (both_hosts.lan, both_hosts.neighbour_address),
    ):
        assert ask(client, both_hosts.address if client is both_hosts.outside else both_hosts.lan_address, 8080) == (
            f"web sees {address}"
        )
    assert ask(both_hosts.outside, both_hosts.address, 5353, "udp") == f"web sees {both_hosts.outside_address}"


def test_a_port_published_on_one_address_is_on_that_alone(both_hosts: FakeHost, serve: Serve) -> None:
    web = Attached(both_hosts, "web", "br0", f"{both_hosts.address}:8080:80")
    serve(web)
    assert ask(both_hosts.outside, both_hosts.address, 8080) == f"web sees {both_hosts.outside_address}"
    assert ask(both_hosts.lan, both_hosts.lan_address, 8080) == "ConnectionRefusedError 111"


def test_the_host_reaches_a_published_port_by_each_of_its_addresses(both_hosts: FakeHost, serve: Serve) -> None:
    web = Attached(both_hosts, "web", "br0", "8080:80", "5353:53/udp")
    serve(web)
    serve(web, 53, "udp")
    assert ask(both_hosts, both_hosts.address, 8080) == f"web sees {both_hosts.address}"
    assert ask(both_hosts, "127.0.0.1", 8080) == "web sees 10.201.0.1"
    assert ask(both_hosts, "127.0.0.1", 5353, "udp") == "web sees 10.201.0.1"
    assert ask(both_hosts, web.address, 80) == "web sees 10.201.0.1"


def test_a_port_published_on_localhost_is_closed_to_the_neighbours(both_hosts: FakeHost, serve: Serve) -> None:
    web = Attached(both_hosts, "web", "br0", "127.0.0.1:7070:80", "127.0.0.1:7070:80/udp")
    serve(web)
    server = serve(web, 80, "udp")
    assert ask(both_hosts.lan, both_hosts.lan_address, 7070) == "ConnectionRefusedError 111"
    # A neighbour may also send packets *to* 127.0.0.1 by way of the host: the attack that route_localnet opens.
    lan = both_hosts.lan
    lan.run(["sysctl", "-qw", "net.ipv4.conf.eth0.route_localnet=1"])
    lan.run(["ip", "route", "del", "local", "127.0.0.0/8", "table", "local"])
    lan.run(["ip", "route", "del", "local", "127.0.0.1", "table", "local"])
    lan.run(["ip", "route", "add", "127.0.0.0/8", "via", both_hosts.lan_address, "src", both_hosts.neighbour_address])
    assert ask(lan, "127.0.0.1", 7070, "udp", patience=0.5) == "TimeoutError None"
    assert ask(both_hosts, "127.0.0.1", 7070, "udp") == "web sees 10.201.0.1"
    assert server.stdout and server.stdout.readline() == "10.201.0.1\n", "the neighbour's packet came first"


def test_a_published_port_of_another_machine_is_not_ours(both_hosts: FakeHost, serve: Serve) -> None:
    serve(both_hosts.outside, 8080)
    web = Attached(both_hosts, "web", "br0", "8080:80")
    serve(web)
    assert ask(web, both_hosts.outside_address, 8080) == f"outside sees {both_hosts.address}"
    assert ask(both_hosts, both_hosts.outside_address, 8080) == f"outside sees {both_hosts.address}"


def test_what_others_send_through_the_host_is_not_judged(both_hosts: FakeHost) -> None:
    Attached(both_hosts, "web", "br0")
    with both_hosts.outside.popen([sys.executable, "-c", ICMP_RECEIVER]) as receiver:
        assert receiver.stdout and receiver.stdout.readline() == "ready\n"
        both_hosts.lan.run([sys.executable, "-c", ICMP_SENDER, both_hosts.outside_address])
        assert receiver.communicate(timeout=10)[0] == f"{both_hosts.neighbour_address}\n"


def test_a_bridge_may_be_forbidden_to_be_left(both_hosts: FakeHost, serve: Serve) -> None:
    serve(both_hosts.outside, 80)
    web = Attached(both_hosts, "web", "br0")
    table = "element inet minirun egress"
    both_hosts.run(["nft", f"delete {table} {{ br0 }}; add {table} {{ br0 : drop }}"])
    assert ask(web, both_hosts.outside_address, 80, patience=0.5) == "TimeoutError None"


def test_a_container_reaches_published_ports_of_itself_and_of_a_sibling(both_hosts: FakeHost, serve: Serve) -> None:
    web = Attached(both_hosts, "web", "br0", "8080:80", "5353:53/udp")
    sibling = Attached(both_hosts, "sibling", "br0")
    serve(web)
    serve(web, 53, "udp")
    for client in (web, sibling):
        assert ask(client, both_hosts.address, 8080) == "web sees 10.201.0.1"
        assert ask(client, "10.201.0.1", 8080) == "web sees 10.201.0.1"
        assert ask(client, both_hosts.address, 5353, "udp") == "web sees 10.201.0.1"


def test_siblings_talk_directly(both_hosts: FakeHost, serve: Serve) -> None:
    web, sibling = Attached(both_hosts, "web", "br0"), Attached(both_hosts, "sibling", "br0")
    serve(web)
    assert ask(sibling, web.address, 80) == f"web sees {sibling.address}"


def test_networks_are_closed_to_one_another_but_for_published_ports(both_hosts: FakeHost, serve: Serve) -> None:
    both_hosts.python("from minirun.network import bridge, creation; bridge.create(creation.Wanted('other'))")
    web, stranger = Attached(both_hosts, "web", "br0", "8080:80"), Attached(both_hosts, "stranger", "other")
    serve(web)
    assert ask(stranger, web.address, 80).startswith(("OSError 113", "PermissionError 13"))
    assert ask(stranger, both_hosts.address, 8080) == f"web sees {stranger.address}"


@pytest.mark.parametrize("port", [80, 81])
def test_a_neighbour_that_routes_to_the_bridge_is_refused(both_hosts: FakeHost, serve: Serve, port: int) -> None:
    web = Attached(both_hosts, "web", "br0", "80:80")
    serve(web, port)
    assert ask(both_hosts.lan, web.address, port).startswith(("OSError 113", "PermissionError 13"))


def test_the_hosts_127_0_0_1_is_not_the_containers_business(both_hosts: FakeHost, serve: Serve) -> None:
    serve(both_hosts, 9999)
    web = Attached(both_hosts, "web", "br0")
    assert ask(web, "127.0.0.1", 9999) == "ConnectionRefusedError 111"


def test_the_first_packet_of_a_new_container_is_not_lost(host: FakeHost) -> None:
    assert host.python(FIRST_PACKETS) == "lost: []\n"
