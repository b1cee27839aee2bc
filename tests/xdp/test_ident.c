// SPDX-License-Identifier: BSD-2-Clause
/*
 * The flow and merge identifiers: what changes them, what does not. Needs root.
 */
#include "check.h"

/* Flip each header bit: the key changes exactly when the rules say that the segments
 * must not merge, the flow exactly when the bit is one of the tuple's. */
static void flip_bits(const char *what, const struct frame_spec *s)
{
	static uint8_t f[FRAME_MAX];
	unsigned int len = frame_build(s, f), hdr = frame_hdr_len(s), l3 = frame_l3_off(s);
	const struct gn_instance *in = instance_of(s);
	struct gn_meta base = check_redirect(what, f, len, in, false), m;
	unsigned int tried = 0;

	for (unsigned int bit = 0; bit < hdr * 8; bit++) {
		unsigned int off = bit / 8;
		enum frame_effect e = frame_effect(s, off, bit % 8);
		uint16_t vid, vid0 = s->ntags ? s->tci[0] & 0xfff : 0;
		bool moved, tagged;

		frame_build(s, f);
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
		if (!s->v6 && off >= l3 && off < l3 + 20 && off != l3 + 10 && off != l3 + 11)
			frame_fix_ip_csum(f, l3);
		m = check_redirect(what, f, len, in, false);
		if (moved && off < 6)
			nic_instance(&nic, f, vid, NULL);
		else if (moved)	/* as setup() left it */
			nic_instance(&nic, f, vid, vid == 0 ? &in_all :
				     vid == 100 || vid == 7 ? &in_vlan : NULL);
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

/* Header sets that an encoding without lengths would confuse: all different. */
static void test_no_confusion(void **state)
{
	static const uint8_t zeros[64];
	uint64_t key[128];
	unsigned int n = 0;
	uint8_t ext[64];

	for (unsigned int opt = 0; opt <= 40; opt += 4) {
		struct frame_spec s = { .opt_len = opt, .payload = 50 };

		key[n++] = run_spec("options", &s).key;
		s.v6 = true;
		key[n++] = run_spec("options", &s).key;
	}
	for (unsigned int tags = 1; tags <= 2; tags++) {
		struct frame_spec s = { .ntags = tags, .payload = 50 };

		key[n++] = run_spec("tags", &s).key;
		s.tci[tags - 1] = 0x2000;
		key[n++] = run_spec("tags", &s).key;
		s.v6 = true;
		key[n++] = run_spec("tags", &s).key;
	}
	for (unsigned int len = 8; len <= 64; len += 8) {
		struct frame_spec s = { .v6 = true, .ext = ext, .ext_len = len, .payload = 50 };

		memcpy(ext, zeros, sizeof(ext));
		ext[1] = (uint8_t)(len / 8 - 1);
		key[n++] = run_spec("extension", &s).key;
		s.ext_first = 43;
		key[n++] = run_spec("extension", &s).key;
		if (len <= 16) {
			s.ext_first = 60;
			key[n++] = run_spec("extension", &s).key;
		}
		s.ext_first = 0;
		s.ntags = 1;
		key[n++] = run_spec("extension", &s).key;
	}
	for (unsigned int i = 0; i < n; i++)
		for (unsigned int k = 0; k < i; k++)
			if (key[i] == key[k])
				fail_msg("header sets %u and %u have one key", k, i);
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
		f[18] = (uint8_t)i;	/* identification */
		frame_fix_ip_csum(f, 14);
		m = check_redirect("stream", f, len, &in_all, false);
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
		{ .payload = 10 }, { .payload = 0 }, { .tcp_flags = T_SYN, .opt_len = 20 },
		{ .tcp_flags = T_RST }, { .ip_opt_len = 8, .payload = 10 },
		{ .frag = 0x2000, .payload = 10 }, { .tcp_flags = T_CWR | T_PSH, .payload = 1 },
		{ .csum = CSUM_BAD, .payload = 10 }, { .csum = CSUM_PARTIAL, .payload = 10 },
		{ .ntags = 1, .tci = { 0x6000 }, .payload = 10 },
	};
	uint32_t flow = run_spec("flow", &same[0]).flow;

	for (size_t i = 1; i < sizeof(same) / sizeof(same[0]); i++)
		if (run_spec("flow", &same[i]).flow != flow)
			fail_msg("kind %zu: another flow", i);
	fixtures += 10;
}

/* Flows spread over a table of 4,096 slots as chance would have it (63 % used), and
 * the identifiers depend on the secret. */
static void test_spread(void **state)
{
	static const uint64_t secret2[2] = { 0x0706050403020101ULL, 0x0f0e0d0c0b0a0908ULL };
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
	b = run_spec("secret", &s);
	assert_int_not_equal(a.flow, b.flow);
	assert_true(a.key != b.key);
	nic_config(&nic, MAX_FRAME, 0, secret);
	fixtures += 2;
}

/* SipHash-1-3 as published: the words of one frame, hashed by a plain transcription. */
static uint64_t rotl(uint64_t x, int n)
{
	return x << n | x >> (64 - n);
}

static void sip(uint64_t v[4], int rounds)
{
	while (rounds--) {
		v[0] += v[1]; v[1] = rotl(v[1], 13); v[1] ^= v[0]; v[0] = rotl(v[0], 32);
		v[2] += v[3]; v[3] = rotl(v[3], 16); v[3] ^= v[2];
		v[0] += v[3]; v[3] = rotl(v[3], 21); v[3] ^= v[0];
		v[2] += v[1]; v[1] = rotl(v[1], 17); v[1] ^= v[2]; v[2] = rotl(v[2], 32);
	}
}

static void test_siphash(void **state)
{
	struct frame_spec s = { .opt_len = 12, .payload = 100 };
	static uint8_t f[FRAME_MAX];
	unsigned int len = frame_build(&s, f);
	struct gn_meta m = check_redirect("siphash", f, len, &in_all, false);
	uint64_t v[4] = { secret[0] ^ 0x736f6d6570736575, secret[1] ^ 0x646f72616e646f6d,
			  secret[0] ^ 0x6c7967656e657261, secret[1] ^ 0x7465646279746573 };
	uint8_t w[7][8] = { { 0 } };

	memcpy(w[0], f + 34, 4);			/* ports */
	memcpy(w[0] + 4, &in_all.id, 2);
	w[0][6] = 6;					/* TCP over IPv4 */
	memcpy(w[1], f + 26, 8);			/* addresses */
	memcpy(w[2], f, 8);				/* MAC addresses */
	memcpy(w[3], f + 8, 4);
	memcpy(w[3] + 4, f + 14, 2);			/* version, IHL, TOS */
	memcpy(w[3] + 6, f + 20, 2);			/* flags, fragment offset */
	memcpy(w[4], f + 62, 4);			/* last option word */
	memcpy(w[4] + 4, f + 52, 2);			/* urgent pointer */
	w[4][6] = f[22];				/* TTL */
	memcpy(w[5], f + 42, 8);			/* ack, offset, flags, window */
	memcpy(w[6], f + 54, 8);			/* options */
	for (int i = 0; i < 7; i++) {
		uint64_t word;

		memcpy(&word, w[i], 8);
		v[3] ^= word;
		sip(v, 1);
		v[0] ^= word;
	}
	v[2] ^= 0xff;
	sip(v, 3);
	assert_true(m.key == (v[0] ^ v[1] ^ v[2] ^ v[3]));
	fixtures++;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flip),
		cmocka_unit_test(test_no_confusion),
		cmocka_unit_test(test_stream),
		cmocka_unit_test(test_alone_in_flow),
		cmocka_unit_test(test_spread),
		cmocka_unit_test(test_siphash),
	};

	return check_main("xdp ident", tests, sizeof(tests) / sizeof(tests[0]));
}
