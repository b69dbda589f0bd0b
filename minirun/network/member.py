"""The further bridges that a large network grows by.

A bridge takes 1023 ports (BR_MAX_PORTS). So a container is plugged into the network's own bridge only up to a certain
place of its address (``Network.member``); those behind it have a *member* bridge, made when its first container comes
and joined to the network's own by one cable, the *trunk*:

    br0 ── br0~1a ═══ br0~1b ── br0~1 ── mr3f9a12ab34cd ═══ eth0 10.201.3.192

Frames only pass through a member. It has no address, answers nobody, routes nothing; where the kernel shows bridged
packets to the IP firewall (br_netfilter), ours does not look at them there, since the network's own bridge shows all of
them that concern the host. That one may have to send a packet back where it came from, to the published port of a
sibling: so the trunk's port there is in hairpin mode, and a member knows for good where its containers are (``Seat``),
whatever comes back with their MAC.
"""

from __future__ import annotations

from binascii import crc32
from errno import ENODEV

from minirun.errors import Conflict
from minirun.linux import netlink
from minirun.network import network as networks
from minirun.network import sysctl
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minirun.network.network import Network

GUARDED, GUARDED_ISOLATED, ISOLATED = 28018, 28019, 28020  # device groups of ports: as in ruleset.nft


def port_group(guarded: bool, isolated: bool) -> int:
    """The device group by which the firewall knows what a bridge's port is."""
    if guarded:
        return GUARDED_ISOLATED if isolated else GUARDED
    return ISOLATED if isolated else 0


class Member(Step):
    """One member bridge with its trunk. It is shared: containers come and go, it goes with the network (``remove``)."""

    kind = "member"
    fields = ("name", "bridge", "mtu", "alias", "isolated")
    name: str
    bridge: str
    mtu: int
    alias: str
    isolated: bool

    def sh(self) -> str:
        near, far = trunk(self.name)
        mine = (self.name, near, far)
        return "\n".join(
            (
                f"if ! ip link show {self.name} up 2> /dev/null | grep -q .; then",
                f"ip link add {self.name} address {self._mac()} type bridge",
                f"ip link set {self.name} mtu {self.mtu}  # which it would lose, were it created with it",
                f"ip link add {near} mtu {self.mtu} type veth peer name {far} mtu {self.mtu}",
                *(f"ip link set {name} alias '{self.alias}'" for name in mine),
                *(f"echo {value} > {path}" for path, value in self._sysctls().items()),
                f"ip link set {near} master {self.bridge} up",
                f"ip link set {far} master {self.name} up",
                f"ip link set {near} group {port_group(False, self.isolated)}",
                f"bridge link set dev {near} hairpin on",
                f"ip link set {self.name} arp off up",
                *(f"ip link show {name} > /dev/null  # reading it makes it forward at once" for name in mine),
                "fi",
            )
        )

    def do(self) -> None:
        with netlink.shared() as socket:
            if not self._is_complete(socket):
                with networks.Lock():
                    if not self._is_complete(socket):  # somebody else had the lock before us
                        self._make(socket)

    def undo(self) -> None:
        pass

    def _is_complete(self, socket: netlink.Socket) -> bool:
        """Whether it is there with its trunk; switching it on is the last thing that is done to it."""
        near, _ = trunk(self.name)
        try:
            member, cable = map(netlink.Link, socket.ask(netlink.get_link(self.name), netlink.get_link(near)))
        except OSError as error:
            if error.errno == ENODEV:
                return False
            raise
        return member.up and cable.up and cable.master != 0 and self.owns(member)

    def owns(self, link: netlink.Link) -> bool:
        """Whether this bridge is ours: by its alias or, if we died before setting that, by its MAC."""
        return link.kind == "bridge" and (link.alias == self.alias or (not link.alias and link.mac == self._mac()))

    def _make(self, socket: netlink.Socket) -> None:
        near, far = trunk(self.name)
        link = netlink.find_link(socket, self.name)
        if link and not self.owns(link):
            raise Conflict(f"interface {self.name}", f"it exists and is not a bridge of network {self.bridge}")
        if netlink.find_link(socket, near):  # of one who died over this
            socket.ask(netlink.delete_link(near))
        if not link:
            socket.ask(netlink.new_bridge(self.name, self._mac()))
        socket.ask(netlink.set_mtu(self.name, self.mtu), netlink.new_pair(near, far, self.mtu))
        socket.ask(*(netlink.set_alias(name, self.alias) for name in (self.name, near, far)))
        for path, value in self._sysctls().items():  # before they are up, or IPv6 would have begun
            sysctl.write(path, value)
        bodies = socket.ask(netlink.get_link(self.bridge), netlink.get_link(self.name))
        main, member = (netlink.Link(body).index for body in bodies)
        socket.ask(
            netlink.set_master(near, main),
            netlink.set_master(far, member),
            netlink.set_port(near, self.alias, group=port_group(False, self.isolated)),
            netlink.set_up(self.name, netlink.IFF_NOARP),
        )
        socket.ask(*map(netlink.get_link, (near, far, self.name)))  # so that they forward at once: see cable.Carrier

    def _mac(self) -> str:
        """Its own; that of the network's bridge is 02:6d or 02:6e and an address, as are those of the containers."""
        return "02:62:" + crc32(self.name.encode()).to_bytes(4, "big").hex(":")

    def _sysctls(self) -> dict[str, str]:
        off = {f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6": "1" for name in (self.name, *trunk(self.name))}
        # A frame that is sent to its own MAC ends here.
        return off | {f"/proc/sys/net/ipv4/conf/{self.name}/forwarding": "0"}


class Seat(Step):
    """Where a container is on its member bridge; the entry goes with the port."""

    kind = "seat"
    fields = ("port", "mac")
    port: str
    mac: str

    def sh(self) -> str:
        return f"bridge fdb replace {self.mac} dev {self.port} master static sticky"

    def do(self) -> None:
        with netlink.shared() as socket:
            index = netlink.Link(socket.ask(netlink.get_link(self.port))[0]).index
            socket.ask(netlink.stay(index, self.mac))

    def undo(self) -> None:
        pass


def trunk(member: str) -> tuple[str, str]:
    """The names of the cable's ends, on the network's own bridge and on the member."""
    return f"{member}a", f"{member}b"


def mend(network: Network) -> list[str]:
    """Give member bridges back the MTU of their network; what was done, in words."""
    done = []
    with netlink.Socket() as socket:
        for name in network.members():
            link = netlink.find_link(socket, name)
            if link and link.alias == networks.comment(network.name) and link.mtu != network.mtu:
                socket.ask(netlink.set_mtu(name, network.mtu))
                done.append(f"MTU {link.mtu} of {name} set to {network.mtu}")
    return done


def remove(network: Network) -> None:
    """Delete whatever member bridges a network has."""
    with netlink.Socket() as socket:
        for name in network.members():
            step = Member(name, network.bridge, network.mtu, networks.comment(network.name), network.isolate)
            near, _ = trunk(name)
            cable, link = netlink.find_link(socket, near), netlink.find_link(socket, name)
            if cable and cable.alias == step.alias:
                socket.ask(netlink.delete_link(near))
            if link and step.owns(link):
                socket.ask(netlink.delete_link(name))
