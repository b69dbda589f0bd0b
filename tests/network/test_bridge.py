"""Networks: made at first use, made again after a reboot, never in a stranger's place, removed without a trace."""

from __future__ import annotations

import json

import pytest

from tests.fakehost import FakeHost
from tests.network.containers import Attached, at_once, identity

CALL = """
import json, sys
from minirun.errors import MinirunError
from minirun.network import bridge, creation, network
try:
    function, arguments = sys.argv[1], sys.argv[2:]
    if function == "create":
        wanted = creation.Wanted(arguments[0])
        wanted.subnets = arguments[1:]
        arguments = [wanted]
    found = list(network.listing()) if function == "listing" else getattr(bridge, function)(*arguments)
    if isinstance(found, list):
        found = [each.record() for each in found]
    print(json.dumps(found.record() if isinstance(found, network.Network) else found))
except MinirunError as error:
    print(json.dumps(f"{type(error).__name__}: {error}"))
"""


def call(host: FakeHost, function: str, *arguments: str) -> object:
    """What a function of minirun.network.bridge returns on this host, or the error as text."""
    return json.loads(host.python(CALL, function, *arguments))


def subnet(host: FakeHost, function: str, *arguments: str) -> str:
    result = call(host, function, *arguments)
    assert isinstance(result, dict), result
    return str(result["subnets"][0]["subnet"])


def test_the_default_network_is_the_lectures(host: FakeHost) -> None:
    network = call(host, "ensure")
    assert isinstance(network, dict)
    assert (network["name"], network["subnets"]) == ("br0", [{"subnet": "10.201.0.0/20", "gateway": "10.201.0.1"}])
    assert network["set_ip_forward"] is True
    assert host.sysctl("net.ipv4.ip_forward") == "1"
    link = json.loads(host.run(["ip", "-j", "-d", "address", "show", "br0"]).stdout)[0]
    assert "UP" in link["flags"]
    assert (link["ifalias"], link["address"]) == ("minirun network br0", network["mac"])
    assert [(a["family"], a["local"]) for a in link["addr_info"]] == [("inet", "10.201.0.1")]
    assert call(host, "ensure", "br0") == network


def test_after_a_reboot_the_same_network_comes_back(host: FakeHost) -> None:
    before = call(host, "create", "lab", "10.77.0.0/24")
    host.run(["ip", "link", "del", "lab"])
    host.run(["nft", "flush", "ruleset"])
    host.run(["rm", "-r", host.state])
    host.sysctl("net.ipv4.ip_forward", "0")
    assert call(host, "ensure", "lab") == before
    assert "10.77.0.1/24" in host.run(["ip", "address", "show", "lab"]).stdout
    assert '"lab" comment "minirun network lab"' in host.run(["nft", "list", "table", "inet", "minirun"]).stdout
    assert host.sysctl("net.ipv4.ip_forward") == "1"


def test_a_bridge_that_was_switched_off_is_switched_on(host: FakeHost) -> None:
    call(host, "ensure", "br0")
    host.run(["ip", "link", "set", "br0", "down"])
    call(host, "ensure", "br0")
    assert "10.201.0.1/20" in host.run(["ip", "address", "show", "br0", "up"]).stdout


def link(host: FakeHost, name: str) -> dict[str, object]:
    found = json.loads(host.run(["ip", "-j", "link", "show", name]).stdout)[0]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("made", ["command", "script"])
@pytest.mark.parametrize("mtu", [600, 1400, 1500, 9000])
def test_the_mtu_stays_whoever_comes_and_goes(host: FakeHost, mtu: int, made: str) -> None:
    """A bridge takes its MTU from its ports, unless it was set; and one that had less than 1280 got IPv6 anew."""
    create = ["network", "create", "--mtu", str(mtu), "--interface-name", "lan", "lab"]
    if made == "command":
        host.minirun(*create)
    else:
        host.run(["sh", "-e"], stdin=host.minirun("explain", *create).stdout)
    far = f"{subnet(host, 'ensure', 'lab').rpartition('.')[0].rpartition('.')[0]}.20.10"  # on a member bridge
    for address in ("", far):
        web = Attached(host, "web", "lab", address=address)
        assert link(host, f"mr{web.id[:12]}")["mtu"] == mtu
        web.undo()
        assert has_no_ipv6(host, "lan")
        assert link(host, "lan")["mtu"] == mtu
    assert link(host, "lan~1")["mtu"] == mtu
    assert has_no_ipv6(host, "lan~1")
    host.run(["sh", "-ec", "ip link set lan mtu 1300; ip link set lan~1 mtu 1300"])
    said = host.minirun("network", "reload").stdout
    assert f"lab: MTU 1300 set to {mtu}\nlab: MTU 1300 of lan~1 set to {mtu}\n" in said
    host.run(["ip", "link", "set", "lan", "mtu", "1290"])
    call(host, "ensure", "lab")
    assert (link(host, "lan")["mtu"], link(host, "lan~1")["mtu"]) == (mtu, mtu)
    assert has_no_ipv6(host, "lan")


def has_no_ipv6(host: FakeHost, name: str) -> bool:
    """Whether IPv6 is switched off on a link, or it has none."""
    file = f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6"
    return host.run(["sh", "-ec", f"[ ! -e {file} ] || cat {file}"]).stdout in ("", "1\n")


def test_a_death_between_creation_and_alias_is_no_obstacle(host: FakeHost) -> None:
    call(host, "create", "lab")
    host.run(["ip", "link", "set", "lab", "alias", ""])
    host.run(["ip", "link", "set", "lab", "down"])
    assert isinstance(call(host, "ensure", "lab"), dict)
    assert "alias minirun network lab" in host.run(["ip", "link", "show", "lab"]).stdout


def test_a_foreign_bridge_is_refused_and_not_touched(host: FakeHost) -> None:
    host.run(["ip", "link", "add", "br0", "type", "bridge"])
    before = host.run(["ip", "-d", "link", "show", "br0"]).stdout
    for function in ("ensure", "create"):
        assert call(host, function, "br0") == (
            "Conflict: interface br0: it exists and is not a network of minirun; "
            "choose another name, or remove it with: ip link del br0"
        )
    assert host.run(["ip", "-d", "link", "show", "br0"]).stdout == before
    assert call(host, "listing") == []
    assert host.run(["nft", "list", "ruleset"]).stdout == ""


def test_a_foreign_bridge_in_the_place_of_ours_is_refused(host: FakeHost) -> None:
    call(host, "ensure", "br0")
    host.run(["ip", "link", "del", "br0"])
    host.run(["ip", "link", "add", "br0", "type", "bridge"])
    host.run(["ip", "link", "set", "br0", "up"])
    assert str(call(host, "ensure", "br0")).startswith("Conflict: interface br0: it exists")
    host.run(["ip", "link", "set", "br0", "down"])
    assert str(call(host, "ensure", "br0")).startswith("Conflict: interface br0: it exists")


def test_a_subnet_that_is_taken_or_routed_is_passed_over(host: FakeHost) -> None:
    host.run(["ip", "address", "add", "10.201.0.77/32", "dev", "lo"])
    host.run(["ip", "route", "add", "10.201.16.0/26", "via", host.outside_address])
    assert subnet(host, "ensure", "br0") == "10.201.32.0/20"
    assert subnet(host, "create", "second") == "10.201.48.0/20"


def test_the_lectures_subnet_is_kept_for_br0(host: FakeHost) -> None:
    assert subnet(host, "create", "first") == "10.201.16.0/20"
    assert subnet(host, "ensure") == "10.201.0.0/20"


def test_a_vpn_over_all_of_10_leaves_other_pools(host: FakeHost) -> None:
    host.run(["ip", "route", "add", "10.0.0.0/8", "via", host.outside_address])
    assert subnet(host, "ensure") == "172.28.0.0/20"
    host.run(["ip", "route", "add", "172.16.0.0/12", "via", host.outside_address])
    host.run(["ip", "route", "add", "192.168.0.0/16", "via", host.outside_address])
    assert "no subnet is free" in str(call(host, "create", "second"))


def test_a_wanted_subnet_that_overlaps_is_refused(host: FakeHost) -> None:
    call(host, "create", "first", "10.9.0.0/16")
    for wanted in ("10.9.4.0/24", "10.8.0.0/13", "192.0.2.0/25"):
        assert str(call(host, "create", "second", wanted)).startswith(f"Conflict: --subnet {wanted}: it overlaps")
    assert [n["name"] for n in call(host, "listing")] == ["first"]  # type: ignore[attr-defined]


def test_bad_names_and_subnets_name_the_flag(host: FakeHost) -> None:
    for name in ("", "a/b", "-x", "a" * 101, "none", "all", "ünder"):
        assert str(call(host, "create", name)).startswith("UsageError: network"), name
    for bad in (
        "10.0.0.0",
        "10.0.0.0/31",
        "10.0.0.1/24",
        "300.0.0.0/8",
        "10.0.0.0/x",
        "10.00.0.0/8",
        "::/64",
        "127.1.0.0/24",
    ):
        assert str(call(host, "create", "lab", bad)).startswith(f"UsageError: --subnet {bad}"), bad
    assert str(call(host, "ensure", "nowhere")).startswith("NotFound: network nowhere")
    assert str(call(host, "remove", "nowhere")).startswith("NotFound: network nowhere")


def test_a_network_in_use_stays_and_an_unused_one_goes_without_a_trace(host: FakeHost) -> None:
    web = Attached(host, "web", "br0", "8080:80")
    inspected = call(host, "inspect", "br0")
    assert isinstance(inspected, dict)
    assert inspected["leases"] == {"10.201.0.2": identity("web")}
    refusal = f"Conflict: network br0: containers use it: {identity('web')[:12]}; "
    refusal += "remove them first, or: minirun network rm -f br0"
    assert call(host, "remove", "br0") == refusal
    web.undo()
    assert call(host, "remove", "br0") is None
    assert host.run(["nft", "list", "ruleset"]).stdout == ""
    assert "br0" not in host.run(["ip", "link"]).stdout
    assert host.run(["find", host.root, f"{host.state}/networks", "-mindepth", "1"]).stdout.split() == [
        f"{host.root}/networks"
    ]


LATE = """
from minirun.errors import NotFound
from minirun.network import bridge, creation
wanted = creation.Wanted("lab")
wanted.subnets = ["10.77.0.0/24"]
bridge.create(wanted)
missing = bridge.missing
def overtaken(network):  # between our look and our taking the lock
    bridge.missing = missing
    bridge.remove("lab")
    return missing(network)
bridge.missing = overtaken
try:
    print(bridge.ensure("lab"))
except NotFound as error:
    print(error)
"""


def test_a_network_that_was_removed_is_not_made_again(host: FakeHost) -> None:
    assert "network lab: there is none of that name" in host.python(LATE)
    assert "lab" not in host.run(["ip", "-o", "link"]).stdout


def test_the_last_network_takes_the_table_along_and_no_other_does(host: FakeHost) -> None:
    host.run(["nft", "add table inet foreign"])
    call(host, "create", "one")
    call(host, "create", "two")
    call(host, "remove", "one")
    assert 'comment "minirun network two"' in host.run(["nft", "list", "ruleset"]).stdout
    call(host, "remove", "two")
    assert host.run(["nft", "list", "tables"]).stdout == "table inet foreign\n"


def test_many_first_uses_at_once_make_one_network(host: FakeHost) -> None:
    answers = set(at_once(host, CALL, [["ensure", "br0"]] * 8))
    assert len(answers) == 1, answers
    assert isinstance(json.loads(answers.pop()), dict)
    rules = host.run(["nft", "list", "table", "inet", "minirun"]).stdout
    assert rules.count("masquerade") == 4


def test_many_networks_at_once_get_different_subnets(host: FakeHost) -> None:
    answers = at_once(host, CALL, [["create", f"net{number}"] for number in range(8)])
    assert {json.loads(answer)["subnets"][0]["subnet"] for answer in answers} == {
        f"10.201.{16 * number}.0/20" for number in range(1, 9)
    }


def test_without_nft_the_package_is_named(host: FakeHost) -> None:
    host.run(["mount", "--bind", "/dev/null", host.run(["sh", "-c", "command -v nft"]).stdout.strip()])
    assert call(host, "ensure") == "Unsupported: nft: not installed; install the package nftables"
    assert call(host, "listing") == []
    assert "br0" not in host.run(["ip", "link"]).stdout
