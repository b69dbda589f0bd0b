"""Limits of what a container receives and sends: real streams, the same by hand, and nothing left.

Only lower bounds of time are asserted: how long it takes at least is arithmetic, however busy the machine is.
"""

from __future__ import annotations

import json
import sys

import pytest

from minirun.engine import attachments
from minirun.errors import UsageError
from minirun.linux import qdisc
from tests.fakehost import FakeHost
from tests.network.containers import Attached

MBIT = 10**6
APPLY = """
import json, sys
from minirun import step
from minirun.network import attach
one = step.load(json.loads(sys.argv[1]))
print(one.sh()) if sys.argv[2] == "sh" else getattr(one, sys.argv[2])()
"""
SINK = """
import socket, time
with socket.create_server(("", 5001)) as server:
    print("ready", flush=True)
    connection, _ = server.accept()
    total = 0
    while data := connection.recv(1 << 20):
        total += len(data)
    connection.sendall(b".")
    print(total)
"""
SOURCE = """
import socket, sys, time
start = time.monotonic()
with socket.create_connection((sys.argv[1], 5001)) as connection:
    connection.sendall(bytes(int(sys.argv[2])))
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b"."
print(time.monotonic() - start)
"""


def rates(container: Attached, receives: int, sends: int) -> list[object]:
    """The step of a container, as its plan has it."""
    return ["rates", f"mr{container.id[:12]}", receives, sends, 1500, f"{container.name} {container.id[:12]}"]


def apply(host: FakeHost, step: list[object], how: str) -> str:
    return host.python(APPLY, json.dumps(step), how)


def shown(host: FakeHost) -> str:
    """The queues, filters and detours of a host; handles and indexes are the kernel's choice."""
    script = (
        "tc qdisc show | grep -v noqueue | sed 's/tbf [0-9a-f]*:/tbf/';"
        "for port in $(ip -o link | grep -o 'mr[0-9a-f]*'); do tc filter show dev $port ingress | grep -v index; done;"
        "ip -d link show type ifb | grep -v ether | sed 's/^[0-9]*: //'"
    )
    return host.run(["sh", "-c", script]).stdout


def seconds(source: Attached, sink: Attached, amount: int) -> float:
    """How long a stream of so many bytes takes, until the last one has been read."""
    server = sink.host.popen(sink.command(sys.executable, "-c", SINK))
    assert server.stdout and server.stdout.readline() == "ready\n"
    took = float(source.run(sys.executable, "-c", SOURCE, sink.address, str(amount)).stdout)
    assert server.communicate(timeout=10)[0] == f"{amount}\n"
    return took


@pytest.mark.parametrize(("receives", "sends"), [(10 * MBIT, 0), (0, 10 * MBIT)])
def test_a_stream_is_no_faster_than_its_limit(host: FakeHost, receives: int, sends: int) -> None:
    limited, other = Attached(host, "limited", "br0"), Attached(host, "other", "br0")
    apply(host, rates(limited, receives, sends), "do")
    for command in ("tc qdisc replace dev eth0 root pfifo", "tc qdisc del dev eth0 root"):  # what CAP_NET_ADMIN can do
        limited.run(*command.split())
    source, sink = (limited, other) if sends else (other, limited)
    amount, free = 1_500_000, qdisc.burst(10 * MBIT, 1500)
    assert seconds(source, sink, amount) >= (amount - free) * 8 / (10 * MBIT)


def test_the_other_way_is_not_limited(host: FakeHost) -> None:
    limited, other = Attached(host, "limited", "br0"), Attached(host, "other", "br0")
    apply(host, rates(limited, 8000, 0), "do")
    # At 8000 bits a second its acknowledgements alone would take longer than the test may.
    assert seconds(limited, other, 10_000_000) > 0
    assert "rate 8Kbit" in shown(host)


def test_by_hand_it_is_the_same(host: FakeHost) -> None:
    web = Attached(host, "web", "br0")
    before = shown(host)
    for receives, sends in ((10 * MBIT, 0), (0, 1000 * MBIT), (8000, 12 * 10**9), (40 * 10**9, 40 * 10**9)):
        step = rates(web, receives, sends)
        apply(host, step, "do")
        done = shown(host)
        assert done != before
        apply(host, step, "undo")
        host.run(["sh", "-c", f"tc qdisc del dev {step[1]} root; tc qdisc del dev {step[1]} ingress"], check=False)
        assert shown(host) == before
        host.run(["sh", "-e"], stdin=apply(host, step, "sh"))
        assert shown(host) == done
        apply(host, step, "undo")
        host.run(["sh", "-c", f"tc qdisc del dev {step[1]} root; tc qdisc del dev {step[1]} ingress"], check=False)


def test_nothing_is_left_and_what_is_anothers_stays(host: FakeHost) -> None:
    web = Attached(host, "web", "br0")
    step = rates(web, MBIT, MBIT)
    apply(host, step, "undo")  # never done
    apply(host, step, "do")
    done = shown(host)
    host.python("from minirun.network import nat; nat.reassert()")
    assert shown(host) == done
    apply(host, step, "undo")
    apply(host, step, "undo")  # and again
    assert "ifb" not in shown(host)
    host.run(["ip", "link", "add", f"mi{web.id[:12]}", "type", "ifb"])
    host.run(["ip", "link", "set", f"mi{web.id[:12]}", "alias", "somebody's"])
    apply(host, step, "undo")
    assert "alias somebody's" in shown(host)


@pytest.mark.parametrize(
    ("text", "bits"),
    [("10mbit", 10**7), ("10m", 10**7), ("10M", 10**7), ("1.5gbit", 1_500_000_000), ("8000", 8000), ("64kbit", 64000)],
)
def test_a_rate_is_written_as_tc_writes_it(text: str, bits: int) -> None:
    assert attachments.rate(text, "--net-rate-in") == bits


@pytest.mark.parametrize("text", ["", "bit", "10mb", "10mbps", "-1mbit", "1e6", "0", "1bit", "99tbit", "10 mbit", "²m"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--net-rate-in"):
        attachments.rate(text, "--net-rate-in")


@pytest.mark.parametrize("rate", [8000, 10**6, 26 * 10**6, 10**9, 10**11, 10**13])
@pytest.mark.parametrize("mtu", [1280, 1500, 9000, 65535])
def test_a_bucket_holds_a_packet_and_fits_the_kernels_numbers(rate: int, mtu: int) -> None:
    size, waiting = qdisc.burst(rate, mtu), qdisc.queue(rate, mtu)
    assert mtu + 18 < size < waiting < 1 << 31
    assert size >= 65000 or rate < 26 * 10**6
