// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * The "NIC": parse each frame once, say what it is, hand it to AF_XDP.
 *
 * A frame whose VLAN and destination MAC address belong to an instance gets struct
 * gn_meta in front of it and goes to the AF_XDP socket of its queue, where ghostnicd
 * aggregates by the metadata alone. Every other frame goes to the kernel as it came, and so
 * does an instance's as long as there is no socket. What the fields mean is in
 * offload_shared.h; parse.h reads headers, ident.h makes the identifiers, maps.h has
 * the maps.
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
#include "ident.h"

/* libxdp's dispatcher: order among the programs, and which verdict lets the next one run. */
struct {
	__uint(priority, 50);
	__uint(XDP_PASS, 1);
} XDP_RUN_CONFIG(ghostnic);

/* The instance that a frame is for, or NULL. */
static __always_inline const struct gn_instance *find_instance(const struct frame *f)
{
	/* One store, as wide as what the lookup loads: narrower ones would stall it. */
	__u64 key = (LOAD64(f->data) & bpf_cpu_to_be64(0xffffffffffff0000)) |
		    bpf_cpu_to_be64(bpf_ntohs(f->vlan));

	return bpf_map_lookup_elem(&instances, &key);
}

static __always_inline __u64 *meta_words(struct gn_meta *m)
{
	return (__u64 *)m;
}

/* What a segment may do to its flow's chain (rules 1 to 3 of GRO). May set w->why. */
static __always_inline enum gn_class classify(struct work *w, const struct gn_instance *in)
{
	__u32 flags = w->meta.flags, t = w->tcp_flags, takes = GN_INSTANCE_USO;

	if (flags & GN_F_TCP) {
		takes = flags & GN_F_IPV6 ? GN_INSTANCE_TSO6 : GN_INSTANCE_TSO4;
		if (t & (TCP_SYN | TCP_RST | TCP_URG) ||
		    (t & TCP_CWR && t & (TCP_PSH | TCP_FIN))) {
			if (!w->why)
				w->why = GN_CNT_ALONE_TCP_FLAGS;
		} else if (!w->meta.payload_len) {
			if (!w->why)
				w->why = GN_CNT_ALONE_TCP_EMPTY;
		}
	}
	if (w->why || !w->meta.payload_len || !(in->flags & takes))
		return GN_CLASS_ALONE;
	if (t & TCP_CWR)
		return GN_CLASS_START;
	if (t & (TCP_PSH | TCP_FIN))
		return GN_CLASS_CLOSE;
	return GN_CLASS_CONTINUE;
}

/* Parse @f and fill w->meta, all but the magic. */
static __always_inline void describe(struct frame *f, struct work *w,
				     const struct gn_config *conf,
				     const struct gn_instance *in)
{
	enum parsed got = parse_l3(f, w);
	enum gn_class class = GN_CLASS_ALONE;

	w->meta.instance = in->id;
	if (got == PARSED_ALL) {
		class = classify(w, in);
		w->meta.class = class;
	} else {
		meta_words(&w->meta)[2] = 0;
		meta_words(&w->meta)[3] = 0;	/* GN_CLASS_ALONE, too */
	}
	w->id.flow = 0;
	w->id.key = 0;
	if (got == PARSED_NOTHING)
		return;
	w->id.tuple[0] = LOAD32(f->l4) | (__u64)in->id << 32 | (__u64)f->proto << 48 |
			 (__u64)w->flags << 56;
	w->id.fixed[0] = LOAD64(f->data);
	ident_hash(&w->id, conf, class != GN_CLASS_ALONE);
}

/*
 * By field what was written last, by word what was written long ago: a load
 * that is wider than a store still on its way stalls.
 */
static __always_inline void store_meta(struct gn_meta *dst, struct work *w, __u16 magic)
{
	dst->magic = magic;
	dst->instance = w->meta.instance;
	dst->flow = w->id.flow;
	dst->key = w->id.key;
	meta_words(dst)[2] = meta_words(&w->meta)[2];
	meta_words(dst)[3] = meta_words(&w->meta)[3];
}

/*
 * Nothing stands in the metadata area, and the driver has one. What a program before
 * us put there is left alone: its reader knows it by its place.
 */
static __always_inline bool meta_is_free(const struct xdp_md *ctx)
{
	return ctx->data_meta == ctx->data;
}

/* The first bytes of the frame. Return: false if there is no headroom */
static __always_inline bool put_inband(struct xdp_md *ctx, struct work *w)
{
	struct gn_meta *dst;

	if (bpf_xdp_adjust_head(ctx, -GN_META_SIZE))
		return false;
	dst = (void *)(long)ctx->data;
	if ((void *)(dst + 1) > (void *)(long)ctx->data_end)
		return false;
	store_meta(dst, w, GN_META_MAGIC_INBAND);
	return true;
}

/* The metadata area: the GN_META_SIZE bytes that end where the frame begins. */
static __always_inline bool put_meta(struct xdp_md *ctx, struct work *w)
{
	struct gn_meta *dst;

	if (!meta_is_free(ctx) || bpf_xdp_adjust_meta(ctx, -GN_META_SIZE))
		return false;
	dst = (void *)(long)ctx->data_meta;
	if ((void *)(dst + 1) > (void *)(long)ctx->data)
		return false;
	store_meta(dst, w, GN_META_MAGIC);
	return true;
}

static __always_inline bool put_tag(struct xdp_md *ctx, __u16 magic, __u32 seq)
{
	struct gn_tag *tag;

	if (!meta_is_free(ctx) || bpf_xdp_adjust_meta(ctx, -(int)sizeof(*tag)))
		return false;
	tag = (void *)(long)ctx->data_meta;
	if ((void *)(tag + 1) > (void *)(long)ctx->data)
		return false;
	tag->magic = magic;
	tag->pad = 0;
	tag->seq = seq;
	return true;
}

/* The next record of the queue's stream, and a tag that names it. */
static __always_inline bool put_record(struct xdp_md *ctx, struct work *w, struct gn_stream *s)
{
	__u32 seq = s->prod + s->gap;

	if (seq - *(volatile __u32 *)&s->cons >= GN_STREAM_SIZE ||
	    !put_tag(ctx, GN_META_MAGIC_STREAM, seq))
		return false;
	store_meta(&s->rec[seq % GN_STREAM_SIZE], w, GN_META_MAGIC);
	s->gap = 0;
	s->prod = seq + 1;
	return true;
}

/* Wherever there is room for it. Return: which counter tells where, if one does; DROP_META: nowhere */
static __always_inline enum gn_counter put(struct xdp_md *ctx, struct work *w, __u32 conf)
{
	__u32 queue = ctx->rx_queue_index;
	struct gn_stream *s = NULL;

	if (likely((conf & (GN_CONFIG_STREAM | GN_CONFIG_INBAND)) == GN_CONFIG_STREAM))
		s = bpf_map_lookup_elem(&stream, &queue);
	if (likely(s)) {
		if (likely(put_record(ctx, w, s)))
			return GN_CNT_RX;
		s->gap = GN_STREAM_GAP;
	} else if (!(conf & GN_CONFIG_INBAND) && put_meta(ctx, w)) {
		return GN_CNT_RX;
	}
	if (!put_inband(ctx, w))
		return GN_CNT_DROP_META;
	if (s)
		put_tag(ctx, GN_META_MAGIC_FULL, s->prod);
	return GN_CNT_INBAND;
}

SEC("xdp.frags")
int ghostnic(struct xdp_md *ctx)
{
	struct frame f = {
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	const struct gn_instance *in;
	const struct gn_config *conf;
	struct gn_counters *cnt;
	enum gn_counter where;
	struct work *w;
	__u32 zero = 0;

	cnt = bpf_map_lookup_elem(&counters, &zero);
	if (!cnt)
		return XDP_PASS;
	count(cnt, GN_CNT_RX);

	/* Whose is it? The host's frames leave here, after one lookup. */
	if (f.data + ETH_HLEN > f.end) {
		count(cnt, GN_CNT_PASS_MALFORMED);
		return XDP_PASS;
	}
	if (LOAD8(f.data) & 1) {
		count(cnt, GN_CNT_PASS_MULTICAST);
		return XDP_PASS;
	}
	if (!parse_tags(&f)) {
		count(cnt, GN_CNT_PASS_MALFORMED);
		return XDP_PASS;
	}
	in = find_instance(&f);
	if (!in) {
		count(cnt, GN_CNT_PASS_OTHER);
		return XDP_PASS;
	}

	/* Can AF_XDP take it? Asked before anything is changed, so that there is nothing
	 * to undo for the host: bpf_redirect_map() only notes a target, and returns its
	 * flags when the queue has none. */
	conf = bpf_map_lookup_elem(&config, &zero);
	w = bpf_map_lookup_elem(&scratch, &zero);
	if (!conf || !w)
		return XDP_PASS;
	f.len = bpf_xdp_get_buff_len(ctx);
	if (f.len > conf->max_frame) {
		count(cnt, GN_CNT_PASS_OVERSIZE);
		return XDP_PASS;
	}
	if (bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS) != XDP_REDIRECT) {
		count(cnt, GN_CNT_PASS_NO_SOCKET);
		return XDP_PASS;
	}

	/* What is it? */
	describe(&f, w, conf, in);

	/* Say so. */
	where = put(ctx, w, conf->flags);
	if (unlikely(where)) {
		cnt->v[where]++;
		if (where == GN_CNT_DROP_META)
			return XDP_DROP;
	}
	count(cnt, GN_CNT_REDIRECT);
	cnt->v[GN_CNT_REDIRECT_BYTES] += f.len;
	if (w->meta.class == GN_CLASS_ALONE) {
		count(cnt, GN_CNT_ALONE);
		count_detail(cnt, w->why);
	}
	return XDP_REDIRECT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
