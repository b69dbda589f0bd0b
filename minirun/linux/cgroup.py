"""Control groups in both layouts: one hierarchy per controller (v1), or one for all (v2).

Which of the two it is is read from the mounts, never guessed from a version. A hybrid machine, where v2 is mounted
beside v1 but v1 holds the controllers, counts as v1. See cgroups(7), and in the kernel's documentation
admin-guide/cgroup-v1 and admin-guide/cgroup-v2.
"""

from __future__ import annotations

import os

from minirun.errors import Unsupported
from minirun.linux import mounts, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

parent = os.environ.get("MINIRUN_CGROUP_PARENT", "minirun")

# The others are left out until someone asks for them: each costs a directory made, joined and removed.
V1_CONTROLLERS = ("memory", "cpu", "cpuacct", "pids", "devices", "freezer")
V1_ON_DEMAND = ("cpuset", "blkio", "hugetlb", "net_cls", "net_prio", "perf_event", "rdma", "misc")


class Layout:
    """Where the controllers of this machine are mounted.

    ``v1`` maps each v1 controller to its mount point; ``v2`` is the mount point of the v2 tree, or None. ``unified``
    is true where v2 holds the controllers. ``systemd`` is the v1 hierarchy without a controller by which systemd tells
    whose a process is, where there is one.
    """

    __slots__ = ("systemd", "unified", "v1", "v2")

    def __init__(self, v1: dict[str, str], v2: str | None, systemd: str | None = None) -> None:
        self.v1, self.v2, self.systemd = v1, v2, systemd
        self.unified = v2 is not None and not v1

    def controllers(self, on_demand: Iterable[str] = ()) -> list[str]:
        """The v1 controllers that a container gets a directory in; [""] for the one directory of v2."""
        if self.unified:
            return [""]
        return [name for name in (*V1_CONTROLLERS, *on_demand) if name in self.v1]

    def directory(self, path: str, controller: str = "") -> str:
        """The directory of cgroup ``path`` (such as ``minirun/4f2a``) for ``controller``, which v2 does not look at."""
        base = self.v2 if self.unified else self.v1.get(controller)
        if base is None:
            raise Unsupported(f"cgroup controller {controller}", "it is not mounted", "mount cgroup2 at /sys/fs/cgroup")
        return f"{base}/{path}"

    def directories(self, path: str, on_demand: Iterable[str] = ()) -> list[str]:
        """All directories of cgroup ``path``, without duplicates: two controllers may be mounted together."""
        return list(dict.fromkeys(self.directory(path, name) for name in self.controllers(on_demand)))

    def everywhere(self, path: str) -> dict[str, str]:
        """The directories of cgroup ``path`` in every hierarchy: by controller, "systemd", and "" for that of v2.

        A container that is in all of them counts as itself for everyone who looks, and not as part of its caller.
        """
        mounts_of = dict(self.v1)
        if self.systemd:
            mounts_of["systemd"] = self.systemd
        if self.v2:
            mounts_of[""] = self.v2
        if not mounts_of:
            raise Unsupported("cgroups", "none are mounted", "mount cgroup2 at /sys/fs/cgroup")
        return {name: f"{base}/{path}" for name, base in mounts_of.items()}


_layouts: list[Layout] = []


def layout() -> Layout:
    """The layout of this machine, from proc_pid_mountinfo(5); it is read once."""
    if not _layouts:
        _layouts.append(parse(mounts.old()))
    return _layouts[0]


def parse(mountinfo: Iterable[str]) -> Layout:
    """The layout that the lines of a mountinfo file tell."""
    v1: dict[str, str] = {}
    v2 = systemd = None
    for line in mountinfo:
        if " - cgroup" not in line:
            continue
        before, _, after = line.partition(" - ")
        mount_point = before.split(" ")[4]
        kind, _, options = after.split(" ")[:3]
        if kind == "cgroup2":
            v2 = v2 or mount_point
        elif kind == "cgroup":
            for name in options.split(","):
                if name in V1_CONTROLLERS or name in V1_ON_DEMAND:
                    v1.setdefault(name, mount_point)
                elif name == "name=systemd":
                    systemd = systemd or mount_point
    return Layout(v1, v2, systemd)


def words(path: str) -> list[str]:
    """The words of a control file, none if it cannot be read."""
    try:
        with open(path) as file:
            return file.read().split()
    except OSError:
        return []


def create(directory: str) -> bool:
    """Make a cgroup and those above it, ready to take processes; False if it was there.

    In v2 every controller that is there is handed down to it. In v1 a new cpuset has no CPU and no memory, and takes
    no process until it has: it gets those of the one above.
    """
    parent_directory = os.path.dirname(directory)
    made = True
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        made = False
    except FileNotFoundError:
        create(parent_directory)
        return create(directory)  # which somebody else may have made by now
    where = layout()
    if "cpuset" in where.v1 and directory.startswith(f"{where.v1['cpuset']}/"):
        if made or not read(f"{directory}/cpuset.mems").strip():
            inherit_cpuset(directory)
    elif made and where.v2 and directory.startswith(f"{where.v2}/"):
        delegate(parent_directory)
    return made


def inherit_cpuset(directory: str) -> None:
    """Give a new cpuset of v1 what the one above it has; which may be new as well, and have nothing yet."""
    above = os.path.dirname(directory)
    for name in ("cpuset.cpus", "cpuset.mems"):
        value = read(f"{above}/{name}").strip()
        if not value:
            inherit_cpuset(above)
            value = read(f"{above}/{name}").strip()
        write(f"{directory}/{name}", value)


def delegate(directory: str) -> None:
    """Enable all controllers of a v2 cgroup for its children."""
    control = f"{directory}/cgroup.subtree_control"
    missing = set(read(f"{directory}/cgroup.controllers").split()) - set(read(control).split())
    for name in sorted(missing):
        try:
            write(control, f"+{name}")
        except OSError:
            continue  # one that refuses (cpu, while real-time tasks are about) is reported by the limit that needs it


def enable(path: str) -> bool:
    """Hand the controller of a control file of v2 down to its cgroup from the top, if that is why it is missing."""
    base, directory = layout().v2, os.path.dirname(path)
    if not base or not path.startswith(f"{base}/") or not os.path.isdir(directory):
        return False
    above = [directory[:end] for end in range(len(base), len(directory)) if directory[end] == "/"]
    for each in above:
        delegate(each)
    return os.path.exists(path)


def read(path: str) -> str:
    """The text of a control file. By system calls: open() of Python's makes five more for each file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = [os.read(descriptor, 1 << 16)]
        while chunks[-1]:  # the kernel ends a read at a page, or where it likes
            chunks.append(os.read(descriptor, 1 << 16))
        return b"".join(chunks).decode("ascii", "replace")
    finally:
        os.close(descriptor)


def write(path: str, *values: str) -> None:
    """Write values into a control file, one write(2) each. An OSError names the file and the value."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for value in values:
            try:
                os.write(descriptor, value.encode())
            except OSError as error:
                raise OSError(error.errno, error.strerror, f"{path} = {value}") from None
    finally:
        os.close(descriptor)


def processes(directory: str) -> list[int]:
    """The pids in a cgroup (not in those below it); none if it does not exist."""
    try:
        return [int(word) for word in read(f"{directory}/cgroup.procs").split()]
    except (FileNotFoundError, OSError):
        return []


def remove(directory: str) -> None:
    """Kill whatever is in a cgroup and below, and remove it; gone already is fine."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return
    except OSError:
        strike(directory)
        try:
            _empty(directory)
        except FileNotFoundError:  # systemd takes an empty scope away by itself
            return
        _remove_empty(directory)


def strike(directory: str) -> None:
    """What kills all at once (v2, Linux 5.14), and what lets the frozen die (v1, each cgroup by itself)."""
    for folder, _, files in os.walk(directory):
        for name, value in (("cgroup.kill", "1"), ("freezer.state", "THAWED")):
            try:
                if name in files:
                    write(f"{folder}/{name}", value)
            except OSError:  # gone meanwhile
                continue


def _remove_empty(directory: str) -> None:
    """Remove a cgroup whose processes are dead. The kernel counts them until their parent has reaped them, and tells
    nobody when that is; so this asks again, for two seconds at most.
    """
    import select
    from time import monotonic

    deadline = monotonic() + 2
    while True:
        try:
            os.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError:
            if monotonic() > deadline:
                raise
        select.select([], [], [], 0.002)


def _empty(directory: str) -> None:
    with os.scandir(directory) as inner:
        for entry in inner:
            if entry.is_dir(follow_symlinks=False):
                remove(entry.path)
    while pids := processes(directory):
        for pid in pids:
            _kill_and_wait(pid, directory)


def _kill_and_wait(pid: int, directory: str) -> None:
    """SIGKILL by pidfd, after a second look that the number still belongs to the cgroup."""
    from _signal import SIGKILL, pidfd_send_signal

    try:
        pidfd = syscalls.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if pid in processes(directory):
            pidfd_send_signal(pidfd, SIGKILL)
            syscalls.ended([pidfd])
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def freeze(path: str, frozen: bool) -> None:
    """Stop or continue every process of cgroup ``path`` (v1: freezer.state, v2: cgroup.freeze)."""
    where = layout()
    if where.unified:
        write(f"{where.directory(path)}/cgroup.freeze", "1" if frozen else "0")
    else:
        write(f"{where.directory(path, 'freezer')}/freezer.state", "FROZEN" if frozen else "THAWED")
