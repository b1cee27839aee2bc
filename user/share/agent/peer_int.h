/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * peer_int: inside peer, the importer's side. What its parts share; all in the agent's
 * thread.
 *
 *	peer.c		a region comes, goes, its lease ends
 *	peer_conn.c	the connection to the owner: handshake, messages
 *	peer_move.c	what it needs when its region moves
 *	bulk.c		the second one, for pages ahead of faults
 *	peer_leave.c	pages go home: the importer ends, or its agent
 *	ahead.c		what is asked for ahead
 *	peer_pages.c	faults, requests, grants, invalidations
 */
#ifndef GM_PEER_INT_H
#define GM_PEER_INT_H

#include "../chan.h"
#include "dial.h"
#include "counters.h"
#include "meta.h"
#include "peer.h"
#include "window.h"

#define PEER_HANDSHAKE_MS 1000 /* at least; peer_patience_ms() */
#define PEER_PATIENCE_MS  5000 /* at most */
#define PEER_BUCKETS	  256
#define PEER_RECENT	  16
#define PEER_STREAMS	  4
#define PEER_RUNS	  4	     /* requests to write several pages, under way */
#define PEER_BULK_PAGES	  64	     /* smaller regions have no bulk connection */
#define PEER_FLIGHT	  (8u << 20) /* bytes of pages under way, each way: pings are behind */
#define PEER_INVS	  1024	     /* INVs that wait for less of them */

enum { ABSENT, READ, WRITE }; /* what is held of a page */

/* A page that was asked for. */
struct pending {
	struct pending *next;
	uint64_t page;
	uint32_t clients; /* whose threads wait for it */
	uint32_t pages;	  /* asked for with it */
	uint32_t sent; /* bytes that were asked for and are not here; 0: it has to wait */
	uint64_t since;	 /* order of those that wait */
	bool write;	 /* was asked for to write */
	bool want_write; /* somebody needs to write by now */
	/* Asked for to write: pages of it, but the first, at which threads stand */
	uint64_t waited;
};
_Static_assert(GM_BATCH_PAGES <= 64, "bits of waited");

/* A place where reads follow one another (ahead.c). Pages. */
struct stream {
	uint64_t here;	   /* where the application was seen last */
	uint64_t next;	   /* behind what was asked for */
	uint64_t used;	   /* when, clock_boot_ns(); 0: free */
	uint64_t reserved; /* memory is being made ready up to here */
	uint32_t run;	   /* asked for with the last page that had to wait */
	uint32_t ahead;	   /* to have in flight; 0: no stream yet */
};

struct homing; /* pages on their way home, peer_leave.c */

struct peer {
	struct loop *loop;
	struct chan *chan; /* NULL: connection lost */
	char node[GM_NAME_MAX];
	const struct net_tls *tls;
	struct dir_region desc;
	struct gm_key key;
	uint32_t key_id;
	bool read_only, dead;
	bool still;    /* peer_still() */
	bool known;    /* to the owner: it has a slot for us */
	bool resuming; /* after an agent that died: some windows are not here yet */
	uint64_t session, seq;
	uint64_t grants;    /* to write, that came on this connection */
	uint64_t confirmed; /* of these, to the owner */
	struct meta *meta;
	struct window *win;
	uint32_t clients;
	uint8_t *held; /* per page, in meta */
	struct pending *pending[PEER_BUCKETS];
	struct pending *runs[PEER_RUNS]; /* of these, to write several pages */
	uint32_t asked;			 /* bytes, of all that are sent */
	unsigned int unsent;		 /* requests that wait for less of them */
	uint64_t since;
	/* Pages that the owner wants, while many are on their way to it, and kept: later.
	 * Nothing has changed here until then. */
	struct gm_hdr *invs; /* ring of PEER_INVS; NULL: none yet */
	unsigned int inv_head, ninvs;
	struct {
		uint64_t next; /* page at which stores would go on in order */
		uint32_t run;  /* asked for with the last one */
		/* 1 + first page of a run asked for ahead: left unmapped, so that the
		 * application says when it has come there. 0: none */
		uint64_t marker;
	} stores;
	bool opening;	   /* PEER_OPENED is still to come */
	struct dial *dial; /* a connection that is being made; NULL: none is */
	struct bulk *bulk; /* NULL: none */
	struct dial *bulk_dial;
	uint64_t bulk_ns; /* last try to have one */
	struct stream streams[PEER_STREAMS];
	uint64_t want_from, want_to; /* peer_prefetch(): pages still to be asked for */
	struct {
		uint64_t page, ns;
	} recent[PEER_RECENT];
	unsigned int nrecent;
	struct homing *homing; /* NULL: none */
	bool fencing;	       /* a FENCE is under way */
	bool fenced;	       /* the last one was answered; for chan_wait() */
	bool tried;	       /* nothing but a FENCE was left to send, and it was */
	bool detached;	       /* DETACH was sent */
	uint64_t ping_ns;      /* last one sent */
	uint64_t alive_ns;     /* when the last one that was answered was sent */
	int lost;	       /* why the last try to connect failed */
	uint64_t settled;      /* id of the move whose EVENT MOVING came; 0: none */
	void (*event)(void *arg, struct peer *p, int ev);
	void *arg;
};

/* Who gives a long lease is patient with a machine that is slow. */
static inline int peer_patience_ms(const struct peer *p)
{
	int ms = (int)(p->desc.lease_ms / 4);

	ms = ms < PEER_PATIENCE_MS ? ms : PEER_PATIENCE_MS;
	return ms > PEER_HANDSHAKE_MS ? ms : PEER_HANDSHAKE_MS;
}

/* ---- peer_conn.c ------------------------------------------------------------------ */

/** peer_dial() - to the owner, each step within @timeout_ms; what is pending is asked for
 * again when it is there. Nothing if that is under way */
void peer_dial(struct peer *p, int timeout_ms);

/** peer_dial_as() - the same as @role, for @done */
int peer_dial_as(struct peer *p, enum gm_role role, int timeout_ms,
		 void (*done)(void *arg, int err, struct dial_done *d),
		 struct dial **out);

/** peer_admitted() - does what the owner said of the region fit what is known here?
 * Return: 0, -ESTALE */
int peer_admitted(const struct peer *p, enum gm_role role, const struct dial_done *d);

/** peer_opened() - PEER_OPENED, if it is still to come; @err: why it failed */
void peer_opened(struct peer *p, int err);

/** peer_open_bulk() - if the region is worth one. Return: it is being made */
bool peer_open_bulk(struct peer *p, int timeout_ms);

/** peer_repeat() - ask again for what is pending */
void peer_repeat(struct peer *p);

/** peer_over() - has the lease ended? Then it dies. Before anything that the owner sent
 * is believed, and before a fault is answered */
bool peer_over(struct peer *p);

/** peer_send() - fills in session, sequence number, key and epoch; nothing without a
 * connection */
void peer_send(struct peer *p, struct gm_hdr *h, const void *payload);

/* ---- peer_pages.c ----------------------------------------------------------------- */

/** peer_poison() - @clients get SIGBUS on the page */
void peer_poison(struct peer *p, uint64_t page, uint32_t clients);

/** peer_waiters() - @each page of @q at which threads stand, but the first */
static inline void peer_waiters(struct peer *p, const struct pending *q,
				void (*each)(struct peer *p, uint64_t page,
					     uint32_t clients))
{
	for (uint64_t left = q->waited; left; left &= left - 1)
		each(p, q->page + (uint64_t)__builtin_ctzll(left), q->clients);
}

/** peer_asked() - is @page on its way, as what a fault has asked for? */
bool peer_asked(struct peer *p, uint64_t page);

/** peer_poison_pending() - those who wait for it get SIGBUS; it is over */
void peer_poison_pending(struct peer *p, struct pending **at);

/** peer_ask() - ask the owner for @pages from @page, of which only the first is owed, and
 * to which no request is pending */
void peer_ask(struct peer *p, uint64_t page, uint32_t pages, uint32_t clients,
	      bool write);

/** peer_need() - threads of @clients wait for @page to read it, whatever its state is */
void peer_need(struct peer *p, uint64_t page, uint32_t clients);

/** peer_request_waiting() - less is under way: ask for what has waited for that */
void peer_request_waiting(struct peer *p);

/** peer_request() - ask the owner (again) for what is pending, now or when less is under
 * way */
void peer_request(struct peer *p, struct pending *q);

/** peer_fault() - of a window here */
void peer_fault(struct peer *p, int client, uint64_t page, bool write);

/** peer_grant(), peer_inv() - what the owner sends */
void peer_grant(struct peer *p, const struct gm_hdr *h, const uint8_t *bytes);
void peer_inv(struct peer *p, const struct gm_hdr *h);

/** peer_forget() - nobody waits for what was asked for: it is asked for no more than it
 * was by now */
void peer_forget(struct peer *p);

/** peer_owed() - has anything been asked for to write? The owner may give it still */
bool peer_owed(const struct peer *p);

/** peer_inv_again() - the owner may have got enough of what is under way */
void peer_inv_again(struct peer *p);

/** peer_still() - from now on nothing is in the memfd that is not held, unless the caller
 * puts it there: no pages ahead, no memory made ready. @still false: as before */
void peer_still(struct peer *p, bool still);

/** peer_drop_absent() - what is not held is not in the memfd */
void peer_drop_absent(struct peer *p);

/* ---- peer_leave.c ----------------------------------------------------------------- */

/** peer_flushed() - the owner's reply to a FLUSH */
void peer_flushed(struct peer *p, const struct gm_hdr *h);

/** peer_not_flushed() - the region has another owner, or another epoch: what was not
 * answered before was not taken */
void peer_not_flushed(struct peer *p);

/** peer_fenced() - a FENCE was answered. @p may be freed */
void peer_fenced(struct peer *p);

/** peer_not_fenced() - the connection is over, and with it what was not answered */
void peer_not_fenced(struct peer *p);

/* ---- ahead.c ---------------------------------------------------------------------- */

/** ahead_read() - a read waits for @page, neither here nor in flight: ask for it, and for
 * more if it continues other reads */
void ahead_read(struct peer *p, uint64_t page, uint32_t clients);

/** ahead_touch() - the application has come to @page, which is here or in flight */
void ahead_touch(struct peer *p, uint64_t page, uint32_t clients);

/** ahead_prefetch() - have pages up to @end here, on the bulk connection */
void ahead_prefetch(struct peer *p, uint64_t page, uint64_t end);

/** ahead_pump() - the bulk connection has room again */
void ahead_pump(struct peer *p);

#endif
