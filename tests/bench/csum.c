// SPDX-License-Identifier: BSD-2-Clause
/*
 * bench csum: ns per 1,460 bytes of every csum() variant, and of memcpy() beside them.
 *
 * Payloads lie 54 bytes into 4 KiB chunks, as behind Ethernet, IPv4 and TCP headers.
 * Three working sets: one chunk (L1), 64 chunks (a burst, L2), 16,384 chunks (memory).
 * Prints JSON lines, one a subject and round; judges nothing. Argument: rounds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../user/lib/csum.h"

#define CHUNK	4096  /* bytes */
#define PAYLOAD 1460  /* bytes */
#define OFFSET	54    /* chunk start to payload, bytes */
#define CALLS	65536 /* per measurement */
#define ROUNDS	7

static const struct {
	const char *name;
	size_t chunks;
} sets[] = { { "l1", 1 }, { "l2", 64 }, { "memory", 16384 } };

static volatile uint16_t sink; /* keeps the calls */

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static uint16_t just_copy(void *dst, const void *src, size_t len)
{
	memcpy(dst, src, len);
	return 0;
}

static double run_sum(uint16_t (*sum)(const void *, size_t), const uint8_t *buf,
		      size_t chunks)
{
	double start = now_ns();
	uint16_t x = 0;

	for (size_t i = 0; i < CALLS; i++)
		x ^= sum(buf + (i & (chunks - 1)) * CHUNK + OFFSET, PAYLOAD);
	sink = x;
	return (now_ns() - start) / CALLS;
}

static double run_copy(uint16_t (*copy)(void *, const void *, size_t), uint8_t *dst,
		       const uint8_t *buf, size_t chunks)
{
	double start = now_ns();
	uint16_t x = 0;

	for (size_t i = 0; i < CALLS; i++)
		x ^= copy(dst + OFFSET, buf + (i & (chunks - 1)) * CHUNK + OFFSET,
			  PAYLOAD);
	sink = x;
	return (now_ns() - start) / CALLS;
}

static void report(unsigned long round, const char *subject, const char *metric,
		   const char *set, double ns)
{
	printf("{\"bench\":\"csum\",\"round\":%lu,\"subject\":\"%s\",\"metric\":\"%s_%"
	       "s\","
	       "\"value\":%.2f,\"unit\":\"ns\"}\n",
	       round, subject, metric, set, ns);
}

int main(int argc, char **argv)
{
	unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : ROUNDS;
	size_t size = sets[2].chunks * CHUNK;
	uint8_t *buf = aligned_alloc(CHUNK, size), *dst = aligned_alloc(CHUNK, CHUNK);
	const struct csum_impl *impl;
	unsigned int n;
	int ret = 1;

	if (!buf || !dst) {
		fprintf(stderr, "csum: out of memory\n");
		goto free_bufs;
	}
	for (size_t i = 0; i < size; i++)
		buf[i] = (uint8_t)(i * 2654435761u >> 13);
	memset(dst, 0, CHUNK);
	impl = csum_impls(&n);
	for (unsigned long r = 0; r < rounds; r++) {
		for (size_t s = 0; s < sizeof(sets) / sizeof(sets[0]); s++) {
			size_t chunks = sets[s].chunks;

			for (unsigned int i = 0; i < n; i++) {
				report(r, impl[i].name, "sum", sets[s].name,
				       run_sum(impl[i].sum, buf, chunks));
				report(r, impl[i].name, "copy", sets[s].name,
				       run_copy(impl[i].copy, dst, buf, chunks));
			}
			report(r, "memcpy", "copy", sets[s].name,
			       run_copy(just_copy, dst, buf, chunks));
		}
	}
	ret = 0;

free_bufs:
	free(dst);
	free(buf);
	return ret;
}
