/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * move: a region goes to another node, under load, and keeps its addresses.
 *
 * The owner's agent (move_out.c) connects to the next owner's (move_in.c) with
 * GM_ROLE_MOVE, beside all other connections: page requests never wait behind the copy.
 *
 *	owner ("from")				next owner ("to")
 *
 *	BEGIN		name, range, epoch,	is the region in the directory, and its
 *			its importer there	owner who asks? Is that importer here,
 *						with its windows? Else -EAGAIN, and again
 *	KEYS		sealed (move_key.h)	imports the region with them, as any
 *						importer: the owner lets nobody in who has
 *						another key. So both sides are sure
 *	PAGES...	while all goes on:	written to the window's memfd where this
 *	  a page is write-protected here, then	node holds no copy of its own
 *	  sent; written again it is sent again;
 *	  pages that are not here are left out
 *	  (holes; copies that importers write)
 *	-- few are left, or it does not get less: the region stands still --
 *	new requests and faults are kept; what	importers go on with the pages they
 *	waits for answers of importers ends,	hold: nobody takes any from them
 *	those who come back are let in for it
 *	PAGES...	the rest
 *	EVENT MOVING	on the pages connection: grants before it have come
 *	SLOTS, CLIENTS,			importers, whose atomics were done, who
 *	TABLE					holds what
 *	READY		nothing is missing?	answers when it has all, MOVING too, and
 *						when an agent after it would (meta.h)
 *	written down: what stays here, for an
 *	agent after this one
 *	-- directory: owner and epoch + 1, if the epoch still is ours: the one moment at
 *	   which the owner changes --
 *	COMMIT					asks the directory; its window's memfd now
 *						is the home of the pages
 *	importers: EVENT MOVED			they attach there, with what they hold
 *	kept requests: -EREMCHG			tried again there
 *						its own node's are kept until it serves
 *	windows here: as an importer's, with	copies here stay, to read
 *	  the pages that were here
 *
 * Never two owners: "from" serves nothing between standing still and the answer of the
 * directory; "to" serves nothing before it has read there that it is the owner. If the
 * answer of the directory does not come, "from" does not know. Then it asks; and if it is
 * the owner still, it writes itself into the directory with epoch + 1, which makes a
 * transaction that is still on its way fail: importers attach anew, to the same node.
 *
 * What fails before READY is sent leaves everything as it was. What fails after it, but
 * before the directory was asked for the change, ends with "from" taking the next epoch
 * itself: "to" may be ready, and waits for that epoch. A connection lost while pages are
 * copied is made again, and the copy goes on with what was not answered. A "to" that has
 * lost "from" asks the directory until it is the owner, or another is, or its lease as an
 * importer is over. Importers ask it, too (agent_follow()). An agent that is started
 * again, at either side, goes by what it finds in meta.h and the directory
 * (agent_resume.c).
 *
 * All calls: the agent's thread.
 */
#ifndef GM_MOVE_H
#define GM_MOVE_H

#include "agent_int.h"

struct session;
struct gm_hdr;

/* ---- move_out.c ---------------------------------------------------------------------
 */

/**
 * move_out_start() - begin; the rest is done by the loop
 * @app:	is told how it goes and the result, by LOCAL_MOVE; closing it cancels
 * @l:		the request
 *
 * Return: 0: a reply will come; -EACCES: wrong key; -ENOENT: no such region; -EREMOTE: it
 * is another node's; -EHOSTUNREACH: no such node, or it is not alive; -EINVAL: it is this
 * node; -EBUSY: it is moving; -errno
 */
int move_out_start(struct app *app, const struct local_msg *l);

/** move_out_tick() - several times a lease */
void move_out_tick(struct agent *a);

/** move_out_app_gone() - @app is closed */
void move_out_app_gone(struct app *app);

/** move_out_region_gone() - home_remove() ends @r, which is moving */
void move_out_region_gone(struct home_region *r);

/** move_out_answered() - an importer has answered while @r, which is moving, settles */
void move_out_answered(struct home_region *r);

/** move_out_destroy_all() - end what has been handed over, cancel the rest */
void move_out_destroy_all(struct agent *a);

/* ---- move_in.c ----------------------------------------------------------------------
 */

/** move_in_msg() - a MOVE message on a session with GM_ROLE_MOVE; @arg: struct agent */
void move_in_msg(void *arg, struct session *s, const struct gm_hdr *h,
		 const uint8_t *payload);

/** move_in_fits() - may a huge page come on such a session? */
bool move_in_fits(void *arg, const struct session *s, const struct gm_hdr *h);

/** move_in_closed() - such a session is over */
void move_in_closed(void *arg, struct session *s);

/** move_in_coming() - may the region at @bus be served here in a moment? */
bool move_in_coming(void *arg, uint64_t bus);

/** move_in_settled() - @i has been told EVENT MOVING */
void move_in_settled(struct import *i);

/** move_in_opened() - @i is open, or @err: it cannot be */
void move_in_opened(struct import *i, int err);

void move_in_tick(struct agent *a);
void move_in_destroy_all(struct agent *a);

/* ---- agent_move.c -------------------------------------------------------------------
 */

/** agent_tell_moved() - applications with windows of @h or @i: GM_EV_MOVED; whichever is
 * not NULL */
void agent_tell_moved(struct agent *a, const struct home_region *h,
		      const struct import *i);

/** agent_adopt_windows() - windows of @i are served by @h from now on */
void agent_adopt_windows(struct agent *a, struct import *i, struct home_region *h);

/** agent_give_windows() - windows of @h are served by @i from now on */
void agent_give_windows(struct agent *a, struct home_region *h, struct import *i);

/** agent_follow() - @i has lost its owner: does the directory name another, or another
 * epoch? */
void agent_follow(struct import *i);

#endif
