// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * The "NIC": parse each frame once, say what it is, hand it to AF_XDP.
 *
 * A frame whose VLAN and destination MAC address belong to an instance gets struct
 * gn_meta in front of it and goes to the AF_XDP socket of its queue, where ghostnicd
 * aggregates by the metadata alone. Every other frame goes to the kernel as it came, and
 * so does an instance's as long as there is no socket. What the fields mean is in
 * offload_shared.h; parse.h reads headers, ident.h makes the identifiers, fast.h
 * knows the next segment of a connection by the one before it, verify.h sums payloads,
 * maps.h has the maps.
 *
 * Runs in the driver's receive loop, on the CPU of the queue. Loaded by libxdp, beside
 * other programs, by kernels from 6.1 on. Takes CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON:
 * without the last, the verifier allows no variable offset into a packet.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <xdp/xdp_helpers.h>

#include "offload_shared.h"
#include "maps.h"
#include "parse.h"
#include "fast.h"
#include "verify.h"

/* libxdp's dispatcher: order among the programs, and which verdict lets the next one run.
 */
struct {
	__uint(priority, 50);
	__uint(XDP_PASS, 1);
} XDP_RUN_CONFIG(ghostnic);

/*
 * The instance that a frame is for. A CPU asks the map once per @generation of it (struct
 * gn_config), read first: what a change overtakes is remembered as of before it.
 */
static __always_inline bool find_instance(const struct frame *f, struct cpu *c,
					  __u32 generation, struct gn_instance *in)
{
	const struct gn_instance *found;
	struct known *k;
	__u64 key;

	/* One store, as wide as what the lookup loads: narrower ones would stall it. */
	key = (LOAD64(f->data) & bpf_cpu_to_be64(0xffffffffffff0000)) |
	      bpf_cpu_to_be64(bpf_ntohs(f->vlan));
	k = &c->known[key * 0x9e3779b97f4a7c15ULL >> (64 - KNOWN_BITS)];
	if (likely(k->key == key && k->generation == generation && generation)) {
		*in = k->in;
		return true;
	}
	found = bpf_map_lookup_elem(&instances, &key);
	if (!found)
		return false;
	*in = *found;
	k->key = key;
	k->generation = generation;
	k->in = *in;
	return true;
}

/* What a segment may do to its flow's chain (rules 1 to 3 of GRO). May set w->why. */
static __always_inline enum gn_class classify(const struct gn_meta *m, struct work *w,
					      const struct gn_instance *in)
{
	__u32 flags = m->flags, t = w->tcp_flags, takes = GN_INSTANCE_USO;

	if (flags & GN_F_TCP) {
		takes = flags & GN_F_IPV6 ? GN_INSTANCE_TSO6 : GN_INSTANCE_TSO4;
		if (t & (TCP_SYN | TCP_RST | TCP_URG) ||
		    (t & TCP_CWR && t & (TCP_PSH | TCP_FIN))) {
			if (!w->why)
				w->why = GN_CNT_ALONE_TCP_FLAGS;
		} else if (!m->payload_len) {
			if (!w->why)
				w->why = GN_CNT_ALONE_TCP_EMPTY;
		}
	}
	if (w->why || !m->payload_len || !(in->flags & takes))
		return GN_CLASS_ALONE;
	if (t & TCP_CWR)
		return GN_CLASS_START;
	if (t & (TCP_PSH | TCP_FIN))
		return GN_CLASS_CLOSE;
	return GN_CLASS_CONTINUE;
}

/* Look at the frame, from the start, also for the verifier. Return: false: no Ethernet
 * header */
static __always_inline bool load_frame(struct frame *f, const struct xdp_md *ctx)
{
	asm volatile("" : : : "memory");
	f->data = (void *)(long)ctx->data;
	f->end = (void *)(long)ctx->data_end;
	return f->data + ETH_HLEN <= f->end;
}

/*
 * Parse the frame and fill c->meta. Global, so that the verifier takes the ways through
 * the parser by themselves, and not once more for each way to it (ident_key()).
 *
 * Return: 0
 */
__attribute__((noinline)) int describe(struct xdp_md *ctx, struct cpu *c,
				       const struct gn_instance *in)
{
	const struct gn_config *conf;
	enum gn_class class;
	enum parsed got;
	struct gn_meta *m;
	struct work *w;
	struct slot *s;
	struct frame f;
	__u32 index = 0;

	conf = bpf_map_lookup_elem(&config, &index);
	if (!c || !in || !conf)
		return 0;
	m = &c->meta;
	w = &c->work;
	*m = (struct gn_meta){ .magic = GN_META_MAGIC,
			       .instance = in->id,
			       .class = GN_CLASS_ALONE };
	f.meta = m;
	f.len = bpf_xdp_get_buff_len(ctx);
	if (!load_frame(&f, ctx) || !parse_tags(&f))
		return 0;
	got = parse_l3(&f, w);
	if (got == PARSED_NOTHING)
		return 0;
	/* Forget what was learned on the way, so that all ways here are one. */
	if (!load_frame(&f, ctx))
		return 0;
	got = parse_l4(&f, w);
	if (got == PARSED_NOTHING)
		return 0;
	w->id.w.tuple[0] = IDENT_PORTS(LOAD32(f.l4), in->id, w->proto, w->flags);
	m->flow = ident_flow(&w->id, conf);
	if (got != PARSED_ALL)
		return 0;
	class = classify(m, w, in);
	if (class == GN_CLASS_ALONE)
		return 0;
	index = m->flow % IDENT_SLOTS;
	s = bpf_map_lookup_elem(&slots, &index);
	if (!s)
		return 0;
	w->id.w.fixed[0] = LOAD64(f.data);
	ident_key(&w->id, s, &c->runs);
	m->class = class;
	m->key = s->run;
	return 0;
}

/*
 * Nothing stands in the metadata area, and the driver has one. What a program before
 * us put there is left alone: its reader knows it by its place.
 */
static __always_inline bool area_is_free(const struct xdp_md *ctx)
{
	return ctx->data_meta == ctx->data;
}

static __always_inline bool put_tag(struct xdp_md *ctx, __u16 magic, __u32 seq)
{
	struct gn_tag *tag;

	if (!area_is_free(ctx) || bpf_xdp_adjust_meta(ctx, -(int)sizeof(*tag)))
		return false;
	tag = (void *)(long)ctx->data_meta;
	if ((void *)(tag + 1) > (void *)(long)ctx->data)
		return false;
	tag->magic = magic;
	tag->pad = 0;
	tag->seq = seq;
	return true;
}

static __always_inline struct gn_stream *stream_of(const struct xdp_md *ctx, __u32 conf)
{
	__u32 queue = ctx->rx_queue_index;

	if ((conf & (GN_CONFIG_STREAM | GN_CONFIG_INBAND)) != GN_CONFIG_STREAM)
		return NULL;
	return bpf_map_lookup_elem(&stream, &queue);
}

/* The next record of the queue's stream, with a tag that names it. NULL: there is none;
 * else @seq is its number. */
static __always_inline struct gn_stream *take_record(struct xdp_md *ctx, __u32 conf,
						     __u32 *number)
{
	struct gn_stream *s = stream_of(ctx, conf);
	__u32 seq;

	if (unlikely(!s))
		return NULL;
	seq = s->prod + s->gap;
	/* The daemon's line is looked at when it has to be. */
	if (unlikely(seq - s->cons_seen >= GN_STREAM_ROOM)) {
		s->cons_seen = *(volatile __u32 *)&s->cons;
		if (seq - s->cons_seen >= GN_STREAM_ROOM)
			return NULL;
	}
	if (!put_tag(ctx, GN_META_MAGIC_STREAM, seq))
		return NULL;
	s->gap = 0;
	s->prod = seq + 1;
	*number = seq;
	return s;
}

/* By field, as it was written: a load wider than a store still on its way stalls. */
static __always_inline void copy_meta(struct gn_meta *dst, const struct gn_meta *m,
				      __u16 magic)
{
	dst->magic = magic;
	dst->instance = m->instance;
	dst->flow = m->flow;
	dst->key = m->key;
	dst->seq = m->seq;
	dst->ip_id = m->ip_id;
	dst->payload_len = m->payload_len;
	dst->payload_sum = m->payload_sum;
	dst->flags = m->flags;
	dst->l3_off = m->l3_off;
	dst->l4_off = m->l4_off;
	dst->l4_len = m->l4_len;
	dst->class = m->class;
}

/* @m into record prod - 1. */
static __always_inline void put_record(struct gn_stream *s, const struct gn_meta *m)
{
	__u32 seq = s->prod - 1;
	struct gn_next *next = &s->next[seq % GN_STREAM_SIZE];
	__u16 step = m->ip_id - s->last_id;
	bool tcp = m->flags & GN_F_TCP;

	if (m->key && goes_on(s, seq, m->key, m->seq, step)) {
		put_next(next, m->payload_len, m->payload_sum, m->flags, step, m->class);
	} else {
		copy_meta(whole_record(s, next), m, GN_META_MAGIC);
	}
	s->last_key = tcp ? m->key : 0;
	s->next_seq = m->seq + m->payload_len;
	s->last_id = m->ip_id;
}

/* @m into the metadata area. Return: false if there is no room */
static __always_inline bool put_front(struct xdp_md *ctx, const struct gn_meta *m)
{
	struct gn_meta *dst;

	if (!area_is_free(ctx) || bpf_xdp_adjust_meta(ctx, -GN_META_SIZE))
		return false;
	dst = (void *)(long)ctx->data_meta;
	if ((void *)(dst + 1) > (void *)(long)ctx->data)
		return false;
	copy_meta(dst, m, GN_META_MAGIC);
	return true;
}

/* @m before the first byte of the frame. Return: false if there is no headroom */
static __always_inline bool put_inband(struct xdp_md *ctx, const struct gn_meta *m)
{
	struct gn_meta *dst;

	if (bpf_xdp_adjust_head(ctx, -GN_META_SIZE))
		return false;
	dst = (void *)(long)ctx->data;
	if ((void *)(dst + 1) > (void *)(long)ctx->data_end)
		return false;
	copy_meta(dst, m, GN_META_MAGIC_INBAND);
	return true;
}

/* c->meta into the record that is there for it, else the metadata area, or, last, the
 * frame. */
static __always_inline bool put_meta(struct xdp_md *ctx, const struct cpu *c, __u32 conf,
				     struct gn_counters *cnt)
{
	struct gn_stream *s = stream_of(ctx, conf);
	const struct gn_meta *m = &c->meta;

	if (s && c->tagged) {
		put_record(s, m);
		return true;
	}
	/* Of a frame without a tag, the stream's reader must not think that it has one.
	 */
	if (s) {
		s->gap = GN_STREAM_GAP;
		s->last_key = 0;
	} else if (!(conf & GN_CONFIG_INBAND) && put_front(ctx, m))
		return true;
	if (!put_inband(ctx, m)) {
		count(cnt, GN_CNT_DROP_META);
		return false;
	}
	if (s)
		put_tag(ctx, GN_META_MAGIC_FULL, s->prod);
	count(cnt, GN_CNT_INBAND);
	return true;
}

SEC("xdp.frags")
int ghostnic(struct xdp_md *ctx)
{
	const struct gn_config *conf;
	__u32 zero = 0, generation, seq = 0;
	struct gn_counters *cnt;
	struct gn_instance in;
	struct gn_stream *s;
	struct segment g;
	struct gn_meta *m;
	struct frame f;
	struct cpu *c;
	bool known, verify;

	cnt = bpf_map_lookup_elem(&counters, &zero);
	conf = bpf_map_lookup_elem(&config, &zero);
	c = bpf_map_lookup_elem(&cpus, &zero);
	if (!cnt || !conf || !c)
		return XDP_PASS;
	count(cnt, GN_CNT_RX);

	/* Whose is it? The host's frames leave here, after one lookup. */
	if (!load_frame(&f, ctx)) {
		count(cnt, GN_CNT_PASS_MALFORMED);
		return XDP_PASS;
	}
	f.len = bpf_xdp_get_buff_len(ctx);
	generation = *(const volatile __u32 *)&conf->generation;
	known = recognise(&f, conf, generation, &g);
	if (known) {
		in = g.k->in;
	} else {
		/* Forget what was learned on the way, so that all ways here are one. */
		if (!load_frame(&f, ctx))
			return XDP_PASS;
		if (LOAD8(f.data) & 1) {
			count(cnt, GN_CNT_PASS_MULTICAST);
			return XDP_PASS;
		}
		if (!parse_tags(&f)) {
			count(cnt, GN_CNT_PASS_MALFORMED);
			return XDP_PASS;
		}
		if (!find_instance(&f, c, generation, &in)) {
			count(cnt, GN_CNT_PASS_OTHER);
			return XDP_PASS;
		}
	}

	/* Can AF_XDP take it? Asked before anything is changed, so that there is nothing
	 * to undo for the host: bpf_redirect_map() only notes a target, and returns its
	 * flags when the queue has none. */
	if (f.len > conf->max_frame) {
		count(cnt, GN_CNT_PASS_OVERSIZE);
		return XDP_PASS;
	}
	if (bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS) != XDP_REDIRECT) {
		count(cnt, GN_CNT_PASS_NO_SOCKET);
		return XDP_PASS;
	}

	/* What is it? */
	s = take_record(ctx, conf->flags, &seq);
	c->tagged = !!s;
	m = &c->meta;
	verify = conf->flags & GN_CONFIG_VERIFY && !(in.flags & GN_INSTANCE_READS);
	if (!known) {
		describe(ctx, c, &in);
		m->flags |= in.flags & GN_INSTANCE_LOGGED;
		learn(ctx, m, &in, generation);
	} else if (!s || verify) {
		put_segment(m, &g);
	}
	if (verify && m->class != GN_CLASS_ALONE &&
	    !(m->flags & (GN_F_CSUM_PARTIAL | GN_F_CSUM_NONE)) && payload_good(ctx, m)) {
		m->flags |= GN_F_CSUM_GOOD;
		if (known)
			g.flags |= GN_F_CSUM_GOOD;
	}

	if (known && s) {
		record_segment(s, seq, &g);
	} else {
		if (!put_meta(ctx, c, conf->flags, cnt))
			return XDP_DROP;
		if (m->class == GN_CLASS_ALONE) {
			count(cnt, GN_CNT_ALONE);
			count_detail(cnt, c->work.why);
		}
	}
	count(cnt, GN_CNT_REDIRECT);
	cnt->v[GN_CNT_REDIRECT_BYTES] += f.len;
	return XDP_REDIRECT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
