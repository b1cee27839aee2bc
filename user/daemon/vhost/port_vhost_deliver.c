// SPDX-License-Identifier: BSD-2-Clause
/*
 * vhost-user port: packets to the guest. Contract in port.h, plan in port_vhost.h; one
 * worker.
 *
 * A chain of umem chunks is gathered straight into the guest's buffers, one copy, behind
 * its virtio-net header. A chain that is merged on claims (chain.h) is summed by that
 * copy, segment by segment, its headers left for last: they and the buffers are the
 * guest's only when all was good. Else the buffers are taken back, which the guest does
 * not see, and the chain comes without its bad segments, these alone. What the guest did
 * not negotiate is segmented or completed first, in a scratch buffer.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "port_vhost.h"
#include "../chain.h"
#include "../stat.h"
#include "../wire.h"
#include "../../lib/csum.h"

#define HDR_V1 sizeof(struct virtio_net_hdr_v1)

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

/* As fill(), with the sum of what is copied. */
static uint16_t fill_sum(struct room *room, const uint8_t *src, uint32_t len)
{
	uint32_t done = 0;
	uint16_t sum = 0;

	while (done < len) {
		struct iovec *v = &room->vec->iov[room->at];
		size_t n = v->iov_len - room->off;

		if (n > len - done)
			n = len - done;
		sum = csum_add_at(
			sum, csum_copy((uint8_t *)v->iov_base + room->off, src + done, n),
			done);
		done += (uint32_t)n;
		room->off += n;
		if (room->off == v->iov_len) {
			room->at++;
			room->off = 0;
		}
	}
	return sum;
}

/* Go past @len bytes, to be filled later. */
static void leave(struct room *room, size_t len)
{
	size_t here;

	while (len >= (here = room->vec->iov[room->at].iov_len - room->off)) {
		len -= here;
		room->at++;
		room->off = 0;
	}
	room->off += len;
}

/* Room for a frame of @len bytes, or it is dropped, counted: false */
static bool room_for(struct vhost_queue *vq, struct vhost_ring *r, uint32_t len,
		     struct room *room)
{
	int err = vq->trouble ? -EPROTO : take_room(vq, r, vq->off.hdr_len + len, room);

	if (!err)
		return true;
	if (err == -EPROTO)
		vhost_trouble(vq, "a receive buffer that is short or to be read");
	stat_add(&vq->q.stats.rx_dropped, 1);
	return false;
}

/* The room's first @len bytes and the virtio-net header are a frame of @packets. */
static void put_room(struct vhost_queue *vq, struct vhost_ring *r,
		     const struct room *room, uint32_t len, unsigned int packets)
{
	uint32_t left = vq->off.hdr_len + len;

	for (unsigned int i = 0; i < room->n; i++) {
		struct vring_chain *c = &room->chain[i];
		uint32_t n = c->in_len < left ? c->in_len : left;

		vring_put(r->vring, room->vec, c, n);
		left -= n;
	}
	stat_add(&vq->q.stats.rx_packets, packets);
	stat_add(&vq->q.stats.rx_frames, 1);
	stat_add(&vq->q.stats.rx_bytes, len);
}

static void fill_header(const struct vhost_queue *vq, struct room *room,
			struct virtio_net_hdr_v1 *vh)
{
	vh->num_buffers = htole16((uint16_t)room->n);
	fill(room, (const uint8_t *)vh, vq->off.hdr_len);
}

/*
 * One frame as the guest takes it, of @packets wire packets, into a ring. Not yet
 * published. Dropped, if there is no room
 */
static void put_frame(struct vhost_queue *vq, struct vhost_ring *r,
		      const struct gso_frame *f, unsigned int packets)
{
	struct virtio_net_hdr_v1 vh = f->vh;
	uint32_t left = f->len;
	struct room room;

	if (!room_for(vq, r, f->len, &room))
		return;
	fill_header(vq, &room, &vh);
	for (unsigned int i = 0; i < f->niov && left; i++) {
		size_t n = f->iov[i].iov_len < left ? f->iov[i].iov_len : left;

		fill(&room, f->iov[i].iov_base, n);
		left -= (uint32_t)n;
	}
	put_room(vq, r, &room, f->len, packets);
}

/* What was copied for the guest is not for it: the same buffers are taken again. */
static void take_back(struct vhost_ring *r, const struct room *room, uint32_t written)
{
	for (unsigned int i = 0; i < room->n; i++) {
		const struct vring_chain *c = &room->chain[i];
		uint32_t n = c->in_len < written ? c->in_len : written;

		vring_spoil(r->vring, room->vec, c, n);
		written -= n;
	}
	vring_untake(r->vring, room->vec, room->chain, room->n);
}

/*
 * A claimed chain that the guest takes as it is, summed by its copy. Not yet published.
 * Return: false: a segment is bad, and nothing has happened
 */
static bool put_claimed(struct vhost_queue *vq, struct vhost_ring *r,
			struct mbuf_pool *pool, struct mbuf *head)
{
	uint32_t hdr_len = mbuf_hdr_len(head), done = vq->off.hdr_len + hdr_len, len;
	struct room room, front;
	struct virtio_net_hdr_v1 vh;

	if (!room_for(vq, r, head->total, &room))
		return true;
	front = room;
	leave(&room, done);
	for (const struct mbuf *m = head; m; m = mbuf_next(pool, m)) {
		const uint8_t *payload = chain_payload(pool, head, m, &len);

		done += len;
		if (!csum_equal(fill_sum(&room, payload, len), m->meta.payload_sum)) {
			take_back(r, &front, done);
			return false;
		}
	}
	chain_good(head);
	gso_finish(pool, head, &vh);
	fill_header(vq, &front, &vh);
	fill(&front, mbuf_data(pool, head), hdr_len);
	put_room(vq, r, &front, head->total, head->nsegs);
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

/* @packets: of the wire, 0: it did not come from there, or the caller counts them */
static void give(struct vhost_queue *vq, struct vhost_ring *r, struct gso_frame *f,
		 unsigned int packets)
{
	/* One that is cut was merged of as many packets. */
	struct guest_sink s = {
		.sink.get = guest_get, .vq = vq, .ring = r, .packets = packets > 0
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
	n = gso_segment(f, PORT_MAX_FRAME, 0, &s.sink);
	if (n < 0 && n != -ENOBUFS)
		stat_add(&vq->q.stats.rx_dropped, 1);
	else
		put_scratch(&s);
}

static void give_finished(struct vhost_queue *vq, struct vhost_ring *r,
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

/* A segment of the chain is bad, which the guest gets as it came; what was merged with
 * it, without it. @head is freed with the rest. */
static void give_split(struct vhost_queue *vq, struct vhost_ring *r,
		       struct mbuf_pool *pool, struct mbuf *head)
{
	struct mbuf *part[AGG_MAX_BUFS];
	unsigned int bad, n = chain_split(pool, head, part, &bad);

	stat_add(&vq->q.stats.rx_bad_csum, bad);
	for (unsigned int i = 0; i < n; i++) {
		give_finished(vq, r, pool, part[i]);
		mbuf_free_chain(pool, part[i]);
	}
}

/* Would the guest take the chain as one frame, good as it is? */
static bool takes_chain(const struct vhost_queue *vq, const struct mbuf *head)
{
	const struct virtio_net_hdr_v1 vh = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = gso_type(head),
	};

	return takes(&vq->off, &vh, head->meta.flags & GN_F_IPV6);
}

static void give_chain(struct vhost_queue *vq, struct vhost_ring *r,
		       struct mbuf_pool *pool, struct mbuf *head)
{
	bool good = true;

	if (head->flags & MBUF_CLAIMED) {
		if (takes_chain(vq, head)) {
			good = put_claimed(vq, r, pool, head);
			if (good)
				goto free_chain;
		} else {
			good = chain_verify(pool, head);
		}
	}
	if (!good) {
		give_split(vq, r, pool, head);
		return;
	}
	give_finished(vq, r, pool, head);
free_chain:
	mbuf_free_chain(pool, head);
}

/* While the log is on: did XDP know? */
static void count_flags(struct dma_log *log, struct mbuf *const *head, unsigned int n)
{
	uint64_t packets[2] = { 0 };

	for (unsigned int i = 0; i < n; i++)
		packets[!!(head[i]->meta.flags & GN_F_LOGGED)] += head[i]->nsegs;
	dma_log_count(log, packets[1], packets[0]);
}

void vhost_deliver(struct port_queue *q, struct mbuf_pool *pool, struct mbuf **head,
		   unsigned int n)
{
	struct vhost_queue *vq = (struct vhost_queue *)q;
	unsigned int nrx = vhost_usable(vq) ? vq->nrx : 0;

	if (dma_log_on(&vq->vp->dev.log))
		count_flags(&vq->vp->dev.log, head, n);
	for (unsigned int k = 0; k < nrx; k++) {
		struct vhost_ring *r = &vq->rx[k];
		bool any = false;

		for (unsigned int i = 0; i < n; i++) {
			if (!head[i] || (nrx > 1 && head[i]->meta.flow % nrx != k))
				continue;
			if (!any)
				vhost_lock(r);
			any = true;
			give_chain(vq, r, pool, head[i]);
			head[i] = NULL;
		}
		if (!any)
			continue;
		vhost_publish(vq, r);
		r->quietly = false;
		vhost_unlock(r);
	}
	if (nrx)
		return;
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

	if (!vhost_usable(vq) || !vq->nrx || !f->niov || f->len > PORT_MAX_FRAME) {
		stat_add(&q->stats.rx_dropped, 1);
		return;
	}
	r = &vq->rx[pick(f, vq->nrx)];
	vhost_lock(r);
	give(vq, r, &copy, 0);
	/* At once, so that a guest that is awake goes along; settle() wakes it. */
	vring_publish(r->vring);
	r->quietly = true;
	vhost_unlock(r);
}
