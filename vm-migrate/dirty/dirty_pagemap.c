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
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../user/lib/bitmap.h"
#include "dirty_pagemap_impl.h"

#define GRAIN_PAGES PAGEMAP_GRAIN_PAGES
#define BATCH	    64 /* grains that arm() does at a time */

static struct pagemap_source *of(struct dirty_source *src)
{
	return (struct pagemap_source *)src;
}

static int pagemap_start(struct dirty_source *src)
{
	struct pagemap_source *p = of(src);
	int64_t n;

	for (unsigned int i = 0; i < src->ram->nblocks; i++) {
		const struct ram_block *b = &src->ram->block[i];

		p->lazy[i] = src->lazy && p->known[i] && pagemap_small_pages(b);
		if (p->lazy[i]) {
			memset(p->known[i], 0,
			       bitmap_words(pagemap_grains(b)) * sizeof(uint64_t));
			memset(p->armed[i], 0,
			       bitmap_words(pagemap_grains(b)) * sizeof(uint64_t));
			p->blocks[i] = -1; /* no file has so many: look */
			continue;
		}
		n = pagemap_walk(p, i, NULL);
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
	int n = pagemap_protect(p, block, first, end);

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
		n = pagemap_walk(of(src), i, bitmap);
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
	free(p->was);
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

/* One for each CPU, as far as it is known and they are of use. */
static unsigned int walkers(void)
{
	cpu_set_t cpus;
	int n = sched_getaffinity(0, sizeof(cpus), &cpus) ? 1 : CPU_COUNT(&cpus);

	return n < PAGEMAP_WALKERS ? (unsigned int)n : PAGEMAP_WALKERS;
}

int dirty_pagemap_create(const struct ram *ram, int pagemap_fd, const uint64_t *va,
			 struct dirty_source **src)
{
	struct pagemap_source *p = calloc(1, sizeof(*p));
	size_t words, most = 1;
	int err = 0;

	if (!p)
		return -ENOMEM;
	pthread_mutex_init(&p->lock, NULL);
	p->src = (struct dirty_source){ .ops = &pagemap_ops, .ram = ram };
	p->walkers = walkers();
	memcpy(p->va, va, ram->nblocks * sizeof(*va));
	for (unsigned int i = 0; i < ram->nblocks && !err; i++) {
		if (ram->block[i].fd < 0)
			continue;
		words = bitmap_words(pagemap_grains(&ram->block[i])) + 1;
		p->known[i] = calloc(words, sizeof(uint64_t));
		p->armed[i] = calloc(words, sizeof(uint64_t));
		if (!p->known[i] || !p->armed[i])
			err = -ENOMEM;
		most = words > most ? words : most;
	}
	p->was = calloc(most, sizeof(uint64_t));
	if (!p->was)
		err = -ENOMEM;
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
