// SPDX-License-Identifier: BSD-2-Clause
/* story: see story.h. One thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "story.h"

const uint8_t *story_payload(void)
{
	static uint8_t bytes[128 << 10];
	uint64_t seed = 7;

	if (!bytes[0])
		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t)(pkt_rand(&seed) | !i);
	return bytes;
}

void story_init(struct story *t)
{
	struct agg_conf conf = { .max_held = STORY_CHUNKS };

	memset(t, 0, sizeof(*t));
	assert_int_equal(rig_init(&t->rig, STORY_CHUNKS, &conf), 0);
}

static void forget(struct story *t)
{
	while (t->n)
		free((void *)t->pkt[--t->n].frame);
}

void story_fini(struct story *t)
{
	forget(t);
	rig_fini(&t->rig);
}

void story_begin(struct story *t, const char *name, const struct agg_conf *conf)
{
	forget(t);
	t->name = name;
	t->conf = *conf;
	assert_int_equal(rig_restart(&t->rig, conf), 0);
}

struct mbuf *story_mbuf(struct story *t, const struct pkt_spec *s)
{
	static uint8_t frame[PKT_MAX + 256];
	struct gn_meta meta;
	struct mbuf *m;
	uint8_t *copy;
	uint32_t len;

	assert_true(t->n < STORY_MAX);
	len = pkt_build(s, frame);
	copy = malloc(len);
	assert_non_null(copy);
	memcpy(copy, frame, len);
	t->pkt[t->n] = (struct oracle_pkt){ copy, len };
	pkt_meta(frame, len, t->instance ? t->instance : STORY_INSTANCE, STORY_GSO,
		 &meta);
	if (t->flow)
		meta.flow = t->flow;
	m = rig_packet(&t->rig, t->n++, frame, len, &meta, t->first, t->rest);
	if (t->poison)
		memset(mbuf_data(&t->rig.pool, m), 0xa5, mbuf_hdr_len(m));
	t->instance = 0;
	t->flow = t->first = t->rest = 0;
	t->poison = false;
	return m;
}

int story_push(struct story *t, const struct pkt_spec *s, uint64_t now_ns)
{
	rig_push(&t->rig, story_mbuf(t, s), now_ns);
	return t->n - 1;
}

const char *story_settle(struct story *t)
{
	struct rig *r = &t->rig;
	size_t len = 0;

	t->text[0] = 0;
	for (uint32_t i = 0; i < r->out.n; i++) {
		int id[AGG_MAX_BUFS];
		const char *bad;
		unsigned int k;

		bad = oracle_check(r, r->out.head[i], t->pkt, &t->conf, id, &k);
		if (bad)
			fail_msg("%s: chain %u: %s", t->name, i, bad);
		for (unsigned int j = 0; j < k && len < STORY_TEXT; j++)
			len += (size_t)snprintf(t->text + len, STORY_TEXT - len, "%s%d",
						i && !j ? " " : "", id[j]);
		mbuf_free_chain(&r->pool, r->out.head[i]);
	}
	r->out.n = 0;
	return t->text;
}

void story_end(struct story *t, const char *want)
{
	const char *bad, *got;

	rig_flush(&t->rig, UINT64_MAX);
	assert_int_equal(agg_deadline(&t->rig.agg), UINT64_MAX);
	assert_int_equal(t->rig.agg.held, 0);
	bad = rig_account(&t->rig);
	if (bad)
		fail_msg("%s: %s", t->name, bad);
	got = story_settle(t);
	if (strcmp(got, want))
		fail_msg("%s: \"%s\", not \"%s\"", t->name, got, want);
	bad = rig_account(&t->rig);
	if (bad)
		fail_msg("%s: afterwards: %s", t->name, bad);
}
