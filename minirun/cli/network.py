"""``minirun network create|ls|inspect|rm``."""

from __future__ import annotations

import sys

from minirun.cli import table
from minirun.cli.arguments import Option, Values, collect, help_text, parse, store
from minirun.engine.record import check_name
from minirun.errors import MinirunError, UsageError
from minirun.network import bridge
from minirun.network.creation import Wanted
from minirun.network.network import listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = "network create [OPTIONS] NAME | ls [-q] | inspect NAME... | rm NAME..."
CREATE = [
    Option(
        "--subnet", "CIDR", collect("subnets"), "such as 10.77.0.0/24; may be repeated (default: the next free one)"
    ),
    Option("--gateway", "ADDRESS", collect("gateways"), "the host's address on it (default: the first of the subnet)"),
    Option("--ip-range", "CIDR", collect("ranges"), "the part of the subnet that containers get addresses from"),
    Option("--ipv6", "", store("ipv6"), "IPv6, too"),
    Option("--internal", "", store("internal"), "no way out"),
    Option("--isolate", "", store("isolate"), "containers cannot reach each other, but for published ports"),
]
LIST = [
    Option("-q --quiet", "", store("quiet"), "only names"),
    Option("--format", "json", store("format"), "one JSON object a line"),
]


def understand_create(argv: Sequence[str]) -> Wanted:
    """What ``network create`` asks for. Raises UsageError."""
    target = Wanted("")
    operands = parse(argv, CREATE, target)
    if len(operands) != 1:
        raise UsageError("network create", "takes one name", "minirun network create [OPTIONS] NAME")
    target.name = check_name(operands[0], "network name")
    return target


def _create(argv: Sequence[str]) -> int:
    network = bridge.create(understand_create(argv))
    sys.stdout.write(f"{network.name}\n")
    return 0


def _list(argv: Sequence[str]) -> int:
    target = Values(quiet=False, format="table")
    parse(argv, LIST, target)
    table.check_format(target.format)
    networks = list(listing())
    if target.quiet:
        sys.stdout.write("".join(f"{network.name}\n" for network in networks))
    elif target.format == "json":
        table.json_lines([network.record() for network in networks])
    else:
        rows = [
            [n.name, n.bridge, ", ".join(str(p.subnet) for p in n.pools), ", ".join(p.gateway for p in n.pools)]
            for n in networks
        ]
        table.write(["NAME", "BRIDGE", "SUBNET", "GATEWAY"], rows)
    return 0


def _inspect(argv: Sequence[str]) -> int:
    from minirun.cli import inspect

    return inspect.run(["--type", "network", *argv])


def _remove(argv: Sequence[str]) -> int:
    code = 0
    argv = parse(argv, [], Values())
    if not argv:
        raise UsageError("network rm", "a name is missing", "minirun network ls lists them")
    for name in argv:
        try:
            bridge.remove(check_name(name, "network name"))
            sys.stdout.write(f"{name}\n")
        except MinirunError as error:
            table.complain(error)
            code = error.exit_code
    return code


VERBS = {"create": _create, "ls": _list, "list": _list, "inspect": _inspect, "rm": _remove}


def run(argv: Sequence[str]) -> int:
    """``minirun network``."""
    if not argv or argv[0] in ("--help", "-h") or "--help" in argv[1:]:
        sys.stdout.write(help_text(USAGE, "Create, list, inspect and remove networks.", CREATE))
        return 0 if argv else 125
    verb = VERBS.get(argv[0])
    if verb is None:
        raise UsageError(f"network {argv[0]}", "unknown", f"minirun {USAGE}")
    return verb(argv[1:])
