"""The CNI plugin on a fake host, called as a runtime calls it: environment, standard input, one document back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.fakehost import FakeHost

PROGRAM = str(Path(sys.executable).parent / "minirun-cni")
BASE: dict[str, Any] = {"cniVersion": "1.1.0", "name": "pods", "type": "minirun-cni"}


class Failed(Exception):
    """The plugin's error document: its code, and both texts."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.code, self.text = document["code"], f"{document['msg']}; {document['details']}"
        super().__init__(f"{self.code}: {self.text}")


class Plugin:
    """A runtime of a few lines: network namespaces on a host, which stand for containers, and calls of the plugin."""

    def __init__(self, host: FakeHost, **keys: Any) -> None:
        self.host, self.config = host, {**BASE, **keys}

    def namespace(self, name: str) -> str:
        """A network namespace for a container; its path."""
        self.host.run(["sh", "-ec", f"ip netns add {name}; ip -n {name} link set lo up"])
        return f"/run/netns/{name}"

    def words(
        self, command: str, container: str = "", interface: str = "eth0", netns: str = "", args: str = ""
    ) -> list[str]:
        """The command line that sets the environment and starts the plugin."""
        values = {"COMMAND": command, "CONTAINERID": container, "IFNAME": interface, "NETNS": netns, "ARGS": args}
        return [
            "env",
            "CNI_PATH=/opt/cni/bin",
            *(f"CNI_{key}={value}" for key, value in values.items() if value),
            PROGRAM,
        ]

    def document(self, **keys: Any) -> str:
        """The configuration on standard input."""
        return json.dumps({**self.config, **keys})

    def call(
        self, command: str, container: str = "", interface: str = "eth0", netns: str = "", args: str = "", **keys: Any
    ) -> Any:
        """Call the plugin; what it answers, None for nothing. Raises Failed."""
        words = self.words(command, container, interface, netns, args)
        return answer(self.host.run(words, check=False, stdin=self.document(**keys)))

    def add(self, name: str, interface: str = "eth0", args: str = "", **keys: Any) -> dict[str, Any]:
        """ADD for the container ``name``, whose namespace has the same name."""
        result = self.call("ADD", name, interface, f"/run/netns/{name}", args, **keys)
        assert isinstance(result, dict)
        return result

    def delete(self, name: str, interface: str = "eth0", netns: str | None = None, args: str = "", **keys: Any) -> None:
        """DEL; with ``netns`` "" without CNI_NETNS."""
        where = f"/run/netns/{name}" if netns is None else netns
        assert self.call("DEL", name, interface, where, args, **keys) is None

    def check(self, name: str, result: dict[str, Any], interface: str = "eth0", **keys: Any) -> None:
        """CHECK against a result."""
        told = self.call("CHECK", name, interface, f"/run/netns/{name}", prevResult=result, **keys)
        assert told is None

    def collect(self, *valid: tuple[str, str], **keys: Any) -> None:
        """GC with these valid attachments."""
        named = [{"containerID": container, "ifname": interface} for container, interface in valid]
        assert self.call("GC", interface="", **{"cni.dev/valid-attachments": named, **keys}) is None

    def status(self, **keys: Any) -> None:
        """STATUS."""
        assert self.call("STATUS", interface="", **keys) is None

    def inside(self, name: str, *command: str) -> str:
        """What a command prints in a container's namespace."""
        return self.host.run(["nsenter", f"--net=/run/netns/{name}", *command]).stdout

    def left(self) -> list[str]:
        """Whatever there is of attachments, on disk and in the kernel."""
        state = self.host.path(self.host.state)
        globs = ("cni/locks/*", "cni/networks/*/*.json*", "networks/*/leases/*", "networks/*/published/*")
        found = [str(path) for glob in globs for path in state.glob(glob)]
        links = json.loads(self.host.run(["ip", "-j", "link"]).stdout)
        found += [link["ifname"] for link in links if link["ifname"].startswith(("mr", "mi"))]
        for family in ("inet", "bridge"):
            table = self.host.run(["nft", "-j", "list", "table", family, "minirun"], check=False).stdout
            for item in json.loads(table)["nftables"] if table else []:
                found += [
                    str(e) for s in ("set", "map") for e in item.get(s, {}).get("elem", []) if " network " not in str(e)
                ]
        return found


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    """The one document on standard output, or None. Raises Failed for an error, and fails for noise."""
    told = json.loads(done.stdout) if done.stdout else None
    if done.returncode:
        assert done.returncode == 1 and done.stderr.startswith("minirun-cni: "), done
        raise Failed(told)
    assert done.stderr == "", done
    return told
