/* Spawn minirun-init: one clone3 makes the namespaces, one execveat leaves the old program behind.
 *
 * Init is executed from a sealed memfd, never from a file: a container that reaches /proc/<pid>/exe of a process that
 * enters it finds a copy that cannot be written (CVE-2019-5736).
 */
#define _GNU_SOURCE
#include "minirun.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h> /* struct clone_args */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#define F_SEAL_SEAL 1
#define F_SEAL_SHRINK 2
#define F_SEAL_GROW 4
#define F_SEAL_WRITE 8
#endif
#ifndef MFD_EXEC
#define MFD_EXEC 0x10
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif

int mr_sealed_copy(const char *path)
{
	struct stat st;
	int source = open(path, O_RDONLY | O_CLOEXEC);
	if (source < 0)
		return -1;
	/* Asked for by name, since vm.memfd_noexec may withhold it; unknown before Linux 6.3. */
	int copy = memfd_create("minirun-init", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
	if (copy < 0 && errno == EINVAL)
		copy = memfd_create("minirun-init", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (copy < 0 || fstat(source, &st) < 0)
		goto fail;
	for (off_t left = st.st_size; left > 0;) {
		ssize_t n = sendfile(copy, source, NULL, left);
		if (n <= 0) {
			errno = n ? errno : EIO;
			goto fail;
		}
		left -= n;
	}
	if (fcntl(copy, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
		goto fail;
	close(source);
	return copy;
fail:;
	int error = errno;
	if (copy >= 0)
		close(copy);
	close(source);
	errno = error;
	return -1;
}

int mr_open_process(const char *name)
{
	char path[64], text[1024];
	int pid = atoi(name);
	const char *wanted = strchr(name, ':');
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		return -1;
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	text[n < 0 ? 0 : n] = '\0';
	char *at = strrchr(text, ')'); /* the program's name, before it, may contain anything */
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	if (at && wanted && strtoull(at, NULL, 10) == strtoull(wanted + 1, NULL, 10))
		return pidfd;
	close(pidfd);
	errno = ESRCH;
	return -1;
}

/* Puts `fd` at `number`, open across exec. Every other descriptor of ours is close-on-exec. */
static int place(int fd, int number)
{
	if (fd == number)
		return fcntl(fd, F_SETFD, 0);
	return dup2(fd, number);
}

/* By syscall(2), since musl follows each F_DUPFD_CLOEXEC by an F_SETFD. */
static int move_up(int fd, int least)
{
	return fd >= least ? fd : (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, least);
}

/* In the child. Only system calls from here to exec: the parent may be Python. */
static void enter(struct mr_spawn *s, int control, unsigned long long ignored)
{
	/* Descriptors that stand where others must go are first moved out of the way. */
	int high = 3 + s->keep + 4;
	int ops = move_up(s->ops, high), init = move_up(s->init, high), wire = move_up(control, high);
	int target = s->target < 0 ? -1 : move_up(s->target, high);
	int stdio[3];
	for (int i = 0; i < 3; i++)
		stdio[i] = move_up(s->stdio[i], high);
	for (int i = 0; i < 3; i++)
		if (stdio[i] < 0 || place(stdio[i], i) < 0)
			return;
	int control_at = 3 + s->keep, ops_at = control_at + 1;
	for (int i = 0; i < s->keep; i++)
		if (fcntl(3 + i, F_SETFD, 0) < 0)
			return;
	if (wire < 0 || ops < 0 || init < 0 || place(wire, control_at) < 0 || place(ops, ops_at) < 0)
		return;
	if (target < 0)
		close(ops_at + 1);
	else if (place(target, ops_at + 1) < 0)
		return;
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	static const char
	    default_action[64]; /* struct kernel_sigaction, all zero; libc refuses its own signals 32 and 33 */
	for (int number = 1; number < 65; number++)
		if (ignored >> (number - 1) & 1)
			syscall(SYS_rt_sigaction, number, default_action, NULL, 8);
	char keep[12];
	int value = s->keep, at = sizeof keep;
	keep[--at] = '\0';
	do
		keep[--at] = (char)('0' + value % 10);
	while ((value /= 10) > 0);
	char *argv[] = {"minirun-init", "--spawned", keep + at, NULL};
	char *envp[] = {NULL};
	syscall(SYS_execveat, init, "", argv, envp, AT_EMPTY_PATH);
}

/* The signals that this process ignores, as a mask. They would stay ignored across exec: Python ignores SIGPIPE and
 * SIGXFSZ, a shell SIGINT and SIGQUIT for what runs in its background, nohup(1) SIGHUP. One file instead of 64 calls. */
static unsigned long long ignored_signals(void)
{
	char text[4096];
	int fd = openat(AT_FDCWD, "/proc/self/status", O_RDONLY | O_CLOEXEC); /* musl's open(3) makes two calls */
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	text[n < 0 ? 0 : n] = '\0';
	char *line = strstr(text, "\nSigIgn:");
	return line ? strtoull(line + strlen("\nSigIgn:"), NULL, 16) : ~0ULL;
}

int mr_spawn(struct mr_spawn *s)
{
	int pair[2], one = 1;
	unsigned long long ignored = ignored_signals();
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &one, sizeof one);
	s->pidfd = -1;
	struct clone_args args = {
	    .flags = s->namespaces | CLONE_PIDFD,
	    .pidfd = (uintptr_t)&s->pidfd,
	    .exit_signal = SIGCHLD,
	};
	if (s->cgroup >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)s->cgroup;
	}
	pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	if (pid == 0) {
		enter(s, pair[1], ignored);
		mr_send(pair[1], MR_FAILED, -1, errno, NULL, 0);
		_exit(125);
	}
	int error = errno;
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		errno = error;
		return -1;
	}
	s->control = pair[0];
	return pid;
}
