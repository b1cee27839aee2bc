// SPDX-License-Identifier: BSD-2-Clause
/*
 * rate_pid: the memory of a process, and how to watch it. See rate_pid.h.
 *
 * Which mappings: all that can be written, of anonymous or shared memory; a file's own
 * pages go to its disk and not to a migration.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../kernel.h"
#include "rate_pid.h"

#define ENTRIES	     8192	  /* of pagemap, read at once */
#define REGIONS	     1024	  /* of one PAGEMAP_SCAN */
#define PM_PRESENT   (1ULL << 63) /* pagemap.rst */
#define PM_SWAP	     (1ULL << 62)
#define PM_SWAP_TYPE 31
#define PM_MARKER    31 /* swap type of a note that no page is there: SWP_PTE_MARKER */

/* ---- mappings -----------------------------------------------------------------------
 */

static bool wanted(const struct qemu_map *m)
{
	return m->writable && (!m->shared || m->shmem || !m->inode);
}

static int append(struct pid_areas *a, const struct qemu_map *m)
{
	struct pid_area *p = realloc(a->area, (a->n + 1) * sizeof(*p));

	if (!p)
		return -ENOMEM;
	a->area = p;
	p[a->n++] = (struct pid_area){ .map = *m, .first = a->bits };
	a->bits += ((m->end - m->start) / RATE_PAGE + 63) & ~63ULL;
	return 0;
}

/* smaps: a line of maps, then lines "Name: value", the last of them VmFlags. */
static int read_smaps(FILE *f, struct pid_areas *a)
{
	struct pid_area *last = NULL;
	struct qemu_map m;
	char *line = NULL;
	size_t room = 0;
	int err = 0;

	while (!err && getline(&line, &room, f) > 0) {
		if (!strncmp(line, "VmFlags:", 8)) {
			if (last)
				last->watched = strstr(line, " uw") != NULL;
			continue;
		}
		if (qemu_parse_map(line, &m))
			continue;
		last = NULL;
		if (!wanted(&m))
			continue;
		err = append(a, &m);
		last = &a->area[a->n - 1];
	}
	free(line);
	return err;
}

int pid_areas_find(int pid, struct pid_areas *a, char *why, size_t why_len)
{
	char path[64];
	int err = 0;
	FILE *f;

	memset(a, 0, sizeof(*a));
	a->pid = pid;
	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	a->pagemap_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (a->pagemap_fd < 0) {
		err = errno == ENOENT ? -ESRCH : -errno;
		snprintf(why, why_len,
			 err == -ESRCH ? "there is no process %d"
				       : "may not look at process %d; run this as its "
					 "user, or root",
			 pid);
		return err;
	}
	snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
	f = fopen(path, "re");
	if (!f) {
		err = -errno;
	} else {
		err = read_smaps(f, a);
		fclose(f);
	}
	if (!err && !a->n)
		err = -ESRCH; /* a kernel thread, or it has ended */
	if (err) {
		snprintf(why, why_len, "memory of process %d: %s", pid,
			 err == -ESRCH ? "it has none" : strerror(-err));
		pid_areas_fini(a);
	}
	return err;
}

void pid_areas_fini(struct pid_areas *a)
{
	if (a->pagemap_fd >= 0)
		close(a->pagemap_fd);
	free(a->area);
	a->area = NULL;
	a->n = 0;
	a->pagemap_fd = -1;
}

/* ---- what of them holds something
 * ------------------------------------------------------- */

struct walk {
	int (*run)(void *arg, uint64_t va, uint64_t pages);
	void *arg;
	int64_t pages;
};

static int found(struct walk *w, uint64_t va, uint64_t pages)
{
	w->pages += (int64_t)pages;
	return w->run ? w->run(w->arg, va, pages) : 0;
}

/* What the file has. Return: 0; -ENOENT: it cannot be opened; -errno */
static int walk_file(const struct pid_areas *a, const struct qemu_map *m, struct walk *w)
{
	off_t end = (off_t)(m->offset + (m->end - m->start)), at = (off_t)m->offset, to;
	char path[96];
	int fd, err = 0;

	snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, a->pid,
		 m->start, m->end);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -ENOENT;
	while (!err && at < end) {
		at = lseek(fd, at, SEEK_DATA);
		if (at < 0 || at >= end)
			break;
		to = lseek(fd, at, SEEK_HOLE);
		if (to <= at)
			break;
		if (to > end)
			to = end;
		err = found(w, m->start + (uint64_t)(at - (off_t)m->offset),
			    (uint64_t)(to - at) / RATE_PAGE);
		at = to;
	}
	close(fd);
	return err;
}

static bool populated(uint64_t entry)
{
	return (entry & PM_PRESENT) ||
	       ((entry & PM_SWAP) && (entry & PM_SWAP_TYPE) != PM_MARKER);
}

/* Entry by entry: also of what was never there, 8 bytes a page. */
static int walk_entries(const struct pid_areas *a, uint64_t start, uint64_t end,
			struct walk *w)
{
	static uint64_t entry[ENTRIES];
	uint64_t run = 0;
	int err = 0;

	for (uint64_t va = start; !err && va < end;) {
		uint64_t left = (end - va) / RATE_PAGE;
		size_t n = left < ENTRIES ? (size_t)left : ENTRIES;
		ssize_t got = pread(a->pagemap_fd, entry, n * sizeof(entry[0]),
				    (off_t)(va / RATE_PAGE * sizeof(entry[0])));

		if (got <= 0)
			break; /* it is unmapped now */
		n = (size_t)got / sizeof(entry[0]);
		for (size_t i = 0; i < n && !err; i++, va += RATE_PAGE) {
			if (populated(entry[i])) {
				run++;
			} else if (run) {
				err = found(w, va - run * RATE_PAGE, run);
				run = 0;
			}
		}
		if (run && !err)
			err = found(w, va - run * RATE_PAGE, run);
		run = 0;
	}
	return err;
}

/* PAGEMAP_SCAN calls a marker swapped, too: only the entry tells. */
static int take_region(const struct pid_areas *a, const struct page_region *r,
		       struct walk *w)
{
	if (r->categories & PAGE_IS_PRESENT)
		return found(w, r->start, (r->end - r->start) / RATE_PAGE);
	return walk_entries(a, r->start, r->end, w);
}

/*
 * The kernel leaves out what has no page tables, so terabytes that are reserved and empty
 * cost nothing. Return: 0; -EOPNOTSUPP: a kernel before 6.7; -errno of @w
 */
static int walk_scan(const struct pid_areas *a, const struct qemu_map *m, struct walk *w)
{
	static struct page_region region[REGIONS];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = m->start,
		.end = m->end,
		.vec = (uintptr_t)region,
		.vec_len = REGIONS,
		.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
		.return_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
	};
	int err = 0;

	for (; !err && arg.start < arg.end; arg.start = arg.walk_end) {
		int n = ioctl(a->pagemap_fd, PAGEMAP_SCAN, &arg);

		if (n < 0 && errno == ENOTTY)
			return -EOPNOTSUPP;
		if (n < 0 || arg.walk_end <= arg.start)
			break; /* it is unmapped now */
		for (int i = 0; i < n && !err; i++)
			err = take_region(a, &region[i], w);
	}
	return err;
}

static int walk_pagemap(const struct pid_areas *a, const struct qemu_map *m,
			struct walk *w)
{
	int err = walk_scan(a, m, w);

	return err == -EOPNOTSUPP ? walk_entries(a, m->start, m->end, w) : err;
}

int64_t pid_areas_populated(const struct pid_areas *a,
			    int (*run)(void *arg, uint64_t va, uint64_t pages), void *arg)
{
	struct walk w = { .run = run, .arg = arg };

	for (unsigned int i = 0; i < a->n; i++) {
		const struct qemu_map *m = &a->area[i].map;
		int err = m->shared && m->shmem ? walk_file(a, m, &w) : -ENOENT;

		if (err == -ENOENT)
			err = walk_pagemap(a, m, &w);
		if (err)
			return err;
	}
	return w.pages;
}

/* ---- which way
 * ---------------------------------------------------------------------------- */

int rate_pid_create(int pid, enum rate_method method, unsigned int samples,
		    struct rate_source **out, char *why, size_t why_len)
{
	struct pid_areas a;
	int err = pid_areas_find(pid, &a, why, why_len);

	if (err)
		return err;
	err = -EOPNOTSUPP;
	if (method == RATE_PAGEMAP || method == RATE_AUTO)
		err = rate_pagemap_create(&a, out, why, why_len);
	if (method == RATE_SOFT_DIRTY || (method == RATE_AUTO && err == -EOPNOTSUPP))
		err = rate_soft_create(&a, out, why, why_len);
	if (method == RATE_HASHES || (method == RATE_AUTO && err == -EOPNOTSUPP))
		err = rate_hashes_create(&a, samples, out, why, why_len);
	if (err)
		pid_areas_fini(&a);
	return err;
}
