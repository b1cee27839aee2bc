/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rig: a umem, its pool and an aggregator, fed with frames as the RX ring would.
 *
 * Each chunk is one page of a mapping of its own, so that a test can take away a
 * packet's page. Which packet a chunk was given to is remembered: a chain's mbufs
 * then say which packets were merged, without a look at any byte.
 */
#ifndef GN_TEST_RIG_H
#define GN_TEST_RIG_H

#include "../../user/daemon/agg.h"

#define RIG_CHUNK    4096 /* bytes */
#define RIG_HEADROOM 256  /* bytes before a frame in its chunk */
#define RIG_BUF	     (RIG_CHUNK - RIG_HEADROOM)
#define RIG_MAX_OUT  2048

#define RIG_MAX_BURST 64

struct rig {
	struct mbuf_pool pool;
	struct agg agg;
	uint8_t *mem;
	size_t size; /* bytes of mem */
	int *packet; /* [nchunks] packet a chunk was last given to */
	struct mbuf *head[RIG_MAX_OUT];
	struct agg_out out;    /* into head[] */
	uint64_t runs;	       /* packets that agg_run() took */
	struct gn_meta before; /* of the packet pushed last by rig_push_all() */
};

/** rig_init() - Return: 0, -errno */
int rig_init(struct rig *r, uint32_t nchunks, const struct agg_conf *conf);
void rig_fini(struct rig *r);

/** rig_restart() - a new aggregator with another configuration; nothing is open */
int rig_restart(struct rig *r, const struct agg_conf *conf);

/**
 * rig_packet() - a frame in chunks, ready for agg_push()
 * @id:		number of the packet
 * @first:	bytes in the first buffer, 0: as many as fit
 * @rest:	bytes in each further buffer, 0: as many as fit
 */
struct mbuf *rig_packet(struct rig *r, int id, const uint8_t *frame, uint32_t len,
			const struct gn_meta *meta, uint32_t first, uint32_t rest);

/* Tests that push packets one by one run twice: agg_push() alone, and what agg_run()
 * takes before it. */
extern bool rig_in_runs;

/** rig_push() - agg_push(); what comes out is appended to r->out */
void rig_push(struct rig *r, struct mbuf *m, uint64_t now_ns);

/** rig_push_all() - as a worker does a burst: agg_run() what it takes, agg_push() the
 * rest.
 * @n:		up to RIG_MAX_BURST */
void rig_push_all(struct rig *r, struct mbuf **m, uint32_t n, uint64_t now_ns);

/** rig_flush() - agg_flush() until it says that nothing due is left */
void rig_flush(struct rig *r, uint64_t now_ns);

/** rig_chain_ids() - packets of a chain, in order. Return: their number, at most @max */
unsigned int rig_chain_ids(const struct rig *r, const struct mbuf *head, int *id,
			   unsigned int max);

/**
 * rig_account() - is every chunk free exactly once, or in one chain of r->out?
 * Return: NULL, or what is wrong
 */
const char *rig_account(const struct rig *r);

#endif
