// SPDX-License-Identifier: BSD-2-Clause
/*
 * vhost-user port: packets from the guest, and what both directions share. To the guest:
 * port_vhost_deliver.c. Contract in port.h, plan in port_vhost.h; one worker.
 *
 * A frame's first bytes are copied, so that what is checked is what is sent; the rest is
 * left where it is until the next fetch() says that it has been used.
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

#define SHORTEST      14 /* Ethernet header, bytes */
#define DISCARD_BURST 256

void vhost_trouble(struct vhost_queue *vq, const char *why)
{
	if (vq->trouble)
		return;
	vq->trouble = why;
	vhost_signal(vq->vp->trouble_fd);
}

bool vhost_usable(const struct vhost_queue *vq)
{
	return !__atomic_load_n(&vq->quiet, __ATOMIC_ACQUIRE) && !vq->trouble;
}

void vhost_notify(struct vhost_queue *vq, const struct vhost_ring *r)
{
	if (vring_should_notify(r->vring) && r->call >= 0) {
		vhost_signal(r->call);
		stat_add(&vq->q.stats.calls, 1);
	} else {
		stat_add(&vq->q.stats.calls_saved, 1);
	}
	if (vring_broken(r->vring) || vu_dev_mem_broken(&vq->vp->dev))
		vhost_trouble(vq, "its ring or memory is broken");
}

void vhost_publish(struct vhost_queue *vq, const struct vhost_ring *r)
{
	vring_publish(r->vring);
	vhost_notify(vq, r);
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
		vhost_publish(vq, r);
		r->unpublished = 0;
	}
}

static void publish_all(struct vhost_queue *vq)
{
	for (unsigned int i = 0; i < vq->ntx; i++) {
		if (!vq->tx[i].unpublished)
			continue;
		vhost_publish(vq, &vq->tx[i]);
		vq->tx[i].unpublished = 0;
	}
}

void vhost_settle(struct vhost_queue *vq)
{
	put_held(vq);
	publish_all(vq);
	for (unsigned int i = 0; i < vq->nrx; i++) {
		struct vhost_ring *r = &vq->rx[i];

		if (!r->quietly)
			continue;
		vhost_lock(r);
		vhost_notify(vq, r);
		r->quietly = false;
		vhost_unlock(r);
	}
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
			vhost_trouble(vq, "its ring is broken");
		if (n <= 0)
			return false;
		vring_put(r->vring, &vq->vec, &vq->chain, 0);
		r->unpublished++;
		stat_add(&vq->q.stats.tx_disabled, 1);
	}
	vhost_publish(vq, r);
	r->unpublished = 0;
	return true;
}

/* Next frame of a ring. Return: 1, 0: none now */
static int next_frame(struct vhost_queue *vq, struct vhost_ring *r, struct gso_frame *f)
{
	if (!r->deliver) {
		r->left = discard(vq, r);
		return 0;
	}
	for (;;) {
		int n;

		vq->vec.n = 0;
		n = vring_take(r->vring, &vq->vec, &vq->chain);
		if (n < 0)
			vhost_trouble(vq, "its ring is broken");
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
		/* More than a burst: no kick comes for what was there all along. */
		more |= vq->tx[i].left;
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

	if (!vhost_usable(vq))
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
