"""A compiled program decides as its profile says: the instructions are interpreted here, and the profile read naively.

libseccomp turns rules into a tree and has had errors in doing so; this checks its work, and the instructions that stand
before it, for every number of a system call and for arguments near the values that the rules speak of.
"""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirun.linux import seccomp, security
from minirun.linux._seccomp import lib
from minirun.linux.seccomp_compiler import ACTIONS
from minirun.oci.seccomp import default_profile

NATIVE = int(lib.seccomp_arch_native())
ERRNO = ACTIONS["SCMP_ACT_ERRNO"]


class Case:
    """A profile, its program, and its rules by the number of the call."""

    def __init__(self, *capabilities: str) -> None:
        profile = default_profile(capabilities)
        self.program = list(struct.iter_unpack("=HBBI", seccomp.compile(profile)))
        self.rules: dict[int, list[dict]] = {}
        for rule in profile["syscalls"]:
            for name in rule["names"]:
                self.rules.setdefault(resolve(name), []).append(rule)

    def expected(self, number: int, arguments: tuple) -> int:
        if number > max(self.rules):
            return ERRNO | errno.ENOSYS
        for rule in self.rules.get(number, []):
            if all(arguments[c["index"]] & c["value"] == c["valueTwo"] for c in rule.get("args", [])):
                return ACTIONS[rule["action"]] | rule.get("errnoRet", 0)
        return ERRNO | errno.EPERM


def resolve(name: str) -> int:
    return int(lib.seccomp_syscall_resolve_name_arch(NATIVE, name.encode()))


def interpret(program: list, number: int, arguments: tuple, architecture: int = NATIVE) -> tuple[int, int]:
    """What the kernel's classic BPF machine returns, and after how many instructions."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments)
    at = accumulator = steps = 0
    while True:
        code, if_true, if_false, k = program[at]
        at += 1
        steps += 1
        if code == 0x06:
            return k, steps
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif code == 0x54:
            accumulator &= k
        elif code == 0x05:
            at += k
        else:
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k, 0x45: accumulator & k != 0}
            at += if_true if holds[code] else if_false


CASES = {"none": Case(), "default": Case(*security.DEFAULT_CAPABILITIES), "all": Case(*security.CAPABILITIES)}
INTERESTING = [0, 1, 2, 4, 9, 15, 16, 17, 33, 38, 40, 0x8, 0x20000, 0x20008, 0x5412, 0x5413, 0x80045430, 0x10000000]
words = st.builds(
    lambda low, high: low | high << 32,
    st.sampled_from([*INTERESTING, 0xFFFFFFFF]) | st.integers(0, 0xFFFFFFFF),
    st.sampled_from([0, 1, 0xFFFFFFFF]),
)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_call(case):
    for number in range(max(case.rules) + 200):
        for word in INTERESTING:
            arguments = (word, word, word, 0, 0, 0)
            assert interpret(case.program, number, arguments)[0] == case.expected(number, arguments), (number, word)


@given(
    st.sampled_from(list(CASES.values())),
    st.sampled_from(["socket", "socketpair", "ioctl", "clone", "unshare", "personality"]),
    st.tuples(*[words] * 6),
)
def test_calls_that_depend_on_arguments(case, name, arguments):
    assert interpret(case.program, resolve(name), arguments)[0] == case.expected(resolve(name), arguments)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_another_architecture_ends_the_process(case):
    for architecture in {0x40000003, 0xC000003E, 0xC00000B7} - {NATIVE}:
        assert interpret(case.program, 1, (0,) * 6, architecture)[0] == ACTIONS["SCMP_ACT_KILL_PROCESS"]


def test_a_decision_takes_few_instructions():
    """A tree, and not a list of several hundred comparisons before the last call."""
    case = CASES["default"]
    unconditional = [number for number, rules in case.rules.items() if number >= 0 and "args" not in rules[0]]
    assert max(interpret(case.program, number, (0,) * 6)[1] for number in unconditional) < 40


@pytest.mark.skipif(NATIVE != 0xC000003E, reason="three ABIs on one kernel are x86_64's")
def test_a_profile_for_all_abis_of_x86():
    i386, x32 = 0x40000003, 0x40000000
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": ["getpid", "close_range"], "action": "SCMP_ACT_ALLOW"}],
    }
    program = list(struct.iter_unpack("=HBBI", seccomp.compile(profile)))
    allow, refuse, unknown = ACTIONS["SCMP_ACT_ALLOW"], ERRNO | errno.EPERM, ERRNO | errno.ENOSYS

    def decision(number, architecture=NATIVE):
        return interpret(program, number, (0,) * 6, architecture)[0]

    assert [decision(n) for n in (39, 40, 436, 437)] == [allow, refuse, allow, unknown]
    assert [decision(n, i386) for n in (20, 21, 436, 437)] == [allow, refuse, allow, unknown]
    assert [decision(x32 | n) for n in (39, 40, 436, 437)] == [allow, refuse, allow, refuse]
