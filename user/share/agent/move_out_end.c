// SPDX-License-Identifier: BSD-2-Clause
/* move_out_end: the switch. Theory in move.h, contract in move_out_int.h; agent's thread.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "meta.h"
#include "move_out_int.h"
#include "peer_int.h"
#include "../../lib/clock.h"
#include "../../lib/log.h"

#define RESOLVE_NS 100000000ull

/* ---- who holds what -------------------------------------------------------------------
 */

struct table_out {
	struct move_out *m;
	struct gm_move_run run; /* numbers of this machine */
	struct gm_move_run *buf;
	size_t n;
	uint64_t sent;
};

#define BUF_RUNS (GM_PAYLOAD_MAX / sizeof(struct gm_move_run))

static void flush_runs(struct table_out *t)
{
	if (t->n)
		move_out_send(t->m, GM_MOVE_TABLE, 0, 0, 0,
			      (uint32_t)(t->n * sizeof(*t->buf)), t->buf);
	t->sent += t->n;
	t->n = 0;
}

static void end_run(struct table_out *t)
{
	if (!t->run.pages)
		return;
	t->buf[t->n++] = (struct gm_move_run){
		.page = htole64(t->run.page),
		.sharers = htole64(t->run.sharers),
		.pages = htole32(t->run.pages),
		.state = t->run.state,
		.holder = t->run.holder,
	};
	if (t->n == BUF_RUNS)
		flush_runs(t);
	t->run.pages = 0;
}

static void add_page(struct table_out *t, uint64_t page, uint8_t state, uint8_t holder,
		     uint64_t sharers)
{
	struct gm_move_run *r = &t->run;

	if (state == COH_HOME) {
		end_run(t);
		return;
	}
	if (r->pages && r->page + r->pages == page && r->state == state &&
	    r->holder == holder && r->sharers == sharers && r->pages < UINT32_MAX) {
		r->pages++;
		return;
	}
	end_run(t);
	*r = (struct gm_move_run){ .page = page,
				   .sharers = sharers,
				   .pages = 1,
				   .state = state,
				   .holder = holder };
}

int move_out_slot(const struct home_region *r, const char *node)
{
	int found = -1;

	for (int i = 0; i < GM_SLOT_MAX; i++) {
		if (!r->slots[i].used || strcmp(r->slots[i].node, node))
			continue;
		/* An import there may have ended, and another come. */
		if (r->slots[i].session)
			return i;
		found = i;
	}
	return found;
}

/* As the other node will have it: what it holds itself is home there; what is at home
 * here is a copy to read, if there are windows. */
static int send_table(struct move_out *m, int to, int own)
{
	struct home_region *r = m->r;
	uint64_t n = window_pages(r->win), data = 0, ndata = 0;
	uint64_t mine = own >= 0 ? 1ull << own : 0, theirs = 1ull << to;
	struct table_out t = { .m = m, .buf = malloc(BUF_RUNS * sizeof(*t.buf)) };
	bool more = window_data(r->win, &data, &ndata);

	if (!t.buf)
		return -ENOMEM;
	for (uint64_t i = 0; i < n; i++) {
		const struct coh_page *p = coh_page(r->coh, i);
		uint64_t sharers = p->state == COH_SHARED ? p->sharers & ~theirs : 0;
		uint8_t state = p->state;

		if (more && i >= data + ndata) {
			data = i;
			more = window_data(r->win, &data, &ndata);
		}
		if (state == COH_EXCL && p->holder == to)
			state = COH_HOME;
		else if (state <= COH_SHARED && more && i >= data)
			sharers |= mine;
		if (state <= COH_SHARED)
			state = sharers ? COH_SHARED : COH_HOME;
		add_page(&t, i, state, state == COH_EXCL ? p->holder : 0, sharers);
	}
	end_run(&t);
	flush_runs(&t);
	free(t.buf);
	move_out_send(m, GM_MOVE_READY, 0, 0, t.sent, 0, NULL);
	return 0;
}

static int send_slots(struct move_out *m, int *own)
{
	struct gm_move_slot s[GM_SLOT_MAX] = { 0 };
	struct home_region *r = m->r;
	unsigned int n = 0;

	*own = -1;
	for (int i = 0; i < GM_SLOT_MAX; i++) {
		const struct slot *t = &r->slots[i];

		if (!t->used) {
			if (*own >= 0 || !m->keep)
				continue;
			*own = i;
			strcpy(s[n].node, m->agent->cfg.node);
			s[n].incarnation = htole64(m->incarnation);
		} else {
			strcpy(s[n].node, t->node);
			/* As its HELLO had it. */
			s[n].incarnation = t->incarnation;
		}
		s[n++].slot = (uint8_t)i;
	}
	if (m->keep && *own < 0)
		return -ENOSPC;
	move_out_send(m, GM_MOVE_SLOTS, 0, 0, 0, n * (uint32_t)sizeof(*s), s);
	return 0;
}

static int send_clients(struct move_out *m)
{
	const struct once *o = m->r->meta->once;
	uint32_t used = once_count(o);
	struct gm_move_client *c;
	unsigned int n = 0;

	if (!used)
		return 0;
	c = calloc(used, sizeof(*c));
	if (!c)
		return -ENOMEM;
	for (uint32_t i = 0; i < used; i++) {
		if (!o->clients[i].id)
			continue;
		c[n].id = o->clients[i].id;
		c[n].done = htole64(o->clients[i].done);
		c[n++].old = htole64(o->clients[i].old);
	}
	if (n)
		move_out_send(m, GM_MOVE_CLIENTS, 0, 0, 0, n * (uint32_t)sizeof(*c), c);
	free(c);
	return 0;
}

void move_out_settle(struct move_out *m)
{
	struct home_region *r = m->r;
	int to = move_out_slot(r, m->next_desc.node), own, err;
	struct session *s = to < 0 ? NULL : r->slots[to].session;
	struct gm_hdr ev = {
		.op = GM_OP_EVENT, .bus = r->desc.bus, .arg = GM_EV_MOVING, .seq = m->id
	};

	if (!home_settled(r) || r->ndirty || !s)
		return; /* the tick looks again */
	/* From here on nothing changes any more. */
	r->frozen = HOME_STILL;
	m->state = OUT_READY;
	m->keep = window_clients(r->win) != 0;
	ev.session = s->id;
	chan_send(s->chan, &ev, NULL);
	err = send_slots(m, &own);
	if (!err)
		err = send_clients(m);
	if (!err)
		err = send_table(m, to, own);
	if (err)
		move_out_fail(m, err);
}

/* ---- the directory
 * --------------------------------------------------------------------- */

/* What this node knows of the region as an importer, for this agent or one after it:
 * which pages its windows may go on reading. It counts when the directory has the epoch.
 */
static void prepare(struct move_out *m)
{
	struct home_region *r = m->r;
	struct meta_hdr *h = r->meta->hdr;
	const struct dir_region *d = &m->next_desc;
	uint64_t until = clock_boot_ns() + (uint64_t)d->lease_ms * 1000000;
	uint64_t page = 0, n;

	meta_clear(r->meta, META_IMPORT);
	for (; m->keep && window_data(r->win, &page, &n); page += n)
		for (uint64_t i = page; i < page + n; i++)
			if (coh_page(r->coh, i)->state <= COH_SHARED)
				r->meta->held[i] = READ;
	h->incarnation = m->incarnation;
	memcpy(h->node, d->node, sizeof(h->node));
	memcpy(h->addr, d->addr, sizeof(h->addr));
	/* The other side's lease for us begins later than now. */
	if (until < h->valid_ns)
		__atomic_store_n(&h->valid_ns, until, __ATOMIC_RELEASE);
	__atomic_store_n(&h->claim, d->epoch, __ATOMIC_RELEASE);
}

static void handover(struct move_out *m)
{
	m->state = OUT_HANDOVER;
	m->handover_ns = clock_boot_ns();
	if (m->chan)
		move_out_send(m, GM_MOVE_COMMIT, 0, 0, 0, 0, NULL);
	else
		move_out_leave(m);
}

void move_out_commit(struct move_out *m)
{
	struct agent *a = m->agent;
	uint64_t lease = (uint64_t)a->cfg.lease_ms * 1000000, now = clock_boot_ns();
	int err;

	move_out_tell(m, "commit");
	if (now - m->frozen_ns > lease / 2 || agent_dir_overdue(a, now)) {
		move_out_fail(m, -ETIMEDOUT);
		return;
	}
	m->state = OUT_UNKNOWN;
	prepare(m);
	err = dir_update(a->dir, &m->next_desc, m->next_desc.epoch - 1);
	if (!err) {
		handover(m);
		return;
	}
	log_warn("region %s: directory: %s: does it have the move to %s?",
		 m->r->desc.name, strerror(-err), m->next_desc.node);
	m->err = err;
	m->tried_ns = clock_boot_ns();
}

/* We are the owner, with another epoch: a move to ourselves. Nothing has left. */
static void stays(struct move_out *m)
{
	struct home_region *r = m->r;

	r->stayed = r->desc.epoch;
	r->desc.epoch = r->meta->hdr->epoch = m->next_desc.epoch;
	home_tell_moved(r, &r->desc);
	agent_tell_moved(m->agent, r, NULL);
	move_out_fail(m, m->err);
}

void move_out_resolve(struct move_out *m)
{
	struct agent *a = m->agent;
	struct dir_region d, own = m->r->desc;
	uint64_t now = clock_boot_ns();
	int err;

	if (now - m->tried_ns < RESOLVE_NS)
		return;
	m->tried_ns = now;
	err = dir_find(a->dir, own.name, 0, &d);
	if (!err && d.epoch == m->next_desc.epoch) {
		if (!strcmp(d.node, m->next_desc.node))
			handover(m);
		else if (!strcmp(d.node, own.node))
			stays(m);
		else
			err = -ESTALE;
	} else if (!err && d.epoch == own.epoch) {
		/* The answer may be late only: keep it from being carried out after all.
		 */
		own.epoch++;
		if (!dir_update(a->dir, &own, m->r->desc.epoch))
			stays(m);
		return;
	} else if (!err) {
		err = -ESTALE;
	}
	/* Somebody else owns it, or nobody. Whatever else: the lease decides. */
	if (err == -ESTALE || err == -ENOENT)
		agent_end_home(a, m->r, GM_EV_OWNER_GONE);
}

/* ---- gone
 * ------------------------------------------------------------------------------ */

static void give_fault(void *arg, int client, uint64_t page, bool write)
{
	peer_fault(arg, client, page, write);
}

void move_out_leave(struct move_out *m)
{
	struct home_region *r = m->r;
	struct agent *a = m->agent;
	struct import *i = NULL;

	r->mover = NULL;
	home_depart(r, &m->next_desc);
	if (window_clients(r->win)) {
		if (!m->keep)
			window_drop(r->win, 0, window_pages(r->win));
		r->meta->hdr->lease_ms = m->next_desc.lease_ms;
		meta_become(r->meta, META_IMPORT, m->next_desc.epoch);
		i = agent_import_adopt(a, &m->next_desc, home_key(r, false), r->win,
				       r->meta);
		if (!i) {
			log_err("region %s: no memory to go on with its windows",
				r->desc.name);
			agent_windows_end(a, r, GM_EV_OWNER_GONE);
		}
	}
	if (i) {
		r->win = NULL;
		r->meta = NULL;
		agent_give_windows(a, r, i);
		home_fault_each(r, give_fault, i->peer);
	}
	home_free(r);
	m->r = NULL;
	counters.moves_out++;
	log_info(
		"region %s has moved to %s: %llu pages in %d rounds, stood still %llu ms",
		m->next_desc.name, m->next_desc.node, (unsigned long long)m->pages,
		m->round,
		(unsigned long long)((clock_boot_ns() - m->frozen_ns) / 1000000));
	if (i)
		agent_tell_moved(a, NULL, i);
	move_out_done(m, 0);
}
