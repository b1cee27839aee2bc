// SPDX-License-Identifier: BSD-2-Clause
/*
 * The flow and merge identifiers: what changes them, what does not. Needs root.
 */
#include "check.h"

#include <sched.h>

/* Flip each header bit: the key changes exactly when the rules say that the segments
 * must not merge, the flow exactly when the bit is one of the tuple's. A slot holds the
 * last segment only, so each flip is against the frame as it was, sent just before. */
static void flip_bits(const char *what, const struct frame_spec *s)
{
	static uint8_t f[FRAME_MAX];
	unsigned int len = frame_build(s, f), hdr = frame_hdr_len(s),
		     l3 = frame_l3_off(s);
	const struct gn_instance *in = instance_of(s);
	struct gn_meta base = check_redirect(what, f, len, in, IN_FRONT), m = base;
	unsigned int tried = 0;

	for (unsigned int bit = 0; bit < hdr * 8; bit++) {
		unsigned int off = bit / 8;
		enum frame_effect e = frame_effect(s, off, bit % 8);
		uint16_t vid, vid0 = s->ntags ? s->tci[0] & 0xfff : 0;
		bool moved, tagged;

		frame_build(s, f);
		if (m.key && m.key != base.key)
			base = check_redirect(what, f, len, in, IN_FRONT);
		f[off] ^= (uint8_t)(1 << bit % 8);
		if (f[0] & 1)
			continue;
		/* The frame must still find the same instance. */
		tagged = s->ntags && ((f[12] == 0x81 && f[13] == 0x00) ||
				      (f[12] == 0x88 && f[13] == 0xa8));
		vid = tagged ? (uint16_t)((f[14] << 8 | f[15]) & 0xfff) : 0;
		moved = vid != vid0 || off < 6;
		if (moved)
			nic_instance(&nic, f, vid, in);
		if (!s->v6 && off >= l3 && off < l3 + 20 && off != l3 + 10 &&
		    off != l3 + 11)
			frame_fix_ip_csum(f, l3);
		m = check_redirect(what, f, len, in, IN_FRONT);
		if (moved && off < 6)
			nic_instance(&nic, f, vid, NULL);
		else if (moved) /* as setup() left it */
			nic_instance(&nic, f, vid,
				     vid == 0		      ? &in_all
				     : vid == 100 || vid == 7 ? &in_vlan
							      : NULL);
		if (m.class == GN_CLASS_ALONE)
			continue;
		tried++;
		if ((m.flags ^ base.flags) & (GN_F_CSUM_PARTIAL | GN_F_CSUM_NONE) &&
		    e == EFFECT_NONE)
			e = EFFECT_KEY;
		if ((m.flow != base.flow) != (e == EFFECT_FLOW))
			fail_msg("%s: byte %u bit %u: flow %s", what, off, bit % 8,
				 m.flow == base.flow ? "stays" : "changes");
		if ((m.key != base.key) != (e != EFFECT_NONE))
			fail_msg("%s: byte %u bit %u: key %s", what, off, bit % 8,
				 m.key == base.key ? "stays" : "changes");
	}
	assert_true(tried > hdr * 2);
	fixtures++;
}

static void test_flip(void **state)
{
	for (size_t i = 0; i < table_len; i++)
		if (table[i].class != GN_CLASS_ALONE && table[i].s.payload < 2000)
			flip_bits(table[i].name, &table[i].s);
}

#define SETS 60

/* Header sets that words without lengths would confuse: any two in turn, either way. */
static void test_no_confusion(void **state)
{
	static struct frame_spec set[SETS];
	static uint8_t ext[8][64];
	uint64_t before, key;
	unsigned int n = 0;

	for (unsigned int opt = 0; opt <= 40; opt += 4) {
		set[n++] = (struct frame_spec){ .opt_len = opt, .payload = 50 };
		set[n++] =
			(struct frame_spec){ .opt_len = opt, .v6 = true, .payload = 50 };
	}
	for (uint16_t tags = 1; tags <= 2; tags++) {
		struct frame_spec s = { .ntags = tags, .payload = 50 };

		set[n++] = s;
		s.tci[tags - 1] = 0x2000;
		set[n++] = s;
		s.v6 = true;
		set[n++] = s;
	}
	for (unsigned int i = 0; i < 8; i++) {
		struct frame_spec s = {
			.v6 = true, .ext = ext[i], .ext_len = 8 * (i + 1), .payload = 50
		};

		ext[i][1] = (uint8_t)i;
		set[n++] = s;
		s.ext_first = 43;
		set[n++] = s;
		if (i < 2) {
			s.ext_first = 60;
			set[n++] = s;
		}
		s.ext_first = 0;
		s.ntags = 1;
		set[n++] = s;
	}
	assert_in_range(n, 50, SETS);
	for (unsigned int i = 0; i < n; i++) {
		before = run_spec("set", &set[i]).key;
		assert_true(run_spec("set", &set[i]).key == before);
		for (unsigned int k = 0; k < 2 * i; k++) {
			key = run_spec("set", &set[k & 1 ? i : k / 2]).key;
			if (key == before)
				fail_msg("header sets %u and %u: one key", i, k / 2);
			before = key;
		}
	}
	fixtures += n;
}

/* What differs within one connection's stream leaves both identifiers alone. */
static void test_stream(void **state)
{
	struct frame_spec s = { .opt_len = 12, .payload = 1448, .fill = 9 };
	struct gn_meta a = run_spec("stream", &s), m;
	static uint8_t f[FRAME_MAX];
	unsigned int len;

	for (unsigned int i = 1; i < 40; i++) {
		s.seq = 0x01020304 + i * 1448;
		s.payload = 1448 - i;
		s.tcp_flags = i & 1 ? T_ACK | T_PSH : T_ACK;
		len = frame_build(&s, f);
		f[18] = (uint8_t)i; /* identification */
		frame_fix_ip_csum(f, 14);
		m = check_redirect("stream", f, len, &in_all, IN_FRONT);
		assert_int_equal(m.flow, a.flow);
		assert_true(m.key == a.key);
		assert_int_equal(m.seq, s.seq);
		assert_int_equal(m.payload_len, s.payload);
	}
	fixtures++;
}

/* ALONE segments of every kind stand in their flow, so that nothing overtakes. */
static void test_alone_in_flow(void **state)
{
	static const struct frame_spec same[] = {
		{ .payload = 10 },
		{ .payload = 0 },
		{ .tcp_flags = T_SYN, .opt_len = 20 },
		{ .tcp_flags = T_RST },
		{ .ip_opt_len = 8, .payload = 10 },
		{ .frag = 0x2000, .payload = 10 },
		{ .tcp_flags = T_CWR | T_PSH, .payload = 1 },
		{ .csum = CSUM_BAD, .payload = 10 },
		{ .csum = CSUM_PARTIAL, .payload = 10 },
		{ .ntags = 1, .tci = { 0x6000 }, .payload = 10 },
	};
	uint32_t flow = run_spec("flow", &same[0]).flow;

	for (size_t i = 1; i < sizeof(same) / sizeof(same[0]); i++)
		if (run_spec("flow", &same[i]).flow != flow)
			fail_msg("kind %zu: another flow", i);
	fixtures += 10;
}

/* Flows spread over a table of 4,096 slots as chance would have it (63 % used), and
 * it depends on the secret which. */
static void test_spread(void **state)
{
	static const uint64_t secret2[2] = { 0x0706050403020101ULL,
					     0x0f0e0d0c0b0a0908ULL };
	static uint8_t used[4096];
	static uint32_t flow[4096];
	struct frame_spec s = { .payload = 4 };
	unsigned int slots = 0;
	struct gn_meta a, b;

	memset(used, 0, sizeof(used));
	for (unsigned int i = 0; i < 4096; i++) {
		s.sport = (uint16_t)(1024 + i);
		flow[i] = run_spec("spread", &s).flow;
		slots += !used[flow[i] % 4096];
		used[flow[i] % 4096] = 1;
	}
	assert_in_range(slots, 4096 * 60 / 100, 4096 * 67 / 100);

	a = run_spec("secret", &s);
	nic_config(&nic, MAX_FRAME, 0, secret2);
	/* A secret is there before the first frame is; this one comes late. */
	nic_generation(&nic, nic.conf.generation + 1);
	b = run_spec("secret", &s);
	assert_int_not_equal(a.flow, b.flow);
	nic_config(&nic, MAX_FRAME, 0, secret);
	nic_generation(&nic, nic.conf.generation + 1);
	fixtures += 2;
}

/* ---- runs ----------------------------------------------------------------- */

/*
 * Two frames that differ in two bytes at @at, and share a slot: @f becomes the one,
 * @other the other.
 */
static void find_sharing(uint8_t *f, uint8_t *other, unsigned int len, unsigned int at)
{
	static uint16_t by[65536];
	uint16_t old;
	uint32_t slot;

	assert_in_range(nic.slots, 1, 65536);
	memset(by, 0, sizeof(by));

	memcpy(other, f, len);
	for (uint16_t n = 1; n < 10000; n++) {
		memcpy(other + at, &n, sizeof(n));
		if (other[12] == 0x08)
			frame_fix_ip_csum(other, 14);
		slot = check_redirect("slot", other, len, &in_all, IN_FRONT).flow %
		       nic.slots;
		old = by[slot];
		if (old) {
			memcpy(f + at, &old, sizeof(old));
			if (f[12] == 0x08)
				frame_fix_ip_csum(f, 14);
			return;
		}
		by[slot] = n;
	}
	fail_msg("no two flows of one slot");
}

/* Flows that share a slot and take turns: no key is of both. They differ in a port, or in
 * any word of the addresses alone. Every key is new, but of segments that the program
 * remembers beside the slot, whose runs go on. */
static void test_shared_slot(void **state)
{
	static const struct {
		struct frame_spec s;
		unsigned int at;
	} kind[] = {
		{ { .payload = 100 }, 34 },
		{ { .opt_len = 12, .payload = 100 }, 34 },
		{ { .opt_len = 40, .payload = 100 }, 34 },
		{ { .proto = 17, .payload = 100 }, 34 },
		{ { .payload = 100 }, 28 },
		{ { .proto = 17, .payload = 100 }, 32 },
		{ { .v6 = true, .payload = 100 }, 54 },
		{ { .v6 = true, .payload = 100 }, 24 },
		{ { .v6 = true, .opt_len = 12, .payload = 100 }, 32 },
		{ { .v6 = true, .proto = 17, .payload = 100 }, 40 },
		{ { .v6 = true, .payload = 100 }, 52 },
	};
	static uint8_t f[2][FRAME_MAX];
	uint64_t key[20];

	for (size_t i = 0; i < sizeof(kind) / sizeof(kind[0]); i++) {
		unsigned int len = frame_build(&kind[i].s, f[0]);
		bool remembered =
			!kind[i].s.v6 && !kind[i].s.proto && kind[i].s.opt_len <= 12;

		find_sharing(f[0], f[1], len, kind[i].at);
		for (unsigned int n = 0; n < 20; n++) {
			key[n] = check_redirect("turn", f[n & 1], len, &in_all, IN_FRONT)
					 .key;
			for (unsigned int k = 0; k < n; k++)
				if ((key[k] == key[n]) != (remembered && !((n - k) & 1)))
					fail_msg("kind %zu: frames %u and %u", i, k, n);
		}
		/* Undisturbed, each has one. */
		assert_true(check_redirect("again", f[1], len, &in_all, IN_FRONT).key ==
			    key[19]);
		fixtures++;
	}
}

/* A key tells its CPU: the same frame, or another one, never gets it elsewhere. */
static void test_cpus(void **state)
{
	struct frame_spec s = { .opt_len = 12, .payload = 100 };
	int here = sched_getcpu(), there = !here;
	uint64_t key[2][200];

	if (nic_cpu(there)) {
		printf("one CPU only\n");
		skip();
	}
	for (unsigned int cpu = 0; cpu < 2; cpu++) {
		assert_int_equal(nic_cpu((int)cpu), 0);
		for (unsigned int i = 0; i < 200; i++) {
			s.fill = (uint8_t)i; /* other options */
			key[cpu][i] = run_spec("cpu", &s).key;
		}
	}
	for (unsigned int i = 0; i < 200; i++) {
		assert_true(i == 0 || key[0][i] != key[0][i - 1]);
		assert_int_equal(key[0][i] >> 48, 0);
		assert_int_equal(key[1][i] >> 48, 1);
	}
	assert_int_equal(nic_cpu(here), 0);
	fixtures++;
}

/* An instance that comes back at the same address begins anew, also where the CPUs
 * remember instances. */
static void test_instance_again(void **state)
{
	struct gn_instance in = { .id = 0x0009, .flags = ALL_OFFLOADS };
	struct frame_spec s = { .dst = mac_other, .opt_len = 12, .payload = 100 };
	static uint8_t f[FRAME_MAX];
	unsigned int len = frame_build(&s, f);
	struct gn_meta a, b;

	for (uint32_t generation = 0; generation < 2; generation++) {
		nic_generation(&nic, generation * 1000);
		nic_instance(&nic, mac_other, 0, &in);
		a = check_redirect("first", f, len, &in, IN_FRONT);
		assert_true(check_redirect("next", f, len, &in, IN_FRONT).key == a.key);
		nic_instance(&nic, mac_other, 0, NULL);
		check_pass("gone", f, len, GN_CNT_PASS_OTHER);
		in.id += GN_MAX_INSTANCES;
		nic_instance(&nic, mac_other, 0, &in);
		b = check_redirect("again", f, len, &in, IN_FRONT);
		assert_true(b.key != a.key);
		assert_int_not_equal(b.flow, a.flow);
		/* The same one with other offloads: no merge of what it does not take. */
		in.flags = GN_INSTANCE_TSO6;
		nic_instance(&nic, mac_other, 0, &in);
		assert_int_equal(check_redirect("flags", f, len, &in, IN_FRONT).class,
				 GN_CLASS_ALONE);
		in.flags = ALL_OFFLOADS;
		nic_instance(&nic, mac_other, 0, NULL);
	}
	fixtures += 6;
}

/* A remembered instance is found without the map, until the generation says otherwise. */
static void test_generation(void **state)
{
	struct gn_instance in = { .id = 0x0009, .flags = ALL_OFFLOADS };
	struct frame_spec s = { .dst = mac_other, .payload = 100 };
	static uint8_t f[FRAME_MAX];
	unsigned int len = frame_build(&s, f);
	uint32_t generation;

	nic_instance(&nic, mac_other, 0, &in);
	check_redirect("remember", f, len, &in, IN_FRONT);
	generation = nic.conf.generation;
	nic.conf.generation = 0; /* keeps the next call from telling */
	nic_instance(&nic, mac_other, 0, NULL);
	check_redirect("remembered", f, len, &in, IN_FRONT);
	nic_generation(&nic, 0);
	check_pass("nothing is remembered", f, len, GN_CNT_PASS_OTHER);
	nic_generation(&nic, generation + 1);
	check_pass("another generation", f, len, GN_CNT_PASS_OTHER);
	fixtures += 3;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flip),	   cmocka_unit_test(test_no_confusion),
		cmocka_unit_test(test_stream),	   cmocka_unit_test(test_alone_in_flow),
		cmocka_unit_test(test_spread),	   cmocka_unit_test(test_shared_slot),
		cmocka_unit_test(test_cpus),	   cmocka_unit_test(test_instance_again),
		cmocka_unit_test(test_generation),
	};

	return check_main("xdp ident", tests, sizeof(tests) / sizeof(tests[0]));
}
