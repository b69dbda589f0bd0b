"""Network devices of the host that a container's document moves into its network namespace (``linux.netDevices``).

A device that changes its namespace is set down and loses its addresses; runtime-spec 1.3 wants it up, with the
addresses of global scope. When the container ends the kernel gives a physical device back by itself.
"""

from __future__ import annotations

import os

from minirun.errors import Conflict, NotFound, StepFailed
from minirun.linux import netlink
from minirun.linux.netlink import Message, Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KEPT = (netlink.IFA_ADDRESS, netlink.IFA_LOCAL, netlink.IFA_BROADCAST, 8)  # 8: IFA_FLAGS
_IFA_F_PERMANENT = 0x80


def move(devices: dict[str, Any], netns: str) -> None:
    """Move each device of ``linux.netDevices`` into the namespace at ``netns``, under its new name.

    Raises NotFound for a device that is missing, Conflict for a name that is taken there.
    """
    descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with Socket() as here, Socket(netns=netns) as there:
            for name, device in devices.items():
                _move(here, there, descriptor, name, (device or {}).get("name") or name)
    finally:
        os.close(descriptor)


def _move(here: Socket, there: Socket, netns: int, name: str, new_name: str) -> None:
    what = f"linux.netDevices.{name}"
    link = netlink.find_link(here, name)
    if link is None:
        raise NotFound(what, "no such network device", "ip link shows them")
    if netlink.find_link(there, new_name):
        raise Conflict(what, f"the container has a device {new_name!r} already", 'choose another "name"')
    addresses = _addresses(here, link.index)
    body = netlink.link_header.pack(netlink.AF_UNSPEC, 0, link.index, 0, 0)
    body += netlink.attribute(netlink.IFLA_NET_NS_FD, netns) + netlink.attribute(netlink.IFLA_IFNAME, new_name)
    try:
        here.ask(Message(netlink.RTM_SETLINK, 0, body, name))
        moved = netlink.find_link(there, new_name)
        if moved is None:
            raise NotFound(what, "did not arrive in the container")
        there.ask(*(_add(moved.index, address) for address in addresses), netlink.set_up(new_name))
    except OSError as error:
        raise StepFailed(what, error.strerror or "") from None


def _addresses(socket: Socket, index: int) -> list[bytes]:
    """The permanent addresses of global scope, as the kernel tells them."""
    found = []
    for body in socket.ask(netlink.get_addresses()):
        _, _, flags, scope, owner = netlink.address_header.unpack_from(body)
        if owner == index and scope == netlink.RT_SCOPE_UNIVERSE and flags & _IFA_F_PERMANENT:
            found.append(body)
    return found


def _add(index: int, told: bytes) -> Message:
    family, prefix, flags, scope, _ = netlink.address_header.unpack_from(told)
    body = netlink.address_header.pack(family, prefix, flags, scope, index)
    for kind, value in netlink.attributes(told, netlink.address_header.size):
        if kind in _KEPT:
            body += netlink.attribute(kind, value)
    return Message(netlink.RTM_NEWADDR, netlink.NLM_F_CREATE | netlink.NLM_F_EXCL, body, "address")
