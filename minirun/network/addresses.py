"""IPv4 addresses and subnets as numbers, without the 9 ms of ``ipaddress``."""

from __future__ import annotations

from minirun.errors import UsageError

MIN_PREFIX, MAX_PREFIX = 8, 30


def number(text: str) -> int:
    """``10.201.0.1`` as a number. Raises ValueError for anything but four plain decimal bytes."""
    parts = text.split(".")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() and str(int(part)) == part for part in parts):
        raise ValueError(text)
    return int.from_bytes(bytes(int(part) for part in parts), "big")  # bytes() refuses what is above 255


def text(value: int) -> str:
    """A number as ``10.201.0.1``."""
    return ".".join(str(byte) for byte in value.to_bytes(4, "big"))


def is_address(value: str) -> bool:
    """Whether this is an IPv4 address."""
    try:
        number(value)
    except ValueError:
        return False
    return True


class Subnet:
    """A block of addresses: its first one and the length of its prefix."""

    __slots__ = ("base", "prefix")

    def __init__(self, base: int, prefix: int) -> None:
        self.base, self.prefix = base, prefix

    @classmethod
    def parse(cls, value: str, flag: str = "--subnet") -> Subnet:
        """``10.201.0.0/24``. Raises UsageError, naming ``flag``."""
        address, _, prefix = value.partition("/")
        if not is_address(address) or not prefix.isascii() or not prefix.isdigit():
            raise UsageError(f"{flag} {value}", "not an IPv4 subnet", "write it as 10.201.0.0/24")
        if not MIN_PREFIX <= int(prefix) <= MAX_PREFIX:
            raise UsageError(f"{flag} {value}", f"the prefix length must be {MIN_PREFIX} to {MAX_PREFIX}")
        subnet = cls(number(address), int(prefix))
        if subnet.base % subnet.size:
            right = f"{text(subnet.base - subnet.base % subnet.size)}/{prefix}"
            raise UsageError(f"{flag} {value}", "the address has bits behind the prefix", f"did you mean {right}?")
        return subnet

    @property
    def size(self) -> int:
        """How many addresses it has, its own name and its broadcast address included."""
        return 1 << (32 - self.prefix)

    def overlaps(self, base: int, prefix: int) -> bool:
        """Whether any address is in both blocks."""
        shift = 32 - min(self.prefix, prefix)
        return self.base >> shift == base >> shift

    def __str__(self) -> str:
        return f"{text(self.base)}/{self.prefix}"
