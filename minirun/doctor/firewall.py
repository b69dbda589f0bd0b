"""The elements of our own nftables table, read by netlink. (Other people's chains are read by network.foreign.)"""

from __future__ import annotations

from minirun.linux import nft, syscalls
from minirun.linux.netlink import NLM_F_DUMP, Message, Socket, attribute, attributes
from minirun.network.nat import TABLE

_PROTOCOLS = {number: name for name, number in nft.PROTOCOLS.items()}
_SIZES = {
    "ipv4_addr": 4,
    "ipv6_addr": 16,
    "inet_proto": 4,
    "inet_service": 4,
    "ifname": 16,
    "iifname": 16,
    "@th,64,128": 16,
    "ether_addr": 8,
}  # in registers of 4 bytes


def elements() -> list[nft.Element]:
    """Every element of our table, with its key and its comment; none if there is no table."""
    found = []
    for name, (family, types, _) in TABLE.sets.items():
        where = attribute(nft.NFTA_SET_ELEM_LIST_TABLE, TABLE.name) + attribute(nft.NFTA_SET_ELEM_LIST_SET, name)
        try:
            replies = _dump(nft.NFT_MSG_GETSETELEM, nft.FAMILIES[family], where)
        except FileNotFoundError:
            continue
        for reply in replies:
            for _, packed in attributes(dict(attributes(reply, 4)).get(nft.NFTA_SET_ELEM_LIST_ELEMENTS, b"")):
                found.append(_element(name, types, dict(attributes(packed))))
    return found


def _dump(kind: int, family: int, body: bytes) -> list[bytes]:
    question = Message(nft.NFNL_SUBSYS_NFTABLES << 8 | kind, NLM_F_DUMP, bytes([family, 0, 0, 0]) + body)
    with Socket(syscalls.NETLINK_NETFILTER) as socket:
        return socket.ask(question)


def _element(name: str, types: str, found: dict[int, bytes]) -> nft.Element:
    first = dict(attributes(found[nft.NFTA_SET_ELEM_KEY]))[nft.NFTA_DATA_VALUE]
    last = dict(attributes(found.get(nft.NFTA_SET_ELEM_KEY_END, b""))).get(nft.NFTA_DATA_VALUE, first)
    notes = found.get(nft.NFTA_SET_ELEM_USERDATA, b"")
    known = notes[:1] == bytes([nft.NFTNL_UDATA_SET_ELEM_COMMENT])
    comment = notes[2 : 1 + notes[1]].decode(errors="replace") if known else ""
    return nft.Element(name, unpack(types, first, last), [], comment)


def unpack(types: str, first: bytes, last: bytes) -> list[str]:
    """The fields of a key as nft(8) writes them; the opposite of ``nft.pack``."""
    fields, at = [], 0
    for kind in types.split(" . "):
        size = _SIZES[kind]
        fields.append(_field(kind, first[at : at + size], last[at : at + size]))
        at += size
    return fields


def _field(kind: str, first: bytes, last: bytes) -> str:
    if kind in ("ifname", "iifname"):
        return _text(first)
    if kind == "@th,64,128":
        return f"0x{first.hex()}"
    if kind == "ether_addr":
        return first[:6].hex(":")
    if kind == "inet_proto":
        return _PROTOCOLS.get(first[0], str(first[0]))
    if kind == "inet_service":
        low, high = (int.from_bytes(side[:2], "big") for side in (first, last))
        return str(low) if low == high else f"{low}-{high}"
    from socket import AF_INET, AF_INET6, inet_ntop

    address = inet_ntop(AF_INET if len(first) == 4 else AF_INET6, first)
    free = (int.from_bytes(first, "big") ^ int.from_bytes(last, "big")).bit_length()
    return f"{address}/{8 * len(first) - free}" if free else address


def _text(value: bytes) -> str:
    return nft.plain(value.rstrip(b"\0").decode(errors="replace"))
