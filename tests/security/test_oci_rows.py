"""SECURITY rows for the OCI runtime: what enters a container, what comes along, and what the program may ask for.

What mounts have to do with (E03, E05-E08, E11) is in tests/runtime/test_mounts_hostile.py; who hunts what enters (E10)
in test_oci_hunted.py.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from minirun.linux import security
from minirun.oci.seccomp import default_profile
from tests.fakehost import REPOSITORY
from tests.runtime.bundles import OCI
from tests.security.oci import STRONG, USUAL, Vault
from tests.security.test_entering import OVERWRITE, hashes, tripwires

ALL = list(security.CAPABILITIES)
EPERM, ENOSYS, SIGSYS = 1, 38, -31


@pytest.mark.parametrize("capabilities", [USUAL, STRONG], ids=["usual", "strong"])
def test_e01_execs_into_a_container_that_overwrites_them(box: Vault, capabilities: list[str]) -> None:
    """Its control, a program that is a file, is in test_entering.py."""
    programs = sorted((REPOSITORY / "minirun/libexec").iterdir())
    before = hashes(*programs)
    box.write(["/bin/sleep", "1000"], capabilities)
    box.oci("run", "-d", "box")
    enemy = box.spawn("exec", "box", "/bin/sh", "-c", OVERWRITE)
    assert enemy.stdout and enemy.stdout.readline() == "ready\n"
    for _ in range(15):
        assert box.oci("exec", "box", "/bin/echo", "fine") == "fine\n"
    box.oci("delete", "--force", "box")
    assert "written" not in enemy.communicate(timeout=20)[0]
    assert hashes(*programs) == before


def test_e02_nothing_of_the_container_is_loaded_by_what_enters(box: Vault) -> None:
    names = ["lib/libc.so.6", "lib/libnss_files.so.2", "lib/ld-musl-x86_64.so.1", "usr/lib/python3/encodings.py"]
    names += ["etc/ld.so.preload", "etc/nsswitch.conf", "etc/passwd", "etc/group", "etc/localtime", "bin/ps", "bin/tar"]
    root = box.path(f"{box.bundle}/rootfs")
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("trap")
    # Without HOME, that would be looked up in /etc/passwd: by init, which takes it for text.
    variables = ["LD_PRELOAD=/lib/libc.so.6", "PYTHONPATH=/usr/lib/python3", "HOME=/"]
    box.write(["/bin/sleep", "1000"], USUAL, env=variables)
    with tripwires(*(root / name for name in names)) as fired:
        box.oci("create", "box")
        box.oci("start", "box")
        box.oci("exec", "--user", "1:1", "box", "/bin/true")
        for words in (["state"], ["ps"], ["pause"], ["resume"], ["kill"]):
            box.oci(*words, "box")
        box.oci("delete", "--force", "box")
    assert fired == []
    with tripwires(root / "etc/passwd") as fired:  # the control: a program that reads one
        box.sh("cat /etc/passwd")
    assert fired


def leaking(box: Vault, *words: str, place: int = 3) -> Any:
    """Call the runtime with a descriptor of a directory of the host at ``place``."""
    opened = f'exec {place}< /run/canary; exec "$@"'
    return box.call("env", "-C", box.bundle, "bash", "-c", opened, "bash", *words)


def test_e04_no_working_directory_through_a_descriptor(box: Vault) -> None:
    """Whatever number it is: in create, and in exec."""
    for number in range(3, 12):
        box.write(["/bin/cat", "ptmx"], USUAL, cwd=f"/proc/self/fd/{number}")
        done = leaking(box, OCI, "run", "box", place=7)
        assert done.returncode and "alive" not in done.stdout
    box.write(["/bin/sleep", "1000"], USUAL)
    box.oci("run", "-d", "box")
    for number in range(3, 12):
        done = leaking(box, OCI, "exec", "--cwd", f"/proc/self/fd/{number}", "box", "/bin/cat", "ptmx", place=7)
        assert done.returncode and "alive" not in done.stdout


def test_e04_a_program_has_the_descriptors_it_was_promised(box: Vault) -> None:
    def seen(*words: str) -> list[str]:
        done = leaking(box, *words)
        assert done.returncode == 0, done.stderr
        return re.findall(r"(\d+) -> (?!/proc/)", done.stdout)  # but for the directory that ls itself reads

    listing = ["/bin/ls", "-l", "/proc/self/fd"]
    box.write(listing, USUAL)
    assert seen(OCI, "run", "box") == ["0", "1", "2"]
    assert seen(OCI, "run", "--preserve-fds", "1", "box") == ["0", "1", "2", "3"]
    box.write(["/bin/sleep", "1000"], USUAL)
    box.oci("run", "-d", "box")
    assert seen(OCI, "exec", "box", *listing) == ["0", "1", "2"]
    entering = ["nsenter", f"--mount=/proc/{box.told()['pid']}/ns/mnt", f"--pid=/proc/{box.told()['pid']}/ns/pid"]
    assert "3" in seen(*entering, *listing)  # the control: another way in brings it along


def test_e04_exec_has_the_root_of_a_container_without_a_mount_namespace(box: Vault) -> None:
    document = box.write(["/bin/sleep", "1000"], USUAL)
    document["mounts"] = []
    document["linux"]["namespaces"] = [entry for entry in document["linux"]["namespaces"] if entry["type"] != "mount"]
    box.save(document)
    box.oci("run", "-d", "box")
    assert box.oci("exec", "box", "/bin/test", "!", "-e", "/run/canary") == ""
    box.oci("delete", "--force", "box")
    box.write(["/bin/test", "!", "-e", "/run/canary"], USUAL)
    box.oci("run", "box")


def test_e06_an_image_whose_dev_is_a_link(box: Vault) -> None:
    """Without a mount on /dev what belongs there is made in the image's own; Debian's runc 1.1.5 follows the link."""
    document = box.write(["/bin/true"], USUAL)
    document["mounts"] = [entry for entry in document["mounts"] if not entry["destination"].startswith("/dev")]
    box.run(["sh", "-ec", f"cd {box.bundle}/rootfs; rm -rf dev; ln -s /run/canary dev"])
    box.save(document)
    before = box.canary()
    assert "/dev" in box.refused("run", "box")
    assert box.canary() == before
    if shutil.which("runc") and "1.1.5" in box.run(["runc", "--version"]).stdout:
        box.run(["sh", "-ec", "cp -a /run/canary /run/kept; mount --bind /run/kept /run/canary"])
        box.call("env", "-C", box.bundle, "runc", "--root", "/run/runc", "run", "control")
        changed = box.path("/run/canary/ptmx").is_symlink()
        box.run(["sh", "-ec", "umount /run/canary; rm -r /run/kept"])
        assert changed
    box.run(["sh", "-ec", f"cd {box.bundle}/rootfs; rm dev"])


def test_e07_nothing_is_inheritable(box: Vault) -> None:
    status = "grep -E '^Cap(Inh|Amb|Eff|Bnd)' /proc/self/status"
    own = dict(re.findall(r"(Cap\w+):\s*(\w+)", box.sh(status)))
    assert (own["CapInh"], own["CapAmb"]) == ("0" * 16, "0" * 16)
    assert int(own["CapEff"], 16) == int(own["CapBnd"], 16) == security.mask(USUAL)
    box.write(["/bin/sleep", "1000"], USUAL)
    box.oci("run", "-d", "box")
    more = dict(
        re.findall(r"(Cap\w+):\s*(\w+)", box.oci("exec", "--cap", "CAP_NET_RAW", "box", "/bin/sh", "-c", status))
    )
    assert (more["CapInh"], more["CapAmb"]) == ("0" * 16, "0" * 16)
    assert int(more["CapEff"], 16) == security.mask([*USUAL, "CAP_NET_RAW"])


def surface(box: Vault, profile: dict[str, Any] | None, *words: str) -> dict[str, int]:
    """What the kernel answers to the enemy, who has every capability."""
    document = box.write(["/bin/intruder", "surface"], ALL)
    if profile:
        document["linux"]["seccomp"] = profile
    box.save(document)
    return {name: int(number) for name, number in (line.rsplit(" ", 1) for line in box.oci("run", "box").splitlines())}


def test_e12_what_the_profile_refuses_the_filter_refuses(box: Vault) -> None:
    confined, free = surface(box, default_profile(USUAL)), surface(box, None)
    other = {"clone3": ENOSYS, "int80": SIGSYS, "x32": SIGSYS}
    assert confined == {name: other.get(name, EPERM) for name in free}
    assert [name for name in free if free[name] == confined[name]] == []  # the kernel itself would not have said so


def test_e12_exec_is_under_the_same_filter(box: Vault) -> None:
    document = box.write(["/bin/sleep", "1000"], ALL)
    document["linux"]["seccomp"] = default_profile(USUAL)
    for no_new_privs in (False, True):
        document["process"]["noNewPrivileges"] = no_new_privs
        box.save(document)
        box.oci("run", "-d", "box")
        told = dict(line.rsplit(" ", 1) for line in box.oci("exec", "box", "/bin/intruder", "surface").splitlines())
        assert (told["AF_VSOCK"], told["bpf"], told["int80"]) == (str(EPERM), str(EPERM), str(SIGSYS))
        box.oci("delete", "--force", "box")


def test_e13_nodes_are_of_no_use_and_keys_are_its_own(box: Vault) -> None:
    script = "mknod /kmsg c 1 11 && true < /kmsg && echo open; mknod /zero c 1 5 && head -c 1 /zero | wc -c"
    document = box.write(
        ["/bin/sh", "-c", f"({script}; rm /kmsg /zero) 2> /dev/null"], [*USUAL, "CAP_MKNOD", "CAP_SYSLOG"]
    )
    document["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    box.save(document)
    assert box.oci("run", "box") == "1\n"
    document["linux"]["resources"]["devices"].append(
        {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rwm"}
    )
    box.save(document)
    assert box.oci("run", "box") == "open\n1\n"  # the control
    if Path("/proc/keys").exists():
        assert re.search(r" keyring +minirun", box.sh("cat /proc/keys"))


@pytest.mark.parametrize("uid", [-1, 2**32 - 1, 2**32, "1", "root", 1.5, True])
def test_e16_what_is_no_user_is_refused(box: Vault, uid: Any) -> None:
    box.write(["/bin/id"], USUAL, user={"uid": uid, "gid": 0})
    assert "process.user" in box.refused("run", "box")


@pytest.mark.parametrize("user", ["root", "-1", "4294967295", "4294967296", "0:-1", "1:x", ":", "\u0661"])
def test_e16_exec_takes_numbers_and_asks_nobody(box: Vault, user: str) -> None:
    """Not even a FIFO in the place of /etc/passwd."""
    box.write(["/bin/sleep", "1000"], USUAL)
    root = box.path(f"{box.bundle}/rootfs")
    (root / "etc").mkdir(exist_ok=True)
    for name in ("passwd", "group"):
        (root / "etc" / name).unlink(missing_ok=True)
        os.mkfifo(root / "etc" / name)
    box.oci("run", "-d", "box")
    box.refused("exec", "--user", user, "box", "/bin/id", "-u")
    script = "grep -E '^(Uid|Gid):' /proc/self/status"
    assert box.oci("exec", "--user", "1:2", "box", "/bin/sh", "-c", script).split()[1::5] == ["1", "2"]
    for name in ("passwd", "group"):
        (root / "etc" / name).unlink()


def test_e17_the_groups_are_exactly_these(box: Vault) -> None:
    caller = ["setpriv", "--groups", "4,5,6"]
    for groups in ([], [7, 9]):
        box.write(
            ["/bin/grep", "Groups", "/proc/self/status"], USUAL, user={"uid": 1, "gid": 2, "additionalGids": groups}
        )
        done = box.call("env", "-C", box.bundle, *caller, OCI, "run", "box")
        assert done.stdout.split() == ["Groups:", *map(str, groups)], done
    box.write(["/bin/sleep", "1000"], USUAL)
    box.oci("run", "-d", "box")
    listing = ["/bin/grep", "Groups", "/proc/self/status"]
    assert box.run([*caller, OCI, "exec", "box", *listing]).stdout.split() == ["Groups:"]
    assert box.run([*caller, "grep", "Groups", "/proc/self/status"]).stdout.split() == ["Groups:", "4", "5", "6"]


def test_n04_state_is_for_root_alone_and_no_socket_is_abstract(box: Vault) -> None:
    box.oci("create", "box")
    for place in (box.top, f"{box.top}/box", f"{box.top}/box/exec.fifo", f"{box.top}/box/config.json"):
        assert box.path(place).stat().st_mode & 0o077 == 0, place
    reading = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", f"{box.top}/box/config.json"]
    assert box.run(reading, check=False).returncode and box.run(reading[-2:]).stdout
    sockets = Path(f"/proc/{box.pid}/net/unix").read_text(), Path(f"/proc/{box.told()['pid']}/net/unix").read_text()
    assert not any(re.findall(r" (@\S+)$", text, re.M) for text in sockets)
