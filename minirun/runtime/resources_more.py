"""The limits that few containers have: block I/O, huge pages, RDMA, network classes, and files of v2 by their names.

A module of its own because a start pays for each line that it imports; ``resources`` asks for it if the document does.
"""

from __future__ import annotations

from minirun.errors import InvalidDocument, Unsupported
from minirun.runtime.resources import Setting, member, number, objects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# key of the spec: file of v1, word of v2 in io.max
_THROTTLES = {
    "throttleReadBpsDevice": ("read_bps_device", "rbps"),
    "throttleWriteBpsDevice": ("write_bps_device", "wbps"),
    "throttleReadIOPSDevice": ("read_iops_device", "riops"),
    "throttleWriteIOPSDevice": ("write_iops_device", "wiops"),
}


def settings(wanted: dict[str, Any], unified: bool, hugetlb_v2: bool) -> list[Setting]:
    """The settings of these sections. Raises Unsupported for what the layout has nothing for."""
    if not unified and wanted.get("unified"):
        raise Unsupported(
            "linux.resources.unified", "invalid configuration: it is for cgroup v2, and here is v1", "leave it out"
        )
    found = _block_io_v2(wanted) if unified else _block_io_v1(wanted)
    found += _huge_pages(wanted, unified or hugetlb_v2)
    found += _rdma(wanted, "" if unified else "rdma")
    return found + (_no_network(wanted) + _unified(wanted) if unified else _network(wanted))


def _block_io_v1(wanted: dict[str, Any]) -> list[Setting]:
    """The weights of CFQ are gone since Linux 5.0; BFQ has the same, but for those of leaves."""
    found: list[Setting] = []
    for key, file in (("weight", "blkio.bfq.weight"), ("leafWeight", "blkio.leaf_weight")):
        if value := number(wanted, "blockIO", key):
            found.append(Setting("blkio", file, str(value), f"linux.resources.blockIO.{key}"))
    for device, where, rule in _block_devices(wanted, "weightDevice"):
        for key, file in (("weight", "blkio.bfq.weight_device"), ("leafWeight", "blkio.leaf_weight_device")):
            if rule.get(key):
                found.append(Setting("blkio", file, f"{device} {rule[key]}", f"{where}.{key}"))
    for key, (file, _) in _THROTTLES.items():
        for device, where, rule in _block_devices(wanted, key):
            found.append(Setting("blkio", f"blkio.throttle.{file}", f"{device} {rule.get('rate') or 0}", where))
    return found


def _block_io_v2(wanted: dict[str, Any]) -> list[Setting]:
    """Weights are BFQ's if that is there, which takes those of v1 as they are, and else those of the cost model."""
    found: list[Setting] = []
    if number(wanted, "blockIO", "leafWeight"):
        raise Unsupported("linux.resources.blockIO.leafWeight", "cgroup v2 has nothing like it", "leave it out")
    if weight := number(wanted, "blockIO", "weight"):
        where = "linux.resources.blockIO.weight"
        found.append(Setting("", "io.bfq.weight", str(weight), where, f"io.weight={io_weight(weight)}"))
    for device, where, rule in _block_devices(wanted, "weightDevice"):
        if rule.get("leafWeight"):
            raise Unsupported(f"{where}.leafWeight", "cgroup v2 has nothing like it", "leave it out")
        if weight := rule.get("weight"):
            otherwise = f"io.weight={device} {io_weight(weight)}"
            found.append(Setting("", "io.bfq.weight", f"{device} {weight}", f"{where}.weight", otherwise))
    for key, (_, word) in _THROTTLES.items():
        for device, where, rule in _block_devices(wanted, key):
            found.append(Setting("", "io.max", f"{device} {word}={rule.get('rate') or 'max'}", where))
    return found


def io_weight(weight: int) -> int:
    """io.weight (1..10000) for blkio's weight (10..1000)."""
    return 1 + (min(max(weight, 10), 1000) - 10) * 9999 // 990


def _unified(wanted: dict[str, Any]) -> list[Setting]:
    found: list[Setting] = []
    for name, value in member(wanted, "unified").items():
        where = f"linux.resources.unified[{name!r:.80}]"
        if not isinstance(value, str):
            raise InvalidDocument(where, "expected a string")
        if "/" in name or "." not in name or "\0" in name:
            raise InvalidDocument(where, "not the name of a control file")
        found += [Setting("", name, line, where) for line in value.splitlines() or [""]]
    return found


def _huge_pages(wanted: dict[str, Any], v2: bool) -> list[Setting]:
    """How much may be in use of each size, as the files are named: 2MB, 1GB."""
    found = []
    controller, last = ("", "max") if v2 else ("hugetlb", "limit_in_bytes")
    for entry, where in objects(wanted.get("hugepageLimits"), "linux.resources.hugepageLimits"):
        size = entry.get("pageSize")
        if not isinstance(size, str) or not size[:1].isdigit() or not size.isalnum():
            raise InvalidDocument(f"{where}.pageSize", f"expected a size such as 2MB, not {size!r:.60}")
        limit = str(_unsigned(entry, "limit", where))
        # What is reserved by mmap(2) counts too (Linux 5.7), or a program dies by SIGBUS where it could have an error.
        found.append(Setting(controller, f"hugetlb.{size}.rsvd.{last}", limit, where, ""))
        found.append(Setting(controller, f"hugetlb.{size}.{last}", limit, where))
    return found


def _rdma(wanted: dict[str, Any], controller: str) -> list[Setting]:
    """What a container may take of each RDMA device."""
    found = []
    for device, limits in member(wanted, "rdma").items():
        where = f"linux.resources.rdma[{device!r:.80}]"
        if not isinstance(limits, dict) or not device or len(device.split()) != 1:
            raise InvalidDocument(where, "expected a device's name and an object")
        names = (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
        words = [f"{name}={_unsigned(limits, key, where)}" for key, name in names if limits.get(key) is not None]
        if not words:
            raise InvalidDocument(where, "expected hcaHandles or hcaObjects")
        found.append(Setting(controller, "rdma.max", " ".join([device, *words]), where))
    return found


def _block_devices(wanted: dict[str, Any], key: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(``major:minor``, place, entry) of a list of blockIO."""
    found = []
    for entry, where in objects(member(wanted, "blockIO").get(key), f"linux.resources.blockIO.{key}"):
        device = f"{_unsigned(entry, 'major', where)}:{_unsigned(entry, 'minor', where)}"
        for name in ("weight", "leafWeight", "rate"):
            if entry.get(name) is not None:
                _unsigned(entry, name, where)
        found.append((device, where, entry))
    return found


def _network(wanted: dict[str, Any]) -> list[Setting]:
    found: list[Setting] = []
    if class_id := number(wanted, "network", "classID"):
        found.append(Setting("net_cls", "net_cls.classid", str(class_id), "linux.resources.network.classID"))
    for entry, where in objects(member(wanted, "network").get("priorities"), "linux.resources.network.priorities"):
        name = entry.get("name")
        if not isinstance(name, str) or len(name.split()) != 1:
            raise InvalidDocument(f"{where}.name", f"expected an interface's name, not {name!r:.60}")
        value = f"{name} {_unsigned(entry, 'priority', where)}"
        found.append(Setting("net_prio", "net_prio.ifpriomap", value, where))
    return found


def _no_network(wanted: dict[str, Any]) -> list[Setting]:
    for one in _network(wanted):
        raise Unsupported(one.where, "cgroup v2 has nothing like it", "leave it out")
    return []


def _unsigned(entry: dict[str, Any], key: str, where: str) -> int:
    value = entry.get(key)
    if type(value) is not int or value < 0:
        raise InvalidDocument(f"{where}.{key}", f"expected a number from 0, not {value!r:.60}")
    return value
