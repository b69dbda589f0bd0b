"""What a probe is, and what it finds.

A probe does the very thing that a container will need, and undoes it. It never compares versions: kernels are patched,
configured and confined, so that only the attempt tells. A probe returns a few words about what it saw; it fails by
raising what the attempt raised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from minirun.errors import MinirunError

OK, WARNING, FAILURE, SKIPPED = "ok", "warning", "failure", "skipped"


class Doubt(MinirunError):
    """Something that works, but will hurt some day: a warning whatever the probe is needed for."""


class Probe(NamedTuple):
    """One row of the table in ``checkup``."""

    name: str
    act: Callable[[], str]
    needed_by: str  # what fails without it
    remedy: str  # one command, package or change; a MinirunError that ``act`` raises may know a better one
    fatal: bool = True  # a container cannot run without it
    after: tuple[str, ...] = ()  # probes of which this one would only repeat the failure
    root: bool = True  # it cannot be tried without root


class Finding(NamedTuple):
    """What came of one probe."""

    name: str
    status: str
    detail: str
    needed_by: str
    remedy: str = ""


def examine(probe: Probe, unmet: set[str], is_root: bool) -> Finding:
    """Try one probe, unless it needs root or one of the ``unmet``."""
    if probe.root and not is_root:
        return Finding(probe.name, SKIPPED, "needs root", probe.needed_by)
    cause = next((name for name in probe.after if name in unmet), None)
    if cause:
        return Finding(probe.name, SKIPPED, f"needs: {cause}", probe.needed_by)
    bad = FAILURE if probe.fatal else WARNING
    try:
        return Finding(probe.name, OK, probe.act(), probe.needed_by)
    except Doubt as doubt:
        return Finding(probe.name, WARNING, _sentence(doubt), probe.needed_by, doubt.remedy or probe.remedy)
    except MinirunError as error:
        return Finding(probe.name, bad, _sentence(error), probe.needed_by, error.remedy or probe.remedy)
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        return Finding(probe.name, bad, f"{what}{error.strerror}", probe.needed_by, probe.remedy)


def _sentence(error: MinirunError) -> str:
    return f"{error.what}: {error.why}" if error.why else error.what
