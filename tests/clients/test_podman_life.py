"""The life of a container under podman: exec, stop, kill, pause, logs, restart, attach, copy, and its end."""

from __future__ import annotations

import json
import os

import pytest

from tests.clients.podman import IMAGE, Podman
from tests.lifecycle.machine import SOON, until
from tests.lifecycle.terminal import terminal

SLEEP = "ready; exec sleep 1000"
# Ends at SIGTERM, with 5; at the other signals it tells which it was.
POLITE = "trap 'exit 5' TERM; trap 'echo usr1 >/signals/got' USR1; ready; while :; do sleep 1000 & wait $!; done"
DEAF = "trap '' TERM; ready; while :; do sleep 1000; done"


@pytest.mark.control
def test_exec(podman: Podman) -> None:
    podman.start(SLEEP, "--name=box", "--user=alice", "--env=COLOUR=blue")
    done = podman.do("exec", "-i", "box", "sh", "-c", "cat; echo bad >&2; exit 9", check=False, stdin="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (9, "in\n", "bad\n")
    script = "id -un; pwd; echo $COLOUR $SIZE; ls /proc/self/fd | wc -l"
    assert podman.out("exec", "box", "sh", "-c", script).split() == ["alice", "/", "blue", "4"]
    options = "--user=root --workdir=/work --env=SIZE=big"
    assert podman.out("exec", *options.split(), "box", "sh", "-c", script).split() == [
        "root",
        "/work",
        "blue",
        "big",
        "4",
    ]
    podman.refused(137, "exec", "box", "sh", "-c", "kill -9 $$")
    assert "no-such" in podman.refused(127, "exec", "box", "no-such")
    podman.refused(126, "exec", "box", "/work/text")
    privileged = podman.out("exec", "--privileged", "--user=root", "box", "grep", "CapEff", "/proc/self/status")
    assert int(privileged.split()[1], 16) > 0x800405FB
    session = podman.out("exec", "-d", "box", "sh", "-c", "echo done >/signals/detached")
    assert podman.said("detached") == "done" and len(session) == 64


def test_exec_with_a_terminal(podman: Podman) -> None:
    podman.start(SLEEP, "--name=box")
    with terminal(31, 71) as screen:
        command = screen.run(podman, "exec", "-it", "box", "sh")  # type: ignore[arg-type]
        screen.expect(r"# ")
        screen.type("tty; stty size\n")
        screen.expect(r"/dev/pts/\d\r\n31 71")
        screen.type("exit 4\n")
        assert command.wait(SOON) == 4
        screen.restored()


@pytest.mark.control
def test_exec_where_nothing_runs(podman: Podman) -> None:
    identity = podman.start(SLEEP, "--name=box")
    podman.do("pause", "box")
    assert podman.out("inspect", "-f", "{{.State.Status}}", "box") == "paused"
    podman.refused(255, "exec", "box", "true")
    assert podman.limit(identity, "freezer", "freezer.state") == "FROZEN"
    podman.do("unpause", "box")
    assert podman.out("exec", "box", "echo", "awake") == "awake"
    podman.do("kill", "box")
    assert podman.out("wait", "box") == "137"
    podman.refused(255, "exec", "box", "true")


@pytest.mark.control
def test_stop_waits_and_then_kills(podman: Podman) -> None:
    podman.start(POLITE, "--name=polite")
    podman.start(DEAF, "--name=deaf")
    podman.do("kill", "--signal=USR1", "polite")
    assert podman.said("got") == "usr1"
    podman.do("stop", "--time=100", "polite")
    podman.do("stop", "--time=0", "deaf")
    states = [podman.inspect(name)["State"] for name in ("polite", "deaf")]
    assert [(state["ExitCode"], state["Status"]) for state in states] == [(5, "exited"), (137, "exited")]
    assert podman.out("wait", "polite", "deaf").split() == ["5", "137"]
    podman.start("trap 'exit 6' HUP; ready; while :; do sleep 1000 & wait $!; done", "--name=hup", "--stop-signal=HUP")
    podman.do("stop", "--time=100", "hup")
    assert podman.out("wait", "hup") == "6"


def test_stop_after_its_grace(podman: Podman) -> None:
    podman.start(DEAF, "--name=deaf")
    podman.do("stop", "--time=1", "deaf")
    assert podman.out("wait", "deaf") == "137"


def test_ps_logs_top_inspect(podman: Podman) -> None:
    identity = podman.start("echo one; echo two >&2; ready; exec sleep 1000", "--name=box", "--label=kind=test")
    assert podman.out("logs", "box") == "one"
    done = podman.do("logs", "box")
    assert (done.stdout, done.stderr) == ("one\n", "two\n")
    listed = json.loads(podman.out("ps", "--format=json", "--filter=label=kind=test"))
    assert [(item["Id"], item["State"]) for item in listed] == [(identity, "running")]
    shown = podman.inspect("box")
    assert (shown["OCIRuntime"], shown["State"]["Status"]) == (podman.runtime, "running")
    command = open(f"/proc/{shown['State']['Pid']}/cmdline").read()
    assert command == "sleep\x001000\x00"
    assert "sleep 1000" in podman.out("top", "box")
    assert podman.out("top", "box", "pid", "user", "comm").split() == ["PID", "USER", "COMMAND", "1", "root", "sleep"]
    podman.do("rm", "-f", "-t0", "box")
    assert podman.out("ps", "-aq") == ""


def test_start_restart_and_what_lasts(podman: Podman) -> None:
    podman.start("date >>/log; wc -l </log >/signals/lines; " + SLEEP, "--name=box")
    before = podman.inspect("box")["State"]["Pid"]
    podman.do("restart", "--time=0", "box")
    assert podman.inspect("box")["State"]["Pid"] != before
    until(lambda: podman.said("lines") == "2", "a second start")
    podman.do("stop", "--time=0", "box")
    podman.do("start", "box")
    until(lambda: podman.said("lines") == "3", "a third start")
    podman.do("create", "--name=later", "-i", IMAGE, "sh", "-c", "cat; exit 8")
    done = podman.do("start", "--attach", "--interactive", "later", stdin="late\n", check=False)
    assert (done.returncode, done.stdout) == (8, "late\n")


def test_restart_policy(podman: Podman) -> None:
    script = "echo x >>/log; wc -l </log; [ $(wc -l </log) = 3 ] || exit 1"
    podman.do("run", "-d", "--name=again", "--restart=on-failure:5", IMAGE, "sh", "-c", script)
    until(lambda: podman.out("logs", "again").split() == ["1", "2", "3"], "three starts")
    until(lambda: podman.inspect("again")["State"]["Status"] == "exited", "an end")
    state = podman.inspect("again")
    assert (state["State"]["ExitCode"], state["RestartCount"]) == (0, 2)


def test_attach(podman: Podman) -> None:
    podman.start("ready; read -r line; echo got $line; exit 2", "--name=box", "-i")
    done = podman.do("attach", "box", stdin="word\n", check=False)
    assert done.stdout.strip() == "got word"  # podman's own exit code is a matter of luck if the program ends at once
    assert podman.out("wait", "box") == "2"


def test_copy_commit_and_diff(podman: Podman) -> None:
    podman.start(SLEEP, "--name=box")
    podman.write("/run/test/in", "from the host\n")
    podman.do("cp", "/run/test/in", "box:/work/in")
    assert podman.out("exec", "box", "cat", "/work/in") == "from the host"
    podman.do("exec", "box", "sh", "-c", "echo from inside >/work/out")
    podman.do("cp", "box:/work/out", "/run/test/out")
    assert podman.path("/run/test/out").read_text() == "from inside\n"
    podman.do("commit", "-q", "box", "localhost/grown")
    assert podman.out("run", "--rm", "localhost/grown", "cat", "/work/out") == "from inside"
    podman.do("rmi", "localhost/grown")


def test_health(podman: Podman) -> None:
    check = ["--health-cmd=test -e /healthy", "--health-interval=disable", "--health-retries=1"]
    podman.start(SLEEP, "--name=box", *check)
    podman.refused(1, "healthcheck", "run", "box")
    podman.do("exec", "box", "touch", "/healthy")
    podman.do("healthcheck", "run", "box")
    assert podman.inspect("box")["State"]["Health"]["Status"] == "healthy"


def test_checkpoint_is_refused(podman: Podman) -> None:
    podman.start(SLEEP, "--name=box")
    assert "criu" in podman.refused(125, "container", "checkpoint", "box").lower()
    assert podman.out("exec", "box", "echo", "alive") == "alive"


def test_a_killed_program(podman: Podman) -> None:
    podman.start(SLEEP, "--name=box")
    os.kill(podman.inspect("box")["State"]["Pid"], 9)
    assert podman.out("wait", "box") == "137"
