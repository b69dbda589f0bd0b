"""Probes run for real: nothing to say where all is well, and the one right finding where one thing is broken."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.fakehost import FakeHost

# Runs a command under a filter in which one system call does not exist.
WITHOUT_CALL = """
import os, sys
from minirun.doctor import kernel
from minirun.linux import seccomp
rule = {"names": [sys.argv[1]], "action": "SCMP_ACT_ERRNO", "errnoRet": int(sys.argv[2])}
kernel.install_filter(seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
os.execv(sys.executable, [sys.executable, "-m", "minirun", "doctor", "--format", "json"])
"""
DOCTOR = f"exec {sys.executable} -m minirun doctor --format json"


def findings(host: FakeHost, *command: str) -> dict[str, list[str]]:
    """What was not ok: name -> [status, detail, remedy]; and whether the exit code agrees."""
    done = host.run(command, check=False)
    assert done.returncode in (0, 1) and not done.stderr, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == int(any(row["status"] == "failure" for row in rows))
    assert len(rows) > 40
    return {row["name"]: [row["status"], row["detail"], row["remedy"]] for row in rows if row["status"] != "ok"}


def shell(host: FakeHost, script: str, *options: str) -> dict[str, list[str]]:
    """Run doctor in mounts of its own, after a script that breaks something there."""
    return findings(host, "unshare", "--mount", *options, "sh", "-ec", f"{script}\n{DOCTOR}")


def only(found: dict[str, list[str]], name: str, status: str) -> tuple[str, str]:
    """The detail and the remedy of the one finding; what it made impossible to try may be skipped."""
    assert {other for other, row in found.items() if row[0] != "skipped"} == {name}, found
    assert found[name][0] == status
    return found[name][1], found[name][2]


def test_a_good_machine_gets_no_finding_and_keeps_no_trace(host: FakeHost) -> None:
    def traces() -> list[str]:
        cgroups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/doctor.{os.getpid()}")]
        links = host.run(["ip", "-o", "link"]).stdout.count("\n")
        tables = host.run(["nft", "list", "ruleset"]).stdout
        return [*cgroups, str(links), tables, *map(str, sorted(host.path("/run").rglob("*")))]

    before = traces()
    assert findings(host, "sh", "-c", DOCTOR) == {}
    assert traces() == before


def test_one_short_line_each(host: FakeHost) -> None:
    done = host.minirun("doctor")
    lines = done.stdout.splitlines()
    assert all(line.startswith("ok ") and len(line) < 120 for line in lines), done.stdout
    assert any("overlay" in line for line in lines)


@pytest.mark.parametrize(
    ("call", "errno", "name"),
    [
        ("clone3", 38, "clone3"),
        ("close_range", 38, "close_range"),
        ("openat2", 38, "openat2"),
        ("fsopen", 38, "mount calls"),
        ("mount_setattr", 38, "mount calls"),
        ("keyctl", 1, "keyring"),
    ],
)
def test_a_call_that_is_missing(host: FakeHost, call: str, errno: int, name: str) -> None:
    detail, remedy = only(findings(host, sys.executable, "-c", WITHOUT_CALL, call, str(errno)), name, "failure")
    assert os.strerror(errno) in detail
    assert remedy


def test_overlay_missing_from_the_kernel(host: FakeHost) -> None:
    """The store on a file system that cannot hold an upper layer: another overlay."""
    lower = "mkdir -p /run/l /run/u /run/w /run/minirun-root\nmount -t tmpfs tmpfs /run/u\nmkdir /run/u/u /run/u/w\n"
    over = "mount -t overlay o -o lowerdir=/run/l,upperdir=/run/u/u,workdir=/run/u/w /run/minirun-root"
    detail, remedy = only(shell(host, lower + over), "overlay", "failure")
    assert "upper layer" in detail
    assert "--root" in remedy


def test_a_root_directory_that_cannot_be_written(host: FakeHost) -> None:
    script = "mkdir /run/minirun-root\nmount -t tmpfs -o ro tmpfs /run/minirun-root"
    found = shell(host, script)
    detail, _ = only({name: row for name, row in found.items() if name != "disk space"}, "root directory", "failure")
    assert "Read-only file system" in detail
    assert found["overlay"][0] == "skipped"


def test_a_full_disk_is_a_warning(host: FakeHost) -> None:
    script = "mkdir /run/minirun-root\nmount -t tmpfs -o size=8m tmpfs /run/minirun-root"
    detail, _ = only(shell(host, script), "disk space", "warning")
    assert "8 MiB free" in detail


def test_nft_missing(host: FakeHost) -> None:
    _, remedy = only(shell(host, "for f in $(which -a nft); do mount --bind /dev/null $f; done"), "nft", "failure")
    assert remedy == "apt-get install nftables"


def test_a_tool_for_recipes_missing_is_a_warning(host: FakeHost) -> None:
    script = "for f in $(which -a debugfs); do mount --bind /dev/null $f; done"
    _, remedy = only(shell(host, script), "debugfs", "warning")
    assert remedy == "apt-get install e2fsprogs"


def test_a_limit_of_namespaces(host: FakeHost) -> None:
    """user.max_net_namespaces is a user namespace's own, so it can be broken in one."""
    found = shell(host, "echo 0 > /proc/sys/user/max_net_namespaces", "--user", "--map-root-user")
    status, detail, remedy = found["network namespace"]
    assert (status, remedy) == ("failure", "sysctl -w user.max_net_namespaces=65536")
    assert "limit" in detail
    assert found["bridge"][0] == found["nftables"][0] == "skipped"


def test_memory_files_that_cannot_be_executed(host: FakeHost) -> None:
    """vm.memfd_noexec belongs to a PID namespace; 2 forbids executable ones altogether."""
    script = "echo 2 > /proc/sys/vm/memfd_noexec"
    found = shell(host, script, "--pid", "--fork", "--mount-proc")
    status, detail, remedy = found["sealed memfd"]
    assert (status, remedy) == ("failure", "sysctl -w vm.memfd_noexec=0")
    assert "Permission denied" in detail


def test_capabilities_that_root_lacks(host: FakeHost) -> None:
    drop = f"exec setpriv --bounding-set=-net_admin {sys.executable} -m minirun doctor --format json"
    detail, _ = only(findings(host, "sh", "-c", drop), "capabilities", "failure")
    assert detail == "root lacks NET_ADMIN"


def test_without_root_it_says_what_root_would_add(host: FakeHost) -> None:
    plain = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = host.run([*plain, sys.executable, "-m", "minirun", "doctor"])
    assert "warning  root" in done.stdout
    assert "not tried, needs root: capabilities, " in done.stdout
    assert "failure" not in done.stdout


def test_a_firewall_that_drops_what_it_does_not_know(host: FakeHost) -> None:
    table = "table ip other { chain pass { type filter hook forward priority 0; policy %s; counter; }; }"
    host.run(["nft", table % "accept"])
    assert findings(host, "sh", "-c", DOCTOR) == {}
    host.run(["nft", "flush ruleset; " + table % "drop"])
    detail, remedy = only(findings(host, "sh", "-c", DOCTOR), "other firewalls", "warning")
    assert detail.startswith("the chain ip other pass (policy drop) stops packets of network br0 (to the outside")
    assert remedy == "minirun network create --allow-forward br0"
    host.minirun(*remedy.split()[1:])  # the command is one that runs, and helps
    assert findings(host, "sh", "-c", DOCTOR) == {}


def test_what_cannot_be_meant(host: FakeHost) -> None:
    for words in (["--fix"], ["web"], ["--format", "yaml"]):
        done = host.minirun("doctor", *words, check=False)
        assert done.returncode == 125 and done.stderr.count("\n") == 1
    assert "--leaks" in host.minirun("doctor", "--help").stdout
