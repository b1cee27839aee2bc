// SPDX-License-Identifier: BSD-2-Clause
/* driver: see driver.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "driver.h"

#define F_NEXT	   1
#define F_WRITE	   2
#define F_INDIRECT 4
#define F_AVAIL	   0x80
#define F_USED	   0x8000

struct desc { /* split */
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct pdesc { /* packed */
	uint64_t addr;
	uint32_t len;
	uint16_t id, flags;
};

#define LOAD(p)	    __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define STORE(p, x) __atomic_store_n(p, x, __ATOMIC_RELEASE)
#define PLAIN(p, x) __atomic_store_n(p, x, __ATOMIC_RELAXED)

/* The driver's own barrier between its store and its load. An exchange, which also a
 * thread sanitizer understands. */
static void barrier(void)
{
	static int x;

	__atomic_exchange_n(&x, 1, __ATOMIC_SEQ_CST);
}

/* ---- memory ---------------------------------------------------------------------- */

void guest_init(struct guest *g, bool shared)
{
	static const uint64_t gpa[] = { GUEST_DATA, GUEST_DATA + GUEST_DATA_A,
					GUEST_DATA + GUEST_DATA_A + GUEST_DATA_B,
					GUEST_RING };
	static const uint64_t size[] = { GUEST_DATA_A, GUEST_DATA_B, GUEST_DATA_C,
					 GUEST_RING_LEN };

	memset(g, 0, sizeof(*g));
	for (unsigned int i = 0; i < GUEST_REGIONS; i++) {
		struct guest_region *r = &g->region[i];
		void *p;

		r->gpa = gpa[i];
		r->size = size[i];
		r->fd = memfd_create("guest", MFD_CLOEXEC);
		assert_return_code(r->fd, errno);
		assert_return_code(ftruncate(r->fd, (off_t)r->size), errno);
		assert_int_equal(vu_mem_add(&g->mem, r->gpa, GUEST_UVA + r->gpa, r->size,
					    0, r->fd),
				 0);
		p = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
		assert_ptr_not_equal(p, MAP_FAILED);
		if (shared) {
			uint64_t len = r->size;

			munmap(p, r->size);
			p = vu_mem_gpa(&g->mem, r->gpa, &len);
		}
		r->base = p;
	}
}

void guest_fini(struct guest *g)
{
	for (unsigned int i = 0; i < GUEST_REGIONS; i++) {
		uint64_t len = 1;

		if (g->region[i].base != vu_mem_gpa(&g->mem, g->region[i].gpa, &len))
			munmap(g->region[i].base, g->region[i].size);
		close(g->region[i].fd);
	}
	vu_mem_clear(&g->mem);
}

static uint8_t *at(const struct guest *g, uint64_t gpa, uint64_t *len)
{
	for (unsigned int i = 0; i < GUEST_REGIONS; i++) {
		const struct guest_region *r = &g->region[i];

		if (gpa < r->gpa || gpa >= r->gpa + r->size)
			continue;
		if (*len > r->gpa + r->size - gpa)
			*len = r->gpa + r->size - gpa;
		return r->base + (gpa - r->gpa);
	}
	fail_msg("guest address %llx", (unsigned long long)gpa);
	return NULL;
}

void *guest_ptr(const struct guest *g, uint64_t gpa, uint64_t len)
{
	uint64_t here = len;
	void *p = at(g, gpa, &here);

	assert_int_equal(here, len);
	return p;
}

void guest_write(const struct guest *g, uint64_t gpa, const void *buf, uint64_t len)
{
	const uint8_t *src = buf;

	while (len) {
		uint64_t n = len;
		uint8_t *p = at(g, gpa, &n);

		memcpy(p, src, n);
		gpa += n;
		src += n;
		len -= n;
	}
}

void guest_read(const struct guest *g, uint64_t gpa, void *buf, uint64_t len)
{
	uint8_t *dst = buf;

	while (len) {
		uint64_t n = len;
		const uint8_t *p = at(g, gpa, &n);

		memcpy(dst, p, n);
		gpa += n;
		dst += n;
		len -= n;
	}
}

/* ---- set-up ---------------------------------------------------------------------- */

void driver_init(struct driver *d, struct guest *g, const struct vring_conf *c)
{
	uint64_t size = c->size;

	memset(d, 0, sizeof(*d));
	d->g = g;
	d->conf = *c;
	d->desc = GUEST_RING;
	d->avail = d->desc + size * 16;
	d->used = (d->avail + 6 + size * 2 + 3) & ~3ULL;
	if (c->packed) {
		d->avail = d->desc + size * 16;
		d->used = d->avail + 4;
	}
	memset(guest_ptr(g, d->desc, size * 32 + 64), 0, size * 32 + 64);
	d->slot = calloc(size, sizeof(struct driver_slot));
	d->free = calloc(size, sizeof(uint16_t));
	d->fifo = calloc(size, sizeof(uint16_t));
	assert_true(d->slot && d->free && d->fifo);
	for (uint16_t i = 0; i < c->size; i++)
		d->free[i] = i;
	d->nfree = d->nids = c->size;
	d->wrap = d->used_wrap = true;
}

void driver_fini(struct driver *d)
{
	free(d->slot);
	free(d->free);
	free(d->fifo);
}

struct vring_conf driver_conf(const struct driver *d)
{
	struct vring_conf c = d->conf;

	c.desc_uva = GUEST_UVA + d->desc;
	c.avail_uva = GUEST_UVA + d->avail;
	c.used_uva = GUEST_UVA + d->used;
	return c;
}

static struct desc *desc_at(const struct driver *d, uint16_t i)
{
	return guest_ptr(d->g, d->desc + i * 16ULL, 16);
}

static struct pdesc *pdesc_at(const struct driver *d, uint16_t i)
{
	return guest_ptr(d->g, d->desc + i * 16ULL, 16);
}

static uint16_t *half(const struct driver *d, uint64_t gpa)
{
	return guest_ptr(d->g, gpa, 2);
}

static void push_fifo(struct driver *d, uint16_t id, uint16_t ndesc, uint64_t cookie)
{
	assert_false(d->slot[id].busy);
	d->slot[id] =
		(struct driver_slot){ .cookie = cookie, .ndesc = ndesc, .busy = true };
	d->fifo[d->fifo_tail++ % d->conf.size] = id;
	d->nfree = (uint16_t)(d->nfree - ndesc);
	d->outstanding++;
}

/* ---- split ----------------------------------------------------------------------- */

static void write_table(struct driver *d, const struct driver_buf *buf, unsigned int nout,
			unsigned int n, uint64_t table)
{
	for (unsigned int i = 0; i < n; i++) {
		struct desc t = { .addr = buf[i].gpa, .len = buf[i].len };
		struct pdesc p = { .addr = buf[i].gpa, .len = buf[i].len };

		t.flags =
			(uint16_t)((i + 1 < n ? F_NEXT : 0) | (i >= nout ? F_WRITE : 0));
		t.next = (uint16_t)(i + 1);
		/* 2.8.8: NEXT and the id mean nothing here. */
		p.flags = i >= nout ? F_WRITE : 0;
		p.id = 0xbad;
		if (d->conf.packed)
			guest_write(d->g, table + i * 16ULL, &p, 16);
		else
			guest_write(d->g, table + i * 16ULL, &t, 16);
	}
}

static uint16_t take_desc(struct driver *d, unsigned int left)
{
	uint16_t i;

	if (!d->conf.in_order)
		return d->free[left - 1];
	i = d->next_desc;
	d->next_desc = (uint16_t)((i + 1) % d->conf.size);
	return i;
}

static int split_add(struct driver *d, const struct driver_buf *buf, unsigned int nout,
		     unsigned int n, uint64_t table, uint64_t cookie)
{
	unsigned int ndesc = table ? 1 : n;
	uint16_t head = 0, *prev_next = NULL;

	if (ndesc > d->nfree)
		return -ENOSPC;
	for (unsigned int k = 0; k < ndesc; k++) {
		uint16_t i = take_desc(d, d->nfree - k);
		struct desc *p = desc_at(d, i);

		if (k)
			PLAIN(prev_next, i);
		else
			head = i;
		PLAIN(&p->addr, table ? table : buf[k].gpa);
		PLAIN(&p->len, table ? n * 16 : buf[k].len);
		PLAIN(&p->flags, (uint16_t)(table ? F_INDIRECT
						  : (k + 1 < n ? F_NEXT : 0) |
							    (k >= nout ? F_WRITE : 0)));
		prev_next = &p->next;
	}
	push_fifo(d, head, (uint16_t)ndesc, cookie);
	PLAIN(half(d, d->avail + 4 + d->avail_idx % d->conf.size * 2ULL), head);
	STORE(half(d, d->avail + 2), ++d->avail_idx);
	return 0;
}

/* Give back the descriptors of a chain by walking it, as a driver does. */
static void split_free(struct driver *d, uint16_t head)
{
	uint16_t i = head;

	for (unsigned int k = 0; k < d->slot[head].ndesc; k++) {
		if (!d->conf.in_order)
			d->free[d->nfree + k] = i;
		i = __atomic_load_n(&desc_at(d, i)->next, __ATOMIC_RELAXED);
	}
	d->nfree = (uint16_t)(d->nfree + d->slot[head].ndesc);
}

static int split_get(struct driver *d, uint16_t *id, uint32_t *len)
{
	uint64_t e = d->used + 4 + d->last_used % d->conf.size * 8ULL;
	uint16_t idx = LOAD(half(d, d->used + 2));
	uint32_t *elem;

	if (idx == d->last_used)
		return 0;
	assert_in_range((uint16_t)(idx - d->last_used), 1, d->outstanding);
	elem = guest_ptr(d->g, e, 8);
	assert_in_range(LOAD(&elem[0]), 0, d->conf.size - 1);
	*id = (uint16_t)LOAD(&elem[0]);
	*len = LOAD(&elem[1]);
	d->last_used++;
	return 1;
}

static bool event_passed(uint16_t event, uint16_t new, uint16_t old)
{
	return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

static bool split_should_kick(struct driver *d)
{
	uint16_t old = d->kicked;

	d->kicked = d->avail_idx;
	barrier();
	if (d->conf.event_idx)
		return event_passed(LOAD(half(d, d->used + 4 + d->conf.size * 8ULL)),
				    d->avail_idx, old);
	return !(LOAD(half(d, d->used)) & 1);
}

static bool split_want(struct driver *d, bool on, unsigned int after)
{
	if (d->conf.event_idx)
		STORE(half(d, d->avail + 4 + d->conf.size * 2ULL),
		      (uint16_t)(d->last_used + (on ? after : 0) - 1));
	else
		STORE(half(d, d->avail), (uint16_t)!on);
	barrier();
	return on && (uint16_t)(LOAD(half(d, d->used + 2)) - d->last_used) >=
			     (d->conf.event_idx ? after : 1);
}

/* ---- packed ---------------------------------------------------------------------- */

static int packed_add(struct driver *d, const struct driver_buf *buf, unsigned int nout,
		      unsigned int n, uint64_t table, uint64_t cookie)
{
	unsigned int ndesc = table ? 1 : n;
	uint16_t id, head_flags = 0, head = d->pos;

	if (ndesc > d->nfree)
		return -ENOSPC;
	id = d->conf.in_order ? d->pos : d->free[--d->nids];
	for (unsigned int k = 0; k < ndesc; k++) {
		struct pdesc *p = pdesc_at(d, d->pos);
		uint16_t flags = d->wrap ? F_AVAIL : F_USED;

		if (table)
			flags |= F_INDIRECT;
		else
			flags = (uint16_t)(flags | (k + 1 < n ? F_NEXT : 0) |
					   (k >= nout ? F_WRITE : 0));
		PLAIN(&p->addr, table ? table : buf[k].gpa);
		PLAIN(&p->len, table ? n * 16 : buf[k].len);
		/* Only the last one's id counts. */
		PLAIN(&p->id, k + 1 == ndesc ? id : 0xbad);
		if (k)
			PLAIN(&p->flags, flags);
		else
			head_flags = flags;
		if (++d->pos == d->conf.size) {
			d->pos = 0;
			d->wrap = !d->wrap;
		}
	}
	push_fifo(d, id, (uint16_t)ndesc, cookie);
	d->added += ndesc;
	STORE(&pdesc_at(d, head)->flags, head_flags);
	return 0;
}

static bool packed_used(const struct driver *d, uint16_t pos, bool wrap)
{
	uint16_t flags = LOAD(&pdesc_at(d, pos)->flags);

	return !!(flags & F_AVAIL) == wrap && !!(flags & F_USED) == wrap;
}

static int packed_get(struct driver *d, uint16_t *id, uint32_t *len)
{
	const struct pdesc *p = pdesc_at(d, d->used_pos);

	if (!packed_used(d, d->used_pos, d->used_wrap))
		return 0;
	*id = LOAD(&p->id);
	*len = LOAD(&p->flags) & F_WRITE ? LOAD(&p->len) : 0;
	return 1;
}

static void packed_free(struct driver *d, uint16_t id)
{
	unsigned int pos = d->used_pos + d->slot[id].ndesc;

	d->used_wrap ^= pos >= d->conf.size;
	d->used_pos = (uint16_t)(pos % d->conf.size);
	d->nfree = (uint16_t)(d->nfree + d->slot[id].ndesc);
	if (!d->conf.in_order)
		d->free[d->nids++] = id;
}

static bool packed_should_kick(struct driver *d)
{
	const uint32_t *event = guest_ptr(d->g, d->used, 4);
	uint32_t e;
	unsigned int gone, pos;
	bool wrap;

	gone = d->added;
	d->added = 0;
	barrier();
	e = LOAD(event);
	if (e >> 16 != 2) {
		assert_in_range(e >> 16, 0, 1);
		return e >> 16 == 0;
	}
	assert_true(d->conf.event_idx);
	/* Is the wanted descriptor one of the last @gone that were made available? Walked
	 * one by one: slow, and hard to get wrong. */
	pos = d->pos;
	wrap = d->wrap;
	while (gone--) {
		if (!pos) {
			pos = d->conf.size;
			wrap = !wrap;
		}
		pos--;
		if (pos == (e & 0x7fff) && wrap == !!(e & 0x8000))
			return true;
	}
	return false;
}

static bool packed_want(struct driver *d, bool on, unsigned int after)
{
	uint16_t *event = guest_ptr(d->g, d->avail, 4);
	unsigned int pos = d->used_pos + after - 1;
	bool wrap = d->used_wrap ^ (pos >= d->conf.size);

	pos %= d->conf.size;
	if (on && d->conf.event_idx) {
		STORE(&event[0], (uint16_t)(pos | (unsigned int)wrap << 15));
		STORE(&event[1], 2);
	} else {
		STORE(&event[1], on ? 0 : 1);
	}
	barrier();
	/* The first used one, too: descriptors of one chain do not all turn to used. */
	return on && packed_used(d, d->used_pos, d->used_wrap);
}

/* ---- both ------------------------------------------------------------------------ */

int driver_add(struct driver *d, const struct driver_buf *buf, unsigned int nout,
	       unsigned int nin, uint64_t table, uint64_t cookie)
{
	unsigned int n = nout + nin;

	if (table)
		write_table(d, buf, nout, n, table);
	return d->conf.packed ? packed_add(d, buf, nout, n, table, cookie)
			      : split_add(d, buf, nout, n, table, cookie);
}

bool driver_should_kick(struct driver *d)
{
	return d->conf.packed ? packed_should_kick(d) : split_should_kick(d);
}

int driver_get(struct driver *d, uint64_t *cookie, uint32_t *len)
{
	uint16_t id;

	if (!(d->conf.packed ? packed_get(d, &id, len) : split_get(d, &id, len)))
		return 0;
	assert_in_range(id, 0, d->conf.size - 1);
	assert_true(d->slot[id].busy);
	if (d->conf.in_order)
		assert_int_equal(d->fifo[d->fifo_head++ % d->conf.size], id);
	d->slot[id].busy = false;
	*cookie = d->slot[id].cookie;
	if (d->conf.packed)
		packed_free(d, id);
	else
		split_free(d, id);
	d->outstanding--;
	return 1;
}

bool driver_want(struct driver *d, bool on, unsigned int after)
{
	return d->conf.packed ? packed_want(d, on, after) : split_want(d, on, after);
}
