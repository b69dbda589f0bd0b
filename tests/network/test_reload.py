"""Our firewall comes back whoever took it away, all at once; connections go on, and nobody else's rules are touched."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.fakehost import FakeHost
from tests.network import rulesets
from tests.network.containers import ATTACH, UNDO, Attached, Serve, ask, identity

# Talks all the time: one connection that lasts, and new ones one after the other; ends with its standard input.
TALKER = """
import select, socket, sys
address, port = sys.argv[1], int(sys.argv[2])
def echo(connection):
    connection.sendall(b"x" * 1000)
    left = 1000
    while left:
        data = connection.recv(left)
        assert data, "closed"
        left -= len(data)
lasting = socket.create_connection((address, port), 10)
count = 0
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    echo(lasting)
    with socket.create_connection((address, port), 20) as fresh:
        echo(fresh)
    count += 1
print(count)
"""
ECHO = """
import socket, threading
server = socket.create_server(("", 80), backlog=64)
def serve(connection):
    while data := connection.recv(1000):
        connection.sendall(data)
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""
# Containers that come and go, each with a port.
COMING_AND_GOING = f"""
import fcntl, json, subprocess, sys
ATTACH, UNDO = {ATTACH!r}, {UNDO!r}
number, first = 0, int(sys.argv[1])
print("ready", flush=True)
kept = []
import select
ended = False
while kept or not ended:
    ended = ended or bool(select.select([sys.stdin], [], [], 0)[0])
    if ended or len(kept) > 2:
        steps, lock = kept.pop(0)
        subprocess.run([sys.executable, "-c", UNDO], input=json.dumps(steps), text=True, check=True)
        continue
    name, identity = f"c{{first}}-{{number}}", f"{{first:04d}}{{number:08d}}{{0:052d}}"
    lock = open(f"/run/minirun/locks/{{identity}}", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    command = [sys.executable, "-c", ATTACH, identity, name, "br0", "", f"{{first + number}}:80"]
    kept.append((json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)[1], lock))
    number += 1
print(number)
"""


def tables(host: FakeHost) -> str:
    """Our tables, as nft shows them."""
    return "".join(host.run(["nft", "list", "table", family, "minirun"]).stdout for family in ("inet", "bridge"))


def sorted_tables(host: FakeHost) -> list[str]:
    """The same with the elements in an order that does not depend on the time of their coming."""
    return sorted(re.split(r"[,{}\n]\s*", tables(host)))


def others(host: FakeHost) -> str:
    """Everybody else's rules, without counters."""
    text = host.run(["nft", "-s", "list", "ruleset"]).stdout
    for family in ("inet", "bridge"):
        text = re.sub(rf"^table {family} minirun {{\n(.*\n)*?^}}\n", "", text, flags=re.M)
    for program in ("iptables", "ip6tables"):
        if not host.run(["cat", f"/proc/net/{program.replace('tables', '_tables')}_names"]).stdout:
            continue  # where there is nothing, listing it would make it
        saved = host.run([f"{program}-legacy-save"]).stdout
        text += "".join(re.sub(r" \[\d+:\d+\]", "", line) for line in saved.splitlines(True) if line[0] != "#")
    return text


@pytest.mark.parametrize(
    "damage",
    [
        "nft flush ruleset",
        "nft delete table inet minirun",
        "nft delete table bridge minirun",
        "nft flush table inet minirun",
        "nft flush table bridge minirun",
        "nft 'delete table inet minirun; add table inet minirun; add set inet minirun bridges { type ipv4_addr; }'",
        "nft delete table inet minirun; nft delete table bridge minirun; iptables-nft -F; iptables-legacy -F",
    ],
)
def test_any_command_puts_the_tables_back(host: FakeHost, damage: str) -> None:
    web = Attached(host, "web", "br0", "8080:80", "127.0.0.1:8443:443")
    before = tables(host)
    host.run(["sh", "-ec", damage])
    done = host.minirun("ps")
    assert done.stderr == ""
    assert tables(host) == before
    web.undo()


def test_no_network_no_tables(host: FakeHost) -> None:
    host.minirun("ps")
    host.minirun("network", "create", "lab")
    host.minirun("network", "rm", "lab")
    host.minirun("ps")
    assert host.minirun("network", "reload").stdout == "firewall: there is no network\n"
    assert host.run(["nft", "list", "ruleset"]).stdout == ""


@pytest.mark.parametrize(
    "wrong", ["", 'flush map inet minirun egress; add element inet minirun egress { "br0" : drop }']
)
def test_reload_puts_single_elements_and_rules_back(host: FakeHost, serve: Serve, wrong: str) -> None:
    web = Attached(host, "web", "br0", "8080:80", "9000-9010:9000-9010")
    serve(web)
    before = sorted_tables(host)
    host.run(
        ["nft", "-f", "-"],
        stdin=f"""
        delete element inet minirun pub4_any {{ tcp . 8080 }}
        delete element inet minirun masq_br {{ "br0" }}
        flush map inet minirun peering
        flush set bridge minirun claims4
        flush chain inet minirun postrouting
        add element inet minirun pub4_any {{ tcp . 8081 : {web.address} . 80 }}
        {wrong}
    """,
    )
    assert ask(host.outside, host.address, 8080) == "ConnectionRefusedError 111"
    assert host.minirun("network", "reload", "br0").stdout.startswith("firewall: loaded, ")
    assert sorted_tables(host) == before
    assert ask(host.outside, host.address, 8080) == f"web sees {host.outside_address}"


def test_an_unknown_network_cannot_be_reloaded(host: FakeHost) -> None:
    done = host.minirun("network", "reload", "nowhere", check=False)
    assert done.returncode == 125
    assert "network nowhere: there is none of that name" in done.stderr


def test_connections_go_on_while_it_is_reloaded(both_hosts: FakeHost) -> None:
    host = both_hosts
    web, client = Attached(host, "web", "br0", "8080:80"), Attached(host, "client", "br0")
    server = host.popen(web.command(sys.executable, "-c", ECHO))
    assert server.stdout and server.stdout.readline() == "ready\n"
    words = [sys.executable, "-c", TALKER, host.address, "8080"]
    talkers = [
        host.outside.popen(words, stdin=subprocess.PIPE),  # published
        host.popen(client.command(*words), stdin=subprocess.PIPE),  # hairpin
        host.popen(client.command(*words[:3], web.address, "80"), stdin=subprocess.PIPE),  # sibling
    ]
    for talker in talkers:
        assert talker.stdout and talker.stdout.readline() == "ready\n"
    host.minirun("network", "reload")
    host.python("from minirun.network import nat\nfor _ in range(40): nat.reassert()")
    for talker in talkers:
        said, complaint = talker.communicate("", timeout=30)
        assert complaint == ""
        assert int(said) > 10
    for run in (host.outside.run, lambda words: client.run(*words)):  # nor was a first packet lost, and sent again
        assert run(["nstat", "-asz", "TcpExtTCPSynRetrans"]).stdout.split("TCPSynRetrans")[1].split()[0] == "0"
    server.kill()
    server.communicate()


def test_who_comes_or_goes_meanwhile_is_not_forgotten(host: FakeHost) -> None:
    web = Attached(host, "web", "br0", "8080:80")
    crowd = [
        host.popen([sys.executable, "-c", COMING_AND_GOING, str(first)], stdin=subprocess.PIPE)
        for first in (2000, 3000)
    ]
    for one in crowd:
        assert one.stdout and one.stdout.readline() == "ready\n"
    for _ in range(3):
        host.minirun("network", "reload")
        host.run(["nft", "flush", "ruleset"])
        host.minirun("ps")
    for one in crowd:
        said, complaint = one.communicate("", timeout=30)
        assert complaint == ""
        assert int(said) > 3
    after = sorted_tables(host)
    host.minirun("network", "reload")
    assert after == sorted_tables(host)
    web.undo()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("ip link del br0", "br0: bridge made again\nbr0: {port} (web {id}) plugged into br0 again\n"),
        ("ip link set br0 down", "br0: bridge switched on\n"),
        ("ip addr flush dev br0", "br0: address 10.201.0.1/20 put back\n"),
        ("ip link set {port} down", "br0: {port} (web {id}) switched on\n"),
        ("ip link set {port} nomaster", "br0: {port} (web {id}) plugged into br0 again\n"),
        (
            "sysctl -qw net.ipv4.conf.br0.route_localnet=0",
            "br0: /proc/sys/net/ipv4/conf/br0/route_localnet set to 1\n",
        ),
        ("sysctl -qw net.ipv4.ip_forward=0", "br0: /proc/sys/net/ipv4/ip_forward set to 1\n"),
        ("true", ""),
    ],
)
def test_bridge_and_cables_are_mended(host: FakeHost, serve: Serve, damage: str, said: str) -> None:
    web = Attached(host, "web", "br0", "8080:80")
    serve(web)
    words = {"port": f"mr{web.id[:12]}", "id": web.id[:12]}
    host.run(["sh", "-ec", damage.format(**words)])
    lines = host.minirun("network", "reload").stdout.splitlines(True)
    assert "".join(line for line in lines if not line.startswith("firewall: loaded, ")) == said.format(**words)
    assert ask(host.outside, host.address, 8080) == f"web sees {host.outside_address}"
    assert ask(host, "127.0.0.1", 8080).startswith("web sees 10.201.0.1")
    assert ask(web, host.address, 8080).startswith("web sees 10.201.0.1")  # hairpin


def test_where_a_cable_belongs_follows_from_the_first_address(host: FakeHost) -> None:
    host.minirun("network", "create", "dual", "--subnet", "10.77.0.0/24", "--subnet", "fd00:77::/64")
    code = f"""
from minirun.network import ipam
ipam.reserve("dual", "fd00:77::5000", "{identity("web")}", ["port mr{identity("web")[:12]}"])
"""
    web = Attached(host, "web", "dual")
    host.python(code)
    said = host.minirun("network", "reload").stdout.splitlines()
    assert [line.partition(",")[0] for line in said] == ["firewall: loaded"]
    assert "~" not in host.run(["ip", "-br", "link"]).stdout
    web.undo()


def test_a_cable_that_somebody_plugged_elsewhere_is_left_alone(host: FakeHost) -> None:
    web = Attached(host, "web", "br0")
    port = f"mr{web.id[:12]}"
    host.run(["sh", "-ec", f"ip link add other type bridge; ip link set {port} master other"])
    assert (
        f"{port} (web {web.id[:12]}) is plugged into another bridge: left alone"
        in host.minirun("network", "reload").stdout
    )
    assert "master other" in host.run(["ip", "link", "show", port]).stdout


def test_nobody_elses_rules_change_in_our_whole_life(host: FakeHost, serve: Serve) -> None:
    for program in ("iptables-nft", "iptables-legacy"):
        host.run(["sh", "-ec", rulesets.DOCKER.format(program) + rulesets.LIBVIRT.format(program)])
        host.run(
            [program, "-t", "nat", "-A", "POSTROUTING", "-s", "172.17.0.0/16", "!", "-o", "docker0", "-j", "MASQUERADE"]
        )
        host.run(["ip6" + program[2:], "-A", "INPUT", "-i", "lo", "-j", "ACCEPT"])
    host.run(["nft", "-f", "-"], stdin=rulesets.FIREWALLD)
    host.run(["nft", "add table inet counting; add chain inet counting c { type filter hook input priority 0; }"])
    before = others(host)
    assert before.count("DOCKER-USER") > 4
    assert "firewalld" in before
    host.minirun("network", "create", "lab", "--ipv6")
    web = Attached(host, "web", "br0", "8080:80")
    serve(web)
    assert others(host) == before
    host.minirun("network", "reload")
    host.run(["nft", "delete", "table", "inet", "minirun"])
    host.minirun("ps")
    assert others(host) == before
    web.undo()
    assert host.minirun("network", "rm", "br0", "lab").stderr == ""
    assert others(host) == before
    assert "minirun" not in host.run(["nft", "list", "ruleset"]).stdout


OPENED = {
    "iptables-nft": ("iptables-nft -P FORWARD DROP", "iptables-nft -S FORWARD"),
    "iptables-legacy": ("iptables-legacy -P FORWARD DROP", "iptables-legacy -S FORWARD"),
    "docker": (rulesets.DOCKER.format("iptables-nft"), "iptables-nft -S DOCKER-USER"),
    "docker, legacy": (rulesets.DOCKER.format("iptables-legacy"), "iptables-legacy -S DOCKER-USER"),
    "ufw": (rulesets.UFW.format("iptables-nft"), "iptables-nft -S FORWARD"),
    "firewalld": (rulesets.FIREWALLD, "nft list chain inet firewalld filter_FORWARD"),
    "nft": (rulesets.chain(""), "nft list chain inet other forward"),
}


def load(host: FakeHost, rules: str) -> None:
    """Load rules: nft's own syntax, or a script for the shell."""
    host.run(["nft", "-f", "-"] if rules.lstrip().startswith("table") else ["sh", "-e"], stdin=rules)


def reaches(place: Attached, host: FakeHost) -> bool:
    """Whether a container gets an answer from outside: that nobody listens is one."""
    return ask(place, host.outside_address, 7, patience=0.6) == "ConnectionRefusedError 111"


ASK_NAME = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(0.8)
    client.connect(("10.201.0.1", 53))
    client.send(b"\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\3web\\0\\0\\1\\0\\1")  # web A
    try:
        print("answered" if client.recv(100)[:2] == b"\\0\\1" else "?")
    except OSError:  # no answer, or that it is prohibited
        print("stopped")
"""


def udp_answer(place: Attached) -> str:
    """What becomes of a question for the name server."""
    return place.run(sys.executable, "-c", ASK_NAME).stdout.strip()


@pytest.mark.parametrize("name", OPENED)
def test_a_closed_firewall_is_opened_for_exactly_our_bridge_when_asked(host: FakeHost, serve: Serve, name: str) -> None:
    rules, show = OPENED[name]
    load(host, rules)
    before = others(host)
    host.minirun("network", "create", "lab")
    lab, web = Attached(host, "far", "lab"), Attached(host, "web", "br0", "8080:80")
    serve(web)
    assert not reaches(web, host)
    assert udp_answer(web) == ("stopped" if "INPUT" in rules else "answered")
    done = host.minirun("network", "reload", "br0").stdout
    assert done.count("warning: the chain") == 1
    assert done.rstrip().endswith("open it with: minirun network reload --allow-forward br0")
    assert others(host) == before

    done = host.minirun("network", "reload", "--allow-forward", "br0").stdout
    assert "warning" not in done
    assert reaches(web, host)
    assert not reaches(lab, host)
    assert ask(host.outside, host.address, 8080) == f"web sees {host.outside_address}"
    assert host.run(show.split()).stdout.count("minirun network br0") == 2
    assert udp_answer(web) == "answered"
    opened = others(host)
    host.minirun("network", "reload", "--allow-forward", "br0")
    assert others(host) == opened  # and not twice

    host.run(["nft", "flush", "ruleset"])
    if "legacy" in rules:
        host.run(["sh", "-ec", "iptables-legacy -F; iptables-legacy -X"])
    load(host, rules)  # as their own reload does
    host.minirun("ps")
    assert reaches(web, host)
    assert others(host) == opened

    web.undo()
    assert host.minirun("network", "rm", "br0").stderr == ""
    assert others(host) == before


def test_what_only_its_owner_may_open_is_said(host: FakeHost) -> None:
    host.minirun("network", "create", "br0")
    code = """
import os, subprocess, sys
nft = subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, text=True)
nft.stdin.write(sys.argv[1].replace("table inet firewalld {", "table inet firewalld { flags owner;").replace("\\n", " ")
    .replace("}", "};").replace("  ", " ") + "\\n")
nft.stdin.flush()
print("ready", flush=True)
sys.stdin.readline()
nft.stdin.close()
nft.wait()
"""
    one_line = "table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; reject; } }"
    owner = host.popen([sys.executable, "-c", code, one_line], stdin=subprocess.PIPE)
    assert owner.stdout and owner.stdout.readline() == "ready\n"
    host.wait_until("nft list tables | grep -q firewalld")
    done = host.minirun("network", "reload", "--allow-forward", check=False)
    owner.communicate("\n", timeout=10)
    assert done.returncode == 125
    assert "firewall-cmd --permanent --zone=trusted --add-interface=br0; firewall-cmd --reload" in done.stderr


def test_a_network_may_be_created_open(host: FakeHost) -> None:
    host.run(["iptables-nft", "-P", "FORWARD", "DROP"])
    script = host.minirun("explain", "network", "create", "--allow-forward", "lab").stdout
    command = "iptables-nft -w -I FORWARD -i lab -m comment --comment 'minirun network lab' -j ACCEPT"
    assert command in script
    host.minirun("network", "create", "--allow-forward", "lab")
    assert host.run(["iptables-nft", "-S", "FORWARD"]).stdout.count("minirun network lab") == 2
    assert reaches(Attached(host, "web", "lab"), host)
    assert identity("web")


def test_networks_named_like_words_of_nft_come_back(host: FakeHost) -> None:
    for name in ("drop", "42", "1-2"):
        host.minirun("network", "create", name)
    before = sorted(tables(host).replace(",", "").split())
    host.run(["nft", "flush", "ruleset"])
    host.minirun("network", "reload")
    assert sorted(tables(host).replace(",", "").split()) == before
    host.minirun("network", "rm", "drop", "42", "1-2")


@pytest.mark.parametrize("field", ["80 }\\nadd table inet pwned\\n#", "80, 81"])
def test_a_note_on_disk_tells_nft_nothing_but_an_element(host: FakeHost, field: str) -> None:
    host.minirun("network", "create", "lab")
    element = f'["pub4_any", ["tcp", "{field}"], ["10.0.0.1", "80"]]'
    note = f'["publish", "lab", "{"a" * 64}", "web", [{element}]]'
    folder = f"{host.state}/networks/lab/published"
    host.run(["sh", "-ec", f"mkdir -p {folder}; cat > {folder}/{'a' * 64}"], stdin=note)
    done = host.minirun("network", "reload", check=False)
    assert done.returncode != 0 and "element of our firewall" in done.stderr, done
    assert "pwned" not in host.run(["nft", "list", "ruleset"]).stdout
    host.run(["rm", f"{folder}/{'a' * 64}"])
    host.minirun("network", "rm", "lab")
