// SPDX-License-Identifier: BSD-2-Clause
/*
 * vu_proto: each message as it should be, and every way in which it should not: size,
 * descriptors, order, features.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "vu_rig.h"

static void test_features(void **state)
{
	uint64_t f = vt_ask(VU_GET_FEATURES);

	assert_int_equal(f, vu_features());
	/* Without these QEMU does not migrate, or has no way to say how. */
	assert_true(f & BIT(VHOST_F_LOG_ALL) && f & VT_F_PROTOCOL);
	assert_true(f & BIT(VIRTIO_F_VERSION_1) && f & BIT(VIRTIO_F_RING_PACKED));
	assert_int_equal(vt_ask(VU_GET_PROTOCOL_FEATURES), VT_ALL_PROTOCOL);
	assert_int_equal(vt_ask(VU_GET_QUEUE_NUM), VU_MAX_PAIRS);
	vt_negotiate(f & ~BIT(VHOST_F_LOG_ALL), VT_ALL_PROTOCOL);
	assert_int_equal(vt.dev.features, f & ~BIT(VHOST_F_LOG_ALL));
	assert_int_equal(vt_ask(VU_GET_MAX_MEM_SLOTS), VU_MEM_MAX_REGIONS);
	/* The same to every front end. */
	vu_dev_reset(&vt.dev);
	assert_int_equal(vt.dev.features, 0);
	assert_int_equal(vt_ask(VU_GET_FEATURES), f);
	VT_REFUSED(vt_send_u64(VU_SET_FEATURES, BIT(VIRTIO_NET_F_CTRL_VQ)));
	VT_REFUSED(vt_send_u64(VU_SET_FEATURES, BIT(63)));
	VT_REFUSED(vt_send_u64(VU_SET_PROTOCOL_FEATURES, BIT(8)));
	assert_int_equal(vt_handle(VU_SET_OWNER, 0, NULL, 0, NULL, 0), 0);
}

static void test_features_of_running_ring(void **state)
{
	vt_bring_up();
	assert_int_equal(vt_send_u64(VU_SET_FEATURES, vt.dev.features), 0);
	assert_int_equal(
		vt_send_u64(VU_SET_FEATURES, vt.dev.features | BIT(VHOST_F_LOG_ALL)), 0);
	VT_REFUSED(vt_send_u64(VU_SET_FEATURES,
			       vt.dev.features | BIT(VIRTIO_F_RING_PACKED)));
}

static void refuse_size(uint32_t request, uint32_t size, bool with_fd)
{
	static const uint8_t zero[VU_MAX_PAYLOAD];
	int fd = with_fd ? vt_event() : -1;

	vt.dev.protocol = VT_ALL_PROTOCOL;
	VT_REFUSED(vt_handle(request, 0, zero, size, &fd, with_fd));
}

/* Sizes and numbers of descriptors that each request must refuse, whatever they hold. */
static void test_forms(void **state)
{
	static const struct {
		uint32_t request;
		uint16_t min, max;
		uint8_t fds; /* the most */
		bool must;   /* have one */
	} forms[] = {
		{ VU_GET_FEATURES, 0, 0, 0, false },
		{ VU_SET_FEATURES, 8, 8, 0, false },
		{ VU_SET_OWNER, 0, 0, 0, false },
		{ VU_RESET_OWNER, 0, 0, 0, false },
		{ VU_SET_MEM_TABLE, 8, 264, 8, false },
		{ VU_SET_LOG_BASE, 16, 16, 1, true },
		{ VU_SET_LOG_FD, 0, 8, 1, false },
		{ VU_SET_VRING_NUM, 8, 8, 0, false },
		{ VU_SET_VRING_ADDR, 40, 40, 0, false },
		{ VU_SET_VRING_BASE, 8, 8, 0, false },
		{ VU_GET_VRING_BASE, 8, 8, 0, false },
		{ VU_SET_VRING_KICK, 8, 8, 1, true },
		{ VU_SET_VRING_CALL, 8, 8, 1, true },
		{ VU_SET_VRING_ERR, 8, 8, 1, true },
		{ VU_GET_PROTOCOL_FEATURES, 0, 0, 0, false },
		{ VU_SET_PROTOCOL_FEATURES, 8, 8, 0, false },
		{ VU_GET_QUEUE_NUM, 0, 0, 0, false },
		{ VU_SET_VRING_ENABLE, 8, 8, 0, false },
		{ VU_SEND_RARP, 8, 8, 0, false },
		{ VU_NET_SET_MTU, 8, 8, 0, false },
		{ VU_SET_BACKEND_REQ_FD, 0, 8, 1, true },
		{ VU_GET_CONFIG, 12, VU_MAX_PAYLOAD, 0, false },
		{ VU_SET_CONFIG, 12, VU_MAX_PAYLOAD, 0, false },
		{ VU_GET_INFLIGHT_FD, 20, 24, 0, false },
		{ VU_SET_INFLIGHT_FD, 20, 24, 1, true },
		{ VU_GET_MAX_MEM_SLOTS, 0, 0, 0, false },
		{ VU_ADD_MEM_REG, 40, 40, 1, true },
		{ VU_REM_MEM_REG, 40, 40, 1, false },
		{ VU_SET_STATUS, 8, 8, 0, false },
		{ VU_GET_STATUS, 0, 0, 0, false },
	};
	static const uint8_t zero[VU_MAX_PAYLOAD];
	unsigned int known = 0;

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		uint32_t req = forms[i].request;
		int fd[VU_MAX_FDS];

		for (unsigned int n = 0; n <= VU_MAX_FDS; n++) {
			bool ok = n <= forms[i].fds && (n || !forms[i].must);
			uint32_t size = forms[i].min;

			if (ok)
				continue;
			for (unsigned int k = 0; k < n; k++)
				fd[k] = vt_event();
			vt.dev.protocol = VT_ALL_PROTOCOL;
			VT_REFUSED(vt_handle(req, 0, zero, size, fd, n));
		}
		if (forms[i].min)
			refuse_size(req, forms[i].min - 1U, forms[i].must);
		if (forms[i].max < VU_MAX_PAYLOAD)
			refuse_size(req, forms[i].max + 1U, forms[i].must);
		known++;
	}
	/* All others are unknown. */
	for (uint32_t req = 0; req < 300; req++) {
		bool is_known = false;

		for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
			is_known |= forms[i].request == req;
		if (!is_known)
			VT_REFUSED(vt_handle(req, 0, NULL, 0, NULL, 0));
	}
	assert_int_equal(known, 30);
}

static void test_headers(void **state)
{
	static const struct {
		uint32_t flags, size;
		int err;
	} hdrs[] = {
		{ VU_VERSION, 0, 0 },
		{ VU_VERSION | VU_NEED_REPLY, VU_MAX_PAYLOAD, 0 },
		{ VU_VERSION, VU_MAX_PAYLOAD + 1, -EPROTO },
		{ VU_VERSION, UINT32_MAX, -EPROTO },
		{ 0, 0, -EPROTO },
		{ 2, 0, -EPROTO },
		{ VU_VERSION | VU_REPLY, 0, -EPROTO },
	};

	for (size_t i = 0; i < sizeof(hdrs) / sizeof(hdrs[0]); i++) {
		const uint32_t raw[3] = { 1, hdrs[i].flags, hdrs[i].size };
		struct vu_msg m = { 0 };

		vt.dev.why[0] = '\0';
		assert_int_equal(vu_msg_header(&vt.dev, &m, (const uint8_t *)raw),
				 hdrs[i].err);
		assert_int_equal(!!vt.dev.why[0], !!hdrs[i].err);
	}
}

/* What needs a protocol feature is refused without it. */
static void test_needs_feature(void **state)
{
	static const struct {
		uint32_t request, size;
		bool fd;
	} needs[] = {
		{ VU_SET_LOG_BASE, 16, true },	    { VU_SEND_RARP, 8, false },
		{ VU_NET_SET_MTU, 8, false },	    { VU_GET_MAX_MEM_SLOTS, 0, false },
		{ VU_ADD_MEM_REG, 40, true },	    { VU_REM_MEM_REG, 40, false },
		{ VU_SET_STATUS, 8, false },	    { VU_GET_STATUS, 0, false },
		{ VU_GET_CONFIG, 12, false },	    { VU_SET_CONFIG, 12, false },
		{ VU_GET_INFLIGHT_FD, 24, false },  { VU_SET_INFLIGHT_FD, 24, true },
		{ VU_SET_BACKEND_REQ_FD, 0, true },
	};
	static const uint8_t zero[40];

	for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
		int fd = needs[i].fd ? vt_event() : -1;

		VT_REFUSED(vt_handle(needs[i].request, 0, zero, needs[i].size, &fd,
				     needs[i].fd));
	}
}

static void test_acknowledgements(void **state)
{
	const uint64_t good = VT_MTU, big = VT_MTU + 1, small = 67;

	/* Asked for but not negotiated. */
	assert_int_equal(vt_handle(VU_SET_OWNER, VU_NEED_REPLY, NULL, 0, NULL, 0), 0);
	assert_int_equal(vt.reply.len, 0);
	vt_negotiate(VT_F_PROTOCOL, VT_ALL_PROTOCOL);
	assert_int_equal(vt_handle(VU_SET_OWNER, VU_NEED_REPLY, NULL, 0, NULL, 0), 0);
	vt_check_u64(VU_SET_OWNER, 0);
	assert_int_equal(vt_handle(VU_SET_OWNER, 0, NULL, 0, NULL, 0), 0);
	assert_int_equal(vt.reply.len, 0);
	/* A reply with content is not followed by another. */
	assert_int_equal(vt_handle(VU_GET_FEATURES, VU_NEED_REPLY, NULL, 0, NULL, 0), 0);
	vt_check_u64(VU_GET_FEATURES, vu_features());
	assert_int_equal(vt_handle(VU_NET_SET_MTU, VU_NEED_REPLY, &good, 8, NULL, 0), 0);
	vt_check_u64(VU_NET_SET_MTU, 0);
	assert_int_equal(vt.dev.why[0], '\0');
	assert_int_equal(vt_handle(VU_NET_SET_MTU, VU_NEED_REPLY, &big, 8, NULL, 0), 0);
	vt_check_u64(VU_NET_SET_MTU, 1);
	assert_non_null(strstr(vt.dev.why, "NET_SET_MTU: MTU 1501"));
	assert_int_equal(vt_handle(VU_NET_SET_MTU, VU_NEED_REPLY, &small, 8, NULL, 0), 0);
	vt_check_u64(VU_NET_SET_MTU, 1);
}

static void test_rest(void **state)
{
	static const uint8_t mac[8] = { 2, 0, 0, 0, 0, 9 };
	int fd = vt_event();
	uint64_t v;

	vt_bring_up();
	memcpy(&v, mac, sizeof(v));
	assert_int_equal(vt_send_u64(VU_SEND_RARP, v), 0);
	assert_int_equal(vt.rarps, 1);
	assert_memory_equal(vt.rarp, mac, 6);
	/* Taken and closed. */
	assert_int_equal(vt_handle(VU_SET_LOG_FD, 0, NULL, 0, &fd, 1), 0);
	assert_true(fcntl(fd, F_GETFD) < 0);
	assert_int_equal(vt_send_u64(VU_SET_STATUS, 15), 0);
	assert_int_equal(vt_ask(VU_GET_STATUS), 15);
	assert_non_null(vt.dev.ring[0].vring);
	assert_int_equal(vt_send_u64(VU_SET_STATUS, 0), 0);
	assert_null(vt.dev.ring[0].vring);
	assert_int_equal(vt_ask(VU_GET_STATUS), 0);
}

/* What a worker may see is changed only while workers are quiet, and a failure leaves
 * them so. */
static void test_quiet(void **state)
{
	unsigned int n;

	vt_bring_up();
	assert_true(vt.quiet > 0 && vt.quiet == vt.go);
	n = vt.quiet;
	vt_ask(VU_GET_FEATURES);
	assert_int_equal(vt.quiet, n);
	assert_int_equal(vt_send_fd(VU_SET_VRING_CALL, 0, vt_event()), 0);
	assert_int_equal(vt.quiet, n + 1);
	assert_true(vt_send_table(3, 3) < 0);
	assert_int_equal(vt.quiet, n + 2);
	assert_int_equal(vt.go, n + 1);
}

/* ---- configuration space --------------------------------------------------------------
 */

struct config {
	uint32_t offset, size, flags;
	uint8_t space[VU_MAX_CONFIG];
};

static int ask_config(uint32_t request, struct config *c)
{
	return vt_handle(request, VU_NEED_REPLY, c, 12 + c->size, NULL, 0);
}

static void check_config(uint32_t offset, const void *want, uint32_t size)
{
	struct config c = { .offset = offset, .size = size };

	assert_int_equal(ask_config(VU_GET_CONFIG, &c), 0);
	memcpy(c.space, want, size);
	vt_check_reply(VU_GET_CONFIG, &c, 12 + size);
}

static void test_config(void **state)
{
	struct config c = { .size = VU_MAX_CONFIG };
	const uint16_t up = VIRTIO_NET_S_LINK_UP, down = 0, mtu = VT_MTU,
		       pairs = VU_MAX_PAIRS;
	static const uint8_t zero[200];
	struct vu_reply r;

	vt_negotiate(VT_F_PROTOCOL, VT_ALL_PROTOCOL);
	check_config(0, vt_mac, 6);
	check_config(6, &up, 2);
	check_config(8, &pairs, 2);
	check_config(10, &mtu, 2);
	check_config(VU_MAX_CONFIG - 200, zero, 200);
	check_config(VU_MAX_CONFIG, zero, 0);
	vu_dev_link(&vt.dev, false, &r);
	check_config(6, &down, 2);
	/* Written as it is, after a migration; or otherwise. */
	assert_int_equal(ask_config(VU_GET_CONFIG, &c), 0);
	memcpy(&c, vt.reply.buf + VU_HDR_SIZE, sizeof(c));
	c.flags = 1;
	assert_int_equal(ask_config(VU_SET_CONFIG, &c), 0);
	vt_check_u64(VU_SET_CONFIG, 0);
	c.space[0] ^= 4;
	assert_int_equal(ask_config(VU_SET_CONFIG, &c), 0);
	vt_check_u64(VU_SET_CONFIG, 1);
	check_config(0, vt_mac, 6);

	/* Outside, and a size that is not the message's. */
	c.offset = 1;
	assert_int_equal(ask_config(VU_GET_CONFIG, &c), 0);
	vt_check_reply(VU_GET_CONFIG, NULL, 0);
	c.offset = UINT32_MAX;
	c.size = 2;
	assert_int_equal(ask_config(VU_GET_CONFIG, &c), 0);
	vt_check_reply(VU_GET_CONFIG, NULL, 0);
	VT_REFUSED(ask_config(VU_SET_CONFIG, &c));
	vt.dev.protocol = VT_ALL_PROTOCOL;
	c.offset = 0;
	VT_REFUSED(vt_handle(VU_SET_CONFIG, 0, &c, 12, NULL, 0));
}

/* A link that changes is told to who asked for it. */
static void test_link(void **state)
{
	const uint32_t want[3] = { VU_BACKEND_CONFIG_CHANGE, VU_VERSION, 0 };
	struct vu_reply r;
	int fd[2];

	vt_negotiate(VT_F_PROTOCOL, VT_ALL_PROTOCOL);
	vu_dev_link(&vt.dev, false, &r);
	assert_int_equal(r.len, 0); /* no channel */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	assert_int_equal(vt_handle(VU_SET_BACKEND_REQ_FD, 0, NULL, 0, &fd[1], 1), 0);
	assert_int_equal(vt.dev.backend_fd, fd[1]);
	vu_dev_link(&vt.dev, false, &r);
	assert_int_equal(r.len, 0); /* no change */
	vu_dev_link(&vt.dev, true, &r);
	assert_int_equal(r.len, VU_HDR_SIZE);
	assert_memory_equal(r.buf, want, sizeof(want));
	vt.dev.protocol &= ~BIT(VU_P_CONFIG);
	vu_dev_link(&vt.dev, false, &r);
	assert_int_equal(r.len, 0);
	close(fd[0]);
	fd[0] = vt_event();
	VT_REFUSED(vt_handle(VU_SET_BACKEND_REQ_FD, 0, NULL, 0, &fd[0], 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VT_TEST(test_features),	     VT_TEST(test_features_of_running_ring),
		VT_TEST(test_forms),	     VT_TEST(test_headers),
		VT_TEST(test_needs_feature), VT_TEST(test_acknowledgements),
		VT_TEST(test_rest),	     VT_TEST(test_quiet),
		VT_TEST(test_config),	     VT_TEST(test_link),
	};

	return cmocka_run_group_tests_name("vu_proto", tests, NULL, NULL);
}
