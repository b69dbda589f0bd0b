"""Fifteen hundred containers on one network: more than a bridge has ports.

They come and go as on any day: started by several shells at once, removed by one command. (Were the test killed, they
would end by themselves.) What a start costs then is counted, in system calls; how long it takes is for `make bench`.
"""

from __future__ import annotations

import json
import shutil

import pytest

from tests.bench import measure
from tests.lifecycle.machine import Machine
from tests.speed.test_counts import RUN

MANY, AT_ONCE = 1500, 6
PATIENCE = 600  # seconds, on a busy machine
MOST_MORE_CALLS = 150  # /proc/locks, two pages of a directory

CROWD = """
for number in $(seq $1 $2 $3); do
    $0 run -d --name sleeper$number busybox sleep 900 > /dev/null < /dev/null || exit 1
done
"""


def start_many(host: Machine, program: str, first: int, last: int) -> None:
    shells = [
        host.popen(["sh", "-c", CROWD, program, str(first + place), str(AT_ONCE), str(last)])
        for place in range(AT_ONCE)
    ]
    for shell in shells:
        _, said = shell.communicate(timeout=PATIENCE)
        assert shell.returncode == 0, said


def addresses(host: Machine) -> dict[str, str]:
    """The address of each container, from the files of the leases."""
    found = {}
    for lease in host.path(f"{host.state}/networks/br0/leases").iterdir():
        names = next(line for line in lease.read_text().splitlines() if line.startswith("names "))
        found[names.split()[1]] = lease.name
    return found


def inside(name: str, *command: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{name}", *command]


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed: apt-get install strace")
def test_fifteen_hundred_containers_on_one_network(host: Machine, program: str) -> None:
    start_many(host, program, 1, 10)
    few = min(measure.system_calls(host, [program, *RUN]) for _ in range(2))
    start_many(host, program, 11, MANY)
    last = [program, "run", "-d", "--name", "web", "-p", "8080:80", "busybox", "httpd", "-f", "-p", "80", "-h", "/etc"]
    host.run(last)

    held = addresses(host)
    assert len(held) == len({*held.values()}) == MANY + 1
    links = json.loads(host.run(["ip", "-j", "link"]).stdout)
    plugged = [str(link["master"]) for link in links if str(link["ifname"]).startswith("mr")]
    assert len(plugged) == MANY + 1
    assert {*plugged} == {"br0", "br0~1"}
    assert max(plugged.count(bridge) for bridge in ("br0", "br0~1")) <= 1023

    for place, other in (("sleeper1", "web"), ("web", "sleeper1"), (f"sleeper{MANY}", "web"), ("sleeper2", "sleeper1")):
        host.run(inside(place, "ping", "-c1", "-W10", held[other]))
    for place in ("sleeper1", "web"):
        host.run(inside(place, "ping", "-c1", "-W10", "10.201.0.1"))
        host.run(inside(place, "ping", "-c1", "-W10", host.outside_address))
    fetch = ["wget", "-q", "-T", "10", "-O", "-", f"http://{host.address}:8080/passwd"]
    assert "root" in host.outside.run(fetch).stdout
    for place in ("sleeper1", f"sleeper{MANY}", "web"):
        assert "root" in host.run(inside(place, *fetch)).stdout

    assert min(measure.system_calls(host, [program, *RUN]) for _ in range(2)) <= few + MOST_MORE_CALLS
    host.run([program, "rm", "-f", *held], timeout=PATIENCE)
    assert host.run([program, "ps", "-aq"]).stdout == ""
    host.wait_until("! ip -o link | grep -q ': mr'")
    host.run([program, "network", "rm", "br0"])
    assert host.run([program, "doctor", "--leaks"]).stdout == ""
