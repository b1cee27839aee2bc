// SPDX-License-Identifier: BSD-2-Clause
/*
 * rate: what a sender gets through in a time is its rate and one burst, whatever it
 * sends, and however many threads send for it.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../../user/daemon/rate.h"

#define S 1000000000ULL

/* Bits sent from @from on for @len ns by one who sends whenever it may. */
static uint64_t greedy(struct rate *r, uint64_t from, uint64_t len, uint32_t bytes)
{
	uint64_t now = from, bits = 0, wait;

	while (now < from + len) {
		wait = rate_wait(r, now);
		if (wait) {
			now += wait;
			continue;
		}
		rate_charge(r, now, bytes);
		bits += bytes * 8ULL;
	}
	return bits;
}

/* At most the rate, a burst and the frame that is over it; at least the rate. */
static void keeps_to(uint64_t rate, uint32_t bytes)
{
	struct rate r = { .bits = rate };
	uint64_t got = greedy(&r, 7 * S, S, bytes);

	assert_in_range(got, rate - rate / 1000,
			rate + rate / 1000 + rate / (S / RATE_BURST_NS) + bytes * 8ULL);
}

static void test_rates(void **state)
{
	static const uint64_t rates[] = { RATE_MIN, 1000000, 999999937, RATE_MAX / 100 };
	static const uint32_t sizes[] = { 60, 1514, 65535 };

	for (unsigned int i = 0; i < 4; i++)
		for (unsigned int k = 0; k < 3; k++)
			keeps_to(rates[i], sizes[k]);
}

/* A pause, however long, saves up one burst. */
static void test_pause(void **state)
{
	struct rate r = { .bits = 100000000 };
	uint64_t burst = 100000000 / (S / RATE_BURST_NS), got;

	greedy(&r, S, S / 10, 1514);
	got = greedy(&r, 3600 * S, 1, 1514);
	assert_in_range(got, burst - 1514 * 8, burst + 1514 * 8);
	/* And no more than it can have saved. */
	greedy(&r, 7200 * S, S / 10, 1514);
	got = greedy(&r, 7200 * S + S / 10 + 1000000, 1, 1514);
	assert_in_range(got, 0, burst / 4 + 2 * 1514 * 8);
}

/* The smallest rate lets a largest frame through, and waits for it. */
static void test_large_frame(void **state)
{
	struct rate r = { .bits = RATE_MIN };

	assert_int_equal(rate_wait(&r, S), 0);
	rate_charge(&r, S, 65535);
	assert_in_range(rate_wait(&r, S), 8 * S, 8 * S + S / 5);
}

#define THREADS 4
#define FRAMES	200000

static void *charge(void *arg)
{
	struct rate *r = arg;

	for (unsigned int i = 0; i < FRAMES; i++)
		rate_charge(r, S, 1250);
	return NULL;
}

/* No frame of any thread is forgotten. */
static void test_threads(void **state)
{
	struct rate r = { .bits = 10000000 }; /* 1 ms each */
	pthread_t t[THREADS];

	for (unsigned int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, charge, &r), 0);
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(r.busy_until, S - RATE_BURST_NS + THREADS * FRAMES * 1000000ULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rates),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_large_frame),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests_name("rate", tests, NULL, NULL);
}
