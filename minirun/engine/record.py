"""What the engine remembers of a container, and how it is found again.

    <root>/names/<name>               a symbolic link to the id: whoever creates it first has the name
    <root>/containers/<id>/           what lasts until `rm`
        container.json                what was asked for and decided
        exit                          how it ended, written by the monitor
        upper/ work/ log              the writable layer, the output
    <state>/locks/<id>                held by the command and the monitor as long as either lives
    <state>/containers/<id>/          what lives with the process
        plan.json                     the steps, written before the first of them is done
        config.json state.json monitor.sock hosts resolv.conf hostname
    <state>/rootfs/                   empty: where each container, in its own namespace, mounts its root

A container runs exactly while its lock is held and state.json names its process. A lock that nobody holds, with a
directory beside it, is what a crash leaves: reconcile undoes its plan.
"""

from __future__ import annotations

import os
from time import time

from minirun import store
from minirun.errors import Conflict, NotFound, UsageError
from minirun.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minirun.engine.options import RunOptions
    from minirun.engine.plan import Decided
    from minirun.image.layout import Image

PLUGS = ".plugs"  # ends the name of the lock of who changes a container's networks: see ``plugs``
_FIRST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_REST = _FIRST | frozenset("_.-")
_HEX = frozenset("0123456789abcdef")


def check_name(name: str, what: str = "container name") -> str:
    """``name`` if it matches ``^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$``; UsageError otherwise.

    Names become file names, host names and words of commands: nothing that could be a path or an option is let in.
    """
    if 0 < len(name) <= 128 and name[0] in _FIRST and _REST.issuperset(name):
        return name
    raise UsageError(f"{what} {name!r}", "must match [A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class Container:
    """One container's places on disk."""

    __slots__ = ("home", "id", "live", "lock_path")

    def __init__(self, identity: str) -> None:
        self.id = identity
        self.home = f"{store.root}/containers/{identity}"
        self.live = f"{store.state}/containers/{identity}"
        self.lock_path = f"{store.state}/locks/{identity}"

    def lock(self, create: bool = False, wait: bool = False) -> int:
        """Hold the container's lock; see syscalls.lock for the errors."""
        try:
            return syscalls.lock(self.lock_path, create, wait)
        except FileNotFoundError:
            if not create:
                raise
            store.directory(store.state, "locks")
            return syscalls.lock(self.lock_path, create, wait)

    def record(self) -> dict[str, Any]:
        """container.json; NotFound if the container is gone."""
        record: dict[str, Any] | None = store.read_json(f"{self.home}/container.json")
        if record is None:
            raise NotFound(f"container {self.id[:12]}", "it is gone")
        return record

    def state(self) -> dict[str, Any] | None:
        """state.json of a container whose process was created, else None."""
        state: dict[str, Any] | None = store.read_json(f"{self.live}/state.json")
        return state

    def exit(self) -> dict[str, Any] | None:
        """How it ended: code, signal, oom, finished (seconds since 1970); None if it did not."""
        ended: dict[str, Any] | None = store.read_json(f"{self.home}/exit")
        return ended

    def status(self) -> str:
        """One of the runtime-spec's words: creating, created, running, paused, stopped."""
        state = self.state()
        if state is None:
            return "creating" if os.path.exists(self.live) and not os.path.exists(f"{self.home}/exit") else "stopped"
        if os.path.exists(f"{self.home}/exit"):
            return "stopped"
        return str(state["status"])


def take_name(name: str, identity: str) -> None:
    """Reserve a name; Conflict if another container has it."""
    path = f"{store.root}/names/{name}"
    try:
        os.symlink(identity, path)
    except FileNotFoundError:
        store.directory(store.root, "names")
        os.symlink(identity, path)
    except FileExistsError:
        raise _taken(name) from None


def check_free(name: str) -> None:
    """Raises Conflict if a container has that name."""
    if os.path.lexists(f"{store.root}/names/{name}"):
        raise _taken(name)


def _taken(name: str) -> Conflict:
    owner = os.readlink(f"{store.root}/names/{name}")[:12]
    return Conflict(f"the name {name!r}", f"container {owner} has it", f"minirun rm {name}, or choose another")


def free_name(name: str, identity: str) -> None:
    """Give a name back, if it is still this container's."""
    path = f"{store.root}/names/{name}"
    try:
        if os.readlink(path) == identity:
            os.unlink(path)
    except FileNotFoundError:
        pass


def find(reference: str) -> Container:
    """The container with this name, id, or unambiguous beginning of an id; NotFound or Conflict otherwise."""
    check_name(reference, "container")
    try:
        return Container(os.readlink(f"{store.root}/names/{reference}"))
    except FileNotFoundError:
        pass
    if len(reference) == 64 and os.path.exists(f"{store.root}/containers/{reference}"):
        return Container(reference)
    matches = [name for name in ids() if name.startswith(reference)]
    if len(matches) == 1:
        return Container(matches[0])
    if matches:
        raise Conflict(f"container {reference!r}", f"{len(matches)} ids begin with it", "give more of the id")
    raise NotFound(f"no such container: {reference}", "", "minirun ps -a lists them")


def ids() -> list[str]:
    """The ids of all containers."""
    return [name for name in store.entries(f"{store.root}/containers") if len(name) == 64 and _HEX.issuperset(name)]


def describe(container: Container, name: str, image: Image, options: RunOptions, decided: Decided) -> dict[str, Any]:
    """container.json: what ``ps`` and ``inspect`` tell of the container."""
    process = decided.config["process"]
    return {
        "Id": container.id,
        "Name": name,
        "Image": options.image,
        "ImageId": image.id,
        "Layers": image.layers,
        "Created": time(),
        "Args": process["args"],
        "Hostname": decided.config["hostname"],
        "Env": process["env"],
        "User": options.user or "",
        "WorkingDir": process["cwd"],
        "Tty": options.tty,
        "OpenStdin": options.interactive,
        "AutoRemove": options.remove,
        "ReadOnly": options.read_only,
        "StopSignal": options.stop_signal or image.config.get("StopSignal") or "SIGTERM",
        "StopTimeout": options.stop_timeout,
        "Labels": {**(image.config.get("Labels") or {}), **options.labels},
        "NetworkMode": options.network + (f":{options.joined}" if options.network == "container" else ""),
        "Networks": [endpoint.record() for endpoint in decided.endpoints],
        "Ports": [port.record() for port in options.ports],
        "ExposedPorts": [*dict.fromkeys([*(image.config.get("ExposedPorts") or {}), *options.expose])],
        "Dns": options.dns,
        "DnsSearch": options.dns_search,
        "DnsOptions": options.dns_options,
        "ExtraHosts": [f"{host}:{address}" for host, address in options.hosts],
        "Mounts": [list(volume) for volume in options.volumes],
        "Memory": options.memory or 0,
        "Cpus": options.cpus or 0,
        "PidsLimit": options.pids_limit,
        "CgroupPath": decided.config["linux"]["cgroupsPath"],
    }


def all_records() -> list[dict[str, Any]]:
    """container.json of every container."""
    found = []
    for identity in ids():
        try:
            found.append(Container(identity).record())
        except NotFound:  # removed while we looked
            continue
    return found
