"""A machine for the OCI runtime with an enemy in the bundle (intruder.c), and a canary on the host."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from minirun.oci.seccomp import default_profile
from tests.fakehost import REPOSITORY
from tests.runtime.bundles import RuntimeHost, config

USUAL = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_CHROOT"]
STRONG = [*USUAL, "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_MKNOD"]
_BUILD = ["-std=gnu11", "-static", "-Os", "-Wall", "-Wextra", "-Werror"]


def intruder(folder: Path) -> Path:
    """The enemy, built."""
    target = folder / "intruder"
    sources = [str(REPOSITORY / name) for name in ("tests/security/intruder.c", "csrc/message.c")]
    subprocess.run(["gcc", *_BUILD, *sources, "-o", str(target)], check=True)
    return target


class Vault(RuntimeHost):
    """The machine; /run/canary is what nothing may change, and ``document`` a container to be attacked from."""

    def __init__(self) -> None:
        super().__init__()
        self.run(["sh", "-ec", "mkdir /run/canary; echo alive > /run/canary/ptmx"])
        with tempfile.TemporaryDirectory() as folder:
            self.path(f"{self.bundle}/rootfs/bin/intruder").write_bytes(intruder(Path(folder)).read_bytes())
        os.chmod(self.path(f"{self.bundle}/rootfs/bin/intruder"), 0o755)
        for name in ("grep", "head", "ln", "mkdir", "mknod", "mount", "readlink", "seq", "stat", "touch", "wc", "tail"):
            self.path(f"{self.bundle}/rootfs/bin/{name}").symlink_to("busybox")

    def write(self, args: list[str], capabilities: list[str], filtered: bool = False, **process: Any) -> dict[str, Any]:
        """Write config.json for a program with these rights; with ``filtered`` under the profile of the engine."""
        held = dict.fromkeys(("bounding", "effective", "permitted"), capabilities)
        document = config(f"{self.cgroup}/c", args, capabilities=held, **process)
        if filtered:
            document["process"]["noNewPrivileges"] = True
            document["linux"]["seccomp"] = default_profile(capabilities)
        self.save(document)
        return document

    def save(self, document: dict[str, Any]) -> None:
        """Write config.json."""
        self.path(f"{self.bundle}/config.json").write_text(json.dumps(document))

    def sh(self, script: str, capabilities: list[str] = USUAL, **more: Any) -> str:
        """What a shell script prints in a new container."""
        self.write(["/bin/sh", "-c", script], capabilities, **more)
        return self.oci("run", "box").rstrip("\n")

    def canary(self) -> list[tuple[Any, ...]]:
        """All about the canary, and how many mounts this host has."""
        found: list[tuple[Any, ...]] = [(len(Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()),)]
        top = self.path("/run/canary")
        for path in sorted([top, *top.rglob("*")]):
            now = path.lstat()
            text = path.read_bytes() if path.is_file() else b""
            found.append((path.name, now.st_ino, now.st_mode, now.st_mtime_ns, now.st_ctime_ns, now.st_nlink, text))
        return found
