"""A copy of minirun as `make install` leaves it, so that what is measured is what users start.

The program of a checkout compares the times of its sources before each start, because a developer changes them: some
sixty system calls that no user pays. This copy has a virtual environment of its own, whose packages are links to those
of the checkout's, and the launcher without a checkout.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from tests.fakehost import REPOSITORY

RECIPES = "image/recipes_data"  # where pyproject.toml's package-dir puts images/


def make(directory: Path) -> Path:
    """Install what is built in this checkout below ``directory``; return the program."""
    venv.create(directory, symlinks=True, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(directory), "platbase": str(directory)}))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        (packages / entry.name).symlink_to(entry)
    shutil.copytree(REPOSITORY / "minirun", packages / "minirun", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / "images", packages / "minirun" / RECIPES)
    program = directory / "bin" / "minirun"
    launcher = [str(directory / "bin/python"), "-I", str(REPOSITORY / "scripts/launcher.py"), str(program)]
    subprocess.run(launcher, check=True, cwd=directory, stdout=sys.stderr, timeout=60)
    return program
