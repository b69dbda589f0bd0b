"""Read a container's log, which the monitor writes as CRI has it: ``time stdout|stderr P|F text``.

P marks a part of a line: the rest follows in the next entry of the same stream.
"""

from __future__ import annotations

import os

from minirun.engine.record import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO


class Entry:
    """One entry: ``time`` (RFC 3339), ``stream`` ("stdout" or "stderr"), and the bytes as they were written."""

    __slots__ = ("stream", "text", "time")

    def __init__(self, line: bytes) -> None:
        time, stream, tag, text = line.split(b" ", 3)
        self.time, self.stream = time.decode(), stream.decode()
        self.text = text if tag == b"F" else text[:-1]


def entries(file: BinaryIO) -> Iterator[Entry]:
    """The whole entries from where the file stands; one that is being written is left for the next call."""
    while True:
        start = file.tell()
        line = file.readline()
        if not line.endswith(b"\n"):
            file.seek(start)
            return
        yield Entry(line)


def history(container: Container) -> Iterator[Entry]:
    """The entries of the older file, if the log was rotated (minirun-monitor does, at 32 MiB)."""
    path = f"{container.home}/log.1"
    if os.path.exists(path):
        with open(path, "rb") as file:
            yield from entries(file)


def follow(container: Container, file: BinaryIO) -> Iterator[Entry]:
    """New entries as they come, until the container has ended.

    The monitor tells when something was written by the file itself (inotify(7)) and the end by its socket: no polling.
    """
    import select

    from minirun.engine import lifecycle
    from minirun.errors import Conflict
    from minirun.linux import syscalls

    watch = syscalls.watch_file(f"{container.home}/log")
    try:
        try:
            control = lifecycle.connect(container)
        except Conflict:
            yield from entries(file)
            return
        running = True
        while running:
            yield from entries(file)
            readable, _, _ = select.select([watch, control], [], [])
            if watch in readable:
                os.read(watch, 4096)
            if control in readable:
                message = syscalls.receive(control)
                running = message is not None and message.type != syscalls.Message.EXITED
        yield from entries(file)
        os.close(control)
    finally:
        os.close(watch)
