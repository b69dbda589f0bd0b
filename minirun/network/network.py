"""What a network is: the record that lies in ``<root>/networks/<name>/network.json``, as a class.

A network has a bridge, one or more subnets (its *pools*), and a few decisions that were made when it was created.
"""

from __future__ import annotations

import os
from binascii import crc32

from minirun import store
from minirun.errors import InvalidDocument
from minirun.network import addresses
from minirun.network.addresses import IPV4, IPV6, Subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from minirun.network.addresses import Span

# A bridge has 1023 ports at most (BR_MAX_PORTS); some are left for cables to further bridges and for guests of others.
MIN_MTU6 = 1280  # RFC 8200; a link with less has no IPv6
PORTS_PER_BRIDGE = 960
MAX_BRIDGES = 60
MAX_STEM = 11  # of the name of a member, "~59" and "a" follow: IFNAMSIZ - 1

ROUTED = "routed"  # among the options: see Network.routed
ALLOW_FORWARD = "allow-forward"  # among the options: other firewalls may be opened for the network


class Pool:
    """One subnet of a network: the gateway's address in it, and the part that addresses are taken from by itself."""

    __slots__ = ("gateway", "range", "subnet")

    def __init__(self, subnet: Subnet, gateway: str, within: Subnet | Span | None = None) -> None:
        self.subnet, self.gateway, self.range = subnet, gateway, within

    def record(self) -> dict[str, str]:
        """The pool as JSON."""
        part = {"range": str(self.range)} if self.range else {}
        return {"subnet": str(self.subnet), "gateway": self.gateway, **part}

    @property
    def interface(self) -> str:
        """The gateway's address as an interface has it, such as ``10.201.0.1/20``."""
        return f"{self.gateway}/{self.subnet.prefix}"


class Network:
    """One network. ``dns`` are the resolvers for names that are not ours; [] means the host's."""

    __slots__ = (
        "bridge",
        "created",
        "dns",
        "internal",
        "isolate",
        "labels",
        "mac",
        "mtu",
        "name",
        "options",
        "pools",
        "set_ip_forward",
    )

    def __init__(self, name: str, bridge: str, pools: list[Pool], mac: str, mtu: int) -> None:
        self.name, self.bridge, self.pools, self.mac, self.mtu = name, bridge, pools, mac, mtu
        self.internal = self.isolate = self.set_ip_forward = False
        self.dns: list[str] = []
        self.options: dict[str, str] = {}
        self.labels: dict[str, str] = {}
        self.created = ""

    def record(self) -> dict[str, Any]:
        """The network as JSON."""
        return {
            "name": self.name,
            "bridge": self.bridge,
            "subnets": [pool.record() for pool in self.pools],
            "mac": self.mac,
            "mtu": self.mtu,
            "internal": self.internal,
            "isolate": self.isolate,
            "dns": self.dns,
            "options": self.options,
            "labels": self.labels,
            "created": self.created,
            "set_ip_forward": self.set_ip_forward,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Network:
        """The network that ``record`` described. Raises InvalidDocument."""
        try:
            pools = [_pool(pool) for pool in record["subnets"]]
            network = cls(record["name"], record["bridge"], pools, record["mac"], record["mtu"])
            for name in ("internal", "isolate", "dns", "options", "labels", "created", "set_ip_forward"):
                setattr(network, name, record[name])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidDocument("network.json", f"not a network that this version knows: {error}") from None
        return network

    def of_family(self, bits: int) -> list[Pool]:
        """Its pools of IPV4 or of IPV6."""
        return [pool for pool in self.pools if pool.subnet.bits == bits]

    @property
    def guarded(self) -> bool:
        """Whether containers may speak only as themselves; not with ``--opt spoof=allow``."""
        return self.options.get("spoof") != "allow"

    @property
    def routed(self) -> bool:
        """Whether its addresses are known outside: they leave as they are, and who knows the way may come in."""
        return self.options.get(ROUTED) == "true" and not self.internal

    @property
    def ipv4(self) -> list[Pool]:
        """Its pools of IPv4."""
        return self.of_family(IPV4)

    @property
    def ipv6(self) -> list[Pool]:
        """Its pools of IPv6; [] if it has no IPv6."""
        return self.of_family(IPV6)

    def pool(self, address: str) -> Pool | None:
        """The pool that an address is of."""
        return next((pool for pool in self.pools if pool.subnet.contains(address)), None)

    def member(self, address: str) -> str:
        """The bridge that the container with this address is plugged into: the network's own, or a member.

        It follows from the address as the MAC does: nobody has to count ports, and nobody counts wrong.
        """
        before = 0
        for pool in self.of_family(addresses.bits(address)):
            if pool.subnet.contains(address):
                number = (before + addresses.number(address) - pool.subnet.base) // PORTS_PER_BRIDGE % MAX_BRIDGES
                return self._member(number) if number else self.bridge
            before += pool.subnet.size
        return self.bridge

    def members(self) -> list[str]:
        """The names of all bridges that it may ever grow by, whether or not they are there."""
        size = sum(pool.subnet.size for pool in self.ipv4 or self.ipv6)
        return [self._member(number) for number in range(1, min(MAX_BRIDGES, -(-size // PORTS_PER_BRIDGE)))]

    def _member(self, number: int) -> str:
        """A name that no network can have; of a long one a check sum is in it, and it leaves room for the trunk's."""
        name = self.bridge
        if len(name) > MAX_STEM:
            name = name[: MAX_STEM - 4] + f"{crc32(name.encode()) & 0xFFFF:04x}"
        return f"{name}~{number}"


def _pool(record: dict[str, str]) -> Pool:
    part = record.get("range")
    subnet = Subnet.parse(record["subnet"])
    addresses.number(record["gateway"])
    return Pool(subnet, record["gateway"], addresses.part(part) if part else None)


def record_path(name: str) -> str:
    """The file that makes a network ours."""
    return f"{store.root}/networks/{name}/network.json"


def load(name: str) -> Network | None:
    """The network of that name, or None. Raises InvalidDocument."""
    record = store.read_json(record_path(name))
    return Network.from_record(record) if record else None


def listing() -> Iterator[Network]:
    """Every network, by name."""
    for name in store.entries(f"{store.root}/networks"):
        if network := load(name):
            yield network


def lock_path() -> str:
    """The file that ``Lock`` locks."""
    return f"{store.directory(store.state)}/networks.lock"


class Lock:
    """Only one process at a time chooses a subnet, makes or removes bridges, or loads the firewall anew.

    Whoever has it may take it again: a step does not know who does it.
    """

    descriptor, depth = -1, 0  # of this process

    def __enter__(self) -> None:
        import fcntl

        if not Lock.depth:
            Lock.descriptor = os.open(lock_path(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(Lock.descriptor, fcntl.LOCK_EX)
        Lock.depth += 1

    def __exit__(self, *_: object) -> None:
        Lock.depth -= 1
        if not Lock.depth:
            os.close(Lock.descriptor)


def comment(network: str) -> str:
    """What ``nft list`` and ``ip link`` show as the owner of what belongs to a network."""
    return f"minirun network {network}"
