// SPDX-License-Identifier: BSD-2-Clause
/*
 * vring_split: split virtqueues, virtio 1.2, section 2.7.
 *
 * Indexes are free-running 16-bit numbers; the ring's size is a power of two, so index
 * modulo size is a slot. In-order needs nothing here: an entry for each buffer is always
 * allowed (2.7.9).
 *
 * Thread: vring.h.
 */
#include "vring_priv.h"

#define PREFETCH_AHEAD 4 /* chains */

static inline uint8_t *slot(const struct vring *v, uint8_t *ring, uint16_t idx,
			    unsigned int bytes)
{
	return ring + RING_ELEMS + (size_t)(idx & (v->size - 1)) * bytes;
}

int vring_split_start(struct vring *v, uint32_t base)
{
	if (base > UINT16_MAX)
		return -EINVAL;
	/* What the guest has got back is a fact in its memory; @base may be ahead. */
	v->published = rd16(v->used + RING_IDX);
	v->used_next = v->next = v->seen = v->signalled = v->published;
	return 0;
}

/* How far has the guest come? Return: 1: further, 0: not, -EPROTO */
static int look(struct vring *v)
{
	/* Pairs with the guest's write barrier before it stores the index: its ring
	 * entries and descriptors are read after this. */
	uint16_t idx = rd16_acquire(v->avail + RING_IDX);

	if (idx == v->next)
		return 0;
	/* Beyond the slots that were given back, or backwards. */
	if ((uint16_t)(idx - v->next) > v->size - (uint16_t)(v->next - v->published))
		return vring_fail(v, "available index jumped");
	v->seen = idx;
	return 1;
}

static int take_table(struct vring *v, struct vring_vec *vec, struct vring_chain *c,
		      uint64_t gpa, uint32_t len)
{
	struct vring_table t;
	uint32_t i = 0;
	int err = vring_table_open(v, &t, gpa, len);

	/* Ends: each entry adds at least one buffer, and these are limited. */
	while (!err) {
		uint64_t word[2];
		unsigned int flags;

		err = vring_table_read(v, &t, i, word);
		if (err)
			break;
		flags = (uint16_t)(word[1] >> 32);
		if (flags & DESC_INDIRECT)
			return vring_fail(v, "indirect descriptor in an indirect table");
		err = vring_add(v, vec, c, word[0], (uint32_t)word[1],
				flags & DESC_WRITE);
		if (err || !(flags & DESC_NEXT))
			break;
		i = (uint32_t)(word[1] >> 48);
		if (i >= t.n)
			return vring_fail(v,
					  "next descriptor outside the indirect table");
	}
	return err;
}

int vring_split_take(struct vring *v, struct vring_vec *vec, struct vring_chain *c)
{
	unsigned int ndesc = 0;
	uint16_t i;
	int err;

	if (v->next == v->seen) {
		err = look(v);
		if (err <= 0)
			return err;
	}
	if ((uint16_t)(v->seen - v->next) > PREFETCH_AHEAD) {
		i = rd16(slot(v, v->avail, (uint16_t)(v->next + PREFETCH_AHEAD), 2));
		__builtin_prefetch(v->desc + (size_t)(i & (v->size - 1)) * DESC_SIZE);
	}

	i = rd16(slot(v, v->avail, v->next, 2));
	c->id = i;
	for (;;) {
		const uint8_t *d = v->desc + (size_t)i * DESC_SIZE;
		uint64_t addr, rest;
		unsigned int flags;

		if (unlikely(i >= v->size))
			return vring_fail(v, "descriptor index outside the ring");
		if (unlikely(ndesc++ == v->size))
			return vring_fail(v, "descriptors form a loop");
		addr = rd64(d);
		rest = rd64(d + 8);
		flags = (uint16_t)(rest >> 32);
		if (flags & DESC_INDIRECT) {
			if (flags & DESC_NEXT)
				return vring_fail(v,
						  "indirect descriptor with a next one");
			err = take_table(v, vec, c, addr, (uint32_t)rest);
			if (err)
				return err;
			break;
		}
		err = vring_add(v, vec, c, addr, (uint32_t)rest, flags & DESC_WRITE);
		if (unlikely(err))
			return err;
		if (!(flags & DESC_NEXT))
			break;
		i = (uint16_t)(rest >> 48);
	}
	c->ndesc = (uint16_t)ndesc;
	v->next++;
	return 1;
}

void vring_split_put(struct vring *v, uint16_t id, uint32_t written)
{
	uint8_t *e = slot(v, v->used, v->used_next, 8);

	wr32(e, id);
	wr32(e + 4, written);
	v->used_next++;
}

void vring_split_publish(struct vring *v)
{
	uint16_t n = (uint16_t)(v->used_next - v->published);
	uint16_t start = v->published & (v->size - 1);

	/* Entries and buffers before the index; pairs with the guest's read barrier after
	 * it loads the index. */
	wr16_release(v->used + RING_IDX, v->used_next);
	v->published = v->used_next;
	v->unsignalled += n;

	if (vring_logging(v)) {
		unsigned int tail = v->size - start < n ? v->size - start : n;

		vring_log_used(v, RING_IDX, 2);
		vring_log_used(v, RING_ELEMS + (uint64_t)start * 8, (uint64_t)tail * 8);
		vring_log_used(v, RING_ELEMS, (uint64_t)(n - tail) * 8);
	}
}

bool vring_split_should_notify(struct vring *v)
{
	uint16_t old = v->signalled, event;
	/* A whole turn of the index, or no turn known: there is nothing to compare. */
	bool must = !v->signalled_valid || v->unsignalled > UINT16_MAX;

	v->signalled = v->published;
	v->signalled_valid = true;
	v->unsignalled = 0;

	/* Our index, then the guest's wish; pairs with the guest's barrier between its
	 * wish and its last look at the index. */
	full_barrier();
	if (!v->event_idx)
		return !(rd16(v->avail + RING_FLAGS) & NO_NOTICE);
	event = rd16(v->avail + RING_ELEMS + (size_t)v->size * 2);
	return must || passed(event, v->published, old);
}

bool vring_split_set_wakeup(struct vring *v, bool on)
{
	if (v->event_idx) {
		uint64_t off = RING_ELEMS + (uint64_t)v->size * 8;

		/* Without a wish the guest kicks once in 65536 chains. */
		if (!on)
			return false;
		wr16(v->used + off, v->seen);
		vring_log_used(v, off, 2);
	} else if (v->wakeup != on) {
		wr16(v->used + RING_FLAGS, on ? 0 : NO_NOTICE);
		vring_log_used(v, RING_FLAGS, 2);
	}
	v->wakeup = on;
	if (!on)
		return false;
	/* Our wish, then the guest's index; pairs with the guest's barrier between its
	 * index and its look at our wish. */
	full_barrier();
	return rd16(v->avail + RING_IDX) != v->seen;
}
