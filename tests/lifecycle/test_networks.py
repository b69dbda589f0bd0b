"""What ``run`` and ``network`` make of their network options, seen in the kernel and from inside the containers."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.lifecycle.machine import Machine

SLEEP = ("busybox", "sleep", "600")


@pytest.fixture(autouse=True)
def networks(host: Machine) -> Any:
    """Whatever networks a test makes go with it."""
    yield
    if identities := host.out("ps", "-aq").split():
        host.minirun("rm", "-f", *identities)
    host.minirun("network", "prune", "-f")
    assert host.out("network", "ls", "-q") == "br0"


def inside(host: Machine, container: str, *command: str) -> str:
    return host.out("exec", container, *command)


def addresses(host: Machine, container: str) -> dict[str, list[str]]:
    """The global addresses of each interface, as ip(8) of the host sees them by the namespace's name."""
    shown = json.loads(host.run(["ip", "-n", container, "-j", "address"]).stdout)
    found = {n["ifname"]: [a["local"] for a in n["addr_info"] if a["scope"] == "global"] for n in shown}
    return {name: held for name, held in found.items() if held}


def routes(host: Machine, container: str, family: str = "-4") -> list[tuple[str, str]]:
    """Where the default routes lead: gateway and interface."""
    shown = json.loads(host.run(["ip", "-n", container, "-j", family, "route", "show", "default"]).stdout or "[]")
    return [(route["gateway"], route["dev"]) for route in shown]


def record(host: Machine, network: str) -> Any:
    return json.loads(host.out("network", "inspect", network))[0]


def pings(host: Machine, container: str, address: str, interface: str) -> bool:
    """Whether an answer comes to a ping that leaves by this interface."""
    words = ["ip", "netns", "exec", container, "ping", "-c1", "-W5", "-I", interface, address]
    return host.run(words, check=False).returncode == 0


def test_two_networks_of_both_families(host: Machine) -> None:
    host.minirun("network", "create", "one", "--subnet", "10.77.0.0/24", "--subnet", "fd00:77::/64")
    host.minirun("network", "create", "two", "--ipv6", "--mtu", "1400")
    for name in ("a", "b"):
        host.out("run", "-d", "--name", name, "--net", "one", "--net", "two", *SLEEP)
    found = addresses(host, "b")
    assert list(found) == ["eth0", "eth1"]
    assert found["eth0"] == ["10.77.0.3", "fd00:77::3"]
    assert routes(host, "a") == [("10.77.0.1", "eth0")]
    assert routes(host, "a", "-6") == [("fd00:77::1", "eth0")]
    for interface, theirs in found.items():
        for address in theirs:
            assert pings(host, "a", address, interface), (interface, address)
    mtus = [link["mtu"] for link in json.loads(host.run(["ip", "-n", "a", "-j", "link"]).stdout)]
    assert mtus[1:] == [1500, 1400]


def test_commas_and_both_engines_ways_of_writing(host: Machine) -> None:
    host.minirun("network", "create", "one", "--subnet", "10.77.0.0/24", "--ipv6")
    host.minirun("network", "create", "two", "--subnet", "10.78.0.0/24")
    host.out("run", "-d", "--name", "a", "--net", "one,two", *SLEEP)
    assert [list(addresses(host, "a")), list(host.inspect("a")["NetworkSettings"]["Networks"])] == [
        ["eth0", "eth1"],
        ["one", "two"],
    ]
    podman = "one:ip=10.77.0.9,alias=db,alias=cache,mac=02:42:00:00:00:09,interface_name=lan"
    docker = "name=two,ip=10.78.0.9,mac-address=02:42:00:00:00:0a,driver-opt=com.docker.network.endpoint.ifname=wan"
    host.out("run", "-d", "--name", "b", "--net", podman, "--net", docker, *SLEEP)
    shown = host.inspect("b")["NetworkSettings"]["Networks"]
    assert [shown["one"][key] for key in ("IPAddress", "MacAddress", "InterfaceName")] == [
        *("10.77.0.9", "02:42:00:00:00:09", "lan")
    ]
    assert (shown["one"]["Aliases"], shown["two"]["InterfaceName"]) == (["db", "cache"], "wan")
    assert "02:42:00:00:00:0a" in inside(host, "b", "ip", "link", "show", "wan")
    lease = host.path(f"{host.state}/networks/one/leases/10.77.0.9").read_text()
    assert "names b " in lease and " db cache\n" in lease
    assert pings(host, "a", "10.77.0.9", "eth0") and pings(host, "a", "10.78.0.9", "eth1")


@pytest.mark.parametrize("network", ["br0", "default", "bridge"])
def test_the_default_network_gives_static_addresses(host: Machine, network: str) -> None:
    script = ("ip", "-o", "address", "show", "eth0")
    options = ("--net", network, "--ip", "10.201.0.77", "--mac-address", "02-42-AA-BB-CC-DD")
    shown = host.out("run", "--rm", *options, "busybox", *script)
    assert "10.201.0.77/20" in shown
    assert "02:42:aa:bb:cc:dd" in host.out("run", "--rm", *options, "busybox", "ip", "link", "show", "eth0")


def test_an_address_that_cannot_be_had_is_refused_by_name(host: Machine) -> None:
    host.minirun("network", "create", "lab", "--subnet", "10.77.0.0/24", "--subnet", "fd00:77::/64")
    host.minirun("network", "create", "old", "--subnet", "10.78.0.0/24")
    holder = host.out("run", "-d", "--name", "holder", "--net", "lab:ip=10.77.0.5,mac=02:42:00:00:00:05", *SLEEP)
    refused = {
        ("--ip", "10.77.0.5"): holder[:12],
        ("--ip", "10.77.0.0"): "--ip 10.77.0.0",
        ("--ip", "10.77.0.255"): "--ip 10.77.0.255",
        ("--ip", "10.77.0.1"): "gateway",
        ("--ip", "10.99.0.1"): "10.77.0.0/24",
        ("--ip6", "fd00:77::1"): "gateway",
        ("--ip6", "fd00:78::1"): "fd00:77::/64",
        ("--mac-address", "02:42:00:00:00:05"): "container holder has it",
        ("--mac-address", "02:6d:0a:4d:00:01"): "bridge of network lab",
        ("--mac-address", "02:6d:0a:4d:00:08"): "minirun makes such ones",
        ("--net", "old", "--ip6", "fd00:77::9"): "no IPv6",
    }
    for options, piece in refused.items():
        network = () if "--net" in options else ("--net", "lab")
        assert piece in host.refused("run", "--rm", *network, *options, "busybox", "true"), options
    assert host.path(f"{host.state}/networks/lab/leases").exists()
    assert len(list(host.path(f"{host.state}/networks/lab/leases").iterdir())) == 2


def test_nothing_is_published_on_internal_networks(host: Machine) -> None:
    host.minirun("network", "create", "in", "--internal")
    publish = ("run", "-d", "--name", "web", "-p", "8080:80")
    assert "internal" in host.refused(*publish, "--net", "in", *SLEEP)
    host.out(*publish, "--net", "in", "--net", "br0", *SLEEP)
    assert routes(host, "web") == [("10.201.0.1", "eth1")]
    published = record(host, "br0")["containers"].popitem()[1]["published"]
    assert published[0][2] == [addresses(host, "web")["eth1"][0], "80"]


def test_a_container_in_the_network_of_another(host: Machine) -> None:
    host.out("run", "-d", "--name", "main", "--hostname", "both", *SLEEP)
    host.out("run", "-d", "--name", "side", "--net", "container:main", *SLEEP)
    third = host.out("run", "-d", "--name", "third", "--net", "container:side", *SLEEP)
    for name in ("side", "third"):
        for file in ("hosts", "hostname", "resolv.conf"):
            assert inside(host, name, "cat", f"/etc/{file}") == inside(host, "main", "cat", f"/etc/{file}")
        assert inside(host, name, "hostname") == "both"
        assert addresses(host, name) == addresses(host, "main")
    assert host.inspect("third")["HostConfig"]["NetworkMode"] == f"container:{host.inspect('main')['Id']}"
    assert host.inspect("third")["Id"] == third
    # A server in one is the other's localhost.
    host.minirun("exec", "-d", "side", "nc", "-l", "-p", "99", "-e", "echo", "hello")
    host.wait_until("ip netns exec side ss -ltn | grep -q :99")
    assert inside(host, "main", "nc", "127.0.0.1", "99") == "hello"


def test_the_shared_namespace_outlives_its_owner_without_cables(host: Machine) -> None:
    host.minirun("network", "create", "two")
    host.out("run", "-d", "--name", "main", "--net", "br0", "--net", "two", *SLEEP)
    host.out("run", "-d", "--name", "side", "--net", "container:main", *SLEEP)
    host.minirun("rm", "-f", "main")
    assert addresses(host, "side") == {}
    assert re.findall(r"^\d+: (\w+)", inside(host, "side", "ip", "-o", "link"), re.M) == ["lo"]
    assert not re.search(r"^\d+: mr", host.run(["ip", "-o", "link"]).stdout, re.M)
    assert "not running" in host.refused("run", "--net", "container:side", *SLEEP)
    assert host.out("ps", "-q") == host.inspect("side")["Id"][:12]
    assert "side" not in host.minirun("doctor", "--leaks", check=False).stdout
    host.minirun("rm", "-f", "side")
    assert host.leftovers() == []


def test_a_network_can_be_shared_of_a_container_that_has_none_or_the_hosts(host: Machine) -> None:
    host.start("--name", "lonely", *SLEEP)
    host.out("run", "-d", "--name", "open", "--net", "host", *SLEEP)
    links = ("busybox", "ip", "-o", "link")
    assert len(host.out("run", "--rm", "--net", "container:lonely", *links).splitlines()) == 1
    assert "br0" in host.out("run", "--rm", "--net", "container:open", *links)


def test_what_cannot_be_joined_is_refused(host: Machine) -> None:
    host.minirun("run", "--name", "ended", "--net", "none", "busybox", "true")
    assert "not running" in host.refused("run", "--rm", "--net", "container:ended", "busybox", "true")
    assert "no such container" in host.refused("run", "--rm", "--net", "container:nobody", "busybox", "true")


def test_everything_that_create_knows_is_kept_and_shown(host: Machine) -> None:
    words = ["--subnet", "10.77.0.0/24", "--gateway", "10.77.0.254", "--ip-range", "10.77.0.128/25", "--ipv6"]
    words += ["--mtu", "1400", "--dns", "198.51.100.53", "--label", "team=a", "--label", "free", "-d", "bridge"]
    words += ["-o", "com.docker.network.bridge.enable_icc=false", "--opt", "isolate=true"]
    assert host.out("network", "create", "lab", *words) == "lab"
    shown = record(host, "lab")
    assert shown["subnets"][0] == {"subnet": "10.77.0.0/24", "gateway": "10.77.0.254", "range": "10.77.0.128/25"}
    assert shown["subnets"][1]["subnet"].startswith("fd") and shown["subnets"][1]["subnet"].endswith("/64")
    assert (shown["mtu"], shown["dns"], shown["isolate"]) == (1400, ["198.51.100.53"], True)
    assert shown["labels"] == {"team": "a", "free": ""}
    assert shown["options"] == {"com.docker.network.bridge.enable_icc": "false", "isolate": "true"}
    identity = host.out("run", "-d", "--name", "a", "--net", "lab", "--network-alias", "db", *SLEEP)
    guest = record(host, "lab")["containers"][identity]
    assert (guest["name"], guest["aliases"], guest["addresses"][0]) == ("a", ["db"], "10.77.0.128/24")
    assert [guest["mac"], guest["port"]] == ["02:6d:0a:4d:00:80", f"mr{identity[:12]}"]
    link = json.loads(host.run(["ip", "-j", "link", "show", "lab"]).stdout)[0]
    assert (link["address"], link["mtu"], link["ifalias"]) == (shown["mac"], 1400, "minirun network lab")


def test_the_words_of_docker_and_podman_mean_the_same(host: Machine) -> None:
    for name, words in {
        "n1": ["--icc=false"],
        "n2": ["--isolate"],
        "n3": ["-o", "com.docker.network.driver.mtu=1400"],
        "n4": ["--opt", "mtu=1400"],
        "n5": ["--opt", "com.docker.network.enable_ipv6=true"],
        "n6": ["--icc"],
        "n7": ["-o", "com.docker.network.bridge.name=lan0"],
        "n8": ["--interface-name", "lan1"],
    }.items():
        host.minirun("network", "create", name, *words)
    shown = {name: record(host, name) for name in ("n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8")}
    assert [shown[name]["isolate"] for name in shown] == [True, True, *[False] * 6]
    assert [shown[name]["mtu"] for name in shown] == [1500, 1500, 1400, 1400, *[1500] * 4]
    assert len(shown["n5"]["subnets"]) == 2
    assert [shown["n7"]["bridge"], shown["n8"]["bridge"]] == ["lan0", "lan1"]
    assert '"lan0"' in host.run(["ip", "-j", "link", "show", "lan0"]).stdout


def test_list_finds_by_name_and_label(host: Machine) -> None:
    host.minirun("network", "create", "lab-1", "--label", "team=a")
    host.minirun("network", "create", "lab-2", "--label", "team=b")

    def names(*words: str) -> list[str]:
        return host.out("network", "ls", "-q", *words).split()

    assert names("--filter", "name=lab") == ["lab-1", "lab-2"]
    assert names("--filter", "label=team=a") == ["lab-1"]
    assert names("-f", "label=team", "-f", "name=2") == ["lab-2"]
    assert names("--filter", "label=nothing") == []
    lines = [json.loads(line) for line in host.out("network", "ls", "--format", "json").splitlines()]
    assert [line["name"] for line in lines] == ["br0", "lab-1", "lab-2"]
    assert host.out("network", "ls", "--no-trunc").splitlines()[0].split() == ["NAME", "BRIDGE", "SUBNET", "GATEWAY"]


def test_prune_keeps_what_is_used_and_the_default(host: Machine) -> None:
    for name in ("used", "unused", "kept"):
        host.minirun("network", "create", name, "--label", f"is={name}")
    host.out("run", "-d", "--name", "a", "--net", "used", *SLEEP)
    assert "-f" in host.refused("network", "prune")
    assert host.out("network", "prune", "-f", "--filter", "label=is=unused") == "unused"
    assert host.out("network", "prune", "-f") == "kept"
    assert host.out("network", "ls", "-q").split() == ["br0", "used"]
    assert "containers use it" in host.refused("network", "rm", "used")
    host.minirun("rm", "-f", "a")
    assert host.minirun("network", "rm", "nobody", "used", check=False).stdout == "used\n"
    assert host.minirun("network", "rm", "-f", "nobody").stdout == ""


def test_a_network_exists_or_not_and_bridge_is_the_default_one(host: Machine) -> None:
    host.minirun("network", "create", "lab")
    for name, code in (("lab", 0), ("bridge", 0), ("default", 0), ("br0", 0), ("nobody", 1)):
        done = host.minirun("network", "exists", name, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (code, "", ""), name
    shown = host.out("network", "inspect", "-f", "json", "bridge")
    assert json.loads(shown)[0]["name"] == "br0" and "\n" not in shown
    assert "it exists already; see: minirun network inspect lab" in host.refused("network", "create", "lab")
    assert host.out("network", "remove", "lab") == "lab"


def test_removing_a_network_by_force_says_whose_ports_go_with_it(host: Machine) -> None:
    host.minirun("network", "create", "lab")
    host.out("run", "-d", "--name", "a", "--net", "lab", "-p", "127.0.0.1:8080:80", *SLEEP)
    refused = host.refused("run", "--rm", "-p", "8080:80", "busybox", "true")
    assert "container a" in refused and "; choose another one; minirun ps shows those in use" in refused
    assert host.refused("port", "a", "foo").startswith("minirun: port foo: not a port;")
    assert host.out("port", "a", "80") == "127.0.0.1:8080"
    assert "rm -f lab" in host.refused("network", "rm", "lab")
    done = host.minirun("network", "rm", "-f", "lab")
    assert done.stdout == "lab\n" and done.stderr.startswith("minirun: container a: its ports are published no more")


def test_a_network_of_a_stopped_container_can_be_removed(host: Machine) -> None:
    host.minirun("network", "create", "lab")
    host.minirun("run", "--name", "ended", "--net", "lab", "busybox", "true")
    assert host.out("network", "rm", "lab") == "lab"
    assert host.inspect("ended")["State"]["Status"] == "exited"


def test_names_that_were_asked_for(host: Machine) -> None:
    words = ["--dns", "192.0.2.53", "--dns-search", "example.org", "--dns-option", "ndots:2"]
    words += ["--add-host", "db:192.0.2.7", "--add-host", "host:host-gateway"]
    identity = host.out("run", "-d", "--name", "a", *words, *SLEEP)
    hosts, conf = inside(host, "a", "cat", "/etc/hosts"), inside(host, "a", "cat", "/etc/resolv.conf").splitlines()
    assert "192.0.2.7\tdb\n10.201.0.1\thost" in hosts
    assert conf[0] == "nameserver 10.201.0.1" and "options ndots:2" in conf
    assert any(line.startswith("search") and line.endswith("example.org") for line in conf)
    address = addresses(host, "a")["eth0"][0]
    lease = host.path(f"{host.state}/networks/br0/leases/{address}").read_text()
    assert lease.startswith(f"{identity}\n") and "\ndns 192.0.2.53\n" in lease


def test_a_container_in_the_hosts_network_has_the_hosts_names(host: Machine) -> None:
    script = ("busybox", "cat", "/etc/hosts", "/etc/resolv.conf")
    host.run(["sh", "-c", "printf 'nameserver 127.0.0.53\nsearch lan' > /run/conf; echo 127.0.0.1 box > /run/hosts"])
    host.run(["mount", "--bind", "/run/conf", "/etc/resolv.conf"])
    host.run(["mount", "--bind", "/run/hosts", "/etc/hosts"])
    try:
        shown = host.out("run", "--rm", "--net", "host", *script)
        assert shown == "127.0.0.1 box\nnameserver 127.0.0.53\nsearch lan"
        changed = ("--dns", "192.0.2.53", "--dns-search", "x.org", "--add-host", "db:192.0.2.7")
        shown = host.out("run", "--rm", "--net", "host", *changed, *script)
        assert shown == "127.0.0.1 box\n192.0.2.7\tdb\nnameserver 192.0.2.53\nsearch x.org"
    finally:
        host.run(["umount", "/etc/resolv.conf", "/etc/hosts"])


def test_packets_are_as_large_as_the_uplink_takes_them(host: Machine) -> None:
    host.run(["ip", "link", "set", "eth0", "mtu", "1300"])
    try:
        host.minirun("network", "create", "lab")
    finally:
        host.run(["ip", "link", "set", "eth0", "mtu", "1500"])
    host.out("run", "-d", "--name", "a", "--net", "lab", *SLEEP)
    assert (record(host, "lab")["mtu"], record(host, "br0")["mtu"]) == (1300, 1500)
    links = [json.loads(host.run(["ip", *words, "-j", "link"]).stdout) for words in ([], ["-n", "a"])]
    mtus = {link["ifname"]: link["mtu"] for shown in links for link in shown}
    assert (mtus["lab"], mtus["eth0"], mtus[f"mr{host.inspect('a')['Id'][:12]}"]) == (1300, 1300, 1300)


def test_the_bridges_mac_does_not_follow_its_ports(host: Machine) -> None:
    """A bridge whose MAC nobody set takes the lowest of its ports', and neighbours send into the void for a while."""

    def mac() -> Any:
        return json.loads(host.run(["ip", "-j", "link", "show", "lab"]).stdout)[0]["address"]

    host.minirun("network", "create", "lab")
    pinned = record(host, "lab")["mac"]
    assert mac() == pinned
    for number in range(3):
        host.out("run", "-d", "--name", f"c{number}", "--net", "lab", *SLEEP)
    assert mac() == pinned
    host.minirun("rm", "-f", "c0", "c1", "c2")
    host.settle()
    assert mac() == pinned


def test_subnets_pass_over_the_routes_of_a_vpn(host: Machine) -> None:
    """A VPN takes 10.0.0.0/8 and halves of everything; the second only means a way out."""
    for route in ("0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8"):
        host.run(["ip", "route", "add", route, "via", host.outside_address])
    try:
        host.minirun("network", "create", "lab")
        assert record(host, "lab")["subnets"][0]["subnet"] == "172.28.0.0/20"
        refused = host.refused("network", "create", "bad", "--subnet", "10.5.0.0/24")
        assert "--subnet 10.5.0.0/24" in refused and "ip route" in refused
    finally:
        for route in ("0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8"):
            host.run(["ip", "route", "del", route])


def test_odd_names_are_found_by_everyone(host: Machine) -> None:
    name = "A.b-c_d." + "x" * 110
    identity = host.out("run", "-d", "--name", name, "-p", "8080:80", *SLEEP)
    assert "eth0" in host.run(["ip", "netns", "exec", name, "ip", "-o", "link"]).stdout
    label = f"{name[:100]} {identity[:12]}"
    assert label in host.run(["ip", "link", "show", f"mr{identity[:12]}"]).stdout
    assert label in host.run(["nft", "list", "table", "inet", "minirun"]).stdout
    assert label in host.run(["nft", "list", "table", "bridge", "minirun"]).stdout
