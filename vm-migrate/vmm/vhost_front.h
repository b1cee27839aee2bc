/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vhost_front: the front end's side of vhost-user: it gives a back end (ghostnicd, or any
 * other) the guest's memory and rings. Source: QEMU, docs/interop/vhost-user.rst.
 *
 * Every message asks for an acknowledgement, so that a call returns when the back end has
 * done it. One call at a time; the caller has a lock. What comes back is foreign.
 */
#ifndef VMM_VHOST_FRONT_H
#define VMM_VHOST_FRONT_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../ram.h"

#define VHOST_FRONT_RINGS 2
#define VHOST_FRONT_MS	  5000 /* for an answer */

struct vhost_front_ring {
	uint32_t num, base;
	uint64_t desc, avail, used; /* guest-physical */
	int kick, call;		    /* eventfds, the caller's */
};

struct vhost_front {
	int sock; /* -1: no connection */
	/* One that we gave up, whose back end may still run the rings: it does not when it
	 * has hung up, too. -1: none */
	int leaving;
	const struct ram *ram;
	uint64_t features; /* the back end's */
	uint64_t protocol;
	uint64_t acked; /* of the running device */
	bool running;	/* the rings, over a connection that works */
	bool given; /* the rings, and not taken back: by vhost_front_stop(), also later */
	bool logging;
	struct vhost_front_ring ring[VHOST_FRONT_RINGS]; /* of the running device */
	uint64_t *log; /* [log_bytes / 8] shared, or NULL */
	size_t log_bytes;
	int log_fd;
	char why[160]; /* of the last failure */
};

void vhost_front_init(struct vhost_front *f, const struct ram *ram);
void vhost_front_fini(struct vhost_front *f);

/** vhost_front_gone() - does @err say that the back end hung up, and so uses no memory? */
static inline bool vhost_front_gone(int err)
{
	return err == -EPIPE || err == -ECONNRESET || err == -ENOTCONN;
}

/** vhost_front_connect() - Return: 0; -EPROTO: the back end lacks what is needed; -errno
 */
int vhost_front_connect(struct vhost_front *f, const char *path);

/** vhost_front_start() - @acked: features of virtio that the driver has taken */
int vhost_front_start(struct vhost_front *f, uint64_t acked,
		      const struct vhost_front_ring ring[VHOST_FRONT_RINGS]);

/**
 * vhost_front_stop() - stop the rings; on success the back end touches no memory
 * @base:	where each goes on; as it was if they were not given away
 *
 * A back end that is gone touches nothing either: the base is then what the used ring
 * says. Return: 0; -ETIMEDOUT: it may still write; -errno
 */
int vhost_front_stop(struct vhost_front *f, uint32_t base[VHOST_FRONT_RINGS]);

/** vhost_front_log() - let the back end log its writes, or not, in f->log, which is made
 * at the first time. Also while it is stopped: then from its start */
int vhost_front_log(struct vhost_front *f, bool on);

/** vhost_front_announce() - have @mac announced on the network, if the back end can */
int vhost_front_announce(struct vhost_front *f, const uint8_t mac[6]);

#endif
