/* SPDX-License-Identifier: BSD-2-Clause */
/* dirty_pagemap_impl: what dirty_pagemap.c (start, arm, life) and dirty_pagemap_walk.c (scans,
 * holes) share; the theory is in dirty_pagemap.c. */
#ifndef VMM_DIRTY_PAGEMAP_IMPL_H
#define VMM_DIRTY_PAGEMAP_IMPL_H

#include <pthread.h>
#include <sys/types.h>

#include "dirty.h"
#include "../kernel.h"

#define PAGEMAP_GRAIN_PAGES 64
#define PAGEMAP_GRAIN_BYTES (PAGEMAP_GRAIN_PAGES * RAM_PAGE_SIZE)
#define PAGEMAP_REGIONS	    4096 /* of one call, 96 KiB */
#define PAGEMAP_WALKERS	    4	 /* threads, at most */

struct pagemap_source {
	struct dirty_source src;
	int fd;
	uint64_t va[RAM_MAX_BLOCKS];
	uint64_t *known[RAM_MAX_BLOCKS]; /* grains that were protected; NULL: all are */
	uint64_t *was;			 /* of the block that is walked, before it */
	bool lazy[RAM_MAX_BLOCKS];	 /* arm() protects its grains */
	uint64_t *armed[RAM_MAX_BLOCKS]; /* those, since start() */
	pthread_mutex_t lock;		 /* of arm() */
	blkcnt_t blocks[RAM_MAX_BLOCKS]; /* of the file, when its holes were looked at */
	unsigned int walkers;
	struct page_region region[PAGEMAP_WALKERS][PAGEMAP_REGIONS]; /* each its own */
};

static inline uint64_t pagemap_grains(const struct ram_block *b)
{
	return (b->size + PAGEMAP_GRAIN_BYTES - 1) / PAGEMAP_GRAIN_BYTES;
}

/** pagemap_small_pages() - are the block's those of RAM_PAGE_SIZE? Of a larger one a part
 * cannot be protected */
bool pagemap_small_pages(const struct ram_block *b);

/** pagemap_protect() - all that is there in grains [@first, @end). Return: 0, -errno */
int pagemap_protect(struct pagemap_source *p, unsigned int block, uint64_t first,
		    uint64_t end);

/**
 * pagemap_walk() - all that is known of a block, and what came into its holes
 * @bitmap:	gets what was written; NULL: at the start, when nothing is reported
 *
 * Return: pages that were written, -errno
 */
int64_t pagemap_walk(struct pagemap_source *p, unsigned int block, uint64_t *bitmap);

#endif
