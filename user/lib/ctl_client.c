// SPDX-License-Identifier: BSD-2-Clause
/*
 * ctl_client: the client's end of the control socket. See ghostnic.h.
 *
 * One non-blocking socket per call and one deadline for all of it: a daemon that
 * accepts and then stalls, or sends a byte at a time, costs no more than the
 * timeout. Needs the C library only, so that users of libghostnic link nothing else.
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"
#include "fds.h"
#include "ghostnic.h"
#include "sock.h"

static int open_socket(const char *path, uint64_t deadline)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd, err;

	if (strlen(path) >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	strcpy(sa.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* EAGAIN of a UNIX socket means a full backlog; poll() does not wait for
	 * that to change, so ask again until the deadline. */
	while (connect(fd, (struct sockaddr *)&sa, sizeof(sa))) {
		err = -errno;
		if (err == -EINTR)
			continue;
		if (err == -EAGAIN) {
			err = -ETIMEDOUT;
			if (clock_ns() < deadline) {
				poll(NULL, 0, 10);
				continue;
			}
		}
		close(fd);
		return err;
	}
	return fd;
}

/* Read up to the first newline. @l: NULL: descriptors that come are closed. Return: 0 and
 * a malloc()ed string, or -errno */
static int recv_line(int fd, uint64_t deadline, char **out, struct fds *l)
{
	struct fds none = { .fd = NULL };
	size_t len = 0, room = 0;
	char *buf = NULL, *end;
	int err;

	for (;;) {
		ssize_t n;

		if (len + 1 >= room) {
			size_t want = room ? room * 2 : 8192;
			char *b;

			err = -EMSGSIZE;
			if (room >= GHOSTNIC_MAX_ANSWER)
				goto fail;
			b = realloc(buf, want);
			err = -ENOMEM;
			if (!b)
				goto fail;
			buf = b;
			room = want;
		}
		n = fds_recv(fd, buf + len, room - len - 1, l ? l : &none, 0);
		err = -EMSGSIZE;
		if (n >= 0 && l && l->lost)
			goto fail;
		if (n > 0) {
			end = memchr(buf + len, '\n', (size_t)n);
			len += (size_t)n;
			if (!end)
				continue;
			*end = '\0';
			*out = buf;
			return 0;
		}
		if (n == 0) {
			err = -EPIPE;
			goto fail;
		}
		if (n == -EINTR)
			continue;
		err = n == -ECONNRESET ? -EPIPE : (int)n;
		if (err != -EAGAIN)
			goto fail;
		err = sock_wait(fd, POLLIN, deadline);
		if (err)
			goto fail;
	}
fail:
	free(buf);
	return err;
}

const char *ghostnic_socket(const char *path)
{
	if (!path || !*path)
		path = getenv(GHOSTNIC_SOCKET_ENV);
	return path && *path ? path : GHOSTNIC_SOCKET;
}

static int exchange(const char *path, const char *text, int timeout_ms, char **answer,
		    struct fds *l)
{
	size_t len = strlen(text);
	uint64_t deadline;
	int fd, err;

	if (strchr(text, '\n'))
		return -EINVAL;
	if (len + 1 > GHOSTNIC_MAX_REQUEST)
		return -EMSGSIZE;
	deadline =
		clock_ns() +
		(uint64_t)(timeout_ms < 0 ? GHOSTNIC_TIMEOUT_MS : timeout_ms) * 1000000;
	fd = open_socket(ghostnic_socket(path), deadline);
	if (fd < 0)
		return fd;
	err = sock_send(fd, text, len, deadline);
	if (!err)
		err = sock_send(fd, "\n", 1, deadline);
	if (!err)
		err = recv_line(fd, deadline, answer, l);
	close(fd);
	return err;
}

int ghostnic_request(const char *path, const char *request, int timeout_ms, char **answer)
{
	return exchange(path, request, timeout_ms, answer, NULL);
}

int ghostnic_request_fds(const char *path, const char *request, int timeout_ms,
			 char **answer, int *fds, unsigned int max, unsigned int *nfds)
{
	int got[GHOSTNIC_MAX_FDS] = { -1, -1 };
	struct fds l = { .fd = got };
	int err;

	l.max = max < GHOSTNIC_MAX_FDS ? max : GHOSTNIC_MAX_FDS;
	err = exchange(path, request, timeout_ms, answer, &l);
	if (err) {
		fds_close(&l);
		return err;
	}
	for (unsigned int i = 0; i < l.n; i++)
		fds[i] = got[i];
	*nfds = l.n;
	return 0;
}
