"""Names and numbers of what a process may do: capabilities, namespaces, resource limits.

The kernel speaks in bits, documents and people in names; these tables are the one place where the two meet. Sources:
capabilities(7), clone(2), getrlimit(2), docker-run(1) for ``--cap-add`` and ``--cap-drop``. On the path of every
``minirun run``: no imports but os.
"""

from __future__ import annotations

import os

from minirun.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# In the order of their bits, <linux/capability.h>.
_CAPABILITIES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
    SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
    MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
CAPABILITIES = tuple(f"CAP_{name}" for name in _CAPABILITIES.split())
_BIT = {name: bit for bit, name in enumerate(CAPABILITIES)}

# What root in a container keeps: enough to own files, change user, listen below 1024 and install packages. Not
# NET_RAW (forged packets on the bridge), MKNOD (device nodes), AUDIT_WRITE (lines in the host's audit log).
_DEFAULT = "CHOWN DAC_OVERRIDE FSETID FOWNER SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL"
DEFAULT_CAPABILITIES = tuple(f"CAP_{name}" for name in _DEFAULT.split())

# runtime-spec's names of the namespaces, and the flags of clone(2).
NAMESPACES = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "network": 0x40000000,
    "time": 0x00000080,
}

# <asm-generic/resource.h>; mips, sparc and alpha number five of them differently.
_RLIMITS = "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"
RLIMITS = {f"RLIMIT_{name}": number for number, name in enumerate(_RLIMITS.split())}


def last_capability() -> int:
    """The highest capability that this kernel knows."""
    descriptor = os.open("/proc/sys/kernel/cap_last_cap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(descriptor, 16))
    finally:
        os.close(descriptor)


def mask(names: Iterable[str]) -> int:
    """The bits of capabilities. A name that is not one has none: whoever read the document has warned of it."""
    bits = 0
    for name in names:
        if name in _BIT:
            bits |= 1 << _BIT[name]
    return bits


def names(bits: int) -> list[str]:
    """The capabilities in a mask, as CapBnd of proc_pid_status(5) shows one."""
    return [name for bit, name in enumerate(CAPABILITIES) if bits >> bit & 1]


def bounding() -> int:
    """What this process may give at most: its bounding set."""
    descriptor = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.read(descriptor, 1 << 14).decode("ascii", "replace")
    finally:
        os.close(descriptor)
    return int(status.partition("\nCapBnd:")[2].split(None, 1)[0], 16)


def divide(wanted: Iterable[str]) -> tuple[list[str], list[str]]:
    """Those of ``wanted`` that can be granted here, and the others: unknown, or outside our own bounding set.

    runtime-spec wants a warning and no failure for the others.
    """
    possible = frozenset(names(bounding()))
    granted: list[str] = []
    refused: list[str] = []
    for name in wanted:
        (granted if name in possible else refused).append(name)
    return granted, refused


def adjust(add: Iterable[str] = (), drop: Iterable[str] = ()) -> list[str]:
    """The default capabilities with those of ``--cap-add`` and without those of ``--cap-drop``.

    Names may lack ``CAP_`` and be in any case. ``ALL`` added means all that we may give, ``ALL`` dropped means to start
    from none. Raises UsageError for an unknown name, and for one that is both added and dropped.
    """
    added = {_parse(text, "--cap-add") for text in add}
    dropped = {_parse(text, "--cap-drop") for text in drop}
    for name in sorted(added & dropped):
        raise UsageError(f"--cap-drop {name}", "it is in --cap-add too", "give one of the two")
    if "ALL" in added:
        added.update(names(bounding()))
    base = frozenset() if "ALL" in dropped else frozenset(DEFAULT_CAPABILITIES)
    return [name for name in CAPABILITIES if name in (base | added) and name not in dropped]


def _parse(text: str, flag: str) -> str:
    name = text.upper()
    if name == "ALL":
        return name
    name = name if name.startswith("CAP_") else f"CAP_{name}"
    if name not in _BIT:
        raise UsageError(f"{flag} {text}", "not a capability", "capabilities(7) lists them: CHOWN, NET_ADMIN ...")
    return name
