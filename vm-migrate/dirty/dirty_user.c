// SPDX-License-Identifier: BSD-2-Clause
/*
 * dirty_user: a bitmap that this process's own devices and loaders set bits in.
 *
 * mark() is called after the write, harvest() takes bits by exchange, so a page is found
 * by the harvest whose exchange comes after its mark. Any thread marks.
 *
 * "on" is read without a barrier: whoever starts a migration and whoever writes guest
 * memory agree on its beginning by other means, for the first round sends all of it.
 */
#include <errno.h>
#include <stdlib.h>

#include "../../user/lib/bitmap.h"
#include "dirty.h"

struct user_source {
	struct dirty_source src;
	bool on;
	uint64_t *map;
};

static struct user_source *of(struct dirty_source *src)
{
	return (struct user_source *)src;
}

static int user_start(struct dirty_source *src)
{
	__atomic_store_n(&of(src)->on, true, __ATOMIC_SEQ_CST);
	return 0;
}

static int64_t user_harvest(struct dirty_source *src, uint64_t *bitmap)
{
	return (int64_t)bitmap_take_atomic(bitmap, of(src)->map, ram_words(src->ram));
}

static void user_stop(struct dirty_source *src)
{
	__atomic_store_n(&of(src)->on, false, __ATOMIC_SEQ_CST);
	/* Who read "on" just before may mark later: one page too many next time. */
	for (size_t i = 0; i < ram_words(src->ram); i++)
		__atomic_store_n(&of(src)->map[i], 0, __ATOMIC_RELAXED);
}

static void user_destroy(struct dirty_source *src)
{
	free(of(src)->map);
	free(src);
}

static const struct dirty_ops user_ops = {
	.name = "user",
	.by = DIRTY_BY_DEVICE,
	.start = user_start,
	.harvest = user_harvest,
	.stop = user_stop,
	.destroy = user_destroy,
};

int dirty_user_create(const struct ram *ram, struct dirty_source **src)
{
	struct user_source *u = calloc(1, sizeof(*u));

	if (!u)
		return -ENOMEM;
	u->src = (struct dirty_source){ .ops = &user_ops, .ram = ram };
	u->map = calloc(ram_words(ram) + 1, sizeof(*u->map));
	if (!u->map) {
		free(u);
		return -ENOMEM;
	}
	*src = &u->src;
	return 0;
}

void dirty_user_mark(struct dirty_source *src, uint64_t gpa, uint64_t len)
{
	uint64_t page, last;

	if (!len || !__atomic_load_n(&of(src)->on, __ATOMIC_RELAXED))
		return;
	last = (gpa + len - 1) >> RAM_PAGE_SHIFT;
	for (uint64_t n = gpa >> RAM_PAGE_SHIFT; n <= last; n++) {
		page = ram_page_of(src->ram, n << RAM_PAGE_SHIFT);
		if (page != RAM_NO_PAGE)
			bitmap_set_atomic(of(src)->map, page);
	}
}
