/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames for the XDP tests: build one from a description, and say by a slow, plain
 * reading of the rules what the program must make of it. Shares no code
 * with bpf/.
 */
#ifndef GN_TEST_FRAME_H
#define GN_TEST_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../bpf/offload_shared.h"

#define FRAME_MAX 9300 /* bytes */

#define T_FIN 0x01
#define T_SYN 0x02
#define T_RST 0x04
#define T_PSH 0x08
#define T_ACK 0x10
#define T_URG 0x20
#define T_ECE 0x40
#define T_CWR 0x80

enum frame_csum { CSUM_GOOD, CSUM_BAD, CSUM_PARTIAL, CSUM_ZERO };

struct frame_spec {
	const uint8_t *dst; /* NULL: the first instance's */
	unsigned int ntags;
	uint16_t tpid[2], tci[2]; /* host order; tpid 0: 802.1Q */
	bool v6;
	uint16_t ethertype;	 /* 0: by v6 */
	unsigned int ip_opt_len; /* bytes of IPv4 options, a multiple of 4 */
	uint16_t frag;		 /* IPv4 flags and offset, host order */
	bool bad_ip_csum;
	/* IPv6 extension headers, as they stand in the frame but for the next header
	 * field of the last one, which is filled in */
	const uint8_t *ext;
	unsigned int ext_len, ext_first;
	uint8_t proto;	      /* 0: TCP */
	uint8_t tcp_flags;    /* 0: ACK */
	unsigned int opt_len; /* bytes of TCP options, a multiple of 4 */
	uint16_t urg;
	enum frame_csum csum;
	unsigned int payload; /* bytes */
	unsigned int pad;     /* bytes behind the IP packet */
	uint16_t sport;	      /* 0: 40000 */
	uint32_t seq;
	uint8_t fill; /* seeds the bytes of payload and options */
};

/**
 * frame_build() - make the frame
 * @s:		what it is
 * @buf:	FRAME_MAX bytes
 *
 * Return: its length, bytes
 */
unsigned int frame_build(const struct frame_spec *s, uint8_t *buf);

/** frame_fix_ip_csum() - recompute the header checksum of the IPv4 header at @off */
void frame_fix_ip_csum(uint8_t *buf, unsigned int off);

/** frame_sum() - one's complement sum, memory byte order, one 16-bit word at a time */
uint16_t frame_sum(const uint8_t *p, size_t len);

extern const uint8_t frame_mac[6]; /* where frames go by default */

/* What the program must make of an instance's frame. */
struct frame_want {
	struct gn_meta meta; /* flow: 0 or 1 for none or some; key: same */
	enum gn_counter why; /* detail counted beside ALONE; GN_CNT_MAX: none */
};

/**
 * frame_expect() - read @buf by the rules
 * @buf:	frame; all of it is readable
 * @len:	bytes, at least an Ethernet header and the outer tag
 * @linear:	bytes that the program can read
 * @in:		instance
 * @w:		result
 */
void frame_expect(const uint8_t *buf, unsigned int len, unsigned int linear,
		  const struct gn_instance *in, struct frame_want *w);

/* What a change of one header bit must change. */
enum frame_effect {
	EFFECT_NONE, /* two segments may differ in it and merge */
	EFFECT_KEY,
	EFFECT_FLOW, /* flow and with it key */
};

/**
 * frame_effect() - of bit @bit (0: least significant) of byte @off
 * @s:		what was built
 */
enum frame_effect frame_effect(const struct frame_spec *s, unsigned int off,
			       unsigned int bit);

/** frame_hdr_len() - bytes up to the payload */
unsigned int frame_hdr_len(const struct frame_spec *s);

/** frame_l3_off() - bytes up to the IP header */
static inline unsigned int frame_l3_off(const struct frame_spec *s)
{
	return 14 + 4 * s->ntags;
}

#endif
