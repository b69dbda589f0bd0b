"""The name server with real packets: containers ask, siblings come and go, hostile clients do no harm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fakehost import FakeHost, Namespace
from tests.network import dns
from tests.network.containers import Attached, identity

GATEWAY = "10.201.0.1"

# Asks as the words say, "SERVER NAME TYPE [OPTION=VALUE]", one after the other; prints what came, as Reply shows it.
CLIENT = """
import os, socket, sys
sys.path.insert(0, os.getcwd())
from tests.network import dns
def ask(server, name, kind, tcp=0, edns=0, port=53):
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    client = socket.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    client.settimeout(10)
    client.connect((server, int(port)))
    question = dns.question("" if name == "." else name, kind, edns=int(edns))
    if not tcp:
        client.send(question)
        return dns.Reply(client.recv(65535))
    client.sendall(len(question).to_bytes(2, "big") + question)
    data = b""
    while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
        data += client.recv(65535)
    return dns.Reply(data[2:])
for line in sys.argv[1:]:
    words = line.split()
    try:
        reply = ask(*words[:3], **dict(word.split("=") for word in words[3:]))
        many = len(reply.answers) > 9
        print(f"{reply!r} TC" if reply.truncated else len(reply.answers) if many else repr(reply))
    except OSError as error:
        print(type(error).__name__)
"""

# A resolver: answers by the first label of the name. Prints "ready", then each name that it was asked.
RESOLVER = """
import os, select, socket, struct, sys
sys.path.insert(0, os.getcwd())
from tests.network import dns
address, value = sys.argv[1], bytes(int(part) for part in sys.argv[2].split("."))
udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.create_server((address, 53))
udp.bind((address, 53))
print("ready", flush=True)
def answers(query, stream):
    what = dns.question_name(query)
    print(what, flush=True)
    kind, good = what.split(".")[0], dns.answer(query, [("A", value)])
    if kind == "silent" or kind == "halt":
        return []
    if kind == "fails":
        return [dns.answer(query, [], code=2)]
    if kind == "none":
        return [dns.answer(query, [], code=3)]
    if kind == "opt":  # among the answers, where it cannot be
        return [good[:6] + b"\\0\\2\\0\\0\\0\\0" + good[12:]]
    if kind == "long":
        return [dns.answer(query, [("A", value)] * 300) if stream else dns.answer(query, [], flags=0x0200)]
    if kind == "liar":  # all of it wrong, and then the truth
        number, six = struct.unpack_from(">H", query)[0], [("A", bytes([6, 6, 6, 6]))]
        other = dns.answer(dns.question("other.example", number=number), six)
        bad = dns.answer(query, six, number=number ^ 1)
        return [b"", b"x", query, other, bad, good]
    return [good]
while True:
    for one in select.select([udp, tcp], [], [])[0]:
        if one is udp:
            data, peer = udp.recvfrom(4096)
            for reply in answers(data, False):
                udp.sendto(reply, peer)
        else:
            connection, _ = tcp.accept()
            data = connection.recv(4096)[2:]
            for reply in answers(data, True):
                connection.sendall(len(reply).to_bytes(2, "big") + reply)
            connection.close()
"""

NETWORK = """
import sys
from minirun.network import bridge
from minirun.network.creation import Wanted
wanted = Wanted(sys.argv[1])
for word in sys.argv[2:]:
    name, _, value = word.partition("=")
    setattr(wanted, name, value.split(",") if name in ("subnets", "dns") else True)
bridge.create(wanted)
"""


def ask(place: Attached | Namespace, *questions: str) -> list[str]:
    """What each question gets: "NOERROR 10.201.0.2", the name of an error code, or of an exception."""
    command = [sys.executable, "-c", CLIENT, *questions]
    done = place.run(*command) if isinstance(place, Attached) else place.run(command)
    return done.stdout.splitlines()


@contextmanager
def resolver(place: Namespace, address: str, value: str = "192.0.2.80") -> Iterator[subprocess.Popen[str]]:
    """A resolver that answers with ``value``."""
    running = place.popen([sys.executable, "-c", RESOLVER, address, value])
    assert running.stdout and running.stdout.readline() == "ready\n", running.communicate(timeout=10)
    try:
        yield running
    finally:
        running.kill()
        running.communicate(timeout=10)


def asked(running: subprocess.Popen[str]) -> list[str]:
    """What a resolver was asked; it is ended."""
    running.kill()
    return running.communicate(timeout=10)[0].split()


def resolv_conf(host: FakeHost, *servers: str) -> None:
    """The host's /etc/resolv.conf from now on, as other programs write it: by another file."""
    new = host.path("/run/resolv.conf")
    new.write_text("".join(f"nameserver {server}\n" for server in servers))
    host.run(["mount", "--bind", "/run/resolv.conf", "/etc/resolv.conf"])


def server_pid(host: FakeHost) -> int:
    """The name server's process."""
    (pid,) = set(host.processes(every=True)) - set(host.processes())
    return pid


def test_siblings_find_each_other(both_hosts: FakeHost) -> None:
    web, db = Attached(both_hosts, "web", "br0"), Attached(both_hosts, "Db", "br0")
    assert ask(
        web,
        f"{GATEWAY} db A",
        f"{GATEWAY} db A tcp=1 edns=4096",
        f"{GATEWAY} {identity('Db')[:12]} A",
        f"{GATEWAY} db AAAA",
        f"{GATEWAY} {dns.reverse(db.address)} PTR",
        f"{GATEWAY} nobody A",
        f"{GATEWAY} web.br0 A",
    ) == [*[f"NOERROR {db.address}"] * 3, "NOERROR", "NOERROR db", "NXDOMAIN", f"NOERROR {web.address}"]
    db.undo()
    assert ask(web, f"{GATEWAY} db A") == ["NXDOMAIN"]


def test_ipv6(both_hosts: FakeHost) -> None:
    both_hosts.python(NETWORK, "six", "subnets=10.77.0.0/24,fd77::/64")
    web, db = Attached(both_hosts, "web", "six"), Attached(both_hosts, "db", "six")
    six = next(address for address in db.addresses if ":" in address)
    assert ask(
        web, "fd77::1 db AAAA", "fd77::1 db AAAA tcp=1", "10.77.0.1 db AAAA", f"fd77::1 {dns.reverse(six)} PTR"
    ) == [*[f"NOERROR {six}"] * 3, "NOERROR db"]


def test_nobody_hears_of_other_networks(host: FakeHost) -> None:
    host.python(NETWORK, "other", "subnets=10.77.0.0/24")
    web, db = Attached(host, "web", "br0"), Attached(host, "db", "other")
    questions = ["db A", "db.other.minirun.internal A", f"{dns.reverse(db.address)} PTR"]
    assert ask(web, *(f"{GATEWAY} {question}" for question in questions)) == ["NXDOMAIN"] * 3
    assert ask(host, f"{GATEWAY} web A", "10.77.0.1 db A", f"{GATEWAY} db A") == [
        f"NOERROR {web.address}", f"NOERROR {db.address}", "NXDOMAIN",
    ]  # fmt: skip


def test_names_of_others_go_to_the_hosts_resolvers(both_hosts: FakeHost) -> None:
    outside = both_hosts.outside
    web = Attached(both_hosts, "web", "br0")
    resolv_conf(both_hosts)
    assert ask(web, f"{GATEWAY} example.org A") == ["SERVFAIL"]
    resolv_conf(both_hosts, both_hosts.outside_address)
    with resolver(outside, both_hosts.outside_address) as running:
        assert ask(
            web,
            f"{GATEWAY} example.org A",
            f"{GATEWAY} example.org A tcp=1",
            f"{GATEWAY} none.example A edns=4096",
            f"{GATEWAY} fails.example A",
            f"{GATEWAY} liar.example A",
            f"{GATEWAY} long.example A",
            f"{GATEWAY} long.example A tcp=1",
            f"{GATEWAY} nobody A",
            f"{GATEWAY} {dns.reverse('10.201.0.99')} PTR",
        ) == [
            *["NOERROR 192.0.2.80"] * 2,
            "NXDOMAIN",
            "SERVFAIL",
            "NOERROR 192.0.2.80",
            "NOERROR TC",
            "300",
            *["NXDOMAIN"] * 2,
        ]
        assert asked(running) == [
            *["example.org"] * 2, "none.example", "fails.example", "liar.example", *["long.example"] * 3,
        ]  # fmt: skip


def test_a_resolver_on_the_hosts_loopback_is_asked(host: FakeHost) -> None:
    web = Attached(host, "web", "br0")
    resolv_conf(host, "127.0.0.53")
    with resolver(host, "127.0.0.53"):
        assert ask(web, f"{GATEWAY} example.org A") == ["NOERROR 192.0.2.80"]
    assert ask(web, f"{GATEWAY} example.org A", "127.0.0.53 example.org A") == ["SERVFAIL", "ConnectionRefusedError"]
    resolv_conf(host, GATEWAY)  # a host that asks us asks in a circle
    assert ask(web, f"{GATEWAY} example.org A") == ["SERVFAIL"]


def test_of_several_resolvers_the_next_one_helps(host: FakeHost) -> None:
    web = Attached(host, "web", "br0")
    first, second = host.outside_address, host.neighbour_address
    resolv_conf(host, first, second)
    with resolver(host.outside, first) as silent, resolver(host.lan, second):
        # The second one answers all these; the first says nothing, fails, or is not there.
        host.lan.run(["sh", "-c", "true"])
        assert ask(web, f"{GATEWAY} good.example A") == ["NOERROR 192.0.2.80"]
        silent.send_signal(signal.SIGSTOP)
        assert ask(web, f"{GATEWAY} good.example A", f"{GATEWAY} good.example A") == ["NOERROR 192.0.2.80"] * 2
        silent.send_signal(signal.SIGCONT)
    with resolver(host.lan, second):
        assert ask(web, f"{GATEWAY} good.example A") == ["NOERROR 192.0.2.80"]
        host.run(["ip", "route", "add", "unreachable", first])
        assert ask(web, f"{GATEWAY} good.example A") == ["NOERROR 192.0.2.80"]


def test_a_hostile_resolver_costs_its_own_question_only(host: FakeHost) -> None:
    web = Attached(host, "web", "br0")
    resolv_conf(host, host.outside_address)
    with resolver(host.outside, host.outside_address):
        questions = [
            f"{GATEWAY} {name}.example A {way}" for name in ("opt", "good") for way in ("edns=1232", "tcp=1 edns=1232")
        ]
        assert ask(web, *questions) == ["SERVFAIL"] * 2 + ["NOERROR 192.0.2.80"] * 2
    assert host.path("/run/minirun/nameserver/errors").read_text() == ""


def test_a_network_may_have_any_name(host: FakeHost) -> None:
    """None is taken for an order."""
    web = Attached(host, "web", "br0")
    host.python(NETWORK, "end", "subnets=10.77.0.0/24")
    last = Attached(host, "last", "end")
    assert ask(last, "10.77.0.1 last A") == [f"NOERROR {last.address}"]
    assert ask(web, f"{GATEWAY} web A") == [f"NOERROR {web.address}"]


def test_a_network_of_many_subnets_is_served_on_each(host: FakeHost) -> None:
    many = [f"10.77.{number}.0/24" for number in range(64)]
    done = host.minirun("network", "create", "many", *(f"--subnet=10.78.{n}.0/24" for n in range(65)), check=False)
    assert "65 subnets are more than 64" in done.stderr
    host.python(NETWORK, "many", f"subnets={','.join(many)}")
    web = Attached(host, "web", "many")
    places = [f"10.77.{number}.1 web A {way}" for number in range(64) for way in ("", "tcp=1")]
    assert ask(web, *places) == [f"NOERROR {web.address}"] * 128


def test_after_a_removal_that_was_killed_the_server_reads_the_leases(host: FakeHost) -> None:
    Attached(host, "web", "br0").undo()
    host.python("from minirun.network import ipam; ipam.close('br0')")
    web = Attached(host, "web", "br0")
    assert ask(web, f"{GATEWAY} web A") == [f"NOERROR {web.address}"]


def test_internal_networks_forward_nothing(both_hosts: FakeHost) -> None:
    both_hosts.python(NETWORK, "dark", "subnets=10.66.0.0/24", "internal=1")
    vault, db = Attached(both_hosts, "vault", "dark"), Attached(both_hosts, "db", "dark")
    resolv_conf(both_hosts, both_hosts.outside_address)
    with resolver(both_hosts.outside, both_hosts.outside_address) as running:
        questions = ["db A", "example.org A", "example.org A tcp=1", ". NS"]
        told = ask(vault, *(f"10.66.0.1 {question}" for question in questions))
        assert told == [f"NOERROR {db.address}", *["REFUSED"] * 3]
        assert asked(running) == []


def test_a_networks_own_resolver(host: FakeHost) -> None:
    host.python(NETWORK, "own", "subnets=10.77.0.0/24", f"dns={host.neighbour_address}")
    web = Attached(host, "web", "own")
    resolv_conf(host, host.outside_address)
    with (
        resolver(host.outside, host.outside_address) as hosts_own,
        resolver(host.lan, host.neighbour_address, "192.0.2.81"),
    ):
        assert ask(web, "10.77.0.1 example.org A") == ["NOERROR 192.0.2.81"]
        assert asked(hosts_own) == []


def test_the_server_is_nobody(host: FakeHost) -> None:
    Attached(host, "web", "br0")
    pid = server_pid(host)
    host.wait_until(f"grep -q '^Uid:.65533.65533.65533.65533' /proc/{pid}/status")
    status = dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines() if ":\t" in line)
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Groups"].strip(), status["Gid"].split()[0]) == ("1", "", "65533")
    folder = host.path("/run/minirun")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_server_keeps_nothing_of_whoever_started_it_open(host: FakeHost) -> None:
    host.python("from minirun.network import bridge; bridge.ensure()")
    host.run(["sh", "-c", f"exec 9>/run/pipe; {sys.executable} -m minirun nameserver br0"])
    pid = server_pid(host)
    host.wait_until(f"grep -q '^Uid:.65533' /proc/{pid}/status")
    kept = {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
    assert "/run/pipe" not in kept and "/run/minirun/nameserver/lock" in kept, kept
    assert "/run/minirun/networks.lock" not in kept, kept
    os.kill(pid, signal.SIGSTOP)  # whatever it does, or does not
    host.minirun("network", "create", "lab")
    host.minirun("network", "rm", "lab")
    os.kill(pid, signal.SIGCONT)


def test_the_server_is_not_in_the_cgroup_of_whoever_started_it(host: FakeHost) -> None:
    Attached(host, "web", "br0")
    pid = server_pid(host)
    host.wait_until(f"grep -q '^Uid:.65533' /proc/{pid}/status")
    places = {line.split(":", 2)[2] for line in open(f"/proc/{pid}/cgroup").read().splitlines()}
    mine = {line.split(":", 2)[2] for line in open("/proc/self/cgroup").read().splitlines()}
    assert f"/{host.cgroup}/nameserver" in places and not (places & mine) - {"/"}, places


def test_a_killed_server_comes_back_and_with_it_every_network(host: FakeHost) -> None:
    host.python(NETWORK, "other", "subnets=10.77.0.0/24")
    web, db = Attached(host, "web", "br0"), Attached(host, "db", "other")
    for killed in (True, False):
        if killed:
            host._end(server_pid(host))
        else:
            host.minirun("nameserver", "--stop")
        assert ask(web, f"{GATEWAY} web A") == ["ConnectionRefusedError"]
        third = Attached(host, "third", "br0")
        assert ask(web, f"{GATEWAY} third A") == [f"NOERROR {third.address}"]
        assert ask(db, "10.77.0.1 db A") == [f"NOERROR {db.address}"]
        third.undo()
    host._end(server_pid(host))
    host.python("from minirun.network import nameservice; nameservice.revive()")
    assert ask(web, f"{GATEWAY} web A") == [f"NOERROR {web.address}"]


def test_it_ends_with_the_last_container_and_holds_nothing_up(host: FakeHost) -> None:
    host.environment["MINIRUN_NAMESERVER_LINGER"] = "0"
    for _ in range(3):
        web = Attached(host, "web", "br0")
        assert ask(web, f"{GATEWAY} web A") == [f"NOERROR {web.address}"]
        pid = os.pidfd_open(server_pid(host))
        web.undo()
        assert poll(pid), "the server did not end"
        os.close(pid)
    host.environment["MINIRUN_NAMESERVER_LINGER"] = "1000"
    web = Attached(host, "web", "br0")
    assert ask(web, f"{GATEWAY} web A") == [f"NOERROR {web.address}"]
    web.undo()
    host.minirun("network", "rm", "br0")
    assert host.run(["ss", "-lnHu", "sport = 53"]).stdout == ""
    assert not list(host.path("/run/minirun/networks").iterdir())
    assert "names4" not in host.run(["nft", "list", "ruleset"]).stdout
    web = Attached(host, "web", "br0")
    assert ask(web, f"{GATEWAY} web A") == [f"NOERROR {web.address}"]


def poll(pidfd: int) -> bool:
    import select

    return bool(select.select([pidfd], [], [], 20)[0])


def test_names_are_found_by_whoever_starts_next_to_a_server_that_ends(host: FakeHost) -> None:
    """Starts and ends in a row, with a server that never waits: each container is answered all the same."""
    host.environment["MINIRUN_NAMESERVER_LINGER"] = "0"
    for number in range(12):
        web = Attached(host, f"web{number}", "br0")
        assert ask(web, f"{GATEWAY} web{number} A") == [f"NOERROR {web.address}"]
        web.undo()


def test_another_server_of_the_host_has_the_port(both_hosts: FakeHost) -> None:
    with resolver(both_hosts, "0.0.0.0", "192.0.2.99"):
        web, db = Attached(both_hosts, "web", "br0"), Attached(both_hosts, "db", "br0")
        assert ask(web, f"{GATEWAY} db A", f"{GATEWAY} db A tcp=1") == [f"NOERROR {db.address}"] * 2
        assert ask(both_hosts, f"{GATEWAY} db A", f"{both_hosts.address} db A") == [
            f"NOERROR {db.address}", "NOERROR 192.0.2.99",
        ]  # fmt: skip
        both_hosts.run(["nft", "flush", "ruleset"])
        assert ask(web, f"{GATEWAY} db A") == ["NOERROR 192.0.2.99"]
        third = Attached(both_hosts, "third", "br0")
        assert ask(web, f"{GATEWAY} third A") == [f"NOERROR {third.address}"]
    for one in (web, db, third):
        one.undo()
    both_hosts.minirun("network", "rm", "br0")
    assert "10.201.0.1" not in both_hosts.run(["nft", "list", "ruleset"]).stdout


def test_who_publishes_port_53_does_not_get_our_questions(both_hosts: FakeHost) -> None:
    web = Attached(both_hosts, "web", "br0")
    dnsd = Attached(both_hosts, "dnsd", "br0", "53:53/udp", "53:53/tcp")
    running = both_hosts.popen(dnsd.command(sys.executable, "-c", RESOLVER, dnsd.address, "192.0.2.99"))
    assert running.stdout and running.stdout.readline() == "ready\n"
    assert ask(web, f"{GATEWAY} dnsd A", f"{GATEWAY} dnsd A tcp=1") == [f"NOERROR {dnsd.address}"] * 2
    assert ask(both_hosts.outside, f"{both_hosts.address} x.example A") == ["NOERROR 192.0.2.99"]
    running.kill()
    running.communicate(timeout=10)


def test_strangers_hear_nothing(host: FakeHost) -> None:
    Attached(host, "web", "br0")
    host.outside.run(["ip", "route", "add", "10.201.0.0/20", "via", host.address])
    code = CLIENT.replace("settimeout(10)", "settimeout(0.5)")
    told = host.outside.run([sys.executable, "-c", code, f"{GATEWAY} web A", f"{GATEWAY} example.org A"]).stdout
    assert told.split() == ["TimeoutError"] * 2


HOSTILE = """
import os, random, socket, struct, sys, time
sys.path.insert(0, os.getcwd())
from tests.network import dns
server = (sys.argv[1], 53)
chance = random.Random(7)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.connect(server)
base = dns.question("web", edns=1232)
for number in range(3000):
    data = bytearray(base if number % 2 else dns.answer(base, [("A", bytes(4))]))
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(data))
        data[at : at + chance.randrange(0, 3)] = chance.randbytes(chance.randrange(0, 3))
    udp.send(data)
held = []
for number in range(100):  # half open, a byte, a length without its message, too long, nonsense
    one = socket.socket()
    one.settimeout(2)
    one.connect(server)
    try:
        one.send([b"", b"\\0", b"\\0\\x20", b"\\xff\\xff" + bytes(5000), b"\\0\\x0c" + bytes(12)][number % 5] or b"\\0")
    except OSError:
        pass
    held.append(one)
print("ready", flush=True)
trickle = socket.socket()
trickle.connect(server)
message = struct.pack(">H", len(base)) + base
while True:  # and floods: own questions, and forwarded ones that nobody answers
    for name in ("web", "silent.example"):
        try:
            udp.send(dns.question(name, number=chance.randrange(65536)))
        except OSError:
            pass
    try:
        trickle.send(message[:1])
    except OSError:
        pass
"""


def test_hostile_clients_do_no_harm_to_others(host: FakeHost) -> None:
    host.python(NETWORK, "other", "subnets=10.77.0.0/24")
    bad, web, far = Attached(host, "bad", "br0"), Attached(host, "web", "br0"), Attached(host, "far", "other")
    resolv_conf(host, host.outside_address)
    with resolver(host.outside, host.outside_address):
        before = server_pid(host)
        hostile = host.popen(bad.command(sys.executable, "-c", HOSTILE, GATEWAY))
        try:
            assert hostile.stdout and hostile.stdout.readline() == "ready\n", hostile.communicate(timeout=10)
            good = ["10.77.0.1 far A", "10.77.0.1 far A tcp=1", "10.77.0.1 good.example A"]
            assert ask(far, *good * 5) == [f"NOERROR {far.address}", f"NOERROR {far.address}", "NOERROR 192.0.2.80"] * 5
            assert ask(web, f"{GATEWAY} web A tcp=1", f"{GATEWAY} good.example A tcp=1") == [
                f"NOERROR {web.address}", "NOERROR 192.0.2.80",
            ]  # fmt: skip
        finally:
            hostile.kill()
            hostile.communicate(timeout=10)
        assert ask(bad, f"{GATEWAY} web A") == [f"NOERROR {web.address}"]
        assert server_pid(host) == before
    assert host.path("/run/minirun/nameserver/errors").read_text() == ""


def test_no_question_is_lost_while_names_change(host: FakeHost) -> None:
    web = Attached(host, "web", "br0")
    asking = host.popen(web.command(sys.executable, "-c", CONSTANT, GATEWAY), stdin=subprocess.PIPE)
    assert asking.stdout and asking.stdout.readline() == "ready\n"
    code = (
        "from minirun.network import ipam, network\n"
        "net = network.load('br0')\n"
        "for number in range(300):\n"
        "    owner = f'{number:064x}'\n"
        "    address = ipam.allocate(net, owner, [f'names n{number}'])\n"
        "    ipam.release('br0', address, owner)\n"
    )
    host.python(code)
    lost, total, wrong = json.loads(asking.communicate("\n", timeout=20)[0])
    assert (lost, wrong) == (0, 0) and total > 0


CONSTANT = """
import json, os, select, socket, sys
sys.path.insert(0, os.getcwd())
from tests.network import dns
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.connect((sys.argv[1], 53))
client.settimeout(2)
lost = total = wrong = 0
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    total += 1
    client.send(dns.question("web", number=total % 65536))
    try:
        wrong += not dns.Reply(client.recv(4096)).values
    except OSError:
        lost += 1
print(json.dumps([lost, total, wrong]))
"""


@pytest.mark.parametrize("change", ["rename", "shell"])
def test_a_lease_that_is_written_otherwise_is_read_when_it_is_whole(host: FakeHost, change: str) -> None:
    web = Attached(host, "web", "br0")
    path = f"/run/minirun/networks/br0/leases/{web.address}"
    text = f"{identity('web')}\\nport mrx\\nnames web other\\n"
    writes = {"rename": f"printf '{text}' > /run/new; mv /run/new {path}", "shell": f"printf '{text}' > {path}"}
    host.run(["sh", "-c", writes[change]])
    assert ask(web, f"{GATEWAY} other A") == [f"NOERROR {web.address}"]
