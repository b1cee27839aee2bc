// SPDX-License-Identifier: BSD-2-Clause
/*
 * virtio_mmio: see virtio_mmio.h.
 *
 * The interrupt status always reads as "used buffers": whether the back end has raised
 * the interrupt only the eventfd knows, which KVM has taken. The driver then looks at its
 * rings, and finds nothing at worst.
 *
 * Across a stop a notification or an interrupt may be on its way and lost with the
 * eventfd. At each start of the rings both sides are therefore woken once.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../../user/lib/log.h"
#include "kvm.h"
#include "vhost_front.h"
#include "virtio_mmio.h"

#define MAGIC	     0x74726976 /* "virt" */
#define MMIO_VERSION 2
#define VENDOR	     0x4e474847 /* "GHGN" */
#define RINGS	     VHOST_FRONT_RINGS
#define RING_MAX     256
#define F(n)	     (1ULL << (n))

/* What the device offers if the back end does. */
#define FEATURES                                                                         \
	(F(VIRTIO_NET_F_CSUM) | F(VIRTIO_NET_F_GUEST_CSUM) |                             \
	 F(VIRTIO_NET_F_GUEST_TSO4) | F(VIRTIO_NET_F_GUEST_TSO6) |                       \
	 F(VIRTIO_NET_F_GUEST_ECN) | F(VIRTIO_NET_F_HOST_TSO4) |                         \
	 F(VIRTIO_NET_F_HOST_TSO6) | F(VIRTIO_NET_F_HOST_ECN) |                          \
	 F(VIRTIO_NET_F_MRG_RXBUF) | F(VIRTIO_RING_F_INDIRECT_DESC) |                    \
	 F(VIRTIO_RING_F_EVENT_IDX) | F(VIRTIO_F_VERSION_1))
/* What it does itself. */
#define OWN_FEATURES (F(VIRTIO_NET_F_MAC) | F(VIRTIO_NET_F_STATUS))

struct ring {
	uint32_t num, ready;
	uint64_t desc, avail, used;
	uint32_t base; /* of a stopped one */
	int kick, call;
};

struct virtio_net_front {
	struct vm *vm;
	unsigned int i;
	int vm_fd;
	pthread_mutex_t lock;
	struct vhost_front vhost;
	struct virtio_net_config config;
	uint64_t offered, acked;
	uint32_t device_sel, driver_sel, ring_sel, status;
	bool drained; /* rings are stopped by us, not by the driver */
	bool loaded;
	bool arrived; /* and the network has not been told */
	struct ring ring[RINGS];
};

/* ---- rings ------------------------------------------------------------------------- */

static const struct vm_net_conf *conf(const struct virtio_net_front *n)
{
	return &n->vm->conf.net[n->i];
}

/* The features are settled: no others than were offered, and they stay as they are. */
static bool agreed(const struct virtio_net_front *n)
{
	return n->status & VIRTIO_CONFIG_S_FEATURES_OK;
}

static bool wants_rings(const struct virtio_net_front *n)
{
	return agreed(n) && n->status & VIRTIO_CONFIG_S_DRIVER_OK && n->ring[0].ready &&
	       n->ring[1].ready;
}

static void wake_both(struct virtio_net_front *n)
{
	const uint64_t one = 1;

	for (unsigned int i = 0; i < RINGS; i++)
		if (write(n->ring[i].kick, &one, sizeof(one)) < 0 ||
		    write(n->ring[i].call, &one, sizeof(one)) < 0)
			log_err("eventfd: %s", strerror(errno));
}

/* Where the rings are is the guest's word: all of each has to be memory. */
static bool ring_fits(struct virtio_net_front *n, const struct ring *r)
{
	return r->num && !(r->num & (r->num - 1)) && r->num <= RING_MAX &&
	       !(r->desc % VRING_DESC_ALIGN_SIZE) &&
	       !(r->avail % VRING_AVAIL_ALIGN_SIZE) &&
	       !(r->used % VRING_USED_ALIGN_SIZE) &&
	       kvm_guest_at(n->vm, r->desc, r->num * 16ULL) &&
	       kvm_guest_at(n->vm, r->avail, 6 + r->num * 2ULL) &&
	       kvm_guest_at(n->vm, r->used, 6 + r->num * 8ULL);
}

static int stop_rings(struct virtio_net_front *n)
{
	uint32_t base[RINGS];
	int err;

	for (unsigned int i = 0; i < RINGS; i++)
		base[i] = n->ring[i].base;
	err = vhost_front_stop(&n->vhost, base);
	if (err) {
		log_warn("network device %u: %s", n->i, n->vhost.why);
		return err;
	}
	for (unsigned int i = 0; i < RINGS; i++)
		n->ring[i].base = base[i];
	return 0;
}

static int start_rings(struct virtio_net_front *n)
{
	struct vhost_front_ring v[RINGS];
	int err = stop_rings(n); /* of a connection that was lost */

	for (unsigned int i = 0; i < RINGS; i++) {
		const struct ring *r = &n->ring[i];

		if (!ring_fits(n, r))
			return -EFAULT;
		v[i] = (struct vhost_front_ring){ .num = r->num,
						  .base = r->base,
						  .desc = r->desc,
						  .avail = r->avail,
						  .used = r->used,
						  .kick = r->kick,
						  .call = r->call };
	}
	if (!err && n->vhost.sock < 0)
		err = vhost_front_connect(&n->vhost, conf(n)->socket);
	if (!err && n->acked & ~(n->vhost.features | OWN_FEATURES))
		err = -EOPNOTSUPP;
	if (!err)
		err = vhost_front_start(&n->vhost, n->acked & ~OWN_FEATURES, v);
	if (!err)
		wake_both(n);
	return err;
}

static void start_or_say(struct virtio_net_front *n)
{
	bool connected;
	int err;

	/* A back end that was started anew while the rings stood still has told nobody. */
	do {
		connected = n->vhost.sock >= 0;
		err = start_rings(n);
	} while (connected && vhost_front_gone(err));
	if (!err && n->arrived)
		n->arrived = !!vhost_front_announce(&n->vhost, n->config.mac);
	if (err)
		log_warn("network device %u stands still: %s: %s", n->i, conf(n)->socket,
			 err == -EFAULT	      ? "its rings are not in memory"
			 : err == -EOPNOTSUPP ? "the back end lacks features in use"
					      : n->vhost.why);
}

/* ---- registers --------------------------------------------------------------------- */

static void reset(struct virtio_net_front *n)
{
	stop_rings(n);
	n->vhost.given = false; /* nobody asks any more how far it came */
	n->acked = 0;
	n->status = n->device_sel = n->driver_sel = n->ring_sel = 0;
	for (unsigned int i = 0; i < RINGS; i++) {
		struct ring *r = &n->ring[i];

		*r = (struct ring){ .kick = r->kick, .call = r->call };
	}
}

static uint32_t read_register(struct virtio_net_front *n, uint64_t off)
{
	const struct ring *r = n->ring_sel < RINGS ? &n->ring[n->ring_sel] : NULL;

	switch (off) {
	case VIRTIO_MMIO_MAGIC_VALUE: return MAGIC;
	case VIRTIO_MMIO_VERSION: return MMIO_VERSION;
	case VIRTIO_MMIO_DEVICE_ID: return VIRTIO_ID_NET;
	case VIRTIO_MMIO_VENDOR_ID: return VENDOR;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return n->device_sel < 2 ? (uint32_t)(n->offered >> 32 * n->device_sel)
					 : 0;
	case VIRTIO_MMIO_QUEUE_NUM_MAX: return r ? RING_MAX : 0;
	case VIRTIO_MMIO_QUEUE_READY: return r ? r->ready : 0;
	case VIRTIO_MMIO_INTERRUPT_STATUS: return VIRTIO_MMIO_INT_VRING;
	case VIRTIO_MMIO_STATUS: return n->status;
	default: return 0;
	}
}

static void set_half(uint64_t *v, bool high, uint32_t half)
{
	*v = high ? (*v & 0xffffffff) | (uint64_t)half << 32
		  : (*v & ~0xffffffffULL) | half;
}

static void write_status(struct virtio_net_front *n, uint32_t v)
{
	const uint32_t before = n->status;

	if (!v) {
		reset(n);
		return;
	}
	/* A driver that takes what was not offered is told so: the bit does not stick. */
	if (v & VIRTIO_CONFIG_S_FEATURES_OK &&
	    (n->acked & ~n->offered || !(n->acked & F(VIRTIO_F_VERSION_1))))
		v &= ~(uint32_t)VIRTIO_CONFIG_S_FEATURES_OK;
	n->status = v;
	if (!(before & VIRTIO_CONFIG_S_DRIVER_OK) && wants_rings(n) && !n->drained)
		start_or_say(n);
}

static void write_ring(struct virtio_net_front *n, uint64_t off, uint32_t v)
{
	struct ring *r = n->ring_sel < RINGS ? &n->ring[n->ring_sel] : NULL;

	/* A ring in use stays where it is. */
	if (!r || n->vhost.given)
		return;
	switch (off) {
	case VIRTIO_MMIO_QUEUE_NUM: r->num = v <= RING_MAX ? v : 0; break;
	case VIRTIO_MMIO_QUEUE_READY: r->ready = v & 1; break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW: set_half(&r->desc, false, v); break;
	case VIRTIO_MMIO_QUEUE_DESC_HIGH: set_half(&r->desc, true, v); break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW: set_half(&r->avail, false, v); break;
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH: set_half(&r->avail, true, v); break;
	case VIRTIO_MMIO_QUEUE_USED_LOW: set_half(&r->used, false, v); break;
	case VIRTIO_MMIO_QUEUE_USED_HIGH: set_half(&r->used, true, v); break;
	default: break;
	}
}

static void write_register(struct virtio_net_front *n, uint64_t off, uint32_t v)
{
	switch (off) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL: n->device_sel = v; break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL: n->driver_sel = v; break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		if (n->driver_sel < 2 && !agreed(n))
			set_half(&n->acked, n->driver_sel, v);
		break;
	case VIRTIO_MMIO_QUEUE_SEL: n->ring_sel = v; break;
	case VIRTIO_MMIO_STATUS: write_status(n, v); break;
	default: write_ring(n, off, v); break;
	}
}

void virtio_net_read(struct virtio_net_front *n, uint64_t off, void *data, uint32_t len)
{
	uint32_t v;

	memset(data, 0, len);
	pthread_mutex_lock(&n->lock);
	if (off >= VIRTIO_MMIO_CONFIG) {
		off -= VIRTIO_MMIO_CONFIG;
		if (off + len <= sizeof(n->config))
			memcpy(data, (uint8_t *)&n->config + off, len);
	} else if (len == 4) {
		v = read_register(n, off);
		memcpy(data, &v, sizeof(v));
	}
	pthread_mutex_unlock(&n->lock);
}

void virtio_net_write(struct virtio_net_front *n, uint64_t off, const void *data,
		      uint32_t len)
{
	uint32_t v;

	if (len != 4 || off >= VIRTIO_MMIO_CONFIG)
		return;
	memcpy(&v, data, sizeof(v));
	pthread_mutex_lock(&n->lock);
	write_register(n, off, v);
	pthread_mutex_unlock(&n->lock);
}

/* ---- creation ---------------------------------------------------------------------- */

static int wire_events(struct virtio_net_front *n)
{
	for (uint32_t i = 0; i < RINGS; i++) {
		struct ring *r = &n->ring[i];
		struct kvm_ioeventfd out = {
			.datamatch = i,
			.addr = KVM_MMIO + (uint64_t)n->i * KVM_MMIO_SIZE +
				VIRTIO_MMIO_QUEUE_NOTIFY,
			.len = 4,
			.flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
		};
		struct kvm_irqfd in = { .gsi = KVM_NET_GSI + n->i };

		r->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		r->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (r->kick < 0 || r->call < 0)
			return -errno;
		out.fd = r->kick;
		in.fd = (uint32_t)r->call;
		if (ioctl(n->vm_fd, KVM_IOEVENTFD, &out) ||
		    ioctl(n->vm_fd, KVM_IRQFD, &in))
			return -errno;
	}
	return 0;
}

int virtio_net_create(struct vm *vm, unsigned int i, int vm_fd,
		      struct virtio_net_front **out)
{
	struct virtio_net_front *n = calloc(1, sizeof(*n));
	int err;

	if (!n)
		return vm_fail(vm, -ENOMEM, "out of memory");
	n->vm = vm;
	n->i = i;
	n->vm_fd = vm_fd;
	pthread_mutex_init(&n->lock, NULL);
	vhost_front_init(&n->vhost, &vm->ram);
	for (unsigned int r = 0; r < RINGS; r++)
		n->ring[r].kick = n->ring[r].call = -1;
	memcpy(n->config.mac, conf(n)->mac, 6);
	n->config.status = VIRTIO_NET_S_LINK_UP;
	err = wire_events(n);
	if (err) {
		vm_fail(vm, err, "network device %u: %s", i, strerror(-err));
		goto fail;
	}
	err = vhost_front_connect(&n->vhost, conf(n)->socket);
	if (!err && !(n->vhost.features & F(VIRTIO_F_VERSION_1)))
		err = -EPROTO;
	if (err) {
		vm_fail(vm, err, "%s: %s; is the back end there, and its port free?",
			conf(n)->socket, n->vhost.why);
		goto fail;
	}
	n->offered = (n->vhost.features & FEATURES) | OWN_FEATURES;
	*out = n;
	return 0;
fail:
	virtio_net_destroy(n);
	return err;
}

void virtio_net_destroy(struct virtio_net_front *n)
{
	if (!n)
		return;
	stop_rings(n);
	vhost_front_fini(&n->vhost);
	for (unsigned int i = 0; i < RINGS; i++) {
		if (n->ring[i].kick >= 0)
			close(n->ring[i].kick);
		if (n->ring[i].call >= 0)
			close(n->ring[i].call);
	}
	pthread_mutex_destroy(&n->lock);
	free(n);
}

/* ---- migration --------------------------------------------------------------------- */

int virtio_net_drain(struct virtio_net_front *n)
{
	int err;

	pthread_mutex_lock(&n->lock);
	err = stop_rings(n);
	n->drained = !err;
	pthread_mutex_unlock(&n->lock);
	return err;
}

void virtio_net_resume(struct virtio_net_front *n)
{
	pthread_mutex_lock(&n->lock);
	n->drained = false;
	if (wants_rings(n) && !n->vhost.running)
		start_or_say(n);
	pthread_mutex_unlock(&n->lock);
}

static int enable_log(void *arg, bool on)
{
	struct virtio_net_front *n = arg;
	int err;

	pthread_mutex_lock(&n->lock);
	err = vhost_front_log(&n->vhost, on);
	pthread_mutex_unlock(&n->lock);
	return err;
}

int virtio_net_add_dirty(struct virtio_net_front *n, struct dirty_set *set)
{
	const struct vm_net_conf *c = conf(n);
	const char *ctl = n->vm->conf.ctl;
	struct dirty_source *src;
	int err;

	if (*c->instance) {
		err = dirty_daemon_create(&n->vm->ram, *ctl ? ctl : NULL, NULL,
					  c->instance, &src);
		if (err)
			return vm_fail(n->vm, err,
				       "ghostnicd's DMA log of instance %s: %s",
				       c->instance, strerror(-err));
		return dirty_set_add(set, src);
	}
	pthread_mutex_lock(&n->lock);
	err = vhost_front_log(&n->vhost, false); /* makes it */
	pthread_mutex_unlock(&n->lock);
	if (!err)
		err = dirty_vhost_log_create(&n->vm->ram, n->vhost.log,
					     n->vhost.log_bytes, enable_log, n, &src);
	return err ? vm_fail(n->vm, err, "log of the back end: %s", strerror(-err))
		   : dirty_set_add(set, src);
}

void virtio_net_save(struct virtio_net_front *n, unsigned int i, struct state_writer *w)
{
	pthread_mutex_lock(&n->lock);
	state_begin(w, VIRTIO_NET_SECTION, i, 1);
	state_put_u64(w, n->acked);
	state_put_u32(w, n->status);
	state_put_u32(w, n->device_sel);
	state_put_u32(w, n->driver_sel);
	state_put_u32(w, n->ring_sel);
	for (unsigned int r = 0; r < RINGS; r++) {
		state_put_u32(w, n->ring[r].num);
		state_put_u32(w, n->ring[r].ready);
		state_put_u64(w, n->ring[r].desc);
		state_put_u64(w, n->ring[r].avail);
		state_put_u64(w, n->ring[r].used);
		state_put_u32(w, n->ring[r].base);
	}
	state_end(w);
	pthread_mutex_unlock(&n->lock);
}

/* Where they are is looked at when they start: what a driver has written so far may be
 * nonsense, and its machine moves all the same. */
static void load_rings(struct virtio_net_front *n, struct state_section *s)
{
	for (unsigned int i = 0; i < RINGS; i++) {
		struct ring *r = &n->ring[i];

		r->num = state_get_u32(s);
		r->ready = state_get_u32(s) & 1;
		r->desc = state_get_u64(s);
		r->avail = state_get_u64(s);
		r->used = state_get_u64(s);
		r->base = state_get_u32(s);
	}
}

int virtio_net_load(struct virtio_net_front *n, struct state_section *s)
{
	int err = 0;

	if (s->version != 1)
		return -EPROTONOSUPPORT;
	if (n->loaded)
		return -EBADMSG;
	n->acked = state_get_u64(s);
	n->status = state_get_u32(s);
	n->device_sel = state_get_u32(s);
	n->driver_sel = state_get_u32(s);
	n->ring_sel = state_get_u32(s);
	load_rings(n, s);
	if (agreed(n) && n->acked & ~n->offered)
		err = vm_fail(n->vm, -EOPNOTSUPP,
			      "the back end %s lacks features that the guest uses: %#llx",
			      conf(n)->socket,
			      (unsigned long long)(n->acked & ~n->offered));
	n->loaded = n->arrived = n->drained = !err;
	return err;
}

bool virtio_net_loaded(const struct virtio_net_front *n)
{
	return n->loaded;
}
