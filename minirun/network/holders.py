"""Who uses a port of this host: looked up only to say so in an error."""

from __future__ import annotations

import os

from minirun import store

PROXY = "minirun-proxy"


def of(protocol: str, address: str, number: int) -> str:
    """``nginx (pid 812)``, ``container web 3f9a12ab34cd`` or, if nobody could be found, an empty text."""
    sockets = [*_sockets(protocol), *_sockets(f"{protocol}6")] if protocol != "sctp" else _endpoints()
    inodes = {inode for local, port, inode in sockets if port == number and _meet(local, _packed(address))}
    names = {f"socket:[{inode}]" for inode in inodes - {"0"}}
    for pid in os.listdir("/proc") if names else []:
        if pid.isdigit() and _holds(pid, names):
            return _name(pid)
    return ""


def _sockets(table: str) -> list[tuple[bytes, int, str]]:
    """(address, port, inode) of each socket that /proc/net lists: see proc_net_tcp.rst of the kernel."""
    found = []
    for line in (store.read(f"/proc/net/{table}") or "").splitlines()[1:]:
        fields = line.split()
        address, _, port = fields[1].partition(":")
        words = [address[at : at + 8] for at in range(0, len(address), 8)]  # each in the machine's byte order
        packed = b"".join(bytes.fromhex(word)[::-1] for word in words)
        found.append((packed, int(port, 16), fields[9]))
    return found


def _endpoints() -> list[tuple[bytes, int, str]]:
    """The same of /proc/net/sctp, a folder: ``eps`` has a port in decimal, an inode, and then addresses as text."""
    found = []
    for line in (store.read("/proc/net/sctp/eps") or "").splitlines()[1:]:
        fields = line.split()
        found += [(_packed(address.lstrip("*")), int(fields[5]), fields[7]) for address in fields[8:]]
    return found


def _packed(address: str) -> bytes:
    from minirun.linux import netlink

    return netlink.packed_address(address)


def _meet(one: bytes, other: bytes) -> bool:
    """Whether sockets on these addresses are in each other's way; an IPv6 socket on all addresses may take IPv4 too."""
    mapped = bytes(10) + b"\xff\xff"
    one, other = one.removeprefix(mapped), other.removeprefix(mapped)
    return one == other or not any(one) or (not any(other) and len(one) == len(other))


def _holds(pid: str, names: set[str]) -> bool:
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{number}") in names for number in os.listdir(f"/proc/{pid}/fd"))
    except OSError:  # it has ended, or closed one
        return False


def _name(pid: str) -> str:
    name = (store.read(f"/proc/{pid}/comm") or "?").strip()
    words = (store.read(f"/proc/{pid}/cmdline") or "").split("\0")
    if name == PROXY and "--owner" in words[:-1]:
        return f"container {words[words.index('--owner') + 1]}"
    return f"{name} (pid {pid})"
