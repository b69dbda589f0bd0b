"""Are the ports free, and which ones when any will do: asked before anything starts, and settled under locks.

A port of the host can be taken by another ``-p`` of the same command, by another container (an element of our table)
or by a program (which bind(2) knows best). Between the answer and the container's own elements nobody else may ask for
the same port: one file has a byte for each port of each protocol, and its bytes are locked from ``claim`` until the
step ``publish`` is done, or the process that holds them has ended. Starts that want different ports do not wait.
"""

from __future__ import annotations

import os
from errno import EADDRINUSE, EADDRNOTAVAIL

from minirun import store
from minirun.errors import Conflict, UsageError
from minirun.linux import netlink, nft
from minirun.linux.nft import Element
from minirun.network.addresses import IPV4, IPV6, bits
from minirun.network.nat import TABLE
from minirun.network.network import listing
from minirun.network.ports import ANY4, ANY6, LOOPBACK6, Port, proxied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterator, Sequence

    from minirun.network.taken import Index

EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"
SCTP = "/proc/net/sctp"  # there once the kernel's module is; a mere question must not load it
IPV6_V6ONLY = 26
NAMES_PORT = 53  # of DNS
FEW = 16  # ports that are asked for one by one

_lock = -1
listeners: dict[tuple[str, int], int] = {}  # (protocol, port) of [::1]: its socket, bound for whoever will listen


def claim(asked: Sequence[Port], families: Sequence[int]) -> list[Port]:
    """What will be published on a network with these families (IPV4, IPV6), every port and address decided.

    Holds their locks afterwards: ``release`` them. Raises Conflict, UsageError.
    """
    global _lock
    _lock = os.open(f"{store.directory(store.state)}/ports.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Who waits, waits in the order of the numbers: so of two none waits for what the other has.
        for port in sorted(asked, key=_place):
            if port.host_port:
                _hold(port, wait=True)
        decided = propose(asked, families)
        for port in proxied(decided):
            listeners[port.protocol, port.host_port] = _listen(port)
        return decided
    except BaseException:
        close()
        release()
        raise


def close() -> None:
    """Free the ports in ``listeners`` for which nobody will listen."""
    while listeners:
        os.close(listeners.popitem()[1])


def release() -> None:
    """Let others claim these ports; holding none is fine. Those in ``listeners`` are the step ``proxy``'s."""
    global _lock
    if _lock >= 0:
        os.close(_lock)
        _lock = -1


def _place(port: Port) -> int:
    """Where its byte is in the file of locks."""
    return nft.PROTOCOLS[port.protocol] << 16 | port.host_port


def _hold(port: Port, wait: bool) -> bool:
    """Lock a port or a range (fcntl(2), F_SETLK); without ``wait``, False if somebody has one of them just now."""
    if _lock < 0:  # nothing is to be reserved
        return True
    import fcntl

    try:
        fcntl.lockf(_lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), port.count, _place(port))
    except BlockingIOError:
        return False
    return True


def propose(asked: Sequence[Port], families: Sequence[int]) -> list[Port]:
    """What ``claim`` would give now, with nothing reserved (for ``explain``)."""
    decided: list[Port] = []
    others = _Others(len(asked))
    # Those with a number first: none of the others may get it.
    for port in sorted(asked, key=lambda port: not port.host_port):
        decided += _decide(port, _addresses(port, families), others)
    return decided


def _decide(port: Port, addresses: Sequence[str], others: _Others) -> list[Port]:
    """The port at each of the addresses, with a number that is free."""
    numbers: Sequence[int] | Iterator[int] = [port.host_port] if port.host_port else _candidates(port)
    for number in numbers:
        wanted = [port.at(address, number) for address in addresses]
        try:
            if port.host_port or _hold(wanted[0], wait=False):
                _check(port, wanted, others)
                return wanted
        except Conflict:
            if port.host_port:
                raise
    raise Conflict(f"-p {port}", "no port is free", f"see: ss -an, and {EPHEMERAL}")


def _addresses(port: Port, families: Sequence[int]) -> list[str]:
    """The addresses of the host where ``port`` is published: all of a family's is one."""
    if not port.address:
        return [{IPV4: ANY4, IPV6: ANY6}[family] for family in families]
    if bits(port.address) not in families and port.address != LOOPBACK6:
        remedy = "minirun network create NAME --ipv6" if port.family == 6 else "use another network"
        raise UsageError(f"-p {port}", f"the network has no IPv{port.family}", remedy)
    return [port.address]


def _candidates(port: Port) -> Iterator[int]:
    """The ports to try, when any will do: those that were given in order, or the kernel's own range from somewhere."""
    if port.choices:
        yield from range(port.choices[0], port.choices[1] + 1)
        return
    first, last = (int(number) for number in (store.read(EPHEMERAL) or "32768 60999").split())
    size = last - first + 1
    start = int.from_bytes(os.urandom(4), "big")
    yield from (first + (start + step) % size for step in range(size))


def _check(asked: Port, wanted: Sequence[Port], others: _Others) -> None:
    for port in wanted:
        same = others.ours.find(port) if others.ours else None
        if same is not None:
            raise Conflict(f"-p {asked}", f"-p {same} of the same command has the port")
        owner = others.container(port)
        if owner is not None:
            why = f"container {owner} publishes this port already"
            raise Conflict(f"-p {asked}", why, "choose another one; minirun ps shows those in use")
    for port in wanted:
        _check_host(asked, port)
    others.note(wanted)


class _Others:
    """What else is published: by this command, and by other containers."""

    def __init__(self, count: int) -> None:
        self.alone, self.many = count == 1, count > FEW
        self.ours: Index | None = None
        self.theirs: dict[int, Index] = {}

    def note(self, ports: Sequence[Port]) -> None:
        """These are this command's from now on."""
        if self.alone:
            return
        if self.ours is None:
            from minirun.network.taken import Index

            self.ours = Index()
        for port in ports:
            self.ours.add(port, str(port))

    def container(self, port: Port) -> str | None:
        """The comment of an element that holds one of these ports on such an address, or None."""
        if not self.many and port.count == 1:
            return _holder(port)
        if port.family not in self.theirs:
            from minirun.network import taken

            self.theirs[port.family] = taken.of_containers(port.family)
        return self.theirs[port.family].find(port)


def _holder(port: Port) -> str | None:
    """Who has a single port: asked of the kernel by its key, which costs the same however many there are."""
    name, asked = f"pub{port.family}", [port.protocol, str(port.host_port)]
    owner = TABLE.comment(Element(f"{name}_any", asked, [], ""))
    addresses = [port.address]
    if port.address in (ANY4, ANY6):  # one that is published on an address of this host is in the way too
        addresses += local_addresses(port.family)
    for address in addresses:
        for kind in (name, f"{name}_range"):
            owner = owner or TABLE.comment(Element(kind, [address, *asked], [], ""))
    return owner


def local_addresses(family: int) -> list[str]:
    """Every address that this host has now."""
    with netlink.shared() as socket:
        return [one.text for one in netlink.addresses(socket) if (":" in one.text) == (family == 6)]


def _check_host(asked: Port, port: Port) -> None:
    """Bind each port for a moment, as a program of the host would: a taken one refuses."""
    import _socket

    if port.protocol == "sctp" and not os.path.exists(SCTP):
        return
    for number in range(port.host_port, port.host_port + port.count):
        try:
            for address in [port.address] if number != NAMES_PORT else _but_gateways(port):
                _socket.close(bound(port.protocol, address, number).detach())
        except OSError as error:
            raise _taken(asked, port, number, error) from None


def _but_gateways(port: Port) -> list[str]:
    """The addresses that ``port`` means, without our gateways: there the name server is, and keeps the port."""
    if port.address not in (ANY4, ANY6):
        return [port.address]
    gateways = {pool.gateway for network in listing() for pool in network.pools}
    return [a for a in local_addresses(port.family) if a not in gateways and not a.startswith("fe80:")]


def bound(protocol: str, address: str, number: int) -> socket:
    """A socket on this port. Raises OSError.

    For TCP with SO_REUSEADDR: connections that ended lately (TIME_WAIT) are no obstacle, a listener is. For UDP
    without, where the option would let two sockets share the port. An IPv6 socket is for IPv6 alone.
    """
    import _socket

    kind = _socket.SOCK_DGRAM if protocol == "udp" else _socket.SOCK_STREAM
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    found = _socket.socket(family, kind, nft.PROTOCOLS[protocol])
    try:
        if protocol != "udp":
            found.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if family == _socket.AF_INET6:
            found.setsockopt(_socket.IPPROTO_IPV6, IPV6_V6ONLY, 1)
        found.bind((address, number))
    except BaseException:
        found.close()
        raise
    return found


def _listen(port: Port) -> int:
    try:
        found = bound(port.protocol, port.address, port.host_port)
        if port.protocol == "tcp":
            found.listen(128)  # of two sockets that are only bound neither would be refused
        return found.detach()
    except OSError as error:
        raise _taken(port, port, port.host_port, error) from None


def _taken(asked: Port, port: Port, number: int, error: OSError) -> Conflict:
    if error.errno == EADDRNOTAVAIL:
        return Conflict(f"-p {asked}", f"this machine has no address {port.address}", "see: ip addr")
    if error.errno != EADDRINUSE:
        return Conflict(f"-p {asked}", f"port {number} of {port.address}: {error.strerror}".lower())
    from minirun.network import holders

    holder = holders.of(port.protocol, port.address, number)
    where = f" {number}" if port.count > 1 else ""
    remedy = f"see: ss -lnp 'sport = {number}'"
    return Conflict(f"-p {asked}", f"{holder or 'a program of this machine'} uses the port{where}", remedy)
