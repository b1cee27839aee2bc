// SPDX-License-Identifier: BSD-2-Clause
/*
 * vring_packed: packed virtqueues, virtio 1.2, section 2.8.
 *
 * One ring of descriptors that the guest fills and the device overwrites, each with its
 * own position; both turn a wrap counter at the ring's end. A descriptor is available
 * when its AVAIL bit is the guest's counter and its USED bit is not, used when both are
 * the device's. A position is 15 bits and the counter, as the event structures have it.
 *
 * Nothing of a burst is in the ring before it is published: a back end that dies leaves
 * descriptors as the guest wrote them (vring_keep.h). A burst becomes visible by one
 * store, the flags of the first used descriptor: the guest looks at them in ring order.
 * In-order needs nothing here: a used descriptor for each buffer is always allowed
 * (2.8.7).
 *
 * Thread: vring.h.
 */
#include <string.h>

#include "vring_priv.h"

#define PREFETCH_AHEAD 8 /* descriptors: two cache lines */

/* In our event structure's position, which means something with EVENT_DESC only (2.8.14):
 * so that the structure is not zero, see vring_keep.h. */
#define EVENT_MARK 0x6e67U

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

/* ---- the position that outlives us ---------------------------------------------------
 */

/* Is the newest used descriptor still there, or a later one of the guest's in its place?
 */
static bool fits(const struct vring *v, uint16_t last, uint64_t addr, uint16_t used)
{
	const uint8_t *d = slot(v, last);
	unsigned int flags = rd16(d + 14);
	bool wrap = last & WRAP;

	if (!!(flags & DESC_AVAIL) == wrap && !!(flags & DESC_USED) == wrap)
		return rd64(d) == addr;
	/* The guest has come round: then all from the position on is available. */
	return is_avail(flags, last ^ WRAP) && is_avail(rd16(slot(v, used) + 14), used);
}

/*
 * Take the notes of a burst that may be half in the ring. Return: false: they are none
 * of this ring's
 */
static bool take_notes(struct vring *v, const struct vring_keep *k, uint64_t notes)
{
	uint32_t total = 0;

	if (notes > v->size || rd64(slot(v, v->published)) != k->addr)
		return false;
	for (uint32_t i = 0; i < notes; i++) {
		v->pend[i] = k->note[i];
		total += v->pend[i].ndesc;
		if (!v->pend[i].ndesc || total > v->size)
			return false;
	}
	v->npend = (uint16_t)notes;
	v->held = (uint16_t)total;
	v->used_next = advance(v, v->published, total);
	return true;
}

/* Go on where the one before us was. Return: false: it left nothing that fits */
static bool resume(struct vring *v, const struct vring_keep *k)
{
	uint64_t state = k->state, notes = state >> 32;
	uint16_t used = (uint16_t)state, last = k->last;

	/* Zero: the driver has set the ring up since. */
	if (k->version != VRING_KEEP_VERSION || k->size != v->size || !rd32(v->used) ||
	    (used & ~WRAP) >= v->size || (last & ~WRAP) >= v->size)
		return false;
	if (!notes && !fits(v, last, k->last_addr, used))
		return false;
	v->published = v->used_next = used;
	return !notes || take_notes(v, k, notes);
}

int vring_packed_start(struct vring *v, uint32_t base)
{
	uint16_t avail = (uint16_t)base, used = (uint16_t)(base >> 16);
	struct vring_keep *k = v->conf.keep;

	if (!used)
		used = avail;
	if ((avail & ~WRAP) >= v->size || (used & ~WRAP) >= v->size ||
	    distance(v, used, avail) > v->size)
		return -EINVAL;
	if (k && resume(v, k)) {
		if (v->npend)
			vring_packed_publish(v);
	} else {
		v->published = v->used_next = used;
		v->npend = v->held = 0;
		/* From the first publication on there is something to keep. */
		if (k) {
			k->version = 0;
			k->size = v->size;
		}
	}
	/* It asked for all kicks, and still does. */
	if (k && !rd32(v->used)) {
		wr32(v->used, EVENT_ENABLE << 16 | EVENT_MARK);
		vring_log_used(v, 0, EVENT_SIZE);
	}
	v->next = v->seen = v->signalled = v->published;
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
	v->pend[v->npend++] = (struct vring_note){ c->id, c->ndesc, written };
	v->used_next = advance(v, v->used_next, c->ndesc);
}

/* Before the burst's first store to the ring, after its last one. Another process reads
 * this, when ours is gone: its stores must have been made in this order, no more. */
static void keep_notes(struct vring *v, struct vring_keep *k)
{
	memcpy(k->note, v->pend, v->npend * sizeof(k->note[0]));
	k->addr = rd64(slot(v, v->published));
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	__atomic_store_n(&k->state, (uint64_t)v->npend << 32 | v->published,
			 __ATOMIC_RELAXED);
	k->version = VRING_KEEP_VERSION;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static void keep_position(struct vring *v, struct vring_keep *k, uint16_t last)
{
	k->last = last;
	k->last_addr = rd64(slot(v, last));
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	__atomic_store_n(&k->state, v->used_next, __ATOMIC_RELAXED);
}

/* All but what makes it visible. Return: where the last one is */
static uint16_t write_used(struct vring *v, uint16_t *first_flags)
{
	uint16_t pos = v->published, last = pos;

	for (unsigned int i = 0; i < v->npend; i++) {
		const struct vring_note *u = &v->pend[i];
		uint8_t *d = slot(v, pos);
		/* 2.8.4: with WRITE, the length is valid. */
		uint16_t flags = u->written ? DESC_WRITE : 0;

		if (pos & WRAP)
			flags |= DESC_AVAIL | DESC_USED;
		wr32(d + 8, u->written);
		wr16(d + 12, u->id);
		if (i)
			wr16(d + 14, flags);
		else
			*first_flags = flags;
		last = pos;
		pos = advance(v, pos, u->ndesc);
	}
	return last;
}

void vring_packed_publish(struct vring *v)
{
	unsigned int n = distance(v, v->published, v->used_next);
	unsigned int start = v->published & ~WRAP;
	struct vring_keep *k = v->conf.keep;
	uint16_t first_flags = 0, last;

	if (k)
		keep_notes(v, k);
	last = write_used(v, &first_flags);
	/* All other stores of the burst before this one; pairs with the guest's read
	 * barrier after it finds these flags used. */
	wr16_release(slot(v, v->published) + 14, first_flags);
	if (k)
		keep_position(v, k, last);
	v->published = v->used_next;
	v->npend = 0;
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
	uint32_t event = (on ? EVENT_ENABLE : EVENT_DISABLE) << 16 | EVENT_MARK;

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
