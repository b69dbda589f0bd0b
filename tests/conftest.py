"""What holds for all tests: in continuous integration a skip must be one that is expected, or the run fails."""

from __future__ import annotations

import os
import signal

import pytest

# Beginnings of reasons. A machine may lack these; everything else is installed by scripts/provision.sh.
EXPECTED_SKIPS: tuple[str, ...] = ("User-mode Linux ",)

_unexpected: list[str] = []

# nohup(1), or a shell that puts us into its background, ignores some signals; what we start would, too, and a test that
# compares processes would find that.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note a skip that nobody expects."""
    if report.skipped and isinstance(report.longrepr, tuple) and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(EXPECTED_SKIPS or ("\0",)):
            _unexpected.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run in continuous integration (CI=true) if a test was skipped without need."""
    if os.environ.get("CI") and _unexpected and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which skips were not expected."""
    if os.environ.get("CI") and _unexpected:
        terminalreporter.write_line(f"{len(_unexpected)} unexpected skips, which fail the run:")
        for line in _unexpected:
            terminalreporter.write_line(f"  {line}")
