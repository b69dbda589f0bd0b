/* Paths inside the container's root, walked by descriptor, so that nobody who controls the image, or races with us in a
 * shared volume, can lead a mount or a file elsewhere. */
#define _GNU_SOURCE
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MOST_LINKS 40

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

int closed(int fd, int result)
{
	int error = errno;
	if (fd >= 0)
		close(fd);
	errno = error;
	return result;
}

/* The program inherits none of our descriptors, so closing one only makes room; a start has dozens, and a document may
 * have hundreds of mounts. */
int done_with(int fd, int result)
{
	return fd >= 256 ? closed(fd, result) : result;
}

/* The directory of the last open_parent, kept since the nodes and links of /dev come in a row. */
static struct {
	int fd;
	char path[PATH_MAX];
} kept = {.fd = -1};

static void forget_parent(void)
{
	done_with(kept.fd, 0);
	kept.fd = -1;
}

void mounted_at(const char *target)
{
	target += strspn(target, "/");
	if (!strncmp(kept.path, target, strlen(target)))
		forget_parent();
}

static int make_at(int parent, const char *name, bool directory)
{
	if (directory)
		return mkdirat(parent, name, 0755);
	int fd = openat(parent, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644);
	return fd < 0 ? -1 : close(fd);
}

static int too_long(int fd)
{
	errno = ENAMETOOLONG;
	return closed(fd, -1);
}

/* Opens `path`, making what is missing of it, and walks part by part for that: where a link names what is not there
 * yet, as /etc/resolv.conf does in many an image, what it names is made, inside the root. */
static int make_path(struct container *c, const char *path, bool directory, unsigned long long resolve)
{
	char done[PATH_MAX] = "", rest[PATH_MAX], text[PATH_MAX];
	struct stat st;
	int links = 0, at = open_inside(c, ".", O_PATH | O_DIRECTORY, REAL_DIRECTORY);
	if (strlen(path) >= sizeof rest)
		return too_long(at);
	char *part = strcpy(rest, path);
	while (at >= 0 && *(part += strspn(part, "/"))) {
		size_t length = strcspn(part, "/"), before = strlen(done);
		const char *behind = part + length, *name = NULL;
		bool last = !behind[strspn(behind, "/")];
		if (before + length + 2 > sizeof done)
			return too_long(at);
		if (length == 2 && !memcmp(part, "..", 2)) {
			char *slash = strrchr(done, '/');
			*(slash ? slash : done) = '\0';
		} else if (length != 1 || *part != '.') {
			name = memcpy(done + before + 1, part, length);
			done[before] = '/';
			done[before + 1 + length] = '\0';
		}
		int fd = open_inside(c, done, O_PATH | O_NOFOLLOW, REAL_DIRECTORY);
		if (fd < 0 && errno == ENOENT && name && (!make_at(at, name, directory || !last) || errno == EEXIST))
			fd = open_inside(c, done, O_PATH | O_NOFOLLOW, REAL_DIRECTORY);
		at = closed(at, fd);
		part += length;
		if (at < 0 || fstat(at, &st) < 0 || !S_ISLNK(st.st_mode))
			continue;
		ssize_t n = readlinkat(at, "", text, sizeof text);
		if (n < 0 || (size_t)n + strlen(behind) >= sizeof text)
			return too_long(at);
		if ((resolve & RESOLVE_NO_SYMLINKS) || ++links > MOST_LINKS) {
			errno = ELOOP;
			return closed(at, -1);
		}
		strcpy(text + n, behind);
		part = strcpy(rest, text);
		done[*text == '/' ? 0 : before] = '\0';
		at = closed(at, open_inside(c, done, O_PATH | O_DIRECTORY, REAL_DIRECTORY));
	}
	return at;
}

/* Cuts `path` into the `directory` (PATH_MAX bytes) and the `name` of its last part. */
static int cut(const char *path, char *directory, char *name)
{
	path += strspn(path, "/");
	size_t end = strlen(path);
	while (end > 0 && path[end - 1] == '/')
		end--;
	size_t start = end;
	while (start > 0 && path[start - 1] != '/')
		start--;
	if (start >= PATH_MAX || end - start > NAME_MAX)
		return too_long(-1);
	memcpy(name, path + start, end - start);
	name[end - start] = '\0';
	memcpy(directory, path, start);
	directory[start] = '\0';
	return 0;
}

int open_parent(struct container *c, const char *path, unsigned long long resolve, char *name)
{
	char directory[PATH_MAX];
	if (cut(path, directory, name) < 0)
		return -1;
	if (kept.fd >= 0 && !strcmp(kept.path, directory))
		return kept.fd;
	forget_parent();
	kept.fd = open_inside(c, directory, O_PATH | O_DIRECTORY, resolve);
	if (kept.fd < 0 && errno == ENOENT)
		kept.fd = make_path(c, directory, true, resolve);
	strcpy(kept.path, directory);
	return kept.fd;
}

/* Beside what was missing, more is, as below a new /dev or /sys/fs/cgroup: there it is made before it is looked for. */
static void make_beside(const char *path)
{
	char directory[PATH_MAX], name[NAME_MAX + 1];
	if (kept.fd >= 0 && cut(path, directory, name) == 0 && !strcmp(kept.path, directory))
		mkdirat(kept.fd, name, 0755);
}

int open_target(struct container *c, const char *path, bool directory, unsigned long long resolve)
{
	char name[NAME_MAX + 1];
	int flags = O_PATH | (directory ? O_DIRECTORY : 0);
	if (directory)
		make_beside(path);
	int fd = open_inside(c, path, flags, resolve);
	if (fd >= 0 || errno != ENOENT)
		return fd;
	int parent = open_parent(c, path, resolve, name);
	if (parent < 0)
		return -1;
	if (make_at(parent, name, directory) == 0)
		return open_inside(c, path, flags, resolve);
	return errno == EEXIST ? make_path(c, path, directory, resolve) : -1; /* a link to what is missing */
}
