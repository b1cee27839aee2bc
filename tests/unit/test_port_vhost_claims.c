// SPDX-License-Identifier: BSD-2-Clause
/*
 * The vhost-user port and segments whose payload is not what their checksum says: found
 * while they are copied for the guest, they are never part of a frame that it gets. It
 * gets the packets as they came, and the ring goes on as if nothing had been tried.
 */
#include <endian.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "../../user/lib/log.h"
#include "vhost_rig.h"

#define PACKED (BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_F_IN_ORDER))
#define NSEGS  10

/* Packet @i as it was sent, said to be good or nothing. */
static void check_lone(unsigned int i, unsigned int per, bool good)
{
	unsigned int nbufs;

	assert_true(vh_receive(&vh_got, per, &nbufs));
	assert_int_equal(nbufs, 1);
	assert_int_equal(vh_got.vh.flags, good ? VIRTIO_NET_HDR_F_DATA_VALID : 0);
	assert_int_equal(vh_got.vh.gso_type, VIRTIO_NET_HDR_GSO_NONE);
	assert_int_equal(vh_got.len, vh.sent.frame[i].len);
	assert_memory_equal(vh_got.data, vh.sent.frame[i].data, vh_got.len);
}

static void push(unsigned int n, uint32_t len)
{
	for (unsigned int i = 0; i < n; i++)
		vh_push_segment(len, PKT_CSUM_GOOD, false);
}

/* Packets from @i on, @n of them, merged; one alone is said to be good. */
static void check_merged(unsigned int i, unsigned int n, unsigned int per)
{
	if (n == 1) {
		check_lone(i, per, true);
	} else if (n) {
		assert_true(vh_receive(&vh_got, per, NULL));
		assert_int_equal(vh_got.vh.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
		assert_int_equal(vh_check_segments(&vh_got, i), n);
	}
}

/* Each place of the bad one in turn; a good chain before and after it, in the same burst
 * and in the next. @len: 1,001 makes buffers end at odd places of segments. */
static void bad_at_each(uint64_t features, uint32_t len, unsigned int n)
{
	for (unsigned int bad = 0; bad < n; bad++) {
		unsigned int at = vh.sent.n;

		for (unsigned int i = 0; i < n; i++) {
			if (i == bad)
				vh_push_altered(len, (bad * 98) & ~1U, 1);
			else
				vh_push_segment(len, PKT_CSUM_GOOD, false);
		}
		rig_flush(&vh.rig, UINT64_MAX);
		assert_int_equal(vh.rig.out.n, 1);
		assert_int_equal(vh.rig.out.head[0]->nsegs, n);
		push(3, len);
		vh_deliver();
		check_merged(at, bad, 1);
		check_lone(at + bad, 1, false);
		check_merged(at + bad + 1, n - bad - 1, 1);
		check_merged(at + n, 3, 1);
		assert_false(vh_receive(&vh_got, 1, NULL));
		assert_int_equal(VH_STAT(rx_bad_csum), bad + 1);
		/* What was received is free again. */
		keep_fini(&vh.sent);
		front_rings(&vh.f, features);
		front_disconnect(&vh.f);
		front_pump(&vh.f);
		assert_int_equal(front_connect(&vh.f, vh.path), 0);
		front_up(&vh.f, features);
		vh_post(VH_NBUFS, 1);
	}
	assert_int_equal(VH_STAT(rx_dropped), 0);
}

static void bad_one(uint64_t features, uint32_t len)
{
	vh_up(features);
	vh_post(VH_NBUFS, 1);
	bad_at_each(features, len, NSEGS);
}

static void test_bad_split(void **state)
{
	bad_one(VH_MRG | VH_TSO, 1460);
	assert_int_equal(VH_STAT(rx_packets), NSEGS * (NSEGS + 3));
}

static void test_bad_packed(void **state)
{
	bad_one(VH_MRG | VH_TSO | PACKED, 1460);
}

static void test_bad_odd(void **state)
{
	bad_one(VH_MRG | VH_TSO, 1001);
}

static void test_bad_odd_packed(void **state)
{
	bad_one(VH_MRG | VH_TSO | PACKED, 1001);
}

/* One error adds what another one takes away: the chain's sum is right, theirs are not.
 */
static void test_errors_cancel(void **state)
{
	vh_up(VH_MRG | VH_TSO);
	vh_post(VH_NBUFS, 1);
	vh_push_segment(1000, PKT_CSUM_GOOD, false);
	vh_push_altered(1000, 10, 1);
	vh_push_segment(1000, PKT_CSUM_GOOD, false);
	vh_push_altered(1000, 10, 0xffff); /* modulo 2^16, -1: no carry to lose */
	vh_deliver();
	for (unsigned int i = 0; i < 4; i++)
		check_lone(i, 1, !(i & 1));
	assert_false(vh_receive(&vh_got, 1, NULL));
	assert_int_equal(VH_STAT(rx_bad_csum), 2);
}

/* A burst of good and bad, many times round the ring. */
static void round_the_ring(uint64_t features)
{
	uint64_t cookie = 0;
	uint32_t len;

	vh_up(features);
	vh_post(VH_NBUFS, 1);
	for (unsigned int turn = 0; turn < 50; turn++) {
		/* 5 segments in 4 buffers; 4 in 3 and the bad one */
		unsigned int used = 0, first = 0;

		for (unsigned int i = 0; i < 5; i++) {
			if (turn % 2 && i == 4)
				vh_push_altered(1460, 1458, 0x0101);
			else
				vh_push_segment(1460, PKT_CSUM_GOOD, false);
		}
		vh_deliver();
		keep_fini(&vh.sent);
		/* The guest gives each buffer back as soon as it has it. */
		while (driver_get(&vh.f.rx, &cookie, &len)) {
			const struct driver_buf buf = {
				GUEST_DATA + cookie * (VH_BUF + 8), VH_BUF
			};
			struct virtio_net_hdr_v1 h;

			guest_read(&vh.f.guest, buf.gpa, &h, VH_HDR);
			if (used == first) {
				assert_int_equal(le16toh(h.num_buffers),
						 turn % 2 ? (used ? 1 : 3) : 4);
				first += le16toh(h.num_buffers);
			}
			used++;
			assert_int_equal(driver_add(&vh.f.rx, &buf, 0, 1, 0, cookie), 0);
		}
		assert_int_equal(used, 4);
	}
	assert_int_equal(VH_STAT(rx_bad_csum), 25);
	assert_int_equal(VH_STAT(rx_dropped), 0);
	assert_int_equal(VH_STAT(rx_packets), 250);
}

static void test_round_split(void **state)
{
	round_the_ring(VH_MRG | VH_TSO);
}

static void test_round_packed(void **state)
{
	round_the_ring(VH_MRG | VH_TSO | PACKED);
}

/* Big buffers instead of merged ones: the chain that was tried is the good ones'. */
static void test_big_chains(void **state)
{
	vh_up(VH_V1 | VH_TSO);
	vh_post(6, 10);
	push(3, 1460);
	vh_push_altered(1460, 0, 7);
	vh_deliver();
	check_merged(0, 3, 10);
	check_lone(3, 10, false);
	assert_false(vh_receive(&vh_got, 10, NULL));
}

static void no_wait(void *arg)
{
}

/* Bytes that were written and taken back are marked: the guest's memory has them. */
static void test_spoilt_is_marked(void **state)
{
	const struct dma_log_grace grace = { .wait = no_wait };
	const uint64_t page = (GUEST_DATA + 2 * (VH_BUF + 8)) >> DMA_LOG_PAGE_SHIFT;
	struct dma_log *log;
	const uint8_t *bits;
	uint64_t pages;
	int fd;

	vh_up(VH_V1 | VH_TSO);
	vh_post(6, 10);
	log = vh.port->ops->dma_log(vh.port, &pages);
	assert_int_equal(dma_log_enable_pair(log, pages, &grace), 0);
	/* Three buffers of the first chain are tried; the good ones need two of it, the
	 * bad one is in the next. */
	push(2, 1460);
	vh_push_altered(1460, 1458, 1);
	vh_deliver();
	fd = log->pair_fd[dma_log_active(log)];
	bits = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(bits, MAP_FAILED);
	assert_true(bits[page / 8] >> page % 8 & 1);
	/* The next chain's buffers begin pages further on, so nothing else marked it. */
	assert_true((GUEST_DATA + VH_BUF) >> DMA_LOG_PAGE_SHIFT < page);
	assert_true((GUEST_DATA + 10 * (VH_BUF + 8)) >> DMA_LOG_PAGE_SHIFT > page);
	munmap((void *)(uintptr_t)bits, 4096);
	dma_log_disable_pair(log, &grace);
}

/* For a guest without offloads there is no copy to verify in: a bad packet is as it was
 * all the same, and not given a new checksum when the chain is cut. */
static void test_plain_guest(void **state)
{
	vh_up(VH_MRG);
	vh_post(VH_NBUFS, 1);
	vh.port->gso = GN_INSTANCE_TSO4;
	push(4, 1000);
	vh_push_altered(1000, 500, 1);
	push(4, 1000);
	rig_flush(&vh.rig, UINT64_MAX);
	assert_int_equal(vh.rig.out.n, 1);
	vh_deliver();
	for (unsigned int i = 0; i < 9; i++) {
		assert_true(vh_receive(&vh_got, 1, NULL));
		vh_check_plain(&vh_got, i);
		assert_int_equal(keep_good(vh_got.data, vh_got.len), i != 4);
	}
	assert_int_equal(VH_STAT(rx_bad_csum), 1);
	vh.port->gso = 0;
}

/* No room for the whole chain: it is dropped, as any other, and nothing was tried. */
static void test_no_room(void **state)
{
	vh_up(VH_MRG | VH_TSO);
	vh_post(4, 1);
	push(9, 1460);
	vh_push_altered(1460, 0, 1);
	vh_deliver();
	assert_false(vh_receive(&vh_got, 1, NULL));
	assert_int_equal(VH_STAT(rx_dropped), 1);
	push(5, 1460);
	vh_deliver();
	assert_true(vh_receive(&vh_got, 1, NULL));
	assert_int_equal(vh_check_segments(&vh_got, 10), 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VH_TEST(test_bad_split),	VH_TEST(test_bad_packed),
		VH_TEST(test_bad_odd),		VH_TEST(test_bad_odd_packed),
		VH_TEST(test_errors_cancel),	VH_TEST(test_round_split),
		VH_TEST(test_round_packed),	VH_TEST(test_big_chains),
		VH_TEST(test_spoilt_is_marked), VH_TEST(test_plain_guest),
		VH_TEST(test_no_room),
	};

	log_set_level(LOG_LVL_ERROR);
	return cmocka_run_group_tests_name("port_vhost_claims", tests, NULL, NULL);
}
