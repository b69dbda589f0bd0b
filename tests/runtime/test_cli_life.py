"""The OCI runtime's verbs on real containers: what they print, what they return, and what they leave."""

from __future__ import annotations

import json
import os
import termios

import pytest

from tests.fakehost import TIMEOUT
from tests.lifecycle.machine import open_files, until
from tests.lifecycle.terminal import terminal
from tests.runtime.bundles import OCI, SLEEP, RuntimeHost, config, one_line


def test_from_create_to_delete(box: RuntimeHost) -> None:
    assert box.oci("create", "--bundle", box.bundle, "--pid-file", "/run/pid", "box") == ""
    state = box.told()
    assert list(state) == ["ociVersion", "id", "status", "pid", "bundle", "annotations"]
    assert (state["id"], state["status"], state["bundle"]) == ("box", "created", box.bundle)
    assert state["annotations"] == {"org.example.text": 'a "b" \\ ü'}
    assert box.path("/run/pid").read_text() == str(state["pid"])
    assert "is created, not" in box.refused("resume", "box")
    box.oci("start", "box")
    assert box.told() == {**state, "status": "running"}
    assert "is running, not created" in box.refused("start", "box")
    assert "is running, not stopped" in box.refused("delete", "box")
    box.ended()
    assert box.told() == {**state, "status": "stopped", "pid": 0}
    for verb in ("kill", "pause", "update"):  # words that containerd's shim and podman look for
        assert "container not running" in box.refused(verb, "box"), verb
    box.oci("delete", "box")
    for verb in ("state", "start", "kill", "delete", "pause", "resume", "update", "ps", "exec", "events"):
        assert "does not exist" in box.refused(verb, "box", *(["true"] if verb == "exec" else [])), verb
    assert box.oci("delete", "--force", "box") == ""


def test_a_taken_id_is_refused_and_nothing_is_left(box: RuntimeHost) -> None:
    box.oci("create", "box")
    pid = box.told()["pid"]
    assert "already exists" in box.refused("create", "box")
    assert box.told()["pid"] == pid
    box.oci("delete", "-f", "box")
    assert list(box.path(box.top).rglob("*")) == [box.path(f"{box.top}/@creating")]


@pytest.mark.parametrize(
    ("args", "code"),
    [(["true"], 0), (["false"], 1), (["sh", "-c", "exit 42"], 42), (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137)],
)
def test_run_ends_as_the_program_does(box: RuntimeHost, args: list[str], code: int) -> None:
    box.configure(args)
    box.oci("run", "box", code=code)
    assert "does not exist" in box.refused("state", "box")


def test_run_keeps_what_it_is_told_to_keep(box: RuntimeHost) -> None:
    box.configure(["true"])
    box.oci("run", "--keep", "box")
    assert box.told()["status"] == "stopped"
    box.oci("delete", "box")
    box.configure(SLEEP)
    box.oci("run", "--detach", "--pid-file=/run/pid", "box")
    assert box.told()["status"] == "running"


def test_run_passes_streams_and_descriptors(box: RuntimeHost) -> None:
    box.configure(["sh", "-c", "cat; cat <&3; test ! -e /proc/self/fd/4"])
    command = 'exec 3<$1/given 4<$1/given; cd $1; exec "$0" run --preserve-fds 1 box'
    box.path(f"{box.bundle}/given").write_text("given\n")
    done = box.call("sh", "-c", command, OCI, box.bundle, stdin="hello\n")
    assert (done.returncode, done.stdout) == (0, "hello\ngiven\n"), done
    assert "descriptor 3 is not open" in box.refused("run", "--preserve-fds", "1", "box")


def test_signals_to_run_are_for_the_program(box: RuntimeHost) -> None:
    box.configure(["sh", "-c", "trap 'exit 7' USR1; echo ready; while :; do sleep 1000 & wait; done"])
    running = box.spawn("run", "box")
    assert running.stdout and running.stdout.readline() == "ready\n"
    os.kill(running.pid, 10)
    assert running.wait(TIMEOUT) == 7


def test_exec(box: RuntimeHost) -> None:
    box.oci("run", "-d", "box")
    assert box.oci("exec", "box", "sh", "-c", "echo $X; pwd; id -u", code=0).split() == ["/", "0"]
    printed = box.oci("exec", "-e", "X=1", "--cwd=/bin", "-u", "3:4", "-g", "5", "box", "sh", "-c", "echo $X; pwd; id")
    assert printed.split()[:2] == ["1", "/bin"] and "uid=3 gid=4 groups=5" in printed
    box.oci("exec", "box", "sh", "-c", "exit 9", code=9)
    box.oci("exec", "box", "sh", "-c", "kill -15 $$", code=143)
    assert "executable file not found in" in box.refused("exec", "box", "no-such")
    assert "no such file or directory" in box.refused("exec", "box", "/no/such")
    assert "permission denied" in box.refused("exec", "box", "/proc")
    assert "the program is missing" in box.refused("exec", "box")
    document = {"args": ["echo", "from a document"], "cwd": "/", "env": ["PATH=/bin"]}
    assert box.oci("exec", "--process", "-", "box", stdin=json.dumps(document)) == "from a document\n"
    box.path("/run/process.json").write_text(json.dumps({**document, "args": ["sleep", "1000"]}))
    box.oci("exec", "--detach", "--pid-file", "/run/exec-pid", "--process", "/run/process.json", "box")
    pid = int(box.path("/run/exec-pid").read_text())
    assert sorted(json.loads(box.oci("ps", "--format", "json", "box"))) == sorted([box.told()["pid"], pid])
    table = box.oci("ps", "box", "-o", "pid,args").splitlines()
    assert [line.split()[1:] for line in table] == [["COMMAND"], ["/bin/sleep", "1000"], ["sleep", "1000"]]


def test_pause_resume_update_events(box: RuntimeHost) -> None:
    box.oci("run", "-d", "box")
    box.oci("pause", "box")
    assert box.told()["status"] == "paused"
    assert "paused" in box.refused("exec", "box", "true")
    box.oci("resume", "box")
    assert box.told()["status"] == "running"
    box.oci("update", "--memory", "64m", "--pids-limit=50", "box")
    assert box.limit("memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert box.limit("pids.max", "pids.max") == "50"
    box.oci("update", "--resources", "-", "box", stdin='{"pids": {"limit": 60}}')
    assert box.limit("pids.max", "pids.max") == "60"
    stats = json.loads(box.oci("events", "--stats", "box"))
    assert (stats["type"], stats["id"]) == ("stats", "box") and isinstance(stats["data"], dict)
    done = box.call("env", "-C", box.bundle, OCI, "update", "--kernel-memory", "1g", "box")
    assert done.returncode == 0 and "warning" in one_line(done.stderr)


def test_events_end_with_the_container(box: RuntimeHost) -> None:
    box.oci("run", "-d", "box")
    watching = box.spawn("events", "--interval", "1ms", "box")
    assert watching.stdout and json.loads(watching.stdout.readline())["id"] == "box"
    box.ended()
    assert watching.wait(TIMEOUT) == 0
    watching.communicate()


def test_events_tell_of_a_kill_for_memory(box: RuntimeHost) -> None:
    """The first process dies of it: what is told last is why."""
    box.configure(["sh", "-c", "x=12345678; while :; do x=$x$x; done"])
    box.oci("create", "box")
    box.oci("update", "--memory", "8m", "box")
    watching = box.spawn("events", "--interval", "60m", "box")
    _is_watching(watching.pid)
    box.oci("start", "box")
    printed, complaint = watching.communicate(timeout=TIMEOUT)
    assert (watching.returncode, json.loads(printed), complaint) == (0, {"type": "oom", "id": "box"}, "")


def _is_watching(pid: int) -> None:
    """Wait until the command has a pidfd, for the container's end: it has read the counter before."""
    until(lambda: any("pidfd" in target for target in open_files(pid)), "events to wait")


def test_list(box: RuntimeHost) -> None:
    assert json.loads(box.oci("list", "-f", "json")) == [] and box.oci("list", "-q") == ""
    box.oci("create", "box")
    (row,) = json.loads(box.oci("list", "--format=json"))
    assert (row["id"], row["status"], row["owner"]) == ("box", "created", "root") and row["created"].endswith("Z")
    head, line = box.oci("list").splitlines()
    assert head.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"] and line.split()[2] == "created"


def test_spec_writes_a_document_that_runs(box: RuntimeHost) -> None:
    box.path(f"{box.bundle}/config.json").unlink()
    box.oci("spec")
    assert "exists already" in box.refused("spec", "--bundle", box.bundle)
    document = json.loads(box.path(f"{box.bundle}/config.json").read_text())
    document["process"] |= {"args": ["echo", "it runs"], "terminal": False}
    document["linux"]["cgroupsPath"] = f"/{box.cgroup}/spec"
    box.path(f"{box.bundle}/config.json").write_text(json.dumps(document))
    assert box.oci("run", "box") == "it runs\n"
    box.path("/run/rootless").mkdir()
    box.oci("spec", "--rootless", "-b", "/run/rootless")
    linux = json.loads(box.path("/run/rootless/config.json").read_text())["linux"]
    assert {"type": "user"} in linux["namespaces"]


def test_version_and_features(box: RuntimeHost) -> None:
    first, second = box.oci("--version").splitlines()
    assert first.startswith("minirun version ") and second.startswith("spec: 1.")
    assert box.oci("-v") == box.oci("--version")
    assert "createContainer" in json.loads(box.oci("features"))["hooks"]
    for words in (["--help"], ["create", "--help"], ["exec", "-h"]):
        assert box.oci(*words).startswith("usage: minirun oci")


def test_run_and_exec_in_the_foreground_join_the_terminals(box: RuntimeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    box.path("/run/tmp").mkdir()
    monkeypatch.setitem(box.environment, "TMPDIR", "/run/tmp")
    script = "stty size; read line; echo got $line; stty size; exit 3"
    box.configure(["sh", "-c", script], terminal=True)
    with terminal(rows=31, columns=91) as screen:
        running = screen.run(box, "run", "box")
        screen.expect("31 91")
        assert screen.is_raw()
        screen.resize(32, 92)
        _resized(box, 32, 92)
        screen.type("hello\n")
        screen.expect("got hello")
        screen.expect("32 92")
        assert running.wait(TIMEOUT) == 3
        screen.restored()
    box.configure(SLEEP)
    box.oci("run", "-d", "box")
    with terminal(rows=33, columns=93) as screen:
        running = screen.run(box, "exec", "-t", "box", "sh", "-c", "test -t 0 && stty size")
        screen.expect("33 93")
        assert running.wait(TIMEOUT) == 0
        screen.restored()
    assert list(box.path("/run/tmp").iterdir()) == []


def _resized(box: RuntimeHost, rows: int, columns: int) -> None:
    """Wait until the container's terminal has the size: nothing announces it to others."""
    pid = box.told()["pid"]

    def size() -> bool:
        with open(f"/proc/{pid}/root/dev/console", "rb", buffering=0) as file:
            return termios.tcgetwinsize(file) == (rows, columns)

    until(size, "the new size")


def test_a_terminal_without_ours_is_a_pipe(box: RuntimeHost) -> None:
    """Standard input ends, and with it the program's: a terminal has a character for that."""
    box.configure(["sh", "-c", "cat; test -t 1"], terminal=True)
    done = box.call("env", "-C", box.bundle, OCI, "run", "box", stdin="hello\n")
    assert (done.returncode, done.stdout) == (0, "hello\nhello\n"), done  # as typed, and as printed


def test_a_terminal_needs_a_socket_where_nobody_stays(box: RuntimeHost) -> None:
    box.configure(SLEEP, terminal=True)
    for words in (["create"], ["run", "-d"]):
        assert "--console-socket" in box.refused(*words, "box")
    box.configure(SLEEP)
    assert "--console-socket" in box.refused("create", "--console-socket", "/run/none", "box")


def test_checkpoint_and_restore_without_criu(box: RuntimeHost) -> None:
    box.oci("run", "-d", "box")
    for words in (["checkpoint", "box"], ["restore", "other"]):
        done = box.call("env", "-C", box.bundle, "PATH=/nowhere", OCI, *words)
        assert done.returncode == 1 and "criu" in one_line(done.stderr)
    assert box.told()["status"] == "running"


def test_without_a_mount_namespace_the_mounts_are_the_hosts_until_delete(box: RuntimeHost) -> None:
    document = config(f"{box.cgroup}/c", SLEEP)
    kept = [entry for entry in document["linux"]["namespaces"] if entry["type"] != "mount"]
    data = {"destination": "/data of mine", "type": "bind", "source": "/etc", "options": ["rbind", "ro"]}
    linux = document["linux"] | {"namespaces": kept}
    box.configure(SLEEP, {"linux": linux, "mounts": [*document["mounts"], data]})
    before = box.run(["cat", "/proc/self/mountinfo"]).stdout
    box.oci("create", "box")
    box.oci("start", "box")
    assert box.oci("exec", "box", "sh", "-c", "pwd; ls -d '/data of mine'/passwd") == "/\n/data of mine/passwd\n"
    assert box.run(["cat", "/proc/self/mountinfo"]).stdout != before
    box.oci("delete", "--force", "box")
    assert box.run(["cat", "/proc/self/mountinfo"]).stdout == before
