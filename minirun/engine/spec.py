"""config.json of one container: the defaults, the image's configuration and the options, in this order of strength."""

from __future__ import annotations

import os

from minirun import store
from minirun.errors import InvalidDocument, UsageError
from minirun.linux import security
from minirun.oci import defaults, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from minirun.engine.options import RunOptions
    from minirun.engine.users import User


def environment(image: dict[str, Any], options: RunOptions, hostname: str, user: User) -> list[str]:
    """Later entries win: PATH and HOSTNAME, the image's, TERM, those of ``-e``; HOME only if nobody set it.

    An image's entry without "=" is dropped: for ``-e NAME`` that form means the caller's own variable, and an image
    must not read those (CVE-2026-57231).
    """
    values = {"PATH": defaults.PATH, "HOSTNAME": hostname}
    if options.tty:
        values["TERM"] = "xterm"
    for entry in image.get("Env") or []:
        name, equals, value = entry.partition("=")
        if name and equals and "\0" not in entry:
            values[name] = value
    values.update(options.env)
    values.setdefault("HOME", user.home)
    return [f"{name}={value}" for name, value in values.items()]


def arguments(image: dict[str, Any], options: RunOptions) -> list[str]:
    """The program and its arguments: ``--entrypoint`` replaces the image's and drops its Cmd (docker-run(1))."""
    entrypoint = image.get("Entrypoint") or []
    command = options.command or image.get("Cmd") or []
    if options.entrypoint is not None:
        entrypoint = [options.entrypoint] if options.entrypoint else []
        command = options.command
    args = [*entrypoint, *command]
    if not args:
        raise UsageError("no command", f"image {options.image} names none", "add one: minirun run IMAGE COMMAND")
    if any("\0" in arg for arg in args):
        raise UsageError("the command", "contains a NUL byte")
    return args


def resources(options: RunOptions) -> dict[str, Any]:
    """``linux.resources`` of the runtime-spec."""
    result: dict[str, Any] = {"devices": list(defaults.DEVICE_RULES), "pids": {"limit": options.pids_limit}}
    if options.memory:
        # Without a limit on swap a memory limit only moves the load to the disk.
        result["memory"] = {"limit": options.memory, "swap": options.memory}
    if options.cpus:
        result["cpu"] = {"period": 100000, "quota": int(options.cpus * 100000)}
    return result


def mounts(options: RunOptions, live: str) -> list[dict[str, Any]]:
    """The default mounts, the files that name the network, then ``--tmpfs`` and ``-v`` in their order."""
    result: list[dict[str, Any]] = [
        {"destination": destination, "type": kind, "source": source, "options": flags.split(",")}
        for destination, kind, source, flags in defaults.MOUNTS
    ]
    files = {"/etc/hosts": "hosts", "/etc/resolv.conf": "resolv.conf", "/etc/hostname": "hostname"}
    result += [_bind(f"{live}/{file}", destination, "rw") for destination, file in files.items()]
    asked = [
        {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": flags.split(",")}
        for destination, flags in options.tmpfs
    ] + [_bind(source, destination, flags) for source, destination, flags in options.volumes]
    for mount in asked:
        if sum(other["destination"] == mount["destination"] for other in asked) > 1:
            raise UsageError(f"-v, --tmpfs: {mount['destination']}", "given twice")
    # What lies below comes later, or it would be hidden.
    result += sorted(asked, key=lambda mount: mount["destination"].count("/"))
    return result


def _bind(source: str, destination: str, flags: str) -> dict[str, Any]:
    return {
        "destination": destination,
        "type": "bind",
        "source": source,
        "options": ["rbind", "rro"] if flags == "ro" else ["rbind"],
    }


def config(
    identity: str,
    image: dict[str, Any],
    options: RunOptions,
    user: User,
    live: str,
    netns: str | None,
    cgroup_path: str,
) -> dict[str, Any]:
    """The whole document. ``netns`` is the path of a prepared network namespace, or None for the host's."""
    hostname = options.hostname or identity[:12]
    capabilities = security.adjust(options.cap_add, options.cap_drop)
    cwd = options.workdir or image.get("WorkingDir") or "/"
    if not cwd.startswith("/"):
        raise InvalidDocument(f"working directory {cwd!r}", "must be absolute", "choose another with -w")
    # Inheritable and ambient stay empty: what a user other than root is not given, a program file must not give back
    # (CVE-2022-24769).
    held = capabilities if user.uid == 0 else []
    return {
        "ociVersion": defaults.VERSION,
        "hostname": hostname,
        "root": {"path": f"{store.state}/rootfs", "readonly": options.read_only},
        "process": {
            "terminal": options.tty,
            "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups},
            "args": arguments(image, options),
            "env": environment(image, options, hostname, user),
            "cwd": cwd,
            "capabilities": {"bounding": capabilities, "effective": held, "permitted": held},
            "rlimits": list(defaults.RLIMITS),
            "noNewPrivileges": options.no_new_privileges,
        },
        "mounts": mounts(options, live),
        "linux": {
            "namespaces": _namespaces(netns),
            "cgroupsPath": cgroup_path,
            "resources": resources(options),
            "maskedPaths": list(defaults.MASKED_PATHS),
            "readonlyPaths": list(defaults.READONLY_PATHS),
            **({"seccomp": seccomp.default_profile(capabilities, os.uname().machine)} if options.seccomp else {}),
        },
    }


def _namespaces(netns: str | None) -> Iterable[dict[str, str]]:
    kinds = [{"type": kind} for kind in defaults.NAMESPACES if kind != "network"]
    return [*kinds, {"type": "network", "path": netns}] if netns else kinds
