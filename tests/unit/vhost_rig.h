/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vhost_rig: the vhost-user port with a front end and its guest at one side and real
 * chains of segments at the other. One port at a time, all on the test's thread.
 */
#ifndef GN_TEST_VHOST_RIG_H
#define GN_TEST_VHOST_RIG_H

#include <linux/virtio_config.h>
#include <stddef.h>

#include "../../user/daemon/port.h"
#include "front.h"
#include "keep.h"
#include "pkt.h"
#include "rig.h"

#define BIT(n) (1ULL << (n))
#define VH_V1  BIT(VIRTIO_F_VERSION_1)
#define VH_MRG (VH_V1 | BIT(VIRTIO_NET_F_MRG_RXBUF))
#define VH_TSO                                                                           \
	(BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |                   \
	 BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN))
#define VH_MTU	   1500
#define VH_BUF	   2048			  /* bytes of a receive buffer */
#define VH_NBUFS   60			  /* buffers posted */
#define VH_TX_DATA (GUEST_DATA + 0x60000) /* where the guest builds what it sends */
#define VH_HDR	   12

extern const uint8_t vh_mac[6]; /* the guest's address */

struct vhost_rig {
	char dir[32], path[64];
	struct loop *loop;
	struct port *port;
	struct port_env env;
	unsigned int calls, changes;
	struct front f;
	struct rig rig;
	/* The packets that were pushed. */
	struct keep sent;
	uint32_t seq;
};

extern struct vhost_rig vh;

/* cmocka's, for each test: a loop, an aggregator, no port yet. */
int vh_setup(void **state);
int vh_teardown(void **state);

#define VH_TEST(fn) cmocka_unit_test_setup_teardown(fn, vh_setup, vh_teardown)

/** vh_open_port() - Return: 0, -errno */
int vh_open_port(unsigned int nqueues, bool client);

/** vh_up() - a port of one worker, a front end with @features, both rings */
void vh_up(uint64_t features);

/** vh_stat() - a counter of struct port_stats, by its offset, of all queues */
uint64_t vh_stat(size_t off);

#define VH_STAT(name) vh_stat(offsetof(struct port_stats, name))

/** vh_post() - the guest offers a chain of @per buffers of VH_BUF bytes, @n times */
void vh_post(unsigned int n, unsigned int per);

/* A frame as the guest finds it: header and bytes over its merged buffers. */
struct vh_frame {
	struct virtio_net_hdr_v1 vh;
	uint32_t len;
	uint8_t data[PKT_MAX];
};

extern struct vh_frame vh_got; /* room for one */

/** vh_receive() - the guest takes a frame, of buffers as vh_post() with @per made them.
 * Return: false: nothing there */
bool vh_receive(struct vh_frame *r, unsigned int per, unsigned int *nbufs);

/** vh_push_segment() - one TCP segment of a flow, into the aggregator */
void vh_push_segment(uint32_t len, enum pkt_csum csum, bool cwr);

/** vh_push_altered() - the same, good, but for the payload's 16-bit word at @at, to
 * which @by was added after the checksum was made */
void vh_push_altered(uint32_t len, uint32_t at, uint16_t by);

/** vh_deliver() - all that was pushed goes to the port; its chunks come back */
void vh_deliver(void);

/** vh_check_segments() - the frame, cut again, is the packets from @first on. Return:
 * their number */
unsigned int vh_check_segments(struct vh_frame *r, unsigned int first);

/** vh_check_plain() - the frame is packet @i as it was sent, with nothing said about it
 */
void vh_check_plain(const struct vh_frame *r, unsigned int i);

/** vh_transmit() - the guest makes a frame available, header and @first bytes in one
 * buffer, the rest in another */
void vh_transmit(const uint8_t *frame, uint32_t len, unsigned int first, uint64_t id);

/** vh_kick() - if the device asked for it */
void vh_kick(void);

/** vh_readable() - has the first worker's queue something to do? */
bool vh_readable(void);

/** vh_fetch() - port_ops.fetch() of the first worker */
int vh_fetch(struct gso_frame *f);

/** vh_drain() - nothing is left, and the next kick will be seen */
void vh_drain(void);

/** vh_gather() - copy a frame's bytes. Return: their number */
uint32_t vh_gather(const struct gso_frame *f, uint8_t *buf);

#endif
