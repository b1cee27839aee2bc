// SPDX-License-Identifier: BSD-2-Clause
/*
 * The null port that copies verifies what it copies, as a VM's ring does: a chain whose
 * segments are good is one frame, one with a bad segment comes apart around it; without
 * "copy" nothing is left to it. Every chunk comes back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "../../user/daemon/port.h"
#include "pkt.h"
#include "rig.h"

#define CHUNKS 64
#define LEN    300 /* bytes of payload; the last segment of a stream has one less */

static const struct agg_conf conf = { .checksum = AGG_VERIFY, .max_held = CHUNKS };
static struct rig rig;

static struct port *port_open(bool copy)
{
	const struct port_conf pc = { .copy = copy };
	struct port *p = NULL;

	assert_int_equal(port_null_ops.open(&pc, NULL, 1, &p), 0);
	assert_int_equal(p->reads, copy);
	return p;
}

/* @n segments of one flow, those in the mask @bad with a flipped bit, through the port. */
static void stream(struct port *p, unsigned int n, unsigned int bad)
{
	static uint8_t payload[LEN], frame[PKT_MAX];

	agg_later(&rig.agg, 1, p->reads);
	for (unsigned int i = 0; i < n; i++) {
		struct pkt_spec s;
		struct gn_meta meta;
		uint32_t len;

		for (unsigned int k = 0; k < LEN; k++)
			payload[k] = (uint8_t)(k * 7 + i);
		pkt_default(&s);
		s.payload = payload;
		s.len = i + 1 < n ? LEN : LEN - 1;
		s.seq = 1 + LEN * i;
		s.id = (uint16_t)i;
		s.csum = bad >> i & 1 ? PKT_CSUM_BAD : PKT_CSUM_GOOD;
		len = pkt_build(&s, frame);
		pkt_meta(frame, len, 1, GN_INSTANCE_TSO4, &meta);
		rig_push(&rig, rig_packet(&rig, (int)i, frame, len, &meta, 0, 0), 0);
	}
	rig_flush(&rig, UINT64_MAX);
	port_null_ops.deliver(p->queue[0], &rig.pool, rig.head, rig.out.n);
	rig.out.n = 0;
	assert_int_equal(rig.pool.nfree, CHUNKS);
}

static void test_good(void **state)
{
	struct port *p = port_open(true);
	const struct port_stats *st = &p->queue[0]->stats;

	stream(p, 8, 0);
	assert_int_equal(st->rx_packets, 8);
	assert_int_equal(st->rx_frames, 1);
	assert_int_equal(st->rx_bytes, 54 + 8 * LEN - 1);
	assert_int_equal(st->rx_bad_csum, 0);
	port_null_ops.close(p);
}

static void test_bad(void **state)
{
	/* bad segments of eight, and the frames that come out */
	static const struct {
		unsigned int bad, frames, nbad;
	} cases[] = {
		{ 1U << 0, 2, 1 },	     { 1U << 3, 3, 1 },
		{ 1U << 7, 2, 1 },	     { 1U << 2 | 1U << 3, 4, 2 },
		{ 1U << 1 | 1U << 5, 5, 2 }, { 0xff, 8, 8 },
	};

	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct port *p = port_open(true);
		const struct port_stats *st = &p->queue[0]->stats;

		stream(p, 8, cases[i].bad);
		assert_int_equal(st->rx_packets, 8);
		assert_int_equal(st->rx_frames, cases[i].frames);
		assert_int_equal(st->rx_bytes, 54 * cases[i].frames + 8 * LEN - 1);
		assert_int_equal(st->rx_bad_csum, cases[i].nbad);
		port_null_ops.close(p);
	}
}

/* Nothing is claimed for a port that does not read: the aggregator has looked. */
static void test_without_copy(void **state)
{
	struct port *p = port_open(false);
	const struct port_stats *st = &p->queue[0]->stats;

	stream(p, 8, 1U << 3);
	assert_int_equal(st->rx_packets, 8);
	assert_int_equal(st->rx_frames, 3);
	assert_int_equal(st->rx_bad_csum, 0);
	assert_int_equal(rig.agg.stats.bad_csum, 1);
	port_null_ops.close(p);
}

static int setup(void **state)
{
	return rig_init(&rig, CHUNKS, &conf);
}

static int teardown(void **state)
{
	rig_fini(&rig);
	return 0;
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_good),
		TEST(test_bad),
		TEST(test_without_copy),
	};

	return cmocka_run_group_tests_name("port_null", tests, NULL, NULL);
}
