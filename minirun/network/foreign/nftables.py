"""Chains of other people's nftables tables, read by netlink and understood as far as a flow needs it.

A rule is a list of small expressions that move data through registers: load the name of the input interface, compare,
give a verdict. They are played here with fields of which only a part is known. What iptables-nft, ufw, Docker, libvirt
and firewalld write is understood; an expression that is not makes its rule unclear, never wrong.

Numbers bear the names of linux/netfilter/nf_tables.h. Never by parsing ``nft -j``: its form changes between versions.
"""

from __future__ import annotations

from minirun.linux import nft, nft_read
from minirun.linux.netlink import attributes
from minirun.network.foreign import extensions
from minirun.network.foreign.flow import NO, SOME, UNCLEAR, YES, both, compare, exact, opposite, unclear
from minirun.network.foreign.sets import Set
from minirun.network.foreign.walk import ACCEPT, DROP, GOTO, JUMP, ON, RETURN, Rule, Walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minirun.linux.nft import Chain
    from minirun.network.foreign.flow import Field, Flow

_META = {
    1: "protocol",
    4: "iif",
    5: "oif",
    6: "iifname",
    7: "oifname",
    8: "iiftype",
    9: "oiftype",
    15: "nfproto",
    16: "l4proto",
    26: "iifkind",
    27: "oifkind",
}
_CONNTRACK = {0: "state", 1: "direction", 2: "status"}
_QUIET = frozenset(("counter", "log", "last", "notrack", "objref", "flow_offload", "dup", "tproxy"))
_SOMETIMES = frozenset(("limit", "quota", "connlimit", "numgen", "dynset", "synproxy", "tcpopt", "exthdr", "osf"))
_VERDICTS = {nft.NF_DROP: DROP, nft.NF_ACCEPT: ACCEPT, -1: ON, -3: JUMP, -4: GOTO, -5: RETURN}
_EQUAL, _NOT_EQUAL = 0, 1
_ADDRESS_TYPE, _OF_DESTINATION = 3, 2  # NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR
_INVERTED = 1  # NFT_LOOKUP_F_INV


class Tables:
    """What nftables holds now, read once: for one look, and never kept for another."""

    def __init__(self) -> None:
        self._rules: dict[tuple[str, str, str], list[nft_read.Rule]] = {}
        self._sets: dict[tuple[str, str, str], Set] = {}

    def stops(self, chain: Chain, flow: Flow) -> bool:
        """Whether a base chain certainly stops the flow."""
        look = Walk(lambda name: list(self._played(chain, name, flow)))
        return look.stops(chain.name, DROP if chain.drops else ACCEPT)

    def rules(self, chain: Chain, name: str) -> list[nft_read.Rule]:
        """The rules of a chain that is in the table of ``chain``."""
        key = (chain.family, chain.table, name)
        if key not in self._rules:
            self._rules[key] = nft_read.rules(*key)
        return self._rules[key]

    def set(self, chain: Chain, name: str) -> Set:
        """A set or map of the table of ``chain``."""
        key = (chain.family, chain.table, name)
        if key not in self._sets:
            self._sets[key] = Set(*key)
        return self._sets[key]

    def _played(self, chain: Chain, name: str, flow: Flow) -> Iterator[Rule]:
        for rule in self.rules(chain, name):
            yield from _Player(self, chain, flow).play(rule.expressions)


class _Player:
    """The registers while one rule is played."""

    def __init__(self, tables: Tables, chain: Chain, flow: Flow) -> None:
        self.tables, self.chain, self.flow = tables, chain, flow
        self.value, self.known, self.free = bytearray(64), bytearray(64), bytearray(64)
        self.answer, self.named = YES, False
        self.source: dict[int, str] = {}  # register: the `meta` field that was loaded into it

    def play(self, expressions: list[tuple[str, dict[int, bytes]]]) -> Iterator[Rule]:
        for name, found in expressions:
            if self.answer == NO:
                return
            if name == "immediate" and _number(found.get(1)) == 0:
                yield Rule(self.answer, *verdict(found[2]), self.named)
                return
            if name == "lookup" and 3 in found and _number(found[3]) == 0:
                yield from self._verdict_map(found)
                return
            if name == "target":
                leads_to, sure = extensions.target(nft_read.text(found[1]))
                if leads_to != ON:
                    yield Rule(both(self.answer, sure), leads_to, "", self.named)
            elif name == "reject":
                yield Rule(self.answer, DROP, "", self.named)
            elif name == "queue":
                yield Rule(both(self.answer, UNCLEAR), ACCEPT, "", self.named)
            else:
                self._one(name, found)

    def _one(self, name: str, found: dict[int, bytes]) -> None:
        step = getattr(self, f"_{name}", None)
        if step:
            step(found)
        elif name in _SOMETIMES:
            self._require(SOME)
        elif name not in _QUIET:
            self._require(UNCLEAR)

    def _require(self, answer: int) -> None:
        self.answer = both(self.answer, answer)

    # -- loading ---------------------------------------------------------------------------------------------------

    def _meta(self, found: dict[int, bytes]) -> None:
        if 1 not in found:
            return  # it sets a field, and goes on
        key = _META.get(_number(found[2]), "")
        self._load(found[1], self.flow.meta(key))
        self.source[_slot(found[1])] = key

    def _payload(self, found: dict[int, bytes]) -> None:
        if 1 in found:
            base, offset, size = (_number(found[kind]) for kind in (2, 3, 4))
            self._load(found[1], self.flow.header(base, offset, size))
            ours = self.flow.our_address_at(base, offset)
            self.source[_slot(found[1])] = "address" if ours else ""

    def _ct(self, found: dict[int, bytes]) -> None:
        if 1 in found:
            key = _CONNTRACK.get(_number(found[2]), "")
            self._load(found[1], self.flow.conntrack(key))

    def _fib(self, found: dict[int, bytes]) -> None:
        kind = _number(found.get(2)), _number(found.get(3))
        known = kind == (_ADDRESS_TYPE, _OF_DESTINATION)
        self._load(found[1], exact(self.flow.destination_type().to_bytes(4, "little")) if known else unclear(4))

    def _immediate(self, found: dict[int, bytes]) -> None:
        self._load(found[1], exact(dict(attributes(found[2]))[nft.NFTA_DATA_VALUE]))

    def _bitwise(self, found: dict[int, bytes]) -> None:
        size = _number(found[3])
        value, known, free = self._region(found[1], size)
        if _number(found.get(6)) or 4 not in found:
            self._load(found[2], unclear(size))
            return
        mask, flip = (dict(attributes(found[kind]))[nft.NFTA_DATA_VALUE] for kind in (4, 5))
        changed = bytes((v & m) ^ x for v, m, x in zip(value, mask, flip, strict=True))
        self._load(found[2], (changed, bytes(k | ~m & 255 for k, m in zip(known, mask, strict=True)), free))
        self.source[_slot(found[2])] = self.source.get(_slot(found[1]), "")

    def _byteorder(self, found: dict[int, bytes]) -> None:
        self._load(found[2], unclear(_number(found[4])))

    # -- comparing -------------------------------------------------------------------------------------------------

    def _cmp(self, found: dict[int, bytes]) -> None:
        wanted = dict(attributes(found[3]))[nft.NFTA_DATA_VALUE]
        field = self._region(found[1], len(wanted))
        operator = _number(found[2])
        if operator in (_EQUAL, _NOT_EQUAL):
            answer = compare(field, wanted)
            if operator == _EQUAL and answer != NO:
                self._note(found[1])
            self._require(answer if operator == _EQUAL else opposite(answer))
        else:
            self._require(_ordered(field, operator, wanted))

    def _range(self, found: dict[int, bytes]) -> None:
        low, high = (dict(attributes(found[kind]))[nft.NFTA_DATA_VALUE] for kind in (3, 4))
        field = self._region(found[1], len(low))
        answer = both(_ordered(field, 5, low), _ordered(field, 3, high))
        self._require(answer if _number(found[2]) == _EQUAL else opposite(answer))

    def _lookup(self, found: dict[int, bytes]) -> None:
        held = self.tables.set(self.chain, nft_read.text(found[1]))
        if 3 in found:  # a map: what it gives is data of the table's owner
            self._load(found[3], unclear(16))
        answer = held.contains(lambda size: self._region(found[2], size))
        inverted = _number(found.get(5)) & _INVERTED
        if answer != NO and not inverted:
            self._note(found[2])
        self._require(opposite(answer) if inverted else answer)

    def _verdict_map(self, found: dict[int, bytes]) -> Iterator[Rule]:
        held = self.tables.set(self.chain, nft_read.text(found[1]))
        self._note(found[2])
        for answer, data in held.candidates(lambda size: self._region(found[2], size)):
            yield Rule(both(self.answer, answer), *verdict(data), self.named)

    def _match(self, found: dict[int, bytes]) -> None:
        self._require(extensions.match(nft_read.text(found[1]), _number(found[2]), found.get(3, b""), self.flow))

    def _note(self, register: bytes) -> None:
        """Note that the rule speaks of our bridge or of our addresses."""
        source = self.source.get(_slot(register), "")
        self.named |= source == "address" or self.flow.names_us(source)

    def _region(self, register: bytes, size: int) -> Field:
        at = _slot(register)
        value, known, free = (bytes(part[at : at + size]) for part in (self.value, self.known, self.free))
        return value, known, free

    def _load(self, register: bytes, field: Field) -> None:
        at, size = _slot(register), len(field[0])
        end = at + (size + 3 & ~3)
        for part, data, rest in zip((self.value, self.known, self.free), field, (b"\0", b"\xff", b"\0"), strict=True):
            part[at:end] = data + rest * (end - at - size)  # what a register holds behind a short value is 0
        del self.value[64:], self.known[64:], self.free[64:]
        self.source.pop(at, None)


def verdict(data: bytes) -> tuple[str, str]:
    """Verdict and target of a NFTA_DATA_VERDICT; one that we do not know may well let through."""
    if not data:
        return ACCEPT, ""
    found = dict(attributes(dict(attributes(data)).get(nft.NFTA_DATA_VERDICT, b"")))
    code = int.from_bytes(found.get(nft.NFTA_VERDICT_CODE, b""), "big", signed=True)
    return _VERDICTS.get(code, ACCEPT), nft_read.text(found.get(2, b""))


def _ordered(field: Field, operator: int, wanted: bytes) -> int:
    """A comparison by size of what is known as a whole or not at all: lt, lte, gt, gte (NFT_CMP_*)."""
    value, known, free = field
    if known == b"\xff" * len(wanted):
        holds = (value < wanted, value <= wanted, value > wanted, value >= wanted)[operator - 2]
        return YES if holds else NO
    return SOME if all(f or k == 255 for f, k in zip(free, known, strict=True)) else UNCLEAR


def _slot(register: bytes) -> int:
    """Where a register begins: NFT_REG_1 to 4 are of 16 bytes, NFT_REG32_00 and on are of 4 bytes of the same."""
    number = _number(register)
    return (number - 1) * 16 if number < 8 else (number - 8) * 4


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "big")
