"""One OCI bundle for every runtime: what `runc spec` writes, with a program that ends at once.

So the same namespaces, mounts, masks and capabilities are asked of each, and what differs is how they do it.
"""

from __future__ import annotations

import json
from typing import Any

from tests.bench.machine import SCRATCH, rootfs
from tests.fakehost import FakeHost

BUNDLE = f"{SCRATCH}/bundle"
_KEPT = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_SAFE = ["nosuid", "noexec", "nodev"]
_MASKED = ["acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi"]
_READ_ONLY = ["bus", "fs", "irq", "sys", "sysrq-trigger"]


def _mount(destination: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": kind, "options": list(options)}


def config(cgroup: str) -> dict[str, Any]:
    """config.json."""
    devpts = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _KEPT),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "bench",
        "mounts": [
            _mount("/proc", "proc"),
            _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount("/dev/pts", "devpts", *devpts),
            _mount("/dev/shm", "tmpfs", *_SAFE, "mode=1777", "size=65536k"),
            _mount("/dev/mqueue", "mqueue", *_SAFE),
            _mount("/sys", "sysfs", *_SAFE, "ro"),
        ],
        "linux": {
            "cgroupsPath": f"/{cgroup}/bundle",
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "maskedPaths": [f"/proc/{name}" for name in _MASKED] + ["/sys/firmware"],
            "readonlyPaths": [f"/proc/{name}" for name in _READ_ONLY],
        },
    }


def make(host: FakeHost) -> str:
    """Write the bundle, with busybox as its root file system; return its directory.

    BUNDLE-state is for containers that stay, one of each runtime: it names no cgroup, which only one could have.
    """
    rootfs(host, "busybox", f"{BUNDLE}/rootfs")
    host.path(f"{BUNDLE}/config.json").write_text(json.dumps(config(host.cgroup)))
    kept = config(host.cgroup)
    kept["root"]["path"] = f"{BUNDLE}/rootfs"
    del kept["linux"]["cgroupsPath"]
    host.path(f"{BUNDLE}-state").mkdir()
    host.path(f"{BUNDLE}-state/config.json").write_text(json.dumps(kept))
    return BUNDLE
