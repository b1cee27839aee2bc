// SPDX-License-Identifier: BSD-2-Clause
/* move_out: a region of this node goes to another. Theory and contract in move.h; agent's
 * thread. */
#include <endian.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "move_out_int.h"
#include "../../lib/clock.h"
#include "../../lib/log.h"

#define CONNECT_MS 300
#define RETRY_NS   100000000ull
#define TOLD_NS	   200000000ull /* between two lines of progress */
/* Pages of the smallest size; sent while the region stands still */
#define FEW    256
#define ROUNDS 16

static const char *const phases[] = {
	[OUT_CONNECT] = "connect", [OUT_BEGIN] = "connect", [OUT_COPY] = "copy",
	[OUT_SETTLE] = "switch",   [OUT_READY] = "switch",  [OUT_UNKNOWN] = "commit",
	[OUT_HANDOVER] = "commit",
};

static uint64_t lease_ns(const struct move_out *m)
{
	return (uint64_t)m->next_desc.lease_ms * 1000000;
}

/* ---- what the application hears -------------------------------------------------------
 */

void move_out_tell(struct move_out *m, const char *phase)
{
	struct local_msg l = { .magic = LOCAL_MAGIC, .op = LOCAL_MOVE, .more = 1 };
	json_t *v;
	char *text;

	m->told_ns = clock_boot_ns();
	if (!m->app)
		return;
	v = json_pack("{s:s,s:i,s:I,s:I}", "phase", phase, "round", m->round, "pages",
		      (json_int_t)m->pages, "left",
		      (json_int_t)(m->r ? m->r->ndirty : 0));
	text = v ? json_dumps(v, JSON_COMPACT) : NULL;
	json_decref(v);
	if (!text)
		return;
	l.text_len = (uint32_t)strlen(text);
	memcpy(l.text, text, l.text_len);
	free(text);
	local_send(m->app->sock, &l, NULL, 0);
}

static void answer(struct move_out *m, int err)
{
	struct local_msg l = { .magic = LOCAL_MAGIC, .op = LOCAL_MOVE, .status = err };
	uint64_t now = clock_boot_ns();
	char *text = NULL;
	json_t *v;

	if (!m->app)
		return;
	if (!err) {
		v = json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:i,s:f,s:f}", "moved",
			      m->next_desc.name, "from", m->agent->cfg.node, "to",
			      m->next_desc.node, "bus", (json_int_t)m->next_desc.bus,
			      "epoch", (json_int_t)m->next_desc.epoch, "pages",
			      (json_int_t)m->pages, "rounds", m->round, "switch_ms",
			      (double)(now - m->frozen_ns) / 1e6, "total_ms",
			      (double)(now - m->start_ns) / 1e6);
		text = v ? json_dumps(v, JSON_COMPACT) : NULL;
		json_decref(v);
	}
	if (text) {
		l.text_len = (uint32_t)strlen(text);
		memcpy(l.text, text, l.text_len);
		free(text);
	}
	local_send(m->app->sock, &l, NULL, 0);
	m->app = NULL;
}

/* ---- the end
 * --------------------------------------------------------------------------- */

static void unlink_free(struct move_out *m)
{
	struct move_out **q = &m->agent->moves_out;

	while (*q != m)
		q = &(*q)->next;
	*q = m->next;
	dial_cancel(m->dial);
	chan_close(m->chan);
	move_key_wipe(&m->pair);
	free(m);
}

void move_out_done(struct move_out *m, int err)
{
	answer(m, err);
	unlink_free(m);
}

void move_out_fail(struct move_out *m, int err)
{
	struct home_region *r = m->r;

	/* The other side may have all it needs: what it waits for must not come any more,
	 * before anything changes here. */
	if (m->state == OUT_READY) {
		m->state = OUT_UNKNOWN;
		m->err = err;
		m->tried_ns = 0;
		move_out_resolve(m);
		return;
	}
	if (m->chan && m->session)
		move_out_send(m, GM_MOVE_ABORT, 0, 0, 0, 0, NULL);
	counters.moves_failed++;
	log_warn("region %s: not moved to %s: %s", m->next_desc.name, m->next_desc.node,
		 strerror(-err));
	answer(m, err);
	r->mover = NULL;
	m->r = NULL;
	unlink_free(m);
	r->meta->hdr->claim = 0;
	r->meta->hdr->incarnation = 0;
	home_thaw(r);
}

/* ---- the connection
 * --------------------------------------------------------------------- */

void move_out_send(struct move_out *m, enum gm_move kind, uint64_t bus, uint32_t size,
		   uint64_t arg, uint32_t len, const void *payload)
{
	struct gm_hdr h = { .op = GM_OP_MOVE,
			    .len = len,
			    .seq = ++m->seq,
			    .session = m->session,
			    .bus = bus ? bus : m->next_desc.bus,
			    .size = size,
			    .epoch = m->next_desc.epoch - 1,
			    .arg = arg,
			    .arg2 = kind };

	if (m->chan)
		chan_send(m->chan, &h, payload);
}

/* Pages under way when the connection was lost are to be sent again. */
static void lost(struct move_out *m, int err)
{
	m->chan = NULL;
	m->session = 0;
	while (m->nsent) {
		home_dirty(m->r, m->sent[m->sent_at].page, m->sent[m->sent_at].n);
		m->sent_at = (m->sent_at + 1) % OUT_WINDOW;
		m->nsent--;
	}
	m->state = OUT_CONNECT;
	m->err = err ? err : -ECONNRESET;
	if (!m->lost_ns)
		m->lost_ns = clock_boot_ns();
}

static void on_closed(void *arg, int err)
{
	struct move_out *m = arg;

	switch (m->state) {
	case OUT_CONNECT:
	case OUT_BEGIN:
	case OUT_COPY: lost(m, err); return;
	case OUT_SETTLE:
	case OUT_READY:
		m->chan = NULL;
		move_out_fail(m, err ? err : -ECONNRESET);
		return;
	case OUT_HANDOVER:
		m->chan = NULL;
		move_out_leave(m);
		return;
	default: m->chan = NULL; return;
	}
}

static void send_hello(struct move_out *m)
{
	struct gm_hello hello = { .role = GM_ROLE_MOVE,
				  .incarnation = htole64(m->incarnation) };
	struct gm_hdr h = { .op = GM_OP_HELLO, .len = sizeof(hello), .seq = m->seq = 1 };

	strncpy(hello.node, m->agent->cfg.node, sizeof(hello.node) - 1);
	chan_send(m->chan, &h, &hello);
}

/* Not while the importer there is away: it comes back, or its lease ends. */
static void send_begin(struct move_out *m)
{
	int to = move_out_slot(m->r, m->next_desc.node);
	const struct slot *t = to < 0 ? NULL : &m->r->slots[to];
	struct gm_move_begin b = { .id = htole64(m->id),
				   .incarnation = t ? t->incarnation : 0,
				   .key_id = htole32(m->next_desc.key_id),
				   .read_key_id = htole32(m->next_desc.read_key_id) };

	m->tried_ns = clock_boot_ns();
	m->begun = !t || t->session;
	if (!m->begun) {
		counters.moves_put_off++;
		return;
	}
	memcpy(b.name, m->next_desc.name, sizeof(b.name));
	memcpy(b.public, m->pair.public, sizeof(b.public));
	move_out_send(m, GM_MOVE_BEGIN, 0, dir_page_size(&m->r->desc), m->next_desc.size,
		      sizeof(b), &b);
}

static int on_begun(struct move_out *m, const struct gm_hdr *h, const uint8_t *payload)
{
	struct gm_move_begun b;
	struct gm_move_keys k;
	int err;

	memcpy(&b, payload, sizeof(b));
	if (!memchr(b.addr, 0, sizeof(b.addr)) || h->arg < 100 || h->arg > 60000)
		return -EPROTO;
	memcpy(m->next_desc.addr, b.addr, sizeof(m->next_desc.addr));
	m->next_desc.lease_ms = (uint32_t)h->arg;
	/* It does not know what it got before, or never got it. */
	if (!b.pages)
		home_move_all(m->r);
	err = move_key_seal(&m->pair, b.public, m->id, m->next_desc.bus,
			    home_key(m->r, false), home_key(m->r, true), k.sealed);
	if (!err)
		move_out_send(m, GM_MOVE_KEYS, 0, 0, 0, sizeof(k), &k);
	return err;
}

/* May no more be under way? */
static bool full(const struct move_out *m)
{
	uint32_t most = dir_batch(&m->r->desc, OUT_PAGES), n = 0;

	for (unsigned int i = 0; i < m->nsent; i++)
		n += m->sent[(m->sent_at + i) % OUT_WINDOW].n;
	return m->nsent == OUT_WINDOW || (m->nsent && n >= most);
}

static void pump(struct move_out *m)
{
	uint64_t page;
	uint32_t n;

	while (!full(m)) {
		int got = home_move_next(m->r, &m->cursor, &page, &n);
		unsigned int at = (m->sent_at + m->nsent) % OUT_WINDOW;

		if (got < 0) {
			move_out_fail(m, got);
			return;
		}
		if (!got)
			break;
		m->sent[at].page = page;
		m->sent[at].n = n;
		m->nsent++;
		m->pages += n;
		counters.move_pages_out += n;
		move_out_send(m, GM_MOVE_PAGES, dir_page_bus(&m->r->desc, page),
			      n << m->r->desc.page_shift, 0, n << m->r->desc.page_shift,
			      window_page(m->r->win, page));
	}
	if (full(m))
		return;
	if (m->state == OUT_SETTLE) {
		move_out_settle(m);
		return;
	}
	/* A round is over. */
	if (m->nsent)
		return;
	m->round++;
	if (m->r->ndirty <= dir_batch(&m->r->desc, FEW) || m->round >= ROUNDS ||
	    (m->round > 3 && m->r->ndirty >= m->left)) {
		m->r->frozen = HOME_SETTLING;
		m->frozen_ns = clock_boot_ns();
		m->state = OUT_SETTLE;
		move_out_tell(m, phases[OUT_SETTLE]);
	}
	m->left = m->r->ndirty;
	pump(m);
}

static void on_reply(struct move_out *m, const struct gm_hdr *h, const uint8_t *payload)
{
	int err = h->status;

	if (err == -EAGAIN && h->arg2 == GM_MOVE_BEGIN && m->state == OUT_BEGIN) {
		m->begun = false;
		return;
	}
	if (!err && h->arg2 == GM_MOVE_BEGIN && m->state == OUT_BEGIN)
		err = on_begun(m, h, payload);
	if (err) {
		/* After the directory has changed there is nothing to go back to. */
		if (m->state == OUT_HANDOVER)
			move_out_leave(m);
		else if (m->state < OUT_UNKNOWN)
			move_out_fail(m, err);
		return;
	}
	switch (h->arg2) {
	case GM_MOVE_KEYS:
		if (m->state != OUT_BEGIN)
			return;
		m->state = OUT_COPY;
		m->lost_ns = 0;
		pump(m);
		return;
	case GM_MOVE_PAGES:
		if (!m->nsent)
			break;
		m->sent_at = (m->sent_at + 1) % OUT_WINDOW;
		m->nsent--;
		if (m->state == OUT_COPY || m->state == OUT_SETTLE)
			pump(m);
		return;
	case GM_MOVE_READY:
		if (m->state != OUT_READY)
			break;
		move_out_commit(m);
		return;
	case GM_MOVE_COMMIT:
		if (m->state == OUT_HANDOVER)
			move_out_leave(m);
		return;
	default: return;
	}
	chan_fail(m->chan, -EPROTO);
}

static void on_msg(void *arg, const struct gm_hdr *h, const uint8_t *payload)
{
	struct move_out *m = arg;

	if (h->flags & GM_F_REPLY && h->op == GM_OP_HELLO && m->state == OUT_CONNECT &&
	    !h->status) {
		m->session = h->session;
		m->state = OUT_BEGIN;
		send_begin(m);
	} else if (h->flags & GM_F_REPLY && h->op == GM_OP_MOVE &&
		   h->session == m->session) {
		on_reply(m, h, payload);
	} else {
		chan_fail(m->chan, -EPROTO);
	}
}

static const struct chan_ops out_ops = { .msg = on_msg, .closed = on_closed };

static void connected(void *arg, int err, struct dial_done *d)
{
	struct move_out *m = arg;

	m->dial = NULL;
	if (!err) {
		err = chan_create(m->agent->loop, &d->conn, &out_ops, m, &m->chan);
		if (err)
			net_close(&d->conn);
	}
	if (!err) {
		send_hello(m);
		return;
	}
	m->err = err;
	/* It has never been there. */
	if (!m->lost_ns)
		move_out_fail(m, err);
}

static int connect_to(struct move_out *m)
{
	struct dial_to to = { .addr = m->addr,
			      .tls = m->agent->transport.tls,
			      .peer = m->next_desc.node };

	m->tried_ns = clock_boot_ns();
	return dial_start(m->agent->loop, &to, CONNECT_MS, connected, m, &m->dial);
}

/* ---- from outside
 * ------------------------------------------------------------------------ */

int move_out_start(struct app *app, const struct local_msg *l)
{
	struct agent *a = app->agent;
	struct home_region *r = home_find(a->home, l->name, 0);
	const struct gm_key *k;
	struct dir_region d;
	struct move_out *m;
	int err;

	if (!gm_name_ok(l->name) || !gm_name_ok(l->node))
		return -EINVAL;
	if (!r) {
		err = dir_find(a->dir, l->name, 0, &d);
		return err ? err : -EREMOTE;
	}
	k = home_key(r, false);
	if (l->key.len != k->len || memcmp(l->key.bytes, k->bytes, k->len))
		return -EACCES;
	if (!strcmp(l->node, a->cfg.node))
		return -EINVAL;
	if (r->mover)
		return -EBUSY;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->agent = a;
	m->app = app;
	m->r = r;
	m->start_ns = clock_boot_ns();
	m->next_desc = r->desc;
	m->next_desc.epoch++;
	strcpy(m->next_desc.node, l->node);
	err = dir_node(a->dir, l->node, m->addr);
	if (err)
		err = err == -ENOENT ? -EHOSTUNREACH : err;
	if (!err)
		err = move_key_pair(&m->pair);
	if (!err && getrandom(&m->id, sizeof(m->id), 0) != sizeof(m->id))
		err = -EIO;
	if (!err && getrandom(&m->incarnation, sizeof(m->incarnation), 0) < 0)
		err = -EIO;
	m->id |= 1;
	if (!err)
		err = connect_to(m);
	if (!err)
		err = home_move_begin(r);
	if (err) {
		dial_cancel(m->dial);
		free(m);
		return err;
	}
	r->mover = m;
	m->next = a->moves_out;
	a->moves_out = m;
	log_info("region %s: moving to %s at %s", r->desc.name, l->node, m->addr);
	return 0;
}

static void tick(struct move_out *m, uint64_t now)
{
	if (now - m->told_ns > TOLD_NS && m->state < OUT_UNKNOWN)
		move_out_tell(m, phases[m->state]);
	switch (m->state) {
	case OUT_CONNECT:
	case OUT_BEGIN:
		if (m->lost_ns && now - m->lost_ns > lease_ns(m))
			move_out_fail(m, m->err);
		else if (!m->lost_ns && now - m->start_ns > 5000000000ull)
			move_out_fail(m, -ETIMEDOUT);
		else if (m->dial)
			dial_tick(m->dial);
		else if (m->state == OUT_BEGIN && !m->begun &&
			 now - m->tried_ns > RETRY_NS)
			send_begin(m);
		else if (!m->chan && now - m->tried_ns > RETRY_NS)
			m->err = connect_to(m) ?: m->err;
		return;
	case OUT_COPY: return;
	case OUT_SETTLE:
	case OUT_READY:
		/* Others wait; half a lease is what they can. */
		if (now - m->frozen_ns > lease_ns(m) / 2)
			move_out_fail(m, -ETIMEDOUT);
		else if (m->state == OUT_SETTLE)
			pump(m);
		return;
	case OUT_UNKNOWN: move_out_resolve(m); return;
	case OUT_HANDOVER:
		if (now - m->handover_ns > lease_ns(m) / 4)
			move_out_leave(m);
		return;
	}
}

void move_out_tick(struct agent *a)
{
	uint64_t now = clock_boot_ns();

	for (struct move_out *m = a->moves_out, *next; m; m = next) {
		next = m->next;
		tick(m, now);
	}
}

void move_out_app_gone(struct app *app)
{
	for (struct move_out *m = app->agent->moves_out, *next; m; m = next) {
		next = m->next;
		if (m->app != app)
			continue;
		m->app = NULL;
		if (m->state < OUT_UNKNOWN)
			move_out_fail(m, -ECANCELED);
	}
}

void move_out_region_gone(struct home_region *r)
{
	struct move_out *m = r->mover;

	if (m->chan && m->session && m->state < OUT_UNKNOWN)
		move_out_send(m, GM_MOVE_ABORT, 0, 0, 0, 0, NULL);
	counters.moves_failed++;
	answer(m, -ESTALE);
	r->mover = NULL;
	m->r = NULL;
	unlink_free(m);
}

void move_out_answered(struct home_region *r)
{
	if (r->mover->state == OUT_SETTLE)
		pump(r->mover);
}

void move_out_destroy_all(struct agent *a)
{
	for (struct move_out *m = a->moves_out, *next; m; m = next) {
		next = m->next;
		if (m->state == OUT_HANDOVER) {
			move_out_leave(m);
		} else if (m->state >= OUT_READY) {
			/* The one that comes after this one asks the directory. */
			m->r->mover = NULL;
			move_out_done(m, -ECANCELED);
		} else {
			move_out_fail(m, -ECANCELED);
		}
	}
}
