/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * digest: one number for the contents of all RAM, kept up to date page by page.
 *
 * hash(p) is XXH3-64 of page p's bytes, and 0 for a page of zeros. The digest is the sum
 * over all pages of mix(p, hash(p)), modulo 2^64, where mix(p, 0) = 0: a page that is
 * replaced costs one subtraction and one addition, pages may be hashed in any order and
 * by any thread, and holes cost nothing. It finds accidents (lost, torn, swapped pages),
 * not an attacker: that is what TLS is for.
 *
 * The table of hashes costs 8 bytes a page. Setting different pages from different
 * threads is fine.
 */
#ifndef VMM_DIGEST_H
#define VMM_DIGEST_H

#include <stdbool.h>
#include <stdint.h>

#include "ram.h"

#define DIGEST_LEAF 64 /* pages: those of a word of a bitmap, and of one stream */

struct digest {
	uint64_t (*leaf)[DIGEST_LEAF]; /* [pages / DIGEST_LEAF] hashes */
	uint32_t *of;	 /* [pages / DIGEST_LEAF] leaf + 1 of these pages, 0: all zeros */
	uint32_t leaves; /* atomic: given out */
	uint64_t pages;	 /* a multiple of DIGEST_LEAF */
};

/**
 * digest_mix() - what page number @page adds to the digest if its hash is @hash
 *
 * Two rounds of multiply and shift: pages that are swapped change the sum. Whoever
 * replaces a hash may keep the sum by it, instead of digest_sum().
 */
static inline uint64_t digest_mix(uint64_t page, uint64_t hash)
{
	uint64_t v;

	if (!hash)
		return 0;
	v = hash ^ (page + 1) * 0x9e3779b97f4a7c15ULL;
	v = (v ^ v >> 32) * 0xd6e8feb86659fd93ULL;
	v = (v ^ v >> 32) * 0xd6e8feb86659fd93ULL;
	return v ^ v >> 32;
}

/**
 * digest_init() - of memory that is all zeros
 * @pages:	of struct ram
 *
 * Return: 0, -ENOMEM, -EINVAL: not a multiple of DIGEST_LEAF
 */
int digest_init(struct digest *d, uint64_t pages);
void digest_fini(struct digest *d);

/** digest_get() - hash of page number @page, 0: zeros */
static inline uint64_t digest_get(const struct digest *d, uint64_t page)
{
	uint32_t of = d->of[page / DIGEST_LEAF];

	return of ? d->leaf[of - 1][page % DIGEST_LEAF] : 0;
}

/** digest_set() - the hash of page number @page is @hash now. Return: what it was */
uint64_t digest_set(struct digest *d, uint64_t page, uint64_t hash);

/** digest_page() - hash of the 4 KiB at @page, 0 exactly if they are all zeros */
uint64_t digest_page(const void *page);

/** digest_sum() - the digest now, and in @nonzero how many pages are not zero */
uint64_t digest_sum(const struct digest *d, uint64_t *nonzero);

/**
 * digest_compare() - hash @ram again, which nobody writes now, and compare
 * @bad:	[@max] page numbers that differ; NULL: do not list
 * @threads:	to use, 0: one per CPU
 *
 * Holes of memfds are not read. Return: pages that differ, as far as they could be read;
 * -errno: none did, and not all could be
 */
int64_t digest_compare(const struct digest *d, const struct ram *ram, uint64_t *bad,
		       unsigned int max, unsigned int threads);

#endif
