"""The network of minirun that stands for a network of CNI: made at the first ADD, with all that ``network ls`` shows.

It has the same name, unless that means something else to minirun. A network that is there already is used: so pods and
containers of minirun may share one, and what the configuration says of it must be true then.
"""

from __future__ import annotations

from minirun.errors import Conflict
from minirun.network import bridge, ipam
from minirun.network import network as networks
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
    """The network, or None if nobody was added to it yet. Raises CniError if it is another one than configured."""
    network = networks.load(name_of(config))
    if network and (wrong := _difference(network, config)):
        remedy = f"configure it so, or remove the network, once it is empty: minirun network rm {network.name}"
        raise CniError(BAD_CONFIG, f"network {network.name} exists, and {wrong}", remedy)
    return network


def ensure(config: Config) -> Network:
    """The network with all that it needs in the kernel. Raises Conflict if its bridge or its subnet is another's."""
    name = name_of(config)
    known = networks.load(name)
    if known and _difference(known, config) and known.labels.get(LABEL) and not ipam.leases(name):
        bridge.remove(name)  # ours, empty, and its configuration was changed
        known = None
    if known:
        load(config)
    else:
        _create(config, name)
    return bridge.ensure(name)


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
    if config.pools:
        wanted = [(str(pool.subnet), pool.gateway) for pool in config.pools]
        if wanted != [(str(pool.subnet), pool.gateway) for pool in network.pools]:
            return f"its subnets are {', '.join(f'{pool.subnet} (gateway {pool.gateway})' for pool in network.pools)}"
    if config.internal != network.internal:
        return f"it is {'' if network.internal else 'not '}internal"
    if config.said_masquerade and config.masquerade == network.routed and not network.internal:
        return f"its containers {'do not ' if network.routed else ''}leave with the host's address"
    if config.isolate != network.isolate:
        return f"its containers are {'' if network.isolate else 'not '}isolated"
    return ""
