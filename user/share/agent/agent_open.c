// SPDX-License-Identifier: BSD-2-Clause
/*
 * agent_open: LOCAL_IMPORT, which may have to wait for an owner. Contract in agent_int.h;
 * agent's thread.
 *
 * The application's request is kept until its import is open, or cannot be: others on the
 * loop go on. Several requests may wait for one import.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "move.h"
#include "../../lib/clock.h"

#define FIND_NS                                                                          \
	500000000ull /* a region that moves, or whose owner starts: look again           \
		      */

struct opening {
	struct opening *next;
	struct app *app;
	struct import *i; /* waited for; NULL: the next tick looks again */
	uint64_t end_ns;
	struct local_msg m;
};

/* What is here. Return: 0: @m is the reply; 1: *@wait is being opened; -ENODEV: nothing
 * is; -errno: the reply */
static int look_here(struct agent *a, struct local_msg *m, int rfds[2],
		     struct import **wait)
{
	const char *name = m->name[0] ? m->name : NULL;
	struct home_region *h = home_find(a->home, name, m->bus);

	m->flags = 0;
	m->read_only = 0;
	if (h) {
		if (!agent_same_key(&m->key, home_key(h, false))) {
			/* Readers of the owner's node have no window that could hold them
			 * to reading; they use get. */
			return -EACCES;
		}
		agent_describe(a, m, home_desc(h));
		m->flags = LOCAL_OWNER;
		rfds[0] = home_memfd(h);
		rfds[1] = home_meta(h);
		return 0;
	}
	for (struct import *i = a->imports; i; i = i->next) {
		const struct dir_region *d = peer_desc(i->peer);

		if (peer_dead(i->peer) || peer_leaving(i->peer) ||
		    (name ? strcmp(d->name, name)
			  : !gm_in_range(m->bus, 1, d->bus, d->size)))
			continue;
		if (!agent_same_key(&m->key, peer_key(i->peer)))
			continue;
		if (peer_opening(i->peer)) {
			*wait = i;
			return 1;
		}
		/* It may be over, or the owner another one. */
		if (!peer_connected(i->peer))
			return -EAGAIN;
		agent_describe(a, m, d);
		m->read_only = peer_read_only(i->peer);
		rfds[0] = peer_memfd(i->peer);
		rfds[1] = peer_meta(i->peer);
		return 0;
	}
	return -ENODEV;
}

/* Return: as look_here(), without -ENODEV */
static int look(struct agent *a, struct local_msg *m, int rfds[2], struct import **wait)
{
	struct dir_region r;
	int err = look_here(a, m, rfds, wait);

	if (err != -ENODEV)
		return err;
	err = dir_find(a->dir, m->name[0] ? m->name : NULL, m->bus, &r);
	if (err)
		return err;
	/* Ours, but not here: of an agent that died, and about to come or not. */
	if (!strcmp(r.node, a->cfg.node))
		return home_young(a->home) ? -EAGAIN : -ENOENT;
	err = agent_import_open(a, &r, &m->key, wait);
	return err ? err : 1;
}

static void opening_free(struct opening *o)
{
	struct opening **q = &o->app->agent->openings;

	while (*q != o)
		q = &(*q)->next;
	*q = o->next;
	gm_key_wipe(&o->m.key);
	free(o);
}

static void answer(struct opening *o, int status, const int rfds[2])
{
	gm_key_wipe(&o->m.key);
	o->m.status = status;
	/* If it cannot be sent the socket is over, and the loop finds out. */
	local_send(o->app->sock, &o->m, rfds, status ? 0 : 2);
	opening_free(o);
}

int agent_import(struct app *app, struct local_msg *m, int rfds[2])
{
	struct agent *a = app->agent;
	struct import *wait = NULL;
	struct opening *o;
	int err = look(a, m, rfds, &wait);

	if (err != 1)
		return err;
	o = calloc(1, sizeof(*o));
	if (!o)
		return -ENOMEM;
	o->app = app;
	o->i = wait;
	o->m = *m;
	o->end_ns = clock_boot_ns() + FIND_NS;
	o->next = a->openings;
	a->openings = o;
	return 1;
}

void agent_opened(struct import *i, int err)
{
	struct agent *a = i->agent;
	uint64_t now = clock_boot_ns();

	move_in_opened(i, err);
	for (struct opening *o = a->openings, *next; o; o = next) {
		next = o->next;
		if (o->i != i)
			continue;
		o->i = NULL;
		if (!err || ((err == -EREMCHG || err == -ESTALE || err == -EAGAIN) &&
			     now < o->end_ns))
			continue; /* the tick looks again */
		answer(o, err, NULL);
	}
	if (!err)
		agent_openings_tick(a);
}

void agent_openings_tick(struct agent *a)
{
	for (struct opening *o = a->openings, *next; o; o = next) {
		struct import *wait = NULL;
		int rfds[2], err;

		next = o->next;
		if (o->i)
			continue;
		err = look(a, &o->m, rfds, &wait);
		if (err == 1)
			o->i = wait;
		else
			answer(o, err, rfds);
	}
}

void agent_openings_forget(struct app *app)
{
	for (struct opening *o = app->agent->openings, *next; o; o = next) {
		next = o->next;
		if (o->app == app)
			opening_free(o);
	}
}
