// SPDX-License-Identifier: BSD-2-Clause
/*
 * The stream of metadata: records, the tags that name them, and what happens where there
 * is no room for a record. Needs root.
 */
#include "check.h"

/* An empty stream whose next record is number @seq. */
static void begin_at(uint32_t seq)
{
	struct gn_stream *s = nic.stream;

	s->prod = s->cons = s->cons_seen = seq;
	s->gap = 0;
	s->last_key = 0;
}

/* Every kind of frame, all of it into one stream. */
static void test_records(void **state)
{
	static uint8_t f[FRAME_MAX];

	nic_config(&nic, MAX_FRAME, GN_CONFIG_STREAM, secret);
	for (unsigned int start = 0; start < 2; start++) {
		/* The second time, numbers and places wrap on the way. */
		begin_at(start ? -(uint32_t)table_len / 2 : 0);
		for (size_t i = 0; i < table_len; i++) {
			unsigned int len = frame_build(&table[i].s, f);
			uint32_t prod = nic.stream->prod;
			struct gn_meta m =
				check_redirect(table[i].name, f, len,
					       instance_of(&table[i].s), IN_STREAM);

			assert_int_equal(m.class, table[i].class);
			assert_int_equal(nic.stream->prod, prod + 1);
		}
	}
	fixtures += (unsigned int)table_len;
}

/* A frame is the same to aggregation wherever its metadata is. */
static void test_same(void **state)
{
	static const uint32_t flags[] = { 0, GN_CONFIG_INBAND, GN_CONFIG_STREAM,
					  GN_CONFIG_INBAND | GN_CONFIG_STREAM };
	static const enum place place[] = { IN_FRONT, IN_FRAME, IN_STREAM, IN_FRAME };
	struct frame_spec s = { .opt_len = 12, .payload = 1448 };
	static uint8_t f[FRAME_MAX];
	unsigned int len = frame_build(&s, f);
	struct gn_meta m, first;

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		nic_config(&nic, MAX_FRAME, flags[i], secret);
		m = check_redirect("place", f, len, &in_all, place[i]);
		m.magic = GN_META_MAGIC;
		if (!i)
			first = m;
		assert_memory_equal(&m, &first, sizeof(m));
		fixtures++;
	}
}

/* Up to the last free record; then into the frames, until the reader says that it read.
 */
static void test_full(void **state)
{
	struct gn_stream *s = nic.stream;
	static uint8_t f[FRAME_MAX];
	struct gn_next oldest;
	unsigned int len;

	nic_config(&nic, MAX_FRAME, GN_CONFIG_STREAM, secret);
	begin_at(0xffffff00);
	len = frame_build(&table[0].s, f);
	check_redirect("oldest", f, len, &in_all, IN_STREAM);
	oldest = s->next[s->cons % GN_STREAM_SIZE];
	len = frame_build(&table[2].s, f);
	for (unsigned int i = 1; i < GN_STREAM_ROOM; i++)
		check_redirect("record", f, len, &in_all, IN_STREAM);
	for (unsigned int i = 0; i < 3; i++) {
		check_redirect("full", f, len, &in_all, IN_FULL);
		assert_int_equal(s->gap, GN_STREAM_GAP);
	}
	assert_memory_equal(&s->next[s->cons % GN_STREAM_SIZE], &oldest, sizeof(oldest));

	/* Numbers go on beyond a gap, for which there must be room, too. */
	s->cons += GN_STREAM_GAP;
	check_redirect("room for the gap alone", f, len, &in_all, IN_FULL);
	s->cons++;
	check_redirect("room again", f, len, &in_all, IN_STREAM);
	assert_int_equal(s->prod, 0xffffff00 + GN_STREAM_ROOM + GN_STREAM_GAP + 1);
	check_redirect("full again", f, len, &in_all, IN_FULL);

	/* What FULL tells is enough to go on, though none of the frames arrived. */
	s->cons = s->prod;
	check_redirect("taken from the tag", f, len, &in_all, IN_STREAM);
	s->cons = s->prod;
	fixtures += 6;
}

/* A frame without a tag leaves a gap, once. */
static void test_gap(void **state)
{
	struct gn_stream *s = nic.stream;
	static uint8_t f[FRAME_MAX];
	unsigned int len = frame_build(&table[0].s, f);
	uint32_t prod;

	nic_config(&nic, MAX_FRAME, GN_CONFIG_STREAM, secret);
	s->cons = s->prod;
	check_redirect("before", f, len, &in_all, IN_STREAM);
	prod = s->prod;
	run.foreign = 8;
	check_redirect("foreign metadata", f, len, &in_all, IN_FRAME);
	check_redirect("foreign metadata", f, len, &in_all, IN_FRAME);
	run.foreign = 0;
	check_redirect("behind the gap", f, len, &in_all, IN_STREAM);
	assert_int_equal(s->prod, prod + GN_STREAM_GAP + 1);
	check_redirect("next", f, len, &in_all, IN_STREAM);
	assert_int_equal(s->prod, prod + GN_STREAM_GAP + 2);
	fixtures += 3;
}

/*
 * One connection after another: which records are whole, and that each tells the same
 * whether it is or not, also to a reader that begins anywhere.
 */
static void test_next(void **state)
{
	struct frame_spec spec = { .opt_len = 12, .payload = 1448, .sport = 40000 };
	struct gn_meta said[3 * GN_STREAM_EVERY];
	struct gn_stream *s = nic.stream;
	struct stream_reader r = { .s = s };
	static uint8_t f[FRAME_MAX];
	unsigned int whole = 0, len;
	uint16_t id = 0xfff0;

	nic_config(&nic, MAX_FRAME, GN_CONFIG_STREAM, secret);
	begin_at(GN_STREAM_SIZE - GN_STREAM_EVERY - 5);
	for (uint32_t i = 0; i < 3 * GN_STREAM_EVERY; i++) {
		uint32_t seq = s->prod;
		bool breaks = i % 10 == 9; /* sequence, identification, or connection */

		spec.seq += spec.payload + (breaks && i % 3 == 0);
		id += 1 + (breaks && i % 3 == 1);
		spec.sport += breaks && i % 3 == 2;
		/* The last one of a message may be short, and says so. */
		spec.payload = i % 7 == 6 ? 100 : 1448;
		spec.tcp_flags = i % 7 == 6 ? T_ACK | T_PSH : T_ACK;
		len = frame_build(&spec, f);
		f[18] = (uint8_t)(id >> 8);
		f[19] = (uint8_t)id;
		frame_fix_ip_csum(f, 14);
		said[i] = check_redirect("in a row", f, len, &in_all, IN_STREAM);
		if (s->next[seq % GN_STREAM_SIZE].class == GN_NEXT_WHOLE) {
			whole++;
			assert_true(!i || breaks || seq % GN_STREAM_EVERY == 0);
		} else {
			assert_true(i && !breaks && seq % GN_STREAM_EVERY);
		}
	}
	for (uint32_t i = 0; i < 3 * GN_STREAM_EVERY; i++) {
		stream_seek(&r, s->prod - 3 * GN_STREAM_EVERY + i);
		for (uint32_t k = i; k < 3 * GN_STREAM_EVERY; k++) {
			const struct gn_meta *m = stream_next(&r);

			assert_memory_equal(m, &said[k], sizeof(*m));
		}
	}
	assert_true(whole > 3 * GN_STREAM_EVERY / 10);
	fixtures += 3 * GN_STREAM_EVERY;
}

/* A queue that the map has no stream for, and frames that are not ours. */
static void test_elsewhere(void **state)
{
	static uint8_t f[FRAME_MAX];
	unsigned int len = frame_build(&table[0].s, f);
	struct gn_stream before;

	nic_config(&nic, MAX_FRAME, GN_CONFIG_STREAM, secret);
	before = *nic.stream;
	run.queue = 1;
	check_redirect("another queue", f, len, &in_all, IN_FRONT);
	run.queue = 0;
	memcpy(f, mac_other, 6);
	check_pass("not ours", f, len, GN_CNT_PASS_OTHER);
	assert_memory_equal(&before, nic.stream, sizeof(before));
	fixtures += 2;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_records),	  cmocka_unit_test(test_same),
		cmocka_unit_test(test_full),	  cmocka_unit_test(test_gap),
		cmocka_unit_test(test_elsewhere), cmocka_unit_test(test_next),
	};

	return check_main("xdp stream", tests, sizeof(tests) / sizeof(tests[0]));
}
