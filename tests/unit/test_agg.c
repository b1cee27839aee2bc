// SPDX-License-Identifier: BSD-2-Clause
/*
 * Aggregation, rule by rule: packets in, chains out, and what gso_finish() makes of
 * them (checked byte for byte by the oracle).
 *
 * A case is a list of segments of one flow, each described by how it differs from the
 * one that would merge, and the expected chains: "01 2" is packets 0 and 1
 * in one chain, packet 2 in the next, in the order in which they leave.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "story.h"

static struct story story;

/* How a segment differs from its predecessor. */
enum tweak {
	SAME,
	ACK,
	WINDOW,
	ECE,
	NO_ACK,
	URG_POINTER,
	RESERVED,
	OPT_BYTE,
	OPT_LEN,
	TOS,
	ECN,
	TTL,
	DF,
	LABEL,
	EXT_BYTE,
	EXT_LEN,
	IP_OPT,
	FRAGMENT,
	BAD_IP,
	SRC_MAC,
	DST_MAC,
	TCI,
	NO_TAG,
	OTHER_INSTANCE,
};

struct seg {
	unsigned int len; /* bytes of payload; 0 with .none: no payload */
	bool none;
	uint16_t flags;	  /* beside ACK */
	enum tweak tweak; /* this segment only */
	int gap;	  /* added to the sequence number expected */
	int id;		  /* added to the identification expected (one more) */
	enum pkt_csum csum;
	unsigned int pad;
};

#define F_V6	1U
#define F_UDP	2U
#define F_TAG	4U
#define F_TAGS2 8U
#define F_OPT	16U /* 12 bytes of TCP options */
#define F_EXT	32U
#define F_CARRY 64U
#define F_TRUST 128U

struct agg_case {
	const char *name;
	const char *want;
	unsigned int base;
	struct seg s[6];
	uint64_t bad_csum; /* expected count */
};

#define L 1000 /* the usual payload */

/* What a row leaves out is 0. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
static const struct agg_case cases[] = {
	/* 1: contiguous, and the same in all that matters */
	{ "contiguous", "012", 0, { { L }, { L }, { L } } },
	{ "contiguous, options", "012", F_OPT, { { L }, { L }, { L } } },
	{ "contiguous, IPv6", "012", F_V6, { { L }, { L }, { L } } },
	{ "contiguous, odd size", "012", 0, { { 999 }, { 999 }, { 3 } } },
	{ "contiguous, carried", "012", F_CARRY, { { L }, { L }, { L } } },
	{ "contiguous, carried, odd size",
	  "0123",
	  F_CARRY,
	  { { 999 }, { 999 }, { 999 }, { 7 } } },
	{ "contiguous, carried, odd size, IPv6",
	  "0123",
	  F_CARRY | F_V6,
	  { { 1 }, { 1 }, { 1 }, { 1 } } },
	{ "one byte each", "0123", 0, { { 1 }, { 1 }, { 1 }, { 1 } } },
	{ "gap", "0 12", 0, { { L }, { L, .gap = 1 }, { L } } },
	{ "overlap", "0 12", 0, { { L }, { L, .gap = -1 }, { L } } },
	{ "duplicate", "0 12", 0, { { L }, { L, .gap = -L }, { L } } },
	{ "other ack", "0 1 2", 0, { { L }, { L, .tweak = ACK }, { L } } },
	{ "other window", "0 1 2", 0, { { L }, { L, .tweak = WINDOW }, { L } } },
	{ "ECE differs", "0 1 2", 0, { { L }, { L, .tweak = ECE }, { L } } },
	{ "ACK flag differs", "0 1 2", 0, { { L }, { L, .tweak = NO_ACK }, { L } } },
	{ "reserved flag differs",
	  "0 1 2",
	  0,
	  { { L }, { L, .tweak = RESERVED }, { L } } },
	{ "urgent pointer differs",
	  "0 1 2",
	  0,
	  { { L }, { L, .tweak = URG_POINTER }, { L } } },
	{ "option byte differs",
	  "0 1 2",
	  F_OPT,
	  { { L }, { L, .tweak = OPT_BYTE }, { L } } },
	{ "option length differs",
	  "0 1 2",
	  F_OPT,
	  { { L }, { L, .tweak = OPT_LEN }, { L } } },
	{ "CWR starts", "012", 0, { { L, .flags = PKT_CWR }, { L }, { L } } },
	{ "CWR starts, IPv6", "01", F_V6, { { L, .flags = PKT_CWR }, { L } } },
	{ "CWR never joins", "0 12", 0, { { L }, { L, .flags = PKT_CWR }, { L } } },
	{ "CWR never joins CWR",
	  "0 12",
	  0,
	  { { L, .flags = PKT_CWR }, { L, .flags = PKT_CWR }, { L } } },
	{ "CWR with PSH",
	  "0 1 2",
	  0,
	  { { L }, { L, .flags = PKT_CWR | PKT_PSH }, { L } } },

	/* 2: sizes */
	{ "larger than the first", "0 12", 0, { { L }, { L + 1 }, { L + 1 } } },
	{ "shorter closes", "01 2", 0, { { L }, { L - 1 }, { 10 } } },
	{ "shorter closes, equal again", "01 23", 0, { { L }, { 10 }, { L }, { L } } },
	{ "shorter closes, carried", "01 2", F_CARRY, { { L }, { 11 }, { 10 } } },
	{ "pure ACK", "01 2 34", 0, { { L }, { L }, { .none = true }, { L }, { L } } },
	{ "pure ACK, carried", "0 1 2", F_CARRY, { { L }, { .none = true }, { L } } },
	{ "pure ACKs only", "0 1", 0, { { .none = true }, { .none = true } } },

	/* 3: flags */
	{ "PSH joins, then ends", "01 2", 0, { { L }, { L, .flags = PKT_PSH }, { L } } },
	{ "PSH ends, carried",
	  "012 3",
	  F_CARRY,
	  { { L }, { L }, { 333, .flags = PKT_PSH }, { L } } },
	{ "FIN joins, then ends", "01 2", 0, { { L }, { L, .flags = PKT_FIN }, { L } } },
	{ "PSH and FIN, ORed",
	  "012",
	  F_V6,
	  { { L }, { L }, { 9, .flags = PKT_PSH | PKT_FIN } } },
	{ "PSH first", "0 12", 0, { { L, .flags = PKT_PSH }, { L }, { L } } },
	{ "PSH each",
	  "0 1 2",
	  0,
	  { { L, .flags = PKT_PSH }, { L, .flags = PKT_PSH }, { L, .flags = PKT_PSH } } },
	{ "PSH behind a gap",
	  "0 1 2",
	  0,
	  { { L }, { L, .flags = PKT_PSH, .gap = 5 }, { L } } },
	{ "CWR, PSH joins",
	  "01",
	  0,
	  { { L, .flags = PKT_CWR }, { L, .flags = PKT_PSH } } },
	{ "FIN without payload",
	  "0 1",
	  0,
	  { { L }, { .none = true, .flags = PKT_FIN } } },
	{ "SYN", "01 2 3", 0, { { L }, { L }, { L, .flags = PKT_SYN }, { L } } },
	{ "SYN without payload",
	  "0 1",
	  0,
	  { { L }, { .none = true, .flags = PKT_SYN } } },
	{ "RST", "01 2", 0, { { L }, { L }, { .none = true, .flags = PKT_RST } } },
	{ "RST with payload", "0 1 2", 0, { { L }, { L, .flags = PKT_RST }, { L } } },
	{ "URG", "01 2 34", 0, { { L }, { L }, { L, .flags = PKT_URG }, { L }, { L } } },
	{ "URG, carried", "0 1 2", F_CARRY, { { L }, { L, .flags = PKT_URG }, { L } } },

	/* 4: IP */
	{ "TOS differs", "0 1 2", 0, { { L }, { L, .tweak = TOS }, { L } } },
	{ "ECN differs", "0 1 2", 0, { { L }, { L, .tweak = ECN }, { L } } },
	{ "TTL differs", "0 1 2", 0, { { L }, { L, .tweak = TTL }, { L } } },
	{ "DF differs", "0 1 2", 0, { { L }, { L, .tweak = DF }, { L } } },
	{ "traffic class differs", "0 1 2", F_V6, { { L }, { L, .tweak = TOS }, { L } } },
	{ "ECN differs, IPv6", "0 1 2", F_V6, { { L }, { L, .tweak = ECN }, { L } } },
	{ "hop limit differs", "0 1 2", F_V6, { { L }, { L, .tweak = TTL }, { L } } },
	{ "flow label differs", "0 1 2", F_V6, { { L }, { L, .tweak = LABEL }, { L } } },
	{ "extension header", "012", F_V6 | F_EXT, { { L }, { L }, { 5 } } },
	{ "extension header differs",
	  "0 1 2",
	  F_V6 | F_EXT,
	  { { L }, { L, .tweak = EXT_BYTE }, { L } } },
	{ "extension header longer",
	  "0 1 2",
	  F_V6 | F_EXT,
	  { { L }, { L, .tweak = EXT_LEN }, { L } } },
	{ "IPv4 options", "0 1 2", 0, { { L }, { L, .tweak = IP_OPT }, { L } } },
	{ "first fragment", "0 1 2", 0, { { L }, { L, .tweak = FRAGMENT }, { L } } },
	{ "first fragment, IPv6",
	  "0 1 2",
	  F_V6,
	  { { L }, { L, .tweak = FRAGMENT }, { L } } },
	{ "id increments", "0123", 0, { { L }, { L }, { L }, { L } } },
	{ "id fixed",
	  "0123",
	  0,
	  { { L }, { L, .id = -1 }, { L, .id = -1 }, { L, .id = -1 } } },
	{ "id jumps", "0 12", 0, { { L }, { L, .id = 1 }, { L } } },
	{ "id goes back", "0 12", 0, { { L }, { L, .id = -2 }, { L } } },
	{ "id increments, then fixed",
	  "01 23",
	  0,
	  { { L }, { L }, { L, .id = -1 }, { L, .id = -1 } } },
	{ "id fixed, then increments",
	  "01 23",
	  0,
	  { { L }, { L, .id = -1 }, { L }, { L } } },
	{ "id wraps", "0123", 0, { { L, .id = 64534 }, { L }, { L }, { L } } },
	{ "id fixed at 0",
	  "012",
	  0,
	  { { L, .id = -1001 }, { L, .id = -1 }, { L, .id = -1 } } },

	/* 5: link */
	{ "source MAC differs", "0 1 2", 0, { { L }, { L, .tweak = SRC_MAC }, { L } } },
	{ "destination MAC differs",
	  "0 1 2",
	  0,
	  { { L }, { L, .tweak = DST_MAC }, { L } } },
	{ "VLAN", "012", F_TAG, { { L }, { L }, { 77 } } },
	{ "VLAN, IPv6, carried",
	  "012",
	  F_TAG | F_V6 | F_CARRY,
	  { { L }, { L }, { 77 } } },
	{ "two tags", "012", F_TAGS2, { { L }, { L }, { 77 } } },
	{ "two tags, IPv6", "012", F_TAGS2 | F_V6, { { L }, { L }, { 77 } } },
	{ "VLAN priority differs",
	  "0 1 2",
	  F_TAG,
	  { { L }, { L, .tweak = TCI }, { L } } },
	{ "tag missing", "0 1 2", F_TAG, { { L }, { L, .tweak = NO_TAG }, { L } } },

	/* 7: nothing unverified */
	{ "bad checksum in the middle",
	  "01 2 34",
	  0,
	  { { L }, { L }, { L, .csum = PKT_CSUM_BAD }, { L }, { L } },
	  1 },
	{ "bad checksum, IPv6",
	  "0 1 2",
	  F_V6,
	  { { L }, { L, .csum = PKT_CSUM_BAD }, { L } },
	  1 },
	{ "bad checksum first",
	  "0 12",
	  0,
	  { { L, .csum = PKT_CSUM_BAD }, { L }, { L } },
	  1 },
	{ "bad checksum, PSH",
	  "01 2 3",
	  0,
	  { { L }, { L }, { L, .csum = PKT_CSUM_BAD, .flags = PKT_PSH }, { L } },
	  1 },
	{ "bad checksum, short",
	  "0 1 2",
	  0,
	  { { L }, { 1, .csum = PKT_CSUM_BAD }, { L } },
	  1 },
	{ "bad checksum, alone",
	  "0 1",
	  0,
	  { { L, .csum = PKT_CSUM_BAD }, { .none = true, .csum = PKT_CSUM_BAD } } },
	{ "bad checksum, carried",
	  "012",
	  F_CARRY,
	  { { L }, { L, .csum = PKT_CSUM_BAD }, { L } } },
	{ "bad checksum first, carried",
	  "012",
	  F_CARRY,
	  { { 999, .csum = PKT_CSUM_BAD }, { 999 }, { 999 } } },
	{ "bad checksum last, carried",
	  "012",
	  F_CARRY | F_V6,
	  { { 999 }, { 999 }, { 3, .csum = PKT_CSUM_BAD } } },
	{ "bad IP checksum",
	  "0 1",
	  0,
	  { { L, .tweak = BAD_IP }, { L, .tweak = BAD_IP } } },

	/* 7, 14: the partial checksum of a local sender */
	{ "partial, trusted",
	  "012",
	  F_TRUST,
	  { { L, .csum = PKT_CSUM_PARTIAL },
	    { L, .csum = PKT_CSUM_PARTIAL },
	    { 9, .csum = PKT_CSUM_PARTIAL } } },
	{ "partial, trusted, IPv6, carry",
	  "012",
	  F_TRUST | F_V6 | F_CARRY,
	  { { L, .csum = PKT_CSUM_PARTIAL },
	    { L, .csum = PKT_CSUM_PARTIAL },
	    { 9, .csum = PKT_CSUM_PARTIAL } } },
	{ "partial, trusted, alone",
	  "0 1",
	  F_TRUST,
	  { { .none = true, .csum = PKT_CSUM_PARTIAL },
	    { .none = true, .flags = PKT_SYN, .csum = PKT_CSUM_PARTIAL } } },
	{ "partial, trusted, alone, padded",
	  "0 1",
	  F_TRUST,
	  { { .none = true, .csum = PKT_CSUM_PARTIAL, .pad = 6 },
	    { 1, .flags = PKT_PSH, .csum = PKT_CSUM_PARTIAL, .pad = 300 } } },
	{ "partial, not trusted",
	  "0 1 2",
	  0,
	  { { L, .csum = PKT_CSUM_PARTIAL },
	    { L, .csum = PKT_CSUM_PARTIAL },
	    { L, .csum = PKT_CSUM_PARTIAL } },
	  2 },
	{ "partial, not trusted, carried",
	  "012",
	  F_CARRY,
	  { { L, .csum = PKT_CSUM_PARTIAL },
	    { L, .csum = PKT_CSUM_PARTIAL },
	    { L, .csum = PKT_CSUM_PARTIAL } } },
	{ "partial and complete, trusted",
	  "01 2 34",
	  F_TRUST,
	  { { L }, { L }, { L, .csum = PKT_CSUM_PARTIAL }, { L }, { L } } },
	{ "partial and carried",
	  "01 2 34",
	  F_TRUST | F_CARRY,
	  { { L }, { L }, { L, .csum = PKT_CSUM_PARTIAL }, { L }, { L } } },

	/* UDP */
	{ "UDP", "012", F_UDP, { { L }, { L }, { L } } },
	{ "UDP, IPv6", "012", F_UDP | F_V6, { { 999 }, { 999 }, { 2 } } },
	{ "UDP, VLAN", "01", F_UDP | F_TAG, { { L }, { L } } },
	{ "UDP, shorter closes", "01 2", F_UDP, { { L }, { 9 }, { 9 } } },
	{ "UDP, larger", "0 12", F_UDP, { { 9 }, { L }, { L } } },
	{ "UDP, empty", "0 1 2", F_UDP, { { L }, { .none = true }, { L } } },
	{ "UDP, no checksum",
	  "0 1 2",
	  F_UDP,
	  { { L, .csum = PKT_CSUM_NONE },
	    { L, .csum = PKT_CSUM_NONE },
	    { L, .csum = PKT_CSUM_NONE } } },
	{ "UDP, no checksum in between",
	  "01 2 34",
	  F_UDP,
	  { { L }, { L }, { L, .csum = PKT_CSUM_NONE }, { L }, { L } } },
	{ "UDP, no checksum, IPv6",
	  "0 1 2",
	  F_UDP | F_V6,
	  { { L }, { L, .csum = PKT_CSUM_NONE }, { L } } },
	{ "UDP, bad checksum",
	  "01 2 3",
	  F_UDP,
	  { { L }, { L }, { L, .csum = PKT_CSUM_BAD }, { L } },
	  1 },
	{ "UDP, partial, trusted",
	  "012",
	  F_UDP | F_TRUST,
	  { { L, .csum = PKT_CSUM_PARTIAL },
	    { L, .csum = PKT_CSUM_PARTIAL },
	    { 9, .csum = PKT_CSUM_PARTIAL } } },
	{ "UDP, partial, trusted, carry",
	  "01",
	  F_UDP | F_TRUST | F_CARRY | F_V6,
	  { { L, .csum = PKT_CSUM_PARTIAL }, { L, .csum = PKT_CSUM_PARTIAL } } },
	/* A UDP super-packet needs NEEDS_CSUM, which a carried sum cannot give. */
	{ "UDP, carried", "0 1 2", F_UDP | F_CARRY, { { L }, { L }, { L } } },
	{ "UDP, id fixed", "012", F_UDP, { { L }, { L, .id = -1 }, { L, .id = -1 } } },
	{ "UDP, TTL differs", "0 1 2", F_UDP, { { L }, { L, .tweak = TTL }, { L } } },

	/* 10, 15: Ethernet padding is no payload */
	{ "padding", "012", 0, { { 1, .pad = 5 }, { 1, .pad = 5 }, { 1, .pad = 5 } } },
	{ "padding, head only", "01", 0, { { 2, .pad = 4 }, { 2 } } },
	{ "padding, carried",
	  "012",
	  F_CARRY,
	  { { 3, .pad = 3 }, { 3, .pad = 3 }, { 1, .pad = 5 } } },
	{ "padding, UDP", "01", F_UDP, { { 1, .pad = 17 }, { 1, .pad = 17 } } },
	{ "padding on a pure ACK",
	  "0 1 2",
	  0,
	  { { L }, { .none = true, .pad = 6 }, { L } } },
	{ "padding larger than the head",
	  "012",
	  0,
	  { { 20 }, { 20, .pad = 200 }, { 20, .pad = 1 } } },
};

static void tweak(struct pkt_spec *s, enum tweak t, uint16_t *instance)
{
	switch (t) {
	case SAME: break;
	case ACK: s->ack++; break;
	case WINDOW: s->window++; break;
	case ECE: s->flags ^= PKT_ECE; break;
	case NO_ACK: s->flags ^= PKT_ACK; break;
	case URG_POINTER: s->urg = 1; break;
	case RESERVED: s->flags ^= 0x100; break;
	case OPT_BYTE: s->opt[s->opt_len - 1] ^= 1; break;
	case OPT_LEN: s->opt_len += 4; break;
	case TOS: s->tos ^= 0x10; break;
	case ECN: s->tos ^= 1; break;
	case TTL: s->ttl--; break;
	case DF: s->df = !s->df; break;
	case LABEL: s->label ^= 0x80000; break;
	case EXT_BYTE: s->ext_fill ^= 1; break;
	case EXT_LEN: s->ext += 8; break;
	case IP_OPT: s->ip_opt = 4; break;
	case FRAGMENT:
		s->frag6 = s->ipv6;
		s->frag = s->ipv6 ? 0 : 0x2000;
		break;
	case BAD_IP: s->bad_ip_csum = true; break;
	case SRC_MAC: s->src[5] ^= 1; break;
	case DST_MAC: s->dst[5] ^= 4; break;
	case TCI: s->tci[0] ^= 0x2000; break;
	case NO_TAG: s->ntags = 0; break;
	case OTHER_INSTANCE: *instance = STORY_INSTANCE + 1; break;
	}
}

static void base_spec(struct pkt_spec *s, unsigned int base)
{
	pkt_default(s);
	s->ipv6 = base & F_V6;
	if (base & F_UDP)
		s->proto = 17;
	s->ntags = base & F_TAGS2 ? 2 : base & F_TAG ? 1 : 0;
	s->tci[0] = 0x6007;
	s->tci[1] = 0x0123;
	s->ext = base & F_EXT ? 8 : 0;
	s->ext_fill = 3;
	if (base & F_OPT) {
		s->opt_len = 12;
		memcpy(s->opt, "\1\1\x8\xa\0\1\2\3\4\5\6\7", 12);
	}
}

/* Is packet @i the first of its chain? */
static bool heads(const char *want, int i)
{
	const char *at = strchr(want, '0' + i);

	return at == want || at[-1] == ' ';
}

/* @poison: overwrite the header bytes of every segment that heads no chain. */
static void run_case(const struct agg_case *c, bool poison, uint32_t first, uint32_t rest)
{
	struct agg_conf conf = {
		.checksum = c->base & F_CARRY ? AGG_CARRY : AGG_VERIFY,
		.trust_partial = c->base & F_TRUST,
		.max_held = STORY_CHUNKS,
	};
	uint32_t seq = 0xfffff000; /* wraps on the way */
	uint16_t id = 1000;
	struct pkt_spec base;
	int n = 0;

	story_begin(&story, c->name, &conf);
	base_spec(&base, c->base);
	for (; n < 6 && (c->s[n].len || c->s[n].none); n++) {
		const struct seg *g = &c->s[n];
		struct pkt_spec s = base;

		id = (uint16_t)(id + (n ? 1 : 0) + g->id);
		seq += (uint32_t)g->gap;
		s.len = g->len;
		s.payload = story_payload() + n * 131;
		s.seq = seq;
		s.id = id;
		s.flags |= g->flags;
		s.csum = g->csum;
		s.bad_bit = 12345;
		s.pad = g->pad;
		tweak(&s, g->tweak, &story.instance);
		seq += s.len;
		story.first = first;
		story.rest = rest;
		story.poison = poison && !heads(c->want, n);
		story_push(&story, &s, 1);
	}
	story_end(&story, c->want);
	if (story.rig.agg.stats.bad_csum != c->bad_csum)
		fail_msg("%s: bad_csum is %lu", c->name,
			 (unsigned long)story.rig.agg.stats.bad_csum);
	assert_int_equal(story.rig.agg.stats.packets, n);
}

#define FOR_CASES(c)                                                                     \
	for (const struct agg_case *c = cases; c < cases + sizeof(cases) / sizeof(*c);   \
	     c++)

static void test_cases(void **state)
{
	FOR_CASES(c)
	run_case(c, false, 0, 0);
}

/* Multi-buffer frames: the same decisions, wherever the buffers are cut. */
static void test_cases_multi_buffer(void **state)
{
	static const uint32_t cut[][2] = {
		{ 192, 100 },
		{ 193, 777 },
		{ 255, 257 },
		{ 1000, 64 },
	};

	FOR_CASES(c)
	for (size_t k = 0; k < sizeof(cut) / sizeof(cut[0]); k++)
		run_case(c, false, cut[k][0], cut[k][1]);
}

/*
 * User space parses no header: with the headers of all segments but the first of
 * each chain overwritten, the same chains with the same bytes come out.
 */
static void test_headers_unread(void **state)
{
	FOR_CASES(c)
	run_case(c, true, 0, 0);
}

/* What is counted as merged is what was merged. */
static void test_counters(void **state)
{
	FOR_CASES(c)
	{
		uint64_t supers = 0, merged = 0;

		run_case(c, false, 0, 0);
		for (const char *p = c->want, *q; *p; p = *q ? q + 1 : q) {
			q = strchrnul(p, ' ');
			if (q - p > 1) {
				supers++;
				merged += (uint64_t)(q - p);
			}
		}
		assert_int_equal(story.rig.agg.stats.supers, supers);
		assert_int_equal(story.rig.agg.stats.merged, merged);
		assert_int_equal(story.rig.agg.stats.evicted, 0);
		assert_int_equal(story.rig.agg.stats.starved, 0);
	}
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
		cmocka_unit_test(test_cases),
		cmocka_unit_test(test_cases_multi_buffer),
		cmocka_unit_test(test_headers_unread),
		cmocka_unit_test(test_counters),
	};

	int failed = cmocka_run_group_tests_name("agg", tests, setup, teardown);

	rig_in_runs = true;
	return failed +
	       cmocka_run_group_tests_name("agg, in runs", tests, setup, teardown);
}
