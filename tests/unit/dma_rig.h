/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dma_rig: a daemon at rest, an instance with a vhost-user port, and, on the other side
 * of its socket, a front end and a guest with a receive and a transmit ring. One thread
 * is all of them.
 */
#ifndef GN_TEST_DMA_RIG_H
#define GN_TEST_DMA_RIG_H

#include <jansson.h>

#include "../../user/daemon/ctl.h"
#include "driver.h"
#include "still.h"

#define DMA_RING_SIZE 64U
#define DMA_SLOT_LEN  0x1800U /* guest memory of a receive buffer */
#define DMA_SLOTS     48U
#define DMA_BUF_LEN   1900U
#define DMA_FAR	      0x20000000000ULL /* gpa beyond any headroom */
#define DMA_FAR_LEN   0x10000ULL
#define DMA_NOWHERE   UINT64_MAX

/* A daemon, an instance with a vhost-user port, its front end and its guest. */
struct dma_rig {
	struct still s;
	struct loop *loop;
	struct instance *in;
	char dir[32], path[64];
	unsigned int calls[STILL_QUEUES]; /* port_env.call() */
	unsigned int changes;		  /* port_env.changed() */
	bool said_logged, was_on;	  /* at the last one: port.logged, dma_log_on() */
	uint16_t frame_flags; /* gn_meta.flags of what dma_deliver() delivers */
	bool slots;	      /* the front end adds and removes regions one by one */
	uint64_t first_gpa;   /* of the first region in the table now, DMA_NOWHERE */
	int fe;		      /* front end's socket, -1 */
	int far_fd;
	uint8_t *far_mem;
	struct guest g;
	struct driver rx, tx;
	uint8_t *copy[GUEST_REGIONS + 1]; /* memory as it was */
};

/** dma_setup(), dma_teardown() - of a cmocka test; no front end is connected yet */
int dma_setup(void **state);
int dma_teardown(void **state);

/** dma_ask() - one request; @fds is the caller's to close */
json_t *dma_ask(struct dma_rig *r, const char *line, struct ctl_fds *fds);

/** dma_ask_ok() - it must be answered with "ok" */
json_t *dma_ask_ok(struct dma_rig *r, const char *line, struct ctl_fds *fds);

/** dma_refused() - it must not, for a reason with @why in it, and without descriptors */
void dma_refused(struct dma_rig *r, const char *line, const char *why);

/** dma_number() - an integer that the answer must have */
uint64_t dma_number(const json_t *o, const char *key);

/** dma_dial() - connect to a UNIX socket. Return: descriptor */
int dma_dial(const char *path);

/** dma_connect() - the front end, with memory and both rings, and let the port see it */
void dma_connect(struct dma_rig *r, bool packed);

/** dma_send_memory() - the memory table; @far_too: with a region at DMA_FAR */
void dma_send_memory(struct dma_rig *r, bool far_too);

/** dma_move_first() - the first region is at @gpa of the table from now on, or, if that is
 * DMA_NOWHERE, in it no more: by another table, or with slots by itself */
void dma_move_first(struct dma_rig *r, uint64_t gpa);

/** dma_send() - a message of the front end's; descriptors stay the caller's */
void dma_send(struct dma_rig *r, uint32_t request, const void *payload, uint32_t size,
	      const int *fd, unsigned int nfds);

/** dma_answer() - let the port handle what was sent until it answers, with @size bytes */
void dma_answer(struct dma_rig *r, void *buf, size_t size);

/** dma_hang_up() - the front end leaves, and the port has seen it */
void dma_hang_up(struct dma_rig *r);

/** dma_sync() - let the port handle all that was sent to it */
void dma_sync(struct dma_rig *r);

/** dma_refill() - take what is used; give the device receive buffers, full of what no
 * frame has */
void dma_refill(struct dma_rig *r, unsigned int round);

/** dma_snapshot() - memory as it is now goes to r->copy[] */
void dma_snapshot(struct dma_rig *r);

/** dma_deliver() - a packet of the wire in two chunks, by the queue of worker @q */
void dma_deliver(struct dma_rig *r, unsigned int q, uint32_t len, uint8_t fill);

/** dma_inject() - a frame of a local instance */
void dma_inject(struct dma_rig *r, unsigned int q, uint32_t len, uint8_t fill);

/** dma_transmit() - the guest sends @n frames, of which the worker has the last one still
 * in its hands. Takes a snapshot in between */
void dma_transmit(struct dma_rig *r, unsigned int n);

#endif
