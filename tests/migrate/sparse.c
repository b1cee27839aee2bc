// SPDX-License-Identifier: BSD-2-Clause
/*
 * sparse: PAGEMAP_SCAN over a large memory whose pages lie in many places, come into
 * holes while it is tracked, and go away again. Every page that was written must be
 * reported by the next harvest, or by the next that is not hasty; no other may be. After
 * the last writer has stopped a harvest protects nothing, and the next reports the same.
 * After a lazy start all that was not armed counts as written.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/lib/bitmap.h"
#include "kinds.h"

#define BYTES  (4UL << 30)
#define PAGES  (BYTES / RAM_PAGE_SIZE)
#define EVER   1000U /* pieces that are there at first */
#define ROUNDS 40U
#define WRITES 400U

struct sparse {
	struct ram ram;
	struct dirty_source *src;
	int uffd, pagemap;
	/* Bitmaps; gone: what was punched, and may be reported as written for it; sent: of the
	 * first round, NULL: of another */
	uint64_t *written, *reported, *gone, *sent;
	uint64_t seed;
};

static void put(struct sparse *s, uint64_t page)
{
	__atomic_store_n((uint64_t *)ram_at(&s->ram, page), s->seed | 1,
			 __ATOMIC_RELAXED);
	bitmap_set(s->written, page);
}

/* Pieces of 1 to 200 pages: single ones, in rows, and neighbours with small holes */
static void fill(struct sparse *s)
{
	for (unsigned int i = 0; i < EVER; i++) {
		uint64_t at = conform_random(&s->seed) % PAGES, r;

		r = conform_random(&s->seed);
		for (uint64_t n = r % 8 ? r % 6 + 1 : r % 200; n && at < PAGES; n--)
			put(s, at++);
	}
	for (uint64_t n = 0; n < 10000; n++) /* longer than a step over data */
		put(s, PAGES / 3 + n + n / 1000 * 100);
}

static void setup(struct sparse *s)
{
	uint64_t va;

	s->written = calloc(PAGES / 64, 8);
	s->reported = calloc(PAGES / 64, 8);
	s->gone = calloc(PAGES / 64, 8);
	assert_true(s->written && s->reported && s->gone);
	fill(s);
	s->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	assert_true(s->pagemap >= 0);
	va = (uintptr_t)s->ram.block[0].hva;
	assert_int_equal(dirty_pagemap_create(&s->ram, s->pagemap, &va, &s->src), 0);
	assert_int_equal(s->src->ops->start(s->src), 0);
	for (uint64_t w = 0; w < PAGES / 64; w++)
		s->written[w] = 0;
}

static void check(struct sparse *s, bool hasty)
{
	int64_t n;

	s->src->hasty = hasty;
	n = s->src->ops->harvest(s->src, s->reported);
	assert_true(n >= 0);
	for (uint64_t w = 0; w < PAGES / 64; w++) {
		uint64_t wrong = s->reported[w] & ~s->written[w] & ~s->gone[w];

		/* Where something came into a hole while the rest was sent, all of it. */
		if (s->sent && s->reported[w] & ~s->sent[w])
			wrong = 0;
		if (wrong)
			fail_msg("word %llu: nobody wrote %llx", (unsigned long long)w,
				 (unsigned long long)wrong);
		if (!hasty && s->written[w] & ~s->reported[w])
			fail_msg("word %llu: %llx is missing", (unsigned long long)w,
				 (unsigned long long)(s->written[w] & ~s->reported[w]));
		/* What a hasty one found is not found again. */
		s->written[w] &= ~s->reported[w];
		s->reported[w] = 0;
	}
}

/* Nobody writes any more: all is found, and found again, also by a hasty one. */
static void check_last(struct sparse *s)
{
	int64_t n, again;

	s->src->last = true;
	s->src->hasty = false;
	n = s->src->ops->harvest(s->src, s->reported);
	assert_true(n > 0);
	for (uint64_t w = 0; w < PAGES / 64; w++) {
		if (s->written[w] != s->reported[w])
			fail_msg("word %llu: %llx was written, %llx is reported",
				 (unsigned long long)w, (unsigned long long)s->written[w],
				 (unsigned long long)s->reported[w]);
		s->reported[w] = 0;
	}
	s->src->hasty = true;
	again = s->src->ops->harvest(s->src, s->reported);
	assert_int_equal(again, n);
	for (uint64_t w = 0; w < PAGES / 64; w++) {
		assert_int_equal(s->reported[w], s->written[w]);
		s->reported[w] = 0;
	}
}

/* Pages of a device are sent, which lie where the CPUs have written, too. */
static void check_again(struct sparse *s, uint64_t *sent)
{
	memset(sent, 0, PAGES / 8);
	for (uint64_t p = bitmap_next(s->written, 0, PAGES); p < PAGES;
	     p = bitmap_next(s->written, p + 1, PAGES))
		bitmap_set(sent, p ^ 1);
	assert_int_equal(s->src->ops->arm(s->src, 0, PAGES, sent), 0);
	check(s, false);
}

/*
 * The first round of a migration after a lazy start, with writes before, between and after:
 * to what was populated when it began, and to what comes into holes.
 */
static void check_lazy(struct sparse *s)
{
	uint64_t *first = calloc(PAGES / 64, 8);
	unsigned int k = 0;

	assert_non_null(first);
	s->src->lazy = true;
	assert_int_equal(s->src->ops->start(s->src), 0);
	for (uint64_t w = 0; w < PAGES / 64; w++)
		s->written[w] = 0;
	assert_true(ram_mark_populated(&s->ram, first) > 0);
	for (uint64_t w = 0, n; w < PAGES / 64; w += n) {
		n = 1 +
		    conform_random(&s->seed) % 200; /* also more than it does at once */
		if (n > PAGES / 64 - w)
			n = PAGES / 64 - w;
		for (; k < WRITES * 8 * (w + n) / (PAGES / 64); k++)
			put(s, conform_random(&s->seed) % PAGES);
		assert_int_equal(s->src->ops->arm(s->src, w * 64, n * 64, first + w), 0);
		/* They are read now. */
		for (uint64_t i = w; i < w + n; i++)
			s->written[i] &= ~first[i];
	}
	s->sent = first;
	check(s, false);
	s->sent = NULL;
	/* All is protected now, and what is written again is not to be armed. */
	check(s, false);
	for (k = 0; k < WRITES; k++)
		put(s, conform_random(&s->seed) % PAGES);
	check_again(s, first);
	free(first);
}

/* A page goes for each that comes, so that the file stays as large as it was. */
static void swap_one(struct sparse *s)
{
	const struct ram_block *b = &s->ram.block[0];
	off_t hole,
		data = lseek(b->fd, (off_t)(conform_random(&s->seed) % BYTES), SEEK_DATA);

	if (data < 0)
		return;
	data &= ~((off_t)RAM_PAGE_SIZE - 1);
	hole = lseek(b->fd, (off_t)(conform_random(&s->seed) % BYTES), SEEK_HOLE);
	hole = (hole + (off_t)RAM_PAGE_SIZE - 1) & ~((off_t)RAM_PAGE_SIZE - 1);
	if (hole < 0 || hole >= (off_t)BYTES || hole == data)
		return;
	assert_int_equal(fallocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   data, RAM_PAGE_SIZE),
			 0);
	bitmap_set(s->gone, (uint64_t)data / RAM_PAGE_SIZE);
	put(s, (uint64_t)hole / RAM_PAGE_SIZE);
}

void test_sparse(void **state)
{
	struct sparse s = { .seed = 0x9e3779b97f4a7c15ULL };

	(void)state;
	ram_init(&s.ram);
	assert_int_equal(ram_add(&s.ram, 0, BYTES, 0), 0);
	s.uffd = dirty_pagemap_register(s.ram.block[0].hva, BYTES);
	if (s.uffd == -EOPNOTSUPP) {
		ram_fini(&s.ram);
		print_message("not on this kernel\n");
		skip();
	}
	assert_true(s.uffd >= 0);
	setup(&s);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		for (unsigned int k = 0; k < WRITES; k++)
			put(&s, conform_random(&s.seed) % PAGES);
		check(&s, i % 4 != 3);
		check(&s, false);
		for (unsigned int k = 0; k < 20; k++)
			swap_one(&s);
		check(&s, true);
		check(&s, false);
	}
	for (unsigned int k = 0; k < WRITES; k++)
		put(&s, conform_random(&s.seed) % PAGES);
	check_last(&s);
	/* The next start protects everything. */
	s.src->last = false;
	assert_int_equal(s.src->ops->start(s.src), 0);
	for (uint64_t w = 0; w < PAGES / 64; w++)
		s.written[w] = 0;
	check(&s, false);
	check_lazy(&s);
	check_lazy(&s);
	s.src->ops->stop(s.src);
	s.src->ops->destroy(s.src);
	close(s.uffd);
	close(s.pagemap);
	free(s.written);
	free(s.reported);
	free(s.gone);
	ram_fini(&s.ram);
}
