"""Reading what anybody keeps in nftables: rules and sets, as the kernel packs them.

``nft`` speaks of what every start needs; this is for whoever looks closer at other people's tables. Never by parsing
``nft -j``: its form changes between versions. Constants bear the names of linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from minirun.linux import netlink, nft, syscalls
from minirun.linux.netlink import NLM_F_DUMP, Message, attribute, attributes
from minirun.linux.netlink import text as text

NFT_MSG_GETRULE, NFT_MSG_GETSET = 7, 10
NFTA_RULE_EXPRESSIONS, NFTA_RULE_USERDATA = 4, 7
NFTA_SET_TABLE, NFTA_SET_NAME, NFTA_SET_FLAGS, NFTA_SET_KEY_LEN, NFTA_SET_ELEM_FLAGS = 1, 2, 3, 5, 3
NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2
NFTNL_UDATA_RULE_COMMENT = 0  # libnftnl's: bytes (type, length, text with its NUL)


class Rule:
    """A rule: its handle, its comment, and each of its expressions as (name, attributes)."""

    __slots__ = ("comment", "expressions", "handle")

    def __init__(self, body: bytes) -> None:
        found = dict(attributes(body, 4))
        self.handle = int.from_bytes(found.get(nft.NFTA_RULE_HANDLE, b""), "big")
        self.expressions = []
        for _, element in attributes(found.get(NFTA_RULE_EXPRESSIONS, b"")):
            expression = dict(attributes(element))
            details = dict(attributes(expression.get(NFTA_EXPR_DATA, b"")))
            self.expressions.append((text(expression[NFTA_EXPR_NAME]), details))
        notes = found.get(NFTA_RULE_USERDATA, b"")
        self.comment = text(notes[2 : 2 + notes[1]]) if notes[:1] == bytes([NFTNL_UDATA_RULE_COMMENT]) else ""


def rules(family: str, table: str, chain: str) -> list[Rule]:
    """The rules of a chain, in their order; none if there is no such chain."""
    where = attribute(nft.NFTA_RULE_TABLE, table) + attribute(nft.NFTA_RULE_CHAIN, chain)
    return [Rule(reply) for reply in _ask(NFT_MSG_GETRULE, NLM_F_DUMP, family, where)]


def set_details(family: str, table: str, name: str) -> dict[int, bytes]:
    """The attributes of a set (NFTA_SET_*); none if there is no such set."""
    replies = _ask(NFT_MSG_GETSET, 0, family, attribute(NFTA_SET_TABLE, table) + attribute(NFTA_SET_NAME, name))
    return dict(attributes(replies[0], 4)) if replies else {}


def set_elements(family: str, table: str, name: str) -> list[dict[int, bytes]]:
    """The attributes of each element of a set (NFTA_SET_ELEM_*)."""
    where = attribute(nft.NFTA_SET_ELEM_LIST_TABLE, table) + attribute(nft.NFTA_SET_ELEM_LIST_SET, name)
    found = []
    for reply in _ask(nft.NFT_MSG_GETSETELEM, NLM_F_DUMP, family, where):
        packed = dict(attributes(reply, 4)).get(nft.NFTA_SET_ELEM_LIST_ELEMENTS, b"")
        found += [dict(attributes(element)) for _, element in attributes(packed)]
    return found


def _ask(kind: int, flags: int, family: str, body: bytes) -> list[bytes]:
    number = nft.NFNL_SUBSYS_NFTABLES << 8 | kind
    with netlink.shared(syscalls.NETLINK_NETFILTER) as socket:
        try:
            return socket.ask(Message(number, flags, bytes([nft.FAMILIES[family], 0, 0, 0]) + body))
        except FileNotFoundError:  # taken away while we look
            return []
