/* The ops that make the container's root, what is in it besides mounts, and that it is "/" at the end. */
#define _GNU_SOURCE
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static bool shared; /* whether mounts of this namespace reach others: "propagation" said so */

/* propagation MODE: of the mount that is "/", "rslave" and so on of all: before the root is made, what mounts of the
 * host mean here; behind "pivot", what those of the container mean to mounts that are bound to its root later */
static int op_propagation(struct container *c, char **word)
{
	(void)c;
	unsigned long flag = propagation_flag(word[0]);
	shared = flag & MS_SHARED;
	if (flag)
		return mount(NULL, "/", NULL, flag, NULL);
	errno = EINVAL;
	return -1;
}

/* The mount that the directory lies in becomes private. Only the top of a mount names it, so this climbs. */
static int make_private(int directory)
{
	struct mount_attr attr = {.propagation = MS_PRIVATE};
	int fd = directory, result;
	for (int depth = 0; (result = set_attributes(fd, &attr, 0)) < 0 && errno == EINVAL && depth < PATH_MAX;
	     depth++) {
		int up = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		fd = fd == directory ? up : closed(fd, up);
	}
	return fd == directory ? result : closed(fd, result);
}

/* root PATH: a directory becomes a mount of its own, as pivot_root(2) needs it, and the root of what follows. Nothing
 * that is mounted in it reaches the host. One that this process cannot reach, since it is in a user namespace and
 * "tree" took it before, comes to lie on "/". */
static int op_root(struct container *c, char **word)
{
	struct mount_attr attr = {.propagation = MS_PRIVATE};
	int fd = clone_tree(c, word[0], true);
	if (fd < 0 || set_attributes(fd, &attr, AT_RECURSIVE) < 0)
		return -1;
	int target = open_host(word[0], O_PATH | O_DIRECTORY);
	if (target < 0 && errno == EACCES)
		target = open_host("/", O_PATH | O_DIRECTORY);
	if (target < 0 || (shared && make_private(target) < 0) || attach_mount(fd, target) < 0)
		return -1;
	c->root = fd; /* not `target`: that is what lies beneath */
	return closed(target, 0);
}

/* overlay PATH OPTIONS: the layers and the writable one, joined at PATH, in this mount namespace only */
static int op_overlay(struct container *c, char **word)
{
	if (mount("overlay", word[0], "overlay", 0, word[1]) < 0)
		return -1;
	c->root = open_host(word[0], O_PATH | O_DIRECTORY);
	return c->root < 0 ? -1 : 0;
}

static int enter_root(struct container *c)
{
	if (c->root >= 0)
		return fchdir(c->root);
	errno = EBADF;
	return -1;
}

/* pivot: the root becomes "/", and the host's tree is gone from this namespace */
static int op_pivot(struct container *c, char **word)
{
	(void)word;
	if (enter_root(c) < 0)
		return -1;
	int old = shared ? open_host("/", O_PATH | O_DIRECTORY) : -1;
	/* With both arguments ".", the old root lands on top of the new one and is detached from there: no directory
	 * has to be made in the image (pivot_root(2), NOTES). */
	if ((shared && old < 0) || syscall(SYS_pivot_root, ".", ".") < 0)
		return -1;
	/* Where mounts reach the host so does their end: the old tree must be cut off first, or the host loses its
	 * own /proc, /run and all. The new root has moved out of that tree and stays shared. */
	if (shared && (fchdir(old) < 0 || mount(NULL, ".", NULL, MS_SLAVE | MS_REC, NULL) < 0))
		return -1;
	if (umount2(".", MNT_DETACH) < 0)
		return -1;
	return closed(old, chdir("/"));
}

/* chroot: for a container without a mount namespace of its own: the host's tree is out of sight, and still there */
static int op_chroot(struct container *c, char **word)
{
	(void)word;
	return enter_root(c) < 0 || chroot(".") < 0 ? -1 : chdir("/");
}

/* move-root: instead of "pivot" where that is refused, on the root file system of an initramfs. The host's tree stays
 * beneath; its procfs and sysfs go, since by them a user namespace could get at what is masked here. */
static int op_move_root(struct container *c, char **word)
{
	while (umount2("/proc", MNT_DETACH) == 0 || umount2("/sys", MNT_DETACH) == 0)
		;
	if (enter_root(c) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0)
		return -1;
	return op_chroot(c, word);
}

/* Whether what is at `name` already is the device, or an empty file that an earlier container left to mount it on. */
static int check_node(int parent, const char *name, mode_t type, dev_t device)
{
	struct stat st;
	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -1;
	if ((st.st_mode & S_IFMT) == type && (type == S_IFIFO || st.st_rdev == device))
		return 0;
	errno = S_ISREG(st.st_mode) && !st.st_size ? EPERM : EEXIST;
	return -1;
}

static int bind_node(struct container *c, const char *path, dev_t device)
{
	struct stat st;
	int fd = make_bind(path, false);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -1;
	if (st.st_rdev != device) {
		errno = ENODEV;
		return -1;
	}
	int target = open_target(c, path, false, REAL_DIRECTORY);
	return target < 0 ? -1 : done_with(target, done_with(fd, attach_mount(fd, target)));
}

/* node PATH TYPE MAJOR MINOR MODE UID GID: a device node; in a user namespace, where the kernel refuses mknod(2), the
 * host's node of the same name */
static int op_node(struct container *c, char **word)
{
	char name[NAME_MAX + 1];
	mode_t mode = (mode_t)strtoul(word[4], NULL, 8);
	mode_t type = *word[1] == 'b' ? S_IFBLK : *word[1] == 'p' ? S_IFIFO : S_IFCHR;
	int parent = open_parent(c, word[0], REAL_DIRECTORY, name);
	if (parent < 0)
		return -1;
	dev_t device = makedev(strtoul(word[2], NULL, 10), strtoul(word[3], NULL, 10));
	uid_t uid = (uid_t)strtoul(word[5], NULL, 10);
	gid_t gid = (gid_t)strtoul(word[6], NULL, 10);
	int result = mknodat(parent, name, type | mode, device);
	if (result == 0 && (uid || gid))
		result = fchownat(parent, name, uid, gid, AT_SYMLINK_NOFOLLOW);
	if (result < 0 && errno == EEXIST)
		result = check_node(parent, name, type, device);
	return result < 0 && errno == EPERM ? bind_node(c, word[0], device) : result;
}

/* symlink TEXT PATH: where PATH is free */
static int op_symlink(struct container *c, char **word)
{
	char name[NAME_MAX + 1];
	int parent = open_parent(c, word[1], REAL_DIRECTORY, name);
	return parent < 0 || (symlinkat(word[0], parent, name) < 0 && errno != EEXIST) ? -1 : 0;
}

/* mkdir PATH: with its parents, inside the root */
static int op_mkdir(struct container *c, char **word)
{
	int fd = open_target(c, word[0], true, INSIDE);
	return fd < 0 ? -1 : close(fd);
}

const struct op rootfs_ops[] = {
    {"propagation", 1, op_propagation},
    {"root", 1, op_root},
    {"overlay", 2, op_overlay},
    {"node", 7, op_node},
    {"symlink", 2, op_symlink},
    {"mkdir", 1, op_mkdir},
    {"pivot", 0, op_pivot},
    {"move-root", 0, op_move_root},
    {"chroot", 0, op_chroot},
    {NULL, 0, NULL},
};
