"""Two commands at once on one id: never a traceback, never a leak, and one winner where there can be only one."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile

import pytest

from tests.fakehost import TIMEOUT
from tests.lifecycle.machine import until
from tests.runtime.bundles import SLEEP, RuntimeHost, config, one_line

ROUNDS = int(os.environ.get("MINIRUN_TEST_ROUNDS", "1"))
EITHER, BOTH = {(True, False), (False, True)}, {(True, True)}
ANY = EITHER | BOTH
# Two commands, the state before them, and which of them may succeed.
PAIRS = {
    "create create": ("", EITHER),
    "create delete!": ("", BOTH | {(False, True)}),
    "start start": ("created", EITHER),
    "start delete": ("created", EITHER),
    "start delete!": ("created", ANY),
    "start kill": ("created", ANY),
    "delete delete": ("stopped", EITHER),
    "delete! delete!": ("running", BOTH),
    "exec delete!": ("running", ANY),
    "exec kill": ("running", ANY),
    "kill delete!": ("running", ANY),
    "kill kill": ("running", ANY),
    "update pause": ("running", BOTH),
    "pause delete!": ("running", ANY),
    "pause pause": ("running", EITHER),
    "update delete!": ("running", ANY),
    "state delete!": ("running", ANY),
    "list delete!": ("running", BOTH),
    "ps delete!": ("running", ANY),
    "events delete!": ("running", ANY),
}
WORDS = {
    "delete!": ["delete", "--force", "box"],
    "kill": ["kill", "box", "KILL"],
    "exec": ["exec", "box", "sleep", "0"],
    "update": ["update", "--pids-limit", "50", "box"],
    "events": ["events", "--stats", "box"],
    "list": ["list"],
}


def ready(box: RuntimeHost, state: str) -> None:
    if state:
        box.oci("create", "box")
    if state in ("running", "stopped"):
        box.oci("start", "box")
    if state == "stopped":
        box.ended()


class Command:
    """One of the two. What it says goes to a file: the container that it leaves behind would keep a pipe open."""

    def __init__(self, box: RuntimeHost, name: str, *words: str) -> None:
        self.name, self.said = name, tempfile.TemporaryFile("w+")
        self.process = box.spawn(
            *(words or WORDS.get(name, [name, "box"])), stdout=subprocess.DEVNULL, stderr=self.said
        )

    def succeeded(self) -> bool:
        """Whether it did; if not, it has said why in one line, unless its process was killed with the container."""
        code = self.process.wait(TIMEOUT)
        self.said.seek(0)
        text = self.said.read()
        self.said.close()
        if code == 0:
            assert text == ""
        elif not (self.name == "exec" and code == 137 and text == ""):
            assert text, f"{self.name} ended with {code} and without a word"
            one_line(text)
        return code == 0


@pytest.mark.parametrize("pair", PAIRS)
def test_two_at_once(box: RuntimeHost, pair: str) -> None:
    state, allowed = PAIRS[pair]
    for turn in range(2 * ROUNDS):
        ready(box, state)
        names = pair.split()[:: 1 if turn % 2 else -1]
        commands = [Command(box, name) for name in names]
        succeeded = [command.succeeded() for command in commands][:: 1 if turn % 2 else -1]
        assert tuple(succeeded) in allowed, pair
        box.oci("delete", "--force", "box")
        until(lambda: box.leftovers() == [], "nothing left")


def test_many_at_once_in_one_root(box: RuntimeHost) -> None:
    """Each create looks for what dead ones have left, and must leave alone what the living are making."""
    document = config("", SLEEP)
    del document["linux"]["cgroupsPath"]  # so each has its own
    box.path(f"{box.bundle}/config.json").write_text(json.dumps(document))
    for verb in ("create", "start", "delete!"):
        words = WORDS.get(verb, [verb, "box"])[:-1]
        commands = [Command(box, verb, *words, f"box{number}") for number in range(12)]
        assert all(command.succeeded() for command in commands)
    until(lambda: box.leftovers() == [], "nothing left")
