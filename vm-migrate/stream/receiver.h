/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * receiver: frames from the streams into RAM, one thread a stream.
 *
 * Every byte is foreign: lengths are bounded before use, pages must exist, hashes must
 * match. A page is hashed before it gets into guest memory.
 *
 * Stream 0's thread hands every frame that is not PAGES, ZERO, ROUND, SYNC, END,
 * KEEPALIVE, ERROR or CANCEL to control(), in order, in that thread. The last two end it
 * all.
 */
#ifndef VMM_RECEIVER_H
#define VMM_RECEIVER_H

#include <stdint.h>

#include "chan.h"
#include "../digest.h"
#include "../ram.h"
#include "wire.h"

struct receiver;

struct receiver_conf {
	const struct ram *ram; /* all zeros */
	struct digest *digest; /* of what was received; of zeros at first */
	/* [streams], HELLO and CONFIG read; kept by the caller */
	struct chan **chan;
	uint32_t *seq; /* [streams] next expected */
	unsigned int streams;
	/* 0: go on; 1: this was the last frame; -errno: give up. All streams have sent
	 * END when this is called. @payload: [h->len], valid during the call */
	int (*control)(void *arg, const struct wire_head *h, const void *payload);
	/* SYNC number @n came on all streams; on any stream's thread, one at a time, not
	 * while control() runs. 0 or -errno */
	int (*synced)(void *arg, uint64_t n);
	void *arg;
};

struct receiver_stats {
	uint64_t pages, zero_pages, bytes;
	uint32_t round;
};

int receiver_create(const struct receiver_conf *conf, struct receiver **out);

/**
 * receiver_run() - until control() returned 1, or something failed
 *
 * All streams' pages up to their END are in RAM before control() is called. Return: 0;
 * -ECANCELED: by either side; -errno, receiver_error() says why
 */
int receiver_run(struct receiver *r);
void receiver_cancel(struct receiver *r); /* any thread */
void receiver_stats(const struct receiver *r, struct receiver_stats *stats);
/** receiver_digest() - of all that came: conf.digest's sum, without adding it up; from
 * control(), or when receiver_run() is over */
uint64_t receiver_digest(const struct receiver *r, uint64_t *nonzero);
const char *receiver_error(const struct receiver *r);
void receiver_destroy(struct receiver *r);

/**
 * receiver_head() - a header, before there is a receiver: HELLO and CONFIG
 * @types:	WIRE_BIT()s that may come now, PAGES not among them; another's payload is not read
 * @payload:	set on success to h->len bytes and a NUL, for free(); NULL if there are
 * none
 * @why:	set on failure
 *
 * Return: 0, -errno: as chan_read() and wire_head_check()
 */
int receiver_head(struct chan *chan, uint32_t seq, uint32_t types, struct wire_head *h,
		  void **payload, const char **why);

#endif
