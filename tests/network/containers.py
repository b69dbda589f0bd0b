"""Containers without a runtime: attached namespaces on a fake host, in which small servers and clients run."""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence

from tests.fakehost import FakeHost, Namespace

ATTACH = """
import json, sys
from minirun import step
from minirun.engine import connect, plan
from minirun.engine.options import Attachment, RunOptions
from minirun.network import attach, bridge, ipam, ports
identity, name, network, wanted = sys.argv[1:5]
network = bridge.ensure(network)
options = RunOptions()
options.ports = [port for text in sys.argv[5:] for port in ports.parse(text)]
plan.decide_ports(None, options, [network])
options.networks = [Attachment(network.name)]
options.networks[0].address = wanted
endpoints = connect.endpoints(identity, name, options, [network], ipam.allocate)
steps = attach.attach_steps(identity, name, endpoints, options.ports)
step.do_all(steps)
print(json.dumps([[address.partition("/")[0] for address in endpoints[0].addresses], [s.record() for s in steps]]))
"""

UNDO = """
import json, sys
from minirun import step
from minirun.network import attach, bridge, proxy
errors = step.undo_all([step.load(record) for record in json.load(sys.stdin)])
assert not errors, errors
"""

SERVER = """
import socket, sys
kind, port, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def plain(peer):
    return peer[0].removeprefix("::ffff:")
if kind == "tcp":
    server = socket.create_server(("", port), family=socket.AF_INET6, backlog=64, dualstack_ipv6=True)
    print("ready", flush=True)
    while True:
        connection, peer = server.accept()
        connection.sendall(f"{name} sees {plain(peer)}".encode())
        connection.close()
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.bind(("", port))
print("ready", flush=True)
while True:
    _, peer = server.recvfrom(100)
    print(plain(peer), flush=True)
    server.sendto(f"{name} sees {plain(peer)}".encode(), peer)
"""

CLIENT = """
import socket, sys
kind, address, port, patience = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
client = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
client.settimeout(patience)
try:
    client.connect((address, port))
    if kind == "udp":
        client.send(b"?")
    print(client.recv(100).decode())
except OSError as error:
    print(type(error).__name__, error.errno)
"""


class Attached:
    """A namespace attached to a network of the fake host, standing for a container."""

    def __init__(self, host: FakeHost, name: str, network: str, *ports: str, address: str = "") -> None:
        self.host, self.name, self.id = host, name, identity(name)
        # It lives as long as somebody holds its lock: so do we, and who cleans up leaves it alone.
        for folder in (host.state, f"{host.state}/locks"):
            host.path(folder).mkdir(mode=0o700, exist_ok=True)
        self.lock = host.path(f"{host.state}/locks/{self.id}").open("w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        done = host.python(ATTACH, self.id, name, network, address, *ports)
        self.addresses, self.steps = json.loads(done)
        self.address = self.addresses[0]
        self._enter = ["nsenter", f"--net=/run/netns/{name}"]

    def command(self, *command: str) -> list[str]:
        """The command as the host has to run it."""
        return [*self._enter, *command]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the namespace."""
        return self.host.run(self.command(*command), check=check)

    def undo(self) -> None:
        """Undo the plan, as the end of the container would."""
        self.host.run([sys.executable, "-c", UNDO], stdin=json.dumps(self.steps))  # more than an argument may hold
        self.host.path(f"{self.host.state}/locks/{self.id}").unlink(missing_ok=True)
        self.lock.close()


HOST6, OUTSIDE6, LAN6, NEIGHBOUR6 = "2001:db8:1::2", "2001:db8:1::1", "2001:db8:2::1", "2001:db8:2::2"


def with_ipv6(host: FakeHost) -> None:
    """Give the host and its surroundings IPv6 addresses, as they have of IPv4, and make the network ``six`` of both."""
    host.run(["ip", "addr", "add", f"{HOST6}/64", "dev", "eth0", "nodad"])
    host.run(["ip", "addr", "add", f"{LAN6}/64", "dev", "eth1", "nodad"])
    host.outside.run(["ip", "addr", "add", f"{OUTSIDE6}/64", "dev", "eth0", "nodad"])
    host.lan.run(["ip", "addr", "add", f"{NEIGHBOUR6}/64", "dev", "eth0", "nodad"])
    host.lan.run(["ip", "-6", "route", "add", "default", "via", LAN6])
    host.sysctl("net.bridge.bridge-nf-call-ip6tables", host.sysctl("net.bridge.bridge-nf-call-iptables"))
    make_network(host, "six", ipv6=True)


def make_network(host: FakeHost, name: str, **wanted: bool) -> None:
    """Create a network; ``wanted`` are attributes of ``creation.Wanted``."""
    code = "wanted = creation.Wanted(sys.argv[1]); vars = json.loads(sys.argv[2])\n"
    code += "for key, value in vars.items():\n    setattr(wanted, key, value)\nbridge.create(wanted)"
    host.python(f"import json, sys\nfrom minirun.network import bridge, creation\n{code}", name, json.dumps(wanted))


GATE = """
import sys
from minirun.network import attach, bridge, helper  # all that takes time
print("ready", flush=True)
sys.stdin.readline()
"""

Serve = Callable[..., subprocess.Popen[str]]


def identity(name: str) -> str:
    """An id like the engine's, 64 hexadecimal digits."""
    return hashlib.sha256(name.encode()).hexdigest()


def ask(place: Namespace | Attached, address: str, port: int, kind: str = "tcp", patience: float = 10) -> str:
    """What a client at ``place`` gets from ``address``: the server's words, or the name of the error."""
    command = [sys.executable, "-c", CLIENT, kind, address, str(port), str(patience)]
    done = place.run(*command) if isinstance(place, Attached) else place.run(command)
    return done.stdout.strip()


def at_once(host: FakeHost, code: str, argument_lists: Sequence[Sequence[str]]) -> list[str]:
    """Run Python code in as many processes as there are lists of arguments, all let go together; what each printed."""
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.STDOUT}
    crowd = [host.popen([sys.executable, "-c", GATE + code, *words], **pipes) for words in argument_lists]
    for process in crowd:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in crowd:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate(timeout=60)[0] for process in crowd]
