// SPDX-License-Identifier: BSD-2-Clause
/*
 * Chains merged on their segments' word: random streams of two flows, some segments with
 * a flipped bit, some behind a tag that is removed as the receive path does it.
 *
 * What leaves, verified or taken apart, is every packet in its flow's order, byte for
 * byte; no bad one is ever in a chain that was found good, and a good chain is never
 * taken apart. That it is so where the errors of two segments cancel each other is asked
 * apart.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../../user/daemon/chain.h"
#include "keep.h"
#include "pkt.h"
#include "rig.h"

#define CHUNKS	256
#define STREAMS 2000
#define PACKETS 40
#define ROOM	1600 /* bytes of a frame */

static struct rig rig;
static struct {
	uint8_t frame[ROOM]; /* as it came */
	uint32_t len;
	bool bad, seen;
	unsigned int flow;
} sent[PACKETS];
static int last[2]; /* packet of each flow seen last */
static bool tagged;
static uint64_t rnd;
static unsigned int supers, splits, bad_alone;

static void send_packet(int i, unsigned int flow, uint32_t seq, uint32_t len, bool bad)
{
	static uint8_t payload[ROOM];
	struct pkt_spec s;
	struct gn_meta m;

	pkt_default(&s);
	s.ntags = tagged;
	s.tci[0] = 100;
	s.sport = (uint16_t)(1000 + flow);
	s.seq = seq;
	s.id = (uint16_t)i;
	keep_fill(payload, len, pkt_rand(&rnd));
	s.payload = payload;
	s.len = len;
	if (!(pkt_rand(&rnd) % 16))
		s.flags |= PKT_PSH;
	else if (!(pkt_rand(&rnd) % 16))
		s.flags |= PKT_CWR;
	s.csum = bad ? PKT_CSUM_BAD : PKT_CSUM_GOOD;
	s.bad_bit = pkt_rand(&rnd);
	sent[i].len = pkt_build(&s, sent[i].frame);
	sent[i].bad = bad;
	sent[i].seen = false;
	sent[i].flow = flow;
	pkt_meta(sent[i].frame, sent[i].len, 1, GN_INSTANCE_TSO4, &m);
	rig_push(&rig, rig_packet(&rig, i, sent[i].frame, sent[i].len, &m, 0, 0), 0);
}

/* @f is packet @i, its tag removed. */
static void check_packet(int i, const uint8_t *f, uint32_t len)
{
	const uint8_t *was = sent[i].frame;
	uint32_t tag = tagged ? 4 : 0;

	assert_int_equal(len, sent[i].len - tag);
	assert_memory_equal(f, was, 12);
	assert_memory_equal(f + 12, was + 12 + tag, len - 12);
	assert_false(sent[i].seen);
	sent[i].seen = true;
	assert_true(i > last[sent[i].flow]);
	last[sent[i].flow] = i;
}

/* A frame that is one packet, or merged and good. */
static void check_frame(struct mbuf *head)
{
	struct iovec iov[AGG_MAX_BUFS];
	struct gso_frame f = { .iov = iov, .len = head->total };
	int id[PACKETS];
	unsigned int n = rig_chain_ids(&rig, head, id, PACKETS);
	struct keep k;

	assert_false(head->flags & MBUF_CLAIMED);
	assert_int_equal(n, head->nsegs);
	gso_finish(&rig.pool, head, &f.vh);
	f.niov = mbuf_iov(&rig.pool, head, iov, AGG_MAX_BUFS);
	if (n == 1) {
		assert_int_equal(f.niov, 1);
		assert_int_equal(head->total, head->len);
		check_packet(id[0], iov[0].iov_base, f.len);
		/* The guest hears that it is good only if it is. */
		if (f.vh.flags)
			assert_int_equal(f.vh.flags, VIRTIO_NET_HDR_F_DATA_VALID);
		assert_false(f.vh.flags && sent[id[0]].bad);
		assert_int_equal(f.vh.gso_type, VIRTIO_NET_HDR_GSO_NONE);
		bad_alone += sent[id[0]].bad;
		return;
	}
	/* Only its first segment may say so (CWR), and the head is that one's. */
	assert_int_equal(!!(f.vh.gso_type & VIRTIO_NET_HDR_GSO_ECN),
			 !!(sent[id[0]].frame[(tagged ? 4 : 0) + 47] & PKT_CWR));
	supers++;
	keep_init(&k, KEEP_MAX);
	assert_int_equal(gso_segment(&f, 2000, 0, &k.sink), n);
	for (unsigned int i = 0; i < n; i++) {
		assert_false(sent[id[i]].bad);
		check_packet(id[i], k.frame[i].data, k.frame[i].len);
	}
	keep_fini(&k);
}

static void check_chain(struct mbuf *head)
{
	struct mbuf *part[AGG_MAX_BUFS];
	unsigned int n, bad, want = 0, parts = 0;
	int id[PACKETS];

	n = rig_chain_ids(&rig, head, id, PACKETS);
	for (unsigned int i = 0; i < n; i++) {
		want += sent[id[i]].bad;
		/* Where a part begins: a bad one, or a good one that follows no good one.
		 */
		parts += sent[id[i]].bad || !i || sent[id[i - 1]].bad;
	}
	assert_true(head->flags & MBUF_CLAIMED || n == 1);
	if (tagged)
		mbuf_pop_vlan(&rig.pool, head);
	if (chain_verify(&rig.pool, head)) {
		assert_true(n == 1 || !want);
		check_frame(head);
		mbuf_free_chain(&rig.pool, head);
		return;
	}
	splits++;
	assert_true(want > 0);
	assert_int_equal(chain_split(&rig.pool, head, part, &bad), parts);
	assert_int_equal(bad, want);
	for (unsigned int i = 0; i < parts; i++) {
		check_frame(part[i]);
		mbuf_free_chain(&rig.pool, part[i]);
	}
}

static void check_all(int n)
{
	last[0] = last[1] = -1;
	rig_flush(&rig, UINT64_MAX);
	for (uint32_t c = 0; c < rig.out.n; c++)
		check_chain(rig.out.head[c]);
	rig.out.n = 0;
	for (int i = 0; i < n; i++)
		assert_true(sent[i].seen);
	assert_int_equal(rig.pool.nfree, CHUNKS);
}

static void start(uint64_t seed, bool runs)
{
	rnd = seed * 0x9e3779b97f4a7c15ULL + 1;
	rig_in_runs = runs;
	tagged = pkt_rand(&rnd) % 2;
	supers = splits = bad_alone = 0;
}

static void streams(bool runs)
{
	unsigned int all[3] = { 0 };

	for (uint64_t s = 0; s < STREAMS; s++) {
		uint32_t seq[2] = { 1, 1 }, size, len, n, every;

		start(s, runs);
		n = 1 + pkt_rand(&rnd) % PACKETS;
		size = 1 + pkt_rand(&rnd) % 1460;
		every = 1 + pkt_rand(&rnd) % 60;
		for (uint32_t i = 0, flow = 0; i < n; i++) {
			if (!(pkt_rand(&rnd) % 6))
				flow = !flow;
			len = pkt_rand(&rnd) % 30 ? size : 1 + pkt_rand(&rnd) % size;
			send_packet((int)i, flow, seq[flow], len,
				    !(pkt_rand(&rnd) % every));
			seq[flow] += len;
		}
		check_all((int)n);
		all[0] += supers;
		all[1] += splits;
		all[2] += bad_alone;
	}
	assert_true(all[0] > STREAMS / 4);
	assert_true(all[1] > STREAMS / 4);
	assert_true(all[2] > STREAMS);
	assert_int_equal(rig.agg.stats.bad_csum, 0);
	assert_true(!runs || rig.runs > STREAMS);
}

static void test_one_by_one(void **state)
{
	streams(false);
}

static void test_in_runs(void **state)
{
	streams(true);
}

/* Of another instance, whose port does not verify, nothing is merged on its word. */
static void test_other_instance(void **state)
{
	start(1, false);
	agg_later(&rig.agg, 1, false);
	agg_later(&rig.agg, 2, true);
	send_packet(0, 0, 1, 100, false);
	send_packet(1, 0, 101, 100, false);
	send_packet(2, 0, 201, 100, true);
	rig_flush(&rig, UINT64_MAX);
	assert_int_equal(rig.out.n, 2);
	assert_int_equal(rig.out.head[0]->nsegs, 2);
	assert_int_equal(rig.out.head[0]->flags & (MBUF_CLAIMED | MBUF_VERIFIED),
			 MBUF_VERIFIED);
	assert_int_equal(rig.agg.stats.bad_csum, 1);
	while (rig.out.n)
		mbuf_free_chain(&rig.pool, rig.out.head[--rig.out.n]);
}

/* What XDP has summed is not read again, and what it has not joins no such chain unread.
 */
static void test_seen_by_xdp(void **state)
{
	const uint32_t lens[] = { 100, 100, 100 };
	struct mbuf *m;

	start(1, false);
	tagged = false;
	for (int i = 0; i < 3; i++) {
		static uint8_t payload[100], frame[PKT_MAX];
		struct pkt_spec s;
		struct gn_meta meta;
		uint32_t len;

		pkt_default(&s);
		s.payload = payload;
		s.len = lens[i];
		s.seq = 1 + 100 * (uint32_t)i;
		s.id = (uint16_t)i;
		s.csum = i == 2 ? PKT_CSUM_BAD : PKT_CSUM_GOOD;
		len = pkt_build(&s, frame);
		pkt_meta(frame, len, 1, GN_INSTANCE_TSO4, &meta);
		if (i < 2)
			meta.flags |= GN_F_CSUM_GOOD;
		m = rig_packet(&rig, i, frame, len, &meta, 0, 0);
		rig_push(&rig, m, 0);
	}
	rig_flush(&rig, UINT64_MAX);
	assert_int_equal(rig.out.n, 2);
	assert_int_equal(rig.out.head[0]->nsegs, 2);
	assert_true(rig.out.head[0]->flags & MBUF_VERIFIED);
	assert_false(rig.out.head[0]->flags & MBUF_CLAIMED);
	assert_int_equal(rig.agg.stats.bad_csum, 1);
	while (rig.out.n)
		mbuf_free_chain(&rig.pool, rig.out.head[--rig.out.n]);
}

static int setup(void **state)
{
	const struct agg_conf conf = { .checksum = AGG_VERIFY, .max_held = CHUNKS };

	assert_int_equal(rig_init(&rig, CHUNKS, &conf), 0);
	agg_later(&rig.agg, 1, true);
	return 0;
}

static int teardown(void **state)
{
	rig_in_runs = false;
	rig_fini(&rig);
	return 0;
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_one_by_one),
		TEST(test_in_runs),
		TEST(test_other_instance),
		TEST(test_seen_by_xdp),
	};

	return cmocka_run_group_tests_name("chain", tests, NULL, NULL);
}
