/* minirun-init: the process inside. It performs a list of ops in order and becomes the program.
 *
 *   minirun-init hostname box  root rootfs  mount proc /proc proc nosuid,nodev,noexec  pivot  -- /bin/sh
 *
 * The words come from argv, or, when a spawner runs it (--spawned KEEP), NUL-terminated from the descriptor next to
 * the control socket; behind that one, for "enter", is a pidfd. Whoever wrote the list decided everything; here is one
 * table and one loop. There is no look-up of users, locales or plugins after the root has changed: nothing of the
 * container's is loaded into this process.
 */
#define _GNU_SOURCE
#include "minirun.h"
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_WORDS 65536
#define MAX_BYTES (8 << 20)

static const struct op *find_op(const char *name)
{
	const struct op *tables[] = {mount_ops, rootfs_ops, namespace_ops, process_ops, hook_ops};
	for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
		for (const struct op *op = tables[t]; op->name; op++)
			if (!strcmp(op->name, name))
				return op;
	return NULL;
}

/* Tells the spawner (or the person at the terminal) which op failed, by its number and errno, and ends. */
_Noreturn static void fail(struct container *c, int number, const char *name, int error)
{
	if (c->control >= 0)
		mr_send(c->control, MR_FAILED, number, error, NULL, 0);
	else
		fprintf(stderr, "minirun-init: op %d (%s): %s\n", number, name, strerror(error));
	if (c->report >= 0)
		dprintf(c->report, "%s %d\n", name, error);
	_exit(error == ENOENT && !strcmp(name, "exec") ? 127 : !strcmp(name, "exec") ? 126 : 125);
}

/* By openat, since musl's open(3) sets O_CLOEXEC with a second call. */
int open_host(const char *path, int flags)
{
	return openat(AT_FDCWD, path, flags | O_CLOEXEC);
}

int write_text(int fd, const char *text)
{
	return done_with(fd, fd < 0 || write(fd, text, strlen(text)) < 0 ? -1 : 0);
}

int wait_for_spawner(struct container *c, int type, int point)
{
	struct mr_message message;
	if (c->control < 0)
		return 0; /* by hand there is nobody to wait for */
	if (mr_send(c->control, type, point, 0, NULL, 0) < 0)
		return -1;
	if (mr_receive(c->control, &message, NULL, NULL) == 1 && message.type == MR_START)
		return 0;
	_exit(125); /* the spawner is gone */
}

/* A filter older than faccessat2(2) refuses that call itself: then only the exec can tell. */
static bool executable(const char *path)
{
	struct stat st;
	if (stat(path, &st) < 0)
		return false;
	if (!S_ISREG(st.st_mode)) {
		errno = EACCES;
		return false;
	}
	return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0 || errno == EPERM;
}

/* Closes from `first` to the one before `end`. */
static int close_between(int first, int end)
{
	return first >= end ? 0 : (int)syscall(SYS_close_range, first, end - 1, 0);
}

/* The program gets the descriptors 0, 1, 2 and those it was promised (CVE-2024-21626). What a waiting init still needs,
 * the socket, the fifo and the report, closes with the exec; all others now. Before any filter: it need not know a call
 * so young. */
int promise_descriptors(struct container *c)
{
	int first = 3 + c->keep + (c->control >= 0);
	int low = c->fifo < c->report ? c->fifo : c->report, high = c->fifo < c->report ? c->report : c->fifo;
	if (c->promised)
		return 0;
	c->promised = true;
	c->root = c->empty = c->null = -1;
	return close_between(first, low) < 0 || close_between(low < first ? first : low + 1, high) < 0 ||
		       close_between(high < first ? first : high + 1, INT_MAX) < 0
		   ? -1
		   : 0;
}

/* Sets c->executable: the name itself if it has a slash, else the first match in the PATH of the container's
 * environment. Returns -1 with ENOENT (no such) or EACCES (there, but not executable). */
int resolve_program(struct container *c)
{
	static char path[4096];
	const char *name = c->program[0], *list = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	int error = ENOENT;
	c->executable = strchr(name, '/') ? name : path;
	if (strchr(name, '/'))
		return executable(name) ? 0 : -1;
	for (size_t i = 0; i < c->environment_size; i++)
		if (!strncmp(c->environment[i], "PATH=", 5))
			list = c->environment[i] + 5;
	for (; *name; list++) {
		size_t length = strcspn(list, ":");
		int n = snprintf(path, sizeof path, "%.*s/%s", length ? (int)length : 1, length ? list : ".", name);
		if ((size_t)n < sizeof path && executable(path))
			return 0;
		if (errno == EACCES)
			error = EACCES;
		list += length;
		if (!*list)
			break;
	}
	errno = error;
	return -1;
}

/* The only system call after a filter, unless nothing was looked up before. */
static int become_program(struct container *c)
{
	if (!c->executable && (promise_descriptors(c) < 0 || resolve_program(c) < 0))
		return -1;
	return execve(c->executable, c->program, c->environment);
}

/* Performs the ops of `word` up to "--" (or the end, for a list that is only checked by hand). */
static void perform(struct container *c, char **word, int count)
{
	int number = 0;
	int separator = 0;
	while (separator < count && strcmp(word[separator], "--"))
		separator++;
	if (separator + 1 < count)
		c->program = word + separator + 1;
	for (int at = 0; at < separator; number++) {
		const struct op *op = find_op(word[at]);
		if (!op || separator - at - 1 < op->words)
			fail(c, number, word[at], EINVAL);
		if (op->run(c, word + at + 1) < 0)
			fail(c, number, c->program && !strcmp(op->name, "lookup") ? "exec" : op->name, errno);
		at += 1 + op->words;
	}
	if (!c->program)
		fail(c, number, "--", EINVAL);
	become_program(c);
	fail(c, number, "exec", errno);
}

/* Reads the whole op list, and splits it into `*words`. Returns their number. */
static int read_words(int fd, char ***words)
{
	size_t size = 0, room = 1 << 16;
	char *text = malloc(room);
	while (text) {
		ssize_t n = pread(fd, text + size, room - size, (off_t)size);
		if (n < 0)
			return -1;
		size += (size_t)n;
		if (size < room)
			break; /* it is a file: less than asked for is its end */
		if (room >= MAX_BYTES) {
			errno = E2BIG;
			return -1;
		}
		text = realloc(text, room *= 2);
	}
	if (!text)
		return -1;
	if (size == 0 || text[size - 1] != '\0') {
		errno = EINVAL;
		return -1;
	}
	int count = 0;
	for (size_t at = 0; at < size; at += strlen(text + at) + 1)
		count++;
	*words = calloc((size_t)count + 1, sizeof **words);
	if (!*words || count > MAX_WORDS) {
		errno = E2BIG;
		return -1;
	}
	count = 0;
	for (size_t at = 0; at < size; at += strlen(text + at) + 1)
		(*words)[count++] = text + at;
	return count;
}

int main(int argc, char **argv)
{
	struct container c = {.root = -1, .control = -1, .fifo = -1, .report = -1, .empty = -1, .null = -1};
	char **words = argv + 1;
	int count = argc - 1;
	if (argc == 3 && !strcmp(argv[1], "--spawned")) {
		c.keep = atoi(argv[2]);
		c.control = 3 + c.keep;
		syscall(SYS_close_range, c.control, c.control + 2, CLOSE_RANGE_CLOEXEC);
		/* What our caller's caller left open must not be there while we wait for the start. */
		syscall(SYS_close_range, c.control + 3, ~0U, 0);
		count = read_words(c.control + 1, &words);
		if (count < 0)
			fail(&c, -1, "read", errno);
		close(c.control + 1);
	} else if (argc < 3) {
		fputs("usage: minirun-init OP WORD... -- PROGRAM ARG...   (see docs/reference/init.md)\n", stderr);
		return 125;
	}
	c.environment = calloc((size_t)count + 1, sizeof *c.environment);
	if (!c.environment)
		fail(&c, -1, "environment", errno);
	umask(0); /* modes are meant as they are written; "umask" sets the program's own */
	perform(&c, words, count);
}
