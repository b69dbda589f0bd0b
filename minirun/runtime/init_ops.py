"""From config.json to the op list of minirun-init: the order of everything that happens inside, and why.

An op is a list of words (``["mount", "proc", "/proc", "proc", "nosuid"]``); csrc/init.c performs them one by one, and
``explain`` says them in shell. The order below is the heart of a container runtime, so each stage says its reason.
"""

from __future__ import annotations

from minirun.errors import InvalidDocument
from minirun.linux import seccomp, security
from minirun.runtime import mount_ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Op = list[str]

# The cgroup namespace takes its root from where its maker is, so init makes it after it has joined the cgroup.
_LATE = "cgroup"


def namespaces(config: dict[str, Any]) -> tuple[int, list[tuple[str, str]]]:
    """The CLONE_NEW* flags for clone3, and (kind, path) of the namespaces to join."""
    flags, joins = 0, []
    for index, entry in enumerate(config.get("linux", {}).get("namespaces") or []):
        kind = entry.get("type")
        if kind not in security.NAMESPACES:
            raise InvalidDocument(f"linux.namespaces[{index}].type", f"unknown namespace {kind!r}")
        if entry.get("path"):
            joins.append((kind, entry["path"]))
        elif kind != _LATE:
            flags |= security.NAMESPACES[kind]
    return flags, joins


def create_ops(
    config: dict[str, Any],
    root: Op,
    cgroups: Sequence[str],
    filter_path: str | None,
    start: Sequence[Op],
    opened: Sequence[Op] = (),
) -> list[Op]:
    """The ops that turn a newly cloned process into the container's first process.

    ``root`` is the op that brings the root file system (``root`` or ``overlay``); ``cgroups`` the files to join;
    ``filter_path`` the compiled seccomp filter; ``start`` how to wait for the start; ``opened`` are ops that open
    what ``start`` needs of the host.
    """
    linux, process = config.get("linux", {}), config["process"]
    _, joins = namespaces(config)
    user = process.get("user") or {}
    uid = str(user.get("uid", 0))
    return [
        # Before anything else can look at us through /proc.
        ["undumpable"],
        # While the host's files are still there: what is opened by path on the host.
        *([["cgroup", path] for path in cgroups]),
        # A PID namespace is entered by being born there, which the spawner has seen to.
        *([["join", path] for kind, path in joins if kind != "pid"]),
        *([["unshare", f"{security.NAMESPACES['cgroup']:x}"]] if _makes(config, "cgroup") else []),
        *([["filter", filter_path]] if filter_path else []),
        *opened,
        *(_oom_score(process)),
        # Leave the caller's terminal and keys behind.
        ["session"],
        ["keyring", "minirun"],
        *([["hostname", config["hostname"]]] if config.get("hostname") else []),
        *([["domainname", config["domainname"]]] if config.get("domainname") else []),
        # From here on no mount of ours may reach the host; the host's may reach us where that was asked for.
        ["propagation", linux.get("rootfsPropagation") or "rprivate"],
        root,
        *mount_ops.mount_ops(config),
        *mount_ops.device_ops(linux),
        # The terminal comes from the container's devpts, so after the mounts; before the root is made read-only.
        *([["console", uid], ["console-device"]] if process.get("terminal") else [["own-stdio", uid]]),
        *([["sysctl", name.replace(".", "/"), str(value)] for name, value in (linux.get("sysctl") or {}).items()]),
        # Read-only before masked: a masked file below a read-only directory must stay masked.
        *([["readonly", path] for path in linux.get("readonlyPaths") or []]),
        *([["mask", path] for path in linux.get("maskedPaths") or []]),
        *([["mkdir", process["cwd"]]] if process.get("cwd", "/") != "/" else []),
        # The last look at the host.
        ["pivot"],
        *([["remount", "/", "ro"]] if (config.get("root") or {}).get("readonly") else []),
        *identity_ops(process, bool(filter_path), start, seccomp.flags(linux["seccomp"]) if filter_path else 0),
    ]


def identity_ops(process: dict[str, Any], filtered: bool, start: Sequence[Op], seccomp_flags: int = 0) -> list[Op]:
    """What the process may do, who it is and what it runs: the last ops, the same for ``create`` and ``exec``."""
    user = process.get("user") or {}
    uid, gid = str(user.get("uid", 0)), str(user.get("gid", 0))
    groups = ",".join(str(group) for group in user.get("additionalGids") or []) or "-"
    capabilities = process.get("capabilities") or {}
    masks = {name: security.mask(capabilities.get(name) or []) for name in _SETS}
    # The kernel raises no other (capabilities(7)); runc passes over them too, and so do the documents made for it.
    masks["ambient"] &= masks["inheritable"] & masks["permitted"]
    sets = {name: f"{bits:x}" for name, bits in masks.items()}
    no_new_privs = bool(process.get("noNewPrivileges"))
    seccomp = [["seccomp", f"{seccomp_flags:x}"]] if filtered else []
    return [
        *(_rlimits(process)),
        # Without no_new_privs only CAP_SYS_ADMIN may install a filter, and the next ops give that away.
        *([] if no_new_privs else seccomp),
        # The bounding set needs CAP_SETPCAP, so it comes before the capabilities are cut.
        ["bound", sets["bounding"]],
        ["user", uid, gid, groups],
        ["caps", sets["effective"], sets["permitted"], sets["inheritable"], sets["ambient"]],
        ["umask", f"{user.get('umask', 0o022):o}"],
        # As the user that it is for: a directory that only root can enter is an error now, not a surprise later.
        ["cwd", process.get("cwd") or "/"],
        *([["env", entry] for entry in process.get("env") or []]),
        ["lookup"],
        *start,
        # With no_new_privs the filter is last: it does not have to allow what the ops above needed.
        *([["no-new-privs"], *seccomp] if no_new_privs else []),
    ]


_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


def words(ops: Sequence[Op], program: Sequence[str]) -> bytes:
    """The op list and the program as minirun-init reads them: NUL-terminated words."""
    flat = [word for op in ops for word in op]
    # A NUL would end its word and begin another: who wrote it, an image perhaps, would write the list from there on.
    for word in (*flat, *program):
        if "\0" in word:
            raise InvalidDocument(f"the word {word!r} of the container's configuration", "contains a NUL byte")
    if "--" in flat:
        raise InvalidDocument("the container's configuration", "'--' may not stand alone in it")
    text = "\0".join([*flat, "--", *program, ""])
    return text.encode("utf-8", "surrogateescape")


def _makes(config: dict[str, Any], kind: str) -> bool:
    entries = config.get("linux", {}).get("namespaces") or []
    return any(entry.get("type") == kind and not entry.get("path") for entry in entries)


def _oom_score(process: dict[str, Any]) -> list[Op]:
    score = process.get("oomScoreAdj")
    return [] if score is None else [["oom-score", str(score)]]


def _rlimits(process: dict[str, Any]) -> list[Op]:
    ops = []
    for index, limit in enumerate(process.get("rlimits") or []):
        number = security.RLIMITS.get(limit.get("type"))
        if number is None:
            raise InvalidDocument(f"process.rlimits[{index}].type", f"unknown limit {limit.get('type')!r}")
        ops.append(["rlimit", str(number), str(limit["soft"]), str(limit["hard"])])
    return ops
