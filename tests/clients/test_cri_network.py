"""Pods of containerd's CRI in a network of minirun, by our CNI plugin and the file that docs/reference/cni.md shows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from tests.clients.cri import Kubelet, grpc, kubelet
from tests.clients.engines import documented
from tests.fakehost import REPOSITORY
from tests.lifecycle.machine import until
from tests.network.plugin import Failed, Plugin

PAGE = REPOSITORY / "docs/reference/cni.md"
SERVER = "echo of the pod > /tmp/index.html; httpd -f -p 80 -h /tmp"
NETWORK = documented("10-minirun.conflist", PAGE)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubelet]:
    """One daemon for the whole file."""
    with kubelet(tmp_path_factory.mktemp("cri"), NETWORK) as made:
        yield made


@pytest.fixture
def plugin(node: Kubelet) -> Plugin:
    """The plugin as containerd's libcni calls it, to be asked what libcni of that version does not ask."""
    conflist = json.loads(NETWORK)
    return Plugin(node.machine, **{**conflist["plugins"][0], "name": conflist["name"]})


@pytest.fixture
def cluster(node: Kubelet, plugin: Plugin) -> Iterator[Kubelet]:
    """The daemon; after the test nothing of its pods may be left anywhere."""
    yield node
    node.sweep()
    assert plugin.left() == []


def test_two_pods_and_a_port_of_the_host(cluster: Kubelet, plugin: Plugin) -> None:
    host = cluster.machine
    mapping = {"container_port": 80, "host_port": 8080, "protocol": "TCP"}
    pod = cluster.pod("minirun", port_mappings=[mapping])
    assert pod.address.startswith("10.244.0.")
    pod.start("sh", "-c", SERVER)
    other = cluster.pod("minirun")
    wget = f"until wget -q -O - http://{pod.address}/; do sleep 0.05; done"
    assert other.sh(wget) == "of the pod"
    assert other.sh(f"ping -c1 -W5 {host.outside_address} > /dev/null && echo out") == "out"
    for client in (host.outside, host):
        page = client.run(["busybox", "wget", "-q", "-O", "-", f"http://{host.address}:8080/"])
        assert page.stdout == "of the pod\n"
    inspected = json.loads(host.minirun("network", "inspect", "pods").stdout)[0]
    assert set(inspected["leases"]) == {pod.address, other.address}
    assert {port["alias"].split()[0] for port in inspected["ports"]} == {pod.name, other.name}
    pod.stop()
    assert len(os.listdir(host.path(f"{host.state}/networks/pods/leases"))) == 1
    assert "8080" not in host.run(["nft", "list", "table", "inet", "minirun"]).stdout


def test_a_port_that_is_taken_keeps_a_pod_from_starting(cluster: Kubelet) -> None:
    mapping = {"container_port": 80, "host_port": 8080, "protocol": "TCP"}
    cluster.pod("minirun", port_mappings=[mapping])
    with pytest.raises(grpc.RpcError, match="publishes this port already"):
        cluster.pod("minirun", port_mappings=[mapping])


def test_many_pods_at_once(cluster: Kubelet) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(6) as pool:
        pods = list(pool.map(lambda _: cluster.pod("minirun"), range(6)))
        assert len({pod.address for pod in pods}) == 6
        list(pool.map(lambda pod: pod.remove(), pods))


def test_a_pod_that_vanished_is_collected(cluster: Kubelet, plugin: Plugin) -> None:
    """Its namespace went and nobody called DEL: as after a crash of a node's disk, or of a runtime that forgot."""
    host = cluster.machine
    pod, kept = cluster.pod("minirun"), cluster.pod("minirun")
    containers = {"lost": "a" * 64, "vanished": "b" * 64}
    for name, identity in containers.items():
        plugin.call("ADD", identity, "eth0", plugin.namespace(name))
    host.run(["ip", "netns", "del", "vanished"])
    valid = [(each.id, "eth0") for each in (pod, kept)]
    plugin.collect(*valid)
    held = os.listdir(host.path(f"{host.state}/networks/pods/leases"))
    assert set(held) == {pod.address, kept.address}
    assert "eth0" not in plugin.inside("lost", "ip", "-o", "link")
    assert kept.sh(f"ping -c1 -W5 {pod.address} > /dev/null && echo reached") == "reached"
    host.run(["ip", "netns", "del", "lost"])


def ready(cluster: Kubelet) -> bool:
    """Whether the daemon answers; a connection that it closed is told as an error once."""
    try:
        return cluster._ready()
    except grpc.RpcError:
        return False


def test_containerd_restarts(cluster: Kubelet) -> None:
    pod = cluster.pod("minirun")
    address = pod.address
    cluster.machine.restart()
    until(lambda: ready(cluster), "a daemon that is ready again")
    assert pod.address == address
    pod.remove()
    with pytest.raises(Failed):
        Plugin(cluster.machine, name="pods").call("CHECK", pod.id, "eth0", "/nowhere", prevResult={})
