"""GC: everything of a network's attachments that its runtime does not name as valid is removed.

A runtime that lost its memory, or a machine that lost its runtime, leaves attachments whose DEL never comes. Not only
records are looked at: a lease, a published port and a cable tell whose they are by themselves. What belongs to a
container of minirun, or to an attachment of another network, is never touched.
"""

from __future__ import annotations

import os

from minirun import store
from minirun.errors import MinirunError
from minirun.network import ipam
from minirun.network.cni import attachments, networks
from minirun.network.cni.attachments import Lock
from minirun.network.cni.protocol import PARTLY, CniError
from minirun.network.cni.result import valid_attachments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minirun.network.cni.config import Config

_HEX = frozenset("0123456789abcdef")


def collect(config: Config) -> None:
    """Remove what is stale. Raises CniError, code 103, if something of it remains; the rest is gone nevertheless."""
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
