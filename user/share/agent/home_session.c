// SPDX-License-Identifier: BSD-2-Clause
/* home_session: connections of importers. Contract in home_int.h; agent's thread. */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "home_int.h"
#include "../../lib/clock.h"
#include "../../lib/log.h"

#define CONFIRM (256u << 10) /* bytes of pages that came, before the importer is told */

void home_reply(struct session *s, const struct gm_hdr *req, int status, uint64_t arg,
		uint16_t flags, uint32_t len, const void *data)
{
	struct gm_hdr h = *req;

	/* Its bytes are at the importer alone, which must not take them for given. */
	s->undone += req->op == GM_OP_FLUSH && status && req->arg;
	h.flags = GM_F_REPLY | flags;
	h.status = status;
	h.session = s->id;
	h.len = len;
	h.arg = arg;
	h.arg2 = req->op == GM_OP_MOVE ? req->arg2 : s->done;
	chan_send(s->chan, &h, data);
}

static const struct attachment *attached(const struct session *s, const struct gm_hdr *h)
{
	for (int i = 0; i < s->nat; i++) {
		const struct dir_region *d = &s->at[i].region->desc;

		if (gm_in_range(h->bus, h->size, d->bus, d->size))
			return &s->at[i];
	}
	return NULL;
}

/* Is @h for a region that moved away under a client? By now it may be here again, or be
 * one of too many that moved: the client connects anew, and finds it. */
static bool has_left(const struct session *s, const struct gm_hdr *h)
{
	if (s->role != GM_ROLE_OPS)
		return false;
	for (unsigned int i = 0; i < s->nleft && i < HOME_REGIONS; i++)
		if (gm_in_range(h->bus, h->size, s->left[i].bus, s->left[i].size))
			return true;
	return false;
}

void home_refuse(struct session *s, const struct gm_hdr *h, int err, uint64_t *counter,
		 bool fatal)
{
	++*counter;
	log_limited(LOG_LVL_WARN, "node %s at %s: %s refused: %s",
		    s->node[0] ? s->node : "?", chan_peer(s->chan), gm_op_name(h->op),
		    strerror(-err));
	if (h->op != GM_OP_ACK)
		home_reply(s, h, err, 0, 0, 0, NULL);
	if (fatal)
		chan_fail(s->chan, err);
}

static void do_hello(struct session *s, const struct gm_hdr *h, const uint8_t *payload)
{
	struct gm_hello hello;

	memcpy(&hello, payload, sizeof(hello));
	if (s->role || !memchr(hello.node, 0, sizeof(hello.node)) ||
	    !gm_name_ok(hello.node) || !hello.role || hello.role >= GM_ROLE_MAX) {
		home_refuse(s, h, -EPROTO, &counters.bad_proto, true);
		return;
	}
	if (chan_check_peer(s->chan, hello.node)) {
		home_reply(s, h, -EPROTO, 0, 0, 0, NULL);
		chan_fail(s->chan, -EPROTO);
		return;
	}
	memcpy(s->node, hello.node, sizeof(s->node));
	s->role = hello.role;
	s->incarnation = hello.incarnation;
	home_reply(s, h, 0, s->home->lease_ms, 0, GM_NONCE_SIZE, s->nonce);
}

/* The slot that this life of that agent has in the region; -ENOENT: none. Another life's
 * slot is its own: what it holds is kept for it until its lease ends. */
static int find_slot(const struct home_region *r, const struct session *s)
{
	for (int i = 0; i < GM_SLOT_MAX; i++)
		if (r->slots[i].used && r->slots[i].incarnation == s->incarnation &&
		    !strcmp(r->slots[i].node, s->node))
			return i;
	return -ENOENT;
}

static int take_slot(struct home_region *r, struct session *s, int at)
{
	struct meta_slot *kept;
	struct slot *t;

	for (int i = 0; at < 0 && i < GM_SLOT_MAX; i++)
		if (!r->slots[i].used)
			at = i;
	if (at < 0)
		return -ENOSPC;
	t = &r->slots[at];
	kept = &r->meta->slots[at];
	if (t->session) {
		coh_cancel(r->coh, (uint8_t)at);
		chan_fail(t->session->chan, -ECONNABORTED);
	}
	t->used = true;
	memcpy(t->node, s->node, sizeof(t->node));
	t->incarnation = s->incarnation;
	t->heard_ns = clock_boot_ns();
	t->session = s;
	memcpy(kept->node, s->node, sizeof(kept->node));
	kept->incarnation = s->incarnation;
	if (!kept->used)
		kept->unkept = 0;
	__atomic_store_n(&kept->used, 1, __ATOMIC_RELEASE);
	return at;
}

/* The client that an application's thread says it is. It has lost its former connection,
 * whether that is known here or not: nothing is done any more that came on it. */
static struct once_client *take_client(struct home_region *r, struct session *s,
				       bool *known)
{
	struct once_client *c = once_client(r->meta->once, s->incarnation, known);

	for (struct session *o = c ? s->home->sessions : NULL; o; o = o->next) {
		for (int i = 0; o != s && i < o->nat; i++) {
			if (o->at[i].region != r || o->at[i].once != c)
				continue;
			o->at[i--] = o->at[--o->nat];
			chan_fail(o->chan, -ECONNABORTED);
		}
	}
	return c;
}

/* A region that is not here may be about to come: this agent is younger than the leases
 * that a former one gave. */
static int unknown(const struct home *h, uint64_t bus)
{
	for (const struct home_region *r = h->regions; r; r = r->next)
		if (r->resuming && gm_in_range(bus, 1, r->desc.bus, r->desc.size))
			return -EAGAIN;
	return home_young(h) ? -EAGAIN : -ENOENT;
}

static void do_attach(struct session *s, const struct gm_hdr *h, const uint8_t *proof)
{
	const struct table_entry *e = table_find(&s->home->exports, h->bus, 1);
	struct home_region *r = e ? e->object : NULL;
	struct gm_hdr ok = *h;
	struct moved *m = r ? NULL : home_moved_find(s->home, h->bus, 1);
	struct once_client *client = NULL;
	struct gm_attached was = { 0 };
	bool read_only = false, known = false;
	int slot = -1, had = -ENOENT;

	if (!r && m) {
		home_moved_request(m, s, h);
		return;
	}
	if (!r && s->home->mover.coming &&
	    s->home->mover.coming(s->home->mover.arg, h->bus)) {
		home_reply(s, h, -EAGAIN, 0, 0, 0, NULL);
		return;
	}
	if (!r) {
		home_refuse(s, h, unknown(s->home, h->bus), &counters.bad_range, false);
		return;
	}
	if (!gm_key_check(&r->key, s->nonce, s->id, r->desc.bus, s->node, proof)) {
		read_only = true;
		if (!gm_key_check(&r->read_key, s->nonce, s->id, r->desc.bus, s->node,
				  proof)) {
			home_refuse(s, h, -EACCES, &counters.bad_key, true);
			return;
		}
	}
	if (s->role == GM_ROLE_PAGES || s->role == GM_ROLE_BULK)
		had = find_slot(r, s);
	/* What an importer holds since before a change of epoch it holds on. */
	if (h->epoch && h->epoch != r->desc.epoch &&
	    (had < 0 || h->epoch > r->desc.epoch)) {
		home_refuse(s, h, -ESTALE, &counters.bad_epoch, false);
		return;
	}
	/* The region waits for what importers hold, so for those who come back. */
	if (!(had >= 0 && s->role == GM_ROLE_PAGES && r->frozen == HOME_SETTLING) &&
	    home_hold(s, r, h, proof))
		return;
	if (s->nat == HOME_REGIONS) {
		home_reply(s, h, -ENOSPC, 0, 0, 0, NULL);
		return;
	}
	if (s->role == GM_ROLE_PAGES) {
		slot = take_slot(r, s, had);
		if (slot < 0) {
			home_reply(s, h, slot, 0, 0, 0, NULL);
			return;
		}
	}
	/* The slot of a bulk connection is that of the same agent's first one. */
	if (s->role == GM_ROLE_BULK) {
		slot = had;
		had = -ENOENT;
		if (slot < 0) {
			home_reply(s, h, -ENOTCONN, 0, 0, 0, NULL);
			return;
		}
	}
	if (s->role == GM_ROLE_OPS && !read_only)
		client = take_client(r, s, &known);
	s->at[s->nat++] = (struct attachment){ r, slot, read_only, client };
	ok.epoch = r->desc.epoch;
	ok.key_id = read_only ? r->desc.read_key_id : r->desc.key_id;
	ok.size = dir_page_size(&r->desc);
	if (client) {
		was.done = htole64(client->done);
		was.old = htole64(client->old);
	}
	home_reply(s, &ok, 0, r->desc.size, had >= 0 || known ? GM_F_SHARED : 0,
		   client ? sizeof(was) : 0, &was);
	if (had < 0)
		return;
	home_recall(r, (uint8_t)slot);
	coh_resend(r->coh, (uint8_t)slot);
}

static bool of_pages(const struct gm_hdr *h)
{
	return h->op == GM_OP_READ || h->op == GM_OP_WRITE || h->op == GM_OP_ACK ||
	       h->op == GM_OP_FLUSH;
}

/* Whole pages of that region, and no more than a message may have? */
static bool whole(const struct home_region *r, const struct gm_hdr *h)
{
	uint32_t most = h->op == GM_OP_READ ? GM_READ_PAGES : GM_BATCH_PAGES;

	return h->bus % dir_page_size(&r->desc) == 0 &&
	       h->size % dir_page_size(&r->desc) == 0 &&
	       h->size >> r->desc.page_shift <= dir_batch(&r->desc, most);
}

static bool check(struct session *s, const struct gm_hdr *h, const struct attachment *a)
{
	const struct dir_region *d;
	bool write;

	if (!a) {
		home_refuse(s, h, -ERANGE, &counters.bad_range, true);
		return false;
	}
	d = &a->region->desc;
	if (h->key_id != (a->read_only ? d->read_key_id : d->key_id)) {
		home_refuse(s, h, -EACCES, &counters.bad_key, true);
		return false;
	}
	if (h->epoch != d->epoch && h->epoch == a->region->stayed) {
		counters.moved_told++;
		home_reply(s, h, -EREMCHG, d->epoch, 0, 0, NULL);
		return false;
	}
	if (h->epoch != d->epoch) {
		home_refuse(s, h, -ESTALE, &counters.bad_epoch, false);
		return false;
	}
	write = h->op == GM_OP_PUT || h->op == GM_OP_FADD || h->op == GM_OP_SWAP ||
		h->op == GM_OP_CAS || h->op == GM_OP_WRITE || h->op == GM_OP_FLUSH;
	if (write && a->read_only) {
		home_refuse(s, h, -EPERM, &counters.bad_access, false);
		return false;
	}
	if ((of_pages(h) && (a->slot < 0 || !whole(a->region, h))) ||
	    (h->op == GM_OP_DETACH && a->slot < 0)) {
		home_refuse(s, h, -EPROTO, &counters.bad_proto, true);
		return false;
	}
	return true;
}

static void do_ping(struct session *s, const struct gm_hdr *h)
{
	for (int i = 0; i < s->nat; i++) {
		struct home_region *r = s->at[i].region;

		if (s->at[i].slot < 0 || s->role != GM_ROLE_PAGES)
			continue;
		r->slots[s->at[i].slot].heard_ns = clock_boot_ns();
		keep_trim(&r->meta->keep, s->id, h->arg2);
	}
	home_reply(s, h, 0, h->arg, 0, 0, NULL);
}

/* The importer has sent home what it held, and ends. What it had not got by then it has
 * not changed. */
static void do_detach(struct session *s, const struct attachment *a)
{
	home_take_back(a->region, (uint8_t)a->slot);
	home_slot_dead(a->region, (uint8_t)a->slot);
	s->at[a - s->at] = s->at[--s->nat];
}

static void request(struct session *s, const struct gm_hdr *h, const uint8_t *payload)
{

	if (h->flags & GM_F_REPLY || (!s->role && h->op != GM_OP_HELLO)) {
		home_refuse(s, h, -EPROTO, &counters.bad_proto, true);
		return;
	}
	if (h->seq <= s->seq || (s->role && h->session != s->id)) {
		home_refuse(s, h, -EPROTO, &counters.bad_replay, true);
		return;
	}
	s->seq = h->seq;
	home_dispatch(s, h, payload);
}

void home_dispatch(struct session *s, const struct gm_hdr *h, const uint8_t *payload)
{
	const struct attachment *a;
	struct moved *m;

	if (h->op == GM_OP_MOVE && s->role == GM_ROLE_MOVE && s->home->mover.msg) {
		s->home->mover.msg(s->home->mover.arg, s, h, payload);
		return;
	}
	switch (h->op) {
	case GM_OP_HELLO: do_hello(s, h, payload); return;
	case GM_OP_ATTACH: do_attach(s, h, payload); return;
	case GM_OP_PING: do_ping(s, h); return;
	case GM_OP_FENCE:
		if (s->ops)
			s->fence = h->seq;
		else
			home_reply(s, h, 0, 0, 0, 0, NULL);
		return;
	}
	a = attached(s, h);
	m = a ? NULL : home_moved_find(s->home, h->bus, h->size);
	if (m) {
		home_moved_request(m, s, h);
		return;
	}
	if (!a && has_left(s, h)) {
		counters.moved_told++;
		home_reply(s, h, -EREMCHG, 0, 0, 0, NULL);
		return;
	}
	if (!check(s, h, a))
		return;
	if (s->role == GM_ROLE_BULK) {
		if (h->op == GM_OP_READ)
			home_do_bulk(s, a, h);
		else
			home_refuse(s, h, -EPROTO, &counters.bad_proto, true);
		return;
	}
	if (home_hold(s, a->region, h, payload))
		return;
	if (a->slot >= 0)
		keep_trim(&a->region->meta->keep, s->id, h->arg2);
	switch (h->op) {
	case GM_OP_GET: counters.gets++; break;
	case GM_OP_PUT: counters.puts++; break;
	case GM_OP_FADD:
	case GM_OP_SWAP:
	case GM_OP_CAS: counters.atomics++; break;
	case GM_OP_READ:
	case GM_OP_WRITE: home_do_page(s, a, h); return;
	case GM_OP_DETACH: do_detach(s, a); return;
	case GM_OP_ACK:
	case GM_OP_FLUSH: home_do_ack(s, a, h, payload); return;
	default: home_refuse(s, h, -EPROTO, &counters.bad_proto, true); return;
	}
	home_do_access(s, a->region, h, payload);
}

/* Return: the region that @h is for may have been among those that ended just now */
static bool too_late(struct session *s, const struct gm_hdr *h)
{
	struct home *home = s->home;

	if (!home->mover.expire || !home->mover.expire(home->mover.arg) || !s->role ||
	    h->op == GM_OP_ATTACH || h->op == GM_OP_PING || h->session != s->id)
		return false;
	if (h->op != GM_OP_ACK)
		home_reply(s, h, -ESTALE, 0, 0, 0, NULL);
	return true;
}

static void on_msg(void *arg, const struct gm_hdr *h, const uint8_t *payload)
{
	struct session *s = arg;

	if (too_late(s, h))
		s->seq = h->seq;
	else
		request(s, h, payload);
	if (!s->undone)
		s->done = s->seq;
	if (h->op != GM_OP_ACK || !h->len || (s->unconfirmed += h->len) < CONFIRM)
		return;
	/* Nothing else may go its way for long, and it keeps what it gave. */
	s->unconfirmed = 0;
	home_reply(s, &(struct gm_hdr){ .op = GM_OP_PING }, 0, 0, 0, 0, NULL);
}

void home_session_end(struct session *s)
{
	struct session **p = &s->home->sessions;

	if (s->role == GM_ROLE_MOVE && s->home->mover.closed)
		s->home->mover.closed(s->home->mover.arg, s);
	for (struct home_region *r = s->home->regions; r; r = r->next)
		home_held_forget(r, s);
	for (struct op *o = s->ops; o; o = o->next)
		o->session = NULL;
	for (int i = 0; i < s->nat; i++) {
		struct attachment *a = &s->at[i];

		once_leave(a->region->meta->once, a->once);
		if (a->slot < 0 || a->region->slots[a->slot].session != s)
			continue;
		a->region->slots[a->slot].session = NULL;
		coh_cancel(a->region->coh, (uint8_t)a->slot);
	}
	while (*p != s)
		p = &(*p)->next;
	*p = s->next;
	free(s);
}

static void on_closed(void *arg, int err)
{
	struct session *s = arg;

	if (err == -EBADMSG)
		counters.bad_proto++;
	if (err == -EPROTONOSUPPORT)
		counters.bad_version++;
	if (err && err != -ECONNRESET)
		log_limited(LOG_LVL_WARN, "node %s at %s: connection closed: %s",
			    s->node[0] ? s->node : "?", chan_peer(s->chan),
			    strerror(-err));
	home_session_end(s);
}

/* A huge page: of a region that has such, and that was let in, or that may come here. */
static bool fits(void *arg, const struct gm_hdr *h)
{
	const struct session *s = arg;
	const struct attachment *a = attached(s, h);

	if (h->op == GM_OP_MOVE)
		return s->role == GM_ROLE_MOVE && s->home->mover.fits &&
		       s->home->mover.fits(s->home->mover.arg, s, h);
	return a && h->len <= dir_page_size(&a->region->desc);
}

static const struct chan_ops session_ops = { .msg = on_msg,
					     .closed = on_closed,
					     .fits = fits };

static void accept_from(struct home *h, int listener, struct loop_watch *w,
			const char *addr)
{
	struct net_conn conn;
	struct session *s;
	int err;

	while (!(err = net_accept(listener, addr, h->tls, &conn))) {
		s = calloc(1, sizeof(*s));
		if (!s || getrandom(&s->id, sizeof(s->id), 0) != sizeof(s->id) ||
		    getrandom(s->nonce, sizeof(s->nonce), 0) != sizeof(s->nonce) ||
		    chan_create(h->loop, &conn, &session_ops, s, &s->chan)) {
			free(s);
			net_close(&conn);
			continue;
		}
		s->home = h;
		s->born_ns = clock_boot_ns();
		s->next = h->sessions;
		h->sessions = s;
	}
	if (err == -EAGAIN || err == -ECONNABORTED || err == -EINTR)
		return;
	log_limited(LOG_LVL_WARN, "%s: who connects has to wait: %s", addr,
		    strerror(-err));
	loop_pause(h->loop, w, LOOP_ACCEPT_PAUSE_MS);
}

void home_accept(void *arg, uint32_t events)
{
	struct home *h = arg;

	accept_from(h, h->listener, h->watch, h->addr);
	if (h->near >= 0)
		accept_from(h, h->near, h->near_watch, h->near_addr);
}
