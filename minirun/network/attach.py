"""One container's place in the networks: its namespace, its cables to bridges, its addresses.

    host namespace                                    container's namespace, /run/netns/<name>
    br0 10.201.0.1 ── mr3f9a12ab34cd ═══ veth ═══════ eth0 10.201.0.2, default via 10.201.0.1

``attach_steps`` decides nothing and asks nothing: given endpoints and ports it says what has to be done. The order of
the steps is forced: the firewall knows who is behind a port before the port can speak, the cable's far end is born
inside the namespace, the address needs the cable, and a port is published when something can answer behind it. Taking
apart is dropping the namespace: the kernel then removes the cables by itself, later and in bulk, while deleting one by
name would make us wait 16-29 ms.
"""

from __future__ import annotations

from minirun.network.addresses import bits
from minirun.network.cable import Carrier, Interface, Rates, Veth
from minirun.network.ipam import Lease
from minirun.network.member import Member, Seat
from minirun.network.nameservice import Names
from minirun.network.nat import Claims, Publish
from minirun.network.netns import Netns, netns_path, owner_tag
from minirun.network.network import comment as network_comment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minirun.network.endpoint import Endpoint
    from minirun.network.ports import Port
    from minirun.step import Step


def attach_steps(
    container_id: str, container_name: str, endpoints: Sequence[Endpoint], published: Sequence[Port]
) -> list[Step]:
    """The steps that give a container its namespace, an interface on each network, and its ports."""
    steps: list[Step] = [Netns(container_name, owner_tag(container_id))]
    for each in endpoints:
        steps += plug_steps(container_id, container_name, each, netns_path(container_name))
    steps.append(Names([each.network for each in endpoints]))
    if published:
        steps += publish_steps(container_id, container_name, endpoints, published)
    return steps


def publish_steps(
    container_id: str,
    container_name: str,
    endpoints: Sequence[Endpoint],
    published: Sequence[Port],
    process: tuple[int, int] | None = None,
) -> list[Step]:
    """The steps that let ports of the host lead to the container: to its addresses on the ways out.

    ``process`` is its first one (pid, start), if it runs already.
    """
    from minirun.network import ports

    ways = [each for each in endpoints if each.gateways]
    inside = [each.address(bits(gateway)) for each in ways for gateway in each.gateways]
    whose = ways[0].network, container_id, comment(container_id, container_name)
    elements = [element for port in published for element in port.elements(inside)]
    steps: list[Step] = [Publish(*whose, elements)] if elements else []
    proxied = ports.proxied(published)
    if proxied:
        from minirun.network import proxy

        steps.append(proxy.step(*whose, proxied, inside, process))
    return steps


def plug_steps(container_id: str, container_name: str, plug: Endpoint, netns: str) -> list[Step]:
    """The steps that put one more interface into a namespace."""
    label = comment(container_id, container_name)
    leased = [address.partition("/")[0] for address in plug.addresses]
    member = Member(plug.bridge, plug.uplink, plug.mtu, network_comment(plug.network), plug.isolated)
    return [
        # Undone after the leases: whoever loads all claims anew at that moment finds none of us.
        *([Claims(label, plug.claims())] if plug.guarded else []),
        *(
            Lease(plug.network, address, container_id, plug.notes(container_id, container_name, address))
            for address in leased
        ),
        *([member] if plug.uplink else []),
        Veth(plug.port, plug.bridge, plug.interface, netns, plug.mac, plug.mtu, label, plug.isolated, plug.guarded),
        *([Seat(plug.port, plug.mac)] if plug.uplink else []),
        *([Rates(plug.port, plug.rate_in, plug.rate_out, plug.mtu, label)] if plug.rate_in or plug.rate_out else []),
        Interface(netns, plug.interface, plug.addresses, plug.gateways),
        Carrier(plug.port, plug.bridge),
    ]


def isolated_steps(container_id: str, container_name: str) -> list[Step]:
    """The steps of ``--net none``: a namespace with nothing but lo."""
    return [
        Netns(container_name, owner_tag(container_id)),
        Interface(netns_path(container_name), "", [], []),
    ]


def comment(container_id: str, container_name: str) -> str:
    """What ``ip link`` and ``nft list`` show as the owner; cut so that the id always fits (nft: 128 bytes)."""
    return f"{container_name[:100]} {container_id[:12]}"
