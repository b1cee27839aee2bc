/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vu_rig: a vhost-user device alone, without a socket: messages go in by vu_handle(),
 * with real descriptors; after each test as many are open as before it.
 */
#ifndef GN_TEST_VU_RIG_H
#define GN_TEST_VU_RIG_H

#include "../../user/daemon/vhost/vu_proto.h"
#include "driver.h"

#define BIT(n)	      (1ULL << (n))
#define VT_F_PROTOCOL BIT(30)
#define VT_MTU	      1500
#define VT_RING_SIZE  64

#define VT_ALL_PROTOCOL                                                                  \
	(BIT(VU_P_MQ) | BIT(VU_P_LOG_SHMFD) | BIT(VU_P_RARP) | BIT(VU_P_REPLY_ACK) |     \
	 BIT(VU_P_NET_MTU) | BIT(VU_P_BACKEND_REQ) | BIT(VU_P_CONFIG) |                  \
	 BIT(VU_P_INFLIGHT_SHMFD) | BIT(VU_P_CONFIGURE_MEM_SLOTS) | BIT(VU_P_STATUS))

/* The device under test, and what it asked of its owner. */
struct vu_rig {
	struct vu_dev dev;
	struct guest guest;
	struct driver driver;
	unsigned int quiet, go, rarps;
	uint8_t rarp[6];
	struct vu_reply reply;
};

extern struct vu_rig vt;
extern const uint8_t vt_mac[6]; /* of the guest */

struct vt_table {
	uint32_t n, pad;
	struct vu_mem_region region[VU_MAX_FDS];
};

/* cmocka's, for each test. */
int vt_setup(void **state);
int vt_teardown(void **state);

#define VT_TEST(fn) cmocka_unit_test_setup_teardown(fn, vt_setup, vt_teardown)

/** vt_handle() - one message; vt.reply is its reply. Return: vu_handle()'s */
int vt_handle(uint32_t request, uint32_t flags, const void *payload, uint32_t size,
	      const int *fd, unsigned int nfds);

/* The same, by what they carry. */
int vt_send_u64(uint32_t request, uint64_t v);
int vt_send_state(uint32_t request, uint32_t index, uint32_t num);
int vt_send_fd(uint32_t request, uint64_t v, int fd);

/** vt_event() - Return: a new eventfd */
int vt_event(void);

/** vt_check_reply() - the reply is this payload, with a correct header */
void vt_check_reply(uint32_t request, const void *payload, uint32_t size);
void vt_check_u64(uint32_t request, uint64_t v);

/** vt_ask() - ask, without payload, for a number */
uint64_t vt_ask(uint32_t request);

/** vt_negotiate() - features and protocol features */
void vt_negotiate(uint64_t features, uint64_t protocol);

/** vt_region_of() - the guest's region @i as a front end describes it */
struct vu_mem_region vt_region_of(unsigned int i);

/** vt_send_table() - memory of @n regions with @nfds descriptors */
int vt_send_table(unsigned int n, unsigned int nfds);

/** vt_send_addr() - the driver's ring as ring @index, all addresses @shift too high */
int vt_send_addr(uint32_t index, uint32_t flags, uint64_t log_gpa, uint64_t shift);
void vt_start_ring(uint32_t index);

/** vt_bring_up() - features, memory, ring 0 runs */
void vt_bring_up(void);

/* The next message must be refused and end the device. */
#define VT_REFUSED(call)                                                                 \
	do {                                                                             \
		assert_true((call) < 0);                                                 \
		assert_int_equal(vt.reply.len, 0);                                       \
		assert_true(vt.dev.why[0]);                                              \
		vu_dev_reset(&vt.dev);                                                   \
		vt.quiet = vt.go = 0;                                                    \
	} while (0)

#endif
