"""``minirun nameserver NETWORK...``: what a container's start does when names are not answered on its networks yet."""

from __future__ import annotations

import os
import sys

from minirun import store
from minirun.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LINGER = "MINIRUN_NAMESERVER_LINGER"  # seconds that the server waits for the next container when there is none
_LINGER = 30.0
_MOST_REPORTS = 20


def run(argv: Sequence[str]) -> int:
    """Start the name server for networks; with ``--stop`` end it; with ``--serve LOCK SOCKET`` be it."""
    if argv[:1] == ["--serve"] and len(argv) == 3:
        return _serve(*(int(word) for word in argv[1:]))
    from minirun.network.nameserver import start

    if list(argv) == ["--stop"]:
        return 0 if start.stop() else 1
    if not argv or any(word.startswith("-") for word in argv):
        raise UsageError("nameserver", "takes names of networks", "minirun nameserver NETWORK... | --stop")
    start.serve(argv)
    return 0


def _serve(lock: int, control: int) -> int:
    """Be the server, with nothing else of whoever started it: a pipe of theirs would never end.

    What Python says of a mistake of ours goes into a file, since nobody else is there to hear it.
    """
    errors = os.open(f"{store.state}/nameserver/errors", os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(errors, 2)
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number not in (lock, control):
            try:
                os.close(number)
            except OSError:  # that of the listing itself
                pass
    turn = os.open(f"{store.state}/nameserver/turn", os.O_RDWR | os.O_CLOEXEC)
    from minirun.network.nameserver import server

    linger = float(os.environ.get(LINGER, _LINGER))
    try:
        server.main(f"{store.state}/networks", lock, control, turn, linger, _report)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 125
    return 0


_reports = 0


def _report() -> None:
    """Note the exception that is being handled: its type and where, but nothing of anybody's question.

    Only the first ones, since somebody may be able to repeat it.
    """
    global _reports
    _reports += 1
    if _reports <= _MOST_REPORTS:
        import traceback

        kind, _, trace = sys.exc_info()
        sys.stderr.write("".join(traceback.format_tb(trace)) + f"{kind.__name__ if kind else ''}\n")
        sys.stderr.flush()
