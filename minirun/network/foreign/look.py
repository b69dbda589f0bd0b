"""Which chains of other people's firewalls certainly stop the packets of a network.

An ``accept`` of ours ends only our own chain; a ``drop`` of another stays a drop (nft(8)). A host with Docker, ufw or
firewalld has such chains, and who is not told of them looks for hours. What we only suspect is not said: a rule that is
not understood may let the packets pass.
"""

from __future__ import annotations

from minirun import store
from minirun.linux import netlink, nft
from minirun.network import addresses, nameservice, nat
from minirun.network.addresses import IPV4
from minirun.network.foreign import legacy
from minirun.network.foreign.flow import ESTABLISHED, LOCALHOST, Device, Flow
from minirun.network.foreign.nftables import Tables
from minirun.network.foreign.walk import DROP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from minirun.network.addresses import Subnet
    from minirun.network.network import Network, Pool

NAME_PORT = "53"
OUT, IN, AMONG, NAMES = "out", "in", "among", "names"
_ANYWHERE = {4: "203.0.113.1", 6: "2001:db8::1"}  # some address of the outside: RFC 5737, RFC 3849
_BRIDGE_NETFILTER = {
    4: "/proc/sys/net/bridge/bridge-nf-call-iptables",
    6: "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
}
_WORDS = {OUT: "to the outside", IN: "to published ports", AMONG: "among containers", NAMES: "to the name server"}


class Stop:
    """A base chain that stops packets of ours: where it is, and which packets."""

    __slots__ = ("chain", "drops", "family", "legacy", "table", "what")

    def __init__(self, family: str, table: str, chain: str, drops: bool, legacy: bool = False) -> None:
        self.family, self.table, self.chain, self.drops, self.legacy = family, table, chain, drops, legacy
        self.what: list[str] = []

    def __str__(self) -> str:
        details = [*(["policy drop"] if self.drops else []), *(["of iptables-legacy"] if self.legacy else [])]
        return f"{self.family} {self.table} {self.chain}" + (f" ({', '.join(details)})" if details else "")


def forward(network: Network, ports: Sequence[tuple[str, int]] = ()) -> list[Stop]:
    """The chains that stop what containers send out, or what is sent to these published ports, or among siblings.

    ``ports`` are pairs of the protocol and the container's own port.
    """
    flows = [flow for pool in network.pools for flow in _forwarded(network, pool, ports)]
    return _stops(flows, nft.NF_INET_FORWARD, "FORWARD")


def names(network: Network) -> list[Stop]:
    """The chains that stop what containers ask the name server at the gateway's address."""
    flows = []
    for pool in network.pools:
        protocol, port = _name_port(network, pool)
        flow = _flow(NAMES, network, pool, _bridge(network), LOCALHOST)
        flow.destination = (netlink.packed_address(pool.gateway), pool.subnet.bits)
        flow.protocol, flow.port, flow.dnat = nft.PROTOCOLS[protocol], int(port), port != NAME_PORT
        flows.append(flow)
    return _stops(flows, nft.NF_INET_LOCAL_IN, "INPUT")


def everything(network: Network, ports: Sequence[tuple[str, int]] = ()) -> list[Stop]:
    """``forward`` and ``names``."""
    return forward(network, ports) + names(network)


def name_ports(network: Network) -> list[list[str]]:
    """Each [protocol, port] by which the name server is reached: 53, or where elements of our table lead from there."""
    found = [[key[1], data[1]] for _, key, data in nameservice.elements(network.name)]
    found = found or [["udp", NAME_PORT], ["tcp", NAME_PORT]]
    return [pair for at, pair in enumerate(found) if pair not in found[:at]]


def _name_port(network: Network, pool: Pool) -> tuple[str, str]:
    """Protocol and port at one gateway: UDP, since TCP is for long answers."""
    found = [data[1] for _, key, data in nameservice.elements(network.name) if key[:2] == [pool.gateway, "udp"]]
    return "udp", (found or [NAME_PORT])[0]


def sentence(stops: Sequence[Stop], name: str) -> str:
    """What these chains do to the network of that name, in words."""
    what = ", ".join(_WORDS[word] for word in dict.fromkeys(word for stop in stops for word in stop.what))
    subject = "the chain" if len(stops) == 1 else "the chains"
    verb = "stops" if len(stops) == 1 else "stop"
    return f"{subject} {' and '.join(map(str, stops))} {verb} packets of network {name} ({what})"


def _stops(flows: Sequence[Flow], hook: int, built_in: str) -> list[Stop]:
    found: dict[tuple[str, ...], Stop] = {}
    for stop, what in (*_nft_stops(flows, hook), *_legacy_stops(flows, built_in)):
        kept = found.setdefault((stop.family, stop.table, stop.chain, str(stop.legacy)), stop)
        if what not in kept.what:
            kept.what.append(what)
    return list(found.values())


def _nft_stops(flows: Sequence[Flow], hook: int) -> Iterator[tuple[Stop, str]]:
    tables = Tables()
    for chain in nft.foreign_chains(nat.TABLE.name, hook):
        for flow in flows:
            if flow.covers(chain.family) and tables.stops(chain, flow):
                yield Stop(chain.family, chain.table, chain.name, chain.drops), flow.what


def _legacy_stops(flows: Sequence[Flow], built_in: str) -> Iterator[tuple[Stop, str]]:
    for family, path in nat.LEGACY_NAMES.items():
        if legacy.FILTER not in (store.read(path) or "").split():
            continue
        table = legacy.Table(family)
        drops = table.policy(built_in) == DROP
        for flow in flows:
            if flow.family == family and not flow.bridged and table.stops(built_in, flow):
                yield Stop("ip" if family == 4 else "ip6", legacy.FILTER, built_in, drops, True), flow.what


def _forwarded(network: Network, pool: Pool, ports: Sequence[tuple[str, int]]) -> Iterator[Flow]:
    bridge, family = _bridge(network), 4 if pool.subnet.bits == IPV4 else 6
    uplink = _uplink(family)
    if not network.internal:
        yield from _there_and_back(_flow(OUT, network, pool, bridge, uplink))
    for protocol, port in ports[:8]:  # one chain that stops many ports stops them all
        flow = _flow(IN, network, pool, uplink, bridge)
        flow.protocol, flow.port, flow.dnat = nft.PROTOCOLS[protocol], port, True
        yield from _there_and_back(flow)
    if not network.isolate:
        yield from _bridged(_flow(AMONG, network, pool, None, None))
    if not network.isolate and store.read(_BRIDGE_NETFILTER[family]) == "1\n":
        flow = _flow(AMONG, network, pool, bridge, bridge)
        flow.destination = _packed(pool.subnet)
        yield from _there_and_back(flow)


def _bridged(flow: Flow) -> tuple[Flow, Flow]:
    """Packets from port to port; whose ports those are, nobody knows yet."""
    there, back = _there_and_back(flow)
    there.bridged = back.bridged = True
    return there, back


def _flow(what: str, network: Network, pool: Pool, iif: Device | None, oif: Device | None) -> Flow:
    ours = iif if iif and iif.name == network.bridge else oif
    flow = Flow(what, 4 if pool.subnet.bits == IPV4 else 6, iif, oif, ours or LOCALHOST)
    if iif is ours:
        flow.source = _packed(pool.subnet)
    else:
        flow.destination = _packed(pool.subnet)
    return flow


def _there_and_back(flow: Flow) -> tuple[Flow, Flow]:
    """A flow, and its answers: a connection needs both."""
    back = Flow(flow.what, flow.family, flow.oif, flow.iif, flow.ours)
    back.source, back.destination, back.state = flow.destination, flow.source, ESTABLISHED
    back.protocol, back.port, back.dnat = flow.protocol, flow.port, flow.dnat
    return flow, back


def _packed(subnet: Subnet) -> tuple[bytes, int]:
    return netlink.packed_address(addresses.text(subnet.base, subnet.bits)), subnet.prefix


def _bridge(network: Network) -> Device:
    with netlink.shared() as socket:
        link = netlink.find_link(socket, network.bridge)
    return Device(network.bridge, link.index if link else 0, "bridge")


def _uplink(family: int) -> Device | None:
    """The interface by which packets leave for the outside; None if there is none."""
    with netlink.shared() as socket:
        try:
            route = netlink.Route(socket.ask(netlink.get_route(_ANYWHERE[family]))[0])
            link = netlink.Link(socket.ask(netlink.get_link_number(route.link))[0])
        except OSError:  # mostly ENETUNREACH
            return None
    return Device(link.name, link.index, link.kind)
