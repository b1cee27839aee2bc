// SPDX-License-Identifier: BSD-2-Clause
/*
 * gso_segment: a frame from an instance becomes frames for the wire.
 *
 * Everything in the frame and in its virtio-net header is hostile input. Headers are
 * gathered into a template of bounded size and parsed there once; then each segment
 * is the template with a few fields set, and its payload, copied and summed in one pass.
 * Sums of what all segments have in common are taken once. A frame that stays on the host
 * is judged by the same parsing, and left whole.
 *
 * No allocation, no state; any thread.
 */
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "../lib/csum.h"
#include "gso.h"
#include "wire.h"

/* Ethernet, two tags, IP with options or extension headers, TCP with options: what IPv4
 * can have is 142 bytes. Longer extension headers make a GSO frame malformed. */
#define HDR_MAX	 512
#define MAX_TAGS 2

/* ---- reading an iovec ------------------------------------------------------ */

struct cursor {
	const struct iovec *iov;
	size_t off; /* bytes of *iov already read */
};

/*
 * Copy the next @n bytes to @dst, or go past them if it is NULL. They exist, by
 * frame_complete(). The sum comes with the copy at the same price, so there is no other
 * way to read. Return: their sum
 */
static uint16_t cursor_read(struct cursor *c, uint8_t *dst, size_t n)
{
	uint16_t sum = 0;

	for (uint32_t done = 0; done < n;) {
		size_t part = c->iov->iov_len - c->off;
		const uint8_t *src;

		if (!part) {
			c->iov++;
			c->off = 0;
			continue;
		}
		if (part > n - done)
			part = n - done;
		src = (const uint8_t *)c->iov->iov_base + c->off;
		sum = csum_add_at(
			sum, dst ? csum_copy(dst + done, src, part) : csum(src, part),
			done);
		c->off += part;
		done += (uint32_t)part;
	}
	return sum;
}

/* Are there as many bytes as the frame says? */
static bool frame_complete(const struct gso_frame *f)
{
	size_t total = 0;

	for (unsigned int i = 0; i < f->niov && total < f->len; i++)
		total += f->iov[i].iov_len;
	return total >= f->len;
}

static void put_tag(uint8_t *p, uint16_t tci)
{
	wire_put16(p, WIRE_ETYPE_TAG);
	wire_put16(p + 2, tci);
}

/* ---- a frame that stays whole ---------------------------------------------- */

/* Is there a checksum to complete where the header says? Return: 0, -EINVAL */
static int check_lone(const struct gso_frame *f)
{
	uint32_t start = le16toh(f->vh.csum_start);
	uint32_t field = start + le16toh(f->vh.csum_offset);

	if (f->len < WIRE_ETH)
		return -EINVAL;
	if (!(f->vh.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return 0;
	/* Not in the Ethernet header: its addresses have been checked already. */
	return start < WIRE_ETH || field + sizeof(uint16_t) > f->len ? -EINVAL : 0;
}

static int send_lone(const struct gso_frame *f, uint32_t mtu_frame, uint16_t vlan,
		     struct gso_sink *sink)
{
	bool need_csum = f->vh.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
	uint32_t start = le16toh(f->vh.csum_start);
	uint32_t field = start + le16toh(f->vh.csum_offset);
	uint32_t tag = vlan ? WIRE_TAG : 0;
	struct cursor c = { .iov = f->iov };
	uint16_t check;
	uint8_t *out;
	int err = check_lone(f);

	if (err)
		return err;
	if (f->len > mtu_frame || tag > mtu_frame - f->len)
		return -EMSGSIZE;

	out = sink->get(sink, f->len + tag);
	if (!out)
		return -ENOBUFS;
	cursor_read(&c, out, WIRE_MACS);
	if (tag)
		put_tag(out + WIRE_MACS, vlan);
	out += tag; /* from here on, offsets of the frame as it came */
	if (!need_csum) {
		cursor_read(&c, out + WIRE_MACS, f->len - WIRE_MACS);
		return 1;
	}
	cursor_read(&c, out + WIRE_MACS, start - WIRE_MACS);
	/* The field holds the pseudo-header sum and so adds it. */
	check = (uint16_t)~cursor_read(&c, out + start, f->len - start);
	/* UDP must not send 0; for every other protocol it is the same number. */
	wire_put_raw16(out + field, check ? check : 0xffff);
	return 1;
}

/* ---- a frame to cut -------------------------------------------------------- */

/* The headers of every segment, and what is known about them. */
struct seg_template {
	uint8_t hdr[HDR_MAX + WIRE_TAG];
	uint32_t len;	 /* bytes of hdr, Ethernet to L4 */
	uint32_t l3, l4; /* offsets into hdr */
	bool ipv6, udp;
	/* First segment's; the fields are 0 in hdr, as are lengths and checksums. */
	uint32_t seq;  /* TCP */
	uint16_t id;   /* IPv4 identification */
	uint8_t flags; /* TCP */
	/* Sums over hdr with those fields 0. */
	uint16_t ip_sum; /* IPv4 header */
	uint16_t l4_sum; /* pseudo-header without length, and L4 header */
};

/* @have: bytes gathered; @total: bytes of the frame. Return: L4 protocol, -EINVAL */
static int parse_ip4(struct seg_template *t, uint32_t have, uint32_t total)
{
	const uint8_t *ip = t->hdr + t->l3;
	uint32_t ihl;

	if (have < t->l3 + WIRE_IP4_MIN || ip[0] >> 4 != 4)
		return -EINVAL;
	ihl = (ip[0] & 15) * 4u;
	if (ihl < WIRE_IP4_MIN || t->l3 + ihl > have)
		return -EINVAL;
	if (wire_get16(ip + WIRE_IP4_LEN) != total - t->l3)
		return -EINVAL;
	if (wire_get16(ip + WIRE_IP4_FRAG) & 0x3fff) /* more fragments, offset */
		return -EINVAL;
	t->l4 = t->l3 + ihl;
	return ip[WIRE_IP4_PROTO];
}

/* As parse_ip4(). Extension headers, RFC 8200 section 4: those that may stand in front
 * of TCP in every segment alike. */
static int parse_ip6(struct seg_template *t, uint32_t have, uint32_t total)
{
	const uint8_t *ip = t->hdr + t->l3;
	uint8_t next;

	if (have < t->l3 + WIRE_IP6_MIN || ip[0] >> 4 != 6)
		return -EINVAL;
	if (wire_get16(ip + WIRE_IP6_LEN) != total - t->l3 - WIRE_IP6_MIN)
		return -EINVAL;
	next = ip[WIRE_IP6_NEXT];
	t->l4 = t->l3 + WIRE_IP6_MIN;
	while (next == IPPROTO_HOPOPTS || next == IPPROTO_DSTOPTS ||
	       next == IPPROTO_ROUTING) {
		const uint8_t *ext;

		if (t->l4 + 8 > have)
			return -EINVAL;
		ext = t->hdr + t->l4;
		/* With segments left, the pseudo-header has another destination. */
		if (next == IPPROTO_ROUTING && ext[3])
			return -EINVAL;
		next = ext[0];
		t->l4 += (ext[1] + 1u) * 8;
	}
	return next;
}

/*
 * Find the headers in the first @have bytes, in t->hdr, of a frame of @total bytes.
 * Return: 0, -EINVAL
 */
static int parse(struct seg_template *t, uint32_t have, uint32_t total, uint8_t type)
{
	uint32_t off = WIRE_MACS, l4_len;
	uint16_t etype;
	int proto;

	if (have < WIRE_ETH)
		return -EINVAL;
	etype = wire_get16(t->hdr + off);
	for (int i = 0; i < MAX_TAGS; i++) {
		if (etype != WIRE_ETYPE_TAG && etype != WIRE_ETYPE_STAG)
			break;
		off += WIRE_TAG;
		if (have < off + 2)
			return -EINVAL;
		etype = wire_get16(t->hdr + off);
	}
	t->l3 = off + 2;
	t->ipv6 = etype == WIRE_ETYPE_IP6;
	t->udp = type == VIRTIO_NET_HDR_GSO_UDP_L4;
	if (etype != WIRE_ETYPE_IP4 && !t->ipv6)
		return -EINVAL;
	if (!t->udp && t->ipv6 != (type == VIRTIO_NET_HDR_GSO_TCPV6))
		return -EINVAL;

	proto = t->ipv6 ? parse_ip6(t, have, total) : parse_ip4(t, have, total);
	if (proto != (t->udp ? IPPROTO_UDP : IPPROTO_TCP))
		return -EINVAL;
	if (t->udp) {
		l4_len = WIRE_UDP_HLEN;
		if (have < t->l4 + l4_len ||
		    wire_get16(t->hdr + t->l4 + WIRE_UDP_LEN) != total - t->l4)
			return -EINVAL;
	} else {
		const uint8_t *tcp;

		if (have < t->l4 + WIRE_TCP_MIN)
			return -EINVAL;
		tcp = t->hdr + t->l4;
		l4_len = (tcp[WIRE_TCP_DOFF] >> 4) * 4u;
		if (l4_len < WIRE_TCP_MIN || have < t->l4 + l4_len)
			return -EINVAL;
		/* Neither makes sense twice. */
		if (tcp[WIRE_TCP_FLAGS] & (WIRE_TCP_SYN | WIRE_TCP_RST))
			return -EINVAL;
	}
	t->len = t->l4 + l4_len;
	return 0;
}

/* Does the header's view of the checksum agree with the frame? Return: 0, -EINVAL */
static int check_request(const struct seg_template *t, const struct gso_frame *f)
{
	uint32_t offset = t->udp ? WIRE_UDP_CSUM : WIRE_TCP_CSUM;

	if (f->vh.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		return le16toh(f->vh.csum_start) == t->l4 &&
				       le16toh(f->vh.csum_offset) == offset
			       ? 0
			       : -EINVAL;
	/* Nothing says that a datagram without a checksum is right. */
	return t->udp && !wire_raw16(t->hdr + t->l4 + offset) ? -EINVAL : 0;
}

/* Find and check the headers of a GSO frame. Return: 0, -EINVAL */
static int read_headers(struct seg_template *t, const struct gso_frame *f, uint8_t type)
{
	uint32_t have = f->len < HDR_MAX ? f->len : HDR_MAX;
	struct cursor c = { .iov = f->iov };
	int err;

	if (!f->vh.gso_size)
		return -EINVAL;
	cursor_read(&c, t->hdr, have);
	err = parse(t, have, f->len, type);
	return err ? err : check_request(t, f);
}

/*
 * Without NEEDS_CSUM the frame must prove to be right before its segments get checksums
 * of ours; virtio asks for NEEDS_CSUM with GSO, but what gso_finish() carried has none.
 * @c: at the payload.
 */
static int verify_csum(const struct seg_template *t, const struct gso_frame *f,
		       struct cursor c)
{
	uint64_t sum;

	if (f->vh.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		return 0;
	sum = gso_pseudo_sum(t->hdr + t->l3, t->ipv6, t->udp ? IPPROTO_UDP : IPPROTO_TCP,
			     f->len - t->l4);
	sum += csum(t->hdr + t->l4, t->len - t->l4);
	sum += cursor_read(&c, NULL, f->len - t->len);
	return csum_equal(csum_fold(sum), 0xffff) ? 0 : -EINVAL;
}

/* Take out of the headers what differs between segments, and sum the rest. */
static void prepare(struct seg_template *t, uint16_t vlan)
{
	uint8_t *ip, *l4;

	if (vlan) {
		memmove(t->hdr + WIRE_MACS + WIRE_TAG, t->hdr + WIRE_MACS,
			t->len - WIRE_MACS);
		put_tag(t->hdr + WIRE_MACS, vlan);
		t->l3 += WIRE_TAG;
		t->l4 += WIRE_TAG;
		t->len += WIRE_TAG;
	}
	ip = t->hdr + t->l3;
	l4 = t->hdr + t->l4;
	if (!t->ipv6) {
		t->id = wire_get16(ip + WIRE_IP4_ID);
		wire_put_raw16(ip + WIRE_IP4_LEN, 0);
		wire_put_raw16(ip + WIRE_IP4_ID, 0);
		wire_put_raw16(ip + WIRE_IP4_CSUM, 0);
		t->ip_sum = csum(ip, t->l4 - t->l3);
	}
	if (t->udp) {
		wire_put_raw16(l4 + WIRE_UDP_LEN, 0);
		wire_put_raw16(l4 + WIRE_UDP_CSUM, 0);
	} else {
		t->seq = wire_get32(l4 + WIRE_TCP_SEQ);
		t->flags = l4[WIRE_TCP_FLAGS];
		wire_put32(l4 + WIRE_TCP_SEQ, 0);
		l4[WIRE_TCP_FLAGS] = 0;
		wire_put_raw16(l4 + WIRE_TCP_CSUM, 0);
	}
	t->l4_sum = csum_add(
		gso_pseudo_sum(ip, t->ipv6, t->udp ? IPPROTO_UDP : IPPROTO_TCP, 0),
		csum(l4, t->len - t->l4));
}

/* One segment of the frame. */
struct segment {
	uint32_t n;	   /* 0: first */
	uint32_t off, len; /* of its payload in the frame's, bytes */
	bool last;
	uint16_t sum; /* of its payload */
};

static void put_headers(const struct seg_template *t, uint8_t *out,
			const struct segment *s)
{
	uint8_t *ip = out + t->l3, *l4 = out + t->l4;
	uint32_t l4_bytes = t->len - t->l4 + s->len;
	uint32_t ip_bytes = t->len - t->l3 + s->len;
	uint64_t sum = (uint64_t)t->l4_sum + s->sum + htons((uint16_t)l4_bytes);
	uint16_t check;

	memcpy(out, t->hdr, t->len);
	if (t->ipv6) {
		wire_put16(ip + WIRE_IP6_LEN, ip_bytes - WIRE_IP6_MIN);
	} else {
		uint16_t id = (uint16_t)(t->id + s->n);

		wire_put16(ip + WIRE_IP4_LEN, ip_bytes);
		wire_put16(ip + WIRE_IP4_ID, id);
		check = (uint16_t)~csum_fold((uint64_t)t->ip_sum +
					     htons((uint16_t)ip_bytes) + htons(id));
		wire_put_raw16(ip + WIRE_IP4_CSUM, check);
	}
	if (t->udp) {
		wire_put16(l4 + WIRE_UDP_LEN, l4_bytes);
		check = (uint16_t)~csum_fold(sum + htons((uint16_t)l4_bytes));
		wire_put_raw16(l4 + WIRE_UDP_CSUM, check ? check : 0xffff);
	} else {
		uint32_t seq = t->seq + s->off;
		uint8_t flags = t->flags;

		if (!s->last)
			flags &= (uint8_t) ~(WIRE_TCP_PSH | WIRE_TCP_FIN);
		if (s->n)
			flags &= (uint8_t)~WIRE_TCP_CWR;
		wire_put32(l4 + WIRE_TCP_SEQ, seq);
		l4[WIRE_TCP_FLAGS] = flags;
		check = (uint16_t)~csum_fold(sum + htonl(seq) + htons(flags));
		wire_put_raw16(l4 + WIRE_TCP_CSUM, check);
	}
}

static int send_segments(const struct gso_frame *f, uint8_t type, uint32_t mtu_frame,
			 uint16_t vlan, struct gso_sink *sink)
{
	uint32_t gso_size = le16toh(f->vh.gso_size), payload, longest;
	struct cursor c = { .iov = f->iov };
	struct segment s = { 0 };
	struct seg_template t = { 0 };
	int err = read_headers(&t, f, type);

	if (err)
		return err;
	cursor_read(&c, NULL, t.len);
	err = verify_csum(&t, f, c);
	if (err)
		return err;

	payload = f->len - t.len;
	prepare(&t, vlan);
	longest = payload < gso_size ? payload : gso_size;
	if (t.len > mtu_frame || longest > mtu_frame - t.len)
		return -EMSGSIZE;
	do {
		uint8_t *out;

		s.len = payload - s.off < gso_size ? payload - s.off : gso_size;
		s.last = s.off + s.len == payload;
		out = sink->get(sink, t.len + s.len);
		if (!out)
			return -ENOBUFS;
		s.sum = cursor_read(&c, out + t.len, s.len);
		put_headers(&t, out, &s);
		s.off += s.len;
		s.n++;
	} while (s.off < payload);
	return (int)s.n;
}

/* Return: GSO type without the ECN bit, -EINVAL */
static int known_type(uint8_t type)
{
	switch (type) {
	case VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN:
	case VIRTIO_NET_HDR_GSO_TCPV6 | VIRTIO_NET_HDR_GSO_ECN:
	case VIRTIO_NET_HDR_GSO_NONE:
	case VIRTIO_NET_HDR_GSO_TCPV4:
	case VIRTIO_NET_HDR_GSO_TCPV6:
	case VIRTIO_NET_HDR_GSO_UDP_L4: return type & ~VIRTIO_NET_HDR_GSO_ECN;
	default: /* UDP fragmentation (3) among them: no wire frame is made of it */
		return -EINVAL;
	}
}

int gso_segment(const struct gso_frame *f, uint32_t mtu_frame, uint16_t vlan,
		struct gso_sink *sink)
{
	int type = known_type(f->vh.gso_type);

	if (type < 0 || !frame_complete(f))
		return -EINVAL;
	if (type == VIRTIO_NET_HDR_GSO_NONE)
		return send_lone(f, mtu_frame, vlan, sink);
	return send_segments(f, (uint8_t)type, mtu_frame, vlan, sink);
}

static int accept_gso(const struct gso_frame *f, uint8_t type,
		      struct virtio_net_hdr_v1 *vh)
{
	struct seg_template t = { 0 };
	int err = read_headers(&t, f, type);

	if (err)
		return err;
	/* What fits into one segment is a packet like any other. */
	if (f->len - t.len <= le16toh(f->vh.gso_size))
		return 0;
	vh->gso_type = f->vh.gso_type;
	vh->gso_size = f->vh.gso_size;
	vh->hdr_len = htole16((uint16_t)t.len);
	return 0;
}

int gso_accept_offload(struct gso_frame *f)
{
	struct virtio_net_hdr_v1 vh = { .num_buffers = htole16(1) };
	int type = known_type(f->vh.gso_type), err;

	if (type < 0 || !frame_complete(f))
		return -EINVAL;
	if (f->vh.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		vh.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		vh.csum_start = f->vh.csum_start;
		vh.csum_offset = f->vh.csum_offset;
	}
	if (type == VIRTIO_NET_HDR_GSO_NONE)
		err = check_lone(f);
	else
		err = accept_gso(f, (uint8_t)type, &vh);
	if (!err)
		f->vh = vh;
	return err;
}
