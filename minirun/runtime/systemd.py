"""The cgroup of a container as a transient scope of systemd, which then knows of it and leaves it to us.

A scope is made around a process. Ours are born in their cgroup and so come too late: a helper, which does nothing,
holds the scope open until the container's first process is inside. See systemd.scope(5), and "Delegation" in systemd's
CGROUP_DELEGATION document: below a delegated unit the files are ours, and what systemd sets itself is set by its
properties too, or a `systemctl daemon-reload` would bring the old values back.
"""

from __future__ import annotations

import os

from minirun.errors import Conflict, InvalidDocument, MinirunError, Unsupported
from minirun.linux import cgroup, dbus, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Property = list[Any]  # name, signature, value

_MANAGER = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
_UNLIMITED = (1 << 64) - 1
_NUMBERS = {
    "memory.max": "MemoryMax",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "cpu.weight": "CPUWeight",
    "pids.max": "TasksMax",
    "io.weight": "IOWeight",
}
_MASKS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}


def unit_names(wanted: Any, identity: str, user: bool) -> tuple[str, str]:
    """(slice, scope) for a cgroupsPath of the form ``slice:prefix:name``. Raises InvalidDocument."""
    parts = str(wanted).split(":") if wanted else ["", "minirun", identity]
    if len(parts) != 3 or not parts[2] or any("/" in part or "\0" in part for part in parts):
        raise InvalidDocument("linux.cgroupsPath", f"expected slice:prefix:name for systemd, not {wanted!r:.200}")
    slice_name = parts[0] or ("user.slice" if user else "system.slice")
    if not slice_name.endswith(".slice"):
        raise InvalidDocument("linux.cgroupsPath", f"{slice_name!r:.200} is not the name of a slice")
    return slice_name, f"{parts[1]}-{parts[2]}.scope" if parts[1] else f"{parts[2]}.scope"


def slice_path(name: str) -> str:
    """Where a slice is: ``a-b.slice`` is in ``a.slice``; ``-.slice`` is the root. Raises InvalidDocument."""
    stem = name.removesuffix(".slice")
    if stem == "-":
        return ""
    words = stem.split("-")
    if not all(words):
        raise InvalidDocument("linux.cgroupsPath", f"{name!r:.200} is not the name of a slice")
    return "/".join("-".join(words[: count + 1]) + ".slice" for count in range(len(words)))


def connect(user: bool) -> dbus.Bus:
    """A connection to the manager of the machine or of the user; its private socket if we may, else the bus."""
    base = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}") if user else "/run"
    if not os.path.isdir(f"{base}/systemd{'' if user else '/system'}"):
        remedy = "leave --systemd-cgroup out" if not user else "log in as this user, or loginctl enable-linger"
        raise Unsupported("systemd cgroup driver", "systemd does not run here", remedy)
    try:
        return dbus.Bus(f"{base}/systemd/private")
    except Unsupported:
        bus = dbus.Bus(f"{base}/bus" if user else "/run/dbus/system_bus_socket", "org.freedesktop.systemd1")
        rule = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'"
        name = "org.freedesktop.DBus"
        bus.call("/org/freedesktop/DBus", name, "AddMatch", "s", rule, destination=name)
        bus.call(*_MANAGER, "Subscribe")
        return bus


def root(bus: dbus.Bus) -> str:
    """The cgroup below which this manager has its units, without the first slash."""
    words = ("org.freedesktop.systemd1.Manager", "ControlGroup")
    (found,) = bus.call(_MANAGER[0], "org.freedesktop.DBus.Properties", "Get", "ss", *words)
    return str(found).strip("/")


def place(wanted: Any, identity: str, user: bool) -> tuple[str, str, str]:
    """(cgroup below the mount, unit, slice) of a container. Raises Unsupported without systemd or on v1."""
    slice_name, unit = unit_names(wanted, identity, user)
    inside = slice_path(slice_name)
    bus = connect(user)
    try:
        if not cgroup.layout().unified:
            raise Unsupported("systemd cgroup driver", "needs cgroup v2", "leave --systemd-cgroup out")
        return "/".join(part for part in (root(bus), inside, unit) if part), unit, slice_name
    finally:
        bus.close()


def start(unit: str, properties: list[Property], user: bool) -> tuple[int, int]:
    """Make the scope: (its helper, the socket to it); the helper ends when that is closed, by whatever end of ours."""
    helper, control = _helper()
    bus = connect(user)
    try:
        several = [[name, (kind, value)] for name, kind, value in [*properties, ["PIDs", "au", [helper]]]]
        _job(bus, "StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", several, [])
        return helper, control
    except BaseException as error:
        os.close(control)
        os.waitpid(helper, 0)
        if isinstance(error, dbus.Refused):
            raise _refusal(unit, error) from None
        raise
    finally:
        bus.close()


def _refusal(unit: str, error: dbus.Refused) -> MinirunError:
    if error.name.endswith(".UnitExists"):
        return Conflict(f"unit {unit}", "exists already", "stop it, or choose another linux.cgroupsPath")
    return MinirunError(f"unit {unit}", f"systemd refuses it: {error}")


def stop(unit: str, user: bool) -> None:
    """End the scope and forget how it ended; gone already is fine."""
    bus = connect(user)
    try:
        for method, words in (("StopUnit", ["ss", unit, "replace"]), ("ResetFailedUnit", ["s", unit])):
            try:
                if method == "StopUnit":
                    _job(bus, method, *words)
                else:
                    bus.call(*_MANAGER, method, *words)
            except dbus.Refused:  # it is gone with its last process
                continue
    finally:
        bus.close()


def change(unit: str, properties: list[Property], user: bool) -> None:
    """Set properties of a unit that runs."""
    bus = connect(user)
    try:
        several = [[name, (kind, value)] for name, kind, value in properties]
        bus.call(*_MANAGER, "SetUnitProperties", "sba(sv)", unit, True, several)
    except dbus.Refused as error:
        raise _refusal(unit, error) from None
    finally:
        bus.close()


def _job(bus: dbus.Bus, method: str, signature: str, *values: Any) -> None:
    """Ask for a job and wait until it is done."""
    (job,) = bus.call(*_MANAGER, method, signature, *values)
    while True:
        _, path, unit, result = bus.signal("JobRemoved")
        if path == job:
            break
    if result != "done":
        raise MinirunError(f"unit {unit}", f"systemd's job has ended as {result!r}", f"systemctl status {unit}")


def _helper() -> tuple[int, int]:
    """A minirun-init that waits for us and ends when we do; its pid and the socket to it."""
    from minirun.runtime import init_ops, process

    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    init = syscalls.sealed_copy(process.INIT)
    words = process.memory_file("ops", init_ops.words([["ready"]], ["-"]))
    try:
        pid, pidfd, control = syscalls.spawn(0, init, words, (null, null, null))
        os.close(pidfd)
        return pid, control
    finally:
        for descriptor in (null, init, words):
            os.close(descriptor)


def properties(slice_name: str, identity: str, files: list[list[str]]) -> list[Property]:
    """The properties of a new scope with these limits (``placement.limit_files``)."""
    return [
        ["Description", "s", f"minirun container {identity}"],
        ["Slice", "s", slice_name],
        ["Delegate", "b", True],
        ["DefaultDependencies", "b", False],
        ["CollectMode", "s", "inactive-or-failed"],
        *([name, "b", True] for name in ("MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting")),
        *limits(files),
    ]


def limits(files: list[list[str]]) -> list[Property]:
    """What systemd has properties for, of these limits. What makes no sense is for the kernel to refuse.

    Raises InvalidDocument for a list of CPUs or memory nodes that is none.
    """
    found: list[Property] = []
    for where, path, value, *_ in files:
        name = path.rsplit("/", 1)[1]
        if name in _NUMBERS and (value == "max" or _is_number(value)):
            found.append([_NUMBERS[name], "t", _UNLIMITED if value == "max" else int(value)])
        elif name in _MASKS and value.strip():
            found.append([_MASKS[name], "ay", mask(value, where)])
        elif name == "cpu.max":
            quota, _, period = value.partition(" ")
            period = period or "100000"
            if (quota == "max" or _is_number(quota)) and _is_number(period) and int(period):
                found.append(["CPUQuotaPerSecUSec", "t", quota_per_second(quota, period)])
                found.append(["CPUQuotaPeriodUSec", "t", int(period)])
    return found


def _is_number(text: str) -> bool:
    """Whether it is a number of 64 bits, as properties are."""
    return text.isascii() and text.isdecimal() and len(text) < 21 and int(text) <= _UNLIMITED


def quota_per_second(quota: str, period: str) -> int:
    """Microseconds of CPU time for each second, rounded up to whole percents as systemd counts."""
    if quota == "max":
        return _UNLIMITED
    exact = int(quota) * 1000000 // int(period)
    return min(-(-exact // 10000) * 10000, _UNLIMITED)


def mask(text: str, where: str) -> list[int]:
    """A list of CPUs such as ``0-3,7`` as the bytes of a mask. Raises InvalidDocument."""
    from minirun.runtime import init_ops

    bits = 0
    for number in filter(None, init_ops.cpus(text.strip(), where).split(",")):
        bits |= 1 << int(number)
    return list(bits.to_bytes(max(1, -(-bits.bit_length() // 8)), "little"))
