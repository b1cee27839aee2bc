// SPDX-License-Identifier: BSD-2-Clause
/*
 * tx: frames from an instance. Contract in tx.h; one worker.
 *
 * The instance is a guest: neither its frames nor its offload requests are
 * believed. Its source address must be its own and an instance without VLAN sends no
 * tags, unless it was allowed to; what it asks for must agree with the frame, which
 * gso_accept() finds out for another instance and gso_segment() for the wire.
 */
#include <errno.h>
#include <string.h>

#include "../lib/clock.h"
#include "mirror.h"
#include "stat.h"
#include "tx.h"
#include "wire.h"

#define TX_BUDGET 16 /* frames of one instance per round */
/* Chunks that must be free before a frame is taken: one 64 KiB super-frame of
 * Ethernet-sized segments. Until then the instance's own queue holds it back. */
#define TX_ROOM 48

/* gso_segment()'s sink: chunks of the socket's transmit ring. */
struct wire_sink {
	struct gso_sink sink;
	struct worker *w;
	struct mbuf *m; /* handed out, not queued yet; NULL: in jumbo[] */
	uint32_t len;	/* bytes of the frame handed out, 0: none */
	uint32_t sent;
};

/* Queue a frame that is longer than a chunk: split it over several. */
static bool put_jumbo(struct worker *w, uint32_t len)
{
	struct mbuf *part[PORT_MAX_FRAME / UMEM_FRAME_ROOM(UMEM_CHUNK_SMALL) + 1];
	uint32_t room = UMEM_FRAME_ROOM(w->umem.chunk_size), off = 0;
	uint32_t n = (len + room - 1) / room;

	for (uint32_t i = 0; i < n; i++) {
		part[i] = xsk_tx_get(&w->xsk);
		if (part[i])
			continue;
		while (i--)
			xsk_tx_cancel(&w->xsk, part[i]);
		return false;
	}
	for (uint32_t i = 0; i < n; i++, off += room) {
		part[i]->len = len - off < room ? len - off : room;
		memcpy(mbuf_data(&w->pool, part[i]), w->jumbo + off, part[i]->len);
		xsk_tx_put(&w->xsk, part[i], i + 1 < n);
	}
	return true;
}

/* The frame handed out last is complete: queue it. */
static bool wire_put(struct wire_sink *s)
{
	bool ok = true;

	if (!s->len)
		return true;
	if (s->m) {
		s->m->len = s->len;
		xsk_tx_put(&s->w->xsk, s->m, false);
	} else {
		ok = put_jumbo(s->w, s->len);
	}
	s->sent += ok;
	s->m = NULL;
	s->len = 0;
	return ok;
}

static void *wire_get(struct gso_sink *sink, uint32_t len)
{
	struct wire_sink *s = (struct wire_sink *)sink;

	if (!wire_put(s))
		return NULL;
	if (len > UMEM_FRAME_ROOM(s->w->umem.chunk_size)) {
		if (!s->w->jumbo || len > PORT_MAX_FRAME)
			return NULL;
		s->len = len;
		return s->w->jumbo;
	}
	s->m = xsk_tx_get(&s->w->xsk);
	if (!s->m)
		return NULL;
	s->len = len;
	return mbuf_data(&s->w->pool, s->m);
}

static void to_wire(struct worker *w, struct instance *in, const struct gso_frame *f)
{
	struct port_stats *st = &worker_queue(w, in)->stats;
	struct wire_sink s = { .sink.get = wire_get, .w = w };
	int n = gso_segment(f, w->conf.mtu + 22, in->conf.vlan, &s.sink);

	if (n == -EINVAL || n == -EMSGSIZE) {
		/* The frame handed out last, if any, was not finished. */
		if (s.m)
			xsk_tx_cancel(&w->xsk, s.m);
		stat_add(&st->tx_bad, 1);
	} else {
		if (!wire_put(&s) || n < 0)
			stat_add(&st->tx_dropped, 1);
	}
	stat_add(&st->tx_wire, s.sent);
}

/* Into the port of a local instance, whose counter of frames says what became of it. @from:
 * its sender, NULL: the wire */
static void give(struct worker *w, const struct instance *from, struct instance *to,
		 const struct gso_frame *f)
{
	struct port_queue *q = worker_queue(w, to);
	uint64_t before = q->stats.rx_frames;

	if (q->mirror)
		mirror_frame(q->mirror, f, false);
	to->port->ops->inject(q, f);
	stat_add(from ? &q->stats.rx_local : &q->stats.rx_packets,
		 q->stats.rx_frames - before);
	if (to->port->ops->settle && !q->unsettled) {
		q->unsettled = true;
		w->unsettled[w->nunsettled++] = GN_INSTANCE_INDEX(to->id);
	}
}

void tx_settle(struct worker *w)
{
	for (uint32_t i = 0; i < w->nunsettled; i++) {
		struct instance *in = w->view.slot[w->unsettled[i]];
		struct port_queue *q = worker_queue(w, in);

		q->unsettled = false;
		in->port->ops->settle(q);
	}
	w->nunsettled = 0;
}

/* May it be given to another instance as it is? */
static bool acceptable(struct worker *w, struct instance *from, struct gso_frame *f)
{
	if (!gso_accept(f))
		return true;
	stat_add(&worker_queue(w, from)->stats.tx_bad, 1);
	return false;
}

static void to_local(struct worker *w, struct instance *from, struct instance *to,
		     struct gso_frame *f)
{
	if (!acceptable(w, from, f))
		return;
	stat_add(&worker_queue(w, from)->stats.tx_local, 1);
	give(w, from, to, f);
}

void tx_flood(struct worker *w, uint16_t vlan, const struct instance *from,
	      const struct gso_frame *f)
{
	for (uint32_t i = 0; i < w->view.nactive; i++) {
		struct instance *to = w->view.slot[w->view.active[i]];

		if (to == from || to->conf.vlan != vlan)
			continue;
		if (from)
			stat_add(&worker_queue(w, from)->stats.tx_local, 1);
		give(w, from, to, f);
	}
}

/* First bytes of a frame. Return: bytes copied, less than @n at its end */
static size_t peek(const struct gso_frame *f, uint8_t *buf, size_t n)
{
	size_t got = 0;

	for (unsigned int i = 0; i < f->niov && got < n; i++) {
		size_t k = f->iov[i].iov_len < n - got ? f->iov[i].iov_len : n - got;

		memcpy(buf + got, f->iov[i].iov_base, k);
		got += k;
	}
	return got;
}

static void forward(struct worker *w, struct instance *in, struct gso_frame *f)
{
	struct port_stats *st = &worker_queue(w, in)->stats;
	struct instance *to;
	uint8_t eth[14];
	uint16_t type;
	bool foreign; /* of a VLAN that the instance was not given */

	stat_add(&st->tx_frames, 1);
	stat_add(&st->tx_bytes, f->len);
	if (peek(f, eth, sizeof(eth)) < sizeof(eth)) {
		stat_add(&st->tx_bad, 1);
		return;
	}
	type = (uint16_t)(eth[12] << 8 | eth[13]);
	foreign = !in->conf.vlan && (type == WIRE_ETYPE_TAG || type == WIRE_ETYPE_STAG);
	if (!in->conf.allow_spoof && (foreign || memcmp(eth + 6, in->conf.mac, 6))) {
		stat_add(&st->tx_spoofed, 1);
		return;
	}
	if (worker_queue(w, in)->mirror)
		mirror_frame(worker_queue(w, in)->mirror, f, true);
	if (foreign) {
		to_wire(w, in, f);
		return;
	}
	if (eth[0] & 1) {
		if (!acceptable(w, in, f))
			return;
		tx_flood(w, in->conf.vlan, in, f);
		to_wire(w, in, f);
		return;
	}
	to = inst_view_by_mac(&w->view, in->conf.vlan, eth);
	if (to)
		to_local(w, in, to, f);
	else
		to_wire(w, in, f);
}

/* The instance has sent what its rate allows. What it still has stays in its own queue,
 * and what it got rid of it may have back. */
static void pause_tx(struct worker *w, struct instance *in, uint64_t until_ns)
{
	struct port_queue *q = worker_queue(w, in);

	stat_add(&q->stats.tx_paused, 1);
	if (in->port->ops->settle)
		in->port->ops->settle(q);
	worker_pause(w, in, until_ns);
}

/* On a link that is down frames are taken and lost, as by any NIC: holding them
 * back would wake this thread for ever. */
static bool may_fetch(struct worker *w)
{
	return w->xsk.stalled ||
	       (xsk_tx_room(&w->xsk, TX_ROOM) && w->pool.nfree >= TX_ROOM);
}

int tx_instance(struct worker *w, struct instance *in)
{
	struct port_queue *q = worker_queue(w, in);
	int n, r = 0;

	for (n = 0; n < TX_BUDGET; n++) {
		struct gso_frame f;
		uint64_t now = 0, wait;

		if (in->rate.bits) {
			now = clock_ns();
			wait = rate_wait(&in->rate, now);
			if (wait) {
				pause_tx(w, in, now + wait);
				break;
			}
		}
		if (!may_fetch(w)) {
			xsk_tx_kick(&w->xsk);
			if (!may_fetch(w))
				break;
		}
		r = in->port->ops->fetch(q, &f);
		if (r <= 0)
			break;
		if (in->rate.bits)
			rate_charge(&in->rate, now, f.len);
		forward(w, in, &f);
	}
	tx_settle(w);
	if (w->xsk.need_kick)
		xsk_tx_kick(&w->xsk);
	return r < 0 ? r : n;
}
