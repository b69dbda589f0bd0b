/* The ops that choose where the process lives: its namespaces and its cgroup. */
#define _GNU_SOURCE
#include "minirun.h"
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* join PATH KIND: enters the namespace that the file stands for (/proc/PID/ns/net, /run/netns/NAME), if it is of that
 * kind: hexadecimal CLONE_NEW*, 0 for any. Into a PID or time namespace goes only what is forked afterwards. */
static int op_join(struct container *c, char **word)
{
	(void)c;
	int fd = open_host(word[0], O_RDONLY);
	return done_with(fd, fd < 0 ? -1 : setns(fd, (int)strtoul(word[1], NULL, 16)));
}

/* unshare FLAGS: hexadecimal CLONE_NEW*; the cgroup namespace is made here, after "cgroup", so that its root is there */
static int op_unshare(struct container *c, char **word)
{
	(void)c;
	return unshare((int)strtoul(word[0], NULL, 16));
}

/* enter FLAGS: namespaces of the process whose pidfd the spawner left beside the op list, all at once */
static int op_enter(struct container *c, char **word)
{
	if (c->control < 0) {
		errno = EBADF;
		return -1;
	}
	return setns(c->control + 2, (int)strtoul(word[0], NULL, 16)) < 0 ? -1 : close(c->control + 2);
}

/* inside PATH: a root that is there, "/" or that of a process, becomes the root of what follows; for who enters one */
static int op_inside(struct container *c, char **word)
{
	c->root = open_host(word[0], O_PATH | O_DIRECTORY);
	return c->root < 0 ? -1 : 0;
}

/* By hand, the first process waits for the second and ends as it does. */
_Noreturn static void end_with(pid_t child)
{
	int status = 0;
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	_exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

/* fork FLAGS: a new process goes on, in new namespaces of these kinds and in those that were joined before. It is the
 * spawner's child, not ours (CLONE_PARENT): whoever spawned us can wait for it. It announces itself, and the spawner
 * writes its id maps, before it goes on; we end when it does. */
static int op_fork(struct container *c, char **word)
{
	int gate[2];
	unsigned long flags = strtoul(word[0], NULL, 16);
	if (flags & CSIGNAL) /* CLONE_NEWTIME, too, stands there for clone3 */
		errno = EINVAL;
	if (flags & CSIGNAL || pipe2(gate, O_CLOEXEC) < 0)
		return -1;
	flags |= SIGCHLD | (c->control < 0 ? 0 : CLONE_PARENT);
	/* Not clone3: a filter cannot look into its flags, so those of containers refuse it. */
	pid_t pid = (pid_t)syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
	if (pid < 0)
		return -1;
	if (pid > 0) {
		char byte;
		if (c->control < 0)
			end_with(pid);
		close(gate[1]);
		while (read(gate[0], &byte, 1) < 0 && errno == EINTR)
			;
		_exit(0);
	}
	close(gate[0]);
	int result = wait_for_spawner(c, MR_BORN, 0);
	close(gate[1]);
	return result;
}

/* be-root: of the user namespace that was made or entered, where our old ids have no name */
static int op_be_root(struct container *c, char **word)
{
	(void)c, (void)word;
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || syscall(SYS_setresgid, 0, 0, 0) < 0)
		return -1;
	return (int)syscall(SYS_setresuid, 0, 0, 0);
}

/* cgroup FILE: this process moves itself. In v1 a thread that writes "0" into `tasks` takes 0.04 ms, where moving
 * another by `cgroup.procs` waits 10 ms for an RCU grace period. */
static int op_cgroup(struct container *c, char **word)
{
	(void)c;
	return write_text(open_host(word[0], O_WRONLY), "0");
}

/* write FILE TEXT: into a file of the host's procfs, about this process: oom_score_adj, timens_offsets, attr/exec */
static int op_write(struct container *c, char **word)
{
	(void)c;
	return write_text(open_host(word[0], O_WRONLY), word[1]);
}

static int op_hostname(struct container *c, char **word)
{
	(void)c;
	return sethostname(word[0], strlen(word[0]));
}

static int op_domainname(struct container *c, char **word)
{
	(void)c;
	return setdomainname(word[0], strlen(word[0]));
}

const struct op namespace_ops[] = {
    {"join", 2, op_join},         {"unshare", 1, op_unshare},       {"enter", 1, op_enter},   {"inside", 1, op_inside},
    {"fork", 1, op_fork},         {"be-root", 0, op_be_root},       {"cgroup", 1, op_cgroup}, {"write", 2, op_write},
    {"hostname", 1, op_hostname}, {"domainname", 1, op_domainname}, {NULL, 0, NULL},
};
