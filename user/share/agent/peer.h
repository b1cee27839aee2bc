/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * peer: the importer's side of a region: which pages this node holds, the faults of its
 * applications, the requests to the owner and what the owner asks back.
 *
 * A page is absent, held to read, or held to write: one byte each. A fault that cannot be
 * answered from that becomes a request; more faults on the page join it. Reads that
 * follow one another ask for more and more pages at once (prefetch); whatever comes
 * beyond the first is mapped for the application that asked.
 *
 * The importer's lease: it pings the owner every third of it. If the last ping that was
 * answered was sent a lease ago, all pages are write-protected and dropped, those who
 * wait get SIGBUS, as does every later access: by then the owner may give the pages to
 * others.
 */
#ifndef GM_PEER_H
#define GM_PEER_H

#include <jansson.h>

#include "../dir/dir.h"
#include "../key.h"
#include "window.h"
#include "../../lib/loop.h"

struct peer;
struct meta;
struct window;

/* event() beside GM_EV_*: peer_create() has come to its end, peer_lost() says how. A peer
 * that could not be opened is dead. */
#define PEER_OPENED 100
/* What peer_go_home() has begun is done, as far as it can be: call it again. */
#define PEER_HOME 101

#define PEER_LEAVE_MS 500

/**
 * peer_create() - import a region; PEER_OPENED follows, some time after the return
 * @r:		as the directory has it
 * @memfd:	new, empty, of the region's size; taken, also on failure
 * @event:	called with GM_EV_* when something happens to the region
 *
 * Return: 0, -errno. Then peer_lost(): 0; -EACCES: wrong key; -ESTALE: owner has another
 * epoch; -ETIMEDOUT; -errno
 */
int peer_create(struct loop *l, const char *node, const struct net_tls *tls,
		const struct dir_region *r, const struct gm_key *key, int memfd,
		void (*event)(void *arg, struct peer *p, int ev), void *arg,
		struct peer **out);

/**
 * peer_resume() - go on where an agent that died was
 * @memfd, @meta: what applications kept (meta.h); taken, also on failure
 *
 * Windows are attached next; once all that were are here again, peer_tick() connects.
 *
 * Return: 0; -ESTALE: its lease is over; -errno
 */
int peer_resume(struct loop *l, const char *node, const struct net_tls *tls, int memfd,
		struct meta *meta, void (*event)(void *arg, struct peer *p, int ev),
		void *arg, struct peer **out);

/** peer_destroy() - after peer_go_home() or peer_leave(): what is here alone is lost */
void peer_destroy(struct peer *p);

/**
 * peer_go_home() - nobody maps it: send the owner what is here alone, and that it ends.
 * Does not wait
 *
 * Return: true: that is done, or there is no owner to hear it; false: it is under way
 * (peer_leaving(); PEER_HOME follows), or cannot be now, as the owner is away, or the
 * region moves: try again later
 */
bool peer_go_home(struct peer *p);

/** peer_leaving() - it is about to end: nobody may map it any more */
bool peer_leaving(const struct peer *p);

/**
 * peer_leave() - the agent ends: written pages go home, what else is held is for the
 * agent that comes after it. peer_destroy() follows
 * @patience_ms: how long an owner may let wait; initially PEER_LEAVE_MS. For all imports
 *		of an agent one: once an owner has let wait for that long the next ones
 *		may not
 */
void peer_leave(struct peer *p, int *patience_ms);

const struct dir_region *peer_desc(const struct peer *p);
const struct gm_key *peer_key(const struct peer *p);
int peer_memfd(const struct peer *p);
int peer_meta(const struct peer *p); /* meta.h */
bool peer_connected(const struct peer *p);
bool peer_opening(const struct peer *p); /* PEER_OPENED is still to come */
bool peer_resuming(const struct peer *p);
bool peer_dead(const struct peer *p);
bool peer_read_only(const struct peer *p);

/** peer_die() - hold nothing, let nobody wait, tell applications @ev (GM_EV_*) */
void peer_die(struct peer *p, int ev);

/** peer_readdress() - the next connection goes to the agent that @r names */
void peer_readdress(struct peer *p, const struct dir_region *r);

/** peer_attach() - a window of the local process @pid (-1: unknown). Return: client
 * number, -errno */
int peer_attach(struct peer *p, const struct window_app *app, int32_t pid);
void peer_detach(struct peer *p, int client);
unsigned int peer_clients(const struct peer *p);

/** peer_faults() - serve the faults that @client's userfaultfd holds */
void peer_faults(struct peer *p, int client);

/** peer_prefetch() - ask for pages to read */
void peer_prefetch(struct peer *p, uint64_t off, uint64_t len);

/** peer_tick() - pings, reconnects, the end of the lease; several times a lease */
void peer_tick(struct peer *p);

/** peer_lost() - 0: connected, or the owner cannot be reached; what it says: -EREMCHG: it
 * is another's by now; -ESTALE: another epoch */
int peer_lost(const struct peer *p);

/** peer_away() - is there no connection, or has half the lease passed without an answer?
 * */
bool peer_away(const struct peer *p);

/** peer_follow() - the region has another owner, or another epoch: attach there. An older
 * epoch, or this node itself, is ignored. GM_EV_MOVED follows */
void peer_follow(struct peer *p, const struct gm_moved *to);

/**
 * peer_adopt() - a region that was served here becomes another node's: its window goes on
 * @r:		as the directory has it now
 * @win:	owned on success
 * @meta:	of an import, filled in; owned on success
 *
 * Does not fail if the owner does not answer: peer_tick() goes on. Return: 0, -ENOMEM
 */
int peer_adopt(struct loop *l, const char *node, const struct net_tls *tls,
	       const struct dir_region *r, const struct gm_key *key, struct window *win,
	       struct meta *meta, void (*event)(void *arg, struct peer *p, int ev),
	       void *arg, struct peer **out);

/** peer_yield() - the region is served here from now on: @p ends, nothing is given back,
 * its window and meta are not its any more. @each: threads that wait */
void peer_yield(struct peer *p,
		void (*each)(void *arg, int client, uint64_t page, bool write),
		void *arg);

/** peer_stat() - new reference */
json_t *peer_stat(const struct peer *p);

#endif
