"""Spawn the monitor, which spawns init: the one step that ends in a process.

    this command ── vfork, execve ──► minirun-monitor ── clone3 ──► minirun-init ── execve ──► the program

The command stays connected to the monitor by a socket: it hears MR_CREATED when every op is done, says MR_START when
the record of the container is written, and hears MR_EXITED. If it dies before it said so, the monitor kills init.
"""

from __future__ import annotations

import os

from minirun import store
from minirun.errors import CommandNotExecutable, CommandNotFound, MinirunError, StepFailed
from minirun.linux import syscalls
from minirun.linux.syscalls import Message
from minirun.runtime import init_ops
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn

_PATIENCE = 10  # seconds
_EPERM, _ENOENT, _ENOTDIR, _ETIME, _ECANCELED = 1, 2, 20, 62, 125

LIBEXEC = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "libexec")
MONITOR, INIT = os.path.join(LIBEXEC, "minirun-monitor"), os.path.join(LIBEXEC, "minirun-init")


class Spawn(Step):
    """Start the monitor and, under it, the container's first process up to the op ``ready``.

    ``options`` are words for minirun-monitor; ``ops`` and ``program`` are for minirun-init. ``do`` leaves the socket to
    the monitor in ``control`` and the host pid in ``pid``; with ``attach`` the monitor takes our own standard streams.
    """

    kind = "spawn"
    fields = ("options", "ops", "program")
    options: list[str]
    ops: list[list[str]]
    program: list[str]

    control = -1
    pid = 0
    cleanup: Sequence[str] = ()
    inherit: Sequence[int] = ()
    attach: bool = False
    ended: bool = False
    terminal: syscalls.Terminal | None = None

    def sh(self) -> str:
        from minirun.runtime import explain

        return explain.process(self.options, self.ops, self.program)

    def do(self) -> None:
        ours, theirs = syscalls.socketpair()
        passed = [theirs]
        try:
            passed += [memory_file("ops", init_ops.words(self.ops, self.program)), syscalls.sealed_copy(INIT)]
            words = [MONITOR, "--owner", str(theirs), "--ops", str(passed[1]), "--init", str(passed[2]), *self.options]
            words += ["--attached"] if self.attach else []
            words += ["--cleanup", *self.cleanup] if self.cleanup else []
            for descriptor in (*passed, *self.inherit):
                os.set_inheritable(descriptor, True)
            # A detached container holds nothing of its caller's: $(minirun run -d ...) must not hang.
            syscalls.run_detached(words, os.environ, keep_stdio=self.attach)
        except BaseException:
            os.close(ours)
            raise
        finally:
            for descriptor in passed:
                os.close(descriptor)
        self.control = ours
        message = self._expect(Message.CREATED)
        self.pid = message.a

    def start(self) -> None:
        """Say MR_START and wait until the program has been executed; it begins with a terminal of the right size."""
        if self.terminal:
            syscalls.send(self.control, Message.WINSIZE, *syscalls.terminal_size(self.terminal.descriptor))
        syscalls.send(self.control, Message.START)
        self._expect(Message.STARTED)

    def undo(self) -> None:
        """Kill a process that was made, and wait for its end. The monitor waits for us, its owner, to finish."""
        if self.control < 0 or self.ended:
            return
        try:
            syscalls.send(self.control, Message.SIGNAL, 9)
            while (message := syscalls.receive(self.control)) and message.type != Message.EXITED:
                pass
        except OSError:  # it has ended by itself
            pass

    def _expect(self, kind: int) -> Message:
        try:
            return expect(self.control, kind, self.ops, self.program)
        except EndedEarly:
            self.ended = True
            raise


class EndedEarly(StepFailed):
    """The process ended before it was the program."""


def memory_file(name: str, content: bytes) -> int:
    """A memfd with ``content``, read from its start."""
    descriptor = os.memfd_create(name)
    os.write(descriptor, content)
    return descriptor


def expect(control: int, kind: int, ops: Sequence[Sequence[str]], program: Sequence[str]) -> Message:
    """The next message of this kind from the monitor; if it reports a failure of init's, that is raised."""
    while message := syscalls.receive(control):
        if message.type == kind:
            return message
        if message.type == Message.FAILED:
            fail(message.a, message.b, ops, program)
        if message.type == Message.EXITED:
            break
    raise EndedEarly(
        "the container's process ended before it started", "", "too little memory? dmesg tells of a kill by the kernel"
    )


def fail(number: int, error: int, ops: Sequence[Sequence[str]], program: Sequence[str], said: str = "") -> NoReturn:
    """Raise what init reported: the op's number and an errno; ``said`` is how a hook ended."""
    why = os.strerror(error)
    if number < 0:
        raise StepFailed("the container's process could not be created", why, _remedy(error))
    if number >= len(ops):
        _not_executed(error, program)
    if ops[number][0] == "lookup":
        _not_found(error, program)
    op = ops[number]
    if op[0] == "hook":
        from minirun.runtime import hooks

        limits = {_ETIME: f"did not end within {op[2]} s", _ECANCELED: said}
        raise hooks.failed(*hooks.place(ops, number), op[1], limits.get(error, why.lower()))
    if op[0] == "cwd" or (op[0] == "mkdir" and error == _ENOTDIR):
        raise CommandNotExecutable(f"working directory {op[1]!r}", why.lower(), "choose another one")
    if op[0] == "scheduler" and error == _EPERM:
        cpus = "process scheduler can't be used together with AllowedCPUs, that is linux.resources.cpu.cpus"
        raise StepFailed("process.scheduler", why.lower(), f"it may need CAP_SYS_NICE; a deadline {cpus}")
    if op[0] == "join":
        raise StepFailed(f"linux.namespaces: {op[1]}", why.lower())
    if op[0] == "sysctl":
        raise StepFailed(
            f"linux.sysctl: {op[1]} = {op[2]}", "this kernel has none here" if error == _ENOENT else why.lower()
        )
    if op[0] in ("mount", "tree"):
        from minirun.runtime import mount_errors

        raise mount_errors.told(op, error)
    raise StepFailed(f"init op {number} ({' '.join(op)}) failed", why, _remedy(error))


def _not_found(error: int, program: Sequence[str]) -> NoReturn:
    if error in (_ENOENT, _ENOTDIR):
        if "/" in program[0]:
            raise CommandNotFound(f"exec {program[0]!r}", "no such file or directory")
        raise CommandNotFound(f"exec {program[0]!r}", "executable file not found in the container", "see its PATH")
    raise CommandNotExecutable(f"exec {program[0]!r}", os.strerror(error).lower())


def _not_executed(error: int, program: Sequence[str]) -> NoReturn:
    """It was found, and execve(2) refused it: of ENOENT the reason is another file."""
    name, why = program[0], os.strerror(error).lower()
    if error == _ENOENT:
        raise CommandNotFound(f"exec {name}", why, "its interpreter or loader is missing in the container")
    raise CommandNotExecutable(f"exec {name}", why)


def fail_late(report: str, config: Mapping[str, Any]) -> NoReturn:
    """Raise what init reported after the start: the name of the op and an errno; before that, how a hook ended.

    In a shared PID namespace somebody may have taken init over (see ``dialogue``), and have written anything.
    """
    try:
        _fail_late(report, config)
    except (ValueError, LookupError, TypeError, OverflowError):
        raise StepFailed("the container's process", "failed, and said nothing that has a meaning") from None


def _fail_late(report: str, config: Mapping[str, Any]) -> NoReturn:
    *before, last = report.splitlines()
    name, _, number = last.partition(" ")
    error = int(number)
    if name == "exec":
        _not_executed(error, config["process"]["args"])
    if name == "hook" and before:
        from minirun.runtime import hooks

        index, status, said = before[0].split(" ", 2)
        hook = config["hooks"]["startContainer"][int(index)]
        why = f"did not end within {hook.get('timeout')} s" if error == _ETIME else os.strerror(error).lower()
        if error == _ECANCELED:
            why = hooks.reason(os.waitstatus_to_exitcode(int(status)), said.encode("utf-8", "replace"))
        raise hooks.failed("startContainer", int(index), hook["path"], why)
    raise StepFailed(f"init op {name!r} failed", os.strerror(error))


def exit_code(status: int) -> int:
    """A wait status as shells show it: 128+n for a death by signal n."""
    return 128 + (status & 0x7F) if status & 0x7F else status >> 8


def start_time(pid: int) -> int:
    """When a process started, in clock ticks after boot: field 22 of proc_pid_stat(5); 0 if it is gone.

    A pid and its start time together name a process for ever; a pid alone may be another's by now.
    """
    try:
        text = store.read(f"/proc/{pid}/stat")
    except ProcessLookupError:  # it ended while we read
        text = None
    return int(text.rpartition(")")[2].split()[19]) if text else 0


def is_alive(pid: int, start: int) -> bool:
    """Whether the process that started then is there, and no zombie."""
    try:
        text = store.read(f"/proc/{pid}/stat")
    except ProcessLookupError:
        text = None
    fields = text.rpartition(")")[2].split() if text else []
    return bool(fields) and fields[0] not in ("Z", "X") and int(fields[19]) == start


def together(pid: int) -> list[int]:
    """The processes in the PID namespace of ``pid`` that we may look at."""
    space = os.stat(f"/proc/{pid}/ns/pid").st_ino
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdecimal() and os.stat(f"/proc/{name}/ns/pid").st_ino == space:
                found.append(int(name))
        except OSError:  # it is gone, or not for us to see
            continue
    return sorted(found)


def send(pid: int, start: int, signal: int) -> bool:
    """Send a signal to the process that started then; False if it is gone."""
    from _signal import pidfd_send_signal

    try:
        pidfd = syscalls.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(pid, start):
            return False
        pidfd_send_signal(pidfd, signal)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)


def end(pid: int, start: int) -> None:
    """SIGKILL to the process that started then, and wait until it is dead.

    The first process of a PID namespace cannot end before every other there has been reaped, and one that was born by
    `exec` is reaped outside: by whoever called that, and may be stopped.
    """
    try:
        pidfd = syscalls.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if send(pid, start, 9) and not syscalls.ended([pidfd], _PATIENCE):
            raise MinirunError(f"process {pid}", "was killed and does not end", "its zombies wait for their parents")
    finally:
        os.close(pidfd)


def end_child(pid: int) -> None:
    """SIGKILL to a child that nobody has waited for, whose number is therefore still its, until it is dead.

    One that is traced stays a zombie until its tracer lets go of it, which is not ours to wait for.
    """
    os.kill(pid, 9)
    pidfd = syscalls.pidfd_open(pid)
    syscalls.ended([pidfd])
    os.close(pidfd)
    os.waitpid(pid, os.WNOHANG)


def now() -> str:
    """The time as RFC 3339 has it, in UTC."""
    import time

    seconds, fraction = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09d}Z"


def _remedy(error: int) -> str:
    return {
        1: "minirun needs root and these namespaces; `minirun doctor` says what is missing",
        12: "the machine is out of memory, or the limit is too small to start in",
        28: "the limit of namespaces is reached: sysctl user.max_*_namespaces",
        38: "this kernel is too old: Linux 5.12 or newer is needed",
    }.get(error, "")
