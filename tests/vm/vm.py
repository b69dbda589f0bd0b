#!/usr/bin/env python3
"""Run a command in a throw-away virtual machine that has cgroup v2, without Vagrant.

The machines on which minirun is built and tested are often laid out in cgroup v1, and a test of limits must see both.
The VM's root is this machine's own, covered by an overlay in memory: the command finds the checkout, its virtual
environment and every program at the usual paths, may write anywhere as root, and leaves nothing.

    vm.py --kind uml -- .venv/bin/pytest tests/vm/guest
    vm.py --kind qemu                                     (a shell)
"""

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from pathlib import Path

import initramfs
import kernels

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
KINDS: dict[str, type[kernels.Kernel]] = {"uml": kernels.Uml, "qemu": kernels.Qemu}
PASSED_ON = ("CI", "HOME", "LANG", "PATH", "PYTEST_ADDOPTS", "TERM")

# As timeout(1) has it, and as containers have it for "our own fault".
TIMED_OUT = 124
FAILED = 125


def main() -> int:
    options = parse_arguments()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))  # by way of the clean-up in `run`
    try:
        return run(options)
    except kernels.Unavailable as error:
        print(f"vm.py: no {options.kind} VM here: {error}", file=sys.stderr)
        return FAILED


def run(options: argparse.Namespace) -> int:
    """Boot a VM, run the job in it, and give its exit status."""
    kernel = KINDS[options.kind]()
    interactive = not options.command
    with tempfile.TemporaryDirectory(prefix="minirun-vm-") as scratch, terminal_restored():
        boot = kernels.Boot(Path(scratch), options.memory, interactive)
        boot.initramfs.write_bytes(image(kernel, job(options.kind, options.command or ["bash"]), interactive))
        with ended_with_us(kernel.start(boot)) as machine:
            try:
                machine.wait(options.timeout)
            except subprocess.TimeoutExpired:
                return failed(boot, f"not done after {options.timeout} s", TIMED_OUT)
        said = boot.status.read_text().strip()
        return int(said) if said.isdecimal() else failed(boot, "ended with no exit status", FAILED)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="vm.py", usage="%(prog)s [options] [-- COMMAND ...]", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--kind", choices=KINDS, default="uml", help="User-mode Linux, or an emulated PC (%(default)s)")
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB", help="memory of the VM (%(default)s)")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="end the VM after this time")
    parser.add_argument("command", nargs="*", help="what to run; without it, a shell")
    options = parser.parse_args()
    if not options.command and not os.isatty(0):
        parser.error("a shell needs a terminal; for anything else, give a command after --")
    return options


def job(kind: str, command: list[str]) -> str:
    """The shell script that is the command here and now: same directory, and the little of the environment it needs."""
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {"MINIRUN_VM": kind}
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    return "\n".join([*exports, f"cd {shlex.quote(os.getcwd())}", f"exec {shlex.join(command)}", ""])


def image(kernel: kernels.Kernel, job: str, interactive: bool) -> bytes:
    busybox = shutil.which("busybox")
    if not busybox:
        raise kernels.Unavailable(f"no busybox; {kernels.REMEDY}")
    size = shutil.get_terminal_size()
    modules = initramfs.modules(kernel.modules, kernel.needs)
    config = {
        "ROOTFS": kernel.rootfs,
        "MODULES": str(kernel.modules),
        "CHECKOUT": str(CHECKOUT),
        "TERMINAL": f"rows {size.lines} cols {size.columns}" if interactive else "",
    }
    texts = {
        "init": (HERE / "init.sh").read_text(),
        "supervise": (HERE / "supervise.sh").read_text(),
        "job": job,
        "config": "".join(f"{name}={shlex.quote(value)}\n" for name, value in config.items()),
        "modules": "".join(f"/{name}\n" for name in modules),
    }
    programs = {"bin/busybox": Path(busybox).read_bytes()}
    return initramfs.archive(programs | modules | {name: text.encode() for name, text in texts.items()})


@contextlib.contextmanager
def ended_with_us(processes: list[kernels.Process]) -> Iterator[kernels.Process]:
    """The first process, and whatever happens, the end of all and of what they started."""
    try:
        yield processes[0]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def terminal_restored() -> Iterator[None]:
    """A VM makes our terminal raw, and does not always get to undo it."""
    if not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def failed(boot: kernels.Boot, what: str, code: int) -> int:
    messages = boot.log.read_text(errors="replace").splitlines() if boot.log.exists() else []
    print(f"vm.py: the VM {what}; its kernel's last words:", *messages[-20:], sep="\n    ", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
