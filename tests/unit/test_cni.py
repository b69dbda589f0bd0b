"""What CNI says about documents: configurations, requests, results of each version, errors; without the kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirun import store
from minirun.network.cni import attachments, protocol
from minirun.network.cni.config import Config
from minirun.network.cni.protocol import CniError, Request
from minirun.network.cni.result import Result, previous, valid_attachments
from minirun.network.cni.wishes import Wishes

BASE: dict[str, Any] = {"cniVersion": "1.1.0", "name": "pods", "type": "minirun-cni"}
ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}
RANGE: dict[str, Any] = {"subnet": "10.9.0.0/24"}
WORDS = """
    cniVersion name type bridge mtu ipMasq portIsolation internal ipv6 names isDefaultGateway vlan dns
    nameservers search domain options ipam ranges subnet gateway rangeStart rangeEnd routes dst gw priority
    runtimeConfig portMappings hostPort containerPort protocol hostIP HostPort ips mac bandwidth ingressRate
    aliases pods ipRanges args cni prevResult interfaces address interface sandbox ip4 ip6 ip
    cni.dev/valid-attachments containerID ifname
"""
KEYS = WORDS.split()
IN = {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/c1"}


def config(**keys: Any) -> Config:
    return Config({**BASE, **keys})


def refused(code: int, **keys: Any) -> str:
    """The message for a configuration that must be refused."""
    with pytest.raises(CniError) as error:
        Wishes(config(**keys).document, {})
    assert error.value.code == code, error.value
    return error.value.message


def full() -> Result:
    result = Result()
    result.interfaces = [{"name": "pods", "mac": "02:00:00:00:00:00", "mtu": 1500}, {**IN, "mtu": 1500}]
    result.ips = [
        {"interface": 1, "address": "10.9.0.2/24", "gateway": "10.9.0.1"},
        {"interface": 1, "address": "fd00::2/64", "gateway": "fd00::1"},
    ]
    result.routes = [{"dst": "0.0.0.0/0", "gw": "10.9.0.1", "mtu": 1400}, {"dst": "::/0", "gw": "fd00::1"}]
    result.dns = {"nameservers": ["10.9.0.1"]}
    return result


def test_a_minimal_configuration_has_the_defaults_of_a_network_of_minirun() -> None:
    made = config()
    assert (made.pools, made.bridge, made.mtu, made.routes) == ([], "", 0, [])
    assert made.masquerade and made.default_route and not made.internal and not made.isolate and not made.ipv6


def test_a_configuration_for_the_reference_plugins_is_understood() -> None:
    made = config(
        bridge="cni0",
        isGateway=True,
        isDefaultGateway=False,
        forceAddress=False,
        ipMasq=False,
        mtu=1400,
        hairpinMode=True,
        promiscMode=False,
        vlan=0,
        dns={"nameservers": ["10.9.0.1"], "search": ["x"], "domain": "", "options": None},
        ipam={
            "type": "host-local",
            "dataDir": "/somewhere",
            "ranges": [
                [{**RANGE, "rangeStart": "10.9.0.10", "rangeEnd": "10.9.0.99", "gateway": "10.9.0.254"}],
                [{"subnet": "fd00:9::/64"}],
            ],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.1.2.3/8", "gw": "10.9.0.3", "mtu": 1300}],
        },
        args={"labels": {"x": "y"}},
        keyOfTheFuture=[1, 2],
    )
    assert (made.bridge, made.mtu, made.masquerade, made.default_route) == ("cni0", 1400, False, False)
    four, six = made.pools
    assert (str(four.subnet), four.gateway, str(four.range)) == ("10.9.0.0/24", "10.9.0.254", "10.9.0.10-10.9.0.99")
    assert (str(six.subnet), six.gateway, six.range) == ("fd00:9::/64", "fd00:9::1", None)
    assert made.routes == [{"dst": "0.0.0.0/0"}, {"dst": "10.0.0.0/8", "gw": "10.9.0.3", "mtu": 1300}]
    assert made.dns == {"nameservers": ["10.9.0.1"], "search": ["x"]}


def test_the_older_flat_keys_and_the_ranges_of_a_runtime_are_ranges() -> None:
    flat = config(ipam={"type": "host-local", "subnet": "10.9.0.0/24", "gateway": "10.9.0.9", "rangeEnd": "10.9.0.20"})
    assert [pool.record() for pool in flat.pools] == [
        {"subnet": "10.9.0.0/24", "gateway": "10.9.0.9", "range": "10.9.0.1-10.9.0.20"}
    ]
    dynamic = config(runtimeConfig={"ipRanges": [[RANGE]]})
    assert [str(pool.subnet) for pool in dynamic.pools] == ["10.9.0.0/24"]
    several = config(ipam={"ranges": [[RANGE, {"subnet": "10.9.1.0/24"}]]})
    assert [str(pool.subnet) for pool in several.pools] == ["10.9.0.0/24", "10.9.1.0/24"]


def test_the_default_route_is_there_unless_routes_are_named_or_it_is_refused() -> None:
    assert not config(ipam={"routes": [{"dst": "10.0.0.0/8"}]}).default_route
    assert config(ipam={"routes": [{"dst": "10.0.0.0/8"}]}, isDefaultGateway=True).default_route
    assert not config(isDefaultGateway=False).default_route
    assert not config(internal=True, isDefaultGateway=True).default_route


@pytest.mark.parametrize(
    "keys",
    [
        {"name": ""},
        {"name": None},
        {"name": "../x"},
        {"name": "a b"},
        {"name": "x" * 97},
        {"name": 5},
        {"bridge": "x" * 16},
        {"bridge": "a/b"},
        {"bridge": "all"},
        {"mtu": -1},
        {"mtu": "1500"},
        {"mtu": True},
        {"mtu": 1 << 16},
        {"ipMasq": "true"},
        {"ipam": []},
        {"ipam": {"subnet": "10.9.0.1/24"}},
        {"ipam": {"subnet": "10.9.0.0/31"}},
        {"ipam": {"subnet": "ten"}},
        {"ipam": {"ranges": [RANGE]}},
        {"ipam": {"ranges": [["x"]]}},
        {"ipam": {"ranges": [[{}]]}},
        {"ipam": {"ranges": [[{**RANGE, "gateway": "10.8.0.1"}]]}},
        {"ipam": {"ranges": [[{**RANGE, "gateway": "10.9.0.0"}]]}},
        {"ipam": {"ranges": [[{**RANGE, "gateway": "10.9.0.255"}]]}},
        {"ipam": {"ranges": [[{**RANGE, "gateway": "fd00::1"}]]}},
        {"ipam": {"ranges": [[{**RANGE, "rangeStart": "10.9.0.9", "rangeEnd": "10.9.0.8"}]]}},
        {"ipam": {"ranges": [[RANGE, {"subnet": "10.9.0.0/25"}]]}},
        {"ipam": {"ranges": [[RANGE, {"subnet": "fd00::/64"}]]}},
        {"ipam": {"routes": [{}]}},
        {"ipam": {"routes": [{"dst": "10.0.0.0"}]}},
        {"ipam": {"routes": [{"dst": "10.0.0.0/33"}]}},
        {"ipam": {"routes": [{"dst": "10.0.0.0/8", "gw": "fd00::1"}]}},
        {"dns": {"nameservers": ["localhost"]}},
        {"runtimeConfig": {"portMappings": [{"hostPort": 8080}]}},
        {"runtimeConfig": {"portMappings": [{"hostPort": 80800, "containerPort": 80}]}},
        {"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]}},
        {"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "x"}]}},
        {"runtimeConfig": {"mac": "02:00:00"}},
        {"runtimeConfig": {"mac": "01:00:00:00:00:01"}},
        {"runtimeConfig": {"mac": "00:00:00:00:00:00"}},
        {"runtimeConfig": {"ips": ["10.9.0.5", "10.9.0.6"]}},
        {"runtimeConfig": {"ips": "10.9.0.5"}},
        {"runtimeConfig": {"bandwidth": {"ingressRate": -5}}},
        {"runtimeConfig": 7},
    ],
)
def test_a_wrong_value_is_told_by_its_place(keys: dict[str, Any]) -> None:
    message = refused(protocol.BAD_CONFIG, **keys)
    last = ""
    while isinstance(keys, dict) and keys:
        last, keys = next(iter(keys.items()))
    assert last.split(".")[0] in message or "mac" in message or "ip" in message or "subnet" in message, message


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"ipam": {"type": "dhcp"}}, "ipam.type='dhcp'"),
        ({"vlan": 7}, "vlan=7"),
        (
            {"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "::1"}]}},
            "runtimeConfig.portMappings[0].hostIP='::1'",
        ),
        ({"disableContainerInterface": True}, "disableContainerInterface=True"),
        ({"ipam": {"ranges": [[RANGE], [{"subnet": "10.8.0.0/24"}]]}}, "ipam.ranges[1][0]"),
    ],
)
def test_what_a_network_of_ours_cannot_be_is_told_with_key_and_value(keys: dict[str, Any], said: str) -> None:
    assert said in refused(protocol.UNSUPPORTED_FIELD, **keys)


def test_versions() -> None:
    assert Config({"name": "pods"}).version == "0.1.0"
    refused(protocol.INCOMPATIBLE_VERSION, cniVersion="2.0.0")
    refused(protocol.NOT_DECODED, cniVersion=1)
    assert protocol.version_document({"cniVersion": "0.4.0"})["cniVersion"] == "0.4.0"
    told = protocol.version_document(None)
    assert told == {"cniVersion": "1.1.0", "supportedVersions": list(protocol.VERSIONS)}
    with pytest.raises(CniError) as error:
        Config([])
    assert error.value.code == protocol.NOT_DECODED


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"CNI_COMMAND": ""}, "CNI_COMMAND"),
        ({"CNI_COMMAND": "add"}, "CNI_COMMAND"),
        ({"CNI_CONTAINERID": ""}, "CNI_CONTAINERID"),
        ({"CNI_CONTAINERID": "", "CNI_NETNS": ""}, "CNI_CONTAINERID, CNI_NETNS"),
        ({"CNI_CONTAINERID": "-x"}, "CNI_CONTAINERID"),
        ({"CNI_CONTAINERID": "a/b"}, "CNI_CONTAINERID"),
        ({"CNI_COMMAND": "DEL", "CNI_IFNAME": ""}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "x" * 16}, "CNI_IFNAME"),
        ({"CNI_IFNAME": ".."}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "a:b"}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "a b"}, "CNI_IFNAME"),
        ({"CNI_ARGS": "IP"}, "CNI_ARGS"),
        ({"CNI_ARGS": "=x"}, "CNI_ARGS"),
    ],
)
def test_a_wrong_environment_is_told_by_its_names(changes: dict[str, str], said: str) -> None:
    with pytest.raises(CniError) as error:
        Request({**ENVIRONMENT, **changes})
    assert error.value.code == protocol.BAD_ENVIRONMENT and said in error.value.message


def test_a_good_environment() -> None:
    request = Request({**ENVIRONMENT, "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web=1;;"})
    assert (request.container, request.netns, request.interface) == ("c1", "/run/netns/c1", "eth0")
    assert request.arguments == {"IgnoreUnknown": "1", "K8S_POD_NAME": "web=1"}
    assert Request({**ENVIRONMENT, "CNI_COMMAND": "DEL", "CNI_NETNS": ""}).netns == ""
    for command in ("GC", "STATUS", "VERSION"):
        assert Request({"CNI_COMMAND": command}).command == command


def test_wishes_of_capabilities_come_before_args_and_those_before_cni_args() -> None:
    arguments = {"IP": "10.9.0.3", "MAC": "02:00:00:00:00:03", "K8S_POD_NAME": "web"}
    args = {"cni": {"ips": ["10.9.0.4/24"], "mac": "02-00-00-00-00-0A"}}
    runtime = {"ips": ["10.9.0.5/24", "fd00:0::5"], "mac": "02:00:00:00:00:05"}
    assert Wishes({}, arguments).addresses == ["10.9.0.3"]
    asked = Wishes({"args": args}, arguments)
    assert (asked.addresses, asked.mac, asked.name) == (["10.9.0.4"], "02:00:00:00:00:0a", "web")
    asked = Wishes({"args": args, "runtimeConfig": runtime}, arguments)
    assert (asked.addresses, asked.mac) == (["10.9.0.5", "fd00::5"], "02:00:00:00:00:05")


def test_wishes_of_a_runtime() -> None:
    runtime = {
        "portMappings": [
            {"hostPort": 8080, "containerPort": 80},
            {"hostPort": 0, "containerPort": 81},
            {"hostPort": 53, "containerPort": 54, "protocol": "UDP", "hostIP": "127.0.0.1"},
        ],
        "bandwidth": {"ingressRate": 1000, "egressRate": 2000, "ingressBurst": 5},
        "aliases": {"pods": ["db", "not a name"], "other": ["x"]},
        "dns": {"servers": ["192.0.2.53"], "searches": ["x"]},
        "cgroupPath": "/x",
    }
    asked = Wishes({"name": "pods", "runtimeConfig": runtime}, {})
    assert asked.ports == [("", 8080, 80, "tcp"), ("127.0.0.1", 53, 54, "udp")]
    assert (asked.rate_in, asked.rate_out, asked.aliases) == (1000, 2000, ["db"])
    assert asked.dns == {"nameservers": ["192.0.2.53"], "search": ["x"]}
    assert Wishes({"runtimeConfig": {"aliases": ["db"]}}, {}).aliases == ["db"]
    of_containerd = {"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}
    assert Wishes({"runtimeConfig": {"portMappings": [of_containerd]}}, {}).ports == [("", 8080, 80, "tcp")]
    assert Wishes({"ingressRate": 7}, {}).rate_in == 7


def test_unknown_cni_args_pass_only_if_they_may() -> None:
    with pytest.raises(CniError, match="IPP") as error:
        Wishes({}, {"IPP": "10.9.0.3"})
    assert error.value.code == protocol.BAD_ENVIRONMENT
    assert Wishes({}, {"IPP": "10.9.0.3", "IgnoreUnknown": "true"}).addresses == []


def test_a_result_in_the_form_of_each_version() -> None:
    newest = full().document("1.1.0")
    assert newest["cniVersion"] == "1.1.0" and newest["interfaces"][0]["mtu"] == 1500
    assert newest["routes"][0] == {"dst": "0.0.0.0/0", "gw": "10.9.0.1", "mtu": 1400}
    one = full().document("1.0.0")
    assert one["interfaces"] == [{"name": "pods", "mac": "02:00:00:00:00:00"}, IN]
    assert one["routes"][0] == {"dst": "0.0.0.0/0", "gw": "10.9.0.1"} and "version" not in one["ips"][0]
    for version in ("0.3.0", "0.3.1", "0.4.0"):
        ips = full().document(version)["ips"]
        assert [ip["version"] for ip in ips] == ["4", "6"] and ips[0]["interface"] == 1
    four = {"ip": "10.9.0.2/24", "gateway": "10.9.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}]}
    six = {"ip": "fd00::2/64", "gateway": "fd00::1", "routes": [{"dst": "::/0", "gw": "fd00::1"}]}
    old = full().document("0.2.0")
    assert old == {"cniVersion": "0.2.0", "ip4": four, "ip6": six, "dns": {"nameservers": ["10.9.0.1"]}}


@pytest.mark.parametrize("version", protocol.VERSIONS)
def test_what_is_written_in_a_version_is_read_again(version: str) -> None:
    told = full().document(version)
    again = previous({"prevResult": told})
    assert again and again.document(version) == told


def test_in_a_chain_ours_is_put_behind_and_theirs_is_kept() -> None:
    theirs = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "first0", "sandbox": "/x", "ofTheFuture": 1}],
        "ips": [{"address": "10.1.0.2/24", "interface": 0}],
        "routes": [{"dst": "10.0.0.0/8", "priority": 5}],
        "dns": {"nameservers": ["10.1.0.1"], "domain": "x"},
        "moreOfTheFuture": [7],
    }
    before = previous({"prevResult": theirs})
    assert before and before.document("1.1.0") == theirs
    both = full().behind(before).document("1.1.0")
    assert [one["name"] for one in both["interfaces"]] == ["first0", "pods", "eth0"]
    assert both["interfaces"][0] == theirs["interfaces"][0] and both["moreOfTheFuture"] == [7]
    assert [(ip["address"], ip["interface"]) for ip in both["ips"]] == [
        ("10.1.0.2/24", 0),
        ("10.9.0.2/24", 2),
        ("fd00::2/64", 2),
    ]
    assert [route["dst"] for route in both["routes"]] == ["10.0.0.0/8", "0.0.0.0/0", "::/0"]
    assert both["dns"] == {"nameservers": ["10.1.0.1", "10.9.0.1"], "domain": "x"}


@pytest.mark.parametrize(
    "told", [7, {"ips": {}}, {"ips": [{"address": "10.9.0.2/24", "interface": 1}]}, {"interfaces": ["x"]}, {"dns": []}]
)
def test_a_prevresult_that_is_none_is_refused(told: Any) -> None:
    with pytest.raises(CniError, match="prevResult") as error:
        previous({"prevResult": told})
    assert error.value.code == protocol.BAD_CONFIG


def test_attachments_that_are_valid() -> None:
    one = {"containerID": "c1", "ifname": "eth0"}
    assert valid_attachments({}) == set()
    assert valid_attachments({"cni.dev/valid-attachments": None}) == set()
    assert valid_attachments({"cni.dev/valid-attachments": [one]}) == {("c1", "eth0")}
    assert valid_attachments({"cni.dev/attachments": [one]}) == {("c1", "eth0")}
    with pytest.raises(CniError, match="valid-attachments"):
        valid_attachments({"cni.dev/valid-attachments": ["c1"]})


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(
        ["10.9.0.0/24", "fd00::/64", "10.9.0.1", "tcp", "eth0", "host-local", "1.1.0", "0.3.1", "02:00:00:00:00:01"]
    ),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), inner, max_size=6)
    ),
    max_leaves=25,
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=9), st.text(max_size=40))
def test_no_toldis_more_than_an_error(document: dict[str, Any], arguments: str) -> None:
    for told in (document, {**BASE, **document}):
        try:
            made = Config({**told})
            Wishes(made.document, protocol.parse_arguments(arguments))
            before = previous(made.document)
            (full().behind(before) if before else full()).document(made.version)
            valid_attachments(made.document)
        except CniError as error:
            assert error.message.isprintable() or "\\" in repr(error.message)


@pytest.mark.parametrize("name", ["web-1", "my_pod", "a.b-c.d", "a" * 63 + ".b"])
def test_the_name_of_a_pod_is_a_host_name(name: str) -> None:
    assert Wishes(BASE, {"K8S_POD_NAME": name}).name == name


@pytest.mark.parametrize("name", ["", 'x" }', "a\nport lo", "a b", "a" * 64, "a..b", "ü", "a." * 126 + "ab"])
def test_another_name_of_a_pod_is_none(name: str) -> None:
    assert Wishes(BASE, {"K8S_POD_NAME": name}).name == ""


def test_a_lock_is_dropped_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "state", str(tmp_path))
    with attachments.Lock("a" * 64) as first:
        first.drop()
        second = attachments.Lock("a" * 64)
    assert attachments.owners() == {"a" * 64}, "the second one's is still there"
    second.drop()
    os.close(second.descriptor)
    assert attachments.owners() == set()


@pytest.mark.parametrize(
    "keys",
    [
        {"ipam": {"routes": [{"dst": "10.0.0.0/8", "scope": 300}]}},
        {"ipam": {"routes": [{"dst": "10.0.0.0/" + "1" * 5000}]}},
        {"ipam": {"subnet": "10.0.0.0/" + "1" * 5000}},
        {"ipam": {"resolvConf": "/etc/\0"}},
        {"ipam": {"resolvConf": "/etc/\ud800"}},
    ],
)
def test_what_the_kernel_could_not_be_told_is_told_by_its_place(keys: dict[str, Any]) -> None:
    assert "ipam" in refused(7, **keys)


def test_prefixes_are_written_in_one_way() -> None:
    assert config(ipam={"routes": [{"dst": "10.0.0.0/08"}]}).routes == [{"dst": "10.0.0.0/8"}]


@pytest.mark.parametrize("key", ["name", "mac", "sandbox"])
def test_interfaces_of_a_result_say_texts(key: str) -> None:
    with pytest.raises(CniError, match="interfaces") as error:
        previous({"prevResult": {"interfaces": [{**IN, key: 5}]}})
    assert error.value.code == 7


@pytest.mark.parametrize(("name", "value"), [("IFNAME", "\udcff"), ("IFNAME", "ü" * 8), ("NETNS", "/run/\udcff")])
def test_names_that_are_no_text_are_refused(name: str, value: str) -> None:
    with pytest.raises(CniError, match=name) as error:
        Request({**ENVIRONMENT, f"CNI_{name}": value})
    assert error.value.code == 4
