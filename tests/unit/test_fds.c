// SPDX-License-Identifier: BSD-2-Clause
/* fds: descriptors that go along with bytes, more than there is room for, and none. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/lib/fds.h"

struct pair {
	int a, b;
};

static struct pair pair(int type)
{
	int s[2];

	assert_int_equal(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, s), 0);
	return (struct pair){ s[0], s[1] };
}

static void unpair(struct pair p)
{
	close(p.a);
	close(p.b);
}

static bool same_file(int x, int y)
{
	struct stat s, t;

	assert_int_equal(fstat(x, &s), 0);
	assert_int_equal(fstat(y, &t), 0);
	return s.st_ino == t.st_ino && s.st_dev == t.st_dev;
}

static unsigned int open_files(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* They come with the first byte, in order, and are closed on exec. */
static void test_along(void **state)
{
	struct pair p = pair(SOCK_STREAM);
	const struct iovec iov[2] = { { (char *)"ab", 2 }, { (char *)"cd", 2 } };
	int send[2] = { p.a, STDIN_FILENO }, got[3];
	struct fds l = { .fd = got, .max = 3 };
	char buf[8];

	assert_int_equal(fds_send(p.a, iov, 2, send, 2, 0), 4);
	assert_int_equal(fds_recv(p.b, buf, 1, &l, 0), 1);
	assert_int_equal(l.n, 2);
	assert_false(l.lost);
	assert_true(same_file(got[0], p.a));
	assert_true(same_file(got[1], STDIN_FILENO));
	assert_int_equal(fcntl(got[0], F_GETFD), FD_CLOEXEC);
	assert_int_equal(fds_recv(p.b, buf, sizeof(buf), &l, 0), 3);
	assert_memory_equal(buf, "bcd", 3);
	assert_int_equal(l.n, 2);
	fds_close(&l);
	assert_int_equal(l.n, 0);
	assert_int_equal(fcntl(got[0], F_GETFD), -1);
	unpair(p);
}

/* A message of several parts: the list goes on where it was. */
static void test_append(void **state)
{
	struct pair p = pair(SOCK_STREAM);
	const struct iovec iov = { (char *)"x", 1 };
	int got[2];
	struct fds l = { .fd = got, .max = 2 };
	char c;

	for (int i = 0; i < 2; i++) {
		assert_int_equal(fds_send(p.a, &iov, 1, &p.a, 1, 0), 1);
		assert_int_equal(fds_recv(p.b, &c, 1, &l, 0), 1);
	}
	assert_int_equal(l.n, 2);
	assert_false(l.lost);
	fds_close(&l);
	unpair(p);
}

/* More than there is room for, or than any message may have: none stays open. */
static void test_too_many(void **state)
{
	struct pair p = pair(SOCK_STREAM);
	const struct iovec iov = { (char *)"x", 1 };
	int send[FDS_MAX + 1], got[1];
	struct fds l = { .fd = got, .max = 1 }, none = { .fd = NULL };
	unsigned int before = open_files();
	char c;

	for (unsigned int i = 0; i <= FDS_MAX; i++)
		send[i] = p.a;
	assert_int_equal(fds_send(p.a, &iov, 1, send, FDS_MAX + 1, 0), -EMSGSIZE);
	assert_int_equal(fds_send(p.a, &iov, 1, send, FDS_MAX, 0), 1);
	assert_int_equal(fds_recv(p.b, &c, 1, &l, 0), 1);
	assert_int_equal(l.n, 1);
	assert_true(l.lost);
	assert_int_equal(open_files(), before + 1);
	fds_close(&l);
	assert_int_equal(fds_send(p.a, &iov, 1, send, 2, 0), 1);
	assert_int_equal(fds_recv(p.b, &c, 1, &none, 0), 1);
	assert_true(none.lost);
	assert_int_equal(open_files(), before);
	unpair(p);
}

/* A packet's whole length is told, and errors are negative. */
static void test_ends(void **state)
{
	struct pair p = pair(SOCK_SEQPACKET);
	const struct iovec iov = { (char *)"abcd", 4 };
	struct fds l = { .fd = NULL };
	char buf[2];

	assert_int_equal(fds_recv(p.b, buf, 2, &l, MSG_DONTWAIT), -EAGAIN);
	assert_int_equal(fds_send(p.a, &iov, 1, NULL, 0, 0), 4);
	assert_int_equal(fds_recv(p.b, buf, 2, &l, MSG_TRUNC), 4);
	assert_false(l.lost);
	close(p.a);
	assert_int_equal(fds_recv(p.b, buf, 2, &l, 0), 0);
	assert_int_equal(fds_send(p.b, &iov, 1, NULL, 0, MSG_NOSIGNAL), -EPIPE);
	close(p.b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_along),
		cmocka_unit_test(test_append),
		cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
