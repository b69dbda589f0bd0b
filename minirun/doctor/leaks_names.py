"""Name servers that were left behind: of a state directory that is gone, or with another one in their place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from minirun import store
from minirun.doctor.leak import Leak
from minirun.doctor.living import Living, command_line
from minirun.linux import syscalls


def name_servers(living: Living) -> Iterator[Leak]:
    """Those whose lock nobody looks at. The one of another state directory, if that exists, is none."""
    for pid in os.listdir("/proc"):
        if pid.isdigit() and _is_stray(pid):
            name = f"{pid} (minirun nameserver)"
            yield Leak("process", name, "nobody looks at its lock", f"kill -9 {pid}", partial(_end, pid))


def _is_stray(pid: str) -> bool:
    words = command_line(pid)
    if words[-4:-2] != ["nameserver", "--serve"]:
        return False
    try:
        if os.readlink(f"/proc/{pid}/cwd").endswith(" (deleted)"):
            return True
        ours = os.path.samestat(os.stat(f"/proc/{pid}/cwd"), os.stat(f"{store.state}/networks"))
        return ours and not _is_lock(f"/proc/{pid}/fd/{words[-2]}")
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return False  # it ends just now; or we have no networks


def _is_lock(path: str) -> bool:
    held = os.stat(path)
    try:
        return os.path.samestat(held, os.stat(f"{store.state}/nameserver/lock"))
    except FileNotFoundError:
        return False


def _end(pid: str) -> None:
    from signal import SIGKILL, pidfd_send_signal

    try:
        pidfd = syscalls.pidfd_open(int(pid))
    except ProcessLookupError:
        return
    try:
        if _is_stray(pid):  # the number may be another's by now
            pidfd_send_signal(pidfd, SIGKILL)
            syscalls.ended([pidfd])
    finally:
        os.close(pidfd)


FINDERS = (name_servers,)
