// SPDX-License-Identifier: BSD-2-Clause
/* bitmap: every variant that this CPU has, against bits one at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "../../user/lib/bitmap.h"
#include "../../user/lib/bitmap_impl.h"

#define WORDS  200U
#define GUARD  0xfeedfacecafebeefULL
#define ROUNDS 3000U

static uint64_t seed = 88172645463325252ULL;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Sparse, dense, and runs of zeros and ones */
static void scribble(uint64_t *map, size_t words)
{
	unsigned int how = rnd() % 5;

	for (size_t i = 0; i < words; i++) {
		uint64_t v = rnd();

		map[i] = how == 0   ? v & rnd() & rnd() & rnd() & rnd() & rnd()
			 : how == 1 ? v
			 : how == 2 ? (v % 16 ? 0 : 1ULL << (v >> 58))
			 : how == 3 ? (v % 16 ? ~0ULL : ~(1ULL << (v >> 58)))
				    : 0;
	}
}

static bool bit(const uint64_t *map, uint64_t n)
{
	return map[n / 64] >> (n % 64) & 1;
}

static uint64_t bits(const uint64_t *map, size_t words)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < words * 64; i++)
		n += bit(map, i);
	return n;
}

/* Each variant in turn is the one that bitmap.h calls. */
static void for_each(void (*fn)(void))
{
	unsigned int n;

	bitmap_impls(&n);
	assert_true(n >= 1);
	for (unsigned int i = 0; i < n; i++) {
		bitmap_choose(i);
		fn();
	}
	bitmap_choose(n - 1);
}

static void merges(void)
{
	uint64_t a[WORDS + 2], b[WORDS + 2], was[WORDS], src[WORDS];

	for (unsigned int r = 0; r < ROUNDS / 10; r++) {
		size_t n = rnd() % (WORDS - 8), at = 1 + rnd() % 8;
		unsigned int how = rnd() % 3;
		uint64_t found;

		scribble(a, WORDS);
		scribble(b, WORDS);
		a[at - 1] = a[at + n] = b[at - 1] = b[at + n] = GUARD;
		memcpy(was, a + at, n * 8);
		memcpy(src, b + at, n * 8);
		found = bits(b + at, n);
		assert_int_equal(bitmap_count(b + at, n), found);
		switch (how) {
		case 0: assert_int_equal(bitmap_merge(a + at, b + at, n), found); break;
		case 1: assert_int_equal(bitmap_take(a + at, b + at, n), found); break;
		default: assert_int_equal(bitmap_take_atomic(a + at, b + at, n), found);
		}
		for (size_t i = 0; i < n; i++) {
			assert_int_equal(a[at + i], was[i] | src[i]);
			assert_int_equal(b[at + i], how ? 0 : src[i]);
		}
		assert_true(a[at - 1] == GUARD && a[at + n] == GUARD);
		assert_true(b[at - 1] == GUARD && b[at + n] == GUARD);
	}
}

static void test_merge(void **state)
{
	for_each(merges);
}

static void nexts(void)
{
	uint64_t map[WORDS];

	for (unsigned int r = 0; r < ROUNDS; r++) {
		uint64_t n = rnd() % (WORDS * 64), from = rnd() % (n + 2), one, zero;

		scribble(map, WORDS);
		for (one = from; one < n && !bit(map, one); one++)
			;
		for (zero = from; zero < n && bit(map, zero); zero++)
			;
		assert_int_equal(bitmap_next(map, from, n), from < n ? one : n);
		assert_int_equal(bitmap_next_zero(map, from, n), from < n ? zero : n);
	}
}

static void test_next(void **state)
{
	for_each(nexts);
}

static void ranges(void)
{
	uint64_t a[WORDS], b[WORDS], was[WORDS], src[WORDS];

	for (unsigned int r = 0; r < ROUNDS; r++) {
		uint64_t n = rnd() % 2000, s = rnd() % 3000, d = rnd() % 3000, found = 0;
		enum bitmap_how how = rnd() % 3;

		if (r % 3 == 0) {
			s &= ~63ULL;
			d &= ~63ULL;
		}
		scribble(a, WORDS);
		scribble(b, WORDS);
		memcpy(was, a, sizeof(a));
		memcpy(src, b, sizeof(b));
		for (uint64_t i = 0; i < n; i++)
			found += bit(b, s + i);
		assert_int_equal(bitmap_range(a, d, b, s, n, how), found);
		for (uint64_t i = 0; i < WORDS * 64; i++) {
			bool in_d = i >= d && i < d + n, in_s = i >= s && i < s + n;

			assert_int_equal(bit(a, i),
					 bit(was, i) || (in_d && bit(src, i - d + s)));
			assert_int_equal(bit(b, i),
					 bit(src, i) && (how == BITMAP_MERGE || !in_s));
		}
	}
}

static void test_range(void **state)
{
	for_each(ranges);
}

static void test_set_range(void **state)
{
	uint64_t map[WORDS], was[WORDS];

	for (unsigned int r = 0; r < ROUNDS; r++) {
		uint64_t n = rnd() % 300, at = rnd() % 5000;

		scribble(map, WORDS);
		memcpy(was, map, sizeof(map));
		bitmap_set_range(map, at, n);
		for (uint64_t i = 0; i < WORDS * 64; i++)
			assert_int_equal(bit(map, i),
					 bit(was, i) || (i >= at && i < at + n));
	}
}

/* ---- writers while bits are taken ------------------------------------------------ */

#define SETTERS 3U
#define EACH	200000U /* bits of each, every one once */

static uint64_t shared_map[SETTERS * EACH / 64 + 1];

/* In an order that leaves no word to one thread: bit i * SETTERS + its own number */
static void *set_all(void *arg)
{
	uint64_t me = (uintptr_t)arg;

	for (uint64_t i = 0; i < EACH; i++)
		bitmap_set_atomic(shared_map, i * SETTERS + me);
	return NULL;
}

static void takes(void)
{
	size_t words = sizeof(shared_map) / 8;
	uint64_t *got = calloc(words, 8), taken = 0;
	pthread_t id[SETTERS];

	assert_non_null(got);
	for (uintptr_t i = 0; i < SETTERS; i++)
		assert_int_equal(pthread_create(&id[i], NULL, set_all, (void *)i), 0);
	/* By whole bitmaps and, where words are shared with a neighbour, by pieces */
	for (unsigned int r = 0; r < 200; r++) {
		taken += bitmap_take_atomic(got, shared_map, words);
		taken += bitmap_range(got, 77, shared_map, 77, 5000, BITMAP_TAKE_ATOMIC);
	}
	for (unsigned int i = 0; i < SETTERS; i++)
		pthread_join(id[i], NULL);
	taken += bitmap_take_atomic(got, shared_map, words);
	assert_int_equal(taken, SETTERS * EACH); /* none lost, none twice */
	assert_int_equal(bits(got, words), SETTERS * EACH);
	assert_int_equal(bits(shared_map, words), 0);
	free(got);
}

static void test_take_while_set(void **state)
{
	for_each(takes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_merge),	       cmocka_unit_test(test_next),
		cmocka_unit_test(test_range),	       cmocka_unit_test(test_set_range),
		cmocka_unit_test(test_take_while_set),
	};

	return cmocka_run_group_tests_name("bitmap", tests, NULL, NULL);
}
