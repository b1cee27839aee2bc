/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sender: pages out of RAM into the streams, one thread a stream.
 *
 * The engine hands over a bitmap; each thread walks the words that belong to its stream
 * (wire.h), and for each word: arms the log again (dirty_set_clear), copies the pages
 * into a buffer of its own, hashes them there, leaves out those whose hash is what the
 * peer already has, and sends the others. The copy is what makes hash and payload agree
 * while vCPUs write on; it is 256 KiB and stays in the cache.
 *
 * create, round, end, destroy: engine thread. stats, limit and cancel: any thread.
 */
#ifndef VMM_SENDER_H
#define VMM_SENDER_H

#include <stdbool.h>
#include <stdint.h>

#include "chan.h"
#include "digest.h"
#include "dirty.h"
#include "ram.h"

struct sender;

struct sender_conf {
	const struct ram *ram;
	struct dirty_set *dirty;
	struct digest *digest; /* updated with every page that is sent */
	struct chan **chan;    /* [streams], shaken hands, HELLO and CONFIG done; kept by
				* the caller */
	uint32_t *seq;	       /* [streams] next sequence number of each */
	unsigned int streams;
	int zstd_level;		/* 0: no compression */
	uint64_t bandwidth;	/* bytes per second over all streams, 0: no limit */
	const uint64_t *by_cpu; /* [ram_words] who dirtied what, or NULL: only for the */
	const uint64_t
		*by_device; /* counters false_dirty; may change between rounds only */
};

struct sender_stats {
	uint64_t pages;	     /* sent with data */
	uint64_t zero_pages; /* sent as a note */
	uint64_t same_pages; /* not sent: the peer has that content already */
	uint64_t false_dirty[DIRTY_BY_COUNT]; /* of same_pages, by who reported them */
	uint64_t bytes;			      /* on the wire */
	uint64_t limited_ns;		      /* waited for the bandwidth limit */
};

int sender_create(const struct sender_conf *conf, struct sender **s);
void sender_destroy(struct sender *s);

/**
 * sender_round() - send all pages whose bit is set, and clear the bits
 * @bitmap:	[ram_words(conf.ram)]
 * @first:	nothing was sent yet: pages that are zero need no note (the peer's RAM is
 *		fresh)
 *
 * Return: 0 when everything was handed to the sockets; -ECANCELED; -errno of a stream,
 *then sender_error() says which and why. Bits of pages that were not sent are still set
 */
int sender_round(struct sender *s, uint64_t *bitmap, bool first);

/** sender_end() - END on every stream. Return: 0, -errno */
int sender_end(struct sender *s);

/** sender_set_bandwidth() - takes effect within 10 ms */
void sender_set_bandwidth(struct sender *s, uint64_t bytes_per_s);
void sender_stats(const struct sender *s, struct sender_stats *stats);
void sender_cancel(struct sender *s);
const char *sender_error(const struct sender *s);

#endif
