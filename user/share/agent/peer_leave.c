// SPDX-License-Identifier: BSD-2-Clause
/*
 * peer_leave: an importer ends, or its agent does. Pages held to write are the only copies:
 * they go home first, unasked (FLUSH). Contract in peer.h and peer_int.h; agent's thread.
 *
 * The owner answers each, in order: it has it, or cannot take it now, because the region
 * moves. Then the page is held here as before; so are those that are not answered when the
 * connection says that the region has moved. What is not answered otherwise may have come,
 * or not: nobody may believe then that it is here.
 *
 * It goes in steps, each with a FENCE behind it, whose answer is the beginning of the next
 * one: pages, a batch at a time; what was asked for to write, which may be granted still,
 * and what was given away; that it ends (DETACH). Meanwhile the loop goes on, however slow
 * the owner is. Nobody can map the region here until that is over (peer_leaving()): there
 * is no answer to a fault on a page that is neither here nor known to be home. Who wants
 * to has another import of it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bulk.h"
#include "peer_int.h"
#include "../../lib/log.h"

#define LATE_MS 50  /* what owners may take after one that let wait */
#define BATCH	256 /* of the smallest pages, before they are waited for */

struct homing {
	uint64_t page[BATCH];
	unsigned int n, answered;
	bool refused;
	uint8_t bytes[]; /* pages */
};

/* The oldest one that is not answered. */
static void hold_again(struct peer *p)
{
	struct homing *g = p->homing;
	unsigned int i = g->answered++;

	g->refused = true;
	if (window_fill(p->win, g->page[i], 1,
			g->bytes + ((size_t)i << p->desc.page_shift), true))
		log_limited(LOG_LVL_ERROR,
			    "region %s: a page is lost: no huge page for it",
			    p->desc.name);
	else
		p->held[g->page[i]] = WRITE;
}

void peer_flushed(struct peer *p, const struct gm_hdr *h)
{
	struct homing *g = p->homing;

	/* Not those of peer_repeat(). */
	if (!g || g->answered == g->n ||
	    h->bus != dir_page_bus(&p->desc, g->page[g->answered]))
		return;
	if (h->status == -EAGAIN || h->status == -EREMCHG)
		hold_again(p);
	else
		g->answered++;
}

void peer_not_flushed(struct peer *p)
{
	while (p->homing && p->homing->answered < p->homing->n)
		hold_again(p);
}

/* What was sent is answered once this is. */
static void fence(struct peer *p)
{
	struct gm_hdr h = { .op = GM_OP_FENCE };

	p->fencing = true;
	p->fenced = false;
	peer_send(p, &h, NULL);
}

void peer_fenced(struct peer *p)
{
	p->fencing = false;
	p->fenced = true;
	if (!p->meta->left)
		p->event(p->arg, p, PEER_HOME);
}

void peer_not_fenced(struct peer *p)
{
	p->fencing = false;
	free(p->homing);
	p->homing = NULL;
	/* That it ends has come, or not: there is nothing to go on with. */
	if (p->detached)
		p->dead = true;
}

/* Return: page from @at on that is held to write; none: their number */
static uint64_t next_written(const struct peer *p, uint64_t at)
{
	const uint64_t n = window_pages(p->win);
	const uint8_t *found = memchr(p->held + at, WRITE, n - at);

	return found ? (uint64_t)(found - p->held) : n;
}

static void send_batch(struct peer *p)
{
	const uint64_t n = window_pages(p->win);
	const uint32_t most = dir_batch(&p->desc, BATCH);
	struct homing *g = calloc(1, sizeof(*g) + ((size_t)most << p->desc.page_shift));
	uint64_t at = 0;

	p->homing = g;
	while (g && g->n < most && (at = next_written(p, at)) < n) {
		uint8_t *bytes = g->bytes + ((size_t)g->n << p->desc.page_shift);
		struct gm_hdr h = { .op = GM_OP_FLUSH,
				    .len = dir_page_size(&p->desc),
				    .size = dir_page_size(&p->desc),
				    .bus = dir_page_bus(&p->desc, at) };

		if (window_protect(p->win, at, 1)) {
			g->refused = true;
			break;
		}
		memcpy(bytes, window_page(p->win, at), dir_page_size(&p->desc));
		/* Before the owner has it: nobody here reads what others write anew, nor
		 * what was on its way here before. */
		p->held[at] = ABSENT;
		bulk_void(p, at);
		window_drop(p->win, at, 1);
		g->page[g->n++] = at++;
		peer_send(p, &h, bytes);
	}
	if (g)
		fence(p);
}

/* The next step but DETACH. Return: none is left: nothing is here alone, or may come */
static bool bring_home(struct peer *p)
{
	bool refused = p->homing && p->homing->refused;

	free(p->homing);
	p->homing = NULL;
	if (refused)
		return false;
	peer_forget(p);
	if (next_written(p, 0) < window_pages(p->win)) {
		p->tried = false;
		if (p->chan)
			send_batch(p);
		return false;
	}
	/* Answers to INVs are kept until the owner says that it has them. */
	if (!p->meta->given.n && !peer_owed(p))
		return true;
	/* What a FENCE does not bring comes later, if at all. */
	p->tried = !p->tried;
	if (p->chan && p->tried)
		fence(p);
	return false;
}

bool peer_leaving(const struct peer *p)
{
	return p->fencing || p->detached;
}

bool peer_go_home(struct peer *p)
{
	struct gm_hdr bye = { .op = GM_OP_DETACH,
			      .bus = p->desc.bus,
			      .size = dir_page_size(&p->desc) };

	if (p->dead || p->opening || p->meta->left)
		return true;
	if (p->resuming || p->fencing)
		return false;
	if (p->detached)
		return true;
	if (!bring_home(p))
		return false;
	if (!p->chan)
		return true;
	/* To close with something unread would take away what is on its way there: its
	 * answer is waited for, too. */
	peer_send(p, &bye, NULL);
	p->detached = true;
	p->meta->hdr->incarnation = 0; /* no other agent here goes on with it */
	fence(p);
	return false;
}

/* Is there an answer to wait for? If not, the next step makes one. */
static bool under_way(struct peer *p)
{
	return p->fencing || (!p->detached && !bring_home(p) && p->fencing);
}

void peer_leave(struct peer *p, int *patience_ms)
{
	/* Not if this node may be the owner: what it holds is at home then. */
	bool stays = p->dead || p->opening || p->resuming || p->meta->hdr->claim;
	int err = 0;

	p->meta->left = true; /* also: no PEER_HOME from here on */
	while (!stays && !err && under_way(p))
		err = chan_wait(p->chan, &p->fenced, *patience_ms);
	if (err != -ETIMEDOUT)
		return;
	*patience_ms = LATE_MS;
	log_limited(LOG_LVL_WARN, "region %s: owner %s does not say that all came",
		    p->desc.name, p->desc.node);
}
