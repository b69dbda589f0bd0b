"""What is asked of systemd, and the bytes in which it is asked."""

from __future__ import annotations

from typing import Any

import pytest

from minirun.errors import InvalidDocument
from minirun.linux import dbus
from minirun.runtime import systemd


def test_a_message_is_what_the_specification_says() -> None:
    """The layout by hand: fixed header, array of fields, padding to 8, body."""
    fields = [[1, ("o", "/a")], [8, ("g", "s")]]
    assert dbus.message(1, 7, fields, "s", ("hi",)) == b"".join(
        [
            b"l\x01\x00\x01",  # little endian, method call, no flags, version 1
            b"\x07\x00\x00\x00\x07\x00\x00\x00",  # length of the body, serial
            b"\x17\x00\x00\x00",  # length of the fields, without the padding behind them
            b"\x01\x01o\x00\x02\x00\x00\x00/a\x00" + bytes(5),
            b"\x08\x01g\x00\x01s\x00" + bytes(1),
            b"\x02\x00\x00\x00hi\x00",
        ]
    )


@pytest.mark.parametrize(
    ("signature", "values"),
    [
        ("", []),
        ("s", ["größe"]),
        ("ybnqiuxtd", [1, True, -2, 3, -4, 5, -6, (1 << 64) - 1, 0.5]),
        ("as", [["a", "", "bcd"]]),
        ("ay", [[1, 2, 3]]),
        ("a(uo)sb", [[[1, "/a"], [2, "/bc"]], "x", False]),
        ("aau", [[[1], [], [2, 3]]]),
        ("at", [[]]),
    ],
)
def test_what_is_written_can_be_read(signature: str, values: list[Any]) -> None:
    data = bytearray()
    for kind, value in zip(dbus.split(signature), values, strict=True):
        dbus.put(data, kind, value)
    reader = dbus.Reader(bytes(data))
    assert reader.values(signature) == values
    assert reader.at == len(data)


def test_a_variant_carries_its_signature() -> None:
    data = bytearray()
    dbus.put(data, "a(sv)", [["Slice", ("s", "a.slice")], ["PIDs", ("au", [5, 6])], ["Delegate", ("b", True)]])
    assert dbus.Reader(bytes(data)).value("a(sv)") == [["Slice", "a.slice"], ["PIDs", [5, 6]], ["Delegate", True]]


def test_a_signature_is_split_into_its_types() -> None:
    assert dbus.split("ssa(sv)a(sa(sv))aaua{sv}y") == ["s", "s", "a(sv)", "a(sa(sv))", "aau", "a{sv}", "y"]


@pytest.mark.parametrize(
    ("wanted", "user", "names"),
    [
        ("machine.slice:libpod:abc", False, ("machine.slice", "libpod-abc.scope")),
        (":cri-containerd:abc", False, ("system.slice", "cri-containerd-abc.scope")),
        ("a-b.slice::abc", False, ("a-b.slice", "abc.scope")),
        (None, False, ("system.slice", "minirun-box.scope")),
        ("", True, ("user.slice", "minirun-box.scope")),
    ],
)
def test_names_of_slice_and_scope(wanted: str | None, user: bool, names: tuple[str, str]) -> None:
    assert systemd.unit_names(wanted, "box", user) == names


@pytest.mark.parametrize("wanted", ["/a/b", "a:b", "a.slice:b:", "a:b:c", "a.slice:../b:c", "a.slice:b:c:d", 7])
def test_names_that_are_none(wanted: object) -> None:
    with pytest.raises(InvalidDocument, match=r"^linux\.cgroupsPath: "):
        systemd.unit_names(wanted, "box", False)


def test_where_a_slice_is() -> None:
    assert systemd.slice_path("a.slice") == "a.slice"
    assert systemd.slice_path("a-b-c.slice") == "a.slice/a-b.slice/a-b-c.slice"
    assert systemd.slice_path("-.slice") == ""
    for name in ("a--b.slice", "-a.slice", "a-.slice"):
        with pytest.raises(InvalidDocument):
            systemd.slice_path(name)


def test_limits_as_properties() -> None:
    files = [
        ["linux.resources.memory.limit", "/x/memory.max", "1024"],
        ["linux.resources.memory.swap", "/x/memory.swap.max", "max", "", ""],
        ["linux.resources.cpu.shares", "/x/cpu.weight", "39"],
        ["linux.resources.cpu.quota", "/x/cpu.max", "1234 10000"],
        ["linux.resources.cpu.cpus", "/x/cpuset.cpus", "0-3,9"],
        ["linux.resources.pids.limit", "/x/pids.max", "7"],
        ["linux.resources.unified", "/x/memory.oom.group", "1"],
        ["linux.resources.unified", "/x/io.weight", "8:0 5"],
    ]
    assert systemd.limits(files) == [
        ["MemoryMax", "t", 1024],
        ["MemorySwapMax", "t", (1 << 64) - 1],
        ["CPUWeight", "t", 39],
        ["CPUQuotaPerSecUSec", "t", 130000],
        ["CPUQuotaPeriodUSec", "t", 10000],
        ["AllowedCPUs", "ay", [15, 2]],
        ["TasksMax", "t", 7],
    ]
    for name, value in (("cpu.max", "a b"), ("cpu.max", "1 0"), ("memory.max", "\u00b2"), ("pids.max", "9" * 30)):
        assert systemd.limits([["linux.resources.unified", f"/x/{name}", value]]) == []
    with pytest.raises(InvalidDocument):
        systemd.limits([["linux.resources.cpu.cpus", "/x/cpuset.cpus", "0-4000000000"]])
    assert systemd.quota_per_second("max", "100000") == (1 << 64) - 1
    assert systemd.quota_per_second("50000", "100000") == 500000
