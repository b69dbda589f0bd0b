"""cgroup v2 as the container sees it: a new mount, or the host's bound where the kernel refuses one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = str(Path(sys.executable).with_name("minirun"))
MAPS = [{"containerID": 0, "hostID": 100000, "size": 65536}]
SCRIPT = "cat /proc/self/mountinfo; cat /proc/self/cgroup; echo 1 > /sys/fs/cgroup/cgroup.procs && echo moved"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    busybox = shutil.which("busybox")
    assert busybox
    for name in ("bin", "proc", "sys"):
        (tmp_path / "rootfs" / name).mkdir(parents=True)
    for name in ("sh", "cat"):
        shutil.copy(busybox, tmp_path / "rootfs/bin" / name)
    tmp_path.chmod(0o755)
    return tmp_path


def told(bundle: Path, namespaces: list[str], how: str) -> tuple[dict[str, list[str]], str]:
    """The words of mountinfo by mount point, and what was printed after it."""
    linux: dict[str, Any] = {"namespaces": [{"type": kind} for kind in ("pid", "mount", "network", *namespaces)]}
    if "user" in namespaces:
        linux |= {"uidMappings": MAPS, "gidMappings": MAPS}
    config = {
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"args": ["/bin/sh", "-c", SCRIPT], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs"},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", how]},
        ],
        "linux": linux,
    }
    if "user" in namespaces:  # its root may make nothing in a root file system of the host's root
        config["mounts"].insert(0, {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"})
        (bundle / "rootfs/dev").mkdir(exist_ok=True)
    (bundle / "config.json").write_text(json.dumps(config))
    done = subprocess.run([PROGRAM, "oci", "run", "-b", str(bundle), "seen"], capture_output=True, text=True)
    subprocess.run([PROGRAM, "oci", "delete", "-f", "seen"], check=True, capture_output=True)
    lines = done.stdout.splitlines()
    mounts = {line.split()[4]: line.split() for line in lines if " - " in line}
    return mounts, "\n".join([*(line for line in lines if " - " not in line), done.stderr])


CASES = [(["cgroup"], "ro"), (["cgroup", "user"], "rw"), ([], "rw"), (["user"], "ro")]


@pytest.mark.parametrize(("namespaces", "how"), CASES)
def test_the_cgroup_mount(bundle: Path, namespaces: list[str], how: str) -> None:
    mounts, rest = told(bundle, namespaces, how)
    assert "/sys/fs/cgroup" in mounts, rest
    words = mounts["/sys/fs/cgroup"]
    assert "cgroup2" in words and words[3] == "/"
    assert {how, "nosuid"} <= set(words[5].split(","))
    assert rest.startswith("0::/\n") == ("cgroup" in namespaces)
    if how == "ro":
        assert "moved" not in rest
