"""A real terminal for a test: a pty whose far end a command has as its controlling terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lifecycle.machine import SOON, Machine, until

CTRL_C, CTRL_D = b"\x03", b"\x04"


class Terminal:
    """The near end is ours, as a terminal emulator's; the far end is the command's."""

    def __init__(self, rows: int = 24, columns: int = 80) -> None:
        self.near, self.far = pty.openpty()
        self.resize(rows, columns)
        self.before = self.settings()
        self.seen = b""

    def run(self, host: Machine, *arguments: str) -> subprocess.Popen[str]:
        """Start ``minirun ...`` in a new session with this terminal."""

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        streams = {"stdin": self.far, "stdout": self.far, "stderr": self.far}
        return host.spawn(*arguments, **streams, preexec_fn=take_terminal)

    def settings(self) -> list[object]:
        """The terminal's modes, as stty(1) shows them."""
        return list(termios.tcgetattr(self.far))

    def is_raw(self) -> bool:
        """Whether keys reach the program one by one, unchanged and unseen."""
        return not termios.tcgetattr(self.far)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def resize(self, rows: int, columns: int) -> None:
        """As when the window is drawn larger: the kernel sends SIGWINCH to the far end's foreground."""
        fcntl.ioctl(self.near, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str | bytes) -> None:
        """Press keys."""
        os.write(self.near, text.encode() if isinstance(text, str) else text)

    def expect(self, pattern: str) -> str:
        """Read until a regular expression matches what was printed since the last match."""
        deadline = time.monotonic() + SOON
        while not (found := re.search(pattern.encode(), self.seen)):
            ready, _, _ = select.select([self.near], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{pattern!r} did not come, but {self.seen!r}"
            self.seen += os.read(self.near, 65536)
        self.seen = self.seen[found.end() :]
        return found.group().decode()

    def restored(self) -> None:
        """The terminal comes back to how it was."""
        until(lambda: self.settings() == self.before, "the terminal's own settings")

    def close(self) -> None:
        os.close(self.near)
        os.close(self.far)


@contextmanager
def terminal(rows: int = 24, columns: int = 80) -> Iterator[Terminal]:
    """A terminal, closed at the end."""
    made = Terminal(rows, columns)
    try:
        yield made
    finally:
        made.close()
