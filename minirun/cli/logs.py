"""``minirun logs``."""

from __future__ import annotations

import sys

from minirun.cli.arguments import Option, Values, help_text, parse, store
from minirun.engine import logs
from minirun.engine.options import whole
from minirun.engine.record import find
from minirun.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OPTIONS = [
    Option("-f --follow", "", store("follow"), "go on with what it prints, until it ends"),
    Option("-n --tail", "N", store("tail"), "only the last N lines"),
    Option("-t --timestamps", "", store("timestamps"), "begin each line with its time"),
]


def run(argv: Sequence[str]) -> int:
    """Show what a container printed, standard output to standard output, standard error to standard error."""
    if "--help" in argv:
        sys.stdout.write(help_text("logs [-f] [--tail N] CONTAINER", "Show what a container printed.", OPTIONS))
        return 0
    target = Values(follow=False, tail=None, timestamps=False)
    operands = parse(argv, OPTIONS, target)
    if len(operands) != 1:
        raise UsageError("logs", "takes one container", "minirun logs [-f] [--tail N] CONTAINER")
    tail = None if target.tail in (None, "all") else whole(target.tail, "--tail")
    container = find(operands[0])
    container.record()
    writer, log = _Writer(target.timestamps), logs.Log(container)
    if tail is None:
        writer.write(log.read())
    else:
        writer.write(_last(log.read(), tail))
    if target.follow:
        writer.write(log.follow(container))
    return 0


def _last(entries: Iterable[logs.Entry], count: int) -> Sequence[logs.Entry]:
    """The entries of the last ``count`` lines; a line may have come in several parts."""
    recent: list[logs.Entry] = []
    limit = 4096
    for entry in entries:
        recent.append(entry)
        if len(recent) > limit:  # a log may be large: what is not among the last is let go on the way
            recent = _cut(recent, count + 1)
            limit = 2 * len(recent) + 4096
    return _cut(recent, count)


def _cut(entries: list[logs.Entry], count: int) -> list[logs.Entry]:
    kept = len(entries)
    ends = 0
    while kept and ends <= count:
        if entries[kept - 1].text.endswith(b"\n") or kept == len(entries):
            ends += 1
        if ends <= count:
            kept -= 1
    return entries[kept:]


class _Writer:
    def __init__(self, timestamps: bool) -> None:
        self.timestamps = timestamps
        self.fresh = {"stdout": True, "stderr": True}  # the next entry of the stream begins a line

    def write(self, entries: Iterable[logs.Entry]) -> None:
        for entry in entries:
            stream = sys.stdout if entry.stream == "stdout" else sys.stderr
            if self.timestamps and self.fresh[entry.stream]:
                stream.buffer.write(f"{entry.time} ".encode())
            stream.buffer.write(entry.text)
            self.fresh[entry.stream] = entry.text.endswith(b"\n")
            stream.buffer.flush()
