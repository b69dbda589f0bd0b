/* What the ops of the file system share: paths.c walks inside the root, mount_options.c reads options, mounts.c mounts,
 * copy_up.c fills a tmpfs with what it hides, rootfs.c makes the root and what is in it. */
#ifndef MINIRUN_MOUNTS_H
#define MINIRUN_MOUNTS_H

#include "ops.h"

#include <linux/mount.h>
#include <linux/openat2.h>
#include <stdint.h>

/* musl's <sys/mount.h>, where these are, cannot be included together with <linux/mount.h>. */
int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount2(const char *, int);
#define MNT_DETACH 2

/* --- paths.c --- */

#define INSIDE (RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
#define REAL_DIRECTORY (INSIDE | RESOLVE_NO_SYMLINKS) /* no part of the path may be a link */

/* Closes `fd`, if it is one, and returns `result` with the errno that belongs to it. */
int closed(int fd, int result);
/* The same for one that need not be closed: only what would fill the table of descriptors is. */
int done_with(int fd, int result);
/* Opens the directory that holds the last part of `path`, making it where it is missing, and copies that part into
 * `name` (NAME_MAX + 1 bytes). The descriptor is kept: callers do not close it. */
int open_parent(struct container *c, const char *path, unsigned long long resolve, char *name);
/* Opens `path` as O_PATH; makes it, a directory or an empty file, where it is missing. */
int open_target(struct container *c, const char *path, bool directory, unsigned long long resolve);
/* Something was mounted at `target`: what is kept of the directories below is hidden now. */
void mounted_at(const char *target);

/* --- mount_options.c --- */

#define COPY_UP (1UL << 30) /* a bit that is free beside those of mount(2) */

struct options {
	struct mount_attr once, recursive; /* of the mount, and of all mounts of its tree             */
	unsigned long flags;               /* MS_BIND, MS_REC, MS_REMOUNT, COPY_UP, and a super block's  */
	unsigned long propagation[8];      /* MS_SHARED and the like, with MS_REC: one after the other */
	int propagations;
	char data[4096]; /* what is left is for the file system */
	size_t data_size;
};

/* Reads "nosuid,rshared,mode=755"; `text` is cut up. */
int parse_options(struct options *o, char *text);
int add_data(struct options *o, const char *word);
/* MS_PRIVATE and so on, with MS_REC for a word with "r" in front; 0 for another word. */
unsigned long propagation_flag(const char *word);
/* The options of mount(2) for a new file system, or for a remount of one. */
unsigned long old_flags(const struct options *o);
int set_attributes(int fd, struct mount_attr *attr, unsigned flags);
/* Gives the mount `fd` the options that belong to a mount: attributes, then propagation. */
int apply_options(int fd, struct options *o);

/* --- mounts.c --- */

/* A copy of the host's tree at `source`, not mounted anywhere: the oldest that "tree" kept, or else made now. */
int clone_tree(struct container *c, const char *source, bool recursive);
/* The same, never a kept one. */
int make_bind(const char *source, bool recursive);
/* Makes the mount `fd` visible at the open `target`. */
int attach_mount(int fd, int target);

/* --- copy_up.c --- */

/* Copies what is in the directory `from` into the directory `to`, with owners, modes and times. */
int copy_tree(int from, int to);

#endif
