"""The two kinds of VM: where the kernel comes from, and the processes that run it.

- `Uml`, User-mode Linux: a kernel that is an ordinary process. It needs no root, but Debian builds it without nftables'
  ip family, without cpuset, and for one processor.
- `Qemu`: Debian's cloud kernel on an emulated PC. Slower, and needs root for virtiofsd; it lacks nothing.

Both get the same initramfs and the same two serial lines, so that all the rest is common to them.
"""

import os
import shutil
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import IO

REMEDY = "run `sudo scripts/provision.sh vm`"
Process = subprocess.Popen[bytes]


class Unavailable(Exception):
    """This machine cannot boot a VM of this kind."""


@dataclass(frozen=True)
class Boot:
    """What every VM is given."""

    scratch: Path  # a directory of its own
    memory: int  # MiB
    interactive: bool  # whether our stdin is the VM's terminal

    @property
    def stdin(self) -> int | None:
        """As subprocess takes it."""
        return None if self.interactive else subprocess.DEVNULL

    @property
    def initramfs(self) -> Path:
        return self.scratch / "initramfs"

    @property
    def status(self) -> Path:
        """The other end of the VM's ttyS1."""
        return self.scratch / "status"

    @property
    def log(self) -> Path:
        """The kernel's messages, and its helpers'."""
        return self.scratch / "log"


class Kernel(ABC):
    """A kernel that can be booted."""

    rootfs: str  # the type of the file system by which the host's / comes in
    needs: tuple[str, ...]  # the modules without which there is no root
    modules: Path  # what is /lib/modules/RELEASE in the VM

    @abstractmethod
    def start(self, boot: Boot) -> list[Process]:
        """Start the machine. The end of the first process is the end of the machine."""


class Uml(Kernel):
    rootfs = "hostfs"
    needs = ("overlay",)

    def __init__(self) -> None:
        self.program = _program("linux.uml")
        self.modules = Path("/usr/lib/uml/modules") / _said(self.program, "--version").strip()

    def start(self, boot: Boot) -> list[Process]:
        with boot.status.open("wb") as status, boot.log.open("wb") as log, os.fdopen(os.dup(1), "wb") as output:
            # "null" stands for an input that never comes; anything that UML reads, it must be able to poll.
            command = [
                self.program,
                f"mem={boot.memory}M",
                f"initrd={boot.initramfs}",
                f"uml_dir={boot.scratch}/",  # instead of ~/.uml; the slash matters
                "umid=vm",
                "con=null",
                "con0=null,fd:2",
                "ssl=null",
                f"ssl0={'fd:0' if boot.interactive else 'null'},fd:{output.fileno()}",
                f"ssl1=null,fd:{status.fileno()}",
                "panic=-1",
            ]
            # UML greets on its own stdout before it has a console: that is for the log.
            keep = (output.fileno(), status.fileno())
            return [_start(command, boot.stdin, log, keep)]


class Qemu(Kernel):
    rootfs = "virtiofs"
    needs = ("overlay", "virtiofs", "virtio_pci")

    def __init__(self) -> None:
        self.program = _program("qemu-system-x86_64")
        # Debian 12 ships the C virtiofsd with qemu, later releases the Rust one; both take the options used here.
        self.virtiofsd = _program("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
        if os.geteuid() != 0:
            raise Unavailable("virtiofsd needs root to share /: use sudo, or --kind uml")
        unpacked = _debian_kernel()
        self.image = next((unpacked / "boot").glob("vmlinuz-*"))
        self.modules = next((unpacked / "lib/modules").iterdir())

    def start(self, boot: Boot) -> list[Process]:
        share = boot.scratch / "virtiofs.sock"
        # A terminal has to be given as a serial line to be wholly raw: "stdio" would go on ending lines with \\r\\n.
        output = f"serial,path={os.ttyname(0)}" if boot.interactive else "stdio,signal=off"
        command = [
            self.program,
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-machine", "pc,memory-backend=ram", "-m", f"{boot.memory}M"),
            # One thread for both processors: with two, a kernel that patches its own code has been seen to hang.
            *("-accel", "tcg,thread=single", "-smp", "2"),
            *("-cpu", "qemu64,+rdrand"),  # has RDRAND; without it the first to ask for random numbers waits for seconds
            *("-object", f"memory-backend-memfd,id=ram,size={boot.memory}M,share=on"),  # virtiofsd maps it too
            *("-chardev", f"socket,id=host,path={share}", "-device", "vhost-user-fs-pci,chardev=host,tag=host"),
            *("-chardev", f"{output},id=output", "-serial", "chardev:output"),
            *("-serial", f"file:{boot.status}", "-serial", f"file:{boot.log}"),
            *("-kernel", str(self.image), "-initrd", str(boot.initramfs)),
            *("-append", "console=ttyS2 panic=-1"),
        ]
        with socket.socket(socket.AF_UNIX) as listener, (boot.scratch / "virtiofsd.log").open("wb") as log:
            # Listening before either program starts, so that neither has to wait for the other.
            listener.bind(str(share))
            listener.listen(1)
            fd = listener.fileno()
            serve = [self.virtiofsd, f"--fd={fd}", "-o", "source=/,cache=always,sandbox=chroot"]
            server = _start(serve, subprocess.DEVNULL, log, keep=(fd,))
        return [_start(command, boot.stdin, output=None), server]


def _start(command: list[str], stdin: int | None, output: IO[bytes] | None, keep: tuple[int, ...] = ()) -> Process:
    """Start one of a VM's processes; where `stdin` or `output` is None it has ours.

    It dies when we do, even of SIGKILL, and with it all that it started: UML runs each of its processes as one of ours.
    Only root may have the pid namespace that makes this sure; for others there is the process group.
    """
    bound = ["setpriv", "--pdeathsig", "KILL"]
    if os.geteuid() == 0:
        bound += ["unshare", "--pid", "--fork", "--kill-child"]
    return subprocess.Popen(
        bound + command, stdin=stdin, stdout=output, stderr=output, pass_fds=keep, start_new_session=True
    )


def _program(*names: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    raise Unavailable(f"no {names[0]}; {REMEDY}")


def _debian_kernel() -> Path:
    """Debian's newest cloud kernel, unpacked in a cache of ours.

    It is not installed, because that would give the host another kernel to boot; we only want its files.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minirun-vm"
    package = _said("apt-cache", "depends", "--important", "linux-image-cloud-amd64").split()[-1]
    kernel = cache / package
    if not kernel.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _said("apt-get", "download", package, cwd=scratch)
            unpacked = Path(scratch) / "kernel"
            _said("dpkg-deb", "--extract", str(next(Path(scratch).glob("*.deb"))), str(unpacked))
            _said("depmod", "--basedir", str(unpacked), package.removeprefix("linux-image-"))
            unpacked.rename(kernel)  # last, so that what is in the cache is whole
    return kernel


def _said(*command: str, cwd: str | None = None) -> str:
    """What a command printed."""
    try:
        return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        raise Unavailable(f"no {command[0]}; {REMEDY}") from None
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"{' '.join(command)}: {error.stderr.strip()}") from None
