"""The lock of a container of the OCI runtime: its state directory, held by flock(2).

Whoever changes a container holds it; whoever only asks or sends a signal does not. A `create` that was killed leaves
it free, and so does every end of every process.
"""

from __future__ import annotations

import os
from fcntl import LOCK_EX, LOCK_NB, flock

from minirun.errors import NotFound


class Locked:
    """``with Locked(directory, id):`` waits for the lock. Raises NotFound if there is no such container (any more).

    Without ``wait``, BlockingIOError if another process holds it.
    """

    __slots__ = ("descriptor",)

    def __init__(self, directory: str, identity: str, wait: bool = True) -> None:
        try:
            self.descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise NotFound(f"container {identity!r}", "does not exist") from None
        try:
            flock(self.descriptor, LOCK_EX | (0 if wait else LOCK_NB))
            if os.fstat(self.descriptor).st_nlink == 0:  # removed while we waited
                raise NotFound(f"container {identity!r}", "does not exist")
        except BaseException:
            os.close(self.descriptor)
            raise

    def __enter__(self) -> Locked:
        return self

    def __exit__(self, *failure: object) -> None:
        self.release()

    def release(self) -> None:
        """Let it go before the end of the block."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
