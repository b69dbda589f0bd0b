"""A small DNS client and server of the tests' own, with nothing of minirun's in them: both sides must not err alike."""

from __future__ import annotations

import struct

TYPES = {"A": 1, "NS": 2, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "OPT": 41, "ANY": 255}
CODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 16: "BADVERS"}


def name(text: str) -> bytes:
    """A name on the wire, as it is written."""
    labels = [label.encode() for label in text.rstrip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def reverse(address: str) -> str:
    """The name whose PTR record tells an address's name."""
    import ipaddress

    return ipaddress.ip_address(address).reverse_pointer


def question(
    what: str,
    kind: str = "A",
    number: int = 0x1234,
    edns: int = 0,
    do: bool = False,
    flags: int = 0x0100,
    klass: int = 1,
) -> bytes:
    """A query; with ``edns`` an OPT record of that payload size."""
    opt = b"\0" + struct.pack(">HHIH", 41, edns, 0x8000 if do else 0, 0) if edns else b""
    head = struct.pack(">HHHHHH", number, flags, 1, 0, 0, 1 if edns else 0)
    return head + name(what) + struct.pack(">HH", TYPES[kind], klass) + opt


def question_name(query: bytes) -> str:
    """The name that a query asks for."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    return ".".join(labels)


class Reply:
    """A message, read strictly: whatever is wrong with it raises."""

    def __init__(self, data: bytes) -> None:
        self.data, self.edns = data, 0
        self.id, self.flags, *counts = struct.unpack_from(">HHHHHH", data)
        self.code, self.truncated = self.flags & 15, bool(self.flags & 0x0200)
        at, self.question = 12, ""
        for _ in range(counts[0]):
            self.question, at = self._name(at)
            at += 4
        sections: list[list[tuple[str, int, str]]] = []
        for count in counts[1:]:
            section = []
            for _ in range(count):
                owner, at = self._name(at)
                kind, klass, ttl, length = struct.unpack_from(">HHIH", data, at)
                at += 10
                if kind == 41:
                    self.edns, self.code, self.do = klass, self.code | ttl >> 24 << 4, bool(ttl & 0x8000)
                else:
                    section.append((owner, kind, self._data(kind, at, length)))
                at += length
            sections.append(section)
        assert at == len(data), "something behind the end"
        self.answers = sections[0]

    @property
    def values(self) -> list[str]:
        """The data of the answers, sorted."""
        return sorted(value for _, _, value in self.answers)

    def __repr__(self) -> str:
        return f"{CODES.get(self.code, self.code)} {' '.join(value for _, _, value in self.answers)}".strip()

    def _data(self, kind: int, at: int, length: int) -> str:
        import ipaddress

        if kind in (1, 28):
            return str(ipaddress.ip_address(self.data[at : at + length]))
        return self._name(at)[0] if kind in (2, 12) else self.data[at : at + length].hex()

    def _name(self, at: int) -> tuple[str, int]:
        labels: list[str] = []
        end = 0
        while length := self.data[at]:
            if length >= 0xC0:
                end = end or at + 2
                target = struct.unpack_from(">H", self.data, at)[0] & 0x3FFF
                assert target < at
                at = target
            else:
                labels.append(self.data[at + 1 : at + 1 + length].decode())
                at += 1 + length
        return ".".join(labels), end or at + 1


def answer(
    query: bytes, records: list[tuple[str, bytes]], code: int = 0, flags: int = 0, number: int | None = None
) -> bytes:
    """A server's answer to a query: (type, data) of each record. The query's OPT comes back, if it had one."""
    end = 12
    while query[end]:
        end += 1 + query[end]
    asked, opt = query[12 : end + 5], query[end + 5 :]
    identity = struct.unpack_from(">H", query)[0] if number is None else number
    body = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", TYPES[kind], 1, 60, len(data)) + data for kind, data in records)
    return (
        struct.pack(">HHHHHH", identity, 0x8180 | flags | code, 1, len(records), 0, 1 if opt else 0)
        + asked
        + body
        + opt
    )
