"""The device filter decides as its rules say: its instructions are interpreted here, and the rules read naively.

The interpreter knows the instructions that the program may contain, and fails for any other, for a jump to nowhere, for
a register that was never written and for an instruction that nothing reaches: the kernel's verifier would refuse these.
"""

from __future__ import annotations

import errno
import struct
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirun.errors import InvalidDocument, Unsupported
from minirun.linux import devices, syscalls
from minirun.oci import defaults
from minirun.runtime import resources

Rule = dict[str, Any]
MKNOD, READ, WRITE = 1, 2, 4
BIG = (1 << 32) - 1


def instructions(rules: list[Rule]) -> list[tuple[int, int, int, int, int]]:
    """(code, destination, source, offset, number)"""
    found = []
    for code, registers, offset, number in struct.iter_unpack("=BBhI", devices.program(rules)):
        low, high = registers & 15, registers >> 4
        found.append((code, *((low, high) if sys.byteorder == "little" else (high, low)), offset, number))
    return found


def interpret(rules: list[Rule], kind: str, major: int, minor: int, access: int) -> bool:
    """What the kernel's eBPF machine returns for a request."""
    program = instructions(rules)
    context = struct.pack("=III", {"b": 1, "c": 2}[kind] | access << 16, major, minor)
    registers: dict[int, int] = {}
    at = 0
    while True:
        code, to, source, offset, number = program[at]
        at += 1
        if code == 0x95:
            assert registers[0] in (0, 1)
            return bool(registers[0])
        if code == 0x61:
            assert (source, 1 in registers) == (1, False), "the context is gone"
            (registers[to],) = struct.unpack_from("=I", context, offset)
        elif code in (0xB4, 0xBC):
            registers[to] = number if code == 0xB4 else registers[source]
        elif code == 0x54:
            registers[to] &= number
        elif code == 0x74:
            registers[to] >>= number
        else:
            at += offset if {0x16: registers[to] == number, 0x56: registers[to] != number}[code] else 0


def fits(rule: Rule, kind: str, major: int, minor: int, right: str) -> bool:
    if (rule.get("type") or "a") == "a":
        return True
    numbers = ((rule.get("major"), major), (rule.get("minor"), minor))
    same = all(wanted is None or wanted < 0 or wanted == number for wanted, number in numbers)
    return same and rule["type"] == kind and right in (rule.get("access") or "rwm")


def expected(rules: list[Rule], kind: str, major: int, minor: int, access: int) -> bool:
    """Each right that is asked for is decided by the last rule that speaks of it; all must be granted."""
    for right, bit in (("m", MKNOD), ("r", READ), ("w", WRITE)):
        deciding = [rule for rule in rules if fits(rule, kind, major, minor, right)]
        if access & bit and not (deciding and deciding[-1]["allow"]):
            return False
    return True


numbers = st.sampled_from([0, 1, 3, 0x7FFFFFFF, 0x80000000, BIG])
rules = st.fixed_dictionaries(
    {"allow": st.booleans()},
    optional={
        "type": st.sampled_from(["a", "b", "c", "b", "c", "", None]),
        "major": st.none() | st.just(-1) | numbers,
        "minor": st.none() | st.just(-1) | numbers,
        "access": st.sampled_from(["r", "w", "m", "rw", "wm", "mr", "rwm", "rr", "", None]),
    },
)


@settings(max_examples=500, deadline=None)
@given(st.lists(rules, max_size=8), st.sampled_from("bc"), numbers, numbers, st.integers(1, 7))
def test_it_decides_as_the_rules_say(rules: list[Rule], kind: str, major: int, minor: int, access: int) -> None:
    request = (kind, major, minor, access)
    assert interpret(rules, *request) == expected(rules, *request)


@given(st.lists(rules, max_size=8))
def test_the_verifier_has_nothing_to_refuse(rules: list[Rule]) -> None:
    """Every jump goes forward to an instruction, the last instruction is an exit, and each can be reached."""
    program = instructions(rules)
    reached, todo = set(), [0]
    while todo:
        at = todo.pop()
        if at in reached:
            continue
        reached.add(at)
        code, _, _, offset, _ = program[at]
        if code in (0x16, 0x56):
            assert offset > 0
            todo.append(at + 1 + offset)
        if code != 0x95:
            todo.append(at + 1)
    assert reached == set(range(len(program)))


def test_the_defaults() -> None:
    allowed = list(defaults.DEVICE_RULES)

    def opens(kind: str, major: int, minor: int, access: int = READ | WRITE) -> bool:
        return interpret(allowed, kind, major, minor, access)

    assert all(opens(kind, major, minor) for _, kind, major, minor, _ in defaults.DEVICES)
    assert opens("c", 136, 7) and opens("c", 5, 2)
    assert not opens("c", 1, 11) and not opens("c", 1, 1, READ), "the kernel's log, and its memory"
    assert not opens("b", 8, 0, READ) and not opens("b", 1, 3, READ), "disks"
    assert opens("b", 8, 0, MKNOD) and opens("c", 1, 11, MKNOD), "a node alone opens nothing"
    assert not opens("c", 1, 11, MKNOD | READ)


@pytest.mark.parametrize(
    ("rules", "access", "granted"),
    [
        ([], READ, False),
        ([{"allow": True}], READ | WRITE | MKNOD, True),
        ([{"allow": True, "type": "c", "access": "rw"}, {"allow": False}], READ, False),
        ([{"allow": False}, {"allow": True, "type": "c", "access": "r"}], READ | WRITE, False),
        # Two rules may grant together what neither grants alone; and who may not write may not open to read and write.
        (
            [{"allow": True, "type": "c", "access": "r"}, {"allow": True, "type": "c", "access": "w"}],
            READ | WRITE,
            True,
        ),
        ([{"allow": True}, {"allow": False, "type": "c", "access": "w"}], READ | WRITE, False),
        ([{"allow": True}, {"allow": False, "type": "c", "access": "w"}], READ, True),
        ([{"allow": True, "type": "c"}, {"allow": False, "type": "c", "major": 1, "minor": 3}], READ, False),
    ],
)
def test_the_last_rule_decides(rules: list[Rule], access: int, granted: bool) -> None:
    assert interpret(rules, "c", 1, 3, access) == granted == expected(rules, "c", 1, 3, access)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, errno.EPERM])
def test_no_filter_no_container(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(cgroup: str, instructions: bytes, replace: bool) -> None:
        raise OSError(number, "no", cgroup)

    monkeypatch.setattr(syscalls, "device_filter", refuse)
    with pytest.raises(Unsupported, match=r"device filter of /x: bpf\(2\) says no; .*CONFIG_CGROUP_BPF"):
        resources.DeviceFilter("/x", [{"allow": False}]).do()


def test_what_is_no_cgroup_is_said_by_its_path() -> None:
    with pytest.raises(FileNotFoundError, match="/no/such/cgroup"):
        devices.attach("/no/such/cgroup", devices.program([]))


def test_the_devices_of_the_specification_are_always_there() -> None:
    """`runc spec` and podman write a document that denies all, and expect a /dev/null."""
    rules = resources.device_rules({"devices": [{"allow": False, "access": "rwm"}]})
    assert interpret(rules, "c", 1, 3, READ | WRITE) and not interpret(rules, "c", 1, 11, READ)
    rules = resources.device_rules({"devices": [defaults.DEVICE_RULES[3], {"allow": False}]})
    assert interpret(rules, "c", 1, 3, READ | WRITE), "what was allowed before all was denied is not allowed any more"
    assert resources.device_rules({"devices": list(defaults.DEVICE_RULES)}) == list(defaults.DEVICE_RULES)
    assert resources.device_rules({}) == resources.device_rules({"devices": None}) == []


@pytest.mark.parametrize(
    ("rule", "where"),
    [
        ({"allow": "yes"}, "allow"),
        ({"type": "c"}, "allow"),
        ({"allow": True, "type": "u"}, "type"),
        ({"allow": True, "access": "rx"}, "access"),
        ({"allow": True, "access": 7}, "access"),
        ({"allow": True, "type": "c", "major": "1"}, "major"),
        ({"allow": True, "type": "c", "major": True}, "major"),
        ({"allow": True, "type": "c", "minor": BIG + 1}, "minor"),
    ],
)
def test_a_wrong_rule_is_named(rule: Any, where: str) -> None:
    with pytest.raises(InvalidDocument, match=rf"linux\.resources\.devices\[1\]\.{where}: expected"):
        resources.device_rules({"devices": [{"allow": False}, rule]})


def test_it_says_that_no_command_does_it() -> None:
    step = resources.DeviceFilter("/sys/fs/cgroup/box", list(defaults.DEVICE_RULES[:2]))
    lines = step.sh().split("\n")
    assert all(line.startswith("# ") for line in lines)
    assert lines[0].startswith("# No command does this") and "/sys/fs/cgroup/box" in lines[1]
    assert lines[2:] == ["#   deny a", "#   allow c *:* m"]
