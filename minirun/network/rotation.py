"""Which address of a network is tried next, without looking at those that are taken.

Addresses go round, so that one that was just freed stays out of use as long as possible: neighbours, connection
tracking and clients may still mean its old holder. One way round is a *lap*. It goes over the addresses that belong to
one bridge (see ``Network.member``), and to those of the next only if no room is left: so a network that needs no second
bridge gets none.

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
ENOUGH = 64  # free addresses, for which it is worth to begin a lap
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


def span(pool: Pool) -> tuple[int, int]:
    """The first and the last address that is given by itself; the last is below the first if there are none."""
    first, last = usable(pool)
    if pool.range:
        first, last = max(first, pool.range.base), min(last, pool.range.base + pool.range.size - 1)
    return first, min(last, first + WIDEST - 1)


class Rotation:
    """The addresses of one family of a network, in the order in which they are tried.

    An address is known by its place: how many come before it in the subnets, taken together.
    """

    __slots__ = ("_barred", "_bits", "_file", "_laps", "_path", "_spans")

    def __init__(self, folder: str, pools: Sequence[Pool], lap: int = 0) -> None:
        """``lap``: after so many addresses of the subnets, whether given or not, another lap begins; 0: never."""
        self._bits = pools[0].subnet.bits if pools else IPV4
        self._path = f"{folder}/given{4 if self._bits == IPV4 else 6}"
        self._barred = {addresses.number(pool.gateway) for pool in pools}
        self._spans, self._laps = _divide(pools, lap or 1 << 128)
        self._file = -1

    def __enter__(self) -> Rotation:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def addresses(self, new: bool = False) -> Iterator[str]:
        """Every address of this lap without a mark, from the one after that given last; of all laps after ``recount``.

        What is yielded may be taken all the same. The caller says by ``took`` or ``taken`` what became of each.
        """
        if self._file < 0:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._unmarked(lambda at, size: os.pread(self._file, size, at), new)

    def look(self, names: Sequence[str] | None = None) -> Iterator[str]:
        """As ``addresses``, and changes nothing; with the marks that ``recount(names)`` would make, if given."""
        hints = (store.read(self._path) or "").encode("utf-8", "surrogateescape")
        if names is not None:
            hints = hints[:LINE].ljust(LINE) + self._count(names)
        return self._unmarked(lambda at, size: hints[at : at + size], names is not None)

    def taken(self, address: str) -> None:
        """Mark an address: it was given, or somebody has it."""
        self._hint(_MARK, LINE + self._place(addresses.number(address)))

    def took(self, address: str) -> None:
        """Mark an address and go on behind it next time."""
        self.taken(address)
        self._hint(f"{address:<{LINE - 1}}\n".encode(), 0)

    def recount(self, names: Sequence[str]) -> None:
        """Begin a new lap, in which only the addresses ``names`` are marked."""
        self._hint(self._count(names), LINE)

    def _hint(self, data: bytes, at: int) -> None:
        try:
            os.pwrite(self._file, data, at)
        except OSError:  # no space: not for want of a hint shall an address that was leased be lost
            pass

    def size(self) -> int:
        """How many addresses are given by themselves."""
        return self._end() - sum(self._place(number) >= 0 for number in self._barred)

    def _unmarked(self, read: Callable[[int, int], bytes], new: bool) -> Iterator[str]:
        head = read(0, LINE + CHUNK)
        try:
            last = self._place(addresses.number(head[:LINE].decode("ascii").strip()))
        except ValueError:
            last = -1
        for lap in self._new_order(read) if new else self._laps:
            if new or lap[0] <= max(last, 0) < lap[1]:
                for first, end in _turned(lap, last):
                    for base in range(first - first % CHUNK, end, CHUNK):
                        marks = read(LINE + base, CHUNK) if base else head[LINE:]
                        yield from self._without(marks, base, first, end)

    def _without(self, marks: bytes, base: int, first: int, end: int) -> Iterator[str]:
        """The addresses without a mark at places from ``first`` to before ``end``; ``marks`` begin at ``base``."""
        place = _next(marks, max(first - base, 0))
        while place < min(end - base, CHUNK):
            number = self._number(base + place)
            if number not in self._barred:
                yield addresses.text(number, self._bits)
            place = _next(marks, place + 1)

    def _new_order(self, read: Callable[[int, int], bytes]) -> list[tuple[int, int]]:
        """All laps; first the first one that has room for a while, or else the one that has most."""
        marks = read(LINE, self._end())
        room = [marks.count(0, first, end) for first, end in self._laps]
        roomiest = room.index(max(room)) if room else 0
        best = next((number for number, free in enumerate(room) if free >= ENOUGH), roomiest)
        return [*self._laps[best : best + 1], *self._laps[:best], *self._laps[best + 1 :]]

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


def _divide(pools: Sequence[Pool], length: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """For each subnet the first and the last address; for each lap the first place and the one behind the last."""
    spans, laps, before, place = [], dict[int, tuple[int, int]](), 0, 0
    for pool in pools:
        at, last = first, _ = span(pool)
        start = pool.subnet.base - before
        while at <= last:
            number = (at - start) // length
            end = min(last + 1, start + (number + 1) * length)
            laps[number] = laps[number][0] if number in laps else place, place + end - at
            place += end - at
            at = end
        if first <= last:
            spans.append((first, last))
        before += pool.subnet.size
    return spans, [*laps.values()]


def _turned(lap: tuple[int, int], last: int) -> list[tuple[int, int]]:
    """A lap that begins behind the place given last, if that is one of its own."""
    first, end = lap
    return [(last + 1, end), (first, last + 1)] if first <= last < end else [lap]


def _next(marks: bytes, place: int) -> int:
    """The first place from ``place`` on without a mark: NUL, or behind the end of a file."""
    if place >= len(marks):
        return place
    found = marks.find(0, place)
    return len(marks) if found < 0 else found
