"""How fast minirun is beside the runtimes and engines that are installed here (`make bench`).

    bench.py [--rounds N] [--warm-up N] [--many N] [--crowd N] [--markdown] [--program PATH] [--without PEER]

Medians, and best times, of interleaved rounds in a fake host with everything on tmpfs; never a test, because a time
depends on what else the machine does. What does not depend on it (counts) is tested in tests/speed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import bundle, cni, installed, measure, network, report
from tests.bench.machine import BenchHost, images, rootfs
from tests.bench.peers import (
    ALPINE,
    BARE,
    BRIDGE,
    CASES,
    DETACHED,
    LONG,
    PUBLISHED,
    SLOW,
    Minirun,
    Peer,
    Unavailable,
    all_peers,
)

CONNECTIONS = 20
TOGETHER = (BRIDGE, BARE)  # a target compares one with the other, so they are measured in the same rounds


def main() -> int:
    options = parse_arguments()
    if os.geteuid():
        print("bench.py: not root; run: sudo make bench", file=sys.stderr)
        return 125
    show = report.markdown if options.markdown else report.plain
    with tempfile.TemporaryDirectory(prefix="minirun-bench-") as scratch, ExitStack() as stack:
        program = options.program or str(installed.make(Path(scratch) / "minirun"))
        host = stack.enter_context(machine())
        ours = Minirun(host, program)
        peers = prepared(host, ours, options.without, stack)
        times = timed(host, [ours, *peers], options)
        print(show(report.rows(times)))
        print(show(report.verdicts(times)))
        print(show(counted(host, ours, peers)))
        print(show(plugged(host, program, options)))
        print(show(network.throughput(host, program)))
        print(show(network.connections(host, program)))
        if options.crowd:
            print(show(network.crowd(options.crowd, [ours, *peers])))
        if options.many:
            print(show(many(host, program, options.many)))
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How fast minirun is, beside what is installed here.")
    parser.add_argument("--rounds", type=positive, default=15, metavar="N", help="timed rounds (default: 15)")
    parser.add_argument("--warm-up", type=int, default=2, metavar="N", help="rounds before them (default: 2)")
    parser.add_argument("--many", type=int, default=0, metavar="N", help="also start N containers on one bridge")
    parser.add_argument("--crowd", type=int, default=100, metavar="N", help="containers for each engine at once (100)")
    parser.add_argument("--markdown", action="store_true", help="print tables for a document")
    parser.add_argument("--program", metavar="PATH", help="an installed minirun (default: a copy of this checkout)")
    parser.add_argument("--without", action="append", default=[], metavar="PEER", help="leave out runc, podman, ...")
    return parser.parse_args()


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


@contextmanager
def machine() -> Iterator[BenchHost]:
    """The fake host, with the bundle and a copy of alpine."""
    host = BenchHost(images())
    try:
        bundle.make(host)
        rootfs(host, "alpine", ALPINE)
        yield host
    finally:
        host.close()


def prepared(host: BenchHost, ours: Minirun, without: list[str], stack: ExitStack) -> list[Peer]:
    """The peers that work here; says which, and why others do not."""
    stack.callback(ours.close)
    say(f"minirun    {ours.prepare()}: {ours.program}")
    working = []
    for peer in (peer for peer in all_peers(host) if peer.name not in without):
        stack.callback(peer.close)
        try:
            say(f"{peer.name:10} {peer.prepare()}")
            working.append(peer)
        except Unavailable as why:
            say(f"{peer.name:10} not measured: {why}")
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    busy = ": busy with other work, so mistrust the medians" if load > processors / 2 else ""
    say(f"machine    Linux {os.uname().release}, {processors} CPUs, load {load:.1f}{busy}\n")
    return working


def say(text: str) -> None:
    print(text, flush=True)


def timed(host: BenchHost, peers: list[Peer], options: argparse.Namespace) -> report.Times:
    """Every case, interleaved among those who can do it."""
    jobs = {case: {peer.name: peer.jobs()[case] for peer in peers if case in peer.jobs()} for case in CASES}
    times = {}
    for case in (case for case in CASES if case not in TOGETHER):
        rounds = max(1, options.rounds // 5) if case in SLOW else options.rounds
        times[case] = host.rounds(jobs[case], rounds, min(options.warm_up, 1) if case in SLOW else options.warm_up)
    together = {f"{case}\n{name}": job for case in TOGETHER for name, job in jobs[case].items()}
    for key, result in host.rounds(together, options.rounds, options.warm_up).items():
        case, _, name = key.partition("\n")
        times.setdefault(case, {})[name] = result
    return times


def counted(host: BenchHost, ours: Minirun, peers: list[Peer]) -> list[list[str]]:
    """What does not depend on how busy the machine is."""
    table = [["count", "value"]]
    if shutil.which("strace"):
        # Not of `run -d`: strace would wait for the monitor.
        jobs = ours.jobs()
        commands = {f"{case}, minirun": jobs[case]["timed"] for case in CASES if case not in (DETACHED, PUBLISHED)}
        commands |= {f"{BARE}, {peer.name}": peer.jobs()[BARE]["timed"] for peer in peers if BARE in peer.jobs()}
        for name, command in commands.items():
            table.append([f"system calls: {name}", str(measure.system_calls(host, command))])
    connections = measure.first_connections(host, ours.program, CONNECTIONS)
    monitors = measure.monitors(host)
    table.append([f"monitor's PSS, largest of {len(monitors)}", f"{max(monitors.values())} kB"])
    latest = f"{max(connections['seconds']) * 1000:.1f} ms after `run -d`, {connections['retransmitted']} SYNs lost"
    table.append([f"first TCP connection, latest of {CONNECTIONS}", latest])
    host.sweep(ours.program)
    return table


def plugged(host: BenchHost, program: str, options: argparse.Namespace) -> list[list[str]]:
    """The CNI plugin beside the reference plugins."""
    if why := cni.missing():
        return [["CNI", "not measured"], ["ADD and DEL", why]]
    seconds = cni.times(host, program, options.rounds, options.warm_up)
    table = [["CNI: ADD and DEL, a published port", "median ms", "best ms", "minirun is"]]
    ours = statistics.median(seconds[cni.NAME])
    for name, found in seconds.items():
        median = statistics.median(found)
        ratio = "" if name == cni.NAME else f"{ours / median:.3f} of it"
        table.append([name, f"{median * 1000:.1f}", f"{min(found) * 1000:.1f}", ratio])
    return table


def many(host: BenchHost, program: str, number: int) -> list[list[str]]:
    """Whether the last of many containers on a bridge starts as fast as the first."""
    start = [program, "run", "-d", "--net", "br0", "alpine", *LONG]
    result = host.rounds({"start": {"timed": start, "after": []}}, number, 0)["start"]
    host.sweep(program)
    if result["failed"]:
        return [["starts in a row", "failed"], [str(len(result["seconds"])), result["failed"]]]
    first, last = measure.growth(result["seconds"])
    tenth = max(1, number // 10)
    return [
        [f"run -d, {number} in a row", "median ms"],
        [f"the first {tenth}", f"{first * 1000:.1f}"],
        [f"the last {tenth}", f"{last * 1000:.1f}"],
    ]


if __name__ == "__main__":
    sys.exit(main())
