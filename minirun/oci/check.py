"""The small vocabulary in which ``runtime_spec`` says what a document may hold, and the one function that walks it.

A shape is data:

    {"uid": ID, ...}    an object. Other fields are ignored and null means absent, as the runtime-spec has it.
                        Under the key REQUIRED: the fields that must be there. Under RULE: a function that looks at the
                        object when all its fields are well typed.
    [shape]             a list of such values
    (low, high)         an integer within these bounds
    frozenset           one of these strings
    bool                true or false
    a function          is called with the value

A function raises Wrong for what it does not like. Where the value stands is added on the way out, so that a document
that is right, as nearly all are, pays nothing for it: this is on the path of every ``create``.
"""

from __future__ import annotations

from minirun.errors import InvalidDocument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Shape = Any  # one of the forms above
    Checker = Callable[[Any], None]

REQUIRED, RULE = 0, 1  # keys that no JSON object has

UINT32, UINT64 = (0, (1 << 32) - 1), (0, (1 << 64) - 1)
INT32, INT64 = (-(1 << 31), (1 << 31) - 1), (-(1 << 63), (1 << 63) - 1)
ID = (0, (1 << 32) - 2)  # of a user or a group; the last number is "none" to setuid(2) and its kin

_NAMES = {dict: "object", list: "list", type(None): "null"}
_SHOWN = 60  # characters of a stranger's text in a message


class Wrong(Exception):
    """``why`` a value is refused, and where it is, seen from the one that is being walked."""

    def __init__(self, why: str, *path: str | int) -> None:
        self.why, self.path = why, list(path)
        super().__init__(why)


def expected(what: str, value: Any, *path: str | int) -> Wrong:
    """The usual complaint. Of a long value only the beginning is shown, of an object or a list its type."""
    if type(value) is str:
        return Wrong(f"expected {what}, got {show(value)}", *path)
    small = type(value) is int and -(1 << 64) <= value <= 1 << 64
    return Wrong(f"expected {what}, got {value if small else type_name(value)}", *path)


def _of_type(what: str, value: Any) -> Wrong:
    return Wrong(f"expected {what}, got {type_name(value)}")


def type_name(value: Any) -> str:
    """What JSON calls the type of ``value``; numbers and text by Python's names."""
    return _NAMES.get(type(value), type(value).__name__)


def show(text: str) -> str:
    """Text from a document in a message: in one line and not long."""
    return f"{text[:_SHOWN]!r}{'...' if len(text) > _SHOWN else ''}"


def walk(value: Any, shape: Shape) -> None:
    """Hold ``value`` against ``shape``. Raises Wrong."""
    kind = type(shape)
    if kind is dict:
        _walk_object(value, shape)
    elif kind is list:
        _walk_list(value, shape[0])
    elif kind is tuple:
        if type(value) is not int:
            raise _of_type("int", value)
        if not shape[0] <= value <= shape[1]:
            raise expected(f"{shape[0]} to {shape[1]}", value)
    elif kind is frozenset:
        if type(value) is not str:
            raise _of_type("str", value)
        if value not in shape:
            raise expected(
                f"one of {', '.join(sorted(shape - {''}))}" if len(shape) < 10 else "a name that is known", value
            )
    elif kind is type:
        if type(value) is not shape:
            raise _of_type(shape.__name__, value)
    else:
        shape(value)


def _walk_object(value: Any, shape: dict[Any, Shape]) -> None:
    if type(value) is not dict:
        raise _of_type("object", value)
    for key, item in value.items():
        inner = shape.get(key)
        if inner is not None and item is not None:
            try:
                walk(item, inner)
            except Wrong as wrong:
                wrong.path.insert(0, key)
                raise
    for key in shape.get(REQUIRED, ()):
        if value.get(key) is None:
            raise Wrong("missing", key)
    rule = shape.get(RULE)
    if rule is not None:
        rule(value)


def _walk_list(value: Any, shape: Shape) -> None:
    if type(value) is not list:
        raise _of_type("list", value)
    for index, item in enumerate(value):
        try:
            walk(item, shape)
        except Wrong as wrong:
            wrong.path.insert(0, index)
            raise


def string(value: Any) -> None:
    """Any text that the kernel or a file can be given: half of a surrogate pair has no bytes."""
    if type(value) is not str:
        raise _of_type("str", value)
    if not value.isascii():
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise expected("text that has a form in UTF-8", value) from None


def text(value: Any) -> None:
    """A string for the kernel, which would take it to end at a NUL."""
    string(value)
    if "\0" in value:
        raise expected("no NUL byte", value)


def nonempty(value: Any) -> None:
    """Some text."""
    text(value)
    if not value:
        raise Wrong("expected some text, got ''")


def absolute(value: Any) -> None:
    """An absolute path."""
    text(value)
    if not value.startswith("/"):
        raise expected("an absolute path", value)


def absolute_or_empty(value: Any) -> None:
    """An absolute path, or "", which some engines write for none."""
    if value != "":
        absolute(value)


def texts(value: Any) -> None:
    """A list of texts, mostly in two calls for all of them: a seccomp profile names hundreds of system calls."""
    if type(value) is list:
        try:
            joined = "".join(value)
        except TypeError:
            joined = "\0"
        if joined.isascii() and "\0" not in joined:
            return
    _walk_list(value, text)


def number_list(value: Any) -> None:
    """CPUs or memory nodes: 0-3,7."""
    text(value)
    for part in value.split(",") if value.strip() else ():
        low, dash, high = part.strip().partition("-")
        if not low.isdigit() or not value.isascii() or (dash and not high.isdigit()):
            raise expected("a list like 0-3,7", value)


def interface(value: Any) -> None:
    """The name of a network interface, by the kernel's dev_valid_name()."""
    text(value)
    size = len(value.encode("utf-8", "surrogateescape"))
    if not 0 < size < 16 or value in (".", "..") or not {"/", ":"}.isdisjoint(value) or value.split() != [value]:
        raise expected("the name of a network interface", value)


def names(prefix: str, words: str) -> frozenset[str]:
    """An enumeration, from its words without what they have in common."""
    return frozenset(prefix + word for word in words.split())


def mapping(shape: Shape, name: Shape) -> Checker:
    """An object with names of its own choice, which have the shape ``name``."""

    def check(value: Any) -> None:
        if type(value) is not dict:
            raise _of_type("object", value)
        for key, item in value.items():
            try:
                walk(key, name)
                walk(item, shape)
            except Wrong as wrong:
                wrong.path.insert(0, key)
                raise

    return check


def unique(shape: dict[Any, Shape], field: str) -> Checker:
    """A list of objects, no two of which have the same value in ``field``."""

    def check(value: Any) -> None:
        _walk_list(value, shape)
        seen = set()
        for index, item in enumerate(value):
            if item[field] in seen:
                raise Wrong(f"{show(item[field])} is there twice", index, field)
            seen.add(item[field])

    return check


def demand(value: Any, shape: Shape, where: str) -> None:
    """Hold a document against a shape. Raises InvalidDocument with the JSON path below ``where``."""
    try:
        walk(value, shape)
    except Wrong as wrong:
        raise InvalidDocument(path(where, wrong.path) or "config.json", wrong.why) from None


def path(where: str, parts: list[str | int]) -> str:
    """A JSON path as people read it: ``process.rlimits[0].type``, ``annotations['org.example']``."""
    for part in parts:
        if type(part) is str and part.isascii() and part.isidentifier() and len(part) <= _SHOWN:
            where += f".{part}" if where else part
        else:
            where += f"[{show(part) if type(part) is str else part}]"
    return where
