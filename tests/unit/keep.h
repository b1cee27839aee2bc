/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * keep: a sink that keeps every frame gso_segment() makes, and a judge of them.
 * Shares no code with what it judges. No test framework: fuzz targets use it too.
 */
#ifndef GN_TEST_KEEP_H
#define GN_TEST_KEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "../../user/daemon/gso.h"

#define KEEP_MAX 64 /* frames */

struct keep {
	struct gso_sink sink;
	struct {
		uint32_t len;
		uint8_t *data; /* exactly @len bytes, so that a sanitizer sees more */
	} frame[KEEP_MAX];
	unsigned int n;
	unsigned int max; /* the sink is dry after so many */
};

/** keep_init() - empty, for at most @max frames, up to KEEP_MAX */
void keep_init(struct keep *k, unsigned int max);

/** keep_fini() - free the frames; empty again */
void keep_fini(struct keep *k);

/** keep_fill() - @len bytes that only @seed decides */
void keep_fill(uint8_t *p, uint32_t len, uint32_t seed);

/**
 * keep_l4() - find the TCP or UDP header of a well-formed frame
 * @f:		frame; @ip, @proto: set to its IP header and protocol
 * Return: L4 header
 */
const uint8_t *keep_l4(const uint8_t *f, const uint8_t **ip, uint8_t *proto);

/** keep_good() - lengths and checksums of a TCP or UDP frame are right */
bool keep_good(const uint8_t *f, uint32_t len);

#endif
