"""Our own small nfnetlink: elements of sets and maps, added and taken away in one transaction.

``nft`` takes 3 ms to start and reads the whole table first; a packed message takes 0.01 ms however many elements
there are. Rules never change after they are loaded, so elements are all that a start has to speak about.

Values are written as nft(8) writes them ("10.201.0.2", "tcp", "8080", "br0", "accept") and types bear nft's names, so
an element can be printed as a command and packed as a message from the same data. Constants bear the names of
linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from minirun.errors import InvalidDocument
from minirun.linux import netlink, syscalls
from minirun.linux.netlink import AF_UNSPEC, NLM_F_CREATE, NLM_F_DUMP, Message, attribute, attributes, nested, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NFNL_SUBSYS_NFTABLES = 10
FAMILIES = {"inet": 1, "ip": 2, "netdev": 5, "bridge": 7, "ip6": 10}  # NFPROTO_*
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
NFT_MSG_DELTABLE, NFT_MSG_GETCHAIN = 2, 4
NFT_MSG_DELRULE, NFT_MSG_NEWSETELEM, NFT_MSG_GETSETELEM, NFT_MSG_DELSETELEM = 8, 12, 13, 14
NFTA_TABLE_NAME = NFTA_LIST_ELEM = NFTA_DATA_VALUE = NFTA_VERDICT_CODE = 1
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY, NFTA_CHAIN_USE = 1, 3, 4, 5, 6
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE = 1, 2, 3
NFTA_HOOK_HOOKNUM, NF_INET_LOCAL_IN, NF_INET_FORWARD = 1, 1, 2
NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_ELEMENTS = 1, 2, 3
NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_USERDATA, NFTA_SET_ELEM_KEY_END = 1, 2, 6, 10
NFTA_DATA_VERDICT = 2
NF_DROP, NF_ACCEPT = 0, 1
NFTNL_UDATA_SET_ELEM_COMMENT = 0  # libnftnl's, not the kernel's: bytes (type, length, text with its NUL)
MAX_COMMENT = 128  # bytes, with the NUL behind it
_NAMES = ("ifname", "iifname")  # types whose values nft(8) wants in quotes: an interface may be called "drop", or "42"
_WORD = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.:/-")  # of all that needs no quotes

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}  # RFC 5237; as /etc/protocols, which need not exist
VERDICTS = {"accept": NF_ACCEPT, "drop": NF_DROP}

_ENCODERS: dict[str, Callable[[str], bytes]] = {
    "ether_addr": netlink.packed_mac,
    "ipv4_addr": netlink.packed_address,
    "ipv6_addr": netlink.packed_address,
    "@th,64,128": lambda text: int(text, 16).to_bytes(16, "big"),  # raw payload, which nft writes as a number
    "inet_proto": lambda text: bytes([PROTOCOLS[text]]),
    "inet_service": lambda text: int(text).to_bytes(2, "big"),
    "ifname": lambda text: text.encode().ljust(16, b"\0"),
    "iifname": lambda text: text.encode().ljust(16, b"\0"),  # in a set that was declared by typeof
}


class Element:
    """One element: its set, its key and, in a map, its data (verdicts too), each field as nft(8) writes it.

    A field may be an interval, ``8000-8010`` or ``10.0.0.0/24``, in a set that was declared so.
    """

    __slots__ = ("comment", "data", "key", "set")

    def __init__(self, name: str, key: list[str], data: list[str], comment: str) -> None:
        self.set, self.key, self.data, self.comment = name, key, data, plain(comment)[: MAX_COMMENT - 1]

    def __str__(self) -> str:
        """The element for a reader; what nft(8) reads is written by ``Table.written``."""
        return f"{' . '.join(self.key)}{' : ' if self.data else ''}{' . '.join(self.data)}"


def plain(text: str) -> str:
    """``text`` as it may stand in quotes in a script of nft(8), which knows no escapes: what may not becomes "_"."""
    if _is_plain(text):
        return text
    return "".join(character if _is_plain(character) else "_" for character in text)


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


def _fields(types: str, values: list[str]) -> str:
    kinds = types.split(" . ")
    if len(kinds) != len(values):
        raise InvalidDocument(f"element of our firewall: {values!r}", f"is no {types}")
    return " . ".join(map(_field, kinds, values))


def _field(kind: str, value: object) -> str:
    """One field as nft(8) reads it. Raises InvalidDocument: a record on disk may hold what would be more than that."""
    if isinstance(value, str) and value:
        if kind in _NAMES and _is_plain(value):
            return f'"{value}"'
        if kind not in _NAMES and _WORD.issuperset(value):
            return value
    raise InvalidDocument(f"element of our firewall: {value!r}", f"is no {kind}")


class Table:
    """A table of one name in some families, and its sets: name -> (family, types of the key, types of the data).

    ``anchors`` names one of its base chains in each family: if that is there and has rules, so has the table.
    """

    def __init__(self, name: str, sets: dict[str, tuple[str, str, str]], anchors: dict[str, str]) -> None:
        self.name, self.sets, self.anchors = name, sets, anchors
        self.families = tuple(anchors)

    def stands(self, found: Sequence[Chain] | None = None) -> bool:
        """Whether the kernel has the table with its rules, in each of its families: so the chains ``found`` tell."""
        standing = {
            (c.family, c.name) for c in (chains() if found is None else found) if c.table == self.name and c.use
        }
        return standing.issuperset(self.anchors.items())

    def drop(self) -> None:
        """Delete the table with all that is in it, in each family; absent is fine."""
        for family in self.families:
            try:
                name = attribute(NFTA_TABLE_NAME, self.name)
                _commit([_message(NFT_MSG_DELTABLE, 0, family, name, self.name)])
            except FileNotFoundError:
                pass

    def sh(self, verb: str, element: Element) -> str:
        """The command by which nft(8) would ``add`` or ``delete`` an element."""
        written = self.written(element).replace("'", "'\\''")
        return f"nft {verb} element {self.sets[element.set][0]} {self.name} {element.set} '{{ {written} }}'"

    def written(self, element: Element) -> str:
        """The element in nft(8)'s syntax, without its set. Raises InvalidDocument if a field is nothing of its type."""
        text = f'{self.written_key(element)} comment "{element.comment}"'
        return text + (" : " + _fields(self.sets[element.set][2], element.data) if element.data else "")

    def written_key(self, element: Element) -> str:
        """The key in nft(8)'s syntax. Raises InvalidDocument."""
        return _fields(self.sets[element.set][1], element.key)

    def add(self, elements: Sequence[Element]) -> None:
        """Add all of them or none. FileExistsError: a key is there with other data; FileNotFoundError: no such table.

        An element that is there already with the same data is no error.
        """
        _commit([self._message(NFT_MSG_NEWSETELEM, NLM_F_CREATE, element) for element in elements])

    def delete(self, elements: Sequence[Element], own: bool = False) -> None:
        """Take away those that are there with this very comment; one that has another's comment is another's.

        Where the key is nobody else's, ``own``, nothing is compared.
        """
        mine = elements if own else [element for element in elements if self.comment(element) == element.comment]
        try:
            _commit([self._message(NFT_MSG_DELSETELEM, 0, element) for element in mine])
        except FileNotFoundError:  # gone since we looked, all with their table or some alone
            for element in mine:
                try:
                    _commit([self._message(NFT_MSG_DELSETELEM, 0, element)])
                except FileNotFoundError:
                    continue

    def comment(self, element: Element) -> str | None:
        """The comment of the element that has this one's key, or None if there is none."""
        with netlink.shared(syscalls.NETLINK_NETFILTER) as socket:
            try:
                replies = socket.ask(self._message(NFT_MSG_GETSETELEM, 0, element))
            except FileNotFoundError:
                return None
        found = [comment for reply in replies for *_, comment in _elements(reply)]
        return found[0] if found else None

    def has(self, elements: Sequence[Element]) -> bool:
        """Whether all of these keys are there; asked in one write."""
        with netlink.shared(syscalls.NETLINK_NETFILTER) as socket:
            try:
                socket.ask(*(self._message(NFT_MSG_GETSETELEM, 0, element) for element in elements))
            except FileNotFoundError:
                return False
        return True

    def dump(self, name: str) -> list[tuple[bytes, bytes, str]]:
        """(first key, last key, comment) of every element of a set, the keys packed; none if there is no such table."""
        where = attribute(NFTA_SET_ELEM_LIST_TABLE, self.name) + attribute(NFTA_SET_ELEM_LIST_SET, name)
        with netlink.shared(syscalls.NETLINK_NETFILTER) as socket:
            try:
                replies = socket.ask(_message(NFT_MSG_GETSETELEM, NLM_F_DUMP, self.sets[name][0], where))
            except FileNotFoundError:
                return []
        return [element for reply in replies for element in _elements(reply)]

    def content(self) -> dict[str, list[tuple[bytes, bytes, str]]]:
        """What ``dump`` tells of each set."""
        return {name: self.dump(name) for name in self.sets}

    def prune(self, present: dict[str, list[tuple[bytes, bytes, str]]], wanted: Sequence[Element]) -> None:
        """Delete those elements of ``present`` that are none of ``wanted``; gone already is fine."""
        keep = {(element.set, *pack(self.sets[element.set][1], element.key)) for element in wanted}
        for name, found in present.items():
            for first, last, _ in found:
                if (name, first, last) not in keep:
                    try:
                        _commit([self._packed_message(NFT_MSG_DELSETELEM, 0, name, first, last)])
                    except FileNotFoundError:
                        continue

    def _message(self, kind: int, flags: int, element: Element) -> Message:
        _, key_types, data_types = self.sets[element.set]
        details = _details(data_types, element) if kind == NFT_MSG_NEWSETELEM else []
        about = f"{element.set} {{ {element} }}"
        return self._packed_message(kind, flags, element.set, *pack(key_types, element.key), details, about)

    def _packed_message(
        self, kind: int, flags: int, name: str, start: bytes, end: bytes, details: Sequence[bytes] = (), about: str = ""
    ) -> Message:
        parts = [nested(NFTA_SET_ELEM_KEY, attribute(NFTA_DATA_VALUE, start))]
        if end != start:
            parts.append(nested(NFTA_SET_ELEM_KEY_END, attribute(NFTA_DATA_VALUE, end)))
        body = (
            attribute(NFTA_SET_ELEM_LIST_TABLE, self.name),
            attribute(NFTA_SET_ELEM_LIST_SET, name),
            nested(NFTA_SET_ELEM_LIST_ELEMENTS, nested(NFTA_LIST_ELEM, *parts, *details)),
        )
        return _message(kind, flags, self.sets[name][0], b"".join(body), about)


class Chain:
    """A chain of anybody's: the hook where it hangs (-1: none), whether it drops what no rule of it decides.

    ``use`` counts its rules and the jumps to it.
    """

    __slots__ = ("drops", "family", "hook", "name", "table", "use")

    def __init__(self, body: bytes) -> None:
        found = dict(attributes(body, 4))
        self.family = next((name for name, number in FAMILIES.items() if number == body[0]), "")
        self.table, self.name = text(found[NFTA_CHAIN_TABLE]), text(found[NFTA_CHAIN_NAME])
        hook = dict(attributes(found.get(NFTA_CHAIN_HOOK, b""))).get(NFTA_HOOK_HOOKNUM)
        self.hook = -1 if hook is None else int.from_bytes(hook, "big")
        self.drops = found.get(NFTA_CHAIN_POLICY) == NF_DROP.to_bytes(4, "big")
        self.use = int.from_bytes(found.get(NFTA_CHAIN_USE, b""), "big")


def delete_rule(family: str, table: str, chain: str, handle: int) -> None:
    """Delete one rule of anybody's chain; absent is fine. Raises OSError: EPERM, if the table has an owner."""
    where = attribute(NFTA_RULE_TABLE, table) + attribute(NFTA_RULE_CHAIN, chain)
    try:
        _commit([_message(NFT_MSG_DELRULE, 0, family, where + attribute(NFTA_RULE_HANDLE, handle.to_bytes(8, "big")))])
    except FileNotFoundError:
        pass


def chains() -> list[Chain]:
    """Every chain that anybody has, of every table and family, in two or three calls."""
    with netlink.shared(syscalls.NETLINK_NETFILTER) as socket:
        question = Message(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN, NLM_F_DUMP, bytes(4))
        return [Chain(reply) for reply in socket.ask(question)]


def foreign_chains(ours: str, hook: int, found: Sequence[Chain] | None = None) -> list[Chain]:
    """Base chains at a hook, but those of our table and of devices, that may drop: they have rules, or a policy."""
    candidates = [c for c in (chains() if found is None else found) if c.hook == hook and c.table != ours]
    return [chain for chain in candidates if chain.family != "netdev" and (chain.drops or chain.use)]


def pack(types: str, values: list[str]) -> tuple[bytes, bytes]:
    """The first and the last key of a concatenation, each field padded to a register of 4 bytes."""
    ends = [_interval(kind, value) for kind, value in zip(types.split(" . "), values, strict=True)]
    first, last = (b"".join(field + bytes(-len(field) % 4) for field in side) for side in zip(*ends, strict=True))
    return first, last


def _interval(kind: str, value: str) -> tuple[bytes, bytes]:
    encode = _ENCODERS[kind]
    if kind.endswith("_addr") and "/" in value:
        address, _, prefix = value.partition("/")
        first = encode(address)
        free = (1 << (8 * len(first) - int(prefix))) - 1
        return first, (int.from_bytes(first, "big") | free).to_bytes(len(first), "big")
    if kind == "inet_service" and "-" in value:
        low, _, high = value.partition("-")
        return encode(low), encode(high)
    return encode(value), encode(value)


def _details(types: str, element: Element) -> list[bytes]:
    comment = element.comment.encode() + b"\0"
    parts = [attribute(NFTA_SET_ELEM_USERDATA, bytes([NFTNL_UDATA_SET_ELEM_COMMENT, len(comment)]) + comment)]
    if types == "verdict":
        code = attribute(NFTA_VERDICT_CODE, VERDICTS[element.data[0]].to_bytes(4, "big"))
        parts.append(nested(NFTA_SET_ELEM_DATA, nested(NFTA_DATA_VERDICT, code)))
    elif types:
        parts.append(nested(NFTA_SET_ELEM_DATA, attribute(NFTA_DATA_VALUE, pack(types, element.data)[0])))
    return parts


def _message(kind: int, flags: int, family: str, body: bytes, about: str = "") -> Message:
    return Message(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, bytes([FAMILIES[family], 0, 0, 0]) + body, about)


def _commit(messages: list[Message]) -> None:
    if not messages:
        return
    envelope = bytes([AF_UNSPEC, 0]) + NFNL_SUBSYS_NFTABLES.to_bytes(2, "big")
    begin, end = Message(NFNL_MSG_BATCH_BEGIN, 0, envelope), Message(NFNL_MSG_BATCH_END, 0, envelope)
    with netlink.shared(syscalls.NETLINK_NETFILTER) as socket:
        socket.transaction(begin, messages, end)


def _elements(reply: bytes) -> list[tuple[bytes, bytes, str]]:
    """The first and the last key and the comment of each element in a NFT_MSG_NEWSETELEM."""
    result = []
    for _, packed in attributes(dict(attributes(reply, 4)).get(NFTA_SET_ELEM_LIST_ELEMENTS, b"")):
        element = dict(attributes(packed))
        key = dict(attributes(element[NFTA_SET_ELEM_KEY]))[NFTA_DATA_VALUE]
        last = dict(attributes(element.get(NFTA_SET_ELEM_KEY_END, b""))).get(NFTA_DATA_VALUE, key)
        data = element.get(NFTA_SET_ELEM_USERDATA, b"")
        known = data[:1] == bytes([NFTNL_UDATA_SET_ELEM_COMMENT])
        result.append((key, last, data[2 : 1 + data[1]].decode(errors="replace") if known else ""))
    return result
