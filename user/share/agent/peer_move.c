// SPDX-License-Identifier: BSD-2-Clause
/* peer_move: the importer's side of a region that moves. Contract in peer_int.h and
 * peer.h; agent's thread. */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bulk.h"
#include "peer_int.h"
#include "../local.h"
#include "../../lib/clock.h"
#include "../../lib/log.h"

#define CONNECT_MS 400

void peer_follow(struct peer *p, const struct gm_moved *to)
{
	struct dir_region r = { 0 };
	uint32_t epoch = le32toh(to->epoch), lease_ms = le32toh(to->lease_ms);

	if (p->dead || p->detached || epoch <= p->desc.epoch ||
	    !memchr(to->node, 0, sizeof(to->node)) ||
	    !memchr(to->addr, 0, sizeof(to->addr)) || !lease_ms)
		return;
	/* To this node: move_in.c knows, and this peer is about to be a home. */
	if (!strcmp(to->node, p->node))
		return;
	peer_not_flushed(p);
	/* What we gave away may not have come, if the former owner's agent was started
	 * again: the next one hears it, too, and knows whether it still takes us for the
	 * holder. Of a page that we hold again it must not: it came, or we would not. */
	for (unsigned int i = p->meta->given.n; i--;) {
		struct keep *k = &p->meta->given;
		struct keep_entry *e = &k->entries[k->order[i]];
		uint64_t page;

		if (!keep_page(k, e, &page) || p->held[page] == WRITE)
			keep_del(k, e);
	}
	memcpy(r.node, to->node, sizeof(r.node));
	memcpy(r.addr, to->addr, sizeof(r.addr));
	peer_readdress(p, &r);
	p->desc.epoch = p->meta->hdr->epoch = epoch;
	p->desc.lease_ms = p->meta->hdr->lease_ms = lease_ms;
	chan_close(p->chan);
	p->chan = NULL;
	peer_not_fenced(p);
	bulk_close(p);
	counters.moves_followed++;
	log_info("region %s has moved to %s", p->desc.name, p->desc.node);
	/* If it does not work peer_tick() goes on, as long as the lease runs. */
	dial_cancel(p->dial);
	p->dial = NULL;
	p->lost = 0;
	peer_dial(p, CONNECT_MS);
	p->event(p->arg, p, GM_EV_MOVED);
}

int peer_adopt(struct loop *l, const char *node, const struct net_tls *tls,
	       const struct dir_region *r, const struct gm_key *key, struct window *win,
	       struct meta *meta, void (*event)(void *arg, struct peer *p, int ev),
	       void *arg, struct peer **out)
{
	struct peer *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->loop = l;
	strncpy(p->node, node, sizeof(p->node) - 1);
	p->tls = tls;
	p->desc = *r;
	p->key = *key;
	p->key_id = r->key_id;
	p->event = event;
	p->arg = arg;
	p->win = win;
	p->clients = window_clients(win);
	p->meta = meta;
	p->held = meta->held;
	p->known = true;
	p->alive_ns = meta->hdr->valid_ns - (uint64_t)r->lease_ms * 1000000;
	peer_dial(p, CONNECT_MS);
	*out = p;
	return 0;
}

void peer_still(struct peer *p, bool still)
{
	p->still = still;
	if (!still)
		return;
	bulk_close(p);
	window_unstage(p->win);
	peer_drop_absent(p);
}

void peer_yield(struct peer *p,
		void (*each)(void *arg, int client, uint64_t page, bool write), void *arg)
{
	dial_cancel(p->dial);
	chan_close(p->chan);
	p->chan = NULL;
	bulk_close(p);
	for (int i = 0; i < PEER_BUCKETS; i++) {
		while (p->pending[i]) {
			struct pending *q = p->pending[i];

			for (uint32_t c = q->clients; c; c &= c - 1)
				each(arg, __builtin_ctz(c), q->page, q->want_write);
			for (uint64_t w = q->waited; w; w &= w - 1)
				for (uint32_t c = q->clients; c; c &= c - 1)
					each(arg, __builtin_ctz(c),
					     q->page + (uint64_t)__builtin_ctzll(w),
					     true);
			p->pending[i] = q->next;
			free(q);
		}
	}
	gm_key_wipe(&p->key);
	free(p->homing);
	free(p->invs);
	free(p);
}
