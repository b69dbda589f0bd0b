"""The root of a bundle: its devices, its propagation, what is read-only or masked, and how it becomes "/"."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.runtime.mounting import MountHost, Seen, entry


@pytest.fixture(scope="module")
def machine() -> Iterator[MountHost]:
    made = MountHost()
    yield made
    made.close()


# --- /dev ---


def test_devices_and_links_are_made_in_a_dev_of_the_containers_own(box: MountHost) -> None:
    device = {"path": "/dev/extra", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 5, "gid": 6}
    devices = [
        device,
        {"path": "/dev/sub/block", "type": "b", "major": 7, "minor": 0},
        {"path": "/srv/pipe", "type": "p", "fileMode": 0o600},
        {"path": "/dev/u", "type": "u", "major": 1, "minor": 3},
        {"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o600},  # instead of the usual one
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666},
    ]
    script = """
        cd /dev; stat -c '%n %F %t,%T %a %u:%g' extra sub/block /srv/pipe u full null
        for link in fd stdin stdout stderr ptmx; do echo $link $(readlink $link); done; ls; touch x 2>&1
    """
    dev = entry("/dev", "tmpfs", "nosuid", "ro", "mode=755", kind="tmpfs")
    told = box.tell(script, [dev, entry("/dev/pts", "devpts", "ptmxmode=0666", kind="devpts")], devices=devices)
    lines = told.split("\n")
    assert lines[:6] == [
        "extra character special file 1,5 640 5:6",
        "sub/block block special file 7,0 666 0:0",
        "/srv/pipe fifo 0,0 600 0:0",
        "u character special file 1,3 666 0:0",
        "full character special file 1,7 600 0:0",
        "null character special file 1,3 666 0:0",
    ]
    assert lines[6:11] == [
        "fd /proc/self/fd",
        *(f"{name} /proc/self/fd/{number}" for number, name in enumerate(("stdin", "stdout", "stderr"))),
        "ptmx pts/ptmx",
    ]
    assert lines[-1] == "touch: x: Read-only file system"


def test_a_dev_of_the_hosts_is_left_alone(box: MountHost) -> None:
    box.run(["sh", "-ec", "mkdir -p /run/devices; cp -a /dev/null /run/devices/"])
    assert box.tell("ls /dev", [entry("/dev", "/run/devices", "rbind", "ro")]) == "null"
    assert os.listdir(box.path("/run/devices")) == ["null"]


def test_a_device_that_is_there_must_be_the_same(box: MountHost) -> None:
    folder = box.path(f"{box.bundle}/rootfs/nodes")
    folder.mkdir()
    os.mknod(folder / "same", 0o20644, os.makedev(1, 3))
    os.mknod(folder / "other", 0o20644, os.makedev(1, 5))
    device = {"type": "c", "major": 1, "minor": 3}
    told = box.tell("stat -c %a /nodes/same", [], devices=[{"path": "/nodes/same", **device}])
    assert told == "644"
    assert "File exists" in box.complaint([], devices=[{"path": "/nodes/other", **device}])


# --- the root ---


def test_propagation_of_the_root(box: MountHost) -> None:
    expected = {"shared": ["shared"], "rslave": ["private"], "unbindable": ["unbindable"], "private": ["private"]}
    assert {mode: box.seen([], rootfsPropagation=mode)["/"].propagation() for mode in expected} == expected


def test_mounts_reach_the_host_through_a_shared_volume_and_no_other_way(box: MountHost) -> None:
    """The bundle lies on a shared mount; what init mounts in the root must not appear there."""
    box.run(["mount", "--make-shared", "/run"])
    try:
        script = "mount -t tmpfs up /v/at; mkdir -p /in; mount -t tmpfs in /in; grep -c . /proc/self/mountinfo"
        box.tell(script, [entry("/v", "/run/peers", "rbind", "rshared")], rootfsPropagation="shared")
        mounted = box.run(["cat", "/proc/self/mountinfo"]).stdout
        assert " - tmpfs up " in mounted and " - tmpfs in " not in mounted
        assert box.bundle not in mounted
        box.run(["umount", "/run/peers/at"])
        for mode in ("private", "rslave"):
            box.tell("mount -t tmpfs up /v/at", [entry("/v", "/run/peers", "rbind")], rootfsPropagation=mode)
            assert " - tmpfs up " not in box.run(["cat", "/proc/self/mountinfo"]).stdout
        box.tell("mount -t tmpfs up /v/at", [entry("/v", "/run/peers", "rbind", "rshared")], userns=True)
        assert " - tmpfs up " not in box.run(["cat", "/proc/self/mountinfo"]).stdout
    finally:
        box.run(["mount", "--make-private", "/run"])


def test_mounts_of_the_host_reach_a_slave_volume(box: MountHost) -> None:
    for mode, count in (("rslave", "1"), ("rprivate", "0")):
        script = "echo up; read line; grep -c ' - tmpfs later ' /proc/self/mountinfo"
        box.write(box.document(script, [entry("/v", "/run/peers", "rbind", mode)], rootfsPropagation="rslave"))
        running = box.spawn("run", "box", stdin=-1)
        assert running.stdin and running.stdout and running.stdout.readline() == "up\n"
        box.run(["mount", "-t", "tmpfs", "later", "/run/peers/at"])
        assert running.communicate("\n", timeout=20)[0] == f"{count}\n"
        box.run(["umount", "/run/peers/at"])


def test_read_only_and_masked_paths(box: MountHost) -> None:
    """Read-only with all that is mounted below; masked also at the end of a link; both pass over what is missing."""
    rootfs = box.path(f"{box.bundle}/rootfs")
    (rootfs / "to-mask").symlink_to("/t/below")
    mounts = [entry("/t", "/run/src", "rbind"), entry("/w", "/run/src", "rbind")]
    script = """
        touch /t/x 2>&1; touch /t/below/x 2>&1; ls /t/below; cat /w/file; ls /w/below; touch /w/below/x 2>&1
        touch /x 2>&1; cat /proc/version; :
    """
    document = box.document(
        script,
        mounts,
        readonlyPaths=["/t", "/no/such", "/bin/sh/no"],
        maskedPaths=["/to-mask", "/w/file", "/w/below", "/no/such", "/proc/version"],
    )
    document["root"]["readonly"] = True
    box.write(document)
    told = box.oci("run", "box").splitlines()
    refused = [f"touch: {path}: Read-only file system" for path in ("/t/x", "/t/below/x", "/w/below/x", "/x")]
    assert told == refused


def test_a_bundle_behind_a_link_and_a_root_where_nothing_may_run(box: MountHost) -> None:
    box.run(["sh", "-ec", "ln -sfn bundle /run/link; ln -sfn rootfs /run/bundle/root-link"])
    document = box.document("echo runs", [])
    document["root"]["path"] = "root-link"
    box.write(document)
    assert box.oci("run", "--bundle", "/run/link", "box") == "runs\n"
    box.run(
        [
            "sh",
            "-ec",
            "mount --bind /run/bundle/rootfs /run/bundle/rootfs; mount -o remount,bind,noexec /run/bundle/rootfs",
        ]
    )
    box.write(box.document("echo runs", []))
    try:
        complaint = box.refused("run", "box", code=126)
    finally:
        box.run(["umount", "/run/bundle/rootfs"])
    assert "exec '/bin/sh': permission denied" in complaint


def test_another_way_to_the_root_than_pivot(box: MountHost) -> None:
    told = box.tell(
        "ls /; grep -c . /proc/self/mountinfo; ls -d /run/bundle 2>&1", [entry("/x", "/run/src", "bind")], "--no-pivot"
    )
    assert {"bin", "proc", "x"} <= set(told.split()) and told.endswith("No such file or directory")


def test_cgroups_are_the_containers_own(box: MountHost) -> None:
    """With a cgroup namespace as its root; without one the directories of the container. Read-only where asked."""
    for namespace in (True, False):
        for how in ("ro", "rw"):
            mount = entry("/sys/fs/cgroup", "cgroup", "nosuid", how, kind="cgroup")
            document = box.document(
                "cat /proc/self/mountinfo; find /sys/fs/cgroup -name cgroup.procs -exec cat {} +",
                [entry("/sys", "sysfs", kind="sysfs"), mount],
            )
            document["linux"]["namespaces"] += [{"type": "cgroup"}] if namespace else []
            box.write(document)
            lines = box.oci("run", "box").splitlines()
            seen = {line.split()[4]: Seen(line) for line in lines if " - " in line}
            found = {target: one for target, one in seen.items() if one.kind in ("cgroup", "cgroup2")}
            assert found
            assert all({how, "nosuid"} <= one.flags for one in found.values())
            if any(one.kind == "cgroup" for one in found.values()):
                assert {line for line in lines if line.isdigit()} <= {"1", "2", "3", "0"}
                assert seen["/sys/fs/cgroup"].kind == "tmpfs" and how in seen["/sys/fs/cgroup"].flags
                assert all(one.root == "/" if namespace else one.root.endswith("/c") for one in found.values())
