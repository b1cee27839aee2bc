// SPDX-License-Identifier: BSD-2-Clause
/*
 * vring: what both ring formats share: set-up, buffers, the dirty log.
 *
 * Addresses are translated one region at a time, and the region of the last address is
 * remembered: guests have few, and the buffers of a burst mostly lie in one.
 *
 * Thread: vring.h.
 */
#include <assert.h>
#include <stdlib.h>

#include "vring_priv.h"

/* ---- set-up ------------------------------------------------------------------------ */

/* Find the ring's three areas. Return: 0, -EINVAL; pointers untouched on failure */
static int map_ring(struct vring *v)
{
	const struct vring_conf *c = &v->conf;
	uint64_t avail_len = EVENT_SIZE, used_len = EVENT_SIZE;
	uint64_t desc_gpa, used_gpa;
	uint8_t *desc, *avail, *used;

	if (!c->packed) {
		/* With the event index at the end, which old guests leave room for too.
		 */
		avail_len = RING_ELEMS + (uint64_t)c->size * 2 + 2;
		used_len = RING_ELEMS + (uint64_t)c->size * 8 + 2;
	}
	desc = vu_mem_uva(v->mem, c->desc_uva, (uint64_t)c->size * DESC_SIZE, &desc_gpa);
	avail = vu_mem_uva(v->mem, c->avail_uva, avail_len, NULL);
	used = vu_mem_uva(v->mem, c->used_uva, used_len, &used_gpa);
	if (!desc || !avail || !used)
		return -EINVAL;
	/* virtio 1.2, 2.7 and 2.8.10.1; of the addresses here, where accesses are made.
	 */
	if ((uintptr_t)desc % DESC_SIZE || (uintptr_t)avail % (c->packed ? 4 : 2) ||
	    (uintptr_t)used % 4)
		return -EINVAL;
	v->desc = desc;
	v->avail = avail;
	v->used = used;
	v->desc_gpa = desc_gpa;
	v->used_gpa = used_gpa;
	v->hit = &v->mem->region[0];
	return 0;
}

int vring_create(const struct vring_conf *c, const struct vu_mem *mem,
		 struct dma_log *log, uint32_t base, struct vring **out)
{
	struct vring *v;
	int err;

	if (!c->size || c->size > VRING_MAX_SIZE)
		return -EINVAL;
	if (!c->packed && (c->size & (c->size - 1)))
		return -EINVAL;
	v = aligned_alloc(64, (sizeof(*v) + 63) & ~(size_t)63);
	if (!v)
		return -ENOMEM;
	*v = (struct vring){
		.mem = mem,
		.log = log,
		.size = c->size,
		.packed = c->packed,
		.event_idx = c->event_idx,
		.indirect = c->indirect,
		.wakeup = 2,
		.conf = *c,
	};
	err = map_ring(v);
	if (c->packed) {
		v->pend = calloc(c->size, sizeof(*v->pend));
		if (!v->pend)
			err = -ENOMEM;
	}
	if (!err)
		err = c->packed ? vring_packed_start(v, base)
				: vring_split_start(v, base);
	if (err) {
		free(v->pend);
		free(v);
		return err;
	}
	*out = v;
	return 0;
}

uint32_t vring_destroy(struct vring *v)
{
	uint32_t base;

	if (!v)
		return 0;
	base = v->published;
	if (v->packed)
		base |= base << 16;
	free(v->pend);
	free(v);
	return base;
}

void vring_forget(struct vring *v)
{
	if (v->conf.keep)
		v->conf.keep->version = 0;
}

int vring_remap(struct vring *v)
{
	int err = map_ring(v);

	/* Its old addresses are unmapped. */
	if (err)
		vring_fail(v, "ring outside guest memory");
	return err;
}

void vring_set_log(struct vring *v, bool log_used, uint64_t log_gpa)
{
	v->conf.log_used = log_used;
	v->conf.log_gpa = log_gpa;
}

const char *vring_broken(const struct vring *v)
{
	return v->broken;
}

/* ---- buffers ----------------------------------------------------------------------- */

/* What vring_add() does not do in line: another region, several of them, or an error. */
int vring_add_slow(struct vring *v, struct vring_vec *vec, struct vring_chain *c,
		   uint64_t gpa, uint32_t len, bool write)
{
	/* virtio allows no empty buffer to matter, and QEMU's own devices refuse it. */
	if (!len)
		return vring_fail(v, "empty buffer");
	while (len) {
		const struct vu_region *r = vu_mem_find(v->mem, gpa);
		uint32_t here = len;
		int err;

		if (!r)
			return vring_fail(v, "buffer outside guest memory");
		if (vec->n - c->first >= VRING_MAX_IOV)
			return vring_fail(v, "chain of too many buffers");
		if (vec->n >= vec->max)
			return -ENOBUFS;
		if (here > r->size - (gpa - r->gpa))
			here = (uint32_t)(r->size - (gpa - r->gpa));
		v->hit = r;
		err = vring_add(v, vec, c, gpa, here, write);
		if (err)
			return err;
		gpa += here;
		len -= here;
	}
	return 0;
}

int vring_table_open(struct vring *v, struct vring_table *t, uint64_t gpa, uint32_t len)
{
	const struct vu_region *r = v->hit;

	if (!v->indirect)
		return vring_fail(v, "indirect descriptor was not negotiated");
	if (!len || len % DESC_SIZE || len > UINT64_MAX - gpa)
		return vring_fail(v, "indirect table of a wrong size");
	if (gpa - r->gpa >= r->size)
		r = vu_mem_find(v->mem, gpa);
	if (!r)
		return vring_fail(v, "indirect table outside guest memory");
	*t = (struct vring_table){
		.gpa = gpa,
		.p = r->base + (gpa - r->gpa),
		.here = r->size - (gpa - r->gpa),
		.n = len / DESC_SIZE,
	};
	if (t->here > len)
		t->here = len;
	return 0;
}

/* An entry behind, or across, the border of a region. Byte by byte, each read once. */
int vring_table_read_slow(struct vring *v, const struct vring_table *t, uint32_t i,
			  uint64_t word[2])
{
	uint64_t gpa = t->gpa + (uint64_t)i * DESC_SIZE;

	word[0] = word[1] = 0;
	for (unsigned int b = 0; b < DESC_SIZE; b++) {
		uint64_t one = 1;
		const volatile uint8_t *p = vu_mem_gpa(v->mem, gpa + b, &one);

		if (!p)
			return vring_fail(v, "indirect table outside guest memory");
		word[b / 8] |= (uint64_t)*p << b % 8 * 8;
	}
	return 0;
}

/* The first @written bytes of a chain's writable buffers are new. */
static void mark_written(struct dma_log *log, const struct vring_vec *vec,
			 const struct vring_chain *c, uint64_t written)
{
	for (uint32_t i = c->first + c->nout; written; i++) {
		uint64_t n = vec->iov[i].iov_len;

		if (n > written)
			n = written;
		dma_log_mark(log, vec->gpa[i], n);
		written -= n;
	}
}

/* ---- the ring ---------------------------------------------------------------------- */

int vring_take(struct vring *v, struct vring_vec *vec, struct vring_chain *c)
{
	unsigned int n = vec->n;
	int r;

	if (unlikely(v->broken))
		return -EPROTO;
	c->nout = c->nin = 0;
	c->first = n;
	c->out_len = c->in_len = 0;
	r = v->packed ? vring_packed_take(v, vec, c) : vring_split_take(v, vec, c);
	if (unlikely(r < 0))
		vec->n = n;
	return r;
}

void vring_untake(struct vring *v, struct vring_vec *vec, const struct vring_chain *c,
		  unsigned int n)
{
	uint32_t ndesc = 0;

	vec->n = c[0].first;
	if (!v->packed) {
		v->next = (uint16_t)(v->next - n);
		return;
	}
	for (unsigned int i = 0; i < n; i++)
		ndesc += c[i].ndesc;
	vring_packed_untake(v, ndesc);
}

void vring_spoil(struct vring *v, const struct vring_vec *vec,
		 const struct vring_chain *c, uint32_t written)
{
	if (vring_logging(v))
		mark_written(v->log, vec, c, written);
}

void vring_put(struct vring *v, const struct vring_vec *vec, const struct vring_chain *c,
	       uint32_t written)
{
	assert(written <= c->in_len);
	/* Also when the ring broke meanwhile: the data has been written. */
	if (vring_logging(v))
		mark_written(v->log, vec, c, written);
	if (unlikely(v->broken))
		return;
	if (v->packed)
		vring_packed_put(v, c, written);
	else
		vring_split_put(v, c->id, written);
}

void vring_publish(struct vring *v)
{
	if (unlikely(v->broken) || v->published == v->used_next)
		return;
	if (v->packed)
		vring_packed_publish(v);
	else
		vring_split_publish(v);
}

bool vring_should_notify(struct vring *v)
{
	if (unlikely(v->broken) || !v->unsignalled)
		return false;
	return v->packed ? vring_packed_should_notify(v) : vring_split_should_notify(v);
}

bool vring_set_wakeup(struct vring *v, bool on)
{
	if (unlikely(v->broken))
		return false;
	return v->packed ? vring_packed_set_wakeup(v, on) : vring_split_set_wakeup(v, on);
}
