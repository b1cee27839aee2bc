// SPDX-License-Identifier: BSD-2-Clause
/*
 * csum: every variant against the definition, byte by byte, for every length to
 * 4,096 at every offset within a cache line; and no byte outside the message is
 * read or written.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/lib/csum.h"

#define MAX_LEN 4096
#define LINE	64
#define GUARD	64 /* bytes around a copy that must not change */

static uint8_t src[MAX_LEN + LINE] __attribute__((aligned(LINE)));
static uint8_t dst[MAX_LEN + 2 * GUARD + LINE] __attribute__((aligned(LINE)));

/* Running RFC 1071 sum; a byte at an even place is the first of its word. */
struct ref {
	uint64_t first, second;
	size_t n;
};

static void ref_byte(struct ref *r, uint8_t b)
{
	*(r->n++ & 1 ? &r->second : &r->first) += b;
}

/* The words' value in memory byte order. */
static uint16_t ref_sum(const struct ref *r)
{
	uint64_t s = r->first * 256 + r->second;
	uint8_t out[2];
	uint16_t v;

	while (s > 0xffff)
		s = (s & 0xffff) + (s >> 16);
	out[0] = (uint8_t)(s >> 8);
	out[1] = (uint8_t)s;
	memcpy(&v, out, 2);
	return v;
}

static void check_copy(const struct csum_impl *impl, size_t off, size_t len,
		       uint16_t want)
{
	size_t doff = GUARD + (off * 7 + len) % LINE;
	uint8_t *d = dst + doff;
	uint8_t before[GUARD], after[GUARD];

	memcpy(before, d - GUARD, GUARD);
	memcpy(after, d + len, GUARD);
	memset(d, 0x5a, len);
	if (impl->copy(d, src + off, len) != want)
		fail_msg("%s copy: wrong sum, offset %zu length %zu", impl->name, off,
			 len);
	if (memcmp(d, src + off, len))
		fail_msg("%s copy: wrong bytes, offset %zu length %zu", impl->name, off,
			 len);
	if (memcmp(before, d - GUARD, GUARD) || memcmp(after, d + len, GUARD))
		fail_msg("%s copy: wrote outside, offset %zu length %zu", impl->name, off,
			 len);
}

static void check_all(void)
{
	unsigned int n;
	const struct csum_impl *impl = csum_impls(&n);

	for (unsigned int i = 0; i < sizeof(dst); i++)
		dst[i] = (uint8_t)(i * 31);
	for (size_t off = 0; off < LINE; off++) {
		struct ref r = { 0 };

		for (size_t len = 0; len <= MAX_LEN; len++) {
			uint16_t want = ref_sum(&r);

			for (unsigned int i = 0; i < n; i++) {
				if (impl[i].sum(src + off, len) != want)
					fail_msg("%s: wrong sum, offset %zu length %zu",
						 impl[i].name, off, len);
				/* every length at every offset is slow under sanitizers
				 */
				if (len < 512 || (len + off) % 13 == 0)
					check_copy(&impl[i], off, len, want);
			}
			if (len < MAX_LEN)
				ref_byte(&r, src[off + len]);
		}
	}
}

static void test_random(void **state)
{
	srandom(1);
	for (size_t i = 0; i < sizeof(src); i++)
		src[i] = (uint8_t)random();
	check_all();
}

/* Every addition carries. */
static void test_ones(void **state)
{
	memset(src, 0xff, sizeof(src));
	check_all();
}

static void test_zeros(void **state)
{
	memset(src, 0, sizeof(src));
	check_all();
}

/* The longest message of the product, and one far beyond it. */
static void test_long(void **state)
{
	static const size_t lens[] = { 65535, 65557, 1 << 20, (1 << 24) + 1 };
	unsigned int n;
	const struct csum_impl *impl = csum_impls(&n);

	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		uint8_t *p = malloc(lens[i]), *q = malloc(lens[i]);
		struct ref r = { 0 };

		assert_non_null(p);
		assert_non_null(q);
		memset(p, 0xff, lens[i]);
		p[lens[i] / 2] = 0x12;
		for (size_t k = 0; k < lens[i]; k++)
			ref_byte(&r, p[k]);
		for (unsigned int k = 0; k < n; k++) {
			assert_int_equal(impl[k].sum(p, lens[i]), ref_sum(&r));
			assert_int_equal(impl[k].copy(q, p, lens[i]), ref_sum(&r));
			assert_memory_equal(p, q, lens[i]);
		}
		free(p);
		free(q);
	}
}

/* Three pages, only the middle one mapped. */
static uint8_t *guarded_page(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *p = mmap(NULL, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	assert_int_equal(mprotect(p + page, page, PROT_READ | PROT_WRITE), 0);
	return p + page;
}

/* A read or write beyond a message that ends or starts a page is a SIGSEGV. */
static void test_page_edges(void **state)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *p = guarded_page(), *q = guarded_page();
	unsigned int n;
	const struct csum_impl *impl = csum_impls(&n);

	for (size_t i = 0; i < page; i++)
		p[i] = (uint8_t)(i * 197 + 3);
	for (size_t len = 0; len <= 300; len++) {
		for (size_t off = 0; off < LINE; off++) {
			const uint8_t *at[2] = { p + off, p + page - len - off };
			struct ref r[2] = { 0 };

			for (int e = 0; e < 2; e++)
				for (size_t k = 0; k < len; k++)
					ref_byte(&r[e], at[e][k]);
			for (unsigned int i = 0; i < 2 * n; i++) {
				const struct csum_impl *m = &impl[i / 2];

				assert_int_equal(m->sum(at[i & 1], len),
						 ref_sum(&r[i & 1]));
				assert_int_equal(m->copy(q, at[i & 1], len),
						 ref_sum(&r[i & 1]));
				assert_int_equal(m->copy(q + page - len, at[i & 1], len),
						 ref_sum(&r[i & 1]));
			}
		}
	}
	munmap(p - page, 3 * page);
	munmap(q - page, 3 * page);
}

/* A message cut anywhere sums to the same, odd cuts included. */
static void test_add_at(void **state)
{
	srandom(2);
	for (size_t i = 0; i < sizeof(src); i++)
		src[i] = (uint8_t)random();
	for (unsigned int cut = 0; cut <= 300; cut++) {
		uint16_t whole = csum(src, 300);
		uint16_t parts =
			csum_add_at(csum(src, cut), csum(src + cut, 300 - cut), cut);

		assert_true(csum_equal(whole, parts));
	}
	assert_true(csum_equal(0, 0xffff));
	assert_false(csum_equal(1, 0xfffe));
	assert_false(csum_equal(0, 1));
}

/* The pointers name the last, widest variant. */
static void test_choice(void **state)
{
	unsigned int n;
	const struct csum_impl *impl = csum_impls(&n);

	assert_true(n >= 1);
	assert_string_equal(impl[0].name, "scalar");
	assert_ptr_equal(csum, impl[n - 1].sum);
	assert_ptr_equal(csum_copy, impl[n - 1].copy);
#ifdef __x86_64__
	assert_int_equal(n, 1 + !!__builtin_cpu_supports("avx2") +
				    !!(__builtin_cpu_supports("avx512f") &&
				       __builtin_cpu_supports("avx512bw")));
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_choice), cmocka_unit_test(test_random),
		cmocka_unit_test(test_ones),   cmocka_unit_test(test_zeros),
		cmocka_unit_test(test_long),   cmocka_unit_test(test_page_edges),
		cmocka_unit_test(test_add_at),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
