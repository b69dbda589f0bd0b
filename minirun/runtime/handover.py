"""Descriptors that init makes and somebody else waits for, handed on over a Unix socket (unix(7), SCM_RIGHTS).

- The master of the container's terminal goes to ``--console-socket``, as runc began it and conmon and containerd's shim
  expect it.
- The listener of a seccomp filter goes to ``linux.seccomp.listenerPath``, with the container's state (runtime-spec,
  config-linux.md, "The Container Process State").
- A pidfd of the process goes to ``--pidfd-socket``, as runc has it: a number that can never mean another process.
"""

from __future__ import annotations

import os
import stat
import sys

from minirun import strict_json
from minirun.errors import StepFailed
from minirun.oci import defaults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LONGEST = 107  # bytes of a socket's address, unix(7)
_PTMX = os.makedev(5, 2)


def console(path: str, master: int) -> None:
    """Send the master of a terminal. Raises StepFailed if nobody takes it, or if it is none."""
    now = os.fstat(master)
    # It came out of the container (CVE-2025-52565). An open device is the kernel's own, on whatever file system it lay.
    if not stat.S_ISCHR(now.st_mode) or now.st_rdev != _PTMX or not os.isatty(master):
        raise StepFailed("the container's terminal", "is not a terminal of the kernel's")
    _send(path, b"/dev/ptmx", master, "--console-socket")


def listener(profile: dict[str, Any], descriptor: int, pid: int, state: dict[str, Any]) -> None:
    """Send a seccomp listener with the ContainerProcessState, as the profile says."""
    if os.readlink(f"/proc/self/fd/{descriptor}") != "anon_inode:seccomp notify":  # the name of a file has a slash
        raise StepFailed("the container's seccomp listener", "is none of the kernel's")
    metadata, path = profile.get("listenerMetadata") or "", profile["listenerPath"]
    document = {"ociVersion": defaults.VERSION, "fds": ["seccompFd"], "pid": pid, "metadata": metadata, "state": state}
    _send(
        path,
        strict_json.dumps(document).encode(),
        descriptor,
        "failed to connect with seccomp agent: linux.seccomp.listenerPath",
    )


def pidfd(path: str, pid: int) -> None:
    """Send a pidfd of our child ``pid``."""
    descriptor = os.pidfd_open(pid)
    try:
        _send(path, b"pidfd", descriptor, "--pidfd-socket")
    finally:
        os.close(descriptor)


def _send(path: str, text: bytes, descriptor: int, what: str) -> None:
    from _socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket

    connection = socket(AF_UNIX, SOCK_STREAM)
    folder = -1
    try:
        address = path
        if len(os.fsencode(path)) > _LONGEST:  # by way of its folder
            folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            address = f"/proc/self/fd/{folder}/{os.path.basename(path)}"
        connection.connect(address)
        connection.sendmsg([text], [(SOL_SOCKET, SCM_RIGHTS, descriptor.to_bytes(4, sys.byteorder))])
    except OSError as error:
        raise StepFailed(f"{what} {path}", error.strerror or str(error)) from None
    finally:
        connection.close()
        if folder >= 0:
            os.close(folder)
