// SPDX-License-Identifier: BSD-2-Clause
/*
 * csum: the portable variant, and the choice among the variants.
 *
 * RFC 1071 section 2(A) and (C): the sum may be taken over wider words if no carry
 * is lost, so 8 bytes are added at a time and the carries are counted in the upper half
 * of a 128-bit integer. Two accumulators, because the carry makes each a
 * chain that the CPU cannot shorten.
 *
 * The pointers are set by a constructor, before main() and before any thread;
 * until then they name the portable variant. Any thread.
 */
#include <string.h>

#include "csum.h"
#include "csum_impl.h"

#define MAX_IMPLS 3

/* Memory byte order on purpose; bytes beyond @n are zero. */
static inline uint64_t load_tail(const uint8_t *p, size_t n)
{
	uint64_t v = 0;

	memcpy(&v, p, n);
	return v;
}

static inline uint64_t load64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline void store64(uint8_t *p, uint64_t v)
{
	memcpy(p, &v, sizeof(v));
}

static inline uint16_t fold128(unsigned __int128 s)
{
	/* 2^64 is 1 modulo 0xffff, and the upper half is a small count */
	return csum_add(csum_fold((uint64_t)s), csum_fold((uint64_t)(s >> 64)));
}

uint16_t csum_scalar(const void *p, size_t len)
{
	const uint8_t *b = p;
	unsigned __int128 s0 = 0, s1 = 0;

	for (; len >= 32; b += 32, len -= 32) {
		s0 += load64(b);
		s1 += load64(b + 8);
		s0 += load64(b + 16);
		s1 += load64(b + 24);
	}
	for (; len >= 8; b += 8, len -= 8)
		s0 += load64(b);
	if (len)
		s1 += load_tail(b, len);
	return fold128(s0 + s1);
}

uint16_t csum_copy_scalar(void *dst, const void *src, size_t len)
{
	const uint8_t *b = src;
	uint8_t *d = dst;
	unsigned __int128 s0 = 0, s1 = 0;

	for (; len >= 16; b += 16, d += 16, len -= 16) {
		uint64_t v0 = load64(b), v1 = load64(b + 8);

		store64(d, v0);
		store64(d + 8, v1);
		s0 += v0;
		s1 += v1;
	}
	if (len >= 8) {
		uint64_t v = load64(b);

		store64(d, v);
		s0 += v;
		b += 8;
		d += 8;
		len -= 8;
	}
	if (len) {
		uint64_t v = load_tail(b, len);

		memcpy(d, &v, len);
		s1 += v;
	}
	return fold128(s0 + s1);
}

uint16_t (*csum)(const void *p, size_t len) = csum_scalar;
uint16_t (*csum_copy)(void *dst, const void *src, size_t len) = csum_copy_scalar;

static struct csum_impl impls[MAX_IMPLS] = {
	{ "scalar", csum_scalar, csum_copy_scalar },
};
static unsigned int nimpls = 1;

__attribute__((constructor)) static void choose(void)
{
#ifdef __x86_64__
	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx2"))
		impls[nimpls++] = (struct csum_impl){ "avx2", csum_avx2, csum_copy_avx2 };
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"))
		impls[nimpls++] =
			(struct csum_impl){ "avx512", csum_avx512, csum_copy_avx512 };
#endif
	csum = impls[nimpls - 1].sum;
	csum_copy = impls[nimpls - 1].copy;
}

const struct csum_impl *csum_impls(unsigned int *n)
{
	*n = nimpls;
	return impls;
}
