"""The life of a container under docker: exec, stop, kill, pause, logs, restart, copy, and its end."""

from __future__ import annotations

import os

import pytest

from tests.clients.docker import IMAGE, Docker
from tests.lifecycle.machine import SOON, until
from tests.lifecycle.terminal import terminal

SLEEP = "ready; exec sleep 1000"
POLITE = "trap 'exit 5' TERM; trap 'echo usr1 >/signals/got' USR1; ready; while :; do sleep 1000 & wait $!; done"
DEAF = "trap '' TERM; ready; while :; do sleep 1000; done"


@pytest.mark.control
def test_exec(docker: Docker) -> None:
    docker.start(SLEEP, "--name=box", "--user=1000", "--env=COLOUR=blue")
    done = docker.do("exec", "-i", "box", "sh", "-c", "cat; echo bad >&2; exit 9", check=False, stdin="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (9, "in\n", "bad\n")
    script = "id -un; pwd; echo $COLOUR $SIZE; ls /proc/self/fd | wc -l"
    assert docker.out("exec", "box", "sh", "-c", script).split() == ["alice", "/", "blue", "4"]
    options = "--user=root --workdir=/work --env=SIZE=big"
    assert docker.out("exec", *options.split(), "box", "sh", "-c", script).split() == [
        "root",
        "/work",
        "blue",
        "big",
        "4",
    ]
    docker.refused(137, "exec", "box", "sh", "-c", "kill -9 $$")
    for program, why in (("no-such", "executable file not found"), ("/work/text", "permission denied")):
        done = docker.do("exec", "box", program, check=False)
        assert done.returncode in (126, 127) and why in done.stdout + done.stderr  # clients and daemons differ here
    docker.do("exec", "-d", "box", "sh", "-c", "echo done >/signals/detached")
    assert docker.said("detached") == "done"
    with terminal(31, 71) as screen:
        command = screen.run(docker, "exec", "-it", "box", "sh")  # type: ignore[arg-type]
        screen.expect(r"\$ ")
        screen.type("tty; until stty size | grep '31 71'; do :; done\n")
        screen.expect(r"/dev/pts/\d\r\n31 71")
        screen.type("exit 4\n")
        assert command.wait(SOON) == 4


@pytest.mark.control
def test_pause_and_kill(docker: Docker) -> None:
    identity = docker.start(SLEEP, "--name=box")
    docker.do("pause", "box")
    assert docker.inspect("box")["State"]["Status"] == "paused"
    assert docker.limit(identity, "freezer", "freezer.state") == "FROZEN"
    assert "paused" in docker.refused(1, "exec", "box", "true")
    docker.do("unpause", "box")
    assert docker.out("exec", "box", "echo", "awake") == "awake"
    docker.do("kill", "box")
    assert docker.out("wait", "box") == "137"
    assert "is not running" in docker.refused(1, "exec", "box", "true")
    docker.start(SLEEP, "--name=other")
    os.kill(docker.inspect("other")["State"]["Pid"], 9)
    assert docker.out("wait", "other") == "137"


@pytest.mark.control
def test_stop_waits_and_then_kills(docker: Docker) -> None:
    docker.start(POLITE, "--name=polite")
    docker.start(DEAF, "--name=deaf")
    docker.do("kill", "--signal=USR1", "polite")
    assert docker.said("got") == "usr1"
    docker.do("stop", "--time=100", "polite")
    docker.do("stop", "--time=1", "deaf")
    assert docker.out("wait", "polite", "deaf").split() == ["5", "137"]


def test_logs_copy_restart_and_init(docker: Docker) -> None:
    script = (
        "echo one; echo two >&2; date >>/log; wc -l </log >/signals/lines; cat /proc/1/comm; ready; exec sleep 1000"
    )
    docker.start(script, "--name=box", "--init")
    done = docker.do("logs", "box")
    assert (done.stdout.split(), done.stderr) == (["one", docker.out("exec", "box", "cat", "/proc/1/comm")], "two\n")
    assert "init" in done.stdout
    docker.write("/run/test/in", "from the host\n")
    docker.do("cp", "/run/test/in", "box:/work/in")
    assert docker.out("exec", "box", "cat", "/work/in") == "from the host"
    docker.do("cp", "box:/log", "/run/test/out")
    assert docker.path("/run/test/out").read_text().count("\n") == 1
    docker.do("restart", "--time=0", "box")
    until(lambda: docker.said("lines") == "2", "a second start")
    docker.do("create", "--name=later", "-i", IMAGE, "sh", "-c", "cat; exit 8")
    done = docker.do("start", "--attach", "--interactive", "later", stdin="late\n", check=False)
    assert (done.returncode, done.stdout) == (8, "late\n")


def test_health_and_restart_policy(docker: Docker) -> None:
    check = ["--health-cmd=test -e /healthy", "--health-interval=50ms", "--health-retries=1"]
    docker.start(SLEEP, "--name=box", *check)
    until(lambda: docker.inspect("box")["State"]["Health"]["Status"] == "unhealthy", "a sick container")
    docker.do("exec", "box", "touch", "/healthy")
    until(lambda: docker.inspect("box")["State"]["Health"]["Status"] == "healthy", "a healthy container")
    script = "echo x >>/log; wc -l </log; [ $(wc -l </log) = 3 ] || exit 1"
    docker.do("run", "-d", "--name=again", "--restart=on-failure:5", IMAGE, "sh", "-c", script)
    until(lambda: docker.inspect("again")["State"]["Status"] == "exited", "an end")
    assert docker.out("logs", "again").split() == ["1", "2", "3"]
    assert docker.inspect("again")["State"]["ExitCode"] == 0
