"""What one attachment asks for, beyond what its network is: by capability arguments, ``args``, and CNI_ARGS.

Of two that say the same the more modern one counts: runtimeConfig before ``args.cni`` before CNI_ARGS (CNI's
CONVENTIONS.md).
"""

from __future__ import annotations

from minirun.network import addresses
from minirun.network.cni.config import an_address
from minirun.network.cni.document import Reader, wrong
from minirun.network.cni.protocol import BAD_CONFIG, BAD_ENVIRONMENT, UNSUPPORTED_FIELD, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KNOWN = ("IP", "MAC", "IgnoreUnknown")
_YES = ("1", "true", "t", "yes", "on")
_HEX = frozenset("0123456789abcdef")
_LABEL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
PROTOCOLS = ("tcp", "udp", "sctp")


class Wishes:
    """What one attachment asks for: ``ports`` are (address or "", host's port, container's port, protocol).

    Rates are bits a second, 0 for none; ``rate_in`` is what the container receives.
    """

    __slots__ = ("addresses", "aliases", "dns", "mac", "name", "ports", "rate_in", "rate_out")

    def __init__(self, document: dict[str, Any], arguments: dict[str, str]) -> None:
        reader = Reader(document)
        runtime, args = reader.object("runtimeConfig"), reader.object("args").object("cni")
        _check_arguments(arguments)
        self.addresses = _addresses(runtime, args, arguments)
        self.mac = _mac(runtime, args, arguments)
        self.ports = [_port(port) for port in runtime.objects("portMappings") if port.number("hostPort")]
        limits = runtime.object("bandwidth") if runtime.has("bandwidth") else reader
        self.rate_in = limits.number("ingressRate", limit=1 << 63)
        self.rate_out = limits.number("egressRate", limit=1 << 63)
        dns = runtime.object("dns")
        said = {"nameservers": dns.texts("servers"), "search": dns.texts("searches"), "options": dns.texts("options")}
        self.dns: dict[str, Any] = {key: value for key, value in said.items() if value}
        name = arguments.get("K8S_POD_NAME", "")
        self.name = name if _is_host_name(name) else ""  # it becomes a name in DNS, and a comment for nft(8)
        self.aliases = _aliases(runtime, reader.text("name"))


def _check_arguments(arguments: dict[str, str]) -> None:
    unknown = [key for key in arguments if key not in _KNOWN and not key.startswith("K8S_")]
    if unknown and arguments.get("IgnoreUnknown", "").lower() not in _YES:
        raise CniError(BAD_ENVIRONMENT, f"CNI_ARGS: {', '.join(unknown)} unknown", "IgnoreUnknown=1 lets them pass")


def _addresses(runtime: Reader, args: Reader, arguments: dict[str, str]) -> list[str]:
    """The addresses asked for, without the length of a prefix: that is the network's."""
    if runtime.has("ips"):
        asked, place = runtime.texts("ips"), runtime.at("ips")
    elif args.has("ips"):
        asked, place = args.texts("ips"), args.at("ips")
    else:
        asked, place = [text for text in arguments.get("IP", "").split(",") if text], "CNI_ARGS: IP"
    found = [an_address(text.partition("/")[0], place) for text in asked]
    if len({addresses.bits(address) for address in found}) < len(found):
        raise CniError(BAD_CONFIG, f"{place}: two addresses of one family", f"it is {', '.join(asked)}")
    return found


def _mac(runtime: Reader, args: Reader, arguments: dict[str, str]) -> str:
    """The MAC asked for, in lower case; "" if none is."""
    given = runtime.text("mac") or args.text("mac") or arguments.get("MAC", "")
    if not given:
        return ""
    parts = given.lower().replace("-", ":").split(":")
    if len(parts) != 6 or not all(len(part) == 2 and _HEX.issuperset(part) for part in parts):
        wrong("mac", "a MAC address", given)
    if int(parts[0], 16) & 1 or not any(int(part, 16) for part in parts):
        wrong("mac", "the MAC address of one interface", given)
    return ":".join(parts)


def _port(reader: Reader) -> tuple[str, int, int, str]:
    """One of portMappings. A port of 0 on the host's side asks for nothing, and was left out."""
    protocol = reader.text("protocol", "tcp").lower() or "tcp"
    if protocol not in PROTOCOLS:
        wrong(reader.at("protocol"), "tcp, udp or sctp", protocol)
    inside = reader.number("containerPort", limit=1 << 16)
    if not inside:
        wrong(reader.at("containerPort"), "a port", inside)
    address = an_address(reader.text("hostIP"), reader.at("hostIP")) if reader.text("hostIP") else ""
    if address == "::1":  # the kernel cannot translate it, and no process of ours lives as long as the container
        raise CniError(UNSUPPORTED_FIELD, f"{reader.at('hostIP')}='::1' is not supported", "use 127.0.0.1")
    return address, reader.number("hostPort", limit=1 << 16), inside, protocol


def _aliases(runtime: Reader, network: str) -> list[str]:
    """Further names; podman gives them by network. What cannot be a name in DNS is left out."""
    value = runtime.get("aliases")
    names = runtime.object("aliases").texts(network) if isinstance(value, dict) else runtime.texts("aliases")
    return [name for name in names if _is_host_name(name)]


def _is_host_name(text: str) -> bool:
    """Whether DNS can express this name (RFC 1035, 2.3.4)."""
    labels = text.split(".")
    return len(text) < 254 and _LABEL.issuperset(text) and all(0 < len(label) < 64 for label in labels)
