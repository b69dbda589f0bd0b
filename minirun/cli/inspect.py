"""``minirun inspect``: containers, images and networks by name or id, as a JSON list."""

from __future__ import annotations

import sys

from minirun.cli import table
from minirun.cli.arguments import Option, Values, help_text, parse, store
from minirun.engine import inspect
from minirun.engine import record as records
from minirun.errors import MinirunError, NotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

OPTIONS = [
    Option("--type", "TYPE", store("type"), "container, image or network (default: the first that is found)"),
    Option("-f --format", "json", store("format"), "json: on one line"),
]


def _container(name: str) -> Any:
    return inspect.container(records.find(name))


def _image(name: str) -> Any:
    from minirun.image import layout

    image = layout.find(name)
    if image is None:
        raise NotFound(f"no such image: {name}", "", "minirun images lists them")
    return inspect.image(image)


def _network(name: str) -> Any:
    from minirun.network import bridge

    return bridge.inspect(name)


KINDS = {"container": _container, "image": _image, "network": _network}


def look_up(name: str, kind: str | None) -> Any:
    """The object with this name; NotFound if there is none of that kind, or of any."""
    for known, find in KINDS.items():
        if kind in (None, known):
            try:
                return find(name)
            except NotFound:
                if kind:
                    raise
            except MinirunError:
                if kind:
                    raise
                continue
    raise NotFound(f"no such container, image or network: {name}")


def run(argv: Sequence[str]) -> int:
    """Print what was found; go on after an error."""
    if "--help" in argv:
        text = "Show all about containers, images or networks as JSON."
        sys.stdout.write(help_text("inspect [--type TYPE] NAME|ID...", text, OPTIONS))
        return 0
    target = Values(type=None, format="table")
    operands = parse(argv, OPTIONS, target)
    if target.type not in (None, *KINDS):
        raise UsageError(f"--type {target.type!r}", "", "container, image or network")
    table.check_format(target.format)
    if not operands:
        raise UsageError("inspect", "a name or an id is missing", "minirun inspect NAME|ID...")
    found, code = [], 0
    for name in operands:
        try:
            found.append(look_up(name, target.type))
        except MinirunError as error:
            table.complain(error)
            code = error.exit_code
    if target.format == "json":
        table.json_lines([found])
    else:
        table.pretty(found)
    return code
