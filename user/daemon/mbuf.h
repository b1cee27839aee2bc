/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mbuf: the control field of one umem chunk.
 *
 * Chunk i of a umem and mbuf i of its pool are one thing: the chunk holds the
 * frame as the kernel wrote it, the mbuf says which bytes of it count and what
 * follows. Aggregation links mbufs; packet bytes never move. mbufs live outside
 * the umem, so that a process that maps the umem cannot reach them.
 *
 * A chain is one (super-)packet: the head contributes headers and payload, the
 * others payload only. Continuation buffers of a multi-buffer frame are linked
 * the same way.
 *
 * Thread: a pool and all its mbufs belong to one worker.
 */
#ifndef GN_MBUF_H
#define GN_MBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "../../bpf/offload_shared.h"

#define MBUF_NONE UINT32_MAX

struct mbuf {
	struct gn_meta meta; /* as XDP wrote it */
	uint64_t addr;	     /* umem address of the first byte that counts */
	uint32_t len;	     /* bytes that count in this chunk */
	uint32_t next;	     /* index of the next mbuf of the chain, MBUF_NONE ends it */
	/* The rest is valid in a chain's head only. */
	uint32_t tail;	   /* index of the last mbuf of the chain */
	uint32_t total;	   /* bytes of the chain, frame start to payload end */
	uint8_t nsegs;	   /* segments merged, 1 for a lone packet */
	uint8_t nbufs;	   /* mbufs of the chain; never more than AGG_MAX_BUFS */
	uint16_t gso_size; /* payload of the first segment, bytes; 0: lone */
	uint16_t sum;	   /* one's complement sum of all payload, when carried */
	uint8_t flags;	   /* MBUF_* */
	uint8_t id_step;   /* IPv4 identification step: 0, 1, or MBUF_STEP_ANY */
};

_Static_assert(sizeof(struct mbuf) == 64, "one cache line per mbuf");

#define MBUF_VERIFIED (1U << 0) /* L4 checksum of every segment checked */
#define MBUF_PARTIAL  (1U << 1) /* local sender's partial checksum, data good */
#define MBUF_CLOSED   (1U << 2) /* takes no more segments */
#define MBUF_CLAIMED  (1U << 3) /* merged, nothing checked: whoever delivers it does */
#define MBUF_POPPED   (1U << 4) /* mbuf_pop_vlan() took a tag off the head */
#define MBUF_STEP_ANY 0xff	/* one segment: no step seen yet */

/* Share of a pool that its ports may keep for long. With transmission's and open chains'
 * quarter each, an eighth is left that the fill ring always has. */
#define MBUF_PROMISE(nchunks) ((nchunks) / 8 * 3)

/* All chunks of one umem. Free chunks are a stack, so that the most recently
 * used one, still in the cache, is handed out first; or one is taken out by name. */
struct mbuf_pool {
	struct mbuf *mbufs;   /* [nchunks], 64-byte aligned */
	uint8_t *base;	      /* the umem in this process */
	uint32_t chunk_shift; /* log2 of the chunk size in bytes */
	uint32_t nchunks;
	uint32_t nfree;	 /* entries of free[] */
	uint32_t *free;	 /* [nchunks] chunk indexes */
	uint32_t *where; /* [nchunks] a free chunk's place in free[]; MBUF_NONE: in use */
	uint32_t promised; /* chunks that ports may keep, together at most
			    * MBUF_PROMISE; control thread's */
};

/**
 * mbuf_pool_init() - set up the control fields for a umem; all chunks free
 * @p:		pool, uninitialised
 * @base:	umem in this process; not owned
 * @nchunks:	number of chunks, > 0
 * @chunk_size:	bytes, a power of two
 *
 * Return: 0, -EINVAL, -ENOMEM
 */
int mbuf_pool_init(struct mbuf_pool *p, void *base, uint32_t nchunks,
		   uint32_t chunk_size);

/** mbuf_pool_fini() - free the control fields; the umem stays. Zeroed @p is fine. */
void mbuf_pool_fini(struct mbuf_pool *p);

static inline uint32_t mbuf_index(const struct mbuf_pool *p, const struct mbuf *m)
{
	return (uint32_t)(m - p->mbufs);
}

static inline struct mbuf *mbuf_next(const struct mbuf_pool *p, const struct mbuf *m)
{
	return m->next == MBUF_NONE ? NULL : &p->mbufs[m->next];
}

/* The mbuf of the chunk that holds umem address @addr. */
static inline struct mbuf *mbuf_of(const struct mbuf_pool *p, uint64_t addr)
{
	return &p->mbufs[addr >> p->chunk_shift];
}

static inline uint8_t *mbuf_data(const struct mbuf_pool *p, const struct mbuf *m)
{
	return p->base + m->addr;
}

/* Headers of the packet, Ethernet to L4, in bytes. Only where meta.l4_len is set. */
static inline uint32_t mbuf_hdr_len(const struct mbuf *m)
{
	return (uint32_t)m->meta.l4_off + m->meta.l4_len;
}

/** mbuf_alloc() - take one free chunk. Return: its mbuf (fields stale) or NULL */
static inline struct mbuf *mbuf_alloc(struct mbuf_pool *p)
{
	uint32_t i;

	if (!p->nfree)
		return NULL;
	i = p->free[--p->nfree];
	p->where[i] = MBUF_NONE;
	return &p->mbufs[i];
}

/** mbuf_take() - take chunk @i. Return: false: it is in use, or there is no such chunk */
static inline bool mbuf_take(struct mbuf_pool *p, uint32_t i)
{
	uint32_t last;

	if (i >= p->nchunks || p->where[i] == MBUF_NONE)
		return false;
	last = p->free[--p->nfree];
	p->free[p->where[i]] = last;
	p->where[last] = p->where[i];
	p->where[i] = MBUF_NONE;
	return true;
}

/** mbuf_free() - give one chunk back; not its followers */
static inline void mbuf_free(struct mbuf_pool *p, const struct mbuf *m)
{
	uint32_t i = mbuf_index(p, m);

	p->where[i] = p->nfree;
	p->free[p->nfree++] = i;
}

/** mbuf_free_chain() - give back @head and all that follows it */
void mbuf_free_chain(struct mbuf_pool *p, const struct mbuf *head);

/**
 * mbuf_iov() - address list of a chain, in order
 * @p:		pool
 * @head:	chain
 * @iov:	room for @max entries
 *
 * Return: entries used; 0 if the chain has more than @max buffers
 */
unsigned int mbuf_iov(const struct mbuf_pool *p, const struct mbuf *head,
		      struct iovec *iov, unsigned int max);

/**
 * mbuf_pop_vlan() - remove the outer tag of a chain's frame
 * @p:		pool
 * @head:	chain whose first buffer holds at least the 16 bytes up to the tag's end
 */
void mbuf_pop_vlan(const struct mbuf_pool *p, struct mbuf *head);

#endif
