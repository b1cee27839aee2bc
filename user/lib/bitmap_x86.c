// SPDX-License-Identifier: BSD-2-Clause
/*
 * bitmap for x86-64: AVX2, and AVX-512 with VPOPCNTDQ.
 *
 * Dirty bitmaps are mostly zeros, but at one page in a hundred already half of the words
 * are not, so no branch depends on a single word: vectors are tested, merged and counted
 * as a whole. A vector of zeros is not written back, which keeps its line clean.
 *
 * The atomic variants look at vectors by plain loads. A lane that is set meanwhile
 * may be missed and is then found the next time; what is taken is taken by an
 * exchange of its word. The thread sanitizer would call these looks races, so they are
 * in functions that it leaves alone. An exchange waits for all stores before it, so those
 * to the destination, which is seldom in the first cache, come after a block of them; and
 * which words are to be exchanged is written down without a branch.
 *
 * Any thread; no state. Compiled with target attributes: the rest of the library runs on
 * any x86-64.
 */
#ifdef __x86_64__

#include <immintrin.h>

#include "bitmap_impl.h"

#define AVX2   __attribute__((target("avx2,popcnt")))
#define AVX512 __attribute__((target("avx512f,avx512vpopcntdq,popcnt")))
#define BLOCK  256 /* words: their numbers and values stay in the first cache */
#define LINE   8   /* words */
#define RACY   __attribute__((no_sanitize("thread")))

/* Of the block that is next, @words at most: exchanges wait for what is not in the cache */
static inline __attribute__((always_inline)) void fetch(const uint64_t *dst,
							const uint64_t *src, size_t words)
{
	for (size_t i = 0; i < words && i < BLOCK; i += LINE) {
		__builtin_prefetch(src + i, 1);
		__builtin_prefetch(dst + i, 1);
	}
}

/* Take the @n words of @src whose numbers are in @list. Return: bits */
static inline __attribute__((always_inline)) uint64_t
take_listed(uint64_t *dst, uint64_t *src, const uint64_t *list, size_t n)
{
	uint64_t v[BLOCK], found = 0;

	for (size_t k = 0; k < n; k++)
		v[k] = __atomic_exchange_n(&src[list[k]], 0, __ATOMIC_SEQ_CST);
	for (size_t k = 0; k < n; k++) {
		found += (uint64_t)__builtin_popcountll(v[k]);
		dst[list[k]] |= v[k];
	}
	return found;
}

/* ---- AVX2 ------------------------------------------------------------------ */

AVX2 static inline __m256i load256(const uint64_t *p)
{
	return _mm256_loadu_si256((const __m256i *)p);
}

AVX2 static inline void store256(uint64_t *p, __m256i v)
{
	_mm256_storeu_si256((__m256i *)p, v);
}

/* Bits per 64-bit lane: a table of the bits of four, looked up for both halves of a byte
 */
AVX2 static inline __m256i popcnt256(__m256i v)
{
	const __m256i table =
		_mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1,
				 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
	const __m256i low = _mm256_set1_epi8(15);
	__m256i a = _mm256_shuffle_epi8(table, _mm256_and_si256(v, low));
	__m256i b = _mm256_shuffle_epi8(table,
					_mm256_and_si256(_mm256_srli_epi16(v, 4), low));

	return _mm256_sad_epu8(_mm256_add_epi8(a, b), _mm256_setzero_si256());
}

AVX2 static inline uint64_t sum256(__m256i v)
{
	__m128i q =
		_mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));

	return (uint64_t)_mm_cvtsi128_si64(_mm_add_epi64(q, _mm_unpackhi_epi64(q, q)));
}

AVX2 static uint64_t count256(const uint64_t *map, size_t words)
{
	__m256i n = _mm256_setzero_si256();
	uint64_t more = 0;
	size_t i = 0;

	for (; i + 4 <= words; i += 4)
		n = _mm256_add_epi64(n, popcnt256(load256(map + i)));
	for (; i < words; i++)
		more += (uint64_t)__builtin_popcountll(map[i]);
	return sum256(n) + more;
}

AVX2 static uint64_t merge256(uint64_t *dst, const uint64_t *src, size_t words)
{
	__m256i n = _mm256_setzero_si256();
	uint64_t more = 0;
	size_t i = 0;

	for (; i + 4 <= words; i += 4) {
		__m256i v = load256(src + i);

		if (_mm256_testz_si256(v, v))
			continue;
		n = _mm256_add_epi64(n, popcnt256(v));
		store256(dst + i, _mm256_or_si256(v, load256(dst + i)));
	}
	for (; i < words; i++) {
		more += (uint64_t)__builtin_popcountll(src[i]);
		dst[i] |= src[i];
	}
	return sum256(n) + more;
}

AVX2 static uint64_t take256(uint64_t *dst, uint64_t *src, size_t words)
{
	__m256i n = _mm256_setzero_si256();
	uint64_t more = 0;
	size_t i = 0;

	for (; i + 4 <= words; i += 4) {
		__m256i v = load256(src + i);

		if (_mm256_testz_si256(v, v))
			continue;
		n = _mm256_add_epi64(n, popcnt256(v));
		store256(dst + i, _mm256_or_si256(v, load256(dst + i)));
		store256(src + i, _mm256_setzero_si256());
	}
	for (; i < words; i++) {
		more += (uint64_t)__builtin_popcountll(src[i]);
		dst[i] |= src[i];
		src[i] = 0;
	}
	return sum256(n) + more;
}

/*
 * Numbers of the words that are not 0: of each four the numbers of their set lanes, a byte
 * each, which are looked up by the mask of these lanes.
 * @list: has room for 3 more, which are overwritten. Return: how many
 */
RACY AVX2 static size_t list256(uint64_t *list, const uint64_t *src, size_t words)
{
	static const uint32_t lanes[16] = {
		0x0, 0x0,   0x1,   0x100,   0x2,   0x200,   0x201,   0x20100,
		0x3, 0x300, 0x301, 0x30100, 0x302, 0x30200, 0x30201, 0x3020100,
	};
	const __m256i zero = _mm256_setzero_si256();
	size_t n = 0, i = 0;

	for (; i + 4 <= words; i += 4) {
		/* Not load256(), which is no part of this function for the sanitizer. */
		__m256i some = _mm256_loadu_si256((const __m256i *)(src + i));
		__m256i empty = _mm256_cmpeq_epi64(some, zero);
		unsigned int set =
			~(unsigned int)_mm256_movemask_pd(_mm256_castsi256_pd(empty)) &
			15;
		__m256i v = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128((int)lanes[set]));

		v = _mm256_add_epi64(v, _mm256_set1_epi64x((long long)i));
		store256(list + n, v);
		n += (size_t)__builtin_popcount(set);
	}
	for (; i < words; i++) {
		list[n] = i;
		n += src[i] != 0;
	}
	return n;
}

AVX2 static uint64_t take_atomic256(uint64_t *dst, uint64_t *src, size_t words)
{
	uint64_t list[BLOCK + 3], found = 0;

	for (size_t at = 0; at < words; at += BLOCK) {
		size_t some = words - at < BLOCK ? words - at : BLOCK;
		size_t n;

		fetch(dst + at + some, src + at + some, words - at - some);
		n = list256(list, src + at, some);
		found += take_listed(dst + at, src + at, list, n);
	}
	return found;
}

AVX2 static size_t skip256(const uint64_t *map, size_t words, uint64_t fill)
{
	__m256i f = _mm256_set1_epi64x((long long)fill);
	size_t i = 0;

	for (; i + 4 <= words; i += 4) {
		__m256i v = _mm256_xor_si256(f, load256(map + i));

		if (!_mm256_testz_si256(v, v))
			break;
	}
	while (i < words && map[i] == fill)
		i++;
	return i;
}

const struct bitmap_impl bitmap_avx2 = {
	"avx2", count256, merge256, take256, take_atomic256, skip256,
};

/* ---- AVX-512 --------------------------------------------------------------- */

/* Lanes of the last, partial vector */
static inline __mmask8 tail(size_t words)
{
	return (__mmask8)((1U << words) - 1);
}

AVX512 static inline __m512i popcnt512(__m512i n, __m512i v)
{
	return _mm512_add_epi64(n, _mm512_popcnt_epi64(v));
}

AVX512 static uint64_t count512(const uint64_t *map, size_t words)
{
	__m512i a = _mm512_setzero_si512(), b = a;
	size_t i = 0;

	for (; i + 16 <= words; i += 16) {
		a = popcnt512(a, _mm512_loadu_si512(map + i));
		b = popcnt512(b, _mm512_loadu_si512(map + i + 8));
	}
	for (; i + 8 <= words; i += 8)
		a = popcnt512(a, _mm512_loadu_si512(map + i));
	b = popcnt512(b, _mm512_maskz_loadu_epi64(tail(words - i), map + i));
	return (uint64_t)_mm512_reduce_add_epi64(_mm512_add_epi64(a, b));
}

AVX512 static uint64_t merge512(uint64_t *dst, const uint64_t *src, size_t words)
{
	__m512i n = _mm512_setzero_si512();
	size_t i = 0;

	for (; i < words; i += 8) {
		__mmask8 m = words - i < 8 ? tail(words - i) : 0xff;
		__m512i v = _mm512_maskz_loadu_epi64(m, src + i);

		if (!_mm512_test_epi64_mask(v, v))
			continue;
		n = popcnt512(n, v);
		v = _mm512_or_si512(v, _mm512_maskz_loadu_epi64(m, dst + i));
		_mm512_mask_storeu_epi64(dst + i, m, v);
	}
	return (uint64_t)_mm512_reduce_add_epi64(n);
}

AVX512 static uint64_t take512(uint64_t *dst, uint64_t *src, size_t words)
{
	__m512i n = _mm512_setzero_si512();
	size_t i = 0;

	for (; i < words; i += 8) {
		__mmask8 m = words - i < 8 ? tail(words - i) : 0xff;
		__m512i v = _mm512_maskz_loadu_epi64(m, src + i);

		if (!_mm512_test_epi64_mask(v, v))
			continue;
		n = popcnt512(n, v);
		v = _mm512_or_si512(v, _mm512_maskz_loadu_epi64(m, dst + i));
		_mm512_mask_storeu_epi64(dst + i, m, v);
		_mm512_mask_storeu_epi64(src + i, m, _mm512_setzero_si512());
	}
	return (uint64_t)_mm512_reduce_add_epi64(n);
}

/* @list: has room for 7 more, which are overwritten */
RACY AVX512 static size_t list512(uint64_t *list, const uint64_t *src, size_t words)
{
	__m512i number = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
	size_t n = 0;

	for (size_t i = 0; i < words; i += 8) {
		__mmask8 m = words - i < 8 ? tail(words - i) : 0xff;
		__m512i v = _mm512_maskz_loadu_epi64(m, src + i);
		__mmask8 set = _mm512_test_epi64_mask(v, v);

		_mm512_storeu_si512(list + n, _mm512_maskz_compress_epi64(set, number));
		n += (size_t)__builtin_popcount(set);
		number = _mm512_add_epi64(number, _mm512_set1_epi64(8));
	}
	return n;
}

AVX512 static uint64_t take_atomic512(uint64_t *dst, uint64_t *src, size_t words)
{
	uint64_t list[BLOCK + 7], found = 0;

	for (size_t at = 0; at < words; at += BLOCK) {
		size_t some = words - at < BLOCK ? words - at : BLOCK;
		size_t n = list512(list, src + at, some);

		found += take_listed(dst + at, src + at, list, n);
	}
	return found;
}

AVX512 static size_t skip512(const uint64_t *map, size_t words, uint64_t fill)
{
	__m512i f = _mm512_set1_epi64((long long)fill);
	size_t i = 0;

	for (; i < words; i += 8) {
		__mmask8 m = words - i < 8 ? tail(words - i) : 0xff;
		__m512i v = _mm512_maskz_loadu_epi64(m, map + i);
		unsigned int unlike = _mm512_mask_cmpneq_epi64_mask(m, v, f);

		if (unlike)
			return i + (size_t)__builtin_ctz(unlike);
	}
	return words;
}

const struct bitmap_impl bitmap_avx512 = {
	"avx512", count512, merge512, take512, take_atomic512, skip512,
};

#endif /* __x86_64__ */
