/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * driver: a guest and its virtqueue driver, for tests of the device's side.
 *
 * Written from virtio 1.2, sections 2.7 and 2.8, and sharing nothing with user/daemon but
 * the memory: the guest's regions are memfds that are mapped here a second time. A driver
 * that finds the device breaking a rule fails the test.
 *
 * Thread: one at a time per driver; guest memory any.
 */
#ifndef GN_TEST_DRIVER_H
#define GN_TEST_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include "../../user/daemon/vhost/vring.h"

/* Regions: three that follow each other in guest addresses, their borders at no
 * round place and the middle one tiny, then one far away, for rings. */
#define GUEST_REGIONS  4
#define GUEST_DATA     0x10000ULL /* gpa of the first */
#define GUEST_DATA_A   0x40538ULL /* bytes of the three */
#define GUEST_DATA_B   0x48ULL
#define GUEST_DATA_C   0x40000ULL
#define GUEST_DATA_LEN (GUEST_DATA_A + GUEST_DATA_B + GUEST_DATA_C)
#define GUEST_RING     0x100000000ULL /* gpa of the fourth */
#define GUEST_RING_LEN 0x100000ULL
#define GUEST_UVA      0x7f0000000000ULL /* front end's address of gpa 0 */

struct guest_region {
	uint64_t gpa, size;
	uint8_t *base; /* mapped by the guest */
	int fd;
};

struct guest {
	struct guest_region region[GUEST_REGIONS];
	struct vu_mem mem; /* mapped by the device */
};

/** guest_init() - memory; @shared: the guest uses the device's mapping (so that a
 * thread sanitizer sees both sides at one address) */
void guest_init(struct guest *g, bool shared);
void guest_fini(struct guest *g);

/** guest_ptr() - memory at @gpa, contiguous for @len bytes, or the test fails */
void *guest_ptr(const struct guest *g, uint64_t gpa, uint64_t len);

/** guest_write(), guest_read() - bytes that may cross borders */
void guest_write(const struct guest *g, uint64_t gpa, const void *buf, uint64_t len);
void guest_read(const struct guest *g, uint64_t gpa, void *buf, uint64_t len);

struct driver_buf {
	uint64_t gpa;
	uint32_t len;
};

struct driver_slot { /* one per descriptor or buffer id */
	uint64_t cookie;
	uint16_t ndesc;
	bool busy;
};

struct driver {
	struct guest *g;
	struct vring_conf conf;
	uint64_t desc, avail, used; /* gpa */
	struct driver_slot *slot;   /* [size] by id */
	uint16_t *free;		    /* [size] stack, or a ring if in order */
	uint16_t *fifo;		    /* [size] outstanding ids, oldest first */
	uint16_t nfree;		    /* descriptors */
	uint16_t nids;		    /* packed: free ids */
	uint16_t next_desc;	    /* split, in order */
	uint32_t fifo_head, fifo_tail;
	uint16_t avail_idx, kicked; /* split; kicked: as of the last decision */
	uint16_t last_used;
	/* packed */
	uint16_t pos, used_pos;
	bool wrap, used_wrap;
	uint32_t added; /* descriptors since the last kick decision */
	unsigned int outstanding;
};

/** driver_init() - rings at the start of the ring region. @c: flags and size are read */
void driver_init(struct driver *d, struct guest *g, const struct vring_conf *c);
void driver_fini(struct driver *d);

/** driver_conf() - what the device is told */
struct vring_conf driver_conf(const struct driver *d);

/**
 * driver_add() - make a chain available
 * @buf:	[@nout + @nin]
 * @table:	gpa of an indirect table, 0: direct
 * Return: 0, -ENOSPC
 */
int driver_add(struct driver *d, const struct driver_buf *buf, unsigned int nout,
	       unsigned int nin, uint64_t table, uint64_t cookie);

/** driver_should_kick() - for what was added since the last call */
bool driver_should_kick(struct driver *d);

/** driver_get() - a used chain. Return: 1, 0: none */
int driver_get(struct driver *d, uint64_t *cookie, uint32_t *len);

/**
 * driver_want() - interrupts on or off
 * @after:	with event index: only after so many more used entries, > 0
 * Return: with @on: true if something is used already
 */
bool driver_want(struct driver *d, bool on, unsigned int after);

#endif
