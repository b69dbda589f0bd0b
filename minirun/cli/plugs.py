"""``minirun network connect`` and ``disconnect``: networks of containers that run."""

from __future__ import annotations

import sys

from minirun.cli.arguments import Option, Values, parse, store
from minirun.cli.run import warn
from minirun.engine import attachments, plugs
from minirun.engine import record as records
from minirun.engine.inspect import published
from minirun.errors import Conflict, NotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


def _flag(name: str) -> Callable[[Any, Any], None]:
    def apply(target: Any, value: str) -> None:
        target.flags.append((name, value))

    return apply


CONNECT = [
    Option("--ip", "ADDRESS", _flag("--ip"), "this IPv4 address on the network (default: the next free one)"),
    Option("--ip6", "ADDRESS", _flag("--ip6"), "the same for IPv6"),
    Option("--mac-address", "MAC", _flag("--mac-address"), "this MAC (default: one that follows from the address)"),
    Option("--alias", "NAME", _flag("--alias"), "one more name on the network"),
    Option(
        "--interface-name", "NAME", _flag("--interface-name"), "inside (default: eth0, eth1 ..., the next free one)"
    ),
    Option("--net-rate-in", "RATE", _flag("--net-rate-in"), "limit of what it receives: bits a second, as 10mbit"),
    Option("--net-rate-out", "RATE", _flag("--net-rate-out"), "limit of what it sends"),
]
DISCONNECT = [Option("-f --force", "", store("force"), "no error for what is not connected, or does not run")]


def _two(verb: str, operands: Sequence[str]) -> Sequence[str]:
    if len(operands) != 2:
        raise UsageError(
            f"network {verb}", "takes a network and a container", f"minirun network {verb} NETWORK CONTAINER"
        )
    return operands


def connect(argv: Sequence[str]) -> int:
    """``minirun network connect``."""
    target = Values(flags=[])
    network, container = _two("connect", parse(argv, CONNECT, target))
    wanted = attachments.attachment(network, target.flags)
    plugs.connect(records.find(container), wanted, warn)
    return 0


def disconnect(argv: Sequence[str]) -> int:
    """``minirun network disconnect``."""
    target = Values(force=False)
    network, container = _two("disconnect", parse(argv, DISCONNECT, target))
    name = attachments.attachment(network, ()).network
    try:
        found = records.find(container)
        plugs.disconnect(found, name)
    except (Conflict, NotFound):
        if not target.force:
            raise
        return 0
    tell(found)
    return 0


def tell(container: records.Container) -> None:
    """Say that the container's ports are not published any more, if that is so."""
    record = container.record()
    if record["Ports"] and not published(record):
        text = "its ports are published no more, until it is connected to a network with a way out"
        sys.stderr.write(f"minirun: container {record['Name']}: {text}\n")
