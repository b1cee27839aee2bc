// SPDX-License-Identifier: BSD-2-Clause
/*
 * node: an application that does what it is told on standard input, a command a line, and
 * answers each with one line. SIGBUS on a load or store is answered with "sigbus".
 *
 *	export NAME SIZE KEY | import NAME KEY		-> ok BUS
 *	load OFF | store OFF VALUE			-> VALUE | ok
 *	get OFF | put OFF VALUE | add OFF VALUE		-> VALUE | ok | VALUE before
 *	page OFF VALUE			4 KiB of it, by one put -> ok
 *	count OFF N			N increments by load and compare_swap of its own
 * CPU sum OFF LEN			sum of all 64-bit words, by loads fill OFF LEN
 * VALUE		store to all of them
 *	fault OFF N | getlat N		median, 99th percentile in ns
 *	event				-> TYPE or none, waits 10 s
 *	hold NAME KEY			import it beside the other one, store 7 to it -> ok BUS
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../user/lib/clock.h"
#include "../../user/share/ghostmem.h"

static sigjmp_buf on_bus;
static struct ghostmem_region *region;

static void bus_error(int sig)
{
	siglongjmp(on_bus, 1);
}

static uint64_t *word(uint64_t off)
{
	return (uint64_t *)((char *)ghostmem_addr(region) + off);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void percentiles(uint64_t *t, size_t n)
{
	qsort(t, n, sizeof(*t), by_value);
	printf("%" PRIu64 " %" PRIu64 "\n", t[n / 2], t[n - 1 - n / 100]);
}

static void answer(int err, uint64_t v)
{
	if (err)
		printf("error %s\n", strerrorname_np(-err));
	else
		printf("%" PRIu64 "\n", v);
}

static void touch(uint64_t off, uint64_t n)
{
	uint64_t *t = calloc(n, sizeof(*t));

	for (uint64_t i = 0; t && i < n; i++) {
		uint64_t from = clock_ns();

		/* Backwards: no prefetch. */
		__atomic_load_n(word(off + ((n - 1 - i) << 12)), __ATOMIC_SEQ_CST);
		t[i] = clock_ns() - from;
	}
	percentiles(t, n);
	free(t);
}

static void latency(uint64_t n)
{
	uint64_t *t = calloc(n, sizeof(*t)), v;

	for (uint64_t i = 0; t && i < n; i++) {
		uint64_t from = clock_ns();

		if (ghostmem_get(region, 0, &v, sizeof(v)))
			printf("error\n");
		t[i] = clock_ns() - from;
	}
	percentiles(t, n);
	free(t);
}

static void do_event(struct ghostmem *g)
{
	struct ghostmem_event e;

	for (int i = 0; i < 100; i++) {
		if (ghostmem_next_event(g, &e) > 0) {
			printf("%d\n", e.type);
			return;
		}
		poll(NULL, 0, 100);
	}
	printf("none\n");
}

static void memory(const char *cmd, uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t v = 0, i;

	if (!strcmp(cmd, "load")) {
		answer(0, __atomic_load_n(word(a), __ATOMIC_SEQ_CST));
	} else if (!strcmp(cmd, "store")) {
		__atomic_store_n(word(a), b, __ATOMIC_SEQ_CST);
		printf("ok\n");
	} else if (!strcmp(cmd, "count")) {
		for (i = 0; i < b; i++)
			__atomic_fetch_add(word(a), 1, __ATOMIC_SEQ_CST);
		printf("ok\n");
	} else if (!strcmp(cmd, "sum")) {
		for (i = 0; i < b; i += 8)
			v += __atomic_load_n(word(a + i), __ATOMIC_RELAXED);
		answer(0, v);
	} else if (!strcmp(cmd, "fill")) {
		for (i = 0; i < b; i += 8)
			__atomic_store_n(word(a + i), c, __ATOMIC_RELAXED);
		printf("ok\n");
	} else if (!strcmp(cmd, "fault")) {
		touch(a, b);
	} else {
		printf("error what?\n");
	}
}

static void open_region(struct ghostmem *g, const char *cmd, char *name, char *x, char *y)
{
	struct ghostmem_export e = { .name = name, .memfd = -1 };
	struct ghostmem_import i = { .name = name };
	int err;

	ghostmem_release(region);
	region = NULL;
	if (*cmd == 'e') {
		e.size = strtoull(x, NULL, 0);
		e.key = y;
		e.key_len = strlen(y);
		err = ghostmem_export(g, &e, &region);
	} else {
		i.key = x;
		i.key_len = strlen(x);
		err = ghostmem_import(g, &i, &region);
	}
	if (err)
		answer(err, 0);
	else
		printf("ok %" PRIu64 "\n", ghostmem_bus(region));
}

static void hold(struct ghostmem *g, const char *name, const char *key)
{
	struct ghostmem_import i = { .name = name, .key = key, .key_len = strlen(key) };
	struct ghostmem_region *r;
	int err = ghostmem_import(g, &i, &r);

	if (err) {
		answer(err, 0);
		return;
	}
	*(volatile uint64_t *)ghostmem_addr(r) = 7;
	printf("ok %" PRIu64 "\n", ghostmem_bus(r));
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = bus_error, .sa_flags = SA_NODEFER };
	char line[256], cmd[16], x[80], y[80], z[80];
	struct ghostmem *g;
	int err;

	sigaction(SIGBUS, &sa, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	err = ghostmem_open(argc > 1 ? argv[1] : NULL, &g);
	if (err) {
		fprintf(stderr, "node: agent: %s\n", strerror(-err));
		return 1;
	}
	while (fgets(line, sizeof(line), stdin)) {
		static uint64_t a, b, v; /* outlive siglongjmp() */
		static int n;

		n = sscanf(line, "%15s %79s %79s %79s", cmd, x, y, z);
		v = 0;

		if (n < 1)
			continue;
		if (!strcmp(cmd, "export") || !strcmp(cmd, "import")) {
			open_region(g, cmd, x, n > 2 ? y : x, n > 3 ? z : x);
			continue;
		}
		if (!strcmp(cmd, "hold")) {
			hold(g, x, y);
			continue;
		}
		if (!strcmp(cmd, "event")) {
			do_event(g);
			continue;
		}
		if (!region) {
			printf("error no region\n");
			continue;
		}
		a = n > 1 ? strtoull(x, NULL, 0) : 0;
		b = n > 2 ? strtoull(y, NULL, 0) : 0;
		if (!strcmp(cmd, "get")) {
			err = ghostmem_get(region, a, &v, sizeof(v));
			answer(err, v);
		} else if (!strcmp(cmd, "put")) {
			err = ghostmem_put(region, a, &b, sizeof(b));
			answer(err, 0);
		} else if (!strcmp(cmd, "page")) {
			uint64_t page[512];

			for (size_t i = 0; i < 512; i++)
				page[i] = b;
			err = ghostmem_put(region, a, page, sizeof(page));
			if (err)
				answer(err, 0);
			else
				printf("ok\n");
		} else if (!strcmp(cmd, "add")) {
			err = ghostmem_fetch_add(region, a, b, &v);
			answer(err, v);
		} else if (!strcmp(cmd, "getlat")) {
			latency(a);
		} else if (sigsetjmp(on_bus, 1)) {
			printf("sigbus\n");
		} else {
			memory(cmd, a, b, n > 3 ? strtoull(z, NULL, 0) : 0);
		}
	}
	ghostmem_release(region);
	ghostmem_close(g);
	return 0;
}
