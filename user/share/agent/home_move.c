// SPDX-License-Identifier: BSD-2-Clause
/* home_move: what the owner's side does for a region that moves. Theory in move.h,
 * contract in home_int.h; agent's thread. */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "home_int.h"
#include "../../lib/clock.h"
#include "../../lib/log.h"

#define MOVED_MAX 256 /* remembered; the oldest goes first */

struct held {
	struct held *next;
	struct session *session;
	struct gm_hdr hdr;
	uint8_t payload[];
};

struct held_fault {
	uint64_t page;
	int client;
	bool write;
};

/* ---- pages to send ---------------------------------------------------------------- */

void home_dirty_mark(struct home_region *r, uint64_t page, uint64_t n)
{
	for (uint64_t i = page; i < page + n; i++) {
		uint64_t bit = 1ull << (i % 64);

		r->ndirty += !(r->dirty[i / 64] & bit);
		r->dirty[i / 64] |= bit;
	}
}

static void clean(struct home_region *r, uint64_t page)
{
	uint64_t bit = 1ull << (page % 64);

	r->ndirty -= !!(r->dirty[page / 64] & bit);
	r->dirty[page / 64] &= ~bit;
}

static bool is_dirty(const struct home_region *r, uint64_t page)
{
	return r->dirty[page / 64] >> (page % 64) & 1;
}

void home_move_all(struct home_region *r)
{
	uint64_t page = 0, n;

	for (; window_data(r->win, &page, &n); page += n)
		home_dirty_mark(r, page, n);
}

int home_move_begin(struct home_region *r)
{
	r->dirty = calloc(window_pages(r->win) / 64 + 1, sizeof(*r->dirty));
	if (!r->dirty)
		return -ENOMEM;
	r->ndirty = 0;
	window_trim(r->win);
	home_move_all(r);
	return 0;
}

/* Are its bytes here? Otherwise whoever has them keeps them, or nobody has. */
static bool here(const struct home_region *r, uint64_t page)
{
	return coh_page(r->coh, page)->state <= COH_SHARED;
}

int home_move_next(struct home_region *r, uint64_t *cursor, uint64_t *page, uint32_t *n)
{
	uint64_t end = window_pages(r->win), at = *cursor;
	uint32_t len = 0;
	int err;

	while (at < end && (!is_dirty(r, at) || !here(r, at))) {
		if (!r->dirty[at / 64]) {
			at = (at / 64 + 1) * 64;
			continue;
		}
		clean(r, at++); /* it comes back as a dirty one */
	}
	if (at >= end) {
		*cursor = 0;
		return 0;
	}
	while (at + len < end && len < dir_batch(&r->desc, GM_BATCH_PAGES) &&
	       is_dirty(r, at + len) && here(r, at + len))
		len++;
	/* First no store is under way any more, then the bytes are read. */
	err = window_protect(r->win, at, len);
	if (err)
		return err;
	for (uint32_t i = 0; i < len; i++)
		clean(r, at + i);
	*cursor = at + len;
	*page = at;
	*n = len;
	return 1;
}

/* ---- standing still -----------------------------------------------------------------
 */

bool home_hold(struct session *s, struct home_region *r, const struct gm_hdr *h,
	       const uint8_t *payload)
{
	struct held *e;

	if (r->frozen == HOME_SERVING || h->op == GM_OP_ACK ||
	    (h->op == GM_OP_FLUSH && r->frozen == HOME_SETTLING))
		return false;
	counters.requests_held++;
	/* Who sends it of its own accord does not wait for long, and can keep it. */
	if (h->op == GM_OP_FLUSH && !h->arg) {
		home_reply(s, h, -EAGAIN, 0, 0, 0, NULL);
		return true;
	}
	e = malloc(sizeof(*e) + h->len);
	if (!e) {
		home_reply(s, h, -ENOMEM, 0, 0, 0, NULL);
		return true;
	}
	e->next = NULL;
	e->session = s;
	e->hdr = *h;
	memcpy(e->payload, payload, h->len);
	*r->held_tail = e;
	r->held_tail = &e->next;
	s->undone += h->op == GM_OP_FLUSH;
	return true;
}

void home_hold_fault(struct home_region *r, int client, uint64_t page, bool write)
{
	struct held_fault *f = reallocarray(r->faults, r->nfaults + 1, sizeof(*f));

	if (!f) {
		window_poison(r->win, page, 1, 1u << client);
		return;
	}
	r->faults = f;
	f[r->nfaults++] = (struct held_fault){ page, client, write };
}

bool home_moving(const struct home_region *r)
{
	return r->mover;
}

bool home_settled(struct home_region *r)
{
	const struct keep *k = &r->meta->keep;
	uint64_t asked = 0;

	if (coh_busy(r->coh))
		return false;
	/* A grant to write that nobody has confirmed may never have come, and its bytes
	 * are kept here alone. Each importer is asked for the last one; its answer says
	 * that it has those before. Who has lost its connection is waited for. */
	for (unsigned int i = k->n; i--;) {
		struct keep_entry e = k->entries[k->order[i]];

		if (asked >> e.slot & 1 || !r->slots[e.slot].session)
			continue;
		asked |= 1ull << e.slot;
		coh_request(r->coh, COH_HOME_SLOT, e.page, COH_WANT_WRITE, false,
			    RECALL_COOKIE);
	}
	return !k->n;
}

static struct held *take_held(struct home_region *r)
{
	struct held *e = r->held;

	r->held = NULL;
	r->held_tail = &r->held;
	return e;
}

void home_thaw(struct home_region *r)
{
	struct held *e = take_held(r);
	struct held_fault *f = r->faults;
	unsigned int n = r->nfaults;

	free(r->dirty);
	r->dirty = NULL;
	r->frozen = HOME_SERVING;
	r->faults = NULL;
	r->nfaults = 0;
	while (e) {
		struct held *next = e->next;

		if (e->session) {
			e->session->undone -= e->hdr.op == GM_OP_FLUSH;
			home_dispatch(e->session, &e->hdr, e->payload);
		}
		free(e);
		e = next;
	}
	for (unsigned int i = 0; i < n; i++)
		home_fault(r, f[i].client, f[i].page, f[i].write);
	free(f);
}

void home_held_forget(struct home_region *r, const struct session *s)
{
	for (struct held *e = r->held; e; e = e->next)
		if (e->session == s)
			e->session = NULL;
}

void home_held_free(struct home_region *r, int status)
{
	struct held *e = take_held(r);

	while (e) {
		struct held *next = e->next;

		if (e->session)
			home_reply(e->session, &e->hdr, status, 0, 0, 0, NULL);
		free(e);
		e = next;
	}
	free(r->faults);
	free(r->dirty);
	r->faults = NULL;
	r->dirty = NULL;
	r->nfaults = 0;
}

/* ---- gone ----------------------------------------------------------------------------
 */

void home_tell_moved(struct home_region *r, const struct dir_region *to)
{
	struct gm_moved now = { .epoch = htole32(to->epoch),
				.lease_ms = htole32(to->lease_ms) };

	memcpy(now.node, to->node, sizeof(now.node));
	memcpy(now.addr, to->addr, sizeof(now.addr));
	for (struct session *s = r->home->sessions; s; s = s->next) {
		for (int i = 0; i < s->nat; i++) {
			struct gm_hdr ev = { .op = GM_OP_EVENT,
					     .bus = r->desc.bus,
					     .len = sizeof(now),
					     .arg = GM_EV_MOVED,
					     .session = s->id };

			if (s->at[i].region != r || s->at[i].slot < 0)
				continue;
			/* What waits there by reference is no longer what was granted. */
			if (s->role == GM_ROLE_BULK)
				chan_fail(s->chan, -ESTALE);
			else
				chan_send(s->chan, &ev, &now);
		}
	}
}

void home_depart(struct home_region *r, const struct dir_region *to)
{
	struct home *h = r->home;
	struct moved *m = calloc(1, sizeof(*m)), **q;
	struct home_region **p = &h->regions;
	struct held *e = take_held(r);
	unsigned int n = 0;

	home_tell_moved(r, to);
	for (struct session *s = h->sessions; s; s = s->next)
		for (int i = 0; i < s->nat; i++)
			if (s->at[i].region == r) {
				unsigned int k = s->nleft++ % HOME_REGIONS;

				s->left[k].bus = to->bus;
				s->left[k].size = to->size;
				s->at[i--] = s->at[--s->nat];
			}
	table_del(&h->exports, r->desc.bus);
	while (*p != r)
		p = &(*p)->next;
	*p = r->next;
	if (m) {
		m->to = *to;
		m->next = h->moved;
		h->moved = m;
	}
	while (e) {
		struct held *next = e->next;

		if (e->session && m)
			home_moved_request(m, e->session, &e->hdr);
		free(e);
		e = next;
	}
	for (q = &h->moved; *q; q = &(*q)->next) {
		if (++n > MOVED_MAX) {
			m = *q;
			*q = m->next;
			free(m);
			break;
		}
	}
}

void home_fault_each(struct home_region *r,
		     void (*each)(void *arg, int client, uint64_t page, bool write),
		     void *arg)
{
	for (unsigned int i = 0; i < r->nfaults; i++)
		each(arg, r->faults[i].client, r->faults[i].page, r->faults[i].write);
}

struct moved *home_moved_find(struct home *h, uint64_t bus, uint64_t size)
{
	for (struct moved *m = h->moved; m; m = m->next)
		if (gm_in_range(bus, size, m->to.bus, m->to.size))
			return m;
	return NULL;
}

void home_moved_forget(struct home *h, uint64_t bus)
{
	for (struct moved **q = &h->moved; *q;) {
		struct moved *m = *q;

		if (m->to.bus != bus) {
			q = &m->next;
			continue;
		}
		*q = m->next;
		free(m);
	}
}

void home_moved_request(struct moved *m, struct session *s, const struct gm_hdr *h)
{
	/* Nothing waits for one: the region had settled. */
	if (h->op == GM_OP_ACK)
		return;
	counters.moved_told++;
	home_reply(s, h, -EREMCHG, m->to.epoch, 0, 0, NULL);
}
