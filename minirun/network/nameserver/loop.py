"""One epoll(7) for all descriptors: each has a function that is called when something happens there."""

from __future__ import annotations

from select import EPOLLIN, EPOLLOUT, epoll
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ, WRITE, NOTHING = EPOLLIN, EPOLLOUT, 0
_MOST = 64  # events in one turn: who is ready gets its turn before anybody has a second one


class Loop:
    """The descriptors and their functions. ``now`` is the time (monotonic, seconds) at which this turn began."""

    def __init__(self, report: Callable[[], None]) -> None:
        """``report`` is called while an exception is handled that nobody expected."""
        self.report = report
        self._epoll = epoll()
        self._functions: dict[int, Callable[[], None]] = {}
        self.now = monotonic()

    def add(self, descriptor: int, events: int, function: Callable[[], None]) -> None:
        """Call ``function`` whenever one of the events, or an error, is there."""
        self._epoll.register(descriptor, events)
        self._functions[descriptor] = function

    def change(self, descriptor: int, events: int) -> None:
        """Wait for other events."""
        self._epoll.modify(descriptor, events)

    def remove(self, descriptor: int) -> None:
        """Before the descriptor is closed."""
        self._epoll.unregister(descriptor)
        del self._functions[descriptor]

    def turn(self, seconds: float | None) -> None:
        """Wait, at most so long, and call the functions of all that is ready."""
        ready = self._epoll.poll(seconds, _MOST)
        self.now = monotonic()
        for descriptor, _ in ready:
            function = self._functions.get(descriptor)
            if function:  # an earlier one of this turn may have removed it
                self.guard(function)

    def guard(self, function: Callable[[], object]) -> None:
        """Call a function. A mistake of ours in it is reported: one question is lost by it, and not the server."""
        try:
            function()
        except Exception:
            self.report()
