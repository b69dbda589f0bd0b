"""A fake host with things to mount, and what a container tells of its mounts."""

from __future__ import annotations

import json
from typing import Any

from tests.runtime.bundles import RuntimeHost, config

SOURCES = """
mkdir -p /run/src/below /run/secret/data /run/idmapped
mount -t tmpfs -o mode=755 tmpfs /run/src/below
echo text > /run/src/file; echo lower > /run/src/below/file
echo kept > /run/secret/data/file; chmod 700 /run/secret
echo mine > /run/idmapped/file; chown 7:7 /run/idmapped/file
mount -t tmpfs -o mode=755 tmpfs /run/idmapped; mkdir /run/idmapped/below; echo mine > /run/idmapped/file
mount -t tmpfs -o mode=755 tmpfs /run/idmapped/below; echo mine > /run/idmapped/below/file
chown 7:7 /run/idmapped/file /run/idmapped/below/file
mkdir /run/peers; mount -t tmpfs tmpfs /run/peers; mount --make-shared /run/peers; mkdir /run/peers/at
"""
IDS = {"uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}]}
IDS["gidMappings"] = IDS["uidMappings"]


class MountHost(RuntimeHost):
    """A host with things to mount; ``seen`` is what a container with some mounts tells."""

    def __init__(self) -> None:
        super().__init__()
        self.run(["sh", "-ec", SOURCES])
        for name in ("mount", "mkdir", "stat", "find", "touch", "readlink", "grep", "ln", "umount"):
            self.path(f"{self.bundle}/rootfs/bin/{name}").symlink_to("busybox")

    def document(self, script: str, mounts: list[dict[str, Any]], **linux: Any) -> dict[str, Any]:
        """A container that may do what root may, and runs a shell script."""
        rights = [f"CAP_{name}" for name in ("SYS_ADMIN", "DAC_OVERRIDE", "MKNOD", "CHOWN", "FOWNER", "SYS_CHROOT")]
        capabilities = dict.fromkeys(("bounding", "effective", "permitted"), rights)
        found = config(f"{self.cgroup}/c", ["/bin/sh", "-c", script], capabilities=capabilities)
        found["mounts"] += mounts
        if linux.pop("userns", False):
            found["linux"]["namespaces"].append({"type": "user"})
            found["linux"] |= IDS
        found["linux"] |= linux
        return found

    def write(self, document: dict[str, Any]) -> None:
        self.path(f"{self.bundle}/config.json").write_text(json.dumps(document))

    def tell(self, script: str, mounts: list[dict[str, Any]], *options: str, **linux: Any) -> str:
        """What a shell script prints in a container with these mounts."""
        self.write(self.document(f"{script}\n:", mounts, **linux))
        return self.oci("run", *options, "box").rstrip("\n")

    def seen(self, mounts: list[dict[str, Any]], *options: str, **linux: Any) -> dict[str, Seen]:
        """What the container sees mounted, by mount point; the topmost of each."""
        text = self.tell("exec cat /proc/self/mountinfo", mounts, *options, **linux)
        return {line.split()[4]: Seen(line) for line in text.splitlines()}

    def complaint(self, mounts: list[dict[str, Any]], **linux: Any) -> str:
        """The one line by which a container with these mounts is refused; nothing of it may be left."""
        self.write(self.document("true", mounts, **linux))
        return self.refused("run", "box")


class Seen:
    """A line of mountinfo."""

    def __init__(self, line: str) -> None:
        before, _, after = line.partition(" - ")
        words = before.split()
        self.root, self.flags, self.peers = words[3], set(words[5].split(",")), words[6:]
        self.kind, self.source, self.super = after.split()[0], after.split()[1], set(after.split()[2].split(","))

    def propagation(self) -> list[str]:
        return sorted(word.split(":")[0] for word in self.peers) or ["private"]


def entry(target: str, source: str, *options: str, kind: str = "none", **more: Any) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": list(options), **more}
