// SPDX-License-Identifier: BSD-2-Clause
/* chain: see chain.h. The worker that owns the chain; no state. */
#include "chain.h"
#include "../lib/csum.h"

static bool payload_good(const struct mbuf_pool *p, const struct mbuf *head,
			 const struct mbuf *m)
{
	const uint8_t *payload;
	uint32_t len;

	payload = chain_payload(p, head, m, &len);
	return csum_equal(csum(payload, len), m->meta.payload_sum);
}

bool chain_verify(const struct mbuf_pool *p, struct mbuf *head)
{
	if (!(head->flags & MBUF_CLAIMED))
		return true;
	for (const struct mbuf *m = head; m; m = mbuf_next(p, m))
		if (!payload_good(p, head, m))
			return false;
	chain_good(head);
	return true;
}

#define CLOSING (GN_F_PSH | GN_F_FIN) /* of a chain's last segment only */

/* Make @m, any but the head of the chain that had @meta, the head of its own: its headers
 * are equal to that one's in all that counts, up to the tag that was @popped. */
static void restore(const struct mbuf_pool *p, struct mbuf *m, const struct gn_meta *meta,
		    bool popped)
{
	const uint16_t sum = m->meta.payload_sum;
	uint32_t more = (uint32_t)meta->l4_off + meta->l4_len;

	m->meta = *meta;
	m->meta.payload_sum = sum;
	m->meta.payload_len = (uint16_t)m->len;
	m->meta.flags &= (uint16_t)~GN_F_CWR;
	if (popped) {
		more += 4;
		m->meta.l3_off += 4;
		m->meta.l4_off += 4;
	}
	m->addr -= more;
	m->len += more;
	m->total = m->len;
	m->flags = 0;
	if (popped)
		mbuf_pop_vlan(p, m);
}

static void begin(const struct mbuf_pool *p, struct mbuf *m, bool good)
{
	m->flags = (uint8_t)((m->flags & ~MBUF_CLAIMED) | (good ? MBUF_VERIFIED : 0));
	m->meta.flags &= (uint16_t)~CLOSING;
	m->total = m->len;
	m->tail = mbuf_index(p, m);
	m->nsegs = m->nbufs = 1;
	m->gso_size = m->meta.payload_len;
	m->sum = m->meta.payload_sum;
}

static void append(struct mbuf_pool *p, struct mbuf *head, struct mbuf *m)
{
	p->mbufs[head->tail].next = mbuf_index(p, m);
	head->tail = mbuf_index(p, m);
	head->total += m->len;
	head->nsegs++;
	head->nbufs++;
}

unsigned int chain_split(struct mbuf_pool *p, struct mbuf *head, struct mbuf **out,
			 unsigned int *bad)
{
	const bool popped = head->flags & MBUF_POPPED;
	const uint8_t id_step = head->id_step;
	const struct gn_meta meta = head->meta;
	struct mbuf *open = NULL;
	unsigned int n = 0;

	*bad = 0;
	for (struct mbuf *m = head, *next; m; m = next) {
		bool good = payload_good(p, head, m);

		next = mbuf_next(p, m);
		m->next = MBUF_NONE;
		*bad += !good;
		if (good && open) {
			append(p, open, m);
			continue;
		}
		if (m != head)
			restore(p, m, &meta, popped);
		begin(p, m, good);
		m->id_step = id_step;
		open = good ? m : NULL;
		out[n++] = m;
	}
	out[n - 1]->meta.flags |= meta.flags & CLOSING;
	for (unsigned int i = 0; i < n; i++)
		if (out[i]->nsegs == 1)
			out[i]->gso_size = 0;
	return n;
}
