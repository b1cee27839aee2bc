/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * agent_int: inside the agent. What its parts share; all in the agent's thread.
 *
 *	agent.c		set-up, time
 *	agent_app.c	applications: their sockets, requests and windows
 *	agent_region.c	regions: export, import, revoke
 *	agent_open.c	requests to import that wait for an owner
 *	agent_jail.c	what the process may still do once it runs
 *	agent_resume.c	regions and windows of an agent that died here
 *	agent_dir.c	the directory: lease of this node, changes made elsewhere
 *	agent_move.c	regions that change their node; move_out.c, move_in.c
 *	agent_text.c	what `ghostmem ls` and `ghostmem stat` show
 */
#ifndef GM_AGENT_INT_H
#define GM_AGENT_INT_H

#include "agent.h"
#include "counters.h"
#include "../dir/dir.h"
#include "home.h"
#include "../local.h"
#include "peer.h"
#include "transport.h"
#include "../../lib/loop.h"

struct import {
	struct import *next;
	struct agent *agent;
	struct peer *peer;
	uint64_t used_ns;      /* last time that somebody mapped it */
	struct move_in *mover; /* the region comes here; NULL: it does not */
	uint64_t asked_ns;     /* the directory, for an owner that is lost */
};

/* A window of an application. */
struct attached {
	struct attached *next;
	struct app *app;
	struct home_region *home; /* or */
	struct import *import;
	int client;
	int uffd; /* the window's */
	uint64_t base;
	uint64_t renew_from, renew_to; /* window_renew(): not told yet */
	struct loop_watch *watch;
};

struct app {
	struct app *next;
	struct agent *agent;
	int sock;
	int32_t pid; /* -1: unknown */
	struct loop_watch *watch;
	struct attached *windows;
};

struct agent {
	struct agent_config cfg;
	struct transport transport;
	struct loop *loop;
	struct dir *dir;
	struct home *home;
	struct import *imports;
	struct opening *openings; /* requests that wait, agent_open.c */
	struct app *apps;
	struct agent_dir *lease; /* agent_dir.c */
	struct move_out *moves_out;
	struct move_in *moves_in;
	int listener, timer, signals;
	struct loop_watch *watch_listener, *watch_timer, *watch_signals;
};

/* ---- agent_app.c ------------------------------------------------------------------ */

/** agent_accept() - the local listener has an application; @arg: struct agent */
void agent_accept(void *arg, uint32_t events);

/** agent_windows_tick() - serve faults that were read before their turn */
void agent_windows_tick(struct agent *a);

/** agent_app_free() - it closed: its windows go, and imports that had no other */
void agent_app_free(struct app *app);

/** agent_window_free() - @w was taken off its application's list */
void agent_window_free(struct attached *w);

/* ---- agent_region.c --------------------------------------------------------------- */

/** agent_export() - LOCAL_EXPORT. @m: becomes the reply; @rfds: memfds for it, bytes and
 * meta. Return: 0, -errno */
int agent_export(struct agent *a, struct local_msg *m, const int *fds, int nfds,
		 int rfds[2]);

/** agent_revoke() - LOCAL_REVOKE */
int agent_revoke(struct agent *a, const struct local_msg *m);

/** agent_find_import() - by bus address and key, if alive; NULL: none */
struct import *agent_find_import(struct agent *a, uint64_t bus, const struct gm_key *key);

bool agent_same_key(const struct gm_key *a, const struct gm_key *b);

/** agent_describe() - a region into a reply */
void agent_describe(struct agent *a, struct local_msg *m, const struct dir_region *r);

/** agent_peer_event() - struct peer's event(); @arg: struct import */
void agent_peer_event(void *arg, struct peer *p, int ev);

/** agent_import_tick() - an import that nobody maps for long ends; @i may be freed */
void agent_import_tick(struct import *i, uint64_t now);

/** agent_import_open() - import @r with @key, as LOCAL_IMPORT does; no window yet.
 * agent_opened() follows. Return: 0, -errno */
int agent_import_open(struct agent *a, const struct dir_region *r,
		      const struct gm_key *key, struct import **out);

/** agent_import_adopt() - peer_adopt(); NULL: no memory */
struct import *agent_import_adopt(struct agent *a, const struct dir_region *r,
				  const struct gm_key *key, struct window *win,
				  struct meta *meta);

/** agent_windows_end() - windows of @h are served no longer */
void agent_windows_end(struct agent *a, struct home_region *h, int ev);

/** agent_import_release() - end it if no window uses it; later, if the owner cannot have
 * what is here alone now */
void agent_import_release(struct import *i);

/** agent_pages_lost() - windows of @h are told so; @arg: struct agent */
void agent_pages_lost(void *arg, struct home_region *h);

/** agent_end_home() - stop serving a region: windows here are told @ev (GM_EV_*) and go,
 * importers are told the same */
void agent_end_home(struct agent *a, struct home_region *h, int ev);

/* ---- agent_open.c ----------------------------------------------------------------- */

/** agent_import() - LOCAL_IMPORT, as agent_export(); 1: its reply will come */
int agent_import(struct app *app, struct local_msg *m, int rfds[2]);

/** agent_opened() - @i is open, or @err: it cannot be. @i stays, dead then */
void agent_opened(struct import *i, int err);

/** agent_openings_tick() - several times a second */
void agent_openings_tick(struct agent *a);

/** agent_openings_forget() - @app waits no more */
void agent_openings_forget(struct app *app);

/* ---- agent_resume.c --------------------------------------------------------------- */

/** agent_resume() - LOCAL_RESUME: a window with its region, as another agent left them.
 * Return: 0; -ESTALE: over; -EAGAIN: try again; -errno */
int agent_resume(struct app *app, struct local_msg *m, const int *fds, int nfds);

/* ---- agent_app.c, for agent_resume.c ---------------------------------------------- */

/** agent_window_new() - serve @uffd (duplicated) of @app, described by @m, the reply to
 * which says where it is in the meta: of @h, or else @i */
int agent_window_new(struct app *app, struct home_region *h, struct import *i, int uffd,
		     struct local_msg *m);

/* ---- agent_dir.c ------------------------------------------------------------------ */

/** agent_dir_start() - renew this node's lease, learn what others change. Return: 0,
 * -errno */
int agent_dir_start(struct agent *a);
void agent_dir_stop(struct agent *a);

/** agent_dir_renewed() - the lease was renewed by a call that began at @ns */
void agent_dir_renewed(struct agent *a, uint64_t ns);

/** agent_dir_hold() - before a region is taken: an agent that was just started may have
 * no lease yet. Renew it then. Return: 0: it has one; -errno */
int agent_dir_hold(struct agent *a);

/** agent_dir_overdue() - has the lease run out by now? */
bool agent_dir_overdue(const struct agent *a, uint64_t now);

/** agent_dir_expire() - before anything is answered: has the lease ended? Then the
 * regions here do. @arg: struct agent. Return: some did */
bool agent_dir_expire(void *arg);

/** agent_dir_tick() - several times a lease: what follows from how the renewals went */
void agent_dir_tick(struct agent *a, uint64_t now);

/* ---- agent_text.c ----------------------------------------------------------------- */

/** agent_list(), agent_stat() - LOCAL_LIST, LOCAL_STAT: all but the last piece is sent,
 * the caller sends @m as that. Return: 0, -errno */
int agent_list(struct app *app, struct local_msg *m);
int agent_stat(struct app *app, struct local_msg *m);

/* ---- agent_jail.c ------------------------------------------------------------------ */

/** agent_drop_caps() - all of them, for good; sets no_new_privs. Return: 0, -errno
 * (logged) */
int agent_drop_caps(void);

/** agent_confine() - from now on only the system calls of an agent that runs. Return: 0,
 * -errno (logged) */
int agent_confine(void);

#endif
