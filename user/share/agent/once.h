/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * once: atomics that are done exactly once, though their connection or the owner's agent
 * is lost meanwhile.
 *
 * A thread of an application has at most one atomic under way in a region. It has a
 * number of its own (HELLO's incarnation), and the owner remembers, for each such number,
 * how many atomics were done for it and what the last one replaced. Who has lost its
 * connection with an atomic under way hears that in the reply to its next ATTACH: one
 * more than it knows of was done, with this result; or none, and it asks again. Before
 * that reply nothing is left that could still do the old request: the connection it
 * came on is closed, and what waited for pages on its behalf is forgotten.
 *
 * All of it lies in memory that outlives the agent (meta.h), which may be killed between
 * any two instructions. So an atomic is written down before it is done:
 *
 *	 1. intent: where, the value there, the value to be, whose, its count after it
 *	 2. the word changes
 *	 3. the client's entry: result, then count
 *	 4. no intent
 *
 * once_recover() looks at the word: the new value is there: it was done (step 3 again, it
 * gives the same); the old one: it was not. If both are the same nobody can tell, or
 * needs to. Nobody else may write to the word between 1 and 4: the agent has one thread,
 * importers hold nothing of the page, and windows of this node may only read it
 * (COH_SHUT). Should the word be neither, the client is forgotten.
 *
 * A region that moves takes them along.
 *
 * A client that is not known, because it never was or its place was needed, is told so:
 * what it had under way is in doubt. Places of clients that are connected are not taken.
 */
#ifndef GM_ONCE_H
#define GM_ONCE_H

#include <stdbool.h>
#include <stdint.h>

#include "../share_wire.h"

#define ONCE_CLIENTS GM_CLIENT_MAX

struct once_client {
	uint64_t id; /* 0: free */
	uint64_t done;
	uint64_t old;  /* result of the last one */
	uint32_t age;  /* when it was here last, in once.age */
	uint32_t live; /* it is connected */
};

struct once {
	/* intent */
	uint32_t pending;
	uint32_t client;
	uint32_t size;
	uint32_t pad;
	uint64_t at; /* bytes from the region's begin */
	uint64_t was, becomes;
	uint64_t done; /* the client's, after it */
	uint32_t n;    /* clients ever used */
	uint32_t age;
	struct once_client clients[ONCE_CLIENTS];
};

/** once_count() - clients ever used. An application can write there (meta.h): no more
 * than there is room for */
static inline uint32_t once_count(const struct once *o)
{
	uint32_t n = __atomic_load_n(&o->n, __ATOMIC_RELAXED);

	return n < ONCE_CLIENTS ? n : ONCE_CLIENTS;
}

/**
 * once_client() - the entry of the client @id, made if need be; it is live now
 * @known:	it was there before
 *
 * Return: entry; NULL: no room, or @id is 0
 */
struct once_client *once_client(struct once *o, uint64_t id, bool *known);

/** once_load() - the client @id, as another owner knew it; @o is new. Not connected.
 * Return: 0; -ENOSPC */
int once_load(struct once *o, uint64_t id, uint64_t done, uint64_t old);

/** once_leave() - it is not connected any more. NULL is fine */
void once_leave(struct once *o, struct once_client *c);

/**
 * once_do() - FADD, SWAP or CAS
 * @c:		for whom; NULL: nobody will ask
 * @h:		op, size, arg, arg2
 * @word:	in memory that only this thread writes now
 * @at:		its offset in the region
 *
 * Return: the value that was there
 */
uint64_t once_do(struct once *o, struct once_client *c, const struct gm_hdr *h,
		 void *word, uint64_t at);

/** once_recover() - @o is of an agent that died, or foreign; @memory: the region, of
 * @size bytes. Nobody is live. */
void once_recover(struct once *o, uint8_t *memory, uint64_t size);

#endif
