"""Files that were left behind below our two directories."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from functools import partial

from minirun import store
from minirun.doctor.leak import Leak
from minirun.doctor.living import Living, is_id
from minirun.doctor.places import SCRATCH
from minirun.engine import lifecycle
from minirun.engine.record import Container
from minirun.errors import InvalidDocument
from minirun.linux import syscalls
from minirun.network import ipam, owners
from minirun.network import network as record

_GONE = "its container is gone"
# What is replaced by rename is first written to a file with the writer's pid behind the name (``store.write``).
_WRITTEN = (".json", ".bpf", ".whl", "/exit", "/hosts", "/hostname", "/resolv.conf", "/nameserver", f"/{SCRATCH}")


def leases(living: Living) -> Iterator[Leak]:
    """Addresses that nobody uses."""
    for network in store.entries(f"{store.state}/networks"):
        for address, lease in ipam.held(network).items():
            if not _lives(lease, living):
                release = partial(ipam.release, network, address, lease.owner)
                path = ipam.lease_path(network, address)
                yield Leak("lease", path, f"its owner {lease.owner[:12]} is gone", f"rm {path}", release)


def _lives(lease: ipam.Held, living: Living) -> bool:
    """A container lives while somebody holds its lock, others as their lease says."""
    told = "alive" in lease.notes or lease.owner == ipam.UNKNOWN
    return owners.alive(lease) if told else lease.owner in living.ids


def published(living: Living) -> Iterator[Leak]:
    """Notes of published ports."""
    for network in store.entries(f"{store.state}/networks"):
        folder = f"{ipam.state_directory(network)}/published"
        for name in store.entries(folder):
            if is_id(name) and name not in living.ids:
                yield _file("published port", f"{folder}/{name}", _GONE)
        folder = f"{ipam.state_directory(network)}/proxies"
        for name in store.entries(folder):
            if is_id(name) and name not in living.ids:
                yield _file("proxy", f"{folder}/{name}", _GONE)


def networks(living: Living) -> Iterator[Leak]:
    """State of networks that have no record, and in which nobody lives."""
    for name in store.entries(f"{store.state}/networks"):
        if not record.load(name) and not any(_lives(lease, living) for lease in ipam.held(name).values()):
            yield _tree("network state", ipam.state_directory(name), f"network {name} has no record")


def live_directories(living: Living) -> Iterator[Leak]:
    """State of processes that are gone."""
    folder = f"{store.state}/containers"
    for name in store.entries(folder):
        if is_id(name) and name not in living.ids:
            yield _tree("state", f"{folder}/{name}", "nobody holds its lock")


def locks(living: Living) -> Iterator[Leak]:
    """Locks that nobody holds."""
    for name in syscalls.dead_locks(f"{store.state}/locks"):
        if is_id(name):
            yield _file("lock", f"{store.state}/locks/{name}", "nobody holds it")


def names(living: Living) -> Iterator[Leak]:
    """Names of containers that do not exist."""
    for name in store.entries(f"{store.root}/names"):
        path = f"{store.root}/names/{name}"
        try:
            identity = os.readlink(path)
        except OSError:  # not a name, or gone since
            continue
        if identity not in living.ids and not os.path.exists(f"{store.root}/containers/{identity}"):
            yield _file("name", path, f"container {identity[:12]} does not exist")


def homes(living: Living) -> Iterator[Leak]:
    """Writable layers without a record, and those of ``--rm`` containers, which should have gone with them."""
    for name in store.entries(f"{store.root}/containers"):
        if not is_id(name) or name in living.ids:
            continue
        container = Container(name)
        try:
            record = store.read_json(f"{container.home}/container.json")
            why = "no container.json" if record is None else "it was run with --rm" if record["AutoRemove"] else ""
        except (InvalidDocument, KeyError):
            continue  # damaged, and maybe dear to somebody
        if why:
            forget = partial(lifecycle.forget, container, (record or {}).get("Name", ""))
            yield Leak("container", container.home, why, f"rm -r {container.home}", forget)


def temporaries(living: Living) -> Iterator[Leak]:
    """Files of writers that died before the rename."""
    inner = [f"{store.root}/networks", f"{store.state}/networks", f"{store.root}/containers"]
    folders = [store.root, f"{store.root}/images", f"{store.root}/cache", f"{store.state}/seccomp"]
    folders += [f"{folder}/{name}" for folder in inner for name in store.entries(folder)]
    for folder in folders:
        for name in store.entries(folder) if os.path.isdir(folder) else []:
            path = f"{folder}/{name}"
            written, _, pid = path.rpartition(".")
            if written.endswith(_WRITTEN) and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
                yield _tree("temporary", path, f"its writer, process {pid}, is gone")


def image_work(living: Living) -> Iterator[Leak]:
    """Unfinished images whose builder holds no lock on them (see ``image.writer``)."""
    folder = f"{store.root}/image-tmp"
    for name in store.entries(folder):
        path = f"{folder}/{name}"
        if not _is_locked(path):
            yield _tree("unfinished image", path, "its builder is gone")


def _is_locked(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True  # gone since
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _file(kind: str, path: str, why: str) -> Leak:
    return Leak(kind, path, why, f"rm {path}", partial(os.unlink, path))


def _tree(kind: str, path: str, why: str) -> Leak:
    return Leak(kind, path, why, f"rm -r {path}", partial(store.remove_tree, path))


FINDERS = (leases, published, networks, live_directories, locks, names, homes, temporaries, image_work)
