"""The default profile is data: the rules that it keeps, what the compiler makes of bad documents, and the tables."""

from __future__ import annotations

import copy
import resource
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirun import strict_json
from minirun.errors import InvalidDocument, UsageError
from minirun.linux import seccomp, security
from minirun.linux._seccomp import lib
from minirun.oci.seccomp import default_profile
from minirun.oci.seccomp_groups import GROUPS, INT, anything_but, masked

# Calls that are younger than libseccomp 2.5.4, with their numbers: the same on every architecture, or x86's own.
NEWER = {
    "cachestat": 451, "fchmodat2": 452, "map_shadow_stack": 453, "futex_wake": 454, "futex_wait": 455,
    "futex_requeue": 456, "statmount": 457, "listmount": 458, "lsm_get_self_attr": 459, "lsm_list_modules": 461,
    "mseal": 462, "setxattrat": 463, "getxattrat": 464, "listxattrat": 465, "removexattrat": 466,
    "open_tree_attr": 467, "file_getattr": 468, "file_setattr": 469, "riscv_hwprobe": 258, "uretprobe": 335,
    "uprobe": 336,
}  # fmt: skip
MACHINES = ["x86_64", "aarch64", "s390x", ""]
REFUSED_TO_ALL = [
    "add_key", "keyctl", "request_key", "io_uring_setup", "io_uring_enter", "io_uring_register", "kexec_load",
    "kexec_file_load", "swapon", "swapoff", "nfsservctl", "uselib", "_sysctl", "sysfs", "ustat", "vm86", "vm86old",
    "move_pages", "migrate_pages", "lookup_dcookie", "create_module", "query_module",
]  # fmt: skip


def resolve(name: str) -> int:
    return int(lib.seccomp_syscall_resolve_name_arch(lib.seccomp_arch_native(), name.encode()))


def allowed(profile: dict) -> set[str]:
    return {n for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for n in rule["names"]}


# --- the groups ---


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.names[0])
def test_every_group_says_why(group):
    assert len(group.reason.split()) >= 3
    assert group.reason.endswith(".")


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.names[0])
def test_every_name_is_a_system_call(group):
    assert [name for name in group.names if resolve(name) == -1 and name not in NEWER] == []


def test_no_name_is_given_twice_to_the_same_container():
    for capabilities in [(), security.DEFAULT_CAPABILITIES, security.CAPABILITIES]:
        for machine in MACHINES:
            rules = default_profile(capabilities, machine, compat=True)["syscalls"]
            names = [name for rule in rules if "args" not in rule for name in rule["names"]]
            assert len(names) == len(set(names))
            assert not set(names) & {name for rule in rules if "args" in rule for name in rule["names"]}


def test_groups_speak_of_capabilities_that_exist():
    spoken = {name for group in GROUPS for name in group.needs + group.lacks}
    assert spoken <= set(security.CAPABILITIES)


@pytest.mark.parametrize("name", REFUSED_TO_ALL)
def test_some_calls_are_refused_with_all_capabilities(name):
    assert resolve(name) != -1
    assert name not in allowed(default_profile(security.CAPABILITIES, compat=True))


# --- the profile ---


@pytest.mark.parametrize(
    ("capability", "names"),
    [
        ("CAP_SYS_ADMIN", {"mount", "setns", "clone3", "bpf", "perf_event_open", "syslog", "pivot_root"}),
        ("CAP_BPF", {"bpf"}),
        ("CAP_PERFMON", {"perf_event_open"}),
        ("CAP_SYSLOG", {"syslog"}),
        ("CAP_SYS_CHROOT", {"chroot"}),
        ("CAP_SYS_PTRACE", {"kcmp", "pidfd_getfd", "process_madvise", "userfaultfd"}),
        ("CAP_SYS_MODULE", {"init_module", "finit_module", "delete_module"}),
        ("CAP_SYS_TIME", {"settimeofday", "clock_settime", "clock_settime64", "stime"}),
        ("CAP_DAC_READ_SEARCH", {"open_by_handle_at"}),
        ("CAP_SYS_NICE", {"mbind", "set_mempolicy", "get_mempolicy", "set_mempolicy_home_node"}),
    ],
)
def test_a_capability_brings_its_calls(capability, names):
    assert not allowed(default_profile([])) & names
    assert names <= allowed(default_profile([capability]))


@given(st.sets(st.sampled_from(security.CAPABILITIES)), st.sampled_from(security.CAPABILITIES))
def test_a_capability_never_takes_a_call_away(held, more):
    assert allowed(default_profile(held)) <= allowed(default_profile(held | {more}))


def test_only_who_could_make_a_namespace_anyway_may_call_clone3():
    rules = {name: rule for rule in default_profile([])["syscalls"] for name in rule["names"]}
    assert rules["clone3"] == {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    assert rules["clone"]["args"] == [masked(0, 0x7E020000, 0)]
    s390 = {name: rule for rule in default_profile([], "s390x")["syscalls"] for name in rule["names"]}
    assert s390["clone"]["args"] == [masked(1, 0x7E020000, 0)]


def test_the_profile_is_a_json_document():
    profile = default_profile(security.DEFAULT_CAPABILITIES, "x86_64")
    assert strict_json.loads(strict_json.dumps(profile)) == profile


def test_an_int_argument_is_compared_in_its_32_bits():
    for rule in default_profile(security.CAPABILITIES)["syscalls"]:
        for condition in rule.get("args", []):
            assert condition["op"] == "SCMP_CMP_MASKED_EQ"
            assert condition["value"] <= INT


@given(st.integers(0, INT), st.integers(0, (1 << 64) - 1))
def test_anything_but_one_value(refused, value):
    (conditions,) = zip(*anything_but(1, refused), strict=True)
    assert any(value & c["value"] == c["valueTwo"] for c in conditions) == (value & INT != refused)


# --- the compiler ---

SMALL = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 1,
    "architectures": ["SCMP_ARCH_X86_64"],
    "flags": ["SECCOMP_FILTER_FLAG_LOG"],
    "listenerPath": "/run/agent",
    "listenerMetadata": "x",
    "syscalls": [
        {"names": ["read", "no_such_call_yet"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["socket"], "action": "SCMP_ACT_TRACE", "errnoRet": 7, "args": [masked(0, INT, 2)]},
    ],
}


def changed(path: list, value: object) -> dict:
    result = copy.deepcopy(SMALL)
    place = result
    for key in path[:-1]:
        place = place[key]
    if value is KeyError:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return result


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["defaultAction"], KeyError, "linux.seccomp.defaultAction: unknown action None"),
        (["defaultAction"], "SCMP_ACT_NOTIFY", "linux.seccomp.defaultErrnoRet: SCMP_ACT_NOTIFY returns no errno"),
        (["defaultErrnoRet"], -1, "linux.seccomp.defaultErrnoRet: expected an integer from 0 to 4095"),
        (["defaultErrnoRet"], True, "linux.seccomp.defaultErrnoRet: expected an integer from 0 to 4095"),
        (["architectures", 0], "SCMP_ARCH_VAX", "linux.seccomp.architectures[0]: unknown architecture 'SCMP_ARCH_VAX'"),
        (["flags", 0], "TSYNC", "linux.seccomp.flags[0]: unknown flag 'TSYNC'"),
        (["listenerPath"], "", "linux.seccomp.listenerMetadata: needs listenerPath"),
        (["syscalls"], {}, "linux.seccomp.syscalls: expected a list"),
        (["syscalls", 1], [], "linux.seccomp.syscalls[1]: expected an object"),
        (["syscalls", 0, "names"], [], "linux.seccomp.syscalls[0].names: expected at least one name"),
        (["syscalls", 0, "names", 1], "a\0b", "linux.seccomp.syscalls[0].names[1]: expected the name of a system call"),
        (["syscalls", 1, "action"], "ALLOW", "linux.seccomp.syscalls[1].action: unknown action 'ALLOW'"),
        (["syscalls", 0, "errnoRet"], 1, "linux.seccomp.syscalls[0].errnoRet: SCMP_ACT_ALLOW returns no errno"),
        (["syscalls", 1, "args", 0, "op"], "==", "linux.seccomp.syscalls[1].args[0].op: unknown operator '=='"),
        (["syscalls", 1, "args", 0, "index"], 6, "linux.seccomp.syscalls[1].args[0].index: expected an integer from 0"),
        (["syscalls", 1, "args", 0, "value"], 1 << 64, "linux.seccomp.syscalls[1].args[0].value: expected an integer"),
        (["syscalls", 1, "args", 0, "value"], 1.0, "linux.seccomp.syscalls[1].args[0].value: expected an integer"),
    ],
)
def test_a_bad_document_is_refused_at_its_path(path, value, message):
    seccomp.compile(SMALL)
    with pytest.raises(InvalidDocument) as caught:
        seccomp.compile(changed(path, value))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_the_default_action_cannot_be_the_listener():
    with pytest.raises(InvalidDocument, match=r"linux\.seccomp\.defaultAction: "):
        seccomp.compile({"defaultAction": "SCMP_ACT_NOTIFY"})


def test_flags_are_for_whoever_installs_the_program():
    assert seccomp.flags(SMALL) == 2
    assert seccomp.flags({"flags": list(seccomp.FLAGS)}) == 1 | 2 | 4 | 32
    assert seccomp.flags({}) == 0


def test_null_is_an_absent_list():
    assert seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": None, "architectures": None, "flags": None})


@pytest.mark.parametrize("capabilities", [(), security.DEFAULT_CAPABILITIES, security.CAPABILITIES])
def test_the_default_profile_compiles_to_instructions(capabilities):
    program = seccomp.compile(default_profile(capabilities))
    instructions = list(struct.iter_unpack("=HBBI", program))
    assert len(instructions) <= 4096
    assert instructions[-1][0] == 0x06  # BPF_RET: no way leads past the end


words = st.sampled_from(
    [
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL",
        "SCMP_ACT_NOTIFY",
        "SCMP_ARCH_X86",
        "SCMP_ARCH_PARISC",
        "read",
    ]
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 1 << 65) | st.floats(allow_nan=False) | st.text(max_size=8) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | words, inner, max_size=3),
    max_leaves=8,
)
paths = st.sampled_from(
    [
        ["defaultAction"], ["defaultErrnoRet"], ["architectures"], ["architectures", 0], ["flags"], ["flags", 0],
        ["listenerPath"], ["listenerMetadata"], ["syscalls"], ["syscalls", 1], ["syscalls", 1, "names"],
        ["syscalls", 1, "names", 0], ["syscalls", 1, "action"], ["syscalls", 1, "errnoRet"], ["syscalls", 1, "args"],
        ["syscalls", 1, "args", 0], ["syscalls", 1, "args", 0, "index"], ["syscalls", 1, "args", 0, "value"],
        ["syscalls", 1, "args", 0, "valueTwo"], ["syscalls", 1, "args", 0, "op"],
    ]
)  # fmt: skip


@given(paths, junk)
def test_whatever_stands_in_a_document_it_compiles_or_is_invalid(path, value):
    try:
        program = seccomp.compile(changed(path, value))
    except InvalidDocument:
        return
    assert len(program) % 8 == 0


@given(junk)
def test_whatever_the_document_is_it_compiles_or_is_invalid(value):
    try:
        seccomp.compile(value)
    except InvalidDocument:
        pass


# --- capabilities ---


def test_the_table_is_as_long_as_the_kernel_says_or_longer():
    assert len(security.CAPABILITIES) >= min(security.last_capability() + 1, 41)


def test_names_and_bits_are_each_others_inverse():
    assert security.mask(["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"]) == 1 << 40 | 1
    assert security.names(security.mask(security.CAPABILITIES)) == list(security.CAPABILITIES)
    assert security.mask(["chown", "CAP_KILL"]) == 1 << 5


def test_what_cannot_be_granted_is_told_apart():
    granted, refused = security.divide(["CAP_CHOWN", "CAP_NEXT_YEARS"])
    assert (granted, refused) == (["CAP_CHOWN"], ["CAP_NEXT_YEARS"])


def test_flags_add_and_drop_capabilities():
    default = set(security.DEFAULT_CAPABILITIES)
    assert set(security.adjust()) == default
    assert set(security.adjust(["net_raw", "CAP_SYS_TIME"])) == default | {"CAP_NET_RAW", "CAP_SYS_TIME"}
    assert set(security.adjust(drop=["Chown"])) == default - {"CAP_CHOWN"}
    assert security.adjust(["kill"], ["all"]) == ["CAP_KILL"]
    assert security.adjust(["ALL"]) == security.names(security.bounding())
    assert set(security.adjust(["ALL"], ["CHOWN"])) == set(security.names(security.bounding())) - {"CAP_CHOWN"}


@pytest.mark.parametrize(
    ("add", "drop", "message"),
    [
        (["NETADMIN"], [], "--cap-add NETADMIN: not a capability; capabilities"),
        ([], [""], "--cap-drop : not a capability"),
        (["chown"], ["CAP_CHOWN"], "--cap-drop CAP_CHOWN: it is in --cap-add too"),
        (["all"], ["all"], "--cap-drop ALL: it is in --cap-add too"),
    ],
)
def test_wrong_flags_are_one_clear_line(add, drop, message):
    with pytest.raises(UsageError) as caught:
        security.adjust(add, drop)
    assert str(caught.value).startswith(message)


def test_the_limits_have_the_kernels_numbers():
    known = {name: getattr(resource, name) for name in security.RLIMITS if hasattr(resource, name)}
    assert len(known) > 10
    assert known.items() <= security.RLIMITS.items()
