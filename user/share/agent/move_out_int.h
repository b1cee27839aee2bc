/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * move_out_int: inside move_out, a region of this node that goes to another. Agent's
 * thread.
 *
 *	move_out.c	the connection, the copy, what fails
 *	move_out_end.c	standing still, the directory, handing over
 */
#ifndef GM_MOVE_OUT_INT_H
#define GM_MOVE_OUT_INT_H

#include "dial.h"
#include "home_int.h"
#include "move.h"
#include "../move_key.h"

#define OUT_WINDOW 16				 /* PAGES that are not answered, and */
#define OUT_PAGES  (OUT_WINDOW * GM_BATCH_PAGES) /* of the smallest in them: 4 MiB */

enum out_state { /* in this order */
		 OUT_CONNECT,
		 OUT_BEGIN,    /* HELLO is answered */
		 OUT_COPY,     /* KEYS are */
		 OUT_SETTLE,   /* region stands still */
		 OUT_READY,    /* all is sent */
		 OUT_UNKNOWN,  /* the directory was told, and has not answered */
		 OUT_HANDOVER, /* it has */
};

struct move_out {
	struct agent *agent;
	struct move_out *next;
	struct app *app; /* NULL: gone, or has its answer */
	struct home_region *r;
	enum out_state state;
	uint64_t id;
	uint64_t incarnation; /* of our import to come, see meta.h */
	struct move_pair pair;
	struct dir_region next_desc; /* the region when it has moved */
	char addr[NET_ADDR_MAX];     /* where the move goes */
	struct dial *dial;	     /* being connected; NULL: it is not */
	struct chan *chan;	     /* NULL: lost */
	bool begun;		     /* BEGIN is sent, and not answered by -EAGAIN */
	uint64_t session, seq;
	uint64_t cursor;
	struct {
		uint64_t page;
		uint32_t n;
	} sent[OUT_WINDOW]; /* not answered */
	unsigned int sent_at, nsent;
	int round;
	uint64_t left;	/* pages, at the end of the last round */
	uint64_t pages; /* sent */
	bool keep;	/* windows here go on as an importer's */
	int err;	/* why the connection was lost; why the directory is unsure */
	uint64_t start_ns, tried_ns, lost_ns, frozen_ns, handover_ns, told_ns;
};

void move_out_tell(struct move_out *m, const char *phase);

/** move_out_done() - the application hears of it, @m is freed */
void move_out_done(struct move_out *m, int err);

/** move_out_slot() - the slot of the importer there, connected if one is; -1: none */
int move_out_slot(const struct home_region *r, const char *node);

/** move_out_fail() - everything is as before, @m is freed */
void move_out_fail(struct move_out *m, int err);

/** move_out_send() - @bus 0: the region's */
void move_out_send(struct move_out *m, enum gm_move kind, uint64_t bus, uint32_t size,
		   uint64_t arg, uint32_t len, const void *payload);

/* ---- move_out_end.c -------------------------------------------------------------------
 */

/** move_out_settle() - no page is left to send: if nothing waits for importers any more,
 * send who holds what */
void move_out_settle(struct move_out *m);

/** move_out_commit() - the other side has everything: tell the directory */
void move_out_commit(struct move_out *m);

/** move_out_resolve() - what does the directory say? */
void move_out_resolve(struct move_out *m);

/** move_out_leave() - the region is another node's; @m is freed */
void move_out_leave(struct move_out *m);

#endif
