// SPDX-License-Identifier: BSD-2-Clause
/*
 * gso_segment, gso_accept: what an instance may send, and what it may try.
 */
#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "keep.h"
#include "pkt.h"

#define NO_MTU (65535 + 22)
#define TCP4   VIRTIO_NET_HDR_GSO_TCPV4
#define TCP6   VIRTIO_NET_HDR_GSO_TCPV6
#define UDP    VIRTIO_NET_HDR_GSO_UDP_L4

static void assert_good(const uint8_t *f, uint32_t len)
{
	assert_true(keep_good(f, len));
}

/* A frame in one piece, as an instance's stack would send it. */
struct sent {
	struct virtio_net_hdr_v1 vh;
	uint32_t len;
	uint8_t data[PKT_MAX];
};

enum base { V4, V6, U4, U6, LONE };

static void make_sent(struct sent *s, enum base base, uint32_t payload)
{
	static uint8_t bytes[PKT_MAX];
	bool v6 = base == V6 || base == U6, udp = base == U4 || base == U6;
	struct pkt_spec p;

	pkt_default(&p);
	p.ipv6 = v6;
	p.proto = udp ? 17 : 6;
	p.flags |= PKT_PSH;
	keep_fill(bytes, payload, 77);
	p.payload = bytes;
	p.len = payload;
	p.csum = PKT_CSUM_PARTIAL;
	memset(&s->vh, 0, sizeof(s->vh));
	s->len = pkt_build(&p, s->data);
	s->vh.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	s->vh.csum_start = htole16(v6 ? 54 : 34);
	s->vh.csum_offset = htole16(udp ? 6 : 16);
	if (base == LONE)
		return;
	s->vh.gso_type = udp ? UDP : v6 ? TCP6 : TCP4;
	s->vh.gso_size = htole16(1000);
	s->vh.hdr_len = htole16(0xffff); /* a hint, and a wrong one */
}

static int segment(const struct sent *s, uint32_t mtu_frame, uint16_t vlan,
		   struct keep *k)
{
	struct iovec iov;
	struct gso_frame f = { .vh = s->vh, .iov = &iov, .niov = 1, .len = s->len };
	uint8_t *exact = malloc(s->len ? s->len : 1);
	int ret;

	assert_non_null(exact);
	memcpy(exact, s->data, s->len);
	iov = (struct iovec){ exact, s->len };
	ret = gso_segment(&f, mtu_frame, vlan, &k->sink);
	free(exact);
	return ret;
}

/* What another instance would be given. Return: gso_accept() */
static int accept_sent(const struct sent *s, struct virtio_net_hdr_v1 *vh)
{
	struct iovec iov = { (void *)s->data, s->len };
	struct gso_frame f = { .vh = s->vh, .iov = &iov, .niov = 1, .len = s->len };
	int err = gso_accept(&f);

	if (err)
		assert_memory_equal(&f.vh, &s->vh, sizeof(f.vh));
	*vh = f.vh;
	return err;
}

enum where { END, VH8, VH16, FR8, FR16, LEN };

struct patch {
	enum where where;
	unsigned int off;
	unsigned int value;
};

#define VH(field) offsetof(struct virtio_net_hdr_v1, field)

/* All of them -EINVAL. Offsets: Ethernet 14; IPv4 TCP and UDP at 34; IPv6 at 14, its L4
 * at 54. */
/* clang-format off */
static const struct {
	const char *name;
	enum base base;
	struct patch patch[4];
} bad[] = {
	{ "gso_size 0", V4, { { VH16, VH(gso_size), 0 } } },
	{ "type UFO", U4, { { VH8, VH(gso_type), 3 } } },
	{ "type 2", V4, { { VH8, VH(gso_type), 2 } } },
	{ "type 0x7f", V4, { { VH8, VH(gso_type), 0x7f } } },
	{ "no type, ECN", V4, { { VH8, VH(gso_type), 0x80 } } },
	{ "UDP with ECN", U4, { { VH8, VH(gso_type), 0x85 } } },
	{ "TCPv6 over v4", V4, { { VH8, VH(gso_type), TCP6 } } },
	{ "TCPv4 over v6", V6, { { VH8, VH(gso_type), TCP4 } } },
	{ "UDP type, TCP frame", V4, { { VH8, VH(gso_type), UDP } } },
	{ "TCP type, UDP frame", U4, { { VH8, VH(gso_type), TCP4 } } },
	{ "UDP type, TCP over v6", V6, { { VH8, VH(gso_type), UDP } } },
	{ "csum_start off by 2", V4, { { VH16, VH(csum_start), 36 } } },
	{ "csum_start 0", V4, { { VH16, VH(csum_start), 0 } } },
	{ "csum_offset of UDP", V4, { { VH16, VH(csum_offset), 6 } } },
	{ "csum_offset of TCP", U4, { { VH16, VH(csum_offset), 16 } } },
	{ "wrong checksum", V4, { { VH8, VH(flags), 0 } } },
	{ "wrong UDP checksum", U6, { { VH8, VH(flags), 0 } } },
	{ "ARP", V4, { { FR16, 12, 0x0806 } } },
	{ "v6 EtherType on v4", V4, { { FR16, 12, 0x86dd } } },
	{ "tag in front of nothing", V4, { { FR16, 12, 0x8100 } } },
	{ "version 5", V4, { { FR8, 14, 0x55 } } },
	{ "ihl 4", V4, { { FR8, 14, 0x44 }, { FR8, 42, 0x50 }, { FR8, 43, 0x10 },
		{ VH16, VH(csum_start), 30 } } },
	{ "total length short", V4, { { FR16, 16, 20 + 20 + 2999 } } },
	{ "total length long", V4, { { FR16, 16, 20 + 20 + 3001 } } },
	{ "more fragments", V4, { { FR16, 20, 0x2000 } } },
	{ "fragment offset", V4, { { FR16, 20, 0x0001 } } },
	{ "protocol ICMP", V4, { { FR8, 23, 1 } } },
	{ "data offset 4", V4, { { FR8, 46, 0x40 } } },
	{ "SYN", V4, { { FR8, 47, 0x12 } } },
	{ "RST", V4, { { FR8, 47, 0x14 } } },
	{ "empty", V4, { { LEN, 0, 0 } } },
	{ "13 bytes", V4, { { LEN, 0, 13 } } },
	{ "tag cut", V4, { { FR16, 12, 0x8100 }, { LEN, 0, 17 } } },
	{ "no IP header", V4, { { LEN, 0, 14 } } },
	{ "IP header cut", V4, { { LEN, 0, 33 }, { FR16, 16, 19 } } },
	{ "IP options cut", V4, { { LEN, 0, 40 }, { FR8, 14, 0x4f },
		{ FR16, 16, 26 } } },
	{ "no TCP header", V4, { { LEN, 0, 34 }, { FR16, 16, 20 } } },
	{ "TCP header cut", V4, { { LEN, 0, 53 }, { FR16, 16, 39 } } },
	{ "TCP options cut", V4, { { LEN, 0, 57 }, { FR16, 16, 43 },
		{ FR8, 46, 0x60 } } },
	{ "UDP header cut", U4, { { LEN, 0, 41 }, { FR16, 16, 27 }, { FR16, 38, 7 } } },
	{ "UDP length short", U4, { { FR16, 38, 3007 } } },
	{ "UDP length long", U4, { { FR16, 38, 3009 } } },
	{ "UDP length 0", U4, { { FR16, 38, 0 } } },
	{ "v6 version 4", V6, { { FR8, 14, 0x45 } } },
	{ "v6 length short", V6, { { FR16, 18, 3019 } } },
	{ "v6 length long", V6, { { FR16, 18, 3021 } } },
	{ "v6 length 0", V6, { { FR16, 18, 0 } } },
	{ "v6 header cut", V6, { { LEN, 0, 53 } } },
	{ "v6 fragment", V6, { { FR8, 20, 44 } } },
	{ "v6 no next header", V6, { { FR8, 20, 59 } } },
	{ "v6 extension cut", V6, { { FR8, 20, 60 }, { LEN, 0, 61 },
		{ FR16, 18, 7 } } },
	{ "v6 extension beyond the end", V6, { { FR8, 20, 60 }, { FR16, 54, 0x0601 },
		{ LEN, 0, 62 }, { FR16, 18, 8 } } },
	{ "v6 extension of 2 KiB", V6, { { FR8, 20, 60 }, { FR16, 54, 0x3cff },
		{ VH16, VH(csum_start), 54 + 2048 } } },
	{ "lone: 13 bytes", LONE, { { LEN, 0, 13 }, { VH8, VH(flags), 0 } } },
	{ "lone: empty", LONE, { { LEN, 0, 0 }, { VH8, VH(flags), 0 } } },
	{ "lone: checksum in the source address", LONE, { { VH16, VH(csum_start), 0 },
		{ VH16, VH(csum_offset), 6 } } },
	{ "lone: checksum start 13", LONE, { { VH16, VH(csum_start), 13 } } },
	{ "lone: field beyond the end", LONE,
		{ { VH16, VH(csum_offset), 3054 - 34 - 1 } } },
	{ "lone: start beyond the end", LONE, { { VH16, VH(csum_start), 3054 } } },
	{ "lone: both at most", LONE, { { VH16, VH(csum_start), 0xffff },
		{ VH16, VH(csum_offset), 0xffff } } },
};
/* clang-format on */

static void apply(struct sent *s, const struct patch *p)
{
	uint8_t *vh = (uint8_t *)&s->vh;
	uint16_t le;

	for (int i = 0; i < 4 && p[i].where != END; i++) {
		switch (p[i].where) {
		case VH8: vh[p[i].off] = (uint8_t)p[i].value; break;
		case VH16:
			le = htole16((uint16_t)p[i].value);
			memcpy(vh + p[i].off, &le, 2);
			break;
		case FR8: s->data[p[i].off] = (uint8_t)p[i].value; break;
		case FR16: pkt_put16(s->data + p[i].off, (uint16_t)p[i].value); break;
		case LEN: s->len = p[i].value; break;
		case END: break;
		}
	}
}

static void test_bad(void **state)
{
	static struct sent s;
	struct keep k;

	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct virtio_net_hdr_v1 vh;
		int accepted;

		make_sent(&s, bad[i].base, 3000);
		keep_init(&k, KEEP_MAX);
		/* the frame is good before it is patched */
		assert_true(segment(&s, NO_MTU, 0, &k) > 0);
		keep_fini(&k);
		apply(&s, bad[i].patch);
		for (uint16_t vlan = 0; vlan < 2; vlan++) {
			int ret = segment(&s, NO_MTU, vlan, &k);

			if (ret != -EINVAL || k.n)
				fail_msg("%s: %d, %u frames", bad[i].name, ret, k.n);
		}
		/* Nor does it stay on the host, if it asks for anything but the check of
		 * a checksum that it has. */
		accepted = accept_sent(&s, &vh);
		if (accepted != (s.vh.flags ? -EINVAL : 0))
			fail_msg("%s: accepted: %d", bad[i].name, accepted);
	}
}

/* What may stay whole has the header that a merged packet from the wire would have. */
static void test_accept(void **state)
{
	static const struct {
		enum base base;
		uint8_t type;
		unsigned int hdr_len;
	} good[] = {
		{ V4, TCP4, 54 }, { V4, TCP4 | VIRTIO_NET_HDR_GSO_ECN, 54 },
		{ V6, TCP6, 74 }, { V6, TCP6 | VIRTIO_NET_HDR_GSO_ECN, 74 },
		{ U4, UDP, 42 },  { U6, UDP, 62 },
		{ LONE, 0, 0 },
	};
	static struct sent s;
	struct virtio_net_hdr_v1 vh, want;

	for (unsigned int i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		make_sent(&s, good[i].base, 3000);
		s.vh.gso_type = good[i].type;
		want = s.vh;
		want.hdr_len = htole16((uint16_t)good[i].hdr_len);
		want.num_buffers = htole16(1);
		/* What means nothing is not passed on. */
		s.vh.flags |= VIRTIO_NET_HDR_F_DATA_VALID | 0xf0;
		s.vh.hdr_len = 0xffff;
		s.vh.num_buffers = 77;
		if (good[i].base == LONE)
			s.vh.gso_size = 0xffff;
		assert_int_equal(accept_sent(&s, &vh), 0);
		assert_memory_equal(&vh, &want, sizeof(vh));

		/* The payload of one packet, and a byte more. */
		if (good[i].base == LONE)
			continue;
		s.vh.gso_size = want.gso_size = htole16(2999);
		assert_int_equal(accept_sent(&s, &vh), 0);
		assert_memory_equal(&vh, &want, sizeof(vh));
		want.gso_type = want.gso_size = want.hdr_len = 0;
		for (uint32_t size = 3000; size < 0x10000; size += 0xffff - 3000) {
			s.vh.gso_size = htole16((uint16_t)size);
			assert_int_equal(accept_sent(&s, &vh), 0);
			assert_memory_equal(&vh, &want, sizeof(vh));
		}
	}
	/* Nothing asked for: whatever else the header says, and whatever the frame is. */
	memset(&want, 0, sizeof(want));
	want.num_buffers = htole16(1);
	memset(&s.vh, 0xff, sizeof(s.vh));
	s.vh.flags = VIRTIO_NET_HDR_F_DATA_VALID;
	s.vh.gso_type = 0;
	keep_fill(s.data, s.len, 3);
	assert_int_equal(accept_sent(&s, &vh), 0);
	assert_memory_equal(&vh, &want, sizeof(vh));
}

/* Extension headers of @ext bytes in front of TCP. */
static void make_ext(struct sent *s, unsigned int ext)
{
	static uint8_t bytes[2500];
	struct pkt_spec p;

	make_sent(s, V6, 0);
	pkt_default(&p);
	p.ipv6 = true;
	p.ext = ext;
	keep_fill(bytes, sizeof(bytes), 5);
	p.payload = bytes;
	p.len = sizeof(bytes);
	p.csum = PKT_CSUM_PARTIAL;
	s->len = pkt_build(&p, s->data);
	s->vh.csum_start = htole16((uint16_t)(54 + ext));
}

/* @want: what gso_segment() returns; frames that it makes are good */
static void check_sent(const struct sent *s, uint16_t vlan, int want)
{
	struct keep k;

	keep_init(&k, KEEP_MAX);
	assert_int_equal(segment(s, NO_MTU, vlan, &k), want);
	assert_int_equal(k.n, want > 0 ? want : 0);
	for (unsigned int i = 0; i < k.n; i++)
		assert_good(k.frame[i].data, k.frame[i].len);
	keep_fini(&k);
}

/* Tags and extension headers, as many as there may be and one more. */
static void test_headers(void **state)
{
	static struct sent s;

	make_sent(&s, V4, 3000);
	for (unsigned int tags = 1; tags <= 3; tags++) {
		memmove(s.data + 16, s.data + 12, s.len - 12);
		pkt_put16(s.data + 12, tags == 1 ? 0x8100 : 0x88a8);
		pkt_put16(s.data + 14, 7);
		s.len += 4;
		s.vh.csum_start = htole16((uint16_t)(34 + 4 * tags));
		check_sent(&s, 0, tags <= 2 ? 3 : -EINVAL);
	}

	/* 14 + 40 + 432 + 20 bytes fit into 512, 8 more do not */
	make_ext(&s, 8);
	check_sent(&s, 3, 3);
	make_ext(&s, 432);
	check_sent(&s, 3, 3);
	make_ext(&s, 440);
	check_sent(&s, 3, -EINVAL);
	make_ext(&s, 1024);
	check_sent(&s, 3, -EINVAL);

	/* hop-by-hop; routing with and without segments left; something unknown */
	make_ext(&s, 8);
	s.data[20] = 0;
	check_sent(&s, 3, 3);
	s.data[20] = 43;
	s.data[57] = 0;
	check_sent(&s, 3, 3);
	s.data[57] = 1;
	check_sent(&s, 3, -EINVAL);
	s.data[20] = 51;
	check_sent(&s, 3, -EINVAL);
}

static void test_mtu_and_sink(void **state)
{
	static struct sent s;
	struct keep k;

	make_sent(&s, V4, 3000);
	keep_init(&k, 2);
	assert_int_equal(segment(&s, 14 + 40 + 999, 0, &k), -EMSGSIZE);
	assert_int_equal(segment(&s, 14 + 40 + 1000, 1, &k), -EMSGSIZE);
	assert_int_equal(segment(&s, 0, 0, &k), -EMSGSIZE);
	assert_int_equal(k.n, 0);
	/* two of three segments, both complete */
	assert_int_equal(segment(&s, 14 + 40 + 1000, 0, &k), -ENOBUFS);
	assert_int_equal(k.n, 2);
	assert_good(k.frame[0].data, k.frame[0].len);
	assert_good(k.frame[1].data, k.frame[1].len);
	keep_fini(&k);
	k.max = 3;
	assert_int_equal(segment(&s, 14 + 4 + 40 + 1000, 1, &k), 3);
	keep_fini(&k);

	/* payload that fits into one segment, and none at all */
	make_sent(&s, V4, 900);
	assert_int_equal(segment(&s, 14 + 40 + 900, 0, &k), 1);
	assert_good(k.frame[0].data, k.frame[0].len);
	assert_int_equal(k.frame[0].data[47], PKT_ACK | PKT_PSH);
	keep_fini(&k);
	make_sent(&s, V4, 0);
	assert_int_equal(segment(&s, 54, 0, &k), 1);
	assert_good(k.frame[0].data, k.frame[0].len);
	keep_fini(&k);

	make_sent(&s, LONE, 1000);
	assert_int_equal(segment(&s, 14 + 40 + 999, 0, &k), -EMSGSIZE);
	assert_int_equal(segment(&s, 14 + 40 + 1003, 1, &k), -EMSGSIZE);
	assert_int_equal(k.n, 0);
	assert_int_equal(segment(&s, 14 + 40 + 1000, 0, &k), 1);
	assert_int_equal(segment(&s, 14 + 40 + 1004, 1, &k), 1);
	k.max = k.n;
	assert_int_equal(segment(&s, 14 + 40 + 1004, 1, &k), -ENOBUFS);
	keep_fini(&k);
}

/* Without offloads not a byte changes, whatever the frame is. */
static void test_lone_verbatim(void **state)
{
	static struct sent s;
	struct keep k;

	for (s.len = 14; s.len < 200; s.len++) {
		keep_fill(s.data, s.len, s.len);
		memset(&s.vh, 0, sizeof(s.vh));
		s.vh.flags = VIRTIO_NET_HDR_F_DATA_VALID;
		s.vh.hdr_len = s.vh.csum_start = s.vh.csum_offset = s.vh.gso_size =
			0xffff;
		keep_init(&k, 2);
		assert_int_equal(segment(&s, NO_MTU, 0, &k), 1);
		assert_int_equal(k.frame[0].len, s.len);
		assert_memory_equal(k.frame[0].data, s.data, s.len);
		assert_int_equal(segment(&s, NO_MTU, 0xe123, &k), 1);
		assert_int_equal(k.frame[1].len, s.len + 4);
		assert_memory_equal(k.frame[1].data, s.data, 12);
		assert_int_equal(pkt_get32(k.frame[1].data + 12), 0x8100e123);
		assert_memory_equal(k.frame[1].data + 16, s.data + 12, s.len - 12);
		keep_fini(&k);
	}
}

/* The payload whose checksum comes out as 0: subtract what it came out as before. */
static void make_zero_csum(struct sent *s, uint32_t l4, uint32_t from, uint32_t to)
{
	uint64_t sum;

	pkt_put16(s->data + from, 0);
	sum = (uint64_t)pkt_pseudo(s->data + 14, 17, 8 + to - from) +
	      pkt_sum(s->data + l4, 4) + 8 + to - from +
	      pkt_sum(s->data + from, to - from);
	pkt_put16(s->data + from, (uint16_t)~pkt_fold(sum));
}

/* RFC 768: a computed 0 is sent as all ones, and 0 means that there is no checksum. */
static void test_udp_zero(void **state)
{
	static const enum base bases[] = { U4, U6 };
	static struct sent s;
	struct virtio_net_hdr_v1 vh;
	struct keep k;

	for (unsigned int i = 0; i < 2; i++) {
		uint32_t l4 = i ? 54 : 34;

		/* a lone frame, and the second segment of three */
		make_sent(&s, bases[i], 400);
		s.vh.gso_type = VIRTIO_NET_HDR_GSO_NONE;
		make_zero_csum(&s, l4, l4 + 8, s.len);
		keep_init(&k, KEEP_MAX);
		assert_int_equal(segment(&s, NO_MTU, 0, &k), 1);
		assert_int_equal(pkt_get16(k.frame[0].data + l4 + 6), 0xffff);
		assert_good(k.frame[0].data, k.frame[0].len);
		keep_fini(&k);

		make_sent(&s, bases[i], 3000);
		make_zero_csum(&s, l4, l4 + 8 + 1000, l4 + 8 + 2000);
		assert_int_equal(segment(&s, NO_MTU, 0, &k), 3);
		assert_int_equal(pkt_get16(k.frame[1].data + l4 + 6), 0xffff);
		assert_int_not_equal(pkt_get16(k.frame[0].data + l4 + 6), 0xffff);
		assert_good(k.frame[1].data, k.frame[1].len);
		keep_fini(&k);

		make_sent(&s, bases[i], 3000);
		s.vh.flags = 0;
		make_zero_csum(&s, l4, l4 + 8, s.len);
		pkt_put16(s.data + l4 + 6, 0xffff);
		check_sent(&s, 0, 3);
		assert_int_equal(accept_sent(&s, &vh), 0);
		assert_int_equal(vh.flags, 0);
		assert_int_equal(vh.gso_type, UDP);
		pkt_put16(s.data + l4 + 6, 0);
		check_sent(&s, 0, -EINVAL);
		assert_int_equal(accept_sent(&s, &vh), -EINVAL);
	}
}

/* A checksum to complete: the frame is then good, tagged or not. */
static void test_lone_complete(void **state)
{
	static const enum base bases[] = { V4, V6, U4, U6 };
	static struct sent s;
	struct keep k;

	for (unsigned int b = 0; b < 4; b++) {
		for (uint32_t payload = 0; payload < 70; payload++) {
			make_sent(&s, bases[b], payload);
			s.vh.gso_type = VIRTIO_NET_HDR_GSO_NONE;
			keep_init(&k, 2);
			assert_int_equal(segment(&s, NO_MTU, 0, &k), 1);
			assert_int_equal(segment(&s, NO_MTU, 9, &k), 1);
			assert_good(k.frame[0].data, s.len);
			assert_good(k.frame[1].data, s.len + 4);
			keep_fini(&k);
		}
	}
	/* the field may be the frame's last two bytes: a protocol we do not know */
	make_sent(&s, LONE, 100);
	s.vh.csum_start = htole16((uint16_t)(s.len - 10));
	s.vh.csum_offset = htole16(8);
	pkt_put16(s.data + s.len - 2, 0);
	keep_init(&k, 1);
	assert_int_equal(segment(&s, NO_MTU, 0, &k), 1);
	assert_memory_equal(k.frame[0].data, s.data, s.len - 2);
	assert_int_equal(pkt_sum(k.frame[0].data + s.len - 10, 10), 0xffff);
	keep_fini(&k);
}

/* Where the buffers begin and end does not matter. */
static void test_splits(void **state)
{
	static const enum base bases[] = { V4, V6, U4, U6, LONE };
	static struct sent s;
	struct keep want, k;

	for (unsigned int b = 0; b < 5; b++) {
		make_sent(&s, bases[b], 433);
		if (bases[b] != LONE)
			s.vh.gso_size = htole16(101);
		keep_init(&want, KEEP_MAX);
		assert_int_equal(segment(&s, NO_MTU, 5, &want), bases[b] == LONE ? 1 : 5);
		for (uint32_t cut = 0; cut <= s.len; cut++) {
			uint32_t second = cut + (s.len - cut) / 3;
			struct iovec iov[] = {
				{ s.data, cut },
				{ NULL, 0 },
				{ s.data + cut, second - cut },
				{ s.data + second, s.len - second },
			};
			struct gso_frame f = {
				.vh = s.vh, .iov = iov, .niov = 4, .len = s.len
			};

			keep_init(&k, KEEP_MAX);
			assert_int_equal(gso_segment(&f, NO_MTU, 5, &k.sink), want.n);
			for (unsigned int i = 0; i < k.n; i++) {
				assert_int_equal(k.frame[i].len, want.frame[i].len);
				assert_memory_equal(k.frame[i].data, want.frame[i].data,
						    k.frame[i].len);
			}
			keep_fini(&k);
			/* fewer bytes than the frame claims */
			f.niov = 3;
			if (second < s.len)
				assert_int_equal(gso_segment(&f, NO_MTU, 5, &k.sink),
						 -EINVAL);
			assert_int_equal(gso_accept(&f), second < s.len ? -EINVAL : 0);
		}
		keep_fini(&want);
	}
}
int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_accept),
		cmocka_unit_test(test_headers),
		cmocka_unit_test(test_mtu_and_sink),
		cmocka_unit_test(test_lone_verbatim),
		cmocka_unit_test(test_lone_complete),
		cmocka_unit_test(test_udp_zero),
		cmocka_unit_test(test_splits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
