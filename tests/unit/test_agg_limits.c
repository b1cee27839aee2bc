// SPDX-License-Identifier: BSD-2-Clause
/*
 * Aggregation at its limits: lengths, buffers, open chains, time, slots shared by two
 * flows, and pages that must not be touched.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "../../user/daemon/gso.h"
#include "story.h"

static struct story story;

static struct agg_conf plain(void)
{
	return (struct agg_conf){ .checksum = AGG_VERIFY, .max_held = STORY_CHUNKS };
}

static struct pkt_spec spec(unsigned int len)
{
	struct pkt_spec s;

	pkt_default(&s);
	s.len = len;
	s.payload = story_payload();
	return s;
}

/* The segment after @s. */
static void next(struct pkt_spec *s)
{
	s->seq += s->len;
	s->id++;
	s->payload = story_payload() + s->seq % 65521;
}

/* "FIRST...LAST" without gaps, appended to @to. */
static void say_run(char *to, int first, int last)
{
	size_t n = strlen(to);

	if (n)
		n += (size_t)sprintf(to + n, " ");
	for (; first <= last; first++)
		n += (size_t)sprintf(to + n, "%d", first);
}

/*
 * 65,535 bytes of IP are allowed, not one more: the last segment fits exactly, or is
 * a byte too long.
 */
static void test_ip_length(void **state)
{
	for (unsigned int i = 0; i < 8; i++) {
		bool v6 = i & 1, over = i & 2, udp = i & 4;
		uint32_t room = 65535 - (v6 ? 40 : 20) - (udp ? 8 : 20);
		struct pkt_spec s = spec(1400);
		struct agg_conf conf = plain();
		char want[1024] = "";
		int n = 0;

		s.ipv6 = v6;
		s.proto = udp ? 17 : 6;
		s.ntags = v6 + udp; /* tags are not part of it */
		story_begin(&story, over ? "a byte over" : "exactly full", &conf);
		for (; room >= 1400; room -= 1400, n++) {
			story_push(&story, &s, 0);
			next(&s);
		}
		s.len = room + over;
		story_push(&story, &s, 0);
		if (over) {
			say_run(want, 0, n - 1);
			say_run(want, n, n);
		} else {
			say_run(want, 0, n);
		}
		story_end(&story, want);
	}
}

/* Full segments only: the one that would pass the limit heads the next chain. */
static void test_ip_length_full(void **state)
{
	const int fit = (65535 - 40) / 1400;
	struct pkt_spec s = spec(1400);
	struct agg_conf conf = plain();
	char want[1024] = "";

	story_begin(&story, "full segments", &conf);
	for (int i = 0; i < 2 * fit + 1; i++) {
		story_push(&story, &s, 0);
		next(&s);
	}
	say_run(want, 0, fit - 1);
	say_run(want, fit, 2 * fit - 1);
	say_run(want, 2 * fit, 2 * fit);
	story_end(&story, want);
}

/* 64 datagrams are the most a kernel need take, with a short one at the end or without. */
static void test_max_udp(void **state)
{
	for (int last = 0; last < 2; last++) {
		struct pkt_spec s = spec(100);
		struct agg_conf conf = plain();
		char want[1024] = "";

		s.proto = 17;
		story_begin(&story, last ? "a short one" : "full ones", &conf);
		for (int i = 0; i < 130; i++) {
			s.len = i == 63 && last ? 99 : 100;
			story_push(&story, &s, 0);
			next(&s);
		}
		say_run(want, 0, 63);
		say_run(want, 64, 127);
		say_run(want, 128, 129);
		story_end(&story, want);
	}
}

static void test_max_bufs(void **state)
{
	struct pkt_spec s = spec(100);
	struct agg_conf conf = plain();
	char want[2048] = "";

	story_begin(&story, "small segments", &conf);
	for (int i = 0; i < 2 * AGG_MAX_BUFS + 3; i++) {
		story_push(&story, &s, 0);
		next(&s);
	}
	say_run(want, 0, AGG_MAX_BUFS - 1);
	say_run(want, AGG_MAX_BUFS, 2 * AGG_MAX_BUFS - 1);
	say_run(want, 2 * AGG_MAX_BUFS, 2 * AGG_MAX_BUFS + 2);
	story_end(&story, want);

	/* Three buffers each: the header's, then two of payload. */
	story_begin(&story, "several buffers a segment", &conf);
	s = spec(300);
	want[0] = 0;
	for (int i = 0; i < AGG_MAX_BUFS; i++) {
		story.first = 54 + 50;
		story.rest = 125;
		story_push(&story, &s, 0);
		next(&s);
	}
	for (int i = 0, per = AGG_MAX_BUFS / 3; i < AGG_MAX_BUFS; i += per)
		say_run(want, i, i + per > AGG_MAX_BUFS ? AGG_MAX_BUFS - 1 : i + per - 1);
	story_end(&story, want);
}

/* Buffers without anything that counts go back at once. */
static void test_useless_buffers(void **state)
{
	struct pkt_spec s = spec(200);
	struct agg_conf conf = plain();

	story_begin(&story, "headers alone in a buffer", &conf);
	for (int i = 0; i < 3; i++) {
		story.first = 54; /* nothing of the payload */
		story.rest = 150;
		story_push(&story, &s, 0);
		next(&s);
	}
	/* Head: 3 buffers; the others lose their first. */
	assert_int_equal(story.rig.agg.held, 3 + 2 + 2);
	assert_int_equal(story.rig.pool.nfree, STORY_CHUNKS - 7);
	story_end(&story, "012");

	story_begin(&story, "padding alone in buffers", &conf);
	s = spec(200);
	s.pad = 500;
	for (int i = 0; i < 3; i++) {
		story.first = 254;
		story.rest = 100;
		story_push(&story, &s, 0);
		next(&s);
	}
	assert_int_equal(story.rig.agg.held, 3);
	assert_int_equal(story.rig.pool.nfree, STORY_CHUNKS - 3);
	story_end(&story, "012");

	story_begin(&story, "padding shares a buffer", &conf);
	s = spec(201);
	s.pad = 500;
	for (int i = 0; i < 3; i++) {
		story.first = 255 + (uint32_t)i;
		story.rest = 100;
		story_push(&story, &s, 0);
		next(&s);
	}
	assert_int_equal(story.rig.agg.held, 3);
	story_end(&story, "012");
}

/* Jumbo segments in buffers of a page, cut at every parity. */
static void test_jumbo(void **state)
{
	struct agg_conf conf = plain();

	for (unsigned int i = 0; i < 16; i++) {
		struct pkt_spec s = spec(8948 - (i & 1));

		conf.checksum = i & 8 ? AGG_CARRY : AGG_VERIFY;
		s.ntags = i & 4 ? 1 : 0;
		story_begin(&story, "jumbo", &conf);
		for (int k = 0; k < 7; k++) {
			story.first = i & 2 ? 3001 : 0;
			story.rest = i & 2 ? 1777 : 0;
			story_push(&story, &s, 0);
			next(&s);
		}
		story_end(&story, "0123456");
	}

	/* A flipped bit in any buffer is found. */
	conf.checksum = AGG_VERIFY;
	for (uint32_t bit = 0; bit < 8900 * 8; bit += 4001) {
		struct pkt_spec s = spec(8900);

		story_begin(&story, "jumbo, corrupt", &conf);
		story_push(&story, &s, 0);
		next(&s);
		s.csum = PKT_CSUM_BAD;
		s.bad_bit = bit;
		story.first = 1001;
		story.rest = 999;
		story_push(&story, &s, 0);
		story_end(&story, "0 1");
		assert_int_equal(story.rig.agg.stats.bad_csum, 1);
	}
}

/* Instances that share addresses and ports share nothing else. */
static void test_instances(void **state)
{
	struct pkt_spec s = spec(500);
	struct agg_conf conf = plain();

	story_begin(&story, "two instances", &conf);
	for (int i = 0; i < 3; i++) {
		story_push(&story, &s, 0);
		story.instance = STORY_INSTANCE + 1;
		story_push(&story, &s, 0);
		next(&s);
	}
	story_end(&story, "024 135");
}

/*
 * Two flows with the same identifier: what a hostile sender could achieve, or
 * chance. Each is delivered right and in order; they cost each other merges.
 */
static void test_same_identifier(void **state)
{
	struct pkt_spec a = spec(500), b = spec(500), c = spec(500);
	struct agg_conf conf = plain();

	b.sport++;
	c.proto = 17;
	story_begin(&story, "equal flow, other key", &conf);
	for (int i = 0; i < 3; i++) {
		story.flow = 0x1234567;
		story_push(&story, &a, 0);
		story.flow = 0x1234567;
		story_push(&story, &b, 0);
		next(&a);
		next(&b);
	}
	story_end(&story, "0 1 2 3 4 5");

	story_begin(&story, "equal flow, in runs", &conf);
	for (int i = 0; i < 9; i++) {
		struct pkt_spec *s = i < 3 ? &a : i < 6 ? &b : &c;

		story.flow = 0x1234567;
		story_push(&story, s, 0);
		next(s);
	}
	story_end(&story, "012 345 678");
}

/* Two flows in one slot: one that opens a chain evicts, one that does not leaves it. */
static void test_same_slot(void **state)
{
	struct pkt_spec a = spec(500), b = spec(500);
	struct agg_conf conf = plain();

	b.dport++;
	story_begin(&story, "one slot", &conf);
	for (int i = 0; i < 4; i++) {
		story.flow = 0x1000;
		story_push(&story, &a, 0);
		story.flow = 0x1000 + AGG_SLOTS;
		story_push(&story, &b, 0);
		next(&a);
		next(&b);
	}
	story_end(&story, "0 1 2 3 4 5 6 7");
	assert_int_equal(story.rig.agg.stats.evicted, 7);

	story_begin(&story, "one slot, nothing to hold", &conf);
	b.len = 0;
	for (int i = 0; i < 3; i++) {
		story.flow = 0x1000;
		story_push(&story, &a, 0);
		story.flow = 0x1000 + AGG_SLOTS;
		story_push(&story, &b, 0);
		next(&a);
	}
	story_end(&story, "1 3 5 024");
	assert_int_equal(story.rig.agg.stats.evicted, 0);
}

/* As many flows as chains may be open, and more: the oldest leaves. */
static void test_max_open(void **state)
{
	struct agg_conf conf = plain();
	struct pkt_spec s = spec(64);
	char want[STORY_TEXT] = "";

	story_begin(&story, "many flows", &conf);
	for (int i = 0; i < AGG_MAX_OPEN; i++) {
		s.sport = (uint16_t)(1000 + i);
		story.flow = (uint32_t)i + 1;
		story_push(&story, &s, 0);
	}
	assert_int_equal(story.rig.out.n, 0);
	for (int i = 0; i < 100; i++) {
		s.sport = (uint16_t)(1000 + AGG_MAX_OPEN + i);
		story.flow = (uint32_t)(AGG_MAX_OPEN + i) + 1;
		story_push(&story, &s, 0);
		assert_int_equal(story.rig.out.n, i + 1);
	}
	assert_int_equal(story.rig.agg.stats.starved, 100);
	for (int i = 0; i < AGG_MAX_OPEN + 100; i++)
		say_run(want, i, i);
	story_end(&story, want);

	/* Chains that closed early leave holes: those are used first. */
	story_begin(&story, "many short flows", &conf);
	want[0] = 0;
	for (int i = 0; i < 1500; i++) {
		s = spec(64);
		s.sport = (uint16_t)(1000 + i);
		story.flow = (uint32_t)i + 1;
		story_push(&story, &s, 0);
		next(&s);
		s.flags |= PKT_PSH;
		story.flow = (uint32_t)i + 1;
		story_push(&story, &s, 0);
		assert_int_equal(story.rig.out.n, i + 1);
		say_run(want, 2 * i, 2 * i + 1);
	}
	assert_int_equal(story.rig.agg.stats.starved, 0);
	story_end(&story, want);
}

/* Held buffers stay within their limit, the oldest chain leaves first. */
static void test_max_held(void **state)
{
	struct agg_conf conf = plain();
	struct pkt_spec s[10];

	conf.max_held = 20;
	story_begin(&story, "starved", &conf);
	for (int i = 0; i < 10; i++) {
		s[i] = spec(300);
		s[i].sport = (uint16_t)(7 + i);
	}
	for (int i = 0; i < 30; i++) {
		story.flow = (uint32_t)(i % 10) + 1;
		story_push(&story, &s[i % 10], 0);
		next(&s[i % 10]);
		assert_in_range(story.rig.agg.held, 1, 20);
		assert_int_equal(story.rig.pool.nfree, STORY_CHUNKS - i - 1);
	}
	/* Packet 20 is the 21st: chain 0 leaves with 3 segments, and so on. */
	assert_true(story.rig.out.n >= 1);
	story_settle(&story);
	assert_memory_equal(story.text, "01020", 5);
	assert_true(story.rig.agg.stats.starved > 0);
	rig_flush(&story.rig, UINT64_MAX);
	story_settle(&story);
	assert_null(rig_account(&story.rig));

	/* A packet larger than the limit goes straight through. */
	conf.max_held = 2;
	story_begin(&story, "starved by one", &conf);
	s[0] = spec(900);
	story.first = 100;
	story.rest = 100;
	story_push(&story, &s[0], 0);
	assert_int_equal(story.rig.agg.held, 0);
	assert_int_equal(story.rig.out.n, 1);
	story_end(&story, "0");
}

/* A chain waits for hold_ns from its opening; agg_deadline() says until when. */
static void test_hold(void **state)
{
	struct pkt_spec a = spec(500), b = spec(500);
	struct agg_conf conf = plain();

	conf.hold_ns = 1000;
	b.sport = 9;
	story_begin(&story, "hold", &conf);
	assert_int_equal(agg_deadline(&story.rig.agg), UINT64_MAX);
	story_push(&story, &a, 5000);
	assert_int_equal(agg_deadline(&story.rig.agg), 6000);
	rig_flush(&story.rig, 5000);
	next(&a);
	story_push(&story, &b, 5400);
	rig_flush(&story.rig, 5400);
	story_push(&story, &a, 5500); /* joins; the deadline stays */
	assert_int_equal(agg_deadline(&story.rig.agg), 6000);
	rig_flush(&story.rig, 5999);
	assert_int_equal(story.rig.out.n, 0);
	rig_flush(&story.rig, 6000);
	assert_string_equal(story_settle(&story), "02");
	assert_int_equal(agg_deadline(&story.rig.agg), 6400);
	next(&b);
	story_push(&story, &b, 6399);
	next(&a);
	story_push(&story, &a, 6399);
	rig_flush(&story.rig, 6399);
	assert_int_equal(story.rig.out.n, 0);
	rig_flush(&story.rig, 7000);
	assert_string_equal(story_settle(&story), "13");
	assert_int_equal(agg_deadline(&story.rig.agg), 7399);
	/* A chain that closes early takes its deadline along. */
	next(&a);
	a.flags |= PKT_PSH;
	story_push(&story, &a, 7100);
	assert_int_equal(agg_deadline(&story.rig.agg), UINT64_MAX);
	story_end(&story, "45");

	conf.hold_ns = 0;
	story_begin(&story, "end of burst", &conf);
	story_push(&story, &b, 10);
	assert_int_equal(agg_deadline(&story.rig.agg), 10);
	rig_flush(&story.rig, 10);
	story_end(&story, "0");
}

/* agg_flush() into less room than there are chains goes on where it stopped. */
static void test_flush_in_parts(void **state)
{
	struct rig *r = &story.rig;
	struct agg_conf conf = plain();
	struct pkt_spec s = spec(100);
	struct mbuf *two[2];
	int parts = 0;

	story_begin(&story, "in parts", &conf);
	for (int i = 0; i < 7; i++) {
		s.sport = (uint16_t)(50 + i);
		story.flow = (uint32_t)i + 1;
		story_push(&story, &s, 0);
	}
	for (bool done = false; !done; parts++) {
		struct agg_out out = { .head = two, .max = 2 };

		done = agg_flush(&r->agg, 0, &out);
		assert_in_range(out.n, parts < 3 ? 2 : 1, 2);
		for (uint32_t i = 0; i < out.n; i++)
			r->head[r->out.n++] = two[i];
	}
	assert_int_equal(parts, 4);
	story_end(&story, "0 1 2 3 4 5 6");
}

/*
 * carry: of a segment that joins, no byte is read or written. Its page is away from
 * before agg_push() until gso_finish() is through. The oracle, which reads
 * everything, then starts over from the saved headers and must get the same ones.
 */
static void test_carry_touches_nothing(void **state)
{
	struct rig *r = &story.rig;
	struct agg_conf conf = plain();
	struct pkt_spec s = spec(1000);
	uint8_t before[54], after[54];
	struct virtio_net_hdr_v1 vh;
	char want[256] = "";
	struct mbuf *head;

	conf.checksum = AGG_CARRY;
	story_begin(&story, "pages away", &conf);
	for (int i = 0; i < 40; i++) {
		struct mbuf *m;

		s.len = i == 39 ? 777 : 1000;
		m = story_mbuf(&story, &s);
		next(&s);
		if (i)
			assert_int_equal(
				mprotect(r->mem + (size_t)mbuf_index(&r->pool, m) *
							  RIG_CHUNK,
					 RIG_CHUNK, PROT_NONE),
				0);
		rig_push(r, m, 0);
	}
	rig_flush(r, UINT64_MAX);
	assert_int_equal(r->out.n, 1);
	head = r->out.head[0];
	memcpy(before, mbuf_data(&r->pool, head), sizeof(before));
	gso_finish(&r->pool, head, &vh);
	memcpy(after, mbuf_data(&r->pool, head), sizeof(after));
	memcpy(mbuf_data(&r->pool, head), before, sizeof(before));
	assert_int_equal(mprotect(r->mem, r->size, PROT_READ | PROT_WRITE), 0);
	say_run(want, 0, 39);
	assert_string_equal(story_settle(&story), want);
	/* Freed, not yet reused. */
	assert_memory_equal(mbuf_data(&r->pool, head), after, sizeof(after));
	story_end(&story, "");
}

static int setup(void **state)
{
	story_init(&story);
	return 0;
}

static int teardown(void **state)
{
	story_fini(&story);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ip_length),
		cmocka_unit_test(test_ip_length_full),
		cmocka_unit_test(test_max_udp),
		cmocka_unit_test(test_max_bufs),
		cmocka_unit_test(test_useless_buffers),
		cmocka_unit_test(test_jumbo),
		cmocka_unit_test(test_instances),
		cmocka_unit_test(test_same_identifier),
		cmocka_unit_test(test_same_slot),
		cmocka_unit_test(test_max_open),
		cmocka_unit_test(test_max_held),
		cmocka_unit_test(test_hold),
		cmocka_unit_test(test_flush_in_parts),
		cmocka_unit_test(test_carry_touches_nothing),
	};

	int failed = cmocka_run_group_tests_name("agg limits", tests, setup, teardown);

	rig_in_runs = true;
	return failed +
	       cmocka_run_group_tests_name("agg limits, in runs", tests, setup, teardown);
}
