/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The next segment of an established TCP connection over IPv4, which is most of what
 * arrives where aggregation matters: one tag at most, no options or those 12 bytes that
 * timestamps take, data, no flag but ACK, PSH, FIN.
 *
 * Of each connection a CPU remembers the last segment that the parser described: all its
 * bytes that ident.h has in words, and what was concluded from them. Where this
 * one has the same bytes, the same holds again: instance, IPv4 without options or
 * fragment, TCP with so many bytes of header, no flag that forbids merging, flow and run.
 * What those bytes do not cover is looked at here: lengths, checksums, and whether the
 * map of instances has changed since. Sums of bytes that are the same need not be made
 * again. Everything else is left to the parser, which says the same of these frames, only
 * later.
 *
 * A run goes on by what is remembered, even when its slot has passed to another flow: its
 * number and its words belong together for ever.
 */
#ifndef GN_FAST_H
#define GN_FAST_H

#include "ident.h"
#include "maps.h"
#include "parse.h"

#define TCP_TS_LEN 12 /* bytes of options: timestamps and their padding */

/* @x as it stands in the 64-bit word of @type that has @field. */
#define FIELD_SIZE(type, field) sizeof(((type *)0)->field)
#define FIELD_AT(type, field)	(__builtin_offsetof(type, field) % 8)
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define FIELD_SHIFT(type, field) (8 * FIELD_AT(type, field))
#else
#define FIELD_SHIFT(type, field)                                                         \
	(64 - 8 * (FIELD_AT(type, field) + FIELD_SIZE(type, field)))
#endif
#define FIELD_OF(type, field, x)                                                         \
	((__u64)(__typeof__(((type *)0)->field))(x) << FIELD_SHIFT(type, field))
#define FIELD(field, x) FIELD_OF(struct gn_meta, field, x)
#define NEXT(field, x)	FIELD_OF(struct gn_next, field, x)

/* Bits of the TCP word at offset 8 that a segment may have or not. */
#define TCP_WORD_ENDS bpf_cpu_to_be64((__u64)(TCP_PSH | TCP_FIN) << 16)

/* What is new in a segment. */
struct segment {
	const struct known_tcp *k;
	__u32 seq;
	__u16 id, len, sum; /* gn_meta.ip_id, payload_len, payload_sum */
	__u16 flags;	    /* gn_meta.flags */
	__u8 class;	    /* gn_meta.class */
};

static __always_inline struct known_tcp *known_of(__u64 addrs, __u32 ports,
						  const struct gn_config *conf)
{
	__u64 h = (addrs + ports * 0x9e3779b97f4a7c15ULL) * (conf->hash_key[0] | 1);
	__u32 index = h >> (64 - KNOWN_TCP_BITS);

	return bpf_map_lookup_elem(&known_tcps, &index);
}

/* As recognise(), for frames with @ntags tags. */
static __always_inline bool recognise_tcp4(const struct frame *f,
					   const struct gn_config *conf, __u32 generation,
					   struct segment *g, const __u32 ntags)
{
	const __u32 l3_off = ETH_HLEN + ntags * VLAN_LEN;
	void *ip = f->data + l3_off, *tcp = ip + IPV4_LEN, *opt = tcp + TCP_LEN;
	const struct known_tcp *k;
	__u32 ports, len, t;
	__u64 addrs, diff, sum;
	__u16 check, pseudo;

	if (opt > f->end)
		return false;
	addrs = LOAD64(ip + 12);
	ports = LOAD32(tcp);
	k = known_of(addrs, ports, conf);
	if (!k)
		return false;
	diff = k->eth[0] ^ LOAD64(f->data);
	diff |= k->eth[1] ^ LOAD64(f->data + 8);
	if (ntags)
		diff |= k->type ^ LOAD32(ip - 2);
	diff |= k->ttl ^ LOAD32(ip + 6);
	diff |= k->addrs ^ addrs;
	diff |= k->ports ^ ports;
	diff |= k->ack ^ (LOAD64(tcp + 8) & ~TCP_WORD_ENDS);
	diff |= k->urgent ^ LOAD16(tcp + 18);
	diff |= k->generation ^ generation;
	if (k->l4_len != TCP_LEN) {
		if (opt + TCP_TS_LEN > f->end)
			return false;
		diff |= k->opt ^ LOAD64(opt);
		diff |= k->opt_tail ^ LOAD32(opt + 8);
	}
	if (diff || !generation)
		return false;

	len = bpf_ntohs(LOAD16(ip + 2));
	check = LOAD16(tcp + 16);
	if (len <= k->hdr_len || len > f->len - l3_off ||
	    sum_fold((__u64)k->ip_sum + LOAD32(ip + 2) + LOAD16(ip + 10)) != 0xffff)
		return false;
	sum = k->pseudo_sum + bpf_htons(len - IPV4_LEN);
	pseudo = sum_fold_short(sum);
	if ((check == pseudo) != k->partial)
		return false;
	t = LOAD8(tcp + 13) & (TCP_PSH | TCP_FIN);
	sum += (__u64)k->tcp_sum + LOAD32(tcp + 4) + bpf_htons(t) + check;
	g->k = k;
	g->seq = bpf_ntohl(LOAD32(tcp + 4));
	g->id = bpf_ntohs(LOAD16(ip + 4));
	g->len = len - k->hdr_len;
	g->sum = ~sum_fold(sum);
	g->flags = tcp_meta_flags(t) | (k->partial ? GN_F_CSUM_PARTIAL : 0) |
		   (k->in.flags & GN_INSTANCE_LOGGED);
	g->class = t ? GN_CLASS_CLOSE : GN_CLASS_CONTINUE;
	return true;
}

/*
 * Is this the next segment of a connection that is known?
 *
 * @f:		data, end, len
 * @generation:	of map "instances"; 0: nothing is known
 * @g:		filled if so
 */
static __always_inline bool recognise(const struct frame *f, const struct gn_config *conf,
				      __u32 generation, struct segment *g)
{
	return likely(LOAD16(f->data + 12) == bpf_htons(ETH_P_IP))
		       ? recognise_tcp4(f, conf, generation, g, 0)
		       : recognise_tcp4(f, conf, generation, g, 1);
}

/* As learn(), for frames with the IP header at @l3_off. */
static __always_inline void learn_tcp4(void *data, void *end,
				       const struct gn_config *conf,
				       const struct gn_instance *in, __u32 generation,
				       const struct gn_meta *m, const __u32 l3_off)
{
	void *ip = data + l3_off, *tcp = ip + IPV4_LEN, *opt = tcp + TCP_LEN;
	struct known_tcp *k;
	__u64 addrs, ack, sum;
	__u32 ports;

	if (opt > end)
		return;
	addrs = LOAD64(ip + 12);
	ports = LOAD32(tcp);
	k = known_of(addrs, ports, conf);
	if (!k)
		return;
	ack = LOAD64(tcp + 8) & ~TCP_WORD_ENDS;
	sum = (__u64)ports + sum64(ack) + LOAD16(tcp + 18);
	if (m->l4_len != TCP_LEN) {
		if (opt + TCP_TS_LEN > end)
			return;
		k->opt = LOAD64(opt);
		k->opt_tail = LOAD32(opt + 8);
		sum += SUM64(opt) + LOAD32(opt + 8);
	}
	k->eth[0] = LOAD64(data);
	k->eth[1] = LOAD64(data + 8);
	k->type = LOAD32(ip - 2);
	k->ttl = LOAD32(ip + 6);
	k->addrs = addrs;
	k->ports = ports;
	k->ack = ack;
	k->urgent = LOAD16(tcp + 18);
	k->generation = generation;
	k->l4_len = m->l4_len;
	k->hdr_len = IPV4_LEN + m->l4_len;
	k->partial = !!(m->flags & GN_F_CSUM_PARTIAL);
	k->l3_off = l3_off;
	k->tcp_sum = sum_fold(sum);
	sum = SUM64(ip + 12);
	k->ip_sum = sum_fold(sum + LOAD16(ip) + LOAD32(ip + 6));
	k->pseudo_sum = sum_fold(sum + bpf_htons(IPPROTO_TCP));
	k->flow = m->flow;
	k->run = m->key;
	k->in = *in;
}

/*
 * Remember the frame that the parser described in @m, if its next ones can be recognised.
 * Global, so that the verifier takes it once (ident_key()).
 *
 * @generation:	of map "instances", before @in was looked up; 0: @in may change unseen
 *
 * Return: 0
 */
__attribute__((noinline)) int learn(struct xdp_md *ctx, const struct gn_meta *m,
				    const struct gn_instance *in, __u32 generation)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct gn_config *conf;
	__u32 zero = 0;

	conf = bpf_map_lookup_elem(&config, &zero);
	if (!m || !in || !conf)
		return 0;
	if (m->class < GN_CLASS_CONTINUE || !generation ||
	    (m->flags & (GN_F_TCP | GN_F_IPV6)) != GN_F_TCP ||
	    m->l4_off != m->l3_off + IPV4_LEN ||
	    (m->l4_len != TCP_LEN && m->l4_len != TCP_LEN + TCP_TS_LEN))
		return 0;
	if (m->l3_off == ETH_HLEN)
		learn_tcp4(data, end, conf, in, generation, m, ETH_HLEN);
	else if (m->l3_off == ETH_HLEN + VLAN_LEN)
		learn_tcp4(data, end, conf, in, generation, m, ETH_HLEN + VLAN_LEN);
	return 0;
}

/* All of @g's metadata. Whole words: a record's line may have to come from the reader's
 * CPU, and meanwhile stores wait in a buffer that is soon full. */
static __always_inline void put_segment(struct gn_meta *m, const struct segment *g)
{
	const struct known_tcp *k = g->k;
	__u64 *w = (__u64 *)m;

	w[0] = FIELD(magic, GN_META_MAGIC) | FIELD(instance, k->in.id) |
	       FIELD(flow, k->flow);
	w[1] = k->run;
	w[2] = FIELD(seq, g->seq) | FIELD(ip_id, g->id) | FIELD(payload_len, g->len);
	w[3] = FIELD(payload_sum, g->sum) | FIELD(flags, g->flags) |
	       FIELD(l3_off, k->l3_off) | FIELD(l4_off, k->l3_off + IPV4_LEN) |
	       FIELD(l4_len, k->l4_len) | FIELD(class, g->class);
}

/* Room for all of what @next, a record of @s, says. */
static __always_inline struct gn_meta *whole_record(struct gn_stream *s,
						    struct gn_next *next)
{
	__u32 at = s->whole % GN_STREAM_SIZE;

	s->whole = at + 1;
	next->payload_len = at;
	next->class = GN_NEXT_WHOLE;
	return &s->rec[at];
}

/* Does record @seq of @s say what is new only? It is of segment @first of run @key, whose IP
 * identification is @step above the one before's. */
static __always_inline bool goes_on(const struct gn_stream *s, __u32 seq, __u64 key,
				    __u32 first, __u16 step)
{
	return s->last_key == key && s->next_seq == first && step <= 1 &&
	       seq % GN_STREAM_EVERY;
}

/* A record that says what is new only, all of it in one store. */
static __always_inline void put_next(struct gn_next *next, __u16 payload_len,
				     __u16 payload_sum, __u16 flags, __u8 id_step,
				     __u8 class)
{
	*(__u64 *)next = NEXT(payload_len, payload_len) | NEXT(payload_sum, payload_sum) |
			 NEXT(flags, flags) | NEXT(id_step, id_step) | NEXT(class, class);
}

/* @g as record @seq of @s. */
static __always_inline void record_segment(struct gn_stream *s, __u32 seq,
					   const struct segment *g)
{
	struct gn_next *next = &s->next[seq % GN_STREAM_SIZE];
	__u64 key = g->k->run;
	__u16 step = g->id - s->last_id;
	bool next_only = goes_on(s, seq, key, g->seq, step);

	s->next_seq = g->seq + g->len;
	s->last_id = g->id;
	if (likely(next_only)) {
		put_next(next, g->len, g->sum, g->flags, step, g->class);
		return;
	}
	s->last_key = key;
	put_segment(whole_record(s, next), g);
}

#endif
