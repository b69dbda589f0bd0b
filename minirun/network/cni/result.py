"""What ADD answers: interfaces, addresses and routes, in the form of each version; and reading what others answered.

Inside it is the form of the newest version. What an older one does not know is left out, what it asks for besides
(``ips[].version``) is put in. In a chain the result of those before us is kept as it is, and ours put behind it.
"""

from __future__ import annotations

from minirun.network.cni.document import Reader, items, mapping
from minirun.network.cni.protocol import at_least

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ROUTE = ("dst", "gw")  # what of a route was known before 1.1.0


class Result:
    """A result: lists as the specification names them, and what else somebody said, to be passed on."""

    __slots__ = ("dns", "interfaces", "ips", "others", "routes")

    def __init__(self) -> None:
        self.interfaces: list[dict[str, Any]] = []
        self.ips: list[dict[str, Any]] = []
        self.routes: list[dict[str, Any]] = []
        self.dns: dict[str, Any] = {}
        self.others: dict[str, Any] = {}

    def behind(self, before: Result) -> Result:
        """This result put behind one that came before it: that one's interfaces keep their numbers."""
        whole, shift = Result(), len(before.interfaces)
        whole.interfaces = before.interfaces + self.interfaces
        whole.ips = before.ips + [
            {**ip, "interface": ip["interface"] + shift} if "interface" in ip else ip for ip in self.ips
        ]
        whole.routes = before.routes + [route for route in self.routes if route not in before.routes]
        whole.dns = {**before.dns}
        for key, value in self.dns.items():
            known = whole.dns.get(key)
            if isinstance(known, list) and isinstance(value, list):
                whole.dns[key] = known + [item for item in value if item not in known]
            elif not known:
                whole.dns[key] = value
        whole.others = before.others
        return whole

    def document(self, version: str) -> dict[str, Any]:
        """The result as a runtime of that version reads it."""
        head = {**self.others, "cniVersion": version}
        if not at_least(version, "0.3.0"):
            return {**head, **self._before_lists(), "dns": self.dns}
        ips = [_ip(ip, version) for ip in self.ips]
        routes = self.routes
        if not at_least(version, "1.1.0"):
            routes = [{key: route[key] for key in _ROUTE if key in route} for route in routes]
        interfaces = [_interface(interface, version) for interface in self.interfaces]
        return {**head, "interfaces": interfaces, "ips": ips, "routes": routes, "dns": self.dns}

    def _before_lists(self) -> dict[str, Any]:
        """``ip4`` and ``ip6`` of 0.1.0 and 0.2.0: one address of each family."""
        found: dict[str, Any] = {}
        for ip in self.ips:
            six = ":" in ip["address"]
            routes = [{k: r[k] for k in _ROUTE if k in r} for r in self.routes if (":" in r["dst"]) == six]
            entry = {"ip": ip["address"], "gateway": ip.get("gateway"), "routes": routes}
            found.setdefault("ip6" if six else "ip4", {key: value for key, value in entry.items() if value})
        return found


def _ip(ip: dict[str, Any], version: str) -> dict[str, Any]:
    if at_least(version, "1.0.0"):
        return {key: value for key, value in ip.items() if key != "version"}
    return {"version": "6" if ":" in ip["address"] else "4", **ip}


def _interface(interface: dict[str, Any], version: str) -> dict[str, Any]:
    if at_least(version, "1.1.0"):
        return interface
    return {key: value for key, value in interface.items() if key not in ("mtu", "socketPath", "pciID")}


def previous(document: dict[str, Any]) -> Result | None:
    """``prevResult`` of a configuration; None if there is none. Raises CniError, code 7."""
    reader = Reader(document)
    if not reader.has("prevResult"):
        return None
    told = reader.object("prevResult")
    result = Result()
    result.interfaces = [_told(one) for one in told.objects("interfaces")]
    result.ips = [{**one.values, "address": one.text("address")} for one in told.objects("ips")]
    result.routes = [{**one.values, "dst": one.text("dst")} for one in told.objects("routes")]
    result.dns = told.object("dns").values
    for key in ("ip4", "ip6"):
        if told.has(key):
            _one_family(result, told.object(key))
    known = ("cniVersion", "interfaces", "ips", "routes", "dns", "ip4", "ip6")
    result.others = {key: value for key, value in told.values.items() if key not in known}
    for number, ip in enumerate(result.ips):
        index = Reader(ip, f"prevResult.ips[{number}]").number("interface", limit=max(1, len(result.interfaces)))
        if "interface" in ip and ip["interface"] is not None:
            ip["interface"] = index
    return result


def _told(reader: Reader) -> dict[str, Any]:
    """An interface as somebody told it, when what we shall compare are texts."""
    for key in ("name", "mac", "sandbox"):
        reader.text(key)
    return reader.values


def _one_family(result: Result, reader: Reader) -> None:
    ip = {"address": reader.text("ip"), "gateway": reader.text("gateway")}
    result.ips.append({key: value for key, value in ip.items() if value})
    result.routes += [{**one.values, "dst": one.text("dst")} for one in reader.objects("routes")]


def valid_attachments(document: dict[str, Any]) -> set[tuple[str, str]]:
    """What GC shall leave alone: (container's id, interface), from ``cni.dev/valid-attachments``. Raises CniError, 7.

    libcni wrote ``cni.dev/attachments`` at first and now writes both; with neither, nothing of the network is valid.
    """
    found = set()
    for key in ("cni.dev/valid-attachments", "cni.dev/attachments"):
        value = document.get(key)
        for place, item in items(value, key) if value is not None else []:
            reader = Reader(mapping(item, place), place)
            found.add((reader.text("containerID"), reader.text("ifname")))
    return found
