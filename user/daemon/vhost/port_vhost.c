// SPDX-License-Identifier: BSD-2-Clause
/*
 * vhost-user port: the instance is a VM, whose VMM connects to a UNIX socket and shares
 * the guest's memory. This file opens and closes it, and says which worker serves which
 * ring. The front end's connection is in port_vhost_conn.c, the protocol in vu_proto.c,
 * packets are in port_vhost_path.c.
 *
 * Contract in port.h; control thread.
 */
#include <errno.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "port_vhost.h"
#include "../../lib/log.h"

#define BIT(n) (1ULL << (n))

/* ---- workers ------------------------------------------------------------------- */

static void do_quiet(void *arg)
{
	struct vhost_queue *vq = arg;

	vhost_settle(vq);
	__atomic_store_n(&vq->quiet, true, __ATOMIC_RELAXED);
}

/* The kicks go too, before their descriptors may be closed; an epoll
 * entry outlives one that the front end keeps open. */
void vhost_quiet(void *owner)
{
	struct vhost_port *vp = owner;

	for (unsigned int i = 0; i < vp->p.nqueues; i++) {
		struct vhost_queue *vq = vhost_queue_of(vp, i);

		if (vp->closing || __atomic_load_n(&vq->quiet, __ATOMIC_ACQUIRE))
			do_quiet(vq);
		else
			vp->env->call(vp->env->owner, i, do_quiet, vq);
		for (unsigned int t = 0; t < vq->ntx; t++)
			epoll_ctl(vq->q.fd, EPOLL_CTL_DEL, vq->tx[t].kick, NULL);
		vq->nrx = vq->ntx = 0;
	}
}

static struct vhost_offloads offloads(const struct vu_dev *d)
{
	uint64_t f = d->features;
	struct vhost_offloads o = {
		.mergeable = f & BIT(VIRTIO_NET_F_MRG_RXBUF),
		.csum = f & BIT(VIRTIO_NET_F_GUEST_CSUM),
	};

	/* virtio 1.2, 5.1.6.1: num_buffers is there in both cases */
	o.hdr_len = o.mergeable || f & BIT(VIRTIO_F_VERSION_1) ? 12 : 10;
	if (o.csum) {
		o.tso4 = f & BIT(VIRTIO_NET_F_GUEST_TSO4);
		o.tso6 = f & BIT(VIRTIO_NET_F_GUEST_TSO6);
		o.ecn = f & BIT(VIRTIO_NET_F_GUEST_ECN);
		o.uso4 = f & VU_F_GUEST_USO4;
		o.uso6 = f & VU_F_GUEST_USO6;
	}
	return o;
}

static uint32_t gso_flags(const struct vhost_offloads *o)
{
	return (o->tso4 ? GN_INSTANCE_TSO4 : 0) | (o->tso6 ? GN_INSTANCE_TSO6 : 0) |
	       (o->uso4 && o->uso6 ? GN_INSTANCE_USO : 0);
}

static void add_tx(struct vhost_port *vp, struct vhost_queue *vq, const struct vu_ring *r)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };

	if (epoll_ctl(vq->q.fd, EPOLL_CTL_ADD, r->kick, &ev) && errno != EEXIST) {
		log_err("%s %s: kicks cannot be waited for: %s", vp->p.ops->name,
			vp->conf.arg, strerror(errno));
		return;
	}
	vq->tx[vq->ntx++] = (struct vhost_ring){
		.vring = r->vring,
		.kick = r->kick,
		.call = r->call,
		.deliver = vu_ring_enabled(&vp->dev, r),
	};
}

/*
 * Who serves which ring. Transmit rings go round the workers. So do receive rings,
 * or, if there are fewer of them than workers, workers go round the rings.
 */
static void plan(struct vhost_port *vp)
{
	struct vu_dev *d = &vp->dev;
	struct vhost_ring rx[VU_MAX_PAIRS] = { { .vring = NULL } };
	unsigned int nrx = 0, ntx = 0, n = vp->p.nqueues;

	for (unsigned int p = 0; p < VU_MAX_PAIRS; p++) {
		struct vu_ring *r = &d->ring[2 * p], *t = r + 1;

		if (r->vring && vu_ring_enabled(d, r))
			rx[nrx++] = (struct vhost_ring){
				.vring = r->vring,
				.kick = r->kick,
				.call = r->call,
				.deliver = true,
				.lock = &vp->rx_lock[p],
			};
		if (r->vring)
			vring_set_wakeup(r->vring, false);
		if (t->vring)
			add_tx(vp, vhost_queue_of(vp, ntx++ % n), t);
	}
	for (unsigned int i = 0; i < nrx || (nrx && i < n); i++) {
		struct vhost_queue *vq = vhost_queue_of(vp, i % n);
		struct vhost_ring *r = &vq->rx[vq->nrx++];

		*r = rx[i % nrx];
		if (nrx >= n)
			r->lock = NULL;
	}
}

void vhost_go(void *owner)
{
	struct vhost_port *vp = owner;
	struct vhost_offloads o = offloads(&vp->dev);
	bool logged = dma_log_on(&vp->dev.log);

	if (vp->p.gso != gso_flags(&o) || vp->p.logged != logged) {
		vp->p.gso = gso_flags(&o);
		vp->p.logged = logged;
		if (!vp->closing)
			vp->env->changed(vp->env->owner);
	}
	plan(vp);
	for (unsigned int i = 0; i < VU_MAX_RINGS; i++) {
		struct vu_ring *r = &vp->dev.ring[i];

		if (r->signal)
			vhost_signal(r->call);
		r->signal = false;
	}
	for (unsigned int i = 0; i < vp->p.nqueues; i++) {
		struct vhost_queue *vq = vhost_queue_of(vp, i);

		vq->off = o;
		vq->tx_at = 0;
		vq->trouble = NULL;
		__atomic_store_n(&vq->quiet, false, __ATOMIC_RELEASE);
		/* Chains that were there before need no kick of the guest's. */
		vhost_signal(vq->poke);
	}
}

/* A reverse ARP request for its own address, as QEMU announces a migrated guest. */
static void rarp(void *owner, const uint8_t mac[6])
{
	static const uint8_t arp[] = { 0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3 };
	struct vhost_queue *vq = vhost_queue_of(owner, 0);
	uint8_t *f = vq->rarp_frame;

	memset(f, 0, sizeof(vq->rarp_frame));
	memset(f, 0xff, 6);
	memcpy(f + 6, mac, 6);
	memcpy(f + 12, arp, sizeof(arp));
	memcpy(f + 22, mac, 6); /* sender */
	memcpy(f + 32, mac, 6); /* target */
	vq->rarp = true;
}

static const struct vu_dev_ops dev_ops = { .quiet = vhost_quiet,
					   .go = vhost_go,
					   .rarp = rarp };

/* ---- open, close ----------------------------------------------------------------- */

static void vhost_close(struct port *p)
{
	struct vhost_port *vp = (struct vhost_port *)p;

	vp->closing = true;
	vhost_conn_close(vp);
	vu_dev_fini(&vp->dev);
	for (unsigned int i = 0; i < p->nqueues; i++) {
		struct vhost_queue *vq = vhost_queue_of(vp, i);

		if (vq->q.fd >= 0)
			close(vq->q.fd);
		if (vq->poke >= 0)
			close(vq->poke);
		free(vq);
	}
	free(p->queue);
	for (unsigned int i = 0; i < VU_MAX_PAIRS; i++)
		pthread_mutex_destroy(&vp->rx_lock[i]);
	free(vp);
}

static int open_queue(struct vhost_port *vp)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };
	struct vhost_queue *vq = calloc(1, sizeof(*vq));

	if (!vq)
		return -ENOMEM;
	vp->p.queue[vp->p.nqueues++] = &vq->q;
	vq->q.port = &vp->p;
	vq->vp = vp;
	vq->vec = (struct vring_vec){ 0, VHOST_VEC, vq->vec_iov, vq->vec_gpa };
	vq->rx_vec = (struct vring_vec){ 0, VHOST_VEC, vq->rx_iov, vq->rx_gpa };
	vq->poke = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	vq->q.fd = epoll_create1(EPOLL_CLOEXEC);
	if (vq->poke < 0 || vq->q.fd < 0 ||
	    epoll_ctl(vq->q.fd, EPOLL_CTL_ADD, vq->poke, &ev))
		return -errno;
	return 0;
}

static const char *open_remedy(int err)
{
	switch (-err) {
	case ENOENT: return "does its directory exist?";
	case EEXIST:
		return "a file that is no socket is there; remove it or use another path";
	case EADDRINUSE: return "another process serves it; use another path";
	case EACCES:
		return "if a killed daemon left it there and it was given to another "
		       "user, remove it; else this user may not create it there";
	default: return "see unix(7)";
	}
}

static int vhost_open(const struct port_conf *conf, const struct port_env *env,
		      unsigned int nqueues, struct port **out)
{
	struct vhost_port *vp = calloc(1, sizeof(*vp));
	int err = vu_mem_guard();

	if (!vp)
		return -ENOMEM;
	vp->p.ops = &port_vhost_ops;
	vp->p.reads = true;
	vp->p.rx_depth = PORT_RX_COPIES;
	vp->env = env;
	vp->conf = *conf;
	vp->listen_fd = vp->conn_fd = vp->timer_fd = vp->trouble_fd = -1;
	vu_dev_init(&vp->dev, &dev_ops, vp, conf->mac, conf->mtu);
	for (unsigned int i = 0; i < VU_MAX_PAIRS; i++)
		pthread_mutex_init(&vp->rx_lock[i], NULL);
	vp->p.queue = calloc(nqueues, sizeof(struct port_queue *));
	if (!vp->p.queue)
		err = -ENOMEM;
	for (unsigned int i = 0; !err && i < nqueues; i++)
		err = open_queue(vp);
	if (!err)
		err = vhost_conn_open(vp);
	if (err) {
		log_err("vhost-user %s: %s; %s", conf->arg, strerror(-err),
			open_remedy(err));
		vhost_close(&vp->p);
		return err;
	}
	*out = &vp->p;
	return 0;
}

static struct dma_log *vhost_dma_log(struct port *p, uint64_t *pages)
{
	struct vhost_port *vp = (struct vhost_port *)p;
	const struct vu_mem *m = &vp->dev.mem;

	*pages = 0;
	if (m->nregions) {
		const struct vu_region *last = &m->region[m->nregions - 1];

		*pages = ((last->gpa + last->size - 1) >> DMA_LOG_PAGE_SHIFT) + 1;
	}
	return &vp->dev.log;
}

static void settle_queue(struct port_queue *q)
{
	vhost_settle((struct vhost_queue *)q);
}

const struct port_ops port_vhost_ops = {
	.name = "vhost-user",
	.open = vhost_open,
	.close = vhost_close,
	.deliver = vhost_deliver,
	.inject = vhost_inject,
	.fetch = vhost_fetch,
	.dma_log = vhost_dma_log,
	.settle = settle_queue,
	.link = vhost_link,
};
