"""The network configuration: what the administrator wrote about a network, as a class.

The keys are those of the reference plugins ``bridge`` and ``host-local``, so that a file for them serves us with
another ``type``; what is not said has the defaults of a network of minirun: a gateway, a default route, masquerade.
Unknown keys are ignored. A known one that asks for what a network of ours is not (a VLAN) is refused, by its name.
"""

from __future__ import annotations

from minirun.errors import UsageError
from minirun.network import addresses
from minirun.network.addresses import IPV4, IPV6, Span, Subnet
from minirun.network.cni import protocol
from minirun.network.cni.document import Reader, wrong
from minirun.network.cni.protocol import BAD_CONFIG, UNSUPPORTED_FIELD, CniError
from minirun.network.network import Pool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

IPAM = ("minirun", "minirun-cni", "host-local", "")  # host-local's keys, our leases
_REFUSED = ("vlan", "vlanTrunk", "disableContainerInterface")  # of the bridge plugin; with any value that means yes
_NO_BRIDGE = ("all", "default", "lo")  # sysctl's words, and the loopback
_METRICS = {"mtu": 1 << 32, "advmss": 1 << 32, "priority": 1 << 32, "table": 1 << 32, "scope": 1 << 8}  # and limits
DEFAULT_ROUTES = {IPV4: "0.0.0.0/0", IPV6: "::/0"}


class Config:
    """One network configuration. ``pools`` is empty if we shall choose the subnet; ``bridge`` is "" likewise."""

    __slots__ = (
        "bridge",
        "default_route",
        "dns",
        "document",
        "internal",
        "ipv6",
        "isolate",
        "masquerade",
        "mtu",
        "name",
        "names",
        "pools",
        "resolv_conf",
        "routes",
        "said_masquerade",
        "version",
    )

    def __init__(self, document: Any, whole: bool = True) -> None:
        """Read it; ``whole`` is False for whoever ends things, which must be possible whatever else is said."""
        if not isinstance(document, dict):
            raise CniError(protocol.NOT_DECODED, "the network configuration is not a JSON object")
        self.document = document
        reader = Reader(document)
        self.version = config_version(document)
        self.name = reader.text("name")
        if not protocol.is_name(self.name) or len(self.name) > protocol.MAX_NAME:
            about = f"a letter or digit, then those, '_', '.' and '-', {protocol.MAX_NAME} characters at most"
            raise CniError(BAD_CONFIG, f"name: {self.name!r} is not the name of a network", about)
        if whole:
            self._read(reader)

    def _read(self, reader: Reader) -> None:
        _refuse(reader)
        self.bridge = _interface_name(reader, "bridge")
        self.mtu = reader.number("mtu", limit=65536)
        self.masquerade, self.said_masquerade = reader.flag("ipMasq", True), reader.has("ipMasq")
        self.isolate = reader.flag("portIsolation") or reader.flag("isolate")
        self.internal = reader.flag("internal")
        self.ipv6 = reader.flag("ipv6")
        self.names = reader.flag("names")
        self.dns = _dns(reader.object("dns"))
        ipam = reader.object("ipam")
        if (kind := ipam.text("type")) not in IPAM:
            text = f"ipam.type={kind!r} is not supported"
            raise CniError(UNSUPPORTED_FIELD, text, "use minirun, which reads the keys of host-local")
        self.pools = pools(ipam, reader.object("runtimeConfig"))
        self.routes = [_route(route) for route in ipam.objects("routes")]
        self.resolv_conf = ipam.text("resolvConf")
        if not self.resolv_conf.isprintable():
            wrong(ipam.at("resolvConf"), "the path of a file", self.resolv_conf)
        asked = reader.flag("isDefaultGateway", not self.routes)
        self.default_route = asked and not self.internal


def config_version(document: dict[str, Any]) -> str:
    """The version of a configuration. Raises CniError: 6 for what is no version, 1 for one that we do not know."""
    version = document.get("cniVersion")
    if version is None or version == "":
        return protocol.UNSAID
    if not isinstance(version, str):
        raise CniError(protocol.NOT_DECODED, "cniVersion: expected a string", f"it is {version!r}")
    if version not in protocol.VERSIONS:
        known = ", ".join(protocol.VERSIONS)
        raise CniError(protocol.INCOMPATIBLE_VERSION, f"cniVersion {version!r} is not supported", f"it may be {known}")
    return version


def pools(ipam: Reader, runtime: Reader) -> list[Pool]:
    """The subnets that addresses are taken from: ``ranges``, the older flat keys, and the capability ``ipRanges``.

    In CNI each inner list is good for one address; we give one of each family.
    """
    groups = [[(place, inner) for place, inner in _inner(value, at)] for at, value in ipam.values_of("ranges")]
    groups += [[(place, inner) for place, inner in _inner(value, at)] for at, value in runtime.values_of("ipRanges")]
    if ipam.has("subnet"):
        groups.insert(0, [(ipam.place, ipam)])
    found: list[Pool] = []
    families: set[int] = set()
    for group in groups:
        made = [_pool(reader) for _, reader in group]
        if not made:
            continue
        bits = {pool.subnet.bits for pool in made}
        if len(bits) > 1:
            raise CniError(
                BAD_CONFIG, f"{group[0][0]}: IPv4 and IPv6 in one list", "make it two lists, for two addresses"
            )
        if bits & families:
            text = f"{group[0][0]}: a second address of one family is not supported"
            raise CniError(UNSUPPORTED_FIELD, text, f"subnet={made[0].subnet}")
        families |= bits
        found += made
    _apart(found)
    return found


def _inner(value: Any, place: str) -> list[tuple[str, Reader]]:
    if not isinstance(value, list):
        wrong(place, "a list of ranges", value)
    readers = [Reader(item, f"{place}[{n}]") for n, item in enumerate(value) if isinstance(item, dict)]
    if len(readers) != len(value):
        wrong(place, "a list of objects", value)
    return [(reader.place, reader) for reader in readers]


def _pool(reader: Reader) -> Pool:
    if not reader.has("subnet"):
        raise CniError(BAD_CONFIG, f"{reader.at('subnet')} is missing")
    try:
        subnet = Subnet.parse(reader.text("subnet"), reader.at("subnet"))
    except UsageError as error:
        raise CniError(BAD_CONFIG, error.what, f"{error.why}; {error.remedy}" if error.remedy else error.why) from None
    gateway = _member(reader, "gateway", subnet) or subnet.address(1)
    first, last = _member(reader, "rangeStart", subnet), _member(reader, "rangeEnd", subnet)
    if not first and not last:
        return Pool(subnet, gateway)
    low = addresses.number(first) if first else subnet.base + 1
    high = addresses.number(last) if last else subnet.base + subnet.size - (2 if subnet.bits == IPV4 else 1)
    if low > high:
        raise CniError(BAD_CONFIG, f"{reader.at('rangeStart')} is behind rangeEnd", f"{first} to {last}")
    return Pool(subnet, gateway, Span(low, high, subnet.bits))


def _member(reader: Reader, key: str, subnet: Subnet) -> str:
    """The address under a key, which must be one of the subnet's; "" if there is none."""
    value = reader.text(key)
    if not value:
        return ""
    address = an_address(value, reader.at(key))
    last = subnet.base + subnet.size - 1
    inside = subnet.contains(address) and addresses.number(address) != subnet.base
    if not inside or (subnet.bits == IPV4 and addresses.number(address) == last):
        raise CniError(BAD_CONFIG, f"{reader.at(key)}: {value} is not an address for a host in {subnet}")
    return address


def an_address(value: str, place: str) -> str:
    """An address in the one way that we write it. Raises CniError, code 7."""
    try:
        return addresses.canonical(value)
    except ValueError:
        wrong(place, "an address", value)


def _apart(found: list[Pool]) -> None:
    for number, pool in enumerate(found):
        for other in found[:number]:
            if pool.subnet.overlaps(other.subnet):
                text = f"ipam: {pool.subnet} overlaps {other.subnet}"
                raise CniError(BAD_CONFIG, text, "one subnet may stand once only")


def _route(reader: Reader) -> dict[str, Any]:
    """A route as the result shows it: dst with the bits behind its prefix cleared, gw, and what 1.1.0 adds."""
    target, _, prefix = reader.text("dst").partition("/")
    target = an_address(target, reader.at("dst"))
    bits = addresses.bits(target)
    if not prefix.isascii() or not prefix.isdigit() or len(prefix) > 3 or int(prefix) > bits:
        wrong(reader.at("dst"), "a subnet", reader.text("dst"))
    free = bits - int(prefix)
    route: dict[str, Any] = {"dst": f"{addresses.text(addresses.number(target) >> free << free, bits)}/{int(prefix)}"}
    if reader.has("gw") and reader.text("gw"):
        route["gw"] = an_address(reader.text("gw"), reader.at("gw"))
        if addresses.bits(route["gw"]) != bits:
            raise CniError(BAD_CONFIG, f"{reader.at('gw')} is not of the family of dst")
    for key, limit in _METRICS.items():
        if reader.has(key):
            route[key] = reader.number(key, limit=limit)
    return route


def _refuse(reader: Reader) -> None:
    for key in _REFUSED:
        if value := reader.get(key):
            raise CniError(
                UNSUPPORTED_FIELD, f"{key}={value!r} is not supported", "a network of minirun has no such thing"
            )


def _interface_name(reader: Reader, key: str) -> str:
    name = reader.text(key)
    if name and (len(name) > 15 or name in _NO_BRIDGE or not protocol.is_name(name)):
        wrong(reader.at(key), "the name of an interface", name)
    return name


def _dns(reader: Reader) -> dict[str, Any]:
    """The well-known key ``dns``, with what it does not say left out."""
    found: dict[str, Any] = {
        "nameservers": [an_address(a, reader.at("nameservers")) for a in reader.texts("nameservers")]
    }
    found["domain"] = reader.text("domain")
    found.update({key: reader.texts(key) for key in ("search", "options")})
    return {key: value for key, value in found.items() if value}
