/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The two identifiers of a segment, from one keyed hash over the words that the
 * parser gathers on its way.
 *
 * flow says where a segment belongs: instance, addresses, ports, protocol. It is
 * taken in passing, after the words that make it up; two flows with the same
 * value lose merges, nothing else.
 *
 * key says what a segment may join: flow's words and every further byte that must be
 * equal (rules 1, 4 and 5 of GRO). User space compares it in place of the bytes, so
 * equal keys must mean equal bytes, also when the sender picks them:
 *
 * - SipHash is a pseudo-random function of a secret 128-bit key, made for short inputs
 *   that an attacker chooses. The secret is drawn at attach and never leaves the host,
 *   nor do the identifiers; there is nothing to search against. A plain 64-bit hash (jhash,
 *   xxhash) can be collided at will, a CRC or checksum by solving for it. 1-3 rounds
 *   are what the kernel's hsiphash() and language runtimes trust for hash tables.
 * - What is left is chance: 2^-64 for a segment and the chain it is held against.
 *   At ten million segments a second, each one different from the chain before it,
 *   that is one wrong merge in 58,000 years; TCP's own 16-bit checksum is wrong
 *   once in 65,536 corrupt segments.
 * - No two different header sets feed the same words: the words come in the order of
 *   struct ident, and at each point those before tell whether and how many follow. Fields
 *   that do not take part (lengths, sequence, identification, checksums) are in no word.
 */
#ifndef GN_IDENT_H
#define GN_IDENT_H

#include <stdbool.h>

#include "offload_shared.h"
#include "siphash.h"

#define IDENT_TUPLE_V4	2
#define IDENT_TUPLE_V6	5
#define IDENT_TCP_MAX	6
#define IDENT_EXT_MAX	9

/*
 * What a frame feeds to the hash, in this order. Words beyond the counts are left over
 * from earlier frames. The counts themselves are not hashed; what implies them is.
 */
struct ident {
	/* ports 32, instance 16, protocol 8, family 8; then the addresses: one word
	 * for IPv4, four for IPv6, which the family implies */
	__u64 tuple[IDENT_TUPLE_V6];
	/* [0] MAC addresses, first 8 bytes
	 * [1] their last 4; IPv4: version, IHL, TOS, flags and fragment offset;
	 *     IPv6: version, traffic class, flow label
	 * [2] last odd word of the TCP options 32, urgent pointer 16 (UDP: 0),
	 *     TTL or hop limit 8, IDENT_SHAPE_* 8 */
	__u64 fixed[3];
	/* TCP (the protocol implies it): acknowledgment, data offset, flags, window;
	 * then the options, 8 bytes a word, as many as the data offset implies */
	__u64 tcp[IDENT_TCP_MAX];
	/* both VLAN tags, if the shape counts any */
	__u64 tags;
	/* if the shape says so, length and first type of the IPv6 extension headers,
	 * which imply how many words of them follow */
	__u64 ext[IDENT_EXT_MAX];
	__u32 ntuple, ntcp, next;	/* words used */
	__u32 flow;			/* result, not 0 */
	__u64 key;			/* result, if asked for */
};

#define IDENT_SHAPE_TAGS	0x03	/* number of VLAN tags */
#define IDENT_SHAPE_EXT		0x04
#define IDENT_SHAPE_CSUM	0x18	/* merging mixes no kinds of checksum */
#define IDENT_TTL(x)		((__u64)(x) << 48)
#define IDENT_SHAPE(x)		((__u64)(x) << 56)

/*
 * Hash @id. Global, so that the verifier takes it once, by itself, and not again for
 * each of the ways through the parser.
 */
__attribute__((noinline))
int ident_hash(struct ident *id, const struct gn_config *conf, bool want_key)
{
	struct sip s;
	__u64 h;

	if (!id || !conf)
		return 0;
	sip_init(&s, conf->hash_key);
	sip_absorb(&s, id->tuple[0]);
	sip_absorb(&s, id->tuple[1]);
	if (id->ntuple == IDENT_TUPLE_V6) {
		sip_absorb(&s, id->tuple[2]);
		sip_absorb(&s, id->tuple[3]);
		sip_absorb(&s, id->tuple[4]);
	}
	h = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
	h ^= h >> 32;
	id->flow = (__u32)h ? (__u32)h : 1;
	if (!want_key)
		return 0;

	sip_absorb(&s, id->fixed[0]);
	sip_absorb(&s, id->fixed[1]);
	sip_absorb(&s, id->fixed[2]);
#pragma unroll
	for (__u32 i = 0; i < IDENT_TCP_MAX && i < id->ntcp; i++)
		sip_absorb(&s, id->tcp[i]);
	if (id->fixed[2] & IDENT_SHAPE(IDENT_SHAPE_TAGS))
		sip_absorb(&s, id->tags);
#pragma unroll
	for (__u32 i = 0; i < IDENT_EXT_MAX && i < id->next; i++)
		sip_absorb(&s, id->ext[i]);
	id->key = sip_final(&s);
	return 0;
}

#endif
