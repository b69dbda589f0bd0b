"""What the program may not do, and how much it may use."""

from __future__ import annotations

import re

import pytest

from tests.fakehost import CGROUPS
from tests.lifecycle.machine import MINIRUN, Machine, one_line, until

RUN = ("run", "--rm", "--net", "none")
DEFAULT = {
    0,
    1,
    3,
    4,
    5,
    6,
    7,
    8,
    10,
    18,
    31,
}  # CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP
KILL, NET_ADMIN, SYS_ADMIN = 5, 12, 21


def capabilities(host: Machine, *options: str) -> dict[str, set[int]]:
    """The sets of /proc/self/status as numbers of capabilities."""
    lines = host.sh("grep ^Cap /proc/self/status", *options).splitlines()
    masks = {line[3:6]: int(line.split()[1], 16) for line in lines}
    return {name: {bit for bit in range(64) if mask >> bit & 1} for name, mask in masks.items()}


def test_the_default_capabilities(host: Machine) -> None:
    sets = capabilities(host)
    assert sets == {"Inh": set(), "Amb": set(), "Prm": DEFAULT, "Eff": DEFAULT, "Bnd": DEFAULT}


def test_capabilities_added_and_dropped(host: Machine) -> None:
    assert capabilities(host, "--cap-add", "NET_ADMIN", "--cap-drop", "cap_kill")["Eff"] == (DEFAULT | {NET_ADMIN}) - {
        KILL
    }
    assert capabilities(host, "--cap-drop", "ALL")["Bnd"] == set()
    assert capabilities(host, "--cap-drop", "ALL", "--cap-add", "KILL")["Eff"] == {KILL}
    assert SYS_ADMIN in capabilities(host, "--cap-add", "ALL")["Eff"]
    assert capabilities(host, "--cap-add", "ALL", "--cap-drop", "SYS_ADMIN")["Eff"] >= DEFAULT - {SYS_ADMIN}
    assert "NONSENSE" in host.refused(*RUN, "--cap-add", "NONSENSE", "busybox", "true")


def test_a_user_other_than_root_holds_none(host: Machine) -> None:
    sets = capabilities(host, "-u", "1000")
    assert (sets["Inh"], sets["Prm"], sets["Eff"], sets["Amb"]) == (set(), set(), set(), set())


def test_filter_and_no_new_privs(host: Machine) -> None:
    status = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status"
    assert host.sh(status).split() == ["NoNewPrivs:", "1", "Seccomp:", "2"]
    assert host.sh(status, "--security-opt", "seccomp=unconfined").split() == ["NoNewPrivs:", "1", "Seccomp:", "0"]
    assert host.sh(status, "--security-opt", "no-new-privileges=false").split() == ["NoNewPrivs:", "0", "Seccomp:", "2"]


@pytest.mark.parametrize(
    "forbidden",
    [
        "mount -t tmpfs t /mnt",
        "unshare -U true",
        "hostname other",
        "mknod /d b 8 0 && cat /d",
        "chroot / mount -o remount,rw /sys",
        "mount -o remount,rw /proc/sys",
    ],
)
def test_what_root_inside_may_not_do(host: Machine, forbidden: str) -> None:
    assert host.sh(f"mkdir -p /mnt; ({forbidden}) > /dev/null 2>&1 || echo refused") == "refused"


def test_masked_and_read_only_paths(host: Machine) -> None:
    assert host.sh("cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts 2> /dev/null | wc -c") == "0"
    assert host.sh("ls -A /sys/firmware /proc/acpi /proc/scsi 2> /dev/null | grep -v :$ | wc -w") == "0"
    for path in (
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/sys/kernel/mm/ksm/run",
    ):
        assert host.sh(f"echo 0 > {path} 2> /dev/null || echo refused") == "refused", path


def test_the_program_has_three_descriptors(host: Machine) -> None:
    for options in ((), ("-i",), ("-t",), ("--read-only",)):
        # The fourth is that of ls, reading the directory.
        assert host.sh("exec ls /proc/self/fd", *options).split() == ["0", "1", "2", "3"]
    script = 'exec 7</dev/null 9</dev/null; exec "$@"'
    words = ["sh", "-c", script, "sh", *MINIRUN, *RUN, "busybox", "ls", "/proc/self/fd"]
    assert host.run(words).stdout.split() == ["0", "1", "2", "3"]


def test_devices(host: Machine) -> None:
    nodes = set(host.sh("ls /dev").split())
    assert nodes == {
        "fd",
        "full",
        "mqueue",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
    }
    assert host.sh(
        "stat -c '%n %t:%T %a' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty"
    ).splitlines() == [
        "/dev/null 1:3 666",
        "/dev/zero 1:5 666",
        "/dev/full 1:7 666",
        "/dev/random 1:8 666",
        "/dev/urandom 1:9 666",
        "/dev/tty 5:0 666",
    ]
    assert "console" in host.sh("ls /dev", "-t")
    script = "head -c4 /dev/urandom | wc -c; head -c2 /dev/zero | wc -c; echo x > /dev/null && echo null"
    assert host.sh(f"{script}; echo x 2> /dev/null > /dev/full || echo full") == "4\n2\nnull\nfull"


def test_its_own_processes_and_nothing_else(host: Machine) -> None:
    assert host.sh("ls -d /proc/[0-9]* | wc -l; echo $$") in ("2\n1", "3\n1")


def test_the_cgroup_is_seen_and_not_written(host: Machine) -> None:
    assert "ro" in host.sh("grep cgroup /proc/mounts | head -1 | cut -d' ' -f4").split(",")
    assert host.sh("mkdir /sys/fs/cgroup/memory/x /sys/fs/cgroup/x 2> /dev/null || echo refused") == "refused"
    lines = [line.split(":", 2) for line in host.sh("cat /proc/self/cgroup").splitlines()]
    ours = {"memory", "pids", "cpu"} if (CGROUPS / "memory").exists() else {""}
    names = {path for _, controllers, path in lines if ours & set(controllers.split(","))}
    assert names == {"/"}
    files = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2> /dev/null || true"
    assert host.sh(files, "-m", "32m") == str(32 << 20)


def test_the_limit_of_memory(host: Machine) -> None:
    done = host.minirun(
        "run", "--net", "none", "--name", "hungry", "-m", "16m", "busybox", "tail", "/dev/zero", check=False
    )
    assert done.returncode == 137
    line = one_line(done.stderr)
    assert "memory" in line and "16 MiB" in line and "-m" in line
    state = host.inspect("hungry")["State"]
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)
    assert "out of memory" in host.out("ps", "-a")


def test_an_end_by_kill_is_not_called_out_of_memory(host: Machine) -> None:
    name = host.start("-m", "16m", "busybox", "sleep", "600")
    host.minirun("kill", name)
    assert host.out("wait", name) == "137"
    assert host.inspect(name)["State"]["OOMKilled"] is False


def test_a_fork_bomb_ends(host: Machine) -> None:
    done = host.minirun(
        *RUN,
        "--pids-limit",
        "20",
        "busybox",
        "sh",
        "-c",
        "bomb() { bomb | bomb & }; bomb; wait; sleep 0.2; echo over",
        check=False,
        timeout=30,
    )
    assert done.returncode in (0, 2)
    assert "fork" in done.stderr


def test_limits_are_read_back(host: Machine) -> None:
    host.start("--name", "box", "--cpus", "0.25", "-m", "24m", "--pids-limit", "33", "busybox", "sleep", "600")
    limits = host.inspect("box")["Limits"]
    assert limits["Memory"] == str(24 << 20) and limits["Pids"] == "33"
    assert f"{limits['CpuQuota']} {limits.get('CpuPeriod', '')}".split()[:2] == ["25000", "100000"]


def test_the_limit_of_cpu_time_holds(host: Machine) -> None:
    """A tenth of a CPU: the kernel counts periods in which the container was held back."""
    host.ready("box", "echo ready; while :; do :; done", "--cpus", "0.1")
    stat = next(path for path in (cgroup / "cpu.stat" for cgroup in host.cgroups()) if path.exists())
    until(lambda: int(re.findall(r"nr_throttled (\d+)", stat.read_text())[0]) > 2, "throttling")


def test_no_core_dump_and_no_higher_limits(host: Machine) -> None:
    assert host.sh("ulimit -c; ulimit -Hc") == "0\n0"


def test_no_key_of_ours(host: Machine) -> None:
    """A session keyring of its own: ours is not reachable through it."""
    assert host.sh("cat /proc/keys | wc -l") == "0"


def test_its_mounts_are_not_the_hosts(host: Machine) -> None:
    host.start("--name", "box", "-v", "/etc:/outside", "--tmpfs", "/scratch", "busybox", "sleep", "600")
    targets = [line.split()[4] for line in host.run(["cat", "/proc/self/mountinfo"]).stdout.splitlines()]
    assert [target for target in targets if "/containers/" in target] == []
