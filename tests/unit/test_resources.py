"""linux.resources as control files: what each member becomes in v1 and in v2, and what each refuses."""

from __future__ import annotations

from typing import Any

import pytest

from minirun.errors import InvalidDocument, Unsupported
from minirun.runtime import resources, update

MIB = 1 << 20
V1, V2 = False, True


def files(wanted: dict[str, Any], unified: bool) -> list[tuple[str, str]]:
    found = resources.settings(wanted, unified)
    assert all(one.where.startswith("linux.resources.") for one in found)
    return [(f"{one.controller}/{one.file}" if one.controller else one.file, one.value) for one in found]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, []),
        ({"memory": {}, "cpu": None, "pids": {}}, []),
        (
            {"memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": MIB, "kernel": MIB, "kernelTCP": 5}},
            [
                ("memory/memory.limit_in_bytes", str(64 * MIB)),
                ("memory/memory.memsw.limit_in_bytes", str(96 * MIB)),
                ("memory/memory.soft_limit_in_bytes", str(MIB)),
                ("memory/memory.kmem.tcp.limit_in_bytes", "5"),
            ],
        ),
        ({"memory": {"limit": 0, "swap": 0, "reservation": 0}}, []),
        (
            {"memory": {"limit": -1}},
            [("memory/memory.memsw.limit_in_bytes", "-1"), ("memory/memory.limit_in_bytes", "-1")],
        ),
        (
            {"memory": {"swappiness": 0, "disableOOMKiller": True, "useHierarchy": True}},
            [
                ("memory/memory.swappiness", "0"),
                ("memory/memory.use_hierarchy", "1"),
                ("memory/memory.oom_control", "1"),
            ],
        ),
        ({"memory": {"disableOOMKiller": False, "useHierarchy": False, "checkBeforeUpdate": True}}, []),
        (
            {"cpu": {"shares": 512, "quota": 5000, "period": 10000, "burst": 100, "idle": 0, "cpus": "0-1"}},
            [
                ("cpu/cpu.shares", "512"),
                ("cpu/cpu.cfs_period_us", "10000"),
                ("cpu/cpu.cfs_quota_us", "5000"),
                ("cpu/cpu.cfs_burst_us", "100"),
                ("cpu/cpu.idle", "0"),
                ("cpuset/cpuset.cpus", "0-1"),
            ],
        ),
        (
            {"cpu": {"realtimeRuntime": 95, "realtimePeriod": 100}},
            [("cpu/cpu.rt_period_us", "100"), ("cpu/cpu.rt_runtime_us", "95")],
        ),
        ({"pids": {"limit": 7}}, [("pids/pids.max", "7")]),
        ({"pids": {"limit": 0}}, [("pids/pids.max", "max")]),
        ({"pids": {"limit": -1}}, [("pids/pids.max", "max")]),
        (
            {"blockIO": {"weight": 300, "leafWeight": 20, "weightDevice": [{"major": 8, "minor": 0, "weight": 400}]}},
            [
                ("blkio/blkio.bfq.weight", "300"),
                ("blkio/blkio.leaf_weight", "20"),
                ("blkio/blkio.bfq.weight_device", "8:0 400"),
            ],
        ),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 5}, {"major": 8, "minor": 2}]}},
            [("blkio/blkio.throttle.read_bps_device", "8:1 5"), ("blkio/blkio.throttle.read_bps_device", "8:2 0")],
        ),
        (
            {"blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 5}]}},
            [("blkio/blkio.throttle.write_iops_device", "8:1 5")],
        ),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 4}]},
            [("hugetlb/hugetlb.2MB.rsvd.limit_in_bytes", "4"), ("hugetlb/hugetlb.2MB.limit_in_bytes", "4")],
        ),
        (
            {"rdma": {"mlx5_0": {"hcaHandles": 3, "hcaObjects": 9}}},
            [("rdma/rdma.max", "mlx5_0 hca_handle=3 hca_object=9")],
        ),
        (
            {"network": {"classID": 0x100001, "priorities": [{"name": "eth0", "priority": 5}]}},
            [("net_cls/net_cls.classid", "1048577"), ("net_prio/net_prio.ifpriomap", "eth0 5")],
        ),
    ],
)
def test_v1(wanted: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert files(wanted, V1) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, []),
        (
            {"memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": MIB, "kernel": MIB}},
            [("memory.swap.max", str(32 * MIB)), ("memory.max", str(64 * MIB)), ("memory.low", str(MIB))],
        ),
        ({"memory": {"limit": MIB, "swap": MIB}}, [("memory.swap.max", "0"), ("memory.max", str(MIB))]),
        ({"memory": {"limit": MIB, "swap": -1}}, [("memory.swap.max", "max"), ("memory.max", str(MIB))]),
        ({"memory": {"limit": -1}}, [("memory.swap.max", "max"), ("memory.max", "max")]),
        ({"memory": {"limit": -1, "swap": -1}}, [("memory.swap.max", "max"), ("memory.max", "max")]),
        ({"memory": {"limit": MIB}}, [("memory.max", str(MIB))]),
        ({"memory": {"disableOOMKiller": False, "swappiness": 0, "kernelTCP": 0}}, []),
        ({"cpu": {"shares": 1024}}, [("cpu.weight", "39")]),
        ({"cpu": {"shares": 1024, "idle": 1}}, [("cpu.idle", "1")]),
        ({"cpu": {"quota": 5000}}, [("cpu.max", "5000 100000")]),
        ({"cpu": {"period": 5000}}, [("cpu.max", "max 5000")]),
        ({"cpu": {"quota": -1, "period": 5000, "burst": 7}}, [("cpu.max", "max 5000"), ("cpu.max.burst", "7")]),
        ({"cpu": {"quota": 0, "shares": 0}}, []),
        ({"cpu": {"cpus": "0-3,7", "mems": "0"}}, [("cpuset.cpus", "0-3,7"), ("cpuset.mems", "0")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")]),
        ({"blockIO": {"weight": 10}}, [("io.bfq.weight", "10")]),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 5}]}},
            [("io.max", "8:1 rbps=5")],
        ),
        (
            {"blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 0}]}},
            [("io.max", "8:1 wiops=max")],
        ),
        (
            {"hugepageLimits": [{"pageSize": "1GB", "limit": 4}]},
            [("hugetlb.1GB.rsvd.max", "4"), ("hugetlb.1GB.max", "4")],
        ),
        ({"rdma": {"mlx5_0": {"hcaHandles": 0}}}, [("rdma.max", "mlx5_0 hca_handle=0")]),
        (
            {"unified": {"memory.high": "1", "io.max": "8:0 rbps=1\n8:1 rbps=2"}},
            [("memory.high", "1"), ("io.max", "8:0 rbps=1"), ("io.max", "8:1 rbps=2")],
        ),
        ({"network": {"classID": 0, "priorities": []}}, []),
        ({"devices": [{"allow": False}]}, []),
    ],
)
def test_v2(wanted: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert files(wanted, V2) == expected


@pytest.mark.parametrize(("shares", "weight"), [(0, 1), (2, 1), (1024, 39), (262144, 10000), (1 << 40, 10000)])
def test_weight_of_shares(shares: int, weight: int) -> None:
    assert resources.weight_of_shares(shares) == weight


@pytest.mark.parametrize(("weight", "expected"), [(10, "1"), (100, "910"), (500, "4950"), (1000, "10000")])
def test_io_weight_where_there_is_no_bfq(weight: int, expected: str) -> None:
    (one,) = resources.settings({"blockIO": {"weight": weight}}, V2)
    assert one.otherwise == f"io.weight={expected}"


def test_a_kernel_that_counts_huge_pages_in_v2_only() -> None:
    found = resources.settings({"hugepageLimits": [{"pageSize": "2MB", "limit": 4}]}, V1, hugetlb_v2=True)
    assert [(one.controller, one.file) for one in found] == [("", "hugetlb.2MB.rsvd.max"), ("", "hugetlb.2MB.max")]


@pytest.mark.parametrize(
    ("wanted", "where"),
    [
        ({"memory": {"swappiness": 60}}, "memory.swappiness"),
        ({"memory": {"disableOOMKiller": True}}, "memory.disableOOMKiller"),
        ({"memory": {"kernelTCP": 1}}, "memory.kernelTCP"),
        ({"cpu": {"realtimeRuntime": 1}}, "cpu.realtimeRuntime"),
        ({"cpu": {"realtimePeriod": 1}}, "cpu.realtimePeriod"),
        ({"blockIO": {"leafWeight": 10}}, "blockIO.leafWeight"),
        ({"network": {"classID": 1}}, "network.classID"),
        ({"network": {"priorities": [{"name": "eth0", "priority": 5}]}}, r"network.priorities\[0\]"),
    ],
)
def test_what_v2_has_nothing_for(wanted: dict[str, Any], where: str) -> None:
    resources.settings(wanted, V1)
    with pytest.raises(Unsupported, match=rf"^linux\.resources\.{where}: cgroup v2 has nothing like it"):
        resources.settings(wanted, V2)


def test_unified_is_refused_on_v1() -> None:
    with pytest.raises(Unsupported, match=r"^linux\.resources\.unified: invalid configuration: it is for cgroup v2"):
        resources.settings({"unified": {"memory.max": "1"}}, V1)


@pytest.mark.parametrize(
    ("wanted", "where"),
    [
        ({"memory": []}, "memory"),
        ({"memory": {"limit": "1m"}}, "memory.limit"),
        ({"memory": {"limit": 1.5}}, "memory.limit"),
        ({"memory": {"swappiness": 101}}, "memory.swappiness"),
        ({"memory": {"disableOOMKiller": 1}}, "memory.disableOOMKiller"),
        ({"cpu": {"shares": True}}, "cpu.shares"),
        ({"cpu": {"cpus": 3}}, "cpu.cpus"),
        ({"pids": {"limit": "max"}}, "pids.limit"),
        ({"blockIO": {"throttleReadBpsDevice": {}}}, "blockIO.throttleReadBpsDevice"),
        ({"blockIO": {"throttleReadBpsDevice": [7]}}, r"blockIO.throttleReadBpsDevice\[0\]"),
        ({"blockIO": {"weightDevice": [{"major": 8, "weight": 5}]}}, r"blockIO.weightDevice\[0\].minor"),
        ({"blockIO": {"weightDevice": [{"major": 8, "minor": -1}]}}, r"blockIO.weightDevice\[0\].minor"),
        ({"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}, r"hugepageLimits\[0\].pageSize"),
        ({"hugepageLimits": [{"pageSize": "2MB"}]}, r"hugepageLimits\[0\].limit"),
        ({"rdma": {"a b": {"hcaHandles": 1}}}, r"rdma\['a b'\]"),
        ({"rdma": {"mlx5_0": {}}}, r"rdma\['mlx5_0'\]"),
        ({"network": {"priorities": [{"name": "a b", "priority": 1}]}}, r"network.priorities\[0\].name"),
        ({"devices": {}}, "devices"),
        ({"devices": [{"allow": True, "type": "c", "access": "x"}]}, r"devices\[0\].access"),
    ],
)
def test_a_wrong_value_is_named(wanted: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidDocument, match=rf"^linux\.resources\.{where}: expected"):
        resources.settings(wanted, V1)


@pytest.mark.parametrize(
    ("wanted", "where"),
    [
        ({"memory": {"swap": MIB}}, "memory.swap: is memory.swap, and there is no"),
        ({"memory": {"limit": -1, "swap": MIB}}, "memory.swap: cannot be limited"),
        ({"memory": {"limit": 2 * MIB, "swap": MIB}}, "memory.swap: is memory.swap: 1048576 is less"),
        ({"unified": {"../memory.max": "1"}}, r"unified\['../memory.max'\]: not the name"),
        ({"unified": {"memory.max": 1}}, r"unified\['memory.max'\]: expected a string"),
    ],
)
def test_what_only_v2_refuses(wanted: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidDocument, match=rf"^linux\.resources\.{where}"):
        resources.settings(wanted, V2)


NULL, TUN = "c 1:3 rwm", "c 10:200 rw"
ALLOW_TUN = {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "rw"}


@pytest.mark.parametrize(
    ("now", "rules", "changes"),
    [
        ([NULL], [{"allow": False}, ALLOW_TUN], [("deny", NULL), ("allow", TUN)]),
        ([TUN], [{"allow": False}, ALLOW_TUN], []),
        (["c 10:200 rwm"], [{"allow": False}, ALLOW_TUN], [("deny", "c 10:200 m")]),
        (["c 10:200 r"], [{"allow": False}, ALLOW_TUN], [("allow", "c 10:200 w")]),
        ([TUN], [{"allow": False}, ALLOW_TUN, {**ALLOW_TUN, "allow": False}], [("deny", TUN)]),
        (["a *:* rwm"], [{"allow": False}, ALLOW_TUN], [("deny", "a"), ("allow", TUN)]),
        ([NULL], [{"allow": True}, {**ALLOW_TUN, "allow": False}], [("allow", "a"), ("deny", TUN)]),
    ],
)
def test_v1_devices_change_by_what_differs(
    now: list[str], rules: list[dict[str, Any]], changes: list[tuple[str, str]]
) -> None:
    assert update.device_changes(now, rules) == changes
