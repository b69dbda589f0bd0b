"""One container's place in the networks: its namespace, its cables to bridges, its addresses.

    host namespace                                    container's namespace, /run/netns/<name>
    br0 10.201.0.1 ── mr3f9a12ab34cd ═══ veth ═══════ eth0 10.201.0.2, default via 10.201.0.1

``attach_steps`` decides nothing and asks nothing: given endpoints and ports it says what has to be done. The order of
the steps is forced: the firewall knows who is behind a port before the port can speak, the cable's far end is born
inside the namespace, the address needs the cable, and a port is published when something can answer behind it. Taking
apart is dropping the namespace: the kernel then removes the cables by itself, later and in bulk, while deleting one by
name would make us wait 16-29 ms.
"""

from __future__ import annotations

import os
from binascii import crc32

from minirun import store
from minirun.errors import Conflict
from minirun.linux import netlink, syscalls
from minirun.network import sysctl
from minirun.network.addresses import bits
from minirun.network.ipam import Lease
from minirun.network.member import Member, Seat, port_group
from minirun.network.nameservice import Names
from minirun.network.nat import Claims, Publish
from minirun.network.network import comment as network_comment
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import ClassVar

    from minirun.network.endpoint import Endpoint
    from minirun.network.ports import Port

NETNS = "/run/netns"  # iproute2's own place, so that `ip netns exec <name>` just works
PROC_NET = "/proc/sys/net"
MOST_LOOKS = 10000  # for something that comes by itself
ENODEV, EINVAL, EXFULL, EADDRNOTAVAIL = 19, 22, 54, 99


def attach_steps(
    container_id: str, container_name: str, endpoints: Sequence[Endpoint], published: Sequence[Port]
) -> list[Step]:
    """The steps that give a container its namespace, an interface on each network, and its ports."""
    steps: list[Step] = [Netns(container_name, owner_tag(container_id))]
    for each in endpoints:
        steps += plug_steps(container_id, container_name, each, netns_path(container_name))
    steps.append(Names([each.network for each in endpoints]))
    if published:
        steps += publish_steps(container_id, container_name, endpoints, published)
    return steps


def publish_steps(
    container_id: str,
    container_name: str,
    endpoints: Sequence[Endpoint],
    published: Sequence[Port],
    process: tuple[int, int] | None = None,
) -> list[Step]:
    """The steps that let ports of the host lead to the container: to its addresses on the ways out.

    ``process`` is its first one (pid, start), if it runs already.
    """
    from minirun.network import ports

    ways = [each for each in endpoints if each.gateways]
    inside = [each.address(bits(gateway)) for each in ways for gateway in each.gateways]
    whose = ways[0].network, container_id, comment(container_id, container_name)
    elements = [element for port in published for element in port.elements(inside)]
    steps: list[Step] = [Publish(*whose, elements)] if elements else []
    proxied = ports.proxied(published)
    if proxied:
        from minirun.network import proxy

        steps.append(proxy.step(*whose, proxied, inside, process))
    return steps


def plug_steps(container_id: str, container_name: str, plug: Endpoint, netns: str) -> list[Step]:
    """The steps that put one more interface into a namespace."""
    label = comment(container_id, container_name)
    leased = [address.partition("/")[0] for address in plug.addresses]
    member = Member(plug.bridge, plug.uplink, plug.mtu, network_comment(plug.network), plug.isolated)
    return [
        # Undone after the leases: whoever loads all claims anew at that moment finds none of us.
        *([Claims(label, plug.claims())] if plug.guarded else []),
        *(
            Lease(plug.network, address, container_id, plug.notes(container_id, container_name, address))
            for address in leased
        ),
        *([member] if plug.uplink else []),
        Veth(plug.port, plug.bridge, plug.interface, netns, plug.mac, plug.mtu, label, plug.isolated, plug.guarded),
        *([Seat(plug.port, plug.mac)] if plug.uplink else []),
        *([Rates(plug.port, plug.rate_in, plug.rate_out, plug.mtu, label)] if plug.rate_in or plug.rate_out else []),
        Interface(netns, plug.interface, plug.addresses, plug.gateways),
        Carrier(plug.port, plug.bridge),
    ]


def isolated_steps(container_id: str, container_name: str) -> list[Step]:
    """The steps of ``--net none``: a namespace with nothing but lo."""
    return [
        Netns(container_name, owner_tag(container_id)),
        Interface(netns_path(container_name), "", [], []),
    ]


def netns_path(container_name: str) -> str:
    """Where the network namespace of a container is, for ``namespaces[].path`` of config.json."""
    return f"{NETNS}/{container_name}"


def comment(container_id: str, container_name: str) -> str:
    """What ``ip link`` and ``nft list`` show as the owner; cut so that the id always fits (nft: 128 bytes)."""
    return f"{container_name[:100]} {container_id[:12]}"


def owner_tag(container_id: str) -> int:
    """The number that marks a namespace as this container's: see ``Netns``."""
    return crc32(container_id.encode()) & 0x7FFFFFFF


class Netns(Step):
    """A network namespace with a name, without IPv6, in which anyone may ping.

    Whose it is stands inside, in net.ipv4.conf.lo.tag, a number that the kernel keeps for whoever needs one. It is
    written before the name appears: so a namespace is never removed because its name was used again.
    """

    kind = "netns"
    fields: ClassVar[tuple[str, ...]] = ("name", "tag")
    name: str
    tag: int

    def sh(self) -> str:
        settings = " ".join(
            f"{path.removeprefix('/proc/sys/').replace('/', '.')}='{value}'" for path, value in self._sysctls().items()
        )
        return f"ip netns add {self.name}\nip netns exec {self.name} sysctl -qew {settings}"

    def do(self) -> None:
        _make_folder()
        try:
            syscalls.netns_create(netns_path(self.name), self._sysctls())
        except FileExistsError:
            raise Conflict(
                f"network namespace {self.name}",
                "it exists already and is not this container's",
                f"remove it with: ip netns del {self.name}",
            ) from None

    def undo(self) -> None:
        path = netns_path(self.name)
        try:
            with netlink.shared(netns=path) as socket:
                loopback = netlink.find_link(socket, "lo")
                if loopback and loopback.tag != self.tag:
                    return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != EINVAL:  # EINVAL: an empty file, left by whoever died between creating and mounting it
                raise
        netlink.forget(path)
        syscalls.netns_delete(path)

    def _sysctls(self) -> dict[str, str]:
        return {
            # IPv6 left on in a network without it makes 1000 containers cost seconds of neighbour discovery.
            f"{PROC_NET}/ipv6/conf/all/disable_ipv6": "1",  # of those to come, too: the kernel sets "default" with it
            # ICMP echo without CAP_NET_RAW, which containers do not get (icmp(7)).
            f"{PROC_NET}/ipv4/ping_group_range": "0 2147483647",
            f"{PROC_NET}/ipv4/conf/lo/tag": str(self.tag),
        }


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


def _make_folder() -> None:
    """Make the folder of namespaces a shared mount, as iproute2 does.

    Else the first ``ip netns add`` of somebody would do that later, on top of our namespaces: each would then be
    mounted twice, and its name could never be removed (EBUSY).
    """
    if syscalls.is_mount_root(NETNS):
        return
    import fcntl

    from minirun.network import helper

    store.directory(NETNS, mode=0o755)
    folder = os.open(os.path.dirname(NETNS), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # two at once would mount twice, which is what we are here to prevent
        if not syscalls.is_mount_root(NETNS):
            helper.run(["mount", "--rbind", "--make-shared", NETNS, NETNS], "mount")
    finally:
        os.close(folder)
