// SPDX-License-Identifier: BSD-2-Clause
/*
 * dirty_pagemap_walk: what was written, and what came into holes; see dirty_pagemap.c.
 *
 * A call of PAGEMAP_SCAN or lseek() costs the same for a small piece as for a large one, so
 * over memory in thousands of pieces a walk takes long, and a guest may stand still
 * meanwhile. So of a large block several threads scan parts: whole words of the bitmap, and
 * each thread has its own regions. The thread that was called looks into the holes first,
 * alone, since the kernel lets only one at a time ask for those of a memfd, while scans wait
 * for one another as little as page faults do. Which grains are known all take from a copy:
 * what is found in holes changes the original. Where the calls are few and protect, one thread
 * does it: a change of the page table waits for every CPU that uses the mapping, and if that
 * is this process's own, a second thread makes one more.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../user/lib/bitmap.h"
#include "../../user/lib/clock.h"
#include "dirty_pagemap_impl.h"

#define REGIONS	    PAGEMAP_REGIONS
#define GRAIN_PAGES PAGEMAP_GRAIN_PAGES
#define GRAIN_BYTES PAGEMAP_GRAIN_BYTES
#define NEAR	    3 /* grains: a smaller hole is taken along */
#define STRIDE	    8 /* the next step through data is so much less than what there was */
#define WORD	    64	 /* grains: a word of the bitmap of those that are known */
#define ALONE	    2048 /* grains, 512 MiB: less is not worth a thread */
#define RUNS	    256	 /* of fewer that are protected, too */
#define PARTS	    16	 /* of a block, so that no thread waits long for the last one */

/* ENOTTY: no such ioctl. EPERM: the range is not registered as it has to be. */
static int scan(struct pagemap_source *p, struct pm_scan_arg *arg)
{
	int n;

	do
		n = ioctl(p->fd, PAGEMAP_SCAN, arg);
	while (n < 0 && errno == EINTR);
	return n < 0 ? (errno == ENOTTY ? -EOPNOTSUPP : -errno) : n;
}

/* Grains [@first, @end) of a block. */
static void request(const struct pagemap_source *p, unsigned int block, uint64_t first,
		    uint64_t end, struct pm_scan_arg *arg)
{
	uint64_t size = p->src.ram->block[block].size, to = end * GRAIN_BYTES;

	*arg = (struct pm_scan_arg){
		.size = sizeof(*arg),
		.flags = PM_SCAN_CHECK_WPASYNC | (p->src.last ? 0 : PM_SCAN_WP_MATCHING),
		.start = p->va[block] + first * GRAIN_BYTES,
		.end = p->va[block] + (to < size ? to : size),
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};
}

/* Protects all that is there, and wants no report. */
int pagemap_protect(struct pagemap_source *p, unsigned int block, uint64_t first,
		    uint64_t end)
{
	struct pm_scan_arg arg;
	int n;

	request(p, block, first, end, &arg);
	for (; arg.start < arg.end; arg.start = arg.walk_end) {
		n = scan(p, &arg);
		if (n < 0)
			return n;
	}
	return 0;
}

/* What was written in grains [@first, @end). @region: [REGIONS] */
static int64_t report(struct pagemap_source *p, unsigned int block, uint64_t first,
		      uint64_t end, uint64_t *bitmap, struct page_region *region)
{
	const struct ram_block *b = &p->src.ram->block[block];
	struct pm_scan_arg arg;
	int64_t pages = 0;
	int n;

	request(p, block, first, end, &arg);
	arg.vec = (uintptr_t)region;
	/* The kernel allocates as much as it may need. */
	arg.vec_len = (end - first) * (GRAIN_PAGES / 2) + 1;
	if (arg.vec_len > REGIONS)
		arg.vec_len = REGIONS;
	/* A call that filled the vector ends before the range does. */
	for (; arg.start < arg.end; arg.start = arg.walk_end) {
		n = scan(p, &arg);
		if (n < 0)
			return n;
		for (int k = 0; k < n; k++) {
			const struct page_region *r = &region[k];
			uint64_t at = (r->start - p->va[block]) >> RAM_PAGE_SHIFT;
			uint64_t many = (r->end - r->start) >> RAM_PAGE_SHIFT;

			bitmap_set_range(bitmap, b->first_page + at, many);
			pages += (int64_t)many;
		}
	}
	return pages;
}

/* The first grain with data in [@from, @to), @to: none. -errno */
static int64_t next_data(const struct ram_block *b, uint64_t from, uint64_t to)
{
	off_t at = lseek(b->fd, (off_t)(b->fd_offset + from * GRAIN_BYTES), SEEK_DATA);
	uint64_t grain;

	if (at < 0)
		return errno == ENXIO ? (int64_t)to : -errno;
	grain = ((uint64_t)at - b->fd_offset) / GRAIN_BYTES;
	return (int64_t)(grain < to ? grain : to);
}

/*
 * The end of the data that begins at grain @from, at most @to, or a later one: the longer
 * it goes on, the larger are the steps, over what may have holes.
 * @next:	where data is again, @to: nowhere
 */
static int64_t end_of_data(const struct ram_block *b, uint64_t from, uint64_t to,
			   uint64_t *next)
{
	uint64_t end = from + 1, step = 1;

	*next = to;
	while (end < to) {
		uint64_t at = end + step - 1 < to ? end + step - 1 : to - 1;
		int64_t found = next_data(b, at, to);

		if (found < 0)
			return found;
		if ((uint64_t)found > at && at > end) {
			step = 1;
			continue;
		}
		if ((uint64_t)found > at) {
			*next = (uint64_t)found;
			break;
		}
		end = at + 1;
		step = (end - from) / STRIDE + 1;
	}
	return (int64_t)end;
}

/* Set the bits of what is in grains [@first, @last). Return: pages, -errno */
static int64_t mark_data(const struct ram_block *b, uint64_t first, uint64_t last,
			 uint64_t *bitmap)
{
	uint64_t limit = last * GRAIN_BYTES < b->size ? last * GRAIN_BYTES : b->size;
	off_t at = (off_t)(b->fd_offset + first * GRAIN_BYTES), to;
	off_t end = (off_t)(b->fd_offset + limit);
	int64_t pages = 0;

	while (at < end) {
		uint64_t page, n;

		at = lseek(b->fd, at, SEEK_DATA);
		if (at < 0 && errno != ENXIO)
			return -errno;
		if (at < 0 || at >= end)
			break;
		to = lseek(b->fd, at, SEEK_HOLE);
		if (to < 0)
			return -errno;
		if (to > end)
			to = end;
		page = ((uint64_t)at - b->fd_offset) >> RAM_PAGE_SHIFT;
		n = (uint64_t)(to - at) >> RAM_PAGE_SHIFT;
		bitmap_set_range(bitmap, b->first_page + page, n);
		pages += (int64_t)n;
		at = to;
	}
	return pages;
}

/*
 * Grains [@first, @last) were a hole when they were last looked at. They are protected
 * first and their data is found after: a page that comes in between is reported now or
 * the next time. @bitmap: NULL: at the start, when nothing is reported
 */
static int64_t learn(struct pagemap_source *p, unsigned int block, uint64_t first,
		     uint64_t last, uint64_t *bitmap)
{
	int err = p->src.last ? 0 : pagemap_protect(p, block, first, last);

	if (err)
		return err;
	if (!p->src.last)
		bitmap_set_range(p->known[block], first, last - first);
	return bitmap ? mark_data(&p->src.ram->block[block], first, last, bitmap) : 0;
}

/* What came into the hole of grains [@from, @to). Return: pages reported, -errno */
static int64_t discover(struct pagemap_source *p, unsigned int block, uint64_t from,
			uint64_t to, uint64_t *bitmap)
{
	const struct ram_block *b = &p->src.ram->block[block];
	int64_t first = next_data(b, from, to), end, pages = 0, n;
	uint64_t last = from, next;

	for (; first >= 0 && (uint64_t)first < to; first = (int64_t)next) {
		end = end_of_data(b, (uint64_t)first, to, &next);
		if (end < 0)
			return end;
		if ((uint64_t)first - last <= NEAR)
			first = (int64_t)last;
		if (to - (uint64_t)end <= NEAR)
			end = (int64_t)to;
		n = learn(p, block, (uint64_t)first, (uint64_t)end, bitmap);
		if (n < 0)
			return n;
		pages += n;
		last = (uint64_t)end;
		if (next < last)
			break;
	}
	return first < 0 ? first : pages;
}

/* May something have come into the holes of a block? */
static bool holes_changed(struct pagemap_source *p, unsigned int block)
{
	struct stat st;

	if (fstat(p->src.ram->block[block].fd, &st))
		return true;
	if (p->src.hasty && st.st_blocks == p->blocks[block])
		return false;
	/* What a last harvest finds there it finds again. */
	if (!p->src.last)
		p->blocks[block] = st.st_blocks;
	return true;
}

/* ---- a walk -------------------------------------------------------------------------- */

struct walk {
	struct pagemap_source *p;
	unsigned int block;
	uint64_t *bitmap;
	const uint64_t *known; /* before it; NULL: all are */
	uint64_t grains, step;
	/* Atomic */
	uint64_t next; /* grain */
	uint64_t pages;
	int err;
};

static void add(struct walk *k, int64_t n)
{
	if (n < 0)
		__atomic_store_n(&k->err, (int)n, __ATOMIC_RELAXED);
	else
		__atomic_fetch_add(&k->pages, (uint64_t)n, __ATOMIC_RELAXED);
}

static bool failed(const struct walk *k)
{
	return __atomic_load_n(&k->err, __ATOMIC_RELAXED);
}

/* What is known in grains [@g, @last) */
static void scan_part(struct walk *k, uint64_t g, uint64_t last,
		      struct page_region *region)
{
	uint64_t end;

	for (; g < last && !failed(k); g = end) {
		end = last;
		if (k->known) {
			g = bitmap_next(k->known, g, last);
			end = bitmap_next_zero(k->known, g, last);
		}
		if (g < last)
			add(k, k->bitmap
				       ? report(k->p, k->block, g, end, k->bitmap, region)
				       : pagemap_protect(k->p, k->block, g, end));
	}
}

/* Parts that no other thread has taken */
static void scan_parts(struct walk *k, struct page_region *region)
{
	uint64_t g;

	while ((g = __atomic_fetch_add(&k->next, k->step, __ATOMIC_RELAXED)) < k->grains)
		scan_part(k, g, g + k->step < k->grains ? g + k->step : k->grains,
			  region);
}

/* Return: nanoseconds */
static uint64_t look_into_holes(struct walk *k)
{
	uint64_t end, began = clock_ns();

	for (uint64_t g = 0; !failed(k); g = end) {
		g = bitmap_next_zero(k->known, g, k->grains);
		if (g >= k->grains)
			break;
		end = bitmap_next(k->known, g, k->grains);
		add(k, discover(k->p, k->block, g, end, k->bitmap));
	}
	return clock_ns() - began;
}

/* Is what is known in many runs? */
static bool scattered(const struct walk *k)
{
	unsigned int runs = 0;

	for (uint64_t g = 0; k->known && runs < RUNS; runs++) {
		g = bitmap_next(k->known, g, k->grains);
		if (g >= k->grains)
			break;
		g = bitmap_next_zero(k->known, g, k->grains);
	}
	return runs == RUNS;
}

struct walker {
	struct walk *walk;
	struct page_region *region;
};

static void *walker_main(void *arg)
{
	const struct walker *w = arg;

	scan_parts(w->walk, w->region);
	return NULL;
}

int64_t pagemap_walk(struct pagemap_source *p, unsigned int block, uint64_t *bitmap)
{
	const struct ram_block *b = &p->src.ram->block[block];
	struct walk k = { .p = p, .block = block, .bitmap = bitmap };
	struct walker walker[PAGEMAP_WALKERS];
	pthread_t thread[PAGEMAP_WALKERS];
	unsigned int n = 0;
	uint64_t ns = 0;
	bool alone;

	k.grains = pagemap_grains(b);
	if (p->known[block]) {
		memcpy(p->was, p->known[block], bitmap_words(k.grains) * sizeof(*p->was));
		k.known = p->was;
	}
	alone = k.grains < ALONE || !pagemap_small_pages(b) ||
		(!p->src.last && !scattered(&k));
	k.step = alone ? k.grains : (k.grains / PARTS / WORD + 1) * WORD;
	/* This thread is one of them; fewer do as well. */
	while (!alone && n + 1 < p->walkers) {
		walker[n] = (struct walker){ &k, p->region[n + 1] };
		if (pthread_create(&thread[n], NULL, walker_main, &walker[n]))
			break;
		n++;
	}
	if (k.known && (holes_changed(p, block) || !bitmap))
		ns = look_into_holes(&k);
	scan_parts(&k, p->region[0]);
	/* Others scan meanwhile what all of them had to. */
	if (!p->src.hasty)
		p->src.thorough_ns += ns / (n + 1);
	while (n)
		pthread_join(thread[--n], NULL);
	return k.err ? k.err : (int64_t)k.pages;
}

bool pagemap_small_pages(const struct ram_block *b)
{
	struct stat st;

	return !fstat(b->fd, &st) && st.st_blksize == (blksize_t)RAM_PAGE_SIZE;
}
