// SPDX-License-Identifier: BSD-2-Clause
/*
 * precopy_holes: what is populated, which is the first round, and pages that a log reports
 * and that were never populated.
 *
 * Where data is in a large memory takes long to find, so the first round begins at once and
 * finds it on its way, ahead of every thread that sends. The logs were started before, so a
 * page that comes behind it is in one.
 *
 * A log may report the latter because it does not know, all of a large and empty memory at once
 * (KVM's with INITIALLY_SET, a log that failed). They are looked up in the memfd, and not
 * read: reading would fill the hole. The look-up comes after the harvest, so a page whose
 * write was harvested is no hole in it. The kernel is asked once for each hole and twice
 * for each run of data, however many words of the bitmap they have.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "../../user/lib/bitmap.h"
#include "../fault.h"
#include "precopy_impl.h"

/* The first page of @b from @page on that is data or (SEEK_HOLE) a hole; its end: none.
 * Memory that cannot be asked is data. */
static uint64_t seek(const struct ram_block *b, uint64_t page, int whence)
{
	off_t base = (off_t)b->fd_offset - (off_t)(b->first_page << RAM_PAGE_SHIFT);
	uint64_t end = b->first_page + (b->size >> RAM_PAGE_SHIFT);
	off_t at;

	if (page >= end)
		return end;
	at = b->fd < 0 ? -1
		       : lseek(b->fd, base + (off_t)(page << RAM_PAGE_SHIFT), whence);
	if (at < 0)
		return whence == SEEK_HOLE || (b->fd >= 0 && errno == ENXIO) ? end : page;
	/* A page of which a part is data is data. */
	at += whence == SEEK_HOLE ? (off_t)RAM_PAGE_SIZE - 1 : 0;
	page = (uint64_t)(at - base) >> RAM_PAGE_SHIFT;
	return page < end ? page : end;
}

/* Bits of word @w that are in pages [@from, @to) */
static uint64_t bits_in(uint64_t w, uint64_t from, uint64_t to)
{
	uint64_t first = w * BITMAP_BITS, mask = UINT64_MAX;

	if (to <= first || from >= first + BITMAP_BITS)
		return 0;
	if (from > first)
		mask &= UINT64_MAX << (from - first);
	if (to < first + BITMAP_BITS)
		mask &= ~(UINT64_MAX << (to - first));
	return mask;
}

static uint64_t drop_holes_of(struct precopy *p, const struct ram_block *b)
{
	uint64_t w = b->first_page / BITMAP_BITS;
	uint64_t words = w + bitmap_words(b->size >> RAM_PAGE_SHIFT);
	/* [hole, data) and [data, end), one of which is empty */
	uint64_t hole = 0, data = 0, end = 0;
	uint64_t dropped = 0;

	for (; w < words; w++) {
		uint64_t odd = p->bitmap[w] & ~p->populated[w];

		while (odd) {
			uint64_t page = w * BITMAP_BITS + (uint64_t)__builtin_ctzll(odd);
			uint64_t holes, filled;

			if (page >= end) {
				hole = page;
				data = end = seek(b, page, SEEK_DATA);
				/* Finding an end looks at every page up to there. */
				if (data == page)
					end = seek(b, page, SEEK_HOLE);
				/* Data that went in between */
				if (end <= page)
					end = page + 1;
			}
			holes = odd & bits_in(w, hole, data);
			filled = odd & bits_in(w, data, end);
			p->bitmap[w] &= ~holes;
			p->populated[w] |= filled;
			dropped += (uint64_t)__builtin_popcountll(holes);
			odd &= ~(holes | filled);
		}
	}
	return dropped;
}

uint64_t precopy_drop_holes(struct precopy *p)
{
	uint64_t dropped = 0;

	for (unsigned int i = 0; i < p->ram->nblocks; i++)
		dropped += drop_holes_of(p, &p->ram->block[i]);
	return dropped;
}

int precopy_find(void *arg, uint64_t w, uint64_t *known)
{
	struct precopy *p = arg;
	int64_t to = 0;

	pthread_mutex_lock(&p->find_lock);
	while (p->found / BITMAP_BITS <= w && p->found < p->ram->pages && to >= 0) {
		uint64_t from = p->found / BITMAP_BITS;

		to = ram_mark_next(p->ram, p->found, p->populated);
		if (to < 0)
			break;
		p->found = (uint64_t)to;
		/* The last word may get more, and is looked at by nobody yet. */
		if (!FAULT(FAULT_ONLY_DIRTY))
			memcpy(p->bitmap + from, p->populated + from,
			       (p->found / BITMAP_BITS - from) * sizeof(uint64_t));
	}
	*known = p->found / BITMAP_BITS;
	pthread_mutex_unlock(&p->find_lock);
	return to < 0 ? (int)to : 0;
}
