"""Flows of UDP and SCTP to a published port are forgotten when it is published, and when it is not any more.

A client that sent before, and goes on, would else keep the old decision (moby#8795): to the host instead of the
container, or to an address that is nobody's, or another container's, by now.
"""

from __future__ import annotations

from minirun.linux import conntrack, netlink, nft
from minirun.network.addresses import IPV4, IPV6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minirun.linux.nft import Element

LASTING = ("udp", "sctp")  # TCP has an end, and a connection that it lost is reset


def forget(elements: Sequence[Element]) -> None:
    """Forget the flows that these elements of published ports are about."""
    asked: dict[tuple[str, int], list[tuple[str, range]]] = {}  # protocol, family: addresses ("": all), ports
    for element in elements:
        protocol, ports = element.key[-2:]
        if protocol in LASTING:
            address = element.key[0] if len(element.key) == 3 and "/" not in element.key[0] else ""
            first, dash, last = ports.partition("-")
            bits = IPV6 if element.set.startswith("pub6") else IPV4
            numbers = range(int(first), int(last if dash else first) + 1)
            asked.setdefault((protocol, bits), []).append((address, numbers))
    for (protocol, bits), places in asked.items():
        alone = places[0][1][0] if len(places) == 1 and len(places[0][1]) == 1 else 0
        found = conntrack.flows(nft.PROTOCOLS[protocol], bits, alone)
        here = _local(bits) if found else set()
        conntrack.delete([flow for flow in found if any(_meant(flow, *place, here) for place in places)])


def _meant(flow: conntrack.Flow, address: str, ports: range, here: set[bytes]) -> bool:
    """What only passes through this host, on its way to another one's port of that number, is not."""
    if flow.port not in ports:
        return False
    if address:
        return flow.destination == netlink.packed_address(address)
    return flow.destination in here or (len(flow.destination) == 4 and flow.destination[0] == 127)


def _local(bits: int) -> set[bytes]:
    with netlink.shared() as socket:
        return {
            packed
            for packed in (netlink.packed_address(one.text) for one in netlink.addresses(socket))
            if 8 * len(packed) == bits
        }
