"""The rules of iptables-legacy and ip6tables-legacy: read from the kernel as those programs do, without running them.

A table is one block of memory: an entry for each rule, in their order, chain after chain. A jump is the offset of the
entry where a chain begins. The structs are those of linux/netfilter_ipv4/ip_tables.h, netfilter_ipv6/ip6_tables.h and
netfilter/x_tables.h.
"""

from __future__ import annotations

import sys
from _struct import Struct

from minirun.linux import nft, syscalls
from minirun.linux.netlink import text
from minirun.network.foreign import extensions
from minirun.network.foreign.flow import NO, YES, both, compare, opposite
from minirun.network.foreign.walk import ACCEPT, DROP, GOTO, JUMP, ON, RETURN, Rule, Walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minirun.network.foreign.flow import Field, Flow

FILTER = "filter"
_HEAD = "ERROR"  # the target of the entry before a chain's first rule; its data is the chain's name
HOOKS = {"INPUT": 1, "FORWARD": 2}  # NF_INET_LOCAL_IN, NF_INET_FORWARD
_GET_INFO, _GET_ENTRIES = 64, 65
_info = Struct("=32sI5I5III")  # ipt_getinfo: name, valid hooks, entry and underflow of each hook, entries, size
_extension = Struct("=H29sB")  # xt_entry_match, xt_entry_target: size, name, revision; then its own struct
_offset_pair = Struct("=HH")  # target_offset, next_offset: both from the entry's beginning
_VERDICTS = {-1: DROP, -2: ACCEPT, -5: RETURN}  # minus the verdict, minus 1; XT_RETURN is -NF_REPEAT - 1
_INVERT_IN, _INVERT_OUT, _INVERT_SOURCE, _INVERT_DESTINATION, _INVERT_PROTOCOL = 1, 2, 8, 16, 64


class _Layout:
    """Where the parts of an entry are: ipt_entry or ip6t_entry."""

    def __init__(self, address: int, protocol: int, flags: int, offsets: int, matches: int, goto: int) -> None:
        self.address, self.protocol, self.flags, self.offsets = address, protocol, flags, offsets
        self.matches, self.goto, self.devices = matches, goto, 4 * address


_LAYOUTS = {4: _Layout(4, 80, 82, 88, 112, 2), 6: _Layout(16, 128, 131, 140, 168, 4)}


class Table:
    """The table ``filter`` of a family (4 or 6), as it is now."""

    def __init__(self, family: int) -> None:
        self._layout = _LAYOUTS[family]
        info = _info.unpack(syscalls.xtables(family == 6, _GET_INFO, FILTER.encode(), _info.size))
        self._begins, self._policies, size = info[2:7], info[7:12], info[13]
        question = FILTER.encode().ljust(32, b"\0") + size.to_bytes(4, sys.byteorder) + bytes(4)
        self._blob = syscalls.xtables(family == 6, _GET_ENTRIES, question, len(question) + size)[len(question) :]

    def stops(self, chain: str, flow: Flow) -> bool:
        """Whether a built-in chain certainly stops the flow."""
        look = Walk(lambda begin: list(self._rules(int(begin), flow)))
        return look.stops(str(self._begins[HOOKS[chain]]), self.policy(chain))

    def policy(self, chain: str) -> str:
        """The policy of a built-in chain, which is the rule at its end."""
        return self._verdict(self._policies[HOOKS[chain]])[0]

    def tags(self, chain: str, comment: str) -> Iterator[str]:
        """Of each rule with this comment in a chain: ``udp 53``, or ``i`` if it names an input device, else ``o``."""
        names = {number: name for name, number in nft.PROTOCOLS.items()}
        for at in self._entries(self._begin(chain)):
            matches = {name: data for name, _, data in self._matches(at)}
            if "comment" in matches and extensions.comment(matches["comment"]) == comment:
                number = int.from_bytes(self._blob[at + self._layout.protocol :][:2], sys.byteorder)
                side = "i" if self._blob[at + self._layout.devices] else "o"
                protocol = names.get(number, "")
                yield f"{protocol} {extensions.port(matches.get(protocol, b''))}" if protocol else side

    def jumps_first(self, chain: str, target: str) -> bool:
        """Whether the first rule of a built-in chain sends every packet through the chain ``target``."""
        at = self._begins[HOOKS[chain]]
        verdict, begin = self._verdict(at)
        unconditional = not any(self._blob[at : at + self._layout.flags + 2]) and not list(self._matches(at))
        return verdict == JUMP and unconditional and int(begin) == self._begin(target)

    def _begin(self, chain: str) -> int:
        """The offset of the first rule of a chain; -1 if there is none of that name."""
        if chain in HOOKS:
            return int(self._begins[HOOKS[chain]])
        at = 0
        while at < len(self._blob):
            name, data = self._target(at)
            if name == _HEAD and text(data) == chain:
                return at + self._offset(at)[1]
            at += self._offset(at)[1]
        return -1

    def _rules(self, begin: int, flow: Flow) -> Iterator[Rule]:
        for at in self._entries(begin):
            answer, named = self._answer(at, flow)
            verdict, target = self._verdict(at)
            if verdict == ON:
                name, _ = self._target(at)
                verdict, sure = extensions.target(name)
                answer = both(answer, sure)
            yield Rule(answer, verdict, target, named)

    def _entries(self, begin: int) -> Iterator[int]:
        """The offset of each rule of a chain, up to the next one's head: the last is its policy, or a return."""
        at = begin
        while 0 <= at < len(self._blob) and self._target(at)[0] != _HEAD:
            yield at
            if at in self._policies:
                return
            at += self._offset(at)[1]

    def _answer(self, at: int, flow: Flow) -> tuple[int, bool]:
        """Whether a rule matches the flow, and whether it speaks of our bridge or our addresses."""
        size, here = self._layout.address, self._blob[at : at + self._layout.matches]
        inverted = here[self._layout.flags + 1]
        answer, named = YES, False
        fields = (
            (flow.address_field("source"), 0, _INVERT_SOURCE),
            (flow.address_field("destination"), 1, _INVERT_DESTINATION),
        )
        for field, number, inversion in fields:
            wanted = here[number * size : (number + 1) * size]
            mask = here[(number + 2) * size : (number + 3) * size]
            holds, ours = _masked(field, wanted, mask, bool(inverted & inversion))
            answer, named = both(answer, holds), named or (ours and any(mask))
        for number, key, inversion in ((0, "iifname", _INVERT_IN), (1, "oifname", _INVERT_OUT)):
            wanted = here[self._layout.devices + 16 * number :][:16]
            mask = here[self._layout.devices + 32 + 16 * number :][:16]
            holds, ours = _masked(flow.meta(key), wanted, mask, bool(inverted & inversion))
            answer, named = both(answer, holds), named or (ours and any(mask) and flow.names_us(key))
        answer = both(answer, self._protocol(here, inverted, flow))
        for name, revision, data in self._matches(at):
            answer = both(answer, extensions.match(name, revision, data, flow))
        return answer, named

    def _protocol(self, here: bytes, inverted: int, flow: Flow) -> int:
        number = int.from_bytes(here[self._layout.protocol :][:2], sys.byteorder)
        if not number:
            return YES
        answer = YES if number == flow.protocol else NO
        return opposite(answer) if inverted & _INVERT_PROTOCOL else answer

    def _matches(self, at: int) -> Iterator[tuple[str, int, bytes]]:
        position, end = at + self._layout.matches, at + self._offset(at)[0]
        while position < end:
            size, name, revision = _extension.unpack_from(self._blob, position)
            yield text(name), revision, self._blob[position + _extension.size : position + size]
            position += size

    def _target(self, at: int) -> tuple[str, bytes]:
        position = at + self._offset(at)[0]
        size, name, _ = _extension.unpack_from(self._blob, position)
        return text(name), self._blob[position + _extension.size : position + size]

    def _verdict(self, at: int) -> tuple[str, str]:
        name, data = self._target(at)
        if name:
            return ON, ""  # an extension, which says more
        number = int.from_bytes(data[:4], sys.byteorder, signed=True)
        if number < 0:
            return _VERDICTS.get(number, ACCEPT), ""
        if number == at + self._offset(at)[1]:
            return ON, ""  # a rule without a target goes on to the next
        goto = self._blob[at + self._layout.flags] & self._layout.goto
        return (GOTO if goto else JUMP), str(number)

    def _offset(self, at: int) -> tuple[int, int]:
        target, following = _offset_pair.unpack_from(self._blob, at + self._layout.offsets)
        return target, following


def _masked(field: Field, wanted: bytes, mask: bytes, inverted: bool) -> tuple[int, bool]:
    """Whether the bits under a mask are as wanted; and whether they were compared, and may be."""
    value, known, free = field
    value, wanted = (bytes(v & m for v, m in zip(side, mask, strict=True)) for side in (value, wanted))
    known = bytes(k | ~m & 255 for k, m in zip(known, mask, strict=True))
    answer = compare((value, known, free), wanted)
    return (opposite(answer) if inverted else answer), answer != NO and not inverted
