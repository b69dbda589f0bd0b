"""What a container gets when nobody says otherwise: one table per subject, each entry with its reason.

The shapes are those of ``config.json`` (runtime-spec, config.md and config-linux.md). One flag of ``minirun run``
undoes each default.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = "1.3.0"  # of the runtime-spec that these documents follow

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

NAMESPACES = ("pid", "mount", "uts", "ipc", "cgroup", "network")

# destination, type, source, options
MOUNTS: tuple[tuple[str, str, str, str], ...] = (
    # A procfs of its own, made inside its PID namespace: it shows the container's processes and no others.
    ("/proc", "proc", "proc", "nosuid,noexec,nodev"),
    # No size of the host's memory: /dev holds nodes and links, a few kilobytes.
    ("/dev", "tmpfs", "tmpfs", "nosuid,noexec,strictatime,mode=755,size=65536k"),
    # newinstance is implied since Linux 4.7; ptmxmode lets every user of the container open a terminal. gid 5 is tty.
    ("/dev/pts", "devpts", "devpts", "nosuid,noexec,ptmxmode=0666,mode=0620,gid=5"),
    ("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"),
    ("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
    # After the network namespace is joined: sysfs shows the network devices of whoever mounts it. Read-only, since
    # writing there changes the machine.
    ("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
    # Its own limits can be read, as programs that size their heaps by them do, and not changed.
    ("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"),
)

# path, type, major, minor, mode: the devices that the runtime-spec promises to every container
DEVICES: tuple[tuple[str, str, int, int, int], ...] = (
    ("/dev/null", "c", 1, 3, 0o666),
    ("/dev/zero", "c", 1, 5, 0o666),
    ("/dev/full", "c", 1, 7, 0o666),
    ("/dev/random", "c", 1, 8, 0o666),
    ("/dev/urandom", "c", 1, 9, 0o666),
    ("/dev/tty", "c", 5, 0, 0o666),
)

LINKS: tuple[tuple[str, str], ...] = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)

# What the devices controller lets the container open. Making any node is allowed (a node alone opens nothing).
DEVICE_RULES: tuple[dict[str, Any], ...] = (
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    *(
        {"allow": True, "type": kind, "major": major, "minor": minor, "access": "rwm"}
        for _, kind, major, minor, _ in DEVICES
    ),
    {"allow": True, "type": "c", "major": 5, "minor": 2, "access": "rwm"},  # /dev/ptmx
    {"allow": True, "type": "c", "major": 136, "access": "rwm"},  # the terminals behind it
)

# The union of what docker and podman hide: each tells something about the host or lets one change it.
MASKED_PATHS: tuple[str, ...] = (
    "/proc/acpi",  # power states of the host
    "/proc/asound",  # sound cards
    "/proc/interrupts",  # timing of the host's devices: keystrokes can be read from it
    "/proc/kcore",  # the kernel's memory
    "/proc/keys",  # keys of all namespaces
    "/proc/latency_stats",
    "/proc/sched_debug",  # every process of the host
    "/proc/scsi",  # detaches disks
    "/proc/timer_list",  # addresses in the kernel, other processes' timers
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",  # power use as a side channel (CVE-2020-8694)
    "/sys/firmware",
    "/sys/fs/selinux",
)

READONLY_PATHS: tuple[str, ...] = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)

PIDS_LIMIT = 2048  # a fork bomb ends here, and no honest program of one container was seen near it

# A core file of a container would be written by the host's core_pattern, with the host's rights.
RLIMITS: tuple[dict[str, Any], ...] = ({"type": "RLIMIT_CORE", "soft": 0, "hard": 0},)
