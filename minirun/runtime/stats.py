"""What a container uses, in the shape that ``runc events --stats`` has made common: its "data".

Numbers are as the kernel has them, times in nanoseconds. Where v2 counts differently than v1 it is turned into what v1
would say, since that is what the programs that read it expect.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from minirun.runtime.control import Handle

    Stats = dict[str, Any]

UNLIMITED = (1 << 64) - 1
_TICK = 10_000_000  # cpuacct.stat counts in USER_HZ, which is 100 for every program of this kernel
_PRESSURE = (("cpu", "cpu"), ("memory", "memory"), ("blkio", "io"))


def stats(handle: Handle) -> Stats:
    """The "data" of an event of type stats; a controller that is not there is an empty object."""
    places = handle.directories
    if handle.unified:
        found = _v2(places[""])
    else:
        found = {name: read(places[at]) if at in places else {} for name, at, read in _V1}
        if "cpu" in places:
            found["cpu"]["throttling"] = _throttling(places["cpu"])
        if not found["hugetlb"] and "" in places:
            found["hugetlb"] = _huge_pages(places[""])
    for section, file in _PRESSURE:
        if "" in places and (pressure := _pressure(f"{places['']}/{file}.pressure")):
            found[section]["psi"] = pressure
    return {**found, "intel_rdt": {}, "network_interfaces": []}


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:  # this kernel has no such file, or the container has just ended
        return ""


def _number(path: str) -> int:
    text = _text(path).strip()
    return UNLIMITED if text == "max" else int(text or 0)


def _pairs(path: str) -> dict[str, int]:
    """A file of lines with a word and a number."""
    return {word: int(value) for word, _, value in (line.partition(" ") for line in _text(path).splitlines())}


def _cpu_v1(directory: str) -> Stats:
    rows = [line.split() for line in _text(f"{directory}/cpuacct.usage_all").splitlines()[1:]]
    ticks = _pairs(f"{directory}/cpuacct.stat")
    usage = {
        "total": _number(f"{directory}/cpuacct.usage"),
        "percpu": [int(word) for word in _text(f"{directory}/cpuacct.usage_percpu").split()],
        "percpu_user": [int(row[1]) for row in rows],
        "percpu_kernel": [int(row[2]) for row in rows],
        "user": ticks.get("user", 0) * _TICK,
        "kernel": ticks.get("system", 0) * _TICK,
    }
    return {"usage": usage}


def _throttling(directory: str) -> Stats:
    found = _pairs(f"{directory}/cpu.stat")
    time = found.get("throttled_time", 0) or found.get("throttled_usec", 0) * 1000
    return {
        "periods": found.get("nr_periods", 0),
        "throttledPeriods": found.get("nr_throttled", 0),
        "throttledTime": time,
    }


def _cpuset_v1(directory: str) -> Stats:
    numbers = (
        ("cpu_exclusive", "mem_exclusive", "mem_hardwall", "memory_migrate", "memory_pressure"),
        ("memory_spread_page", "memory_spread_slab", "sched_load_balance", "sched_relax_domain_level"),
    )
    found: Stats = {name: _number(f"{directory}/cpuset.{name}") for line in numbers for name in line}
    return found | {name: list(_range(_text(f"{directory}/cpuset.{name}"))) for name in ("cpus", "mems")}


def _range(text: str) -> Iterator[int]:
    """The numbers of a list such as ``0-3,7``."""
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            yield from range(int(first), int(last or first) + 1)


def _memory_v1(directory: str) -> Stats:
    raw = _pairs(f"{directory}/memory.stat")

    def usage(prefix: str) -> Stats:
        files = (("usage", "usage_in_bytes"), ("max", "max_usage_in_bytes"), ("limit", "limit_in_bytes"))
        found = {name: _number(f"{directory}/memory.{prefix}{file}") for name, file in files}
        return found | {"failcnt": _number(f"{directory}/memory.{prefix}failcnt")}

    kinds = (("usage", ""), ("swap", "memsw."), ("kernel", "kmem."), ("kernelTCP", "kmem.tcp."))
    return {"cache": raw.get("cache", 0), **{name: usage(prefix) for name, prefix in kinds}, "raw": raw}


def _pids(directory: str) -> Stats:
    limit = _number(f"{directory}/pids.max")
    return {"current": _number(f"{directory}/pids.current"), "limit": 0 if limit == UNLIMITED else limit}


def _block_io_v1(directory: str) -> Stats:
    """BFQ's counters if they count, else those of the throttling, which sees every request."""
    kinds = (("ioServiceBytesRecursive", "io_service_bytes"), ("ioServicedRecursive", "io_serviced"))
    for policy in ("bfq", "throttle"):
        files = [(name, f"{directory}/blkio.{policy}.{file}_recursive") for name, file in kinds]
        found = {name: list(_device_lines(_text(path))) for name, path in files}
        if any(entry["value"] for entries in found.values() for entry in entries):
            break
    return found


def _device_lines(text: str) -> Iterator[Stats]:
    """``8:0 Read 4096``; the last line is a sum without a device."""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3:
            yield _entry(words[0], words[1], words[2])


def _entry(device: str, operation: str, value: str) -> Stats:
    major, _, minor = device.partition(":")
    return {"major": int(major), "minor": int(minor), "op": operation, "value": int(value)}


def _huge_pages(directory: str) -> Stats:
    """By the size of the page; v2 has ``current`` and ``events`` where v1 has three files."""
    found = {}
    for name in sorted(os.listdir(directory) if os.path.isdir(directory) else []):
        kind, _, rest = name.partition(".")
        size, _, last = rest.partition(".")
        path = f"{directory}/hugetlb.{size}"
        if kind == "hugetlb" and last == "current":
            usage, failures = _number(f"{path}.current"), _pairs(f"{path}.events").get("max", 0)
            found[size] = {"usage": usage, "max": 0, "failcnt": failures}
        if kind == "hugetlb" and last == "usage_in_bytes":
            usage, most = _number(f"{path}.usage_in_bytes"), _number(f"{path}.max_usage_in_bytes")
            found[size] = {"usage": usage, "max": most, "failcnt": _number(f"{path}.failcnt")}
    return found


_V1 = (
    ("cpu", "cpuacct", _cpu_v1),
    ("cpuset", "cpuset", _cpuset_v1),
    ("memory", "memory", _memory_v1),
    ("pids", "pids", _pids),
    ("blkio", "blkio", _block_io_v1),
    ("hugetlb", "hugetlb", _huge_pages),
)


def _v2(directory: str) -> Stats:
    return {
        "cpu": _cpu_v2(directory),
        "cpuset": {},
        "memory": _memory_v2(directory),
        "pids": _pids(directory),
        "blkio": _block_io_v2(directory),
        "hugetlb": _huge_pages(directory),
    }


def _cpu_v2(directory: str) -> Stats:
    found = _pairs(f"{directory}/cpu.stat")
    names = (("total", "usage_usec"), ("user", "user_usec"), ("kernel", "system_usec"))
    usage = {name: found.get(file, 0) * 1000 for name, file in names}
    return {"usage": usage, "throttling": _throttling(directory)}


def _memory_v2(directory: str) -> Stats:
    """Swap is memory and swap together, as in v1."""
    raw = _pairs(f"{directory}/memory.stat")
    usage = {
        "limit": _number(f"{directory}/memory.max"),
        "usage": _number(f"{directory}/memory.current"),
        "max": _number(f"{directory}/memory.peak"),
        "failcnt": _pairs(f"{directory}/memory.events").get("max", 0),
    }
    swap = {
        "limit": min(_number(f"{directory}/memory.swap.max") + usage["limit"], UNLIMITED),
        "usage": _number(f"{directory}/memory.swap.current") + usage["usage"],
        "max": 0,
        "failcnt": _pairs(f"{directory}/memory.swap.events").get("fail", 0),
    }
    return {"cache": raw.get("file", 0), "usage": usage, "swap": swap, "kernel": {}, "kernelTCP": {}, "raw": raw}


def _block_io_v2(directory: str) -> Stats:
    """``8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0``"""
    letters = (("Read", "r"), ("Write", "w"), ("Discard", "d"))
    size: list[Stats] = []
    count: list[Stats] = []
    for line in _text(f"{directory}/io.stat").splitlines():
        device, *words = line.split()
        values = dict(word.split("=", 1) for word in words if "=" in word)
        for operation, letter in letters:
            size.append(_entry(device, operation, values.get(f"{letter}bytes", "0")))
            count.append(_entry(device, operation, values.get(f"{letter}ios", "0")))
    return {"ioServiceBytesRecursive": size, "ioServicedRecursive": count}


def _pressure(path: str) -> Stats:
    """How long processes have waited: ``some avg10=0.00 avg60=0.00 avg300=0.00 total=0``, and the same for ``full``."""
    found: Stats = {}
    for line in _text(path).splitlines():
        kind, *words = line.split()
        values = dict(word.split("=", 1) for word in words)
        found[kind] = {name: int(value) if name == "total" else float(value) for name, value in values.items()}
    return found
