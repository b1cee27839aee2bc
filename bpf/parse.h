/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * From bytes to struct frame, and to the words of struct ident on the way:
 * Ethernet and VLAN tags, IPv4 or IPv6, TCP or UDP.
 *
 * Only the linear part of a multi-buffer frame is readable; a header that does
 * not lie in it counts as truncated. Headers are read as the widest words
 * there are, for the checksum and for the hash (ident.h) alike; the machine has to
 * do unaligned loads well, as the verifier will tell where it does not.
 */
#ifndef GN_PARSE_H
#define GN_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "ident.h"
#include "offload_shared.h"

#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)

/* Byte 13 of the TCP header; UAPI headers name no bits of it. */
#define TCP_FIN		0x01
#define TCP_SYN		0x02
#define TCP_RST		0x04
#define TCP_PSH		0x08
#define TCP_URG		0x20
#define TCP_CWR		0x80

#define VLAN_LEN	4	/* bytes of one tag */
#define IPV4_LEN	20	/* bytes without options */
#define IPV6_LEN	40
#define TCP_LEN		20
#define UDP_LEN		8

/* Bits of the TCP word at offset 8 that need not be equal: CWR, PSH, FIN. */
#define TCP_WORD_FREE	((__u64)(TCP_CWR | TCP_PSH | TCP_FIN) << 16)

#define IPV4_MF_OFFSET	0x3fff	/* more fragments, and the fragment offset */
#define IPV4_OFFSET	0x1fff

/* Extension headers that are walked: no more of them, and no more bytes in all. */
#define EXT_MAX		4
#define EXT_MAX_LEN	64
/* A home address option (RFC 6275, section 6.3) needs 18 bytes, which a
 * destination options header of this length does not have. */
#define DSTOPTS_NO_HOME	16

/* How much of a frame made sense. */
enum parsed {
	PARSED_NOTHING,		/* belongs to no flow that can be told */
	PARSED_TUPLE,		/* addresses and ports; nothing behind them counts */
	PARSED_ALL,		/* everything up to the payload */
};

struct frame {
	void *data, *end;	/* linear part */
	__u32 len;		/* bytes in all, all buffers */
	__be16 type;		/* EtherType behind the tags */
	__be16 vlan;		/* VLAN identifier of the outer tag; 0: none */
	__u32 ntags;
	__u32 l3_off, l4_off;	/* bytes from data */
	void *l4;
	bool ipv6;
	__u8 proto;		/* IPPROTO_TCP or IPPROTO_UDP */
	__u8 tcp_flags;
	__u16 flags;		/* gn_meta.flags */
	__u16 ip_id;
	__u32 seq;
	__u32 l4_total;		/* L4 header and payload by the IP length, bytes */
	__u32 l4_len;		/* L4 header, bytes */
	__u64 sum;		/* of the addresses, then of the whole pseudo-header */
	__u16 payload_sum;	/* gn_meta.payload_sum */
	enum gn_counter why;	/* what keeps the frame alone; GN_CNT_RX: nothing */
};

/* Keep the compiler from making a copy of what follows for each value of @x. */
#define JOIN(x)		asm volatile("" : "+r"(x))

#define LOAD8(p)	(*(const __u8 *)(p))
#define LOAD16(p)	(*(const __u16 *)(p))
#define LOAD32(p)	(*(const __u32 *)(p))
#define LOAD64(p)	(*(const __u64 *)(p))

/* What a 64-bit word adds to an Internet checksum. */
static __always_inline __u64 sum64(__u64 word)
{
	return (word & 0xffffffff) + (word >> 32);
}

/* Fold a sum of less than 2^38 (all the words of our headers) to 16 bits. */
static __always_inline __u16 sum_fold(__u64 s)
{
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return s;
}

static __always_inline bool is_vlan(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

/*
 * Up to two tags; the Ethernet header is known to be there. An incomplete inner
 * tag is left to parse_l3(): the outer one already tells the instance.
 *
 * Return: false if the outer tag is incomplete
 */
static __always_inline bool parse_tags(struct frame *f)
{
	void *p = f->data;

	f->type = LOAD16(p + 12);
	f->l3_off = ETH_HLEN;
	f->vlan = 0;
	f->ntags = 0;
	if (likely(!is_vlan(f->type)))
		return true;
	if (p + ETH_HLEN + VLAN_LEN > f->end)
		return false;
	f->vlan = LOAD16(p + 14) & bpf_htons(0x0fff);
	f->type = LOAD16(p + 16);
	f->l3_off = ETH_HLEN + VLAN_LEN;
	f->ntags = 1;
	if (is_vlan(f->type) && p + ETH_HLEN + 2 * VLAN_LEN <= f->end) {
		f->type = LOAD16(p + 20);
		f->l3_off = ETH_HLEN + 2 * VLAN_LEN;
		f->ntags = 2;
	}
	return true;
}

static __always_inline enum parsed parse_malformed(struct frame *f, enum parsed p)
{
	f->why = GN_CNT_ALONE_MALFORMED;
	return p;
}

/* Return: PARSED_TUPLE if an L4 header of this flow follows, else PARSED_NOTHING */
static __always_inline enum parsed parse_ipv4(struct frame *f, struct ident *id)
{
	void *ip = f->data + f->l3_off;
	__u32 len, ihl, frag;
	__u64 w0, w1;
	__u32 w2;

	if (ip + IPV4_LEN > f->end)
		return parse_malformed(f, PARSED_NOTHING);
	f->ipv6 = false;
	w0 = LOAD64(ip);
	w1 = LOAD64(ip + 8);
	w2 = LOAD32(ip + 16);
	ihl = (LOAD8(ip) & 0x0f) * 4;
	len = bpf_ntohs(LOAD16(ip + 2));
	if (LOAD8(ip) >> 4 != 4 || ihl < IPV4_LEN || len < ihl || len > f->len - f->l3_off)
		return parse_malformed(f, PARSED_NOTHING);
	if (likely(ihl == IPV4_LEN)) {
		if (sum_fold(sum64(w0) + sum64(w1) + w2) != 0xffff) {
			f->why = GN_CNT_ALONE_IP_CSUM;
			return PARSED_NOTHING;
		}
	} else {
		f->why = GN_CNT_ALONE_IP_OPTIONS;
	}
	frag = LOAD16(ip + 6);
	if (unlikely(frag & bpf_htons(IPV4_MF_OFFSET))) {
		f->why = GN_CNT_ALONE_FRAGMENT;
		if (frag & bpf_htons(IPV4_OFFSET))
			return PARSED_NOTHING;
	}
	f->proto = LOAD8(ip + 9);
	f->l4_off = f->l3_off + ihl;
	f->l4 = ip + ihl;
	f->l4_total = len - ihl;
	f->ip_id = bpf_ntohs(LOAD16(ip + 4));
	f->sum = (__u64)LOAD32(ip + 12) + w2;
	id->tuple[1] = LOAD64(ip + 12);
	id->ntuple = IDENT_TUPLE_V4;
	id->fixed[1] = LOAD32(f->data + 8) | (__u64)LOAD16(ip) << 32 | (__u64)frag << 48;
	id->fixed[2] = (__u64)LOAD8(ip + 8) << 48 | (__u64)f->ntags << 56;
	return PARSED_TUPLE;
}

static __always_inline bool is_ext(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS;
}

/* Extension headers, @len bytes from @ip on, become words. */
static __always_inline void gather_ext(struct frame *f, struct ident *id, void *ip, __u32 len)
{
	void *ext = ip + IPV6_LEN;
	__u32 n = f->ntags ? 1 : 0;

	id->fixed[2] |= (__u64)IDENT_SHAPE_EXT << 56;
	id->rare[n & 1] = len | (__u64)LOAD8(ip + 6) << 32;
	n++;
#pragma unroll
	for (__u32 i = 0; i < EXT_MAX_LEN / 8; i++) {
		if (len < 8 * (i + 1) || ext + 8 * (i + 1) > f->end)
			break;
		id->rare[n + i] = LOAD64(ext + 8 * i);
	}
	id->nrare = n + len / 8;
}

/*
 * As parse_ipv4(). A routing header with segments left and a home address option
 * make the pseudo-header's addresses others than those of the IPv6 header (RFC 8200,
 * section 8.1; RFC 6275, section 11.3.2), so payload_sum is not to be believed
 * and the frame stays alone. Headers beyond the bounds are not walked to their end.
 */
static __always_inline enum parsed parse_ipv6(struct frame *f, struct ident *id)
{
	void *ip = f->data + f->l3_off;
	__u32 len, off = IPV6_LEN;
	__u8 next;

	if (ip + IPV6_LEN > f->end)
		return parse_malformed(f, PARSED_NOTHING);
	f->ipv6 = true;
	len = bpf_ntohs(LOAD16(ip + 4));
	if (LOAD8(ip) >> 4 != 6 || len + IPV6_LEN > f->len - f->l3_off)
		return parse_malformed(f, PARSED_NOTHING);
	if (!len)		/* a jumbogram (RFC 2675), or nothing at all */
		return PARSED_NOTHING;
	next = LOAD8(ip + 6);
#pragma unroll
	for (__u32 i = 0; i < EXT_MAX; i++) {
		void *ext = ip + off;
		__u32 n;

		if (likely(!is_ext(next)))
			break;
		if (ext + 8 > f->end)
			return parse_malformed(f, PARSED_NOTHING);
		n = (LOAD8(ext + 1) + 1) * 8;
		if ((next == IPPROTO_ROUTING && LOAD8(ext + 3)) ||
		    (next == IPPROTO_DSTOPTS && n > DSTOPTS_NO_HOME))
			f->why = GN_CNT_ALONE_IP_OPTIONS;
		next = LOAD8(ext);
		off += n;
		if (off > IPV6_LEN + EXT_MAX_LEN) {
			f->why = GN_CNT_ALONE_IP_OPTIONS;
			return PARSED_NOTHING;
		}
	}
	if (unlikely(is_ext(next))) {
		f->why = GN_CNT_ALONE_IP_OPTIONS;
		return PARSED_NOTHING;
	}
	id->fixed[2] = (__u64)LOAD8(ip + 7) << 48 | (__u64)f->ntags << 56;
	if (unlikely(off > IPV6_LEN))
		gather_ext(f, id, ip, off - IPV6_LEN);
	if (unlikely(next == IPPROTO_FRAGMENT)) {
		void *ext = ip + off;

		if (ext + 8 > f->end)
			return parse_malformed(f, PARSED_NOTHING);
		f->why = GN_CNT_ALONE_FRAGMENT;
		if (LOAD16(ext + 2) & bpf_htons(0xfff8))
			return PARSED_NOTHING;
		next = LOAD8(ext);
		off += 8;
	}
	if (off > len + IPV6_LEN)
		return parse_malformed(f, PARSED_NOTHING);
	f->proto = next;
	f->l4_off = f->l3_off + off;
	f->l4 = ip + off;
	f->l4_total = len + IPV6_LEN - off;
	id->tuple[1] = LOAD64(ip + 8);
	id->tuple[2] = LOAD64(ip + 16);
	id->tuple[3] = LOAD64(ip + 24);
	id->tuple[4] = LOAD64(ip + 32);
	id->ntuple = IDENT_TUPLE_V6;
	id->fixed[1] = LOAD32(f->data + 8) | (__u64)LOAD32(ip) << 32;
	f->sum = sum64(id->tuple[1]) + sum64(id->tuple[2]) +
		 sum64(id->tuple[3]) + sum64(id->tuple[4]);
	f->ip_id = 0;
	f->flags = GN_F_IPV6;
	return PARSED_TUPLE;
}

/*
 * Both checksums of interest, from the pseudo-header and the L4 header alone. A good
 * checksum makes all of it, payload included, sum up to 0xffff; so what header
 * and pseudo-header lack is what the sender says of the payload.
 */
static __always_inline void parse_csum(struct frame *f, __u64 header, __u16 check)
{
	f->sum += bpf_htons(f->l4_total);
	f->sum += bpf_htons(f->proto);
	if (check == sum_fold(f->sum))
		f->flags |= GN_F_CSUM_PARTIAL;
	f->payload_sum = ~sum_fold(f->sum + header);
}

static __always_inline enum parsed parse_tcp(struct frame *f, struct ident *id)
{
	void *tcp = f->l4, *opt = tcp + TCP_LEN;
	__u64 w0, w1, sum;
	__u32 w2, n;

	if (opt > f->end || f->l4_total < TCP_LEN)
		return parse_malformed(f, PARSED_NOTHING);
	w0 = LOAD64(tcp);
	id->tuple[0] = LOAD32(tcp);
	if (unlikely(f->why == GN_CNT_ALONE_FRAGMENT))
		return PARSED_TUPLE;
	f->l4_len = (LOAD8(tcp + 12) >> 4) * 4;
	if (f->l4_len < TCP_LEN || f->l4_len > f->l4_total)
		return parse_malformed(f, PARSED_TUPLE);
	f->tcp_flags = LOAD8(tcp + 13);
	f->seq = bpf_ntohl(LOAD32(tcp + 4));
	w1 = LOAD64(tcp + 8);
	w2 = LOAD32(tcp + 16);
	sum = sum64(w0) + sum64(w1) + w2;
	id->tcp[0] = w1 & ~bpf_cpu_to_be64(TCP_WORD_FREE);
	id->fixed[2] |= (__u64)LOAD16(tcp + 18) << 32;

	/* Options: an odd number of 4-byte words ends in a word of its own. */
	n = f->l4_len - TCP_LEN;
	if (n & 4) {
		void *tail = tcp + (f->l4_len - 4);

		if (tail + 4 > f->end)
			return parse_malformed(f, PARSED_TUPLE);
		id->fixed[2] |= LOAD32(tail);
		sum += LOAD32(tail);
	}
#pragma unroll
	for (__u32 i = 0; i < IDENT_TCP_MAX - 1; i++) {
		__u64 w;

		if (n < 8 * (i + 1))
			break;
		if (opt + 8 * (i + 1) > f->end)
			return parse_malformed(f, PARSED_TUPLE);
		w = LOAD64(opt + 8 * i);
		id->tcp[1 + i] = w;
		sum += sum64(w);
	}
	id->ntcp = 1 + n / 8;
	/* By arithmetic: a branch each would double the verifier's work. */
	f->flags |= GN_F_TCP | (f->tcp_flags & TCP_PSH) * (GN_F_PSH / TCP_PSH) |
		    (f->tcp_flags & TCP_FIN) * (GN_F_FIN / TCP_FIN) |
		    (f->tcp_flags & TCP_CWR) / (TCP_CWR / GN_F_CWR);
	parse_csum(f, sum, LOAD16(tcp + 16));
	return PARSED_ALL;
}

static __always_inline enum parsed parse_udp(struct frame *f, struct ident *id)
{
	void *udp = f->l4;

	if (udp + UDP_LEN > f->end || f->l4_total < UDP_LEN)
		return parse_malformed(f, PARSED_NOTHING);
	id->tuple[0] = LOAD32(udp);
	if (unlikely(f->why == GN_CNT_ALONE_FRAGMENT))
		return PARSED_TUPLE;
	f->l4_len = UDP_LEN;
	f->seq = 0;
	f->tcp_flags = 0;
	id->ntcp = 0;
	if (bpf_ntohs(LOAD16(udp + 4)) != f->l4_total)
		return parse_malformed(f, PARSED_TUPLE);
	f->flags |= GN_F_UDP;
	if (LOAD16(udp + 6)) {
		parse_csum(f, sum64(LOAD64(udp)), LOAD16(udp + 6));
	} else {
		if (f->ipv6)	/* RFC 8200, section 8.1 */
			return parse_malformed(f, PARSED_TUPLE);
		f->flags |= GN_F_CSUM_NONE;
		f->payload_sum = 0;
	}
	return PARSED_ALL;
}

/*
 * Everything behind the tags.
 *
 * Return: how much of it made sense; f->why says what is wrong with it
 */
static __always_inline enum parsed parse_l3(struct frame *f, struct ident *id)
{
	enum parsed got;

	f->why = GN_CNT_RX;
	f->flags = 0;
	id->nrare = 0;
	JOIN(f->l3_off);
	JOIN(f->ntags);
	if (unlikely(f->ntags)) {
		id->rare[0] = LOAD32(f->data + 12);
		if (f->ntags > 1 && f->data + ETH_HLEN + 2 * VLAN_LEN <= f->end)
			id->rare[0] |= (__u64)LOAD32(f->data + 16) << 32;
		id->nrare = 1;
	}
	if (likely(f->type == bpf_htons(ETH_P_IP)))
		got = parse_ipv4(f, id);
	else if (f->type == bpf_htons(ETH_P_IPV6))
		got = parse_ipv6(f, id);
	else if (is_vlan(f->type) && f->ntags < 2)
		return parse_malformed(f, PARSED_NOTHING);
	else
		return PARSED_NOTHING;
	if (got == PARSED_NOTHING)
		return got;
	JOIN(f->why);
	JOIN(f->proto);
	JOIN(f->l4_off);
	if (likely(f->proto == IPPROTO_TCP))
		return parse_tcp(f, id);
	if (f->proto == IPPROTO_UDP)
		return parse_udp(f, id);
	return PARSED_NOTHING;
}

#endif
