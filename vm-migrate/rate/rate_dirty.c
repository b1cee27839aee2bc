// SPDX-License-Identifier: BSD-2-Clause
/* rate_dirty: the rate of memory that a dirty set watches. See rate.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../../user/lib/bitmap.h"
#include "../dirty/dirty.h"
#include "rate.h"

struct dirty_rate {
	struct rate_source src;
	struct dirty_set *set;
};

/* Logs with manual protect count a page again only after it was cleared. */
static int clear(struct dirty_set *set, const uint64_t *bitmap)
{
	int err = 0;

	for (unsigned int i = 0; i < set->ram->nblocks && !err; i++) {
		const struct ram_block *b = &set->ram->block[i];
		uint64_t pages = (b->size >> RAM_PAGE_SHIFT) + 63;

		err = dirty_set_clear(set, b->first_page, pages & ~63ULL,
				      bitmap + b->first_page / 64);
	}
	return err;
}

static int dirty_rate_harvest(struct rate_source *s, uint64_t *bitmap, uint64_t by[2])
{
	struct dirty_set *set = ((struct dirty_rate *)s)->set;
	struct dirty_found found;

	dirty_set_harvest(set, bitmap, NULL, &found);
	for (unsigned int i = 0; i < set->nsrc; i++)
		if (set->src[i]->in_doubt)
			return -EIO; /* a log failed: the numbers would be its failure's
				      */
	by[0] = found.by[DIRTY_BY_CPU];
	by[1] = found.by[DIRTY_BY_DEVICE];
	return clear(set, bitmap);
}

static void dirty_rate_destroy(struct rate_source *s)
{
	free(s);
}

int rate_dirty_create(struct dirty_set *set, struct rate_source **out)
{
	static const struct rate_source_ops ops = { dirty_rate_harvest,
						    dirty_rate_destroy };
	struct dirty_rate *d = calloc(1, sizeof(*d));
	uint64_t *map = calloc(ram_words(set->ram) + 1, sizeof(*map));
	int64_t pages = map && d ? ram_mark_populated(set->ram, map) : -ENOMEM;

	free(map);
	if (pages < 0) {
		free(d);
		return (int)pages;
	}
	d->set = set;
	d->src.ops = &ops;
	d->src.bits = set->ram->pages;
	d->src.bit_bytes = RAM_PAGE_SIZE;
	d->src.ram_bytes = (double)pages * RAM_PAGE_SIZE;
	for (unsigned int i = 0; i < set->nsrc; i++) {
		size_t at = strlen(d->src.method);

		if (set->src[i]->ops->by == DIRTY_BY_DEVICE)
			d->src.by_source = true;
		if (at + strlen(set->src[i]->ops->name) + 3 < sizeof(d->src.method) &&
		    !strstr(d->src.method, set->src[i]->ops->name)) {
			if (at)
				strcat(d->src.method, ", ");
			strcat(d->src.method, set->src[i]->ops->name);
		}
	}
	*out = &d->src;
	return 0;
}
