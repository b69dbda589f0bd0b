"""``run -d`` and what lists, finds, waits for, stops and removes containers."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from tests.lifecycle.machine import MINIRUN, SOON, Machine, open_files, until

SLEEP = ("busybox", "sleep", "600")
TRAP = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.02; done"
DEAF = "trap '' TERM; echo ready; while :; do sleep 600; done"


def ps(host: Machine, *options: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in host.out("ps", "--format", "json", *options).splitlines()]


def test_a_detached_container_in_ps(host: Machine) -> None:
    assert ps(host) == []
    identity = host.out("run", "-d", "--name", "box", "-m", "32m", "--cpus", "0.5", *SLEEP)
    assert re.fullmatch(r"[0-9a-f]{64}", identity)
    (row,) = ps(host)
    assert row["ID"] == identity
    assert (row["Names"], row["Image"], row["Command"], row["State"]) == ("box", "busybox", "sleep 600", "running")
    assert (row["Memory"], row["Cpus"], row["PidsLimit"]) == (32 << 20, 0.5, 2048)
    header, line = host.out("ps").splitlines()
    assert header.split()[:3] == ["CONTAINER", "ID", "IMAGE"]
    for shown in (identity[:12], "sleep 600", "box", "Up", str(row["Pid"]), str(row["IPAddress"])):
        assert shown in line
    assert host.out("ps", "-q") == identity[:12]
    assert host.out("ps", "-q", "--no-trunc") == identity


def test_ended_containers_are_listed_with_a(host: Machine) -> None:
    ended = host.start("busybox", "sh", "-c", "exit 6")
    host.out("wait", ended)
    running = host.start(*SLEEP)
    assert host.out("ps", "-q") == running[:12]
    assert host.out("ps", "-aq").split() == [running[:12], ended[:12]]  # the newest first
    row = ps(host, "-a")[1]
    assert (row["State"], row["Pid"], row["IPAddress"]) == ("exited", 0, "")
    assert str(row["Status"]).startswith("Exited (6)")


def test_a_container_is_found_by_name_id_and_beginning_of_an_id(host: Machine) -> None:
    identity = host.start("--name", "web.1", *SLEEP)
    for reference in ("web.1", identity, identity[:12], identity[:3]):
        assert host.inspect(reference)["Id"] == identity


def test_an_ambiguous_beginning_is_refused(host: Machine) -> None:
    """Seventeen ids: two of them begin with the same digit."""
    identities = [host.start("busybox", "true") for _ in range(17)]
    firsts = [identity[0] for identity in identities]
    twice = next(first for first in firsts if firsts.count(first) > 1)
    assert "ids begin with it" in host.refused("kill", twice)


def test_a_name_is_stronger_than_the_beginning_of_an_id(host: Machine) -> None:
    identity = host.start(*SLEEP)
    other = host.start("--name", identity[:4], *SLEEP)
    assert host.inspect(identity[:4])["Id"] == other


def test_a_name_is_taken_once_and_free_after_rm(host: Machine) -> None:
    identity = host.start("--name", "box", "busybox", "true")
    host.out("wait", "box")
    assert identity[:12] in host.refused("run", "-d", "--name", "box", *SLEEP)
    host.minirun("rm", "box")
    host.start("--name", "box", *SLEEP)


@pytest.mark.parametrize(
    "arguments",
    [("logs",), ("stop",), ("kill",), ("rm",), ("wait",), ("exec", "NAME", "true"), ("stats",)],
    ids=lambda arguments: arguments[0],
)
def test_an_unknown_container(host: Machine, arguments: tuple[str, ...]) -> None:
    words = [*arguments[:1], "nobody", *arguments[2:]]
    assert "no such container" in host.refused(*words)


def test_inspect_is_in_dockers_shape(host: Machine) -> None:
    identity = host.out(
        "run", "-d", "--name", "box", "-p", "8080:80", "-v", "/etc:/outside:ro", "-e", "A=b", "-l", "k=v", *SLEEP
    )
    script = " ".join(MINIRUN)
    found = host.run(["sh", "-c", f"{script} inspect $({script} ps -q) | grep 'IPAddress\\|Id'"]).stdout
    assert f'"Id": "{identity}"' in found
    assert re.search(r'"IPAddress": "10\.201\.0\.\d+"', found)
    shown = host.inspect("box")
    assert shown["State"]["Running"] and shown["State"]["Status"] == "running" and shown["State"]["Pid"] > 0
    assert (shown["Name"], shown["Path"], shown["Args"]) == ("box", "sleep", ["600"])
    assert shown["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}
    assert shown["Mounts"] == [{"Type": "bind", "Source": "/etc", "Destination": "/outside", "RW": False}]
    assert "A=b" in shown["Config"]["Env"] and shown["Config"]["Labels"]["k"] == "v"
    assert shown["NetworkSettings"]["Gateway"] == "10.201.0.1"
    assert shown["Created"] <= shown["State"]["StartedAt"]


def test_inspect_of_an_ended_container(host: Machine) -> None:
    name = host.start("busybox", "sh", "-c", "exit 9")
    host.out("wait", name)
    state = host.inspect(name)["State"]
    assert (state["Status"], state["Running"], state["Pid"], state["ExitCode"]) == ("exited", False, 0, 9)
    assert host.inspect(name)["Created"] <= state["FinishedAt"] < "3"


def test_inspect_goes_on_after_an_error(host: Machine) -> None:
    name = host.start(*SLEEP)
    done = host.minirun("inspect", "nobody", name, check=False)
    assert done.returncode == 125 and "nobody" in done.stderr
    assert json.loads(done.stdout)[0]["Id"] == name


def test_wait_before_and_after_the_end(host: Machine) -> None:
    host.ready("box", TRAP)
    waiter = host.spawn("wait", "box")
    host.minirun("kill", "-s", "TERM", "box")
    assert waiter.communicate(timeout=SOON)[0] == "3\n"
    assert host.out("wait", "box", "box") == "3\n3"


def test_wait_for_a_container_that_removes_itself(host: Machine) -> None:
    host.ready("box", TRAP, "--rm")
    waiter = host.spawn("wait", "box")
    until(lambda: is_waiting(waiter.pid), "wait has found the container")
    host.minirun("kill", "-s", "TERM", "box")
    assert waiter.communicate(timeout=SOON) == ("3\n", "")


def is_waiting(pid: int) -> bool:
    """Whether a process has opened the lock, or a socket, of a container."""
    return any("/locks/" in target or "socket" in target for target in open_files(pid))


def test_stop_with_a_handler(host: Machine) -> None:
    host.ready("box", TRAP)
    assert host.out("stop", "box") == "box"
    assert host.inspect("box")["State"]["ExitCode"] == 3
    assert host.out("logs", "box").endswith("bye")


def test_stop_kills_what_does_not_listen(host: Machine) -> None:
    host.ready("box", DEAF)
    host.minirun("stop", "-t", "0", "box")
    assert host.inspect("box")["State"]["ExitCode"] == 137


def test_the_time_to_stop_is_the_containers_own(host: Machine) -> None:
    host.ready("box", DEAF, "--stop-timeout", "1")
    host.minirun("stop", "box", timeout=9)  # the default would be ten seconds
    assert host.inspect("box")["State"]["ExitCode"] == 137


def test_the_signal_to_stop_is_the_containers_own(host: Machine) -> None:
    host.ready("box", "trap 'exit 8' USR1; echo ready; while :; do sleep 0.02; done", "--stop-signal", "USR1")
    host.minirun("stop", "box")
    assert host.inspect("box")["State"]["ExitCode"] == 8


def test_stop_of_what_has_ended_is_no_error(host: Machine) -> None:
    name = host.start("busybox", "true")
    host.out("wait", name)
    assert host.out("stop", name) == name


def test_kill_sends_any_signal_and_does_not_wait(host: Machine) -> None:
    script = "trap 'echo usr1' USR1; trap 'exit 5' TERM; echo ready; while :; do sleep 0.02; done"
    host.ready("box", script)
    follower = host.spawn("logs", "-f", "box")
    assert follower.stdout and follower.stdout.readline() == "ready\n"
    for name in ("USR1", "SIGUSR1", "sigusr1", "10"):
        host.minirun("kill", "-s", name, "box")
        assert follower.stdout.readline() == "usr1\n"
    host.minirun("kill", "--signal=15", "box")
    assert follower.communicate(timeout=SOON) == ("", "")
    assert host.out("wait", "box") == "5"
    assert "not running" in host.refused("kill", "box")


def test_rm_wants_force_for_what_runs(host: Machine) -> None:
    name = host.start("--name", "box", *SLEEP)
    assert "minirun stop box" in host.refused("rm", "box")
    assert host.out("rm", "-f", "box") == "box"
    assert host.out("ps", "-aq") == ""
    assert "no such container" in host.refused("rm", name)
    assert host.out("rm", "-f", "box", name) == ""  # what is not there need not be removed


def test_rm_goes_on_after_an_error(host: Machine) -> None:
    name = host.start("busybox", "true")
    host.out("wait", name)
    done = host.minirun("rm", "nobody", name, check=False)
    assert (done.returncode, done.stdout) == (125, f"{name}\n")


def test_a_detached_container_can_remove_itself(host: Machine) -> None:
    host.start("--rm", "--name", "box", "busybox", "true")
    host.settle()
    host.clean()


def test_an_ended_container_keeps_only_its_disk(host: Machine) -> None:
    """No namespace, cgroup, address or process is left of it; its files and its log are."""
    identity = host.out("run", "-d", "--name", "box", "-p", "8080:80", "busybox", "sh", "-c", "echo text > /file")
    host.out("wait", "box")
    host.settle()
    until(lambda: not any(name.startswith("mr") for name in host.leftovers()), "the end of the cable")
    assert host.leftovers() == [
        str(host.path(f"{host.root}/{left}")) for left in (f"containers/{identity}", "names/box")
    ]
    assert host.path(f"{host.root}/containers/{identity}/upper/file").read_text() == "text\n"


def test_stats_shows_use_and_limits(host: Machine) -> None:
    assert host.out("stats").count("\n") == 0
    host.start("--name", "box", "-m", "48m", "--cpus", "0.5", "--pids-limit", "7", *SLEEP)
    header, line = host.out("stats").splitlines()
    assert "MEM USAGE / LIMIT" in header
    assert "/ 48MiB" in line and "1 / 7" in line and " 0.5 " in line
    (row,) = [json.loads(text) for text in host.out("stats", "--no-stream", "--format", "json", "box").splitlines()]
    assert row["Name"] == "box" and row["PIDs"] == "1 / 7"
    host.minirun("kill", "box")
    host.out("wait", "box")
    assert host.out("stats").count("\n") == 0


def test_images_and_image_inspect(host: Machine) -> None:
    rows = [json.loads(line) for line in host.out("images", "--format", "json").splitlines()]
    assert {"docker.io/library/busybox", "docker.io/library/alpine"} <= {row["Repository"] for row in rows}
    table = host.out("images").splitlines()
    assert table[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"] and len(table) == len(rows) + 1
    short = host.out("images", "-q", "busybox")
    assert re.fullmatch(r"[0-9a-f]{12}", short)
    (image,) = json.loads(host.out("image", "inspect", "busybox"))
    assert image["Id"].startswith(f"sha256:{short}") and image["Config"]["Cmd"] == ["sh"]
    assert host.out("run", "--rm", "--net", "none", short, "echo", "by id") == "by id"


def test_an_image_in_use_is_not_removed(host: Machine) -> None:
    host.start("--name", "box", *SLEEP)
    assert "in use" in host.refused("image", "rm", "busybox")


def test_the_network_of_a_container_shows_it(host: Machine) -> None:
    host.out("run", "-d", "--name", "box", *SLEEP)
    address = host.inspect("box")["NetworkSettings"]["IPAddress"]
    assert address in host.out("network", "inspect", "br0")
    assert "br0" in host.out("network", "ls")
    assert (
        host.run(["ip", "netns", "exec", "box", "ip", "-br", "addr", "show", "eth0"]).stdout.count(f"{address}/20") == 1
    )


def test_two_removals_at_once(host: Machine) -> None:
    name = host.start(*SLEEP)
    both = [host.spawn("rm", "-f", name, stdout=subprocess.PIPE) for _ in range(2)]
    for command in both:
        _, errors = command.communicate(timeout=SOON)
        assert "internal error" not in errors and command.returncode in (0, 125), errors
    assert host.out("ps", "-aq") == ""
