/*
 * Files that are there whole or as they were, also after a crash: written beside, brought to the disk, renamed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "identity.h"

static bool write_all(int fd, const char *text, size_t length)
{
	while (length) {
		ssize_t put = write(fd, text, length);
		if (put < 0 && errno != EINTR)
			return false;
		text += put < 0 ? 0 : put;
		length -= put < 0 ? 0 : (size_t)put;
	}
	return true;
}

/* The mode is there before the first byte. A secret is never readable for a moment. */
bool file_write(const char *path, const char *text, mode_t mode, struct text *faults)
{
	char draft[256];
	snprintf(draft, sizeof draft, "%s.innkeeper", path);
	unlink(draft);
	int fd = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	bool whole = fd >= 0 && !fchmod(fd, mode) && write_all(fd, text, strlen(text)) && !fsync(fd);
	int error = errno;
	if (fd >= 0 && close(fd) && whole) {
		whole = false;
		error = errno;
	}
	if (whole && !rename(draft, path))
		return true;
	error = whole ? errno : error;
	if (fd >= 0)
		unlink(draft);
	text_line(faults, "cannot write %s: %s", path, strerror(error));
	return false;
}

bool file_remove(const char *path, struct text *faults)
{
	if (!unlink(path) || errno == ENOENT || errno == ENOTDIR)
		return true;
	text_line(faults, "cannot remove %s: %s", path, strerror(errno));
	return false;
}

void files_remove(const char *folder, const char *pattern, struct text *faults)
{
	char path[512];
	DIR *entries = opendir(folder);
	if (!entries && errno != ENOENT)
		text_line(faults, "cannot look into %s: %s", folder, strerror(errno));
	for (struct dirent *entry; entries && (entry = readdir(entries));)
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && !fnmatch(pattern, entry->d_name, 0)) {
			snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
			file_remove(path, faults);
		}
	if (entries)
		closedir(entries);
}

/* Not a link to another, which follows that by itself. */
bool is_own_file(const char *path)
{
	struct stat about;
	return !lstat(path, &about) && S_ISREG(about.st_mode);
}
