// SPDX-License-Identifier: BSD-2-Clause
/*
 * Random streams through the real aggregator, against the model.
 *
 * GN_STREAMS streams (100,000), numbered from GN_SEED (1). A failure prints the
 * number of its stream: GN_SEED=number GN_STREAMS=1 runs it alone. For each stream:
 *
 *  - each packet is in exactly one chain, each flow's packets leave in order, and
 *    each chain is byte for byte right and cut up again gives its packets (oracle);
 *  - the chains are those of the model, which sees headers only, while in every
 *    second stream the headers of joining segments were overwritten for the
 *    aggregator, which sees metadata only;
 *  - with few buffers to hold, when chains leave earlier, whatever was merged may be
 *    merged by the model's rules;
 *  - all chunks are free at the end.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "model.h"
#include "oracle.h"
#include "stream.h"

#define CHUNKS 512

static struct rig rig;
static struct stream st;
static struct model model;
static struct oracle_pkt pkt[STREAM_MAX_PKTS];

/* What was exercised: a generator that went tame must not go unnoticed. */
static struct {
	uint64_t packets, merged, supers, starved, evicted, bad, largest;
} seen;

static struct model_pkt model_pkt(int i)
{
	return (struct model_pkt){
		.frame = st.pkt[i].frame,
		.instance = st.pkt[i].meta.instance,
		.flow = st.pkt[i].meta.flow,
		.bufs = 1, /* a stream has fewer buffers than a chain may */
		.id = i,
	};
}

static void run_model(void)
{
	struct model_conf conf = {
		.carry = st.conf.checksum == AGG_CARRY,
		.trust_partial = st.conf.trust_partial,
		.hold_ns = st.conf.hold_ns,
		.max_bufs = AGG_MAX_BUFS,
		.nslots = AGG_SLOTS,
	};

	model_init(&model, &conf);
	for (int i = 0; i < st.n; i++) {
		struct model_pkt p = model_pkt(i);

		model_push(&model, &p, st.pkt[i].len, st.pkt[i].now);
		if (st.pkt[i].burst_ends)
			model_flush(&model, st.pkt[i].now);
	}
}

/* @runs: hand over what comes at one time together. */
static void run_real(bool poison, bool runs)
{
	struct mbuf *burst[RIG_MAX_BURST];
	uint32_t n = 0;

	for (int i = 0; i < st.n; i++) {
		struct stream_pkt *p = &st.pkt[i];
		struct mbuf *m = rig_packet(&rig, i, p->frame, p->len, &p->meta, p->first,
					    p->rest);

		pkt[i] = (struct oracle_pkt){ p->frame, p->len };
		if (poison && model.leader[i] != i)
			memset(mbuf_data(&rig.pool, m), 0xa5, mbuf_hdr_len(m));
		burst[n++] = m;
		if (!runs || n == RIG_MAX_BURST || p->burst_ends || i + 1 == st.n ||
		    p[1].now != p->now) {
			if (runs)
				rig_push_all(&rig, burst, n, p->now);
			else
				rig_push(&rig, m, p->now);
			n = 0;
		}
		if (p->burst_ends)
			rig_flush(&rig, p->now);
	}
	rig_flush(&rig, UINT64_MAX);
}

/* Could the model have merged these? */
static const char *legal(const int *id, unsigned int n)
{
	struct model_chain ch;

	for (unsigned int i = 0; i < n; i++) {
		struct model_pkt p = model_pkt(id[i]);

		model_parse(&p, st.pkt[id[i]].len);
		if (!i) {
			if (n > 1 && !model_may_head(&model.conf, &p))
				return "heads a chain, and must not";
			model_chain_start(&ch, &p, 0);
			continue;
		}
		if (!model_may_join(&model.conf, &ch, &p))
			return "merged, and must not be";
		if (model_chain_add(&ch, &p) && i + 1 < n)
			return "merged into a chain that was closed";
	}
	return NULL;
}

static const char *check_stream(void)
{
	int last[STREAM_MAX_FLOWS], count = 0;
	const char *bad = rig_account(&rig);

	memset(last, -1, sizeof(last));
	for (uint32_t c = 0; !bad && c < rig.out.n; c++) {
		int id[AGG_MAX_BUFS];
		unsigned int n;

		bad = oracle_check(&rig, rig.out.head[c], pkt, &st.conf, id, &n);
		if (bad)
			break;
		for (unsigned int i = 0; i < n; i++) {
			int flow = st.pkt[id[i]].flow;

			if (flow >= 0 && id[i] <= last[flow])
				return "a packet was overtaken, or is there twice";
			if (flow >= 0)
				last[flow] = id[i];
			if (!st.starved && model.leader[id[i]] != id[0])
				return model.leader[id[i]] == id[i]
					       ? "merged, the model does not"
					       : "not merged as in the model";
		}
		if (st.starved)
			bad = legal(id, n);
		count += (int)n;
		seen.supers += n > 1;
		seen.merged += n > 1 ? n : 0;
		if (n > seen.largest)
			seen.largest = n;
	}
	if (!bad && count != st.n)
		bad = "packets lost";
	return bad;
}

static void finish_stream(void)
{
	while (rig.out.n)
		mbuf_free_chain(&rig.pool, rig.out.head[--rig.out.n]);
	seen.packets += (uint64_t)st.n;
	seen.starved += rig.agg.stats.starved;
	seen.evicted += rig.agg.stats.evicted;
	seen.bad += rig.agg.stats.bad_csum;
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s ? strtoull(s, NULL, 0) : otherwise;
}

static void test_streams(void **state)
{
	uint64_t seed = number("GN_SEED", 1), n = number("GN_STREAMS", 100000);

	for (uint64_t i = 0; i < n; i++) {
		const char *bad;

		stream_make(&st, seed + i);
		run_model();
		assert_int_equal(rig_restart(&rig, &st.conf), 0);
		run_real((seed + i) % 2 && !st.starved, (seed + i) % 4 > 1);
		bad = check_stream();
		if (bad)
			fail_msg("stream %" PRIu64 ": %s (GN_SEED=%" PRIu64
				 " GN_STREAMS=1)",
				 i, bad, seed + i);
		finish_stream();
		if (rig.pool.nfree != CHUNKS)
			fail_msg("stream %" PRIu64 ": chunks lost (GN_SEED=%" PRIu64
				 " GN_STREAMS=1)",
				 i, seed + i);
	}
	print_message("%" PRIu64 " streams, %" PRIu64 " packets, %" PRIu64
		      " of them in %" PRIu64 " super-packets (up to %" PRIu64
		      "); %" PRIu64 " bad checksums, %" PRIu64 " evicted, %" PRIu64
		      " starved\n",
		      n, seen.packets, seen.merged, seen.supers, seen.largest, seen.bad,
		      seen.evicted, seen.starved);
	if (n < 10000)
		return;
	assert_true(seen.merged > seen.packets / 4);
	assert_true(seen.merged < seen.packets * 9 / 10);
	assert_true(seen.bad > n / 20);
	assert_true(seen.evicted > n / 50);
	assert_true(seen.starved > n / 50);
	assert_true(seen.largest >= 15);
	assert_true(rig.runs > seen.merged / 20);
}

static int setup(void **state)
{
	struct agg_conf conf = { .max_held = CHUNKS };

	return rig_init(&rig, CHUNKS, &conf);
}

static int teardown(void **state)
{
	rig_fini(&rig);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_streams),
	};

	return cmocka_run_group_tests_name("agg property", tests, setup, teardown);
}
