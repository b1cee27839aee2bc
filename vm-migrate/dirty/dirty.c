// SPDX-License-Identifier: BSD-2-Clause
/*
 * dirty: the set of a VM's dirty logs; see dirty.h.
 *
 * If it matters who wrote a page, each source reports into the bitmap of its kind, which is
 * merged into the result when all have; else sources write to the result itself.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../../user/lib/bitmap.h"
#include "../../user/lib/clock.h"
#include "../../user/lib/log.h"
#include "dirty.h"

#define MERGE_WORDS 1024 /* 8 KiB of each bitmap */

int dirty_set_create(const struct ram *ram, struct dirty_set **set)
{
	struct dirty_set *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->ram = ram;
	*set = s;
	return 0;
}

void dirty_set_destroy(struct dirty_set *set)
{
	if (!set)
		return;
	dirty_set_stop(set);
	for (unsigned int i = 0; i < set->nsrc; i++)
		set->src[i]->ops->destroy(set->src[i]);
	free(set);
}

int dirty_set_add(struct dirty_set *set, struct dirty_source *src)
{
	int err = set->started ? -EBUSY : set->nsrc == DIRTY_MAX_SOURCES ? -ENOSPC : 0;

	if (err)
		src->ops->destroy(src);
	else
		set->src[set->nsrc++] = src;
	return err;
}

void dirty_set_hasty(struct dirty_set *set, bool hasty)
{
	for (unsigned int i = 0; i < set->nsrc; i++)
		set->src[i]->hasty = hasty;
}

static void set_last(struct dirty_set *set, bool last)
{
	for (unsigned int i = 0; i < set->nsrc; i++)
		set->src[i]->last = last;
}

void dirty_set_lazy(struct dirty_set *set)
{
	set->lazy = true;
}

double dirty_set_share(const struct dirty_set *set)
{
	for (unsigned int i = 0; i < set->nsrc; i++)
		if (set->src[i]->lazy)
			return 0.5;
	return 1;
}

void dirty_set_last(struct dirty_set *set)
{
	set_last(set, true);
}

uint64_t dirty_set_thorough_ns(const struct dirty_set *set)
{
	uint64_t ns = 0;

	for (unsigned int i = 0; i < set->nsrc; i++)
		ns += set->src[i]->thorough_ns;
	return ns;
}

static void stop_first(struct dirty_set *set, unsigned int n)
{
	while (n--)
		set->src[n]->ops->stop(set->src[n]);
}

int dirty_set_start(struct dirty_set *set, const char **failed)
{
	int err = 0;

	if (set->started)
		return -EBUSY;
	dirty_set_hasty(set, false);
	set_last(set, false);
	for (unsigned int i = 0; i < set->nsrc; i++) {
		set->src[i]->lazy = set->lazy && set->src[i]->ops->arm;
		err = set->src[i]->ops->start(set->src[i]);
		if (!err)
			continue;
		if (failed)
			*failed = set->src[i]->ops->name;
		stop_first(set, i);
		break;
	}
	set->lazy = false;
	set->started = !err;
	return err;
}

void dirty_set_stop(struct dirty_set *set)
{
	if (!set->started)
		return;
	stop_first(set, set->nsrc);
	set->started = false;
}

/* The log of @src is lost. */
static void doubt(struct dirty_set *set, struct dirty_source *src, int err,
		  uint64_t *bitmap)
{
	src->in_doubt++;
	log_limited(LOG_LVL_WARN, "%s: dirty log failed (%s): all memory counts as dirty",
		    src->ops->name, strerror(-err));
	ram_mark_all(set->ram, bitmap);
}

int dirty_set_harvest(struct dirty_set *set, uint64_t *bitmap, uint64_t **by,
		      struct dirty_found *found)
{
	size_t words = ram_words(set->ram);
	uint64_t all = set->ram->bytes >> RAM_PAGE_SHIFT;
	unsigned int kinds = 0;

	memset(found, 0, sizeof(*found));
	for (unsigned int i = 0; i < set->nsrc; i++) {
		struct dirty_source *src = set->src[i];
		uint64_t *mine = by && by[src->ops->by] ? by[src->ops->by] : bitmap;
		uint64_t began = clock_ns();
		int64_t n = src->ops->harvest(src, mine);

		/* What it reported until it failed is no harm. */
		if (n < 0) {
			doubt(set, src, (int)n, mine);
			n = (int64_t)all;
		}
		src->harvests++;
		src->pages += (uint64_t)n;
		src->harvest_ns += clock_ns() - began;
		found->by[src->ops->by] += (uint64_t)n;
		kinds |= 1U << src->ops->by;
	}
	/* Merged and counted while it is in the cache */
	for (size_t at = 0, n; at < words; at += n) {
		n = words - at < MERGE_WORDS ? words - at : MERGE_WORDS;
		for (unsigned int i = 0; by && i < DIRTY_BY_COUNT; i++)
			if (by[i] && kinds >> i & 1)
				bitmap_merge(bitmap + at, by[i] + at, n);
		found->merged += bitmap_count(bitmap + at, n);
	}
	return 0;
}

int dirty_set_clear(struct dirty_set *set, uint64_t first, uint64_t n,
		    const uint64_t *taken)
{
	int err = 0, e;

	for (unsigned int i = 0; i < set->nsrc; i++) {
		struct dirty_source *src = set->src[i];

		e = src->ops->clear ? src->ops->clear(src, first, n, taken) : 0;
		if (!err)
			err = e;
	}
	return err;
}

int dirty_set_arm(struct dirty_set *set, uint64_t first, uint64_t n,
		  const uint64_t *round)
{
	int err = 0;

	for (unsigned int i = 0; i < set->nsrc && !err; i++) {
		struct dirty_source *src = set->src[i];

		if (src->lazy)
			err = src->ops->arm(src, first, n, round);
	}
	return err;
}
