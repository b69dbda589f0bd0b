"""What we opened in other firewalls follows the name server, and is closed whatever becomes of the network."""

from __future__ import annotations

import sys

import pytest

from tests.fakehost import FakeHost
from tests.network import rulesets
from tests.network.containers import Attached
from tests.network.test_reload import load, others, udp_answer

# Rules that stop what is forwarded and what comes in; where ours go; what shows both chains.
BOTH = {
    "iptables-nft": "iptables-nft -P FORWARD DROP; iptables-nft -P INPUT DROP",
    "iptables-legacy": "iptables-legacy -P FORWARD DROP; iptables-legacy -P INPUT DROP",
    "docker": rulesets.DOCKER.format("iptables-nft") + "iptables-nft -P INPUT DROP",
    "nft": rulesets.chain("") + rulesets.chain("").replace("other", "another").replace("hook forward", "hook input"),
}
# Takes UDP and TCP of a port on every address, as another name server of the host does.
TAKEN = """
import socket, sys
udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
for one in (udp, tcp):
    one.bind(("", int(sys.argv[1])))
tcp.listen()
print("ready", flush=True)
sys.stdin.readline()
"""


def take(host: FakeHost, port: int) -> None:
    """Another server of the host has this port from now on."""
    running = host.popen([sys.executable, "-c", TAKEN, str(port)], stdin=-1)
    assert running.stdout and running.stdout.readline() == "ready\n", running.communicate(timeout=10)


def name_port(host: FakeHost) -> int:
    """The port that the name server has at br0's gateway; the same by UDP and TCP."""
    words = host.path("/run/minirun/networks/br0/nameserver").read_text().split("\n")[0].split()
    assert words[:2] == ["listen", "10.201.0.1"] and words[2] == words[3]
    return int(words[2])


@pytest.mark.parametrize("name", BOTH)
def test_what_was_opened_follows_the_name_server_and_is_closed(host: FakeHost, name: str) -> None:
    take(host, 53)
    load(host, BOTH[name])
    before = others(host)
    web = Attached(host, "web", "br0")
    assert udp_answer(web) == "stopped"
    host.minirun("network", "reload", "--allow-forward", "br0")
    assert udp_answer(web) == "answered"
    port = name_port(host)

    host.minirun("nameserver", "--stop")
    host.minirun("ps")
    assert (name_port(host), udp_answer(web)) == (port, "answered")

    host.minirun("nameserver", "--stop")
    take(host, port)
    host.minirun("ps")
    assert name_port(host) not in (port, 53)
    assert udp_answer(web) == "answered"
    opened = others(host)
    assert str(opened).count(f"{name_port(host)}") == 2 and f"dport {port}" not in str(opened)

    web.undo()
    assert host.minirun("network", "rm", "br0").stderr == ""
    assert others(host) == before


KILLED = """
import importlib, os, sys
from minirun.network import bridge
module, _, function = sys.argv[1].rpartition(".")
setattr(importlib.import_module(module), function, lambda *_: os._exit(9))
bridge.remove("br0")
"""
MOMENTS = ("minirun.network.foreign.opening.close_all", "minirun.network.member.remove", "minirun.step.undo_all")


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("moment", [*MOMENTS, "minirun.network.foreign.opening.unwatch"])
def test_a_removal_that_is_killed_leaves_nothing_open(host: FakeHost, moment: str, name: str) -> None:
    take(host, 53)
    load(host, BOTH[name])
    before = others(host)
    Attached(host, "web", "br0").undo()
    host.minirun("network", "reload", "--allow-forward", "br0")
    assert others(host) != before
    host.python(KILLED, moment, check=False)
    host.minirun("ps")
    host.minirun("network", "rm", "-f", "br0")
    assert others(host) == before
    assert not list(host.path("/run/minirun/forward").iterdir())


def test_what_a_network_without_a_record_left_open_is_closed_by_the_next_command(host: FakeHost) -> None:
    load(host, BOTH["iptables-legacy"] + ";" + BOTH["iptables-nft"])
    before = others(host)
    host.minirun("network", "create", "--allow-forward", "lab")
    host.run(["iptables-legacy", "-I", "FORWARD", "-i", "lab", "-p", "tcp", "--dport", "80", "-j", "ACCEPT"])
    host.run(["rm", "-r", f"{host.root}/networks/lab"])
    assert str(others(host)).count("minirun network lab") == 4  # nft does not show iptables' comments
    host.minirun("ps")
    host.run(["iptables-legacy", "-D", "FORWARD", "-i", "lab", "-p", "tcp", "--dport", "80", "-j", "ACCEPT"])
    assert others(host) == before
