"""The limits of a container on cgroup v2, asked of the kernel and of minirun, which must agree."""

import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Minirun = Callable[..., "subprocess.CompletedProcess[str]"]

IMAGES = Path(__file__).resolve().parents[3] / "build/vm-images"  # filled outside: a VM has no network to do it
STORE = Path("/var/lib/minirun")
PROGRAM = str(Path(sys.executable).with_name("minirun"))
LIMITS = ("-m", "64m", "--cpus", "0.5", "--pids-limit", "20")


@pytest.fixture(scope="session")
def program() -> str:
    """The installed minirun, with an image to run: busybox."""
    assert IMAGES.is_dir(), f"no images for the VM; outside of it: minirun --root {IMAGES} image build busybox"
    for part in ("images", "layers"):
        if not (STORE / part).exists():
            shutil.copytree(IMAGES / part, STORE / part, symlinks=True)
    return PROGRAM


@pytest.fixture
def minirun(program: str) -> Iterator[Minirun]:
    """Runs minirun and returns what came of it; in the end removes every container, and that must leave nothing."""

    def call(*arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run([program, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert not check or done.returncode == 0, done.stderr
        return done

    yield call
    for container in call("ps", "-aq").stdout.split():
        call("rm", "-f", container)
    assert cgroups() == []


def cgroups() -> list[Path]:
    """The cgroups of all containers."""
    return [path for path in Path("/sys/fs/cgroup/minirun").glob("*") if path.is_dir()]


@pytest.fixture
def box(minirun: Minirun) -> Path:
    """The cgroup of a running container with each kind of limit."""
    minirun("run", "-d", "--net", "none", "--name", "box", *LIMITS, "busybox", "sleep", "100000")
    (group,) = cgroups()
    return group


def pids(group: Path) -> list[int]:
    return [int(line) for line in (group / "cgroup.procs").read_text().split()]


def test_the_container_is_a_process_in_a_cgroup_named_after_it(minirun: Minirun, box: Path) -> None:
    (shown,) = json.loads(minirun("inspect", "box").stdout)
    pid = shown["State"]["Pid"]
    assert box.name == shown["Id"]
    assert pids(box) == [pid]
    assert Path(f"/proc/{pid}/cgroup").read_text() == f"0::/minirun/{box.name}\n"
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x00100000\x00"


def test_inside_it_is_the_root_of_the_tree_and_cannot_be_written(minirun: Minirun, box: Path) -> None:
    assert minirun("exec", "box", "cat", "/proc/self/cgroup").stdout == "0::/\n"
    assert minirun("exec", "box", "cat", "/sys/fs/cgroup/memory.max").stdout == "67108864\n"
    refused = minirun("exec", "box", "sh", "-c", "echo max >/sys/fs/cgroup/memory.max", check=False)
    assert refused.returncode != 0
    assert (box / "memory.max").read_text() == "67108864\n"


def test_the_kernel_has_the_limits(box: Path) -> None:
    files = ("memory.max", "memory.swap.max", "cpu.max", "pids.max")
    read = {name: (box / name).read_text().strip() for name in files if (box / name).exists()}
    assert read == {"memory.max": "67108864", "memory.swap.max": "0", "cpu.max": "50000 100000", "pids.max": "20"}


def test_inspect_ps_and_stats_read_them_back(minirun: Minirun, box: Path) -> None:
    (shown,) = json.loads(minirun("inspect", "box").stdout)
    config = shown["HostConfig"]
    assert (config["Memory"], config["NanoCpus"], config["PidsLimit"]) == (64 << 20, 500_000_000, 20)
    listed = json.loads(minirun("ps", "--format", "json").stdout)
    assert (listed["Memory"], listed["Cpus"], listed["PidsLimit"]) == (64 << 20, 0.5, 20)
    used = json.loads(minirun("stats", "--format", "json", "box").stdout)
    assert used["Cpus"] == "0.5"
    assert used["MemUsage"].endswith(" / 64MiB")
    assert used["PIDs"] == "1 / 20"


def test_they_are_read_from_the_kernel_and_not_from_memory(minirun: Minirun, box: Path) -> None:
    (box / "pids.max").write_text("33")
    assert json.loads(minirun("stats", "--format", "json", "box").stdout)["PIDs"] == "1 / 33"


def test_out_of_memory_is_said(minirun: Minirun) -> None:
    eat = ("dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
    done = minirun("run", "--rm", "--net", "none", "-m", "16m", "busybox", *eat, check=False)
    assert done.returncode == 137
    (line,) = done.stderr.splitlines()
    assert "memory" in line
    assert "16 MiB" in line


def test_out_of_memory_is_remembered(minirun: Minirun) -> None:
    eat = ("dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
    minirun("run", "--net", "none", "-m", "16m", "--name", "eater", "busybox", *eat, check=False)
    (shown,) = json.loads(minirun("inspect", "eater").stdout)
    assert (shown["State"]["OOMKilled"], shown["State"]["ExitCode"]) == (True, 137)


def test_enough_memory_is_no_trouble(minirun: Minirun) -> None:
    take = ("dd", "if=/dev/zero", "of=/dev/null", "bs=8M", "count=1")
    assert minirun("run", "--rm", "--net", "none", "-m", "32m", "busybox", *take).returncode == 0


def test_cpu_time_is_rationed(minirun: Minirun) -> None:
    """A busy loop that ends only when its own cgroup says that it was held back."""
    busy = 'until grep -q "^nr_throttled [1-9]" /sys/fs/cgroup/cpu.stat; do :; done'
    assert minirun("run", "--rm", "--net", "none", "--cpus", "0.1", "busybox", "sh", "-c", busy).returncode == 0


def test_processes_are_counted(minirun: Minirun) -> None:
    fork = "for n in 1 2 3 4 5 6 7 8 9; do sleep 100000 & done"
    done = minirun("run", "--rm", "--net", "none", "--pids-limit", "5", "busybox", "sh", "-c", fork, check=False)
    assert done.returncode == 2
    assert "fork" in done.stderr


def test_exec_joins_the_cgroup(program: str, box: Path) -> None:
    before = pids(box)
    say = [program, "exec", "-i", "box", "sh", "-c", "echo here; read line"]
    with subprocess.Popen(say, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as guest:
        assert guest.stdout
        assert guest.stdout.readline() == "here\n"
        assert len(pids(box)) == len(before) + 1
        guest.communicate("go\n")
        assert guest.returncode == 0


@pytest.mark.skipif(not shutil.which("strace"), reason="no strace; scripts/provision.sh test installs it")
def test_born_in_its_cgroup(minirun: Minirun, program: str, tmp_path: Path) -> None:
    """Not moved there: a move waits for every processor, and leaves a moment without limits."""
    log = tmp_path / "strace"
    trace = ["strace", "-f", "-qq", "-s", "200", "-e", "trace=clone3,openat", "-o", str(log)]
    subprocess.run([*trace, program, "run", "--rm", "--net", "none", "busybox", "true"], check=True)
    calls = log.read_text().splitlines()
    assert [line for line in calls if "CLONE_INTO_CGROUP" in line and "CLONE_NEWPID" in line]
    assert [line for line in calls if "cgroup.procs" in line and "O_WRONLY" in line] == []


def test_only_the_devices_of_the_list_open(minirun: Minirun) -> None:
    """With every other right to it, so that the list alone stands between the container and the kernel's log."""
    capabilities = ("--cap-add", "MKNOD", "--cap-add", "SYSLOG")
    run = ("run", "--rm", "--net", "none", *capabilities, "busybox", "sh", "-c")
    assert minirun(*run, "mknod /zero c 1 5 && head -c 3 /zero | wc -c").stdout == "3\n"
    refused = minirun(*run, "mknod /kmsg c 1 11; head -c 1 /kmsg", check=False)
    assert refused.returncode != 0
    assert refused.stdout == ""
    assert "Operation not permitted" in refused.stderr


def test_a_frozen_container_can_be_removed(minirun: Minirun, box: Path) -> None:
    (box / "cgroup.freeze").write_text("1")
    minirun("rm", "-f", "box")
    assert cgroups() == []


@pytest.mark.parametrize("command", ["true", "false", "no-such-program"])
def test_nothing_is_left(minirun: Minirun, command: str) -> None:
    minirun("run", "--rm", "--net", "none", *LIMITS, "busybox", command, check=False)
    assert cgroups() == []


@pytest.mark.skipif(os.environ["MINIRUN_VM"] != "qemu", reason="User-mode Linux has no nftables for IP")
def test_limits_a_network_and_a_published_port_together(program: str, minirun: Minirun) -> None:
    """The whole of the main job, on a kernel that Debian users have."""
    serve = "mkdir /www && echo from-the-container >/www/index.html && httpd -h /www && echo ready && read line"
    run = [program, "run", "-i", "--rm", "--net", "br0", "-p", "8080:80", *LIMITS, "busybox", "sh", "-c", serve]
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as container:
        assert container.stdout
        assert container.stdout.readline() == "ready\n"
        shown = json.loads(minirun("ps", "--format", "json").stdout)
        addresses = ("127.0.0.1:8080", "10.201.0.1:8080", f"{shown['IPAddress']}:80")
        for address in addresses:
            web = http.client.HTTPConnection(address, timeout=10)
            web.request("GET", "/")
            assert web.getresponse().read() == b"from-the-container\n", address
        container.communicate("go\n")
        assert container.returncode == 0
    minirun("network", "rm", "br0")
    assert not Path("/sys/class/net/br0").exists()
