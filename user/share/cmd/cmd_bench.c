// SPDX-License-Identifier: BSD-2-Clause
/*
 * cmd_bench: what a region costs from here. Every operation is timed by itself. It writes
 * to the region: the first page's last word is added to, and bytes are put back as they
 * were read.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../bus.h"
#include "cmd.h"
#include "../../lib/clock.h"

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void say(const struct cmd_opts *o, const char *what, uint64_t *ns, unsigned int n)
{
	uint64_t p50, p99;

	qsort(ns, n, sizeof(*ns), by_value);
	p50 = ns[n / 2];
	p99 = ns[n * 99ull / 100];
	if (o->json)
		cmd_json(json_pack("{s:s,s:f,s:f,s:i}", "op", what, "p50_us",
				   (double)p50 / 1e3, "p99_us", (double)p99 / 1e3, "n",
				   (int)n));
	else
		printf("%-12s p50 %9.2f us   p99 %9.2f us   n %u\n", what,
		       (double)p50 / 1e3, (double)p99 / 1e3, n);
}

static int time_op(const struct cmd_opts *o, struct ghostmem_region *r, const char *what,
		   size_t len, uint64_t *ns, unsigned int n, uint8_t *buf)
{
	uint64_t word = GM_PAGE_SIZE - 8;
	int err = ghostmem_get(r, 0, buf, len);

	for (unsigned int i = 0; !err && i < n; i++) {
		uint64_t t = clock_ns();

		if (*what == 'g')
			err = ghostmem_get(r, 0, buf, len);
		else if (*what == 'p')
			err = ghostmem_put(r, 0, buf, len);
		else
			err = ghostmem_fetch_add(r, word, 1, NULL);
		ns[i] = clock_ns() - t;
	}
	if (!err)
		say(o, what, ns, n);
	return err;
}

static int run_bench(const struct cmd_opts *o, int argc, char **argv)
{
	unsigned int n = o->count ? o->count : 10000, pages;
	struct ghostmem_region *r;
	struct ghostmem *g;
	uint64_t *ns = calloc(n, sizeof(*ns));
	size_t big = 1u << 20;
	uint8_t *buf = malloc(big);
	const volatile uint8_t *p;
	int rc, err;

	if (!ns || !buf) {
		rc = cmd_error(o, -ENOMEM, "bench");
		goto out;
	}
	rc = cmd_open(o, argv[0], 0, &g, &r);
	if (rc)
		goto out;
	if (big > ghostmem_size(r))
		big = ghostmem_size(r);
	/* Every page once, with gaps that no prefetch foresees. */
	p = ghostmem_addr(r);
	pages = (unsigned int)(ghostmem_size(r) / GM_PAGE_SIZE / 7);
	if (pages > n)
		pages = n;
	for (unsigned int i = 0; i < pages; i++) {
		uint64_t at = (uint64_t)i * 7 % (ghostmem_size(r) / GM_PAGE_SIZE);
		uint64_t t = clock_ns();

		(void)p[at * GM_PAGE_SIZE];
		ns[i] = clock_ns() - t;
	}
	if (pages)
		say(o, "read_fault", ns, pages);
	err = time_op(o, r, "get8", 8, ns, n, buf);
	if (!err)
		err = time_op(o, r, "get4k", GM_PAGE_SIZE, ns, n, buf);
	if (!err)
		err = time_op(o, r, "get1m", big, ns, n / 50 + 1, buf);
	if (!err)
		err = time_op(o, r, "put8", 8, ns, n, buf);
	if (!err)
		err = time_op(o, r, "put4k", GM_PAGE_SIZE, ns, n, buf);
	if (!err)
		err = time_op(o, r, "fetch_add", 8, ns, n, buf);
	if (err)
		rc = cmd_error(o, err, "bench on %s", argv[0]);
	ghostmem_close(g);
out:
	free(ns);
	free(buf);
	return rc;
}

const struct cmd cmd_bench = {
	"bench", "REGION",  "time faults, gets, puts and atomics; adds to one word", 1, 1,
	"kn",	 run_bench,
};
