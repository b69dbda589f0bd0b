"""The mounts of a bundle: what /proc/self/mountinfo says inside, compared with what the document asked for."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.runtime.bundles import RuntimeHost, config

SOURCES = """
mkdir -p /run/src/below /run/secret/data /run/idmapped
mount -t tmpfs -o mode=755 tmpfs /run/src/below
echo text > /run/src/file; echo lower > /run/src/below/file
echo kept > /run/secret/data/file; chmod 700 /run/secret
echo mine > /run/idmapped/file; chown 7:7 /run/idmapped/file
mount -t tmpfs -o mode=755 tmpfs /run/idmapped; mkdir /run/idmapped/below; echo mine > /run/idmapped/file
mount -t tmpfs -o mode=755 tmpfs /run/idmapped/below; echo mine > /run/idmapped/below/file
chown 7:7 /run/idmapped/file /run/idmapped/below/file
mkdir /run/peers; mount -t tmpfs tmpfs /run/peers; mount --make-shared /run/peers; mkdir /run/peers/at
"""
IDS = {"uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}]}
IDS["gidMappings"] = IDS["uidMappings"]


class MountHost(RuntimeHost):
    """A host with things to mount; ``seen`` is what a container with some mounts tells."""

    def __init__(self) -> None:
        super().__init__()
        self.run(["sh", "-ec", SOURCES])
        for name in ("mount", "mkdir", "stat", "find", "touch", "readlink", "grep", "ln", "umount"):
            self.path(f"{self.bundle}/rootfs/bin/{name}").symlink_to("busybox")

    def document(self, script: str, mounts: list[dict[str, Any]], **linux: Any) -> dict[str, Any]:
        """A container that may do what root may, and runs a shell script."""
        rights = [f"CAP_{name}" for name in ("SYS_ADMIN", "DAC_OVERRIDE", "MKNOD", "CHOWN", "FOWNER", "SYS_CHROOT")]
        capabilities = dict.fromkeys(("bounding", "effective", "permitted"), rights)
        found = config(f"{self.cgroup}/c", ["/bin/sh", "-c", script], capabilities=capabilities)
        found["mounts"] += mounts
        if linux.pop("userns", False):
            found["linux"]["namespaces"].append({"type": "user"})
            found["linux"] |= IDS
        found["linux"] |= linux
        return found

    def write(self, document: dict[str, Any]) -> None:
        self.path(f"{self.bundle}/config.json").write_text(json.dumps(document))

    def tell(self, script: str, mounts: list[dict[str, Any]], *options: str, **linux: Any) -> str:
        """What a shell script prints in a container with these mounts."""
        self.write(self.document(f"{script}\n:", mounts, **linux))
        return self.oci("run", *options, "box").rstrip("\n")

    def seen(self, mounts: list[dict[str, Any]], *options: str, **linux: Any) -> dict[str, Seen]:
        """What the container sees mounted, by mount point; the topmost of each."""
        text = self.tell("exec cat /proc/self/mountinfo", mounts, *options, **linux)
        return {line.split()[4]: Seen(line) for line in text.splitlines()}

    def complaint(self, mounts: list[dict[str, Any]], **linux: Any) -> str:
        """The one line by which a container with these mounts is refused; nothing of it may be left."""
        self.write(self.document("true", mounts, **linux))
        return self.refused("run", "box")


class Seen:
    """A line of mountinfo."""

    def __init__(self, line: str) -> None:
        before, _, after = line.partition(" - ")
        words = before.split()
        self.root, self.flags, self.peers = words[3], set(words[5].split(",")), words[6:]
        self.kind, self.source, self.super = after.split()[0], after.split()[1], set(after.split()[2].split(","))

    def propagation(self) -> list[str]:
        return sorted(word.split(":")[0] for word in self.peers) or ["private"]


def entry(target: str, source: str, *options: str, kind: str = "none", **more: Any) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": list(options), **more}


@pytest.fixture(scope="module")
def machine() -> Iterator[MountHost]:
    made = MountHost()
    yield made
    made.close()


# Options of a bind mount of /run/src, which is rw,relatime: the flags that the mount has, and its propagation.
BINDS = {
    "bind": ("rw,relatime", "private"),
    "rbind": ("rw,relatime", "private"),
    "bind,defaults,async,loud,nomand,noiversion,nolazytime,norelatime,nostrictatime": ("rw,relatime", "private"),
    "bind,ro": ("ro,relatime", "private"),
    "bind,ro,rw": ("rw,relatime", "private"),
    "bind,nosuid,nodev,noexec": ("rw,nosuid,nodev,noexec,relatime", "private"),
    "bind,nosuid,suid,nodev,dev,noexec,exec": ("rw,relatime", "private"),
    "bind,noatime": ("rw,noatime", "private"),
    "bind,noatime,atime": ("rw,relatime", "private"),
    "bind,strictatime": ("rw", "private"),
    "bind,strictatime,atime": ("rw", "private"),
    "bind,strictatime,nostrictatime": ("rw,relatime", "private"),
    "bind,nodiratime": ("rw,nodiratime,relatime", "private"),
    "bind,nodiratime,diratime": ("rw,relatime", "private"),
    "bind,nosymfollow": ("rw,relatime,nosymfollow", "private"),
    "bind,nosymfollow,symfollow": ("rw,relatime", "private"),
    "bind,rshared,ro": ("ro,relatime", "shared"),
    "rbind,shared": ("rw,relatime", "shared"),
    "bind,slave": ("rw,relatime", "private"),
    "bind,unbindable": ("rw,relatime", "unbindable"),
    "bind,rslave,shared,nosuid": ("rw,nosuid,relatime", "shared"),
    "rbind,rprivate,rro,nosuid": ("ro,nosuid,relatime", "private"),
    "bind,sync,dirsync,mand,silent,lazytime,iversion": ("rw,relatime", "private"),  # of a super block, not of a mount
}
# Attributes with "r" in front: what they make of /run/src and of the mount below it, which is rw,relatime, too.
RECURSIVE = {
    "rro": "ro,relatime",
    "rro,rrw": "rw,relatime",
    "rnosuid,rnodev,rnoexec": "rw,nosuid,nodev,noexec,relatime",
    "rnosuid,rsuid,rnodev,rdev,rnoexec,rexec": "rw,relatime",
    "rnoatime": "rw,noatime",
    "rnoatime,ratime": "rw,relatime",
    "rstrictatime": "rw",
    "rstrictatime,rnostrictatime": "rw,relatime",
    "rrelatime,rnorelatime": "rw,relatime",
    "rnodiratime": "rw,nodiratime,relatime",
    "rnodiratime,rdiratime": "rw,relatime",
    "rnosymfollow": "rw,relatime,nosymfollow",
    "rnosymfollow,rsymfollow": "rw,relatime",
}
# Options of a new tmpfs: its flags, its propagation, some of its super block.
NEW = {
    "": ("rw,relatime", "private", "rw"),
    "ro": ("ro,relatime", "private", "ro"),
    "nosuid,nodev,noexec,mode=1777,size=64k": ("rw,nosuid,nodev,noexec,relatime", "private", "rw,size=64k"),
    "noatime,nodiratime,nosymfollow": ("rw,noatime,nodiratime,nosymfollow", "private", "rw"),
    "strictatime": ("rw", "private", "rw"),
    "sync,dirsync,lazytime": ("rw,relatime", "private", "rw,sync,dirsync,lazytime"),
    "sync,async,lazytime,nolazytime": ("rw,relatime", "private", "rw"),
    "shared": ("rw,relatime", "shared", "rw"),
    "rslave,rshared,rnosuid": ("rw,nosuid,relatime", "shared", "rw"),
    "unbindable,nr_inodes=9": ("rw,relatime", "unbindable", "rw,nr_inodes=9"),
    "tmpcopyup,ro": ("ro,relatime", "private", "rw"),
}


def test_every_option_of_a_bind_mount(box: MountHost) -> None:
    mounts = [entry(f"/b/{index}", "/run/src", *options.split(",")) for index, options in enumerate(BINDS)]
    seen = box.seen(mounts)
    for index, (options, (flags, propagation)) in enumerate(BINDS.items()):
        found = seen[f"/b/{index}"]
        assert (found.flags, found.propagation()) == (set(flags.split(",")), [propagation]), options
        assert (f"/b/{index}/below" in seen) == ("rbind" in options), options


def test_attributes_of_a_whole_tree(box: MountHost) -> None:
    mounts = [entry(f"/r/{index}", "/run/src", "rbind", *options.split(",")) for index, options in enumerate(RECURSIVE)]
    seen = box.seen(mounts)
    for index, (options, flags) in enumerate(RECURSIVE.items()):
        for target in (f"/r/{index}", f"/r/{index}/below"):
            assert seen[target].flags == set(flags.split(",")), (options, target)


def test_options_of_a_new_file_system(box: MountHost) -> None:
    mounts = [entry(f"/n/{index}", "tmpfs", *options.split(","), kind="tmpfs") for index, options in enumerate(NEW)]
    seen = box.seen(mounts)
    for index, (options, (flags, propagation, parts)) in enumerate(NEW.items()):
        found = seen[f"/n/{index}"]
        assert (found.flags, found.propagation()) == (set(flags.split(",")), [propagation]), options
        assert set(parts.split(",")) <= found.super, options
    assert "sync" not in seen["/n/6"].super and "lazytime" not in seen["/n/6"].super


def test_targets_are_made_and_sources_are_of_every_kind(box: MountHost) -> None:
    """Files, sockets, devices; with parents, below links to what is missing, relative to the bundle and to /."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(box.path("/run/src/socket")))
    rootfs = box.path(f"{box.bundle}/rootfs")
    (rootfs / "etc").mkdir(exist_ok=True)
    (rootfs / "etc/resolv.conf").symlink_to("../run/resolve/./stub/../resolv.conf")  # as systemd has it: missing
    (rootfs / "etc/absolute").symlink_to("/made/dir")
    box.path(f"{box.bundle}/own").write_text("of the bundle\n")
    mounts = [
        entry("/deep/er/file", "/run/src/file", "bind", "ro"),
        entry("/deep/socket", "/run/src/socket", "bind"),
        entry("/deep/null", "/dev/null", "bind"),
        entry("relative//to/./root", "/run/src", "bind"),
        entry("/etc/resolv.conf", "/run/src/file", "bind"),
        entry("/etc/absolute/inside", "/run/src/file", "bind", kind="tmpfs"),  # the type of a bind mount says nothing
        entry("/own", "own", "bind", kind=""),
        entry("/implied", "/run/src", "ro", kind="bind"),
        entry("/trailing/", "/run/src", "bind"),
        entry("/a/../b/../up", "/run/src", "bind"),
    ]
    script = """
        cat /deep/er/file /etc/resolv.conf /made/dir/inside /own
        for file in /deep/socket /deep/null /relative/to/root /implied/file /trailing /up; do stat -c %F $file; done
        readlink /etc/resolv.conf; ls /run/resolve
    """
    told = box.tell(script, mounts).split("\n")
    listener.close()
    assert told[:4] == ["text", "text", "text", "of the bundle"]
    assert told[4:7] == ["socket", "character special file", "directory"]
    assert told[7:10] == ["regular file", "directory", "directory"]
    assert told[10:] == ["../run/resolve/./stub/../resolv.conf", "resolv.conf", "stub"]


def test_a_tmpfs_has_the_mode_and_on_demand_the_content_of_what_it_covers(box: MountHost) -> None:
    rootfs = box.path(f"{box.bundle}/rootfs")
    box.run(
        [
            "sh",
            "-ec",
            f"cd {box.bundle}/rootfs; mkdir -m 1770 -p var/old/deep; echo text > var/old/deep/file; "
            "chown 3:4 var/old/deep/file; chmod 4751 var/old/deep/file; touch -d @77 var/old/deep/file; "
            "ln -s /nowhere var/old/link; mkfifo var/old/pipe; mkdir -m 700 var/private; chmod 1770 var/old",
        ]
    )
    mounts = [
        entry("/var/old", "tmpfs", "tmpcopyup", "ro", kind="tmpfs"),
        entry("/var/private", "tmpfs", kind="tmpfs"),
        entry("/var/given", "tmpfs", "mode=750", kind="tmpfs"),
        entry("/var/none", "tmpfs", "tmpcopyup", kind="tmpfs"),
    ]
    script = """
        cd /var; stat -c '%n %a' old private given none
        cd old; find . ! -name . -exec stat -c '%n %a %u:%g %F' {} + | sort; stat -c %Y deep/file; cat deep/file
        readlink link
        touch new 2>&1
    """
    told = box.tell(script, mounts).split("\n")
    assert told[:4] == ["old 1770", "private 700", "given 750", "none 1777"]
    assert told[4:8] == [
        "./deep 1770 0:0 directory",
        "./deep/file 4751 3:4 regular file",
        "./link 777 0:0 symbolic link",
        "./pipe 644 0:0 fifo",
    ]
    assert told[8:] == ["77", "text", "/nowhere", "touch: new: Read-only file system"]
    assert sorted(path.name for path in (rootfs / "var/old").iterdir()) == ["deep", "link", "pipe"]


def test_mounts_come_in_their_order_and_can_be_changed_again(box: MountHost) -> None:
    mounts = [
        entry("/o", "/run/src", "bind"),
        entry("/o/below", "tmpfs", "size=4k", kind="tmpfs"),
        entry("/o/below/file", "/run/src/file", "bind"),
        entry("/again", "tmpfs", "size=4k", kind="tmpfs"),
        entry("/again", "tmpfs", "remount", "size=8k", "nosuid", kind="tmpfs"),
        entry("/o", "", "remount", "bind", "ro", "shared"),
    ]
    seen = box.seen(mounts)
    assert seen["/o"].flags == {"ro", "relatime"} and seen["/o"].propagation() == ["shared"]
    assert list(seen).index("/o/below") < list(seen).index("/o/below/file") < list(seen).index("/again")
    assert "size=8k" in seen["/again"].super and "nosuid" in seen["/again"].flags


REFUSED = {
    "a source that is missing": ([entry("/x", "/run/no/such", "bind")], "mount source '/run/no/such': no such file"),
    "no source": ([entry("/x", "", "bind")], "mounts[3].source: missing"),
    "a file system that does not exist": ([entry("/x", "x", kind="nonesuch")], "no file system 'nonesuch'"),
    "an option that is none": ([entry("/x", "x", "nonesuch=1", kind="tmpfs")], "mount of tmpfs on '/x'"),
    "a page of options": ([entry("/x", "x", "size=1k" + 5000 * "0", kind="tmpfs")], "longer than a page"),
    "a directory on a file": ([entry("/bin/busybox", "/run/src", "bind")], "directory"),
    "a file system on /": ([entry("/", "x", kind="tmpfs")], "mounts[3].destination: a new file system on /"),
    "below /proc": ([entry("/proc/sys", "/run/src", "bind")], "mounts[3].destination: '/proc/sys' is inside /proc"),
    "below /proc by dots": ([entry("/x/../proc/./sys", "/run/src", "bind")], "inside /proc"),
    "something on /proc": ([entry("/proc", "/run/src", "bind")], "only a procfs"),
    "a tmpfs on /proc": ([entry("/proc", "tmpfs", kind="tmpfs")], "only a procfs"),
    "a part of procfs on /proc": ([entry("/proc", "/proc/sys", "bind")], "only a procfs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_mounted_is_refused_with_the_reason(box: MountHost, name: str) -> None:
    mounts, complaint = REFUSED[name]
    assert complaint in box.complaint(mounts)


def test_what_may_be_mounted_on_and_below_proc(box: MountHost) -> None:
    below = ("uptime", "meminfo", "sys/kernel/ns_last_pid")
    mounts = [entry(f"/proc/{name}", "/run/src/file", "bind", "ro") for name in below]
    assert box.tell("cd /proc; cat " + " ".join(below), mounts) == "text\ntext\ntext"
    host_proc = entry("/proc", "/proc", "rbind", "ro")
    assert box.tell(f"cat /proc/{box.pid}/comm", [host_proc]) == "cat"  # the process that keeps the host alive


def test_hundreds_of_mounts_and_one_over_the_root(box: MountHost) -> None:
    """More than a process has small descriptors; what is mounted over / is what the others are made in."""
    rootfs = f"{box.bundle}/rootfs"
    mounts = [entry("/", rootfs, "rbind", "nodev")]
    mounts += [entry(f"/many/{n}", "/run/src/file", "bind") for n in range(280)]
    mounts += [entry(f"/many/t{n}", "tmpfs", "size=4k", kind="tmpfs") for n in range(280)]
    document = box.document("cat /proc/self/mountinfo", [])
    document["mounts"] = [mounts[0], *document["mounts"], *mounts[1:]]
    box.write(document)
    seen = [line.split()[4] for line in box.oci("run", "box").splitlines()]
    assert len([target for target in seen if target.startswith("/many/")]) == 560
    maps = {key: [{"containerID": 0, "hostID": 1000, "size": 100}] for key in IDS}  # so that all are taken before
    document["mounts"][-1] = entry("/many/mapped", "/run/idmapped", "bind", **maps)
    box.write(document)
    assert len(box.oci("run", "box").splitlines()) == len(seen)


# --- ids ---


def test_owners_are_shown_through_maps(box: MountHost) -> None:
    """Of a mount or of its whole tree, with and without a user namespace, by own maps or by those of the container."""
    maps = {key: [{"containerID": 0, "hostID": 1000, "size": 100}] for key in IDS}
    script = "cd /m; for at in *; do stat -c '%n %u:%g' $at/file $at/below/file 2> /dev/null; done"
    mounts = [
        entry("/m/a", "/run/idmapped", "rbind", "idmap", **maps),
        entry("/m/b", "/run/idmapped", "rbind", "ridmap", "ro", **maps),
        entry("/m/c", "/run/idmapped", "rbind", **maps),
        entry("/m/d", "/run/idmapped", "bind"),
    ]
    told = dict(line.split() for line in box.tell(script, mounts).splitlines())
    assert told["a/file"] == told["b/file"] == told["b/below/file"] == told["c/file"] == "1007:1007"
    assert told["a/below/file"] == told["c/below/file"] == told["d/file"] == "7:7"
    mounts = [
        entry("/m/a", "/run/idmapped", "rbind", "idmap"),
        entry("/m/b", "/run/idmapped", "rbind", "ridmap"),
        entry("/m/d", "/run/idmapped", "bind"),
    ]
    told = dict(line.split() for line in box.tell(script, mounts, userns=True).splitlines())
    assert told["a/file"] == told["b/file"] == told["b/below/file"] == "7:7"
    assert told["a/below/file"] == told["d/file"] == "65534:65534"


def test_ids_cannot_be_mapped_everywhere(box: MountHost) -> None:
    maps = {key: [{"containerID": 0, "hostID": 1000, "size": 100}] for key in IDS}
    assert "owners" in box.complaint([entry("/x", "/proc/sys", "bind", "idmap", **maps)])
    assert "only a bind mount" in box.complaint([entry("/x", "tmpfs", kind="tmpfs", **maps)])


def test_a_user_namespace_mounts_what_its_root_cannot_reach(box: MountHost) -> None:
    """Sources below a directory of mode 0700, the root file system too; devices are the host's."""
    box.run(
        [
            "sh",
            "-ec",
            "mkdir -p /run/secret/deep /run/bundle/rootfs/s; mount --bind /run/bundle/rootfs /run/secret/deep",
        ]
    )
    document = box.document(
        "cat /s/file; stat -c '%F %t,%T' /dev/null; echo on > /dev/full || touch /dev/shm/x; cat /proc/self/mountinfo",
        [
            entry("/s", "/run/secret/data", "rbind", "rshared", "ro"),
            entry("/dev/shm", "shm", "mode=1777", kind="tmpfs"),
        ],
        userns=True,
    )
    document["root"]["path"] = "/run/secret/deep"
    box.write(document)
    told = box.oci("run", "box").splitlines()
    assert told[:2] == ["kept", "character special file 1,3"]
    seen = {line.split()[4]: Seen(line) for line in told[2:]}
    assert seen["/s"].flags == {"ro", "relatime"} and seen["/s"].propagation() == ["shared"]
    assert seen["/dev/null"].kind == "devtmpfs" and seen["/proc"].kind == "proc"
    box.run(["umount", "/run/secret/deep"])


def test_the_hosts_sysfs_where_a_new_one_is_refused(box: MountHost) -> None:
    """In a user namespace with the host's network, whose devices a sysfs would show."""
    box.run(["mkdir", "-p", f"{box.bundle}/rootfs/sys"])
    document = box.document(
        "cat /proc/self/mountinfo", [entry("/sys", "sysfs", "nosuid", "ro", kind="sysfs")], userns=True
    )
    document["linux"]["namespaces"] = [one for one in document["linux"]["namespaces"] if one["type"] != "network"]
    box.write(document)
    seen = {line.split()[4]: Seen(line) for line in box.oci("run", "box").splitlines()}
    below = [target for target in seen if target.startswith("/sys/")]
    assert seen["/sys"].kind == "sysfs" and {"ro", "nosuid"} <= seen["/sys"].flags
    assert all({"ro", "nosuid"} <= seen[target].flags for target in below)


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
