/* "tmpcopyup": a tmpfs that begins with what it hides. By descriptor and never through a link: the image chose what is
 * in there. Like cp -a, without extended attributes and hard links. */
#define _GNU_SOURCE
#include "mounts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

static int copy_file(int from, int to, const char *name)
{
	int in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	int out = in < 0 ? -1 : openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ssize_t n = out < 0 ? -1 : 1;
	while (n > 0)
		n = sendfile(out, in, NULL, 1 << 30);
	return closed(in, closed(out, n < 0 ? -1 : 0));
}

static int copy_directory(int from, int to, const char *name)
{
	if (mkdirat(to, name, 0700) < 0)
		return -1;
	int in = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int out = in < 0 ? -1 : openat(to, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return closed(out, out < 0 ? closed(in, -1) : copy_tree(in, out));
}

static int copy_link(int from, int to, const char *name)
{
	char text[PATH_MAX];
	ssize_t n = readlinkat(from, name, text, sizeof text - 1);
	if (n < 0)
		return -1;
	text[n] = '\0';
	return symlinkat(text, to, name);
}

static int copy_entry(int from, int to, const char *name)
{
	struct stat st;
	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -1;
	struct timespec times[] = {st.st_atim, st.st_mtim};
	int result = S_ISDIR(st.st_mode)   ? copy_directory(from, to, name)
		     : S_ISREG(st.st_mode) ? copy_file(from, to, name)
		     : S_ISLNK(st.st_mode) ? copy_link(from, to, name)
					   : mknodat(to, name, st.st_mode, st.st_rdev);
	if (result < 0 || fchownat(to, name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) < 0)
		return -1;
	if (!S_ISLNK(st.st_mode) && fchmodat(to, name, st.st_mode & 07777, 0) < 0)
		return -1;
	return utimensat(to, name, times, AT_SYMLINK_NOFOLLOW);
}

int copy_tree(int from, int to)
{
	int result = 0;
	DIR *list = fdopendir(from); /* closedir closes `from` */
	if (!list)
		return closed(from, -1);
	for (struct dirent *entry; result == 0 && (errno = 0, entry = readdir(list));)
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			result = copy_entry(from, to, entry->d_name);
	int error = errno;
	closedir(list);
	errno = error;
	return error ? -1 : 0;
}
