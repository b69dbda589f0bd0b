"""10 000 operations of 16 workers, 200 of which are killed: no address is held twice, none is lost, nothing is left.

And the checker can fail: it sees what is wrong in a history that was made up, and with allocators that were broken.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minirun import store
from minirun.errors import Conflict
from minirun.network import ipam, owners
from minirun.network.addresses import IPV4, IPV6, Subnet
from minirun.network.network import Network, Pool
from minirun.network.rotation import Rotation
from tests.network import history
from tests.network.history import Field, Note

SEED = 20
V4, V6 = Subnet.parse("10.7.0.0/27"), Subnet.parse("fd00:7::/121")
LAB = Network("lab", "lab", [Pool(V4, V4.address(1)), Pool(V6, V6.address(1))], "", 1500)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in memory, as /run is: a disk would be the slowest part."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="minirun-test-", dir=memory))
    monkeypatch.setattr(store, "state", str(path / "state"))
    monkeypatch.setattr(store, "root", str(path / "root"))
    store.directory(store.root, "networks", "lab")
    (path / "root/networks/lab/network.json").touch()
    monkeypatch.setattr(ipam, "_allocated", set())
    yield path
    shutil.rmtree(path)


def test_no_address_is_held_twice_and_none_is_lost(folder: Path) -> None:
    field = Field(folder, LAB, SEED)
    try:
        field.run(workers=16, operations=10000, kills=200)
        # Everybody rests, and lives: what is leased now is exactly what they say they have.
        history.reconcile("lab")
        notes = field.notes()
        rest = {line[4]: line[3] for name in field.living() for line in notes[name] if line[2] == "rest"}
        assert ipam.leases("lab") == rest
    finally:
        field.end()
    assert (field.operations, field.kills) == (10000, 200)
    assert history.violations(notes) == []
    outcomes = [(line[2], line[4] is None) for lines in notes.values() for line in lines if line[1] == "end"]
    assert min(map(outcomes.count, set(outcomes))) > 10, "something was hardly tried"
    history.reconcile("lab")  # now all are dead
    assert ipam.leases("lab") == {}
    _nothing_is_left(folder / "state")
    _everything_can_be_given()


def _nothing_is_left(state: Path) -> None:
    """But the hints, and the lock that is taken for a network's first lease."""
    files = {str(path.relative_to(state)) for path in state.rglob("*") if path.is_file()}
    hints = {f"networks/lab/{name}" for name in ("given4", "given6")}
    assert files - hints == {"networks.lock"}


def _everything_can_be_given() -> None:
    for bits in (IPV4, IPV6):
        room = Rotation("", LAB.of_family(bits)).size()
        note = owners.process(os.getpid())
        assert len({ipam.allocate(LAB, f"x{number}", [note], bits) for number in range(room)}) == room
        with pytest.raises(Conflict, match="no free address"):
            ipam.allocate(LAB, "more", [note], bits)


def _look_and_write(self: Any, address: str) -> bool:
    """What link(2) spares us: a look whether the file is there, and then the file."""
    path = Path(ipam.lease_path("lab", address))
    if path.exists():
        return False
    os.sched_yield()
    path.write_bytes(os.pread(os.open(f"/proc/self/fd/{self.file}", os.O_RDONLY), 4096, 0))
    return True


def _unlink_by_name(network: str, address: str, condition: Any) -> bool:
    """Without a look whether it still is the file that was read."""
    lease = ipam.read(network, address)
    if lease is None or not condition(lease):
        return False
    for _ in range(20):
        os.sched_yield()
    Path(ipam.lease_path(network, address)).unlink(missing_ok=True)
    return True


BROKEN = {
    "look, then write": (ipam._Candidate, "link", _look_and_write, "at once"),
    "the living are taken for dead": (owners, "alive", lambda _: False, "was lost"),
    "removed by its name": (ipam, "_take_away", _unlink_by_name, "was lost"),
}


@pytest.mark.parametrize("which", BROKEN)
def test_a_broken_allocator_is_found_out(which: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, name, broken, complaint = BROKEN[which]
    monkeypatch.setattr(place, name, broken)
    field = Field(folder, LAB, SEED)
    try:
        field.run(workers=16, operations=4000, kills=40)
    finally:
        field.end()
    assert any(complaint in violation for violation in history.violations(field.notes()))


def said(when: int, phase: str, kind: str = "", owner: str = "", outcome: object = None) -> Note:
    return [when, phase, kind, owner, "A", outcome]


HAS = [said(2, "end", "allocate", "one")]
RELEASES = [*HAS, said(5, "begin", "release", "one", "one"), said(7, "end", "release", "one")]
DIES = [*HAS, said(5, "died")]
FREES = [said(3, "begin", "reconcile"), said(4, "end", "reconcile", outcome=["A"])]
LOST = "A was lost: one lived and had it, and its lease is of"
TWICE = ["A was held by one and by two at once"]
HISTORIES: dict[str, tuple[list[Note], list[Note], list[str]]] = {
    "after the release": (RELEASES, [said(6, "end", "allocate", "two"), said(9, "died")], []),
    "after the death": (DIES, [said(6, "end", "reserve", "two"), said(9, "died")], []),
    "before the release": (RELEASES, [said(4, "end", "allocate", "two"), said(9, "died")], TWICE),
    "before the death": (DIES, [said(4, "end", "reserve", "two"), said(9, "died")], TWICE),
    "and the other way round": ([said(4, "end", "reserve", "two"), said(9, "died")], DIES, TWICE),
    "refused": (RELEASES, [[4, "end", "reserve", "two", None, "taken"], said(9, "died")], []),
    "lost": ([*HAS, said(5, "begin", "release", "one", None)], [], [f"{LOST} None"]),
    "stolen": ([*HAS, said(5, "end", "rest", "one", "two")], [], [f"{LOST} two"]),
    "freed": (DIES, FREES, ["A was freed, and one lived and had it"]),
    "freed when dead": (HAS, FREES, []),
}


@pytest.mark.parametrize("which", HISTORIES)
def test_the_checker_on_histories_that_were_made_up(which: str) -> None:
    first, second, complaints = HISTORIES[which]
    assert history.violations({"1": first, "2": second}) == complaints
