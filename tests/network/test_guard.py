"""Nobody speaks in another's name: frames that a hostile container with CAP_NET_RAW sends, and who gets them."""

from __future__ import annotations

import ipaddress
import json
import struct

import pytest

from tests.fakehost import FakeHost
from tests.network import frames
from tests.network.containers import Attached, Serve, ask
from tests.network.frames import arp, ether, icmp4, icmp6, ip, ipv4, ipv6, mac, udp

CREATE = """
import sys
from minirun.network import bridge, creation
wanted = creation.Wanted(sys.argv[1])
wanted.ipv6 = True
wanted.options = dict(option.split("=") for option in sys.argv[2:])
bridge.create(wanted)
"""
UNDO_CLAIMS = """
import json, sys
from minirun import step
from minirun.network import attach
assert not step.undo_all([step.load(json.loads(record)) for record in sys.argv[1:]])
"""
REASSERT = "from minirun.network import nat; nat.reassert()"
EVERYONE = b"\xff" * 6
UDP, ICMP, IGMP, ICMP6, FRAGMENT, OPTIONS = 17, 1, 2, 58, 44, 60
NS, NA, RS, RA, REDIRECT, MLD_QUERY, MLD2_REPORT = 135, 136, 133, 134, 137, 130, 143


class Scene:
    """A network of three containers: the attacker ``a``, the victim ``v``, and the sibling ``s`` whose name is used."""

    def __init__(self, host: FakeHost, *options: str) -> None:
        self.host = host
        host.python(CREATE, "net", *options)
        self.a, self.v, self.s = (Attached(host, name, "net") for name in ("attacker", "victim", "sibling"))
        self.mac = {c: _mac_of(c.run("ip", "-j", "link", "show", "eth0").stdout) for c in (self.a, self.v, self.s)}
        self.gateway_mac = _mac_of(host.run(["ip", "-j", "link", "show", "net"]).stdout)
        base = self.a.address.rpartition(".")[0]
        self.gateway, self.gateway6 = f"{base}.1", f"{self.a.addresses[1].rpartition('::')[0]}::1"

    def link_local(self, container: Attached | bytes) -> str:
        packed = container if isinstance(container, bytes) else self.mac[container]
        half = bytes([packed[0] ^ 2]) + packed[1:3] + b"\xff\xfe" + packed[3:]
        return str(ipaddress.IPv6Address(ip("fe80::")[:8] + half))

    def arrived(self, sent: dict[str, bytes], device: str = "") -> set[str]:
        """Which of the frames, sent by the attacker, came to the victim (or to a device of the host)."""
        ender = frames.last(self.a, self.mac[self.a], self.v.address, self.mac[self.v])
        if device:
            ender = frames.last(self.a, self.mac[self.a], self.gateway, self.gateway_mac)
        listener = frames.listen(self.host, None if device else self.v, device or "eth0")
        frames.send(self.a, [*sent.values(), ender])
        came = frames.received(listener)
        return {name for name, frame in sent.items() if frame in came or _without_tags(frame) in came}

    def udp4(self, source: str, text: str, source_mac: bytes | None = None, **how: bytes) -> bytes:
        packet = ipv4(source, self.v.address, UDP, udp(7, 7, text.encode()), how.get("options", b""))
        return ether(self.mac[self.v], source_mac or self.mac[self.a], 0x0800, packet, how.get("tags", b""))

    def udp6(self, source: str, text: str, source_mac: bytes | None = None) -> bytes:
        target = self.v.addresses[1]
        packet = ipv6(source, target, UDP, udp(7, 7, text.encode(), (source, target)))
        return ether(self.mac[self.v], source_mac or self.mac[self.a], 0x86DD, packet)

    def neighbour(self, kind: int, source: str, body: bytes, target: str = "ff02::1") -> bytes:
        """An ICMPv6 message of the attacker to all nodes."""
        packet = ipv6(source, target, ICMP6, icmp6(kind, body, source, target))
        return ether(frames.group(target), self.mac[self.a], 0x86DD, packet)


def _mac_of(link: str) -> bytes:
    return mac(json.loads(link)[0]["address"])


def _without_tags(frame: bytes) -> bytes:
    """A packet socket shows a frame without its outer VLAN tag."""
    return frame[:12] + frame[16:]


def spoofed4(scene: Scene) -> dict[str, bytes]:
    """ARP, IPv4 and Ethernet."""
    a, v, s = scene.a, scene.v, scene.s
    mac_a, mac_v, mac_s, mac_g = scene.mac[a], scene.mac[v], scene.mac[s], scene.gateway_mac
    query = ipv4(a.address, "224.0.0.1", IGMP, icmp4(0x11, 100, bytes(4)), b"\x94\4\0\0")
    discover = ipv4("0.0.0.0", "255.255.255.255", UDP, udp(68, 67, b"discover"))
    old = ipv4(v.address, "198.51.100.1", UDP, udp(7, 7, b""))
    better = icmp4(5, 1, ip(a.address) + old)
    route = b"\x83\x07\x04" + ip(scene.gateway) + b"\0"
    return {
        "arp: the gateway's address is mine": arp(mac_v, mac_a, 2, (mac_a, scene.gateway), (mac_v, v.address)),
        "arp: the sibling's address is mine": arp(mac_v, mac_a, 2, (mac_a, s.address), (mac_v, v.address)),
        "arp: announced to all": arp(EVERYONE, mac_a, 1, (mac_a, s.address), (bytes(6), s.address)),
        "arp: as a question of the gateway": arp(EVERYONE, mac_a, 1, (mac_a, scene.gateway), (bytes(6), v.address)),
        "arp: my address is at the sibling": arp(mac_v, mac_a, 2, (mac_s, a.address), (mac_v, v.address)),
        "arp: from the sibling's MAC": arp(mac_v, mac_s, 2, (mac_s, s.address), (mac_v, v.address)),
        "arp: a probe from another's MAC": arp(EVERYONE, mac_s, 1, (mac_s, "0.0.0.0"), (bytes(6), "10.9.9.9")),
        "ip: the sibling's address": scene.udp4(s.address, "1"),
        "ip: the sibling's address and MAC": scene.udp4(s.address, "2", mac_s),
        "ip: the sibling's MAC": scene.udp4(a.address, "3", mac_s),
        "ip: the gateway's address": scene.udp4(scene.gateway, "4"),
        "ip: the bridge's MAC": scene.udp4(a.address, "5", mac_g),
        "ip: the gateway's address and MAC": scene.udp4(scene.gateway, "6", mac_g),
        "ip: the victim itself": scene.udp4(v.address, "7", mac_v),
        "ip: an address outside": scene.udp4("198.51.100.9", "8"),
        "ip: no address": ether(EVERYONE, mac_a, 0x0800, discover),
        "ip: a fragment of the sibling": ether(mac_v, mac_a, 0x0800, ipv4(s.address, v.address, UDP, b"x" * 8, b"", 3)),
        "ip: the sender chose the way": scene.udp4(a.address, "9", options=route),
        "ip: strictly": scene.udp4(a.address, "10", options=b"\x89" + route[1:]),
        "dhcp: from a server": ether(
            EVERYONE, mac_a, 0x0800, ipv4(a.address, "255.255.255.255", UDP, udp(67, 68, b"1"))
        ),
        "icmp: redirect": ether(mac_v, mac_a, 0x0800, ipv4(a.address, v.address, ICMP, better)),
        "igmp: query": ether(frames.group("224.0.0.1"), mac_a, 0x0800, query),
        "vlan: tagged": scene.udp4(a.address, "11", tags=b"\x81\0\0\5"),
        "vlan: tag 0, priority only": scene.udp4(a.address, "12", tags=b"\x81\0\x60\0"),
        "vlan: of a provider": scene.udp4(a.address, "13", tags=b"\x88\xa8\0\5"),
        "vlan: twice": scene.udp4(a.address, "14", tags=b"\x88\xa8\0\5\x81\0\0\6"),
        "other: PPPoE": ether(mac_v, mac_a, 0x8864, b"\x11\0\0\1\0\x10\0\x21" + bytes(40)),
        "other: experimental": ether(mac_v, mac_a, 0x88B5, b"hello" * 10),
        "other: IPX over LLC": ether(mac_v, mac_a, 20, b"\xe0\xe0\3" + bytes(40)),
        "other: spanning tree": ether(mac("01:80:c2:00:00:00"), mac_a, 38, b"\x42\x42\3" + bytes(35)),
    }


def spoofed6(scene: Scene) -> dict[str, bytes]:
    """IPv6 and what belongs to it."""
    a, v, s = scene.a, scene.v, scene.s
    mac_a, mac_v, mac_s = scene.mac[a], scene.mac[v], scene.mac[s]
    (a6, v6, s6), local = (c.addresses[1] for c in (a, v, s)), scene.link_local(a)
    option = b"\2\1" + mac_a  # target link-layer address
    offer = bytes([64, 0]) + struct.pack(">HII", 1800, 0, 0)
    advertised = icmp6(RA, offer, local, "ff02::1")
    padding = b"\0\1\4\0\0\0\0"  # of an options header: next header is in front of it
    cut = bytes([OPTIONS, 0]) + struct.pack(">HI", 1, 79) + bytes([UDP]) + padding
    hidden = bytes([OPTIONS, 0]) + struct.pack(">HI", 1, 77) + bytes([ICMP6]) + padding
    offset = bytes([OPTIONS, 0]) + struct.pack(">HI", 8, 77) + advertised

    def whole(source: str, protocol: int, payload: bytes, source_mac: bytes = mac_a) -> bytes:
        return ether(frames.group("ff02::1"), source_mac, 0x86DD, ipv6(source, "ff02::1", protocol, payload))

    return {
        "ip6: the sibling's address": scene.udp6(s6, "1"),
        "ip6: the sibling's address and MAC": scene.udp6(s6, "2", mac_s),
        "ip6: the sibling's MAC": scene.udp6(a6, "3", mac_s),
        "ip6: the gateway's address": scene.udp6(scene.gateway6, "4"),
        "ip6: the gateway's local address": scene.udp6(scene.link_local(scene.gateway_mac), "5"),
        "ip6: the sibling's local address": scene.udp6(scene.link_local(s), "6"),
        "ip6: a local address of no one": scene.udp6("fe80::6666", "7"),
        "ip6: no address": scene.udp6("::", "8"),
        "ip6: a fragment of the sibling": whole(s6, FRAGMENT, bytes([UDP, 0]) + struct.pack(">HI", 8, 9) + b"x" * 8),
        "ra": scene.neighbour(RA, local, offer),
        "ra: from the gateway's local address": scene.neighbour(RA, scene.link_local(scene.gateway_mac), offer),
        "ra: behind options": whole(local, OPTIONS, bytes([ICMP6]) + padding + advertised),
        "ra: behind options to each hop": whole(local, 0, bytes([ICMP6]) + padding + advertised),
        "ra: first fragment": whole(local, FRAGMENT, bytes([ICMP6, 0]) + struct.pack(">HI", 1, 78) + advertised),
        "ra: hidden by fragments": whole(local, FRAGMENT, hidden),
        "ra: the rest of it": whole(local, FRAGMENT, offset),
        "redirect": scene.neighbour(REDIRECT, local, bytes(4) + ip(a6) + ip("2001:db8::1"), "ff02::1"),
        "na: the gateway's address is mine": scene.neighbour(NA, a6, b"\xa0\0\0\0" + ip(scene.gateway6) + option),
        "na: its local address is mine": scene.neighbour(
            NA, local, b"\xa0\0\0\0" + ip(scene.link_local(scene.gateway_mac)) + option
        ),
        "na: the sibling's address is mine": scene.neighbour(NA, local, b"\x20\0\0\0" + ip(s6) + option),
        "na: as the sibling": scene.neighbour(NA, s6, b"\x20\0\0\0" + ip(s6) + option),
        "na: behind options": whole(
            a6, OPTIONS, bytes([ICMP6]) + padding + icmp6(NA, b"\x20\0\0\0" + ip(s6) + option, a6, "ff02::1")
        ),
        "ns: as the sibling": scene.neighbour(NS, s6, bytes(4) + ip(v6) + b"\1\1" + mac_a),
        "ns: the victim's address is about to be mine": scene.neighbour(NS, "::", bytes(4) + ip(v6)),
        "dhcp6: from a server": ether(mac_v, mac_a, 0x86DD, ipv6(local, v6, UDP, udp(547, 546, b"1", (local, v6)))),
        "dhcp6: hidden by fragments": whole(local, FRAGMENT, cut),
        "mld: query": scene.neighbour(MLD_QUERY, local, b"\0\1\0\0" + bytes(16)),
    }


def legal(scene: Scene) -> dict[str, bytes]:
    """What a container sends that means no harm."""
    a, v = scene.a, scene.v
    mac_a, mac_v, a6, v6, local = scene.mac[a], scene.mac[v], a.addresses[1], v.addresses[1], scene.link_local(a)
    report = b"\0\0\0\1\4\0\0\0" + ip("ff02::1:3")
    optioned = ipv6(a6, v6, OPTIONS, bytes([UDP]) + b"\0\1\4\0\0\0\0" + udp(7, 7, b"options", (a6, v6)))
    return {
        "arp: question": arp(EVERYONE, mac_a, 1, (mac_a, a.address), (bytes(6), v.address)),
        "arp: answer": arp(mac_v, mac_a, 2, (mac_a, a.address), (mac_v, v.address)),
        "arp: announcement": arp(EVERYONE, mac_a, 1, (mac_a, a.address), (bytes(6), a.address)),
        "arp: probe": arp(EVERYONE, mac_a, 1, (mac_a, "0.0.0.0"), (bytes(6), a.address)),
        "ip: datagram": scene.udp4(a.address, "legal"),
        "ip: broadcast": ether(EVERYONE, mac_a, 0x0800, ipv4(a.address, "255.255.255.255", UDP, udp(7, 7, b"all"))),
        "ip: multicast": ether(
            frames.group("239.1.2.3"), mac_a, 0x0800, ipv4(a.address, "239.1.2.3", UDP, udp(7, 7, b"some"))
        ),
        "ip6: datagram": scene.udp6(a6, "legal"),
        "ip6: from the local address": scene.udp6(local, "legal"),
        "ip6: options": ether(mac_v, mac_a, 0x86DD, optioned),
        "na: mine": scene.neighbour(NA, a6, b"\x20\0\0\0" + ip(a6) + b"\2\1" + mac_a),
        "na: my local address": scene.neighbour(NA, local, b"\x20\0\0\0" + ip(local) + b"\2\1" + mac_a),
        "ns: question": scene.neighbour(NS, a6, bytes(4) + ip(v6) + b"\1\1" + mac_a),
        "ns: is my address free": scene.neighbour(NS, "::", bytes(4) + ip(a6)),
        "ns: is my local address free": scene.neighbour(NS, "::", bytes(4) + ip(local)),
        "rs": scene.neighbour(RS, local, bytes(4)),
        "mld: report": scene.neighbour(MLD2_REPORT, local, report),
        "mld: report without an address": scene.neighbour(MLD2_REPORT, "::", report),
    }


@pytest.fixture
def scene(host: FakeHost) -> Scene:
    """The usual network."""
    return Scene(host)


def test_what_is_said_in_anothers_name_reaches_nobody(scene: Scene) -> None:
    hostile = spoofed4(scene) | spoofed6(scene)
    assert scene.arrived(hostile) == set()
    assert scene.arrived(hostile, "net") == set()


def test_the_claims_come_back_from_the_leases(scene: Scene) -> None:
    scene.host.run(["nft", "flush ruleset"])
    scene.host.python(REASSERT)
    assert scene.arrived(spoofed4(scene) | spoofed6(scene)) == set()
    assert scene.arrived(legal(scene)) == set(legal(scene))


def test_a_cable_that_is_plugged_in_again_is_guarded_again(scene: Scene) -> None:
    port = f"mr{scene.a.id[:12]}"
    scene.host.run(["ip", "link", "set", port, "nomaster"])
    assert port in scene.host.minirun("network", "reload").stdout
    assert scene.arrived(spoofed4(scene)) == set()
    assert scene.arrived(legal(scene)) == set(legal(scene))
    assert "group_fwd_mask 0xfffd" in scene.host.run(["ip", "-d", "link", "show", port]).stdout


@pytest.mark.parametrize("bridge_netfilter", ["0", "1"])
def test_a_container_that_means_no_harm_is_not_hindered(host: FakeHost, bridge_netfilter: str) -> None:
    for family in ("iptables", "ip6tables"):
        host.sysctl(f"net.bridge.bridge-nf-call-{family}", bridge_netfilter)
    scene = Scene(host)
    assert scene.arrived(legal(scene)) == set(legal(scene))
    for target in (*scene.v.addresses, scene.gateway, scene.gateway6, f"{scene.link_local(scene.v)}%eth0"):
        scene.a.run("ping", "-c1", "-W5", "-s3000", target)  # in fragments


def test_a_network_may_let_containers_speak_as_they_like(host: FakeHost) -> None:
    host.sysctl("net.bridge.bridge-nf-call-iptables", "0")
    host.sysctl("net.bridge.bridge-nf-call-ip6tables", "0")
    scene = Scene(host, "spoof=allow")
    hostile = spoofed4(scene) | spoofed6(scene)
    del hostile["ip: the victim itself"]  # or the bridge would look for the victim where that came from
    assert set(hostile) - scene.arrived(hostile) == set()


def test_frames_for_bridges_teach_the_bridge_nothing(scene: Scene) -> None:
    """01:80:c2:00:00:0X: LLDP and others that a bridge hands to its own host before any firewall."""
    table = scene.host.run(["bridge", "fdb", "show", "br", "net"]).stdout
    stolen = [
        ether(mac(f"01:80:c2:00:00:{number:02x}"), source, 0x0800, b"")
        for number in range(16)
        for source in scene.mac.values()
    ]
    frames.send(scene.a, [*stolen, *spoofed4(scene).values()])
    assert scene.arrived(legal(scene)) == set(legal(scene))
    assert scene.host.run(["bridge", "fdb", "show", "br", "net"]).stdout == table


@pytest.mark.parametrize("options", [[], ["spoof=allow"]])
def test_frames_for_bridges_do_not_reach_the_host(host: FakeHost, serve: Serve, options: list[str]) -> None:
    scene = Scene(host, *options)
    server = serve(host, 5300, "udp")
    ways = [mac(f"01:80:c2:00:00:{number:02x}") for number in range(16)]
    datagram = ipv4("198.51.100.77", host.address, UDP, udp(5300, 5300, b"?"))
    frames.send(scene.a, [ether(way, scene.mac[scene.a], 0x0800, datagram) for way in ways])
    assert ask(scene.a, scene.gateway, 5300, "udp") == f"host sees {scene.a.address}"
    # Without the guard the host would take it for a datagram from the cable itself, past every rule about bridges.
    first = "198.51.100.77" if options else scene.a.address
    assert server.stdout and server.stdout.readline() == f"{first}\n"


def test_who_takes_another_mac_or_address_is_alone(scene: Scene, serve: Serve) -> None:
    serve(scene.v, 80)
    assert ask(scene.a, scene.v.address, 80) == f"victim sees {scene.a.address}"
    scene.a.run("ip", "addr", "add", f"{scene.s.address}/32", "dev", "eth0")
    scene.a.run("ping", "-c1", "-W5", scene.v.address)
    scene.a.run("ping", "-c1", "-W0.3", "-I", scene.s.address, scene.v.address, check=False)
    assert scene.v.run("ping", "-c1", "-W5", scene.s.address)
    scene.a.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99")
    assert scene.a.run("ping", "-c1", "-W0.3", scene.v.address, check=False).returncode
    assert "02:00:00:00:00:99" not in scene.host.run(["bridge", "fdb", "show", "br", "net"]).stdout


def test_a_port_is_guarded_before_its_claims_come_and_after_they_are_gone(scene: Scene) -> None:
    ours = [json.dumps(record) for record in scene.a.steps if record[0] == "claims"]
    assert ours
    scene.host.python(UNDO_CLAIMS, *ours)
    ender = frames.last(scene.s, scene.mac[scene.s], scene.v.address, scene.mac[scene.v])
    listener = frames.listen(scene.host, scene.v, "eth0")
    frames.send(scene.a, [*legal(scene).values(), *spoofed4(scene).values()])
    frames.send(scene.s, [ender])
    assert not frames.received(listener) & set(legal(scene).values())
