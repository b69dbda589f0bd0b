"""``config.json`` is checked as the runtime-spec has it: what engines write is accepted, a mistake named by its path.

The documents are what podman, docker, containerd and ``runc spec`` write, with the seccomp profiles shortened, and one
with everything in it, which is the ground that the mistakes are made on.
"""

from __future__ import annotations

import copy
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirun import strict_json
from minirun.engine import spec
from minirun.engine.options import RunOptions
from minirun.engine.users import User
from minirun.errors import InvalidDocument
from minirun.linux import seccomp, seccomp_compiler, security
from minirun.oci import check as vocabulary
from minirun.oci import defaults, example, features, linux_spec, process_spec, runtime_spec
from minirun.oci.runtime_spec import CONFIG, check, check_process, check_resources

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = {
    path.stem: strict_json.loads(path.read_bytes()) for path in sorted(Path(__file__).parent.glob("documents/*.json"))
}
GROUNDS = [strict_json.dumps(DOCUMENTS[name]) for name in ("everything", "podman-4.3-userns", "containerd-cri")]
EVERYTHING = GROUNDS[0]
GONE = object()  # as a value: the field is taken away
BIG = 10**400


def everything() -> dict[str, Any]:
    document: dict[str, Any] = strict_json.loads(EVERYTHING)  # quicker than a deep copy
    return document


def put(document: Any, path: str | tuple[str, ...], value: Any) -> None:
    """Set what stands at ``process/rlimits/0/type``; a name that is not there yet is made."""
    parts = path.split("/") if isinstance(path, str) else path
    *parents, last = [int(part) if part.isdigit() else part for part in parts]
    for part in parents:
        document = document[part]
    if value is GONE:
        del document[last]
    else:
        document[last] = value


def refusal(document: Any) -> InvalidDocument:
    with pytest.raises(InvalidDocument) as caught:
        check(document)
    return caught.value


# --- what is accepted ---


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_engines_write_is_accepted(name: str) -> None:
    before = copy.deepcopy(DOCUMENTS[name])
    assert check(DOCUMENTS[name]) == []
    assert DOCUMENTS[name] == before, "a check changes nothing"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *[("ociVersion", f"1.{minor}") for minor in ("0.0", "0.2-dev", "0.0-rc5", "1.0-rc.2", "2.0+dev", "3.9")],
        ("linux", None),
        ("linux/uidMappings/0/size", (1 << 32) - 1),
        ("linux/namespaces/5/path", "/proc/1/ns/user"),
        ("linux/resources/pids", {}),
        ("linux/resources/memory/swappiness", (1 << 64) - 1),
        ("linux/resources/memory/swap", 0),
        ("linux/resources/unified/memory.high", "max"),
        ("linux/rootfsPropagation", ""),
        ("linux/cgroupsPath", "system.slice:minirun:box"),
        ("linux/intelRdt/closID", "/"),
        ("linux/seccomp/syscalls/2/errnoRet", 4095),
        ("process/user/uid", 65535),
        ("process/user", None),
        ("process/args/1", "\udcff is a byte that is no UTF-8"),
        ("hooks", {"prestart": None, "later": 5}),
        ("annotations/a", "NUL \0 is no word of the kernel's here"),
    ],
)
def test_corners_that_are_right(path: str, value: Any) -> None:
    document = everything()
    put(document, path, value)
    if path == "linux":
        for name in ("hostname", "domainname", "mounts"):
            del document[name]
    if path.startswith("linux/uidMappings"):
        document["linux"]["uidMappings"][0]["hostID"] = 0
    assert check(document) == []


def add_unknown(value: Any) -> None:
    for item in list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ():
        add_unknown(item)
    if isinstance(value, dict):
        value["x-unknown"] = {"deep": [1.5, None, {"uid": "x"}]}


def test_unknown_fields_are_ignored() -> None:
    document = everything()
    names = {("linux", "sysctl"): None, ("linux", "timeOffsets"): None, ("linux", "netDevices"): None}
    kept = {path: document[path[0]].pop(path[1]) for path in names}
    annotations = document.pop("annotations")
    for name in ("rdma", "unified"):
        del document["linux"]["resources"][name]
    add_unknown(document)
    document["annotations"] = annotations
    document["linux"].update({path[1]: value for path, value in kept.items()})
    assert check(document) == []


OWN_NAMES = ("annotations", "sysctl", "unified", "rdma", "netDevices", "timeOffsets")


def fields(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of all fields that the spec names."""
    found = []
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        here = (*path, str(key))
        found += [here] if isinstance(value, dict) and path[-1:] not in [(name,) for name in OWN_NAMES] else []
        found += fields(item, here)
    return found


def said(path: tuple[str, ...], value: Any) -> str:
    document = everything()
    put(document, path, value)
    try:
        return str(check(document))
    except InvalidDocument as error:
        return str(error)


def test_null_means_absent() -> None:
    """Go writes it for what it calls nil; so the same is said of a field that is null and of one that is gone."""
    paths = fields(DOCUMENTS["everything"])
    assert len(paths) > 150
    for path in paths:
        assert said(path, None) == said(path, GONE), path


# --- what is refused ---

# Where, what, and the path in the message if it is another one.
MISTAKES: list[tuple[Any, ...]] = [
    ("ociVersion", GONE),
    *[("ociVersion", text) for text in ("", "1", "1.2", "1.4.0", "2.0.0", "0.9.0", "1.x.0", "v1.0.0", "1.²0.0")],
    ("ociVersion", 1.2),
    ("process", GONE),
    ("process", []),
    ("process/terminal", "true"),
    ("process/terminal", 1),
    ("process/consoleSize/height", GONE),
    ("process/consoleSize/width", 65536),
    ("process/user", 0),
    *[
        (f"process/user/{name}", value)
        for name in ("uid", "gid")
        for value in (-1, (1 << 32) - 1, 1 << 32, BIG, "0", True, 1.0, [])
    ],
    ("process/user/uid", 65536),  # not mapped
    ("process/user/gid", 65536),
    ("process/user/umask", 0o1000),
    ("process/user/additionalGids/1", -1),
    ("process/user/additionalGids/1", 65536),
    ("process/user/additionalGids", {}),
    ("process/args", GONE),
    ("process/args", []),
    ("process/args", "sh"),
    ("process/args/0", 1),
    ("process/args/0", None),
    ("process/args/1", "a\0b"),
    ("process/args/1", "\ud800"),
    *[("process/env/0", text) for text in ("", "PATH", "=x", "A=\0", 5)],
    ("process/cwd", GONE),
    *[("process/cwd", text) for text in ("", "bin", "./", "/a\0", 7)],
    ("process/capabilities", ["CAP_KILL"]),
    ("process/capabilities/ambient", "CAP_KILL"),
    ("process/capabilities/ambient/0", 5),
    ("process/rlimits/0/type", GONE),
    ("process/rlimits/0/soft", GONE),
    ("process/rlimits/0/soft", 1025),
    ("process/rlimits/0/hard", 1 << 64),
    ("process/rlimits/0/type", "RLIMIT_NONE"),
    ("process/rlimits/1/type", "RLIMIT_NOFILE"),
    ("process/noNewPrivileges", 0),
    ("process/apparmorProfile", 1),
    ("process/selinuxLabel", "a\0"),
    ("process/oomScoreAdj", 1001),
    ("process/oomScoreAdj", "5"),
    ("process/scheduler/policy", GONE),
    ("process/scheduler/policy", ""),
    ("process/scheduler/policy", "SCHED_OTHER", "process.scheduler.runtime"),
    ("process/scheduler/priority", 1),
    ("process/scheduler/nice", 20),
    ("process/scheduler/flags/0", "SCHED_FLAG"),
    ("process/scheduler/period", -1),
    ("process/ioPriority/class", GONE),
    ("process/ioPriority/class", "IOPRIO_CLASS_NONE"),
    ("process/ioPriority/priority", 8),
    *[("process/execCPUAffinity/initial", text) for text in ("a", "0-", "-1", "0,,1", "0-1-2", "٣", 0)],
    ("root", GONE),
    ("root", "rootfs"),
    ("root/path", GONE),
    ("root/path", ""),
    ("root/path", "a\0"),
    ("root/readonly", "yes"),
    ("hostname", "x" * 65),
    ("hostname", "é" * 33),
    ("domainname", 5),
    ("mounts", {}),
    ("mounts/0", None),
    ("mounts/0/destination", GONE),
    ("mounts/0/destination", ""),
    ("mounts/0/source", "\0"),
    ("mounts/1/options", "nosuid,size=1m"),
    ("mounts/1/options/1", 5),
    ("mounts/2/uidMappings/0/size", GONE),
    ("mounts/2/gidMappings", []),
    ("mounts/2/uidMappings", GONE),
    ("mounts/2/options", ["ridmap"], "mounts[2].uidMappings"),
    ("hooks", []),
    ("hooks/prestart", {}),
    ("hooks/poststop/0/path", GONE),
    ("hooks/poststop/0/path", "true"),
    ("hooks/createRuntime/0/timeout", 0),
    ("hooks/createRuntime/0/timeout", 1.5),
    ("hooks/createRuntime/0/args", "true"),
    ("hooks/createRuntime/0/env/0", "A\0"),
    ("annotations", []),
    ("annotations/org.example.key", 5, "annotations['org.example.key']"),
    ("annotations/", "x", "annotations['']"),
    ("annotations/x\ny", None, "annotations['x\\ny']"),
    ("linux", []),
    ("linux/namespaces/0/type", GONE),
    ("linux/namespaces/0/type", "net"),
    ("linux/namespaces/0/type", "ipc", "linux.namespaces[3].type"),
    ("linux/namespaces/1/path", "run/netns/box"),
    ("linux/namespaces/1/path", "/run\0"),
    ("linux/uidMappings", "0 0 1"),
    ("linux/uidMappings/0/hostID", GONE),
    ("linux/uidMappings/0/hostID", (1 << 32) - 1),
    ("linux/uidMappings/0/hostID", (1 << 32) - 2),
    ("linux/gidMappings/0/size", 0),
    ("linux/gidMappings/0/containerID", 1, "linux.gidMappings"),
    ("linux/timeOffsets/realtime", {}),
    ("linux/timeOffsets/monotonic/secs", 1 << 63),
    ("linux/timeOffsets/monotonic/nanosecs", 10**9),
    ("linux/devices/0/type", "x"),
    ("linux/devices/0/type", GONE),
    ("linux/devices/0/path", "dev/fuse"),
    ("linux/devices/0/major", GONE),
    ("linux/devices/0/major", 4096),
    ("linux/devices/0/minor", 1 << 20),
    ("linux/devices/0/fileMode", -1),
    ("linux/devices/0/uid", (1 << 32) - 1),
    ("linux/netDevices/eth1/name", "a b"),
    ("linux/netDevices/eth1/name", "sixteen-letters-"),
    ("linux/netDevices/a:b", {}, "linux.netDevices['a:b']"),
    ("linux/netDevices/..", {}, "linux.netDevices['..']"),
    *[("linux/cgroupsPath", text) for text in ("/a/../b", "..", "a/./b", "/", "//", "a\0")],
    ("linux/resources", []),
    ("linux/resources/devices/0/allow", GONE),
    ("linux/resources/devices/0/allow", 0),
    ("linux/resources/devices/1/type", "p"),
    ("linux/resources/devices/1/major", -2),
    ("linux/resources/devices/1/access", "rx"),
    ("linux/resources/memory/limit", -2),
    ("linux/resources/memory/limit", 1 << 63),
    ("linux/resources/memory/swap", 536870911),
    ("linux/resources/memory/swappiness", 101),
    ("linux/resources/memory/disableOOMKiller", 1),
    ("linux/resources/cpu/shares", -1),
    ("linux/resources/cpu/burst", 1000001),
    ("linux/resources/cpu/cpus", "all"),
    ("linux/resources/cpu/mems", 0),
    ("linux/resources/cpu/idle", 2),
    ("linux/resources/pids/limit", "max"),
    ("linux/resources/blockIO/weight", 1001),
    ("linux/resources/blockIO/weightDevice/0/weight", GONE),
    ("linux/resources/blockIO/weightDevice/0/major", GONE),
    ("linux/resources/blockIO/throttleReadBpsDevice/0/rate", GONE),
    ("linux/resources/blockIO/throttleWriteIOPSDevice/0/rate", 1 << 64),
    *[("linux/resources/hugepageLimits/0/pageSize", text) for text in ("2", "MB", "02MB", "2mB", "../2MB", "2TB", 2)],
    ("linux/resources/hugepageLimits/0/limit", GONE),
    ("linux/resources/network/classID", 1 << 32),
    ("linux/resources/network/priorities/0/name", "a/b"),
    ("linux/resources/network/priorities/0/priority", GONE),
    ("linux/resources/rdma/mlx5_1", {}, "linux.resources.rdma.mlx5_1"),
    ("linux/resources/rdma/a b", {"hcaObjects": 1}, "linux.resources.rdma['a b']"),
    ("linux/resources/rdma/mlx5_1/hcaHandles", 1 << 32),
    ("linux/resources/unified/memory.high", 5, "linux.resources.unified['memory.high']"),
    *[(f"linux/resources/unified/{name}", "1", "linux.resources.unified") for name in ("", "x", ".", "..", "memory.")],
    ("linux/sysctl/net.ipv4.ip_forward", 1, "linux.sysctl['net.ipv4.ip_forward']"),
    *[
        (f"linux/sysctl/{name}", "1", f"linux.sysctl['{name}']")
        for name in ("net..x", "vm.swappiness", "kernel.hostname", "kernel.core_pattern", "net.", ".net.x")
    ],
    ("linux/seccomp/defaultAction", GONE),
    ("linux/seccomp/defaultAction", "ALLOW"),
    ("linux/seccomp/defaultAction", "SCMP_ACT_KILL", "linux.seccomp.defaultErrnoRet"),
    ("linux/seccomp/defaultErrnoRet", 4096),
    ("linux/seccomp/architectures/0", "x86_64"),
    ("linux/seccomp/flags/0", "SECCOMP_FILTER_FLAG_NEW_LISTENER"),
    ("linux/seccomp/listenerPath", "agent.sock"),
    ("linux/seccomp/listenerPath", "", "linux.seccomp.listenerMetadata"),
    ("linux/seccomp/syscalls/0/names", []),
    ("linux/seccomp/syscalls/0/names", GONE),
    ("linux/seccomp/syscalls/0/names/0", 5),
    ("linux/seccomp/syscalls/0/action", GONE),
    ("linux/seccomp/syscalls/0/action", "SCMP_ACT_NONE"),
    ("linux/seccomp/syscalls/0/errnoRet", 1),
    ("linux/seccomp/syscalls/2/errnoRet", 4096),
    ("linux/seccomp/syscalls/2/args/0/index", 6),
    ("linux/seccomp/syscalls/2/args/0/value", -1),
    ("linux/seccomp/syscalls/2/args/0/valueTwo", 1 << 64),
    ("linux/seccomp/syscalls/2/args/0/op", "EQ"),
    ("linux/rootfsPropagation", "rprivat"),
    ("linux/maskedPaths/0", "proc/kcore"),
    ("linux/readonlyPaths/0", "/proc/\0"),
    ("linux/readonlyPaths", "/proc"),
    ("linux/mountLabel", 5),
    ("linux/personality/domain", GONE),
    ("linux/personality/domain", "BSD"),
    ("linux/intelRdt/closID", ".."),
    ("linux/intelRdt/closID", "a/b"),
    ("linux/intelRdt/memBwSchema", "0=20"),
    ("linux/intelRdt/memBwSchema", "MB:0=20\nL3:0=1"),
    ("linux/intelRdt/schemata", "L2:0=f"),
    ("linux/intelRdt/enableMonitoring", "yes"),
    ("linux/memoryPolicy/mode", GONE),
    ("linux/memoryPolicy/mode", "BIND"),
    ("linux/memoryPolicy/nodes", "all"),
    ("linux/memoryPolicy/flags/0", "MPOL_F_NODE"),
]


IGNORED = {("process", "commandLine"), ("process", "user", "username"), ("windows",), ("windows", "layerFolders")}
NEEDED = """
    process/consoleSize/width process/rlimits/0/hard mounts/2/uidMappings/0/containerID linux/devices/0/path
    linux/devices/0/minor linux/resources/blockIO/weightDevice/0/minor linux/resources/hugepageLimits/0/pageSize
    linux/resources/blockIO/throttleReadBpsDevice/0/major linux/resources/blockIO/throttleReadBpsDevice/0/minor
    linux/resources/network/priorities/0/name linux/seccomp/syscalls/2/args/0/index
    linux/seccomp/syscalls/2/args/0/value linux/seccomp/syscalls/2/args/0/op
"""
MISTAKES += [(path, GONE) for path in NEEDED.split()]
MISTAKES += [("/".join(path), 1.5) for path in fields(DOCUMENTS["everything"]) if path not in IGNORED]


def dotted(path: str) -> str:
    return vocabulary.path("", [int(part) if part.isdigit() else part for part in path.split("/")])


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake[0]!r}"[1:-1])
def test_a_mistake_is_named_by_its_path(mistake: tuple[Any, ...]) -> None:
    document = everything()
    put(document, mistake[0], mistake[1])
    error = refusal(document)
    wanted = mistake[2] if len(mistake) > 2 else dotted(mistake[0])
    assert error.what == wanted or (len(mistake) > 2 and error.what.startswith(wanted)), str(error)
    assert error.why
    assert "\n" not in str(error)
    assert len(str(error)) < 400


NAMESPACE = {"pid": 0, "network": 1, "mount": 2, "ipc": 3, "uts": 4, "user": 5, "cgroup": 6, "time": 7}


@pytest.mark.parametrize(
    ("missing", "gone", "path"),
    [
        ("uts", [], "hostname"),
        ("uts", ["hostname"], "domainname"),
        ("uts", ["hostname", "domainname"], "linux.sysctl['kernel.domainname']"),
        ("mount", [], "linux.maskedPaths"),
        ("mount", ["linux/maskedPaths"], "linux.readonlyPaths"),
        ("user", [], "linux.uidMappings"),
        ("user", ["linux/uidMappings"], "linux.gidMappings"),
        (
            "user",
            ["linux/uidMappings", "linux/gidMappings", "mounts/2/uidMappings", "mounts/2/gidMappings"],
            "mounts[2].options",
        ),
        ("time", [], "linux.timeOffsets"),
        ("network", [], "linux.netDevices"),
        ("network", ["linux/netDevices"], "linux.sysctl['net.ipv4.ip_forward']"),
        ("ipc", [], "linux.sysctl['kernel.shmmax']"),
        ("ipc", ["linux/sysctl/kernel.shmmax"], "linux.sysctl['fs.mqueue.msg_max']"),
        ("", ["linux/uidMappings"], "linux.uidMappings"),
        ("", ["linux/gidMappings"], "linux.gidMappings"),
        ("", ["linux/seccomp/listenerPath", "linux/seccomp/listenerMetadata"], "linux.seccomp.syscalls[1].action"),
    ],
)
def test_what_cannot_be_together(missing: str, gone: list[str], path: str) -> None:
    document = everything()
    if missing:
        put(document, f"linux/namespaces/{NAMESPACE[missing]}", GONE)
    for name in gone:
        put(document, name, GONE)
    assert refusal(document).what == path


def test_offsets_are_for_a_new_time_namespace_only() -> None:
    document = everything()
    put(document, "linux/namespaces/7/path", "/proc/1/ns/time")
    assert refusal(document).what == "linux.timeOffsets"


@pytest.mark.parametrize("name", ["net.//.kernel.core_pattern", "net/../kernel/core_pattern", "net.ipv4./", "net/./x"])
def test_no_sysctl_leads_out_of_its_directory(name: str) -> None:
    document = everything()
    document["linux"]["sysctl"] = {name: "x"}
    assert refusal(document).what.startswith("linux.sysctl")


def test_a_control_file_is_no_path() -> None:
    document = everything()
    document["linux"]["resources"]["unified"] = {"../other/memory.max": "1"}
    assert refusal(document).what == "linux.resources.unified['../other/memory.max']"


def test_the_file_of_a_sysctl() -> None:
    assert linux_spec.sysctl_path("net.ipv4.ip_forward") == "net/ipv4/ip_forward"
    assert linux_spec.sysctl_path("net.ipv4.conf.eth0/100.rp_filter") == "net/ipv4/conf/eth0.100/rp_filter"
    assert linux_spec.sysctl_path("net/ipv4/conf/eth0.100/rp_filter") == "net/ipv4/conf/eth0.100/rp_filter"


@pytest.mark.parametrize("value", [None, [], "x", 5, True, [{}]])
def test_a_document_that_is_no_object(value: Any) -> None:
    assert refusal(value).what == "config.json"


def test_messages_say_what_was_there() -> None:
    document = everything()
    put(document, "process/user/uid", "root")
    assert str(refusal(document)) == "process.user.uid: expected int, got str"
    put(document, "process/user/uid", -1)
    assert str(refusal(document)) == "process.user.uid: expected 0 to 4294967294, got -1"
    put(document, "process/user/uid", BIG)
    assert str(refusal(document)) == "process.user.uid: expected 0 to 4294967294, got int"


# --- warnings, and the parts ---


def test_warnings() -> None:
    document = everything()
    put(document, "process/capabilities/bounding/1", "CAP_TO_FLY")
    put(document, "process/capabilities/ambient/0", "cap\nkill")
    put(document, "mounts/0/destination", "proc")
    put(document, "linux/personality/flags", ["ADDR_NO_RANDOMIZE"])
    assert check(document) == [
        "process.capabilities.bounding[1]: 'CAP_TO_FLY' is not known here, left out",
        "process.capabilities.ambient[0]: 'cap\\nkill' is not known here, left out",
        "mounts[0].destination: 'proc' is relative, taken to be below /",
        "linux.personality.flags: none is known, left out",
    ]


def test_the_process_of_an_exec() -> None:
    process = everything()["process"]
    assert check_process(process) == []
    process["capabilities"]["bounding"] = ["CAP_X"]
    assert check_process(process, "--process") == [
        "--process.capabilities.bounding[0]: 'CAP_X' is not known here, left out"
    ]
    process["user"]["uid"] = "0"
    with pytest.raises(InvalidDocument, match=r"^process\.user\.uid: expected int, got str$"):
        check_process(process)
    with pytest.raises(InvalidDocument, match=r"^process: expected object, got list$"):
        check_process([])


def test_the_limits_of_an_update() -> None:
    assert check_resources(everything()["linux"]["resources"]) == []
    assert check_resources({}) == []
    with pytest.raises(InvalidDocument, match=r"^linux\.resources\.memory\.limit: expected int, got str$"):
        check_resources({"memory": {"limit": "64m"}})
    with pytest.raises(InvalidDocument, match=r"^resources: expected object, got null$"):
        check_resources(None, "resources")


def test_the_names_are_those_that_the_runtime_has() -> None:
    assert set(security.CAPABILITIES) == process_spec.CAPABILITIES
    assert set(security.RLIMITS) == process_spec.RLIMITS
    assert set(security.NAMESPACES) == linux_spec.NAMESPACES
    assert set(seccomp.FLAGS) == linux_spec.FILTER_FLAGS
    assert set(seccomp_compiler.ACTIONS) == linux_spec.ACTIONS
    assert set(seccomp_compiler.OPERATORS) == linux_spec.OPERATORS
    assert set(seccomp_compiler.ARCHITECTURES) == linux_spec.ARCHITECTURES


# --- what we write ourselves ---


@pytest.mark.parametrize("arguments", [(False,), (True, 1000, 1001)])
def test_the_example_is_a_good_document(arguments: tuple[Any, ...]) -> None:
    document = example.document(*arguments)
    assert check(document) == []
    assert strict_json.loads(strict_json.dumps(document)) == document
    names = {"runc-spec-rootless" if arguments[0] else "runc-spec": document}
    for name, ours in names.items():  # what runc's has, ours has too
        theirs = DOCUMENTS[name]
        assert set(theirs) == set(ours)
        assert set(theirs["linux"]) == set(ours["linux"])
        assert {entry["type"] for entry in ours["linux"]["namespaces"]} == {
            *(entry["type"] for entry in theirs["linux"]["namespaces"]),
            "cgroup",
        }
        assert {mount["destination"] for mount in theirs["mounts"]} == {m["destination"] for m in ours["mounts"]}
        assert set(theirs["linux"]["maskedPaths"]) <= set(ours["linux"]["maskedPaths"])
        assert theirs["process"]["terminal"] == ours["process"]["terminal"]
        assert theirs["root"] == ours["root"]


def test_the_example_of_a_user_maps_that_user() -> None:
    linux = example.document(True, 1000, 1001)["linux"]
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]
    assert linux["gidMappings"] == [{"containerID": 0, "hostID": 1001, "size": 1}]


def test_features() -> None:
    document = features.document()
    assert strict_json.loads(strict_json.dumps(document)) == document
    for version in (document["ociVersionMin"], document["ociVersionMax"]):
        config = everything()
        config["ociVersion"] = version
        assert check(config) == []
    assert document["ociVersionMax"] == defaults.VERSION
    assert document["hooks"] == list(runtime_spec.HOOKS)
    assert document["linux"]["namespaces"] == sorted(security.NAMESPACES)
    assert set(document["linux"]["seccomp"]["supportedFlags"]) <= set(document["linux"]["seccomp"]["knownFlags"])
    # A document must not have fields that are younger than its version.
    assert ("netDevices" in document["linux"]) == (defaults.VERSION >= "1.3")


def test_the_mount_options_of_the_features_are_those_of_init() -> None:
    """Its tables are read; an entry of all but one of them has a recursive form too, with an r in front."""
    source = (REPOSITORY / "csrc/mount_options.c").read_text()
    known = set()
    for table in source.split("static const struct")[1:]:
        names = re.findall(r'\{"([a-z]+)"', table)
        assert names
        known |= {*names, *(f"r{name}" for name in names if "} flags[] =" not in table)}
    assert known == features.MOUNT_OPTIONS


def test_what_the_engine_writes_is_a_good_document() -> None:
    asked = RunOptions()
    asked.image, asked.command, asked.memory, asked.cpus = "alpine", ["sh"], 1 << 26, 0.5
    asked.tmpfs, asked.volumes = [("/tmp", "size=1m")], [("/srv", "/srv", "ro")]
    for netns in (None, "/run/netns/box"):
        document = spec.config("0123456789abcdef", {}, asked, User(1000, 1000, [5], "/"), "/run/x", netns, "minirun/x")
        assert check(document) == []


# --- anything else ---

JUNK: list[Any] = [
    None, True, False, 0, -1, 1, 2, 1.0, 1e400, float("nan"), 1 << 31, 1 << 32, 1 << 63, 1 << 64, BIG, -BIG,
    "", "/", "..", "x", "a\0b", "\ud800", "\udcff", "x" * 5000, "new\nline", "SCMP_ACT_NOTIFY", "user", "0-3",
    [], {}, [[]], [None], [{}], [1], ["x"], {"": ""}, {"path": "/x"}, {"type": "user"}, {"a": {"b": []}},
]  # fmt: skip


def places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        found.append((value, key))
        if isinstance(item, (dict, list)):
            places(item, found)
    return found


@given(st.integers(0, (1 << 64) - 1))
@settings(max_examples=300, derandomize=True, deadline=None, database=None)
def test_any_change_is_accepted_or_refused_by_its_path(seed: int) -> None:
    choice = random.Random(seed)  # drawing each change from hypothesis would take ten times as long
    document = strict_json.loads(choice.choice(GROUNDS))
    for _ in range(choice.randint(1, 3)):
        container, key = choice.choice(places(document, []))
        if isinstance(container, dict) and choice.random() < 0.2:
            container[choice.choice(["", "type", "a\nb", "\ud800"])] = container.pop(key)
        else:
            container[key] = copy.deepcopy(choice.choice(JUNK))
    try:
        lines = check(document)
    except InvalidDocument as error:
        assert error.what.partition(".")[0].partition("[")[0] in CONFIG
        assert error.why
        lines = [str(error)]
    assert all("\n" not in line and len(line) < 1000 for line in lines)


def test_deep_and_large_documents() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    document = everything()
    document["process"]["env"] = deep
    assert refusal(document).what == "process.env[0]"
    document["process"]["env"] = ["A=B"] * 1_000_000
    assert check(document) == []
    document["process"]["args"] = deep
    document["x-unknown"] = deep
    assert refusal(document).what == "process.args[0]"
    while deep:  # taken apart by hand: the interpreter's own recursion would end it otherwise
        deep = deep.pop()
