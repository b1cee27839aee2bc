// SPDX-License-Identifier: BSD-2-Clause
/* digest: hashes of all pages, and their sum; see digest.h. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef __x86_64__
#include <xxh_x86dispatch.h>
#define hash_of XXH3_64bits_dispatch /* the widest vectors there are */
#else
#include <xxhash.h>
#define hash_of XXH3_64bits
#endif

#include "../user/lib/bitmap.h"
#include "digest.h"
#include "table.h"

/* Without it a benchmark's build says what hashing takes (tests/bench/migrate.sh). A word
 * is enough for most writes of its guest to be seen. */
#ifdef GN_NO_DIGEST
#define HASHED 8
#else
#define HASHED RAM_PAGE_SIZE
#endif

#define MAX_THREADS 16
#define AHEAD	    256 /* leaves that are made ready at a time, 128 KiB: 64 MiB of RAM */
#define CHUNK_WORDS 64	/* of the bitmap, 16 MiB of RAM: what a thread takes at a time */

int digest_init(struct digest *d, uint64_t pages)
{
	const size_t n = pages / DIGEST_LEAF;

	*d = (struct digest){ .pages = pages };
	if (pages % DIGEST_LEAF || n >= UINT32_MAX)
		return -EINVAL;
	/* Leaves that are not given out take no memory. */
	d->leaf = calloc(n ? n : 1, sizeof(*d->leaf));
	d->of = table_alloc(n, sizeof(*d->of));
	if (d->leaf && d->of)
		return 0;
	digest_fini(d);
	return -ENOMEM;
}

void digest_fini(struct digest *d)
{
	free(d->leaf);
	free(d->of);
	*d = (struct digest){ 0 };
}

static uint32_t give_leaf(struct digest *d)
{
	uint32_t n = __atomic_fetch_add(&d->leaves, 1, __ATOMIC_RELAXED);
	uint64_t rest = d->pages / DIGEST_LEAF - n;

	if (n % AHEAD == 0)
		table_ready(d->leaf[n], (rest < AHEAD ? rest : AHEAD) * sizeof(*d->leaf));
	return n + 1;
}

uint64_t digest_set(struct digest *d, uint64_t page, uint64_t hash)
{
	uint32_t *of = &d->of[page / DIGEST_LEAF];
	uint64_t *at, old;

	if (!*of && !hash)
		return 0;
	if (!*of)
		*of = give_leaf(d);
	at = &d->leaf[*of - 1][page % DIGEST_LEAF];
	old = *at;
	*at = hash;
	return old;
}

static bool is_zero(const void *page)
{
	uint64_t first;

	memcpy(&first, page, sizeof(first));
	return !first && !memcmp(page, (const uint8_t *)page + sizeof(first),
				 RAM_PAGE_SIZE - sizeof(first));
}

uint64_t digest_page(const void *page)
{
	uint64_t h;

	if (is_zero(page))
		return 0;
	h = hash_of(page, HASHED);
	return h ? h : 1;
}

uint64_t digest_sum(const struct digest *d, uint64_t *nonzero)
{
	uint64_t sum = 0, n = 0, hash;

	for (uint64_t p = 0; p < d->pages; p++) {
		hash = digest_get(d, p);
		sum += digest_mix(p, hash);
		n += hash != 0;
	}
	if (nonzero)
		*nonzero = n;
	return sum;
}

/* ---- compare ------------------------------------------------------------------- */

struct compare {
	const struct digest *d;
	const struct ram *ram;
	uint64_t *populated; /* bitmap */
	uint64_t next;	     /* atomic: word to take */
	uint64_t found;	     /* atomic */
	uint64_t *bad;
	unsigned int max;
	int err; /* atomic */
};

/* Pages of a word of the bitmap; between blocks and in holes everything has to be zero.
 * @buf: of 64 pages. Return: 0, -errno */
static int compare_word(struct compare *c, uint64_t w, uint8_t *buf)
{
	uint64_t bits = c->populated[w], first = w * BITMAP_BITS, at, n;
	int err = 0;

	if (!bits && !c->d->of[w])
		return 0;
	for (unsigned int i = 0, end; i < BITMAP_BITS && !err; i = end) {
		bool data = bits >> i & 1;

		for (end = i + 1; end < BITMAP_BITS && (bits >> end & 1) == data;)
			end++;
		if (data)
			err = ram_read(c->ram, first + i, end - i, buf);
		for (unsigned int k = i; k < end && !err; k++) {
			at = data ? digest_page(buf + (k - i) * RAM_PAGE_SIZE) : 0;
			if (digest_get(c->d, first + k) == at)
				continue;
			n = __atomic_fetch_add(&c->found, 1, __ATOMIC_RELAXED);
			if (c->bad && n < c->max)
				c->bad[n] = first + k;
		}
	}
	return err;
}

static void *compare_main(void *arg)
{
	struct compare *c = arg;
	uint64_t words = ram_words(c->ram), w;
	uint8_t *buf = malloc(BITMAP_BITS * RAM_PAGE_SIZE);
	int err = buf ? 0 : -ENOMEM;

	while (!err &&
	       (w = __atomic_fetch_add(&c->next, CHUNK_WORDS, __ATOMIC_RELAXED)) < words)
		for (uint64_t end = w + CHUNK_WORDS; w < end && w < words && !err; w++)
			err = compare_word(c, w, buf);
	if (err)
		__atomic_store_n(&c->err, err, __ATOMIC_RELAXED);
	free(buf);
	return NULL;
}

int64_t digest_compare(const struct digest *d, const struct ram *ram, uint64_t *bad,
		       unsigned int max, unsigned int threads)
{
	struct compare c = { .d = d, .ram = ram, .bad = bad, .max = max };
	pthread_t thread[MAX_THREADS];
	unsigned int n = 0;
	int64_t err;

	if (d->pages != ram->pages)
		return -EINVAL;
	c.populated = table_alloc(ram_words(ram) + 1, sizeof(*c.populated));
	if (!c.populated)
		return -ENOMEM;
	err = ram_mark_populated(ram, c.populated);
	if (err < 0)
		goto free_bitmap;
	if (!threads)
		threads = (unsigned int)sysconf(_SC_NPROCESSORS_ONLN);
	if (threads > MAX_THREADS)
		threads = MAX_THREADS;
	/* This one is one of them; fewer do as well. */
	while (n + 1 < threads && !pthread_create(&thread[n], NULL, compare_main, &c))
		n++;
	compare_main(&c);
	while (n)
		pthread_join(thread[--n], NULL);
	err = c.err && !c.found ? c.err : (int64_t)c.found;
free_bitmap:
	free(c.populated);
	return err;
}
