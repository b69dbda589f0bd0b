"""``minirun exec``."""

from __future__ import annotations

import os
import sys

from minirun.cli.arguments import Option, help_text, parse, store
from minirun.cli.run import add_env
from minirun.engine import session
from minirun.engine.record import find
from minirun.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

OPTIONS = [
    Option("-d --detach", "", store("detach"), "do not wait for the command"),
    Option("-i --interactive", "", store("interactive"), "keep standard input open"),
    Option("-t --tty", "", store("tty"), "give the command a terminal"),
    Option("-e --env", "NAME[=VALUE]", add_env, "set an environment variable"),
    Option("-w --workdir", "DIR", store("workdir"), "working directory"),
    Option("-u --user", "USER[:GROUP]", store("user"), "names of the container's own files, or numbers"),
]


def run(argv: Sequence[str]) -> int:
    """Run a command in a running container."""
    if argv and argv[0] == "--help":
        text = help_text("exec [OPTIONS] CONTAINER COMMAND [ARG...]", "Run a command in a running container.", OPTIONS)
        sys.stdout.write(text)
        return 0
    options = session.ExecOptions()
    operands = parse(argv, OPTIONS, options, operands_first=False)
    if len(operands) < 2:
        raise UsageError("exec", "container or command is missing", "minirun exec [OPTIONS] CONTAINER COMMAND [ARG...]")
    if options.tty and options.interactive and not options.detach and not os.isatty(0):
        raise UsageError("-t", "standard input is not a terminal", "leave out -t, or run it in a terminal")
    options.command = operands[1:]
    return session.run(find(operands[0]), options)
