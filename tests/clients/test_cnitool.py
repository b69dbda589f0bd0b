"""cnitool, the client of the CNI project itself, and its library: what engines use to call plugins."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fakehost import REPOSITORY, FakeHost
from tests.network.plugin import PROGRAM, Plugin

CNITOOL = REPOSITORY / "build/cnitool"
REFERENCE = "/usr/lib/cni"  # Debian's plugins
OURS: dict[str, Any] = {
    "type": "minirun-cni",
    "bridge": "cni0",
    "isGateway": True,
    "ipMasq": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.7.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]},
    "capabilities": {"portMappings": True, "ips": True, "mac": True},
}
TUNING = {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


@pytest.fixture(scope="session")
def cnitool() -> Path:
    """The program, built from the distribution's sources: it must be there, a machine without it is not provisioned."""
    done = subprocess.run([REPOSITORY / "tests/clients/cnitool.sh", CNITOOL], capture_output=True, text=True)
    assert done.returncode == 0, f"cnitool cannot be built: {done.stderr}"
    return CNITOOL


class Tool:
    """cnitool on a fake host, with one network, ``pods``, and containers that are named namespaces."""

    def __init__(self, host: FakeHost, program: Path, version: str, *plugins: dict[str, Any]) -> None:
        self.host, self.program = host, program
        host.run(
            [
                "sh",
                "-ec",
                "mount -t tmpfs tmpfs /var/lib; mkdir -p /run/cni/bin /run/cni/net.d; ln -s $0 /run/cni/bin",
                PROGRAM,
            ]
        )
        conflist = {"cniVersion": version, "name": "pods", "plugins": list(plugins)}
        host.path("/run/cni/net.d/pods.conflist").write_text(json.dumps(conflist))

    def call(self, command: str, name: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """One command for the container ``name``; what could be asked for is asked for by environment variables."""
        values = {"NETCONFPATH": "/run/cni/net.d", "CNI_PATH": f"/run/cni/bin:{REFERENCE}", **variables}
        words = ["env", *(f"{key}={value}" for key, value in values.items()), str(self.program)]
        return self.host.run([*words, command, "pods", f"/run/netns/{name}"], check=False)

    def do(self, command: str, name: str, **variables: str) -> Any:
        """The same; it must succeed. What it printed, as JSON."""
        done = self.call(command, name, **variables)
        assert (done.returncode, done.stderr) == (0, ""), done
        return json.loads(done.stdout) if done.stdout else None


def reached(host: FakeHost, name: str) -> str:
    """What a server on port 80 of a container answers to somebody outside, who asks port 8080 of the host."""
    server = host.popen(["nsenter", f"--net=/run/netns/{name}", "busybox", "nc", "-ll", "-p", "80", "-e", "echo", name])
    try:
        host.wait_until(f"nsenter --net=/run/netns/{name} ss -ltn | grep -q :80")
        return host.outside.run(["busybox", "nc", "-w", "5", host.address, "8080"], check=False).stdout
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_add_check_del(host: FakeHost, cnitool: Path, version: str) -> None:
    tool, plugin = Tool(host, cnitool, version, OURS, TUNING), Plugin(host)
    for name in ("one", "two"):
        plugin.namespace(name)
    ports = {"CAP_ARGS": json.dumps({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]})}
    one = tool.do("add", "one", CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAME=web", **ports)
    two = tool.do(
        "add", "two", CNI_IFNAME="net7", CAP_ARGS=json.dumps({"ips": ["10.7.0.77/24"], "mac": "02:00:00:00:00:77"})
    )
    assert one["cniVersion"] == version and [i["name"] for i in one["interfaces"]][::2] == ["cni0", "eth0"]
    assert two["ips"][0]["address"] == "10.7.0.77/24" and two["interfaces"][2]["mac"] == "02:00:00:00:00:77"
    assert plugin.inside("one", "sysctl", "-n", "net.core.somaxconn") == "500\n", "the chain went on"
    target = one["ips"][0]["address"].partition("/")[0]
    plugin.inside("two", "ping", "-n", "-c1", "-W5", target)
    assert reached(host, "one") == "one\n"
    if version != "0.3.1":
        tool.do("check", "one", **ports)
        plugin.inside("one", "ip", "addr", "flush", "dev", "eth0")
        failed = tool.call("check", "one", **ports)
        assert failed.returncode == 1 and "lacks the address" in failed.stderr
    assert "already" in tool.call("add", "one").stderr
    tool.do("del", "one", **ports)
    tool.do("del", "one", **ports)
    host.run(["ip", "netns", "del", "two"])
    tool.do("del", "two", CNI_IFNAME="net7")
    assert plugin.left() == []


def test_behind_and_before_others(host: FakeHost, cnitool: Path) -> None:
    """With the reference's portmap behind us; and a chain that fails behind us is undone by its runtime."""
    mapped = {**OURS, "capabilities": {}}
    tool, plugin = Tool(host, cnitool, "1.0.0", mapped, PORTMAP), Plugin(host)
    plugin.namespace("one")
    ports = {"CAP_ARGS": json.dumps({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]})}
    result = tool.do("add", "one", **ports)
    assert len(result["ips"]) == 1
    assert reached(host, "one") == "one\n", "what iptables translates passes our forward chain"
    tool.do("del", "one", **ports)
    broken = {"type": "tuning", "sysctl": {"net.no.such": "1"}}
    tool.host.path("/run/cni/net.d/pods.conflist").write_text(
        json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [OURS, broken]})
    )
    assert tool.call("add", "one").returncode == 1
    tool.do("del", "one")
    assert plugin.left() == []
