// SPDX-License-Identifier: BSD-2-Clause
/*
 * loop: callbacks, removal from within a callback, a descriptor that hangs up; a client that
 * cannot be accepted for want of a descriptor waits, and nobody spins meanwhile.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../user/lib/log.h"
#include "../../user/lib/loop.h"

#define TURNS 1000 /* of a loop that has something else to do */

struct end {
	struct loop *loop;
	struct loop_watch *watch, *other;
	int fd;
	unsigned int calls;
	uint32_t events;
};

static void on_ready(void *arg, uint32_t events)
{
	struct end *e = arg;
	char c;

	e->calls++;
	e->events |= events;
	if (events & EPOLLIN)
		assert_int_equal(read(e->fd, &c, 1), 1);
	loop_unwatch(e->loop, e->other);
	e->other = NULL;
	loop_stop(e->loop);
}

static void test_calls_back(void **state)
{
	struct end e = { 0 };
	int p[2];

	assert_int_equal(pipe(p), 0);
	assert_int_equal(loop_create(&e.loop), 0);
	e.fd = p[0];
	assert_int_equal(loop_watch(e.loop, p[0], EPOLLIN, on_ready, &e, &e.watch), 0);
	for (unsigned int i = 1; i <= 3; i++) {
		assert_int_equal(write(p[1], "x", 1), 1);
		assert_int_equal(loop_run(e.loop), 0);
		assert_int_equal(e.calls, i);
	}
	close(p[1]);
	e.events = 0;
	assert_int_equal(loop_run(e.loop), 0);
	assert_int_equal(e.events, EPOLLHUP);
	loop_unwatch(e.loop, e.watch);
	loop_destroy(e.loop);
	close(p[0]);
}

/* Two descriptors are ready at once; whichever is served first removes the other's
 * watch, whose event has been fetched already and must not be delivered. */
static void test_removed_in_same_round(void **state)
{
	struct end a = { 0 }, b = { 0 };
	int p[2], q[2];

	assert_int_equal(pipe(p), 0);
	assert_int_equal(pipe(q), 0);
	assert_int_equal(loop_create(&a.loop), 0);
	b.loop = a.loop;
	a.fd = p[0];
	b.fd = q[0];
	assert_int_equal(loop_watch(a.loop, p[0], EPOLLIN, on_ready, &a, &a.watch), 0);
	assert_int_equal(loop_watch(a.loop, q[0], EPOLLIN, on_ready, &b, &b.watch), 0);
	a.other = b.watch;
	b.other = a.watch;
	assert_int_equal(write(p[1], "x", 1), 1);
	assert_int_equal(write(q[1], "x", 1), 1);
	assert_int_equal(loop_run(a.loop), 0);
	assert_int_equal(a.calls + b.calls, 1);
	loop_destroy(a.loop);
	for (int i = 0; i < 2; i++) {
		close(p[i]);
		close(q[i]);
	}
}

/* A listening socket, and a descriptor that is always ready. */
struct crowd {
	struct loop *loop;
	struct loop_watch *listen, *ready;
	unsigned int tries, turns;
	int fd; /* accepted, or why not */
};

static void on_listen(void *arg, uint32_t events)
{
	struct crowd *c = arg;

	c->tries++;
	c->fd = loop_accept(c->loop, c->listen, "test");
	if (c->fd >= 0)
		loop_stop(c->loop);
}

static void on_turn(void *arg, uint32_t events)
{
	struct crowd *c = arg;

	if (++c->turns == TURNS)
		loop_stop(c->loop);
}

static void test_no_descriptor_left(void **state)
{
	const struct sockaddr_un any = { .sun_family = AF_UNIX };
	struct sockaddr_un sun;
	socklen_t len = sizeof(sun);
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	int client = socket(AF_UNIX, SOCK_STREAM, 0), ready = eventfd(1, 0);
	struct crowd c = { .fd = -1 };
	struct rlimit before, none;

	log_set_level(LOG_LVL_ERROR);
	assert_int_equal(
		bind(listener, (const struct sockaddr *)&any, sizeof(sa_family_t)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&sun, &len), 0);
	assert_int_equal(connect(client, (const struct sockaddr *)&sun, len), 0);
	assert_int_equal(loop_create(&c.loop), 0);
	assert_int_equal(loop_watch(c.loop, ready, EPOLLIN, on_turn, &c, &c.ready), 0);
	assert_int_equal(loop_watch(c.loop, listener, EPOLLIN, on_listen, &c, &c.listen),
			 0);

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = (struct rlimit){ 0, before.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(loop_run(c.loop), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(c.fd, -EMFILE);
	assert_int_equal(c.turns, TURNS);
	assert_in_range(c.tries, 1, TURNS / 10);

	/* It is accepted without another event, by a loop that sleeps till then. */
	loop_unwatch(c.loop, c.ready);
	assert_int_equal(loop_run(c.loop), 0);
	assert_true(c.fd >= 0);
	close(c.fd);
	loop_pause(c.loop, c.listen, 1);
	loop_unwatch(c.loop, c.listen); /* while it is paused */
	loop_destroy(c.loop);
	close(listener);
	close(client);
	close(ready);
}

static void test_bad_descriptor(void **state)
{
	struct loop_watch *w = NULL;
	struct end e = { 0 };

	assert_int_equal(loop_create(&e.loop), 0);
	assert_int_equal(loop_watch(e.loop, -1, EPOLLIN, on_ready, &e, &w), -EBADF);
	assert_null(w);
	loop_unwatch(e.loop, NULL);
	loop_destroy(e.loop);
	loop_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calls_back),
		cmocka_unit_test(test_removed_in_same_round),
		cmocka_unit_test(test_no_descriptor_left),
		cmocka_unit_test(test_bad_descriptor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
