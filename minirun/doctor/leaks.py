"""What exists of ours and belongs to no living container: found by looking, with no record to lean on.

Normally there is nothing: every command first undoes what a dead one left. This is the second opinion, which finds what
that would miss. A thing is only called a leak if it bears a mark of ours (a place below our directories, an id in its
name, a tag, an alias, a comment) and no living container, of this state directory or of another, has that mark.
"""

from __future__ import annotations

import time

from minirun.doctor import leaks_files, leaks_kernel, leaks_names
from minirun.doctor.leak import Leak
from minirun.doctor.living import Living

PATIENCE, INTERVAL = 3.0, 0.05  # seconds that the kernel may take to remove a cable whose namespace is gone


def find() -> list[Leak]:
    """Everything left behind, in the order in which it should be removed.

    A container that starts or ends while we look seems to be a leak for a moment, and a cable outlives its namespace
    for a while: so what is found is looked at again, until nothing more of it disappears.
    """
    found = _look()
    deadline = time.monotonic() + PATIENCE
    while found:
        again = {(leak.kind, leak.name) for leak in _look()}
        found = [leak for leak in found if (leak.kind, leak.name) in again]
        if time.monotonic() > deadline or not any(leak.kind == "cable" for leak in found):
            break
        time.sleep(INTERVAL)
    return found


def _look() -> list[Leak]:
    living = Living()
    finders = (*leaks_names.FINDERS, *leaks_kernel.FINDERS, *leaks_files.FINDERS)
    return [leak for finder in finders for leak in finder(living)]
