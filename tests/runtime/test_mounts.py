"""The mounts of a bundle: what /proc/self/mountinfo says inside, compared with what the document asked for."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.runtime.mounting import IDS, MountHost, Seen, entry


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
