"""``minirun network``: create, connect, list, inspect, remove and repair networks."""

from __future__ import annotations

import os
import sys

from minirun.cli import plugs, table
from minirun.cli.arguments import Option, Values, collect, help_text, parse, store
from minirun.engine.attachments import DEFAULTS
from minirun.engine.options import whole
from minirun.engine.plugs import disconnect_all
from minirun.engine.record import check_name
from minirun.errors import MinirunError, NotFound, UsageError
from minirun.network import bridge, ipam
from minirun.network.creation import MAX_BRIDGE_NAME, MAX_MTU, MIN_MTU, Wanted
from minirun.network.network import ALLOW_FORWARD, Network, listing, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _truth(text: str, flag: str) -> bool:
    if text not in ("true", "false", "1", "0"):
        raise UsageError(f"{flag}={text}", "not true or false")
    return text in ("true", "1")


def _icc(target: Wanted, value: bool) -> None:
    target.isolate = not value


def _mtu(target: Wanted, text: str) -> None:
    target.mtu = whole(text, "--mtu", MIN_MTU, MAX_MTU)


def _allow_forward(target: Wanted, value: bool) -> None:
    if value:
        target.options[ALLOW_FORWARD] = "true"


def _driver(target: Wanted, text: str) -> None:
    if text != "bridge":
        raise UsageError(f"--driver {text}", "minirun has no such driver", "bridge is the only one; leave it out")


def _label(target: Wanted, text: str) -> None:
    name, _, value = text.partition("=")
    if not name:
        raise UsageError(f"--label {text!r}", "the name is missing", "write NAME=VALUE")
    target.labels[name] = value


def _option(target: Wanted, text: str) -> None:
    """``--opt``, in the words of docker and of podman."""
    name, equals, value = text.partition("=")
    apply = OPTS.get(name)
    if apply is None or not equals:
        why = "needs a value" if apply else "unknown"
        raise UsageError(f"--opt {text}", why, f"known: {', '.join(f'{known}=' for known in OPTS)}")
    apply(target, value)
    target.options[name] = value


def _opt_icc(target: Wanted, value: str) -> None:
    target.isolate = not _truth(value, "--opt com.docker.network.bridge.enable_icc")


def _opt_ipv6(target: Wanted, value: str) -> None:
    target.ipv6 = _truth(value, "--opt com.docker.network.enable_ipv6")


def _opt_spoof(target: Wanted, value: str) -> None:
    if value not in ("allow", "deny"):
        raise UsageError(
            f"--opt spoof={value}", "not allow or deny", "deny is the default: containers speak as themselves"
        )


def _bridge(target: Wanted, text: str) -> None:
    if len(text) > MAX_BRIDGE_NAME or text in bridge.RESERVED:
        raise UsageError(f"--interface-name {text}", f"not a name for a bridge of {MAX_BRIDGE_NAME} characters at most")
    target.bridge = check_name(text, "--interface-name")


def _opt_masquerade(target: Wanted, value: str) -> None:
    _truth(value, "--opt com.docker.network.bridge.enable_ip_masquerade")


def _opt_routed(target: Wanted, value: str) -> None:
    _truth(value, "--opt routed")


def _opt_isolate(target: Wanted, value: str) -> None:
    """podman's word for what networks are here in any case: unable to reach each other."""
    if value not in ("true", "1", "strict"):
        raise UsageError(f"--opt isolate={value}", "networks of minirun never reach each other", "leave it out")


OPTS: dict[str, Callable[[Wanted, str], None]] = {
    "com.docker.network.bridge.enable_icc": _opt_icc,
    "com.docker.network.bridge.enable_ip_masquerade": _opt_masquerade,
    "com.docker.network.bridge.name": _bridge,
    "com.docker.network.driver.mtu": _mtu,
    "com.docker.network.enable_ipv6": _opt_ipv6,
    "mtu": _mtu,
    "isolate": _opt_isolate,
    "routed": _opt_routed,
    "spoof": _opt_spoof,
}

CREATE = [
    Option(
        "--subnet",
        "CIDR",
        collect("subnets"),
        "such as 10.77.0.0/24 or fd00:77::/64; may be repeated (default: the next free one)",
    ),
    Option("--gateway", "ADDRESS", collect("gateways"), "the host's address on it (default: the first of the subnet)"),
    Option(
        "--ip-range",
        "CIDR",
        collect("ranges"),
        "the part of the subnet that containers get addresses from; or FIRST-LAST",
    ),
    Option("--ipv6", "", store("ipv6"), "IPv6, too: a unique local /64, unless --subnet gives one"),
    Option("--internal", "", store("internal"), "no way out"),
    Option("--isolate", "", store("isolate"), "containers cannot reach each other, but for published ports"),
    Option("--icc", "", _icc, "true or false: --icc=false is --isolate"),
    Option("--mtu", "BYTES", _mtu, "the largest packet (default: what the way out of this machine takes)"),
    Option(
        "--dns",
        "ADDRESS",
        collect("dns"),
        "asked for names that are not containers' (default: the host's); may be repeated",
    ),
    Option("-o --opt", "KEY=VALUE", _option, "an option of docker or podman: MTU, icc, IPv6, bridge"),
    Option("--interface-name", "NAME", _bridge, "the bridge's name (default: the network's)"),
    Option("--label", "NAME=VALUE", _label, "note something about the network"),
    Option("--allow-forward", "", _allow_forward, "open other firewalls of the host for this network"),
    Option("-d --driver", "bridge", _driver, "accepted: there is no other one"),
]
RELOAD = [
    Option("--allow-forward", "", store("allow_forward"), "open other firewalls of the host for the networks"),
]
LIST = [
    Option("-q --quiet", "", store("quiet"), "only names"),
    Option("-f --filter", "KEY=VALUE", collect("filters"), "name=PART, label=NAME, or label=NAME=VALUE"),
    Option("--format", "json", store("format"), "one JSON object a line; table: what is printed without it"),
    Option("--no-trunc", "", store("whole"), "accepted: nothing is shortened"),
]
INSPECT = [Option("-f --format", "json", store("format"), "json: on one line")]
REMOVE = [
    Option(
        "-f --force",
        "",
        store("force"),
        "pull containers of minirun out of them first; no error for what does not exist",
    ),
]
PRUNE = [
    Option("-f --force", "", store("force"), "do not ask"),
    Option("--filter", "KEY=VALUE", collect("filters"), "only those: as with ls"),
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


def _chosen(filters: Sequence[str], flag: str) -> list[Network]:
    """The networks that fit all filters. Raises UsageError."""
    found = list(listing())
    for text in filters:
        key, _, value = text.partition("=")
        if key == "name":
            found = [network for network in found if value in network.name]
        elif key == "label":
            name, equals, wanted = value.partition("=")
            found = [n for n in found if name in n.labels and (not equals or n.labels[name] == wanted)]
        else:
            raise UsageError(f"{flag} {text}", "unknown", "name=PART, label=NAME, or label=NAME=VALUE")
    return found


def _list(argv: Sequence[str]) -> int:
    target = Values(quiet=False, format="table", filters=[], whole=False)
    if operands := parse(argv, LIST, target):
        raise UsageError(f"network ls {operands[0]}", "takes no names", f"--filter name={operands[0]}")
    table.check_format(target.format)
    networks = _chosen(target.filters, "--filter")
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

    target = Values(format="table")
    names = parse(argv, INSPECT, target)
    if not names:
        raise UsageError("network inspect", "a name is missing", "minirun network ls lists them")
    return inspect.run(["--type", "network", "--format", target.format, "--", *map(_meant, names)])


def _exists(argv: Sequence[str]) -> int:
    """As podman's: the exit code says it, and nothing is printed."""
    names = parse(argv, [], Values())
    if len(names) != 1:
        raise UsageError("network exists", "takes one name", "minirun network exists NAME")
    return 0 if load(_meant(check_name(names[0], "network name"))) else 1


def _meant(name: str) -> str:
    """The network of that name, where ``bridge`` and ``default`` are words for the default one."""
    return bridge.DEFAULT if name in DEFAULTS else name


def each(names: Sequence[str], act: Callable[[str], None], force: bool = False) -> int:
    """Do something to each network, print its name, go on after an error, and return the worst exit code."""
    code = 0
    for name in names:
        try:
            act(_meant(check_name(name, "network name")))
            sys.stdout.write(f"{name}\n")
        except NotFound as error:
            if not force:
                table.complain(error)
                code = error.exit_code
        except MinirunError as error:
            table.complain(error)
            code = error.exit_code
    return code


def _remove(argv: Sequence[str]) -> int:
    target = Values(force=False)
    names = parse(argv, REMOVE, target)
    if not names:
        raise UsageError("network rm", "a name is missing", "minirun network ls lists them")

    def remove(name: str) -> None:
        if target.force:
            disconnect_all(name, plugs.tell)
        bridge.remove(name)

    return each(names, remove, target.force)


def _prune(argv: Sequence[str]) -> int:
    target = Values(force=False, filters=[])
    if parse(argv, PRUNE, target):
        raise UsageError("network prune", "takes no names", "network rm removes what you name")
    unused = [
        network.name
        for network in _chosen(target.filters, "--filter")
        if network.name != bridge.DEFAULT and not ipam.leases(network.name)
    ]
    if unused and not target.force and not _agreed(unused):
        return 1
    return each(unused, bridge.remove, force=True)


def _agreed(names: Sequence[str]) -> bool:
    if not os.isatty(0):
        raise UsageError("network prune", f"it would remove {' '.join(names)}", "say so with -f")
    sys.stderr.write(f"Remove these networks, which no container uses: {' '.join(names)}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _reload(argv: Sequence[str]) -> int:
    from minirun.network import reload

    target = Values(allow_forward=False)
    names = [_meant(check_name(name, "network name")) for name in parse(argv, RELOAD, target)]
    whole = reload.reload(names, target.allow_forward, lambda text: print(text, flush=True))
    return 0 if whole else 1


class _Verb:
    """A verb: what it does, its arguments, its options, and a line about it."""

    def __init__(self, run: Callable[[Sequence[str]], int], usage: str, options: list[Option], text: str) -> None:
        self.run, self.usage, self.options, self.text = run, usage, options, text


VERBS = {
    "create": _Verb(_create, "create [OPTIONS] NAME", CREATE, "make a network: a bridge with its own subnet"),
    "ls": _Verb(_list, "ls [OPTIONS]", LIST, "list networks; also: list"),
    "inspect": _Verb(_inspect, "inspect NAME...", INSPECT, "show all about networks as JSON, and who is on them"),
    "rm": _Verb(_remove, "rm [-f] NAME...", REMOVE, "remove networks that no container uses; also: remove"),
    "exists": _Verb(_exists, "exists NAME", [], "exit with 0 if there is such a network, with 1 if not"),
    "connect": _Verb(
        plugs.connect, "connect [OPTIONS] NETWORK CONTAINER", plugs.CONNECT, "plug a running container into a network"
    ),
    "disconnect": _Verb(plugs.disconnect, "disconnect [-f] NETWORK CONTAINER", plugs.DISCONNECT, "pull it out of one"),
    "reload": _Verb(
        _reload, "reload [--allow-forward] [NAME...]", RELOAD, "put back what others took of our firewall and bridges"
    ),
    "prune": _Verb(_prune, "prune [OPTIONS]", PRUNE, "remove all networks that no container uses, but br0"),
}
ALIASES = {"list": "ls", "remove": "rm"}
EXAMPLES = (
    "minirun network create lab --subnet 10.77.0.0/24 --ip-range 10.77.0.128/25",
    "minirun network create dual --ipv6 --isolate",
    "minirun run --rm --net lab --net dual alpine ip addr",
    "minirun network connect --ip 10.77.0.9 lab web",
)


def usage() -> str:
    """The text of ``minirun network --help``."""
    lines = ["usage: minirun network VERB ...", "", "Networks, and the containers on them.", "", "verbs:"]
    width = max(len(verb.usage) for verb in VERBS.values()) + 2
    lines += [f"  {verb.usage:<{width}}{verb.text}" for verb in VERBS.values()]
    for name, verb in VERBS.items():
        if not verb.options:
            continue
        body = help_text("", "", verb.options).partition("options:\n")[2]
        lines += ["", f"options of {name}:", body.rstrip("\n")]
    lines += ["", "examples:", *(f"  {example}" for example in EXAMPLES)]
    return "\n".join(lines) + "\n"


def run(argv: Sequence[str]) -> int:
    """``minirun network``."""
    if not argv or argv[0] in ("--help", "-h"):
        sys.stdout.write(usage())
        return 0 if argv else 125
    verb = VERBS.get(ALIASES.get(argv[0], argv[0]))
    if verb is None:
        raise UsageError(f"network {argv[0]}", "unknown", f"known: {', '.join(VERBS)}; see minirun network --help")
    if "--help" in argv[1:] or "-h" in argv[1:]:
        text = verb.text[0].upper() + verb.text[1:] + "."
        sys.stdout.write(help_text(f"network {verb.usage}", text, verb.options))
        return 0
    return verb.run(argv[1:])
