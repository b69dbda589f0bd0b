"""``podman run``: what it asks of a runtime, seen from inside the container and from the host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.clients.podman import IMAGE, Podman
from tests.lifecycle.machine import SOON
from tests.lifecycle.terminal import terminal


@pytest.mark.control
def test_exit_codes_and_streams(podman: Podman) -> None:
    done = podman.do("run", "--rm", "-i", IMAGE, "sh", "-c", "cat; echo bad >&2; exit 7", check=False, stdin="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "in\n", "bad\n")
    assert podman.do("run", "--rm", IMAGE, "true").stdout == ""
    podman.refused(137, "run", "--rm", "--pid=host", IMAGE, "sh", "-c", "kill -9 $$")
    many = podman.sh("seq 200000")
    assert many.split() == [str(number) for number in range(1, 200001)]


@pytest.mark.control
def test_a_program_that_cannot_be_started(podman: Podman) -> None:
    assert "no-such" in podman.refused(127, "run", "--rm", IMAGE, "no-such")
    assert "no such file or directory" in podman.refused(127, "run", "--rm", IMAGE, "/bin/no-such").lower()
    assert "permission denied" in podman.refused(126, "run", "--rm", IMAGE, "/work/text").lower()
    assert "permission denied" in podman.refused(126, "run", "--rm", IMAGE, "/work").lower()
    assert "/work/text" in podman.refused(126, "run", "--rm", "-w", "/work/text", IMAGE, "true")


@pytest.mark.control
def test_what_the_program_is(podman: Podman) -> None:
    script = (
        "id; pwd; hostname; echo $COLOUR; umask; cat /proc/self/oom_score_adj; ulimit -n; cat /proc/sys/kernel/msgmax"
    )
    options = "--user=alice:staff --workdir=/work --hostname=box --env=COLOUR=blue --umask=0027 --oom-score-adj=500"
    limits = "--ulimit=nofile=100:200 --ulimit=nproc=900:900 --sysctl=kernel.msgmax=4000"
    assert podman.sh(script, *options.split(), *limits.split()).splitlines() == [
        "uid=1000(alice) gid=50(staff) groups=50(staff)",
        *("/work", "box", "blue", "0027", "500", "100", "4000"),
    ]
    groups = podman.sh("id -G; pwd", "--user=12:34", "--group-add=56", "--workdir=/home/alice")
    assert groups.splitlines() == ["34 56", "/home/alice"]


def test_a_terminal(podman: Podman) -> None:
    with terminal(33, 77) as screen:
        command = screen.run(podman, "run", "--rm", "-it", IMAGE, "sh")  # type: ignore[arg-type]
        screen.expect(r"# ")
        screen.type("tty; stty size; ls -l /proc/self/fd/0\n")
        screen.expect(r"/dev/pts/0\r\n33 77\r\n.* -> /dev/pts/0")
        screen.resize(44, 88)
        screen.type("until stty size | grep 44; do :; done\n")
        screen.expect(r"\n44 88")
        screen.type("sh -c 'echo asleep | tr a A; exec sleep 1000'\n")
        screen.expect(r"Asleep")
        screen.type(b"\x03")
        screen.type("exit 3\n")
        assert command.wait(SOON) == 3


def test_volumes_and_read_only_roots(podman: Podman) -> None:
    podman.write("/run/test/shared/text", "from the host\n")
    podman.write("/run/test/shared/sub/text", "below\n")
    script = """
        cat /rw/text /file; echo changed >/rw/new; echo no >/ro/new; echo no >/bin/new
        echo yes >/tmp/new && cat /tmp/new
        grep -E ' /(rw|ro|tmp|scratch) ' /proc/mounts | cut -d ' ' -f 2-4; echo no >/file; ls /rw
    """
    volumes = "-v=/run/test/shared:/rw -v=/run/test/shared:/ro:ro,noexec -v=/run/test/shared/text:/file:ro"
    options = "--read-only --tmpfs=/scratch:size=64k,mode=700,noexec"
    done = podman.do("run", "--rm", *volumes.split(), *options.split(), IMAGE, "sh", "-c", script)
    assert podman.path("/run/test/shared/new").read_text() == "changed\n"
    refusals = done.stderr.splitlines()
    assert [line.split(": ")[-2:] for line in refusals] == [
        [f"can't create {file}", "Read-only file system"] for file in ("/ro/new", "/bin/new", "/file")
    ]
    lines = done.stdout.splitlines()
    assert lines[:2] == ["from the host", "from the host"]
    assert "yes" in lines and lines[-3:] == ["new", "sub", "text"]
    mounts = {line.split()[0]: set(line.split()[2].split(",")) for line in lines if line.startswith("/")}
    assert {"ro", "noexec"} <= mounts["/ro"] and "rw" in mounts["/rw"] and "noexec" not in mounts["/rw"]
    assert {"rw", "size=64k", "mode=700", "noexec", "nosuid", "nodev"} <= mounts["/scratch"]


def test_mounts_propagate_as_asked(podman: Podman) -> None:
    podman.run(["mkdir", "-p", "/run/test/outer"])
    podman.run(["mount", "-t", "tmpfs", "tmpfs", "/run/test/outer"])
    podman.run(["mount", "--make-shared", "/run/test/outer"])
    podman.run(["mkfifo", f"{podman.signals}/go"])
    script = """
        mkdir -p /rshared/made && mount -t tmpfs made /rshared/made && ready
        read _ </signals/go; cat /proc/mounts >/signals/mounts
    """
    volumes = [f"-v=/run/test/outer:/{kind}:{kind}" for kind in ("rshared", "rslave", "rprivate")]
    identity = podman.start(script, *volumes, "--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined")
    podman.run(["sh", "-c", "mkdir /run/test/outer/inner && mount -t tmpfs tmpfs /run/test/outer/inner"])
    podman.write(f"{podman.signals}/go", "\n")
    podman.do("wait", identity)
    seen = podman.said("mounts")
    assert " /rshared/inner " in seen and " /rslave/inner " in seen and " /rprivate/inner " not in seen
    assert " /run/test/outer/made " in Path(f"/proc/{podman.pid}/mounts").read_text()
    podman.run(["umount", "--recursive", "/run/test/outer"])


def test_capabilities_and_filters(podman: Podman) -> None:
    script = "grep -E 'Cap|Seccomp:|NoNewPrivs' /proc/self/status; mkdir /tmp/a || :"
    profile = podman.write("/run/test/profile.json", json.dumps(PROFILE))

    def shown(*options: str) -> dict[str, str]:
        lines = podman.sh(f"{{ {script}; }} 2>&1", *options).splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    plain = shown()
    assert plain["CapEff"] == plain["CapPrm"] == plain["CapBnd"] == "00000000800405fb"
    assert (plain["CapAmb"], plain["Seccomp"], plain["NoNewPrivs"]) == ("0" * 16, "2", "0")
    assert "mkdir" not in plain
    bare = shown("--cap-drop=all", "--cap-add=chown,net_raw", "--security-opt=no-new-privileges")
    assert (bare["CapEff"], bare["NoNewPrivs"]) == ("0000000000002001", "1")
    own = shown(f"--security-opt=seccomp={profile}")
    assert own["Seccomp"] == "2" and own["mkdir"] == "can't create directory '/tmp/a': Operation not permitted"
    user = shown("--user=alice", "--cap-add=chown")
    assert (user["CapEff"], user["CapPrm"], user["CapInh"], user["CapAmb"]) == ("0000000000000001",) * 4
    assert shown("--security-opt=seccomp=unconfined")["Seccomp"] == "0"


PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"],
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
}
