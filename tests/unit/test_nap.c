// SPDX-License-Identifier: BSD-2-Clause
/*
 * nap: a sender that sleeping slows down, one that it does not, one that changes its mind.
 *
 * The sender is a model: the gap between its bursts depends on whether the worker waits awake.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../user/daemon/nap.h"

#define BURST 60
#define MS    1000000ULL

struct world {
	struct nap nap;
	uint64_t now, bursts, awake; /* bursts that were waited for awake */
};

static void begin(struct world *w)
{
	*w = (struct world){ .now = MS };
	nap_init(&w->nap);
}

/* Bursts for @ms, so far apart if the worker is awake, or asleep, each @work_ns of work. */
static void run(struct world *w, uint64_t ms, uint64_t awake_gap, uint64_t asleep_gap,
		uint64_t work_ns)
{
	uint64_t end = w->now + ms * MS;

	w->bursts = w->awake = 0;
	while (w->now < end) {
		bool awake = nap_stays_awake(&w->nap, 0);
		uint64_t gap = awake ? awake_gap : asleep_gap;

		w->now += gap;
		w->bursts++;
		w->awake += awake;
		nap_burst(&w->nap, w->now, gap, BURST);
		nap_work(&w->nap, work_ns);
	}
}

static uint64_t percent(const struct world *w)
{
	return w->awake * 100 / w->bursts;
}

static void test_close(void **state)
{
	struct world w;

	begin(&w);
	run(&w, 1, 40000, 40000, 1000);
	run(&w, 100, 40000, 40000, 1000);
	assert_int_equal(percent(&w), 100);
	assert_false(nap_stays_awake(&w.nap, NAP_MAX_NS));
	/* Twice as far, with a quarter of the time to do. */
	run(&w, 2, 80000, 80000, 20000);
	run(&w, 100, 80000, 80000, 20000);
	assert_int_equal(percent(&w), 100);
}

/* Slow because it is woken up for: found out, also where awake is not close either. */
static void test_caught_asleep(void **state)
{
	static const uint64_t awake_gap[] = { 35000, 60000, 90000 };

	for (unsigned int i = 0; i < 3; i++) {
		struct world w;

		begin(&w);
		run(&w, 20, awake_gap[i], 2 * awake_gap[i], 2000);
		run(&w, 3000, awake_gap[i], 2 * awake_gap[i], 2000);
		assert_true(percent(&w) >= 98);
	}
}

/* Its own pace: next to nothing is spent on it. */
static void test_own_pace(void **state)
{
	static const uint64_t gap[] = { 60000, 110000, 190000 };

	for (unsigned int i = 0; i < 3; i++) {
		struct world w;

		begin(&w);
		run(&w, 3000, gap[i], gap[i], 2000);
		assert_in_range(percent(&w), 0, 3);
		/* Less and less often. */
		run(&w, 10000, gap[i], gap[i], 2000);
		assert_in_range(percent(&w), 0, 1);
	}
}

static void test_far(void **state)
{
	struct world w;

	begin(&w);
	run(&w, 1000, 210000, 400000, 150000);
	assert_int_equal(w.awake, 0);
}

/* What was worth it is no more. */
static void test_change(void **state)
{
	struct world w;

	begin(&w);
	run(&w, 1000, 60000, 120000, 2000);
	assert_true(percent(&w) >= 90);
	/* The sender is done with most of it. */
	run(&w, 40, 130000, 130000, 2000);
	run(&w, 1000, 130000, 130000, 2000);
	assert_in_range(percent(&w), 0, 8);
	/* The same pace, awake or not: noticed after NAP_HOLD tries. */
	begin(&w);
	run(&w, 1000, 60000, 120000, 2000);
	run(&w, NAP_HOLD * NAP_TRY_NS / MS, 60000, 60000, 2000);
	run(&w, 1000, 60000, 60000, 2000);
	assert_in_range(percent(&w), 0, 10);
}

/* A pause amid a try says nothing of either way. */
static void test_pauses(void **state)
{
	struct world w;

	begin(&w);
	for (unsigned int i = 0; i < 100; i++) {
		run(&w, 50, 110000, 110000, 2000);
		w.now += 300 * MS;
		nap_burst(&w.nap, w.now, 300 * MS, BURST);
	}
	run(&w, 1000, 110000, 110000, 2000);
	assert_in_range(percent(&w), 0, 5);
	/* Nor does it keep a trial from coming to its end. */
	for (unsigned int i = 0; i < 20; i++) {
		run(&w, 100, 60000, 120000, 2000);
		w.now += 300 * MS;
		nap_burst(&w.nap, w.now, 300 * MS, BURST);
	}
	run(&w, 3000, 60000, 120000, 2000);
	assert_true(percent(&w) >= 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_close),	 cmocka_unit_test(test_caught_asleep),
		cmocka_unit_test(test_own_pace), cmocka_unit_test(test_far),
		cmocka_unit_test(test_change),	 cmocka_unit_test(test_pauses),
	};

	return cmocka_run_group_tests_name("nap", tests, NULL, NULL);
}
