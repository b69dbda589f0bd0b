"""``exec``: another process in a container, from a process.json or from the container's own process and options."""

from __future__ import annotations

import sys

from minirun import store, strict_json
from minirun.cli.arguments import Option, Values, collect
from minirun.cli.arguments import store as put
from minirun.cli.oci import settings
from minirun.cli.oci.lifecycle import FOREGROUND, foreground, preserved, stay, tell
from minirun.cli.oci.verb import Verb, check_id, natural
from minirun.errors import InvalidDocument, NotFound, UsageError
from minirun.linux import syscalls
from minirun.runtime import execute, process
from minirun.runtime.container import Bundled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_UID = 0xFFFFFFFE  # 2^32-1 means "no change" to the kernel
_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


def _identity(name: str, text: str) -> int:
    if not (text.isdecimal() and text.isascii() and len(text) < 11 and int(text) <= _MAX_UID):
        raise UsageError(f"{name} {text!r}", "expected a number", "names are the engine's to look up")
    return int(text)


def _user(target: Any, text: Any) -> None:
    uid, colon, gid = text.partition(":")
    target.user = (_identity("--user", uid), _identity("--user", gid) if colon else None)


def _group(target: Any, text: Any) -> None:
    target.groups.append(_identity("--additional-gids", text))


def _env(target: Any, text: Any) -> None:
    if not text.partition("=")[0]:
        raise UsageError(f"--env {text!r}", "the name is missing", "write NAME=VALUE")
    target.env.append(text)


OPTIONS = [
    Option(
        "-p --process", "FILE", put("process"), "a process.json, instead of the options up to --apparmor; - is stdin"
    ),
    Option("--cwd", "DIR", put("cwd"), "working directory"),
    Option("-e --env", "NAME=VALUE", _env, "set an environment variable"),
    Option("-t --tty", "", put("tty"), "give the process a terminal"),
    Option("-u --user", "UID[:GID]", _user, "who it is, by number"),
    Option("-g --additional-gids", "GID", _group, "one more group"),
    Option("-c --cap", "NAME", collect("caps"), "one more capability"),
    Option("--no-new-privs", "", put("no_new_privs"), "set no_new_privs"),
    Option("--process-label", "LABEL", put("label"), "a label of SELinux"),
    Option("--apparmor", "PROFILE", put("apparmor"), "a profile of AppArmor"),
    Option("--console-socket", "SOCKET", put("console_socket"), "where to send the terminal's other end"),
    Option("--pid-file", "FILE", put("pid_file"), "write the process's pid there"),
    Option("--pidfd-socket", "SOCKET", put("pidfd_socket"), "where to send a pidfd of the process"),
    Option("--preserve-fds", "N", natural("--preserve-fds", "preserve_fds"), "pass N descriptors on, from 3"),
    Option("--cgroup", "PATH", collect("cgroups"), "a cgroup below the container's; CONTROLLERS:PATH in v1"),
    Option("--ignore-paused", "", put("ignore_paused"), "do it although the container is paused: it waits"),
    *FOREGROUND,
]
_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(("process", "cwd", "user", "label", "apparmor", "console_socket", "pid_file", "pidfd_socket")),
    **dict.fromkeys(("tty", "no_new_privs", "ignore_paused", "detach", "ignored"), False),
    "preserve_fds": 0,
    "env": [],
    "groups": [],
    "cgroups": [],
    "caps": [],
}


def read(path: str) -> Any:
    """A JSON document from a file, or from standard input if ``path`` is ``-``."""
    if path == "-":
        return strict_json.loads(sys.stdin.buffer.read(strict_json.MAX_SIZE + 1), "standard input")
    text = store.read(path)
    if text is None:
        raise NotFound(path, "no such file or directory")
    return strict_json.loads(text, path)


def _process(container: Bundled, target: Values, args: list[str]) -> dict[str, Any]:
    """What to run: the document of --process, or the container's own process with the options over it."""
    if target.process:
        if args:
            raise UsageError(f"argument {args[0]!r}", "the program comes from --process", "see --help")
        document = read(target.process)
        if not isinstance(document, dict):
            raise InvalidDocument(f"{target.process}", "expected an object")
        return {**document, "terminal": True} if target.tty else document
    if not args:
        raise UsageError("exec", "the program is missing", "name it behind the container, or use --process")
    return overlay(container.config()["process"], target, args)


def overlay(base: dict[str, Any], target: Values, args: list[str]) -> dict[str, Any]:
    """The container's own process with other arguments, and with the options, as runc does it."""
    result = {**base, "args": args, "terminal": target.tty, "env": _environment(base.get("env") or [], target.env)}
    for key, value in (("cwd", target.cwd), ("apparmorProfile", target.apparmor), ("selinuxLabel", target.label)):
        if value:
            result[key] = value
    if target.no_new_privs:
        result["noNewPrivileges"] = True
    user = dict(base.get("user") or {})
    if target.user:
        user["uid"] = target.user[0]
        user["gid"] = user.get("gid", 0) if target.user[1] is None else target.user[1]
    if target.groups:
        user["additionalGids"] = [*(user.get("additionalGids") or []), *target.groups]
    result["user"] = user
    if target.caps:
        sets = dict(base.get("capabilities") or {})
        for name in _SETS:
            if name != "inheritable":  # a program could give it on to those that it starts (CVE-2022-29162)
                sets[name] = list(dict.fromkeys([*(sets.get(name) or []), *map(_capability, target.caps)]))
        result["capabilities"] = sets
    return result


def _environment(base: list[str], more: list[str]) -> list[str]:
    """One entry a name, the later one counting."""
    return list({entry.partition("=")[0]: entry for entry in [*base, *more]}.values())


def _capability(name: str) -> str:
    upper = name.upper()
    return upper if upper.startswith("CAP_") else f"CAP_{upper}"


def _exec(target: Values, operands: list[str]) -> int:
    if not operands:
        raise UsageError("exec", "the container is missing", "see --help")
    container = Bundled(check_id(operands[0]), target.root)
    wanted = _process(container, target, operands[1:])
    ours = None
    if not target.detach and not target.console_socket:
        syscalls.hold_signals()  # from here on they are for the process
        ours = foreground(wanted.get("terminal") is True)
    if ours and not wanted.get("consoleSize") and (size := ours.size()):
        wanted = {**wanted, "consoleSize": size}
    options = execute.ExecOptions()
    options.pid_file, options.preserve_fds = target.pid_file, preserved(target.preserve_fds)
    options.console_socket = ours.path if ours else target.console_socket
    options.ignore_paused, options.cgroups = target.ignore_paused, target.cgroups
    options.rootless, options.log = settings.rootless(target), target.warn
    pid = execute.execute(container, wanted, options)
    tell(target.pidfd_socket, pid)
    if target.detach:
        return 0
    return process.exit_code(stay(pid, ours.master() if ours else -1))


TABLE = {"exec": Verb("ID PROGRAM [ARG...]", OPTIONS, _exec, _DEFAULTS, program=True)}
