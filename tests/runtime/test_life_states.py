"""The states of a container (runtime-spec, runtime.md) and what each of them allows; what its process inherits."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakehost import TIMEOUT
from tests.lifecycle.machine import open_files, until
from tests.runtime.bundles import OCI, SLEEP, TRUE, RuntimeHost

ALL = ("state", "start", "kill", "pause", "resume", "update", "exec", "delete")


def allowed(box: RuntimeHost, verbs: tuple[str, ...]) -> None:
    """Each verb but these is refused, with one line, and changes nothing."""
    before = box.told()
    for verb in ALL:
        if verb not in verbs:
            box.refused(verb, "box", *(["true"] if verb == "exec" else []))
    assert box.told() == before


def test_what_each_state_allows(box: RuntimeHost) -> None:
    box.oci("create", "box")
    allowed(box, ("state", "start", "kill", "pause", "update", "exec", "delete"))
    box.oci("start", "box")
    allowed(box, ("state", "kill", "pause", "update", "exec"))
    box.oci("pause", "box")
    assert box.told()["status"] == "paused"
    allowed(box, ("state", "kill", "resume", "update"))
    box.oci("resume", "box")
    assert box.told()["status"] == "running"
    box.ended()
    assert (box.told()["status"], box.told()["pid"]) == ("stopped", 0)
    allowed(box, ("state", "delete"))
    box.oci("delete", "box")


def test_a_created_container_can_be_frozen_started_later_and_deleted(box: RuntimeHost) -> None:
    box.oci("create", "box")
    box.oci("pause", "box")
    assert box.told()["status"] == "paused"
    box.refused("start", "box")
    box.oci("resume", "box")
    assert box.told()["status"] == "created"
    box.oci("start", "box")
    assert box.told()["status"] == "running"
    box.oci("pause", "box")
    box.oci("delete", "--force", "box")
    assert box.leftovers() == []


def test_a_created_container_is_killed_or_deleted(box: RuntimeHost) -> None:
    box.oci("create", "box")
    box.ended()
    assert box.told()["status"] == "stopped"
    assert "container not running" in box.refused("start", "box")
    box.oci("delete", "box")
    box.oci("create", "box")
    box.oci("delete", "box")
    assert box.leftovers() == []


def test_force_deletes_whatever_there_is(box: RuntimeHost) -> None:
    box.oci("create", "box")
    box.oci("start", "box")
    box.oci("delete", "--force", "box")
    box.oci("delete", "--force", "box")
    box.oci("create", "box")
    for damaged in ("state.json", "config.json"):
        (box.path(box.top) / "box" / damaged).write_text("{")
    box.refused("delete", "box")
    box.oci("delete", "--force", "box")
    assert box.leftovers() == []
    half = box.path(box.top) / "half"
    half.mkdir(mode=0o700)
    box.refused("state", "half")
    box.oci("delete", "--force", "half")
    assert not half.exists()


@pytest.mark.parametrize("verb", ["fast", "slow"])
def test_a_pid_that_is_another_process_s_by_now_is_nobody(box: RuntimeHost, verb: str) -> None:
    """The number was used again: what has it is not the container's, and never hears of it."""
    box.oci("create", "box")
    box.ended()
    other = subprocess.Popen(["sleep", "1000"])
    try:
        record = box.path(box.top) / "box" / "state.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"pid": other.pid}))
        short = box.path(box.top) / "box" / "process"
        short.write_text(f"{other.pid} {short.read_text().partition(' ')[2]}")
        words = ["--root", "/run/../run/minirun/oci"] if verb == "slow" else []  # such a path is left to Python
        assert json.loads(box.oci(*words, "state", "box"))["status"] == "stopped"
        for call in (("kill", "box", "9"), ("start", "box"), ("exec", "box", "true"), ("pause", "box")):
            box.refused(*words, *call)
        box.oci(*words, "delete", "--force", "box")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_the_bundle_may_change_or_go_after_create(box: RuntimeHost) -> None:
    box.oci("create", "box")
    box.path(f"{box.bundle}/config.json").write_text("{}")
    box.oci("start", "box")
    box.path(f"{box.bundle}/config.json").unlink()
    box.path(box.bundle).rename(box.path("/run/moved"))
    try:
        box.run([OCI, "exec", "box", "true"])
        assert json.loads(box.run([OCI, "state", "box"]).stdout)["bundle"] == box.bundle
        box.run([OCI, "delete", "--force", "box"])
    finally:
        box.path("/run/moved").rename(box.path(box.bundle))


def test_streams_that_are_closed(box: RuntimeHost) -> None:
    box.configure(["sh", "-c", "ls -l /proc/self/fd >/dev/null; exit 7"])
    for closing in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        script = f'cd "$2" && exec "$1" run box {closing}'
        assert box.call("sh", "-c", script, "sh", OCI, box.bundle).returncode == 7, closing
    box.configure(SLEEP)
    box.call("sh", "-c", 'cd "$2" && exec "$1" create box <&- >&- 2>&-', "sh", OCI, box.bundle)
    pid = box.told()["pid"]
    assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)} == {"/dev/null"}


def test_hundreds_of_descriptors_do_not_leak(box: RuntimeHost) -> None:
    """Neither into the container nor into hooks; and our own have numbers that select(2) does not know."""
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "ls /proc/$$/fd | wc -l >>/run/count"]}
    hooks = {kind: [hook] for kind in ("createRuntime", "createContainer", "poststart", "poststop")}
    box.configure(SLEEP, {"hooks": hooks})
    opened = [os.open("/etc/passwd", os.O_RDONLY) for _ in range(1200)]
    try:
        box.oci("create", "--preserve-fds", "0", "box", pass_fds=opened)
        pid = box.told()["pid"]
        assert [name for name in open_files(pid) if name.startswith("/etc")] == []
        box.oci("start", "box", pass_fds=opened)
        assert len(open_files(pid)) == 3
        assert box.oci("exec", "box", "sh", "-c", "ls /proc/$$/fd", pass_fds=opened).split()[:3] == ["0", "1", "2"]
        box.oci("pause", "box", pass_fds=opened)
        box.oci("delete", "--force", "box", pass_fds=opened)
    finally:
        for descriptor in opened:
            os.close(descriptor)
    counts = box.path("/run/count").read_text().split()
    box.path("/run/count").unlink()
    assert len(counts) == 4
    assert max(map(int, counts)) <= 5, counts  # 0-2, and what sh and ls have of their own


_BECOME = """
import os, sys
count = int(sys.argv[1])
for index, number in enumerate(sys.argv[2 : 2 + count]):
    os.dup2(int(number), 3 + index)
told = [word.replace("SELF", str(os.getpid())) for word in sys.argv[2 + count].split()]
os.execve(sys.argv[3 + count], sys.argv[3 + count :], {**os.environ, **dict(word.split("=") for word in told)})
"""


def handed(box: RuntimeHost, told: str, count: int, *words: str) -> str:
    """What a container prints that is run with ``count`` open sockets, from 3 on, and these variables."""
    box.configure(["sh", "-c", "ls -l /proc/$$/fd; env"])
    pairs = [socket.socketpair() for _ in range(count)]
    high = [fcntl.fcntl(pair[0], fcntl.F_DUPFD, 50) for pair in pairs]
    command = [sys.executable, "-c", _BECOME, str(count), *map(str, high), told, OCI, "run", *words, "box"]
    done = box.call("env", "-C", box.bundle, *command, pass_fds=high)
    for descriptor in high:
        os.close(descriptor)
    for one, other in pairs:
        one.close()
        other.close()
    assert done.returncode == 0, done
    return done.stdout


def test_sockets_of_systemd_are_handed_on(box: RuntimeHost) -> None:
    told = handed(box, "LISTEN_FDS=2 LISTEN_PID=SELF LISTEN_FDNAMES=a:b", 2)
    assert " 3 -> socket:" in told
    assert " 4 -> socket:" in told
    assert " 5 -> " not in told
    assert {"LISTEN_FDS=2", "LISTEN_PID=1", "LISTEN_FDNAMES=a:b"} <= set(told.splitlines())
    more = handed(box, "LISTEN_FDS=1 LISTEN_PID=SELF", 2, "--preserve-fds", "1")
    assert " 4 -> socket:" in more
    others = handed(box, "LISTEN_FDS=2 LISTEN_PID=1", 2)  # they are somebody else's
    assert "socket:" not in others
    assert "LISTEN" not in others


def test_who_looks_at_the_fifo_does_not_wake_init(box: RuntimeHost) -> None:
    """A writer that goes leaves an end of file behind, for which poll(2) returns again and again."""
    box.oci("create", "box")
    fifo = box.path(box.top) / "box" / "exec.fifo"
    os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    assert poll.poll(0) == []
    os.close(reader)
    assert box.told()["status"] == "created"
    box.oci("start", "box")
    assert box.told()["status"] == "running"


def test_signals_that_the_caller_ignores_are_not_ignored(box: RuntimeHost) -> None:
    """SIGCHLD among them: who ignores that has no children to wait for."""
    box.configure(["sh", "-c", "grep SigIgn /proc/self/status; exit 9"])
    done = box.call("sh", "-c", "trap '' CHLD HUP INT TERM USR1; cd \"$2\"; exec $1 run box", "sh", OCI, box.bundle)
    assert done.returncode == 9, done
    assert int(done.stdout.split()[1], 16) == 0


CATCHING = [number for number in range(1, 65) if number not in (9, 19, 32, 33)]


def test_every_signal_reaches_the_first_process(box: RuntimeHost) -> None:
    traps = "; ".join(f"trap 'echo {number}' {number}" for number in CATCHING)
    box.configure(["sh", "-c", f"{traps}; echo ready; while :; do read line; done"])
    run = box.spawn("run", "box", stdin=subprocess.PIPE)
    assert run.stdin
    assert run.stdout
    assert run.stdout.readline() == "ready\n"
    for number in CATCHING:
        name = "SIGRTMIN+2" if number == 36 else str(number)
        box.oci("kill", "box", name)
        run.stdin.write("\n")  # a trap runs between two commands
        run.stdin.flush()
        assert run.stdout.readline() == f"{number}\n"
    box.oci("kill", "box", "KILL")
    assert run.wait(TIMEOUT) == 137
    run.communicate()


def test_a_dead_process_that_nobody_reaps_is_stopped(box: RuntimeHost) -> None:
    """Its parent, `run`, is stopped, and so it stays a zombie."""
    run = box.spawn("run", "box")
    until(lambda: box.call(OCI, "state", "box").stdout.count("running"), "running")
    pid = box.told()["pid"]
    os.kill(run.pid, signal.SIGSTOP)
    try:
        box.oci("kill", "box", "KILL")
        until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z", "a zombie")
        assert (box.told()["status"], box.told()["pid"]) == ("stopped", 0)
        assert "container not running" in box.refused("kill", "box")
        box.oci("delete", "box")
    finally:
        os.kill(run.pid, signal.SIGCONT)
    assert run.wait(TIMEOUT) == 137
    run.communicate()


def test_a_program_that_daemonises_ends_its_container(box: RuntimeHost) -> None:
    box.configure(["sh", "-c", "sleep 1000 & exit 3"])
    box.oci("run", "--keep", "box", code=3)
    assert box.told()["status"] == "stopped"
    assert box.leftovers()  # its record
    box.oci("delete", "box")
    assert box.leftovers() == []


@pytest.mark.parametrize("number", [1, 9, 15, 34, 64])
def test_a_death_by_a_signal_is_128_and_its_number(box: RuntimeHost, number: int) -> None:
    config = json.loads(box.path(f"{box.bundle}/config.json").read_text())
    namespaces = [entry for entry in config["linux"]["namespaces"] if entry["type"] != "pid"]
    box.configure(
        ["sh", "-c", f"kill -{number} $$; sleep 1000"], {"linux": config["linux"] | {"namespaces": namespaces}}
    )
    box.oci("run", "box", code=128 + number)
    box.configure(SLEEP)
    box.oci("create", "box")
    box.oci("start", "box")
    box.oci("exec", "box", "sh", "-c", f"kill -{number} $$; sleep 1000", code=128 + number)


def test_one_that_has_ended_does_nothing_to_the_next_in_its_cgroup(box: RuntimeHost) -> None:
    box.configure(TRUE)
    box.oci("create", "old")
    box.oci("start", "old")
    box.ended("old")
    box.configure(SLEEP)
    box.oci("create", "new")
    box.oci("start", "new")
    assert json.loads(box.oci("ps", "--format=json", "old")) == []
    box.oci("kill", "--all", "old", "KILL")
    assert box.told("new")["status"] == "running"
    box.oci("pause", "new")
    box.oci("delete", "--force", "old")
    assert box.told("new")["status"] == "paused"
