// SPDX-License-Identifier: BSD-2-Clause
/*
 * ghostnic_request() against a real socket, whose other end is a thread that behaves
 * well, badly, or not at all.
 */
#include <errno.h>
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

#include "../../user/lib/ghostnic.h"

/* What the server does with the one connection it takes. */
enum manner {
	ANSWERS,	/* all of .answer, then closes */
	DRIPS,		/* .answer byte by byte */
	FLOODS,		/* bytes without end and without newline */
	HANGS_UP,	/* closes at once */
	HALF,		/* .answer, which has no newline, then closes */
	SILENT,		/* reads, never answers */
};

struct server {
	enum manner manner;
	const char *answer;
	char dir[32], path[64];
	char got[GHOSTNIC_MAX_REQUEST + 1];
	int fd;
	int done[2];		/* closed by the test: SILENT may go */
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

static bool put(int fd, const char *p, size_t len, size_t step)
{
	while (len) {
		ssize_t n = send(fd, p, len < step ? len : step, MSG_NOSIGNAL);

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
	case HALF:
		put(fd, s->answer, strlen(s->answer), SIZE_MAX);
		break;
	case DRIPS:
		put(fd, s->answer, strlen(s->answer), 1);
		break;
	case FLOODS:
		memset(junk, 'a', sizeof(junk));
		while (put(fd, junk, sizeof(junk), SIZE_MAX))
			;
		break;
	case SILENT:
		while (read(s->done[0], &c, 1) > 0)
			;
		break;
	case HANGS_UP:
		break;
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
	struct server s = { .manner = DRIPS, .answer = "{\"ok\":false,\"error\":\"no\"}\n" };

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
	shutdown(s.fd, SHUT_RDWR);	/* wakes accept() */
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
