// SPDX-License-Identifier: BSD-2-Clause
/* home_ops: get, put, atomics. Contract in home_int.h; agent's thread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "home_int.h"

static uint64_t page_count(const struct home_region *r, const struct gm_hdr *h)
{
	return dir_page(&r->desc, h->bus + h->size - 1) - dir_page(&r->desc, h->bus) + 1;
}

struct op *home_op_new(struct session *s, struct home_region *r, const struct gm_hdr *h)
{
	struct op *o = calloc(1, sizeof(*o) + h->size);

	if (!o)
		return NULL;
	o->session = s;
	o->region = r;
	o->hdr = *h;
	o->next = s->ops;
	o->prev = &s->ops;
	if (o->next)
		o->next->prev = &o->next;
	s->ops = o;
	return o;
}

void home_op_unlink(struct op *o)
{
	struct session *s = o->session;
	struct gm_hdr fence = { .op = GM_OP_FENCE, .seq = s->fence };

	*o->prev = o->next;
	if (o->next)
		o->next->prev = o->prev;
	if (s->ops || !s->fence)
		return;
	s->fence = 0;
	home_reply(s, &fence, 0, 0, 0, 0, NULL);
}

/* Of the pages of @h some had been lost: whoever got SIGBUS there may try again. */
static void healed(struct home_region *r, const struct gm_hdr *h)
{
	uint64_t page = dir_page(&r->desc, h->bus), n = page_count(r, h);
	struct gm_hdr m = { .op = GM_OP_EVENT,
			    .bus = dir_page_bus(&r->desc, page),
			    .size = (uint32_t)(n << r->desc.page_shift),
			    .arg = GM_EV_HEALED };

	window_renew(r->win, page, n);
	for (struct session *s = r->home->sessions; s; s = s->next) {
		for (int i = 0; i < s->nat; i++) {
			if (s->at[i].region != r || s->role != GM_ROLE_PAGES)
				continue;
			m.session = s->id;
			chan_send(s->chan, &m, NULL);
		}
	}
}

void home_op_end(struct op *o)
{
	struct session *s = o->session;

	if (o->hdr.op == GM_OP_PUT && o->old)
		healed(o->region, &o->hdr);
	if (s) {
		bool get = o->hdr.op == GM_OP_GET && !o->status;

		home_reply(s, &o->hdr, o->status, o->old, 0, get ? o->hdr.size : 0,
			   o->data);
		home_op_unlink(o);
	}
	free(o);
}

/* The page of an atomic is ours to touch. Once no window here can write to it, the word
 * changes by our hand alone (once.h). */
static int atomic_do(struct session *s, struct home_region *r, const struct gm_hdr *h,
		     uint64_t *old)
{
	const struct attachment *a = NULL;
	uint64_t page = dir_page(&r->desc, h->bus);
	int err = 0;

	for (int i = 0; s && i < s->nat; i++)
		if (s->at[i].region == r)
			a = &s->at[i];
	/* Who has asked is gone; if it comes back it will ask again. */
	if (!a)
		return -ECONNABORTED;
	if (a->once && coh_page(r->coh, page)->holder != COH_SHUT) {
		err = window_protect(r->win, page, 1);
		if (err)
			return err;
		coh_shut(r->coh, page, true);
	}
	home_dirty(r, page, 1);
	*old = once_do(r->meta->once, a->once, h, home_memory(r, h->bus),
		       h->bus - r->desc.bus);
	return 0;
}

/* A page of a get, a put or an atomic is ours to touch. */
void home_op_page(struct home_region *r, struct op *o, const struct coh_act *a)
{
	uint64_t page_bus = dir_page_bus(&r->desc, a->page),
		 page_end = dir_page_bus(&r->desc, a->page + 1);
	uint64_t from = o->hdr.bus > page_bus ? o->hdr.bus : page_bus;
	uint64_t to = o->hdr.bus + o->hdr.size;
	size_t at = (size_t)(from - o->hdr.bus);
	bool lost = coh_page(r->coh, a->page)->state == COH_LOST;

	if (to > page_end)
		to = page_end;
	if (a->status)
		o->status = a->status;
	else if (o->hdr.op == GM_OP_GET)
		memcpy(o->data + at, window_bytes(r->win, a->page) + (from - page_bus),
		       to - from);
	else if (window_room(r->win, a->page, 1))
		o->status = -ENOMEM;
	else if (o->hdr.op == GM_OP_PUT)
		memcpy(home_memory(r, from), o->data + at, to - from);
	else
		o->status = atomic_do(o->session, r, &o->hdr, &o->old);
	if (o->hdr.op == GM_OP_PUT) {
		home_dirty(r, a->page, 1);
		if (lost && o->status)
			coh_not_healed(r->coh);
		else if (lost)
			o->old = 1;
	}
	if (!--o->waiting)
		home_op_end(o);
}

/* Ask the coherence for every page of a get, put or atomic that cannot be done at once.
 */
static void wait_pages(struct session *s, struct home_region *r, const struct gm_hdr *h,
		       const uint8_t *payload)
{
	uint64_t page = dir_page(&r->desc, h->bus), n = page_count(r, h);
	struct op *o = home_op_new(s, r, h);

	if (!o) {
		home_reply(s, h, -ENOMEM, 0, 0, 0, NULL);
		return;
	}
	if (h->op == GM_OP_PUT)
		memcpy(o->data, payload, h->size);
	o->waiting = (uint32_t)n + 1;
	for (uint64_t i = 0; i < n; i++) {
		enum coh_want want = h->op == GM_OP_GET ? COH_WANT_READ : COH_WANT_WRITE;
		uint64_t bus = dir_page_bus(&r->desc, page + i);
		int err;

		if (h->op == GM_OP_PUT &&
		    gm_in_range(bus, dir_page_size(&r->desc), h->bus, h->size))
			want = COH_WANT_REPLACE;
		err = coh_request(r->coh, COH_HOME_SLOT, page + i, want, false,
				  (uint64_t)(uintptr_t)o);
		if (err) {
			o->status = err;
			o->waiting--;
		}
	}
	if (!--o->waiting)
		home_op_end(o);
}

void home_do_access(struct session *s, struct home_region *r, const struct gm_hdr *h,
		    const uint8_t *payload)
{
	uint64_t page = dir_page(&r->desc, h->bus), n = page_count(r, h);
	bool write = h->op != GM_OP_GET;
	uint8_t *p = home_memory(r, h->bus);
	uint64_t old = 0;
	int err;

	if (!coh_ready(r->coh, page, n, write) || window_room(r->win, page, n)) {
		wait_pages(s, r, h, payload);
	} else if (h->op == GM_OP_GET) {
		home_reply(s, h, 0, 0, 0, h->size, p);
	} else if (h->op == GM_OP_PUT) {
		home_dirty(r, page, n);
		memcpy(p, payload, h->size);
		home_reply(s, h, 0, 0, 0, 0, NULL);
	} else {
		err = atomic_do(s, r, h, &old);
		home_reply(s, h, err, old, 0, 0, NULL);
	}
}
