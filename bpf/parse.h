/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * From bytes to struct gn_meta, and to the words of struct ident on the way:
 * Ethernet and VLAN tags, IPv4 or IPv6, TCP or UDP.
 *
 * Only the linear part of a multi-buffer frame is readable; a header that does
 * not lie in it counts as truncated. Headers are read as the widest words
 * there are, for the checksum and for the identifiers (ident.h) alike; the machine has to
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

/* Byte 13 of the TCP header; UAPI headers name no bits of it. */
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_PSH 0x08
#define TCP_URG 0x20
#define TCP_CWR 0x80

#define VLAN_LEN 4  /* bytes of one tag */
#define IPV4_LEN 20 /* bytes without options */
#define IPV6_LEN 40
#define TCP_LEN	 20
#define UDP_LEN	 8

/* Bits of the TCP word at offset 8 that need not be equal: CWR, PSH, FIN. */
#define TCP_WORD_FREE ((__u64)(TCP_CWR | TCP_PSH | TCP_FIN) << 16)

#define IPV4_MF_OFFSET 0x3fff /* more fragments, and the fragment offset */
#define IPV4_OFFSET    0x1fff

/* Extension headers that are walked: no more of them, and no more bytes in all. A frame
 * with more has no flow, so it goes ahead of what is held of its connection until the
 * burst ends. TCP copes with that, and nothing known sends so many. */
#define EXT_MAX	    4
#define EXT_MAX_LEN 64
/* A home address option (RFC 6275, section 6.3) needs 18 bytes, which a
 * destination options header of this length does not have. */
#define DSTOPTS_NO_HOME 16

/* Bytes from the frame's start to an L4 header, at the most. */
#define L4_OFF_MAX (ETH_HLEN + 2 * VLAN_LEN + IPV6_LEN + EXT_MAX_LEN + 8)

/* How much of a frame made sense. */
enum parsed {
	PARSED_NOTHING, /* belongs to no flow that can be told */
	PARSED_TUPLE,	/* addresses and ports; nothing behind them counts */
	PARSED_ALL,	/* everything up to the payload */
};

/*
 * Where the parser is. Kept apart from struct work because packet pointers, and the
 * numbers that the verifier must bound, cannot pass through a map.
 */
struct frame {
	void *data, *end; /* linear part */
	__u32 len;	  /* bytes in all, all buffers */
	__be16 type;	  /* EtherType behind the tags */
	__be16 vlan;	  /* VLAN identifier of the outer tag; 0: none */
	__u32 ntags;
	__u32 l3_off; /* bytes from data */
	void *l4;
	struct gn_meta
		*meta; /* what is found goes here; zeroed but for magic and instance */
};

/*
 * What it found, in memory: with this much state in variables, the compiler spends
 * more instructions on moving it between the branches than on parsing.
 */
struct work {
	struct ident id;
	__u64 sum; /* of the addresses, memory byte order */
	__u32 why; /* enum gn_counter: what keeps the frame alone; GN_CNT_RX: nothing */
	__u32 l4_total;	      /* L4 header and payload by the IP length, bytes */
	__u32 l3_off, l4_off; /* bytes from data */
	__u32 proto;	      /* IPPROTO_* */
	__u16 flags;	      /* gn_meta.flags so far */
	__u16 ip_id;	      /* gn_meta.ip_id */
	__u8 tcp_flags;
};

/* Keep the compiler from making a copy of what follows for each value of @x. */
#define JOIN(x) asm volatile("" : "+r"(x))

#define LOAD8(p)  (*(const __u8 *)(p))
#define LOAD16(p) (*(const __u16 *)(p))
#define LOAD32(p) (*(const __u32 *)(p))
#define LOAD64(p) (*(const __u64 *)(p))

/* What eight bytes add to an Internet checksum: two loads cost less than taking a word
 * apart. */
#define SUM64(p) ((__u64)LOAD32(p) + LOAD32((p) + 4))

/* The same of a word. */
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

/* Likewise the sum of two numbers of 16 bits. */
static __always_inline __u16 sum_fold_short(__u64 s)
{
	return (s & 0xffff) + (s >> 16);
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

static __always_inline enum parsed parse_malformed(struct work *w, enum parsed p)
{
	w->why = GN_CNT_ALONE_MALFORMED;
	return p;
}

/* Return: PARSED_TUPLE if an L4 header of this flow follows, else PARSED_NOTHING */
static __always_inline enum parsed parse_ipv4(struct frame *f, struct work *w)
{
	void *ip = f->data + f->l3_off;
	__u32 len, ihl, frag;
	__u64 sum;

	if (ip + IPV4_LEN > f->end)
		return parse_malformed(w, PARSED_NOTHING);
	ihl = (LOAD8(ip) & 0x0f) * 4;
	len = bpf_ntohs(LOAD16(ip + 2));
	if (LOAD8(ip) >> 4 != 4 || ihl < IPV4_LEN || len < ihl ||
	    len > f->len - f->l3_off)
		return parse_malformed(w, PARSED_NOTHING);
	sum = sum64(LOAD64(ip + 12));
	if (likely(ihl == IPV4_LEN)) {
		if (sum_fold(sum64(LOAD64(ip)) + LOAD32(ip + 8) + sum) != 0xffff) {
			w->why = GN_CNT_ALONE_IP_CSUM;
			return PARSED_NOTHING;
		}
	} else {
		w->why = GN_CNT_ALONE_IP_OPTIONS;
	}
	frag = LOAD16(ip + 6);
	if (unlikely(frag & bpf_htons(IPV4_MF_OFFSET))) {
		w->why = GN_CNT_ALONE_FRAGMENT;
		if (frag & bpf_htons(IPV4_OFFSET))
			return PARSED_NOTHING;
	}
	w->proto = LOAD8(ip + 9);
	w->l4_off = f->l3_off + ihl;
	w->l4_total = len - ihl;
	w->sum = sum;
	w->flags = 0;
	w->ip_id = bpf_ntohs(LOAD16(ip + 4));
	w->id.w.tuple[1] = LOAD64(ip + 12);
	w->id.ntuple6 = 0;
	w->id.w.fixed[1] =
		LOAD32(f->data + 8) | (__u64)LOAD16(ip) << 32 | (__u64)frag << 48;
	w->id.w.fixed[2] |= IDENT_TTL(LOAD8(ip + 8));
	return PARSED_TUPLE;
}

static __always_inline bool is_ext(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING ||
	       next == IPPROTO_DSTOPTS;
}

/* Extension headers, @len bytes from @ip on, become words. */
static __always_inline void gather_ext(struct frame *f, struct ident *id, void *ip,
				       __u32 len)
{
	void *ext = ip + IPV6_LEN;

	id->w.fixed[2] |= IDENT_SHAPE(IDENT_SHAPE_EXT);
	id->w.ext[0] = len | (__u64)LOAD8(ip + 6) << 32;
#pragma unroll
	for (__u32 i = 0; i < EXT_MAX_LEN / 8; i++) {
		if (len < 8 * (i + 1) || ext + 8 * (i + 1) > f->end)
			break;
		id->w.ext[1 + i] = LOAD64(ext + 8 * i);
	}
	id->next = 1 + len / 8;
}

/*
 * As parse_ipv4(). A routing header with segments left and a home address option
 * make the pseudo-header's addresses others than those of the IPv6 header (RFC 8200,
 * section 8.1; RFC 6275, section 11.3.2), so payload_sum is not to be believed
 * and the frame stays alone. Headers beyond the bounds are not walked to their end.
 */
static __always_inline enum parsed parse_ipv6(struct frame *f, struct work *w)
{
	void *ip = f->data + f->l3_off;
	__u32 len, off = IPV6_LEN;
	__u64 a0, a1, a2, a3;
	__u8 next;

	if (ip + IPV6_LEN > f->end)
		return parse_malformed(w, PARSED_NOTHING);
	len = bpf_ntohs(LOAD16(ip + 4));
	if (LOAD8(ip) >> 4 != 6 || len + IPV6_LEN > f->len - f->l3_off)
		return parse_malformed(w, PARSED_NOTHING);
	if (!len) /* a jumbogram (RFC 2675), or nothing at all */
		return PARSED_NOTHING;
	next = LOAD8(ip + 6);
#pragma unroll
	for (int i = 0; i < EXT_MAX; i++) {
		void *ext = ip + off;
		__u32 n;

		if (likely(!is_ext(next)))
			break;
		if (ext + 8 > f->end)
			return parse_malformed(w, PARSED_NOTHING);
		n = (LOAD8(ext + 1) + 1) * 8;
		if ((next == IPPROTO_ROUTING && LOAD8(ext + 3)) ||
		    (next == IPPROTO_DSTOPTS && n > DSTOPTS_NO_HOME))
			w->why = GN_CNT_ALONE_IP_OPTIONS;
		next = LOAD8(ext);
		off += n;
		if (off > IPV6_LEN + EXT_MAX_LEN) {
			w->why = GN_CNT_ALONE_IP_OPTIONS;
			return PARSED_NOTHING;
		}
	}
	if (unlikely(is_ext(next))) {
		w->why = GN_CNT_ALONE_IP_OPTIONS;
		return PARSED_NOTHING;
	}
	if (unlikely(off > IPV6_LEN))
		gather_ext(f, &w->id, ip, off - IPV6_LEN);
	if (unlikely(next == IPPROTO_FRAGMENT)) {
		void *ext = ip + off;

		if (ext + 8 > f->end)
			return parse_malformed(w, PARSED_NOTHING);
		w->why = GN_CNT_ALONE_FRAGMENT;
		if (LOAD16(ext + 2) & bpf_htons(0xfff8))
			return PARSED_NOTHING;
		next = LOAD8(ext);
		off += 8;
	}
	if (off > len + IPV6_LEN)
		return parse_malformed(w, PARSED_NOTHING);
	w->proto = next;
	w->l4_off = f->l3_off + off;
	w->l4_total = len + IPV6_LEN - off;
	a0 = LOAD64(ip + 8);
	a1 = LOAD64(ip + 16);
	a2 = LOAD64(ip + 24);
	a3 = LOAD64(ip + 32);
	w->sum = sum64(a0) + sum64(a1) + sum64(a2) + sum64(a3);
	w->flags = GN_F_IPV6;
	w->ip_id = 0;
	w->id.w.tuple[1] = a0;
	w->id.w.tuple6[0] = a1;
	w->id.w.tuple6[1] = a2;
	w->id.w.tuple6[2] = a3;
	w->id.ntuple6 = IDENT_TUPLE_V6;
	w->id.w.fixed[1] = LOAD32(f->data + 8) | (__u64)LOAD32(ip) << 32;
	w->id.w.fixed[2] |= IDENT_TTL(LOAD8(ip + 7));
	return PARSED_TUPLE;
}

/*
 * All headers made sense. Both checksums of interest come from the pseudo-header and
 * the L4 header alone: a good checksum makes all of it, payload included, sum up to
 * 0xffff; so what header and pseudo-header lack is what the sender says of the payload.
 */
static __always_inline enum parsed parse_done(struct frame *f, struct work *w,
					      __u32 l4_len, __u64 header, __u16 check,
					      __u16 flags)
{
	__u64 pseudo = w->sum + bpf_htons(w->l4_total) + bpf_htons(w->proto);

	if (flags & GN_F_CSUM_NONE) {
		f->meta->payload_sum = 0;
	} else {
		if (check == sum_fold(pseudo))
			flags |= GN_F_CSUM_PARTIAL;
		f->meta->payload_sum = ~sum_fold(pseudo + header);
	}
	flags |= w->flags;
	f->meta->flags = flags;
	w->id.w.fixed[2] |= IDENT_CSUM(flags);
	f->meta->ip_id = w->ip_id;
	f->meta->payload_len = w->l4_total - l4_len;
	f->meta->l3_off = w->l3_off;
	f->meta->l4_off = w->l4_off;
	f->meta->l4_len = l4_len;
	return PARSED_ALL;
}

/* By arithmetic: a branch each would double the verifier's work. */
static __always_inline __u16 tcp_meta_flags(__u32 t)
{
	return GN_F_TCP | (t & TCP_PSH) * (GN_F_PSH / TCP_PSH) |
	       (t & TCP_FIN) * (GN_F_FIN / TCP_FIN) |
	       (t & TCP_CWR) / (TCP_CWR / GN_F_CWR);
}

static __always_inline enum parsed parse_tcp(struct frame *f, struct work *w)
{
	void *tcp = f->l4, *opt = tcp + TCP_LEN;
	__u32 w2, n, l4_len, tail = 0, t;
	__u64 w0, w1, sum;

	if (opt > f->end || w->l4_total < TCP_LEN)
		return parse_malformed(w, PARSED_NOTHING);
	w0 = LOAD64(tcp);
	if (unlikely(w->why == GN_CNT_ALONE_FRAGMENT))
		return PARSED_TUPLE;
	l4_len = (LOAD8(tcp + 12) >> 4) * 4;
	if (l4_len < TCP_LEN || l4_len > w->l4_total)
		return parse_malformed(w, PARSED_TUPLE);
	w1 = LOAD64(tcp + 8);
	w2 = LOAD32(tcp + 16);
	sum = sum64(w0) + sum64(w1) + w2;
	w->id.w.tcp[0] = w1 & ~bpf_cpu_to_be64(TCP_WORD_FREE);

	/* Options: an odd number of 4-byte words ends in a word of its own. */
	n = l4_len - TCP_LEN;
	if (n & 4) {
		void *p = tcp + (l4_len - 4);

		if (p + 4 > f->end)
			return parse_malformed(w, PARSED_TUPLE);
		tail = LOAD32(p);
		sum += tail;
	}
	w->id.w.fixed[2] |= tail | (__u64)LOAD16(tcp + 18) << 32;
#pragma unroll
	for (__u32 i = 0; i < IDENT_TCP_MAX - 1; i++) {
		__u64 word;

		if (n < 8 * (i + 1))
			break;
		if (opt + 8 * (i + 1) > f->end)
			return parse_malformed(w, PARSED_TUPLE);
		word = LOAD64(opt + 8 * i);
		w->id.w.tcp[1 + i] = word;
		sum += sum64(word);
	}
	w->id.ntcp = 1 + n / 8;
	f->meta->seq = bpf_ntohl(LOAD32(tcp + 4));
	t = LOAD8(tcp + 13);
	w->tcp_flags = t;
	return parse_done(f, w, l4_len, sum, LOAD16(tcp + 16), tcp_meta_flags(t));
}

static __always_inline enum parsed parse_udp(struct frame *f, struct work *w)
{
	void *udp = f->l4;
	__u16 check, flags = GN_F_UDP;

	if (udp + UDP_LEN > f->end || w->l4_total < UDP_LEN)
		return parse_malformed(w, PARSED_NOTHING);
	if (unlikely(w->why == GN_CNT_ALONE_FRAGMENT))
		return PARSED_TUPLE;
	check = LOAD16(udp + 6);
	if (bpf_ntohs(LOAD16(udp + 4)) != w->l4_total)
		return parse_malformed(w, PARSED_TUPLE);
	if (!check) {
		if (w->flags & GN_F_IPV6) /* RFC 8200, section 8.1 */
			return parse_malformed(w, PARSED_TUPLE);
		flags |= GN_F_CSUM_NONE;
	}
	w->id.ntcp = 0;
	w->tcp_flags = 0;
	f->meta->seq = 0;
	return parse_done(f, w, UDP_LEN, sum64(LOAD64(udp)), check, flags);
}

/*
 * The IP header, behind the tags.
 *
 * Return: PARSED_TUPLE if an L4 header of this flow follows, at w->l4_off; else
 * PARSED_NOTHING, and w->why says what is wrong
 */
static __always_inline enum parsed parse_l3(struct frame *f, struct work *w)
{
	w->why = GN_CNT_RX;
	w->id.next = 0;
	JOIN(f->l3_off);
	JOIN(f->ntags);
	w->l3_off = f->l3_off;
	w->id.w.fixed[2] = IDENT_SHAPE(f->ntags);
	if (unlikely(f->ntags) && f->data + ETH_HLEN + VLAN_LEN <= f->end) {
		w->id.w.tags = LOAD32(f->data + 12);
		if (f->ntags > 1 && f->data + ETH_HLEN + 2 * VLAN_LEN <= f->end)
			w->id.w.tags |= (__u64)LOAD32(f->data + 16) << 32;
	}
	if (likely(f->type == bpf_htons(ETH_P_IP)))
		return parse_ipv4(f, w);
	if (f->type == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(f, w);
	if (is_vlan(f->type) && f->ntags < 2)
		return parse_malformed(w, PARSED_NOTHING);
	return PARSED_NOTHING;
}

/*
 * What is behind the IP header. Uses nothing of @f but data, end, and meta, which it fills
 * from seq to l4_len if all of it made sense; sets l4.
 *
 * Return: as parse_l3()
 */
static __always_inline enum parsed parse_l4(struct frame *f, struct work *w)
{
	__u32 off = w->l4_off;

	if (off > L4_OFF_MAX) /* never; for the verifier */
		return PARSED_NOTHING;
	f->l4 = f->data + off;
	if (likely(w->proto == IPPROTO_TCP))
		return parse_tcp(f, w);
	if (w->proto == IPPROTO_UDP)
		return parse_udp(f, w);
	return PARSED_NOTHING;
}

#endif
