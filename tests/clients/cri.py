"""A kubelet of a few lines: what Kubernetes asks of containerd (its CRI), asked here, for pods on a fake host."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# grpc runs threads of its own, and warns at every fork of a test otherwise.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
from cri_api.v1 import api_pb2 as api
from cri_api.v1.api_pb2_grpc import RuntimeServiceStub
from google.protobuf.json_format import ParseDict

from tests.clients.containerd import ADDRESS, BINARIES, IMAGE, Containerd, containerd
from tests.clients.engines import documented, root_file_system
from tests.fakehost import REPOSITORY
from tests.image.archives import archive, entry
from tests.lifecycle.machine import SOON, until
from tests.network.plugin import PROGRAM

PLUGINS = "/run/cni-bin"  # the reference plugins, and ours
PAUSE = "localhost/pause:1"
SUBNET = "10.88.0.0/24"
CONFIG = f"""
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{PLUGINS}"
conf_dir = "/run/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "minirun"
"""
CONTROL = f"""
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{BINARIES["runc"]}"
"""
BRIDGE = {
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipam": {"type": "host-local", "dataDir": "/run/cni/leases", "ranges": [[{"subnet": SUBNET}]]},
}
END = "the-end"
OWN_PIDS: dict[str, Any] = {"namespace_options": {"pid": "CONTAINER"}}  # what a kubelet asks for by default
NETWORK = {"cniVersion": "0.4.0", "name": "pods", "plugins": [BRIDGE]}


class Pod:
    """One sandbox and its containers, with one runtime."""

    def __init__(self, kubelet: Kubelet, handler: str, name: str, **config: Any) -> None:
        self.kubelet, self.stub, self.name = kubelet, kubelet.stub, name
        metadata = {"name": name, "uid": name, "namespace": "default", "attempt": 0}
        self.logs = kubelet.machine.folder / name
        self.logs.mkdir()
        linux = {"security_context": OWN_PIDS, **config.pop("linux", {}), "cgroup_parent": f"/{kubelet.machine.cgroup}"}
        self.config = {
            "metadata": metadata,
            "hostname": name,
            "log_directory": str(self.logs),
            "linux": linux,
            **config,
        }
        request = ParseDict({"config": self.config, "runtime_handler": handler}, api.RunPodSandboxRequest())
        self.id: str = self.stub.RunPodSandbox(request, timeout=SOON).pod_sandbox_id

    def create(
        self, *command: str, name: str = "box", security: dict[str, Any] | None = None, **config: Any
    ) -> Container:
        """A container that is not started yet. ``security`` is its security context, ``resources`` its limits."""
        linux = {"security_context": {**OWN_PIDS, **(security or {})}, "resources": config.pop("resources", {})}
        words = {
            "metadata": {"name": name},
            "image": {"image": IMAGE},
            "command": list(command),
            "log_path": f"{name}.log",
        }
        whole = {
            "pod_sandbox_id": self.id,
            "sandbox_config": self.config,
            "config": {**words, "linux": linux, **config},
        }
        created = self.stub.CreateContainer(ParseDict(whole, api.CreateContainerRequest()), timeout=SOON)
        return Container(self, created.container_id, self.logs / f"{name}.log")

    def start(self, *command: str, **config: Any) -> Container:
        container = self.create(*command, **config)
        container.start()
        return container

    def sh(self, script: str, **config: Any) -> str:
        """What a shell script prints in a container that is removed afterwards.

        It stays until that is in the log: containerd may give up the output of what ends before it has opened the
        streams, with any runtime.
        """
        container = self.start("sh", "-c", f"{script}\necho {END}; exec sleep 100000", **config)
        until(lambda: END in container.output(), f"the end of {script}")
        shown = container.output().rpartition(END)[0].removesuffix("\n")
        container.stop()
        container.remove()
        container.log.unlink()
        return shown

    def status(self) -> Any:
        return self.stub.PodSandboxStatus(api.PodSandboxStatusRequest(pod_sandbox_id=self.id), timeout=SOON).status

    @property
    def address(self) -> str:
        return str(self.status().network.ip)

    def stop(self) -> None:
        self.stub.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=self.id), timeout=SOON)

    def remove(self) -> None:
        self.stop()
        self.stub.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=self.id), timeout=SOON)


class Container:
    """One container of a pod."""

    def __init__(self, pod: Pod, identity: str, log: Path) -> None:
        self.stub, self.id, self.log = pod.stub, identity, log

    def start(self) -> None:
        self.stub.StartContainer(api.StartContainerRequest(container_id=self.id), timeout=SOON)

    def status(self) -> Any:
        return self.stub.ContainerStatus(api.ContainerStatusRequest(container_id=self.id), timeout=SOON).status

    def state(self) -> str:
        return str(api.ContainerState.Name(self.status().state)).removeprefix("CONTAINER_")

    def ended(self) -> Any:
        """The status after the end of the program."""
        until(lambda: self.state() == "EXITED", f"the end of {self.id}")
        return self.status()

    def exec(self, *command: str, timeout: int = SOON) -> tuple[int, str, str]:
        request = api.ExecSyncRequest(container_id=self.id, cmd=command, timeout=timeout)
        done = self.stub.ExecSync(request, timeout=2 * SOON)
        return done.exit_code, done.stdout.decode(), done.stderr.decode()

    def update(self, **limits: Any) -> None:
        request = ParseDict({"container_id": self.id, "linux": limits}, api.UpdateContainerResourcesRequest())
        self.stub.UpdateContainerResources(request, timeout=SOON)

    def lines(self) -> list[list[str]]:
        """The log in CRI's format, without the times: stream, F (a full line) or P (a part), text."""
        text = self.log.read_text() if self.log.exists() else ""
        return [line.split(" ", 3)[1:] for line in text.splitlines(keepends=False) if text.endswith("\n")]

    def output(self) -> str:
        return "\n".join(text for _, _, text in self.lines())

    def stop(self, grace: int = 0) -> None:
        self.stub.StopContainer(api.StopContainerRequest(container_id=self.id, timeout=grace), timeout=2 * SOON)

    def remove(self) -> None:
        self.stub.RemoveContainer(api.RemoveContainerRequest(container_id=self.id), timeout=SOON)


class Kubelet:
    """Asks the containerd of a machine for pods."""

    def __init__(self, machine: Containerd, channel: grpc.Channel) -> None:
        self.machine, self.stub, self.pods = machine, RuntimeServiceStub(channel), 0
        until(self._ready, "a runtime and a network that are ready")

    def _ready(self) -> bool:
        conditions = self.stub.Status(api.StatusRequest(), timeout=SOON, wait_for_ready=True).status.conditions
        return all(condition.status for condition in conditions)

    def pod(self, handler: str, **config: Any) -> Pod:
        self.pods += 1
        return Pod(self, handler, f"pod{self.pods}", **config)

    def sweep(self) -> None:
        """Remove every pod, as a kubelet does whose pods are all gone; afterwards nothing may be left."""
        for pod in self.stub.ListPodSandbox(api.ListPodSandboxRequest(), timeout=SOON).items:
            self.stub.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=2 * SOON)
            self.stub.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod.id), timeout=SOON)
        self.machine.settled()
        assert list(self.machine.path("/run/netns").glob("*")) == []
        assert list(self.machine.path("/run/cni/leases/pods").glob("10.*")) == []


def _pause(folder: Path) -> bytes:
    """The layer of the pause image."""
    source = REPOSITORY / "tests/clients/pause.c"
    subprocess.run(["musl-gcc", "-static", "-Os", "-s", str(source), "-o", str(folder / "pause")], check=True)
    return archive(entry("pause", content=(folder / "pause").read_bytes(), mode=0o755)).getvalue()


@contextmanager
def kubelet(folder: Path, network: str = "") -> Iterator[Kubelet]:
    """A machine with containerd and a network for pods, closed at the end; the reference plugins' if none is given."""
    handler = documented("config.toml").removeprefix("version = 2\n")  # the rest of the file says it, too
    with containerd(folder, CONFIG + handler + CONTROL) as machine:
        machine.load(IMAGE, root_file_system(), "k8s.io", Cmd=["sh"])
        machine.load(PAUSE, _pause(folder), "k8s.io", Entrypoint=["/pause"])
        machine.path("/run/cni").mkdir(exist_ok=True)
        machine.run(["sh", "-ec", 'mkdir "$0"; ln -s /usr/lib/cni/* "$1" "$0"', PLUGINS, PROGRAM])
        machine.path("/run/cni/pods.conflist").write_text(network or json.dumps(NETWORK))
        with grpc.insecure_channel(f"unix://{machine.path(ADDRESS)}") as channel:
            yield Kubelet(machine, channel)


__all__ = ["Container", "Kubelet", "Pod", "grpc", "kubelet"]
