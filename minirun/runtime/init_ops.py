"""From config.json to the op list of minirun-init: the order of everything that happens inside, and why.

An op is a list of words (``["mount", "proc", "/proc", "proc", "nosuid"]``); csrc/init.c performs them one by one, and
``explain`` says them in shell. The order below is the heart of a container runtime, so each stage says its reason.
"""

from __future__ import annotations

from minirun.errors import InvalidDocument
from minirun.linux import seccomp, security
from minirun.runtime import mount_ops, namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Op = list[str]

# Sync points: where init waits for what only its spawner can do.
DEVICES, HOOKS = 1, 2


# How a process that entered the container's other namespaces comes into its PID namespace: by being born there. Who may
# ptrace everything inside can take over whom it sees there; so until then it is out of sight, and when it is born it
# has no more rights than the program will have (CVE-2016-9962).
BORN: Sequence[Op] = (["undumpable"], ["fork", "0"], ["session"])


class Setting:
    """What the document does not say and the ops depend on.

    ``root`` is the op that brings the root file system (``root`` or ``overlay``); ``bundle`` the directory that
    relative paths are below, "" for a document of the engine; ``cgroups`` the files to join; ``affinity`` the op that
    leaves the caller's CPUs behind; ``filter_path`` the compiled seccomp filter; ``start`` how to wait for the start,
    and ``born``, for one that enters, how to come into the PID namespace at last; ``opened`` are ops that open what
    ``start`` needs of the host, ``taken`` those that take mounts while init has the host's rights; ``hooks`` are the
    ops of hooks that run inside, by name; ``keyring`` is the name of a new session keyring, None for the caller's;
    ``pivot`` how the root changes; ``rootless`` means that the caller is an ordinary user.
    """

    __slots__ = (
        "affinity",
        "born",
        "bundle",
        "cgroups",
        "filter_path",
        "hooks",
        "keyring",
        "opened",
        "pivot",
        "root",
        "rootless",
        "start",
        "taken",
    )

    def __init__(self, root: Op, cgroups: Sequence[str], filter_path: str | None, start: Sequence[Op]) -> None:
        self.root, self.cgroups, self.filter_path, self.start = root, cgroups, filter_path, start
        self.affinity: Sequence[Op] = ()
        self.born: Sequence[Op] = ()
        self.opened: Sequence[Op] = ()
        self.taken: Sequence[Op] = ()
        self.bundle = ""
        self.hooks: dict[str, list[Op]] = {}
        self.keyring: str | None = "minirun"
        self.pivot = "pivot"
        self.rootless = False


def create_ops(config: dict[str, Any], setting: Setting) -> list[Op]:
    """The ops that turn a newly cloned process into the container's first process."""
    linux, process = config.get("linux") or {}, config["process"]
    kinds = namespaces.kinds(config)
    mapped = "user" in kinds
    uid = str((process.get("user") or {}).get("uid", 0))
    return [
        # Before anything else can look at us through /proc. In a user namespace only when its id maps are written: the
        # files for that would be root's.
        *([] if mapped else [["undumpable"]]),
        # While the host's files are still there, and the rights to open them: what is opened by path on the host.
        *([["cgroup", path] for path in setting.cgroups]),
        *setting.affinity,
        *([["filter", setting.filter_path]] if setting.filter_path else []),
        *setting.opened,
        *(oom_score(process, setting.rootless)),
        *setting.taken,
        # After the cgroups, which belong to the host's root and not to that of a user namespace.
        *namespaces.ops(config, setting.rootless),
        *([["undumpable"]] if mapped else []),
        *([["sync", str(DEVICES)]] if linux.get("netDevices") else []),
        *([["keyring", setting.keyring]] if setting.keyring else []),  # leave the caller's keys behind
        *([["hostname", config["hostname"]]] if config.get("hostname") else []),
        *([["domainname", config["domainname"]]] if config.get("domainname") else []),
        # From here on no mount of ours may reach the host; the host's may reach us where that was asked for. In the
        # host's own mount namespace there is nothing to part.
        *([["propagation", mount_ops.propagation_mode(config)]] if "mount" in kinds else []),
        setting.root,
        *mount_ops.mount_ops(config, setting.bundle, setting.cgroups),
        *mount_ops.device_ops(config),
        # The terminal comes from the container's devpts, so after the mounts; before the root is made read-only.
        *(terminal(process, uid) if process.get("terminal") else [["own-stdio", uid]]),
        ["session"],  # away from the caller's terminal, and into one of that just made
        # Hooks see the container as it will be, and can still change it; the host's first, as the runtime-spec has it.
        *([["sync", str(HOOKS)]] if _early_hooks(config) else []),
        *setting.hooks.get("createContainer", ()),
        *_sysctls(linux),
        *mount_ops.closing_ops(config),
        *([["mkdir", process["cwd"]]] if process.get("cwd", "/") != "/" else []),
        *label_ops(process),
        # The last look at the host.
        [setting.pivot],
        *mount_ops.root_ops(config),
        *identity_ops(config, process, setting),
    ]


def identity_ops(config: dict[str, Any], process: dict[str, Any], setting: Setting) -> list[Op]:
    """What the process may do, who it is and what it runs: the last ops, the same for ``create`` and ``exec``."""
    user = process.get("user") or {}
    uid, gid = str(user.get("uid", 0)), str(user.get("gid", 0))
    groups = ",".join(str(group) for group in user.get("additionalGids") or [])
    capabilities = process.get("capabilities") or {}
    masks = {name: security.mask(capabilities.get(name) or []) for name in _SETS}
    # The kernel raises no other (capabilities(7)); runc passes over them too, and so do the documents made for it.
    masks["ambient"] &= masks["inheritable"] & masks["permitted"]
    sets = {name: f"{bits:x}" for name, bits in masks.items()}
    no_new_privs = bool(process.get("noNewPrivileges"))
    filter_ops, listened = _seccomp(config, setting)
    last = [*([["no-new-privs"]] if no_new_privs else []), *(filter_ops if no_new_privs else [])]
    umask = user.get("umask")
    # The last one of a name counts; an empty HOME is none.
    values = {entry.partition("=")[0]: entry for entry in process.get("env") or []}
    if values.get("HOME") == "HOME=":
        del values["HOME"]
    return [
        *([] if "HOME" in values else [["home", uid]]),
        *(_rlimits(process)),
        *(_scheduling(process)),
        *(_personality(config)),
        *(_memory_policy(config)),
        # A directory that only root can enter is given to whoever was sent there; one that root may not enter, and the
        # user may, comes below.
        ["cwd-first", process.get("cwd") or "/"],
        # Without no_new_privs only CAP_SYS_ADMIN may install a filter, and the next ops give that away.
        *([] if no_new_privs else filter_ops),
        # The bounding set needs CAP_SETPCAP, so it comes before the capabilities are cut.
        ["bound", sets["bounding"]],
        ["user", uid, gid, groups or ("keep" if setting.rootless else "-")],
        ["caps", sets["effective"], sets["permitted"], sets["inheritable"], sets["ambient"]],
        ["umask", f"{0o022 if umask is None else umask:o}"],
        ["cwd", process.get("cwd") or "/"],
        *([["env", entry] for entry in values.values()]),
        ["lookup"],
        *setting.born,
        # With no_new_privs the filter is last: it does not have to allow what the ops above needed. One that somebody
        # listens to must be there while our spawner can still hand the listener on.
        *(last if listened else []),
        *setting.start,
        # A startContainer hook is a program of the container's: what binds those binds it.
        *([] if listened else last),
        *setting.hooks.get("startContainer", ()),
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


def _sysctls(linux: dict[str, Any]) -> list[Op]:
    if not linux.get("sysctl"):
        return []
    from minirun.oci.linux_spec import sysctl_path  # there already, where the document was checked

    return [["sysctl", sysctl_path(name), str(value)] for name, value in linux["sysctl"].items()]


def _early_hooks(config: dict[str, Any]) -> bool:
    """Whether there are hooks that may ask for the container's state: it is written at that point."""
    hooks = config.get("hooks") or {}
    return any(hooks.get(kind) for kind in ("prestart", "createRuntime", "createContainer"))


def terminal(process: dict[str, Any], uid: str, device: bool = True) -> list[Op]:
    """The ops that make the terminal; it is /dev/console too for the container's first process (``device``)."""
    size = process.get("consoleSize") or {}
    window = [["window", str(size["height"]), str(size["width"])]] if size.get("height") and size.get("width") else []
    return [["console", uid], *window, *([["console-device"]] if device else [])]


def label_ops(process: dict[str, Any]) -> list[Op]:
    """What the next exec is confined by: written while procfs is the host's (``apparmor(7)``, ``selinux(8)``)."""
    ops = []
    if process.get("apparmorProfile"):
        ops.append(["write", "/proc/self/attr/apparmor/exec", f"exec {process['apparmorProfile']}"])
    if process.get("selinuxLabel"):
        ops.append(["write", "/proc/self/attr/exec", process["selinuxLabel"]])
    return ops


def _seccomp(config: dict[str, Any], setting: Setting) -> tuple[list[Op], bool]:
    """The op that installs the filter, and whether somebody listens to it."""
    if not setting.filter_path:
        return [], False
    profile = config["linux"]["seccomp"]
    listened = bool(profile.get("listenerPath"))
    flags = seccomp.flags(profile) | (_NEW_LISTENER if listened else 0)
    return [["seccomp", f"{flags:x}"]], listened


_NEW_LISTENER = 8  # SECCOMP_FILTER_FLAG_NEW_LISTENER, seccomp(2)


def oom_score(process: dict[str, Any], rootless: bool) -> list[Op]:
    """The op that sets ``oomScoreAdj``."""
    score = process.get("oomScoreAdj")
    if score is None:
        return []
    if rootless:  # only root may lower it
        with open("/proc/self/oom_score_adj") as file:
            score = max(score, int(file.read()))
    return [["write", "/proc/self/oom_score_adj", str(score)]]


def _rlimits(process: dict[str, Any]) -> list[Op]:
    ops = []
    for index, limit in enumerate(process.get("rlimits") or []):
        number = security.RLIMITS.get(limit.get("type"))
        if number is None:
            raise InvalidDocument(f"process.rlimits[{index}].type", f"unknown limit {limit.get('type')!r}")
        ops.append(["rlimit", str(number), str(limit["soft"]), str(limit["hard"])])
    return ops


_POLICIES = ("SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE")
_SCHEDULER_FLAGS = (
    "RESET_ON_FORK",
    "RECLAIM",
    "DL_OVERRUN",
    "KEEP_POLICY",
    "KEEP_PARAMS",
    "UTIL_CLAMP_MIN",
    "UTIL_CLAMP_MAX",
)
_IO_CLASSES = ("IOPRIO_CLASS_NONE", "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE")


def _scheduling(process: dict[str, Any]) -> list[Op]:
    """sched_setattr(2) and ioprio_set(2): before the capabilities that they need are given up."""
    ops = []
    if wanted := process.get("scheduler"):
        flags = sum(1 << _SCHEDULER_FLAGS.index(name.removeprefix("SCHED_FLAG_")) for name in wanted.get("flags") or [])
        numbers = [str(wanted.get(key) or 0) for key in ("nice", "priority")]
        times = [str(wanted.get(key) or 0) for key in ("runtime", "deadline", "period")]
        ops.append(["scheduler", str(_POLICIES.index(wanted["policy"])), *numbers, f"{flags:x}", *times])
    if wanted := process.get("ioPriority"):
        ops.append(["io-priority", str(_IO_CLASSES.index(wanted["class"])), str(wanted.get("priority") or 0)])
    return ops


def cpus(text: str, where: str) -> str:
    """``0-2,5`` with every number: ``0,1,2,5``. Raises InvalidDocument."""
    numbers: list[str] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.strip().partition("-")
        if not first.isdecimal() or not (last or first).isdecimal() or int(last or first) >= 4096:
            raise InvalidDocument(where, f"{part!r} is not a number or a range")
        numbers += map(str, range(int(first), int(last or first) + 1))
    return ",".join(numbers)


_MEMORY_POLICIES = ("DEFAULT", "PREFERRED", "BIND", "INTERLEAVE", "LOCAL", "PREFERRED_MANY", "WEIGHTED_INTERLEAVE")
_MEMORY_FLAGS = {"MPOL_F_NUMA_BALANCING": 0x2000, "MPOL_F_RELATIVE_NODES": 0x4000, "MPOL_F_STATIC_NODES": 0x8000}


def _memory_policy(config: dict[str, Any]) -> list[Op]:
    wanted = (config.get("linux") or {}).get("memoryPolicy")
    if not wanted:
        return []
    mode = _MEMORY_POLICIES.index(wanted["mode"].removeprefix("MPOL_"))
    mode |= sum(_MEMORY_FLAGS[name] for name in set(wanted.get("flags") or []))
    return [["memory-policy", f"{mode:x}", cpus(wanted.get("nodes") or "", "linux.memoryPolicy.nodes")]]


_PERSONALITIES = {"LINUX": "0", "LINUX32": "8"}  # <linux/personality.h>


def _personality(config: dict[str, Any]) -> list[Op]:
    wanted = (config.get("linux") or {}).get("personality")
    return [["personality", _PERSONALITIES[wanted["domain"]]]] if wanted else []
