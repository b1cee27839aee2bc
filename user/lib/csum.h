/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Internet checksum (RFC 1071), with SIMD where the CPU has it.
 *
 * Sums are 16-bit one's complement in memory byte order, as loaded from the
 * packet; RFC 1071 section 2(B): the sum does not depend on byte order as long as
 * all of it uses one. 0 and 0xffff are the same number: compare by csum_equal().
 */
#ifndef GN_CSUM_H
#define GN_CSUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Fold a wide sum to 16 bits. */
static inline uint16_t csum_fold(uint64_t s)
{
	s = (s & 0xffffffff) + (s >> 32);
	s = (s & 0xffffffff) + (s >> 32);
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return (uint16_t)s;
}

static inline uint16_t csum_add(uint16_t a, uint16_t b)
{
	uint32_t s = (uint32_t)a + b;

	return (uint16_t)(s + (s >> 16));
}

/* What a block adds to the sum of a message, @b its own sum, @off where it starts. */
static inline uint16_t csum_at(uint16_t b, uint32_t off)
{
	return off & 1 ? (uint16_t)(b << 8 | b >> 8) : b;
}

static inline uint16_t csum_add_at(uint16_t a, uint16_t b, uint32_t off)
{
	return csum_add(a, csum_at(b, off));
}

static inline bool csum_equal(uint16_t a, uint16_t b)
{
	return a == b || ((a ^ b) == 0xffff && (a == 0 || b == 0));
}

/**
 * csum() - sum of @len bytes at @p (any alignment), not inverted
 *
 * Picks the widest of AVX-512, AVX2 and scalar code once, at load time.
 */
extern uint16_t (*csum)(const void *p, size_t len);

/**
 * csum_copy() - copy @len bytes and return their sum, reading them once
 */
extern uint16_t (*csum_copy)(void *dst, const void *src, size_t len);

/* The variants, for tests and benchmarks: NULL where this CPU lacks them. */
struct csum_impl {
	const char *name;
	uint16_t (*sum)(const void *p, size_t len);
	uint16_t (*copy)(void *dst, const void *src, size_t len);
};

/** csum_impls() - all variants this CPU runs, slowest first; @n: their number */
const struct csum_impl *csum_impls(unsigned int *n);

#endif
