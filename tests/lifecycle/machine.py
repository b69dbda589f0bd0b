"""The machine of the lifecycle tests: a fake host with images, and a look at everything that could be left on it."""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakehost import CGROUPS, FakeHost

MINIRUN = [sys.executable, "-m", "minirun"]
SOON = 20  # seconds after which what should happen at once counts as never
_LIBC = ctypes.CDLL(None, use_errno=True)
_IN_CREATE, _IN_MOVED_TO = 0x100, 0x80


class Machine(FakeHost):
    """A fake host that shares the images of ``images_root`` (they are only read) and has containers of its own."""

    def __init__(self, images_root: Path) -> None:
        super().__init__()
        self.run(["mkdir", "-p", f"{self.root}/images", f"{self.root}/layers"])
        for shared in ("images", "layers"):
            self.run(["mount", "--bind", f"{images_root}/{shared}", f"{self.root}/{shared}"])

    def out(self, *arguments: str) -> str:
        """What ``minirun ...`` prints on standard output, without the last newline; it must succeed."""
        return self.minirun(*arguments).stdout.removesuffix("\n")

    def sh(self, script: str, *options: str, image: str = "busybox") -> str:
        """What a shell script prints in a new container without a network."""
        return self.out("run", "--rm", "--net", "none", *options, image, "sh", "-c", script)

    def start(self, *arguments: str) -> str:
        """``minirun run -d --net none ...``; the id."""
        return self.out("run", "-d", "--net", "none", *arguments)

    def ready(self, name: str, script: str, *options: str) -> None:
        """Start a container that runs a shell script, and come back when it has printed "ready"."""
        self.start("--name", name, *options, "busybox", "sh", "-c", script)
        follower = self.spawn("logs", "-f", name)
        assert follower.stdout
        assert "ready" in follower.stdout.readline(), follower.communicate(timeout=SOON)
        follower.kill()
        follower.communicate(timeout=SOON)

    def spawn(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start ``minirun ...`` and leave it running; its pid is that of the command itself."""
        return self.popen([*MINIRUN, *arguments], **options)

    def inspect(self, name: str) -> Any:
        """The one object that ``minirun inspect`` shows."""
        return json.loads(self.out("inspect", name))[0]

    def refused(self, *arguments: str, code: int = 125, **options: Any) -> str:
        """The one line of complaint of a command that must fail with ``code``."""
        done = self.minirun(*arguments, check=False, **options)
        assert (done.returncode, done.stdout) == (code, ""), done
        return one_line(done.stderr)

    def live(self, identity: str) -> Path:
        """Where the state of a container is."""
        return self.path(f"{self.state}/containers/{identity}")

    def cgroups(self) -> list[Path]:
        """The cgroups of all containers, in every hierarchy."""
        tops = [*CGROUPS.glob(f"*/{self.cgroup}"), *CGROUPS.glob(self.cgroup)]
        return [path for top in tops for path in top.iterdir() if path.is_dir() and path.name != "nameserver"]

    def settle(self, seconds: float = 20) -> None:
        """Wait until no process of this host runs: commands, monitors, clean-ups, containers."""
        deadline = time.monotonic() + seconds
        while processes := self.processes():
            for pid in processes:
                try:
                    descriptor = os.pidfd_open(pid)
                except ProcessLookupError:
                    continue
                ended, _, _ = select.select([descriptor], [], [], deadline - time.monotonic())
                os.close(descriptor)
                assert ended, f"process {pid} does not end: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}"

    def leftovers(self) -> list[str]:
        """Everything of containers that is still there, on disk and in the kernel."""
        places = {
            self.root: ("containers/*", "names/*"),
            self.state: ("locks/*", "containers/*", "networks/*/leases/*", "networks/*/published/*"),
            "/run": ("netns/*",),
        }
        found = [str(path) for top, globs in places.items() for glob in globs for path in self.path(top).glob(glob)]
        found += [str(path) for path in self.cgroups()]
        found += re.findall(r"^\d+: (mr[^:]*)", self.run(["ip", "-o", "link"]).stdout, re.M)
        table = self.run(["nft", "list", "table", "inet", "minirun"], check=False).stdout
        found += [comment for comment in re.findall(r'comment "([^"]*)"', table) if "network" not in comment]
        mounts = Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()
        return found + [line for line in mounts if "/containers/" in line or "/netns/" in line]

    def clean(self) -> None:
        """See that nothing is left. The kernel takes the cables of a dropped namespace away a little later."""
        deadline = time.monotonic() + SOON
        while (left := self.leftovers()) and all(name.startswith("mr") for name in left):
            assert time.monotonic() < deadline, left
            select.select([], [], [], 0.005)
        assert left == []

    def sweep(self) -> None:
        """Remove every container; whatever remains then is a failure."""
        if identities := self.out("ps", "-aq").split():
            self.minirun("rm", "-f", *identities)
        self.settle()
        self.clean()


def one_line(text: str) -> str:
    """``text`` if it is one line of complaint, without control characters; a failure otherwise."""
    assert text.startswith("minirun: ") and text.endswith("\n"), text
    assert text[:-1].isprintable(), f"not one clean line: {text!r}"
    return text


def until(condition: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    """The first true value of a condition that nothing announces (a file of /proc); looked at every 2 ms."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"did not come: {what}")
        select.select([], [], [], 0.002)
    return value


def open_files(pid: int) -> list[str]:
    """What the descriptors of a process lead to."""
    targets = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            targets.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return targets


class Watch:
    """inotify(7) on a directory: waits until a name appears in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.descriptor = _LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        mask = _IN_CREATE | _IN_MOVED_TO
        if _LIBC.inotify_add_watch(self.descriptor, os.fsencode(directory), mask) < 0:
            raise OSError(ctypes.get_errno(), f"inotify_add_watch {directory}")

    def names(self) -> Iterator[set[str]]:
        """What is in the directory, now and after each change."""
        while True:
            yield set(os.listdir(self.directory))
            ready, _, _ = select.select([self.descriptor], [], [], SOON)
            assert ready, f"nothing new in {self.directory}"
            os.read(self.descriptor, 65536)


@contextmanager
def watching(directory: Path) -> Iterator[Watch]:
    """A Watch, closed at the end."""
    watch = Watch(directory)
    try:
        yield watch
    finally:
        os.close(watch.descriptor)


def next_container(machine: Machine, before: set[str], file: str) -> str:
    """The id of the container that appears beside those of ``before``, once ``file`` is in its state directory."""
    with watching(machine.path(f"{machine.state}/containers")) as containers:
        identity = next(new.pop() for names in containers.names() if (new := names - before))
    with watching(machine.live(identity)) as live:
        next(names for names in live.names() if file in names)
    return identity
