"""The OCI runtime called by an ordinary user: a user namespace, id maps by newuidmap(1), no cgroup, no bridge.

The program is a copy that everybody may read: a checkout may lie where only root can look.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench import installed
from tests.runtime.bundles import RuntimeHost, one_line

UID, FIRST, COUNT = 12345, 200000, 65536
HOME = "/run/joe"


class Joe:
    """A user of a fake host, with a bundle at home and the ids from FIRST on in /etc/subuid."""

    def __init__(self, host: RuntimeHost, program: Path) -> None:
        self.host, self.program = host, str(program)
        host.run(["sh", "-c", _PREPARE.format(uid=UID, first=FIRST, count=COUNT, home=HOME, bundle=host.bundle)])

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``minirun-oci ...`` as joe, in the bundle's directory."""
        user = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
        return self.host.call(*user, "env", "-C", f"{HOME}/b", f"XDG_RUNTIME_DIR={HOME}/run", self.program, *words)

    def oci(self, *words: str, code: int = 0) -> str:
        """The same; it must end with ``code``. What it printed."""
        done = self.run(*words)
        assert done.returncode == code, done
        return done.stdout

    def configure(self, args: list[str], maps: list[tuple[int, int, int]], **change: Any) -> None:
        """Write the bundle's config.json as `spec --rootless` has it, with these id maps."""
        self.host.path(f"{HOME}/b/config.json").unlink(missing_ok=True)
        self.oci("spec", "--rootless")
        path = self.host.path(f"{HOME}/b/config.json")
        document = json.loads(path.read_text())
        document["process"] |= {"args": args, "terminal": False}
        entries = [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in maps]
        document["linux"] |= {"uidMappings": entries, "gidMappings": entries, **change}
        path.write_text(json.dumps(document))


_PREPARE = """set -e
mkdir -p {home}/run
cp -r {bundle} {home}/b
chown -R {uid}:{uid} {home}
cp /etc/passwd /run/passwd; echo joe:x:{uid}:{uid}::{home}:/bin/sh >> /run/passwd
mount --bind /run/passwd /etc/passwd
echo joe:{first}:{count} > /run/subids; touch /etc/subuid /etc/subgid
mount --bind /run/subids /etc/subuid; mount --bind /run/subids /etc/subgid
"""
ALONE = [(0, UID, 1)]
MANY = [(0, UID, 1), (1, FIRST, COUNT)]


@pytest.fixture(scope="module")
def program() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="minirun-test-", dir="/dev/shm"))
    folder.chmod(0o755)
    try:
        made = installed.make(folder / "minirun")
        for link in (folder / "minirun").glob("lib/python*/site-packages/_cffi_backend.*.so"):
            target = link.resolve()
            link.unlink()
            shutil.copy(target, link)
        yield made.with_name("minirun-oci")
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def joe(machine: RuntimeHost, program: Path) -> Joe:
    assert shutil.which("newuidmap"), "uidmap is not installed: scripts/provision.sh test brings it"
    return Joe(machine, program)


@pytest.mark.parametrize("maps", [ALONE, MANY], ids=["own id", "ids of /etc/subuid"])
def test_root_inside_is_the_caller_outside(joe: Joe, maps: list[tuple[int, int, int]]) -> None:
    script = "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map; echo x > /made; ls -ln /made"
    joe.configure(["sh", "-c", f"{script} 2>&1"], maps)
    path = joe.host.path(f"{HOME}/b/config.json")
    path.write_text(path.read_text().replace('"readonly": true', '"readonly": false'))
    lines = joe.oci("run", "box").splitlines()
    mapped = [[str(number) for number in entry] for entry in maps]
    assert lines[:2] == ["0", "0"]
    assert [line.split() for line in lines[2 : 2 + 2 * len(maps)]] == [*mapped, *mapped]
    made = joe.host.path(f"{HOME}/b/rootfs/made")
    assert (made.stat().st_uid, lines[-1].split()[2]) == (UID, "0")
    made.unlink()
    assert joe.oci("list", "-q") == ""


def test_the_life_of_a_container_and_exec(joe: Joe) -> None:
    joe.configure(["sleep", "1000"], MANY)
    joe.oci("create", "box")
    state = json.loads(joe.oci("state", "box"))
    assert state["status"] == "created"
    assert Path(f"/proc/{state['pid']}").stat().st_uid in (UID, 0)  # root's while it is undumpable
    joe.oci("start", "box")
    for _ in range(5):  # at once after the start: the program is there, or exec could not enter
        assert joe.oci("exec", "box", "sh", "-c", "echo $$; exit 7", code=7).strip() != "1"
    assert joe.oci("exec", "--user", "5:6", "box", "sh", "-c", "id -u; id -g") == "5\n6\n"
    joe.oci("kill", "box", "KILL")
    joe.oci("delete", "--force", "box")
    assert one_line(joe.run("state", "box").stderr).count("does not exist")


def test_the_own_id_alone_cannot_change_groups(joe: Joe) -> None:
    joe.configure(["sh", "-c", "cat /proc/self/setgroups; id -G"], ALONE)
    assert joe.oci("run", "box").splitlines()[0] == "deny"


def test_what_is_not_his_to_map_is_refused(joe: Joe) -> None:
    for maps in ([(0, UID, 1), (1, FIRST + COUNT, 10)], [(0, 0, 1)], [(0, FIRST, COUNT + 1)]):
        joe.configure(["id"], maps)
        done = joe.run("run", "box")
        assert done.returncode == 1 and "map" in one_line(done.stderr.splitlines(keepends=True)[-1])
    assert joe.oci("list", "-q") == ""


def test_limits_without_a_cgroup_of_his_own_are_refused(joe: Joe) -> None:
    """This host delegates no cgroup to joe; a limit that nobody keeps must not look like one."""
    joe.configure(["true"], ALONE, resources={"memory": {"limit": 1 << 26}})
    done = joe.run("run", "box")
    assert done.returncode == 1 and "cgroup" in one_line(done.stderr), done
    assert joe.host.leftovers() == []


def test_a_filter_and_no_new_privileges(joe: Joe) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [rule]}
    joe.configure(["sh", "-c", "mkdir /dev/x 2>&1; grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status"], ALONE)
    path = joe.host.path(f"{HOME}/b/config.json")
    document = json.loads(path.read_text())
    document["linux"]["seccomp"] = profile
    path.write_text(json.dumps(document))
    told = joe.oci("run", "box")
    assert "not supported" in told and "Seccomp:\t2" in told and "NoNewPrivs:\t1" in told


def test_nothing_of_root_is_touched(joe: Joe) -> None:
    """Neither the state of root's containers nor theirs of his."""
    joe.host.configure(["/bin/sleep", "1000"])
    joe.host.oci("create", "roots")
    assert joe.oci("list", "-q") == ""
    assert "does not exist" in joe.run("kill", "roots", "KILL").stderr
    assert joe.run("--root", joe.host.top, "state", "roots").returncode == 1
    joe.host.clean()


def test_the_engine_says_that_it_needs_root(joe: Joe) -> None:
    done = joe.host.call("setpriv", f"--reuid={UID}", "--clear-groups", joe.program.removesuffix("-oci"), "ps")
    assert done.returncode == 125 and "needs root" in done.stderr
