// SPDX-License-Identifier: BSD-2-Clause
/* conform: see conform.h. */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <cmocka.h>

#include "../../user/lib/bitmap.h"
#include "../../user/lib/clock.h"
#include "conform.h"

#define PAGE	      RAM_PAGE_SIZE
#define WINDOW	      32U   /* pages */
#define BURST	      200U  /* writes before it moves */
#define MAX_HARVESTS  12U   /* between two halts */
#define FAULT_WAIT_MS 90000 /* a fault has to be noticed in this time */
#define MS	      1000000ULL

const char *const conform_fault_name[FAULT_COUNT] = {
	"none",	      "read first", "drop",    "tail",	     "no final",
	"clear late", "clear all",  "no mark", "mark first", "no kick",
};

uint64_t conform_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void nap(uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };

	nanosleep(&ts, NULL);
}

void conform_wait(const uint32_t *v, uint32_t want)
{
	uint64_t end = clock_ns() + 30000 * MS;

	while (__atomic_load_n(v, __ATOMIC_ACQUIRE) != want) {
		assert_true(clock_ns() < end);
		nap(20000);
	}
}

void conform_layout(struct conform *c)
{
	static const struct {
		uint64_t gpa, pages;
	} block[] = {
		{ 0, 160 },
		{ 0x100000, 1007 },
		{ 0x1003000, 1 }, /* less than a word, and not at one */
		{ 0x4021000, 2053 },
	};

	ram_init(&c->ram);
	for (size_t i = 0; i < sizeof(block) / sizeof(block[0]); i++)
		assert_int_equal(ram_add(&c->ram, block[i].gpa, block[i].pages * PAGE, 0),
				 0);
}

bool conform_written(const struct conform *c, uint64_t page)
{
	return ram_block_of(&c->ram, page) && page % 7 != 3;
}

unsigned int conform_pages(const struct conform *c, uint64_t **page)
{
	unsigned int n = 0;

	*page = calloc(c->ram.pages, sizeof(**page));
	assert_non_null(*page);
	for (uint64_t p = 0; p < c->ram.pages; p++)
		if (conform_written(c, p))
			(*page)[n++] = p;
	return n;
}

/* ---- writers ---------------------------------------------------------------------- */

/* Until what is marked now has been harvested and copied, or the writers have to halt */
static void linger(struct conform_writer *w)
{
	const uint64_t from = __atomic_load_n(&w->c->sent, __ATOMIC_RELAXED);

	while (__atomic_load_n(&w->c->sent, __ATOMIC_RELAXED) - from < 2 &&
	       !__atomic_load_n(&w->pause, __ATOMIC_RELAXED) &&
	       !__atomic_load_n(&w->quit, __ATOMIC_RELAXED))
		nap(MS / 5);
}

static void write_one(struct conform_writer *w, uint64_t page)
{
	struct conform *c = w->c;
	const struct ram_block *b = ram_block_of(&c->ram, page);
	uint64_t r = conform_random(&w->seed);
	uint64_t *at = (uint64_t *)(w->base[b - c->ram.block] +
				    ((page - b->first_page) << RAM_PAGE_SHIFT)) +
		       r % (PAGE / 8);
	bool mark = w->mark && !(c->fault == FAULT_NO_MARK && page % 53 == 5);

	if (mark && c->fault == FAULT_MARK_FIRST) {
		w->mark(c, page);
		if (r % 64 == 3)
			linger(w);
	}
	/* The copy reads it at the same time: the sanitizer is to know that it may. */
	__atomic_store_n(at, r | 1, __ATOMIC_RELAXED);
	if (mark && c->fault != FAULT_MARK_FIRST)
		w->mark(c, page);
	w->writes++;
}

void *conform_writer_main(void *arg)
{
	struct conform_writer *w = arg;

	while (!__atomic_load_n(&w->quit, __ATOMIC_ACQUIRE)) {
		uint64_t window;

		if (__atomic_load_n(&w->pause, __ATOMIC_ACQUIRE)) {
			__atomic_store_n(&w->parked, 1, __ATOMIC_RELEASE);
			nap(50000);
			continue;
		}
		__atomic_store_n(&w->parked, 0, __ATOMIC_RELEASE);
		window = conform_random(&w->seed) % w->npages;
		for (unsigned int i = 0; i < BURST; i++)
			write_one(w,
				  w->page[(window + conform_random(&w->seed) % WINDOW) %
					  w->npages]);
		/* A bit that gets lost is found only if its page is left alone. */
		nap(conform_random(&w->seed) % 200000);
	}
	return NULL;
}

/* ---- harvester ----------------------------------------------------------------------
 */

static void copy_page(uint8_t *dst, const uint8_t *src)
{
	for (unsigned int i = 0; i < PAGE / 8; i++)
		((uint64_t *)dst)[i] =
			__atomic_load_n((const uint64_t *)src + i, __ATOMIC_RELAXED);
}

static void copy_pages(struct conform *c, uint64_t first, uint64_t n)
{
	for (uint64_t p = bitmap_next(c->bitmap, first, first + n); p < first + n;
	     p = bitmap_next(c->bitmap, p + 1, first + n)) {
		if (!ram_at(&c->ram, p))
			fail_msg("%s: page %llu is none", c->kind->name,
				 (unsigned long long)p);
		copy_page(c->copy + p * PAGE, c->fault == FAULT_READ_FIRST
						      ? c->early + p * PAGE
						      : ram_at(&c->ram, p));
	}
}

static void clear(struct conform *c, uint64_t first, uint64_t n)
{
	uint64_t all[64];

	memset(all, 0xff, sizeof(all));
	/* Of another round than the first it is called in vain. */
	assert_int_equal(dirty_set_arm(c->set, first, n, c->bitmap + first / 64), 0);
	assert_int_equal(dirty_set_clear(c->set, first, n,
					 c->fault == FAULT_CLEAR_ALL
						 ? all
						 : c->bitmap + first / 64),
			 0);
}

/* Send what the bitmap has: for some words at a time arm the log, and read. */
static void send(struct conform *c)
{
	for (unsigned int i = 0; i < c->ram.nblocks; i++) {
		const struct ram_block *b = &c->ram.block[i];
		uint64_t words = bitmap_words(b->size >> RAM_PAGE_SHIFT), n;

		for (uint64_t w = 0; w < words; w += n) {
			n = 1 + conform_random(&c->seed) % 20;
			if (n > words - w)
				n = words - w;
			if (c->fault == FAULT_CLEAR_LATE) {
				copy_pages(c, b->first_page + w * 64, n * 64);
				if (conform_random(&c->seed) % 8 == 3)
					nap(200000);
			}
			clear(c, b->first_page + w * 64, n * 64);
			if (c->fault != FAULT_CLEAR_LATE)
				copy_pages(c, b->first_page + w * 64, n * 64);
		}
	}
	memset(c->bitmap, 0, ram_words(&c->ram) * 8);
	__atomic_store_n(&c->sent, c->sent + 1, __ATOMIC_RELAXED);
}

/* What the seeded faults do to a harvest */
static void spoil(struct conform *c)
{
	if (c->fault == FAULT_DROP)
		for (uint64_t p = bitmap_next(c->bitmap, 0, c->ram.pages);
		     p < c->ram.pages; p = bitmap_next(c->bitmap, p + 1, c->ram.pages))
			if (conform_random(&c->seed) % 50 == 3)
				bitmap_clear(c->bitmap, p);
	for (unsigned int i = 0; c->fault == FAULT_TAIL && i < c->ram.nblocks; i++) {
		const struct ram_block *b = &c->ram.block[i];

		c->bitmap[(b->first_page + (b->size >> RAM_PAGE_SHIFT)) / 64] = 0;
	}
}

static void check_by(struct conform *c)
{
	for (size_t i = 0; i < ram_words(&c->ram); i++) {
		uint64_t both = 0;

		for (unsigned int k = 0; k < DIRTY_BY_COUNT; k++) {
			both |= c->by[k][i];
			c->by[k][i] = 0;
		}
		if (both != c->bitmap[i])
			fail_msg("%s: sources report %llx, the bitmap has %llx",
				 c->kind->name, (unsigned long long)both,
				 (unsigned long long)c->bitmap[i]);
	}
}

static uint64_t harvest(struct conform *c)
{
	struct dirty_found found;

	for (uint64_t p = 0; c->fault == FAULT_READ_FIRST && p < c->ram.pages; p++)
		if (ram_at(&c->ram, p))
			copy_page(c->early + p * PAGE, ram_at(&c->ram, p));
	if (c->fault == FAULT_READ_FIRST)
		nap(conform_random(&c->seed) % 1000000);
	assert_int_equal(dirty_set_harvest(c->set, c->bitmap,
					   c->harvests % 2 ? c->by : NULL, &found),
			 0);
	if (c->harvests % 2)
		check_by(c);
	assert_int_equal(found.merged, bitmap_count(c->bitmap, ram_words(&c->ram)));
	for (size_t i = 0; i < ram_words(&c->ram); i++) {
		uint64_t extra = c->bitmap[i] & c->unwritten[i];

		/* PAGEMAP_SCAN and its like may name a page that was never there, once.
		 */
		c->extra += (uint64_t)__builtin_popcountll(extra & c->reported[i]);
		c->reported[i] |= extra;
	}
	c->harvests++;
	c->pages += found.merged;
	spoil(c);
	return found.merged;
}

static void compare(struct conform *c)
{
	for (uint64_t p = 0; p < c->ram.pages; p++)
		if (ram_at(&c->ram, p) &&
		    memcmp(ram_at(&c->ram, p), c->copy + p * PAGE, PAGE))
			c->bad++;
}

static void count_doubts(struct conform *c)
{
	for (unsigned int i = 0; i < c->set->nsrc; i++)
		c->in_doubt += c->set->src[i]->in_doubt;
}

/* From a log that is off to one that is off again, with halts in between */
static void episode(struct conform *c, bool restart, bool last)
{
	const char *failed = "";

	if (restart) {
		dirty_set_stop(c->set);
		if (c->harvests && c->kind->renew) {
			count_doubts(c);
			c->kind->renew(c);
		}
		if (conform_random(&c->seed) % 2)
			dirty_set_lazy(c->set);
		if (dirty_set_start(c->set, &failed))
			fail_msg("%s: does not start", failed);
		/* The first round */
		ram_mark_all(&c->ram, c->bitmap);
		for (uint64_t p = 0; c->fault == FAULT_READ_FIRST && p < c->ram.pages;
		     p++)
			if (ram_at(&c->ram, p))
				copy_page(c->early + p * PAGE, ram_at(&c->ram, p));
	}
	c->kind->go(c);
	if (restart)
		send(c);
	for (unsigned int n = 1 + conform_random(&c->seed) % MAX_HARVESTS; n; n--) {
		nap(conform_random(&c->seed) % (4 * MS));
		dirty_set_hasty(c->set, conform_random(&c->seed) % 2);
		harvest(c);
		send(c);
	}
	c->kind->halt(c);
	dirty_set_hasty(c->set, false);
	if (last)
		dirty_set_last(c->set);
	if (c->fault != FAULT_NO_FINAL) {
		harvest(c);
		memcpy(c->final, c->bitmap, ram_words(&c->ram) * 8);
		send(c);
	}
	compare(c);
	if (c->fault == FAULT_NONE)
		harvest(c);
	for (size_t i = 0; c->fault == FAULT_NONE && i < ram_words(&c->ram); i++)
		c->late += (uint64_t)__builtin_popcountll(c->bitmap[i] &
							  ~(last ? c->final[i] : 0));
	memset(c->bitmap, 0, ram_words(&c->ram) * 8);
}

static void *pages_of(const struct conform *c)
{
	void *p = mmap(NULL, (c->ram.pages + 1) * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

static uint64_t *bits_of(const struct conform *c)
{
	uint64_t *p = calloc(ram_words(&c->ram) + 1, sizeof(*p));

	assert_non_null(p);
	return p;
}

int conform_run(struct conform *c, unsigned int ms)
{
	uint64_t began = clock_ns();
	int err = c->kind->open(c);

	if (err)
		return err;
	c->bitmap = bits_of(c);
	c->unwritten = bits_of(c);
	c->reported = bits_of(c);
	c->final = bits_of(c);
	for (unsigned int k = 0; k < DIRTY_BY_COUNT; k++)
		c->by[k] = bits_of(c);
	c->copy = pages_of(c);
	c->early = pages_of(c);
	for (uint64_t p = 0; p < c->ram.pages; p++)
		if (!conform_written(c, p))
			bitmap_set(c->unwritten, p);

	for (unsigned int i = 0;; i++) {
		uint64_t now = clock_ns() - began;

		if (c->fault ? c->bad || now > FAULT_WAIT_MS * MS
			     : now > ms * MS && i >= 8)
			break;
		/* After the last of a log it starts anew. */
		episode(c, i % 4 == 0, i % 4 == 3);
	}

	count_doubts(c);
	c->kind->close(c);
	munmap(c->copy, (c->ram.pages + 1) * PAGE);
	munmap(c->early, (c->ram.pages + 1) * PAGE);
	free(c->bitmap);
	free(c->unwritten);
	free(c->reported);
	free(c->final);
	for (unsigned int k = 0; k < DIRTY_BY_COUNT; k++)
		free(c->by[k]);
	ram_fini(&c->ram);
	return 0;
}
