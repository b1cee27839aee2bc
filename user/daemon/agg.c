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
 * Checksums are looked at as late as possible: a head is summed when its second
 * segment arrives. A packet that stays alone is delivered as it came, unread,
 * and its receiver checks it as ever.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agg.h"
#include "stat.h"
#include "../lib/csum.h"

#define SLOT_NONE	UINT16_MAX

struct agg_open {
	uint64_t deadline_ns;
	uint32_t head;		/* mbuf index, MBUF_NONE: a hole */
	uint32_t slot;
};

_Static_assert(AGG_MAX_OPEN < SLOT_NONE, "open[] index fits slot[]");
_Static_assert(AGG_MAX_BUFS <= UINT8_MAX, "mbuf.nbufs");

int agg_init(struct agg *a, struct mbuf_pool *pool, const struct agg_conf *conf)
{
	uint16_t *slot = malloc(AGG_SLOTS * sizeof(*slot));
	struct agg_open *open = malloc(AGG_MAX_OPEN * sizeof(*open));

	if (!slot || !open) {
		free(slot);
		free(open);
		return -ENOMEM;
	}
	memset(slot, 0xff, AGG_SLOTS * sizeof(*slot));
	*a = (struct agg){ .conf = *conf, .pool = pool, .slot = slot, .open = open };
	return 0;
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
	}
	out->head[out->n++] = head;
}

/* Take a chain out of the table and emit it. */
static void close_chain(struct agg *a, struct agg_open *o, struct agg_out *out)
{
	struct mbuf *head = &a->pool->mbufs[o->head];

	a->slot[o->slot] = SLOT_NONE;
	a->held -= head->nbufs;
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

/*
 * May @m's data be declared good? True at once when it was summed before or comes
 * from a local sender; otherwise its payload is read. Carried sums need no answer.
 */
static bool data_good(struct agg *a, struct mbuf *m)
{
	if (a->conf.checksum == AGG_CARRY || m->flags & (MBUF_VERIFIED | MBUF_PARTIAL))
		return true;
	if (!csum_equal(payload_sum(a->pool, m, mbuf_hdr_len(m), m->meta.payload_len),
			m->meta.payload_sum)) {
		stat_add(&a->stats.bad_csum, 1);
		return false;
	}
	m->flags |= MBUF_VERIFIED;
	return true;
}

/* Everything but the checksum: does @m continue what @head holds? */
static bool continues(const struct mbuf *head, const struct mbuf *m)
{
	const struct gn_meta *meta = &m->meta;
	uint32_t held = head->total - mbuf_hdr_len(head);
	uint16_t id = (uint16_t)(meta->ip_id - head->meta.ip_id);

	if (meta->class < GN_CLASS_CONTINUE || meta->key != head->meta.key)
		return false;
	if (meta->flags & GN_F_TCP && meta->seq != head->meta.seq + held)
		return false;
	if (meta->payload_len > head->gso_size ||
	    head->total - head->meta.l3_off + meta->payload_len > AGG_MAX_IP_LEN ||
	    head->nbufs + m->nbufs > AGG_MAX_BUFS)
		return false;
	/* IPv6 has no identification: always 0, a step of 0. */
	if (head->id_step == MBUF_STEP_ANY)
		return id <= 1;
	return id == (uint16_t)(head->id_step * head->nsegs);
}

/*
 * Cut a packet to its payload: @skip bytes off the front, @len bytes kept. A
 * buffer of which nothing is left goes back to the pool.
 *
 * Return: the first buffer that is left; its tail and nbufs are right
 */
static struct mbuf *trim(struct mbuf_pool *p, struct mbuf *m, uint32_t skip,
			 uint32_t len)
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

/* Append @m's payload to @head. @m's meta is not valid afterwards. */
static void join(struct agg *a, struct mbuf *head, struct mbuf *m)
{
	struct mbuf_pool *p = a->pool;
	uint32_t len = m->meta.payload_len, skip = mbuf_hdr_len(m);

	if (head->id_step == MBUF_STEP_ANY)
		head->id_step = (uint8_t)(m->meta.ip_id - head->meta.ip_id);
	head->meta.flags |= m->meta.flags & (GN_F_PSH | GN_F_FIN);
	head->sum = csum_add_at(head->sum, m->meta.payload_sum,
				head->total - mbuf_hdr_len(head));
	if (m->meta.class == GN_CLASS_CLOSE || len < head->gso_size)
		head->flags |= MBUF_CLOSED;
	if (m->nbufs == 1) {
		m->addr += skip;
		m->len = len;
		m->tail = mbuf_index(p, m);
	} else {
		m = trim(p, m, skip, len);
	}
	p->mbufs[head->tail].next = mbuf_index(p, m);
	head->tail = m->tail;
	head->total += len;
	head->nsegs++;
	head->nbufs += m->nbufs;
	a->held += m->nbufs;
}

/* Make @m the head of a new chain in @slot, which is free. */
static void open_chain(struct agg *a, struct mbuf *m, uint32_t slot, uint64_t now_ns,
		       struct agg_out *out)
{
	struct agg_open *o;

	if (a->newest - a->oldest == AGG_MAX_OPEN) {
		if (open_at(a, a->oldest)->head == MBUF_NONE) {
			a->oldest++;
		} else {
			stat_add(&a->stats.starved, 1);
			close_oldest(a, out);
		}
	}
	a->slot[slot] = (uint16_t)(a->newest & (AGG_MAX_OPEN - 1));
	o = open_at(a, a->newest++);
	*o = (struct agg_open){
		.deadline_ns = now_ns + a->conf.hold_ns,
		.head = mbuf_index(a->pool, m),
		.slot = slot,
	};
	a->held += m->nbufs;
}

void agg_push(struct agg *a, struct mbuf *m, uint64_t now_ns, struct agg_out *out)
{
	const struct gn_meta *meta = &m->meta;
	uint32_t slot = meta->flow & (AGG_SLOTS - 1);
	struct agg_open *o = NULL;
	bool opens;

	stat_add(&a->stats.packets, 1);
	m->nsegs = 1;
	m->flags = 0;
	m->gso_size = meta->payload_len;
	m->id_step = MBUF_STEP_ANY;
	m->sum = meta->payload_sum;
	if (meta->l4_len && meta->flags & GN_F_CSUM_PARTIAL && a->conf.trust_partial) {
		m->flags = MBUF_PARTIAL;
		/* Who completes the checksum sums up to the frame's end. */
		trim_padding(a->pool, m);
	}
	if (!meta->flow) {
		emit(a, m, out);
		return;
	}

	opens = meta->class == GN_CLASS_START || meta->class == GN_CLASS_CONTINUE;
	/* The kernel takes a UDP super-packet only with a checksum to complete. */
	if (meta->flags & GN_F_CSUM_NONE ||
	    (meta->flags & GN_F_UDP && a->conf.checksum == AGG_CARRY &&
	     !(m->flags & MBUF_PARTIAL)))
		opens = false;

	if (a->slot[slot] != SLOT_NONE)
		o = &a->open[a->slot[slot]];
	if (o) {
		struct mbuf *head = &a->pool->mbufs[o->head];

		if (head->meta.flow != meta->flow) {
			if (opens) {
				stat_add(&a->stats.evicted, 1);
				close_chain(a, o, out);
			}
		} else if (!continues(head, m) || !data_good(a, head)) {
			close_chain(a, o, out);
		} else if (!data_good(a, m)) {
			close_chain(a, o, out);
			opens = false;
		} else {
			join(a, head, m);
			if (head->flags & MBUF_CLOSED)
				close_chain(a, o, out);
			goto limit;
		}
	}
	if (!opens) {
		emit(a, m, out);
		return;
	}
	trim_padding(a->pool, m);
	open_chain(a, m, slot, now_ns, out);
limit:
	/* Two a packet: frames of three buffers may run ahead of chains of one, by a
	 * buffer each, until those chains are gone; AGG_MAX_OPEN bounds it. */
	for (int i = 0; i < 2 && a->held > a->conf.max_held; i++) {
		stat_add(&a->stats.starved, 1);
		close_oldest(a, out);
	}
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
