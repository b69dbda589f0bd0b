"""``minirun network reload``: what others took from our networks is put back, and nothing else is touched.

The firewall's rules and elements are loaded anew in one transaction, whether or not something is missing. Of bridges
and cables only what is missing or switched off is mended: connections go on.
"""

from __future__ import annotations

from minirun import step, store
from minirun.errors import Conflict
from minirun.linux import netlink
from minirun.network import bridge, ipam, member, nat, owners
from minirun.network import network as networks
from minirun.network.endpoint import mac_address
from minirun.network.foreign import gate
from minirun.network.member import Member, Seat, port_group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from minirun.network.network import Network

    Say = Callable[[str], None]


def reload(names: Sequence[str], allow_forward: bool, say: Say) -> bool:
    """Repair these networks, or all; ``say`` gets a line for each thing that was done, and for what is left to do.

    Returns whether every container has its cables: one that is gone takes the container's interface with it, which
    only its owner can give it anew.

    Raises NotFound, Conflict.
    """
    with networks.Lock():
        chosen = [_existing(name) for name in names] or list(networks.listing())
        for network in chosen:
            for line in _mend(network):
                say(f"{network.name}: {line}")
        if not any(networks.listing()):
            say("firewall: there is no network")
            return True
        say(f"firewall: loaded, {nat.reassert()} elements")
    for network in chosen:
        for line in _plug(network):
            say(f"{network.name}: {line}")
    lost = [f"{network.name}: {line}" for network in chosen for line in _lost(network)]
    for line in lost:
        say(f"warning: {line}")
    for problem in [_foreign(network, allow_forward, say) for network in chosen]:
        if problem:
            raise problem
    return not lost


def _existing(name: str) -> Network:
    network = networks.load(name)
    if network is None:
        raise bridge.absent(name)
    return network


def _mend(network: Network) -> Iterator[str]:
    """Bridge and sysctls of a network, where they are not as they should be."""
    whole = bridge.bridge_step(network)
    lacking = list(_lacking(whole))
    if lacking:
        step.do_all([bridge.Forwarding(bool(network.ipv6)), whole])
    yield from lacking
    yield from member.mend(network)


def _lacking(whole: bridge.Bridge) -> Iterator[str]:
    """What a bridge is without. Raises Conflict if a stranger has its name."""
    with netlink.Socket() as socket:
        link = netlink.find_link(socket, whole.name)
        if link is None:
            yield "bridge made again"
            return
        if not whole.owns(link):
            raise bridge.foreign(whole.name)
        if not link.up:
            yield "bridge switched on"
        if link.mtu != whole.mtu:
            yield f"MTU {link.mtu} set to {whole.mtu}"
        present = {(one.index, one.interface) for one in netlink.addresses(socket)}
    yield from (f"address {text} put back" for text in whole.addresses if (link.index, text) not in present)
    for path, value in whole.sysctls().items():
        if store.read(path) not in (f"{value}\n", None):
            yield f"{path} set to {value}"
    if store.read(bridge.IP_FORWARD) == "0\n":
        yield f"{bridge.IP_FORWARD} set to 1"


def _plug(network: Network) -> Iterator[str]:
    """Cables of living containers that hang in the air: somebody took them, or the bridge, away."""
    with netlink.Socket() as socket:
        for address, lease in ipam.held(network.name).items():
            if network.ipv4 and ":" in address:  # it follows from the first address where a cable belongs
                continue
            port, target = lease.notes.get("port", ""), network.member(address)
            link = netlink.find_link(socket, port) if port else None
            if link is None or link.kind != "veth" or not link.alias.endswith(lease.owner[:12]):
                continue
            if target != network.bridge:
                Member(target, network.bridge, network.mtu, networks.comment(network.name), network.isolate).do()
            bridge = netlink.Link(socket.ask(netlink.get_link(target))[0])
            if link.master == 0:
                socket.ask(netlink.set_master(port, bridge.index))
                group = port_group(network.guarded, network.isolate)
                socket.ask(netlink.set_port(port, link.alias, guarded=network.guarded, group=group))
                if target != network.bridge:
                    Seat(port, lease.notes.get("mac") or mac_address(address)).do()
                socket.ask(netlink.get_link(port), netlink.get_link(target))  # see cable.Carrier
                yield f"{port} ({link.alias}) plugged into {target} again"
            elif link.master != bridge.index:
                yield f"{port} ({link.alias}) is plugged into another bridge: left alone"
            elif not link.up:
                socket.ask(netlink.set_up(port), netlink.get_link(port), netlink.get_link(target))
                yield f"{port} ({link.alias}) switched on"


def _lost(network: Network) -> list[str]:
    """Living containers whose cable is gone, and how each gets a new one."""
    lost: dict[str, list[str]] = {}
    held = ipam.held(network.name)
    with netlink.Socket() as socket:
        for address, lease in held.items():
            port = lease.notes.get("port")
            if port and not netlink.find_link(socket, port) and _is_whole(lease):
                lost.setdefault(port, []).append(address)
    return [_lost_line(network.name, port, held[found[0]], found) for port, found in lost.items()]


def _is_whole(lease: ipam.Held) -> bool:
    """Whether the owner lives and is neither just beginning nor just ending, when it has no cable yet or no more."""
    if "alive" in lease.notes:
        return owners.alive(lease)
    begun = store.read(f"{store.state}/containers/{lease.owner}/state.json")
    return begun is not None and store.read(f"{store.root}/containers/{lease.owner}/exit") is None


def _lost_line(network: str, port: str, lease: ipam.Held, addresses: Sequence[str]) -> str:
    name = lease.notes.get("names", lease.owner[:12]).split()[0]
    remedy = "whoever plugged it in must do so again (CNI: DEL and ADD)"
    if "alive" not in lease.notes:  # a container of minirun
        flags = " ".join(f"--ip{6 if ':' in address else ''} {address}" for address in addresses)
        remedy = f"minirun network disconnect {network} {name}; minirun network connect {flags} {network} {name}"
    return f"{port}, the cable of container {name}, is gone; mend it with: {remedy}"


def _foreign(network: Network, allow: bool, say: Say) -> Conflict | None:
    """Other firewalls: open them if that is asked for, or name them."""
    try:
        wish = gate.ALLOW if allow else gate.WARN
        for opened in gate.pass_through(network, _published(network), wish, lambda text: say(f"warning: {text}")):
            for command in opened.sh().split("\n"):
                say(f"{network.name}: {command}")
    except Conflict as error:
        return error
    return None


def _published(network: Network) -> list[tuple[str, int]]:
    """Protocol and container's port of what is published on a network now."""
    folder, found = f"{ipam.state_directory(network.name)}/published", []
    for name in store.entries(folder):
        for _, key, data in (store.read_json(f"{folder}/{name}") or [[]])[-1]:
            port = data[1] if len(data) > 1 else key[-1].partition("-")[0]
            found.append((key[-2], int(port)))
    return found
