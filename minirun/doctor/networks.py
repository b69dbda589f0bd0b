"""Probes: the virtual network in a scratch namespace, and what the machine's own firewall will do to our packets."""

from __future__ import annotations

import os

from minirun import store
from minirun.doctor import child
from minirun.doctor.finding import Doubt
from minirun.errors import Unsupported
from minirun.linux import netlink
from minirun.linux.nft import Element
from minirun.network import bridge as bridges
from minirun.network import creation, nat
from minirun.network.foreign import look
from minirun.network.network import listing, load

_BRIDGE, _MAC, _PEER_MAC = "mrdoctor", "02:6d:00:00:00:01", "02:6d:00:00:00:02"
_BRIDGE_NETFILTER = "/proc/sys/net/bridge/bridge-nf-call-iptables"


def bridge() -> str:
    """A bridge with a pinned MAC."""

    def act() -> str:
        with netlink.Socket() as socket:
            _make_bridge(socket)
        return "made"

    return child.run(act, "network")


def veth() -> str:
    """A cable whose one end is a port of a bridge, with hairpin."""

    def act() -> str:
        with netlink.Socket() as socket:
            index = _make_bridge(socket)
            here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            socket.ask(netlink.new_veth("mrdoctor1", index, creation.MTU, "mrdoctor2", here, _PEER_MAC))
            socket.ask(netlink.set_port("mrdoctor1", "minirun doctor"))
        return "plugged into the bridge, hairpin on"

    return child.run(act, "network")


def _make_bridge(socket: netlink.Socket) -> int:
    socket.ask(netlink.new_bridge(_BRIDGE, _MAC))
    socket.ask(netlink.set_up(_BRIDGE))
    return int(netlink.Link(socket.ask(netlink.get_link(_BRIDGE))[0]).index)


def nftables() -> str:
    """Load our own rules (conntrack, NAT, maps and all) into a scratch namespace, and publish a port in them."""

    def act() -> str:
        nat.reassert()
        nat.TABLE.add([Element("pub4", ["192.0.2.1", "tcp", "80"], ["192.0.2.2", "80"], "minirun doctor")])
        return "our rules load"

    return child.run(act, "network")


def forwarding() -> str:
    """net.ipv4.ip_forward, which the first network turns on."""
    value = (store.read(bridges.IP_FORWARD) or "").strip()
    if value != "1" and not os.access(bridges.IP_FORWARD, os.W_OK):
        raise Unsupported(f"{bridges.IP_FORWARD} is {value or 'absent'}", "and cannot be written")
    return "on" if value == "1" else "off; the first network turns it on"


def bridge_netfilter() -> str:
    """Whether bridged packets pass the firewall. Both are fine for us: it is said because it changes what one sees."""
    value = store.read(_BRIDGE_NETFILTER)
    if value is None:
        return "br_netfilter is not loaded"
    return "bridged packets pass the firewall" if value.strip() == "1" else "bridged packets pass by the firewall"


def foreign_firewall() -> str:
    """An accept of ours never overrides another table's drop (nft(8)): say so before somebody looks for hours."""
    for network in list(listing()) or [creation.decide(creation.Wanted(bridges.DEFAULT))]:
        if stops := look.everything(network):
            verb = "reload" if load(network.name) else "create"
            remedy = f"minirun network {verb} --allow-forward {network.name}"
            raise Doubt(look.sentence(stops, network.name), "", remedy)
    return "nobody else drops our packets"
