"""The parts of the build that pyproject.toml cannot say: the cffi module, and two static programs inside the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
PROGRAMS = {
    "minirun-init": [
        "init.c",
        "paths.c",
        "mount_options.c",
        "mounts.c",
        "copy_up.c",
        "rootfs.c",
        "namespaces.c",
        "security.c",
        "hooks.c",
        "message.c",
    ],
    "minirun-monitor": ["monitor.c", "message.c", "spawn.c"],
    "minirun-oci": ["oci.c"],
    "minirun-proxy": ["proxy.c"],
}
FLAGS = ["-std=gnu11", "-Os", "-static", "-Wall", "-Wextra", "-Werror", "-fstack-protector-strong", "-s"]


def compiler() -> list[str]:
    """musl-gcc where there is one: its static programs are a tenth of glibc's in size, and so in memory per container.

    musl brings no kernel headers; they are the system's, looked up after musl's own.
    """
    if not shutil.which("musl-gcc"):
        return [os.environ.get("CC", "gcc")]
    multiarch = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
    return ["musl-gcc", "-idirafter", "/usr/include", "-idirafter", f"/usr/include/{multiarch}"]


class BuildAll(build_ext):
    """The extension, then the programs, beside it: in place for a checkout, in the build tree for a wheel."""

    def run(self) -> None:
        super().run()
        base = ROOT if self.inplace else Path(self.build_lib)
        target = base / "minirun" / "libexec"
        target.mkdir(parents=True, exist_ok=True)
        for program, sources in PROGRAMS.items():
            files = [str(ROOT / "csrc" / name) for name in sources]
            subprocess.run([*compiler(), *FLAGS, *files, "-o", str(target / program)], check=True)


EXTENSIONS = ["minirun/linux/ffi_build.py:ffibuilder", "minirun/linux/seccomp_build.py:ffibuilder"]

setup(cffi_modules=EXTENSIONS, cmdclass={"build_ext": BuildAll})
