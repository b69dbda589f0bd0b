"""Limits: from ``linux.resources`` of the runtime-spec to the control files of either cgroup layout.

Here is what nearly every container has: memory, CPU, the number of processes, devices. The spec's values are those of
cgroup v1, where they are written as they are; what v2 has instead is computed as the spec's table and other runtimes do
it. What v2 has nothing for is refused: silence would be a limit that somebody believes in. A zero is "not said" for
every limit that cannot be zero, as it was before the spec had optional numbers. See the kernel's documentation,
admin-guide/cgroup-v1 and admin-guide/cgroup-v2.
"""

from __future__ import annotations

from minirun.errors import InvalidDocument, Unsupported
from minirun.linux import cgroup
from minirun.oci import defaults
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    File = list[str]  # a path below the container's cgroup directory of a controller, and the value
    Rule = dict[str, Any]  # an entry of linux.resources.devices

_V1_NUMBERS = {
    "memory": {
        # The kernel demands memory <= memory+swap at every moment; from unlimited downward, memory comes first.
        "limit": "memory.limit_in_bytes",
        "swap": "memory.memsw.limit_in_bytes",
        "reservation": "memory.soft_limit_in_bytes",
        "kernelTCP": "memory.kmem.tcp.limit_in_bytes",
    },
    "cpu": {
        "shares": "cpu.shares",
        # The period first, since a runtime above the old period is refused.
        "realtimePeriod": "cpu.rt_period_us",
        "realtimeRuntime": "cpu.rt_runtime_us",
        "period": "cpu.cfs_period_us",
        "quota": "cpu.cfs_quota_us",
    },
}
_V2_LACKS = (
    ("memory", "kernelTCP"),
    ("memory", "swappiness"),
    ("memory", "disableOOMKiller"),
    ("cpu", "realtimeRuntime"),
    ("cpu", "realtimePeriod"),
)
_LESS_COMMON = ("blockIO", "hugepageLimits", "rdma", "network", "unified")


class Cgroup(Step):
    """Make the container's cgroup and set its limits."""

    kind = "cgroup"
    fields = ("directories", "files")
    directories: list[str]
    files: list[File]

    def sh(self) -> str:
        lines = ["mkdir -p " + " ".join(self.directories)]
        lines += [f"echo '{value}' > {path}" for path, value in self.files]
        return "\n".join(lines)

    def do(self) -> None:
        for directory in self.directories:
            cgroup.create(directory)
        for path in dict.fromkeys(path for path, _ in self.files):
            cgroup.write(path, *(value for file, value in self.files if file == path))

    def undo(self) -> None:
        for directory in reversed(self.directories):
            cgroup.remove(directory)


class DeviceFilter(Step):
    """Let the container's cgroup of v2 use the devices of ``rules`` and no others; it lasts as long as the cgroup."""

    kind = "device-filter"
    fields = ("directory", "rules")
    directory: str
    rules: list[Rule]

    def sh(self) -> str:
        head = "# No command does this: a BPF program is attached to the cgroup (bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE)."
        words = [f"{'allow' if rule.get('allow') else 'deny'} {device_rule(rule)}" for rule in self.rules]
        return "\n#   ".join([f"{head}\n# In {self.directory} the last of these that fits decides:", *words])

    def do(self) -> None:
        from minirun.linux import devices  # not imported on v1

        devices.attach(self.directory, devices.program(self.rules))

    def undo(self) -> None:
        """Nothing: it goes with the cgroup."""


class Setting:
    """A value for a control file of a controller ("" in v2), and the place in the document that asks for it.

    ``otherwise`` tells what to do where the kernel has no such file: nothing (""), or ``file=value``; else it is an
    error.
    """

    __slots__ = ("controller", "file", "otherwise", "value", "where")

    def __init__(self, controller: str, file: str, value: str, where: str, otherwise: str | None = None) -> None:
        self.controller, self.file, self.value, self.where, self.otherwise = controller, file, value, where, otherwise


def plan(path: str, resources: dict[str, Any]) -> Cgroup:
    """The step for cgroup ``path`` (below the mount points) with the limits of ``linux.resources``."""
    layout = cgroup.layout()
    wanted = settings(resources, layout.unified)
    extra = [name for name in dict.fromkeys(one.controller for one in wanted) if name in cgroup.V1_ON_DEMAND]
    files = [[f"{layout.directory(path, one.controller)}/{one.file}", one.value] for one in wanted]
    return Cgroup(layout.directories(path, extra), files)


def device_filters(limits: Cgroup, resources: dict[str, Any]) -> list[DeviceFilter]:
    """What v2 has for the rules that are files on v1. The process must be born after it, and so never be without."""
    rules = device_rules(resources) if cgroup.layout().unified else []
    return [DeviceFilter(limits.directories[0], rules)] if rules else []


def settings(wanted: dict[str, Any], unified: bool, hugetlb_v2: bool = False) -> list[Setting]:
    """What ``linux.resources`` asks for, in the order in which it must be written.

    ``unified``: for v2, else for v1. ``hugetlb_v2``: on this machine of v1 huge pages are counted in the tree of v2.
    """
    found = [*_memory_v2(wanted), *_cpu_v2(wanted)] if unified else [*_memory_v1(wanted), *_cpu_v1(wanted)]
    found += _pids("" if unified else "pids", wanted)
    if any(wanted.get(section) for section in _LESS_COMMON):
        from minirun.runtime import resources_more

        found += resources_more.settings(wanted, unified, hugetlb_v2)
    return found if unified else [*found, *_devices_v1(wanted)]


def _numbers_v1(wanted: dict[str, Any], section: str) -> list[Setting]:
    found = []
    for key, file in _V1_NUMBERS[section].items():
        if value := number(wanted, section, key):
            found.append(Setting(section, file, str(value), f"linux.resources.{section}.{key}"))
    return found


def _memory_v1(wanted: dict[str, Any]) -> list[Setting]:
    found = _numbers_v1(wanted, "memory")
    where = "linux.resources.memory"
    if number(wanted, "memory", "limit") == -1 and not number(wanted, "memory", "swap"):
        # No limit of memory below a limit of memory+swap would be none. A kernel that does not count swap has no file.
        found.insert(0, Setting("memory", "memory.memsw.limit_in_bytes", "-1", f"{where}.limit", ""))
    swappiness = number(wanted, "memory", "swappiness")
    if swappiness is not None:
        if not 0 <= swappiness <= 100:
            raise InvalidDocument(f"{where}.swappiness", f"expected 0 to 100, not {swappiness}")
        found.append(Setting("memory", "memory.swappiness", str(swappiness), f"{where}.swappiness"))
    # What is false is how every cgroup begins.
    for key, file in (("useHierarchy", "memory.use_hierarchy"), ("disableOOMKiller", "memory.oom_control")):
        if flag(wanted, "memory", key):
            found.append(Setting("memory", file, "1", f"{where}.{key}"))
    return found


def _cpu_v1(wanted: dict[str, Any]) -> list[Setting]:
    found = _numbers_v1(wanted, "cpu")
    for key, file in (("burst", "cpu.cfs_burst_us"), ("idle", "cpu.idle")):
        value = number(wanted, "cpu", key)
        if value is not None:
            found.append(Setting("cpu", file, str(value), f"linux.resources.cpu.{key}"))
    return found + _cpuset("cpuset", wanted)


def _cpuset(controller: str, wanted: dict[str, Any]) -> list[Setting]:
    values = [(key, text(wanted, "cpu", key)) for key in ("cpus", "mems")]
    return [Setting(controller, f"cpuset.{key}", value, f"linux.resources.cpu.{key}") for key, value in values if value]


def _pids(controller: str, wanted: dict[str, Any]) -> list[Setting]:
    """The number of tasks: none at all would be no container, so 0 means no limit as -1 does."""
    limit = number(wanted, "pids", "limit")
    if limit is None:
        return []
    return [Setting(controller, "pids.max", str(limit) if limit > 0 else "max", "linux.resources.pids.limit")]


def _devices_v1(wanted: dict[str, Any]) -> list[Setting]:
    return [
        Setting("devices", "devices.allow" if rule["allow"] else "devices.deny", device_rule(rule), where)
        for rule, where in placed_device_rules(wanted)
    ]


def _memory_v2(wanted: dict[str, Any]) -> list[Setting]:
    for section, key in _V2_LACKS:
        if member(wanted, section).get(key):
            raise Unsupported(f"linux.resources.{section}.{key}", "cgroup v2 has nothing like it", "leave it out")
    found: list[Setting] = []
    where = "linux.resources.memory"
    limit, reservation = (number(wanted, "memory", key) for key in ("limit", "reservation"))
    swap = swap_alone(limit, number(wanted, "memory", "swap"))
    if swap is not None:
        # A kernel without swap has no such file, and then both of these are true already.
        otherwise = "" if swap in ("max", "0") else None
        found.append(Setting("", "memory.swap.max", swap, f"{where}.swap", otherwise))
    if limit:
        found.append(Setting("", "memory.max", or_max(limit), f"{where}.limit"))
    if reservation:
        found.append(Setting("", "memory.low", or_max(reservation), f"{where}.reservation"))
    return found


def swap_alone(limit: int | None, both: int | None) -> str | None:
    """memory.swap.max for the spec's limit and swap: there swap is memory and swap together."""
    if not both:
        return "max" if limit == -1 else None
    if both < 0:
        return "max"
    where = "linux.resources.memory.swap"
    if not limit:
        raise InvalidDocument(where, "is memory+swap, and there is no linux.resources.memory.limit to take away")
    if limit < 0:
        raise InvalidDocument(where, "cannot be limited where linux.resources.memory.limit is not")
    if both < limit:
        raise InvalidDocument(where, f"is memory+swap: {both} is less than linux.resources.memory.limit, {limit}")
    return str(both - limit)


def _cpu_v2(wanted: dict[str, Any]) -> list[Setting]:
    found: list[Setting] = []
    where = "linux.resources.cpu"
    shares, quota, period, burst, idle = (
        number(wanted, "cpu", key) for key in ("shares", "quota", "period", "burst", "idle")
    )
    if idle is not None:
        found.append(Setting("", "cpu.idle", str(idle), f"{where}.idle"))
    if shares and not idle:  # the kernel refuses a weight for what is idle
        found.append(Setting("", "cpu.weight", str(weight_of_shares(shares)), f"{where}.shares"))
    if quota or period:
        value = f"{or_max(quota or -1)} {period or 100000}"
        found.append(Setting("", "cpu.max", value, f"{where}.{'quota' if quota else 'period'}"))
    if burst is not None:
        found.append(Setting("", "cpu.max.burst", str(burst), f"{where}.burst"))
    return found + _cpuset("", wanted)


def weight_of_shares(shares: int) -> int:
    """cpu.weight (1..10000) for cpu.shares (2..262144), linear between the ends as the runtimes agreed on."""
    return 1 + (min(max(shares, 2), 262144) - 2) * 9999 // 262142


def or_max(value: int) -> str:
    """A limit as v2 writes it."""
    return "max" if value < 0 else str(value)


def member(wanted: dict[str, Any], section: str) -> dict[str, Any]:
    """An object of ``linux.resources``, empty if it is not there."""
    found = wanted.get(section)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidDocument(f"linux.resources.{section}", f"expected an object, got {type(found).__name__}")
    return found


def number(wanted: dict[str, Any], section: str, key: str) -> int | None:
    """A number of the document."""
    value = member(wanted, section).get(key)
    if value is None:
        return None
    if type(value) is not int:
        raise InvalidDocument(f"linux.resources.{section}.{key}", f"expected int, got {type(value).__name__}")
    return value


def flag(wanted: dict[str, Any], section: str, key: str) -> bool:
    """A truth value of the document."""
    value = member(wanted, section).get(key)
    if value is not None and not isinstance(value, bool):
        raise InvalidDocument(f"linux.resources.{section}.{key}", f"expected bool, got {type(value).__name__}")
    return bool(value)


def text(wanted: dict[str, Any], section: str, key: str) -> str:
    """A string of the document, "" if it is not there."""
    value = member(wanted, section).get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidDocument(f"linux.resources.{section}.{key}", f"expected string, got {type(value).__name__}")
    return value or ""


def objects(value: Any, where: str) -> list[tuple[dict[str, Any], str]]:
    """A list of objects, each with its place."""
    if value is not None and not isinstance(value, list):
        raise InvalidDocument(where, f"expected a list, got {type(value).__name__}")
    for index, entry in enumerate(value or []):
        if not isinstance(entry, dict):
            raise InvalidDocument(f"{where}[{index}]", f"expected an object, got {type(entry).__name__}")
    return [(entry, f"{where}[{index}]") for index, entry in enumerate(value or [])]


def device_rules(resources: dict[str, Any]) -> list[Rule]:
    """The rules of the document and, last, those for the devices that the runtime-spec promises to every container.

    Documents that deny everything rely on that: it is what `runc spec` and podman write. Without rules there are none.
    """
    return [rule for rule, _ in placed_device_rules(resources)]


def placed_device_rules(wanted: dict[str, Any]) -> list[tuple[Rule, str]]:
    """The same rules, each with its place in the document."""
    rules = objects(wanted.get("devices"), "linux.resources.devices")
    for rule, where in rules:
        _check_device(rule, where)
    promised = list(defaults.DEVICE_RULES[1:])
    if not rules or [rule for rule, _ in rules[-len(promised) :]] == promised:
        return rules
    return rules + [(rule, "linux.resources.devices") for rule in promised]


def _check_device(rule: Any, where: str) -> None:
    if not isinstance(rule, dict) or not isinstance(rule.get("allow"), bool):
        raise InvalidDocument(f"{where}.allow", "expected true or false")
    if rule.get("type") not in (None, "", "a", "b", "c"):
        raise InvalidDocument(f"{where}.type", f"expected a, b or c, not {rule['type']!r:.60}")
    access = rule.get("access")
    if access is not None and (not isinstance(access, str) or not set(access) <= set("rwm")):
        raise InvalidDocument(f"{where}.access", f"expected letters of rwm, not {access!r:.60}")
    for key in ("major", "minor"):
        number = rule.get(key)
        if number is not None and (type(number) is not int or number > _UINT32):
            raise InvalidDocument(f"{where}.{key}", f"expected a device number, not {number!r:.60}")


_UINT32 = (1 << 32) - 1


def device_rule(rule: Rule) -> str:
    """A rule of the v1 devices controller: ``c 1:3 rwm``; without a number it is ``*``, and type ``a`` means all."""
    kind = rule.get("type") or "a"
    if kind == "a":
        return "a"
    numbers = (rule.get("major"), rule.get("minor"))
    major, minor = ("*" if number is None or number < 0 else str(number) for number in numbers)
    return f"{kind} {major}:{minor} {rule.get('access') or 'rwm'}"
