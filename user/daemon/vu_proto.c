// SPDX-License-Identifier: BSD-2-Clause
/*
 * vu_proto: one handler per message, and a table that says what each may carry.
 * Contract in vu_proto.h; control thread. Longer than other files: a protocol's handlers
 * are read beside their table.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vu_proto.h"

#define BIT(n)		    (1ULL << (n))
#define F_PROTOCOL_FEATURES BIT(30) /* VHOST_USER_F_PROTOCOL_FEATURES */
#define MIN_MTU		    68	    /* bytes; RFC 791 */

static const uint64_t offered_protocol =
	BIT(VU_P_MQ) | BIT(VU_P_LOG_SHMFD) | BIT(VU_P_RARP) | BIT(VU_P_REPLY_ACK) |
	BIT(VU_P_NET_MTU) | BIT(VU_P_CONFIGURE_MEM_SLOTS) | BIT(VU_P_STATUS);

uint64_t vu_features(void)
{
	return BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) |
	       BIT(VIRTIO_NET_F_MTU) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
	       BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN) |
	       BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) |
	       BIT(VIRTIO_NET_F_HOST_ECN) | BIT(VIRTIO_NET_F_MRG_RXBUF) |
	       BIT(VIRTIO_NET_F_GUEST_ANNOUNCE) | BIT(VIRTIO_NET_F_MQ) |
	       BIT(VHOST_F_LOG_ALL) | BIT(VIRTIO_F_ANY_LAYOUT) |
	       BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX) |
	       F_PROTOCOL_FEATURES | BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_RING_PACKED) |
	       BIT(VIRTIO_F_IN_ORDER) | VU_F_GUEST_USO4 | VU_F_GUEST_USO6 | VU_F_HOST_USO;
}

__attribute__((format(printf, 3, 4))) static int fail(struct vu_dev *d, int err,
						      const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(d->why, sizeof(d->why), fmt, ap);
	va_end(ap);
	return err;
}

/* ---- state -------------------------------------------------------------------- */

static void set_fd(int *slot, int fd)
{
	if (*slot >= 0)
		close(*slot);
	*slot = fd;
}

static void ring_init(struct vu_ring *r)
{
	*r = (struct vu_ring){ .kick = -1, .call = -1, .err = -1 };
}

static void ring_stop(struct vu_ring *r)
{
	if (r->vring) {
		r->base = vring_destroy(r->vring);
		r->vring = NULL;
	}
	set_fd(&r->kick, -1);
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

/* The log is in force when the front end has given one and asked to use it. */
static void log_update(struct vu_dev *d)
{
	if (logging(d))
		dma_log_set_front(&d->log, d->log_map.base, d->log_size, &quiet_grace);
	else
		dma_log_set_front(&d->log, NULL, 0, &quiet_grace);
}

void vu_dev_init(struct vu_dev *d, const struct vu_dev_ops *ops, void *owner,
		 uint32_t mtu)
{
	memset(d, 0, sizeof(*d));
	d->ops = ops;
	d->owner = owner;
	d->mtu = mtu;
	dma_log_init(&d->log);
	for (unsigned int i = 0; i < VU_MAX_RINGS; i++)
		ring_init(&d->ring[i]);
}

void vu_dev_reset(struct vu_dev *d)
{
	for (unsigned int i = 0; i < VU_MAX_RINGS; i++) {
		struct vu_ring *r = &d->ring[i];

		ring_stop(r);
		set_fd(&r->call, -1);
		set_fd(&r->err, -1);
		ring_init(r);
	}
	dma_log_set_front(&d->log, NULL, 0, &quiet_grace);
	vu_map_destroy(&d->log_map);
	memset(&d->log_map, 0, sizeof(d->log_map));
	d->log_size = 0;
	__atomic_store_n(&d->log_broken, false, __ATOMIC_RELAXED);
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
	return r->enabled || !(d->features & F_PROTOCOL_FEATURES);
}

const char *vu_dev_broken(const struct vu_dev *d)
{
	if (vu_mem_broken(&d->mem))
		return "a file of its memory is shorter than the region";
	if (__atomic_load_n(&d->log_broken, __ATOMIC_RELAXED))
		return "the file of its dirty log is shorter than the log";
	for (unsigned int i = 0; i < VU_MAX_RINGS; i++) {
		const struct vring *v = d->ring[i].vring;
		const char *why = v ? vring_broken(v) : NULL;

		if (why)
			return why;
	}
	return NULL;
}

/* ---- messages ------------------------------------------------------------------- */

/* A handler's answer beside 0 and -errno: no, but the device goes on. */
#define REFUSED 1

static uint64_t msg_u64(const struct vu_msg *m)
{
	uint64_t v;

	memcpy(&v, m->payload, sizeof(v));
	return v;
}

static void reply_with(struct vu_reply *r, const struct vu_msg *m, const void *payload,
		       uint32_t size)
{
	const uint32_t hdr[3] = { m->request, VU_VERSION | VU_REPLY, size };

	memcpy(r->buf, hdr, sizeof(hdr));
	if (size)
		memcpy(r->buf + sizeof(hdr), payload, size);
	r->len = VU_HDR_SIZE + size;
}

static int reply_u64(struct vu_reply *r, const struct vu_msg *m, uint64_t v)
{
	reply_with(r, m, &v, sizeof(v));
	return 0;
}

static int take_fd(struct vu_msg *m, unsigned int i)
{
	int fd = m->fd[i];

	m->fd[i] = -1;
	return fd;
}

static int get_features(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	return reply_u64(r, m, vu_features());
}

static int set_features(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	uint64_t f = msg_u64(m), changed = f ^ d->features;

	if (f & ~vu_features())
		return fail(d, -EPROTO, "features %#llx were not offered",
			    (unsigned long long)(f & ~vu_features()));
	/* A running ring keeps its layout; what changes under it is whether the
	 * front end wants a log. */
	for (unsigned int i = 0; i < VU_MAX_RINGS; i++)
		if (d->ring[i].vring && changed & ~BIT(VHOST_F_LOG_ALL))
			return fail(d, -EPROTO, "features change while ring %u runs", i);
	d->features = f;
	log_update(d);
	return 0;
}

static int set_owner(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	return 0;
}

/* Deprecated; QEMU's document: ignore it or disable all rings. */
static int reset_owner(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	for (unsigned int i = 0; i < VU_MAX_RINGS; i++) {
		if (!(d->features & F_PROTOCOL_FEATURES))
			ring_stop(&d->ring[i]);
		d->ring[i].enabled = false;
	}
	return 0;
}

static int get_protocol_features(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	return reply_u64(r, m, offered_protocol);
}

static int set_protocol_features(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	uint64_t f = msg_u64(m);

	if (f & ~offered_protocol)
		return fail(d, -EPROTO, "protocol features %#llx were not offered",
			    (unsigned long long)(f & ~offered_protocol));
	d->protocol = f;
	return 0;
}

static int get_queue_num(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	return reply_u64(r, m, VU_MAX_PAIRS);
}

/* ---- memory ----------------------------------------------------------------------- */

static int add_region(struct vu_dev *d, const struct vu_mem_region *g, int fd)
{
	int err = vu_mem_add(&d->mem, g->gpa, g->uva, g->size, g->offset, fd);

	if (err)
		return fail(d, err, "memory region at %#llx of %#llx bytes: %s",
			    (unsigned long long)g->gpa, (unsigned long long)g->size,
			    strerror(-err));
	return 0;
}

/* Rings that run find themselves in the new memory, or the device ends. */
static int remap_rings(struct vu_dev *d)
{
	for (unsigned int i = 0; i < VU_MAX_RINGS; i++)
		if (d->ring[i].vring && vring_remap(d->ring[i].vring))
			return fail(d, -EPROTO,
				    "ring %u runs and is not in the new memory", i);
	return 0;
}

static int set_mem_table(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vu_mem_region g;
	uint32_t n;

	memcpy(&n, m->payload, sizeof(n));
	if (n > VU_MAX_FDS || n != m->nfds || m->size < 8 + n * sizeof(g))
		return fail(d, -EPROTO, "%u regions, %u descriptors, %u bytes", n,
			    m->nfds, m->size);
	vu_mem_clear(&d->mem);
	for (uint32_t i = 0; i < n; i++) {
		int err;

		memcpy(&g, m->payload + 8 + i * sizeof(g), sizeof(g));
		err = add_region(d, &g, m->fd[i]);
		if (err)
			return err;
	}
	return remap_rings(d);
}

static int get_max_mem_slots(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	return reply_u64(r, m, VU_MEM_MAX_REGIONS);
}

/*
 * With several queue pairs QEMU 7.2 sends both messages once for each of them: to add
 * what is there as it is, or to remove what is not, changes nothing and is no error.
 */
static int add_mem_reg(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	const struct vu_region *have;
	struct vu_mem_region g;
	int err;

	memcpy(&g, m->payload + 8, sizeof(g));
	have = vu_mem_find(&d->mem, g.gpa);
	if (have && have->gpa == g.gpa && have->uva == g.uva && have->size == g.size)
		return 0;
	err = add_region(d, &g, m->fd[0]);
	return err ? err : remap_rings(d);
}

static int rem_mem_reg(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vu_mem_region g;

	memcpy(&g, m->payload + 8, sizeof(g));
	if (vu_mem_del(&d->mem, g.gpa, g.uva, g.size))
		return 0;
	return remap_rings(d);
}

/*
 * May come again while the log is written: memory grew. Front ends differ in what they
 * read: QEMU takes any payload, and those that ask for an acknowledgement want it in the
 * form of all others, so the reply is empty unless one was asked for.
 */
static int set_log_base(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vu_map map = { 0 }, old = d->log_map;
	uint64_t size, offset;
	int err;

	memcpy(&size, m->payload, sizeof(size));
	memcpy(&offset, m->payload + 8, sizeof(offset));
	err = vu_map_create(&map, m->fd[0], offset, size, &d->log_broken);
	if (err)
		return fail(d, err, "log of %#llx bytes at %#llx: %s",
			    (unsigned long long)size, (unsigned long long)offset,
			    strerror(-err));
	d->log_map = map;
	d->log_size = size;
	log_update(d);
	vu_map_destroy(&old);
	reply_with(r, m, NULL, 0);
	return 0;
}

/* To be signalled at each write of the log; QEMU never sends it. */
static int set_log_fd(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	return 0;
}

/* ---- rings ------------------------------------------------------------------------- */

static struct vu_ring *find_ring(struct vu_dev *d, uint32_t index)
{
	if (index < VU_MAX_RINGS)
		return &d->ring[index];
	fail(d, -EPROTO, "ring %u of %u", index, VU_MAX_RINGS);
	return NULL;
}

/* A ring that must not run, for @m; NULL: refused. */
static struct vu_ring *stopped_ring(struct vu_dev *d, const struct vhost_vring_state *s)
{
	struct vu_ring *r = find_ring(d, s->index);

	if (!r || !r->vring)
		return r;
	fail(d, -EPROTO, "ring %u runs", s->index);
	return NULL;
}

static struct vhost_vring_state msg_state(const struct vu_msg *m)
{
	struct vhost_vring_state s;

	memcpy(&s, m->payload, sizeof(s));
	return s;
}

static int set_vring_num(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vhost_vring_state s = msg_state(m);
	struct vu_ring *ring = stopped_ring(d, &s);

	if (!ring)
		return -EPROTO;
	if (!s.num || s.num > VRING_MAX_SIZE)
		return fail(d, -EPROTO, "ring %u of %u descriptors", s.index, s.num);
	ring->conf.size = (uint16_t)s.num;
	return 0;
}

static int set_vring_base(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vhost_vring_state s = msg_state(m);
	struct vu_ring *ring = stopped_ring(d, &s);

	if (!ring)
		return -EPROTO;
	ring->base = s.num;
	return 0;
}

static int ring_start(struct vu_dev *d, struct vu_ring *ring, uint32_t index)
{
	struct vring_conf *c = &ring->conf;
	int err;

	if (!c->size || !ring->addr_set)
		return fail(d, -EPROTO, "ring %u starts without size or addresses",
			    index);
	c->packed = d->features & BIT(VIRTIO_F_RING_PACKED);
	c->event_idx = d->features & BIT(VIRTIO_RING_F_EVENT_IDX);
	c->indirect = d->features & BIT(VIRTIO_RING_F_INDIRECT_DESC);
	c->in_order = d->features & BIT(VIRTIO_F_IN_ORDER);
	err = vring_create(c, &d->mem, &d->log, ring->base, &ring->vring);
	if (err)
		return fail(d, err, "ring %u: size, base or addresses: %s", index,
			    strerror(-err));
	return 0;
}

/* While the ring runs the log's part may change, and addresses with a restart. */
static int set_vring_addr(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vhost_vring_addr a;
	struct vring_conf *c;
	struct vu_ring *ring;
	bool moved;

	memcpy(&a, m->payload, sizeof(a));
	ring = find_ring(d, a.index);
	if (!ring)
		return -EPROTO;
	c = &ring->conf;
	moved = c->desc_uva != a.desc_user_addr || c->avail_uva != a.avail_user_addr ||
		c->used_uva != a.used_user_addr;
	c->desc_uva = a.desc_user_addr;
	c->avail_uva = a.avail_user_addr;
	c->used_uva = a.used_user_addr;
	c->log_used = a.flags & BIT(VHOST_VRING_F_LOG);
	c->log_gpa = a.log_guest_addr;
	ring->addr_set = true;
	if (!ring->vring)
		return 0;
	if (!moved) {
		vring_set_log(ring->vring, c->log_used, c->log_gpa);
		return 0;
	}
	ring->base = vring_destroy(ring->vring);
	ring->vring = NULL;
	return ring_start(d, ring, a.index);
}

/* The ring stops; nothing of the guest's memory is written for it after the reply. */
static int get_vring_base(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vhost_vring_state s = msg_state(m);
	struct vu_ring *ring = find_ring(d, s.index);

	if (!ring)
		return -EPROTO;
	ring_stop(ring);
	s.num = ring->base;
	reply_with(r, m, &s, sizeof(s));
	return 0;
}

static int set_vring_enable(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vhost_vring_state s = msg_state(m);
	struct vu_ring *ring = find_ring(d, s.index);

	if (!ring)
		return -EPROTO;
	if (s.num > 1)
		return fail(d, -EPROTO, "enable ring %u with %u", s.index, s.num);
	ring->enabled = s.num;
	return 0;
}

/*
 * The descriptor that SET_VRING_KICK, _CALL and _ERR carry, or do not, as bit 8 says.
 * It has no file type if it is an eventfd, whose reads and writes are short; a pipe's or
 * a socket's could block a worker.
 * Return: 0, *@fd -1: none; -EPROTO
 */
static int ring_fd(struct vu_dev *d, struct vu_msg *m, struct vu_ring **ring, int *fd)
{
	uint64_t v = msg_u64(m);
	struct stat st;
	int flags;

	*ring = find_ring(d, (uint32_t)(v & VU_VRING_INDEX));
	if (!*ring)
		return -EPROTO;
	if (v & ~(uint64_t)(VU_VRING_INDEX | VU_VRING_NOFD) ||
	    !!(v & VU_VRING_NOFD) == !!m->nfds)
		return fail(d, -EPROTO, "payload %#llx with %u descriptors",
			    (unsigned long long)v, m->nfds);
	*fd = -1;
	if (!m->nfds)
		return 0;
	flags = fcntl(m->fd[0], F_GETFL);
	if (flags < 0 || fstat(m->fd[0], &st) || st.st_mode & S_IFMT ||
	    fcntl(m->fd[0], F_SETFL, flags | O_NONBLOCK))
		return fail(d, -EPROTO, "the descriptor is not an eventfd");
	*fd = take_fd(m, 0);
	return 0;
}

static int set_vring_kick(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vu_ring *ring;
	int fd, err = ring_fd(d, m, &ring, &fd);

	if (err)
		return err;
	if (fd < 0)
		return fail(d, -EPROTO, "a ring without kicks, to be polled");
	set_fd(&ring->kick, fd);
	return ring->vring ? 0 : ring_start(d, ring, (uint32_t)(ring - d->ring));
}

static int set_vring_call(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vu_ring *ring;
	int fd, err = ring_fd(d, m, &ring, &fd);

	if (err)
		return err;
	set_fd(&ring->call, fd);
	ring->signal = true;
	return 0;
}

static int set_vring_err(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vu_ring *ring;
	int fd, err = ring_fd(d, m, &ring, &fd);

	if (!err)
		set_fd(&ring->err, fd);
	return err;
}

/* ---- the rest ------------------------------------------------------------------------
 */

static int send_rarp(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	d->ops->rarp(d->owner, m->payload);
	return 0;
}

static int net_set_mtu(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	uint64_t mtu = msg_u64(m);

	if (mtu >= MIN_MTU && mtu <= d->mtu)
		return 0;
	fail(d, 0, "MTU %llu; the interface has %u", (unsigned long long)mtu, d->mtu);
	return REFUSED;
}

/* A channel for requests of ours. There are none: closed. */
static int set_backend_req_fd(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	return 0;
}

/* 0: the driver reset the device. */
static int set_status(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	d->status = (uint8_t)msg_u64(m);
	for (unsigned int i = 0; !d->status && i < VU_MAX_RINGS; i++)
		ring_stop(&d->ring[i]);
	return 0;
}

static int get_status(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	return reply_u64(r, m, d->status);
}

/* ---- the table ------------------------------------------------------------------------
 */

enum fds {
	FD_NONE,
	FD_ONE,
	FD_MAYBE, /* none or one */
	FD_MANY,  /* the handler counts */
};

#define QUIET 1 /* workers must not run what it changes */
#define SLOTS BIT(VU_P_CONFIGURE_MEM_SLOTS)

static const struct request {
	const char *name;
	int (*handle)(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);
	uint16_t min, max; /* payload, bytes */
	uint8_t fds;	   /* enum fds */
	uint8_t flags;
	uint64_t needs; /* protocol features, all of them */
} requests[VU_REQUEST_MAX] = {
#define R(id, ...) [VU_##id] = { #id, __VA_ARGS__ }
	R(GET_FEATURES, get_features, 0, 0, FD_NONE, 0, 0),
	R(SET_FEATURES, set_features, 8, 8, FD_NONE, QUIET, 0),
	R(SET_OWNER, set_owner, 0, 0, FD_NONE, 0, 0),
	R(RESET_OWNER, reset_owner, 0, 0, FD_NONE, QUIET, 0),
	R(SET_MEM_TABLE, set_mem_table, 8, VU_MAX_PAYLOAD, FD_MANY, QUIET, 0),
	R(SET_LOG_BASE, set_log_base, 16, 16, FD_ONE, QUIET, BIT(VU_P_LOG_SHMFD)),
	R(SET_LOG_FD, set_log_fd, 0, 8, FD_MAYBE, 0, 0),
	R(SET_VRING_NUM, set_vring_num, 8, 8, FD_NONE, QUIET, 0),
	R(SET_VRING_ADDR, set_vring_addr, 40, 40, FD_NONE, QUIET, 0),
	R(SET_VRING_BASE, set_vring_base, 8, 8, FD_NONE, QUIET, 0),
	R(GET_VRING_BASE, get_vring_base, 8, 8, FD_NONE, QUIET, 0),
	R(SET_VRING_KICK, set_vring_kick, 8, 8, FD_MAYBE, QUIET, 0),
	R(SET_VRING_CALL, set_vring_call, 8, 8, FD_MAYBE, QUIET, 0),
	R(SET_VRING_ERR, set_vring_err, 8, 8, FD_MAYBE, QUIET, 0),
	R(GET_PROTOCOL_FEATURES, get_protocol_features, 0, 0, FD_NONE, 0, 0),
	R(SET_PROTOCOL_FEATURES, set_protocol_features, 8, 8, FD_NONE, 0, 0),
	R(GET_QUEUE_NUM, get_queue_num, 0, 0, FD_NONE, 0, 0),
	R(SET_VRING_ENABLE, set_vring_enable, 8, 8, FD_NONE, QUIET, 0),
	R(SEND_RARP, send_rarp, 8, 8, FD_NONE, QUIET, BIT(VU_P_RARP)),
	R(NET_SET_MTU, net_set_mtu, 8, 8, FD_NONE, 0, BIT(VU_P_NET_MTU)),
	R(SET_BACKEND_REQ_FD, set_backend_req_fd, 0, 8, FD_ONE, 0, 0),
	R(GET_MAX_MEM_SLOTS, get_max_mem_slots, 0, 0, FD_NONE, 0, SLOTS),
	R(ADD_MEM_REG, add_mem_reg, 40, 40, FD_ONE, QUIET, SLOTS),
	R(REM_MEM_REG, rem_mem_reg, 40, 40, FD_MAYBE, QUIET, SLOTS),
	R(SET_STATUS, set_status, 8, 8, FD_NONE, QUIET, BIT(VU_P_STATUS)),
	R(GET_STATUS, get_status, 0, 0, FD_NONE, 0, BIT(VU_P_STATUS)),
#undef R
};

int vu_msg_header(struct vu_dev *d, struct vu_msg *m, const uint8_t hdr[VU_HDR_SIZE])
{
	memcpy(&m->request, hdr, 4);
	memcpy(&m->flags, hdr + 4, 4);
	memcpy(&m->size, hdr + 8, 4);
	if ((m->flags & VU_VERSION_MASK) != VU_VERSION || m->flags & VU_REPLY)
		return fail(d, -EPROTO, "a message with flags %#x", m->flags);
	if (m->size > VU_MAX_PAYLOAD)
		return fail(d, -EPROTO, "a message of %u bytes", m->size);
	return 0;
}

void vu_msg_close(struct vu_msg *m)
{
	for (unsigned int i = 0; i < m->nfds; i++)
		if (m->fd[i] >= 0)
			close(m->fd[i]);
	m->nfds = 0;
}

/* Is the message one of the table's, and formed as that says? */
static const struct request *check(struct vu_dev *d, const struct vu_msg *m)
{
	static const struct {
		unsigned int min, max;
	} limits[] = {
		[FD_NONE] = { 0, 0 },
		[FD_ONE] = { 1, 1 },
		[FD_MAYBE] = { 0, 1 },
		[FD_MANY] = { 0, VU_MAX_FDS },
	};
	const struct request *q =
		m->request < VU_REQUEST_MAX ? &requests[m->request] : NULL;

	if (!q || !q->handle) {
		fail(d, -EPROTO, "request %u is unknown", m->request);
		return NULL;
	}
	if ((d->protocol & q->needs) != q->needs) {
		fail(d, -EPROTO, "%s: its feature was not negotiated", q->name);
		return NULL;
	}
	if (m->size < q->min || m->size > q->max) {
		fail(d, -EPROTO, "%s: %u bytes", q->name, m->size);
		return NULL;
	}
	if (m->nfds < limits[q->fds].min || m->nfds > limits[q->fds].max) {
		fail(d, -EPROTO, "%s: %u descriptors", q->name, m->nfds);
		return NULL;
	}
	return q;
}

/* Put the request's name before the reason. */
static void name_failure(struct vu_dev *d, const char *name)
{
	char why[sizeof(d->why)];

	memcpy(why, d->why, sizeof(why));
	snprintf(d->why, sizeof(d->why), "%s: %.100s", name, why);
}

int vu_handle(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	const struct request *q = check(d, m);
	int err = -EPROTO;

	r->len = 0;
	if (!q)
		goto out;
	d->why[0] = '\0';
	if (q->flags & QUIET)
		d->ops->quiet(d->owner);
	err = q->handle(d, m, r);
	/* After a failure the state may be half of the new one: not for workers. */
	if (q->flags & QUIET && err >= 0)
		d->ops->go(d->owner);
	if (err)
		name_failure(d, q->name);
	if (err < 0) {
		r->len = 0;
		goto out;
	}
	/* Replies with content are their own acknowledgement. */
	if (m->flags & VU_NEED_REPLY && d->protocol & BIT(VU_P_REPLY_ACK) &&
	    r->len <= VU_HDR_SIZE)
		reply_u64(r, m, (uint64_t)err);
	err = 0;
out:
	vu_msg_close(m);
	return err;
}
