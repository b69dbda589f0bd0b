"""How packets of one kind go through a chain of somebody else's, rule by rule, as far as the rules are understood.

The question is never "may it pass?" but "is it certainly stopped?": a warning that is wrong is worse than none.
"""

from __future__ import annotations

from minirun.network.foreign.flow import NO, SOME, YES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ACCEPT, DROP, RETURN, ON, JUMP, GOTO = "accept", "drop", "return", "on", "jump", "goto"


class Rule:
    """What a rule does with a flow: does it match, does it mean our bridge by name, and what follows."""

    __slots__ = ("answer", "named", "target", "verdict")

    def __init__(self, answer: int, verdict: str = ON, target: str = "", named: bool = False) -> None:
        self.answer, self.verdict, self.target, self.named = answer, verdict, target, named


class Walk:
    """A walk of one flow through chains that ``rules`` reads by name."""

    def __init__(self, rules: Callable[[str], Sequence[Rule]]) -> None:
        self._rules = rules
        self._known: dict[str, set[str]] = {}

    def stops(self, chain: str, policy: str) -> bool:
        """Whether no packet of the flow leaves this base chain."""
        ends = self.ends(chain)
        if RETURN in ends:
            ends = ends - {RETURN} | {policy}
        return ends == {DROP}

    def ends(self, chain: str) -> set[str]:
        """How the walk through a chain may end: with ACCEPT, DROP or RETURN."""
        if chain not in self._known:
            self._known[chain] = self._ends(chain)
        return self._known[chain]

    def _ends(self, chain: str) -> set[str]:
        possible: set[str] = set()
        for rule in self._rules(chain):
            if rule.answer == NO or (rule.answer == SOME and not rule.named):
                continue  # that some other packets are let through (to a port, with a limit) helps the rest nothing
            ends = self._verdict(rule)
            possible |= ends - {ON}
            if rule.answer == YES and ON not in ends:
                return possible
        return possible | {RETURN}

    def _verdict(self, rule: Rule) -> set[str]:
        if rule.verdict == GOTO:
            return self.ends(rule.target)
        if rule.verdict == JUMP:
            ends = self.ends(rule.target)
            return ends - {RETURN} | {ON} if RETURN in ends else ends
        return {rule.verdict}
