"""DNS messages, read and written; and whatever else may come instead of one."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirun.network.nameserver import wire
from tests.network import dns

A_RECORD = (wire.A, bytes([10, 0, 0, 1]))


def parsed(*arguments: object, **options: object) -> wire.Query:
    return wire.parse_query(dns.question(*arguments, **options))  # type: ignore[arg-type]


def test_a_question_is_read() -> None:
    query = parsed("Web.EXAMPLE", "AAAA", 7, edns=4096, do=True)
    assert (query.id, query.key, query.kind, query.klass, query.error) == (7, b"\3web\7example\0", wire.AAAA, 1, 0)
    assert (query.edns, query.secure, query.limit) == (True, True, wire.SAFE_SIZE)
    assert parsed("web").limit == parsed("web", edns=100).limit == 512
    assert parsed("web", edns=900).limit == 900


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (dns.question("web")[:-1], wire.FORMERR),
        (struct.pack(">HHHHHH", 1, 0, 0, 0, 0, 0), wire.FORMERR),
        (struct.pack(">HHHHHH", 1, 0, 2, 0, 0, 0) + dns.question("web")[12:] * 2, wire.FORMERR),
        (struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 9999) + dns.question("web")[12:], wire.FORMERR),
        (struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1", wire.FORMERR),  # the name is itself
        (struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\x40" + b"a" * 64 + b"\0\0\1\0\1", wire.FORMERR),
        (struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\1a" * 128 + b"\0\0\1\0\1", wire.FORMERR),
        (dns.question("web", edns=512) + dns.question("web", edns=512)[-11:], 0),  # not counted, so not there
        (dns.question("web", flags=0x2800), wire.NOTIMP),  # opcode UPDATE
    ],
)
def test_a_question_that_is_none(data: bytes, code: int) -> None:
    query = wire.parse_query(data)
    assert query.error == code
    if code:
        assert dns.Reply(wire.pack_answer(query, code)).code == code


def test_an_unknown_version_of_edns() -> None:
    data = bytearray(dns.question("web", edns=512))
    data[-5] = 1
    query = wire.parse_query(bytes(data))
    assert query.error == wire.BADVERS
    reply = dns.Reply(wire.pack_answer(query, query.error))
    assert (reply.code, reply.edns) == (16, wire.SAFE_SIZE)


@pytest.mark.parametrize("data", [b"", b"\0" * 11, dns.question("web", flags=0x8180)])
def test_what_is_never_answered(data: bytes) -> None:
    with pytest.raises(wire.Malformed):
        wire.parse_query(data)


def test_an_answer_repeats_the_question_as_it_was_written() -> None:
    reply = dns.Reply(wire.pack_answer(parsed("wEb", number=9), wire.NOERROR, [A_RECORD]))
    assert (reply.id, reply.question, reply.answers, reply.edns) == (9, "wEb", [("wEb", 1, "10.0.0.1")], 0)
    assert reply.flags & 0x8580 == 0x8580  # QR, AA, RD, RA
    assert dns.Reply(wire.pack_answer(parsed("web", edns=4096, do=True), wire.NXDOMAIN)).edns == wire.SAFE_SIZE


def test_what_does_not_fit_is_left_out_and_said() -> None:
    records = [A_RECORD] * 200
    for query, most in ((parsed("web"), 512), (parsed("web", edns=4096), wire.SAFE_SIZE)):
        data = wire.pack_answer(query, wire.NOERROR, records)
        reply = dns.Reply(data)
        assert reply.truncated and most - 16 < len(data) <= most and 0 < len(reply.answers) < 200
        whole = dns.Reply(wire.pack_answer(query, wire.NOERROR, records, stream=True))
        assert len(whole.answers) == 200 and not whole.truncated


def test_a_question_goes_on_without_the_clients_options() -> None:
    data = dns.question("example.org", "MX", edns=4096, do=True, flags=0x0130)
    cookie = struct.pack(">HH", 10, 8) + b"12345678"
    with_option = data[:-2] + struct.pack(">H", len(cookie)) + cookie
    query = wire.parse_query(with_option)
    again = wire.parse_query(wire.pack_query(77, query))
    assert (again.id, again.question, again.edns, again.secure, query.error) == (77, query.question, True, True, 0)
    assert again.flags == 0x0130
    assert b"12345678" not in wire.pack_query(77, query)
    assert len(wire.pack_query(1, parsed("a.example"))) == len(dns.question("a.example"))


def test_a_reply_must_be_the_reply() -> None:
    query = parsed("Example.org")
    asked = wire.pack_query(77, query)
    good = dns.answer(asked, [A_RECORD_TEXT])
    assert wire.reply_code(good, 77, query) == wire.NOERROR
    assert wire.reply_code(good, 78, query) is None
    assert wire.reply_code(asked, 77, query) is None  # a question
    assert wire.reply_code(good.replace(b"Example", b"eXAMPLE"), 77, query) == wire.NOERROR
    assert wire.reply_code(good.replace(b"Example", b"Examqle"), 77, query) is None
    assert wire.reply_code(dns.answer(dns.question("example.org", "AAAA", 77), []), 77, query) is None
    assert wire.reply_code(struct.pack(">HHHHHH", 77, 0x8182, 0, 0, 0, 0), 77, query) == wire.SERVFAIL
    assert wire.reply_code(struct.pack(">HHHHHH", 77, 0x8180, 0, 0, 0, 0), 77, query) is None


A_RECORD_TEXT = ("A", bytes([192, 0, 2, 1]))


def test_a_reply_is_handed_on_as_the_client_can_take_it() -> None:
    plain, modern = parsed("Example.org", number=5), parsed("Example.org", number=6, edns=4096, do=True)
    for query, edns in ((plain, 0), (modern, wire.SAFE_SIZE)):
        for opt in (0, 4096):  # whether the server sent one
            reply = dns.answer(dns.question("example.org", number=77, edns=opt), [A_RECORD_TEXT])
            given_on = dns.Reply(wire.hand_on(reply, query))
            assert (given_on.id, given_on.question, given_on.values) == (query.id, "Example.org", ["192.0.2.1"])
            assert given_on.edns == edns
    long = dns.answer(dns.question("example.org", number=77), [A_RECORD_TEXT] * 100)
    cut = dns.Reply(wire.hand_on(long, modern))
    assert cut.truncated and not cut.answers and cut.edns
    assert len(dns.Reply(wire.hand_on(long, modern, stream=True)).answers) == 100


def test_names() -> None:
    assert wire.pack_name("Web.my_net") == b"\3web\6my_net\0"
    for bad in ("", "a..b", ".", "x" * 64, ".".join(["x" * 63] * 4)):
        assert wire.pack_name(bad) is None
    assert wire.is_single(b"\3web\0") and not wire.is_single(b"\3web\1a\0") and not wire.is_single(b"\0")


def check_any(data: bytes) -> None:
    """Whatever comes, from a client or a server: an answer that can be read, or Malformed."""
    try:
        query = wire.parse_query(data)
    except wire.Malformed:
        pass
    else:
        answer = wire.pack_answer(query, query.error, [] if query.error else [A_RECORD] * 3)
        if query.question.isascii() and b"\0" not in query.key[:-1]:
            assert dns.Reply(answer).code == query.error
        assert len(answer) <= 1232
    asked = parsed("example.org", edns=4096)
    if wire.reply_code(data, int.from_bytes(data[:2], "big"), asked) is not None and data[4:6] == b"\0\1":
        try:
            assert len(wire.hand_on(data, asked)) <= 1232
        except wire.Malformed:
            pass


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes(data: bytes) -> None:
    check_any(data)
    check_any(struct.pack(">HHHHHH", 1, 0x0100, 1, 0, 0, 1) + data)
    check_any(dns.answer(dns.question("example.org", number=77, edns=4096), [A_RECORD_TEXT])[:40] + data)


RECORDS = st.lists(
    st.sampled_from((b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\n\0\0\1", b"\0\0\x29\4\xd0\1\0\0\0\0\0")), max_size=3
)


@settings(max_examples=300, deadline=None)
@given(RECORDS, RECORDS, RECORDS, st.tuples(*[st.integers(-1, 1)] * 3))
def test_any_sections_of_a_reply(answers: list[bytes], rest: list[bytes], last: list[bytes], off: tuple[int]) -> None:
    """Records of both kinds in each section, and counts that may be wrong."""
    sections, asked = (answers, rest, last), parsed("example.org", edns=4096)
    counts = [max(0, len(section) + more) for section, more in zip(sections, off, strict=True)]
    head = struct.pack(">HHHHHH", 77, 0x8180, 1, *counts)
    data = head + asked.question + b"".join(b"".join(section) for section in sections)
    assert wire.reply_code(data, 77, asked) == wire.NOERROR
    try:
        given_on = wire.hand_on(data, asked)
    except wire.Malformed:
        return
    if not any(off):
        assert dns.Reply(given_on).edns == wire.SAFE_SIZE
        assert not [1 for section in (answers, rest) for record in section if record[:1] == b"\0"]


def test_any_change_of_real_messages() -> None:
    chance = random.Random(1)
    base = [
        dns.question("web.example", edns=1232),
        dns.answer(dns.question("example.org", edns=4096), [A_RECORD_TEXT] * 5),
        dns.answer(dns.question("example.org"), [("PTR", b"\xc0\x0c"), ("A", b"\xc0\xff\xee\0")]),
    ]
    for _ in range(20000):
        data = bytearray(chance.choice(base))
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(data))
            data[at : at + chance.randrange(0, 3)] = chance.randbytes(chance.randrange(0, 3))
            if not data:
                break
        check_any(bytes(data))
