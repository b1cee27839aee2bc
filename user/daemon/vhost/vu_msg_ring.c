// SPDX-License-Identifier: BSD-2-Clause
/* vu_proto: messages about one ring. Contract in vu_msg.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <string.h>
#include <sys/stat.h>

#include "vu_keep.h"
#include "vu_msg.h"

static struct vu_ring *find_ring(struct vu_dev *d, uint32_t index)
{
	if (index < VU_MAX_RINGS)
		return &d->ring[index];
	vu_fail(d, -EPROTO, "ring %u of %u", index, VU_MAX_RINGS);
	return NULL;
}

/* A ring that must not run, for @m; NULL: refused. */
static struct vu_ring *stopped_ring(struct vu_dev *d, const struct vhost_vring_state *s)
{
	struct vu_ring *r = find_ring(d, s->index);

	if (!r || !r->vring)
		return r;
	vu_fail(d, -EPROTO, "ring %u runs", s->index);
	return NULL;
}

static struct vhost_vring_state msg_state(const struct vu_msg *m)
{
	struct vhost_vring_state s;

	memcpy(&s, m->payload, sizeof(s));
	return s;
}

int vu_set_vring_num(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vhost_vring_state s = msg_state(m);
	struct vu_ring *ring = stopped_ring(d, &s);

	if (!ring)
		return -EPROTO;
	if (!s.num || s.num > VRING_MAX_SIZE)
		return vu_fail(d, -EPROTO, "ring %u of %u descriptors", s.index, s.num);
	ring->conf.size = (uint16_t)s.num;
	return 0;
}

int vu_set_vring_base(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
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
		return vu_fail(d, -EPROTO, "ring %u starts without size or addresses",
			       index);
	c->packed = d->features & BIT(VIRTIO_F_RING_PACKED);
	c->event_idx = d->features & BIT(VIRTIO_RING_F_EVENT_IDX);
	c->indirect = d->features & BIT(VIRTIO_RING_F_INDIRECT_DESC);
	c->in_order = d->features & BIT(VIRTIO_F_IN_ORDER);
	c->keep = c->packed ? vu_ring_keep(d, index) : NULL;
	err = vring_create(c, &d->mem, &d->log, ring->base, &ring->vring);
	if (!err)
		return 0;
	vu_keep_give(ring->own);
	ring->own = NULL;
	return vu_fail(d, err, "ring %u: size, base or addresses: %s", index,
		       strerror(-err));
}

/* While the ring runs the log's part may change, and addresses with a restart. */
int vu_set_vring_addr(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
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
	vring_forget(ring->vring);
	ring->base = vring_destroy(ring->vring);
	ring->vring = NULL;
	vu_keep_give(ring->own);
	ring->own = NULL;
	return ring_start(d, ring, a.index);
}

/* The ring stops; nothing of the guest's memory is written for it after the reply. */
int vu_get_vring_base(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vhost_vring_state s = msg_state(m);
	struct vu_ring *ring = find_ring(d, s.index);

	if (!ring)
		return -EPROTO;
	vu_ring_end(ring);
	s.num = ring->base;
	vu_reply_with(r, m, &s, sizeof(s));
	return 0;
}

int vu_set_vring_enable(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vhost_vring_state s = msg_state(m);
	struct vu_ring *ring = find_ring(d, s.index);

	if (!ring)
		return -EPROTO;
	if (s.num > 1)
		return vu_fail(d, -EPROTO, "enable ring %u with %u", s.index, s.num);
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
	uint64_t v = vu_msg_u64(m);
	struct stat st;
	int flags;

	*ring = find_ring(d, (uint32_t)(v & VU_VRING_INDEX));
	if (!*ring)
		return -EPROTO;
	if (v & ~(uint64_t)(VU_VRING_INDEX | VU_VRING_NOFD) ||
	    !!(v & VU_VRING_NOFD) == !!m->nfds)
		return vu_fail(d, -EPROTO, "payload %#llx with %u descriptors",
			       (unsigned long long)v, m->nfds);
	*fd = -1;
	if (!m->nfds)
		return 0;
	flags = fcntl(m->fd[0], F_GETFL);
	if (flags < 0 || fstat(m->fd[0], &st) || st.st_mode & S_IFMT ||
	    fcntl(m->fd[0], F_SETFL, flags | O_NONBLOCK))
		return vu_fail(d, -EPROTO, "the descriptor is not an eventfd");
	*fd = vu_take_fd(m, 0);
	return 0;
}

int vu_set_vring_kick(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vu_ring *ring;
	int fd, err = ring_fd(d, m, &ring, &fd);

	if (err)
		return err;
	if (fd < 0)
		return vu_fail(d, -EPROTO, "a ring without kicks, to be polled");
	vu_set_fd(&ring->kick, fd);
	return ring->vring ? 0 : ring_start(d, ring, (uint32_t)(ring - d->ring));
}

int vu_set_vring_call(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vu_ring *ring;
	int fd, err = ring_fd(d, m, &ring, &fd);

	if (err)
		return err;
	vu_set_fd(&ring->call, fd);
	ring->signal = true;
	return 0;
}

int vu_set_vring_err(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vu_ring *ring;
	int fd, err = ring_fd(d, m, &ring, &fd);

	if (!err)
		vu_set_fd(&ring->err, fd);
	return err;
}
