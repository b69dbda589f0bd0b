"""Limits: from ``linux.resources`` of the runtime-spec to the control files of either cgroup layout, and back.

The spec's values are those of cgroup v1; what v2 has instead is computed as the spec's table and runc do it.
"""

from __future__ import annotations

from minirun.errors import InvalidDocument
from minirun.linux import cgroup
from minirun.oci import defaults
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    File = list[str]  # a path below the container's cgroup directory of a controller, and the value
    Rule = dict[str, Any]  # an entry of linux.resources.devices


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


def plan(path: str, resources: dict[str, Any]) -> Cgroup:
    """The step for cgroup ``path`` (below the mount points) with the limits of ``linux.resources``."""
    layout = cgroup.layout()
    if layout.unified:
        directory = layout.directory(path)
        return Cgroup([directory], [[f"{directory}/{name}", value] for name, value in v2_files(resources)])
    wanted = v1_files(resources)
    extra = [name for name in dict.fromkeys(controller for controller, _, _ in wanted) if name in cgroup.V1_ON_DEMAND]
    files = [[f"{layout.directory(path, controller)}/{name}", value] for controller, name, value in wanted]
    return Cgroup(layout.directories(path, extra), files)


def device_filters(limits: Cgroup, resources: dict[str, Any]) -> list[DeviceFilter]:
    """What v2 has for the rules that are files on v1. The process must be born after it, and so never be without."""
    rules = device_rules(resources) if cgroup.layout().unified else []
    return [DeviceFilter(limits.directories[0], rules)] if rules else []


def _number(resources: dict[str, Any], section: str, key: str) -> int | None:
    value = (resources.get(section) or {}).get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidDocument(f"linux.resources.{section}.{key}", f"expected int, got {type(value).__name__}")
    return value


def v1_files(resources: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(controller, file, value) in the order in which they must be written."""
    files: list[tuple[str, str, str]] = []

    def put(controller: str, name: str, value: int | str | None) -> None:
        if value is not None:
            files.append((controller, f"{controller.replace('cpuacct', 'cpu')}.{name}", str(value)))

    # The kernel demands memory <= memory+swap at every moment; from unlimited downward, memory comes first.
    put("memory", "limit_in_bytes", _number(resources, "memory", "limit"))
    put("memory", "memsw.limit_in_bytes", _number(resources, "memory", "swap"))
    put("memory", "soft_limit_in_bytes", _number(resources, "memory", "reservation"))
    put("cpu", "shares", _number(resources, "cpu", "shares"))
    put("cpu", "cfs_period_us", _number(resources, "cpu", "period"))
    put("cpu", "cfs_quota_us", _number(resources, "cpu", "quota"))
    cpu = resources.get("cpu") or {}
    put("cpuset", "cpus", cpu.get("cpus"))
    put("cpuset", "mems", cpu.get("mems"))
    pids = _number(resources, "pids", "limit")
    put("pids", "max", None if pids is None else pids if pids > 0 else "max")
    put("blkio", "weight", _number(resources, "blockIO", "weight"))
    for rule in device_rules(resources):
        files.append(("devices", "devices.allow" if rule.get("allow") else "devices.deny", device_rule(rule)))
    return files


def v2_files(resources: dict[str, Any]) -> list[tuple[str, str]]:
    """(file, value) for the one directory of v2."""
    files: list[tuple[str, str]] = []
    memory, swap = _number(resources, "memory", "limit"), _number(resources, "memory", "swap")
    if memory is not None:
        files.append(("memory.max", _or_max(memory)))
    if swap is not None:  # the spec's swap is memory+swap; v2's is swap alone
        files.append(("memory.swap.max", _or_max(swap if swap < 0 else swap - max(memory or 0, 0))))
    reservation = _number(resources, "memory", "reservation")
    if reservation is not None:
        files.append(("memory.low", _or_max(reservation)))
    shares = _number(resources, "cpu", "shares")
    if shares:
        files.append(("cpu.weight", str(weight_of_shares(shares))))
    quota, period = _number(resources, "cpu", "quota"), _number(resources, "cpu", "period")
    if quota is not None or period is not None:
        files.append(("cpu.max", f"{_or_max(quota if quota else -1)} {period or 100000}"))
    cpu = resources.get("cpu") or {}
    files += [(f"cpuset.{key}", cpu[key]) for key in ("cpus", "mems") if cpu.get(key)]
    pids = _number(resources, "pids", "limit")
    if pids is not None:
        files.append(("pids.max", _or_max(pids if pids > 0 else -1)))
    weight = _number(resources, "blockIO", "weight")
    if weight:
        files.append(("io.weight", str(1 + (weight - 10) * 9999 // 990)))
    files += [(name, str(value)) for name, value in (resources.get("unified") or {}).items()]
    return files


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)


def weight_of_shares(shares: int) -> int:
    """cpu.weight (1..10000) for cpu.shares (2..262144), linear between the ends as the runtimes agreed on."""
    return 1 + (min(max(shares, 2), 262144) - 2) * 9999 // 262142


def device_rules(resources: dict[str, Any]) -> list[Rule]:
    """The rules of the document and, last, those for the devices that the runtime-spec promises to every container.

    Documents that deny everything rely on that: it is what `runc spec` and podman write. Without rules there are none.
    """
    rules: list[Rule] = resources.get("devices") or []
    for index, rule in enumerate(rules):
        _check_device(rule, f"linux.resources.devices[{index}]")
    promised = list(defaults.DEVICE_RULES[1:])
    return rules + promised if rules and rules[-len(promised) :] != promised else rules


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
