"""A container is a process: the host sees it as it sees any other."""

from __future__ import annotations

import os
from pathlib import Path

from tests.lifecycle.machine import Machine

KINDS = ("pid", "mnt", "uts", "ipc", "net", "cgroup")


def test_the_pid_of_ps_is_the_hosts(host: Machine) -> None:
    identity = host.out("run", "-d", "--name", "box", "busybox", "sleep", "4321")
    pid = int(host.out("ps").splitlines()[1].split("Up")[1].split("seconds")[1].split()[0])
    assert pid == host.inspect("box")["State"]["Pid"]
    shown = host.run(["ps", "-o", "args=", "-p", str(pid)]).stdout
    assert shown.strip() == "sleep 4321"
    assert "sleep 4321" in host.run(["ps", "-eo", "args"]).stdout.splitlines()
    for kind in KINDS:
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/{host.pid}/ns/{kind}"), kind
    assert os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user")
    cgroups = Path(f"/proc/{pid}/cgroup").read_text()
    assert f"/{host.cgroup}/{identity}" in cgroups
    assert all(str(pid) in (path / "cgroup.procs").read_text().split() for path in host.cgroups())


def test_it_is_process_1_inside_and_its_parent_the_monitor(host: Machine) -> None:
    host.start("--name", "box", "busybox", "sleep", "600")
    pid = host.inspect("box")["State"]["Pid"]
    status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    assert status["NSpid"].split() == [str(pid), "1"]
    parent = Path(f"/proc/{status['PPid']}/cmdline").read_bytes().split(b"\0")
    assert parent[0].endswith(b"minirun-monitor") and host.inspect("box")["Id"][:12].encode() in parent


def test_the_namespaces_can_be_entered_with_the_hosts_tools(host: Machine) -> None:
    host.out("run", "-d", "--name", "box", "--hostname", "inside", "busybox", "sleep", "600")
    pid = str(host.inspect("box")["State"]["Pid"])
    assert host.run(["nsenter", "--target", pid, "--uts", "hostname"]).stdout == "inside\n"
    address = host.inspect("box")["NetworkSettings"]["IPAddress"]
    assert address in host.run(["ip", "netns", "exec", "box", "ip", "-4", "addr"]).stdout


def test_what_it_leaves_behind_is_killed_with_it(host: Machine) -> None:
    """Process 1 ends, and the kernel ends all others of the namespace."""
    host.start("--name", "box", "busybox", "sh", "-c", "(trap '' HUP TERM; sleep 4322) & sleep 0.1")
    assert host.out("wait", "box") == "0"
    assert "sleep 4322" not in host.run(["ps", "-eo", "args"]).stdout.splitlines()


def test_orphans_are_reaped_by_process_1(host: Machine) -> None:
    """The shell, as process 1, inherits and reaps; the monitor has nothing to do with them."""
    states = host.sh("(sleep 0.01 &); sleep 0.1; cat /proc/[0-9]*/stat 2> /dev/null | cut -d' ' -f3")
    assert "Z" not in states.split()
