/* The datagrams between init, its spawner, the monitor and its clients; see minirun.h. */
#define _GNU_SOURCE
#include "minirun.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FDS 4

int mr_send(int sock, int type, int a, int b, const int *fds, int fd_count)
{
	struct mr_message message = {.type = type, .a = a, .b = b};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
	} ancillary = {0};
	struct iovec iov = {&message, sizeof message};
	struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
	if (fd_count > 0) {
		header.msg_control = &ancillary;
		header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		struct cmsghdr *rights = &ancillary.align;
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(rights), fds, fd_count * sizeof(int));
	}
	return sendmsg(sock, &header, MSG_NOSIGNAL) == sizeof message ? 0 : -1;
}

int mr_receive(int sock, struct mr_message *message, int *fds, int *fd_count)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(MAX_FDS * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
	} ancillary;
	int sender = 0;
	struct iovec iov = {message, sizeof *message};
	struct msghdr header = {
	    .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &ancillary, .msg_controllen = sizeof ancillary};
	int room = fd_count ? *fd_count : 0, received = 0;
	ssize_t length;
	do
		length = recvmsg(sock, &header, MSG_CMSG_CLOEXEC);
	while (length < 0 && (errno == EINTR || errno == ECONNRESET));
	/* ECONNRESET comes once, before what is queued: the other end closed without reading what we had sent. */
	if (length < 0)
		return -1;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c)) {
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS)
			memcpy(&sender, CMSG_DATA(c) + offsetof(struct ucred, pid), sizeof sender);
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		int count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (int i = 0; i < count; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
			if (received < room && length == sizeof *message)
				fds[received++] = fd;
			else
				close(fd);
		}
	}
	if (fd_count)
		*fd_count = received;
	if (length == sizeof *message) {
		message->c = sender;
		return 1;
	}
	errno = EPROTO;
	return length ? -1 : 0;
}
