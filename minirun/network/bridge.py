"""A network: its record on disk, its bridge in the kernel, its elements in our table.

``decide`` looks and says which steps are missing; ``ensure`` does them. A new network lacks everything; after a reboot
only the record is there; normally nothing is missing, and a start pays for two questions to the kernel.
"""

from __future__ import annotations

import os
import time

from minirun import step, store, strict_json
from minirun.errors import Conflict, NotFound, UsageError
from minirun.linux import netlink
from minirun.network import addresses, ipam, nat, sysctl
from minirun.network.addresses import Subnet
from minirun.network.attach import mac_address
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

DEFAULT = "br0"  # the bridge of the lecture's lab
IP_FORWARD = "/proc/sys/net/ipv4/ip_forward"
POOLS = ("10.201.0.0/16", "172.29.0.0/16", "192.168.192.0/18")  # in this order; a VPN often takes all of 10.0.0.0/8
MTU = 1500
MAX_NAME = 15  # IFNAMSIZ - 1
RESERVED = ("all", "default", "lo", "none", "host", "bridge", "container", "pod")  # sysctl's, and words of --net
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


def create(name: str, subnet: str | None = None) -> dict[str, Any]:
    """Make a network. Raises Conflict if it exists or cannot have this name or subnet."""
    check_name(name)
    with _Lock():
        if load(name):
            raise Conflict(f"network {name}", "it exists already")
        network, steps = decide(name, subnet)
        step.do_all(steps)
    return network


def ensure(name: str = DEFAULT) -> dict[str, Any]:
    """The network, with all that it needs in the kernel; only the default one is created if it does not exist."""
    network = load(name)
    if network and not missing(network):
        return network
    if not network and name != DEFAULT:
        check_name(name)
        raise NotFound(
            f"network {name}", "there is none of that name", f"create it with: minirun network create {name}"
        )
    with _Lock():
        network, steps = decide(name)
        step.do_all(steps)
    return network


def decide(name: str, subnet: str | None = None) -> tuple[dict[str, Any], list[Step]]:
    """The network as it is or shall be, and the steps that are missing. It looks, and changes nothing."""
    check_name(name)
    network = load(name)
    if network:
        return network, missing(network)
    with netlink.Socket() as socket:
        if netlink.find_link(socket, name):
            raise _foreign(name)
        chosen = _choose(socket, name, subnet)
    gateway = addresses.text(chosen.base + 1)
    network = {
        "name": name,
        "bridge": name,
        "subnet": str(chosen),
        "gateway": gateway,
        "mac": mac_address(gateway),
        "mtu": MTU,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "set_ip_forward": store.read(IP_FORWARD) == "0\n",
    }
    return network, [nat.Ruleset(), NetworkRecord(network), *missing(network)]


def missing(network: dict[str, Any]) -> list[Step]:
    """The steps that the kernel still lacks for a network. Raises Conflict if a stranger has the bridge's name."""
    steps: list[Step] = []
    elements = nat.Elements(nat.comment(network["name"]), nat.network_elements(network))
    bridge = _bridge_step(network)
    with netlink.shared() as socket:
        link = netlink.find_link(socket, network["bridge"])
    if link is None or not link.up:
        steps += [Forwarding(), bridge]
    elif not bridge.owns(link):
        raise _foreign(network["bridge"])
    if not nat.TABLE.has(elements.parsed()):
        steps.append(elements)
    return steps


def load(name: str) -> dict[str, Any] | None:
    """The record of a network, or None."""
    record: dict[str, Any] | None = store.read_json(record_path(name))
    return record


def record_path(name: str) -> str:
    """The file that makes a network ours."""
    return f"{store.root}/networks/{name}/network.json"


def listing() -> list[dict[str, Any]]:
    """The record of every network, by name."""
    return list(nat.networks())


def inspect(name: str) -> dict[str, Any]:
    """The record of a network, under ``leases`` who has which address, under ``ports`` what is plugged in now.

    Raises NotFound.
    """
    from minirun.network import survey

    network = _existing(name)
    return {**network, "leases": ipam.leases(name), "ports": survey.ports(network["bridge"])}


def remove(name: str) -> None:
    """Remove a network that no container uses: its elements, its bridge, its files. Raises NotFound, Conflict."""
    with _Lock():
        network = _existing(name)
        users = sorted({owner[:12] for owner in ipam.leases(name).values()})
        if users:
            raise Conflict(f"network {name}", f"containers use it: {' '.join(users)}", "remove them first")
        errors = step.undo_all(all_steps(network))
    if errors:
        raise errors[0]


def all_steps(network: dict[str, Any]) -> list[Step]:
    """Every step of a network, whether or not the kernel lacks it."""
    elements = nat.Elements(nat.comment(network["name"]), nat.network_elements(network))
    return [nat.Ruleset(), NetworkRecord(network), Forwarding(), _bridge_step(network), elements]


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a network and of its bridge. Raises UsageError."""
    fits = 0 < len(name) <= MAX_NAME and name[0] in _LETTERS and all(c in _LETTERS or c in "_.-" for c in name)
    if not fits:
        raise UsageError(f"network {name!r}", f"a name is 1 to {MAX_NAME} letters, digits, '_', '.' or '-'")
    if name in RESERVED:
        raise UsageError(f"network {name}", "the name has another meaning", "choose another name")


class NetworkRecord(Step):
    """The network's record on disk; written before its bridge, so that a bridge without a record is a stranger's."""

    kind = "network"
    fields = ("network",)
    network: dict[str, Any]

    def sh(self) -> str:
        path = record_path(self.network["name"])
        return f"mkdir -p {os.path.dirname(path)}\necho '{strict_json.dumps(self.network)}' > {path}"

    def do(self) -> None:
        path = record_path(self.network["name"])
        store.directory(os.path.dirname(path))
        store.write_json(path, self.network)

    def undo(self) -> None:
        store.remove_tree(ipam.state_directory(self.network["name"]))
        store.remove_tree(os.path.dirname(record_path(self.network["name"])))


class Forwarding(Step):
    """Lets the host pass packets on between its interfaces.

    Never switched off again: other networks, a VPN or another engine may have come to rely on it, and nobody could
    tell. The record of the network says whether it was us who switched it on.
    """

    kind = "forwarding"
    fields = ()

    def sh(self) -> str:
        return "sysctl -qw net.ipv4.ip_forward=1"

    def do(self) -> None:
        if store.read(IP_FORWARD) != "1\n":
            sysctl.write(IP_FORWARD, "1")

    def undo(self) -> None:
        pass


class Bridge(Step):
    """The switch that the containers of a network are plugged into, with the gateway's address on it."""

    kind = "bridge"
    fields = ("name", "mac", "mtu", "alias", "address")
    name: str
    mac: str
    mtu: int
    alias: str
    address: str

    def sh(self) -> str:
        settings = [f"echo {value} > {path}" for path, value in self._sysctls().items()]
        return "\n".join(
            (
                f"ip link add {self.name} address {self.mac} mtu {self.mtu} type bridge",
                f"ip link set {self.name} alias '{self.alias}'",
                *settings,
                f"ip addr add {self.address} brd + dev {self.name}",
                f"ip link set {self.name} up",
            )
        )

    def do(self) -> None:
        with netlink.Socket() as socket:
            link = netlink.find_link(socket, self.name)
            if link is None:
                socket.ask(netlink.new_bridge(self.name, self.mac, self.mtu))
                link = netlink.Link(socket.ask(netlink.get_link(self.name))[0])
            if not self.owns(link):
                raise _foreign(self.name)
            socket.ask(netlink.set_alias(self.name, self.alias))
            for path, value in self._sysctls().items():  # before it is up, or IPv6 would have begun
                sysctl.write(path, value)
            address, _, prefix = self.address.partition("/")
            try:
                socket.ask(netlink.add_address(link.index, address, int(prefix)))
            except FileExistsError:
                pass  # a bridge of ours that was only down
            socket.ask(netlink.set_up(self.name))

    def undo(self) -> None:
        with netlink.Socket() as socket:
            link = netlink.find_link(socket, self.name)
            if link and self.owns(link):
                socket.ask(netlink.delete_link(self.name))

    def owns(self, link: netlink.Link) -> bool:
        """Whether this bridge is ours: by its alias or, if we died before setting that, by its MAC."""
        return link.kind == "bridge" and (link.alias == self.alias or (not link.alias and link.mac == self.mac))

    def _sysctls(self) -> dict[str, str]:
        return {
            # A network has IPv6 only if asked; a router advertisement of a container never configures the host.
            f"/proc/sys/net/ipv6/conf/{self.name}/disable_ipv6": "1",
            f"/proc/sys/net/ipv6/conf/{self.name}/accept_ra": "0",
            # So that a connection to 127.0.0.1:port may be sent on to a container; ruleset.nft guards the other way.
            f"/proc/sys/net/ipv4/conf/{self.name}/route_localnet": "1",
        }


class _Lock:
    """Only one process at a time chooses a subnet and makes or removes a network."""

    def __enter__(self) -> None:
        import fcntl

        path = f"{store.directory(store.state)}/networks.lock"
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def _existing(name: str) -> dict[str, Any]:
    check_name(name)
    network = load(name)
    if not network:
        raise NotFound(f"network {name}", "there is none of that name", "see: minirun network ls")
    return network


def _foreign(name: str) -> Conflict:
    remedy = f"choose another name, or remove it with: ip link del {name}"
    return Conflict(f"interface {name}", "it exists and is not a network of minirun", remedy)


def _bridge_step(network: dict[str, Any]) -> Bridge:
    address = f"{network['gateway']}/{Subnet.parse(network['subnet']).prefix}"
    return Bridge(network["bridge"], network["mac"], network["mtu"], nat.comment(network["name"]), address)


def _choose(socket: netlink.Socket, name: str, wanted: str | None) -> Subnet:
    """``wanted`` if it is free, or the first free subnet: free of the host's routes and of other networks."""
    taken = [
        (base, prefix) for base, prefix, kind in netlink.routes(socket) if prefix and kind != netlink.RTN_MULTICAST
    ]
    others = [Subnet.parse(network["subnet"]) for network in nat.networks()]
    taken += [(other.base, other.prefix) for other in others]
    for subnet in [Subnet.parse(wanted)] if wanted else _candidates(name):
        if not any(subnet.overlaps(base, prefix) for base, prefix in taken):
            return subnet
    if wanted:
        raise Conflict(f"--subnet {wanted}", "it overlaps a route or another network of this machine", "see: ip route")
    remedy = f"give one: minirun network create {name} --subnet 192.168.77.0/24"
    raise Conflict(f"network {name}", f"no subnet is free in {', '.join(POOLS)}", remedy)


def _candidates(name: str) -> Iterator[Subnet]:
    """The /24 blocks of the pools; the very first is kept for the default network."""
    for pool in POOLS:
        block = Subnet.parse(pool)
        for base in range(block.base, block.base + block.size, 256):
            if name == DEFAULT or (pool, base) != (POOLS[0], block.base):
                yield Subnet(base, 24)
