"""Ethernet frames made by hand, as an attacker with CAP_NET_RAW makes them, and who received them.

Frames are sent by one process on one CPU and therefore arrive in order: what had not come when the last one came, a
legal one, does not come any more. So nobody has to wait to see that nothing comes.
"""

from __future__ import annotations

import ipaddress
import struct
import subprocess
import sys

from tests.fakehost import FakeHost
from tests.network.containers import Attached

END = b"this was the last one"
SENDER = """
import os, socket, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
    sender.bind((sys.argv[1], 0))
    for line in sys.stdin:
        sender.send(bytes.fromhex(line))
"""
LISTENER = """
import socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as listener:
    listener.bind((sys.argv[1], 3))
    listener.settimeout(20)
    print("ready", flush=True)
    while True:
        frame, (_, _, kind, _, _) = listener.recvfrom(65536)
        if kind != socket.PACKET_OUTGOING:
            print(frame.hex())
        if bytes.fromhex(sys.argv[2]) in frame:
            break
"""


def mac(text: str) -> bytes:
    """The six bytes of an Ethernet address."""
    return bytes.fromhex(text.replace(":", ""))


def group(address: str) -> bytes:
    """The Ethernet address of a multicast address (RFC 1112, RFC 2464)."""
    packed = ip(address)
    return b"\x33\x33" + packed[-4:] if len(packed) > 4 else b"\x01\x00\x5e" + bytes([packed[1] & 0x7F]) + packed[2:]


def ip(address: str) -> bytes:
    """An address in network order."""
    return ipaddress.ip_address(address).packed


def ether(target: bytes, source: bytes, kind: int, payload: bytes, tags: bytes = b"") -> bytes:
    """One frame; ``tags`` are VLAN tags, each with the type that announces it."""
    return target + source + tags + kind.to_bytes(2, "big") + payload


def arp(target: bytes, source: bytes, operation: int, sender: tuple[bytes, str], asked: tuple[bytes, str]) -> bytes:
    """ARP (RFC 826): ``sender`` and ``asked`` are pairs of Ethernet and IPv4 address."""
    header = struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation)
    return ether(target, source, 0x0806, header + sender[0] + ip(sender[1]) + asked[0] + ip(asked[1]))


def ipv4(source: str, target: str, protocol: int, payload: bytes, options: bytes = b"", fragment: int = 0) -> bytes:
    """An IPv4 packet; ``fragment`` is the offset in 8 bytes, with 0x2000 if more follow."""
    words = 5 + len(options) // 4
    start = struct.pack(">BBHHHBB", 0x40 | words, 0, 4 * words + len(payload), 7, fragment, 64, protocol)
    header = start + b"\0\0" + ip(source) + ip(target) + options
    return start + checksum(header) + header[12:] + payload


def ipv6(source: str, target: str, protocol: int, payload: bytes) -> bytes:
    """An IPv6 packet; ``payload`` may begin with extension headers."""
    return struct.pack(">IHBB", 0x60000000, len(payload), protocol, 255) + ip(source) + ip(target) + payload


def udp(source: int, target: int, payload: bytes, ends: tuple[str, str] | None = None) -> bytes:
    """A UDP datagram; over IPv6 its checksum covers both ``ends``."""
    datagram = struct.pack(">HHHH", source, target, 8 + len(payload), 0) + payload
    return datagram[:6] + (_pseudo(ends, 17, datagram) if ends else b"\0\0") + datagram[8:]


def icmp6(kind: int, body: bytes, source: str, target: str, code: int = 0) -> bytes:
    """An ICMPv6 message, whose checksum covers both ends."""
    message = bytes([kind, code, 0, 0]) + body
    return message[:2] + _pseudo((source, target), 58, message) + body


def icmp4(kind: int, code: int, body: bytes) -> bytes:
    """An ICMP message, and IGMP, which is of the same form."""
    message = bytes([kind, code, 0, 0]) + body
    return message[:2] + checksum(message) + body


def checksum(data: bytes) -> bytes:
    """RFC 1071."""
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (0xFFFF - total).to_bytes(2, "big")


def _pseudo(ends: tuple[str, str], protocol: int, data: bytes) -> bytes:
    return checksum(ip(ends[0]) + ip(ends[1]) + struct.pack(">II", len(data), protocol) + data)


def last(source: Attached, source_mac: bytes, target: str, target_mac: bytes) -> bytes:
    """The legal frame that ends a test."""
    return ether(target_mac, source_mac, 0x0800, ipv4(source.address, target, 17, udp(9, 9, END)))


def send(source: Attached, frames: list[bytes]) -> None:
    """Send frames from a container's eth0."""
    lines = "".join(f"{frame.hex()}\n" for frame in frames)
    command = source.command(sys.executable, "-c", SENDER, "eth0")
    source.host.run(command, stdin=lines)


def listen(host: FakeHost, place: Attached | None, device: str) -> subprocess.Popen[str]:
    """Receive on a device of a container or of the host, until the last frame comes; see ``received``."""
    command = [sys.executable, "-c", LISTENER, device, END.hex()]
    listener = host.popen(place.command(*command) if place else command)
    assert listener.stdout and listener.stdout.readline() == "ready\n", listener.communicate(timeout=10)
    return listener


def received(listener: subprocess.Popen[str]) -> set[bytes]:
    """What a listener got."""
    out, error = listener.communicate(timeout=30)
    assert not listener.returncode, error
    return {bytes.fromhex(line) for line in out.splitlines()}
