/* SPDX-License-Identifier: BSD-2-Clause */
/* lib_conn_int: what lib_conn.c (requests) and lib_dial.c (connecting) share. */
#ifndef LIB_CONN_INT_H
#define LIB_CONN_INT_H

#include "lib.h"

#define RX_SIZE (64u << 10)

struct pending {
	uint64_t seq; /* 0: free */
	struct lib_req q;
};

struct lib_conn {
	struct lib_conn *next; /* region.lock */
	struct ghostmem_region *region;
	uint64_t thread;
	unsigned int generation;
	struct net_conn nc;
	bool direct; /* blocking socket */
	uint64_t seq, session, spin_ns;
	uint32_t key_id, epoch;
	int timeout_ms;
	/* Atomics, see agent/once.h */
	uint64_t id;	 /* ours at the owner */
	uint64_t done;	 /* as the owner counts */
	uint64_t before; /* done, when the last one was sent */
	uint64_t last;	 /* result of the last one before this connection */
	bool known;	 /* the owner knew us when we connected */
	int err;
	struct pending pending[LIB_DEPTH];
	unsigned int n;
	/* Not done, because the region has moved: to be sent to its owner now. */
	struct lib_req redo[LIB_DEPTH];
	unsigned int nredo;
	uint64_t redo_ns;	     /* since when */
	struct ghostmem_async *lost; /* to be made again */
	size_t bytes;		     /* of replies and puts under way */
	uint8_t tx[LIB_DEPTH * GM_HDR_SIZE];
	size_t tx_fill, rx_at, rx_fill;
	uint8_t rx[RX_SIZE];
};

/**
 * lib_conn_dial() - connect @c, which is not connected, to where its region is now
 * @timeout_ms:	for each step of the way there
 *
 * Its thread. Return: 0: c->epoch, session, key_id and what the owner knows of its
 * atomics are set; -errno of the network, or what the owner answers
 */
int lib_conn_dial(struct lib_conn *c, int timeout_ms);

#endif
