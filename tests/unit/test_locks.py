"""Who lives is told by locks: one by one while they are few, by /proc/locks when they are many."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakehost import REPOSITORY

# Locks that are held by us, by a child that got them from one who is dead, and by nobody.
SCRIPT = """
import os, sys
from minirun.linux import syscalls
folder, count = sys.argv[1], int(sys.argv[2])
ours = [syscalls.lock(f"{folder}/ours{n}", create=True) for n in range(count)]
gate, release = os.pipe()
if os.fork() == 0:
    inherited = [syscalls.lock(f"{folder}/inherited{n}", create=True) for n in range(count)]
    if os.fork():
        os._exit(0)
    os.close(release)
    os.read(gate, 1)
    os._exit(0)
os.wait()
for n in range(count):
    os.close(syscalls.lock(f"{folder}/dead{n}", create=True))
print(sorted(syscalls.dead_locks(folder)) == sorted(f"dead{n}" for n in range(count)))
"""


@pytest.mark.parametrize("within", [[], ["unshare", "--pid", "--fork", "--mount-proc"]], ids=["here", "pid-namespace"])
@pytest.mark.parametrize("count", [2, 20, 300])
def test_a_lock_that_nobody_holds_is_found(tmp_path: Path, within: list[str], count: int) -> None:
    command = [*within, sys.executable, "-c", SCRIPT, str(tmp_path), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    assert done.stdout == "True\n", done.stderr


def test_no_folder_no_locks(tmp_path: Path) -> None:
    from minirun.linux import syscalls

    assert syscalls.dead_locks(str(tmp_path / "none")) == []
