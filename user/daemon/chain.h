/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chain: chains that were merged on the word of their segments' checksums (MBUF_CLAIMED),
 * and how they come apart when one of them lied.
 *
 * A port that reads the payload verifies it then, best in the same pass as its copy
 * (csum_copy()): mbuf by mbuf, since each holds one segment's payload, and the sum that
 * its checksum claims in meta.payload_sum. Nothing of a chain may be shown to the
 * instance before all of it is found good. What is not is taken apart again: a bad packet
 * goes alone, as it came, for the instance to judge; the good ones before and after it
 * stay merged. Headers of all but the head are still where the kernel wrote them, in
 * front of the payload; the head's are there until gso_finish() writes them.
 *
 * Thread: the worker that owns the chain.
 */
#ifndef GN_CHAIN_H
#define GN_CHAIN_H

#include "agg.h"

/**
 * chain_payload() - payload of one mbuf of a claimed chain
 * @p:		pool
 * @head:	chain
 * @m:		an mbuf of it, @head too
 * @len:	set to bytes
 */
static inline const uint8_t *chain_payload(const struct mbuf_pool *p,
					   const struct mbuf *head, const struct mbuf *m,
					   uint32_t *len)
{
	uint32_t skip = m == head ? mbuf_hdr_len(head) : 0;

	*len = m->len - skip;
	return mbuf_data(p, m) + skip;
}

/** chain_good() - all of it was found good: MBUF_VERIFIED from here on */
static inline void chain_good(struct mbuf *head)
{
	head->flags = (uint8_t)((head->flags & ~MBUF_CLAIMED) | MBUF_VERIFIED);
}

/**
 * chain_verify() - read all payload where nothing else does
 * Return: true: chain_good(); also of a chain that is not claimed. false: untouched
 */
bool chain_verify(const struct mbuf_pool *p, struct mbuf *head);

/**
 * chain_split() - take the bad packets out of a claimed chain
 * @p:		pool
 * @head:	claimed, gso_finish() not called; its tag is popped or not, and so are the
 *		others'
 * @out:	[AGG_MAX_BUFS] filled, in order: chains of good packets, MBUF_VERIFIED, and
 *		bad ones, each alone
 * @bad:	set to the number of those
 *
 * Return: how many heads
 */
unsigned int chain_split(struct mbuf_pool *p, struct mbuf *head, struct mbuf **out,
			 unsigned int *bad);

#endif
