// SPDX-License-Identifier: BSD-2-Clause
/*
 * The metadata of random traffic: the XDP program against pkt_meta(), on which the tests
 * of aggregation stand. All fields must be the same but for flow and key: flows are equal
 * in the same cases; keys are equal only where the headers are, and are if no other frame
 * took the slot in between. Needs root.
 *
 * GN_SEED (1) numbers the first stream; a failure prints the number of its own.
 */
#include <inttypes.h>

#include "../unit/stream.h"
#include "check.h"

#define STREAMS 120
#define WILD	6000

static struct stream st;
static uint64_t seed0;

/* The outer VLAN as the instance map is asked for it; false: the frame ends before. */
static bool outer_vlan(const uint8_t *f, uint32_t len, uint16_t *vlan)
{
	uint16_t type = pkt_get16(f + 12);

	*vlan = 0;
	if (type != 0x8100 && type != 0x88a8)
		return true;
	if (len < 18)
		return false;
	*vlan = pkt_get16(f + 14) & 0xfff;
	return true;
}

/* What the program writes in front of the frame, wherever it is addressed. */
static bool run_meta(const uint8_t *f, uint32_t len, uint16_t id, struct gn_meta *m)
{
	struct gn_instance in = { .id = id, .flags = ALL_OFFLOADS };
	uint16_t vlan;

	if (len > MAX_FRAME || !outer_vlan(f, len, &vlan))
		return false;
	nic_instance(&nic, f, vlan, &in);
	run.linear = run.foreign = 0;
	assert_int_equal(nic_run(&nic, f, len, &run), 0);
	nic_instance(&nic, f, vlan, NULL);
	assert_int_equal(run.verdict, XDP_REDIRECT);
	assert_int_equal(run.meta_len, sizeof(*m));
	memcpy(m, run.meta, sizeof(*m));
	return true;
}

static void same_fields(uint64_t number, int i, const struct gn_meta *x,
			const struct gn_meta *w)
{
	struct gn_meta a = *x, b = *w;

	if (!a.flow != !b.flow || !a.key != !b.key)
		fail_msg("number %" PRIu64 ", frame %d: flow %08x key %016" PRIx64
			 ", expected %08x %016" PRIx64,
			 number, i, a.flow, (uint64_t)a.key, b.flow, (uint64_t)b.key);
	a.flow = b.flow = 0;
	a.key = b.key = 0;
	/* 0 and 0xffff are the same sum. */
	if (a.payload_sum + b.payload_sum == 0xffff && !(a.payload_sum & b.payload_sum))
		a.payload_sum = b.payload_sum;
	if (!memcmp(&a, &b, sizeof(a)))
		return;
	fail_msg("number %" PRIu64
		 ", frame %d: class %u flags %#x offsets %u %u+%u payload %u"
		 " sum %04x seq %u id %u, expected class %u flags %#x offsets %u %u+%u "
		 "payload %u"
		 " sum %04x seq %u id %u",
		 number, i, a.class, a.flags, a.l3_off, a.l4_off, a.l4_len, a.payload_len,
		 a.payload_sum, a.seq, a.ip_id, b.class, b.flags, b.l3_off, b.l4_off,
		 b.l4_len, b.payload_len, b.payload_sum, b.seq, b.ip_id);
}

/* Streams: many frames of few flows, so the identifiers have much to say. */
static void test_streams(void **state)
{
	static struct gn_meta x[STREAM_MAX_PKTS], w[STREAM_MAX_PKTS];
	unsigned int frames = 0, equal = 0, same_flow = 0, merging = 0;

	for (uint64_t number = seed0; number < seed0 + STREAMS; number++) {
		int n = 0;

		stream_make(&st, number);
		for (int i = 0; i < st.n; i++) {
			const struct stream_pkt *p = &st.pkt[i];

			if (!run_meta(p->frame, p->len, p->meta.instance, &x[n]))
				continue;
			pkt_meta(p->frame, p->len, p->meta.instance, STREAM_GSO, &w[n]);
			same_fields(number, i, &x[n], &w[n]);
			frames++;
			merging += w[n].class != GN_CLASS_ALONE;
			n++;
		}
		for (int i = 0; i < n; i++) {
			bool slot_kept = x[i].key;

			for (int k = i - 1; k >= 0; k--) {
				bool flow = w[i].flow == w[k].flow,
				     key = w[i].key == w[k].key;

				if ((x[i].flow == x[k].flow) != flow)
					fail_msg("number %" PRIu64
						 ", frames %d and %d: flow",
						 number, k, i);
				same_flow += flow;
				if (!x[i].key || !x[k].key)
					continue;
				if (x[i].key == x[k].key && !key)
					fail_msg("number %" PRIu64
						 ", frames %d and %d: one key",
						 number, k, i);
				if (!slot_kept || (x[i].flow ^ x[k].flow) % nic.slots)
					continue;
				slot_kept = false;
				if (x[i].key != x[k].key && key)
					fail_msg("number %" PRIu64
						 ", frames %d and %d: two keys",
						 number, k, i);
				equal += key;
			}
		}
	}
	print_message("%u frames, %u of them may merge; %u pairs of one flow, %u frames "
		      "that continue a run\n",
		      frames, merging, same_flow, equal);
	assert_true(merging > frames / 3);
	assert_true(equal > merging / 4 && equal < merging);
}

/* Single frames, one in five with flipped header bits, one in ten cut off. */
static void test_wild(void **state)
{
	static uint8_t f[PKT_MAX];
	unsigned int merging = 0, unparsed = 0, frames = 0;
	uint64_t seed = 0x1234567 + seed0;

	for (int i = 0; i < WILD; i++) {
		struct gn_meta x, w;
		uint32_t len = stream_frame(&seed, f);

		if (!run_meta(f, len, 9, &x))
			continue;
		pkt_meta(f, len, 9, STREAM_GSO, &w);
		same_fields(seed0, i, &x, &w);
		frames++;
		merging += w.class != GN_CLASS_ALONE;
		unparsed += !w.l4_len;
	}
	print_message("%u frames, %u may merge, %u without parsed headers\n", frames,
		      merging, unparsed);
	assert_true(frames > WILD * 9 / 10);
	assert_true(merging > WILD / 4 && unparsed > WILD / 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_streams),
		cmocka_unit_test(test_wild),
	};
	const char *s = getenv("GN_SEED");

	seed0 = s ? strtoull(s, NULL, 0) : 1;
	return check_main("metadata agreement", tests, sizeof(tests) / sizeof(tests[0]));
}
