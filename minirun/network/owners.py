"""Whether the owner of a lease still lives: told by the kernel, so that no pid used again and no reboot can fool it.

A lease says in its line ``alive`` how its owner is found:

    (no such line)              a container: as long as <state>/locks/<owner> exists. That file is locked while the
                                container's command or monitor lives, and removed last of all by whoever cleans up after
                                them: so an address is not given again while a dead container's cable may still be there
    alive file PATH BOOT        as long as that file exists, in this boot
    alive process PID START BOOT    a process, by its number, its start in clock ticks after boot, and the boot
    alive boot BOOT             until it is given back, or until the next boot

Whatever is not understood is alive.
"""

from __future__ import annotations

import os

from minirun import store
from minirun.linux import syscalls
from minirun.network.ipam import UNKNOWN, Held

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def process(pid: int) -> str:
    """The line of a lease that a process owns. Raises ProcessLookupError if it is gone."""
    text = store.read(f"/proc/{pid}/stat")
    if text is None:
        raise ProcessLookupError(pid)
    start = text.rpartition(")")[2].split()[19]  # field 22 of proc_pid_stat(5)
    return f"alive process {pid} {start} {_boot()}"


def file(path: str) -> str:
    """The line of a lease that lasts as long as a file exists; ``path`` is absolute."""
    return f"alive file {path} {_boot()}"


def boot() -> str:
    """The line of a lease that lasts until it is given back, or until the next boot."""
    return f"alive boot {_boot()}"


def alive(lease: Held) -> bool:
    """Whether the owner of a lease lives, or may live. Processes are those of our pid namespace."""
    if lease.owner == UNKNOWN:
        return True
    told = lease.notes.get("alive")
    if told is None:
        return os.path.lexists(f"{store.state}/locks/{lease.owner}")  # whatever lies there: a link to nowhere, too
    kind, *words = told.split() or [""]
    if kind == "file" and len(words) >= 2:
        path = told.removeprefix("file ").rpartition(" ")[0]
        return words[-1] == _boot() and os.path.lexists(path)
    if kind == "boot" and len(words) == 1:
        return words[0] == _boot()
    if kind == "process" and len(words) == 3 and words[0].isdecimal() and words[1].isdecimal():
        return words[2] == _boot() and _runs(int(words[0]), int(words[1]))
    return True


def _boot() -> str:
    return (store.read(BOOT_ID) or "").strip()


def _runs(pid: int, start: int) -> bool:
    if not 0 < pid < 1 << 31:
        return True
    try:
        descriptor = syscalls.open_process(pid, start)
    except ProcessLookupError:
        return False
    except OSError:  # EMFILE
        return True
    try:
        return not syscalls.ended([descriptor], 0)  # a zombie has ended
    finally:
        os.close(descriptor)
