"""The system calls that only probes make, by their numbers.

ctypes and not the cffi module: a probe must be able to ask a kernel for what the compiled part takes for granted, and
this is the one place where 20 ms of import do not matter. From Linux 5.0 on, a new call has the same number on every
architecture (syscalls(2)); the others are called by their wrappers in the C library.
"""

from __future__ import annotations

import ctypes
import os

CLONE3, OPEN_TREE, MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT, MOUNT_SETATTR = 435, 428, 429, 430, 431, 432, 442
CLOSE_RANGE = 436
CLONE_PIDFD, CLONE_INTO_CGROUP = 0x1000, 0x200000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
SIGCHLD = 17
_CLONE_ARGS = 11  # u64 fields of struct clone_args, of which these are used
_FLAGS, _PIDFD, _EXIT_SIGNAL, _CGROUP = 0, 1, 4, 10
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2

# PyDLL keeps the interpreter's lock: clone3 returns twice, and the child has no other thread to wait for.
_libc = ctypes.PyDLL(None, use_errno=True)


def call(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Call a function of the C library. Raises OSError that names it."""
    return _checked(name, getattr(_libc, name)(*map(_argument, arguments)))


def syscall(number: int, name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """syscall(2). Raises OSError that names the call."""
    return _checked(name, _libc.syscall(ctypes.c_long(number), *map(_argument, arguments)))


def _argument(value: object) -> object:
    return ctypes.c_long(value) if isinstance(value, int) else value


def _checked(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return result


def unshare(flags: int) -> None:
    """unshare(2)."""
    call("unshare", flags)


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    call("mount", source.encode(), target.encode(), kind.encode(), flags, data.encode())


def clone3(flags: int, cgroup: int = 0) -> tuple[int, int]:
    """clone3(2) with CLONE_PIDFD: the new process's pid and pidfd; it ends at once."""
    pidfd = ctypes.c_int(-1)
    arguments = (ctypes.c_uint64 * _CLONE_ARGS)()
    arguments[_FLAGS], arguments[_PIDFD] = flags | CLONE_PIDFD, ctypes.addressof(pidfd)
    arguments[_EXIT_SIGNAL], arguments[_CGROUP] = SIGCHLD, cgroup
    pid = _libc.syscall(ctypes.c_long(CLONE3), arguments, ctypes.c_size_t(ctypes.sizeof(arguments)))
    if pid == 0:
        os._exit(0)
    return _checked("clone3", pid), pidfd.value


def install_filter(program: bytes) -> None:
    """Put a seccomp filter on this process, for ever: prctl(2), PR_SET_SECCOMP."""

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]

    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    filled = Program(len(program) // 8, program)
    result = _libc.prctl(_PR_SET_SECCOMP, ctypes.c_long(_SECCOMP_MODE_FILTER), ctypes.byref(filled))
    _checked("prctl(PR_SET_SECCOMP)", result)
