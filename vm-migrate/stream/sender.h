/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sender: pages out of RAM into the streams, one thread a stream.
 *
 * The engine hands over a bitmap; each thread walks the words that belong to its stream
 * (wire.h), and for each word: arms the log (dirty_set_arm, dirty_set_clear), copies the pages
 * into a buffer of its own, hashes them there, leaves out those whose hash is what the
 * peer already has, and sends the others. The copy is what makes hash and payload agree
 * while vCPUs write on; it stays in the cache, and is read from the memfd (ram_read()),
 * so that what was never mapped here takes no page faults.
 *
 * create, round, end, control, destroy: engine thread. stats, limit and cancel: any
 * thread. Stream 0's thread sends KEEPALIVE when it has sent nothing for a second.
 */
#ifndef VMM_SENDER_H
#define VMM_SENDER_H

#include <stdbool.h>
#include <stdint.h>

#include "chan.h"
#include "../digest.h"
#include "../dirty/dirty.h"
#include "../ram.h"
#include "wire.h"

struct sender;

struct sender_conf {
	const struct ram *ram;
	struct dirty_set *dirty;
	struct digest *digest; /* of zeros at first; updated with every page sent */
	/* [streams], shaken hands, HELLO and CONFIG done; kept by the caller */
	struct chan **chan;
	uint32_t *seq; /* [streams] next sequence number of each */
	unsigned int streams;
	int zstd_level;	    /* 0: no compression */
	uint64_t bandwidth; /* bytes per second over all streams, 0: no limit */
	/* [ram_words] who dirtied what, or NULL: only for the counters false_dirty; may
	 * change between rounds only */
	const uint64_t *by[DIRTY_BY_COUNT];
	/*
	 * Of the first round, or NULL: its bitmap is complete. Called by any stream's thread,
	 * several at a time, before it looks at word @w; sets bits from *@known on, what the
	 * last call left there, at first 0, and words before *@known are complete after it,
	 * @w among them. Return: 0, -errno: the round fails
	 */
	int (*find)(void *arg, uint64_t w, uint64_t *known);
	void *find_arg;
	uint64_t find_pages; /* about so many, for sender_stats.left */
};

struct sender_stats {
	uint64_t pages;	     /* sent with data */
	uint64_t zero_pages; /* sent as a note */
	uint64_t same_pages; /* not sent: the peer has that content already */
	uint64_t false_dirty[DIRTY_BY_COUNT]; /* of same_pages, by who reported them */
	uint64_t bytes;			      /* on the wire */
	uint64_t limited_ns;		      /* waited for the bandwidth limit */
	uint64_t left; /* pages of the round that runs, still to be looked at */
};

int sender_create(const struct sender_conf *conf, struct sender **out);
void sender_destroy(struct sender *s); /* NULL is fine */

/**
 * sender_round() - send all pages whose bit is set, and clear the bits
 * @bitmap:	[ram_words(conf.ram)]
 *
 * Return: 0 when everything was handed to the sockets; -ECANCELED; -errno of a stream,
 * then sender_error() says which and why, and the migration has to begin again
 */
int sender_round(struct sender *s, uint64_t *bitmap);

/** sender_set_still() - the machine stands still: no limit of bandwidth until it goes on
 */
void sender_set_still(struct sender *s, bool still);

/** sender_sync() - SYNC number @n on every stream. Return: 0, -errno */
int sender_sync(struct sender *s, uint64_t n);

/** sender_end() - END on every stream. Return: 0, -errno */
int sender_end(struct sender *s);

/** sender_control() - a frame on stream 0, behind what was sent. Return: 0, -errno */
int sender_control(struct sender *s, enum wire_type type, uint64_t arg,
		   const void *payload, uint32_t len);

/** sender_quiet() - no KEEPALIVE any more */
void sender_quiet(struct sender *s);

/** sender_digest() - of all that was sent: conf.digest's sum, without adding it up */
uint64_t sender_digest(const struct sender *s, uint64_t *nonzero);

/** sender_set_bandwidth() - takes effect within 10 ms */
void sender_set_bandwidth(struct sender *s, uint64_t bytes_per_s);
void sender_stats(const struct sender *s, struct sender_stats *stats);

/**
 * sender_cancel() - threads stop between two frames, sender_round() returns -ECANCELED
 *
 * A thread that is in the middle of a frame gets 200 ms before its stream is shut down.
 */
void sender_cancel(struct sender *s);
const char *sender_error(const struct sender *s);

#endif
