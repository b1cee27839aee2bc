// SPDX-License-Identifier: BSD-2-Clause
/*
 * bitmap: the portable variant, the choice among the variants, and what is built on them.
 *
 * The variant is chosen by a constructor, before main() and before any thread. Any
 * thread.
 */
#include "bitmap.h"
#include "bitmap_impl.h"

#define MAX_IMPLS 3

/* ---- portable ---------------------------------------------------------------- */

static uint64_t count_scalar(const uint64_t *map, size_t words)
{
	uint64_t n = 0;

	for (size_t i = 0; i < words; i++)
		n += (uint64_t)__builtin_popcountll(map[i]);
	return n;
}

static uint64_t merge_scalar(uint64_t *dst, const uint64_t *src, size_t words)
{
	uint64_t n = 0;

	for (size_t i = 0; i < words; i++) {
		if (!src[i])
			continue;
		n += (uint64_t)__builtin_popcountll(src[i]);
		dst[i] |= src[i];
	}
	return n;
}

static uint64_t take_scalar(uint64_t *dst, uint64_t *src, size_t words)
{
	uint64_t n = 0;

	for (size_t i = 0; i < words; i++) {
		if (!src[i])
			continue;
		n += (uint64_t)__builtin_popcountll(src[i]);
		dst[i] |= src[i];
		src[i] = 0;
	}
	return n;
}

/* Pairs with the OR in bitmap_set_atomic(), or of whoever else sets bits. */
static inline uint64_t take_word(uint64_t *dst, uint64_t *src)
{
	uint64_t v = __atomic_exchange_n(src, 0, __ATOMIC_SEQ_CST);

	*dst |= v;
	return (uint64_t)__builtin_popcountll(v);
}

static uint64_t take_atomic_scalar(uint64_t *dst, uint64_t *src, size_t words)
{
	uint64_t n = 0;

	for (size_t i = 0; i < words; i++)
		if (__atomic_load_n(&src[i], __ATOMIC_RELAXED))
			n += take_word(&dst[i], &src[i]);
	return n;
}

static size_t skip_scalar(const uint64_t *map, size_t words, uint64_t fill)
{
	size_t i = 0;

	while (i < words && map[i] == fill)
		i++;
	return i;
}

/* ---- choice ------------------------------------------------------------------ */

static struct bitmap_impl impls[MAX_IMPLS] = {
	{ "scalar", count_scalar, merge_scalar, take_scalar, take_atomic_scalar,
	  skip_scalar },
};
static unsigned int nimpls = 1;
static const struct bitmap_impl *impl = &impls[0];

__attribute__((constructor)) static void choose(void)
{
#ifdef __x86_64__
	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt"))
		impls[nimpls++] = bitmap_avx2;
	if (__builtin_cpu_supports("avx512f") &&
	    __builtin_cpu_supports("avx512vpopcntdq"))
		impls[nimpls++] = bitmap_avx512;
#endif
	impl = &impls[nimpls - 1];
}

const struct bitmap_impl *bitmap_impls(unsigned int *n)
{
	*n = nimpls;
	return impls;
}

void bitmap_choose(unsigned int i)
{
	impl = &impls[i];
}

/* ---- interface --------------------------------------------------------------- */

/* Bits [@from, @from + @n) of a word; @n <= 64 - @from */
static inline uint64_t mask_of(unsigned int from, uint64_t n)
{
	return (n < 64 ? (1ULL << n) - 1 : ~0ULL) << from;
}

void bitmap_set_range(uint64_t *map, uint64_t first, uint64_t n)
{
	while (n) {
		unsigned int from = first % 64;
		uint64_t take = n < 64 - from ? n : 64 - from;

		map[first / 64] |= mask_of(from, take);
		first += take;
		n -= take;
	}
}

uint64_t bitmap_count(const uint64_t *map, size_t words)
{
	return impl->count(map, words);
}

/* First bit at @from or after it that is not as in @fill, 0 or ~0 */
static uint64_t next_unlike(const uint64_t *map, uint64_t from, uint64_t bits,
			    uint64_t fill)
{
	size_t w = from / 64, words = bitmap_words(bits);
	uint64_t v, bit;

	if (from >= bits)
		return bits;
	v = (map[w] ^ fill) & ~0ULL << (from % 64);
	if (!v) {
		w++;
		w += impl->skip(map + w, words - w, fill);
		if (w >= words)
			return bits;
		v = map[w] ^ fill;
	}
	bit = w * 64 + (uint64_t)__builtin_ctzll(v);
	return bit < bits ? bit : bits;
}

uint64_t bitmap_next(const uint64_t *map, uint64_t from, uint64_t bits)
{
	return next_unlike(map, from, bits, 0);
}

uint64_t bitmap_next_zero(const uint64_t *map, uint64_t from, uint64_t bits)
{
	return next_unlike(map, from, bits, ~0ULL);
}

uint64_t bitmap_merge(uint64_t *dst, const uint64_t *src, size_t words)
{
	return impl->merge(dst, src, words);
}

uint64_t bitmap_take(uint64_t *dst, uint64_t *src, size_t words)
{
	return impl->take(dst, src, words);
}

uint64_t bitmap_take_atomic(uint64_t *dst, uint64_t *src, size_t words)
{
	return impl->take_atomic(dst, src, words);
}

/* Some bits of a word of the source */
static uint64_t take_masked(uint64_t *src, uint64_t mask, enum bitmap_how how)
{
	uint64_t v;

	switch (how) {
	case BITMAP_TAKE_ATOMIC:
		if (!(__atomic_load_n(src, __ATOMIC_RELAXED) & mask))
			return 0;
		return __atomic_fetch_and(src, ~mask, __ATOMIC_SEQ_CST) & mask;
	case BITMAP_TAKE:
		v = *src & mask;
		*src &= ~mask;
		return v;
	case BITMAP_MERGE: break;
	}
	return *src & mask;
}

/* At most 64 bits, which may lie in two words at either side */
static uint64_t range_word(uint64_t *dst, uint64_t dfirst, uint64_t *src, uint64_t sfirst,
			   uint64_t n, enum bitmap_how how)
{
	unsigned int s = sfirst % 64, d = dfirst % 64;
	uint64_t low = n < 64 - s ? n : 64 - s;
	uint64_t v = take_masked(&src[sfirst / 64], mask_of(s, low), how) >> s;

	if (low < n)
		v |= take_masked(&src[sfirst / 64 + 1], mask_of(0, n - low), how) << low;
	if (!v)
		return 0;
	dst[dfirst / 64] |= v << d;
	if (d && v >> (64 - d))
		dst[dfirst / 64 + 1] |= v >> (64 - d);
	return (uint64_t)__builtin_popcountll(v);
}

uint64_t bitmap_range(uint64_t *dst, uint64_t dfirst, uint64_t *src, uint64_t sfirst,
		      uint64_t n, enum bitmap_how how)
{
	uint64_t found = 0, step;

	if (!(dfirst % 64) && !(sfirst % 64)) {
		uint64_t *to = dst + dfirst / 64, *from = src + sfirst / 64;
		size_t words = n / 64;

		found = how == BITMAP_MERGE  ? impl->merge(to, from, words)
			: how == BITMAP_TAKE ? impl->take(to, from, words)
					     : impl->take_atomic(to, from, words);
		dfirst += words * 64;
		sfirst += words * 64;
		n -= words * 64;
	}
	for (; n; n -= step, dfirst += step, sfirst += step) {
		step = n < 64 ? n : 64;
		found += range_word(dst, dfirst, src, sfirst, step, how);
	}
	return found;
}
