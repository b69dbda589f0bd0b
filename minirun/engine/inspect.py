"""What ``inspect`` tells, in docker's shape where scripts grep it: Id, State.Pid, NetworkSettings.IPAddress ..."""

from __future__ import annotations

import time

from minirun.engine.record import Container
from minirun.linux import cgroup, netlink
from minirun.network import addresses
from minirun.network.addresses import IPV4, IPV6
from minirun.network.endpoint import Endpoint
from minirun.network.netns import netns_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minirun.image.layout import Image


def _time(moment: float | None) -> str:
    if moment is None:
        return "0001-01-01T00:00:00Z"  # docker's word for never
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1e9):09d}Z"


def container(container: Container) -> dict[str, Any]:
    """Everything about one container."""
    record = container.record()
    status = container.status()
    alive = status in ("created", "running", "paused")
    return {
        "Id": container.id,
        "Created": _time(record["Created"]),
        "Path": record["Args"][0],
        "Args": record["Args"][1:],
        "State": _state(container, status),
        "Image": record["ImageId"],
        "Name": record["Name"],
        "ResolvConfPath": f"{container.live}/resolv.conf",
        "HostsPath": f"{container.live}/hosts",
        "LogPath": f"{container.home}/log",
        "OCIConfigPath": f"{container.live}/config.json",
        "HostConfig": {
            "NetworkMode": record["NetworkMode"],
            "AutoRemove": record["AutoRemove"],
            "ReadonlyRootfs": record["ReadOnly"],
            "Memory": record["Memory"],
            "NanoCpus": int(record["Cpus"] * 1e9),
            "PidsLimit": record["PidsLimit"],
            "CgroupPath": record["CgroupPath"],
            "PortBindings": bindings(record["Ports"]),
            "Dns": record["Dns"],
            "DnsSearch": record["DnsSearch"] or [],
            "DnsOptions": record["DnsOptions"] or [],
            "ExtraHosts": record["ExtraHosts"],
        },
        "Limits": limits(container) if alive else {},
        "Mounts": [
            {"Type": "bind", "Source": source, "Destination": destination, "RW": flag != "ro"}
            for source, destination, flag in record["Mounts"]
        ],
        "Config": {
            "Hostname": record["Hostname"],
            "User": record["User"],
            "Env": record["Env"],
            "Cmd": record["Args"],
            "Image": record["Image"],
            "WorkingDir": record["WorkingDir"],
            "Tty": record["Tty"],
            "OpenStdin": record["OpenStdin"],
            "ExposedPorts": {name: {} for name in record["ExposedPorts"]},
            "Labels": record["Labels"],
            "StopSignal": record["StopSignal"],
            "StopTimeout": record["StopTimeout"],
        },
        "NetworkSettings": _network(container, record, alive),
    }


def _state(container: Container, status: str) -> dict[str, Any]:
    state, ended = container.state() or {}, container.exit() or {}
    alive = status in ("created", "running", "paused")
    started = container.record()["Created"] if state or ended else None  # both come in one breath: there is no `start`
    return {
        "Status": "exited" if status == "stopped" else status,
        "Running": status in ("running", "paused"),
        "Paused": status == "paused",
        "OOMKilled": bool(ended.get("oom")),
        "Dead": False,
        "Pid": state.get("pid", 0) if alive else 0,
        "ExitCode": ended.get("code", 0),
        "StartedAt": _time(started),
        "FinishedAt": _time(ended.get("finished")),
    }


def published(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The ports that lead to a container now: none, while it is connected to no network with a way out."""
    ports: list[dict[str, Any]] = record["Ports"]
    return ports if any(item["gateways"] for item in record["Networks"]) else []


def bindings(ports: list[dict[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """Published ports in docker's shape: under ``80/tcp`` each place of the host that leads there."""
    result: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        for step in range(port["Count"]):
            binding = {"HostIp": port["HostIp"], "HostPort": str(port["HostPort"] + step)}
            result.setdefault(f"{port['ContainerPort'] + step}/{port['Protocol']}", []).append(binding)
    return result


def _network(container: Container, record: dict[str, Any], alive: bool) -> dict[str, Any]:
    endpoints = [Endpoint.from_record(item) for item in record["Networks"]] if alive else []
    first = _addresses(endpoints[0] if endpoints else None)
    return {
        "Bridge": endpoints[0].bridge if endpoints else "",
        "SandboxID": container.id if alive else "",
        "SandboxKey": netns_path(record["Name"]) if alive and record["NetworkMode"] != "host" else "",
        "Ports": {**dict.fromkeys(record["ExposedPorts"]), **bindings(published(record))} if alive else {},
        **first,
        "Networks": {endpoint.network: _endpoint(endpoint) for endpoint in endpoints},
    }


def endpoints(container: Container) -> list[Endpoint]:
    """The networks that a container is on."""
    return [Endpoint.from_record(item) for item in container.record()["Networks"]]


def traffic(container: Container) -> tuple[int, int]:
    """Bytes that a container has received and sent on its networks, as the host's ends of its cables count them."""
    received = sent = 0
    with netlink.Socket() as socket:
        for endpoint in endpoints(container):
            try:
                into_host, out_of_host = netlink.traffic(socket.ask(netlink.get_link(endpoint.port))[0])
            except OSError:  # it has just ended
                continue
            received, sent = received + out_of_host, sent + into_host
    return received, sent


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    """One network of a container, in docker's words; a network's id is its name, an endpoint's the cable's."""
    return {
        **_addresses(endpoint),
        "NetworkID": endpoint.network,
        "EndpointID": endpoint.port,
        "Aliases": endpoint.aliases,
        "InterfaceName": endpoint.interface,
        "RateIn": endpoint.rate_in,  # bits a second, 0: none
        "RateOut": endpoint.rate_out,
    }


def _addresses(endpoint: Endpoint | None) -> dict[str, Any]:
    result: dict[str, Any] = {"MacAddress": endpoint.mac if endpoint else ""}
    for bits, words in (
        (IPV4, ("Gateway", "IPAddress", "IPPrefixLen")),
        (IPV6, ("IPv6Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen")),
    ):
        interface = next((a for a in endpoint.addresses if addresses.bits(a) == bits), "") if endpoint else ""
        gateway = next((g for g in endpoint.gateways if addresses.bits(g) == bits), "") if endpoint else ""
        address, _, prefix = interface.partition("/")
        result |= dict(zip(words, (gateway, address, int(prefix or 0)), strict=True))
    return result


def image(image: Image) -> dict[str, Any]:
    """Everything about one image."""
    return {
        "Id": image.id,
        "RepoTags": image.names,
        "Created": image.created,
        "Architecture": image.document.get("architecture"),
        "Os": image.document.get("os"),
        "Size": image.size,
        "Config": image.config,
        "RootFS": {"Type": "layers", "Layers": image.document["rootfs"]["diff_ids"]},
    }


# control file of v1 (controller, name) and of v2
_LIMITS = {
    "Memory": ("memory", "memory.limit_in_bytes", "memory.max"),
    "MemorySwap": ("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
    "CpuQuota": ("cpu", "cpu.cfs_quota_us", "cpu.max"),
    "CpuPeriod": ("cpu", "cpu.cfs_period_us", ""),
    "Pids": ("pids", "pids.max", "pids.max"),
}
_USAGE = {
    "memory": ("memory", "memory.usage_in_bytes", "memory.current"),
    "pids": ("pids", "pids.current", "pids.current"),
}


def limits(container: Container) -> dict[str, str]:
    """The limits as the kernel has them, read back from the control files."""
    return _read(container, _LIMITS)


def usage(container: Container) -> dict[str, str]:
    """What is used now: ``memory`` (bytes), ``pids``, ``cpu`` (nanoseconds since the start)."""
    values = _read(container, _USAGE)
    layout = cgroup.layout()
    path = f"{cgroup.parent}/{container.id}"
    try:
        if layout.unified:
            with open(f"{layout.directory(path)}/cpu.stat") as file:
                values["cpu"] = f"{file.readline().split()[1]}000"
        else:
            with open(f"{layout.directory(path, 'cpuacct')}/cpuacct.usage") as file:
                values["cpu"] = file.read().strip()
    except OSError:
        pass
    return values


def _read(container: Container, table: dict[str, tuple[str, str, str]]) -> dict[str, str]:
    layout = cgroup.layout()
    path = f"{cgroup.parent}/{container.id}"
    values = {}
    for name, (controller, v1, v2) in table.items():
        try:
            with open(f"{layout.directory(path, controller)}/{v2 if layout.unified else v1}") as file:
                values[name] = file.read().strip()
        except OSError:  # not on this machine, or the container has just ended
            continue
    return values
