"""The reference against the code: every command, option, op, message and file name that exists is described."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from minirun.cli import main, run
from minirun.cli.arguments import Option, Values, parse
from minirun.errors import UsageError
from tests.docs.documents import REPOSITORY, commands, name, pages

REFERENCE = REPOSITORY / "docs/reference"


def help_text(command: str) -> str:
    """What ``minirun COMMAND --help`` prints."""
    module, function, _ = main.COMMANDS[command]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        getattr(importlib.import_module(f"minirun.cli.{module}"), function)(["--help"])
    return output.getvalue()


def options_of(text: str) -> set[str]:
    """The options that a help text lists, at the beginning of its lines."""
    lists = re.findall(r"^  (-{1,2}\w[^\n]*?)(?:  |$)", text, re.MULTILINE)
    return {option for line in lists for option in re.findall(r"(?:^|, )(-{1,2}\w[\w-]*)", line)}


def section(command: str) -> str:
    """The part of cli.md that is about a command."""
    text = (REFERENCE / "cli.md").read_text()
    assert f"\n## {command}\n" in text, f"cli.md has no section {command}"
    return text.split(f"\n## {command}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("command", main.COMMANDS)
def test_every_option_in_the_help_is_in_the_reference(command: str) -> None:
    part = section(command)
    if command == "version":
        return
    listed = options_of(help_text(command))
    assert {option for option in listed if f"`{option}`" not in part} == set()
    in_the_table = set(re.findall(r"`(-{1,2}\w[\w-]*)`", "".join(re.findall(r"^\| (`-.*?) \|", part, re.MULTILINE))))
    assert in_the_table <= listed, "the reference has options that do not exist"


def test_every_global_option_is_in_the_reference() -> None:
    text = (REFERENCE / "cli.md").read_text().split("## Exit codes")[0]
    assert {option for option in options_of(main.usage()) if f"`{option}" not in text} == set()


def test_every_op_of_init_is_in_the_reference_with_its_words() -> None:
    table = dict(re.findall(r"^\| `([\w-]+)` \| ([^|]*)\|", (REFERENCE / "init.md").read_text(), re.MULTILINE))
    source = "".join(path.read_text() for path in sorted(REPOSITORY.glob("csrc/*.c")))
    ops = re.findall(r'\{"([\w-]+)", (\d+), op_\w+\}', source)
    assert len(ops) > 40
    assert {op: len(table[op].split()) for op, _ in ops if op in table} == {op: int(count) for op, count in ops}


def test_every_option_and_message_of_the_monitor_is_in_the_reference() -> None:
    text = (REFERENCE / "monitor.md").read_text()
    source = (REPOSITORY / "csrc/monitor.c").read_text()
    options = set(re.findall(r'"(--[a-z-]+)"', source))
    assert {option for option in options if f"`{option}" not in text} == set()
    messages = re.findall(r"^\tMR_\w+", (REPOSITORY / "csrc/minirun.h").read_text(), re.MULTILINE)
    expected = [f"| {number} | `{message.strip()}` |" for number, message in enumerate(messages, 1)]
    assert [row for row in expected if row not in text] == []


def test_every_set_and_chain_of_the_firewall_is_in_the_reference() -> None:
    rules = (REPOSITORY / "minirun/network/ruleset.nft").read_text()
    names = re.findall(r"^\t(?:set|map|chain) (\w+)", rules, re.MULTILINE)
    text = (REFERENCE / "network.md").read_text()
    assert {one for one in names if f"`{one}`" not in text} == set()


def test_the_defaults_are_those_of_the_code() -> None:
    from minirun.linux.security import DEFAULT_CAPABILITIES
    from minirun.oci import defaults

    text = (REFERENCE / "defaults.md").read_text()
    row = re.search(r"^\| capabilities \| ([A-Z_ ]+), for root", text, re.MULTILINE)
    assert row and set(row[1].split()) == {one.removeprefix("CAP_") for one in DEFAULT_CAPABILITIES}
    masked = re.search(r"^\| masked paths \| `([^`]+)`", text, re.MULTILINE)
    assert masked and tuple(masked[1].split()) == defaults.MASKED_PATHS
    readonly = re.search(r"^\| read-only paths \| `([^`]+)`", text, re.MULTILINE)
    assert readonly and tuple(readonly[1].split()) == defaults.READONLY_PATHS
    assert f"| processes | {defaults.PIDS_LIMIT} |" in text


class _Any(Values):
    """A target that takes whatever an option sets."""

    def __getattr__(self, name: str) -> Any:
        return {} if name in ("env", "labels", "net_flags") else []


def _options(words: Sequence[str]) -> tuple[str, list[Option]] | None:
    """What a command line of the documentation has to fit: the usage, and the options where they are a table."""
    command = words[0]
    module = importlib.import_module(f"minirun.cli.{main.COMMANDS[command][0]}")
    if command == "explain":
        return None if words[1:2] != ["run"] else ("run", run.OPTIONS)
    table = {"ps": "PS_OPTIONS"}.get(command, "OPTIONS")
    return (command, getattr(module, table)) if hasattr(module, table) else None


@pytest.mark.parametrize("page", pages(), ids=name)
def test_commands_in_the_documentation_exist(page: Path) -> None:
    wrong = []
    for words in commands(page):
        while words and words[0].startswith("--"):  # global options
            words = words[1 if "=" in words[0] or words[0] == "--debug" else 2 :]
        if not words or not re.fullmatch(r"[a-z]+", words[0]):
            continue
        if words[0] in main.RUNTIME_VERBS:  # oci.md, and tests/docs/test_oci_reference.py
            continue
        if words[0] not in main.COMMANDS and words[0] not in main._HIDDEN:
            wrong.append(f"minirun {' '.join(words)}: no such command")
            continue
        fitting = _options(words) if words[0] in main.COMMANDS else None
        if fitting is None or "--help" in words:
            continue
        arguments = words[2:] if words[0] == "explain" else words[1:]
        try:
            parse(arguments, fitting[1], _Any(), operands_first=fitting[0] not in ("run", "exec"))
        except UsageError as error:
            if "needs a value" not in str(error):  # `minirun run -p` in a sentence
                wrong.append(f"minirun {' '.join(words)}: {error}")
    assert not wrong


def test_every_make_target_in_the_documentation_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    used = {target for page in pages() for target in re.findall(r"`?\bmake ([a-z][a-z-]+)`", page.read_text())}
    assert used <= targets
    assert shutil.which("make"), "make runs these tests, and everything else"
