"""``logs``: everything that was printed, in order, by stream, also while it is being printed."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.lifecycle.machine import SOON, Machine, open_files, until

ROTATION = 32 << 20  # of the monitor: the log becomes log.1


def logged(host: Machine, script: str, *options: str) -> str:
    """The id of a container that ran a script to its end."""
    name = host.start(*options, "busybox", "sh", "-c", script)
    host.out("wait", name)
    return name


def test_both_streams_to_both_streams(host: Machine) -> None:
    done = host.minirun("logs", logged(host, "echo out; echo err >&2; echo more"))
    assert (done.stdout, done.stderr) == ("out\nmore\n", "err\n")


def test_nothing_printed_nothing_shown(host: Machine) -> None:
    for options in ((), ("-f",), ("--tail", "5")):
        done = host.minirun("logs", *options, logged(host, "true"))
        assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    ("tail", "shown"),
    [("0", ""), ("1", "5\n"), ("3", "3\n4\n5\n"), ("99", "1\n2\n3\n4\n5\n"), ("all", "1\n2\n3\n4\n5\n")],
)
def test_tail(host: Machine, tail: str, shown: str) -> None:
    assert host.minirun("logs", "--tail", tail, logged(host, "seq 5")).stdout == shown


def test_tail_of_both_streams_counts_lines(host: Machine) -> None:
    name = logged(host, "echo 1; sleep 0.1; echo 2 >&2; sleep 0.1; echo 3")
    done = host.minirun("logs", "-n", "2", name)
    assert (done.stdout, done.stderr) == ("3\n", "2\n")


def test_a_line_without_its_end(host: Machine) -> None:
    name = logged(host, "printf 'one\\ntwo'")
    assert host.minirun("logs", name).stdout == "one\ntwo"
    assert host.minirun("logs", "--tail", "1", name).stdout == "two"


def test_a_line_that_comes_in_parts(host: Machine) -> None:
    name = logged(host, "printf a; sleep 0.1; printf b; sleep 0.1; echo c; echo last")
    assert host.minirun("logs", name).stdout == "abc\nlast\n"
    assert host.minirun("logs", "--tail", "2", name).stdout == "abc\nlast\n"
    stamped = host.minirun("logs", "-t", name).stdout
    assert re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (abc|last)\n){2}", stamped)


def test_a_very_long_line_and_any_bytes(host: Machine) -> None:
    name = logged(host, "head -c 300000 /dev/zero | tr '\\0' x; echo; printf '\\000\\377\\033[1m\\n'")
    command = host.spawn("logs", name, text=False)
    output, _ = command.communicate(timeout=SOON)
    assert output == b"x" * 300000 + b"\n\0\xff\x1b[1m\n"


def test_follow_ends_with_the_container(host: Machine) -> None:
    host.ready("box", "trap 'echo last; exit' TERM; echo ready; i=0; while :; do sleep 0.02; done")
    follower = host.spawn("logs", "-f", "box")
    assert follower.stdout and follower.stdout.readline() == "ready\n"
    host.minirun("kill", "-s", "TERM", "box")
    assert follower.communicate(timeout=SOON) == ("last\n", "")
    assert follower.returncode == 0
    assert host.minirun("logs", "-f", "box").stdout == "ready\nlast\n"


def test_follow_shows_each_line_as_it_comes(host: Machine) -> None:
    command = host.spawn("run", "-i", "--net", "none", "--name", "box", "busybox", "cat", stdin=subprocess.PIPE)
    assert command.stdin and command.stdout
    command.stdin.write("zero\n")
    command.stdin.flush()
    assert command.stdout.readline() == "zero\n"
    follower = host.spawn("logs", "-f", "--tail", "0", "box")
    assert follower.stdout
    until(
        lambda: any("inotify" in target for target in open_files(follower.pid)), "the follower, behind what was there"
    )
    for word in ("one", "two"):
        command.stdin.write(f"{word}\n")
        command.stdin.flush()
        assert follower.stdout.readline() == f"{word}\n"
    command.stdin.close()
    assert command.wait(SOON) == 0
    assert follower.communicate(timeout=SOON) == ("", "")
    command.stdout.close()


def test_a_follower_outlives_rotation(host: Machine) -> None:
    """The log becomes log.1 at 32 MiB; whoever follows misses no line, and no disk is filled."""
    lines = 750_000  # of 58 bytes each in the log: one rotation
    host.start("--name", "box", "busybox", "sh", "-c", f"seq {lines}")
    follower = host.spawn("logs", "-f", "box")
    assert follower.stdout
    last = missing = 0
    for line in follower.stdout:
        missing += int(line) != last + 1
        last = int(line)
    follower.communicate(timeout=SOON)
    assert (last, missing) == (lines, 0)
    home = host.path(f"{host.root}/containers/{host.inspect('box')['Id']}")
    assert (home / "log.1").stat().st_size < ROTATION + (1 << 20)
    assert host.minirun("logs", "--tail", "2", "box").stdout == f"{lines - 1}\n{lines}\n"


def test_the_log_is_for_root_alone(host: Machine) -> None:
    home = host.path(f"{host.root}/containers/{logged(host, 'echo secret')}")
    assert (home / "log").stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o077 == 0


def test_followers_into_a_closed_pipe_end_quietly(host: Machine) -> None:
    host.ready("box", "echo ready; while :; do echo more; sleep 0.02; done")
    follower = host.spawn("logs", "-f", "box")
    assert follower.stdout
    follower.stdout.close()
    assert follower.wait(SOON) == 141
    assert follower.stderr and follower.stderr.read() == ""
    follower.communicate()
