"""The linters, run as tests: what CONTRIBUTING asks for is what fails here, on every machine alike."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = ["minirun", "tests", "scripts", "setup.py"]


def _check(*command: str) -> None:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def test_ruff_check() -> None:
    _check(sys.executable, "-m", "ruff", "check", *PYTHON)


def test_ruff_format() -> None:
    _check(sys.executable, "-m", "ruff", "format", "--check", "--diff", *PYTHON)


def test_mypy_strict() -> None:
    _check(sys.executable, "-m", "mypy")


def test_clang_format() -> None:
    program = shutil.which("clang-format")
    if program is None:
        pytest.skip("clang-format is not installed: scripts/provision.sh test brings it")
    files = [str(path) for path in sorted(REPOSITORY.glob("csrc/*.[ch]"))]
    _check(program, "--dry-run", "-Werror", *files)


@pytest.mark.parametrize("script", sorted(REPOSITORY.glob("scripts/*.sh")), ids=lambda path: path.name)
def test_shell_scripts_parse(script: Path) -> None:
    _check("sh", "-n", str(script))


def test_every_module_says_why_it_exists() -> None:
    missing = [
        str(path.relative_to(REPOSITORY))
        for path in REPOSITORY.glob("minirun/**/*.py")
        if path.stat().st_size and not path.read_text().startswith('"""')
    ]
    assert not missing
