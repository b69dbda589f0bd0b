"""A mistake of the name server's own costs the question at hand, and what it says of it tells nobody's questions."""

from __future__ import annotations

import os
import struct
from types import SimpleNamespace
from typing import Any

import pytest

from minirun.cli import nameserver
from minirun.network.nameserver import wire
from minirun.network.nameserver.loop import READ, Loop
from minirun.network.nameserver.upstream import Upstream
from tests.network import dns


def broken() -> None:
    raise KeyError("secret.example")


def test_a_mistake_is_told_without_what_was_asked(capsys: pytest.CaptureFixture[str]) -> None:
    loop = Loop(nameserver._report)
    reader, writer = os.pipe()
    loop.add(reader, READ, broken)
    os.write(writer, b"x")
    loop.turn(0)
    told = capsys.readouterr().err
    assert "in broken" in told and told.endswith("KeyError\n") and "KeyError: " not in told
    os.close(reader)
    os.close(writer)


def test_a_mistake_in_one_question_lets_the_others_have_their_time() -> None:
    reports: list[None] = []
    upstream, steps = Upstream(Loop(lambda: reports.append(None))), []
    forwards: list[Any] = [
        SimpleNamespace(over=False, step=broken),
        SimpleNamespace(over=False, step=lambda: steps.append(1)),
    ]
    for forward in forwards:
        upstream.remind(forward, upstream.loop.now)
    assert upstream.tick() is None
    assert (len(reports), steps) == (1, [1])


def test_a_question_that_cannot_be_begun_counts_for_nobody() -> None:
    upstream = Upstream(Loop(lambda: None))
    query = wire.parse_query(dns.question("example.org"))
    query.id = 1 << 16  # cannot be packed
    with pytest.raises(struct.error):
        upstream.ask(query, ["192.0.2.1"], ("br0", "web"), False, lambda _: None)
    assert (upstream.count, upstream.counts) == (0, {})
