// SPDX-License-Identifier: BSD-2-Clause
/*
 * dma_log: why a swap waits. One writer writes all pages and then marks them in one call,
 * which so begins before a swap and ends after it. The harvester takes the old bitmap at
 * its word: nobody writes it any more, so what comes between reading and clearing it is
 * gone. With the grace period no page is lost; without, which is the planted fault, the
 * same check has to find one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../user/daemon/dma_log.h"

#define PAGE	    4096ULL
#define SWEEP	    (1U << 19) /* pages, marked by one call: 64 KiB of a bitmap, locked */
#define SWEEPS	    10U	       /* with a grace period: no page is lost */
#define SWEEP_LIMIT 120U       /* without: seconds until one has to be */

static void wait_for_nobody(void *arg)
{
}

static const struct dma_log_grace none = { .wait = wait_for_nobody };

/* Who wakes up takes the CPU from who marks, if there is only one for both. */
static void nap(void)
{
	struct timespec ts = { 0, 20000 };

	nanosleep(&ts, NULL);
}

struct sweep {
	struct dma_log log;
	uint32_t page[SWEEP], copy[SWEEP];
	uint8_t taken[SWEEP / 8];
	unsigned int go, done;	    /* sweeps; atomic */
	unsigned int asked, passed; /* atomic */
	bool stop;
};

static void *sweep_pages(void *arg)
{
	struct sweep *s = arg;

	while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
		unsigned int asked = __atomic_load_n(&s->asked, __ATOMIC_ACQUIRE);
		unsigned int go = __atomic_load_n(&s->go, __ATOMIC_ACQUIRE);

		if (go != s->done) {
			for (unsigned int p = 0; p < SWEEP; p++)
				__atomic_store_n(&s->page[p], go, __ATOMIC_RELAXED);
			dma_log_mark(&s->log, 0, SWEEP * PAGE);
			__atomic_store_n(&s->done, go, __ATOMIC_RELEASE);
		} else {
			nap();
		}
		__atomic_store_n(&s->passed, asked, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void wait_sweep(void *arg)
{
	struct sweep *s = arg;
	unsigned int n = __atomic_add_fetch(&s->asked, 1, __ATOMIC_RELEASE);

	while (__atomic_load_n(&s->passed, __ATOMIC_ACQUIRE) != n)
		nap();
}

/* Return: pages whose copy is old after one sweep, a swap in its midst, and a last one */
static unsigned int lost_in_sweep(struct sweep *s, const struct dma_log_grace *grace)
{
	const struct dma_log_grace proper = { .wait = wait_sweep, .arg = s };
	const uint8_t *active = s->log.pair->base;
	unsigned int go = s->go + 1, lost = 0;

	__atomic_store_n(&s->go, go, __ATOMIC_RELEASE);
	while (!__atomic_load_n(active, __ATOMIC_RELAXED))
		nap();
	for (unsigned int last = 0; last < 2; last++) {
		uint8_t *old =
			s->log.pair_map[dma_log_swap(&s->log, last ? &proper : grace)]
				.base;

		memcpy(s->taken, old, sizeof(s->taken));
		while (__atomic_load_n(&s->done, __ATOMIC_ACQUIRE) != go)
			nap();
		memset(old, 0, sizeof(s->taken));
		for (unsigned int p = 0; p < SWEEP; p++)
			if (s->taken[p / 8] >> p % 8 & 1)
				s->copy[p] = s->page[p];
	}
	for (unsigned int p = 0; p < SWEEP; p++)
		lost += s->copy[p] != go;
	return lost;
}

static void run_sweep(bool wait)
{
	struct sweep *s = calloc(1, sizeof(*s));
	const struct dma_log_grace proper = { .wait = wait_sweep, .arg = s };
	time_t end = time(NULL) + SWEEP_LIMIT;
	unsigned int lost = 0;
	pthread_t thread;

	assert_non_null(s);
	dma_log_init(&s->log);
	assert_int_equal(pthread_create(&thread, NULL, sweep_pages, s), 0);
	assert_int_equal(dma_log_enable_pair(&s->log, SWEEP, &proper), 0);
	for (unsigned int i = 0; wait ? i < SWEEPS : !lost && time(NULL) < end; i++)
		lost += lost_in_sweep(s, wait ? &proper : &none);
	__atomic_store_n(&s->stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	dma_log_fini(&s->log);
	free(s);
	if (wait)
		assert_int_equal(lost, 0);
	else
		assert_true(lost);
}

static void test_waits(void **state)
{
	run_sweep(true);
}

static void test_does_not_wait(void **state)
{
	run_sweep(false);
}

/* The thread sanitizer would call the fault what it is, a race. */
#if defined(__SANITIZE_THREAD__)
#define FAULTS 0
#elif defined(__has_feature)
#define FAULTS (!__has_feature(thread_sanitizer))
#else
#define FAULTS 1
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waits),
		cmocka_unit_test(test_does_not_wait),
	};

	return _cmocka_run_group_tests("dma_log_grace", tests, FAULTS ? 2 : 1, NULL,
				       NULL);
}
