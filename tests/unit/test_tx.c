// SPDX-License-Identifier: BSD-2-Clause
/*
 * What an instance sends, and broadcasts from the wire: where each frame goes, by whom it
 * must be sent, how fast, and what holds it back. tx.c and flood.c.
 *
 * The worker has real tables, chunks and a transmit ring, whose other end nobody serves;
 * ports are lists in memory; the flood socket is one end of a pair.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/daemon/flood.h"
#include "../../user/daemon/tx.h"
#include "../../user/lib/clock.h"
#include "pkt.h"

#define CHUNKS	   256
#define CHUNK_SIZE 2048
#define PORTS	   5
#define MAX	   64 /* frames of a port's lists */
#define LEN	   100

/* Instances by their place. */
enum { A, B, A10, B10, C20 };
static const uint16_t vlan_of[PORTS] = { 0, 0, 10, 10, 20 };

static const uint8_t broadcast[6] = { 255, 255, 255, 255, 255, 255 };
static const uint8_t multicast[6] = { 1, 0, 0x5e, 1, 2, 3 };
static const uint8_t stranger[6] = { 2, 0, 0, 0, 1, 1 };

struct fake {
	struct port_queue q;
	struct port port;
	struct port_queue *queues[1];
	struct instance in;
	/* to send, what fetch() ends with, what was injected */
	uint8_t out[MAX][9100];
	uint32_t out_len[MAX];
	struct virtio_net_hdr_v1 out_vh[MAX], got_vh[MAX];
	unsigned int nout, sent;
	int end;
	struct iovec iov;
	uint8_t got[MAX][LEN];
	unsigned int ngot, settled;
	unsigned int cut; /* frames that the instance gets of one injected */
};

struct rig {
	struct worker w;
	uint8_t umem[CHUNKS * CHUNK_SIZE];
	uint8_t jumbo[PORT_MAX_FRAME];
	struct xdp_desc tx[XSK_TX_SIZE];
	uint64_t comp[XSK_TX_SIZE];
	uint32_t tx_prod, tx_cons, comp_prod, comp_cons, flags;
	struct fake fake[PORTS];
	int flood; /* the other end */
};

static struct fake *fake_of(struct port_queue *q)
{
	return (struct fake *)q;
}

static int fake_fetch(struct port_queue *q, struct gso_frame *f)
{
	struct fake *p = fake_of(q);

	if (p->sent == p->nout)
		return p->end;
	p->iov = (struct iovec){ p->out[p->sent], p->out_len[p->sent] };
	f->vh = p->out_vh[p->sent];
	f->iov = &p->iov;
	f->niov = 1;
	f->len = p->out_len[p->sent++];
	return 1;
}

static void fake_inject(struct port_queue *q, const struct gso_frame *f)
{
	struct fake *p = fake_of(q);

	assert_int_equal(f->niov, 1);
	p->q.stats.rx_frames += p->cut;
	p->got_vh[p->ngot] = f->vh;
	memcpy(p->got[p->ngot++], f->iov->iov_base, f->len < LEN ? f->len : LEN);
}

static void fake_settle(struct port_queue *q)
{
	fake_of(q)->settled++;
}

static const struct port_ops fake_ops = {
	.name = "fake",
	.inject = fake_inject,
	.fetch = fake_fetch,
	.settle = fake_settle,
};

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	int pair[2];

	assert_non_null(r);
	r->w.conf.ifname = "test";
	r->w.conf.mtu = 1500;
	r->w.epfd = -1;
	r->w.pause_due = UINT64_MAX;
	r->w.umem.chunk_size = CHUNK_SIZE;
	assert_int_equal(mbuf_pool_init(&r->w.pool, r->umem, CHUNKS, CHUNK_SIZE), 0);
	assert_int_equal(inst_view_init(&r->w.view), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
	r->w.conf.flood_fd = pair[0];
	r->flood = pair[1];
	r->w.xsk = (struct xsk){
		.fd = -1,
		.pool = &r->w.pool,
		.tx_limit = CHUNKS / 2,
		.tx = { .mask = XSK_TX_SIZE - 1,
			.size = XSK_TX_SIZE,
			.cached_cons = XSK_TX_SIZE,
			.producer = &r->tx_prod,
			.consumer = &r->tx_cons,
			.ring = r->tx,
			.flags = &r->flags },
		.comp = { .mask = XSK_TX_SIZE - 1,
			  .size = XSK_TX_SIZE,
			  .producer = &r->comp_prod,
			  .consumer = &r->comp_cons,
			  .ring = r->comp,
			  .flags = &r->flags },
	};
	for (unsigned int i = 0; i < PORTS; i++) {
		struct fake *p = &r->fake[i];

		p->port = (struct port){ .ops = &fake_ops,
					 .nqueues = 1,
					 .queue = p->queues };
		p->queues[0] = &p->q;
		p->q.port = &p->port;
		p->q.fd = -1;
		p->cut = 1;
		p->in.id = (uint16_t)i;
		p->in.port = &p->port;
		p->in.conf.vlan = vlan_of[i];
		/* The same address in two VLANs is two. */
		memcpy(p->in.conf.mac, (uint8_t[]){ 2, 0, 0, 0, 0, i == A10 ? A : i }, 6);
		inst_view_add(&r->w.view, &p->in);
	}
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	static const uint8_t zero[UMEM_HEADROOM];
	struct rig *r = *state;

	/* Whatever was sent left nothing where metadata is looked for when its chunk is
	 * used for reception again. */
	for (uint32_t i = 0; i < CHUNKS; i++)
		assert_memory_equal(r->umem + i * CHUNK_SIZE, zero, UMEM_HEADROOM);
	close(r->w.conf.flood_fd);
	close(r->flood);
	inst_view_fini(&r->w.view);
	mbuf_pool_fini(&r->w.pool);
	free(r);
	return 0;
}

static const uint8_t *mac(const struct rig *r, int i)
{
	return r->fake[i].in.conf.mac;
}

/* A frame of no known protocol; @tag: type of a tag of VLAN 10, 0: none. */
static uint32_t build(uint8_t *f, const uint8_t *to, const uint8_t *from, uint16_t tag,
		      uint32_t len)
{
	uint32_t n = 12;

	memset(f, 'x', len);
	memcpy(f, to, 6);
	memcpy(f + 6, from, 6);
	if (tag) {
		f[n++] = (uint8_t)(tag >> 8);
		f[n++] = (uint8_t)tag;
		f[n++] = 0;
		f[n++] = 10;
	}
	f[n++] = 0x88;
	f[n] = 0xb5;
	return len;
}

static void send_frame(struct rig *r, int from, const uint8_t *to, const uint8_t *src,
		       uint16_t tag, uint32_t len)
{
	struct fake *p = &r->fake[from];

	p->out_len[p->nout] = build(p->out[p->nout], to, src, tag, len);
	p->nout++;
}

/* One of @from's own, alone. Return: frames on the wire */
static uint32_t sends(struct rig *r, int from, const uint8_t *to)
{
	uint32_t before = r->tx_prod;

	for (int i = 0; i < PORTS; i++)
		r->fake[i].ngot = r->fake[i].settled = 0;
	send_frame(r, from, to, mac(r, from), 0, LEN);
	assert_int_equal(tx_instance(&r->w, &r->fake[from].in), 1);
	return r->tx_prod - before;
}

static const uint8_t *on_wire(const struct rig *r, uint32_t i, uint32_t *len)
{
	const struct xdp_desc *d = &r->tx[i % XSK_TX_SIZE];

	*len = d->len;
	return r->umem + d->addr;
}

/* Who got a frame, by letters of the enum's order. */
static void got(const struct rig *r, const char *who)
{
	for (int i = 0; i < PORTS; i++) {
		bool want = strchr(who, '0' + i);

		assert_int_equal(r->fake[i].ngot, want);
		/* Told once, after the burst. */
		assert_int_equal(r->fake[i].settled, want);
	}
}

static void test_unicast(void **state)
{
	struct rig *r = *state;

	assert_int_equal(sends(r, A, mac(r, B)), 0);
	got(r, "1");
	assert_memory_equal(r->fake[B].got[0], mac(r, B), 6);
	assert_int_equal(sends(r, A10, mac(r, B10)), 0);
	got(r, "3");
	/* A neighbour in another VLAN is reached by the wire, if at all. */
	assert_int_equal(sends(r, A, mac(r, B10)), 1);
	got(r, "");
	assert_int_equal(sends(r, A, mac(r, C20)), 1);
	got(r, "");
	assert_int_equal(sends(r, A, stranger), 1);
	got(r, "");
	assert_int_equal(r->fake[A].q.stats.tx_local, 1);
	assert_int_equal(r->fake[A].q.stats.tx_wire, 3);
	assert_int_equal(r->fake[A].q.stats.tx_frames, 4);
	assert_int_equal(r->fake[A].q.stats.tx_bytes, 4 * LEN);
	/* Counted in as many frames as are delivered, 0 of what is dropped. */
	for (r->fake[B].cut = 0; r->fake[B].cut < 4; r->fake[B].cut++)
		sends(r, A, mac(r, B));
	assert_int_equal(r->fake[B].q.stats.rx_local, 1 + 0 + 1 + 2 + 3);
	assert_int_equal(r->fake[B].q.stats.rx_packets, 0);
}

static void test_to_all(void **state)
{
	struct rig *r = *state;
	const uint8_t *to[] = { broadcast, multicast };

	for (int i = 0; i < 2; i++) {
		assert_int_equal(sends(r, A, to[i]), 1);
		got(r, "1");
		assert_int_equal(sends(r, A10, to[i]), 1);
		got(r, "3");
		assert_int_equal(sends(r, C20, to[i]), 1);
		got(r, "");
	}
}

/* Untagged in the instance, tagged on the wire. */
static void test_tag(void **state)
{
	static const uint8_t tag[] = { 0x81, 0, 0, 10, 0x88, 0xb5 };
	struct rig *r = *state;
	const uint8_t *f;
	uint32_t len;

	sends(r, A10, stranger);
	f = on_wire(r, 0, &len);
	assert_int_equal(len, LEN + 4);
	assert_memory_equal(f + 12, tag, sizeof(tag));
	sends(r, A, stranger);
	f = on_wire(r, 1, &len);
	assert_int_equal(len, LEN);
	assert_memory_equal(f + 12, tag + 4, 2);
}

/* From its own address and VLAN only, unless it was allowed more. */
static void test_spoofed(void **state)
{
	struct rig *r = *state;
	struct fake *a = &r->fake[A], *v = &r->fake[A10];

	for (int allowed = 0; allowed < 2; allowed++) {
		a->in.conf.allow_spoof = v->in.conf.allow_spoof = allowed;
		a->q.stats.tx_spoofed = v->q.stats.tx_spoofed = 0;
		r->fake[B].ngot = r->fake[B10].ngot = 0;
		r->tx_prod = r->tx_cons = r->w.xsk.tx.cached_prod = 0;
		r->w.xsk.tx.cached_cons = XSK_TX_SIZE;
		send_frame(r, A, mac(r, B), stranger, 0, LEN);
		send_frame(r, A, broadcast, stranger, 0, LEN);
		send_frame(r, A, mac(r, B10), mac(r, A), 0x8100, LEN);
		send_frame(r, A, broadcast, mac(r, A), 0x88a8, LEN);
		assert_int_equal(tx_instance(&r->w, &a->in), 4);
		assert_int_equal(a->q.stats.tx_spoofed, allowed ? 0 : 4);
		assert_int_equal(r->fake[B].ngot, allowed ? 2 : 0);
		/* What it tags itself goes to the wire and to no neighbour. */
		assert_int_equal(r->fake[B10].ngot, 0);
		assert_int_equal(r->tx_prod, allowed ? 3 : 0);
		/* Inside a VLAN a tag is payload: it adds to the outer one. */
		send_frame(r, A10, stranger, mac(r, A10), 0x8100, LEN);
		assert_int_equal(tx_instance(&r->w, &v->in), 1);
		assert_int_equal(v->q.stats.tx_spoofed, 0);
		assert_int_equal(r->tx_prod, allowed ? 4 : 1);
	}
}

static void test_bad_lengths(void **state)
{
	struct rig *r = *state;
	struct fake *a = &r->fake[A];
	uint32_t free_chunks = r->w.pool.nfree;

	for (uint32_t len = 1; len < 14; len++) {
		send_frame(r, A, broadcast, mac(r, A), 0, 14);
		a->out_len[a->nout - 1] = len;
	}
	assert_int_equal(tx_instance(&r->w, &a->in), 13);
	assert_int_equal(a->q.stats.tx_bad, 13);
	/* Longer than the interface's packets. */
	send_frame(r, A, stranger, mac(r, A), 0, 1523);
	send_frame(r, A, stranger, mac(r, A), 0, 9000);
	assert_int_equal(tx_instance(&r->w, &a->in), 2);
	assert_int_equal(a->q.stats.tx_bad, 15);
	assert_int_equal(r->tx_prod, 0);
	assert_int_equal(r->w.pool.nfree, free_chunks);
	send_frame(r, A, stranger, mac(r, A), 0, 1514);
	assert_int_equal(tx_instance(&r->w, &a->in), 1);
	assert_int_equal(r->tx_prod, 1);
}

/* A super-packet of A's own: three segments of TCP. */
static struct virtio_net_hdr_v1 *send_super(struct rig *r, const uint8_t *to)
{
	static uint8_t payload[3000];
	struct fake *a = &r->fake[A];
	struct pkt_spec p;

	pkt_default(&p);
	memcpy(p.dst, to, 6);
	memcpy(p.src, mac(r, A), 6);
	p.payload = payload;
	p.len = sizeof(payload);
	p.csum = PKT_CSUM_PARTIAL;
	a->out_len[a->nout] = pkt_build(&p, a->out[a->nout]);
	a->out_vh[a->nout] = (struct virtio_net_hdr_v1){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		.hdr_len = htole16(54),
		.gso_size = htole16(1000),
		.csum_start = htole16(34),
		.csum_offset = htole16(16),
		.num_buffers = htole16(1),
	};
	return &a->out_vh[a->nout++];
}

/* What A asks for must agree with its frame, also where nobody has to carry it out. */
static void test_bad_offload(void **state)
{
	static const struct virtio_net_hdr_v1 bad[] = {
		{ .flags = 1, .gso_type = 1, .csum_start = 34, .csum_offset = 16 },
		{ .gso_type = 4, .gso_size = 1000 },
		{ .flags = 1, .gso_type = 1, .gso_size = 9, .csum_start = 0xffff },
		{ .flags = 1, .csum_start = 0xffff },
		{ .flags = 1, .csum_start = 34, .csum_offset = 3054 - 34 - 1 },
	};
	struct rig *r = *state;
	const uint8_t *to[] = { mac(r, B), broadcast, multicast, stranger };
	struct fake *a = &r->fake[A];
	unsigned int n = 0;

	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		for (unsigned int k = 0; k < 4; k++) {
			*send_super(r, to[k]) = bad[i];
			assert_int_equal(tx_instance(&r->w, &a->in), 1);
			assert_int_equal(a->q.stats.tx_bad, ++n);
		}
	}
	assert_int_equal(r->fake[B].ngot, 0);
	assert_int_equal(r->tx_prod, 0);
	assert_int_equal(a->q.stats.tx_local, 0);
}

/* A good one reaches B and the wire, and B is told nothing but what holds. */
static void test_good_offload(void **state)
{
	struct rig *r = *state;
	const uint8_t *to[] = { mac(r, B), broadcast, stranger };
	struct fake *a = &r->fake[A];

	for (int i = 0; i < 3; i++) {
		struct virtio_net_hdr_v1 *vh = send_super(r, to[i]), want = *vh;

		vh->hdr_len = 0xffff;
		vh->flags |= VIRTIO_NET_HDR_F_DATA_VALID;
		assert_int_equal(tx_instance(&r->w, &a->in), 1);
		assert_int_equal(r->fake[B].ngot, i < 2 ? i + 1 : 2);
		assert_int_equal(r->tx_prod, 3 * i);
		if (i < 2)
			assert_memory_equal(&r->fake[B].got_vh[i], &want, sizeof(want));
	}
	assert_int_equal(a->q.stats.tx_bad, 0);
	assert_int_equal(a->q.stats.tx_local, 2);
}

/* A frame longer than a chunk is several descriptors, or none. */
static void test_jumbo(void **state)
{
	struct rig *r = *state;
	struct fake *a = &r->fake[A];
	uint32_t at = 14;

	r->w.conf.mtu = 9000;
	r->w.jumbo = r->jumbo;
	send_frame(r, A, stranger, mac(r, A), 0, 9014);
	for (uint32_t i = at; i < 9014; i++)
		a->out[0][i] = (uint8_t)(i % 251);
	assert_int_equal(tx_instance(&r->w, &a->in), 1);
	assert_int_equal(r->tx_prod, 6);
	at = 0;
	for (uint32_t i = 0; i < 6; i++) {
		uint32_t len;
		const uint8_t *p = on_wire(r, i, &len);

		assert_int_equal(r->tx[i].options, i < 5 ? XDP_PKT_CONTD : 0);
		assert_memory_equal(p, a->out[0] + at, len);
		at += len;
	}
	assert_int_equal(at, 9014);
	assert_int_equal(a->q.stats.tx_wire, 1);
	/* Too few chunks: it is dropped, counted, and none of them is lost. */
	r->w.xsk.tx_limit = r->w.xsk.tx_out + 48;
	for (int i = 0; i < 10; i++)
		send_frame(r, A, stranger, mac(r, A), 0,
			   i ? 9014 : UMEM_FRAME_ROOM(CHUNK_SIZE) + 1);
	while (tx_instance(&r->w, &a->in) > 0)
		;
	r->w.xsk.tx_limit = r->w.xsk.tx_out + 3;
	r->w.xsk.stalled = true; /* frames are taken and lost */
	while (tx_instance(&r->w, &a->in) > 0)
		;
	assert_int_equal(a->sent, 11);
	assert_int_equal(a->q.stats.tx_wire + a->q.stats.tx_dropped, 11);
	assert_true(a->q.stats.tx_dropped >= 9);
	assert_int_equal(r->w.xsk.tx_out, r->tx_prod);
	assert_int_equal(r->w.pool.nfree + r->tx_prod, CHUNKS);
}

/* Without room nothing is fetched: the instance's own queue holds it. */
static void test_held_back(void **state)
{
	struct rig *r = *state;
	struct fake *a = &r->fake[A];

	r->w.xsk.tx_limit = 60;
	for (int i = 0; i < 30; i++)
		send_frame(r, A, stranger, mac(r, A), 0, LEN);
	assert_int_equal(tx_instance(&r->w, &a->in), 13); /* until 48 would not fit */
	assert_int_equal(tx_instance(&r->w, &a->in), 0);
	assert_int_equal(a->sent, 13);
	assert_int_equal(a->q.stats.tx_dropped, 0);
	/* Sent and completed: it goes on by itself. */
	for (; r->tx_cons != r->tx_prod; r->tx_cons++)
		r->comp[r->comp_prod++] = r->tx[r->tx_cons].addr;
	assert_int_equal(tx_instance(&r->w, &a->in), 13);
	assert_int_equal(a->q.stats.tx_wire, 26);
	/* Nor is it with chunks enough, but a ring that is nearly full. */
	r->w.xsk.tx_limit = CHUNKS;
	r->tx_cons = r->tx_prod - (XSK_TX_SIZE - 50);
	r->w.xsk.tx.cached_cons = r->tx_cons + XSK_TX_SIZE;
	assert_int_equal(tx_instance(&r->w, &a->in), 3);
	assert_int_equal(tx_instance(&r->w, &a->in), 0);
	assert_int_equal(a->q.stats.tx_wire, 29);
	assert_int_equal(a->q.stats.tx_dropped, 0);
}

static void test_budget(void **state)
{
	struct rig *r = *state;
	struct fake *a = &r->fake[A];

	for (int i = 0; i < 40; i++)
		send_frame(r, A, mac(r, B), mac(r, A), 0, LEN);
	assert_int_equal(tx_instance(&r->w, &a->in), 16);
	assert_int_equal(tx_instance(&r->w, &a->in), 16);
	assert_int_equal(tx_instance(&r->w, &a->in), 8);
	assert_int_equal(r->fake[B].ngot, 40);
	assert_int_equal(r->fake[B].settled, 3);
	/* The port's error is told; what came before it was forwarded. */
	send_frame(r, A, mac(r, B), mac(r, A), 0, LEN);
	a->end = -EIO;
	assert_int_equal(tx_instance(&r->w, &a->in), -EIO);
	assert_int_equal(r->fake[B].ngot, 41);
}

static void test_rate(void **state)
{
	struct rig *r = *state;
	struct fake *a = &r->fake[A];
	uint64_t now = clock_ns();

	a->in.rate.bits = RATE_MIN;
	a->in.rate.busy_until = now + 3600000000000ULL;
	send_frame(r, A, stranger, mac(r, A), 0, LEN);
	assert_int_equal(tx_instance(&r->w, &a->in), 0);
	assert_int_equal(a->sent, 0);
	assert_int_equal(a->q.stats.tx_paused, 1);
	assert_int_equal(r->w.npaused, 1);
	assert_true(a->q.paused_until > now + 3599000000000ULL);
	assert_true(r->w.pause_due == a->q.paused_until);
	assert_int_equal(a->settled, 1); /* what it got rid of it may have back */
	/* One frame costs its time: 12.5 ms, three times what is saved up. */
	a->in.rate.busy_until = 0;
	a->q.paused_until = r->w.npaused = 0;
	assert_int_equal(tx_instance(&r->w, &a->in), 1);
	assert_true(a->in.rate.busy_until > now + 8000000);
}

/* ---- flood.c ---- */

static void from_wire(struct rig *r, const void *frame, uint32_t len)
{
	struct virtio_net_hdr vh = { 0 };
	struct iovec iov[2] = { { &vh, sizeof(vh) }, { (void *)frame, len } };
	const struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

	assert_int_equal(sendmsg(r->flood, &msg, 0), sizeof(vh) + len);
}

static void test_flood(void **state)
{
	struct rig *r = *state;
	uint8_t f[LEN];

	build(f, broadcast, stranger, 0, LEN);
	from_wire(r, f, LEN);
	from_wire(r, f, 14);
	flood_receive(&r->w);
	assert_int_equal(r->w.stats.flood_frames, 2);
	for (int i = 0; i < PORTS; i++) {
		assert_int_equal(r->fake[i].ngot, vlan_of[i] ? 0 : 2);
		assert_int_equal(r->fake[i].settled, vlan_of[i] ? 0 : 1);
	}
	assert_memory_equal(r->fake[A].got[0], f, LEN);
	/* It is not sent out again. */
	assert_int_equal(r->tx_prod, 0);
	/* It was on the wire, and of no local instance. */
	assert_int_equal(r->fake[A].q.stats.rx_packets, 2);
	assert_int_equal(r->fake[A].q.stats.rx_local, 0);
	/* Cut off: nobody's. Then nothing: it does not wait. */
	from_wire(r, f, 13);
	from_wire(r, f, 0);
	flood_receive(&r->w);
	flood_receive(&r->w);
	assert_int_equal(r->w.stats.flood_frames, 2);
	assert_int_equal(r->fake[A].ngot, 2);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_bad_offload), TEST(test_good_offload), TEST(test_unicast),
		TEST(test_to_all),	TEST(test_tag),		 TEST(test_spoofed),
		TEST(test_bad_lengths), TEST(test_jumbo),	 TEST(test_held_back),
		TEST(test_budget),	TEST(test_rate),	 TEST(test_flood),
	};

	return cmocka_run_group_tests_name("tx", tests, NULL, NULL);
}
