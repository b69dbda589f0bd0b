"""The container's file system, from config.json to ops: mounts, device nodes, and what runtimes add to the document.

csrc/mounts.c and its neighbours perform these ops. What the document may not ask for is refused here, with its path.
"""

from __future__ import annotations

import os

from minirun.errors import InvalidDocument
from minirun.linux import cgroup, mounts
from minirun.oci import defaults
from minirun.runtime import namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    Op = list[str]
    Mapping = dict[str, int]
    Idmap = Callable[[Sequence[Mapping], Sequence[Mapping]], str]

# What may be covered below /proc: files that tell a size or a state, as lxcfs has them. Anything else there could undo
# a mask or a read-only path, and with them what keeps the container from the machine's settings (CVE-2019-16884).
_BELOW_PROC = (
    *("/proc/cpuinfo", "/proc/diskstats", "/proc/loadavg", "/proc/meminfo", "/proc/slabinfo", "/proc/stat"),
    *("/proc/swaps", "/proc/uptime", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled"),
)
# Their files are the kernel's, and have its labels.
_UNLABELLED = ("proc", "sysfs", "mqueue", "cgroup", "cgroup2")


class _Mount:
    """One entry of ``mounts``: where it stands in the document, and what it means.

    ``users`` and ``groups`` are the id maps of a bind mount that ``mapped`` ("idmap", or "ridmap" for all its tree)
    shows the owners of files through; ``mapped`` is "" for all others.
    """

    __slots__ = ("bind", "groups", "kind", "mapped", "options", "remount", "source", "target", "users", "where")

    def __init__(self, where: str, entry: dict[str, Any], bundle: str) -> None:
        self.where, self.kind, self.source = where, entry.get("type") or "none", entry.get("source") or ""
        destination = entry.get("destination")
        if not destination:
            raise InvalidDocument(f"{where}.destination", "missing")
        self.target = os.path.normpath("/" + destination.lstrip("/"))
        words = [word for text in entry.get("options") or [] for word in text.split(",") if word]
        self.users, self.groups = entry.get("uidMappings") or [], entry.get("gidMappings") or []
        self.mapped = "ridmap" if "ridmap" in words else "idmap" if self.users or "idmap" in words else ""
        self.options = [word for word in words if word not in ("idmap", "ridmap")]
        self.remount = "remount" in words
        self.bind = not self.remount and ("bind" in words or "rbind" in words or self.kind in ("bind", "none"))
        if self.bind:
            self._complete(bundle)
        self._refuse()

    def _complete(self, bundle: str) -> None:
        """The type of a bind mount means nothing; its source is a path of the host's, or below the bundle."""
        if not self.source:
            raise InvalidDocument(f"{self.where}.source", "missing: what is to be mounted")
        if "bind" not in self.options and "rbind" not in self.options:
            self.options = ["bind", *self.options]
        self.kind, self.source = "none", os.path.join(bundle, self.source)

    def _refuse(self) -> None:
        why = ""
        if self.target == "/" and not self.bind and not self.remount:
            why = "a new file system on / would hide the root"
        elif self.target == "/proc" and not self.remount and self.kind != "proc" and not self._is_procfs():
            why = "only a procfs can be mounted on /proc"
        elif self.target.startswith("/proc/") and self.target not in _BELOW_PROC:
            why = f"{self.target!r} is inside /proc, where nothing may be covered"
        elif self.mapped and not self.bind:
            why = "only a bind mount can have id maps"
        if why:
            raise InvalidDocument(f"{self.where}.destination", why)

    def _is_procfs(self) -> bool:
        return self.bind and mounts.kind(os.path.realpath(self.source)) == "proc"


def _entries(config: dict[str, Any], bundle: str) -> list[_Mount]:
    return [_Mount(f"mounts[{index}]", entry, bundle) for index, entry in enumerate(config.get("mounts") or [])]


def _ops(config: dict[str, Any], bundle: str, cgroups: Sequence[str]) -> Iterator[tuple[_Mount, Op]]:
    """Every op that mounts, in order, with the entry that it comes from."""
    label = (config.get("linux") or {}).get("mountLabel")
    for mount in _entries(config, bundle):
        options = mount.options
        if mount.kind == "cgroup" and not mount.remount:
            for op in _cgroup_ops(config, mount.target, options, bundle, cgroups):
                yield mount, op
            continue
        if label and not mount.bind and mount.kind not in _UNLABELLED:
            options = [*options, f'context="{label}"']
        if mount.target == "/dev":  # nodes and the terminal are made in it before: see ``closing_ops``
            options = [word for word in options if word != "ro"]
        yield mount, ["mount", mount.source or "none", mount.target, mount.kind, ",".join(options)]


def mount_ops(config: dict[str, Any], bundle: str = "", cgroups: Sequence[str] = ()) -> list[Op]:
    """The mounts in the order of the document; a ``cgroup`` mount becomes what this machine's layout has.

    ``bundle`` is the directory that relative sources are below; "" for a document of the engine, which shows a
    container only those hierarchies of cgroup v1 that programs look at. ``cgroups`` are the files that init has joined.
    """
    return [op for _, op in _ops(config, bundle, cgroups)]


def before_fork(
    config: dict[str, Any], bundle: str, root: str, cgroups: Sequence[str], idmap: Idmap, rootless: bool = False
) -> list[Op]:
    """The ops that take ``root`` and the sources of all bind mounts, while init still has the host's rights.

    Root of a user namespace need not be able to reach them, and could not map their owners. ``idmap`` gives the file of
    a user namespace with these maps. An ordinary user has no rights before the fork: what is mounted is what the root
    of its user namespace can reach.
    """
    forks = "user" in namespaces.kinds(config)
    entries = _entries(config, bundle)
    if not any(mount.mapped for mount in entries) and (rootless or not forks):
        return []
    # In a user namespace nothing may get out; elsewhere it is what "propagation" would have made of it.
    mode = "rslave" if forks else propagation_mode(config)
    found = [["tree", root, "rbind", "-"]]
    for mount, op in _ops(config, bundle, cgroups):
        words = op[-1].split(",")
        if op[0] == "mount" and not mount.remount and ("bind" in words or "rbind" in words):
            how = ["rbind" if "rbind" in words else "bind", mode, mount.mapped]
            userns = _userns(config, mount, idmap) if mount.mapped else "-"
            found.append(["tree", op[1], ",".join(word for word in how if word), userns])
    return found


def _userns(config: dict[str, Any], mount: _Mount, idmap: Idmap) -> str:
    """The file of a user namespace with the id maps of a bind mount; one that is joined has the maps itself."""
    linux, joined = config.get("linux") or {}, namespaces.kinds(config).get("user")
    if joined and not mount.users and not linux.get("uidMappings"):
        return joined
    return idmap(*_maps(config, mount))


def _maps(config: dict[str, Any], mount: _Mount) -> tuple[Sequence[Mapping], Sequence[Mapping]]:
    """The id maps of a bind mount: its own, or the container's."""
    linux = config.get("linux") or {}
    users, groups = mount.users or linux.get("uidMappings"), mount.groups or linux.get("gidMappings")
    if not users or not groups:
        raise InvalidDocument(f"{mount.where}.options", "idmap needs uidMappings and gidMappings, here or in linux")
    return users, groups


def propagation_mode(config: dict[str, Any]) -> str:
    """What mounts of the host mean in the container's mount namespace, from before its root is made.

    Only "shared" lets mounts out, those in volumes: the root is private until ``root_ops`` makes it what the document
    asks for. "unbindable" is for then, too, or the root could not be made.
    """
    mode = (config.get("linux") or {}).get("rootfsPropagation") or "rprivate"
    return "rslave" if mode.endswith("slave") else mode if mode.endswith("shared") else "rprivate"


# What programs size themselves by; nothing inside a container of ours reads the other v1 hierarchies.
_READABLE = ("memory", "cpu", "cpuacct", "cpuset", "pids")


def _cgroup_ops(
    config: dict[str, Any], target: str, options: list[str], bundle: str, cgroups: Sequence[str]
) -> list[Op]:
    layout = cgroup.layout()
    if layout.unified:
        return [["mount", "cgroup", target, "cgroup2", ",".join(options)]]
    kept = ",".join(option for option in options if option not in ("ro", "rw"))
    ops: list[Op] = [["mount", "tmpfs", target, "tmpfs", f"{kept},mode=755,size=64k"]]
    own = "cgroup" not in namespaces.kinds(config) and bool(bundle)
    for mount_point, names in _hierarchies(layout, bool(bundle)):
        base = mount_point.rsplit("/", 1)[-1]
        if own:  # with the host's cgroup namespace a new mount would show everybody's
            found = [path for path in cgroups if path.startswith(f"{mount_point}/")]
            ops += [
                ["mount", path.rsplit("/", 1)[0], f"{target}/{base}", "none", ",".join(["bind", *options])]
                for path in found[:1]
            ]
        else:
            ops.append(["mount", "cgroup", f"{target}/{base}", "cgroup", ",".join([*options, *names])])
        if "," in base:
            ops += [["symlink", base, f"{target}/{name}"] for name in base.split(",")]
    if "ro" in options:  # the tmpfs had to be writable until now
        ops.append(["remount", target, "ro"])
    return ops


def _hierarchies(layout: cgroup.Layout, everything: bool) -> list[tuple[str, list[str]]]:
    """Each mount point of v1, and what is mounted there; two controllers may be mounted together."""
    found: dict[str, list[str]] = {}
    for name, mount_point in layout.v1.items():
        if everything or name in _READABLE:
            found.setdefault(mount_point, []).append(name)
    if layout.systemd and everything:
        found[layout.systemd] = ["none", "name=systemd"]
    return list(found.items())


def device_ops(config: dict[str, Any]) -> list[Op]:
    """Nodes for the devices that every container has and for those of the document, and the links in /dev.

    None of them where the document has a /dev of the host's.
    """
    if any(mount.bind and mount.target == "/dev" for mount in _entries(config, "/")):
        return []
    nodes: dict[str, Op] = {
        path: ["node", path, kind, str(major), str(minor), f"{mode:o}", "0", "0"]
        for path, kind, major, minor, mode in defaults.DEVICES
    }
    for device in (config.get("linux") or {}).get("devices") or []:
        path = os.path.normpath(device["path"])
        numbers = [str(device.get(key) or 0) for key in ("major", "minor")]
        owner = [str(device.get(key) or 0) for key in ("uid", "gid")]
        mode = device.get("fileMode")
        wanted = f"{0o666 if mode is None else mode & 0o7777:o}"
        nodes[path] = ["node", path, device["type"], *numbers, wanted, *owner]
    nodes.pop("/dev/ptmx", None)  # that of the container's own devpts, by a link
    return [*nodes.values(), *(["symlink", text, path] for text, path in defaults.LINKS)]


def closing_ops(config: dict[str, Any]) -> list[Op]:
    """What becomes read-only or is masked when all that belongs into the root is there."""
    linux = config.get("linux") or {}
    closed = [mount for mount in _entries(config, "/") if mount.target == "/dev" and "ro" in mount.options]
    return [
        *([["remount", "/dev", "ro"]] if closed else []),
        # Read-only before masked: a masked file below a read-only directory must stay masked.
        *(["readonly", path] for path in linux.get("readonlyPaths") or []),
        *(["mask", path] for path in linux.get("maskedPaths") or []),
    ]


def root_ops(config: dict[str, Any]) -> list[Op]:
    """What the root becomes when it is "/"."""
    mode = (config.get("linux") or {}).get("rootfsPropagation")
    return [
        # Of the root alone: volumes have their own.
        *([["propagation", mode.removeprefix("r")]] if mode else []),
        *([["remount", "/", "ro"]] if (config.get("root") or {}).get("readonly") else []),
    ]
