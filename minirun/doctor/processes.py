"""Probes: who we are, which namespaces we can make, how a process can be made, filtered and executed."""

from __future__ import annotations

import errno
import os
import select
import subprocess
from collections.abc import Callable

from minirun.doctor import child, kernel
from minirun.doctor.finding import Doubt
from minirun.errors import Unsupported
from minirun.linux import seccomp, security, syscalls
from minirun.oci.seccomp import default_profile
from minirun.runtime.process import INIT, MONITOR

_NEEDED = ("SYS_ADMIN", "NET_ADMIN", "SYS_CHROOT", "SETUID", "SETGID", "SETPCAP", "CHOWN", "DAC_OVERRIDE", "FOWNER")
_LIMITS = {"mount": "mnt", "network": "net"}  # where the file in /proc/sys/user has another name
_FEW = 64
_PROOF = errno.EXFULL  # an errno that getpgid(2) never has
_PROGRAM = ["--", "/bin/true"]


def root() -> str:
    """Who asks."""
    if os.geteuid() != 0:
        raise Doubt("not root", "only root can run containers, and try the rest", "sudo minirun doctor")
    return "uid 0"


def capabilities() -> str:
    """Root inside a container, or of a confined service, may lack some."""
    import prctl

    missing = [name for name in _NEEDED if not getattr(prctl.cap_effective, name.lower())]
    if missing:
        raise Unsupported(f"root lacks {' '.join(missing)}")
    _, refused = security.divide(security.DEFAULT_CAPABILITIES)
    if refused:
        raise Doubt(f"containers cannot get {' '.join(refused)}", "outside our bounding set")
    if prctl.cap_effective.sys_resource:
        return "all"
    return "all needed; without CAP_SYS_RESOURCE hard limits cannot be raised"


def namespace(kind: str) -> Callable[[], str]:
    """The probe of one kind of namespace: unshare(2), and for ``pid`` and ``time`` a child in it."""

    def act() -> str:
        if os.fork() == 0:
            os._exit(0)
        _, status = os.wait()
        if status:
            raise Unsupported(f"a process in a new {kind} namespace", "ended badly")
        return "made"

    def probe() -> str:
        try:
            return child.run(act, kind)
        except OSError as error:
            sysctl = f"user.max_{_LIMITS.get(kind, kind)}_namespaces"
            if error.errno == errno.ENOSPC:
                why = f"the limit {sysctl} is reached"
                raise Unsupported(f"unshare({kind})", why, f"sysctl -w {sysctl}=65536") from None
            if error.errno == errno.EINVAL:
                remedy = "use a kernel that was built with it (Debian's is)"
                raise Unsupported(f"unshare({kind})", "this kernel has no such namespace", remedy) from None
            raise

    return probe


def namespace_limits() -> str:
    """A limit of zero fails where the namespace is made; a low one fails later."""
    low = []
    for kind in security.NAMESPACES:
        name = f"max_{_LIMITS.get(kind, kind)}_namespaces"
        try:
            with open(f"/proc/sys/user/{name}") as file:
                low += [f"user.{name}"] if 0 < int(file.read()) < _FEW else []
        except FileNotFoundError:
            continue  # no such namespace: its own probe says so
    if low:
        raise Doubt(f"{' '.join(low)} below {_FEW}", "", f"sysctl -w {low[0]}=65536")
    return f"none below {_FEW}"


def clone3() -> str:
    """clone3(2) with CLONE_PIDFD."""

    def act() -> str:
        pid, pidfd = kernel.clone3(0)
        select.select([pidfd], [], [], 10)
        return f"{os.waitpid(pid, 0) and 'with a pidfd'}"

    return child.run(act)


def close_range() -> str:
    """close_range(2) with CLOSE_RANGE_CLOEXEC (Linux 5.11), as the last thing before the program is executed."""
    return child.run(lambda: f"{kernel.syscall(kernel.CLOSE_RANGE, 'close_range', 3, 0xFFFFFFFF, 4) or 'works'}")


def openat2() -> str:
    """openat2(2): look-ups that cannot leave a container's root."""
    top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(syscalls.open_inside(top, "proc/../../etc", os.O_PATH))
    except OSError as error:
        raise OSError(error.errno, error.strerror, "openat2") from None
    finally:
        os.close(top)
    return "resolves inside"


def libseccomp() -> str:
    """Compile the default filter."""
    program = seccomp.compile(default_profile(security.DEFAULT_CAPABILITIES))
    return f"default filter of {len(program) // 8} instructions"


def seccomp_filter() -> str:
    """Install a filter, and see it at work."""
    rule = {"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": _PROOF}
    program = seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})

    def act() -> str:
        kernel.install_filter(program)
        try:
            os.getpgid(0)
        except OSError as error:
            if error.errno == _PROOF:
                return "installed and at work"
        raise Unsupported("a seccomp filter was installed", "and has no effect")

    return child.run(act)


def monitor() -> str:
    """Execute minirun-monitor; without arguments it says how it is called, and ends."""
    done = subprocess.run([MONITOR], capture_output=True)
    if done.returncode != 125 or not done.stderr.startswith(b"usage: minirun-monitor"):
        raise Unsupported(MONITOR, f"does not answer (exit {done.returncode})")
    return "answers"


def init() -> str:
    """Execute minirun-init as a file."""
    return _run_init(INIT, [])


def sealed_init() -> str:
    """Execute minirun-init from a sealed memfd, as every start does."""
    try:
        descriptor = syscalls.sealed_copy(INIT)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "memfd_create, F_ADD_SEALS") from None
    try:
        return _run_init(f"/proc/self/fd/{descriptor}", [descriptor])
    finally:
        os.close(descriptor)


def keyring() -> str:
    """A session keyring of its own, as every container gets; a kernel without keyrings passes."""
    return _run_init(INIT, [], "keyring", "minirun-doctor")


def _run_init(path: str, inherited: list[int], *ops: str) -> str:
    words = ["minirun-init", *ops, *_PROGRAM]
    done = subprocess.run(words, executable=path, pass_fds=inherited, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().split("\n")[0].removeprefix("minirun-init: ")
        raise Unsupported("minirun-init", said or f"exit {done.returncode}")
    return "executed"
