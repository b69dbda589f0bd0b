"""Many starts at once on a small network with both families, a third of them killed: who lives has addresses alone.

The moments of the kills are chosen by seeded chance among those at which a lease comes or a command ends.
"""

from __future__ import annotations

import os
import random
import re
import select
import signal
import subprocess
from pathlib import Path

from tests.lifecycle.machine import MINIRUN, SOON, Machine, watching

STARTS, AT_ONCE, KILLS = 45, 8, 15
SUBNETS = ["--subnet", "10.77.0.0/26", "--subnet", "fd00:77::/122"]


def start(host: Machine, number: int) -> subprocess.Popen[str]:
    """Two of three are short; every third stays, with a command that has gone away."""
    words = ["-d", "--name", f"stays{number}"] if number % 3 == 0 else ["--rm"]
    program = ["sleep", "1000"] if number % 3 == 0 else ["true"]
    return host.popen([*MINIRUN, "run", *words, "--net", "lab", "busybox", *program])


def kill_a_monitor(host: Machine, chance: random.Random) -> None:
    """Of this host's containers, if there is one. By a descriptor, since it may end, and its number be another's."""
    for pid in chance.sample(pids := sorted(host.processes()), len(pids)):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if pid in host.processes() and b"minirun-monitor" in Path(f"/proc/{pid}/cmdline").read_bytes():
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                return
        except (FileNotFoundError, ProcessLookupError):
            continue
        finally:
            os.close(descriptor)


def addresses(host: Machine) -> list[tuple[str, str]]:
    """(address, short id) of everything that has an address, in the namespaces of all containers."""
    found = []
    for path in sorted(host.path("/run/netns").iterdir()):
        shown = host.run(["ip", "-n", path.name, "-o", "addr", "show", "dev", "eth0", "scope", "global"]).stdout
        label = host.inspect(path.name)["Id"]
        found += [(address, label) for address in re.findall(r"inet6? ([^/]+)/", shown)]
    return found


def test_who_lives_has_addresses_alone(host: Machine) -> None:
    host.out("network", "create", "lab", *SUBNETS)
    host.out("run", "--rm", "--net", "lab", "busybox", "true")  # makes the folder of leases
    chance, started, killed = random.Random(11), 0, 0
    running: dict[int, subprocess.Popen[str]] = {}  # by pidfd
    leases = host.path(f"{host.state}/networks/lab/leases")
    with watching(leases) as changes:
        while started < STARTS:
            while len(running) < AT_ONCE:
                command = start(host, started)
                running[os.pidfd_open(command.pid)] = command
                started += 1
            ready, _, _ = select.select([changes.descriptor, *running], [], [], SOON)
            assert ready, "nothing happens any more"
            for pidfd in ready:
                if pidfd == changes.descriptor:
                    os.read(pidfd, 65536)
                else:
                    os.close(pidfd)
                    running.pop(pidfd).communicate(timeout=SOON)
            if running and killed < KILLS and chance.random() < 0.4:
                if chance.random() < 0.3:
                    kill_a_monitor(host, chance)
                else:
                    chance.choice([*running.values()]).kill()
                killed += 1
    for pidfd, command in running.items():
        os.close(pidfd)
        command.communicate(timeout=SOON)
    assert killed > KILLS // 3
    host.minirun("ps")  # cleans up after the dead
    seen = addresses(host)
    assert len(dict(seen)) == len(seen), "an address is there twice"
    owners = {path.name: path.read_text().split("\n")[0] for path in leases.iterdir()}
    assert owners == dict(seen)
    assert len(seen) >= 6
    host.minirun("rm", "-f", *host.out("ps", "-aq").split())
    assert list(leases.iterdir()) == []
    host.minirun("network", "rm", "lab")
    assert not leases.parent.exists()
