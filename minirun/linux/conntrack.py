"""Our own small ctnetlink: which flows the kernel remembers, and how to make it forget some.

Connection tracking decides about address translation once, at the first packet, and UDP has no end: a client that goes
on sending keeps its flow, and with it the decision, for ever. Whoever changes what a port means deletes its flows. Only
those who publish UDP or SCTP load this module. Constants bear the names of linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

from minirun.linux import netlink, syscalls
from minirun.linux.netlink import AF_INET, AF_INET6, NLM_F_DUMP, Message, attribute, attributes, nested

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 1, 1, 2
CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE, CTA_FILTER = 1, 12, 18, 25
CTA_TUPLE_IP = CTA_PROTO_NUM = CTA_FILTER_ORIG_FLAGS = 1
CTA_TUPLE_PROTO, CTA_IP_V4_DST, CTA_IP_V6_DST, CTA_PROTO_DST_PORT = 2, 2, 4, 3
CTA_FILTER_F_CTA_PROTO_NUM, CTA_FILTER_F_CTA_PROTO_DST_PORT = 1 << 3, 1 << 5  # nf_internals.h; Linux 5.8
_BATCH = 256  # deletions in one write


class Flow:
    """A flow, by where its first packet wanted to go."""

    __slots__ = ("destination", "identity", "port")

    def __init__(self, body: bytes) -> None:
        found = dict(attributes(body, 4))
        original = dict(attributes(found[CTA_TUPLE_ORIG]))
        addresses, ends = dict(attributes(original[CTA_TUPLE_IP])), dict(attributes(original[CTA_TUPLE_PROTO]))
        self.destination = addresses.get(CTA_IP_V4_DST) or addresses.get(CTA_IP_V6_DST, b"")
        self.port = int.from_bytes(ends.get(CTA_PROTO_DST_PORT, b""), "big")
        # By its number too: a flow that came since with the same addresses and ports is another one.
        kept = [nested(CTA_TUPLE_ORIG, found[CTA_TUPLE_ORIG]), attribute(CTA_ID, found[CTA_ID])]
        self.identity = b"".join(kept + ([attribute(CTA_ZONE, found[CTA_ZONE])] if CTA_ZONE in found else []))


def flows(protocol: int, bits: int, port: int = 0) -> list[Flow]:
    """The flows of an IP protocol to ``port`` (0: to any), in the family whose addresses have so many bits.

    The kernel looks through its table, but tells only these.
    """
    ends = attribute(CTA_PROTO_NUM, bytes([protocol]))
    flags = CTA_FILTER_F_CTA_PROTO_NUM
    if port:
        ends += attribute(CTA_PROTO_DST_PORT, port.to_bytes(2, "big"))
        flags |= CTA_FILTER_F_CTA_PROTO_DST_PORT
    question = nested(CTA_TUPLE_ORIG, nested(CTA_TUPLE_PROTO, ends))
    question += nested(CTA_FILTER, attribute(CTA_FILTER_ORIG_FLAGS, flags))
    with netlink.shared(syscalls.NETLINK_NETFILTER) as socket:
        return [Flow(body) for body in socket.ask(_message(IPCTNL_MSG_CT_GET, NLM_F_DUMP, bits, question))]


def delete(wanted: Sequence[Flow]) -> None:
    """Make the kernel forget flows; those that are gone already do not matter."""
    messages = [_message(IPCTNL_MSG_CT_DELETE, 0, 8 * len(flow.destination), flow.identity) for flow in wanted]
    with netlink.shared(syscalls.NETLINK_NETFILTER) as socket:
        for start in range(0, len(messages), _BATCH):
            try:
                socket.ask(*messages[start : start + _BATCH])  # the kernel goes on after one that failed
            except FileNotFoundError:
                continue


def _message(kind: int, flags: int, bits: int, body: bytes) -> Message:
    family = AF_INET if bits == 32 else AF_INET6
    return Message(NFNL_SUBSYS_CTNETLINK << 8 | kind, flags, bytes([family, 0, 0, 0]) + body, "conntrack")
