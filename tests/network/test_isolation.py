"""Networks are closed to one another by every path, siblings where they were asked to be, and the LAN in any case.

Each question is asked with real packets, with and without bridged packets passing the firewall. What is refused is
refused at once; where an answer could only be missing, a datagram is sent, and one that must arrive after it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from minirun.network import endpoint
from tests.fakehost import FakeHost, Namespace
from tests.network.containers import Attached, Serve, ask

CREATE = """
import sys
from minirun.network import bridge, creation
wanted = creation.Wanted(sys.argv[1])
wanted.ipv6 = True
for name in sys.argv[2:]:
    setattr(wanted, name, True)
bridge.create(wanted)
"""
SECOND = """
import json, sys
from minirun import step
from minirun.engine import connect
from minirun.engine.options import Attachment
from minirun.network import attach, bridge, ipam, netns
identity, name, network = sys.argv[1:]
plug = connect.plug(identity, name, 1, Attachment(network), "eth1", bridge.ensure(network), ipam.allocate)
plug.gateways = []
step.do_all(attach.plug_steps(identity, name, plug, netns.netns_path(name)))
print(json.dumps([address.partition("/")[0] for address in plug.addresses]))
"""
REFUSED = ("OSError 113", "PermissionError 13", "ConnectionRefusedError 111")
SILENT = ("TimeoutError", *REFUSED)


@pytest.fixture(params=["0", "1"], ids=["bridge-nf-0", "bridge-nf-1"])
def any_host(request: pytest.FixtureRequest) -> Iterator[FakeHost]:
    """A fake host, once with and once without bridged packets of both families passing the firewall."""
    machine = FakeHost()
    try:
        for family in ("iptables", "ip6tables"):
            machine.sysctl(f"net.bridge.bridge-nf-call-{family}", request.param)
        yield machine
    finally:
        machine.close()


def create(host: FakeHost, name: str, *options: str) -> None:
    host.python(CREATE, name, *options)


def gateways(container: Attached) -> list[str]:
    """The gateways of a container's first network, IPv4 and IPv6."""
    routes = [json.loads(container.run("ip", "-j", f"-{n}", "route", "show", "default").stdout) for n in "46"]
    return [route["gateway"] for found in routes for route in found]


def refused(answer: str) -> bool:
    return answer.startswith(REFUSED)


def test_networks_do_not_reach_each_other(any_host: FakeHost, serve: Serve) -> None:
    create(any_host, "one")
    create(any_host, "two")
    web = Attached(any_host, "web", "one", "8080:80")
    stranger, sibling = Attached(any_host, "stranger", "two"), Attached(any_host, "sibling", "one")
    serve(web, 80)
    for address in web.addresses:
        assert ask(sibling, address, 80).startswith("web sees")
        assert refused(ask(stranger, address, 80))
        assert ask(any_host, address, 80).startswith("web sees")
    # Routes that a container with CAP_NET_ADMIN adds lead to the same place.
    stranger.run("ip", "route", "add", f"{web.address}/32", "via", gateways(stranger)[0])
    stranger.run("ip", "-6", "route", "add", f"{web.addresses[1]}/128", "via", gateways(stranger)[1])
    for address in web.addresses:
        assert refused(ask(stranger, address, 80))
    # Routes past the gateway find nobody who answers for that address.
    stranger.run("ip", "route", "replace", f"{web.address}/32", "dev", "eth0")
    stranger.run("ip", "-6", "route", "replace", f"{web.addresses[1]}/128", "dev", "eth0")
    for address in web.addresses:
        assert ask(stranger, address, 80, patience=0.3).startswith(SILENT)
    assert ask(stranger, any_host.address, 8080) == f"web sees {stranger.address}"  # published, so for everybody


def test_a_gateway_is_there_for_its_own_network(any_host: FakeHost, serve: Serve) -> None:
    create(any_host, "one")
    create(any_host, "two")
    own, other = Attached(any_host, "own", "one"), Attached(any_host, "other", "two")
    _address6(any_host)
    serve(any_host, 9999)
    for gateway in gateways(own):
        assert ask(own, gateway, 9999).startswith("host sees")
        assert ask(any_host, gateway, 9999).startswith("host sees")
        assert ask(other, gateway, 9999, patience=0.3) == "TimeoutError None"
    any_host.lan.run(["ip", "-6", "route", "add", "default", "via", "2001:db8:1::1"])
    for gateway in gateways(own):
        assert ask(any_host.lan, gateway, 9999, patience=0.3) == "TimeoutError None"
    for address in (any_host.address, any_host.lan_address, "2001:db8:1::1"):  # the host is a machine like any other
        assert ask(own, address, 9999).startswith("host sees")


def test_the_lan_does_not_get_in(any_host: FakeHost, serve: Serve) -> None:
    create(any_host, "one")
    web = Attached(any_host, "web", "one")
    _address6(any_host)
    any_host.lan.run(["ip", "-6", "route", "add", "default", "via", "2001:db8:1::1"])
    serve(web, 80)
    for address in web.addresses:
        assert refused(ask(any_host.lan, address, 80))


def test_a_container_on_two_networks_is_no_bridge_between_them(any_host: FakeHost, serve: Serve) -> None:
    create(any_host, "one")
    create(any_host, "two")
    attacker, target = Attached(any_host, "attacker", "one"), Attached(any_host, "target", "two")
    both = Attached(any_host, "both", "one")
    further = json.loads(any_host.python(SECOND, both.id, both.name, "two"))
    serve(target, 80)
    for setting in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        both.run("sysctl", "-qw", f"{setting}=1")
    for place, address in enumerate(target.addresses):
        assert ask(both, address, 80) == f"target sees {further[place]}"
        attacker.run("ip", "route", "add", address, "via", both.addresses[place])
        target.run("ip", "route", "add", attacker.addresses[place], "via", further[place])
        assert ask(attacker, address, 80, patience=0.3) == "TimeoutError None"


def test_isolated_siblings_meet_only_at_published_ports(any_host: FakeHost, serve: Serve) -> None:
    create(any_host, "apart", "isolate")
    web, sibling = Attached(any_host, "web", "apart", "8080:80"), Attached(any_host, "sibling", "apart")
    serve(web, 80)
    serve(any_host.outside, 80)
    there = json.loads(web.run("ip", "-j", "link", "show", "eth0").stdout)[0]["address"]
    link_local = endpoint.link_local(there)
    for address in web.addresses:
        assert ask(sibling, address, 80, patience=0.3).startswith(SILENT)
    assert sibling.run("ping", "-c1", "-W0.3", f"{link_local}%eth0", check=False).returncode
    # A neighbour that was written by hand needs no ARP; a route by the gateway needs no neighbour.
    for address in (*web.addresses, link_local):
        sibling.run("ip", "neigh", "replace", address, "lladdr", there, "dev", "eth0")
    for address in web.addresses:
        assert ask(sibling, address, 80, patience=0.3).startswith(SILENT)
    assert sibling.run("ping", "-c1", "-W0.3", f"{link_local}%eth0", check=False).returncode
    for address, gateway in zip(web.addresses, gateways(sibling), strict=True):
        sibling.run("ip", "route", "add", address, "via", gateway)
        assert ask(sibling, address, 80, patience=0.3).startswith(SILENT)
    for gateway in gateways(sibling):
        sibling.run("ping", "-c1", "-W5", gateway)
    assert ask(any_host, web.address, 80).startswith("web sees")
    assert ask(any_host.outside, any_host.address, 8080) == f"web sees {any_host.outside_address}"
    assert ask(sibling, any_host.outside_address, 80) == f"outside sees {any_host.address}"
    assert ask(sibling, any_host.address, 8080).startswith("web sees")
    assert ask(web, any_host.address, 8080).startswith("web sees")
    assert ask(sibling, gateways(sibling)[0], 8080).startswith("web sees")


def test_nothing_leaves_an_internal_network(any_host: FakeHost, serve: Serve) -> None:
    create(any_host, "inside", "internal")
    create(any_host, "open")
    box, sibling = Attached(any_host, "box", "inside"), Attached(any_host, "sibling", "inside")
    public = Attached(any_host, "public", "open", "8080:80")
    _address6(any_host)
    serve(public, 80)
    serve(sibling, 80)
    serve(any_host, 9999)
    serve(any_host.outside, 80)
    assert gateways(box) == []
    networks = [any_host.run(["ip", "-j", f"-{n}", "address", "show", "dev", "inside"]).stdout for n in "46"]
    own = [json.loads(text)[0]["addr_info"][0]["local"] for text in networks]
    for gateway in own:  # names are asked for there
        assert ask(box, gateway, 9999).startswith("host sees")
    ways = [any_host.outside_address, any_host.address, any_host.lan_address, "2001:db8:1::1", "2001:db8::1"]
    for address in ways:
        assert ask(box, address, 80, patience=0.3).startswith("OSError 101")
    for n, gateway in zip("46", own, strict=True):
        box.run("ip", f"-{n}", "route", "add", "default", "via", gateway)
    for address in (*ways, *public.addresses):
        assert ask(box, address, 80, patience=0.3).startswith(SILENT), address
        assert ask(box, address, 9999, patience=0.3).startswith(SILENT), address
        assert ask(box, address, 8080, patience=0.3).startswith(SILENT), address
    for address in sibling.addresses:
        assert ask(box, address, 80).startswith("sibling sees")
        assert ask(any_host, address, 80).startswith("sibling sees")


def test_who_may_speak_for_others_is_confined_to_his_network(any_host: FakeHost, serve: Serve) -> None:
    any_host.python(CREATE.replace("bridge.create", "wanted.options['spoof'] = 'allow'; bridge.create"), "loose")
    create(any_host, "one")
    web, stranger = Attached(any_host, "web", "one"), Attached(any_host, "stranger", "loose")
    serve(web, 80)
    for address in web.addresses:
        assert refused(ask(stranger, address, 80))


def _address6(host: FakeHost) -> None:
    """Give the host and its surroundings IPv6 addresses."""
    for place, device, address in (
        (host, "eth0", "2001:db8::2"),
        (host.outside, "eth0", "2001:db8::1"),
        (host, "eth1", "2001:db8:1::1"),
        (host.lan, "eth0", "2001:db8:1::2"),
    ):
        _add(place, device, f"{address}/64")


def _add(place: Namespace, device: str, address: str) -> None:
    place.run(["ip", "address", "add", address, "dev", device, "nodad"])
