"""DEL and GC: the end of one attachment, and of all those that their runtime does not name as valid.

A runtime that lost its memory, or a machine that lost its runtime, leaves attachments whose DEL never comes. Not only
records are looked at: a lease, a published port and a cable tell whose they are by themselves. What belongs to a
container of minirun, or to an attachment of another network, is never touched.
"""

from __future__ import annotations

import os

from minirun import store
from minirun.errors import MinirunError
from minirun.linux import netlink
from minirun.network import ipam, nat
from minirun.network import network as networks_of_minirun
from minirun.network.addresses import IPV4, IPV6, text
from minirun.network.cni import attachments, networks, plug
from minirun.network.cni.attachments import Lock
from minirun.network.cni.protocol import PARTLY, CniError
from minirun.network.endpoint import claims, host_end, link_local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minirun.network.cni.config import Config
    from minirun.network.cni.protocol import Request

_HEX = frozenset("0123456789abcdef")


def delete(request: Request, config: Config) -> None:
    """End an attachment, whatever of it is still there."""
    attachments.begin_boot()
    attachments.reconcile()
    owner = attachments.identity(config.name, request.container, request.interface)
    with Lock(owner):
        failures = attachments.forget(networks.name_of(config), owner)
        if failures:
            raise failures[0]


def collect(config: Config) -> None:
    """Remove what is stale. Raises CniError, code 103, if something of it remains; the rest is gone nevertheless."""
    from minirun.network.cni.result import valid_attachments

    keys = valid_attachments(config.document)
    valid = {attachments.identity(config.name, container, interface) for container, interface in keys}
    attachments.begin_boot()
    failures: list[object] = [*attachments.reconcile()]
    name = networks.name_of(config)
    stale = [record["id"] for record in attachments.records(name)]
    stale += [owner for owner in _strays(name) if owner not in stale]
    for owner in stale:
        if owner not in valid:
            failures += _remove(name, owner)
    _cut_strays(name, {owner[:12] for owner in valid})
    if failures:
        raise CniError(PARTLY, f"{len(failures)} things of network {config.name} remain", f"{failures[0]}")


def _remove(network: str, owner: str) -> list[object]:
    try:
        lock = Lock(owner, wait=False)
    except BlockingIOError:
        return []  # somebody is at work on it just now
    try:
        failures: list[object] = [*attachments.forget(network, owner)]
        if not failures:
            lock.drop()
        return failures
    except (OSError, MinirunError) as error:
        return [error]
    finally:
        os.close(lock.descriptor)


def _cut_strays(network: str, valid: set[str]) -> None:
    """Remove cables that are plugged into the network and belong to nobody, with what the firewall knows of them.

    Their state was lost altogether; the digits in a cable's name tell whose it would be.
    """
    made = networks_of_minirun.load(network)
    if made is None:
        return
    places = (f"{store.root}/containers", f"{store.state}/containers", f"{store.state}/locks")
    with netlink.shared() as socket:  # before the records are: whoever begins meanwhile has a record before a cable
        links = [netlink.Link(body) for body in socket.ask(netlink.get_links())]
    known = valid | {name[:12] for place in places for name in store.entries(place)}
    known |= {name[:12] for name in attachments.owners()}
    bridges = {link.index for link in links if link.name == made.bridge or link.name in made.members()}
    for link in links:
        digits = link.name.removeprefix("mr")[:12]
        if link.master in bridges and link.name == host_end(digits) and _HEX.issuperset(digits) and digits not in known:
            plug.remove_cable(digits)
            nat.Claims("", _claims(link.name)).undo()


def _claims(port: str) -> list[list[Any]]:
    """What the firewall still knows of a port: a key is its name, a MAC and an address, in registers of 4 bytes."""
    name, held, mac = port.encode().ljust(16, b"\0"), set(), ""
    for kind, bits in (("claims4", IPV4), ("claims6", IPV6)):
        for key, _, _ in nat.TABLE.dump(kind):
            if key[:16] == name:
                mac = key[16:22].hex(":")
                held.add(text(int.from_bytes(key[24:], "big"), bits))
    return claims(port, mac, sorted(held - {link_local(mac), "0.0.0.0", "::"})) if held else []


def _strays(network: str) -> list[str]:
    """Who has a lease or a published port of the network, and is neither a container nor a recorded attachment."""
    found = {*ipam.leases(network).values()}
    found |= {*store.entries(f"{ipam.state_directory(network)}/published")}
    known = attachments.owners()
    return sorted(owner for owner in found if _is_id(owner) and owner not in known and not _is_container(owner))


def _is_id(text: str) -> bool:
    return len(text) == 64 and _HEX.issuperset(text)


def _is_container(owner: str) -> bool:
    """Whether minirun has a container of that id, or is just making or removing one."""
    places = (f"{store.root}/containers", f"{store.state}/containers", f"{store.state}/locks")
    return any(os.path.exists(f"{place}/{owner}") for place in places)
