"""A container's network namespace: made with a name that ``ip netns`` knows, and removed only by whose it is."""

from __future__ import annotations

import os
from binascii import crc32
from errno import EINVAL, ENOENT

from minirun import store
from minirun.errors import Conflict
from minirun.linux import netlink, syscalls
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

NETNS = "/run/netns"  # iproute2's own place, so that `ip netns exec <name>` just works
PROC_NET = "/proc/sys/net"


def netns_path(container_name: str) -> str:
    """Where the network namespace of a container is, for ``namespaces[].path`` of config.json."""
    return f"{NETNS}/{container_name}"


def owner_tag(container_id: str) -> int:
    """The number that marks a namespace as this container's: see ``Netns``."""
    return crc32(container_id.encode()) & 0x7FFFFFFF


def inside(container_name: str, container_id: str) -> netlink.Socket | None:
    """A shared socket in a container's namespace; None if the namespace of that name is not (or no more) its own.

    Names are used again: who only knows that the container ran a moment ago may find another one's under its name.
    """
    path = netns_path(container_name)
    try:
        socket = netlink.shared(netns=path)
    except OSError as error:
        if error.errno not in (ENOENT, EINVAL):  # EINVAL: a name that no namespace has been mounted at
            raise
        return None
    loopback = netlink.find_link(socket, "lo")
    if loopback and loopback.tag == owner_tag(container_id):
        return socket
    netlink.forget(path)
    return None


class Netns(Step):
    """A network namespace with a name, without IPv6, in which anyone may ping.

    Whose it is stands inside, in net.ipv4.conf.lo.tag, a number that the kernel keeps for whoever needs one. It is
    written before the name appears: so a namespace is never removed because its name was used again.
    """

    kind = "netns"
    fields: ClassVar[tuple[str, ...]] = ("name", "tag")
    name: str
    tag: int

    def sh(self) -> str:
        settings = " ".join(
            f"{path.removeprefix('/proc/sys/').replace('/', '.')}='{value}'" for path, value in self._sysctls().items()
        )
        return f"ip netns add {self.name}\nip netns exec {self.name} sysctl -qew {settings}"

    def do(self) -> None:
        _make_folder()
        try:
            syscalls.netns_create(netns_path(self.name), self._sysctls())
        except FileExistsError:
            raise Conflict(
                f"network namespace {self.name}",
                "it exists already and is not this container's",
                f"remove it with: ip netns del {self.name}",
            ) from None

    def undo(self) -> None:
        path = netns_path(self.name)
        try:
            with netlink.shared(netns=path) as socket:
                loopback = netlink.find_link(socket, "lo")
                if loopback and loopback.tag != self.tag:
                    return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != EINVAL:  # EINVAL: an empty file, left by whoever died between creating and mounting it
                raise
        netlink.forget(path)
        syscalls.netns_delete(path)

    def _sysctls(self) -> dict[str, str]:
        return {
            # IPv6 left on in a network without it makes 1000 containers cost seconds of neighbour discovery.
            f"{PROC_NET}/ipv6/conf/all/disable_ipv6": "1",  # of those to come, too: the kernel sets "default" with it
            # ICMP echo without CAP_NET_RAW, which containers do not get (icmp(7)).
            f"{PROC_NET}/ipv4/ping_group_range": "0 2147483647",
            f"{PROC_NET}/ipv4/conf/lo/tag": str(self.tag),
        }


def _make_folder() -> None:
    """Make the folder of namespaces a shared mount, as iproute2 does.

    Else the first ``ip netns add`` of somebody would do that later, on top of our namespaces: each would then be
    mounted twice, and its name could never be removed (EBUSY).
    """
    if syscalls.is_mount_root(NETNS):
        return
    import fcntl

    from minirun.network import helper

    store.directory(NETNS, mode=0o755)
    folder = os.open(os.path.dirname(NETNS), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # two at once would mount twice, which is what we are here to prevent
        if not syscalls.is_mount_root(NETNS):
            helper.run(["mount", "--rbind", "--make-shared", NETNS, NETNS], "mount")
    finally:
        os.close(folder)
