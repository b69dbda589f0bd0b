"""The matches and targets of iptables (xtables) that say something about a flow; nft carries them, too, as ``match``.

The kernel keeps each as a name, a revision and a struct of linux/netfilter/xt_*.h. Most look at a detail of a packet:
they hold for some packets. Some ask what nobody can foresee.
"""

from __future__ import annotations

from minirun.network.foreign.flow import ICMP, ICMP6, NO, SOME, TCP, UDP, UNCLEAR, YES, opposite
from minirun.network.foreign.walk import ACCEPT, DROP, ON

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minirun.network.foreign.flow import Flow

_DETAILS = {"icmp", "icmp6", "multiport", "limit", "hashlimit", "recent", "length", "ttl", "hl", "connlimit", "mac"}
_DETAILS |= {
    "connbytes",
    "statistic",
    "time",
    "string",
    "dscp",
    "tos",
    "tcpmss",
    "ecn",
    "esp",
    "ah",
    "policy",
    "iprange",
}
_ANNOTATIONS = {"LOG", "NFLOG", "ULOG", "TCPMSS", "MARK", "CONNMARK", "CLASSIFY", "TTL", "HL", "DSCP", "TOS", "AUDIT"}
_ANNOTATIONS |= {"TRACE", "SET", "CT", "CHECKSUM"}
_STATE_MATCH, _DNAT_STATE = 1, 0x80  # XT_CONNTRACK_STATE, XT_CONNTRACK_STATE_DNAT
_INVERT_DESTINATION = 2  # XT_ADDRTYPE_INVERT_DEST
_NEW = 8  # XT_CONNTRACK_STATE_BIT: as nft's


def match(name: str, revision: int, info: bytes, flow: Flow) -> int:
    """Whether a match holds for the flow."""
    if name == "comment":
        return YES
    if name == "conntrack" and revision >= 1:
        return _conntrack(info, revision, flow)
    if name == "state":
        return YES if _number(info, 0, 4) & flow.state else NO
    if name in ("tcp", "udp"):
        return _ports(name, info, flow)
    if name in ("icmp", "icmp6") and flow.protocol not in (ICMP, ICMP6):
        return NO
    if name == "addrtype" and revision == 1:
        return _address_type(info, flow)
    return SOME if name in _DETAILS else UNCLEAR


def target(name: str) -> tuple[str, int]:
    """What a target leads to, and how sure that is."""
    if name in ("REJECT", "DROP"):
        return DROP, YES
    if name == "ACCEPT":
        return ACCEPT, YES
    return (ON, YES) if name in _ANNOTATIONS else (ACCEPT, UNCLEAR)


def comment(info: bytes) -> str:
    """The text of ``-m comment``."""
    return info.split(b"\0", 1)[0].decode(errors="replace")


def port(info: bytes) -> int:
    """The first destination port of ``-m tcp`` or ``-m udp``; 0 if there is no such match."""
    return _number(info, 4, 2)


def _conntrack(info: bytes, revision: int, flow: Flow) -> int:
    """struct xt_conntrack_mtinfo1 to 3: only its states are looked at."""
    asked, inverted = _number(info, 146, 2), _number(info, 148, 2)
    if asked != _STATE_MATCH:
        return UNCLEAR
    mask = _number(info, 150, 1 if revision == 1 else 2)
    holds = mask & flow.state or (mask & _DNAT_STATE and flow.dnat)
    answer = YES if holds else NO
    return opposite(answer) if inverted & _STATE_MATCH else answer


def _ports(name: str, info: bytes, flow: Flow) -> int:
    """struct xt_tcp, struct xt_udp: the range of destination ports, if the flow's is known."""
    if flow.protocol != (TCP if name == "tcp" else UDP):
        return NO
    source_low, source_high, low, high = (_number(info, at, 2) for at in (0, 2, 4, 6))
    flags = info[8:12] if name == "tcp" else bytes([0, 0, 0, info[8]])
    if (source_low, source_high) != (0, 0xFFFF) or any(flags):
        return SOME
    if (low, high) == (0, 0xFFFF):
        return YES
    if not flow.port or flow.state != _NEW:
        return SOME
    return YES if low <= flow.port <= high else NO


def _address_type(info: bytes, flow: Flow) -> int:
    """struct xt_addrtype_info_v1: bits of types of the source and of the destination."""
    source, destination, flags = _number(info, 0, 2), _number(info, 2, 2), _number(info, 4, 4)
    if source or flags & ~_INVERT_DESTINATION:
        return UNCLEAR
    answer = YES if destination & (1 << flow.destination_type()) else NO
    return opposite(answer) if flags & _INVERT_DESTINATION else answer


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")
