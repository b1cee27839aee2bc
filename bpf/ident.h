/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The two identifiers of a segment, from the words that the parser gathers on its way.
 *
 * flow says where a segment belongs: instance, addresses, ports, protocol. It is
 * a cheap keyed hash of the first words; two flows with the same value lose merges,
 * nothing else, and without the key nobody can aim for one.
 *
 * key says what a segment may join: flow's words and every further byte that must be
 * equal (rules 1, 4 and 5 of GRO). User space compares it in place of the bytes, so
 * equal keys must mean equal bytes, also when the sender picks them. No digest does, but
 * what is wanted is only whether a segment is like the one before it in its flow:
 *
 * - Each CPU keeps, in a slot that the flow picks, all the words of the last segment that
 *   came to that slot and might merge, and the number of its run. A segment whose words
 *   are all the same, compared one by one, continues the run; any other takes the slot
 *   over and starts a run. key is the run's number. A run has one set of words from
 *   beginning to end and no two runs have one number, so this is exact.
 * - Numbers: a count of the CPU below its own number. 2^48 runs, of one packet each, at
 *   ten million a second, take ten months; a chain is open for milliseconds.
 * - What is lost is merges: of two flows that share a slot and take turns, and once for
 *   a queue that moves to another CPU. Within one flow nothing is: a segment that differs
 *   from the one before it ends the chain anyway.
 * - No two different header sets have the same words: at each point the words before tell
 *   whether and how many follow, so that a slot is never compared beyond what was stored
 *   with the words that led there. Fields that do not take part (lengths, sequence,
 *   identification, checksums) are in no word.
 * - A slot that was never used matches nothing: the protocol, in tuple[0], is not 0.
 */
#ifndef GN_IDENT_H
#define GN_IDENT_H

#include <stdbool.h>

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "offload_shared.h"

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define IDENT_SLOTS    2048 /* per CPU, a power of two */
#define IDENT_TUPLE_V6 3
#define IDENT_TCP_MAX  6
#define IDENT_EXT_MAX  9

/*
 * What must be equal, most used words first, which are one cache line of a slot. Words
 * beyond the counts are left over from earlier frames. The counts themselves are not
 * compared; what implies them is.
 */
struct ident_words {
	/* ports 32, instance 16, protocol 8, family 8; then the addresses of IPv4
	 * or the first eight bytes of IPv6's, which the family implies */
	__u64 tuple[2];
	/* [0] MAC addresses, first 8 bytes
	 * [1] their last 4; IPv4: version, IHL, TOS, flags and fragment offset;
	 *     IPv6: version, traffic class, flow label
	 * [2] last odd word of the TCP options 32, urgent pointer 16 (UDP: 0),
	 *     TTL or hop limit 8, IDENT_SHAPE_* 8 */
	__u64 fixed[3];
	/* TCP (the protocol implies it): acknowledgment, data offset, flags, window;
	 * then the options, 8 bytes a word, as many as the data offset implies */
	__u64 tcp[IDENT_TCP_MAX];
	/* the other bytes of the addresses, if the family is IPv6 */
	__u64 tuple6[IDENT_TUPLE_V6];
	/* both VLAN tags, if the shape counts any */
	__u64 tags;
	/* if the shape says so, length and first type of the IPv6 extension headers,
	 * which imply how many words of them follow */
	__u64 ext[IDENT_EXT_MAX];
};

#define IDENT_PORTS(p, id, proto, family)                                                \
	((p) | (__u64)(id) << 32 | (__u64)(proto) << 48 | (__u64)(family) << 56)
#define IDENT_SHAPE_TAGS 0x03 /* number of VLAN tags */
#define IDENT_SHAPE_EXT	 0x04
#define IDENT_SHAPE_CSUM 0x18 /* merging mixes no kinds of checksum */
#define IDENT_TTL(x)	 ((__u64)(x) << 48)
#define IDENT_SHAPE(x)	 ((__u64)(x) << 56)
/* IDENT_SHAPE_CSUM, from gn_meta.flags */
#define IDENT_CSUM(flags)                                                                \
	IDENT_SHAPE(((flags) & (GN_F_CSUM_PARTIAL | GN_F_CSUM_NONE)) >> 3)

_Static_assert((GN_F_CSUM_PARTIAL | GN_F_CSUM_NONE) >> 3 == IDENT_SHAPE_CSUM,
	       "IDENT_CSUM()");

/* The words of a frame. */
struct ident {
	struct ident_words w;
	__u32 ntuple6, ntcp, next; /* words used */
};

/* The last segment of the flows that share it. */
struct slot {
	__u64 run;
	struct ident_words w;
};

static __always_inline __u64 ident_mix(__u64 h, __u64 word, const struct gn_config *conf)
{
	return (h ^ h >> 32 ^ word) * (conf->hash_key[1] | 1);
}

/* The ports do not wait for the addresses. Return: not 0 */
static __always_inline __u32 ident_flow_end(__u64 h, __u64 ports,
					    const struct gn_config *conf)
{
	__u32 flow;

	h += (ports ^ conf->hash_key[1]) * (conf->hash_key[0] | 1);
	flow = ident_mix(h, 0, conf) >> 32;
	return likely(flow) ? flow : 1;
}

/* Of IPv4, whose tuple is all of it. */
static __always_inline __u32 ident_flow4(__u64 ports, __u64 addrs,
					 const struct gn_config *conf)
{
	return ident_flow_end(ident_mix(conf->hash_key[0], addrs, conf), ports, conf);
}

static __always_inline __u32 ident_flow(const struct ident *id,
					const struct gn_config *conf)
{
	__u64 h = ident_mix(conf->hash_key[0], id->w.tuple[1], conf);

	if (id->ntuple6)
		for (__u32 i = 0; i < IDENT_TUPLE_V6; i++)
			h = ident_mix(h, id->w.tuple6[i], conf);
	return ident_flow_end(h, id->w.tuple[0], conf);
}

/*
 * Every word that @id uses: compare with @s (@store false) or put it there.
 *
 * Return: 0 if all of them are equal
 */
static __always_inline __u64 ident_walk(const struct ident *id, struct slot *s,
					const bool store)
{
	__u64 diff = 0;

#define WORD(x)                                                                          \
	do {                                                                             \
		if (store)                                                               \
			s->w.x = id->w.x;                                                \
		else                                                                     \
			diff |= s->w.x ^ id->w.x;                                        \
	} while (0)

	WORD(tuple[0]);
	WORD(tuple[1]);
	WORD(fixed[0]);
	WORD(fixed[1]);
	WORD(fixed[2]);
#pragma unroll
	for (__u32 i = 0; i < IDENT_TCP_MAX && i < id->ntcp; i++)
		WORD(tcp[i]);
	if (id->ntuple6) {
		WORD(tuple6[0]);
		WORD(tuple6[1]);
		WORD(tuple6[2]);
	}
	if (id->w.fixed[2] & IDENT_SHAPE(IDENT_SHAPE_TAGS))
		WORD(tags);
#pragma unroll
	for (__u32 i = 0; i < IDENT_EXT_MAX && i < id->next; i++)
		WORD(ext[i]);
#undef WORD
	return diff;
}

/*
 * Continue the run of @s, or start one; @runs counts those of this CPU. Global, so that
 * the verifier takes it once, by itself, and not again for each of the ways through the
 * parser.
 *
 * Return: 0
 */
__attribute__((noinline)) int ident_key(const struct ident *id, struct slot *s,
					__u64 *runs)
{
	if (!id || !s || !runs)
		return 0;
	if (ident_walk(id, s, false)) {
		ident_walk(id, s, true);
		*runs += 1;
		s->run = *runs | (__u64)bpf_get_smp_processor_id() << 48;
	}
	return 0;
}

#endif
