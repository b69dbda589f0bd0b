"""Who lives: the question on which it hangs whether something was left behind.

A container of ours lives as long as somebody, its command or its monitor, holds its lock. Other minirun's may be at
work on the same machine, with directories of their own: theirs are known by their monitors.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from minirun import store
from minirun.linux import syscalls
from minirun.network.cni import attachments
from minirun.network.netns import owner_tag

_MONITOR, _NEEDED = "minirun-monitor", "--needed"
_HEX = frozenset("0123456789abcdef")


class Monitor(NamedTuple):
    """A running minirun-monitor: its container's id, and whether the container is of our state directory."""

    pid: int
    id: str
    ours: bool


class Living:
    """The ids of living containers, as they are at this moment."""

    def __init__(self) -> None:
        self.monitors = list(monitors())
        dead = set(syscalls.dead_locks(f"{store.state}/locks"))
        self.held = {name for name in store.entries(f"{store.state}/locks") if is_id(name) and name not in dead}
        self.ids = self.held | {monitor.id for monitor in self.monitors if not monitor.ours}
        self.ids |= attachments.owners()  # of other engines' containers, by CNI: no process of ours lives as long
        self.short = {identity[:12] for identity in self.ids}
        self.tags = {owner_tag(identity) for identity in (*self.ids, *_lenders(self.held))}


def _lenders(living: Iterable[str]) -> Iterator[str]:
    """The containers, perhaps gone, in whose network namespaces others live (``--net container:``)."""
    for identity in living:
        record = store.read_json(f"{store.root}/containers/{identity}/container.json") or {}
        mode, _, lender = record.get("NetworkMode", "").partition(":")
        if mode == "container":
            yield lender


def is_id(text: str) -> bool:
    """Whether this is an id as the engine gives them; an OCI container may have any name."""
    return len(text) == 64 and _HEX.issuperset(text)


def monitors() -> Iterator[Monitor]:
    """Every monitor of a container (not of an exec session) that runs on this machine."""
    for name in os.listdir("/proc"):
        words = command_line(name) if name.isdigit() else []
        if words and os.path.basename(words[0]) == _MONITOR and _NEEDED in words[:-1]:
            state, _, identity = words[words.index(_NEEDED) + 1].rpartition("/containers/")
            if is_id(identity):
                yield Monitor(int(name), identity, _same_directory(name, state))


def command_line(pid: str) -> list[str]:
    """The words that a process was started with; [] if it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def _same_directory(pid: str, state: str) -> bool:
    """Whether ``state``, as that process sees it, is our state directory: it may have mounts of its own."""
    try:
        return os.path.samestat(os.stat(f"/proc/{pid}/root{state}"), os.stat(store.state))
    except (FileNotFoundError, NotADirectoryError, PermissionError, ProcessLookupError):
        return False
