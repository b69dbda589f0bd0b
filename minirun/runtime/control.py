"""What is done to a container's cgroup while the container lives: freeze, signal, count, change, measure."""

from __future__ import annotations

import os

from minirun.errors import InvalidDocument, MinirunError, Unsupported
from minirun.linux import cgroup, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_SIGKILL = 9
_PATIENCE = 10.0  # seconds for what the kernel does by itself; it takes milliseconds


class Handle:
    """The cgroup of one container, by its record in state.json.

    ``directories`` are by controller, "" for that of v2. A container without a cgroup has none, and can still be asked
    everything; only what cannot be done without a cgroup is refused.
    """

    __slots__ = ("directories", "record", "unified")

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record
        self.directories: dict[str, str] = record.get("directories") or {}
        self.unified = list(self.directories) == [""]

    @property
    def freezer(self) -> str:
        """The file that tells whether the container is frozen, "-" if there is none: it begins with F or with 1."""
        if self.unified:
            return f"{self.directories['']}/cgroup.freeze"
        return f"{self.directories['freezer']}/freezer.state" if "freezer" in self.directories else "-"

    @property
    def oom_file(self) -> str | None:
        """The file where the kernel counts the times that memory was not enough."""
        if self.unified:
            return f"{self.directories['']}/memory.events"
        return f"{self.directories['memory']}/memory.oom_control" if "memory" in self.directories else None

    def ooms(self) -> int:
        """How often the kernel has killed a process of it because of memory; 0 when the cgroup is gone."""
        words = cgroup.words(self.oom_file or os.devnull)
        return int(words[words.index("oom_kill") + 1]) if "oom_kill" in words else 0

    def joins(self, below: Sequence[str] = (), pid: int = 0) -> tuple[list[str], str | None]:
        """The files that one more process of the container writes "0" to, and the directory that it is born in.

        ``below`` are cgroups inside the container's, which must exist: ``path``, or in v1 also
        ``controller,controller:path``. Raises InvalidDocument. Without them, where the container (systemd, say) has
        handed its cgroup on to others below, which in v2 leaves no room for processes, it is that of its first process
        ``pid``.
        """
        found = dict(self.directories)
        for word in below:
            found |= self._below(word)
        born = found.pop("", None)
        if born and pid and not below and cgroup.words(f"{born}/cgroup.subtree_control"):
            born = self._of(pid) or born
        return [f"{path}/tasks" for path in dict.fromkeys(found.values())], born

    def _below(self, word: str) -> dict[str, str]:
        controllers, _, path = word.rpartition(":")
        where = f"cgroup {word!r:.200}"
        names = controllers.split(",") if controllers else list(self.directories)
        for name in names:
            if name not in self.directories:
                raise InvalidDocument(where, f"unknown controller {name:.60}")
        parts = [part for part in path.split("/") if part and part != "."]
        if ".." in parts:
            raise InvalidDocument(where, f"bad sub cgroup path {path:.200}", "it must be inside the container's")
        found = {name: "/".join([self.directories[name], *parts]) for name in names}
        for name, directory in found.items():
            if not os.path.isdir(directory):
                if name or self.unified:
                    raise InvalidDocument(where, "adding pid to it would fail: no such file or directory")
                found[name] = self.directories[name]  # of a hybrid machine: what is inside seldom makes one there, too
        return found

    def _of(self, pid: int) -> str | None:
        """Where in the v2 cgroup of the container a process of it is."""
        top = self.directories[""]
        for word in cgroup.words(f"/proc/{pid}/cgroup"):
            base = cgroup.layout().v2
            if word.startswith("0::") and f"{base}{word[3:]}/".startswith(f"{top}/"):
                return f"{base}{word[3:]}"
        return None

    def frozen(self) -> bool:
        """Whether the container is frozen, or about to be."""
        try:
            return cgroup.read(self.freezer)[:1] in ("F", "1")
        except OSError:
            return False

    def freeze(self, wanted: bool) -> None:
        """Stop every process, or let them go on, and wait until the kernel says that it is so."""
        if self.freezer == "-":
            raise Unsupported("pause", "the container has no cgroup that can be frozen")
        if self.unified:
            cgroup.write(self.freezer, str(int(wanted)))
            done = _wait_for_event(self.directories[""], f"frozen {int(wanted)}")
        else:
            done = _turn(self.freezer, "FROZEN" if wanted else "THAWED")
        if not done:
            cgroup.write(self.freezer, "0" if self.unified else "THAWED")
            raise MinirunError("pause", "some process cannot be stopped: the kernel is at work for it", "try it again")

    def processes(self, recursive: bool = True) -> list[int]:
        """The pids in the cgroup, and with ``recursive`` in those that the container has made below it."""
        if not self.directories:
            return []
        top = self.directories.get("pids") or next(iter(self.directories.values()))
        folders = [folder for folder, _, _ in os.walk(top)] if recursive else [top]
        return [pid for folder in folders for pid in cgroup.processes(folder)]

    def kill(self, signal: int) -> None:
        """Send a signal to every process. After SIGKILL none is left."""
        if signal != _SIGKILL:
            for pid in self.processes():
                self._signal(pid, signal)
            return
        for path in self.directories.values():
            cgroup.strike(path)
        if not _until(self._kill_once):
            raise MinirunError("kill", f"processes {self.processes()} do not die")

    def _kill_once(self) -> bool:
        """Kill whatever is there: a process may have forked since the last look. True if nothing was."""
        found = [pid for pid in self.processes() if pid != os.getpid()]
        for pid in found:
            self._signal(pid, _SIGKILL)
        return not found

    def _signal(self, pid: int, signal: int) -> None:
        """By pidfd, after a second look that the number still belongs to the cgroup."""
        from _signal import pidfd_send_signal

        try:
            pidfd = syscalls.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if pid in self.processes():
                pidfd_send_signal(pidfd, signal)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)

    def update(self, wanted: dict[str, Any]) -> None:
        """Change the limits to those of a ``linux.resources`` object; what it does not name stays."""
        from minirun.runtime import update

        update.update(self, wanted)

    def stats(self) -> dict[str, Any]:
        """What is used, in the shape that ``runc events --stats`` has for "data"."""
        from minirun.runtime import stats

        return stats.stats(self)


def _until(done: Callable[[], bool]) -> bool:
    """Ask again and again, for what the kernel does later and tells nobody; False if it takes too long."""
    import select
    from time import monotonic

    deadline = monotonic() + _PATIENCE
    while not done():
        if monotonic() > deadline:
            return False
        select.select([], [], [], 0.001)
    return True


def _turn(path: str, wanted: str) -> bool:
    """Write a state of the v1 freezer until it is reached: a process that is born meanwhile has to be caught too."""

    def done() -> bool:
        cgroup.write(path, wanted)
        return cgroup.read(path).strip() == wanted

    return _until(done)


def _wait_for_event(directory: str, line: str) -> bool:
    """Wait until cgroup.events has this line: poll(2) tells of every change of the file."""
    import select
    from time import monotonic

    deadline = monotonic() + _PATIENCE
    with open(f"{directory}/cgroup.events") as file:
        poll = select.poll()
        poll.register(file, select.POLLPRI)
        while True:
            file.seek(0)
            if line in file.read().splitlines():
                return True
            left = deadline - monotonic()
            if left <= 0:
                return False
            poll.poll(left * 1000)
