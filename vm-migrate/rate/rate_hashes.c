// SPDX-License-Identifier: BSD-2-Clause
/*
 * rate_hashes: the dirty rate of a process that nothing tracks, by looking.
 *
 * Populated memory is cut into as many equal strata as there are samples, and one page of
 * each, picked at random, is hashed again and again. The share of hashes that change
 * estimates the share of pages that do, with a known error. A page that is written with
 * what it held is not seen; a migration would send it. Pages that come into being later
 * are in no stratum; they are counted as a whole.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <xxhash.h>

#include "../../user/lib/bitmap.h"
#include "rate_pid.h"

#define BATCH 256 /* pages of one process_vm_readv() */

struct run {
	uint64_t va, pages;
};

struct hash_source {
	struct rate_source src;
	struct pid_areas areas;
	uint64_t *va;	/* [samples] ascending */
	uint64_t *hash; /* [samples] */
	int64_t populated;
	uint8_t page[BATCH][RATE_PAGE];
};

struct runs {
	struct run *run;
	size_t n, room;
};

static int keep_run(void *arg, uint64_t va, uint64_t pages)
{
	struct runs *r = arg;

	if (r->n == r->room) {
		size_t room = r->room ? 2 * r->room : 256;
		struct run *p = realloc(r->run, room * sizeof(*p));

		if (!p)
			return -ENOMEM;
		r->run = p;
		r->room = room;
	}
	r->run[r->n++] = (struct run){ va, pages };
	return 0;
}

static uint64_t next_random(uint64_t *state)
{
	/* xorshift64*: Marsaglia 2003, Vigna 2016. */
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dULL;
}

/* One page of each stratum of @pages. */
static void pick(struct hash_source *p, const struct runs *runs, uint64_t pages)
{
	uint64_t seed, before = 0;
	size_t r = 0;

	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed) || !seed)
		seed = (uintptr_t)p;
	for (unsigned int i = 0; i < p->src.samples; i++) {
		uint64_t lo = pages * i / p->src.samples;
		uint64_t hi = pages * (i + 1) / p->src.samples;
		uint64_t n = lo + next_random(&seed) % (hi - lo);

		while (n - before >= runs->run[r].pages)
			before += runs->run[r++].pages;
		p->va[i] = runs->run[r].va + (n - before) * RATE_PAGE;
	}
}

/* Hash samples [first, first + n); a page that is gone hashes to 0. Return: 0, -errno */
static int hash_batch(struct hash_source *p, unsigned int first, unsigned int n,
		      uint64_t *hash)
{
	struct iovec here[BATCH], there[BATCH];
	unsigned int done = 0;

	for (unsigned int i = 0; i < n; i++) {
		here[i] = (struct iovec){ p->page[i], RATE_PAGE };
		/* An address of the other process. */
		there[i].iov_base = (void *)(uintptr_t)p->va[first + i]; // NOLINT
		there[i].iov_len = RATE_PAGE;
	}
	while (done < n) {
		ssize_t got = process_vm_readv(p->areas.pid, here + done, n - done,
					       there + done, n - done, 0);

		if (got < 0 && errno != EFAULT)
			return -errno;
		for (; got >= (ssize_t)RATE_PAGE; got -= (ssize_t)RATE_PAGE, done++)
			hash[done] = XXH3_64bits(p->page[done], RATE_PAGE) | 1;
		if (done < n && got < (ssize_t)RATE_PAGE)
			hash[done++] = 0;
	}
	return 0;
}

/* bitmap: NULL: the first time. */
static int look(struct hash_source *p, uint64_t *bitmap, uint64_t *changed)
{
	uint64_t hash[BATCH];

	for (unsigned int first = 0; first < p->src.samples; first += BATCH) {
		unsigned int left = p->src.samples - first,
			     n = left < BATCH ? left : BATCH;
		int err = hash_batch(p, first, n, hash);

		if (err)
			return err;
		for (unsigned int i = 0; i < n; i++) {
			if (bitmap && hash[i] != p->hash[first + i]) {
				bitmap_set(bitmap, first + i);
				(*changed)++;
			}
			p->hash[first + i] = hash[i];
		}
	}
	return 0;
}

static int hashes_harvest(struct rate_source *s, uint64_t *bitmap, uint64_t by[2])
{
	struct hash_source *p = (struct hash_source *)s;
	int err = look(p, bitmap, &by[0]);
	int64_t now;

	if (err)
		return err;
	now = pid_areas_populated(&p->areas, NULL, NULL);
	if (now < 0)
		return (int)now;
	s->growth = now > p->populated ? (double)(now - p->populated) * RATE_PAGE : 0;
	s->ram_bytes = (double)now * RATE_PAGE;
	p->populated = now;
	return 0;
}

static void hashes_destroy(struct rate_source *s)
{
	struct hash_source *p = (struct hash_source *)s;

	pid_areas_fini(&p->areas);
	free(p->va);
	free(p->hash);
	free(p);
}

static const struct rate_source_ops hashes_ops = { hashes_harvest, hashes_destroy };

int rate_hashes_create(struct pid_areas *a, unsigned int samples,
		       struct rate_source **out, char *why, size_t why_len)
{
	struct hash_source *p = calloc(1, sizeof(*p));
	struct runs runs = { 0 };
	int64_t pages;
	int err = 0;

	if (!p)
		return -ENOMEM;
	pages = pid_areas_populated(a, keep_run, &runs);
	if (!pages)
		pages = -ESRCH;
	if (pages < 0) {
		err = (int)pages;
		goto fail;
	}
	p->src.samples = pages < samples ? (unsigned int)pages : samples;
	p->va = calloc(p->src.samples, sizeof(*p->va));
	p->hash = calloc(p->src.samples, sizeof(*p->hash));
	err = -ENOMEM;
	if (!p->va || !p->hash)
		goto fail;
	p->areas = *a;
	p->populated = pages;
	pick(p, &runs, (uint64_t)pages);
	err = look(p, NULL, NULL);
	if (err)
		goto fail;
	p->src.ops = &hashes_ops;
	p->src.bits = p->src.samples;
	p->src.bit_bytes = (double)pages * RATE_PAGE / p->src.samples;
	p->src.ram_bytes = (double)pages * RATE_PAGE;
	strcpy(p->src.method, "page hashes");
	snprintf(p->src.note, sizeof(p->src.note),
		 "pages that were written with what they held are not seen");
	free(runs.run);
	*out = &p->src;
	return 0;
fail:
	snprintf(why, why_len, "cannot read the memory of process %d: %s", a->pid,
		 strerror(-err));
	free(runs.run);
	free(p->va);
	free(p->hash);
	free(p);
	return err;
}
