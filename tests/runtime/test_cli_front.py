"""The fast front of the OCI runtime (csrc/oci.c): it answers the plain cases by itself, and as Python would.

``alone`` is the front with another program beside it, which only says that it was asked.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from tests.runtime.bundles import LAUNCHER, OCI, SLEEP, TRUE, RuntimeHost, changed, config, ended

ASKED = 99


@pytest.fixture(scope="module")
def alone(machine: RuntimeHost) -> str:
    """The front, with a stranger beside it."""
    folder = machine.path("/run/alone")
    folder.mkdir()
    shutil.copy(OCI, folder / "minirun-oci")
    script = folder / "minirun"
    script.write_text(f'#!/bin/sh\nshift\necho "asked: $*"\nexit {ASKED}\n')
    script.chmod(0o755)
    return "/run/alone/minirun-oci"


def _said(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


def by_python(box: RuntimeHost, *words: str) -> tuple[int, str, str]:
    """What Python answers, called as the front calls it."""
    return _said(box.call(LAUNCHER, "minirun-oci", *words))


def by_front(box: RuntimeHost, *words: str) -> tuple[int, str, str]:
    return _said(box.call(OCI, *words))


def make(box: RuntimeHost, identity: str, document: dict[str, Any]) -> None:
    """Create a container of its own cgroup from a document."""
    document = changed(document, "linux.cgroupsPath", f"/{box.cgroup}/{identity}")
    box.path(f"{box.bundle}/config.json").write_text(json.dumps(document))
    box.oci("create", identity)


DOCUMENTS = {
    "plain": {},
    "annotations": {"annotations": {"ü": '"\\\n\t\u001b', "long": "x" * 9000}},
    "no annotations": {"annotations": {}},
    "shares the pid namespace": {"linux.namespaces": [{"type": "mount"}]},
    "hooks": {"hooks": {"poststop": [{"path": "/bin/true"}]}},
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_same_answer_in_every_state(box: RuntimeHost, alone: str, name: str) -> None:
    document = config("", SLEEP)
    for path, value in DOCUMENTS[name].items():
        document = changed(document, path, value)
    make(box, "box", document)
    plain = name != "hooks"
    for status, change in (
        ("created", ()),
        ("paused", ("pause", "box")),
        ("created", ("resume", "box")),
        ("running", ("start", "box")),
        ("paused", ("pause", "box")),
        ("running", ("resume", "box")),
        ("stopped", ()),
    ):
        if status == "stopped":
            box.ended()
        elif change:
            box.oci(*change)
        code, printed, complaint = by_python(box, "state", "box")
        assert (code, complaint, json.loads(printed)["status"]) == (0, "", status)
        assert by_front(box, "state", "box") == (0, printed, "")
        assert _said(box.call(alone, "state", "box")) == (0, printed, "")
        wrong = (
            [["start"], ["delete"], ["resume"]]
            if status == "running"
            else [["kill", "9"]]
            if status == "stopped"
            else []
        )
        for verb, *more in wrong:
            refusal = by_python(box, verb, "box", *more)
            assert refusal[0] == 1 and by_front(box, verb, "box", *more) == refusal
    assert box.call(alone, "delete", "box").returncode == (0 if plain else ASKED)
    if plain:
        assert box.leftovers() == []
    assert by_python(box, "state", "nobody") == by_front(box, "state", "nobody")


def test_both_ways_do_the_same(box: RuntimeHost, alone: str) -> None:
    """Two containers, one driven by the front alone and one by Python alone."""
    document = config("", SLEEP)
    for identity, program in (("front", [alone]), ("python", [LAUNCHER, "minirun-oci"])):
        make(box, identity, document)
        folder = box.path(f"{box.top}/{identity}")
        created = {path.name for path in folder.iterdir()}
        assert _said(box.call(*program, "start", identity)) == (0, "", "")
        assert created - {path.name for path in folder.iterdir()} == {"exec.fifo"}
        assert box.told(identity)["status"] == "running"
        with ended(box.told(identity)["pid"]):
            assert _said(box.call(*program, "kill", identity, "KILL")) == (0, "", "")
        assert _said(box.call(*program, "delete", identity)) == (0, "", "")
        assert box.leftovers() == []


PLAIN = {
    "state box": 0,
    "--root=/run/minirun/oci state box": 0,
    "--root /run/minirun/oci --log /run/log --log-format json --systemd-cgroup state box": 0,
    "--log=/run/log --log-format=text --log-level=error --rootless=auto --debug state box": 0,
    "state --root /run/minirun/oci box": 0,
    "--cgroup-manager systemd state box": 0,
    "kill box 28": 0,
    "kill box WINCH": ASKED,
    "kill box 0": ASKED,
    "kill box 65": ASKED,
    "kill box NOSUCH": ASKED,
    "kill --all box 28": ASKED,
    "kill box 28 more": ASKED,
    "start box": ASKED,  # it runs
    "delete box": ASKED,
    "delete --force=true box": ASKED,
    "state": ASKED,
    "state box box": ASKED,
    "state -x box": ASKED,
    "state -f box": ASKED,
    "state --force box": ASKED,
    "state -- box": ASKED,
    "state ../oci/box": ASKED,
    "state .": ASKED,
    "state @creating": ASKED,
    "--log-format xml state box": ASKED,
    "--log-level loud state box": ASKED,
    "--rootless maybe state box": ASKED,
    "--cgroup-manager none state box": ASKED,
    "--debug=true state box": ASKED,
    "--root": ASKED,
    "--root= state box": ASKED,
    "--root /run/minirun/../minirun/oci state box": ASKED,
    "--root /no/such state box": ASKED,
    "--version": ASKED,
    "list": ASKED,
    "": ASKED,
    f"--root {'/x' * 3000} state box": ASKED,
    f"--{'x' * 3000} state box": ASKED,
    f"state {'x' * 300}": ASKED,
}


def test_what_the_front_takes_upon_itself(box: RuntimeHost, alone: str) -> None:
    """And whatever it does not, Python gets word for word."""
    box.oci("run", "-d", "box")
    for line, code in PLAIN.items():
        done = box.call(alone, *line.split())
        assert done.returncode == code, (line, done)
        if code == ASKED:
            assert done.stdout == f"asked: {line}\n"
    assert box.told()["status"] == "running" and not box.path("/run/log").exists()
    assert box.call(alone, "delete", "--force", "box").returncode == 0
    assert box.leftovers() == []


def test_files_that_are_damaged_are_for_python(box: RuntimeHost, alone: str) -> None:
    box.oci("run", "-d", "box")
    folder = box.path(f"{box.top}/box")
    whole = (folder / "process").read_text()
    for text in ("", "x", "1", "1 2", "1 2 - \n", whole[: len(whole) // 2].rsplit(" ", 1)[0], "9" * 5000, "\0" * 20):
        (folder / "process").write_text(text)
        assert box.call(alone, "state", "box").returncode == ASKED, text
    (folder / "process").write_text(whole)
    (folder / "annexe").rename(folder / "elsewhere")
    assert box.call(alone, "state", "box").returncode == ASKED
    (folder / "elsewhere").rename(folder / "annexe")
    assert box.call(alone, "state", "box").returncode == 0


def test_a_cgroup_of_others_is_not_removed(box: RuntimeHost, alone: str) -> None:
    """What `undo` names is removed only if the mark on it is this container's."""
    make(box, "box", config("", TRUE))
    box.oci("start", "box")
    box.ended()
    undo = box.path(f"{box.top}/box/undo")
    text = undo.read_text()
    for wrong in (
        "",
        "x",
        "x\n",
        "x\n" + text.partition("\n")[2],
        text.partition("\n")[0] + "\n",
        text + "/sys\n" * 99,
    ):
        undo.write_text(wrong)
        assert box.call(alone, "delete", "box").returncode == ASKED, wrong
    undo.write_text(text)
    assert box.call(alone, "delete", "box").returncode == 0


def test_without_its_other_half_it_says_so(box: RuntimeHost, alone: str) -> None:
    box.path("/run/half").mkdir(exist_ok=True)
    shutil.copy(OCI, box.path("/run/half/minirun-oci"))
    done = box.call("/run/half/minirun-oci", "list")
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith("minirun-oci: the program minirun")
