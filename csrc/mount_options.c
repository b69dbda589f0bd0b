/* The options of a mount, by the names of mount(8) and of the runtime-spec. What no table knows is for the file system. */
#define _GNU_SOURCE
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Attributes of one mount; with "r" in front, of all mounts of its tree. Relatime is the kernel's default. */
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
    {"atime", 0, MOUNT_ATTR_NOATIME},
    {"relatime", 0, MOUNT_ATTR__ATIME},
    {"norelatime", 0, 0},
    {"strictatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME},
    {"nostrictatime", 0, MOUNT_ATTR_STRICTATIME},
    {"nodiratime", MOUNT_ATTR_NODIRATIME, 0},
    {"diratime", 0, MOUNT_ATTR_NODIRATIME},
    {"nosymfollow", MOUNT_ATTR_NOSYMFOLLOW, 0},
    {"symfollow", 0, MOUNT_ATTR_NOSYMFOLLOW},
    {"idmap", MOUNT_ATTR_IDMAP, 0},
};

static const struct {
	const char *name;
	unsigned long set, clear;
} flags[] = {
    {"defaults", 0, 0},           {"bind", MS_BIND, 0},           {"rbind", MS_BIND | MS_REC, 0},
    {"remount", MS_REMOUNT, 0},   {"tmpcopyup", COPY_UP, 0},      {"sync", MS_SYNCHRONOUS, 0},
    {"async", 0, MS_SYNCHRONOUS}, {"dirsync", MS_DIRSYNC, 0},     {"mand", MS_MANDLOCK, 0},
    {"nomand", 0, MS_MANDLOCK},   {"iversion", MS_I_VERSION, 0},  {"noiversion", 0, MS_I_VERSION},
    {"lazytime", MS_LAZYTIME, 0}, {"nolazytime", 0, MS_LAZYTIME}, {"silent", MS_SILENT, 0},
    {"loud", 0, MS_SILENT},
};

static const struct {
	const char *name;
	unsigned long flag;
} propagations[] = {{"private", MS_PRIVATE}, {"slave", MS_SLAVE}, {"shared", MS_SHARED}, {"unbindable", MS_UNBINDABLE}};

#define LENGTH(table) (sizeof(table) / sizeof *(table))

unsigned long propagation_flag(const char *word)
{
	unsigned long recursive = *word == 'r' ? MS_REC : 0;
	for (size_t i = 0; i < LENGTH(propagations); i++)
		if (!strcmp(propagations[i].name, word + (recursive ? 1 : 0)))
			return propagations[i].flag | recursive;
	return 0;
}

static bool take_attribute(struct mount_attr *attr, const char *word)
{
	for (size_t i = 0; i < LENGTH(attributes); i++)
		if (!strcmp(attributes[i].name, word)) {
			attr->attr_set = (attr->attr_set & ~attributes[i].clear) | attributes[i].set;
			attr->attr_clr = (attr->attr_clr & ~attributes[i].set) | attributes[i].clear;
			/* The ways of access times are a number, not bits: the kernel wants all of it cleared. */
			if (attr->attr_clr & MOUNT_ATTR__ATIME)
				attr->attr_clr |= MOUNT_ATTR__ATIME;
			return true;
		}
	return false;
}

int add_data(struct options *o, const char *word)
{
	size_t length = strlen(word), comma = o->data_size ? 1 : 0;
	if (o->data_size + comma + length >= sizeof o->data) {
		errno = E2BIG;
		return -1;
	}
	if (comma)
		o->data[o->data_size++] = ',';
	memcpy(o->data + o->data_size, word, length + 1);
	o->data_size += length;
	return 0;
}

static int take_option(struct options *o, const char *word)
{
	for (size_t i = 0; i < LENGTH(flags); i++)
		if (!strcmp(flags[i].name, word)) {
			o->flags = (o->flags & ~flags[i].clear) | flags[i].set;
			return 0;
		}
	unsigned long propagation = propagation_flag(word);
	if (propagation && o->propagations < (int)LENGTH(o->propagation))
		o->propagation[o->propagations++] = propagation;
	else if (!take_attribute(&o->once, word) && !(*word == 'r' && take_attribute(&o->recursive, word + 1)))
		return add_data(o, word);
	return 0;
}

int parse_options(struct options *o, char *text)
{
	memset(o, 0, sizeof *o);
	for (char *word = strtok(text, ","); word; word = strtok(NULL, ","))
		if (take_option(o, word) < 0)
			return -1;
	return 0;
}

/* The first four bits of the attributes are those of mount(2). */
unsigned long old_flags(const struct options *o)
{
	uint64_t wanted = o->once.attr_set;
	unsigned long old = wanted & (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	old |= wanted & MOUNT_ATTR_NOATIME       ? MS_NOATIME
	       : wanted & MOUNT_ATTR_STRICTATIME ? MS_STRICTATIME
						 : MS_RELATIME;
	old |= wanted & MOUNT_ATTR_NODIRATIME ? MS_NODIRATIME : 0;
	old |= wanted & MOUNT_ATTR_NOSYMFOLLOW ? MS_NOSYMFOLLOW : 0;
	return old | (o->flags & ~(MS_BIND | MS_REC | COPY_UP));
}

int set_attributes(int fd, struct mount_attr *attr, unsigned how)
{
	return (int)syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | how, attr, sizeof *attr);
}

int apply_options(int fd, struct options *o)
{
	if (((o->once.attr_set | o->once.attr_clr) && set_attributes(fd, &o->once, 0) < 0) ||
	    ((o->recursive.attr_set | o->recursive.attr_clr) && set_attributes(fd, &o->recursive, AT_RECURSIVE) < 0))
		return -1;
	for (int i = 0; i < o->propagations; i++) {
		struct mount_attr attr = {.propagation = o->propagation[i] & ~(unsigned long)MS_REC};
		if (set_attributes(fd, &attr, o->propagation[i] & MS_REC ? AT_RECURSIVE : 0) < 0)
			return -1;
	}
	return 0;
}
