/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Receive aggregation: segments of one flow become one chain of addresses.
 *
 * The decision uses struct gn_meta only. Header bytes are read and written in
 * one place, gso_finish() (gso.h), on the head of a chain that is complete. What
 * may merge follows the kernel's GRO (net/ipv4/tcp_offload.c, net/core/gro.c)
 * and is stricter in one point: a segment whose L4 checksum was not shown to be
 * good never merges, or (carry) its checksum goes on into the chain's.
 *
 * Two identifiers decide. meta.flow places a segment: the table holds at most one open
 * chain per slot, so nothing of one flow ever overtakes anything else of it, and
 * two flows in one slot cost merges, not correctness. meta.key, which
 * XDP gives only to segments whose headers it found equal, says whether it may join.
 *
 * Thread: one worker. No I/O, no allocation after init.
 */
#ifndef GN_AGG_H
#define GN_AGG_H

#include "mbuf.h"

#define AGG_SLOTS    4096 /* table size, a power of two */
#define AGG_MAX_OPEN 1024 /* chains open at once */
/* mbufs of one chain, so that a port's address list is bounded. */
#define AGG_MAX_BUFS   128
#define AGG_MAX_IP_LEN 65535 /* bytes, IP header to payload end */
/* Datagrams of one chain: UDP_MAX_SEGMENTS, above which kernels refuse a frame of
 * VIRTIO_NET_HDR_GSO_UDP_L4. Newer ones allow 128. */
#define AGG_MAX_UDP 64

enum agg_checksum {
	AGG_VERIFY, /* every payload was summed before it merges, by XDP or here; or it
		     * is by whom the chain goes to, see agg_later() */
	AGG_CARRY,  /* add the claimed sums; the receiver checks */
};

struct agg_conf {
	enum agg_checksum checksum;
	bool trust_partial; /* believe GN_F_CSUM_PARTIAL: local link only */
	uint32_t max_held;  /* buffers in open chains; the oldest leaves beyond it */
	uint64_t hold_ns;   /* a chain may wait so long for its next segment;
			     * 0: until the end of the burst */
};

/* X(field, meaning): counters, written by the worker, read by anyone. */
#define AGG_COUNTERS(X)                                                                  \
	X(packets, "packets taken")                                                      \
	X(supers, "chains of two or more segments delivered")                            \
	X(merged, "packets in those chains")                                             \
	X(bad_csum, "segments kept apart: bad L4 checksum")                              \
	X(evicted, "chains closed early: another flow needed the slot")                  \
	X(starved, "chains closed early: too many buffers held")

struct agg_stats {
#define AGG_FIELD(f, help) uint64_t f;
	AGG_COUNTERS(AGG_FIELD)
#undef AGG_FIELD
};

struct agg {
	struct agg_conf conf;
	struct mbuf_pool *pool;
	uint16_t *slot;		 /* [AGG_SLOTS] entry of open[] that holds it, or none */
	struct agg_open *open;	 /* [AGG_MAX_OPEN] ring of open chains, oldest first */
	uint32_t oldest, newest; /* free-running positions in open[] */
	struct agg_open *last;	 /* entry of the last chain opened or joined, or NULL */
	uint32_t held;		 /* buffers in open chains */
	/* Bit GN_INSTANCE_INDEX(): its port verifies. */
	uint64_t later[GN_MAX_INSTANCES / 64];
	struct agg_stats stats;
};

/* Chains that left the aggregator, in delivery order; the caller provides room. */
struct agg_out {
	struct mbuf **head;
	uint32_t n;
	uint32_t max;
};

/* What one agg_push() may emit: the chain before, the segment, and what the
 * held-buffers or open-chains limit drove out. */
#define AGG_PUSH_MAX_OUT 4

/**
 * agg_init() - empty table
 * @a:		uninitialised
 * @pool:	mbufs of all packets to come; not owned
 * @conf:	copied
 *
 * Return: 0, -ENOMEM
 */
int agg_init(struct agg *a, struct mbuf_pool *pool, const struct agg_conf *conf);

/**
 * agg_later() - shall chains of an instance leave unverified, to be looked at by
 * its port?
 * @a:		aggregator
 * @instance:	gn_instance.id
 * @on:		with AGG_VERIFY, chains to come are MBUF_CLAIMED instead of VERIFIED where
 *		XDP did not sum the first payload, and each mbuf's meta.payload_sum stays
 *		what its segment's checksum claims (chain.h)
 */
void agg_later(struct agg *a, uint16_t instance, bool on);

/** agg_fini() - free the table; open chains' mbufs stay with the pool. Zeroed @a is fine.
 */
void agg_fini(struct agg *a);

/**
 * agg_push() - take one packet
 * @a:		aggregator
 * @m:		packet: meta filled and bounds-checked (rx_check()), addr and len
 *		of the first buffer, further buffers linked by next, tail, total
 *		and nbufs set; ownership passes
 * @now_ns:	time of the burst
 * @out:	chains that are complete are appended; AGG_PUSH_MAX_OUT free entries
 *		needed
 *
 * A buffer that contributes nothing (all of it padding) is freed to the pool.
 */
void agg_push(struct agg *a, struct mbuf *m, uint64_t now_ns, struct agg_out *out);

/**
 * agg_run() - take packets as long as they simply continue the last one's chain
 * @a:		aggregator
 * @m:		[@n] packets as for agg_push(), but for meta, which is not looked at
 * @meta:	metadata of the packet before; becomes that of the last one taken
 * @next:	[@n] theirs, as it continues that; not checked
 * @n:		how many there are
 *
 * What arrives in runs is taken in runs: full segments in the middle of a chain, in
 * order, of one buffer each. All else, the first and last of a chain among it, is for
 * agg_push(), which decides the same of these. A key equal to that of the chain's head
 * says that the headers have the lengths that were checked there.
 *
 * Return: packets taken; the rest is the caller's as before
 */
uint32_t agg_run(struct agg *a, struct mbuf *const *m, struct gn_meta *meta,
		 const struct gn_next *next, uint32_t n);

/**
 * agg_flush() - emit the chains that must not wait longer, oldest first
 * @a:		aggregator
 * @now_ns:	time; UINT64_MAX: everything
 * @out:	appended to while there is room
 *
 * Return: true if nothing that is due is left (false: call again with room)
 */
bool agg_flush(struct agg *a, uint64_t now_ns, struct agg_out *out);

/** agg_deadline() - when agg_flush() next has work, ns; UINT64_MAX: nothing is open */
uint64_t agg_deadline(const struct agg *a);

#endif
