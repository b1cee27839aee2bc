/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * owners: a thread that plays this node's agent, and both nodes that own a region by turns:
 * each epoch the other one. A test's rule says what becomes of each request.
 */
#ifndef GN_TEST_SHARE_OWNERS_H
#define GN_TEST_SHARE_OWNERS_H

#include "../../user/share/lib/lib.h"

#define MIB	       (1u << 20)
#define OWNERS_SIZE    (20u * MIB) /* of the region */
#define OWNERS_WAIT_MS 10000

/* What becomes of a request; or -errno: it is refused */
enum { DO, SILENT = 1, HANG_UP, DO_AND_HANG_UP, ANSWER_AND_HANG_UP };

/* A test sets it up before owners_begin(). From then on it is the thread's, under lock. */
extern struct owners {
	pthread_mutex_t lock;
	int (*rule)(const struct gm_hdr *h); /* NULL: do all */
	uint32_t epoch, lease_ms;	     /* 0: as usual */
	struct net_tls *tls;		     /* NULL: none */
	unsigned int leave; /* close so many connections that were let in */
	unsigned int connections, done;
	uint8_t *memory;
	uint64_t client, atomics, old; /* one client is enough */
	char dir[32], agent[64], addr[2][64];
} owners;

/** owners_init() - before all tests. Return: 0, -1; owners_fini() after them */
int owners_init(void);
int owners_fini(void);

/** owners_begin() - the region, imported without a window; owners_end() closes *@g */
struct ghostmem_region *owners_begin(struct ghostmem **g);
void owners_end(struct ghostmem *g);

/** owners_look() - what the thread has done so far is to be seen */
void owners_look(void);

#endif
