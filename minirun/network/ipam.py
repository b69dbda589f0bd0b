"""Which container holds which address: one file per lease, ``<state>/networks/<network>/leases/<address>``.

The file holds the id of the container. It appears at once with its content (a nameless file that is then linked), and
link(2) refuses a name that is taken: so no two containers get one address, nobody ever reads an unfinished lease, and
no lock is needed. Leases lie in the state folder, which is gone after a reboot, and so are the containers that held
them: a reboot leaks nothing.
"""

from __future__ import annotations

import os

from minirun import store
from minirun.errors import Conflict, UsageError
from minirun.network import addresses
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


def state_directory(network: str) -> str:
    """Where the state of a network is."""
    return f"{store.state}/networks/{network}"


def lease_path(network: str, address: str) -> str:
    """The file of one lease."""
    return f"{state_directory(network)}/leases/{address}"


_allocated: set[tuple[str, str, str]] = set()  # by this process: its plan need not ask again


def allocate(network: dict[str, Any], owner: str, address: str | None = None) -> str:
    """Lease ``address``, or the next free one, to ``owner`` and return it. Raises Conflict if there is none.

    Whoever calls it is already known to be alive to ``reconcile``'s ``alive``: else the lease is cleaned away at once.
    """
    if address:
        check(network, address)
        reserve(network["name"], address, owner)
        return address
    with _Candidate(network["name"], owner) as candidate:
        for address in _rotation(network):
            if candidate.link(address):
                _remember(network["name"], address)
                _allocated.add((network["name"], address, owner))
                return address
    raise _full(network)


def propose(network: dict[str, Any], address: str | None = None) -> str:
    """The address that ``allocate`` would give, without leasing it (for ``explain``)."""
    if address:
        check(network, address)
        return address
    for candidate in _rotation(network):
        if owner_of(network["name"], candidate) is None:
            return candidate
    raise _full(network)


def reserve(network: str, address: str, owner: str) -> None:
    """Lease this very address; having it already is fine. Raises Conflict if another container has it."""
    with _Candidate(network, owner) as candidate:
        if candidate.link(address):
            return
    holder = owner_of(network, address)
    if holder != owner:
        raise Conflict(f"address {address} of network {network}", f"container {(holder or '?')[:12]} has it")


def release(network: str, address: str, owner: str) -> None:
    """Give an address back; if it is free or another's, nothing happens."""
    if owner_of(network, address) == owner:
        try:
            os.unlink(lease_path(network, address))
        except FileNotFoundError:
            pass


def owner_of(network: str, address: str) -> str | None:
    """The id of the container that has this address, or None."""
    text = store.read(lease_path(network, address))
    return None if text is None else text.strip()


def leases(network: str) -> dict[str, str]:
    """Every leased address and its owner. Reads them all: for listings and cleaning, not for a start."""
    found = ((address, owner_of(network, address)) for address in store.entries(f"{state_directory(network)}/leases"))
    return {address: owner for address, owner in found if owner is not None}


def reconcile(network: str, alive: Callable[[str], bool]) -> list[str]:
    """Release the leases of owners that are not alive any more; return their addresses."""
    gone = [(address, owner) for address, owner in leases(network).items() if not alive(owner)]
    for address, owner in gone:
        release(network, address, owner)
    return [address for address, _ in gone]


def release_owner(owner: str) -> None:
    """Give back whatever a container has, on any network: for one that died before it noted what it took."""
    for network in store.entries(f"{store.state}/networks"):
        reconcile(network, lambda other: other != owner)


def check(network: dict[str, Any], address: str) -> None:
    """Refuse an address that the network cannot give. Raises UsageError."""
    subnet = addresses.Subnet.parse(network["subnet"])
    if not addresses.is_address(address):
        raise UsageError(f"--ip {address}", "not an IPv4 address")
    place = addresses.number(address) - subnet.base
    if not 0 < place < subnet.size - 1:
        raise UsageError(f"--ip {address}", f"not an address for a container in {subnet}")
    if address == network["gateway"]:
        raise UsageError(f"--ip {address}", "that is the gateway of the network")


class Lease(Step):
    """Holds an address for a container; mostly made before the plan, which needs to know the address."""

    kind = "lease"
    fields = ("network", "address", "owner")
    network: str
    address: str
    owner: str

    def sh(self) -> str:
        path = lease_path(self.network, self.address)
        return f"mkdir -p {os.path.dirname(path)}; (set -C; echo {self.owner} > {path})  # -C: fails if it is taken"

    def do(self) -> None:
        if (self.network, self.address, self.owner) not in _allocated:
            reserve(self.network, self.address, self.owner)

    def undo(self) -> None:
        mine = (self.network, self.address, self.owner)
        if mine not in _allocated:
            release(*mine)
            return
        _allocated.remove(mine)  # ours for certain: nobody else could get it since
        try:
            os.unlink(lease_path(self.network, self.address))
        except FileNotFoundError:
            pass


class _Candidate:
    """A lease that has no name yet."""

    def __init__(self, network: str, owner: str) -> None:
        folder, flags = f"{state_directory(network)}/leases", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
        try:
            self.file = os.open(folder, flags, 0o600)
        except FileNotFoundError:
            self.file = os.open(store.directory(folder), flags, 0o600)
        self.folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.write(self.file, f"{owner}\n".encode())

    def __enter__(self) -> _Candidate:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.file)
        os.close(self.folder)

    def link(self, address: str) -> bool:
        """Give the lease its name; False if the address is taken."""
        try:
            # Through /proc, as linkat(2) shows for O_TMPFILE; dst_dir_fd makes Python call linkat at all.
            os.link(f"/proc/self/fd/{self.file}", address, dst_dir_fd=self.folder, follow_symlinks=True)
        except FileExistsError:
            return False
        return True


def _rotation(network: dict[str, Any]) -> Iterator[str]:
    """Every address for containers, beginning after the one given last.

    Going round keeps an address that was just freed out of use as long as possible: neighbours, connection tracking
    and clients may still mean its old holder.
    """
    subnet = addresses.Subnet.parse(network["subnet"])
    last = store.read(f"{state_directory(network['name'])}/last") or ""
    start = addresses.number(last) - subnet.base if addresses.is_address(last) else 1
    for step in range(subnet.size):
        place = (start + step) % (subnet.size - 2) + 1  # never the first address nor the last: name and broadcast
        address = addresses.text(subnet.base + place)
        if address != network["gateway"]:
            yield address


def _remember(network: str, address: str) -> None:
    """Note the address given last. A hint: two writers at once, or none, cost the next one some more tries."""
    store.write(f"{state_directory(network)}/last", address)


def _full(network: dict[str, Any]) -> Conflict:
    return Conflict(
        f"network {network['name']}",
        f"no free address is left in {network['subnet']}",
        "remove a container, or create a larger network with --subnet",
    )
