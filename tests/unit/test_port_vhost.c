// SPDX-License-Identifier: BSD-2-Clause
/*
 * The vhost-user port to the guest, from real chains of segments and from other guests:
 * what arrives is compared byte by byte with what was sent, for guests that take much and
 * guests that take nothing.
 */
#include <endian.h>
#include <errno.h>
#include <linux/vhost_types.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../user/lib/log.h"
#include "vhost_rig.h"

static void merges(uint64_t features)
{
	unsigned int nbufs;

	vh_up(features);
	assert_int_equal(vh.port->gso, GN_INSTANCE_TSO4 | GN_INSTANCE_TSO6);
	assert_int_equal(vh.changes, 1);
	vh_post(VH_NBUFS, 1);
	driver_want(&vh.f.rx, true, 1);
	for (int i = 0; i < 10; i++)
		vh_push_segment(1460, PKT_CSUM_GOOD, false);
	vh_deliver();
	assert_true(vh_receive(&vh_got, 1, &nbufs));
	assert_int_equal(vh_got.len, 54 + 10 * 1460);
	assert_int_equal(vh_got.vh.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
	assert_int_equal(vh_got.vh.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	assert_int_equal(le16toh(vh_got.vh.gso_size), 1460);
	assert_int_equal(nbufs, (VH_HDR + vh_got.len + VH_BUF - 1) / VH_BUF);
	assert_int_equal(vh_check_segments(&vh_got, 0), 10);
	assert_false(vh_receive(&vh_got, 1, NULL));
	assert_int_equal(front_count(vh.f.call[0]), 1);
	assert_int_equal(VH_STAT(calls), 1);
	assert_int_equal(VH_STAT(rx_packets), 10);
	assert_int_equal(VH_STAT(rx_frames), 1);
	assert_int_equal(VH_STAT(rx_bytes), 54 + 10 * 1460);
	assert_int_equal(VH_STAT(rx_dropped), 0);
}

static void test_merges_split(void **state)
{
	merges(VH_MRG | VH_TSO);
}

static void test_merges_packed(void **state)
{
	merges(VH_MRG | VH_TSO | BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_F_IN_ORDER));
}

static void test_merges_event_idx(void **state)
{
	merges(VH_MRG | VH_TSO | BIT(VIRTIO_RING_F_EVENT_IDX));
}

/* A guest that does not want interrupts gets none. */
static void test_no_interrupts(void **state)
{
	vh_up(VH_MRG);
	vh_post(VH_NBUFS, 1);
	driver_want(&vh.f.rx, false, 1);
	vh_push_segment(100, PKT_CSUM_GOOD, false);
	vh_deliver();
	assert_true(vh_receive(&vh_got, 1, NULL));
	assert_int_equal(front_count(vh.f.call[0]), 0);
	assert_int_equal(VH_STAT(calls_saved), 1);
}

/* Big buffers instead of merged ones. */
static void test_one_big_chain(void **state)
{
	vh_up(VH_V1 | VH_TSO);
	vh_post(1, 33);
	for (int i = 0; i < 40; i++)
		vh_push_segment(1460, PKT_CSUM_GOOD, false);
	vh_deliver();
	assert_true(vh_receive(&vh_got, 33, NULL));
	assert_int_equal(vh_got.len, 54 + 40 * 1460);
	assert_int_equal(le16toh(vh_got.vh.num_buffers), 1);
	assert_int_equal(vh_check_segments(&vh_got, 0), 40);
}

/* A guest without offloads gets each packet as it was, also of chains that were merged
 * before it said so. */
static void test_plain(void **state)
{
	vh_up(VH_MRG);
	assert_int_equal(vh.port->gso, 0);
	vh_post(VH_NBUFS, 1);
	vh.port->gso = GN_INSTANCE_TSO4;
	for (int i = 0; i < 10; i++)
		vh_push_segment(i < 9 ? 1000 : 77, PKT_CSUM_GOOD, false);
	rig_flush(&vh.rig, UINT64_MAX);
	assert_int_equal(vh.rig.out.n, 1);
	vh_deliver();
	for (unsigned int i = 0; i < 10; i++) {
		assert_true(vh_receive(&vh_got, 1, NULL));
		vh_check_plain(&vh_got, i);
	}
	assert_false(vh_receive(&vh_got, 1, NULL));
	assert_int_equal(VH_STAT(rx_frames), 10);
	assert_int_equal(VH_STAT(rx_packets), 10);
	vh.port->gso = 0;
}

/* A local sender left the checksum to hardware: so do we for a guest that can, and for
 * one that cannot it is completed. */
static void test_partial_checksum(void **state)
{
	vh_up(VH_MRG);
	vh_post(VH_NBUFS, 1);
	vh_push_segment(500, PKT_CSUM_PARTIAL, false);
	vh_deliver();
	assert_true(vh_receive(&vh_got, 1, NULL));
	vh_check_plain(&vh_got, 0);
	assert_true(keep_good(vh_got.data, vh_got.len));
}

static void test_partial_checksum_kept(void **state)
{
	vh_up(VH_MRG | VH_TSO);
	vh_post(VH_NBUFS, 1);
	vh_push_segment(500, PKT_CSUM_PARTIAL, false);
	vh_deliver();
	assert_true(vh_receive(&vh_got, 1, NULL));
	assert_int_equal(vh_got.vh.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	assert_false(keep_good(vh_got.data, vh_got.len));
	assert_int_equal(vh_check_segments(&vh_got, 0), 1);
}

/* A chain that begins with CWR needs GUEST_ECN. */
static void ecn(uint64_t features, unsigned int frames)
{
	vh_up(features);
	vh_post(VH_NBUFS, 1);
	vh_push_segment(1000, PKT_CSUM_GOOD, true);
	for (int i = 0; i < 4; i++)
		vh_push_segment(1000, PKT_CSUM_GOOD, false);
	vh_deliver();
	for (unsigned int i = 0; i < frames; i++) {
		assert_true(vh_receive(&vh_got, 1, NULL));
		if (frames > 1)
			vh_check_plain(&vh_got, i);
		else
			assert_int_equal(vh_got.vh.gso_type,
					 VIRTIO_NET_HDR_GSO_TCPV4 |
						 VIRTIO_NET_HDR_GSO_ECN);
	}
	assert_false(vh_receive(&vh_got, 1, NULL));
}

static void test_ecn(void **state)
{
	ecn(VH_MRG | VH_TSO, 1);
}

static void test_no_ecn(void **state)
{
	ecn((VH_MRG | VH_TSO) & ~BIT(VIRTIO_NET_F_GUEST_ECN), 5);
}

/* What does not fit is dropped as a whole; what comes after it may fit. */
static void test_full(void **state)
{
	vh_up(VH_MRG | VH_TSO);
	vh_post(4, 1);
	for (int i = 0; i < 10; i++)
		vh_push_segment(1460, PKT_CSUM_GOOD, false);
	vh_deliver();
	assert_false(vh_receive(&vh_got, 1, NULL));
	assert_int_equal(VH_STAT(rx_dropped), 1);
	assert_int_equal(VH_STAT(rx_frames), 0);
	for (int i = 0; i < 5; i++)
		vh_push_segment(1460, PKT_CSUM_GOOD, false);
	vh_deliver();
	assert_true(vh_receive(&vh_got, 1, NULL));
	assert_int_equal(vh_check_segments(&vh_got, 10), 5);
	assert_false(vh_receive(&vh_got, 1, NULL));
}

static void test_nobody_there(void **state)
{
	assert_int_equal(vh_open_port(1, false), 0);
	front_init(&vh.f, vh.loop, VH_MRG);
	vh_push_segment(100, PKT_CSUM_GOOD, false);
	vh_deliver();
	assert_int_equal(VH_STAT(rx_dropped), 1);
}

/* ---- after a stop nothing is written ---------------------------------------------- */

static void test_stopped_ring(void **state)
{
	struct {
		uint32_t hdr[3];
		struct vhost_vring_state s;
	} r;

	vh_up(VH_MRG);
	vh_post(VH_NBUFS, 1);
	vh_push_segment(100, PKT_CSUM_GOOD, false);
	vh_deliver();
	front_state(&vh.f, VU_GET_VRING_BASE, 0, 0);
	assert_int_equal(front_reply(&vh.f, &r, sizeof(r)), sizeof(r));
	assert_int_equal(r.s.num, 1);
	vh_push_segment(100, PKT_CSUM_GOOD, false);
	vh_deliver();
	assert_true(vh_receive(&vh_got, 1, NULL));
	vh_check_plain(&vh_got, 0);
	assert_false(vh_receive(&vh_got, 1, NULL));
	assert_int_equal(VH_STAT(rx_dropped), 1);
}

static void test_disabled_ring(void **state)
{
	vh_up(VH_MRG);
	vh_post(VH_NBUFS, 1);
	front_state(&vh.f, VU_SET_VRING_ENABLE, 0, 0);
	vh_push_segment(100, PKT_CSUM_GOOD, false);
	vh_deliver();
	assert_false(vh_receive(&vh_got, 1, NULL));
	front_state(&vh.f, VU_SET_VRING_ENABLE, 0, 1);
	vh_push_segment(100, PKT_CSUM_GOOD, false);
	vh_deliver();
	assert_true(vh_receive(&vh_got, 1, NULL));
	vh_check_plain(&vh_got, 1);
}

/* ---- local frames ----------------------------------------------------------------- */

/* A guest's super-frame for another guest: kept where that one takes it, else cut. */
static void inject(uint64_t features, bool whole)
{
	static uint8_t payload[4000], frame[PKT_MAX];
	struct iovec iov = { frame, 0 };
	struct gso_frame f = { .iov = &iov, .niov = 1 };
	struct pkt_spec s;
	uint32_t sum;

	vh_up(features);
	vh_post(VH_NBUFS, 1);
	pkt_default(&s);
	keep_fill(payload, sizeof(payload), 1);
	s.payload = payload;
	s.len = sizeof(payload);
	s.csum = PKT_CSUM_PARTIAL;
	f.len = pkt_build(&s, frame);
	iov.iov_len = f.len;
	f.vh.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	f.vh.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
	f.vh.gso_size = htole16(1000);
	f.vh.csum_start = htole16(34);
	f.vh.csum_offset = htole16(16);
	vh.port->ops->inject(vh.port->queue[0], &f);
	for (unsigned int i = 0; i < (whole ? 1 : 4); i++) {
		assert_true(vh_receive(&vh_got, 1, NULL));
		assert_int_equal(vh_got.len, whole ? f.len : 1054);
		assert_int_equal(vh_got.vh.gso_type, whole);
		sum = vh_got.vh.flags;
		assert_int_equal(sum, whole ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0);
		if (!whole) {
			assert_true(keep_good(vh_got.data, vh_got.len));
			assert_memory_equal(vh_got.data + 54, payload + i * 1000, 1000);
		}
	}
	assert_false(vh_receive(&vh_got, 1, NULL));
	/* None of it is a packet of the wire. */
	assert_int_equal(VH_STAT(rx_frames), whole ? 1 : 4);
	assert_int_equal(VH_STAT(rx_packets), 0);
}

static void test_inject_kept(void **state)
{
	inject(VH_MRG | VH_TSO, true);
}

static void test_inject_cut(void **state)
{
	inject(VH_MRG, false);
}

/* A burst of frames is one notification; a guest that is awake sees each at once. */
static void test_inject_burst(void **state)
{
	static uint8_t frame[100];
	struct iovec iov = { frame, sizeof(frame) };
	const struct gso_frame f = { .iov = &iov, .niov = 1, .len = sizeof(frame) };

	vh_up(VH_MRG);
	vh_post(VH_NBUFS, 1);
	for (unsigned int burst = 0; burst < 3; burst++) {
		uint64_t calls = VH_STAT(calls);

		for (unsigned int i = 0; i < 10; i++) {
			vh.port->ops->inject(vh.port->queue[0], &f);
			assert_true(vh_receive(&vh_got, 1, NULL));
			assert_int_equal(VH_STAT(calls), calls);
		}
		vh.port->ops->settle(vh.port->queue[0]);
		assert_int_equal(VH_STAT(calls), calls + 1);
		vh.port->ops->settle(vh.port->queue[0]);
		assert_int_equal(VH_STAT(calls), calls + 1);
	}
}

/* One ring pair, several workers: each receives into it; one of them sends. */
static void test_more_workers_than_rings(void **state)
{
	struct gso_frame f;
	static uint8_t frame[60];
	unsigned int fetched = 0;

	assert_int_equal(vh_open_port(3, false), 0);
	front_init(&vh.f, vh.loop, VH_MRG);
	assert_int_equal(front_connect(&vh.f, vh.path), 0);
	front_up(&vh.f, VH_MRG);
	vh_post(VH_NBUFS, 1);
	for (unsigned int q = 0; q < 3; q++) {
		vh_push_segment(100, PKT_CSUM_GOOD, false);
		rig_flush(&vh.rig, UINT64_MAX);
		vh.port->ops->deliver(vh.port->queue[q], &vh.rig.pool, vh.rig.head,
				      vh.rig.out.n);
		vh.rig.out.n = 0;
		assert_true(vh_receive(&vh_got, 1, NULL));
		vh_check_plain(&vh_got, q);
	}
	vh_transmit(frame, sizeof(frame), 60, 0);
	for (unsigned int q = 0; q < 3; q++)
		fetched += vh.port->ops->fetch(vh.port->queue[q], &f) == 1;
	assert_int_equal(fetched, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VH_TEST(test_merges_split),
		VH_TEST(test_merges_packed),
		VH_TEST(test_merges_event_idx),
		VH_TEST(test_no_interrupts),
		VH_TEST(test_one_big_chain),
		VH_TEST(test_plain),
		VH_TEST(test_partial_checksum),
		VH_TEST(test_partial_checksum_kept),
		VH_TEST(test_ecn),
		VH_TEST(test_no_ecn),
		VH_TEST(test_full),
		VH_TEST(test_nobody_there),
		VH_TEST(test_stopped_ring),
		VH_TEST(test_disabled_ring),
		VH_TEST(test_inject_kept),
		VH_TEST(test_inject_cut),
		VH_TEST(test_inject_burst),
		VH_TEST(test_more_workers_than_rings),
	};

	log_set_level(LOG_LVL_ERROR);
	return cmocka_run_group_tests_name("port_vhost", tests, NULL, NULL);
}
