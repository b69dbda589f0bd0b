"""What is plugged into a bridge right now, for ``network inspect``: the only module that imports pyroute2.

Here time does not count and breadth does: pyroute2 knows every attribute of a link. Its import takes 140 ms, so a start
of a container speaks rtnetlink by minirun.linux.netlink instead.
"""

from __future__ import annotations

from pyroute2 import IPRoute

from minirun.network.member import trunk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

# IFLA_BRPORT_STATE, by the words of bridge(8)
_STATES = ("disabled", "listening", "learning", "forwarding", "blocking")


def ports(bridges: Collection[str]) -> list[dict[str, Any]]:
    """The ports of some bridges: ``name``, ``bridge``, ``alias``, ``state``, and counters in bytes.

    The counters are as the host's end sees them. Cables between these bridges are left out.
    """
    with IPRoute() as route:
        links = list(route.get_links())
    names = {link["index"]: str(link.get("IFLA_IFNAME")) for link in links}
    plugged = [(names.get(link.get("IFLA_MASTER"), ""), link) for link in links]
    trunks = {end for name in bridges for end in trunk(name)}
    return [_port(link, name) for name, link in plugged if name in bridges and link.get("IFLA_IFNAME") not in trunks]


def _port(link: Any, bridge: str) -> dict[str, Any]:
    counters = link.get("IFLA_STATS64") or {}
    state = (link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA") or {}).get("IFLA_BRPORT_STATE", 0)
    return {
        "name": link.get("IFLA_IFNAME"),
        "bridge": bridge,
        "alias": link.get("IFLA_IFALIAS") or "",
        "state": _STATES[state] if state < len(_STATES) else str(state),
        "from_container": counters.get("rx_bytes", 0),
        "to_container": counters.get("tx_bytes", 0),
    }
