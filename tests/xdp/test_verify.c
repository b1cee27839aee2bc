// SPDX-License-Identifier: BSD-2-Clause
/*
 * Payload sums in XDP: good is said of what is good, of nothing else, and only of
 * segments that may merge. Needs root.
 */
#include "check.h"

static uint8_t frame[FRAME_MAX];

/* Run the frame; is its data declared good? */
static bool good(unsigned int len)
{
	struct gn_meta m;

	assert_int_equal(nic_run(&nic, frame, len, &run), 0);
	assert_int_equal(run.verdict, XDP_REDIRECT);
	assert_true(run.meta_len >= sizeof(m));
	memcpy(&m, run.meta + run.meta_len - sizeof(m), sizeof(m));
	assert_int_equal(m.magic, GN_META_MAGIC);
	return m.flags & GN_F_CSUM_GOOD;
}

/* Twice each: the first may be new to the program, the second it knows. */
static bool good_twice(unsigned int len)
{
	bool first = good(len);

	assert_int_equal(good(len), first);
	return first;
}

static struct frame_spec kind(unsigned int k, unsigned int payload)
{
	return (struct frame_spec){ .v6 = k & 1,
				    .proto = k & 2 ? 17 : 6,
				    .opt_len = k & 2   ? 0
					       : k & 4 ? 12
						       : 0,
				    .payload = payload,
				    .fill = (uint8_t)(payload * 7 + k) };
}

static void test_every_length(void **state)
{
	nic_config(&nic, MAX_FRAME, GN_CONFIG_VERIFY, secret);
	for (unsigned int n = 1; n <= 1460; n += n < 600 ? 1 : 13) {
		for (unsigned int k = 0; k < 8; k++) {
			struct frame_spec s = kind(k, n);

			if (!good_twice(frame_build(&s, frame)))
				fail_msg("%u bytes, kind %u: not good", n, k);
			s.csum = CSUM_BAD;
			if (good_twice(frame_build(&s, frame)))
				fail_msg("%u bytes, kind %u: good", n, k);
		}
	}
	fixtures += 16;
}

/* One bit of the payload anywhere. */
static void test_every_byte(void **state)
{
	nic_config(&nic, MAX_FRAME, GN_CONFIG_VERIFY, secret);
	for (unsigned int n = 1; n < 1000; n += 199) {
		struct frame_spec s = kind(n % 8, n);
		unsigned int len = frame_build(&s, frame), at = frame_hdr_len(&s);

		for (unsigned int i = 0; i < n; i++) {
			frame[at + i] ^= 1U << i % 8;
			if (good(len))
				fail_msg("byte %u of %u changed: good", i, n);
			frame[at + i] ^= 1U << i % 8;
		}
		assert_true(good(len));
	}
	fixtures++;
}

/* Padding behind the IP packet is no payload. */
static void test_padding(void **state)
{
	struct frame_spec s = { .payload = 3, .pad = 9 };

	nic_config(&nic, MAX_FRAME, GN_CONFIG_VERIFY, secret);
	assert_true(good_twice(frame_build(&s, frame)));
	fixtures++;
}

/* What never merges, what a local sender left open, and what is not asked for. */
static void test_not_looked_at(void **state)
{
	struct frame_spec syn = { .payload = 100, .tcp_flags = T_SYN };
	struct frame_spec partial = { .payload = 100, .csum = CSUM_PARTIAL };
	struct frame_spec none = { .proto = 17, .payload = 100, .csum = CSUM_ZERO };
	struct frame_spec plain = { .payload = 100 };

	nic_config(&nic, MAX_FRAME, GN_CONFIG_VERIFY, secret);
	assert_false(good_twice(frame_build(&syn, frame)));
	assert_false(good_twice(frame_build(&partial, frame)));
	assert_false(good_twice(frame_build(&none, frame)));
	assert_true(good_twice(frame_build(&plain, frame)));
	nic_config(&nic, MAX_FRAME, 0, secret);
	assert_false(good_twice(frame_build(&plain, frame)));
	fixtures += 4;
}

/* An instance whose worker reads all of it, between two of others. */
static void test_read_later(void **state)
{
	struct gn_instance in = { .id = 1, .flags = GN_INSTANCE_TSO4 };
	struct frame_spec s = { .payload = 100 };
	unsigned int len = frame_build(&s, frame);

	nic_config(&nic, MAX_FRAME, GN_CONFIG_VERIFY, secret);
	for (unsigned int i = 0; i < 4; i++) {
		in.flags ^= GN_INSTANCE_READS;
		nic_instance(&nic, frame_mac, 0, &in);
		nic_generation(&nic, 100 + i);
		assert_int_equal(good_twice(len), !(in.flags & GN_INSTANCE_READS));
	}
	fixtures++;
}

/* Payload that lies in later buffers cannot be read: nothing is said. */
static void test_several_buffers(void **state)
{
	struct frame_spec s = { .payload = 3000 };
	unsigned int len = frame_build(&s, frame);

	nic_config(&nic, MAX_FRAME, GN_CONFIG_VERIFY, secret);
	run.linear = 1000;
	if (nic_run(&nic, frame, len, &run)) {
		run.linear = 0;
		printf("this kernel does not let a test choose the linear length\n");
		skip();
	}
	assert_false(good(len));
	run.linear = 0;
	assert_true(good(len));
	fixtures++;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_length),
		cmocka_unit_test(test_every_byte),
		cmocka_unit_test(test_padding),
		cmocka_unit_test(test_not_looked_at),
		cmocka_unit_test(test_read_later),
		cmocka_unit_test(test_several_buffers),
	};

	return check_main("xdp verify", tests, sizeof(tests) / sizeof(tests[0]));
}
