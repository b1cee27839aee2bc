/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bitmap: bit n is bit n % 64 of 64-bit word n / 64.
 *
 * On x86 and other little-endian machines that is also the layout of KVM's dirty bitmap,
 * the vhost log and ghostnicd's DMA log (bit n % 8 of byte n / 8).
 *
 * Sizes are in words. No allocation, no state. Plain functions: the bitmap has one user
 * at a time; *_atomic: any thread may set bits meanwhile. The widest vectors that the CPU
 * has are picked before main().
 */
#ifndef GN_BITMAP_H
#define GN_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BITMAP_BITS 64

static inline size_t bitmap_words(uint64_t bits)
{
	return (bits + BITMAP_BITS - 1) / BITMAP_BITS;
}

static inline bool bitmap_test(const uint64_t *map, uint64_t bit)
{
	return map[bit / BITMAP_BITS] >> (bit % BITMAP_BITS) & 1;
}

static inline void bitmap_set(uint64_t *map, uint64_t bit)
{
	map[bit / BITMAP_BITS] |= 1ULL << (bit % BITMAP_BITS);
}

static inline void bitmap_clear(uint64_t *map, uint64_t bit)
{
	map[bit / BITMAP_BITS] &= ~(1ULL << (bit % BITMAP_BITS));
}

/* Orders the data written before it; pairs with the exchange in bitmap_take_atomic(). */
static inline void bitmap_set_atomic(uint64_t *map, uint64_t bit)
{
	__atomic_fetch_or(&map[bit / BITMAP_BITS], 1ULL << (bit % BITMAP_BITS),
			  __ATOMIC_SEQ_CST);
}

/** bitmap_set_range() - set [@first, @first + @n) */
void bitmap_set_range(uint64_t *map, uint64_t first, uint64_t n);

/** bitmap_count() - bits that are set in @words words */
uint64_t bitmap_count(const uint64_t *map, size_t words);

/** bitmap_next() - first set bit at @from or after it, @bits: none */
uint64_t bitmap_next(const uint64_t *map, uint64_t from, uint64_t bits);

/** bitmap_next_zero() - first clear bit at @from or after it, @bits: none */
uint64_t bitmap_next_zero(const uint64_t *map, uint64_t from, uint64_t bits);

/**
 * bitmap_merge() - @dst |= @src
 * Return: bits that are set in @src
 */
uint64_t bitmap_merge(uint64_t *dst, const uint64_t *src, size_t words);

/**
 * bitmap_take() - @dst |= @src, @src = 0; @src has no other user now
 * Return: bits that were set in @src
 */
uint64_t bitmap_take(uint64_t *dst, uint64_t *src, size_t words);

/**
 * bitmap_take_atomic() - the same while others set bits by bitmap_set_atomic()
 *
 * Each word that is not 0 is exchanged with 0, so a bit is either taken or left for the
 * next time, and the data of a taken bit's writer is visible to the caller.
 */
uint64_t bitmap_take_atomic(uint64_t *dst, uint64_t *src, size_t words);

enum bitmap_how { BITMAP_MERGE, BITMAP_TAKE, BITMAP_TAKE_ATOMIC };

/**
 * bitmap_range() - one of the above for @n bits, from bit @sfirst of @src on, which go to
 * bit @dfirst of @dst and on; bits of @src beside them stay
 * @how:	BITMAP_MERGE leaves @src as it is
 *
 * Fast if both firsts are multiples of 64. Return: bits that were set
 */
uint64_t bitmap_range(uint64_t *dst, uint64_t dfirst, uint64_t *src, uint64_t sfirst,
		      uint64_t n, enum bitmap_how how);

#endif
