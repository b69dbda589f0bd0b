"""The virtual cable of one plug: both ends, what flows through it, and the interface that it ends in.

Veth        one end a port of a bridge, the other inside the namespace
Rates       how much may flow
Interface   the end inside: addresses, up, the way out
Carrier     the end outside: the bridge forwards from the first packet on
"""

from __future__ import annotations

import os
from errno import EADDRNOTAVAIL, EINVAL, ENODEV, EXFULL

from minirun.errors import Conflict
from minirun.linux import netlink, syscalls
from minirun.network import sysctl
from minirun.network.member import port_group
from minirun.network.netns import PROC_NET
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

MOST_LOOKS = 10000  # for something that comes by itself


class Veth(Step):
    """The virtual cable: one end a port of the bridge, the other inside the namespace."""

    kind = "veth"
    fields = ("host", "bridge", "peer", "netns", "mac", "mtu", "alias", "isolated", "guarded")
    host: str
    bridge: str
    peer: str
    netns: str
    mac: str
    mtu: int
    alias: str
    isolated: bool
    guarded: bool

    def sh(self) -> str:
        peer = f"peer name {self.peer} address {self.mac} mtu {self.mtu} netns {os.path.basename(self.netns)}"
        return "\n".join(
            (
                f"ip link add {self.host} mtu {self.mtu} group {self._group} type veth {peer}",
                f"sysctl -qew net.ipv6.conf.{self.host}.disable_ipv6=1",
                f"ip link set {self.host} master {self.bridge} alias '{self.alias}' up",
                f"bridge link set dev {self.host} hairpin on",
                *(
                    [f"ip link set {self.host} type bridge_slave group_fwd_mask {netlink.LINK_LOCAL_FRAMES:#x}"]
                    if self.guarded
                    else []
                ),
            )
        )

    def do(self) -> None:
        with netlink.shared() as socket:
            bridge = netlink.find_link(socket, self.bridge)
            if bridge is None:
                raise OSError(ENODEV, "no such bridge", self.bridge)
            self._create(socket, bridge.index)
            socket.ask(netlink.set_port(self.host, self.alias, guarded=self.guarded, group=self._group))
        # The far end is still down, so this one has no carrier, and IPv6 has not begun to look for an address.
        sysctl.write(f"{PROC_NET}/ipv6/conf/{self.host}/disable_ipv6", "1")

    def _create(self, socket: netlink.Socket, bridge: int) -> None:
        namespace = os.open(self.netns, os.O_RDONLY | os.O_CLOEXEC)
        request = netlink.new_veth(self.host, bridge, self.mtu, self.peer, namespace, self.mac, self._group)
        try:
            try:
                socket.ask(request)
            except FileExistsError:  # of this container's last run: the kernel has not come round to removing it
                self._delete(socket)
                socket.ask(request)
        except OSError as error:
            if error.errno != EXFULL:
                raise
            raise Conflict(
                f"bridge {self.bridge}", "it has 1023 ports, as many as the kernel allows", "use another network"
            ) from None
        finally:
            os.close(namespace)

    @property
    def _group(self) -> int:
        return port_group(self.guarded, self.isolated)

    def undo(self) -> None:
        if os.path.exists(self.netns):
            return  # Netns, undone next, takes the cable along
        with netlink.shared() as socket:
            self._delete(socket)

    def cut(self) -> None:
        """Remove the cable although its namespace lives on."""
        with netlink.shared() as socket:
            self._delete(socket)

    def _delete(self, socket: netlink.Socket) -> None:
        link = netlink.find_link(socket, self.host)
        if link is None or link.kind != "veth" or link.alias not in ("", self.alias):
            return
        try:
            socket.ask(netlink.delete_link(self.host))
        except OSError as error:
            if error.errno != ENODEV:
                raise


class Rates(Step):
    """Limits of a cable in bits a second, 0 for none: of what the container receives, and of what it sends.

    Both are on the host's end, where a container with CAP_NET_ADMIN cannot remove them. What it sends *comes in* there,
    and a queue needs something that goes out: so it is led through a device of its own (ifb), named as the cable but
    with ``mi``.
    """

    kind = "rates"
    fields = ("host", "rate_in", "rate_out", "mtu", "alias")
    host: str
    rate_in: int
    rate_out: int
    mtu: int
    alias: str

    def sh(self) -> str:
        lines = self._tbf(self.host, self.rate_in) if self.rate_in else []
        if self.rate_out:
            lines += [
                f"ip link add {self.detour} mtu {self.mtu} type ifb",
                f"sysctl -qew net.ipv6.conf.{self.detour}.disable_ipv6=1",
                f"ip link set {self.detour} alias '{self.alias}' up",
                *self._tbf(self.detour, self.rate_out),
                f"tc qdisc add dev {self.host} ingress",
                f"tc filter add dev {self.host} ingress protocol all prio 1 u32 match u32 0 0"
                f" action mirred egress redirect dev {self.detour}",
            ]
        return "\n".join(lines)

    def do(self) -> None:
        from minirun.linux import qdisc

        with netlink.shared() as socket:
            port = netlink.Link(socket.ask(netlink.get_link(self.host))[0]).index
            if self.rate_in:
                socket.ask(qdisc.bucket(port, self.rate_in, self.mtu))
            if not self.rate_out:
                return
            self._delete(socket)  # one that was left by this container's last run
            socket.ask(netlink.new_detour(self.detour, self.mtu), netlink.set_alias(self.detour, self.alias))
            sysctl.write(f"{PROC_NET}/ipv6/conf/{self.detour}/disable_ipv6", "1")
            detour = netlink.Link(socket.ask(netlink.set_up(self.detour), netlink.get_link(self.detour))[0]).index
            socket.ask(qdisc.bucket(detour, self.rate_out, self.mtu))
            socket.ask(qdisc.ingress(port))
            socket.ask(qdisc.redirect(port, detour))  # last: from now on everything goes that way

    def undo(self) -> None:
        """Remove the detour, after which the cable carries nothing out any more; the queues go with the cable."""
        if self.rate_out:
            with netlink.shared() as socket:
                self._delete(socket)

    @property
    def detour(self) -> str:
        """The name of the device through which goes what the container sends."""
        return f"mi{self.host[2:]}"

    def _tbf(self, device: str, rate: int) -> list[str]:
        from minirun.linux import qdisc

        size, waiting = qdisc.burst(rate, self.mtu), qdisc.queue(rate, self.mtu)
        return [f"tc qdisc add dev {device} root tbf rate {rate}bit burst {size} limit {waiting}"]

    def _delete(self, socket: netlink.Socket) -> None:
        link = netlink.find_link(socket, self.detour)
        if link and link.kind == "ifb" and link.alias in ("", self.alias):
            socket.ask(netlink.delete_link(self.detour))


class Interface(Step):
    """What is inside the namespace: lo up and, if there is a cable, its addresses, up, and the way out through it."""

    kind = "interface"
    fields: ClassVar[tuple[str, ...]] = ("netns", "device", "addresses", "gateways")
    netns: str
    device: str
    addresses: list[str]
    gateways: list[str]

    def sh(self) -> str:
        name = os.path.basename(self.netns)
        ip = f"ip -n {name}"
        lines = [f"{ip} link set lo up"]
        if self._sysctls():
            settings = [
                f"{path.removeprefix('/proc/sys/').replace('/', '.')}={v}" for path, v in self._sysctls().items()
            ]
            lines += [f"ip netns exec {name} sysctl -qew {' '.join(settings)}"]
        for address in self.addresses:
            lines += [f"{ip} addr add {address} {'nodad' if ':' in address else 'brd +'} dev {self.device}"]
        if self.device:
            lines += [f"{ip} link set {self.device} up"]
        for gateway in self.gateways:
            family = f"{ip} -6" if ":" in gateway else ip
            lines += [f"{family} route add default via {gateway} dev {self.device} proto static"]
        if self._addresses6():
            lines += [f"{ip} link show {self.device} > /dev/null  # reading it makes IPv6 ready at once"]
        for address in self._addresses6():
            lines += [f"until {ip} route get {address} | grep -q ^local; do :; done"]
        return "\n".join(lines)

    def do(self) -> None:
        with netlink.shared(netns=self.netns) as socket:
            if not self.device:
                socket.ask(netlink.set_up("lo"))
                return
            if settings := self._sysctls():
                syscalls.netns_write(self.netns, settings)
            index = netlink.Link(socket.ask(netlink.set_up("lo"), netlink.get_link(self.device))[0]).index
            socket.ask(
                *(netlink.add_address(index, *_split(address)) for address in self.addresses),
                netlink.set_up(self.device),  # before the routes: a gateway behind a device that is down is refused
                *(netlink.add_default_route(index, gateway) for gateway in self.gateways),
                # IPv6 waits for the news that the link is up, which comes later, but not after this: see Carrier.
                *([netlink.get_link(self.device)] if self._addresses6() else []),
            )
            for address in self._addresses6():
                self._await(socket, address)

    def _await(self, socket: netlink.Socket, address: str) -> None:
        """Wait until an IPv6 address counts: the kernel adds its route later (addrconf_dad_work), mostly within 0.1 ms.

        Until then answers to it are dropped, and what was asked is asked again after a second.
        """
        for _ in range(MOST_LOOKS):
            if netlink.Route(socket.ask(netlink.get_route(address))[0]).type == netlink.RTN_LOCAL:
                return
            os.sched_yield()

    def _addresses6(self) -> list[str]:
        return [address.partition("/")[0] for address in self.addresses if ":" in address]

    def undo(self) -> None:
        """Take the addresses away: somebody may hold the namespace, and they will soon be another's."""
        for address in self.addresses:
            try:
                with netlink.shared(netns=self.netns) as socket:
                    link = netlink.find_link(socket, self.device)
                    if link:
                        socket.ask(netlink.delete_address(link.index, *_split(address)))
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in (EADDRNOTAVAIL, EINVAL):  # never added; never became a namespace
                    raise

    def _sysctls(self) -> dict[str, str]:
        """IPv6 is off in a new namespace (see ``Netns``): on, where a network has it, without what would take time."""
        if not any(":" in address for address in self.addresses):
            return {}
        conf = f"{PROC_NET}/ipv6/conf"
        return {
            f"{conf}/{self.device}/accept_ra": "0",  # routes come from us, not from a neighbour that poses as a router
            f"{conf}/{self.device}/accept_dad": "0",  # a port in hairpin mode sends the question back: "a duplicate"
            f"{conf}/lo/disable_ipv6": "0",
            f"{conf}/{self.device}/disable_ipv6": "0",
        }


def _split(address: str) -> tuple[str, int]:
    text, _, prefix = address.partition("/")
    return text, int(prefix)


class Carrier(Step):
    """Makes the bridge's port forward now, and the bridge itself send.

    The kernel tells a bridge some time later that a cable is live, and the rest of the kernel later still that the
    bridge is, when that was its first one. A packet that comes earlier is lost, and TCP repeats its first one after a
    second. Whoever asks for a link gets its pending work done before the answer (linkwatch_sync_dev in rtnl_getlink).
    """

    kind = "carrier"
    fields = ("host", "bridge")
    host: str
    bridge: str

    def sh(self) -> str:
        return "\n".join(
            (
                f"ip link show {self.host} > /dev/null  # reading it makes the port forward at once",
                f"ip link show {self.bridge} > /dev/null",
            )
        )

    def do(self) -> None:
        with netlink.shared() as socket:
            socket.ask(netlink.get_link(self.host), netlink.get_link(self.bridge))

    def undo(self) -> None:
        pass
