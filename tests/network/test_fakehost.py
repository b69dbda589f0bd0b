"""The fake host itself: it is apart from the machine, and nothing of it remains."""

from __future__ import annotations

import os

import pytest

from tests.fakehost import CGROUPS, FakeHost


def test_it_is_a_machine_of_its_own(host: FakeHost) -> None:
    assert os.readlink("/proc/self/ns/net") not in host.namespaces()
    assert host.run(["ls", "/run"]).stdout == ""
    assert host.sysctl("net.ipv4.ip_forward") == "0"
    host.run(["ping", "-c1", "-W5", host.outside_address])
    host.lan.run(["ping", "-c1", "-W5", host.lan_address])
    host.outside.run(["ping", "-c1", "-W5", host.address])
    no_route = host.outside.run(["ping", "-c1", "-W5", host.neighbour_address], check=False)
    assert "unreachable" in no_route.stderr


def test_processes_end_with_it() -> None:
    machine = FakeHost()
    started = machine.popen(["sh", "-c", "setsid sleep 1000 & echo ready; exec sleep 1000"])
    assert started.stdout and started.stdout.readline() == "ready\n"
    assert len(machine.processes()) == 2
    machine.close()
    assert started.wait(10) == -9
    assert started.communicate() == ("", "")  # its background process held the pipe too


def test_cgroups_end_with_it() -> None:
    top = next((top for top in (CGROUPS / "pids", CGROUPS) if (top / "cgroup.procs").exists()), None)
    if top is None:
        pytest.skip("no cgroup tree here")
    machine = FakeHost()
    folder = top / machine.cgroup / "container"
    folder.mkdir(parents=True)
    machine.run(
        [
            "sh",
            "-c",
            f"setsid unshare --net --mount sleep 1000 < /dev/null > /dev/null 2>&1 & echo $! > {folder}/cgroup.procs",
        ]
    )
    machine.close()
    assert not (top / machine.cgroup).exists()
