"""The OCI runtime's command line without containers: sizes, signals, ids, and whom a command line is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from minirun.cli import exec as engine_exec
from minirun.cli import main, oci, run, signals
from minirun.cli.arguments import Option, Values, parse
from minirun.cli.oci import execute, limits, settings, verb
from minirun.errors import UsageError

K, M, G = 1 << 10, 1 << 20, 1 << 30
SIZES = {
    "0": 0,
    "1024": 1024,
    "64k": 64 * K,
    "64K": 64 * K,
    "64kb": 64 * K,
    "64KiB": 64 * K,
    "64m": 64 * M,
    "64MB": 64 * M,
    "64 m": 64 * M,
    "1g": G,
    "1.5G": G + G // 2,
    "0.5k": 512,
    "2t": 2 << 40,
    "1p": 1 << 50,
    "-1": -1,
    "10b": 10,
    "10B": 10,
}
NO_SIZES = [
    "",
    "x",
    "k",
    "b",
    "-2",
    "-1k",
    "1.5.2m",
    "1.",
    ".5m",
    "1e9",
    "nan",
    "0x10",
    "1kk",
    "٣m",
    "9" * 30,
    "8589934592g",
    "1,5m",
]


def test_sizes_as_runc_reads_them() -> None:
    assert {text: limits.size(text) for text in SIZES} == SIZES


@pytest.mark.parametrize("text", NO_SIZES)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError):
        limits.size(text)


def test_signals() -> None:
    known = {"TERM": 15, "term": 15, "SIGTERM": 15, "SIGKILL": 9, "0": 0, "9": 9, "64": 64, "SIGRTMIN": 34}
    known |= {"RTMIN+1": 35, "SIGRTMIN+3": 37, "RTMAX": 64, "SIGRTMAX-2": 62, "CHLD": 17, "WINCH": 28}
    assert {text: signals.number(text, null=True) for text in known} == known
    for text in (
        "",
        "-9",
        "65",
        "NOSUCH",
        "SIG",
        "SIG_DFL",
        "RTMIN-1",
        "RTMAX+1",
        "RTMIN+",
        "RTMIN+99",
        "9 ",
        "٩",
        "1.0",
    ):
        with pytest.raises(UsageError):
            signals.number(text, null=True)
    with pytest.raises(UsageError):
        signals.number("0")


def test_ids() -> None:
    for good in ("a", "0", "A_b+c.d-e", ".x", "..x", "x" * 255):
        assert verb.check_id(good) == good
    for bad in ("", ".", "..", "a/b", "../x", "a b", "ü", "x" * 256, "a\n", "a\0", "$(id)", "*", "a:b", "@creating"):
        with pytest.raises(UsageError):
            verb.check_id(bad)


# a command line of `minirun`, and whether it is one for the OCI runtime
FOR_RUNTIME = {
    "create box": True,
    "start box": True,
    "state box": True,
    "delete -f box": True,
    "spec": True,
    "features": True,
    "--root /r create box": True,
    "--root=/r --log /l --log-format json state box": True,
    "--debug delete box": True,
    "--log /l exec -d box": True,
    "--log=/l kill box 9": True,
    "--systemd-cgroup run box": True,
    "--rootless auto ps box": True,
    "run --bundle /b box": True,
    "run -d -b /b box": True,
    "run --pid-file=/p box": True,
    "exec --process /p box": True,
    "exec --detach --console-socket /s box": True,
    "run --rm busybox ls --bundle": False,
    "run -d --name x busybox": False,
    "exec box ls --process": False,
    "kill box": False,
    "ps": False,
    "--root /r ps": False,
    "--debug run busybox": False,
    "oci create box": False,  # by its name already
    "--version": False,
    "": False,
}


@pytest.mark.parametrize("line", FOR_RUNTIME)
def test_whom_a_command_line_is_for(line: str) -> None:
    words = main.runtime_words(["/usr/bin/minirun", *line.split()])
    assert words == (line.split() if FOR_RUNTIME[line] else None)
    for name in ("/usr/bin/minirun-oci", "/x/minirun"):  # by its name; and as the fast front says it
        first = [] if name.endswith("-oci") else [main.RUNTIME_NAME]
        assert main.runtime_words([name, *first, *line.split()]) == line.split()


def test_the_lists_that_tell_them_apart_are_true() -> None:
    assert set(main.RUNTIME_VERBS) == set(oci.VERBS) - set(main.COMMANDS)
    names = {name for option in settings.OPTIONS for name in option.names}
    assert set(main.RUNTIME_GLOBALS) <= names
    engine = {name for option in [*run.OPTIONS, *engine_exec.OPTIONS] for name in option.names}
    runtime = {name for one in ("run", "exec") for option in oci.find(one).options for name in option.names}
    assert set(main.RUNTIME_OPTIONS) <= runtime - engine
    switches = {name for option in settings.FIRST if not option.value for name in option.names}
    assert set(main._SWITCHES) == switches


def _target(name: str) -> Values:
    return Values(**settings.DEFAULTS, **oci.values(oci.find(name)).__dict__)


# values that options take, by what their help calls them
EXAMPLES = {
    "DIR": "/d",
    "FILE": "/f",
    "SOCKET": "/s",
    "N": "3",
    "SIZE": "64m",
    "USEC": "5000",
    "LIST": "0-1",
    "TIME": "5s",
}
EXAMPLES |= {"FORMAT": "json", "LEVEL": "error", "WHEN": "auto", "UID[:GID]": "1:2", "GID": "7", "NAME": "CAP_KILL"}
EXAMPLES |= {"NAME=VALUE": "A=b", "LABEL": "l", "PROFILE": "p", "PATH": "/p", "MODE": "full"}


def _forms(option: Option) -> list[list[str]]:
    if not option.value:
        return [[name] for name in option.names] + [[f"{name}=true"] for name in option.names if name.startswith("--")]
    value = "systemd" if "--cgroup-manager" in option.names else EXAMPLES[option.value]
    forms = [[name, value] for name in option.names]
    return forms + [[f"{name}={value}"] for name in option.names]


@pytest.mark.parametrize("name", oci.VERBS)
def test_every_option_in_every_form(name: str) -> None:
    """As ``--option value`` and ``--option=value``, before the id; global ones as well."""
    one = oci.find(name)
    own = {word for option in one.options for word in option.names}
    general = [option for option in settings.OPTIONS if own.isdisjoint(option.names)]
    for option in [*general, *one.options]:
        if option.value == "TEXT":  # refused in any case
            continue
        seen = []
        for words in _forms(option):
            target = _target(name)
            before = repr(sorted(target.__dict__.items()))
            assert parse([*words, "box"], [*general, *one.options], target, operands_first=not one.program) == [
                "box"
            ], words
            seen.append(repr(sorted(target.__dict__.items())))
            ignored = option.help.startswith(("accepted", "ignored"))
            assert seen[-1] == seen[0] and (seen[-1] != before or ignored or words[-1].endswith("auto")), words


def overlaid(base: dict[str, Any], *words: str) -> dict[str, Any]:
    target = _target("exec")
    operands = parse(words, execute.OPTIONS, target, operands_first=False)
    return execute.overlay(base, target, operands)


BASE: dict[str, Any] = {"args": ["sh"], "cwd": "/", "env": ["A=1", "B=2"], "user": {"uid": 5, "gid": 6, "umask": 7}}


def test_exec_without_a_document_builds_on_the_containers_process() -> None:
    result = overlaid(BASE, "--cwd", "/tmp", "-e", "B=3", "-e", "C=4", "-g", "8", "-g=9", "--no-new-privs", "ls", "-l")
    assert result["args"] == ["ls", "-l"]
    assert result["env"] == ["A=1", "B=3", "C=4"]
    assert result["user"] == {"uid": 5, "gid": 6, "umask": 7, "additionalGids": [8, 9]}
    assert (result["cwd"], result["noNewPrivileges"], result["terminal"]) == ("/tmp", True, False)
    assert overlaid(BASE, "-u", "1", "ls")["user"]["gid"] == 6
    assert overlaid(BASE, "-u", "1:2", "ls")["user"] == {"uid": 1, "gid": 2, "umask": 7}
    assert overlaid(BASE, "-t", "ls")["terminal"] is True


def test_exec_gives_capabilities_but_never_inheritable_ones() -> None:
    held = {"bounding": ["CAP_KILL"], "inheritable": ["CAP_CHOWN"]}
    sets = overlaid({**BASE, "capabilities": held}, "-c", "net_raw", "--cap=CAP_KILL", "ls")["capabilities"]
    assert sets["bounding"] == ["CAP_KILL", "CAP_NET_RAW"] and sets["inheritable"] == ["CAP_CHOWN"]
    assert sets["effective"] == sets["permitted"] == sets["ambient"] == ["CAP_NET_RAW", "CAP_KILL"]


def test_nothing_is_kept_from_one_call_to_the_next() -> None:
    overlaid(BASE, "-e", "X=1", "-c", "KILL", "ls")
    assert overlaid(BASE, "ls") == {**BASE, "args": ["ls"], "terminal": False}


@pytest.mark.parametrize("name", ["integer", "natural"])
def test_numbers(name: str) -> None:
    convert: Callable[[str], int] = getattr(limits, name)
    assert [convert(text) for text in ("0", "7", "9223372036854775807")] == [0, 7, (1 << 63) - 1]
    for text in ("", "x", "1.0", "9223372036854775808", "+1", "1_0", "٣", "--1", "-", " 1"):
        with pytest.raises(ValueError):
            convert(text)
