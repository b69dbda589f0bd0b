"""Histories of leases: workers that allocate, reserve, release and reconcile and are killed over it, and the checker.

Each worker writes down what it is about to do and what came of it, in a file that only grows, so that the note of an
operation outlives the worker. The checker puts the notes of all workers together and decides what nobody can deny: from
the end of an allocation to the beginning of the release, or to the death of the worker, the address was held. Two such
times of one address must not meet.

Kills come from two sides, both by seeded chance: the field sends SIGKILL after certain numbers of operations in all,
whatever the victim is doing then; and a worker may have a fuse: it kills itself in the middle of an operation, between
two system calls.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import select
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from minirun import store
from minirun.errors import Conflict
from minirun.linux import syscalls
from minirun.network import ipam, owners
from minirun.network.addresses import IPV4, IPV6
from minirun.network.network import Network

Note = list[Any]  # [time in ns, "begin" or "end", operation, owner, address, outcome]
CALLS = ("open", "link", "unlink", "write", "pwrite", "pread", "read", "close", "mkdir", "listdir", "lstat")
HELD_AT_MOST = 9  # by one worker
RESTS = 128  # what a worker adds to its number when it has done all it had to do


class Worker:
    """One process: it does ``count`` operations and then rests, its addresses kept, until the field lets it go."""

    def __init__(self, name: str, network: Network, chance: random.Random, log: Path, fuse: tuple[int, int]) -> None:
        self.name, self.network, self.chance = name, network, chance
        self.fuse_operation, self.fuse_calls = fuse
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.held: list[tuple[str, str, int]] = []  # owner, address, lock
        self.number = 0
        self.me = owners.process(os.getpid())
        self.write = os.write  # as it is before the fuse is laid

    def note(self, *values: Any) -> None:
        self.write(self.log, f"{json.dumps([time.monotonic_ns(), *values])}\n".encode())

    def operate(self) -> None:
        """One operation, chosen by chance, with a note before and after it."""
        self.number += 1
        if self.number == self.fuse_operation:
            self._lay_fuse()
        kind = self.chance.choices(("allocate", "reserve", "release", "reconcile"), (45, 10, 38, 7))[0]
        if kind in ("allocate", "reserve") and len(self.held) >= HELD_AT_MOST:
            kind = "release"
        if kind == "release" and not self.held:
            kind = "allocate"
        getattr(self, f"_{kind}")()

    def _allocate(self) -> None:
        self._take("allocate", self.chance.choice((IPV4, IPV4, IPV6)), None)

    def _reserve(self) -> None:
        pool = self.chance.choice(self.network.pools)
        address = pool.subnet.address(self.chance.randrange(2, pool.subnet.size - 1))
        self._take("reserve", pool.subnet.bits, address)

    def _take(self, kind: str, bits: int, address: str | None) -> None:
        owner = f"{self.name}.{self.number}"
        self.note("begin", kind, owner, address, None)
        lock, notes = -1, [self.me]
        if self.chance.random() < 0.5:  # as a container's command does it: the lock is there before the lease
            lock, notes = syscalls.lock(f"{store.state}/locks/{owner}", create=True), []
        try:
            address = ipam.allocate(self.network, owner, notes, bits, address)
        except Conflict as error:
            self._drop_lock(owner, lock)
            self.note("end", kind, owner, None, str(error))
            return
        self.held.append((owner, address, lock))
        self.note("end", kind, owner, address, None)

    def _release(self) -> None:
        owner, address, lock = self.held.pop(self.chance.randrange(len(self.held)))
        self.note("begin", "release", owner, address, ipam.owner_of(self.network.name, address))
        if self.chance.random() < 0.5:
            ipam.Lease(self.network.name, address, owner, []).undo()
        else:
            ipam.release(self.network.name, address, owner)
        self._drop_lock(owner, lock)
        self.note("end", "release", owner, address, None)

    def _reconcile(self) -> None:
        self.note("begin", "reconcile", None, None, None)
        self.note("end", "reconcile", None, None, reconcile(self.network.name))

    def _drop_lock(self, owner: str, lock: int) -> None:
        if lock >= 0:
            os.unlink(f"{store.state}/locks/{owner}")
            os.close(lock)

    def _lay_fuse(self) -> None:
        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                self.fuse_calls -= 1
                if not self.fuse_calls:
                    self.note("died", None, None, None, None)
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **options)

            return call

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        fcntl.flock = counted(fcntl.flock)


def reconcile(network: str) -> list[str]:
    """What a command does before its own work: clean up after dead containers, in lifecycle's order, and the rest."""
    locks = {}
    for owner in syscalls.dead_locks(f"{store.state}/locks"):
        try:
            locks[owner] = syscalls.lock(f"{store.state}/locks/{owner}")
        except (BlockingIOError, FileNotFoundError):
            continue  # another was quicker
    freed = ipam.reconcile(network, lambda lease: lease.owner not in locks)
    for owner, lock in locks.items():
        os.unlink(f"{store.state}/locks/{owner}")
        os.close(lock)
    return freed + ipam.reconcile(network)


class Field:
    """All workers of one history: starts them, kills them, starts others in their place, and waits until all rest."""

    def __init__(self, folder: Path, network: Network, seed: int) -> None:
        self.folder, self.network, self.seed = folder, network, seed
        self.chance = random.Random(seed)
        self.ticks, self.tick = os.pipe2(os.O_CLOEXEC)
        self.gate, self.open_gate = os.pipe2(os.O_CLOEXEC)
        self.pidfds: dict[int, int] = {}  # pidfd: seat
        self.pids: dict[int, int] = {}  # seat: pid
        self.left: dict[int, int] = {}  # seat: operations that it still has to do
        self.lives: dict[int, int] = {}
        self.resting: set[int] = set()
        self.fused: set[int] = set()
        self.deaths: dict[str, int] = {}  # worker: when it was killed
        self.operations = self.kills = self.wanted = self.fuses = 0
        for name in ("log", "state", "state/locks"):
            (folder / name).mkdir()

    def run(self, workers: int, operations: int, kills: int) -> None:
        """Until every worker rests; ``kills`` of them died, one half from outside and the other by its fuse."""
        self.wanted, self.fuses = kills, kills // 2
        moments = set(self.chance.sample(range(1, operations), kills - self.fuses))
        for seat in range(workers):
            self.left[seat], self.lives[seat] = operations // workers, 0
            self._start(seat)
        poll = select.poll()
        poll.register(self.ticks, select.POLLIN)
        while len(self.resting) < workers or self.kills < self.wanted:
            if len(self.resting) == workers:  # a fuse was laid too late to burn down
                self._kill()
            for pidfd in self.pidfds:
                poll.register(pidfd, select.POLLIN)
            ready = [descriptor for descriptor, _ in poll.poll(30000)]
            assert ready, "no worker gets on"
            self._count(moments)
            for pidfd in set(ready) & set(self.pidfds):
                poll.unregister(pidfd)
                self._bury(pidfd)

    def _count(self, moments: set[int]) -> None:
        while select.select([self.ticks], [], [], 0)[0]:
            for seat in os.read(self.ticks, 1):
                if seat >= RESTS:
                    self.resting.add(seat - RESTS)
                    continue
                self.left[seat] -= 1
                self.operations += 1
                if self.operations in moments:
                    self._kill()

    def _kill(self) -> None:
        victim = self.chance.choice([seat for seat in sorted(self.pids) if self._name(seat) not in self.deaths])
        self.deaths[self._name(victim)] = time.monotonic_ns()
        signal.pidfd_send_signal(self._pidfd(victim), signal.SIGKILL)
        self.resting.discard(victim)

    def _bury(self, pidfd: int) -> None:
        seat = self.pidfds.pop(pidfd)
        os.close(pidfd)
        self._count(set())
        pid = self.pids.pop(seat)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"worker {seat} failed: {status}"
        self.kills += 1
        if self._name(seat) in self.deaths:  # not by its fuse, if it had one
            self.fuses += seat in self.fused
        self.resting.discard(seat)
        self.lives[seat] += 1
        self._start(seat)

    def _start(self, seat: int) -> None:
        chance = random.Random(f"{self.seed} {self._name(seat)}")
        fuse = (0, 0)
        self.fused.discard(seat)
        if self.fuses and self.left[seat]:
            self.fuses -= 1
            self.fused.add(seat)
            fuse = (chance.randrange(1, min(40, self.left[seat]) + 1), chance.randrange(1, 13))
        pid = os.fork()
        if not pid:
            self._live(seat, chance, fuse)
        self.pids[seat] = pid
        self.pidfds[os.pidfd_open(pid)] = seat

    def _live(self, seat: int, chance: random.Random, fuse: tuple[int, int]) -> None:
        """The whole life of a worker, in its own process; never returns."""
        code = 1
        try:
            os.close(self.open_gate)
            worker = Worker(self._name(seat), self.network, chance, self.folder / "log" / self._name(seat), fuse)
            for _ in range(self.left[seat]):
                worker.write(self.tick, bytes([seat]))
                worker.operate()
            for owner, address, _ in worker.held:
                worker.note("end", "rest", owner, address, ipam.owner_of(self.network.name, address))
            worker.write(self.tick, bytes([seat + RESTS]))
            os.read(self.gate, 1)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)

    def _name(self, seat: int) -> str:
        return f"{seat}.{self.lives[seat]}"

    def living(self) -> list[str]:
        """The names of the workers that were not killed."""
        return [self._name(seat) for seat in self.pids]

    def _pidfd(self, seat: int) -> int:
        return next(pidfd for pidfd, other in self.pidfds.items() if other == seat)

    def end(self) -> None:
        """Let everybody end, with all that they hold."""
        os.close(self.open_gate)
        for pidfd, seat in self.pidfds.items():
            os.waitpid(self.pids[seat], 0)
            os.close(pidfd)
        for descriptor in (self.ticks, self.tick, self.gate):
            os.close(descriptor)

    def notes(self) -> dict[str, list[Note]]:
        """What each worker has written down; a line that was cut short by its death does not count."""
        found = {}
        for path in (self.folder / "log").iterdir():
            lines = path.read_text().split("\n")[:-1]
            found[path.name] = [json.loads(line) for line in lines]
            if path.name in self.deaths and all(note[1] != "died" for note in found[path.name]):
                found[path.name].append([self.deaths[path.name], "died", None, None, None, None])
        return found


Hold = tuple[int, int, str, str]  # from, until, address, owner


def holds(notes: dict[str, list[Note]]) -> list[Hold]:
    """From when until when an address was held, beyond doubt. A worker that was killed lived until its last note."""
    found = []
    for lines in notes.values():
        since: dict[str, tuple[int, str]] = {}
        for when, phase, kind, owner, address, _ in lines:
            if phase == "end" and kind in ("allocate", "reserve") and address:
                since[owner] = when, address
            if phase == "begin" and kind == "release":
                begin, address = since.pop(owner)
                found.append((begin, when, address, owner))
        last = max((line[0] for line in lines), default=0)
        found += [(begin, last, address, owner) for owner, (begin, address) in since.items()]
    return found


def violations(notes: dict[str, list[Note]]) -> list[str]:
    """What must not have happened, each as a sentence."""
    every = sorted(holds(notes))
    return [*_held_twice(every), *_lost(notes), *_freed(notes, every)]


def _held_twice(every: Iterable[Hold]) -> Iterable[str]:
    latest: dict[str, Hold] = {}
    for hold in every:
        before = latest.get(hold[2])
        if before and hold[0] < before[1]:
            yield f"{hold[2]} was held by {before[3]} and by {hold[3]} at once"
        if not before or hold[1] > before[1]:
            latest[hold[2]] = hold


def _lost(notes: dict[str, list[Note]]) -> Iterable[str]:
    for lines in notes.values():
        for _, phase, kind, owner, address, outcome in lines:
            looked = (phase, kind) in (("begin", "release"), ("end", "rest"))
            if looked and outcome != owner:
                yield f"{address} was lost: {owner} lived and had it, and its lease is of {outcome}"


def _freed(notes: dict[str, list[Note]], every: list[Hold]) -> Iterable[str]:
    for lines in notes.values():
        begin = 0
        for when, phase, kind, _, _, outcome in lines:
            if kind == "reconcile" and phase == "begin":
                begin = when
            for address in outcome if kind == "reconcile" and phase == "end" else []:
                for since, until, held, owner in every:
                    if held == address and since < begin and when < until:
                        yield f"{address} was freed, and {owner} lived and had it"
