"""What the tests of other engines share: a fake host where their places are empty, an image, and who is under test.

An engine that is run by root writes to places with fixed names. Here changes of /etc and /var stay in the fake host,
and the stores are on tmpfs: nothing of the machine's own podman or docker is seen or touched, layers cost no disk.
"""

from __future__ import annotations

import io
import itertools
import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from tests.docs.documents import REPOSITORY
from tests.fakehost import CGROUPS, FakeHost, Namespace
from tests.lifecycle.machine import until

PAGE = REPOSITORY / "docs/engines.md"
PROGRAM = Path(sys.executable).parent / "minirun-oci"
DOCUMENTED = "/usr/local/bin/minirun-oci"
READY = "ready() { echo ready >$SIGNAL; }"  # for the scripts that containers run
RUNTIMES = ("minirun", "runc")
PASSWD = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"
GROUP = "root:x:0:\nalice:x:1000:\nstaff:x:50:alice\n"


def documented(file: str, page: Path = PAGE) -> str:
    """The block of docs/engines.md that is to be put into ``file``, with this checkout's program in it."""
    heading = re.compile(rf"`[^`]*{re.escape(file)}`[^\n]*:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    (block,) = heading.findall(page.read_text())
    return str(block).replace(DOCUMENTED, str(PROGRAM))


def root_file_system() -> bytes:
    """A tar archive of busybox with its applets, and a few files that tests look at."""
    busybox = shutil.which("busybox") or "/bin/busybox"
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("bin", "dev", "etc", "home/alice", "proc", "root", "run", "sys", "tmp", "work"):
            _add(tar, name, tarfile.DIRTYPE, mode=0o1777 if name == "tmp" else 0o755)
        _add(tar, "bin/busybox", data=Path(busybox).read_bytes(), mode=0o755)
        for applet in applets:
            if applet != "busybox":
                _add(tar, f"bin/{applet}", tarfile.SYMTYPE, link="busybox")
        _add(tar, "etc/passwd", data=PASSWD.encode())
        _add(tar, "etc/group", data=GROUP.encode())
        _add(tar, "work/text", data=b"not a program\n")
    return archive.getvalue()


def _add(
    tar: tarfile.TarFile, name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", mode: int = 0o644, link: str = ""
) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(data), link
    tar.addfile(entry, io.BytesIO(data))


class EngineHost(FakeHost):
    """A fake host for an engine; ``runtime`` is the one that its next containers get."""

    image: str
    runtime = RUNTIMES[0]
    _numbers = itertools.count()
    cgroups = "*"  # how the cgroups of containers are called
    signals = "/run/signals"  # a directory that containers mount, to tell the test what they did

    def __init__(self) -> None:
        super().__init__()
        self.run(["sh", "-ec", _PRIVATE, "sh", self.signals])
        self.environment.pop("PYTHONPATH")  # a runtime that is called by others has no such help

    def write(self, path: str, text: str) -> str:
        """Write a file of this host; its path."""
        self.run(["sh", "-ec", 'mkdir -p "${1%/*}"; cat >"$1"', "sh", path], stdin=text)
        return path

    def said(self, name: str) -> str:
        """What a container wrote into the file ``name`` of ``signals``, once a line is there."""
        path = self.path(f"{self.signals}/{name}")
        return str(until(lambda: path.exists() and path.read_text().endswith("\n") and path.read_text(), name)).strip()

    def command(self, *arguments: str) -> list[str]:
        """The words of a command of the engine; new containers get the runtime and this host's cgroup."""
        raise NotImplementedError

    def do(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command of the engine to its end."""
        return self.run(self.command(*arguments), check, **options)

    def out(self, *arguments: str, **options: Any) -> str:
        """What a command of the engine prints on standard output, without the last newline; it must succeed."""
        return self.do(*arguments, **options).stdout.removesuffix("\n")

    def spawn(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command of the engine and leave it running."""
        return self.popen(self.command(*arguments), **options)

    def refused(self, code: int, *arguments: str) -> str:
        """The complaint of a command that must fail with ``code``."""
        done = self.do(*arguments, check=False)
        assert done.returncode == code, done
        return done.stderr

    def sh(self, script: str, *options: str) -> str:
        """What a shell script prints in a new container."""
        return self.out("run", "--rm", *options, self.image, "sh", "-c", script)

    def start(self, script: str, *options: str) -> str:
        """Start a container that runs a shell script; its id, once the script says ``ready`` to this host."""
        name = f"ready-{next(self._numbers)}"
        told = [f"--volume={self.signals}:/signals", f"--env=SIGNAL=/signals/{name}"]
        identity = self.out("run", "-d", *told, *options, self.image, "sh", "-c", f"{READY}; {script}")
        self.said(name)
        return identity

    def inspect(self, name: str) -> Any:
        """The one object that ``inspect`` shows."""
        return json.loads(self.out("inspect", name))[0]

    def limit(self, identity: str, controller: str, file: str) -> str:
        """A file of the cgroup of a container, seen from this host."""
        (path,) = (CGROUPS / controller / self.cgroup).rglob(f"*{identity}*/{file}")
        return path.read_text().strip()

    def forget(self) -> None:
        """Remove the files of a test."""
        self.run(["sh", "-c", "rm -rf /run/test $1/*", "sh", self.signals], check=False)

    def remains(self) -> list[str]:
        """What runtimes and kernel still hold of containers."""
        found = [*self.path("/run/minirun").glob("oci*/[!@]*"), *self.path("/run/runc").glob("*")]
        found += self.path("/run/docker/runtime-runc").glob("*/[!@]*")
        tops = [*CGROUPS.glob(f"*/{self.cgroup}"), *CGROUPS.glob(self.cgroup)]
        found += [path for top in tops for path in top.rglob(self.cgroups) if path.is_dir()]
        return [str(path) for path in found]

    def asked(self, place: Namespace, address: str, port: int) -> str:
        """The first line that a TCP server answers to somebody in ``place``; "" if there is none."""
        done = place.run(["busybox", "nc", "-w", "5", address, str(port)], check=False)
        return done.stdout.strip()


_PRIVATE = """
for place in etc var; do
    mkdir -p /run/changes/$place /run/changes/work-$place
    mount -t overlay -o lowerdir=/$place,upperdir=/run/changes/$place,workdir=/run/changes/work-$place overlay /$place
done
rm -rf /etc/containers /etc/docker /etc/cni/net.d
mkdir -p /etc/cni/net.d /var/lib/containers /var/lib/cni /var/lib/docker
for place in /dev/shm /var/lib/containers /var/lib/cni /var/lib/docker; do
    mount -t tmpfs -o mode=755 tmpfs $place
done
mkdir -m 1777 $1
mount --make-rshared /
"""
