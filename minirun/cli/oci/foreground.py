"""A container's terminal in ours: for `run` and `exec` by hand, where no engine holds the other end.

The runtime sends a terminal's master to a console socket in any case; here the socket is our own. Its name is gone
before anyone is told of it: /proc/PID/fd/N leads to a socket that has no other path.
"""

from __future__ import annotations

import _signal as s
import _socket
import os
import select
import sys
import termios
from fcntl import ioctl

from minirun import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

_CHUNK = 1 << 16
_END_OF_FILE = b"\x04"  # a terminal has no half-close
_PASSED = (s.SIGINT, s.SIGTERM, s.SIGQUIT, s.SIGHUP, s.SIGUSR1, s.SIGUSR2, s.SIGWINCH)


class Foreground:
    """Made before the container; ``path`` is its console socket, and ``relay`` stays with it until the end."""

    __slots__ = ("_listener", "path")

    def __init__(self) -> None:
        folder = f"{os.environ.get('TMPDIR') or '/tmp'}/minirun-{os.getpid()}-{os.urandom(8).hex()}"
        os.mkdir(folder, 0o700)
        self._listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            self._listener.bind(f"{folder}/console")
            self._listener.listen(1)
            self.path = f"/proc/{os.getpid()}/fd/{os.open(f'{folder}/console', os.O_PATH | os.O_CLOEXEC)}"
            os.unlink(f"{folder}/console")
        finally:
            os.rmdir(folder)

    @staticmethod
    def size() -> dict[str, int] | None:
        """The size of our terminal as ``process.consoleSize``; None if there is none."""
        if not os.isatty(0):
            return None
        columns, rows = os.get_terminal_size(0)
        return {"height": rows, "width": columns}

    def master(self) -> int:
        """The terminal's other end, which has been sent: to be taken once the container is created."""
        descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]  # what socket.accept() is made of
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, descriptor)
        _, ancillary, _, _ = connection.recvmsg(4096, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
        connection.close()
        master = int.from_bytes(ancillary[0][2][:4], sys.byteorder)
        # Ends of lines go through as they are, to a file, too: our own terminal adds what it needs.
        settings = termios.tcgetattr(master)
        settings[1] &= ~termios.ONLCR
        termios.tcsetattr(master, termios.TCSANOW, settings)
        if os.isatty(0):
            _resize(master)  # now, so that a program that is not started yet begins with the right size
        return master


def relay(master: int, pid: int) -> int:
    """Join our standard streams and the terminal until our child ``pid`` ends; its wait status."""
    woken, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    for number in _PASSED:
        s.signal(number, _noted)
    s.set_wakeup_fd(waker)
    s.pthread_sigmask(s.SIG_UNBLOCK, _PASSED)
    saved = termios.tcgetattr(0) if os.isatty(0) else None
    try:
        if saved:
            termios.tcsetattr(0, termios.TCSANOW, _raw(termios.tcgetattr(0)))
        os.set_blocking(master, False)
        _copy(master, os.pidfd_open(pid), pid, woken)
    finally:
        if saved:
            termios.tcsetattr(0, termios.TCSANOW, saved)
    return os.waitpid(pid, 0)[1]


def _noted(number: int, frame: FrameType | None) -> None:
    """Python writes the number to the wake-up descriptor; there it is read."""


def _raw(settings: list[int | list[bytes | int]]) -> list[int | list[bytes | int]]:
    """cfmakeraw(3), but with OPOST: see master()."""
    t = termios
    off = (
        t.IGNBRK | t.BRKINT | t.PARMRK | t.ISTRIP | t.INLCR | t.IGNCR | t.ICRNL | t.IXON,
        0,
        t.CSIZE | t.PARENB,
        t.ECHO | t.ECHONL | t.ICANON | t.ISIG | t.IEXTEN,
    )
    flags = [int(value) & ~bits for value, bits in zip(settings[:4], off, strict=True)]  # type: ignore[arg-type]
    flags[2] |= t.CS8
    return [*flags, *settings[4:]]


def _resize(master: int) -> None:
    ioctl(master, termios.TIOCSWINSZ, ioctl(0, termios.TIOCGWINSZ, bytes(8)))


def _copy(master: int, pidfd: int, pid: int, woken: int) -> None:
    """Both directions; nothing is read that cannot be passed on, so a program that does not read stops nobody else."""
    pending, stdin_open, is_open = b"", True, True
    while True:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(woken, select.POLLIN)
        if is_open:
            poll.register(master, select.POLLIN | (select.POLLOUT if pending else 0))
        if is_open and stdin_open and not pending:
            poll.register(0, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll()}
        if woken in ready:
            _pass_signals(os.read(woken, _CHUNK), pid, master)
        if 0 in ready:
            pending = os.read(0, _CHUNK)
            stdin_open = bool(pending)
            pending = pending or _END_OF_FILE
        if pending and master in ready:
            pending = pending[_written(master, pending) :]
        data = _output(master) if is_open else b""
        if data:
            store.write_all(1, data)
        elif pidfd in ready:
            return
        is_open = data is not None


def _written(master: int, data: bytes) -> int:
    try:
        return os.write(master, data)
    except BlockingIOError:
        return 0
    except OSError:  # nobody has the terminal any more
        return len(data)


def _output(master: int) -> bytes | None:
    """What the terminal has for us; None if the last process has closed it (EIO)."""
    try:
        return os.read(master, _CHUNK)
    except BlockingIOError:
        return b""
    except OSError:
        return None


def _pass_signals(numbers: bytes, pid: int, master: int) -> None:
    for number in numbers:
        if number != s.SIGWINCH:
            os.kill(pid, number)
        elif os.isatty(0):
            _resize(master)
