"""IPv4 and IPv6 addresses and subnets as numbers, without the 9 ms of ``ipaddress``."""

from __future__ import annotations

from minirun.errors import UsageError

IPV4, IPV6 = 32, 128  # bits of an address, which tell the family
_PREFIXES = {IPV4: (8, 30), IPV6: (16, 126)}  # shorter is nobody's network, longer has no room for a container


def number(text: str) -> int:
    """``10.201.0.1`` or ``fd00::1`` as a number. Raises ValueError for anything but an address, plainly written."""
    if ":" in text:
        from _socket import AF_INET6, inet_pton

        try:
            return int.from_bytes(inet_pton(AF_INET6, text), "big")
        except OSError:
            raise ValueError(text) from None
    parts = text.split(".")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() and str(int(part)) == part for part in parts):
        raise ValueError(text)
    return int.from_bytes(bytes(int(part) for part in parts), "big")  # bytes() refuses what is above 255


def text(value: int, bits: int = IPV4) -> str:
    """A number as ``10.201.0.1``, or as ``fd00::1`` in the form of RFC 5952."""
    packed = value.to_bytes(bits // 8, "big")
    if bits == IPV4:
        return ".".join(str(byte) for byte in packed)
    from _socket import AF_INET6, inet_ntop

    return inet_ntop(AF_INET6, packed)


def bits(address: str) -> int:
    """IPV4 or IPV6, by how an address or a subnet is written."""
    return IPV6 if ":" in address else IPV4


def is_address(value: str) -> bool:
    """Whether this is an IPv4 or IPv6 address."""
    try:
        number(value)
    except ValueError:
        return False
    return True


def canonical(address: str) -> str:
    """The one way in which we write an address; leases are files of that name. Raises ValueError."""
    return text(number(address), bits(address))


class Subnet:
    """A block of addresses: its first one, the length of its prefix, and the family by its bits."""

    __slots__ = ("base", "bits", "prefix")

    def __init__(self, base: int, prefix: int, bits: int = IPV4) -> None:
        self.base, self.prefix, self.bits = base, prefix, bits

    @classmethod
    def parse(cls, value: str, flag: str = "--subnet") -> Subnet:
        """``10.201.0.0/24`` or ``fd00:1::/64``. Raises UsageError, naming ``flag``."""
        address, _, prefix = value.partition("/")
        if not is_address(address) or not prefix.isascii() or not prefix.isdigit() or len(prefix) > 3:
            raise UsageError(f"{flag} {value}", "not a subnet", "write it as 10.201.0.0/24 or fd00:1::/64")
        family = bits(address)
        low, high = _PREFIXES[family]
        if (flag != "--ip-range" and not low <= int(prefix) <= high) or int(prefix) > family:
            raise UsageError(f"{flag} {value}", f"the prefix length must be {low} to {high}")
        subnet = cls(number(address), int(prefix), family)
        if subnet.base % subnet.size:
            right = f"{text(subnet.base - subnet.base % subnet.size, family)}/{prefix}"
            raise UsageError(f"{flag} {value}", "the address has bits behind the prefix", f"did you mean {right}?")
        return subnet

    @property
    def size(self) -> int:
        """How many addresses it has, its own name and its broadcast address included."""
        return 1 << (self.bits - self.prefix)

    def address(self, offset: int) -> str:
        """The address that far behind the first one."""
        return text(self.base + offset, self.bits)

    def contains(self, address: str) -> bool:
        """Whether an address is of this block."""
        return bits(address) == self.bits and number(address) >> (self.bits - self.prefix) == self.base >> (
            self.bits - self.prefix
        )

    def overlaps(self, other: Subnet) -> bool:
        """Whether any address is in both blocks."""
        shift = self.bits - min(self.prefix, other.prefix)
        return self.bits == other.bits and self.base >> shift == other.base >> shift

    def within(self, other: Subnet) -> bool:
        """Whether all of its addresses are in the other one."""
        return self.prefix >= other.prefix and self.overlaps(other)

    def __str__(self) -> str:
        return f"{text(self.base, self.bits)}/{self.prefix}"


class Span:
    """The addresses from one to another, which need not begin or end where a subnet would."""

    __slots__ = ("base", "bits", "size")

    def __init__(self, first: int, last: int, bits: int = IPV4) -> None:
        self.base, self.size, self.bits = first, last - first + 1, bits

    @classmethod
    def parse(cls, value: str) -> Span:
        """``10.1.0.10-10.1.0.99``. Raises UsageError."""
        first, _, last = value.partition("-")
        if not (is_address(first) and is_address(last) and bits(first) == bits(last) and number(first) <= number(last)):
            raise UsageError(
                f"--ip-range {value}", "not a range", "write it as 10.201.0.10-10.201.0.99, or as a subnet"
            )
        return cls(number(first), number(last), bits(first))

    def address(self, offset: int) -> str:
        """The address that far behind the first one."""
        return text(self.base + offset, self.bits)

    def contains(self, address: str) -> bool:
        """Whether an address is one of these."""
        return bits(address) == self.bits and 0 <= number(address) - self.base < self.size

    def within(self, other: Subnet) -> bool:
        """Whether all of its addresses are in a subnet."""
        return other.contains(self.address(0)) and other.contains(self.address(self.size - 1))

    def __str__(self) -> str:
        return f"{self.address(0)}-{self.address(self.size - 1)}"


def part(value: str) -> Subnet | Span:
    """A part of a subnet, in either form. Raises UsageError, naming --ip-range."""
    return Span.parse(value) if "-" in value else Subnet.parse(value, "--ip-range")
