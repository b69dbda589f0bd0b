"""A network is removed while containers start on it: all of them have it, or all are told that it is gone."""

from __future__ import annotations

from tests.lifecycle.machine import SOON, Machine

BEFORE = (0, 0, 1, 2)  # starts before the removal
STARTS = 4
GONE = ("it was removed meanwhile", "there is none of that name")


def test_a_network_goes_whole_or_stays(host: Machine) -> None:
    for before in BEFORE:
        host.out("network", "create", "lab", "--subnet", "10.77.0.0/24")
        run, remove = ("run", "-d", "--net", "lab", "busybox", "sleep", "1000"), ("network", "rm", "lab")
        starts = [host.spawn(*run) for _ in range(before)]
        removals = [host.spawn(*remove) for _ in range(2)]
        starts += [host.spawn(*run) for _ in range(STARTS - before)]
        removed = [(command.communicate(timeout=SOON)[1], command.returncode) for command in removals]
        ended = [(*command.communicate(timeout=SOON), command.returncode) for command in starts]
        gone = any(code == 0 for _, code in removed)
        for _, said, code in ended:
            assert (code == 125 and any(word in said for word in GONE)) if gone else code == 0, said
        for said, code in removed:
            assert code == 0 or "containers use it" in said or "there is none of that name" in said, said
        if gone:
            assert not host.path(f"{host.state}/networks/lab").exists()
            assert not host.path(f"{host.root}/networks/lab").exists()
            assert "lab" not in host.run(["ip", "-o", "link"]).stdout
        else:
            addresses = {host.inspect(identity.strip())["NetworkSettings"]["IPAddress"] for identity, _, _ in ended}
            assert len(addresses) == STARTS
            host.minirun("rm", "-f", *host.out("ps", "-aq").split())
            host.minirun("network", "rm", "lab")
