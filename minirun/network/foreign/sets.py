"""A set or map of somebody else's table, and whether a field of which only a part is known is in it."""

from __future__ import annotations

from minirun.linux import nft, nft_read
from minirun.linux.netlink import attributes
from minirun.network.foreign.flow import NO, SOME, UNCLEAR, YES, compare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from minirun.network.foreign.flow import Field

_INTERVAL, _CONCATENATION = 4, 128  # NFT_SET_INTERVAL, NFT_SET_CONCAT
_INTERVAL_END = 1  # NFT_SET_ELEM_INTERVAL_END


class Set:
    """The elements of one set, read when they are asked for."""

    def __init__(self, family: str, table: str, name: str) -> None:
        details = nft_read.set_details(family, table, name)
        flags = int.from_bytes(details.get(nft_read.NFTA_SET_FLAGS, b""), "big")
        self.size = int.from_bytes(details.get(nft_read.NFTA_SET_KEY_LEN, b""), "big")
        self._paired = bool(flags & _INTERVAL) and not flags & _CONCATENATION
        self._where = (family, table, name)
        self._read: list[tuple[bytes, bytes, bytes]] | None = None  # first key, last key, data

    def contains(self, region: Callable[[int], Field]) -> int:
        """Whether the field that ``region`` gives, for the size of a key, is in the set."""
        return max((answer for answer, _ in self.candidates(region)), default=NO)

    def candidates(self, region: Callable[[int], Field]) -> Iterator[tuple[int, bytes]]:
        """Each element that the field may be, and its data."""
        field = region(self.size)
        _, known, free = field
        if not any(known):  # a list of thousands need not be read to learn that some are in it
            yield (SOME if all(free) else UNCLEAR), b""
            return
        for first, last, data in self._elements():
            answer = _within(field, first, last, self._paired)
            if answer != NO:
                yield answer, data

    def _elements(self) -> list[tuple[bytes, bytes, bytes]]:
        if self._read is None:
            raw = list(_raw(nft_read.set_elements(*self._where), self.size))
            self._read = _paired(raw) if self._paired else [(key, end or key, data) for key, end, _, data in raw]
        return self._read


def _within(field: Field, first: bytes, last: bytes, ordered: bool) -> int:
    """Whether a field is between two keys; those of a concatenation are not ordered as a whole."""
    value, known, free = field
    if first == last:
        return compare(field, first)
    low, high = value, bytes(v | ~k & 255 for v, k in zip(value, known, strict=True))
    if ordered and first <= low and high <= last:
        return YES
    if ordered:
        apart = last < low or high < first
    else:
        same = next(at for at, (a, b) in enumerate(zip(first, last, strict=True)) if a != b)
        apart = compare(field, first[:same]) == NO
    if apart:
        return NO
    return SOME if ordered and all(f or k == 255 for f, k in zip(free, known, strict=True)) else UNCLEAR


def _raw(elements: list[dict[int, bytes]], size: int) -> Iterator[tuple[bytes, bytes, int, bytes]]:
    """Key, last key (of a concatenation of intervals), flags and data of each element."""
    for element in elements:
        key, end = (_value(element.get(kind, b"")) for kind in (nft.NFTA_SET_ELEM_KEY, nft.NFTA_SET_ELEM_KEY_END))
        flags = int.from_bytes(element.get(nft_read.NFTA_SET_ELEM_FLAGS, b""), "big")
        if not key:  # what is meant for everything else: it may be the field
            key, end = bytes(size), b"\xff" * size
        yield key, end, flags, element.get(nft.NFTA_SET_ELEM_DATA, b"")


def _paired(raw: list[tuple[bytes, bytes, int, bytes]]) -> list[tuple[bytes, bytes, bytes]]:
    """Intervals of one field are kept as their first key, and the first key behind them, marked as an end."""
    result: list[tuple[bytes, bytes, bytes]] = []
    start: tuple[bytes, bytes] | None = None
    for key, end, flags, data in sorted(raw, key=lambda item: (item[0], not item[2] & _INTERVAL_END)):
        if end:
            result.append((key, end, data))
            continue
        if start:
            result.append((start[0], _before(key), start[1]))
        start = None if flags & _INTERVAL_END else (key, data)
    if start:
        result.append((start[0], b"\xff" * len(start[0]), start[1]))
    return result


def _before(key: bytes) -> bytes:
    return (int.from_bytes(key, "big") - 1).to_bytes(len(key), "big")


def _value(packed: bytes) -> bytes:
    return dict(attributes(packed)).get(nft.NFTA_DATA_VALUE, b"")
