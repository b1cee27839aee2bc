// SPDX-License-Identifier: BSD-2-Clause
/* move_in: a region of another node comes here. Theory and contract in move.h; agent's
 * thread. */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "home_int.h"
#include "meta.h"
#include "move_in_int.h"
#include "peer_int.h"
#include "../../lib/clock.h"
#include "../../lib/log.h"

#define ASK_NS 100000000ull

static void reply(struct move_in *m, const struct gm_hdr *h, int status)
{
	if (m->s)
		home_reply(m->s, h, status, 0, 0, 0, NULL);
}

/* ---- it does not come -----------------------------------------------------------------
 */

static void unlink_free(struct move_in *m)
{
	struct move_in **q = &m->agent->moves_in;

	while (*q != m)
		q = &(*q)->next;
	*q = m->next;
	gm_key_wipe(&m->key);
	gm_key_wipe(&m->read_key);
	move_key_wipe(&m->pair);
	free(m->runs);
	free(m->clients);
	free(m);
}

/* What was copied, and is no copy of an importer's, goes. */
static void drop_copied(struct peer *p)
{
	uint64_t page = 0, n;

	for (; window_data(p->win, &page, &n); page += n) {
		for (uint64_t i = page; i < page + n;) {
			uint64_t len = 0;

			while (i + len < page + n && p->held[i + len] == ABSENT)
				len++;
			if (len)
				window_drop(p->win, i, len);
			i += len ? len : 1;
		}
	}
}

static void discard(struct move_in *m, const char *why)
{
	struct import *i = m->i;

	log_warn("region %s: does not come here: %s", m->desc.name, why);
	counters.moves_failed++;
	if (i) {
		i->peer->meta->hdr->claim = 0;
		if (m->stage)
			meta_unstage(i->peer->meta);
		else
			drop_copied(i->peer);
		i->mover = NULL;
		peer_still(i->peer, false);
		/* The owner before may have gone, and answered so: ask anew, whoever it
		 * is. */
		if (m->ready && i->peer->chan && peer_clients(i->peer))
			chan_fail(i->peer->chan, -EREMCHG);
		agent_import_release(i);
	}
	unlink_free(m);
}

static void refuse(struct move_in *m, const struct gm_hdr *h, int err, const char *why)
{
	reply(m, h, err);
	discard(m, why);
}

/* ---- it comes -------------------------------------------------------------------------
 */

static void wake(void *arg, int client, uint64_t page, bool write)
{
	home_fault(arg, client, page, write);
}

/* The directory, asked at @asked_ns, says that this node is the owner. */
static void activate(struct move_in *m, const struct dir_region *now, uint64_t asked_ns)
{
	struct agent *a = m->agent;
	struct import *i = m->i, **q = &a->imports;
	struct window *win = i->peer->win;
	struct meta *meta = i->peer->meta;
	struct home_region *r;
	struct session *s = m->s;
	struct gm_hdr asked = m->asked;
	int err;

	/* Whose bytes are elsewhere has no page here. */
	for (size_t k = 0; k < m->nruns; k++)
		if (m->runs[k].state >= COH_EXCL)
			window_drop(win, m->runs[k].page, m->runs[k].pages);
	home_moved_forget(a->home, now->bus);
	err = home_adopt(a->home, now, win, meta, &r);
	if (err) {
		log_err("region %s is lost: %s", now->name, strerror(-err));
		peer_die(i->peer, GM_EV_OWNER_GONE);
		discard(m, "no memory to serve it");
		return;
	}
	home_since(r, asked_ns);
	r->former = s ? s->id : 0;
	while (*q != i)
		q = &(*q)->next;
	*q = i->next;
	agent_adopt_windows(a, i, r);
	peer_yield(i->peer, wake, r);
	free(i);
	counters.moves_in++;
	log_info("region %s has come from %s: %llu pages", now->name, m->desc.node,
		 (unsigned long long)m->pages);
	unlink_free(m);
	if (s && asked.op)
		home_reply(s, &asked, 0, 0, 0, 0, NULL);
	agent_tell_moved(a, r, NULL);
}

/* All is here; are we the owner? */
static void ask_directory(struct move_in *m)
{
	uint64_t asked_ns = clock_boot_ns();
	struct dir_region now;
	int err = agent_dir_hold(m->agent);

	assert(m->ready && m->i);
	if (!err)
		err = dir_find(m->agent->dir, m->desc.name, 0, &now);
	m->tried_ns = clock_boot_ns();
	if (err && err != -ENOENT)
		return;
	if (!err && now.bus == m->desc.bus && now.size == m->desc.size) {
		if (now.epoch == m->desc.epoch + 1 &&
		    !strcmp(now.node, m->agent->cfg.node)) {
			activate(m, &now, asked_ns);
			return;
		}
		if (now.epoch == m->desc.epoch)
			return; /* not yet, if ever */
	}
	discard(m, "the directory names another owner");
}

static void maybe_ready(struct move_in *m)
{
	struct peer *p = m->i->peer;
	struct gm_hdr h = m->asked;
	int err;

	if (!h.op || m->ready || p->dead || !p->chan || p->settled != m->id)
		return;
	m->asked.op = 0;
	err = move_in_prepare(m);
	if (err) {
		refuse(m, &h, err, strerror(-err));
		return;
	}
	m->ready = true;
	m->tried_ns = clock_boot_ns();
	reply(m, &h, 0);
}

/* ---- messages -------------------------------------------------------------------------
 */

static struct move_in *find(struct agent *a, uint64_t bus)
{
	struct move_in *m = a->moves_in;

	while (m && m->desc.bus != bus)
		m = m->next;
	return m;
}

static void begun(struct move_in *m, const struct gm_hdr *h)
{
	struct gm_move_begun b = { .pages = htole64(m->pages) };

	memcpy(b.addr, m->agent->transport.advertise, sizeof(b.addr));
	memcpy(b.public, m->pair.public, sizeof(b.public));
	home_reply(m->s, h, 0, m->agent->cfg.lease_ms, 0, sizeof(b), &b);
}

/* Return: 0: *@out is the import of the region at @bus, NULL if there is none; -EBUSY:
 * there are two: windows of one region, and two memories */
static int find_import(struct agent *a, uint64_t bus, struct import **out)
{
	struct import *found = NULL;

	for (struct import *i = a->imports; i; i = i->next) {
		if (peer_desc(i->peer)->bus != bus || peer_dead(i->peer) ||
		    peer_leaving(i->peer))
			continue;
		if (found)
			return -EBUSY;
		found = i;
	}
	*out = found;
	return 0;
}

/*
 * Is the import here the one that the owner knows? After a restart of this agent it may
 * not be here yet, and one that was made in its place would have no windows; or it may
 * be, and not be settled: then what is copied would be thrown away with all that it does
 * not hold.
 */
static bool importer_ready(struct agent *a, uint64_t bus, uint64_t incarnation)
{
	struct import *i;
	int err = find_import(a, bus, &i);

	if (err || !i)
		return !err && !incarnation;
	return htole64(i->peer->meta->hdr->incarnation) == incarnation &&
	       peer_connected(i->peer) && !peer_resuming(i->peer);
}

static void do_begin(struct agent *a, struct session *s, const struct gm_hdr *h,
		     const struct gm_move_begin *b)
{
	struct move_in *m = find(a, h->bus);
	uint64_t id = le64toh(b->id);
	struct dir_region d;
	int err;

	if (m && m->id == id && !m->ready && !strcmp(m->desc.node, s->node)) {
		m->s = s; /* it comes again */
		memcpy(m->other, b->public, sizeof(m->other));
		begun(m, h);
		return;
	}
	if (m && (m->s || m->ready)) {
		home_refuse(s, h, -EBUSY, &counters.moves_failed, false);
		return;
	}
	if (m)
		discard(m, "it begins anew");
	if (!id || !memchr(b->name, 0, sizeof(b->name)) || !gm_name_ok(b->name)) {
		home_refuse(s, h, -EPROTO, &counters.bad_proto, true);
		return;
	}
	/* Who asks must be its owner, and the region what the directory knows. */
	err = dir_find(a->dir, b->name, 0, &d);
	if (!err &&
	    (strcmp(d.node, s->node) || d.bus != h->bus || d.size != h->arg ||
	     1u << d.page_shift != h->size || d.epoch != h->epoch ||
	     d.key_id != le32toh(b->key_id) || d.read_key_id != le32toh(b->read_key_id)))
		err = -ESTALE;
	if (!err && home_find(a->home, NULL, h->bus))
		err = -EEXIST;
	if (err) {
		home_refuse(s, h, err, &counters.bad_access, false);
		return;
	}
	if (!importer_ready(a, h->bus, b->incarnation)) {
		counters.moves_put_off++;
		home_reply(s, h, -EAGAIN, 0, 0, 0, NULL);
		return;
	}
	m = calloc(1, sizeof(*m));
	if (!m || move_key_pair(&m->pair)) {
		free(m);
		home_reply(s, h, -ENOMEM, 0, 0, 0, NULL);
		return;
	}
	m->agent = a;
	m->s = s;
	m->desc = d;
	m->id = id;
	memcpy(m->other, b->public, sizeof(m->other));
	m->next = a->moves_in;
	a->moves_in = m;
	begun(m, h);
}

/* The region is imported with the right key. Both sides are sure of one another. */
static int use_import(struct move_in *m, struct import *found)
{
	const struct gm_key *k = peer_key(found->peer);
	int err;

	/* Readers here have nobody that would hold them to reading. */
	if (peer_read_only(found->peer) || k->len != m->key.len ||
	    memcmp(k->bytes, m->key.bytes, k->len))
		return -EPERM; /* the import ends when nobody maps it for long */
	err = window_back(found->peer->win);
	if (err)
		return err;
	m->stage = window_lacks(found->peer->win) & WINDOW_NO_MINOR;
	if (m->stage || found->peer->meta->hdr->staged)
		meta_unstage(found->peer->meta);
	found->peer->meta->hdr->staged = m->stage;
	peer_still(found->peer, true);
	m->i = found;
	found->mover = m;
	return 0;
}

/* Import the region, or use the import there is. The owner checks the key. Return: 0; 1:
 * move_in_opened() follows; -errno */
static int open_import(struct move_in *m)
{
	struct agent *a = m->agent;
	struct import *found;
	int err = find_import(a, m->desc.bus, &found);

	if (err)
		return err;
	if (!found) {
		err = agent_import_open(a, &m->desc, &m->key, &found);
		if (err)
			return err;
	}
	if (!peer_opening(found->peer))
		return use_import(m, found);
	m->opening = found;
	return 1;
}

void move_in_opened(struct import *i, int err)
{
	for (struct move_in *m = i->agent->moves_in, *next; m; m = next) {
		struct gm_hdr h = m->asked;

		next = m->next;
		if (m->opening != i)
			continue;
		m->opening = NULL;
		m->asked.op = 0;
		if (!err)
			err = use_import(m, i);
		if (err)
			refuse(m, &h, err, strerror(-err));
		else
			reply(m, &h, 0);
	}
}

static void do_keys(struct move_in *m, const struct gm_hdr *h,
		    const struct gm_move_keys *k)
{
	struct gm_key key, read_key;
	int err = move_key_open(&m->pair, m->other, m->id, m->desc.bus, k->sealed, &key,
				&read_key);

	if (!err && m->i &&
	    (key.len != m->key.len || memcmp(key.bytes, m->key.bytes, key.len)))
		err = -EACCES; /* other ones than before the connection was lost */
	if (!err) {
		m->key = key;
		m->read_key = read_key;
		m->key.id = m->desc.key_id;
		m->read_key.id = m->desc.read_key_id;
	}
	gm_key_wipe(&key);
	gm_key_wipe(&read_key);
	if (!err && m->opening)
		err = -EPROTO;
	if (!err && !m->i)
		err = open_import(m);
	if (err < 0)
		refuse(m, h, err, strerror(-err));
	else if (err)
		m->asked = *h;
	else
		reply(m, h, 0);
}

static void do_pages(struct move_in *m, const struct gm_hdr *h, const uint8_t *bytes)
{
	struct peer *p = m->i->peer;
	struct meta *meta = p->meta;
	unsigned int shift = m->desc.page_shift;
	uint64_t page = dir_page(&m->desc, h->bus);
	uint32_t n = h->size >> shift;

	for (uint32_t i = 0; i < n; i++) {
		uint8_t *to = m->stage ? meta->stage + ((page + i) << shift)
				       : window_page(p->win, page + i);

		if (p->held[page + i] != ABSENT)
			continue;
		if (!m->stage && window_room(p->win, page + i, 1)) {
			refuse(m, h, -ENOBUFS, "no huge page for it");
			return;
		}
		memcpy(to, bytes + ((size_t)i << shift), (size_t)1 << shift);
		if (m->stage)
			meta->staged[page + i] = 1;
	}
	m->pages += n;
	counters.move_pages_in += n;
	reply(m, h, 0);
}

/* The directory has told us before its former owner does. */
static bool has_come(const struct agent *a, const struct session *s,
		     const struct gm_hdr *h)
{
	const struct home_region *r = home_find(a->home, NULL, h->bus);

	return r && r->former == s->id && h->epoch + 1 == r->desc.epoch;
}

/* After BEGIN and KEYS. */
static void do_rest(struct move_in *m, const struct gm_hdr *h, const uint8_t *payload)
{
	uint32_t page = 1u << m->desc.page_shift;
	int err = -EPROTO; /* out of turn */

	if (m->i->peer->dead) {
		refuse(m, h, -EIO, "its owner is gone");
		return;
	}
	switch (h->arg2) {
	case GM_MOVE_PAGES:
		if (m->ready ||
		    !gm_in_range(h->bus, h->size, m->desc.bus, m->desc.size) ||
		    h->bus % page || h->size % page)
			break;
		do_pages(m, h, payload);
		return;
	case GM_MOVE_SLOTS:
		err = m->nslots ? -EPROTO : move_in_slots(m, h, payload);
		break;
	case GM_MOVE_CLIENTS:
		err = m->ready ? -EPROTO : move_in_clients(m, h, payload);
		break;
	case GM_MOVE_TABLE:
		err = m->ready ? -EPROTO : move_in_table(m, h, payload);
		break;
	case GM_MOVE_READY:
		if (!m->nslots || h->arg != m->nruns || m->ready)
			break;
		m->asked = *h;
		maybe_ready(m);
		return;
	case GM_MOVE_COMMIT:
		if (!m->ready)
			break;
		m->asked = *h;
		ask_directory(m);
		return;
	}
	if (err)
		refuse(m, h, err, strerror(-err));
	else
		reply(m, h, 0);
}

void move_in_msg(void *arg, struct session *s, const struct gm_hdr *h,
		 const uint8_t *payload)
{
	struct agent *a = arg;
	struct gm_move_begin b;
	struct gm_move_keys k;
	struct move_in *m;

	if (h->arg2 == GM_MOVE_BEGIN) {
		memcpy(&b, payload, sizeof(b));
		do_begin(a, s, h, &b);
		return;
	}
	for (m = a->moves_in; m && m->s != s; m = m->next)
		;
	if (m && h->arg2 == GM_MOVE_ABORT) {
		reply(m, h, 0);
		discard(m, "its owner has changed its mind");
	} else if (m && h->epoch != m->desc.epoch) {
		counters.bad_epoch++;
		refuse(m, h, -ESTALE, "another epoch");
	} else if (m && h->arg2 == GM_MOVE_KEYS) {
		memcpy(&k, payload, sizeof(k));
		do_keys(m, h, &k);
	} else if (m && m->i) {
		do_rest(m, h, payload);
	} else if (h->arg2 == GM_MOVE_COMMIT && has_come(a, s, h)) {
		home_reply(s, h, 0, 0, 0, 0, NULL);
	} else {
		home_refuse(s, h, -EPROTO, &counters.bad_proto, true);
	}
}

/* ---- what happens meanwhile
 * ------------------------------------------------------------- */

bool move_in_fits(void *arg, const struct session *s, const struct gm_hdr *h)
{
	const struct agent *a = arg;
	const struct move_in *m = a->moves_in;

	while (m && m->s != s)
		m = m->next;
	return m && m->i && h->len <= 1u << m->desc.page_shift &&
	       gm_in_range(h->bus, h->size, m->desc.bus, m->desc.size);
}

void move_in_closed(void *arg, struct session *s)
{
	struct agent *a = arg;

	for (struct move_in *m = a->moves_in, *next; m; m = next) {
		next = m->next;
		if (m->s != s)
			continue;
		m->s = NULL;
		m->asked.op = 0;
		m->lost_ns = clock_boot_ns();
		if (m->ready)
			ask_directory(m);
		else if (m->nslots || !m->i)
			discard(m, "its owner is gone");
	}
}

bool move_in_coming(void *arg, uint64_t bus)
{
	struct agent *a = arg;

	for (struct move_in *m = a->moves_in; m; m = m->next)
		if (m->ready && gm_in_range(bus, 1, m->desc.bus, m->desc.size))
			return true;
	return false;
}

void move_in_settled(struct import *i)
{
	if (i->mover)
		maybe_ready(i->mover);
}

void move_in_tick(struct agent *a)
{
	uint64_t now = clock_boot_ns();

	for (struct move_in *m = a->moves_in, *next; m; m = next) {
		uint64_t lease_ns = (uint64_t)m->desc.lease_ms * 1000000;

		next = m->next;
		if (m->i && m->i->peer->dead)
			discard(m, "its owner is gone");
		else if (m->ready && now - m->tried_ns > ASK_NS)
			ask_directory(m);
		else if (!m->ready && !m->s && now - m->lost_ns > lease_ns)
			discard(m, "its owner does not come again");
	}
}

void move_in_destroy_all(struct agent *a)
{
	for (struct move_in *m = a->moves_in, *next; m; m = next) {
		next = m->next;
		if (!m->ready) {
			discard(m, "this agent ends");
			continue;
		}
		/* The one that comes after it asks the directory. */
		m->i->mover = NULL;
		unlink_free(m);
	}
}
