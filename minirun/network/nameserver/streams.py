"""Clients that come by TCP (RFC 7766): for an answer that was too long for a datagram, or because they like to.

A connection has one question under way and five seconds for it, however the bytes trickle in. Each client may have a
few connections, each network some more: who opens too many is closed at once, and keeps nobody else out.
"""

from __future__ import annotations

from _socket import socket

from minirun.network.nameserver.loop import NOTHING, READ, WRITE, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = Callable[[bytes, str, Callable[[bytes], None]], None]

PATIENCE = 5.0  # seconds, for a question to come whole, and for an answer to be taken
LONGEST = 4096  # bytes of a question; most have fifty
MOST_OF_NETWORK, MOST_OF_CLIENT = 32, 8
_BACKLOG = 32  # accepted in one turn


class Streams:
    """The TCP clients of one network; ``everyone`` has those of all networks."""

    def __init__(self, loop: Loop, everyone: set[Client], answer: Answer) -> None:
        """``answer(message, address, done)`` is called with each question; b"" to ``done`` closes."""
        self.loop, self.everyone, self.answer = loop, everyone, answer
        self.clients: set[Client] = set()

    def accept(self, listener: socket) -> None:
        """Take in whoever waits."""
        for _ in range(_BACKLOG):
            try:
                descriptor, peer = listener._accept()  # type: ignore[attr-defined]
            except OSError:  # none, or no descriptor for it
                return
            connection = socket(fileno=descriptor)
            connection.setblocking(False)
            same = sum(client.address == peer[0] for client in self.clients)
            if len(self.clients) >= MOST_OF_NETWORK or same >= MOST_OF_CLIENT:
                connection.close()
            else:
                client = Client(self, connection, peer[0])
                self.clients.add(client)
                self.everyone.add(client)

    def close(self) -> None:
        """Close all."""
        for client in list(self.clients):
            client.close()


class Client:
    """One connection: it is reading a question, waiting for the answer, or writing it."""

    def __init__(self, streams: Streams, connection: socket, address: str) -> None:
        self.streams, self.socket, self.address = streams, connection, address
        self.incoming = self.outgoing = b""
        self.waiting = self.closed = False
        self.until = streams.loop.now + PATIENCE
        streams.loop.add(connection.fileno(), READ, self._ready)

    def _ready(self) -> None:
        try:
            if self.outgoing:
                self._write()
            elif self.waiting:  # for nothing but errors: it has gone
                self.close()
            else:
                self._read()
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def _read(self) -> None:
        data = self.socket.recv(LONGEST)
        self.incoming += data
        if not data or int.from_bytes(self.incoming[:2], "big") > LONGEST:
            self.close()
        else:
            self._begin()

    def _begin(self) -> None:
        """Have a question answered that has come whole."""
        end = 2 + int.from_bytes(self.incoming[:2], "big")
        if len(self.incoming) < end or len(self.incoming) < 2:
            return
        message, self.incoming = self.incoming[2:end], self.incoming[end:]
        self.waiting = True
        self.streams.loop.change(self.socket.fileno(), NOTHING)
        self.streams.answer(message, self.address, self._answered)

    def _answered(self, answer: bytes) -> None:
        if self.closed:
            return
        if not answer:
            self.close()
            return
        self.waiting, self.until = False, self.streams.loop.now + PATIENCE
        self.outgoing = len(answer).to_bytes(2, "big") + answer
        self.streams.loop.change(self.socket.fileno(), WRITE)

    def _write(self) -> None:
        self.outgoing = self.outgoing[self.socket.send(self.outgoing) :]
        if not self.outgoing:
            self.until = self.streams.loop.now + PATIENCE
            self.streams.loop.change(self.socket.fileno(), READ)
            self._begin()  # the next question may be here already

    def close(self) -> None:
        """End it; an answer that comes later has nobody to go to."""
        if not self.closed:
            self.closed = True
            self.streams.clients.discard(self)
            self.streams.everyone.discard(self)
            self.streams.loop.remove(self.socket.fileno())
            self.socket.close()
