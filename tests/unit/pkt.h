/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pkt: frames for tests, and a second opinion on what XDP says about them.
 *
 * pkt_build() makes a frame from a description. pkt_meta() parses a frame in plain
 * C, slowly, and gives the struct gn_meta that the XDP program owes; it shares no
 * code with it. The identifiers (flow, key) come from another hash: only whether two
 * frames get equal ones is the same. All checksums here are computed byte by byte.
 */
#ifndef GN_TEST_PKT_H
#define GN_TEST_PKT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../bpf/offload_shared.h"

#define PKT_MAX (65535 + 22) /* bytes of the longest frame */

#define PKT_FIN 0x001
#define PKT_SYN 0x002
#define PKT_RST 0x004
#define PKT_PSH 0x008
#define PKT_ACK 0x010
#define PKT_URG 0x020
#define PKT_ECE 0x040
#define PKT_CWR 0x080

enum pkt_csum {
	PKT_CSUM_GOOD,
	PKT_CSUM_BAD,	  /* one payload bit flipped after the checksum, or,
			   * without payload, one checksum bit */
	PKT_CSUM_PARTIAL, /* pseudo-header sum only */
	PKT_CSUM_NONE,	  /* zero */
};

struct pkt_spec {
	uint8_t dst[6], src[6];
	unsigned int ntags; /* 0-2 VLAN tags */
	uint16_t tci[2];    /* outer first */
	bool ipv6;
	uint8_t tos; /* TOS or traffic class */
	uint8_t ttl; /* TTL or hop limit */
	uint16_t id; /* IPv4 */
	bool df;
	uint16_t frag;	       /* IPv4: 0x2000 more fragments, offset / 8 */
	bool frag6;	       /* IPv6: a fragment header (first fragment) */
	uint32_t label;	       /* IPv6 flow label */
	uint32_t saddr, daddr; /* last four bytes of the addresses */
	unsigned int ip_opt;   /* bytes of IPv4 options, multiple of 4 */
	unsigned int ext;      /* bytes of IPv6 destination options, multiple of 8 */
	uint8_t ext_fill;      /* a byte inside them */
	bool bad_ip_csum;
	uint8_t proto; /* 6, 17, or another: payload follows at once */
	uint16_t sport, dport;
	uint32_t seq, ack;
	uint16_t flags; /* 12 bits, PKT_* */
	uint16_t window, urg;
	uint8_t opt[40];
	unsigned int opt_len; /* bytes of TCP options, multiple of 4 */
	const uint8_t *payload;
	unsigned int len; /* bytes of payload */
	unsigned int pad; /* bytes after the IP packet */
	enum pkt_csum csum;
	uint32_t bad_bit; /* which bit PKT_CSUM_BAD flips, modulo their number */
};

/** pkt_default() - IPv4 TCP, ACK, no tag, no payload */
void pkt_default(struct pkt_spec *s);

/** pkt_build() - Return: bytes of the frame in @buf, which holds PKT_MAX */
uint32_t pkt_build(const struct pkt_spec *s, uint8_t *buf);

/**
 * pkt_meta() - what XDP owes for an instance's frame
 * @frame:	frame, @len bytes
 * @instance:	gn_instance.id
 * @gso:	GN_INSTANCE_*: what the instance takes
 *
 * In class ALONE everything but key is set when the frame is TCP or UDP with a
 * complete and consistent header.
 */
void pkt_meta(const uint8_t *frame, uint32_t len, uint16_t instance, uint32_t gso,
	      struct gn_meta *m);

/** pkt_sum() - one's complement sum, as a number (big-endian words), of @p at an even
 * offset */
uint32_t pkt_sum(const uint8_t *p, uint32_t len);

/** pkt_fold() - 16 bits of a sum */
uint16_t pkt_fold(uint64_t sum);

/** pkt_pseudo() - sum of the pseudo-header of the IP header at @ip for @l4_bytes */
uint32_t pkt_pseudo(const uint8_t *ip, uint8_t proto, uint32_t l4_bytes);

static inline uint16_t pkt_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t pkt_get32(const uint8_t *p)
{
	return (uint32_t)pkt_get16(p) << 16 | pkt_get16(p + 2);
}

static inline void pkt_put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void pkt_put32(uint8_t *p, uint32_t v)
{
	pkt_put16(p, (uint16_t)(v >> 16));
	pkt_put16(p + 2, (uint16_t)v);
}

/* xorshift64*: the same numbers on every machine. */
static inline uint32_t pkt_rand(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (uint32_t)((*state * 0x2545f4914f6cdd1dULL) >> 32);
}

#endif
