// SPDX-License-Identifier: BSD-2-Clause
/*
 * ctl: the socket around the protocol, with real clients. One thread: the test writes,
 * lets ctl_serve() do what is ready, and reads.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/daemon/ctl.h"
#include "still.h"

#define DEADLINE_MS 30000

struct server {
	struct still s;
	struct ctl *ctl;
	char dir[64], path[108];
};

static int setup(void **state)
{
	struct server *v = calloc(1, sizeof(*v));

	assert_non_null(v);
	still_init(&v->s, "veth0");
	strcpy(v->dir, "/tmp/test_ctl.XXXXXX");
	assert_non_null(mkdtemp(v->dir));
	snprintf(v->path, sizeof(v->path), "%s/run/ctl.sock", v->dir);
	assert_int_equal(ctl_open(&v->ctl, v->path, &v->s.d), 0);
	*state = v;
	return 0;
}

static int teardown(void **state)
{
	struct server *v = *state;
	char run[80];

	ctl_close(v->ctl);
	still_fini(&v->s);
	snprintf(run, sizeof(run), "%s/run", v->dir);
	assert_int_equal(access(v->path, F_OK), -1);
	assert_int_equal(rmdir(run), 0); /* nothing is left in it */
	assert_int_equal(rmdir(v->dir), 0);
	free(v);
	return 0;
}

static int dial(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_return_code(fd, errno);
	strcpy(sun.sun_path, path);
	assert_return_code(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), errno);
	return fd;
}

/* Serve until nothing is ready. */
static void pump(struct server *v)
{
	struct pollfd p = { .fd = ctl_fd(v->ctl), .events = POLLIN };

	while (poll(&p, 1, 0) > 0)
		ctl_serve(v->ctl);
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* What has been sent so far. Return: bytes; @eof: and nothing will follow */
static size_t hear(int fd, char *buf, size_t size, bool *eof)
{
	size_t have = 0;
	ssize_t n;

	while ((n = recv(fd, buf + have, size - 1 - have, MSG_DONTWAIT)) > 0)
		have += (size_t)n;
	*eof = n == 0 || errno == ECONNRESET;
	buf[have] = '\0';
	return have;
}

static unsigned int lines(const char *s)
{
	unsigned int n = 0;

	while ((s = strchr(s, '\n'))) {
		n++;
		s++;
	}
	return n;
}

#define VERSION "{\"cmd\":\"version\"}\n"

static void serves_clients(void **state)
{
	struct server *v = *state;
	char buf[4096], run[80];
	struct stat st;
	bool eof;
	int a, b;

	snprintf(run, sizeof(run), "%s/run", v->dir);
	assert_int_equal(stat(run, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	assert_int_equal(stat(v->path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0600);

	a = dial(v->path);
	b = dial(v->path);
	/* Half a line is no request; two and a half are two. */
	say(a, "{\"cmd\":");
	say(b, VERSION VERSION "{");
	pump(v);
	assert_int_equal(hear(a, buf, sizeof(buf), &eof), 0);
	assert_false(eof);
	hear(b, buf, sizeof(buf), &eof);
	assert_int_equal(lines(buf), 2);
	say(a, "\"version\"}\n");
	pump(v);
	hear(a, buf, sizeof(buf), &eof);
	assert_int_equal(lines(buf), 1);
	assert_non_null(strstr(buf, "\"ok\":true"));
	/* Garbage is answered and the client may go on. */
	say(b, "garbage\n" VERSION);
	pump(v);
	hear(b, buf, sizeof(buf), &eof);
	assert_int_equal(lines(buf), 2);
	assert_non_null(strstr(buf, "\"ok\":false"));
	assert_non_null(strstr(buf, "\"ok\":true"));
	assert_false(eof);
	close(b);
	pump(v);
	/* Everything that was asked before the end of input is answered. */
	say(a, VERSION VERSION VERSION "{\"cmd\"");
	shutdown(a, SHUT_WR);
	pump(v);
	hear(a, buf, sizeof(buf), &eof);
	assert_int_equal(lines(buf), 3);
	assert_true(eof);
	close(a);
}

static void bounds_lines(void **state)
{
	struct server *v = *state;
	char text[CTL_MAX_LINE + 2], buf[8192];
	bool eof;
	int fd = dial(v->path);

	/* The longest line there may be, with its newline, is answered. */
	memset(text, ' ', sizeof(text));
	memcpy(text, VERSION, strlen(VERSION) - 1);
	text[CTL_MAX_LINE - 1] = '\n';
	text[CTL_MAX_LINE] = '\0';
	say(fd, text);
	pump(v);
	hear(fd, buf, sizeof(buf), &eof);
	assert_non_null(strstr(buf, "\"ok\":true"));
	assert_false(eof);
	/* One byte more ends the connection, newline or not. */
	text[CTL_MAX_LINE - 1] = ' ';
	text[CTL_MAX_LINE] = '\n';
	text[CTL_MAX_LINE + 1] = '\0';
	say(fd, text);
	pump(v);
	hear(fd, buf, sizeof(buf), &eof);
	assert_int_equal(lines(buf), 1);
	assert_non_null(strstr(buf, "longer than 4096"));
	assert_true(eof);
	close(fd);
}

/* A client that asks and does not read is not read from; it loses nothing. */
static void holds_slow_readers(void **state)
{
	struct server *v = *state;
	const char *req = "{\"cmd\":\"metrics\"}\n";
	unsigned int sent = 0, got = 0;
	static char buf[1 << 20];
	bool eof;
	int fd = dial(v->path);

	while (send(fd, req, strlen(req), MSG_DONTWAIT | MSG_NOSIGNAL) ==
	       (ssize_t)strlen(req)) {
		sent++;
		pump(v);
		if (sent > 100000)
			fail_msg("the daemon takes requests without end");
	}
	assert_int_equal(errno, EAGAIN);
	assert_true(sent > 10);
	for (size_t n = 1; n;) {
		n = hear(fd, buf, sizeof(buf), &eof);
		got += lines(buf);
		assert_false(eof);
		pump(v);
	}
	assert_int_equal(got, sent);
	close(fd);
}

static void bounds_clients(void **state)
{
	struct server *v = *state;
	int fd[CTL_MAX_CLIENTS], more;
	char buf[4096];
	bool eof;

	for (int i = 0; i < CTL_MAX_CLIENTS; i++) {
		fd[i] = dial(v->path);
		pump(v);
	}
	more = dial(v->path);
	pump(v);
	hear(more, buf, sizeof(buf), &eof);
	assert_non_null(strstr(buf, "too many control clients"));
	assert_true(eof);
	close(more);
	/* The others are still served, and a place that is left is taken. */
	for (int i = 0; i < CTL_MAX_CLIENTS; i++)
		say(fd[i], VERSION);
	pump(v);
	for (int i = 0; i < CTL_MAX_CLIENTS; i++) {
		hear(fd[i], buf, sizeof(buf), &eof);
		assert_int_equal(lines(buf), 1);
		assert_false(eof);
	}
	close(fd[3]);
	pump(v);
	fd[3] = dial(v->path);
	say(fd[3], VERSION);
	pump(v);
	hear(fd[3], buf, sizeof(buf), &eof);
	assert_int_equal(lines(buf), 1);
	for (int i = 0; i < CTL_MAX_CLIENTS; i++)
		close(fd[i]);
	pump(v);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* All places taken, one by a client that never reads: it makes room in the end. */
static void evicts_stalled_client(void **state)
{
	struct server *v = *state;
	const char *req = "{\"cmd\":\"metrics\"}\n";
	int fd[CTL_MAX_CLIENTS], more;
	int64_t end = now_ms() + DEADLINE_MS;
	struct pollfd p;
	char buf[4096];
	bool eof;

	for (int i = 0; i < CTL_MAX_CLIENTS; i++) {
		fd[i] = dial(v->path);
		pump(v);
	}
	while (send(fd[0], req, strlen(req), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		pump(v);
	for (;;) {
		more = dial(v->path);
		say(more, VERSION);
		pump(v);
		p = (struct pollfd){ .fd = more, .events = POLLIN };
		assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
		hear(more, buf, sizeof(buf), &eof);
		if (!eof)
			break;
		close(more);
		assert_true(now_ms() < end);
		poll(NULL, 0, 20); /* how often to look */
	}
	assert_non_null(strstr(buf, "\"ok\":true"));
	/* It was the one that stalled. */
	for (int i = 1; i < CTL_MAX_CLIENTS; i++) {
		say(fd[i], VERSION);
		pump(v);
		hear(fd[i], buf, sizeof(buf), &eof);
		assert_int_equal(lines(buf), 1);
		assert_false(eof);
	}
	while (recv(fd[0], buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
	assert_int_not_equal(errno, EAGAIN);
	for (int i = 0; i < CTL_MAX_CLIENTS; i++)
		close(fd[i]);
	close(more);
	pump(v);
}

static void guards_its_path(void **state)
{
	struct server *v = *state;
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct ctl *other = NULL;
	char path[120], longer[200];
	struct stat st;
	int fd;

	/* A living socket is not replaced. */
	assert_int_equal(ctl_open(&other, v->path, &v->s.d), -EADDRINUSE);
	assert_null(other);
	close(dial(v->path));
	pump(v);
	/* A dead one is. */
	snprintf(path, sizeof(path), "%s/run/dead", v->dir);
	strcpy(sun.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_return_code(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), errno);
	close(fd);
	assert_int_equal(ctl_open(&other, path, &v->s.d), 0);
	close(dial(path));
	/* Another's socket at our path is not ours to remove. */
	assert_int_equal(unlink(path), 0);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_return_code(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), errno);
	ctl_close(other);
	assert_int_equal(lstat(path, &st), 0);
	close(fd);
	assert_int_equal(unlink(path), 0);
	/* What is no socket stays as it is; a link is not followed. */
	fd = open(path, O_CREAT | O_WRONLY, 0644);
	assert_return_code(fd, errno);
	close(fd);
	assert_int_equal(ctl_open(&other, path, &v->s.d), -EEXIST);
	assert_int_equal(lstat(path, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink(v->path, path), 0);
	assert_int_equal(ctl_open(&other, path, &v->s.d), -EEXIST);
	assert_int_equal(unlink(path), 0);
	memset(longer, '/', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(ctl_open(&other, longer, &v->s.d), -ENAMETOOLONG);
	ctl_close(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(serves_clients, setup, teardown),
		cmocka_unit_test_setup_teardown(bounds_lines, setup, teardown),
		cmocka_unit_test_setup_teardown(holds_slow_readers, setup, teardown),
		cmocka_unit_test_setup_teardown(bounds_clients, setup, teardown),
		cmocka_unit_test_setup_teardown(evicts_stalled_client, setup, teardown),
		cmocka_unit_test_setup_teardown(guards_its_path, setup, teardown),
	};

	return cmocka_run_group_tests_name("ctl_socket", tests, NULL, NULL);
}
