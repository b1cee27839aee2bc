/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * receiver: frames from the streams into RAM, one thread a stream.
 *
 * Every byte is foreign: lengths are bounded before use, pages must exist, hashes must
 * match. Page data is read from the socket straight into guest memory, as no one runs
 * there yet, and hashed in place.
 *
 * Stream 0's thread hands every frame that is not PAGES, ZERO, ROUND, END or KEEPALIVE to
 * control(), in order, in that thread.
 */
#ifndef VMM_RECEIVER_H
#define VMM_RECEIVER_H

#include <stdint.h>

#include "chan.h"
#include "digest.h"
#include "ram.h"
#include "wire.h"

struct receiver;

struct receiver_conf {
	const struct ram *ram;
	struct digest *digest; /* of what was received */
	struct chan **chan;    /* [streams], HELLO and CONFIG read; kept by the caller */
	uint32_t *seq;	       /* [streams] next expected */
	unsigned int streams;
	/* 0: go on; 1: this was the last frame; -errno: give up */
	int (*control)(void *arg, const struct wire_head *h, const void *payload);
	void *arg;
};

struct receiver_stats {
	uint64_t pages, zero_pages, bytes;
	uint32_t round;
};

int receiver_create(const struct receiver_conf *conf, struct receiver **r);

/**
 * receiver_run() - until control() returned 1, or something failed
 *
 * All streams' pages up to their END are in RAM before control() sees STATE. Return: 0;
 * -errno, receiver_error() says why
 */
int receiver_run(struct receiver *r);
void receiver_cancel(struct receiver *r); /* any thread */
void receiver_stats(const struct receiver *r, struct receiver_stats *stats);
const char *receiver_error(const struct receiver *r);
void receiver_destroy(struct receiver *r);

#endif
