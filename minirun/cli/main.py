"""Entry: find the command, clean up after dead ones, run it, and turn errors into one line and an exit code."""

from __future__ import annotations

import os
import sys

from minirun import __version__, store
from minirun.errors import MinirunError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# command: (module, function, one line of help); modules are imported when their command is called
COMMANDS: dict[str, tuple[str, str, str]] = {
    "run": ("run", "run", "run a command in a new container"),
    "exec": ("exec", "run", "run a command in a running container"),
    "ps": ("containers", "ps", "list containers"),
    "logs": ("logs", "run", "show what a container printed"),
    "stop": ("containers", "stop", "end containers: the stop signal, time, SIGKILL"),
    "kill": ("containers", "kill", "send a signal to containers"),
    "rm": ("containers", "rm", "remove containers"),
    "wait": ("containers", "wait", "wait for containers to end, print their exit codes"),
    "inspect": ("inspect", "run", "show all about containers, images or networks as JSON"),
    "port": ("port", "run", "show which ports of the host lead to a container's"),
    "stats": ("stats", "run", "show what containers use of their limits"),
    "images": ("images", "images", "list images"),
    "image": ("images", "run", "build, list, inspect and remove images"),
    "network": ("network", "run", "create, connect, list, inspect, remove and repair networks"),
    "explain": ("explain", "run", "print a command's steps as the shell commands that you would type"),
    "doctor": ("doctor", "run", "say what this machine lacks, and what was left behind"),
    "oci": ("oci", "run", "be an OCI runtime, as runc: create, start, state, kill, delete ... on a bundle"),
    "version": ("main", "version", "show the version"),
}
_HIDDEN = {"cleanup": ("cleanup", "run", ""), "nameserver": ("nameserver", "run", "")}
_WITHOUT_ROOT = ("version", "explain", "doctor", "oci")
_NO_RECONCILE = ("cleanup", "nameserver", "version", "explain", "oci")

# How a command line for an OCI runtime is told from one for the engine, whose own `run`, `exec`, `ps` and `kill` are
# others: by the program's name, by a verb that the engine has not, or by an option that only a runtime has.
RUNTIME_NAME = "minirun-oci"
RUNTIME_VERBS = (
    *("create", "start", "state", "delete", "list", "pause", "resume", "update", "events", "spec", "features"),
    *("checkpoint", "restore"),
)
RUNTIME_GLOBALS = ("--log", "--log-format", "--log-level", "--systemd-cgroup", "--cgroup-manager", "--rootless")
RUNTIME_OPTIONS = ("-b", "--bundle", "--process", "--pid-file", "--console-socket", "--preserve-fds")
_SWITCHES = ("--debug", "--systemd-cgroup", "--help", "-h", "--version", "-v")


def runtime_words(argv: Sequence[str]) -> list[str] | None:
    """The words for the OCI runtime behind its name, if the command line ``argv`` is one for it; else None."""
    words = list(argv[1:])
    if os.path.basename(argv[0]) == RUNTIME_NAME:
        return words
    if words[:1] == [RUNTIME_NAME]:  # from the fast front (csrc/oci.c), which execs us with its own name
        return words[1:]
    at = 0
    names = set()
    while at < len(words) and words[at].startswith("-"):
        name, equals, _ = words[at].partition("=")
        names.add(name)
        at += 1 if equals or name in _SWITCHES else 2
    verb = words[at] if at < len(words) else ""
    if verb in RUNTIME_VERBS or not names.isdisjoint(RUNTIME_GLOBALS):
        return words
    return words if verb in ("run", "exec") and _for_runtime(words[at + 1 :]) else None


def _for_runtime(words: Sequence[str]) -> bool:
    """Whether an option that only a runtime has is among those straight behind the verb."""
    for word in words:
        if not word.startswith("-"):
            break
        if word.partition("=")[0] in RUNTIME_OPTIONS:
            return True
    return False


def _runtime(words: Sequence[str]) -> int:
    from minirun.cli import oci

    named = RUNTIME_NAME in (os.path.basename(sys.argv[0]), *sys.argv[1:2])
    return oci.run(words, RUNTIME_NAME if named else "minirun")


def usage() -> str:
    """The text of ``minirun --help``."""
    lines = [
        "usage: minirun [--debug] [--root DIR] [--state DIR] COMMAND ...",
        "",
        "A container is really just a process. minirun makes one, and shows how.",
        "",
        "commands:",
        *(f"  {name:<10}{text}" for name, (_, _, text) in COMMANDS.items()),
        "",
        "options:",
        "  --debug      on an error, show the Python traceback",
        f"  --root DIR   what lasts: images, layers, containers (MINIRUN_ROOT; {store.root})",
        f"  --state DIR  what lives: processes, leases (MINIRUN_STATE; {store.state})",
        "",
        "`minirun COMMAND --help` tells more.",
    ]
    return "\n".join(lines) + "\n"


def version(argv: Sequence[str]) -> int:
    """``minirun version``."""
    say(f"minirun {__version__}")
    return 0


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(text + "\n")


def self_command() -> list[str]:
    """The words that run this program again."""
    if sys.flags.no_site:  # our own launcher, which knows where the package is
        return [os.path.abspath(sys.argv[0])]
    return [sys.executable, "-m", "minirun"]


def _globals(argv: list[str]) -> tuple[list[str], bool]:
    debug = False
    while argv and argv[0].startswith("-"):
        word, equals, value = argv.pop(0).partition("=")
        if word == "--debug":
            debug = True
        elif word in ("--root", "--state"):
            if not equals and not argv:
                raise UsageError(f"option {word}", "needs a value")
            path = os.path.abspath(value if equals else argv.pop(0))
            setattr(store, word[2:], path)
            os.environ[f"MINIRUN_{word[2:].upper()}"] = path
        elif word in ("--version", "-v"):
            argv[:] = ["version"]
        elif word in ("--help", "-h"):
            argv[:] = ["help"]
        else:
            raise UsageError(f"unknown option {word}", "", "see minirun --help")
    return argv, debug


def dispatch(argv: list[str]) -> int:
    """Run one command and return its exit code."""
    if not argv or argv[0] == "help":
        sys.stdout.write(usage())
        return 0 if argv else 125
    name, rest = argv[0], argv[1:]
    command = COMMANDS.get(name) or _HIDDEN.get(name)
    if command is None:
        raise UsageError(f"unknown command {name!r}", "", "see minirun --help")
    is_root = os.geteuid() == 0
    if not is_root and name not in _WITHOUT_ROOT and rest[:1] != ["--help"]:
        raise MinirunError(f"minirun {name} needs root", "", f"sudo minirun {name} ...")
    os.umask(0o022)  # modes are meant as they are written: a container's hosts, say, is for all of its users
    if name not in _NO_RECONCILE and is_root:
        from minirun.engine import lifecycle

        for problem in lifecycle.reconcile():
            sys.stderr.write(f"minirun: {problem}\n")
    module = __import__(f"minirun.cli.{command[0]}", fromlist=[command[1]])
    result: int = getattr(module, command[1])(rest)
    return result


def main() -> None:
    """The whole program. Ends with os._exit: nothing of Python's own needs taking down, and it saves a millisecond."""
    debug = False
    open_standard_streams()
    try:
        words = runtime_words(sys.argv)
        if words is not None:
            code = _runtime(words)
        else:
            argv, debug = _globals(sys.argv[1:])
            code = dispatch(argv)
        sys.stdout.flush()
    except BaseException as error:
        from minirun.cli.failure import describe

        code, text = describe(error)
        if text:
            _complain(text, debug)
    try:
        sys.stderr.flush()
    finally:
        os._exit(code)


def open_standard_streams() -> None:
    """/dev/null for whichever of 0, 1, 2 the caller closed: else the next file opened would become one of them."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):  # Python has looked at the descriptors already
        return
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)


def _complain(text: str, debug: bool) -> None:
    try:
        sys.stdout.flush()
    except OSError:  # what could not be written is perhaps what we complain of
        pass
    try:
        if debug:
            import traceback

            traceback.print_exc()
        from minirun.cli.failure import clean

        sys.stderr.write(f"minirun: {clean(text)}\n")
    except OSError:
        pass
