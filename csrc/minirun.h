/* What the C parts of minirun share: the message that they exchange, and how a process is spawned.
 *
 *   shim.c     in Python (cffi): what Python cannot call by itself
 *   message.c  in all: the datagrams
 *   spawn.c    in both outer parts: clone3 into namespaces, then exec minirun-init from a sealed memfd
 *   monitor.c  minirun-monitor, outside: holds stdio or the pty, writes the log, notes the exit
 *   init.c, and a file for each kind of op    minirun-init, inside: performs a list of ops, then becomes the program
 */
#ifndef MINIRUN_H
#define MINIRUN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* One datagram on a SOCK_SEQPACKET socket. Between init and its spawner, and between the monitor and its clients. */
enum mr_type {
	MR_READY = 1, /* init -> spawner: all ops before "ready" are done                              */
	MR_START,     /* spawner -> init, client -> monitor: go on                                      */
	MR_FAILED,    /* upward: op number `a` failed with errno `b`                                    */
	MR_CONSOLE,   /* init -> spawner: the master of the container's pty comes with this datagram    */
	MR_CREATED,   /* monitor -> client: init is ready, its host pid is `a`                          */
	MR_STARTED,   /* monitor -> client: the program runs                                            */
	MR_EXITED,    /* monitor -> client: wait status `a`; `b` is 1 if the kernel killed it for memory */
	MR_SIGNAL,    /* client -> monitor: send signal `a` to process 1; if `b` is 1, leave the clean-up to me */
	MR_WINSIZE,   /* client -> monitor: the terminal has now `a` rows and `b` columns               */
	MR_ATTACH,    /* client -> monitor: stdin (if `a` is 1), stdout and stderr come with this        */
	MR_SYNC,      /* init -> spawner: at sync point `a`; waits for MR_START                          */
	MR_BORN,      /* init -> spawner: "fork" made me, I go on; waits for MR_START                    */
	MR_LISTENER,  /* init -> spawner: the seccomp listener comes with this datagram                 */
	MR_SAID,      /* init -> spawner: a hook ended with wait status `a`; its stderr comes with this   */
};

/* `c`, on receipt, is the sender's pid as the kernel knows it (SCM_CREDENTIALS), in the receiver's PID namespace; 0 on a
 * socket that does not ask for it. A process inside that forges a message cannot make it that of another. */
struct mr_message {
	int32_t type, a, b, c;
};

int mr_send(int sock, int type, int a, int b, const int *fds, int fd_count);
/* Returns 1 for a message, 0 at the end of the stream, -1 with errno. *fd_count: in capacity, out received. */
int mr_receive(int sock, struct mr_message *message, int *fds, int *fd_count);

struct mr_spawn {
	uint64_t namespaces; /* CLONE_NEW* flags of namespaces that are made new                     */
	int cgroup;          /* cgroup v2 directory to be born in (CLONE_INTO_CGROUP), or -1         */
	int target;          /* a pidfd of the process whose namespaces "enter" enters, or -1            */
	int init;            /* minirun-init, a sealed memfd                                         */
	int ops;             /* the op list: NUL-terminated words                                    */
	int stdio[3];        /* what becomes 0, 1 and 2                                              */
	int keep;            /* further descriptors 3 .. 3+keep-1 that the program inherits          */
	/* out */
	int pidfd;   /* of the new process                                                            */
	int control; /* our end of the socket to init                                                 */
};

/* Returns the host pid of init, or -1 with errno. With "fork" among its ops another process, our child too, goes on:
 * MR_BORN tells. */
int mr_spawn(struct mr_spawn *spawn);

/* A pidfd of the process "PID:START", START as in field 22 of proc_pid_stat(5). The pidfd is taken before START is
 * compared, so the number cannot pass to another process in between: ESRCH if it has. */
int mr_open_process(const char *name);

/* A sealed memfd with the contents of the file at `path`; -1 with errno. */
int mr_sealed_copy(const char *path);

#endif
