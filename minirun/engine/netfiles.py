"""The files of a living container that name its network: hosts and resolv.conf, when its networks change.

They are mounted into the container, which may have written anything to them. So they keep their inode, and only the
lines are changed that are ours: the container's own addresses in hosts, the name servers of our networks in
resolv.conf. What is no text of ours, or no file any more, is the container's own affair.
"""

from __future__ import annotations

import os
import stat

from minirun import store
from minirun.network import names
from minirun.network import network as networks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from minirun.engine.record import Container
    from minirun.network.endpoint import Endpoint

LARGEST = 1 << 16  # bytes; a file that the container made larger is its own affair


def update(container: Container, record: dict[str, Any], endpoints: Sequence[Endpoint]) -> None:
    """Bring the files up to date with the networks that the container has now."""
    own = [address.partition("/")[0] for each in endpoints for address in each.addresses]
    servers = [server for each in endpoints for server in each.nameservers]
    internal = not any(each.gateways for each in endpoints)
    fresh = names.resolv_conf(servers, record["DnsSearch"], record["DnsOptions"], internal)
    label = " ".join(dict.fromkeys((record["Hostname"], record["Name"])))
    _rewrite(f"{container.live}/hosts", lambda text: _hosts(text, label, own))
    _rewrite(f"{container.live}/resolv.conf", lambda text: _resolv_conf(text, servers, fresh))


def _hosts(text: str, label: str, own: Sequence[str]) -> str:
    localhost6 = "::1\tlocalhost ip6-localhost ip6-loopback"
    kept = [line for line in _lines(text) if line.partition("\t")[2] != label and line != localhost6]
    at = 1 if kept[:1] == ["127.0.0.1\tlocalhost"] else 0
    ours = [localhost6] if any(":" in address for address in own) else []
    ours += [f"{address}\t{label}" for address in own or ["127.0.0.1"]]
    return "\n".join([*kept[:at], *ours, *kept[at:]]) + "\n"


def _resolv_conf(text: str, servers: Sequence[str], fresh: str) -> str:
    lines = _lines(text)
    known = {pool.gateway for network in networks.listing() for pool in network.pools}
    ours = [line for line in lines if line[:11] == "nameserver " and known.issuperset(line.split()[1:2] or [""])]
    if not lines or not servers:  # there was nobody to ask, or is nobody now
        return fresh if ours or not lines else text
    others = [line for line in lines if line not in ours]
    if not ours:  # the container has written its own
        return text
    return "\n".join([f"nameserver {server}" for server in servers[: names.MAX_SERVERS]] + others) + "\n"


def _lines(text: str) -> list[str]:
    """The lines as resolv.conf(5) and hosts(5) have them: str.splitlines() knows more ends than theirs."""
    return text.removesuffix("\n").split("\n") if text else []


def _rewrite(path: str, change: Callable[[str], str]) -> None:
    """Change a file where it is, if there is anything to change."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags)
    except OSError:  # none, or a link, a device, a directory
        return
    try:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode) or seen.st_size > LARGEST:
            return
        text = os.pread(descriptor, LARGEST, 0).decode("utf-8", "surrogateescape")
        new = change(text).encode("utf-8", "surrogateescape")
        if new != text.encode("utf-8", "surrogateescape"):
            # In this order: killed in between, the file has a tail too many, and not nothing in it.
            store.write_all(descriptor, new)
            os.ftruncate(descriptor, len(new))
    finally:
        os.close(descriptor)
