/* minirun-monitor: the process outside, one per container or exec session.
 *
 * It spawns minirun-init, holds the program's stdio or pty, writes the log, relays to whoever is attached, reaps the
 * program and notes how it ended. It never blocks on anyone: a client that does not read holds back the program's
 * output, as a full pipe would, but not signals, other clients or the end.
 *
 * A client is a SOCK_SEQPACKET connection. The first is inherited from the command that starts the container (its
 * owner); more come through the listening socket. If the owner vanishes before it said MR_START, the program is killed.
 */
#define _GNU_SOURCE
#include "minirun.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

#define MAX_CLIENTS 256 /* further ones wait to be accepted */
#define CHUNK 32768
#define SLICE 4096            /* a pipe that polls writable takes this much without blocking (PIPE_BUF) */
#define LOG_LIMIT (32L << 20) /* bytes; then the log becomes log.1, so that no container fills the disk */

static struct {
	const char *log, *exit, *socket, *oom, *needed, *cgroup, *target;
	int ops, init, owner, keep;
	bool tty, stdin_open, attached;
	uint64_t namespaces;
	char **cleanup;
} option = {.ops = -1, .init = -1, .owner = -1};

enum { OUT, ERR, STREAMS };

/* What the program writes. `chunk` has gone to the log; a new one is read when every client has taken it. */
static struct stream {
	int fd;
	size_t length;
	char chunk[CHUNK];
} stream[STREAMS] = {{.fd = -1}, {.fd = -1}};

static struct client {
	int socket;
	int input, output[STREAMS]; /* -1 where not attached */
	size_t taken[STREAMS];
	struct termios saved;
	bool raw;
} client[MAX_CLIENTS];
static int clients;

static struct {
	int fd; /* the program's standard input, or the pty */
	size_t length, sent;
	char chunk[CHUNK];
} input = {.fd = -1};

static int log_fd = -1, master = -1, listener = -1;
static off_t log_size;
static struct mr_spawn child;
static pid_t child_pid;
static bool started, start_wanted, ready, ended, killed;
static int failed_op, failed_errno;
static struct mr_message announced; /* the last news, repeated to a client that comes later */
static struct winsize window;

static void broadcast(enum mr_type type, int a, int b)
{
	announced = (struct mr_message){.type = type, .a = a, .b = b};
	for (int i = 0; i < clients; i++)
		mr_send(client[i].socket, type, a, b, NULL, 0);
}

/* By openat, since musl's open(3) sets O_CLOEXEC with a second call. */
static int open_file(const char *path, int flags)
{
	return openat(AT_FDCWD, path, flags | O_CLOEXEC, 0600);
}

/* --- the log: one line "time stream P|F text" each, as CRI's log format has it --- */

static void open_log(void)
{
	struct stat st;
	log_fd = open_file(option.log, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW);
	log_size = log_fd >= 0 && fstat(log_fd, &st) == 0 ? st.st_size : 0;
}

static void rotate_log(void)
{
	char old[4096];
	snprintf(old, sizeof old, "%s.1", option.log);
	close(log_fd);
	rename(option.log, old);
	open_log();
}

/* Each line costs a head of some fifty bytes; they are collected, so that a chunk of short lines is few writes. */
static void write_log(const char *name, const char *text, size_t length)
{
	static char block[1 << 16];
	size_t used = 0;
	struct timespec now;
	struct tm utc;
	char head[80];
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	size_t head_size =
	    (size_t)snprintf(head, sizeof head, "%04d-%02d-%02dT%02d:%02d:%02d.%09ldZ %s ", utc.tm_year + 1900,
			     utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, now.tv_nsec, name);
	while (length > 0 && log_fd >= 0) {
		const char *newline = memchr(text, '\n', length);
		size_t line = newline ? (size_t)(newline - text) + 1 : length;
		if (used + head_size + line + 3 > sizeof block) { /* a line is never longer than CHUNK */
			log_size += write(log_fd, block, used) > 0 ? (off_t)used : 0;
			used = 0;
		}
		memcpy(block + used, head, head_size);
		used += head_size;
		memcpy(block + used, newline ? "F " : "P ", 2);
		used += 2;
		memcpy(block + used, text, line);
		used += line;
		if (!newline)
			block[used++] = '\n';
		text += line;
		length -= line;
	}
	if (used > 0 && log_fd >= 0)
		log_size += write(log_fd, block, used) > 0 ? (off_t)used : 0;
	if (log_size > LOG_LIMIT)
		rotate_log();
}

/* --- clients --- */

static void drop_client(int i)
{
	struct client *c = &client[i];
	if (c->raw && c->input >= 0)
		tcsetattr(c->input, TCSANOW,
			  &c->saved); /* the terminal is whole again even after its client's kill -9 */
	if (c->input >= 0)
		close(c->input);
	for (int s = 0; s < STREAMS; s++)
		if (c->output[s] >= 0)
			close(c->output[s]);
	close(c->socket);
	if (c->socket == option.owner) {
		option.owner = -1;
		if (!start_wanted && child_pid > 0)
			kill(child_pid, SIGKILL);
	}
	client[i] = client[--clients];
}

static struct client *add_client(int socket)
{
	if (clients == MAX_CLIENTS) {
		close(socket);
		return NULL;
	}
	struct client *c = &client[clients++];
	*c = (struct client){.socket = socket, .input = -1, .output = {-1, -1}};
	return c;
}

static void make_raw(struct client *c)
{
	if (c->input < 0 || !option.tty || tcgetattr(c->input, &c->saved) < 0)
		return;
	struct termios raw = c->saved;
	cfmakeraw(&raw);
	c->raw = tcsetattr(c->input, TCSANOW, &raw) == 0;
}

/* A terminal polls writable when a single byte fits, and a write of more would wait for a stalled one. Opened anew, it
 * has flags of its own: ours must not become those of everyone who shares the descriptor. */
static int unblocked(int fd)
{
	char path[32];
	if (!isatty(fd))
		return fd;
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	int own = open_file(path, O_WRONLY | O_NOCTTY | O_NONBLOCK);
	if (own < 0)
		return fd;
	close(fd);
	return own;
}

static void attach(struct client *c, bool with_input, const int *fds)
{
	if (with_input)
		c->input = fds[0];
	else if (fds[0] >= 0)
		close(fds[0]);
	for (int s = 0; s < STREAMS; s++) {
		c->output[s] = unblocked(fds[1 + s]);
		c->taken[s] = stream[s].length; /* what came before belongs to the log */
	}
	make_raw(c);
}

static void set_window(int rows, int columns)
{
	window.ws_row = (unsigned short)rows;
	window.ws_col = (unsigned short)columns;
	if (master >= 0)
		ioctl(master, TIOCSWINSZ, &window);
}

static void start_if_ready(void)
{
	if (ready && start_wanted && !started)
		mr_send(child.control, MR_START, 0, 0, NULL, 0);
}

/* Returns false if the client is gone. */
static bool serve(int i)
{
	struct mr_message message;
	int fds[3], count = 3;
	if (mr_receive(client[i].socket, &message, fds, &count) <= 0) {
		drop_client(i);
		return false;
	}
	if (message.type == MR_ATTACH && count == 3) {
		attach(&client[i], message.a, fds);
		return true;
	}
	while (count > 0)
		close(fds[--count]);
	if (message.type == MR_START) {
		start_wanted = true;
		start_if_ready();
	} else if (message.type == MR_SIGNAL && child_pid > 0) {
		killed |= message.a == SIGKILL; /* also after the end: then it means, do not wait for readers */
		if (!ended)
			syscall(SYS_pidfd_send_signal, child.pidfd, message.a, NULL, 0);
		if (message.b)
			option.cleanup = NULL; /* the client does it, and waits for the lock that we hold */
	} else if (message.type == MR_WINSIZE) {
		set_window(message.a, message.b);
	}
	return true;
}

/* --- what flows --- */

static bool taken_by_all(int s)
{
	for (int i = 0; i < clients; i++)
		if (client[i].output[s] >= 0 && client[i].taken[s] < stream[s].length)
			return false;
	return true;
}

static void read_stream(int s)
{
	ssize_t n = read(stream[s].fd, stream[s].chunk, CHUNK);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) { /* EIO is how a pty ends */
		if (stream[s].fd != master)
			close(stream[s].fd);
		stream[s].fd = -1;
		return;
	}
	stream[s].length = (size_t)n;
	for (int i = 0; i < clients; i++)
		client[i].taken[s] = 0;
	write_log(s == OUT ? "stdout" : "stderr", stream[s].chunk, (size_t)n);
}

static void give(struct client *c, int s)
{
	struct stat st;
	size_t left = stream[s].length - c->taken[s];
	if (left > SLICE && !(fstat(c->output[s], &st) == 0 && S_ISREG(st.st_mode)))
		left = SLICE;
	ssize_t n = write(c->output[s], stream[s].chunk + c->taken[s], left);
	if (n >= 0) {
		c->taken[s] += (size_t)n;
	} else if (errno != EAGAIN && errno != EINTR) {
		close(c->output[s]);
		c->output[s] = -1;
		/* In `minirun run ... | head`, the program is part of the pipeline, and learns that its reader is gone. */
		if (option.attached && c->socket == option.owner && stream[s].fd != master) {
			close(stream[s].fd);
			stream[s].fd = -1;
		}
	}
}

static void close_input(void)
{
	if (input.fd >= 0 && input.fd != master)
		close(input.fd);
	input.fd = -1;
}

static void take(struct client *c)
{
	ssize_t n = read(c->input, input.chunk, CHUNK);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		input.length = (size_t)n;
		input.sent = 0;
		return;
	}
	if (c->raw)
		tcsetattr(c->input, TCSANOW, &c->saved);
	c->raw = false;
	close(c->input);
	c->input = -1;
	if (input.fd == master && master >= 0) { /* a pty has no half-close: end of file is a character */
		input.chunk[0] = 4;
		input.length = 1;
		input.sent = 0;
	} else {
		close_input();
	}
}

static void send_input(void)
{
	ssize_t n = write(input.fd, input.chunk + input.sent, input.length - input.sent);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		input.length = input.sent = 0;
		close_input();
		return;
	}
	input.sent += (size_t)n;
	if (input.sent == input.length)
		input.length = input.sent = 0;
}

/* --- the program --- */

/* Another process, `pid`, goes on as the program: a child of ours too, or else it is somebody in the container who would
 * like to be taken for one, or dead: then the end of the first one tells. */
static void born(pid_t pid)
{
	siginfo_t info;
	int pidfd = pid == child_pid ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0 || waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG | WNOWAIT) < 0) {
		if (pidfd >= 0)
			close(pidfd);
		return;
	}
	close(child.pidfd);
	child.pidfd = pidfd;
	mr_send(child.control, MR_START, 0, 0, NULL, 0);
	kill(child_pid, SIGKILL); /* it has nothing more to do */
	waitpid(child_pid, NULL, __WALL);
	child_pid = pid;
}

/* Whether it is the master of a pseudo-terminal of the kernel's, and nothing that would keep us waiting. */
static bool is_master(int fd)
{
	struct stat st;
	return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(5, 2) && isatty(fd);
}

static void from_init(void)
{
	struct mr_message message;
	int fd, count = 1;
	int n = mr_receive(child.control, &message, &fd, &count);
	if (n <= 0) { /* close-on-exec: the program runs, or init is dead, which the pidfd tells */
		close(child.control);
		child.control = -1;
		if (ready && start_wanted && !failed_errno) {
			started = true;
			broadcast(MR_STARTED, child_pid, 0);
		}
		return;
	}
	if (message.type == MR_CONSOLE && count == 1 && option.tty && master < 0 && is_master(fd)) {
		master = input.fd = stream[OUT].fd = fd;
		fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK);
		if (window.ws_row)
			ioctl(master, TIOCSWINSZ, &window);
	} else if (count == 1) {
		close(fd);
	}
	if (message.type == MR_BORN && !ready) {
		born(message.c);
	} else if (message.type == MR_READY) {
		ready = true;
		broadcast(MR_CREATED, child_pid, 0);
		start_if_ready();
	} else if (message.type == MR_FAILED) {
		failed_op = message.a;
		failed_errno = message.b ? message.b : EIO;
		broadcast(MR_FAILED, failed_op, failed_errno);
	}
}

static bool killed_for_memory(void)
{
	char text[1024];
	int fd = option.oom ? open_file(option.oom, O_RDONLY) : -1;
	if (fd < 0)
		return false;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	if (n <= 0)
		return false;
	text[n] = '\0';
	/* the same word in v1's memory.oom_control and in v2's memory.events */
	char *count = strstr(text, "oom_kill ");
	return count && atol(count + strlen("oom_kill ")) > 0;
}

static void note_exit(int status, bool oom)
{
	char text[256], temporary[4096];
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	int code = signal ? 128 + signal : WEXITSTATUS(status);
	int length =
	    snprintf(text, sizeof text, "{\"code\": %d, \"signal\": %d, \"oom\": %s, \"finished\": %lld.%09ld}\n", code,
		     signal, oom ? "true" : "false", (long long)now.tv_sec, now.tv_nsec);
	snprintf(temporary, sizeof temporary, "%s.new", option.exit);
	int fd = open_file(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW);
	if (fd < 0)
		return;
	bool whole = write(fd, text, (size_t)length) == length;
	close(fd);
	if (whole)
		rename(temporary, option.exit);
}

/* Makes a pipe or opens /dev/null for each of the program's descriptors; with a pty, init brings its own. */
static int prepare_stdio(int ours[3])
{
	int null = open_file("/dev/null", O_RDWR);
	for (int i = 0; i < 3; i++) {
		int pair[2];
		child.stdio[i] = null;
		ours[i] = -1;
		if (option.tty || (i == 0 && !option.stdin_open))
			continue;
		if (pipe2(pair, O_CLOEXEC) < 0)
			return -1;
		child.stdio[i] = pair[i == 0 ? 0 : 1];
		ours[i] = pair[i == 0 ? 1 : 0];
		fcntl(ours[i], F_SETFL, O_NONBLOCK);
	}
	return null;
}

static int spawn(void)
{
	int ours[3];
	int null = prepare_stdio(ours);
	if (null < 0)
		return -1;
	child.cgroup = -1;
	if (option.cgroup && (child.cgroup = open_file(option.cgroup, O_RDONLY | O_DIRECTORY)) < 0)
		return -1;
	child.target = -1;
	if (option.target && (child.target = mr_open_process(option.target)) < 0)
		return -1;
	child.namespaces = option.namespaces;
	child.init = option.init;
	child.ops = option.ops;
	child.keep = option.keep;
	child_pid = mr_spawn(&child);
	if (child_pid < 0)
		return -1;
	for (int i = 0; i < 3; i++)
		if (child.stdio[i] != null)
			close(child.stdio[i]);
	for (int i = 3; i < 3 + option.keep; i++)
		close(i);
	close(null);
	close(option.init);
	close(option.ops);
	if (child.cgroup >= 0)
		close(child.cgroup);
	if (child.target >= 0)
		close(child.target);
	input.fd = ours[0];
	stream[OUT].fd = ours[1];
	stream[ERR].fd = ours[2];
	return 0;
}

/* --- the loop --- */

enum source { LISTENER, INIT, CHILD, CLIENT, CLIENT_INPUT, CLIENT_OUTPUT, STREAM, INPUT };

static struct pollfd polled[8 + MAX_CLIENTS * 4];
static struct {
	enum source source;
	int index, stream;
} meaning[8 + MAX_CLIENTS * 4];
static int poll_count;

static void watch(int fd, short events, enum source source, int index, int s)
{
	if (fd < 0)
		return;
	polled[poll_count] = (struct pollfd){.fd = fd, .events = events};
	meaning[poll_count].source = source;
	meaning[poll_count].index = index;
	meaning[poll_count++].stream = s;
}

static void watch_all(void)
{
	poll_count = 0;
	if (clients < MAX_CLIENTS)
		watch(listener, POLLIN, LISTENER, 0, 0);
	watch(child.control, POLLIN, INIT, 0, 0);
	if (!ended)
		watch(child.pidfd, POLLIN, CHILD, 0, 0);
	if (input.length)
		watch(input.fd, POLLOUT, INPUT, 0, 0);
	for (int s = 0; s < STREAMS; s++)
		if (taken_by_all(s))
			watch(stream[s].fd, POLLIN, STREAM, 0, s);
	for (int i = 0; i < clients; i++) {
		watch(client[i].socket, POLLIN, CLIENT, i, 0);
		if (!input.length && (input.fd >= 0 || (option.tty && !ready)) && !ended)
			watch(input.fd >= 0 ? client[i].input : -1, POLLIN, CLIENT_INPUT, i, 0);
		for (int s = 0; s < STREAMS; s++)
			if (client[i].taken[s] < stream[s].length)
				watch(client[i].output[s], POLLOUT, CLIENT_OUTPUT, i, s);
	}
}

static void handle(int at)
{
	int i = meaning[at].index, s = meaning[at].stream;
	switch (meaning[at].source) {
	case LISTENER: {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		struct client *c = fd >= 0 ? add_client(fd) : NULL;
		if (c && announced.type)
			mr_send(c->socket, announced.type, announced.a, announced.b, NULL, 0);
		break;
	}
	case INIT:
		from_init();
		break;
	case CHILD:
		ended = true;
		break;
	case CLIENT_INPUT:
		take(&client[i]);
		break;
	case CLIENT_OUTPUT:
		give(&client[i], s);
		break;
	case STREAM:
		read_stream(s);
		break;
	case INPUT:
		send_input();
		break;
	case CLIENT:
		break; /* served last: it may move the clients about */
	}
}

static bool drained(void)
{
	if (killed)
		return true; /* whoever wants it to end now does not want to wait for someone who does not read */
	for (int s = 0; s < STREAMS; s++)
		if (!taken_by_all(s))
			return false;
	return true;
}

/* Serves everyone until the program has ended and what it wrote has been delivered. */
static void loop(void)
{
	for (;;) {
		watch_all();
		int n = poll(polled, (nfds_t)poll_count, ended ? 0 : -1);
		if (n < 0 && errno != EINTR)
			return;
		if (ended && n == 0 && drained())
			return; /* a process that left the namespace may hold the pipe open; the program's own output is in */
		bool progress = false;
		for (int at = 0; at < poll_count; at++)
			if (polled[at].revents && meaning[at].source != CLIENT) {
				handle(at);
				progress |= meaning[at].source != LISTENER;
			}
		for (int at = poll_count - 1; at >= 0;
		     at--) /* from the last: dropping one moves the last into its place */
			if (polled[at].revents && meaning[at].source == CLIENT)
				serve(meaning[at].index);
		if (ended && !progress && !drained()) { /* a slow reader: wait for it */
			watch_all();
			poll(polled, (nfds_t)poll_count, -1);
		} else if (ended && !progress) {
			return;
		}
	}
}

/* Tells the end, lets the owner clean up, and does it for an owner that is gone or failed. */
static void finish(int status)
{
	bool oom = killed_for_memory();
	if (option.exit)
		note_exit(status, oom);
	for (int i = 0; i < clients; i++)
		if (client[i].raw)
			tcsetattr(client[i].input, TCSANOW, &client[i].saved);
	broadcast(MR_EXITED, status, oom);
	if (log_fd >= 0)
		close(log_fd);
	for (int i = clients - 1; i >= 0; i--)
		if (client[i].socket != option.owner)
			drop_client(i);
	/* Who connected just now hears it too; who comes later finds nobody, and waits for the lock. */
	for (struct pollfd late = {.fd = listener, .events = POLLIN}; listener >= 0 && poll(&late, 1, 0) > 0;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			break;
		mr_send(fd, MR_EXITED, status, oom, NULL, 0);
		close(fd);
	}
	if (listener >= 0)
		close(listener);
	struct mr_message message;
	while (option.owner >= 0 && mr_receive(option.owner, &message, NULL, NULL) > 0)
		;
	if (option.cleanup && (!option.needed || access(option.needed, F_OK) == 0)) {
		extern char **environ;
		execve(option.cleanup[0], option.cleanup, environ);
	}
}

/* Binds through a descriptor of the directory: a socket's address holds 107 bytes only, a path may be longer. */
static int listen_at(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char directory[4096];
	const char *name = strrchr(path, '/');
	if (!name || (size_t)(name - path) >= sizeof directory) {
		errno = EINVAL;
		return -1;
	}
	snprintf(directory, sizeof directory, "%.*s", (int)(name - path), path);
	int at = open_file(directory, O_PATH | O_DIRECTORY);
	if (at < 0)
		return -1;
	snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d%s", at, name);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	mode_t old = umask(0177);
	int result = bind(fd, (struct sockaddr *)&address, sizeof address);
	umask(old);
	close(at);
	return result < 0 || listen(fd, 16) < 0 ? -1 : fd;
}

static bool parse(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i];
		if (!strcmp(word, "--tty")) {
			option.tty = true;
		} else if (!strcmp(word, "--stdin")) {
			option.stdin_open = true;
		} else if (!strcmp(word, "--attached")) {
			option.attached = true;
		} else if (!strcmp(word, "--cleanup")) {
			option.cleanup = argv + i + 1; /* the rest of the words */
			return option.owner >= 0 && option.init >= 0 && option.ops >= 0 && argv[i + 1];
		} else if (i + 1 == argc) {
			return false;
		} else {
			const char *value = argv[++i];
			struct {
				const char *name, **text;
				int *number;
			} known[] = {{"--log", &option.log, NULL},       {"--exit", &option.exit, NULL},
				     {"--socket", &option.socket, NULL}, {"--oom", &option.oom, NULL},
				     {"--needed", &option.needed, NULL}, {"--cgroup", &option.cgroup, NULL},
				     {"--target", &option.target, NULL}, {"--ops", NULL, &option.ops},
				     {"--init", NULL, &option.init},     {"--owner", NULL, &option.owner},
				     {"--keep", NULL, &option.keep}};
			size_t k = 0, count = sizeof known / sizeof *known;
			while (k < count && strcmp(known[k].name, word))
				k++;
			if (!strcmp(word, "--namespaces"))
				option.namespaces = strtoull(value, NULL, 0);
			else if (k == count && strcmp(word, "--id")) /* the id is for people who read ps */
				return false;
			else if (k < count && known[k].text)
				*known[k].text = value;
			else if (k < count)
				*known[k].number = atoi(value);
		}
	}
	return option.owner >= 0 && option.init >= 0 && option.ops >= 0;
}

int main(int argc, char **argv)
{
	if (!parse(argc, argv)) {
		static const char usage[] =
		    "usage: minirun-monitor --owner FD --init FD --ops FD [--namespaces FLAGS] [--cgroup DIR]\n"
		    "  [--tty] [--stdin] [--attached] [--log FILE] [--exit FILE] [--socket PATH]\n"
		    "  [--oom FILE] [--needed PATH] [--id ID] [--keep N] [--target PID:START] [--cleanup PROGRAM "
		    "ARG...]\n";
		return write(2, usage, sizeof usage - 1) < 0 ? 125 : 125;
	}
	setsid(); /* a Ctrl-C in the terminal is for the command in front, which decides what it means */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (chdir("/") < 0)
		return 125;
	fcntl(option.owner, F_SETFD, FD_CLOEXEC);
	fcntl(option.init, F_SETFD, FD_CLOEXEC);
	fcntl(option.ops, F_SETFD, FD_CLOEXEC);
	struct client *owner = add_client(option.owner);
	if (option.attached) {
		int fds[3];
		for (int i = 0; i < 3; i++)
			fds[i] =
			    i || option.stdin_open ? (int)syscall(SYS_fcntl, i, F_DUPFD_CLOEXEC, 3 + option.keep) : -1;
		attach(owner, option.stdin_open, fds);
	}
	int null = open_file("/dev/null", O_RDWR);
	for (int i = 0; i < 3; i++)
		dup2(null, i);
	close(null);
	if (option.log)
		open_log();
	if ((option.socket && (listener = listen_at(option.socket)) < 0) || spawn() < 0) {
		mr_send(option.owner, MR_FAILED, -1, errno, NULL, 0);
		drop_client(0); /* makes its terminal whole again */
		return 125;
	}
	loop();
	siginfo_t info = {0};
	int status = 0;
	/* One whose tracer does not let go of it is dead without a status. */
	int n = waitpid(child_pid, &status, __WALL | (ended ? WNOHANG : 0));
	if (n == 0)
		status = SIGKILL;
	else if (n < 0 && waitid(P_PIDFD, (id_t)child.pidfd, &info, WEXITED) < 0)
		status = 125 << 8;
	finish(status);
	return 0;
}
