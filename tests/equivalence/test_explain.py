"""``minirun explain run ... | sh`` makes the container that ``minirun run ...`` makes, and explain itself nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.equivalence.observe import Observer, differences, wait_for_program
from tests.lifecycle.machine import MINIRUN, SOON, Machine

SLEEP = ("busybox", "sleep", "1000")
ODD = 'it\'s "$HOME" `id` \\ *\nINSIDE\nEND\n;'
OPTIONS = {
    "defaults": [],
    "limits": ["-m", "64m", "--cpus", "0.5", "--pids-limit", "50"],
    "ports": ["-p", "8080:80", "-p", "127.0.0.1:7070:70/udp"],
    "files": ["--read-only", "--tmpfs", "/x", "-v", "/run/dir:/v:ro", "-v", "/run/file:/f", "-w", "/new/dir"],
    "user": ["-u", "nobody", "-w", "/tmp"],
    "rights": ["--cap-drop", "ALL", "--cap-add", "CHOWN", "--hostname", "h", "-e", "A=b c'd\"e"],
    "no rights": ["--cap-drop", "ALL", "-u", "0:0"],
    "every right": ["--cap-add", "ALL"],
    "no network": ["--net", "none"],
    "host network": ["--net", "host"],
    "two networks": ["--net", "dual", "--net", "one:ip=10.78.0.9,mac=02:42:00:00:00:09", "-p", "8080:80"],
    "IPv6": ["--net", "dual", "--ip6", "fd00:77::99", "--network-alias", "db"],
    "names": [
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "example.org",
        "--dns-opt",
        "ndots:2",
        "--add-host",
        "db:192.0.2.7",
    ],
    "host's names": ["--net", "host", "--dns", "192.0.2.53", "--add-host", "db:192.0.2.7"],
    "isolated": ["--net", "alone"],
    "internal": ["--net", "inside", "--net", "one:interface_name=wan"],
    "odd words": ["--name", "a.b-c_d", "-e", f"ODD={ODD}", "-v", "/run/odd $a'b:/o d$d'd", "-w", "/w $HOME 'x'"],
    "file's name on the host": ["-v", "/run/file:/etc/resolv.conf", "--tmpfs", "/t:size=1m,mode=700,exec"],
}


def explain(host: Machine, *words: str) -> str:
    script = host.minirun("explain", *words).stdout
    checked = host.run(["sh", "-n"], stdin=script)
    assert checked.stderr == ""
    return script


@contextmanager
def by_hand(host: Machine, script: str, tmp_path: Path) -> Iterator[str]:
    """Run the script in the background; the container's id. At the end its program is killed, and the script ends."""
    identity = re.findall(r"^export id=([0-9a-f]{64})$", script, re.M)[0]
    with open(tmp_path / "said", "w+") as said:
        shell = host.popen(["sh"], stdin=subprocess.PIPE, stdout=said, stderr=said)
        assert shell.stdin
        shell.stdin.write(script)
        shell.stdin.close()
        try:
            yield identity
        except BaseException:
            said.seek(0)
            print(said.read())
            raise
        finally:
            if shell.poll() is None:
                program = os.pidfd_open(wait_for_program(host, identity))
                signal.pidfd_send_signal(program, signal.SIGKILL)
                os.close(program)
            shell.wait(SOON)
        said.seek(0)
        # What shells and unshare(1) of util-linux 2.38 say of a child that was killed.
        about_the_end = ("Killed\n", "unshare: sigprocmask unblock failed: Invalid argument\n")
        assert [line for line in said if line not in about_the_end] == []


NETWORKS = {
    "one": ["--subnet", "10.78.0.0/24"],
    "dual": ["--subnet", "10.77.0.0/24", "--subnet", "fd00:77::/64", "--mtu", "1400"],
    "alone": ["--subnet", "10.79.0.0/24", "--isolate"],
    "inside": ["--subnet", "10.80.0.0/24", "--internal"],
    "all": [
        *("--subnet", "10.81.0.0/24", "--gateway", "10.81.0.254", "--ip-range", "10.81.0.128/25", "--icc=false"),
        *(
            "--subnet",
            "fd00:81::/64",
            "--internal",
            "--dns",
            "198.51.100.53",
            "--label",
            "it's=$HOME",
            "-o",
            "mtu=1400",
        ),
    ],
}


def prepare(host: Machine) -> None:
    for name in ("one", "dual", "alone", "inside"):
        host.minirun("network", "create", name, *NETWORKS[name])
    odd = "/run/odd $a'b"
    host.run(["mkdir", "-p", "/run/dir/below", odd])
    host.run(["mount", "-t", "tmpfs", "-o", "nosuid", "tmpfs", "/run/dir/below"])
    host.run(["sh", "-c", 'echo text > /run/file; echo inner > "$1/inner"', "sh", odd])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_script_makes_the_same_container(host: Machine, other: Machine, options: list[str], tmp_path: Path) -> None:
    for machine in (host, other):
        prepare(machine)
    options = ["--name", "box", *options]
    identity = host.out("run", "-d", *options, *SLEEP)
    run = Observer(host, identity).everything()
    with by_hand(other, explain(other, "run", *options, *SLEEP), tmp_path) as copy:
        made = Observer(other, copy).everything()
    assert differences(run, made) == []


def test_the_comparison_sees_a_difference(host: Machine, other: Machine, tmp_path: Path) -> None:
    """The control: one flag less in one mount, one capability more, one element less."""
    identity = host.out("run", "-d", "--name", "box", *SLEEP)
    run = Observer(host, identity).everything()
    script = explain(other, "run", "--name", "box", *SLEEP)
    weakened = script.replace("-o nosuid,noexec,nodev mqueue", "-o noexec,nodev mqueue")
    weakened = weakened.replace("+chown,", "+chown,+net_raw,")
    weakened = re.sub(r"nft add element inet minirun masq_br.*", "", weakened)
    with by_hand(other, weakened, tmp_path) as copy:
        made = Observer(other, copy).everything()
    assert {name for name in run if run[name] != made[name]} == {"mounts", "process", "firewall"}


@pytest.mark.parametrize("flags", NETWORKS.values(), ids=NETWORKS)
def test_a_network(host: Machine, other: Machine, flags: list[str]) -> None:
    """``network create`` and its script: the same bridge, settings, elements and record."""
    host.minirun("network", "create", "lab", *flags)
    other.run(["sh"], stdin=explain(other, "network", "create", "lab", *flags))
    seen = []
    for machine in (host, other):
        watcher = Observer.__new__(Observer)
        watcher.host, watcher.identity = machine, "0" * 64
        record = machine.path(f"{machine.root}/networks/lab/network.json").read_text()
        seen.append([watcher.network(), watcher.firewall(), re.sub(r'"created": ?"[^"]*"', "", record).strip()])
    assert differences(*seen) == []
    assert host.out("network", "ls", "-q") == other.out("network", "ls", "-q")


def test_what_a_shell_cannot_do_is_said(host: Machine) -> None:
    comments = [line for line in explain(host, "run", *SLEEP).splitlines() if line.startswith("# ")]
    for subject in ("seccomp", "keyring", "DUMPABLE", "follows an image's links", "inherits"):
        assert any(subject in comment for comment in comments), subject


def test_what_is_not_asked_for_is_not_said(host: Machine) -> None:
    script = explain(host, "run", "--security-opt", "seccomp=unconfined", *SLEEP)
    assert "seccomp" not in script


def _state(host: Machine) -> dict[str, object]:
    """Everything that a command of minirun could leave, but the compiled filters, which are only a cache."""
    folders = [host.path(top) for top in (host.state, host.root, "/run/netns") if host.path(top).exists()]
    shown = [path for folder in folders for path in folder.rglob("*")]
    shown = [path for path in shown if "seccomp" not in str(path) and not {"images", "layers"} & set(path.parts)]
    return {
        "files": {str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns) for path in shown},
        "links": host.run(["sh", "-c", "ip -o link; ip -o -4 address"]).stdout,
        "firewall": host.run(["nft", "list", "ruleset"]).stdout,
        "settings": host.run(["sysctl", "-a", "--pattern", r"^net\.ipv4"]).stdout,
        "cgroups": host.cgroups(),
        "mounts": Path(f"/proc/{host.pid}/mountinfo").read_text(),
        "processes": host.processes(),
    }


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_explain_changes_nothing(host: Machine, used: bool) -> None:
    if used:
        host.out("run", "-d", *SLEEP)
    before = _state(host)
    explain(host, "run", "-p", "8080:80", "-m", "64m", *SLEEP)
    explain(host, "network", "create", "lab")
    assert differences(before, _state(host)) == []


def test_the_address_is_the_one_that_run_gives(host: Machine) -> None:
    host.out("run", "-d", *SLEEP)
    said = re.findall(r"leases/([0-9.]+)", explain(host, "run", "--name", "box", *SLEEP))[0]
    host.out("run", "-d", "--name", "box", *SLEEP)
    assert host.inspect("box")["NetworkSettings"]["IPAddress"] == said


@pytest.mark.parametrize("network", ["br0", "none"])
def test_steps_have_the_numbers_that_errors_cite(host: Machine, network: str) -> None:
    """A cgroup below a plain file cannot be made."""
    file = "tasks" if Path("/sys/fs/cgroup/memory/tasks").exists() else "cgroup.procs"
    broken = ["env", f"MINIRUN_CGROUP_PARENT={file}"]
    words = ["--net", network, *SLEEP]
    script = host.run([*broken, *MINIRUN, "explain", "run", *words]).stdout
    done = host.run([*broken, *MINIRUN, "run", *words], check=False)
    cited = re.findall(r"step (\d+) \(cgroup\) failed", done.stderr)
    assert done.returncode == 125 and cited == re.findall(r"^# (\d+) cgroup$", script, re.M)


def test_steps_count_up_from_one_in_each_plan(host: Machine) -> None:
    plans = re.split(r"^# -- .* --$", explain(host, "run", "-p", "8080:80", *SLEEP), flags=re.M)[1:]
    assert len(plans) == 2
    for plan in plans:
        numbers = re.findall(r"^# (\d+) \w+$", plan, re.M)
        assert [int(number) for number in numbers] == list(range(1, len(numbers) + 1))
