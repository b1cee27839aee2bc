/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shm_ring: the daemon's side of one queue's shared memory (user/lib/shm_abi.h).
 *
 * The client can write every byte of that memory at any time. So what the daemon has to
 * know is kept in memory of its own: which packet is out under which id, which data slots
 * are free, how far it has read. Of the client's words each is read once, into a local
 * variable, and checked there; a client that breaks a rule is reported with a reason and
 * its ring not read again.
 *
 * No I/O, no packet buffers: a packet is known by a token of the caller's.
 *
 * Thread: one worker; init and fini: the control thread, when no worker has the ring.
 */
#ifndef GN_SHM_RING_H
#define GN_SHM_RING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "../lib/shm_abi.h"

#define SHM_SLOT_SIZE 2048 /* bytes: unit in which data is given to copied packets */
#define SHM_MAX_RING  (1U << 20)

struct shm_ring_conf {
	uint32_t hold;	  /* most buffers of the caller's that may be out */
	uint32_t nslots;  /* data slots */
	uint32_t tx_size; /* bytes, a power of two, or 0 */
};

/* A packet that is out. */
struct shm_out {
	uint32_t id;	/* it has, or the next one of this entry will have */
	uint32_t token; /* caller's; of a copied packet: its first slot */
	uint8_t nsegs;	/* 0: not out */
	bool copied;
};

struct shm_ring {
	struct gn_shm_ctl *ctl;
	struct gn_shm_pkt *pkts;
	struct gn_shm_seg *segs;
	const uint32_t *rets;
	uint8_t *data;
	const uint8_t *tx;
	uint32_t mask;				       /* of pkts, segs and rets */
	uint32_t tx_size;			       /* bytes */
	uint32_t rx_prod, seg_prod, ret_cons, tx_cons; /* positions */
	uint32_t hold, held;			       /* buffers of the caller's */
	uint32_t nout;				       /* packets out */
	uint64_t returned;			       /* packets ever given back */
	uint64_t lost;
	const char *broken;  /* the rule that the client broke, or NULL */
	struct shm_out *out; /* [mask + 1] by id & mask */
	uint32_t *free_id;   /* [mask + 1] stack of indexes into out[] */
	uint32_t nfree_id;
	uint32_t *slot_next; /* [nslots] */
	uint32_t *free_slot; /* [nslots] stack */
	uint32_t nfree_slot;
};

/**
 * shm_ring_layout() - where everything lies in the memory
 * @out:	all but queue and umem_size are filled
 *
 * Return: 0, -EINVAL: more than SHM_MAX_RING buffers and slots, or none
 */
int shm_ring_layout(const struct shm_ring_conf *c, struct gn_shm_queue *out);

/**
 * shm_ring_init() - an empty ring
 * @r:		uninitialised
 * @mem:	l->map_size bytes, zero, aligned to a cache line; not owned
 * @l:		of shm_ring_layout(@c)
 *
 * Return: 0, -ENOMEM
 */
int shm_ring_init(struct shm_ring *r, void *mem, const struct gn_shm_queue *l,
		  const struct shm_ring_conf *c);
void shm_ring_fini(struct shm_ring *r);

/**
 * shm_ring_put() - a packet in buffers of the caller's; it becomes visible by
 *		shm_ring_publish()
 * @token:	to be told when it comes back
 * @nsegs:	buffers, 1 to GN_SHM_MAX_SEGS; as many shm_ring_seg() calls must follow
 *
 * Return: entry whose fields but id and nsegs the caller writes, never reads; NULL: the
 * client holds too much
 */
struct gn_shm_pkt *shm_ring_put(struct shm_ring *r, uint32_t token, unsigned int nsegs);

static inline void shm_ring_seg(struct shm_ring *r, uint32_t off, uint32_t len)
{
	r->segs[r->seg_prod++ & r->mask] = (struct gn_shm_seg){ off, len };
}

/**
 * shm_ring_copy() - a packet that is copied into data
 * @len:	bytes of @iov to copy, > 0
 *
 * Return: entry whose fields but id, nsegs and len the caller writes; flags have
 * GN_SHM_PKT_DATA already. NULL: no room
 */
struct gn_shm_pkt *shm_ring_copy(struct shm_ring *r, const struct iovec *iov,
				 unsigned int niov, uint32_t len);

/** shm_ring_publish() - let the client see what was put. Return: ring its doorbell */
bool shm_ring_publish(struct shm_ring *r);

/** shm_ring_lose() - tell the client of @n packets that it does not get */
void shm_ring_lose(struct shm_ring *r, uint64_t n);

/**
 * shm_ring_reclaim() - what the client gave back
 * @token:	filled with the tokens of shm_ring_put(), at most @max
 *
 * Return: their number, less than @max if nothing is left; -EPROTO: r->broken says why
 */
int shm_ring_reclaim(struct shm_ring *r, uint32_t *token, unsigned int max);

/**
 * shm_ring_drain() - the client is gone: take back what it has
 * Return: tokens filled; 0: nothing is out any more
 */
unsigned int shm_ring_drain(struct shm_ring *r, uint32_t *token, unsigned int max);

/**
 * shm_ring_fetch() - next frame of the client's, copied out
 * @vh:		filled, otherwise unchecked
 * @buf:	GN_SHM_MAX_FRAME bytes
 *
 * Return: bytes, 0: no frame, -EPROTO
 */
int shm_ring_fetch(struct shm_ring *r, struct virtio_net_hdr_v1 *vh, uint8_t *buf);

/**
 * shm_ring_sleep() - ask the client to ring before the daemon stops looking
 * @wake:	GN_SHM_WAKE_*
 *
 * What the client did before it could see this is seen by calls after it.
 */
void shm_ring_sleep(struct shm_ring *r, uint32_t wake);

#endif
