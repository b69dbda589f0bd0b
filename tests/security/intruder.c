/* The enemy of tests/security: what a hostile program does with what it can reach.
 *
 *   intruder look      tells what there is to be had of every process called minirun-init
 *   intruder hunt      the same without end, each finding once; and it stops them, takes their sockets, speaks for them
 *   intruder surface   tries what the kernel has beside files, and tells the errno of each
 *   intruder --spawned 0   in place of minirun-init: says to the spawner what the script on its op list says
 */
#define _GNU_SOURCE
#include "../../csrc/minirun.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static bool once; /* tell each finding once */

static void tell(const char *what, const char *value)
{
	static char known[512][256];
	static int count;
	char line[256];
	snprintf(line, sizeof line, "%s %.200s", what, value);
	for (int i = 0; once && i < count; i++)
		if (!strcmp(known[i], line))
			return;
	if (once && count < 512)
		strcpy(known[count++], line);
	puts(line);
	fflush(stdout);
}

/* Sends a datagram that says it is from process `pid`, which only CAP_SYS_ADMIN may make up. */
static void forge(int sock, int pid, int type, int a, int b, const int *fds, int count, size_t size)
{
	struct mr_message message = {.type = type, .a = a, .b = b};
	char ancillary[512] = {0};
	struct iovec iov = {&message, size};
	struct msghdr header = {
	    .msg_iov = &iov, .msg_iovlen = 1, .msg_control = ancillary, .msg_controllen = sizeof ancillary};
	struct cmsghdr *c = CMSG_FIRSTHDR(&header);
	size_t used = 0;
	if (count > 0) {
		*c = (struct cmsghdr){
		    .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(count * sizeof(int))};
		memcpy(CMSG_DATA(c), fds, count * sizeof(int));
		used = CMSG_SPACE(count * sizeof(int));
	}
	if (pid > 0) {
		struct ucred as = {.pid = pid};
		c = (struct cmsghdr *)(ancillary + used);
		*c = (struct cmsghdr){
		    .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_CREDENTIALS, .cmsg_len = CMSG_LEN(sizeof as)};
		memcpy(CMSG_DATA(c), &as, sizeof as);
		used += CMSG_SPACE(sizeof as);
	}
	header.msg_controllen = used;
	if (sendmsg(sock, &header, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && !once)
		tell("unsent", strerror(errno));
}

/* --- look and hunt --- */

static void speak_for(int pid, int sock)
{
	int pipes[2], fds[4];
	if (pipe(pipes) < 0)
		return;
	for (int i = 0; i < 4; i++)
		fds[i] = pipes[0];
	for (int type = MR_READY; type <= MR_SAID; type++)
		for (int from = 0; from < 2; from++)
			forge(sock, from ? pid : 1, type, -1, from, fds, type % 4, sizeof(struct mr_message));
	forge(sock, 1, MR_BORN, 0, 0, NULL, 0, sizeof(struct mr_message));
	forge(sock, 0, MR_BORN, 0, 0, NULL, 0, 3);
	close(pipes[0]);
	close(pipes[1]);
}

static void steal(int pid, bool speak)
{
	char what[32], type[32], path[64], target[128];
	for (int number = 0; number < 32; number++) {
		snprintf(what, sizeof what, "link fd %d", number);
		snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, number);
		ssize_t n = readlink(path, target, sizeof target - 1);
		if (n > 0) {
			target[n] = '\0';
			target[strcspn(target, ":")] = '\0'; /* without the number of a pipe or a socket */
			tell(what, target);
		}
	}
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	for (int number = 0; pidfd >= 0 && number < 32; number++) {
		struct stat st;
		int fd = (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);
		if (fd < 0 || fstat(fd, &st) < 0)
			continue;
		snprintf(what, sizeof what, "stolen %d", number);
		snprintf(type, sizeof type, "%o", st.st_mode & S_IFMT);
		tell(what, type);
		if (speak && S_ISSOCK(st.st_mode))
			speak_for(pid, fd);
		close(fd);
	}
	if (pidfd >= 0)
		close(pidfd);
}

static void follow(int pid, const char *name)
{
	char path[64], target[128], what[64];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	snprintf(what, sizeof what, "link %s", name);
	ssize_t n = readlink(path, target, sizeof target - 1);
	if (n < 0)
		return;
	target[n] = '\0';
	tell(what, target);
	int fd = strcmp(name, "exe") ? -1 : open(path, O_WRONLY | O_NONBLOCK);
	if (fd >= 0)
		tell("writable", name);
	close(fd);
}

static void look_at(int pid, bool attack)
{
	char path[64], line[256], byte[1];
	snprintf(path, sizeof path, "/proc/%d/status", pid);
	FILE *status = fopen(path, "r");
	while (status && fgets(line, sizeof line, status))
		if (!strncmp(line, "CapPrm:", 7) || !strncmp(line, "Uid:", 4)) {
			char *value = line + strcspn(line, "\t") + 1;
			value[strcspn(value, "\t\n")] = '\0';
			line[strcspn(line, ":")] = '\0';
			tell(line, value);
		}
	if (status)
		fclose(status);
	for (int i = 0; i < 3; i++)
		follow(pid, (const char *[]){"root", "cwd", "exe"}[i]);
	snprintf(path, sizeof path, "/proc/%d/maps", pid);
	FILE *maps = fopen(path, "r");
	unsigned long start = 0;
	if (maps && fscanf(maps, "%lx", &start) == 1) {
		snprintf(path, sizeof path, "/proc/%d/mem", pid);
		int mem = open(path, O_RDWR);
		if (mem >= 0 && pread(mem, byte, 1, (off_t)start) == 1)
			tell("memory", "read");
		close(mem);
	}
	if (maps)
		fclose(maps);
	steal(pid, attack);
	if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) { /* PTRACE_ATTACH might leave it stopped for ever */
		tell("traced", "yes");
		ptrace(PTRACE_INTERRUPT, pid, 0, 0);
		waitpid(pid, NULL, __WALL);
		ptrace(PTRACE_DETACH, pid, 0, 0);
	}
}

static int look(bool attack)
{
	DIR *proc = opendir("/proc");
	for (struct dirent *entry; proc && (entry = readdir(proc));) {
		char path[300], name[64] = "";
		int pid = atoi(entry->d_name), fd;
		snprintf(path, sizeof path, "/proc/%s/comm", entry->d_name);
		if (pid <= 0 || pid == getpid() || (fd = open(path, O_RDONLY)) < 0)
			continue;
		ssize_t n = read(fd, name, sizeof name - 1);
		close(fd);
		/* Before Linux 6.14 what execveat executes by its descriptor is called by the number of that. */
		if (n > 0 && (!strncmp(name, "memfd:minirun", 13) || strspn(name, "0123456789") + 1 == (size_t)n)) {
			tell("seen", "yes");
			look_at(pid, attack);
		}
	}
	if (proc)
		closedir(proc);
	return 0;
}

/* --- surface --- */

static char room[4096];

static void try(const char *name, long result)
{
	char text[16];
	snprintf(text, sizeof text, "%d", result < 0 ? errno : 0);
	tell(name, text);
	if (result > 2)
		close((int)result);
}

static void try_in_child(const char *name, void (*attempt)(void))
{
	char text[16];
	int status = 0;
	pid_t pid = fork();
	if (pid == 0) {
		attempt();
		_exit(0);
	}
	waitpid(pid, &status, 0);
	snprintf(text, sizeof text, "%d", WIFSIGNALED(status) ? -WTERMSIG(status) : 0);
	tell(name, text);
}

#ifdef __x86_64__
static void by_int80(void)
{
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
}

static void by_x32(void)
{
	syscall(0x40000000 | SYS_getpid);
}
#endif

static int surface(void)
{
	try("AF_ALG", socket(38, SOCK_SEQPACKET, 0));
	try("AF_VSOCK", socket(40, SOCK_STREAM, 0));
	try("AF_RXRPC", socket(33, SOCK_DGRAM, 2));
	try("AF_KEY", socket(15, SOCK_RAW, 2));
	try("AF_PACKET", socket(17, SOCK_RAW, 0));
	try("NETLINK_XFRM", socket(16, SOCK_RAW, 6));
	try("NETLINK_NETFILTER", socket(16, SOCK_RAW, 12));
	try("mount", syscall(SYS_mount, NULL, NULL, NULL, 0, NULL));
	try("setns", syscall(SYS_setns, -1, 0));
	try("io_uring_setup", syscall(425, 1, room));
	try("bpf", syscall(SYS_bpf, 0, NULL, 0));
	try("keyctl", syscall(SYS_keyctl, 0, -1, 1));
	try("add_key", syscall(SYS_add_key, NULL, NULL, NULL, 0, 0));
	try("perf_event_open", syscall(SYS_perf_event_open, NULL, 0, 0, -1, 0));
	try("userfaultfd", syscall(SYS_userfaultfd, 1));
	try("open_by_handle_at", syscall(SYS_open_by_handle_at, -1, NULL, 0));
	try("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, -1));
	try("init_module", syscall(SYS_init_module, NULL, 0, NULL));
	try("syslog", syscall(SYS_syslog, 10, NULL, 0));
	try("swapon", syscall(SYS_swapon, NULL, 0));
	try("personality", syscall(SYS_personality, 0x0400000));
	try("TIOCSTI", ioctl(0, 0x5412, "x"));
	try("clone3", syscall(SYS_clone3, NULL, 0));
	try("unshare user", unshare(CLONE_NEWUSER));
#ifdef __x86_64__
	try_in_child("int80", by_int80);
	try_in_child("x32", by_x32);
#endif
	return 0;
}

/* --- in place of minirun-init --- */

/* Until the spawner is gone, or a signal comes. */
static void stay(int control)
{
	struct pollfd spawner = {.fd = control};
	poll(&spawner, 1, -1);
	_exit(0);
}

static int from_script(int control)
{
	static char script[4096];
	int fds[64], count = 0, as = 0, value[3] = {0};
	ssize_t n = pread(control + 1, script, sizeof script - 1, 0);
	for (char *word = script; word < script + n; word += strlen(word) + 1) {
		if (sscanf(word, "as %d", &as) == 1)
			continue;
		if (!strncmp(word, "open ", 5))
			fds[count++] = open(word + 5, O_RDWR | O_NONBLOCK);
		else if (sscanf(word, "send %d %d %d", value, value + 1, value + 2) == 3)
			forge(control, as, value[0], value[1], value[2], fds, count, sizeof(struct mr_message)),
			    count = 0;
		else if (sscanf(word, "short %d", value) == 1)
			forge(control, as, MR_READY, 0, 0, fds, count, (size_t)value[0]), count = 0;
		else if (!strcmp(word, "hear"))
			(void)!read(control, room, sizeof room);
		else if (!strcmp(word, "stay"))
			stay(control);
		else if (!strcmp(word, "traced")) {
			char byte;
			int pair[2];
			if (pipe(pair) == 0 && fork() == 0) {
				ptrace(PTRACE_SEIZE, getppid(), 0, 0);
				(void)!write(pair[1], "", 1);
				stay(control);
			}
			(void)!read(pair[0], &byte, 1);
		} else if (!strcmp(word, "child") && fork() > 0)
			stay(control);
		else if (!strcmp(word, "sibling") &&
			 syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, NULL) > 0)
			stay(control);
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--spawned"))
		return from_script(3 + atoi(argv[2]));
	if (argc == 2 && !strcmp(argv[1], "surface"))
		return surface();
	once = argc == 2 && !strcmp(argv[1], "hunt");
	if (once)
		puts("ready"), fflush(stdout);
	do
		look(once);
	while (once);
	return 0;
}
