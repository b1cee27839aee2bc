/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vu_keep: a file with the positions of packed rings, for a daemon that is killed and
 * started again under running guests.
 *
 * QEMU's network devices do not use vhost-user's own way (INFLIGHT_SHMFD). A ring is
 * known again by the file that its guest memory is, which the front end holds open all
 * along, and by where in it the ring lies. One file per daemon, with room for
 * VU_KEEP_RINGS rings of up to VU_KEEP_SIZE descriptors; others are not kept. It is
 * sparse, takes memory for rings that there are (8 bytes a descriptor), and goes when the
 * daemon ends and no ring waits for the next.
 *
 * Control thread; the rings' workers write what vu_keep_take() returned.
 */
#ifndef GN_VU_KEEP_H
#define GN_VU_KEEP_H

#include "vring_keep.h"

#define VU_KEEP_RINGS 512
#define VU_KEEP_SIZE  4096 /* descriptors */

/* Which ring. */
struct vu_keep_id {
	uint64_t dev, ino; /* of the file of guest memory */
	uint64_t offset;   /* of the ring in it, bytes */
};

/** vu_keep_open() - map the file @path, which is made if it is not there; before the
 * sandbox. Return: 0, -errno: nothing is kept */
int vu_keep_open(const char *path);

/** vu_keep_close() - remove the file if no ring is kept in it. Rings have ended. */
void vu_keep_close(void);

/** vu_keep_take() - the ring's place, with what is known of it or version 0. Return:
 * owned by the ring until vu_keep_give(); NULL: there is no room (a full file system is
 * logged) or no file */
struct vring_keep *vu_keep_take(const struct vu_keep_id *id, uint16_t size);

/** vu_keep_give() - no worker writes it any more. NULL is fine */
void vu_keep_give(struct vring_keep *k);

#endif
