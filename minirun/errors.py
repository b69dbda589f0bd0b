"""Every error that minirun raises on purpose, in one tree.

    MinirunError                    125   our fault, or the machine's
    ├── UsageError                  125   the command line cannot be understood
    ├── InvalidDocument             125   a JSON, a recipe or a reference is wrong; names the JSON path
    ├── NotFound                    125   no such container, image or network
    ├── Conflict                    125   a name, an address, a port or a bridge is taken
    ├── Unsupported                 125   this kernel or machine lacks something
    ├── StepFailed                  125   a step of a plan could not be done; cites its number
    │   └── HookFailed              125   a hook of the document failed
    ├── CommandNotExecutable        126   the program exists and cannot be executed
    └── CommandNotFound             127   the program does not exist in the container

Library code raises and never prints; ``cli`` prints ``minirun: <message>`` and exits with ``exit_code``. The exit
codes are those of POSIX shells (XCU 2.8.2) as docker-run(1) uses them: 128+n is a death by signal n.
"""

from __future__ import annotations


class MinirunError(Exception):
    """The root: ``what``, then why, then what to do about it, in one line."""

    exit_code = 125

    def __init__(self, what: str, why: str = "", remedy: str = "") -> None:
        self.what, self.why, self.remedy = what, why, remedy
        super().__init__(what + (f": {why}" if why else "") + (f"; {remedy}" if remedy else ""))


class UsageError(MinirunError):
    """A flag or an argument that does not exist, lacks its value or has a bad one."""


class InvalidDocument(MinirunError):
    """A document that does not say what its specification asks for."""


class NotFound(MinirunError):
    """A container, an image or a network that does not exist."""


class Conflict(MinirunError):
    """Something that can be held by one owner only, and is held by another."""


class Unsupported(MinirunError):
    """The kernel or the machine lacks what was asked for."""


class StepFailed(MinirunError):
    """A step of a plan failed; those before it were undone."""


class HookFailed(StepFailed):
    """A hook ended with another exit code than 0, or not in time."""


class CommandNotExecutable(MinirunError):
    """The program exists in the container but execve(2) refuses it."""

    exit_code = 126


class CommandNotFound(MinirunError):
    """The program does not exist in the container."""

    exit_code = 127
