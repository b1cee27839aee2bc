// SPDX-License-Identifier: BSD-2-Clause
/* loop: callbacks, removal from within a callback, a descriptor that hangs up. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "../../user/lib/loop.h"

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
		cmocka_unit_test(test_bad_descriptor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
