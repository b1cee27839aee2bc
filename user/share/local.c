// SPDX-License-Identifier: BSD-2-Clause
/* local: packets between applications and their agent. Contract in local.h. */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "local.h"
#include "../lib/clock.h"
#include "../lib/fds.h"

int local_send(int sock, const struct local_msg *m, const int *fds, int nfds)
{
	const struct iovec iov = { .iov_base = (void *)m, .iov_len = sizeof(*m) };
	ssize_t n = fds_send(sock, &iov, 1, fds, (size_t)nfds, MSG_NOSIGNAL);

	return n < 0 ? (int)n : 0;
}

static bool terminated(const char *s, size_t n)
{
	return memchr(s, 0, n) != NULL;
}

int local_recv(int sock, struct local_msg *m, int *fds, int *nfds)
{
	struct fds l = { .fd = fds, .max = LOCAL_FDS };
	/* MSG_TRUNC: the packet's whole length */
	ssize_t n = fds_recv(sock, m, sizeof(*m), &l, MSG_TRUNC);

	*nfds = (int)l.n;
	if (n < 0)
		return (int)n;
	if (!n && !l.n)
		return 0;
	if (n != sizeof(*m) || l.lost || m->magic != LOCAL_MAGIC || !m->op ||
	    m->op >= LOCAL_OP_MAX || !terminated(m->name, sizeof(m->name)) ||
	    !terminated(m->node, sizeof(m->node)) ||
	    !terminated(m->addr, sizeof(m->addr)) || m->key.len > GM_KEY_MAX ||
	    m->text_len > LOCAL_TEXT) {
		while (*nfds)
			close(fds[--*nfds]);
		return -EPROTO;
	}
	return 1;
}

int local_connect(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd, err;

	if (!path)
		path = getenv("GHOSTMEM_AGENT");
	if (!path)
		path = LOCAL_DEFAULT;
	if (strlen(path) >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	strcpy(sun.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun))) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

int local_call(int sock, struct local_msg *m, const int *fds, int nfds, int *rfds,
	       int *nrfds, int timeout_ms,
	       void (*event)(void *, const struct local_msg *), void *arg)
{
	uint64_t end = clock_ns() + (uint64_t)timeout_ms * 1000000;
	int got[LOCAL_FDS], n, err;
	uint8_t op = m->op;

	assert(!rfds == !nrfds);
	m->magic = LOCAL_MAGIC;
	err = local_send(sock, m, fds, nfds);
	if (err)
		return err;
	for (;;) {
		struct pollfd p = { .fd = sock, .events = POLLIN };
		uint64_t now = clock_ns();

		if (now >= end || poll(&p, 1, (int)((end - now) / 1000000) + 1) == 0)
			return -ETIMEDOUT;
		err = local_recv(sock, m, got, &n);
		if (err == -EAGAIN || err == -EINTR)
			continue;
		if (err <= 0)
			return err ? err : -ECONNRESET;
		if (m->op == op)
			break;
		while (n)
			close(got[--n]);
		if (m->op == LOCAL_EVENT && event)
			event(arg, m);
	}
	if (nrfds)
		*nrfds = 0;
	for (int i = 0; i < n; i++) {
		if (rfds && !m->status)
			rfds[(*nrfds)++] = got[i];
		else
			close(got[i]);
	}
	return m->status;
}
