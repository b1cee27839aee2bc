// SPDX-License-Identifier: BSD-2-Clause
/*
 * peer_leave: an importer ends, or its agent does. Pages held to write are the only copies:
 * they go home first, unasked (FLUSH). Contract in peer.h and peer_int.h; agent's thread.
 *
 * The owner answers each, in order: it has it, or cannot take it now, because the region
 * moves. Then the page is held here as before; so are those that are not answered when the
 * connection says that the region has moved. What is not answered otherwise may have come,
 * or not: nobody may believe then that it is here.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "peer_int.h"
#include "../../lib/log.h"

#define DRAIN_MS 500
#define BATCH	 256 /* of the smallest pages, before they are waited for */

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

/* Until the owner has answered all that was sent. Return: 0, -errno (logged) */
static int wait_home(struct peer *p)
{
	struct gm_hdr fence = { .op = GM_OP_FENCE };
	int err;

	p->detached = false;
	peer_send(p, &fence, NULL);
	err = chan_wait(p->chan, &p->detached, DRAIN_MS);
	if (err == -ETIMEDOUT)
		log_limited(LOG_LVL_WARN,
			    "region %s: owner %s does not say that all came",
			    p->desc.name, p->desc.node);
	return err;
}

static uint64_t next_written(const struct peer *p, uint64_t at)
{
	while (at < window_pages(p->win) && p->held[at] != WRITE)
		at++;
	return at;
}

/* From @at on. Return: where to go on */
static uint64_t send_batch(struct peer *p, uint64_t at)
{
	struct homing *g = p->homing;

	g->n = g->answered = 0;
	while (g->n < dir_batch(&p->desc, BATCH) &&
	       (at = next_written(p, at)) < window_pages(p->win)) {
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
		/* Before the owner has it: nobody here reads what others write anew. */
		p->held[at] = ABSENT;
		window_drop(p->win, at, 1);
		g->page[g->n++] = at++;
		peer_send(p, &h, bytes);
	}
	return at;
}

bool peer_go_home(struct peer *p)
{
	const uint64_t n = window_pages(p->win);
	uint64_t at = 0;

	if (p->dead || p->opening || p->meta->left)
		return true;
	if (p->resuming)
		return false;
	while (p->chan && (at = next_written(p, at)) < n) {
		if (!p->homing)
			p->homing = calloc(1, sizeof(*p->homing) +
						      ((size_t)dir_batch(&p->desc, BATCH)
						       << p->desc.page_shift));
		if (!p->homing)
			return false;
		at = send_batch(p, at);
		if (wait_home(p) || p->homing->refused)
			break;
	}
	free(p->homing);
	p->homing = NULL;
	/* Answers to INVs, too, are kept until the owner says that it has them. And to close
	 * with something unread would take away what is still on its way there. */
	if (p->chan && p->meta->given.n)
		wait_home(p);
	return p->dead || (next_written(p, 0) == n && !p->meta->given.n);
}

void peer_leave(struct peer *p)
{
	/* Not if this node may be the owner: what it holds is at home then. */
	if (!p->meta->hdr->claim)
		peer_go_home(p);
	p->meta->left = true;
}

void peer_detach_all(struct peer *p)
{
	struct gm_hdr bye = { .op = GM_OP_DETACH,
			      .bus = p->desc.bus,
			      .size = dir_page_size(&p->desc) };

	if (!p->dead && p->chan) {
		peer_send(p, &bye, NULL);
		wait_home(p);
	}
	p->meta->hdr->incarnation = 0;
}
