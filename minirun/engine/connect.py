"""A container's networks: which addresses it gets on each, and what follows from them."""

from __future__ import annotations

from minirun.errors import UsageError
from minirun.network import endpoint, ipam
from minirun.network.addresses import IPV4, IPV6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minirun.engine.options import Attachment, RunOptions
    from minirun.network.endpoint import Endpoint
    from minirun.network.network import Network

    # network, owner, notes, family, the wanted address or None: the address
    Lease = Callable[[Network, str, Sequence[str], int, str | None], str]


def endpoints(
    identity: str, name: str, options: RunOptions, networks: Sequence[Network], lease: Lease
) -> list[Endpoint]:
    """A plug in each network, with addresses that ``lease`` (``ipam.allocate`` or ``propose``) gives."""
    found = [
        plug(identity, name, place, wanted, network, lease)
        for place, (wanted, network) in enumerate(zip(options.networks, networks, strict=True))
    ]
    endpoint.keep_one_default_route(found)
    return found


def plug(identity: str, name: str, place: int, wanted: Attachment, network: Network, lease: Lease) -> Endpoint:
    """One plug: an address of each family that the network has."""
    if wanted.address6 and not network.ipv6:
        raise UsageError(f"--ip6 {wanted.address6}", f"network {network.name} has no IPv6")
    leased: list[str] = []
    port, names = endpoint.host_end(identity, place), [name, identity[:12], *wanted.aliases]
    try:
        for bits, address in ((IPV4, wanted.address), (IPV6, wanted.address6)):
            if network.of_family(bits):
                # The MAC follows from the first address: the lease of that one need not say it.
                mac = wanted.mac or (endpoint.mac_address(leased[0]) if leased else "")
                notes = endpoint.lease_notes(port, mac, names)
                leased.append(lease(network, identity, notes, bits, address or None))
    except BaseException:  # all of them, or none
        for address in leased:
            ipam.release(network.name, address, identity)
        raise
    result = endpoint.decide(network, identity, place, leased, wanted.mac, wanted.interface)
    result.aliases = wanted.aliases
    return result


def propose(network: Network, owner: str, notes: Sequence[str], bits: int, address: str | None) -> str:
    """``ipam.propose`` as a ``Lease``: for ``explain``, which leases nothing."""
    return ipam.propose(network, bits, address)
