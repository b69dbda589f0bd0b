/* The hooks that run inside (runtime-spec, "POSIX-platform Hooks"): createContainer before the root changes, where the
 * host's programs can still be found, and startContainer after it, where only the container's can. */
#define _GNU_SOURCE
#include "minirun.h"
#include "ops.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_WORDS 1024

static struct {
	char *argv[MAX_WORDS + 1], *envp[MAX_WORDS + 1];
	int args, environment;
	const char *state[2]; /* what stands before and behind the pid in the container's state */
	int index;            /* of its kind */
	bool as_program;
} next;

static int keep(char **list, int *count, char *word)
{
	if (*count == MAX_WORDS) {
		errno = E2BIG;
		return -1;
	}
	list[(*count)++] = word;
	list[*count] = NULL;
	return 0;
}

/* hook-arg WORD, hook-env NAME=VALUE: for the next hook */
static int op_hook_arg(struct container *c, char **word)
{
	(void)c;
	return keep(next.argv, &next.args, word[0]);
}

static int op_hook_env(struct container *c, char **word)
{
	(void)c;
	return keep(next.envp, &next.environment, word[0]);
}

/* hook-as-program: the next hook has the program's variables */
static int op_hook_as_program(struct container *c, char **word)
{
	(void)c, (void)word;
	next.as_program = true;
	return 0;
}

/* hook-state HEAD TAIL: the state that hooks read from standard input; the pid, as it is seen inside, stands between */
static int op_hook_state(struct container *c, char **word)
{
	(void)c;
	next.state[0] = word[0];
	next.state[1] = word[1];
	next.index = 0;
	return 0;
}

static int state_file(void)
{
	int fd = memfd_create("state", MFD_CLOEXEC);
	if (fd >= 0 && (dprintf(fd, "%s%d%s", next.state[0] ? next.state[0] : "", getpid(),
				next.state[1] ? next.state[1] : "") < 0 ||
			lseek(fd, 0, SEEK_SET) < 0))
		return -1;
	return fd;
}

/* It begins in the root that is being made, or, when that is "/", in the program's working directory. */
_Noreturn static void become_hook(struct container *c, const char *path, int input, int said)
{
	if (c->root >= 0 && fchdir(c->root) < 0)
		_exit(126);
	int null = open_host("/dev/null", O_RDWR);
	if ((null >= 0 && dup2(null, 1) < 0) || dup2(said, 2) < 0)
		_exit(126);
	setpgid(0, 0); /* so that its children can be killed with it */
	if (dup2(input, 0) < 0 || syscall(SYS_close_range, 3, ~0U, 0) < 0)
		_exit(126);
	execve(path, next.argv, next.as_program ? c->environment : next.envp);
	dprintf(2, "%s\n", strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

/* Waits for the hook's end, and kills it when its time is over: its wait status, or -1 with ETIME. */
static int end_of(pid_t pid, long seconds)
{
	int n = 0, status, pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd ended = {.fd = pidfd, .events = POLLIN};
	if (pidfd >= 0)
		do
			n = poll(&ended, 1, seconds > 0 && seconds < INT_MAX / 1000 ? (int)seconds * 1000 : -1);
		while (n < 0 && errno == EINTR);
	int error = pidfd < 0 || n < 0 ? errno : ETIME;
	if (n <= 0) {
		kill(pid, SIGKILL);
		kill(-pid, SIGKILL);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (pidfd >= 0)
		close(pidfd);
	errno = error;
	return n <= 0 ? -1 : status;
}

/* Says how a hook ended, and what it said, in one line: to the spawner, or to those who come when that is gone. */
static void tell(struct container *c, int status, int said)
{
	char text[400];
	if (c->control >= 0 && mr_send(c->control, MR_SAID, status, 0, &said, 1) == 0)
		return;
	ssize_t n = pread(said, text, sizeof text - 1, 0);
	text[n < 0 ? 0 : n] = '\0';
	if (c->report >= 0)
		dprintf(c->report, "%d %d %.*s\n", next.index, status, (int)strcspn(text, "\n"), text);
}

/* hook PATH SECONDS: runs it to its end; 0 seconds are no limit. Fails with ETIME, or ECANCELED if it did not exit with
 * 0. */
static int op_hook(struct container *c, char **word)
{
	int input = state_file(), said = memfd_create("hook-stderr", MFD_CLOEXEC);
	pid_t pid = input < 0 || said < 0 ? -1 : fork();
	if (pid < 0)
		return -1;
	if (pid == 0)
		become_hook(c, word[0], input, said);
	int status = end_of(pid, strtol(word[1], NULL, 10));
	next.args = next.environment = 0;
	next.as_program = false;
	next.argv[0] = next.envp[0] = NULL;
	int error = status > 0 ? ECANCELED : errno;
	if (status)
		tell(c, status, said);
	next.index++;
	close(input);
	close(said);
	errno = error;
	return status ? -1 : 0;
}

const struct op hook_ops[] = {
    {"hook-arg", 1, op_hook_arg},     {"hook-env", 1, op_hook_env}, {"hook-as-program", 0, op_hook_as_program},
    {"hook-state", 2, op_hook_state}, {"hook", 2, op_hook},         {NULL, 0, NULL},
};
