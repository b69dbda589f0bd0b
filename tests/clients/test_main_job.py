"""The main job: two real web servers, both on port 80, each in a container of its own, and everyone who asks them."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.fakehost import Namespace
from tests.lifecycle.machine import MINIRUN, SOON, Machine, until

pytestmark = pytest.mark.download

CLIENT = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=float(sys.argv[3]))
connection.request("GET", "/")
answer = connection.getresponse()
print(answer.status, answer.headers["Server"])
"""
# Answers every connection with the address that it came from.
ECHO = """
import socket
server = socket.create_server(("", 7))
print("ready", flush=True)
while True:
    connection, peer = server.accept()
    connection.sendall(peer[0].encode() + b"\\n")
    connection.close()
"""


def asked(place: Namespace, address: str, port: int, patience: float = SOON) -> str:
    """Status and Server header that a client in a namespace gets; "" if nobody answers."""
    done = place.run([sys.executable, "-c", CLIENT, address, str(port), str(patience)], check=False)
    return done.stdout.strip()


def asked_inside(host: Machine, container: str, address: str) -> str:
    """The Server header that a client inside a container gets."""
    script = "printf 'HEAD / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 5 \"$@\""
    done = host.minirun("exec", container, "sh", "-c", script, "sh", *address.split(":"), check=False)
    return "".join(re.findall(r"Server: (\w+)", done.stdout))


@pytest.fixture
def servers(host: Machine) -> dict[str, str]:
    """nginx as ``one``, published on 8081, and Apache as ``two`` on 8082; their addresses."""
    for name, image, port in (("one", "nginx", "8081"), ("two", "apache", "8082")):
        host.out("run", "-d", "--net", "br0", "--name", name, "-p", f"{port}:80", image)
    found = {name: str(host.inspect(name)["NetworkSettings"]["IPAddress"]) for name in ("one", "two")}
    for address in found.values():
        until(lambda address=address: asked(host, address, 80), f"a server at {address}")  # type: ignore[misc]
    return found


def test_both_are_reached_by_everyone(host: Machine, servers: dict[str, str]) -> None:
    expected = {"one": "nginx", "two": "Apache"}
    for name, port in (("one", 8081), ("two", 8082)):
        answers = {
            "the host, by the container's address": asked(host, servers[name], 80),
            "the host, by its own address": asked(host, host.address, port),
            "the host, by its other address": asked(host, host.lan_address, port),
            "the host, by 127.0.0.1": asked(host, "127.0.0.1", port),
            "outside": asked(host.outside, host.address, port),
            "the neighbour": asked(host.lan, host.lan_address, port),
        }
        for who, answer in answers.items():
            assert answer.startswith(f"200 {expected[name]}"), (name, who, answer)
    assert asked_inside(host, "one", f"{servers['two']}:80") == "Apache"
    assert asked_inside(host, "two", f"{servers['one']}:80") == "nginx"


def test_the_published_ports_are_the_only_way_in(host: Machine, servers: dict[str, str]) -> None:
    host.outside.run(["ip", "route", "add", "10.201.0.0/24", "via", host.address])
    for address in servers.values():
        assert asked(host.outside, address, 80, 1) == ""
        assert asked(host.lan, address, 80, 1) == ""
    assert asked(host.outside, host.address, 80, 1) == ""


def test_inspect_of_all_that_runs_shows_ids_and_addresses(host: Machine, servers: dict[str, str]) -> None:
    script = " ".join(MINIRUN)
    shown = host.run(["sh", "-c", f"{script} inspect $({script} ps -q) | grep 'IPAddress\\|Id'"]).stdout
    for address in servers.values():
        assert f'"IPAddress": "{address}"' in shown
    for identity in host.out("ps", "-q", "--no-trunc").split():
        assert f'"Id": "{identity}"' in shown


def test_the_way_out_has_the_hosts_address(host: Machine, servers: dict[str, str]) -> None:
    echo = host.outside.popen([sys.executable, "-c", ECHO])
    try:
        assert echo.stdout and echo.stdout.readline() == "ready\n"
        for name in servers:
            assert host.out("exec", name, "busybox", "nc", "-w", "5", host.outside_address, "7") == host.address
        # The control: without the element nobody answers, since outside knows no way to 10.201.0.0/24.
        host.run(["nft", "delete", "element", "inet", "minirun", "masq_br", "{ br0 }"])
        done = host.minirun("exec", "one", "busybox", "nc", "-w", "1", host.outside_address, "7", check=False)
        assert done.stdout == "" and done.returncode != 0
    finally:
        echo.kill()
        echo.communicate(timeout=SOON)


def test_another_network_does_not_reach_them(host: Machine, servers: dict[str, str]) -> None:
    host.minirun("network", "create", "lab")
    host.out("run", "-d", "--net", "lab", "--name", "stranger", "busybox", "sleep", "1000")
    for address in servers.values():
        assert asked_inside(host, "stranger", f"{address}:80") == ""
    # The control: by what is published it does.
    assert asked_inside(host, "stranger", f"{host.address}:8081") == "nginx"


def test_nothing_is_left_after_rm(host: Machine, servers: dict[str, str]) -> None:
    assert len(host.cgroups()) > 0
    host.minirun("rm", "-f", *servers)
    host.wait_until("! ip -o link | grep -q ': mr'")
    assert host.leftovers() == []
    for port in (8081, 8082):
        assert asked(host.outside, host.address, port, 1) == ""
    host.out("run", "-d", "--name", "one", "-p", "8081:80", "nginx")  # name and port are free again
    host.minirun("rm", "-f", "one")


def test_a_container_is_a_process_of_the_host(host: Machine, servers: dict[str, str]) -> None:
    pid = host.inspect("one")["State"]["Pid"]
    shown = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout
    assert "nginx" in shown
    assert str(pid) in host.run(["ip", "netns", "pids", "one"]).stdout.split()
