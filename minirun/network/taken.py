"""Ports by their number: the many that one command names, and those of all containers, read once.

A start with a port or two asks the kernel for just these (``claim``). Who names a range, or dozens, reads all elements
instead: that costs by how many there are, but once.
"""

from __future__ import annotations

from minirun.linux import nft
from minirun.network import addresses
from minirun.network.addresses import IPV4, IPV6
from minirun.network.nat import TABLE
from minirun.network.ports import ANY4, ANY6, Port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Index:
    """Ports, and whose each is."""

    __slots__ = ("_blocks", "_single")

    def __init__(self) -> None:
        self._single: dict[tuple[str, int], list[tuple[Port, str]]] = {}
        self._blocks: list[tuple[Port, str]] = []

    def add(self, port: Port, whose: str) -> None:
        """Note a port or a range."""
        if port.count > 1:
            self._blocks.append((port, whose))
        else:
            self._single.setdefault((port.protocol, port.host_port), []).append((port, whose))

    def find(self, port: Port) -> str | None:
        """Whose port is in the way of this one, or None."""
        return next((whose for other, whose in self._near(port) if port.overlaps(other)), None)

    def _near(self, port: Port) -> Iterator[tuple[Port, str]]:
        yield from self._blocks
        if port.count == 1:
            yield from self._single.get((port.protocol, port.host_port), ())
            return
        for others in self._single.values():
            yield from others


def of_containers(family: int) -> Index:
    """What all containers publish in a family (4 or 6), by the comments of the elements."""
    index = Index()
    names = {number: name for name, number in nft.PROTOCOLS.items()}
    wide, bits = (ANY4, IPV4) if family == 4 else (ANY6, IPV6)
    for kind in ("", "_any", "_range"):
        for start, end, comment in TABLE.dump(f"pub{family}{kind}"):
            # Registers of four bytes each: the address, if the set has one; the protocol; the port.
            first, last = int.from_bytes(start[-4:-2], "big"), int.from_bytes(end[-4:-2], "big")
            one = start[:-8] and start[:-8] == end[:-8]
            address = addresses.text(int.from_bytes(start[:-8], "big"), bits) if one else wide
            index.add(Port(address, first, first, names.get(start[-8], "?"), last - first + 1), comment)
    return index
