"""What documents of other engines rely on, beyond the letter of the runtime-spec."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.fakehost import TIMEOUT
from tests.runtime.bundles import OCI, SLEEP, RuntimeHost, config


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_filter_need_not_know_the_calls_of_init(box: RuntimeHost, no_new_privileges: bool) -> None:
    young = {"names": ["close_range", "faccessat2", "openat2", "chdir", "getcwd"], "action": "SCMP_ACT_ERRNO"}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [young]}
    document = config(f"{box.cgroup}/c", ["echo", "well"])
    box.configure(
        ["echo", "well"], {"linux": {**document["linux"], "seccomp": profile}}, noNewPrivileges=no_new_privileges
    )
    assert box.oci("run", "box") == "well\n"


def test_a_created_container_holds_only_what_it_waits_on(box: RuntimeHost) -> None:
    box.oci("create", "box")
    descriptors = Path(f"/proc/{box.told()['pid']}/fd")
    targets = {number: os.readlink(descriptors / number) for number in os.listdir(descriptors)}
    held = sorted(os.path.basename(target).partition(":")[0] for n, target in targets.items() if int(n) > 2)
    assert [name.removesuffix(" (deleted)") for name in held] == ["exec.fifo", "failed", "socket"], targets


def test_the_callers_cpus_are_not_the_containers(box: RuntimeHost) -> None:
    bound = ["taskset", "-c", str(min(os.sched_getaffinity(0))), "env", "-C", box.bundle]
    assert box.call(*bound, OCI, "run", "-d", "box").returncode == 0
    assert os.sched_getaffinity(box.told()["pid"]) == os.sched_getaffinity(0)
    masks = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Cpus_allowed:")]
    assert masks[0] in box.call(*bound, OCI, "exec", "box", "cat", "/proc/self/status").stdout


PRIVATE: dict[str, Any] = {"cwd": "/private", "user": {"uid": 1000, "gid": 1000}}


def test_a_working_directory_may_be_the_users_or_only_roots(box: RuntimeHost) -> None:
    directory = box.path(f"{box.bundle}/rootfs/private")
    directory.mkdir(mode=0o700)
    none: dict[str, list[str]] = {"bounding": [], "effective": [], "permitted": []}
    for owner in (0, 1000):
        os.chown(directory, owner, owner)
        box.configure(["pwd"], capabilities=none, **PRIVATE)
        assert box.oci("run", "box") == "/private\n"


def test_unknown_capabilities_are_warned_of_and_left_out(box: RuntimeHost) -> None:
    sets = {"bounding": ["CAP_KILL", "CAP_NEVER"], "inheritable": ["CAP_KILL"], "permitted": ["CAP_KILL", "CAP_CHOWN"]}
    box.configure(["cat", "/proc/self/status"], capabilities={**sets, "ambient": ["CAP_KILL", "CAP_CHOWN"]})
    done = box.call("env", "-C", box.bundle, OCI, "run", "box")
    assert done.returncode == 0, done
    assert "CAP_NEVER" in done.stderr and "can't raise ambient capability CAP_CHOWN: " in done.stderr
    assert "CapAmb:\t0000000000000020\n" in done.stdout


@pytest.mark.parametrize(
    ("environment", "home"),
    [
        (["PATH=/bin"], "/home/ann"),
        (["PATH=/bin", "HOME=/x", "HOME="], "/home/ann"),
        (["PATH=/bin", "HOME=", "HOME=/x"], "/x"),
    ],
)
def test_home_comes_from_the_containers_passwd_if_nobody_sets_it(
    box: RuntimeHost, environment: list[str], home: str
) -> None:
    users = box.path(f"{box.bundle}/rootfs/etc/passwd")
    users.parent.mkdir(exist_ok=True)
    users.write_text("bad\nroot:x:0:0::/root:/bin/sh\nann:x:10:10:Ann:/home/ann:/bin/sh\n")
    box.configure(["env"], env=environment, user={"uid": 10, "gid": 10})
    assert sorted(box.oci("run", "box").splitlines()) == [f"HOME={home}", "PATH=/bin"]


@pytest.mark.parametrize("trap", ["fifo", "directory", "link"])
def test_a_passwd_that_is_a_trap_only_means_the_home_of_nobody(box: RuntimeHost, trap: str) -> None:
    users = box.path(f"{box.bundle}/rootfs/etc/passwd")
    users.parent.mkdir(exist_ok=True)
    users.unlink(missing_ok=True)
    if trap == "fifo":
        os.mkfifo(users)
    elif trap == "directory":
        users.mkdir()
    else:
        users.symlink_to("../../../../../../../etc/passwd")  # the root's own, which is this link
    try:
        box.configure(["env"], user={"uid": 0, "gid": 0})
        assert "HOME=/\n" in box.oci("run", "box")
    finally:
        (users.rmdir if trap == "directory" else users.unlink)()


def test_a_program_whose_interpreter_is_missing_is_not_called_missing_itself(box: RuntimeHost) -> None:
    script = box.path(f"{box.bundle}/rootfs/bin/script")
    script.write_text("#!/no/such\n")
    script.chmod(0o755)
    box.configure(["/bin/script"])
    complaint = box.refused("run", "box", code=127)
    assert "exec /bin/script: no such file or directory; its interpreter" in complaint


def test_kill_all_reaches_whoever_is_left_and_complains_of_nobody(box: RuntimeHost) -> None:
    shared = [{"type": kind} for kind in ("mount", "ipc", "uts", "network")]
    document = config(f"{box.cgroup}/c", [])
    box.configure(SLEEP, {"linux": {**document["linux"], "namespaces": shared}})
    box.oci("run", "-d", "box")
    box.oci("exec", "-d", "--pid-file", "/run/other", "box", *SLEEP)
    other = os.pidfd_open(int(box.path("/run/other").read_text()))
    signal.pidfd_send_signal(first := os.pidfd_open(box.told()["pid"]), signal.SIGKILL)
    assert select.select([first], [], [], TIMEOUT)[0]
    assert "container not running" in box.refused("kill", "box", "TERM")
    box.oci("kill", "box", "KILL")  # the first one is dead, and was not alone
    assert select.select([other], [], [], TIMEOUT)[0]
    os.close(first)
    os.close(other)
    box.oci("kill", "--all", "box", "KILL")


def test_list_prints_its_members_in_the_order_of_other_runtimes(box: RuntimeHost) -> None:
    box.oci("create", "box")
    row = json.loads(box.oci("list", "--format", "json"))[0]
    order = ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner"]
    assert list(row) == order


@pytest.mark.parametrize("verb", ["create", "run", "exec"])
def test_a_pidfd_of_the_process_is_sent_to_whoever_asks(box: RuntimeHost, verb: str) -> None:
    path = box.path("/run/pidfd.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        words = {"create": ["create"], "run": ["run", "-d"], "exec": ["exec", "-d"]}[verb]
        if verb == "exec":
            box.oci("run", "-d", "box")
        asked = ["--pidfd-socket", "/run/pidfd.sock", "--pid-file", "/run/pid"]
        box.oci(*words, *asked, "box", *(SLEEP if verb == "exec" else []))
        connection, _ = listener.accept()
        with connection:
            _, descriptors, _, _ = socket.recv_fds(connection, 100, 1)
    path.unlink()
    told = Path(f"/proc/self/fdinfo/{descriptors[0]}").read_text()
    assert f"\nPid:\t{box.path('/run/pid').read_text()}\n" in told
    os.close(descriptors[0])


def test_nobody_takes_the_pidfd_and_nothing_is_left(box: RuntimeHost) -> None:
    assert "--pidfd-socket /run/none" in box.refused("create", "--pidfd-socket", "/run/none", "box")
    assert box.oci("list", "-q") == ""


def test_the_document_may_have_another_name(box: RuntimeHost) -> None:
    folder = box.path(f"{box.bundle}/other")
    folder.mkdir(exist_ok=True)
    box.configure(["echo", "another"])
    box.path(f"{box.bundle}/config.json").rename(folder / "spec.json")
    assert box.oci("run", "--config", "other/spec.json", "box") == "another\n"
    assert "other/none.json: no such file or directory" in box.refused("run", "-f", "other/none.json", "box")


@pytest.mark.parametrize(("env", "seen"), [({}, "ours ours theirs"), ({"env": []}, "none none none")])
def test_hooks_have_the_variables_of_the_caller_or_of_the_program_unless_they_say_others(
    box: RuntimeHost, env: dict[str, Any], seen: str
) -> None:
    box.path("/run/seen").write_text("")
    shared = {"destination": "/run/seen", "type": "bind", "source": "/run/seen", "options": ["bind"]}
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "echo ${MARK:-none} >> /run/seen"], **env}
    kinds = ("createRuntime", "createContainer", "startContainer")
    mounts = [*config("", SLEEP)["mounts"], shared]
    box.configure(
        SLEEP, {"hooks": {kind: [hook] for kind in kinds}, "mounts": mounts}, env=["PATH=/bin", "MARK=theirs"]
    )
    done = box.call("env", "-C", box.bundle, "MARK=ours", OCI, "run", "-d", "box")
    assert done.returncode == 0, done
    assert box.path("/run/seen").read_text().split() == seen.split()


def test_a_create_container_hook_begins_in_the_root_that_is_being_made(box: RuntimeHost) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "mkdir -p srv && mount -t tmpfs mark srv && touch srv/here"]}
    box.configure(["ls", "/srv"], {"hooks": {"createContainer": [{**hook, "env": ["PATH=/bin:/usr/bin"]}]}})
    assert box.oci("run", "box") == "here\n"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("write", "linux.seccomp.syscalls[0].names: SCMP_ACT_NOTIFY cannot be used for the write syscall"),
        ("mount", "failed to connect with seccomp agent: linux.seccomp.listenerPath /run/no-agent: no such file"),
    ],
)
def test_a_listener_that_cannot_be(box: RuntimeHost, name: str, why: str) -> None:
    rule = {"names": [name], "action": "SCMP_ACT_NOTIFY"}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/no-agent", "syscalls": [rule]}
    document = config(f"{box.cgroup}/c", SLEEP)
    box.configure(SLEEP, {"linux": {**document["linux"], "seccomp": profile}})
    assert why.lower() in box.refused("create", "box").lower()


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_the_filter_binds_start_container_hooks_too(box: RuntimeHost, no_new_privileges: bool) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
    }
    document = config(f"{box.cgroup}/c", SLEEP)
    hook = {"path": "/bin/busybox", "args": ["mkdir", "/made"]}
    change = {"linux": {**document["linux"], "seccomp": profile}, "hooks": {"startContainer": [hook]}}
    box.configure(["true"], change, noNewPrivileges=no_new_privileges)
    assert "Operation not supported" in box.refused("run", "box")


@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_a_created_container_ends_by_what_would_end_a_program(box: RuntimeHost, name: str) -> None:
    box.oci("create", "box")
    first = os.pidfd_open(box.told()["pid"])
    box.oci("kill", "box", name)
    assert select.select([first], [], [], TIMEOUT)[0]
    os.close(first)
    assert box.told()["status"] == "stopped"


def test_a_program_has_no_handler_of_inits(box: RuntimeHost) -> None:
    box.configure(["cat", "/proc/self/status"])
    caught = [line for line in box.oci("run", "box").splitlines() if line.startswith(("SigCgt:", "SigIgn:"))]
    assert [int(line.split()[1], 16) for line in caught] == [0, 0]
