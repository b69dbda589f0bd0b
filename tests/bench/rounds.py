"""Time commands in interleaved rounds. It runs inside the fake host, so that no nsenter is part of the times.

    {"rounds": 15, "warm_up": 2, "jobs": {NAME: {"timed": [WORD, ...], "after": [WORD, ...]}}}      standard input
    {NAME: {"seconds": [0.0184, ...], "failed": ""}}                                                standard output

Interleaving (A B C, C A B, B A C, ...) spreads whatever else the machine does over all of them. Every round has another
order, though every bench the same ones: what a command leaves for the kernel to do later is not always paid by the same
neighbour. A command that fails is left out from then on.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import sys
import time
from typing import Any

TIMEOUT = 20


def main() -> None:
    become_subreaper()
    signal.signal(signal.SIGALRM, too_late)
    task = json.load(sys.stdin)
    jobs: dict[str, dict[str, list[str]]] = task["jobs"]
    results: dict[str, dict[str, Any]] = {name: {"seconds": [], "failed": ""} for name in jobs}
    names, order = list(jobs), random.Random(0)
    for number in range(task["warm_up"] + task["rounds"]):
        order.shuffle(names)
        for name in names:
            result = results[name]
            if not result["failed"]:
                seconds, result["failed"] = once(jobs[name])
                if number >= task["warm_up"]:
                    result["seconds"].append(seconds)
    json.dump(results, sys.stdout)


def once(job: dict[str, list[str]]) -> tuple[float, str]:
    """Do one job; its seconds, and why it failed, if it did."""
    started = time.perf_counter()
    failed = run(job["timed"])
    seconds = time.perf_counter() - started
    return seconds, failed or (run(job["after"]) if job["after"] else "")


def run(command: list[str]) -> str:
    """Run a command; the last line of its complaint if it fails."""
    complaints = os.memfd_create("stderr")
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, complaints, 2),
    ]
    try:
        pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
        signal.alarm(TIMEOUT)
        try:
            status = reaped(pid)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return f"not done after {TIMEOUT} s: {' '.join(command)}"
        finally:
            signal.alarm(0)
        if not status:
            return ""
        said = os.pread(complaints, 1 << 16, 0).decode(errors="replace").strip().splitlines() or ["no complaint"]
        return f"exit {os.waitstatus_to_exitcode(status)}: {said[-1]}"
    finally:
        os.close(complaints)


def reaped(pid: int) -> int:
    """Wait for a process, and reap at once what it leaves behind, as conmon and a shim do; its status."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            return status


def become_subreaper() -> None:
    """The containers that a runtime's `create` leaves become our children (PR_SET_CHILD_SUBREAPER, prctl(2))."""
    if ctypes.CDLL(None).prctl(36, 1, 0, 0, 0):
        raise OSError("prctl")


def too_late(number: int, frame: object) -> None:
    raise TimeoutError


if __name__ == "__main__":
    main()
