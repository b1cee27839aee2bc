// SPDX-License-Identifier: BSD-2-Clause
/*
 * vu_dev: a vhost-user device's state, and what it offers. Contract in vu_proto.h;
 * control thread.
 */
#include <errno.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "vu_keep.h"
#include "vu_msg.h"

uint64_t vu_features(void)
{
	return BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) |
	       BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS) | BIT(VIRTIO_NET_F_MTU) |
	       BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO6) |
	       BIT(VIRTIO_NET_F_GUEST_ECN) | BIT(VIRTIO_NET_F_HOST_TSO4) |
	       BIT(VIRTIO_NET_F_HOST_TSO6) | BIT(VIRTIO_NET_F_HOST_ECN) |
	       BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_GUEST_ANNOUNCE) |
	       BIT(VIRTIO_NET_F_MQ) | BIT(VHOST_F_LOG_ALL) | BIT(VIRTIO_F_ANY_LAYOUT) |
	       BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX) |
	       VU_F_PROTOCOL_FEATURES | BIT(VIRTIO_F_VERSION_1) |
	       BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_F_IN_ORDER) | VU_F_GUEST_USO4 |
	       VU_F_GUEST_USO6 | VU_F_HOST_USO;
}

int vu_fail(struct vu_dev *d, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(d->why, sizeof(d->why), fmt, ap);
	va_end(ap);
	return err;
}

/* Grace of dma_log_set_front(): workers are quiet already. */
static void no_wait(void *arg)
{
}

static const struct dma_log_grace quiet_grace = { .wait = no_wait };

static bool logging(const struct vu_dev *d)
{
	return d->features & BIT(VHOST_F_LOG_ALL) && d->log_map.base;
}

void vu_log_update(struct vu_dev *d)
{
	if (logging(d))
		dma_log_set_front(&d->log, d->log_map.base, d->log_size, &quiet_grace);
	else
		dma_log_set_front(&d->log, NULL, 0, &quiet_grace);
}

static void ring_init(struct vu_ring *r)
{
	*r = (struct vu_ring){ .kick = -1, .call = -1, .err = -1 };
}

void vu_ring_stop(struct vu_ring *r)
{
	if (r->vring) {
		r->base = vring_destroy(r->vring);
		r->vring = NULL;
	}
	vu_keep_give(r->own);
	r->own = NULL;
	vu_set_fd(&r->kick, -1);
}

void vu_ring_end(struct vu_ring *r)
{
	if (r->vring)
		vring_forget(r->vring);
	vu_ring_stop(r);
}

void vu_dev_init(struct vu_dev *d, const struct vu_dev_ops *ops, void *owner,
		 const uint8_t mac[6], uint32_t mtu)
{
	memset(d, 0, sizeof(*d));
	d->ops = ops;
	d->owner = owner;
	memcpy(d->mac, mac, 6);
	d->mtu = mtu;
	d->backend_fd = -1;
	dma_log_init(&d->log);
	for (unsigned int i = 0; i < VU_MAX_RINGS; i++)
		ring_init(&d->ring[i]);
}

void vu_dev_reset(struct vu_dev *d)
{
	for (unsigned int i = 0; i < VU_MAX_RINGS; i++) {
		struct vu_ring *r = &d->ring[i];

		vu_ring_stop(r);
		vu_set_fd(&r->call, -1);
		vu_set_fd(&r->err, -1);
		ring_init(r);
	}
	dma_log_set_front(&d->log, NULL, 0, &quiet_grace);
	vu_map_destroy(&d->log_map);
	memset(&d->log_map, 0, sizeof(d->log_map));
	d->log_size = 0;
	__atomic_store_n(&d->log_broken, false, __ATOMIC_RELAXED);
	vu_map_destroy(&d->inflight);
	__atomic_store_n(&d->inflight_broken, false, __ATOMIC_RELAXED);
	d->inflight_rings = d->inflight_size = 0;
	vu_set_fd(&d->backend_fd, -1);
	vu_mem_clear(&d->mem);
	d->features = d->protocol = 0;
	d->status = 0;
}

void vu_dev_fini(struct vu_dev *d)
{
	vu_dev_reset(d);
	dma_log_fini(&d->log);
}

bool vu_ring_enabled(const struct vu_dev *d, const struct vu_ring *r)
{
	return r->enabled || !(d->features & VU_F_PROTOCOL_FEATURES);
}

const char *vu_dev_broken(const struct vu_dev *d)
{
	if (vu_mem_broken(&d->mem))
		return "a file of its memory is shorter than the region";
	if (__atomic_load_n(&d->log_broken, __ATOMIC_RELAXED))
		return "the file of its dirty log is shorter than the log";
	if (__atomic_load_n(&d->inflight_broken, __ATOMIC_RELAXED))
		return "the file of its inflight region is shorter than it said";
	for (unsigned int i = 0; i < VU_MAX_RINGS; i++) {
		const struct vring *v = d->ring[i].vring;
		const char *why = v ? vring_broken(v) : NULL;

		if (why)
			return why;
	}
	return NULL;
}
