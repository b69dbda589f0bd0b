"""What a start does about a firewall that stops its network: says so, opens it, or refuses; as it was told.

The decision stays with the network: once opened by ``--allow-forward``, it is opened again whenever it has to be.
"""

from __future__ import annotations

from minirun import store
from minirun.errors import Conflict, MinirunError
from minirun.network import network as networks
from minirun.network.foreign import look, opening

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minirun.network.foreign.opening import Opening
    from minirun.network.network import Network

WARN, ALLOW, REQUIRE = "", "allow", "require"


def pass_through(
    network: Network, ports: Sequence[tuple[str, int]], wish: str, warn: Callable[[str], None]
) -> list[Opening]:
    """See to it that packets of a network pass; ``wish`` is WARN, ALLOW or REQUIRE. What was opened is returned.

    Raises Conflict if they do not pass and should have to.
    """
    if wish == ALLOW:
        remember(network)
        opening.watch(network.name)  # a firewall may come later
    stops = look.everything(network, ports)
    if not stops:
        return []
    if networks.ALLOW_FORWARD in network.options:
        return opening.open_for(network, stops, ports)
    sentence = look.sentence(stops, network.name)
    if wish == REQUIRE:
        raise Conflict("--require-forward", sentence, remedy(network))
    warn(f"{sentence}; {remedy(network)}")
    return []


def steps(network: Network) -> list[Opening]:
    """The steps that open for a network what is closed now; nothing is done."""
    return opening.openings(network, look.everything(network))


def remember(network: Network) -> None:
    """Note in the network's record that foreign chains may be opened for it."""
    if networks.ALLOW_FORWARD not in network.options:
        network.options[networks.ALLOW_FORWARD] = "true"
        store.write_json(networks.record_path(network.name), network.record())


def open_again() -> list[str]:
    """Open for every network that was opened before what is closed now; a line for each that could not be.

    What is left of one whose removal was killed is closed. Neither while networks are made or removed: a network that
    is being removed must not be opened once more.
    """
    problems = []
    for name in store.entries(f"{store.state}/forward"):
        try:
            network = networks.load(name)
            if network and not look.everything(network):
                continue
            with networks.Lock():
                network = networks.load(name)
                if network is None:
                    opening.close_all(name)
                    opening.unwatch(name)
                elif stops := look.everything(network):
                    opening.open_for(network, stops)
        except (MinirunError, OSError) as error:
            problems.append(f"network {name}: {error}")
    return problems


def remedy(network: Network) -> str:
    """The command that opens whatever is closed for a network."""
    return f"open it with: minirun network reload --allow-forward {network.name}"
