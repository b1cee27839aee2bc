/* SPDX-License-Identifier: BSD-2-Clause */
/* The variants of bitmap, for bitmap.c, tests and benchmarks; not part of its interface.
 */
#ifndef GN_BITMAP_IMPL_H
#define GN_BITMAP_IMPL_H

#include <stddef.h>
#include <stdint.h>

struct bitmap_impl {
	const char *name;
	uint64_t (*count)(const uint64_t *map, size_t words);
	uint64_t (*merge)(uint64_t *dst, const uint64_t *src, size_t words);
	uint64_t (*take)(uint64_t *dst, uint64_t *src, size_t words);
	uint64_t (*take_atomic)(uint64_t *dst, uint64_t *src, size_t words);
	/* first word that is not @fill, @words: none */
	size_t (*skip)(const uint64_t *map, size_t words, uint64_t fill);
};

/** bitmap_impls() - variants this CPU can run, worst first; set before main() */
const struct bitmap_impl *bitmap_impls(unsigned int *n);

/** bitmap_choose() - make impls[@i] the one that bitmap.h calls; no thread uses it now */
void bitmap_choose(unsigned int i);

extern const struct bitmap_impl bitmap_avx2, bitmap_avx512;

#endif
