"""Time commands in interleaved rounds. It runs inside the fake host, so that no nsenter is part of the times.

    {"rounds": 15, "warm_up": 2, "jobs": {NAME: {"timed": [WORD, ...], "after": [WORD, ...]}}}      standard input
    {NAME: {"seconds": [0.0184, ...], "failed": ""}}                                                standard output

Interleaving (A B C, B C A, C A B, ...) spreads whatever else the machine does over all of them, and each command comes
equally often after each other one: what a command leaves for the kernel to do later is not always paid by the same
neighbour. A command that fails is left out from then on.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any


def main() -> None:
    task = json.load(sys.stdin)
    jobs: dict[str, dict[str, list[str]]] = task["jobs"]
    results: dict[str, dict[str, Any]] = {name: {"seconds": [], "failed": ""} for name in jobs}
    names = list(jobs)
    for number in range(task["warm_up"] + task["rounds"]):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
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


def run(command: Sequence[str]) -> str:
    """Run a command; the last line of its complaint if it fails."""
    complaints = os.memfd_create("stderr")
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, complaints, 2),
    ]
    try:
        _, status = os.waitpid(os.posix_spawnp(command[0], command, os.environ, file_actions=actions), 0)
        if not status:
            return ""
        said = os.pread(complaints, 1 << 16, 0).decode(errors="replace").strip().splitlines() or ["no complaint"]
        return f"exit {os.waitstatus_to_exitcode(status)}: {said[-1]}"
    finally:
        os.close(complaints)


if __name__ == "__main__":
    main()
