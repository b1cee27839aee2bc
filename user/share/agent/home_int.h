/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * home_int: inside home, the owner's side. What its parts share; all in the
 * agent's thread.
 *
 *	home.c		regions and slots: they come, go, their leases end
 *	home_session.c	connections: accept, HELLO, ATTACH, checks before memory is
 *			touched
 *	home_pages.c	pages to hold: READ, WRITE, ACK, FLUSH, what the coherence asks for
 *	home_ops.c	explicit operations: GET, PUT, atomics, their waiting
 *	home_move.c	what a region needs to move to another node
 */
#ifndef GM_HOME_INT_H
#define GM_HOME_INT_H

#include "../chan.h"
#include "coh.h"
#include "counters.h"
#include "home.h"
#include "meta.h"
#include "table.h"
#include "window.h"

#define HOME_REGIONS 64 /* attached to one session */

struct slot {
	bool used;
	char node[GM_NAME_MAX];
	uint64_t incarnation;
	uint64_t heard_ns;
	struct session *session; /* NULL: connection lost, lease runs */
};

struct home_region {
	struct home *home;
	struct home_region *next;
	struct dir_region desc;
	struct gm_key key, read_key;
	struct window *win;
	struct meta *meta;
	struct coh *coh;
	uint32_t clients;  /* windows that are attached, bit mask */
	uint64_t since_ns; /* home_since() */
	uint64_t lost;	   /* pages, of coh_lost(), that everybody was told of */
	/* Taken over from an agent that died; nobody is served before every window that
	 * it knew is here again. */
	bool resuming;
	/* Pages to make read-only before the next byte leaves: one call for a run of
	 * them. */
	uint64_t protect, nprotect;
	const uint8_t *kept; /* bytes of the grant to write under way; NULL: in unkept */
	uint8_t *unkept;     /* a page */
	uint8_t *run; /* where bytes of a grant of several pages are put together; NULL */
	struct slot slots[GM_SLOT_MAX];
	/* While it moves (home_move.c). */
	struct move_out *mover; /* NULL: it does not */
	uint64_t *dirty;	/* bit per page: to be sent. NULL: it does not move */
	uint64_t ndirty;
	enum { HOME_SERVING, HOME_SETTLING, HOME_STILL } frozen;
	struct held *held, **held_tail; /* requests */
	struct held_fault *faults;
	unsigned int nfaults;
	uint64_t former; /* session of its former owner, which may say COMMIT still; 0 */
	uint32_t stayed; /* epoch it had before it moved to this node itself; 0 */
};

/* A region that was here. */
struct moved {
	struct moved *next;
	struct dir_region to;
};

struct attachment {
	struct home_region *region;
	int slot; /* -1: role is neither PAGES nor BULK */
	bool read_only;
	struct once_client *once; /* role OPS; NULL: it has no number */
};

struct op; /* a request that waits for pages */

struct session {
	struct home *home;
	struct session *next;
	uint64_t born_ns;
	struct chan *chan;
	char node[GM_NAME_MAX];
	uint64_t incarnation;
	uint64_t id;
	uint64_t seq;		  /* the last one seen */
	uint64_t done;		  /* the last one that is over, and all before it */
	unsigned int undone;	  /* FLUSHes whose bytes nobody here has taken */
	uint64_t granted;	  /* grants to write that were sent */
	unsigned int unconfirmed; /* bytes of ACKs since it was told what is done */
	uint8_t nonce[GM_NONCE_SIZE];
	uint8_t role; /* 0: no HELLO yet */
	struct attachment at[HOME_REGIONS];
	int nat;
	/* Role OPS: ranges of regions that moved away while it was attached, the latest.
	 */
	struct {
		uint64_t bus, size;
	} left[HOME_REGIONS];
	unsigned int nleft;
	struct op *ops;
	uint64_t fence; /* seq of a FENCE that waits for ops; 0: none */
	uint64_t inv_seq;
};

/*
 * A request that waits, kept until its last page came. Its address is the cookie of its
 * coh requests; smaller cookies are faults of local windows (home_faults()).
 */
struct op {
	struct session *session; /* NULL: closed meanwhile */
	struct op *next, **prev;
	struct home_region *region;
	struct gm_hdr hdr;
	uint64_t old;	  /* result of an atomic; PUT: 1: healed a page */
	uint32_t waiting; /* pages */
	int status;
	uint8_t data[]; /* GET: what is to be sent; PUT: what came */
};

#define FAULT_COOKIES 4096
#define RECALL_COOKIE (FAULT_COOKIES - 1) /* a page is wanted home, for no one */

struct home {
	struct loop *loop;
	char node[GM_NAME_MAX];
	char addr[NET_ADDR_MAX];
	const struct net_tls *tls;
	uint32_t lease_ms;
	uint64_t started_ns;
	int listener;
	struct loop_watch *watch;
	int near; /* listener for this host; -1: none */
	struct loop_watch *near_watch;
	char near_addr[NET_ADDR_MAX];
	struct home_region *regions;
	struct session *sessions;
	struct table exports;
	struct moved *moved;
	struct home_mover mover;
};

/** home_memory() - the bytes at @bus, through the alias */
static inline uint8_t *home_memory(const struct home_region *r, uint64_t bus)
{
	return window_alias(r->win) + (bus - r->desc.bus);
}

/* ---- home_session.c --------------------------------------------------------------- */

/** home_accept() - the listener has connections; @arg: struct home */
void home_accept(void *arg, uint32_t events);

/** home_session_end() - forget a session whose connection is closed */
void home_session_end(struct session *s);

/** home_refuse() - answer @err, count, tell the log; @fatal: close the connection too */
void home_refuse(struct session *s, const struct gm_hdr *h, int err, uint64_t *counter,
		 bool fatal);

/** home_reply() - to @req: @len bytes of @data, @arg and @flags in the header */
void home_reply(struct session *s, const struct gm_hdr *req, int status, uint64_t arg,
		uint16_t flags, uint32_t len, const void *data);

/** home_dispatch() - a request that came, or was held */
void home_dispatch(struct session *s, const struct gm_hdr *h, const uint8_t *payload);

/* ---- home_pages.c ----------------------------------------------------------------- */

/** home_act() - what the coherence of a region wants done (coh.h); @arg: home_region */
void home_act(void *arg, const struct coh_act *a);

/** home_do_page() - READ or WRITE, checked */
void home_do_page(struct session *s, const struct attachment *a, const struct gm_hdr *h);

/** home_do_bulk() - READ on a bulk connection, checked: what can be granted at once */
void home_do_bulk(struct session *s, const struct attachment *a, const struct gm_hdr *h);

/** home_do_ack() - ACK or FLUSH: pages come back, asked or unasked */
void home_do_ack(struct session *s, const struct attachment *a, const struct gm_hdr *h,
		 const uint8_t *payload);

/** home_recall() - grants to write that @slot has not confirmed, and may never have got,
 * come back: it has a new connection */
void home_recall(struct home_region *r, uint8_t slot);

/** home_take_back() - @slot ends: what was granted to it to write while it did, and is
 * kept here, is at home again */
void home_take_back(struct home_region *r, uint8_t slot);

/* ---- home.c ----------------------------------------------------------------------- */

/** home_slot_dead() - all that a slot held is taken back. Return: pages lost */
uint64_t home_slot_dead(struct home_region *r, uint8_t slot);
/** home_fault() - of a window here */
void home_fault(struct home_region *r, int client, uint64_t page, bool write);

/* ---- home_ops.c ------------------------------------------------------------------- */

/** home_do_access() - GET, PUT or an atomic, checked */
void home_do_access(struct session *s, struct home_region *r, const struct gm_hdr *h,
		    const uint8_t *payload);

/** home_op_new() - keep a request until its pages come, with hdr.size bytes beside it.
 * NULL: no memory */
struct op *home_op_new(struct session *s, struct home_region *r, const struct gm_hdr *h);

/** home_op_end() - answer it and free it */
void home_op_end(struct op *o);

/** home_op_page() - one of its pages is there to be touched, or lost (a->status) */
void home_op_page(struct home_region *r, struct op *o, const struct coh_act *a);

/** home_op_unlink() - its session forgets it, after its answer: a FENCE may wait for that
 */
void home_op_unlink(struct op *o);

/* ---- home_move.c; theory in move.h --------------------------------------------------
 */

/** home_move_begin() - from now on pages that change are marked; all there are, are.
 * Return: 0, -ENOMEM */
int home_move_begin(struct home_region *r);

/** home_move_all() - mark all pages there are */
void home_move_all(struct home_region *r);

/**
 * home_move_next() - pages to send: no store to them is under way, marks are gone
 * @cursor:	0 at first, and after the last one
 *
 * Return: 1; 0: round is over; -errno
 */
int home_move_next(struct home_region *r, uint64_t *cursor, uint64_t *page, uint32_t *n);

void home_dirty_mark(struct home_region *r, uint64_t page, uint64_t n);

/** home_dirty() - bytes of @n pages from @page change here */
static inline void home_dirty(struct home_region *r, uint64_t page, uint64_t n)
{
	if (r->dirty)
		home_dirty_mark(r, page, n);
}

/** home_hold() - keep a request while the region stands still, or put it off. Return:
 * false: it does not */
bool home_hold(struct session *s, struct home_region *r, const struct gm_hdr *h,
	       const uint8_t *payload);
void home_hold_fault(struct home_region *r, int client, uint64_t page, bool write);

/** home_held_forget() - @s is closed */
void home_held_forget(struct home_region *r, const struct session *s);
/** home_held_free() - answer @status to what is held; region goes */
void home_held_free(struct home_region *r, int status);
void home_fault_each(struct home_region *r,
		     void (*each)(void *arg, int client, uint64_t page, bool write),
		     void *arg);

/** home_settled() - does nothing wait for importers' answers, and have they all that was
 * granted to them? If not, they are asked; home_mover.answered() follows, perhaps more
 * than once */
bool home_settled(struct home_region *r);

/** home_thaw() - it has not moved: what was held is done now */
void home_thaw(struct home_region *r);

/** home_tell_moved() - EVENT MOVED to all importers */
void home_tell_moved(struct home_region *r, const struct dir_region *to);

/** home_depart() - nobody finds the region here any more; importers are told, held
 * requests answered. home_free() is next */
void home_depart(struct home_region *r, const struct dir_region *to);

/** home_free() - a region that has left; r->win NULL: goes on elsewhere */
void home_free(struct home_region *r);

struct moved *home_moved_find(struct home *h, uint64_t bus, uint64_t size);
/** home_moved_forget() - the region is here again */
void home_moved_forget(struct home *h, uint64_t bus);
/** home_moved_request() - to a region that has left */
void home_moved_request(struct moved *m, struct session *s, const struct gm_hdr *h);

#endif
