"""Published ports by real packets, in both families; each with and without bridged packets passing the firewall."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fakehost import FakeHost
from tests.network.containers import (
    HOST6,
    LAN6,
    NEIGHBOUR6,
    OUTSIDE6,
    Attached,
    Serve,
    ask,
    make_network,
    with_ipv6,
)

# A client that keeps its socket: a line of input is a datagram, then it says what came back, or that nothing did.
STEADY = """
import socket, sys
client = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(float(sys.argv[3]))
client.connect((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
for line in sys.stdin:
    try:
        client.send(b"?")
        print(client.recv(100).decode(), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""
REFUSED = ("OSError 113", "PermissionError 13", "ConnectionRefusedError 111")


def test_all_addresses_of_a_network_with_both_families(both_hosts: FakeHost, serve: Serve) -> None:
    host = both_hosts
    with_ipv6(host)
    web = Attached(host, "web", "six", "8080:80", "5353:53/udp")
    serve(web)
    serve(web, 53, "udp")
    assert ask(host.outside, HOST6, 8080) == f"web sees {OUTSIDE6}"
    assert ask(host.outside, host.address, 8080) == f"web sees {host.outside_address}"
    assert ask(host.lan, LAN6, 8080) == f"web sees {NEIGHBOUR6}"
    assert ask(host.outside, HOST6, 5353, "udp") == f"web sees {OUTSIDE6}"
    assert ask(host, HOST6, 8080) == f"web sees {HOST6}"
    assert ask(host, LAN6, 5353, "udp") == f"web sees {LAN6}"
    # Neither by a route to the container itself, nor on a port that is not published.
    for port in (80, 81):
        assert ask(host.lan, web.addresses[1], port).startswith(REFUSED)
        assert ask(host.lan, web.addresses[0], port).startswith(REFUSED)
    assert ask(host.lan, LAN6, 80).startswith("ConnectionRefusedError")


def test_containers_reach_published_ports_by_ipv6(both_hosts: FakeHost, serve: Serve) -> None:
    host = both_hosts
    with_ipv6(host)
    make_network(host, "other", ipv6=True)
    web = Attached(host, "web", "six", "8080:80", "5353:53/udp")
    sibling, stranger = Attached(host, "sibling", "six"), Attached(host, "stranger", "other")
    serve(web)
    serve(web, 53, "udp")
    gateway = web.addresses[1].removesuffix("2") + "1"
    for client in (web, sibling):
        assert ask(client, HOST6, 8080) == f"web sees {gateway}"
        assert ask(client, gateway, 8080) == f"web sees {gateway}"
        assert ask(client, HOST6, 5353, "udp") == f"web sees {gateway}"
    assert ask(stranger, HOST6, 8080) == f"web sees {stranger.addresses[1]}"
    assert ask(stranger, web.addresses[1], 80).startswith(REFUSED)


def test_one_ipv6_address_is_that_alone(both_hosts: FakeHost, serve: Serve) -> None:
    host = both_hosts
    with_ipv6(host)
    web = Attached(host, "web", "six", f"[{HOST6}]:8080:80", "[::]:8081:80", "0.0.0.0:8082:80")
    serve(web)
    assert ask(host.outside, HOST6, 8080) == f"web sees {OUTSIDE6}"
    assert ask(host.lan, LAN6, 8080) == "ConnectionRefusedError 111"
    assert ask(host.outside, host.address, 8080) == "ConnectionRefusedError 111"
    assert ask(host.outside, HOST6, 8081) == f"web sees {OUTSIDE6}"
    assert ask(host.outside, host.address, 8081) == "ConnectionRefusedError 111"
    assert ask(host.outside, HOST6, 8082) == "ConnectionRefusedError 111"
    assert ask(host.outside, host.address, 8082) == f"web sees {host.outside_address}"


def test_a_long_range_is_one_element_and_keeps_its_numbers(both_hosts: FakeHost, serve: Serve) -> None:
    host = both_hosts
    with_ipv6(host)
    ranges = ["10000-20000:10000-20000", "127.0.0.1:30000-30100:30000-30100/udp", f"[{HOST6}]:7000-7010:7000-7010"]
    web = Attached(host, "web", "six", *ranges, f"{host.address}:9000-9001:9100-9101")
    for port, kind in ((10000, "tcp"), (15000, "tcp"), (20000, "tcp"), (30050, "udp"), (7005, "tcp"), (9101, "tcp")):
        serve(web, port, kind)
    table = host.run(["nft", "list", "table", "inet", "minirun"]).stdout
    assert table.count('comment "web ') == 6
    assert "::/0 . tcp . 10000-20000 comment" in table
    for port in (10000, 15000, 20000):
        assert ask(host.outside, host.address, port) == f"web sees {host.outside_address}"
        assert ask(host.outside, HOST6, port) == f"web sees {OUTSIDE6}"
    assert ask(host, "127.0.0.1", 15000).startswith("web sees 10.")
    assert ask(host, "127.0.0.1", 30050, "udp").startswith("web sees 10.")
    assert ask(host.lan, host.lan_address, 30050, "udp", patience=0.5) == "ConnectionRefusedError 111"
    assert ask(host.outside, HOST6, 7005) == f"web sees {OUTSIDE6}"
    assert ask(host.lan, LAN6, 7005) == "ConnectionRefusedError 111"
    assert ask(host.outside, host.address, 9001) == f"web sees {host.outside_address}"
    assert ask(web, host.address, 15000).startswith("web sees 10.")
    web.undo()
    assert 'comment "web ' not in host.run(["nft", "list", "table", "inet", "minirun"]).stdout


@pytest.mark.parametrize("address", ["198.51.100.2", HOST6, "127.0.0.1"])
def test_a_client_of_udp_that_goes_on_follows_the_port(host: FakeHost, serve: Serve, address: str) -> None:
    """It sends before, while and after a container has the port, always from one socket: one flow for the kernel."""
    with_ipv6(host)
    place = host if address == "127.0.0.1" else host.outside
    with place.popen([sys.executable, "-c", STEADY, address, "5353", "5"], stdin=subprocess.PIPE) as client:
        assert client.stdin and client.stdout and client.stdout.readline() == "ready\n"

        def say() -> str:
            assert client.stdin and client.stdout
            print(file=client.stdin, flush=True)
            return client.stdout.readline().strip()

        assert say() == "ConnectionRefusedError"
        early = serve(host, 5353, "udp")  # a program of the host, which then ends
        assert say().startswith("host sees ")
        early.kill()
        early.wait()
        first = Attached(host, "first", "six", "5353:53/udp")
        serve(first, 53, "udp")
        assert say().startswith("first sees ")
        first.undo()
        assert say() == "ConnectionRefusedError"
        second = Attached(host, "second", "six", "5000-6000:5000-6000/udp")
        assert second.addresses != first.addresses
        serve(second, 5353, "udp")
        assert say().startswith("second sees ")
        second.undo()
        third = Attached(host, "third", "six", f"{f'[{address}]' if ':' in address else address}:5353:53/udp")
        serve(third, 53, "udp")
        assert say().startswith("third sees ")
        client.stdin.close()


def test_flows_to_other_machines_are_left_alone(host: FakeHost, serve: Serve) -> None:
    """A container asks a server outside on the port that is published just then: the answer must still come through."""
    serve(host.outside, 5353, "udp")
    asker = Attached(host, "asker", "br0")
    assert ask(asker, host.outside_address, 5353, "udp") == f"outside sees {host.address}"
    listed = "from minirun.linux import conntrack\nprint([flow.destination for flow in conntrack.flows(17, 32, 5353)])"
    before = host.python(listed)
    assert before != "[]\n"
    Attached(host, "web", "br0", "5353:53/udp").undo()
    assert host.python(listed) == before


def test_an_internal_network_publishes_nothing(host: FakeHost) -> None:
    make_network(host, "inner", internal=True)
    with pytest.raises(pytest.fail.Exception, match="network inner is internal and publishes nothing"):
        Attached(host, "web", "inner", "8080:80")


def test_many_single_ports_of_a_long_name_are_one_transaction(host: FakeHost) -> None:
    """More than a netlink socket takes in one write by itself: two families, a thousand ports, long comments."""
    with_ipv6(host)
    web = Attached(host, "n" * 100, "six", "20001-21024:20000-21023")
    assert host.run(["nft", "list", "table", "inet", "minirun"]).stdout.count(f'comment "{"n" * 100} ') == 2048
    web.undo()
    assert 'comment "nnn' not in host.run(["nft", "list", "table", "inet", "minirun"]).stdout


def test_on_an_isolated_network_published_ports_work(both_hosts: FakeHost, serve: Serve) -> None:
    make_network(both_hosts, "apart", isolate=True)
    make_network(both_hosts, "other")
    web, sibling = Attached(both_hosts, "web", "apart", "8080:80"), Attached(both_hosts, "sibling", "apart")
    stranger = Attached(both_hosts, "stranger", "other")
    serve(web)
    assert ask(both_hosts.outside, both_hosts.address, 8080) == f"web sees {both_hosts.outside_address}"
    assert ask(both_hosts, "127.0.0.1", 8080).startswith("web sees 10.")
    assert ask(stranger, both_hosts.address, 8080) == f"web sees {stranger.address}"
    for client in (web, sibling):
        assert ask(client, both_hosts.address, 8080).startswith("web sees 10.")
    assert ask(sibling, web.address, 80, patience=0.5).startswith((*REFUSED, "TimeoutError"))
