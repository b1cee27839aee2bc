// SPDX-License-Identifier: BSD-2-Clause
/*
 * rx: RX ring → mbufs → aggregation → ports. Contract in rx.h; one worker.
 *
 * Metadata comes from the queue's stream (struct gn_stream), so of a packet that joins a
 * chain nothing in the umem is read, its control field aside; without a stream, or
 * when frames were lost behind the XDP program, the line in front of each frame is.
 */
#include <time.h>

#include "../lib/clock.h"
#include "chain.h"
#include "flood.h"
#include "mirror.h"
#include "rx.h"
#include "stat.h"

#define PREFETCH_AHEAD 8  /* descriptors */
#define MAX_FRAME_BUFS 17 /* of one multi-buffer frame: MAX_SKB_FRAGS */

bool rx_check(const struct gn_meta *m, uint32_t len)
{
	uint32_t ip_len = m->flags & GN_F_IPV6 ? 40 : 20;
	bool tcp = m->flags & GN_F_TCP, udp = m->flags & GN_F_UDP;

	if (m->class > GN_CLASS_CLOSE)
		return false;
	if (!m->l4_len) /* headers not parsed: only a lone frame */
		return m->class == GN_CLASS_ALONE;
	if (tcp == udp)
		return false;
	if (tcp ? m->l4_len < 20 || m->l4_len > 60 : m->l4_len != 8)
		return false;
	if (m->l3_off < 14 || m->l4_off < m->l3_off + ip_len)
		return false;
	if ((uint32_t)m->l4_off + m->l4_len + m->payload_len > len)
		return false;
	return m->class == GN_CLASS_ALONE || (m->payload_len && m->flow);
}

/*
 * rx_check(), fast: of a packet shaped like the one before, only what differs is looked
 * at. Most are.
 */
static inline bool check_next(struct worker *w, const struct gn_meta *m, uint32_t len)
{
	const uint16_t kind = m->flags & (GN_F_TCP | GN_F_UDP | GN_F_IPV6);
	const uint64_t shape = (uint64_t)kind << 32 | (uint32_t)m->class << 24 |
			       (uint32_t)m->l4_len << 16 | (uint32_t)m->l4_off << 8 |
			       m->l3_off;

	/* 0 is also the shape of a frame whose headers were not parsed. */
	if (shape && shape == w->rx_shape)
		return m->payload_len && m->flow &&
		       (uint32_t)m->l4_off + m->l4_len + m->payload_len <= len;
	if (!rx_check(m, len))
		return false;
	/* Never the shape of a lone frame, whose payload and flow may be missing. */
	if (m->class != GN_CLASS_ALONE)
		w->rx_shape = shape;
	return true;
}

/* A group of one instance's chains, with a copy for who captures. */
static void hand_over(struct worker *w, struct instance *in, struct mbuf **group,
		      uint32_t n)
{
	struct port_queue *q = worker_queue(w, in);

	if (!n)
		return;
	if (q->mirror)
		mirror_chains(q->mirror, &w->pool, group, n);
	in->port->ops->deliver(q, &w->pool, group, n);
}

/* A chain that is captured is read before its port verifies it: is it good? Else it goes
 * without its bad packets, these alone, after what is in the group. */
static bool captures_whole(struct worker *w, struct instance *in, struct mbuf *head,
			   struct mbuf **group, uint32_t *n)
{
	struct mbuf *part[AGG_MAX_BUFS];
	unsigned int bad, k;

	if (chain_verify(&w->pool, head))
		return true;
	hand_over(w, in, group, *n);
	*n = 0;
	k = chain_split(&w->pool, head, part, &bad);
	stat_add(&worker_queue(w, in)->stats.rx_bad_csum, bad);
	hand_over(w, in, part, k);
	return false;
}

/* Hand over the chains in @out: instance by instance, each one's in order. */
static void deliver(struct worker *w, struct agg_out *out, uint64_t now_ns)
{
	struct mbuf *group[2 * WORKER_BURST];

	for (uint32_t i = 0; i < out->n; i++) {
		struct mbuf *head = out->head[i];
		struct instance *in;
		uint32_t n = 0;
		uint16_t id;

		if (!head)
			continue;
		id = head->meta.instance;
		in = inst_view_by_id(&w->view, id);
		if (!in) {
			stat_add(&w->stats.rx_no_instance, head->nsegs);
			mbuf_free_chain(&w->pool, head);
			continue;
		}
		for (uint32_t k = i; k < out->n; k++) {
			head = out->head[k];
			if (!head || head->meta.instance != id)
				continue;
			out->head[k] = NULL;
			if (head->meta.flow)
				flow_note(&w->flows, &w->pool, head, now_ns);
			if (in->conf.vlan)
				mbuf_pop_vlan(&w->pool, head);
			if (!worker_queue(w, in)->mirror ||
			    captures_whole(w, in, head, group, &n))
				group[n++] = head;
		}
		hand_over(w, in, group, n);
	}
	out->n = 0;
}

/* Metadata in front of the frame at @m, or as its first bytes. NULL: there is none. */
static const struct gn_meta *meta_at_frame(const struct mbuf_pool *p, struct mbuf *m)
{
	struct gn_meta *meta = (void *)(mbuf_data(p, m) - GN_META_SIZE);

	if (meta->magic == GN_META_MAGIC) {
		/* Valid once: a program that redirects a frame without metadata leaves
		 * what is in the chunk, and that must not speak for its frame. */
		m->meta = *meta;
		meta->magic = 0;
		return &m->meta;
	}
	meta = (void *)mbuf_data(p, m);
	if (m->len < GN_META_SIZE + 14 || meta->magic != GN_META_MAGIC_INBAND)
		return NULL;
	m->addr += GN_META_SIZE;
	m->len -= GN_META_SIZE;
	m->total -= GN_META_SIZE;
	return meta;
}

static const struct gn_tag *tag_of(const struct mbuf_pool *p, uint64_t addr)
{
	return (const void *)(p->base + addr - sizeof(struct gn_tag));
}

/* The record that a frame's tag names; else what is at the frame itself. */
static const struct gn_meta *find_meta(struct worker *w, struct mbuf *m)
{
	const struct gn_tag *tag = tag_of(&w->pool, m->addr);
	struct stream_reader *r = &w->records;
	const struct gn_meta *meta;

	/* The tag of a frame that was in the chunk before names a record that is done
	 * with. */
	if (r->s && tag->magic == GN_META_MAGIC_STREAM &&
	    tag->seq - r->next < GN_STREAM_SIZE) {
		if (tag->seq != r->next)
			stream_seek(r, tag->seq);
		return stream_next(r);
	}
	meta = meta_at_frame(&w->pool, m);
	/* The stream was full, of records of lost frames at the worst: start anew. */
	if (meta && r->s && tag->magic == GN_META_MAGIC_FULL)
		stream_seek(r, tag->seq);
	return meta;
}

/*
 * Do the @n complete frames of a burst have the next @n records? Numbers only rise, so the
 * tag of the last frame answers for all; the others are not touched.
 */
static bool in_step(const struct worker *w, struct mbuf *const *frame, uint32_t n)
{
	const struct gn_tag *tag;

	if (!w->records.s || !n)
		return false;
	tag = tag_of(&w->pool, frame[n - 1]->addr);
	return tag->magic == GN_META_MAGIC_STREAM && tag->seq - w->records.next == n - 1;
}

/* A whole frame has arrived: fill its control field, push it. */
static void push_frame(struct worker *w, struct mbuf *m, const struct gn_meta *meta,
		       uint64_t now_ns, struct agg_out *out)
{
	if (!meta) {
		stat_add(&w->stats.rx_bad_meta, 1);
		mbuf_free_chain(&w->pool, m);
		return;
	}
	m->meta = *meta;
	/* Headers end in the first buffer, a VLAN tag could be popped from it. */
	if (!check_next(w, &m->meta, m->total) || mbuf_hdr_len(m) > m->len ||
	    m->len < 18) {
		stat_add(&w->stats.rx_bad_bounds, 1);
		mbuf_free_chain(&w->pool, m);
		return;
	}
	agg_push(&w->agg, m, now_ns, out);
}

/* A burst in step: as many of the @n frames as just continue a chain. Return: taken */
static uint32_t push_run(struct worker *w, struct mbuf *const *frame, uint32_t n)
{
	struct stream_reader *r = &w->records;
	uint32_t at = r->next % GN_STREAM_SIZE, k;

	if (n > GN_STREAM_SIZE - at)
		n = GN_STREAM_SIZE - at;
	k = agg_run(&w->agg, frame, &r->meta, &r->s->next[at], n);
	r->next += k;
	return k;
}

/* Link one more buffer to the incomplete frame. Return: false: frame given up */
static bool append_buf(struct worker *w, struct mbuf *head, struct mbuf *m)
{
	if (head->nbufs == MAX_FRAME_BUFS) {
		stat_add(&w->stats.rx_truncated, 1);
		mbuf_free_chain(&w->pool, head);
		mbuf_free(&w->pool, m);
		return false;
	}
	w->pool.mbufs[head->tail].next = mbuf_index(&w->pool, m);
	head->tail = mbuf_index(&w->pool, m);
	head->total += m->len;
	head->nbufs++;
	return true;
}

/* Take the buffer at ring index @idx. Return: the frame that it completes, or NULL */
static inline struct mbuf *take(struct worker *w, uint32_t idx)
{
	const struct xdp_desc *d = xsk_ring_cons__rx_desc(&w->xsk.rx, idx);
	struct mbuf *m = mbuf_of(&w->pool, d->addr);

	m->addr = d->addr;
	m->len = d->len;
	m->next = MBUF_NONE;
	m->tail = mbuf_index(&w->pool, m);
	m->total = d->len;
	m->nbufs = 1;
	if (__builtin_expect(w->rx_partial != NULL, 0)) {
		if (!append_buf(w, w->rx_partial, m)) {
			w->rx_partial = NULL;
			w->rx_skip = d->options & XDP_PKT_CONTD;
			return NULL;
		}
		m = w->rx_partial;
	} else if (__builtin_expect(w->rx_skip, 0)) {
		mbuf_free(&w->pool, m);
		w->rx_skip = d->options & XDP_PKT_CONTD;
		return NULL;
	}
	w->rx_partial = d->options & XDP_PKT_CONTD ? m : NULL;
	return w->rx_partial ? NULL : m;
}

/*
 * Lines of records that the driver's CPU wrote and this burst will read, asked for all at
 * once: of the whole ones as many as in the burst before. A macro, as prefetches in a
 * function that does nothing else are dropped by gcc as free of effects.
 */
#define PREFETCH_RECORDS(r, n)                                                           \
	do {                                                                             \
		for (uint32_t i_ = 0; i_ < (n) + 7; i_ += 64 / sizeof(struct gn_next))   \
			__builtin_prefetch(                                              \
				&(r)->s->next[((r)->next + i_) % GN_STREAM_SIZE]);       \
		for (uint32_t i_ = 0; i_ <= (r)->wholes; i_ += 64 / GN_META_SIZE)        \
			__builtin_prefetch(                                              \
				&(r)->s->rec[((r)->whole + i_) % GN_STREAM_SIZE]);       \
	} while (0)

/*
 * Ring to mbufs. @frame: [@n] filled with the frames that are complete. Return: their
 * number
 */
static uint32_t take_all(struct worker *w, uint32_t idx, uint32_t n, struct mbuf **frame)
{
	uint32_t k = 0;

	__builtin_prefetch(
		tag_of(&w->pool, xsk_ring_cons__rx_desc(&w->xsk.rx, idx + n - 1)->addr));
	if (w->records.s)
		PREFETCH_RECORDS(&w->records, n);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t ahead = i + PREFETCH_AHEAD < n ? i + PREFETCH_AHEAD : n - 1;
		uint64_t addr = xsk_ring_cons__rx_desc(&w->xsk.rx, idx + ahead)->addr;
		struct mbuf *m;

		__builtin_prefetch(mbuf_of(&w->pool, addr), 1);
		if (!w->records.s)
			__builtin_prefetch(w->pool.base + addr - GN_META_SIZE);
		m = take(w, idx + i);
		if (m)
			frame[k++] = m;
	}
	xsk_rx_release(&w->xsk, n);
	return k;
}

unsigned int rx_burst(struct worker *w, uint64_t now_ns)
{
	struct mbuf *frame[WORKER_BURST], *heads[2 * WORKER_BURST];
	struct agg_out out = { .head = heads, .max = 2 * WORKER_BURST };
	uint32_t idx = 0, nframes, n, whole = w->records.whole;
	uint64_t start_ns;
	bool step;

	if (!xsk_rx_pending(&w->xsk))
		return 0;
	n = xsk_ring_cons__peek(&w->xsk.rx, WORKER_BURST, &idx);
	nframes = take_all(w, idx, n, frame);
	start_ns = clock_ns();
	step = in_step(w, frame, nframes);
	for (uint32_t i = 0, k; i < nframes; i += k) {
		k = step ? push_run(w, frame + i, nframes - i) : 0;
		if (k)
			continue;
		push_frame(w, frame[i],
			   step ? stream_next(&w->records) : find_meta(w, frame[i]),
			   now_ns, &out);
		k = 1;
		if (out.n > out.max - AGG_PUSH_MAX_OUT)
			deliver(w, &out, now_ns);
	}
	whole = (w->records.whole - whole) % GN_STREAM_SIZE;
	w->records.wholes = whole < WORKER_BURST ? whole : WORKER_BURST;
	/* Release: the records were read before XDP may write over them. */
	if (w->records.s)
		__atomic_store_n(&w->conf.stream->cons, w->records.next,
				 __ATOMIC_RELEASE);
	while (!agg_flush(&w->agg, now_ns, &out))
		deliver(w, &out, now_ns);
	stat_add(&w->stats.agg_ns, clock_ns() - start_ns);
	stat_add(&w->stats.bursts, 1);
	stat_add(&w->stats.rx_in_step, step ? n : 0);
	stat_add(&w->xsk.stats.rx_descs, n);
	deliver(w, &out, now_ns);
	xsk_refill(&w->xsk);
	return n;
}

void rx_flush(struct worker *w, uint64_t now_ns)
{
	struct mbuf *heads[2 * WORKER_BURST];
	struct agg_out out = { .head = heads, .max = 2 * WORKER_BURST };
	bool done;

	do {
		done = agg_flush(&w->agg, now_ns, &out);
		deliver(w, &out, now_ns);
	} while (!done);
	xsk_refill(&w->xsk);
}
