"""What ``linux.resources`` of the runtime-spec may hold, in a ``config.json`` and in what ``update`` reads.

Sources: config-linux.md; the kernel's cgroup-v1 and cgroup-v2 documents.
"""

from __future__ import annotations

from minirun.oci.check import (
    INT64,
    REQUIRED,
    RULE,
    UINT32,
    UINT64,
    Wrong,
    expected,
    interface,
    mapping,
    names,
    number_list,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAJOR, MINOR = (0, (1 << 12) - 1), (0, (1 << 20) - 1)  # of the kernel's dev_t: mknod(2) would cut off the rest
_ANY_MAJOR, _ANY_MINOR = (-1, MAJOR[1]), (-1, MINOR[1])  # -1 is any
_LIMIT = (-1, INT64[1])  # -1 is none
_WEIGHT = (0, 1000)  # 0 is "not set"


def _access(value: Any) -> None:
    text(value)
    if not set(value) <= {"r", "w", "m"}:
        raise expected("letters of rwm", value)


def _swappiness(value: Any) -> None:
    if type(value) is not int or not (0 <= value <= 100 or value == UINT64[1]):  # the last is old docker's "not set"
        raise expected("0 to 100", value)


def _memory(value: dict[str, Any]) -> None:
    limit, swap = value.get("limit") or 0, value.get("swap") or 0
    if 0 < swap < limit:
        raise Wrong(f"expected memory and swap together to be at least the memory's {limit}, got {swap}", "swap")


def _cpu(value: dict[str, Any]) -> None:
    quota, burst = value.get("quota") or 0, value.get("burst") or 0
    if 0 < quota < burst:
        raise Wrong(f"expected at most the quota {quota}, got {burst}", "burst")


def _weights(value: dict[str, Any]) -> None:
    if value.get("weight") is None and value.get("leafWeight") is None:
        raise Wrong("missing", "weight")


def _rdma(value: dict[str, Any]) -> None:
    if value.get("hcaHandles") is None and value.get("hcaObjects") is None:
        raise Wrong("missing", "hcaHandles")


def _rdma_device(value: Any) -> None:
    text(value)
    if value.split() != [value] or "/" in value:
        raise expected("the name of a device", value)


def _page_size(value: Any) -> None:
    """It becomes a part of a file's name."""
    text(value)
    number = value[:-2]
    if value[-2:] not in ("KB", "MB", "GB") or not number.isascii() or not number.isdigit() or number[0] == "0":
        raise expected("a size like 64KB, 2MB or 1GB", value)


def _control_file(value: Any) -> None:
    """The name of a file in the cgroup's own directory."""
    text(value)
    controller, _, parameter = value.partition(".")
    if "/" in value or not controller or not parameter:
        raise expected("the name of a control file, like memory.high", value)


_RATES = [{REQUIRED: ("major", "minor", "rate"), "major": MAJOR, "minor": MINOR, "rate": UINT64}]

RESOURCES = {
    "devices": [
        {
            REQUIRED: ("allow",),
            "allow": bool,
            "type": names("", "a b c") | {""},
            "major": _ANY_MAJOR,
            "minor": _ANY_MINOR,
            "access": _access,
        }
    ],
    "memory": {
        RULE: _memory,
        "limit": _LIMIT,
        "reservation": _LIMIT,
        "swap": _LIMIT,
        "kernel": _LIMIT,
        "kernelTCP": _LIMIT,
        "swappiness": _swappiness,
        "disableOOMKiller": bool,
        "useHierarchy": bool,
        "checkBeforeUpdate": bool,
    },
    "cpu": {
        RULE: _cpu,
        "shares": UINT64,
        "quota": INT64,
        "burst": UINT64,
        "period": UINT64,
        "realtimeRuntime": INT64,
        "realtimePeriod": UINT64,
        "cpus": number_list,
        "mems": number_list,
        "idle": (0, 1),
    },
    "pids": {"limit": INT64},
    "blockIO": {
        "weight": _WEIGHT,
        "leafWeight": _WEIGHT,
        "weightDevice": [
            {
                REQUIRED: ("major", "minor"),
                RULE: _weights,
                "major": MAJOR,
                "minor": MINOR,
                "weight": _WEIGHT,
                "leafWeight": _WEIGHT,
            }
        ],
        "throttleReadBpsDevice": _RATES,
        "throttleWriteBpsDevice": _RATES,
        "throttleReadIOPSDevice": _RATES,
        "throttleWriteIOPSDevice": _RATES,
    },
    "hugepageLimits": [{REQUIRED: ("pageSize", "limit"), "pageSize": _page_size, "limit": UINT64}],
    "network": {
        "classID": UINT32,
        "priorities": [{REQUIRED: ("name", "priority"), "name": interface, "priority": UINT32}],
    },
    "rdma": mapping({RULE: _rdma, "hcaHandles": UINT32, "hcaObjects": UINT32}, _rdma_device),
    "unified": mapping(text, _control_file),
}
