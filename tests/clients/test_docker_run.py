"""``docker run``: what dockerd, by containerd and its shim, asks of a runtime."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.clients.docker import IMAGE, Docker
from tests.lifecycle.machine import SOON, until
from tests.lifecycle.terminal import terminal

MIB = 1 << 20
SERVER = "ready; exec nc -ll -p 80 -e echo"


def has_all_capabilities() -> bool:
    """Whether root has here all that the kernel knows."""
    bounding = Path("/proc/self/status").read_text().split("CapBnd:")[1].split()[0]
    return int(bounding, 16) == (2 << int(Path("/proc/sys/kernel/cap_last_cap").read_text())) - 1


def test_docker_knows_the_runtime(docker: Docker) -> None:
    information = json.loads(docker.out("info", "--format={{json .}}"))
    assert docker.runtime in information["Runtimes"]
    docker.start("ready; exec sleep 1000", "--name=box")
    assert docker.inspect("box")["HostConfig"]["Runtime"] == docker.runtime


@pytest.mark.control
def test_exit_codes_and_streams(docker: Docker) -> None:
    done = docker.do("run", "--rm", "-i", IMAGE, "sh", "-c", "cat; echo bad >&2; exit 7", check=False, stdin="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "in\n", "bad\n")
    docker.refused(137, "run", "--rm", "--pid=host", IMAGE, "sh", "-c", "kill -9 $$")
    assert docker.sh("seq 50000").split() == [str(number) for number in range(1, 50001)]
    assert "no-such" in docker.refused(127, "run", "--rm", IMAGE, "no-such")
    assert "no such file or directory" in docker.refused(127, "run", "--rm", IMAGE, "/bin/no-such")
    assert "permission denied" in docker.refused(126, "run", "--rm", IMAGE, "/work/text")
    docker.refused(125, "run", "--rm", "--no-such-option", IMAGE, "true")


def test_a_terminal(docker: Docker) -> None:
    with terminal(33, 77) as screen:
        command = screen.run(docker, "run", "--rm", "-it", IMAGE, "sh")  # type: ignore[arg-type]
        screen.expect(r"# ")
        screen.type("tty; until stty size | grep '33 77'; do :; done; ls -l /proc/self/fd/0\n")
        screen.expect(r"/dev/pts/0\r\n33 77\r\n.* -> /dev/pts/0")
        screen.resize(44, 88)
        screen.type("until stty size | grep 44; do :; done\n")
        screen.expect(r"\n44 88")
        screen.type("exit 3\n")
        assert command.wait(SOON) == 3


@pytest.mark.control
def test_what_the_program_is_and_sees(docker: Docker) -> None:
    docker.write("/run/test/shared/text", "from the host\n")
    script = """
        id; pwd; hostname; echo $COLOUR; ulimit -n; cat /proc/sys/kernel/msgmax /rw/text
        echo no >/ro/new; echo no >/bin/new; echo yes >/scratch/new && cat /scratch/new; echo changed >/rw/new
        grep -E 'CapEff|Seccomp:|NoNewPrivs' /proc/self/status
    """
    options = """
        --user=1000:50 --workdir=/work --hostname=box --env=COLOUR=blue --ulimit=nofile=100:200
        --sysctl=kernel.msgmax=4000
        --volume=/run/test/shared:/rw --volume=/run/test/shared:/ro:ro
        --tmpfs=/scratch:mode=1777 --read-only --cap-drop=all --security-opt=no-new-privileges
    """
    docker.run(["chmod", "777", "/run/test/shared"])
    done = docker.do("run", "--rm", *options.split(), IMAGE, "sh", "-c", script)
    assert done.stdout.splitlines() == [
        "uid=1000(alice) gid=50(staff) groups=50(staff)",
        *("/work", "box", "blue", "100", "4000", "from the host", "yes"),
        *("CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"),
    ]
    assert done.stderr.count("Read-only file system") == 2
    assert docker.path("/run/test/shared/new").read_text() == "changed\n"


def test_capabilities_filters_and_devices(docker: Docker) -> None:
    script = "grep -E 'CapEff|Seccomp:' /proc/self/status | cut -f 2; mkdir /tmp/a || :"
    assert docker.sh(script).split() == ["00000000a80425fb", "2"]
    added = docker.sh(script, "--cap-add=NET_ADMIN", "--security-opt=seccomp=unconfined")
    assert added.split() == ["00000000a80435fb", "0"]
    rules = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}
    profile = docker.write("/run/test/profile.json", json.dumps(rules))
    done = docker.do("run", "--rm", f"--security-opt=seccomp={profile}", IMAGE, "sh", "-c", script)
    assert "Operation not permitted" in done.stderr
    script = "head -c 1 /dev/other; mknod /tmp/kmsg c 1 11 && head -c 0 /tmp/kmsg"
    options = ["--device=/dev/zero:/dev/other", IMAGE, "sh", "-c", script]
    done = docker.do("run", "--rm", *options, check=False)
    assert done.stdout == "\0" and "Operation not permitted" in done.stderr


def test_privileged(docker: Docker) -> None:
    if docker.runtime == "runc" and not has_all_capabilities():
        pytest.skip("runc fails to give what root does not have here")
    script = "grep Seccomp: /proc/self/status | cut -f 2; mount -t tmpfs none /tmp && echo mounted; ls /dev | wc -l"
    seccomp, mounted, devices = docker.sh(script, "--privileged").split()
    assert (seccomp, mounted) == ("0", "mounted") and int(devices) > 30


def test_limits_update_stats_and_memory(docker: Docker) -> None:
    limits = "--memory=64m --pids-limit=50 --cpus=0.5 --cpu-shares=512 --cpuset-cpus=0"
    identity = docker.start("ready; exec sleep 1000", "--name=limited", *limits.split())
    places = {
        "memory.limit_in_bytes": "memory",
        "pids.max": "pids",
        "cpu.cfs_quota_us": "cpu",
        "cpu.shares": "cpu",
        "cpuset.cpus": "cpuset",
    }

    def found() -> list[str]:
        return [docker.limit(identity, controller, file) for file, controller in places.items()]

    assert found() == [str(64 * MIB), "50", "50000", "512", "0"]
    docker.do(
        "update", "--memory=48m", "--memory-swap=-1", "--pids-limit=40", "--cpus=0.2", "--cpu-shares=256", "limited"
    )
    assert found() == [str(48 * MIB), "40", "20000", "256", "0"]
    shown = docker.out("stats", "--no-stream", "--format={{.MemUsage}}|{{.PIDs}}", "limited")
    assert shown.endswith("/ 48MiB|1")
    assert "sleep 1000" in docker.out("top", "limited")
    done = docker.do("run", "--name=big", "--memory=16m", "--memory-swap=16m", IMAGE, "tail", "/dev/zero", check=False)
    assert done.returncode == 137
    assert docker.inspect("big")["State"]["OOMKilled"] is True


def test_namespaces(docker: Docker) -> None:
    kinds = ("ipc", "net", "pid", "uts", "mnt", "cgroup")
    host = {kind: os.readlink(f"/proc/{docker.pid}/ns/{kind}") for kind in kinds}

    def seen(name: str) -> dict[str, str]:
        pid = docker.inspect(name)["State"]["Pid"]
        return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in kinds}

    docker.start("ready; exec sleep 1000", "--name=own", "--ipc=shareable")
    docker.start("ready; exec sleep 1000", "--name=open", "--ipc=host", "--pid=host", "--network=host", "--uts=host")
    joined = [f"--{kind}=container:own" for kind in ("ipc", "pid", "network")]
    docker.start("ready; exec sleep 1000", "--name=guest", *joined)
    assert {kind for kind in kinds if seen("open")[kind] == host[kind]} >= {"ipc", "net", "pid", "uts"}
    assert {kind for kind in kinds if seen("guest")[kind] == seen("own")[kind]} >= {"ipc", "net", "pid"}
    assert not {"ipc", "net", "pid", "uts", "mnt"} & {kind for kind in kinds if seen("own")[kind] == host[kind]}
    assert "sleep 1000" in docker.out("exec", "guest", "ps")


def test_a_bridge_and_a_published_port(docker: Docker) -> None:
    for name, port in (("one", "8081"), ("two", "8082")):
        docker.start(f"{SERVER} from {name}", f"--name={name}", "--network=bridge", f"--publish={port}:80")
    one, two = (docker.inspect(name)["NetworkSettings"]["IPAddress"] for name in ("one", "two"))
    until(lambda: docker.asked(docker, one, 80) == "from one", f"a server at {one}")
    until(lambda: docker.asked(docker, two, 80) == "from two", f"a server at {two}")
    assert docker.out("exec", "one", "nc", "-w", "5", two, "80") == "from two"
    assert docker.asked(docker.outside, docker.address, 8081) == "from one"
    docker.do("restart", "-t0", "one")
    until(lambda: docker.asked(docker.outside, docker.address, 8081) == "from one", "the server again")
