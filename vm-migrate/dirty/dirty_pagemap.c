// SPDX-License-Identifier: BSD-2-Clause
/*
 * dirty_pagemap: PAGEMAP_SCAN over memory whose process asked for asynchronous write
 * protection (userfaultfd). Source: Documentation/admin-guide/mm/pagemap.rst and
 * userfaultfd.rst.
 *
 * One ioctl reports what was written and protects it again, page by page under the lock
 * of its page table, so a page is read after it was protected and no write falls between.
 * PAGE_IS_WRITTEN stands alone in the masks: that is the kernel's fast path, and the one
 * which reports pages that were never there as written once.
 *
 * Protecting a page that is not there takes a page table, and looking at it takes time
 * again and again. So a hole of the memfd is left alone, grain by grain, until something
 * is in it: all that is there then was written since start(). Grains that were protected
 * once are always scanned, since their pages may go away again.
 *
 * A call costs as much as looking at some 200 pages. So holes that are smaller than that
 * are protected with what is around them, and one call does both.
 *
 * Looking into all holes costs more than scanning what is between them. A hasty harvest
 * (dirty.h) leaves it out while the file has as many blocks as it had before: what it
 * misses, because as many went as came, a later one finds.
 *
 * Protecting a page costs the most by far: a change of the page table, which other CPUs
 * have to hear of. When nobody writes any more (dirty.h: last) pages are only looked at,
 * and what came into holes is not learnt.
 *
 * A page that is not protected counts as written, whoever left it so. So a lazy start
 * (dirty.h) does nothing but forget which grains were protected: arm() protects each
 * before its pages are read. The first harvest finds all that was not armed.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../user/lib/bitmap.h"
#include "../../user/lib/clock.h"
#include "dirty.h"
#include "../kernel.h"

#define REGIONS	    4096 /* of one call, 96 KiB */
#define GRAIN_PAGES 64
#define GRAIN_BYTES (GRAIN_PAGES * RAM_PAGE_SIZE)
#define NEAR	    3 /* grains: a smaller hole is taken along */
#define STRIDE	    8 /* the next step through data is so much less than what there was */
#define BATCH	    64 /* grains that arm() does at a time */

struct pagemap_source {
	struct dirty_source src;
	int fd;
	uint64_t va[RAM_MAX_BLOCKS];
	uint64_t *known[RAM_MAX_BLOCKS]; /* grains that were protected; NULL: all are */
	bool lazy[RAM_MAX_BLOCKS];	 /* arm() protects its grains */
	uint64_t *armed[RAM_MAX_BLOCKS]; /* those, since start() */
	pthread_mutex_t lock;		 /* of arm() */
	blkcnt_t blocks[RAM_MAX_BLOCKS]; /* of the file, when its holes were looked at */
	struct page_region region[REGIONS];
};

static struct pagemap_source *of(struct dirty_source *src)
{
	return (struct pagemap_source *)src;
}

/* ENOTTY: no such ioctl. EPERM: the range is not registered as it has to be. */
static int scan(struct pagemap_source *p, struct pm_scan_arg *arg)
{
	int n;

	do
		n = ioctl(p->fd, PAGEMAP_SCAN, arg);
	while (n < 0 && errno == EINTR);
	return n < 0 ? (errno == ENOTTY ? -EOPNOTSUPP : -errno) : n;
}

static uint64_t grains_of(const struct ram_block *b)
{
	return (b->size + GRAIN_BYTES - 1) / GRAIN_BYTES;
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
static int protect(struct pagemap_source *p, unsigned int block, uint64_t first,
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

/* What was written in grains [@first, @end). */
static int64_t report(struct pagemap_source *p, unsigned int block, uint64_t first,
		      uint64_t end, uint64_t *bitmap)
{
	const struct ram_block *b = &p->src.ram->block[block];
	struct pm_scan_arg arg;
	int64_t pages = 0;
	int n;

	request(p, block, first, end, &arg);
	arg.vec = (uintptr_t)p->region;
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
			const struct page_region *r = &p->region[k];
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
	int err = p->src.last ? 0 : protect(p, block, first, last);

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

/* @bitmap: NULL: at the start. Return: pages that were written, -errno */
static int64_t walk(struct pagemap_source *p, unsigned int block, uint64_t *bitmap)
{
	const uint64_t grains = grains_of(&p->src.ram->block[block]);
	uint64_t *known = p->known[block], end, began;
	int64_t pages = 0, n;
	bool look;

	if (!known)
		return bitmap ? report(p, block, 0, grains, bitmap)
			      : protect(p, block, 0, grains);
	look = holes_changed(p, block) || !bitmap;
	for (uint64_t g = 0; g < grains; g = end) {
		n = 0;
		if (bitmap_test(known, g)) {
			end = bitmap_next_zero(known, g, grains);
			n = bitmap ? report(p, block, g, end, bitmap)
				   : protect(p, block, g, end);
		} else {
			end = bitmap_next(known, g, grains);
			if (look) {
				began = clock_ns();
				n = discover(p, block, g, end, bitmap);
				if (!p->src.hasty)
					p->src.thorough_ns += clock_ns() - began;
			}
		}
		if (n < 0)
			return n;
		pages += n;
	}
	return pages;
}

/* Where pages are larger, a part of one cannot be protected. */
static bool small_pages(const struct ram_block *b)
{
	struct stat st;

	return !fstat(b->fd, &st) && st.st_blksize == (blksize_t)RAM_PAGE_SIZE;
}

static int pagemap_start(struct dirty_source *src)
{
	struct pagemap_source *p = of(src);
	int64_t n;

	for (unsigned int i = 0; i < src->ram->nblocks; i++) {
		const struct ram_block *b = &src->ram->block[i];

		p->lazy[i] = src->lazy && p->known[i] && small_pages(b);
		if (p->lazy[i]) {
			memset(p->known[i], 0,
			       bitmap_words(grains_of(b)) * sizeof(uint64_t));
			memset(p->armed[i], 0,
			       bitmap_words(grains_of(b)) * sizeof(uint64_t));
			p->blocks[i] = -1; /* no file has so many: look */
			continue;
		}
		n = walk(p, i, NULL);
		if (n < 0)
			return (int)n;
	}
	return 0;
}

/* Is there nothing in a grain but pages of @has? 1, 0, -errno */
static int only(const struct ram_block *b, uint64_t grain, uint64_t has)
{
	const uint64_t base = grain * GRAIN_PAGES, pages = b->size >> RAM_PAGE_SHIFT;
	const uint64_t n = pages - base < GRAIN_PAGES ? pages - base : GRAIN_PAGES;
	uint64_t at, end;

	for (at = bitmap_next_zero(&has, 0, n); at < n;
	     at = bitmap_next_zero(&has, end, n)) {
		off_t from = (off_t)(b->fd_offset + ((base + at) << RAM_PAGE_SHIFT)),
		      data;

		end = bitmap_next(&has, at, n);
		data = lseek(b->fd, from, SEEK_DATA);
		if (data < 0 && errno != ENXIO)
			return -errno;
		if (data >= 0 && data < from + (off_t)((end - at) << RAM_PAGE_SHIFT))
			return 0;
	}
	return 1;
}

/*
 * Grains [@first, @end), all of which have pages in @round. What is there beside them after
 * they were protected came into a hole: nobody reads it in this round, so its grain counts as
 * one that is not known, for the next harvest to find.
 */
static int arm_run(struct pagemap_source *p, unsigned int block, uint64_t first,
		   uint64_t end, const uint64_t *round)
{
	int n = protect(p, block, first, end);

	bitmap_set_range(p->armed[block], first, end - first);
	for (uint64_t g = first; g < end && n >= 0; g++) {
		n = only(&p->src.ram->block[block], g, round[g - first]);
		if (n > 0)
			bitmap_set(p->known[block], g);
	}
	return n < 0 ? n : 0;
}

/* 1 to BATCH grains, a word of @round each; under the lock. */
static int arm_grains(struct pagemap_source *p, unsigned int block, uint64_t first,
		      uint64_t n, const uint64_t *round)
{
	uint64_t todo[BATCH], end;
	int err = 0;

	assert(n && n <= BATCH);
	/* One that a harvest made known was written since, perhaps beside what is in @round. */
	for (uint64_t i = 0; i < n; i++) {
		bool done = bitmap_test(p->armed[block], first + i) ||
			    bitmap_test(p->known[block], first + i);

		todo[i] = done ? 0 : __atomic_load_n(&round[i], __ATOMIC_RELAXED);
	}
	for (uint64_t i = 0; i < n && !err; i = end + 1) {
		for (end = i; end < n && todo[end];)
			end++;
		if (end > i)
			err = arm_run(p, block, first + i, first + end, todo + i);
	}
	return err;
}

/*
 * Streams take turns in the words of a bitmap, so one protects for all: whoever comes first,
 * and nobody again. A page that another thread has read already was armed before that.
 */
static int pagemap_arm(struct dirty_source *src, uint64_t first, uint64_t n,
		       const uint64_t *round)
{
	struct pagemap_source *p = of(src);
	const struct ram_block *b = ram_block_of(src->ram, first);
	unsigned int block;
	int err = 0;

	if (!b)
		return -EINVAL;
	block = (unsigned int)(b - src->ram->block);
	if (!p->lazy[block] || src->last)
		return 0;
	pthread_mutex_lock(&p->lock);
	for (uint64_t i = 0; i < n / GRAIN_PAGES && !err; i += BATCH) {
		uint64_t some = n / GRAIN_PAGES - i;

		err = arm_grains(p, block, (first - b->first_page) / GRAIN_PAGES + i,
				 some < BATCH ? some : BATCH, round + i);
	}
	pthread_mutex_unlock(&p->lock);
	return err;
}

static int64_t pagemap_harvest(struct dirty_source *src, uint64_t *bitmap)
{
	int64_t pages = 0, n;

	if (!src->hasty)
		src->thorough_ns = 0;
	for (unsigned int i = 0; i < src->ram->nblocks; i++) {
		n = walk(of(src), i, bitmap);
		if (n < 0)
			return n;
		pages += n;
	}
	return pages;
}

/* Pages stay protected, which costs their next writer one fault each. */
static void pagemap_stop(struct dirty_source *src)
{
}

static void free_all(struct pagemap_source *p)
{
	for (unsigned int i = 0; i < RAM_MAX_BLOCKS; i++) {
		free(p->known[i]);
		free(p->armed[i]);
	}
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static void pagemap_destroy(struct dirty_source *src)
{
	close(of(src)->fd);
	free_all(of(src));
}

static const struct dirty_ops pagemap_ops = {
	.name = "pagemap",
	.by = DIRTY_BY_CPU,
	.start = pagemap_start,
	.harvest = pagemap_harvest,
	.arm = pagemap_arm,
	.stop = pagemap_stop,
	.destroy = pagemap_destroy,
};

int dirty_pagemap_create(const struct ram *ram, int pagemap_fd, const uint64_t *va,
			 struct dirty_source **src)
{
	struct pagemap_source *p = calloc(1, sizeof(*p));
	size_t words;
	int err = 0;

	if (!p)
		return -ENOMEM;
	pthread_mutex_init(&p->lock, NULL);
	p->src = (struct dirty_source){ .ops = &pagemap_ops, .ram = ram };
	memcpy(p->va, va, ram->nblocks * sizeof(*va));
	for (unsigned int i = 0; i < ram->nblocks && !err; i++) {
		if (ram->block[i].fd < 0)
			continue;
		words = bitmap_words(grains_of(&ram->block[i])) + 1;
		p->known[i] = calloc(words, sizeof(uint64_t));
		p->armed[i] = calloc(words, sizeof(uint64_t));
		if (!p->known[i] || !p->armed[i])
			err = -ENOMEM;
	}
	p->fd = err ? -1 : fcntl(pagemap_fd, F_DUPFD_CLOEXEC, 0);
	if (!err && p->fd < 0)
		err = -errno;
	if (err) {
		free_all(p);
		return err;
	}
	*src = &p->src;
	return 0;
}

int dirty_pagemap_register(void *va, size_t bytes)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_WP_ASYNC |
					      UFFD_FEATURE_WP_UNPOPULATED |
					      UFFD_FEATURE_WP_HUGETLBFS_SHMEM };
	struct uffdio_register reg = { .range = { .start = (uintptr_t)va, .len = bytes },
				       .mode = UFFDIO_REGISTER_MODE_WP };
	int fd = (int)syscall(SYS_userfaultfd,
			      O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	int err;

	if (fd < 0)
		return errno == ENOSYS ? -EOPNOTSUPP : -errno;
	if (ioctl(fd, UFFDIO_API, &api)) {
		err = errno == EINVAL ? -EOPNOTSUPP : -errno;
		goto close_fd;
	}
	if (ioctl(fd, UFFDIO_REGISTER, &reg)) {
		err = -errno;
		goto close_fd;
	}
	return fd;
close_fd:
	close(fd);
	return err;
}
