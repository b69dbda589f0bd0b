"""Probes: the cgroup layout, and each controller by making a cgroup, joining it and removing it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from minirun.doctor import child, kernel
from minirun.doctor.places import SCRATCH
from minirun.errors import Unsupported
from minirun.linux import cgroup

_MOUNT = "mount -t cgroup2 none /sys/fs/cgroup"


def layout() -> str:
    """Where control groups are mounted."""
    found = cgroup.layout()
    if found.unified:
        return f"v2 at {found.v2}"
    if not found.v1:
        raise Unsupported("control groups are not mounted", "", _MOUNT)
    return f"v1, {len(found.v1)} controllers" + (f"; v2 at {found.v2} without any" if found.v2 else "")


def controller(v1: str, v2: str) -> Callable[[], str]:
    """The probe of one controller, by its name in each layout ("": nothing of the kind is needed there)."""

    def probe() -> str:
        found = cgroup.layout()
        if found.unified and not v2:
            return "not a controller of its own in v2"
        name = v2 if found.unified else v1
        if not found.unified and name not in found.v1:
            raise Unsupported(f"the controller {name} is not mounted", "", f"mount -t cgroup -o {name} none DIRECTORY")
        base = _base(found.directory(cgroup.parent, name))
        with _enabled(base, name) if found.unified else contextlib.nullcontext(), _scratch(base) as directory:
            return _use(directory, name)

    return probe


def _use(directory: str, name: str) -> str:
    if not any(file.startswith(f"{name}.") for file in os.listdir(directory)):
        raise Unsupported(f"{directory} has no files of {name}")

    def join() -> str:
        tasks = "tasks" if os.path.exists(f"{directory}/tasks") else "cgroup.procs"
        cgroup.write(f"{directory}/{tasks}", "0")
        return "made, joined and removed"

    return child.run(join)


def born_inside() -> str:
    """CLONE_INTO_CGROUP, by which a container of v2 is born in its cgroup; v1 has no use for it."""
    found = cgroup.layout()
    if not found.unified:
        return "v1: not needed"
    with _scratch(_base(found.directory(cgroup.parent))) as directory:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            pid, pidfd = kernel.clone3(kernel.CLONE_INTO_CGROUP, descriptor)
            os.waitpid(pid, 0)
            os.close(pidfd)
        finally:
            os.close(descriptor)
    return "born and gone"


def _base(path: str) -> str:
    """Our parent cgroup or, as that is made at first use, the nearest one above that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


@contextlib.contextmanager
def _scratch(base: str) -> Iterator[str]:
    directory = f"{base}/{SCRATCH}.{os.getpid()}"
    os.mkdir(directory, 0o755)
    try:
        yield directory
    finally:
        cgroup.remove(directory)


@contextlib.contextmanager
def _enabled(base: str, name: str) -> Iterator[None]:
    """Hand a v2 controller down to the children of ``base`` for a moment, if it is not already."""
    control = f"{base}/cgroup.subtree_control"
    with open(control) as enabled:
        missing = name not in enabled.read().split()
    if missing:
        try:
            cgroup.write(control, f"+{name}")
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"+{name} to {control}") from None
    try:
        yield
    finally:
        if missing:
            with contextlib.suppress(OSError):  # a container that started meanwhile has it in use
                cgroup.write(control, f"-{name}")
