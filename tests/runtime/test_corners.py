"""What documents of other engines rely on, beyond the letter of the runtime-spec."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.bundles import OCI, RuntimeHost, config


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_filter_need_not_know_the_calls_of_init(box: RuntimeHost, no_new_privileges: bool) -> None:
    young = {"names": ["close_range", "faccessat2", "openat2"], "action": "SCMP_ACT_ERRNO"}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [young]}
    document = config(f"{box.cgroup}/c", ["echo", "well"])
    box.configure(
        ["echo", "well"], {"linux": {**document["linux"], "seccomp": profile}}, noNewPrivileges=no_new_privileges
    )
    assert box.oci("run", "box") == "well\n"


def test_a_created_container_holds_only_what_it_waits_on(box: RuntimeHost) -> None:
    box.oci("create", "box")
    descriptors = Path(f"/proc/{box.told()['pid']}/fd")
    targets = {number: os.readlink(descriptors / number) for number in os.listdir(descriptors)}
    held = sorted(os.path.basename(target).partition(":")[0] for n, target in targets.items() if int(n) > 2)
    assert [name.removesuffix(" (deleted)") for name in held] == ["exec.fifo", "failed", "socket"], targets


def test_the_callers_cpus_are_not_the_containers(box: RuntimeHost) -> None:
    bound = ["taskset", "-c", str(min(os.sched_getaffinity(0))), "env", "-C", box.bundle]
    assert box.call(*bound, OCI, "run", "-d", "box").returncode == 0
    assert os.sched_getaffinity(box.told()["pid"]) == os.sched_getaffinity(0)
    masks = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Cpus_allowed:")]
    assert masks[0] in box.call(*bound, OCI, "exec", "box", "cat", "/proc/self/status").stdout


PRIVATE: dict[str, Any] = {"cwd": "/private", "user": {"uid": 1000, "gid": 1000}}


def test_a_working_directory_may_be_the_users_or_only_roots(box: RuntimeHost) -> None:
    directory = box.path(f"{box.bundle}/rootfs/private")
    directory.mkdir(mode=0o700)
    none: dict[str, list[str]] = {"bounding": [], "effective": [], "permitted": []}
    for owner in (0, 1000):
        os.chown(directory, owner, owner)
        box.configure(["pwd"], capabilities=none, **PRIVATE)
        assert box.oci("run", "box") == "/private\n"


def test_unknown_capabilities_are_warned_of_and_left_out(box: RuntimeHost) -> None:
    sets = {"bounding": ["CAP_KILL", "CAP_NEVER"], "inheritable": ["CAP_KILL"], "permitted": ["CAP_KILL", "CAP_CHOWN"]}
    box.configure(["cat", "/proc/self/status"], capabilities={**sets, "ambient": ["CAP_KILL", "CAP_CHOWN"]})
    done = box.call("env", "-C", box.bundle, OCI, "run", "box")
    assert done.returncode == 0, done
    assert "CAP_NEVER" in done.stderr and "can't raise ambient capability CAP_CHOWN: " in done.stderr
    assert "CapAmb:\t0000000000000020\n" in done.stdout
