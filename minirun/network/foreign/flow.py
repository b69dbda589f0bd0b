"""A packet that does not exist yet: what a firewall will see of it, as far as that is known before it is sent.

A rule compares fields of a packet with values. Of a container's future packets some fields are known (the bridge they
come from, the state "new"), some in part (an address of this subnet), some may be anything (the port), and some nobody
can foresee (a mark that another rule may set). So a comparison has four answers.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Field = tuple[bytes, bytes, bytes]  # value; mask of its known bits; bytes that may be anything are 255, else 0

NO, SOME, UNCLEAR, YES = range(4)  # no packet, some packets, nobody knows (or most packets), every packet

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
_ETH_P = {4: b"\x08\x00", 6: b"\x86\xdd"}
_NFPROTO = {4: 2, 6: 10}
NEW, ESTABLISHED = 8, 2  # NF_CT_STATE_BIT of nf_conntrack_common.h
DST_NAT = 32  # IPS_DST_NAT
_NAT_BITS = 0x30  # IPS_NAT_MASK
UNICAST, LOCAL = 1, 2  # rtnetlink(7)'s types of a destination
_ETHER = 1  # ARPHRD_ETHER


def exact(value: bytes) -> Field:
    """A field that is known."""
    return value, b"\xff" * len(value), bytes(len(value))


def anything(size: int) -> Field:
    """A field that differs from packet to packet."""
    return bytes(size), bytes(size), b"\xff" * size


def unclear(size: int) -> Field:
    """A field that nobody can foresee, or that we do not understand."""
    return bytes(size), bytes(size), bytes(size)


def compare(field: Field, wanted: bytes) -> int:
    """Whether a field equals ``wanted``, which may be shorter (a name with a wildcard)."""
    result = YES
    for value, known, free, other in zip(*field, wanted, strict=False):
        if (value ^ other) & known:
            return NO
        if known != 255:
            result = min(result, SOME if free else UNCLEAR)
    return result


def opposite(answer: int) -> int:
    """The answer of a negated comparison: if some packets are meant, then by the negation most are."""
    return {NO: YES, YES: NO}.get(answer, UNCLEAR)


def both(first: int, second: int) -> int:
    """Two conditions of one rule."""
    return min(first, second)


class Device:
    """An interface that packets come from or go to."""

    __slots__ = ("index", "kind", "name")

    def __init__(self, name: str, index: int, kind: str) -> None:
        self.name, self.index, self.kind = name, index, kind


class Flow:
    """Packets of one kind, at one hook: between which interfaces, between which addresses, in which state.

    ``iif`` and ``oif`` are None if unknown, ``LOCALHOST`` for the machine itself. Addresses are (bytes, known bits).
    ``bridged``: seen as the bridge sees it.
    """

    __slots__ = (
        "bridged",
        "destination",
        "dnat",
        "family",
        "iif",
        "oif",
        "ours",
        "port",
        "protocol",
        "source",
        "state",
        "what",
    )

    def __init__(self, what: str, family: int, iif: Device | None, oif: Device | None, ours: Device) -> None:
        self.what, self.family, self.iif, self.oif, self.ours = what, family, iif, oif, ours
        self.source = self.destination = (bytes(4 if family == 4 else 16), 0)
        self.protocol, self.port, self.state, self.dnat = TCP, 0, NEW, False
        self.bridged = False

    @property
    def to_us(self) -> bool:
        """Whether it ends at this machine: at the hook ``input``."""
        return self.oif is LOCALHOST

    def covers(self, family: str) -> bool:
        """Whether packets of this flow pass the chains of a family of nftables."""
        return family in (("bridge",) if self.bridged else ("inet", "ip" if self.family == 4 else "ip6"))

    # -- what rules read ---------------------------------------------------------------------------------------------

    def meta(self, key: str) -> Field:
        """A field of nft's ``meta``."""
        fields: dict[str, Callable[[], Field]] = {
            "iifname": lambda: _name(self.iif),
            "oifname": lambda: _name(self.oif),
            "iif": lambda: _index(self.iif),
            "oif": lambda: _index(self.oif),
            "iifkind": lambda: _kind(self.iif),
            "oifkind": lambda: _kind(self.oif),
            "iiftype": lambda: exact(_ETHER.to_bytes(2, "little")) if self.iif is self.ours else unclear(2),
            "oiftype": lambda: exact(_ETHER.to_bytes(2, "little")) if self.oif is self.ours else unclear(2),
            "protocol": lambda: exact(_ETH_P[self.family]),
            "nfproto": lambda: exact(bytes([_NFPROTO[self.family]])),
            "l4proto": lambda: exact(bytes([self.protocol])),
        }
        return fields[key]() if key in fields else unclear(16)

    def header(self, base: int, offset: int, size: int) -> Field:
        """``size`` bytes of the network header (base 1) or the transport header (2); others are unclear."""
        if base not in (1, 2):
            return unclear(size)
        whole = self._network() if base == 1 else self._transport()
        value, known, free = (part[offset : offset + size] for part in whole)
        return (value, known, free) if len(value) == size else anything(size)

    def conntrack(self, key: str) -> Field:
        """A field of nft's ``ct``."""
        if key == "state":
            return exact(self.state.to_bytes(4, "little"))
        if key == "status":  # what NAT has done to the connection is known; the rest changes with each packet
            known = _NAT_BITS.to_bytes(4, "little")
            return (DST_NAT if self.dnat else 0).to_bytes(4, "little"), known, b"\xff\0\0\0"
        if key == "direction":
            return exact(bytes([0 if self.state == NEW else 1]))
        return unclear(16)

    def destination_type(self) -> int:
        """What ``fib daddr type`` is."""
        return LOCAL if self.to_us else UNICAST

    def names_us(self, key: str) -> bool:
        """Whether a comparison of this ``meta`` field means our bridge."""
        device = {"iifname": self.iif, "iif": self.iif, "oifname": self.oif, "oif": self.oif}.get(key)
        return device is self.ours

    def address_field(self, which: str) -> Field:
        """The source or the destination address."""
        return _prefix(*getattr(self, which))

    def our_address_at(self, base: int, offset: int) -> bool:
        """Whether this part of a header is an address of our subnet."""
        if base != 1:
            return False
        source, destination = (12, 16) if self.family == 4 else (8, 24)
        return bool((offset == source and self.source[1]) or (offset == destination and self.destination[1]))

    def _network(self) -> Field:
        protocol = exact(bytes([self.protocol]))
        if self.family == 4:
            before = [exact(b"\x45"), anything(8), protocol, anything(2)]
        else:
            before = [anything(6), protocol, anything(1)]
        return _joined(*before, _prefix(*self.source), _prefix(*self.destination))

    def _transport(self) -> Field:
        port = exact(self.port.to_bytes(2, "big")) if self.port else anything(2)
        rest = anything(16)
        return _joined(anything(2), port, rest) if self.state == NEW else _joined(port, anything(2), rest)


LOCALHOST = Device("", 0, "")


def _name(device: Device | None) -> Field:
    return exact(device.name.encode().ljust(16, b"\0")) if device else unclear(16)


def _index(device: Device | None) -> Field:
    return exact(device.index.to_bytes(4, "little")) if device else unclear(4)


def _kind(device: Device | None) -> Field:
    return exact(device.kind.encode().ljust(16, b"\0")) if device and device.kind else unclear(16)


def _prefix(address: bytes, bits: int) -> Field:
    size = len(address)
    mask = ((1 << 8 * size) - (1 << 8 * size - bits)).to_bytes(size, "big")
    return address, mask, b"\xff" * size


def _joined(*fields: Field) -> Field:
    value, known, free = (b"".join(side) for side in zip(*fields, strict=True))
    return value, known, free
