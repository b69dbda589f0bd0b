"""What ``-p`` means: which ports of the host lead to which of the container.

Every form of docker's and podman's is understood: [[ADDRESS:][HOST]:]CONTAINER[/PROTOCOL], where the ports may be
ranges. Whether they are free is the business of ``claim``; here nothing is looked up.
"""

from __future__ import annotations

from minirun.errors import UsageError
from minirun.linux import nft
from minirun.network import addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

MAX_PROXIED = 256  # ports of [::1] for one container: csrc/proxy.c, MAX_LISTENERS
MAX_SINGLE = 1024  # ports that one -p may name, where each needs an element of its own
ANY4, ANY6, LOOPBACK6 = "0.0.0.0", "::", "::1"
_MAPPED = 0xFFFF  # ::ffff:192.0.2.1 means 192.0.2.1 (RFC 4291, 2.5.5.2)


class Port:
    """Published ports: ``count`` of the host's from ``host_port`` on lead to as many from ``container_port`` on.

    More than one are a range, with the same numbers on both sides. ``host_port`` is 0 as long as none was chosen: then
    it shall be one of ``choices`` (first, last) or, without that, any that is free.
    """

    __slots__ = ("address", "choices", "container_port", "count", "host_port", "protocol")

    def __init__(
        self,
        address: str,
        host_port: int,
        container_port: int,
        protocol: str = "tcp",
        count: int = 1,
        choices: tuple[int, int] | None = None,
    ) -> None:
        self.address = address  # "": every address of the host, in both families
        self.host_port, self.container_port, self.protocol = host_port, container_port, protocol
        self.count, self.choices = count, choices

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        outer = span(self.host_port, self.count) if self.host_port else ""
        if self.choices:
            outer = f"{self.choices[0]}-{self.choices[1]}"
        return f"{address}{':' if address else ''}{outer}:{span(self.container_port, self.count)}/{self.protocol}"

    def record(self) -> dict[str, Any]:
        """The port as JSON, as container.json has it; HostIp is never empty once it was decided what is published."""
        return {
            "HostIp": self.address,
            "HostPort": self.host_port,
            "ContainerPort": self.container_port,
            "Count": self.count,
            "Protocol": self.protocol,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Port:
        """The port that ``record`` described."""
        return cls(
            record["HostIp"], record["HostPort"], record["ContainerPort"], record["Protocol"], int(record["Count"])
        )

    def at(self, address: str, host_port: int) -> Port:
        """The same port of the container at another address or port of the host."""
        return Port(address, host_port, self.container_port, self.protocol, self.count)

    @property
    def family(self) -> int:
        """4 or 6; of a port whose address is not decided yet, 4."""
        return 6 if ":" in self.address else 4

    def overlaps(self, other: Port) -> bool:
        """Whether one packet could mean both."""
        return (
            self.protocol == other.protocol
            and self.host_port < other.host_port + other.count
            and other.host_port < self.host_port + self.count
            and (self.address == other.address or _covers(self, other) or _covers(other, self))
        )

    def elements(self, inside: Sequence[str]) -> list[list[Any]]:
        """Its elements in our table, [set, key, data], for a container with these addresses; none for [::1], which
        cannot be translated: the kernel takes no answer to ::1 from a network (ip6_input.c).
        """
        target = next((address for address in inside if (":" in address) == (self.family == 6)), None)
        if target is None or self.address == LOOPBACK6:
            return []
        name, wide = f"pub{self.family}", self.address in (ANY4, ANY6)
        if self.count > 1:
            block = f"{self.address}/0" if wide else self.address
            return [[f"{name}_range", [block, self.protocol, span(self.host_port, self.count)], [target]]]
        asked, answer = [self.protocol, str(self.host_port)], [target, str(self.container_port)]
        return [[f"{name}_any", asked, answer] if wide else [name, [self.address, *asked], answer]]


def proxied(decided: Sequence[Port]) -> list[Port]:
    """The ports of [::1] among what was decided, one by one: they need the proxy (see ``proxy``). Raises UsageError.

    Those that were asked for, and what is published on every IPv6 address, as far as there is room; but no ranges.
    """
    asked = [port for port in decided if port.address == LOOPBACK6]
    each = [
        Port(LOOPBACK6, port.host_port + step, port.container_port + step, port.protocol)
        for port in asked
        for step in range(port.count)
    ]
    if len(each) > MAX_PROXIED or any(port.protocol == "sctp" for port in each):
        why = f"more than {MAX_PROXIED} ports of [::1]" if len(each) > MAX_PROXIED else "[::1] has no SCTP"
        raise UsageError(f"-p {asked[0]}", why, "publish them on another address")
    each += [
        Port(LOOPBACK6, port.host_port, port.container_port, port.protocol)
        for port in decided
        if port.address == ANY6 and port.count == 1 and port.protocol != "sctp"
    ]
    return each[:MAX_PROXIED]


def _covers(one: Port, other: Port) -> bool:
    return one.address == "" or (one.address in (ANY4, ANY6) and one.family == other.family)


def span(first: int, count: int) -> str:
    """A port, or a range as nft(8) writes it."""
    return str(first) if count == 1 else f"{first}-{first + count - 1}"


def parse(text: str) -> list[Port]:
    """The ports that one ``-p`` names, several if it has ranges. Raises UsageError."""
    rest, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in nft.PROTOCOLS:
        raise UsageError(f"-p {text}", f"unknown protocol {protocol!r}", "use tcp, udp or sctp")
    before, colon, inside = rest.rpartition(":")
    address, second, host = before.rpartition(":")
    inner = _range(text, inside)
    # No port of the host, or 0, means any; so does an address alone, as in 127.0.0.1::80.
    outer = _range(text, host) if colon and host not in ("", "0") else None
    return _pair(text, _address(text, address) if second else "", outer, inner, protocol)


def _pair(text: str, address: str, outer: tuple[int, int] | None, inner: tuple[int, int], protocol: str) -> list[Port]:
    first, last = inner
    count = last - first + 1
    if outer == inner and count > 1:
        return [Port(address, first, first, protocol, count)]
    if outer and count == 1 and outer[0] != outer[1]:
        return [Port(address, 0, first, protocol, choices=outer)]
    if outer and outer[1] - outer[0] + 1 != count:
        given = outer[1] - outer[0] + 1
        why = f"{given} port{'s' * (given > 1)} of the host for {count} of the container"
        raise UsageError(f"-p {text}", why, f"name {count} of the host, or none for any that are free")
    if count > MAX_SINGLE:
        why = f"more than {MAX_SINGLE} ports that do not keep their number"
        raise UsageError(f"-p {text}", why, "give the host's ports the container's numbers")
    return [Port(address, outer[0] + step if outer else 0, first + step, protocol) for step in range(count)]


def _address(flag: str, text: str) -> str:
    """The address in its usual spelling; an IPv6 one may stand in brackets, and IPv4 written as IPv6 is IPv4."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not addresses.is_address(bare) or (bare != text and ":" not in bare):
        raise UsageError(f"-p {flag}", f"{text!r} is not an address", "write it as 192.0.2.1 or [2001:db8::1]")
    value, bits = addresses.number(bare), addresses.bits(bare)
    if bits == addresses.IPV6 and value >> 32 == _MAPPED:
        value, bits = value & 0xFFFFFFFF, addresses.IPV4
    return addresses.text(value, bits)


def _range(flag: str, text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    numbers = [low, high if dash else low]
    if not all(number.isascii() and number.isdigit() and len(number) < 6 for number in numbers):
        raise UsageError(f"-p {flag}", f"{text!r} is not a port", "write it as -p 8080:80")
    first, last = int(numbers[0]), int(numbers[1])
    if first > last:
        raise UsageError(f"-p {flag}", f"{text!r} runs backwards")
    if not 0 < first <= last < 65536:
        raise UsageError(f"-p {flag}", f"{text!r} is not within 1-65535")
    return first, last


def exposed(text: str, flag: str = "--expose") -> list[str]:
    """The ports that ``--expose``, or an entry of an image's ExposedPorts, names, each as 80/tcp. Raises UsageError."""
    number, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in nft.PROTOCOLS:
        raise UsageError(f"{flag} {text}", f"unknown protocol {protocol!r}", "use tcp, udp or sctp")
    try:
        first, last = _range(text, number)
    except UsageError:
        raise UsageError(f"{flag} {text}", "not a port", "write it like 80, 80/udp or 8000-8010") from None
    if last - first >= MAX_SINGLE:
        raise UsageError(f"{flag} {text}", f"more than {MAX_SINGLE} ports")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def publish_all(ports: Sequence[Port], names: Iterable[str]) -> list[Port]:
    """A port of the host's choice for each of these ports of the container (80/tcp) that no ``-p`` publishes yet."""
    result = list(ports)
    for name in names:
        number, _, protocol = name.partition("/")
        inside = int(number)
        if not any(p.protocol == protocol and p.container_port <= inside < p.container_port + p.count for p in ports):
            result.append(Port("", 0, inside, protocol))
    return result
