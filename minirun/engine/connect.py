"""A container's networks: which addresses it gets on each, and what follows from them."""

from __future__ import annotations

from minirun.errors import Conflict, UsageError
from minirun.network import endpoint, ipam, nat
from minirun.network.addresses import IPV4, IPV6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minirun.engine.options import Attachment, RunOptions
    from minirun.network.endpoint import Endpoint
    from minirun.network.network import Network
    from minirun.network.ports import Port

    # network, owner, notes, family, the wanted address or None: the address
    Lease = Callable[[Network, str, Sequence[str], int, str | None], str]

OTHER = "choose another one, or leave it out"


def endpoints(
    identity: str, name: str, options: RunOptions, networks: Sequence[Network], lease: Lease
) -> list[Endpoint]:
    """A plug in each network, with addresses that ``lease`` (``ipam.allocate`` or ``propose``) gives."""
    found = []
    names = interfaces([wanted.interface for wanted in options.networks])
    for place, (wanted, network) in enumerate(zip(options.networks, networks, strict=True)):
        found.append(plug(identity, name, place, wanted, names[place], network, lease, options.dns))
    endpoint.keep_one_default_route(found)
    return found


def interfaces(wanted: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """The name of each interface: what was asked for, else eth0, eth1 ..., whichever is free next."""
    free = (name for number in range(1000) if (name := f"eth{number}") not in wanted and name not in taken)
    return [name or next(free) for name in wanted]


def plug(
    identity: str,
    name: str,
    place: int,
    wanted: Attachment,
    interface: str,
    network: Network,
    lease: Lease,
    dns: Sequence[str] = (),
) -> Endpoint:
    """One plug: an address of each family that the network has. Raises UsageError, Conflict."""
    for bits, flag, address in ((IPV4, "--ip", wanted.address), (IPV6, "--ip6", wanted.address6)):
        if address and not network.of_family(bits):
            raise UsageError(f"{flag} {address}", f"network {network.name} has no IPv{6 if bits == IPV6 else 4}")
    if wanted.mac:
        _check_mac(network, wanted, identity)
    leased: list[str] = []
    port, names = endpoint.host_end(identity, place), [name, identity[:12], *wanted.aliases]
    try:
        for bits, address in ((IPV4, wanted.address), (IPV6, wanted.address6)):
            if network.of_family(bits):
                # The MAC follows from the first address: the lease of that one need not say it.
                mac = wanted.mac or (endpoint.mac_address(leased[0]) if leased else "")
                notes = endpoint.lease_notes(port, mac, names, dns)
                leased.append(lease(network, identity, notes, bits, address or None))
        if wanted.mac:  # somebody who asks for the same at the same time sees our lease, or we see theirs
            _check_mac(network, wanted, identity)
    except BaseException:  # all of them, or none
        for address in leased:
            ipam.release(network.name, address, identity)
        raise
    result = endpoint.decide(network, identity, place, leased, wanted.mac, interface)
    result.aliases, result.rate_in, result.rate_out = wanted.aliases, wanted.rate_in, wanted.rate_out
    result.dns = list(dns)
    return result


def _check_mac(network: Network, wanted: Attachment, identity: str) -> None:
    """Refuse a MAC that somebody on the network has, or will have by its address. Raises Conflict, UsageError."""
    if wanted.mac == network.mac:
        raise Conflict(f"--mac-address {wanted.mac}", f"it is that of the bridge of network {network.name}", OTHER)
    if wanted.mac.startswith(endpoint.GIVEN) and wanted.mac != endpoint.mac_address(wanted.address or "0.0.0.0"):
        remedy = "choose another one, such as 02:42:0a:00:00:02"
        raise UsageError(f"--mac-address {wanted.mac}", "minirun makes such ones of addresses", remedy)
    for address, held in ipam.held(network.name).items():
        if held.owner != identity and (held.notes.get("mac") or endpoint.mac_address(address)) == wanted.mac:
            names = held.notes.get("names", held.owner[:12])
            why = f"container {names.split()[0]} has it on {network.name}"
            raise Conflict(f"--mac-address {wanted.mac}", why, OTHER)


def pass_firewalls(networks: Sequence[Network], ports: Sequence[Port], wish: str, warn: Callable[[str], None]) -> None:
    """Say that somebody else's firewall stops the container's packets, or open it, or refuse: as it was asked for.

    What counts is the network that has the way out, and the published ports; ``wish`` is one of ``gate``'s words.
    Raises Conflict.
    """
    if not wish and not nat.others_filter(any(network.ipv6 for network in networks)):
        return
    from minirun.network.foreign import gate

    network = next((network for network in networks if not network.internal), networks[0])
    published = [(port.protocol, port.container_port) for port in ports]
    gate.pass_through(network, published, wish, warn)


def propose(network: Network, owner: str, notes: Sequence[str], bits: int, address: str | None) -> str:
    """``ipam.propose`` as a ``Lease``: for ``explain``, which leases nothing."""
    return ipam.propose(network, bits, address)
