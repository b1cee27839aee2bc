// SPDX-License-Identifier: BSD-2-Clause
/* predict: verdicts about rounds of known lengths. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../vm-migrate/precopy/predict.h"

#define MS 1e-3

/* A line of 400 MB/s: a page takes some 10 us. */
static void begin(struct predict *p)
{
	predict_init(p);
	predict_sent(p, 400000000, 400000000 / 4100, 1);
}

static void test_converges(void **state)
{
	struct predict_verdict v;
	struct predict p;

	begin(&p);
	predict_dirty(&p, 1, 20000);
	predict_judge(&p, 20 * MS, 2 * MS, &v);
	assert_false(v.fits || v.never);
	assert_true(v.rounds >= 1 && v.eta_seconds > 0);
	predict_dirty(&p, 200 * MS, 4000);
	predict_dirty(&p, 40 * MS, 800);
	predict_judge(&p, 20 * MS, 2 * MS, &v);
	assert_true(v.fits && !v.never);
	assert_true(v.expected_seconds > 8 * MS && v.expected_seconds < 12 * MS);
}

static void test_never(void **state)
{
	struct predict_verdict v;
	struct predict p;

	begin(&p);
	predict_dirty(&p, 1, 200000);
	predict_dirty(&p, 2, 400000);
	predict_judge(&p, 20 * MS, 2 * MS, &v);
	assert_true(v.never && !v.fits);
	assert_true(v.share < 0.6);
}

/* Something held a round up, and more is left than before it: one more makes up for that. */
static void test_held_up(void **state)
{
	struct predict p;

	begin(&p);
	predict_dirty(&p, 20 * MS, 50);
	predict_dirty(&p, 150 * MS, 390);
	assert_true(predict_pays(&p, 3 * MS, 50 * MS));
	/* Not if it takes too long, nor if it takes as long again. */
	assert_false(predict_pays(&p, 3 * MS, 5 * MS));
	assert_false(predict_pays(&p, 140 * MS, 500 * MS));
}

/* Rounds of one length and a working set: no round will leave less. */
static void test_fixed_point(void **state)
{
	struct predict p;

	begin(&p);
	predict_dirty(&p, 10 * MS, 300);
	predict_dirty(&p, 10.2 * MS, 310);
	assert_false(predict_pays(&p, 3 * MS, 50 * MS));
	predict_dirty(&p, 20 * MS, 312);
	assert_false(predict_pays(&p, 3 * MS, 50 * MS));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_converges),
		cmocka_unit_test(test_never),
		cmocka_unit_test(test_held_up),
		cmocka_unit_test(test_fixed_point),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
