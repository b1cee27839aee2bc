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
#include <time.h>
#include <unistd.h>

#include "ghostnic.h"

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Wait for @events until @deadline. Return: 0, -ETIMEDOUT, -errno */
static int wait_for(int fd, short events, int64_t deadline)
{
	struct pollfd p = { .fd = fd, .events = events };

	for (;;) {
		int64_t left = deadline - now_ms();
		int n;

		if (left < 0)
			left = 0;
		n = poll(&p, 1, (int)left);
		if (n > 0)
			return 0;
		if (n == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

static int open_socket(const char *path, int64_t deadline)
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
			if (now_ms() < deadline) {
				poll(NULL, 0, 10);
				continue;
			}
		}
		close(fd);
		return err;
	}
	return fd;
}

static int send_all(int fd, const char *p, size_t len, int64_t deadline)
{
	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
		int err;

		if (n >= 0) {
			p += n;
			len -= (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return errno == ECONNRESET ? -EPIPE : -errno;
		err = wait_for(fd, POLLOUT, deadline);
		if (err)
			return err;
	}
	return 0;
}

struct fd_list {
	int *fd; /* [max] */
	unsigned int max, n;
	bool lost; /* more came */
};

/* As recv(), with descriptors. */
static ssize_t recv_fds(int fd, void *buf, size_t len, struct fd_list *l)
{
	struct iovec iov = { buf, len };
	union {
		char buf[CMSG_SPACE(GHOSTNIC_MAX_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t got = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);

	if (got < 0)
		return got;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		size_t k = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < k; i++) {
			int f;

			memcpy(&f, CMSG_DATA(c) + i * sizeof(int), sizeof(f));
			if (l->n < l->max) {
				l->fd[l->n++] = f;
			} else {
				close(f);
				l->lost = true;
			}
		}
	}
	l->lost |= !!(msg.msg_flags & MSG_CTRUNC);
	return got;
}

/* Read up to the first newline. @l: NULL: descriptors are not wanted, and the kernel
 * drops them. Return: 0 and a malloc()ed string, or -errno */
static int recv_line(int fd, int64_t deadline, char **out, struct fd_list *l)
{
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
		n = l ? recv_fds(fd, buf + len, room - len - 1, l)
		      : recv(fd, buf + len, room - len - 1, 0);
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
		if (errno == EINTR)
			continue;
		err = errno == ECONNRESET ? -EPIPE : -errno;
		if (err != -EAGAIN)
			goto fail;
		err = wait_for(fd, POLLIN, deadline);
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

static int request(const char *path, const char *text, int timeout_ms, char **answer,
		   struct fd_list *l)
{
	size_t len = strlen(text);
	int64_t deadline;
	int fd, err;

	if (strchr(text, '\n'))
		return -EINVAL;
	if (len + 1 > GHOSTNIC_MAX_REQUEST)
		return -EMSGSIZE;
	deadline = now_ms() + (timeout_ms < 0 ? GHOSTNIC_TIMEOUT_MS : timeout_ms);
	fd = open_socket(ghostnic_socket(path), deadline);
	if (fd < 0)
		return fd;
	err = send_all(fd, text, len, deadline);
	if (!err)
		err = send_all(fd, "\n", 1, deadline);
	if (!err)
		err = recv_line(fd, deadline, answer, l);
	close(fd);
	return err;
}

int ghostnic_request(const char *path, const char *text, int timeout_ms, char **answer)
{
	return request(path, text, timeout_ms, answer, NULL);
}

int ghostnic_request_fds(const char *path, const char *text, int timeout_ms,
			 char **answer, int *fds, unsigned int max, unsigned int *nfds)
{
	int got[GHOSTNIC_MAX_FDS] = { -1, -1 };
	struct fd_list l = { .fd = got };
	int err;

	l.max = max < GHOSTNIC_MAX_FDS ? max : GHOSTNIC_MAX_FDS;
	err = request(path, text, timeout_ms, answer, &l);
	if (err) {
		while (l.n)
			close(got[--l.n]);
		return err;
	}
	for (unsigned int i = 0; i < l.n; i++)
		fds[i] = got[i];
	*nfds = l.n;
	return 0;
}
