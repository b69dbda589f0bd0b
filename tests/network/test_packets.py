"""Real packets: who reaches whom, and as whom. Each with and without bridged packets passing the firewall."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import Attached, ask
from fakehost import FakeHost

Serve = Callable[..., None]


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
    web = Attached(both_hosts, "web", "br0", "127.0.0.1:7070:80")
    serve(web)
    assert ask(both_hosts, "127.0.0.1", 7070) == "web sees 10.201.0.1"
    assert ask(both_hosts.lan, both_hosts.lan_address, 7070) == "ConnectionRefusedError 111"
    # A neighbour may also send packets *to* 127.0.0.1 by way of the host: the attack that route_localnet opens.
    both_hosts.lan.run(["sysctl", "-qw", "net.ipv4.conf.eth0.route_localnet=1"])
    both_hosts.lan.run(["ip", "route", "del", "local", "127.0.0.0/8", "table", "local"])
    both_hosts.lan.run(["ip", "route", "del", "local", "127.0.0.1", "table", "local"])
    both_hosts.lan.run(["ip", "route", "add", "127.0.0.0/8", "via", both_hosts.lan_address, "src", "192.0.2.2"])
    assert ask(both_hosts.lan, "127.0.0.1", 7070, patience=1) == "TimeoutError None"


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
    both_hosts.python("from minirun.network import bridge; bridge.create('other')")
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


def test_the_first_packet_of_a_new_container_is_not_lost(host: FakeHost, serve: Serve) -> None:
    web = Attached(host, "web", "br0")
    serve(web)
    lost = []
    for number in range(20):
        client = Attached(host, f"client{number}", "br0")
        # TCP repeats a lost first packet after a second: less patience than that proves that none was lost.
        answer = ask(client, web.address, 80, patience=0.9)
        lost += [answer] if answer != f"web sees {client.address}" else []
    assert not lost
