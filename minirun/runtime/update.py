"""New limits for a container that runs: all of them, or none.

What the kernel refuses now it may take after the others: memory must never exceed memory+swap, nor a quota the period's
share of the one above. So a refused value is tried once more at the end; if it is refused again, all that was written
before is put back.
"""

from __future__ import annotations

from minirun.errors import MinirunError, Unsupported
from minirun.linux import cgroup
from minirun.runtime import placement, resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minirun.runtime.control import Handle

    Limit = list[str]  # as placement.limit_files() has it
    Write = tuple[str, str]  # file and value

# What a line "<device> ..." of these goes back to if the device had none.
_NONE = {
    "io.max": "rbps=max wbps=max riops=max wiops=max",
    "io.latency": "target=0",
    "rdma.max": "hca_handle=max hca_object=max",
    "io.weight": "default",
    "io.bfq.weight": "default",
}


def update(handle: Handle, wanted: dict[str, Any]) -> None:
    """Write the limits of ``wanted``; what it does not name is not touched. Raises with nothing changed."""
    wanted = _with_what_is(handle, wanted)
    _check_memory(handle, wanted)
    limits = placement.limit_files(handle.directories, {**wanted, "devices": None})
    _all_or_none(limits)
    if unit := handle.record.get("unit"):
        from minirun.runtime import systemd

        systemd.change(unit, systemd.limits(limits), bool(handle.record.get("user")))
    if wanted.get("devices"):
        _devices(handle, wanted)


def _with_what_is(handle: Handle, wanted: dict[str, Any]) -> dict[str, Any]:
    """``wanted`` where it leaves out what the other values depend on."""
    wanted = dict(wanted)
    if resources.number(wanted, "pids", "limit") == 0:  # not said, in a document where a number was not optional
        wanted["pids"] = None
    memory = resources.member(wanted, "memory")
    if handle.unified and (memory.get("swap") or 0) > 0 and not memory.get("limit"):
        with open(f"{handle.directories['']}/memory.max") as file:
            text = file.read().strip()
        wanted["memory"] = {**memory, "limit": -1 if text == "max" else int(text)}
    cpu = resources.member(wanted, "cpu")
    if handle.unified and bool(cpu.get("quota")) != bool(cpu.get("period")):
        with open(f"{handle.directories['']}/cpu.max") as file:
            quota, period = file.read().split()
        now = {"quota": -1 if quota == "max" else int(quota), "period": int(period)}
        wanted["cpu"] = {**cpu, **{key: cpu.get(key) or now[key] for key in now}}
    return wanted


def _check_memory(handle: Handle, wanted: dict[str, Any]) -> None:
    """v2 takes a limit below what is in use, and kills until it fits; checkBeforeUpdate asks for an error instead."""
    if not handle.unified or not resources.flag(wanted, "memory", "checkBeforeUpdate"):
        return
    with open(f"{handle.directories['']}/memory.current") as file:
        used = int(file.read())
    for key in ("limit", "swap"):
        value = resources.number(wanted, "memory", key)
        if value is not None and 0 < value <= used:
            what = "memory+swap limit" if key == "swap" else "memory limit"
            raise MinirunError(f"linux.resources.memory.{key}", f"rejecting {what} {value}: in use are {used}")


def _all_or_none(limits: list[Limit]) -> None:
    before: list[Write] = []
    refused = []
    try:
        for limit in limits:
            if not _write(limit, before):
                refused.append(limit)
        for limit in refused:
            before += _before(limit[1], limit[2])
            placement.write_limit(*limit)
    except MinirunError:
        _put_back(before)
        raise


def _write(limit: Limit, before: list[Write]) -> bool:
    """Write one limit, and note in ``before`` what was there. False if the kernel does not take it now."""
    now = _before(limit[1], limit[2]) or (_before(limit[3], limit[4]) if len(limit) > 3 else [])
    try:
        placement.write_limit(*limit)
    except MinirunError as error:
        if isinstance(error, Unsupported):  # there is no such file: it will not come by waiting
            raise
        return False
    before += now
    return True


def _before(path: str, value: str) -> list[Write]:
    """What to write into a control file for it to be as it is now, where ``value`` is about to be written."""
    try:
        with open(path) as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    name, key = path.rsplit("/", 1)[1], value.split(" ", 1)[0]
    if " " in value and name != "cpu.max":  # a line for each device or interface
        found = [line for line in lines if line.split(" ", 1)[0] == key]
        return [(path, found[0] if found else f"{key} {_NONE.get(name, '0')}")]
    if name == "memory.oom_control":
        return [(path, lines[0].split()[1])]
    return [(path, lines[0] if lines else "")]


def _put_back(before: list[Write]) -> None:
    """Backwards; and twice, for those that depend on the others."""
    for path, value in [*reversed(before), *before]:
        try:
            cgroup.write(path, value)
        except OSError:
            continue


def _devices(handle: Handle, wanted: dict[str, Any]) -> None:
    """v2 has a program for all rules. In v1 "deny all" is refused once the container has cgroups of its own: so only
    what differs is written.
    """
    rules = resources.device_rules(wanted)
    if handle.unified:
        from minirun.linux import devices

        devices.attach(handle.directories[""], devices.program(rules), replace=True)
        return
    directory = handle.directories["devices"]
    with open(f"{directory}/devices.list") as file:
        now = file.read().splitlines()
    for file_name, value in device_changes(now, rules):
        placement.write_limit("linux.resources.devices", f"{directory}/devices.{file_name}", value)


def device_changes(now: list[str], rules: list[dict[str, Any]]) -> list[Write]:
    """What to write into ``allow`` and ``deny`` so that a v1 list that reads ``now`` follows ``rules``."""
    everything: Write
    everything, exceptions = ("deny", "a"), dict[str, set[str]]()
    for rule in rules:
        text = resources.device_rule(rule)
        if text == "a":
            everything, exceptions = ("allow" if rule["allow"] else "deny", "a"), {}
            continue
        device, _, rights = text.rpartition(" ")
        against = rule["allow"] != (everything[0] == "allow")
        kept = exceptions.get(device, set())
        exceptions[device] = kept | set(rights) if against else kept - set(rights)
    if everything[0] == "allow" or now == ["a *:* rwm"]:
        turn = "deny" if everything[0] == "allow" else "allow"
        return [everything, *((turn, f"{device} {_rights(those)}") for device, those in exceptions.items() if those)]
    listed = {line.rpartition(" ")[0]: set(line.rpartition(" ")[2]) for line in now}
    changes = []
    for device in dict.fromkeys([*listed, *exceptions]):
        have, want = listed.get(device, set()), exceptions.get(device, set())
        changes += [("allow", f"{device} {_rights(want - have)}")] if want - have else []
        changes += [("deny", f"{device} {_rights(have - want)}")] if have - want else []
    return changes


def _rights(letters: set[str]) -> str:
    return "".join(letter for letter in "rwm" if letter in letters)
