"""The server itself: its sockets, its turns, its end.

It is started as root with a socket of datagrams, over which ``start`` hands it the sockets of each network, bound
already; it gives up every right before it reads the first byte from a container. It ends by itself when no container
has had an address for a while.
"""

from __future__ import annotations

import os
from _socket import (
    AF_INET,
    AF_INET6,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    SCM_RIGHTS,
    SOCK_DGRAM,
    inet_pton,
    socket,
)
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from functools import partial

from minirun import store
from minirun.errors import Unsupported
from minirun.linux import cgroup, syscalls
from minirun.network.nameserver import wire
from minirun.network.nameserver.lists import Lists
from minirun.network.nameserver.loop import READ, Loop
from minirun.network.nameserver.streams import Client, Streams
from minirun.network.nameserver.upstream import Resolvers, Upstream
from minirun.network.nameserver.zones import FORWARD, Zones

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

USER = 65533  # of nobody: systemd's list of numbers (UIDS-GIDS) leaves 65520 to 65533 unused
CGROUP = "nameserver"  # beside those of the containers
MOST_DESCRIPTORS = 253  # of one message: SCM_MAX_FD of the kernel; creation.MOST_SUBNETS stays below
_BATCH, _BATCH_OF_CLIENT = 128, 64  # datagrams that are taken, and answered, from one network in one turn


class Server:
    """One process, all networks of one state directory."""

    def __init__(self, lock: int, control: int, turn: int, linger: float, report: Callable[[], None]) -> None:
        """``lock`` says that we live; that of ``turn`` is held by who starts us or gives us sockets, and while we end.

        ``linger`` is how long (seconds) to wait for the next container when there is none.
        """
        self.lock, self.turn, self.linger = lock, turn, linger
        self.control = socket(fileno=control)
        self.loop, self.zones = Loop(report), Zones()
        self.served: dict[str, Served] = {}
        self.clients: set[Client] = set()  # by TCP, of all networks
        self._swept = 0.0
        self.upstream, self.resolvers = Upstream(self.loop), Resolvers()
        self.lists = Lists(self.zones, self._drop)
        self.ending = False
        self.idle_since: float | None = None
        self.loop.add(self.control.fileno(), READ, self._command)
        self.loop.add(self.lists.descriptor, READ, self.lists.drain)

    def run(self) -> None:
        """Serve until nobody needs us."""
        while not self._may_end():
            self.loop.turn(self._pause())

    def _pause(self) -> float | None:
        """How long a turn may wait: until the next thing that is to be done without anybody asking."""
        pauses = [self.upstream.tick()]
        if self.clients:
            self._sweep()
            pauses.append(1.0)
        if self.zones.addresses:
            self.idle_since = None
        else:
            self.idle_since = self.loop.now if self.idle_since is None else self.idle_since
            pauses.append(max(0.0, self.idle_since + self.linger - self.loop.now))
        return min((pause for pause in pauses if pause is not None), default=None)

    def _sweep(self) -> None:
        """Close the connections whose time is over; looked at once a second."""
        if self._swept + 1 <= self.loop.now:
            self._swept = self.loop.now
            for client in [one for one in self.clients if one.until < self.loop.now]:
                self.loop.guard(client.close)

    def _may_end(self) -> bool:
        if self.ending or self.lists.gone:
            return True
        if self.idle_since is None or self.loop.now < self.idle_since + self.linger:
            return False
        return self._nobody_comes()

    def _nobody_comes(self) -> bool:
        """Whether no container has come since we looked, and none can come before we are gone.

        A container's start makes its lease and then asks for our lock on its network. So we let go of these locks
        first and look for leases then: whoever comes in between either is seen by us, or sees that we go, and waits
        for the lock of the turn, which we hold. It is a lock of our own: nobody else is held up by us.
        """
        try:
            flock(self.turn, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            self.idle_since = self.loop.now  # somebody is about to give us a network
            return False
        for served in self.served.values():
            flock(served.lock, LOCK_UN)
        self.loop.guard(self.lists.drain)
        if not self.zones.addresses:
            return True
        for served in self.served.values():
            flock(served.lock, LOCK_EX)
        flock(self.turn, LOCK_UN)
        return False

    def close(self) -> None:
        """Free the ports, and only then the locks: whoever waits for these binds the same ports."""
        for name in list(self.served):
            self._drop(name)
        self.control.close()
        os.close(self.lock)
        os.close(self.turn)

    def _command(self) -> None:
        """Take over the sockets of a network, whose name is the message; an empty message ends us.

        They come from root: nobody else reaches the directory of our socket.
        """
        try:
            data, descriptors = _receive(self.control)
        except OSError:
            return
        name = data.decode()
        self.ending = self.ending or not name
        if name and descriptors:
            self._drop(name)
            self.served[name] = Served(self, name, descriptors)
            self.lists.read_network(name)  # maybe seen before, when it was not open to us

    def _drop(self, name: str) -> None:
        served = self.served.pop(name, None)
        if served:
            served.close()


class Served:
    """One network's sockets: a lock that says that we serve it, and a pair of UDP and TCP for each gateway."""

    def __init__(self, server: Server, name: str, descriptors: list[int]) -> None:
        self.server, self.name, self.lock = server, name, descriptors[0]
        self.sockets = [socket(fileno=descriptor) for descriptor in descriptors[1:]]
        self.streams = Streams(server.loop, server.clients, self._from_stream)
        for one in self.sockets:
            function = self._datagrams if one.type == SOCK_DGRAM else self.streams.accept
            server.loop.add(one.fileno(), READ, _bound(function, one))

    def close(self) -> None:
        """Stop serving it."""
        self.streams.close()
        for one in self.sockets:
            self.server.loop.remove(one.fileno())
            one.close()
        os.close(self.lock)

    def _datagrams(self, one: socket) -> None:
        """Answer what waits, within bounds: other networks have their turn, and other clients of this one."""
        waiting: list[tuple[bytes, Any]] = []
        counts: dict[str, int] = {}
        for _ in range(_BATCH):
            try:
                data, peer = one.recvfrom(wire.SAFE_SIZE)
            except OSError:
                break
            counts[peer[0]] = counts.get(peer[0], 0) + 1
            if counts[peer[0]] <= _BATCH_OF_CLIENT:
                waiting.append((data, peer))
        self.server.lists.drain()  # after they were asked: all who were there then are known now
        for data, peer in waiting:
            self.server.loop.guard(partial(self._answer, data, peer[0], False, _sender(one, peer)))

    def _from_stream(self, data: bytes, address: str, done: Callable[[bytes], None]) -> None:
        self.server.lists.drain()
        self._answer(data, address, True, done)

    def _answer(self, data: bytes, address: str, stream: bool, done: Callable[[bytes], None]) -> None:
        """Call ``done`` with the answer, now or later; with b"" where there is none to be given."""
        server, network = self.server, self.server.zones.networks.get(self.name)
        try:
            query = wire.parse_query(data)
        except wire.Malformed:
            query = None
        source = _packed(address)
        asker = server.zones.asker(source, network) if network else None
        if query is None or network is None or (asker is None and not network.contains(source)):
            done(b"")  # strangers hear nothing: who knows whose address they gave
            return
        if query.error or asker is None:
            done(wire.pack_answer(query, query.error or wire.REFUSED, stream=stream))
            return
        code, records = server.zones.answer(asker, query)
        if code != FORWARD:
            done(wire.pack_answer(query, code, records, stream))
            return
        servers = asker.servers()
        if servers is None:
            done(wire.pack_answer(query, wire.REFUSED, stream=stream))
            return
        servers = self._others(servers or server.resolvers.servers())
        server.upstream.ask(query, servers, (self.name, asker.key), stream, done)

    def _others(self, servers: Sequence[str]) -> list[str]:
        """Whom we can ask: not ourselves, should the host have come to ask us."""
        own = [address for network in self.server.zones.networks.values() for address in network.listens]
        return [one for one in servers if _packed(one) not in own]


def _bound(function: Callable[[socket], None], one: socket) -> Callable[[], None]:
    return lambda: function(one)


def _sender(one: socket, peer: Any) -> Callable[[bytes], None]:
    def send(answer: bytes) -> None:
        try:
            if answer:
                one.sendto(answer, peer)
        except OSError:  # it is gone, or does not take it: it will ask again
            pass

    return send


def _packed(address: str) -> bytes:
    try:
        return inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    except OSError:
        return b""


def _receive(control: socket) -> tuple[bytes, list[int]]:
    """One message with the descriptors that came along: all of them, or (we may have no more open) none."""
    data, extra, flags, _ = control.recvmsg(256, CMSG_SPACE(4 * MOST_DESCRIPTORS), MSG_CMSG_CLOEXEC)
    values = b"".join(value[: len(value) & ~3] for _, kind, value in extra if kind == SCM_RIGHTS)
    descriptors = list(memoryview(values).cast("i"))
    if flags & MSG_CTRUNC:
        for descriptor in descriptors:  # and with them the lock that would say that we serve it
            os.close(descriptor)
        return data, []
    return data, descriptors


def _leave_caller() -> None:
    """Go into a cgroup of our own: else a service that happened to start us would take us along when it is stopped.

    Where that cannot be done we stay, and the next command starts another server when the service ends.
    """
    try:
        places = cgroup.layout().everywhere(f"{cgroup.parent}/{CGROUP}")
    except Unsupported:
        return
    for controller, place in places.items():
        try:
            cgroup.create(place)
            store.create(f"{place}/{'tasks' if controller else 'cgroup.procs'}", "0")
        except OSError:
            continue


def main(directory: str, lock: int, control: int, turn: int, linger: float, report: Callable[[], None]) -> None:
    """Be the server; ``directory`` is ``<state>/networks``. Ends when nobody needs it any more."""
    os.chdir(directory)
    _leave_caller()
    syscalls.become(USER)
    server = Server(lock, control, turn, linger, report)
    server.run()
    server.close()
