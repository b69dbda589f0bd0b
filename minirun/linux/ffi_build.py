"""Builds ``minirun.linux._shim``: the functions of csrc/shim.c, csrc/message.c and csrc/spawn.c, in cffi's API mode.

API mode compiles the calls at build time: no parsing of C at start-up, 1 ms to import, and the C compiler checks every
declaration below against csrc/shim.h.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

CSRC = Path(__file__).resolve().parents[2] / "csrc"

DECLARATIONS = """
    struct mr_message { int32_t type, a, b, c; };
    struct mr_spawn {
        uint64_t namespaces;
        int cgroup, target, init, ops, stdio[3], keep;
        int pidfd, control;
    };
    int mr_spawn(struct mr_spawn *spawn);
    int mr_open_process(const char *name);
    int mr_sealed_copy(const char *path);
    int mr_send(int sock, int type, int a, int b, const int *fds, int fd_count);
    int mr_receive(int sock, struct mr_message *message, int *fds, int *fd_count);

    int mr_netns_create(const char *path, const char *sysctls, size_t size);
    int mr_netns_write(int netns, const char *sysctls, size_t size);
    int mr_netlink_socket(int protocol, int netns);
    int mr_xtables(int ipv6, int option, void *buffer, unsigned *size);
    int mr_open_inside(int root, const char *path, int flags, int mode, int resolve);
    int mr_is_mount_root(const char *path);
    int mr_unmount(const char *path);
    int mr_remove_tree(int directory, const char *name);
    int mr_run_detached(char *const argv[], char *const envp[], int keep_stdio);
    int mr_socketpair(int pair[2]);
    int mr_lock(const char *path, int create, int wait);
    int mr_dead_locks(const char *directory, char *names, size_t size);
    int mr_pidfd_open(int pid);
    int mr_watch_file(const char *path);
    int mr_inotify(void);
    int mr_watch_directory(int inotify, const char *path);
    int mr_is_held(const char *path);
    int mr_become(unsigned id);
    int mr_device_filter(const char *cgroup, const void *instructions, size_t size, int replace);
    int mr_terminal_size(int fd, int *rows, int *columns);
    int mr_terminal_settings(int fd, char *settings, size_t size);
    int mr_follow(int control, int terminal, const char *settings, int *status, int *oom);
"""

ffibuilder = FFI()
ffibuilder.cdef(DECLARATIONS)
ffibuilder.set_source(
    "minirun.linux._shim",
    '#include "shim.h"',
    sources=["csrc/shim.c", "csrc/message.c", "csrc/spawn.c"],
    depends=["csrc/shim.h", "csrc/minirun.h"],
    include_dirs=["csrc"],
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Werror", "-std=gnu11"],
)
