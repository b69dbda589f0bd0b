"""The systemd driver on a real systemd: it is PID 1 of namespaces of its own, with the machine's cgroups for itself."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(os.environ["MINIRUN_VM"] != "uml", reason="User-mode Linux runs these, and faster")

REPOSITORY = Path(__file__).resolve().parents[3]
GROUP = Path("/sys/fs/cgroup/minirun-test-systemd")
UNITS = Path("/run/minirun-test-units")
TARGET = "[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\n"
BOOT = f"""
    set -e
    mount -t proc proc /proc
    umount /sys/fs/cgroup
    mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
    export SYSTEMD_UNIT_PATH={UNITS}:/run/systemd/transient container=test
    exec /lib/systemd/systemd --system --unit=minimal.target --log-target=null --show-status=no
"""


class Systemd:
    """A running systemd, and what can be done in its namespaces."""

    def __init__(self) -> None:
        UNITS.mkdir(exist_ok=True)
        (UNITS / "minimal.target").write_text(TARGET)
        GROUP.mkdir()
        # systemd alone is in the group, and leaves it for its init.scope: else it could hand no controller on.
        inner = f'echo 0 > {GROUP}/cgroup.procs; exec unshare --cgroup sh -c "$1"'
        command = [
            "unshare",
            "--pid",
            "--mount",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            inner,
            "sh",
            BOOT,
        ]
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, **pipes)
        deadline = time.monotonic() + 60
        while not self._is_up():
            assert self.process.poll() is None and time.monotonic() < deadline, "systemd does not start"
            os.sched_yield()

    def _is_up(self) -> bool:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        if not children or not Path("/run/systemd/private").exists():
            return False
        self.pid = int(children[0])
        return self.run("systemctl", "is-system-running").stdout.strip() == "running"

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command as one of this systemd's: it moves no process that comes from outside of its cgroups."""
        enter = f'echo 0 > {GROUP}/init.scope/cgroup.procs; exec nsenter -t {self.pid} -m -p -C -u -i -- "$@"'
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        return subprocess.run(["sh", "-c", enter, "sh", *command], cwd=REPOSITORY, timeout=60, **pipes)

    def python(self, code: str) -> Any:
        done = self.run("env", f"PYTHONPATH={REPOSITORY}", sys.executable, "-c", code)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def shown(self, unit: str, *names: str) -> list[str]:
        done = self.run("systemctl", "show", unit, *(f"-p{name}" for name in names))
        found = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
        return [found.get(name, "") for name in names]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def systemd() -> Iterator[Systemd]:
    running = Systemd()
    yield running
    running.close()


CREATE = """
import json, os, sys
from minirun import step
from minirun.runtime import placement
linux = {"cgroupsPath": "test-some.slice:box:NAME", "resources": {
    "memory": {"limit": 64 << 20}, "cpu": {"shares": 512, "quota": 5000, "period": 10000}, "pids": {"limit": 33}}}
place = placement.place({"linux": linux}, "NAME", systemd=True)
step.do_all(place.steps)
child = os.fork()
if not child:
    open(f"{place.born}/cgroup.procs", "w").write("0")
    for number in (1, 2):  # or whoever reads our output would wait for it
        os.dup2(0, number)
    os.execvp("sleep", ["sleep", "100000"])
handle = placement.load(place.record)
while child not in handle.processes():
    os.sched_yield()
place.settle()
print(json.dumps([child, place.born, place.record, [one.record() for one in place.steps]]))
"""
LOAD = """
import json, os
from minirun import step
from minirun.runtime import placement
handle = placement.load(json.loads('''RECORD'''))
"""


def test_a_scope_from_the_first_to_the_last(systemd: Systemd) -> None:
    unit, directory = "box-one.scope", "/sys/fs/cgroup/test.slice/test-some.slice/box-one.scope"
    pid, born, record, plan = systemd.python(CREATE.replace("NAME", "one"))
    assert (born, record["unit"]) == (directory, unit)
    # A process that is no longer our child, in a scope without the helper.
    assert systemd.run("cat", f"{born}/cgroup.procs").stdout.split() == [str(pid)]
    names = ("ActiveState", "ControlGroup", "Delegate", "Slice")
    assert systemd.shown(unit, *names) == ["active", directory[len("/sys/fs/cgroup") :], "yes", "test-some.slice"]
    assert systemd.shown(unit, "MemoryMax", "TasksMax", "CPUWeight") == [str(64 << 20), "33", "20"]
    assert systemd.shown(unit, "CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec") == ["500ms", "10ms"]
    files = ("memory.max", "pids.max", "cpu.weight", "cpu.max")
    expected = f"{64 << 20}\n33\n20\n5000 10000\n"
    assert systemd.run("cat", *(f"{born}/{name}" for name in files)).stdout == expected

    load = LOAD.replace("RECORD", json.dumps(record))
    systemd.python(load + "handle.update({'memory': {'limit': 96 << 20}, 'pids': {'limit': -1}}); print('0')")
    assert systemd.shown(unit, "MemoryMax", "TasksMax") == [str(96 << 20), "infinity"]
    systemd.run("systemctl", "daemon-reload")
    assert systemd.run("cat", f"{born}/memory.max", f"{born}/pids.max").stdout == f"{96 << 20}\nmax\n"

    steps = f"[step.load(one) for one in json.loads('''{json.dumps(plan)}''')]"
    # systemd takes away what is empty while we do: what one leaves, if anything, the next finds gone, which is fine.
    twice = f"print(json.dumps([[str(error) for error in step.undo_all({steps})] for _ in (1, 2)]))"
    first, second = systemd.python(load + twice)
    assert second == [], first
    assert systemd.run("test", "-e", born).returncode == 1
    assert systemd.shown(unit, "LoadState", "ActiveState") == ["not-found", "inactive"]


def test_the_unit_of_another_is_left_alone(systemd: Systemd) -> None:
    first = systemd.python(CREATE.replace("NAME", "two"))
    second = systemd.run("env", f"PYTHONPATH={REPOSITORY}", sys.executable, "-c", CREATE.replace("NAME", "two"))
    assert second.returncode == 1
    assert "unit box-two.scope: exists already; " in second.stderr.splitlines()[-1]
    assert systemd.shown("box-two.scope", "ActiveState") == ["active"]
    assert systemd.run("cat", f"{first[1]}/cgroup.procs").stdout.split() == [str(first[0])]
    systemd.run("systemctl", "kill", "-s", "KILL", "box-two.scope")


def test_a_killed_create_leaves_no_unit(systemd: Systemd) -> None:
    """The helper ends with its maker, and systemd collects what is empty."""
    code = CREATE.partition("child = ")[0].replace("NAME", "three") + "os.kill(os.getpid(), 9)"
    assert systemd.run("env", f"PYTHONPATH={REPOSITORY}", sys.executable, "-c", code).returncode == -9
    deadline = time.monotonic() + 60
    while systemd.shown("box-three.scope", "ActiveState") != ["inactive"]:
        assert time.monotonic() < deadline
    assert systemd.run("test", "-e", "/sys/fs/cgroup/test.slice/test-some.slice/box-three.scope").returncode == 1


def test_what_systemd_refuses_is_said(systemd: Systemd) -> None:
    code = CREATE.replace("NAME", "four").replace("test-some.slice", "no--such.slice")
    done = systemd.run("env", f"PYTHONPATH={REPOSITORY}", sys.executable, "-c", code)
    assert "linux.cgroupsPath: 'no--such.slice' is not the name of a slice" in done.stderr.splitlines()[-1]
    code = CREATE.replace("NAME", "fo ur")
    done = systemd.run("env", f"PYTHONPATH={REPOSITORY}", sys.executable, "-c", code)
    assert "unit box-fo ur.scope: systemd refuses it: " in done.stderr.splitlines()[-1]
