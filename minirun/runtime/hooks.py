"""Hooks: programs of the administrator's that run at fixed points of a container's life (runtime-spec, config.md).

    prestart, createRuntime   here, on the host, while init waits with the mounts made   a failure stops the create
    createContainer           in init, in the container's namespaces, by a host's path   the same
    startContainer            in init, by a container's path, just before the program    the program never runs
    poststart                 here, after the program was started                        a failure stops the container
    poststop                  here, after all is removed                                 a failure is told

Each reads the state of the container as JSON from its standard input.
"""

from __future__ import annotations

import os

from minirun import store, strict_json
from minirun.errors import HookFailed
from minirun.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Op = list[str]

_KILL = 9


def run(config: dict[str, Any], kind: str, state: dict[str, Any], watched: int = -1) -> None:
    """Run the hooks of one kind in their order. Raises HookFailed at the first that fails or takes too long.

    ``watched`` is a pidfd of the process that the hooks are for: without it there is nothing left to be done, and a
    hook that waits for it would wait for ever.
    """
    for index, hook in enumerate((config.get("hooks") or {}).get(kind) or []):
        why = _run(hook, strict_json.dumps(state).encode(), watched)
        if why:
            raise failed(kind, index, hook["path"], why)


def failed(kind: str, index: int, path: str, why: str) -> HookFailed:
    """The error of one hook. Other programs look for the words in the middle, as runc has them."""
    return HookFailed(f"hooks.{kind}[{index}]", f"error running {kind} hook #{index}: {path}: {why}")


def _run(hook: dict[str, Any], state: bytes, watched: int) -> str:
    """Run one hook to its end; why it failed, or nothing."""
    said = os.memfd_create("hook-stderr")
    try:
        try:
            pid = _spawn(hook, state, said)
        except OSError as error:
            return (error.strerror or str(error)).lower()
        status = _wait(pid, hook.get("timeout"), watched)
        if isinstance(status, str):
            return status
        code = os.waitstatus_to_exitcode(status)
        return (code and reason(code, os.pread(said, 500, 0))) or ""
    finally:
        os.close(said)


def reason(code: int, said: bytes) -> str:
    """How a hook ended (an exit code, or a signal below 0), with the first line of what it said."""
    first = said.decode("utf-8", "replace").strip().partition("\n")[0]
    if code >= 0:
        return f"exit code {code}: {first}".rstrip(": ")
    from _signal import strsignal

    return f"signal {-code}, {(strsignal(-code) or 'unknown').lower()}: {first}".rstrip(": ")


def _spawn(hook: dict[str, Any], state: bytes, said: int) -> int:
    """Start a hook with the state on its standard input; what it prints is not the container's output.

    It gets files and no pipes: it may leave the state unread, or a process behind that keeps them open.
    """
    words = hook.get("args") or [hook["path"]]
    environment = dict(entry.partition("=")[::2] for entry in _environment(hook))
    _inherit_nothing()
    syscalls.keep_children()
    given, null = os.memfd_create("state"), os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    try:
        store.write_all(given, state)
        os.lseek(given, 0, os.SEEK_SET)
        streams = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((given, null, said))]
        # Python ignores these two, and an ignored signal stays ignored across exec, as a blocked one stays blocked.
        return os.posix_spawn(
            hook["path"], words, environment, file_actions=streams, setpgroup=0, setsigmask=[], setsigdef=[13, 25]
        )
    finally:
        os.close(given)
        os.close(null)


def _environment(hook: dict[str, Any]) -> list[str]:
    """The variables of a hook of the host's: its own, or, if it says nothing of them, those that we were called with.

    A startContainer hook is a program of the container's, and has the variables of that: ours are not for the image.
    """
    own = hook.get("env")
    return [f"{name}={value}" for name, value in os.environ.items()] if own is None else own


def _inherit_nothing() -> None:
    """What our caller left open, or handed to the container (--preserve-fds), is not for hooks."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2:
                os.set_inheritable(int(name), False)
        except OSError:  # that of the list itself
            continue


def _wait(pid: int, seconds: int | None, watched: int) -> int | str:
    """The wait status of a child, or why it had to be killed."""
    pidfd = syscalls.pidfd_open(pid)
    try:
        ended = syscalls.ended([pidfd, *([watched] if watched >= 0 else [])], seconds)
    finally:
        os.close(pidfd)
    if pidfd not in ended:
        os.killpg(pid, _KILL)  # it and its children; it is ours and not reaped yet: the number is still its
    _, status = os.waitpid(pid, 0)
    if pidfd in ended:
        return status
    return "the container ended meanwhile" if ended else f"did not end within {seconds} s"


def inside(config: dict[str, Any], state: dict[str, Any]) -> dict[str, list[Op]]:
    """The ops of the hooks that run in init, by kind."""
    hooks = config.get("hooks") or {}
    found = {}
    for kind, status in (("createContainer", "creating"), ("startContainer", "created")):
        if hooks.get(kind):
            found[kind] = [_state_op({**state, "status": status}), *_hook_ops(hooks[kind], kind)]
    return found


def place(ops: Sequence[Sequence[str]], number: int) -> tuple[str, int]:
    """The kind and the index of the hook that an op is."""
    index = 0
    for op in reversed(ops[:number]):
        if op[0] == "hook-state":
            status = strict_json.loads(f"{op[1]}0{op[2]}")["status"]
            return "createContainer" if status == "creating" else "startContainer", index
        index += op[0] == "hook"
    return "hook", index


def _state_op(state: dict[str, Any]) -> Op:
    """The pid, as it is known inside, is for init to fill in."""
    head = strict_json.dumps({key: value for key, value in state.items() if key != "pid"})
    return ["hook-state", f'{head[:-1]}, "pid": ', "}"]


def _hook_ops(hooks: list[dict[str, Any]], kind: str) -> list[Op]:
    ops = []
    for hook in hooks:
        ops += [["hook-arg", word] for word in hook.get("args") or [hook["path"]]]
        if kind == "startContainer" and hook.get("env") is None:
            ops.append(["hook-as-program"])
        else:
            ops += [["hook-env", entry] for entry in _environment(hook)]
        ops.append(["hook", hook["path"], str(hook.get("timeout") or 0)])
    return ops
