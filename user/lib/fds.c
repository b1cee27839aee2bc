// SPDX-License-Identifier: BSD-2-Clause
/* fds: see fds.h. No state; any thread. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "fds.h"

union control {
	char buf[CMSG_SPACE(FDS_MAX * sizeof(int))];
	struct cmsghdr head;
};

ssize_t fds_send(int sock, const struct iovec *iov, size_t niov, const int *fd,
		 size_t nfds, int flags)
{
	union control c = { .buf = { 0 } };
	struct msghdr m = { .msg_iov = (struct iovec *)iov, .msg_iovlen = niov };
	ssize_t n;

	if (nfds > FDS_MAX)
		return -EMSGSIZE;
	if (nfds) {
		m.msg_control = &c;
		m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c.head.cmsg_level = SOL_SOCKET;
		c.head.cmsg_type = SCM_RIGHTS;
		c.head.cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(&c.head), fd, nfds * sizeof(int));
	}
	n = sendmsg(sock, &m, flags);
	return n < 0 ? -errno : n;
}

static void take(struct fds *l, const struct cmsghdr *c)
{
	size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

	for (size_t i = 0; i < n; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
		if (l->n < l->max) {
			l->fd[l->n++] = fd;
		} else {
			close(fd);
			l->lost = true;
		}
	}
}

ssize_t fds_recv(int sock, void *buf, size_t len, struct fds *l, int flags)
{
	struct iovec iov = { buf, len };
	union control control;
	struct msghdr m = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(sock, &m, flags | MSG_CMSG_CLOEXEC);

	if (n < 0)
		return -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
			take(l, c);
	if (m.msg_flags & MSG_CTRUNC)
		l->lost = true;
	return n;
}

void fds_close(struct fds *l)
{
	while (l->n)
		close(l->fd[--l->n]);
}
