"""Opening somebody else's chains for one bridge, and closing them again: only where a user asked for it.

Two rules, first in the chain: accept what comes from the bridge, accept what goes to it; who may talk to whom is still
decided by our own table. Or, in a chain that stands before the host itself: accept questions for the name server. They
are put there by the program whose chain it is, so that its own listing shows them, and bear the name of the network as
their comment, by which ``own`` finds them. Nothing is saved to disk: the firewall's own reload may take them away, and
the next command puts them back. For which networks is noted in ``<state>/forward``, until nothing is left to close.
"""

from __future__ import annotations

import os

from minirun import store
from minirun.errors import Conflict, MinirunError
from minirun.linux import nft, nft_read
from minirun.network import helper, nat
from minirun.network.foreign import legacy, look
from minirun.network.foreign.nftables import verdict
from minirun.network.foreign.own import Place
from minirun.network.foreign.walk import JUMP
from minirun.network.network import comment
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minirun.network.foreign.look import Stop
    from minirun.network.network import Network

NFT = "nft"
DOCKER = "DOCKER-USER"  # Docker's own place for the rules of others; its restart leaves them there
_PROGRAMS = {  # (family, legacy): the program, and the name that it has where only one of its kind is installed
    ("ip", False): ("iptables-nft", "iptables"),
    ("ip6", False): ("ip6tables-nft", "ip6tables"),
    ("ip", True): ("iptables-legacy", "iptables"),
    ("ip6", True): ("ip6tables-legacy", "ip6tables"),
}
_SIDES = ("i", "o")
_HOOKS = ((nft.NF_INET_FORWARD, "FORWARD"), (nft.NF_INET_LOCAL_IN, "INPUT"))


class Opening(Step):
    """Accept rules for one bridge in one chain of somebody else's.

    ``asked`` is [] for what is forwarded, and [protocol, port] of each way to the name server for what comes in.
    """

    kind = "opening"
    fields = ("network", "bridge", "program", "family", "table", "chain", "asked")
    network: str
    bridge: str
    program: str
    family: str
    table: str
    chain: str
    asked: list[list[str]]

    def sh(self) -> str:
        return "\n".join(" ".join(_quoted(word) for word in words) for words in self._commands().values())

    def do(self) -> None:
        watch(self.network)
        place, commands = self._place(), self._commands()
        present = place.tags()
        for tag, words in commands.items():
            if tag not in present:
                helper.run(words, "nftables" if self.program == NFT else "iptables")
        if self.asked:
            place.remove((*commands, *_SIDES))  # the name server's former port

    def undo(self) -> None:
        self._place().remove()

    def _commands(self) -> dict[str, list[str]]:
        """The commands that put the rules first in the chain, by their tags (``Place.tags``)."""
        label, is_nft = comment(self.network), self.program == NFT
        if is_nft:
            head = [NFT, "insert", "rule", self.family, self.table, self.chain]
            tail = ["accept", "comment", f'"{label}"']
        else:
            head = [self.program, "-w", "-I", self.chain]
            tail = ["-m", "comment", "--comment", label, "-j", "ACCEPT"]
        key = "brname" if self.family == "bridge" else "ifname"
        matches: dict[str, list[str]] = {}
        for side in "i" if self.asked else _SIDES:
            matches[side] = [f"meta {side}{key}", f'"{self.bridge}"'] if is_nft else [f"-{side}", self.bridge]
        if self.asked:
            device = matches.pop("i")
            for protocol, port in self.asked:
                service = [protocol, "dport", port] if is_nft else ["-p", protocol, "--dport", port]
                matches[f"{protocol} {port}"] = device + service
        return {tag: [*head, *match, *tail] for tag, match in matches.items()}

    def _place(self) -> Place:
        return Place(self.program, self.family, self.table, self.chain, comment(self.network))


def watch(network: str) -> None:
    """Have every command see to it that what is opened for a network stays open: see ``gate.open_again``."""
    store.create(f"{store.directory(f'{store.state}/forward')}/{network}", "")


def openings(network: Network, stops: Sequence[Stop]) -> list[Opening]:
    """The steps that open these chains for a network."""
    return [Opening(network.name, network.bridge, *_place(stop), _asked(network, stop)) for stop in stops]


def open_for(network: Network, stops: Sequence[Stop], ports: Sequence[tuple[str, int]] = ()) -> list[Opening]:
    """Open these chains, and see that it helped. Raises Conflict: the chain is one that only its owner may change."""
    steps = openings(network, stops)
    for stop, step in zip(stops, steps, strict=True):
        try:
            step.do()
        except MinirunError as error:
            raise Conflict(f"--allow-forward: {stop}", str(error), owners_way(stop, network.bridge)) from None
    left = look.everything(network, ports)
    if left:
        raise Conflict("--allow-forward", look.sentence(left, network.name), owners_way(left[0], network.bridge))
    return steps


def close_all(name: str) -> None:
    """Take away our rules for the network of that name from whatever chain they are in; it may be gone itself."""
    for hook, built_in in _HOOKS:
        places = set()
        for chain in nft.foreign_chains(nat.TABLE.name, hook):
            places |= {("", chain.family, chain.table, chain.name), ("", chain.family, chain.table, DOCKER)}
        for family, path in nat.LEGACY_NAMES.items():
            if legacy.FILTER in (store.read(path) or "").split():
                program = _program("ip" if family == 4 else "ip6", legacy.FILTER, built_in, True)
                places |= {(*program, built_in), (*program, DOCKER)}
        for place in places:
            Place(*place, comment(name)).remove()


def unwatch(name: str) -> None:
    """The network is gone, and with it our rules: no command looks for them any more."""
    try:
        os.unlink(f"{store.state}/forward/{name}")
    except FileNotFoundError:
        pass


def owners_way(stop: Stop, bridge: str) -> str:
    """What the owner of a chain would do to open it, or look at."""
    if stop.table == "firewalld":
        return f"firewall-cmd --permanent --zone=trusted --add-interface={bridge}; firewall-cmd --reload"
    program = _program(stop.family, stop.table, stop.chain, stop.legacy)[0]
    return f"nft list chain {stop.family} {stop.table} {stop.chain}" if program == NFT else f"{program} -S {stop.chain}"


def _place(stop: Stop) -> tuple[str, str, str, str]:
    """The program, family, table and chain by which a chain is opened."""
    program, family, table = _program(stop.family, stop.table, stop.chain, stop.legacy)
    return program, family, table, DOCKER if _docker_comes_first(stop, program) else stop.chain


def _asked(network: Network, stop: Stop) -> list[list[str]]:
    return look.name_ports(network) if look.NAMES in stop.what else []


def _program(family: str, table: str, chain: str, old: bool) -> tuple[str, str, str]:
    """Whose chain it is: iptables writes a counter into each of its rules, and the table and chain have fixed names."""
    written = [] if old else nft_read.rules(family, table, chain)
    is_iptables = table == legacy.FILTER and chain in legacy.HOOKS and family in ("ip", "ip6")
    if old or (is_iptables and all("counter" in (name for name, _ in rule.expressions) for rule in written)):
        for program in _PROGRAMS[family, old]:
            if helper.installed(program):
                return program, family, table
    return NFT, family, table


def _docker_comes_first(stop: Stop, program: str) -> bool:
    """Whether every packet passes Docker's chain for users first."""
    if program == NFT:
        return False
    if stop.legacy:
        return legacy.Table(4 if stop.family == "ip" else 6).jumps_first(stop.chain, DOCKER)
    first = nft_read.rules(stop.family, stop.table, stop.chain)[:1]
    words = [expression for rule in first for expression in rule.expressions if expression[0] != "counter"]
    return [name for name, _ in words] == ["immediate"] and verdict(words[0][1][2]) == (JUMP, DOCKER)


def _quoted(word: str) -> str:
    return word if word.replace("-", "").replace("_", "").replace(".", "").isalnum() else f"'{word}'"
