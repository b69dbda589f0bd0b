"""ADD: an interface in the namespace of another engine."""

from __future__ import annotations

import os
from errno import EINVAL
from time import time

from minirun import step, store
from minirun.linux import netlink
from minirun.network import attach, endpoint, ipam, owners
from minirun.network.addresses import IPV4, IPV6
from minirun.network.addresses import bits as family
from minirun.network.cni import attachments, networks, plug
from minirun.network.cni.attachments import Lock
from minirun.network.cni.config import DEFAULT_ROUTES
from minirun.network.cni.protocol import BAD_CONFIG, BAD_ENVIRONMENT, TAKEN, UNKNOWN_CONTAINER, CniError
from minirun.network.cni.result import Result, previous
from minirun.network.cni.wishes import Wishes
from minirun.network.endpoint import Endpoint
from minirun.network.nameservice import Names
from minirun.network.nat import Publish
from minirun.network.ports import Port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minirun.network.cni.config import Config
    from minirun.network.cni.protocol import Request
    from minirun.network.network import Network


def add(request: Request, config: Config) -> dict[str, Any]:
    """Make the interface and return the result's document; on any error nothing of it is left."""
    before = previous(config.document)
    wishes = Wishes(config.document, request.arguments)
    namespace(request)
    attachments.begin_boot()
    attachments.reconcile()
    owner = attachments.identity(config.name, request.container, request.interface)
    network = networks.ensure(config)
    with Lock(owner) as lock:
        record = _record(request, config, wishes, network, owner)
        try:
            attachments.begin(record)
        except FileExistsError:
            lock.drop()
            text = f"{request.interface} of container {request.container} is attached to {config.name} already"
            raise CniError(TAKEN, text, "a runtime calls DEL before it calls ADD again") from None
        try:
            steps = _decide(request, config, wishes, network, record)
            attachments.save(record)
            step.do_all(steps)
            plugged = Endpoint.from_record(record["endpoint"])
            result = _result(request, config, wishes, network, plugged, record["routes"])
            document = (result.behind(before) if before else result).document(config.version)
        except BaseException:
            if not attachments.forget(network.name, owner):
                lock.drop()
            raise
    return document


def namespace(request: Request) -> os.stat_result:
    """Whose interface it shall be: what CNI_NETNS leads to. Raises CniError, code 3 or 4."""
    try:
        found, ours = os.stat(request.netns), os.stat("/proc/self/ns/net")
    except OSError as error:
        text = f"CNI_NETNS {request.netns}: {error.strerror}"
        raise CniError(UNKNOWN_CONTAINER, text, "the container is gone, or was never there") from None
    if found.st_dev != ours.st_dev:
        raise CniError(BAD_ENVIRONMENT, f"CNI_NETNS {request.netns} is not a network namespace")
    if os.path.samestat(found, ours) and not request.shares_ours:
        raise CniError(BAD_ENVIRONMENT, f"CNI_NETNS {request.netns} is the network namespace of the host itself")
    return found


def _entered(request: Request) -> netlink.Socket:
    try:
        return netlink.shared(netns=request.netns)
    except OSError as error:
        if error.errno != EINVAL:  # setns(2): of another kind
            raise
        raise CniError(BAD_ENVIRONMENT, f"CNI_NETNS {request.netns} is not a network namespace") from None


def _record(request: Request, config: Config, wishes: Wishes, network: Network, owner: str) -> dict[str, Any]:
    """The record of an attachment of which nothing is decided yet."""
    found = namespace(request)
    return {
        "id": owner,
        "network": network.name,
        "cniNetwork": config.name,
        "container": request.container,
        "interface": request.interface,
        "name": wishes.name,
        "netns": request.netns,
        "namespace": [found.st_dev, found.st_ino],
        "boot": store.read(owners.BOOT_ID),
        "created": time(),
        "plan": [],
    }


def _decide(
    request: Request, config: Config, wishes: Wishes, network: Network, record: dict[str, Any]
) -> list[step.Step]:
    """Lease addresses and make the plan; both are noted in ``record``."""
    owner, name = record["id"], wishes.name or request.container
    with _entered(request) as socket:
        if netlink.find_link(socket, request.interface):
            raise CniError(TAKEN, f"the container has an interface {request.interface} already")
        plugged = _endpoint(request, wishes, network, owner, name)
        routes = _routes(socket, config, network, plugged)
    simple = [route for route in routes if len(route) == 2 and route["dst"] in DEFAULT_ROUTES.values()]
    plugged.gateways = [route["gw"] for route in simple]
    others, alive = [route for route in routes if route not in simple], attachments.alive(network.name, owner)
    steps = plug.steps(owner, name, plugged, request.netns, others, alive)
    if config.names:
        steps.append(Names([network.name]))
    published = _claimed(wishes, network)
    if published:
        inside = [address.partition("/")[0] for address in plugged.addresses]
        elements = [element for port in published for element in port.elements(inside)]
        steps.append(Publish(network.name, owner, attach.comment(owner, name), elements))
    record["endpoint"], record["routes"] = plugged.record(), routes
    record["ports"], record["plan"] = [port.record() for port in published], [one.record() for one in steps]
    return steps


def _endpoint(request: Request, wishes: Wishes, network: Network, owner: str, name: str) -> Endpoint:
    asked = {family(address): address for address in wishes.addresses}
    if missing := [address for bits, address in asked.items() if not network.of_family(bits)]:
        raise CniError(TAKEN, f"address {missing[0]}", f"network {network.name} has no subnet of that family")
    aliases = [*wishes.aliases, *([] if name == request.container else [request.container[:12]])]
    leased: list[str] = []
    for bits in (IPV4, IPV6):
        if network.of_family(bits):
            mac = wishes.mac or (endpoint.mac_address(leased[0]) if leased else "")
            notes = endpoint.lease_notes(endpoint.host_end(owner), mac, [name, owner[:12], *aliases])
            notes.append(attachments.alive(network.name, owner))
            leased.append(ipam.allocate(network, owner, notes, bits, asked.get(bits)))
    plugged = endpoint.decide(network, owner, 0, leased, wishes.mac, request.interface)
    plugged.aliases = aliases
    plugged.rate_in, plugged.rate_out = wishes.rate_in, wishes.rate_out
    return plugged


def _claimed(wishes: Wishes, network: Network) -> list[Port]:
    """The ports that will be published, on every address of the families that the network has, if none is named."""
    asked = [Port(*port) for port in wishes.ports]
    if not asked:
        return []
    from minirun.network import claim

    if network.internal:
        raise CniError(BAD_CONFIG, f"network {network.name} is internal and publishes nothing")
    return claim.claim(asked, sorted({pool.subnet.bits for pool in network.pools}))  # held until we end, at once


def _routes(socket: netlink.Socket, config: Config, network: Network, plugged: Endpoint) -> list[dict[str, Any]]:
    """Every route, each with the gateway of its family unless it names another.

    A default route that another network has brought already is left alone: the first one wins.
    """
    held = {family(address): network.pool(address.partition("/")[0]) for address in plugged.addresses}
    wanted = [*config.routes]
    if config.default_route:
        said = {route["dst"] for route in wanted}
        wanted += [{"dst": DEFAULT_ROUTES[bits]} for bits in held if DEFAULT_ROUTES[bits] not in said]
    there = {DEFAULT_ROUTES[bits] for bits in held if _has_default_route(socket, bits)}
    found = []
    for route in wanted:
        pool = held.get(family(route["dst"]))
        if pool and route["dst"] not in there:
            found.append({"dst": route["dst"], "gw": pool.gateway, **route})
    return found


def _has_default_route(socket: netlink.Socket, bits: int) -> bool:
    routes = netlink.routes(socket, netlink.AF_INET if bits == IPV4 else netlink.AF_INET6)
    return any(not route.prefix and route.type == netlink.RTN_UNICAST for route in routes)


def _result(
    request: Request, config: Config, wishes: Wishes, network: Network, plugged: Endpoint, routes: list[dict[str, Any]]
) -> Result:
    """What ADD answers: bridge, cable's end on the host, interface inside; addresses, routes, and resolvers."""
    result = Result()
    with netlink.shared() as socket:
        found = [
            netlink.Link(body) for body in socket.ask(netlink.get_link(plugged.bridge), netlink.get_link(plugged.port))
        ]
    result.interfaces = [{"name": link.name, "mac": link.mac, "mtu": link.mtu} for link in found]
    inside = {"name": plugged.interface, "mac": plugged.mac, "mtu": plugged.mtu, "sandbox": request.netns}
    result.interfaces.append(inside)
    for address in plugged.addresses:
        pool = network.pool(address.partition("/")[0])
        gateway = {"gateway": pool.gateway} if pool else {}
        result.ips.append({"interface": 2, "address": address, **gateway})
    result.routes = routes
    known = {"nameservers": plugged.nameservers} if config.names else {}
    result.dns = {**known, **resolvers(config), **wishes.dns}
    return result


def resolvers(config: Config) -> dict[str, Any]:
    """What the configuration says of resolvers, or the file of that kind that it names (host-local's resolvConf)."""
    if config.dns or not config.resolv_conf:
        return config.dns
    words = [line.split() for line in (store.read(config.resolv_conf) or "").split("\n")]
    found = {
        "nameservers": [word[1] for word in words if word[:1] == ["nameserver"] and len(word) > 1],
        "domain": next((word[1] for word in words if word[:1] == ["domain"] and len(word) > 1), ""),
        "search": [name for word in words if word[:1] == ["search"] for name in word[1:]],
        "options": [name for word in words if word[:1] == ["options"] for name in word[1:]],
    }
    return {key: value for key, value in found.items() if value}
