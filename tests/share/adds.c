// SPDX-License-Identifier: BSD-2-Clause
/*
 * adds: increments of shared words, none of which may be lost or done twice.
 *
 *	adds run SOCKET REGION KEY OFFSET STOP	until the file STOP is there
 *	adds check SOCKET REGION KEY OFFSET N	the words' sum is N
 *
 * Three words, in two pages at OFFSET: one is added to by ghostmem_fetch_add(), one by
 * ghostmem_compare_swap(), one by fetch_add and by the processor, in turn. "run" says
 * "begun", then how many increments it made.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../../user/share/ghostmem.h"

#define TRIES 200 /* 20 s */

enum { ADD = 0, SWAP = 64, BOTH = 4096 };

static int by_swap(struct ghostmem_region *r, uint64_t off)
{
	static uint64_t seen;
	uint64_t old;
	int err;

	for (;;) {
		err = ghostmem_compare_swap(r, off, seen, seen + 1, &old);
		if (err)
			return err;
		if (old == seen) {
			seen++;
			return 0;
		}
		seen = old;
	}
}

static int run(struct ghostmem_region *r, uint64_t off, const char *stop)
{
	uint64_t *both = (uint64_t *)((char *)ghostmem_addr(r) + off + BOTH);
	uint64_t n = 0, old, least = 0;
	int err = 0;

	printf("begun\n");
	fflush(stdout);
	while (!err && (n % 64 || access(stop, F_OK))) {
		switch (n % 4) {
		case 0:
			err = ghostmem_fetch_add(r, off + ADD, 1, &old);
			/* What others add may come between, never less. */
			if (!err && old < least)
				return -EBADMSG;
			least = old + 1;
			break;
		case 1: __atomic_fetch_add(both, 1, __ATOMIC_SEQ_CST); break;
		case 2: err = ghostmem_fetch_add(r, off + BOTH, 1, NULL); break;
		default: err = by_swap(r, off + SWAP); break;
		}
		n += !err;
	}
	printf("%" PRIu64 "\n", n);
	return err;
}

static int check(struct ghostmem_region *r, uint64_t off, uint64_t want)
{
	uint64_t add, swap, both;
	int err = ghostmem_get(r, off + ADD, &add, 8);

	if (!err)
		err = ghostmem_get(r, off + SWAP, &swap, 8);
	if (!err)
		err = ghostmem_get(r, off + BOTH, &both, 8);
	if (err)
		return err;
	printf("%" PRIu64 " + %" PRIu64 " + %" PRIu64 ", made: %" PRIu64 "\n", add, swap,
	       both, want);
	return want && add + swap + both == want ? 0 : -EBADMSG;
}

/* An agent that took over a moment ago asks importers to come again. */
static int import(struct ghostmem *g, const struct ghostmem_import *in,
		  struct ghostmem_region **r)
{
	const struct timespec pause = { .tv_nsec = 100000000 };
	int err = ghostmem_import(g, in, r);

	for (int i = 0; err == -EAGAIN && i < TRIES; i++) {
		nanosleep(&pause, NULL);
		err = ghostmem_import(g, in, r);
	}
	return err;
}

int main(int argc, char **argv)
{
	struct ghostmem_import in = { 0 };
	struct ghostmem_region *r;
	struct ghostmem *g;
	uint64_t off;
	int err;

	if (argc != 7)
		return 2;
	in.name = argv[3];
	in.key = argv[4];
	in.key_len = strlen(argv[4]);
	off = strtoull(argv[5], NULL, 0);
	err = ghostmem_open(argv[2], &g);
	if (!err)
		err = import(g, &in, &r);
	if (!err && !strcmp(argv[1], "run"))
		err = run(r, off, argv[6]);
	else if (!err)
		err = check(r, off, strtoull(argv[6], NULL, 0));
	if (err) {
		fprintf(stderr, "adds: %s\n", strerror(-err));
		return 1;
	}
	ghostmem_close(g);
	return 0;
}
