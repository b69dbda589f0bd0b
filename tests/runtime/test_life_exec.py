"""``exec``: a process of its own in the namespaces of a container; who it is, and what becomes of it."""

from __future__ import annotations

import array
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.fakehost import CGROUPS, TIMEOUT
from tests.lifecycle.machine import until
from tests.runtime.bundles import OCI, SLEEP, RuntimeHost, config, one_line


@pytest.fixture
def running(box: RuntimeHost) -> RuntimeHost:
    """A host where the container "box" runs."""
    box.oci("create", "box")
    box.oci("start", "box")
    return box


def document(box: RuntimeHost, **process: Any) -> str:
    """Write a process.json; its path."""
    box.path("/run/process.json").write_text(
        json.dumps({"args": ["true"], "cwd": "/", "env": ["PATH=/bin"], **process})
    )
    return "/run/process.json"


def test_everything_that_a_process_document_says(running: RuntimeHost) -> None:
    caps = {
        name: ["CAP_CHOWN", "CAP_KILL"] for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
    }
    look = "exec 2>&1; id -u; id -g; id -G; umask; pwd; env; ulimit -n; cd /proc/self; cat oom_score_adj status sched"
    path = document(
        running,
        args=["sh", "-c", look],
        user={"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o27},
        cwd="/bin",
        env=["PATH=/bin", "A=b c", "Z="],
        capabilities=caps,
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}],
        oomScoreAdj=77,
        noNewPrivileges=True,
        scheduler={"policy": "SCHED_BATCH", "nice": 5},
        ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 7},
        execCPUAffinity={"initial": "0", "final": "0"},
    )
    lines = running.oci("exec", "--process", path, "box").splitlines()
    assert lines[:5] == ["1000", "1001", "1001 5 6", "0027", "/bin"]
    assert {"A=b c", "Z="} <= set(lines)
    assert not [line for line in lines if "MINIRUN" in line]
    assert {"100", "77"} <= set(lines)
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert {name: int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == dict.fromkeys(
        ("Inh", "Prm", "Eff", "Bnd", "Amb"), 0b100001
    )
    assert status["NoNewPrivs"] == "1"
    assert status["Cpus_allowed_list"] == "0"
    sched = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in lines if line.count(":") == 1}
    assert (sched["policy"], sched["prio"]) == ("3", "125")


def test_its_exit_code_and_what_keeps_it_from_running(running: RuntimeHost) -> None:
    (running.path(running.bundle) / "rootfs/file").write_text("")
    for args, code in ((["sh", "-c", "exit 0"], 0), (["sh", "-c", "exit 77"], 77), (["sh", "-c", "kill -15 $$"], 143)):
        running.oci("exec", "box", *args, code=code)
    assert "executable file not found" in running.refused("exec", "box", "nope")
    assert "no such file or directory" in running.refused("exec", "box", "/nope")
    assert "permission denied" in running.refused("exec", "box", "/file")
    assert "permission denied" in running.refused("exec", "box", "/bin")
    for cwd in ("/nowhere", "/file"):
        assert cwd in running.refused("exec", "--cwd", cwd, "box", "true")
    running.refused("exec", "--process", document(running, args=[]), "box")
    running.refused("exec", "--process", document(running, cwd="relative"), "box")
    running.refused("exec", "--process", document(running, user={"uid": "root"}), "box")


def test_its_pid_and_that_it_goes_on_alone(running: RuntimeHost) -> None:
    running.oci("exec", "--detach", "--pid-file", "/run/pid", "box", "sleep", "1000")
    pid = int(running.path("/run/pid").read_text())
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x001000\x00"
    assert str(pid) in running.oci("ps", "--format", "json", "box")
    ours = running.told()["pid"]
    for kind in ("pid", "mnt", "ipc", "uts", "net"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/{ours}/ns/{kind}")
    assert Path(f"/proc/{pid}/cgroup").read_text() == Path(f"/proc/{ours}/cgroup").read_text()
    running.oci("kill", "box", "KILL")
    until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes(), "its end")


def test_before_the_start_and_after_the_end(box: RuntimeHost) -> None:
    box.oci("create", "box")
    assert box.oci("exec", "box", "echo", "here") == "here\n"
    box.oci("pause", "box")
    assert "cannot exec in a paused container" in box.refused("exec", "box", "true")
    box.oci("resume", "box")
    box.oci("start", "box")
    box.ended()
    box.refused("exec", "box", "true")
    box.oci("delete", "box")
    assert "does not exist" in box.refused("exec", "box", "true")


def joined(box: RuntimeHost) -> bool:
    """Whether another process is in a cgroup of the container: it joins one after the other, until one stops it."""
    found = [*CGROUPS.glob(f"*/{box.cgroup}/c/cgroup.procs"), *CGROUPS.glob(f"{box.cgroup}/c/cgroup.procs")]
    return any(len(file.read_text().split()) > 1 for file in found)


def test_into_one_that_is_frozen_it_waits(running: RuntimeHost) -> None:
    running.oci("pause", "box")
    command = running.spawn("exec", "--ignore-paused", "box", "echo", "thawed")
    until(lambda: joined(running), "its process in a cgroup")
    assert command.poll() is None
    running.oci("resume", "box")
    assert command.communicate(timeout=TIMEOUT) == ("thawed\n", "")
    running.oci("pause", "box")
    command = running.spawn("exec", "--ignore-paused", "box", "echo", "never")
    until(lambda: joined(running), "its process in a cgroup")
    running.oci("delete", "--force", "box")
    _, complaint = command.communicate(timeout=TIMEOUT)
    assert command.returncode in (0, 137, 255), complaint  # it was thawed, to be killed


def test_a_hundred_at_once(running: RuntimeHost) -> None:
    commands = [running.spawn("exec", "box", "sh", "-c", f"echo {number}; exit {number}") for number in range(100)]
    for number, command in enumerate(commands):
        assert command.communicate(timeout=TIMEOUT) == (f"{number}\n", "")
        assert command.returncode == number
    assert len(json.loads(running.oci("ps", "--format", "json", "box"))) == 1


def received(connection: socket.socket) -> int:
    """The one descriptor that comes over a console socket."""
    room = array.array("i", [0])
    _, ancillary, _, _ = connection.recvmsg(100, socket.CMSG_SPACE(4))
    room.frombytes(ancillary[0][2][:4])
    return room[-1]


@pytest.mark.parametrize("verb", ["exec", "create"])
def test_a_terminal_through_a_console_socket(box: RuntimeHost, verb: str) -> None:
    """Its size, its owner, and that it is the controlling terminal; by a path that is longer than an address may be."""
    folder = box.path("/run") / ("x" * 120)
    folder.mkdir(exist_ok=True)
    script = "stty size; test -t 0 && tty; exec 2>&1; echo ok >/dev/tty; read line; echo got $line"
    wanted = {"terminal": True, "consoleSize": {"height": 33, "width": 77}, "user": {"uid": 7, "gid": 0}}
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(folder)
        listener.bind("console.sock")
        listener.listen()
        os.chdir("/")
        path = f"/run/{folder.name}/console.sock"
        if verb == "create":
            box.configure(["sh", "-c", script], **wanted)
            box.oci("create", "--console-socket", path, "box")
        else:
            box.oci("create", "box")
            process = document(box, args=["sh", "-c", script], **wanted)
            box.oci("exec", "--detach", "--console-socket", path, "--process", process, "box")
        connection, _ = listener.accept()
    master = received(connection)
    connection.close()
    if verb == "create":
        box.oci("start", "box")
    seen = b""
    os.write(master, b"hello\n")
    while b"got hello" not in seen:
        seen += os.read(master, 1000)
    os.close(master)
    assert b"33 77" in seen
    assert b"ok\r\n" in seen
    (folder / "console.sock").unlink()


def test_a_console_socket_that_nobody_listens_to(running: RuntimeHost) -> None:
    """Nothing stays behind, and no zombie: one would keep the PID namespace from ending."""
    path = document(running, terminal=True)
    for _ in range(5):  # the process goes on while its terminal is being handed over
        words = ("--console-socket", "/run/no.sock", "--process", path, "--detach", "box")
        assert "/run/no.sock" in running.refused("exec", *words)
    running.refused("exec", "--detach", "--process", path, "box")
    inside = os.listdir(f"/proc/{running.told()['pid']}/root/proc")
    assert [name for name in inside if name.isdigit()] == ["1"]
    running.configure(SLEEP, terminal=True)
    running.refused("create", "--console-socket", "/run/no.sock", "other")
    running.refused("create", "other")


@pytest.mark.parametrize("kinds", [("user",), ("time",), ("user", "time"), ("joined",), ("none",)], ids="+".join)
def test_every_kind_of_namespaces(box: RuntimeHost, kinds: tuple[str, ...]) -> None:
    """Made, joined by path, or the host's own: create, exec, kill and delete do the same."""
    linux = config(f"{box.cgroup}/c", SLEEP)["linux"]
    if kinds == ("none",):
        linux["namespaces"] = [{"type": "mount"}]
    elif kinds == ("joined",):
        box.oci("create", "first")
        first = box.told("first")["pid"]
        names = {"network": "net"}
        linux["namespaces"] = [
            {"type": kind, "path": f"/proc/{first}/ns/{names.get(kind, kind)}"}
            for kind in ("pid", "ipc", "uts", "network")
        ] + [{"type": "mount"}]
        linux["cgroupsPath"] += "2"
    else:
        linux["namespaces"] += [{"type": kind} for kind in kinds]
        if "user" in kinds:
            for name in ("uid", "gid"):
                linux[f"{name}Mappings"] = [{"containerID": 0, "hostID": 100_000, "size": 1000}]
            box.run(["chown", "-R", "100000:100000", f"{box.bundle}/rootfs"])
        if "time" in kinds:
            linux["timeOffsets"] = {"boottime": {"secs": 1_000_000}}
    box.configure(["sh", "-c", "sleep 1000 & wait"], {"linux": linux})
    box.oci("create", "box")
    box.oci("start", "box")
    pid = box.told()["pid"]
    told = box.oci(
        "exec", "box", "sh", "-c", "for kind in pid mnt ipc uts net user time; do ls -l /proc/self/ns/$kind; done"
    )
    for line in told.splitlines():
        path, _, target = line.rpartition("/ns/")[2].partition(" -> ")
        assert os.readlink(f"/proc/{pid}/ns/{path}") == target
    if "user" in kinds:
        assert Path(f"/proc/{pid}").stat().st_uid == 100_000
        assert box.oci("exec", "box", "id", "-u") == "0\n"
    if "time" in kinds:
        assert float(box.oci("exec", "box", "cat", "/proc/uptime").split()[0]) > 1_000_000
    until(lambda: len(json.loads(box.oci("ps", "--format", "json", "box"))) == 2, "both processes")
    box.oci("kill", "box", "KILL")
    until(lambda: box.told()["status"] == "stopped", "stopped")
    box.oci("delete", "box")
    if kinds == ("joined",):
        assert box.told("first")["status"] == "created"
        box.oci("delete", "first")
    box.run(["chown", "-R", "0:0", f"{box.bundle}/rootfs"])
    assert box.leftovers() == []


def test_a_capability_that_the_caller_has_not_is_left_out_with_a_warning(box: RuntimeHost) -> None:
    box.oci("create", "box")
    held = {name: ["CAP_SYS_TIME", "CAP_KILL"] for name in ("bounding", "effective", "permitted")}
    document = {
        "args": ["busybox", "grep", "CapEff", "/proc/self/status"],
        "cwd": "/",
        "env": ["PATH=/bin"],
        "capabilities": held,
    }
    words = ["setpriv", "--bounding-set=-sys_time", OCI, "exec", "--process=-", "box"]
    done = box.call(*words, stdin=json.dumps(document))
    assert done.stdout.split() == ["CapEff:", "0000000000000020"], done
    assert "CAP_SYS_TIME: cannot be given here, left out" in one_line(done.stderr)
