"""One container that was made from a bundle: its state, and what can be done to it (runtime-spec, runtime.md).

    <root>/<id>/   state.json    what `create` decided and found: pid, when it started, bundle, cgroup ...
                   process       "PID START FLAGS FREEZER": the same for csrc/oci.c; written when `create` is done
                   annexe        the part of the state that never changes, as JSON text, for csrc/oci.c
                   undo          whose the cgroup is and where, for csrc/oci.c; only if deleting is nothing more
                   config.json   the document as it was at create: a bundle that is edited later changes nothing
                   plan.json     the steps, written before the first of them is done
                   exec.fifo     init waits on it for `start`; while it is there, the container is "created"
                   failed        what init could not do after that, if anything: the op and the errno

There is no monitor here: whoever calls a runtime (conmon, a containerd shim) is one. The process is the child of the
command that made it only until that ends; then it belongs to its subreaper.
"""

from __future__ import annotations

import os

from minirun import step, store, strict_json
from minirun.errors import Conflict, HookFailed, InvalidDocument, MinirunError, NotFound
from minirun.oci import defaults
from minirun.runtime import placement, process
from minirun.runtime.locked import Locked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SIGKILL, _ENOENT, _ENXIO, _EPIPE = 9, 2, 6, 32
_GOES_WITH_CGROUP = ("cgroup-claim", "limits", "device-filter")  # steps whose undo is at most to remove the cgroup
# Not an id: in it, each container that is being made has a file of its name, and what is being removed is moved there.
_KEPT = frozenset(("pid", "start", "bundle", "annotations", "cgroup", "hooks", "enter", "ends_all"))
CREATING = "@creating"


class Bundled:
    """A container by its id, below the state directory ``root``. Raises NotFound where there is none."""

    __slots__ = ("directory", "id", "root")

    def __init__(self, identity: str, root: str) -> None:
        self.id, self.root, self.directory = identity, root, f"{root}/{identity}"

    def _load(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] | None = store.read_json(f"{self.directory}/{name}")
        if document is None:
            raise NotFound(f"container {self.id!r}", "does not exist")
        return document

    def kept(self) -> dict[str, Any]:
        """``state.json``. Raises InvalidDocument if it lacks what ``create`` writes."""
        kept = self._load("state.json")
        if not kept.keys() >= _KEPT:
            raise InvalidDocument(f"{self.directory}/state.json", "damaged", "minirun-oci delete --force")
        return kept

    def config(self) -> dict[str, Any]:
        """The document as it was at create."""
        return self._load("config.json")

    def status(self, kept: dict[str, Any]) -> str:
        """creating, created, running, paused or stopped."""
        if not process.is_alive(kept["pid"], kept["start"]):
            return "stopped"
        if not os.path.exists(f"{self.directory}/process"):
            return "creating"
        if placement.load(kept["cgroup"]).frozen():
            return "paused"
        return "created" if self._waits() else "running"

    def _waits(self) -> bool:
        """Whether init waits for its start. A `start` that was killed may have left the fifo without a reader."""
        try:
            os.close(os.open(f"{self.directory}/exec.fifo", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            if error.errno not in (_ENOENT, _ENXIO):
                raise
            return False
        return True

    def state(self) -> dict[str, Any]:
        """The state as runtime.md has it; ``pid`` is 0 when the process is gone."""
        kept = self.kept()
        status = self.status(kept)
        return {
            "ociVersion": defaults.VERSION,
            "id": self.id,
            "status": status,
            "pid": 0 if status == "stopped" else kept["pid"],
            "bundle": kept["bundle"],
            "annotations": kept["annotations"],
        }

    def start(self) -> None:
        """Let init become the program. Raises Conflict unless the container is in the state ``created``."""
        with Locked(self.directory, self.id) as lock:
            self._refuse_failed()
            kept = self._demand("created")
            try:
                self._let_go(f"{self.directory}/exec.fifo")
            except OSError as error:
                if error.errno not in (_ENXIO, _EPIPE):
                    raise
                raise Conflict(f"container {self.id!r}", "container not running") from None  # init is gone
            lock.release()  # what hooks do with the container must not wait for us
            if kept["hooks"]:
                self._poststart(kept)

    def _let_go(self, fifo: str) -> None:
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"0")
            os.unlink(fifo)
            self._until_executed(descriptor)
        finally:
            os.close(descriptor)

    def _until_executed(self, fifo: int) -> None:
        """Wait until nobody reads the fifo any more: init is the program, or it has failed and ended."""
        import select

        poll = select.poll()
        poll.register(fifo, 0)
        poll.poll()
        self._refuse_failed()

    def _refuse_failed(self) -> None:
        """Raise what init could not do after the start."""
        if text := store.read(f"{self.directory}/failed"):
            process.fail_late(text, self.config())

    def _poststart(self, kept: dict[str, Any]) -> None:
        from minirun.runtime import hooks

        try:
            hooks.run(self.config(), "poststart", {**self.state(), "pid": kept["pid"], "status": "running"})
        except HookFailed:  # runtime-spec 1.3, lifecycle step 10: an error, and the container is stopped
            process.end(kept["pid"], kept["start"])
            raise

    def kill(self, signal: int, everyone: bool = False) -> None:
        """Send a signal to the first process, or to all. Raises Conflict if the container is stopped; not for all: then
        those that are left get it, or nobody.
        """
        kept = self.kept()
        group = placement.load(kept["cgroup"])
        # Without a PID namespace of its own, the end of the first process is not the end of the others.
        others = everyone or (signal == _SIGKILL and not kept["ends_all"])
        stopped = self.status(kept) == "stopped"
        if stopped and not everyone and not (others and group.processes()):
            raise Conflict(f"container {self.id!r}", "container not running")
        if others:
            group.kill(signal)
        if not everyone and not stopped and not process.send(kept["pid"], kept["start"], signal) and signal != _SIGKILL:
            raise Conflict(f"container {self.id!r}", "container not running")
        if signal == _SIGKILL and group.frozen():  # a frozen process of v1 dies when it thaws
            group.freeze(False)

    def pause(self) -> None:
        """Freeze all processes. Raises Conflict unless the container runs or waits for its start."""
        with Locked(self.directory, self.id):
            placement.load(self._demand("running", "created")["cgroup"]).freeze(True)

    def resume(self) -> None:
        """Thaw all processes. Raises Conflict unless the container is paused."""
        with Locked(self.directory, self.id):
            placement.load(self._demand("paused")["cgroup"]).freeze(False)

    def update(self, resources: dict[str, Any]) -> None:
        """Change the limits to those of a ``linux.resources`` object; what it does not name stays."""
        with Locked(self.directory, self.id):
            placement.load(self._demand("created", "running", "paused")["cgroup"]).update(resources)

    def processes(self) -> list[int]:
        """The pids of all processes, as the host knows them; without a cgroup, those of its PID namespace."""
        kept = self.kept()
        group = placement.load(kept["cgroup"])
        if group.directories or not kept["ends_all"] or not process.is_alive(kept["pid"], kept["start"]):
            return group.processes()
        try:
            found = process.together(kept["pid"])
        except OSError:  # it ended meanwhile
            return []
        return found if process.is_alive(kept["pid"], kept["start"]) else []

    def stats(self) -> dict[str, Any]:
        """What the container uses. Raises Conflict if it is stopped."""
        return placement.load(self._demand("created", "running", "paused")["cgroup"]).stats()

    def delete(self, force: bool = False, warn: Callable[[str], None] | None = None) -> None:
        """Take back all that ``create`` made. With ``force`` a running container is killed, a missing one is fine."""
        try:
            lock = self._lock_by_force() if force else Locked(self.directory, self.id)
        except NotFound:
            if not force:
                raise
            return
        with lock:
            self._delete(force, warn)

    def _lock_by_force(self) -> Locked:
        """The lock, which a create or a start that hangs, in a hook for example, may hold: they end with init."""
        try:
            return Locked(self.directory, self.id, wait=False)
        except BlockingIOError:
            kept = self._read("state.json", True)
            if kept:
                process.send(kept["pid"], kept["start"], _SIGKILL)
        return Locked(self.directory, self.id)

    def _read(self, name: str, force: bool) -> Any:
        """One of our files, or None. With ``force`` one that is damaged counts as missing."""
        try:
            return store.read_json(f"{self.directory}/{name}")
        except InvalidDocument:
            if not force:
                raise
            return None

    def _delete(self, force: bool, warn: Callable[[str], None] | None) -> None:
        kept = self._read("state.json", force)
        if kept and not force and (status := self.status(kept)) in ("running", "paused"):
            raise Conflict(f"container {self.id!r}", f"is {status}, not stopped", "kill it first, or delete --force")
        config = self._read("config.json", force) if kept and kept["hooks"] else None
        state = {**self.state(), "status": "stopped", "pid": 0} if config else {}
        self.undo(force)
        if config:
            from minirun.runtime import hooks

            try:
                hooks.run(config, "poststop", state)
            except HookFailed as error:  # runtime.md, step 13: told, and the removal goes on
                if warn:
                    warn(str(error))

    def undo(self, force: bool = False) -> None:
        """Kill what is left, undo the plan and remove the record; whoever calls holds the lock."""
        kept = self._read("state.json", force)
        if kept:
            group = placement.load(kept["cgroup"])
            if group.frozen():  # a frozen process of v1 dies when it thaws: told before, it does nothing else
                process.send(kept["pid"], kept["start"], _SIGKILL)
                group.freeze(False)
            process.end(kept["pid"], kept["start"])
        plan = self._read("plan.json", force) or []
        errors = step.undo_all([step.load(record) for record in plan])  # a cgroup's undo kills what is still in it
        if errors:
            raise MinirunError(f"container {self.id!r}", f"could not be deleted: {errors[0]}")
        self._remove()

    def _remove(self) -> None:
        """Remove the record: out of the way first, so that it is there as a whole or not at all, should we be killed.
        The next create removes the rest.
        """
        away = f"{self.root}/{CREATING}/@{self.id}@{os.getpid()}"
        try:
            os.rename(self.directory, away)
        except OSError:  # no room for a name, perhaps
            away = self.directory
        store.remove_tree(away)

    def _demand(self, *wanted: str) -> dict[str, Any]:
        kept = self.kept()
        status = self.status(kept)
        if status not in wanted:
            why = "container not running" if status == "stopped" else f"is {status}, not {' or '.join(wanted)}"
            raise Conflict(f"container {self.id!r}", why)
        return kept

    def write_state(self, kept: dict[str, Any]) -> None:
        """Write ``state.json``."""
        store.write_json(f"{self.directory}/state.json", kept)

    def write_done(self, kept: dict[str, Any], freezer: str) -> None:
        """Write the short forms; the last of them says that ``create`` is done."""
        text = strict_json.dumps({"bundle": kept["bundle"], "annotations": kept["annotations"]})
        store.create(f"{self.directory}/annexe", text[1:] + "\n")
        self._write_undo(kept)
        flags = f"{'h' if kept['hooks'] else ''}{'' if kept['ends_all'] else 'o'}" or "-"
        store.create_whole(f"{self.directory}/process", f"{kept['pid']} {kept['start']} {flags} {freezer}\n")

    def _write_undo(self, kept: dict[str, Any]) -> None:
        """Whose its cgroup is and the directories of it, for csrc/oci.c, if deleting is no more than removing these."""
        plan = store.read_json(f"{self.directory}/plan.json") or []
        claims = [record for record in plan if record[0] == _GOES_WITH_CGROUP[0]]
        if len(claims) == 1 and not kept["hooks"] and all(record[0] in _GOES_WITH_CGROUP for record in plan):
            _, directories, claim = claims[0]
            store.create(f"{self.directory}/undo", "\n".join([claim, *directories]) + "\n")


def names(root: str) -> list[str]:
    """The ids of all containers below ``root``."""
    found = [name for name in store.entries(root) if name != CREATING]
    return [name for name in found if os.path.exists(f"{root}/{name}/state.json")]


def wait(pid: int) -> int:
    """Stay with a child until it ends, pass signals on to it, and return its wait status."""
    import _signal as signals

    passed = {signals.SIGINT, signals.SIGTERM, signals.SIGHUP, signals.SIGQUIT, signals.SIGUSR1, signals.SIGUSR2}
    signals.pthread_sigmask(signals.SIG_BLOCK, {*passed, signals.SIGCHLD})
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        number = signals.sigwaitinfo({*passed, signals.SIGCHLD}).si_signo
        if number != signals.SIGCHLD:
            os.kill(pid, number)
