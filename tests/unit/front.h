/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * front: a vhost-user front end with a guest of one queue pair, for tests of the port.
 *
 * It talks over a real UNIX socket and shares real memory. The device's side is served by
 * calling front_pump() between the steps, on the same thread, so that nothing has to be
 * waited for.
 */
#ifndef GN_TEST_FRONT_H
#define GN_TEST_FRONT_H

#include "../../user/lib/loop.h"
#include "../../user/daemon/vhost/vu_proto.h"
#include "driver.h"

#define FRONT_RING_SIZE 64
#define FRONT_TX_SHIFT                                                                   \
	0x10000000ULL /* the transmit ring's region follows so far behind */

struct front {
	int sock;
	struct loop *loop;
	int tick; /* always readable */
	struct loop_watch *tick_watch;
	struct guest guest;    /* memory, and the receive ring */
	struct guest tx_guest; /* of this one the ring region only */
	struct driver rx, tx;
	int kick[2], call[2]; /* eventfds of the rings */
};

/** front_init() - memory and rings with the features that @features imply; not connected
 */
void front_init(struct front *f, struct loop *loop, uint64_t features);
void front_fini(struct front *f);

/** front_rings() - new, empty rings, for another connection */
void front_rings(struct front *f, uint64_t features);

/** front_pump() - one round of the device's event loop */
void front_pump(struct front *f);

/** front_connect() - Return: 0, -errno */
int front_connect(struct front *f, const char *path);
void front_disconnect(struct front *f);

/** front_send() - a message; descriptors stay the caller's. Then one round of the loop */
void front_send(struct front *f, uint32_t request, const void *payload, uint32_t size,
		const int *fd, unsigned int nfds);

/** front_reply() - Return: bytes of the next reply, 0: the device hung up, -EAGAIN */
int front_reply(struct front *f, void *buf, size_t size);

/** front_up() - features, memory, both rings, enabled */
void front_up(struct front *f, uint64_t features);

/** front_table() - the memory table; @other: the same memory in more regions, by other
 * descriptors, at other addresses of the front end's */
void front_table(struct front *f, bool other);

/** front_log_rings() - what the device writes in rings is to be logged, where it is */
void front_log_rings(struct front *f);

/** front_state() - a request with a ring's number and a value */
void front_state(struct front *f, uint32_t request, uint32_t index, uint32_t num);

/** front_count() - take the number of events from an eventfd */
uint64_t front_count(int fd);

#endif
