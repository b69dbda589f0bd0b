"""The machine of the bench: a fake host with images, whose stores are on tmpfs, and which peers cannot change.

Engines write more than they are told about: podman its locks into /dev/shm, dockerd a limit into /proc/sys/kernel that
belongs to the whole machine. Here the first is empty and the second read-only.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.fakehost import REPOSITORY, FakeHost

SCRATCH = "/run/bench"
_MOUNTS = f"""
mount -t tmpfs tmpfs /dev/shm
mount --bind /proc/sys/kernel /proc/sys/kernel
mount -o remount,bind,ro /proc/sys/kernel
mkdir -p {SCRATCH}/docker-config
echo '{{}}' >{SCRATCH}/docker-config/config.json
"""


class BenchHost(FakeHost):
    """A fake host that can time commands."""

    def __init__(self, store: Path) -> None:
        super().__init__()
        self.run(["sh", "-ec", _MOUNTS])
        self.lend(store)
        self.environment |= {
            "DOCKER_HOST": f"unix://{SCRATCH}/docker.sock",
            "DOCKER_CONFIG": f"{SCRATCH}/docker-config",
        }

    def rounds(self, jobs: dict[str, dict[str, list[str]]], rounds: int, warm_up: int) -> dict[str, dict[str, Any]]:
        """Time ``jobs`` as tests/bench/rounds.py says."""
        task = json.dumps({"rounds": rounds, "warm_up": warm_up, "jobs": jobs})
        script = str(REPOSITORY / "tests/bench/rounds.py")
        done = self.run([sys.executable, script], stdin=task, timeout=600 + 2 * len(jobs) * (rounds + warm_up))
        results: dict[str, dict[str, Any]] = json.loads(done.stdout)
        return results

    def sweep(self, program: str) -> None:
        """Remove every container of minirun."""
        if identities := self.run([program, "ps", "-aq"]).stdout.split():
            self.run([program, "rm", "-f", *identities])


def images() -> Path:
    """A root with alpine and busybox: MINIRUN_TEST_IMAGES, or the cache of the lifecycle tests, filled once."""
    if prepared := os.environ.get("MINIRUN_TEST_IMAGES"):
        return Path(prepared)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = cache / "minirun-test"
    root.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    build = [sys.executable, "-m", "minirun", "--root", str(root), "--state", str(root / "state")]
    with open(root / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(
            [*build, "image", "build", "busybox", "alpine"], env=environment, check=True, stdout=sys.stderr, timeout=600
        )
    return root


def rootfs(host: FakeHost, image: str, directory: str) -> str:
    """Copy an image's files into ``directory``, for those who do not know our store; return ``directory``."""
    code = "import sys; from minirun.image import layout; print(*layout.find(sys.argv[1]).layers)"
    layers = host.python(code, image).split()
    assert len(layers) == 1, f"{image} has {len(layers)} layers: a plain copy would not know about whiteouts"
    host.run(["mkdir", "-p", os.path.dirname(directory)])
    host.run(["cp", "-a", layers[0], directory])
    return directory
