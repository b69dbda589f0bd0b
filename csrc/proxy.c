/* minirun-proxy: passes on what comes to [::1], for one container; it ends with the container.
 *
 *   minirun-proxy [--owner TEXT] [--start FD] [--until FD] PROTOCOL LISTEN TARGET ...
 *
 * Everything else that is published is translated by nftables. The kernel takes no answer to ::1 from a network, so here
 * somebody has to listen. PROTOCOL is tcp or udp, LISTEN is @FD, a socket that is bound already, or an address like
 * [::1]:8080, TARGET an address like 10.201.0.2:80. Nothing is done before a byte comes from the socket --start: who
 * started us has noted by then who we are; should it die before, we end. A byte back says that we serve. --until is that
 * socket, whose other end lives as long as the container, or a pidfd of it: we end with it. Nothing is allocated: each
 * table has its end, and who comes late waits. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_LISTENERS 256
#define MAX_CONNECTIONS 512
#define MAX_CLIENTS 256 /* of UDP; one more takes the place of the one that was quiet longest */
#define QUIET 60        /* seconds after which a client of UDP is forgotten */
#define USER 65532      /* shared with nobody: systemd's list of numbers (UIDS-GIDS) leaves 65520 to 65533 unused */
#define PIPE 65536
#define BATCH 64  /* events that are fetched together */
#define ROUNDS 16 /* of one connection before another has its turn */
#define DATAGRAMS 32
#define ENDS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)

union address {
	struct sockaddr any;
	struct sockaddr_in in4;
	struct sockaddr_in6 in6;
};

static struct listener {
	int fd;
	bool udp;
	union address target;
} listener[MAX_LISTENERS];
static int listeners;

/* Side 0 is the client, 1 the container. What comes from a side goes through its pipe to the other. */
static struct connection {
	enum { FREE, LIVE, OVER } state; /* OVER: free when the events that were fetched together are handled */
	bool connected;
	int fd[2];
	struct flow {
		int pipe[2];
		size_t filled;
		bool ended, passed; /* its end came, and was passed on */
	} flow[2];
} connection[MAX_CONNECTIONS + BATCH]; /* of those that are over there are fewer than events */
static int connections, most;

static struct client {
	int fd; /* connected to the target; -1: free */
	int listener;
	struct sockaddr_in6 address;
	time_t used;
} client[MAX_CLIENTS];
static int clients;

enum source { UNTIL, LISTENER, CONNECTION, CLIENT };
static int events;

static void watch(int operation, int fd, uint32_t what, enum source source, unsigned index)
{
	struct epoll_event event = {.events = what, .data.u64 = (uint64_t)source << 32 | index};
	epoll_ctl(events, operation, fd, &event);
}

static socklen_t size_of(const union address *address)
{
	return address->any.sa_family == AF_INET ? sizeof address->in4 : sizeof address->in6;
}

/* --- TCP --- */

static void close_flow(struct flow *f)
{
	close(f->pipe[0]);
	close(f->pipe[1]);
}

/* With `broken` both ends learn that it was no orderly end: a reset instead of a FIN. */
static void end(struct connection *c, bool broken)
{
	const struct linger at_once = {.l_onoff = 1};
	for (int side = 0; side < 2; side++) {
		if (broken)
			setsockopt(c->fd[side], SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
		close(c->fd[side]);
		close_flow(&c->flow[side]);
	}
	c->state = OVER;
	connections--;
}

static ssize_t move(int from, int to, size_t length)
{
	return splice(from, NULL, to, NULL, length, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
}

/* Moves what there is from one side to the other. Returns 1 if there is more, 0 if it has to wait, -1 if it broke. */
static int pump(struct connection *c, int from)
{
	struct flow *f = &c->flow[from];
	for (int round = 0; round < ROUNDS; round++) {
		ssize_t in = -1, out = -1;
		if (!f->ended && f->filled < PIPE) {
			in = move(c->fd[from], f->pipe[1], PIPE - f->filled);
			if (in < 0 && errno != EAGAIN)
				return -1;
			f->ended = in == 0;
			f->filled += in > 0 ? (size_t)in : 0;
		}
		if (f->filled > 0) {
			out = move(f->pipe[0], c->fd[!from], f->filled);
			if (out < 0 && errno != EAGAIN)
				return -1;
			f->filled -= out > 0 ? (size_t)out : 0;
		}
		if (f->ended && f->filled == 0 && !f->passed) {
			f->passed = true;
			shutdown(c->fd[!from], SHUT_WR);
		}
		if (in <= 0 && out <= 0)
			return 0;
	}
	return 1;
}

static void serve_connection(unsigned index, uint32_t what)
{
	struct connection *c = &connection[index >> 1];
	unsigned side = index & 1;
	int error = 0;
	socklen_t length = sizeof error;
	if (c->state != LIVE)
		return;
	if (!c->connected) {
		if (side == 0 || !(what & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
			return;
		if (getsockopt(c->fd[1], SOL_SOCKET, SO_ERROR, &error, &length) < 0 || error) {
			end(c, true);
			return;
		}
		c->connected = true;
	}
	int first = pump(c, 0), second = first < 0 ? -1 : pump(c, 1);
	if (first < 0 || second < 0)
		end(c, true);
	else if (c->flow[0].passed && c->flow[1].passed)
		end(c, false);
	else if (first || second) /* asked for again, an event that stands is told again */
		watch(EPOLL_CTL_MOD, c->fd[side], ENDS, CONNECTION, index);
}

static bool connect_to(struct connection *c, const struct listener *l)
{
	const int on = 1;
	c->fd[1] = socket(l->target.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd[1] < 0)
		return false;
	setsockopt(c->fd[0], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	setsockopt(c->fd[1], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (connect(c->fd[1], &l->target.any, size_of(&l->target)) < 0 && errno != EINPROGRESS) {
		close(c->fd[1]);
		return false;
	}
	return true;
}

/* Takes over an accepted connection, or returns false and leaves it. */
static bool begin(int fd, const struct listener *l)
{
	unsigned i = 0;
	while (connection[i].state != FREE)
		if (++i == MAX_CONNECTIONS + BATCH)
			return false;
	struct connection *c = &connection[i];
	*c = (struct connection){.fd = {fd, -1}};
	if (pipe2(c->flow[0].pipe, O_NONBLOCK | O_CLOEXEC) < 0)
		return false;
	if (pipe2(c->flow[1].pipe, O_NONBLOCK | O_CLOEXEC) < 0) {
		close_flow(&c->flow[0]);
		return false;
	}
	if (!connect_to(c, l)) {
		close_flow(&c->flow[0]);
		close_flow(&c->flow[1]);
		return false;
	}
	c->state = LIVE;
	connections++;
	watch(EPOLL_CTL_ADD, c->fd[0], ENDS, CONNECTION, i << 1);
	watch(EPOLL_CTL_ADD, c->fd[1], ENDS, CONNECTION, i << 1 | 1);
	return true;
}

/* Beyond `most`, clients wait in the kernel's queue until a connection ends. */
static void accept_from(const struct listener *l)
{
	const struct linger at_once = {.l_onoff = 1};
	while (connections < most) {
		int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0)
			return;
		if (!begin(fd, l)) {
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
			close(fd);
		}
	}
}

/* --- UDP: each client has a socket of its own to the container, by which the answers are told apart --- */

static char datagram[65536];

static time_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec;
}

static void forget(struct client *c)
{
	close(c->fd);
	c->fd = -1;
	clients--;
}

static void forget_quiet(void)
{
	for (int i = 0; i < MAX_CLIENTS; i++)
		if (client[i].fd >= 0 && now() - client[i].used > QUIET)
			forget(&client[i]);
}

static bool same(const struct client *c, int l, const struct sockaddr_in6 *from)
{
	return c->fd >= 0 && c->listener == l && c->address.sin6_port == from->sin6_port &&
	       !memcmp(&c->address.sin6_addr, &from->sin6_addr, sizeof from->sin6_addr);
}

static struct client *client_of(int l, const struct sockaddr_in6 *from)
{
	struct client *place = &client[0];
	for (int i = 0; i < MAX_CLIENTS; i++) {
		if (same(&client[i], l, from))
			return &client[i];
		if (place->fd >= 0 && (client[i].fd < 0 || client[i].used < place->used))
			place = &client[i];
	}
	if (place->fd >= 0)
		forget(place);
	const union address *target = &listener[l].target;
	int fd = socket(target->any.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return NULL;
	if (connect(fd, &target->any, size_of(target)) < 0) {
		close(fd);
		return NULL;
	}
	*place = (struct client){.fd = fd, .listener = l, .address = *from};
	clients++;
	watch(EPOLL_CTL_ADD, fd, EPOLLIN, CLIENT, (unsigned)(place - client));
	return place;
}

static void from_client(int l)
{
	for (int i = 0; i < DATAGRAMS; i++) {
		struct sockaddr_in6 from;
		socklen_t length = sizeof from;
		ssize_t n = recvfrom(listener[l].fd, datagram, sizeof datagram, 0, (struct sockaddr *)&from, &length);
		if (n < 0)
			return;
		struct client *c = client_of(l, &from);
		if (!c)
			continue;
		c->used = now();
		/* An earlier one was refused, which is told now; this one has its own chance. */
		if (send(c->fd, datagram, (size_t)n, 0) < 0 && errno == ECONNREFUSED)
			send(c->fd, datagram, (size_t)n, 0);
	}
}

static void from_container(struct client *c)
{
	for (int i = 0; i < DATAGRAMS && c->fd >= 0; i++) {
		ssize_t n = recv(c->fd, datagram, sizeof datagram, 0);
		if (n < 0)
			return; /* of ECONNREFUSED too: it was told, and is gone */
		c->used = now();
		sendto(listener[c->listener].fd, datagram, (size_t)n, 0, (struct sockaddr *)&c->address,
		       sizeof c->address);
	}
}

/* --- the loop --- */

static void loop(void)
{
	struct epoll_event fetched[BATCH];
	for (;;) {
		int was = connections;
		int n = epoll_wait(events, fetched, BATCH, clients ? QUIET * 250 : -1);
		for (int i = 0; i < n; i++) {
			unsigned index = (unsigned)fetched[i].data.u64;
			enum source source = (enum source)(fetched[i].data.u64 >> 32);
			if (source == UNTIL)
				return;
			if (source == CONNECTION)
				serve_connection(index, fetched[i].events);
			else if (source == CLIENT)
				from_container(&client[index]);
			else if (listener[index].udp)
				from_client((int)index);
			else
				accept_from(&listener[index]);
		}
		for (int i = 0; i < MAX_CONNECTIONS + BATCH; i++)
			if (connection[i].state == OVER)
				connection[i].state = FREE;
		for (int i = 0; connections < was && i < listeners; i++)
			if (!listener[i].udp) /* whoever waited for a place */
				accept_from(&listener[i]);
		forget_quiet();
	}
}

/* "[fd00::2]:80" or "10.201.0.2:80" */
static bool parse_address(const char *text, union address *address)
{
	char host[INET6_ADDRSTRLEN + 2];
	const char *colon = strrchr(text, ':');
	size_t length = colon ? (size_t)(colon - text) : 0;
	int port = colon ? atoi(colon + 1) : 0;
	if (length == 0 || length >= sizeof host || port < 1 || port > 65535)
		return false;
	memcpy(host, text, length);
	host[length] = '\0';
	memset(address, 0, sizeof *address);
	if (host[0] == '[' && host[length - 1] == ']') {
		host[length - 1] = '\0';
		address->in6.sin6_family = AF_INET6;
		address->in6.sin6_port = htons((uint16_t)port);
		return inet_pton(AF_INET6, host + 1, &address->in6.sin6_addr) == 1;
	}
	address->in4.sin_family = AF_INET;
	address->in4.sin_port = htons((uint16_t)port);
	return inet_pton(AF_INET, host, &address->in4.sin_addr) == 1;
}

static int bound(const char *text, bool udp)
{
	const int on = 1;
	union address address;
	if (text[0] == '@')
		return atoi(text + 1);
	if (!parse_address(text, &address) || address.any.sa_family != AF_INET6)
		return -1;
	int fd = socket(AF_INET6, udp ? SOCK_DGRAM : SOCK_STREAM, 0);
	if (fd < 0)
		return -1;
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
	if (!udp)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	return bind(fd, &address.any, sizeof address.in6) < 0 ? -1 : fd;
}

static bool add_listener(char **words)
{
	if (listeners == MAX_LISTENERS || !words[0] || !words[1] || !words[2])
		return false;
	struct listener *l = &listener[listeners];
	l->udp = !strcmp(words[0], "udp");
	if ((!l->udp && strcmp(words[0], "tcp")) || !parse_address(words[2], &l->target))
		return false;
	l->fd = bound(words[1], l->udp);
	if (l->fd < 0 || fcntl(l->fd, F_SETFL, O_NONBLOCK) < 0 || (!l->udp && listen(l->fd, SOMAXCONN) < 0))
		return false;
	watch(EPOLL_CTL_ADD, l->fd, l->udp ? EPOLLIN : EPOLLIN | EPOLLET, LISTENER, (unsigned)listeners++);
	return true;
}

/* From here on a user without a right, and without a way to one. */
static bool drop_privileges(void)
{
	if (geteuid() == 0 &&
	    (setgroups(0, NULL) < 0 || setresgid(USER, USER, USER) < 0 || setresuid(USER, USER, USER) < 0))
		return false;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0;
}

/* A connection takes six descriptors: two sockets and two pipes. */
static void set_limits(void)
{
	struct rlimit files = {.rlim_cur = 1024};
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max < 65536 ? files.rlim_max : 65536;
	setrlimit(RLIMIT_NOFILE, &files);
	getrlimit(RLIMIT_NOFILE, &files);
	long room = ((long)files.rlim_cur - 16 - listeners - MAX_CLIENTS) / 6;
	most = room > MAX_CONNECTIONS ? MAX_CONNECTIONS : room < 1 ? 1 : (int)room;
}

/* Whether whoever started us says that it has noted who we are. */
static bool told_to_start(int from)
{
	char byte;
	ssize_t n;
	do
		n = recv(from, &byte, 1, 0);
	while (n < 0 && errno == EINTR);
	return n == 1;
}

int main(int argc, char **argv)
{
	int start = -1, until = -1, at = 1;
	for (; at + 1 < argc && !strncmp(argv[at], "--", 2); at += 2)
		if (!strcmp(argv[at], "--until"))
			until = atoi(argv[at + 1]);
		else if (!strcmp(argv[at], "--start"))
			start = atoi(argv[at + 1]);
	if (start >= 0 && !told_to_start(start))
		return 125;
	events = epoll_create1(EPOLL_CLOEXEC);
	for (int i = 0; i < MAX_CLIENTS; i++)
		client[i].fd = -1;
	bool valid = at < argc && events >= 0;
	for (; valid && at < argc; at += 3)
		valid = add_listener(argv + at);
	if (!valid) {
		static const char usage[] =
		    "usage: minirun-proxy [--owner TEXT] [--start FD] [--until FD] tcp|udp @FD|[ADDRESS]:PORT "
		    "TARGET:PORT ...\n";
		return write(2, usage, sizeof usage - 1) < 0 ? 125 : 125;
	}
	if (until >= 0)
		watch(EPOLL_CTL_ADD, until, EPOLLIN, UNTIL, 0);
	set_limits();
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (chdir("/") < 0 || !drop_privileges())
		return 125;
	if (start >= 0 && send(start, "1", 1, 0) < 0)
		return 125;
	if (start >= 0 && start != until)
		close(start);
	loop();
	return 0;
}
