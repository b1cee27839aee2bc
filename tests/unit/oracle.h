/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * oracle: is a chain that left the aggregator right, byte for byte?
 *
 * Calls the real gso_finish() and checks what it wrote against the packets that
 * went in; then cuts the frame up again by the real gso_segment() and compares each
 * segment with its packet. What GSO cannot keep, and is therefore left out of this
 * comparison: Ethernet padding; the IPv4 identification where all segments had the
 * same one; the L4 checksum where a carried frame contains a bad packet (the
 * frame's own checksum must then be wrong).
 */
#ifndef GN_TEST_ORACLE_H
#define GN_TEST_ORACLE_H

#include "rig.h"

struct oracle_pkt {
	const uint8_t *frame; /* as it arrived */
	uint32_t len;
};

/**
 * oracle_check() - check and finish one chain
 * @r:		rig that emitted it
 * @head:	chain; stays allocated
 * @pkt:	packets by number
 * @conf:	of the aggregator
 * @id:		filled: numbers of the packets in the chain, in order
 * @n:		their number
 *
 * Return: NULL, or what is wrong
 */
const char *oracle_check(struct rig *r, struct mbuf *head, const struct oracle_pkt *pkt,
			 const struct agg_conf *conf, int id[AGG_MAX_BUFS],
			 unsigned int *n);

#endif
