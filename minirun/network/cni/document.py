"""Reading JSON that somebody else wrote: a value of the wrong type is told by its place, such as ``ipam.ranges[0][1]``.

What is unknown is ignored, null is the same as absent, and a key may be written in capitals, as for every program that
reads JSON with Go's library: containerd says ``HostPort`` for ``hostPort``.
"""

from __future__ import annotations

from minirun.network.cni.protocol import BAD_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class Reader:
    """An object of a document, and where in the document it stands."""

    __slots__ = ("place", "values")

    def __init__(self, values: dict[str, Any], place: str = "") -> None:
        self.values, self.place = values, place

    def at(self, key: str) -> str:
        """The place of a key of this object."""
        return f"{self.place}.{key}" if self.place else key

    def get(self, key: str) -> Any:
        """The value of a key, in whatever case that is written; None if it is absent or null."""
        if key in self.values:
            return self.values[key]
        plain = key.lower()
        return next((value for other, value in self.values.items() if other.lower() == plain), None)

    def has(self, key: str) -> bool:
        """Whether the key is there, with anything but null."""
        return self.get(key) is not None

    def text(self, key: str, default: str = "") -> str:
        """A string."""
        return default if not self.has(key) else string(self.get(key), self.at(key))

    def flag(self, key: str, default: bool = False) -> bool:
        """A boolean."""
        value = self.get(key)
        if value is None:
            return default
        return value if isinstance(value, bool) else wrong(self.at(key), "true or false", value)

    def number(self, key: str, default: int = 0, limit: int = 1 << 32) -> int:
        """An integer from 0 to below ``limit``."""
        value = self.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < limit:
            wrong(self.at(key), f"a number from 0 to {limit - 1}", value)
        return int(value)

    def object(self, key: str) -> Reader:
        """An object; an empty one if it is absent."""
        return Reader(mapping(self.get(key), self.at(key)) if self.has(key) else {}, self.at(key))

    def values_of(self, key: str) -> list[tuple[str, Any]]:
        """The values of a list, each with its place; none if it is absent."""
        return items(self.get(key), self.at(key)) if self.has(key) else []

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        return [string(value, place) for place, value in self.values_of(key)]

    def objects(self, key: str) -> list[Reader]:
        """A list of objects."""
        return [Reader(mapping(value, place), place) for place, value in self.values_of(key)]


def string(value: Any, place: str) -> str:
    """``value`` if it is a string."""
    return value if isinstance(value, str) else wrong(place, "a string", value)


def mapping(value: Any, place: str) -> dict[str, Any]:
    """``value`` if it is an object."""
    return value if isinstance(value, dict) else wrong(place, "an object", value)


def items(value: Any, place: str) -> list[tuple[str, Any]]:
    """The values of a list, each with its place."""
    if not isinstance(value, list):
        wrong(place, "a list", value)
    return [(f"{place}[{number}]", item) for number, item in enumerate(value)]


def wrong(place: str, expected: str, value: Any) -> NoReturn:
    """Raise the error for a value that is not what it should be."""
    raise CniError(BAD_CONFIG, f"{place}: expected {expected}", f"it is {value!r}"[:200])
