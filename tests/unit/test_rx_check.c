// SPDX-License-Identifier: BSD-2-Clause
/* rx_check(): no offset or length of metadata may leave the frame. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../../user/daemon/rx.h"
#include "pkt.h"

static const uint8_t payload[1448] = { 1, 2, 3 };

static struct gn_meta good(uint32_t *len, const struct pkt_spec *s)
{
	static uint8_t frame[PKT_MAX];
	struct gn_meta m;

	*len = pkt_build(s, frame);
	pkt_meta(frame, *len, 5, GN_INSTANCE_TSO4 | GN_INSTANCE_TSO6 | GN_INSTANCE_USO,
		 &m);
	return m;
}

static void spec_tcp(struct pkt_spec *s)
{
	pkt_default(s);
	s->payload = payload;
	s->len = 1000;
}

static void test_takes_what_xdp_writes(void **state)
{
	struct pkt_spec s;
	struct gn_meta m;
	uint32_t len;

	for (unsigned int i = 0; i < 256; i++) {
		spec_tcp(&s);
		s.ipv6 = i & 1;
		s.proto = i & 2 ? 17 : i & 4 ? 1 : 6;
		s.len = i & 8 ? 0 : 1448;
		s.ntags = i >> 4 & 3;
		if (s.ntags == 3)
			continue;
		s.pad = i & 64 ? 9 : 0;
		s.opt_len = i & 128 ? 40 : 0;
		memset(s.opt, 1, sizeof(s.opt));
		m = good(&len, &s);
		assert_true(rx_check(&m, len));
		assert_int_equal(m.class == GN_CLASS_ALONE, !s.len || s.proto == 1);
	}
}

/* Each length from nothing to the whole frame: only the whole one will do. */
static void test_every_length(void **state)
{
	struct pkt_spec s;
	struct gn_meta m;
	uint32_t len;

	spec_tcp(&s);
	m = good(&len, &s);
	for (uint32_t i = 0; i < len; i++)
		assert_false(rx_check(&m, i));
	assert_true(rx_check(&m, len));
	assert_true(rx_check(&m, len + 1));
}

/* Without parsed headers nothing is used of a frame, so any length will do. */
static void test_unparsed(void **state)
{
	struct gn_meta m = { .magic = GN_META_MAGIC, .class = GN_CLASS_ALONE, .flow = 7 };

	assert_true(rx_check(&m, 0));
	assert_true(rx_check(&m, 60));
	for (m.class = GN_CLASS_START; m.class <= GN_CLASS_CLOSE; m.class ++)
		assert_false(rx_check(&m, 60));
}

#define REFUSED(s, change)                                                               \
	do {                                                                             \
		struct gn_meta m_ = good(&len, &(s));                                    \
		assert_true(rx_check(&m_, len));                                         \
		m_.change;                                                               \
		assert_false(rx_check(&m_, len));                                        \
	} while (0)

static void test_refuses(void **state)
{
	struct pkt_spec s, u, v6;
	uint32_t len;

	spec_tcp(&s);
	u = v6 = s;
	u.proto = 17;
	v6.ipv6 = true;
	REFUSED(s, class = GN_CLASS_CLOSE + 1);
	REFUSED(s, class = 255);
	REFUSED(s, payload_len++);
	REFUSED(s, payload_len = 65535);
	REFUSED(s, payload_len = 0); /* nothing to merge */
	REFUSED(s, flow = 0);	     /* merges, but with whom? */
	REFUSED(s, l4_off = 255);
	REFUSED(s, l4_off++);
	REFUSED(s, l4_len = 255);
	REFUSED(s, l4_len = 0);
	REFUSED(s, l4_len = 16);  /* less than a TCP header */
	REFUSED(s, l4_len = 64);  /* more than there is */
	REFUSED(s, l3_off = 255); /* behind L4 */
	REFUSED(s, l3_off = 0);
	REFUSED(s, l3_off++);		/* no room for IPv4 */
	REFUSED(v6, l3_off++);		/* no room for IPv6 */
	REFUSED(s, flags |= GN_F_IPV6); /* an IPv6 header in 20 bytes */
	REFUSED(s, flags |= GN_F_UDP);
	REFUSED(s, flags &= (uint16_t)~GN_F_TCP);
	REFUSED(u, flags &= (uint16_t)~GN_F_UDP);
	REFUSED(u, l4_len = 20);
	REFUSED(u, l4_len = 4);
}

/* Hostile metadata: what passes never points outside, however it was made. */
static void test_random(void **state)
{
	uint64_t seed = 42;
	unsigned int passed = 0;

	for (unsigned int i = 0; i < 500000; i++) {
		struct pkt_spec s;
		struct gn_meta m;
		uint32_t len;

		spec_tcp(&s);
		s.len = 1 + pkt_rand(&seed) % 60;
		s.ipv6 = i & 1;
		s.proto = i & 2 ? 17 : 6;
		m = good(&len, &s);
		for (unsigned int n = 1 + pkt_rand(&seed) % 3; n; n--) {
			unsigned int at = pkt_rand(&seed) % 3
						  ? 18 + pkt_rand(&seed) % 14
						  : pkt_rand(&seed) % sizeof(m);

			((uint8_t *)&m)[at] ^= (uint8_t)(1U << pkt_rand(&seed) % 8);
		}
		if (!rx_check(&m, len))
			continue;
		passed++;
		assert_in_range(m.class, GN_CLASS_ALONE, GN_CLASS_CLOSE);
		if (!m.l4_len) {
			assert_int_equal(m.class, GN_CLASS_ALONE);
			continue;
		}
		assert_true((uint32_t)m.l4_off + m.l4_len + m.payload_len <= len);
		assert_true(m.l3_off >= 14);
		assert_true(m.l3_off + (m.flags & GN_F_IPV6 ? 40U : 20U) <= m.l4_off);
		/* The checksum field is inside. */
		assert_true(m.flags & GN_F_TCP ? m.l4_len >= 20 : m.l4_len == 8);
		assert_true(m.class == GN_CLASS_ALONE || m.payload_len);
	}
	assert_in_range(passed, 1000, 499999);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_takes_what_xdp_writes),
		cmocka_unit_test(test_every_length),
		cmocka_unit_test(test_unparsed),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests_name("rx_check", tests, NULL, NULL);
}
