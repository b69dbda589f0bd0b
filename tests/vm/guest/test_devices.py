"""The device filter of cgroup v2: what a container can make, what it can open, and who it is that keeps it from it."""

import ctypes
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.guest.test_v2_limits import Minirun, box, cgroups, minirun, program

__all__ = ["box", "minirun", "program"]  # fixtures

# With every other right to it, so that the list alone stands between the container and the kernel's log.
RUN = ("run", "--rm", "--net", "none", "--cap-add", "MKNOD", "--cap-add", "SYSLOG", "busybox", "sh", "-c")
REFUSED = "Operation not permitted"
CGROUP = Path("/sys/fs/cgroup/minirun-test-devices")


def test_a_node_can_be_made_but_not_opened(minirun: Minirun) -> None:
    done = minirun(
        *RUN, "mknod /kmsg c 1 11 && mknod /disk b 7 0 && echo made; head -c 1 /kmsg; head -c 1 /disk", check=False
    )
    assert done.stdout == "made\n"
    assert done.stderr.count(REFUSED) == 2
    assert done.returncode != 0


@pytest.mark.parametrize("how", ["<", ">", "<>"])
def test_neither_to_read_nor_to_write(minirun: Minirun, how: str) -> None:
    done = minirun(*RUN, f"mknod /kmsg c 1 11; : {how} /kmsg", check=False)
    assert done.returncode != 0
    assert REFUSED in done.stderr


def test_the_devices_of_every_container_work(minirun: Minirun) -> None:
    script = """
        echo x > /dev/null && head -c 2 /dev/zero | wc -c
        head -c 3 /dev/urandom | wc -c && head -c 4 /dev/random | wc -c
        mknod /zero c 1 5 && head -c 5 /zero | wc -c
        : < /dev/full && (echo x > /dev/full) 2>&1 | grep -o 'No space left on device'
    """
    assert minirun(*RUN, script).stdout.split("\n")[:5] == ["2", "3", "4", "5", "No space left on device"]


def test_a_terminal_works(minirun: Minirun) -> None:
    minirun(
        "run",
        "--net",
        "none",
        "-t",
        "--name",
        "typist",
        "busybox",
        "sh",
        "-c",
        "tty; echo on > /dev/tty; : < /dev/ptmx",
    )
    assert minirun("logs", "typist").stdout.split() == ["/dev/pts/0", "on"]


def test_exec_is_filtered_too(minirun: Minirun, box: Path) -> None:
    """It joins the cgroup. The node to try is made from outside: this container has no right to make one."""
    (shown,) = json.loads(minirun("inspect", "box").stdout)
    root = f"/proc/{shown['State']['Pid']}/root"
    os.mknod(f"{root}/kmsg", 0o020666, os.makedev(1, 11))
    assert os.close(os.open(f"{root}/dev/null", os.O_RDWR)) is None
    refused = minirun("exec", "box", "head", "-c", "1", "/kmsg", check=False)
    assert refused.returncode != 0
    assert REFUSED in refused.stderr
    assert minirun("exec", "box", "head", "-c", "0", "/dev/zero").returncode == 0


def attached(directory: Path) -> int:
    """How many device programs a cgroup has: bpf(2), BPF_PROG_QUERY."""
    bpf, query, device = 321, 16, 6
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        attributes = ctypes.create_string_buffer(struct.pack("=IIIIQI4x", descriptor, device, 0, 0, 0, 0), 64)
        assert ctypes.CDLL(None, use_errno=True).syscall(bpf, query, attributes, 64) == 0, os.strerror(
            ctypes.get_errno()
        )
        return int(struct.unpack_from("=I", attributes, 24)[0])
    finally:
        os.close(descriptor)


def test_there_is_one_program_and_no_descriptor_is_left(minirun: Minirun, box: Path) -> None:
    assert attached(box) == 1
    assert attached(box.parent) == 0
    for process in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            assert "bpf-prog" not in os.readlink(process), process
        except FileNotFoundError:
            continue


@pytest.fixture
def cgroup() -> Iterator[Path]:
    CGROUP.mkdir()
    yield CGROUP
    CGROUP.rmdir()


def test_without_the_filter_it_opens(cgroup: Path, tmp_path: Path) -> None:
    """The control: the same cgroup, the same node, and only the filter in between."""
    from minirun.linux import devices
    from minirun.oci import defaults

    node = tmp_path / "kmsg"
    os.mknod(node, 0o020666, os.makedev(1, 11))
    script = f"echo 0 > {cgroup}/cgroup.procs; exec < {node} && echo opened"

    def open_it() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(["sh", "-c", script], capture_output=True, text=True)

    assert open_it().stdout == "opened\n"
    devices.attach(str(cgroup), devices.program(defaults.DEVICE_RULES))
    assert attached(cgroup) == 1
    refused = open_it()
    assert (refused.stdout, REFUSED in refused.stderr) == ("", True)


def test_the_kernel_takes_every_form_of_rule(cgroup: Path) -> None:
    """Its verifier has the last word on the program."""
    from minirun.linux import devices

    accesses = (None, "r", "w", "m", "rw", "wm", "rm", "rwm")
    numbers = (None, 0, 0x80000000, (1 << 32) - 1)
    rules = [
        {"allow": allow, "type": kind, "major": number, "access": access}
        for allow in (True, False)
        for kind in "bc"
        for number in numbers
        for access in accesses
    ]
    for several in (
        [],
        [{"allow": True}],
        [{"allow": False}],
        rules,
        [{"allow": True}, *reversed(rules)],
        *([one] for one in rules[::5]),
    ):
        child = cgroup / "one"
        child.mkdir()
        devices.attach(str(child), devices.program(several))
        child.rmdir()


def test_a_cgroup_of_another_kind_gives_a_clear_error(tmp_path: Path) -> None:
    from minirun.linux import devices

    with pytest.raises(OSError, match=str(tmp_path)):
        devices.attach(str(tmp_path), devices.program([]))


def test_a_bundle_that_denies_all_has_its_dev_null(program: str, minirun: Minirun, tmp_path: Path) -> None:
    """As `runc spec` writes it."""
    busybox = shutil.which("busybox")
    assert busybox
    (tmp_path / "rootfs/bin").mkdir(parents=True)
    shutil.copy(busybox, tmp_path / "rootfs/bin/sh")
    script = "echo x > /dev/null && echo null works; : < /kmsg"
    os.mknod(tmp_path / "rootfs/kmsg", 0o020666, os.makedev(1, 11))
    config = {
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"args": ["/bin/sh", "-c", script], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "mounts": [{"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "mount")],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = subprocess.run([program, "oci", "run", "-b", str(tmp_path), "denied"], capture_output=True, text=True)
    subprocess.run([program, "oci", "delete", "-f", "denied"], check=True, capture_output=True)
    assert done.stdout == "null works\n", done.stderr
    assert REFUSED in done.stderr
    assert cgroups() == []


def test_explain_says_it_and_names_the_rules(minirun: Minirun) -> None:
    text = minirun("explain", "run", "--net", "none", "busybox", "true").stdout
    kinds = [line.split()[2] for line in text.splitlines() if line.startswith("# ") and line.split()[1].isdigit()]
    assert kinds.index("cgroup") + 1 == kinds.index("device-filter") == kinds.index("spawn") - 1
    assert "# No command does this" in text
    assert "\n#   allow c 1:3 rwm\n" in text
