"""Command-line options from a table: parsing, and the help text, in a hundred lines.

``argparse`` takes 9 ms to import, half of what a whole start of a container takes, so ``run`` cannot have it; and one
way to parse is better than two. What users of docker and podman type is understood: ``-it``, ``-p8080:80``,
``--name=web``, ``--`` (POSIX Utility Syntax Guidelines, and GNU's long options).
"""

from __future__ import annotations

from minirun.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class Option:
    """One option: its ``names``, the name of its ``value`` ("" for a switch), what it does, and a line of help.

    ``apply(target, value)`` takes the text (True for a switch) and raises UsageError if it makes no sense.
    """

    __slots__ = ("apply", "help", "names", "value")

    def __init__(self, names: str, value: str, apply: Callable[[Any, Any], None], help_text: str) -> None:
        self.names, self.value, self.apply, self.help = names.split(), value, apply, help_text


def store(attribute: str) -> Callable[[Any, Any], None]:
    """An ``apply`` that sets an attribute of the target."""

    def apply(target: Any, value: Any) -> None:
        setattr(target, attribute, value)

    return apply


def collect(attribute: str) -> Callable[[Any, Any], None]:
    """An ``apply`` that appends to a list of the target."""

    def apply(target: Any, value: Any) -> None:
        getattr(target, attribute).append(value)

    return apply


class Values:
    """A plain target: any attribute, with the defaults that it is made with."""

    def __init__(self, **defaults: Any) -> None:
        self.__dict__.update(defaults)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def parse(argv: Sequence[str], options: Sequence[Option], target: Any, operands_first: bool = True) -> list[str]:
    """Apply the options in ``argv`` to ``target`` and return the operands.

    With ``operands_first`` false, the first operand ends the options: what follows belongs to another program.
    """
    table = {name: option for option in options for name in option.names}
    operands: list[str] = []
    words = list(reversed(argv))
    while words:
        word = words.pop()
        if word == "--":
            return operands + words[::-1]
        if word.startswith("--"):
            _long(word, table, words, target)
        elif word.startswith("-") and len(word) > 1:
            _short(word, table, words, target)
        else:
            operands.append(word)
            if not operands_first:
                return operands + words[::-1]
    return operands


def _find(name: str, table: dict[str, Option]) -> Option:
    option = table.get(name)
    if option is None:
        near = [known for known in table if known.startswith(name)] if len(name) > 3 else []
        raise UsageError(f"unknown option {name}", "", f"did you mean {near[0]}?" if near else "see --help")
    return option


def _value(name: str, words: list[str]) -> str:
    if not words:
        raise UsageError(f"option {name}", "needs a value")
    return words.pop()


def _long(word: str, table: dict[str, Option], words: list[str], target: Any) -> None:
    name, equals, value = word.partition("=")
    option = _find(name, table)
    if option.value:
        option.apply(target, value if equals else _value(name, words))
    elif not equals or value in ("true", "false"):
        option.apply(target, value != "false")
    else:
        raise UsageError(f"option {word}", "takes no value but true or false")


def _short(word: str, table: dict[str, Option], words: list[str], target: Any) -> None:
    for position, letter in enumerate(word[1:], 2):
        option = _find(f"-{letter}", table)
        if option.value:
            rest = word[position:]
            option.apply(target, rest.removeprefix("=") if rest else _value(f"-{letter}", words))
            return
        option.apply(target, True)


def help_text(usage: str, summary: str, options: Sequence[Option], examples: Sequence[str] = ()) -> str:
    """What ``--help`` prints."""
    lines = [f"usage: minirun {usage}".rstrip(), "", summary]
    if options:
        rows = [
            (", ".join(option.names) + (f" {option.value}" if option.value else ""), option.help) for option in options
        ]
        width = min(max(len(left) for left, _ in rows), 34)
        lines += ["", "options:"]
        for left, right in rows:
            gap = f"\n{'':{width + 4}}" if len(left) > width else " " * (width - len(left) + 2)
            lines.append(f"  {left}{gap}{right}")
    if examples:
        lines += ["", "examples:", *(f"  {example}" for example in examples)]
    return "\n".join(lines) + "\n"
