// SPDX-License-Identifier: BSD-2-Clause
/*
 * rate_scan: the two ways in which the kernel itself says what a process wrote.
 *
 * Both take the log away from whoever else reads it: do not use them on a process that
 * is being migrated or dumped by something that does.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../user/lib/bitmap.h"
#include "../../user/lib/clock.h"
#include "../dirty/dirty.h"
#include "rate_pid.h"

/* ---- PAGEMAP_SCAN of what the process registered itself
 * --------------------------------- */

struct scan_source {
	struct rate_source src;
	struct pid_areas areas;
	struct ram ram;
	struct dirty_set *set;
};

static int scan_harvest(struct rate_source *s, uint64_t *bitmap, uint64_t by[2])
{
	struct scan_source *p = (struct scan_source *)s;
	struct dirty_found found;

	dirty_set_harvest(p->set, bitmap, NULL, &found);
	if (p->set->src[0]->in_doubt)
		return -ESRCH; /* unmapped, or no longer registered */
	by[0] = found.by[DIRTY_BY_CPU];
	return 0;
}

static void scan_destroy(struct rate_source *s)
{
	struct scan_source *p = (struct scan_source *)s;

	dirty_set_destroy(p->set);
	ram_fini(&p->ram);
	pid_areas_fini(&p->areas);
	free(p);
}

static const struct rate_source_ops scan_ops = { scan_harvest, scan_destroy };

/* Page numbers come from addresses there; nothing is read through them. */
static int add_watched(struct scan_source *p, uint64_t *va)
{
	for (unsigned int i = 0; i < p->areas.n; i++) {
		const struct qemu_map *m = &p->areas.area[i].map;
		int err;

		if (!p->areas.area[i].watched)
			continue;
		if (p->ram.nblocks == RAM_MAX_BLOCKS) {
			snprintf(p->src.note, sizeof(p->src.note),
				 "only the first %d registered mappings were watched",
				 RAM_MAX_BLOCKS);
			break;
		}
		va[p->ram.nblocks] = m->start;
		err = ram_adopt(&p->ram, m->start, m->end - m->start,
				(void *)(uintptr_t)m->start, -1,
				0); // NOLINT(performance-no-int-to-ptr)
		if (err)
			return err;
	}
	return p->ram.nblocks ? 0 : -EOPNOTSUPP;
}

static int64_t watched_pages(const struct pid_areas *a)
{
	struct pid_areas only = *a;
	int64_t n;

	only.area = calloc(a->n, sizeof(*a->area));
	if (!only.area)
		return -ENOMEM;
	only.n = 0;
	for (unsigned int i = 0; i < a->n; i++)
		if (a->area[i].watched)
			only.area[only.n++] = a->area[i];
	n = pid_areas_populated(&only, NULL, NULL);
	free(only.area);
	return n;
}

int rate_pagemap_create(struct pid_areas *a, struct rate_source **out, char *why,
			size_t why_len)
{
	struct scan_source *p = calloc(1, sizeof(*p));
	uint64_t va[RAM_MAX_BLOCKS];
	struct dirty_source *log;
	int64_t pages;
	int err;

	if (!p)
		return -ENOMEM;
	p->areas = *a;
	ram_init(&p->ram);
	err = add_watched(p, va);
	if (!err)
		err = dirty_set_create(&p->ram, &p->set);
	if (!err)
		err = dirty_pagemap_create(&p->ram, a->pagemap_fd, va, &log);
	if (!err)
		err = dirty_set_add(p->set, log);
	if (!err)
		err = dirty_set_start(p->set, NULL);
	pages = err ? err : watched_pages(a);
	if (pages < 0) {
		/* A registration without WP_ASYNC, or a kernel before 6.7, cannot. */
		err = pages == -EPERM || pages == -EINVAL ? -EOPNOTSUPP : (int)pages;
		snprintf(why, why_len,
			 "process %d has registered no memory for asynchronous write "
			 "protection",
			 a->pid);
		dirty_set_destroy(p->set);
		ram_fini(&p->ram);
		free(p);
		return err;
	}
	p->src.ops = &scan_ops;
	p->src.bits = p->ram.pages;
	p->src.bit_bytes = RATE_PAGE;
	p->src.ram_bytes = (double)pages * RATE_PAGE;
	strcpy(p->src.method, "pagemap scan");
	*out = &p->src;
	return 0;
}

/* ---- soft-dirty
 * ------------------------------------------------------------------------- */

#define SOFT_DIRTY (1ULL << 55) /* of a pagemap entry: soft-dirty.rst */
#define ENTRIES	   8192

struct soft_source {
	struct rate_source src;
	struct pid_areas areas;
	int clear_fd;
};

/* @at_ns: when a page is cleared, in the mean; may be NULL */
static int soft_clear(int fd, uint64_t *at_ns)
{
	const uint64_t began = clock_ns();

	if (pwrite(fd, "4", 1, 0) != 1)
		return -errno;
	if (at_ns)
		*at_ns = began + (clock_ns() - began) / 2;
	return 0;
}

static int open_clear(int pid)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/clear_refs", pid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* A kernel without it never sets the bit. */
bool rate_soft_supported(void)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), clear = -1;
	volatile uint8_t *page = mmap(NULL, RATE_PAGE, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	off_t at = (off_t)((uintptr_t)page / RATE_PAGE * sizeof(uint64_t));
	uint64_t e[2] = { SOFT_DIRTY, 0 };
	bool yes = false;

	if (page == MAP_FAILED)
		goto out;
	clear = open_clear(getpid());
	*page = 1;
	if (pagemap >= 0 && clear >= 0 && !soft_clear(clear, NULL) &&
	    pread(pagemap, &e[0], sizeof(e[0]), at) == sizeof(e[0])) {
		*page = 2;
		yes = pread(pagemap, &e[1], sizeof(e[1]), at) == sizeof(e[1]) &&
		      !(e[0] & SOFT_DIRTY) && (e[1] & SOFT_DIRTY);
	}
	munmap((void *)page, RATE_PAGE);
out:
	if (clear >= 0)
		close(clear);
	if (pagemap >= 0)
		close(pagemap);
	return yes;
}

struct soft_look {
	const struct soft_source *p;
	const struct pid_area *area; /* of the last run */
	uint64_t *bitmap, *dirty;
};

static const struct pid_area *area_of(const struct pid_areas *a, uint64_t va,
				      const struct pid_area *last)
{
	if (last && va >= last->map.start && va < last->map.end)
		return last;
	for (unsigned int i = 0; i < a->n; i++)
		if (va >= a->area[i].map.start && va < a->area[i].map.end)
			return &a->area[i];
	return NULL;
}

/* Of a run of pages that hold something: which are dirty? */
static int soft_run(void *arg, uint64_t va, uint64_t pages)
{
	static uint64_t entry[ENTRIES];
	struct soft_look *l = arg;
	uint64_t bit;

	l->area = area_of(&l->p->areas, va, l->area);
	if (!l->area)
		return 0;
	bit = l->area->first + (va - l->area->map.start) / RATE_PAGE;
	for (uint64_t at = 0; at < pages;) {
		size_t n = pages - at < ENTRIES ? (size_t)(pages - at) : ENTRIES;
		ssize_t got = pread(l->p->areas.pagemap_fd, entry, n * sizeof(entry[0]),
				    (off_t)((va / RATE_PAGE + at) * sizeof(entry[0])));

		if (got < 0)
			return -errno;
		if (!got)
			return -ESRCH;
		n = (size_t)got / sizeof(entry[0]);
		for (size_t i = 0; i < n; i++)
			if (entry[i] & SOFT_DIRTY) {
				bitmap_set(l->bitmap, bit + at + i);
				(*l->dirty)++;
			}
		at += n;
	}
	return 0;
}

/*
 * A page counts from when it was cleared until it is read. Both are walks through the whole
 * process, whose middles are that of a page in the mean. What is written between the two is
 * lost, and that time is in no interval.
 */
static int soft_harvest(struct rate_source *s, uint64_t *bitmap, uint64_t by[2])
{
	struct soft_source *p = (struct soft_source *)s;
	struct soft_look l = { .p = p, .bitmap = bitmap, .dirty = &by[0] };
	const uint64_t began = clock_ns();
	int64_t n = pid_areas_populated(&p->areas, soft_run, &l);

	s->until_ns = began + (clock_ns() - began) / 2;
	return n < 0 ? (int)n : soft_clear(p->clear_fd, &s->since_ns);
}

static void soft_destroy(struct rate_source *s)
{
	struct soft_source *p = (struct soft_source *)s;

	close(p->clear_fd);
	pid_areas_fini(&p->areas);
	free(p);
}

static const struct rate_source_ops soft_ops = { soft_harvest, soft_destroy };

int rate_soft_create(struct pid_areas *a, struct rate_source **out, char *why,
		     size_t why_len)
{
	uint64_t cleared_ns = 0;
	struct soft_source *p;
	int64_t pages;
	int fd, err;

	if (!rate_soft_supported()) {
		snprintf(why, why_len,
			 "this kernel has no soft-dirty tracking "
			 "(CONFIG_MEM_SOFT_DIRTY)");
		return -EOPNOTSUPP;
	}
	fd = open_clear(a->pid);
	if (fd < 0) {
		snprintf(why, why_len, "clear_refs of process %d: %s", a->pid,
			 strerror(-fd));
		return fd;
	}
	err = soft_clear(fd, &cleared_ns);
	pages = err ? err : pid_areas_populated(a, NULL, NULL);
	p = calloc(1, sizeof(*p));
	if (pages < 0 || !p) {
		close(fd);
		free(p);
		return p ? (int)pages : -ENOMEM;
	}
	p->areas = *a;
	p->clear_fd = fd;
	p->src.ops = &soft_ops;
	p->src.since_ns = cleared_ns;
	p->src.bits = a->bits;
	p->src.bit_bytes = RATE_PAGE;
	p->src.ram_bytes = (double)pages * RATE_PAGE;
	strcpy(p->src.method, "soft-dirty");
	strcpy(p->src.note,
	       "a huge page is dirty as a whole; an interval ends in the middle "
	       "of the look at all pages");
	*out = &p->src;
	return 0;
}
