"""What ``minirun run`` was asked for, understood and checked, before anything happens."""

from __future__ import annotations

from minirun.errors import UsageError
from minirun.oci import defaults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
MIN_MEMORY = 4 << 20  # bytes: below this the kernel kills init before it becomes the program

# Mounting there would undo what is masked, or replace the devices (CVE-2019-16884).
_PROTECTED = ("/proc", "/sys", "/dev")


NET_WORDS = ("bridge", "default", "slirp4netns", "pasta", "private", "ns")  # of --net, and no network's name


class Attachment:
    """A network that a container shall be attached to, and what is wanted of it; "" and [] leave it to minirun.

    Each value is checked already (``minirun.engine.attachments``), as far as it can be without the network.
    """

    __slots__ = ("address", "address6", "aliases", "interface", "mac", "network", "rate_in", "rate_out")

    def __init__(self, network: str) -> None:
        self.network = network
        self.address = self.address6 = self.mac = self.interface = ""
        self.aliases: list[str] = []
        self.rate_in = self.rate_out = 0  # bits a second; 0: no limit


class RunOptions:
    """The options of ``run``. Sizes in bytes, times in seconds."""

    __slots__ = (
        "cap_add",
        "cap_drop",
        "command",
        "cpus",
        "detach",
        "dns",
        "dns_options",
        "dns_search",
        "entrypoint",
        "env",
        "expose",
        "forward",
        "groups",
        "hostname",
        "hosts",
        "image",
        "interactive",
        "joined",
        "labels",
        "memory",
        "name",
        "net_flags",
        "nets",
        "network",
        "networks",
        "no_new_privileges",
        "pids_limit",
        "ports",
        "publish_all",
        "read_only",
        "remove",
        "seccomp",
        "stop_signal",
        "stop_timeout",
        "tmpfs",
        "tty",
        "user",
        "volumes",
        "workdir",
    )

    def __init__(self) -> None:
        self.image = ""
        self.command: list[str] = []
        self.name: str | None = None
        self.hostname: str | None = None
        self.nets: list[str] = []  # each --net as it was given
        self.net_flags: dict[str, list[str]] = {}  # and its relatives: --ip, --ip6, --mac-address, --network-alias
        # What they come to:
        self.network = "bridge"  # or none, host, container
        self.networks = [Attachment("br0")]  # when it is bridge
        self.dns: list[str] = []
        self.dns_search: list[str] | None = None  # None: the host's
        self.dns_options: list[str] | None = None
        self.hosts: list[tuple[str, str]] = []  # name, address
        self.joined = ""  # when it is container: the name or id of the one whose network namespace is shared
        self.forward = ""  # if another firewall stops it: "" warns, "allow" opens it, "require" refuses to start
        self.detach = self.interactive = self.tty = self.remove = self.read_only = False
        self.no_new_privileges = self.seccomp = True
        self.env: dict[str, str] = {}
        self.labels: dict[str, str] = {}
        self.workdir: str | None = None
        self.user: str | None = None
        self.groups: list[str] = []
        self.entrypoint: str | None = None
        self.volumes: list[tuple[str, str, str]] = []  # source, destination, "ro" or "rw"
        self.tmpfs: list[tuple[str, str]] = []  # destination, options
        self.ports: list[Any] = []  # minirun.network.ports.Port
        self.publish_all = False
        self.expose: list[str] = []  # each as 80/tcp
        self.memory: int | None = None
        self.cpus: float | None = None
        self.pids_limit = defaults.PIDS_LIMIT
        self.cap_add: list[str] = []
        self.cap_drop: list[str] = []
        self.stop_signal: str | None = None
        self.stop_timeout = 10


def size(text: str, flag: str) -> int:
    """``64m`` in bytes: a number with an optional unit b, k, m, g or t, each 1024 times the one before."""
    lower = text.lower()
    if lower.endswith("ib"):
        lower = lower[:-2]
    elif lower.endswith("b") and lower[:-1][-1:].isalpha():
        lower = lower[:-1]
    unit = lower[-1:] if lower[-1:].isalpha() else ""
    digits = lower[: len(lower) - len(unit)]
    if unit not in _UNITS or not _is_number(digits) or len(digits) > 18:
        raise UsageError(f"{flag} {text!r}", "not a size", "write it like 64m or 1g")
    return int(float(digits) * _UNITS[unit])


def memory(text: str) -> int:
    """The value of ``--memory``."""
    value = size(text, "--memory")
    if value < MIN_MEMORY:
        raise UsageError(f"--memory {text!r}", "nothing starts in less than 4m", "give it 4m or more")
    return value


def cpus(text: str) -> float:
    """The value of ``--cpus``: how many CPUs' worth of time, such as 0.5."""
    if not _is_number(text) or not 0.01 <= float(text) <= 8192:
        raise UsageError(f"--cpus {text!r}", "not a number of CPUs", "write it like 0.5 or 2")
    return float(text)


def whole(text: str, flag: str, low: int = 0, high: int = 2**31 - 1) -> int:
    """A decimal integer in a range."""
    digits = text[1:] if text.startswith("-") else text
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 12 and low <= int(text) <= high):
        raise UsageError(f"{flag} {text!r}", f"not a whole number from {low} to {high}")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.replace(".", "", 1).isdecimal()


def destination(path: str, flag: str) -> str:
    """An absolute path in the container where something may be mounted."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not path.startswith("/") or "\0" in path or ".." in parts or not parts:
        raise UsageError(f"{flag} {path!r}", "must be an absolute path inside the container, below /")
    clean = "/" + "/".join(parts)
    if any(clean == root or clean.startswith(f"{root}/") for root in _PROTECTED) and clean != "/dev/shm":
        raise UsageError(f"{flag} {path!r}", "nothing may be mounted over /proc, /sys or /dev", "choose another place")
    return clean


def volume(text: str, here: str) -> tuple[str, str, str]:
    """``src:dst[:ro|rw]``; a source that is not absolute begins with ``.`` and is taken from the directory ``here``.

    Whether the source exists is looked at when the container is made. Raises UsageError.
    """
    source, _, rest = text.partition(":")
    target, _, flag = rest.partition(":")
    flags = flag.split(",") if flag else []
    for unknown in set(flags) - {"ro", "rw", "z", "Z"}:  # z: SELinux labels, which have no meaning without it
        raise UsageError(f"-v {text!r}", f"unknown option {unknown!r}", "write src:dst or src:dst:ro")
    if not source or not target or "\0" in source:
        raise UsageError(f"-v {text!r}", "source or destination is missing", "write src:dst or src:dst:ro")
    if source.startswith("."):
        source = f"{here}/{source}"
    if not source.startswith("/"):
        raise UsageError(f"-v {text!r}", "the source must be a path", f"write ./{source} or an absolute path")
    return source, destination(target, "-v"), "ro" if "ro" in flags else "rw"


_TMPFS_FLAGS = {"nosuid", "suid", "nodev", "dev", "noexec", "exec", "ro", "rw", "noatime", "relatime"}
_TMPFS_VALUES = {  # the characters that the value of each may have
    "size": frozenset("0123456789kmgKMG%"),
    "mode": frozenset("01234567"),
    "nr_inodes": frozenset("0123456789kmgKMG"),
    "uid": frozenset("0123456789"),
    "gid": frozenset("0123456789"),
}


def tmpfs(text: str) -> tuple[str, str]:
    """``/path[:options]``: nosuid, nodev, noexec and mode=1777 unless the options say otherwise (tmpfs(5))."""
    path, _, given = text.partition(":")
    options = [option for option in given.split(",") if option]
    for option in options:
        name, equals, value = option.partition("=")
        if option not in _TMPFS_FLAGS and not (equals and name in _TMPFS_VALUES):
            raise UsageError(f"--tmpfs {text!r}", f"unknown option {option!r}", "see tmpfs(5)")
        if equals and not (0 < len(value) < 19 and _TMPFS_VALUES[name].issuperset(value) and value[0].isdigit()):
            raise UsageError(f"--tmpfs {text!r}", f"{name} cannot be {value!r}", "see tmpfs(5)")
    # The later word wins, so what was asked for stands behind the defaults.
    return destination(path, "--tmpfs"), ",".join(["nosuid", "nodev", "noexec", "mode=1777", *options])
