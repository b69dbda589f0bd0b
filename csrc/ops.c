/* The ops that make the container's file system. Each resolves its target inside the root, by descriptor, so that
 * nobody who controls the image, or races with us in a shared volume, can lead a mount or a file elsewhere.
 *
 * Everything uses the mount API of Linux 5.2 and mount_setattr of 5.12: a mount is complete, with all its flags,
 * before it becomes visible. The one exception is overlay, whose options fsconfig(2) cuts at 256 bytes. */
#define _GNU_SOURCE
#include "ops.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* musl's <sys/mount.h> and <linux/mount.h> cannot be included together; these few are the older half. */
int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount2(const char *, int);
#define MNT_DETACH 2
#define MS_REC_ 16384
#define MS_PRIVATE_ (1 << 18)
#define MS_SLAVE_ (1 << 19)
#define MS_SHARED_ (1 << 20)
#define MS_UNBINDABLE_ (1 << 17)

#define REAL_DIRECTORY (RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
#define INSIDE (RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)

int open_inside(struct container *c, const char *path, int flags, unsigned long long resolve)
{
	struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .resolve = resolve};
	if (c->root < 0) {
		errno = EBADF; /* an op that needs the root stands before "root" */
		return -1;
	}
	while (*path == '/')
		path++;
	for (int tries = 0;; tries++) { /* EAGAIN: a rename raced with the look-up, which is safe to repeat */
		int fd = (int)syscall(SYS_openat2, c->root, *path ? path : ".", &how, sizeof how);
		if (fd >= 0 || errno != EAGAIN || tries == 128)
			return fd;
	}
}

/* Opens the directory that holds the last part of `path`, making missing ones (0755), and points *name to that part. */
static int open_parent(struct container *c, const char *path, unsigned long long resolve, const char **name)
{
	char prefix[PATH_MAX];
	while (*path == '/')
		path++;
	if (strlen(path) >= sizeof prefix) {
		errno = ENAMETOOLONG;
		return -1;
	}
	const char *last = strrchr(path, '/');
	if (last && last[1]) { /* mostly it is there: one look-up instead of one per part */
		memcpy(prefix, path, (size_t)(last - path));
		prefix[last - path] = '\0';
		*name = last + 1;
		int fd = open_inside(c, prefix, O_PATH | O_DIRECTORY, resolve);
		if (fd >= 0 || errno != ENOENT)
			return fd;
	}
	int parent = open_inside(c, ".", O_PATH | O_DIRECTORY, resolve);
	for (const char *at = path; parent >= 0;) {
		const char *slash = strchr(at, '/');
		const char *next = slash ? slash + strspn(slash, "/") : NULL;
		if (!next || !*next) { /* the last part */
			*name = at;
			return parent;
		}
		memcpy(prefix, path, (size_t)(slash - path));
		prefix[slash - path] = '\0';
		int fd = open_inside(c, prefix, O_PATH | O_DIRECTORY, resolve);
		if (fd < 0 && errno == ENOENT) {
			const char *part = prefix + (at - path);
			if (mkdirat(parent, part, 0755) < 0 && errno != EEXIST) {
				close(parent);
				return -1;
			}
			fd = open_inside(c, prefix, O_PATH | O_DIRECTORY, resolve);
		}
		int error = errno;
		close(parent);
		errno = error;
		parent = fd;
		at = next;
	}
	return -1;
}

/* The name without trailing slashes, in `buffer`. */
static const char *bare(const char *name, char *buffer)
{
	size_t length = strcspn(name, "/");
	if (length > NAME_MAX) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	memcpy(buffer, name, length);
	buffer[length] = '\0';
	return buffer;
}

/* Opens the target of a mount as O_PATH; makes it, a directory or an empty file, where it is missing. */
static int open_target(struct container *c, const char *path, bool directory, unsigned long long resolve)
{
	char buffer[NAME_MAX + 1];
	const char *name;
	int fd = open_inside(c, path, O_PATH | (directory ? O_DIRECTORY : 0), resolve);
	if (fd >= 0 || errno != ENOENT)
		return fd;
	int parent = open_parent(c, path, resolve, &name);
	if (parent < 0)
		return -1;
	if (!bare(name, buffer))
		fd = -1;
	else if (directory)
		fd = mkdirat(parent, buffer, 0755);
	else
		fd = openat(parent, buffer, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644);
	int error = errno;
	if (fd >= 0 && !directory)
		close(fd);
	close(parent);
	if (fd < 0 && error != EEXIST) {
		errno = error;
		return -1;
	}
	return open_inside(c, path, O_PATH | (directory ? O_DIRECTORY : 0), resolve);
}

/* --- mount options, by the names of mount(8) and of the runtime-spec --- */

struct options {
	struct mount_attr once, recursive;
	bool bind, bind_recursive, has_once, has_recursive;
	char *data[64]; /* what is left is for the file system */
	int data_count;
};

static const struct {
	const char *name;
	uint64_t set, clear;
} attributes[] = {
    {"ro", MOUNT_ATTR_RDONLY, 0},
    {"rw", 0, MOUNT_ATTR_RDONLY},
    {"nosuid", MOUNT_ATTR_NOSUID, 0},
    {"suid", 0, MOUNT_ATTR_NOSUID},
    {"nodev", MOUNT_ATTR_NODEV, 0},
    {"dev", 0, MOUNT_ATTR_NODEV},
    {"noexec", MOUNT_ATTR_NOEXEC, 0},
    {"exec", 0, MOUNT_ATTR_NOEXEC},
    {"noatime", MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME},
    {"relatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME},
    {"strictatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME},
    {"nodiratime", MOUNT_ATTR_NODIRATIME, 0},
    {"diratime", 0, MOUNT_ATTR_NODIRATIME},
    {"nosymfollow", MOUNT_ATTR_NOSYMFOLLOW, 0},
    {"symfollow", 0, MOUNT_ATTR_NOSYMFOLLOW},
};

static const struct {
	const char *name;
	uint64_t flag;
} propagations[] = {
    {"private", MS_PRIVATE_}, {"slave", MS_SLAVE_}, {"shared", MS_SHARED_}, {"unbindable", MS_UNBINDABLE_}};

static bool take_option(struct options *o, const char *word)
{
	static const char *const nothing[] = {"defaults", "async", "atime", "norelatime", "nostrictatime", "loud", "nomand"};
	for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++)
		if (!strcmp(nothing[i], word))
			return true;
	if (!strcmp(word, "bind") || !strcmp(word, "rbind")) {
		o->bind = true;
		o->bind_recursive = *word == 'r';
		return true;
	}
	for (int recursive = 0; recursive < 2; recursive++) {
		if (recursive && *word++ != 'r')
			return false;
		struct mount_attr *attr = recursive ? &o->recursive : &o->once;
		bool *has = recursive ? &o->has_recursive : &o->has_once;
		for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
			if (!strcmp(attributes[i].name, word)) {
				attr->attr_set = (attr->attr_set & ~attributes[i].clear) | attributes[i].set;
				attr->attr_clr = (attr->attr_clr & ~attributes[i].set) | attributes[i].clear;
				return *has = true;
			}
		for (size_t i = 0; i < sizeof propagations / sizeof *propagations; i++)
			if (!strcmp(propagations[i].name, word)) {
				attr->propagation = propagations[i].flag;
				return *has = true;
			}
	}
	return false;
}

/* Splits "nosuid,mode=755": flags into `o`, the rest into o->data. `text` is cut up. */
static int parse_options(struct options *o, char *text)
{
	*o = (struct options){0};
	for (char *word = strtok(text, ","); word; word = strtok(NULL, ",")) {
		if (!take_option(o, word)) {
			if (o->data_count == sizeof o->data / sizeof *o->data) {
				errno = E2BIG;
				return -1;
			}
			o->data[o->data_count++] = word;
		}
	}
	return 0;
}

static int set_attributes(int fd, struct mount_attr *attr, unsigned flags)
{
	return (int)syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | flags, attr, sizeof *attr);
}

/* Makes a mount visible at `target`; the mount fd is closed. */
static int attach_mount(int mount_fd, int target)
{
	int result = (int)syscall(SYS_move_mount, mount_fd, "", target, "",
				  MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
	int error = errno;
	close(mount_fd);
	errno = error;
	return result;
}

static int make_bind(const char *source, bool recursive)
{
	return (int)syscall(SYS_open_tree, AT_FDCWD, source,
			    OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0));
}

static int configure(int fs, const char *source, struct options *o)
{
	if (syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "source", source, 0) < 0)
		return -1;
	for (int i = 0; i < o->data_count; i++) {
		char *value = strchr(o->data[i], '=');
		if (value)
			*value++ = '\0';
		if (syscall(SYS_fsconfig, fs, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, o->data[i], value, 0) < 0)
			return -1;
	}
	return (int)syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
}

/* A new file system, not yet visible anywhere. */
static int make_mount(const char *type, const char *source, struct options *o)
{
	int fs = (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
	if (fs < 0)
		return -1;
	int fd = configure(fs, source, o);
	if (fd == 0)
		fd = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, (unsigned)o->once.attr_set);
	int error = errno;
	close(fs);
	errno = error;
	o->has_once = o->once.propagation != 0; /* the rest is done */
	return fd;
}

/* procfs, sysfs and whatever belongs below /dev must stand on real directories: a link there, in an image, would let
 * the image choose what is masked (CVE-2019-16884, CVE-2023-27561) or where device nodes go (CVE-2026-41579). */
static unsigned long long resolution(const char *type, const char *target)
{
	static const char *const strict[] = {"proc", "sysfs", "mqueue", "devpts", "cgroup", "cgroup2"};
	for (size_t i = 0; i < sizeof strict / sizeof *strict; i++)
		if (!strcmp(strict[i], type))
			return REAL_DIRECTORY;
	return !strncmp(target, "/dev", 4) && (target[4] == '/' || !target[4]) ? REAL_DIRECTORY : INSIDE;
}

/* mount SOURCE TARGET TYPE OPTIONS */
static int op_mount(struct container *c, char **word)
{
	struct options o;
	struct stat st;
	bool directory = true;
	if (parse_options(&o, word[3]) < 0)
		return -1;
	int fd = o.bind ? make_bind(word[0], o.bind_recursive) : make_mount(word[2], word[0], &o);
	if (fd < 0)
		return -1;
	if ((o.has_once && set_attributes(fd, &o.once, 0) < 0) ||
	    (o.has_recursive && set_attributes(fd, &o.recursive, AT_RECURSIVE) < 0))
		return -1;
	if (o.bind) {
		if (fstat(fd, &st) < 0)
			return -1;
		directory = S_ISDIR(st.st_mode);
	}
	int target = open_target(c, word[1], directory, resolution(o.bind ? "" : word[2], word[1]));
	if (target < 0)
		return -1;
	int result = attach_mount(fd, target);
	close(target);
	return result;
}

/* propagation MODE: what this mount namespace does with mounts of the host from now on; "rprivate", "rslave" ... */
static int op_propagation(struct container *c, char **word)
{
	(void)c;
	unsigned long flags = *word[0] == 'r' ? MS_REC_ : 0;
	for (size_t i = 0; i < sizeof propagations / sizeof *propagations; i++)
		if (!strcmp(propagations[i].name, word[0] + (flags ? 1 : 0)))
			return mount(NULL, "/", NULL, flags | propagations[i].flag, NULL);
	errno = EINVAL;
	return -1;
}

static int take_root(struct container *c, const char *path)
{
	c->root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return c->root < 0 ? -1 : 0;
}

/* root PATH: a directory becomes a mount of its own, as pivot_root(2) needs it, and the root of what follows */
static int op_root(struct container *c, char **word)
{
	int fd = make_bind(word[0], true);
	int target = open(word[0], O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || target < 0 || attach_mount(fd, target) < 0)
		return -1;
	close(target);
	return take_root(c, word[0]); /* opened anew: the descriptor from before sees what is beneath the mount */
}

/* overlay PATH OPTIONS: the layers and the writable one, joined at PATH, in this mount namespace only */
static int op_overlay(struct container *c, char **word)
{
	if (mount("overlay", word[0], "overlay", 0, word[1]) < 0)
		return -1;
	return take_root(c, word[0]);
}

/* pivot: the root becomes "/", and the host's tree is gone from this namespace */
static int op_pivot(struct container *c, char **word)
{
	(void)word;
	if (c->root < 0 || fchdir(c->root) < 0)
		return -1;
	/* With both arguments ".", the old root lands on top of the new one and is detached from there: no directory
	 * has to be made in the image (pivot_root(2), NOTES). */
	if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0)
		return -1;
	return chdir("/");
}

/* remount PATH OPTIONS: the flags of the mount that is there; the root last, since ops may have to make their targets */
static int op_remount(struct container *c, char **word)
{
	struct options o;
	if (parse_options(&o, word[1]) < 0)
		return -1;
	int fd = open_inside(c, word[0], O_PATH, INSIDE);
	int result = fd < 0 ? -1 : set_attributes(fd, &o.once, 0);
	if (fd >= 0)
		close(fd);
	return result;
}

/* readonly PATH: a path that may be missing becomes read-only with all below it */
static int op_readonly(struct container *c, char **word)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
	int target = open_inside(c, word[0], O_PATH, INSIDE);
	if (target < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
	int fd = (int)syscall(SYS_open_tree, target, "",
			      AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
	int result = fd < 0 || set_attributes(fd, &attr, 0) < 0 ? -1 : attach_mount(fd, target);
	close(target);
	return result;
}

/* A clone of the host's /dev/null, which must be the real one. */
static int make_null(void)
{
	struct stat st;
	int fd = make_bind("/dev/null", false);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -1;
	if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3)) {
		errno = ENODEV;
		return -1;
	}
	return fd;
}

/* The first masked directory gets a new empty file system, the others a clone of that mount. */
static int make_empty(struct container *c)
{
	if (c->empty >= 0)
		return (int)syscall(SYS_open_tree, c->empty, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	struct options o = {.once.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC};
	return make_mount("tmpfs", "tmpfs", &o);
}

/* mask PATH: a path that may be missing shows an empty file or directory; before "pivot", which hides /dev/null */
static int op_mask(struct container *c, char **word)
{
	struct stat st;
	int target = open_inside(c, word[0], O_PATH, INSIDE);
	if (target < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
	if (fstat(target, &st) < 0)
		return -1;
	bool directory = S_ISDIR(st.st_mode);
	int fd = directory ? make_empty(c) : make_null();
	int result = fd < 0 ? -1 : attach_mount(fd, target);
	if (result == 0 && directory && c->empty < 0)
		c->empty = open_inside(c, word[0], O_PATH, INSIDE);
	close(target);
	return result;
}

/* node PATH TYPE MAJOR MINOR MODE UID GID: a device node; in a user namespace, where the kernel refuses mknod(2), the
 * host's node of the same name */
static int op_node(struct container *c, char **word)
{
	char buffer[NAME_MAX + 1];
	const char *name;
	mode_t mode = (mode_t)strtoul(word[4], NULL, 8);
	mode_t type = *word[1] == 'b' ? S_IFBLK : *word[1] == 'p' ? S_IFIFO : S_IFCHR;
	int parent = open_parent(c, word[0], REAL_DIRECTORY, &name);
	if (parent < 0 || !bare(name, buffer))
		return -1;
	dev_t device = makedev(strtoul(word[2], NULL, 10), strtoul(word[3], NULL, 10));
	uid_t uid = (uid_t)strtoul(word[5], NULL, 10);
	gid_t gid = (gid_t)strtoul(word[6], NULL, 10);
	int result = mknodat(parent, buffer, type | mode, device);
	if (result == 0 && (uid || gid))
		result = fchownat(parent, buffer, uid, gid, AT_SYMLINK_NOFOLLOW);
	if (result < 0 && errno == EPERM) {
		int fd = make_bind(word[0], false);
		int target = fd < 0 ? -1 : open_target(c, word[0], false, REAL_DIRECTORY);
		result = target < 0 ? -1 : attach_mount(fd, target);
	}
	int error = errno;
	close(parent);
	errno = error;
	return result;
}

/* symlink TEXT PATH: where PATH is free */
static int op_symlink(struct container *c, char **word)
{
	char buffer[NAME_MAX + 1];
	const char *name;
	int parent = open_parent(c, word[1], REAL_DIRECTORY, &name);
	if (parent < 0 || !bare(name, buffer))
		return -1;
	int result = symlinkat(word[0], parent, buffer);
	int error = errno;
	close(parent);
	errno = error;
	return result < 0 && errno != EEXIST ? -1 : 0;
}

/* mkdir PATH: with its parents, inside the root */
static int op_mkdir(struct container *c, char **word)
{
	int fd = open_target(c, word[0], true, INSIDE);
	return fd < 0 ? -1 : close(fd);
}

const struct op mount_ops[] = {
    {"propagation", 1, op_propagation},
    {"root", 1, op_root},
    {"overlay", 2, op_overlay},
    {"mount", 4, op_mount},
    {"node", 7, op_node},
    {"symlink", 2, op_symlink},
    {"mkdir", 1, op_mkdir},
    {"mask", 1, op_mask},
    {"readonly", 1, op_readonly},
    {"remount", 2, op_remount},
    {"pivot", 0, op_pivot},
    {NULL, 0, NULL},
};
