"""CHECK and STATUS: whether an attachment is as it was told to be, and whether a network can take one more.

They look and change nothing. CHECK compares with ``prevResult``, the last word of the whole chain, as the specification
asks; of routes only those are missed that we made ourselves, since a later plugin may have changed the others.
"""

from __future__ import annotations

import os
from errno import ENODEV

from minirun import step
from minirun.errors import Conflict, MinirunError, UsageError
from minirun.linux import netlink
from minirun.network import addresses, bridge, ipam, nat
from minirun.network.cable import Rates
from minirun.network.cni import attachments, networks
from minirun.network.cni.add import namespace
from minirun.network.cni.protocol import (
    BAD_CONFIG,
    CHECK_FAILED,
    LIMITED,
    NOT_AVAILABLE,
    UNKNOWN_CONTAINER,
    CniError,
)
from minirun.network.cni.result import previous
from minirun.network.endpoint import Endpoint
from minirun.network.nat import Claims, Publish

IFLA_QDISC = 6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from minirun.network.cni.config import Config
    from minirun.network.cni.protocol import Request
    from minirun.network.cni.result import Result
    from minirun.network.network import Network


def check(request: Request, config: Config) -> None:
    """Raise CniError if anything of an attachment is not as it should be."""
    before = previous(config.document)
    if before is None:
        raise CniError(BAD_CONFIG, "prevResult is missing", "CHECK compares with the result of ADD")
    found = namespace(request)
    owner = attachments.identity(config.name, request.container, request.interface)
    network = networks.load(config)
    record = attachments.load(network.name, owner) if network else None
    if network is None or record is None:
        text = f"{request.interface} of container {request.container} is not attached to {config.name}"
        raise CniError(UNKNOWN_CONTAINER, text)
    wrong = [*_outside(network, record, owner)]
    if [found.st_dev, found.st_ino] != record["namespace"]:
        wrong.append(f"{request.netns} is another namespace than at ADD")
    else:
        wrong += _inside(request, before, record)
    if wrong:
        raise CniError(CHECK_FAILED, wrong[0], "; ".join(wrong[1:]))


def _outside(network: Network, record: dict[str, Any], owner: str) -> Iterator[str]:
    """What is wrong on the host: bridge, cable, leases, elements."""
    plugged = Endpoint.from_record(record["endpoint"])
    try:
        yield from (f"network {network.name} lacks its {one.kind}" for one in bridge.missing(network))
    except Conflict as error:
        yield str(error)
    with netlink.shared() as socket:
        port, master = netlink.find_link(socket, plugged.port), netlink.find_link(socket, plugged.bridge)
    if port is None:
        yield f"the cable {plugged.port} is gone"
    elif not port.up or master is None or port.master != master.index:
        yield f"{plugged.port} is down" if not port.up else f"{plugged.port} is not plugged into {plugged.bridge}"
    for address in (text.partition("/")[0] for text in plugged.addresses):
        if ipam.owner_of(network.name, address) != owner:
            yield f"the lease of {address} is gone, or another's"
    for one in map(step.load, record["plan"]):
        if isinstance(one, Claims | Publish) and not nat.TABLE.has(one.parsed()):
            yield f"elements of the firewall are missing ({one.kind})"
        if isinstance(one, Rates):
            wanted = [one.host] * bool(one.rate_in) + [one.detour] * bool(one.rate_out)
            yield from (f"{name} has no limit of its rate" for name in wanted if not _is_limited(name))


def _is_limited(name: str) -> bool:
    """Whether what leaves by an interface is queued by a token bucket."""
    with netlink.shared() as socket:
        try:
            (body,) = socket.ask(netlink.get_link(name))
        except OSError as error:
            if error.errno == ENODEV:
                return False
            raise
    return dict(netlink.attributes(body, netlink.link_header.size)).get(IFLA_QDISC) == b"tbf\0"


def _inside(request: Request, before: Result, record: dict[str, Any]) -> Iterator[str]:
    """What is wrong in the container: the interface, its MAC, its addresses, its routes."""
    told = next((n for n, one in enumerate(before.interfaces) if _is(one, request)), None)
    if told is None:
        yield f"prevResult has no interface {request.interface} in {request.netns}"
        return
    with netlink.Socket(netns=request.netns) as socket:
        link = netlink.find_link(socket, request.interface)
        if link is None:
            yield f"the container has no interface {request.interface}"
            return
        held = {one.interface for one in netlink.addresses(socket) if one.index == link.index}
        routes = [r for family in (netlink.AF_INET, netlink.AF_INET6) for r in netlink.routes(socket, family)]
    if not link.up:
        yield f"{request.interface} is down"
    wanted = before.interfaces[told].get("mac")
    if wanted and wanted.lower() != link.mac:
        yield f"{request.interface} has the MAC {link.mac} and not {wanted}"
    if link.mac != record["endpoint"]["mac"]:
        yield f"the firewall lets nothing of the MAC {link.mac} pass: ask us for it, by the capability mac"
    for ip in before.ips:
        if ip.get("interface", told) == told and ip["address"] not in held:
            yield f"{request.interface} lacks the address {ip['address']}"
    ours = {route["dst"] for route in record["routes"]}
    there = {(route.destination, route.prefix) for route in routes if route.link == link.index}
    for route in before.routes:
        target, _, prefix = route["dst"].partition("/")
        if route["dst"] in ours and (addresses.number(target), int(prefix)) not in there:
            yield f"the route to {route['dst']} is gone"


def _is(interface: dict[str, Any], request: Request) -> bool:
    return interface.get("name") == request.interface and interface.get("sandbox") == request.netns


def status(config: Config) -> None:
    """Raise CniError, code 50, if the network cannot take another container; 51 if those that are there suffer, too."""
    if os.geteuid():
        raise CniError(NOT_AVAILABLE, "not root: no interface can be made")
    network = networks.load(config)
    try:
        if network is None:
            networks.preview(config)
            return
        steps = bridge.missing(network)
    except (Conflict, UsageError, OSError) as error:
        raise CniError(NOT_AVAILABLE, f"network {config.name} is not available", f"{error}") from None
    if steps and any(attachments.records(network.name)):
        lacks = ", ".join(one.kind for one in steps)
        raise CniError(LIMITED, f"network {network.name} lacks its {lacks}", "the next ADD puts it back")
    for bits in {pool.subnet.bits for pool in network.pools}:
        if not _has_room(network, bits):
            raise CniError(NOT_AVAILABLE, f"network {network.name} has no free address", "containers must end first")


def _has_room(network: Network, bits: int) -> bool:
    try:
        ipam.propose(network, bits)
    except MinirunError:
        return False
    return True
