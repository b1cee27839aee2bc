// SPDX-License-Identifier: BSD-2-Clause
/*
 * The vhost-user port and UDP segmentation offload (virtio 1.3, 5.1.3): datagrams merge
 * for a guest that negotiated it, and no other; each arrives as it was sent. And a
 * guest's own super-datagrams, on the wire and at another guest.
 */
#include <endian.h>
#include <linux/vhost_types.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "../../user/daemon/gso.h"
#include "../../user/lib/log.h"
#include "vhost_rig.h"

#define CSUM	BIT(VIRTIO_NET_F_GUEST_CSUM)
#define USO	(CSUM | VU_F_GUEST_USO4 | VU_F_GUEST_USO6)
#define DGRAM	1200 /* bytes of payload */
#define LAST	300  /* of the last one, which ends a chain */
#define NDGRAMS 11
#define ETH	14

static uint8_t payload[NDGRAMS * DGRAM], frame[PKT_MAX];

static uint32_t hdr_len(bool ipv6)
{
	return ETH + (ipv6 ? 40 : 20) + 8;
}

static void datagram(struct pkt_spec *s, bool ipv6, uint32_t len)
{
	pkt_default(s);
	memcpy(s->dst, vh_mac, 6);
	s->ipv6 = ipv6;
	s->proto = 17;
	s->payload = payload;
	s->len = len;
}

/* One datagram into the aggregator; @by is added to a word of its payload afterwards. */
static void push(bool ipv6, uint32_t len, uint16_t by)
{
	struct pkt_spec s;
	struct gn_meta m;
	uint32_t n, at;

	keep_fill(payload, len, vh.sent.n + 1);
	datagram(&s, ipv6, len);
	s.id = (uint16_t)vh.sent.n;
	n = pkt_build(&s, frame);
	at = n - len + 100;
	pkt_put16(frame + at, (uint16_t)(pkt_get16(frame + at) + by));
	pkt_meta(frame, n, 0, vh.port->gso, &m);
	rig_push(&vh.rig, rig_packet(&vh.rig, (int)vh.sent.n, frame, n, &m, 0, 0), 0);
	memcpy(vh.sent.sink.get(&vh.sent.sink, n), frame, n);
}

static void push_all(bool ipv6)
{
	for (unsigned int i = 0; i < NDGRAMS; i++)
		push(ipv6, i < NDGRAMS - 1 ? DGRAM : LAST, 0);
}

static void nothing_lost(unsigned int frames)
{
	assert_false(vh_receive(&vh_got, 1, NULL));
	assert_int_equal(VH_STAT(rx_packets), NDGRAMS);
	assert_int_equal(VH_STAT(rx_frames), frames);
	assert_int_equal(VH_STAT(rx_dropped), 0);
}

/* All of them in one frame, which says what the guest has to know to take it apart. */
static void check_whole(bool ipv6)
{
	assert_true(vh_receive(&vh_got, 1, NULL));
	assert_int_equal(vh_got.len, hdr_len(ipv6) + (NDGRAMS - 1) * DGRAM + LAST);
	assert_int_equal(vh_got.vh.gso_type, VIRTIO_NET_HDR_GSO_UDP_L4);
	assert_int_equal(vh_got.vh.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	assert_int_equal(le16toh(vh_got.vh.gso_size), DGRAM);
	assert_int_equal(le16toh(vh_got.vh.hdr_len), hdr_len(ipv6));
	assert_int_equal(le16toh(vh_got.vh.csum_start), hdr_len(ipv6) - 8);
	assert_int_equal(le16toh(vh_got.vh.csum_offset), 6);
	assert_int_equal(vh_check_segments(&vh_got, 0), NDGRAMS);
	nothing_lost(1);
}

static void check_apart(void)
{
	for (unsigned int i = 0; i < NDGRAMS; i++) {
		assert_true(vh_receive(&vh_got, 1, NULL));
		vh_check_plain(&vh_got, i);
	}
	nothing_lost(NDGRAMS);
}

static void merges(uint64_t features, bool ipv6)
{
	vh_up(VH_MRG | features);
	assert_int_equal(vh.port->gso, GN_INSTANCE_USO);
	vh_post(VH_NBUFS, 1);
	push_all(ipv6);
	vh_deliver();
	check_whole(ipv6);
}

static void test_merges_4(void **state)
{
	merges(USO, false);
}

static void test_merges_6(void **state)
{
	merges(USO, true);
}

static void test_merges_packed(void **state)
{
	merges(USO | BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_F_IN_ORDER), false);
}

/* XDP has one flag for both families, so a guest that takes one of them gets neither;
 * and without partial checksums the offload means nothing. */
static void test_not_negotiated(void **state)
{
	static const uint64_t features[] = { 0,
					     CSUM,
					     CSUM | VU_F_GUEST_USO4,
					     CSUM | VU_F_GUEST_USO6,
					     VU_F_GUEST_USO4 | VU_F_GUEST_USO6,
					     CSUM | VU_F_HOST_USO };

	vh_up(VH_MRG);
	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		const uint64_t f = VH_MRG | features[i];

		front_rings(&vh.f, f);
		front_disconnect(&vh.f);
		front_pump(&vh.f);
		assert_int_equal(front_connect(&vh.f, vh.path), 0);
		front_up(&vh.f, f);
		assert_int_equal(vh.port->gso, 0);
	}
	vh_post(VH_NBUFS, 1);
	push_all(false);
	rig_flush(&vh.rig, UINT64_MAX);
	assert_int_equal(vh.rig.out.n, NDGRAMS);
	vh_deliver();
	for (unsigned int i = 0; i < NDGRAMS; i++) {
		assert_true(vh_receive(&vh_got, 1, NULL));
		assert_int_equal(vh_got.vh.gso_type, VIRTIO_NET_HDR_GSO_NONE);
		assert_int_equal(vh_got.len, vh.sent.frame[i].len);
		assert_memory_equal(vh_got.data, vh.sent.frame[i].data, vh_got.len);
	}
	nothing_lost(NDGRAMS);
}

/* Chains that were merged before the guest said what it takes. */
static void merged_before(uint64_t features, bool ipv6, bool whole)
{
	uint32_t gso;

	vh_up(VH_MRG | features);
	gso = vh.port->gso;
	vh_post(VH_NBUFS, 1);
	vh.port->gso = GN_INSTANCE_USO;
	push_all(ipv6);
	rig_flush(&vh.rig, UINT64_MAX);
	assert_int_equal(vh.rig.out.n, 1);
	vh_deliver();
	vh.port->gso = gso;
	if (whole)
		check_whole(ipv6);
	else
		check_apart();
}

static void test_cut_none_4(void **state)
{
	merged_before(0, false, false);
}

static void test_cut_none_6(void **state)
{
	merged_before(0, true, false);
}

static void test_cut_other_family_4(void **state)
{
	merged_before(CSUM | VU_F_GUEST_USO6, false, false);
}

static void test_cut_other_family_6(void **state)
{
	merged_before(CSUM | VU_F_GUEST_USO4, true, false);
}

static void test_kept_own_family_4(void **state)
{
	merged_before(CSUM | VU_F_GUEST_USO4, false, true);
}

static void test_kept_own_family_6(void **state)
{
	merged_before(CSUM | VU_F_GUEST_USO6, true, true);
}

/* A datagram that is not what its checksum says comes alone, as it came. */
static void test_bad_one(void **state)
{
	const unsigned int bad = 4;

	vh_up(VH_MRG | USO);
	vh_post(VH_NBUFS, 1);
	for (unsigned int i = 0; i < NDGRAMS; i++)
		push(false, DGRAM, i == bad);
	rig_flush(&vh.rig, UINT64_MAX);
	assert_int_equal(vh.rig.out.n, 1);
	vh_deliver();
	assert_true(vh_receive(&vh_got, 1, NULL));
	assert_int_equal(vh_check_segments(&vh_got, 0), bad);
	assert_true(vh_receive(&vh_got, 1, NULL));
	vh_check_plain(&vh_got, bad);
	assert_true(vh_receive(&vh_got, 1, NULL));
	assert_int_equal(vh_check_segments(&vh_got, bad + 1), NDGRAMS - 1 - bad);
	nothing_lost(3);
	assert_int_equal(VH_STAT(rx_bad_csum), 1);
}

/* ---- from a guest ------------------------------------------------------------------ */

/* A super-datagram as Linux builds it. Return: bytes in frame[] */
static uint32_t build_super(bool ipv6, struct virtio_net_hdr_v1 *h)
{
	struct pkt_spec s;

	keep_fill(payload, sizeof(payload), 7);
	datagram(&s, ipv6, (NDGRAMS - 1) * DGRAM + LAST);
	s.csum = PKT_CSUM_PARTIAL;
	*h = (struct virtio_net_hdr_v1){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_UDP_L4,
		.gso_size = htole16(DGRAM),
		.hdr_len = htole16((uint16_t)hdr_len(ipv6)),
		.csum_start = htole16((uint16_t)(hdr_len(ipv6) - 8)),
		.csum_offset = htole16(6),
	};
	return pkt_build(&s, frame);
}

/* Is it datagram @i, complete? */
static void check_datagram(const uint8_t *f, uint32_t len, bool ipv6, unsigned int i)
{
	assert_int_equal(len, hdr_len(ipv6) + (i < NDGRAMS - 1 ? DGRAM : LAST));
	assert_true(keep_good(f, len));
	assert_memory_equal(f, frame, ETH); /* addresses and type */
	assert_memory_equal(f + hdr_len(ipv6) - 8, frame + hdr_len(ipv6) - 8, 4); /* ports
										   */
	assert_memory_equal(f + hdr_len(ipv6), payload + i * DGRAM, len - hdr_len(ipv6));
}

/* On the wire: what tx.c does with what the port fetched. */
static void to_wire(bool ipv6)
{
	struct virtio_net_hdr_v1 h;
	struct gso_frame f;
	uint32_t len = build_super(ipv6, &h);
	const struct driver_buf buf = { VH_TX_DATA, VH_HDR + len };
	struct keep k;

	vh_up(VH_MRG | BIT(VIRTIO_NET_F_CSUM) | VU_F_HOST_USO);
	guest_write(&vh.f.guest, VH_TX_DATA, &h, VH_HDR);
	guest_write(&vh.f.guest, VH_TX_DATA + VH_HDR, frame, len);
	assert_int_equal(driver_add(&vh.f.tx, &buf, 1, 0, 0, 0), 0);
	vh_kick();
	assert_int_equal(vh_fetch(&f), 1);
	assert_int_equal(f.vh.gso_type, VIRTIO_NET_HDR_GSO_UDP_L4);
	assert_int_equal(f.len, len);
	keep_init(&k, KEEP_MAX);
	assert_int_equal(gso_segment(&f, VH_MTU + 22, 0, &k.sink), NDGRAMS);
	for (unsigned int i = 0; i < NDGRAMS; i++)
		check_datagram(k.frame[i].data, k.frame[i].len, ipv6, i);
	keep_fini(&k);
	vh_drain();
	assert_int_equal(VH_STAT(tx_bad), 0);
}

static void test_wire_4(void **state)
{
	to_wire(false);
}

static void test_wire_6(void **state)
{
	to_wire(true);
}

/* At another guest: as it is, or cut. */
static void to_guest(uint64_t features, bool ipv6, bool whole)
{
	struct iovec iov = { frame, 0 };
	struct gso_frame f = { .iov = &iov, .niov = 1 };

	vh_up(VH_MRG | features);
	vh_post(VH_NBUFS, 1);
	f.len = build_super(ipv6, &f.vh);
	iov.iov_len = f.len;
	vh.port->ops->inject(vh.port->queue[0], &f);
	if (whole) {
		assert_true(vh_receive(&vh_got, 1, NULL));
		assert_int_equal(vh_got.len, f.len);
		assert_memory_equal(vh_got.data, frame, f.len);
		f.vh.num_buffers = vh_got.vh.num_buffers;
		assert_memory_equal(&vh_got.vh, &f.vh, VH_HDR);
	}
	for (unsigned int i = 0; i < NDGRAMS && !whole; i++) {
		assert_true(vh_receive(&vh_got, 1, NULL));
		assert_int_equal(vh_got.vh.gso_type, VIRTIO_NET_HDR_GSO_NONE);
		check_datagram(vh_got.data, vh_got.len, ipv6, i);
	}
	assert_false(vh_receive(&vh_got, 1, NULL));
	assert_int_equal(VH_STAT(rx_dropped), 0);
}

static void test_guest_kept_4(void **state)
{
	to_guest(USO, false, true);
}

static void test_guest_kept_6(void **state)
{
	to_guest(USO, true, true);
}

static void test_guest_cut_4(void **state)
{
	to_guest(VH_TSO | VU_F_GUEST_USO6, false, false);
}

static void test_guest_cut_6(void **state)
{
	to_guest(VH_TSO | VU_F_GUEST_USO4, true, false);
}

static void test_guest_cut_none(void **state)
{
	to_guest(0, false, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VH_TEST(test_merges_4),
		VH_TEST(test_merges_6),
		VH_TEST(test_merges_packed),
		VH_TEST(test_not_negotiated),
		VH_TEST(test_cut_none_4),
		VH_TEST(test_cut_none_6),
		VH_TEST(test_cut_other_family_4),
		VH_TEST(test_cut_other_family_6),
		VH_TEST(test_kept_own_family_4),
		VH_TEST(test_kept_own_family_6),
		VH_TEST(test_bad_one),
		VH_TEST(test_wire_4),
		VH_TEST(test_wire_6),
		VH_TEST(test_guest_kept_4),
		VH_TEST(test_guest_kept_6),
		VH_TEST(test_guest_cut_4),
		VH_TEST(test_guest_cut_6),
		VH_TEST(test_guest_cut_none),
	};

	log_set_level(LOG_LVL_ERROR);
	return cmocka_run_group_tests_name("port_vhost_uso", tests, NULL, NULL);
}
