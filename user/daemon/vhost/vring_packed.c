// SPDX-License-Identifier: BSD-2-Clause
/*
 * vring_packed: packed virtqueues, virtio 1.2, section 2.8.
 *
 * One ring of descriptors that the guest fills and the device overwrites, each with its
 * own position; both turn a wrap counter at the ring's end. A descriptor is available
 * when its AVAIL bit is the guest's counter and its USED bit is not, used when both are
 * the device's. A position is 15 bits and the counter, as the event structures have it.
 *
 * A burst's used descriptors become visible by one store, the flags of the first: the
 * guest looks at them in ring order. In-order needs nothing here: a used descriptor for
 * each buffer is always allowed (2.8.7).
 *
 * Thread: vring.h.
 */
#include "vring_priv.h"

#define PREFETCH_AHEAD 8 /* descriptors: two cache lines */

static inline uint16_t advance(const struct vring *v, uint16_t pos, unsigned int n)
{
	unsigned int idx = (pos & ~WRAP) + n;

	if (idx < v->size)
		return (uint16_t)(pos + n);
	return (uint16_t)((idx - v->size) | (~pos & WRAP));
}

static inline uint16_t retreat(const struct vring *v, uint16_t pos, unsigned int n)
{
	unsigned int idx = pos & ~WRAP;

	if (idx >= n)
		return (uint16_t)(pos - n);
	return (uint16_t)((idx + v->size - n) | (~pos & WRAP));
}

static inline uint8_t *slot(const struct vring *v, uint16_t pos)
{
	return v->desc + (size_t)(pos & ~WRAP) * DESC_SIZE;
}

static inline bool is_avail(unsigned int flags, uint16_t pos)
{
	bool wrap = pos & WRAP;

	return !!(flags & DESC_AVAIL) == wrap && !!(flags & DESC_USED) != wrap;
}

/* Descriptors from @from to @to, at most one turn. */
static unsigned int distance(const struct vring *v, uint16_t from, uint16_t to)
{
	unsigned int d = (unsigned int)(to & ~WRAP) - (from & ~WRAP);

	return (from ^ to) & WRAP ? d + v->size : d;
}

int vring_packed_start(struct vring *v, uint32_t base)
{
	uint16_t avail = (uint16_t)base, used = (uint16_t)(base >> 16);

	if (!used)
		used = avail;
	if ((avail & ~WRAP) >= v->size || (used & ~WRAP) >= v->size ||
	    distance(v, used, avail) > v->size)
		return -EINVAL;
	v->published = v->used_next = v->next = v->seen = v->signalled = used;
	return 0;
}

static int take_table(struct vring *v, struct vring_vec *vec, struct vring_chain *c,
		      uint64_t gpa, uint32_t len)
{
	struct vring_table t;
	int err = vring_table_open(v, &t, gpa, len);

	/* 2.8.8: all entries, in order; of the flags only WRITE means anything. Ends
	 * early: each adds at least one buffer, and these are limited. */
	for (uint32_t i = 0; !err && i < t.n; i++) {
		uint64_t word[2];
		unsigned int flags;

		err = vring_table_read(v, &t, i, word);
		if (err)
			break;
		flags = (unsigned int)(word[1] >> 48);
		if (flags & DESC_INDIRECT)
			return vring_fail(v, "indirect descriptor in an indirect table");
		err = vring_add(v, vec, c, word[0], (uint32_t)word[1],
				flags & DESC_WRITE);
	}
	return err;
}

int vring_packed_take(struct vring *v, struct vring_vec *vec, struct vring_chain *c)
{
	uint16_t pos = v->next;
	unsigned int ndesc = 0;
	const uint8_t *d = slot(v, pos);
	/* The head's flags before all else of the chain; pairs with the guest's write
	 * barrier before it stores them, last of the chain. */
	unsigned int flags = rd16_acquire(d + 14);
	int err;

	if (!is_avail(flags, pos))
		return 0;
	if (v->size > PREFETCH_AHEAD)
		__builtin_prefetch(slot(v, advance(v, pos, PREFETCH_AHEAD)));
	for (;;) {
		uint64_t addr = rd64(d);
		uint32_t len = rd32(d + 8);

		if (unlikely(v->held + ++ndesc > v->size))
			return vring_fail(v,
					  "more descriptors available than the ring has");
		if (flags & DESC_INDIRECT) {
			if (flags & DESC_NEXT || ndesc > 1)
				return vring_fail(
					v, "indirect descriptor in a longer chain");
			err = take_table(v, vec, c, addr, len);
		} else {
			err = vring_add(v, vec, c, addr, len, flags & DESC_WRITE);
		}
		if (unlikely(err))
			return err;
		pos = advance(v, pos, 1);
		if (!(flags & DESC_NEXT))
			break;
		d = slot(v, pos);
		flags = rd16(d + 14);
		if (unlikely(!is_avail(flags, pos)))
			return vring_fail(v,
					  "chain runs into a descriptor not available");
	}
	c->id = rd16(d + 12);
	c->ndesc = (uint16_t)ndesc;
	v->next = pos;
	v->held = (uint16_t)(v->held + ndesc);
	if (v->back > ndesc) {
		v->back = (uint16_t)(v->back - ndesc);
	} else {
		v->back = 0;
		v->seen = pos;
	}
	return 1;
}

void vring_packed_untake(struct vring *v, uint32_t ndesc)
{
	v->next = retreat(v, v->next, ndesc);
	v->held = (uint16_t)(v->held - ndesc);
	v->back = (uint16_t)(v->back + ndesc);
}

void vring_packed_put(struct vring *v, const struct vring_chain *c, uint32_t written)
{
	uint8_t *d = slot(v, v->used_next);
	/* 2.8.4: with WRITE, the length is valid. */
	uint16_t flags = written ? DESC_WRITE : 0;

	if (v->used_next & WRAP)
		flags |= DESC_AVAIL | DESC_USED;
	wr32(d + 8, written);
	wr16(d + 12, c->id);
	if (v->used_next == v->published)
		v->first_flags = flags;
	else
		wr16(d + 14, flags);
	v->used_next = advance(v, v->used_next, c->ndesc);
}

void vring_packed_publish(struct vring *v)
{
	unsigned int n = distance(v, v->published, v->used_next);
	unsigned int start = v->published & ~WRAP;

	/* All other stores of the burst before this one; pairs with the guest's read
	 * barrier after it finds these flags used. */
	wr16_release(slot(v, v->published) + 14, v->first_flags);
	v->published = v->used_next;
	v->held = (uint16_t)(v->held - n);
	v->unsignalled += n;

	/* The used ring is the descriptor ring here. The front end's address for its log
	 * names the device event structure, so the memory table must do. */
	if (vring_logging(v)) {
		unsigned int tail = v->size - start < n ? v->size - start : n;
		uint64_t at = v->desc_gpa + (uint64_t)start * DESC_SIZE;

		if (v->conf.log_used) {
			dma_log_mark_front(v->log, at, (uint64_t)tail * DESC_SIZE);
			dma_log_mark_front(v->log, v->desc_gpa,
					   (uint64_t)(n - tail) * DESC_SIZE);
		}
		dma_log_mark_pair(v->log, at, (uint64_t)tail * DESC_SIZE);
		dma_log_mark_pair(v->log, v->desc_gpa, (uint64_t)(n - tail) * DESC_SIZE);
	}
}

bool vring_packed_should_notify(struct vring *v)
{
	uint16_t old = v->signalled & ~WRAP, new = v->published & ~WRAP;
	bool must = !v->signalled_valid || v->unsignalled > v->size;
	uint32_t event;
	uint16_t at;

	v->signalled = v->published;
	v->signalled_valid = true;
	v->unsignalled = 0;

	/* Our flags, then the guest's wish; pairs with the guest's barrier between its
	 * wish and its last look at the flags. */
	full_barrier();
	event = rd32(v->avail);
	switch (event >> 16 & 3) {
	case EVENT_DISABLE: return false;
	case EVENT_DESC:
		if (v->event_idx)
			break;
		return true;
	default: return true;
	}
	if (must)
		return true;
	/* Positions of this turn; those of the one before are negative. */
	at = event & ~WRAP & 0xffff;
	if ((event ^ v->published) & WRAP)
		at = (uint16_t)(at - v->size);
	if (new <= old)
		old = (uint16_t)(old - v->size);
	return passed(at, new, old);
}

bool vring_packed_set_wakeup(struct vring *v, bool on)
{
	uint32_t event = on ? EVENT_ENABLE << 16 : EVENT_DISABLE << 16;

	if (on && v->event_idx)
		event = EVENT_DESC << 16 | v->seen;
	else if (v->wakeup == on)
		goto look;
	/* Position and flags by one store: the guest never sees them mixed. */
	wr32(v->used, event);
	vring_log_used(v, 0, EVENT_SIZE);
	v->wakeup = on;
look:
	if (!on)
		return false;
	/* Our wish, then the guest's flags; pairs with the guest's barrier between its
	 * flags and its look at our wish. */
	full_barrier();
	return is_avail(rd16(slot(v, v->seen) + 14), v->seen);
}
