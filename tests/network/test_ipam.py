"""Leases: never one address twice, never an unfinished lease, freed ones rest, a full pool says so."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minirun import store
from minirun.errors import Conflict, UsageError
from minirun.network import ipam
from minirun.network.addresses import IPV4, Subnet
from minirun.network.network import Network, Pool


def network(name: str, subnet: str, gateway: str) -> Network:
    return Network(name, name, [Pool(Subnet.parse(subnet), gateway)], "02:6d:00:00:00:01", 1500)


NETWORK = network("lab", "10.7.0.0/28", "10.7.0.1")
LARGE = network("large", "10.8.0.0/21", "10.8.0.1")

# Holds what it got for a while and gives some of it back, so that allocation and release meet in every way.
WORKER = """
import json, random, sys
from minirun.network import ipam
from minirun.network.network import Network
network, worker = Network.from_record(json.loads(sys.argv[1])), sys.argv[2]
chance, held, history = random.Random(int(worker)), [], []
print("ready", flush=True)
sys.stdin.readline()
for number in range(50):
    owner = f"{worker}-{number}"
    held.append((owner, ipam.allocate(network, owner, [])))
    assert ipam.owner_of(network.name, held[-1][1]) == owner
    if chance.random() < float(sys.argv[3]):
        owner, address = held.pop(chance.randrange(len(held)))
        ipam.release(network.name, address, owner)
print(json.dumps(held))
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(store, "state", str(tmp_path))
    yield tmp_path


def addresses(network: Network, count: int) -> list[str]:
    return [ipam.allocate(network, f"owner{number}", []) for number in range(count)]


@pytest.mark.parametrize("freed", ["0", "0.5"])
def test_16_processes_never_get_one_address_twice(state: Path, freed: str) -> None:
    from minirun import strict_json

    environment = {**os.environ, "MINIRUN_STATE": str(state), "PYTHONPATH": str(Path(ipam.__file__).parents[2])}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, strict_json.dumps(LARGE.record()), str(number), freed],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )
        for number in range(16)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout and worker.stdout.readline() == "ready\n"
    held = [lease for worker in workers for lease in strict_json.loads(worker.communicate("go\n", timeout=60)[0])]
    assert all(worker.returncode == 0 for worker in workers)
    assert len({address for _, address in held}) == len(held)
    assert ipam.leases("large") == {address: owner for owner, address in held}
    assert len(held) == 800 or freed != "0"


def test_a_lease_can_be_read_with_cat(state: Path) -> None:
    address = ipam.allocate(NETWORK, "abc", [])
    assert address == "10.7.0.2"
    assert (state / "networks/lab/leases/10.7.0.2").read_text() == "abc\n"


def test_a_freed_address_rests_while_others_are_left() -> None:
    first = ipam.allocate(NETWORK, "first", [])
    ipam.release("lab", first, "first")
    assert addresses(NETWORK, 12) == [f"10.7.0.{number}" for number in range(3, 15)]
    assert ipam.allocate(NETWORK, "last", []) == first


def test_a_full_pool_says_so_and_neither_end_nor_gateway_is_given() -> None:
    assert set(addresses(NETWORK, 13)) == {f"10.7.0.{number}" for number in range(2, 15)}
    for function in (lambda: ipam.allocate(NETWORK, "more", []), lambda: ipam.propose(NETWORK)):
        with pytest.raises(Conflict, match=r"network lab: no free address is left in 10\.7\.0\.0/28; remove"):
            function()


def test_a_wanted_address_is_given_or_refused() -> None:
    assert ipam.allocate(NETWORK, "one", [], IPV4, "10.7.0.9") == "10.7.0.9"
    with pytest.raises(Conflict, match=r"address 10\.7\.0\.9 of network lab: container one has it"):
        ipam.allocate(NETWORK, "two", [], IPV4, "10.7.0.9")
    for wrong in ("10.7.0.0", "10.7.0.1", "10.7.0.15", "10.7.0.16", "10.6.0.9", "10.7.0.09", "x", "::1"):
        with pytest.raises(UsageError, match=r"--ip"):
            ipam.allocate(NETWORK, "two", [], IPV4, wrong)


def test_propose_takes_nothing() -> None:
    assert ipam.propose(NETWORK) == ipam.propose(NETWORK) == "10.7.0.2"
    assert ipam.allocate(NETWORK, "one", []) == "10.7.0.2"
    assert ipam.propose(NETWORK) == "10.7.0.3"


def test_only_the_owner_releases() -> None:
    address = ipam.allocate(NETWORK, "one", [])
    ipam.release("lab", address, "two")
    assert ipam.owner_of("lab", address) == "one"
    ipam.release("lab", address, "one")
    ipam.release("lab", address, "one")
    assert ipam.owner_of("lab", address) is None


def test_reconcile_frees_what_the_dead_held() -> None:
    taken = addresses(NETWORK, 4)
    assert ipam.reconcile("lab", lambda owner: owner in ("owner1", "owner3")) == [taken[0], taken[2]]
    assert ipam.leases("lab") == {taken[1]: "owner1", taken[3]: "owner3"}
    ipam.release_owner("owner1")
    assert ipam.leases("lab") == {taken[3]: "owner3"}


def test_the_step_keeps_a_lease_that_was_made_before_the_plan() -> None:
    address = ipam.allocate(NETWORK, "one", [])
    lease = ipam.Lease("lab", address, "one", [])
    lease.do()
    with pytest.raises(Conflict):
        ipam.Lease("lab", address, "two", []).do()
    ipam.Lease("lab", address, "two", []).undo()
    assert ipam.owner_of("lab", address) == "one"
    lease.undo()
    lease.undo()
    assert ipam.owner_of("lab", address) is None


@pytest.mark.parametrize("rubbish", ["", "x", "10.9.9.9", "10.7.0.15", "999.1.1.1", "10.7.0.200"])
def test_a_broken_hint_costs_nothing_but_time(state: Path, rubbish: str) -> None:
    store.directory(str(state), "networks", "lab")
    (state / "networks/lab/last").write_text(rubbish)
    assert len(set(addresses(NETWORK, 13))) == 13


def test_a_long_history_stays_consistent() -> None:
    chance, model = random.Random(7), dict[str, str]()
    for number in range(2000):
        if model and (len(model) == 13 or chance.random() < 0.5):
            address = chance.choice(sorted(model))
            ipam.release("lab", address, model.pop(address))
        else:
            address = ipam.allocate(NETWORK, f"c{number}", [])
            assert address not in model
            model[address] = f"c{number}"
    assert ipam.leases("lab") == model
