// SPDX-License-Identifier: BSD-2-Clause
/* uffd: descriptors that applications handed over. Contract in uffd.h; agent's thread. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "uffd.h"

#define WAIT_MS 20

int uffd_check(int fd)
{
	static const char name[] = "anon_inode:[userfaultfd]";
	char path[32], is[sizeof(name) + 1];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, is, sizeof(is));
	if (n < 0)
		return -errno;
	return n == sizeof(name) - 1 && !memcmp(is, name, (size_t)n) ? 0 : -EINVAL;
}

static int result(ssize_t n)
{
	if (n == sizeof(struct uffd_msg))
		return 1;
	if (n >= 0)
		return -EIO;
	return errno == EAGAIN ? 0 : -errno;
}

static void on_alarm(int sig)
{
}

/* One timer for all, of the thread that comes here first. */
static bool timer_ready(timer_t *out)
{
	static bool made;
	static timer_t timer;
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM };
	struct sigaction act = { .sa_handler = on_alarm };
	sigset_t set;

	if (!made) {
		ev._sigev_un._tid = gettid();
		sigemptyset(&set);
		sigaddset(&set, SIGALRM);
		if (sigaction(SIGALRM, &act, NULL) ||
		    timer_create(CLOCK_MONOTONIC, &ev, &timer))
			return false;
		pthread_sigmask(SIG_UNBLOCK, &set, NULL);
		made = true;
	}
	*out = timer;
	return true;
}

int uffd_read_timed(int fd, struct uffd_msg *m)
{
	/* Again and again, should the first come before the wait begins. */
	const struct itimerspec on = { { 0, WAIT_MS * 1000000 },
				       { 0, WAIT_MS * 1000000 } },
				off = { 0 };
	struct pollfd p = { .fd = fd, .events = POLLIN };
	timer_t timer;
	ssize_t n;
	int err;

	/* A descriptor that blocks has POLLERR. */
	if (poll(&p, 1, 0) != 1 || p.revents != POLLIN)
		return 0;
	if (!timer_ready(&timer) || timer_settime(timer, 0, &on, NULL))
		return -errno;
	n = read(fd, m, sizeof(*m));
	err = n < 0 && errno == EINTR ? 0 : result(n);
	timer_settime(timer, 0, &off, NULL);
	return err;
}

int uffd_read(int fd, struct uffd_msg *m)
{
	static bool old; /* kernel before 6.10 */
	struct iovec iov = { m, sizeof(*m) };
	ssize_t n;

	if (old)
		return uffd_read_timed(fd, m);
	do {
		n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
	} while (n < 0 && errno == EINTR);
	if (n >= 0 || errno != EOPNOTSUPP)
		return result(n);
	old = true;
	return uffd_read_timed(fd, m);
}
