"""Each kind of thing that can be left behind is made by hand: it is named, its command or --fix removes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minirun.network import nat, netns
from tests.fakehost import FakeHost

GONE = "dead" * 16  # the id of a container that never was
SHORT = GONE[:12]
DEAD_PID = 2**22 + 1  # above any pid (proc_sys_kernel(5), pid_max)
NETWORK = "from minirun.network import bridge; bridge.ensure('br0')"
PUBLISH = """
import sys
from minirun.network import nat
nat.Publish("br0", sys.argv[1], "web " + sys.argv[1][:12], [["pub4_any", ["tcp", "8080"], ["10.201.0.9", "80"]]]).do()
"""
RECORDLESS = """
from minirun.network import bridge, network
import os
bridge.ensure("br0")
os.unlink(network.record_path("br0"))
"""
# A value of each type, and an element of them whose container is gone.
FIELDS = {
    "ifname": "mr9",
    "iifname": "mr9",
    "ether_addr": "02:6d:0a:c9:00:09",
    "ipv4_addr": "10.99.0.9",  # in no network: an interval is not to meet another one
    "ipv6_addr": "fd00:77::9",
    "@th,64,128": "0x00fd0000770000000000000000000009",
    "inet_proto": "udp",
    "inet_service": "8080",
}
DATA = {"verdict": "accept"}
ADD = f"""
import json, sys
from minirun.linux.nft import Element
from minirun.network import nat
data = [{FIELDS | DATA!r}[kind] for kind in nat.TABLE.sets[sys.argv[1]][2].split(" . ") if kind]
nat.TABLE.add([Element(sys.argv[1], json.loads(sys.argv[2]), data, "web {SHORT}")])
"""
# kind -> (its name, how it is made on the host)
LEAKS: dict[str, tuple[str, str]] = {
    "namespace": (
        "/run/netns/web",
        f"ip netns add web; ip netns exec web sysctl -qw net.ipv4.conf.lo.tag={netns.owner_tag(GONE)}",
    ),
    "cable": (f"mr{SHORT}", f"ip link add mr{SHORT} type veth peer name other0"),
    "lease": (
        "/run/minirun/networks/br0/leases/10.201.0.9",
        f"mkdir -p $STATE/networks/br0/leases; echo {GONE} > $STATE/networks/br0/leases/10.201.0.9",
    ),
    "state": (f"/run/minirun/containers/{GONE}", f"mkdir -p $STATE/containers/{GONE}"),
    "mount": (
        f"/run/minirun/containers/{GONE}/rootfs",
        f"mkdir -p $STATE/containers/{GONE}/rootfs; mount -t tmpfs t $STATE/containers/{GONE}/rootfs",
    ),
    "name": ("/run/minirun-root/names/web", f"mkdir -p $ROOT/names; ln -s {GONE} $ROOT/names/web"),
    "container": (f"/run/minirun-root/containers/{GONE}", f"mkdir -p $ROOT/containers/{GONE}/upper"),
    "temporary": (
        f"/run/minirun/seccomp/{GONE}.bpf.{DEAD_PID}",
        f"mkdir -p $STATE/seccomp; touch $STATE/seccomp/{GONE}.bpf.{DEAD_PID} $STATE/seccomp/{GONE}.bpf",
    ),
    "unfinished image": ("/run/minirun-root/image-tmp/image-1-x", "mkdir -p $ROOT/image-tmp/image-1-x/blobs"),
}


def leaks(host: FakeHost, *options: str) -> list[dict[str, object]]:
    """What doctor --leaks says; and whether its exit code agrees."""
    done = host.minirun("doctor", "--leaks", "--format", "json", *options, check=False)
    assert not done.stderr, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == int(any(not row["removed"] for row in rows))
    return rows


def make(host: FakeHost, script: str) -> None:
    host.run(["sh", "-ec", f"STATE={host.state} ROOT={host.root}\n{script}"])


@pytest.fixture
def networked(host: FakeHost) -> FakeHost:
    """A host with the default network, as it is on any machine where containers ran."""
    host.python(NETWORK)
    return host


def test_a_machine_that_was_never_used_has_none(host: FakeHost) -> None:
    assert leaks(host) == []


@pytest.mark.parametrize("kind", LEAKS)
def test_it_is_named_and_fix_removes_it(networked: FakeHost, kind: str) -> None:
    name, script = LEAKS[kind]
    make(networked, script)
    rows = leaks(networked)
    assert (kind, name) in [(row["kind"], row["name"]) for row in rows]
    assert {row["kind"] for row in rows} <= {kind, "state"}  # a mount stands in a directory
    assert all(row["removed"] for row in leaks(networked, "--fix"))
    assert leaks(networked) == leaks(networked, "--fix") == []
    assert networked.path("/run/minirun-root/networks/br0/network.json").exists()


@pytest.mark.parametrize("kind", LEAKS)
def test_the_command_that_it_prints_removes_it(networked: FakeHost, kind: str) -> None:
    make(networked, LEAKS[kind][1])
    for row in leaks(networked):
        networked.run(["sh", "-ec", str(row["command"])])
    assert leaks(networked) == []


def test_a_lock_that_nobody_holds(host: FakeHost) -> None:
    """With a plan that cannot be undone, or reconcile would have removed it."""
    make(host, f"mkdir -p $STATE/locks $STATE/containers/{GONE}; touch $STATE/locks/{GONE}")
    make(host, f"echo '[[\"no such step\"]]' > $STATE/containers/{GONE}/plan.json")
    done = host.minirun("doctor", "--leaks", check=False)
    assert "cannot be cleaned up" in done.stderr
    assert [line.split(" ")[0] for line in done.stdout.splitlines()] == ["state", "lock"]
    host.minirun("doctor", "--leaks", "--fix")
    assert leaks(host) == []


def test_a_cgroup_with_a_process_in_every_hierarchy(host: FakeHost) -> None:
    code = f"from minirun.linux import cgroup as c; print(*c.layout().directories(c.parent + '/{GONE}'))"
    directories = host.python(code).split()
    make(host, f"mkdir -p {' '.join(directories)} $STATE/containers/{GONE}")
    joined = " ".join(f"echo 0 > {directory}/cgroup.procs;" for directory in directories)
    sleeper = host.popen(["sh", "-ec", f"{joined} echo ready; exec sleep 600"])
    assert sleeper.stdout and sleeper.stdout.readline() == "ready\n"
    assert {row["name"] for row in leaks(host) if row["kind"] == "cgroup"} == set(directories)
    assert all(row["removed"] for row in leaks(host, "--fix"))
    assert sleeper.wait(60) < 0
    sleeper.communicate()
    assert leaks(host) == []
    assert not any(Path(directory).exists() for directory in directories)


def test_a_cgroup_of_which_we_know_nothing_is_left_alone_while_it_is_used(host: FakeHost) -> None:
    """Another engine may keep its bundles there, by `minirun oci` with a --root of its own."""
    code = f"from minirun.linux import cgroup as c; print(*c.layout().directories(c.parent + '/{GONE}'))"
    directory = host.python(code).split()[0]
    make(host, f"mkdir -p {directory}")
    sleeper = host.popen(["sh", "-ec", f"echo 0 > {directory}/cgroup.procs; echo ready; exec sleep 600"])
    assert sleeper.stdout and sleeper.stdout.readline() == "ready\n"
    assert leaks(host) == []
    sleeper.kill()
    sleeper.communicate()
    assert [row["kind"] for row in leaks(host, "--fix")] == ["cgroup"]


@pytest.mark.parametrize("lost", ["the lock", "the state directory"])
def test_a_name_server_whose_place_is_gone(networked: FakeHost, lost: str) -> None:
    make(networked, f"mkdir -p $STATE/networks/br0/leases; echo {GONE} > $STATE/networks/br0/leases/10.201.0.9")
    networked.minirun("nameserver", "br0")
    (pid,) = set(networked.processes(every=True)) - set(networked.processes())
    networked.wait_until(f"readlink /proc/{pid}/cwd | grep -q networks")
    os.kill(pid, signal.SIGSTOP)  # a living one ends by itself when its directory is gone
    make(networked, "rm $STATE/nameserver/lock" if lost == "the lock" else "rm -r $STATE")
    make(networked, "rm -f $STATE/networks/br0/leases/*")
    assert f"{pid} (minirun nameserver)" in [
        row["name"] for row in leaks(networked, "--fix") if row["kind"] == "process"
    ]
    assert not networked.processes(every=True)


def test_a_published_port_of_nobody(networked: FakeHost) -> None:
    networked.python(PUBLISH, GONE)
    assert {row["kind"] for row in leaks(networked)} == {"element", "published port"}
    assert [row["name"] for row in leaks(networked) if row["kind"] == "element"] == ["pub4_any { tcp . 8080 }"]
    leaks(networked, "--fix")
    assert leaks(networked) == []
    listed = networked.run(["nft", "list", "table", "inet", "minirun"]).stdout
    assert "8080" not in listed and "minirun network br0" in listed


def test_the_printed_command_removes_an_element(networked: FakeHost) -> None:
    networked.python(PUBLISH, GONE)
    for row in leaks(networked):
        networked.run(["sh", "-ec", str(row["command"])])
    assert leaks(networked) == []


@pytest.mark.parametrize("name", nat.TABLE.sets)
def test_an_element_of_each_set_is_read_and_removed(networked: FakeHost, name: str) -> None:
    networked.python(ADD, name, json.dumps([FIELDS[kind] for kind in nat.TABLE.sets[name][1].split(" . ")]))
    (row,) = leaks(networked)
    assert (row["kind"], str(row["name"]).partition(" ")[0]) == ("element", name)
    networked.run(["sh", "-ec", str(row["command"])])
    assert leaks(networked) == []
    networked.python(ADD, name, json.dumps([FIELDS[kind] for kind in nat.TABLE.sets[name][1].split(" . ")]))
    assert [row["removed"] for row in leaks(networked, "--fix")] == [True]
    assert leaks(networked) == []


def test_a_network_without_a_record(host: FakeHost) -> None:
    host.python(RECORDLESS)
    make(host, "mkdir -p $STATE/networks/br0/leases")
    assert {row["kind"] for row in leaks(host)} == {"bridge", "network state"}
    leaks(host, "--fix")
    rows = leaks(host, "--fix")  # the elements are let be as long as a bridge needs them
    assert {row["kind"] for row in rows} == {"element"}
    assert {str(row["name"]).split(" ")[0] for row in rows} == {
        *("bridges", "masq_br", "egress", "peering", "hairpin4", "gateways4", "members", "trunks")
    }
    assert leaks(host) == []


def test_what_is_not_ours_is_no_leak(networked: FakeHost) -> None:
    make(
        networked,
        """
        ip netns add plain; ip link add mrs-robinson type veth peer name joe
        ip link add br9 type bridge; ip link set br9 alias 'somebody'
        mkdir -p $ROOT/containers/notes $STATE/containers/notes; touch $ROOT/containers/notes/x
        nft add table inet other
        """,
    )
    assert leaks(networked) == []


@pytest.fixture
def running(networked: FakeHost) -> FakeHost:
    """A host on which a container runs, with a network, a published port and a name."""
    images = os.environ.get("MINIRUN_TEST_IMAGES") or str(Path.home() / ".cache" / "minirun-test")
    if not Path(images, "images", "index.json").exists():
        command = [sys.executable, "-m", "minirun", "--root", images, "--state", f"{images}/state", "image", "build"]
        subprocess.run([*command, "busybox"], check=True, timeout=600)
    networked.lend(Path(images))
    networked.minirun("run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sleep", "600")
    return networked


def test_a_running_container_is_no_leak_and_keeps_running(running: FakeHost) -> None:
    assert leaks(running) == []
    assert leaks(running, "--fix") == []
    assert running.minirun("exec", "web", "echo", "alive").stdout == "alive\n"
    running.minirun("rm", "-f", "web")
    assert leaks(running) == []


def test_a_stopped_container_is_no_leak(running: FakeHost) -> None:
    running.minirun("stop", "-t", "0", "web")
    assert leaks(running) == []


def test_the_container_of_another_state_directory_is_no_leak(running: FakeHost) -> None:
    """Two minirun's on one machine, with one cgroup parent and one firewall table."""
    done = running.minirun("--state", "/run/other", "--root", "/run/other-root", "doctor", "--leaks", check=False)
    assert "web" not in done.stdout and "cgroup" not in done.stdout and "cable" not in done.stdout, done.stdout
    assert running.minirun("exec", "web", "echo", "alive").stdout == "alive\n"


def test_everything_of_a_container_whose_lock_was_removed(running: FakeHost) -> None:
    identity = json.loads(running.minirun("inspect", "web").stdout)[0]["Id"]
    make(running, f"rm $STATE/locks/{identity}")
    kinds = {str(row["kind"]) for row in leaks(running)}
    assert kinds >= {"process", "cgroup", "namespace", "cable", "element", "lease", "published port", "state"}
    assert all(row["removed"] for row in leaks(running, "--fix"))
    assert leaks(running) == []


SIX = ("run", "--net", "six", "-p", "8090:80", "-p", "[::1]:8081:80", "busybox", "true")


def test_what_the_script_of_explain_leaves_is_removed(running: FakeHost) -> None:
    """IPv6 and a proxy, too, while another such container runs."""
    running.minirun("network", "create", "--ipv6", "six")
    running.minirun("run", "-d", "--name", "alive", "--net", "six", "busybox", "sleep", "600")
    make(running, running.minirun("explain", *SIX).stdout)
    kinds = {str(row["kind"]) for row in leaks(running)}
    assert kinds >= {"namespace", "cable", "cgroup", "element", "lease"}
    assert any(str(row["name"]).startswith("targets6 {") for row in leaks(running))
    assert all(row["removed"] for row in leaks(running, "--fix"))
    assert leaks(running) == []
    assert running.minirun("ps", "-q", "--no-trunc").stdout.count("\n") == 2
    running.minirun("rm", "-f", "web", "alive")
    running.minirun("network", "rm", "six", "br0")
    assert "minirun" not in running.run(["nft", "list", "ruleset"]).stdout
