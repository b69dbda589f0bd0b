"""The VM is what the other tests here take it for; if one of these fails, look no further."""

import ctypes
import errno
import os
import subprocess
from pathlib import Path

import pytest

KIND = os.environ["MINIRUN_VM"]
CGROUP = Path("/sys/fs/cgroup")
CHECKOUT = Path(__file__).resolve().parents[3]

only_qemu = pytest.mark.skipif(KIND != "qemu", reason="User-mode Linux is built without it")


def mounts() -> dict[str, str]:
    """Type of the file system at each mount point; where mounts are stacked, of the one that is seen."""
    fields = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return {field[1]: field[2] for field in fields}


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_kernel_is_another_one_and_we_are_its_root() -> None:
    assert os.uname().nodename == "minirun-vm"
    assert os.uname().release.startswith("6.")
    assert os.geteuid() == 0
    assert Path("/proc/1/cmdline").read_bytes().split(b"\0")[:2] == [b"/bin/sh", b"/run/vm/supervise"]


def test_cgroup_v2_and_nothing_else() -> None:
    seen = mounts()
    assert seen[str(CGROUP)] == "cgroup2"
    assert "cgroup" not in seen.values()


def test_controllers_are_handed_down_as_systemd_does() -> None:
    expected = {"cpu", "io", "memory", "pids"} | ({"cpuset"} if KIND == "qemu" else set())
    assert set((CGROUP / "cgroup.subtree_control").read_text().split()) >= expected  # minirun hands down more
    assert Path("/proc/self/cgroup").read_text() == "0::/user.slice\n"


def test_a_limit_takes_effect(tmp_path: Path) -> None:
    group = CGROUP / "probe"
    group.mkdir()
    try:
        (group / "pids.max").write_text("1")
        fork = f"echo 0 >{group}/cgroup.procs; (exit 0) & wait"
        subprocess.run(["sh", "-c", fork], capture_output=True, check=False)
        assert "max 1\n" in (group / "pids.events").read_text()
    finally:
        group.rmdir()


@pytest.mark.parametrize("namespace", ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"])
def test_namespaces(namespace: str) -> None:
    assert Path(f"/proc/self/ns/{namespace}").exists()


def test_overlay_upon_the_places_where_containers_live() -> None:
    seen = mounts()
    assert [seen[place] for place in ("/run", "/tmp", "/var/lib/minirun")] == ["tmpfs"] * 3
    base = Path("/var/lib/minirun/probe")
    layers = [base / name for name in ("lower", "upper", "work", "merged")]
    for layer in layers:
        layer.mkdir(parents=True)
    lower, upper, work, merged = layers
    (lower / "file").write_text("below")
    output("mount", "-t", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", "overlay", str(merged))
    try:
        (merged / "file").write_text("above")
        assert ((lower / "file").read_text(), (upper / "file").read_text()) == ("below", "above")
    finally:
        output("umount", str(merged))


def test_the_checkout_is_here_and_what_is_written_stays_here() -> None:
    assert (CHECKOUT / "tests/vm/vm.py").is_file()
    assert mounts()["/"] == "overlay"
    (CHECKOUT / "written-in-the-vm").touch()  # test_vm.py, outside, looks for it


def test_bridge_and_veth() -> None:
    output("ip", "link", "add", "probe0", "type", "bridge")
    try:
        output("ip", "link", "add", "probe1", "master", "probe0", "type", "veth", "peer", "name", "probe2")
        assert "master probe0" in output("ip", "-oneline", "link", "show", "probe1")
        output("ip", "link", "del", "probe1")
    finally:
        output("ip", "link", "del", "probe0")


@only_qemu
def test_nftables_with_nat() -> None:
    output("nft", "add table inet probe; add chain inet probe out { type nat hook postrouting priority srcnat; }")
    output("nft", "add rule inet probe out oifname probe0 masquerade")
    output("nft", "delete table inet probe")


@only_qemu
def test_two_processors() -> None:
    assert os.cpu_count() == 2


def test_bpf_can_be_asked_for() -> None:
    """What devices a container may open is, on cgroup v2, a BPF program."""
    bpf, no_such_command = 321, -1
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(bpf, no_such_command, None, 0) == -1
    assert ctypes.get_errno() == errno.EINVAL  # and not ENOSYS
