"""The cgroup of an OCI container on cgroup v2: the tests of tests/runtime that are of both layouts, and some of v2."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minirun import step
from minirun.errors import MinirunError, Unsupported
from minirun.linux import cgroup
from minirun.runtime import placement
from tests.runtime.test_limits import (
    Box,
    as_user,
    box,
    parent,
    test_a_path_that_is_no_place_for_a_container,
    test_a_signal_goes_to_each,
    test_a_sub_cgroup_must_be_inside_and_there,
    test_a_user_without_a_cgroup,
    test_an_empty_one_that_is_there_is_taken,
    test_delete_takes_what_is_frozen_and_nested,
    test_freeze_and_thaw,
    test_kill_reaches_everyone,
    test_many_at_the_same_moment,
    test_one_that_is_used_by_others_stays_theirs,
    test_stats_are_the_kernels_numbers,
    test_the_end_of_one_leaves_the_next_at_the_same_place_alone,
    test_the_second_of_two_gets_nothing_and_hurts_nothing,
    test_what_a_kill_leaves_halfway_is_undone,
    test_where_nobody_says_where,
)
from tests.vm.guest.test_devices import attached

__all__ = [  # fixtures, and tests that are run again
    "box",
    "parent",
    "test_a_path_that_is_no_place_for_a_container",
    "test_a_signal_goes_to_each",
    "test_a_sub_cgroup_must_be_inside_and_there",
    "test_a_user_without_a_cgroup",
    "test_an_empty_one_that_is_there_is_taken",
    "test_delete_takes_what_is_frozen_and_nested",
    "test_freeze_and_thaw",
    "test_kill_reaches_everyone",
    "test_many_at_the_same_moment",
    "test_one_that_is_used_by_others_stays_theirs",
    "test_stats_are_the_kernels_numbers",
    "test_the_end_of_one_leaves_the_next_at_the_same_place_alone",
    "test_the_second_of_two_gets_nothing_and_hurts_nothing",
    "test_what_a_kill_leaves_halfway_is_undone",
    "test_where_nobody_says_where",
]

MIB = 1 << 20
ROOT = Path("/sys/fs/cgroup")
NOBODY = 65534


def test_the_kernel_has_the_limits(parent: str) -> None:
    wanted: dict[str, dict[str, Any]] = {
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB},
        "cpu": {"shares": 512, "quota": 50000, "period": 200000, "burst": 1000},
        "pids": {"limit": 33},
        "unified": {"memory.high": str(48 * MIB)},
    }
    wanted["cpu"]["cpus"] = "0" if "cpuset" in (ROOT / "cgroup.controllers").read_text().split() else ""
    box = Box(f"{parent}/limited", wanted).make()
    try:
        names = ("memory.max", "memory.swap.max", "memory.low", "memory.high")
        assert [read(box, name) for name in names] == [str(size * MIB) for size in (64, 32, 32, 48)]
        assert (read(box, "cpu.weight"), read(box, "cpu.max"), read(box, "pids.max")) == ("20", "50000 200000", "33")
        if (ROOT / parent / "limited/cpu.max.burst").exists():
            assert read(box, "cpu.max.burst") == "1000"
        assert not wanted["cpu"]["cpus"] or read(box, "cpuset.cpus") == "0"
        assert box.placement.joins == []
        assert box.placement.born == f"{ROOT}/{parent}/limited"
    finally:
        box.remove()


def read(box: Box, name: str) -> str:
    return (Path(box.handle.directories[""]) / name).read_text().strip()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"unified": {"memory.no-such": "1"}}, "linux.resources.unified['memory.no-such']: there is no"),
        ({"unified": {"pids.max": "many"}}, "linux.resources.unified['pids.max']: the kernel refuses 'many'"),
        ({"rdma": {"x": {"hcaHandles": 3}}}, "linux.resources.rdma['x']: "),
        ({"network": {"classID": 5}}, "linux.resources.network.classID: cgroup v2 has nothing like it"),
        ({"cpu": {"quota": 5}}, "linux.resources.cpu.quota: the kernel refuses '5 100000'"),
        ({"memory": {"limit": 2 * MIB, "swap": MIB}}, "linux.resources.memory.swap: is memory+swap"),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 250, "minor": 77, "rate": 1}]}},
            "linux.resources.blockIO.throttleReadBpsDevice[0]: ",
        ),
    ],
)
def test_a_limit_that_cannot_be_set_is_an_error(parent: str, wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(MinirunError) as raised:
        Box(f"{parent}/refused", wanted).make()
    assert str(raised.value).startswith(message), raised.value
    assert not (ROOT / parent / "refused").exists()


def test_a_controller_is_handed_down_from_the_top(parent: str) -> None:
    """Whoever made the cgroups above has enabled nothing in them."""
    (ROOT / parent / "a/b").mkdir(parents=True)
    assert (ROOT / parent / "a/cgroup.subtree_control").read_text().split() == []
    box = Box(f"{parent}/a/b/box", {"pids": {"limit": 5}}).make()
    assert read(box, "pids.max") == "5"
    box.remove()
    cgroup.remove(f"{ROOT}/{parent}/a")


def test_a_controller_that_cannot_be_handed_down_is_named(parent: str) -> None:
    """Where there are processes, nothing can be handed on ("No Internal Process Constraint")."""
    full = Box(f"{parent}/full").make()
    full.run()
    full.placement.settle()
    control = f".*/{parent}/full/cgroup.subtree_control"
    message = rf"linux\.resources\.memory\.limit: there is no .*; controller memory is not enabled in {control}"
    try:
        with pytest.raises(Unsupported, match=message):
            Box(f"{parent}/full/inner", {"memory": {"limit": MIB}}).make()
    finally:
        full.remove()


LIMITS = ("memory.max", "memory.swap.max", "cpu.max", "pids.max")


def test_update_up_and_down(box: Box) -> None:
    def after(wanted: dict[str, Any]) -> list[str]:
        box.handle.update(wanted)
        return [read(box, name) for name in LIMITS]

    small, large = {"limit": 8 * MIB, "swap": 9 * MIB}, {"limit": 80 * MIB, "swap": 90 * MIB}
    assert after({"memory": small, "cpu": {"quota": 1000, "period": 2000}}) == [
        str(8 * MIB), str(MIB), "1000 2000", "max"
    ]  # fmt: skip
    assert after({"memory": large, "pids": {"limit": 7}}) == [str(80 * MIB), str(10 * MIB), "1000 2000", "7"]
    assert after({"cpu": {"period": 4000}, "pids": {"limit": 0}}) == [str(80 * MIB), str(10 * MIB), "1000 4000", "7"]
    assert after({"memory": {"swap": 100 * MIB}}) == [str(80 * MIB), str(20 * MIB), "1000 4000", "7"]
    assert after({"memory": {"limit": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}}) == [
        "max", "max", "max 4000", "max"
    ]  # fmt: skip


def test_an_update_is_done_as_a_whole_or_not_at_all(box: Box) -> None:
    box.handle.update({"memory": {"limit": 100 * MIB, "swap": 200 * MIB}, "pids": {"limit": 9}})
    before = [read(box, name) for name in LIMITS]
    good = {"memory": {"limit": 50 * MIB, "swap": 60 * MIB}, "pids": {"limit": 10}}
    for bad in ({"cpu": {"quota": 1}}, {"unified": {"memory.high": "many"}}, {"unified": {"memory.no-such": "1"}}):
        with pytest.raises(MinirunError, match=r"^linux\.resources\."):
            box.handle.update({**good, **bad})
        assert [read(box, name) for name in LIMITS] == before


def test_a_limit_below_what_is_in_use_is_refused_if_asked_to_look(box: Box) -> None:
    process = box.run('echo 0 > "$1"; data=$(head -c 4000000 /dev/zero | tr "\\0" x); echo in; sleep 100000; :')
    used = int(read(box, "memory.current"))
    assert used > 4000000
    with pytest.raises(MinirunError, match=r"memory\.limit: .*1048576.* in use"):
        box.handle.update({"memory": {"limit": MIB, "checkBeforeUpdate": True}})
    assert (read(box, "memory.max"), process.poll()) == ("max", None)
    box.handle.update({"memory": {"limit": used + 64 * MIB, "checkBeforeUpdate": True}})
    assert process.poll() is None


def test_an_update_of_devices_replaces_the_filter(parent: str, tmp_path: Path) -> None:
    node = tmp_path / "kmsg"
    os.mknod(node, 0o020666, os.makedev(1, 11))
    kmsg = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rw"}
    box = Box(f"{parent}/devices", {"devices": [{"allow": False}]}).make()
    directory = box.handle.directories[""]
    script = f"echo 0 > {directory}/cgroup.procs; exec < {node} && echo opened"

    def opened() -> bool:
        return subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout == "opened\n"

    assert (opened(), attached(Path(directory))) == (False, 1)
    box.handle.update({"devices": [{"allow": False}, kmsg]})
    assert (opened(), attached(Path(directory))) == (True, 1)
    box.handle.update({"devices": [{"allow": False}]})
    assert (opened(), attached(Path(directory))) == (False, 1)
    box.handle.update({"pids": {"limit": 100}})
    assert attached(Path(directory)) == 1
    box.remove()


def test_exec_into_one_that_has_handed_its_cgroup_on(box: Box) -> None:
    """As systemd does in a container: itself in init.scope, the controllers for those beside it."""
    first = box.run()
    top = Path(box.handle.directories[""])
    assert box.handle.joins((), first.pid) == ([], str(top))
    (top / "init.scope").mkdir()
    (top / "init.scope/cgroup.procs").write_text(str(first.pid))
    (top / "cgroup.subtree_control").write_text("+pids")
    assert box.handle.joins((), first.pid) == ([], f"{top}/init.scope")
    assert box.handle.joins(["init.scope"], first.pid) == ([], f"{top}/init.scope")


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A cgroup that was handed over to a user, as systemd does it for user@1000.service."""
    top = ROOT / "user.slice/minirun-test-delegated"
    top.mkdir()
    (ROOT / "user.slice/leaf").mkdir()
    for process in (ROOT / "user.slice/cgroup.procs").read_text().split():
        (ROOT / "user.slice/leaf/cgroup.procs").write_text(process)
    (ROOT / "user.slice/cgroup.subtree_control").write_text("+pids")
    for path in (top, top / "cgroup.procs", top / "cgroup.subtree_control", top / "cgroup.threads"):
        os.chown(path, NOBODY, NOBODY)
    (top / "session").mkdir()
    os.chown(top / "session", NOBODY, NOBODY)
    for name in ("cgroup.procs", "cgroup.subtree_control"):
        os.chown(top / "session" / name, NOBODY, NOBODY)
    yield top
    cgroup.remove(str(top))
    (ROOT / "user.slice/cgroup.subtree_control").write_text("-pids")
    for process in (ROOT / "user.slice/leaf/cgroup.procs").read_text().split():
        (ROOT / "user.slice/cgroup.procs").write_text(process)
    (ROOT / "user.slice/leaf").rmdir()


def test_a_user_uses_what_was_handed_over(delegated: Path) -> None:
    def job() -> str:
        place = placement.place({"linux": {"resources": {"pids": {"limit": 7}}}}, "box", rootless=True)
        step.do_all(place.steps)
        assert place.born
        found = f"{place.born} {Path(place.born, 'pids.max').read_text()}"
        if child := os.fork():
            os.waitpid(child, 0)
        else:
            Path(place.born, "cgroup.procs").write_text("0")
            os._exit(0)
        assert step.undo_all(place.steps) == []
        return found + str(os.path.exists(place.born))

    assert as_user(job, delegated / "session") == f"{delegated}/minirun/box 7\nFalse"
