"""The CNI plugin against the text of the specification: ADD, DEL, CHECK, GC, STATUS, VERSION on a fake host."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest

from tests.fakehost import FakeHost
from tests.network.plugin import Failed, Plugin, answer

DUAL = {"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd07::/64"}]]}}


@pytest.fixture
def plugin(host: FakeHost) -> Plugin:
    return Plugin(host)


def refused(code: int, call: Any, *arguments: Any, **keys: Any) -> str:
    with pytest.raises(Failed) as error:
        call(*arguments, **keys)
    assert error.value.code == code, error.value
    return error.value.text


def address(result: dict[str, Any], number: int = 0) -> str:
    return str(result["ips"][number]["address"]).partition("/")[0]


def pings(plugin: Plugin, name: str, target: str) -> bool:
    command = ["nsenter", f"--net=/run/netns/{name}", "ping", "-n", "-c1", "-W2", target]
    return plugin.host.run(command, check=False).returncode == 0


def test_version(plugin: Plugin) -> None:
    told = plugin.call("VERSION", interface="")
    assert told["cniVersion"] == "1.1.0" and {"0.3.1", "0.4.0", "1.0.0", "1.1.0"} <= set(told["supportedVersions"])
    assert answer(plugin.host.run(plugin.words("VERSION", interface=""), stdin=""))["cniVersion"] == "1.1.0"


def test_an_attachment_from_its_birth_to_its_end(plugin: Plugin) -> None:
    plugin.status()
    for name in ("one", "two"):
        plugin.namespace(name)
    one, two = plugin.add("one"), plugin.add("two", args="IgnoreUnknown=1;K8S_POD_NAME=web-1;K8S_POD_UID=7")
    bridge, port, inside = one["interfaces"]
    assert (bridge["name"], inside["name"], inside["sandbox"]) == ("pods", "eth0", "/run/netns/one")
    assert [ip["interface"] for ip in one["ips"]] == [2] and one["routes"] == [
        {"dst": "0.0.0.0/0", "gw": one["ips"][0]["gateway"]}
    ]
    link = json.loads(plugin.inside("one", "ip", "-j", "addr", "show", "eth0"))[0]
    assert (link["address"], link["mtu"], link["operstate"]) == (inside["mac"], inside["mtu"], "UP")
    assert [a["local"] for a in link["addr_info"]] == [address(one)], "no IPv6 where the network has none"
    on_host = json.loads(plugin.host.run(["ip", "-j", "link", "show", port["name"]]).stdout)[0]
    assert (on_host["address"], on_host["master"]) == (port["mac"], "pods")
    assert pings(plugin, "one", address(two)) and pings(plugin, "two", plugin.host.outside_address)
    for name, result in (("one", one), ("two", two)):
        plugin.check(name, result)
    plugin.status()
    listed = plugin.host.minirun("network", "ls", "-q").stdout.split()
    assert listed == ["pods"]
    refused = plugin.host.minirun("network", "rm", "-f", "pods", check=False).stderr
    assert "CNI attachments use it: one (eth0) two (eth0); let their runtime remove them" in refused
    shown = json.loads(plugin.host.minirun("network", "inspect", "pods").stdout)[0]
    assert set(shown["leases"]) == {address(one), address(two)}
    assert any(port["alias"].startswith("web-1 ") for port in shown["ports"])
    plugin.delete("one", prevResult=one)
    assert "eth0" not in plugin.inside("one", "ip", "-o", "link")
    plugin.check("two", two)
    plugin.delete("two")
    assert plugin.left() == []
    plugin.host.minirun("network", "rm", "pods")


def test_a_name_of_a_pod_that_is_a_program_for_nft(plugin: Plugin) -> None:
    plugin.namespace("one")
    name = 'x" : 10.0.0.1 . 1 }\nadd table inet pwned\n#'
    result = plugin.add("one", args=f"IgnoreUnknown=1;K8S_POD_NAME={name}")
    plugin.host.run(["nft", "flush", "ruleset"])
    plugin.host.minirun("network", "reload")
    assert "pwned" not in plugin.host.run(["nft", "list", "ruleset"]).stdout
    (lease,) = plugin.host.path(f"{plugin.host.state}/networks/pods/leases").iterdir()
    assert [line.partition(" ")[0] for line in lease.read_text().splitlines()[1:]] == ["port", "names", "alive"]
    plugin.check("one", result)
    plugin.delete("one")
    assert plugin.left() == []


def test_del_is_content_whatever_is_gone(plugin: Plugin) -> None:
    plugin.delete("never", prevResult=None)
    plugin.delete("never", netns="")
    for name in ("one", "two", "three", "four"):
        plugin.namespace(name)
        plugin.add(name)
    plugin.delete("one")
    plugin.delete("one")
    plugin.delete("two", netns="")
    plugin.host.run(["ip", "netns", "del", "three"])
    plugin.delete("three")
    plugin.delete("four", netns="/proc/1/ns/net")  # a number of a process that is another's by now
    assert plugin.left() == []
    plugin.add("four")
    plugin.delete("four", vlan=7, ipam={"type": "dhcp"}, args="nonsense")
    plugin.add("four")
    state = plugin.host.path(plugin.host.state)
    for path in (state / "cni/networks/pods").iterdir():  # somebody tidied up
        path.unlink()
    plugin.delete("four")
    assert plugin.left() == []


def test_after_a_reboot_nothing_is_remembered(plugin: Plugin) -> None:
    plugin.namespace("one")
    plugin.add("one")
    host = plugin.host
    for path in host.path(f"{host.state}/cni").glob("networks/pods/*.json"):
        path.write_text(path.read_text().replace(json.loads(path.read_text())["boot"].strip(), "another boot"))
    host.path(f"{host.state}/cni/boot").write_text("another boot\n")
    host.run(["sh", "-ec", "ip netns del one; ip link del pods; nft flush ruleset; nft delete table inet minirun || :"])
    plugin.namespace("two")
    result = plugin.add("two")
    assert pings(plugin, "two", host.outside_address)
    plugin.delete("one")
    plugin.check("two", result)
    plugin.delete("two")
    assert plugin.left() == []


def test_add_twice_and_add_to_a_name_that_is_taken(plugin: Plugin) -> None:
    plugin.namespace("one")
    result = plugin.add("one")
    assert "already" in refused(101, plugin.add, "one")
    assert "eth0" in refused(101, plugin.call, "ADD", "other", "eth0", "/run/netns/one")
    plugin.check("one", result)
    assert len(os.listdir(plugin.host.path(f"{plugin.host.state}/networks/pods/leases"))) == 1
    plugin.delete("other")
    plugin.check("one", result)


def test_where_the_namespace_is(plugin: Plugin) -> None:
    plugin.namespace("one")
    inside = ["nsenter", "--net=/run/netns/one", "sh", "-c", "echo; exec sleep 100"]
    keeper = plugin.host.popen(inside)
    assert keeper.stdout and keeper.stdout.readline() == "\n", "it has entered"
    path = f"/proc/{keeper.pid}/ns/net"
    plugin.host.run(["ip", "netns", "del", "one"])
    result = plugin.call("ADD", "one", "eth0", path)
    assert result["interfaces"][2]["sandbox"] == path
    plugin.call("CHECK", "one", "eth0", path, prevResult=result)
    keeper.kill()
    keeper.communicate()
    assert "prev" not in refused(3, plugin.call, "CHECK", "one", "eth0", path, prevResult=result)
    plugin.call("DEL", "one", "eth0", path)
    assert plugin.left() == []
    assert "/nowhere" in refused(3, plugin.call, "ADD", "x", "eth0", "/nowhere")
    assert "not a network namespace" in refused(4, plugin.call, "ADD", "x", "eth0", "/etc/passwd")
    assert "not a network namespace" in refused(4, plugin.call, "ADD", "x", "eth0", "/proc/self/ns/mnt")
    assert "host itself" in refused(4, plugin.call, "ADD", "x", "eth0", f"/proc/{plugin.host.pid}/ns/net")
    assert plugin.left() == []


def test_two_families(host: FakeHost) -> None:
    plugin = Plugin(host, **DUAL)
    for name in ("one", "two"):
        plugin.namespace(name)
    one, two = plugin.add("one"), plugin.add("two")
    assert [ip["address"] for ip in one["ips"]] == ["10.7.0.2/24", "fd07::2/64"]
    assert [route["dst"] for route in one["routes"]] == ["0.0.0.0/0", "::/0"]
    assert pings(plugin, "one", address(two)) and pings(plugin, "one", address(two, 1))
    plugin.check("one", one)
    assert [ip["version"] for ip in plugin_result(plugin, "0.4.0")["ips"]] == ["4", "6"]
    only6 = Plugin(host, name="six", ipam={"ranges": [[{"subnet": "fd08::/64"}]]})
    only6.namespace("six")
    told = only6.add("six")
    assert [ip["address"] for ip in told["ips"]] == ["fd08::2/64"]
    only6.check("six", told)
    assert pings(only6, "six", "fd08::1")
    for each, names in ((plugin, ("one", "two", "other")), (only6, ("six",))):
        for name in names:
            each.delete(name)
    assert plugin.left() == []


def plugin_result(plugin: Plugin, version: str) -> dict[str, Any]:
    plugin.namespace("other")
    return plugin.add("other", cniVersion=version)


def test_several_networks_of_one_container(host: FakeHost) -> None:
    first, second = (
        Plugin(host),
        Plugin(host, name="second", ipam={"routes": [{"dst": "10.99.0.0/16"}, {"dst": "0.0.0.0/0"}]}),
    )
    first.namespace("one")
    one, two = first.add("one"), second.add("one", "net1")
    routes = first.inside("one", "ip", "route").splitlines()
    assert [line for line in routes if line.startswith("default")] == [
        f"default via {one['ips'][0]['gateway']} dev eth0 proto static "
    ], "the first one wins"
    assert two["routes"] == [{"dst": "10.99.0.0/16", "gw": two["ips"][0]["gateway"]}]
    assert any(line.startswith(f"10.99.0.0/16 via {two['ips'][0]['gateway']} dev net1") for line in routes)
    again = first.add("one", "strange.name-7")
    assert again["interfaces"][2]["name"] == "strange.name-7"
    first.check("one", one)
    second.check("one", two, "net1")
    first.check("one", again, "strange.name-7")
    first.delete("one")
    second.check("one", two, "net1")
    second.delete("one", "net1")
    first.delete("one", "strange.name-7")
    assert first.left() == []


def test_a_chain(plugin: Plugin) -> None:
    """What was before us is kept; a result for no interface of ours is passed through."""
    plugin.namespace("one")
    before = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "dummy0"}],
        "ips": [{"address": "192.0.2.77/24", "interface": 0}],
        "dns": {"nameservers": ["192.0.2.53"]},
    }
    result = plugin.add("one", prevResult=before)
    assert [one["name"] for one in result["interfaces"]][::3] == ["dummy0", "eth0"]
    assert [ip["interface"] for ip in result["ips"]] == [0, 3] and result["dns"] == before["dns"]
    plugin.check("one", result)
    changed = {**result, "routes": [*result["routes"], {"dst": "192.0.2.128/25"}]}
    plugin.check("one", changed)  # a later plugin's route: not ours to miss
    plugin.delete("one", prevResult=result)
    assert plugin.left() == []


FAULTS = {
    "nsenter --net=/run/netns/one ip link set eth0 down": "eth0 is down",
    "nsenter --net=/run/netns/one ip addr flush dev eth0": "lacks the address",
    "nsenter --net=/run/netns/one ip route del default": "route to 0.0.0.0/0",
    "nsenter --net=/run/netns/one ip link set eth0 address 02:00:00:00:00:09": "MAC",
    "nsenter --net=/run/netns/one ip link set eth0 name eth9": "no interface eth0",
    "ip link del $PORT": "cable",
    "ip link set $PORT down": "is down",
    "ip link set $PORT nomaster": "not plugged into pods",
    "ip link set pods down": "bridge",
    "ip link del pods": "bridge",
    "rm /run/minirun/networks/pods/leases/*": "lease",
    "nft flush map inet minirun pub4_any": "elements",
    "nft flush set bridge minirun claims4": "elements",
    "nft delete table inet minirun": "elements",
    "ip netns del one; ip netns add one": "another namespace",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_check_sees(plugin: Plugin, fault: str) -> None:
    plugin.namespace("one")
    published = {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}
    result = plugin.add("one", runtimeConfig=published)
    plugin.check("one", result, runtimeConfig=published)
    plugin.host.run(["sh", "-ec", fault.replace("$PORT", result["interfaces"][1]["name"])])
    with pytest.raises(Failed) as error:
        plugin.check("one", result, runtimeConfig=published)
    assert error.value.code == 102 and FAULTS[fault] in error.value.text, error.value
    plugin.delete("one")
    assert plugin.left() == []


def test_check_of_what_was_never_added(plugin: Plugin) -> None:
    plugin.namespace("one")
    nothing = {"cniVersion": "1.1.0", "interfaces": [], "ips": []}
    assert "not attached" in refused(3, plugin.check, "one", nothing)
    assert "prevResult" in refused(7, plugin.call, "CHECK", "one", "eth0", "/run/netns/one")
    assert "0.4.0" in refused(1, plugin.check, "one", nothing, cniVersion="0.3.1")


def test_gc_removes_what_is_not_valid_and_nothing_else(host: FakeHost) -> None:
    plugin, other = Plugin(host), Plugin(host, name="other")
    published = {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}
    for name in ("kept", "stale", "vanished", "lost", "foreign"):
        plugin.namespace(name)
    kept, foreign = plugin.add("kept"), other.add("foreign")
    plugin.add("stale", runtimeConfig=published)
    second = plugin.add("kept", "net1")
    for name in ("vanished", "lost"):
        plugin.add(name)
    host.run(["ip", "netns", "del", "vanished"])
    records = host.path(f"{host.state}/cni/networks/pods")
    for path in records.iterdir():  # one whose record is lost: its lease, cable and element tell whose they are
        if json.loads(path.read_text())["container"] == "lost":
            path.unlink()
    container = "c" * 64
    code = (
        "import sys; from minirun.network import ipam, network; from minirun import store;"
        "store.directory(store.root, 'containers', sys.argv[1]);"
        "print(ipam.allocate(network.load('pods'), sys.argv[1], ['names x']))"
    )
    lease = host.python(code, container).strip()
    plugin.collect(("kept", "eth0"), ("kept", "net1"), ("unknown", "eth0"))
    plugin.check("kept", kept)
    plugin.check("kept", second, "net1")
    other.check("foreign", foreign)
    held = json.loads(host.minirun("network", "inspect", "pods").stdout)[0]["leases"]
    assert set(held) == {address(kept), address(second), lease} and held[lease] == container
    refused(3, plugin.check, "stale", kept)
    assert "8080" not in host.run(["nft", "list", "map", "inet", "minirun", "pub4_any"]).stdout
    plugin.collect()
    refused(3, plugin.check, "kept", kept)
    other.check("foreign", foreign)
    host.run(["rm", f"{host.state}/networks/pods/leases/{lease}"])
    other.collect(**{"cni.dev/valid-attachments": None})
    assert plugin.left() == []
    plugin.collect()
    assert "1.1.0" in refused(1, plugin.collect, cniVersion="1.0.0")


def test_gc_finds_cables_when_all_else_is_lost(host: FakeHost) -> None:
    plugin, other = Plugin(host, **DUAL), Plugin(host, name="other")
    for name in ("kept", "lost", "foreign"):
        plugin.namespace(name)
    foreign = other.add("foreign")
    kept = plugin.add("kept")
    plugin.add("lost")
    host.run(["sh", "-ec", f"rm -r {host.state}/cni/networks/pods {host.state}/networks/pods"])
    plugin.collect(("kept", "eth0"))
    assert "eth0" not in plugin.inside("lost", "ip", "-o", "link")
    assert pings(plugin, "kept", "10.7.0.1")
    other.check("foreign", foreign)
    left = plugin.left()
    assert {port for port in left if port.startswith("mr")} == {
        kept["interfaces"][1]["name"],
        foreign["interfaces"][1]["name"],
    }
    other.delete("foreign")
    plugin.collect()
    assert plugin.left() == []


def test_what_somebody_flushed_is_put_back(plugin: Plugin) -> None:
    plugin.namespace("one")
    published = {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}
    result = plugin.add("one", runtimeConfig=published)
    plugin.host.run(["nft", "flush", "ruleset"])
    refused(102, plugin.check, "one", result)
    assert "lacks its elements" in refused(51, plugin.status)
    plugin.namespace("two")
    plugin.add("two")
    plugin.check("one", result)
    assert plugin.host.minirun("doctor", "--leaks").returncode == 0, "an attachment is no leak"
    plugin.host.run(["nft", "flush", "ruleset"])
    plugin.host.minirun("network", "reload")
    plugin.check("one", result)
    for name in ("one", "two"):
        plugin.delete(name)
    assert plugin.left() == []


def test_status(host: FakeHost) -> None:
    small = Plugin(host, name="small", ipam={"ranges": [[{"subnet": "10.7.0.0/29", "rangeStart": "10.7.0.5"}]]})
    small.status()
    assert host.minirun("network", "ls", "-q").stdout == "", "STATUS makes nothing"
    for name in ("one", "two"):
        small.namespace(name)
    held = {name: address(small.add(name)) for name in ("one", "two")}
    assert set(held.values()) == {"10.7.0.5", "10.7.0.6"}
    assert "no free address" in refused(50, small.status)
    small.namespace("three")
    assert "no free address" in refused(101, small.add, "three")
    small.delete("one")
    small.status()
    host.run(["ip", "link", "del", "small"])
    assert "bridge" in refused(51, small.status)
    host.run(["sh", "-ec", "ip link add small type bridge; ip link set small up"])
    assert "not a network of minirun" in refused(50, small.status)
    host.run(["ip", "link", "del", "small"])
    assert address(small.add("three")) == held["one"]
    for name in ("two", "three"):
        small.delete(name)
    host.run(["ip", "link", "add", "taken", "type", "bridge"])
    assert "taken" in refused(50, Plugin(host, bridge="taken", name="n2").status)
    routed = Plugin(host, name="n3", ipam={"subnet": "192.0.2.0/24"})
    assert "route" in refused(50, routed.status)
    assert "1.1.0" in refused(1, small.status, cniVersion="1.0.0")
    assert small.left() == []


def test_names_that_minirun_could_not_use(host: FakeHost) -> None:
    long = Plugin(host, name="a-network.with_a-name-as-kubernetes-likes-them-0123456789")
    word = Plugin(host, name="bridge", bridge="cni0")
    for name in ("one", "two"):
        long.namespace(name)
    one, two = long.add("one"), word.add("two")
    assert re.fullmatch(r"a-networ-[0-9a-f]{6}", one["interfaces"][0]["name"])
    assert two["interfaces"][0]["name"] == "cni0"
    listed = host.minirun("network", "ls", "-q").stdout.split()
    assert listed == [long.config["name"], "cni-bridge"]
    long.check("one", one)
    word.check("two", two)
    assert not pings(long, "one", address(two)), "networks are isolated"
    long.delete("one")
    word.delete("two")
    host.minirun("network", "rm", *listed)


@pytest.mark.parametrize("name", ["locks", "boot", "networks"])
def test_names_that_we_use_ourselves(host: FakeHost, name: str) -> None:
    plugin = Plugin(host, name=name)
    for other in ("one", "two"):
        plugin.namespace(other)
    one = plugin.add("one")
    host.minirun("ps")
    plugin.check("one", one)
    two = plugin.add("two")
    assert address(one) != address(two)
    for other in ("one", "two"):
        plugin.delete(other)
    assert plugin.left() == []


def test_gc_looks_for_cables_before_it_reads_the_records(plugin: Plugin) -> None:
    """Else what begins in between would have a cable and no record."""
    plugin.namespace("one")
    result = plugin.add("one")
    words = plugin.words("GC", interface="")
    traced = [*words[:-1], "strace", "--trace=openat,write", "--output=/run/trace", words[-1]]
    valid = {"cni.dev/valid-attachments": [{"containerID": "one", "ifname": "eth0"}]}
    plugin.host.run(traced, stdin=plugin.document(**valid))
    lines = plugin.host.path("/run/trace").read_text().splitlines()
    cables = max(n for n, line in enumerate(lines) if r" \0\0\0\22\0\5\3" in line)  # RTM_GETLINK, NLM_F_DUMP
    records = max(n for n, line in enumerate(lines) if '/cni/networks/pods"' in line)
    assert cables < records
    plugin.check("one", result)
    plugin.delete("one")


def test_a_configuration_that_changes(plugin: Plugin) -> None:
    plugin.namespace("one")
    plugin.add("one")
    other = {"ipam": {"subnet": "10.7.0.0/24"}}
    assert "its subnets are" in refused(7, plugin.add, "two", **other) if plugin.namespace("two") else False
    plugin.delete("one")
    assert address(plugin.add("two", **other)) == "10.7.0.2", "nobody used it: it is made anew"
    plugin.delete("two", **other)


def test_a_range_that_changes_is_the_next_one_s(host: FakeHost) -> None:
    ranges = [{"rangeEnd": "10.7.0.9"}, {"rangeStart": "10.7.0.20", "rangeEnd": "10.7.0.21"}, {}]
    changed = [{"ipam": {"ranges": [[{"subnet": "10.7.0.0/24", **each}]]}, "ipv6": True} for each in ranges]
    plugin = Plugin(host)
    for name in ("one", "two", "three", "four", "five"):
        plugin.namespace(name)
    one = plugin.add("one", **changed[0])
    assert [address(plugin.add(name, **changed[1])) for name in ("two", "three")] == ["10.7.0.20", "10.7.0.21"]
    assert "no free address" in refused(101, plugin.add, "four", **changed[1])
    assert "no free address" in refused(50, plugin.status, **changed[1])
    plugin.status(**changed[2])
    plugin.add("four", **changed[2])
    plugin.check("one", one, **changed[1])
    refused_meanwhile = {"mtu": 1400, "ipv6": False, "bridge": "cni0", "isolate": True, "internal": True}
    for key, value in refused_meanwhile.items():
        refused(7, plugin.add, "five", **{**changed[2], key: value})
    for name in ("one", "two", "three", "four"):
        plugin.delete(name)
    anew = plugin.add("five", **{**changed[2], "mtu": 1400, "ipv6": False})
    assert anew["interfaces"][2]["mtu"] == 1400 and len(anew["ips"]) == 1
    plugin.delete("five")
    assert plugin.left() == []


def test_a_network_of_minirun_is_joined(plugin: Plugin) -> None:
    plugin.host.minirun("network", "create", "--subnet", "10.7.0.0/24", "pods")
    plugin.namespace("one")
    other = {"ipam": {"subnet": "10.7.0.0/24", "rangeStart": "10.7.0.9"}}
    assert "another range" in refused(7, plugin.add, "one", **other)
    assert address(plugin.add("one")) == "10.7.0.2"
    assert "its bridge is pods" in refused(7, plugin.status, bridge="cni0")
    assert "its MTU" in refused(7, plugin.status, mtu=1400)
    assert "no IPv6" in refused(7, plugin.status, ipv6=True)
    assert "in use" in plugin.host.minirun("network", "rm", "pods", check=False).stderr or True
    plugin.delete("one")
    plugin.host.minirun("network", "rm", "pods")


def test_addresses_and_mac_that_are_asked_for(host: FakeHost) -> None:
    plugin = Plugin(host, **DUAL)
    for name in ("one", "two", "three"):
        plugin.namespace(name)
    asked = {"ips": ["10.7.0.77/24", "fd07::77"], "mac": "02:11:22:33:44:55"}
    result = plugin.add("one", runtimeConfig=asked)
    assert [ip["address"] for ip in result["ips"]] == ["10.7.0.77/24", "fd07::77/64"]
    assert result["interfaces"][2]["mac"] == "02:11:22:33:44:55"
    plugin.check("one", result)
    assert pings(plugin, "one", host.outside_address), "the firewall knows the MAC"
    assert "10.7.0.77" in refused(101, plugin.add, "two", args="IP=10.7.0.77")
    assert "10.8.0.1" in refused(7, plugin.add, "two", args="IP=10.8.0.1")
    assert address(plugin.add("two", args="IP=10.7.0.78;MAC=02:11:22:33:44:56")) == "10.7.0.78"
    for name in ("one", "two"):
        plugin.delete(name)
    assert plugin.left() == []


def test_more_than_a_bridge_can_hold(host: FakeHost) -> None:
    plugin = Plugin(host, ipam={"subnet": "10.7.0.0/16"})
    for name in ("one", "two"):
        plugin.namespace(name)
    one, two = plugin.add("one"), plugin.add("two", args="IP=10.7.9.1")
    assert one["interfaces"][0]["name"] == "pods" != two["interfaces"][0]["name"]
    assert pings(plugin, "two", address(one)) and pings(plugin, "two", host.outside_address)
    plugin.check("two", two)
    plugin.status()
    host.run(["ip", "link", "set", two["interfaces"][1]["name"], "nomaster"])
    assert "not plugged into" in refused(102, plugin.check, "two", two)
    plugin.collect()
    assert plugin.left() == []


def test_bandwidth(plugin: Plugin) -> None:
    plugin.namespace("one")
    limits = {"bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 1, "egressRate": 4_000_000, "egressBurst": 1}}
    result = plugin.add("one", runtimeConfig=limits)
    port = result["interfaces"][1]["name"]
    shown = plugin.host.run(["tc", "qdisc", "show"]).stdout
    assert f"dev {port} root" in shown and "rate 8Mbit" in shown and "rate 4Mbit" in shown, shown
    plugin.check("one", result, runtimeConfig=limits)
    assert pings(plugin, "one", plugin.host.outside_address)
    plugin.host.run(["tc", "qdisc", "del", "dev", port, "root"])
    assert "no limit" in refused(102, plugin.check, "one", result, runtimeConfig=limits)
    plugin.collect()
    plugin.add("one", ingressRate=8_000_000)  # beside type, as for the plugin of that name
    assert "rate 8Mbit" in plugin.host.run(["tc", "qdisc", "show"]).stdout
    plugin.delete("one")
    assert plugin.left() == []


def test_published_ports(plugin: Plugin) -> None:
    host = plugin.host
    for name in ("one", "two"):
        plugin.namespace(name)
    published = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
    plugin.add("one", runtimeConfig=published)
    server = host.popen(["nsenter", "--net=/run/netns/one", "busybox", "nc", "-ll", "-p", "80", "-e", "echo", "one"])
    host.wait_until("nsenter --net=/run/netns/one ss -ltn | grep -q :80")
    for client in (host.outside, host):
        assert client.run(["busybox", "nc", "-w", "5", host.address, "8080"]).stdout == "one\n"
    assert "8080" in refused(101, plugin.add, "two", runtimeConfig=published)
    assert "eth0" not in plugin.inside("two", "ip", "-o", "link"), "a failed ADD leaves nothing"
    server.kill()
    server.communicate()
    plugin.delete("one", runtimeConfig=published)
    assert plugin.left() == []
    plugin.add("two", runtimeConfig=published)
    plugin.delete("two", runtimeConfig=published)
    assert plugin.left() == []


def test_no_masquerade(host: FakeHost) -> None:
    plugin = Plugin(host, ipMasq=False)
    plugin.namespace("one")
    result = plugin.add("one")
    assert not pings(plugin, "one", host.outside_address), "outside knows no way back to our subnet"
    assert pings(plugin, "one", host.neighbour_address), "the neighbour does"
    assert host.lan.run(["ping", "-n", "-c1", "-W2", address(result)], check=False).returncode == 0, "and may come in"
    other = Plugin(host, name="other")
    other.namespace("two")
    other.add("two")
    assert not pings(other, "two", address(result)), "another network may not"
    assert "host's address" in refused(7, plugin.status, ipMasq=True)
    plugin.delete("one")
    other.delete("two")


def test_many_at_once(plugin: Plugin) -> None:
    count = 24
    for number in range(count):
        plugin.namespace(f"n{number}")
    host = plugin.host
    started = [
        host.popen(
            [
                "sh",
                "-c",
                'echo "$0" | "$@"',
                plugin.document(),
                *plugin.words("ADD", f"n{n}", "eth0", f"/run/netns/n{n}"),
            ]
        )
        for n in range(count)
    ]
    found = []
    for process in started:
        output, errors = process.communicate(timeout=60)
        found.append(json.loads(output))
        assert process.returncode == 0, (output, errors)
    assert len({address(result) for result in found}) == count
    for number, result in enumerate(found):
        plugin.check(f"n{number}", result)
    plugin.collect(*((f"n{number}", "eth0") for number in range(0, count, 2)))
    assert len(os.listdir(host.path(f"{host.state}/networks/pods/leases"))) == count // 2
    plugin.collect()
    assert plugin.left() == []


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"cniVersion": "1.1.0"', '{"name": "a", "name": "b"}', "\0"])
def test_what_is_not_json(plugin: Plugin, text: str) -> None:
    words = plugin.words("ADD", "one", "eth0", "/run/netns/one")
    with pytest.raises(Failed) as error:
        answer(plugin.host.run(words, check=False, stdin=text))
    assert error.value.code == 6
