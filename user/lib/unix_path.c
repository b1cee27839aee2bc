// SPDX-License-Identifier: BSD-2-Clause
/* unix_path: paths of listening sockets. Contract in unix_path.h. */
#include <errno.h>
#include <libgen.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unix_path.h"

int unix_check_dead(const struct sockaddr_un *sun)
{
	struct stat st;
	int fd, err = 0;

	if (lstat(sun->sun_path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* EAGAIN: its backlog is full, so it lives. */
	if (!connect(fd, (const struct sockaddr *)sun, sizeof(*sun)) || errno == EAGAIN)
		err = -EADDRINUSE;
	else if (errno != ECONNREFUSED)
		err = -errno;
	close(fd);
	return err;
}

static int address(const char *path, struct sockaddr_un *sun)
{
	if (strlen(path) >= sizeof(sun->sun_path))
		return -ENAMETOOLONG;
	*sun = (struct sockaddr_un){ .sun_family = AF_UNIX };
	strcpy(sun->sun_path, path);
	return 0;
}

static mode_t mode_by_dir(const char *path)
{
	char copy[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct stat st;

	strcpy(copy, path);
	return !stat(dirname(copy), &st) && st.st_mode & S_ISGID ? 0660 : 0600;
}

int unix_listen(const char *path, int type, mode_t mode, int backlog)
{
	struct sockaddr_un sun;
	mode_t old;
	int fd, err = address(path, &sun);

	if (!err)
		err = unix_check_dead(&sun);
	if (!err && unlink(path) && errno != ENOENT)
		err = -errno;
	if (err)
		return err;
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (mode == UNIX_MODE_DIR)
		mode = mode_by_dir(path);
	/* The inode has its mode at birth: no moment is open to others. */
	old = umask(0777 & ~mode);
	err = bind(fd, (const struct sockaddr *)&sun, sizeof(sun)) ? -errno : 0;
	umask(old);
	if (!err && listen(fd, backlog)) {
		err = -errno;
		unlink(path);
	}
	if (!err)
		return fd;
	close(fd);
	return err;
}

int unix_connect(const char *path, int type)
{
	struct sockaddr_un sun;
	int fd, err = address(path, &sun);

	if (err)
		return err;
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (!connect(fd, (const struct sockaddr *)&sun, sizeof(sun)))
		return fd;
	err = -errno;
	close(fd);
	return err;
}
