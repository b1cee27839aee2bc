// SPDX-License-Identifier: BSD-2-Clause
/*
 * ghostnic_request() against a real socket, whose other end is a thread that behaves
 * well, badly, or not at all.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/lib/fds.h"
#include "../../user/lib/ghostnic.h"

/* What the server does with the one connection it takes. */
enum manner {
	ANSWERS,  /* all of .answer, then closes */
	DRIPS,	  /* .answer byte by byte */
	FLOODS,	  /* bytes without end and without newline */
	HANGS_UP, /* closes at once */
	HALF,	  /* .answer, which has no newline, then closes */
	SILENT,	  /* reads, never answers */
};

struct server {
	enum manner manner;
	const char *answer;
	unsigned int nfds; /* descriptors that come with each part of the answer */
	char dir[32], path[64];
	char got[GHOSTNIC_MAX_REQUEST + 1];
	int fd;
	int done[2]; /* closed by the test: SILENT may go */
	pthread_t thread;
};

static void read_request(struct server *s, int fd)
{
	size_t len = 0;
	ssize_t n;

	while (len < sizeof(s->got) - 1 && !memchr(s->got, '\n', len) &&
	       (n = read(fd, s->got + len, sizeof(s->got) - 1 - len)) > 0)
		len += (size_t)n;
	s->got[len] = '\0';
}

#define MAX_SENT 4

/* As send(), with @nfds descriptors of a file that has nothing to do with it. */
static ssize_t send_fds(int fd, const char *p, size_t len, unsigned int nfds)
{
	const struct iovec iov = { (char *)p, len };
	const int some[MAX_SENT] = { STDERR_FILENO, STDERR_FILENO, STDERR_FILENO,
				     STDERR_FILENO };

	return fds_send(fd, &iov, 1, some, nfds, MSG_NOSIGNAL);
}

static bool put(int fd, const char *p, size_t len, size_t step, unsigned int nfds)
{
	while (len) {
		ssize_t n = send_fds(fd, p, len < step ? len : step, nfds);

		if (n < 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

static void *serve(void *arg)
{
	static char junk[65536];
	struct server *s = arg;
	int fd = accept(s->fd, NULL, NULL);
	char c;

	if (fd < 0)
		return NULL;
	if (s->manner != HANGS_UP)
		read_request(s, fd);
	switch (s->manner) {
	case ANSWERS:
	case HALF: put(fd, s->answer, strlen(s->answer), SIZE_MAX, s->nfds); break;
	case DRIPS: put(fd, s->answer, strlen(s->answer), 1, s->nfds); break;
	case FLOODS:
		memset(junk, 'a', sizeof(junk));
		while (put(fd, junk, sizeof(junk), SIZE_MAX, 0))
			;
		break;
	case SILENT:
		while (read(s->done[0], &c, 1) > 0)
			;
		break;
	case HANGS_UP: break;
	}
	close(fd);
	return NULL;
}

static void start(struct server *s)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	strcpy(s->dir, "/tmp/ctl-client-XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	snprintf(s->path, sizeof(s->path), "%s/s", s->dir);
	strcpy(sa.sun_path, s->path);
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(s->fd >= 0);
	assert_int_equal(bind(s->fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(s->fd, 1), 0);
	assert_int_equal(pipe(s->done), 0);
	assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void stop(struct server *s)
{
	close(s->done[1]);
	pthread_join(s->thread, NULL);
	close(s->done[0]);
	close(s->fd);
	unlink(s->path);
	rmdir(s->dir);
}

/* One request to a server of some manner; the answer, if any, must be @want. */
static void expect(struct server *s, const char *request, int timeout_ms, int err,
		   const char *want)
{
	char *answer = (char *)"untouched";

	start(s);
	assert_int_equal(ghostnic_request(s->path, request, timeout_ms, &answer), err);
	stop(s);
	assert_string_equal(answer, want);
	if (!err)
		free(answer);
}

static unsigned int open_fds(void)
{
	unsigned int n = 0;
	DIR *d = opendir("/proc/self/fd");

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* Room for @max descriptors, @n of which are to come, or @err. */
static void expect_fds(struct server *s, unsigned int max, int err, unsigned int n)
{
	int fd[GHOSTNIC_MAX_FDS + 2] = { -7, -7, -7, -7 };
	unsigned int got = 77, before = open_fds();
	char *answer = (char *)"untouched";

	start(s);
	assert_int_equal(ghostnic_request_fds(s->path, "{}", -1, &answer, fd, max, &got),
			 err);
	stop(s);
	if (err) {
		assert_string_equal(answer, "untouched");
		assert_int_equal(got, 77);
		n = 0;
	} else {
		assert_string_equal(answer, "yes");
		free(answer);
		assert_int_equal(got, n);
	}
	assert_int_equal(open_fds(), before + n);
	for (unsigned int i = 0; i < n; i++) {
		assert_true(fcntl(fd[i], F_GETFD) & FD_CLOEXEC);
		assert_int_equal(close(fd[i]), 0);
	}
	for (unsigned int i = n; i < GHOSTNIC_MAX_FDS + 2; i++)
		assert_int_equal(fd[i], -7);
}

static void test_descriptors(void **state)
{
	struct server s = { .manner = ANSWERS, .answer = "yes\n" };
	unsigned int before;

	expect_fds(&s, 2, 0, 0);
	s.nfds = 1;
	expect_fds(&s, 2, 0, 1);
	expect_fds(&s, 1, 0, 1);
	expect_fds(&s, 0, -EMSGSIZE, 0);
	s.nfds = 2;
	expect_fds(&s, 2, 0, 2);
	expect_fds(&s, 4, 0, 2);
	expect_fds(&s, 1, -EMSGSIZE, 0);
	s.nfds = 3;
	expect_fds(&s, 2, -EMSGSIZE, 0);
	s.nfds = MAX_SENT;
	expect_fds(&s, 4, -EMSGSIZE, 0);
	/* One with each byte. */
	s = (struct server){ .manner = DRIPS, .answer = "yes\n", .nfds = 1 };
	expect_fds(&s, 2, -EMSGSIZE, 0);
	/* Whoever does not ask for them has none. */
	s = (struct server){ .manner = ANSWERS, .answer = "yes\n", .nfds = 2 };
	before = open_fds();
	expect(&s, "{}", -1, 0, "yes");
	assert_int_equal(open_fds(), before);
	/* Nor does a failure leave any. */
	s = (struct server){ .manner = HALF, .answer = "{", .nfds = 2 };
	expect_fds(&s, 2, -EPIPE, 0);
	s = (struct server){ .manner = HANGS_UP };
	expect_fds(&s, 2, -EPIPE, 0);
}

static void test_answer(void **state)
{
	struct server s = { .manner = ANSWERS, .answer = "{\"ok\":true}\n" };

	expect(&s, "{\"cmd\":\"version\"}", -1, 0, "{\"ok\":true}");
	assert_string_equal(s.got, "{\"cmd\":\"version\"}\n");
}

static void test_first_line_only(void **state)
{
	struct server s = { .manner = ANSWERS, .answer = "one\ntwo\n" };

	expect(&s, "{}", -1, 0, "one");
}

static void test_drips(void **state)
{
	struct server s = { .manner = DRIPS,
			    .answer = "{\"ok\":false,\"error\":\"no\"}\n" };

	expect(&s, "{}", -1, 0, "{\"ok\":false,\"error\":\"no\"}");
}

/* Longer than any first buffer, and than a socket takes at once. */
static void test_long_answer(void **state)
{
	size_t len = 3 << 20;
	char *text = malloc(len + 2);
	struct server s = { .manner = ANSWERS, .answer = text };
	char *answer = NULL;

	assert_non_null(text);
	memset(text, 'b', len);
	strcpy(text + len, "\n");
	start(&s);
	assert_int_equal(ghostnic_request(s.path, "{}", 30000, &answer), 0);
	stop(&s);
	assert_int_equal(strlen(answer), len);
	assert_int_equal(strspn(answer, "b"), len);
	free(answer);
	free(text);
}

static void test_endless_answer(void **state)
{
	struct server s = { .manner = FLOODS };

	expect(&s, "{}", 30000, -EMSGSIZE, "untouched");
}

static void test_hangs_up(void **state)
{
	struct server s = { .manner = HANGS_UP };

	expect(&s, "{}", -1, -EPIPE, "untouched");
}

static void test_half_an_answer(void **state)
{
	struct server s = { .manner = HALF, .answer = "{\"ok\":tr" };

	expect(&s, "{}", -1, -EPIPE, "untouched");
}

static void test_silence(void **state)
{
	struct server s = { .manner = SILENT };

	expect(&s, "{}", 50, -ETIMEDOUT, "untouched");
}

static void test_request_limits(void **state)
{
	struct server s = { .manner = ANSWERS, .answer = "y\n" };
	char req[GHOSTNIC_MAX_REQUEST + 1], *answer = NULL;

	memset(req, 'r', sizeof(req));
	req[GHOSTNIC_MAX_REQUEST] = '\0';
	assert_int_equal(ghostnic_request("/nowhere", req, -1, &answer), -EMSGSIZE);
	req[GHOSTNIC_MAX_REQUEST - 1] = '\0';
	expect(&s, req, -1, 0, "y");
	assert_int_equal(strlen(s.got), GHOSTNIC_MAX_REQUEST);
	assert_int_equal(ghostnic_request("/nowhere", "{\n}", -1, &answer), -EINVAL);
	assert_null(answer);
}

static void test_no_daemon(void **state)
{
	struct server s = { .manner = ANSWERS, .answer = "y\n" };
	char *answer = NULL, path[200];

	assert_int_equal(ghostnic_request("/nowhere/sock", "{}", -1, &answer), -ENOENT);
	/* A socket whose daemon died. */
	expect(&s, "{}", -1, 0, "y");
	start(&s);
	shutdown(s.fd, SHUT_RDWR); /* wakes accept() */
	pthread_join(s.thread, NULL);
	close(s.fd);
	assert_int_equal(ghostnic_request(s.path, "{}", -1, &answer), -ECONNREFUSED);
	close(s.done[0]);
	close(s.done[1]);
	unlink(s.path);
	rmdir(s.dir);
	memset(path, 'p', sizeof(path));
	path[0] = '/';
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(ghostnic_request(path, "{}", -1, &answer), -ENAMETOOLONG);
	assert_null(answer);
}

static void test_default_socket(void **state)
{
	unsetenv(GHOSTNIC_SOCKET_ENV);
	assert_string_equal(ghostnic_socket(NULL), GHOSTNIC_SOCKET);
	assert_string_equal(ghostnic_socket(""), GHOSTNIC_SOCKET);
	setenv(GHOSTNIC_SOCKET_ENV, "/e", 1);
	assert_string_equal(ghostnic_socket(NULL), "/e");
	assert_string_equal(ghostnic_socket("/p"), "/p");
	unsetenv(GHOSTNIC_SOCKET_ENV);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answer),
		cmocka_unit_test(test_descriptors),
		cmocka_unit_test(test_first_line_only),
		cmocka_unit_test(test_drips),
		cmocka_unit_test(test_long_answer),
		cmocka_unit_test(test_endless_answer),
		cmocka_unit_test(test_hangs_up),
		cmocka_unit_test(test_half_an_answer),
		cmocka_unit_test(test_silence),
		cmocka_unit_test(test_request_limits),
		cmocka_unit_test(test_no_daemon),
		cmocka_unit_test(test_default_socket),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
