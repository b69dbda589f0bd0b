"""Kubernetes' way to a container: the CRI of containerd, whose shim calls the runtime for pods and their containers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.cri import Container, Kubelet, Pod, grpc, kubelet
from tests.fakehost import CGROUPS
from tests.lifecycle.machine import SOON, until

MIB = 1 << 20
FOREVER = ("sleep", "100000")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubelet]:
    """One daemon for the whole file."""
    with kubelet(tmp_path_factory.mktemp("cri")) as made:
        yield made


@pytest.fixture
def cluster(node: Kubelet) -> Iterator[Kubelet]:
    """The daemon; after the test nothing of its pods may be left anywhere."""
    yield node
    node.sweep()


@pytest.fixture
def pod(cluster: Kubelet, runtime: str) -> Pod:
    """A pod with a network of its own and nothing asked for."""
    return cluster.pod(runtime)


def limit(container: Container, node: Kubelet, controller: str, name: str) -> str:
    return (CGROUPS / controller / node.machine.cgroup / container.id / name).read_text().strip()


@pytest.mark.control
def test_a_pod_has_an_address_where_it_is_reached(cluster: Kubelet, runtime: str) -> None:
    pod = cluster.pod(runtime, dns_config={"servers": ["192.0.2.53"], "searches": ["cluster.local"]})
    assert pod.status().state == 0 and pod.status().runtime_handler == runtime
    server = pod.start("sh", "-c", "echo of the pod > /tmp/index.html; httpd -f -p 80 -h /tmp")
    page, address = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read())", pod.address

    def asked() -> bool:
        return "of the pod" in cluster.machine.python(page, f"http://{address}/", check=False)

    until(asked, "an answer of the pod")
    code, shown, _ = server.exec("sh", "-c", "hostname; cat /etc/resolv.conf; wget -q -O - http://127.0.0.1/")
    assert (code, shown) == (0, f"{pod.name}\nsearch cluster.local\nnameserver 192.0.2.53\nof the pod\n")
    other = cluster.pod(runtime)
    assert other.sh(f"wget -q -O - http://{address}/") == "of the pod"
    pod.stop()
    assert pod.status().state == 1 and server.state() == "EXITED"


@pytest.mark.control
def test_a_container_from_its_creation_to_its_removal(cluster: Kubelet, pod: Pod) -> None:
    trap = "trap 'echo told to end; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    container = pod.create("sh", "-c", trap, envs=[{"key": "OF", "value": "container"}], working_dir="/tmp")
    assert container.state() == "CREATED"
    container.start()
    assert container.state() == "RUNNING" and container.status().started_at > 0
    until(lambda: container.output() == "ready", "its first word")
    shown = container.exec("sh", "-c", "echo $OF; pwd; echo err >&2; exit 5")
    assert shown == (5, "container\n/tmp\n", "err\n")
    container.stop(grace=SOON)
    status = container.ended()
    assert (status.exit_code, status.reason) == (7, "Error") and status.finished_at >= status.started_at
    assert container.lines() == [["stdout", "F", "ready"], ["stdout", "F", "told to end"]]
    container.remove()
    with pytest.raises(grpc.RpcError, match="not found"):
        container.status()


def test_a_program_that_is_deaf_is_killed_after_the_grace(pod: Pod) -> None:
    container = pod.start(*FOREVER)
    container.stop(grace=1)
    assert container.ended().exit_code == 137


def test_an_exec_that_takes_too_long_is_killed(pod: Pod) -> None:
    container = pod.start(*FOREVER)
    with pytest.raises(grpc.RpcError, match="timeout 1s exceeded") as failed:
        container.exec("sleep", "55555", timeout=1)
    assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "55555" not in container.exec("ps", "-o", "args")[1]
    with pytest.raises(grpc.RpcError, match="not found"):
        container.exec("no-such-program")
    assert container.exec("sh", "-c", "kill -9 $$")[0] == 137
    assert container.exec("seq", "50000")[1] == "".join(f"{n}\n" for n in range(1, 50001))


@pytest.mark.control
def test_the_log_has_the_last_words(pod: Pod) -> None:
    last = "until [ -e /tmp/go ]; do sleep 0.01; done; echo one; echo two >&2; seq 1000; printf three; exit 3"
    container = pod.start("sh", "-c", f"echo ready; echo ready >&2; {last}")
    until(lambda: len(container.lines()) == 2, "its first words: both streams are open")
    assert container.exec("touch", "/tmp/go")[0] == 0
    status = container.ended()
    assert (status.exit_code, status.reason, status.log_path) == (3, "Error", str(container.log))
    shown = {stream: [line[1:] for line in container.lines() if line[0] == stream] for stream in ("stdout", "stderr")}
    assert shown["stderr"] == [["F", "ready"], ["F", "two"]]
    numbers = [["F", str(n)] for n in range(1, 1001)]
    assert shown["stdout"] == [["F", "ready"], ["F", "one"], *numbers, ["P", "three"]]
    fine = pod.start("true", name="fine")
    assert (fine.ended().exit_code, fine.ended().reason) == (0, "Completed")


@pytest.mark.control
def test_what_cannot_start_says_why(pod: Pod) -> None:
    container = pod.create("no-such-program")
    with pytest.raises(grpc.RpcError, match=r"no-such-program.*executable file not found"):
        container.start()
    status = container.ended()
    assert (status.exit_code, status.reason) == (128, "StartError") and "not found" in status.message


@pytest.mark.control
def test_limits_and_their_update(cluster: Kubelet, pod: Pod) -> None:
    limits = {"cpu_period": 100000, "cpu_quota": 50000, "cpu_shares": 512, "memory_limit_in_bytes": 64 * MIB}
    container = pod.start(*FOREVER, resources={**limits, "oom_score_adj": 900, "cpuset_cpus": "0"})
    shown = {
        "memory/memory.limit_in_bytes": str(64 * MIB),
        "cpu/cpu.cfs_quota_us": "50000",
        "cpu/cpu.shares": "512",
        "cpuset/cpuset.cpus": "0",
    }
    for path, value in shown.items():
        assert limit(container, cluster, *path.split("/")) == value, path
    assert container.exec("cat", "/proc/1/oom_score_adj")[1] == "900\n"
    container.update(memory_limit_in_bytes=128 * MIB, cpu_quota=20000, cpu_period=50000, cpuset_cpus="0-1")
    changed = {"memory/memory.limit_in_bytes": str(128 * MIB), "cpu/cpu.cfs_quota_us": "20000", "cpu/cpu.shares": "512"}
    assert container.exec("sh", "-c", "echo > /dev/null") == (0, "", "")  # the update brings a "deny all devices", too
    for path, value in {**changed, "cpu/cpu.cfs_period_us": "50000", "cpuset/cpuset.cpus": "0-1"}.items():
        assert limit(container, cluster, *path.split("/")) == value, path


@pytest.mark.control
def test_the_end_of_memory_is_the_reason(pod: Pod) -> None:
    container = pod.start("tail", "/dev/zero", resources={"memory_limit_in_bytes": 24 * MIB})
    status = container.ended()
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


def test_usage_is_counted(cluster: Kubelet, pod: Pod) -> None:
    from cri_api.v1 import api_pb2 as api

    container = pod.start(*FOREVER)
    one = cluster.stub.ContainerStats(api.ContainerStatsRequest(container_id=container.id), timeout=SOON).stats
    assert one.cpu.usage_core_nano_seconds.value > 0 and one.memory.working_set_bytes.value > 0
    every = cluster.stub.ListContainerStats(api.ListContainerStatsRequest(), timeout=SOON).stats
    assert [stats.attributes.id for stats in every] == [container.id]
    assert every[0].memory.usage_bytes.value > 0


STATUS = "id; grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | cut -f2 | tr '\\n' ' '"


def test_users_groups_and_privileges(pod: Pod) -> None:
    assert pod.sh(STATUS).split("\n") == ["uid=0(root) gid=0(root) groups=0(root)", "00000000a80425fb 0 0 "]
    user = {
        "run_as_user": {"value": 1000},
        "run_as_group": {"value": 50},
        "supplemental_groups": [5, 6],
        "no_new_privs": True,
    }
    shown = pod.sh(STATUS, security=user).split("\n")
    assert shown[0].startswith("uid=1000(alice) gid=50(staff) groups=") and shown[1] == "0000000000000000 1 0 "
    assert {"5", "6"} <= set(shown[0].partition("groups=")[2].split(","))
    named = pod.sh("id -un", security={"run_as_username": "alice"})
    assert named == "alice"
    some = {"capabilities": {"add_capabilities": ["NET_ADMIN"], "drop_capabilities": ["CHOWN"]}}
    assert pod.sh(STATUS, security=some).split("\n")[1].startswith("00000000a80435fa ")
    none = {"capabilities": {"drop_capabilities": ["ALL"]}}
    assert pod.sh(STATUS, security=none).split("\n")[1].startswith("0000000000000000 ")


def test_a_root_that_is_read_only_and_paths_that_are_masked(pod: Pod) -> None:
    paths = {"masked_paths": ["/proc/version", "/home"], "readonly_paths": ["/proc/sys"]}
    script = "(echo x > /x) 2>&1; echo x > /dev/shm/x && echo shared; wc -c < /proc/version; ls /home | wc -l"
    shown = pod.sh(script, security={"readonly_rootfs": True, **paths})
    assert shown.endswith("Read-only file system\nshared\n0\n0"), shown
    assert pod.sh("cat /dev/shm/x") == "x"  # memory is shared in a pod


@pytest.mark.control
def test_seccomp(pod: Pod, tmp_path: Path) -> None:
    attempt = "grep Seccomp: /proc/self/status | cut -f2; unshare -U true 2>&1 || echo refused"
    shown = pod.sh(attempt, security={"seccomp": {"profile_type": "RuntimeDefault"}})
    assert shown.startswith("2\n") and shown.endswith("refused"), shown
    assert pod.sh(attempt, security={"seccomp": {"profile_type": "Unconfined"}}) == "0"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    (tmp_path / "profile.json").write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    local = {"profile_type": "Localhost", "localhost_ref": str(tmp_path / "profile.json")}
    assert "No space left" in pod.sh("mkdir /tmp/x 2>&1", security={"seccomp": local})


def test_a_privileged_pod(cluster: Kubelet, runtime: str) -> None:
    pod = cluster.pod(runtime, linux={"security_context": {"privileged": True}})
    own = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "CapEff" in line)
    script = "grep CapEff: /proc/self/status | cut -f2; ls /dev/loop-control; mount -t tmpfs x /tmp && echo mounted"
    script += "; : > /proc/sys/kernel/domainname && echo writes; grep -c ' /sys/fs/cgroup.* rw' /proc/mounts"
    shown = pod.sh(script, security={"privileged": True}).split("\n")
    assert shown[:4] == [own, "/dev/loop-control", "mounted", "writes"] and int(shown[4]) > 0, shown


@pytest.mark.control
def test_containers_of_a_pod_share_its_namespaces(pod: Pod) -> None:
    first = pod.start(*FOREVER, name="first")
    script = "for kind in net ipc uts pid mnt; do readlink /proc/self/ns/$kind; done"
    one, two = (first.exec("sh", "-c", script)[1].split(), pod.sh(script).split())
    assert one[:3] == two[:3] and not {*one[3:]} & {*two[3:]}
    assert first.exec("sh", "-c", "echo $$; ps | wc -l")[1].split()[0] != "1"


@pytest.mark.control
def test_process_namespaces_shared_by_the_pod(cluster: Kubelet, runtime: str) -> None:
    options: dict[str, Any] = {"namespace_options": {"pid": "POD"}}
    pod = cluster.pod(runtime, linux={"security_context": options})
    one = pod.start("sleep", "11111", name="one", security=options)
    two = pod.start("sleep", "22222", name="two", security=options)
    for container in (one, two):
        code, shown, said = container.exec("ps", "-o", "pid,args")
        assert code == 0 and {"/pause", "sleep 11111", "sleep 22222"} <= {line[6:] for line in shown.splitlines()}, said
    one.stop()
    assert one.ended().exit_code == 137 and two.state() == "RUNNING"
    assert "11111" not in two.exec("ps", "-o", "args")[1]


def test_process_namespaces_shared_with_one_container(pod: Pod) -> None:
    target = pod.start("sleep", "11111", name="target", security={"namespace_options": {"pid": "CONTAINER"}})
    own: dict[str, Any] = {"namespace_options": {"pid": "TARGET", "target_id": target.id}}
    debugger = pod.start("sleep", "22222", name="debugger", security=own)
    assert {"sleep 11111", "sleep 22222"} <= set(debugger.exec("ps", "-o", "args")[1].splitlines())
    debugger.stop()
    assert debugger.ended().exit_code == 137 and target.state() == "RUNNING"


def test_namespaces_of_the_host(cluster: Kubelet, runtime: str) -> None:
    options = {"namespace_options": {"network": "NODE", "pid": "NODE", "ipc": "NODE"}}
    pod = cluster.pod(runtime, hostname="", linux={"security_context": options})
    container = pod.start("sleep", "33333", security=options)
    code, shown, _ = container.exec(
        "sh", "-c", "ls /sys/class/net; cat /proc/1/comm; for k in net pid ipc; do readlink /proc/self/ns/$k; done"
    )
    node = cluster.machine.pid
    assert code == 0 and "eth1" in shown.split() and Path("/proc/1/comm").read_text() in shown
    for kind in ("net", "pid", "ipc"):
        assert str(Path(f"/proc/{node}/ns/{kind}").readlink()) in shown.split()
    container.stop()
    assert container.ended().exit_code == 137


def test_mounts_and_their_propagation(cluster: Kubelet, pod: Pod) -> None:
    machine = cluster.machine
    place = f"/run/shared-{pod.name}"
    machine.run(
        [
            "sh",
            "-c",
            f"mkdir -p {place}; mount -t tmpfs x {place}; mount --make-shared {place}; mkdir {place}/in {place}/out",
        ]
    )

    def mount(propagation: str, readonly: bool = False) -> dict[str, Any]:
        kept = {"readonly": readonly, "propagation": f"PROPAGATION_{propagation}"}
        return {"mounts": [{"container_path": "/data", "host_path": place, **kept}]}

    shown = pod.sh("(echo x > /data/x) 2> /dev/null || echo refused; ls /data", **mount("PRIVATE", readonly=True))
    assert shown.split("\n") == ["refused", "in", "out"]
    slave = pod.start(*FOREVER, name="slave", **mount("HOST_TO_CONTAINER"))
    private = pod.start(*FOREVER, name="private", **mount("PRIVATE"))
    machine.run(["sh", "-c", f"mount -t tmpfs x {place}/in; touch {place}/in/of-the-host"])
    assert slave.exec("ls", "/data/in")[1] == "of-the-host\n"
    assert private.exec("ls", "/data/in")[1] == ""
    machine.run(["umount", f"{place}/in"])
    for container in (slave, private):
        container.stop()
        container.remove()
    machine.run(["umount", place])


def test_a_mount_that_the_host_sees(cluster: Kubelet, runtime: str) -> None:
    machine, privileged = cluster.machine, {"privileged": True}
    pod = cluster.pod(runtime, linux={"security_context": privileged})
    place = f"/run/shared-{pod.name}"
    machine.run(
        ["sh", "-c", f"mkdir -p {place}; mount -t tmpfs x {place}; mount --make-shared {place}; mkdir {place}/out"]
    )
    mounts = [{"container_path": "/data", "host_path": place, "propagation": "PROPAGATION_BIDIRECTIONAL"}]
    container = pod.start(*FOREVER, security=privileged, mounts=mounts)
    assert container.exec("sh", "-c", "mount -t tmpfs x /data/out && touch /data/out/of-the-pod")[0] == 0
    assert machine.run(["ls", f"{place}/out"]).stdout == "of-the-pod\n"
    container.stop()
    machine.run(["umount", f"{place}/out", place])


def test_devices(pod: Pod) -> None:
    device = {"container_path": "/dev/mine", "host_path": "/dev/loop-control", "permissions": "r"}
    script = "stat -c %t:%T /dev/mine; : < /dev/mine && echo reads; (: > /dev/mine) 2>/dev/null || echo does not write"
    assert pod.sh(script, devices=[device]) == "a:ed\nreads\ndoes not write"


def test_settings_of_the_kernel(cluster: Kubelet, runtime: str) -> None:
    settings = {"net.ipv4.ip_unprivileged_port_start": "77", "kernel.shm_rmid_forced": "1", "kernel.msgmax": "4096"}
    pod = cluster.pod(runtime, linux={"sysctls": settings})
    paths = " ".join(f"/proc/sys/{name.replace('.', '/')}" for name in settings)
    assert pod.sh(f"cat {paths}").split() == list(settings.values())


def test_a_pod_that_dies_is_not_ready(cluster: Kubelet, pod: Pod) -> None:
    """The kubelet then makes a new one; the containers in it live until they are stopped."""
    container = pod.start(*FOREVER)
    info = json.loads(cluster.stub.PodSandboxStatus(_verbose(pod), timeout=SOON).info["info"])
    cluster.machine.run(["kill", "-9", str(info["pid"])])
    until(lambda: pod.status().state == 1, "a pod that is not ready")
    assert container.state() == "RUNNING"
    pod.remove()


def _verbose(pod: Pod) -> Any:
    from cri_api.v1 import api_pb2 as api

    return api.PodSandboxStatusRequest(pod_sandbox_id=pod.id, verbose=True)
