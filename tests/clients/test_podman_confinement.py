"""What podman asks a runtime to keep a container in: namespaces, limits, devices, masks; and who is told: hooks."""

from __future__ import annotations

import json
import os

import pytest

from tests.clients.podman import IMAGE, Podman
from tests.lifecycle.machine import until

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
MIB = 1 << 20


def namespaces(podman: Podman, identity: str) -> dict[str, str]:
    """The namespaces of a container's first process."""
    pid = podman.inspect(identity)["State"]["Pid"]
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in NAMESPACES}


def test_namespaces_of_its_own_of_the_host_and_of_another(podman: Podman) -> None:
    host = {kind: os.readlink(f"/proc/{podman.pid}/ns/{kind}") for kind in NAMESPACES}
    own = podman.start("ready; exec sleep 1000", "--name=own", "--ipc=shareable", "--cgroupns=private")
    shared = "--uts=host --ipc=host --pid=host --network=host --cgroupns=host"
    open_ = podman.start("ready; exec sleep 1000", *shared.split())
    joined = [f"--{kind}=container:own" for kind in ("ipc", "pid", "network", "uts")]
    guest = podman.start("ready; ps >/signals/ps; ls -ld /proc/1 >/signals/ls; exec sleep 1000", *joined)
    assert not set(namespaces(podman, own).values()) & set(host.values())
    seen = namespaces(podman, open_)
    assert {kind for kind in NAMESPACES if seen[kind] == host[kind]} == set(NAMESPACES) - {"mnt"}
    seen, of_own = namespaces(podman, guest), namespaces(podman, own)
    assert {kind for kind in NAMESPACES if seen[kind] == of_own[kind]} == {"ipc", "net", "pid", "uts"}
    assert "sleep 1000" in podman.said("ps")
    podman.do("rm", "-f", "-t0", guest)
    assert podman.inspect("own")["State"]["Running"]


def test_user_namespaces(podman: Podman) -> None:
    podman.write("/run/test/owned/theirs", "")
    podman.run(["chown", "100005:200006", "/run/test/owned/theirs"])
    maps = ["--uidmap=0:100000:2000", "--gidmap=0:200000:2000", "-v=/run/test/owned:/owned"]
    script = "cat /proc/self/uid_map /proc/self/gid_map; stat -c %u:%g /owned/theirs /; touch /owned/mine; id -u"
    lines = [line.split() for line in podman.sh(script, *maps).splitlines()]
    assert lines[:2] == [["0", "100000", "2000"], ["0", "200000", "2000"]]
    assert lines[2:] == [["5:6"], ["0:0"], ["0"]]
    identity = podman.start("ready; exec sleep 1000", "--uidmap=0:100000:2000", "--user=alice")
    assert os.stat(f"/proc/{podman.inspect(identity)['State']['Pid']}").st_uid == 101000
    assert podman.out("exec", identity, "id", "-u") == "1000"
    assert podman.out("exec", "--user=0", identity, "cat", "/proc/self/uid_map").split() == ["0", "100000", "2000"]


def test_user_namespaces_that_podman_chooses(podman: Podman) -> None:
    for file in ("/etc/subuid", "/etc/subgid"):
        podman.write(file, "containers:300000:200000\n")
    script = "cat /proc/self/uid_map; stat -c %u:%g /bin/busybox; touch /new && id -u"
    maps = [podman.sh(script, "--userns=auto:size=3000").split() for _ in range(2)]
    assert maps == [["0", "300000", "3000", "0:0", "0"]] * 2
    kept = podman.start("ready; exec sleep 1000", "--userns=auto:size=3000")
    assert podman.sh(script, "--userns=auto:size=3000").split()[:3] == ["0", "303000", "3000"]
    assert podman.sh(script, f"--userns=container:{kept}").split()[:3] == ["0", "300000", "3000"]


@pytest.mark.control
def test_limits_reach_the_cgroup_and_change(podman: Podman) -> None:
    limits = "--memory=64m --memory-reservation=32m --pids-limit=50 --cpus=0.5 --cpu-shares=512 --cpuset-cpus=0"
    identity = podman.start("ready; exec sleep 1000", "--name=limited", *limits.split())
    places = {
        "memory.limit_in_bytes": "memory",
        "memory.soft_limit_in_bytes": "memory",
        "pids.max": "pids",
        "cpu.cfs_quota_us": "cpu",
        "cpu.cfs_period_us": "cpu",
        "cpu.shares": "cpu",
        "cpuset.cpus": "cpuset",
    }

    def found() -> list[str]:
        return [podman.limit(identity, controller, file) for file, controller in places.items()]

    assert found() == [str(64 * MIB), str(32 * MIB), "50", "50000", "100000", "512", "0"]
    podman.do("update", "--memory=48m", "--memory-reservation=16m", "--cpu-quota=20000", "--cpu-shares=256", "limited")
    assert found() == [str(48 * MIB), str(16 * MIB), "50", "20000", "100000", "256", "0"]
    assert podman.out("stats", "--no-stream", "--format={{.PIDs}}", "limited") == "1"
    assert podman.out("exec", "limited", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes") == str(48 * MIB)


def test_out_of_memory(podman: Podman) -> None:
    # tail keeps what it reads until the end of its input, which does not come
    done = podman.do("run", "--name=big", "--memory=16m", "--memory-swap=16m", IMAGE, "tail", "/dev/zero", check=False)
    assert done.returncode == 137
    state = podman.inspect("big")["State"]
    assert (state["ExitCode"], state["Status"]) == (137, "exited")


def test_devices(podman: Podman) -> None:
    script = """
        ls -l /dev | tr -s ' ' | cut -d ' ' -f 1,5-6,10-; echo a >/dev/null; head -c 3 /dev/other | od -An -tx1
        mknod /tmp/k c 1 11 && head -c 0 /tmp/k; mknod /tmp/z c 1 5 && head -c 1 /tmp/z | od -An -tx1
    """
    options = ["--device=/dev/zero:/dev/other:r", "--cap-add=MKNOD"]
    done = podman.do("run", "--rm", *options, IMAGE, "sh", "-c", script)
    listed = {line.split()[-1]: line.split()[0][0] for line in done.stdout.splitlines() if line[0] in "crwdlb"}
    assert {name for name in ("null", "zero", "full", "random", "urandom", "tty", "other") if listed[name] == "c"}
    assert done.stdout.count(" 00") >= 2
    assert "Operation not permitted" in done.stderr and "/tmp/k" in done.stderr and "/tmp/z" not in done.stderr
    identity = podman.start("ready; exec sleep 1000", "--device-cgroup-rule=c 42:* rwm")
    assert "c 42:* rwm" in podman.limit(identity, "devices", "devices.list").splitlines()


def test_masks_and_their_absence(podman: Podman) -> None:
    script = "head -c 1 /proc/kcore | wc -c; ls /sys/firmware | wc -l; echo 1 >/proc/sys/vm/drop_caches && echo written"
    done = podman.do("run", "--rm", IMAGE, "sh", "-c", script, check=False)
    assert done.stdout.split() == ["0", "0"] and "Read-only file system" in done.stderr
    masks = "grep -E ' /(proc|sys)/' /proc/mounts | grep -vc ' /sys/fs/cgroup' || :"
    assert int(podman.sh(masks)) > 5
    assert podman.sh(masks, "--security-opt=unmask=ALL") == "0"
    mine = podman.sh("ls /sys/kernel; grep ' /sys/kernel ' /proc/mounts", "--security-opt=mask=/sys/kernel")
    assert mine.split()[:3] == ["tmpfs", "/sys/kernel", "tmpfs"]


def test_privileged(podman: Podman) -> None:
    script = """
        grep -E 'CapEff|Seccomp:' /proc/self/status; mount -t tmpfs none /tmp && echo mounted
        ls /dev/loop-control; grep -c ' /proc/[^ ]* ' /proc/mounts
    """
    lines = podman.do("run", "--rm", "--privileged", IMAGE, "sh", "-c", script, check=False).stdout.split()
    bounding = int(open("/proc/self/status").read().split("CapBnd:")[1].split()[0], 16)
    assert lines[0] == "CapEff:" and int(lines[1], 16) == bounding
    assert lines[2:5] == ["Seccomp:", "0", "mounted"] and lines[-1] == "0"
    assert ("/dev/loop-control" in lines) == os.path.exists("/dev/loop-control")


def test_hooks_at_their_times(podman: Podman) -> None:
    stages = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    log = "/run/test/hooks/log"
    note = '#!/bin/busybox sh\nread -r state\necho "$1 $state" >>"$2"\n'
    podman.write("/run/test/hooks/note", note)
    podman.run(["chmod", "755", "/run/test/hooks/note"])
    for stage in stages:
        hook = {"path": "/run/test/hooks/note", "args": ["note", stage, log], "timeout": 20}
        content = {"version": "1.0.0", "hook": hook, "when": {"always": True}, "stages": [stage]}
        podman.write(f"/run/test/hooks.d/{stage}.json", json.dumps(content))
    # startContainer runs inside, so the program and the log are there too
    identity = podman.start(
        "ready; exec sleep 1000",
        "-v=/run/test/hooks:/run/test/hooks",
        "--annotation=a=b",
        "--hooks-dir=/run/test/hooks.d",
    )
    path = podman.path(log)
    until(lambda: path.read_text().count("\n") == 5, "five hooks")
    podman.do("rm", "-f", "-t0", identity)
    until(lambda: path.read_text().count("\n") == 6, "six hooks")
    notes = [line.split(" ", 1) for line in path.read_text().splitlines()]
    names = [name for name, _ in notes]
    assert (set(names), names[:3], names[-1]) == (set(stages), list(stages[:3]), stages[-1])
    assert names == list(stages) or podman.runtime == "runc"  # which does not wait for startContainer before poststart
    states = {name: json.loads(text) for name, text in notes}
    assert states["poststop"]["status"] == "stopped"
    assert states["poststart"]["status"] == "running" or podman.runtime == "runc"  # which says "created"
    for state in states.values():
        assert state["id"] == identity and os.path.basename(state["bundle"]) == "userdata"
        assert state["annotations"]["a"] == "b" and state["ociVersion"].startswith("1.")
    assert all(state["pid"] > 0 for name, state in states.items() if name != "poststop")


def test_a_hook_that_fails_stops_the_start(podman: Podman) -> None:
    hook = {"path": "/bin/false", "args": ["false"]}
    content = {"version": "1.0.0", "hook": hook, "when": {"always": True}, "stages": ["createRuntime"]}
    podman.write("/run/test/bad.d/bad.json", json.dumps(content))
    done = podman.do("run", "--rm", "--hooks-dir=/run/test/bad.d", IMAGE, "echo", "never", check=False)
    assert done.returncode in (126, 127) and done.stdout == "" and "hook" in done.stderr


def test_an_init_and_a_secret(podman: Podman) -> None:
    podman.do("secret", "create", "word", "-", stdin="hush")
    script = "cat /proc/1/comm; cat /run/secrets/word; stat -c %a /run/secrets/word"
    try:
        shown = podman.sh(script, "--init", "--secret=word,mode=0400")
    finally:
        podman.do("secret", "rm", "word")
    assert shown.split() == ["podman-init", "hush400"]
