"""How a cgroup becomes one container's and nobody else's.

A cgroup may be there already, made by whoever calls us, and is taken if it is empty. Two containers could be given the
same path, by mistake or at the same moment; when one of them ends, the other's processes must not die. Therefore a
cgroup is claimed: its directory is locked (flock(2)) while a container is made in it, and an extended attribute says
whose it is for as long as it is there. On v1 the directory of the first hierarchy speaks for all.
"""

from __future__ import annotations

import os

from minirun.errors import Conflict, MinirunError
from minirun.linux import cgroup
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PATIENCE = 10.0  # seconds, for another to have made its container
# Trusted attributes are root's; who is root only in a user namespace, or not at all, has those of users.
_NAMES = ("trusted.minirun", "user.minirun")


# The locks of the claims that this process makes. Whoever undoes one may have it from a record, as another object.
_held: dict[str, int] = {}


class Claim(Step):
    """Make the container's cgroup in all hierarchies, and make it ours."""

    kind = "cgroup-claim"
    fields = ("directories", "claim")
    directories: list[str]
    claim: str

    _refused = False

    def sh(self) -> str:
        return f"mkdir -p {' '.join(self.directories)}\nsetfattr -n {_NAMES[0]} -v '{self.claim}' {self.directories[0]}"

    def do(self) -> None:
        made: list[str] = []
        try:
            _held[self.claim] = _locked(self.directories[0], made)
            for directory in self.directories[1:]:
                if cgroup.create(directory):
                    made.append(directory)
                else:
                    _refuse_used(directory)
            _refuse_frozen(self.directories)
            mark(self.directories[0], self.claim)  # last: from now on, what is inside is ours to kill
        except (OSError, MinirunError) as error:
            self._refused = True
            for directory in made:
                _removed(directory)
            if isinstance(error, OSError):
                raise _not_made(error, self.directories[0]) from error
            raise

    def undo(self) -> None:
        """Remove it with all that is in it, if it is ours; the first directory last, since it says so."""
        self.release()
        if self._refused:  # it was never ours, and what we made is gone
            return
        found = owner(self.directories[0])
        if found is None:
            _remove_unclaimed(self.directories)
        if found != self.claim:
            return
        lock = _lock_ours(self.directories[0], self.claim)
        if lock < 0:  # it was empty, and the next container has it now
            return
        try:
            self._remove()
        finally:
            os.close(lock)

    def _remove(self) -> None:
        left = [directory for directory in reversed(self.directories[1:]) if not _removed(directory)]
        # Where one is frozen, no process dies by what is done in the others.
        for directory in [*left, self.directories[0]] if left else []:
            cgroup.strike(directory)
        for directory in [*left, self.directories[0]]:
            cgroup.remove(directory)

    def release(self) -> None:
        if self.claim in _held:
            os.close(_held.pop(self.claim))


class Scope(Step):
    """Let systemd make the container's cgroup, as a scope that holds a helper until the container is inside."""

    kind = "systemd-scope"
    fields = ("directories", "claim", "unit", "properties", "user")
    directories: list[str]
    claim: str
    unit: str
    properties: list[list[Any]]
    user: bool

    _helper = _control = -1

    def sh(self) -> str:
        words = [f"-p {name}={value}" for name, kind, value in self.properties if kind in "sbt" and name != "Slice"]
        who = "--user " if self.user else ""
        slice_name = next(value for name, _, value in self.properties if name == "Slice")
        return f"systemd-run {who}--scope --unit={self.unit} --slice={slice_name} {' '.join(words)} sleep infinity &"

    def do(self) -> None:
        from minirun.runtime import systemd

        self._helper, self._control = systemd.start(self.unit, self.properties, self.user)
        mark(self.directories[0], self.claim)

    def undo(self) -> None:
        """End the scope, if it is ours: when the cgroup is gone systemd has nothing left to wait for."""
        self.release()
        if owner(self.directories[0]) != self.claim:
            return
        from minirun.runtime import systemd

        cgroup.remove(self.directories[0])
        systemd.stop(self.unit, self.user)

    def release(self) -> None:
        """Let the helper go, which is inside as well."""
        if self._control >= 0:
            os.close(self._control)
            os.waitpid(self._helper, 0)
            self._control = -1


def _removed(directory: str) -> bool:
    """Remove a cgroup if it is empty, as nearly always at the end of a container; gone already is fine."""
    try:
        os.rmdir(directory)
        return True
    except FileNotFoundError:
        return True
    except OSError:
        return False


def owner(directory: str) -> str | None:
    """Who has claimed a cgroup; None if it is gone or nobody's."""
    for name in _NAMES:
        try:
            return os.getxattr(directory, name).decode()
        except OSError:
            continue
    return None


def mark(directory: str, claim: str) -> None:
    """Write down whose a cgroup is."""
    try:
        os.setxattr(directory, _NAMES[0], claim.encode())
    except PermissionError:
        os.setxattr(directory, _NAMES[1], claim.encode())


def _locked(directory: str, made: list[str]) -> int:
    """Make the cgroup if need be (``made`` gets it), and lock it: the descriptor. Raises Conflict if it is in use."""
    while True:
        made[:] = [directory] if cgroup.create(directory) else []
        descriptor = _try_lock(directory)
        if descriptor < 0 and os.path.isdir(directory):
            made.clear()  # whoever holds the lock has it now
            raise _in_use(directory)
        if descriptor < 0 or not _is_at(descriptor, directory):  # its last container was being deleted
            continue
        try:
            _refuse_used(directory)
            return descriptor
        except BaseException:
            os.close(descriptor)
            raise


def _is_at(descriptor: int, directory: str) -> bool:
    """Whether what we have locked is still what has this name; else it is closed."""
    try:
        if os.stat(directory).st_ino == os.fstat(descriptor).st_ino:
            return True
    except FileNotFoundError:
        pass
    os.close(descriptor)
    return False


def _lock_ours(directory: str, claim: str) -> int:
    """Lock a cgroup that is ours: the descriptor, or -1 when it is no longer.

    Another container may be looking at it at this moment. If it was empty it is the other's next; if not it is refused.
    """
    import select
    from time import monotonic

    deadline = monotonic() + _PATIENCE
    while (descriptor := _try_lock(directory)) < 0 and owner(directory) == claim:
        if monotonic() > deadline:
            raise MinirunError(f"cgroup {directory}", "another container is being made in it", "try it again")
        select.select([], [], [], 0.005)
    if descriptor >= 0 and owner(directory) != claim:
        os.close(descriptor)
        return -1
    return descriptor


def _refuse_used(directory: str) -> None:
    """A cgroup that others use must not become ours: with the container its processes would be killed."""
    if os.stat(directory).st_nlink > 2 or cgroup.processes(directory):
        raise _in_use(directory)


def _refuse_frozen(directories: list[str]) -> None:
    """Frozen itself or below a frozen one: init would not come back from joining it."""
    where = cgroup.layout()
    for base, name, ends in ((where.v1.get("freezer"), "freezer.state", "THAWED"), (where.v2, "cgroup.events", "0")):
        for directory in directories:
            found = cgroup.words(f"{directory}/{name}") if base and directory.startswith(f"{base}/") else []
            if found and found[-1] != ends:
                raise Conflict(f"cgroup {directory}", "container's cgroup unexpectedly frozen", "thaw it first")


def _remove_unclaimed(directories: list[str]) -> None:
    """Remove what we made and had no time to claim: it is empty, and nobody is at work in it."""
    lock = _try_lock(directories[0])
    if lock < 0:
        return
    for directory in directories:
        if not _removed(directory):  # somebody is
            break
    os.close(lock)


def _try_lock(directory: str) -> int:
    """Lock a cgroup: the descriptor, or -1 if it is gone or another holds it."""
    import fcntl

    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    except BlockingIOError:
        os.close(descriptor)
        return -1


def _in_use(directory: str) -> Conflict:
    return Conflict(f"cgroup {directory}", "container's cgroup is not empty", "choose another linux.cgroupsPath")


def _not_made(error: OSError, directory: str) -> MinirunError:
    return MinirunError(f"cgroup {directory}", f"cannot be made: {error}")
