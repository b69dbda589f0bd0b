"""Our own small rtnetlink(7): just the messages that a container's start needs, packed by hand.

Every start speaks it, and a general library costs 140 ms to import, ten starts' worth; this module costs well under
one. Messages are values: build some, hand them to ``Socket.ask`` together, and they cross to the kernel in one
write(2). The kernel handles them in order, and goes on after one that failed: send together only what may.

Constants bear the names of linux/netlink.h, linux/rtnetlink.h, linux/if_link.h and linux/if_addr.h.
"""

from __future__ import annotations

import os
from _struct import Struct
from errno import ENODEV

from minirun.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLM_F_DUMP_INTR, MOST_DUMPS = 0x10, 20
NLMSG_ERROR, NLMSG_DONE, NLMSGERR_ATTR_MSG = 2, 3, 1
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_GETROUTE, RTM_NEWNEIGH = 24, 26, 28
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 10, 18
IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD = 20, 26, 27, 28
IFLA_STATS64 = 23
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
VETH_INFO_PEER, IFLA_INET_CONF, IPV4_DEVCONF_TAG = 1, 1, 12
IFLA_BR_MULTI_BOOLOPT, BR_BOOLOPT_NO_LL_LEARN = 46, 1
IFLA_BRPORT_MODE, IFLA_BRPORT_GROUP_FWD_MASK = 4, 31
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS, IFA_F_NODAD = 1, 2, 4, 8, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_METRICS, RTA_TABLE = 1, 4, 5, 6, 8, 15
RTAX_MTU, RTAX_ADVMSS, RT_SCOPE_LINK = 2, 8, 253
RT_TABLE_MAIN, RTPROT_STATIC, RTPROT_RA = 254, 4, 9
RT_SCOPE_UNIVERSE, RTN_UNICAST, RTN_LOCAL, RTN_MULTICAST = 0, 1, 2, 5
NDA_LLADDR, NUD_NOARP, NTF_MASTER, NTF_STICKY = 2, 0x40, 0x04, 0x40
AF_UNSPEC, AF_INET, AF_BRIDGE, AF_INET6 = 0, 2, 7, 10
IFF_UP, IFF_NOARP = 0x1, 0x80
LINK_LOCAL_FRAMES = 0xFFFD  # group_fwd_mask: every 01:80:c2:00:00:0X but 01

_AF_NETLINK, _SO_SNDBUFFORCE = 16, 32
_PLENTY = 1 << 17  # bytes that any socket takes in one write
_BUFFER = 32768  # the kernel never fills a larger one when it dumps (netlink_dump, af_netlink.c)
_header = Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_attribute = Struct("=HH")  # nlattr: length, type
link_header = Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
address_header = Struct("=BBBBi")  # ifaddrmsg: family, prefix length, flags, scope, index
_route = Struct("=BBBBBBBBI")  # rtmsg: family, dst, src, tos, table, protocol, scope, type, flags
_neighbour = Struct("=BxxxiHBx")  # ndmsg: family, index, state, flags, type
_number = Struct("=I")
_integer = Struct("=i")
_pair = Struct("=II")
_short = Struct("=H")
_traffic = Struct("=QQ")


class Message:
    """One request: its type, its flags and what follows the header; ``about`` names its object in an error."""

    __slots__ = ("about", "body", "flags", "type")

    def __init__(self, kind: int, flags: int, body: bytes, about: str = "") -> None:
        self.type, self.flags, self.body, self.about = kind, flags | NLM_F_REQUEST, body, about

    def packed(self, sequence: int) -> bytes:
        """The message as the kernel reads it."""
        return _header.pack(16 + len(self.body), self.type, self.flags, sequence, 0) + self.body


def attribute(kind: int, value: bytes | str | int) -> bytes:
    """One attribute: bytes as they are, text NUL-terminated, a number as u32; padded to 4 bytes."""
    if isinstance(value, int):
        value = _number.pack(value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    return _attribute.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *inner: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(inner))


def attributes(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Each (type, value) of a packed list of attributes."""
    while start + 4 <= len(data):
        length, kind = _attribute.unpack_from(data, start)
        yield kind & NLA_TYPE_MASK, data[start + 4 : start + length]
        start += max(4, (length + 3) & ~3)


def text(value: bytes) -> str:
    """A name as the kernel packs it."""
    return value.rstrip(b"\0").decode(errors="replace")


_shared: dict[tuple[int, str | None], Socket] = {}


def shared(protocol: int = syscalls.NETLINK_ROUTE, netns: str | None = None) -> Socket:
    """A socket that stays open for whoever asks for the same next: a plan's steps talk to two namespaces.

    It also keeps the namespace alive: ``forget`` it with the name.
    """
    socket = _shared.get((protocol, netns))
    if socket is None:
        socket = _shared[protocol, netns] = Socket(protocol, netns)
        socket.stays = True
    return socket


def forget(netns: str) -> None:
    """Close the shared socket of a namespace, if there is one."""
    socket = _shared.pop((syscalls.NETLINK_ROUTE, netns), None)
    if socket:
        os.close(socket.descriptor)


class Socket:
    """A netlink socket in our network namespace, or in the one at the path ``netns``."""

    def __init__(self, protocol: int = syscalls.NETLINK_ROUTE, netns: str | None = None) -> None:
        self.descriptor = syscalls.netlink_socket(protocol, netns)
        self.stays = False
        self.number = 1
        self.interrupted = False  # whether something changed during the last dump

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.stays:
            os.close(self.descriptor)

    def ask(self, *messages: Message) -> list[bytes]:
        """Send the messages in one write and return the bodies of all replies, in order; a dump goes alone.

        A dump during which something changed may lack what was always there: it is repeated, but not for ever. Raises
        OSError for the first message that failed, with the kernel's own text if it gave one.
        """
        for _ in range(MOST_DUMPS):
            bodies = self._exchange(messages)
            if not self.interrupted:
                break
        return bodies

    def transaction(self, begin: Message, messages: Sequence[Message], end: Message) -> None:
        """Send messages that take effect together or not at all (nfnetlink's batch). Raises as ``ask`` does."""
        self._exchange(messages, begin, end)

    def _exchange(
        self, messages: Sequence[Message], begin: Message | None = None, end: Message | None = None
    ) -> list[bytes]:
        # Errors always come back; an acknowledgement only of the last, which therefore means "all were handled".
        messages[-1].flags |= NLM_F_ACK
        # Numbers go on from one exchange to the next: what is still to come of one that failed is not taken for this.
        start, last = self.number, self.number + len(messages)
        self.number = last + 2
        packed = b"".join(message.packed(start + place) for place, message in enumerate(messages, 1))
        packed = (begin.packed(start) if begin else b"") + packed + (end.packed(last + 1) if end else b"")
        if len(packed) > _PLENTY:
            self._make_room(len(packed))
        os.write(self.descriptor, packed)
        bodies: list[bytes] = []
        failure: OSError | None = None
        self.interrupted = False
        while True:
            for kind, flags, sequence, body in self._read():
                if sequence < start:
                    continue
                self.interrupted |= bool(flags & NLM_F_DUMP_INTR)
                if kind not in (NLMSG_ERROR, NLMSG_DONE):
                    bodies.append(body)
                    continue
                number = -_integer.unpack_from(body)[0]
                if number and failure is None:
                    about = messages[sequence - start - 1].about if sequence > start else ""
                    text = _kernel_text(flags, body) if kind == NLMSG_ERROR else ""
                    failure = OSError(number, text or os.strerror(number), about or None)
                if failure and sequence in (start, last):  # start: the transaction as a whole
                    raise failure
                if sequence == last:
                    return bodies

    def _make_room(self, size: int) -> None:
        """Let the socket take a write of so many bytes; net.core.wmem_max (208 KiB) does not bind CAP_NET_ADMIN."""
        import _socket

        known = _socket.socket(_AF_NETLINK, _socket.SOCK_RAW, 0, fileno=self.descriptor)
        try:
            known.setsockopt(_socket.SOL_SOCKET, _SO_SNDBUFFORCE, size)  # the kernel doubles it
        finally:
            known.detach()

    def _read(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = os.read(self.descriptor, _BUFFER)
        start = 0
        while start + 16 <= len(data):
            length, kind, flags, sequence, _ = _header.unpack_from(data, start)
            yield kind, flags, sequence, data[start + 16 : start + length]
            start += max(16, (length + 3) & ~3)


def _kernel_text(flags: int, body: bytes) -> str:
    """The sentence of NLMSGERR_ATTR_MSG; it follows the error and the request's header (its whole, if not capped)."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    request = 16 if flags & NLM_F_CAPPED else (_number.unpack_from(body, 4)[0] + 3) & ~3
    for kind, value in attributes(body, 4 + request):
        if kind == NLMSGERR_ATTR_MSG:
            return value.rstrip(b"\0").decode(errors="replace")
    return ""


def packed_address(text: str) -> bytes:
    """An IPv4 or IPv6 address in network order."""
    if ":" in text:
        from _socket import inet_pton

        return inet_pton(AF_INET6, text)
    return bytes(int(part) for part in text.split("."))


def packed_mac(text: str) -> bytes:
    """The six bytes of an Ethernet address."""
    return bytes.fromhex(text.replace(":", ""))


def _link_message(kind: int, flags: int, name: str, *inner: bytes, set_flags: int = 0, change: int = 0) -> Message:
    body = link_header.pack(AF_UNSPEC, 0, 0, set_flags, change) + attribute(IFLA_IFNAME, name) + b"".join(inner)
    return Message(kind, flags, body, name)


def new_bridge(name: str, mac: str) -> Message:
    """``ip link add NAME address MAC type bridge no_linklocal_learn 1``; its MTU is a matter of ``set_mtu``.

    A pinned MAC does not follow the ports' MACs. The option (Linux 5.0): frames to 01:80:c2:00:00:0X, which pass by the
    firewall, teach the bridge nothing.
    """
    options = attribute(
        IFLA_BR_MULTI_BOOLOPT, _pair.pack(BR_BOOLOPT_NO_LL_LEARN, BR_BOOLOPT_NO_LL_LEARN)
    )  # value, mask
    kind = nested(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, "bridge"), nested(IFLA_INFO_DATA, options))
    details = (attribute(IFLA_ADDRESS, packed_mac(mac)), kind)
    return _link_message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, name, *details)


def set_mtu(name: str, mtu: int) -> Message:
    """``ip link set NAME mtu MTU``.

    A bridge keeps only a MTU that it is given after its creation, and that is not what it has already; else it takes
    its ports' smallest, and with the last port gone 1500 (br_mtu_auto_adjust, net/bridge/br_if.c).
    """
    return _link_message(RTM_SETLINK, 0, name, attribute(IFLA_MTU, mtu))


def new_veth(name: str, master: int, mtu: int, peer: str, netns: int, peer_mac: str, group: int = 0) -> Message:
    """A veth pair whose end ``name`` is up and a port of ``master``, and whose ``peer`` is born in ``netns`` (an fd).

    The device ``group`` is a number by which firewall rules know what kind of interface it is.

    All in one message, because each further change of a link that is up waits for RCU. The peer must not be up yet:
    the kernel refuses that with ENOTCONN.
    """
    inside = (
        link_header.pack(AF_UNSPEC, 0, 0, 0, 0),
        attribute(IFLA_IFNAME, peer),
        attribute(IFLA_ADDRESS, packed_mac(peer_mac)),
        attribute(IFLA_MTU, mtu),
        attribute(IFLA_NET_NS_FD, netns),
    )
    data = nested(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, b"".join(inside)))
    details = (
        attribute(IFLA_MTU, mtu),
        attribute(IFLA_MASTER, master),
        attribute(IFLA_GROUP, group),
        nested(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, "veth"), data),
    )
    return _link_message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, name, *details, set_flags=IFF_UP, change=IFF_UP)


def set_port(name: str, alias: str, *, guarded: bool = False, group: int = 0) -> Message:
    """Set a bridge port's alias and its device ``group``, and let it send a frame back where it came from (hairpin).

    With ``guarded`` frames to 01:80:c2:00:00:0X are handled as all others (mask: all but pause frames, which every
    bridge drops): else they would pass by the firewall and reach the host as if the port were no port.
    """
    flags = attribute(IFLA_BRPORT_MODE, b"\1")
    if guarded:
        flags += attribute(IFLA_BRPORT_GROUP_FWD_MASK, _short.pack(LINK_LOCAL_FRAMES))
    port = nested(IFLA_INFO_SLAVE_DATA, flags)
    details = attribute(IFLA_IFALIAS, alias.encode()) + attribute(IFLA_GROUP, group)
    info = nested(IFLA_LINKINFO, attribute(IFLA_INFO_SLAVE_KIND, "bridge"), port)
    return _link_message(RTM_NEWLINK, 0, name, details, info)


def new_detour(name: str, mtu: int) -> Message:
    """``ip link add NAME mtu MTU type ifb``: what is sent to it comes out where it was taken from (tc-mirred(8))."""
    kind = nested(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, "ifb"))
    return _link_message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, name, attribute(IFLA_MTU, mtu), kind)


def set_alias(name: str, alias: str) -> Message:
    """``ip link set NAME alias ALIAS``."""
    return _link_message(RTM_SETLINK, 0, name, attribute(IFLA_IFALIAS, alias.encode()))


def new_pair(name: str, peer: str, mtu: int) -> Message:
    """``ip link add NAME mtu MTU type veth peer name PEER mtu MTU``: a cable that stays on the host."""
    other = link_header.pack(AF_UNSPEC, 0, 0, 0, 0) + attribute(IFLA_IFNAME, peer) + attribute(IFLA_MTU, mtu)
    data = nested(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, other))
    kind = nested(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, "veth"), data)
    return _link_message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, name, attribute(IFLA_MTU, mtu), kind)


def set_master(name: str, master: int) -> Message:
    """``ip link set NAME master MASTER up``."""
    return _link_message(RTM_SETLINK, 0, name, attribute(IFLA_MASTER, master), set_flags=IFF_UP, change=IFF_UP)


def get_addresses() -> Message:
    """Ask for every address of every link."""
    return Message(RTM_GETADDR, NLM_F_DUMP, address_header.pack(AF_UNSPEC, 0, 0, 0, 0), "addresses")


def set_up(name: str, flags: int = 0) -> Message:
    """``ip link set NAME up``; with IFF_NOARP ``arp off up``."""
    return _link_message(RTM_SETLINK, 0, name, set_flags=IFF_UP | flags, change=IFF_UP | flags)


def delete_link(name: str) -> Message:
    """``ip link del NAME``: 16-29 ms, because it waits for RCU."""
    return _link_message(RTM_DELLINK, 0, name)


def get_link(name: str) -> Message:
    """Ask for one link; ENODEV if there is none. The kernel settles the link's carrier before it answers."""
    return _link_message(RTM_GETLINK, 0, name)


def get_links() -> Message:
    """Ask for every link."""
    return Message(RTM_GETLINK, NLM_F_DUMP, link_header.pack(AF_UNSPEC, 0, 0, 0, 0), "links")


def _address_message(kind: int, flags: int, index: int, address: str, prefix: int) -> Message:
    packed = packed_address(address)
    family = AF_INET if len(packed) == 4 else AF_INET6
    body = address_header.pack(family, prefix, 0, RT_SCOPE_UNIVERSE, index)
    body += attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
    if family == AF_INET and kind == RTM_NEWADDR and prefix < 31:
        broadcast = int.from_bytes(packed, "big") | (1 << (32 - prefix)) - 1
        body += attribute(IFA_BROADCAST, broadcast.to_bytes(4, "big"))
    if family == AF_INET6 and kind == RTM_NEWADDR:  # leased: to look for a second holder costs a second (RFC 4862)
        body += attribute(IFA_FLAGS, IFA_F_NODAD)
    return Message(kind, flags, body, f"{address}/{prefix}")


def add_address(index: int, address: str, prefix: int) -> Message:
    """``ip addr add ADDRESS/PREFIX brd + dev INDEX``, for IPv6 ``nodad`` instead of ``brd +``."""
    return _address_message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, index, address, prefix)


def delete_address(index: int, address: str, prefix: int) -> Message:
    """``ip addr del ADDRESS/PREFIX dev INDEX``."""
    return _address_message(RTM_DELADDR, 0, index, address, prefix)


def add_default_route(index: int, gateway: str) -> Message:
    """``ip route add default via GATEWAY dev INDEX proto static``."""
    packed = packed_address(gateway)
    family = AF_INET if len(packed) == 4 else AF_INET6
    body = _route.pack(family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0)
    body += attribute(RTA_GATEWAY, packed) + attribute(RTA_OIF, index)
    return Message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body, f"default via {gateway}")


def add_route(index: int, route: dict[str, Any]) -> Message:
    """``ip route add DST``, maybe with ``gw`` and numbers: ``mtu``, ``advmss``, ``priority``, ``table``, ``scope``."""
    target, _, prefix = route["dst"].partition("/")
    packed, table = packed_address(target), route.get("table", RT_TABLE_MAIN)
    family = AF_INET if len(packed) == 4 else AF_INET6
    scope = route.get("scope", RT_SCOPE_UNIVERSE if "gw" in route or family == AF_INET6 else RT_SCOPE_LINK)
    small = table if table < 256 else 0  # RTA_TABLE says it whole
    body = _route.pack(family, int(prefix), 0, 0, small, RTPROT_STATIC, scope, RTN_UNICAST, 0)
    body += attribute(RTA_OIF, index) + attribute(RTA_TABLE, table)
    body += attribute(RTA_DST, packed) if int(prefix) else b""
    body += attribute(RTA_GATEWAY, packed_address(route["gw"])) if "gw" in route else b""
    body += attribute(RTA_PRIORITY, route["priority"]) if "priority" in route else b""
    metrics = [
        attribute(kind, route[key]) for key, kind in (("mtu", RTAX_MTU), ("advmss", RTAX_ADVMSS)) if key in route
    ]
    body += nested(RTA_METRICS, *metrics) if metrics else b""
    return Message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body, f"route to {route['dst']}")


def stay(port: int, mac: str) -> Message:
    """``bridge fdb replace MAC dev PORT master static sticky``: a bridge finds MAC there, whoever uses it elsewhere."""
    body = _neighbour.pack(AF_BRIDGE, port, NUD_NOARP, NTF_MASTER | NTF_STICKY) + attribute(NDA_LLADDR, packed_mac(mac))
    return Message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, mac)


def get_routes(family: int = AF_INET) -> Message:
    """Ask for every route of every table."""
    return Message(RTM_GETROUTE, NLM_F_DUMP, _route.pack(family, 0, 0, 0, 0, 0, 0, 0, 0), "routes")


def get_route(address: str) -> Message:
    """Ask by which route a packet to ``address`` would leave (``ip route get``); ENETUNREACH if by none."""
    packed = packed_address(address)
    family = AF_INET if len(packed) == 4 else AF_INET6
    body = _route.pack(family, 8 * len(packed), 0, 0, 0, 0, 0, 0, 0) + attribute(RTA_DST, packed)
    return Message(RTM_GETROUTE, 0, body, address)


def get_link_number(index: int) -> Message:
    """Ask for the link of that index."""
    return Message(RTM_GETLINK, 0, link_header.pack(AF_UNSPEC, 0, index, 0, 0), f"link {index}")


class Link:
    """What RTM_GETLINK told about a link."""

    __slots__ = ("alias", "index", "kind", "mac", "master", "mtu", "name", "tag", "up")

    def __init__(self, body: bytes) -> None:
        _, _, self.index, flags, _ = link_header.unpack_from(body)
        self.up = bool(flags & IFF_UP)
        found = dict(attributes(body, link_header.size))
        info = dict(attributes(found.get(IFLA_LINKINFO, b"")))
        inet = dict(attributes(dict(attributes(found.get(IFLA_AF_SPEC, b""))).get(AF_INET, b"")))
        self.name = text(found[IFLA_IFNAME])
        self.mac = found.get(IFLA_ADDRESS, b"").hex(":")
        self.alias = text(found.get(IFLA_IFALIAS, b""))
        self.kind = text(info.get(IFLA_INFO_KIND, b""))
        self.master = int.from_bytes(found.get(IFLA_MASTER, b""), "little")
        self.mtu = int.from_bytes(found.get(IFLA_MTU, b""), "little")
        devconf = inet.get(IFLA_INET_CONF, b"")[4 * (IPV4_DEVCONF_TAG - 1) :][:4]
        self.tag = int.from_bytes(devconf, "little")  # net.ipv4.conf.NAME.tag: a number for whoever wants one


class Address:
    """What RTM_GETADDR told about an address: its link's index, and ``interface``, such as ``10.201.0.1/20``.

    ``text`` is the address alone; "" if it is neither of IPv4 nor of IPv6.
    """

    __slots__ = ("index", "interface", "text")

    def __init__(self, body: bytes) -> None:
        from _socket import inet_ntop

        family, prefix, _, _, self.index = address_header.unpack_from(body)
        found = dict(attributes(body, address_header.size))
        packed = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS, b"")  # IPv6 has the first only with a peer
        self.text = inet_ntop(family, packed) if family in (AF_INET, AF_INET6) else ""
        self.interface = f"{self.text}/{prefix}"


def find_link(socket: Socket, name: str) -> Link | None:
    """The link of that name, or None."""
    try:
        return Link(socket.ask(get_link(name))[0])
    except OSError as error:
        if error.errno == ENODEV:
            return None
        raise


def addresses(socket: Socket) -> list[Address]:
    """Every address of a namespace."""
    found = [Address(body) for body in socket.ask(get_addresses())]
    return [address for address in found if address.text]


def traffic(body: bytes) -> tuple[int, int]:
    """Bytes that a link (RTM_GETLINK's answer) has received and has sent (rtnl_link_stats64)."""
    statistics = dict(attributes(body, link_header.size)).get(IFLA_STATS64, b"")
    return _traffic.unpack_from(statistics, 16) if len(statistics) >= 32 else (0, 0)


class Route:
    """What RTM_GETROUTE told about a route: ``destination`` as a number, ``prefix`` length, type, index of the link.

    ``protocol`` is who made it (RTPROT_*).
    """

    __slots__ = ("destination", "link", "metric", "prefix", "protocol", "table", "type")

    def __init__(self, body: bytes) -> None:
        _, self.prefix, _, _, self.table, self.protocol, _, self.type, _ = _route.unpack_from(body)
        found = dict(attributes(body, _route.size))
        self.destination = int.from_bytes(found.get(RTA_DST, b""), "big")
        self.link = int.from_bytes(found.get(RTA_OIF, b""), "little")
        self.metric = int.from_bytes(found.get(RTA_PRIORITY, b""), "little")


def routes(socket: Socket, family: int = AF_INET) -> list[Route]:
    """Every route of a family, the kernel's own for local addresses included."""
    return [Route(body) for body in socket.ask(get_routes(family))]
