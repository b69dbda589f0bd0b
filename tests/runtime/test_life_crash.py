"""kill -9 of a command at many moments: the next commands find nothing left that they do not take away.

strace(1) makes the moments exact: it delivers SIGKILL on entering the N-th call of a kind, before the call is done.
"""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.lifecycle.machine import until
from tests.runtime.bundles import OCI, SLEEP, RuntimeHost, config, one_line

SLOW = ("--root", "/run/../run/minirun/oci")  # such a path is left to Python by the front in C
CHANGING = (
    "mkdir|mknod|mknodat|rename|link|linkat|symlink|unlink|unlinkat|rmdir|write|sendmsg|recvmsg|flock|setxattr|fsetxattr"
    "|memfd_create|socketpair|vfork|clone|clone3|wait4|poll|pidfd_send_signal|execve|close_range|getxattr|fgetxattr"
)
MOMENTS = {"create": 12, "start": 5, "slow start": 4, "delete": 6, "slow delete": 6, "exec": 5, "pause": 4}
OF_INIT = [
    "pivot_root",
    "setresuid",
    "capset",
    "setsid",
    "clone3",
]  # calls that only init makes, or first


def ready(box: RuntimeHost, verb: str) -> None:
    """Bring the container into the state that ``verb`` needs."""
    if verb == "create":
        return
    box.oci("create", "box")
    if verb.endswith("delete"):
        box.ended()
    elif not verb.endswith("start"):
        box.oci("start", "box")


def command(verb: str) -> list[str]:
    *slow, name = verb.split()
    return [OCI, *(SLOW if slow else ()), name, "box", *(["true"] if name == "exec" else [])]


def traced(box: RuntimeHost, verb: str) -> list[str]:
    """The names of the changing calls of a command, in their order."""
    ready(box, verb)
    box.call("env", "-C", box.bundle, "strace", f"--trace=/^({CHANGING})$", "--output=/run/trace", *command(verb))
    lines = box.path("/run/trace").read_text()
    box.path("/run/trace").unlink()
    box.oci("delete", "--force", "box")
    assert box.leftovers() == []
    return re.findall(r"^(\w+)\(", lines, re.MULTILINE)


def killed(box: RuntimeHost, verb: str, calls: list[str], position: int) -> bool:
    """Run a command up to this call of its; whether it came so far."""
    call = calls[position]
    number = calls[: position + 1].count(call)
    inject = [f"--inject={call}:signal=KILL:when={number}", f"--trace={call}", "--output=/dev/null"]
    done = box.call("env", "-C", box.bundle, "strace", *inject, *command(verb))
    return done.returncode == -signal.SIGKILL


def nothing_left(box: RuntimeHost, before: list[str]) -> None:
    """What is there is a container, or the next create takes it away; and the container is deleted in any case."""
    box.oci("create", "--bundle", "/run/other", "other")
    box.oci("delete", "other")
    if box.leftovers():
        box.told()
    box.oci("delete", "--force", "box")
    until(lambda: box.leftovers() == [], "nothing left")
    assert mounts(box) == before


def mounts(box: RuntimeHost) -> list[str]:
    return Path(f"/proc/{box.pid}/mountinfo").read_text().splitlines()


@pytest.fixture
def elsewhere(box: RuntimeHost) -> RuntimeHost:
    """The host, with a second bundle whose container shares nothing with that of the first."""
    other = config(f"{box.cgroup}/other", SLEEP) | {"root": {"path": f"{box.bundle}/rootfs"}}
    box.path("/run/other").mkdir(exist_ok=True)
    box.path("/run/other/config.json").write_text(json.dumps(other))
    return box


@pytest.mark.parametrize("verb", MOMENTS)
def test_the_command_is_killed(elsewhere: RuntimeHost, verb: str) -> None:
    before = mounts(elsewhere)
    calls = traced(elsewhere, verb)
    count = int(os.environ.get("MINIRUN_TEST_MOMENTS", MOMENTS[verb]))
    moments = {round(number * (len(calls) - 1) / (count - 1)) for number in range(count)}
    reached = 0
    for position in sorted(moments):
        ready(elsewhere, verb)
        reached += killed(elsewhere, verb, calls, position)
        nothing_left(elsewhere, before)
    assert reached >= len(moments) / 2  # some directories are made only the first time


@pytest.mark.parametrize("call", OF_INIT)
def test_init_is_killed(elsewhere: RuntimeHost, call: str) -> None:
    """In a user namespace, where several processes make one."""
    before = mounts(elsewhere)
    linux = config(f"{elsewhere.cgroup}/c", SLEEP)["linux"]
    linux["namespaces"].append({"type": "user"})
    for kind in ("uid", "gid"):
        linux[f"{kind}Mappings"] = [{"containerID": 0, "hostID": 0, "size": 1000}]
    elsewhere.configure(SLEEP, {"linux": linux})
    inject = [f"--inject={call}:signal=KILL:when=1", f"--trace={call}", "--output=/dev/null", "--follow-forks"]
    done = elsewhere.call("env", "-C", elsewhere.bundle, "strace", *inject, *command("create"))
    assert done.returncode in (1, -signal.SIGKILL), done
    if done.returncode == 1:
        one_line(done.stderr)
    nothing_left(elsewhere, before)
