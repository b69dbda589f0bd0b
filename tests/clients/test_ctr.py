"""containerd's own client, ``ctr``: its shim calls the runtime for each of these as it would call runc."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.containerd import ALICES, BINARIES, IMAGE, Containerd, containerd, update_task
from tests.fakehost import CGROUPS
from tests.lifecycle.machine import SOON, until
from tests.lifecycle.terminal import CTRL_C, terminal

Text = subprocess.CompletedProcess[str]
MIB = 1 << 20
FOREVER = ("sleep", "100000")


class Ctr:
    """``ctr`` on a machine, with one runtime."""

    def __init__(self, machine: Containerd, runtime: str) -> None:
        self.machine, self.runtime = machine, ["--runc-binary", BINARIES[runtime]]
        self.file = machine.folder / "said"

    def words(self, *options: str, command: tuple[str, ...], image: str = IMAGE, name: str = "box") -> list[str]:
        """``ctr run --rm``: its end, its output and its exit code are the program's."""
        return ["ctr", "run", "--rm", *self.runtime, *options, image, name, *command]

    def run(self, *options: str, command: tuple[str, ...], image: str = IMAGE) -> Text:
        return self.machine.run(self.words(*options, command=command, image=image), False)

    def sh(self, script: str, *options: str, image: str = IMAGE) -> str:
        """What a shell script says in a container; it must succeed.

        The shim writes it to a file. ``ctr`` itself loses output now and then, with any runtime: at the end of a task
        it gives up streams whose open(2), in a thread of its own, has not come back yet; a busy machine does that.
        """
        done = self.run(*self._to_file(), *options, command=("sh", "-c", script), image=image)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), (done, self._said())
        return self._said()

    def _to_file(self) -> list[str]:
        self.file.unlink(missing_ok=True)
        return ["--log-uri", f"file://{self.file}"]

    def _said(self) -> str:
        return self.file.read_text().strip()

    def start(self, *options: str, command: tuple[str, ...] = FOREVER, name: str = "box") -> int:
        """``ctr run --detach``; the pid of the program."""
        self.machine.run(["ctr", "run", "--detach", *self.runtime, *options, IMAGE, name, *command])
        return int(self.tasks()[name][0])

    def task(self, *arguments: str, check: bool = True, stdin: str | None = None) -> Text:
        return self.machine.run(["ctr", "tasks", *arguments], check, stdin)

    def tasks(self) -> dict[str, tuple[str, str]]:
        """Pid and status by name, as ``ctr tasks ls`` shows them."""
        lines = [line.split() for line in self.task("ls").stdout.splitlines()[1:]]
        return {name: (pid, status) for name, pid, status in lines}

    def exec(self, *command: str, options: tuple[str, ...] = (), name: str = "one") -> tuple[int, str]:
        """``ctr tasks exec``: its exit code, and what the program or, if there is none, ``ctr`` says."""
        done = self.task("exec", *self._to_file(), "--exec-id", name, *options, "box", *command, check=False)
        return done.returncode, self._said() if self.file.exists() and not done.stderr else done.stderr

    def talk(self, *words: str) -> subprocess.Popen[str]:
        """Start a client with whose program the test talks."""
        return self.machine.popen(words, stdin=subprocess.PIPE)

    def stopped(self, name: str = "box") -> None:
        until(lambda: self.tasks()[name][1] == "STOPPED", f"the end of {name}")

    def remove(self, name: str = "box") -> int:
        """Delete a task that has ended, and its container; the exit code of the task."""
        said = self.task("delete", name).stderr
        self.machine.run(["ctr", "containers", "delete", name])
        return int(said.rpartition("non-zero exit code ")[2].split('"')[0]) if "non-zero" in said else 0

    def end(self, name: str = "box", sent: str = "KILL") -> int:
        """Kill a task, wait for its end, and remove it; its exit code."""
        self.task("kill", "--signal", sent, name)
        self.stopped(name)
        return self.remove(name)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    """One daemon for the whole file."""
    with containerd(tmp_path_factory.mktemp("containerd")) as made:
        yield made


@pytest.fixture
def ctr(machine: Containerd, runtime: str) -> Iterator[Ctr]:
    """``ctr`` with the runtime under test; after the test nothing of its containers may be left anywhere."""
    client = Ctr(machine, runtime)
    yield client
    for name in machine.run(["ctr", "containers", "ls", "-q"]).stdout.split():  # a test has failed
        machine.run(["ctr", "tasks", "delete", "--force", name], check=False)
        machine.run(["ctr", "containers", "delete", name], check=False)
    machine.settled()


@pytest.fixture
def events(machine: Containerd) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Waits for an event of containerd by its topic; only those count that come after the test's beginning."""
    follower = machine.popen(["ctr", "events"])
    machine.tools.add(follower.pid)
    lines, came = [], threading.Condition()

    def read() -> None:
        assert follower.stdout
        for line in follower.stdout:
            with came:
                lines.append(line)
                came.notify_all()

    def find(topic: str) -> dict[str, Any] | None:
        return next((json.loads(line[line.index("{") :]) for line in lines if f" {topic} " in line), None)

    def wait(topic: str) -> dict[str, Any]:
        with came:
            assert came.wait_for(lambda: find(topic) is not None, SOON), f"no event {topic}: {lines}"
        return find(topic) or {}

    reader = threading.Thread(target=read)
    reader.start()

    def label() -> bool:
        machine.run(["ctr", "images", "label", IMAGE, "listening=yes"])
        machine.run(["ctr", "images", "label", IMAGE, "listening="])
        return find("/images/update") is not None

    until(label, "the first event: ctr listens")
    yield wait
    follower.kill()
    reader.join(SOON)
    follower.communicate(timeout=SOON)
    machine.tools.clear()


def cgroup_file(machine: Containerd, controller: str, name: str, group: str = "box") -> str:
    return (CGROUPS / controller / machine.cgroup / group / name).read_text().strip()


CONVERSATION = "echo out; echo err >&2; read line; echo heard $line; echo heard $line >&2; seq 100000; exit 3"
NUMBERS = "".join(f"{n}\n" for n in range(1, 100001))


def converse(client: subprocess.Popen[str]) -> None:
    """Speak with CONVERSATION, to its end. Its first words prove that the client has opened the streams."""
    assert client.stdout and client.stderr
    assert (client.stdout.readline(), client.stderr.readline()) == ("out\n", "err\n")
    assert client.communicate("spoken\n", timeout=SOON) == (f"heard spoken\n{NUMBERS}", "heard spoken\n")
    assert client.returncode == 3


@pytest.mark.control
def test_output_input_and_exit_codes(ctr: Ctr) -> None:
    converse(ctr.talk(*ctr.words(command=("sh", "-c", CONVERSATION))))
    assert ctr.run(command=("true",)).returncode == 0
    assert ctr.run(command=("sh", "-c", "kill -9 $$")).returncode == 0  # a first process is deaf to itself
    assert ctr.sh("seq 100000") == NUMBERS.strip()


@pytest.mark.control
def test_a_task_from_its_start_to_its_removal(ctr: Ctr) -> None:
    pid = ctr.start("--pid-file", str(ctr.machine.folder / "pid"))
    assert (ctr.machine.folder / "pid").read_text() == str(pid)
    assert Path(f"/proc/{pid}/cmdline").read_text() == "sleep\x00100000\x00"
    assert ctr.tasks() == {"box": (str(pid), "RUNNING")}
    assert str(pid) in ctr.task("ps", "box").stdout.split()
    usage = json.loads(ctr.task("metrics", "--format", "json", "box").stdout)
    assert (
        usage["pids"]["current"] >= 1 and usage["memory"]["usage"]["usage"] > 0 and usage["cpu"]["usage"]["total"] > 0
    )
    ctr.task("pause", "box")
    assert ctr.tasks()["box"] == (str(pid), "PAUSED")
    ctr.task("resume", "box")
    assert ctr.tasks()["box"] == (str(pid), "RUNNING")
    assert "FAILED_PRECONDITION" in ctr.task("delete", "box", check=False).stderr.upper().replace(" ", "_")
    ctr.task("kill", "--signal", "KILL", "box")
    ctr.stopped()
    assert not Path(f"/proc/{pid}").exists()
    assert ctr.remove() == 137


@pytest.mark.control
def test_exec(ctr: Ctr) -> None:
    ctr.start("--env", "OF=container", "--cwd", "/tmp")
    converse(ctr.talk("ctr", "tasks", "exec", "--exec-id", "talk", "box", "sh", "-c", CONVERSATION))
    assert ctr.exec("sh", "-c", "echo $OF; pwd; exit 5") == (5, "container\n/tmp")
    done = ctr.exec("sh", "-c", "id; pwd", options=("--user", "1000:50", "--cwd", "/home/alice"))
    assert done == (0, "uid=1000(alice) gid=50(staff) groups=50(staff)\n/home/alice")
    assert "1 sleep" in " ".join(ctr.exec("ps", "-o", "pid,args")[1].split())
    _, shown = ctr.exec("cat", "/proc/self/cgroup")
    assert {line.split(":")[2] for line in shown.splitlines()} == {f"/{ctr.machine.cgroup}/box"}
    code, shown = ctr.exec("no-such-program")
    assert code == 1 and "no-such-program" in shown and "not found" in shown
    assert ctr.end() == 137


def test_exec_is_killed_alone(ctr: Ctr) -> None:
    ctr.start()
    ctr.exec("sh", "-c", "echo $$ > /tmp/pid; exec sleep 100000", options=("-d",))
    until(lambda: ctr.exec("cat", "/tmp/pid", name="look")[0] == 0, "its start")
    ctr.task("kill", "--exec-id", "one", "--signal", "KILL", "box")
    until(lambda: ctr.task("delete", "--exec-id", "one", "box", check=False).returncode == 137, "the end of the exec")
    assert ctr.tasks()["box"][1] == "RUNNING"
    assert ctr.end(sent="KILL") == 137


def test_kill_reaches_the_program_or_all(ctr: Ctr) -> None:
    trap = "trap 'echo caught; exit 9' USR1; echo ready > /tmp/ready; while :; do sleep 0.05; done"
    ctr.start(command=("sh", "-c", trap))
    until(lambda: ctr.exec("cat", "/tmp/ready")[0] == 0, "the trap")
    assert ctr.end(sent="USR1") == 9
    pid = ctr.start("--with-ns", f"pid:/proc/{ctr.machine.pid}/ns/pid", command=("sh", "-c", "sleep 100000 & wait"))
    children = until(Path(f"/proc/{pid}/task/{pid}/children").read_text, "a child").split()
    ctr.task("kill", "--all", "--signal", "KILL", "box")
    ctr.stopped()
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), "the end of the children")
    assert ctr.remove() == 137


def test_children_in_a_shared_pid_namespace_end_with_the_program(ctr: Ctr) -> None:
    """No kernel ends them: the shim asks the runtime to kill all (``kill --all``) when the first process has ended."""
    share = ("--with-ns", f"pid:/proc/{ctr.machine.pid}/ns/pid")
    child = ctr.sh("sleep 100000 > /dev/null 2>&1 < /dev/null & echo $!", *share)
    assert int(child) > 1
    until(lambda: not Path(f"/proc/{child}").exists(), "the end of the child")


def test_a_terminal(ctr: Ctr) -> None:
    sized = "tty; until [ \"$(stty size)\" = '30 90' ]; do sleep 0.01; done; echo it has its size"  # ctr tells it late
    with terminal(30, 90) as screen:
        script = f"trap 'echo caught; exit 4' INT; {sized}; sleep 100000 & wait"
        client = screen.run(ctr.machine, *ctr.words("--tty", command=("sh", "-c", script)))
        screen.expect("/dev/pts/0")
        screen.expect("it has its size")
        screen.type(CTRL_C)
        screen.expect("caught")
        assert client.wait(SOON) == 4
    ctr.start()
    with terminal(30, 90) as screen:
        words = [
            "ctr",
            "tasks",
            "exec",
            "--tty",
            "--exec-id",
            "one",
            "box",
            "sh",
            "-c",
            f"{sized}; read x; echo got-$x",
        ]
        client = screen.run(ctr.machine, *words)
        screen.expect("/dev/pts/0")
        screen.expect("it has its size")
        screen.type("word\n")
        screen.expect("got-word")
        assert client.wait(SOON) == 0
    ctr.end()


def test_what_the_image_says_of_its_program(ctr: Ctr) -> None:
    shown = ctr.sh("id; pwd; echo $FROM; touch /etc/x 2>&1; hostname", image=ALICES)
    assert shown.split("\n")[:3] == [
        "uid=1000(alice) gid=1000(alice) groups=50(staff),1000(alice)",
        "/home/alice",
        "image",
    ]
    assert "denied" in shown
    assert ctr.sh("pwd; echo $FROM", "--cwd", "/tmp", "--env", "FROM=flag", image=ALICES) == "/tmp\nflag"
    assert ctr.sh("ulimit -n; umask") == "1024\n0022"


def test_mounts(ctr: Ctr, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host\n")
    bind = f"type=bind,src={tmp_path},dst=/data,options=rbind"
    attempt = "cat /data/file; (echo x > /data/file) 2> /dev/null || echo refused"
    assert ctr.sh(attempt, "--mount", f"{bind}:ro") == "of the host\nrefused"
    assert (tmp_path / "file").read_text() == "of the host\n"
    ctr.sh("echo changed > /data/file", "--mount", f"{bind}:rw")
    assert (tmp_path / "file").read_text() == "changed\n"
    one = f"type=bind,src={tmp_path}/file,dst=/etc/one/file,options=bind:ro"
    assert ctr.sh("cat /etc/one/file", "--mount", one) == "changed"
    small = "type=tmpfs,src=tmpfs,dst=/small,options=size=64k:mode=700:noexec"
    shown = ctr.sh("grep /small /proc/mounts", "--mount", small)
    assert shown == "tmpfs /small tmpfs rw,noexec,relatime,size=64k,mode=700 0 0"
    gone = ctr.run("--mount", f"type=bind,src={tmp_path}/none,dst=/x,options=rbind", command=("true",))
    assert gone.returncode == 1 and "none" in gone.stderr and "no such file" in gone.stderr.lower(), gone


def test_a_root_that_is_read_only_and_what_is_masked(ctr: Ctr) -> None:
    script = "echo x > /file; echo x > /proc/sys/kernel/domainname; echo x > /tmp/x; ls -A /sys/firmware; wc -c < "
    shown = ctr.sh(f"({script}/proc/timer_list) 2>&1", "--read-only")
    assert shown.count("Read-only file system") == 3 and shown.endswith("\n0"), shown


def test_the_hosts_network_or_none(ctr: Ctr) -> None:
    assert ctr.sh("ls /sys/class/net") == "lo"
    shown = ctr.sh("ls /sys/class/net; ip -o -4 addr show eth0; hostname", "--net-host")
    assert "eth1" in shown.split() and f" {ctr.machine.address}/24 " in shown
    assert os.uname().nodename in shown
    ctr.machine.run(["ip", "netns", "add", "mine"])
    ctr.machine.run(["ip", "-n", "mine", "link", "add", "marked", "type", "bridge"])
    try:
        assert "marked" in ctr.sh("ls /sys/class/net", "--with-ns", "network:/run/netns/mine").split()
    finally:
        ctr.machine.run(["ip", "netns", "delete", "mine"])


@pytest.mark.control
def test_limits_and_their_update(ctr: Ctr) -> None:
    ctr.start("--memory-limit", str(64 * MIB), "--cpus", "0.5", "--cpu-shares", "512")
    group = ctr.machine
    assert cgroup_file(group, "memory", "memory.limit_in_bytes") == str(64 * MIB)
    assert cgroup_file(group, "cpu", "cpu.cfs_quota_us") == "50000"
    assert cgroup_file(group, "cpu", "cpu.cfs_period_us") == "100000"
    assert cgroup_file(group, "cpu", "cpu.shares") == "512"
    limits = {
        "memory": {"limit": 128 * MIB},
        "cpu": {"quota": 20000, "period": 200000, "shares": 256},
        "pids": {"limit": 99},
    }
    update_task(group, "box", limits)
    assert cgroup_file(group, "memory", "memory.limit_in_bytes") == str(128 * MIB)
    assert cgroup_file(group, "cpu", "cpu.cfs_quota_us") == "20000"
    assert cgroup_file(group, "cpu", "cpu.cfs_period_us") == "200000"
    assert cgroup_file(group, "cpu", "cpu.shares") == "256"
    assert cgroup_file(group, "pids", "pids.max") == "99"
    ctr.end()


def test_a_cgroup_by_path(ctr: Ctr) -> None:
    path = f"/{ctr.machine.cgroup}/deep/er"
    shown = ctr.sh("cut -d: -f3 /proc/self/cgroup | sort -u", "--cgroup", path)
    assert shown == path
    for top in CGROUPS.glob(f"*/{ctr.machine.cgroup}/deep"):  # the parents are the caller's: runtimes leave them
        top.rmdir()


@pytest.mark.control
def test_the_end_of_memory_is_told(ctr: Ctr, events: Callable[[str], dict[str, Any]]) -> None:
    done = ctr.run("--memory-limit", str(24 * MIB), command=("sh", "-c", "exec tail /dev/zero"))
    assert done.returncode == 137, done
    assert events("/tasks/oom")["container_id"] == "box"
    assert events("/tasks/exit")["exit_status"] == 137
    assert events("/tasks/delete")["exit_status"] == 137


def test_privileges(ctr: Ctr) -> None:
    script = "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status | cut -f2 | tr '\\n' ' '"
    script += "; touch /proc/sys/kernel/domainname 2> /dev/null && echo writes; exit 0"
    assert ctr.sh(script).split() == ["00000000a80425fb", "1", "0"]
    assert ctr.sh(script, "--allow-new-privs").split()[1] == "0"
    assert ctr.sh(script, "--cap-add", "CAP_SYS_ADMIN", "--cap-drop", "CAP_CHOWN").split()[0] == "00000000a82425fa"
    own = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "CapEff" in line)
    assert ctr.sh(script, "--privileged").split() == [own, "1", "0", "writes"]
    assert (
        ctr.sh("head -c 1 /dev/kmsg > /dev/null; ls /dev/kmsg; mount -t tmpfs x /tmp && echo mounted", "--privileged")
        == "/dev/kmsg\nmounted"
    )


def test_devices(ctr: Ctr) -> None:
    attempt = "mknod /tmp/loop c 10 237 && (: < /tmp/loop) 2>&1"
    assert "not permitted" in ctr.sh(f"{attempt}; : < /dev/zero").lower()
    shown = ctr.sh(": < /dev/loop-control && stat -c %t:%T /dev/loop-control", "--device", "/dev/loop-control")
    assert shown == "a:ed"


def test_seccomp(ctr: Ctr, tmp_path: Path) -> None:
    script = "grep Seccomp: /proc/self/status | cut -f2; unshare -U true 2>&1 || echo refused"
    assert ctr.sh(script) == "0"
    shown = ctr.sh(script, "--seccomp").split("\n")
    assert shown[0] == "2" and shown[-1] == "refused" and "not permitted" in shown[1], shown
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [rule]}
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    shown = ctr.sh("mkdir /tmp/x 2>&1; true", "--seccomp", "--seccomp-profile", str(tmp_path / "profile.json"))
    assert "No space left on device" in shown


@pytest.mark.control
def test_a_user_namespace(ctr: Ctr) -> None:
    script = "id -u; tr -s ' ' < /proc/self/uid_map; stat -c %u:%g /bin/busybox; chown 5 /tmp; stat -c %u /tmp"
    maps = ("--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536")
    assert ctr.sh(script, *maps).split("\n") == ["0", " 0 100000 65536", "0:0", "5"]


@pytest.mark.control
def test_what_cannot_start_says_why(ctr: Ctr) -> None:
    """The texts are those by which engines decide between exit codes 126 and 127."""
    for program, why in (("no-such-program", "executable file not found"), ("/work/text", "permission denied")):
        done = ctr.run(command=(program,))
        assert done.returncode == 1 and program in done.stderr and why in done.stderr.lower(), done
        assert "OCI runtime create failed" in done.stderr, done
        assert ctr.tasks() == {}
        ctr.machine.settled()


def test_many_at_once(ctr: Ctr, tmp_path: Path) -> None:
    clients = []
    for n in range(6):
        script, file = f"echo of {n}; exit {n}", ("--log-uri", f"file://{tmp_path}/{n}")
        clients.append(ctr.machine.popen(ctr.words(*file, command=("sh", "-c", script), name=f"box{n}")))
    for n, client in enumerate(clients):
        assert client.communicate(timeout=SOON) == ("", "")
        assert (client.returncode, (tmp_path / str(n)).read_text()) == (n, f"of {n}\n")


def test_a_killed_shim(ctr: Ctr, events: Callable[[str], dict[str, Any]]) -> None:
    """containerd has a new shim undo everything, by ``delete --force``: the runtime must know all from its state."""
    pid = ctr.start()
    shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert "containerd-shim" in Path(f"/proc/{shim}/cmdline").read_text()
    os.kill(shim, signal.SIGKILL)
    assert events("/tasks/exit")["container_id"] == "box"
    until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the program")
    until(lambda: "box" not in ctr.tasks(), "the end of the task")
    ctr.machine.run(["ctr", "containers", "delete", "box"])
    ctr.machine.settled()


def test_a_restarted_daemon_finds_its_tasks(ctr: Ctr) -> None:
    pid = ctr.start()
    ctr.machine.restart()
    assert ctr.tasks() == {"box": (str(pid), "RUNNING")}
    assert ctr.exec("echo", "alive") == (0, "alive")
    assert ctr.end() == 137
