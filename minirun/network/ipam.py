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
from minirun.network.addresses import IPV4, IPV6
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from minirun.network.network import Network


def state_directory(network: str) -> str:
    """Where the state of a network is."""
    return f"{store.state}/networks/{network}"


def lease_path(network: str, address: str) -> str:
    """The file of one lease."""
    return f"{state_directory(network)}/leases/{address}"


_allocated: set[tuple[str, str, str]] = set()  # by this process: its plan need not ask again


def allocate(network: Network, owner: str, notes: Sequence[str], bits: int = IPV4, address: str | None = None) -> str:
    """Lease ``address``, or the next free one, to ``owner`` and return it. Raises Conflict if there is none.

    Whoever calls it is already known to be alive to ``reconcile``'s ``alive``: else the lease is cleaned away at once.
    """
    if address:
        address = check(network, address, bits)
        reserve(network.name, address, owner, notes)
        _allocated.add((network.name, address, owner))
        return address
    with _Candidate(network.name, owner, notes) as candidate:
        for address in _rotation(network, bits):
            if candidate.link(address):
                _remember(network.name, address)
                _allocated.add((network.name, address, owner))
                return address
    raise _full(network)


def propose(network: Network, bits: int = IPV4, address: str | None = None) -> str:
    """The address that ``allocate`` would give, without leasing it (for ``explain``)."""
    if address:
        return check(network, address, bits)
    for candidate in _rotation(network, bits):
        if owner_of(network.name, candidate) is None:
            return candidate
    raise _full(network)


def reserve(network: str, address: str, owner: str, notes: Sequence[str] = ()) -> None:
    """Lease this very address; having it already is fine. Raises Conflict if another container has it."""
    with _Candidate(network, owner, notes) as candidate:
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
    held = read(network, address)
    return held.owner if held else None


class Held:
    """One lease: its owner, and what it notes for others (port, mac, names, dns) by its first word."""

    __slots__ = ("notes", "owner")

    def __init__(self, text: str) -> None:
        self.owner, _, rest = text.strip().partition("\n")
        self.notes = {key: value for key, _, value in (line.partition(" ") for line in rest.split("\n")) if key}


def read(network: str, address: str) -> Held | None:
    """The lease of an address, or None."""
    text = store.read(lease_path(network, address))
    return None if text is None else Held(text)


def held(network: str) -> dict[str, Held]:
    """Every leased address. Reads them all: for listings and cleaning, not for a start."""
    found = ((address, read(network, address)) for address in store.entries(f"{state_directory(network)}/leases"))
    return {address: lease for address, lease in found if lease is not None}


def leases(network: str) -> dict[str, str]:
    """Every leased address and its owner."""
    return {address: lease.owner for address, lease in held(network).items()}


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


def check(network: Network, address: str, bits: int = IPV4) -> str:
    """The address as we write it, if the network can give it. Raises UsageError."""
    flag = "--ip6" if bits == IPV6 else "--ip"
    if not addresses.is_address(address) or addresses.bits(address) != bits:
        raise UsageError(f"{flag} {address}", f"not an {'IPv6' if bits == IPV6 else 'IPv4'} address")
    address = addresses.canonical(address)
    pool = network.pool(address)
    if pool is None:
        subnets = ", ".join(str(pool.subnet) for pool in network.of_family(bits)) or "no subnet of that family"
        raise UsageError(f"{flag} {address}", f"not an address of network {network.name}, which has {subnets}")
    place = addresses.number(address) - pool.subnet.base
    if not 0 < place < pool.subnet.size - (bits == IPV4):
        raise UsageError(f"{flag} {address}", f"not an address for a container in {pool.subnet}")
    if address == pool.gateway:
        raise UsageError(f"{flag} {address}", "that is the gateway of the network")
    return address


class Lease(Step):
    """Holds an address for a container; mostly made before the plan, which needs to know the address."""

    kind = "lease"
    fields = ("network", "address", "owner", "notes")
    network: str
    address: str
    owner: str
    notes: list[str]

    def sh(self) -> str:
        path = lease_path(self.network, self.address)
        lines = " ".join([self.owner, *(f"'{note}'" for note in self.notes)])
        return (
            f"mkdir -p {os.path.dirname(path)}; (set -C; printf '%s\\n' {lines} > {path})  # -C: fails if it is taken"
        )

    def do(self) -> None:
        if (self.network, self.address, self.owner) not in _allocated:
            reserve(self.network, self.address, self.owner, self.notes)

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

    def __init__(self, network: str, owner: str, notes: Sequence[str]) -> None:
        folder, flags = f"{state_directory(network)}/leases", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
        try:
            self.file = os.open(folder, flags, 0o600)
        except FileNotFoundError:
            self.file = os.open(store.directory(folder), flags, 0o600)
        self.folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.write(self.file, "".join(f"{line}\n" for line in (owner, *notes)).encode())

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


def _rotation(network: Network, bits: int) -> Iterator[str]:
    """Every address for containers, beginning after the one given last.

    Going round keeps an address that was just freed out of use as long as possible: neighbours, connection tracking
    and clients may still mean its old holder.
    """
    last = store.read(f"{state_directory(network.name)}/last") or ""
    for pool in network.of_family(bits):
        block, most = pool.range or pool.subnet, 1 << 20
        start = addresses.number(last) - block.base if addresses.is_address(last) and block.contains(last) else 0
        for step in range(min(block.size, most)):
            address = block.address((start + 1 + step) % block.size)
            place = addresses.number(address) - pool.subnet.base
            # never the first address, nor IPv4's last: name and broadcast
            if address != pool.gateway and 0 < place < pool.subnet.size - (bits == IPV4):
                yield address


def _remember(network: str, address: str) -> None:
    """Note the address given last. A hint: two writers at once, half of it, or none, cost the next one some tries."""
    store.create(f"{state_directory(network)}/last", address)


def _full(network: Network) -> Conflict:
    return Conflict(
        f"network {network.name}",
        f"no free address is left in {', '.join(str(pool.range or pool.subnet) for pool in network.pools)}",
        "remove a container, or create a larger network with --subnet",
    )
