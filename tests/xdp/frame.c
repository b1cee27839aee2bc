// SPDX-License-Identifier: BSD-2-Clause
/* Test frames and what the rules say of them; see frame.h. */
#include "frame.h"

#include <string.h>

const uint8_t frame_mac[6] = { 0x02, 0x67, 0x6e, 0x00, 0x00, 0x01 };

static void put16(uint8_t *p, unsigned int v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

static unsigned int get16(const uint8_t *p)
{
	return (unsigned int)p[0] << 8 | p[1];
}

uint16_t frame_sum(const uint8_t *p, size_t len)
{
	uint32_t s = 0;
	uint8_t out[2];
	uint16_t r;

	for (size_t i = 0; i < len; i++) {
		s += i & 1 ? p[i] : (uint32_t)p[i] << 8;
		s = (s & 0xffff) + (s >> 16);
	}
	put16(out, s);
	memcpy(&r, out, 2);
	return r;
}

void frame_fix_ip_csum(uint8_t *buf, unsigned int off)
{
	uint16_t s;

	memset(buf + off + 10, 0, 2);
	s = (uint16_t)~frame_sum(buf + off, (buf[off] & 15) * 4U);
	memcpy(buf + off + 10, &s, 2);
}

/* Pseudo-header (RFC 9293 3.1, RFC 8200 8.1) followed by @len bytes at @l4. */
static uint16_t l4_sum(const uint8_t *ip, bool v6, uint8_t proto, unsigned int total,
		       const uint8_t *l4, unsigned int len)
{
	static uint8_t b[40 + FRAME_MAX];
	unsigned int n = v6 ? 32 : 8;

	memcpy(b, v6 ? ip + 8 : ip + 12, n);
	put32(b + n, total);
	put32(b + n + 4, proto);
	memcpy(b + n + 8, l4, len);
	return frame_sum(b, n + 8 + len);
}

static unsigned int l4_hdr_len(const struct frame_spec *s)
{
	return s->proto == 17 ? 8 : s->proto && s->proto != 6 ? 0 : 20 + s->opt_len;
}

unsigned int frame_hdr_len(const struct frame_spec *s)
{
	return frame_l3_off(s) + (s->v6 ? 40 + s->ext_len : 20 + s->ip_opt_len) +
	       l4_hdr_len(s);
}

unsigned int frame_build(const struct frame_spec *s, uint8_t *buf)
{
	unsigned int l4_len = l4_hdr_len(s), l4_total = l4_len + s->payload, off = 12,
		     len;
	uint8_t proto = s->proto ? s->proto : 6;
	uint8_t *ip, *l4;
	uint16_t c;

	memset(buf, 0, FRAME_MAX);
	memcpy(buf, s->dst ? s->dst : frame_mac, 6);
	memcpy(buf + 6, "\x02\x67\x6e\x00\x01\x00", 6);
	for (unsigned int i = 0; i < s->ntags; i++, off += 4) {
		put16(buf + off, s->tpid[i] ? s->tpid[i] : 0x8100);
		put16(buf + off + 2, s->tci[i]);
	}
	put16(buf + off, s->ethertype ? s->ethertype : s->v6 ? 0x86dd : 0x0800);
	ip = buf + off + 2;
	if (s->v6) {
		put32(ip, 0x6b212345);
		put16(ip + 4, s->ext_len + l4_total);
		ip[6] = s->ext_len ? (uint8_t)s->ext_first : proto;
		ip[7] = 63;
		memcpy(ip + 8,
		       "\xfd\x00\x00\x00\x00\x00\x00\x11\x22\x33\x44\x55\x66\x77\x88\x01",
		       16);
		memcpy(ip + 24,
		       "\xfd\x00\x00\x00\x00\x00\x00\x11\x22\x33\x44\x55\x66\x77\x88\x02",
		       16);
		l4 = ip + 40 + s->ext_len;
		if (s->ext_len) {
			unsigned int last = 0, at = 0, type = s->ext_first;

			memcpy(ip + 40, s->ext, s->ext_len);
			while (at < s->ext_len) {
				last = at;
				at += type == 44 ? 8 : (ip[41 + at] + 1U) * 8;
				type = ip[40 + last];
			}
			ip[40 + last] = proto;
		}
	} else {
		ip[0] = (uint8_t)(0x40 | (20 + s->ip_opt_len) / 4);
		ip[1] = 0x28;
		put16(ip + 2, 20 + s->ip_opt_len + l4_total);
		put16(ip + 4, 0x1234 + s->fill);
		put16(ip + 6, s->frag ? s->frag : 0x4000);
		ip[8] = 62;
		ip[9] = proto;
		memcpy(ip + 12, "\x0a\x01\x02\x03\x0a\x01\x02\x04", 8);
		memset(ip + 20, 1, s->ip_opt_len);
		frame_fix_ip_csum(buf, (unsigned int)(ip - buf));
		if (s->bad_ip_csum)
			ip[10] ^= 0x40;
		l4 = ip + 20 + s->ip_opt_len;
	}
	for (unsigned int i = 0; i < s->payload; i++)
		l4[l4_len + i] = (uint8_t)(i * 7 + s->fill + (i >> 8));
	memset(l4 + l4_total, 0xa5, s->pad);
	len = (unsigned int)(l4 + l4_total + s->pad - buf);
	if (!l4_len)
		return len;

	put16(l4, s->sport ? s->sport : 40000);
	put16(l4 + 2, 5201);
	if (proto == 17) {
		put16(l4 + 4, l4_total);
		off = 6;
	} else {
		put32(l4 + 4, s->seq ? s->seq : 0x01020304);
		put32(l4 + 8, 0x0a0b0c0d);
		l4[12] = (uint8_t)(l4_len / 4 << 4);
		l4[13] = s->tcp_flags ? s->tcp_flags : T_ACK;
		put16(l4 + 14, 0x1f40);
		put16(l4 + 18, s->urg);
		for (unsigned int i = 0; i < s->opt_len; i++)
			l4[20 + i] = (uint8_t)(s->fill + (i + 1) * 11);
		off = 16;
	}
	if (s->csum == CSUM_ZERO)
		return len;
	if (s->csum == CSUM_PARTIAL)
		c = l4_sum(ip, s->v6, proto, l4_total, l4, 0);
	else
		c = (uint16_t)~l4_sum(ip, s->v6, proto, l4_total, l4, l4_total);
	if (s->csum == CSUM_BAD)
		c ^= 0x0110;
	if (!c)
		c = 0xffff;
	memcpy(l4 + off, &c, 2);
	return len;
}

/* ---- what the rules say -------------------------------------------------- */

static void malformed(struct frame_want *w)
{
	w->why = GN_CNT_ALONE_MALFORMED;
}

void frame_expect(const uint8_t *buf, unsigned int len, unsigned int linear,
		  const struct gn_instance *in, struct frame_want *w)
{
	unsigned int off = 12, tags = 0, type, l3, l4, total, hdr, takes, n = 0;
	bool v6, first_fragment = false;
	struct gn_meta *m = &w->meta;
	const uint8_t *ip, *p;
	uint8_t proto, flags = 0;
	uint16_t check, pseudo, sum;

	memset(w, 0, sizeof(*w));
	w->why = GN_CNT_MAX;
	m->magic = GN_META_MAGIC;
	m->instance = in->id;
	m->class = GN_CLASS_ALONE;

	type = get16(buf + off);
	while (tags < 2 && (type == 0x8100 || type == 0x88a8)) {
		if (off + 6 > linear)
			return malformed(w);
		off += 4;
		tags++;
		type = get16(buf + off);
	}
	l3 = off + 2;
	ip = buf + l3;
	if (type == 0x0800) {
		v6 = false;
		if (l3 + 20 > linear)
			return malformed(w);
		hdr = (ip[0] & 15) * 4U;
		total = get16(ip + 2);
		if (ip[0] >> 4 != 4 || hdr < 20 || total < hdr || l3 + total > len)
			return malformed(w);
		if (hdr == 20 && frame_sum(ip, 20) != 0xffff) {
			w->why = GN_CNT_ALONE_IP_CSUM;
			return;
		}
		if (hdr > 20)
			w->why = GN_CNT_ALONE_IP_OPTIONS;
		if (get16(ip + 6) & 0x3fff) {
			w->why = GN_CNT_ALONE_FRAGMENT;
			first_fragment = true;
			if (get16(ip + 6) & 0x1fff)
				return;
		}
		proto = ip[9];
		total -= hdr;
	} else if (type == 0x86dd) {
		v6 = true;
		if (l3 + 40 > linear)
			return malformed(w);
		hdr = 40;
		total = 40 + get16(ip + 4);
		if (ip[0] >> 4 != 6 || l3 + total > len)
			return malformed(w);
		if (total == 40)
			return;
		proto = ip[6];
		while (proto == 0 || proto == 43 || proto == 60) {
			if (++n > 4) {
				w->why = GN_CNT_ALONE_IP_OPTIONS;
				return;
			}
			p = ip + hdr;
			if (l3 + hdr + 8 > linear)
				return malformed(w);
			if ((proto == 43 && p[3]) || (proto == 60 && p[1] > 1))
				w->why = GN_CNT_ALONE_IP_OPTIONS;
			proto = p[0];
			hdr += 8 * (p[1] + 1U);
			if (hdr > 40 + 64) {
				w->why = GN_CNT_ALONE_IP_OPTIONS;
				return;
			}
		}
		if (proto == 44) {
			p = ip + hdr;
			if (l3 + hdr + 8 > linear)
				return malformed(w);
			w->why = GN_CNT_ALONE_FRAGMENT;
			first_fragment = true;
			if (get16(p + 2) >> 3)
				return;
			proto = p[0];
			hdr += 8;
		}
		if (hdr > total)
			return malformed(w);
		total -= hdr;
	} else {
		return;
	}

	l4 = l3 + hdr;
	p = buf + l4;
	hdr = proto == 6 ? 20 : 8;
	if (proto != 6 && proto != 17)
		return;
	if (total < hdr || l4 + hdr > linear)
		return malformed(w);
	m->flow = 1;
	if (first_fragment)
		return;
	if (proto == 6) {
		hdr = (p[12] >> 4) * 4U;
		if (hdr < 20 || hdr > total || l4 + hdr > linear)
			return malformed(w);
		memcpy(&check, p + 16, 2);
		flags = p[13];
		m->seq = (uint32_t)get16(p + 4) << 16 | get16(p + 6);
		m->flags = GN_F_TCP;
		if (flags & T_PSH)
			m->flags |= GN_F_PSH;
		if (flags & T_FIN)
			m->flags |= GN_F_FIN;
		if (flags & T_CWR)
			m->flags |= GN_F_CWR;
	} else {
		if (get16(p + 4) != total)
			return malformed(w);
		memcpy(&check, p + 6, 2);
		if (!check && v6)
			return malformed(w);
		m->flags = GN_F_UDP;
	}
	if (v6)
		m->flags |= GN_F_IPV6;
	else
		m->ip_id = (uint16_t)get16(ip + 4);
	m->l3_off = (uint8_t)l3;
	m->l4_off = (uint8_t)l4;
	m->l4_len = (uint8_t)hdr;
	m->payload_len = (uint16_t)(total - hdr);
	if (proto == 17 && !check) {
		m->flags |= GN_F_CSUM_NONE;
	} else {
		pseudo = l4_sum(ip, v6, proto, total, p, 0);
		sum = l4_sum(ip, v6, proto, total, p, hdr);
		m->payload_sum = (uint16_t)~sum;
		if (check == pseudo)
			m->flags |= GN_F_CSUM_PARTIAL;
	}

	/* The table of rules 1 to 3. */
	takes = proto == 17 ? GN_INSTANCE_USO : v6 ? GN_INSTANCE_TSO6 : GN_INSTANCE_TSO4;
	if (w->why != GN_CNT_MAX)
		return;
	if (flags & (T_SYN | T_RST | T_URG) ||
	    (flags & T_CWR && flags & (T_PSH | T_FIN))) {
		w->why = GN_CNT_ALONE_TCP_FLAGS;
		return;
	}
	if (!m->payload_len) {
		if (proto == 6)
			w->why = GN_CNT_ALONE_TCP_EMPTY;
		return;
	}
	if (!(in->flags & takes))
		return;
	m->key = 1;
	m->class = flags & T_CWR	     ? GN_CLASS_START
		   : flags & (T_PSH | T_FIN) ? GN_CLASS_CLOSE
					     : GN_CLASS_CONTINUE;
}

enum frame_effect frame_effect(const struct frame_spec *s, unsigned int off,
			       unsigned int bit)
{
	unsigned int l3 = frame_l3_off(s);
	unsigned int l4 = l3 + (s->v6 ? 40 + s->ext_len : 20 + s->ip_opt_len);

	if (off < l3) /* MAC addresses, tags, EtherType */
		return EFFECT_KEY;
	if (off >= l4) {
		off -= l4;
		if (off < 4) /* ports */
			return EFFECT_FLOW;
		if (s->proto == 17)
			return EFFECT_NONE;	       /* length, checksum */
		if (off < 8 || off == 16 || off == 17) /* sequence, checksum */
			return EFFECT_NONE;
		if (off == 13 && (1U << bit) & (T_CWR | T_PSH | T_FIN))
			return EFFECT_NONE;
		return EFFECT_KEY;
	}
	off -= l3;
	if (s->v6) {
		if (off >= 8 && off < 40) /* addresses */
			return EFFECT_FLOW;
		return off == 4 || off == 5 ? EFFECT_NONE : EFFECT_KEY; /* length */
	}
	if (off >= 12 && off < 20) /* addresses */
		return EFFECT_FLOW;
	if ((off >= 2 && off < 6) || off == 10 || off == 11) /* length, id, checksum */
		return EFFECT_NONE;
	return EFFECT_KEY;
}
