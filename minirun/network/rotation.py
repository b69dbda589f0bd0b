"""Which address of a network is tried next, without looking at those that are taken.

Addresses go round all subnets of a family, so that one that was just freed stays out of use as long as possible:
neighbours, connection tracking and clients may still mean its old holder. One way round is a *lap*.

    <state>/networks/<network>/last4, last6       the address of that family that was given last
    <state>/networks/<network>/given/<address>    "#" for each of the 4096 addresses from this one on that was given, or
                                                  found taken, on this lap

All of it are hints, and the files of the leases decide: a hint that is lost or wrong costs some more tries. Marks are
set and never taken back; when none is left to try, the leases are listed once and a new lap begins (``recount``).
"""

from __future__ import annotations

import os

from minirun import store
from minirun.network import addresses
from minirun.network.addresses import IPV4

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from minirun.network.network import Pool

BLOCK = 4096  # addresses in one file of marks: a page
WIDEST = 1 << 16  # of a larger subnet only so many are given by themselves: more than a network can have containers
_MARK = b"#"


def usable(pool: Pool) -> tuple[int, int]:
    """The first and the last address that a container can have in a subnet, as numbers.

    Not the first of all: it names the subnet (IPv4), or means its routers (RFC 4291, 2.6.1); nor the last of IPv4, the
    broadcast. Where there are only two, both can be used (RFC 3021, RFC 6164).
    """
    subnet = pool.subnet
    first, last = subnet.base, subnet.base + subnet.size - 1
    if subnet.size <= 2:
        return first, last
    return first + 1, last - (subnet.bits == IPV4)


def spans(pools: Sequence[Pool]) -> list[tuple[int, int]]:
    """For each pool the first and the last address that is given by itself; without those of which there are none."""
    found = []
    for pool in pools:
        first, last = usable(pool)
        if pool.range:
            first, last = max(first, pool.range.base), min(last, pool.range.base + pool.range.size - 1)
        found.append((first, min(last, first + WIDEST - 1)))
    return [(first, last) for first, last in found if first <= last]


class Rotation:
    """The addresses of one family of a network, in the order in which they are tried."""

    __slots__ = ("_barred", "_base", "_bits", "_block", "_folder", "_last", "spans")

    def __init__(self, folder: str, pools: Sequence[Pool]) -> None:
        self._folder, self._bits = folder, pools[0].subnet.bits if pools else IPV4
        self._barred = {addresses.number(pool.gateway) for pool in pools}
        self.spans = spans(pools)
        self._last = self._block = self._base = -1

    def __enter__(self) -> Rotation:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self._last, self._block):
            if descriptor >= 0:
                os.close(descriptor)
        self._last = self._block = -1

    def addresses(self) -> Iterator[str]:
        """Every address without a mark, from the one after that given last. What is yielded may be taken all the same.

        The caller says by ``took`` or ``taken`` what became of each.
        """
        if self._last < 0:
            self._last = os.open(self._last_path(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._unmarked(os.pread(self._last, 64, 0), self._open_block)

    def look(self, names: Sequence[str] | None = None) -> Iterator[str]:
        """As ``addresses``, and changes nothing; with the marks that ``recount(names)`` would make, if given."""
        last = (store.read(self._last_path()) or "").encode("ascii", "replace")
        if names is None:
            return self._unmarked(last, lambda base: (store.read(self._path(base)) or "").encode("ascii", "replace"))
        counted = self._count(names)
        return self._unmarked(last, lambda base: bytes(counted.get(base, b"")))

    def taken(self, address: str) -> None:
        """Mark an address: it was given, or somebody has it."""
        os.pwrite(self._block, _MARK, addresses.number(address) - self._base)

    def took(self, address: str) -> None:
        """Mark an address and go on behind it next time."""
        self.taken(address)
        os.pwrite(self._last, f"{address:<40}\n".encode(), 0)  # always as long: no rest of a longer one remains

    def recount(self, names: Sequence[str]) -> None:
        """Begin a new lap, in which only the addresses ``names`` are marked."""
        counted = self._count(names)
        for base in self._bases():
            if base in counted:
                descriptor = os.open(self._path(base), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                os.pwrite(descriptor, counted[base], 0)
                os.close(descriptor)
            else:
                try:
                    os.unlink(self._path(base))
                except FileNotFoundError:
                    pass
        if self._block >= 0:
            os.close(self._block)
        self._block = -1

    def size(self) -> int:
        """How many addresses are given by themselves."""
        barred = sum(any(first <= one <= last for first, last in self.spans) for one in self._barred)
        return sum(last - first + 1 for first, last in self.spans) - barred

    def _unmarked(self, last: bytes, marks_of: Callable[[int], bytes]) -> Iterator[str]:
        for first, end in self._from(last):
            for base in range(first - first % BLOCK, end + 1, BLOCK):
                marks = marks_of(base)
                place = _next(marks, max(first - base, 0))
                while place <= min(end - base, BLOCK - 1):
                    if base + place not in self._barred:
                        yield addresses.text(base + place, self._bits)
                    place = _next(marks, place + 1)

    def _from(self, last: bytes) -> list[tuple[int, int]]:
        """The spans, turned and cut so that they begin behind the address given last."""
        try:
            at = addresses.number(last.decode("ascii").strip())
        except ValueError:
            return self.spans
        for number, (first, end) in enumerate(self.spans):
            if first <= at <= end:
                turned = [(at + 1, end), *self.spans[number + 1 :], *self.spans[:number], (first, at)]
                return [(first, end) for first, end in turned if first <= end]
        return self.spans

    def _open_block(self, base: int) -> bytes:
        """The marks of a block, whose file stays open for more."""
        if self._block >= 0:
            os.close(self._block)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            self._block = os.open(self._path(base), flags, 0o600)
        except FileNotFoundError:
            store.directory(self._folder, "given")
            self._block = os.open(self._path(base), flags, 0o600)
        self._base = base
        return os.pread(self._block, BLOCK, 0)

    def _count(self, names: Sequence[str]) -> dict[int, bytearray]:
        """Marks for these addresses, by block; anything else that may lie there is passed over."""
        from _socket import AF_INET, AF_INET6, inet_pton  # twenty times faster than number()

        family = AF_INET if self._bits == IPV4 else AF_INET6
        counted: dict[int, bytearray] = {}
        for name in names:
            try:
                number = int.from_bytes(inet_pton(family, name), "big")
            except (OSError, ValueError):
                continue
            for first, last in self.spans:
                if first <= number <= last:
                    break
            else:
                continue
            place = number % BLOCK
            if number - place not in counted:
                counted[number - place] = bytearray(BLOCK)
            counted[number - place][place] = _MARK[0]
        return counted

    def _bases(self) -> Iterator[int]:
        for first, last in self.spans:
            yield from range(first - first % BLOCK, last + 1, BLOCK)

    def _path(self, base: int) -> str:
        return f"{self._folder}/given/{addresses.text(base, self._bits)}"

    def _last_path(self) -> str:
        return f"{self._folder}/last{4 if self._bits == IPV4 else 6}"


def _next(marks: bytes, place: int) -> int:
    """The first place from ``place`` on without a mark: NUL, or behind the end of a file."""
    if place >= len(marks):
        return place
    found = marks.find(0, place)
    return len(marks) if found < 0 else found
