"""Which namespaces a container gets, and in what order its first process comes into them.

The plain case is one clone3(2) that makes all that are new, and a setns(2) for each that is joined. A process cannot
do that for itself with a PID namespace, a time namespace with offsets, or a user namespace whose id maps somebody else
must write: then it stays outside, prepares, and forks (the op ``fork``) the process that goes on.
"""

from __future__ import annotations

import os

from minirun.linux import security

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Op = list[str]

_FORKED = ("user", "time")  # whose making takes a fork; so does the joining of these and of a PID namespace


def kinds(config: dict[str, Any]) -> dict[str, str]:
    """The namespaces of the document: kind, and the path to join or "" for a new one."""
    entries = (config.get("linux") or {}).get("namespaces") or []
    return {entry["type"]: entry.get("path") or "" for entry in entries}


def flags(wanted: dict[str, str]) -> int:
    """The CLONE_NEW* flags of those that are made by clone3(2): all new ones but the cgroup namespace.

    That one takes its root from where its maker is, so init makes it itself when it has joined its cgroup.
    """
    return sum(security.NAMESPACES[kind] for kind, path in wanted.items() if not path and kind != "cgroup")


def forks(wanted: dict[str, str]) -> bool:
    """Whether another process than the first must go on."""
    return bool(wanted.get("pid")) or any(kind in wanted for kind in _FORKED)


def spawn_flags(wanted: dict[str, str]) -> int:
    """What the spawner's clone3(2) makes."""
    return 0 if forks(wanted) else flags(wanted)


def entered(wanted: dict[str, str]) -> list[str]:
    """Those that one more process of the container must enter: all but the user namespace that is ours already.

    That one the kernel refuses to enter again (setns(2), EINVAL).
    """
    path = wanted.get("user")
    shared = bool(path) and os.stat(str(path)).st_ino == os.stat("/proc/self/ns/user").st_ino
    return [kind for kind in wanted if kind != "user" or not shared]


def ops(config: dict[str, Any], rootless: bool) -> list[Op]:
    """The ops that bring init into its namespaces, as far as the spawner has not."""
    wanted = kinds(config)
    joins = {kind: path for kind, path in wanted.items() if path}
    # Root of the host may enter any; once in a user namespace, only what belongs to that. An ordinary user may enter
    # nothing else before it has the rights that a user namespace gives.
    order = sorted(joins, key=lambda kind: (kind == "user") != rootless)
    ops = [["join", joins[kind], f"{security.NAMESPACES[kind]:x}"] for kind in order]
    if forks(wanted):
        ops += _fork(config, wanted)
    if "cgroup" in wanted and "cgroup" not in joins:
        ops.append(["unshare", f"{security.NAMESPACES['cgroup']:x}"])
    return ops


def _fork(config: dict[str, Any], wanted: dict[str, str]) -> list[Op]:
    new, user, time = flags(wanted), security.NAMESPACES["user"], security.NAMESPACES["time"]
    be_root = [["be-root"]] if "user" in wanted else []
    if not new & time:
        return [["fork", f"{new:x}"], *be_root]
    # The offsets are written before any process is in the namespace, by one that may set the clock there: with a new
    # user namespace that is its root, so it comes first, and what is in all the others is born after that.
    before: list[Op] = [["fork", f"{user:x}"], ["be-root"], ["dumpable"]] if new & user else []
    offsets = [
        ["write", "/proc/self/timens_offsets", f"{clock} {value.get('secs') or 0} {value.get('nanosecs') or 0}\n"]
        for clock, value in ((config.get("linux") or {}).get("timeOffsets") or {}).items()
    ]
    after = be_root if not new & user else []
    return [*before, ["unshare", f"{time:x}"], *offsets, ["fork", f"{new & ~time & ~user:x}"], *after]
