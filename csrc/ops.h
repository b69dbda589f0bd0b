/* minirun-init's vocabulary: one table of ops, each a function of its words. */
#ifndef MINIRUN_OPS_H
#define MINIRUN_OPS_H

#include <stdbool.h>
#include <stddef.h>

/* What one op leaves for those after it. */
struct container {
	int root;           /* the root file system, O_PATH; -1 before "root" or "overlay"                  */
	int control;        /* the socket to the spawner; -1 when run by hand                               */
	int keep;           /* descriptors above 2 that the program inherits                                */
	bool promised;      /* all others are closed                                                        */
	bool arrived;       /* in the working directory                                                     */
	int fifo;           /* what "wait" waits on                                                         */
	int report;         /* where a failure is written once the spawner is gone                          */
	char **environment; /* what the program gets; NULL-terminated                                       */
	size_t environment_size;
	char **program;         /* argv of the program, behind "--"                                                 */
	const char *executable; /* where "lookup" found it                                                  */
	bool terminal;          /* stdin is that of "console"                                               */
	int empty;              /* the one empty read-only directory that covers masked directories                 */
	int null;               /* the host's /dev/null, that covers masked files                                   */
};

struct op {
	const char *name;
	int words; /* how many follow the name */
	int (*run)(struct container *c, char **word);
};

extern const struct op mount_ops[], rootfs_ops[], namespace_ops[], process_ops[],
    hook_ops[]; /* each ends with a NULL name */

/* Opens `path` inside the root, close-on-exec; `resolve` (openat2(2)) says how: RESOLVE_IN_ROOT, then links stay within. */
int open_inside(struct container *c, const char *path, int flags, unsigned long long resolve);
/* A file of the host, before the root has changed. */
int open_host(const char *path, int flags);
/* Writes `text` with one write(2), and is done with `fd`; a negative one is the error of its open. */
int write_text(int fd, const char *text);
/* Sends a message (enum mr_type) with the number `point`, and waits until the spawner says MR_START. */
int wait_for_spawner(struct container *c, int type, int point);
/* Closes all descriptors but those that the program was promised, and what the wait for the start needs. */
int promise_descriptors(struct container *c);
/* Finds the program; -1 with ENOENT or EACCES. */
int resolve_program(struct container *c);

#endif
