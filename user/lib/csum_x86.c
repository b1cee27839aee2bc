// SPDX-License-Identifier: BSD-2-Clause
/*
 * csum for x86-64: AVX2 and AVX-512 (F and BW).
 *
 * A one's complement sum may be taken over 32-bit words (RFC 1071, 2(C)), so each
 * 64-bit lane holds two of them, low and high. Widening both halves would cost two
 * operations and two additions a vector. Instead the whole lane is added, letting
 * the upper half wrap, and the high words are added a second time on their own:
 *
 *	S = sum of lanes mod 2^64,  H = sum of (lane >> 32)
 *	sum of low words = S - (H << 32)	exact: it is below 2^64
 *	result = (S - (H << 32)) + H		per lane; 2^32 is 1 modulo 0xffff
 *
 * which is one shift and two additions a vector, and cannot overflow below 2^32
 * vectors. Two pairs of accumulators keep the additions from waiting for one another.
 *
 * Any thread; no state. Compiled with target attributes: the rest of the
 * library runs on any x86-64.
 */
#ifdef __x86_64__

#include <immintrin.h>

#include "csum.h"
#include "csum_impl.h"

#define AVX2   __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx512f,avx512bw")))

/* ---- AVX2 ------------------------------------------------------------------ */

struct acc256 {
	__m256i s, h;
};

AVX2 static inline void add256(struct acc256 *a, __m256i v)
{
	a->s = _mm256_add_epi64(a->s, v);
	a->h = _mm256_add_epi64(a->h, _mm256_srli_epi64(v, 32));
}

AVX2 static inline uint16_t fold256(struct acc256 a, struct acc256 b, uint64_t more)
{
	__m256i s = _mm256_add_epi64(a.s, b.s), h = _mm256_add_epi64(a.h, b.h);
	__m128i q;

	s = _mm256_add_epi64(_mm256_sub_epi64(s, _mm256_slli_epi64(h, 32)), h);
	q = _mm_add_epi64(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
	q = _mm_add_epi64(q, _mm_unpackhi_epi64(q, q));
	return csum_fold((uint64_t)_mm_cvtsi128_si64(q) + more);
}

/*
 * The last, partial vector is read again from its end backwards, without what was
 * summed before: tail_mask + n masks all but the last n bytes. Its start is kept at an
 * even distance so that bytes keep their place in the 16-bit words; an odd
 * last byte is added on its own.
 */
static const uint8_t tail_mask[64] = {
	[32] = 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
	255,	    255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
	255,	    255, 255, 255, 255, 255, 255, 255, 255, 255,
};

AVX2 static inline __m256i load256(const uint8_t *p)
{
	return _mm256_loadu_si256((const __m256i *)p);
}

AVX2 static inline void store256(uint8_t *p, __m256i v)
{
	_mm256_storeu_si256((__m256i *)p, v);
}

AVX2 uint16_t csum_avx2(const void *p, size_t len)
{
	struct acc256 a = { _mm256_setzero_si256(), _mm256_setzero_si256() }, b = a;
	const uint8_t *s = p;
	size_t n = len, even;
	uint64_t odd;

	if (len < 32)
		return csum_scalar(p, len);
	for (; n >= 128; s += 128, n -= 128) {
		add256(&a, load256(s));
		add256(&b, load256(s + 32));
		add256(&a, load256(s + 64));
		add256(&b, load256(s + 96));
	}
	for (; n >= 32; s += 32, n -= 32)
		add256(&a, load256(s));
	even = n & ~(size_t)1;
	add256(&b, _mm256_and_si256(load256(s + even - 32), load256(tail_mask + even)));
	odd = n & 1 ? s[n - 1] : 0;
	return fold256(a, b, odd);
}

AVX2 uint16_t csum_copy_avx2(void *dst, const void *src, size_t len)
{
	struct acc256 a = { _mm256_setzero_si256(), _mm256_setzero_si256() }, b = a;
	const uint8_t *s = src;
	uint8_t *d = dst;
	size_t n = len, even;
	uint64_t odd = 0;

	if (len < 32)
		return csum_copy_scalar(dst, src, len);
	for (; n >= 64; s += 64, d += 64, n -= 64) {
		__m256i v = load256(s), w = load256(s + 32);

		store256(d, v);
		store256(d + 32, w);
		add256(&a, v);
		add256(&b, w);
	}
	if (n >= 32) {
		__m256i v = load256(s);

		store256(d, v);
		add256(&a, v);
		s += 32;
		d += 32;
		n -= 32;
	}
	even = n & ~(size_t)1;
	if (even) {
		__m256i v = load256(s + even - 32);

		store256(d + even - 32, v);
		add256(&b, _mm256_and_si256(v, load256(tail_mask + even)));
	}
	if (n & 1) {
		d[n - 1] = s[n - 1];
		odd = s[n - 1];
	}
	return fold256(a, b, odd);
}

/* ---- AVX-512 --------------------------------------------------------------- */

struct acc512 {
	__m512i s, h;
};

AVX512 static inline void add512(struct acc512 *a, __m512i v)
{
	a->s = _mm512_add_epi64(a->s, v);
	a->h = _mm512_add_epi64(a->h, _mm512_srli_epi64(v, 32));
}

/* @shift: bytes in front of the message in its first vector */
AVX512 static inline uint16_t fold512(struct acc512 a, struct acc512 b, size_t shift)
{
	__m512i s = _mm512_add_epi64(a.s, b.s), h = _mm512_add_epi64(a.h, b.h);
	uint16_t sum;

	s = _mm512_add_epi64(_mm512_sub_epi64(s, _mm512_slli_epi64(h, 32)), h);
	sum = csum_fold((uint64_t)_mm512_reduce_add_epi64(s));
	return shift & 1 ? (uint16_t)(sum << 8 | sum >> 8) : sum;
}

/* Lanes of the first vector: @shift of them lie in front, @n end the message. */
static inline __mmask64 head_mask(size_t shift, size_t n)
{
	__mmask64 m = ~(__mmask64)0 << shift;

	return n < 64 ? m & (((__mmask64)1 << n) - 1) : m;
}

static inline __mmask64 low_mask(size_t n)
{
	return ((__mmask64)1 << n) - 1;
}

/*
 * Vectors are aligned, because a load that crosses a cache line counts twice; the
 * first one starts below @p with its lanes masked out. A masked lane is not
 * read: it cannot fault, and aligned vectors share a page with @p anyway.
 */
AVX512 uint16_t csum_avx512(const void *p, size_t len)
{
	size_t shift = (uintptr_t)p & 63, n = len + shift;
	const uint8_t *s = (const uint8_t *)((uintptr_t)p - shift);
	struct acc512 a = { _mm512_setzero_si512(), _mm512_setzero_si512() }, b = a;

	add512(&a, _mm512_maskz_loadu_epi8(head_mask(shift, n), s));
	if (n <= 64)
		return fold512(a, b, shift);
	for (s += 64, n -= 64; n >= 256; s += 256, n -= 256) {
		add512(&a, _mm512_load_si512(s));
		add512(&b, _mm512_load_si512(s + 64));
		add512(&a, _mm512_load_si512(s + 128));
		add512(&b, _mm512_load_si512(s + 192));
	}
	for (; n >= 64; s += 64, n -= 64)
		add512(&a, _mm512_load_si512(s));
	if (n)
		add512(&b, _mm512_maskz_loadu_epi8(low_mask(n), s));
	return fold512(a, b, shift);
}

/*
 * As above, but what is aligned is the destination: a store that crosses a
 * line costs more than a load that does. Not under UBSan, which could check only the
 * pointer arithmetic here: with ASan beside it, clang 14 fails to compile this.
 */
__attribute__((no_sanitize("undefined"))) AVX512 uint16_t
csum_copy_avx512(void *dst, const void *src, size_t len)
{
	size_t shift = (uintptr_t)dst & 63, n = len + shift;
	uint8_t *d = (uint8_t *)((uintptr_t)dst - shift);
	const uint8_t *s = (const uint8_t *)((uintptr_t)src - shift);
	struct acc512 a = { _mm512_setzero_si512(), _mm512_setzero_si512() }, b = a;
	__mmask64 m = head_mask(shift, n);
	__m512i v = _mm512_maskz_loadu_epi8(m, s);

	_mm512_mask_storeu_epi8(d, m, v);
	add512(&a, v);
	if (n <= 64)
		return fold512(a, b, shift);
	for (s += 64, d += 64, n -= 64; n >= 128; s += 128, d += 128, n -= 128) {
		__m512i w = _mm512_loadu_si512(s + 64);

		v = _mm512_loadu_si512(s);
		_mm512_store_si512(d, v);
		_mm512_store_si512(d + 64, w);
		add512(&a, v);
		add512(&b, w);
	}
	if (n >= 64) {
		v = _mm512_loadu_si512(s);
		_mm512_store_si512(d, v);
		add512(&a, v);
		s += 64;
		d += 64;
		n -= 64;
	}
	if (n) {
		m = low_mask(n);
		v = _mm512_maskz_loadu_epi8(m, s);
		_mm512_mask_storeu_epi8(d, m, v);
		add512(&b, v);
	}
	return fold512(a, b, shift);
}

#endif /* __x86_64__ */
