"""Objects of the kernel that were left behind: processes, cgroups, mounts, namespaces, cables, bridges, elements."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from functools import partial

from minirun import store
from minirun.doctor import firewall
from minirun.doctor.leak import Leak
from minirun.doctor.living import Living, is_id
from minirun.doctor.places import SCRATCH
from minirun.linux import cgroup, netlink, syscalls
from minirun.network import endpoint, nat, netns
from minirun.network import network as networks

_GONE = "its container is gone"
_NETWORK = networks.comment("")  # how the alias and the comments of a network begin


def processes(living: Living) -> Iterator[Leak]:
    """Monitors whose lock is gone. (An init dies with its monitor; the others are found by their cgroup.)"""
    for monitor in living.monitors:
        if monitor.ours and monitor.id not in living.held:
            name = f"{monitor.pid} (minirun-monitor {monitor.id[:12]})"
            yield Leak("process", name, "nobody holds its lock", f"kill -9 {monitor.pid}", partial(_kill, monitor.pid))


def cgroups(living: Living) -> Iterator[Leak]:
    """Cgroups below our parent in every hierarchy."""
    layout = cgroup.layout()
    if not (layout.v1 or layout.v2):
        return
    for top in layout.directories(cgroup.parent, cgroup.V1_ON_DEMAND):
        for name in store.entries(top):
            path = f"{top}/{name}"
            if (is_id(name) and name not in living.ids and _is_ours(path, name)) or _is_dead_scratch(name):
                remedy = f"echo 1 > {path}/cgroup.kill; rmdir {path}" if layout.unified else _v1_remedy(path)
                yield Leak("cgroup", path, _GONE, remedy, partial(cgroup.remove, path))


def _v1_remedy(path: str) -> str:
    return f"kill -9 $(cat {path}/cgroup.procs); rmdir {path}" if cgroup.processes(path) else f"rmdir {path}"


def _is_ours(path: str, identity: str) -> bool:
    """Another engine may use ids like ours in bundles (`minirun oci`): of those, only empty ones can be called left."""
    if os.path.exists(f"{store.state}/oci/{identity}"):
        return False
    known = (f"{store.state}/containers/{identity}", f"{store.root}/containers/{identity}")
    return any(map(os.path.exists, known)) or not _has_processes(path)


def _has_processes(path: str) -> bool:
    return any(cgroup.processes(folder) for folder, _, _ in os.walk(path))


def _is_dead_scratch(name: str) -> bool:
    """What a probe of ``doctor`` made, if that was killed."""
    begin, _, pid = name.partition(".")
    return begin == SCRATCH and pid.isdigit() and not os.path.exists(f"/proc/{pid}")


def mounts(living: Living) -> Iterator[Leak]:
    """Mounts inside a container's directories; the innermost first."""
    places = (f"{store.state}/containers/", f"{store.root}/containers/")
    for path in reversed(_mount_points()):
        place = next((place for place in places if path.startswith(place)), None)
        if place and path[len(place) :].split("/")[0] not in living.ids:
            yield Leak("mount", path, _GONE, f"umount -l {path}", partial(syscalls.unmount, path))


def _mount_points() -> list[str]:
    with open("/proc/self/mountinfo") as file:
        fields = [line.split(" ")[4] for line in file]
    escaped = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))  # proc_pid_mountinfo(5)
    for written, character in escaped:
        fields = [field.replace(written, character) for field in fields]
    return fields


def namespaces(living: Living) -> Iterator[Leak]:
    """Network namespaces with our tag on their lo (see ``netns.Netns``); others have none there."""
    for name in store.entries(netns.NETNS):
        path = netns.netns_path(name)
        tag = _tag(path)
        if tag and tag not in living.tags:
            yield Leak("namespace", path, _GONE, f"ip netns del {name}", partial(syscalls.netns_delete, path))


def _tag(path: str) -> int:
    try:
        with netlink.Socket(netns=path) as socket:
            loopback = netlink.find_link(socket, "lo")
            return loopback.tag if loopback else 0
    except OSError:  # a file that is no network namespace
        return 0


def cables(living: Living) -> Iterator[Leak]:
    """Host ends of veth pairs that bear a container's id."""
    for link in _links():
        if _cable_of(link) and _cable_of(link) not in living.short:
            yield Leak("cable", link.name, _GONE, f"ip link del {link.name}", partial(_remove_link, link.name))


def bridges(living: Living) -> Iterator[Leak]:
    """Bridges with our alias, and the cables between them, whose network has no record.

    Unless a container of another minirun is plugged into one of them.
    """
    links = _links()
    aliases = {link.index: link.alias for link in links}
    known = {networks.comment(network.name) for network in networks.listing()}
    known |= {aliases.get(port.master, "") for port in links if _cable_of(port) in living.short}
    for link in links:
        if link.alias.startswith(_NETWORK) and link.alias not in known:
            why = f"network {link.alias.removeprefix(_NETWORK)} has no record"
            yield Leak("bridge", link.name, why, f"ip link del {link.name}", partial(_remove_link, link.name))


def elements(living: Living) -> Iterator[Leak]:
    """Elements of our nftables table whose comment names a container or a network that is gone."""
    known = {network.name for network in networks.listing()}
    bridged = {link.alias for link in _links() if link.kind == "bridge"}  # of another minirun, or a leak by itself
    for element in firewall.elements():
        network = element.comment.removeprefix(_NETWORK)
        if element.comment.startswith(_NETWORK):
            gone, why = network not in known and element.comment not in bridged, f"network {network} has no record"
        else:
            short = element.comment.rpartition(" ")[2]
            gone, why = len(short) == 12 and is_id(short * 5 + short[:4]) and short not in living.short, _GONE
        if gone:
            key = nat.TABLE.written_key(element)
            family = nat.TABLE.sets[element.set][0]
            command = f"nft delete element {family} {nat.TABLE.name} {element.set} '{{ {key} }}'"
            yield Leak("element", f"{element.set} {{ {key} }}", why, command, partial(nat.TABLE.delete, [element]))


def _links() -> list[netlink.Link]:
    with netlink.Socket() as socket:
        return [netlink.Link(body) for body in socket.ask(netlink.get_links())]


def _cable_of(link: netlink.Link) -> str:
    """The beginning of the id of the container that a host end belongs to; "" for any other link."""
    short = link.name[2:14]
    ends = {endpoint.host_end(short, place) for place in range(endpoint.MAX_NETWORKS)}
    is_end = link.kind == "veth" and len(short) == 12 and link.name in ends
    return short if is_end and is_id(short * 5 + short[:4]) else ""


def _kill(pid: int) -> None:
    from signal import SIGKILL, pidfd_send_signal

    pidfd = syscalls.pidfd_open(pid)
    try:
        if any(monitor.pid == pid for monitor in Living().monitors):  # the number may be another's by now
            pidfd_send_signal(pidfd, SIGKILL)
            select.select([pidfd], [], [])
    finally:
        os.close(pidfd)


def _remove_link(name: str) -> None:
    with netlink.Socket() as socket:
        if netlink.find_link(socket, name):
            socket.ask(netlink.delete_link(name))


FINDERS = (processes, cgroups, mounts, namespaces, cables, bridges, elements)
