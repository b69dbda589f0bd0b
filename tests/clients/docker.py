"""dockerd on a fake host, with the configuration that docs/engines.md shows."""

from __future__ import annotations

import subprocess

from tests.clients.engines import EngineHost, documented, root_file_system
from tests.lifecycle.machine import SOON, until

IMAGE = "box"
LOG = "/run/dockerd.log"


class Docker(EngineHost):
    """A fake host with dockerd and one image, of busybox."""

    image = IMAGE

    def __init__(self) -> None:
        super().__init__()
        self.environment |= {"DOCKER_HOST": "unix:///run/docker.sock", "DOCKER_CONFIG": "/run/docker-client"}
        self.write("/etc/docker/daemon.json", documented("daemon.json"))
        self._start()
        self.path("/run/box.tar").write_bytes(root_file_system())
        self.out("import", "--change", 'CMD ["sh"]', "/run/box.tar", IMAGE)

    def _start(self) -> None:
        options = [
            f"--host={self.environment['DOCKER_HOST']}",
            "--pidfile=/run/docker.pid",
            "--storage-driver=overlay2",
        ]
        limits = ["--default-ulimit=nofile=1024:1024", f"--cgroup-parent=/{self.cgroup}"]
        script = ["sh", "-c", f'exec dockerd "$@" >>{LOG} 2>&1', "dockerd", *options, *limits]
        self.daemon = self.popen(script, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._answers, "an answer of dockerd")

    def _answers(self) -> bool:
        assert self.daemon.poll() is None, self.path(LOG).read_text()
        return self.do("version", check=False).returncode == 0

    def close(self) -> None:
        """End the daemon, which ends its containerd."""
        self.daemon.terminate()
        self.daemon.wait(SOON)
        super().close()

    def command(self, *arguments: str) -> list[str]:
        """The words of ``docker ARGUMENTS``; no network is fastest, unless one is asked for."""
        words = list(arguments)
        if words[0] in ("run", "create"):
            network = [] if any(word.startswith("--net") for word in words) else ["--network=none"]
            words[1:1] = [f"--runtime={self.runtime}", *network]
        return ["docker", *words]

    def sweep(self) -> None:
        """Remove every container; nothing may be left of them."""
        if identities := self.out("ps", "-aq").split():
            self.do("rm", "-f", *identities)
        until(lambda: not self.remains(), f"an end of {self.remains()}")
        self.forget()
