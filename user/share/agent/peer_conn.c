// SPDX-License-Identifier: BSD-2-Clause
/* peer_conn: connection to an owner. Contract in peer_int.h; agent's thread. */
#include <errno.h>
#include <string.h>

#include "bulk.h"
#include "peer_int.h"
#include "../../lib/clock.h"
#include "../../lib/log.h"

void peer_send(struct peer *p, struct gm_hdr *h, const void *payload)
{
	h->seq = ++p->seq;
	h->session = p->session;
	h->key_id = p->key_id;
	h->epoch = p->desc.epoch;
	h->arg2 = p->confirmed = p->grants;
	if (p->chan)
		chan_send(p->chan, h, payload);
}

/* The owner has heard what was sent at @ns: the lease runs from there. */
static void alive(struct peer *p, uint64_t ns)
{
	p->alive_ns = ns;
	__atomic_store_n(&p->meta->hdr->valid_ns,
			 ns + (uint64_t)p->desc.lease_ms * 1000000, __ATOMIC_RELEASE);
}

static void event(struct peer *p, const struct gm_hdr *h, const uint8_t *payload)
{
	struct gm_moved to;

	switch (h->arg) {
	case GM_EV_MOVED:
		memcpy(&to, payload, sizeof(to));
		peer_follow(p, &to);
		return;
	case GM_EV_MOVING:
		p->settled = h->seq;
		p->event(p->arg, p, GM_EV_MOVING);
		return;
	case GM_EV_PAGES_LOST: p->event(p->arg, p, GM_EV_PAGES_LOST); return;
	case GM_EV_HEALED:
		if (gm_in_range(h->bus, h->size, p->desc.bus, p->desc.size))
			window_renew(p->win, dir_page(&p->desc, h->bus),
				     h->size >> p->desc.page_shift);
		return;
	default: peer_die(p, (int)h->arg); return;
	}
}

static void on_msg(void *arg, const struct gm_hdr *h, const uint8_t *payload)
{
	struct peer *p = arg;

	if (peer_over(p))
		return;
	if (h->session == p->session)
		keep_trim(&p->meta->given, p->session, h->arg2);
	if (p->ninvs)
		peer_inv_again(p);
	switch (h->op) {
	case GM_OP_READ:
	case GM_OP_WRITE:
		if (h->flags & GM_F_REPLY && h->session == p->session) {
			peer_grant(p, h, payload);
			peer_request_waiting(p);
			return;
		}
		break;
	case GM_OP_INV:
		if (gm_in_range(h->bus, h->size, p->desc.bus, p->desc.size) &&
		    h->bus % dir_page_size(&p->desc) == 0 &&
		    h->size % dir_page_size(&p->desc) == 0 && h->epoch == p->desc.epoch) {
			peer_inv(p, h);
			return;
		}
		break;
	case GM_OP_PING:
		if (h->flags & GM_F_REPLY && !h->status) {
			if (h->arg > p->alive_ns && h->arg <= clock_boot_ns())
				alive(p, h->arg);
			return;
		}
		break;
	case GM_OP_FENCE: peer_fenced(p); return;
	case GM_OP_FLUSH: peer_flushed(p, h); return;
	case GM_OP_EVENT: event(p, h, payload); return;
	}
	chan_fail(p->chan, -EBADMSG);
}

static void on_closed(void *arg, int err)
{
	struct peer *p = arg;

	log_limited(LOG_LVL_WARN, "region %s: connection to %s lost: %s", p->desc.name,
		    p->desc.node, err ? strerror(-err) : "closed");
	p->chan = NULL;
	peer_not_fenced(p);
	bulk_close(p);
	peer_opened(p, err ? err : -ECONNRESET);
}

static bool fits(void *arg, const struct gm_hdr *h)
{
	const struct peer *p = arg;

	return h->len <= dir_page_size(&p->desc);
}

static const struct chan_ops peer_ops = { .msg = on_msg,
					  .closed = on_closed,
					  .fits = fits };

/* ---- connecting ------------------------------------------------------------------- */

int peer_dial_as(struct peer *p, enum gm_role role, int timeout_ms,
		 void (*done)(void *arg, int err, struct dial_done *d), struct dial **out)
{
	struct dial_to to = { .addr = p->desc.addr,
			      .tls = p->tls,
			      .peer = p->desc.node,
			      .role = role,
			      .node = p->node,
			      .incarnation = p->meta->hdr->incarnation,
			      .key = &p->key,
			      .bus = p->desc.bus,
			      .epoch = p->desc.epoch };

	return dial_start(p->loop, &to, timeout_ms, done, p, out);
}

int peer_admitted(const struct peer *p, enum gm_role role, const struct dial_done *d)
{
	const struct gm_hdr *h = &d->attach;

	/* An owner that knows us may have another epoch by now, one that does not has
	 * given to others what we hold. */
	if (h->arg != p->desc.size || h->size != dir_page_size(&p->desc) ||
	    (p->known && role == GM_ROLE_PAGES
		     ? !(h->flags & GM_F_SHARED) || h->epoch < p->desc.epoch
		     : h->epoch != p->desc.epoch))
		return -ESTALE;
	return 0;
}

void peer_opened(struct peer *p, int err)
{
	if (!p->opening)
		return;
	p->opening = false;
	p->lost = err;
	if (err)
		p->dead = true;
	else
		meta_seal(p->meta);
	p->event(p->arg, p, PEER_OPENED);
}

static int admit(struct peer *p, struct dial_done *d)
{
	int err = peer_admitted(p, GM_ROLE_PAGES, d);

	if (err)
		return err;
	err = chan_create(p->loop, &d->conn, &peer_ops, p, &p->chan);
	if (err)
		return err;
	p->desc.epoch = p->meta->hdr->epoch = d->attach.epoch;
	p->key_id = d->attach.key_id;
	p->read_only = d->attach.key_id != p->desc.key_id;
	p->session = d->session;
	p->seq = DIAL_SEQ;
	p->grants = p->confirmed = 0;
	p->known = true;
	alive(p, d->asked_ns);
	return 0;
}

static void connected(void *arg, int err, struct dial_done *d)
{
	struct peer *p = arg;

	p->dial = NULL;
	if (!err) {
		err = admit(p, d);
		if (err)
			net_close(&d->conn);
	}
	if (p->opening) {
		if (err || !peer_open_bulk(p, peer_patience_ms(p)))
			peer_opened(p, err);
		return;
	}
	p->lost = err;
	if (!err) {
		counters.reconnects++;
		/* What was healed meanwhile, nobody has said here. */
		if (p->meta->hdr->poisoned)
			window_renew(p->win, 0, window_pages(p->win));
		peer_repeat(p);
	} else if (err == -ENOENT || err == -EACCES) {
		peer_die(p, err == -EACCES ? GM_EV_REVOKED : GM_EV_OWNER_GONE);
	}
}

void peer_dial(struct peer *p, int timeout_ms)
{
	if (p->dial)
		return;
	if (peer_dial_as(p, GM_ROLE_PAGES, timeout_ms, connected, &p->dial))
		log_limited(LOG_LVL_WARN, "region %s: no memory to connect to %s",
			    p->desc.name, p->desc.node);
}

static void bulk_made(void *arg, int err, struct dial_done *d)
{
	struct peer *p = arg;

	p->bulk_dial = NULL;
	if (!err) {
		err = peer_admitted(p, GM_ROLE_BULK, d);
		if (!err)
			err = bulk_open(p, &d->conn, d->session);
		if (err)
			net_close(&d->conn);
	}
	/* Without it pages come one request at a time: no reason to fail. */
	if (err)
		log_limited(LOG_LVL_WARN, "region %s: no bulk connection to %s: %s",
			    p->desc.name, p->desc.node, strerror(-err));
	peer_opened(p, 0);
}

bool peer_open_bulk(struct peer *p, int timeout_ms)
{
	uint64_t least = dir_batch(&p->desc, PEER_BULK_PAGES);

	if (p->still || window_pages(p->win) < (least > 1 ? least : 2) || p->bulk_dial)
		return false;
	p->bulk_ns = clock_boot_ns();
	return !peer_dial_as(p, GM_ROLE_BULK, timeout_ms, bulk_made, &p->bulk_dial);
}
