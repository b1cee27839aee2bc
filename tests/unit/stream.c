// SPDX-License-Identifier: BSD-2-Clause
/* stream: random traffic. See stream.h. Any thread. */
#include <string.h>

#include "stream.h"

struct flow {
	struct pkt_spec s; /* of the next packet */
	unsigned int mss;  /* bytes */
	enum { ID_COUNTS, ID_FIXED, ID_RANDOM } id;
	uint16_t instance;
	struct pkt_spec last; /* for duplicates */
	bool has_last;
};

static uint8_t payload[128 << 10];

static uint32_t below(uint64_t *r, uint32_t n)
{
	return pkt_rand(r) % n;
}

/* True @percent times in a hundred. */
static bool chance(uint64_t *r, uint32_t percent)
{
	return below(r, 100) < percent;
}

static const uint8_t *some_payload(uint64_t *r)
{
	if (!payload[0]) {
		uint64_t seed = 99;

		for (size_t i = 0; i < sizeof(payload); i++)
			payload[i] = (uint8_t)(pkt_rand(&seed) | !i);
		/* A run of zeros and one of ones: sums of 0 and 0xffff. */
		memset(payload + 60000, 0, 4000);
		memset(payload + 64000, 0xff, 4000);
	}
	return payload + (chance(r, 5) ? 60000 + below(r, 6000) : below(r, 50000));
}

static unsigned int some_mss(uint64_t *r, bool jumbo)
{
	if (jumbo)
		return 4000 + below(r, 4900);
	switch (below(r, 8)) {
	case 0: return 1 + below(r, 4);
	case 1: return 1448;
	default: return 5 + below(r, 150);
	}
}

static void new_flow(uint64_t *r, struct flow *f, unsigned int number, bool jumbo)
{
	struct pkt_spec *s = &f->s;

	memset(f, 0, sizeof(*f));
	pkt_default(s);
	s->ipv6 = chance(r, 40);
	s->proto = chance(r, 30) ? 17 : 6;
	s->sport = (uint16_t)(1000 + number);
	s->ntags = chance(r, 70) ? 0 : 1 + below(r, 2);
	s->tci[0] = (uint16_t)pkt_rand(r);
	s->tci[1] = (uint16_t)pkt_rand(r);
	s->df = chance(r, 80);
	s->label = pkt_rand(r);
	s->ext = chance(r, 10) ? 8 * (1 + below(r, 2)) : 0;
	s->opt_len = chance(r, 60) ? 12 : chance(r, 50) ? 0 : 4 * below(r, 11);
	for (unsigned int i = 0; i < s->opt_len; i++)
		s->opt[i] = (uint8_t)pkt_rand(r);
	s->seq = chance(r, 50) ? 0U - below(r, 3000) : pkt_rand(r);
	s->id = chance(r, 50) ? (uint16_t)(0U - below(r, 20)) : (uint16_t)pkt_rand(r);
	s->csum = s->proto == 17 && chance(r, 10) ? PKT_CSUM_NONE
		  : chance(r, 8)		  ? PKT_CSUM_PARTIAL
						  : PKT_CSUM_GOOD;
	f->id = chance(r, 60) ? ID_COUNTS : chance(r, 80) ? ID_FIXED : ID_RANDOM;
	f->mss = some_mss(r, jumbo);
	f->instance = (uint16_t)(5 + below(r, 2));
}

/* Changes that stay. */
static void drift(uint64_t *r, struct pkt_spec *s)
{
	switch (below(r, 10)) {
	case 0: s->ack++; break;
	case 1: s->window++; break;
	case 2: s->flags ^= PKT_ECE; break;
	case 3: s->tos ^= (uint8_t)(1U << below(r, 8)); break;
	case 4: s->ttl--; break;
	case 5: s->df = !s->df; break;
	case 6: s->label ^= 1U << below(r, 20); break;
	case 7: s->tci[0] ^= (uint16_t)(1U << below(r, 16)); break;
	case 8: s->src[below(r, 6)] ^= 2; break;
	default:
		if (s->opt_len)
			s->opt[below(r, s->opt_len)]++;
		else
			s->urg ^= 1;
	}
}

/* Changes of one packet. */
static void spice(uint64_t *r, struct pkt_spec *s)
{
	switch (below(r, 16)) {
	case 0:
	case 1:
	case 2: s->flags |= PKT_PSH; break;
	case 3: s->flags |= PKT_FIN; break;
	case 4: s->flags |= PKT_SYN; break;
	case 5: s->flags |= PKT_RST; break;
	case 6: s->flags |= PKT_URG; break;
	case 7:
	case 8: s->flags |= PKT_CWR; break;
	case 9: s->flags |= PKT_CWR | PKT_PSH; break;
	case 10: s->tos |= 3; break; /* congestion mark */
	case 11: s->flags ^= (uint16_t)(1U << (8 + below(r, 4))); break;
	case 12:
		s->frag = s->ipv6 ? 0 : 0x2000;
		s->frag6 = s->ipv6;
		break;
	case 13: s->ip_opt = s->ipv6 ? 0 : 4 * (1 + below(r, 10)); break;
	case 14: s->ext_fill++; break;
	default: s->flags &= (uint16_t)~PKT_ACK; break;
	}
}

static void next_spec(uint64_t *r, struct flow *f, struct pkt_spec *out)
{
	struct pkt_spec *s = &f->s;

	if (chance(r, 4)) /* lost: nobody sees it */
		s->seq += f->mss;
	if (chance(r, 4))
		drift(r, s);
	s->len = f->mss;
	if (chance(r, 12))
		s->len = chance(r, 30) ? 0 : below(r, f->mss + 3);
	if (f->id == ID_COUNTS || chance(r, 3))
		s->id++;
	if (f->id == ID_RANDOM || chance(r, 1))
		s->id = (uint16_t)pkt_rand(r);
	*out = *s;
	out->payload = some_payload(r);
	if (chance(r, 15))
		spice(r, out);
	if (chance(r, 4)) {
		out->csum = PKT_CSUM_BAD;
		out->bad_bit = pkt_rand(r);
	} else if (chance(r, 1)) {
		out->csum = PKT_CSUM_PARTIAL;
	}
	s->seq += s->len;
	f->last = *out;
	f->has_last = true;
}

/* Foreign, broken in the IP header, or cut off: of no flow that shows. */
static bool make_stray(uint64_t *r, struct pkt_spec *s)
{
	if (!chance(r, 2))
		return false;
	s->bad_ip_csum = chance(r, 50);
	s->ip_opt = 0;
	if (!s->bad_ip_csum || s->ipv6) {
		s->proto = 1;
		s->frag = 0;
	}
	return true;
}

static void add(uint64_t *r, struct stream *st, struct flow *f, int number)
{
	struct stream_pkt *p = &st->pkt[st->n];
	struct pkt_spec s;
	uint32_t short_by;

	if (f->has_last && chance(r, 3))
		s = f->last;
	else
		next_spec(r, f, &s);
	*p = (struct stream_pkt){ .flow = make_stray(r, &s) ? -1 : number };
	p->frame = st->bytes + st->used;
	s.pad = 0;
	p->len = pkt_build(&s, p->frame);
	short_by = p->len < 60 ? 60 - p->len : 0;
	if (short_by ? chance(r, 90) : chance(r, 3)) {
		s.pad = short_by ? short_by : 1 + below(r, 300);
		p->len = pkt_build(&s, p->frame);
	}
	if (chance(r, 1)) {
		p->len = 14 + below(r, p->len - 14);
		p->flow = -1;
	}
	pkt_meta(p->frame, p->len, f->instance, STREAM_GSO, &p->meta);
	st->used += p->len;
	st->n++;
}

static uint32_t bufs_of(const struct stream_pkt *p)
{
	uint32_t first = p->first && p->first < 3840 ? p->first : 3840;
	uint32_t rest = p->rest && p->rest < 3840 ? p->rest : 3840;

	return p->len <= first ? 1 : 1 + (p->len - first + rest - 1) / rest;
}

/* Cut frames into buffers; together no more than one chain may have. */
static void cut(uint64_t *r, struct stream *st)
{
	bool often = chance(r, 10);
	uint32_t bufs = 0;

	for (int i = 0; i < st->n; i++) {
		struct stream_pkt *p = &st->pkt[i];
		uint32_t before = bufs;

		if (often && chance(r, 50)) {
			p->first = 192 + below(r, 100); /* all headers fit */
			p->rest = 30 + below(r, 500);
		}
		bufs = before + bufs_of(p);
		if (bufs + (uint32_t)(st->n - i) * 4 > AGG_MAX_BUFS) {
			p->first = p->rest = 0;
			bufs = before + bufs_of(p);
		}
	}
}

void stream_make(struct stream *st, uint64_t seed)
{
	uint64_t state = (seed + 1) * 0x9e3779b97f4a7c15ULL, *r = &state;
	struct flow flow[STREAM_MAX_FLOWS];
	unsigned int nflows, f = 0, n, collide;
	uint64_t now = 1000;
	bool jumbo;

	for (int i = 0; i < 4; i++)
		pkt_rand(r);
	jumbo = chance(r, 1);
	st->starved = chance(r, 5);
	st->conf = (struct agg_conf){
		.checksum = chance(r, 50) ? AGG_VERIFY : AGG_CARRY,
		.trust_partial = chance(r, 50),
		.max_held = st->starved ? 1 + below(r, 12) : 1 << 20,
		.hold_ns = chance(r, 70) ? 0 : below(r, 3000),
	};
	st->n = 0;
	st->used = 0;
	nflows = 1 + below(r, STREAM_MAX_FLOWS);
	for (unsigned int i = 0; i < nflows; i++)
		new_flow(r, &flow[i], i, jumbo);
	n = jumbo ? 20 + below(r, 10) : 3 + below(r, 50);
	for (unsigned int i = 0; i < n; i++) {
		if (chance(r, jumbo ? 5 : 30))
			f = below(r, nflows);
		add(r, st, &flow[f], (int)f);
	}

	/* Reordering; the order of arrival is the one to keep from then on. */
	for (int i = 1; i < st->n; i++)
		if (chance(r, 3)) {
			struct stream_pkt t = st->pkt[i];

			st->pkt[i] = st->pkt[i - 1];
			st->pkt[i - 1] = t;
		}
	cut(r, st);

	/* Flows in one slot, or with one identifier. */
	collide = chance(r, 10) ? 1 + below(r, 2) : 0;
	for (int i = 0; i < st->n; i++) {
		struct stream_pkt *p = &st->pkt[i];

		if (p->meta.flow && collide == 1)
			p->meta.flow = (p->meta.flow & ~(AGG_SLOTS - 1U)) | 0x123;
		else if (p->meta.flow && collide == 2)
			p->meta.flow = 77;
		p->now = now;
		p->burst_ends = chance(r, 8);
		if (p->burst_ends)
			now += below(r, 2000);
	}
}

uint32_t stream_frame(uint64_t *r, uint8_t *buf)
{
	struct pkt_spec s;
	struct flow f;
	uint32_t len;

	new_flow(r, &f, below(r, 4), false);
	for (unsigned int i = below(r, 3); i; i--)
		drift(r, &f.s);
	next_spec(r, &f, &s);
	if (chance(r, 20))
		spice(r, &s);
	make_stray(r, &s);
	if (chance(r, 20))
		s.pad = below(r, 30);
	len = pkt_build(&s, buf);
	for (unsigned int i = chance(r, 20) ? 1 + below(r, 3) : 0; i; i--)
		buf[12 + below(r, len < 90 ? len - 12 : 78)] ^=
			(uint8_t)(1U << below(r, 8));
	if (chance(r, 10))
		len = 14 + below(r, len - 13);
	return len;
}
