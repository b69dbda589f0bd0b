"""Mounts, masks and folders stay inside the root, whatever an image or a volume looks like (E03, E05-E08, E11)."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.conftest import Target

# Swaps a folder and a link that leads out of the container, as fast as it can, until standard input ends.
EXCHANGE = """
import ctypes, select, sys
libc = ctypes.CDLL(None, use_errno=True)
print("ready", flush=True)
while not select.select([0], [], [], 0)[0]:
    for _ in range(100):
        libc.renameat2(-100, b"/run/shared/a", -100, b"/run/shared/b", 2)
"""


@contextlib.contextmanager
def exchanging(host: Target) -> Iterator[None]:
    host.run(["sh", "-c", "mkdir -p /run/shared/a; ln -sfn /run/canary /run/shared/b"])
    racer = host.popen([sys.executable, "-c", EXCHANGE], stdin=-1)
    try:
        assert racer.stdout and racer.stdout.readline() == "ready\n"
        yield
    finally:
        racer.communicate(timeout=20)
        host.run(["rm", "-r", "/run/shared"])


def test_e03_mount_targets_that_change_meanwhile(host: Target, canary: None) -> None:
    with exchanging(host):
        for number in range(12):
            volumes = ["-v", "/run/shared:/s", "-v", f"/usr:/s/a/deep/{number}", "--tmpfs", f"/s/b/t{number}"]
            host.minirun(
                "run", "--rm", "--net", "none", *volumes, "-w", f"/s/a/w{number}", "busybox", "true", check=False
            )


def test_e03_control_a_careless_mkdir_leaves_the_folder(host: Target) -> None:
    before = host.canary()
    with exchanging(host):
        host.run(["sh", "-c", "for n in $(seq 300); do mkdir -p /run/shared/a/w$n; done"], check=False)
    assert host.canary() != before
    host.run(["sh", "-c", "rm -rf /run/canary/w*"])


@pytest.mark.parametrize("link", ["/run/canary", "../../../../../../run/canary", "/proc/1/root/run/canary"])
def test_e07_nothing_is_made_through_links_of_an_image(host: Target, canary: None, layer: Path, link: str) -> None:
    (layer / "out").symlink_to(link)
    image = host.image("links", layer)
    for options in (
        ["-v", "/usr:/out/v"],
        ["-v", "/etc/passwd:/out/f"],
        ["--tmpfs", "/out/t"],
        ["-w", "/out/w/deep"],
        ["-v", "/usr:/out"],
    ):
        host.minirun("run", "--rm", "--net", "none", *options, image, "true", check=False)


def test_e07_the_working_directory_of_an_image(host: Target, canary: None, layer: Path) -> None:
    (layer / "out").symlink_to("/run/canary")
    image = host.image("workdir", layer, WorkingDir="/out/made")
    host.minirun("run", "--rm", "--net", "none", image, "true", check=False)


def test_e07_links_inside_the_root_still_work(host: Target, layer: Path) -> None:
    """The control: what is refused is the way out, not the link."""
    (layer / "in").symlink_to("/srv/real")
    (layer / "srv/real").mkdir(parents=True)
    image = host.image("inner", layer)
    assert host.sh("pwd; ls /srv/real", "-w", "/in/made", image=image).split() == ["/srv/real/made", "made"]


def test_e05_masked_files_are_the_null_device(host: Target) -> None:
    masked = [
        path for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts") if os.path.exists(path)
    ]
    assert masked
    for line in host.sh(f"stat -c '%F %t:%T' {' '.join(masked)}").splitlines():
        assert line == "character special file 1:3"
    assert not any(stat.S_ISCHR(os.stat(path).st_mode) for path in masked)  # the control: on the host they are files


@pytest.mark.parametrize("place", ["/proc", "/sys", "/proc/interrupts"])
def test_e05_an_image_that_leads_proc_elsewhere(host: Target, canary: None, layer: Path, place: str) -> None:
    path = layer / place.lstrip("/")
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("/run/canary")
    image = host.image("proc", layer)
    done = host.minirun("run", "--rm", "--net", "none", image, "stat", "-c", "%t:%T", "/proc/interrupts", check=False)
    assert (done.returncode, done.stdout) == (125, "") or done.stdout == "1:3\n", done


def test_e05_settings_of_the_host_are_read_only(host: Target) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    files = "sys/kernel/core_pattern sys/vm/drop_caches sysrq-trigger"
    script = f"for f in {files}; do echo h > /proc/$f && echo open; done; true"
    assert host.sh(script) == ""
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


@pytest.mark.parametrize("place", ["dev", "dev/pts", "dev/shm"])
@pytest.mark.parametrize("options", [[], ["-t"]], ids=["pipes", "terminal"])
def test_e06_an_image_whose_dev_is_a_link(
    host: Target, canary: None, layer: Path, place: str, options: list[str]
) -> None:
    path = layer / place
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("/run/canary")
    image = host.image("dev", layer)
    done = host.minirun("run", "--rm", "--net", "none", *options, image, "ls", "-ld", "/dev/null", check=False)
    assert done.returncode == 125 or " 1, " in done.stdout, done


def test_e06_control_the_canary_shows_a_node(host: Target) -> None:
    before = host.canary()
    host.run(["mknod", "/run/canary/null", "c", "1", "3"])
    assert host.canary() != before
    host.run(["rm", "/run/canary/null"])


def test_e08_cgroups_are_read_only(host: Target) -> None:
    lines = [line.split() for line in host.sh("cat /proc/mounts").splitlines()]
    mounts = [(point, options.split(",")) for _, point, kind, options, *_ in lines if kind.startswith("cgroup")]
    assert mounts and all("ro" in options for _, options in mounts)
    files = "$(find /sys/fs/cgroup -name release_agent -o -name notify_on_release -o -name cgroup.procs)"
    script = f"for f in {files}; do echo 0 > $f && echo $f; done; mkdir /sys/fs/cgroup/*/new && echo made; true"
    assert host.sh(f"({script}) 2> /dev/null") == ""


def test_e08_no_new_namespaces_and_mounts(host: Target) -> None:
    script = "unshare -U true && echo user; unshare -m true && echo mount; mount -t tmpfs t /srv && echo mounted; "
    script += "mount -o remount,rw /sys && echo rw; true"
    assert host.sh(f"({script}) 2> /dev/null") == ""
    weak = ["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"]
    assert "mount" in host.sh(f"({script}) 2> /dev/null", *weak).split()  # the control


@pytest.mark.parametrize(
    "place", ["/proc", "/proc/sys", "//proc/./self", "/sys", "/sys/fs/cgroup", "/dev", "/dev/pts", "/x/../proc", "/"]
)
def test_e11_no_volume_over_proc_sys_and_dev(host: Target, place: str) -> None:
    for flag in (["-v", f"/usr:{place}"], ["--tmpfs", place]):
        host.refused("run", "--rm", "--net", "none", *flag, "busybox", "true")


def test_e11_control_a_volume_beside_them(host: Target) -> None:
    assert host.sh("ls -d /process/bin", "-v", "/usr:/process") == "/process/bin"
