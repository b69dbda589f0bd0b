"""One plug: an interface of a container on one network, and all that was decided about it.

``decide`` gives a network and the leased addresses, and gets what the steps of ``attach`` need; nothing here asks the
kernel anything. The record of an endpoint stands in container.json and in the attachments of CNI.
"""

from __future__ import annotations

from minirun.linux import netlink
from minirun.network import addresses
from minirun.network.addresses import IPV6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minirun.network.network import Network

_PLACES = "123456789abcdefghijklmnopqrstuvwxyz"  # one character tells the further cables of a container apart
MAX_NETWORKS = len(_PLACES) + 1
GIVEN = ("02:6d:", "02:6e:")  # how the MACs begin that follow from addresses


class Endpoint:
    """One plug. ``addresses`` are as an interface has them (``10.201.0.2/20``), rates in bits a second, 0 for none."""

    __slots__ = (
        "addresses",
        "aliases",
        "bridge",
        "dns",
        "gateways",
        "guarded",
        "interface",
        "isolated",
        "mac",
        "mtu",
        "nameservers",
        "network",
        "port",
        "rate_in",
        "rate_out",
        "uplink",
    )

    def __init__(self, network: str, interface: str, port: str, bridge: str, mac: str, mtu: int) -> None:
        self.network, self.interface, self.port, self.bridge = network, interface, port, bridge
        self.mac, self.mtu = mac, mtu
        self.addresses: list[str] = []
        self.gateways: list[str] = []  # only of the networks that the default routes go through
        self.nameservers: list[str] = []  # the gateways of its network, on which names are answered
        self.aliases: list[str] = []
        self.dns: list[str] = []  # of the container alone
        self.guarded, self.isolated = True, False
        self.rate_in = self.rate_out = 0
        self.uplink = ""  # the bridge that a member is joined to

    def record(self) -> dict[str, Any]:
        """The endpoint as JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Endpoint:
        """The endpoint that ``record`` described."""
        found = cls.__new__(cls)
        for name in cls.__slots__:
            setattr(found, name, record[name])
        return found

    def address(self, bits: int) -> str:
        """Its address of a family, without the length of the prefix; "" if it has none."""
        return next((a.partition("/")[0] for a in self.addresses if addresses.bits(a) == bits), "")

    def notes(self, owner: str, name: str, address: str) -> list[str]:
        """What the lease of one of its addresses says besides the owner: see ``lease_notes``."""
        mac = "" if self.mac == mac_address(address) else self.mac
        return lease_notes(self.port, mac, [name, owner[:12], *self.aliases], self.dns)

    def claims(self) -> list[list[Any]]:
        """What it may say of itself, as elements of our table: [set, key, data]."""
        held = [address.partition("/")[0] for address in self.addresses]
        return claims(self.port, self.mac, held) if self.guarded else []


def decide(
    network: Network, owner: str, place: int, leased: Sequence[str], mac: str = "", interface: str = ""
) -> Endpoint:
    """The endpoint of a container that has these addresses; ``place`` counts the networks of the container from 0."""
    endpoint = Endpoint(
        network.name,
        interface or f"eth{place}",
        host_end(owner, place),
        network.member(leased[0]),
        mac or mac_address(leased[0]),
        network.mtu,
    )
    pools = [(address, network.pool(address)) for address in leased]
    endpoint.addresses = [f"{address}/{pool.subnet.prefix}" for address, pool in pools if pool]
    endpoint.guarded, endpoint.isolated = network.guarded, network.isolate
    endpoint.nameservers = [pool.gateway for _, pool in pools if pool]
    endpoint.uplink = "" if endpoint.bridge == network.bridge else network.bridge
    if not network.internal:
        endpoint.gateways = [pool.gateway for _, pool in pools if pool]
    return endpoint


def lease_notes(port: str, mac: str, names: Sequence[str], dns: Sequence[str] = ()) -> list[str]:
    """What a lease says besides its owner: what the firewall and the name server want to know of it.

    The MAC only if it does not follow from the address (``mac_address``).
    """
    notes = [f"port {port}", f"mac {mac}" if mac else "", f"names {' '.join(dict.fromkeys(names))}"]
    return [note for note in notes if note] + ([f"dns {' '.join(dns)}"] if dns else [])


def keep_one_default_route(endpoints: Sequence[Endpoint]) -> None:
    """Of each family only the first network that has a way out is the way out."""
    seen: set[int] = set()
    for endpoint in endpoints:
        endpoint.gateways = [gateway for gateway in endpoint.gateways if addresses.bits(gateway) not in seen]
        seen.update(addresses.bits(gateway) for gateway in endpoint.gateways)


def host_end(owner: str, place: int = 0) -> str:
    """The name of the cable's end on the host; it follows from the id, so that it can be found with no record."""
    return f"mr{owner[:12]}{_PLACES[place - 1] if place else ''}"


def mac_address(address: str) -> str:
    """The MAC that belongs to an address: who takes over an address answers neighbours that remember the old holder."""
    packed = netlink.packed_address(address)
    # 02: locally administered (IEEE 802c); 6d, "m", and what tells one address from the others of its network
    return f"02:{'6e' if len(packed) > 4 else '6d'}:" + packed[-4:].hex(":")


def link_local(mac: str) -> str:
    """The IPv6 address that an interface gives itself (RFC 4291, appendix A: modified EUI-64)."""
    packed = netlink.packed_mac(mac)
    half = bytes([packed[0] ^ 2]) + packed[1:3] + b"\xff\xfe" + packed[3:]
    return addresses.text(0xFE80 << 112 | int.from_bytes(half, "big"), IPV6)


def claims(port: str, mac: str, held: Sequence[str]) -> list[list[Any]]:
    """Elements by which the firewall knows who is behind a port of a bridge: [set, key, data]."""
    ipv4 = [address for address in held if ":" not in address]
    ipv6 = [address for address in held if ":" in address]
    if ipv4:
        ipv4.append("0.0.0.0")  # who asks whether an address is free has none yet
    if ipv6:
        ipv6 += [link_local(mac), "::"]
    return [
        *(["claims4", [port, mac, address], []] for address in ipv4),
        *(["claims6", [port, mac, address], []] for address in ipv6),
        *(["targets6", [port, f"0x{netlink.packed_address(address).hex()}"], []] for address in ipv6[:-1]),
    ]
