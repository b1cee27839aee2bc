// SPDX-License-Identifier: BSD-2-Clause
/* sock: see sock.h. No state; any thread. */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "clock.h"
#include "sock.h"

int sock_wait(int fd, short events, uint64_t deadline)
{
	for (;;) {
		struct pollfd p = { .fd = fd, .events = events };
		uint64_t now = clock_ns();
		int left = now >= deadline ? 0 : (int)((deadline - now) / 1000000) + 1;
		int n = poll(&p, 1, left);

		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (!n && !left)
			return -ETIMEDOUT;
	}
}

int sock_send(int fd, const char *p, size_t len, uint64_t deadline)
{
	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		int err;

		if (n > 0) {
			p += n;
			len -= (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return errno == ECONNRESET ? -EPIPE : -errno;
		err = sock_wait(fd, POLLOUT, deadline);
		if (err)
			return err;
	}
	return 0;
}
