/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * window_int: inside window. Agent's thread.
 *
 *	window.c	mappings of applications: faults, protection, pages to be seen
 *	window_memory.c	the memfd: pages that are there, made ready, set aside, punched out
 */
#ifndef GM_WINDOW_INT_H
#define GM_WINDOW_INT_H

#include "window.h"

struct window {
	int memfd;
	uint64_t size;
	unsigned int shift; /* of pages */
	uint8_t *alias;
	bool backed;	   /* huge pages are reserved for all of it, */
	bool short_of;	   /* but one was taken away meanwhile */
	bool inherited;	   /* huge pages that the alias has never touched may be there */
	bool staged;	   /* window_stage() was true */
	uint64_t reserved; /* bytes of reserve_first() */
	uint64_t ready_from, ready_to;		   /* pages that need not be made ready */
	struct window_app clients[WINDOW_CLIENTS]; /* uffd -1: free */
};

/** window_unback() - what is reserved goes with the memfd */
void window_unback(struct window *w);

#endif
