// SPDX-License-Identifier: BSD-2-Clause
/*
 * model: the merge rules, one test a rule. See model.h. Any thread.
 */
#include <assert.h>
#include <string.h>

#include "model.h"

static uint32_t be(const uint8_t *p, unsigned int n)
{
	uint32_t v = 0;

	while (n--)
		v = v << 8 | *p++;
	return v;
}

/* Sum of big-endian words, folded; an odd last byte counts as the high half. */
static uint32_t words(uint32_t s, const uint8_t *p, uint32_t n)
{
	for (; n > 1; n -= 2, p += 2) {
		s += be(p, 2);
		s = (s & 0xffff) + (s >> 16);
	}
	if (n)
		s += (uint32_t)*p << 8;
	return (s & 0xffff) + (s >> 16);
}

/* The IP header: offset of what follows it, or 0. */
static uint32_t parse_ip(struct model_pkt *p, uint32_t len, uint8_t *proto)
{
	const uint8_t *f = p->frame, *ip;
	uint32_t n = 12, type, hlen;

	for (int i = 0; i < 2 && n + 4 <= len; i++)
		if (be(f + n, 2) == 0x8100 || be(f + n, 2) == 0x88a8)
			n += 4;
		else
			break;
	if (n + 2 > len)
		return 0;
	type = be(f + n, 2);
	p->l3 = n + 2;
	ip = f + p->l3;
	if (type == 0x0800) {
		if (p->l3 + 20 > len || ip[0] >> 4 != 4)
			return 0;
		hlen = (ip[0] & 15) * 4;
		p->end = p->l3 + be(ip + 2, 2);
		if (hlen < 20 || p->l3 + hlen > p->end || p->end > len)
			return 0;
		if (words(0, ip, hlen) != 0xffff || be(ip + 6, 2) & 0x3fff)
			return 0; /* bad header, or a fragment */
		p->ip_opt = hlen > 20;
		p->id4 = (uint16_t)be(ip + 4, 2);
		*proto = ip[9];
		return p->l3 + hlen;
	}
	if (type != 0x86dd || p->l3 + 40 > len || ip[0] >> 4 != 6)
		return 0;
	p->v6 = true;
	p->end = p->l3 + 40 + be(ip + 4, 2);
	if (p->end > len)
		return 0;
	*proto = ip[6];
	n = p->l3 + 40;
	while (*proto == 0 || *proto == 60) {
		if (n + 8 > p->end)
			return 0;
		*proto = f[n];
		n += 8 + f[n + 1] * 8U;
	}
	return n <= p->end ? n : 0; /* a fragment header is no TCP or UDP */
}

void model_parse(struct model_pkt *p, uint32_t len)
{
	const uint8_t *ip, *l4;
	uint32_t l4_len, pseudo, sum, field;
	uint8_t proto = 0;

	p->tcp = p->udp = p->v6 = p->ip_opt = p->good = p->partial = p->no_csum = false;
	p->l3 = p->end = p->seq = 0;
	p->id4 = p->flags = 0;
	p->l4 = parse_ip(p, len, &proto);
	if (!p->l4)
		return;
	ip = p->frame + p->l3;
	l4 = p->frame + p->l4;
	l4_len = p->end - p->l4;
	if (proto == 6 && l4_len >= 20 && l4[12] >> 4 >= 5 &&
	    (l4[12] >> 4) * 4U <= l4_len) {
		p->tcp = true;
		p->data = p->l4 + (l4[12] >> 4) * 4U;
		p->seq = be(l4 + 4, 4);
		p->flags = be(l4 + 12, 2) & 0xfff;
		field = be(l4 + 16, 2);
	} else if (proto == 17 && l4_len >= 8 && be(l4 + 4, 2) == l4_len) {
		p->udp = true;
		p->data = p->l4 + 8;
		field = be(l4 + 6, 2);
	} else {
		return;
	}
	pseudo = words(words(proto, p->v6 ? ip + 8 : ip + 12, p->v6 ? 32 : 8), NULL, 0);
	pseudo += l4_len;
	pseudo = (pseudo & 0xffff) + (pseudo >> 16);
	sum = words(pseudo, l4, l4_len);
	p->no_csum = p->udp && field == 0;
	p->good = !p->no_csum && sum == 0xffff;
	p->partial = !p->no_csum && field == pseudo;
}

#define SYN 0x02
#define RST 0x04
#define URG 0x20
#define CWR 0x80
#define FIN 0x01
#define PSH 0x08

static bool ends_chain(const struct model_pkt *p)
{
	return p->tcp && p->flags & (PSH | FIN);
}

/* May this packet be in any chain with another one, as far as headers tell? */
static bool suitable(const struct model_conf *c, const struct model_pkt *p)
{
	bool trusted = c->trust_partial && p->partial;

	if (!p->tcp && !p->udp)
		return false;
	if (p->ip_opt)
		return false;
	if (p->end == p->data) /* no payload */
		return false;
	if (p->tcp && p->flags & (SYN | RST | URG))
		return false;
	if (p->no_csum)
		return false;
	/* A UDP super-packet needs NEEDS_CSUM, which no carried sum can give. */
	return !(p->udp && c->carry && !trusted);
}

static bool mergeable(const struct model_conf *c, const struct model_pkt *p)
{
	if (!suitable(c, p))
		return false;
	if (c->trust_partial && p->partial)
		return true;
	return c->carry || p->good; /* carry: good or bad, the sum tells */
}

bool model_may_head(const struct model_conf *c, const struct model_pkt *p)
{
	return mergeable(c, p) && !ends_chain(p);
}

static bool same(const struct model_pkt *a, const struct model_pkt *b, uint32_t off,
		 uint32_t n)
{
	return !memcmp(a->frame + off, b->frame + off, n);
}

static bool same_headers(const struct model_pkt *a, const struct model_pkt *b)
{
	if (a->instance != b->instance || a->tcp != b->tcp || a->udp != b->udp ||
	    a->v6 != b->v6)
		return false;
	if (a->l3 != b->l3 || a->l4 != b->l4 || a->data != b->data)
		return false;
	if (!same(a, b, 0, a->l3)) /* Ethernet and tags */
		return false;
	if (a->v6) {
		if (!same(a, b, a->l3, 4)) /* traffic class, flow label */
			return false;
		if (!same(a, b, a->l3 + 6, a->l4 - a->l3 - 6)) /* rest, extensions */
			return false;
	} else {
		if (!same(a, b, a->l3, 2)) /* TOS and ECN */
			return false;
		if (!same(a, b, a->l3 + 6, 4)) /* DF, TTL, protocol */
			return false;
		if (!same(a, b, a->l3 + 12, 8))
			return false;
	}
	if (!same(a, b, a->l4, 4)) /* ports */
		return false;
	if (a->udp)
		return true;
	if (!same(a, b, a->l4 + 8, 4)) /* ack */
		return false;
	if ((a->flags ^ b->flags) & ~(CWR | FIN | PSH))
		return false;
	if (!same(a, b, a->l4 + 14, 2)) /* window */
		return false;
	return same(a, b, a->l4 + 18, a->data - a->l4 - 18); /* urgent pointer, options */
}

bool model_may_join(const struct model_conf *c, const struct model_chain *ch,
		    const struct model_pkt *p)
{
	const struct model_pkt *h = &ch->head;
	uint32_t size = h->end - h->data, len = p->end - p->data;

	if (!mergeable(c, p))
		return false;
	if (p->tcp && p->flags & CWR)
		return false;
	if (!same_headers(h, p))
		return false;
	if (p->tcp && p->seq != (uint32_t)(h->seq + ch->bytes))
		return false;
	if (len > size)
		return false;
	if (ch->last.end - ch->last.data < size) /* a shorter one was the last */
		return false;
	if (h->data - h->l3 + ch->bytes + len > 65535)
		return false;
	if (ch->bufs + p->bufs > c->max_bufs)
		return false;
	if (p->udp && ch->segs == 64) /* UDP_MAX_SEGMENTS */
		return false;
	if (!h->v6) {
		uint16_t step = (uint16_t)(p->id4 - ch->last.id4);

		if (step > 1 || (ch->step >= 0 && step != ch->step))
			return false;
	}
	if (h->partial != p->partial) /* kinds of checksum do not mix */
		return false;
	return true;
}

void model_chain_start(struct model_chain *ch, const struct model_pkt *p, uint64_t now)
{
	ch->head = ch->last = *p;
	ch->bytes = p->end - p->data;
	ch->segs = 1;
	ch->bufs = p->bufs;
	ch->step = -1;
	ch->opened_ns = now;
}

bool model_chain_add(struct model_chain *ch, const struct model_pkt *p)
{
	ch->step = (uint16_t)(p->id4 - ch->last.id4);
	ch->last = *p;
	ch->bytes += p->end - p->data;
	ch->bufs += p->bufs;
	ch->segs++;
	return ends_chain(p) || p->end - p->data < ch->head.end - ch->head.data;
}

void model_init(struct model *m, const struct model_conf *conf)
{
	m->conf = *conf;
	m->nopen = 0;
}

static void drop_open(struct model *m, unsigned int i)
{
	m->nopen--;
	memmove(&m->open[i], &m->open[i + 1], (m->nopen - i) * sizeof(m->open[0]));
}

void model_push(struct model *m, struct model_pkt *p, uint32_t len, uint64_t now)
{
	bool takes_slot;

	model_parse(p, len);
	assert(p->id < MODEL_MAX_PKTS);
	m->leader[p->id] = p->id;
	if (!p->flow)
		return;
	/* Payloads are read when a second segment comes, so a bad one takes a slot too.
	 */
	takes_slot = suitable(&m->conf, p) && !ends_chain(p);
	for (unsigned int i = 0; i < m->nopen; i++) {
		struct model_chain *ch = &m->open[i];

		if (ch->head.flow % m->conf.nslots != p->flow % m->conf.nslots)
			continue;
		if (ch->head.flow != p->flow && !takes_slot)
			return; /* another flow's chain can stay */
		if (ch->head.flow == p->flow && model_may_join(&m->conf, ch, p)) {
			m->leader[p->id] = ch->head.id;
			if (model_chain_add(ch, p))
				drop_open(m, i);
			return;
		}
		drop_open(m, i); /* leaves before the packet */
		break;
	}
	if (model_may_head(&m->conf, p)) {
		assert(m->nopen < MODEL_MAX_OPEN);
		model_chain_start(&m->open[m->nopen++], p, now);
	}
}

void model_flush(struct model *m, uint64_t now)
{
	for (unsigned int i = 0; i < m->nopen;)
		if (now == UINT64_MAX || m->open[i].opened_ns + m->conf.hold_ns <= now)
			drop_open(m, i);
		else
			i++;
}
