"""minirun-proxy: what is published on [::1], and that it ends with its container."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakehost import REPOSITORY
from tests.lifecycle.machine import Machine
from tests.network.containers import SERVER, make_network

SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1"]
PROXY = str(REPOSITORY / "minirun/libexec/minirun-proxy")
# Takes all that a client sends until its end, and only then sends it back.
ECHO = """
import socket
server = socket.create_server(("", 80), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    whole = b"".join(iter(lambda: connection.recv(65536), b""))
    connection.sendall(whole)
    connection.close()
"""
HALF_CLOSE = """
import hashlib, os, socket
data = os.urandom(1 << 16) * 80
for _ in range(3):
    client = socket.create_connection(("::1", 8080), 20)
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)
    back = b"".join(iter(lambda: client.recv(65536), b""))
    assert back == data, (len(back), len(data))
    client.close()
print("whole")
"""
ASK = """
import socket, sys
kind, port = sys.argv[1], int(sys.argv[2])
client = socket.socket(socket.AF_INET6, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
client.settimeout(10)
try:
    client.connect(("::1", port))
    if kind == "udp":
        client.send(b"?")
    print(client.recv(100).decode())
except OSError as error:
    print(type(error).__name__)
"""


class Running:
    """Servers inside containers, ended after the test."""

    def __init__(self, host: Machine) -> None:
        self.host = host
        self.servers: list[subprocess.Popen[str]] = []

    def serve(self, code: str, *arguments: str, inside: str = "web") -> None:
        enter = ["nsenter", f"--net=/run/netns/{inside}"] if inside else []
        server = self.host.popen([*enter, sys.executable, "-c", code, *arguments])
        self.servers.append(server)
        assert server.stdout and server.stdout.readline() == "ready\n"


@pytest.fixture
def running(host: Machine) -> Iterator[Running]:
    """Starts servers; the network ``six`` has both families."""
    make_network(host, "six", ipv6=True)
    found = Running(host)
    yield found
    for server in found.servers:
        server.kill()
        server.communicate(timeout=10)
    for identity in host.out("ps", "-aq").split():
        host.out("rm", "-f", identity)
    host.out("network", "rm", "six")


def start(host: Machine, *ports: str, network: str = "six") -> str:
    options = [word for port in ports for word in ("-p", port)]
    return host.out("run", "-d", "--name", "web", "--net", network, *options, "busybox", "sleep", "600")


def proxies(host: Machine) -> list[int]:
    """The pids of the proxies of this host; a zombie has ended."""
    found = []
    for pid in host.processes():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        found += [pid] if words[0].endswith(b"minirun-proxy") else []
    return found


def ask(host: Machine, kind: str = "tcp", port: int = 8080) -> str:
    return host.run([sys.executable, "-c", ASK, kind, str(port)]).stdout.strip()


@pytest.mark.parametrize("network", ["six", "br0"])
def test_loopback_of_ipv6_leads_into_the_container(host: Machine, running: Running, network: str) -> None:
    """To its IPv6 address, or its IPv4 one if it has no other; each end of a stream is passed on by itself."""
    wanted = "8080:80" if network == "six" else "[::1]:8080:80"
    start(host, wanted, "[::1]:5353:53/udp", "[::1]:9000-9001:9000-9001", network=network)
    running.serve(SERVER, "udp", "53", "web")
    running.serve(SERVER, "tcp", "9001", "web")
    assert ask(host) == "ConnectionResetError"  # nobody listens inside
    running.serve(ECHO)
    assert host.run([sys.executable, "-c", HALF_CLOSE]).stdout == "whole\n"
    gateway = "fd" if network == "six" else "10.201.0.1"
    assert ask(host, "udp", 5353).startswith(f"web sees {gateway}")
    assert ask(host, "tcp", 9001).startswith(f"web sees {gateway}")


def test_it_has_no_rights(host: Machine, running: Running) -> None:
    start(host, "8080:80")
    (pid,) = proxies(host)
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["Uid"].split() == status["Gid"].split() == ["65532"] * 4
    assert status["Groups"].strip() == ""
    assert (status["CapPrm"], status["CapEff"], status["CapAmb"]) == ("0" * 16,) * 3
    assert status["NoNewPrivs"] == "1"
    assert Path(f"/proc/{pid}/environ").stat().st_uid == 0  # not dumpable: nobody else with that number looks in
    assert os.readlink(f"/proc/{pid}/cwd") == "/"


def test_its_port_is_taken_and_free_again(host: Machine, running: Running) -> None:
    identity = start(host, "8080:80")
    said = host.refused("run", "-d", "--net", "six", "-p", "[::1]:8080:80", "busybox", "sleep", "600")
    assert f"container web {identity[:12]} publishes this port already" in said
    for _ in range(3):
        host.out("rm", "-f", "web")
        assert proxies(host) == []
        start(host, "8080:80")
    host.out("rm", "-f", "web")
    with host.popen([sys.executable, "-c", SERVER, "tcp", "8080", "host"]) as server:  # of the host, on all addresses
        assert server.stdout and server.stdout.readline() == "ready\n"
        said = host.refused("run", "-d", "--net", "six", "-p", "[::1]:8080:80", "busybox", "sleep", "600")
        assert f"(pid {server.pid}) uses the port" in said
        server.kill()


@pytest.mark.parametrize("victim", ["monitor", "command", "program", "proxy"])
def test_it_ends_with_its_container_however_that_ends(host: Machine, running: Running, victim: str) -> None:
    command = host.spawn("run", "--rm", "--name", "web", "--net", "six", "-p", "8080:80", "busybox", "sleep", "600")
    host.wait_until(f"grep -q running {host.state}/containers/*/state.json")
    (proxy,) = proxies(host)
    program = host.inspect("web")["State"]["Pid"]
    monitor = int(Path(f"/proc/{program}/stat").read_text().rpartition(")")[2].split()[1])
    pids = {"monitor": monitor, "command": command.pid, "program": program, "proxy": proxy}
    os.kill(pids[victim], signal.SIGKILL)
    if victim in ("command", "proxy"):  # the container goes on
        host.out("stop", "-t", "0", "web")
    command.communicate(timeout=20)
    host.wait_until(f"test ! -e /proc/{proxy} || grep -q Z /proc/{proxy}/stat")
    assert host.out("ps", "-aq") == ""
    folders = [f"{host.state}/networks/six/{name}" for name in ("proxies", "published")]
    assert host.run(["find", *folders, "-type", "f"]).stdout == ""


def test_it_follows_a_container_from_network_to_network(host: Machine, running: Running) -> None:
    start(host, "8080:80")
    (first,) = proxies(host)
    make_network(host, "other", ipv6=True)
    host.out("network", "connect", "other", "web")
    host.out("network", "disconnect", "six", "web")
    (second,) = proxies(host)
    assert second != first
    running.serve(SERVER, "tcp", "80", "web")
    assert ask(host).startswith("web sees fd")
    program = host.inspect("web")["State"]["Pid"]
    os.kill(int(Path(f"/proc/{program}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
    host.wait_until(f"test ! -e /proc/{second} || grep -q Z /proc/{second}/stat")
    host.out("rm", "-f", "web")
    host.out("network", "rm", "other")


def test_a_kill_of_everything_leaves_no_proxy(host: Machine, running: Running) -> None:
    start(host, "8080:80")
    (proxy,) = proxies(host)
    program = host.inspect("web")["State"]["Pid"]
    os.kill(int(Path(f"/proc/{program}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
    host.wait_until(f"test ! -e /proc/{proxy} || grep -q Z /proc/{proxy}/stat")
    host.out("run", "--rm", "--net", "six", "-p", "[::1]:8080:80", "busybox", "true")  # the next command cleans up
    assert host.out("ps", "-q") == ""


@pytest.mark.parametrize("told", [True, False])
def test_it_does_nothing_before_it_is_told_to(told: bool) -> None:
    """Who started it notes which process it is; if that one dies before, it must end: nobody would find it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    descriptor = str(theirs.fileno())
    words = [PROXY, "--start", descriptor, "--until", descriptor, "tcp", "[::1]:0", "127.0.0.1:80"]
    with subprocess.Popen(words, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True) as proxy:
        theirs.close()
        if told:
            ours.send(b"1")
        ours.close()
        assert proxy.communicate(timeout=10)[1][:5] == ("usage" if told else "")
        assert proxy.returncode == 125


def test_it_moves_while_it_is_in_use(host: Machine, running: Running) -> None:
    start(host, "8080:80", "[::1]:5353:53/udp")
    running.serve(SERVER, "tcp", "80", "web")
    make_network(host, "other", ipv6=True)
    host.out("network", "connect", "other", "web")
    code = """
import socket, sys
client = socket.create_connection(("::1", 8080), 20)
print("ready", flush=True)
sys.stdin.read()
"""
    for leave, back in (("six", "other"), ("other", "six")):
        user = host.popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
        running.servers.append(user)
        assert user.stdout and user.stdout.readline() == "ready\n"
        host.out("network", "disconnect", leave, "web")
        (pid,) = proxies(host)
        target = host.inspect("web")["NetworkSettings"]["Networks"][back]["GlobalIPv6Address"]
        assert f"[{target}]:80".encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        assert ask(host).startswith("web sees fd")
        host.out("network", "connect", leave, "web")
    host.out("rm", "-f", "web")
    host.out("network", "rm", "other")


def test_one_that_cannot_serve_is_no_success(host: Machine, running: Running) -> None:
    """Somebody took the port of [::1] while it moves: the command says so, and no proxy is left."""
    start(host, "[::1]:8080:80")
    make_network(host, "other", ipv6=True)
    host.out("network", "connect", "other", "web")
    (pid,) = proxies(host)
    os.kill(pid, signal.SIGKILL)
    host.wait_until(f"test ! -e /proc/{pid} || grep -q Z /proc/{pid}/stat")
    running.serve(SERVER, "tcp", "8080", "thief", inside="")
    host.refused("network", "disconnect", "six", "web")
    assert proxies(host) == []
    host.out("rm", "-f", "web")
    host.out("network", "rm", "other")


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The proxy, built with the address and undefined-behaviour sanitizers."""
    target = str(tmp_path_factory.mktemp("sanitized") / "minirun-proxy")
    command = ["gcc", *SANITIZE, "-std=gnu11", str(REPOSITORY / "csrc/proxy.c"), "-o", target]
    if subprocess.run(command, capture_output=True).returncode:  # a gcc without them
        return PROXY
    return target


def test_what_it_holds_is_bounded(host: Machine, running: Running, sanitized: str) -> None:
    """By hand, with room for seven connections: the others wait; of UDP the clients that were quiet are forgotten."""
    running.serve(SERVER, "tcp", "80", "inner", inside="")
    running.serve(SERVER, "udp", "5300", "inner", inside="")
    running.serve(ECHO.replace("80)", "81)").replace(", 80", ", 81"), inside="")
    ports = "tcp [::1]:8081 127.0.0.1:80 udp [::1]:5353 127.0.0.1:5300 tcp [::1]:8080 127.0.0.1:81"
    code = """
import socket, sys
held = [socket.create_connection(("::1", 8081), 10) for _ in range(40)]
seen = 0
for client in held:  # those beyond the seventh are served as others end
    seen += client.recv(100).startswith(b"inner sees")
    client.close()
print(seen)
clients = [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(300)]
for client in clients:
    client.settimeout(10)
    client.sendto(b"?", ("::1", 5353))
    assert client.recv(100).startswith(b"inner sees")
print(len(clients))
"""
    proxy = host.popen(["sh", "-c", f"ulimit -n 321; exec {sanitized} {ports}"], stderr=subprocess.PIPE)
    running.servers.append(proxy)
    host.wait_until("ss -lnt 'sport = 8080' | grep -q 8080")
    assert host.run([sys.executable, "-c", code]).stdout.split() == ["40", "300"]
    assert host.run([sys.executable, "-c", HALF_CLOSE]).stdout == "whole\n"
    assert len(os.listdir(f"/proc/{proxy.pid}/fd")) < 321
    proxy.terminate()
    assert proxy.communicate(timeout=10)[1] == ""


@pytest.mark.parametrize(
    "words",
    [[], ["tcp"], ["tcp", "[::1]:1"], ["icmp", "[::1]:8080", "127.0.0.1:80"], ["tcp", "[::1]:0", "127.0.0.1:80"]],
)
def test_wrong_words_are_refused(words: list[str]) -> None:
    done = subprocess.run([PROXY, *words], capture_output=True, text=True, timeout=10)
    assert done.returncode == 125
    assert done.stderr.startswith("usage: minirun-proxy ")
