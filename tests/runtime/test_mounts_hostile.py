"""Bundles whose root file system was made by an enemy: no mount and no file leaves it, none undoes a mask (E03-E11).

The canary is a directory of the host's: nothing may be mounted on it or made in it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pytest

from tests.fakehost import REPOSITORY
from tests.runtime.mounting import MountHost, Seen, entry

INIT = str(REPOSITORY / "minirun/libexec/minirun-init")
CANARY = "/run/canary"
ROUNDS, MOUNTS = 40, 6

# Swaps a directory and a link, as fast as it can, until standard input ends; tells how often.
EXCHANGE = """
import ctypes, select
libc = ctypes.CDLL(None, use_errno=True)
print("ready", flush=True)
swaps = 0
while not select.select([0], [], [], 0)[0]:
    for _ in range(100):
        swaps += libc.renameat2(-100, b"/run/shared/a", -100, b"/run/shared/b", 2) == 0
print(swaps)
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[MountHost]:
    made = MountHost()
    inside = " ".join(f"{CANARY}/{number}/deep" for number in range(MOUNTS))
    made.run(["sh", "-ec", f"mkdir -p {inside} {CANARY}/sys {CANARY}/ptmx; echo secret > {CANARY}/file"])
    yield made
    made.close()


@pytest.fixture
def image(box: MountHost) -> Iterator[MountHost]:
    """The host with the root file system as it was; the canary must be as it was, too."""
    look = [
        "sh",
        "-c",
        f"find {CANARY} -exec stat -c '%n %F %i %Y %Z %h' {{}} + | sort; grep {CANARY} /proc/self/mountinfo",
    ]
    before = box.run(look, check=False).stdout
    box.run(["cp", "-a", f"{box.bundle}/rootfs", "/run/saved"])
    yield box
    box.run(["sh", "-ec", f"rm -rf {box.bundle}/rootfs; mv /run/saved {box.bundle}/rootfs"])
    assert box.run(look, check=False).stdout == before


@contextlib.contextmanager
def exchanging(host: MountHost) -> Iterator[None]:
    racer = host.popen([sys.executable, "-c", EXCHANGE], stdin=-1)
    assert racer.stdout and racer.stdout.readline() == "ready\n"
    yield
    assert int(racer.communicate(timeout=20)[0]) > 0


@pytest.mark.parametrize("link", [CANARY, "../../../../../../run/canary", "/proc/1/root/run/canary", "missing/../../x"])
def test_e03_targets_that_change_while_they_are_mounted_on(image: MountHost, link: str) -> None:
    """Hundreds of mounts below a name that is a directory and a link in turns, in a volume that somebody else has."""
    image.run(["sh", "-ec", f"rm -rf /run/shared; mkdir -p /run/shared/a; ln -s {link} /run/shared/b"])
    root = f"{image.bundle}/rootfs"
    words = ["propagation", "rprivate", "root", root, "mount", "/run/shared", "/v", "none", "bind"]
    for number in range(MOUNTS):
        words += ["mount", "hostile", f"/v/a/{number}/deep", "tmpfs", "size=4k"]
        words += ["mount", "/run/src/file", f"/v/a/{number}/file", "none", "bind"]
    script = f'for n in $(seq {ROUNDS}); do unshare -m "$@" -- /bin/cat /proc/self/mountinfo; done; true'
    with exchanging(image):
        done = image.run(["sh", "-c", script, "sh", INIT, *words])
    ours = [
        line.split()[4] for line in done.stdout.splitlines() if " - tmpfs hostile " in line or " /src/file " in line
    ]
    assert [target for target in ours if not target.startswith(f"{root}/")] == []
    assert all(line.startswith("minirun-init: op ") and "(mount)" in line for line in done.stderr.splitlines())


def test_e03_control_a_mount_by_name_follows_the_link(image: MountHost) -> None:
    image.run(["sh", "-ec", f"mkdir -p {image.bundle}/rootfs/v; ln -s {CANARY} {image.bundle}/rootfs/v/a"])
    script = f"mount -t tmpfs tmpfs {image.bundle}/rootfs/v/a/sys; cat /proc/self/mountinfo"
    told = image.run(["unshare", "-m", "sh", "-ec", script]).stdout
    assert any(line.split()[4] == f"{CANARY}/sys" for line in told.splitlines())


@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
@pytest.mark.parametrize("link", [CANARY, "../../../canary", "etc"])
def test_e05_e06_what_must_be_a_real_directory_may_be_no_link(image: MountHost, name: str, link: str) -> None:
    """As the image has it: device nodes, procfs and its masks would go where the image wants."""
    image.run(["sh", "-ec", f"cd {image.bundle}/rootfs; mkdir -p etc; rm -rf {name}; ln -s {link} {name}"])
    complaint = image.complaint([entry("/sys", "sysfs", kind="sysfs")])
    assert f"on '/{name}'" in complaint and "symbolic link" in complaint


@pytest.mark.parametrize("mounted", [[], [entry("/dev", "tmpfs", "mode=755", kind="tmpfs")]])
def test_e06_links_in_a_dev_of_the_image(image: MountHost, mounted: list[dict[str, object]]) -> None:
    """Without a mount on /dev the nodes are made in the image's; with one, over what it has there."""
    image.run(
        [
            "sh",
            "-ec",
            f"cd {image.bundle}/rootfs; rm -rf dev; mkdir dev; ln -s {CANARY}/x dev/null; ln -s {CANARY} dev/pts",
        ]
    )
    document = image.document("ls -l /dev/null", [])
    document["mounts"] = [document["mounts"][0], *mounted]
    image.write(document)
    if mounted:
        assert image.oci("run", "box").startswith("crw-rw-rw-")
    else:
        assert "node /dev/null" in image.refused("run", "box")


@pytest.mark.parametrize("link", ["/proc/sys", "/proc", "../proc/sys/kernel", "/proc/self/root/proc/sys"])
def test_e11_no_link_leads_a_mount_onto_procfs(image: MountHost, link: str) -> None:
    """A volume there would undo masks and read-only paths."""
    image.run(["sh", "-ec", f"cd {image.bundle}/rootfs; ln -s {link} v"])
    for mount in (entry("/v", "/run/src", "bind"), entry("/v", "tmpfs", kind="tmpfs")):
        assert "mount of" in image.complaint([mount])


def test_e07_i04_what_is_made_for_mounts_is_made_inside(image: MountHost) -> None:
    image.run(
        [
            "sh",
            "-ec",
            f"cd {image.bundle}/rootfs; ln -s {CANARY} abs; ln -s ../../../../../../run/canary rel; ln -s loop loop",
        ]
    )
    mounts = [
        entry("/abs/new/dir", "tmpfs", "size=4k", kind="tmpfs"),
        entry("/rel/new/file", "/run/src/file", "bind"),
        entry("/abs/direct", "/run/src/file", "bind"),
    ]
    document = image.document("cat /run/canary/new/file /run/canary/direct; cat /proc/self/mountinfo", mounts)
    document["process"]["cwd"] = "/rel/work/dir"
    image.write(document)
    told = image.oci("run", "box").splitlines()
    assert told[:2] == ["text", "text"]
    assert {"/run/canary/new/dir", "/run/canary/new/file", "/run/canary/direct"} <= {
        line.split()[4] for line in told[2:]
    }
    assert "'/loop/x'" in image.complaint([entry("/loop/x", "/run/src/file", "bind")])


def test_e05_masks_stand_where_the_kernel_has_the_file(image: MountHost) -> None:
    """Also if the image's own /dev/null is not the real one, and with a link of the image among the names."""
    image.run(["sh", "-ec", f"cd {image.bundle}/rootfs; mkdir -p dev; echo fake > dev/null; ln -s {CANARY} masked"])
    script = "cat /proc/version; echo 1 > /proc/sys/kernel/core_pattern; cat /proc/self/mountinfo"
    document = image.document(
        script, [], maskedPaths=["/proc/version", "/masked"], readonlyPaths=["/proc/sys", "/masked"]
    )
    image.write(document)
    lines = image.oci("run", "box").splitlines()
    seen = {line.split()[4]: Seen(line) for line in lines}
    assert seen["/proc/version"].root == "/null" and seen["/proc/version"].kind == "devtmpfs"
    assert "ro" in seen["/proc/sys"].flags and CANARY not in seen


def test_e08_a_container_cannot_make_the_hosts_cgroups_its_own(image: MountHost) -> None:
    """Not by the mount that it has, which is read-only, nor by a new one of its own."""
    script = """
        find /sys/fs/cgroup -type f -name 'release_agent' | grep . || echo none
        find /sys/fs/cgroup -name cgroup.procs | while read file; do (echo 0 > $file) 2> /dev/null && echo moved; done
        echo end
    """
    cgroup = entry("/sys/fs/cgroup", "cgroup", "ro", kind="cgroup")
    document = image.document(script, [entry("/sys", "sysfs", kind="sysfs"), cgroup])
    document["linux"]["namespaces"].append({"type": "cgroup"})
    image.write(document)
    assert image.oci("run", "box").split() == ["none", "end"]
