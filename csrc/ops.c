/* The ops that make the container's file system. Each resolves its target inside the root, by descriptor, so that
 * nobody who controls the image, or races with us in a shared volume, can lead a mount or a file elsewhere.
 *
 * Copies of mounts are made by open_tree (Linux 5.2) and mount_setattr (5.12): complete, with all their flags, before
 * they become visible. New file systems come by mount(2), at a descriptor. */
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

/* The program inherits none of our descriptors, so closing one only makes room; a start has dozens, and a document may
 * have hundreds of mounts. */
static void done_with(int fd)
{
	if (fd >= 256)
		close(fd);
}

/* The directory of the last open_parent, kept since the nodes and links of /dev come in a row. */
static struct {
	int fd;
	char path[PATH_MAX];
} kept = {.fd = -1};

static void forget_parent(void)
{
	done_with(kept.fd);
	kept.fd = -1;
}

/* A mount at `target`: what was kept at or below it is now hidden. */
static void mounted_at(const char *target)
{
	target += strspn(target, "/");
	if (!strncmp(kept.path, target, strlen(target)))
		forget_parent();
}

/* Opens the directory `path`, making what is missing of it (0755), one part after the other. */
static int make_directories(struct container *c, const char *path, unsigned long long resolve)
{
	char prefix[PATH_MAX];
	int parent = open_inside(c, ".", O_PATH | O_DIRECTORY, resolve);
	for (const char *at = path; parent >= 0 && *at;) {
		size_t length = strcspn(at, "/");
		memcpy(prefix, path, (size_t)(at - path) + length);
		prefix[(size_t)(at - path) + length] = '\0';
		int fd = open_inside(c, prefix, O_PATH | O_DIRECTORY, resolve);
		if (fd < 0 && errno == ENOENT && (mkdirat(parent, prefix + (at - path), 0755) == 0 || errno == EEXIST))
			fd = open_inside(c, prefix, O_PATH | O_DIRECTORY, resolve);
		int error = errno;
		close(parent);
		errno = error;
		parent = fd;
		at += length;
		at += strspn(at, "/");
	}
	return parent;
}

/* Opens the directory that holds the last part of `path`, and points *name to that part. The descriptor is kept here:
 * callers do not close it. */
static int open_parent(struct container *c, const char *path, unsigned long long resolve, const char **name)
{
	char directory[PATH_MAX];
	while (*path == '/')
		path++;
	size_t length = strlen(path);
	while (length > 0 && path[length - 1] == '/')
		length--;
	while (length > 0 && path[length - 1] != '/')
		length--;
	if (length >= sizeof directory) {
		errno = ENAMETOOLONG;
		return -1;
	}
	*name = path + length;
	memcpy(directory, path, length);
	directory[length] = '\0';
	if (kept.fd >= 0 && !strcmp(kept.path, directory))
		return kept.fd;
	forget_parent();
	kept.fd = open_inside(c, directory, O_PATH | O_DIRECTORY, resolve);
	if (kept.fd < 0 && errno == ENOENT)
		kept.fd = make_directories(c, directory, resolve);
	strcpy(kept.path, directory);
	return kept.fd;
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
	if (fd < 0 && errno != EEXIST)
		return -1;
	if (!directory && fd >= 0)
		close(fd);
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
	static const char *const nothing[] = {"defaults",      "async", "atime", "norelatime",
					      "nostrictatime", "loud",  "nomand"};
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
	int result =
	    (int)syscall(SYS_move_mount, mount_fd, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
	int error = errno;
	done_with(mount_fd);
	errno = error;
	return result;
}

static int make_bind(const char *source, bool recursive)
{
	return (int)syscall(SYS_open_tree, AT_FDCWD, source,
			    OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0));
}

/* The same flags for mount(2), whose first four bits agree with the attributes. */
static unsigned long old_flags(uint64_t wanted)
{
	unsigned long flags = wanted & (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	flags |= wanted & MOUNT_ATTR_NOATIME ? 1UL << 10 : wanted & MOUNT_ATTR_STRICTATIME ? 1UL << 24 : 1UL << 21;
	flags |= wanted & MOUNT_ATTR_NODIRATIME ? 1UL << 11 : 0;
	return flags | (wanted & MOUNT_ATTR_NOSYMFOLLOW ? 1UL << 8 : 0);
}

/* A new file system at the open directory `target`: by mount(2), one call where fsopen(2) and its kin take nine. The
 * path leads through our descriptor, so it is the directory that was looked up, whatever is renamed meanwhile. */
static int mount_new(const char *type, const char *source, int target, const struct options *o)
{
	char path[32], data[4096] = "";
	size_t used = 0;
	for (int i = 0; i < o->data_count; i++) {
		int n = snprintf(data + used, sizeof data - used, "%s%s", used ? "," : "", o->data[i]);
		if (n < 0 || (used += (size_t)n) >= sizeof data) {
			errno = E2BIG;
			return -1;
		}
	}
	snprintf(path, sizeof path, "/proc/self/fd/%d", target);
	return mount(source, path, type, old_flags(o->once.attr_set), data);
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

/* A copy of a mount, with its flags, before anyone can see it. */
static int make_bind_with(const char *source, struct options *o)
{
	int fd = make_bind(source, o->bind_recursive);
	if (fd >= 0 && ((o->has_once && set_attributes(fd, &o->once, 0) < 0) ||
			(o->has_recursive && set_attributes(fd, &o->recursive, AT_RECURSIVE) < 0))) {
		int error = errno;
		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

/* mount SOURCE TARGET TYPE OPTIONS */
static int op_mount(struct container *c, char **word)
{
	struct options o;
	struct stat st = {.st_mode = S_IFDIR};
	if (parse_options(&o, word[3]) < 0)
		return -1;
	int fd = o.bind ? make_bind_with(word[0], &o) : -1;
	if (o.bind && (fd < 0 || fstat(fd, &st) < 0))
		return -1;
	int target = open_target(c, word[1], S_ISDIR(st.st_mode), resolution(o.bind ? "" : word[2], word[1]));
	if (target < 0)
		return -1;
	int result = o.bind ? attach_mount(fd, target) : mount_new(word[2], word[0], target, &o);
	done_with(target);
	mounted_at(word[1]);
	if (result < 0 || o.bind || (!o.once.propagation && !o.has_recursive))
		return result;
	struct mount_attr rest = {.propagation = o.once.propagation};
	fd = open_inside(c, word[1], O_PATH, INSIDE);
	result = fd < 0 || (o.once.propagation && set_attributes(fd, &rest, 0) < 0) ||
		 (o.has_recursive && set_attributes(fd, &o.recursive, AT_RECURSIVE) < 0);
	if (fd >= 0)
		close(fd);
	return -result;
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
	int fd =
	    (int)syscall(SYS_open_tree, target, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
	int result = fd < 0 || set_attributes(fd, &attr, 0) < 0 ? -1 : attach_mount(fd, target);
	done_with(target);
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

/* mask PATH: a path that may be missing shows an empty file or directory; before "pivot", which hides /dev/null. The
 * first directory gets a new empty file system, the others a clone of that mount. */
static int op_mask(struct container *c, char **word)
{
	static const struct options empty = {.once.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
							      MOUNT_ATTR_NOEXEC};
	struct stat st;
	int result, target = open_inside(c, word[0], O_PATH, INSIDE);
	if (target < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
	if (fstat(target, &st) < 0)
		return -1;
	if (S_ISDIR(st.st_mode) && c->empty < 0) {
		result = mount_new("tmpfs", "tmpfs", target, &empty);
		c->empty = open_inside(c, word[0], O_PATH, INSIDE);
	} else {
		int fd = S_ISDIR(st.st_mode) ? (int)syscall(SYS_open_tree, c->empty, "",
							    AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
					     : make_null();
		result = fd < 0 ? -1 : attach_mount(fd, target);
	}
	done_with(target);
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
	return symlinkat(word[0], parent, buffer) < 0 && errno != EEXIST ? -1 : 0;
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
