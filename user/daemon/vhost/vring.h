/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vring: the device's side of one virtqueue, split or packed.
 *
 * virtio 1.2, sections 2.7 (split) and 2.8 (packed). Everything in guest memory is
 * hostile: each value is read once, checked, then used; a ring that breaks a rule is
 * marked broken with a reason and never touched again until it is set up anew.
 *
 * A burst, receive (device writes): vring_take() chains, whose buffers gather in one
 * vector; write them; vring_put() each; vring_publish() once; vring_should_notify()
 * once. Transmit (device reads): the same with nothing written. Buffers are neither
 * touched nor remembered once their chain is put, and all that a burst wrote is put
 * and published before its worker runs anything for the control thread.
 *
 * With a dma_log that is on, vring_put() marks the buffers' bytes that it is told were
 * written and vring_publish() the used ring's; data is always marked before the used
 * index or flag that makes it visible.
 *
 * linux/virtio_ring.h may be included beside this header, but its struct vring is
 * not this one: never look into it.
 *
 * Thread: one worker at a time; create, destroy, remap and set_log: the control thread
 * while no worker runs the ring.
 */
#ifndef GN_VRING_H
#define GN_VRING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "../dma_log.h"
#include "vring_keep.h"
#include "vu_mem.h"

#define VRING_MAX_SIZE 32768 /* descriptors; split: a power of two */
#define VRING_MAX_IOV  256   /* buffers of one chain, split at region borders */

/* What the guest and the front end agreed on. */
struct vring_conf {
	bool packed;	  /* VIRTIO_F_RING_PACKED */
	bool event_idx;	  /* VIRTIO_RING_F_EVENT_IDX */
	bool indirect;	  /* VIRTIO_RING_F_INDIRECT_DESC */
	bool in_order;	  /* VIRTIO_F_IN_ORDER: put() calls come in take() order */
	bool log_used;	  /* VHOST_VRING_F_LOG: the front end logs used-ring writes... */
	uint64_t log_gpa; /* ...at this guest address of the used ring; it need not
			   * lie in any region */
	uint16_t size;	  /* descriptors */
	/* Front end's addresses: split: descriptor table, available, used ring;
	 * packed: descriptor ring, driver event, device event. */
	uint64_t desc_uva, avail_uva, used_uva;
	/* Packed: where the position is written down, and read when the ring is created;
	 * room for @size notes. NULL: nowhere. */
	struct vring_keep *keep;
};

/* Buffers of one or more chains. The caller provides the room; all start empty by n = 0.
 */
struct vring_vec {
	unsigned int n, max;
	struct iovec *iov; /* [max] */
	uint64_t *gpa;	   /* [max] guest address of each entry */
};

/* A buffer list of the guest's. */
struct vring_chain {
	uint16_t id;		  /* to give back */
	uint16_t ndesc;		  /* ring slots it takes */
	uint16_t nout, nin;	  /* entries: device reads the first, writes the rest */
	uint32_t first;		  /* its first entry in the vector */
	uint32_t out_len, in_len; /* bytes */
};

struct vring;

/**
 * vring_create() - a ring at the addresses in @c
 * @c:		copied
 * @mem:	guest's memory; not owned
 * @log:	not owned; may be NULL
 * @base:	index to go on from, as SET_VRING_BASE gave it. Split: the next available
 *		index. Packed: next available descriptor, bits 0-14, its wrap counter,
 *		bit 15, and in the upper half the same of the used position; an upper
 *		half of 0 (DPDK's virtio-user) means that both are the same.
 * @out:	set on success; caller destroys
 *
 * The ring goes on from the used position, which a split ring has in guest memory and a
 * packed one in @c->keep, if what is there fits the ring: chains that a back end held
 * when it died come again, and no buffer is lost.
 *
 * Return: 0, -EINVAL (size, alignment, @base, address not in one region of @mem), -ENOMEM
 */
int vring_create(const struct vring_conf *c, const struct vu_mem *mem,
		 struct dma_log *log, uint32_t base, struct vring **out);

/**
 * vring_destroy() - free; guest memory is not touched. NULL is fine
 * Return: @base for a ring that goes on from here (GET_VRING_BASE): chains that were
 * taken and not published come again
 */
uint32_t vring_destroy(struct vring *v);

/** vring_forget() - the ring ends in order: the front end knows where it goes on */
void vring_forget(struct vring *v);

/**
 * vring_remap() - the memory table changed: find the ring's own addresses again
 * No chain may be taken. Return: 0, -EINVAL: they are no longer there, the ring is broken
 */
int vring_remap(struct vring *v);

/** vring_set_log() - VHOST_VRING_F_LOG and its address changed while the ring runs */
void vring_set_log(struct vring *v, bool log_used, uint64_t log_gpa);

/**
 * vring_take() - next available chain
 * @vec:	its buffers are appended
 * @c:		filled
 * Return: 1, 0: none, -ENOBUFS: its buffers do not fit in @vec now, it was not taken (an
 * empty one of VRING_MAX_IOV holds any), -EPROTO: the guest broke a rule, see
 * vring_broken()
 */
int vring_take(struct vring *v, struct vring_vec *vec, struct vring_chain *c);

/**
 * vring_untake() - chains were not used; the next vring_take() returns them again
 * @vec:	shortened to what it was before
 * @c:		the @n > 0 chains taken last, oldest first
 */
void vring_untake(struct vring *v, struct vring_vec *vec, const struct vring_chain *c,
		  unsigned int n);

/**
 * vring_spoil() - bytes of a chain were written that will not be given to the guest
 * @written:	of its writable buffers, from their start; marked, since a guest's memory
 *		is what its log says. vring_untake() follows
 */
void vring_spoil(struct vring *v, const struct vring_vec *vec,
		 const struct vring_chain *c, uint32_t written);

/**
 * vring_put() - a chain is done; the guest does not see it yet
 * @vec:	as filled by its vring_take()
 * @c:		chain
 * @written:	bytes of its writable buffers that were filled, from their start
 */
void vring_put(struct vring *v, const struct vring_vec *vec, const struct vring_chain *c,
	       uint32_t written);

/** vring_publish() - make all put() chains visible to the guest */
void vring_publish(struct vring *v);

/**
 * vring_should_notify() - does the guest want an interrupt for what was published
 * since the last call?
 */
bool vring_should_notify(struct vring *v);

/**
 * vring_set_wakeup() - ask the guest to kick when more chains come (@on), or to leave it
 * Return: with @on: true if chains came after the last vring_take(), for which no kick
 * need come: look again
 */
bool vring_set_wakeup(struct vring *v, bool on);

/** vring_broken() - reason, or NULL */
const char *vring_broken(const struct vring *v);

#endif
