"""What fields of a ``config.json`` mean together: what no kernel can do is refused here, before anything is done.

The rules are runc's where the runtime-spec is silent. They look at documents whose fields are well typed (``check``).
"""

from __future__ import annotations

from minirun.errors import InvalidDocument
from minirun.oci.check import path, show
from minirun.oci.linux_spec import sysctl_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Document = dict[str, Any]
    Namespaces = dict[str, str]  # of each type, the path of the one to join, or "" for a new one


def combine(config: Document) -> list[str]:
    """Check the combinations of a well-typed document. Raises InvalidDocument; returns warnings."""
    linux = config.get("linux") or {}
    namespaces = {entry["type"]: entry.get("path") or "" for entry in linux.get("namespaces") or ()}
    _names(config, namespaces)
    _file_system(config, linux, namespaces)
    _users(config, linux, namespaces)
    _clocks(linux, namespaces)
    _network(linux, namespaces)
    for name in linux.get("sysctl") or ():
        _sysctl(name, namespaces)
    return [*_mounts(config, linux, namespaces), *_personality(linux)]


def _names(config: Document, namespaces: Namespaces) -> None:
    for name in ("hostname", "domainname"):
        if config.get(name) and "uts" not in namespaces:
            raise InvalidDocument(name, "needs a namespace of type uts")


def _file_system(config: Document, linux: Document, namespaces: Namespaces) -> None:
    """Without a mount namespace these would change the host's own tree. Mounts do, too, and are undone at delete."""
    if "mount" in namespaces:
        return
    for name in ("maskedPaths", "readonlyPaths"):
        if linux.get(name):
            raise InvalidDocument(f"linux.{name}", "needs a namespace of type mount")


def _users(config: Document, linux: Document, namespaces: Namespaces) -> None:
    """A joined user namespace has its mappings; podman repeats them in the document."""
    new = namespaces.get("user") == ""
    user = (config.get("process") or {}).get("user") or {}
    for name, field in (("uidMappings", "uid"), ("gidMappings", "gid")):
        where, mappings = f"linux.{name}", linux.get(name) or []
        if mappings and "user" not in namespaces:
            raise InvalidDocument(where, "needs a namespace of type user")
        if not new:
            continue
        if not mappings:
            raise InvalidDocument(where, "missing: a new user namespace needs it")
        if not _is_mapped(0, mappings):
            raise InvalidDocument(where, "nothing stands for 0, root of the container")
        if not _is_mapped(user.get(field) or 0, mappings):
            raise InvalidDocument(f"process.user.{field}", f"{user[field]} is not in {where}")
        for index, group in enumerate(user.get("additionalGids") or () if field == "gid" else ()):
            if not _is_mapped(group, mappings):
                raise InvalidDocument(f"process.user.additionalGids[{index}]", f"{group} is not in {where}")


def _is_mapped(number: int, mappings: list[Document]) -> bool:
    return any(0 <= number - entry["containerID"] < entry["size"] for entry in mappings)


def _clocks(linux: Document, namespaces: Namespaces) -> None:
    if linux.get("timeOffsets") and namespaces.get("time") != "":
        raise InvalidDocument("linux.timeOffsets", "needs a new namespace of type time")


def _network(linux: Document, namespaces: Namespaces) -> None:
    if linux.get("netDevices") and "network" not in namespaces:
        raise InvalidDocument("linux.netDevices", "needs a namespace of type network")


# Those of the kernel that belong to a namespace, and to which; below net/ all do, as far as a namespace shows them.
_IPC = ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
_OWNERS = {**{f"kernel/{name}": "ipc" for name in _IPC}, "kernel/domainname": "uts"}


def _sysctl(name: str, namespaces: Namespaces) -> None:
    """A parameter that is no namespace's is the machine's, and a container does not change that."""
    file, where = sysctl_path(name), path("linux.sysctl", [name])
    if file == "kernel/hostname":
        raise InvalidDocument(where, "is what the field hostname is for")
    owner = "network" if file.startswith("net/") else "ipc" if file.startswith("fs/mqueue/") else _OWNERS.get(file)
    if owner is None:
        raise InvalidDocument(where, "belongs to no namespace")
    if owner not in namespaces:
        raise InvalidDocument(where, f"needs a namespace of type {owner}")


def _mounts(config: Document, linux: Document, namespaces: Namespaces) -> list[str]:
    warnings = []
    for index, mount in enumerate(config.get("mounts") or ()):
        destination = mount["destination"]
        if not destination.startswith("/"):  # the spec: deprecated, and to be taken so
            warnings.append(f"mounts[{index}].destination: {show(destination)} is relative, taken to be below /")
        options = mount.get("options") or ()
        users, groups = mount.get("uidMappings"), mount.get("gidMappings")
        if (users or groups) and not (users and groups):
            missing = "gidMappings" if users else "uidMappings"
            raise InvalidDocument(f"mounts[{index}].{missing}", "missing: the other is there")
        if users and "bind" not in options and "rbind" not in options:
            raise InvalidDocument(f"mounts[{index}].uidMappings", "only a bind mount can have them")
        if not users and "user" not in namespaces and ("idmap" in options or "ridmap" in options):
            raise InvalidDocument(f"mounts[{index}].options", "idmap needs uidMappings or a namespace of type user")
    return warnings


def _personality(linux: Document) -> list[str]:
    flags = (linux.get("personality") or {}).get("flags")
    return ["linux.personality.flags: none is known, left out"] if flags else []
