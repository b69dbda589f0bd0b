"""``exec``: one more process in a running container."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.lifecycle.machine import SOON, Machine, until

KINDS = ("pid", "mnt", "uts", "ipc", "net", "cgroup")
STATUS = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status"


@pytest.fixture
def box(host: Machine) -> str:
    """A running container."""
    host.start("--name", "box", "-e", "FROM=run", "-w", "/etc", "alpine", "sleep", "600")
    return "box"


def test_exit_code_and_streams(host: Machine, box: str) -> None:
    done = host.minirun("exec", "-i", box, "sh", "-c", "cat; echo err >&2; exit 7", stdin="in\n", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "in\n", "err\n")


@pytest.mark.parametrize("number", [1, 2, 9, 15])
def test_death_by_signal(host: Machine, box: str, number: int) -> None:
    assert host.minirun("exec", box, "sh", "-c", f"kill -{number} $$", check=False).returncode == 128 + number


def test_programs_that_cannot_be_executed(host: Machine, box: str) -> None:
    assert "not found" in host.refused("exec", box, "nothing", code=127)
    assert "denied" in host.refused("exec", box, "/etc/hostname", code=126)
    assert "/no/where" in host.refused("exec", "-w", "/no/where", box, "true", code=126)
    host.refused("exec", "-u", "ghost", box, "true")


def test_it_is_in_the_same_namespaces_and_cgroup(host: Machine, box: str) -> None:
    session = host.spawn("exec", "-i", box, "sh", "-c", "echo ready; cat", stdin=subprocess.PIPE)
    assert session.stdout and session.stdout.readline() == "ready\n"
    first = host.inspect(box)["State"]["Pid"]
    (pid,) = [pid for pid in _pids(host) if pid != first and b"cat" in Path(f"/proc/{pid}/cmdline").read_bytes()][:1]
    for kind in KINDS:
        assert os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/{first}/ns/{kind}"), kind
    assert Path(f"/proc/{pid}/cgroup").read_text() == Path(f"/proc/{first}/cgroup").read_text()
    assert os.readlink(f"/proc/{pid}/root") == os.readlink(f"/proc/{first}/root")
    session.communicate("", timeout=SOON)


def _pids(host: Machine) -> list[int]:
    return [int(line) for line in (host.cgroups()[0] / "cgroup.procs").read_text().split()]


def test_it_has_the_same_rights(host: Machine, box: str) -> None:
    """Also after options that changed them."""
    host.start(
        "--name",
        "more",
        "--cap-add",
        "NET_ADMIN",
        "--cap-drop",
        "KILL",
        "-u",
        "guest",
        "--group-add",
        "7",
        "alpine",
        "sh",
        "-c",
        f"{STATUS}; sleep 600",
    )
    for name in (box, "more"):
        pid = host.inspect(name)["State"]["Pid"]
        wanted = [
            line
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith(("Cap", "NoNewPrivs", "Seccomp:", "Groups"))
        ]
        assert [line.strip() for line in host.out("exec", name, "sh", "-c", STATUS).splitlines()] == [
            line.strip() for line in wanted
        ]


def test_it_may_not_do_more_than_the_container(host: Machine, box: str) -> None:
    for forbidden in ("mount -t tmpfs t /mnt", "unshare -U true", "echo x > /proc/sys/kernel/hostname"):
        assert host.out("exec", box, "sh", "-c", f"({forbidden}) 2> /dev/null || echo refused") == "refused"


def test_environment_directory_and_user(host: Machine, box: str) -> None:
    assert (
        host.out("exec", "-e", "A=1", "-e", "MINIRUN_STATE", box, "sh", "-c", "echo $FROM $A $MINIRUN_STATE; pwd")
        == f"run 1 {host.state}\n/etc"
    )
    assert (
        host.out("exec", "-w", "/tmp", "-u", "guest:users", box, "sh", "-c", "pwd; id -un; id -gn")
        == "/tmp\nguest\nusers"
    )
    assert host.out(
        "exec", "-u", "1234:77", box, "sh", "-c", "id -u; id -G; grep CapEff /proc/self/status"
    ).split() == ["1234", "77", "CapEff:", "0" * 16]


def test_its_descriptors(host: Machine, box: str) -> None:
    for options in ((), ("-i",)):
        assert host.out("exec", *options, box, "ls", "/proc/self/fd").split() == ["0", "1", "2", "3"]


def test_detached(host: Machine, box: str) -> None:
    command = host.spawn("exec", "-d", box, "sh", "-c", "touch /done; sleep 600")
    assert command.communicate(timeout=SOON) == ("", "") and command.returncode == 0
    until(lambda: host.minirun("exec", box, "test", "-e", "/done", check=False).returncode == 0, "what was detached")
    assert "sleep 600" in host.out("exec", box, "ps", "-o", "args")
    assert "not found" in host.refused("exec", "-d", box, "nothing", code=127)


def test_into_a_container_that_is_not_running(host: Machine) -> None:
    host.start("--name", "box", "busybox", "true")
    host.out("wait", "box")
    assert "not running" in host.refused("exec", "box", "true")


def test_ten_at_once(host: Machine, box: str) -> None:
    sessions = [host.spawn("exec", "-i", box, "sh", "-c", f"cat; exit {n}", stdin=subprocess.PIPE) for n in range(10)]
    for number, session in enumerate(sessions):
        output, errors = session.communicate(f"{number}\n", timeout=SOON)
        assert (output, errors, session.returncode) == (f"{number}\n", "", number)


def test_it_dies_with_the_container(host: Machine, box: str) -> None:
    session = host.spawn("exec", box, "sh", "-c", "echo ready; sleep 600")
    assert session.stdout and session.stdout.readline() == "ready\n"
    host.minirun("rm", "-f", box)
    session.communicate(timeout=SOON)
    assert session.returncode == 137


def test_its_command_killed_ends_nothing_else(host: Machine, box: str) -> None:
    session = host.spawn("exec", box, "sh", "-c", "echo ready; sleep 600")
    assert session.stdout and session.stdout.readline() == "ready\n"
    session.kill()
    session.communicate(timeout=SOON)
    assert host.out("exec", box, "echo", "alive") == "alive"


def test_fifty_in_a_row_leave_no_process(host: Machine, box: str) -> None:
    for _ in range(25):
        host.minirun("exec", box, "true")
    until(lambda: len(host.processes()) == 2, "the monitor and the program alone")  # and no zombie of a session
    assert len(_pids(host)) == 1
