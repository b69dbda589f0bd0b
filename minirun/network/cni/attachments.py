"""What we know of attachments: one file each, below ``<state>/cni``, written before the first object of the kernel.

    <state>/cni/locks/<id>                      held by the plugin as long as it works on the attachment
    <state>/cni/networks/<network>/<id>.json    the attachment: who asked, and the plan that undoes it
    <state>/cni/boot                            the boot of which all that is

The id is made of what the specification calls the key of an attachment: network, container, interface. A lock that
nobody holds is what a killed plugin leaves. Its runtime heard no answer, so what it began is undone, by the next
plugin or by any command of minirun. There is no process that lives as long as an attachment: it ends by DEL, by GC, or
with the machine, and so do its leases (see ``alive``).
"""

from __future__ import annotations

import os

from minirun import step, store, strict_json
from minirun.errors import MinirunError
from minirun.linux import syscalls
from minirun.network import ipam, nat
from minirun.network import owners as liveness
from minirun.network.cni import plug

try:
    from _sha256 import sha256  # type: ignore[import-not-found]
except ImportError:
    from _sha2 import sha256  # type: ignore[import-not-found]  # its name since Python 3.12

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_LOCKS = "locks"
_NETWORKS = "networks"  # a folder of their own, since a network may be called "locks"


def identity(network: str, container: str, interface: str) -> str:
    """The id of an attachment: 64 hexadecimal digits, as a container's, since cables and leases are named after it.

    ``network`` is the name in the configuration. What each of the three may hold, no NUL can be a part of.
    """
    digest: str = sha256(f"{network}\0{container}\0{interface}".encode()).hexdigest()
    return digest


def folder() -> str:
    """Where everything of attachments is."""
    return f"{store.state}/cni"


def path(network: str, owner: str) -> str:
    """The file of an attachment to the network of minirun with that name."""
    return f"{_place(network)}/{owner}.json"


def _place(network: str) -> str:
    return f"{folder()}/{_NETWORKS}/{network}"


def alive(network: str, owner: str) -> str:
    """The line of a lease that says how long an attachment lives: as long as it has a record (see ``owners``)."""
    return liveness.file(path(network, owner))


def load(network: str, owner: str) -> dict[str, Any] | None:
    """The record of an attachment, or None."""
    record: dict[str, Any] | None = store.read_json(path(network, owner))
    return record


def begin(record: dict[str, Any]) -> None:
    """Write the record of a new attachment, whose plan is still empty; from now on its owner lives (``alive``).

    Raises FileExistsError if there is such an attachment.
    """
    store.directory(folder(), _NETWORKS, record["network"])
    store.create_whole(path(record["network"], record["id"]), strict_json.dumps(record) + "\n")


def save(record: dict[str, Any]) -> None:
    """Replace the record of an attachment; killed over it, we leave a name that ``forget`` knows."""
    final = path(record["network"], record["id"])
    store.create(f"{final}.new", strict_json.dumps(record) + "\n")
    os.rename(f"{final}.new", final)


def records(network: str) -> Iterator[dict[str, Any]]:
    """The attachments to a network."""
    for name in store.entries(_place(network)):
        if name.endswith(".json") and (record := load(network, name[:-5])):
            yield record


def networks() -> list[str]:
    """The networks of minirun that have, or had, attachments."""
    return store.entries(f"{folder()}/{_NETWORKS}")


def owners() -> set[str]:
    """The ids of all attachments, and of those that a plugin is at work on."""
    found = {name[:-5] for n in networks() for name in store.entries(_place(n)) if name.endswith(".json")}
    dead = set(syscalls.dead_locks(f"{folder()}/{_LOCKS}"))
    return found | {name for name in store.entries(f"{folder()}/{_LOCKS}") if name not in dead}


class Lock:
    """Holds an attachment: nobody else works on it meanwhile. Left by an error it stays, as a sign for others."""

    __slots__ = ("descriptor", "dropped", "path")

    def __init__(self, owner: str, wait: bool = True) -> None:
        """Take the lock and, with ``wait``, wait for whoever has it; else raise BlockingIOError."""
        self.dropped = False
        self.path = f"{folder()}/{_LOCKS}/{owner}"
        while True:
            try:
                self.descriptor = self._take(wait)
                return
            except FileNotFoundError:  # removed by whoever had it, while we waited
                continue

    def _take(self, wait: bool) -> int:
        try:
            return syscalls.lock(self.path, True, wait)
        except FileExistsError:
            return syscalls.lock(self.path, False, wait)
        except FileNotFoundError:
            store.directory(os.path.dirname(self.path))
            return syscalls.lock(self.path, True, wait)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.drop()
        os.close(self.descriptor)

    def drop(self) -> None:
        """Say that all is well: nothing of what we did has to be undone. Once: then the name may be another's lock."""
        if self.dropped:
            return
        self.dropped = True
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass


def forget(network: str, owner: str) -> list[Exception]:
    """Undo an attachment, whatever of it exists, and forget it; the caller holds its lock. Returns what remains."""
    record = load(network, owner)
    planned = record["plan"] if record else []
    failures = step.undo_all([step.load(item) for item in planned]) if planned else _stray(network, owner)
    for name in (f"{path(network, owner)}.new", path(network, owner)) if not failures else ():
        try:
            os.unlink(name)
        except FileNotFoundError:
            pass
    return failures


def _stray(network: str, owner: str) -> list[Exception]:
    """Remove what bears the mark of an attachment that has no plan: its published ports, its cable, its leases.

    It lost its record, or was killed before the plan was made. The leases last: an address is free when nothing speaks
    with it any more.
    """
    note = store.read_json(f"{ipam.state_directory(network)}/published/{owner}")
    failures = step.undo_all([step.load(note)] if note else [])
    try:
        plug.remove_cable(owner)
        held = {address: lease for address, lease in ipam.held(network).items() if lease.owner == owner}
        for address, lease in held.items():
            if claims := nat.claims_of(address, lease):
                claims.undo()
            ipam.release(network, address, owner)
    except (OSError, MinirunError) as error:
        failures.append(error)
    return failures


def reconcile(dead: list[str] | None = None) -> list[str]:
    """Undo what killed plugins have begun; returns a line for each that could not be undone.

    ``dead`` are the locks that nobody holds, if the caller has looked already.
    """
    problems = []
    for owner in syscalls.dead_locks(f"{folder()}/{_LOCKS}") if dead is None else dead:
        try:
            lock = Lock(owner, wait=False)
        except BlockingIOError:  # another one was quicker
            continue
        try:
            _undo_dead(owner)
            lock.drop()
        except (MinirunError, OSError) as error:
            problems.append(f"attachment {owner[:12]} cannot be cleaned up: {error}")
        finally:
            os.close(lock.descriptor)
    return problems


def _undo_dead(owner: str) -> None:
    known = [network for network in networks() if os.path.exists(path(network, owner))]
    failures = [failure for network in known for failure in forget(network, owner)]
    if failures:
        raise failures[0]


def begin_boot() -> None:
    """Forget everything of an earlier boot, if the state folder is a place that outlives one; its kernel is gone."""
    boot = store.read(liveness.BOOT_ID) or ""
    if store.read(f"{folder()}/boot") == boot:
        return
    for network in networks():
        for record in records(network):
            if record["boot"] != boot:
                with Lock(record["id"]):
                    forget(network, record["id"])
    try:
        os.unlink(f"{folder()}/boot")
    except FileNotFoundError:
        pass
    try:
        store.create_whole(f"{store.directory(folder())}/boot", boot)
    except FileExistsError:  # another plugin was quicker
        pass
