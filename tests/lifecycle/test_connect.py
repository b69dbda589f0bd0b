"""Networks that are connected to living containers and disconnected again: what is seen inside, outside, and after."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lifecycle.machine import MINIRUN, SOON, Machine, until
from tests.lifecycle.test_networks import addresses, inside, pings, record, routes
from tests.lifecycle.test_proxy import proxies
from tests.network.containers import ask

SLEEP = ("busybox", "sleep", "600")
SERVE = ("busybox", "sh", "-c", "while :; do nc -l -p 80 -e echo hello; done")


@pytest.fixture(autouse=True)
def networks(host: Machine) -> Iterator[None]:
    """Three networks for each test: of both families, of IPv4 alone, and one without a way out."""
    if "dual" not in host.out("network", "ls", "-q").split():
        host.minirun("network", "create", "dual", "--subnet", "10.77.0.0/24", "--subnet", "fd00:77::/64")
        host.minirun("network", "create", "four", "--subnet", "10.78.0.0/24")
        host.minirun("network", "create", "shut", "--subnet", "10.79.0.0/24", "--internal")
    yield
    if identities := host.out("ps", "-aq").split():
        host.minirun("rm", "-f", *identities)
    assert list(host.path(f"{host.state}/networks").glob("*/leases/*")) == []


def connect(host: Machine, network: str, container: str, *options: str) -> None:
    host.minirun("network", "connect", *options, network, container)


def disconnect(host: Machine, network: str, container: str) -> None:
    host.minirun("network", "disconnect", network, container)


def names(host: Machine, container: str) -> list[str]:
    """The networks that ``inspect`` shows."""
    return list(host.inspect(container)["NetworkSettings"]["Networks"])


def published(host: Machine) -> list[str]:
    """Where our table leads port 8080."""
    shown = host.run(["nft", "list", "map", "inet", "minirun", "pub4_any"]).stdout
    return re.findall(r"tcp \. 8080 .*? : ([\d.]+) \. 80", shown)


def consistent(host: Machine, container: str) -> list[str]:
    """The networks of a container, if everything agrees about them: record, leases, cables, interfaces, claims."""
    shown = host.inspect(container)
    identity, settings = shown["Id"], shown["NetworkSettings"]["Networks"]
    leases = {
        path.name: path.parent.parent.name
        for path in host.path(f"{host.state}/networks").glob("*/leases/*")
        if path.read_text().startswith(identity)
    }
    recorded = {a for each in settings.values() for a in (each["IPAddress"], each["GlobalIPv6Address"]) if a}
    assert set(leases) == recorded and set(leases.values()) == set(settings)
    held = addresses(host, container)
    assert {address for each in held.values() for address in each} == recorded
    assert sorted(held) == sorted(each["InterfaceName"] for each in settings.values())
    cables = set(re.findall(rf"^\d+: (mr{identity[:12]}\w?)@", host.run(["ip", "-o", "link"]).stdout, re.M))
    assert cables == {each["EndpointID"] for each in settings.values()}
    claims = host.run(["nft", "list", "table", "bridge", "minirun"]).stdout
    found = set(re.findall(rf'"mr{identity[:12]}\w?" \. [0-9a-f:]+ \. ([0-9a-f.:]+) ', claims))
    assert {address for address in found if not address.startswith(("fe80", "0.0.0.0", "::"))} == recorded
    gateways = [each["Gateway"] for each in settings.values() if each["Gateway"]]
    assert [gateway for gateway, _ in routes(host, container)] == gateways
    own = host.live(identity)
    assert [path.name for path in (own / "plugs").glob("*") if path.name.rpartition(".")[2].isdigit()] == []
    assert not host.path(f"{host.state}/locks/{identity}.plugs").exists()
    return list(settings)


def test_packets_pass_on_each_network_as_soon_as_it_is_connected(host: Machine) -> None:
    host.out("run", "-d", "--name", "a", "--net", "dual", "--net", "four", *SLEEP)
    host.out("run", "-d", "--name", "b", *SLEEP)
    connect(host, "dual", "b", "--ip", "10.77.0.9", "--ip6", "fd00:77::9", "--mac-address", "02:42:00:00:00:09")
    connect(host, "four", "b", "--interface-name", "lan")
    assert consistent(host, "b") == ["br0", "dual", "four"]
    theirs, ours = addresses(host, "a"), addresses(host, "b")
    assert ours["eth1"] == ["10.77.0.9", "fd00:77::9"] and list(ours) == ["eth0", "eth1", "lan"]
    for mine, interface in (("eth0", "eth1"), ("eth1", "lan")):
        for address in ours[interface]:
            assert pings(host, "a", address, mine), address
        for address in theirs[mine]:
            assert pings(host, "b", address, interface), address
    link = json.loads(host.run(["ip", "-n", "b", "-j", "link", "show", "eth1"]).stdout)[0]
    assert link["address"] == "02:42:00:00:00:09"
    alias = host.run(["ip", "link", "show", host.inspect("b")["NetworkSettings"]["Networks"]["dual"]["EndpointID"]])
    assert f"alias b {host.inspect('b')['Id'][:12]}" in alias.stdout
    row = next(json.loads(line) for line in host.out("ps", "--format", "json").splitlines() if '"b"' in line)
    assert row["Networks"] == "br0,dual,four"
    assert row["IPAddress"].split(", ") == [each[0] for each in ours.values()]
    disconnect(host, "dual", "b")
    assert consistent(host, "b") == ["br0", "four"]
    assert not pings(host, "a", "10.77.0.9", "eth0")


def test_names_follow(host: Machine) -> None:
    host.out("run", "-d", "--name", "a", "--net", "four", *SLEEP)
    host.out("run", "-d", "--name", "b", *SLEEP)
    connect(host, "four", "b", "--ip", "10.78.0.9", "--alias", "db")
    for name in ("b", "db"):
        assert "10.78.0.9" in inside(host, "a", "nslookup", name)
    assert "10.78." in inside(host, "b", "nslookup", "a")
    disconnect(host, "four", "b")
    assert host.minirun("exec", "a", "nslookup", "db", check=False).returncode != 0


def test_the_files_inside_follow_and_what_the_container_wrote_stays(host: Machine) -> None:
    identity = host.out("run", "-d", "--name", "a", "--hostname", "box", "--add-host", "x:192.0.2.9", *SLEEP)
    inside(host, "a", "sh", "-c", "echo '192.0.2.8 mine' >> /etc/hosts; echo 'options debug' >> /etc/resolv.conf")
    before = [(host.live(identity) / file).stat().st_ino for file in ("hosts", "resolv.conf")]
    connect(host, "dual", "a", "--ip", "10.77.0.9", "--ip6", "fd00:77::9")
    disconnect(host, "br0", "a")
    hosts = inside(host, "a", "cat", "/etc/hosts").splitlines()
    assert hosts[:4] == [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "10.77.0.9\tbox a",
        "fd00:77::9\tbox a",
    ]
    assert hosts[4:] == ["192.0.2.9\tx", "192.0.2.8 mine"]
    conf = inside(host, "a", "cat", "/etc/resolv.conf").splitlines()
    assert conf[:2] == ["nameserver 10.77.0.1", "nameserver fd00:77::1"] and conf[-1] == "options debug"
    assert [(host.live(identity) / file).stat().st_ino for file in ("hosts", "resolv.conf")] == before


def test_the_way_out_is_handed_on_and_comes_back(host: Machine) -> None:
    host.out("run", "-d", "--name", "a", "--net", "dual", *SLEEP)
    connect(host, "four", "a")
    assert routes(host, "a") == [("10.77.0.1", "eth0")]
    disconnect(host, "dual", "a")
    assert (routes(host, "a"), routes(host, "a", "-6")) == ([("10.78.0.1", "eth1")], [])
    assert pings(host, "a", host.outside_address, "eth1")
    connect(host, "dual", "a")
    assert (routes(host, "a"), routes(host, "a", "-6")) == ([("10.78.0.1", "eth1")], [("fd00:77::1", "eth0")])
    connect(host, "shut", "a")
    disconnect(host, "four", "a")
    disconnect(host, "dual", "a")
    assert (routes(host, "a"), consistent(host, "a")) == ([], ["shut"])
    assert host.inspect("a")["NetworkSettings"]["IPAddress"].startswith("10.79.")


def test_published_ports_move_with_the_way_out(host: Machine) -> None:
    host.out("run", "-d", "--name", "web", "-p", "8080:80", "-p", "[::1]:8081:80", *SERVE)
    host.wait_until("ip netns exec web ss -ltn | grep -q :80")
    assert ask(host.outside, host.address, 8080) == "hello"
    connect(host, "four", "web", "--ip", "10.78.0.9")
    assert published(host) == [addresses(host, "web")["eth0"][0]]
    disconnect(host, "br0", "web")
    assert published(host) == ["10.78.0.9"]
    assert ask(host.outside, host.address, 8080) == "hello"
    assert host.run(["bash", "-c", "exec 3<>/dev/tcp/::1/8081; cat <&3"]).stdout == "hello\n"
    said = host.minirun("network", "disconnect", "four", "web").stderr
    assert "published no more" in said and published(host) == []
    assert host.run(["bash", "-c", "exec 3<>/dev/tcp/::1/8081"], check=False).returncode
    assert "8080" not in host.out("ps") and host.inspect("web")["NetworkSettings"]["Ports"] == {}
    connect(host, "shut", "web")
    assert published(host) == []
    connect(host, "br0", "web")
    assert published(host) == [addresses(host, "web")["eth1"][0]]
    assert ask(host.outside, host.address, 8080) == "hello"
    host.minirun("rm", "-f", "web")
    assert published(host) == [] and list(host.path(f"{host.state}/networks").glob("*/published/*")) == []


def test_a_port_that_was_taken_meanwhile_refuses_the_way_back(host: Machine) -> None:
    host.out("run", "-d", "--name", "web", "-p", "8080:80", *SLEEP)
    disconnect(host, "br0", "web")
    host.out("run", "-d", "--name", "other", "-p", "8080:80", *SLEEP)
    said = host.refused("network", "connect", "four", "web")
    assert "8080" in said and "other" in said
    assert consistent(host, "web") == []
    host.minirun("rm", "-f", "other")
    connect(host, "four", "web")
    assert published(host) == [addresses(host, "web")["eth0"][0]]


def test_an_address_given_away_stays_with_whoever_has_it_then(host: Machine) -> None:
    """The command in front leased the address itself, and must not take it back from the next one."""
    front = host.spawn(
        "run", "--name", "first", "--ip", "10.201.0.99", "busybox", "sh", "-c", "echo up; exec sleep 600"
    )
    assert front.stdout and front.stdout.readline() == "up\n"
    disconnect(host, "br0", "first")
    second = host.out("run", "-d", "--name", "second", "--ip", "10.201.0.99", *SLEEP)
    host.minirun("kill", "first")
    assert front.wait(SOON) == 137
    front.communicate()
    assert record(host, "br0")["leases"] == {"10.201.0.99": second}
    assert consistent(host, "second") == ["br0"]


def test_what_has_no_networks_of_its_own_is_refused(host: Machine) -> None:
    host.minirun("run", "--name", "ended", "busybox", "true")
    host.out("run", "-d", "--name", "open", "--net", "host", *SLEEP)
    host.start("--name", "main", *SLEEP)
    host.out("run", "-d", "--name", "side", "--net", "container:main", *SLEEP)
    for name, piece in {"ended": "not running", "open": "host's network", "side": "that of container"}.items():
        assert piece in host.refused("network", "connect", "four", name)
        assert piece in host.refused("network", "disconnect", "br0", name)
        host.minirun("network", "disconnect", "-f", "br0", name)
    connect(host, "four", "main", "--ip", "10.78.0.9")
    assert addresses(host, "side") == {"eth0": ["10.78.0.9"]}
    assert "connected to network four already" in host.refused("network", "connect", "four", "main")
    assert "not connected to network dual" in host.refused("network", "disconnect", "dual", "main")
    assert "does not exist" in host.refused("network", "disconnect", "nobody", "main")
    assert "network nobody" in host.refused("network", "connect", "nobody", "main")
    for options, piece in {
        ("--ip", "10.79.0.1"): "gateway",
        ("--ip", "10.99.0.1"): "10.79.0.0/24",
        ("--ip6", "fd00::1"): "no IPv6",
        ("--interface-name", "eth0"): "such an interface",
    }.items():
        assert piece in host.refused("network", "connect", *options, "shut", "main"), options
    # What is shared outlives its owner without the cables, those that came later included.
    host.minirun("rm", "-f", "main")
    assert addresses(host, "side") == {}
    assert not re.search(r"^\d+: mr", host.run(["ip", "-o", "link"]).stdout, re.M)


def test_force_pulls_the_containers_out_and_removes_the_network(host: Machine) -> None:
    host.minirun("network", "create", "lab")
    host.out("run", "-d", "--name", "a", "--net", "lab", "--net", "four", *SLEEP)
    assert "containers use it" in host.refused("network", "rm", "lab")
    assert host.out("network", "rm", "-f", "lab") == "lab"
    assert consistent(host, "a") == ["four"]
    assert routes(host, "a") == [("10.78.0.1", "eth1")]


def test_many_at_once(host: Machine) -> None:
    """Four networks at once, and then out of all of them at once: one after the other, none lost."""
    for number in range(4):
        host.minirun("network", "create", f"n{number}", "--subnet", f"10.9{number}.0.0/24")
    host.out("run", "-d", "--name", "a", *SLEEP)
    for verb in ("connect", "disconnect"):
        crowd = [host.spawn("network", verb, f"n{number}", "a") for number in range(4)]
        assert [process.wait(60) for process in crowd] == [0] * 4, [process.communicate() for process in crowd]
        for process in crowd:
            process.communicate()
        found = consistent(host, "a")
        assert sorted(found) == ["br0", *[f"n{number}" for number in range(4) if verb == "connect"]]
    same = [host.spawn("network", "connect", "n1", "a") for _ in range(3)]
    assert sorted(process.wait(60) for process in same) == [0, 125, 125]
    for process in same:
        process.communicate()
    assert sorted(consistent(host, "a")) == ["br0", "n1"]
    host.minirun("network", "rm", "-f", "n0", "n1", "n2", "n3")


@pytest.mark.parametrize("patience", [0.0, 0.02, 0.05, 0.1, 0.2])
def test_the_end_of_the_container_races_with_connect(host: Machine, patience: float) -> None:
    """Whoever comes first: nothing of the network is left. (The wait only chooses where the two meet.)"""
    host.out("run", "-d", "--rm", "--name", "a", "-p", "8080:80", *SLEEP)
    pid = host.inspect("a")["State"]["Pid"]
    process = host.spawn("network", "connect", "four", "a")
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    os.kill(pid, signal.SIGKILL)
    assert process.wait(60) in (0, 125)
    process.communicate()
    host.settle()
    host.minirun("ps")
    host.clean()


CHANGING = "mkdir|rename|linkat|unlink|write|pwrite64|ftruncate|sendmsg|setns|flock"
MOMENTS = int(os.environ.get("MINIRUN_TEST_MOMENTS", "9"))


def changing_calls(host: Machine, *words: str) -> list[str]:
    """The names of the changing calls that a command makes, in their order."""
    host.run(["strace", f"--trace=/^({CHANGING})$", "--output=/run/trace", *MINIRUN, *words])
    return re.findall(r"^(\w+)\(", host.path("/run/trace").read_text(), re.MULTILINE)


def kill_at(host: Machine, calls: list[str], moment: int, *words: str) -> tuple[str, int, bool]:
    """Run a command that is killed at one of its calls, the moments evenly spread over them; whether it was.

    It makes some calls less where the name server serves the network already.
    """
    position = moment * (len(calls) - 1) // (MOMENTS - 1)
    call, number = calls[position], calls[: position + 1].count(calls[position])
    strace = ["strace", f"--inject={call}:signal=KILL:when={number}", f"--trace={call}", "--output=/dev/null"]
    done = host.run([*strace, *MINIRUN, *words], check=False)
    assert done.returncode in (-signal.SIGKILL, 0), done
    held = {path.name for path in host.path(f"{host.state}/networks").glob("*/leases/*")}
    assert set(published(host)) <= held, (call, number)  # no port of the host leads to an address that is free
    host.minirun("ps")  # the next command
    return call, number, done.returncode != 0


def test_connect_is_killed(host: Machine) -> None:
    """At each moment: the next command finds it done or undone, never in between; and then it works."""
    host.out("run", "-d", "--name", "a", *SLEEP)
    words = ("network", "connect", "dual", "a")
    host.minirun(*words)  # makes directories that stay
    disconnect(host, "dual", "a")
    calls, killed = changing_calls(host, *words), 0
    for moment in range(MOMENTS):
        disconnect(host, "dual", "a")
        where = kill_at(host, calls, moment, *words)
        killed += where[2]
        found = consistent(host, "a")
        assert found in (["br0"], ["br0", "dual"]), where
        if found == ["br0"]:
            host.minirun(*words)
    assert consistent(host, "a") == ["br0", "dual"]
    assert killed > MOMENTS // 2


def test_disconnect_is_killed(host: Machine) -> None:
    """The same, while the way out and the published ports move to the other network."""
    host.out("run", "-d", "--name", "a", "-p", "8080:80", "-p", "[::1]:8081:80", "--net", "br0,four", *SLEEP)
    for network in ("br0", "four"):
        disconnect(host, network, "a")
        connect(host, network, "a")
    calls, killed = changing_calls(host, "network", "disconnect", "br0", "a"), 0
    connect(host, "br0", "a")
    for moment in range(MOMENTS):
        leave, stay = ("four", "br0") if moment % 2 == 0 else ("br0", "four")
        where = kill_at(host, calls, moment, "network", "disconnect", leave, "a")
        killed += where[2]
        found = consistent(host, "a")
        assert found in ([leave, stay], [stay]), where
        if found == [leave, stay]:
            disconnect(host, leave, "a")
        address = host.inspect("a")["NetworkSettings"]["Networks"][stay]["IPAddress"]
        assert published(host) == [address], where
        words = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in proxies(host)]
        assert [each[-2] for each in words] == [f"{address}:80".encode()], where
        connect(host, leave, "a")
    assert killed > MOMENTS // 2


def test_the_end_takes_the_ports_back_before_the_addresses(host: Machine) -> None:
    """No port of the host leads to an address that another container may have got already."""
    for identity in ("a", "b"):
        host.out("run", "-d", "--name", identity, "-p", "8080:80", "--net", "br0", *SLEEP)
        connect(host, "four", identity)
        if identity == "a":  # the ports move along, or are still where the plan led them
            disconnect(host, "br0", identity)
        trace = ["strace", "-f", "--trace=unlink,unlinkat", "--output=/run/trace"]
        host.run([*trace, *MINIRUN, "rm", "-f", identity])
        calls = host.path("/run/trace").read_text()
        removed = re.findall(r'unlink(?:at)?\(.*"([^"]*/(?:leases|published)/[^"]*)".* = 0$', calls, re.M)
        kinds = [path.split("/")[-2] for path in removed]
        assert kinds and kinds == sorted(kinds, reverse=True), removed


def test_one_that_vanishes_never_seems_to_run_again(host: Machine) -> None:
    """It runs while there is state.json and no exit: so state.json goes first."""
    host.out("run", "-d", "--rm", "--name", "a", *SLEEP)
    host.run(["strace", "-f", "--trace=unlink,unlinkat", "--output=/run/trace", *MINIRUN, "rm", "-f", "a"])
    calls = host.path("/run/trace").read_text()
    removed = re.findall(r'unlink(?:at)?\(.*"(?:[^"]*/)?(state\.json|exit)".* = 0$', calls, re.M)
    assert removed == ["state.json", "exit"]


def test_a_namespace_whose_name_is_anothers_by_now_is_not_entered(host: Machine) -> None:
    """Its owner ended and somebody took the name: it is neither joined, nor given ways out."""
    main = host.start("--name", "main", *SLEEP)
    host.start("--name", "other", *SLEEP)
    code = """
import os, sys
from minirun.errors import Conflict
from minirun.engine import joining
from minirun.engine.record import Container
from minirun.network import netns
main = Container(sys.argv[1])
assert netns.inside("main", main.id) and not netns.inside("other", main.id) and not netns.inside("nobody", main.id)
join = joining.Join("side", netns.owner_tag(main.id), netns.netns_path("other"), main.live, "f" * 64)
try:
    join.do()
except Conflict as error:
    assert "has just ended" in str(error), error
else:
    raise SystemExit("joined")
assert not os.path.exists(netns.netns_path("side"))
join.undo()
"""
    host.run([sys.executable, "-c", code, main])


def test_the_end_of_a_container_without_connects_pays_one_call(host: Machine) -> None:
    words = ["strace", "-f", "--trace=%file", "--output=/run/trace", *MINIRUN]
    host.run([*words, "run", "--rm", "busybox", "true"])
    lines = [line for line in host.path("/run/trace").read_text().splitlines() if "plugs" in line and ".py" not in line]
    assert len(lines) == 1 and "ENOENT" in lines[0], lines


def test_a_container_that_dies_with_its_monitor_takes_its_networks_along(host: Machine) -> None:
    host.out("run", "-d", "--rm", "--name", "a", *SLEEP)
    connect(host, "dual", "a")
    pid = host.inspect("a")["State"]["Pid"]
    monitor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(monitor, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the program")
    host.settle()
    host.minirun("ps")
    host.clean()


def test_bad_words(host: Machine) -> None:
    refused: dict[tuple[str, ...], Any] = {
        ("connect", "br0"): "NETWORK CONTAINER",
        ("disconnect", "br0"): "NETWORK CONTAINER",
        ("connect", "host", "x"): "only be connected to a network",
        ("connect", "a,b", "x"): "must match",
        ("connect", "--ip", "x", "br0", "x"): "--ip x",
        ("connect", "--mac-address", "x", "br0", "x"): "--mac-address x",
        ("connect", "--alias", "a b", "br0", "x"): "a b",
        ("connect", "--interface-name", "lo", "br0", "x"): "--interface-name lo",
    }
    for words, piece in refused.items():
        assert piece in host.refused("network", *words), words


def test_a_cable_that_somebody_took_is_named_and_mended(host: Machine) -> None:
    identity = host.out("run", "-d", "--name", "web", "--net", "dual", "--net", "four", "-p", "8080:80", *SERVE).strip()
    host.out("run", "-d", "--name", "sibling", "--net", "four", *SLEEP)
    before = consistent(host, "web")
    held = addresses(host, "web")
    assert host.minirun("network", "reload").returncode == 0
    host.run(["ip", "link", "del", f"mr{identity[:12]}"])
    done = host.minirun("network", "reload", check=False)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    found, _, commands = line.partition("; mend it with: ")
    assert found == f"warning: dual: mr{identity[:12]}, the cable of container web, is gone"
    assert done.returncode == 1
    host.run(["sh", "-ec", commands.replace("minirun", " ".join(MINIRUN))])
    assert host.minirun("network", "reload").returncode == 0
    assert sorted(consistent(host, "web")) == sorted(before)
    assert addresses(host, "web") == held
    assert ask(host.outside, host.address, 8080) == "hello"


def test_a_namespace_that_lost_its_name_is_said_and_gets_it_back(host: Machine) -> None:
    host.out("run", "-d", "--name", "web", "--net", "dual", *SLEEP)
    host.run(["ip", "netns", "del", "web"])
    pid = host.inspect("web")["State"]["Pid"]
    said = f"its network namespace lost its name, /run/netns/web; give it back with: ip netns attach web {pid}\n"
    for words, what in (
        (("network", "connect", "four", "web"), "container web"),
        (("network", "disconnect", "dual", "web"), "container web"),
        (("run", "--rm", "--net", "container:web", *SLEEP), "--net container:web"),
        (("explain", "run", "--net", "container:web", *SLEEP), "--net container:web"),
    ):
        assert host.refused(*words) == f"minirun: {what}: {said}"
    assert len(host.out("ps", "-aq").split()) == 1
    host.run(["ip", "netns", "attach", "web", str(pid)])
    connect(host, "four", "web")
    disconnect(host, "dual", "web")
    assert consistent(host, "web") == ["four"]
    host.run(["ip", "netns", "del", "web"])
    host.minirun("rm", "-f", "web")
