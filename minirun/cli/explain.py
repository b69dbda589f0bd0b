"""``minirun explain run ...``: the plan of exactly that run, as numbered shell commands, and nothing done."""

from __future__ import annotations

import sys

from minirun.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

TEXT = """usage: minirun explain run [OPTIONS] IMAGE [COMMAND [ARG...]]
       minirun explain network create [OPTIONS] NAME

Print the steps of a command as the shell commands that you would type. The same objects do them in `run`.

examples:
  minirun explain run --net br0 alpine sh
  minirun explain run --name box alpine sleep 60 | sudo sh
"""


def run(argv: Sequence[str]) -> int:
    """``minirun explain``."""
    if not argv or argv[0] in ("--help", "-h"):
        sys.stdout.write(TEXT)
        return 0 if argv else 125
    argv = list(argv)
    from minirun.engine import explain

    if argv[0] == "run":
        from minirun.cli import run as explained

        if argv[1:2] == ["--help"]:  # further on it would be a word of the container's command
            return explained.run(["--help"])
        sys.stdout.write(explain.run(explained.understand_arguments(argv[1:])))
    elif argv[:2] == ["network", "create"]:
        from minirun.cli import network

        if "--help" in argv[2:] or "-h" in argv[2:]:
            return network.run(argv[1:])
        sys.stdout.write(explain.network(network.understand_create(argv[2:])))
    else:
        raise UsageError(
            f"explain {' '.join(argv[:2])}", "cannot be explained", "explain run, or explain network create"
        )
    return 0
