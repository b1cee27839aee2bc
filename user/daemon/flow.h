/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * flow: what `ghostnic flows` shows, per worker.
 *
 * One entry per TCP or UDP flow, touched once per delivered chain, not per packet.
 * An entry keeps the first header bytes of the flow's first chain, so that
 * the control thread can print addresses; the packet path never parses them. A
 * full set replaces its least recently used entry.
 */
#ifndef GN_FLOW_H
#define GN_FLOW_H

#include "mbuf.h"

#define FLOW_SETS 256 /* of FLOW_WAYS entries each */
#define FLOW_WAYS 4
#define FLOW_HDR  128 /* bytes: Ethernet, tags, IPv6, start of TCP */

struct flow {
	uint32_t id;			 /* gn_meta.flow; 0: free */
	uint16_t instance;		 /* gn_meta.instance */
	uint8_t l3_off, l4_off;		 /* into hdr, bytes; l4_off may lie outside it */
	uint16_t flags;			 /* GN_F_TCP or GN_F_UDP, GN_F_IPV6 */
	uint16_t hdr_len;		 /* bytes valid in hdr */
	uint64_t last_ns;		 /* CLOCK_MONOTONIC */
	uint64_t packets, frames, bytes; /* segments, chains, bytes of chains */
	uint8_t hdr[FLOW_HDR];
};

struct flow_table {
	struct flow *flow; /* [FLOW_SETS * FLOW_WAYS] */
};

/** flow_init() - empty table. Return: 0, -ENOMEM */
int flow_init(struct flow_table *t);
void flow_fini(struct flow_table *t);

/** flow_note() - worker: count a chain that is about to be delivered */
void flow_note(struct flow_table *t, const struct mbuf_pool *p, const struct mbuf *head,
	       uint64_t now_ns);

/**
 * flow_format() - "10.0.0.1:5201 > 10.0.0.2:40000", from the stored header
 * Return: length as snprintf(); "?" for what the stored bytes do not show
 */
int flow_format(const struct flow *f, char *buf, size_t size);

#endif
