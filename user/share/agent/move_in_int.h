/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * move_in_int: inside move_in, a region of another node that comes here. Agent's thread.
 *
 *	move_in.c	messages, the directory, what fails
 *	move_in_table.c	who holds what, as the owner before says
 */
#ifndef GM_MOVE_IN_INT_H
#define GM_MOVE_IN_INT_H

#include "move.h"
#include "../move_key.h"

struct move_in {
	struct agent *agent;
	struct move_in *next;
	struct session *s;	/* NULL: lost */
	struct import *i;	/* NULL: no KEYS yet */
	struct import *opening; /* the same, while it is; KEYS waits in asked */
	struct dir_region desc; /* as the directory had it: epoch of the owner before */
	uint64_t id;
	struct move_pair pair;
	uint8_t other[GM_PUBLIC_SIZE];
	struct gm_key key, read_key;
	struct gm_move_slot slots[GM_SLOT_MAX];
	unsigned int nslots;
	struct gm_move_client *clients; /* NULL: none came */
	unsigned int nclients;
	struct gm_move_run *runs; /* numbers of this machine */
	size_t nruns, room;
	/* Where the kernel maps whatever is in the memfd (WINDOW_NO_MINOR), what is
	 * copied waits in meta's stage */
	bool stage;
	uint64_t pages;	     /* received */
	bool ready;	     /* this node may be the owner: the directory knows */
	struct gm_hdr asked; /* READY that waits for EVENT MOVING, COMMIT for the
			      * directory; op 0: none */
	uint64_t lost_ns, tried_ns;
};

/** move_in_slots(), move_in_clients(), move_in_table() - SLOTS, CLIENTS, TABLE: checked
 * and kept. Return: 0, -EBADMSG, -ENOMEM */
int move_in_slots(struct move_in *m, const struct gm_hdr *h, const uint8_t *payload);
int move_in_clients(struct move_in *m, const struct gm_hdr *h, const uint8_t *payload);
int move_in_table(struct move_in *m, const struct gm_hdr *h, const uint8_t *payload);

/** move_in_prepare() - write down what an owner knows, for this agent or one after it. It
 * counts when the directory has the epoch that is claimed. Return: 0, -ENOMEM */
int move_in_prepare(struct move_in *m);

#endif
