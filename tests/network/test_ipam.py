"""Leases: never one address twice, never an unfinished lease, freed ones rest, a full pool says so."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from minirun import store
from minirun.engine import connect
from minirun.engine.options import Attachment
from minirun.errors import Conflict, NotFound, UsageError
from minirun.network import addresses, endpoint, ipam, owners, rotation
from minirun.network.addresses import IPV4, IPV6, Subnet
from minirun.network.network import Network, Pool


def network(*subnets: str, name: str = "lab", ranges: str = "") -> Network:
    """A network with these subnets; the gateway is the first address of each, the range is the first one's."""
    pools = [Pool(subnet, subnet.address(1)) for subnet in map(Subnet.parse, subnets)]
    if ranges:
        pools[0].range = Subnet.parse(ranges, "--ip-range")
    return Network(name, name, pools, "02:6d:00:00:00:01", 1500)


LAB = network("10.7.0.0/28")
SIX = network("fd00:7::/64")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(store, "state", str(tmp_path))
    monkeypatch.setattr(store, "root", str(tmp_path / "root"))
    for name in ("lab", "large", "small"):
        store.directory(str(tmp_path), "root", "networks", name)
        (tmp_path / "root/networks" / name / "network.json").touch()
    monkeypatch.setattr(ipam, "_allocated", set())
    yield tmp_path


def some(count: int, where: Network = LAB, bits: int = IPV4) -> list[str]:
    return [ipam.allocate(where, f"owner{number}", bits=bits) for number in range(count)]


def lives(state: Path, *owners: str) -> None:
    """Make containers of these ids live, as far as a lease is concerned."""
    (state / "locks").mkdir(exist_ok=True)
    for owner in owners:
        (state / "locks" / owner).touch()


def lease_file(address: str) -> Path:
    return Path(ipam.lease_path("lab", address))


def test_a_lease_can_be_read_with_cat() -> None:
    assert ipam.allocate(LAB, "abc", ["port mrabc", "names web abc"]) == "10.7.0.2"
    assert lease_file("10.7.0.2").read_text() == "abc\nport mrabc\nnames web abc\n"
    lease = ipam.read("lab", "10.7.0.2")
    assert lease and (lease.owner, lease.notes) == ("abc", {"port": "mrabc", "names": "web abc"})
    assert ipam.leases("lab") == {"10.7.0.2": "abc"}


def test_a_freed_address_rests_while_others_are_left() -> None:
    first = ipam.allocate(LAB, "first")
    ipam.release("lab", first, "first")
    assert some(12) == [f"10.7.0.{number}" for number in range(3, 15)]
    assert ipam.allocate(LAB, "last") == first


def test_of_many_freed_addresses_each_is_given_once_a_lap() -> None:
    for number in range(39):
        address = ipam.allocate(LAB, "one")
        assert address == f"10.7.0.{number % 13 + 2}"
        ipam.release("lab", address, "one")


def test_a_full_pool_says_so_and_neither_end_nor_gateway_is_given(state: Path) -> None:
    lives(state, *(f"owner{number}" for number in range(13)))
    assert set(some(13)) == {f"10.7.0.{number}" for number in range(2, 15)}
    for function in (lambda: ipam.allocate(LAB, "more"), lambda: ipam.propose(LAB)):
        with pytest.raises(
            Conflict, match=r"network lab: no free address is left in 10\.7\.0\.0/28: all 13 .*; remove"
        ):
            function()
    ipam.release("lab", "10.7.0.5", "owner3")
    assert ipam.propose(LAB) == "10.7.0.5"
    assert ipam.allocate(LAB, "more") == "10.7.0.5"


def test_before_a_pool_is_full_the_dead_lose_theirs(state: Path) -> None:
    some(13)
    lives(state, *(f"owner{number}" for number in range(13) if number != 6))
    assert ipam.allocate(LAB, "more") == "10.7.0.8"


def test_an_address_is_found_among_thousands_that_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    large = network("10.8.0.0/20", name="large")
    for address in some(4000, large)[::7]:
        ipam.release("large", address, ipam.owner_of("large", address) or "")
    some(93, large)
    tries, link = [], ipam._Candidate.link
    monkeypatch.setattr(ipam._Candidate, "link", lambda self, address: tries.append(address) or link(self, address))
    found = some(100, large)
    assert len(set(found)) == 100
    assert len(tries) <= 100 + 1  # the first may still be of the lap before


def offsets(where: Network, count: int, bits: int = IPV4) -> list[int]:
    """Where the addresses of ``count`` short-lived owners are, behind the subnet's first one."""
    found = []
    for _ in range(count):
        address = ipam.allocate(where, "short", bits=bits)
        ipam.release(where.name, address, "short")
        found.append(addresses.number(address) - where.of_family(bits)[0].subnet.base)
    return found


def test_addresses_of_a_second_bridge_are_given_when_the_first_has_no_room(state: Path) -> None:
    large = network("10.8.0.0/20", name="large")
    lives(state, "kept")
    assert offsets(large, 2000) == ([*range(2, 960)] * 3)[:2000]
    kept = [ipam.allocate(large, "kept") for _ in range(950)]
    assert {large.member(address) for address in kept} == {"large"}
    seen = offsets(large, 2000)
    assert set(seen) >= set(range(960, 1920)) and max(seen) < 1920
    for address in kept[:200]:  # what is free on the first bridge is used again when the lap on the second is over
        ipam.release("large", address, "kept")
    seen = offsets(large, 2000)
    assert len({at for at in seen if at < 960}) == 208
    assert seen.index(min(seen)) <= 960
    assert max(seen[-900:]) < 960


def test_ipv6_divides_only_where_no_ipv4_decides() -> None:
    assert max(offsets(network("fd00:7::/64"), 1000, IPV6)) == 959
    both = network("10.7.0.0/28", "fd00:8::/64", name="small")
    assert max(offsets(both, 1000, IPV6)) == 1001


def test_a_range_is_what_is_given_and_not_what_can_be_asked_for(state: Path) -> None:
    part = network("10.7.0.0/24", ranges="10.7.0.64/30")
    assert some(4, part) == [f"10.7.0.{number}" for number in range(64, 68)]
    lives(state, *(f"owner{number}" for number in range(4)))
    with pytest.raises(Conflict, match=r"left in 10\.7\.0\.64/30: all 4 are leased; .*outside of the --ip-range.*--ip"):
        ipam.allocate(part, "more")
    assert ipam.allocate(part, "more", address="10.7.0.9") == "10.7.0.9"


@pytest.mark.parametrize(
    ("within", "given"),
    [("10.7.0.0/30", ["10.7.0.2", "10.7.0.3"]), ("10.7.0.252/30", ["10.7.0.252", "10.7.0.253", "10.7.0.254"])],
)
def test_a_range_at_an_end_has_no_more_than_the_subnet(within: str, given: list[str]) -> None:
    part = network("10.7.0.0/24", ranges=within)
    assert some(len(given), part) == given
    assert rotation.Rotation("", part.ipv4).size() == len(given)


def test_several_subnets_are_one_pool(state: Path) -> None:
    both = network("10.7.0.0/30", "10.9.0.0/29", "fd00:7::/126")
    assert some(6, both) == ["10.7.0.2", *(f"10.9.0.{number}" for number in range(2, 7))]
    lives(state, *(f"owner{number}" for number in range(6)))
    with pytest.raises(Conflict, match=r"left in 10\.7\.0\.0/30, 10\.9\.0\.0/29: all 6"):
        ipam.allocate(both, "more")
    ipam.release("lab", "10.7.0.2", "owner0")
    assert ipam.allocate(both, "more") == "10.7.0.2"
    assert ipam.allocate(both, "more", bits=IPV6) == "fd00:7::2"


def test_ipv6_goes_in_sequence_and_never_gives_the_routers_own() -> None:
    assert some(3, SIX, IPV6) == ["fd00:7::2", "fd00:7::3", "fd00:7::4"]
    small = network("fd00:8::/126", name="small")
    assert some(2, small, IPV6) == ["fd00:8::2", "fd00:8::3"]
    with pytest.raises(UsageError, match="--ip6 fd00:8::: not an address for a container"):
        ipam.allocate(small, "one", bits=IPV6, address="fd00:8::")


@pytest.mark.parametrize("prefix", [16, 48, 64, 80, 108, 112, 120, 125, 126])
def test_ipv6_subnets_of_any_length(prefix: int) -> None:
    subnet = network(f"fd00::/{prefix}")
    assert some(2, subnet, IPV6) == ["fd00::2", "fd00::3"]
    assert ipam.allocate(subnet, "x", bits=IPV6, address="fd00::3") == "fd00::3"


def test_a_short_address_is_the_same_as_a_long_one(state: Path) -> None:
    assert ipam.allocate(SIX, "one", bits=IPV6, address="FD00:7:0:0::00AB") == "fd00:7::ab"
    lives(state, "one")
    with pytest.raises(Conflict, match=r"address fd00:7::ab of network lab: container one has it"):
        ipam.allocate(SIX, "two", bits=IPV6, address="fd00:7:0::ab")


@pytest.mark.parametrize(("prefix", "count"), [(32, 0), (31, 1), (30, 1), (29, 5)])
def test_the_smallest_subnets(prefix: int, count: int, state: Path) -> None:
    """Of a /31 both can be used (RFC 3021), and the gateway has one."""
    subnet = Subnet(0x0A070000, prefix)
    tiny = Network("lab", "lab", [Pool(subnet, subnet.address(0 if prefix > 30 else 1))], "", 1500)
    lives(state, *(f"owner{number}" for number in range(count)))
    assert len(some(count, tiny)) == count
    with pytest.raises(Conflict, match="has no address for a container" if not count else f"all {count} are leased"):
        ipam.allocate(tiny, "more")


def test_a_family_that_the_network_lacks() -> None:
    with pytest.raises(Conflict, match="network lab: it has no subnet of IPv6"):
        ipam.allocate(LAB, "one", bits=IPV6)
    with pytest.raises(UsageError, match=r"--ip6 fd00::1: .* no subnet of that family"):
        ipam.allocate(LAB, "one", bits=IPV6, address="fd00::1")


def test_a_wanted_address_is_given_or_refused(state: Path) -> None:
    assert ipam.allocate(LAB, "one", address="10.7.0.9") == "10.7.0.9"
    lives(state, "one")
    with pytest.raises(Conflict, match=r"address 10\.7\.0\.9 of network lab: container one has it"):
        ipam.allocate(LAB, "two", address="10.7.0.9")
    for wrong in ("10.7.0.0", "10.7.0.1", "10.7.0.15", "10.7.0.16", "10.6.0.9", "10.7.0.09", "x", "::1"):
        with pytest.raises(UsageError, match=r"--ip"):
            ipam.allocate(LAB, "two", address=wrong)
    assert ipam.allocate(LAB, "one", address="10.7.0.9") == "10.7.0.9"


def test_what_is_reserved_is_never_given() -> None:
    for number in range(2, 14):
        ipam.reserve("lab", f"10.7.0.{number}", "static")
    assert ipam.allocate(LAB, "one") == "10.7.0.14"


def test_a_dead_owners_address_can_be_reserved(state: Path) -> None:
    lives(state, "new")
    ipam.reserve("lab", "10.7.0.9", "old")
    ipam.reserve("lab", "10.7.0.9", "new")
    assert ipam.owner_of("lab", "10.7.0.9") == "new"
    with pytest.raises(Conflict, match="container new has it"):
        ipam.reserve("lab", "10.7.0.9", "third")


def test_a_network_with_leases_is_not_closed(state: Path) -> None:
    lives(state, "one")
    ipam.allocate(LAB, "dead")
    ipam.allocate(LAB, "one")
    with pytest.raises(Conflict, match="network lab: containers use it: one; remove them first"):
        ipam.close("lab")
    assert ipam.leases("lab") == {"10.7.0.3": "one"}
    ipam.release("lab", "10.7.0.3", "one")
    lease_file("whatever").touch()
    with pytest.raises(Conflict, match="containers use it: whatever"):
        ipam.close("lab")
    lease_file("whatever").unlink()
    ipam.close("lab")
    ipam.close("lab")


@pytest.mark.parametrize("there", [False, True])
def test_who_comes_too_late_finds_no_network(there: bool, state: Path) -> None:
    """Or one that is there again: then with a folder of its own."""
    ipam.release("lab", ipam.allocate(LAB, "one"), "one")
    with ipam._Candidate("lab", "two", []) as candidate:
        ipam.close("lab")
        with pytest.raises(NotFound, match="network lab: it was removed meanwhile"):
            candidate.link("10.7.0.3")
    if there:
        assert ipam.allocate(LAB, "two") == "10.7.0.3"
        assert lease_file("").stat().st_mode & 0o777 == 0o755  # the name server is nobody, and reads
        return
    (state / "root/networks/lab/network.json").unlink()
    for late in (lambda: ipam.allocate(LAB, "two"), lambda: ipam.reserve("lab", "10.7.0.3", "two")):
        with pytest.raises(NotFound, match="network lab: it was removed meanwhile"):
            late()
    assert not lease_file("").exists()


def test_propose_takes_nothing(state: Path) -> None:
    assert ipam.propose(LAB) == ipam.propose(LAB) == "10.7.0.2"
    assert [path.name for path in state.iterdir()] == ["root"]
    assert ipam.allocate(LAB, "one") == "10.7.0.2"
    assert ipam.propose(LAB) == "10.7.0.3"
    assert ipam.propose(LAB, IPV4, "10.7.0.12") == "10.7.0.12"


def test_propose_knows_the_next_lap() -> None:
    for _ in range(13):
        ipam.release("lab", ipam.allocate(LAB, "one"), "one")
    assert ipam.propose(LAB) == ipam.allocate(LAB, "one") == "10.7.0.2"


def test_only_the_owner_releases() -> None:
    address = ipam.allocate(LAB, "one")
    ipam.release("lab", address, "two")
    assert ipam.owner_of("lab", address) == "one"
    ipam.release("lab", address, "one")
    ipam.release("lab", address, "one")
    assert ipam.owner_of("lab", address) is None


def test_reconcile_frees_what_the_dead_held(state: Path) -> None:
    taken = some(4)
    lives(state, "owner1", "owner3")
    assert ipam.reconcile("lab") == [taken[0], taken[2]]
    assert ipam.leases("lab") == {taken[1]: "owner1", taken[3]: "owner3"}
    assert ipam.reconcile("lab", lambda lease: lease.owner != "owner3") == [taken[3]]
    ipam.release_owner("owner1")
    assert ipam.leases("lab") == {}


def test_owners_that_are_no_containers(state: Path) -> None:
    """Processes that live, have ended, have another's number; files; another boot; and what nobody understands."""
    living, zombie = (subprocess.Popen(["sleep", "1000"]), subprocess.Popen(["true"]))
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    note = owners.process(living.pid)
    _, kind, pid, start, boot = note.split()
    assert (kind, pid) == ("process", str(living.pid))
    wrong = {
        "zombie": owners.process(zombie.pid),
        "reused": f"alive process {pid} {int(start) - 1} {boot}",
        "rebooted": f"alive process {pid} {start} 0-0",
        "old": "alive boot 0-0",
        "removed": owners.file(str(state / "no such file")),
        "other": f"alive file {state}/there 0-0",
    }
    unclear = {
        "x": "alive",
        "y": "alive process",
        "z": "alive process 0 0 0",
        "v": "alive process 99999999999 1 " + boot,
    }
    unclear |= {"u": "alive boot", "t": "alive by magic", "s": f"alive process {pid} -1 {boot}"}
    (state / "there").symlink_to("nowhere")
    (state / "a b c").touch()
    unclear |= {"r": f"alive file {boot}", "q": "alive file"}
    kept = {"file": owners.file(f"{state}/there"), "spaces": owners.file(f"{state}/a b c")}
    right = {**kept, "living": note, "lasting": owners.boot(), **unclear}
    right["z"] = f"alive process 0 0 {boot}"
    for owner, line in {**wrong, **right}.items():
        ipam.allocate(SIX, owner.replace(" ", "_"), [line], IPV6)
    ipam.reconcile("lab")
    assert set(ipam.leases("lab").values()) == set(right)
    zombie.wait()
    with pytest.raises(ProcessLookupError):
        owners.process(zombie.pid)
    living.kill()
    living.wait()
    (state / "there").unlink()
    assert len(ipam.reconcile("lab")) == 2


RUBBISH = {
    "empty": b"",
    "binary": b"\0\xff" * 100,
    "spaces": b"no owner here\n",
    "long": b"x" * 70000,
    "null": b"a\0b\n",
}


@pytest.mark.parametrize("kind", [*RUBBISH, "directory", "pipe", "dangling link", "link", "socket"])
def test_what_is_no_lease_holds_its_address(kind: str, state: Path) -> None:
    path = lease_file("10.7.0.2")
    path.parent.mkdir(parents=True)
    (path.parent / "not an address").write_text("x")
    (state / "elsewhere").write_text("dead\n")
    if kind in RUBBISH:
        path.write_bytes(RUBBISH[kind])
    elif kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, 0o140600)
    else:
        path.symlink_to(state / ("elsewhere" if kind == "link" else "nowhere"))
    assert ipam.owner_of("lab", "10.7.0.2") == ipam.UNKNOWN
    assert ipam.reconcile("lab") == [] == ipam.reconcile("lab", lambda _: False)
    ipam.release("lab", "10.7.0.2", "dead")
    assert ipam.propose(LAB) == ipam.allocate(LAB, "one") == "10.7.0.3"
    with pytest.raises(Conflict, match="somebody has it"):
        ipam.reserve("lab", "10.7.0.2", "one")
    assert os.path.lexists(path)
    lives(state, "one", "not", *(f"owner{number}" for number in range(11)))
    some(11)
    with pytest.raises(Conflict, match="no free address"):
        ipam.allocate(LAB, "more")
    assert os.path.lexists(path)


def test_only_what_could_be_a_note_is_told() -> None:
    """Others make elements of the firewall of it, and answers of the name server."""
    path = lease_file("10.7.0.2")
    path.parent.mkdir(parents=True)
    lines = [
        "port mr1; flush ruleset",
        "port",
        "mac 02:6d:0a",
        "mac 02:6d:0a:07:00:zz",
        "names",
        "names  ",
        'dns "',
        "",
    ]
    path.write_text("\n".join(["abc", *lines, "names a\tb", "port " + "x" * 16, "alive \x1b[2J", "x\xff y"]))
    lease = ipam.read("lab", "10.7.0.2")
    assert lease and (lease.owner, lease.notes) == ("abc", {})
    path.write_text("abc\nport mr1\nmac 02:6d:0A:07:00:02\nnames a b_c.d-e\ndns fd00::1\nnew thing\n")
    assert ipam.held("lab")["10.7.0.2"].notes == {
        "port": "mr1", "mac": "02:6d:0A:07:00:02", "names": "a b_c.d-e", "dns": "fd00::1", "new": "thing",
    }  # fmt: skip


def test_no_space_is_told_with_the_place_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    ipam.release("lab", ipam.allocate(LAB, "one"), "one")
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "pwrite", full)  # a hint that is lost: no reason to lose the address
    assert ipam.allocate(LAB, "two") == "10.7.0.3"
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/networks/lab/leases'"):
        ipam.allocate(LAB, "three")
    assert ipam.leases("lab") == {"10.7.0.3": "two"}
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_with_very_many_names(state: Path) -> None:
    folder = lease_file("x").parent
    folder.mkdir(parents=True)
    for number in range(20000):
        (folder / f"{number}.x").touch()
    assert ipam.allocate(LAB, "one") == "10.7.0.2"
    lives(state, "one", *(f"owner{number}" for number in range(12)))
    some(12)
    with pytest.raises(Conflict, match="no free address"):
        ipam.allocate(LAB, "more")


@pytest.mark.parametrize("kept", [False, True])
def test_who_comes_second_takes_nothing_away(kept: bool, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clean up. While the second one is between its look and its deed, the first removes the dead one's lease, and
    a third gets the address. The removed file may even be there yet, under another name that somebody gave it."""
    lives(state, "new")
    ipam.reserve("lab", "10.7.0.2", "dead")
    if kept:
        os.link(lease_file("10.7.0.2"), state / "kept")
    flock, late = fcntl.flock, []

    def overtaken(descriptor: int, operation: int) -> None:
        if not late:
            late.append(descriptor)
            os.unlink(lease_file("10.7.0.2"))
            ipam.reserve("lab", "10.7.0.2", "new")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", overtaken)
    assert ipam.reconcile("lab", lambda lease: lease.owner != "dead") == []
    assert late
    assert ipam.leases("lab") == {"10.7.0.2": "new"}


def test_the_step_keeps_a_lease_that_was_made_before_the_plan(state: Path) -> None:
    address = ipam.allocate(LAB, "one", ["port mrone"])
    lives(state, "one")
    lease = ipam.Lease("lab", address, "one", ["port mrone"])
    lease.do()
    with pytest.raises(Conflict):
        ipam.Lease("lab", address, "two", []).do()
    ipam.Lease("lab", address, "two", []).undo()
    assert ipam.owner_of("lab", address) == "one"
    lease.undo()
    lease.undo()
    assert ipam.owner_of("lab", address) is None


def test_what_the_step_says_makes_the_same_file(state: Path) -> None:
    notes = ["port mrone", "names it's one", "dns 9.9.9.9 2620:fe::fe"]
    lease = ipam.Lease("lab", "10.7.0.2", "one", notes)
    lease.do()
    made = lease_file("10.7.0.2").read_bytes()
    assert subprocess.run(["sh", "-c", lease.sh()], capture_output=True).returncode != 0  # it is taken
    lease.undo()
    lease_file("").rmdir()
    subprocess.run(["sh", "-c", lease.sh()], check=True, umask=0o077)
    assert lease_file("").stat().st_mode & 0o777 == 0o755
    assert lease_file("10.7.0.2").read_bytes() == made
    assert ipam.allocate(LAB, "two") == "10.7.0.3"


@pytest.mark.parametrize("rubbish", ["", "x", "10.9.9.9", "10.7.0.15", "999.1.1.1", "10.7.0.200", "\xff\0", "fd00::1"])
@pytest.mark.parametrize("marks", [b"", b"#" * 4096, b"\0" * 9000, b"#\0" * 7, os.urandom(4096)])
@pytest.mark.parametrize("width", [0, rotation.LINE])
def test_a_broken_hint_costs_nothing_but_time(state: Path, rubbish: str, marks: bytes, width: int) -> None:
    store.directory(str(state), "networks", "lab")
    (state / "networks/lab/given4").write_bytes(f"{rubbish:<{width}}".encode() + marks)
    lives(state, *(f"owner{number}" for number in range(13)))
    assert len(set(some(13))) == 13
    with pytest.raises(Conflict):
        ipam.allocate(LAB, "more")


def test_of_both_families_or_of_none(state: Path) -> None:
    both = network("10.7.0.0/28", "fd00:7::/126")
    wanted, identity = Attachment("lab"), "a" * 64
    lives(state, "x", "y", "z")
    for owner in ("x", "y"):
        ipam.allocate(both, owner, bits=IPV6)
    with pytest.raises(Conflict, match="no free address is left in fd00:7::/126"):
        connect.plug(identity, "web", 0, wanted, "eth0", both, ipam.allocate)
    wanted.address6 = "fd00:7::3"
    with pytest.raises(Conflict, match="address fd00:7::3 of network lab: container y has it"):
        connect.plug(identity, "web", 0, wanted, "eth0", both, ipam.allocate)
    assert set(ipam.leases("lab").values()) == {"x", "y"}
    assert not [lease for lease in ipam._allocated if lease[2] == identity]
    ipam.release("lab", "fd00:7::3", "y")
    lives(state, identity)
    assert connect.plug(identity, "web", 0, wanted, "eth0", both, ipam.allocate).addresses == [
        "10.7.0.4/28",
        "fd00:7::3/126",
    ]


def test_a_wide_subnet_keeps_few_marks(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "WIDEST", 64)
    monkeypatch.setattr(rotation, "CHUNK", 16)
    lives(state, "kept")
    ipam.allocate(SIX, "kept", bits=IPV6, address="fd00:7::21")
    seen = []
    for _ in range(200):
        seen.append(ipam.allocate(SIX, "one", bits=IPV6))
        ipam.release("lab", seen[-1], "one")
    lap = [f"fd00:7::{number:x}" for number in range(2, 0x41) if number != 0x21]
    assert seen == (lap * 4)[:200]
    assert (state / "networks/lab/given6").stat().st_size <= rotation.LINE + 64


@pytest.mark.parametrize("where", [LAB, network("10.7.0.0/29", "10.7.9.0/29"), network("fd00:7::/124")], ids=str)
def test_a_long_history_stays_consistent(where: Network, state: Path) -> None:
    bits = where.pools[0].subnet.bits
    room = rotation.Rotation("", where.of_family(bits)).size()
    chance, model = random.Random(7), dict[str, str]()
    lives(state, *(f"c{number}" for number in range(2000)))
    for number in range(2000):
        if model and (len(model) == room or chance.random() < 0.5):
            address = chance.choice(sorted(model))
            ipam.release("lab", address, model.pop(address))
        else:
            address = ipam.allocate(where, f"c{number}", bits=bits)
            assert address not in model
            model[address] = f"c{number}"
    assert ipam.leases("lab") == model


def test_a_note_is_one_line() -> None:
    with pytest.raises(UsageError, match="line break"):
        ipam.allocate(LAB, "abc", ["names a\nport lo"])
    with pytest.raises(UsageError, match="line break"):
        ipam.reserve("lab", "10.7.0.3", "abc\nalive boot x")
    assert ipam.leases("lab") == {}


def test_a_mac_that_was_taken_meanwhile_is_given_back() -> None:
    """Two ask for one MAC at the same time: whoever sees the other's lease gives its own back."""
    mac = "02:42:00:00:00:09"
    wanted = Attachment("lab")
    wanted.mac = mac

    def lease(where: Network, owner: str, notes: Sequence[str], bits: int, address: str | None) -> str:
        """As ipam's, but just before somebody else is quicker."""
        ipam.reserve(where.name, "10.7.0.9", "quick", endpoint.lease_notes("mr1", mac, ["quick"], []))
        return ipam.allocate(where, owner, notes, bits, address)

    with pytest.raises(Conflict, match="container quick has it"):
        connect.plug("late", "late", 0, wanted, "eth0", LAB, lease)
    assert ipam.leases("lab") == {"10.7.0.9": "quick"}
