"""How the name server is started, and how it gets the sockets of a network.

The sockets are bound here, by root, and given to the server: at its start or, when it runs already, over its socket of
datagrams. From then on the kernel keeps questions for it, so nobody waits until it is up, and it needs no right to
open ports. Its own lock is taken here and inherited, as a monitor inherits that of its container.

    <state>/nameserver/lock       held as long as the server lives
    <state>/nameserver/turn       held while somebody gives it sockets, and by itself while it ends
    <state>/nameserver/socket     over which it gets sockets
    <state>/nameserver/errors     what it said when it died of a mistake
    <state>/networks/<name>/nameserver    what it must know of the network; locked as long as it serves it
"""

from __future__ import annotations

import os
from _socket import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPV6_V6ONLY,
    SCM_RIGHTS,
    SO_REUSEADDR,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)
from errno import EADDRINUSE
from fcntl import LOCK_EX, LOCK_NB, flock
from time import monotonic, sleep

from minirun import store
from minirun.errors import MinirunError
from minirun.linux import syscalls
from minirun.network import nameservice, nat
from minirun.network import network as networks
from minirun.network.nameserver.lists import CONFIG, LEASES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minirun.network.network import Network

PORT = 53
IP_FREEBIND, IPV6_FREEBIND = 15, 78  # of linux/in.h and in6.h: the bridge may be gone, and come back
_BACKLOG, _PATIENCE = 64, 10.0  # connections; seconds until the server takes what it is sent


def serve(names: Sequence[str]) -> None:
    """Have these networks served, and with a new server every other that has containers. Raises MinirunError."""
    directory = store.directory(store.state, "nameserver")
    turn = _open(f"{directory}/turn")
    try:
        with networks.Lock():
            _wait_for(turn)  # a server that is about to end has it
            _serve(directory, names)
    finally:
        os.close(turn)


def _serve(directory: str, names: Sequence[str]) -> None:
    lock = _open(f"{directory}/lock")
    try:
        flock(lock, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        os.close(lock)
    else:
        _start(directory, lock)
        names = [*names, *(name for name in nameservice.with_leases() if name not in names)]
    server = _connect(directory)
    for name in names:
        network = networks.load(name)
        if network and not nameservice.served(name):
            _give(server, network)
    server.close()


def stop() -> bool:
    """End the server at once; whether there was one. The next start of a container starts it again."""
    directory = f"{store.state}/nameserver"
    if not nameservice.runs():
        return False
    server = _connect(directory)
    server.send(b"")
    server.close()
    descriptor = _open(f"{directory}/lock")
    try:
        _wait_for(descriptor)
    finally:
        os.close(descriptor)
    return True


def _wait_for(descriptor: int) -> None:
    """Get a lock that the server may have: not for ever, since nobody knows what it does that has been taken over."""
    until = monotonic() + _PATIENCE
    while True:
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
            return
        except BlockingIOError:
            if monotonic() > until:
                raise _silent(OSError("it keeps a lock")) from None
            sleep(0.002)


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _start(directory: str, lock: int) -> None:
    """Start a server with nothing to serve yet."""
    store.directory(store.state, "networks")
    store.create(f"{directory}/errors", "")
    path = f"{directory}/socket"
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    control = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
    folder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    control.bind(f"/proc/self/fd/{folder}/socket")  # a socket's address holds 107 bytes only (unix(7))
    os.close(folder)
    inherited = [lock, control.fileno()]
    for descriptor in inherited:
        os.set_inheritable(descriptor, True)
    words = [*nameservice.program(), "nameserver", "--serve", *(str(number) for number in inherited)]
    syscalls.run_detached(words, os.environ, keep_stdio=False)
    control.close()
    os.close(lock)


def _connect(directory: str) -> socket:
    """A socket over which the server hears us."""
    client = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
    client.settimeout(_PATIENCE)
    folder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        client.connect(f"/proc/self/fd/{folder}/socket")
    except OSError as error:
        client.close()
        raise _silent(error) from None
    finally:
        os.close(folder)
    return client


def _give(server: socket, network: Network) -> None:
    """Give the server all that it needs for one network."""
    sockets: list[socket] = []
    try:
        for pool in network.pools:
            sockets += _pair(pool.gateway, _former(network.name, pool.gateway))
        config = _configure(network, [one.getsockname()[1] for one in sockets])
        try:
            _wait_for(config)
            packed = b"".join(number.to_bytes(4, "little") for number in (config, *(one.fileno() for one in sockets)))
            server.sendmsg([network.name.encode()], [(SOL_SOCKET, SCM_RIGHTS, packed)])
        finally:
            os.close(config)
    except OSError as error:
        raise _silent(error) from None
    finally:
        for one in sockets:
            one.close()


def _former(network: str, gateway: str) -> list[int]:
    """The port at a gateway that a former server had: what was opened for it in other firewalls is open."""
    return [int(data[1]) for _, key, data in nameservice.elements(network) if key[:2] == [gateway, "udp"]]


def forget(network: str) -> None:
    """Take back the elements that lead to the server; nothing happens if it never served this network."""
    found = nameservice.elements(network)
    if found:
        nat.Elements(networks.comment(network), found).undo()


def _configure(network: Network, ports: Sequence[int]) -> int:
    """Write what the server must know of a network where it may read it, and lead questions to it; the open file.

    Its directories are for all to read, below one that only root enters: the server is nobody, and was led in.
    """
    folder = f"{store.state}/networks/{network.name}"
    for path in (f"{store.state}/networks", folder, f"{folder}/{LEASES}"):
        store.directory(path, mode=0o755)
        os.chmod(path, 0o755)  # noqa: S103
    pairs = zip(network.pools, ports[::2], ports[1::2], strict=True)
    lines = [f"listen {pool.gateway} {udp} {tcp}\nsubnet {pool.subnet}" for pool, udp, tcp in pairs]
    lines += [f"dns {' '.join(network.dns)}"] if network.dns else []
    lines += ["internal"] if network.internal else []
    text, path = "\n".join(lines) + "\n", f"{folder}/{CONFIG}"
    if store.read(path) != text:
        forget(network.name)
        store.write(path, text, 0o644)
    nat.Elements(networks.comment(network.name), nameservice.elements(network.name)).do()
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _pair(gateway: str, former: list[int]) -> list[socket]:
    """The sockets of UDP and TCP at a gateway, on the same port if both are free there."""
    first = _bind(gateway, SOCK_DGRAM, [PORT, *former, 0])
    try:
        return [first, _bind(gateway, SOCK_STREAM, [PORT, first.getsockname()[1], 0])]
    except BaseException:
        first.close()
        raise


def _bind(address: str, kind: int, ports: Sequence[int]) -> socket:
    """A socket on the first of these ports of the address that no other server of the host has; 0 is any."""
    family, level, option = (
        (AF_INET6, IPPROTO_IPV6, IPV6_FREEBIND) if ":" in address else (AF_INET, IPPROTO_IP, IP_FREEBIND)
    )
    made = socket(family, kind | SOCK_CLOEXEC | SOCK_NONBLOCK)
    try:
        made.setsockopt(level, option, 1)
        if family == AF_INET6:
            made.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
        if kind == SOCK_STREAM:  # connections of a former server may not have faded yet
            made.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        for port in ports:
            try:
                made.bind((address, port))
                break
            except OSError as error:
                if error.errno != EADDRINUSE or not port:
                    raise
        if kind == SOCK_STREAM:
            made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _silent(error: OSError) -> MinirunError:
    said = (store.read(f"{store.state}/nameserver/errors") or "").strip().split("\n")[-1]
    return MinirunError("the name server", said or f"{error}", "minirun nameserver --stop, and try again")
