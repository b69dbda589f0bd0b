"""The cgroup of an OCI container on this machine's own layout: where it is, what it holds, whose it is, how it ends.

Everything is read back from the kernel's files, below a parent that only this file uses.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minirun import step
from minirun.errors import Conflict, InvalidDocument, MinirunError, Unsupported
from minirun.linux import cgroup
from minirun.runtime import placement
from minirun.runtime.control import Handle
from tests.fakehost import REPOSITORY

MIB = 1 << 20
JOIN = 'for file; do echo 0 > "$file"; done; echo in; exec sleep 100000'

v1 = pytest.mark.skipif(cgroup.layout().unified, reason="cgroup v2: tests/vm/guest has its tests")


class Box:
    """A container's cgroup, without the container."""

    def __init__(self, path: str, wanted: dict[str, Any] | None = None) -> None:
        self.config = {"linux": {"cgroupsPath": f"/{path}", "resources": wanted or {}}}
        self.placement = placement.place(self.config, "box")
        self.processes: list[subprocess.Popen[str]] = []

    def make(self) -> Box:
        step.do_all(self.placement.steps)
        return self

    @property
    def handle(self) -> Handle:
        return placement.load(self.placement.record)

    def file(self, name: str) -> str:
        return (Path(self.handle.directories[name.split(".")[0]]) / name).read_text().strip()

    def run(self, script: str = JOIN, *below: str) -> subprocess.Popen[str]:
        """A process that is inside when this returns."""
        joins, born = self.handle.joins(below)
        files = [*joins, *([f"{born}/cgroup.procs"] if born else [])]
        process = subprocess.Popen(["sh", "-c", script, "sh", *files], stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        assert process.stdout and process.stdout.readline() == "in\n"
        return process

    def nest(self, below: str) -> None:
        """Make a cgroup inside, as a container does that has one to itself; in v2 with no controller handed on."""
        for name, path in self.handle.directories.items():
            if name:
                cgroup.create(f"{path}/{below}")
            else:
                os.makedirs(f"{path}/{below}")

    def remove(self) -> None:
        errors = step.undo_all([step.load(one.record()) for one in self.placement.steps])
        for process in self.processes:
            process.kill()
            process.communicate()
        assert errors == []
        assert not self.left()

    def left(self) -> list[str]:
        return [path for path in self.handle.directories.values() if os.path.exists(path)]


@pytest.fixture(scope="module")
def parent() -> Iterator[str]:
    name = f"minirun-test-{os.getpid()}-limits"
    yield name
    tops = [Path(path) for path in cgroup.layout().everywhere(name).values()]
    left = [str(path) for top in tops if top.exists() for path in top.iterdir() if path.is_dir()]
    for top in tops:
        if top.exists():
            cgroup.remove(str(top))
    assert left == []


@pytest.fixture
def box(parent: str) -> Iterator[Box]:
    made = Box(f"{parent}/box").make()
    yield made
    made.remove()


@v1
def test_it_is_in_every_hierarchy(box: Box, parent: str) -> None:
    process = box.run()
    lines = Path(f"/proc/{process.pid}/cgroup").read_text().split()
    assert {line.split(":", 2)[2] for line in lines} == {f"/{parent}/box"}
    assert box.handle.processes() == [process.pid]


@v1
def test_the_kernel_has_the_limits(parent: str) -> None:
    wanted = {
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB, "swappiness": 10},
        "cpu": {"shares": 512, "quota": 50000, "period": 200000, "burst": 1000, "cpus": "0"},
        "pids": {"limit": 33},
        "blockIO": {"weight": 300},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}],
        "devices": [{"allow": False}, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}],
    }
    box = Box(f"{parent}/limited", wanted).make()
    try:
        assert [box.file(f"memory.{name}limit_in_bytes") for name in ("", "memsw.", "soft_")] == [
            str(64 * MIB), str(96 * MIB), str(32 * MIB)
        ]  # fmt: skip
        assert [box.file(f"cpu.{name}") for name in ("shares", "cfs_quota_us", "cfs_period_us", "cfs_burst_us")] == [
            "512", "50000", "200000", "1000"
        ]  # fmt: skip
        assert (box.file("memory.swappiness"), box.file("pids.max")) == ("10", "33")
        assert (box.file("cpuset.cpus"), box.file("cpuset.mems")) == ("0", "0")
        assert box.file("blkio.bfq.weight") == "300"
        devices = box.file("devices.list").splitlines()
        assert "c 10:229 rw" in devices and "c 1:3 rwm" in devices and "a *:* rwm" not in devices
        huge = Path(box.handle.directories.get("hugetlb") or box.handle.directories[""])
        assert (huge / "hugetlb.2MB.max").read_text() == f"{4 * MIB}\n"
    finally:
        box.remove()


@v1
def test_what_the_document_does_not_say_is_not_touched(box: Box) -> None:
    above = Path(box.handle.directories["memory"]).parent
    assert box.file("memory.limit_in_bytes") == (above / "memory.limit_in_bytes").read_text().strip()
    assert box.file("pids.max") == "max"
    assert box.file("cpuset.cpus") == Path("/sys/fs/cgroup/cpuset/cpuset.cpus").read_text().strip()


@v1
def test_without_a_word_about_devices_there_are_the_promised_ones(box: Box) -> None:
    lines = box.file("devices.list").splitlines()
    assert {"c 1:3 rwm", "c 136:* rwm"} <= set(lines)
    assert not {"a *:* rwm", "c 1:11 rwm"} & set(lines)


@v1
@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"unified": {"memory.high": "1"}}, "linux.resources.unified: invalid configuration: it is for cgroup v2"),
        ({"network": {"classID": 5}}, "linux.resources.network.classID: cgroup controller net_cls is not mounted"),
        ({"rdma": {"x": {"hcaHandles": 3}}}, "linux.resources.rdma['x']: cgroup controller rdma is not mounted"),
        ({"blockIO": {"leafWeight": 20}}, "linux.resources.blockIO.leafWeight: there is no"),
        ({"hugepageLimits": [{"pageSize": "4MB", "limit": 1}]}, "linux.resources.hugepageLimits[0]: there is no"),
        ({"cpu": {"quota": 5}}, "linux.resources.cpu.quota: the kernel refuses '5'"),
        ({"cpu": {"cpus": "5000"}}, "linux.resources.cpu.cpus: the kernel refuses '5000'"),
        ({"memory": {"limit": 2 * MIB, "swap": MIB}}, "linux.resources.memory.swap: the kernel refuses '1048576'"),
    ],
)
def test_a_limit_that_cannot_be_set_is_an_error(parent: str, wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(MinirunError) as raised:
        Box(f"{parent}/refused", wanted).make()
    assert str(raised.value).startswith(message), raised.value
    assert not [path for path in cgroup.layout().everywhere(f"{parent}/refused").values() if os.path.exists(path)]


@pytest.mark.parametrize("path", ["/", "..", "/a/../..", "a/../b", ".", 7])
def test_a_path_that_is_no_place_for_a_container(path: object) -> None:
    with pytest.raises(InvalidDocument, match=r"^linux\.cgroupsPath: "):
        placement.place({"linux": {"cgroupsPath": path}}, "box")


def test_where_nobody_says_where(monkeypatch: pytest.MonkeyPatch, parent: str) -> None:
    monkeypatch.setattr(cgroup, "parent", parent)
    found = placement.place({}, "some-id").record["directories"]
    assert {path[-len(parent) - 9 :] for path in found.values()} == {f"/{parent}/some-id"}
    assert (
        placement.place({"linux": {"cgroupsPath": "a/b"}}, "x").record["directories"]
        == (placement.place({"linux": {"cgroupsPath": "//a/./b/"}}, "x").record["directories"])
    )


def test_an_empty_one_that_is_there_is_taken(parent: str) -> None:
    for path in cgroup.layout().everywhere(f"{parent}/there").values():
        cgroup.create(path)
    box = Box(f"{parent}/there").make()
    box.run()
    box.remove()


@pytest.mark.parametrize("what", ["process", "child", "frozen"])
def test_one_that_is_used_by_others_stays_theirs(parent: str, what: str) -> None:
    """The control is the test above."""
    other = Box(f"{parent}/theirs")
    for path in other.handle.directories.values():
        cgroup.create(path)
    if what == "process":
        process = other.run()
    elif what == "child":
        inner = f"{list(other.handle.directories.values())[-1]}/inner"
        os.mkdir(inner)
    else:
        other.handle.freeze(True)
    with pytest.raises(
        Conflict, match="unexpectedly frozen" if what == "frozen" else "container's cgroup is not empty"
    ):
        Box(f"{parent}/theirs").make()
    if what == "process":
        assert process.poll() is None
        process.kill()
        process.communicate()
    elif what == "child":
        assert os.path.isdir(inner)
        os.rmdir(inner)
    else:
        assert other.handle.frozen()
    for path in other.handle.directories.values():
        cgroup.remove(path)


def test_the_second_of_two_gets_nothing_and_hurts_nothing(parent: str) -> None:
    """While the first is being made nothing is in it yet; only the lock tells."""
    first = Box(f"{parent}/both").make()
    second = Box(f"{parent}/both")
    with pytest.raises(Conflict, match="not empty"):
        second.make()
    process = first.run()
    first.placement.settle()
    with pytest.raises(Conflict, match="not empty"):
        second.make()
    assert step.undo_all(second.placement.steps) == []
    assert process.poll() is None
    first.remove()


def test_the_end_of_one_leaves_the_next_at_the_same_place_alone(parent: str) -> None:
    """One whose processes have ended, and that nobody has deleted yet, has an empty cgroup: another may take it."""
    first = Box(f"{parent}/again").make()
    first.placement.settle()
    second = Box(f"{parent}/again").make()
    process = second.run()
    second.placement.settle()
    assert step.undo_all(first.placement.steps) == []
    assert process.poll() is None
    second.remove()
    assert process.wait() == -9


def test_many_at_the_same_moment(parent: str) -> None:
    """Six programs for one path: one has it, whichever it is, and its process lives until it says so."""
    code = (
        "import sys\nfrom minirun import step\nfrom minirun.errors import Conflict\n"
        "from minirun.runtime import placement\n"
        f"place = placement.place({{'linux': {{'cgroupsPath': '{parent}/one'}}}}, 'x')\n"
        "try: step.do_all(place.steps)\n"
        "except Conflict: sys.exit(3)\n"
        "files = [*place.joins, *([place.born + '/cgroup.procs'] if place.born else [])]\n"
        "for name in files: open(name, 'w').write('0')\n"
        "print('mine', flush=True); sys.stdin.read(); place.settle()\n"
        "for name in files: open(name.replace('/" + parent + "/one', ''), 'w').write('0')\n"
        "print(step.undo_all(place.steps))\n"
    )
    command = [sys.executable, "-c", code]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": REPOSITORY}
    all_of_them = [subprocess.Popen(command, **pipes) for _ in range(6)]
    # The losers end by themselves; the winner waits for us.
    lines = [process.stdout.readline() for process in all_of_them if process.stdout]
    assert sorted(lines) == [""] * 5 + ["mine\n"]
    assert sorted(p.communicate()[0] for p in all_of_them) == [""] * 5 + ["[]\n"]
    assert sorted(process.returncode for process in all_of_them) == [0] + [3] * 5


@pytest.mark.parametrize("done", [0, 1, 2])
def test_what_a_kill_leaves_halfway_is_undone(parent: str, done: int) -> None:
    """The plan is on disk before the first step; whoever comes later has nothing else."""
    box = Box(f"{parent}/halfway", {"pids": {"limit": 5}})
    plan = [one.record() for one in box.placement.steps]
    if done == 1:
        cgroup.create(next(iter(box.handle.directories.values())))
    if done == 2:
        box.make()
        box.placement.settle()  # the lock of one that was killed is free
    assert step.undo_all([step.load(record) for record in plan]) == []
    assert box.left() == []


def test_freeze_and_thaw(box: Box) -> None:
    counter = 'for file; do echo 0 > "$file"; done; echo in; while read line; do echo $line; done'
    joins, born = box.handle.joins()
    files = [*joins, *([f"{born}/cgroup.procs"] if born else [])]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(["sh", "-c", counter, "sh", *files], **pipes)
    box.processes.append(process)
    assert process.stdout and process.stdin and process.stdout.readline() == "in\n"
    assert not box.handle.frozen()
    box.handle.freeze(True)
    assert box.handle.frozen()
    assert Path(box.handle.freezer).read_text()[0] in "F1"
    process.stdin.write("echo\n")
    process.stdin.flush()
    os.set_blocking(process.stdout.fileno(), False)
    assert process.stdout.readline() == ""
    os.set_blocking(process.stdout.fileno(), True)
    box.handle.freeze(False)
    assert not box.handle.frozen()
    assert process.stdout.readline() == "echo\n"


@pytest.mark.parametrize("frozen", [False, True])
def test_kill_reaches_everyone(box: Box, frozen: bool) -> None:
    """Also those in cgroups that the container made itself."""
    box.nest("inner/most")
    processes = [box.run(), box.run(), box.run(JOIN, "inner/most"), box.run(JOIN, "/inner")]
    assert sorted(box.handle.processes()) == sorted(process.pid for process in processes)
    assert sorted(box.handle.processes(recursive=False)) == sorted(process.pid for process in processes[:2])
    if frozen:
        box.handle.freeze(True)
    box.handle.kill(9)
    assert box.handle.processes() == []
    assert [process.wait() for process in processes] == [-9] * 4


def test_a_signal_goes_to_each(box: Box) -> None:
    processes = [box.run(), box.run()]
    box.handle.kill(15)
    assert [process.wait() for process in processes] == [-15, -15]


def test_delete_takes_what_is_frozen_and_nested(parent: str) -> None:
    box = Box(f"{parent}/nested").make()
    box.nest("inner")
    process = box.run(JOIN, "inner")
    box.handle.freeze(True)
    box.remove()
    assert process.returncode == -9


def test_a_sub_cgroup_must_be_inside_and_there(box: Box) -> None:
    said = {
        "../box": "bad sub cgroup path",
        "/no-such": "no such file or directory",
        "what:/": "unknown controller what",
    }
    for below, why in said.items():
        with pytest.raises(InvalidDocument, match=rf"^cgroup '{below}': .*{why}"):
            box.handle.joins([below])
    assert box.handle.joins(["/"]) == box.handle.joins(["."]) == box.handle.joins()


@v1
def test_a_sub_cgroup_of_some_controllers(box: Box, parent: str) -> None:
    for name in ("memory", "pids"):
        os.mkdir(f"{box.handle.directories[name]}/inner")
    process = box.run(JOIN, "memory,pids:inner", "cpu:/")
    lines = [line.split(":", 2) for line in Path(f"/proc/{process.pid}/cgroup").read_text().split()]
    inside = {controllers for _, controllers, path in lines if path == f"/{parent}/box/inner"}
    assert inside == {"memory", "pids"}
    assert {path for _, controllers, path in lines if controllers not in inside} == {f"/{parent}/box"}


LIMITS = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "cpu.cfs_quota_us", "cpu.cfs_period_us", "pids.max")


@v1
def test_update_up_and_down(box: Box) -> None:
    """Memory never exceeds memory and swap, whatever comes first in which direction."""

    def after(memory: dict[str, int], cpu: dict[str, int], pids: int) -> list[str]:
        box.handle.update({"memory": memory, "cpu": cpu, "pids": {"limit": pids}})
        return [box.file(name) for name in LIMITS]

    unlimited = box.file("memory.limit_in_bytes")
    small, large = {"limit": 8 * MIB, "swap": 9 * MIB}, {"limit": 80 * MIB, "swap": 90 * MIB}
    assert after(small, {"quota": 1000, "period": 2000}, 5) == [str(8 * MIB), str(9 * MIB), "1000", "2000", "5"]
    assert after(large, {"quota": 900000, "period": 900000}, 7) == [
        str(80 * MIB),
        str(90 * MIB),
        "900000",
        "900000",
        "7",
    ]
    assert after(small, {"quota": 1000, "period": 1000}, 0) == [str(8 * MIB), str(9 * MIB), "1000", "1000", "7"]
    assert after({"limit": -1}, {"quota": -1}, -1) == [unlimited, unlimited, "-1", "1000", "max"]


@v1
@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ({"memory": {"limit": 300 * MIB}}, "linux.resources.memory.limit: the kernel refuses"),
        ({"cpu": {"quota": 1}}, "linux.resources.cpu.quota: the kernel refuses '1'"),
        ({"cpu": {"cpus": "5000"}}, "linux.resources.cpu.cpus: the kernel refuses '5000'"),
        ({"blockIO": {"weight": 5000}}, "linux.resources.blockIO.weight: the kernel refuses '5000'"),
        ({"rdma": {"x": {"hcaHandles": 1}}}, "linux.resources.rdma['x']: cgroup controller rdma is not mounted"),
    ],
)
def test_an_update_is_done_as_a_whole_or_not_at_all(box: Box, refused: dict[str, Any], message: str) -> None:
    box.handle.update({"memory": {"limit": 100 * MIB, "swap": 200 * MIB}, "pids": {"limit": 9}})
    before = [box.file(name) for name in LIMITS]
    good: dict[str, Any] = {"memory": {"reservation": 5 * MIB}, "pids": {"limit": 10}, "cpu": {"period": 50000}}
    for section, values in refused.items():
        good[section] = {**good.get(section, {}), **values}
    with pytest.raises(MinirunError) as raised:
        box.handle.update(good)
    assert str(raised.value).startswith(message), raised.value
    assert [box.file(name) for name in LIMITS] == before
    assert box.file("memory.soft_limit_in_bytes") != str(5 * MIB)


@v1
def test_update_of_devices_with_cgroups_below(box: Box) -> None:
    rule = {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"}
    box.handle.update({"devices": [{"allow": False}, rule]})
    os.mkdir(f"{box.handle.directories['devices']}/inner")
    assert "c 10:229 rwm" in box.file("devices.list").splitlines()
    box.handle.update({"devices": [{"allow": False}, {**rule, "minor": 200}]})
    assert "c 10:229 rwm" not in box.file("devices.list").splitlines()
    assert {"c 10:200 rwm", "c 1:3 rwm"} <= set(box.file("devices.list").splitlines())


def test_stats_are_the_kernels_numbers(box: Box) -> None:
    use = "head -c 9M /dev/zero | tail -c 8M | sha256sum > /dev/null"
    script = f'for file; do echo 0 > "$file"; done; {use}; echo in; exec sleep 1000'
    box.handle.update({"memory": {"limit": 100 * MIB, "swap": 200 * MIB}, "pids": {"limit": 9}})
    process = box.run(script)
    process.kill()
    process.wait()
    found = box.handle.stats()
    assert found["memory"]["usage"]["limit"] == 100 * MIB
    assert found["memory"]["swap"]["limit"] == 200 * MIB
    assert found["memory"]["usage"]["max"] >= 8 * MIB
    assert found["pids"] == {"current": 0, "limit": 9}
    usage = found["cpu"]["usage"]
    assert usage["total"] > 1_000_000
    assert found["cpu"]["throttling"] == {"periods": 0, "throttledPeriods": 0, "throttledTime": 0}
    assert (found["intel_rdt"], found["network_interfaces"]) == ({}, [])
    if not box.handle.unified:
        assert sum(usage["percpu"]) == usage["total"] == int(box.file("cpuacct.usage"))
        assert found["memory"]["raw"]["hierarchical_memory_limit"] == 100 * MIB
        assert len(found["cpuset"]["cpus"]) == os.cpu_count()


def as_user(job: Callable[[], str], group: Path | None = None) -> str:
    """What ``job`` returns, done by an ordinary user, in the cgroup ``group``."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            if group:
                (group / "cgroup.procs").write_text("0")
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            os.write(writer, job().encode())
        except BaseException as error:
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.parametrize(
    ("linux", "said"),
    [
        ({}, "[] [] None {}"),
        ({"resources": {"devices": [{"allow": False}], "memory": {}}}, "[] [] None {}"),
        ({"resources": {"pids": {"limit": 5}}}, "linux.resources.pids.limit: you have no cgroup to set a limit in; "),
        ({"cgroupsPath": "/box"}, "linux.cgroupsPath: you may make no cgroup box; "),
    ],
)
def test_a_user_without_a_cgroup(linux: dict[str, Any], said: str) -> None:
    """Nothing asked, nothing missing; but no limit is left out in silence."""

    def job() -> str:
        try:
            place = placement.place({"linux": linux}, "box", rootless=True)
        except Unsupported as error:
            return str(error)
        handle = placement.load(place.record)
        assert (handle.processes(), handle.frozen(), handle.freezer, handle.joins()) == ([], False, "-", ([], None))
        handle.kill(9)
        return f"{place.steps} {place.joins} {place.born} {place.record['directories']}"

    assert as_user(job).startswith(said)


def test_there_is_no_systemd_here() -> None:
    if os.path.isdir("/run/systemd/system"):
        pytest.skip("systemd runs here")
    with pytest.raises(Unsupported, match="systemd"):
        placement.place({}, "box", systemd=True)
