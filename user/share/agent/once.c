// SPDX-License-Identifier: BSD-2-Clause
/* once: atomics done exactly once. Theory and contract in once.h; agent's thread. */
#include <errno.h>
#include <stddef.h>

#include "once.h"

/* All stores below are seen, by who comes after us, in the order in which they are
 * written: an agent that is killed has done a prefix of its instructions. */
static void barrier(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static uint64_t load(const void *word, uint32_t size)
{
	return size == 8 ? __atomic_load_n((const uint64_t *)word, __ATOMIC_SEQ_CST)
			 : __atomic_load_n((const uint32_t *)word, __ATOMIC_SEQ_CST);
}

static bool exchange(void *word, uint32_t size, uint64_t was, uint64_t becomes)
{
	uint32_t was4 = (uint32_t)was;

	if (size == 8)
		return __atomic_compare_exchange_n((uint64_t *)word, &was, becomes, false,
						   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	return __atomic_compare_exchange_n((uint32_t *)word, &was4, (uint32_t)becomes,
					   false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

struct once_client *once_client(struct once *o, uint64_t id, bool *known)
{
	struct once_client *c = NULL;
	uint32_t n = once_count(o);

	*known = false;
	for (uint32_t i = 0; id && i < n; i++) {
		struct once_client *e = &o->clients[i];

		if (e->id == id) {
			*known = true;
			c = e;
			break;
		}
		if (!e->live && (!c || !e->id || (c->id && e->age < c->age)))
			c = e;
	}
	if (!id)
		return NULL;
	/* Old ones keep their place until there is none that was never used. */
	if (!*known && (!c || c->id) && n < ONCE_CLIENTS) {
		c = &o->clients[n];
		o->n = n + 1;
	}
	if (!c)
		return NULL;
	if (!*known) {
		c->id = 0;
		barrier();
		c->done = 0;
		c->old = 0;
		barrier();
		c->id = id;
	}
	c->age = ++o->age;
	c->live = 1;
	return c;
}

int once_load(struct once *o, uint64_t id, uint64_t done, uint64_t old)
{
	bool known;
	struct once_client *c = once_client(o, id, &known);

	if (!c)
		return -ENOSPC;
	c->done = done;
	c->old = old;
	once_leave(o, c);
	return 0;
}

void once_leave(struct once *o, struct once_client *c)
{
	if (!c)
		return;
	c->age = ++o->age;
	c->live = 0;
}

static uint64_t result(const struct gm_hdr *h, uint64_t was)
{
	switch (h->op) {
	case GM_OP_FADD: return was + h->arg;
	case GM_OP_SWAP: return h->arg;
	default: return was == h->arg2 ? h->arg : was;
	}
}

static void enter(struct once_client *c, uint64_t old, uint64_t done)
{
	c->old = old;
	barrier();
	c->done = done;
	barrier();
}

uint64_t once_do(struct once *o, struct once_client *c, const struct gm_hdr *h,
		 void *word, uint64_t at)
{
	uint64_t mask = h->size == 8 ? UINT64_MAX : UINT32_MAX;
	struct gm_hdr cut = *h;
	uint64_t was;

	cut.arg &= mask;
	cut.arg2 &= mask;
	do {
		was = load(word, h->size);
		if (c) {
			o->pending = 0;
			barrier();
			o->client = (uint32_t)(c - o->clients);
			o->size = h->size;
			o->at = at;
			o->was = was;
			o->becomes = result(&cut, was) & mask;
			o->done = c->done + 1;
			barrier();
			o->pending = 1;
			barrier();
		}
	} while (!exchange(word, h->size, was, result(&cut, was) & mask));
	if (c) {
		enter(c, was, o->done);
		o->pending = 0;
	}
	return was;
}

void once_recover(struct once *o, uint8_t *memory, uint64_t size)
{
	uint32_t n = once_count(o),
		 client = __atomic_load_n(&o->client, __ATOMIC_RELAXED),
		 bytes = __atomic_load_n(&o->size, __ATOMIC_RELAXED);
	uint64_t at = __atomic_load_n(&o->at, __ATOMIC_RELAXED), now;
	struct once_client *c;

	o->n = n;
	for (uint32_t i = 0; i < n; i++)
		o->clients[i].live = 0;
	if (o->pending && client < n && (bytes == 4 || bytes == 8) && at % bytes == 0 &&
	    gm_in_range(at, bytes, 0, size)) {
		c = &o->clients[client];
		now = load(memory + at, bytes);
		if (now == o->becomes)
			enter(c, o->was, o->done);
		else if (now != o->was)
			c->id = 0;
	}
	o->pending = 0;
}
