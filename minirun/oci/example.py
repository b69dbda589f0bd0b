"""The document that ``spec`` writes into a new bundle: a shell in ``rootfs``, as runc's has it, with our defaults."""

from __future__ import annotations

from minirun.oci import defaults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Fewer than `run` gives: this is a beginning, and who edits it adds what the program needs.
CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")


def document(rootless: bool = False, euid: int = 0, egid: int = 0, unified: bool = True) -> dict[str, Any]:
    """The whole ``config.json``; a rootless one maps ``euid`` and ``egid``, the caller's, to root inside.

    Only cgroup v2 (``unified``) gets a cgroup namespace: on v1, tools inside look for the host's paths.
    """
    config: dict[str, Any] = {
        "ociVersion": defaults.VERSION,
        "process": _process(),
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "minirun",
        "mounts": [
            {"destination": destination, "type": kind, "source": source, "options": options.split(",")}
            for destination, kind, source, options in defaults.MOUNTS
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in defaults.NAMESPACES if unified or kind != "cgroup"],
            "maskedPaths": list(defaults.MASKED_PATHS),
            "readonlyPaths": list(defaults.READONLY_PATHS),
        },
    }
    if rootless:
        _make_rootless(config, euid, egid)
    return config


def _process() -> dict[str, Any]:
    held = list(CAPABILITIES)
    return {
        "terminal": True,
        "user": {"uid": 0, "gid": 0},
        "args": ["sh"],
        "env": [f"PATH={defaults.PATH}", "TERM=xterm"],
        "cwd": "/",
        "capabilities": {"bounding": held, "effective": list(held), "permitted": list(held), "ambient": []},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
    }


def _make_rootless(config: dict[str, Any], euid: int, egid: int) -> None:
    """What an ordinary user cannot do is taken out: other ids, a network of its own, limits."""
    linux = config["linux"]
    del linux["resources"]
    linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "network"] + [{"type": "user"}]
    linux["uidMappings"] = [{"containerID": 0, "hostID": euid, "size": 1}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": egid, "size": 1}]
    for mount in config["mounts"]:
        # One id is mapped, and the group of terminals is another.
        mount["options"] = [option for option in mount["options"] if not option.startswith(("uid=", "gid="))]
        if mount["type"] == "sysfs":  # belongs to the network namespace, which is the host's: it cannot be mounted anew
            mount.update(type="none", source="/sys", options=["rbind", "nosuid", "noexec", "nodev", "ro"])
