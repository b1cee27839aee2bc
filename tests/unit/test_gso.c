// SPDX-License-Identifier: BSD-2-Clause
/*
 * gso: finish hand-built chains, look at every promised field, cut them again and
 * compare with the segments they were built from.
 */
#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../user/lib/csum.h"
#include "keep.h"
#include "pkt.h"

#define CHUNK	16384u /* bytes: jumbo segments fit */
#define NCHUNKS 64
#define NO_MTU	(65535 + 22)

static struct mbuf_pool pool;
static uint8_t *umem;

static int setup(void **state)
{
	umem = aligned_alloc(4096, (size_t)NCHUNKS * CHUNK);
	return !umem || mbuf_pool_init(&pool, umem, NCHUNKS, CHUNK);
}

static int teardown(void **state)
{
	mbuf_pool_fini(&pool);
	free(umem);
	return 0;
}

static void assert_good(const uint8_t *f, uint32_t len)
{
	assert_true(keep_good(f, len));
}

enum trust { VERIFIED, PARTIAL, CARRIED };

struct chain_case {
	const char *name;
	bool ipv6, udp;
	unsigned int ntags, opt_len, ext, ip_opt;
	bool cwr, psh, fin;
	uint8_t id_step;
	uint32_t seq, id;
	unsigned int n;	     /* segments */
	uint32_t size, last; /* payload bytes of all but the last, of the last */
	uint8_t type;	     /* expected gso_type */
};

#define TCP4 VIRTIO_NET_HDR_GSO_TCPV4
#define TCP6 VIRTIO_NET_HDR_GSO_TCPV6
#define UDP  VIRTIO_NET_HDR_GSO_UDP_L4
#define ECN  VIRTIO_NET_HDR_GSO_ECN

/* clang-format off */
static const struct chain_case chains[] = {
	{ .name = "two", .n = 2, .size = 1460, .last = 1460, .id_step = 1,
		.type = TCP4 },
	{ .name = "timestamps", .opt_len = 12, .n = 16, .size = 1448, .last = 1448,
		.id_step = 1, .type = TCP4 },
	{ .name = "last shorter", .n = 3, .size = 1460, .last = 1, .id_step = 1,
		.type = TCP4 },
	{ .name = "odd", .n = 5, .size = 1001, .last = 1001, .id_step = 1,
		.type = TCP4 },
	{ .name = "odd, odd last", .n = 4, .size = 999, .last = 77, .id_step = 1,
		.type = TCP4 },
	{ .name = "one byte each", .n = 9, .size = 1, .last = 1, .id_step = 1,
		.type = TCP4 },
	{ .name = "64 KiB", .n = 44, .size = 1460, .last = 1460, .id_step = 1,
		.type = TCP4 },
	{ .name = "jumbo", .n = 7, .size = 8948, .last = 8948, .opt_len = 12,
		.id_step = 1, .type = TCP4 },
	{ .name = "fixed id", .n = 3, .size = 1460, .last = 1460, .id_step = 0,
		.type = TCP4 },
	{ .name = "id wraps", .n = 4, .size = 1460, .last = 10, .id = 65534,
		.id_step = 1, .type = TCP4 },
	{ .name = "sequence wraps", .n = 4, .size = 1460, .last = 10,
		.seq = 0xfffff800, .id_step = 1, .type = TCP4 },
	{ .name = "psh", .psh = true, .n = 3, .size = 1460, .last = 500, .id_step = 1,
		.type = TCP4 },
	{ .name = "fin psh", .psh = true, .fin = true, .n = 3, .size = 1460,
		.last = 500, .id_step = 1, .type = TCP4 },
	{ .name = "cwr", .cwr = true, .psh = true, .n = 3, .size = 1460, .last = 500,
		.id_step = 1, .type = TCP4 | ECN },
	{ .name = "all options", .opt_len = 40, .n = 3, .size = 1420, .last = 500,
		.id_step = 1, .type = TCP4 },
	{ .name = "ip options", .ip_opt = 40, .opt_len = 40, .n = 3, .size = 1380,
		.last = 500, .id_step = 1, .type = TCP4 },
	{ .name = "tag", .ntags = 1, .n = 3, .size = 1460, .last = 500, .id_step = 1,
		.type = TCP4 },
	{ .name = "two tags", .ntags = 2, .n = 3, .size = 1460, .last = 501,
		.id_step = 1, .type = TCP4 },
	{ .name = "v6", .ipv6 = true, .opt_len = 12, .n = 16, .size = 1428,
		.last = 1428, .type = TCP6 },
	{ .name = "v6 odd", .ipv6 = true, .n = 5, .size = 1001, .last = 3,
		.type = TCP6 },
	{ .name = "v6 cwr fin tag", .ipv6 = true, .cwr = true, .fin = true,
		.ntags = 1, .n = 3, .size = 1440, .last = 3, .type = TCP6 | ECN },
	{ .name = "v6 extension", .ipv6 = true, .ext = 24, .psh = true, .n = 3,
		.size = 1416, .last = 3, .type = TCP6 },
	{ .name = "v6 64 KiB", .ipv6 = true, .n = 45, .size = 1440, .last = 1440,
		.type = TCP6 },
	{ .name = "udp", .udp = true, .n = 10, .size = 1472, .last = 1472,
		.id_step = 1, .type = UDP },
	{ .name = "udp odd", .udp = true, .n = 10, .size = 1201, .last = 33,
		.id_step = 1, .type = UDP },
	{ .name = "udp v6", .udp = true, .ipv6 = true, .n = 10, .size = 1201,
		.last = 33, .type = UDP },
};
/* clang-format on */

#define NCHAINS (sizeof(chains) / sizeof(chains[0]))

/* Segment @i as it was on the wire. */
static uint32_t build_segment(const struct chain_case *c, unsigned int i,
			      enum pkt_csum csum_kind, uint8_t *buf)
{
	static uint8_t payload[PKT_MAX];
	bool last = i == c->n - 1;
	struct pkt_spec s;

	pkt_default(&s);
	s.ipv6 = c->ipv6;
	s.proto = c->udp ? 17 : 6;
	s.ntags = c->ntags;
	s.tci[0] = 0x2064;
	s.tci[1] = 5;
	s.opt_len = c->opt_len;
	keep_fill(s.opt, sizeof(s.opt), 9);
	s.ext = c->ext;
	s.ip_opt = c->ip_opt;
	s.tos = 2;
	s.label = 0x12345;
	s.seq = c->seq + i * c->size;
	s.id = (uint16_t)(c->id + i * c->id_step);
	if (c->cwr && !i)
		s.flags |= PKT_CWR;
	if (c->psh && last)
		s.flags |= PKT_PSH;
	if (c->fin && last)
		s.flags |= PKT_FIN;
	s.len = last ? c->last : c->size;
	keep_fill(payload, s.len, i + 1);
	s.payload = payload;
	s.csum = csum_kind;
	return pkt_build(&s, buf);
}

/*
 * The chain that aggregation would make of the case's segments; @bad: which of them
 * is corrupt, or -1.
 */
static struct mbuf *build_chain(const struct chain_case *c, enum trust trust, int bad)
{
	static uint8_t buf[PKT_MAX];
	struct mbuf *head = NULL, *prev = NULL;
	uint32_t payload = 0;

	for (unsigned int i = 0; i < c->n; i++) {
		enum pkt_csum kind = (int)i == bad ? PKT_CSUM_BAD : PKT_CSUM_GOOD;
		struct mbuf *m = mbuf_alloc(&pool);
		uint32_t len, idx, hdr;

		assert_non_null(m);
		idx = mbuf_index(&pool, m);
		len = build_segment(c, i, trust == PARTIAL ? PKT_CSUM_PARTIAL : kind,
				    buf);
		memset(m, 0, sizeof(*m));
		pkt_meta(buf, len, 1,
			 GN_INSTANCE_TSO4 | GN_INSTANCE_TSO6 | GN_INSTANCE_USO, &m->meta);
		hdr = mbuf_hdr_len(m);
		assert_int_equal(m->meta.payload_len, len - hdr);
		m->addr = (uint64_t)idx * CHUNK + 256 + i % 3;
		m->len = len;
		memcpy(mbuf_data(&pool, m), buf, len);
		m->next = MBUF_NONE;
		if (!head) {
			head = m;
			m->total = hdr;
			m->gso_size = m->meta.payload_len;
			if (trust != CARRIED)
				m->flags =
					trust == VERIFIED ? MBUF_VERIFIED : MBUF_PARTIAL;
		} else {
			/* headers of the others must not matter */
			memset(mbuf_data(&pool, m), 0xee, hdr);
			m->addr += hdr;
			m->len -= hdr;
			prev->next = idx;
			head->meta.flags |= m->meta.flags & (GN_F_PSH | GN_F_FIN);
		}
		if (trust == CARRIED)
			head->sum = csum_add_at(head->sum, m->meta.payload_sum, payload);
		payload += m->meta.payload_len;
		head->total += m->meta.payload_len;
		head->tail = idx;
		head->nsegs++;
		head->id_step = head->nsegs > 1 ? c->id_step : MBUF_STEP_ANY;
		prev = m;
	}
	head->flags |= MBUF_CLOSED; /* says nothing about checksums */
	return head;
}

static struct gso_frame frame_of(const struct mbuf *head,
				 const struct virtio_net_hdr_v1 *vh,
				 struct iovec iov[KEEP_MAX])
{
	struct gso_frame f = { .vh = *vh, .iov = iov, .len = head->total };

	f.niov = mbuf_iov(&pool, head, iov, KEEP_MAX);
	assert_true(f.niov);
	return f;
}

static uint32_t flatten(const struct gso_frame *f, uint8_t *buf)
{
	uint32_t n = 0;

	for (unsigned int i = 0; i < f->niov; i++) {
		memcpy(buf + n, f->iov[i].iov_base, f->iov[i].iov_len);
		n += (uint32_t)f->iov[i].iov_len;
	}
	assert_int_equal(n, f->len);
	return n;
}

static void check_vh(const struct chain_case *c, enum trust trust,
		     const struct mbuf *head, const struct virtio_net_hdr_v1 *vh)
{
	bool need = trust != CARRIED;

	assert_int_equal(vh->gso_type, c->type);
	assert_int_equal(le16toh(vh->gso_size), c->size);
	assert_int_equal(le16toh(vh->hdr_len), 14 + 4 * c->ntags + (c->ipv6 ? 40 : 20) +
						       c->ext + c->ip_opt +
						       (c->udp ? 8 : 20 + c->opt_len));
	assert_int_equal(vh->flags, need ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0);
	assert_int_equal(le16toh(vh->csum_start), need ? head->meta.l4_off : 0);
	assert_int_equal(le16toh(vh->csum_offset), need ? (c->udp ? 6 : 16) : 0);
	assert_int_equal(le16toh(vh->num_buffers), 1);
}

static void check_super(const struct chain_case *c, enum trust trust,
			const struct mbuf *head, uint8_t *frame, uint32_t len)
{
	uint8_t *ip = frame + head->meta.l3_off, *l4 = frame + head->meta.l4_off;
	uint8_t *field = l4 + (c->udp ? 6 : 16), proto = c->udp ? 17 : 6;

	assert_int_equal(len, head->total);
	if (trust != CARRIED) {
		uint32_t pseudo = pkt_pseudo(ip, proto, len - head->meta.l4_off);

		assert_int_equal(pkt_get16(field), pseudo);
		/* completing it as a receiver may makes a good frame */
		pkt_put16(field, (uint16_t)~pkt_sum(l4, len - head->meta.l4_off));
		if (c->udp && !pkt_get16(field))
			pkt_put16(field, 0xffff);
	}
	assert_good(frame, len);
	if (!c->udp) {
		assert_int_equal(!!(l4[13] & PKT_PSH), c->psh);
		assert_int_equal(!!(l4[13] & PKT_FIN), c->fin);
		assert_int_equal(!!(l4[13] & PKT_CWR), c->cwr);
	}
}

/* The cut frames against the segments as built; @vlan was inserted. */
static void check_segments(const struct chain_case *c, const struct keep *k,
			   uint16_t vlan)
{
	static uint8_t buf[PKT_MAX];
	struct chain_case rising = *c;

	/* see gso.h: virtio-net cannot say that the identification stays */
	rising.id_step = 1;
	assert_int_equal(k->n, c->n);
	for (unsigned int i = 0; i < k->n; i++) {
		uint32_t len = build_segment(&rising, i, PKT_CSUM_GOOD, buf);

		if (vlan) {
			memmove(buf + 16, buf + 12, len - 12);
			pkt_put16(buf + 12, 0x8100);
			pkt_put16(buf + 14, vlan);
			len += 4;
		}
		assert_int_equal(k->frame[i].len, len);
		assert_memory_equal(k->frame[i].data, buf, len);
	}
}

static void round_trip(const struct chain_case *c, enum trust trust, uint16_t vlan)
{
	static uint8_t flat[PKT_MAX];
	struct mbuf *head = build_chain(c, trust, -1);
	struct virtio_net_hdr_v1 vh;
	struct iovec iov[KEEP_MAX];
	struct gso_frame f;
	struct keep k;

	memset(&vh, 0xff, sizeof(vh));
	gso_finish(&pool, head, &vh);
	check_vh(c, trust, head, &vh);
	f = frame_of(head, &vh, iov);
	check_super(c, trust, head, flat, flatten(&f, flat));

	keep_init(&k, KEEP_MAX);
	assert_int_equal(gso_segment(&f, NO_MTU, vlan, &k.sink), c->n);
	check_segments(c, &k, vlan);
	keep_fini(&k);
	mbuf_free_chain(&pool, head);
	assert_int_equal(pool.nfree, NCHUNKS);
}

static void test_round_trip(void **state)
{
	for (unsigned int i = 0; i < NCHAINS; i++) {
		for (int trust = VERIFIED; trust <= CARRIED; trust++) {
			print_message("%s, %s\n", chains[i].name,
				      trust == VERIFIED	 ? "verified"
				      : trust == PARTIAL ? "partial"
							 : "carried");
			round_trip(&chains[i], (enum trust)trust, 0);
			if (!chains[i].ntags)
				round_trip(&chains[i], (enum trust)trust, 0x6123);
		}
	}
}

/* One corrupt segment makes the carried checksum wrong, and the frame is not cut. */
static void test_carried_corrupt(void **state)
{
	static uint8_t flat[PKT_MAX];

	for (unsigned int i = 0; i < NCHAINS; i++) {
		const struct chain_case *c = &chains[i];

		for (unsigned int bad = 0; bad < c->n; bad++) {
			struct mbuf *head = build_chain(c, CARRIED, (int)bad);
			struct virtio_net_hdr_v1 vh;
			struct iovec iov[KEEP_MAX];
			struct gso_frame f;
			struct keep k;
			uint8_t *l4;

			gso_finish(&pool, head, &vh);
			assert_int_equal(vh.flags, 0);
			f = frame_of(head, &vh, iov);
			flatten(&f, flat);
			l4 = flat + head->meta.l4_off;
			assert_int_not_equal(
				pkt_fold((uint64_t)pkt_pseudo(flat + head->meta.l3_off,
							      c->udp ? 17 : 6,
							      f.len - head->meta.l4_off) +
					 pkt_sum(l4, f.len - head->meta.l4_off)),
				0xffff);
			keep_init(&k, KEEP_MAX);
			assert_int_equal(gso_segment(&f, NO_MTU, 0, &k.sink), -EINVAL);
			assert_int_equal(k.n, 0);
			mbuf_free_chain(&pool, head);
		}
	}
}

/* A lone packet keeps every byte; the header says only what is known of its checksum. */
static void test_finish_lone(void **state)
{
	static const struct {
		uint8_t flags; /* of the mbuf */
		bool udp;
		uint8_t vh_flags;
		uint16_t start, offset;
	} cases[] = {
		{ 0, false, 0, 0, 0 },
		{ MBUF_VERIFIED, false, VIRTIO_NET_HDR_F_DATA_VALID, 0, 0 },
		{ MBUF_VERIFIED, true, VIRTIO_NET_HDR_F_DATA_VALID, 0, 0 },
		{ MBUF_PARTIAL, false, VIRTIO_NET_HDR_F_NEEDS_CSUM, 34, 16 },
		{ MBUF_PARTIAL, true, VIRTIO_NET_HDR_F_NEEDS_CSUM, 34, 6 },
	};
	static uint8_t before[PKT_MAX];

	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct chain_case c = {
			.n = 1, .size = 100, .last = 100, .udp = cases[i].udp
		};
		struct mbuf *head = build_chain(&c, CARRIED, -1);
		struct virtio_net_hdr_v1 vh;

		/* what aggregation may have noted must not reach the header */
		head->flags = cases[i].flags | MBUF_CLOSED;
		head->meta.flags |= GN_F_PSH | GN_F_CWR;
		memcpy(before, mbuf_data(&pool, head), head->len);
		memset(&vh, 0xff, sizeof(vh));
		gso_finish(&pool, head, &vh);
		assert_memory_equal(before, mbuf_data(&pool, head), head->len);
		assert_int_equal(vh.flags, cases[i].vh_flags);
		assert_int_equal(vh.gso_type, VIRTIO_NET_HDR_GSO_NONE);
		assert_int_equal(vh.gso_size, 0);
		assert_int_equal(vh.hdr_len, 0);
		assert_int_equal(le16toh(vh.csum_start), cases[i].start);
		assert_int_equal(le16toh(vh.csum_offset), cases[i].offset);
		assert_int_equal(le16toh(vh.num_buffers), 1);
		mbuf_free_chain(&pool, head);
	}
}

/* The same for a carried chain: the sum of its payload makes the checksum 0. */
static void test_udp_zero_carried(void **state)
{
	struct chain_case c = {
		.udp = true, .n = 2, .size = 1000, .last = 1000, .id_step = 1
	};
	struct mbuf *head = build_chain(&c, CARRIED, -1);
	uint8_t *frame = mbuf_data(&pool, head), *field = frame + head->meta.l4_off + 6;
	struct virtio_net_hdr_v1 vh;
	uint16_t check;

	gso_finish(&pool, head, &vh);
	memcpy(&check, field, 2);
	head->sum = csum_add(head->sum, check);
	gso_finish(&pool, head, &vh);
	assert_int_equal(pkt_get16(field), 0xffff);
	mbuf_free_chain(&pool, head);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_finish_lone),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_carried_corrupt),
		cmocka_unit_test(test_udp_zero_carried),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
