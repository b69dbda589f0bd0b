"""A fake host with containerd: the real daemon and its shims, which call the runtime under test as they call runc.

Everything of containerd is below /run, a tmpfs of the fake host: content, snapshots, sockets, and the runtime's root.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.clients.engines import PROGRAM, root_file_system
from tests.fakehost import CGROUPS, FakeHost
from tests.image.archives import archive, entry
from tests.lifecycle.machine import SOON, until

BINARIES = {"minirun": str(PROGRAM), "runc": shutil.which("runc") or "/usr/sbin/runc"}
IMAGE = "docker.io/library/busybox:latest"
ALICES = "docker.io/library/alices:latest"
ADDRESS, STATE = "/run/containerd/containerd.sock", "/run/containerd"

CONFIG = """\
version = 2
root = "/run/containerd-root"
state = "/run/containerd"
disabled_plugins = [{disabled}]
[grpc]
address = "{address}"
[plugins."io.containerd.internal.v1.opt"]
path = "/run/containerd-root/opt"
"""
CRI = '"io.containerd.grpc.v1.cri"'
UNUSED = ["aufs", "btrfs", "devmapper", "zfs", "native"]


class Containerd(FakeHost):
    """A machine on which containerd runs, with a busybox image in it."""

    def __init__(self, folder: Path, config: str = "") -> None:
        super().__init__()
        self.run(["mount", "-t", "tmpfs", "tmpfs", "/var/lib"])  # CNI remembers there what it gave out
        self.run(["mount", "--make-rshared", "/"])  # as on a machine with systemd: a careless runtime's mounts get out
        # The cgroups of `ctr run` are named after its namespace: so they are this host's.
        # What the tests of minirun itself set must not reach the runtime: nobody sets it for a real containerd.
        self.environment = {
            "PATH": os.environ["PATH"],
            "CONTAINERD_ADDRESS": ADDRESS,
            "CONTAINERD_NAMESPACE": self.cgroup,
        }
        self.folder, self.log = folder, folder / "containerd.log"
        disabled = [f'"io.containerd.snapshotter.v1.{name}"' for name in UNUSED] + ([] if config else [CRI])
        text = CONFIG.format(address=ADDRESS, disabled=", ".join(disabled)) + config
        (folder / "config.toml").write_text(text)
        self.daemon = self._start()
        self.tools: set[int] = set()  # processes of the test itself, that are no leftovers

    def _start(self) -> subprocess.Popen[str]:
        """Start the daemon; it says when it is ready as it would say it to systemd."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, open(self.log, "a") as log:
            notify.bind(str(self.path("/run/notify")))
            notify.settimeout(SOON)
            command = ["env", "NOTIFY_SOCKET=/run/notify", "containerd", "-c", str(self.folder / "config.toml")]
            daemon = self.popen([*command, "-l", "debug"], stdout=log, stderr=log)
            try:
                assert b"READY=1" in notify.recv(4096)
            except TimeoutError:
                raise AssertionError(f"containerd did not start:\n{self.log.read_text()}") from None
            finally:
                self.path("/run/notify").unlink()
        return daemon

    def load(self, name: str, layer: bytes, namespace: str = "", **config: Any) -> None:
        """Give containerd an image of one layer."""
        file = self.folder / "image.tar"
        save(file, name, layer, **config)
        self.run(["ctr", "-n", namespace or self.cgroup, "images", "import", str(file)])

    def runtime_roots(self) -> list[str]:
        """The directories of containers below the roots that containerd gives to its runtimes."""
        paths = self.path(f"{STATE}/runc").glob("*/*")
        return [str(path) for path in paths if not path.name.startswith("@")]  # ours keeps a lock beside them

    def leftovers(self) -> list[str]:
        """What is still there of containers: shims, runtime state, bundles, mounts, cgroups."""
        found = [f"process {pid}" for pid in self.processes() if pid not in {self.daemon.pid, *self.tools}]
        found += self.runtime_roots()
        found += [str(path) for path in self.path(f"{STATE}/io.containerd.runtime.v2.task").glob("*/*")]
        found += [str(path) for top in CGROUPS.glob(f"*/{self.cgroup}") for path in top.iterdir() if path.is_dir()]
        mounts = Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()
        return found + [line for line in mounts if f" {STATE}" in line]

    def settled(self) -> None:
        """Wait until nothing of any container is left: shims end a little after they have answered."""
        try:
            until(lambda: not self.leftovers(), "a machine without containers")
        except BaseException:
            print("\n".join(self.leftovers()))
            raise

    def spawn(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """What a Terminal starts on this machine."""
        return self.popen(command, **options)

    def restart(self) -> None:
        """End the daemon as an upgrade does, and start it again; the shims and their containers live on."""
        self.daemon.terminate()
        self.daemon.wait(SOON)
        self.daemon = self._start()

    def close(self) -> None:
        self.daemon.terminate()
        self.daemon.wait(SOON)
        super().close()


def save(path: Path, reference: str, layer: bytes, **config: Any) -> None:
    """Write an image as ``docker save`` does; ``config`` is what the image tells about its program (Cmd, Env …)."""
    digest = hashlib.sha256(layer).hexdigest()
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], **config},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    content = json.dumps(document).encode()
    name = hashlib.sha256(content).hexdigest()
    manifest = [{"Config": f"{name}.json", "RepoTags": [reference], "Layers": [f"{digest}.tar"]}]
    files = {f"{name}.json": content, f"{digest}.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    path.write_bytes(archive(*(entry(name, content=data) for name, data in files.items())).getvalue())


@contextmanager
def containerd(folder: Path, config: str = "") -> Iterator[Containerd]:
    """A machine with containerd, closed at the end."""
    machine = Containerd(folder, config)
    try:
        layer = root_file_system()
        machine.load(IMAGE, layer, Cmd=["sh"])
        machine.load(ALICES, layer, User="alice", WorkingDir="/home/alice", Env=["PATH=/bin", "FROM=image"])
        yield machine
    finally:
        machine.close()


def update_task(machine: Containerd, name: str, resources: dict[str, Any]) -> None:
    """Change the limits of a task: `ctr` cannot. UpdateTaskRequest{container_id = 1, resources = 2: an Any of JSON}."""
    import grpc

    def field(number: int, content: bytes) -> bytes:
        """One field of protobuf's wire format whose content has a length."""
        length, size = b"", len(content)
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    kind = b"types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
    request = field(1, name.encode()) + field(2, field(1, kind) + field(2, json.dumps(resources).encode()))
    with grpc.insecure_channel(f"unix://{machine.path(ADDRESS)}") as channel:
        call = channel.unary_unary("/containerd.services.tasks.v1.Tasks/Update")
        call(request, timeout=SOON, metadata=[("containerd-namespace", machine.cgroup)])
