/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stream: random traffic of a few interleaved flows, all from one number.
 *
 * Loss, duplication, reordering, flags, options, ECN, identifications, padding,
 * tags, checksums good, bad, partial and missing, fragments, malformed and foreign
 * frames; burst ends at random places. The same seed gives the same stream everywhere.
 */
#ifndef GN_TEST_STREAM_H
#define GN_TEST_STREAM_H

#include "../../user/daemon/agg.h"
#include "pkt.h"

#define STREAM_MAX_PKTS	 72
#define STREAM_MAX_FLOWS 6
#define STREAM_GSO	 (GN_INSTANCE_TSO4 | GN_INSTANCE_TSO6 | GN_INSTANCE_USO)
#define STREAM_BYTES	 (640 << 10)

struct stream_pkt {
	uint8_t *frame; /* into stream.bytes */
	uint32_t len;
	struct gn_meta meta;  /* by pkt_meta(), identifiers perhaps made to collide */
	int flow;	      /* whose order must be kept; -1: of nobody's that shows */
	uint32_t first, rest; /* sizes of buffers, see rig_packet() */
	uint64_t now;	      /* when it arrives, ns */
	bool burst_ends;      /* agg_flush(now) behind it */
};

struct stream {
	struct agg_conf conf;
	bool starved; /* max_held is small */
	struct stream_pkt pkt[STREAM_MAX_PKTS];
	int n;
	uint32_t used;
	uint8_t bytes[STREAM_BYTES];
};

/** stream_make() - overwrite @s with the stream of @seed */
void stream_make(struct stream *s, uint64_t seed);

/** stream_frame() - one random frame, tame or wild, into @buf of PKT_MAX bytes. Return:
 * its length */
uint32_t stream_frame(uint64_t *seed, uint8_t *buf);

#endif
