"""Is the name server there? Asked at each start; the server itself, and how it is started, is in ``nameserver``.

The server holds a lock on a file of each network that it serves (flock(2), as in docs/decisions/0004): three system
calls tell. A container's start makes its lease first and asks then, which is what the server relies on when it ends.
"""

from __future__ import annotations

import os
import sys

from minirun import store
from minirun.linux import syscalls
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class Names(Step):
    """Sees to it that names are answered on these networks: starts the name server, or gives it the networks.

    Nothing is undone: the server ends by itself when no container is left.
    """

    kind = "names"
    fields = ("networks",)
    networks: list[str]

    def sh(self) -> str:
        return " ".join([*program(), "nameserver", *self.networks])

    def do(self) -> None:
        unserved = [name for name in self.networks if not served(name)]
        if unserved:
            from minirun.network.nameserver import start

            start.serve(unserved)

    def undo(self) -> None:
        pass


def elements(network: str) -> list[list[Any]]:
    """What sends questions for a network's gateways to the server, as [set, key, data]; [] if it was never served."""
    text = store.read(f"{store.state}/networks/{network}/nameserver") or ""
    found: list[list[Any]] = []
    for line in text.splitlines():
        if line.startswith("listen "):
            _, address, udp, tcp = line.split(" ")
            name = "names6" if ":" in address else "names4"
            found += [[name, [address, "udp", "53"], [address, udp]], [name, [address, "tcp", "53"], [address, tcp]]]
    return found


def program() -> list[str]:
    """The words that run minirun again."""
    if sys.flags.no_site:  # our own launcher, which knows where the package is; minirun-cni lies beside it
        return [os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), "minirun")]
    return [sys.executable, "-m", "minirun"]


def served(network: str) -> bool:
    """Whether the name server serves this network."""
    return _held(f"{store.state}/networks/{network}/nameserver")


def revive() -> None:
    """Start the name server again if it has died while containers need it. Called by every command."""
    needing = [] if runs() else list(with_leases())
    if needing:
        from minirun.network.nameserver import start

        start.serve(needing)


def runs() -> bool:
    """Whether the name server lives."""
    return _held(f"{store.state}/nameserver/lock")


def with_leases() -> Iterator[str]:
    """The networks that containers are on, and that were served before: a guest of CNI may not want that."""
    folder = f"{store.state}/networks"
    for name in store.entries(folder):
        if os.path.exists(f"{folder}/{name}/nameserver") and store.entries(f"{folder}/{name}/leases"):
            yield name


def _held(path: str) -> bool:
    try:
        return syscalls.is_held(path)
    except FileNotFoundError:
        return False
