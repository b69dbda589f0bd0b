"""Signals to the command in front go to the program."""

from __future__ import annotations

import signal

import pytest

from tests.lifecycle.machine import MINIRUN, SOON, Machine

NAMES = ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"]
TRAPS = f'for s in {" ".join(NAMES)}; do trap "echo got $s; exit 42" $s; done; echo ready; while :; do sleep 0.02; done'


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_is_passed_on(host: Machine, name: str) -> None:
    command = host.spawn("run", "--rm", "--net", "none", "busybox", "sh", "-c", TRAPS)
    assert command.stdout and command.stdout.readline() == "ready\n"
    command.send_signal(signal.Signals[f"SIG{name}"])
    output, _ = command.communicate(timeout=SOON)
    assert (output, command.returncode) == (f"got {name}\n", 42)


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP"])
def test_a_signal_is_passed_on_to_a_session(host: Machine, name: str) -> None:
    host.start("--name", "box", "busybox", "sleep", "600")
    command = host.spawn("exec", "box", "sh", "-c", TRAPS)
    assert command.stdout and command.stdout.readline() == "ready\n"
    command.send_signal(signal.Signals[f"SIG{name}"])
    output, _ = command.communicate(timeout=SOON)
    assert (output, command.returncode) == (f"got {name}\n", 42)


def test_the_program_starts_with_no_signal_blocked_or_ignored(host: Machine) -> None:
    """Even when its command was started by nohup(1), or by a program that blocks some."""
    program = [
        *MINIRUN,
        "run",
        "--rm",
        "--net",
        "none",
        "busybox",
        "grep",
        "-E",
        "Sig(Blk|Ign|Cgt)",
        "/proc/self/status",
    ]
    clean = [f"Sig{which}:\t{0:016x}" for which in ("Blk", "Ign", "Cgt")]
    assert host.run(program).stdout.splitlines() == clean
    for refusal in ("trap '' HUP INT USR1 ALRM; exec \"$@\"", 'exec env --block-signal "$@"'):
        assert host.run(["sh", "-c", refusal, "sh", *program]).stdout.splitlines() == clean, refusal
