"""kill -9 at many moments: the next command finds nothing left, and the same run works.

strace(1) makes the moments exact: it delivers SIGKILL on entering the N-th call of a kind, before the call is done.
Some calls are made by one of the processes only, so that the kind chooses the victim.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.lifecycle.conftest import Machines
from tests.lifecycle.machine import MINIRUN, SOON, Machine, next_container, until

RUN = ("run", "--rm", "--name", "victim", "-p", "8080:80", "-p", "[::1]:8081:80", "-m", "64m")
TRUE = (*RUN, "busybox", "true")

MOMENTS = 28  # of the command alone, evenly spread over the calls that change something
LAST = 8  # and each of the last ones, when the clean-up itself is half done
CHANGING = (
    "mkdir|rename|linkat|symlink|unlink|unlinkat|rmdir|write|sendmsg|sendto|recvmsg|flock|mount|umount2|unshare|setns"
    "|memfd_create|socketpair|vfork|clone|clone3"
)
# Calls that only the monitor, or only init, makes.
OTHERS = {
    "monitor": [("bind", 1), ("listen", 1), ("setsid", 1)],
    "init": [
        ("pivot_root", 1),
        ("move_mount", 1),
        ("move_mount", 8),
        ("sethostname", 1),
        ("setresuid", 1),
        ("capset", 1),
        ("seccomp", 1),
        ("mknodat", 3),
        ("getcwd", 1),
    ],
}


def nothing_left(host: Machine) -> None:
    """After the next command nothing is left, and the same run works."""
    host.settle()
    host.minirun("ps", "-a")
    host.settle()
    host.clean()
    assert host.minirun(*TRUE).returncode == 0
    host.settle()
    host.clean()


def killed_at(host: Machine, call: str, number: int, *options: str) -> int:
    """Run with SIGKILL at the N-th ``call``; the exit code of strace, which is that of what it started."""
    inject = [f"--inject={call}:signal=KILL:when={number}", f"--trace={call}", "--output=/dev/null"]
    return host.run(["strace", *options, *inject, *MINIRUN, *TRUE], check=False, timeout=SOON).returncode


@pytest.fixture(scope="module")
def calls(machines: Machines) -> list[str]:
    """The names of the changing calls that the command makes in a run, in their order."""
    host = machines.get()
    host.minirun(*TRUE)  # the first one does more: it starts the name server
    host.run(["strace", f"--trace=/^({CHANGING})$", "--output=/run/trace", *MINIRUN, *TRUE])
    # Not those that the kernel lets begin again, when somebody else holds its lock of links: how often is chance.
    return re.findall(r"^(\w+)\((?!.*\(To be restarted\)$)", host.path("/run/trace").read_text(), re.MULTILINE)


@pytest.mark.parametrize("moment", [*range(MOMENTS), *range(-LAST, 0)])
def test_the_command_is_killed(host: Machine, calls: list[str], moment: int) -> None:
    position = moment * (len(calls) - 1) // MOMENTS if moment >= 0 else len(calls) + moment
    call = calls[position]
    number = calls[: position + 1].count(call)
    assert killed_at(host, call, number) == -signal.SIGKILL, f"there is no {call} number {number}"
    nothing_left(host)


@pytest.mark.parametrize(("call", "number"), [*OTHERS["monitor"], *OTHERS["init"]], ids=lambda value: str(value))
def test_another_process_is_killed(host: Machine, call: str, number: int) -> None:
    assert killed_at(host, call, number, "--follow-forks") != 0, f"there is no {call} number {number}"
    nothing_left(host)


def running(host: Machine) -> tuple[str, int, int]:
    """A container with everything; its id, its process and its monitor."""
    identity = host.out("run", "-d", *RUN[1:], "busybox", "sleep", "600")
    pid = host.inspect("victim")["State"]["Pid"]
    return identity, pid, parent(pid)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_the_monitor_is_killed_while_the_container_runs(host: Machine) -> None:
    _, pid, monitor = running(host)
    os.kill(monitor, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the program, which dies with its monitor")
    nothing_left(host)


def test_a_container_without_rm_whose_monitor_was_killed_has_ended_by_kill(host: Machine) -> None:
    host.start("--name", "kept", "busybox", "sleep", "600")
    pid = host.inspect("kept")["State"]["Pid"]
    os.kill(parent(pid), signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the program")
    state = host.inspect("kept")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 137)
    assert host.out("wait", "kept") == "137"


def test_init_is_killed_while_the_container_runs(host: Machine) -> None:
    _, pid, _ = running(host)
    os.kill(pid, signal.SIGKILL)
    nothing_left(host)


@pytest.mark.parametrize("victim", ["command", "monitor", "init"])
@pytest.mark.parametrize("file", ["plan.json", "monitor.sock", "state.json"])
def test_killed_when_a_file_appears(host: Machine, victim: str, file: str) -> None:
    before = set(os.listdir(host.path(f"{host.state}/containers")))
    command = host.spawn(*RUN, "busybox", "sleep", "600")
    identity = next_container(host, before, file)
    pids = {"command": command.pid, **others(host, identity)}
    os.kill(pids.get(victim, command.pid), signal.SIGKILL)  # at plan.json there may be no other process yet
    command.wait(SOON)
    host.minirun("rm", "-f", "victim")  # a command that was quicker than the kill left its container running
    command.communicate()
    nothing_left(host)


def others(host: Machine, identity: str) -> dict[str, int]:
    """The monitor of a container and its child, as far as they are there."""
    found = {}
    for pid in host.processes():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"minirun-monitor") and identity[:12].encode() in words:
            found["monitor"] = pid
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if children:
                found["init"] = int(children[0])
    return found


def test_the_clean_up_is_killed(host: Machine) -> None:
    """``rm -f`` dies in the middle of its work; the next command does the rest."""
    for call, number in (("unlink", 1), ("unlink", 3), ("rmdir", 1), ("umount2", 1), ("sendmsg", 2)):
        running(host)
        words = ["strace", f"--inject={call}:signal=KILL:when={number}", f"--trace={call}", "--output=/dev/null"]
        host.run([*words, *MINIRUN, "rm", "-f", "victim"], check=False)
        host.minirun("rm", "-f", "victim", check=False)
        nothing_left(host)


def test_a_container_that_outlives_its_command_cleans_up_after_itself(host: Machine) -> None:
    command = host.spawn(*RUN, "busybox", "sh", "-c", "echo ready; sleep 0.3")
    assert command.stdout and command.stdout.readline() == "ready\n"
    command.kill()
    command.communicate(timeout=SOON)
    host.settle()
    host.clean()
