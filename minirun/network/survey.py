"""What is plugged into a bridge right now, for ``network inspect``: the only module that imports pyroute2.

Here time does not count and breadth does: pyroute2 knows every attribute of a link. Its import takes 140 ms, so a start
of a container speaks rtnetlink by minirun.linux.netlink instead.
"""

from __future__ import annotations

from pyroute2 import IPRoute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# IFLA_BRPORT_STATE, by the words of bridge(8)
_STATES = ("disabled", "listening", "learning", "forwarding", "blocking")


def ports(bridge: str) -> list[dict[str, Any]]:
    """The ports of a bridge: ``name``, ``alias``, ``state``, and counters in bytes as the host's end sees them."""
    with IPRoute() as route:
        found = route.link_lookup(ifname=bridge)
        links = [link for link in route.get_links() if found and link.get("IFLA_MASTER") == found[0]]
        return [_port(link) for link in links]


def _port(link: Any) -> dict[str, Any]:
    counters = link.get("IFLA_STATS64") or {}
    state = (link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA") or {}).get("IFLA_BRPORT_STATE", 0)
    return {
        "name": link.get("IFLA_IFNAME"),
        "alias": link.get("IFLA_IFALIAS") or "",
        "state": _STATES[state] if state < len(_STATES) else str(state),
        "from_container": counters.get("rx_bytes", 0),
        "to_container": counters.get("tx_bytes", 0),
    }
