"""Keeps the zones true to the lease files, by inotify(7).

Whoever starts a container writes its lease and tells us nothing. The kernel notes the change before link(2) returns,
hence before the container can ask anything: so reading all notes before a question is answered is enough to know
everyone who was there when it was asked. Paths are relative: the working directory is ``<state>/networks``.
"""

from __future__ import annotations

import os
from _struct import Struct

from minirun.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minirun.network.nameserver.zones import Zones

CONFIG = "nameserver"  # <network>/nameserver: what ``start`` wrote of the network; locked while it is served
LEASES = "leases"
IN_DELETE_SELF, IN_Q_OVERFLOW, IN_IGNORED = 0x400, 0x4000, 0x8000
_event = Struct("=iIII")  # inotify_event: watch, mask, cookie, length of the name
_MOST = 1 << 16  # bytes of one file; a lease has some hundred


class Lists:
    """The directories that are watched. ``removed`` is called with the name of each network that is gone."""

    def __init__(self, zones: Zones, removed: Callable[[str], None]) -> None:
        self.zones, self.removed = zones, removed
        self.descriptor = syscalls.inotify()
        self.gone = False  # the directory of all networks, and with it our reason to be
        self._watches: dict[int, tuple[str, str]] = {}  # watch: directory, network
        self._again()

    def drain(self) -> None:
        """Take over all that has changed."""
        while True:
            try:
                data = os.read(self.descriptor, 1 << 16)
            except BlockingIOError:
                return
            at = 0
            while at < len(data):
                watch, mask, _, length = _event.unpack_from(data, at)
                name = data[at + 16 : at + 16 + length].rstrip(b"\0")
                at += 16 + length
                self._changed(watch, mask, name.decode("utf-8", "surrogateescape"))

    def _changed(self, watch: int, mask: int, name: str) -> None:
        if mask & IN_Q_OVERFLOW:
            self._again()
            return
        directory, network = self._watches.get(watch, ("", ""))
        if mask & (IN_IGNORED | IN_DELETE_SELF):
            self.gone = self.gone or directory == "."
            if mask & IN_IGNORED:
                self._watches.pop(watch, None)
        elif directory == ".":
            self.read_network(name)
        elif directory == LEASES:
            self._read_lease(network, name)
        elif name in (CONFIG, LEASES):
            self.read_network(network)

    def _again(self) -> None:
        """Read everything, as at the beginning and after changes were too many for the kernel to note each."""
        self._watch(".", ".", "")
        for name in {*os.listdir("."), *self.zones.networks}:
            self.read_network(name)

    def read_network(self, name: str) -> None:
        """Take over what there is of a network, or that there is none."""
        if self._watch(name, "network", name):
            text = _read(f"{name}/{CONFIG}")
            if text is not None:
                self.zones.add_network(name, text)
                self._read_leases(name)
                return
        if name in self.zones.networks:
            self.zones.remove_network(name)
            self.removed(name)

    def _read_leases(self, network: str) -> None:
        folder = f"{network}/{LEASES}"
        found = os.listdir(folder) if self._watch(folder, LEASES, network) else []
        for address in {*found, *self.zones.networks[network].leases}:
            self._read_lease(network, address)

    def _read_lease(self, name: str, address: str) -> None:
        network = self.zones.networks.get(name)
        if network is None:
            return
        text = _read(f"{name}/{LEASES}/{address}")
        if text is None:
            self.zones.remove_lease(network, address)
        else:
            self.zones.add_lease(network, address, text)

    def _watch(self, path: str, directory: str, network: str) -> bool:
        """Watch before looking, so that nothing falls in between; false if there is no such directory (for us, yet)."""
        try:
            self._watches[syscalls.watch_directory(self.descriptor, path)] = (directory, network)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return False
        return True


def _read(path: str) -> str | None:
    """The text of a file, as far as it can be long; None if there is none that we may read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return os.read(descriptor, _MOST).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)
