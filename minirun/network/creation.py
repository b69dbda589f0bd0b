"""A new network: everything that is decided once, when it is created.

Which subnet is free of the host's routes and of other networks, where the gateway is, and how large a packet may be.
Only looking is done here; ``bridge`` makes what was decided.
"""

from __future__ import annotations

import os
import time
from binascii import crc32

from minirun import store
from minirun.errors import Conflict, UsageError
from minirun.linux import netlink
from minirun.network import addresses, names
from minirun.network import network as networks
from minirun.network.addresses import IPV4, IPV6, Subnet
from minirun.network.bridge import DEFAULT, IP_FORWARD, foreign
from minirun.network.endpoint import mac_address
from minirun.network.network import Network, Pool
from minirun.network.rotation import span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# In this order; a VPN often takes all of 10.0.0.0/8. A network gets 4093 addresses, so that it can outgrow a bridge.
POOLS = ("10.201.0.0/16", "10.202.0.0/15", "10.204.0.0/14", "10.208.0.0/12", "172.28.0.0/14", "192.168.192.0/18")
PREFIX, PREFIX6 = 20, 64
# This host itself, loopback, link-local, multicast, reserved (RFC 6890): no network of containers.
SPECIAL = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/16", "fe80::/10", "ff00::/8")
SHORTEST = 8  # a route to more than that is a way out, cut in halves to outweigh the default route
MTU, MIN_MTU, MAX_MTU = 1500, 68, 65535  # RFC 791; the kernel's own limit of a bridge
MAX_BRIDGE_NAME = 15  # IFNAMSIZ - 1
MOST_SUBNETS = 64  # the name server gets two sockets for each, all in one message


class Wanted:
    """What ``network create`` asks for; nothing is checked yet. ``subnets``, ``gateways`` and ``ranges`` are texts."""

    __slots__ = (
        "bridge",
        "dns",
        "gateways",
        "internal",
        "ipv6",
        "isolate",
        "labels",
        "mtu",
        "name",
        "options",
        "ranges",
        "subnets",
    )

    def __init__(self, name: str) -> None:
        self.name, self.bridge = name, ""  # "": made of the name
        self.subnets: list[str] = []
        self.gateways: list[str] = []
        self.ranges: list[str] = []
        self.ipv6 = self.internal = self.isolate = False
        self.mtu = 0  # 0: the uplink's
        self.dns: list[str] = []
        self.options: dict[str, str] = {}
        self.labels: dict[str, str] = {}


def decide(wanted: Wanted) -> Network:
    """The network as it shall be. Raises Conflict, UsageError."""
    with netlink.Socket() as socket:
        subnets = _subnets(socket, wanted)
        pools = _pools(wanted, subnets)
        mtu = wanted.mtu or _uplink_mtu(socket)
    least = networks.MIN_MTU6 if any(subnet.bits == IPV6 for subnet in subnets) else MIN_MTU
    if not least <= mtu <= MAX_MTU:
        raise UsageError(f"--mtu {mtu}", f"must be {least} to {MAX_MTU}")
    for server in wanted.dns:
        names.parse_server(server)
    network = Network(wanted.name, bridge_name(wanted), pools, mac_address(pools[0].gateway), mtu)
    network.internal, network.isolate = wanted.internal, wanted.isolate
    network.dns, network.options, network.labels = wanted.dns, wanted.options, wanted.labels
    network.created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    network.set_ip_forward = store.read(IP_FORWARD) == "0\n"
    return network


def check_bridge(name: str) -> None:
    """Refuse the name of a bridge that another network or a stranger has. Raises Conflict."""
    what, remedy = f"interface {name}", "choose another name"
    if other := next((each for each in networks.listing() if each.bridge == name), None):
        raise Conflict(what, f"it is the bridge of network {other.name}", remedy)
    with netlink.Socket() as socket:
        link = netlink.find_link(socket, name)
    if link and link.alias.startswith(networks.comment("")):
        lost = link.alias.removeprefix(networks.comment(""))
        raise Conflict(what, f"it is the bridge of network {lost} of another minirun, or was left by one", remedy)
    if link:
        raise foreign(name)


def bridge_name(wanted: Wanted) -> str:
    """The name of a network's bridge: its own, or a short one made of it where the kernel takes no longer one."""
    name = wanted.bridge or wanted.name
    return name if len(name) <= MAX_BRIDGE_NAME else f"{name[:8]}-{crc32(name.encode()) & 0xFFFFFF:06x}"


def _subnets(socket: netlink.Socket, wanted: Wanted) -> list[Subnet]:
    """Those that were asked for, if they are free, and the first free ones of the families that are missing."""
    chosen: list[Subnet] = []
    if len(wanted.subnets) > MOST_SUBNETS:
        raise UsageError(f"network {wanted.name}", f"{len(wanted.subnets)} subnets are more than {MOST_SUBNETS}")
    for text in wanted.subnets:
        subnet = Subnet.parse(text)
        if any(subnet.overlaps(special) for special in map(_special, SPECIAL)):
            raise UsageError(f"--subnet {text}", "these addresses have a meaning of their own", "see RFC 6890")
        if any(subnet.overlaps(other) for other in chosen):
            raise UsageError(f"--subnet {text}", "overlaps another --subnet")
        if any(subnet.overlaps(other) for other in _taken(socket, subnet.bits)):
            remedy = "see: ip route" if subnet.bits == IPV4 else "see: ip -6 route"
            raise Conflict(f"--subnet {text}", "it overlaps a route or another network of this machine", remedy)
        chosen.append(subnet)
    families = {subnet.bits for subnet in chosen}
    if not families:
        chosen.append(_free(_taken(socket, IPV4), wanted.name))
    if wanted.ipv6 and IPV6 not in families:
        chosen.append(_unique_local(_taken(socket, IPV6)))
    return chosen


def _special(text: str) -> Subnet:
    address, _, prefix = text.partition("/")
    return Subnet(addresses.number(address), int(prefix), addresses.bits(text))


def _taken(socket: netlink.Socket, bits: int) -> list[Subnet]:
    """What the host's routes (but the default ones) and other networks have."""
    family = netlink.AF_INET if bits == IPV4 else netlink.AF_INET6
    routes = [
        Subnet(route.destination, route.prefix, bits)
        for route in netlink.routes(socket, family)
        if route.prefix >= SHORTEST and route.type != netlink.RTN_MULTICAST
    ]
    return routes + [pool.subnet for network in networks.listing() for pool in network.of_family(bits)]


def _free(taken: list[Subnet], name: str) -> Subnet:
    for subnet in _candidates(name):
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    remedy = f"give one: minirun network create {name} --subnet 192.168.77.0/24"
    raise Conflict(f"network {name}", f"no subnet is free in {', '.join(POOLS)}", remedy)


def _candidates(name: str) -> Iterator[Subnet]:
    """The blocks of the pools; the very first is kept for the default network."""
    first = True
    for pool in map(Subnet.parse, POOLS):
        for base in range(pool.base, pool.base + pool.size, 1 << (IPV4 - PREFIX)):
            if not first or name == DEFAULT:
                yield Subnet(base, PREFIX)
            first = False


def _unique_local(taken: list[Subnet]) -> Subnet:
    """A block that nobody else has, by chance (RFC 4193, 3.2.2: 40 random bits; subnet 0)."""
    while True:
        base = 0xFD << 120 | int.from_bytes(os.urandom(5), "big") << 80
        subnet = Subnet(base, PREFIX6, IPV6)
        if not any(subnet.overlaps(other) for other in taken):
            return subnet


def _pools(wanted: Wanted, subnets: list[Subnet]) -> list[Pool]:
    """Each subnet with the gateway and the range that lie in it."""
    pools = [Pool(subnet, subnet.address(1)) for subnet in subnets]
    given: set[Pool] = set()
    for text in wanted.gateways:
        if not addresses.is_address(text):
            raise UsageError(f"--gateway {text}", "not an address", "write it as 10.77.0.1 or fd00:77::1")
        _need_subnet(f"--gateway {text}", addresses.bits(text), wanted)
        pool = next((pool for pool in pools if pool.subnet.contains(text)), None)
        place = addresses.number(text) - pool.subnet.base if pool else 0
        if pool is None or not 0 < place < pool.subnet.size - (pool.subnet.bits == IPV4):
            raise UsageError(f"--gateway {text}", f"not an address for an interface in {_list(subnets)}")
        if pool in given:
            raise UsageError(f"--gateway {text}", f"{pool.subnet} has the gateway {pool.gateway}", "leave one out")
        given.add(pool)
        pool.gateway = addresses.canonical(text)
    for text in wanted.ranges:
        part = addresses.part(text)
        _need_subnet(f"--ip-range {text}", part.bits, wanted)
        pool = next((pool for pool in pools if part.within(pool.subnet)), None)
        if pool is None:
            raise UsageError(f"--ip-range {text}", f"not a part of {_list(subnets)}")
        if pool.range:
            raise UsageError(f"--ip-range {text}", f"{pool.subnet} has the range {pool.range}", "leave one out")
        pool.range = part
        first, last = span(pool)
        if last - first + 1 <= (first <= addresses.number(pool.gateway) <= last):
            raise UsageError(f"--ip-range {text}", "it has no address for a container", "choose a larger one")
    return pools


def _need_subnet(typed: str, bits: int, wanted: Wanted) -> None:
    """Refuse a part of a subnet that nobody chose: it would be a matter of luck whether it fits."""
    if not any(addresses.bits(subnet) == bits for subnet in wanted.subnets):
        raise UsageError(typed, f"no IPv{4 if bits == IPV4 else 6} --subnet is given", "give --subnet, too")


def _list(subnets: list[Subnet]) -> str:
    return ", ".join(str(subnet) for subnet in subnets)


def _uplink_mtu(socket: netlink.Socket) -> int:
    """The MTU of the interface that the default route leaves by: a larger packet would be lost on its way out."""
    for family in (netlink.AF_INET, netlink.AF_INET6):
        ways = [r for r in netlink.routes(socket, family) if not r.prefix and r.link and r.type == netlink.RTN_UNICAST]
        for route in sorted(ways, key=lambda route: route.metric):
            for body in socket.ask(netlink.get_links()):
                link = netlink.Link(body)
                if link.index == route.link:
                    return max(MIN_MTU, min(link.mtu, MAX_MTU))
    return MTU
