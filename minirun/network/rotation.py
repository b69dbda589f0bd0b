"""Which address of a network is tried next, without looking at those that are taken.

Addresses go round all subnets of a family, so that one that was just freed stays out of use as long as possible:
neighbours, connection tracking and clients may still mean its old holder. One way round is a *lap*.

    <state>/networks/<network>/given4, given6     for that family: a line with the address that was given last, and then
                                                  "#" for each address that was given, or found taken, on this lap

Both are hints, and the files of the leases decide: a hint that is lost or wrong costs some more tries. Marks are set
and never taken back; when none is left to try, the leases are listed once and a new lap begins (``recount``).
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

LINE = 64  # bytes of the line before the marks
CHUNK = 4096  # marks that are read at once
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
    """The addresses of one family of a network, in the order in which they are tried.

    An address is known by its place: how many come before it in the subnets, taken together.
    """

    __slots__ = ("_barred", "_bits", "_file", "_path", "_spans")

    def __init__(self, folder: str, pools: Sequence[Pool]) -> None:
        self._bits = pools[0].subnet.bits if pools else IPV4
        self._path = f"{folder}/given{4 if self._bits == IPV4 else 6}"
        self._barred = {addresses.number(pool.gateway) for pool in pools}
        self._spans = spans(pools)
        self._file = -1

    def __enter__(self) -> Rotation:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def addresses(self) -> Iterator[str]:
        """Every address without a mark, from the one after that given last. What is yielded may be taken all the same.

        The caller says by ``took`` or ``taken`` what became of each.
        """
        if self._file < 0:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._unmarked(lambda at, size: os.pread(self._file, size, at))

    def look(self, names: Sequence[str] | None = None) -> Iterator[str]:
        """As ``addresses``, and changes nothing; with the marks that ``recount(names)`` would make, if given."""
        hints = (store.read(self._path) or "").encode("utf-8", "surrogateescape")
        if names is not None:
            hints = hints[:LINE].ljust(LINE) + self._count(names)
        return self._unmarked(lambda at, size: hints[at : at + size])

    def taken(self, address: str) -> None:
        """Mark an address: it was given, or somebody has it."""
        os.pwrite(self._file, _MARK, LINE + self._place(addresses.number(address)))

    def took(self, address: str) -> None:
        """Mark an address and go on behind it next time."""
        self.taken(address)
        os.pwrite(self._file, f"{address:<{LINE - 1}}\n".encode(), 0)

    def recount(self, names: Sequence[str]) -> None:
        """Begin a new lap, in which only the addresses ``names`` are marked."""
        os.pwrite(self._file, self._count(names), LINE)

    def size(self) -> int:
        """How many addresses are given by themselves."""
        return self._end() - sum(self._place(number) >= 0 for number in self._barred)

    def _unmarked(self, read: Callable[[int, int], bytes]) -> Iterator[str]:
        head = read(0, LINE + CHUNK)
        try:
            last = self._place(addresses.number(head[:LINE].decode("ascii").strip()))
        except ValueError:
            last = -1
        for first, end in ((last + 1, self._end()), (0, last + 1)):
            for base in range(first - first % CHUNK, end, CHUNK):
                marks = read(LINE + base, CHUNK) if base else head[LINE:]
                place = _next(marks, max(first - base, 0))
                while place < min(end - base, CHUNK):
                    number = self._number(base + place)
                    if number not in self._barred:
                        yield addresses.text(number, self._bits)
                    place = _next(marks, place + 1)

    def _count(self, names: Sequence[str]) -> bytes:
        """Marks for these addresses alone; anything else that may lie there is passed over."""
        from _socket import AF_INET, AF_INET6, inet_pton  # twenty times faster than number()

        family, numbers = AF_INET if self._bits == IPV4 else AF_INET6, []
        for name in names:
            try:
                numbers.append(int.from_bytes(inet_pton(family, name), "big"))
            except (OSError, ValueError):
                continue
        marks = bytearray(self._end())
        before = 0
        for first, last in self._spans:
            for number in numbers:
                if first <= number <= last:
                    marks[before + number - first] = _MARK[0]
            before += last - first + 1
        return bytes(marks)

    def _end(self) -> int:
        """How many places there are."""
        return sum(last - first + 1 for first, last in self._spans)

    def _place(self, number: int) -> int:
        """The place of an address; -1 if it is not one that is given by itself."""
        before = 0
        for first, last in self._spans:
            if first <= number <= last:
                return before + number - first
            before += last - first + 1
        return -1

    def _number(self, place: int) -> int:
        """The address at a place, as a number."""
        for first, last in self._spans:
            if place <= last - first:
                return first + place
            place -= last - first + 1
        raise ValueError(place)


def _next(marks: bytes, place: int) -> int:
    """The first place from ``place`` on without a mark: NUL, or behind the end of a file."""
    if place >= len(marks):
        return place
    found = marks.find(0, place)
    return len(marks) if found < 0 else found
