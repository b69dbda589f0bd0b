"""podman on a fake host, with the configuration that docs/engines.md shows."""

from __future__ import annotations

from tests.clients.engines import EngineHost, documented, root_file_system
from tests.lifecycle.machine import until

IMAGE = "localhost/box"
CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
STORAGE = """
[storage]
driver = "overlay"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
"""
POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'


class Podman(EngineHost):
    """A fake host with podman and one image, of busybox."""

    cgroups = "libpod-*"  # a pod's own cgroup remains in hierarchies that podman does not know, whatever the runtime
    image = IMAGE

    def __init__(self) -> None:
        super().__init__()
        self.write("/etc/containers/containers.conf", CONFIGURATION)
        self.write("/etc/containers/containers.conf.d/minirun.conf", documented("containers.conf.d/minirun.conf"))
        self.write("/etc/containers/storage.conf", STORAGE)
        self.write("/etc/containers/policy.json", POLICY)
        self.path("/run/box.tar").write_bytes(root_file_system())
        self.run(["podman", "import", "--change", 'CMD=["sh"]', "/run/box.tar", IMAGE])

    def command(self, *arguments: str) -> list[str]:
        """The words of ``podman ARGUMENTS``; what makes containers makes them in this host's cgroup."""
        verb, words = list(arguments[:1]), list(arguments[1:])
        if verb == ["pod"] and words[0] == "create":
            verb.append(words.pop(0))
        if verb[-1] in ("run", "create") and not any(word.startswith("--pod=") for word in words):
            # no network is fastest, unless one is asked for
            network = [] if any(word.startswith("--net") for word in words) else ["--network=none"]
            verb += [f"--cgroup-parent=/{self.cgroup}", *network]
        early = [word for word in words if word.startswith("--hooks-dir=")]
        return ["podman", "--runtime", self.runtime, *early, *verb, *(word for word in words if word not in early)]

    def sweep(self) -> None:
        """Remove every container and pod; nothing may be left of them."""
        if self.remains() or self.out("ps", "-aq"):
            self.do("pod", "rm", "-fa", "-t", "0")
            self.do("rm", "-fa", "-t", "0")
        until(lambda: not self.remains(), f"an end of {self.remains()}")
        self.forget()
