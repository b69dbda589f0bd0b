"""``-t``: a terminal in the container, and the one in front of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.lifecycle.machine import SOON, Machine, until
from tests.lifecycle.terminal import CTRL_C, CTRL_D, terminal

RUN = ("run", "--rm", "--net", "none")
SHELL = (*RUN, "-it", "busybox", "sh")


def monitor_of(pid: int) -> int:
    """The monitor is the parent of the container's first process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_shell_at_a_terminal(host: Machine) -> None:
    with terminal(33, 111) as screen:
        command = screen.run(host, *SHELL)
        screen.expect("# ")
        assert screen.is_raw()
        screen.type("tty; stty size; echo term=$TERM\n")
        assert screen.expect(r"/dev/pts/\d") == "/dev/pts/0"
        screen.expect("33 111")
        screen.expect("term=xterm")
        screen.type("exit 7\n")
        assert command.wait(SOON) == 7
        assert screen.settings() == screen.before


def test_the_window_size_is_followed(host: Machine) -> None:
    with terminal(24, 80) as screen:
        command = screen.run(
            host, *RUN, "-it", "busybox", "sh", "-c", "trap 'stty size' WINCH; echo ready; while :; do read x; done"
        )
        screen.expect("ready")
        screen.resize(50, 132)
        screen.expect("50 132")
        screen.resize(10, 20)
        screen.expect("10 20")
        host.minirun("kill", host.out("ps", "-q"))
        assert command.wait(SOON) == 137


def test_ctrl_c_is_for_the_program(host: Machine) -> None:
    with terminal() as screen:
        command = screen.run(
            host,
            *RUN,
            "-it",
            "busybox",
            "sh",
            "-c",
            "trap 'echo caught; exit 9' INT; echo ready; while :; do read x; done",
        )
        screen.expect("ready")
        screen.type(CTRL_C)
        screen.expect("caught")
        assert command.wait(SOON) == 9
        assert screen.settings() == screen.before


def test_ctrl_c_ends_what_runs_in_the_shell_and_ctrl_d_the_shell(host: Machine) -> None:
    with terminal() as screen:
        command = screen.run(host, *SHELL)
        screen.expect("# ")
        screen.type("sleep 600\n")
        screen.expect("sleep 600\r\n")
        until(lambda: "sleep 600" in host.run(["ps", "-eo", "args"]).stdout.splitlines(), "sleep")
        screen.type(CTRL_C)
        screen.expect("# ")
        screen.type("echo code=$?\n")
        screen.expect("code=130")
        screen.expect("# ")
        screen.type(CTRL_D)
        assert command.wait(SOON) == 0
        assert screen.settings() == screen.before


def test_the_terminal_is_whole_after_the_command_was_killed(host: Machine) -> None:
    with terminal() as screen:
        command = screen.run(host, *SHELL)
        screen.expect("# ")
        assert screen.is_raw()
        command.kill()
        command.wait(SOON)
        screen.restored()


def test_the_terminal_is_whole_after_the_monitor_was_killed(host: Machine) -> None:
    with terminal() as screen:
        command = screen.run(host, *RUN, "-it", "--name", "box", "busybox", "sh")
        screen.expect("# ")
        assert screen.is_raw()
        os.kill(monitor_of(host.inspect("box")["State"]["Pid"]), signal.SIGKILL)
        assert command.wait(SOON) == 125
        assert screen.settings() == screen.before
        screen.expect("minirun: the monitor died")


def test_the_terminal_is_whole_after_the_program_was_killed(host: Machine) -> None:
    with terminal() as screen:
        command = screen.run(host, *SHELL)
        screen.expect("# ")
        host.minirun("kill", host.out("ps", "-q"))
        assert command.wait(SOON) == 137
        assert screen.settings() == screen.before


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_the_terminal_is_whole_after_a_start_that_failed(host: Machine, verb: str) -> None:
    host.start("--name", "box", "busybox", "sleep", "600")
    before = (*RUN, "-it", "busybox") if verb == "run" else ("exec", "-it", "box")
    with terminal() as screen:
        command = screen.run(host, *before, "no-such-program")
        screen.expect("not found")
        assert command.wait(SOON) == 127
        assert screen.settings() == screen.before


def test_a_terminal_without_input(host: Machine) -> None:
    """``-t`` alone: keys are not for the program, so Ctrl-C is a signal to the command, which passes it on."""
    with terminal() as screen:
        command = screen.run(
            host,
            *RUN,
            "-t",
            "busybox",
            "sh",
            "-c",
            "trap 'exit 4' INT; test -t 1 && echo tty; while :; do sleep 0.05; done",
        )
        screen.expect("tty")
        assert screen.settings() == screen.before
        screen.type(CTRL_C)
        assert command.wait(SOON) == 4


def test_a_terminal_without_one_in_front(host: Machine) -> None:
    """``-t`` in a pipeline gives the program a terminal; its output comes as a terminal has it."""
    command = host.spawn(*RUN, "-t", "busybox", "sh", "-c", "test -t 1 && echo yes", text=False)
    assert command.communicate(timeout=SOON) == (b"yes\r\n", b"")


@pytest.mark.parametrize("arguments", [SHELL, ("exec", "-it", "box", "sh")])
def test_it_without_a_terminal_is_refused(host: Machine, arguments: tuple[str, ...]) -> None:
    host.start("--name", "box", "busybox", "sleep", "600")
    assert "not a terminal" in host.refused(*arguments)


def test_a_detached_terminal_is_in_the_log(host: Machine) -> None:
    name = host.start("-t", "busybox", "sh", "-c", "tty; test -t 0 && echo on")
    assert host.out("wait", name) == "0"
    assert host.minirun("logs", name).stdout.split() == ["/dev/pts/0", "on"]


def test_exec_at_a_terminal(host: Machine) -> None:
    host.start("--name", "box", "busybox", "sleep", "600")
    with terminal(40, 120) as screen:
        command = screen.run(host, "exec", "-it", "box", "sh")
        screen.expect("# ")
        assert screen.is_raw()
        screen.type("tty; stty size; ps | grep -c sleep\n")
        screen.expect("/dev/pts/0")
        screen.expect("40 120")
        screen.resize(41, 121)
        screen.type("stty size\n")
        screen.expect("41 121")
        screen.type(CTRL_C)
        screen.expect("# ")
        screen.type("exit 12\n")
        assert command.wait(SOON) == 12
        assert screen.settings() == screen.before


def test_exec_ends_with_its_container(host: Machine) -> None:
    host.start("--name", "box", "busybox", "sleep", "600")
    with terminal() as screen:
        command = screen.run(host, "exec", "-it", "box", "sh")
        screen.expect("# ")
        host.minirun("kill", "box")
        assert command.wait(SOON) == 137
        assert screen.settings() == screen.before
