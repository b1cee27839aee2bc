/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * model: receive aggregation as its rules read, slow and obvious.
 *
 * Works on header bytes, one packet and one list search at a time, never on struct
 * gn_meta, and shares no code with the aggregator or with pkt_meta(). Says which
 * packets end up together; the bytes of the result are oracle.h's business.
 *
 * Two things are given to it, because they are choices and no rule: the flow number
 * of a packet (of two flows with the same number modulo nslots, one that opens a
 * chain pushes out the other's) and how many buffers the packet takes.
 */
#ifndef GN_TEST_MODEL_H
#define GN_TEST_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#define MODEL_MAX_PKTS 1024 /* of one stream */
#define MODEL_MAX_OPEN 128

/* A packet as its headers say. */
struct model_pkt {
	const uint8_t *frame;
	uint16_t instance;
	uint32_t flow; /* 0: belongs to no flow */
	uint32_t bufs; /* buffers with payload or headers */
	int id;	       /* index of the packet, chosen by the caller */
	/* filled by model_parse() */
	bool tcp, udp; /* complete header, not a fragment, IP header good */
	bool v6, ip_opt;
	bool good;		    /* L4 checksum right */
	bool partial;		    /* L4 checksum field is the pseudo-header sum */
	bool no_csum;		    /* UDP with checksum 0; over IPv6 that is an error */
	uint32_t l3, l4, data, end; /* offsets, bytes */
	uint32_t seq;
	uint16_t id4;	/* IPv4 identification */
	uint16_t flags; /* TCP, 12 bits */
};

struct model_conf {
	bool carry;
	bool trust_partial;
	uint64_t hold_ns;
	uint32_t max_bufs; /* of one chain */
	uint32_t nslots;
};

struct model_chain {
	struct model_pkt head, last;
	uint32_t bytes; /* payload so far */
	uint32_t segs, bufs;
	int step; /* IPv4 identification step, -1: none seen */
	uint64_t opened_ns;
};

struct model {
	struct model_conf conf;
	struct model_chain open[MODEL_MAX_OPEN]; /* oldest first */
	unsigned int nopen;
	int leader[MODEL_MAX_PKTS]; /* first packet of the chain a packet is in */
};

void model_init(struct model *m, const struct model_conf *conf);

/** model_parse() - fill the second half of @p from its @len bytes */
void model_parse(struct model_pkt *p, uint32_t len);

/** model_may_head() - may another packet ever join after @p? */
bool model_may_head(const struct model_conf *c, const struct model_pkt *p);

/** model_may_join() - may @p be the next segment of @ch? */
bool model_may_join(const struct model_conf *c, const struct model_chain *ch,
		    const struct model_pkt *p);

void model_chain_start(struct model_chain *ch, const struct model_pkt *p, uint64_t now);

/** model_chain_add() - Return: true if the chain takes no more */
bool model_chain_add(struct model_chain *ch, const struct model_pkt *p);

/** model_push() - one packet of @len bytes; sets @m->leader[@p->id] */
void model_push(struct model *m, struct model_pkt *p, uint32_t len, uint64_t now);

/** model_flush() - end of a burst at @now; UINT64_MAX: all */
void model_flush(struct model *m, uint64_t now);

#endif
