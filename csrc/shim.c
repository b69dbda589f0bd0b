/* What Python cannot call by itself: netns, netlink sockets in another netns, sealed copies, spawning and attaching.
 *
 * Each function does one thing, takes numbers and strings, and returns -1 with errno. None keeps state. */
#define _GNU_SOURCE
#include "shim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/bpf.h>
#include <linux/netlink.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* Runs `work` with this process in the network namespace `target` (or a new one if -1), and comes back. The caller
 * is the only thread; only the network namespace changes, so no file is looked up inside a container. */
static int in_netns(int target, int (*work)(void *), void *argument)
{
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (home < 0)
		return -1;
	int result = target < 0 ? unshare(CLONE_NEWNET) : setns(target, CLONE_NEWNET);
	if (result == 0) {
		result = work(argument);
		int error = errno;
		if (setns(home, CLONE_NEWNET) < 0)
			_exit(125); /* to go on in the wrong namespace would be worse than anything */
		errno = error;
	}
	int error = errno;
	close(home);
	errno = error;
	return result;
}

struct new_netns {
	const char *path; /* NULL: the namespace is there already */
	const char *sysctls;
	size_t size;
};

static int write_file(int directory, const char *path, const char *text)
{
	int fd = openat(directory, path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t n = write(fd, text, strlen(text));
	int error = errno;
	close(fd);
	errno = error;
	return n < 0 ? -1 : 0;
}

/* A procfs of our own, mounted nowhere. In that of the machine, /proc/sys/net/ipv4 is another directory in each network
 * namespace, and to find a new one's the kernel looks at those of all others first: milliseconds where there are a
 * thousand. Where another procfs is not to be had, that one has to do. */
static int own_proc(void)
{
	int fs = (int)syscall(SYS_fsopen, "proc", 1 /* FSOPEN_CLOEXEC */), proc = -1;
	if (fs >= 0 && syscall(SYS_fsconfig, fs, 6 /* FSCONFIG_CMD_CREATE */, NULL, NULL, 0) == 0)
		proc = (int)syscall(SYS_fsmount, fs, 1 /* FSMOUNT_CLOEXEC */, 0);
	if (fs >= 0)
		close(fs);
	return proc >= 0 ? proc : open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static int write_sysctls(int proc, const struct new_netns *new)
{
	static const char prefix[] = "/proc/";
	for (const char *at = new->sysctls; at < new->sysctls + new->size;) {
		const char *value = at + strlen(at) + 1;
		const char *file = strncmp(at, prefix, strlen(prefix)) ? at : at + strlen(prefix);
		/* A kernel built without IPv6 lacks its files, and needs no switching off. */
		if (write_file(proc, file, value) < 0 && !(new->path &&errno == ENOENT))
			return -1;
		at = value + strlen(value) + 1;
	}
	return 0;
}

static int set_up_netns(void *argument)
{
	struct new_netns *new = argument;
	int proc = own_proc(), result = proc < 0 ? -1 : write_sysctls(proc, new), error = errno;
	if (proc >= 0)
		close(proc);
	errno = error;
	if (result < 0)
		return -1;
	return new->path ? mount("/proc/self/ns/net", new->path, NULL, MS_BIND, NULL) : 0;
}

/* Makes a network namespace that lives as the file `path`, as `ip netns add` does. `sysctls` is a list of
 * NUL-terminated pairs (file under /proc/sys, value) of `size` bytes, written inside before anyone else can enter. */
int mr_netns_create(const char *path, const char *sysctls, size_t size)
{
	int fd = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
	if (fd < 0)
		return -1;
	close(fd);
	struct new_netns new = {path, sysctls, size};
	if (in_netns(-1, set_up_netns, &new) == 0)
		return 0;
	int error = errno;
	unlink(path);
	errno = error;
	return -1;
}

static int open_netlink(void *protocol)
{
	return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, *(int *)protocol);
}

/* A netlink socket of `protocol` (NETLINK_ROUTE ...) in the network namespace of the descriptor `netns`, or in ours
 * if -1. It stays in that namespace. Errors carry the kernel's text (NETLINK_EXT_ACK). */
int mr_netlink_socket(int protocol, int netns)
{
	int one = 1;
	int fd = netns < 0 ? open_netlink(&protocol) : in_netns(netns, open_netlink, &protocol);
	if (fd >= 0)
		setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof one);
	return fd;
}

/* Writes files of /proc/sys/net in the network namespace `netns`; the pairs are as in mr_netns_create. */
int mr_netns_write(int netns, const char *sysctls, size_t size)
{
	struct new_netns pairs = {NULL, sysctls, size};
	return in_netns(netns, set_up_netns, &pairs);
}

/* getsockopt(2) with a question in `buffer`: IPT_SO_GET_INFO (64), IPT_SO_GET_ENTRIES (65) of linux/netfilter_ipv4/
 * ip_tables.h, which are the same numbers in IPv6. That is how iptables-legacy reads its rules. */
int mr_xtables(int ipv6, int option, void *buffer, unsigned *size)
{
	int fd = socket(ipv6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	if (fd < 0)
		return -1;
	int result = getsockopt(fd, ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, option, buffer, size);
	int error = errno;
	close(fd);
	errno = error;
	return result;
}

/* openat2(2): `resolve` is RESOLVE_IN_ROOT (0x10), RESOLVE_NO_SYMLINKS (4) ... */
int mr_open_inside(int root, const char *path, int flags, int mode, int resolve)
{
	struct open_how how = {
	    .flags = (unsigned)(flags | O_CLOEXEC), .mode = (unsigned)mode, .resolve = (unsigned)resolve};
	for (int tries = 0;; tries++) { /* EAGAIN: a rename raced with the look-up, which is safe to repeat */
		int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
		if (fd >= 0 || errno != EAGAIN || tries == 128)
			return fd;
	}
}

/* Whether something is mounted at this very path. The attributes are the second of the 32 words of a struct statx, which
 * not every libc has. */
int mr_is_mount_root(const char *path)
{
	uint64_t found[32] = {0}, mount_root = 0x2000; /* STATX_ATTR_MOUNT_ROOT, Linux 5.8 */
	if (syscall(SYS_statx, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, 0, found) < 0)
		return -1;
	return (found[1] & mount_root) != 0;
}

/* umount2(2) with MNT_DETACH, never through a symbolic link. */
int mr_unmount(const char *path)
{
	return umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
}

/* Levels of a tree that are emptied where they are, each with a descriptor and a buffer on the stack. What lies deeper
 * is moved up first, so that neither of them grows with the depth of a tree. */
#define DEEPEST 8

struct removal {
	int top; /* where to it is moved, under a new name */
	unsigned long moved;
};

static int remove_directory(struct removal *r, int parent, const char *name, int depth);

static int move_to_top(struct removal *r, int directory, const char *name)
{
	char free_name[32];
	int result;
	do {
		snprintf(free_name, sizeof free_name, ".removed-%lu", r->moved++);
		result = renameat(directory, name, r->top, free_name);
	} while (result < 0 && (errno == ENOTEMPTY || errno == ENOTDIR));
	return result;
}

static int remove_entry(struct removal *r, int directory, const char *name, int type, int depth)
{
	if (type != DT_DIR && unlinkat(directory, name, 0) == 0)
		return 0;
	if (depth < DEEPEST)
		return remove_directory(r, directory, name, depth + 1);
	if (unlinkat(directory, name, AT_REMOVEDIR) == 0 || errno == ENOENT ||
	    (errno == ENOTDIR && unlinkat(directory, name, 0) == 0))
		return 0;
	return errno == ENOTEMPTY ? move_to_top(r, directory, name) : -1;
}

/* Reads the directory `fd` once and removes what it finds there. By getdents64(2): opendir(3) and its kin make three
 * more calls for each directory. */
static int remove_entries(struct removal *r, int fd, int depth)
{
	union {
		char bytes[8192];
		uint64_t align;
	} buffer;
	long size = syscall(SYS_getdents64, fd, buffer.bytes, sizeof buffer.bytes);
	for (long at = 0; at < size;) { /* struct linux_dirent64: inode, offset, length (u16), type (u8), name */
		char *entry = buffer.bytes + at, *name = entry + 19;
		uint16_t length;
		memcpy(&length, entry + 16, sizeof length);
		at += length;
		if (strcmp(name, ".") && strcmp(name, "..") && remove_entry(r, fd, name, entry[18], depth) < 0)
			return -1;
	}
	return size < 0 ? -1 : 0;
}

static int remove_directory(struct removal *r, int parent, const char *name, int depth)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && (errno == ENOTDIR || errno == ELOOP))
		return unlinkat(parent, name, 0) < 0 && errno != ENOENT ? -1 : 0;
	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	if (depth == 0)
		r->top = fd;
	int result = remove_entries(r, fd, depth);
	/* Not empty: it held more than one reading shows, or something was moved up into it. */
	while (result == 0 && unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		result = errno != ENOTEMPTY || lseek(fd, 0, SEEK_SET) < 0 ? -1 : remove_entries(r, fd, depth);
	int error = errno;
	close(fd);
	errno = error;
	return result;
}

/* Removes `name` (below the open `directory`, or AT_FDCWD) and all in it, never through a link; missing is fine. */
int mr_remove_tree(int directory, const char *name)
{
	struct removal r = {.top = -1};
	return remove_directory(&r, directory, name, 0);
}

/* Starts a program that outlives us; its pid. Standard streams are ours with `keep_stdio`, else /dev/null, and no
 * signal of our terminal reaches it. vfork, since posix_spawn resets 64 signals one by one, and fork would copy
 * Python's page tables. */
int mr_run_detached(char *const argv[], char *const envp[], int keep_stdio)
{
	volatile int failure = 0;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	pid_t pid = vfork();
	if (pid == 0) {
		for (int i = 0; !keep_stdio && i < 3; i++)
			dup2(null, i);
		if (!keep_stdio)
			setsid();
		execve(argv[0], argv, envp);
		failure = errno;
		_exit(127);
	}
	close(null);
	if (pid > 0 && failure) {
		waitpid(pid, NULL, 0);
		errno = failure;
		return -1;
	}
	return pid;
}

/* A connected pair of SOCK_SEQPACKET sockets, close-on-exec. */
int mr_socketpair(int pair[2])
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
}

/* A new lock file that is held before it has a name, so that nobody finds it free. EEXIST if the name is taken. */
static int new_lock(const char *path)
{
	char folder[PATH_MAX], nameless[32];
	const char *slash = strrchr(path, '/');
	snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
	int fd = open(folder, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	if (fd < 0)
		return -1;
	snprintf(nameless, sizeof nameless, "/proc/self/fd/%d", fd);
	if (flock(fd, LOCK_EX) == 0 && linkat(AT_FDCWD, nameless, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0)
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

/* An open lock file, held exclusively (flock(2)): until its last copy, in whatever process, is closed. With `create`
 * the file must be new. Without `wait`, EWOULDBLOCK if another holds it. The file may have been removed by a former
 * holder while we waited: then it is no longer the lock, and ENOENT says so. */
int mr_lock(const char *path, int create, int wait)
{
	struct stat st;
	if (create)
		return new_lock(path);
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -1;
	int result;
	do
		result = flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB));
	while (result < 0 && errno == EINTR);
	if (result == 0 && fstat(fd, &st) == 0 && st.st_nlink > 0)
		return fd;
	int error = result < 0 ? errno : ENOENT;
	close(fd);
	errno = error;
	return -1;
}

/* So many lock files are tried one by one: for a few, that is quicker than to ask who holds any. */
#define FEW_LOCKS 16

static int by_number(const void *a, const void *b)
{
	ino_t left = *(const ino_t *)a, right = *(const ino_t *)b;
	return left < right ? -1 : left > right;
}

/* One line of /proc/locks, "7: FLOCK  ADVISORY  WRITE 4711 00:1f:43 0 EOF": the inode, 0 if it is another kind of lock. */
static ino_t locked_inode(const char *line, dev_t device)
{
	char *at = strstr(line, " FLOCK ");
	if (!at || !(at = strstr(at, " WRITE ")))
		return 0;
	strtol(at + strlen(" WRITE "), &at, 10); /* who took it: not always who holds it now */
	unsigned long higher = strtoul(at, &at, 16), lower = *at == ':' ? strtoul(at + 1, &at, 16) : 0;
	return *at == ':' && makedev(higher, lower) == device ? strtoull(at + 1, NULL, 10) : 0;
}

/* The inodes of that device which are locked exclusively, in order, as far as /proc/locks tells: in a PID namespace it
 * does not tell of locks whose taker is outside or dead. */
static size_t locked_inodes(dev_t device, ino_t *inodes, size_t room)
{
	size_t count = 0;
	char line[256];
	FILE *locks = fopen("/proc/locks", "re");
	while (locks && count < room && fgets(line, sizeof line, locks))
		if ((inodes[count] = locked_inode(line, device)))
			count++;
	if (locks)
		fclose(locks);
	qsort(inodes, count, sizeof *inodes, by_number);
	return count;
}

static bool is_free(int directory, const char *name)
{
	int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	bool taken = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) == 0;
	if (fd >= 0)
		close(fd);
	return taken;
}

/* The names of the lock files in `directory` that nobody holds, NUL-terminated, into `names`. Returns their number. Of a
 * thousand that live one question tells; only what it does not tell of is tried, by three calls each. */
int mr_dead_locks(const char *directory, char *names, size_t size)
{
	static ino_t locked[4096];
	size_t used = 0, files = 0, known = 0;
	int count = 0;
	struct stat st;
	DIR *listing = opendir(directory);
	if (!listing)
		return errno == ENOENT ? 0 : -1;
	for (struct dirent *entry; (entry = readdir(listing));) {
		size_t length = strlen(entry->d_name) + 1;
		if (files++ == FEW_LOCKS && fstat(dirfd(listing), &st) == 0)
			known = locked_inodes(st.st_dev, locked, sizeof locked / sizeof *locked);
		if (entry->d_name[0] == '.' || used + length > size ||
		    bsearch(&entry->d_ino, locked, known, sizeof *locked, by_number) ||
		    !is_free(dirfd(listing), entry->d_name))
			continue;
		memcpy(names + used, entry->d_name, length);
		used += length;
		count++;
	}
	closedir(listing);
	return count;
}

int mr_pidfd_open(int pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* An inotify(7) descriptor that becomes readable when the file is written to or renamed. */
int mr_watch_file(const char *path)
{
	int fd = inotify_init1(IN_CLOEXEC);
	if (fd >= 0 && inotify_add_watch(fd, path, IN_MODIFY | IN_MOVE_SELF) < 0) {
		int error = errno;
		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

/* An inotify(7) descriptor that never blocks. */
int mr_inotify(void)
{
	return inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
}

/* Watch a directory for names that come, go or have been written; the number of the watch. */
int mr_watch_directory(int inotify, const char *path)
{
	const uint32_t names = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CLOSE_WRITE;
	return inotify_add_watch(inotify, path, names | IN_DELETE_SELF | IN_ONLYDIR);
}

/* Whether somebody holds the lock file exclusively. Asked by a shared lock, so that two who ask never take each other
 * for a holder. */
int mr_is_held(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -1;
	int result = flock(fd, LOCK_SH | LOCK_NB), error = errno;
	close(fd);
	errno = error;
	return result == 0 ? 0 : error == EWOULDBLOCK ? 1 : -1;
}

/* Become the user `id` for good: no capability is left, nothing that is executed gives any, nobody traces us. */
int mr_become(unsigned id)
{
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (setgroups(0, NULL) < 0 || setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0)
		return -1;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ? -1 : 0;
}

static int bpf(int command, union bpf_attr *attributes)
{
	return (int)syscall(SYS_bpf, command, attributes, sizeof *attributes);
}

/* The ids of the device filters that a cgroup has; how many, or 0 where that cannot be asked. */
static unsigned attached_filters(int cgroup, uint32_t *ids, unsigned room)
{
	union bpf_attr query;
	memset(&query, 0, sizeof query);
	query.query.target_fd = (unsigned)cgroup;
	query.query.attach_type = BPF_CGROUP_DEVICE;
	query.query.prog_ids = (uintptr_t)ids;
	query.query.prog_cnt = room;
	return bpf(BPF_PROG_QUERY, &query) < 0 ? 0 : query.query.prog_cnt;
}

static int detach_filter(int cgroup, uint32_t id)
{
	union bpf_attr get, detach;
	memset(&get, 0, sizeof get);
	get.prog_id = id;
	int program = bpf(BPF_PROG_GET_FD_BY_ID, &get);
	if (program < 0)
		return -1;
	memset(&detach, 0, sizeof detach);
	detach.target_fd = (unsigned)cgroup;
	detach.attach_bpf_fd = (unsigned)program;
	detach.attach_type = BPF_CGROUP_DEVICE;
	int result = bpf(BPF_PROG_DETACH, &detach), error = errno;
	close(program);
	errno = error;
	return result;
}

/* Loads the eBPF program of `size` bytes as a device filter (bpf(2)) and attaches it to the cgroup v2 directory. It needs
 * no descriptor to live on: it goes with the cgroup. ALLOW_MULTI, as systemd and other runtimes have it: then those of
 * the cgroups above go on being asked, and one below can add its own. With `replace` those that the cgroup had itself
 * are detached, after: so there is no moment without one. */
int mr_device_filter(const char *cgroup, const void *instructions, size_t size, int replace)
{
	union bpf_attr load, attach; /* the kernel refuses what is not zero behind the members that it reads */
	uint32_t old[64];            /* a cgroup can have no more (BPF_CGROUP_MAX_PROGS) */
	memset(&load, 0, sizeof load);
	load.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
	load.insns = (uintptr_t)instructions;
	load.insn_cnt = (unsigned)(size / sizeof(struct bpf_insn));
	load.license = (uintptr_t) "MIT"; /* it calls none of the functions that are for the GPL only */
	strcpy(load.prog_name, "minirun_devices");
	int directory = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0)
		return -1;
	unsigned count = replace ? attached_filters(directory, old, 64) : 0;
	int result = -1, program = bpf(BPF_PROG_LOAD, &load);
	if (program >= 0) {
		memset(&attach, 0, sizeof attach);
		attach.target_fd = (unsigned)directory;
		attach.attach_bpf_fd = (unsigned)program;
		attach.attach_type = BPF_CGROUP_DEVICE;
		attach.attach_flags = BPF_F_ALLOW_MULTI;
		result = bpf(BPF_PROG_ATTACH, &attach);
		for (unsigned i = 0; result == 0 && i < count; i++)
			result = detach_filter(directory, old[i]);
	}
	int error = errno;
	if (program >= 0)
		close(program);
	close(directory);
	errno = error;
	return result;
}

int mr_terminal_size(int fd, int *rows, int *columns)
{
	struct winsize size;
	if (ioctl(fd, TIOCGWINSZ, &size) < 0)
		return -1;
	*rows = size.ws_row;
	*columns = size.ws_col;
	return 0;
}

static void tell_size(int control, int terminal)
{
	int rows, columns;
	if (mr_terminal_size(terminal, &rows, &columns) == 0)
		mr_send(control, MR_WINSIZE, rows, columns, NULL, 0);
}

/* The settings of a terminal (struct termios), to be restored from; their size, or -1. */
int mr_terminal_settings(int fd, char *settings, size_t size)
{
	struct termios now;
	if (size < sizeof now || tcgetattr(fd, &now) < 0)
		return -1;
	memcpy(settings, &now, sizeof now);
	return sizeof now;
}

/* Follows a container through its monitor until it ends, and passes signals, which the caller has blocked already, and
 * the size of a `terminal` (else -1) on. The monitor has made the terminal raw and makes it whole again; should it
 * have died, we do that, from `settings`. Returns 1 and the wait status, 0 if the monitor closed first, -1 with errno. */
int mr_follow(int control, int terminal, const char *settings, int *status, int *oom)
{
	static const int passed[] = {SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH};
	struct mr_message message = {0};
	int result;
	sigset_t set;
	sigemptyset(&set);
	for (size_t i = 0; i < sizeof passed / sizeof *passed; i++)
		sigaddset(&set, passed[i]);
	int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	struct pollfd polled[2] = {{.fd = control, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
	for (;;) {
		struct signalfd_siginfo info;
		result = poll(polled, 2, -1);
		if (result < 0 && errno == EINTR)
			continue;
		if (result < 0)
			break;
		if (polled[1].revents && read(signals, &info, sizeof info) == sizeof info) {
			if (info.ssi_signo == SIGWINCH && terminal >= 0)
				tell_size(control, terminal);
			else if (info.ssi_signo != SIGWINCH)
				mr_send(control, MR_SIGNAL, (int)info.ssi_signo, 0, NULL, 0);
		}
		if (!polled[0].revents)
			continue;
		result = mr_receive(control, &message, NULL, NULL);
		if (result <= 0 || message.type == MR_EXITED)
			break;
	}
	int error = errno;
	if (terminal >= 0 && result <= 0) {
		struct termios saved;
		memcpy(&saved, settings, sizeof saved);
		tcsetattr(terminal, TCSANOW, &saved);
	}
	close(signals);
	*status = message.a;
	*oom = message.b;
	errno = error;
	return result;
}
