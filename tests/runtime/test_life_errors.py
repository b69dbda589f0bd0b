"""What the machine or the document lacks: one clear line, the right exit code, and nothing left, whenever it shows."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.lifecycle.machine import until
from tests.runtime.bundles import OCI, SLEEP, RuntimeHost, config, one_line


@contextmanager
def small(box: RuntimeHost, options: str) -> Iterator[str]:
    """A state root on a file system of its own."""
    box.run(["mkdir", "-p", "/run/small"])
    box.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", "/run/small"])
    try:
        yield "/run/small"
    finally:
        box.run(["umount", "/run/small"])


def attempt(box: RuntimeHost, *words: str, code: int = 1) -> subprocess.CompletedProcess[str]:
    """A call that succeeds in silence or fails with one line and this code."""
    done = box.call("env", "-C", box.bundle, *words)
    if done.returncode:
        assert (done.returncode, done.stdout) == (code, ""), done
        one_line(done.stderr)
    return done


UNITS = {"nr_inodes": 1, "size": 4096}


@pytest.mark.parametrize("limit", UNITS)
def test_no_room_for_the_state(box: RuntimeHost, limit: str) -> None:
    """With one more inode, or page, each time: wherever it ends, all is undone."""
    for number in range(2, 30):
        with small(box, f"{limit}={number * UNITS[limit]}") as root:
            done = attempt(box, OCI, "--root", root, "create", "box")
            if done.returncode == 0:
                box.oci("--root", root, "start", "box")
                box.oci("--root", root, "delete", "--force", "box")
            assert [path.name for path in box.path(root).rglob("*") if path.name != "@creating"] == []
            assert box.leftovers() == []
            if done.returncode == 0:
                return
        assert "/run/small/" in done.stderr
        assert "no space left on device" in done.stderr.lower()
    pytest.fail("it never succeeds")


def test_a_full_file_system_keeps_nobody_from_deleting(box: RuntimeHost) -> None:
    with small(box, "size=200k") as root:
        box.oci("--root", root, "create", "box")
        box.call("sh", "-c", f"cat /dev/zero >{root}/full")
        box.oci("--root", root, "start", "box")
        assert json.loads(box.oci("--root", root, "state", "box"))["status"] == "running"
        box.oci("--root", root, "exec", "box", "true")
        box.oci("--root", root, "delete", "--force", "box")
        assert sorted(path.name for path in box.path(root).iterdir()) == ["@creating", "full"]
    assert box.leftovers() == []


def test_a_state_directory_that_cannot_be_written(box: RuntimeHost) -> None:
    with small(box, "ro") as root:
        assert "read-only file system" in box.refused("--root", root, "create", "box").lower()
        for verb in ("state", "start", "kill", "delete"):
            assert "does not exist" in box.refused("--root", root, verb, "box")
    box.path("/run/file").write_text("")
    box.refused("--root", "/run/file", "create", "box")
    assert box.leftovers() == []


def test_few_descriptors(box: RuntimeHost) -> None:
    """From where Python starts at all to where all goes well."""
    for number in range(6, 40):
        done = attempt(box, "prlimit", f"--nofile={number}:{number}", OCI, "create", "box")
        if done.returncode == 0:
            break
        assert "too many open files" in done.stderr.lower()
        assert box.leftovers() == []
    assert number > 6
    box.oci("start", "box")
    for number in range(6, 40):
        done = box.call("prlimit", f"--nofile={number}:{number}", OCI, "exec", "box", "true")
        if done.returncode == 0:
            break
        one_line(done.stderr)
    box.oci("delete", "--force", "box")
    assert box.leftovers() == []


FILE = {"destination": "/file", "type": "bind", "source": "/etc/passwd", "options": ["bind", "ro"]}
WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no root file system": ({"root": {"path": "nowhere"}}, {}, "nowhere: no such file or directory"),
    "a file as root": ({"root": {"path": "config.json"}}, {}, "config.json"),
    "no program": ({}, {"args": ["nope"]}, "executable file not found"),
    "no program by path": ({}, {"args": ["/bin/nope"]}, "no such file or directory"),
    "a directory as program": ({}, {"args": ["/bin"]}, "permission denied"),
    "a program that is none": ({}, {"args": ["/file"]}, "permission denied"),
    "a file as directory": ({}, {"cwd": "/file"}, "/file"),
    "no source": ({"mounts": [FILE | {"source": "/run/nowhere"}]}, {}, "/run/nowhere"),
    "an unknown type": ({"mounts": [{"destination": "/x", "type": "nofs", "source": "x"}]}, {}, "nofs"),
    "no memory to start in": ({"linux": {"resources": {"memory": {"limit": 4096}}}}, {}, ""),
    "no namespace": ({"linux": {"namespaces": [{"type": "network", "path": "/run/none"}]}}, {}, "/run/none"),
    "another kind": ({"linux": {"namespaces": [{"type": "network", "path": "/proc/self/ns/ipc"}]}}, {}, "ns/ipc"),
    "no such sysctl": ({"linux": {"sysctl": {"net.nowhere": "1"}}}, {}, "net/nowhere"),
    "no such map": ({"linux": {"uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}] * 2}}, {}, ""),
}


PROGRAM = {
    "no program": 127,
    "no program by path": 127,
    "a directory as program": 126,
    "a program that is none": 126,
    "a file as directory": 126,
}


@pytest.mark.parametrize("mistake", WRONG)
def test_what_cannot_be_done_is_undone(box: RuntimeHost, mistake: str) -> None:
    change, process, why = WRONG[mistake]
    base = config(f"{box.cgroup}/c", SLEEP)
    linux = base["linux"] | {key: value for key, value in change.get("linux", {}).items() if key != "namespaces"}
    for entry in change.get("linux", {}).get("namespaces", []):
        linux["namespaces"] = [*(one for one in linux["namespaces"] if one["type"] != entry["type"]), entry]
    if "uidMappings" in linux:
        linux |= {"gidMappings": linux["uidMappings"], "namespaces": [*linux["namespaces"], {"type": "user"}]}
    members = {"mounts": [*base["mounts"], FILE]} | change | {"linux": linux}
    box.configure(
        process.get("args", SLEEP), members, **{key: value for key, value in process.items() if key != "args"}
    )
    for words in (("create", "--pid-file", "/run/pid", "box"), ("run", "box")):
        done = box.call("env", "-C", box.bundle, OCI, *words)
        assert (done.returncode, done.stdout) == (PROGRAM.get(mistake, 1), ""), done
        assert why in one_line(done.stderr)
        assert box.leftovers() == []
    assert not box.path("/run/pid").exists()


def test_files_that_cannot_be_written_and_bundles_that_are_not_there(box: RuntimeHost) -> None:
    assert "/run/no/pid" in box.refused("create", "--pid-file", "/run/no/pid", "box")
    assert box.leftovers() == []
    assert "/run/nowhere" in box.refused("create", "--bundle", "/run/nowhere", "box")
    box.path(f"{box.bundle}/config.json").unlink()
    assert "config.json" in box.refused("create", "box")
    assert box.leftovers() == []


def test_users_are_numbers_that_nobody_must_know(box: RuntimeHost) -> None:
    box.configure(
        ["sh", "-c", "id -u; id -g; id -G"], user={"uid": 4294967294, "gid": 123456, "additionalGids": [77, 78]}
    )
    assert box.oci("run", "box").split() == ["4294967294", "123456", "123456", "77", "78"]


def test_names_that_mean_something_to_us(box: RuntimeHost) -> None:
    for name in ("state.json", ".hidden", "a" * 200):
        box.oci("create", name)
        assert box.oci("list", "-q").split() == [name]
        box.oci("delete", name)
        assert box.leftovers() == []
    for name in ("@creating", "..", ".", "a/b", ""):
        box.refused("create", name)
        box.refused("delete", "--force", name)


def test_a_program_that_the_kernel_refuses(box: RuntimeHost) -> None:
    """It is found and may be executed, and yet cannot: that shows at the start."""
    program = box.path(box.bundle) / "rootfs/bin/text"
    program.write_text("no program\n")
    program.chmod(0o755)
    box.configure(["text"])
    box.oci("create", "box")
    assert "exec format error" in attempt(box, OCI, "start", "box", code=126).stderr.lower()
    until(lambda: box.told()["status"] == "stopped", "stopped")
    box.oci("delete", "box")
    assert "exec format error" in attempt(box, OCI, "run", "box", code=126).stderr.lower()
    assert box.leftovers() == []


@pytest.mark.parametrize("text", ["\n", "exec\n", "exec x\n", "hook 125\n", "x\nhook 125\n", "0 999999 x\nhook 125\n"])
def test_a_report_that_means_nothing_is_one_line_too(box: RuntimeHost, text: str) -> None:
    box.oci("create", "box")
    box.path(f"{box.top}/box/failed").write_text(text)
    box.refused("start", "box")
    box.oci("delete", "--force", "box")
