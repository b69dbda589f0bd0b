"""The default ``linux.seccomp`` of a container: the groups that its capabilities and its machine call for.

The data, with its reasons, is in ``seccomp_groups``; this makes the OCI object of it (runtime-spec, config-linux.md).
On the path of every ``minirun run``: no imports beyond the table.
"""

from __future__ import annotations

from minirun.oci.seccomp_groups import ALLOW, EPERM, ERRNO, GROUPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from minirun.oci.seccomp_groups import Group

# The 32-bit ABI that a 64-bit kernel also speaks (uname -m).
_COMPAT = {"x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]}


def default_profile(capabilities: Iterable[str], machine: str = "", *, compat: bool = False) -> dict[str, Any]:
    """The profile for a container whose bounding set is ``capabilities`` (``CAP_…``).

    ``machine`` is ``uname -m``; it matters on s390 only. No ``architectures`` are named, which means the native one:
    any other ABI ends the process, as its calls have numbers that this list does not speak of. ``compat`` lets the
    32-bit one in.
    """
    held = frozenset(capabilities)
    profile: dict[str, Any] = {"defaultAction": ERRNO, "defaultErrnoRet": EPERM}
    if compat and machine in _COMPAT:
        profile["architectures"] = _COMPAT[machine]
    profile["syscalls"] = [rule for group in GROUPS if _applies(group, held, machine, compat) for rule in _rules(group)]
    return profile


def _applies(group: Group, held: frozenset[str], machine: str, compat: bool) -> bool:
    if group.compat and not compat:
        return False
    if (group.machines and machine not in group.machines) or machine in group.not_machines:
        return False
    return held.isdisjoint(group.lacks) and not (group.needs and held.isdisjoint(group.needs))


def _rules(group: Group) -> Iterator[dict[str, Any]]:
    """One rule for each way of meeting the group's conditions."""
    for conditions in group.only_if:
        rule: dict[str, Any] = {"names": group.names, "action": ERRNO if group.errno else ALLOW}
        if group.errno:
            rule["errnoRet"] = group.errno
        if conditions:
            rule["args"] = conditions
        yield rule
