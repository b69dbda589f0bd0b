"""A fake host with an OCI bundle and the OCI runtime's command, for the tests of its command line."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from tests.fakehost import CGROUPS, REPOSITORY, TIMEOUT, FakeHost

OCI = str(REPOSITORY / ".venv/bin/minirun-oci")
LAUNCHER = str(REPOSITORY / ".venv/bin/minirun")
SLEEP, TRUE = ["/bin/sleep", "1000"], ["/bin/true"]
_SAFE = ["nosuid", "noexec", "nodev"]


def config(cgroup: str, args: list[str], **process: Any) -> dict[str, Any]:
    """A small config.json; keywords are more members of ``process``."""
    return {
        "ociVersion": "1.0.2",
        "process": {"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}, **process},
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": _SAFE},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["ptmxmode=0666"]},
        ],
        "annotations": {"org.example.text": 'a "b" \\ ü'},
        "linux": {
            "cgroupsPath": f"/{cgroup}",
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")],
        },
    }


class RuntimeHost(FakeHost):
    """A fake host that has /run/bundle, whose root file system is busybox, and nothing of an engine."""

    bundle, top = "/run/bundle", "/run/minirun/oci"

    def __init__(self) -> None:
        super().__init__()
        busybox = shutil.which("busybox")
        assert busybox, "busybox is not installed: scripts/provision.sh run brings it"
        folder = self.path(f"{self.bundle}/rootfs/bin")
        folder.mkdir(parents=True)
        shutil.copy(busybox, folder / "busybox")
        for name in ("sh", "true", "false", "sleep", "cat", "echo", "id", "env", "pwd", "stty", "test", "kill", "ls"):
            (folder / name).symlink_to("busybox")
        self.configure(SLEEP)

    def configure(self, args: list[str], change: dict[str, Any] | None = None, **process: Any) -> None:
        """Write config.json of the bundle; ``change`` replaces members of the top."""
        document = config(f"{self.cgroup}/c", args, **process) | (change or {})
        self.path(f"{self.bundle}/config.json").write_text(json.dumps(document))

    def call(self, *words: str, stdin: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, its output in files: a container that it leaves behind may keep them open."""
        with (
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile("w+") as err,
            tempfile.TemporaryFile() as given,
        ):
            given.write(stdin.encode())
            given.seek(0)
            streams: dict[str, Any] = {"stdin": given, "stdout": out, "stderr": err} | options
            code = self.popen([*words], **streams).wait(TIMEOUT)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(words, code, out.read(), err.read())

    def oci(self, *words: str, code: int = 0, **options: Any) -> str:
        """``minirun-oci ...`` in the bundle's directory; it must end with ``code``. What it printed."""
        done = self.call("env", "-C", self.bundle, OCI, *words, **options)
        assert done.returncode == code, done
        return done.stdout

    def refused(self, *words: str, code: int | None = None, **options: Any) -> str:
        """The one line of complaint of a call that must fail and print nothing else."""
        done = self.call("env", "-C", self.bundle, OCI, *words, **options)
        expected = code if code is not None else 255 if "exec" in words else 1
        assert (done.returncode, done.stdout) == (expected, ""), done
        return one_line(done.stderr)

    def spawn(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start ``minirun-oci ...`` and leave it running."""
        return self.popen(["env", "-C", self.bundle, OCI, *words], **options)

    def told(self, identity: str = "box") -> dict[str, Any]:
        """What ``state`` prints."""
        found: dict[str, Any] = json.loads(self.oci("state", identity))
        return found

    def ended(self, identity: str = "box") -> None:
        """SIGKILL, unless it has ended by itself, and wait until the process is dead."""
        pid = self.told(identity)["pid"]
        if pid:
            with ended(pid):
                self.call(OCI, "kill", identity, "KILL")

    def limit(self, v1: str, v2: str) -> str:
        """What a control file of the container's cgroup says."""
        found = [*CGROUPS.glob(f"*/{self.cgroup}/c/{v1}"), *CGROUPS.glob(f"{self.cgroup}/c/{v2}")]
        return found[0].read_text().strip()

    def leftovers(self) -> list[str]:
        """What there is of containers, in the kernel and on disk."""
        tops = [*CGROUPS.glob(f"*/{self.cgroup}"), *CGROUPS.glob(self.cgroup)]
        found = [str(path) for top in tops for path in top.iterdir() if path.is_dir()]
        state = self.path(self.top)
        if state.exists():
            found += [str(path) for path in state.rglob("*") if path.name != "@creating"]
        return found + [f"process {pid}" for pid in self.processes()]

    def clean(self) -> None:
        """Remove every container; whatever remains is a failure."""
        for name in self.oci("list", "-q").split():
            self.oci("delete", "--force", name)
        assert self.leftovers() == []
        self.configure(SLEEP)


@contextlib.contextmanager
def ended(pid: int) -> Iterator[None]:
    """Whatever is done inside ends this process; come back when it is dead."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield
        return
    yield
    done, _, _ = select.select([pidfd], [], [], TIMEOUT)
    os.close(pidfd)
    assert done, "the process does not end"


def one_line(text: str) -> str:
    """``text`` if it is one clean line of the runtime's."""
    assert text.startswith("minirun-oci: ") and text.endswith("\n"), text
    assert text[:-1].isprintable(), f"not one clean line: {text!r}"
    assert "internal error" not in text and "Traceback" not in text
    return text


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a document with the member at ``path`` ("process.user.uid") replaced."""
    result = copy.deepcopy(document)
    *way, last = path.split(".")
    inner = result
    for name in way:
        inner = inner.setdefault(name, {})
    inner[last] = value
    return result
