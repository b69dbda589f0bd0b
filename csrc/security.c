/* The ops that make the process: its terminal, limits, identity, and what it may never do again. */
#define _GNU_SOURCE
#include "minirun.h"
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

/* sysctl FILE VALUE: FILE below /proc/sys as the container sees it; on procfs and nowhere else */
static int op_sysctl(struct container *c, char **word)
{
	char path[PATH_MAX];
	struct statfs fs;
	if ((size_t)snprintf(path, sizeof path, "proc/sys/%s", word[0]) >= sizeof path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	int fd = open_inside(c, path, O_WRONLY, REAL_DIRECTORY);
	if (fd >= 0 && (fstatfs(fd, &fs) < 0 || fs.f_type != PROC_SUPER_MAGIC)) {
		close(fd);
		errno = EXDEV;
		return -1;
	}
	return write_text(fd, word[1]);
}

/* --- session and terminal --- */

/* session: of which the terminal of "console" becomes the controlling one */
static int op_session(struct container *c, char **word)
{
	(void)word;
	return setsid() < 0 || (c->terminal && ioctl(0, TIOCSCTTY, 0) < 0) ? -1 : 0;
}

/* console UID: a pty of the container's own devpts becomes stdin, stdout and stderr; its master goes to the spawner. The
 * other end comes from the master (TIOCGPTPEER), never from a path. */
static int op_console(struct container *c, char **word)
{
	struct statfs fs;
	int unlock = 0;
	int master = open_inside(c, "dev/pts/ptmx", O_RDWR | O_NOCTTY, REAL_DIRECTORY);
	if (master < 0)
		return -1;
	if (fstatfs(master, &fs) < 0 || fs.f_type != DEVPTS_SUPER_MAGIC) {
		errno = ENODEV;
		return -1;
	}
	if (ioctl(master, TIOCSPTLCK, &unlock) < 0)
		return -1;
	int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0 || mr_send(c->control, MR_CONSOLE, 0, 0, &master, 1) < 0)
		return -1;
	close(master);
	for (int i = 0; i < 3; i++)
		if (dup2(slave, i) < 0)
			return -1;
	close(slave);
	c->terminal = true;
	return fchown(0, (uid_t)strtoul(word[0], NULL, 10), (gid_t)-1);
}

/* console-device: the terminal is also /dev/console, as programs that log there expect */
static int op_console_device(struct container *c, char **word)
{
	(void)word;
	int parent = open_inside(c, "dev", O_PATH | O_DIRECTORY, REAL_DIRECTORY);
	if (parent < 0)
		return -1;
	int file = openat(parent, "console", O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	if (file >= 0)
		close(file);
	int target = openat(parent, "console", O_PATH | O_NOFOLLOW | O_CLOEXEC);
	int tree = (int)syscall(SYS_open_tree, 0, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	int result = tree < 0 || target < 0 ? -1 : attach_mount(tree, target);
	return closed(parent, closed(target, closed(tree, result)));
}

/* window ROWS COLUMNS: the size of the terminal that is there now */
static int op_window(struct container *c, char **word)
{
	(void)c;
	struct winsize size = {.ws_row = (unsigned short)atoi(word[0]), .ws_col = (unsigned short)atoi(word[1])};
	return ioctl(0, TIOCSWINSZ, &size);
}

/* own-stdio UID: pipes made for the program belong to its user, so that it can open /dev/stdout again. In a user
 * namespace they may belong to somebody who has no name there: then they stay as they are. */
static int op_own_stdio(struct container *c, char **word)
{
	(void)c;
	struct stat st;
	for (int fd = 0; fd < 3; fd++)
		if (fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode) &&
		    fchown(fd, (uid_t)strtoul(word[0], NULL, 10), (gid_t)-1) < 0 && errno != EPERM && errno != EINVAL)
			return -1;
	return 0;
}

/* --- limits --- */

/* rlimit NUMBER SOFT HARD: a hard limit above ours, which only CAP_SYS_RESOURCE may set, becomes ours */
static int op_rlimit(struct container *c, char **word)
{
	(void)c;
	struct rlimit now, limit = {strtoull(word[1], NULL, 10), strtoull(word[2], NULL, 10)};
	int number = atoi(word[0]);
	if (setrlimit(number, &limit) == 0)
		return 0;
	if (errno != EPERM || getrlimit(number, &now) < 0)
		return -1;
	limit.rlim_max = now.rlim_max;
	if (limit.rlim_cur > limit.rlim_max)
		limit.rlim_cur = limit.rlim_max;
	return setrlimit(number, &limit);
}

/* scheduler POLICY NICE PRIORITY FLAGS RUNTIME DEADLINE PERIOD: sched_setattr(2), times in nanoseconds */
static int op_scheduler(struct container *c, char **word)
{
	(void)c;
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} attr = {.size = sizeof attr,
		  .policy = (uint32_t)strtoul(word[0], NULL, 10),
		  .nice = atoi(word[1]),
		  .priority = (uint32_t)strtoul(word[2], NULL, 10),
		  .flags = strtoull(word[3], NULL, 16),
		  .runtime = strtoull(word[4], NULL, 10),
		  .deadline = strtoull(word[5], NULL, 10),
		  .period = strtoull(word[6], NULL, 10)};
	return (int)syscall(SYS_sched_setattr, 0, &attr, 0);
}

/* io-priority CLASS PRIORITY: ioprio_set(2) */
static int op_io_priority(struct container *c, char **word)
{
	(void)c;
	return (int)syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, atoi(word[0]) << 13 | atoi(word[1]));
}

/* Sets the bits of "0,2,3" in a mask of `size` bits, which is all zero. */
static int parse_bits(const char *text, unsigned long *mask, size_t size)
{
	char *end;
	for (const char *at = text; *at; at = *end ? end + 1 : end) {
		unsigned long number = strtoul(at, &end, 10);
		if (number >= size || end == at || (*end && *end != ',')) {
			errno = EINVAL;
			return -1;
		}
		mask[number / (8 * sizeof *mask)] |= 1UL << number % (8 * sizeof *mask);
	}
	return 0;
}

/* affinity CPUS: numbers with commas between them, or "all" that the cgroup has */
static int op_affinity(struct container *c, char **word)
{
	(void)c;
	unsigned long set[64] = {0};
	if (!strcmp(word[0], "all"))
		memset(set, 0xff, sizeof set);
	else if (parse_bits(word[0], set, 8 * sizeof set) < 0)
		return -1;
	return syscall(SYS_sched_setaffinity, 0, sizeof set, set) < 0 ? -1 : 0;
}

/* memory-policy MODE NODES: set_mempolicy(2), MODE hexadecimal with its flags */
static int op_memory_policy(struct container *c, char **word)
{
	(void)c;
	unsigned long set[16] = {0};
	if (parse_bits(word[1], set, 8 * sizeof set) < 0)
		return -1;
	return (int)syscall(SYS_set_mempolicy, strtoul(word[0], NULL, 16), *word[1] ? set : NULL, 8 * sizeof set);
}

static int op_personality(struct container *c, char **word)
{
	(void)c;
	return personality(strtoul(word[0], NULL, 16)) < 0 ? -1 : 0;
}

/* --- identity --- */

/* undumpable: from now on no process of the container may ptrace this one or follow its /proc links (CVE-2016-9962) */
static int op_undumpable(struct container *c, char **word)
{
	(void)c, (void)word;
	return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* dumpable: the opposite, for one that is alone in a new user namespace and must write files of its own in procfs */
static int op_dumpable(struct container *c, char **word)
{
	(void)c, (void)word;
	return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

/* die-with-parent: after "user" and "caps", since a change of credentials clears it */
static int op_die_with_parent(struct container *c, char **word)
{
	(void)c, (void)word;
	return prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0);
}

/* keyring NAME: a session keyring of its own; a kernel without keyrings has none to protect */
static int op_keyring(struct container *c, char **word)
{
	(void)c;
	long result = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, word[0], 0, 0, 0);
	return result < 0 && errno != ENOSYS && errno != EDQUOT ? -1 : 0;
}

/* bound MASK: capabilities outside the hexadecimal mask can never be gained again */
static int op_bound(struct container *c, char **word)
{
	(void)c;
	unsigned long long mask = strtoull(word[0], NULL, 16);
	for (int capability = 0; capability < 64; capability++)
		if (!(mask >> capability & 1) && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
			return errno == EINVAL ? 0 : -1; /* past the last one that this kernel knows */
	return 0;
}

/* user UID GID GROUPS: GROUPS is "-" or "10,20"; exactly these, none of ours (CVE-2022-36109). "keep" is for a user
 * namespace in which nobody may change them (user_namespaces(7), /proc/PID/setgroups). */
static int op_user(struct container *c, char **word)
{
	(void)c;
	gid_t groups[1024];
	size_t count = 0;
	bool keep = !strcmp(word[2], "keep");
	for (char *at = word[2]; !keep && *at && *at != '-'; at += *at == ',') {
		if (count == sizeof groups / sizeof *groups) {
			errno = E2BIG;
			return -1;
		}
		groups[count++] = (gid_t)strtoul(at, &at, 10);
	}
	uid_t uid = (uid_t)strtoul(word[0], NULL, 10);
	gid_t gid = (gid_t)strtoul(word[1], NULL, 10);
	/* The permitted set survives the change of user; "caps" then cuts it to what is meant. */
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || (!keep && syscall(SYS_setgroups, count, groups) < 0))
		return -1;
	return syscall(SYS_setresgid, gid, gid, gid) < 0 ? -1 : (int)syscall(SYS_setresuid, uid, uid, uid);
}

/* caps EFFECTIVE PERMITTED INHERITABLE AMBIENT: hexadecimal masks */
static int op_caps(struct container *c, char **word)
{
	(void)c;
	unsigned long long set[4];
	for (int i = 0; i < 4; i++)
		set[i] = strtoull(word[i], NULL, 16);
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	for (int half = 0; half < 2; half++) {
		data[half].effective = (uint32_t)(set[0] >> (32 * half));
		data[half].permitted = (uint32_t)(set[1] >> (32 * half));
		data[half].inheritable = (uint32_t)(set[2] >> (32 * half));
	}
	if (syscall(SYS_capset, &header, data) < 0 || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return -1;
	for (unsigned long capability = 0; capability < 64; capability++)
		if (set[3] >> capability & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) < 0)
			return -1;
	return 0;
}

static int op_no_new_privs(struct container *c, char **word)
{
	(void)c, (void)word;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static struct sock_fprog filter;

/* filter FILE: reads the BPF program of "seccomp" while the host's files are still there */
static int op_filter(struct container *c, char **word)
{
	(void)c;
	struct stat st;
	int fd = open_host(word[0], O_RDONLY | O_NONBLOCK | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -1;
	size_t size = (size_t)st.st_size;
	if (!S_ISREG(st.st_mode) || size == 0 || size % sizeof *filter.filter ||
	    size > BPF_MAXINSNS * sizeof *filter.filter) {
		errno = EINVAL;
		return -1;
	}
	filter.len = (unsigned short)(size / sizeof *filter.filter);
	filter.filter = malloc(size);
	ssize_t n = filter.filter ? read(fd, filter.filter, size) : -1;
	close(fd);
	return n == st.st_size ? 0 : -1;
}

/* seccomp FLAGS: hexadecimal SECCOMP_FILTER_FLAG_*; the last op but those that the filter would forbid. A listener
 * (SECCOMP_FILTER_FLAG_NEW_LISTENER) goes to the spawner, which hands it on to whoever answers the notifications. */
static int op_seccomp(struct container *c, char **word)
{
	if (promise_descriptors(c) < 0)
		return -1;
	int fd = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, strtoul(word[0], NULL, 16), &filter);
	if (fd <= 0)
		return fd;
	return mr_send(c->control, MR_LISTENER, 0, 0, &fd, 1) < 0 ? -1 : close(fd);
}

/* --- the program --- */

/* env NAME=VALUE */
static int op_env(struct container *c, char **word)
{
	c->environment[c->environment_size++] = word[0];
	return 0;
}

/* The sixth of the seven fields of a line of passwd(5), if its third is `uid`; it ends at the next colon. */
static char *home_in(char *line, const char *uid)
{
	size_t length = strlen(uid);
	for (int field = 0; field < 5; field++) {
		if (field == 2 && (strncmp(line, uid, length) || line[length] != ':'))
			return NULL;
		line += strcspn(line, ":\n");
		if (*line++ != ':')
			return NULL;
	}
	return line;
}

#define MAX_USERS (1 << 20)

/* home UID: HOME is what the container's /etc/passwd says, or "/". It is text of the container's, and no more. */
static int op_home(struct container *c, char **word)
{
	static char text[MAX_USERS + 1], home[PATH_MAX] = "HOME=/";
	struct stat st;
	int flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW; /* a link might lead to a descriptor of ours */
	int fd = c->root < 0 ? open_host("/etc/passwd", flags) : open_inside(c, "etc/passwd", flags, INSIDE);
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && read(fd, text, MAX_USERS) > 0)
		for (char *line = text, *found; *line; line += strcspn(line, "\n"), line += *line == '\n')
			if ((found = home_in(line, word[0])) && *found == '/') {
				snprintf(home, sizeof home, "HOME=%.*s", (int)strcspn(found, ":\n"), found);
				break;
			}
	if (fd >= 0)
		close(fd);
	c->environment[c->environment_size++] = home;
	return 0;
}

/* cwd PATH: verified, since a directory outside the root has no name inside it (CVE-2024-21626) */
static int op_cwd(struct container *c, char **word)
{
	char path[PATH_MAX];
	if (c->arrived)
		return 0;
	if (chdir(word[0]) < 0)
		return -1;
	long n = syscall(SYS_getcwd, path, sizeof path);
	if (n > 0 && path[0] == '/')
		return 0;
	errno = n < 0 ? errno : ENOENT;
	return -1;
}

/* cwd-first PATH: with the rights that init still has, before any filter; what fails here is left to "cwd" */
static int op_cwd_first(struct container *c, char **word)
{
	if (promise_descriptors(c) < 0)
		return -1;
	c->arrived = op_cwd(c, word) == 0;
	return 0;
}

static int op_umask(struct container *c, char **word)
{
	(void)c;
	umask((mode_t)strtoul(word[0], NULL, 8));
	return 0;
}

/* lookup: fails now, while someone listens, if the program is missing or not executable */
static int op_lookup(struct container *c, char **word)
{
	(void)word;
	if (promise_descriptors(c) < 0)
		return -1;
	return c->program ? resolve_program(c) : 0;
}

/* ready: everything before it is done; the spawner says when to go on */
static int op_ready(struct container *c, char **word)
{
	(void)word;
	return wait_for_spawner(c, MR_READY, 0);
}

/* sync POINT: the spawner does its part (id maps, hooks) now */
static int op_sync(struct container *c, char **word)
{
	return wait_for_spawner(c, MR_SYNC, atoi(word[0]));
}

/* fifo FILE: opens what "wait" waits on, while the host's files are still there. For both ways, so that it has a writer
 * at all times: else one that comes and goes would leave an end of file behind, which is always ready to be read. Whoever
 * starts us can tell by ENXIO that we are gone. */
static int op_fifo(struct container *c, char **word)
{
	c->fifo = open_host(word[0], O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
	return c->fifo < 0 ? -1 : 0;
}

/* report FILE: a new file that says which op failed, and why, when there is no spawner to listen any more */
static int op_report(struct container *c, char **word)
{
	c->report = openat(AT_FDCWD, word[0], O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return c->report < 0 ? -1 : 0;
}

static const int ending[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};

static void end_by(int number)
{
	_exit(128 + number);
}

/* wait: until a byte comes through the fifo. It stays open until the program is executed: so whoever sent the byte, and
 * holds the other end, learns when that is. */
static int op_wait(struct container *c, char **word)
{
	(void)word;
	char byte;
	struct pollfd fifo = {.fd = c->fifo, .events = POLLIN};
	if (c->fifo < 0) {
		errno = EBADF;
		return -1;
	}
	/* The kernel keeps from a first process what it has no handler for; one that only waits need not outlive them. The
	 * exec puts all back. */
	for (size_t i = 0; i < sizeof ending / sizeof *ending; i++)
		signal(ending[i], end_by);
	do {
		if (poll(&fifo, 1, -1) < 0 && errno != EINTR)
			return -1;
	} while (read(c->fifo, &byte, 1) != 1);
	return 0;
}

const struct op process_ops[] = {
    {"sysctl", 2, op_sysctl},
    {"session", 0, op_session},
    {"console", 1, op_console},
    {"console-device", 0, op_console_device},
    {"window", 2, op_window},
    {"own-stdio", 1, op_own_stdio},
    {"rlimit", 3, op_rlimit},
    {"scheduler", 7, op_scheduler},
    {"io-priority", 2, op_io_priority},
    {"affinity", 1, op_affinity},
    {"memory-policy", 2, op_memory_policy},
    {"personality", 1, op_personality},
    {"undumpable", 0, op_undumpable},
    {"dumpable", 0, op_dumpable},
    {"die-with-parent", 0, op_die_with_parent},
    {"keyring", 1, op_keyring},
    {"bound", 1, op_bound},
    {"user", 3, op_user},
    {"caps", 4, op_caps},
    {"no-new-privs", 0, op_no_new_privs},
    {"filter", 1, op_filter},
    {"seccomp", 1, op_seccomp},
    {"env", 1, op_env},
    {"home", 1, op_home},
    {"cwd-first", 1, op_cwd_first},
    {"cwd", 1, op_cwd},
    {"umask", 1, op_umask},
    {"lookup", 0, op_lookup},
    {"ready", 0, op_ready},
    {"sync", 1, op_sync},
    {"fifo", 1, op_fifo},
    {"report", 1, op_report},
    {"wait", 0, op_wait},
    {NULL, 0, NULL},
};
