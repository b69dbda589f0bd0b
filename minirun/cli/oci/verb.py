"""What a verb of the OCI runtime is: a table of options, and a function of them and of the operands."""

from __future__ import annotations

from minirun.cli.arguments import Option, Values
from minirun.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_MAX_ID = 255  # NAME_MAX: an id is the name of a directory
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+.-")


class Verb:
    """One verb: ``call(target, operands)`` returns the exit code.

    ``usage`` are its operands. ``defaults`` is what ``target`` begins with. With ``program`` the first operand ends the
    options, since what follows are words of another program.
    """

    __slots__ = ("call", "defaults", "options", "program", "usage")

    def __init__(
        self,
        usage: str,
        options: Sequence[Option],
        call: Callable[[Values, list[str]], int],
        defaults: dict[str, Any] | None = None,
        program: bool = False,
    ) -> None:
        self.usage, self.options, self.call = usage, options, call
        self.defaults, self.program = defaults or {}, program


def check_id(text: str) -> str:
    """``text`` if it is a container id as runc takes it: ``[A-Za-z0-9_+.-]``, and a name that a directory can have."""
    if not text or len(text) > _MAX_ID or not _LETTERS.issuperset(text) or text in (".", ".."):
        shown = text if len(text) <= _MAX_ID else text[:20] + "..."
        raise UsageError(f"container id {shown!r}", "invalid", f"1 to {_MAX_ID} of A-Z a-z 0-9 _ + . -")
    return text


def one_id(operands: Sequence[str]) -> str:
    """The one operand that a verb takes: a container id."""
    if len(operands) != 1:
        raise UsageError(f"{len(operands)} arguments", "it takes one, a container id", "see --help")
    return check_id(operands[0])


def no_operands(operands: Sequence[str]) -> None:
    """For verbs that take options only."""
    if operands:
        raise UsageError(f"argument {operands[0]!r}", "it takes none", "see --help")


def natural(name: str, attribute: str) -> Callable[[Any, Any], None]:
    """An ``apply`` that takes a number of at least 0."""

    def apply(target: Any, text: Any) -> None:
        if not (text.isdecimal() and text.isascii() and len(text) < 10):
            raise UsageError(f"{name} {text!r}", "expected a number")
        setattr(target, attribute, int(text))

    return apply


def one_of(name: str, attribute: str, choices: Sequence[str]) -> Callable[[Any, Any], None]:
    """An ``apply`` that takes one of some words."""

    def apply(target: Any, text: Any) -> None:
        if text not in choices:
            raise UsageError(f"{name} {text!r}", "unknown", "one of " + ", ".join(choices))
        setattr(target, attribute, text)

    return apply
