"""Read a container's log, which the monitor writes as CRI has it: ``time stdout|stderr P|F text``.

P marks a part of a line: the rest follows in the next entry of the same stream. At 32 MiB the monitor renames ``log``
to ``log.1`` and begins a new one.
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


class Log:
    """A container's log, read through rotations: ``read`` goes on where the last call ended.

    Only who falls behind by two rotations misses entries.
    """

    def __init__(self, container: Container) -> None:
        self._path = f"{container.home}/log"
        self._files: list[BinaryIO] = []  # the oldest first; the last is the one that is written to
        # In this order: a rotation in between shows the same file twice, in the other order it would hide one.
        self._open(self._path)
        self._open(f"{self._path}.1")
        self._files.reverse()

    def read(self) -> Iterator[Entry]:
        """The entries that have come since the last call."""
        while self._files:
            # Looked at before reading: once there is a newer file, nothing is added to this one any more.
            newer = len(self._files) > 1 or self._open(self._path)
            yield from entries(self._files[0])
            if not newer:
                return
            self._files.pop(0).close()

    def follow(self, container: Container) -> Iterator[Entry]:
        """The same, and new entries as they come, until the container has ended.

        The monitor tells the end by its socket, and that something was written by the directory of the log
        (inotify(7)): no polling.
        """
        import select

        from minirun.engine import lifecycle
        from minirun.errors import Conflict
        from minirun.linux import syscalls

        watch = syscalls.watch_file(container.home)
        try:
            control = lifecycle.connect(container)
        except Conflict:  # it has ended
            os.close(watch)
            yield from self.read()
            return
        running = True
        while running:
            yield from self.read()
            readable, _, _ = select.select([watch, control], [], [])
            if watch in readable:
                os.read(watch, 4096)
            if control in readable:
                message = syscalls.receive(control)
                running = message is not None and message.type != syscalls.Message.EXITED
        yield from self.read()
        os.close(control)
        os.close(watch)

    def _open(self, path: str) -> bool:
        """Add the file at ``path``, if it is there and not the one added before; whether it was."""
        try:
            file = open(path, "rb")
        except FileNotFoundError:
            return False
        if self._files and os.path.samestat(os.fstat(file.fileno()), os.fstat(self._files[-1].fileno())):
            file.close()
            return False
        self._files.append(file)
        return True
