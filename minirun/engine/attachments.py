"""What ``--net`` and its relatives ask for: which networks, or none of our own, and what is wanted of each.

Both ways of writing are understood: podman's ``a,b`` and ``NAME:ip=10.77.0.9,alias=db``, docker's
``name=NAME,ip=10.77.0.9,alias=db``. ``--ip`` and the like stand for the same, where there is one network.
"""

from __future__ import annotations

from minirun.engine.options import Attachment, RunOptions
from minirun.engine.record import check_name
from minirun.errors import UsageError
from minirun.network import addresses, bridge, endpoint, names
from minirun.network.addresses import IPV4, IPV6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DEFAULTS = ("bridge", "default")  # docker's and podman's words for their default network
ROOTLESS = ("slirp4netns", "pasta", "private", "ns")  # podman's, for what has no place here
IFNAME = "com.docker.network.endpoint.ifname"
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def settle(options: RunOptions) -> None:
    """Understand ``options.nets`` and ``options.net_flags``. Raises UsageError."""
    wanted = [part for text in options.nets for part in _split(text)] or [bridge.DEFAULT]
    modes = [mode for mode in map(_mode, wanted) if mode]
    if modes and len(wanted) > 1:
        raise UsageError(f"--net {modes[0]}", "cannot be combined with another network")
    if modes:
        options.network, _, options.joined = modes[0].partition(":")
        _refuse(options, modes[0])
        return
    options.networks = [_parse(text) for text in wanted]
    _check_several(options.networks)
    _apply_flags(options)


def _split(text: str) -> list[str]:
    """The networks that one ``--net`` names: ``a,b`` are two."""
    if "=" in text or ":" in text:
        return [text]
    return text.split(",")


def _mode(text: str) -> str:
    """What is no network of ours: none, host, or container:ID; "" for a network. Raises UsageError."""
    word, _, rest = text.partition(":")
    if text in ("none", "host"):
        return text
    if word == "container":
        check_name(rest, "--net container:")
        return text
    if word in ROOTLESS:
        remedy = "leave it out for the bridge network br0; or none, host, container:NAME, or a network"
        raise UsageError(f"--net {text}", "not something that minirun has", remedy)
    return ""


def _refuse(options: RunOptions, mode: str) -> None:
    """Refuse what means nothing without a network of one's own."""
    for flag in options.net_flags:
        raise UsageError(flag, f"has no meaning with --net {mode}", "use a network")
    if mode.startswith("container:"):
        if options.hostname:
            raise UsageError("--hostname", f"the host name comes with the network of --net {mode}", "leave it out")
        if options.ports:
            raise UsageError("-p", f"--net {mode} publishes nothing", "publish it with the container that it names")


def _parse(text: str) -> Attachment:
    """One network with what is wanted of it: ``NAME``, ``NAME:key=value,…`` or ``name=NAME,key=value,…``."""
    name, colon, rest = text.partition(":")
    pairs = rest.split(",") if colon and rest else []
    if "=" in name:
        parts = text.split(",")
        named = [part for part in parts if part.startswith("name=")]
        if len(named) != 1:
            raise UsageError(f"--net {text}", "names no network", "write it as name=NAME,ip=10.77.0.9")
        name, pairs = named[0].removeprefix("name="), [part for part in parts if part not in named]
    name = bridge.DEFAULT if name in DEFAULTS else name
    attachment = Attachment(check_name(name, "--net"))
    for pair in pairs:
        key, _, value = pair.partition("=")
        apply = KEYS.get(key)
        if apply is None:
            raise UsageError(f"--net {text}", f"unknown option {key!r}", f"known: {', '.join(KEYS)}")
        apply(attachment, value, f"--net {name}:{key}=")
    return attachment


def _check_several(networks: list[Attachment]) -> None:
    known = [attachment.network for attachment in networks]
    interfaces = [attachment.interface for attachment in networks if attachment.interface]
    if twice := next((name for name in known if known.count(name) > 1), None):
        raise UsageError(f"--net {twice}", "given twice")
    if twice := next((name for name in interfaces if interfaces.count(name) > 1), None):
        name = next(attachment.network for attachment in reversed(networks) if attachment.interface == twice)
        raise UsageError(f"--net {name}:interface_name={twice}", "given twice", "each interface needs its own")
    if len(networks) > endpoint.MAX_NETWORKS:
        raise UsageError("--net", f"a container has {endpoint.MAX_NETWORKS} networks at most")


def _apply_flags(options: RunOptions) -> None:
    """Let ``--ip`` and the like mean the one network that there is; an alias is one on every network."""
    first = options.networks[0]
    for flag, values in options.net_flags.items():
        key = FLAGS[flag]
        if key == "alias":
            for attachment, value in ((a, v) for a in options.networks for v in values):
                set_alias(attachment, value, flag)
            continue
        if len(options.networks) > 1:
            example = f"--net {first.network}:{key}={values[0]}"
            why = f"it is for one network, and there are {len(options.networks)}"
            raise UsageError(f"{flag} {values[0]}", why, f"say for which: {example}")
        if len(values) > 1:
            raise UsageError(flag, "given twice")
        KEYS[key](first, values[0], flag)


def attachment(network: str, flags: Iterable[tuple[str, str]]) -> Attachment:
    """What ``network connect`` wants: one network, and for each flag a value. Raises UsageError."""
    check_name(network, "network name")
    if _mode(network):
        raise UsageError(
            f"network {network}", "a container can only be connected to a network", "network ls lists them"
        )
    result = Attachment(bridge.DEFAULT if network in DEFAULTS else network)
    for flag, value in flags:
        KEYS[FLAGS[flag]](result, value, flag)
    return result


def _said(flag: str, value: str) -> str:
    """What was typed: ``--ip 10.201.0.9``, or ``--net br0:ip=10.201.0.9``."""
    return f"{flag}{value}" if flag.endswith("=") else f"{flag} {value}"


def _set_address(bits: int) -> Callable[[Attachment, str, str], None]:
    def apply(target: Attachment, value: str, flag: str) -> None:
        if not addresses.is_address(value):
            example = "10.201.0.9" if bits == IPV4 else "fd00::9"
            raise UsageError(_said(flag, value), "not an address", f"write it as {example}")
        if addresses.bits(value) != bits:
            base = flag.removesuffix("=").removesuffix("6")
            other = _said(f"{base}{'6' if bits == IPV4 else ''}{'=' * flag.endswith('=')}", value)
            raise UsageError(_said(flag, value), f"not an IPv{4 if bits == IPV4 else 6} address", f"write {other}")
        name = "address" if bits == IPV4 else "address6"
        if getattr(target, name):
            raise UsageError(_said(flag, value), "one address of a family is all that a network gives", "leave one out")
        setattr(target, name, addresses.canonical(value))

    return apply


def set_mac(target: Attachment, value: str, flag: str) -> None:
    """``--mac-address``: of one interface (unicast), not of nobody, and not one that minirun gives by itself."""
    parts = value.lower().replace("-", ":").split(":")
    digits = frozenset("0123456789abcdef")
    if len(parts) != 6 or not all(len(part) == 2 and digits.issuperset(part) for part in parts):
        raise UsageError(_said(flag, value), "not a MAC address", "write it as 02:42:ac:11:00:02")
    if int(parts[0], 16) & 1:
        why = "a group's address (the last bit of its first byte is 1)"
        raise UsageError(_said(flag, value), why, "choose one like 02:42:ac:11:00:02")
    if set(parts) == {"00"}:
        raise UsageError(_said(flag, value), "nobody's address", "choose one like 02:42:ac:11:00:02")
    target.mac = ":".join(parts)


def set_alias(target: Attachment, value: str, flag: str) -> None:
    """``--network-alias``: one more name on the network."""
    target.aliases.append(names.parse_alias(value, _said(flag, value)))


_RATES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
LEAST_RATE, MOST_RATE = 8 * 10**3, 10**13  # bits a second


def rate(value: str, flag: str) -> int:
    """``10mbit`` in bits a second: a number with k, m, g or t, each 1000 times the one before, as tc(8) has it."""
    text = value.lower().removesuffix("bit")
    unit = text[-1:] if text[-1:].isalpha() else ""
    digits = text[: len(text) - len(unit)]
    if unit not in _RATES or not (digits.isascii() and digits.replace(".", "", 1).isdecimal()) or len(digits) > 15:
        raise UsageError(_said(flag, value), "not a rate in bits a second", "write it as 10mbit, 500kbit or 1.5gbit")
    bits = int(float(digits) * _RATES[unit])
    if not LEAST_RATE <= bits <= MOST_RATE:
        remedy = "8 bits are a byte: 10mbit are 1.25 MB a second"
        raise UsageError(_said(flag, value), "must be 8kbit to 10tbit", remedy)
    return bits


def _set_rate(name: str) -> Callable[[Attachment, str, str], None]:
    return lambda target, value, flag: setattr(target, name, rate(value, flag))


def _set_interface(target: Attachment, value: str, flag: str) -> None:
    fits = 0 < len(value) < 16 and _NAME.issuperset(value) and value[0] not in "-_"
    if not fits or value in ("lo", "all", "default"):
        raise UsageError(_said(flag, value), "not a name for an interface", "1 to 15 letters, digits, '_' or '-'")
    target.interface = value


def _set_option(target: Attachment, value: str, flag: str) -> None:
    name, _, interface = value.partition("=")
    if name != IFNAME:
        raise UsageError(_said(flag, value), "unknown option", f"known: {IFNAME}")
    _set_interface(target, interface, flag)


KEYS: dict[str, Callable[[Attachment, str, str], None]] = {
    "ip": _set_address(IPV4),
    "ip6": _set_address(IPV6),
    "mac": set_mac,
    "mac-address": set_mac,
    "alias": set_alias,
    "interface_name": _set_interface,
    "driver-opt": _set_option,
    "rate-in": _set_rate("rate_in"),
    "rate-out": _set_rate("rate_out"),
}
FLAGS = {
    "--ip": "ip",
    "--ip6": "ip6",
    "--mac-address": "mac",
    "--network-alias": "alias",
    "--alias": "alias",
    "--interface-name": "interface_name",
    "--net-rate-in": "rate-in",
    "--net-rate-out": "rate-out",
}
