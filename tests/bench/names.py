"""What a name server costs: ours, and dnsmasq and unbound if they are found, side by side on a fake host.

    .venv/bin/python -m tests.bench.names [QUERIES]

For each: memory (PSS) with 1 and 1 000 names; how long a known and a forwarded name take, asked one after another, and
the server's own CPU time for one; the time from the call to the first answer; and what changes of names do: how long
until a new one is answered, and whether a client that keeps asking loses a question. docs/decisions/ has figures (21).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench import installed
from tests.fakehost import FakeHost

GATEWAY, UPSTREAM = "10.201.0.1", FakeHost.outside_address
CHANGES = 50

# Asks one after the other and prints the seconds; a question that is not answered within a second is lost.
CLIENT = """
import json, os, socket, sys, time
sys.path.insert(0, os.getcwd())
from tests.network import dns
server, name, count, source = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.bind((source, 0))
client.connect((server, 53))
client.settimeout(1)
taken, lost = [], 0
end = time.monotonic() + count if count < 100 else None
number = 0
while number < count or (end and time.monotonic() < end):
    number += 1
    question = dns.question(name, number=number & 0xffff)
    begun = time.monotonic()
    client.send(question)
    try:
        while client.recv(4096)[:2] != question[:2]:
            pass
    except (TimeoutError, ConnectionRefusedError):
        lost += 1
    taken.append(time.monotonic() - begun)
    if os.path.exists("/run/stop"):
        break
taken.sort()
print(json.dumps([taken[len(taken) // 2], taken[int(len(taken) * 0.99)], taken[-1], lost, len(taken)]))
"""
# Asks until the name is known; the seconds since the change was begun.
KNOWN = """
import os, socket, subprocess, sys, time
sys.path.insert(0, os.getcwd())
from tests.network import dns
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.bind((sys.argv[2], 0))
client.connect((sys.argv[1], 53))
client.settimeout(0.2)
print("ready", flush=True)
while True:
    time.sleep(0.0005)
    try:
        client.send(dns.question(sys.argv[3]))
        if dns.Reply(client.recv(4096)).values:
            break
    except (TimeoutError, ConnectionRefusedError):
        pass
print(time.monotonic())
"""
RESOLVER = """
import os, socket, sys
sys.path.insert(0, os.getcwd())
from tests.network import dns
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    data, peer = server.recvfrom(4096)
    server.sendto(dns.answer(data, [("A", bytes([192, 0, 2, 1]))]), peer)
"""


UNBOUND = f"""\
server:
  interface: {GATEWAY}
  access-control: 10.201.0.0/20 allow
  access-control-view: 10.201.0.0/20 br0
  username: ""
  directory: "/run"
  chroot: ""
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  num-threads: 1
  module-config: iterator
  msg-cache-size: 100k
  rrset-cache-size: 100k
remote-control:
  control-enable: yes
  control-interface: /run/unbound.ctl
  control-use-cert: no
forward-zone:
  name: "."
  forward-addr: {UPSTREAM}
  forward-no-cache: yes
view:
  name: br0
  local-zone: "c0." transparent
"""


def name_of(number: int) -> tuple[str, str]:
    """The name and the address of a container."""
    return f"c{number}", f"10.201.{2 + number // 250}.{1 + number % 250}"


class Ours:
    """minirun's own, as it is installed."""

    title = "minirun"

    def __init__(self, host: FakeHost, program: Path, names: int) -> None:
        self.host, self.program = host, program
        for number in range(names):
            self.add(number)

    def start(self) -> None:
        self.host.run([str(self.program), "nameserver", "br0"])

    def pid(self) -> int:
        found = self.host.run(["fuser", "/run/minirun/nameserver/lock"]).stdout.split()
        return int(found[0])

    def add(self, number: int) -> None:
        name, address = name_of(number)
        folder = self.host.path("/run/minirun/networks/br0/leases")
        folder.mkdir(parents=True, exist_ok=True)
        new = folder.parent / "new"
        new.write_text(f"{number:064x}\nport mr{number}\nnames {name} {number:012x}\n")
        new.chmod(0o644)
        new.rename(folder / address)


class Dnsmasq:
    """dnsmasq: one process for each network, since it knows no views; names from a file that it reads at a SIGHUP."""

    title = "dnsmasq"

    def __init__(self, host: FakeHost, program: Path, names: int) -> None:
        self.host, self.program = host, program
        self.names: list[str] = []
        self.file = host.path("/run/hosts")
        for number in range(names):
            self.names.append(" ".join(reversed(name_of(number))))
        self.file.write_text("\n".join(self.names) + "\n")
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        words = [
            str(self.program),
            "-k",
            "--no-hosts",
            "--addn-hosts=/run/hosts",
            "--no-resolv",
            "--conf-file=/dev/null",
        ]
        words += [
            f"--server={UPSTREAM}",
            f"--listen-address={GATEWAY}",
            "--bind-interfaces",
            "--user=root",
            "--cache-size=0",
        ]
        self.process = self.host.popen([*words, "--pid-file=", "--local-ttl=0"])

    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def add(self, number: int) -> None:
        self.names.append(" ".join(reversed(name_of(number))))
        self.file.write_text("\n".join(self.names) + "\n")
        os.kill(self.pid(), signal.SIGHUP)


class Unbound:
    """unbound: views by the client's network; names by unbound-control over a unix socket."""

    title = "unbound"

    def __init__(self, host: FakeHost, program: Path, names: int) -> None:
        self.host, self.program = host, program
        data = "".join('  local-data: "{}. 0 A {}"\n'.format(*name_of(number)) for number in range(names))
        host.path("/run/unbound.conf").write_text(UNBOUND + data)
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = self.host.popen([str(self.program), "-c", "/run/unbound.conf"], stderr=subprocess.DEVNULL)

    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def add(self, number: int) -> None:
        name, address = name_of(number)
        control = [str(self.program) + "-control", "-c", "/run/unbound.conf", "-q", "view_local_data", "br0"]
        self.host.run([*control, f"{name}.", "0", "A", address])


def pss(pid: int) -> int:
    """Proportional set size in kB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.split("\nPss:")[1].split()[0])


def client(host: FakeHost, pid: int, name: str, count: int) -> list[str]:
    """Median, 99 %, the server's own CPU time for one, all in microseconds."""
    before = cpu(pid)
    taken = json.loads(host.python(CLIENT, GATEWAY, name, str(count), name_of(0)[1]))
    return [f"{value * 1e6:.0f}" for value in (*taken[:2], (cpu(pid) - before) / count)]


def cpu(pid: int) -> float:
    """Seconds that a process was on a CPU; unlike the time that passes it does not depend on who else is busy."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def known(host: FakeHost, name: str, begin: Callable[[], None]) -> float:
    """Seconds from the beginning of a change until its name is answered."""
    from time import monotonic

    asking = host.popen([sys.executable, "-c", KNOWN, GATEWAY, name_of(0)[1], name])
    assert asking.stdout and asking.stdout.readline() == "ready\n"
    begun = monotonic()
    begin()
    answered = float(asking.stdout.readline()) - begun
    asking.communicate(timeout=30)
    return answered


def measure(kind: type[Ours] | type[Dnsmasq] | type[Unbound], program: Path, names: int, queries: int) -> list[str]:
    """One row."""
    host = FakeHost()
    resolver = None
    try:
        if kind is Ours:
            host.run([str(program), "network", "create", "--subnet", "10.201.0.0/20", "br0"])
        else:
            host.run(["ip", "link", "add", "br0", "type", "bridge"])
            host.run(["ip", "addr", "add", f"{GATEWAY}/20", "dev", "br0"])
            host.run(["ip", "link", "set", "br0", "up"])
        host.path("/run/resolv.conf").write_text(f"nameserver {UPSTREAM}\n")
        host.run(["mount", "--bind", "/run/resolv.conf", "/etc/resolv.conf"])
        for number in range(3):  # the addresses that the clients ask from
            host.run(["ip", "addr", "add", f"{name_of(number)[1]}/32", "dev", "lo"])
        resolver = host.outside.popen([sys.executable, "-c", RESOLVER, UPSTREAM])
        assert resolver.stdout and resolver.stdout.readline() == "ready\n"
        server = kind(host, program, names)
        first = known(host, "c0", server.start)
        memory = pss(server.pid())
        local = client(host, server.pid(), "c0", queries)
        forwarded = client(host, server.pid(), "example.org", queries)
        begun = host.popen([sys.executable, "-c", CLIENT, GATEWAY, "c0", "10", name_of(0)[1]])
        news = sorted(known(host, name_of(n)[0], lambda n=n: server.add(n)) for n in range(names, names + CHANGES))
        host.path("/run/stop").write_text("")
        during = json.loads(begun.communicate(timeout=30)[0])
        after = pss(server.pid())
        row = [kind.title, str(names), str(memory), str(after), *local, *forwarded, f"{first * 1000:.0f}"]
        return [*row, f"{news[len(news) // 2] * 1000:.1f}", f"{during[3]}/{during[4]}", f"{during[2] * 1000:.1f}"]
    finally:
        if resolver:
            resolver.kill()
            resolver.communicate()
        host.close()


HEAD = [
    *("server", "names", "PSS kB", "PSS after", "local p50 us", "p99", "CPU", "forwarded p50 us", "p99", "CPU"),
    *("first answer ms", "new name ms", "lost meanwhile", "longest ms"),
]


def main(arguments: Sequence[str]) -> None:
    """Print a table."""
    queries = int(arguments[0]) if arguments else 3000
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        kinds: list[tuple[type[Ours] | type[Dnsmasq] | type[Unbound], Path]] = [(Ours, installed.make(Path(folder)))]
        for other in (Dnsmasq, Unbound):
            path = shutil.which(other.title)
            kinds += [(other, Path(path))] if path else []
        for names in (1, 1000):
            rows += [measure(kind, program, names, queries) for kind, program in kinds]
    for row in [HEAD, ["---"] * len(HEAD), *rows]:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
