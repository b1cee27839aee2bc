// SPDX-License-Identifier: BSD-2-Clause
/* window_memory: what the memfd of a window has, and may have. Contract in window.h; agent's
 * thread. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "reserve.h"
#include "window_int.h"
#include "../../lib/log.h"

#ifndef MFD_HUGE_2MB /* of linux/memfd.h, which does not go with sys/mman.h */
#define MFD_HUGE_2MB (21u << 26)
#endif
#define HUGETLBFS 0x958458f6l

int window_memfd_create(const char *name, uint64_t size, unsigned int shift)
{
	unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd, err;

	if (shift == GM_HUGE_SHIFT)
		flags |= MFD_HUGETLB | MFD_HUGE_2MB;
	fd = memfd_create(name, flags);
	if (fd < 0)
		return -errno;
	if (!ftruncate(fd, (off_t)size))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

/* st_blksize is what a file is best read in: of shmem, too, it may be 2 MiB. */
int window_memfd_shift(int memfd)
{
	unsigned int shift = GM_PAGE_SHIFT;
	struct statfs fs;

	if (fstatfs(memfd, &fs))
		return -errno;
	if ((unsigned long)fs.f_type == HUGETLBFS)
		shift = gm_page_shift((uint64_t)fs.f_bsize);
	return shift ? (int)shift : -EINVAL;
}

/* A shared mapping reserves what it may touch, and the memfd keeps it when that goes. */
static int set_aside(const struct window *w, uint64_t page, uint64_t n)
{
	void *p = mmap(NULL, n << w->shift, PROT_READ | PROT_WRITE, MAP_SHARED, w->memfd,
		       (off_t)(page << w->shift));

	if (p == MAP_FAILED)
		return -ENOBUFS;
	munmap(p, n << w->shift);
	return 0;
}

/* A huge page that nothing is in, for all windows: what another program takes in the moment
 * in which a page of ours is neither in use nor reserved, it makes good for. */
static struct {
	void *page;	      /* NULL: there was none left, or it is in use by now */
	unsigned int windows; /* that are backed */
} spare;

static void spare_take(void)
{
	void *p;

	if (spare.page || !spare.windows)
		return;
	p = mmap(NULL, GM_HUGE_SIZE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | (int)MFD_HUGE_2MB, -1, 0);
	spare.page = p == MAP_FAILED ? NULL : p;
}

static bool spare_give(void)
{
	if (!spare.page)
		return false;
	munmap(spare.page, GM_HUGE_SIZE);
	spare.page = NULL;
	return true;
}

void window_unback(struct window *w)
{
	if (w->backed && !--spare.windows)
		spare_give();
	w->backed = false;
}

int window_back(struct window *w)
{
	int err;

	if (w->shift == GM_PAGE_SHIFT || w->backed)
		return 0;
	err = set_aside(w, 0, window_pages(w));
	if (err) {
		log_limited(
			LOG_LVL_ERROR,
			"%llu huge pages of 2 MiB are needed, and fewer are free: see "
			"vm.nr_hugepages",
			(unsigned long long)window_pages(w));
		return err;
	}
	w->backed = true;
	spare.windows++;
	spare_take();
	return 0;
}

int window_room(const struct window *w, uint64_t page, uint64_t n)
{
	if (w->shift == GM_PAGE_SHIFT || (w->backed && !w->short_of))
		return 0;
	return set_aside(w, page, n);
}

const uint8_t *window_bytes(const struct window *w, uint64_t page)
{
	static uint8_t zeros[GM_HUGE_SIZE]; /* not const: in no file */

	return window_room(w, page, 1) ? zeros : window_page(w, page);
}

bool window_stage(struct window *w)
{
	bool any = false;

	for (int i = 0; i < WINDOW_CLIENTS; i++) {
		if (w->clients[i].uffd < 0)
			continue;
		if (w->clients[i].lacks & WINDOW_NO_MINOR)
			return false;
		any = true;
	}
	if (any && !w->staged) {
		w->staged = true;
		w->reserved = reserve_first(w->alias, w->size);
		w->ready_from = 0;
		w->ready_to = w->reserved >> w->shift;
	}
	return any;
}

void window_unstage(struct window *w)
{
	reserve_end(w->alias, w->reserved);
	w->reserved = w->ready_to = 0;
	w->staged = false;
}

void window_reserve(struct window *w, uint64_t page, uint64_t n)
{
	uint64_t pages = window_pages(w);

	if (page >= pages || !window_stage(w))
		return;
	if (n > pages - page)
		n = pages - page;
	/* To look at pages that are ready costs a seventh of what it takes to fill them. */
	if (page >= w->ready_from && page < w->ready_to) {
		if (w->ready_to - page >= n)
			return;
		n -= w->ready_to - page;
		page = w->ready_to;
	} else {
		w->ready_from = page;
	}
	w->ready_to = page + n;
	reserve_ahead(w->alias, window_page(w, page), n << w->shift);
}

/* Is it in the memfd? hugetlb does not say; but of what the alias has not touched nothing
 * is there, unless it was there before. */
static bool there(const struct window *w, uint64_t page)
{
	uint8_t *at = window_page(w, page);
	unsigned char core = 0;

	if (w->inherited && window_room(w, page, 1))
		return false;
	if (w->inherited)
		(void)*(volatile uint8_t *)at;
	return !mincore(at, GM_PAGE_SIZE, &core) && core & 1;
}

static bool huge_data(const struct window *w, uint64_t *page, uint64_t *n)
{
	uint64_t end = window_pages(w), to;

	while (*page < end && !there(w, *page))
		++*page;
	for (to = *page; to < end && there(w, to); to++)
		;
	*n = to - *page;
	return *n > 0;
}

bool window_data(const struct window *w, uint64_t *page, uint64_t *n)
{
	off_t from, to;

	if (w->shift != GM_PAGE_SHIFT)
		return huge_data(w, page, n);
	if (*page >= window_pages(w))
		return false;
	from = lseek(w->memfd, (off_t)(*page << GM_PAGE_SHIFT), SEEK_DATA);
	if (from < 0 || (uint64_t)from >= w->size)
		return false;
	to = lseek(w->memfd, from, SEEK_HOLE);
	if (to < 0 || (uint64_t)to > w->size)
		to = (off_t)w->size;
	*page = (uint64_t)from >> GM_PAGE_SHIFT;
	*n = (((uint64_t)to + GM_PAGE_SIZE - 1) >> GM_PAGE_SHIFT) - *page;
	return *n > 0;
}

/* The larger part of what was ready stays. */
static void unready(struct window *w, uint64_t page, uint64_t n)
{
	if (page >= w->ready_to || page + n <= w->ready_from)
		return;
	if (page <= w->ready_from || page - w->ready_from < w->ready_to - page)
		w->ready_from = page + n < w->ready_to ? page + n : w->ready_to;
	else
		w->ready_to = page;
}

static int punch(const struct window *w, uint64_t page, uint64_t n)
{
	return fallocate(w->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 (off_t)(page << w->shift), (off_t)(n << w->shift))
		       ? -errno
		       : 0;
}

/* One at a time, so that no more than one can be taken in between. */
static int punch_reserved(struct window *w, uint64_t page)
{
	int err = punch(w, page, 1);

	if (err || !set_aside(w, page, 1))
		return err;
	if (spare_give() && !set_aside(w, page, 1))
		return 0;
	log_limited(LOG_LVL_WARN, "huge pages of 2 MiB are short: somebody has taken "
				  "some that were in use here: see vm.nr_hugepages");
	w->short_of = true;
	return 0;
}

int window_drop(struct window *w, uint64_t page, uint64_t n)
{
	int err = 0;

	unready(w, page, n);
	if (!w->backed)
		return punch(w, page, n);
	for (uint64_t i = 0; i < n && !err; i++)
		err = punch_reserved(w, page + i);
	if (w->short_of && !set_aside(w, 0, window_pages(w))) {
		w->short_of = false;
		window_renew(w, 0, window_pages(w));
	}
	if (!w->short_of)
		spare_take();
	return err;
}

/* Read past any mapping: of a place that has no page, none is made. */
static bool all_zero(const struct window *w, uint64_t page)
{
	static uint8_t bytes[64 << 10], zeros[sizeof(bytes)]; /* not const: in no file */

	for (uint64_t at = 0; at < GM_HUGE_SIZE; at += sizeof(bytes))
		if (pread(w->memfd, bytes, sizeof(bytes),
			  (off_t)((page << w->shift) + at)) != sizeof(bytes) ||
		    memcmp(bytes, zeros, sizeof(bytes)))
			return false;
	return true;
}

void window_trim(struct window *w)
{
	if (w->shift == GM_PAGE_SHIFT || !w->inherited)
		return;
	for (uint64_t i = 0; i < window_pages(w); i++) {
		/* No store comes between the look and what follows it. */
		if (window_protect(w, i, 1))
			return;
		if (all_zero(w, i))
			window_drop(w, i, 1);
		else if (!window_room(w, i, 1))
			(void)*(volatile uint8_t *)window_page(w, i);
	}
	w->inherited = false;
}
