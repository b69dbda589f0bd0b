"""Does a published port cost the same beside one other and beside ten thousand?

    ports.py [--elements N] [--rounds N] [--flows N]

Two jobs, each in rounds that alternate between few and many elements in the table, so that what else the machine does
hits both: new UDP flows through a published port (each packet is a flow of its own, and is translated and delivered
before send(2) returns), and starts of a container with ``-p``. What counts are the ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import report
from tests.bench.machine import images
from tests.fakehost import REPOSITORY, FakeHost
from tests.network.containers import Attached

PORT = 8080
SINK = """
import socket
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sink.bind(("", 80))
print("ready", flush=True)
while True:
    sink.recv(100)
"""
# UDP packets from one forged address and many ports, as fast as they go; the checksum is left out (RFC 768).
SENDER = """
import socket, struct, sys, time
source, target, port, flows = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
packed = socket.inet_aton(source) + socket.inet_aton(target)
sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
packets = [
    struct.pack(">BBHHHBBH", 0x45, 0, 29, 0, 0, 64, 17, 0) + packed + struct.pack(">HHHH", 1024 + n, port, 9, 0) + b"?"
    for n in range(flows)
]
begin = time.perf_counter()
for packet in packets:
    sender.sendto(packet, (target, 0))
print(flows / (time.perf_counter() - begin))
"""
START = """
import subprocess, sys, time
begin = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(time.perf_counter() - begin)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="What a published port costs beside many others.")
    parser.add_argument("--elements", type=int, default=10_000, metavar="N", help="how many are many (10000)")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="rounds of each (10)")
    parser.add_argument("--flows", type=int, default=20_000, metavar="N", help="new flows in a round (20000)")
    options = parser.parse_args()
    if os.geteuid():
        print("ports.py: not root", file=sys.stderr)
        return 125
    host = FakeHost(1)
    try:
        host.lend(images())
        print(report.plain(measured(host, options)))
    finally:
        host.close()
    return 0


def measured(host: FakeHost, options: argparse.Namespace) -> list[list[str]]:
    web = Attached(host, "web", "br0", f"{PORT}:80/udp")
    sink = host.popen(web.command(sys.executable, "-c", SINK))
    assert sink.stdout and sink.stdout.readline() == "ready\n"
    host.sysctl("net.netfilter.nf_conntrack_udp_timeout", "1")  # else the flows of a round fill the table of the next
    start = [str(REPOSITORY / ".venv/bin/minirun"), "run", "--rm", "-p", "9090:80", "busybox", "true"]
    host.run(start)
    flows: dict[bool, list[float]] = {False: [], True: []}
    starts: dict[bool, list[float]] = {False: [], True: []}
    for number in range(2 * options.rounds):
        many = bool(number % 2)
        if number:
            others(host, "add" if many else "delete", options.elements)
        source = f"198.51.100.{10 + number}"
        words = [SENDER, source, host.address, str(PORT), str(options.flows)]
        flows[many].append(float(host.outside.run([sys.executable, "-c", *words]).stdout))
        starts[many].append(float(host.run([sys.executable, "-c", START, *start]).stdout) * 1000)
    sink.kill()
    sink.communicate()
    return [
        ["what", "beside 1", f"beside {options.elements}", "ratio of medians", "of the best"],
        row("new flows a second", flows, max),
        row("start with -p, ms", starts, min),
    ]


def row(name: str, values: dict[bool, list[float]], best: Callable[[list[float]], float]) -> list[str]:
    few, many = (statistics.median(values[kind]) for kind in (False, True))
    return [name, f"{few:.1f}", f"{many:.1f}", f"{many / few:.3f}", f"{best(values[True]) / best(values[False]):.3f}"]


def others(host: FakeHost, verb: str, count: int) -> None:
    """Add or delete so many ports of another container, of those that every address of the host has."""
    data = ' comment "other" : 10.201.0.9 . 80' if verb == "add" else ""
    elements = ", ".join(f"tcp . {20_000 + number}{data}" for number in range(count))
    host.run(["nft", "-f", "-"], stdin=f"{verb} element inet minirun pub4_any {{ {elements} }}\n")


if __name__ == "__main__":
    sys.exit(main())
