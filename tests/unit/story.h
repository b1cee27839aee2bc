/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * story: packets told one by one to an aggregator, and what became of them as text.
 *
 * "01 2" are two chains in the order in which they left: packets 0 and 1, then 2.
 * Each chain is checked by the oracle and the pool's books are balanced on the way;
 * a failure ends the test (cmocka).
 */
#ifndef GN_TEST_STORY_H
#define GN_TEST_STORY_H

#include "oracle.h"
#include "pkt.h"

#define STORY_MAX      4096 /* packets */
#define STORY_CHUNKS   8192
#define STORY_TEXT     32768
#define STORY_INSTANCE 5
#define STORY_GSO      (GN_INSTANCE_TSO4 | GN_INSTANCE_TSO6 | GN_INSTANCE_USO)

struct story {
	struct rig rig;
	struct agg_conf conf;
	const char *name; /* for messages */
	struct oracle_pkt pkt[STORY_MAX];
	int n; /* packets so far */
	/* The next packet's, back to 0 afterwards. */
	uint16_t instance;    /* 0: STORY_INSTANCE */
	uint32_t flow;	      /* in place of the one that pkt_meta() gives */
	uint32_t first, rest; /* sizes of buffers, see rig_packet() */
	bool poison;	      /* overwrite the headers */
	char text[STORY_TEXT];
};

/** story_init() - once; story_begin() starts each story */
void story_init(struct story *t);
void story_fini(struct story *t);
void story_begin(struct story *t, const char *name, const struct agg_conf *conf);

/** story_mbuf() - build packet number t->n, not pushed yet */
struct mbuf *story_mbuf(struct story *t, const struct pkt_spec *s);

/** story_push() - build a packet and push it. Return: its number */
int story_push(struct story *t, const struct pkt_spec *s, uint64_t now_ns);

/** story_settle() - check and free what has left; packets are kept for more. Return:
 * t->text */
const char *story_settle(struct story *t);

/** story_end() - flush everything, settle, compare */
void story_end(struct story *t, const char *want);

/** story_payload() - bytes that look random, 128 KiB of them */
const uint8_t *story_payload(void);

#endif
