"""What the kernel says of one container, as data in which two equal containers are equal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from tests.lifecycle.machine import Machine, until

_STATUS = re.compile(r"^(Uid|Gid|Groups|Cap\w+|NoNewPrivs|Umask|SigBlk|SigIgn|SigCgt|Threads):\s*(.*?)\s*$", re.M)
_NAMES = ("hosts", "hostname", "resolv.conf")
_LIMITS = re.compile(
    r"(memory\.(memsw\.|soft_)?limit_in_bytes|memory\.(max|swap\.max|low)|pids\.max|cpu\.(max|weight|shares|cfs_\w+)"
    r"|devices\.list|freezer\.state|(blk)?io\.weight)$"
)
_CHANGING = ("ifindex", "link_index", "link_netnsid", "ifi_index", "permaddr")


def wait_for_program(host: Machine, identity: str) -> int:
    """The host pid of the container's program, once it is ``sleep``."""

    def find() -> int:
        for directory in host.cgroups():
            if directory.name == identity:
                for pid in (directory / "cgroup.procs").read_text().split():
                    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep\0"):
                            return int(pid)
        return 0

    return int(until(find, "the program"))


class Observer:
    """Looks at a container, and writes what is peculiar to it (ids, MACs, pids) as words."""

    def __init__(self, host: Machine, identity: str) -> None:
        self.host, self.identity = host, identity
        self.pid = wait_for_program(host, identity)
        self.proc = Path(f"/proc/{self.pid}")

    def everything(self) -> dict[str, Any]:
        """All of it, by subject."""
        return {
            "process": self.process(),
            "namespaces": self.namespaces(),
            "mounts": self.mounts(),
            "devices": self.devices(),
            "files": self.files(),
            "cgroup": self.cgroup(),
            "network inside": self.network("nsenter", f"--net=/proc/{self.pid}/ns/net"),
            "network outside": self.network(),
            "firewall": self.firewall(),
        }

    def plain(self, text: str) -> str:
        """Without what no two containers share."""
        for word, name in (
            (self.identity, "ID"),
            (self.identity[:12], "ID12"),
            (self.host.cgroup, "PARENT"),
        ):
            text = text.replace(word, name)
        return text

    def process(self) -> dict[str, Any]:
        """Identity, rights, limits, environment."""
        status = dict(_STATUS.findall((self.proc / "status").read_text()))
        # A caller made by posix_spawn(3) ignores 32 and 33, which are libc's own: init resets them, and no shell can.
        status["SigIgn"] = f"{int(status['SigIgn'], 16) & ~(0b11 << 31):016x}"
        fields = (self.proc / "stat").read_text().rpartition(")")[2].split()
        return {
            "status": status,
            "limits": (self.proc / "limits").read_text(),
            "arguments": (self.proc / "cmdline").read_bytes(),
            "environment": sorted(self.plain((self.proc / "environ").read_bytes().decode()).split("\0")),
            "directory": os.readlink(self.proc / "cwd"),
            "out of memory": (self.proc / "oom_score_adj").read_text(),
            "leads its session": fields[3] == str(self.pid),
            "descriptors": sorted(os.listdir(self.proc / "fd")),
            "first in its namespace": re.findall(r"NSpid:.*\t(\d+)", (self.proc / "status").read_text()),
            "hostname": self.plain(self.host.run(["nsenter", f"--uts=/proc/{self.pid}/ns/uts", "hostname"]).stdout),
            "processes": len([line for line in self._members() if line]),
        }

    def _members(self) -> list[str]:
        directory = next(path for path in self.host.cgroups() if path.name == self.identity)
        return (directory / "cgroup.procs").read_text().split()

    def namespaces(self) -> dict[str, bool]:
        """Which of them are not the host's."""
        host = Path(f"/proc/{self.host.pid}/ns")
        return {kind: os.readlink(self.proc / "ns" / kind) != os.readlink(host / kind) for kind in os.listdir(host)}

    def mounts(self) -> list[tuple[Any, ...]]:
        """mountinfo in its order; parents by their place in it, without the read-only flag of whole file systems."""
        places: dict[str, int] = {}
        found = []
        for line in (self.proc / "mountinfo").read_text().splitlines():
            before, _, after = self.plain(line).partition(" - ")
            number, parent, _, root, point, options, *fields = before.split(" ")
            kind, source, whole = after.split(" ")
            places[number] = len(places)
            data = sorted(set(whole.split(",")) - {"ro", "rw"})
            found.append((places.get(parent), root, point, options, fields, kind, source, data))
        return found

    def devices(self) -> list[tuple[Any, ...]]:
        """Everything in /dev."""
        top = self.proc / "root/dev"
        found = []
        for path in sorted([top, *top.rglob("*")]):
            now = path.lstat()
            link = os.readlink(path) if stat.S_ISLNK(now.st_mode) else ""
            found.append((str(path.relative_to(top)), oct(now.st_mode), now.st_rdev, now.st_uid, now.st_gid, link))
        return found

    def files(self) -> dict[str, str]:
        """The files that name the network, and how the root folders look."""
        root = self.proc / "root"
        names = {p.name: self.plain(p.read_text()) for p in (root / "etc").iterdir() if p.name in _NAMES}
        return {**names, **{path.name: oct(path.lstat().st_mode) for path in [*root.iterdir(), root]}}

    def cgroup(self) -> dict[str, str]:
        """Where the process is, and every file that sets a limit or a right."""
        found = {"membership": self.plain((self.proc / "cgroup").read_text())}
        for directory in self.host.cgroups():
            for path in directory.iterdir():
                if directory.name == self.identity and _LIMITS.match(path.name):
                    found[self.plain(str(path))] = path.read_text()
        return found

    def network(self, *enter: str) -> dict[str, Any]:
        """Links, addresses, routes, neighbours' settings of one namespace, as ip(8) and sysctl(8) tell them."""
        commands = {
            "links": ["ip", "-j", "-d", "address"],
            "routes": ["ip", "-j", "-4", "route", "show", "table", "all"],
            "rules": ["ip", "-j", "rule"],
            "ports": ["bridge", "-j", "-d", "link"],
        }
        found = {
            name: self._clean(json.loads(self.host.run([*enter, *command]).stdout or "[]"))
            for name, command in commands.items()
        }
        settings = self.host.run([*enter, "sysctl", "-a", "--pattern", r"^net\.ipv[46]\.(conf|ip_forward|ping)"]).stdout
        lines = [self.plain(line) for line in settings.splitlines() if "stable_secret" not in line]
        return {**found, "settings": sorted(line for line in lines if ".lo.tag" not in line)}

    def _clean(self, value: Any) -> Any:
        """Without counters, numbers of devices and MACs that the kernel drew by lot."""
        if isinstance(value, list):
            return [self._clean(item) for item in value]
        if not isinstance(value, dict):
            return self.plain(value) if isinstance(value, str) else value
        kept = {k: self._clean(v) for k, v in value.items() if k not in _CHANGING and not k.endswith("_timer")}
        if str(value.get("ifname", "")).startswith(("mr", "eth")) and not str(value.get("address")).startswith("02:6d"):
            kept.pop("address", None)
            if str(value["ifname"]).startswith("eth"):  # of the fake host itself, with the addresses made from its MAC
                kept["addr_info"] = [a for a in kept.get("addr_info", []) if not a["local"].startswith("fe80")]
        return kept

    def firewall(self) -> str:
        """All of nftables, the elements of each set in order of the alphabet."""

        def ordered(match: re.Match[str]) -> str:
            return "elements = {" + ", ".join(sorted(part.strip() for part in match[1].split(","))) + "}"

        text = self.plain(self.host.run(["nft", "list", "ruleset"]).stdout)
        return re.sub(r"elements = \{(.*?)\}", ordered, text, flags=re.S)


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two observations differ, and how."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other}, key=str)
        return [line for k in keys for line in differences(one.get(k), other.get(k), f"{where}/{k}")]
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [line for k, (a, b) in pairs for line in differences(a, b, f"{where}/{k}")]
    return [] if one == other else [f"{where}: {one!r} is not {other!r}"]
