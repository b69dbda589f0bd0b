"""Questions that are not ours, asked of other servers: the host's, or those of ``--dns``.

Each question gets four seconds in all, less than the five after which a client's library gives up. The first server
has half a second for itself, then the next is asked too, then all again. Each question goes out from a new socket, so
from a port that the kernel chooses by chance, with an id by chance, and the socket is connected: the kernel drops what
comes from another address. What comes from the right one must have the id and the question (RFC 5452).
"""

from __future__ import annotations

import os
from _heapq import heappop, heappush
from _socket import (
    AF_INET,
    AF_INET6,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    if_nametoindex,
    inet_pton,
    socket,
)

from minirun.network.nameserver import wire
from minirun.network.nameserver.loop import READ, WRITE, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minirun.network.nameserver.wire import Query

RESOLV_CONF = "/etc/resolv.conf"
PORT = 53
BUDGET = 4.0  # seconds for a question
STEPS = (0.0, 0.5, 1.2, 2.4)  # seconds after which it is sent (again): to the first, to the next, to all, to all
SHUNNED = 10.0  # seconds in which a server that was silent is not the first to be asked
MAX_SERVERS = 3  # MAXNS of resolv.h
FINAL = (wire.NOERROR, wire.NXDOMAIN)  # other codes mean that another server may know better


class Resolvers:
    """The host's servers. /etc/resolv.conf is looked at for each question, and read again when it is another one.

    We run on the host: its loopback is ours, so 127.0.0.53 is asked as any program of the host asks it, and what
    systemd-resolved knows (VPN domains, caches, DNSSEC) is not passed by.
    """

    def __init__(self, path: str = RESOLV_CONF) -> None:
        self._path, self._seen = path, (0, 0, 0)
        self._servers: list[str] = []

    def servers(self) -> list[str]:
        """Their addresses; [] if the host has none."""
        try:
            status = os.stat(self._path)
        except OSError:
            return []
        seen = status.st_ino, status.st_mtime_ns, status.st_size
        if seen != self._seen:
            self._seen, self._servers = seen, _nameservers(self._path)
        return self._servers


class Upstream:
    """All questions that are under way, within their bounds."""

    MOST, MOST_OF_NETWORK, MOST_OF_ASKER = 256, 128, 64

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.count = 0
        self.counts: dict[str, int] = {}  # by network and by asker
        self._shunned: dict[str, float] = {}
        self._timers: list[tuple[float, int, Forward]] = []
        self._number = 0

    def ask(
        self, query: Query, servers: Sequence[str], payers: tuple[str, str], stream: bool, done: Callable[[bytes], None]
    ) -> None:
        """Ask the servers and call ``done`` with the answer for the client, once and soon.

        ``payers`` are the network and the asker on whose bounds it counts; ``stream``: the client came by TCP.
        """
        network, asker = payers
        full = self.counts.get(f"net {network}", 0) >= self.MOST_OF_NETWORK or self.count >= self.MOST
        if not servers or full or self.counts.get(asker, 0) >= self.MOST_OF_ASKER:
            done(wire.pack_answer(query, wire.SERVFAIL, stream=stream))
            return
        order = sorted(servers[:MAX_SERVERS], key=lambda server: self._shunned.get(server, 0) > self.loop.now)
        forward = Forward(self, query, order, (f"net {network}", asker), stream, done)
        self._count(forward.payers, 1)
        forward.step()

    def finished(self, payers: tuple[str, str]) -> None:
        """A question is no longer under way."""
        self._count(payers, -1)

    def _count(self, payers: tuple[str, str], change: int) -> None:
        self.count += change
        for payer in payers:
            self.counts[payer] = self.counts.get(payer, 0) + change
            if not self.counts[payer]:
                del self.counts[payer]

    def silent(self, server: str) -> None:
        """This server has let a question wait."""
        self._shunned[server] = self.loop.now + SHUNNED
        if len(self._shunned) > 1000:
            self._shunned.clear()

    def remind(self, forward: Forward, when: float) -> None:
        """Have ``forward.step`` called then."""
        self._number += 1  # forwards cannot be compared, should two times be equal
        heappush(self._timers, (when, self._number, forward))

    def tick(self) -> float | None:
        """Do what is due; the seconds until the next is, or None."""
        while self._timers and (self._timers[0][2].over or self._timers[0][0] <= self.loop.now):
            forward = heappop(self._timers)[2]
            if not forward.over:
                self.loop.guard(forward.step)
        return max(0.0, self._timers[0][0] - self.loop.now) if self._timers else None


class Forward:
    """One question under way."""

    def __init__(
        self,
        upstream: Upstream,
        query: Query,
        servers: list[str],
        payers: tuple[str, str],
        stream: bool,
        done: Callable[[bytes], None],
    ) -> None:
        self.upstream, self.query, self.servers, self.payers = upstream, query, servers, payers
        self.stream, self.done, self.over = stream, done, False
        self.begun, self.place = upstream.loop.now, 0
        self.id = int.from_bytes(os.urandom(2), "big")
        self.sockets: dict[str, socket] = {}
        self.failed: set[str] = set()
        self.failure = wire.pack_answer(query, wire.SERVFAIL, stream=stream)
        self.connection: Connection | None = None

    def step(self) -> None:
        """Send the question to whom it is the turn of, and come back later; at the end of the budget give up."""
        if self.place >= len(STEPS):
            self.finish(self.failure)
            return
        place, self.place = self.place, self.place + 1
        following = STEPS[self.place] if self.place < len(STEPS) else BUDGET
        self.upstream.remind(self, self.begun + following)
        if self.connection:
            return
        if place:
            for server in self.sockets.keys() - self.failed:
                self.upstream.silent(server)
        for server in self.servers if place > 1 else self.servers[place % len(self.servers) :][:1]:
            if not self.over:
                self._send(server)

    def _send(self, server: str) -> None:
        if server in self.failed:
            return
        try:
            if server not in self.sockets:
                made = connected(server, SOCK_DGRAM)
                self.upstream.loop.add(made.fileno(), READ, lambda: self._receive(server))
                self.sockets[server] = made
            self.sockets[server].send(wire.pack_query(self.id, self.query))
        except OSError:
            self._fail(server)

    def _receive(self, server: str) -> None:
        try:
            data = self.sockets[server].recv(wire.MAX_SIZE)
        except BlockingIOError:
            return
        except OSError:  # nobody listens there, says ICMP
            self._fail(server)
            return
        code = wire.reply_code(data, self.id, self.query)
        if code is None:
            return
        if code not in FINAL:
            self._fail(server, code)
        elif self.stream and wire.is_truncated(data):
            self._close_sockets()
            try:
                self.connection = Connection(self, server)
            except OSError:
                self.finish(self.failure)
        else:
            self.hand_on(data)

    def hand_on(self, data: bytes) -> None:
        """Give the client a server's reply."""
        try:
            self.finish(wire.hand_on(data, self.query, self.stream))
        except wire.Malformed:
            self.finish(self.failure)

    def _fail(self, server: str, code: int = wire.SERVFAIL) -> None:
        """This server is of no use for this question; when none is left, the client hears what the last one said."""
        self.failed.add(server)
        self._close(server)
        self.failure = wire.pack_answer(self.query, code, stream=self.stream)
        left = [other for other in self.servers if other not in self.failed]
        if not left:
            self.finish(self.failure)
        elif not any(other in self.sockets for other in left):
            self._send(left[0])

    def finish(self, answer: bytes) -> None:
        """Answer the client; nothing of this question remains."""
        if self.over:
            return
        self.over = True
        self._close_sockets()
        if self.connection:
            self.connection.close()
            self.connection = None
        self.upstream.finished(self.payers)
        self.done(answer)

    def _close_sockets(self) -> None:
        for server in list(self.sockets):
            self._close(server)

    def _close(self, server: str) -> None:
        closing = self.sockets.pop(server, None)
        if closing:
            self.upstream.loop.remove(closing.fileno())
            closing.close()


class Connection:
    """The same question by TCP, since the answer was too long for a datagram (RFC 7766)."""

    def __init__(self, forward: Forward, server: str) -> None:
        self.forward, self.loop = forward, forward.upstream.loop
        message = wire.pack_query(forward.id, forward.query)
        self.outgoing, self.incoming = len(message).to_bytes(2, "big") + message, b""
        self.socket = connected(server, SOCK_STREAM)
        self.loop.add(self.socket.fileno(), WRITE, self._ready)

    def _ready(self) -> None:
        try:
            if self.outgoing:
                self._write()
            else:
                self._read()
        except BlockingIOError:
            pass
        except OSError:
            self.forward.finish(self.forward.failure)

    def _write(self) -> None:
        self.outgoing = self.outgoing[self.socket.send(self.outgoing) :]
        if not self.outgoing:
            self.loop.change(self.socket.fileno(), READ)

    def _read(self) -> None:
        data = self.socket.recv(wire.MAX_SIZE)
        self.incoming += data
        size = int.from_bytes(self.incoming[:2], "big") + 2
        if not data:
            self.forward.finish(self.forward.failure)
        elif len(self.incoming) >= max(size, 2):
            reply = self.incoming[2:size]
            if wire.reply_code(reply, self.forward.id, self.forward.query) in FINAL:
                self.forward.hand_on(reply)
            else:
                self.forward.finish(self.forward.failure)

    def close(self) -> None:
        """End it."""
        self.loop.remove(self.socket.fileno())
        self.socket.close()


def connected(server: str, kind: int) -> socket:
    """A socket that speaks with a server only, never blocking. Raises OSError."""
    made = socket(AF_INET6 if ":" in server else AF_INET, kind | SOCK_NONBLOCK | SOCK_CLOEXEC)
    try:
        made.connect(_endpoint(server))
    except BlockingIOError:  # TCP: it will be writable when it is
        pass
    except BaseException:
        made.close()
        raise
    return made


def _endpoint(server: str) -> tuple[str, int] | tuple[str, int, int, int]:
    """A socket's address; ``fe80::1%eth0`` has a scope (RFC 4007). A name in its place would be looked up: OSError."""
    address, _, scope = server.partition("%")
    inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    if ":" not in address:
        return address, PORT
    return address, PORT, 0, (int(scope) if scope.isdigit() else if_nametoindex(scope)) if scope else 0


def _nameservers(path: str) -> list[str]:
    """The servers of a file such as resolv.conf(5)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        lines = os.read(descriptor, 1 << 16).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    finally:
        os.close(descriptor)
    words = [line.split() for line in lines]
    return [word[1] for word in words if len(word) > 1 and word[0] == "nameserver"][:MAX_SERVERS]
