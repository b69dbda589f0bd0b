"""podman with its cni backend, whose networks, addresses and published ports are ours."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.clients.engines import documented
from tests.clients.podman import IMAGE, Podman
from tests.fakehost import REPOSITORY
from tests.lifecycle.machine import until
from tests.network.plugin import PROGRAM, Plugin

BACKEND = """
[network]
network_backend = "cni"
cni_plugin_dirs = ["/run/cni-bin"]
default_network = "pods"
"""
SERVER = "ready; exec nc -ll -p 80 -e echo"


@pytest.fixture(scope="module")
def podman_host() -> Iterator[Podman]:
    """A machine with podman and the network that docs/reference/cni.md shows, which is podman's default here."""
    made = Podman()
    try:
        made.write("/etc/containers/containers.conf.d/network.conf", BACKEND)
        made.run(["sh", "-ec", 'mkdir /run/cni-bin; ln -s /usr/lib/cni/* "$0" /run/cni-bin', PROGRAM])
        conflist = json.loads(documented("10-minirun.conflist", REPOSITORY / "docs/reference/cni.md"))
        conflist["plugins"][0]["capabilities"]["aliases"] = conflist["plugins"][0]["names"] = True
        made.write("/etc/cni/net.d/10-minirun.conflist", json.dumps(conflist))
        yield made
    finally:
        made.close()


def test_two_containers_and_a_published_port(podman: Podman) -> None:
    plugin = Plugin(podman)
    for name, port in (("one", "8081"), ("two", "8082")):
        podman.start(f"{SERVER} from {name}", f"--name={name}", "--network=pods", f"--publish={port}:80")
    settings = {name: podman.inspect(name)["NetworkSettings"]["Networks"]["pods"] for name in ("one", "two")}
    one, two = (settings[name]["IPAddress"] for name in ("one", "two"))
    assert one.startswith("10.244.0.") and settings["one"]["Gateway"] == "10.244.0.1"
    until(lambda: podman.asked(podman, two, 80) == "from two", f"a server at {two}")
    assert podman.out("exec", "one", "nc", "-w", "5", two, "80") == "from two"
    assert podman.asked(podman.outside, podman.address, 8081) == "from one"
    assert podman.asked(podman, podman.lan_address, 8082) == "from two"
    assert "one" in podman.run(["ip", "link", "show", "master", "pods"]).stdout
    podman.do("rm", "-f", "-t0", "one")
    assert podman.asked(podman.outside, podman.address, 8081) == ""
    fixed = ["--network=pods", "--ip=10.244.0.99", "--mac-address=02:00:00:00:00:99"]
    assert "02:00:00:00:00:99" in podman.sh("ip addr show eth0; ip addr | grep -o 10.244.0.99/24", *fixed)
    podman.do("rm", "-f", "-t0", "two")
    assert plugin.left() == []


def test_names_and_aliases(podman: Podman) -> None:
    podman.start(f"{SERVER} from the database", "--name=one", "--network=pods", "--network-alias=database")
    ask = "until nc -w 5 database 80; do sleep 0.1; done; cat /etc/resolv.conf"
    shown = podman.sh(ask, "--network=pods", "--name=two")
    assert "from the database" in shown and "nameserver 10.244.0.1" in shown
    podman.do("rm", "-f", "-t0", "one")
    assert Plugin(podman).left() == []


def test_what_cannot_be_given_is_told(podman: Podman) -> None:
    podman.start("ready; exec sleep 100", "--name=one", "--network=pods", "--publish=8081:80")
    words = ["run", "--rm", "--network=pods", "--publish=8081:80", IMAGE, "true"]
    done = podman.do(*words, check=False)
    assert done.returncode != 0 and "8081" in done.stderr, done
    assert Plugin(podman).left() != []
    podman.do("rm", "-f", "-t0", "one")
    assert Plugin(podman).left() == []
