"""How fast networks are: many containers, many bytes, many connections.

Throughput and connections are ratios: of a container's network to a bridge that was made by hand in a namespace where
minirun never was, and of a firewall with ten thousand published ports to the same one with a single port. Both sides of
each ratio take turns, a second each.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from minirun.linux.nft import Element
from minirun.network.nat import TABLE
from tests.bench.machine import BenchHost
from tests.bench.peers import LONG, Peer, Unavailable
from tests.fakehost import Namespace

PORTS = 10_000
TURNS = 7
SECONDS = "0.8"
PATIENCE = 900  # seconds for a hundred containers of whomever
Place = Callable[..., "subprocess.Popen[str]"]  # starts a command there

RECEIVE = """
import socket
server = socket.create_server(("", 5201))
print("ready", flush=True)
buffer = bytearray(1 << 20)
while True:
    connection, _ = server.accept()
    while connection.recv_into(buffer):
        pass
    connection.sendall(b".")
    connection.close()
"""
SEND = """
import socket, sys, time
client = socket.create_connection((sys.argv[1], 5201))
data = bytes(1 << 20)
total, started = 0, time.perf_counter()
while time.perf_counter() - started < float(sys.argv[2]):
    client.sendall(data)
    total += len(data)
client.shutdown(socket.SHUT_WR)
client.recv(1)
print(total * 8 / (time.perf_counter() - started) / 1e9)
"""
ACCEPT = """
import socket
server = socket.create_server(("", 80), backlog=1024)
print("ready", flush=True)
while True:
    server.accept()[0].close()
"""
CONNECT = """
import socket, struct, sys, time
count, started = 0, time.perf_counter()
while time.perf_counter() - started < float(sys.argv[2]):
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT: ports are few
    client.connect((sys.argv[1], 8080))
    client.close()
    count += 1
print(count / (time.perf_counter() - started))
"""
HAND_MADE = """
ip link add hand0 type bridge
ip link set hand0 up
for end in a b; do
    ip netns add $0$end
    ip link add hand$end master hand0 type veth peer name eth0 netns $0$end
    ip link set hand$end up
    ip -n $0$end link set eth0 up
done
ip -n $0a addr add 10.9.0.1/24 dev eth0
ip -n $0b addr add 10.9.0.2/24 dev eth0
"""


def crowd(number: int, peers: Sequence[Peer]) -> list[list[str]]:
    """Start so many containers on a bridge, one after the other, and remove them all by one command."""
    table = [[f"{number} containers on a bridge", "start s", "rm -f s", "minirun is"]]
    ours: list[float] = []
    for peer in peers:
        try:
            words = peer.detached()
        except NotImplementedError:
            continue
        try:
            seconds = [_shell(peer, script) for script in _scripts(words, peer.removal, number)]
        except Unavailable as why:
            table.append([peer.name, "-", "-", str(why)])
            continue
        ours = ours or seconds
        ratios = [f"{mine / theirs:.3f}" for mine, theirs in zip(ours, seconds, strict=True)]
        of_it = "" if peer.name == "minirun" else f"{ratios[0]} and {ratios[1]} of it"
        table.append([peer.name, *(f"{value:.2f}" for value in seconds), of_it])
    return table


def _scripts(words: Sequence[str], removal: Sequence[str], number: int) -> list[list[str]]:
    program, *options = words[: words.index("run")]
    rest = words[words.index("run") :]
    start = f'i=0; while [ $i -lt {number} ]; do "$@" --name crowd$i alpine {" ".join(LONG)} > /dev/null || exit 1'
    names = [f"crowd{place}" for place in range(number)]
    return [
        ["sh", "-c", f"{start}; i=$((i+1)); done", "sh", program, *options, *rest],
        [program, *options, *removal, *names],
    ]


def _shell(peer: Peer, command: list[str]) -> float:
    started = time.perf_counter()
    try:
        done = peer.host.run(command, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"not done after {PATIENCE} s") from None
    if done.returncode:
        raise Unavailable((done.stderr.strip().splitlines() or ["failed"])[-1])
    return time.perf_counter() - started


def throughput(host: BenchHost, program: str) -> list[list[str]]:
    """TCP from one container to another, beside a bridge made by hand."""
    names = ("bench-stream-a", "bench-stream-b")
    for name in names:
        host.run([program, "run", "-d", "--name", name, "--net", "br0", "alpine", *LONG])
    address = _address(host, names[1])
    hand = Namespace("hand", setup="mount -t tmpfs tmpfs /run")
    try:
        hand.run(["sh", "-ec", HAND_MADE, "bench-hand-"])
        ours = (_in(host, names[0]), _in(host, names[1]), address)
        theirs = (_in(hand, "bench-hand-a"), _in(hand, "bench-hand-b"), "10.9.0.2")
        rates = _turns(
            {"containers": (*ours, RECEIVE, SEND), "by hand": (*theirs, RECEIVE, SEND)},
            {},
        )
    finally:
        hand.close()
        host.run([program, "rm", "-f", *names])
    return _table("TCP between two on a bridge", "Gb/s", rates)


def connections(host: BenchHost, program: str) -> list[list[str]]:
    """New connections from outside through a published port, with one and with very many in the firewall."""
    host.run([program, "run", "-d", "--name", "bench-flows", "--net", "br0", "-p", "8080:80", "alpine", *LONG])
    address = _address(host, "bench-flows")
    elements = [
        Element("pub4", ["192.0.2.77", "tcp", str(port)], [address, "80"], "bench")
        for port in range(20000, 20000 + PORTS)
    ]
    batches = {
        verb: "\n".join(TABLE.sh(verb, element).removeprefix("nft ").replace("'", "") for element in elements)
        for verb in ("add", "delete")
    }
    one, many = "1 port published", f"{PORTS} more"

    def before(name: str) -> None:
        host.run(["nft", "-f", "-"], stdin=batches["add" if name == many else "delete"])

    place = (host.outside.popen, _in(host, "bench-flows"), host.address, ACCEPT, CONNECT)
    host.run(["nft", "-f", "-"], stdin=batches["add"])
    try:
        rates = _turns({one: place, many: place}, {one: before, many: before})
    finally:
        host.run(["nft", "-f", "-"], stdin=batches["delete"], check=False)
        host.run([program, "rm", "-f", "bench-flows"])
    return _table("new connections through a published port", "a second", {many: rates[many], one: rates[one]})


def _turns(
    contests: dict[str, tuple[Place, Place, str, str, str]], before: dict[str, Callable[[str], None]]
) -> dict[str, list[float]]:
    """Each contest in turn: (where the client is, where the server, its address, its program, the client's)."""
    servers: dict[Place, subprocess.Popen[str]] = {}
    rates: dict[str, list[float]] = {name: [] for name in contests}
    try:
        for _ in range(TURNS):
            for name, (client, server, address, serve, ask) in contests.items():
                if server not in servers:
                    servers[server] = server([sys.executable, "-c", serve])
                    assert servers[server].stdout and servers[server].stdout.readline() == "ready\n"
                if name in before:
                    before[name](name)
                said, complaint = client([sys.executable, "-c", ask, address, SECONDS]).communicate(timeout=60)
                assert said, complaint
                rates[name].append(float(said))
    finally:
        for process in servers.values():
            process.kill()
            process.communicate()
    return rates


def _in(host: Namespace, name: str) -> Place:
    """Start commands in the network namespace of that name, with the files of the host."""
    return lambda command: host.popen(["nsenter", f"--net=/run/netns/{name}", *command])


def _address(host: BenchHost, name: str) -> str:
    shown = host.run(["nsenter", f"--net=/run/netns/{name}", "ip", "-br", "-4", "addr", "show", "eth0"]).stdout
    return shown.split()[2].partition("/")[0]


def _table(title: str, unit: str, rates: dict[str, list[float]]) -> list[list[str]]:
    table = [[title, f"median {unit}", f"best {unit}", "ratio of the medians"]]
    (name, ours), (_, theirs) = rates.items()
    for label, found in rates.items():
        ratio = f"{statistics.median(ours) / statistics.median(theirs):.3f}" if label == name else ""
        digits = 1 if statistics.median(found) < 1000 else 0
        table.append([label, f"{statistics.median(found):.{digits}f}", f"{max(found):.{digits}f}", ratio])
    return table
