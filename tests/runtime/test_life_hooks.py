"""Hooks (runtime-spec, config.md): when each kind runs, what it is told, and what a failure of it does."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from tests.fakehost import TIMEOUT
from tests.lifecycle.machine import until
from tests.runtime.bundles import OCI, SLEEP, RuntimeHost, config

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
AT_CREATE = KINDS[:3]
NOTES = "/run/notes"
TELL = f"""printf '%s %s\\n' "$0" "$(cat)" >>{NOTES}"""  # its first argument, and what it reads


def sh(script: str, *args: str, **members: Any) -> dict[str, Any]:
    """A hook that runs a shell script; outside and, but for its path, inside."""
    return {"path": "/bin/sh", "args": ["sh", "-c", script, *args], **members}


@pytest.fixture
def noting(box: RuntimeHost) -> RuntimeHost:
    """The host, with an empty file where hooks can write that the container sees, too."""
    box.path(NOTES).write_text("")
    return box


def configure(box: RuntimeHost, hooks: dict[str, Any], args: list[str] = SLEEP) -> None:
    shared = {"destination": NOTES, "type": "bind", "source": NOTES, "options": ["bind"]}
    box.configure(args, {"hooks": hooks, "mounts": [*config("", args)["mounts"], shared]})


def notes(box: RuntimeHost) -> list[str]:
    return box.path(NOTES).read_text().splitlines()


def test_their_order_and_what_they_are_told(noting: RuntimeHost) -> None:
    """All kinds, two of each: the state on standard input, as it is then, and exactly their own words."""
    hooks = {kind: [sh(TELL, f"{kind}-{number}") for number in (1, 2)] for kind in KINDS}
    configure(noting, hooks)
    noting.oci("create", "box")
    pid = noting.told()["pid"]
    noting.oci("start", "box")
    noting.ended()
    noting.oci("delete", "box")
    lines = notes(noting)
    assert [line.split()[0] for line in lines] == [f"{kind}-{number}" for kind in KINDS for number in (1, 2)]
    states = {line.split()[0]: json.loads(line.partition(" ")[2]) for line in lines}
    assert {name: state["status"] for name, state in states.items() if name.endswith("-2")} == {
        "prestart-2": "creating",
        "createRuntime-2": "creating",
        "createContainer-2": "creating",
        "startContainer-2": "created",
        "poststart-2": "running",
        "poststop-2": "stopped",
    }
    inside = {"createContainer-2": 1, "startContainer-2": 1, "poststop-2": 0}
    for name, state in states.items():
        assert state["id"] == "box"
        assert state["bundle"] == noting.bundle
        assert state["annotations"] == {"org.example.text": 'a "b" \\ ü'}
        assert state["ociVersion"]
        assert state["pid"] == inside.get(name.replace("-1", "-2"), pid), name


def test_their_words_and_environment_are_exactly_theirs(noting: RuntimeHost) -> None:
    env = ["A=1", "B=x y", "EMPTY="]
    look = (
        f"for file in environ cmdline; do /bin/busybox tr '\\0' '|' </proc/self/$file; done >>{NOTES}; echo >>{NOTES}"
    )
    hook = {"path": "/bin/busybox", "args": ["sh", "-c", look, "", "a b", "é"], "env": env}
    bare = {"path": "/bin/busybox", "args": ["sh", "-c", look], "env": []}
    configure(noting, {kind: [hook, bare] for kind in KINDS})
    noting.environment["SECRET"] = "1"
    try:
        noting.oci("create", "box")
        noting.oci("start", "box")
        noting.oci("delete", "--force", "box")
    finally:
        del noting.environment["SECRET"]
    ours = [line for line in notes(noting) if line.startswith("A=1|")]
    assert len(ours) == 6
    assert {line.split("|sh|")[0] for line in ours} == {"|".join(env)}
    assert all(line.endswith("||a b|é|") for line in ours)
    assert len(notes(noting)) == 12
    assert not [line for line in notes(noting) if "SECRET" in line or "PATH" in line]


FAILURES = {
    "exit": (sh("echo 'so: it is' >&2; echo more >&2; exit 3"), "exit code 3: so: it is"),
    "signal": (sh("kill -9 $$"), "signal 9, killed"),
    "missing": ({"path": "/no/such"}, "no such file or directory"),
    "not executable": ({"path": "/dev"}, "permission denied"),
    "time": (sh("echo begun >&2; exec sleep 1000", timeout=1), "did not end within 1 s"),
}


@pytest.mark.parametrize(
    ("kind", "failure"),
    [("prestart", "exit"), *[(kind, failure) for kind in AT_CREATE[1:] for failure in FAILURES]],
)
def test_a_failure_at_create_undoes_it(noting: RuntimeHost, kind: str, failure: str) -> None:
    """The first that fails is the last that runs, but for those for the end; nothing is left."""
    hook, why = FAILURES[failure]
    note = [sh(TELL, name) for name in KINDS]
    hooks = {name: [hook] for name, hook in zip(KINDS, note, strict=True)}
    hooks[kind] = [hooks[kind][0], hook, sh(f"echo never >>{NOTES}")]
    configure(noting, hooks)
    said = noting.refused("create", "box")
    assert f"hooks.{kind}[1]: error running {kind} hook #1: {hook['path']}: " in said
    assert said.lower().endswith(f"{why}\n")
    assert noting.leftovers() == []
    lines = notes(noting)
    assert [line.split()[0] for line in lines] == [*AT_CREATE[: AT_CREATE.index(kind) + 1], "poststop"]
    state = json.loads(lines[-1].partition(" ")[2])
    assert (state["id"], state["status"], state["pid"]) == ("box", "stopped", 0)


@pytest.mark.parametrize(
    ("kind", "failure"), [*[("startContainer", failure) for failure in FAILURES], ("poststart", "exit")]
)
def test_a_failure_at_start_stops_the_container(noting: RuntimeHost, kind: str, failure: str) -> None:
    hook, why = FAILURES[failure]
    configure(
        noting,
        {kind: [sh("true"), hook], "poststop": [sh(f"echo end >>{NOTES}")]},
        ["sh", "-c", f"echo ran >>{NOTES}; sleep 1000"],
    )
    noting.oci("create", "box")
    said = noting.refused("start", "box")
    assert f"hooks.{kind}[1]: error running {kind} hook #1: {hook['path']}: " in said
    assert said.lower().endswith(f"{why}\n")
    until(lambda: noting.told()["status"] == "stopped", "stopped")
    assert "ran" not in notes(noting) or kind == "poststart"
    noting.oci("delete", "box")
    assert notes(noting)[-1] == "end"
    noting.path(NOTES).write_text("")
    assert f"hooks.{kind}" in noting.refused("run", "box")
    assert notes(noting)[-1] == "end"


def test_a_failure_at_the_end_is_told_and_the_removal_goes_on(noting: RuntimeHost) -> None:
    configure(noting, {"poststop": [sh("echo bad >&2; exit 1"), sh("true")]}, ["true"])
    noting.oci("create", "box")
    done = noting.call(OCI, "delete", "box")
    assert done.returncode == 0
    assert "hooks.poststop[0]" in done.stderr
    assert noting.leftovers() == []


def test_much_to_read_and_to_say_hangs_nothing(noting: RuntimeHost) -> None:
    """A state that no pipe holds and that nobody reads; a megabyte of complaint; a process that stays behind."""
    chatty = sh(
        "head -c 1000000 /dev/zero | tr '\\0' x >&2; sleep 1000 </dev/null >&2 & echo $! >>/run/notes; exit 1",
        timeout=30,
    )
    for kind in ("createRuntime", "createContainer"):
        configure(noting, {kind: [sh("true"), chatty]})
        document = json.loads(noting.path(f"{noting.bundle}/config.json").read_text())
        document["annotations"] = {"long": "x" * 200_000}
        noting.path(f"{noting.bundle}/config.json").write_text(json.dumps(document))
        said = noting.refused("create", "box")
        assert "exit code 1: xxx" in said
        assert len(said) < 1000
    for pid in map(int, notes(noting)):
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: pid not in noting.processes(), "the end of what stayed behind")


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "poststart", "poststop"])
def test_they_may_ask_for_the_state(noting: RuntimeHost, kind: str) -> None:
    """While they run, the command that runs them holds the container; `state` is answered all the same."""
    configure(noting, {kind: [sh(f"{OCI} state box >>{NOTES} 2>&1; {OCI} list -q >>{NOTES}")]})
    noting.oci("create", "box")
    noting.oci("start", "box")
    noting.oci("delete", "--force", "box")
    lines = notes(noting)
    if kind == "poststop":
        assert "does not exist" in lines[0]
        return
    state = json.loads(lines[0])
    assert state["status"] == ("running" if kind == "poststart" else "creating")
    assert state["pid"] > 1
    assert lines[1] == "box"


@pytest.mark.parametrize("verb", ["kill box KILL", "delete --force box"])
@pytest.mark.parametrize("kind", ["createRuntime", "poststart"])
def test_they_may_end_their_own_container(noting: RuntimeHost, kind: str, verb: str) -> None:
    configure(
        noting,
        {kind: [sh(f"{OCI} {verb}; sleep 1000" if kind == "createRuntime" else f"{OCI} {verb}", timeout=TIMEOUT)]},
    )
    if kind == "poststart":
        noting.oci("create", "box")
        noting.oci("start", "box")
    else:
        noting.refused("create", "box")
        assert noting.leftovers() == []
    noting.oci("delete", "--force", "box")


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "startContainer"])
def test_force_gets_through_one_that_hangs(noting: RuntimeHost, kind: str) -> None:
    """Without a timeout it would hold the lock for ever."""
    configure(noting, {kind: [sh(f"echo here >>{NOTES}; exec sleep 1000")]})
    if kind == "startContainer":
        noting.oci("create", "box")
    command = noting.spawn("start" if kind == "startContainer" else "create", "box")
    until(lambda: notes(noting), "the hook")
    noting.oci("delete", "--force", "box")
    assert command.wait(TIMEOUT) == 1 or kind == "startContainer"  # there the program could have come and gone
    command.communicate()
    assert noting.leftovers() == []
