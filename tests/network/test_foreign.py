"""Other people's firewalls: what certainly stops our packets is named, and nothing else ever is."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.fakehost import FakeHost
from tests.network import rulesets
from tests.network.rulesets import chain

NFT, OLD = "iptables-nft", "iptables-legacy"
LOOK = """
import json, sys
from minirun.network import nat, network
from minirun.network.foreign import look
found = network.load(sys.argv[1])
ports = json.loads(sys.argv[2])
answer = {"any": nat.others_filter()}
for name, stops in (("forward", look.forward(found, ports)), ("names", look.names(found))):
    answer[name] = {str(stop): sorted(stop.what) for stop in stops}
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def place() -> Iterator[FakeHost]:
    """One host for all of these tests, with a network of each kind and nothing plugged in."""
    host = FakeHost(0)
    try:
        for options in (["br0"], ["six", "--ipv6"], ["inner", "--internal"]):
            host.minirun("network", "create", options[0], *options[1:])
        host.sysctl("net.bridge.bridge-nf-call-ip6tables", "0")
        yield host
    finally:
        host.close()


def clear(host: FakeHost) -> None:
    """Take all rules of others away."""
    host.run(["nft", "flush", "ruleset"])
    for program in ("iptables-legacy", "ip6tables-legacy"):
        host.run(["sh", "-c", f"{program} -P FORWARD ACCEPT; {program} -P INPUT ACCEPT; {program} -F; {program} -X"])


def look(host: FakeHost, rules: str, network: str = "br0", ports: str = "[]") -> dict[str, dict[str, list[str]]]:
    """What a look finds while these rules are there: nft's own syntax, or a script for the shell."""
    try:
        if rules.lstrip().startswith("table"):
            host.run(["nft", "-f", "-"], stdin=rules)
        else:
            host.run(["sh", "-ec", rules])
        answer: dict[str, dict[str, list[str]]] = json.loads(host.python(LOOK, network, ports))
        return answer
    finally:
        clear(host)


LEGACY_DROP = "ip filter FORWARD (policy drop, of iptables-legacy)"
NFT_DROP = "ip filter FORWARD (policy drop)"
OTHER = "inet other forward (policy drop)"
ANSWERS = "ct state established,related accept"
STOPS = {
    "policy": ("iptables-nft -P FORWARD DROP", NFT_DROP),
    "legacy policy": ("iptables-legacy -P FORWARD DROP", LEGACY_DROP),
    "docker": (rulesets.DOCKER.format(NFT), NFT_DROP),
    "docker, legacy": (rulesets.DOCKER.format(OLD), LEGACY_DROP),
    "ufw": (rulesets.UFW.format(NFT), NFT_DROP),
    "ufw, legacy": (rulesets.UFW.format(OLD), LEGACY_DROP),
    "firewalld": (rulesets.FIREWALLD, "inet firewalld filter_FORWARD"),
    "nft": (chain(""), OTHER),
    "a drop at the end": (chain("counter drop", "accept"), "inet other forward"),
    "legacy drop at the end": ("iptables-legacy -A FORWARD -j REJECT", "ip filter FORWARD (of iptables-legacy)"),
    "by family": (chain("", family="ip"), "ip other forward (policy drop)"),
    "accepts others": (chain('iifname { "docker0", "virbr0" } accept; oifname "docker*" accept'), OTHER),
    "accepts all but ours": (chain('iifname != "br0" accept'), OTHER),
    "accepts a port": (chain(f"tcp dport 443 accept; {ANSWERS}"), OTHER),
    "accepts at times": (chain("limit rate 3/minute accept; ct state established accept"), OTHER),
    "accepts other subnets": (chain(f"ip saddr {{ 10.0.0.0/9, 192.168.0.0/16 }} accept; {ANSWERS}"), OTHER),
    "drops the answers": (chain('iifname "br0" accept'), OTHER),
    "drops new ones": (chain("ct state new drop", "accept"), "inet other forward"),
    "by verdict map": (chain('iifname vmap { "br0" : drop, "eth0" : accept }', "accept"), "inet other forward"),
    "by the bridge's kind": (chain('meta iifkind "bridge" drop', "accept"), "inet other forward"),
}


@pytest.mark.parametrize("name", STOPS)
def test_what_stops_us_is_named(place: FakeHost, name: str) -> None:
    rules, where = STOPS[name]
    answer = look(place, rules)
    assert answer["forward"] == {where: ["out"]}
    assert answer["any"]


PASSES = {
    "nothing": "true",
    "libvirt": rulesets.LIBVIRT.format(NFT),
    "libvirt, legacy": rulesets.LIBVIRT.format(OLD),
    "an accepting policy": "iptables-nft -P FORWARD ACCEPT; iptables-legacy -P FORWARD ACCEPT",
    "docker, opened": rulesets.DOCKER.format(NFT)
    + "iptables-nft -I DOCKER-USER -i br0 -j ACCEPT; iptables-nft -I DOCKER-USER -o br0 -j ACCEPT",
    "docker, opened, legacy": rulesets.DOCKER.format(OLD)
    + "iptables-legacy -I DOCKER-USER -i br0 -j ACCEPT; iptables-legacy -I DOCKER-USER -o br0 -j ACCEPT",
    "ufw, opened": rulesets.UFW.format(NFT) + "iptables-nft -A ufw-user-forward -i br0 -j ACCEPT",
    "ufw, opened, legacy": rulesets.UFW.format(OLD) + "iptables-legacy -A ufw-user-forward -i br0 -j ACCEPT",
    "firewalld, trusted": rulesets.FIREWALLD_TRUSTED,
    "counts": chain("counter; iifname br0 counter; ct state new counter", "accept"),
    "drops others": chain('iifname "docker0" drop; ip saddr 203.0.113.0/24 drop; ct state invalid drop', "accept"),
    "drops a port": chain("tcp dport 25 drop; udp dport { 137, 138 } drop", "accept"),
    "drops some addresses": chain("ip daddr { 192.0.2.0/24, 203.0.113.7 } drop; ip saddr 10.201.0.9 drop", "accept"),
    "drops much": chain("limit rate over 1000/second drop; meta l4proto udp drop", "accept"),
    "our bridge": chain(f'iifname "br0" accept; {ANSWERS}'),
    "our bridge, both ways": chain('iifname "br0" accept; oifname "br0" accept'),
    "in a set": chain('iifname { "br0", "docker0" } accept; oifname { "br0", "docker0" } ct state established accept'),
    "in a map": chain('ct state vmap { established : accept }; iifname vmap { "br0" : accept }'),
    "in a jump": "table inet other {\n chain mine {\n iifname br0 accept\n }\n}\n"
    + chain(f"{ANSWERS}; meta l4proto tcp jump mine"),
    "by wildcard": chain(f'iifname "br*" accept; {ANSWERS}'),
    "by index": chain(f"iif br0 accept; {ANSWERS}"),
    "by kind": chain('meta iifkind "bridge" accept; meta oifkind "bridge" accept'),
    "by subnet": chain("ip saddr 10.201.0.0/16 accept; ip daddr 10.201.0.0/16 accept"),
    "by subnets": chain(f"ip saddr {{ 10.0.0.0/8, 192.168.0.0/16 }} accept; {ANSWERS}"),
    "by a negation": chain(f'iifname != "eth0" accept; {ANSWERS}'),
    "by uplink": chain(f'oifname "eth0" accept; {ANSWERS}'),
    "by a narrower rule for us": chain(f'iifname "br0" tcp dport {{ 80, 443 }} accept; {ANSWERS}'),
    "by concatenation": chain(f'iifname . oifname {{ "br0" . "eth0" }} accept; {ANSWERS}'),
    "by connection": chain("ct state new,established accept"),
    "by a mark, perhaps": chain(f"meta mark 7 accept; {ANSWERS}"),
    "by a match that is not known": "iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -m cpu --cpu 0 -j ACCEPT",
    "the same, legacy": "iptables-legacy -P FORWARD DROP; iptables-legacy -A FORWARD -m cpu --cpu 0 -j ACCEPT",
    "legacy subnet": "iptables-legacy -P FORWARD DROP; iptables-legacy -A FORWARD -s 10.201.0.0/16 -j ACCEPT;"
    "iptables-legacy -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT",
    "legacy negation": "iptables-legacy -P FORWARD DROP; iptables-legacy -A FORWARD ! -i eth0 -j ACCEPT;"
    "iptables-legacy -A FORWARD -m state --state ESTABLISHED,RELATED -j ACCEPT",
    "legacy goto": "iptables-legacy -P FORWARD DROP; iptables-legacy -N X; iptables-legacy -A X -i br+ -j ACCEPT;"
    "iptables-legacy -A X -o br0 -j ACCEPT; iptables-legacy -A FORWARD -p tcp -g X",
    "the other family": "ip6tables-nft -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP",
    "another hook": chain("").replace("hook forward", "hook output"),
    "no base chain": "table inet other {\n chain forward {\n drop\n }\n}\n",
}


@pytest.mark.parametrize("name", PASSES)
def test_what_lets_us_pass_or_may_raises_nothing(place: FakeHost, name: str) -> None:
    assert look(place, PASSES[name])["forward"] == {}


def test_a_host_without_other_firewalls_is_not_looked_at_closer(host: FakeHost) -> None:
    any_chain = "from minirun.network import nat; print(nat.others_filter())"
    assert host.python(any_chain) == "False\n"
    host.run(["iptables-nft", "-A", "INPUT", "-j", "DROP"])
    assert host.python(any_chain) == "False\n"
    host.run(["iptables-nft", "-A", "FORWARD", "-j", "DOCKER-USER"], check=False)
    host.run(["iptables-legacy", "-L"])
    assert host.python(any_chain) == "True\n"


def test_ipv6_is_looked_at_where_the_network_has_it(place: FakeHost) -> None:
    assert look(place, "ip6tables-nft -P FORWARD DROP", "six")["forward"] == {
        "ip6 filter FORWARD (policy drop)": ["out"]
    }
    old = {"ip6 filter FORWARD (policy drop, of iptables-legacy)": ["out"]}
    assert look(place, "ip6tables-legacy -P FORWARD DROP", "six")["forward"] == old
    assert (
        look(
            place,
            "ip6tables-legacy -P FORWARD DROP; ip6tables-legacy -A FORWARD -i six -j ACCEPT;"
            "ip6tables-legacy -A FORWARD -d fd00::/8 -j ACCEPT",
            "six",
        )["forward"]
        == {}
    )


def test_an_internal_network_sends_nothing_that_could_be_stopped(place: FakeHost) -> None:
    assert look(place, "iptables-nft -P FORWARD DROP", "inner")["forward"] == {}


def test_published_ports_have_another_way(place: FakeHost) -> None:
    ports = json.dumps([["tcp", 80]])
    assert look(place, "iptables-nft -P FORWARD DROP", ports=ports)["forward"] == {NFT_DROP: ["in", "out"]}
    assert look(place, rulesets.FIREWALLD, ports=ports)["forward"] == {"inet firewalld filter_FORWARD": ["out"]}
    only_out = f'iifname "br0" accept; {ANSWERS}'
    assert look(place, chain(only_out), ports=ports)["forward"] == {OTHER: ["in"]}
    for accept in ('oifname "br0" tcp dport 80 accept', "tcp dport { 80, 443 } accept", "ct status dnat accept"):
        assert look(place, chain(f"{only_out}; {accept}"), ports=ports)["forward"] == {}, accept
    assert look(place, chain(f"{only_out}; tcp dport 443 accept"), ports=ports)["forward"] == {OTHER: ["in"]}
    old = "iptables-legacy -P FORWARD DROP; iptables-legacy -A FORWARD -i br0 -j ACCEPT; iptables-legacy -A FORWARD "
    for accept in ("-p tcp --dport 80:90 -j ACCEPT", "-m conntrack --ctstate DNAT -j ACCEPT"):
        answers = "; iptables-legacy -A FORWARD -m state --state ESTABLISHED -j ACCEPT"
        assert look(place, old + accept + answers, ports=ports)["forward"] == {}, accept


def test_siblings_are_concerned_where_bridged_packets_pass_the_firewall(place: FakeHost) -> None:
    place.sysctl("net.bridge.bridge-nf-call-iptables", "1")
    try:
        answer = look(place, rulesets.DOCKER.format(NFT))
        assert answer["forward"] == {NFT_DROP: ["among", "out"]}
        uplink = f'oifname "eth0" accept; {ANSWERS}'
        assert look(place, chain(uplink))["forward"] == {OTHER: ["among"]}
        assert look(place, chain(f'{uplink}; iifname "br0" oifname "br0" accept'))["forward"] == {}
    finally:
        place.sysctl("net.bridge.bridge-nf-call-iptables", "0")


INPUTS = {
    "iptables-nft -P INPUT DROP": "ip filter INPUT (policy drop)",
    "iptables-legacy -P INPUT DROP": "ip filter INPUT (policy drop, of iptables-legacy)",
    rulesets.UFW.format(NFT): "ip filter INPUT (policy drop)",
    rulesets.UFW.format(OLD): "ip filter INPUT (policy drop, of iptables-legacy)",
    rulesets.FIREWALLD: "inet firewalld filter_INPUT",
    rulesets.UFW.format(NFT) + "iptables-nft -A ufw-user-input -p udp --dport 53 -j ACCEPT": "",
    rulesets.UFW.format(OLD) + "iptables-legacy -A ufw-user-input -i br0 -j ACCEPT": "",
    chain("udp dport 53 accept").replace("hook forward", "hook input"): "",
    "iptables-nft -P INPUT DROP; iptables-nft -A INPUT -d 10.201.0.1 -p udp --dport 53 -j ACCEPT": "",
}


@pytest.mark.parametrize("rules", INPUTS)
def test_what_keeps_containers_from_the_name_server_is_named(place: FakeHost, rules: str) -> None:
    assert look(place, rules)["names"] == ({INPUTS[rules]: ["names"]} if INPUTS[rules] else {})
