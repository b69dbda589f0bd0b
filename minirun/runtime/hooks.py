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

from minirun import strict_json
from minirun.errors import HookFailed
from minirun.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Op = list[str]

_KILL = 9


def run(config: dict[str, Any], kind: str, state: dict[str, Any]) -> None:
    """Run the hooks of one kind in their order. Raises HookFailed at the first that fails or takes too long."""
    for index, hook in enumerate((config.get("hooks") or {}).get(kind) or []):
        _run(f"hooks.{kind}[{index}]: {hook['path']}", hook, strict_json.dumps(state).encode())


def _run(what: str, hook: dict[str, Any], state: bytes) -> None:
    words = hook.get("args") or [hook["path"]]
    environment = dict(entry.partition("=")[::2] for entry in hook.get("env") or [])
    said = os.memfd_create("hook-stderr")
    try:
        try:
            pid = _spawn(hook["path"], words, environment, state, said)
        except OSError as error:
            raise HookFailed(what, (error.strerror or "").lower()) from None
        status = _wait(pid, hook.get("timeout"))
        if status is None:
            raise HookFailed(what, f"did not end within {hook['timeout']} s")
        if status:
            code = os.waitstatus_to_exitcode(status)
            first = os.pread(said, 500, 0).decode("utf-8", "replace").strip().partition("\n")[0]
            raise HookFailed(what, f"{f'exit code {code}' if code >= 0 else f'signal {-code}'}: {first}".rstrip(": "))
    finally:
        os.close(said)


def _spawn(path: str, words: list[str], environment: dict[str, str], state: bytes, said: int) -> int:
    """Start a hook with the state on its standard input; what it prints is not the container's output."""
    read_end, write_end = os.pipe()
    null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    try:
        streams = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((read_end, null, said))]
        # Python ignores these two; an ignored signal stays ignored across exec.
        pid = os.posix_spawn(path, words, environment, file_actions=streams, setsigdef=[13, 25])
    except BaseException:
        os.close(write_end)
        raise
    finally:
        os.close(read_end)
        os.close(null)
    try:
        while state:
            state = state[os.write(write_end, state) :]
    except BrokenPipeError:  # it does not care
        pass
    finally:
        os.close(write_end)
    return pid


def _wait(pid: int, seconds: int | None) -> int | None:
    """The wait status of a child, or None if it had to be killed because its time was over."""
    import select

    pidfd = syscalls.pidfd_open(pid)
    try:
        ended, _, _ = select.select([pidfd], [], [], seconds or None)
    finally:
        os.close(pidfd)
    if not ended:
        os.kill(pid, _KILL)  # our child, not reaped yet: the number is still its
    _, status = os.waitpid(pid, 0)
    return status if ended else None


def inside(config: dict[str, Any], state: dict[str, Any]) -> dict[str, list[Op]]:
    """The ops of the hooks that run in init, by kind."""
    hooks = config.get("hooks") or {}
    found = {}
    for kind, status in (("createContainer", "creating"), ("startContainer", "created")):
        if hooks.get(kind):
            found[kind] = [_state_op({**state, "status": status}), *_hook_ops(hooks[kind])]
    return found


def _state_op(state: dict[str, Any]) -> Op:
    """The pid, as it is known inside, is for init to fill in."""
    head = strict_json.dumps({key: value for key, value in state.items() if key != "pid"})
    return ["hook-state", f'{head[:-1]}, "pid": ', "}"]


def _hook_ops(hooks: list[dict[str, Any]]) -> list[Op]:
    ops = []
    for hook in hooks:
        ops += [["hook-arg", word] for word in hook.get("args") or [hook["path"]]]
        ops += [["hook-env", entry] for entry in hook.get("env") or []]
        ops.append(["hook", hook["path"], str(hook.get("timeout") or 0)])
    return ops
