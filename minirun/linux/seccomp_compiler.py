"""From an OCI ``linux.seccomp`` object to a BPF program, by libseccomp.

What is allowed in it is runtime-spec's config-linux.md; where that is silent, this does what runc does, since profiles
are written for it:

- a name that libseccomp or the architecture lacks is passed over;
- a rule that says what the default says anyway is passed over (libseccomp would refuse it);
- several conditions on one argument of one rule mean any of them, not all;
- a call that is newer than all that the profile speaks of fails with ENOSYS and not as the default says, so that a libc
  which tries the new call first takes the old one (``_unknown_calls``).

Only the cache in ``seccomp`` imports this, and only when it misses.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable
from typing import Any

from minirun.errors import InvalidDocument, Unsupported
from minirun.linux import _seccomp, seccomp
from minirun.linux._seccomp import ffi, lib

# <linux/seccomp.h>; the low 16 bits of ERRNO and TRACE are data.
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_ERRNO = ACTIONS["SCMP_ACT_ERRNO"]
_WITH_DATA = {"SCMP_ACT_ERRNO": 4095, "SCMP_ACT_TRACE": 0xFFFF}  # the greatest: MAX_ERRNO, SECCOMP_RET_DATA
_PERMISSIVE = {"SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"}
_ARCHITECTURES = """
    X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X PARISC
    PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB
"""
ARCHITECTURES = frozenset(f"SCMP_ARCH_{name}" for name in _ARCHITECTURES.split())
_OPERATORS = "NE LT LE EQ GE GT MASKED_EQ"
OPERATORS = {f"SCMP_CMP_{name}": getattr(lib, f"SCMP_CMP_{name}") for name in _OPERATORS.split()}
_UINT64 = (1 << 64) - 1
_UNKNOWN = -1  # __NR_SCMP_ERROR; other negative numbers are calls that only other architectures have
_X32, _X32_BIT = 0x4000003E, 0x40000000  # libseccomp's own token for x32, the mark of its calls
_ARM, _ARM_PRIVATE = 0x40000028, 0x0F0000  # AUDIT_ARCH_ARM, the first of the calls that no other architecture has

# struct sock_filter: code, how far to jump if true and if false, operand; <linux/bpf_common.h>
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD, _RETURN = 0x20, 0x06
_JUMP_EQUAL, _JUMP_GREATER, _JUMP_GREATER_EQUAL = 0x15, 0x25, 0x35
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS

_Condition = tuple[int, int, int, int]  # argument, operator, value, value two


class _Rule:
    """One checked element of ``syscalls``."""

    def __init__(self, value: Any, where: str) -> None:
        entry = _object(value, where)
        self.where = where
        self.names = [_name(name, f"{where}.names[{i}]") for i, name in enumerate(_list(entry, "names", where))]
        if not self.names:
            raise InvalidDocument(f"{where}.names", "expected at least one name")
        self.action = _action(entry, "action", "errnoRet", where)
        self.conditions = [
            _condition(condition, f"{where}.args[{i}]") for i, condition in enumerate(_list(entry, "args", where))
        ]

    def alternatives(self) -> list[list[_Condition]]:
        """The condition lists of which one must hold."""
        arguments = {condition[0] for condition in self.conditions}
        if len(arguments) < len(self.conditions):
            return [[condition] for condition in self.conditions]
        return [self.conditions]


def compile(profile: Any, where: str = "linux.seccomp") -> bytes:
    """The ``struct sock_filter[]`` of a profile. Raises InvalidDocument, or Unsupported where the kernel is too old."""
    _check_listener(_object(profile, where), where)
    default = _action(profile, "defaultAction", "defaultErrnoRet", where)
    if default == ACTIONS["SCMP_ACT_NOTIFY"]:
        raise InvalidDocument(f"{where}.defaultAction", "the listener itself could not be handed over")
    seccomp.flags(profile)
    architectures = [
        _architecture(name, f"{where}.architectures[{i}]")
        for i, name in enumerate(_list(profile, "architectures", where))
    ]
    rules = [_Rule(value, f"{where}.syscalls[{i}]") for i, value in enumerate(_list(profile, "syscalls", where))]

    program = _filter(default, architectures, rules)
    if profile["defaultAction"] not in _PERMISSIVE and default != _ERRNO | errno.ENOSYS:
        names = {name for rule in rules for name in rule.names}
        program = _unknown_calls({lib.seccomp_arch_native(), *architectures}, names) + program
    if len(program) > MAX_INSTRUCTIONS * _INSTRUCTION.size:
        raise InvalidDocument(where, f"its program has more than {MAX_INSTRUCTIONS} instructions")
    return program


def library() -> str:
    """The file that libseccomp was loaded from; our own, if it is linked in."""
    with open("/proc/self/maps") as maps:
        paths = [line.rstrip("\n").partition("/")[2] for line in maps]
    for path in paths:
        if os.path.basename(path).startswith("libseccomp.so"):
            return f"/{path}"
    return str(_seccomp.__file__)


# --- the program ---


def _filter(default: int, architectures: list[int], rules: list[_Rule]) -> bytes:
    context = lib.seccomp_init(default)
    if context == ffi.NULL:
        raise Unsupported("seccomp", f"libseccomp cannot make a filter with the default action {default:#x}")
    try:
        # An ABI that the profile does not name ends the process; before Linux 4.14, which cannot, only the thread.
        lib.seccomp_attr_set(context, lib.SCMP_FLTATR_ACT_BADARCH, ACTIONS["SCMP_ACT_KILL_PROCESS"])
        lib.seccomp_attr_set(context, lib.SCMP_FLTATR_CTL_OPTIMIZE, 2)  # a tree: 20 instructions to a decision, not 300
        for architecture in architectures:
            _add_architecture(context, architecture)
        for rule in rules:
            if rule.action != default:
                _add_rule(context, rule)
        return _export(context)
    finally:
        lib.seccomp_release(context)


def _add_architecture(context: Any, architecture: int) -> None:
    result = lib.seccomp_arch_add(context, architecture)
    if result not in (0, -errno.EEXIST):
        raise InvalidDocument(
            "linux.seccomp.architectures",
            f"{architecture:#x} cannot be filtered on this machine: {os.strerror(-result)}",
        )


def _add_rule(context: Any, rule: _Rule) -> None:
    for conditions in rule.alternatives():
        array = ffi.new("struct scmp_arg_cmp[]", conditions)
        for name in rule.names:
            number = lib.seccomp_syscall_resolve_name_arch(lib.seccomp_arch_native(), name.encode())
            if number == _UNKNOWN:
                continue
            result = lib.seccomp_rule_add_array(context, rule.action, number, len(conditions), array)
            if result not in (0, -errno.EEXIST):
                raise InvalidDocument(rule.where, f"libseccomp refuses {name}: {os.strerror(-result)}")


def _export(context: Any) -> bytes:
    descriptor = os.memfd_create("bpf")
    try:
        result = lib.seccomp_export_bpf(context, descriptor)
        if result != 0:
            raise Unsupported("seccomp", f"libseccomp: {os.strerror(-result)}")
        return os.pread(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR), 0)
    finally:
        os.close(descriptor)


def _unknown_calls(architectures: Iterable[int], names: Iterable[str]) -> bytes:
    """Instructions to stand before the filter: ENOSYS for every call above the highest that the profile names.

    New calls get the next number on every architecture, so what is above was unknown to the profile's author. Numbers
    from ``limit`` on are another matter: x32's calls, or what only 32-bit ARM has; the filter decides on them.
    """
    program = b""
    for architecture in sorted(set(architectures) - {_X32}):
        limit = _ARM_PRIVATE if architecture == _ARM else _X32_BIT
        numbers = [lib.seccomp_syscall_resolve_name_arch(architecture, name.encode()) for name in names]
        highest = max((number for number in numbers if 0 <= number < limit), default=None)
        if highest is not None:
            for instruction in (
                (_LOAD, 0, 0, _ARCHITECTURE),
                (_JUMP_EQUAL, 0, 4, architecture),
                (_LOAD, 0, 0, _NUMBER),
                (_JUMP_GREATER, 0, 2, highest),
                (_JUMP_GREATER_EQUAL, 1, 0, limit),
                (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
            ):
                program += _INSTRUCTION.pack(*instruction)
    return program


# --- the document ---


def _action(entry: dict[str, Any], key: str, data_key: str, where: str) -> int:
    name, data = entry.get(key), entry.get(data_key)
    if not isinstance(name, str) or name not in ACTIONS:
        raise InvalidDocument(f"{where}.{key}", f"unknown action {name!r:.60}")
    if data is None:
        return ACTIONS[name] | (errno.EPERM if name in _WITH_DATA else 0)
    if name not in _WITH_DATA:
        raise InvalidDocument(f"{where}.{data_key}", f"{name} returns no errno")
    return ACTIONS[name] | _unsigned(data, _WITH_DATA[name], f"{where}.{data_key}")


def _condition(value: Any, where: str) -> _Condition:
    entry = _object(value, where)
    operator = entry.get("op")
    if not isinstance(operator, str) or operator not in OPERATORS:
        raise InvalidDocument(f"{where}.op", f"unknown operator {operator!r:.60}")
    index = _unsigned(entry.get("index"), 5, f"{where}.index")
    first = _unsigned(entry.get("value"), _UINT64, f"{where}.value")
    second = _unsigned(entry.get("valueTwo") or 0, _UINT64, f"{where}.valueTwo")
    return index, OPERATORS[operator], first, second


def _architecture(name: Any, where: str) -> int:
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise InvalidDocument(where, f"unknown architecture {name!r:.60}")
    token = int(lib.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode()))
    if not token:
        raise Unsupported(where, f"this libseccomp does not know {name}")
    return token


def _check_listener(profile: dict[str, Any], where: str) -> None:
    for key in ("listenerPath", "listenerMetadata"):
        if not isinstance(profile.get(key) or "", str):
            raise InvalidDocument(f"{where}.{key}", "expected a string")
    if profile.get("listenerMetadata") and not profile.get("listenerPath"):
        raise InvalidDocument(f"{where}.listenerMetadata", "needs listenerPath")


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidDocument(where, "expected an object")
    return value


def _list(entry: dict[str, Any], key: str, where: str) -> list[Any]:
    """A list, or none: Go programs write null for an empty one."""
    value = entry.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidDocument(f"{where}.{key}", "expected a list")
    return value


def _name(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isidentifier():
        raise InvalidDocument(where, f"expected the name of a system call, not {value!r:.60}")
    return value


def _unsigned(value: Any, greatest: int, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= greatest:
        raise InvalidDocument(where, f"expected an integer from 0 to {greatest}")
    return value
