// SPDX-License-Identifier: BSD-2-Clause
/*
 * Receive aggregation. Contract in agg.h; one worker.
 *
 * Theory of operation. Segments of one flow come in runs, so a chain is open
 * for the length of a burst or, on request, some microseconds more. slot[] maps
 * meta.flow to an entry of open[], a ring in order of opening that flushing
 * walks; an entry whose chain left early is a hole (head is MBUF_NONE) and is
 * skipped. Nothing is searched and nothing is sorted.
 *
 * XDP sums payloads where it can (bpf/verify.h). What it could not is looked at as
 * late as possible: a head when its second segment arrives, or, for a port that reads
 * the payload anyway, when the chain is delivered. A packet that stays alone is delivered
 * as it came, and its receiver checks it as ever.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "agg.h"
#include "stat.h"
#include "../lib/csum.h"

#define SLOT_NONE UINT16_MAX

/*
 * An open chain: all that the next segment is compared with and changes, in one
 * cache line. The head's mbuf gets its share when the chain closes.
 */
struct agg_open {
	uint64_t key; /* gn_meta.key of all its segments */
	uint64_t deadline_ns;
	uint32_t head, tail; /* mbuf indexes; head MBUF_NONE: a hole */
	uint32_t slot;
	uint32_t flow;	   /* gn_meta.flow */
	uint32_t next_seq; /* TCP sequence number that continues it */
	uint16_t next_id;  /* IPv4 identification */
	uint16_t gso_size;
	uint32_t seq_mask;  /* TCP: all ones; UDP has no sequence: 0 */
	uint32_t total;	    /* bytes, frame start to payload end */
	uint32_t max_total; /* the most total may become: see max_total() */
	uint16_t hdr_len;   /* bytes, Ethernet to L4 */
	uint16_t sum;
	uint16_t meta_flags; /* GN_F_PSH and GN_F_FIN of its segments */
	uint8_t nsegs, nbufs;
	uint8_t id_step; /* 0, 1, or MBUF_STEP_ANY */
	uint8_t flags;	 /* MBUF_* */
};

_Static_assert(sizeof(struct agg_open) <= 64, "one cache line per open chain");
_Static_assert(AGG_MAX_OPEN < SLOT_NONE, "open[] index fits slot[]");
_Static_assert(AGG_MAX_BUFS <= UINT8_MAX, "mbuf.nbufs");

int agg_init(struct agg *a, struct mbuf_pool *pool, const struct agg_conf *conf)
{
	uint16_t *slot = malloc(AGG_SLOTS * sizeof(*slot));
	struct agg_open *open = aligned_alloc(64, AGG_MAX_OPEN * sizeof(*open));

	if (!slot || !open) {
		free(slot);
		free(open);
		return -ENOMEM;
	}
	memset(slot, 0xff, AGG_SLOTS * sizeof(*slot));
	*a = (struct agg){ .conf = *conf, .pool = pool, .slot = slot, .open = open };
	return 0;
}

void agg_later(struct agg *a, uint16_t instance, bool on)
{
	uint16_t i = GN_INSTANCE_INDEX(instance);
	uint64_t *word = &a->later[i / 64];
	uint64_t bit = 1ULL << i % 64;

	*word = on ? *word | bit : *word & ~bit;
}

void agg_fini(struct agg *a)
{
	free(a->slot);
	free(a->open);
	*a = (struct agg){ 0 };
}

static struct agg_open *open_at(const struct agg *a, uint32_t pos)
{
	return &a->open[pos & (AGG_MAX_OPEN - 1)];
}

static void emit(struct agg *a, struct mbuf *head, struct agg_out *out)
{
	if (head->nsegs > 1) {
		stat_add(&a->stats.supers, 1);
		stat_add(&a->stats.merged, head->nsegs);
	} else {
		head->gso_size = 0;
		head->flags &= (uint8_t)~MBUF_CLAIMED;
	}
	out->head[out->n++] = head;
}

/* Take a chain out of the table and emit it. */
static void close_chain(struct agg *a, struct agg_open *o, struct agg_out *out)
{
	struct mbuf *head = &a->pool->mbufs[o->head];

	head->tail = o->tail;
	head->total = o->total;
	head->nsegs = o->nsegs;
	head->nbufs = o->nbufs;
	head->sum = o->sum;
	head->flags = o->flags;
	head->id_step = o->id_step;
	head->meta.flags |= o->meta_flags;
	a->slot[o->slot] = SLOT_NONE;
	a->held -= o->nbufs;
	o->head = MBUF_NONE;
	emit(a, head, out);
}

/* Close the oldest chain; there is one. */
static void close_oldest(struct agg *a, struct agg_out *out)
{
	while (open_at(a, a->oldest)->head == MBUF_NONE)
		a->oldest++;
	close_chain(a, open_at(a, a->oldest++), out);
}

/* The payload sum of a packet or head, @skip bytes of headers left out. */
static uint16_t payload_sum(const struct mbuf_pool *p, const struct mbuf *m,
			    uint32_t skip, uint32_t len)
{
	uint32_t off = 0;
	uint16_t sum = 0;

	for (; m && off < len; m = mbuf_next(p, m)) {
		uint32_t n = m->len - skip;

		if (n > len - off)
			n = len - off;
		sum = csum_add_at(sum, csum(mbuf_data(p, m) + skip, n), off);
		off += n;
		skip = 0;
	}
	return sum;
}

/* Flags of a chain whose segments need no look here: none of them, whatever it claims. */
#define UNSEEN (MBUF_PARTIAL | MBUF_CLAIMED)

/*
 * Is the L4 checksum of @m right? XDP has said so, or the payload is read here. The
 * answer "yes" is kept in @flags.
 */
static bool verified(struct agg *a, const struct mbuf *m, uint8_t *flags)
{
	if (*flags & (MBUF_VERIFIED | UNSEEN))
		return true;
	if (m->meta.flags & GN_F_CSUM_GOOD) {
		*flags |= MBUF_VERIFIED;
		return true;
	}
	if (!csum_equal(payload_sum(a->pool, m, mbuf_hdr_len(m), m->meta.payload_len),
			m->meta.payload_sum)) {
		stat_add(&a->stats.bad_csum, 1);
		return false;
	}
	*flags |= MBUF_VERIFIED;
	return true;
}

/* Everything but the checksum: does @m continue what @o holds? */
static inline bool continues(const struct agg_open *o, const struct mbuf *m)
{
	const struct gn_meta *meta = &m->meta;
	uint16_t id = (uint16_t)(meta->ip_id - o->next_id);

	return meta->class >= GN_CLASS_CONTINUE && meta->key == o->key &&
	       !((meta->seq ^ o->next_seq) & o->seq_mask) &&
	       meta->payload_len <= o->gso_size &&
	       o->total + meta->payload_len <= o->max_total &&
	       o->nbufs + m->nbufs <= AGG_MAX_BUFS &&
	       /* One claim an mbuf, so one mbuf a segment. */
	       (m->nbufs == 1 || !(o->flags & MBUF_CLAIMED)) &&
	       /* IPv6 has no identification: always 0, a step of 0. */
	       (o->id_step == MBUF_STEP_ANY ? id <= 1 : !id);
}

/*
 * Cut a packet to its payload: @skip bytes off the front, @len bytes kept. A
 * buffer of which nothing is left goes back to the pool.
 *
 * Return: the first buffer that is left; its tail and nbufs are right
 */
static struct mbuf *trim(struct mbuf_pool *p, struct mbuf *m, uint32_t skip, uint32_t len)
{
	struct mbuf *last;
	uint32_t left = len;

	if (skip == m->len && m->next != MBUF_NONE) {
		struct mbuf *rest = &p->mbufs[m->next];

		rest->tail = m->tail;
		rest->nbufs = m->nbufs - 1;
		mbuf_free(p, m);
		m = rest;
		skip = 0;
	}
	m->addr += skip;
	m->len -= skip;
	last = m;
	for (uint8_t n = 1;; n++) {
		if (left <= last->len || last->next == MBUF_NONE) {
			struct mbuf *rest = mbuf_next(p, last);

			last->len = left;
			last->next = MBUF_NONE;
			if (rest)
				mbuf_free_chain(p, rest);
			m->tail = mbuf_index(p, last);
			m->nbufs = n;
			return m;
		}
		left -= last->len;
		last = &p->mbufs[last->next];
	}
}

/* Ethernet padding is not payload. Headers stay, so @m stays the first buffer. */
static void trim_padding(struct mbuf_pool *p, struct mbuf *m)
{
	uint32_t len = mbuf_hdr_len(m) + m->meta.payload_len;

	if (m->total == len)
		return;
	m->total = len;
	trim(p, m, 0, len);
}

/* Append @m's payload to the chain. @m's meta is not valid afterwards. */
static inline void join(struct agg *a, struct agg_open *o, struct mbuf *m)
{
	struct mbuf_pool *p = a->pool;
	uint32_t len = m->meta.payload_len, skip = mbuf_hdr_len(m);

	if (o->id_step == MBUF_STEP_ANY)
		o->id_step = (uint8_t)(m->meta.ip_id - o->next_id);
	o->next_id = (uint16_t)(m->meta.ip_id + o->id_step);
	o->next_seq += len;
	o->meta_flags |= m->meta.flags & (GN_F_PSH | GN_F_FIN);
	o->sum = csum_add_at(o->sum, m->meta.payload_sum, o->total - o->hdr_len);
	if (m->meta.class == GN_CLASS_CLOSE || len < o->gso_size)
		o->flags |= MBUF_CLOSED;
	if (m->nbufs == 1) {
		m->addr += skip;
		m->len = len;
		m->tail = mbuf_index(p, m);
	} else {
		m = trim(p, m, skip, len);
	}
	p->mbufs[o->tail].next = mbuf_index(p, m);
	o->tail = m->tail;
	o->total += len;
	o->nsegs++;
	o->nbufs += m->nbufs;
	a->held += m->nbufs;
}

/* Of a chain that @m begins: may all be left to its port? */
static bool later(const struct agg *a, const struct mbuf *m)
{
	uint16_t i = GN_INSTANCE_INDEX(m->meta.instance);

	return a->conf.checksum == AGG_VERIFY && m->nbufs == 1 &&
	       !(m->flags & (MBUF_VERIFIED | MBUF_PARTIAL)) &&
	       a->later[i / 64] >> i % 64 & 1;
}

/* The most bytes of a chain that @m begins. Of UDP all segments but the last are as long as
 * the first, so bytes count them, too. */
static uint32_t max_total(const struct mbuf *m)
{
	const struct gn_meta *meta = &m->meta;
	uint32_t ip = AGG_MAX_IP_LEN + meta->l3_off;
	uint32_t udp = mbuf_hdr_len(m) + AGG_MAX_UDP * meta->payload_len;

	return meta->flags & GN_F_UDP && udp < ip ? udp : ip;
}

/* Make @m the head of a new chain in @slot, which is free. */
static void open_chain(struct agg *a, struct mbuf *m, uint32_t slot, uint64_t now_ns,
		       struct agg_out *out)
{
	const struct gn_meta *meta = &m->meta;
	struct agg_open *o;

	if (a->oldest == a->newest) {
		a->oldest = a->newest = 0; /* the same few lines again */
	} else if (a->newest - a->oldest == AGG_MAX_OPEN) {
		if (open_at(a, a->oldest)->head == MBUF_NONE) {
			a->oldest++;
		} else {
			stat_add(&a->stats.starved, 1);
			close_oldest(a, out);
		}
	}
	a->slot[slot] = (uint16_t)(a->newest & (AGG_MAX_OPEN - 1));
	o = open_at(a, a->newest++);
	a->last = o;
	*o = (struct agg_open){
		.key = meta->key,
		.deadline_ns = now_ns + a->conf.hold_ns,
		.head = mbuf_index(a->pool, m),
		.tail = m->tail,
		.slot = slot,
		.flow = meta->flow,
		.next_seq = meta->seq + meta->payload_len,
		.seq_mask = meta->flags & GN_F_TCP ? UINT32_MAX : 0,
		.total = m->total,
		.max_total = max_total(m),
		.hdr_len = (uint16_t)mbuf_hdr_len(m),
		.gso_size = meta->payload_len,
		.sum = meta->payload_sum,
		.next_id = meta->ip_id,
		.nsegs = 1,
		.nbufs = m->nbufs,
		.id_step = MBUF_STEP_ANY,
		.flags = later(a, m) ? m->flags | MBUF_CLAIMED : m->flags,
	};
	a->held += m->nbufs;
}

/* Deliver early what exceeds the limit of buffers held. */
static void limit_held(struct agg *a, struct agg_out *out)
{
	/* Two a packet: frames of three buffers may run ahead of chains of one, by a
	 * buffer each, until those chains are gone; AGG_MAX_OPEN bounds it. */
	for (int i = 0; i < 2 && a->held > a->conf.max_held; i++) {
		stat_add(&a->stats.starved, 1);
		close_oldest(a, out);
	}
}

/* May a chain begin with @m? */
static bool may_open(const struct agg *a, const struct mbuf *m)
{
	const struct gn_meta *meta = &m->meta;

	if (meta->class != GN_CLASS_START && meta->class != GN_CLASS_CONTINUE)
		return false;
	/* The kernel takes a UDP super-packet only with a checksum to complete. */
	if (meta->flags & GN_F_CSUM_NONE)
		return false;
	return !(meta->flags & GN_F_UDP) || a->conf.checksum != AGG_CARRY ||
	       m->flags & MBUF_PARTIAL;
}

/* Deliver @m alone, or open a chain with it; nothing of its flow is held. */
static void push_first(struct agg *a, struct mbuf *m, bool opens, uint64_t now_ns,
		       struct agg_out *out)
{
	const struct gn_meta *meta = &m->meta;

	m->nsegs = 1;
	m->gso_size = meta->payload_len;
	m->id_step = MBUF_STEP_ANY;
	m->sum = meta->payload_sum;
	if (a->conf.checksum == AGG_VERIFY && meta->flags & GN_F_CSUM_GOOD)
		m->flags |= MBUF_VERIFIED;
	/* A lone frame stays as it came, unless someone will sum up to its end. */
	if (opens || m->flags & MBUF_PARTIAL)
		trim_padding(a->pool, m);
	if (!opens) {
		emit(a, m, out);
		return;
	}
	open_chain(a, m, meta->flow & (AGG_SLOTS - 1), now_ns, out);
	limit_held(a, out);
}

void agg_push(struct agg *a, struct mbuf *m, uint64_t now_ns, struct agg_out *out)
{
	const struct gn_meta *meta = &m->meta;
	uint16_t pos = a->slot[meta->flow & (AGG_SLOTS - 1)];
	struct agg_open *o = pos == SLOT_NONE ? NULL : &a->open[pos];
	bool verify = a->conf.checksum == AGG_VERIFY, bad = false, opens;

	stat_add(&a->stats.packets, 1);
	m->flags = 0;
	/* Flow 0, no flow, is never that of an open chain. Kinds of checksum do not
	 * mix: they are part of the key, so the head's flags speak for @m as well. */
	if (o && o->flow == meta->flow && continues(o, m) &&
	    (!verify || verified(a, &a->pool->mbufs[o->head], &o->flags))) {
		bad = verify && !(o->flags & UNSEEN) && !verified(a, m, &m->flags);
		if (!bad) {
			join(a, o, m);
			a->last = o;
			if (o->flags & MBUF_CLOSED)
				close_chain(a, o, out);
			if (a->held > a->conf.max_held)
				limit_held(a, out);
			return;
		}
	}

	if (meta->flags & GN_F_CSUM_PARTIAL && a->conf.trust_partial && meta->l4_len)
		m->flags = MBUF_PARTIAL;
	opens = meta->flow && !bad && may_open(a, m);
	if (o && o->flow == meta->flow) {
		close_chain(a, o, out);
	} else if (o && opens) {
		stat_add(&a->stats.evicted, 1);
		close_chain(a, o, out);
	}
	push_first(a, m, opens, now_ns, out);
}

/* All but the payload's sum, in one number; of the flags only @mask, which the key leaves
 * open. */
static inline uint64_t next_word(const struct gn_next *next, uint16_t mask)
{
	struct gn_next n = *next;
	uint64_t v;

	n.payload_sum = 0;
	n.flags &= mask;
	memcpy(&v, &n, sizeof(v));
	return v;
}

/* Is @meta that of the last segment of @o? */
static inline bool is_last(const struct agg_open *o, const struct gn_meta *meta)
{
	return meta->key == o->key && meta->seq + meta->payload_len == o->next_seq &&
	       (uint16_t)(meta->ip_id + o->id_step) == o->next_id;
}

uint32_t agg_run(struct agg *a, struct mbuf *const *m, struct gn_meta *meta,
		 const struct gn_next *next, uint32_t n)
{
	struct agg_open *o = a->last;
	uint32_t total, room, len, skip, sum, i;
	struct gn_next want = { .class = GN_CLASS_CONTINUE };
	struct mbuf *tail;
	uint64_t word;

	if (!o || o->head == MBUF_NONE || o->flags & MBUF_CLOSED ||
	    o->id_step == MBUF_STEP_ANY || !is_last(o, meta))
		return 0;
	/* Kinds of checksum do not mix, so what holds for the head holds for all, but for
	 * the sum of each payload. */
	if (a->conf.checksum == AGG_VERIFY && !(o->flags & UNSEEN)) {
		if (!(o->flags & MBUF_VERIFIED))
			return 0;
		want.flags = GN_F_CSUM_GOOD;
	}
	room = AGG_MAX_BUFS - o->nbufs;
	if (a->held >= a->conf.max_held)
		return 0;
	if (room > a->conf.max_held - a->held)
		room = a->conf.max_held - a->held;
	len = o->gso_size;
	if (len && room > (o->max_total - o->total) / len)
		room = (o->max_total - o->total) / len;
	if (n > room)
		n = room;

	want.payload_len = (uint16_t)len;
	want.id_step = o->id_step;
	word = next_word(&want, want.flags);
	skip = o->hdr_len;
	total = o->total;
	tail = &a->pool->mbufs[o->tail];
	sum = o->sum;
	for (i = 0; i < n; i++, next++) {
		uint32_t index = mbuf_index(a->pool, m[i]);

		if (next_word(next, want.flags) != word || m[i]->len < skip + len ||
		    m[i]->nbufs != 1)
			break;
		sum += csum_at(next->payload_sum, total - skip);
		total += len;
		m[i]->addr += skip;
		m[i]->len = len;
		m[i]->meta.payload_sum = next->payload_sum;
		tail->next = index;
		tail = m[i];
	}
	if (!i)
		return 0;
	o->next_seq += i * len;
	o->next_id += (uint16_t)(i * o->id_step);
	meta->seq = o->next_seq - len;
	meta->ip_id = (uint16_t)(o->next_id - o->id_step);
	meta->payload_len = (uint16_t)len;
	o->sum = csum_fold(sum);
	o->total = total;
	o->tail = mbuf_index(a->pool, tail);
	o->nsegs += i;
	o->nbufs += i;
	a->held += i;
	stat_add(&a->stats.packets, i);
	return i;
}

bool agg_flush(struct agg *a, uint64_t now_ns, struct agg_out *out)
{
	for (; a->oldest != a->newest; a->oldest++) {
		struct agg_open *o = open_at(a, a->oldest);

		if (o->head == MBUF_NONE)
			continue;
		if (o->deadline_ns > now_ns)
			return true;
		if (out->n == out->max)
			return false;
		close_chain(a, o, out);
	}
	return true;
}

uint64_t agg_deadline(const struct agg *a)
{
	for (uint32_t pos = a->oldest; pos != a->newest; pos++)
		if (open_at(a, pos)->head != MBUF_NONE)
			return open_at(a, pos)->deadline_ns;
	return UINT64_MAX;
}
