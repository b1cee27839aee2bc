/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The next segment of an established TCP connection over IPv4, which is most of what
 * arrives where aggregation matters: one tag at most, no options or those 12 bytes that
 * timestamps take, data, no flag but ACK, PSH, FIN.
 *
 * Its slot holds the words of the segment before it. Where this one has the same,
 * whatever the parser concluded from them holds again: IPv4 without options or fragment,
 * TCP with so many bytes of header, no flag that forbids merging. What the words do not
 * cover is looked at here: lengths and checksums, and what the instance takes now.
 * Everything else is left to the parser, which says the same of these frames, only later;
 * the words are those of struct ident, so the parser's segments and these continue each
 * other's runs.
 */
#ifndef GN_FAST_H
#define GN_FAST_H

#include "ident.h"
#include "maps.h"
#include "parse.h"

#define TCP_TS_LEN 12 /* bytes of options: timestamps and their padding */

/* As describe_next(), for frames with @ntags tags. */
static __always_inline bool describe_tcp4(const struct frame *f,
					  const struct gn_config *conf,
					  const struct gn_instance *in, const __u32 ntags)
{
	const __u32 l3_off = ETH_HLEN + ntags * VLAN_LEN;
	void *ip = f->data + l3_off, *tcp = ip + IPV4_LEN, *opt = tcp + TCP_LEN;
	__u64 ports, addrs, w1, wopt, sum, pseudo, diff;
	__u32 frag, tail, len, l4_len, t, flow, index;
	struct gn_meta *m = f->meta;
	const struct slot *s;
	__u16 flags;

	if (opt > f->end || LOAD8(ip + 9) != IPPROTO_TCP)
		return false;
	l4_len = LOAD8(tcp + 12) >> 4 << 2;
	len = bpf_ntohs(LOAD16(ip + 2));
	if (len <= IPV4_LEN + l4_len || len > f->len - l3_off)
		return false;
	ports = IDENT_PORTS(LOAD32(tcp), in->id, IPPROTO_TCP, 0);
	addrs = LOAD64(ip + 12);
	flow = ident_flow4(ports, addrs, conf);
	index = flow % IDENT_SLOTS;
	s = bpf_map_lookup_elem(&slots, &index);
	if (!s)
		return false;

	/* The words, and the sums of everything on the way. */
	w1 = LOAD64(tcp + 8);
	frag = LOAD16(ip + 6);
	sum = SUM64(tcp) + SUM64(tcp + 8) + LOAD32(tcp + 16);
	tail = 0;
	diff = 0;
	if (likely(l4_len == TCP_LEN + TCP_TS_LEN)) {
		if (opt + TCP_TS_LEN > f->end)
			return false;
		wopt = LOAD64(opt);
		tail = LOAD32(opt + 8);
		sum += SUM64(opt) + tail;
		diff = s->w.tcp[1] ^ wopt;
	} else if (l4_len != TCP_LEN) {
		return false;
	}
	diff |= s->w.tuple[0] ^ ports;
	diff |= s->w.tuple[1] ^ addrs;
	diff |= s->w.fixed[0] ^ LOAD64(f->data);
	diff |= s->w.fixed[1] ^
		(LOAD32(f->data + 8) | (__u64)LOAD16(ip) << 32 | (__u64)frag << 48);
	diff |= s->w.tcp[0] ^ (w1 & ~bpf_cpu_to_be64(TCP_WORD_FREE));

	pseudo = SUM64(ip + 12);
	if (sum_fold(SUM64(ip) + LOAD32(ip + 8) + pseudo) != 0xffff)
		return false;
	pseudo += bpf_htons(len - IPV4_LEN) + bpf_htons(IPPROTO_TCP);
	t = LOAD8(tcp + 13);
	flags = tcp_meta_flags(t);
	if (LOAD16(tcp + 16) == sum_fold(pseudo))
		flags |= GN_F_CSUM_PARTIAL;
	diff |= s->w.fixed[2] ^
		(tail | (__u64)LOAD16(tcp + 18) << 32 | IDENT_TTL(LOAD8(ip + 8)) |
		 IDENT_CSUM(flags) | IDENT_SHAPE(ntags));
	if (ntags)
		diff |= s->w.tags ^ LOAD32(f->data + ETH_HLEN - 2);
	if (diff || t & TCP_CWR || !(in->flags & GN_INSTANCE_TSO4))
		return false;

	m->magic = GN_META_MAGIC;
	m->instance = in->id;
	m->flow = flow;
	m->key = s->run;
	m->seq = bpf_ntohl(LOAD32(tcp + 4));
	m->ip_id = bpf_ntohs(LOAD16(ip + 4));
	m->payload_len = len - IPV4_LEN - l4_len;
	m->payload_sum = ~sum_fold(pseudo + sum);
	m->flags = flags;
	m->l3_off = l3_off;
	m->l4_off = l3_off + IPV4_LEN;
	m->l4_len = l4_len;
	m->class = t & (TCP_PSH | TCP_FIN) ? GN_CLASS_CLOSE : GN_CLASS_CONTINUE;
	return true;
}

/*
 * Return: true if f->meta is filled; false: nothing is known
 */
static __always_inline bool describe_next(const struct frame *f,
					  const struct gn_config *conf,
					  const struct gn_instance *in)
{
	if (f->type != bpf_htons(ETH_P_IP) || f->ntags > 1)
		return false;
	return likely(!f->ntags) ? describe_tcp4(f, conf, in, 0)
				 : describe_tcp4(f, conf, in, 1);
}

#endif
