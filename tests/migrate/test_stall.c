// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the user chose for a guest that is faster than the line: more downtime, up to a
 * limit, or slower vCPUs; and the limit of the bandwidth, also when it changes.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "../../user/lib/clock.h"
#include "../../user/lib/log.h"
#include "../../vm-migrate/precopy/precopy_impl.h"
#include "source.h"

#define PATIENCE_S 100

/* ---- a guest that is faster than the line -------------------------------------------
 */

static struct machine_conf fast(void)
{
	struct machine_conf mc = machine_small;

	/* Enough to measure the line by; so little that the slowest machine writes to
	 * most of it in a round. */
	mc.block[1].pages = 1400;
	mc.block[1].filled = 1200;
	mc.pace_us = 0;
	return mc;
}

static struct precopy_conf slow(enum precopy_stall on_stall)
{
	struct precopy_conf pc = precopy_usual;

	/* Less than the guest writes on a busy machine, sanitized. */
	pc.bandwidth = 2 << 20;
	pc.downtime_ms = 20;
	pc.on_stall = on_stall;
	return pc;
}

/* The budget is raised to what it takes, and that is what it took. */
static void test_raise(void **state)
{
	struct incoming_conf ic = { .uri = "tcp:127.0.0.1:0" };
	struct precopy_conf pc = slow(PRECOPY_RAISE);
	struct machine_conf mc = fast();
	struct source s;
	struct twin t;

	pc.max_downtime_ms = 60000;
	assert_int_equal(twin_start(&t, &ic), 0);
	source_start(&s, &mc);
	source_arrives(&s, &t, &pc);
	assert_true(s.st.downtime_budget_ms > pc.downtime_ms);
	assert_true(s.st.downtime_budget_ms <= pc.max_downtime_ms);
	assert_int_equal(s.st.throttle, 0);
	machine_stop(s.m);
	twin_fini(&t);
}

/* Not above what was allowed: then it is as with "abort". */
static void test_raise_limit(void **state)
{
	struct incoming_conf ic = { .uri = "tcp:127.0.0.1:0" };
	struct precopy_conf pc = slow(PRECOPY_RAISE);
	struct machine_conf mc = fast();
	struct source s;
	struct twin t;

	pc.max_downtime_ms = 21;
	assert_int_equal(twin_start(&t, &ic), 0);
	source_start(&s, &mc);
	assert_int_equal(source_send(&s, &pc, incoming_uri(t.in)), -ETIME);
	assert_int_equal(s.st.phase, PRECOPY_FAILED);
	assert_int_equal(s.m->pauses, 0);
	assert_non_null(strstr(s.st.message, "allow more, or throttle"));
	source_runs_on(&s);
	machine_stop(s.m);
	twin_fini(&t);
}

/* vCPUs and devices of this one rest the longer between writes. */
static int throttle_pace(void *vm, unsigned int percent)
{
	struct machine *m = vm;

	m->throttle = percent;
	__atomic_store_n(&m->conf.pace_us, percent * 200, __ATOMIC_RELAXED);
	return 0;
}

static void *cancel_throttled(void *arg)
{
	uint64_t deadline = clock_ns() + PATIENCE_S * 1000000000ULL;
	struct timespec ts = { .tv_nsec = 1000000 };
	struct source *s = arg;
	struct precopy_status st;

	do {
		nanosleep(&ts, NULL);
		precopy_status(s->p, &st);
	} while (!st.throttle && clock_ns() < deadline);
	precopy_cancel(s->p);
	return NULL;
}

static void test_throttle(void **state)
{
	struct incoming_conf ic = { .uri = "tcp:127.0.0.1:0" };
	struct precopy_conf pc = slow(PRECOPY_THROTTLE);
	struct precopy_vm_ops ops = machine_ops;
	struct machine_conf mc = fast();
	pthread_t thread;
	struct source s;
	struct twin t;
	int err;

	ops.throttle = throttle_pace;
	assert_int_equal(twin_start(&t, &ic), 0);
	source_start(&s, &mc);
	/* More than a harvest takes on a busy machine, as throttling does not help there; less
	 * than all that the guest writes takes on this line. */
	pc.downtime_ms = 2000;
	/* A cancel gives the guest its time back. */
	pc.bandwidth = 1 << 20;
	source_make(&s, &pc, incoming_uri(t.in), &ops, s.m);
	assert_int_equal(pthread_create(&thread, NULL, cancel_throttled, &s), 0);
	err = precopy_run(s.p);
	pthread_join(thread, NULL);
	precopy_status(s.p, &s.st);
	precopy_destroy(s.p);
	assert_int_equal(err, -ECANCELED);
	assert_true(s.st.throttle > 0);
	source_runs_on(&s);
	/* And it converges; on a machine that is busy with other things perhaps by
	 * itself. */
	pc.bandwidth = 16 << 20;
	source_make(&s, &pc, incoming_uri(t.in), &ops, s.m);
	err = source_run(&s);
	if (err)
		fail_msg("%d: %s", err, s.st.message);
	assert_int_equal(twin_join(&t), 0);
	/* More only after all that throttling can do. */
	assert_true(s.st.downtime_budget_ms == pc.downtime_ms || s.st.throttle == 99);
	assert_int_equal(machine_differs(s.m, &t), 0);
	machine_stop(s.m);
	twin_fini(&t);
}

/* ---- harvests that take long -------------------------------------------------------- */

static struct {
	const struct dirty_ops *real;
	const struct machine *m;
	unsigned int rounds, last;
	bool early,
		late; /* dirty_set_last() before the machine stood still, or not after */
} log_of;

/* The first takes longer than the downtime may. */
static int64_t harvest_slowly(struct dirty_source *src, uint64_t *bitmap)
{
	struct timespec ts = { .tv_sec = 1, .tv_nsec = 500000000 };
	bool stopped = log_of.m->saves;

	if (!stopped && !log_of.rounds++)
		nanosleep(&ts, NULL);
	log_of.last += src->last;
	log_of.early |= src->last && !stopped;
	log_of.late |= stopped && !src->last;
	return log_of.real->harvest(src, bitmap);
}

/*
 * The first harvest, which has all to protect that was written in a long round, says
 * little about the last, which protects nothing: no reason to give up or to stand still
 * longer than was allowed.
 */
static void test_first_harvest(void **state)
{
	static const enum precopy_stall way[] = { PRECOPY_ABORT, PRECOPY_RAISE,
						  PRECOPY_THROTTLE };
	struct incoming_conf ic = { .uri = "tcp:127.0.0.1:0" };
	struct precopy_conf pc = precopy_usual;
	struct dirty_ops ops;
	struct source s;
	struct twin t;

	pc.downtime_ms = 1000;
	for (unsigned int i = 0; i < 3; i++) {
		pc.on_stall = way[i];
		assert_int_equal(twin_start(&t, &ic), 0);
		source_start(&s, &machine_small);
		memset(&log_of, 0, sizeof(log_of));
		log_of.real = s.m->cpu->ops;
		log_of.m = s.m;
		ops = *log_of.real;
		ops.harvest = harvest_slowly;
		s.m->cpu->ops = &ops;
		source_arrives(&s, &t, &pc);
		assert_int_equal(s.st.downtime_budget_ms, pc.downtime_ms);
		assert_int_equal(s.st.throttle, 0);
		assert_true(log_of.rounds > 1);
		assert_int_equal(log_of.last, 2);
		assert_false(log_of.early || log_of.late);
		machine_stop(s.m);
		twin_fini(&t);
	}
}

/* ---- bandwidth ------------------------------------------------------------------------
 */

static void test_bandwidth(void **state)
{
	struct incoming_conf ic = { .uri = "tcp:127.0.0.1:0" };
	struct machine_conf mc = machine_small;
	struct precopy_conf pc = precopy_usual;
	struct source s;
	struct twin t;
	double least;

	mc.block[1].filled = 8000;
	mc.pace_us = 1000;
	pc.bandwidth = 20 << 20;
	pc.streams = 2; /* it is for all of them */
	assert_int_equal(twin_start(&t, &ic), 0);
	source_start(&s, &mc);
	source_arrives(&s, &t, &pc);
	/* What is sent while the guest stands still is not limited. */
	least = (double)s.st.sent.bytes / (double)pc.bandwidth -
		(double)s.st.downtime_us * 1e-6;
	print_message("%.1f MB in %.0f ms, at least %.0f\n",
		      (double)s.st.sent.bytes * 1e-6, (double)s.st.total_us * 1e-3,
		      least * 1e3);
	assert_true(s.st.sent.bytes > 10 << 20);
	assert_true((double)s.st.total_us * 1e-6 > least * 0.8);
	assert_true(s.st.sent.limited_ns > 0);
	machine_stop(s.m);
	twin_fini(&t);
}

static void *widen(void *arg)
{
	uint64_t deadline = clock_ns() + PATIENCE_S * 1000000000ULL;
	struct timespec ts = { .tv_nsec = 1000000 };
	struct source *s = arg;
	struct precopy_status st;

	do {
		nanosleep(&ts, NULL);
		precopy_status(s->p, &st);
	} while (!st.sent.bytes && clock_ns() < deadline);
	precopy_set_bandwidth(s->p, 0);
	return NULL;
}

/* Changed on the way: 100 kB/s would take a minute. */
static void test_set_bandwidth(void **state)
{
	struct incoming_conf ic = { .uri = "tcp:127.0.0.1:0" };
	struct precopy_conf pc = precopy_usual;
	uint64_t began = clock_ns();
	pthread_t thread;
	struct source s;
	struct twin t;

	pc.bandwidth = 100000;
	assert_int_equal(twin_start(&t, &ic), 0);
	source_start(&s, &machine_small);
	source_make(&s, &pc, incoming_uri(t.in), &machine_ops, s.m);
	assert_int_equal(pthread_create(&thread, NULL, widen, &s), 0);
	assert_int_equal(precopy_run(s.p), 0);
	pthread_join(thread, NULL);
	precopy_destroy(s.p);
	assert_true(clock_ns() - began < PATIENCE_S * 1000000000ULL);
	assert_int_equal(twin_join(&t), 0);
	assert_int_equal(machine_differs(s.m, &t), 0);
	machine_stop(s.m);
	twin_fini(&t);
}

/* ---- a line that is slow ------------------------------------------------------------ */

/* Waits for the destination's word that are in vain, and the channel that is through. The
 * linker puts these functions in the place of the two that the engine calls. */
static struct {
	unsigned int left;
	const struct precopy *p;
} in_vain;

int __real_peer_await_sync(struct peer *p, uint64_t n, unsigned int timeout_ms,
			   const atomic_bool *cancelled);
int __wrap_peer_await_sync(struct peer *p, uint64_t n, unsigned int timeout_ms,
			   const atomic_bool *cancelled);
size_t __real_chan_unsent(const struct chan *c);
size_t __wrap_chan_unsent(const struct chan *c);

int __wrap_peer_await_sync(struct peer *p, uint64_t n, unsigned int timeout_ms,
			   const atomic_bool *cancelled)
{
	if (!in_vain.left)
		return __real_peer_await_sync(p, n, timeout_ms, cancelled);
	in_vain.left--;
	return -ETIMEDOUT;
}

size_t __wrap_chan_unsent(const struct chan *c)
{
	if (!in_vain.p)
		return __real_chan_unsent(c);
	return c == in_vain.p->peer.chan[0] ? 0 : 1 + in_vain.left;
}

/* The first stream is through, another still moves: nobody gives up. */
static void test_slow_stream(void **state)
{
	struct incoming_conf ic = { .uri = "tcp:127.0.0.1:0" };
	struct precopy_conf pc = precopy_usual;
	struct source s;
	struct twin t;

	pc.streams = 2;
	assert_int_equal(twin_start(&t, &ic), 0);
	source_start(&s, &machine_small);
	source_make(&s, &pc, incoming_uri(t.in), &machine_ops, s.m);
	in_vain.p = s.p;
	in_vain.left = 3;
	assert_int_equal(source_run(&s), 0);
	assert_int_equal(in_vain.left, 0);
	in_vain.p = NULL;
	assert_int_equal(twin_join(&t), 0);
	assert_int_equal(machine_differs(s.m, &t), 0);
	machine_stop(s.m);
	twin_fini(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_raise),
		cmocka_unit_test(test_raise_limit),
		cmocka_unit_test(test_throttle),
		cmocka_unit_test(test_bandwidth),
		cmocka_unit_test(test_set_bandwidth),
		cmocka_unit_test(test_first_harvest),
		cmocka_unit_test(test_slow_stream),
	};

	log_set_level(LOG_LVL_ERROR);
	return cmocka_run_group_tests_name("stall", tests, NULL, NULL);
}
