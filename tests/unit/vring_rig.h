/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vring_rig: a small ring whose guest memory a test writes byte by byte.
 *
 * The regions are heap blocks of their exact size, so that an address sanitizer sees the
 * first byte beyond; the last has no memory at all and must not be touched.
 */
#ifndef GN_TEST_VRING_RIG_H
#define GN_TEST_VRING_RIG_H

#include "../../user/daemon/vhost/vring.h"

#define SIZE 8 /* descriptors */

#define RING	 0x1000ULL /* gpa of the ring's region */
#define RING_LEN 0x400ULL
#define AVAIL	 (RING + SIZE * 16) /* packed: driver event */
#define USED	 (RING + 0x100)
#define DATA	 0x10000ULL /* two regions that touch */
#define DATA_LEN 0x8008ULL
#define MORE	 (DATA + DATA_LEN)
#define MORE_LEN 0x1000ULL
#define END	 (MORE + MORE_LEN)
#define HUGE	 0x100000000ULL /* never touched: there is no memory behind it */
#define HUGE_LEN 0x200000000ULL
#define UVA	 0x550000000000ULL

#define NEXT	 1
#define WRITE	 2
#define INDIRECT 4
#define AV	 0x80 /* packed: available in the first turn */

struct vrig {
	struct vu_mem mem;
	struct vring *v;
	struct iovec iov[VRING_MAX_IOV + 1];
	uint64_t gpa[VRING_MAX_IOV + 1];
	struct vring_vec vec;
	struct vring_chain c;
};

struct vring_conf vrig_conf(bool packed);
void vrig_open(struct vrig *r, bool packed, bool indirect);
void vrig_close(struct vrig *r);

/** vrig_poke(), vrig_poke16() - write guest memory, also across borders */
void vrig_poke(struct vrig *r, uint64_t gpa, const void *p, size_t len);
void vrig_poke16(struct vrig *r, uint64_t gpa, uint16_t x);

/** vrig_sd() - write a split descriptor at @gpa */
void vrig_sd(struct vrig *r, uint64_t gpa, uint64_t addr, uint32_t len, uint16_t flags,
	     uint16_t next);

/** vrig_pd() - write a packed descriptor at @gpa */
void vrig_pd(struct vrig *r, uint64_t gpa, uint64_t addr, uint32_t len, uint16_t flags);

/** vrig_avail() - split: @n chains are available, all begin at descriptor 0 */
void vrig_avail(struct vrig *r, uint16_t n);

/** vrig_check_dead() - broken for this reason, and for good: nothing touches the ring */
void vrig_check_dead(struct vrig *r, const char *reason);

#endif
