// SPDX-License-Identifier: BSD-2-Clause
/* agent_move: windows and imports of regions that move. Contract in move.h; agent's
 * thread. */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "move.h"
#include "../../lib/clock.h"
#include "../../lib/log.h"

void agent_tell_moved(struct agent *a, const struct home_region *h,
		      const struct import *i)
{
	const struct dir_region *d = h ? home_desc(h) : peer_desc(i->peer);
	struct local_msg m = { .magic = LOCAL_MAGIC,
			       .op = LOCAL_EVENT,
			       .event = GM_EV_MOVED,
			       .epoch = d->epoch,
			       .lease_ms = d->lease_ms,
			       .flags = h ? LOCAL_OWNER : 0,
			       .bus = d->bus };

	memcpy(m.addr, d->addr, sizeof(m.addr));
	for (struct app *app = a->apps; app; app = app->next)
		for (struct attached *w = app->windows; w; w = w->next)
			if ((h && w->home == h) || (i && w->import == i))
				local_send(app->sock, &m, NULL, 0);
}

void agent_adopt_windows(struct agent *a, struct import *i, struct home_region *h)
{
	for (struct app *app = a->apps; app; app = app->next) {
		for (struct attached *w = app->windows; w; w = w->next) {
			if (w->import == i) {
				w->import = NULL;
				w->home = h;
			}
		}
	}
}

void agent_give_windows(struct agent *a, struct home_region *h, struct import *i)
{
	for (struct app *app = a->apps; app; app = app->next) {
		for (struct attached *w = app->windows; w; w = w->next) {
			if (w->home == h) {
				w->home = NULL;
				w->import = i;
			}
		}
	}
}

void agent_follow(struct import *i)
{
	struct agent *a = i->agent;
	const struct dir_region *d = peer_desc(i->peer);
	uint64_t now = clock_boot_ns();
	struct dir_region r;
	struct gm_moved to;
	int err;

	if (now - i->asked_ns < (uint64_t)d->lease_ms * 1000000 / 8)
		return;
	i->asked_ns = now;
	err = dir_find(a->dir, d->name, 0, &r);
	if (err && err != -ENOENT)
		return; /* the lease decides */
	if (err || r.bus != d->bus || r.size != d->size || r.epoch <= d->epoch) {
		/* Its own word, and the directory knows of no other owner. */
		if (peer_lost(i->peer) == -ESTALE)
			peer_die(i->peer, GM_EV_OWNER_GONE);
		return;
	}
	/* An owner that was started anew knows us, see peer_connect(). */
	if (!strcmp(r.node, d->node))
		return;
	to = (struct gm_moved){ .epoch = htole32(r.epoch),
				.lease_ms = htole32(r.lease_ms) };
	memcpy(to.node, r.node, sizeof(to.node));
	memcpy(to.addr, r.addr, sizeof(to.addr));
	peer_follow(i->peer, &to);
}
