"""docs/reference/oci.md against the tables of the OCI command line, and the C front against Python's words."""

from __future__ import annotations

import re

import pytest

from minirun.cli import main, oci
from minirun.cli.oci import settings
from minirun.cli.oci.verb import Verb
from minirun.oci import defaults
from tests.docs.documents import REPOSITORY

PAGE = (REPOSITORY / "docs/reference/oci.md").read_text()
FRONT = (REPOSITORY / "csrc/oci.c").read_text()


def rows(part: str) -> dict[str, str]:
    """The options of a table: their names and value as they are written, and their text."""
    return dict(re.findall(r"^\| (`-[^|]+) \| ([^|]+) \|$", part, re.MULTILINE))


def expected(verb: Verb) -> dict[str, str]:
    return {
        ", ".join(f"`{name}`" for name in one.names) + (f" `{one.value}`" if one.value else ""): one.help
        for one in verb.options
    }


def test_there_is_a_section_for_every_verb_and_no_other() -> None:
    sections = re.findall(r"^## ([a-z]+)$", PAGE, re.MULTILINE)
    assert sections == list(oci.VERBS)


@pytest.mark.parametrize("name", oci.VERBS)
def test_the_options_of_a_verb(name: str) -> None:
    part = PAGE.split(f"\n## {name}\n")[1].split("\n## ")[0]
    verb = oci.find(name)
    assert f"```\n{f'minirun-oci {name} {verb.usage}'.strip()}\n```" in part
    assert rows(part) == expected(verb)


def test_the_global_options() -> None:
    part = PAGE.split("\n## Options\n")[1].split("\n## ")[0]
    assert rows(part) == expected(Verb("", settings.FIRST, lambda target, operands: 0))


def test_what_tells_the_runtime_from_the_engine() -> None:
    part = PAGE.split("or\n\n- ")[1].split("So `minirun")[0]
    for names, item in zip(
        (main.RUNTIME_VERBS, main.RUNTIME_GLOBALS, main.RUNTIME_OPTIONS), part.split("\n- "), strict=True
    ):
        assert set(re.findall(r"`([\w-]+)`", item)) - {"run", "exec"} == set(names)


def test_the_front_knows_what_python_knows() -> None:
    assert f'#define OCI_VERSION "{defaults.VERSION}"' in FRONT
    known = dict(re.findall(r'{"(--[a-z-]+)", (?:"([^"]*)"|NULL)}', FRONT))
    options = {name: one for one in settings.OPTIONS for name in one.names}
    for name, values in known.items():
        for value in values.split():
            options[name].apply(oci.values(oci.find("state")), value)  # raises what Python refuses
