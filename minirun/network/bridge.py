"""A network in the kernel: its bridge, its elements in our table, and its record on disk.

``decide`` looks and says which steps are missing; ``ensure`` does them. A new network lacks everything; after a reboot
only the record is there; normally nothing is missing, and a start pays for two questions to the kernel.
"""

from __future__ import annotations

import os

from minirun import step, store, strict_json
from minirun.errors import Conflict, NotFound, UsageError
from minirun.linux import netlink
from minirun.network import ipam, member, nat, sysctl
from minirun.network import network as networks
from minirun.network.network import Network, comment, load
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minirun.network.creation import Wanted

DEFAULT = "br0"  # the bridge of the lecture's lab
MAX_NAME = 100  # of a network: with its words around it, it fits into the comment of an element
RESERVED = ("all", "default", "lo", "none", "host", "bridge", "container", "pod")  # sysctl's, and words of --net
IP_FORWARD = "/proc/sys/net/ipv4/ip_forward"
IPV6_CONF = "/proc/sys/net/ipv6/conf"
IPV6_FORWARD = f"{IPV6_CONF}/all/forwarding"
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


def create(wanted: Wanted) -> Network:
    """Make a network. Raises Conflict if it exists or cannot have this name or subnet."""
    check_name(wanted.name)
    with networks.Lock():
        network, steps = decide(wanted.name, wanted)
        step.do_all(steps)
    return network


def ensure(name: str = DEFAULT) -> Network:
    """The network, with all that it needs in the kernel; only the default one is created if it does not exist."""
    network = load(name)
    if network and not missing(network):
        return network
    if not network and name != DEFAULT:
        raise absent(name)
    with networks.Lock():
        network, steps = decide(name)
        step.do_all(steps)
    return network


def decide(name: str, wanted: Wanted | None = None) -> tuple[Network, list[Step]]:
    """The network as it is or shall be, and the steps that are missing. It looks, and changes nothing.

    Raises Conflict, too if it is there although it is ``wanted``, and NotFound if it is neither there nor wanted.
    """
    check_name(name)
    network = load(name)
    if network and wanted:
        raise Conflict(f"network {name}", "it exists already", f"see: minirun network inspect {name}")
    if network:
        return network, missing(network)
    if not wanted and name != DEFAULT:
        raise absent(name)
    from minirun.network import creation

    wanted = wanted or creation.Wanted(name)
    creation.check_bridge(creation.bridge_name(wanted))
    network = creation.decide(wanted)
    steps = [nat.Ruleset(), NetworkRecord(network.record()), *missing(network)]
    if networks.ALLOW_FORWARD in network.options:
        from minirun.network.foreign import gate

        steps += gate.steps(network)
    return network, steps


def missing(network: Network) -> list[Step]:
    """The steps that the kernel still lacks for a network. Raises Conflict if a stranger has the bridge's name."""
    steps: list[Step] = []
    elements = nat.Elements(comment(network.name), nat.network_elements(network))
    bridge = bridge_step(network)
    with netlink.shared() as socket:
        link = netlink.find_link(socket, network.bridge)
    if link is None or not link.up:
        steps += [Forwarding(bool(network.ipv6)), bridge]
    elif not bridge.owns(link):
        raise foreign(network.bridge)
    elif link.mtu != network.mtu:
        steps.append(bridge)
    if not nat.TABLE.has(elements.parsed()[:1]):  # they were added, and are flushed, together: one tells of all
        steps.append(elements)
    return steps


def absent(name: str) -> NotFound:
    """There is no such network, in words. Raises UsageError if there cannot be one."""
    check_name(name)
    return NotFound(f"network {name}", "there is none of that name", f"create it with: minirun network create {name}")


def inspect(name: str) -> dict[str, Any]:
    """The record of a network; ``containers`` and ``leases``: who is on it; ``ports``: what is plugged in now.

    Raises NotFound.
    """
    from minirun.network import guests, survey

    network = _existing(name)
    bridges = [network.bridge, *network.members()]
    found = {"containers": guests.guests(network), "leases": ipam.leases(name)}
    return {**network.record(), **found, "ports": survey.ports(bridges)}


def remove(name: str) -> None:
    """Remove a network that no container uses: its elements, its bridge, its files. Raises NotFound, Conflict.

    Other firewalls are closed first, and what says that they were opened goes last: if we are killed in between, the
    next command finds either a network, or that there is something to be closed (``gate.open_again``).
    """
    from minirun.network.nameserver import start

    with networks.Lock():
        network = _existing(name)
        ipam.close(name)
        if networks.ALLOW_FORWARD in network.options:
            from minirun.network.foreign import opening

            opening.close_all(name)
        start.forget(name)
        member.remove(network)
        errors = step.undo_all(all_steps(network))
        if networks.ALLOW_FORWARD in network.options:
            opening.unwatch(name)
    if errors:
        raise errors[0]


def all_steps(network: Network) -> list[Step]:
    """Every step of a network, whether or not the kernel lacks it."""
    elements = nat.Elements(comment(network.name), nat.network_elements(network))
    record = NetworkRecord(network.record())
    return [nat.Ruleset(), record, Forwarding(bool(network.ipv6)), bridge_step(network), elements]


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a network. Raises UsageError."""
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
        path = networks.record_path(self.network["name"])
        return f"mkdir -p {os.path.dirname(path)}\ncat > {path} <<'END'\n{strict_json.dumps(self.network)}\nEND"

    def do(self) -> None:
        path = networks.record_path(self.network["name"])
        store.directory(os.path.dirname(path))
        store.write_json(path, self.network)

    def undo(self) -> None:
        store.remove_tree(ipam.state_directory(self.network["name"]))
        store.remove_tree(os.path.dirname(networks.record_path(self.network["name"])))


class Forwarding(Step):
    """Lets the host pass packets on between its interfaces.

    Never switched off again: other networks, a VPN or another engine may have come to rely on it, and nobody could
    tell. The record of the network says whether it was us who switched it on.
    """

    kind = "forwarding"
    fields = ("ipv6",)
    ipv6: bool

    def sh(self) -> str:
        lines = ["sysctl -qw net.ipv4.ip_forward=1"]
        if self.ipv6:
            from minirun.network import uplinks

            lines += [uplinks.SHELL, "sysctl -qw net.ipv6.conf.all.forwarding=1"]
        return "\n".join(lines)

    def do(self) -> None:
        if store.read(IP_FORWARD) != "1\n":
            sysctl.write(IP_FORWARD, "1")
        if self.ipv6 and store.read(IPV6_FORWARD) == "0\n":
            from minirun.network import uplinks

            for name in uplinks.names():
                if store.read(f"{IPV6_CONF}/{name}/accept_ra") == "1\n":
                    sysctl.write(f"{IPV6_CONF}/{name}/accept_ra", "2")
            sysctl.write(IPV6_FORWARD, "1")

    def undo(self) -> None:
        pass


class Bridge(Step):
    """The switch that the containers of a network are plugged into, with the gateway's addresses on it."""

    kind = "bridge"
    fields = ("name", "mac", "mtu", "alias", "addresses")
    name: str
    mac: str
    mtu: int
    alias: str
    addresses: list[str]

    def sh(self) -> str:
        return "\n".join(
            (
                f"ip link add {self.name} address {self.mac} type bridge no_linklocal_learn 1",
                f"ip link set {self.name} mtu {self.mtu}  # which it would lose, were it created with it",
                f"ip link set {self.name} alias '{self.alias}'",
                *(f"echo {value} > {path}" for path, value in self.sysctls().items()),
                *(f"ip addr add {a} {'nodad' if ':' in a else 'brd +'} dev {self.name}" for a in self.addresses),
                f"ip link set {self.name} up",
            )
        )

    def do(self) -> None:
        with netlink.Socket() as socket:
            link = netlink.find_link(socket, self.name)
            if link is None:
                socket.ask(netlink.new_bridge(self.name, self.mac))
                link = netlink.Link(socket.ask(netlink.get_link(self.name))[0])
            if not self.owns(link):
                raise foreign(self.name)
            socket.ask(netlink.set_mtu(self.name, self.mtu), netlink.set_alias(self.name, self.alias))
            for path, value in self.sysctls().items():  # before it is up, or IPv6 would have begun
                sysctl.write(path, value)
            for interface in self.addresses:
                address, _, prefix = interface.partition("/")
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

    def sysctls(self) -> dict[str, str]:
        """Files and what they must contain."""
        ipv6 = any(":" in address for address in self.addresses)
        conf = f"{IPV6_CONF}/{self.name}"
        settings6 = {
            # No router advertisement of a container configures the host; a hairpin port sends its own questions back.
            f"{conf}/accept_ra": "0",
            f"{conf}/accept_dad": "0",
            f"{conf}/disable_ipv6": "0" if ipv6 else "1",  # a network has IPv6 only if asked
        }
        return {
            **(settings6 if self.mtu >= networks.MIN_MTU6 else {}),  # below, a link has no IPv6 and no such files
            # So that a connection to 127.0.0.1:port may be sent on to a container; ruleset.nft guards the other way.
            f"/proc/sys/net/ipv4/conf/{self.name}/route_localnet": "1",
        }


def _existing(name: str) -> Network:
    check_name(name)
    network = load(name)
    if not network:
        raise NotFound(f"network {name}", "there is none of that name", "see: minirun network ls")
    return network


def foreign(name: str) -> Conflict:
    """A stranger has the name of the bridge, in words."""
    remedy = f"choose another name, or remove it with: ip link del {name}"
    return Conflict(f"interface {name}", "it exists and is not a network of minirun", remedy)


def bridge_step(network: Network) -> Bridge:
    """The step that makes a network's bridge."""
    addresses = [pool.interface for pool in network.pools]
    return Bridge(network.bridge, network.mac, network.mtu, comment(network.name), addresses)
