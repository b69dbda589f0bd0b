"""What ``process`` of the runtime-spec may hold, in a ``config.json`` and in the file that ``exec --process`` reads.

Sources: config.md; capabilities(7), getrlimit(2), sched_setattr(2), ioprio_set(2).
"""

from __future__ import annotations

from minirun.oci.check import (
    ID,
    INT32,
    REQUIRED,
    RULE,
    UINT64,
    Wrong,
    absolute,
    expected,
    names,
    number_list,
    path,
    show,
    text,
    texts,
    unique,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CAPABILITIES = names(
    "CAP_",
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE"
    " NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN"
    " SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE"
    " MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE",
)
CAPABILITY_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
RLIMITS = names(
    "RLIMIT_", "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"
)
_POLICIES = names("SCHED_", "OTHER FIFO RR BATCH ISO IDLE DEADLINE")
_SCHEDULER_FLAGS = names(
    "SCHED_FLAG_", "RESET_ON_FORK RECLAIM DL_OVERRUN KEEP_POLICY KEEP_PARAMS UTIL_CLAMP_MIN UTIL_CLAMP_MAX"
)


def _variables(value: Any) -> None:
    texts(value)
    for index, entry in enumerate(value):
        if entry.find("=") < 1:
            raise expected("NAME=value", entry, index)


def _arguments(value: Any) -> None:
    texts(value)
    if not value:
        raise Wrong("expected at least the program's name")


def _rlimit(value: dict[str, Any]) -> None:
    if value["soft"] > value["hard"]:
        raise Wrong(f"expected at most the hard limit {value['hard']}, got {value['soft']}", "soft")


def _scheduler(value: dict[str, Any]) -> None:
    policy = value["policy"]
    if value.get("priority") and policy not in ("SCHED_FIFO", "SCHED_RR"):
        raise Wrong(f"{policy} has none", "priority")
    for name in ("runtime", "deadline", "period"):
        if value.get(name) and policy != "SCHED_DEADLINE":
            raise Wrong(f"{policy} has none", name)


PROCESS = {
    REQUIRED: ("args", "cwd"),
    "terminal": bool,
    "consoleSize": {REQUIRED: ("height", "width"), "height": (0, 0xFFFF), "width": (0, 0xFFFF)},
    "user": {"uid": ID, "gid": ID, "umask": (0, 0o777), "additionalGids": [ID]},
    "args": _arguments,
    "env": _variables,
    "cwd": absolute,
    "capabilities": dict.fromkeys(CAPABILITY_SETS, texts),
    "rlimits": unique(
        {REQUIRED: ("type", "soft", "hard"), RULE: _rlimit, "type": RLIMITS, "soft": UINT64, "hard": UINT64}, "type"
    ),
    "noNewPrivileges": bool,
    "apparmorProfile": text,
    "selinuxLabel": text,
    "oomScoreAdj": (-1000, 1000),
    "scheduler": {
        REQUIRED: ("policy",),
        RULE: _scheduler,
        "policy": _POLICIES,
        "nice": (-20, 19),
        "priority": INT32,
        "flags": [_SCHEDULER_FLAGS],
        "runtime": UINT64,
        "deadline": UINT64,
        "period": UINT64,
    },
    "ioPriority": {REQUIRED: ("class",), "class": names("IOPRIO_CLASS_", "RT BE IDLE"), "priority": (0, 7)},
    "execCPUAffinity": {"initial": number_list, "final": number_list},
}


def warnings(process: dict[str, Any], where: str) -> list[str]:
    """The capabilities that cannot be given: the spec wants a warning and no failure."""
    result = []
    for name, wanted in (process.get("capabilities") or {}).items():
        if name in CAPABILITY_SETS and wanted and not CAPABILITIES.issuperset(wanted):
            for index, capability in enumerate(wanted):
                if capability not in CAPABILITIES:
                    here = path(where, ["capabilities", name, index])
                    result.append(f"{here}: {show(capability)} is not known here, left out")
    return result + _never_ambient(process.get("capabilities") or {}, where)


def _never_ambient(sets: dict[str, Any], where: str) -> list[str]:
    """The kernel raises an ambient capability only if it is permitted and inheritable (capabilities(7)).

    Documents of older tools, which have ambient ones and no inheritable ones at all, are passed over in silence.
    """
    possible = set(sets.get("permitted") or []) & set(sets.get("inheritable") or [])
    if not sets.get("inheritable"):
        return []
    wanted = CAPABILITIES.intersection(sets.get("ambient") or []) - possible
    here = path(where, ["capabilities", "ambient"])
    return [
        f"{here}: can't raise ambient capability {name}: it is not permitted and inheritable" for name in sorted(wanted)
    ]
