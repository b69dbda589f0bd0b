/* minirun-oci: the command of the OCI runtime.
 *
 * Engines call a runtime several times for each container, mostly for the same few questions. Their plain cases are
 * answered here, from files that need no parser (minirun/runtime/container.py writes them); everything else, every error
 * included, is for the Python program `minirun` that lies beside this one, which becomes our process. What is answered
 * here is what Python would answer, byte for byte: a test compares them in every state of a container.
 *
 *     <root>/<id>/process   PID START FLAGS FREEZER        FLAGS: letters h (it has hooks), o (others may outlive PID), or -
 *                 annexe    the rest of the state as JSON text, ready to be printed
 *                 undo      whose its cgroup is, and the directories of it: there only if deleting is nothing more
 *                 exec.fifo init waits on it for `start`
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#define OCI_VERSION "1.3.0" /* minirun/oci/defaults.py */
#define MAX_ID 255
#define PYTHON (-1) /* the answer is not for us to give */

struct call {
	const char *root, *verb, *id, *signal;
	bool force;
};

struct container {
	int dir;
	pid_t pid;
	unsigned long long start;
	char flags[8], freezer[PATH_MAX];
	bool alive, frozen, waiting; /* waiting: for `start` */
};

/* --- the command line: what is not understood is Python's to understand, or to refuse --- */

static bool among(const char *word, const char *list)
{
	size_t length = strchr(word, ' ') ? 0 : strlen(word);
	for (const char *at = list; length && (at = strstr(at, word)); at += length)
		if ((at == list || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0'))
			return true;
	return false;
}

/* An option that takes a value and changes nothing here, with a value that Python would accept. */
static bool harmless(const char *name, const char *value)
{
	static const struct {
		const char *name, *values;
	} known[] = {
	    {"--log", NULL},
	    {"--log-format", "text json"},
	    {"--log-level", "trace debug info warning error fatal panic"},
	    {"--rootless", "true false auto"},
	    {"--cgroup-manager", "cgroupfs systemd disabled"},
	};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcmp(name, known[i].name))
			return !known[i].values || among(value, known[i].values);
	return false;
}

static bool valid_id(const char *id)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+.-";
	size_t length = strspn(id, letters);
	return length > 0 && length <= MAX_ID && !id[length] && strcmp(id, ".") && strcmp(id, "..");
}

static bool take_option(struct call *call, char ***words)
{
	char name[32], *word = **words, *equals = strchr(word, '=');
	size_t length = equals ? (size_t)(equals - word) : strlen(word);
	if (length >= sizeof name)
		return false;
	memcpy(name, word, length);
	name[length] = '\0';
	if (!equals && (!strcmp(name, "--systemd-cgroup") || !strcmp(name, "--debug")))
		return true;
	if (!equals && call->verb && !strcmp(call->verb, "delete") && (!strcmp(name, "--force") || !strcmp(name, "-f")))
		return call->force = true;
	const char *value = equals ? equals + 1 : *++*words;
	if (!value)
		return false;
	if (strcmp(name, "--root"))
		return harmless(name, value);
	call->root = value;
	return *value && !strstr(value, ".."); /* Python makes the path absolute word by word */
}

static bool understood(char **words, struct call *call)
{
	for (; *words; words++) {
		if (**words == '-') {
			if (!take_option(call, &words))
				return false;
		} else if (!call->verb) {
			call->verb = *words;
		} else if (!call->id) {
			call->id = *words;
		} else if (!call->signal && !strcmp(call->verb, "kill")) {
			call->signal = *words;
		} else {
			return false;
		}
	}
	return call->id && valid_id(call->id) && among(call->verb, "state start kill delete");
}

/* --- what is known of a container --- */

/* The text of a small file; its length, or -1 if it is not there or does not fit. */
static ssize_t slurp(int dir, const char *name, char *text, size_t size)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return -1;
	size_t length = 0;
	ssize_t n;
	while ((n = read(fd, text + length, size - 1 - length)) > 0)
		length += (size_t)n;
	close(fd);
	if (n < 0 || length == size - 1)
		return -1;
	text[length] = '\0';
	return (ssize_t)length;
}

/* Whether the process that started then is there and no zombie: fields 3 and 22 of proc_pid_stat(5). */
static bool is_alive(pid_t pid, unsigned long long start)
{
	char path[32], text[1024];
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	if (slurp(AT_FDCWD, path, text, sizeof text) < 0)
		return false;
	char *at = strrchr(text, ')'); /* the name before it may hold anything */
	if (!at || at[1] != ' ' || at[2] == 'Z' || at[2] == 'X')
		return false;
	for (int field = 2; field < 22 && at; field++)
		at = strchr(at + 1, ' ');
	return at && strtoull(at + 1, NULL, 10) == start;
}

static bool look(struct container *c)
{
	char text[PATH_MAX + 64], first = '\0';
	int end = -1;
	if (slurp(c->dir, "process", text, sizeof text) < 0)
		return false;
	if (sscanf(text, "%d %llu %7s %n", &c->pid, &c->start, c->flags, &end) != 3 || end < 0)
		return false;
	size_t length = strcspn(text + end, "\n");
	if (!length || length >= sizeof c->freezer)
		return false;
	memcpy(c->freezer, text + end, length);
	c->freezer[length] = '\0';
	int freezer = open(c->freezer, O_RDONLY | O_CLOEXEC);
	if (freezer >= 0) { /* v1: FROZEN or FREEZING; v2: 1 */
		c->frozen = read(freezer, &first, 1) == 1 && (first == 'F' || first == '1');
		close(freezer);
	}
	c->alive = is_alive(c->pid, c->start);
	int fifo =
	    openat(c->dir, "exec.fifo", O_WRONLY | O_NONBLOCK | O_CLOEXEC); /* not without a reader, which is init */
	c->waiting = fifo >= 0;
	if (fifo >= 0)
		close(fifo);
	return true;
}

/* --- the verbs: each returns the exit code, or PYTHON as long as nothing has been done that Python would not do --- */

static int print_state(const struct container *c, const char *id)
{
	static char text[1 << 16];
	const char *status = !c->alive ? "stopped" : c->frozen ? "paused" : c->waiting ? "created" : "running";
	int head =
	    snprintf(text, sizeof text, "{\"ociVersion\": \"%s\", \"id\": \"%s\", \"status\": \"%s\", \"pid\": %d, ",
		     OCI_VERSION, id, status, c->alive ? c->pid : 0);
	ssize_t rest = slurp(c->dir, "annexe", text + head, sizeof text - (size_t)head);
	if (rest < 0)
		return PYTHON;
	size_t length = (size_t)head + (size_t)rest, written = 0;
	while (written < length) {
		ssize_t n = write(STDOUT_FILENO, text + written, length - written);
		if (n < 0 && written == 0)
			return PYTHON; /* it says why */
		if (n < 0)
			return 1;
		written += (size_t)n;
	}
	return 0;
}

static int start(const struct container *c)
{
	if (!c->alive || c->frozen || !c->waiting || strchr(c->flags, 'h'))
		return PYTHON;
	int fifo = openat(c->dir, "exec.fifo", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	signal(SIGPIPE, SIG_IGN); /* init may end at this moment */
	if (fifo < 0 || write(fifo, "0", 1) != 1)
		return PYTHON;
	unlinkat(c->dir, "exec.fifo", 0);
	/* Until nobody reads it any more: init is the program now, or could not become it and has said so. */
	struct pollfd executed = {.fd = fifo};
	while (poll(&executed, 1, -1) < 0 && errno == EINTR)
		;
	struct stat st;
	return fstatat(c->dir, "failed", &st, 0) == 0 && st.st_size > 0 ? PYTHON : 0;
}

static int signal_number(const char *word)
{
	if (!word || among(word, "TERM SIGTERM"))
		return SIGTERM;
	if (among(word, "KILL SIGKILL"))
		return SIGKILL;
	if (strspn(word, "0123456789") != strlen(word) || strlen(word) > 2)
		return 0;
	return atoi(word) <= 64 ? atoi(word) : 0;
}

static int send_signal(const struct container *c, const char *word)
{
	int number = signal_number(word);
	bool more =
	    number == SIGKILL && (c->frozen || strchr(c->flags, 'o')); /* to be thawed, or the others killed, too */
	if (!number || !c->alive || more)
		return PYTHON;
	int pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);
	/* The pidfd first: the number cannot pass to another process between the look and the signal. */
	if (pidfd < 0 || !is_alive(c->pid, c->start))
		return PYTHON;
	return syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0) < 0 ? PYTHON : 0;
}

/* SIGKILL, and all that is in its PID namespace ends with it, before it does. */
static bool end(const struct container *c)
{
	struct pollfd ended = {.fd = (int)syscall(SYS_pidfd_open, c->pid, 0), .events = POLLIN};
	if (ended.fd < 0 || !is_alive(c->pid, c->start) ||
	    syscall(SYS_pidfd_send_signal, ended.fd, SIGKILL, NULL, 0) < 0)
		return false;
	return poll(&ended, 1, 1000) > 0;
}

/* A dead process counts until its parent has reaped it, which the kernel announces to nobody else. */
static bool remove_directory(const char *path)
{
	for (int tries = 0; rmdir(path) < 0 && errno != ENOENT; tries++)
		if (errno != EBUSY || tries == 50 || poll(NULL, 0, 1) < 0)
			return false;
	return true;
}

static int remove_cgroup(char *claim, char *directories)
{
	char owner[512], *line[64];
	int lines = 0;
	for (char *at = strtok(directories, "\n"); at; at = strtok(NULL, "\n")) {
		if (lines == 64)
			return PYTHON;
		line[lines++] = at;
	}
	/* Locked, as runtime/claim.py does it: an empty one may be taken by the next container at any moment. */
	int first = lines ? open(line[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (first < 0 || flock(first, LOCK_EX | LOCK_NB) < 0)
		return PYTHON;
	ssize_t length = fgetxattr(first, "trusted.minirun", owner, sizeof owner);
	if (length < 0 || (size_t)length != strlen(claim) || memcmp(owner, claim, (size_t)length) != 0)
		return PYTHON;
	while (lines-- > 0) /* the first one last: it says whose they are */
		if (!remove_directory(line[lines]))
			return PYTHON; /* somebody is still in it */
	return 0;
}

/* Removes the record: out of the way first, so that it is there as a whole or not at all, should we be killed. The next
 * create removes the rest. */
static int remove_record(const struct container *c, const char *path, const char *id)
{
	char away[PATH_MAX];
	int root = (int)(strlen(path) - strlen(id));
	int length = snprintf(away, sizeof away, "%.*s@creating/@%s@%d", root, path, id, getpid());
	if ((size_t)length >= sizeof away || rename(path, away) < 0)
		return PYTHON;
	DIR *listing = fdopendir(dup(c->dir));
	for (struct dirent *entry; listing && (entry = readdir(listing));)
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			unlinkat(c->dir, entry->d_name, 0);
	rmdir(away);
	return 0;
}

static int delete (const struct container *c, const struct call *call, const char *path)
{
	char text[1 << 14];
	if (strchr(c->flags, 'h') || slurp(c->dir, "undo", text, sizeof text) < 0)
		return PYTHON;
	if (c->alive && (!call->force || c->frozen || strchr(c->flags, 'o') || !end(c)))
		return PYTHON;
	char *end = strchr(text, '\n');
	if (!end)
		return PYTHON;
	*end = '\0';
	return remove_cgroup(text, end + 1) == PYTHON ? PYTHON : remove_record(c, path, call->id);
}

static int answer(const struct call *call)
{
	struct container c = {.dir = -1};
	struct stat st;
	char path[PATH_MAX];
	const char *state = getenv("MINIRUN_STATE");
	int length = call->root ? snprintf(path, sizeof path, "%s/%s", call->root, call->id)
				: snprintf(path, sizeof path, "%s/oci/%s", state ? state : "/run/minirun", call->id);
	if (length < 0 || (size_t)length >= sizeof path)
		return PYTHON;
	c.dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (c.dir < 0)
		return PYTHON;
	/* Whoever changes a container holds its directory; whoever waits for that, waits in Python. */
	if (among(call->verb, "start delete") &&
	    (flock(c.dir, LOCK_EX | LOCK_NB) < 0 || fstat(c.dir, &st) < 0 || !st.st_nlink))
		return PYTHON;
	if (!look(&c))
		return PYTHON;
	if (!strcmp(call->verb, "state"))
		return print_state(&c, call->id);
	if (!strcmp(call->verb, "start"))
		return start(&c);
	return !strcmp(call->verb, "kill") ? send_signal(&c, call->signal) : delete (&c, call, path);
}

/* Becomes `minirun minirun-oci ARGUMENTS`; our name tells it that this is for the runtime, whatever the arguments are. */
static void become_python(char **arguments, int count)
{
	char path[PATH_MAX], *slash = NULL;
	char **words = calloc((size_t)count + 3, sizeof *words);
	ssize_t length = readlink("/proc/self/exe", path, sizeof path - sizeof "minirun");
	if (length > 0) {
		path[length] = '\0';
		slash = strrchr(path, '/');
	}
	if (!words || !slash)
		return;
	strcpy(slash + 1, "minirun");
	words[0] = path;
	words[1] = (char *)"minirun-oci";
	memcpy(words + 2, arguments, ((size_t)count + 1) * sizeof *words);
	execv(path, words);
	free(words);
}

int main(int argc, char **argv)
{
	struct call call = {0};
	if (argc > 0 && geteuid() == 0 && understood(argv + 1, &call)) {
		int code = answer(&call);
		if (code != PYTHON)
			return code;
	}
	if (argc > 0)
		become_python(argv + 1, argc - 1);
	fprintf(stderr, "minirun-oci: the program minirun beside it: %s; install it whole\n", strerror(errno));
	return 1;
}
