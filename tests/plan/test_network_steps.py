"""The network's part of a plan, as data: nothing here asks the kernel anything."""

from __future__ import annotations

import pytest

from minirun import step, strict_json
from minirun.doctor import firewall
from minirun.errors import InvalidDocument
from minirun.linux import nft
from minirun.network import attach, bridge, endpoint, nat, netns, ports
from minirun.network.addresses import Subnet
from minirun.network.network import Network, Pool

ID = "3f9a12ab34cd" + "0" * 52
NETWORK = Network("br0", "br0", [Pool(Subnet.parse("10.201.0.0/20"), "10.201.0.1")], "02:6d:0a:c9:00:01", 1500)


def plugs() -> list[endpoint.Endpoint]:
    return [endpoint.decide(NETWORK, ID, 0, ["10.201.0.2"])]


def steps() -> list[step.Step]:
    published = ports.parse("0.0.0.0:8080:80") + ports.parse("127.0.0.1:53:53/udp")
    return [*bridge.all_steps(NETWORK), *attach.attach_steps(ID, "web", plugs(), published)]


def test_the_order() -> None:
    assert [s.kind for s in steps()] == [
        "ruleset", "network", "forwarding", "bridge", "elements",
        "netns", "claims", "lease", "veth", "interface", "carrier", "names", "publish",
    ]  # fmt: skip
    assert [s.kind for s in attach.isolated_steps(ID, "web")] == ["netns", "interface"]
    without_ports = attach.attach_steps(ID, "web", plugs(), [])
    assert [s.kind for s in without_ports][-1] == "names"


def test_what_explain_shows() -> None:
    steps = attach.attach_steps(ID, "web", plugs(), ports.parse("0.0.0.0:8080:80"))
    shown = "\n".join(s.sh() for s in steps if s.kind not in ("lease", "names"))
    assert shown.replace(f"{netns.owner_tag(ID)}", "TAG").split("\n") == [
        "ip netns add web",
        "ip netns exec web sysctl -qew net.ipv6.conf.all.disable_ipv6='1'"
        " net.ipv4.ping_group_range='0 2147483647' net.ipv4.conf.lo.tag='TAG'",
        "nft add element bridge minirun claims4 "
        '\'{ "mr3f9a12ab34cd" . 02:6d:0a:c9:00:02 . 10.201.0.2 comment "web 3f9a12ab34cd" }\'',
        "nft add element bridge minirun claims4 "
        '\'{ "mr3f9a12ab34cd" . 02:6d:0a:c9:00:02 . 0.0.0.0 comment "web 3f9a12ab34cd" }\'',
        "ip link add mr3f9a12ab34cd mtu 1500 group 28018"
        " type veth peer name eth0 address 02:6d:0a:c9:00:02 mtu 1500 netns web",
        "sysctl -qew net.ipv6.conf.mr3f9a12ab34cd.disable_ipv6=1",
        "ip link set mr3f9a12ab34cd master br0 alias 'web 3f9a12ab34cd' up",
        "bridge link set dev mr3f9a12ab34cd hairpin on",
        "ip link set mr3f9a12ab34cd type bridge_slave group_fwd_mask 0xfffd",
        "ip -n web link set lo up",
        "ip -n web addr add 10.201.0.2/20 brd + dev eth0",
        "ip -n web link set eth0 up",
        "ip -n web route add default via 10.201.0.1 dev eth0 proto static",
        "ip link show mr3f9a12ab34cd > /dev/null  # reading it makes the port forward at once",
        "ip link show br0 > /dev/null",
        "nft add element inet minirun pub4_any '{ tcp . 8080 comment \"web 3f9a12ab34cd\" : 10.201.0.2 . 80 }'",
    ]


@pytest.mark.parametrize("number", range(13))
def test_a_step_survives_its_journal(number: int) -> None:
    before = steps()[number]
    after = step.load(strict_json.loads(strict_json.dumps(before.record())))
    assert type(after) is type(before)
    assert after.record() == before.record()
    assert after.sh() == before.sh()


def test_the_table_has_the_sets_of_the_rules() -> None:
    rules = open(nat.RULES).read()
    for name, (_, key, data) in nat.TABLE.sets.items():
        word = "typeof" if "@" in key else "type"
        declared = f"map {name} {{ {word} {key} : {data};" if data else f"set {name} {{ {word} {key};"
        assert declared in rules
    assert rules.count("\tset ") + rules.count("\tmap ") == len(nat.TABLE.sets)


def test_names_fit_the_kernel_however_long() -> None:
    assert len(endpoint.host_end(ID)) == 14
    label = attach.comment(ID, "n" * 128)
    assert label.endswith(ID[:12])
    assert len(nft.Element("bridges", ["br0"], [], label).comment) == len(label) < nft.MAX_COMMENT


@pytest.mark.parametrize("text", ['x" }\nadd table inet pwned\n#', "a\\", "t\ta\x7fb", "ümläut \u2028" + "ü" * 200])
def test_a_comment_never_leaves_its_quotes(text: str) -> None:
    comment = nft.Element("bridges", ["br0"], [], text).comment
    assert len(comment.encode()) < nft.MAX_COMMENT and comment.isprintable() and not set(comment) & {'"', "\\"}
    plain = "minirun network a/b (c) 'd'"
    assert nft.Element("bridges", ["br0"], [], plain).comment == plain


@pytest.mark.parametrize(
    ("name", "key", "data"),
    [
        ("bridges", ['br0" }\nadd table inet pwned\n#'], []),
        ("bridges", ["br0\n"], []),
        ("bridges", ["br0", "br1"], []),
        ("gateways4", ["10.0.0.1, 10.0.0.2"], []),
        ("gateways4", ["10.0.0.1 }\nadd table inet pwned\n#"], []),
        ("egress", ["br0"], ["accept }"]),
        ("pub4_any", ["tcp", "80"], ["10.0.0.1", "80;"]),
        ("pub4_any", ["tcp", 80], ["10.0.0.1", "80"]),
    ],
)
def test_a_field_that_would_be_more_than_one_is_not_written(name: str, key: list[str], data: list[str]) -> None:
    with pytest.raises(InvalidDocument, match="element of our firewall"):
        nat.TABLE.written(nft.Element(name, key, data, ""))


def test_names_are_written_in_quotes_as_they_may_be_words_of_nft() -> None:
    written = nat.TABLE.written(nft.Element("peering", ["drop", "br0~1"], ["accept"], "it's"))
    assert written == '"drop" . "br0~1" comment "it\'s" : accept'


@pytest.mark.parametrize(
    ("types", "values", "first", "last"),
    [
        ("inet_proto . inet_service", ["tcp", "8080"], "06000000 1f900000", "06000000 1f900000"),
        ("inet_proto . inet_service", ["udp", "80-90"], "11000000 00500000", "11000000 005a0000"),
        ("ipv4_addr . ipv4_addr", ["10.0.0.0/8", "10.1.2.3"], "0a000000 0a010203", "0affffff 0a010203"),
        ("ifname", ["br0"], "62723000" + "0" * 24, "62723000" + "0" * 24),
        ("ipv6_addr", ["fd00::/126"], "fd" + "0" * 30, "fd" + "0" * 29 + "3"),
    ],
)
def test_keys_as_the_kernel_holds_them(types: str, values: list[str], first: str, last: str) -> None:
    assert nft.pack(types, values) == (bytes.fromhex(first), bytes.fromhex(last))


@pytest.mark.parametrize(
    ("types", "values"),
    [
        ("ifname . ether_addr . ipv6_addr", ["mr1", "02:6d:0a:c9:00:01", "fd00::1"]),
        ("iifname . @th,64,128", ["mr1", "0xfd000000000000000000000000000001"]),
        ("ipv4_addr . inet_proto . inet_service", ["10.0.0.0/8", "udp", "80-90"]),
    ],
)
def test_doctor_reads_the_keys_of_the_kernel(types: str, values: list[str]) -> None:
    assert firewall.unpack(types, *nft.pack(types, values)) == values
