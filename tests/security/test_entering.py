"""What enters a container from outside brings nothing in that can be used against the host (E01, E02, E04)."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakehost import REPOSITORY
from tests.lifecycle.machine import Machine, until
from tests.security.conftest import Target

LIBEXEC = REPOSITORY / "minirun/libexec"
WEAK = ("--cap-add", "ALL", "--security-opt", "seccomp=unconfined")
# Opens what we enter by, and writes into it as soon as nobody runs it any more. Nothing else: a real program of the
# machine that is seen in passing (the control's nsenter) must never be hit.
OVERWRITE = """
echo ready
while :; do
    for p in /proc/[0-9]*; do
        case $(readlink $p/exe) in *memfd:* | *minirun-* | *minirun-victim*) ;; *) continue ;; esac
        (exec 3< $p/exe && echo reached && for try in 1 2 3 4 5 6 7 8; do
            (echo pwned > /proc/self/fd/3) && echo written && break
            sleep 0.05
        done)
    done
done 2> /dev/null
"""
_LIBC = ctypes.CDLL(None, use_errno=True)
_IN_OPEN, _IN_ACCESS = 0x20, 0x01


def hashes(*paths: Path) -> list[tuple[str, int, int]]:
    return [(hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns, p.stat().st_nlink) for p in paths]


@pytest.mark.parametrize(("options", "times"), [((), 50), (WEAK, 20)], ids=["defaults", "all capabilities, no filter"])
def test_e01_execs_into_a_container_that_overwrites_them(host: Target, options: tuple[str, ...], times: int) -> None:
    programs = sorted(LIBEXEC.iterdir())
    assert {"minirun-init", "minirun-monitor"} <= {path.name for path in programs}
    before = hashes(*programs)
    host.ready("box", OVERWRITE, *options)
    for _ in range(times):
        assert host.out("exec", "box", "echo", "fine") == "fine"
    assert hashes(*programs) == before
    assert "written" not in host.out("logs", "box")


def test_e01_control_the_attack_reaches_a_program_that_is_a_file(host: Target) -> None:
    """A copy of the host's own sleep, entering the weak container's PID namespace without a sealed copy."""
    host.ready("box", OVERWRITE, *WEAK)
    pid = host.inspect("box")["State"]["Pid"]
    victim = host.path("/run/minirun-victim")
    shutil.copy("/bin/sleep", victim)
    before = hashes(victim)
    entering = host.popen(["nsenter", f"--pid=/proc/{pid}/ns/pid", "/run/minirun-victim", "1000"])
    until(lambda: "reached" in host.out("logs", "box"), "the attack")
    for child in Path(f"/proc/{entering.pid}/task/{entering.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    entering.communicate(timeout=20)
    until(lambda: "written" in host.out("logs", "box"), "the write")
    assert hashes(victim) != before
    victim.unlink()


@contextmanager
def tripwires(*paths: Path) -> Iterator[list[str]]:
    """inotify(7) on what a careless helper would load; the list has what was opened, after the block."""
    fired: list[str] = []
    descriptor = _LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    watched = {}
    for path in paths:
        watched[_LIBC.inotify_add_watch(descriptor, os.fsencode(path), _IN_OPEN | _IN_ACCESS)] = path
    assert min(watched) > 0
    try:
        yield fired
        try:
            while events := os.read(descriptor, 65536):
                fired.append(events.hex())
        except BlockingIOError:
            pass
    finally:
        os.close(descriptor)


def test_e02_nothing_of_the_container_is_loaded_by_what_enters(host: Target, tmp_path: Path) -> None:
    """Libraries, preload lists and modules of the container, as bind mounts: opening them shows on the host."""
    names = ["libnss_files.so.2", "libc.so.6", "ld-linux-x86-64.so.2", "sitecustomize.py", "encodings.py"]
    for folder in ("lib", "python"):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_text("trap")
    preload = tmp_path / "ld.so.preload"
    preload.write_text("/lib/libnss_files.so.2\n")
    places = {"lib": ("/lib", "/lib64", "/usr/lib"), "python": ("/usr/lib/python3", "/usr/local/lib/python3.11")}
    volumes = [word for folder, tops in places.items() for top in tops for word in ("-v", f"{tmp_path / folder}:{top}")]
    volumes += [
        "-v",
        f"{preload}:/etc/ld.so.preload",
        "-e",
        "PYTHONPATH=/usr/lib/python3",
        "-e",
        "LD_PRELOAD=/lib/libc.so.6",
    ]
    files = [tmp_path / folder / name for folder in ("lib", "python") for name in names]
    with tripwires(preload, *files) as fired:
        host.start("--name", "box", *volumes, "busybox", "sleep", "1000")
        for user in ([], ["-u", "nobody"], ["-w", "/lib"]):
            host.minirun("exec", *user, "box", "true")
        for command in (["logs", "box"], ["inspect", "box"], ["ps", "-a"], ["stats", "--no-stream", "box"]):
            host.minirun(*command, check=command[0] != "stats")
        host.minirun("stop", "-t", "0", "box")
    assert fired == []


def test_e02_control_a_program_that_reads_one_is_seen(host: Target, tmp_path: Path) -> None:
    (tmp_path / "wire").write_text("trap")
    with tripwires(tmp_path / "wire") as fired:
        host.sh("cat /etc/ld.so.preload", "-v", f"{tmp_path}/wire:/etc/ld.so.preload")
    assert fired


@pytest.mark.parametrize("number", range(3, 12))
def test_e04_no_working_directory_through_a_descriptor(host: Target, canary: None, number: int) -> None:
    where = f"/proc/self/fd/{number}"
    leak = os.open(host.path("/run/canary"), os.O_RDONLY)
    try:
        command = ["run", "--rm", "--net", "none", "-w", where, "busybox", "cat", "ptmx"]
        process = host.spawn(*command, pass_fds=[leak])
        out, err = process.communicate(timeout=20)
    finally:
        os.close(leak)
    assert process.returncode in (125, 126) and "alive" not in out and "minirun: " in err


def test_e04_no_working_directory_through_a_descriptor_in_exec(host: Target) -> None:
    host.start("--name", "box", "busybox", "sleep", "1000")
    for number in range(3, 12):
        where = f"/proc/self/fd/{number}"
        done = host.minirun("exec", "-w", where, "box", "sh", "-c", "pwd; cat ptmx; ls -di . /", check=False)
        # init's own descriptor of the container's root may have the number: that is inside.
        assert "alive" not in done.stdout
        assert done.returncode == 126 or done.stdout.startswith("/\n"), done


def _descriptors(host: Machine, *command: str) -> list[str]:
    """What a program sees in /proc/self/fd while its caller holds a directory of the host open."""
    leak = os.open(host.path("/run/canary"), os.O_RDONLY)
    try:
        process = host.popen(command, pass_fds=[leak])
        out, err = process.communicate(timeout=20)
    finally:
        os.close(leak)
    assert process.returncode == 0, err
    return re.findall(r" (\d+) -> ", out)


def test_e04_a_program_has_its_three_descriptors(host: Target) -> None:
    from tests.lifecycle.machine import MINIRUN

    host.start("--name", "box", "busybox", "sleep", "1000")
    listing = ["ls", "-l", "/proc/self/fd"]
    for command in (["run", "--rm", "--net", "none", "busybox"], ["exec", "box"]):
        seen = _descriptors(host, *MINIRUN, *command, *listing)
        assert seen in (["0", "1", "2"], ["0", "1", "2", "3"]), command  # 3: ls reads the folder itself
    # The control: another way in brings the caller's descriptor along.
    pid = host.inspect("box")["State"]["Pid"]
    entering = ["nsenter", f"--mount=/proc/{pid}/ns/mnt", f"--pid=/proc/{pid}/ns/pid"]
    assert set(_descriptors(host, *entering, *listing)) - {"0", "1", "2", "3"}
