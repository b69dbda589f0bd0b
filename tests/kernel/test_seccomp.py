"""The filters, installed for real: each attempt runs in a forked child, under the filter and without it.

The refusals of the default profile are given an errno here that no kernel path returns, so that a refusal seen is the
filter's own; every test of a refusal runs once more under a filter that allows all, where it must turn out differently.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import signal
import struct
import sys

import pytest

from minirun.linux import seccomp, security
from minirun.linux._seccomp import lib
from minirun.oci.seccomp import default_profile

MARK = 133  # EHWPOISON, which errno lacks
ALLOW_ALL = {"defaultAction": "SCMP_ACT_ALLOW"}
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWTIME = 0x10000000, 0x40000000, 0x80
HIGH = 1 << 32  # a bit that the kernel drops from an int argument
TIOCSTI = 0x5412
libc = ctypes.CDLL(None, use_errno=True)


def default(*capabilities: str) -> dict:
    return default_profile(capabilities or security.DEFAULT_CAPABILITIES, platform.machine()) | {
        "defaultErrnoRet": MARK
    }


def number(name: str) -> int:
    return int(lib.seccomp_syscall_resolve_name_arch(lib.seccomp_arch_native(), name.encode()))


def call(name: str | int, *arguments: object) -> int:
    """0, or the errno of a system call."""
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = libc.syscall(ctypes.c_long(name if isinstance(name, int) else number(name)), *words)
    return ctypes.get_errno() if result == -1 else 0


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def install(program: bytes) -> None:
    """What minirun-init does: prctl(2) with the raw instructions."""
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(Program(len(program) // 8, program)), 0, 0):
        os._exit(255)


def outcome(profile: dict, attempt) -> int:
    """The errno that ``attempt`` returned under the filter; minus the signal, if it died."""
    program = seccomp.compile(profile)
    child = os.fork()
    if child == 0:
        try:
            install(program)
            os._exit(attempt())
        finally:
            os._exit(254)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# --- what the default profile refuses ---


def clone(flags: int) -> int:
    child = libc.syscall(number("clone"), flags | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    return ctypes.get_errno() if child == -1 else 0


def terminal_input(command: int) -> int:
    """TIOCSTI on a terminal of our own."""
    os.setsid()
    _, terminal = os.openpty()
    return call("ioctl", os.open(os.ttyname(terminal), os.O_RDWR), command, ctypes.c_char_p(b"x"))


REFUSED = {
    "AF_ALG": lambda: call("socket", 38, 5, 0),
    "AF_VSOCK": lambda: call("socket", 40, 1, 0),
    "AF_VSOCK behind a high bit": lambda: call("socket", HIGH | 40, 1, 0),
    "AF_RXRPC": lambda: call("socket", 33, 2, 2),
    "AF_KEY": lambda: call("socket", 15, 3, 2),
    "AF_PACKET": lambda: call("socket", 17, 3, 0),
    "AF_BLUETOOTH": lambda: call("socket", 31, 3, 1),
    "netlink XFRM": lambda: call("socket", 16, 3, 6),
    "netlink NETFILTER": lambda: call("socket", 16, 3, 12),
    "a pair of AF_VSOCK": lambda: call("socketpair", 40, 1, 0, ctypes.create_string_buffer(8)),
    "clone NEWUSER": lambda: clone(CLONE_NEWUSER),
    "clone NEWNET": lambda: clone(CLONE_NEWNET),
    "unshare NEWUSER": lambda: call("unshare", CLONE_NEWUSER),
    "unshare NEWTIME": lambda: call("unshare", CLONE_NEWTIME),
    "setns": lambda: call("setns", -1, 0),
    "mount": lambda: call("mount", 0, 0, 0, 0, 0),
    "fsopen": lambda: call("fsopen", 0, 0),
    "pivot_root": lambda: call("pivot_root", 0, 0),
    "io_uring": lambda: call("io_uring_setup", 1, ctypes.create_string_buffer(120)),
    "bpf": lambda: call("bpf", 0, 0, 0),
    "perf_event_open": lambda: call("perf_event_open", 0, 0, 0, -1, 0),
    "userfaultfd": lambda: call("userfaultfd", 0),
    "keyctl": lambda: call("keyctl", 0, -1, 1),
    "add_key": lambda: call("add_key", 0, 0, 0, 0, 0),
    "request_key": lambda: call("request_key", 0, 0, 0, 0),
    "kexec_load": lambda: call("kexec_load", 0, 0, 0, -1),
    "init_module": lambda: call("init_module", 0, 0, 0),
    "open_by_handle_at": lambda: call("open_by_handle_at", -1, 0, 0),
    "swapon": lambda: call("swapon", 0, 0),
    "syslog": lambda: call("syslog", 10, 0, 0),
    "personality READ_IMPLIES_EXEC": lambda: call("personality", 0x0400000),
    "TIOCSTI": lambda: terminal_input(TIOCSTI),
    "TIOCSTI behind a high bit": lambda: terminal_input(HIGH | TIOCSTI),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    assert outcome(default(), REFUSED[name]) == MARK
    assert outcome(ALLOW_ALL, REFUSED[name]) != MARK


def test_a_refusal_says_operation_not_permitted():
    profile = default_profile(security.DEFAULT_CAPABILITIES, platform.machine())
    assert outcome(profile, REFUSED["AF_VSOCK"]) == errno.EPERM


def test_clone3_seems_not_to_exist():
    def attempt():
        return call("clone3", 0, 0)

    assert outcome(default(), attempt) == errno.ENOSYS
    assert outcome(default("CAP_SYS_ADMIN"), attempt) == errno.EINVAL
    assert outcome(ALLOW_ALL, attempt) == errno.EINVAL


def test_audit_seems_not_to_exist():
    def attempt():
        return call("socket", 16, 3, 9)

    assert outcome(default(), attempt) == errno.EPROTONOSUPPORT
    assert outcome(default("CAP_AUDIT_WRITE"), attempt) == outcome(ALLOW_ALL, attempt)


def int80(number: int, first: int = 0, words: tuple = ()) -> int:
    """A system call as 32-bit programs make it; its second argument points to ``words``."""
    anywhere, below_4_gib = mmap.MAP_PRIVATE, 0x40
    memory = mmap.mmap(-1, 4096, anywhere | below_4_gib, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    # push rbx; mov eax, number; mov ebx, first; mov ecx, address; int 0x80; pop rbx; ret
    code = struct.pack("<BBIBIBI4B", 0x53, 0xB8, number, 0xBB, first, 0xB9, address, 0xCD, 0x80, 0x5B, 0xC3)
    memory.write(struct.pack("<3I", *words).ljust(64, b"\0") if words else bytes(64))
    memory.write(code)
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(address + 64)())


def getpid_by_int80() -> int:
    return 0 if int80(20) == os.getpid() else 1


def vsock_by_socketcall() -> int:
    return max(0, -int80(102, 1, (40, 1, 0)))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="int 0x80 and x32 are x86's")
def test_the_other_abis_of_x86_end_the_process():
    assert outcome(default(), getpid_by_int80) == -signal.SIGSYS
    assert outcome(default(), lambda: call(0x40000000 | number("getpid"))) == -signal.SIGSYS


@pytest.mark.skipif(platform.machine() != "x86_64", reason="int 0x80 is x86's")
def test_compat_lets_32_bit_programs_in_but_not_round_the_rules_for_sockets():
    profile = default_profile((), "x86_64", compat=True) | {"defaultErrnoRet": MARK}
    allow_all = {**ALLOW_ALL, "architectures": ["SCMP_ARCH_X86"]}
    if outcome(allow_all, getpid_by_int80) != 0:
        pytest.skip("this kernel has no 32-bit ABI")
    assert outcome(profile, getpid_by_int80) == 0
    assert outcome(profile, REFUSED["AF_VSOCK"]) == MARK
    assert outcome(profile, vsock_by_socketcall) == errno.ENOSYS
    assert outcome(allow_all, vsock_by_socketcall) == outcome(ALLOW_ALL, REFUSED["AF_VSOCK"])


# --- what the default profile lets through ---

ALLOWED = {
    "AF_UNIX": lambda: call("socket", 1, 1, 0),
    "AF_INET": lambda: call("socket", 2, 1, 0),
    "AF_INET, high bits are noise": lambda: call("socket", HIGH | 2, 1, 0),
    "netlink ROUTE": lambda: call("socket", 16, 3, 0),
    "netlink SOCK_DIAG": lambda: call("socket", 16, 3, 4),
    "a pair of AF_UNIX": lambda: call("socketpair", 1, 1, 0, ctypes.create_string_buffer(8)),
    "clone": lambda: clone(0),
    "unshare FS": lambda: call("unshare", 0x200),
    "personality query": lambda: call("personality", 0xFFFFFFFF),
    "landlock version": lambda: 0 if call("landlock_create_ruleset", 0, 0, 1) in (0, errno.EOPNOTSUPP) else 1,
    "isatty": lambda: 0 if call("ioctl", os.openpty()[1], 0x5401, ctypes.create_string_buffer(64)) == 0 else 1,
    "TIOCGPTN as musl sign-extends it": lambda: call(
        "ioctl", os.openpty()[0], 0x80045430 - HIGH, ctypes.create_string_buffer(4)
    ),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name):
    assert outcome(default(), ALLOWED[name]) == 0
    assert outcome(ALLOW_ALL, ALLOWED[name]) == 0


PROGRAMS = {
    "ls": ["/bin/ls", "-l", "/"],
    "shell": ["/bin/sh", "-c", "for i in 1 2 3; do echo $i; done | tail -n 1; exec true"],
    "python": [
        sys.executable,
        "-c",
        "import asyncio, socket, subprocess, threading;"
        "t = threading.Thread(target=print); t.start(); t.join();"
        "s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname());"
        "asyncio.run(asyncio.create_subprocess_exec('true')); subprocess.run(['true'], check=True)",
    ],
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_programs_run(program):
    def attempt():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execv(program[0], program)

    assert outcome(default(), attempt) == 0


def test_a_program_fails_if_the_profile_forgets_what_it_needs():
    profile = default()
    profile["syscalls"] = [
        rule | {"names": [name for name in rule["names"] if name != "getdents64"]} for rule in profile["syscalls"]
    ]
    assert outcome(profile, lambda: os.execv("/bin/ls", ["ls", "/"])) not in (0, 254)


# --- what the words of a profile mean to the kernel ---


def one_rule(action: str, **rest: object) -> dict:
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getpgid"], "action": action, **rest}]}


@pytest.mark.parametrize(
    ("action", "seen"),
    [
        ("SCMP_ACT_KILL", -signal.SIGSYS),
        ("SCMP_ACT_KILL_THREAD", -signal.SIGSYS),
        ("SCMP_ACT_KILL_PROCESS", -signal.SIGSYS),
        ("SCMP_ACT_TRAP", -signal.SIGSYS),
        ("SCMP_ACT_ERRNO", errno.EPERM),
        ("SCMP_ACT_TRACE", errno.ENOSYS),  # nobody traces
        ("SCMP_ACT_NOTIFY", errno.ENOSYS),  # nobody listens
        ("SCMP_ACT_LOG", 0),
        ("SCMP_ACT_ALLOW", 0),
    ],
)
def test_actions(action, seen):
    assert outcome(one_rule(action), lambda: call("getpgid", 0)) == seen


@pytest.mark.parametrize(
    ("operator", "value", "second", "hits"),
    [
        ("NE", 5, 0, {4, 6, HIGH | 5}),
        ("LT", 5, 0, {4}),
        ("LE", 5, 0, {4, 5}),
        ("EQ", 5, 0, {5}),
        ("GE", 5, 0, {5, 6, HIGH | 5}),
        ("GT", 5, 0, {6, HIGH | 5}),
        ("MASKED_EQ", 6, 4, {4, 5, HIGH | 5}),
    ],
)
def test_operators(operator, value, second, hits):
    arguments = [{"index": 1, "op": f"SCMP_CMP_{operator}", "value": value, "valueTwo": second}]
    profile = one_rule("SCMP_ACT_ERRNO", errnoRet=MARK, args=arguments)
    tried = {4, 5, 6, HIGH | 5}
    assert {v for v in tried if outcome(profile, lambda v=v: call("getpgid", 0, v)) == MARK} == hits


def test_conditions_on_two_arguments_mean_both_on_one_argument_either():
    def hits(*indexes):
        arguments = [{"index": i, "op": "SCMP_CMP_EQ", "value": 7 + n} for n, i in enumerate(indexes)]
        profile = one_rule("SCMP_ACT_ERRNO", errnoRet=MARK, args=arguments)
        tried = [(7, 8), (7, 0), (8, 0), (0, 8)]
        return [pair for pair in tried if outcome(profile, lambda pair=pair: call("getpgid", 0, *pair)) == MARK]

    assert hits(1, 2) == [(7, 8)]
    assert hits(1, 1) == [(7, 8), (7, 0), (8, 0)]


def test_calls_newer_than_the_profile_seem_not_to_exist():
    last = number("close_range")
    profile = default()
    profile["syscalls"] = [
        rule | {"names": names}
        for rule in profile["syscalls"]
        if (names := [name for name in rule["names"] if number(name) <= last])
    ]
    assert outcome(profile, lambda: call("acct", 1)) == MARK
    assert outcome(profile, lambda: call(last, 9, 8, 0)) == errno.EINVAL
    assert outcome(profile, lambda: call(last + 1, 0, 0, 0)) == errno.ENOSYS
    assert outcome(profile, lambda: call(last + 1000, 0)) == errno.ENOSYS
