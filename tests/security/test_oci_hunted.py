"""``exec`` into a container where somebody hunts what enters (E10), and messages that nobody had to send."""

from __future__ import annotations

import sys

import pytest

from tests.runtime.bundles import OCI, one_line
from tests.security.oci import STRONG, USUAL, Vault

EXECS = 40
# An exec that waits, just born, until a line comes: as it is; without its defence; and as others do it, with the
# rights of the host's root until the end.
HELD = """
import os, sys
from minirun.linux import syscalls
from minirun.linux.syscalls import Message
from minirun.runtime import execute, init_ops, placement, process
from minirun.runtime.container import Bundled
from minirun.runtime.dialogue import Dialogue

box, how = Bundled("box", sys.argv[1]), sys.argv[2]
kept, config = box.kept(), box.config()
joins, born = placement.load(kept["cgroup"]).joins("")
wanted = {**config["process"], "args": ["/bin/true"]}
ops = execute._ops(config, wanted, joins, kept, execute.ExecOptions())
if how == "dumpable":
    ops = [op for op in ops if op != ["undumpable"]]
if how == "early":
    ops = [op for op in ops if op not in init_ops.BORN]
    ops[1 + [op[0] for op in ops].index("enter"):1] = init_ops.BORN
words = process.memory_file("ops", init_ops.words(ops, wanted["args"]))
target = syscalls.open_process(kept["pid"], kept["start"])
cgroup = os.open(born, os.O_RDONLY) if born else -1
init = syscalls.sealed_copy(process.INIT)
pid, _, control = syscalls.spawn(0, init, words, (0, 1, 2), 0, cgroup, target)

def hold(message):
    print("ready", flush=True)
    sys.stdin.readline()

talk = Dialogue(pid, control, ops, wanted["args"])
talk.until_ready({Message.BORN: hold})
talk.go_on()
talk.until_executed()
print(os.waitstatus_to_exitcode(os.waitpid(talk.pid, 0)[1]))
"""


def look(box: Vault, how: str, capabilities: list[str]) -> dict[str, str]:
    """What the enemy finds out about an exec that is about to become its program."""
    box.write(["/bin/sleep", "1000"], capabilities)
    box.oci("run", "-d", "box")
    held = box.popen([sys.executable, "-c", HELD, box.top, how], stdin=-1)
    assert held.stdout and held.stdout.readline() == "ready\n", held.communicate()
    found = box.oci("exec", "box", "/bin/intruder", "look").splitlines()
    assert held.communicate("\n", timeout=20) == ("0\n", "")
    box.oci("delete", "--force", "box")
    return dict(line.rsplit(" ", 1) for line in found)


def mask(capabilities: list[str]) -> str:
    from minirun.linux import security

    return f"{security.mask(capabilities):016x}"


def test_e10_what_enters_cannot_be_looked_into(box: Vault) -> None:
    """It shows what everybody's /proc/PID/status does: who it is, and that it has no more rights than the container."""
    assert look(box, "", USUAL) == {"seen": "yes", "Uid": "0", "CapPrm": mask(USUAL)}


def test_e10_who_may_ptrace_everything_finds_nothing_of_the_host(box: Vault) -> None:
    """CAP_SYS_PTRACE is stronger than any defence; what it reaches is no more than the program that comes."""
    found = look(box, "", STRONG)
    assert found["CapPrm"] == mask(STRONG) and (found["traced"], found["memory"]) == ("yes", "read")  # it was reached
    assert (found["link root"], found["link cwd"]) == ("/", "/") and "writable" not in found
    links = {what.removeprefix("link fd "): to for what, to in found.items() if what.startswith("link fd ")}
    assert {links.pop(number) for number in "012"} == {"pipe"}
    assert sorted(links.values()) == ["pipe", "socket"]  # its own gate, and the one to its spawner


def test_e10_control_without_the_defence_it_is_reached(box: Vault) -> None:
    found = look(box, "dumpable", USUAL)
    assert (found["link root"], found["memory"]) == ("/", "read") and "stolen 3" in found
    weak = look(box, "early", STRONG)
    assert int(weak["CapPrm"], 16) & ~int(mask(STRONG), 16) and weak["traced"] == "yes"  # it would be root of the host


@pytest.mark.parametrize("capabilities", [USUAL, STRONG], ids=["usual", "ptrace"])
def test_e10_hunted_while_it_enters(box: Vault, capabilities: list[str]) -> None:
    """Stopped, robbed of its socket, spoken for: an exec works or fails with one line, and nobody else is harmed."""
    box.write(["/bin/sleep", "1000"], capabilities)
    box.oci("run", "-d", "box")
    first = box.told()["pid"]
    hunter = box.spawn("exec", "box", "/bin/intruder", "hunt")
    assert hunter.stdout and hunter.stdout.readline() == "ready\n"
    before = box.canary()
    failed = 0
    for _ in range(EXECS):
        done = box.call(OCI, "exec", "box", "/bin/echo", "fine")
        if done.returncode or done.stdout != "fine\n":
            failed += bool(one_line(done.stderr))
    assert box.told()["pid"] == first and hunter.poll() is None and box.canary() == before
    box.oci("delete", "--force", "box")
    found = set(hunter.communicate(timeout=20)[0].splitlines())
    assert "writable exe" not in found and {line for line in found if line.startswith("link root")} <= {"link root /"}
    if capabilities == USUAL:  # what it reached was the program
        assert failed == 0 and not [line for line in found if "memfd:" in line or "socket" in line or "140000" in line]
