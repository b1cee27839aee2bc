// SPDX-License-Identifier: BSD-2-Clause
/*
 * bench harvest: what it costs to take and merge dirty logs, in ms per GiB of RAM.
 *
 *	harvest [--gib N] [--pagemap-mib N] [--dirty PERCENT] [--rounds N]
 *
 * bitmap: a set of two bitmap logs, of this process's devices and of a vhost back end,
 * half of the random dirty pages (1 percent) in each, over sparse RAM of N GiB (64),
 * through dirty_set_harvest(): taken by exchange, merged, counted, and sorted by
 * who wrote. Once with each variant of bitmap.h, the last one is what is used.
 *
 * pair: the same for a bitmap that nobody writes now, as the daemon's log gives it.
 *
 * pagemap: PAGEMAP_SCAN over populated RAM (1,024 MiB) of this process.
 *
 * Prints JSON lines, the median of the rounds; judges nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../user/lib/bitmap.h"
#include "../../user/lib/bitmap_impl.h"
#include "../../user/lib/clock.h"
#include "../../vm-migrate/dirty/dirty.h"

#define MAX_ROUNDS 101

static double gib = 64, dirty = 1;
static unsigned int pagemap_mib = 1024, rounds = 21;
static uint64_t seed = 0x9e3779b97f4a7c15ULL;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void die(const char *what, int err)
{
	fprintf(stderr, "harvest: %s: %s\n", what, strerror(-err));
	exit(1);
}

static void must(const char *what, int err)
{
	if (err)
		die(what, err);
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void print(const char *source, const char *variant, const struct ram *ram,
		  double *ms, uint64_t pages)
{
	double g = (double)ram->bytes / (1 << 30);

	qsort(ms, rounds, sizeof(*ms), by_size);
	printf("{\"bench\":\"harvest\",\"subject\":\"vm-migrate\",\"source\":\"%s\","
	       "\"variant\":\"%s\",\"gib\":%.3f,\"dirty_percent\":%g,\"dirty_pages\":%"
	       "llu,"
	       "\"metric\":\"harvest_ms_per_gib\",\"value\":%.5f,\"best\":%.5f}\n",
	       source, variant, g, dirty, (unsigned long long)pages, ms[rounds / 2] / g,
	       ms[0] / g);
	fflush(stdout);
}

static uint64_t *bits_of(const struct ram *ram)
{
	uint64_t *p = calloc(ram_words(ram) + 1, sizeof(*p));

	if (!p)
		die("bitmap", -ENOMEM);
	return p;
}

static uint64_t dirty_pages(const struct ram *ram)
{
	return (uint64_t)((double)ram->pages * dirty / 100);
}

/* ---- bitmaps -------------------------------------------------------------------------
 */

static void bench_bitmap(const struct ram *ram, const char *variant)
{
	size_t log_bytes =
		(ram->block[ram->nblocks - 1].gpa + ram->block[ram->nblocks - 1].size) >>
		RAM_PAGE_SHIFT >> 3;
	uint64_t *log = calloc(1, log_bytes), *map = bits_of(ram);
	uint64_t *by[DIRTY_BY_COUNT] = { bits_of(ram), bits_of(ram) };
	struct dirty_source *user, *vhost;
	struct dirty_found found = { 0 };
	struct dirty_set *set;
	double ms[MAX_ROUNDS];

	must("set", dirty_set_create(ram, &set));
	must("user", dirty_user_create(ram, &user));
	must("vhost", dirty_vhost_log_create(ram, log, log_bytes, NULL, NULL, &vhost));
	must("add", dirty_set_add(set, user));
	must("add", dirty_set_add(set, vhost));
	must("start", dirty_set_start(set, NULL));
	for (unsigned int r = 0; r < rounds; r++) {
		uint64_t began;

		memset(map, 0, ram_words(ram) * 8);
		for (unsigned int k = 0; k < DIRTY_BY_COUNT; k++)
			memset(by[k], 0, ram_words(ram) * 8);
		for (uint64_t n = dirty_pages(ram); n; n--) {
			uint64_t page = rnd() % ram->pages;

			if (n % 2)
				dirty_user_mark(user, ram_gpa(ram, page), 1);
			else
				bitmap_set_atomic(log, page);
		}
		began = clock_ns();
		dirty_set_harvest(set, map, by, &found);
		ms[r] = (double)(clock_ns() - began) / 1e6;
	}
	print("bitmap", variant, ram, ms, found.merged);
	dirty_set_destroy(set);
	free(log);
	free(map);
	free(by[0]);
	free(by[1]);
}

static void bench_pair(const struct ram *ram, const char *variant)
{
	uint64_t *log = bits_of(ram), *map = bits_of(ram), found = 0;
	double ms[MAX_ROUNDS];

	for (unsigned int r = 0; r < rounds; r++) {
		uint64_t began;

		memset(map, 0, ram_words(ram) * 8);
		for (uint64_t n = dirty_pages(ram); n; n--)
			bitmap_set(log, rnd() % ram->pages);
		began = clock_ns();
		found = bitmap_range(map, 0, log, 0, ram->pages, BITMAP_TAKE);
		ms[r] = (double)(clock_ns() - began) / 1e6;
	}
	print("pair", variant, ram, ms, found);
	free(log);
	free(map);
}

static void bench_bitmaps(void)
{
	struct ram ram;
	unsigned int n;
	const struct bitmap_impl *impl = bitmap_impls(&n);

	ram_init(&ram);
	must("RAM", ram_add(&ram, 0, (uint64_t)(gib * 1024) << 20, 0));
	for (unsigned int i = 0; i < n; i++) {
		bitmap_choose(i);
		bench_pair(&ram, impl[i].name);
		bench_bitmap(&ram, impl[i].name);
	}
	ram_fini(&ram);
}

/* ---- PAGEMAP_SCAN --------------------------------------------------------------------
 */

static void bench_pagemap(void)
{
	struct dirty_source *src;
	struct dirty_found found = { 0 };
	struct dirty_set *set;
	double ms[MAX_ROUNDS];
	struct ram ram;
	uint64_t va, *map;
	int uffd, fd;

	ram_init(&ram);
	must("RAM", ram_add(&ram, 0, (uint64_t)pagemap_mib << 20, 0));
	va = (uintptr_t)ram.block[0].hva;
	uffd = dirty_pagemap_register(ram.block[0].hva, ram.block[0].size);
	if (uffd < 0) {
		fprintf(stderr, "harvest: no PAGEMAP_SCAN: %s\n", strerror(-uffd));
		ram_fini(&ram);
		return;
	}
	for (uint64_t p = 0; p < ram.pages; p++)
		*ram_at(&ram, p) = 1;
	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die("/proc/self/pagemap", -errno);
	map = bits_of(&ram);
	must("set", dirty_set_create(&ram, &set));
	must("pagemap", dirty_pagemap_create(&ram, fd, &va, &src));
	must("add", dirty_set_add(set, src));
	must("start", dirty_set_start(set, NULL));
	for (unsigned int r = 0; r < rounds; r++) {
		uint64_t began;

		memset(map, 0, ram_words(&ram) * 8);
		for (uint64_t n = dirty_pages(&ram); n; n--)
			*ram_at(&ram, rnd() % ram.pages) += 1;
		began = clock_ns();
		dirty_set_harvest(set, map, NULL, &found);
		ms[r] = (double)(clock_ns() - began) / 1e6;
	}
	print("pagemap", "", &ram, ms, found.merged);
	dirty_set_destroy(set);
	free(map);
	close(fd);
	close(uffd);
	ram_fini(&ram);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "gib", required_argument, NULL, 'g' },
		{ "pagemap-mib", required_argument, NULL, 'p' },
		{ "dirty", required_argument, NULL, 'd' },
		{ "rounds", required_argument, NULL, 'r' },
		{ 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'g': gib = strtod(optarg, NULL); break;
		case 'p': pagemap_mib = (unsigned int)strtoul(optarg, NULL, 0); break;
		case 'd': dirty = strtod(optarg, NULL); break;
		case 'r': rounds = (unsigned int)strtoul(optarg, NULL, 0); break;
		default: return 2;
		}
	}
	if (gib <= 0 || dirty < 0 || dirty > 100 || !rounds || rounds > MAX_ROUNDS) {
		fprintf(stderr, "harvest: an argument is out of range\n");
		return 2;
	}
	bench_bitmaps();
	if (pagemap_mib)
		bench_pagemap();
	return 0;
}
