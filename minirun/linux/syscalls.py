"""The system calls that Python lacks, under their own names; the only module that imports the cffi module.

Every function raises OSError with the errno of the call (and the path, where there is one).
"""

from __future__ import annotations

import os

from minirun.linux._shim import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
_AT_FDCWD = -100
_LONGEST = (1 << 31) - 1  # milliseconds, of poll(2)
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 2, 4, 8, 16


def _raise(path: str | None = None) -> NoReturn:
    number = ffi.errno
    raise OSError(number, os.strerror(number), path)


def _pairs(values: dict[str, str]) -> bytes:
    return b"".join(part.encode() + b"\0" for pair in values.items() for part in pair)


def netns_create(path: str, sysctls: dict[str, str]) -> None:
    """Make a network namespace that lives as the file ``path``, as ``ip netns add`` does.

    ``sysctls`` maps files (``/proc/sys/net/...``) to values, written inside before anyone else can enter; a file that
    this kernel lacks is passed over. Raises FileExistsError if the name is taken.
    """
    packed = _pairs(sysctls)
    if lib.mr_netns_create(path.encode(), packed, len(packed)) < 0:
        _raise(path)


def netns_write(path: str, sysctls: dict[str, str]) -> None:
    """Write files of ``/proc/sys/net`` as they are seen in the network namespace at ``path``."""
    packed = _pairs(sysctls)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if lib.mr_netns_write(descriptor, packed, len(packed)) < 0:
            _raise(path)
    finally:
        os.close(descriptor)


def netns_delete(path: str) -> None:
    """Take the name of a network namespace away; the kernel frees it with its last process. Gone already is fine."""
    if lib.mr_unmount(path.encode()) < 0 and ffi.errno not in (2, 22):  # ENOENT; EINVAL: not a mount point
        _raise(path)
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def netlink_socket(protocol: int, netns: str | None = None) -> int:
    """A raw netlink socket (close-on-exec; os.read and os.write speak it) in ours or in the namespace at ``netns``."""
    if netns is None:
        descriptor = lib.mr_netlink_socket(protocol, -1)
    else:
        namespace = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        descriptor = lib.mr_netlink_socket(protocol, namespace)
        os.close(namespace)
    if descriptor < 0:
        _raise(netns)
    return int(descriptor)


def xtables(ipv6: bool, option: int, question: bytes, size: int) -> bytes:
    """Ask ip_tables or ip6_tables by getsockopt(2): the answer, ``size`` bytes, begins as the question."""
    buffer, length = ffi.new("char[]", question.ljust(size, b"\0")), ffi.new("unsigned *", size)
    if lib.mr_xtables(ipv6, option, buffer, length) < 0:
        _raise()
    return ffi.unpack(buffer, size)


def is_mount_root(path: str) -> bool:
    """Whether something is mounted at exactly this path (statx(2); a list of all mounts may be long)."""
    found = lib.mr_is_mount_root(path.encode())
    if found < 0 and ffi.errno != 2:  # ENOENT
        _raise(path)
    return bool(found > 0)


def unmount(path: str) -> None:
    """umount2(2) with MNT_DETACH and UMOUNT_NOFOLLOW."""
    if lib.mr_unmount(path.encode()) < 0:
        _raise(path)


def open_inside(root: int, path: str, flags: int, resolve: int = RESOLVE_IN_ROOT, mode: int = 0) -> int:
    """openat2(2): open ``path`` so that its look-up stays below the directory ``root``, links included."""
    descriptor = lib.mr_open_inside(root, os.fsencode(path), flags, mode, resolve)
    if descriptor < 0:
        _raise(path)
    return int(descriptor)


def pidfd_open(pid: int) -> int:
    """pidfd_open(2): a descriptor that keeps meaning this process, whoever gets its number later."""
    descriptor = lib.mr_pidfd_open(pid)
    if descriptor < 0:
        _raise()
    return int(descriptor)


def keep_children() -> None:
    """Have children wait for us when they have ended: a caller that ignores SIGCHLD has passed that on (wait(2))."""
    import _signal

    if _signal.getsignal(_signal.SIGCHLD) == _signal.SIG_IGN:
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)


def ended(pidfds: Sequence[int], seconds: float | None = None) -> list[int]:
    """Wait until one of these processes has ended, at most so long: those that have. By poll(2), since select(2) knows
    no descriptor above 1023, and our caller may have left us more.
    """
    import select

    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    return [pidfd for pidfd, _ in poll.poll(None if seconds is None else min(seconds * 1000, _LONGEST))]


def open_process(pid: int, start: int) -> int:
    """A pidfd of the process that started then (field 22 of proc_pid_stat(5)); ProcessLookupError if it is gone."""
    descriptor = lib.mr_open_process(f"{pid}:{start}".encode())
    if descriptor < 0:
        _raise()
    return int(descriptor)


def watch_file(path: str) -> int:
    """An inotify(7) descriptor that becomes readable whenever the file is written to."""
    descriptor = lib.mr_watch_file(path.encode())
    if descriptor < 0:
        _raise(path)
    return int(descriptor)


def inotify() -> int:
    """A new inotify(7) descriptor, which never blocks."""
    descriptor = lib.mr_inotify()
    if descriptor < 0:
        _raise()
    return int(descriptor)


def watch_directory(descriptor: int, path: str) -> int:
    """Have an inotify descriptor tell of names in ``path`` that come, go or were written; the number of the watch."""
    watch = lib.mr_watch_directory(descriptor, os.fsencode(path))
    if watch < 0:
        _raise(path)
    return int(watch)


def is_held(path: str) -> bool:
    """Whether some process holds the lock file ``path`` (flock(2)); two who ask do not see each other."""
    held = lib.mr_is_held(path.encode())
    if held < 0:
        _raise(path)
    return bool(held)


def become(identity: int) -> None:
    """Be the user and group of that number from now on, without any right of root's, and for good."""
    if lib.mr_become(identity) < 0:
        _raise()


def device_filter(cgroup: str, instructions: bytes, replace: bool = False) -> None:
    """Attach an eBPF program that decides about devices to the v2 cgroup with this directory; see ``devices``."""
    if lib.mr_device_filter(cgroup.encode(), instructions, len(instructions), replace) < 0:
        _raise(cgroup)


def sealed_copy(path: str) -> int:
    """A memfd with the file's contents that nobody can change any more (memfd_create(2), F_ADD_SEALS)."""
    descriptor = lib.mr_sealed_copy(path.encode())
    if descriptor < 0:
        _raise(path)
    return int(descriptor)


def remove_tree(path: str) -> None:
    """Remove a file or a directory and all below it, never through a symbolic link; missing is fine."""
    if lib.mr_remove_tree(_AT_FDCWD, path.encode()) < 0:
        _raise(path)


def run_detached(words: Sequence[str], environment: Mapping[str, str], keep_stdio: bool) -> int:
    """Start the program ``words[0]``, which outlives us; its pid. Without ``keep_stdio`` it has /dev/null."""
    argv = [ffi.new("char[]", os.fsencode(word)) for word in words]
    envp = [ffi.new("char[]", os.fsencode(f"{name}={value}")) for name, value in environment.items()]
    pid = lib.mr_run_detached([*argv, ffi.NULL], [*envp, ffi.NULL], keep_stdio)
    if pid < 0:
        _raise(words[0])
    return int(pid)


def socketpair() -> tuple[int, int]:
    """A connected pair of close-on-exec SOCK_SEQPACKET sockets: one os.write is one os.read."""
    pair = ffi.new("int[2]")
    if lib.mr_socketpair(pair) < 0:
        _raise()
    return int(pair[0]), int(pair[1])


def lock(path: str, create: bool = False, wait: bool = False) -> int:
    """Open the lock file ``path`` and hold it exclusively (flock(2)) until every copy of the descriptor is closed.

    ``create`` makes the file, which must be new. Without ``wait``, BlockingIOError if another process holds it.
    FileNotFoundError if it is missing, or was removed while we waited.
    """
    descriptor = lib.mr_lock(path.encode(), create, wait)
    if descriptor < 0:
        _raise(path)
    return int(descriptor)


def dead_locks(directory: str) -> list[str]:
    """The names of the lock files in ``directory`` that nobody holds (at this moment)."""
    room = 1 << 17  # some two thousand ids; what does not fit is for the next call
    names = ffi.new("char[]", room)
    count = lib.mr_dead_locks(directory.encode(), names, room)
    if count < 0:
        _raise(directory)
    return str(ffi.unpack(names, room).split(b"\0\0", 1)[0], "ascii").split("\0") if count else []


def terminal_size(descriptor: int) -> tuple[int, int]:
    """(rows, columns) of a terminal; OSError with ENOTTY for anything else."""
    rows, columns = ffi.new("int *"), ffi.new("int *")
    if lib.mr_terminal_size(descriptor, rows, columns) < 0:
        _raise()
    return rows[0], columns[0]


class Terminal:
    """A terminal that a container will use: its descriptor, and its settings before anyone changed them."""

    __slots__ = ("descriptor", "settings")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        buffer = ffi.new("char[]", 256)
        size = lib.mr_terminal_settings(descriptor, buffer, 256)
        if size < 0:
            _raise()
        self.settings = ffi.unpack(buffer, size)


def hold_signals() -> None:
    """Block the signals that ``follow`` passes on, so that none is lost, or kills us, before it is called."""
    import _signal as s

    s.pthread_sigmask(s.SIG_BLOCK, (s.SIGINT, s.SIGTERM, s.SIGQUIT, s.SIGHUP, s.SIGUSR1, s.SIGUSR2, s.SIGWINCH))


def follow(control: int, terminal: Terminal | None) -> tuple[int, bool] | None:
    """Stay with a container until its monitor tells the end: (wait status, killed for memory), or None if it died.

    Signals to us, which ``hold_signals`` has blocked before the container started, are passed on to it; so is the size
    of the ``terminal``, which the monitor has made raw, and which is restored here should the monitor have died.
    """
    status, oom = ffi.new("int *"), ffi.new("int *")
    descriptor, settings = (terminal.descriptor, terminal.settings) if terminal else (-1, b"")
    result = lib.mr_follow(control, descriptor, settings, status, oom)
    if result < 0:
        _raise()
    return (status[0], bool(oom[0])) if result else None


def spawn(
    namespaces: int, init: int, ops: int, stdio: tuple[int, int, int], keep: int = 0, cgroup: int = -1, target: int = -1
) -> tuple[int, int, int]:
    """Make a process that executes minirun-init: (its pid, a pidfd, the socket to it). See csrc/minirun.h.

    ``namespaces`` are CLONE_NEW* flags, the others descriptors: the sealed init, its op list, what becomes 0, 1 and 2,
    how many from 3 on are kept, a v2 cgroup to be born in, a pidfd of the process that the op ``enter`` means.
    """
    request = ffi.new("struct mr_spawn *", {"namespaces": namespaces, "cgroup": cgroup, "target": target})
    request.init, request.ops, request.stdio, request.keep = init, ops, list(stdio), keep
    keep_children()
    pid = lib.mr_spawn(request)
    if pid < 0:
        _raise("clone3")
    return int(pid), int(request.pidfd), int(request.control)


class Message:
    """One datagram between us, the monitor and init: csrc/minirun.h, ``struct mr_message``.

    ``sender`` is the pid that the kernel vouches for, on the socket of ``spawn`` only; ``descriptors`` came along.
    """

    (READY, START, FAILED, CONSOLE, CREATED, STARTED, EXITED, SIGNAL, WINSIZE, ATTACH, SYNC, BORN, LISTENER, SAID) = (
        range(1, 15)
    )
    SIZE = 16

    __slots__ = ("a", "b", "descriptors", "sender", "type")

    def __init__(self, kind: int, a: int = 0, b: int = 0, sender: int = 0, descriptors: tuple[int, ...] = ()) -> None:
        self.type, self.a, self.b, self.sender, self.descriptors = kind, a, b, sender, descriptors


def send(control: int, kind: int, a: int = 0, b: int = 0, descriptors: tuple[int, ...] = ()) -> None:
    """Send one message, with descriptors to go along."""
    if lib.mr_send(control, kind, a, b, list(descriptors) or ffi.NULL, len(descriptors)) < 0:
        _raise()


def receive(control: int) -> Message | None:
    """The next message, or None when the other end is gone. The caller closes its descriptors."""
    message, room, count = ffi.new("struct mr_message *"), ffi.new("int[1]"), ffi.new("int *", 1)
    result = lib.mr_receive(control, message, room, count)
    if result < 0:
        _raise()
    return Message(message.type, message.a, message.b, message.c, tuple(room[0:1])[: count[0]]) if result else None
