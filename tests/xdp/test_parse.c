// SPDX-License-Identifier: BSD-2-Clause
/*
 * Packet in, metadata out: what the XDP program says of every kind of frame, at every
 * length, against a plain reading of the rules (frame_expect()). Needs root.
 */
#include "check.h"

static void test_table(void **state)
{
	for (size_t i = 0; i < table_len; i++) {
		struct gn_meta m = run_spec(table[i].name, &table[i].s);

		fixtures++;
		if (m.class != table[i].class)
			fail_msg("%s: class %u", table[i].name, m.class);
		if (table[i].why && !run.delta.v[table[i].why])
			fail_msg("%s: detail not counted", table[i].name);
		for (int k = GN_CNT_ALONE + 1; k < GN_CNT_INBAND; k++)
			if (k != table[i].why && run.delta.v[k])
				fail_msg("%s: detail %d counted", table[i].name, k);
	}
}

/* payload_sum is what a good checksum says of the payload: its real sum. */
static void test_payload_sum(void **state)
{
	static uint8_t f[FRAME_MAX];

	for (unsigned int n = 1; n < 80; n++) {
		for (unsigned int kind = 0; kind < 4; kind++) {
			struct frame_spec s = { .v6 = kind & 1,
						.proto = kind & 2 ? 17 : 6,
						.payload = n,
						.fill = (uint8_t)(n * 3),
						.opt_len = kind & 2 ? 0 : n % 11 * 4 };
			unsigned int len = frame_build(&s, f);
			struct gn_meta m =
				check_redirect("sum", f, len, &in_all, IN_FRONT);
			uint16_t real = frame_sum(f + frame_hdr_len(&s), n);

			if (m.payload_sum != real && !((m.payload_sum ^ real) == 0xffff &&
						       (!real || !m.payload_sum)))
				fail_msg("%u bytes, kind %u: %#x, not %#x", n, kind,
					 m.payload_sum, real);
			assert_int_equal(m.flags & GN_F_CSUM_PARTIAL, 0);
		}
	}
	fixtures += 4;
}

/* ---- hostile lengths ------------------------------------------------------ */

/* Every frame of the table cut off at every length up to behind its headers. */
static void test_truncated(void **state)
{
	static uint8_t f[FRAME_MAX];

	for (size_t i = 0; i < table_len; i++) {
		const struct frame_spec *s = &table[i].s;
		unsigned int len = frame_build(s, f), max = frame_hdr_len(s) + 2;

		for (unsigned int n = 14; n <= max && n <= len; n++) {
			uint8_t *end = f + FRAME_MAX - n;

			memmove(end, f, n); /* what lies behind is not ours to read */
			if (s->ntags && n < 18)
				check_pass(table[i].name, end, n, GN_CNT_PASS_MALFORMED);
			else
				check_redirect(table[i].name, end, n, instance_of(s),
					       IN_FRONT);
			frame_build(s, f);
		}
	}
}

/* Every value of the length fields: IP, IHL, data offset, UDP. */
static void test_lengths(void **state)
{
	static uint8_t f[FRAME_MAX];
	struct frame_spec s = { .opt_len = 12, .payload = 20, .pad = 7 };
	unsigned int len;

	for (unsigned int v = 0; v < 400; v++) { /* IPv4 total length */
		len = frame_build(&s, f);
		f[16] = (uint8_t)(v >> 8);
		f[17] = (uint8_t)v;
		frame_fix_ip_csum(f, 14);
		check_redirect("ip4 length", f, len, &in_all, IN_FRONT);
	}
	for (unsigned int v = 0; v < 256; v++) { /* version, IHL */
		len = frame_build(&s, f);
		f[14] = (uint8_t)v;
		if (v == 0x45)
			frame_fix_ip_csum(f, 14);
		check_redirect("ip4 ihl", f, len, &in_all, IN_FRONT);
	}
	for (unsigned int v = 0; v < 256; v++) { /* data offset */
		len = frame_build(&s, f);
		f[14 + 20 + 12] = (uint8_t)v;
		check_redirect("data offset", f, len, &in_all, IN_FRONT);
	}
	s.v6 = true;
	for (unsigned int v = 0; v < 400; v++) { /* IPv6 payload length */
		len = frame_build(&s, f);
		f[18] = (uint8_t)(v >> 8);
		f[19] = (uint8_t)v;
		check_redirect("ip6 length", f, len, &in_all, IN_FRONT);
	}
	for (unsigned int v = 0; v < 256; v++) { /* next header */
		len = frame_build(&s, f);
		f[20] = (uint8_t)v;
		check_redirect("ip6 next header", f, len, &in_all, IN_FRONT);
	}
	s = (struct frame_spec){ EXT(ext_hop_dst, 0), .payload = 80 };
	for (unsigned int v = 0; v < 256; v++) { /* extension header lengths */
		len = frame_build(&s, f);
		f[14 + 41] = (uint8_t)v;
		check_redirect("hop-by-hop length", f, len, &in_all, IN_FRONT);
		len = frame_build(&s, f);
		f[14 + 49] = (uint8_t)v;
		check_redirect("destination length", f, len, &in_all, IN_FRONT);
	}
	s = (struct frame_spec){ .proto = 17, .payload = 50, .pad = 9 };
	for (unsigned int v = 0; v < 300; v++) { /* UDP length */
		len = frame_build(&s, f);
		f[38] = (uint8_t)(v >> 8);
		f[39] = (uint8_t)v;
		check_redirect("udp length", f, len, &in_all, IN_FRONT);
	}
	fixtures += 8;
}

/* Random bytes behind a valid start: nothing but the reference's verdict. */
static void test_noise(void **state)
{
	static uint8_t f[FRAME_MAX];
	uint64_t x = 0x9e3779b97f4a7c15ULL;

	for (unsigned int round = 0; round < 20000; round++) {
		const struct frame_spec *s = &table[round % table_len].s;
		unsigned int len = frame_build(s, f), hdr = frame_hdr_len(s);
		unsigned int l3 = frame_l3_off(s), edits = 1 + round % 4;

		if (len > 1600)
			continue;
		while (edits--) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			f[l3 + x % (hdr > l3 ? hdr - l3 : 1)] = (uint8_t)(x >> 32);
		}
		if (round & 1 && f[l3] == 0x45)
			frame_fix_ip_csum(f, l3);
		check_redirect("noise", f, len, instance_of(s), IN_FRONT);
	}
}

/* Headers that do not lie in the first buffer of a multi-buffer frame. */
static void test_linear(void **state)
{
	static uint8_t f[FRAME_MAX];
	struct frame_spec s = { .opt_len = 40, .payload = 3000 };
	unsigned int len = frame_build(&s, f);

	run.linear = 14;
	if (nic_run(&nic, f, len, &run)) {
		run.linear = 0;
		printf("this kernel does not let a test choose the linear length\n");
		skip();
	}
	for (unsigned int n = 14; n < 120; n++) {
		run.linear = n;
		check_redirect("linear", f, len, &in_all, IN_FRONT);
	}
	s = (struct frame_spec){ EXT(ext_hop64, 0), .ntags = 2, .tci = { 100, 2 },
				 .opt_len = 40, .payload = 3000 };
	len = frame_build(&s, f);
	for (unsigned int n = 18; n < 240; n++) {
		run.linear = n;
		check_redirect("linear6", f, len, &in_vlan, IN_FRONT);
	}
	run.linear = 0;
	fixtures += 2;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),	  cmocka_unit_test(test_payload_sum),
		cmocka_unit_test(test_truncated), cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_noise),	  cmocka_unit_test(test_linear),
	};

	return check_main("xdp parse", tests, sizeof(tests) / sizeof(tests[0]));
}
