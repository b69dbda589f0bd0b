"""Who is told what: names, aliases, reverse names, and the networks that nobody else hears of."""

from __future__ import annotations

import pytest

from minirun.network import names
from minirun.network.nameserver import wire, zones
from minirun.network.nameserver.zones import FORWARD, Asker, Zones
from tests.network import dns

RED = "listen 10.1.0.1\nsubnet 10.1.0.0/24\nlisten fd01::1\nsubnet fd01::/64\n"
BLUE = "listen 10.2.0.1\nsubnet 10.2.0.0/24\ndns 192.0.2.9 192.0.2.10\n"
DARK = "listen 10.3.0.1\nsubnet 10.3.0.0/24\ninternal\n"


def lease(owner: str, name: str, *aliases: str, dns: str = "") -> str:
    return f"{owner}\nport mr{owner}\nnames {' '.join([name, owner[:12], *aliases])}\n{dns}"


@pytest.fixture
def known() -> Zones:
    made = Zones()
    red, blue, dark = (made.add_network(*each) for each in (("red", RED), ("blue", BLUE), ("dark", DARK)))
    made.add_lease(red, "10.1.0.2", lease("a" * 64, "Web", "www"))
    made.add_lease(red, "fd01::2", lease("a" * 64, "Web", "www"))
    made.add_lease(red, "10.1.0.3", lease("b" * 64, "api.v1", "www"))
    made.add_lease(blue, "10.2.0.2", lease("b" * 64, "api.v1"))
    made.add_lease(blue, "10.2.0.3", lease("c" * 64, "db", dns="dns 192.0.2.77\n"))
    made.add_lease(dark, "10.3.0.2", lease("d" * 64, "vault"))
    return made


def asker(known: Zones, address: str, network: str = "red") -> Asker:
    found = known.asker(zones.pack_address(address), known.networks[network])
    assert found
    return found


def ask(known: Zones, address: str, name: str, kind: str = "A", klass: int = 1) -> str:
    query = wire.parse_query(dns.question(name, kind, klass=klass))
    code, records = known.answer(asker(known, address), query)
    if code == FORWARD:
        return "FORWARD"
    return repr(dns.Reply(wire.pack_answer(query, code, sorted(records))))


def test_our_own_domain_is_that_of_resolv_conf() -> None:
    assert wire.pack_name(names.DOMAIN) == zones.DOMAIN


@pytest.mark.parametrize(
    "name", ["web", "WEB", "web.red", "web.minirun.internal", "web.red.minirun.internal", "a" * 12]
)
def test_a_sibling_by_its_name_or_short_id(known: Zones, name: str) -> None:
    assert ask(known, "10.1.0.3", name) == "NOERROR 10.1.0.2"
    assert ask(known, "10.1.0.3", name, "AAAA") == "NOERROR fd01::2"
    assert ask(known, "fd01::2", name, "ANY") == "NOERROR 10.1.0.2 fd01::2"


def test_a_name_without_such_a_record_exists_all_the_same(known: Zones) -> None:
    assert ask(known, "10.1.0.2", "api.v1", "AAAA") == ask(known, "10.1.0.2", "web", "MX") == "NOERROR"


def test_nobody_hears_of_networks_that_he_is_not_on(known: Zones) -> None:
    assert ask(known, "10.1.0.2", "db") == ask(known, "10.1.0.2", "vault") == "NXDOMAIN"
    assert ask(known, "10.1.0.2", "db.blue") == "FORWARD"
    assert ask(known, "10.1.0.2", "db.blue.minirun.internal") == "NXDOMAIN"
    assert ask(known, "10.1.0.2", dns.reverse("10.2.0.3"), "PTR") == "NXDOMAIN"
    assert ask(known, "10.1.0.3", "db") == "NOERROR 10.2.0.3"  # b is on both
    assert ask(known, "10.2.0.2", "api.v1") == "NOERROR 10.1.0.3 10.2.0.2"


def test_a_name_on_a_network_of_ours_is_nobody_elses(known: Zones) -> None:
    for name in ("vault.dark", "nosuch.dark", "Nosuch.DARK"):
        assert ask(known, "10.1.0.2", name) == ask(known, "10.1.0.2", name, "MX") == "NXDOMAIN"
    assert ask(known, "10.3.0.2", "nosuch.dark") == "NXDOMAIN"
    assert ask(known, "10.1.0.2", "git.physics.dark") == "FORWARD"
    known.add_lease(known.networks["dark"], "10.3.0.3", lease("e" * 64, "git.physics"))
    assert ask(known, "10.1.0.2", "git.physics.dark") == "NXDOMAIN"
    assert ask(known, "10.1.0.2", "nosuch.darker") == ask(known, "10.1.0.2", "dark.example.org") == "FORWARD"
    known.add_network("my.net-1", "listen 10.4.0.1\nsubnet 10.4.0.0/24\n")
    assert ask(known, "10.1.0.2", "nosuch.my.net-1") == "NXDOMAIN"
    known.add_network("Dark", "listen 10.5.0.1\nsubnet 10.5.0.0/24\n")  # the same to DNS
    known.remove_network("Dark")
    assert ask(known, "10.1.0.2", "nosuch.dark") == "NXDOMAIN"
    for network in ("dark", "my.net-1"):
        known.remove_network(network)
        assert ask(known, "10.1.0.2", f"nosuch.{network}") == "FORWARD"


@pytest.mark.parametrize("network", ["dev", "Com", "de", "corp", "lan", "example.net", "xn--p1ai"])
def test_a_network_called_like_a_domain_of_the_world_hides_nothing_of_it(known: Zones, network: str) -> None:
    made = known.add_network(network, "listen 10.4.0.1\nsubnet 10.4.0.0/24\n")
    known.add_lease(made, "10.4.0.2", lease("e" * 64, "web"))
    for address in ("10.4.0.2", "10.1.0.2"):
        assert ask(known, address, f"github.{network}") == "FORWARD"
    assert ask(known, "10.4.0.2", f"web.{network}") == "NOERROR 10.4.0.2"


def test_a_shared_name_gives_all_in_turn(known: Zones) -> None:
    query = wire.parse_query(dns.question("www"))
    turns = [known.answer(asker(known, "10.1.0.2"), query)[1] for _ in range(4)]
    assert {tuple(turn[0][1]) for turn in turns} == {(10, 1, 0, 2), (10, 1, 0, 3)}
    assert all(len(turn) == 2 for turn in turns)


def test_reverse_names(known: Zones) -> None:
    assert ask(known, "10.1.0.3", dns.reverse("10.1.0.2"), "PTR") == "NOERROR web"
    assert ask(known, "10.1.0.3", dns.reverse("fd01::2"), "PTR") == "NOERROR web"
    assert ask(known, "10.1.0.2", dns.reverse("10.1.0.3"), "PTR") == "NOERROR api.v1"
    assert ask(known, "10.1.0.2", dns.reverse("10.1.0.3"), "A") == "NOERROR"
    assert ask(known, "10.1.0.3", dns.reverse("10.1.0.99"), "PTR") == "NXDOMAIN"
    assert ask(known, "10.1.0.3", dns.reverse("fd01::99"), "PTR") == "NXDOMAIN"
    for other in ("192.0.2.1", "2001:db8::1"):
        assert ask(known, "10.1.0.3", dns.reverse(other), "PTR") == "FORWARD"
    for odd in ("in-addr.arpa", "1.10.in-addr.arpa", "x.y.z.w.in-addr.arpa", "ip6.arpa", "g.ip6.arpa", "ab.ip6.arpa"):
        assert ask(known, "10.1.0.3", odd, "PTR") == "FORWARD"


def test_plain_names_and_localhost_stay_here(known: Zones) -> None:
    assert ask(known, "10.1.0.2", "printer") == ask(known, "10.1.0.2", "x.y.minirun.internal") == "NXDOMAIN"
    assert ask(known, "10.1.0.2", "localhost") == "NOERROR 127.0.0.1"
    assert ask(known, "10.1.0.2", "localhost", "AAAA") == "NOERROR ::1"
    assert ask(known, "10.1.0.2", "example.org") == ask(known, "10.1.0.2", "", "NS") == "FORWARD"
    assert ask(known, "10.1.0.2", "web", "TXT", 3) == "REFUSED"  # class CHAOS


def test_strangers_and_the_host(known: Zones) -> None:
    assert known.asker(zones.pack_address("10.1.0.77"), known.networks["red"]) is None
    assert known.asker(zones.pack_address("10.2.0.1"), known.networks["red"]) is None
    assert ask(known, "10.1.0.1", "web") == "NOERROR 10.1.0.2"


def test_whom_to_ask_for_the_rest(known: Zones) -> None:
    assert asker(known, "10.1.0.2").servers() == []
    assert asker(known, "10.2.0.2").servers() == ["192.0.2.9", "192.0.2.10"]
    assert asker(known, "10.2.0.3").servers() == ["192.0.2.77"]
    assert asker(known, "10.3.0.2").servers() is None
    known.add_lease(known.networks["red"], "10.1.0.9", lease("d" * 64, "vault"))
    assert asker(known, "10.3.0.2").servers() == []


def test_changes(known: Zones) -> None:
    red = known.networks["red"]
    known.add_lease(red, "10.1.0.2", lease("e" * 64, "new"))
    assert ask(known, "10.1.0.3", "web") == "NOERROR"  # it still has fd01::2
    known.remove_lease(red, "fd01::2")
    known.remove_lease(red, "fd01::2")
    assert ask(known, "10.1.0.3", "web") == "NXDOMAIN"
    assert ask(known, "10.1.0.3", "new") == "NOERROR 10.1.0.2"
    known.add_network("red", RED + "internal\n")
    assert ask(known, "10.1.0.3", "new") == "NOERROR 10.1.0.2"
    assert asker(known, "10.1.0.2").servers() is None
    known.remove_network("red")
    assert known.asker(zones.pack_address("10.1.0.2"), known.networks["blue"]) is None
    for name in ("blue", "dark"):
        known.remove_network(name)
    assert not known.addresses and not known.owners


def test_what_is_no_lease_is_passed_over(known: Zones) -> None:
    red = known.networks["red"]
    for name, text in ((".10.1.0.9.tmp", "x"), ("10.1.0.8", ""), ("10.1.0.7", "owner\nnames a..b " + "x" * 64)):
        known.add_lease(red, name, text)
    assert ask(known, "10.1.0.7", dns.reverse("10.1.0.7"), "PTR") == "NOERROR"
