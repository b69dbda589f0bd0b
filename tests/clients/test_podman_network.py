"""podman's networks and pods: the network namespace is podman's, and a runtime joins what it is shown."""

from __future__ import annotations

import json
import os

from tests.clients.podman import IMAGE, Podman
from tests.lifecycle.machine import until

SERVER = "ready; exec nc -ll -p 80 -e echo"


def address(podman: Podman, name: str) -> str:
    """The address of a container on podman's default network."""
    return str(podman.inspect(name)["NetworkSettings"]["IPAddress"])


def states(podman: Podman) -> set[str]:
    """The states of all containers, the pod's own included."""
    return {item["State"] for item in json.loads(podman.out("ps", "-a", "--format=json"))}


def test_a_bridge_and_a_published_port(podman: Podman) -> None:
    for name, port in (("one", "8081"), ("two", "8082")):
        podman.start(f"{SERVER} from {name}", f"--name={name}", "--network=bridge", f"--publish={port}:80")
    one, two = address(podman, "one"), address(podman, "two")
    until(lambda: podman.asked(podman, one, 80) == "from one", f"a server at {one}")
    until(lambda: podman.asked(podman, two, 80) == "from two", f"a server at {two}")
    assert podman.out("exec", "one", "nc", "-w", "5", two, "80") == "from two"
    assert podman.out("exec", "two", "nc", "-w", "5", one, "80") == "from one"
    assert podman.asked(podman.outside, podman.address, 8081) == "from one"
    assert podman.asked(podman, podman.lan_address, 8082) == "from two"
    podman.do("restart", "-t0", "one")
    until(lambda: podman.asked(podman.outside, podman.address, 8081) == "from one", "the server again")
    podman.do("rm", "-f", "-t0", "one")
    assert podman.asked(podman.outside, podman.address, 8081) == ""
    assert podman.run(["ls", "/run/netns"]).stdout.count("netns-") == 1


def test_a_pod_shares_namespaces(podman: Podman) -> None:
    podman.do("pod", "create", "--name=pod", "--network=bridge", "--publish=8083:80", "--share=net,ipc,uts")
    podman.start(f"{SERVER} from the pod", "--pod=pod", "--name=server")
    podman.start("ready; exec sleep 1000", "--pod=pod", "--name=client")
    pids = [podman.inspect(name)["State"]["Pid"] for name in ("server", "client")]
    kinds = ("net", "ipc", "uts", "mnt", "pid")
    namespaces = [[os.readlink(f"/proc/{pid}/ns/{kind}") for kind in kinds] for pid in pids]
    assert [a == b for a, b in zip(*namespaces, strict=True)] == [True, True, True, False, False]
    until(lambda: podman.asked(podman.outside, podman.address, 8083) == "from the pod", "the pod's server")
    assert podman.out("exec", "client", "nc", "-w", "5", "127.0.0.1", "80") == "from the pod"
    assert podman.out("exec", "client", "hostname") == "pod"
    podman.do("pod", "stop", "-t0", "pod")
    assert states(podman) == {"exited"}
    podman.do("pod", "start", "pod")
    assert states(podman) == {"running"}
    podman.do("pod", "pause", "pod")
    assert states(podman) == {"paused"}
    podman.do("pod", "unpause", "pod")
    podman.do("pod", "rm", "-f", "-t0", "pod")
    assert podman.out("ps", "-aq") == ""


def test_nothing_is_left_after_a_prune(podman: Podman) -> None:
    podman.start("ready; exec sleep 1000", "--name=one", "--network=bridge")
    podman.do("run", "--network=bridge", "--name=two", IMAGE, "true")
    podman.do("kill", "one")
    podman.do("wait", "one")
    podman.do("system", "prune", "--force")
    assert podman.out("ps", "-aq") == ""
    until(lambda: not podman.remains(), "an end of all")
    mounts = open(f"/proc/{podman.pid}/mountinfo").read()
    assert "/userdata/" not in mounts and "/merged" not in mounts
    links = podman.run(["ip", "-o", "link"]).stdout
    until(lambda: "veth" not in podman.run(["ip", "-o", "link"]).stdout, f"an end of {links}")
    assert podman.out("run", "--rm", IMAGE, "echo", "again") == "again"
