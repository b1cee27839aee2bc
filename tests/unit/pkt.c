// SPDX-License-Identifier: BSD-2-Clause
/*
 * pkt: frames for tests and their metadata. See pkt.h. Any thread.
 */
#include <string.h>

#include "pkt.h"

uint32_t pkt_sum(const uint8_t *p, uint32_t len)
{
	uint64_t s = 0;

	for (uint32_t i = 0; i < len; i++)
		s += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	return pkt_fold(s);
}

uint16_t pkt_fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

uint32_t pkt_pseudo(const uint8_t *ip, uint8_t proto, uint32_t l4_bytes)
{
	uint64_t s = (uint64_t)proto + (l4_bytes >> 16) + (l4_bytes & 0xffff);

	s += ip[0] >> 4 == 4 ? pkt_sum(ip + 12, 8) : pkt_sum(ip + 8, 32);
	return pkt_fold(s);
}

void pkt_default(struct pkt_spec *s)
{
	static const uint8_t dst[6] = { 0x02, 0, 0, 0, 0, 1 };
	static const uint8_t src[6] = { 0x02, 0, 0, 0, 0, 2 };

	memset(s, 0, sizeof(*s));
	memcpy(s->dst, dst, 6);
	memcpy(s->src, src, 6);
	s->ttl = 64;
	s->id = 1000;
	s->df = true;
	s->saddr = 0x0a000001;
	s->daddr = 0x0a000002;
	s->proto = 6;
	s->sport = 5201;
	s->dport = 40000;
	s->seq = 1;
	s->ack = 77;
	s->flags = PKT_ACK;
	s->window = 500;
}

/* The header chain of IPv6: its bytes after the fixed header. */
static uint32_t build_ipv6(const struct pkt_spec *s, uint8_t *ip, uint32_t l4_bytes)
{
	uint8_t *next = ip + 6;
	uint32_t n = 40;

	pkt_put32(ip, 6U << 28 | (uint32_t)s->tos << 20 | (s->label & 0xfffff));
	ip[7] = s->ttl;
	memset(ip + 8, 0, 32);
	ip[8] = ip[24] = 0xfd;
	pkt_put32(ip + 20, s->saddr);
	pkt_put32(ip + 36, s->daddr);
	if (s->ext) {
		*next = 60;
		next = ip + n;
		memset(ip + n, 0, s->ext);
		ip[n + 1] = (uint8_t)(s->ext / 8 - 1);
		ip[n + 2] = 1; /* PadN over the rest */
		ip[n + 3] = (uint8_t)(s->ext - 4);
		ip[n + 4] = s->ext_fill;
		n += s->ext;
	}
	if (s->frag6) {
		*next = 44;
		next = ip + n;
		memset(ip + n, 0, 8);
		ip[n + 3] = 1; /* more fragments */
		pkt_put32(ip + n + 4, s->id);
		n += 8;
	}
	*next = s->proto;
	pkt_put16(ip + 4, (uint16_t)(n - 40 + l4_bytes));
	return n;
}

static uint32_t build_ipv4(const struct pkt_spec *s, uint8_t *ip, uint32_t l4_bytes)
{
	uint32_t n = 20 + s->ip_opt;

	memset(ip, 0, n);
	ip[0] = (uint8_t)(0x40 | n / 4);
	ip[1] = s->tos;
	pkt_put16(ip + 2, (uint16_t)(n + l4_bytes));
	pkt_put16(ip + 4, s->id);
	pkt_put16(ip + 6, (uint16_t)((s->df ? 0x4000 : 0) | s->frag));
	ip[8] = s->ttl;
	ip[9] = s->proto;
	pkt_put32(ip + 12, s->saddr);
	pkt_put32(ip + 16, s->daddr);
	memset(ip + 20, 1, s->ip_opt); /* no-operation */
	pkt_put16(ip + 10, (uint16_t)~pkt_sum(ip, n));
	if (s->bad_ip_csum)
		ip[10] ^= 1;
	return n;
}

static uint32_t build_l4(const struct pkt_spec *s, uint8_t *l4)
{
	if (s->proto == 17) {
		pkt_put16(l4, s->sport);
		pkt_put16(l4 + 2, s->dport);
		pkt_put16(l4 + 4, (uint16_t)(8 + s->len));
		pkt_put16(l4 + 6, 0);
		return 8;
	}
	pkt_put16(l4, s->sport);
	pkt_put16(l4 + 2, s->dport);
	pkt_put32(l4 + 4, s->seq);
	pkt_put32(l4 + 8, s->ack);
	pkt_put16(l4 + 12, (uint16_t)((5 + s->opt_len / 4) << 12 | (s->flags & 0xfff)));
	pkt_put16(l4 + 14, s->window);
	pkt_put16(l4 + 16, 0);
	pkt_put16(l4 + 18, s->urg);
	memcpy(l4 + 20, s->opt, s->opt_len);
	return 20 + s->opt_len;
}

static void build_csum(const struct pkt_spec *s, const uint8_t *ip, uint8_t *l4,
		       uint32_t hlen)
{
	uint8_t *field = l4 + (s->proto == 17 ? 6 : 16);
	uint32_t pseudo = pkt_pseudo(ip, s->proto, hlen + s->len);
	uint16_t full =
		(uint16_t)~pkt_fold((uint64_t)pseudo + pkt_sum(l4, hlen + s->len));

	switch (s->csum) {
	case PKT_CSUM_NONE: return;
	case PKT_CSUM_PARTIAL: pkt_put16(field, pkt_fold(pseudo)); return;
	case PKT_CSUM_GOOD:
	case PKT_CSUM_BAD:
		if (s->proto == 17 && !full)
			full = 0xffff;
		pkt_put16(field, full);
		break;
	}
	if (s->csum == PKT_CSUM_GOOD)
		return;
	if (s->len) {
		uint32_t bit = s->bad_bit % (s->len * 8);

		l4[hlen + bit / 8] ^= (uint8_t)(1U << bit % 8);
	} else {
		field[0] ^= 0x10;
	}
}

uint32_t pkt_build(const struct pkt_spec *s, uint8_t *buf)
{
	bool has_l4 = s->proto == 6 || s->proto == 17;
	uint32_t hlen = !has_l4 ? 0 : s->proto == 17 ? 8 : 20 + s->opt_len;
	uint8_t *ip, *l4;
	uint32_t n = 12;

	memcpy(buf, s->dst, 6);
	memcpy(buf + 6, s->src, 6);
	for (unsigned int i = 0; i < s->ntags; i++) {
		pkt_put16(buf + n, s->ntags == 2 && i == 0 ? 0x88a8 : 0x8100);
		pkt_put16(buf + n + 2, s->tci[i]);
		n += 4;
	}
	pkt_put16(buf + n, s->ipv6 ? 0x86dd : 0x0800);
	n += 2;
	ip = buf + n;
	n += s->ipv6 ? build_ipv6(s, ip, hlen + s->len)
		     : build_ipv4(s, ip, hlen + s->len);
	l4 = buf + n;
	if (has_l4)
		build_l4(s, l4);
	n += hlen;
	if (s->len)
		memcpy(buf + n, s->payload, s->len);
	if (has_l4)
		build_csum(s, ip, l4, hlen);
	n += s->len;
	for (unsigned int i = 0; i < s->pad; i++)
		buf[n++] = (uint8_t)(0xd0 + i); /* not zero: must not count anywhere */
	return n;
}

/* FNV-1a with a finaliser: identifiers of the tests' own. */
static uint64_t hash(uint64_t h, const void *p, size_t n)
{
	const uint8_t *b = p;

	while (n--)
		h = (h ^ *b++) * 0x100000001b3ULL;
	return h;
}

static uint64_t hash_end(uint64_t h)
{
	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdULL;
	h ^= h >> 33;
	h *= 0xc4ceb9fe1a85ec53ULL;
	return h ^ h >> 33;
}

#define MAX_EXT	    4  /* IPv6 extension headers that are walked */
#define MAX_EXT_LEN 64 /* bytes of all of them */
#define HASH_START  0xcbf29ce484222325ULL

/* Where everything is; filled as far as the frame allows. */
struct layout {
	uint32_t l3, l4, hlen; /* frame start to IP, to L4; L4 header bytes */
	uint32_t ip_end;       /* frame start to the end of the IP packet */
	uint8_t proto;
	bool v6, options, fragment, bad_ip, later_fragment;
};

static bool find_ipv4(const uint8_t *f, uint32_t len, struct layout *o)
{
	const uint8_t *ip = f + o->l3;
	uint32_t ihl, total, frag;

	if (len < o->l3 + 20 || ip[0] >> 4 != 4)
		return false;
	ihl = (ip[0] & 15U) * 4;
	total = pkt_get16(ip + 2);
	if (ihl < 20 || total < ihl || len < o->l3 + total)
		return false;
	frag = pkt_get16(ip + 6);
	o->fragment = frag & 0x3fff;
	o->later_fragment = frag & 0x1fff;
	o->options = ihl > 20;
	o->bad_ip = pkt_sum(ip, ihl) != 0xffff;
	o->proto = ip[9];
	o->l4 = o->l3 + ihl;
	o->ip_end = o->l3 + total;
	return true;
}

static bool find_ipv6(const uint8_t *f, uint32_t len, struct layout *o)
{
	const uint8_t *ip = f + o->l3;

	if (len < o->l3 + 40 || ip[0] >> 4 != 6)
		return false;
	o->v6 = true;
	o->ip_end = o->l3 + 40 + pkt_get16(ip + 4);
	if (len < o->ip_end)
		return false;
	o->proto = ip[6];
	o->l4 = o->l3 + 40;
	for (int n = 0; !o->fragment; n++) {
		const uint8_t *e = f + o->l4;
		bool is_ext = o->proto == 0 || o->proto == 43 || o->proto == 60;

		if (!is_ext && o->proto != 44)
			break;
		if (o->l4 + 8 > o->ip_end)
			return false;
		if (!is_ext) {
			o->fragment = true;
			o->later_fragment = pkt_get16(e + 2) & 0xfff8;
			o->l4 += 8;
		} else {
			/* Addresses of the pseudo-header may be others: segments
			 * left to route, or room for a home address option. */
			if ((o->proto == 43 && e[3]) || (o->proto == 60 && e[1] > 1))
				o->options = true;
			o->l4 += (e[1] + 1U) * 8;
			if (n == MAX_EXT || o->l4 > o->l3 + 40 + MAX_EXT_LEN)
				return false; /* more than anyone walks */
		}
		o->proto = e[0];
		if (o->l4 > o->ip_end)
			return false;
	}
	return true;
}

static bool find_l4(const uint8_t *f, uint32_t len, struct layout *o)
{
	uint32_t n = 12;
	uint16_t type;

	memset(o, 0, sizeof(*o));
	for (int tags = 0;; tags++) {
		if (len < n + 2)
			return false;
		type = pkt_get16(f + n);
		if (tags == 2 || (type != 0x8100 && type != 0x88a8))
			break;
		n += 4;
	}
	o->l3 = n + 2;
	if (type == 0x0800)
		return find_ipv4(f, len, o);
	return type == 0x86dd && find_ipv6(f, len, o);
}

/* Is the L4 header, there in full length, consistent? */
static bool check_l4_header(const uint8_t *f, struct layout *o)
{
	const uint8_t *l4 = f + o->l4;

	if (o->proto == 6) {
		o->hlen = (l4[12] >> 4) * 4U;
		return o->hlen >= 20 && o->l4 + o->hlen <= o->ip_end;
	}
	o->hlen = 8;
	if (o->v6 && !pkt_get16(l4 + 6))
		return false; /* RFC 8200, section 8.1 */
	return pkt_get16(l4 + 4) == o->ip_end - o->l4;
}

static uint32_t flow_of(const uint8_t *f, const struct layout *o, uint16_t instance)
{
	uint64_t h = hash(HASH_START, &instance, sizeof(instance));
	uint32_t flow;

	h = hash(h, &o->proto, 1);
	h = o->v6 ? hash(h, f + o->l3 + 8, 32) : hash(h, f + o->l3 + 12, 8);
	flow = (uint32_t)hash_end(hash(h, f + o->l4, 4));
	return flow ? flow : 1;
}

static uint64_t key_of(const uint8_t *f, const struct layout *o, const struct gn_meta *m)
{
	const uint8_t *ip = f + o->l3, *l4 = f + o->l4;
	uint64_t h = hash(HASH_START ^ m->instance, f, o->l3);
	uint8_t flags[2], kind;

	kind = (uint8_t)(m->flags >> 6 & 3); /* kinds of checksum do not mix */
	h = hash(h, &kind, 1);
	if (o->v6) {
		h = hash(h, ip, 4);			/* version, class, label */
		h = hash(h, ip + 6, o->l4 - o->l3 - 6); /* all but the length */
	} else {
		h = hash(h, ip, 2);	/* version, header length, TOS */
		h = hash(h, ip + 6, 4); /* DF, TTL, protocol */
		h = hash(h, ip + 12, 8);
	}
	h = hash(h, l4, 4);
	if (o->proto == 17)
		return hash_end(h);
	flags[0] = l4[12];
	flags[1] = l4[13] & (uint8_t) ~(PKT_CWR | PKT_FIN | PKT_PSH);
	h = hash(h, l4 + 8, 4); /* ack */
	h = hash(h, flags, 2);
	h = hash(h, l4 + 14, 2);			 /* window */
	return hash_end(hash(h, l4 + 18, o->hlen - 18)); /* urgent pointer, options */
}

static uint8_t class_of(const struct gn_meta *m, const struct layout *o, uint16_t tcp,
			uint32_t gso)
{
	uint32_t need = m->flags & GN_F_UDP    ? GN_INSTANCE_USO
			: m->flags & GN_F_IPV6 ? GN_INSTANCE_TSO6
					       : GN_INSTANCE_TSO4;

	if (!(gso & need) || o->options || o->fragment || o->bad_ip || !m->payload_len)
		return GN_CLASS_ALONE;
	if (m->flags & GN_F_UDP)
		return GN_CLASS_CONTINUE;
	if (tcp & (PKT_SYN | PKT_RST | PKT_URG))
		return GN_CLASS_ALONE;
	if (tcp & (PKT_FIN | PKT_PSH)) /* ends what CWR may only begin */
		return tcp & PKT_CWR ? GN_CLASS_ALONE : GN_CLASS_CLOSE;
	return tcp & PKT_CWR ? GN_CLASS_START : GN_CLASS_CONTINUE;
}

void pkt_meta(const uint8_t *frame, uint32_t len, uint16_t instance, uint32_t gso,
	      struct gn_meta *m)
{
	struct layout o;
	const uint8_t *l4;
	uint16_t tcp = 0, field, claimed;
	uint32_t pseudo;

	memset(m, 0, sizeof(*m));
	m->magic = GN_META_MAGIC;
	m->instance = instance;
	m->class = GN_CLASS_ALONE;
	if (!find_l4(frame, len, &o) || (o.bad_ip && !o.options) || o.later_fragment)
		return;
	if (o.proto != 6 && o.proto != 17)
		return;
	if (o.l4 + (o.proto == 6 ? 20 : 8) > o.ip_end)
		return;
	m->flow = flow_of(frame, &o, instance);
	if (o.fragment || !check_l4_header(frame, &o))
		return;

	l4 = frame + o.l4;
	m->l3_off = (uint8_t)o.l3;
	m->l4_off = (uint8_t)o.l4;
	m->l4_len = (uint8_t)o.hlen;
	m->payload_len = (uint16_t)(o.ip_end - o.l4 - o.hlen);
	m->flags =
		(uint16_t)((o.v6 ? GN_F_IPV6 : 0) | (o.proto == 6 ? GN_F_TCP : GN_F_UDP));
	m->ip_id = o.v6 ? 0 : pkt_get16(frame + o.l3 + 4);
	pseudo = pkt_pseudo(frame + o.l3, o.proto, o.ip_end - o.l4);
	field = pkt_get16(l4 + (o.proto == 17 ? 6 : 16));
	if (o.proto == 6) {
		m->seq = pkt_get32(l4 + 4);
		tcp = pkt_get16(l4 + 12) & 0xfff;
		m->flags |= (uint16_t)((tcp & PKT_PSH ? GN_F_PSH : 0) |
				       (tcp & PKT_FIN ? GN_F_FIN : 0) |
				       (tcp & PKT_CWR ? GN_F_CWR : 0));
	} else if (!o.v6 && !field) {
		m->flags |= GN_F_CSUM_NONE;
	}
	if (!(m->flags & GN_F_CSUM_NONE)) {
		if (field == pkt_fold(pseudo))
			m->flags |= GN_F_CSUM_PARTIAL;
		claimed = (uint16_t)~pkt_fold((uint64_t)pseudo + pkt_sum(l4, o.hlen));
		pkt_put16((uint8_t *)&m->payload_sum, claimed);
	}
	m->class = class_of(m, &o, tcp, gso);
	if (m->class != GN_CLASS_ALONE)
		m->key = key_of(frame, &o, m);
}
