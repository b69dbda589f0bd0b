"""The container's file system, from config.json to ops: mounts, device nodes, and what runtimes add to the document.

csrc/mounts.c and its neighbours perform these ops. What the document may not ask for is refused here, with its path.
"""

from __future__ import annotations

from minirun.errors import InvalidDocument
from minirun.linux import cgroup
from minirun.oci import defaults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Op = list[str]


def mount_ops(config: dict[str, Any]) -> list[Op]:
    """The mounts in the order of the document; a ``cgroup`` mount becomes what this machine's layout has."""
    ops = []
    for index, mount in enumerate(config.get("mounts") or []):
        target = mount.get("destination")
        if not target:
            raise InvalidDocument(f"mounts[{index}].destination", "missing")
        options = mount.get("options") or []
        kind, source = mount.get("type") or "none", mount.get("source") or "none"
        if kind == "cgroup":
            ops += _cgroup_mounts(target, options)
            continue
        if (kind == "bind" or kind == "none") and "bind" not in options and "rbind" not in options:
            options = ["bind", *options]
        ops.append(["mount", source, target, kind, ",".join(options)])
    return ops


# What programs size themselves by; nothing inside a container reads the other v1 hierarchies.
_READABLE = ("memory", "cpu", "cpuacct", "cpuset", "pids")


def _cgroup_mounts(target: str, options: list[str]) -> list[Op]:
    layout = cgroup.layout()
    kept = ",".join(option for option in options if option not in ("ro", "rw"))
    if layout.unified:
        return [["mount", "cgroup", target, "cgroup2", ",".join(options)]]
    ops: list[Op] = [["mount", "tmpfs", target, "tmpfs", f"{kept},mode=755,size=64k"]]
    by_mount: dict[str, list[str]] = {}
    for name in _READABLE:
        if name in layout.v1:
            by_mount.setdefault(layout.v1[name], []).append(name)
    for mount_point, names in by_mount.items():
        path = f"{target}/{mount_point.rsplit('/', 1)[-1]}"
        ops.append(["mount", "cgroup", path, "cgroup", ",".join([*options, *names])])
    if "ro" in options:  # the tmpfs had to be writable until now
        ops.append(["remount", target, "ro"])
    return ops


def device_ops(linux: dict[str, Any]) -> list[Op]:
    """Nodes for the devices that every container has and for those of the document, and the links in /dev."""
    ops: list[Op] = [
        ["node", path, kind, str(major), str(minor), f"{mode:o}", "0", "0"]
        for path, kind, major, minor, mode in defaults.DEVICES
    ]
    for device in linux.get("devices") or []:
        numbers = [str(device.get(key, 0)) for key in ("major", "minor")]
        owner = [str(device.get(key) or 0) for key in ("uid", "gid")]
        mode = device.get("fileMode")
        ops.append(
            ["node", device["path"], device["type"], *numbers, f"{0o666 if mode is None else mode & 0o7777:o}", *owner]
        )
    return ops + [["symlink", text, path] for text, path in defaults.LINKS]
