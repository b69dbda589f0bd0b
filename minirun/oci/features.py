"""What ``features`` tells about us: the features document of the runtime-spec, features.md and features-linux.md.

It says what the program knows, and not what the machine has: engines ask once and keep the answer.
"""

from __future__ import annotations

from minirun.oci import defaults, linux_spec, process_spec, runtime_spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Those of csrc/mount_options.c; what is not there is handed to the file system. Of these each has a recursive form, "r"
# in front, for all mounts of the tree:
_ATTRIBUTES = """
    ro rw suid nosuid dev nodev exec noexec atime noatime relatime norelatime strictatime nostrictatime diratime
    nodiratime symfollow nosymfollow idmap private slave shared unbindable
"""
_FLAGS = """
    defaults bind rbind remount tmpcopyup sync async dirsync mand nomand iversion noiversion lazytime nolazytime silent
    loud
"""
MOUNT_OPTIONS = frozenset([*_FLAGS.split(), *(r + name for name in _ATTRIBUTES.split() for r in ("", "r"))])


def document() -> dict[str, Any]:
    """The features document."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": defaults.VERSION,
        "hooks": list(runtime_spec.HOOKS),
        "mountOptions": sorted(MOUNT_OPTIONS),
        "linux": {
            "namespaces": sorted(linux_spec.NAMESPACES),
            "capabilities": sorted(process_spec.CAPABILITIES),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
            "seccomp": _seccomp(),
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
            "memoryPolicy": {
                "modes": [f"MPOL_{name}" for name in linux_spec.MEMORY_MODES.split()],
                "flags": [f"MPOL_F_{name}" for name in linux_spec.MEMORY_FLAGS.split()],
            },
        },
        "annotations": {},
        "potentiallyUnsafeConfigAnnotations": [],
    }


def _seccomp() -> dict[str, Any]:
    return {
        "enabled": True,
        "actions": sorted(linux_spec.ACTIONS),
        "operators": sorted(linux_spec.OPERATORS),
        "archs": sorted(linux_spec.ARCHITECTURES),
        "knownFlags": sorted(linux_spec.FILTER_FLAGS),
        "supportedFlags": sorted(linux_spec.FILTER_FLAGS),
    }
