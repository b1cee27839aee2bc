// SPDX-License-Identifier: BSD-2-Clause
/* peer: regions of other nodes. Theory and contract in peer.h; agent's thread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "../local.h"
#include "bulk.h"
#include "peer_int.h"
#include "../../lib/clock.h"
#include "../../lib/log.h"

#define RECONNECT_MS 400

/* The lease is over: hold nothing, let nobody wait. */
void peer_die(struct peer *p, int ev)
{
	uint64_t n = window_pages(p->win);

	if (p->dead)
		return;
	p->dead = true;
	dial_cancel(p->dial);
	p->dial = NULL;
	chan_close(p->chan);
	p->chan = NULL;
	window_protect(p->win, 0, n);
	window_drop(p->win, 0, n);
	memset(p->held, ABSENT, n);
	p->ninvs = 0;
	p->meta->hdr->incarnation = 0; /* no other agent goes on with this */
	for (int i = 0; i < PEER_BUCKETS; i++) {
		while (p->pending[i])
			peer_poison_pending(p, &p->pending[i]);
	}
	bulk_close(p);
	counters.owners_lost++;
	p->event(p->arg, p, ev);
}

#define BULK_RETRY_NS 1000000000ull
#define BULK_RETRY_MS 400

/* A region around @meta; it and @memfd are taken, also on failure. */
static int create(struct loop *l, const char *node, const struct net_tls *tls,
		  const struct dir_region *r, const struct gm_key *key, int memfd,
		  struct meta *meta, void (*event)(void *arg, struct peer *p, int ev),
		  void *arg, struct peer **out)
{
	struct peer *p = calloc(1, sizeof(*p));
	int err = p ? window_create(memfd, r->size, r->page_shift, &p->win) : -ENOMEM;

	if (err) {
		meta_destroy(meta);
		close(memfd);
		free(p);
		return err;
	}
	p->loop = l;
	strncpy(p->node, node, sizeof(p->node) - 1);
	p->tls = tls;
	p->desc = *r;
	p->key = *key;
	p->event = event;
	p->arg = arg;
	p->meta = meta;
	p->held = meta->held;
	*out = p;
	return 0;
}

int peer_create(struct loop *l, const char *node, const struct net_tls *tls,
		const struct dir_region *r, const struct gm_key *key, int memfd,
		void (*event)(void *arg, struct peer *p, int ev), void *arg,
		struct peer **out)
{
	struct peer *p;
	struct meta *m;
	int err = meta_create(META_IMPORT, r->size, r->page_shift, &m);

	if (err) {
		close(memfd);
		return err;
	}
	m->hdr->bus = r->bus;
	m->hdr->lease_ms = r->lease_ms;
	m->hdr->key_id = r->key_id;
	m->hdr->key = *key;
	memcpy(m->hdr->name, r->name, sizeof(m->hdr->name));
	memcpy(m->hdr->node, r->node, sizeof(m->hdr->node));
	memcpy(m->hdr->addr, r->addr, sizeof(m->hdr->addr));
	if (getrandom(&m->hdr->incarnation, sizeof(m->hdr->incarnation), 0) < 0)
		m->hdr->incarnation = clock_boot_ns();
	err = create(l, node, tls, r, key, memfd, m, event, arg, &p);
	if (err)
		return err;
	p->opening = true;
	p->lost = -EINPROGRESS;
	peer_dial(p, peer_patience_ms(p));
	*out = p;
	return 0;
}

int peer_resume(struct loop *l, const char *node, const struct net_tls *tls, int memfd,
		struct meta *meta, void (*event)(void *arg, struct peer *p, int ev),
		void *arg, struct peer **out)
{
	const struct meta_hdr *h = meta->hdr;
	struct dir_region r = { .bus = h->bus,
				.size = meta->size,
				.page_shift = meta->shift,
				.epoch = h->epoch,
				.key_id = h->key_id,
				.lease_ms = h->lease_ms };
	struct keep *k = &meta->given;
	struct peer *p;
	int err;

	memcpy(r.name, h->name, sizeof(r.name) - 1);
	memcpy(r.node, h->node, sizeof(r.node) - 1);
	memcpy(r.addr, h->addr, sizeof(r.addr) - 1);
	if (!h->incarnation || clock_boot_ns() >= h->valid_ns) {
		meta_destroy(meta);
		close(memfd);
		return -ESTALE;
	}
	err = create(l, node, tls, &r, &h->key, memfd, meta, event, arg, &p);
	if (err)
		return err;
	p->alive_ns = h->valid_ns - (uint64_t)r.lease_ms * 1000000;
	p->known = p->resuming = true;
	for (uint64_t i = 0; i < window_pages(p->win); i++)
		if (p->held[i] > WRITE)
			p->held[i] = ABSENT;
	/* Kept, but not given away yet. */
	for (unsigned int i = k->n; i--;) {
		struct keep_entry *e = &k->entries[k->order[i]];
		uint64_t page;

		if (!keep_page(k, e, &page) || p->held[page] == WRITE)
			keep_del(k, e);
	}
	*out = p;
	return 0;
}

void peer_drop_absent(struct peer *p)
{
	uint64_t n = window_pages(p->win), run = 0;

	for (uint64_t i = 0; i <= n; i++) {
		if (i < n && p->held[i] == ABSENT) {
			run++;
		} else if (run) {
			window_drop(p->win, i - run, run);
			run = 0;
		}
	}
}

/* All windows are here again. What the former agent was in the middle of giving away is
 * gone from them before anybody hears so. */
static void settle(struct peer *p)
{
	peer_drop_absent(p);
	p->resuming = false;
}

/* A new connection of a known importer: what may have been lost with the former. First
 * the bytes of pages that were given up, as the owner may ask for these pages again; then
 * what is wanted. */
void peer_repeat(struct peer *p)
{
	struct keep *k = &p->meta->given;

	for (unsigned int i = 0; i < k->n; i++) {
		struct keep_entry *e = &k->entries[k->order[i]];
		struct gm_hdr h = { .op = GM_OP_FLUSH,
				    .flags = e->shared ? GM_F_SHARED : 0,
				    .len = dir_page_size(&p->desc),
				    .size = dir_page_size(&p->desc),
				    .bus = dir_page_bus(&p->desc, e->page),
				    .arg = e->version };

		e->session = p->session;
		e->seq = p->seq + 1;
		peer_send(p, &h, keep_bytes(k, e));
	}
	/* The owner asks again, too. */
	p->ninvs = 0;
	p->asked = 0;
	for (int i = 0; i < PEER_BUCKETS; i++)
		for (struct pending *q = p->pending[i]; q; q = q->next)
			q->sent = 0;
	p->unsent = 0;
	for (int i = 0; i < PEER_BUCKETS; i++)
		for (struct pending *q = p->pending[i]; q; q = q->next)
			peer_request(p, q);
}

void peer_destroy(struct peer *p)
{
	if (!p)
		return;
	/* Nor does another agent here go on with it. */
	if (!p->meta->left)
		p->meta->hdr->incarnation = 0;
	p->dead = true; /* nobody waits any more */
	dial_cancel(p->dial);
	bulk_close(p);
	chan_close(p->chan);
	for (int i = 0; i < PEER_BUCKETS; i++) {
		while (p->pending[i]) {
			struct pending *q = p->pending[i];

			p->pending[i] = q->next;
			free(q);
		}
	}
	window_destroy(p->win);
	meta_destroy(p->meta);
	gm_key_wipe(&p->key);
	free(p->homing);
	free(p->invs);
	free(p);
}

bool peer_over(struct peer *p)
{
	uint64_t lease_ns = (uint64_t)p->desc.lease_ms * 1000000;

	/* alive_ns 0: not connected yet */
	if (p->dead || !p->alive_ns || clock_boot_ns() - p->alive_ns < lease_ns)
		return p->dead;
	log_limited(LOG_LVL_WARN, "region %s: owner %s is silent: region is lost",
		    p->desc.name, p->desc.node);
	peer_die(p, GM_EV_OWNER_GONE);
	return true;
}

void peer_tick(struct peer *p)
{
	uint64_t now = clock_boot_ns(), lease_ns = (uint64_t)p->desc.lease_ms * 1000000;
	struct gm_hdr ping = { .op = GM_OP_PING, .arg = now };

	if (!p->dead)
		dial_tick(p->dial);
	if (!p->dead)
		dial_tick(p->bulk_dial);
	if (p->dead || (p->opening && !p->chan))
		return;
	if (peer_over(p))
		return;
	if (p->chan) {
		/* Soon also for a grant: until it is confirmed the region does not move.
		 */
		if (now - p->ping_ns >= lease_ns / 4 || p->confirmed != p->grants) {
			p->ping_ns = now;
			peer_send(p, &ping, NULL);
		}
		if (!p->bulk && now - p->bulk_ns >= BULK_RETRY_NS)
			peer_open_bulk(p, BULK_RETRY_MS);
		return;
	}
	if (p->resuming) {
		if (meta_awaited(p->meta, p->clients))
			return;
		settle(p);
	}
	peer_dial(p, RECONNECT_MS);
}

int peer_lost(const struct peer *p)
{
	return p->chan ? 0 : p->lost;
}

bool peer_away(const struct peer *p)
{
	uint64_t half_ns = (uint64_t)p->desc.lease_ms * 500000;

	return !p->dead && !p->resuming &&
	       (!p->chan || clock_boot_ns() - p->alive_ns > half_ns);
}

const struct dir_region *peer_desc(const struct peer *p)
{
	return &p->desc;
}

const struct gm_key *peer_key(const struct peer *p)
{
	return &p->key;
}

int peer_memfd(const struct peer *p)
{
	return window_memfd(p->win);
}

bool peer_dead(const struct peer *p)
{
	return p->dead;
}

bool peer_read_only(const struct peer *p)
{
	return p->read_only;
}

int peer_meta(const struct peer *p)
{
	return p->meta->fd;
}

bool peer_connected(const struct peer *p)
{
	return p->chan != NULL;
}

bool peer_opening(const struct peer *p)
{
	return p->opening;
}

bool peer_resuming(const struct peer *p)
{
	return p->resuming;
}

int peer_attach(struct peer *p, const struct window_app *app, int32_t pid)
{
	int at = meta_window(p->meta, pid, app->base, p->clients), err;

	if (at < 0)
		return at;
	err = window_attach(p->win, at, app);
	if (err && err != -EBUSY)
		meta_window_forget(p->meta, at);
	if (err)
		return err;
	p->clients |= 1u << at;
	window_rewake(p->win, at);
	if (p->bulk)
		window_stage(p->win);
	return at;
}

void peer_detach(struct peer *p, int client)
{
	window_detach(p->win, client);
	p->clients &= ~(1u << client);
	meta_window_forget(p->meta, client);
	bulk_detach(p, client);
	for (int i = 0; i < PEER_BUCKETS; i++)
		for (struct pending *q = p->pending[i]; q; q = q->next)
			q->clients &= ~(1u << client);
}

unsigned int peer_clients(const struct peer *p)
{
	return (unsigned int)__builtin_popcount(p->clients);
}

void peer_readdress(struct peer *p, const struct dir_region *r)
{
	memcpy(p->desc.node, r->node, sizeof(p->desc.node));
	memcpy(p->desc.addr, r->addr, sizeof(p->desc.addr));
	memcpy(p->meta->hdr->node, r->node, sizeof(p->meta->hdr->node));
	memcpy(p->meta->hdr->addr, r->addr, sizeof(p->meta->hdr->addr));
}

json_t *peer_stat(const struct peer *p)
{
	json_int_t held[3] = { 0 };

	for (uint64_t i = 0; i < window_pages(p->win); i++) {
		uint8_t is =
			*(volatile uint8_t *)&p->held[i]; /* others can write there */

		held[is <= WRITE ? is : ABSENT]++;
	}
	return json_pack(
		"{s:s,s:I,s:I,s:I,s:I,s:s,s:b,s:b,s:I,s:I}", "name", p->desc.name, "bus",
		(json_int_t)p->desc.bus, "size", (json_int_t)p->desc.size, "page",
		(json_int_t)dir_page_size(&p->desc), "epoch", (json_int_t)p->desc.epoch,
		"owner", p->desc.node, "connected", p->chan != NULL, "dead", p->dead,
		"read", held[READ], "write", held[WRITE]);
}
