"""The commands of the README and of the labs, run as they stand there, on a fake host."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.documents import REPOSITORY, blocks, name
from tests.lifecycle.conftest import images_root as small_images_root
from tests.lifecycle.machine import MINIRUN, Machine

__all__ = ["small_images_root"]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs/labs").glob("*.md"))]
NOT_RUN = {"vm.md"}  # it boots machines: tests/vm does that
IMAGES = ("alpine", "apache", "busybox", "nginx")


@pytest.fixture(scope="session")
def images_root() -> Path:
    """A root with all images that the documentation uses, in the cache that the lifecycle tests use too."""
    if prepared := os.environ.get("MINIRUN_TEST_IMAGES"):
        return Path(prepared)
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minirun-test"
    root.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with open(root / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [*MINIRUN, "--root", str(root), "--state", str(root / "state"), "image", "build", *IMAGES]
        subprocess.run(command, env=environment, check=True, timeout=900)
    return root


@pytest.fixture
def machine(images_root: Path, tmp_path: Path) -> Iterator[Machine]:
    """A fake host on which minirun has its usual places and name: what a page says about paths is true there."""
    made = Machine(images_root)
    try:
        programs = tmp_path / "bin"
        programs.mkdir()
        for called, words in (("minirun", ""), ("minirun-oci", " oci")):
            (programs / called).write_text(f'#!/bin/sh\nexec {sys.executable} -m minirun{words} "$@"\n')
            (programs / called).chmod(0o755)
        made.environment["PATH"] = f"{programs}:{made.environment['PATH']}"
        store = f"mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/minirun && mount --rbind {made.root} /var/lib/minirun"
        made.run(["sh", "-c", store])
        made.environment["MINIRUN_ROOT"] = "/var/lib/minirun"
        yield made
    finally:
        made.close()


def _own(page: Path) -> list[str]:
    """The blocks that can run anywhere; ``make`` is what runs this test."""
    return [block for block in blocks(page) if "make " not in block]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in NOT_RUN], ids=name)
def test_the_commands_of_a_page_work(machine: Machine, page: Path) -> None:
    """All blocks of a page in one shell, as a reader would type them; the first that fails is named."""
    script = "".join(f"echo '### block {number}' >&2\n{block}" for number, block in enumerate(_own(page), 1))
    assert script, "the page has no blocks of shell"
    done = machine.run(["sh", "-eu", "-c", script], check=False, timeout=180)
    assert done.returncode == 0, f"{name(page)}\n{done.stdout}\n{done.stderr}"
    complaints = [
        line for line in done.stderr.splitlines() if line.startswith("minirun: ") and "for memory" not in line
    ]
    assert not complaints
    check = CHECKS.get(page.name)
    if check:
        missing = [text for text in check if text not in done.stdout + done.stderr]
        assert not missing, f"{missing}\n{done.stdout}\n{done.stderr}"
    machine.sweep()


CHECKS = {
    "README.md": [
        "<h1>Welcome to nginx!</h1>",
        "<h1>It works!</h1>",
        '"IPAddress": "10.201.0.',
        "default via 10.201.0.1",
        "1 packets transmitted, 1 packets received, 0% packet loss",
        "Network unreachable",
        "inet 10.201.0.",
        "was killed for memory: it reached its limit of 64 MiB",
        "exit code 137",
    ],
    "process.md": ["sleep 1000", "minirun-monitor", "hello", "Seccomp:\t2", "137", "unshare"],
    "cable.md": ["0% packet loss", "masquerade", "10.201.0.", "<title>"],
    "networks.md": ["0% packet loss", "visitor", '"veth"', "published no more", "0.0.0.0:8080", "alias web "],
    "limits.md": ["67108864", "exit code 137", "can't fork", "64MiB"],
}


def test_init_by_hand(tmp_path: Path) -> None:
    """The container that docs/reference/init.md types."""
    (block,) = blocks(REPOSITORY / "docs/reference/init.md")
    script = block.replace("/tmp/box", str(tmp_path / "box"))
    done = subprocess.run(["sh", "-eu", "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=30)
    assert done.stdout == "I am process 1 and see /bin /dev /proc\n", done.stderr
    assert not os.path.ismount(tmp_path / "box")
