// SPDX-License-Identifier: BSD-2-Clause
/*
 * The vhost-user port from the guest: what it sends, in good shape and in bad, and when
 * it gets its buffers back.
 */
#include <endian.h>
#include <linux/vhost_types.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/lib/log.h"
#include "vhost_rig.h"

static void sends(uint64_t features)
{
	static uint8_t frame[1514], out[PKT_MAX], other[64];
	struct gso_frame f;
	uint64_t cookie;
	uint32_t len;

	vh_up(features);
	assert_true(vh_readable()); /* a ring may hold something when it starts */
	vh_drain();
	for (unsigned int round = 0; round < 3; round++) {
		for (unsigned int i = 0; i < 20; i++) {
			keep_fill(frame, sizeof(frame), round * 20 + i);
			vh_transmit(frame, sizeof(frame), i * 75, i);
		}
		vh_kick();
		assert_true(vh_readable());
		for (unsigned int i = 0; i < 20; i++) {
			assert_int_equal(vh_fetch(&f), 1);
			keep_fill(frame, sizeof(frame), round * 20 + i);
			/* What has been seen does not change under its reader. */
			memset(other, 0x55, sizeof(other));
			guest_write(&vh.f.guest, VH_TX_DATA + i * 0x1000 + VH_HDR, other,
				    sizeof(other));
			assert_int_equal(vh_gather(&f, out), sizeof(frame));
			assert_memory_equal(out, frame, sizeof(frame));
			/* And is the device's until the next call. */
			assert_false(driver_get(&vh.f.tx, &cookie, &len) && cookie == i);
		}
		assert_true(vh_readable());
		vh_drain();
		for (unsigned int i = 0; i < 20; i++) {
			assert_int_equal(driver_get(&vh.f.tx, &cookie, &len), 1);
			assert_int_equal(cookie, i);
		}
		assert_int_equal(driver_get(&vh.f.tx, &cookie, &len), 0);
	}
	assert_int_equal(VH_STAT(tx_bad), 0);
}

static void test_sends_split(void **state)
{
	sends(VH_MRG);
}

static void test_sends_packed(void **state)
{
	sends(VH_MRG | BIT(VIRTIO_F_RING_PACKED));
}

static void test_sends_event_idx(void **state)
{
	sends(VH_MRG | BIT(VIRTIO_RING_F_EVENT_IDX));
}

/* The guest's word on what it verified, and what it cannot know, is dropped. */
static void test_transmit_header(void **state)
{
	struct virtio_net_hdr_v1 hdr = { .flags = 0xff, .gso_type = 1, .gso_size = 9 };
	const struct driver_buf buf = { VH_TX_DATA, VH_HDR + 100 };
	struct gso_frame f;

	vh_up(VH_MRG);
	guest_write(&vh.f.guest, VH_TX_DATA, &hdr, VH_HDR);
	assert_int_equal(driver_add(&vh.f.tx, &buf, 1, 0, 0, 0), 0);
	assert_int_equal(vh_fetch(&f), 1);
	assert_int_equal(f.vh.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	assert_int_equal(f.vh.gso_size, 9);
	assert_int_equal(f.len, 100);
	vh_drain();
}

/* Shorter than an Ethernet header, longer than any frame, with a part to be written:
 * counted, and what follows goes on. */
static void test_malformed(void **state)
{
	const struct driver_buf tiny = { VH_TX_DATA, VH_HDR + 13 };
	const struct driver_buf huge[2] = { { VH_TX_DATA, 0x10000 },
					    { VH_TX_DATA, 0x1000 } };
	const struct driver_buf both[2] = { { VH_TX_DATA, 100 },
					    { VH_TX_DATA + 0x1000, 100 } };
	static uint8_t frame[60];
	struct gso_frame f;
	uint64_t cookie;
	uint32_t len;

	vh_up(VH_MRG);
	assert_int_equal(driver_add(&vh.f.tx, &tiny, 1, 0, 0, 0), 0);
	assert_int_equal(driver_add(&vh.f.tx, huge, 2, 0, 0, 1), 0);
	assert_int_equal(driver_add(&vh.f.tx, both, 1, 1, 0, 2), 0);
	vh_transmit(frame, sizeof(frame), 60, 3);
	assert_int_equal(vh_fetch(&f), 1);
	assert_int_equal(f.len, sizeof(frame));
	vh_drain();
	assert_int_equal(VH_STAT(tx_bad), 3);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(driver_get(&vh.f.tx, &cookie, &len), 1);
}

/* Frames of a disabled ring are used up and go nowhere. */
static void test_disabled_transmit(void **state)
{
	static uint8_t frame[60];
	struct gso_frame f;
	uint64_t cookie;
	uint32_t len;

	vh_up(VH_MRG);
	front_state(&vh.f, VU_SET_VRING_ENABLE, 1, 0);
	for (unsigned int i = 0; i < 5; i++)
		vh_transmit(frame, sizeof(frame), 60, i);
	vh_kick();
	vh_drain();
	assert_int_equal(VH_STAT(tx_disabled), 5);
	for (unsigned int i = 0; i < 5; i++)
		assert_int_equal(driver_get(&vh.f.tx, &cookie, &len), 1);
	front_state(&vh.f, VU_SET_VRING_ENABLE, 1, 1);
	vh_transmit(frame, sizeof(frame), 60, 0);
	vh_kick();
	assert_int_equal(vh_fetch(&f), 1);
	vh_drain();
}

/* Of a long ring all of it, by one kick, and none when the ring is enabled again. */
static void disabled_long(uint64_t features)
{
	const struct driver_buf buf = { VH_TX_DATA, VH_HDR + 60 };
	const unsigned int total = 1000;
	struct vring_conf c = { .size = 1024 };
	unsigned int back = 0, calls = 0;
	struct gso_frame f;
	uint64_t cookie;
	uint32_t len;

	assert_int_equal(vh_open_port(1, false), 0);
	front_init(&vh.f, vh.loop, features);
	c.packed = vh.f.tx.conf.packed;
	c.event_idx = vh.f.tx.conf.event_idx;
	driver_fini(&vh.f.tx);
	driver_init(&vh.f.tx, &vh.f.tx_guest, &c);
	assert_int_equal(front_connect(&vh.f, vh.path), 0);
	front_up(&vh.f, features);
	vh_drain();

	front_state(&vh.f, VU_SET_VRING_ENABLE, 1, 0);
	vh_drain();
	for (unsigned int i = 0; i < total; i++)
		assert_int_equal(driver_add(&vh.f.tx, &buf, 1, 0, 0, i), 0);
	vh_kick();
	for (; vh_readable(); calls++) {
		assert_true(calls < total);
		assert_int_equal(vh_fetch(&f), 0);
	}
	assert_int_equal(VH_STAT(tx_disabled), total);
	while (driver_get(&vh.f.tx, &cookie, &len) == 1)
		back++;
	assert_int_equal(back, total);
	front_state(&vh.f, VU_SET_VRING_ENABLE, 1, 1);
	vh_drain();
}

static void test_disabled_long_split(void **state)
{
	disabled_long(VH_MRG);
}

static void test_disabled_long_event_idx(void **state)
{
	disabled_long(VH_MRG | BIT(VIRTIO_RING_F_EVENT_IDX));
}

static void test_disabled_long_packed(void **state)
{
	disabled_long(VH_MRG | BIT(VIRTIO_F_RING_PACKED));
}

/* A stop while a frame is out: it is put back where the guest finds it. */
static void test_stop_puts_held(void **state)
{
	static uint8_t frame[60];
	struct gso_frame f;
	uint64_t cookie;
	uint32_t len;

	vh_up(VH_MRG);
	vh_transmit(frame, sizeof(frame), 60, 0);
	assert_int_equal(vh_fetch(&f), 1);
	assert_int_equal(driver_get(&vh.f.tx, &cookie, &len), 0);
	front_state(&vh.f, VU_GET_VRING_BASE, 1, 0);
	assert_int_equal(driver_get(&vh.f.tx, &cookie, &len), 1);
	assert_int_equal(vh_fetch(&f), 0);
}

static void test_rarp(void **state)
{
	const uint8_t mac[8] = { 2, 0, 0, 0, 0, 0x11 };
	static uint8_t out[PKT_MAX];
	struct gso_frame f;

	vh_up(VH_MRG);
	vh_drain();
	front_send(&vh.f, VU_SEND_RARP, mac, 8, NULL, 0);
	assert_true(vh_readable());
	assert_int_equal(vh_fetch(&f), 1);
	assert_int_equal(vh_gather(&f, out), 60);
	assert_int_equal(out[0] & out[5], 0xff);
	assert_memory_equal(out + 6, vh_mac, 6);
	assert_int_equal(pkt_get16(out + 12), 0x8035); /* RFC 903 */
	assert_int_equal(pkt_get16(out + 20), 3);
	assert_memory_equal(out + 22, vh_mac, 6);
	assert_memory_equal(out + 32, vh_mac, 6);
	vh_drain();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VH_TEST(test_sends_split),
		VH_TEST(test_sends_packed),
		VH_TEST(test_sends_event_idx),
		VH_TEST(test_transmit_header),
		VH_TEST(test_malformed),
		VH_TEST(test_disabled_transmit),
		VH_TEST(test_disabled_long_split),
		VH_TEST(test_disabled_long_event_idx),
		VH_TEST(test_disabled_long_packed),
		VH_TEST(test_stop_puts_held),
		VH_TEST(test_rarp),
	};

	log_set_level(LOG_LVL_ERROR);
	return cmocka_run_group_tests_name("port_vhost_tx", tests, NULL, NULL);
}
