"""Which devices a cgroup of v2 may use: the rules of the runtime-spec as an eBPF program that the kernel asks.

v1 has a devices controller with files to write rules into. v2 has a question instead: whenever a process of the cgroup
makes or opens a device node, the kernel runs the programs of type BPF_PROG_TYPE_CGROUP_DEVICE attached there, and
one that returns 0 means EPERM. What it asks about is, in <linux/bpf.h>:

    struct bpf_cgroup_dev_ctx {
        __u32 access_type;      /* low half: BPF_DEVCG_DEV_BLOCK or _CHAR; high half: BPF_DEVCG_ACC_* bits */
        __u32 major, minor;
    };

The rules are ``linux.resources.devices``. The last one that speaks of a right to a device decides about that right,
one of type ``a`` speaks of all rights to all devices, and a request for several rights needs each of them. What no
rule speaks of is refused. See bpf(2), and Documentation/bpf/standardization/instruction-set.rst of the kernel.
"""

from __future__ import annotations

import sys
from _struct import pack

from minirun.errors import Unsupported
from minirun.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

TYPES = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*
RIGHTS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_*
_ALL = 7

# Opcodes of <linux/bpf.h>, of the 32-bit kind: a number is compared without its sign. K is a number, X a register.
_LOAD_WORD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_AND, _SHIFT_RIGHT, _MOVE, _COPY = 0x54, 0x74, 0xB4, 0xBC  # BPF_ALU | BPF_AND, RSH, MOV | BPF_K; MOV | BPF_X
_IF_EQUAL, _IF_NOT_EQUAL = 0x16, 0x56  # BPF_JMP32 | BPF_JEQ, JNE | BPF_K (Linux 5.1)
_EXIT = 0x95  # BPF_JMP | BPF_EXIT

# The kernel calls with the context in r1, which is free once everything has been read from it; r0 is the answer.
_ANSWER, _CONTEXT, _TYPE, _WANTED, _MAJOR, _MINOR = range(6)
_SCRATCH = _CONTEXT

_EPERM, _EINVAL, _ENOSYS = 1, 22, 38


def _op(code: int, to: int = 0, number: int = 0, source: int = 0, offset: int = 0) -> bytes:
    """One ``struct bpf_insn``. The two registers are bit fields of one byte, so their order is the machine's."""
    registers = to | source << 4 if sys.byteorder == "little" else to << 4 | source
    return pack("=BBhI", code, registers, offset, number)


def _answer(allow: bool) -> bytes:
    return _op(_MOVE, _ANSWER, int(allow)) + _op(_EXIT)


# _WANTED holds the rights that are asked for and that no rule has decided about yet.
_START = (
    _op(_LOAD_WORD, _TYPE, source=_CONTEXT)
    + _op(_COPY, _WANTED, source=_TYPE)
    + _op(_AND, _TYPE, 0xFFFF)
    + _op(_SHIFT_RIGHT, _WANTED, 16)
    + _op(_LOAD_WORD, _MAJOR, source=_CONTEXT, offset=4)
    + _op(_LOAD_WORD, _MINOR, source=_CONTEXT, offset=8)
)


def program(rules: Sequence[Mapping[str, Any]]) -> bytes:
    """The instructions for rules in the form of the runtime-spec, which ``resources`` has checked."""
    code, default = _START, False
    for rule in reversed(rules):  # so the first to speak of a right is the last of the list
        if (rule.get("type") or "a") == "a":
            default = bool(rule.get("allow"))
            break
        code += _block(rule)
    return code + _answer(default)


def _block(rule: Mapping[str, Any]) -> bytes:
    """The instructions of one rule: they answer, or go on behind themselves, at the next rule."""
    tests = [(_TYPE, TYPES[rule["type"]])]
    for register, key in ((_MAJOR, "major"), (_MINOR, "minor")):
        number = rule.get(key)
        if number is not None and number >= 0:
            tests.append((register, number))
    rights = sum(RIGHTS[letter] for letter in set(rule.get("access") or "rwm"))
    body = _allow(rights) if rule.get("allow") else _deny(rights)
    for register, number in reversed(tests):  # each jumps over all that is behind it
        body = _op(_IF_NOT_EQUAL, register, number, offset=len(body) // 8) + body
    return body


def _allow(rights: int) -> bytes:
    """These rights are granted: yes, if nothing else is wanted."""
    if rights == _ALL:
        return _answer(True)
    return _op(_AND, _WANTED, _ALL & ~rights) + _op(_IF_NOT_EQUAL, _WANTED, offset=2) + _answer(True)


def _deny(rights: int) -> bytes:
    """No, if any of these rights is still wanted."""
    take = _op(_COPY, _SCRATCH, source=_WANTED) + _op(_AND, _SCRATCH, rights)
    return take + _op(_IF_EQUAL, _SCRATCH, offset=2) + _answer(False)


def attach(directory: str, instructions: bytes, replace: bool = False) -> None:
    """Let the program decide for the v2 cgroup ``directory``, besides those above it, until the cgroup is removed.

    With ``replace`` it decides instead of those that the cgroup has already.
    Raises Unsupported where the kernel has no such filter: a container must not run with fewer walls than it was asked.
    """
    try:
        syscalls.device_filter(directory, instructions, replace)
    except OSError as error:
        if error.errno not in (_EPERM, _EINVAL, _ENOSYS):
            raise
        why = f"bpf(2) says {error.strerror}"
        remedy = "it takes root and a kernel with CONFIG_CGROUP_BPF, and no policy against bpf"
        raise Unsupported(f"device filter of {directory}", why, remedy) from None
