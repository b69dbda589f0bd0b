"""A fake host: namespaces that stand for a machine, so that kernel tests never touch the real one.

    outside (the internet)          host                                     lan (a neighbour)
    198.51.100.1 eth0 ══════ eth0 198.51.100.2   192.0.2.1 eth1 ══════ eth0 192.0.2.2

The host has its own network (interfaces, routes, firewall, sysctls) and its own mounts: /run is an empty tmpfs, and
minirun's state and root folders are below it. ``outside`` knows no route to anything but 198.51.100.0/24: an answer
proves that the question came with the host's address. ``lan`` routes everything to the host, as a neighbour that would
like to get at the containers.

    def test_something(host):
        host.minirun("run", "--rm", "alpine", "true")
        host.outside.run(["ping", "-c1", host.address])

Cgroups cannot be made anew like this: MINIRUN_CGROUP_PARENT names one of this host's own. When the test ends, all
processes of the host are ended, and what is left anywhere is a failure.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
CGROUPS = Path("/sys/fs/cgroup")
TIMEOUT = 60
_numbers = itertools.count()


class Namespace:
    """A network namespace (and a mount namespace, if ``setup`` is given), alive as long as its small process."""

    def __init__(self, name: str, environment: dict[str, str] | None = None, setup: str = "") -> None:
        self.name, self.environment = name, {**os.environ, **(environment or {})}
        kinds = ["--net"] + (["--mount", "--propagation", "private"] if setup else [])
        # It ends with its standard input: so even a test that is killed leaves no namespace.
        script = f"set -e\nip link set lo up\n{setup}\necho ready\nexec cat"
        self._keeper = subprocess.Popen(
            ["unshare", *kinds, "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._keeper.stdout and self._keeper.stdout.readline() == "ready\n", f"namespace {name} was not made"
        self.pid = self._keeper.pid
        self._enter = ["nsenter", f"--net=/proc/{self.pid}/ns/net"]
        if setup:
            self._enter += [f"--mount=/proc/{self.pid}/ns/mnt", f"--wd={REPOSITORY}"]

    def popen(self, command: Sequence[str], **options: object) -> subprocess.Popen[str]:
        """Start a command inside; its output is piped unless told otherwise."""
        settings: dict[str, object] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        settings |= {"env": self.environment, "stdin": subprocess.DEVNULL} | options
        return subprocess.Popen([*self._enter, *command], **settings)  # type: ignore[call-overload, no-any-return]

    def run(
        self, command: Sequence[str], check: bool = True, stdin: str | None = None, timeout: float = TIMEOUT
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end; with ``check`` a failure fails the test and shows what it said."""
        entered = [*self._enter, *command]
        done = subprocess.run(
            entered, env=self.environment, input=stdin or "", capture_output=True, text=True, timeout=timeout
        )
        if check and done.returncode:
            pytest.fail(f"{self.name}: {' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def python(self, code: str, *arguments: str, check: bool = True) -> str:
        """Run Python code inside, with minirun importable; return what it printed."""
        return self.run([sys.executable, "-c", code, *arguments], check=check).stdout

    def path(self, path: str) -> Path:
        """A file of this namespace as it can be reached from the test."""
        return Path(f"/proc/{self.pid}/root{path}")

    def namespaces(self) -> set[str]:
        """What /proc/PID/ns shows for processes inside."""
        return {os.readlink(f"/proc/{self.pid}/ns/{kind}") for kind in ("net", "mnt")}

    def close(self) -> None:
        """End the small process, and with it (once empty) the namespace."""
        assert self._keeper.stdin and self._keeper.stdout
        self._keeper.stdin.close()
        self._keeper.stdout.close()
        self._keeper.wait(TIMEOUT)


class FakeHost(Namespace):
    """The machine on which minirun is tested, with what it is connected to."""

    address, outside_address = "198.51.100.2", "198.51.100.1"
    lan_address, neighbour_address = "192.0.2.1", "192.0.2.2"
    state, root = "/run/minirun", "/run/minirun-root"

    def __init__(self, bridge_netfilter: int | None = None) -> None:
        _sweep()
        self.cgroup = f"minirun-test-{os.getpid()}-{next(_numbers)}"
        environment = {
            "MINIRUN_STATE": self.state,
            "MINIRUN_ROOT": self.root,
            "MINIRUN_CGROUP_PARENT": self.cgroup,
            "PYTHONPATH": str(REPOSITORY),
            "MINIRUN_NAMESERVER_LINGER": "600",  # no test meets a new one by being slow; it is ended with the host
        }
        super().__init__("host", environment, "mount -t tmpfs -o mode=755 tmpfs /run")
        self.outside, self.lan = Namespace("outside"), Namespace("lan")
        self._connect()
        if bridge_netfilter is not None:
            self.sysctl("net.bridge.bridge-nf-call-iptables", str(bridge_netfilter))

    def minirun(
        self, *arguments: str, check: bool = True, stdin: str | None = None, timeout: float = TIMEOUT
    ) -> subprocess.CompletedProcess[str]:
        """Run ``minirun`` on this host."""
        return self.run([sys.executable, "-m", "minirun", *arguments], check, stdin, timeout)

    def lend(self, store: Path) -> None:
        """Give this host the images and layers of a store that was filled elsewhere: here nothing can be fetched."""
        for part in ("images", "layers"):
            self.run(["mkdir", "-p", f"{self.root}/{part}"])
            self.run(["mount", "--bind", str(store / part), f"{self.root}/{part}"])

    def sysctl(self, name: str, value: str | None = None) -> str:
        """Read a setting of this host, or write it."""
        setting = name if value is None else f"{name}={value}"
        return self.run(["sysctl", "-n", setting]).stdout.strip()

    def _connect(self) -> None:
        self.run(["ip", "-batch", "-"], stdin=_CABLES.format(outside=self.outside.pid, lan=self.lan.pid))
        self.outside.run(["ip", "-batch", "-"], stdin=_OUTSIDE)
        self.lan.run(["ip", "-batch", "-"], stdin=_LAN)

    def wait_until(self, command: str, timeout: float = TIMEOUT) -> None:
        """Run a shell command again and again until it succeeds: for what the kernel does later, by itself."""
        deadline = time.monotonic() + timeout
        while self.run(["sh", "-c", command], check=False).returncode:
            assert time.monotonic() < deadline, f"not within {timeout} s: {command}"

    def settle(self) -> None:
        """Wait until the kernel has removed the cables of namespaces that are gone, which it does in bulk, later."""
        self.wait_until("! ip -o link | grep ': mr[0-9a-f]\\{12\\}@' | grep -v 'link-netns '")

    def processes(self, every: bool = False) -> list[int]:
        """Every process of this host: in its namespaces, or in its cgroup (containers have namespaces of their own).

        The name server only if ``every`` is asked for: it outlives the containers that need it by some seconds.
        """
        ours = self.namespaces() | {os.readlink(f"/proc/{n.pid}/ns/net") for n in (self.outside, self.lan)}
        keepers = {self.pid, self.outside.pid, self.lan.pid}
        pids = [pid for pid in _all_pids() if pid not in keepers and self._is_ours(pid, ours)]
        return [pid for pid in pids if every or not _is_name_server(pid)]

    def _is_ours(self, pid: int, namespaces: set[str]) -> bool:
        try:
            found = {os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("net", "mnt")}
            return bool(found & namespaces) or self.cgroup in _parts(f"/proc/{pid}/cgroup")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return False

    def _end(self, pid: int) -> None:
        """Kill one process and wait for its end; by a descriptor, so that a number used again is never hit."""
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if pid in self.processes(every=True):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                select.select([descriptor], [], [], TIMEOUT)
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """End everything of this host and see that nothing is left of it."""
        for _ in range(100):  # a dying monitor may start one more clean-up
            processes = self.processes(every=True)
            if not processes:
                break
            for pid in processes:
                self._end(pid)
        left = [f"process {pid}" for pid in self.processes(every=True)]
        left += [str(path) for path in self._remove_cgroups()]
        for namespace in (self.outside, self.lan):
            namespace.close()
        super().close()
        left += sorted(_real_links())
        assert not left, f"left on the machine: {left}"

    def _remove_cgroups(self) -> list[Path]:
        """Remove this host's cgroups (the test may leave containers, their processes are gone); return what resists."""
        resisting = []
        for top in [*CGROUPS.glob(f"*/{self.cgroup}"), *CGROUPS.glob(self.cgroup)]:
            for folder, _, _ in os.walk(top, topdown=False):
                try:
                    _remove_cgroup(folder)
                except OSError:
                    resisting.append(Path(folder))
        return resisting


_CABLES = """\
link add eth0 type veth peer name eth0 netns {outside}
link add eth1 type veth peer name eth0 netns {lan}
addr add 198.51.100.2/24 dev eth0
addr add 192.0.2.1/24 dev eth1
link set eth0 up
link set eth1 up
route add default via 198.51.100.1
"""
_OUTSIDE = """\
addr add 198.51.100.1/24 dev eth0
link set eth0 up
"""
_LAN = """\
addr add 192.0.2.2/24 dev eth0
link set eth0 up
route add default via 192.0.2.1
"""


def _remove_cgroup(folder: str) -> None:
    """Remove a cgroup; the kernel counts a dead process until it is reaped, and tells nobody when that is."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return os.rmdir(folder)
        except OSError:
            if time.monotonic() > deadline:
                raise
            os.sched_yield()


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _is_name_server(pid: int) -> bool:
    try:
        return b"\0nameserver\0--serve\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _sweep() -> None:
    """Remove what a killed test run left: cgroups of a process that is gone, if they are empty."""
    for top in [*CGROUPS.glob("*/minirun-test-*"), *CGROUPS.glob("minirun-test-*")]:
        owner = top.name.split("-")[2]
        if not Path(f"/proc/{owner}").exists():
            with contextlib.suppress(OSError):
                top.rmdir()


def _parts(path: str) -> list[str]:
    return Path(path).read_text().replace("\n", "/").split("/")


def _real_links() -> set[str]:
    """Cables and bridges of minirun on the machine itself, where no test may make any."""
    lines = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout.splitlines()
    names = {line.split(": ")[1].split("@")[0] for line in lines}
    return {name for name in names if name == "br0" or (name.startswith("mr") and len(name) == 14)}


@pytest.fixture
def host() -> Iterator[FakeHost]:
    """A fake host, with the kernel's default of bridge-nf-call-iptables."""
    machine = FakeHost()
    try:
        yield machine
    finally:
        machine.close()


@pytest.fixture(params=[0, 1], ids=["bridge-nf-0", "bridge-nf-1"])
def both_hosts(request: pytest.FixtureRequest) -> Iterator[FakeHost]:
    """A fake host, once with and once without bridged packets passing the firewall."""
    machine = FakeHost(request.param)
    try:
        yield machine
    finally:
        machine.close()
