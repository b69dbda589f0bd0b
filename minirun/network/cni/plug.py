"""The steps of an attachment that differ from a container's own: the namespace is the runtime's, and lives on.

So nothing that we put into it is taken away by dropping it; but the cable takes along what was on its far end.
"""

from __future__ import annotations

import os

from minirun.linux import netlink
from minirun.network import attach, endpoint
from minirun.network.addresses import bits
from minirun.network.cable import Interface, Veth
from minirun.network.ipam import Lease
from minirun.network.netns import PROC_NET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minirun.network.endpoint import Endpoint
    from minirun.step import Step


def steps(owner: str, name: str, plugged: Endpoint, netns: str, routes: list[dict[str, Any]], alive: str) -> list[Step]:
    """The steps that put one more interface into the namespace of somebody else; ``alive`` is a line of the leases."""
    return [_ours(one, routes, alive) for one in attach.plug_steps(owner, name, plugged, netns)]


def _ours(one: Step, routes: list[dict[str, Any]], alive: str) -> Step:
    if isinstance(one, Lease):
        return Lease(one.network, one.address, one.owner, [*one.notes, alive])
    if isinstance(one, Veth):
        return Cable(*one.record()[1:])
    if isinstance(one, Interface):
        return Inside(*one.record()[1:], routes)
    return one


class Cable(Veth):
    """A virtual cable that is taken away by its name: its namespace stays when we go."""

    kind = "cable"

    def undo(self) -> None:
        with netlink.shared() as socket:
            self._delete(socket)


class Inside(Interface):
    """What is inside a namespace that we did not make: IPv6 may be on there, and more routes may be asked for."""

    kind = "inside"
    fields = (*Interface.fields, "routes")
    routes: list[dict[str, Any]]

    def sh(self) -> str:
        name = os.path.basename(self.netns)
        return "\n".join([super().sh(), *(f"ip -n {name} {_words(route, self.device)}" for route in self.routes)])

    def do(self) -> None:
        super().do()
        if not self.routes:
            return
        with netlink.shared(netns=self.netns) as socket:
            index = netlink.Link(socket.ask(netlink.get_link(self.device))[0]).index
            for route in self.routes:
                try:
                    socket.ask(netlink.add_route(index, route))
                except FileExistsError:  # another network has brought it already: the first one wins
                    pass

    def undo(self) -> None:
        """Nothing: the cable takes along what is on it, and the path may lead to another namespace by now."""

    def _sysctls(self) -> dict[str, str]:
        # Without an address of ours IPv6 would only ask for neighbours and routers, in vain.
        return super()._sysctls() or {f"{PROC_NET}/ipv6/conf/{self.device}/disable_ipv6": "1"}


def _words(route: dict[str, Any], device: str) -> str:
    """A route as ip-route(8) takes it."""
    words = f"{'-6 ' if bits(route['dst']) == 128 else ''}route add {route['dst']}"
    words += f" via {route['gw']}" if "gw" in route else ""
    named = {"priority": "metric", "mtu": "mtu", "advmss": "advmss", "table": "table", "scope": "scope"}
    return words + f" dev {device} proto static" + "".join(f" {w} {route[k]}" for k, w in named.items() if k in route)


def remove_cable(owner: str) -> None:
    """Remove the cable of an attachment that has no record any more: it is told by its name and its alias."""
    with netlink.shared() as socket:
        link = netlink.find_link(socket, endpoint.host_end(owner))
        detour = netlink.find_link(socket, f"mi{endpoint.host_end(owner)[2:]}")  # of cable.Rates
        if detour and detour.kind == "ifb" and detour.alias.endswith(owner[:12]):
            socket.ask(netlink.delete_link(detour.name))
        if link and link.kind == "veth" and (not link.alias or link.alias.endswith(owner[:12])):
            Cable(link.name, "", "", "", "", 0, link.alias, False, False).undo()
