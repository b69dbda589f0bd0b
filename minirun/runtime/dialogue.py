"""What init says to whoever spawned it, and how much of that is believed.

Once init is in a container's PID namespace, a process there that may ptrace everything can take it over, or get hold of
its socket and speak in its place. What it has to say is known beforehand: it follows from the ops. So a message must be
the next that is due, from our child, as the kernel tells, and with no more descriptors than belong to it. Anything else
ends the dialogue: nobody else than our child is ever signalled or noted down, and nothing of what came stays open.
"""

from __future__ import annotations

import os

from minirun.errors import StepFailed
from minirun.linux import syscalls
from minirun.linux.syscalls import Message
from minirun.runtime import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_PATIENCE = 2  # seconds
_KILL = 9
_MOST_MESSAGES = 100
_LISTENED = 8  # SECCOMP_FILTER_FLAG_NEW_LISTENER, seccomp(2)
_WITH_DESCRIPTOR = (Message.CONSOLE, Message.LISTENER, Message.SAID)


class Dialogue:
    """A talk with the process that ``syscalls.spawn`` made. ``pid`` is that, and later the one that was born of it."""

    __slots__ = ("_due", "_ops", "_program", "control", "pid")

    def __init__(self, pid: int, control: int, ops: Sequence[Sequence[str]], program: Sequence[str]) -> None:
        self.pid, self.control, self._ops, self._program = pid, control, ops, program
        self._due = [due for op in ops if (due := _announced(op))]

    def until_ready(self, answers: Mapping[int, Callable[[Message], None]]) -> None:
        """Answer what init asks for, up to the op ``ready``. Raises what it reports as a failure.

        A process that was born goes on when its answer, which may be none, is given.
        """
        said = ""
        while message := syscalls.receive(self.control):
            try:
                if message.type == Message.FAILED and message.sender == self.pid:
                    process.fail(message.a, message.b, self._ops, self._program, said)
                self._check(message)
                if message.type == Message.SAID:
                    said = _hook_ended(message)
                    continue
                del self._due[0]
                if message.type == Message.READY:
                    return
                self._answer(message, answers)
            finally:
                for descriptor in message.descriptors:
                    os.close(descriptor)
        raise _ended_early()

    def go_on(self) -> None:
        """Let init go on where it waits for us."""
        try:
            syscalls.send(self.control, Message.START)
        except OSError:
            raise _ended_early() from None

    def until_executed(self) -> None:
        """Wait until init has become the program, which closes its end; if it could not, that is raised."""
        while message := syscalls.receive(self.control):
            for descriptor in message.descriptors:
                os.close(descriptor)
            if message.type != Message.FAILED:
                raise _odd(message)
            process.fail(message.a, message.b, self._ops, self._program)

    def end(self) -> None:
        """Kill it and wait for its end.

        It may have gone on while something of ours failed, and another process may have been born of it: as a zombie
        that nobody waits for, that would keep the container's PID namespace from ending. Who has taken the socket over
        could keep it open; so there is an end to our patience.
        """
        process.end_child(self.pid)
        for _ in range(_MOST_MESSAGES):
            if not syscalls.ended([self.control], _PATIENCE) or not (message := syscalls.receive(self.control)):
                break
            for descriptor in message.descriptors:
                os.close(descriptor)
            if message.type == Message.BORN and self._is_our_child(message.sender):
                process.end_child(message.sender)

    def _check(self, message: Message) -> None:
        due = self._due[0] if self._due else (0, 0)
        if message.type == Message.SAID:
            due = (Message.SAID, message.a) if any(op[0] == "hook" for op in self._ops) else (0, 0)
        wanted = 1 if message.type in _WITH_DESCRIPTOR else 0
        sent = self._is_our_child(message.sender) if message.type == Message.BORN else message.sender == self.pid
        if (message.type, message.a) != due or len(message.descriptors) != wanted or not sent:
            raise _odd(message)

    def _is_our_child(self, pid: int) -> bool:
        """Another than the one before. One that nobody has waited for keeps its number."""
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except OSError:
            return False
        return pid != self.pid

    def _answer(self, message: Message, answers: Mapping[int, Callable[[Message], None]]) -> None:
        before = self.pid
        if message.type == Message.BORN:
            self.pid = message.sender
        try:
            if message.type in answers:
                answers[message.type](message)
            if message.type == Message.BORN:
                self.go_on()
        finally:
            if message.type == Message.BORN:
                os.kill(before, _KILL)  # it has nothing more to do, and nobody inside could see it
                os.waitpid(before, 0)


def _announced(op: Sequence[str]) -> tuple[int, int] | None:
    """The message that an op sends, and its number."""
    if op[0] == "sync":
        return Message.SYNC, int(op[1])
    if op[0] == "seccomp":
        return (Message.LISTENER, 0) if int(op[1], 16) & _LISTENED else None
    kind = {"fork": Message.BORN, "console": Message.CONSOLE, "ready": Message.READY}.get(op[0])
    return (kind, 0) if kind else None


def _ended_early() -> process.EndedEarly:
    return process.EndedEarly("the container's process ended before it started", "", "see dmesg for a kill")


def _odd(message: Message) -> StepFailed:
    return StepFailed("the container's process", f"said what it had no reason to say (message {message.type})")


def _hook_ended(message: Message) -> str:
    """How a hook ended, and what it said: into a memory file, which is all that we would not wait for."""
    from fcntl import F_GET_SEALS, fcntl

    from minirun.runtime import hooks

    try:
        fcntl(message.descriptors[0], F_GET_SEALS)
        said = os.pread(message.descriptors[0], 500, 0)
        return hooks.reason(os.waitstatus_to_exitcode(message.a), said) if message.a >= 0 else ""
    except (OSError, ValueError):
        raise _odd(message) from None
