/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vring_keep: what outlives the daemon of a packed ring: where it has come to.
 *
 * A split ring has its used index in guest memory. A packed one has none: flags tell
 * used descriptors from available ones, but not how many descriptors a used one stands
 * for, so from the ring alone nobody can say where to go on. A front end knows the
 * position only if it asked before the back end died. So the device writes it down, in
 * memory that stays when its process goes: the front end's (INFLIGHT_SHMFD), or a file of
 * the daemon's (vu_keep.h).
 *
 * A burst's used descriptors are noted here first, then counted (commit), then written to
 * the ring, then the position moves and the count goes back to 0 by the same store. Who
 * is killed before the commit has changed nothing in the ring; who is killed after it
 * leaves notes from which the burst is written again, to the same effect.
 *
 * A guest that is restarted meanwhile has another ring in the same place, perhaps with
 * the same buffers, and the front end may not say so. The ring itself does: a driver that
 * sets one up zeroes it (virtio 1.2, 4.1.5.1.3), and the device's event structure, which
 * drivers only read, is never zero from the moment on that a position is kept.
 *
 * What is read from here is checked as if the guest had written it.
 */
#ifndef GN_VRING_KEEP_H
#define GN_VRING_KEEP_H

#include <stdbool.h>
#include <stdint.h>

#define VRING_KEEP_VERSION 2

/* A used descriptor: of a chain of ndesc. */
struct vring_note {
	uint16_t id, ndesc;
	uint32_t written; /* bytes */
};

struct vring_keep {
	uint32_t version; /* 0: nothing is kept */
	uint16_t size;	  /* of the ring */
	uint16_t last;	  /* where the newest used descriptor was written, with WRAP */
	uint64_t state;	  /* position of use, bits 0-15, with WRAP; notes, from bit 32 */
	/* Buffers' addresses, which a device leaves in used descriptors: of the one at
	 * last, and, while there are notes, of the first that they are about. A ring that
	 * was emptied and set up anew meanwhile has others there. */
	uint64_t last_addr, addr;
	struct vring_note note[]; /* [size] */
};

_Static_assert(sizeof(struct vring_keep) == 32, "part of a file's layout");

/* Bytes for a ring of @size descriptors, a multiple of 8. */
static inline uint64_t vring_keep_bytes(uint16_t size)
{
	return sizeof(struct vring_keep) + (uint64_t)size * sizeof(struct vring_note);
}

#endif
