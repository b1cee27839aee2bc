// SPDX-License-Identifier: BSD-2-Clause
/*
 * Sockets and memory that are shared with a client: who may connect, what is replaced, what
 * a client is given, how its end is seen. shm_conn.c, its client's end played here.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/daemon/shm_conn.h"
#include "../../user/lib/fds.h"
#include "../../user/lib/log.h"

#define CHANS 3

static const struct shm_ring_conf ring_conf = { .hold = 64,
						.nslots = 64,
						.tx_size = 1 << 17 };

struct fix {
	char dir[32], path[64];
	struct loop *loop;
	struct shm_client *client;
	int far; /* the client's end */
	int ended;
	const char *why;
};

static void gone(void *arg, const char *why)
{
	struct fix *f = arg;

	f->ended++;
	f->why = why;
	loop_stop(f->loop);
}

static int setup(void **state)
{
	struct fix *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	log_set_level(LOG_LVL_ERROR);
	alarm(60);
	strcpy(f->dir, "/tmp/test_shm_conn.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/port", f->dir);
	assert_int_equal(loop_create(&f->loop), 0);
	f->far = -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fix *f = *state;

	shm_client_destroy(f->client);
	loop_destroy(f->loop);
	if (f->far >= 0)
		close(f->far);
	unlink(f->path);
	rmdir(f->dir);
	free(f);
	alarm(0);
	return 0;
}

static int dial(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun))) {
		close(fd);
		return -1;
	}
	return fd;
}

static void put_file(const char *path)
{
	int fd = open(path, O_CREAT | O_WRONLY, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "x", 1), 1);
	close(fd);
}

static void no_call(void *arg, uint32_t events)
{
}

static void test_listen(void **state)
{
	struct fix *f = *state;
	struct loop_watch *w;
	mode_t mask = umask(0);
	char long_path[200], who[64];
	struct stat st;
	pid_t pid;
	int fd, conn;

	fd = shm_listen(f->path);
	assert_true(fd >= 0);
	/* Its own mode whatever the umask, which is as before. */
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode, S_IFSOCK | 0600);
	assert_int_equal(umask(mask), 0);
	assert_int_equal(loop_watch(f->loop, fd, EPOLLIN, no_call, NULL, &w), 0);
	assert_int_equal(shm_accept(f->loop, w, f->path, &pid, who, sizeof(who)),
			 -EAGAIN);
	/* Somebody listens there, which the second one finds out by connecting. */
	assert_int_equal(shm_listen(f->path), -EADDRINUSE);
	conn = shm_accept(f->loop, w, f->path, &pid, who, sizeof(who));
	assert_true(conn >= 0);
	close(conn);
	f->far = dial(f->path);
	assert_true(f->far >= 0);
	conn = shm_accept(f->loop, w, f->path, &pid, who, sizeof(who));
	assert_true(conn >= 0);
	assert_true(fcntl(conn, F_GETFL) & O_NONBLOCK);
	close(conn);
	assert_int_equal(pid, getpid());
	snprintf(long_path, sizeof(long_path), "pid %d uid %u", (int)getpid(), getuid());
	assert_string_equal(who, long_path);
	loop_unwatch(f->loop, w);
	shm_unlisten(fd, f->path);
	assert_int_equal(access(f->path, F_OK), -1);

	memset(long_path, 'x', sizeof(long_path));
	long_path[sizeof(long_path) - 1] = '\0';
	assert_int_equal(shm_listen(long_path), -ENAMETOOLONG);
	shm_unlisten(-1, f->path);
}

static void test_replaces_the_dead_only(void **state)
{
	struct fix *f = *state;
	struct stat a, b;
	int fd = shm_listen(f->path), other;

	/* As a killed daemon leaves it. */
	close(fd);
	assert_int_equal(stat(f->path, &a), 0);
	fd = shm_listen(f->path);
	assert_true(fd >= 0);
	/* Another daemon's by now: it stays when we go. */
	assert_int_equal(unlink(f->path), 0);
	other = shm_listen(f->path);
	assert_true(other >= 0);
	assert_int_equal(stat(f->path, &a), 0);
	shm_unlisten(fd, f->path);
	assert_int_equal(stat(f->path, &b), 0);
	assert_int_equal(a.st_ino, b.st_ino);
	shm_unlisten(other, f->path);
	/* No socket: nobody's to remove. */
	put_file(f->path);
	assert_int_equal(shm_listen(f->path), -EEXIST);
	assert_int_equal(stat(f->path, &b), 0);
	assert_int_equal(b.st_size, 1);
}

static void test_refuse(void **state)
{
	struct gn_shm_hello hello;
	char rest;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	shm_refuse(pair[0], -EBUSY, "somebody has it");
	assert_int_equal(recv(pair[1], &hello, sizeof(hello), MSG_WAITALL),
			 sizeof(hello));
	assert_int_equal(hello.magic, GN_SHM_MAGIC);
	assert_int_equal(hello.abi, GN_SHM_ABI);
	assert_int_equal(hello.error, EBUSY);
	assert_string_equal(hello.text, "somebody has it");
	assert_int_equal(recv(pair[1], &rest, 1, 0), 0);
	close(pair[1]);
}

static void connected(struct fix *f)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(shm_client_create(f->loop, pair[0], 1, CHANS, &ring_conf, gone,
					   f, &f->client),
			 0);
	f->far = pair[1];
}

static void ends(struct fix *f)
{
	assert_int_equal(loop_run(f->loop), 0);
	assert_int_equal(f->ended, 1);
}

/* Every channel its own memory, which nobody can make smaller, and its own doorbell. */
static void test_welcome(void **state)
{
	struct fix *f = *state;
	struct gn_shm_hello hello = { .mtu = 1500 };
	int memfd[CHANS], bell[CHANS];
	char byte;

	connected(f);
	assert_int_equal(shm_client_welcome(f->client, &hello, NULL), 0);
	memset(&hello, 0, sizeof(hello));
	assert_int_equal(recv(f->far, &hello, sizeof(hello), MSG_WAITALL), sizeof(hello));
	assert_int_equal(hello.error, 0);
	assert_int_equal(hello.nqueues, CHANS);
	assert_int_equal(hello.mtu, 1500);
	for (unsigned int i = 0; i < CHANS; i++) {
		struct gn_shm_queue q;
		int got[8];
		struct fds l = { .fd = got, .max = 8 };
		struct stat st;

		assert_int_equal(fds_recv(f->far, &q, sizeof(q), &l, MSG_WAITALL),
				 sizeof(q));
		assert_int_equal(l.n, 2); /* no packet memory here */
		assert_int_equal(q.queue, i);
		assert_int_equal(q.umem_size, 0);
		memfd[i] = got[0];
		bell[i] = got[1];
		assert_int_equal(fstat(memfd[i], &st), 0);
		assert_int_equal(st.st_size, q.map_size);
		assert_int_equal(ftruncate(memfd[i], 0), -1);
		assert_int_equal(errno, EPERM);
		assert_int_equal(ftruncate(memfd[i], st.st_size * 2), -1);
	}
	/* A ring is heard on its own channel, and hushed. */
	shm_chan_ring(&f->client->chan[1]);
	assert_int_equal(recv(bell[0], &byte, 1, MSG_DONTWAIT), -1);
	assert_int_equal(recv(bell[1], &byte, 1, MSG_DONTWAIT), 1);
	assert_int_equal(recv(bell[1], &byte, 1, MSG_DONTWAIT), -1);
	for (int i = 0; i < 100000; i++) /* nobody listens: it never blocks */
		shm_chan_ring(&f->client->chan[1]);
	assert_int_equal(send(bell[2], "abc", 3, 0), 3);
	assert_true(shm_chan_hush(&f->client->chan[2]));
	assert_true(shm_chan_hush(&f->client->chan[2])); /* nothing to hear */
	close(bell[2]);
	assert_false(shm_chan_hush(&f->client->chan[2]));
	shm_chan_ring(&f->client->chan[2]); /* no SIGPIPE */
	for (unsigned int i = 0; i < CHANS; i++) {
		close(memfd[i]);
		if (i != 2)
			close(bell[i]);
	}
}

/* A peer that does not read is told of, and not waited for. */
static void test_welcome_unread(void **state)
{
	struct fix *f = *state;
	struct gn_shm_hello hello = { .mtu = 1500 };
	char fill[4096] = { 0 };

	connected(f);
	while (send(f->client->conn, fill, sizeof(fill), MSG_DONTWAIT) > 0)
		;
	assert_true(shm_client_welcome(f->client, &hello, NULL) < 0);
}

static void test_leaves(void **state)
{
	struct fix *f = *state;

	connected(f);
	close(f->far);
	f->far = -1;
	ends(f);
	assert_null(f->why);
}

static void test_speaks(void **state)
{
	struct fix *f = *state;

	connected(f);
	assert_int_equal(send(f->far, "x", 1, 0), 1);
	ends(f);
	assert_non_null(f->why);
}

/* The first reason counts; that it left is none. */
static void test_breaks(void **state)
{
	struct fix *f = *state;

	connected(f);
	shm_chan_break(&f->client->chan[2], "it lied");
	shm_chan_break(&f->client->chan[2], "it lied again");
	ends(f);
	assert_string_equal(f->why, "it lied");
}

static void test_breaks_off(void **state)
{
	struct fix *f = *state;

	connected(f);
	shm_chan_break(&f->client->chan[0], shm_left);
	ends(f);
	assert_null(f->why);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_listen),	   TEST(test_replaces_the_dead_only),
		TEST(test_refuse),	   TEST(test_welcome),
		TEST(test_welcome_unread), TEST(test_leaves),
		TEST(test_speaks),	   TEST(test_breaks),
		TEST(test_breaks_off),
	};

	return cmocka_run_group_tests_name("shm_conn", tests, NULL, NULL);
}
