"""Our one nftables table: rules that never change (ruleset.nft) and the elements that do.

The rules are loaded when the kernel says that the table is absent: at first use, and again after somebody's
``nft flush ruleset``. They come back in one transaction together with every element that networks and living
containers should have, so there is no moment in which a published port exists without its rules or the other way.
"""

from __future__ import annotations

import os
from time import monotonic

from minirun import store, strict_json
from minirun.errors import Conflict, InvalidDocument, MinirunError, Unsupported
from minirun.linux import nft
from minirun.linux.nft import Element
from minirun.network import endpoint, helper, ipam, nameservice
from minirun.network import network as networks
from minirun.network.member import trunk
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any, ClassVar

    from minirun.network.ipam import Held
    from minirun.network.network import Network

MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"  # docker's word for it, as an option of a network
RULES = os.path.join(os.path.dirname(__file__), "ruleset.nft")

LEGACY_NAMES = {4: "/proc/net/ip_tables_names", 6: "/proc/net/ip6_tables_names"}  # tables of iptables-legacy

# The sets of ruleset.nft: the family of their table, what a key is made of, and in a map what it leads to.
TABLE = nft.Table(
    "minirun",
    {
        "bridges": ("inet", "ifname", ""),
        "masq_br": ("inet", "ifname", ""),
        "internal": ("inet", "ifname", ""),
        "gateways4": ("inet", "ipv4_addr", ""),
        "gateways6": ("inet", "ipv6_addr", ""),
        "routed": ("inet", "ifname", ""),
        "egress": ("inet", "ifname", "verdict"),
        "peering": ("inet", "ifname . ifname", "verdict"),
        "hairpin4": ("inet", "ipv4_addr . ipv4_addr", ""),
        "hairpin6": ("inet", "ipv6_addr . ipv6_addr", ""),
        "pub4": ("inet", "ipv4_addr . inet_proto . inet_service", "ipv4_addr . inet_service"),
        "pub4_any": ("inet", "inet_proto . inet_service", "ipv4_addr . inet_service"),
        "pub4_range": ("inet", "ipv4_addr . inet_proto . inet_service", "ipv4_addr"),
        "pub6": ("inet", "ipv6_addr . inet_proto . inet_service", "ipv6_addr . inet_service"),
        "pub6_any": ("inet", "inet_proto . inet_service", "ipv6_addr . inet_service"),
        "pub6_range": ("inet", "ipv6_addr . inet_proto . inet_service", "ipv6_addr"),
        "names4": ("inet", "ipv4_addr . inet_proto . inet_service", "ipv4_addr . inet_service"),
        "names6": ("inet", "ipv6_addr . inet_proto . inet_service", "ipv6_addr . inet_service"),
        "members": ("inet", "ifname", ""),
        "trunks": ("bridge", "ifname . ifname", ""),
        "claims4": ("bridge", "ifname . ether_addr . ipv4_addr", ""),
        "claims6": ("bridge", "ifname . ether_addr . ipv6_addr", ""),
        "targets6": ("bridge", "iifname . @th,64,128", ""),
    },
    {"inet": "forward", "bridge": "guard"},
)


def network_elements(network: Network) -> list[list[Any]]:
    """What a network needs in the table, as [set, key, data]."""
    bridge, members = network.bridge, network.members()
    trunks = [near for near, _ in map(trunk, members)]
    return [
        ["bridges", [bridge], []],
        *([["masq_br", [bridge], []]] if masquerades(network) else []),
        *([["internal", [bridge], []]] if network.internal else []),
        *([["routed", [bridge], []]] if network.routed else []),
        *(["gateways4", [pool.gateway], []] for pool in network.ipv4),
        *(["gateways6", [pool.gateway], []] for pool in network.ipv6),
        ["egress", [bridge], ["drop" if network.internal else "accept"]],
        ["peering", [bridge, bridge], ["drop" if network.isolate else "accept"]],
        *(["hairpin4", [str(a.subnet), str(b.subnet)], []] for a in network.ipv4 for b in network.ipv4),
        *(["hairpin6", [str(a.subnet), str(b.subnet)], []] for a in network.ipv6 for b in network.ipv6),
        *(["members", [name], []] for name in members),
        *(["trunks", [name, name], []] for name in trunks),
    ]


def masquerades(network: Network) -> bool:
    """Whether its containers leave with the host's address: unless it is routed, or does not let them out at all."""
    return not network.internal and not network.routed and network.options.get(MASQUERADE, "true") != "false"


class Elements(Step):
    """Elements of our table, added in one transaction: those of a network."""

    kind = "elements"
    fields: ClassVar[tuple[str, ...]] = ("comment", "elements")
    comment: str
    elements: list[list[Any]]

    def parsed(self) -> list[Element]:
        """The elements as the kernel's messages want them."""
        return [Element(name, key, data, self.comment) for name, key, data in self.elements]

    def sh(self) -> str:
        return "\n".join(TABLE.sh("add", element) for element in self.parsed())

    def do(self) -> None:
        _add(self.parsed())

    def undo(self) -> None:
        TABLE.delete(self.parsed())


class Claims(Elements):
    """The elements that say which addresses a port of a bridge may send from. They follow from the leases."""

    kind = "claims"

    def undo(self) -> None:
        TABLE.delete(self.parsed(), own=True)  # each key has the name of the port


class Publish(Elements):
    """The elements of one container: its published ports. Noted in a file, for when the table is made again."""

    kind = "publish"
    fields = ("network", "container", "comment", "elements")
    network: str
    container: str

    def do(self) -> None:
        # Noted first: were it noted after, a flush in between would lose the ports of a living container.
        store.directory(ipam.state_directory(self.network), "published")
        try:
            store.create_whole(self._path(), strict_json.dumps(self.record()))
        except FileExistsError:  # done before, by explain's script or by us
            pass
        try:
            _add(self.parsed())
        except Conflict:  # claim saw it free; so somebody adds elements by hand
            wanted = ", ".join(" . ".join(element.key) for element in self.parsed())
            raise Conflict(f"-p: {wanted}", "another container publishes such a port already") from None
        self._forget_flows()
        from minirun.network import claim

        claim.release()

    def undo(self) -> None:
        try:
            os.unlink(self._path())
        except FileNotFoundError:
            pass
        TABLE.delete(self.parsed())
        self._forget_flows()

    def _forget_flows(self) -> None:
        if any(element[1][-2] != "tcp" for element in self.elements):
            from minirun.network import flows

            flows.forget(self.parsed())

    def _path(self) -> str:
        return f"{ipam.state_directory(self.network)}/published/{self.container}"


class Ruleset(Step):
    """The table itself; it is shared by all networks and goes with the last of them."""

    kind = "ruleset"
    fields = ()

    def sh(self) -> str:
        return f"nft list table inet {TABLE.name} > /dev/null 2>&1 || nft -f {RULES}"

    def do(self) -> None:
        if not TABLE.stands():
            reassert()

    def undo(self) -> None:
        if not any(networks.listing()):
            TABLE.drop()


_seen: list[nft.Chain] = []
_seen_at = 0.0
_FRESH = 0.25  # seconds for which this process believes what it saw: what a command asks twice, it asks at once


def stand() -> None:
    """Put our table back if somebody took it away, one family of it, or its rules; every command asks this first."""
    global _seen, _seen_at
    if not os.access(f"{store.state}/networks", os.F_OK):
        return
    _seen, _seen_at = nft.chains(), monotonic()
    if TABLE.stands(_seen):
        return
    with networks.Lock():  # whoever removes the last network takes the table along
        if any(networks.listing()) and not TABLE.stands():
            reassert()


def others_filter(ipv6: bool = True) -> bool:
    """Whether somebody else has a chain that may stop our packets: mostly not, and a start looks no further.

    That is any chain for forwarded packets, or one that drops what comes in for the host, whose name server is ours.
    """
    seen = _seen if monotonic() - _seen_at < _FRESH else nft.chains()
    if nft.foreign_chains(TABLE.name, nft.NF_INET_FORWARD, seen):
        return True
    if any(chain.drops for chain in nft.foreign_chains(TABLE.name, nft.NF_INET_LOCAL_IN, seen)):
        return True
    return any(b"filter" in _head(path) for family, path in LEGACY_NAMES.items() if family == 4 or ipv6)


def _head(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # nobody has used iptables-legacy since the machine came up
        return b""
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def reassert() -> int:
    """Load the rules with every element that should be there, and take away what should not.

    The rules are replaced and missing elements added in one transaction; what is right stays. So a packet meets the old
    rules or the new ones, and finds every element. (Were the tables deleted and made again in one transaction, a packet
    that is just in an old chain would find its maps empty: the kernel asks for the generation at each look-up.)
    Connections stay, as they are not part of a table. Returns how many elements there are. Under ``networks.Lock``: the
    elements of a network go before its record does.
    """
    before = _by_key()
    try:
        helper.run(["nft", "-f", "-"], "nftables", _script("flush", before.values()))
    except Unsupported:
        raise
    except MinirunError:  # a set of another version of ours, an element with other data: made anew it has neither
        helper.run(["nft", "-f", "-"], "nftables", _script("delete", before.values()))
    # Who started or ended since we read: what it did may be lost, but its files tell, as they come and go first.
    present = TABLE.content()
    after = _by_key()
    try:
        TABLE.prune(present, list(after.values()))
        _restore([element for key, element in after.items() if key not in before])
        final = _by_key()
        TABLE.delete([element for key, element in after.items() if key not in final])
    except FileNotFoundError:
        pass  # it is all gone again
    return len(after)


def _restore(elements: Sequence[Element]) -> None:
    """Add elements, but those whose key another container has meanwhile: whoever wants such a one is told so itself."""
    try:
        TABLE.add(elements)
    except FileExistsError:
        for element in elements:
            try:
                TABLE.add([element])
            except FileExistsError:
                continue


def _script(verb: str, elements: Iterable[Element]) -> str:
    """What nft(8) does in one transaction, after it emptied our tables of rules (``flush``), or removed them."""
    lines = [f"add table {family} {TABLE.name}\n{verb} table {family} {TABLE.name}" for family in TABLE.families]
    rules = store.read(RULES) or ""
    lines.append(rules.replace("\ncreate table", "\nadd table") if verb == "flush" else rules)
    sets: dict[str, list[str]] = {}
    for element in elements:
        sets.setdefault(element.set, []).append(TABLE.written(element))
    for name, members in sets.items():
        lines.append(f"add element {TABLE.sets[name][0]} {TABLE.name} {name} {{ {', '.join(members)} }}")
    return "\n".join(lines) + "\n"


def _by_key() -> dict[tuple[str, ...], Element]:
    """Every element that should be there; of two that claim one key the first gets it: better than refusing both."""
    found: dict[tuple[str, ...], Element] = {}
    for element in _known():
        found.setdefault((element.set, *element.key), element)
    return found


def _known() -> Iterator[Element]:
    for network in networks.listing():
        elements = network_elements(network) + nameservice.elements(network.name)
        yield from Elements(networks.comment(network.name), elements).parsed()
        for address, lease in ipam.held(network.name).items():
            if network.guarded and (claims := claims_of(address, lease)):
                yield from claims.parsed()
        folder = f"{ipam.state_directory(network.name)}/published"
        for name in store.entries(folder):
            publish = store.read_json(f"{folder}/{name}")
            if publish:
                yield from _noted(f"{folder}/{name}", publish)


def _noted(path: str, record: list[Any]) -> list[Element]:
    """The elements of a published note. Raises InvalidDocument if it is not one."""
    try:
        found = Publish(*record[1:]).parsed()
        if all(element.set in TABLE.sets for element in found):
            return found
    except (TypeError, ValueError, AttributeError):
        pass
    raise InvalidDocument(path, "not a note of published ports")


def claims_of(address: str, lease: Held) -> Claims | None:
    """What a lease lets its holder say; None for one that notes no port."""
    port, names = lease.notes.get("port"), lease.notes.get("names", "").split()
    if not port:
        return None
    mac = lease.notes.get("mac") or endpoint.mac_address(address)
    label = f"{names[0] if names else ''} {lease.owner[:12]}"
    return Claims(label, endpoint.claims(port, mac, [address]))


def _add(elements: Sequence[Element]) -> None:
    try:
        try:
            TABLE.add(elements)
        except FileNotFoundError:
            with networks.Lock():  # else the elements of a network that is just being removed would stay
                reassert()
                TABLE.add(elements)
    except FileExistsError as error:
        raise Conflict(f"{error.filename}", "another container or network has this key") from None
    except FileNotFoundError as error:
        raise MinirunError(
            f"nftables table inet {TABLE.name}", f"lacks {error.filename}", "remove it, the next command puts it back"
        ) from None
