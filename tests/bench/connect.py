"""Connect to new containers as early as possible. It runs inside the fake host.

    connect.py TIMES COMMAND...       COMMAND starts a container that listens on port 80, and prints its id

prints ``{"seconds": [...], "refused": [...], "retransmitted": N}``. A cable whose host end does not forward yet loses
the first SYN, and TCP asks again after one second: that is the stall that must not be. Whoever connects at once may be
*refused*, because the program in the container does not listen yet: then the next attempt follows at once. The kernel's
counter of retransmitted SYNs covers every attempt, and does not depend on how fast the machine is.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

TIMEOUT = 10.0


def main() -> None:
    times, command = int(sys.argv[1]), sys.argv[2:]
    before = retransmitted()
    results = [first_connection(command) for _ in range(times)]
    report = {
        "seconds": [seconds for seconds, _ in results],
        "refused": [refused for _, refused in results],
        "retransmitted": retransmitted() - before,
    }
    print(json.dumps(report))


def first_connection(command: list[str]) -> tuple[float, int]:
    """Start one container; the seconds from then to the first connection, and how often it was refused."""
    identity = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    address = address_of(identity.strip())
    started, refused = time.perf_counter(), 0
    while True:
        try:
            with socket.create_connection((address, 80), TIMEOUT) as connection:
                seconds = time.perf_counter() - started
                # Ended by a reset: a connection that still says goodbye would keep the namespace of a killed container.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return seconds, refused
        except ConnectionRefusedError:
            refused += 1
            if time.perf_counter() - started > TIMEOUT:
                raise


def address_of(identity: str) -> str:
    """The address that is leased to a container: `minirun inspect` would take longer than the stall we look for."""
    for lease in Path(os.environ["MINIRUN_STATE"], "networks/br0/leases").iterdir():
        if lease.read_text().split()[:1] == [identity]:
            return lease.name
    raise SystemExit(f"no lease for {identity}")


def retransmitted() -> int:
    """How many SYNs this network namespace has sent again so far."""
    lines = [line.split() for line in Path("/proc/self/net/netstat").read_text().splitlines()]
    names, values = next((a, b) for a, b in itertools.pairwise(lines) if a[0] == b[0] == "TcpExt:")
    return int(dict(zip(names, values, strict=True))["TCPSynRetrans"])


if __name__ == "__main__":
    main()
