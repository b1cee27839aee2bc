// SPDX-License-Identifier: BSD-2-Clause
/*
 * stream: scans of a region by some nodes while another writes to it in order: pages that
 * are sent ahead of their faults are taken back in the middle.
 *
 *	stream SOCKET REGION KEY NODE ROUNDS
 *
 * Node 1 to 3; in each round one writes, the others scan. The writer goes through the
 * region twice, in runs of RUN pages in any order, and gives all words of a page, in
 * ascending order, a number that is higher than all before. A reader reads the words of a
 * page in descending order, so what it sees must never get smaller, in the page nor in a
 * word since it saw that last. (A writer may stop in the middle of a page for long.) After
 * the round all read all and must find the last numbers.
 * Prints "pages N" (read); exit status 1: a wrong number or an error.
 *
 * The region's last page has the barrier, and the last round that was written.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../user/share/ghostmem.h"

#define NODES 3
#define PAGE  4096
#define WORDS (PAGE / 8)
#define SWEEP 2	 /* of a writer in a round */
#define RUN   32 /* pages; the region has whole runs, and a page */
#define DONE  64 /* in the last page */

static uint64_t *seen; /* by word */

static int fail(const char *what, int err)
{
	fprintf(stderr, "stream: %s: %s\n", what, strerror(-err));
	return 1;
}

/* Return: 0, 1: a number went back */
static int read_page(const volatile uint64_t *w, uint64_t page)
{
	uint64_t last = 0;

	for (int i = WORDS - 1; i >= 0; i--) {
		uint64_t at = page * WORDS + (uint64_t)i, v = w[at];

		if (v < last || v < seen[at]) {
			fprintf(stderr,
				"stream: page %" PRIu64 " word %d: %" PRIu64
				" after %" PRIu64 "\n",
				page, i, v, v < last ? last : seen[at]);
			return 1;
		}
		last = seen[at] = v;
	}
	return 0;
}

static void write_run(volatile uint64_t *w, uint64_t page, uint64_t v)
{
	for (uint64_t at = page * WORDS; at < (page + RUN) * WORDS; at++)
		w[at] = seen[at] = v;
}

/* Steps through all runs: no two neighbours soon after one another. */
static void sweep(volatile uint64_t *w, uint64_t pages, uint64_t v)
{
	uint64_t runs = pages / RUN, at = v;

	for (uint64_t k = 0; k < runs; k++, at += 7)
		write_run(w, at % runs * RUN, v);
}

int main(int argc, char **argv)
{
	struct ghostmem_import in = { 0 };
	struct ghostmem_region *r;
	struct ghostmem *g;
	volatile uint64_t *w;
	uint64_t pages, end, read = 0, done = 0, v;
	unsigned int node, rounds, seed;
	int err, bad = 0;

	if (argc != 6)
		return 2;
	in.name = argv[2];
	in.key = argv[3];
	in.key_len = strlen(argv[3]);
	node = (unsigned int)atoi(argv[4]) - 1;
	rounds = (unsigned int)atoi(argv[5]);
	seed = node;
	err = ghostmem_open(argv[1], &g);
	if (err)
		return fail("open", err);
	err = ghostmem_import(g, &in, &r);
	if (err)
		return fail("import", err);
	w = ghostmem_addr(r);
	end = ghostmem_size(r) - PAGE;
	pages = end / PAGE;
	seen = calloc(pages * WORDS, sizeof(*seen));
	if (!seen)
		return 1;
	for (unsigned int round = 0; round < rounds && !bad; round++) {
		/* Numbers of this round's sweeps, the same on all nodes. */
		uint64_t base = (uint64_t)round * SWEEP + 1;

		err = ghostmem_barrier(r, end, NODES, 30000);
		if (err)
			return fail("barrier", err);
		if (round % NODES == node) {
			for (v = base; v < base + SWEEP; v++)
				sweep(w, pages, v);
			done = round + 1;
			err = ghostmem_put(r, end + DONE, &done, sizeof(done));
		}
		while (round % NODES != node && !bad && !err) {
			uint64_t from = (uint64_t)rand_r(&seed) % pages;

			for (uint64_t p = from; p < pages && !bad; p++, read++)
				bad = read_page(w, p);
			err = ghostmem_get(r, end + DONE, &done, sizeof(done));
			if (done == round + 1)
				break;
		}
		if (err)
			return fail("round", err);
		err = ghostmem_barrier(r, end, NODES, 30000);
		if (err)
			return fail("barrier", err);
		for (uint64_t p = 0; p < pages && !bad; p++, read++) {
			bad = read_page(w, p);
			/* The last word: it is the smallest. */
			v = seen[p * WORDS + WORDS - 1];
			if (!bad && v != base + SWEEP - 1) {
				fprintf(stderr,
					"stream: page %" PRIu64 " has %" PRIu64
					", not %" PRIu64 "\n",
					p, v, base + SWEEP - 1);
				bad = 1;
			}
		}
	}
	printf("pages %" PRIu64 "\n", read);
	ghostmem_close(g);
	return bad;
}
