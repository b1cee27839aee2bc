// SPDX-License-Identifier: BSD-2-Clause
/* home_pages: pages held by importers and by windows here. Contract in home_int.h;
 * agent's thread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "home_int.h"
#include "../../lib/log.h"

static uint64_t fault_cookie(int client, bool write)
{
	return 1 + 2 * (uint64_t)client + write;
}

static void protect_now(struct home_region *r)
{
	int err;

	if (!r->nprotect)
		return;
	err = window_protect(r->win, r->protect, r->nprotect);
	if (err)
		log_limited(LOG_LVL_ERROR, "region %s: cannot write-protect: %s",
			    r->desc.name, strerror(-err));
	r->nprotect = 0;
}

/* @slot gets the bytes to keep for good: a copy stays until it says that it has them. */
static void keep(struct home_region *r, const struct coh_act *a)
{
	struct session *s = r->slots[a->slot].session;
	struct keep_entry e = {
		.page = a->page,
		.session = s ? s->id : 0,
		.seq = s ? s->granted + 1 : 0,
		.version = a->version,
		.slot = a->slot,
	};

	protect_now(r);
	r->kept = keep_put(&r->meta->keep, &e, window_bytes(r->win, a->page));
	if (!r->kept) {
		r->meta->slots[a->slot].unkept = 1;
		memcpy(r->unkept, window_bytes(r->win, a->page), dir_page_size(&r->desc));
	}
	if (r->run) {
		memcpy(r->run, r->kept ? r->kept : r->unkept, dir_page_size(&r->desc));
		r->run += dir_page_size(&r->desc);
	}
}

static void grant(struct home_region *r, const struct coh_act *a)
{
	struct op *o = (struct op *)(uintptr_t)a->cookie;
	struct session *s = o->session;
	const uint8_t *page = NULL;

	protect_now(r);
	if (a->excl && !a->status) {
		page = r->kept ? r->kept : r->unkept;
		window_drop(r->win, a->page, 1);
	} else if (a->data) {
		page = window_bytes(r->win, a->page);
	}
	if (s) {
		struct gm_hdr h = o->hdr;

		if (a->excl && !a->status)
			s->granted++;
		h.size = dir_page_size(&r->desc);
		h.bus = dir_page_bus(&r->desc, a->page);
		home_reply(s, &h, a->status, a->version,
			   a->excl ? GM_F_EXCL : GM_F_SHARED, a->data ? h.size : 0, page);
		home_op_unlink(o);
	}
	if (a->excl)
		counters.grants_write++;
	else
		counters.grants_read++;
	free(o);
}

static void send_inv(struct home_region *r, const struct coh_act *a)
{
	struct session *s = r->slots[a->slot].session;
	struct gm_hdr h = {
		.op = GM_OP_INV,
		.flags = (uint16_t)((a->excl ? 0 : GM_F_SHARED) |
				    (a->data ? GM_F_EXCL : 0)),
		.bus = dir_page_bus(&r->desc, a->page),
		.size = dir_page_size(&r->desc),
		.epoch = r->desc.epoch,
		.arg = a->version,
	};

	counters.inv_out++;
	if (!s)
		return; /* its lease runs; it is told when it comes back (coh_resend) */
	h.seq = ++s->inv_seq;
	h.session = s->id;
	h.arg2 = s->done;
	chan_send(s->chan, &h, NULL);
}

static void poison(struct home_region *r, uint64_t page, uint32_t clients)
{
	window_drop(r->win, page, 1);
	window_poison(r->win, page, 1, clients);
	r->meta->hdr->poisoned = 1;
	counters.poisoned++;
}

void home_act(void *arg, const struct coh_act *a)
{
	struct home_region *r = arg;

	switch (a->type) {
	case COH_PROTECT:
		if (r->nprotect && r->protect + r->nprotect != a->page)
			protect_now(r);
		if (!r->nprotect)
			r->protect = a->page;
		r->nprotect++;
		break;
	case COH_KEEP: keep(r, a); break;
	case COH_GRANT: grant(r, a); break;
	case COH_INV: send_inv(r, a); break;
	case COH_DONE:
		if (a->cookie == RECALL_COOKIE)
			break;
		if (a->cookie >= FAULT_COOKIES) {
			home_op_page(r, (struct op *)(uintptr_t)a->cookie, a);
		} else if (a->status || window_room(r->win, a->page, 1)) {
			poison(r, a->page, 1u << ((a->cookie - 1) / 2));
		} else {
			/* A page nobody has touched is zero: reading it makes it. */
			*(volatile uint8_t *)window_page(r->win, a->page);
			bool home = coh_page(r->coh, a->page)->state == COH_HOME;
			bool write = a->excl || (!r->dirty && home);

			if (write && home)
				coh_shut(r->coh, a->page, false);
			window_map(r->win, a->page, 1, 1u << ((a->cookie - 1) / 2),
				   write);
			/* While it moves: written only with our knowledge. */
			if (a->excl)
				home_dirty(r, a->page, 1);
		}
		break;
	}
}

/* Stores that go through the region in order: all pages that are here and nobody else's,
 * in one message, which counts as one grant. Return: false: the first one is not */
static bool grant_run(struct session *s, const struct attachment *a,
		      const struct gm_hdr *h)
{
	static uint8_t bytes[GM_BATCH_PAGES * GM_PAGE_SIZE];
	struct home_region *r = a->region;
	uint64_t page = dir_page(&r->desc, h->bus);
	struct gm_hdr run = *h;
	unsigned int n;

	r->run = bytes;
	n = coh_try_write(r->coh, (uint8_t)a->slot, page, h->size >> r->desc.page_shift);
	r->run = NULL;
	if (!n)
		return false;
	protect_now(r);
	window_drop(r->win, page, n);
	s->granted++;
	run.size = n << r->desc.page_shift;
	counters.grants_write += n;
	home_reply(s, &run, 0, coh_version(r->coh, page), GM_F_EXCL, run.size, bytes);
	return true;
}

void home_do_page(struct session *s, const struct attachment *a, const struct gm_hdr *h)
{
	struct home_region *r = a->region;
	uint64_t page = dir_page(&r->desc, h->bus);
	struct op *o;
	int err;

	if (h->op == GM_OP_READ && coh_ready(r->coh, page, 1, false)) {
		unsigned int most = dir_batch(&r->desc, GM_BATCH_PAGES);
		unsigned int n = h->size >> r->desc.page_shift;
		struct gm_hdr run = *h;

		n = coh_try_read(r->coh, (uint8_t)a->slot, page, n < most ? n : most);
		protect_now(r);
		run.size = n << r->desc.page_shift;
		counters.grants_read += n;
		home_reply(s, &run, 0, 0, GM_F_SHARED, run.size,
			   window_bytes(r->win, page));
		return;
	}
	if (h->op == GM_OP_WRITE && h->size > dir_page_size(&r->desc) &&
	    grant_run(s, a, h))
		return;
	o = home_op_new(s, r, h);
	if (!o) {
		home_reply(s, h, -ENOMEM, 0, 0, 0, NULL);
		return;
	}
	err = coh_request(r->coh, (uint8_t)a->slot, page,
			  h->op == GM_OP_READ ? COH_WANT_READ : COH_WANT_WRITE,
			  h->flags & GM_F_UPGRADE, (uint64_t)(uintptr_t)o);
	if (err) {
		o->status = err;
		home_op_end(o);
	}
}

void home_do_bulk(struct session *s, const struct attachment *a, const struct gm_hdr *h)
{
	struct home_region *r = a->region;
	const struct slot *t = &r->slots[a->slot];
	struct gm_hdr run = *h;
	unsigned int n = 0;
	/* A page that is another node's by the time it is sent is read as a hole, which
	 * puts zeros into the memfd. Windows here must tell of them, and those that come
	 * later are of this kernel, too. */
	bool by_ref = window_clients(r->win) && !(window_lacks(r->win) & WINDOW_NO_MINOR);
	const uint8_t *bytes;

	/* Only as long as there is someone who can be asked to give them back. */
	if (r->frozen == HOME_SERVING && t->used && t->session &&
	    t->incarnation == s->incarnation && !strcmp(t->node, s->node) &&
	    (by_ref || !chan_has_refs(s->chan)))
		n = coh_try_read(r->coh, (uint8_t)a->slot, dir_page(&r->desc, h->bus),
				 h->size >> r->desc.page_shift);
	if (!n) {
		home_reply(s, h, -EAGAIN, 0, 0, 0, NULL);
		return;
	}
	protect_now(r);
	counters.grants_read += n;
	run.flags = GM_F_REPLY | GM_F_SHARED;
	run.session = s->id;
	run.size = run.len = n << r->desc.page_shift;
	run.arg = 0;
	run.arg2 = 0;
	bytes = window_bytes(r->win, dir_page(&r->desc, h->bus));
	if (by_ref)
		chan_send_ref(s->chan, &run, bytes);
	else
		chan_send(s->chan, &run, bytes);
}

/*
 * One page comes back, as an INV asked or unasked. @bytes: NULL: none came. @again:
 * version of an answer that is sent again, on a new connection, because it may have been
 * lost with the former; 0: it is none.
 */
static int page_back(struct home_region *r, uint8_t slot, uint64_t page,
		     const uint8_t *bytes, bool shared, uint64_t version, uint64_t again)
{
	const struct coh_page *p = coh_page(r->coh, page);
	bool excl = p->state == COH_EXCL && p->holder == slot;
	struct keep_entry *k = excl ? keep_find(&r->meta->keep, page, slot) : NULL;
	int err;

	/* Its copy is gone, which a move to it has counted on: bytes that it had to read
	 * were sent in vain. Who made it go may have died, and nothing else have changed.
	 */
	if (!shared)
		home_dirty(r, page, 1);
	/* A grant that came after that answer, and that it has not confirmed, says that
	 * the answer had come. One that it has confirmed also told it so. */
	if (again && (!excl || (k ? !coh_later(again, k->version)
				  : r->meta->slots[slot].unkept &&
						again != coh_version(r->coh, page))))
		return 0;
	if (version && !coh_awaits(r->coh, slot, page, version))
		return coh_ack(r->coh, slot, page, shared, version, false);
	/* It never got what it should have: that is still as it was. */
	if (excl && !bytes && k)
		bytes = keep_bytes(&r->meta->keep, k);
	if (excl && bytes && window_fill(r->win, page, 1, bytes, false)) {
		log_limited(LOG_LVL_ERROR, "region %s: no huge page for what comes back",
			    r->desc.name);
		bytes = NULL;
	}
	if (excl && bytes)
		home_dirty(r, page, 1);
	err = coh_ack(r->coh, slot, page, shared, version, excl && !bytes);
	if (k)
		keep_del(&r->meta->keep, k);
	return err;
}

void home_do_ack(struct session *s, const struct attachment *a, const struct gm_hdr *h,
		 const uint8_t *payload)
{
	struct home_region *r = a->region;
	bool flush = h->op == GM_OP_FLUSH;

	for (uint32_t at = 0; at < h->size; at += dir_page_size(&r->desc)) {
		int err = page_back(r, (uint8_t)a->slot, dir_page(&r->desc, h->bus + at),
				    h->len ? payload + at : NULL, h->flags & GM_F_SHARED,
				    flush ? 0 : h->arg, flush ? h->arg : 0);

		if (err) {
			home_refuse(s, h, err, &counters.bad_proto, true);
			return;
		}
	}
	if (flush)
		home_reply(s, h, 0, 0, 0, 0, NULL);
	if (r->mover && r->frozen == HOME_SETTLING)
		r->home->mover.answered(r);
}

void home_recall(struct home_region *r, uint8_t slot)
{
	struct keep *k = &r->meta->keep;
	uint64_t *pages = calloc(k->n + 1, sizeof(*pages));
	unsigned int n = 0;

	for (unsigned int i = 0; pages && i < k->n; i++) {
		const struct keep_entry *e = &k->entries[k->order[i]];

		n += e->slot == slot && keep_page(k, e, &pages[n]);
	}
	for (unsigned int i = 0; i < n; i++)
		coh_request(r->coh, COH_HOME_SLOT, pages[i], COH_WANT_WRITE, false,
			    RECALL_COOKIE);
	free(pages);
}

void home_take_back(struct home_region *r, uint8_t slot)
{
	struct keep *k = &r->meta->keep;

	/* Nor is anything granted to it as these come back. */
	coh_cancel(r->coh, slot);
	for (unsigned int i = k->n; i--;) {
		const struct keep_entry *e = &k->entries[k->order[i]];
		uint64_t page;

		if (e->slot == slot && keep_page(k, e, &page))
			page_back(r, slot, page, NULL, false, 0, 0);
	}
}

void home_fault(struct home_region *r, int client, uint64_t page, bool write)
{
	if (r->frozen)
		home_hold_fault(r, client, page, write);
	else
		coh_request(r->coh, COH_HOME_SLOT, page,
			    write ? COH_WANT_WRITE : COH_WANT_READ, false,
			    fault_cookie(client, write));
}

void home_faults(struct home_region *r, int client)
{
	uint64_t page;
	bool write;

	while (window_fault(r->win, client, &page, &write) > 0) {
		counters.faults++;
		counters.faults_home++;
		home_fault(r, client, page, write);
	}
}
