"""What ``linux`` of the runtime-spec may hold, but for ``linux.resources``, which is in ``resources_spec``.

Sources: config-linux.md; namespaces(7), user_namespaces(7), time_namespaces(7), seccomp(2), mknod(2), personality(2),
set_mempolicy(2).
"""

from __future__ import annotations

from minirun.oci.check import (
    ID,
    INT64,
    REQUIRED,
    RULE,
    UINT32,
    UINT64,
    Wrong,
    absolute,
    absolute_or_empty,
    expected,
    interface,
    mapping,
    names,
    number_list,
    text,
    texts,
    unique,
)
from minirun.oci.resources_spec import MAJOR, MINOR, RESOURCES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MEMORY_MODES = "DEFAULT PREFERRED BIND INTERLEAVE LOCAL PREFERRED_MANY WEIGHTED_INTERLEAVE"
MEMORY_FLAGS = "NUMA_BALANCING RELATIVE_NODES STATIC_NODES"
NAMESPACES = names("", "pid network mount ipc uts user cgroup time")
ACTIONS = names("SCMP_ACT_", "KILL KILL_PROCESS KILL_THREAD TRAP ERRNO TRACE ALLOW LOG NOTIFY")
OPERATORS = names("SCMP_CMP_", "NE LT LE EQ GE GT MASKED_EQ")
ARCHITECTURES = names(
    "SCMP_ARCH_",
    "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X PARISC"
    " PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB",
)
FILTER_FLAGS = names("SECCOMP_FILTER_FLAG_", "TSYNC LOG SPEC_ALLOW WAIT_KILLABLE_RECV")
# The spec has four of these; runc has the recursive ones too, and docker writes them.
PROPAGATION = names("", "private slave shared unbindable rprivate rslave rshared runbindable") | {""}


def _mapped(value: dict[str, Any]) -> None:
    for name in ("containerID", "hostID"):
        if value[name] + value["size"] > UINT32[1]:
            raise Wrong(f"expected a range that ends below {UINT32[1]}, got {value[name]} and a size", name)


ID_MAPPINGS = [
    {
        REQUIRED: ("containerID", "hostID", "size"),
        RULE: _mapped,
        "containerID": ID,
        "hostID": ID,
        "size": (1, UINT32[1]),
    }
]


# --- seccomp ---


def _returned(value: dict[str, Any], action: str, number: str) -> None:
    greatest = {"SCMP_ACT_ERRNO": 4095, "SCMP_ACT_TRACE": 0xFFFF}.get(value[action])
    returned = value.get(number)
    if returned is not None and greatest is None:
        raise Wrong(f"{value[action]} returns no number", number)
    if returned is not None and returned > greatest:
        raise expected(f"at most {greatest}", returned, number)


def _call(value: dict[str, Any]) -> None:
    if not value["names"]:
        raise Wrong("expected at least one name", "names")
    if value.get("errnoRet") is not None:
        _returned(value, "action", "errnoRet")


def _seccomp(value: dict[str, Any]) -> None:
    _returned(value, "defaultAction", "defaultErrnoRet")
    if value["defaultAction"] == "SCMP_ACT_NOTIFY":
        raise Wrong("the listener itself could not be handed over", "defaultAction")
    listener = value.get("listenerPath")
    if value.get("listenerMetadata") and not listener:
        raise Wrong("needs listenerPath", "listenerMetadata")
    for index, rule in enumerate(value.get("syscalls") or ()):
        if rule["action"] == "SCMP_ACT_NOTIFY" and not listener:
            raise Wrong("SCMP_ACT_NOTIFY needs listenerPath", "syscalls", index, "action")
        if rule["action"] == "SCMP_ACT_NOTIFY" and "write" in rule["names"]:
            # The one who would answer is told of by a write.
            raise Wrong("SCMP_ACT_NOTIFY cannot be used for the write syscall", "syscalls", index, "names")


_SECCOMP = {
    REQUIRED: ("defaultAction",),
    RULE: _seccomp,
    "defaultAction": ACTIONS,
    "defaultErrnoRet": UINT32,
    "architectures": [ARCHITECTURES],
    "flags": [FILTER_FLAGS],
    "listenerPath": absolute_or_empty,
    "listenerMetadata": text,
    "syscalls": [
        {
            REQUIRED: ("names", "action"),
            RULE: _call,
            "names": texts,
            "action": ACTIONS,
            "errnoRet": UINT32,
            "args": [
                {
                    REQUIRED: ("index", "value", "op"),
                    "index": (0, 5),
                    "value": UINT64,
                    "valueTwo": UINT64,
                    "op": OPERATORS,
                }
            ],
        }
    ],
}


# --- the rest ---


def _device(value: dict[str, Any]) -> None:
    for name in ("major", "minor"):
        if value.get(name) is None and value["type"] != "p":
            raise Wrong("missing", name)


def _cgroups_path(value: Any) -> None:
    text(value)
    parts = value.split("/")
    if "." in parts or ".." in parts or (value and not any(parts)):  # who removes a cgroup kills what is in it
        raise expected("a path below the root of the cgroups, without . and ..", value)


def _sysctl(value: Any) -> None:
    text(value)
    sysctl_path(value)


def sysctl_path(name: str) -> str:
    """The file below /proc/sys. As sysctl(8) has it, the first of ``.`` and ``/`` divides and the other is literal:
    ``net.ipv4.conf.eth0/100.rp_filter`` and ``net/ipv4/conf/eth0.100/rp_filter`` are the same. Raises Wrong.
    """
    dot, slash = name.find("."), name.find("/")
    file = name if dot < 0 or 0 <= slash < dot else name.translate({46: "/", 47: "."})
    if not {"", ".", ".."}.isdisjoint(file.split("/")):
        raise expected("a name like net.ipv4.ip_forward", name)
    return file


def _new_name(value: Any) -> None:
    if value != "":
        interface(value)


def _closid(value: Any) -> None:
    text(value)
    if value in (".", "..") or ("/" in value and value != "/"):  # "/" is the default class
        raise expected("the name of a directory", value)


def _one_line(value: Any) -> None:
    text(value)
    if "\n" in value:
        raise expected("one line", value)


def _bandwidth(value: Any) -> None:
    _one_line(value)
    if value and not value.startswith("MB:"):
        raise expected("a text that begins with MB:", value)


def _paths(value: Any) -> None:
    texts(value)
    for index, path in enumerate(value):
        if not path.startswith("/"):
            raise expected("an absolute path", path, index)


LINUX = {
    "namespaces": unique({REQUIRED: ("type",), "type": NAMESPACES, "path": absolute_or_empty}, "type"),
    "uidMappings": ID_MAPPINGS,
    "gidMappings": ID_MAPPINGS,
    "timeOffsets": mapping({"secs": INT64, "nanosecs": (0, 10**9 - 1)}, names("", "monotonic boottime")),
    "devices": [
        {
            REQUIRED: ("type", "path"),
            RULE: _device,
            "type": names("", "c b u p"),
            "path": absolute,
            "major": MAJOR,
            "minor": MINOR,
            "fileMode": UINT32,
            "uid": ID,
            "gid": ID,
        }
    ],
    "netDevices": mapping({"name": _new_name}, interface),
    "cgroupsPath": _cgroups_path,
    "resources": RESOURCES,
    "sysctl": mapping(text, _sysctl),
    "seccomp": _SECCOMP,
    "rootfsPropagation": PROPAGATION,
    "maskedPaths": _paths,
    "readonlyPaths": _paths,
    "mountLabel": text,
    "personality": {REQUIRED: ("domain",), "domain": names("", "LINUX LINUX32"), "flags": texts},
    "intelRdt": {
        "closID": _closid,
        "l3CacheSchema": text,
        "memBwSchema": _bandwidth,
        "schemata": [_one_line],
        "enableMonitoring": bool,
        "enableCMT": bool,
        "enableMBM": bool,
    },
    "memoryPolicy": {
        REQUIRED: ("mode",),
        "mode": names("MPOL_", MEMORY_MODES),
        "nodes": number_list,
        "flags": [names("MPOL_F_", MEMORY_FLAGS)],
    },
}
