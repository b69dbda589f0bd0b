"""Who is on a network, for ``network inspect``: told by the leases, and by the notes of published ports."""

from __future__ import annotations

from minirun import store
from minirun.network import endpoint, ipam
from minirun.network.network import Network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def guests(network: Network) -> dict[str, dict[str, Any]]:
    """By id: name, aliases, host end, MAC, addresses with the length of their prefix, elements of published ports."""
    found: dict[str, dict[str, Any]] = {}
    folder = f"{ipam.state_directory(network.name)}/published"
    for address, lease in ipam.held(network.name).items():
        pool = network.pool(address)
        names = lease.notes.get("names", "").split()
        guest = found.setdefault(
            lease.owner,
            {
                "name": names[0] if names else "",
                "aliases": [name for name in names[1:] if name != lease.owner[:12]],
                "port": lease.notes.get("port", ""),
                "mac": lease.notes.get("mac") or endpoint.mac_address(address),
                "addresses": [],
                "published": [],
            },
        )
        guest["addresses"].append(f"{address}/{pool.subnet.prefix}" if pool else address)
    for identity, guest in found.items():
        record = store.read_json(f"{folder}/{identity}")
        guest["published"] = record[-1] if record else []
    return found
