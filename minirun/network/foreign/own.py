"""Our own rules in somebody else's chains: found by their comment, and taken away as they are.

Nothing about them is computed again: the network may be gone, its name server may have another port by now. A rule of
nftables is deleted by its handle, which no other rule ever had; one of iptables-legacy by the line in which its program
lists it, since numbers of rules change while others change the chain.
"""

from __future__ import annotations

from minirun.linux import nft, nft_read
from minirun.linux.netlink import attributes
from minirun.network import helper
from minirun.network.foreign import extensions, legacy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PROTOCOLS = {bytes([number]): name for name, number in nft.PROTOCOLS.items()}
_INPUT_KEYS = (6, 17)  # NFT_META_IIFNAME, NFT_META_BRI_IIFNAME


class Place:
    """A chain, and the rules with a comment of ours in it. ``program`` is that of iptables-legacy, else ""."""

    __slots__ = ("chain", "comment", "family", "program", "table")

    def __init__(self, program: str, family: str, table: str, chain: str, comment: str) -> None:
        self.program = program if program.endswith("legacy") else ""
        self.family, self.table, self.chain, self.comment = family, table, chain, comment

    def tags(self) -> list[str]:
        """What each rule of ours lets in: ``udp 53`` of a protocol and port, else ``i`` or ``o`` of a device."""
        if self.program:
            return list(legacy.Table(4 if self.family == "ip" else 6).tags(self.chain, self.comment))
        return [_tag(rule) for rule in self._rules()]

    def remove(self, kept: Sequence[str] = ()) -> None:
        """Delete our rules but those with a tag that is ``kept``. Raises MinirunError, OSError."""
        if not self.program:
            for rule in self._rules():
                if _tag(rule) not in kept:
                    nft.delete_rule(self.family, self.table, self.chain, rule.handle)
        elif any(tag not in kept for tag in self.tags()):
            import shlex

            for line in helper.run([self.program, "-w", "-S", self.chain], "iptables").splitlines():
                words = shlex.split(line)
                if words[0] == "-A" and self.comment in words and _listed(words) not in kept:
                    helper.run([self.program, "-w", "-D", *words[1:]], "iptables")

    def _rules(self) -> list[nft_read.Rule]:
        return [rule for rule in nft_read.rules(self.family, self.table, self.chain) if self._is_ours(rule)]

    def _is_ours(self, rule: nft_read.Rule) -> bool:
        return self.comment in (rule.comment, *(_comment_of(*expression) for expression in rule.expressions))


def _tag(rule: nft_read.Rule) -> str:
    protocol, port, before = "", 0, ""
    for name, found in rule.expressions:
        value = dict(attributes(found.get(3, b""))).get(nft.NFTA_DATA_VALUE, b"") if name == "cmp" else b""
        protocol = _PROTOCOLS.get(value, protocol)
        if name == "match" and nft_read.text(found[1]) in nft.PROTOCOLS:
            port = extensions.port(found.get(3, b""))
        elif before == "payload" and len(value) == 2:
            port = int.from_bytes(value, "big")
        before = name
    if protocol:
        return f"{protocol} {port}"
    keys = [int.from_bytes(found.get(2, b""), "big") for name, found in rule.expressions if name == "meta"]
    return "i" if any(key in _INPUT_KEYS for key in keys) else "o"


def _listed(words: Sequence[str]) -> str:
    """The tag of a rule as iptables lists it."""
    if "-p" in words:
        return f"{words[words.index('-p') + 1]} {words[words.index('--dport') + 1] if '--dport' in words else 0}"
    return "i" if "-i" in words else "o"


def _comment_of(name: str, found: dict[int, bytes]) -> str:
    return extensions.comment(found.get(3, b"")) if name == "match" and nft_read.text(found[1]) == "comment" else ""
