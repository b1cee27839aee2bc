/* SPDX-License-Identifier: BSD-2-Clause */
/* precopy_impl: what precopy.c (life, rounds) and precopy_stop.c (the end) share. */
#ifndef VMM_PRECOPY_IMPL_H
#define VMM_PRECOPY_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "precopy.h"
#include "precopy_peer.h"
#include "predict.h"

struct precopy {
	struct precopy_conf conf; /* strings owned */
	const struct ram *ram;
	struct dirty_set *dirty;
	char *config;
	const struct precopy_vm_ops *ops;
	void *vm;

	/* The engine thread's own */
	struct peer peer;
	bool peer_opened, paused;
	struct digest digest;
	uint64_t *bitmap;    /* what is to be sent */
	uint64_t *populated; /* what is no hole, ever since the beginning */
	pthread_mutex_t find_lock;
	uint64_t found; /* page: what is populated before it is known; under that lock */
	uint64_t *by[DIRTY_BY_COUNT];
	struct predict predict;
	uint64_t began_ns, harvested_ns, budget_ns;
	uint64_t harvest_ns, least_ns; /* of the last harvest, of a round's shortest */
	bool shorter;		/* the last was, by a quarter, than any before it */
	unsigned int overheads; /* verdicts in a row that harvests take too long */
	uint64_t sent_bytes, sent_pages; /* before this round */

	atomic_bool cancelled, /* by the user */
		lost,	       /* the peer failed */
		committed;     /* HANDOVER was sent */
	pthread_mutex_t lock;
	struct sender *sender; /* changed under the lock */
	struct precopy_status status;
};

/** precopy_fail() - keep the first reason. Return: @err */
int precopy_fail(struct precopy *p, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/** precopy_send_failed() - the reason of a failed sender call is the peer's if it has
 * one. Return: -errno */
int precopy_send_failed(struct precopy *p, int err);

void precopy_phase(struct precopy *p, enum precopy_phase phase);

/** precopy_harvest() - every log into p->bitmap, without pages that are holes
 * @count:	who wrote goes into p->by, and into the status
 *
 * Return: pages in p->bitmap
 */
uint64_t precopy_harvest(struct precopy *p, bool count);

/** precopy_drop_holes() - clear the bits of what is a hole; see precopy_holes.c. Return: so many */
uint64_t precopy_drop_holes(struct precopy *p);

/** precopy_find() - what the first round has to send, for sender_conf.find; @arg: struct precopy */
int precopy_find(void *arg, uint64_t w, uint64_t *known);

/** precopy_hand_over() - steps 1 to 7. Return: 0, -errno: resume, -EBUSY: uncertain */
int precopy_hand_over(struct precopy *p);

/** precopy_audit() - Return: 0, also if it could not be made after the hand-over; -EUCLEAN;
 * -errno */
int precopy_audit(struct precopy *p);

#endif
