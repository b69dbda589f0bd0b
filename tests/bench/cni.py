"""The CNI plugin beside the reference plugins that it replaces, both called by cnitool as by an engine's library."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.bench.machine import SCRATCH, BenchHost
from tests.fakehost import REPOSITORY

REFERENCE = Path("/usr/lib/cni")  # Debian's package containernetworking-plugins
CNITOOL = REPOSITORY / "build/cnitool"
NAME = "minirun-cni"
PORT: dict[str, Any] = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
IPAM = {"type": "host-local", "dataDir": f"{SCRATCH}/leases", "routes": [{"dst": "0.0.0.0/0"}]}
OURS = {"type": "minirun-cni", "bridge": "bench0", "capabilities": {"portMappings": True}}
BRIDGE = {"type": "bridge", "bridge": "bench1", "isGateway": True, "ipMasq": True, "hairpinMode": True}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


def _range(subnet: str) -> dict[str, Any]:
    return {"ipam": {**IPAM, "ranges": [[{"subnet": subnet}]]}}


NETWORKS: dict[str, list[dict[str, Any]]] = {
    NAME: [{**OURS, **_range("10.77.0.0/16")}],
    "bridge and host-local, no port": [{**BRIDGE, **_range("10.78.0.0/16")}],
    "bridge, host-local, portmap": [{**BRIDGE, "bridge": "bench2", **_range("10.79.0.0/16")}, PORTMAP],
}
ADD_AND_DEL = "cnitool add {network} /run/netns/bench-cni > /dev/null; cnitool del {network} /run/netns/bench-cni"


def missing() -> str:
    """Why this cannot be measured here; "" if it can."""
    if not all((REFERENCE / name).exists() for name in ("bridge", "host-local", "portmap")):
        return "no reference plugins; they are in the package containernetworking-plugins"
    if not CNITOOL.exists() and not shutil.which("go"):
        return "no Go compiler for cnitool; it is in the package golang-go"
    built = subprocess.run([REPOSITORY / "tests/clients/cnitool.sh", CNITOOL], capture_output=True, text=True)
    return built.stderr.strip() if built.returncode else ""


def times(host: BenchHost, program: str, rounds: int, warm_up: int) -> dict[str, list[float]]:
    """Seconds of ADD and DEL of a container with a published port, in interleaved rounds; ``program`` is minirun."""
    folder = f"{SCRATCH}/cni"
    plugin = Path(program).with_name("minirun-cni")
    host.run(
        [
            "sh",
            "-ec",
            'mkdir -p $0/bin; ln -s "$1" /usr/lib/cni/* $0/bin; mount -t tmpfs tmpfs /var/lib',
            folder,
            str(plugin),
        ]
    )
    host.run(["ip", "netns", "add", "bench-cni"])
    jobs = {}
    for number, (name, plugins) in enumerate(NETWORKS.items()):
        conflist = {"cniVersion": "1.0.0", "name": f"bench{number}", "plugins": plugins}
        host.path(f"{folder}/{number}.conflist").write_text(json.dumps(conflist))
        settings = [
            f"NETCONFPATH={folder}",
            f"CNI_PATH={folder}/bin",
            f"PATH={CNITOOL.parent}:/usr/sbin:/usr/bin:/sbin:/bin",
        ]
        asked = [f"CAP_ARGS={json.dumps(PORT)}"] if PORTMAP in plugins or name == NAME else []
        script = ADD_AND_DEL.format(network=f"bench{number}")
        jobs[name] = {"timed": ["env", *settings, *asked, "sh", "-ec", script], "after": []}
    results = host.rounds(jobs, rounds, warm_up)
    failed = {name: result["failed"] for name, result in results.items() if result["failed"]}
    assert not failed, failed
    return {name: result["seconds"] for name, result in results.items()}
