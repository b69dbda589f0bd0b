"""The default seccomp profile as data: which system calls a container may make, in groups, each with its reason.

It is a list of what is allowed; the rest fails with EPERM. A call belongs here if ordinary programs need it and the
kernel checks it against what a container owns: its files, its processes, its namespaces. It does not if it reaches what
namespaces do not divide, or code with a long record of holes that few programs would miss: io_uring, bpf, keyctl,
userfaultfd, user namespaces, rare socket families, the 32-bit ABI.

Two traps shaped the conditions. The kernel keeps only the low 32 bits of an ``int`` argument, while seccomp compares
64: comparing the whole register lets 0x1_0000_0028 pass for "not 40", and then AF_VSOCK is opened (CVE-2019-10063 did
so with TIOCSTI). And libseccomp joins the conditions of one rule by "and", rules by "or", so "not this value" must be
said as a list of what is allowed.

The shape is that of the profile which docker and podman share, so that what runs there runs here. Meanings are those of
syscalls(2); names that a kernel, an architecture or libseccomp lacks are passed over when the filter is compiled.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Condition = dict[str, Any]  # one element of linux.seccomp.syscalls[].args
    Conditions = list[list[Condition]]  # any of these lists, all of its conditions

ALLOW, ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
EPERM, ENOSYS, EPROTONOSUPPORT = 1, 38, 93
INT = 0xFFFFFFFF

# CLONE_NEW* of clone(2) but NEWTIME, whose bit is part of the exit signal there: NS CGROUP UTS IPC USER PID NET
NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
CLONE_NEWTIME = 0x00000080
UNIX, INET, INET6, KEY, NETLINK, PACKET = 1, 2, 10, 15, 16, 17  # socket families
ROUTE, SOCK_DIAG, NFLOG, XFRM, AUDIT = 0, 4, 5, 6, 9  # protocols of netlink(7)
FIB_LOOKUP, CONNECTOR, NETFILTER, UEVENT, GENERIC = 10, 11, 12, 15, 16
TIOCSTI = 0x5412  # but on mips


def masked(index: int, mask: int, value: int) -> Condition:
    """Argument ``index``, of which only the bits in ``mask`` count, equals ``value``."""
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def one_of(index: int, *values: int) -> Conditions:
    """The int argument ``index`` has one of these values."""
    return [[masked(index, INT, value)] for value in values]


def none_of_bits(index: int, bits: int) -> Conditions:
    """Argument ``index`` has none of these flags."""
    return [[masked(index, bits, 0)]]


def anything_but(index: int, value: int) -> Conditions:
    """The int argument ``index`` differs from ``value``: one of its 32 bits does, since no operator says it at once."""
    return [[masked(index, 1 << bit, ~value & 1 << bit)] for bit in range(32)]


def netlink(*protocols: int) -> Conditions:
    """socket(AF_NETLINK, any type, one of these protocols)."""
    return [[masked(0, INT, NETLINK), masked(2, INT, protocol)] for protocol in protocols]


class Group:
    """System calls that are treated alike, and why.

    ``needs``: only for a container that has one of these capabilities; ``lacks``: only for one that has none of them.
    ``machines``: only on these, ``not_machines``: on all but these (uname -m). ``only_if``: under these conditions.
    ``compat``: only where the 32-bit ABI is let in.
    """

    __slots__ = ("compat", "errno", "lacks", "machines", "names", "needs", "not_machines", "only_if", "reason")

    def __init__(
        self,
        reason: str,
        names: str,
        *,
        needs: str = "",
        lacks: str = "",
        machines: str = "",
        not_machines: str = "",
        only_if: Conditions | None = None,
        errno: int = 0,
        compat: bool = False,
    ) -> None:
        self.reason, self.names = reason, names.split()
        self.needs, self.lacks = needs.split(), lacks.split()
        self.machines, self.not_machines = machines.split(), not_machines.split()
        self.only_if: Conditions = [[]] if only_if is None else only_if
        self.errno, self.compat = errno, compat


GROUPS = (
    # --- what every program does ---
    Group(
        "Files by name: permissions, and the mounts of the container, say which.",
        """access chdir chmod chown creat faccessat faccessat2 fchmodat fchmodat2 fchownat futimesat getcwd lchown link
        linkat lstat mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 readlink readlinkat
        rename renameat renameat2 rmdir stat statfs statx symlink symlinkat truncate umask unlink unlinkat utime utimes
        utimensat file_getattr file_setattr""",
    ),
    Group(
        "Files that are open: who opened them was checked then.",
        """close close_range copy_file_range dup dup2 dup3 fadvise64 fallocate fchdir fchmod fchown fcntl fdatasync
        flock fstat fstatfs fsync ftruncate getdents getdents64 lseek pread64 preadv preadv2 pwrite64 pwritev pwritev2
        read readahead readv sendfile splice sync sync_file_range syncfs tee vmsplice write writev cachestat""",
    ),
    Group(
        "Extended attributes: the kernel asks for a capability where the name of one is privileged.",
        """fgetxattr flistxattr fremovexattr fsetxattr getxattr lgetxattr listxattr llistxattr lremovexattr lsetxattr
        removexattr setxattr getxattrat listxattrat removexattrat setxattrat""",
    ),
    Group(
        "Memory of the process itself; how much is the cgroup's and the rlimits' business.",
        """brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mprotect
        mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages""",
    ),
    Group(
        "Starting, ending and waiting for processes; namespaces are dealt with below.",
        """execve execveat exit exit_group fork vfork wait4 waitid pidfd_open pidfd_send_signal process_mrelease
        restart_syscall rseq set_robust_list get_robust_list set_tid_address""",
    ),
    Group(
        "Signals: the pid namespace bounds who can be reached.",
        """kill pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
        rt_sigtimedwait rt_tgsigqueueinfo sigaltstack signalfd signalfd4 tgkill tkill""",
    ),
    Group(
        "Waiting for events, and locks between threads.",
        """epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 fanotify_mark futex
        futex_requeue futex_wait futex_waitv futex_wake inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
        pipe pipe2 poll ppoll pselect6 select""",
    ),
    Group(
        "Asynchronous I/O of the old kind (databases, nginx). io_uring stays out: it makes calls that no filter sees.",
        "io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit",
    ),
    Group(
        "Users and groups: to change them takes CAP_SETUID or CAP_SETGID, which the kernel checks.",
        """getegid geteuid getgid getgroups getresgid getresuid getuid setfsgid setfsuid setgid setgroups setregid
        setresgid setresuid setreuid setuid capget capset""",
    ),
    Group(
        "A process's place: its numbers, group, session, limits, priority and processors.",
        """getcpu getpgid getpgrp getpid getppid getpriority getrlimit getrusage getsid gettid ioprio_get ioprio_set
        prlimit64 sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
        sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler
        sched_yield setpgid setpriority setrlimit setsid times""",
    ),
    Group(
        "Clocks and timers: reading, sleeping, and adjtimex(2), whose writing half the kernel guards.",
        """adjtimex alarm clock_adjtime clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep
        setitimer time timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create
        timerfd_gettime timerfd_settime""",
    ),
    Group("About the machine, to read only.", "getrandom sysinfo uname listmount statmount"),
    Group(
        "System V and POSIX queues, semaphores and shared memory: the ipc namespace divides them.",
        """mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd semctl
        semget semop semtimedop shmat shmctl shmdt shmget""",
    ),
    Group(
        "A process that gives up rights of its own.",
        """landlock_add_rule landlock_create_ruleset landlock_restrict_self lsm_get_self_attr lsm_list_modules prctl
        seccomp""",
    ),
    Group(
        "Debuggers: since Linux 4.8 a tracer cannot go round this filter; it reaches processes of its own user.",
        "process_vm_readv process_vm_writev ptrace",
    ),
    Group(
        "The return paths of the kernel's own probes: refused, a program that the host traces would die.",
        "uprobe uretprobe",
    ),
    # --- allowed for some arguments ---
    Group(
        "Terminals and devices, but never TIOCSTI: it types into the terminal of whoever started the container.",
        "ioctl",
        only_if=anything_but(1, TIOCSTI),
    ),
    Group(
        "Execution domains without side effects: PER_LINUX, PER_LINUX32, both with UNAME26, and the question itself.",
        "personality",
        only_if=one_of(0, 0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF),
    ),
    Group(
        "New processes and threads in the namespaces of their parent.",
        "clone",
        lacks="CAP_SYS_ADMIN",
        not_machines="s390 s390x",
        only_if=none_of_bits(0, NAMESPACES),
    ),
    Group(
        "The same on s390, where the flags are the second argument.",
        "clone",
        lacks="CAP_SYS_ADMIN",
        machines="s390 s390x",
        only_if=none_of_bits(1, NAMESPACES),
    ),
    Group(
        "A thread that stops sharing its directory or its files; not a new namespace.",
        "unshare",
        lacks="CAP_SYS_ADMIN",
        only_if=none_of_bits(0, NAMESPACES | CLONE_NEWTIME),
    ),
    Group(
        "Its flags lie in memory, where no filter can look; told that it does not exist, a libc takes clone(2).",
        "clone3",
        lacks="CAP_SYS_ADMIN",
        errno=ENOSYS,
    ),
    # --- the network ---
    Group(
        "Talking over a socket: which sockets there are is decided when one is made.",
        """accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg
        sendmsg sendto setsockopt shutdown""",
    ),
    Group(
        "The same through a pointer, which would go round the rules below; every libc has the direct calls.",
        "socketcall",
        errno=ENOSYS,
    ),
    Group("Local and internet sockets.", "socket", only_if=one_of(0, UNIX, INET, INET6)),
    Group("Pairs of local sockets; programs use no other pairs.", "socketpair", only_if=one_of(0, UNIX)),
    Group(
        "Looking at addresses, routes, sockets and devices; to change them takes CAP_NET_ADMIN in any case.",
        "socket",
        only_if=netlink(ROUTE, SOCK_DIAG, UEVENT, GENERIC),
    ),
    Group(
        "Raw packets, for those who may send them.",
        "socket",
        needs="CAP_NET_RAW",
        only_if=one_of(0, PACKET),
    ),
    Group(
        "Firewall, IPsec and the rest of the administration of a network namespace.",
        "socket",
        needs="CAP_NET_ADMIN",
        only_if=netlink(NFLOG, XFRM, FIB_LOOKUP, CONNECTOR, NETFILTER) + one_of(0, KEY),
    ),
    Group(
        "Audit records by login programs that may write them.",
        "socket",
        needs="CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_AUDIT_READ",
        only_if=netlink(AUDIT),
    ),
    Group(
        "For the others there is no audit: with this answer login, su and sshd go on, with EPERM they give up.",
        "socket",
        lacks="CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_AUDIT_READ",
        only_if=netlink(AUDIT),
        errno=EPROTONOSUPPORT,
    ),
    # --- what a capability brings ---
    Group(
        "Mounts, namespaces and names of the machine.",
        """clone clone3 fanotify_init fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree
        open_tree_attr pivot_root quotactl quotactl_fd setdomainname sethostname setns umount umount2 unshare""",
        needs="CAP_SYS_ADMIN",
    ),
    Group("Programs in the kernel, which see all of the machine.", "bpf", needs="CAP_SYS_ADMIN CAP_BPF"),
    Group(
        "Performance counters: they measure other processes too.", "perf_event_open", needs="CAP_SYS_ADMIN CAP_PERFMON"
    ),
    Group("The kernel's log: addresses, and what happens to others.", "syslog", needs="CAP_SYS_ADMIN CAP_SYSLOG"),
    Group("Files by handle, past the permissions of directories.", "open_by_handle_at", needs="CAP_DAC_READ_SEARCH"),
    Group("A new root directory, below the one that there is.", "chroot", needs="CAP_SYS_CHROOT"),
    Group("In a pid namespace it ends the namespace's init.", "reboot", needs="CAP_SYS_BOOT"),
    Group(
        "Kernel modules: the machine has one set of them.",
        "delete_module finit_module init_module",
        needs="CAP_SYS_MODULE",
    ),
    Group("Process accounting: one file for the whole pid namespace.", "acct", needs="CAP_SYS_PACCT"),
    Group(
        "Inside other processes: their memory, descriptors and page faults.",
        "kcmp pidfd_getfd process_madvise userfaultfd",
        needs="CAP_SYS_PTRACE",
    ),
    Group("The I/O ports of the machine.", "ioperm iopl", needs="CAP_SYS_RAWIO"),
    Group("Setting the clock of the machine.", "clock_settime settimeofday stime", needs="CAP_SYS_TIME"),
    Group("Hanging up the terminal of a session.", "vhangup", needs="CAP_SYS_TTY_CONFIG"),
    Group(
        "Which memory node holds what: all of it or none, since libnuma asks first and expects then to be obeyed.",
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
        needs="CAP_SYS_NICE",
    ),
    # --- architectures ---
    Group("Thread pointers and processor features of x86.", "arch_prctl"),
    Group(
        "Thread pointers, caches and argument orders of other architectures.",
        """arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush riscv_flush_icache riscv_hwprobe
        s390_guarded_storage s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr s390_sthyi set_tls swapcontext
        sync_file_range2""",
    ),
    Group(
        "The names that 32-bit architectures give to the calls above, for their wider offsets, numbers and times.",
        """_llseek _newselect chown32 fadvise64_64 fchown32 fcntl64 fstat64 fstatat64 fstatfs64 ftruncate64 getegid32
        geteuid32 getgid32 getgroups32 getresgid32 getresuid32 getuid32 lchown32 lstat64 mmap2 sendfile64 setfsgid32
        setfsuid32 setgid32 setgroups32 setregid32 setresgid32 setresuid32 setreuid32 setuid32 stat64 statfs64
        truncate64 clock_adjtime64 clock_getres_time64 clock_gettime64 clock_nanosleep_time64 futex_time64
        io_pgetevents_time64 mq_timedreceive_time64 mq_timedsend_time64 ppoll_time64 pselect6_time64 recvmmsg_time64
        rt_sigtimedwait_time64 sched_rr_get_interval_time64 semtimedop_time64 timer_gettime64 timer_settime64
        timerfd_gettime64 timerfd_settime64 utimensat_time64 ipc recv send sigaction sigpending sigprocmask sigreturn
        sigsuspend ugetrlimit waitpid""",
    ),
    Group("Setting the clock, by its 32-bit name.", "clock_settime64", needs="CAP_SYS_TIME"),
    Group("Segments of 32-bit x86 programs.", "get_thread_area modify_ldt set_thread_area", compat=True),
)
