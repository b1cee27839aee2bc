/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * lib: inside libghostmem. What a process has open at its agent, and the connections its
 * threads have to owners.
 *
 *	application thread --- lib_conn ------------------> agent of the owner
 *	      |  faults (userfaultfd)                           ^
 *	      v                                                 |
 *	agent of this node ---------- pages --------------------+
 *	      ^
 *	      | local.h: replies and events
 *	 keeper thread: one per struct ghostmem
 *
 * Gets, puts and atomics do not pass the agent of this node. Each thread has a connection
 * of its own per region, so no lock is held and no other thread is woken on the way.
 *
 * The keeper alone reads the agent's socket. When it closes, the keeper connects again
 * and hands every window with its region to the agent that it finds (meta.h). Whether the
 * agent is away, frozen or just without an owner: once the time until which it vouched
 * for a region is over, the window is replaced by a mapping that raises SIGBUS. The owner
 * may then give the pages, which are still in our memory, to others.
 *
 * Locks, in this order: ghostmem.call, ghostmem.lock, region.lock.
 */
#ifndef GM_LIB_H
#define GM_LIB_H

#include <pthread.h>
#include <stdbool.h>

#include "../agent/meta.h"
#include "../ghostmem.h"
#include "../local.h"
#include "../share_wire.h"

#define LIB_DEPTH    64		  /* requests under way on a connection */
#define LIB_CHUNK    (256u << 10) /* bytes of one request: sending overlaps receiving */
#define LIB_INFLIGHT (4u << 20)	  /* bytes under way; below what an agent queues */
#define LIB_GRACE_MS 700	  /* see lib_limit_ms() */
#define LIB_CALL_MS  10000	  /* an agent that asks a directory may take a while */
#define LIB_EVENTS   64

struct lib_conn;

struct ghostmem_region {
	struct ghostmem *g;
	struct ghostmem_region *next; /* g->lock */
	uint64_t id;		      /* unlike a pointer, never used again */
	char name[GM_NAME_MAX];
	char node[GM_NAME_MAX]; /* of our agent */
	uint64_t bus, size;
	unsigned int page_shift;
	struct gm_key key;
	bool read_only, owner;
	void *base; /* NULL: not mapped */
	int uffd, memfd, meta;
	int gone; /* empty file over the end of which dead windows lie; -1: none yet */
	unsigned int lacks;	      /* WINDOW_NO_* */
	unsigned int window;	      /* its place in the meta; META_WINDOWS: none */
	const struct meta_hdr *state; /* what the agent says of it; NULL: not mapped */
	bool resumed;		      /* with an agent that came back; keeper */
	uint32_t lease_ms;

	pthread_mutex_t lock;
	char addr[NET_ADDR_MAX]; /* of the owner's agent */
	uint32_t epoch;
	int dead;  /* -ESTALE: revoked. -EIO: fenced, nobody vouches for it */
	bool told; /* the application, that it is over */
	struct lib_conn *conns;
};

/* What a call may take. An importer that is silent has its pages for a lease and an eighth
 * (home.c): who waits for them is answered then, and has not given up before. */
static inline int lib_limit_ms(const struct ghostmem_region *r)
{
	return (int)(r->lease_ms + r->lease_ms / 8) + LIB_GRACE_MS;
}

struct ghostmem {
	char *path; /* NULL: default */
	unsigned int generation;
	pthread_t keeper;
	int wake;	      /* eventfd: the keeper looks at what changed */
	pthread_mutex_t call; /* one call at a time */

	pthread_mutex_t lock;
	pthread_cond_t cond;
	int sock; /* -1: agent is away */
	bool closing;
	struct ghostmem_region *regions;
	uint8_t tls_mode; /* as the agent says; enum tls_mode */
	char tls_dir[LOCAL_PATH], tls_hostname[GM_NAME_MAX];
	struct net_tls *tls; /* NULL: not wanted so far */
	uint64_t serial;     /* of the last request */
	uint64_t want;	     /* the one whose reply is awaited; 0: none */
	struct local_msg *reply;
	int reply_fds[LOCAL_FDS], reply_nfds;
	struct ghostmem_event events[LIB_EVENTS];
	unsigned int event_head, event_count;
	int event_fd;
};

/* Rises in a forked child: its connections and its agent are its parent's. */
extern unsigned int lib_generation;

/**
 * lib_call() - ask the agent; if it goes away, ask the one that comes back (not for
 * DETACH)
 * @m:		request; replaced by the reply
 * @rfds:	LOCAL_FDS places for descriptors that come, or NULL
 * @timeout_ms:	for all of it; LIB_CALL_MS if no lease sets a limit
 *
 * Return: the reply's status; -ECONNRESET: the agent went away; -ETIMEDOUT; -ECHILD:
 * in a forked child
 */
int lib_call(struct ghostmem *g, struct local_msg *m, const int *fds, int nfds, int *rfds,
	     int *nrfds, int timeout_ms);

/** lib_refresh() - learn owner, address and epoch of a region anew. Return: 0, -errno */
int lib_refresh(struct ghostmem_region *r, int timeout_ms);

/** lib_wake() - the keeper looks at what changed */
void lib_wake(struct ghostmem *g);

/** lib_fence() - calls on the region give @err, loads and stores SIGBUS. Any thread. */
void lib_fence(struct ghostmem_region *r, int err);

/** lib_tls_learn() - what a reply to EXPORT or IMPORT says of TLS */
void lib_tls_learn(struct ghostmem *g, const struct local_msg *m);

/** lib_tls_get() - credentials for connections to owners; NULL: there are none. Return:
 * 0; -ENOKEY: they cannot be read, -errno */
int lib_tls_get(struct ghostmem *g, const struct net_tls **out);

/** lib_unmap() - what is left of the window */
void lib_unmap(struct ghostmem_region *r);

/** lib_renew() - within @size bytes from @off pages that gave SIGBUS need not any more: the
 * agent is asked anew. Any thread */
void lib_renew(struct ghostmem_region *r, uint64_t off, uint64_t size);

/** lib_keeper() - the keeper's thread */
void *lib_keeper(void *arg);

/* ---- connections: lib_conn.c. Each belongs to one thread. ------------------------- */

struct lib_req {
	uint64_t bus;
	void *buf; /* GET: to; PUT: from, until it is sent */
	uint64_t arg, arg2;
	uint64_t *old;		  /* atomics; NULL: not wanted */
	struct ghostmem_async *a; /* token counts requests that are under way */
	uint32_t size;
	uint8_t op;
};

/** lib_conns_init() - from now on a forked child is known as one (lib_generation). Before
 * all else; more than once is fine */
void lib_conns_init(void);

/** lib_conn_get() - this thread's connection to the owner, made if need be within
 * @timeout_ms. Return: 0; -EACCES, -ESTALE, -ENOENT: refused by the owner; -errno */
int lib_conn_get(struct ghostmem_region *r, int timeout_ms, struct lib_conn **out);

/** lib_conn_find() - this thread's connection; NULL: none */
struct lib_conn *lib_conn_find(struct ghostmem_region *r);

/** lib_conn_submit() - queue a request. May wait for replies of others. Return: 0; else
 * connection is over: -errno, nothing was counted */
int lib_conn_submit(struct lib_conn *c, const struct lib_req *q);

/** lib_conn_flush() - what was queued is on its way. Return: 0, -errno */
int lib_conn_flush(struct lib_conn *c);

/** lib_conn_reap() - wait for one reply. Return: 0; else connection is over: -errno, and
 * every request on it has failed: with -EREMCHG if it was not done, else -ECONNRESET */
int lib_conn_reap(struct lib_conn *c);

/** lib_conn_lose() - @a has failed for the connection's sake, with @status. If it is
 * asynchronous, it is to be made again */
void lib_conn_lose(struct lib_conn *c, struct ghostmem_async *a, int status);

/** lib_conn_lost() - of those that are to be made again the first, or @a, if that is one:
 * the caller does so. NULL: no */
struct ghostmem_async *lib_conn_lost(struct lib_conn *c, const struct ghostmem_async *a);

unsigned int lib_conn_busy(const struct lib_conn *c);

/** lib_again() - does it help to try again after @err? Waits a little, and asks who the
 * owner is. @start: of the call; *@asked: when that was asked last */
bool lib_again(struct ghostmem_region *r, int err, uint64_t start, uint64_t *asked);

/** lib_conn_failed() - 0, or why the connection is over */
int lib_conn_failed(const struct lib_conn *c);

/** lib_conn_settle() - what became of the last atomic that was under way when the
 * connection failed, now that there is a new one? Return: 1: it was done, *@old is its
 * result; 0: it was not; -EIO: the owner does not know */
int lib_conn_settle(struct lib_conn *c, uint64_t *old);

/** lib_conns_close() - every thread's connections of a region; nobody uses them now */
void lib_conns_close(struct ghostmem_region *r);

#endif
