// SPDX-License-Identifier: BSD-2-Clause
/*
 * Randomised migrations: GN_MIGRATIONS of them (2000), four at a time; GN_SEED is the
 * first seed. No page may differ, nothing may run twice or not at all.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../../user/lib/log.h"
#include "trial.h"

#define THREADS 4

struct total {
	unsigned long first, n;
	_Atomic unsigned long next, bad, cancelled, failed, pages, zero, same, rounds,
		writes;
};

static void *work(void *arg)
{
	struct total *t = arg;
	unsigned long i;

	while ((i = atomic_fetch_add(&t->next, 1)) < t->n) {
		struct trial trial = { .seed = t->first + i };

		trial_run(&trial);
		if (!trial.ok) {
			atomic_fetch_add(&t->bad, 1);
			print_message("seed %lu: %s\n", t->first + i, trial.why);
		}
		t->cancelled += trial.cancelled;
		t->failed += trial.failed;
		t->pages += trial.pages;
		t->zero += trial.zero;
		t->same += trial.same;
		t->rounds += trial.rounds;
		t->writes += trial.writes;
	}
	return NULL;
}

static unsigned long number(const char *name, unsigned long otherwise)
{
	const char *s = getenv(name);

	return s && *s ? strtoul(s, NULL, 10) : otherwise;
}

static void test_random(void **state)
{
	struct total t = { .first = number("GN_SEED", 1),
			   .n = number("GN_MIGRATIONS", 2000) };
	pthread_t thread[THREADS];

	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, work, &t), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	print_message(
		"%lu migrations, %lu after a cancel, %lu after a failure; %lu rounds, "
		"%lu writes; %lu pages sent, %lu zero, %lu the same\n",
		t.n, t.cancelled, t.failed, t.rounds, t.writes, t.pages, t.zero, t.same);
	assert_int_equal(t.bad, 0);
	/* It was not all quiet. */
	assert_true(t.n < 200 || (t.cancelled && t.failed && t.zero && t.same));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
	};

	log_set_level(LOG_LVL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
