// SPDX-License-Identifier: BSD-2-Clause
/* vhost-user port: its UNIX socket. Contract in port_vhost.h; control thread. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "port_vhost.h"

#define SOCKET_MODE 0600
#define BACKLOG	    8 /* front ends that wait for the one before */

static int open_socket(const char *path, struct sockaddr_un *sun)
{
	int fd;

	memset(sun, 0, sizeof(*sun));
	sun->sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(sun->sun_path))
		return -ENAMETOOLONG;
	strcpy(sun->sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return fd < 0 ? -errno : fd;
}

int vhost_sock_connect(const char *path, int *out)
{
	struct sockaddr_un sun;
	int err, fd = open_socket(path, &sun);

	if (fd < 0)
		return fd;
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun))) {
		err = -errno;
		close(fd);
		return err;
	}
	*out = fd;
	return 0;
}

/* A socket file that nobody serves is left from a process that was killed. */
static int remove_stale(const char *path)
{
	struct stat st;
	int fd, err;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	err = vhost_sock_connect(path, &fd);
	if (!err)
		close(fd);
	/* EAGAIN: its backlog is full */
	if (!err || err == -EAGAIN)
		return -EADDRINUSE;
	if (err != -ECONNREFUSED)
		return err;
	return unlink(path) && errno != ENOENT ? -errno : 0;
}

int vhost_sock_listen(const char *path, int *out)
{
	struct sockaddr_un sun;
	int fd, err = remove_stale(path);
	mode_t old;

	if (err)
		return err;
	fd = open_socket(path, &sun);
	if (fd < 0)
		return fd;
	/* The umask gives the file its mode at birth: no moment is open to others. */
	old = umask(0777 & ~SOCKET_MODE);
	err = bind(fd, (struct sockaddr *)&sun, sizeof(sun)) ? -errno : 0;
	umask(old);
	if (err)
		goto close_fd;
	if (listen(fd, BACKLOG)) {
		err = -errno;
		unlink(path);
		goto close_fd;
	}
	*out = fd;
	return 0;
close_fd:
	close(fd);
	return err;
}
