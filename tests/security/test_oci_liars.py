"""What a spawner believes of a process that lies (E10): messages out of turn, of others, with descriptors of all kinds.

intruder.c takes the place of minirun-init, as who ptraces it inside a container could: each script is what it says.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minirun.errors import MinirunError
from minirun.linux import syscalls
from minirun.linux.syscalls import Message
from minirun.runtime import handover, process
from minirun.runtime.dialogue import Dialogue
from tests.security.oci import intruder

READY, START, FAILED, CONSOLE, CREATED = range(1, 6)
SYNC, BORN, LISTENER, SAID = range(11, 15)
PLAIN, FORK = [["ready"]], [["fork", "0"], ["ready"]]
TERMINAL, NOTIFY = [["console", "0"], ["ready"]], [["seccomp", "8"], ["ready"]]
HOOK = [["hook-state", '{"status": "creating"', "}"], ["hook", "/x", "1"], ["ready"]]
NOWHERE = {"listenerPath": "/no/such"}


@pytest.fixture(scope="module")
def liar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A descriptor of the program, as that of minirun-init is handed to a spawner."""
    descriptor = os.open(intruder(tmp_path_factory.mktemp("liar")), os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def _answers() -> dict[int, Callable[[Message], None]]:
    return {
        Message.CONSOLE: lambda message: handover.console("/no/such", message.descriptors[0]),
        Message.LISTENER: lambda message: handover.listener(NOWHERE, message.descriptors[0], 1, {}),
    }


def spoken(liar: int, ops: list[list[str]], *script: str) -> str:
    """Listen to a script, where these ops are expected: the complaint, or nothing. No descriptor may stay open."""
    before = sorted(os.listdir("/proc/self/fd"))
    words, null = process.memory_file("ops", "\0".join([*script, ""]).encode()), os.open("/dev/null", os.O_RDWR)
    pid, pidfd, control = syscalls.spawn(0, liar, words, (null, null, null))
    talk = Dialogue(pid, control, ops, ["/bin/true"])
    try:
        talk.until_ready(_answers())
        return ""
    except MinirunError as error:
        return str(error)
    finally:
        assert os.waitid(os.P_PID, talk.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None  # it is our child, and lives
        talk.end()
        for descriptor in (words, null, pidfd, control):
            os.close(descriptor)
        assert sorted(os.listdir("/proc/self/fd")) == before


def test_control_what_is_due_is_believed(liar: int) -> None:
    assert spoken(liar, PLAIN, f"send {READY} 0 0", "stay") == ""
    assert spoken(liar, FORK, "sibling", f"send {BORN} 0 0", "hear", f"send {READY} 0 0", "stay") == ""
    assert spoken(liar, [["sync", "2"], ["ready"]], f"send {SYNC} 2 0", f"send {READY} 0 0", "stay") == ""
    assert "/no/such" in spoken(liar, TERMINAL, "open /dev/ptmx", f"send {CONSOLE} 0 0", "stay")


LIES = {
    "nothing of the kind": (PLAIN, ["send 99 0 0"]),
    "what the spawner says": (PLAIN, [f"send {START} 0 0"]),
    "what the monitor says": (PLAIN, [f"send {CREATED} 1 0"]),
    "ready before it is born": (FORK, [f"send {READY} 0 0"]),
    "ready with a descriptor": (PLAIN, ["open /dev/null", f"send {READY} 0 0"]),
    "ready with four": (PLAIN, ["open /dev/null"] * 4 + [f"send {READY} 0 0"]),
    "more descriptors than there is room for": (PLAIN, ["open /dev/null"] * 50 + [f"send {READY} 0 0"]),
    "ready as another": (PLAIN, ["as 1", f"send {READY} 0 0"]),
    "born without a fork": (PLAIN, [f"send {BORN} 0 0"]),
    "born by itself": (FORK, [f"send {BORN} 0 0"]),
    "born as process 1": (FORK, ["as 1", f"send {BORN} 0 0"]),
    "born as the spawner": (FORK, [f"as {os.getpid()}", f"send {BORN} 0 0"]),
    "a child that is not ours": (FORK, ["child", f"send {BORN} 0 0"]),
    "born twice": (FORK, ["sibling", f"send {BORN} 0 0", "hear", f"send {BORN} 0 0"]),
    "another sync point": ([["sync", "2"], ["ready"]], [f"send {SYNC} 1 0"]),
    "a console that is not due": (PLAIN, ["open /dev/ptmx", f"send {CONSOLE} 0 0"]),
    "a console of nothing": (TERMINAL, [f"send {CONSOLE} 0 0"]),
    "a hook's words without a hook": (PLAIN, ["open /dev/null", f"send {SAID} 0 0"]),
    "a hook that stopped": (HOOK, ["open /dev/null", f"send {SAID} 127 0"]),
    "a hook's words that are no memory": (HOOK, ["open /dev/tty0", f"send {SAID} 256 0"]),
}


@pytest.mark.parametrize("name", LIES)
def test_e10_a_lie_ends_the_dialogue(liar: int, name: str) -> None:
    ops, script = LIES[name]
    assert "no reason to say" in spoken(liar, ops, *script, "stay")


@pytest.mark.parametrize("what", ["/dev/null", "/dev/zero", "/etc/passwd", "fifo"])
def test_e10_a_terminal_or_a_listener_that_is_none(liar: int, tmp_path: Path, what: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    given = f"open {tmp_path / what}"
    assert "is not a terminal" in spoken(liar, TERMINAL, given, f"send {CONSOLE} 0 0", "stay")
    assert "seccomp listener" in spoken(liar, NOTIFY, given, f"send {LISTENER} 0 0", "stay")


@pytest.mark.parametrize(("number", "error"), [(-1, 5), (0, 0), (-5, -7), (2**31 - 1, 2**31 - 1), (1, 2)])
def test_e10_a_failure_of_any_kind_is_one_line(liar: int, number: int, error: int) -> None:
    for ops in (PLAIN, FORK, HOOK, [["mount", "a", "/b", "tmpfs", "ro"]]):
        assert spoken(liar, ops, f"send {FAILED} {number} {error}", "stay").isprintable()


@pytest.mark.parametrize("size", [1, 15])
def test_e10_a_message_of_the_wrong_size(liar: int, size: int) -> None:
    with pytest.raises(OSError, match="Protocol error"):
        spoken(liar, PLAIN, "open /dev/null", f"short {size}", "stay")
    assert "ended before" in spoken(liar, PLAIN, "open /dev/null", "short 0", "stay")  # it may say that it goes


def test_e10_nobody_waits_for_one_that_a_tracer_holds(liar: int) -> None:
    """It is dead, and stays a zombie until its tracer looks; which ends when we close."""
    assert "no reason to say" in spoken(liar, PLAIN, "traced", "send 99 0 0", "stay")
    monitor = Monitor(liar, "traced", f"send {READY} 0 0", "stay")
    assert monitor.hears().type == Message.CREATED
    monitor.ends()


# --- the engine's monitor ---


class Monitor:
    """A monitor with the liar for its init; we are its owner."""

    def __init__(self, liar: int, *script: str) -> None:
        program = str(Path(process.MONITOR))
        ours, theirs = syscalls.socketpair()
        words = process.memory_file("ops", "\0".join([*script, ""]).encode())
        for descriptor in (theirs, words, liar):
            os.set_inheritable(descriptor, True)
        command = [program, "--tty", "--owner", str(theirs), "--ops", str(words), "--init", str(liar)]
        self.process = subprocess.Popen(command, pass_fds=[theirs, words, liar])
        self.control = ours
        for descriptor in (theirs, words):
            os.close(descriptor)

    def hears(self) -> Message:
        message = syscalls.receive(self.control)
        assert message
        return message

    def fds(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def ends(self) -> None:
        """Kill what it holds: it must serve us still."""
        syscalls.send(self.control, Message.SIGNAL, signal.SIGKILL)
        assert self.hears().type == Message.EXITED
        os.close(self.control)
        assert self.process.wait(20) == 0


def test_e10_the_monitor_believes_its_own_child_alone(liar: int) -> None:
    for before in (["child"], ["as 1"], [f"as {os.getpid()}"], []):
        monitor = Monitor(liar, *before, f"send {BORN} 0 0", f"send {READY} 0 0", "stay")
        created = monitor.hears()
        assert created.type == Message.CREATED
        parent = int(Path(f"/proc/{created.a}/stat").read_text().rpartition(")")[2].split()[1])
        assert parent == monitor.process.pid
        monitor.ends()


def test_e10_the_monitor_takes_one_terminal(liar: int) -> None:
    lies = [word for what in ("/dev/zero", "/etc/passwd") for word in (f"open {what}", f"send {CONSOLE} 0 0")]
    once = ["open /dev/ptmx", f"send {CONSOLE} 0 0"]
    counts = set()
    for script in (once, [*lies, *once], [*once, *once, *lies]):
        monitor = Monitor(liar, *script, f"send {READY} 0 0", "stay")
        assert monitor.hears().type == Message.CREATED
        counts.add(monitor.fds())
        monitor.ends()
    assert len(counts) == 1


def test_control_the_monitor_follows_a_child_of_its_own(liar: int) -> None:
    monitor = Monitor(liar, "sibling", f"send {BORN} 0 0", "hear", f"send {READY} 0 0", "stay")
    created = monitor.hears()
    children = Path(f"/proc/{monitor.process.pid}/task/{monitor.process.pid}/children").read_text().split()
    assert (created.type, [str(created.a)]) == (Message.CREATED, children)
    monitor.ends()
