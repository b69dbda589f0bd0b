"""DNS messages as bytes (RFC 1035, EDNS of RFC 6891): just what a server and a forwarder need of them.

A name stays in the form of the wire, ``b"\\3web\\0"``, and in lower case serves as the key of a dictionary: the bytes
of a label's length are below 64 and no letters, so ``bytes.lower`` leaves them alone. Whatever comes from a network is
read with its bounds checked at each step, and every loop ends by the message's length.
"""

from __future__ import annotations

from _struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

A, PTR, AAAA, OPT, ANY = 1, 12, 28, 41, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
DO = 0x8000  # of the flags in OPT: the client understands DNSSEC
OPCODE, RCODE = 0x7800, 0x000F

HEADER = 12
PLAIN_SIZE = 512  # what every client takes by UDP
SAFE_SIZE = 1232  # what passes each path unfragmented (the flag day of 2020); we neither send nor ask for more by UDP
MAX_SIZE = 65535
_MOST_RECORDS = 16  # behind a client's question; more than OPT, TSIG and SIG(0) nobody sends

_header = Struct(">HHHHHH")  # id, flags, counts of questions, answers, authorities, additionals
_two = Struct(">HH")
_record = Struct(">HHIH")  # type, class, TTL, length of the data
_answer = Struct(">HHHIH")  # a pointer to the question's name, then as above


class Malformed(ValueError):
    """A message that is none."""


class Query:
    """A question that a client asked. ``error`` is an RCODE if it cannot be answered otherwise, else 0."""

    __slots__ = ("edns", "error", "flags", "id", "key", "kind", "klass", "limit", "question", "secure")

    def __init__(self, identity: int, flags: int) -> None:
        self.id, self.flags = identity, flags
        self.question = self.key = b""  # the question section as it came; its name in lower case
        self.kind = self.klass = self.error = 0
        self.edns = self.secure = False
        self.limit = PLAIN_SIZE  # the longest answer by UDP


def parse_query(data: bytes) -> Query:
    """A client's message. Raises Malformed for what must not be answered at all: a reply, or no header."""
    if len(data) < HEADER:
        raise Malformed("no header")
    identity, flags, questions, answers, authorities, additionals = _header.unpack_from(data)
    if flags & QR:
        raise Malformed("a reply")
    query = Query(identity, flags)
    if flags & OPCODE:
        query.error = NOTIMP
    elif questions != 1 or answers or authorities or additionals > _MOST_RECORDS:
        query.error = FORMERR
    else:
        try:
            _read_question(query, data, additionals)
        except Malformed:
            query.error = FORMERR
    return query


def _read_question(query: Query, data: bytes, additionals: int) -> None:
    end = skip_name(data, HEADER, pointers=False)
    if end + 4 > len(data):
        raise Malformed("cut off")
    query.kind, query.klass = _two.unpack_from(data, end)
    query.question, query.key = data[HEADER : end + 4], data[HEADER:end].lower()
    at = end + 4
    for _ in range(additionals):
        name = at
        at, kind, size, ttl = _skip_record(data, at)
        if kind == OPT:
            if query.edns or data[name]:  # a second one, or one with a name
                raise Malformed("OPT")
            query.edns, query.secure = True, bool(ttl & DO)
            query.limit = min(max(size, PLAIN_SIZE), SAFE_SIZE)
            if ttl >> 16 & 0xFF:
                query.error = BADVERS


def skip_name(data: bytes, at: int, pointers: bool = True) -> int:
    """Where the name at ``at`` ends. A pointer ends it, and is not followed: so there are no loops to fall into."""
    start = at
    while at < len(data):
        length = data[at]
        if length == 0:
            return at + 1
        if length >= 0xC0 and pointers:
            return at + 2
        if length > 63:
            break
        at += 1 + length
        if at - start > 254:  # with the last zero a name has 255 bytes at most (RFC 1035, 2.3.4)
            break
    raise Malformed("name")


def _skip_record(data: bytes, at: int) -> tuple[int, int, int, int]:
    """Where the record at ``at`` ends; its type, class and TTL."""
    at = skip_name(data, at)
    if at + 10 > len(data):
        raise Malformed("record")
    kind, klass, ttl, length = _record.unpack_from(data, at)
    if at + 10 + length > len(data):
        raise Malformed("record")
    return at + 10 + length, kind, klass, ttl


def pack_name(text: str) -> bytes | None:
    """A name as it is on the wire, in lower case; None if DNS cannot express it."""
    labels = text.lower().encode("ascii", "replace").split(b".")
    if not all(0 < len(label) < 64 for label in labels):
        return None
    packed = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    return packed if len(packed) <= 255 else None


def is_single(key: bytes) -> bool:
    """Whether a name has just one label."""
    return key != b"\0" and len(key) == key[0] + 2


def pack_query(identity: int, query: Query) -> bytes:
    """The client's question, asked anew of another server: with our id, and none of the client's options.

    Options are between neighbours (RFC 6891, 6.1.1); only the wish for DNSSEC is handed on.
    """
    opt = _opt(0, query.secure) if query.edns else b""
    flags = query.flags & (RD | AD | CD)
    return _header.pack(identity, flags, 1, 0, 0, 1 if opt else 0) + query.question + opt


def _opt(extended: int, secure: bool) -> bytes:
    return b"\0" + _record.pack(OPT, SAFE_SIZE, extended << 24 | (DO if secure else 0), 0)


def pack_answer(query: Query, code: int, records: Sequence[tuple[int, bytes]] = (), stream: bool = False) -> bytes:
    """Our own answer: (type, data) of each record; what does not fit by UDP is left out, and TC says so. TTL 0."""
    opt = _opt(code >> 4, query.secure) if query.edns else b""
    room = (MAX_SIZE if stream else query.limit) - HEADER - len(query.question) - len(opt)
    body, count, flags = [], 0, QR | RA | query.flags & (OPCODE | RD | CD) | code & RCODE
    flags |= AA if code in (NOERROR, NXDOMAIN) else 0
    for kind, data in records:
        room -= 12 + len(data)
        if room < 0:
            flags |= TC
            break
        body.append(_answer.pack(0xC000 | HEADER, kind, IN, 0, len(data)) + data)
        count += 1
    head = _header.pack(query.id, flags, 1 if query.question else 0, count, 0, 1 if opt else 0)
    return head + query.question + b"".join(body) + opt


def reply_code(data: bytes, identity: int, query: Query) -> int | None:
    """The RCODE of a server's reply to what ``pack_query`` asked; None if it is not one: another id, another question.

    An answer without the question, as some servers send with an error, is believed as an error only.
    """
    if len(data) < HEADER:
        return None
    found, flags, questions, answers, _, _ = _header.unpack_from(data)
    code: int = flags & RCODE
    if found != identity or not flags & QR or flags & OPCODE:
        return None
    if not questions and not answers and code:
        return code
    end = HEADER + len(query.question)
    asked = data[HEADER:end]
    if questions != 1 or asked[-4:] != query.question[-4:] or asked[:-4].lower() != query.key:
        return None
    return code


def is_truncated(data: bytes) -> bool:
    """Whether a message says that it does not say all."""
    return bool(_header.unpack_from(data)[1] & TC)


def hand_on(data: bytes, query: Query, stream: bool = False) -> bytes:
    """A server's reply as the client gets it: its id, its OPT, its size. Raises Malformed if it cannot be read."""
    _, flags, _, *counts = _header.unpack_from(data)
    at, last, extended = HEADER + len(query.question), None, 0
    for number in range(sum(counts)):
        begin = at
        at, kind, _, ttl = _skip_record(data, at)
        if kind == OPT:
            if number != sum(counts) - 1 or not counts[2]:  # an OPT elsewhere cannot be cut out
                raise Malformed("OPT is not the last of the additional records")
            extended, last = ttl >> 24, begin
    if last is not None:
        at, counts[2] = last, counts[2] - 1
    opt = _opt(extended, query.secure) if query.edns else b""
    flags = flags & ~(AA | RD | RA) | RA | query.flags & RD
    body = query.question + data[HEADER + len(query.question) : at]
    if HEADER + len(body) + len(opt) > (MAX_SIZE if stream else query.limit):
        flags, counts, body = flags | TC, [0, 0, 0], query.question
    counts[2] += 1 if opt else 0
    return _header.pack(query.id, flags, 1, *counts) + body + opt
