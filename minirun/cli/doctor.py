"""``minirun doctor``: what this machine lacks; ``minirun doctor --leaks``: what was left behind on it."""

from __future__ import annotations

import os
import sys

from minirun.cli import table
from minirun.cli.arguments import Option, Values, help_text, parse, store
from minirun.errors import MinirunError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minirun.doctor.finding import Finding

OPTIONS = [
    Option("--leaks", "", store("leaks"), "list what exists of ours and belongs to no living container"),
    Option("--fix", "", store("fix"), "with --leaks: remove it"),
    Option("--format", "json", store("format"), "one JSON object a line"),
]
EXAMPLES = [
    "sudo minirun doctor                 # 0 if containers can run here",
    "sudo minirun doctor --leaks         # prints nothing, if nothing was left behind",
]


def run(argv: Sequence[str]) -> int:
    """``minirun doctor``."""
    if "--help" in argv or "-h" in argv:
        text = "Try what containers need of this machine and say what it lacks, or list what was left behind."
        sys.stdout.write(help_text("doctor [--leaks [--fix]] [--format json]", text, OPTIONS, EXAMPLES))
        return 0
    target = Values(leaks=False, fix=False, format="table")
    if parse(argv, OPTIONS, target):
        raise UsageError("doctor", "takes no arguments", "see minirun doctor --help")
    table.check_format(target.format)
    if target.fix and not target.leaks:
        raise UsageError("--fix", "goes with --leaks", "minirun doctor --leaks --fix")
    return _leaks(target) if target.leaks else _checkup(target)


def _checkup(target: Values) -> int:
    from minirun.doctor import checkup
    from minirun.doctor.finding import FAILURE, SKIPPED

    findings = checkup.run()
    if target.format == "json":
        table.json_lines(finding._asdict() for finding in findings)
    else:
        tried = [finding for finding in findings if finding.status != SKIPPED]
        width = max(len(finding.name) for finding in tried)
        for finding in tried:
            sys.stdout.write(f"{finding.status:<8} {finding.name:<{width}}  {_sentence(finding)}\n")
        _write_skipped([finding for finding in findings if finding.status == SKIPPED])
    return int(any(finding.status == FAILURE for finding in findings))


def _sentence(finding: Finding) -> str:
    if not finding.remedy:
        return finding.detail
    return f"{finding.detail} (for: {finding.needed_by}); {finding.remedy}"


def _write_skipped(skipped: Sequence[Finding]) -> None:
    for reason in dict.fromkeys(finding.detail for finding in skipped):
        names = ", ".join(finding.name for finding in skipped if finding.detail == reason)
        sys.stdout.write(f"not tried, {reason}: {names}\n")


def _leaks(target: Values) -> int:
    from minirun.doctor import leaks

    if os.geteuid() != 0:
        raise MinirunError("minirun doctor --leaks needs root", "", "sudo minirun doctor --leaks")
    remaining = 0
    for leak in leaks.find():
        failure = leak.fix() if target.fix else None
        remaining += not target.fix or failure is not None
        if target.format == "json":
            words = {"kind": leak.kind, "name": leak.name, "why": leak.why, "command": leak.command}
            table.json_lines([{**words, "removed": target.fix and failure is None}])
        elif failure is not None:
            sys.stdout.write(f"{leak.kind} {leak.name}: cannot be removed: {failure}; {leak.command}\n")
        else:
            sys.stdout.write(f"{leak.kind} {leak.name}: {leak.why}; {'removed' if target.fix else leak.command}\n")
    return int(remaining > 0)
