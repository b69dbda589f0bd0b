"""Who is called what, and who may know it.

A container may ask for whoever shares a network with it, and is known by its address alone: that it has no other is
what the firewall sees to. All is kept in dictionaries whose keys are names as they are on the wire, so an answer
costs the same with ten and with ten thousand containers.

A plain name (one label) is never asked of anybody else, nor is what lies below ``minirun.internal``: outside it means
nothing, and would tell strangers what runs here. So is no reverse name of an address that is of our networks, and no
``web.mynet``, whether or not the asker is on mynet; unless mynet is called like a domain of the world (``public``).
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_pton

from minirun.network.nameserver import public, wire
from minirun.network.nameserver.wire import NOERROR, NXDOMAIN, REFUSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FORWARD = -1  # instead of an RCODE: it is not for us to say
DOMAIN = b"\7minirun\10internal\0"  # names.DOMAIN
LOCALHOST = b"\11localhost\0"
_REVERSE4, _REVERSE6 = b"\7in-addr\4arpa\0", b"\3ip6\4arpa\0"
_LOCALHOST = {wire.A: b"\x7f\0\0\1", wire.AAAA: bytes(15) + b"\1"}

Records = list[tuple[int, bytes]]


class Lease:
    """What one lease file says: an address, whose it is, what it is called."""

    __slots__ = ("address", "dns", "kind", "names", "network", "owner", "reverse")

    def __init__(self, network: Network, address: str, text: str) -> None:
        self.network, self.address = network, pack_address(address)
        self.kind = wire.A if len(self.address) == 4 else wire.AAAA
        lines = text.split("\n")
        self.owner = lines[0]
        notes = dict(line.partition(" ")[::2] for line in lines[1:])
        packed = (wire.pack_name(name) for name in notes.get("names", "").split())
        self.names = [name for name in packed if name]
        self.dns = notes.get("dns", "").split()
        self.reverse = reverse_name(self.address)


class Network:
    """One network: what was written for us at its creation, and its leases. ``listens`` are the gateways' addresses."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.suffix = name, wire.pack_name(name) or b""
        self.private = not public.is_public(name)  # nobody else can mean anything by names below it
        words = [line.split() for line in text.split("\n")]
        self.listens = [pack_address(word[1]) for word in words if word[:1] == ["listen"]]
        self.subnets = [_parse_subnet(word[1]) for word in words if word[:1] == ["subnet"]]
        self.dns = [address for word in words if word[:1] == ["dns"] for address in word[1:]]
        self.internal = ["internal"] in words
        self.leases: dict[str, Lease] = {}
        self.names: dict[bytes, dict[bytes, Lease]] = {}  # name: address: lease
        self.reverse: dict[bytes, Lease] = {}

    def contains(self, address: bytes) -> bool:
        """Whether an address is of one of its subnets."""
        number = int.from_bytes(address, "big")
        return any(len(address) == size and number >> shift == block for size, shift, block in self.subnets)


class Asker:
    """Who asks: the networks that it may know of, its own resolvers if it was given any."""

    __slots__ = ("dns", "key", "networks")

    def __init__(self, key: str, networks: list[Network], dns: list[str]) -> None:
        self.key, self.networks, self.dns = key, networks, dns

    def servers(self) -> Sequence[str] | None:
        """Whom to ask for names that are not ours: addresses; [] for the host's own; None if it may ask nobody."""
        outer = [network for network in self.networks if not network.internal]
        if not outer:
            return None
        return self.dns or next((network.dns for network in outer if network.dns), [])


class Zones:
    """All networks with their leases."""

    def __init__(self) -> None:
        self.networks: dict[str, Network] = {}
        self.private: dict[bytes, Network] = {}  # by suffix: those that nobody outside can be asked about
        self.owners: dict[str, dict[bytes, Lease]] = {}  # container: its leases by address
        self.addresses: dict[bytes, Lease] = {}
        self._askers: dict[bytes, Asker] = {}  # by address, until anything changes
        self._turn = 0

    def add_network(self, name: str, text: str) -> Network:
        """Make a network known, or change what was written of it; its leases stay."""
        network, old = Network(name, text), self.networks.get(name)
        self.networks[name] = network
        if network.private:
            self.private[network.suffix] = network
        network.leases = old.leases if old else {}
        for lease in network.leases.values():
            self._forget(lease)
            lease.network = network
            self._know(lease)
        return network

    def remove_network(self, name: str) -> None:
        """Forget a network and its leases."""
        network = self.networks.pop(name, None)
        self.private = {one.suffix: one for one in self.networks.values() if one.private}
        for lease in list(network.leases.values()) if network else ():
            self._forget(lease)

    def add_lease(self, network: Network, address: str, text: str) -> None:
        """Know a lease by its file; a name that is no address is no lease. A former text of it is replaced."""
        self.remove_lease(network, address)
        try:
            lease = Lease(network, address, text)
        except OSError:
            return
        network.leases[address] = lease
        self._know(lease)

    def remove_lease(self, network: Network, address: str) -> None:
        """Forget a lease, if it is known."""
        lease = network.leases.pop(address, None)
        if lease:
            self._forget(lease)

    def _know(self, lease: Lease) -> None:
        network = lease.network
        self._askers.clear()
        for name in lease.names:
            network.names.setdefault(name, {})[lease.address] = lease
        network.reverse[lease.reverse] = self.addresses[lease.address] = lease
        self.owners.setdefault(lease.owner, {})[lease.address] = lease

    def _forget(self, lease: Lease) -> None:
        network = lease.network
        self._askers.clear()
        for name in lease.names:
            holders = network.names.get(name, {})
            holders.pop(lease.address, None)
            if not holders:
                network.names.pop(name, None)
        network.reverse.pop(lease.reverse, None)
        self.addresses.pop(lease.address, None)
        of_owner = self.owners.get(lease.owner, {})
        of_owner.pop(lease.address, None)
        if not of_owner:
            self.owners.pop(lease.owner, None)

    def asker(self, source: bytes, network: Network) -> Asker | None:
        """Who asks a gateway of ``network`` from the address ``source``; None for a stranger.

        The host itself asks from the gateway's own address, and sees what the containers of that network see.
        """
        found = self._askers.get(source)
        if found is None:
            lease = self.addresses.get(source)
            if lease is None:
                return Asker(network.name, [network], []) if source in network.listens else None
            leases = self.owners[lease.owner].values()
            networks = list(dict.fromkeys(one.network for one in leases))
            found = Asker(lease.owner, networks, next((one.dns for one in leases if one.dns), []))
            self._askers[source] = found
        return found

    def answer(self, asker: Asker, query: wire.Query) -> tuple[int, Records]:
        """What we know: an RCODE and records; or FORWARD."""
        if query.klass != wire.IN:
            return REFUSED, []
        key, kind = query.key, query.kind
        local = key.endswith(DOMAIN)
        if local:
            key = key[: -len(DOMAIN)] + b"\0"
        found = self._holders(asker, key)
        if found:
            wanted = (wire.A, wire.AAAA) if kind == wire.ANY else (kind,)
            return NOERROR, self._rotated([(one.kind, one.address) for one in found if one.kind in wanted])
        if key == LOCALHOST:
            return NOERROR, [(kind, _LOCALHOST[kind])] if kind in _LOCALHOST else []
        if local or wire.is_single(key) or self._is_private(key):
            return NXDOMAIN, []
        if key.endswith((_REVERSE4, _REVERSE6)):
            return self._reverse(asker, key, kind)
        return FORWARD, []

    def _holders(self, asker: Asker, key: bytes) -> list[Lease]:
        """Everyone of that name on the asker's networks; ``web.mynet`` is who is called web on mynet."""
        found = [lease for network in asker.networks for lease in network.names.get(key, {}).values()]
        if not found and not wire.is_single(key):
            for network in asker.networks:
                if network.suffix and key.endswith(network.suffix):
                    found += network.names.get(key[: -len(network.suffix)] + b"\0", {}).values()
        return found

    def _is_private(self, key: bytes) -> bool:
        """Whether this is a name on a network of ours, which nobody outside can know.

        One label before the network's name, or whatever somebody there is called: a network called like a domain of
        the site (``lab``) does not hide the hosts of its departments (``git.physics.lab``).
        """
        at, depth = 0, 0
        while key[at]:
            at, depth = at + 1 + key[at], depth + 1
            network = self.private.get(key[at:])
            if network and (depth == 1 or key[:at] + b"\0" in network.names):
                return True
        return False

    def _rotated(self, records: Records) -> Records:
        """Of several that share a name each is the first one in turn."""
        if len(records) > 1:
            self._turn += 1
            at = self._turn % len(records)
            return records[at:] + records[:at]
        return records

    def _reverse(self, asker: Asker, key: bytes, kind: int) -> tuple[int, Records]:
        for network in asker.networks:
            lease = network.reverse.get(key)
            if lease:
                return NOERROR, [(wire.PTR, lease.names[0])] if lease.names and kind in (wire.PTR, wire.ANY) else []
        address = _address_of(key)
        if address and any(network.contains(address) for network in self.networks.values()):
            return NXDOMAIN, []
        return FORWARD, []


def pack_address(text: str) -> bytes:
    """An address as the wire has it. Raises OSError if it is none."""
    return inet_pton(AF_INET6 if ":" in text else AF_INET, text)


def reverse_name(address: bytes) -> bytes:
    """The name below in-addr.arpa (RFC 1035, 3.5) or ip6.arpa (RFC 3596, 2.5) that an address has."""
    if len(address) == 4:
        return _pack(str(byte) for byte in reversed(address)) + _REVERSE4
    return _pack(reversed(address.hex())) + _REVERSE6


def _pack(labels: Iterable[str]) -> bytes:
    return b"".join(bytes((len(label),)) + label.encode() for label in labels)


def _address_of(key: bytes) -> bytes | None:
    """The address that a reverse name is of; None for one that is not of a whole address."""
    labels, at = [], 0
    while key[at]:
        labels.append(key[at + 1 : at + 1 + key[at]])
        at += 1 + key[at]
    digits = [label.decode("latin-1") for label in reversed(labels[:-2])]
    try:
        if labels[-2] == b"in-addr":
            return pack_address(".".join(digits))
        return bytes.fromhex("".join(digits)) if len(digits) == 32 else None
    except (OSError, ValueError):
        return None


def _parse_subnet(text: str) -> tuple[int, int, int]:
    """How long its addresses are, how far to shift one, and what must then be left."""
    base, _, prefix = text.partition("/")
    packed = pack_address(base)
    shift = len(packed) * 8 - int(prefix)
    return len(packed), shift, int.from_bytes(packed, "big") >> shift
