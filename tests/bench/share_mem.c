// SPDX-License-Identifier: BSD-2-Clause
/*
 * share_mem: what ghostmem costs an application.
 *
 *	share_mem run SOCKET REGION KEY		as an importer
 *	share_mem sharers N SOCKET...		first socket: owner's agent; a page that N
 *						others hold to read is written by its
 *						owner; pages that N-1 hold are read by
 *						one more
 *
 * METRIC VALUE UNIT, a line each. The region has 128 MiB that nobody else uses:
 *
 *	0	faults: pages, as large as the region's, in random order, none of them
 *		here before
 *	32 MiB	scan: all words, in order
 *	96 MiB	random updates (GUPS): 8-byte exclusive or, by loads and stores, all of
 *		the 16 MiB absent at first
 *	112 MiB	get, put, atomics: pages at home; then stores to all words, in order
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../user/lib/clock.h"
#include "../../user/share/ghostmem.h"

#define MIB	(1ull << 20)
#define PAGE	4096
#define FAULTS	3000
#define OPS	20000
#define BIG	256
#define UPDATES (1u << 20)

static uint64_t ns[OPS];

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void say(const char *name, unsigned int n)
{
	qsort(ns, n, sizeof(*ns), by_value);
	printf("%s_us_p50 %.3f us\n", name, (double)ns[n / 2] / 1e3);
	printf("%s_us_p99 %.3f us\n", name, (double)ns[n * 99ull / 100] / 1e3);
}

static void must(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "share_mem: %s: %s\n", what, strerror(-err));
	exit(1);
}

/* 0 to @n - 1 in random order */
static void shuffle(unsigned int *page, unsigned int n)
{
	unsigned int seed = 1;

	for (unsigned int i = 0; i < n; i++) {
		unsigned int j = (unsigned int)rand_r(&seed) % (i + 1);

		page[i] = page[j];
		page[j] = i;
	}
}

static void faults(volatile uint8_t *p, uint64_t size)
{
	static unsigned int page[32 * MIB / PAGE];
	unsigned int pages = (unsigned int)(32 * MIB / size);
	unsigned int n = pages / 2 < FAULTS ? pages / 2 : FAULTS;

	shuffle(page, pages);
	for (unsigned int i = 0; i < n; i++) {
		uint64_t t = clock_ns();

		(void)p[page[i] * size];
		ns[i] = clock_ns() - t;
	}
	say("read_fault", n);
	for (unsigned int i = 0; i < n; i++) {
		uint64_t t = clock_ns();

		p[page[i] * size] = 1;
		ns[i] = clock_ns() - t;
	}
	say("upgrade", n);
	for (unsigned int i = 0; i < n; i++) {
		uint64_t t = clock_ns();

		p[page[n + i] * size] = 1;
		ns[i] = clock_ns() - t;
	}
	say("write_fault", n);
}

static void ops(struct ghostmem_region *r)
{
	static uint8_t buf[MIB];
	uint64_t base = 112 * MIB, t;

	for (unsigned int i = 0; i < OPS; i++) {
		t = clock_ns();
		must(ghostmem_get(r, base + i % 512 * 8, buf, 8), "get");
		ns[i] = clock_ns() - t;
	}
	say("get8", OPS);
	for (unsigned int i = 0; i < OPS; i++) {
		t = clock_ns();
		must(ghostmem_get(r, base + i % 256 * PAGE, buf, PAGE), "get");
		ns[i] = clock_ns() - t;
	}
	say("get4k", OPS);
	for (unsigned int i = 0; i < OPS; i++) {
		t = clock_ns();
		must(ghostmem_put(r, base + i % 512 * 8, buf, 8), "put");
		ns[i] = clock_ns() - t;
	}
	say("put8", OPS);
	for (unsigned int i = 0; i < OPS; i++) {
		t = clock_ns();
		must(ghostmem_put(r, base + i % 256 * PAGE, buf, PAGE), "put");
		ns[i] = clock_ns() - t;
	}
	say("put4k", OPS);
	for (unsigned int i = 0; i < OPS; i++) {
		t = clock_ns();
		must(ghostmem_fetch_add(r, base, 1, NULL), "fetch_add");
		ns[i] = clock_ns() - t;
	}
	say("fetch_add", OPS);
	t = clock_ns();
	for (unsigned int i = 0; i < BIG; i++)
		must(ghostmem_get(r, base + i % 16 * MIB, buf, MIB), "get");
	t = clock_ns() - t;
	printf("get1m_gbps %.3f Gbit/s\n", (double)BIG * MIB * 8 / (double)t);
	t = clock_ns();
	for (unsigned int i = 0; i < BIG; i++)
		must(ghostmem_put(r, base + i % 16 * MIB, buf, MIB), "put");
	t = clock_ns() - t;
	printf("put1m_gbps %.3f Gbit/s\n", (double)BIG * MIB * 8 / (double)t);
}

static int run(char **argv)
{
	struct ghostmem_import in = { .name = argv[3], .key = argv[4] };
	static uint8_t fill[MIB];
	struct ghostmem_region *r;
	struct ghostmem *g;
	volatile uint64_t *w;
	uint64_t t, sum = 0, x = 88172645463325252ull;

	in.key_len = strlen(argv[4]);
	must(ghostmem_open(argv[2], &g), "open");
	must(ghostmem_import(g, &in, &r), "import");
	memset(fill, 3, sizeof(fill));
	for (uint64_t at = 0; at < ghostmem_size(r); at += MIB)
		must(ghostmem_put(r, at, fill, MIB), "put");
	faults(ghostmem_addr(r), ghostmem_page_size(r));

	w = (volatile uint64_t *)((char *)ghostmem_addr(r) + 32 * MIB);
	t = clock_ns();
	for (uint64_t i = 0; i < 64 * MIB / 8; i++)
		sum += w[i];
	t = clock_ns() - t;
	if (sum != 64 * MIB / 8 * 0x0303030303030303ull)
		must(-5, "scan: wrong sum");
	printf("scan_gbps %.3f Gbit/s\n", 64.0 * MIB * 8 / (double)t);

	ops(r);

	w = (volatile uint64_t *)((char *)ghostmem_addr(r) + 112 * MIB);
	t = clock_ns();
	for (uint64_t i = 0; i < 16 * MIB / 8; i++)
		w[i] = i;
	t = clock_ns() - t;
	printf("store_gbps %.3f Gbit/s\n", 16.0 * MIB * 8 / (double)t);

	w = (volatile uint64_t *)((char *)ghostmem_addr(r) + 96 * MIB);
	t = clock_ns();
	for (unsigned int i = 0; i < UPDATES; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		w[x % (16 * MIB / 8)] ^= x;
	}
	t = clock_ns() - t;
	printf("gups %.6f 1e9/s\n", (double)UPDATES / (double)t);
	ghostmem_close(g);
	return 0;
}

/* Read all pages but the first, which the caller uses: at all importers but @r[0], then,
 * timed, there. */
static void read_shared(struct ghostmem_region **r, int n)
{
	enum { PAGES = MIB / PAGE };
	static unsigned int page[PAGES];
	unsigned int k = 0;

	shuffle(page, PAGES);
	for (int i = n - 1; i >= 0; i--) {
		volatile uint8_t *p = ghostmem_addr(r[i]);

		for (unsigned int j = k = 0; j < PAGES; j++) {
			uint64_t t = clock_ns();

			if (!page[j])
				continue;
			(void)p[page[j] * (size_t)PAGE];
			ns[k++] = clock_ns() - t;
		}
	}
	say("shared_read_fault", k);
}

static int sharers(int n, char **sockets)
{
	struct ghostmem_export e = { .size = MIB, .key = "k", .key_len = 1, .memfd = -1 };
	struct ghostmem_import in = { .key = "k", .key_len = 1 };
	struct ghostmem *g;
	struct ghostmem_region *owner, *r[64];
	char name[32];
	enum { TIMES = 200 };

	snprintf(name, sizeof(name), "sharers-%d-%d", n, (int)getpid());
	e.name = in.name = name;
	must(ghostmem_open(sockets[0], &g), "open");
	must(ghostmem_export(g, &e, &owner), "export");
	for (int i = 0; i < n; i++) {
		struct ghostmem *other;

		must(ghostmem_open(sockets[i + 1], &other), "open");
		must(ghostmem_import(other, &in, &r[i]), "import");
	}
	for (int k = 0; k < TIMES; k++) {
		volatile uint64_t *w = ghostmem_addr(owner);
		uint64_t t;

		for (int i = 0; i < n; i++)
			if (*(volatile uint64_t *)ghostmem_addr(r[i]) != (uint64_t)k)
				must(-5, "a sharer read another value");
		t = clock_ns();
		*w = (uint64_t)k + 1;
		ns[k] = clock_ns() - t;
	}
	say("invalidate", TIMES);
	read_shared(r, n);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "run"))
		return run(argv);
	if (argc > 4 && !strcmp(argv[1], "sharers") && atoi(argv[2]) <= argc - 4 &&
	    atoi(argv[2]) <= 64)
		return sharers(atoi(argv[2]), argv + 3);
	return 2;
}
