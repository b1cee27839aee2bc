// SPDX-License-Identifier: BSD-2-Clause
/*
 * vhost-user port: packets. Contract in port.h, plan in port_vhost.h; one worker.
 *
 * To the guest, a chain of umem chunks is gathered straight into the guest's buffers, one
 * copy, behind its virtio-net header. What the guest did not negotiate is segmented or
 * completed first, in a scratch buffer. From the guest, a frame's first bytes are
 * copied, so that what is checked is what is sent; the rest is left where it is until
 * the next fetch() says that it has been used.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "port_vhost.h"
#include "../stat.h"
#include "../wire.h"
#include "../../lib/log.h"

#define HDR_V1	      sizeof(struct virtio_net_hdr_v1)
#define SHORTEST      14 /* Ethernet header, bytes */
#define DISCARD_BURST 256

/* A ring or the memory is broken: leave the plan alone, tell the control thread. */
static void trouble(struct vhost_queue *vq, const char *why)
{
	if (vq->trouble)
		return;
	vq->trouble = why;
	vhost_signal(vq->vp->trouble_fd);
}

static bool usable(const struct vhost_queue *vq)
{
	return !__atomic_load_n(&vq->quiet, __ATOMIC_ACQUIRE) && !vq->trouble;
}

static void publish(struct vhost_queue *vq, const struct vhost_ring *r)
{
	vring_publish(r->vring);
	if (vring_should_notify(r->vring) && r->call >= 0) {
		vhost_signal(r->call);
		stat_add(&vq->q.stats.calls, 1);
	} else {
		stat_add(&vq->q.stats.calls_saved, 1);
	}
	if (vring_broken(r->vring) || vu_dev_mem_broken(&vq->vp->dev))
		trouble(vq, "its ring or memory is broken");
}

/* ---- to the guest ---------------------------------------------------------------- */

static bool takes(const struct vhost_offloads *o, const struct virtio_net_hdr_v1 *vh,
		  bool ipv6)
{
	if (vh->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM && !o->csum)
		return false;
	if (vh->gso_type & VIRTIO_NET_HDR_GSO_ECN && !o->ecn)
		return false;
	switch (vh->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_NONE: return true;
	case VIRTIO_NET_HDR_GSO_TCPV4: return o->tso4;
	case VIRTIO_NET_HDR_GSO_TCPV6: return o->tso6;
	case VIRTIO_NET_HDR_GSO_UDP_L4: return ipv6 ? o->uso6 : o->uso4;
	default: return false;
	}
}

/* Receive buffers for a frame, and where in them the next byte goes. */
struct room {
	struct vring_vec *vec;
	struct vring_chain *chain; /* [n] */
	unsigned int n;
	unsigned int at; /* entry of vec */
	size_t off;	 /* bytes of it filled */
};

/*
 * Take buffers for @need bytes. Return: 0; -ENOSPC: the guest has none left, or not such
 * big ones; -EPROTO: it broke a rule
 */
static int take_room(struct vhost_queue *vq, struct vhost_ring *r, uint32_t need,
		     struct room *room)
{
	unsigned int max = vq->off.mergeable ? VHOST_MAX_MERGE : 1;
	uint32_t have = 0;
	int err = 0;

	*room = (struct room){ .vec = &vq->rx_vec, .chain = vq->rx_chain };
	room->vec->n = 0;
	while (have < need && room->n < max) {
		struct vring_chain *c = &room->chain[room->n];

		err = vring_take(r->vring, room->vec, c);
		if (err <= 0)
			break;
		room->n++;
		/* The first one has to hold the header; none may be for reading. */
		if (c->nout || c->in_len < HDR_V1)
			err = -EPROTO;
		if (err < 0)
			break;
		have += c->in_len;
	}
	if (have >= need)
		return 0;
	if (err == -EPROTO)
		return err;
	if (room->n)
		vring_untake(r->vring, room->vec, room->chain, room->n);
	return -ENOSPC;
}

/* Copy into the buffers; take_room() has seen to it that there is room. */
static void fill(struct room *room, const uint8_t *src, size_t len)
{
	while (len) {
		struct iovec *v = &room->vec->iov[room->at];
		size_t n = v->iov_len - room->off;

		if (n > len)
			n = len;
		memcpy((uint8_t *)v->iov_base + room->off, src, n);
		src += n;
		len -= n;
		room->off += n;
		if (room->off == v->iov_len) {
			room->at++;
			room->off = 0;
		}
	}
}

/*
 * One frame as the guest takes it, of @packets wire packets, into a ring. Not yet
 * published. Return: false: dropped
 */
static bool put_frame(struct vhost_queue *vq, struct vhost_ring *r,
		      const struct gso_frame *f, unsigned int packets)
{
	struct virtio_net_hdr_v1 vh = f->vh;
	uint32_t need = vq->off.hdr_len + f->len, left = f->len;
	struct room room;
	int err = vq->trouble ? -EPROTO : take_room(vq, r, need, &room);

	if (err) {
		if (err == -EPROTO)
			trouble(vq, "a receive buffer that is short or to be read");
		stat_add(&vq->q.stats.rx_dropped, 1);
		return false;
	}
	vh.num_buffers = htole16((uint16_t)room.n);
	fill(&room, (const uint8_t *)&vh, vq->off.hdr_len);
	for (unsigned int i = 0; i < f->niov && left; i++) {
		size_t n = f->iov[i].iov_len < left ? f->iov[i].iov_len : left;

		fill(&room, f->iov[i].iov_base, n);
		left -= (uint32_t)n;
	}
	for (unsigned int i = 0; i < room.n; i++) {
		struct vring_chain *c = &room.chain[i];
		uint32_t n = c->in_len < need ? c->in_len : need;

		vring_put(r->vring, room.vec, c, n);
		need -= n;
	}
	stat_add(&vq->q.stats.rx_packets, packets);
	stat_add(&vq->q.stats.rx_frames, 1);
	stat_add(&vq->q.stats.rx_bytes, f->len);
	return true;
}

/* Segments of a frame that the guest does not take: each is put when the next is begun.
 */
struct guest_sink {
	struct gso_sink sink;
	struct vhost_queue *vq;
	struct vhost_ring *ring;
	uint32_t len; /* bytes in scratch, 0: none */
	unsigned int packets;
};

static void put_scratch(struct guest_sink *s)
{
	struct iovec iov = { s->vq->scratch, s->len };
	const struct gso_frame f = { .iov = &iov, .niov = 1, .len = s->len };

	if (s->len)
		put_frame(s->vq, s->ring, &f, s->packets);
	s->len = 0;
}

static void *guest_get(struct gso_sink *sink, uint32_t len)
{
	struct guest_sink *s = (struct guest_sink *)sink;

	put_scratch(s);
	if (len > sizeof(s->vq->scratch))
		return NULL;
	s->len = len;
	return s->vq->scratch;
}

/* Does the frame carry IPv6? Read behind the tags that gso_segment() knows. */
static bool is_ipv6(const struct gso_frame *f)
{
	const uint8_t *p = f->iov[0].iov_base;
	size_t off = WIRE_MACS;

	while (off + 2 <= f->iov[0].iov_len) {
		uint16_t type = wire_get16(p + off);

		if (type != WIRE_ETYPE_TAG && type != WIRE_ETYPE_STAG)
			return type == WIRE_ETYPE_IP6;
		off += WIRE_TAG;
	}
	return false;
}

static void give(struct vhost_queue *vq, struct vhost_ring *r, struct gso_frame *f,
		 unsigned int packets)
{
	struct guest_sink s = {
		.sink.get = guest_get, .vq = vq, .ring = r, .packets = 1
	};
	bool udp = f->vh.gso_type == VIRTIO_NET_HDR_GSO_UDP_L4;
	int n;

	if (takes(&vq->off, &f->vh, udp && is_ipv6(f))) {
		/* virtio 1.2, 5.1.6.4.1: no flags without VIRTIO_NET_F_GUEST_CSUM */
		if (!vq->off.csum)
			f->vh.flags = 0;
		put_frame(vq, r, f, packets);
		return;
	}
	if (f->vh.gso_type == VIRTIO_NET_HDR_GSO_NONE)
		s.packets = packets;
	n = gso_segment(f, PORT_MAX_FRAME, 0, &s.sink);
	if (n < 0 && n != -ENOBUFS)
		stat_add(&vq->q.stats.rx_dropped, 1);
	else
		put_scratch(&s);
}

static void give_chain(struct vhost_queue *vq, struct vhost_ring *r,
		       struct mbuf_pool *pool, struct mbuf *head)
{
	struct iovec iov[AGG_MAX_BUFS];
	struct gso_frame f = { .iov = iov, .len = head->total };

	f.niov = mbuf_iov(pool, head, iov, AGG_MAX_BUFS);
	/* A malformed frame may be longer than any real one. */
	if (!f.niov || f.len > PORT_MAX_FRAME) {
		stat_add(&vq->q.stats.rx_dropped, 1);
		return;
	}
	gso_finish(pool, head, &f.vh);
	give(vq, r, &f, head->nsegs);
}

static void lock(struct vhost_ring *r)
{
	if (r->lock)
		pthread_mutex_lock(r->lock);
}

static void unlock(struct vhost_ring *r)
{
	if (r->lock)
		pthread_mutex_unlock(r->lock);
}

void vhost_deliver(struct port_queue *q, struct mbuf_pool *pool, struct mbuf **head,
		   unsigned int n)
{
	struct vhost_queue *vq = (struct vhost_queue *)q;
	unsigned int nrx = usable(vq) ? vq->nrx : 0;

	for (unsigned int k = 0; k < nrx; k++) {
		struct vhost_ring *r = &vq->rx[k];
		bool any = false;

		for (unsigned int i = 0; i < n; i++) {
			if (nrx > 1 && head[i]->meta.flow % nrx != k)
				continue;
			if (!any)
				lock(r);
			any = true;
			give_chain(vq, r, pool, head[i]);
		}
		if (!any)
			continue;
		publish(vq, r);
		unlock(r);
	}
	if (!nrx)
		stat_add(&q->stats.rx_dropped, n);
	for (unsigned int i = 0; i < n; i++)
		mbuf_free_chain(pool, head[i]);
}

/* Frames of one flow take one ring: the bytes where IPv4 without options has its
 * addresses and ports, IPv6 a part of its addresses. */
static unsigned int pick(const struct gso_frame *f, unsigned int nrx)
{
	const uint8_t *p = f->iov[0].iov_base;
	uint32_t w[3], h;

	if (nrx == 1 || f->iov[0].iov_len < 38)
		return 0;
	memcpy(w, p + 26, sizeof(w));
	h = (w[0] ^ w[1] ^ w[2]) * 0x9e3779b1U;
	return (h >> 16) % nrx;
}

void vhost_inject(struct port_queue *q, const struct gso_frame *f)
{
	struct vhost_queue *vq = (struct vhost_queue *)q;
	struct gso_frame copy = *f;
	struct vhost_ring *r;

	if (!usable(vq) || !vq->nrx || !f->niov || f->len > PORT_MAX_FRAME) {
		stat_add(&q->stats.rx_dropped, 1);
		return;
	}
	r = &vq->rx[pick(f, vq->nrx)];
	lock(r);
	give(vq, r, &copy, 0);
	publish(vq, r);
	unlock(r);
}

/* ---- from the guest ------------------------------------------------------------------
 */

static void put_held(struct vhost_queue *vq)
{
	struct vhost_ring *r = vq->held;

	if (!r)
		return;
	vring_put(r->vring, &vq->vec, &vq->chain, 0);
	vq->held = NULL;
	if (++r->unpublished >= VHOST_BATCH) {
		publish(vq, r);
		r->unpublished = 0;
	}
}

static void publish_all(struct vhost_queue *vq)
{
	for (unsigned int i = 0; i < vq->ntx; i++) {
		if (!vq->tx[i].unpublished)
			continue;
		publish(vq, &vq->tx[i]);
		vq->tx[i].unpublished = 0;
	}
}

void vhost_settle(struct vhost_queue *vq)
{
	put_held(vq);
	publish_all(vq);
}

/* Copy @n bytes from the chain's readable buffers and go past them. */
static void read_out(struct iovec **v, size_t *off, void *dst, size_t n)
{
	for (uint8_t *p = dst; n;) {
		size_t part = (*v)->iov_len - *off;

		if (part > n)
			part = n;
		memcpy(p, (const uint8_t *)(*v)->iov_base + *off, part);
		p += part;
		n -= part;
		*off += part;
		if (*off == (*v)->iov_len) {
			(*v)++;
			*off = 0;
		}
	}
}

/* The chain just taken as a frame. Return: false: malformed */
static bool make_frame(struct vhost_queue *vq, struct gso_frame *f)
{
	const struct vring_chain *c = &vq->chain;
	struct iovec *v = &vq->vec.iov[c->first], *end = v + c->nout;
	uint32_t hdr = vq->off.hdr_len, head;
	size_t off = 0;

	if (c->nin || c->out_len < hdr + SHORTEST || c->out_len > hdr + PORT_MAX_FRAME)
		return false;
	memset(&f->vh, 0, sizeof(f->vh));
	read_out(&v, &off, &f->vh, hdr);
	/* A sender's word on checksums that it did verify counts for nothing. */
	f->vh.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
	f->vh.num_buffers = htole16(1);
	f->len = c->out_len - hdr;
	head = f->len < VHOST_HEAD ? f->len : VHOST_HEAD;
	read_out(&v, &off, vq->head, head);

	vq->frame[0] = (struct iovec){ vq->head, head };
	f->iov = vq->frame;
	f->niov = 1;
	for (; v < end; v++, off = 0)
		vq->frame[f->niov++] =
			(struct iovec){ (uint8_t *)v->iov_base + off, v->iov_len - off };
	return true;
}

/* A disabled ring's frames are not sent. Return: true: there may be more */
static bool discard(struct vhost_queue *vq, struct vhost_ring *r)
{
	for (unsigned int i = 0; i < DISCARD_BURST; i++) {
		int n;

		vq->vec.n = 0;
		n = vring_take(r->vring, &vq->vec, &vq->chain);
		if (n < 0)
			trouble(vq, "its ring is broken");
		if (n <= 0)
			return false;
		vring_put(r->vring, &vq->vec, &vq->chain, 0);
		r->unpublished++;
		stat_add(&vq->q.stats.tx_disabled, 1);
	}
	publish(vq, r);
	r->unpublished = 0;
	return true;
}

/* Next frame of a ring. Return: 1, 0: none now */
static int next_frame(struct vhost_queue *vq, struct vhost_ring *r, struct gso_frame *f)
{
	if (!r->deliver) {
		/* More than a burst: the kick is still there, or this is poked again. */
		if (discard(vq, r))
			vhost_signal(vq->poke);
		return 0;
	}
	for (;;) {
		int n;

		vq->vec.n = 0;
		n = vring_take(r->vring, &vq->vec, &vq->chain);
		if (n < 0)
			trouble(vq, "its ring is broken");
		if (n <= 0)
			return 0;
		vq->held = r;
		if (make_frame(vq, f))
			return 1;
		put_held(vq);
		stat_add(&vq->q.stats.tx_bad, 1);
		if (vq->trouble)
			return 0;
	}
}

/* A frame of any ring, in turn. */
static int any_frame(struct vhost_queue *vq, struct gso_frame *f)
{
	for (unsigned int i = 0; i < vq->ntx && !vq->trouble; i++) {
		unsigned int at = vq->tx_at++ % vq->ntx;
		struct vhost_ring *r = &vq->tx[at];

		if (r->armed) {
			vring_set_wakeup(r->vring, false);
			r->armed = false;
		}
		if (next_frame(vq, r, f))
			return 1;
	}
	return 0;
}

/*
 * Nothing was found: forget the kicks that came, then ask for new ones, then look again.
 * In this order no chain is missed: one that came before the question is seen by it,
 * one that comes after it brings a kick that is not forgotten. The descriptors are
 * edge-triggered, so one epoll_wait() forgets all of them, and none has to be read.
 * Return: true: there is something after all
 */
static bool ask_for_kicks(struct vhost_queue *vq)
{
	struct epoll_event ev[VU_MAX_PAIRS + 1];
	bool more = false;

	epoll_wait(vq->q.fd, ev, VU_MAX_PAIRS + 1, 0);
	for (unsigned int i = 0; i < vq->ntx; i++) {
		vq->tx[i].armed = true;
		more |= vring_set_wakeup(vq->tx[i].vring, true);
	}
	/* The queue's descriptor stays readable until all rings were found empty. */
	if (more)
		vhost_signal(vq->poke);
	return more;
}

static void fetch_rarp(struct vhost_queue *vq, struct gso_frame *f)
{
	vq->rarp = false;
	memset(&f->vh, 0, sizeof(f->vh));
	vq->frame[0] = (struct iovec){ vq->rarp_frame, sizeof(vq->rarp_frame) };
	f->iov = vq->frame;
	f->niov = 1;
	f->len = sizeof(vq->rarp_frame);
}

int vhost_fetch(struct port_queue *q, struct gso_frame *f)
{
	struct vhost_queue *vq = (struct vhost_queue *)q;

	if (!usable(vq))
		return 0;
	put_held(vq);
	if (vq->rarp) {
		fetch_rarp(vq, f);
		return 1;
	}
	if (any_frame(vq, f))
		return 1;
	publish_all(vq);
	if (ask_for_kicks(vq) && any_frame(vq, f))
		return 1;
	return 0;
}
