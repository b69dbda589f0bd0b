"""Which container holds which address: one file per lease, ``<state>/networks/<network>/leases/<address>``.

    3f9a12ab34cd…                         the owner: for a container its id
    port mr3f9a12ab34cd                   notes for others, a word and a value each: the cable's end on the host, what
    names web 3f9a12ab34cd                the name server answers to; mac, dns: where they do not follow from elsewhere
    alive process 4711 88271 6fb2c3…      how to see that the owner lives, if it is no container: see ``owners``

The file appears at once with its content (a nameless file that is then linked), and link(2) refuses a name that is
taken: so no two owners get one address, nobody ever reads an unfinished lease, and allocation needs no lock. Who takes
a lease away from a dead owner locks the file first, and looks whether it still has its name: see ``release``.

Leases lie in the state folder, which is gone after a reboot, and so are the containers that held them.
"""

from __future__ import annotations

import os
from errno import EEXIST, ENOTEMPTY

from minirun import store
from minirun.errors import Conflict, NotFound, UsageError
from minirun.network import addresses
from minirun.network.addresses import IPV4, IPV6
from minirun.network.network import PORTS_PER_BRIDGE
from minirun.network.rotation import Rotation, usable
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minirun.network.network import Network

LARGEST = 1 << 16  # bytes of a lease that are read
UNKNOWN = "?"  # the owner of a lease that cannot be read, or does not say one
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # whatever lies there: never wait, never follow
_HEX = frozenset("0123456789abcdefABCDEF")
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:/@-")  # of owners and notes
_FLAGS = {IPV4: ("--ip", "an IPv4"), IPV6: ("--ip6", "an IPv6")}


def state_directory(network: str) -> str:
    """Where the state of a network is."""
    return f"{store.state}/networks/{network}"


def lease_path(network: str, address: str) -> str:
    """The file of one lease."""
    return f"{_folder(network)}/{address}"


def _folder(network: str) -> str:
    return f"{state_directory(network)}/leases"


_allocated: set[tuple[str, str, str]] = set()  # by this process: its plan need not ask again


def allocate(
    network: Network, owner: str, notes: Sequence[str] = (), bits: int = IPV4, address: str | None = None
) -> str:
    """Lease ``address``, or the next free one of that family, to ``owner`` and return it.

    ``notes`` are the further lines of the lease. The owner lives already, or its lease would be cleaned away at once.
    Raises Conflict if the address is taken or none is left, UsageError if it is not one that the network has.
    """
    if address:
        address = check(network, address, bits)
        reserve(network.name, address, owner, notes)
    else:
        address = _next_free(network, owner, notes, bits)
    _allocated.add((network.name, address, owner))
    return address


def propose(network: Network, bits: int = IPV4, address: str | None = None) -> str:
    """The address that ``allocate`` would give, without leasing it (for ``explain``); raises the same."""
    if address:
        return check(network, address, bits)
    rotation = _rotation(network, bits)
    for names in (None, _names(network.name)):
        for address in rotation.look(names):
            if not os.path.lexists(lease_path(network.name, address)):
                return address
    raise _full(network, bits, rotation)


def reserve(network: str, address: str, owner: str, notes: Sequence[str] = ()) -> None:
    """Lease this very address; having it already is fine. Raises Conflict if a living owner has it."""
    with _Candidate(network, owner, notes) as candidate:
        if candidate.link(address) or owner_of(network, address) == owner:
            return
        _take_away(network, address, _dead)
        if candidate.link(address):
            return
    holder = owner_of(network, address) or UNKNOWN
    holder = "somebody" if holder == UNKNOWN else f"container {holder[:12]}"
    raise Conflict(f"address {address} of network {network}", f"{holder} has it")


def release(network: str, address: str, owner: str) -> None:
    """Give an address back; if it is free or another's, nothing happens."""
    _allocated.discard((network, address, owner))
    _take_away(network, address, lambda lease: lease.owner == owner)


def forget(owner: str) -> None:
    """Know no longer that we leased anything to ``owner`` ourselves: somebody else may have given it back."""
    _allocated.difference_update([lease for lease in _allocated if lease[2] == owner])


def release_owner(owner: str) -> None:
    """Give back whatever a container has, on any network: for one that died before it noted what it took."""
    for network in store.entries(f"{store.state}/networks"):
        reconcile(network, lambda lease: lease.owner != owner)


def reconcile(network: str, alive: Callable[[Held], bool] | None = None) -> list[str]:
    """Release the leases of owners that are not alive any more; return their addresses.

    Each lease says how its owner is found to be alive (see ``owners``), unless the caller knows better. A lease that
    cannot be understood is never released: somebody may have the address.
    """
    dead = _dead if alive is None else (lambda lease: not alive(lease))
    found = [address for address, lease in held(network).items() if lease.owner != UNKNOWN and dead(lease)]
    return [address for address in found if _take_away(network, address, dead)]


def close(network: str) -> None:
    """Let nobody lease an address of a network that is being removed. Raises Conflict if somebody has one.

    The caller holds the lock of networks. rmdir(2) looks and acts in one: whoever comes later finds no folder, waits
    for the lock to make one, and then finds no network.
    """
    reconcile(network)
    try:
        os.rmdir(_folder(network))
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (ENOTEMPTY, EEXIST):
            raise
        raise _used(network) from None


def _used(network: str) -> Conflict:
    """Who uses the network, in words: containers of ours, and CNI attachments by what their runtime calls them."""
    ours, others = set(), set()
    for lease in held(network).values():
        kind, _, told = lease.notes.get("alive", "").partition(" ")
        record = store.read_json(told.rpartition(" ")[0]) if kind == "file" else None
        if isinstance(record, dict) and "container" in record:
            others.add(f"{record['container']} ({record.get('interface', '')})")
        else:
            ours.add(lease.owner[:12])
    if others:
        why = f"CNI attachments use it: {' '.join(sorted(others))}"
        return Conflict(f"network {network}", why, "let their runtime remove them (CNI DEL, GC)")
    why = f"containers use it: {' '.join(sorted(ours or _names(network)))}"
    return Conflict(f"network {network}", why, f"remove them first, or: minirun network rm -f {network}")


def owner_of(network: str, address: str) -> str | None:
    """Who has this address (``UNKNOWN`` if the lease cannot be read), or None if nobody has."""
    lease = read(network, address)
    return lease.owner if lease else None


class Held:
    """One lease as it was read: the owner, and by their first word the notes (port, mac, names, dns, alive).

    A line that could not be a note of ours is passed over: what is left may be told to nft, and to clients.
    """

    __slots__ = ("notes", "owner")

    def __init__(self, text: bytes) -> None:
        owner, *lines = text.decode("ascii", "replace").split("\n")
        self.owner = owner if 0 < len(owner) <= 256 and _PLAIN.issuperset(owner) else UNKNOWN
        notes = (line.partition(" ") for line in lines)
        self.notes = {word: value for word, _, value in notes if _is_note(word, value)}


def read(network: str, address: str) -> Held | None:
    """The lease of an address, or None. Never an error: what cannot be read has the owner ``UNKNOWN``."""
    try:
        descriptor = os.open(lease_path(network, address), _READ)
    except FileNotFoundError:
        return None
    except OSError:  # a symbolic link, or a broken file system
        return Held(b"")
    try:
        return Held(_text(descriptor))
    finally:
        os.close(descriptor)


def held(network: str) -> dict[str, Held]:
    """Every lease by its address, read one by one: for listings and cleaning, not for a start."""
    names = (name for name in sorted(_names(network)) if addresses.is_address(name))
    found = ((address, read(network, address)) for address in names)
    return {address: lease for address, lease in found if lease is not None}


def leases(network: str) -> dict[str, str]:
    """Every leased address and its owner."""
    return {address: lease.owner for address, lease in held(network).items()}


def check(network: Network, address: str, bits: int = IPV4) -> str:
    """The address as we write it, if a container can have it in this network. Raises UsageError."""
    flag, kind = _FLAGS[bits]
    if not addresses.is_address(address) or addresses.bits(address) != bits:
        raise UsageError(f"{flag} {address}", f"not {kind} address")
    address = addresses.canonical(address)
    pool = network.pool(address)
    if pool is None:
        subnets = ", ".join(str(pool.subnet) for pool in network.of_family(bits)) or "no subnet of that family"
        raise UsageError(f"{flag} {address}", f"not an address of network {network.name}, which has {subnets}")
    if address in (pool.gateway for pool in network.pools):
        raise UsageError(f"{flag} {address}", "that is the gateway of the network")
    first, last = usable(pool)
    if not first <= addresses.number(address) <= last:
        raise UsageError(f"{flag} {address}", f"not an address for a container in {pool.subnet}")
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
        lines = " ".join([self.owner, *("'" + note.replace("'", "'\\''") + "'" for note in self.notes)])
        # set -C: fails if the file exists
        return f"mkdir -p -m 755 {os.path.dirname(path)}; (set -C; printf '%s\\n' {lines} > {path})"

    def do(self) -> None:
        if (self.network, self.address, self.owner) not in _allocated:
            reserve(self.network, self.address, self.owner, self.notes)

    def undo(self) -> None:
        mine = (self.network, self.address, self.owner)
        if mine not in _allocated:
            release(*mine)
            return
        _allocated.remove(mine)  # ours for certain: we live, so nobody took it away
        try:
            os.unlink(lease_path(self.network, self.address))
        except FileNotFoundError:
            pass


class _Candidate:
    """A lease that has no name yet. Raises UsageError for a note that is not one line."""

    __slots__ = ("file", "network")

    def __init__(self, network: str, owner: str, notes: Sequence[str]) -> None:
        lines = (owner, *notes)
        if any("\n" in line for line in lines):  # it would say more than one thing
            raise UsageError(f"lease of {owner[:12]!r}", "a line break in a note")
        flags = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
        self.network = network
        try:
            self.file = os.open(_folder(network), flags, 0o644)
        except FileNotFoundError:
            self.file = os.open(_make_folder(network), flags, 0o644)
        try:
            store.write_all(self.file, "".join(f"{line}\n" for line in lines).encode())
        except OSError as error:
            os.close(self.file)
            raise OSError(error.errno, error.strerror, _folder(network)) from None

    def __enter__(self) -> _Candidate:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.file)

    def link(self, address: str) -> bool:
        """Give the lease its name; False if the address is taken."""
        try:
            # Through /proc, as linkat(2) shows for O_TMPFILE. The directory only makes Python call linkat at all: of an
            # absolute path it has no meaning.
            os.link(f"/proc/self/fd/{self.file}", lease_path(self.network, address), src_dir_fd=self.file)
        except FileExistsError:
            return False
        except FileNotFoundError:
            raise _removed(self.network) from None
        return True


def _make_folder(network: str) -> str:
    """The folder of leases, made anew: for the network's first lease, also after a reboot. Raises NotFound."""
    from minirun.network.network import Lock, record_path

    with Lock():
        if not os.path.exists(record_path(network)):
            raise _removed(network)
        return store.directory(_folder(network), mode=0o755)  # the name server reads them, and is nobody


def _removed(network: str) -> NotFound:
    return NotFound(f"network {network}", "it was removed meanwhile", "see: minirun network ls")


def _next_free(network: Network, owner: str, notes: Sequence[str], bits: int) -> str:
    """Lease the first address in the rotation that link(2) lets us have."""
    with (
        _Candidate(network.name, owner, notes) as candidate,
        _rotation(network, bits) as rotation,
    ):
        # Mostly the first address of the first round. Only if none is left: what is really taken, and by whom.
        for prepare in (None, _names, _names_of_the_living):
            if prepare:
                rotation.recount(prepare(network.name))
            for address in rotation.addresses(new=bool(prepare)):
                if candidate.link(address):
                    rotation.took(address)
                    return address
                rotation.taken(address)
    raise _full(network, bits, rotation)


def _rotation(network: Network, bits: int) -> Rotation:
    """The addresses of a family. A container's bridge follows from its first address, which is IPv4's if it has one."""
    lap = 0 if bits == IPV6 and network.ipv4 else PORTS_PER_BRIDGE
    return Rotation(state_directory(network.name), network.of_family(bits), lap)


def _names_of_the_living(network: str) -> list[str]:
    reconcile(network)
    return _names(network)


def _names(network: str) -> list[str]:
    """What lies in the folder of leases: addresses, and whatever else somebody put there."""
    try:
        return os.listdir(_folder(network))
    except FileNotFoundError:
        return []


def _dead(lease: Held) -> bool:
    from minirun.network import owners

    return not owners.alive(lease)


def _is_note(word: str, value: str) -> bool:
    if word == "alive":
        return value.isprintable()
    if word == "port":
        return 0 < len(value) < 16 and _PLAIN.issuperset(value)  # IFNAMSIZ
    if word == "mac":
        pairs = value.split(":")
        return len(pairs) == 6 and all(len(pair) == 2 and _HEX.issuperset(pair) for pair in pairs)
    return bool(word and value.strip()) and _PLAIN.issuperset(word + value.replace(" ", ""))


def _text(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, LARGEST)
    except OSError:  # a directory, a pipe
        return b""


def _take_away(network: str, address: str, condition: Callable[[Held], bool]) -> bool:
    """Remove the lease of an address if it meets a condition; whether it was removed.

    Two who clean up may both have seen a dead owner, one removed its lease, and a third got the address: the second
    must not remove the lease of that one. So a lease is removed only with its file locked, and only by who finds
    that the locked file still is the one of that name; nobody replaces a lease while it has its name.
    """
    import fcntl

    path = lease_path(network, address)
    try:
        descriptor = os.open(path, _READ)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not os.path.samestat(os.fstat(descriptor), os.lstat(path)) or not condition(Held(_text(descriptor))):
            return False
        os.unlink(path)
        return True
    except FileNotFoundError:  # somebody else did
        return False
    finally:
        os.close(descriptor)


def _full(network: Network, bits: int, rotation: Rotation) -> Conflict:
    pools = network.of_family(bits)
    flag, kind = _FLAGS[bits]
    if not pools:
        return Conflict(f"network {network.name}", f"it has no subnet of {kind.split()[1]}", "create one that has")
    blocks, size = ", ".join(str(pool.range or pool.subnet) for pool in pools), rotation.size()
    if size <= 0:
        remedy = "create a network with a larger --subnet"
        return Conflict(f"network {network.name}", f"{blocks} has no address for a container", remedy)
    remedy = "remove a container, or create a larger network with --subnet"
    if any(pool.range for pool in pools):
        remedy += f", or choose an address outside of the --ip-range with {flag}"
    return Conflict(f"network {network.name}", f"no free address is left in {blocks}: all {size} are leased", remedy)
