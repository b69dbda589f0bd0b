"""The interfaces by which this host reaches other routers, for when it becomes a router itself.

Whoever routes does not listen to routers, unless told (``accept_ra`` 2, ip-sysctl.rst of the kernel): a host that has
its way out from a router would lose it. But containers send router advertisements, too (CVE-2020-10749): so the
setting is never changed for interfaces that are yet to come, nor where containers are.
"""

from __future__ import annotations

from minirun.linux import netlink

SHELL = r"""routed=$(ip -6 -o route show default proto ra | sed 's/.* dev //;s/ .*//')
inner=$(for kind in bridge bridge_slave veth; do ip -br link show type $kind; done | sed 's/[@ ].*//')
for name in $(ip -br link | sed 's/[@ ].*//;/^lo$/d'); do
  setting=/proc/sys/net/ipv6/conf/$name/accept_ra
  if echo "$inner" | grep -qxF "$name" && ! echo "$routed" | grep -qxF "$name"; then continue; fi
  [ "$(cat $setting 2> /dev/null)" != 1 ] || echo 2 > $setting
done"""


def names() -> list[str]:
    """Every interface but lo, bridges, their ports and cables (veth); and of these those that lead to a router now.

    A machine may itself be a container, or have its uplink in a bridge.
    """
    with netlink.shared() as socket:
        links = {link.index: link for link in map(netlink.Link, socket.ask(netlink.get_links()))}
        routes = netlink.routes(socket, netlink.AF_INET6)
    routed = {route.link for route in routes if not route.prefix and route.protocol == netlink.RTPROT_RA}
    return [
        link.name for link in links.values() if link.name != "lo" and (link.index in routed or _is_outer(link, links))
    ]


def _is_outer(link: netlink.Link, links: dict[int, netlink.Link]) -> bool:
    master = links.get(link.master)
    return link.kind not in ("bridge", "veth") and (master is None or master.kind != "bridge")
