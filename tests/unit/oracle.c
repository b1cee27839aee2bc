// SPDX-License-Identifier: BSD-2-Clause
/* oracle: chains against the packets that went in. See oracle.h. One thread. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "../../user/daemon/gso.h"
#include "model.h"
#include "oracle.h"
#include "pkt.h"

#define OUT_ROOM (1U << 20) /* bytes: a super-packet cut up again */

static char why[256];

#define FAIL(...)                                                                        \
	do {                                                                             \
		snprintf(why, sizeof(why), __VA_ARGS__);                                 \
		return why;                                                              \
	} while (0)

struct ctx {
	const struct oracle_pkt *pkt;
	const struct agg_conf *conf;
	const int *id;
	unsigned int n;
	struct model_pkt head; /* first packet, parsed */
	bool tcp;
	uint32_t l4_field;	     /* frame start to L4 checksum, bytes */
	unsigned int bad, partial;   /* packets of the chain that are so */
	uint16_t last_id;	     /* IPv4 identification of the last packet */
	uint32_t payload;	     /* bytes of all */
	uint16_t flags;		     /* TCP flags of all, ORed */
	uint8_t frame[PKT_MAX + 64]; /* as finished */
	uint32_t len, whole;	     /* bytes; before tags were removed */
	struct virtio_net_hdr_v1 vh;
};

/* Buffers where segments go: one block, and where each begins. */
struct collect {
	struct gso_sink sink;
	uint8_t buf[OUT_ROOM];
	uint32_t used, n, off[AGG_MAX_BUFS + 1], len[AGG_MAX_BUFS + 1];
};

static void *collect_get(struct gso_sink *s, uint32_t len)
{
	struct collect *c = (struct collect *)s; /* first member */

	if (c->n > AGG_MAX_BUFS || c->used + len > OUT_ROOM)
		return NULL;
	c->off[c->n] = c->used;
	c->len[c->n++] = len;
	c->used += len;
	return c->buf + c->off[c->n - 1];
}

static void parse(struct model_pkt *p, const struct oracle_pkt *in)
{
	memset(p, 0, sizeof(*p));
	p->frame = in->frame;
	model_parse(p, in->len);
}

static const char *check_links(const struct rig *r, const struct mbuf *head,
			       unsigned int n)
{
	const struct mbuf *m = head, *last = head;
	uint32_t bytes = 0, bufs = 0;

	for (; m; m = mbuf_next(&r->pool, m)) {
		bytes += m->len;
		last = m;
		if (++bufs > AGG_MAX_BUFS)
			FAIL("more than %d buffers in a chain", AGG_MAX_BUFS);
	}
	if (head->total != bytes)
		FAIL("total is %u, buffers hold %u", head->total, bytes);
	if (head->tail != mbuf_index(&r->pool, last))
		FAIL("tail is not the last buffer");
	if (head->nbufs != bufs)
		FAIL("nbufs is %u of %u", head->nbufs, bufs);
	if (head->nsegs != n)
		FAIL("nsegs is %u of %u", head->nsegs, n);
	return NULL;
}

static const char *check_lone(const struct ctx *c)
{
	const struct oracle_pkt *in = &c->pkt[c->id[0]];
	bool completes = c->conf->trust_partial && c->head.partial;

	if (c->len != in->len && (c->len != c->head.end || !(c->head.tcp || c->head.udp)))
		FAIL("lone frame of %u bytes has %u", in->len, c->len);
	if (memcmp(c->frame, in->frame, c->len))
		FAIL("lone frame was changed");
	if (c->vh.gso_type != VIRTIO_NET_HDR_GSO_NONE)
		FAIL("lone frame with GSO type %u", c->vh.gso_type);
	if (!!(c->vh.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != completes)
		FAIL("lone frame: flags %#x, partial %d", c->vh.flags, completes);
	if (completes && (c->vh.csum_start != c->head.l4 ||
			  c->vh.csum_start + c->vh.csum_offset != c->l4_field))
		FAIL("lone frame: checksum at %u+%u", c->vh.csum_start,
		     c->vh.csum_offset);
	if (c->vh.flags & VIRTIO_NET_HDR_F_DATA_VALID && !c->head.good)
		FAIL("unverified lone frame marked valid");
	return NULL;
}

/* The headers that the super-packet must have, made from the first packet's. */
static void expect_headers(const struct ctx *c, uint8_t *h)
{
	uint32_t ip_len = c->head.data - c->head.l3 + c->payload;
	uint8_t *ip = h + c->head.l3, *l4 = h + c->head.l4;

	memcpy(h, c->pkt[c->id[0]].frame, c->head.data);
	if (c->head.v6) {
		pkt_put16(ip + 4, (uint16_t)(ip_len - 40));
	} else {
		pkt_put16(ip + 2, (uint16_t)ip_len);
		pkt_put16(ip + 10, 0);
		pkt_put16(ip + 10, (uint16_t)~pkt_sum(ip, c->head.l4 - c->head.l3));
	}
	if (c->tcp)
		l4[13] |= (uint8_t)(c->flags & (PKT_PSH | PKT_FIN));
	else
		pkt_put16(l4 + 4, (uint16_t)(8 + c->payload));
}

static const char *check_vh(const struct ctx *c)
{
	const struct virtio_net_hdr_v1 *v = &c->vh;
	unsigned int type = !c->tcp	 ? VIRTIO_NET_HDR_GSO_UDP_L4
			    : c->head.v6 ? VIRTIO_NET_HDR_GSO_TCPV6
					 : VIRTIO_NET_HDR_GSO_TCPV4;

	if (c->tcp && c->head.flags & PKT_CWR)
		type |= VIRTIO_NET_HDR_GSO_ECN;
	if (v->gso_type != type)
		FAIL("gso_type %#x, not %#x", v->gso_type, type);
	if (v->gso_size != c->head.end - c->head.data)
		FAIL("gso_size %u, first payload %u", v->gso_size,
		     c->head.end - c->head.data);
	if (v->hdr_len != c->head.data)
		FAIL("hdr_len %u, not %u", v->hdr_len, c->head.data);
	if (v->num_buffers != 1)
		FAIL("num_buffers %u", v->num_buffers);
	return NULL;
}

/* What is promised about the checksum of a super-packet, and is it true? */
static const char *check_super_csum(const struct ctx *c)
{
	uint32_t l4_bytes = c->head.data - c->head.l4 + c->payload;
	const uint8_t *l4 = c->frame + c->head.l4;
	uint32_t pseudo = pkt_pseudo(c->frame + c->head.l3, c->tcp ? 6 : 17, l4_bytes);
	bool valid;

	if (c->vh.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		if (c->bad)
			FAIL("NEEDS_CSUM over %u packets that nobody vouched for",
			     c->bad);
		if (c->conf->checksum == AGG_CARRY && !c->partial)
			FAIL("NEEDS_CSUM over sums that were only carried");
		if (c->vh.csum_start != c->head.l4 ||
		    c->vh.csum_start + c->vh.csum_offset != c->l4_field)
			FAIL("checksum at %u+%u", c->vh.csum_start, c->vh.csum_offset);
		if (pkt_get16(c->frame + c->l4_field) != pkt_fold(pseudo))
			FAIL("checksum field is not the pseudo-header sum");
		return NULL;
	}
	if (c->conf->checksum == AGG_VERIFY || c->partial)
		FAIL("verified super-packet without NEEDS_CSUM");
	if (c->vh.flags & VIRTIO_NET_HDR_F_DATA_VALID)
		FAIL("carried super-packet marked valid");
	valid = pkt_fold((uint64_t)pseudo + pkt_sum(l4, l4_bytes)) == 0xffff;
	if (!c->bad && !valid)
		FAIL("carried checksum is wrong, all payload is intact");
	if (c->bad == 1 && valid) /* two errors may cancel out */
		FAIL("carried checksum is right, a packet is corrupt");
	return NULL;
}

static const char *check_super(const struct ctx *c)
{
	uint8_t want[512];
	uint32_t off = c->head.data;
	const char *bad;

	assert(c->head.data <= sizeof(want));
	if (c->len != c->head.data + c->payload)
		FAIL("super-packet has %u bytes, not %u", c->len,
		     c->head.data + c->payload);
	expect_headers(c, want);
	memcpy(want + c->l4_field, c->frame + c->l4_field, 2); /* looked at below */
	for (uint32_t i = 0; i < c->head.data; i++)
		if (want[i] != c->frame[i])
			FAIL("header byte %u is %02x, not %02x", i, c->frame[i], want[i]);
	for (unsigned int i = 0; i < c->n; i++) {
		const struct oracle_pkt *in = &c->pkt[c->id[i]];
		struct model_pkt p;

		parse(&p, in);
		if (memcmp(c->frame + off, in->frame + p.data, p.end - p.data))
			FAIL("payload of segment %u differs", i);
		off += p.end - p.data;
	}
	bad = check_vh(c);
	return bad ? bad : check_super_csum(c);
}

/* Remove the tags, as the port's side of the wire has none; vh follows. */
static uint16_t strip_tags(struct ctx *c, unsigned int *ntags)
{
	bool plain = pkt_get16(c->frame + 12) == 0x8100;
	uint16_t tci = 0, type;

	for (*ntags = 0; *ntags < 2; ++*ntags) {
		type = pkt_get16(c->frame + 12);
		if (c->len < 18 || (type != 0x8100 && type != 0x88a8))
			break;
		tci = pkt_get16(c->frame + 14);
		memmove(c->frame + 12, c->frame + 16, c->len - 16);
		c->len -= 4;
		if (c->vh.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
			c->vh.csum_start -= 4;
		if (c->vh.gso_type)
			c->vh.hdr_len -= 4;
	}
	/* Two tags and 802.1ad are put back by nobody: compared without them. */
	return plain && *ntags == 1 ? tci : 0;
}

/* One segment against its packet; @got is patched where GSO keeps nothing. */
static const char *check_segment(const struct ctx *c, unsigned int i, uint8_t *got,
				 uint32_t got_len, unsigned int ntags, bool tagged)
{
	const struct oracle_pkt *in = &c->pkt[c->id[i]];
	static uint8_t want[PKT_MAX];
	struct model_pkt p;
	uint32_t len, cut = tagged ? 0 : 4 * ntags, l3, field;

	parse(&p, in);
	len = c->n == 1 ? c->whole : p.end;
	memcpy(want, in->frame, len);
	field = p.l4 + (p.tcp ? 16 : 6);
	if (p.partial && c->conf->trust_partial) {
		uint32_t sum = pkt_pseudo(want + p.l3, p.tcp ? 6 : 17, p.end - p.l4);
		uint16_t full;

		pkt_put16(want + field, 0);
		full = (uint16_t)~pkt_fold((uint64_t)sum +
					   pkt_sum(want + p.l4, p.end - p.l4));
		pkt_put16(want + field, !full && p.udp ? 0xffff : full);
	}
	memmove(want + 12, want + 12 + cut, len - 12 - cut);
	len -= cut;
	if (got_len != len)
		FAIL("segment %u has %u bytes, not %u", i, got_len, len);
	if (c->n > 1) {
		l3 = p.l3 - cut;
		if (!p.v6) {
			uint16_t id = (uint16_t)(c->head.id4 + i);

			if (pkt_sum(got + l3, p.l4 - p.l3) != 0xffff)
				FAIL("segment %u: bad IPv4 checksum", i);
			if (pkt_get16(got + l3 + 4) != id)
				FAIL("segment %u: identification %u, not %u", i,
				     pkt_get16(got + l3 + 4), id);
			if (c->last_id == c->head.id4) { /* all the same */
				memcpy(got + l3 + 4, want + l3 + 4, 2);
				memcpy(got + l3 + 10, want + l3 + 10, 2);
			}
		}
		if (c->bad)
			memcpy(got + field - cut, want + field - cut, 2);
	}
	for (uint32_t k = 0; k < len; k++)
		if (got[k] != want[k])
			FAIL("segment %u: byte %u is %02x, not %02x", i, k, got[k],
			     want[k]);
	return NULL;
}

/* NEEDS_CSUM over a carried checksum, to see the segments of a frame with a bad one. */
static void pretend_verified(struct ctx *c, struct gso_frame *f)
{
	uint32_t cut = c->whole - c->len; /* tags */
	uint8_t *l3 = c->frame + c->head.l3 - cut;
	uint32_t l4 = c->head.l4 - cut, field = c->l4_field - cut;

	pkt_put16(c->frame + field,
		  pkt_fold(pkt_pseudo(l3, c->tcp ? 6 : 17, c->len - l4)));
	f->vh.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	f->vh.csum_start = (uint16_t)l4;
	f->vh.csum_offset = (uint16_t)(field - l4);
}

static const char *check_segments(struct ctx *c)
{
	static struct collect col;
	struct gso_frame f;
	struct iovec iov[3];
	unsigned int ntags;
	uint16_t tci;
	int n;

	tci = strip_tags(c, &ntags);
	iov[0] = (struct iovec){ c->frame, 14 }; /* buffers cut anywhere */
	iov[1] = (struct iovec){ c->frame + 14, (c->len - 14) / 3 };
	iov[2].iov_base = c->frame + 14 + iov[1].iov_len;
	iov[2].iov_len = c->len - 14 - iov[1].iov_len;
	f = (struct gso_frame){ .vh = c->vh, .iov = iov, .niov = 3, .len = c->len };
	col.sink.get = collect_get;
	col.used = col.n = 0;
	n = gso_segment(&f, PKT_MAX, tci, &col.sink);
	if (c->bad && c->n > 1) {
		/* Only the carried sum knows; without it, the bytes are as they came. */
		if (c->bad == 1 && (n != -EINVAL || col.n))
			FAIL("a carried frame with a bad packet was cut up: %d", n);
		pretend_verified(c, &f);
		col.used = col.n = 0;
		n = gso_segment(&f, PKT_MAX, tci, &col.sink);
	}
	if (n < 0 || (unsigned int)n != col.n || col.n != c->n)
		FAIL("gso_segment() gave %d, %u frames of %u", n, col.n, c->n);
	for (unsigned int i = 0; i < c->n; i++) {
		const char *bad = check_segment(c, i, col.buf + col.off[i], col.len[i],
						ntags, tci != 0);
		if (bad)
			return bad;
	}
	return NULL;
}

const char *oracle_check(struct rig *r, struct mbuf *head, const struct oracle_pkt *pkt,
			 const struct agg_conf *conf, int id[AGG_MAX_BUFS],
			 unsigned int *n)
{
	static struct ctx c;
	struct iovec iov[AGG_MAX_BUFS];
	unsigned int niov;
	const char *bad;

	*n = rig_chain_ids(r, head, id, AGG_MAX_BUFS);
	bad = check_links(r, head, *n);
	if (bad)
		return bad;
	memset(&c, 0, offsetof(struct ctx, frame));
	c.pkt = pkt;
	c.conf = conf;
	c.id = id;
	c.n = *n;
	parse(&c.head, &pkt[id[0]]);
	c.tcp = c.head.tcp;
	c.l4_field = c.head.l4 + (c.tcp ? 16 : 6);
	for (unsigned int i = 0; i < c.n; i++) {
		struct model_pkt p;

		parse(&p, &pkt[id[i]]);
		c.payload += p.end - p.data;
		c.flags |= p.flags;
		c.last_id = p.id4;
		if (conf->trust_partial && p.partial)
			c.partial++;
		else if (!p.good)
			c.bad++;
	}
	memset(&c.vh, 0xee, sizeof(c.vh));
	gso_finish(&r->pool, head, &c.vh);
	niov = mbuf_iov(&r->pool, head, iov, AGG_MAX_BUFS);
	if (!niov)
		FAIL("mbuf_iov() found more than AGG_MAX_BUFS buffers");
	c.len = 0;
	for (unsigned int i = 0; i < niov; i++) {
		if (c.len + iov[i].iov_len > PKT_MAX)
			FAIL("frame longer than %d bytes", PKT_MAX);
		memcpy(c.frame + c.len, iov[i].iov_base, iov[i].iov_len);
		c.len += (uint32_t)iov[i].iov_len;
	}
	c.whole = c.len;
	bad = c.n == 1 ? check_lone(&c) : check_super(&c);
	return bad ? bad : check_segments(&c);
}
