/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * home: the owner's side of regions whose home is this node: accepts connections, checks
 * every request (share_wire.h), runs the coherence of each page (coh.h), answers from the
 * memory itself through the alias (window.h). All in the thread that received the
 * request.
 *
 * An importer has one slot in a region for as long as its lease runs. A lost connection
 * does not end the lease: the agent may come back, with the same incarnation, and goes on
 * with what it held. When the lease ends, what the slot held is taken back; pages it held
 * to write are lost.
 */
#ifndef GM_HOME_H
#define GM_HOME_H

#include <jansson.h>

#include "../dir/dir.h"
#include "../key.h"
#include "window.h"
#include "../../lib/loop.h"

struct home;
struct home_region;
struct meta;
struct window;

/** home_create() - listen at @addr. Return: 0, -errno */
int home_create(struct loop *l, const char *node, const char *addr,
		const struct net_tls *tls, uint32_t lease_ms, struct home **out);
/** home_leave() - the agent ends: regions stay as they are for the agent that comes after
 * it. home_destroy() follows */
void home_leave(struct home *h);
/** home_listen_near() - also listen at a UNIX socket, for agents and applications of this
 * host. Return: 0, -errno */
int home_listen_near(struct home *h, const char *addr);
void home_destroy(struct home *h);

/** home_young() - is a lease that a former agent here gave perhaps not over yet? */
bool home_young(const struct home *h);

struct session;
struct gm_hdr;

/* Who moves regions, move.h. */
struct home_mover {
	void (*msg)(void *arg, struct session *s, const struct gm_hdr *h,
		    const uint8_t *payload); /* MOVE, on GM_ROLE_MOVE */
	void (*closed)(void *arg, struct session *s);
	/* Of MOVE: may a message with a huge page come? (chan.h) */
	bool (*fits)(void *arg, const struct session *s, const struct gm_hdr *h);
	bool (*coming)(void *arg, uint64_t bus); /* a region that is not here yet? */
	void (*gone)(struct home_region *r);	 /* is removed while it moves */
	/* Somebody has answered an INV while it settles */
	void (*answered)(struct home_region *r);
	/* Before a request is looked at: has this node's lease ended? Its regions have
	 * been removed then. */
	bool (*expire)(void *arg);
	/* Windows here are to hear GM_EV_PAGES_LOST; importers do already. */
	void (*lost)(void *arg, struct home_region *r);
	void *arg;
};
void home_set_mover(struct home *h, const struct home_mover *m);

/**
 * home_add() - serve a region
 * @d:		as the directory has it
 * @memfd:	its memory; taken, also on failure
 *
 * Return: 0; -EEXIST; -ENOBUFS: too few huge pages are free; -errno
 */
int home_add(struct home *h, const struct dir_region *d, const struct gm_key *key,
	     const struct gm_key *read_key, int memfd, struct home_region **out);

/**
 * home_resume() - take over a region that an agent here served that died
 * @d:		as the directory has it now, with its new epoch
 * @memfd:	its memory; taken, also on failure
 * @meta:	what that agent knew; taken, also on failure
 *
 * Windows are attached next; when all are here, home_settle() begins to serve it.
 *
 * Return: 0, -errno
 */
int home_resume(struct home *h, const struct dir_region *d, int memfd, struct meta *meta,
		struct home_region **out);

/** home_resuming() - is it not served yet? */
bool home_resuming(const struct home_region *r);

/** home_settle() - serve regions taken over whose windows are here; several times a
 * lease. Return: one that cannot be, for the caller to remove; NULL: none */
struct home_region *home_settle(struct home *h);

/** home_renewed() - applications may use their windows until @until_ns (clock_boot_ns()),
 * but those of a region that stands still
 */
void home_renewed(struct home *h, uint64_t until_ns);

/**
 * home_adopt() - as home_add(), with what it had here as another node's region
 * @win:	owned on success
 * @meta:	its part for an owner is filled in; counts from now on. Owned on success
 */
int home_adopt(struct home *h, const struct dir_region *d, struct window *win,
	       struct meta *meta, struct home_region **out);

/** home_moving() - is it on its way to another node? */
bool home_moving(const struct home_region *r);

/** home_remove() - importers are told @ev, GM_EV_REVOKED or GM_EV_OWNER_GONE, waiting
 * requests get -ESTALE; local windows keep the memory */
void home_remove(struct home_region *r, int ev);

/** home_find() - by name or, if NULL, by bus address; NULL: not here */
struct home_region *home_find(struct home *h, const char *name, uint64_t bus);
/** home_since() - a lease that ended before @ns does not concern this region: when the
 * directory was asked to add it. Initially 0 */
void home_since(struct home_region *r, uint64_t ns);
/** home_first() - any region that is served since before @ns; NULL: none */
struct home_region *home_first(struct home *h, uint64_t ns);
const struct dir_region *home_desc(const struct home_region *r);
const struct gm_key *home_key(const struct home_region *r, bool read_only);
int home_memfd(const struct home_region *r);
int home_meta(const struct home_region *r); /* meta.h */

/** home_attach() - a window of the local process @pid (-1: unknown). Return: client
 * number, -errno */
int home_attach(struct home_region *r, const struct window_app *app, int32_t pid);
void home_detach(struct home_region *r, int client);

/** home_faults() - serve the faults that @client's userfaultfd holds */
void home_faults(struct home_region *r, int client);

/** home_tick() - end leases; several times a lease */
void home_tick(struct home *h);

/** home_stat() - array of regions with their slots; new reference, NULL: no memory */
json_t *home_stat(struct home *h);

#endif
