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

struct digest {
	uint64_t *hash; /* [pages] */
	uint64_t pages;
};

/** digest_init() - of memory that is all zeros. Return: 0, -ENOMEM */
int digest_init(struct digest *d, uint64_t pages);
void digest_fini(struct digest *d);

/** digest_page() - hash of the 4 KiB at @page, 0 exactly if they are all zeros */
uint64_t digest_page(const void *page);

/** digest_sum() - the digest now, and in @nonzero how many pages are not zero */
uint64_t digest_sum(const struct digest *d, uint64_t *nonzero);

/**
 * digest_compare() - hash @ram again, which nobody writes now, and compare
 * @bad:	[@max] page numbers that differ; NULL: do not list
 * @threads:	to use, 0: one per CPU
 *
 * Holes of memfds are not read. Return: pages that differ, or -errno
 */
int64_t digest_compare(const struct digest *d, const struct ram *ram, uint64_t *bad,
		       unsigned int max, unsigned int threads);

#endif
