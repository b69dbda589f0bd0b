"""``run`` in the foreground: exit codes and standard streams."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.lifecycle.machine import MINIRUN, SOON, Machine, one_line

RUN = ("run", "--rm", "--net", "none")
MEGABYTES = 10 << 20


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_the_programs_exit_code_is_ours(host: Machine, code: int) -> None:
    assert host.minirun(*RUN, "busybox", "sh", "-c", f"exit {code}", check=False).returncode == code


@pytest.mark.parametrize(
    ("program", "code", "text"),
    [
        ("/etc/nothing", 127, "no such file"),
        ("no-such-program", 127, "not found"),
        ("/etc/hostname", 126, "permission denied"),
        ("/etc", 126, "permission denied"),
        ("/bin/sh/x", 127, "no such file"),
        ("", 127, "not found"),
    ],
)
def test_a_program_that_cannot_be_executed(host: Machine, program: str, code: int, text: str) -> None:
    for options in ((), ("-d",), ("-t",)):
        assert text in host.refused("run", "--rm", "--net", "none", *options, "busybox", program, code=code)


def test_a_file_that_is_no_program(host: Machine) -> None:
    """It is executable and execve(2) says ENOEXEC, which is found out only after everything else is done."""
    host.run(["sh", "-c", "printf nonsense > /run/garbage; chmod 755 /run/garbage"])
    assert "exec format error" in host.refused(*RUN, "-v", "/run/garbage:/garbage", "busybox", "/garbage", code=126)


def test_standard_output_and_error_stay_apart(host: Machine) -> None:
    done = host.minirun(*RUN, "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_standard_input_is_empty_without_i(host: Machine) -> None:
    assert host.minirun(*RUN, "busybox", "wc", "-c", stdin="something").stdout == "0\n"


def test_pipes_in_and_out_carry_ten_megabytes_of_anything(host: Machine) -> None:
    sent = os.urandom(MEGABYTES)
    command = host.spawn(*RUN, "-i", "busybox", "cat", text=False, stdin=subprocess.PIPE)
    received, complaints = command.communicate(sent, timeout=SOON)
    assert (command.returncode, complaints) == (0, b"")
    assert received == sent


def test_the_end_of_input_reaches_the_program_and_its_answer_comes_back(host: Machine) -> None:
    """A pipe closes in one direction: what is written after the end of input still arrives."""
    done = host.minirun(*RUN, "-i", "busybox", "sh", "-c", "cat; echo after; exit 5", stdin="before\n", check=False)
    assert (done.returncode, done.stdout) == (5, "before\nafter\n")


def test_a_program_that_ends_before_its_input_does(host: Machine) -> None:
    command = host.spawn(*RUN, "-i", "busybox", "head", "-n1", stdin=subprocess.PIPE)
    assert command.stdin and command.stdout
    command.stdin.write("one\ntwo\n")
    command.stdin.flush()
    assert command.stdout.read() == "one\n"
    assert command.wait(SOON) == 0
    command.communicate()


def test_input_comes_from_a_file_and_output_goes_to_one(host: Machine) -> None:
    host.run(["sh", "-c", "seq 100000 > /run/numbers"])
    script = f"{' '.join(MINIRUN)} {' '.join(RUN)} -i busybox tac < /run/numbers > /run/reversed"
    host.run(["sh", "-c", script])
    host.run(["sh", "-c", "tac /run/numbers | cmp - /run/reversed"])


def test_a_slow_reader_holds_back_the_output_and_nothing_else(host: Machine) -> None:
    """Its pipe is full; the container can be listed, killed and removed all the same."""
    command = host.spawn(*RUN, "--name", "flood", "busybox", "yes")
    assert command.stdout and command.stdout.readline() == "y\n"
    assert host.out("ps", "--format", "json").count('"flood"') == 1
    host.minirun("kill", "flood")
    output, _ = command.communicate(timeout=SOON)
    assert command.returncode == 137
    assert set(output.split("\n")) <= {"y", ""}


def test_a_reader_that_never_reads_cannot_keep_a_container_from_being_removed(host: Machine) -> None:
    command = host.spawn(*RUN, "--name", "stuck", "busybox", "yes")
    assert command.stdout and command.stdout.readline() == "y\n"
    try:
        host.minirun("rm", "-f", "stuck", timeout=20)
    finally:
        command.kill()
        command.communicate(timeout=SOON)


def test_closed_output_neither_hangs_nor_loses_the_exit_code(host: Machine) -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; exit 3"
    command = host.spawn(*RUN, "busybox", "sh", "-c", script, stderr=subprocess.DEVNULL)
    assert command.stdout and command.stdout.readline() == "line 0\n"
    command.stdout.close()
    assert command.wait(SOON) == 3


def test_endless_output_ends_with_its_reader(host: Machine) -> None:
    """``minirun run busybox yes | head -1``, as without a container."""
    command = host.spawn(*RUN, "busybox", "yes")
    assert command.stdout and command.stdout.readline() == "y\n"
    command.stdout.close()
    try:
        assert command.wait(20) != 0
    finally:
        command.kill()
        command.communicate()


def test_our_own_output_into_a_closed_pipe_is_no_traceback(host: Machine) -> None:
    script = f"({' '.join(MINIRUN)} --help; echo $? > /run/code) | true"
    assert host.run(["sh", "-c", script]).stderr == ""


def test_a_lost_descriptor_does_not_confuse_the_streams(host: Machine) -> None:
    """Started with standard input, output or error closed (``<&-``), nothing else may take their places."""
    for closed in ("<&-", "2>&-", "<&- 2>&-"):
        done = host.run(["sh", "-c", f"{' '.join(MINIRUN)} {' '.join(RUN)} busybox echo hello {closed}"])
        assert done.stdout == "hello\n", closed
    host.run(["sh", "-c", f"{' '.join(MINIRUN)} {' '.join(RUN)} busybox true >&-"])


def test_a_detached_run_holds_nothing_of_its_caller(host: Machine) -> None:
    """$(minirun run -d ...) ends although the container goes on: communicate() would hang on an inherited pipe."""
    command = host.spawn("run", "-d", "--net", "none", "busybox", "sleep", "600")
    output, errors = command.communicate(timeout=SOON)
    assert (len(output), errors) == (65, "")


def test_an_error_is_one_line_on_standard_error(host: Machine) -> None:
    done = host.minirun("run", "--rm", "nonsense:image", check=False)
    assert (done.returncode, done.stdout) == (125, "")
    one_line(done.stderr)
