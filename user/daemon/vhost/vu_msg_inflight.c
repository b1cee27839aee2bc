// SPDX-License-Identifier: BSD-2-Clause
/*
 * vu_proto: where rings are kept for the next back end. Contract in vu_msg.h.
 *
 * The front end asks for a region once, holds it, and gives it to each back end. Its
 * layout is the back end's matter: a struct vring_keep for each ring. A split ring needs
 * none: it goes on from the used index in guest memory, and no chain is ever given back
 * out of order. Front ends without a region: vu_keep.h.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "vu_keep.h"
#include "vu_msg.h"

struct inflight {
	uint64_t size, offset; /* of the region, bytes */
	uint16_t rings, descs;
	uint32_t pad;
};

static struct inflight parse(const struct vu_msg *m)
{
	struct inflight f = { 0 };

	memcpy(&f, m->payload, m->size);
	return f;
}

static bool plausible(const struct inflight *f)
{
	return f->rings && f->rings <= VU_MAX_RINGS && f->descs &&
	       f->descs <= VRING_MAX_SIZE;
}

int vu_get_inflight_fd(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct inflight f = parse(m);
	int fd;

	if (!plausible(&f))
		return vu_fail(d, -EPROTO, "%u rings of %u descriptors", f.rings,
			       f.descs);
	f.size = f.rings * vring_keep_bytes(f.descs);
	f.offset = 0;
	fd = memfd_create("ghostnic-inflight", MFD_CLOEXEC);
	if (fd < 0)
		return vu_fail(d, -errno, "no memory file");
	if (ftruncate(fd, (off_t)f.size)) {
		int err = -errno;

		close(fd);
		return vu_fail(d, err, "no memory of %llu bytes",
			       (unsigned long long)f.size);
	}
	vu_reply_with(r, m, &f, m->size);
	r->fd = fd;
	return 0;
}

int vu_set_inflight_fd(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct inflight f = parse(m);
	struct vu_map map = { 0 };
	int err;

	if (!plausible(&f) || f.offset % 8 ||
	    f.size < f.rings * vring_keep_bytes(f.descs))
		return vu_fail(d, -EPROTO, "%u rings of %u descriptors in %llu bytes",
			       f.rings, f.descs, (unsigned long long)f.size);
	for (unsigned int i = 0; i < VU_MAX_RINGS; i++)
		if (d->ring[i].vring)
			return vu_fail(d, -EPROTO, "ring %u runs", i);
	err = vu_map_create(&map, m->fd[0], f.offset, f.size, &d->inflight_broken);
	if (err)
		return vu_fail(d, err, "%llu bytes at %llu: %s",
			       (unsigned long long)f.size, (unsigned long long)f.offset,
			       strerror(-err));
	vu_map_destroy(&d->inflight);
	d->inflight = map;
	d->inflight_rings = f.rings;
	d->inflight_size = f.descs;
	return 0;
}

struct vring_keep *vu_ring_keep(struct vu_dev *d, uint32_t index)
{
	struct vu_ring *ring = &d->ring[index];
	uint16_t size = ring->conf.size;

	if (index < d->inflight_rings && size <= d->inflight_size)
		return (struct vring_keep *)(d->inflight.base +
					     index * vring_keep_bytes(d->inflight_size));
	for (unsigned int i = 0; i < d->mem.nregions; i++) {
		const struct vu_region *g = &d->mem.region[i];
		uint64_t off = ring->conf.desc_uva - g->uva;
		const struct vu_keep_id id = { g->dev, g->ino, g->offset + off };

		if (off < g->size) {
			ring->own = vu_keep_take(&id, size);
			return ring->own;
		}
	}
	return NULL;
}
