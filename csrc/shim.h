/* What Python calls; each returns -1 with errno on failure. The same declarations stand in minirun/linux/ffi_build.py. */
#ifndef MINIRUN_SHIM_H
#define MINIRUN_SHIM_H

#include "minirun.h"

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

#endif
