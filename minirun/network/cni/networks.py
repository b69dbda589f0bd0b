"""The network of minirun that stands for a network of CNI: made at the first ADD, with all that ``network ls`` shows.

It has the same name, unless that means something else to minirun. A network that is there already is used: so pods and
containers of minirun may share one, and what the configuration says of it must be true then.
"""

from __future__ import annotations

from minirun.errors import Conflict
from minirun.network import bridge, ipam
from minirun.network import network as networks
from minirun.network.addresses import IPV6
from minirun.network.cni.protocol import BAD_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minirun.network.cni.config import Config
    from minirun.network.creation import Wanted
    from minirun.network.network import Network

LABEL = "minirun.cni"  # on a network that we made: the name in the configuration


def name_of(config: Config) -> str:
    """The name that the network has with minirun."""
    return f"cni-{config.name}" if config.name in bridge.RESERVED else config.name


def load(config: Config) -> Network | None:
    """The network, or None if nobody was added to it yet. Raises CniError if it is another one than configured.

    The range that addresses are taken from may change while it is in use: what is returned has the configured one.
    """
    network = networks.load(name_of(config))
    if network and (wrong := _difference(network, config)):
        remedy = f"configure it so, or remove the network, once it is empty: minirun network rm {network.name}"
        raise CniError(BAD_CONFIG, f"network {network.name} exists, and {wrong}", remedy)
    if network:
        _take_over(network, config)
    return network


def ensure(config: Config) -> Network:
    """The network with all that it needs in the kernel. Raises Conflict if its bridge or its subnet is another's."""
    name = name_of(config)
    known = networks.load(name)
    if known and _difference(known, config) and known.labels.get(LABEL) and not ipam.leases(name):
        bridge.remove(name)  # ours, empty, and its configuration was changed
        known = None
    if known is None:
        _create(config, name)
    elif load(config) and _take_over(known, config):
        _note_ranges(config, name)
    return bridge.ensure(name)


def _take_over(network: Network, config: Config) -> bool:
    """Give a network that we made the ranges of the configuration; whether that changes any of them.

    Who has an address already keeps it.
    """
    if not network.labels.get(LABEL):
        return False
    ranges, changed = {str(pool.subnet): pool.range for pool in config.pools}, False
    for pool in network.pools:
        wanted = ranges.get(str(pool.subnet), pool.range)
        changed = changed or str(wanted) != str(pool.range)
        pool.range = wanted
    return changed


def _note_ranges(config: Config, name: str) -> None:
    with networks.Lock():
        network = networks.load(name)
        if network and not _difference(network, config) and _take_over(network, config):
            bridge.NetworkRecord(network.record()).do()


def _create(config: Config, name: str) -> None:
    try:
        bridge.create(_wanted(config, name))
    except Conflict:
        if not networks.load(name):  # else another plugin was quicker with the same
            raise


def preview(config: Config) -> None:
    """Raise what would keep the network from being made."""
    name = name_of(config)
    bridge.decide(name, _wanted(config, name))


def _wanted(config: Config, name: str) -> Wanted:
    from minirun.network.creation import Wanted

    wanted = Wanted(name)
    wanted.bridge = config.bridge
    wanted.subnets = [str(pool.subnet) for pool in config.pools]
    wanted.gateways = [pool.gateway for pool in config.pools]
    wanted.ranges = [str(pool.range) for pool in config.pools if pool.range]
    wanted.mtu, wanted.ipv6 = config.mtu, config.ipv6
    wanted.internal, wanted.isolate = config.internal, config.isolate
    wanted.labels = {LABEL: config.name}
    wanted.options = {} if config.masquerade else {networks.ROUTED: "true"}
    return wanted


def _difference(network: Network, config: Config) -> str:
    """In what a network is not what is configured; only what is said can differ."""
    if config.bridge and config.bridge != network.bridge:
        return f"its bridge is {network.bridge}"
    if wrong := _other_subnets(network, config):
        return wrong
    if config.mtu and config.mtu != network.mtu:
        return f"its MTU is {network.mtu}"
    if config.internal != network.internal:
        return f"it is {'' if network.internal else 'not '}internal"
    if config.said_masquerade and config.masquerade == network.routed and not network.internal:
        return f"its containers {'do not ' if network.routed else ''}leave with the host's address"
    if config.isolate != network.isolate:
        return f"its containers are {'' if network.isolate else 'not '}isolated"
    return ""


def _other_subnets(network: Network, config: Config) -> str:
    """In what the subnets differ. A subnet that we chose, as none of its family is configured, is as good as any."""
    if config.ipv6 and not network.ipv6:
        return "it has no IPv6"
    if not config.pools:
        ours = network.labels.get(LABEL)  # else somebody wanted it so
        return "it has IPv6" if ours and network.ipv6 and not config.ipv6 else ""
    chosen = IPV6 if config.ipv6 and all(pool.subnet.bits != IPV6 for pool in config.pools) else 0
    there = [pool for pool in network.pools if pool.subnet.bits != chosen]
    if [(str(pool.subnet), pool.gateway) for pool in config.pools] != [(str(p.subnet), p.gateway) for p in there]:
        return f"its subnets are {', '.join(f'{pool.subnet} (gateway {pool.gateway})' for pool in network.pools)}"
    ranges = [(str(pool.range), str(p.range)) for pool, p in zip(config.pools, there, strict=True) if pool.range]
    if not network.labels.get(LABEL) and any(wanted != found for wanted, found in ranges):
        return "it has another range for addresses"
    return ""
