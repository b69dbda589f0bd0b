"""What ``-p`` means, and whether the port is free: [address:]host-port:container-port[/protocol]."""

from __future__ import annotations

from minirun.errors import Conflict, UsageError
from minirun.linux import nft
from minirun.linux.nft import Element
from minirun.network import addresses
from minirun.network.nat import TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

MAX_RANGE = 1024
ANY = "0.0.0.0"
EADDRNOTAVAIL = 99


class Port:
    """One published port: what the client asks for, and the port of the container that answers."""

    __slots__ = ("address", "container_port", "host_port", "protocol")

    def __init__(self, address: str, host_port: int, container_port: int, protocol: str = "tcp") -> None:
        self.address = address  # "": every address of the host
        self.host_port, self.container_port, self.protocol = host_port, container_port, protocol

    def __str__(self) -> str:
        return f"{self.address or ANY}:{self.host_port}:{self.container_port}/{self.protocol}"

    def record(self) -> list[Any]:
        """The port as JSON: the constructor's arguments."""
        return [self.address, self.host_port, self.container_port, self.protocol]

    def element(self, container: str) -> list[Any]:
        """Its element in our table, [set, key, data], for a container with the address ``container``."""
        asked = [self.protocol, str(self.host_port)]
        answer = [container, str(self.container_port)]
        return ["pub4", [self.address, *asked], answer] if self.address else ["pub4_any", asked, answer]


def parse(text: str) -> list[Port]:
    """The ports that one ``-p`` names, several if it has ranges. Raises UsageError."""
    rest, _, protocol = text.partition("/")
    address, _, pair = rest.rpartition(":")[0].rpartition(":") if rest.count(":") > 1 else ("", "", rest)
    if rest.count(":") > 1:
        pair = f"{pair}:{rest.rpartition(':')[2]}"
    protocol = protocol if "/" in text else "tcp"
    if protocol not in nft.PROTOCOLS:
        raise UsageError(f"-p {text}", f"unknown protocol {protocol!r}", "use tcp, udp or sctp")
    if address and not addresses.is_address(address):
        raise UsageError(f"-p {text}", f"{address!r} is not an IPv4 address")
    host, colon, inside = pair.partition(":")
    if not colon:
        raise UsageError(f"-p {text}", "the host's port is missing", f"write it as -p 8080:{pair}")
    outer, inner = _range(text, host), _range(text, inside)
    if len(outer) != len(inner):
        raise UsageError(f"-p {text}", f"{len(outer)} ports of the host for {len(inner)} of the container")
    address = "" if address == ANY else address
    return [Port(address, a, b, protocol) for a, b in zip(outer, inner, strict=True)]


def _range(flag: str, text: str) -> range:
    low, dash, high = text.partition("-")
    numbers = [low, high if dash else low]
    if not all(number.isascii() and number.isdigit() and len(number) < 6 for number in numbers):
        raise UsageError(f"-p {flag}", f"{text!r} is not a port", "write it as -p 8080:80")
    first, last = int(numbers[0]), int(numbers[1])
    if not 0 < first <= last < 65536:
        raise UsageError(
            f"-p {flag}", f"{text!r} is not within 1-65535" if first <= last else f"{text!r} runs backwards"
        )
    if last - first >= MAX_RANGE:
        raise UsageError(f"-p {flag}", f"more than {MAX_RANGE} ports at once")
    return range(first, last + 1)


def check(published: Sequence[Port]) -> None:
    """Refuse ports that are taken by one another, by another container or by a program of the host. Raises Conflict."""
    for number, port in enumerate(published):
        for other in published[:number]:
            if _same_port(port, other) and (port.address == other.address or not port.address or not other.address):
                raise Conflict(f"-p {port}", f"{other} is the same port of the host")
    for port in published:
        owner = _container_at(port)
        if owner is not None:
            raise Conflict(f"-p {port}", f"container {owner} publishes this port already")
        _check_host(port)


def _same_port(one: Port, other: Port) -> bool:
    return (one.protocol, one.host_port) == (other.protocol, other.host_port)


def _container_at(port: Port) -> str | None:
    """The comment of an element that holds this port on this address, or on any if either means all addresses."""
    asked = [port.protocol, str(port.host_port)]
    owner = TABLE.comment(Element("pub4_any", asked, [], ""))
    if owner is not None:
        return owner
    if port.address:
        return TABLE.comment(Element("pub4", [port.address, *asked], [], ""))
    packed, _ = nft.pack("inet_proto . inet_service", asked)
    for key, comment in TABLE.dump("pub4"):
        if key.endswith(packed):
            return comment
    return None


def _check_host(port: Port) -> None:
    """Bind the port for a moment, as a program of the host would: a taken one refuses.

    For TCP with SO_REUSEADDR: connections that ended lately (TIME_WAIT) are no obstacle, a listener is. For UDP
    without, where the option would let two sockets share the port.
    """
    import _socket

    kinds = {"tcp": _socket.SOCK_STREAM, "udp": _socket.SOCK_DGRAM, "sctp": _socket.SOCK_STREAM}
    try:
        probe = _socket.socket(_socket.AF_INET, kinds[port.protocol], nft.PROTOCOLS[port.protocol])
    except OSError:
        return  # a kernel without SCTP has no listener of it either
    try:
        if port.protocol != "udp":
            probe.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        probe.bind((port.address, port.host_port))
    except OSError as error:
        if error.errno == EADDRNOTAVAIL:
            raise Conflict(f"-p {port}", f"this machine has no address {port.address}") from None
        remedy = f"see: ss -ln 'sport = {port.host_port}'"
        raise Conflict(f"-p {port}", "a program of this machine uses the port", remedy) from None
    finally:
        probe.close()
