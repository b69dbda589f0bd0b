/* The ops that mount: pieces of the host's tree, new file systems, masks and read-only paths.
 *
 * Copies of mounts are made by open_tree (Linux 5.2) and mount_setattr (5.12): complete, with all their flags, before
 * they become visible. New file systems come by mount(2), at a descriptor. */
#define _GNU_SOURCE
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* What "tree" took while this process had the host's rights, in the order in which it will be used. */
static struct {
	int fd;
	const char *source;
} trees[512];
static size_t trees_kept, trees_used;

static int open_tree_at(int fd, const char *path, unsigned how)
{
	return (int)syscall(SYS_open_tree, fd, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | how);
}

int make_bind(const char *source, bool recursive)
{
	return open_tree_at(AT_FDCWD, source, recursive ? AT_RECURSIVE : 0);
}

int clone_tree(struct container *c, const char *source, bool recursive)
{
	(void)c;
	if (trees_used == trees_kept)
		return make_bind(source, recursive);
	if (!strcmp(trees[trees_used].source, source))
		return trees[trees_used++].fd;
	errno = EINVAL;
	return -1;
}

/* tree SOURCE OPTIONS USERNS: takes a tree for the "root" or "mount" that will ask for it, in this order: before "fork"
 * gives up the rights to reach it, or because the ids of its files are to be mapped as in the user namespace that the
 * file USERNS stands for ("idmap", "ridmap"; else USERNS is "-") */
static int op_tree(struct container *c, char **word)
{
	struct options o;
	(void)c;
	if (trees_kept == sizeof trees / sizeof *trees) {
		errno = E2BIG;
		return -1;
	}
	if (parse_options(&o, word[1]) < 0)
		return -1;
	int users = *word[2] == '-' ? 0 : open_host(word[2], O_RDONLY), fd = make_bind(word[0], o.flags & MS_REC);
	o.once.userns_fd = o.recursive.userns_fd = (uint64_t)users;
	if (users < 0 || fd < 0 || apply_options(fd, &o) < 0)
		return closed(fd, -1);
	trees[trees_kept].fd = fd;
	trees[trees_kept++].source = word[0];
	return 0;
}

int attach_mount(int fd, int target)
{
	return (int)syscall(SYS_move_mount, fd, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

static bool is_one_of(const char *word, const char *const *list)
{
	while (*list && strcmp(*list, word))
		list++;
	return *list;
}

static bool below(const char *path, const char *top)
{
	size_t length = strlen(top);
	return !strncmp(path, top, length) && (path[length] == '/' || !path[length]);
}

/* The target of a mount. procfs, sysfs and whatever belongs below /dev must stand on real directories: a link there, in
 * an image, would let the image choose what is masked (CVE-2019-16884, CVE-2023-27561) or where device nodes go
 * (CVE-2026-41579). Which names below /proc may be covered is for the author of the list; a link gets to none. */
static int open_mount_target(struct container *c, const char *path, bool directory, const char *type)
{
	static const char *const strict[] = {"proc", "sysfs", "mqueue", "devpts", "cgroup", "cgroup2", NULL};
	struct statfs fs;
	int target = open_target(c, path, directory, REAL_DIRECTORY);
	if (target >= 0 || errno != ELOOP || is_one_of(type, strict) || below(path, "/dev") || below(path, "/proc"))
		return target;
	target = open_target(c, path, directory, INSIDE);
	if (target >= 0 && (fstatfs(target, &fs) < 0 || fs.f_type == PROC_SUPER_MAGIC)) {
		errno = EPERM;
		return closed(target, -1);
	}
	return target;
}

static int bind(struct container *c, const char *source, const char *path, struct options *o)
{
	struct stat st;
	int fd = clone_tree(c, source, o->flags & MS_REC);
	if (fd < 0 || fstat(fd, &st) < 0 || apply_options(fd, o) < 0)
		return closed(fd, -1);
	int target = open_mount_target(c, path, S_ISDIR(st.st_mode), "");
	int result = target < 0 ? -1 : attach_mount(fd, target);
	mounted_at(path);
	if (result == 0 && !path[strspn(path, "/")])
		c->root = fd; /* over the root: what follows belongs on top of it */
	else
		done_with(fd, 0);
	return done_with(target, result);
}

/* mount(2) at an open directory, one call where fsopen(2) and its kin take nine. The path leads through our descriptor,
 * so it is the directory that was looked up, whatever is renamed meanwhile. */
static int mount_at(int target, const char *source, const char *type, unsigned long flags, const char *data)
{
	char path[32];
	snprintf(path, sizeof path, "/proc/self/fd/%d", target);
	return mount(source, path, type, flags, data);
}

/* What the kernel refuses to make anew in a user namespace, whoever owns it, is the host's instead: sysfs belongs to
 * the network namespace, cgroup2 to the cgroup namespace, mqueue to the IPC namespace. */
static int bind_of_host(int target, const char *type, struct options *o)
{
	static const char *const known[][2] = {
	    {"sysfs", "/sys"}, {"cgroup2", "/sys/fs/cgroup"}, {"mqueue", "/dev/mqueue"}};
	size_t i = 0;
	int error = errno;
	while (i < 3 && strcmp(known[i][0], type))
		i++;
	if (i == 3 || (error != EPERM && error != EBUSY))
		return -1;
	int fd = make_bind(known[i][1], true);
	if (fd < 0 || set_attributes(fd, &o->once, AT_RECURSIVE) < 0 || attach_mount(fd, target) < 0) {
		errno = error;
		return closed(fd, -1);
	}
	return done_with(fd, 0);
}

/* A tmpfs has the mode of the directory that it covers, unless it is told another. */
static int keep_mode(struct container *c, const char *path, struct options *o)
{
	struct stat st;
	char text[16];
	if (!strncmp(o->data, "mode=", 5) || strstr(o->data, ",mode="))
		return 0;
	int fd = open_inside(c, path, O_PATH | O_DIRECTORY, INSIDE);
	if (fd < 0 || fstat(fd, &st) < 0)
		return closed(fd, 0);
	snprintf(text, sizeof text, "mode=%o", st.st_mode & 07777);
	return done_with(fd, add_data(o, text));
}

/* The options that need the mount to be there: what is copied into it, what concerns its tree, its propagation. */
static int finish(struct container *c, const char *path, int hidden, struct options *o)
{
	int fd = open_inside(c, path, O_PATH | O_DIRECTORY, INSIDE);
	if (fd < 0 || (hidden >= 0 && copy_tree(hidden, fd) < 0) || apply_options(fd, o) < 0)
		return closed(fd, -1);
	return done_with(fd, 0);
}

static int new_file_system(struct container *c, char **word, struct options *o)
{
	const char *source = word[0], *path = word[1], *type = word[2];
	bool tmpfs = !strcmp(type, "tmpfs"), copy = tmpfs && o->flags & COPY_UP;
	if (tmpfs && keep_mode(c, path, o) < 0)
		return -1;
	int target = open_mount_target(c, path, true, type);
	if (target < 0)
		return -1;
	int hidden = copy ? openat(target, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (copy && hidden < 0)
		return -1;
	/* Read-only before the copy, it would stay empty. */
	unsigned long flags = copy ? old_flags(o) & ~(unsigned long)MS_RDONLY : old_flags(o);
	int result = mount_at(target, source, type, flags, o->data);
	if (result < 0)
		result = bind_of_host(target, type, o);
	mounted_at(path);
	done_with(target, 0);
	if (result == 0 && (copy || o->propagations || o->recursive.attr_set || o->recursive.attr_clr))
		result = finish(c, path, hidden, o);
	return done_with(hidden, result);
}

/* The mount that is there gets other options; without "bind", its file system too. */
static int mount_again(struct container *c, const char *path, struct options *o)
{
	int fd = open_inside(c, path, O_PATH, INSIDE);
	int result = fd < 0 ? -1 : o->flags & MS_BIND ? 0 : mount_at(fd, NULL, NULL, old_flags(o), o->data);
	return closed(fd, result < 0 ? -1 : apply_options(fd, o));
}

/* mount SOURCE TARGET TYPE OPTIONS */
static int op_mount(struct container *c, char **word)
{
	struct options o;
	if (parse_options(&o, word[3]) < 0)
		return -1;
	if (o.flags & MS_REMOUNT)
		return mount_again(c, word[1], &o);
	return o.flags & MS_BIND ? bind(c, word[0], word[1], &o) : new_file_system(c, word, &o);
}

/* remount PATH OPTIONS: the flags of the mount that is there; the root last, since ops may have to make their targets */
static int op_remount(struct container *c, char **word)
{
	struct options o;
	if (parse_options(&o, word[1]) < 0)
		return -1;
	o.flags |= MS_BIND;
	return mount_again(c, word[0], &o);
}

/* readonly PATH: a path that may be missing becomes read-only with all below it */
static int op_readonly(struct container *c, char **word)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
	int target = open_inside(c, word[0], O_PATH, INSIDE);
	if (target < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
	int fd = open_tree_at(target, "", AT_EMPTY_PATH | AT_RECURSIVE);
	int result = fd < 0 || set_attributes(fd, &attr, AT_RECURSIVE) < 0 ? -1 : attach_mount(fd, target);
	return done_with(target, done_with(fd, result));
}

/* A clone of the host's /dev/null, which must be the real one; a further one is a clone of that. */
static int make_null(struct container *c)
{
	struct stat st;
	if (c->null >= 0)
		return open_tree_at(c->null, "", AT_EMPTY_PATH);
	int fd = make_bind("/dev/null", false);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -1;
	if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3)) {
		errno = ENODEV;
		return -1;
	}
	return c->null = fd;
}

/* mask PATH: a path that may be missing shows an empty file or directory; before "pivot", which hides /dev/null. The
 * first directory gets a new empty file system, the others a clone of that mount. */
static int op_mask(struct container *c, char **word)
{
	struct stat st;
	int result, target = open_inside(c, word[0], O_PATH, INSIDE);
	if (target < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
	if (fstat(target, &st) < 0)
		return -1;
	if (S_ISDIR(st.st_mode) && c->empty < 0) {
		result = mount_at(target, "tmpfs", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
		c->empty = open_inside(c, word[0], O_PATH, INSIDE);
	} else {
		int fd = S_ISDIR(st.st_mode) ? open_tree_at(c->empty, "", AT_EMPTY_PATH) : make_null(c);
		result = fd < 0 ? -1 : done_with(fd == c->null ? -1 : fd, attach_mount(fd, target));
	}
	return done_with(target, result);
}

const struct op mount_ops[] = {
    {"tree", 3, op_tree},         {"mount", 4, op_mount}, {"remount", 2, op_remount},
    {"readonly", 1, op_readonly}, {"mask", 1, op_mask},   {NULL, 0, NULL},
};
