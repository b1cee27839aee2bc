// SPDX-License-Identifier: BSD-2-Clause
/*
 * The vhost-user port between real chains of segments and a guest's rings, over a real
 * socket: what arrives is compared byte by byte with what was sent, for guests that
 * take much and guests that take nothing; and what breaks ends one front end only.
 */
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/daemon/port.h"
#include "../../user/lib/log.h"
#include "front.h"
#include "keep.h"
#include "pkt.h"
#include "rig.h"

#define BIT(n) (1ULL << (n))
#define V1     BIT(VIRTIO_F_VERSION_1)
#define MRG    (V1 | BIT(VIRTIO_NET_F_MRG_RXBUF))
#define TSO                                                                              \
	(BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |                   \
	 BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN))
#define MTU	   1500
#define BUF	   2048			  /* bytes of a receive buffer */
#define NBUFS	   60			  /* buffers posted */
#define TX_DATA	   (GUEST_DATA + 0x60000) /* where the guest builds what it sends */
#define HDR	   12
#define MAX_FRAMES 64

static const uint8_t guest_mac[6] = { 2, 0, 0, 0, 0, 0x11 };

static struct {
	char dir[32], path[64];
	struct loop *loop;
	struct port *port;
	struct port_env env;
	unsigned int calls, changes;
	struct front f;
	struct rig rig;
	/* The packets that were pushed. */
	struct keep sent;
	uint32_t seq;
} t;

static void on_call(void *owner, unsigned int queue, void (*fn)(void *arg), void *arg)
{
	assert_ptr_equal(owner, &t);
	t.calls++;
	fn(arg);
}

static void on_changed(void *owner)
{
	t.changes++;
}

static int open_port(unsigned int nqueues, bool client)
{
	struct port_conf conf = { .kind = "vhost-user", .mtu = MTU, .client = client };

	strcpy(conf.arg, t.path);
	memcpy(conf.mac, guest_mac, 6);
	return port_find("vhost-user")->open(&conf, &t.env, nqueues, &t.port);
}

static int setup(void **state)
{
	const struct agg_conf agg = { .checksum = AGG_VERIFY,
				      .trust_partial = true,
				      .max_held = 1024 };

	memset(&t, 0, sizeof(t));
	strcpy(t.dir, "/tmp/test_port_vhost.XXXXXX");
	assert_non_null(mkdtemp(t.dir));
	snprintf(t.path, sizeof(t.path), "%s/vm", t.dir);
	assert_int_equal(loop_create(&t.loop), 0);
	t.env = (struct port_env){
		.loop = t.loop, .owner = &t, .call = on_call, .changed = on_changed
	};
	assert_int_equal(rig_init(&t.rig, 256, &agg), 0);
	keep_init(&t.sent, KEEP_MAX);
	return 0;
}

static int teardown(void **state)
{
	front_fini(&t.f);
	if (t.port)
		t.port->ops->close(t.port);
	loop_destroy(t.loop);
	keep_fini(&t.sent);
	rig_fini(&t.rig);
	assert_int_equal(rmdir(t.dir), 0); /* the socket is gone */
	return 0;
}

static void up(uint64_t features)
{
	assert_int_equal(open_port(1, false), 0);
	front_init(&t.f, t.loop, features);
	assert_int_equal(front_connect(&t.f, t.path), 0);
	front_up(&t.f, features);
}

static uint64_t stat_of(size_t off)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < t.port->nqueues; i++)
		sum += *(uint64_t *)((char *)&t.port->queue[i]->stats + off);
	return sum;
}

#define STAT(name) stat_of(offsetof(struct port_stats, name))

/* ---- to the guest ------------------------------------------------------------------ */

/* A chain of @per buffers of BUF bytes, @n times. */
static void post(unsigned int n, unsigned int per)
{
	for (unsigned int i = 0; i < n; i++) {
		struct driver_buf buf[FRONT_RING_SIZE];

		for (unsigned int k = 0; k < per; k++)
			buf[k] = (struct driver_buf){
				GUEST_DATA + (i * per + k) * (BUF + 8), BUF
			};
		assert_int_equal(driver_add(&t.f.rx, buf, 0, per, 0, i), 0);
	}
}

/* A frame as the guest finds it: header and bytes over its merged buffers. */
struct received {
	struct virtio_net_hdr_v1 vh;
	uint32_t len;
	uint8_t data[PKT_MAX];
};

/* Return: false: nothing there */
static bool receive(struct received *r, unsigned int per, unsigned int *nbufs)
{
	static uint8_t raw[PKT_MAX + HDR + BUF];
	uint32_t total = 0, len;
	unsigned int n = 1;
	uint64_t cookie;

	for (unsigned int i = 0; i < n; i++) {
		if (!driver_get(&t.f.rx, &cookie, &len)) {
			assert_int_equal(i, 0);
			return false;
		}
		for (uint32_t off = 0; off < len; off += BUF) {
			uint32_t part = len - off < BUF ? len - off : BUF;

			guest_read(&t.f.guest,
				   GUEST_DATA + (cookie * per + off / BUF) * (BUF + 8),
				   raw + total + off, part);
		}
		total += len;
		if (!i) {
			assert_true(len > HDR);
			memcpy(&r->vh, raw, HDR);
			n = le16toh(r->vh.num_buffers);
			assert_true(n >= 1 && n <= FRONT_RING_SIZE);
		}
	}
	r->len = total - HDR;
	memcpy(r->data, raw + HDR, r->len);
	if (nbufs)
		*nbufs = n;
	return true;
}

static void remember(const uint8_t *frame, uint32_t len)
{
	memcpy(t.sent.sink.get(&t.sent.sink, len), frame, len);
}

/* One TCP segment of a flow, into the aggregator. */
static void push_segment(uint32_t len, enum pkt_csum csum, bool cwr)
{
	static uint8_t payload[1460], frame[PKT_MAX];
	uint32_t gso = t.port->gso, n;
	struct pkt_spec s;
	struct gn_meta m;

	pkt_default(&s);
	memcpy(s.dst, guest_mac, 6);
	keep_fill(payload, len, t.seq + 1);
	s.payload = payload;
	s.len = len;
	s.seq = t.seq;
	s.id = (uint16_t)t.sent.n;
	s.csum = csum;
	if (cwr)
		s.flags |= PKT_CWR;
	t.seq += len;
	n = pkt_build(&s, frame);
	pkt_meta(frame, n, 0, gso, &m);
	rig_push(&t.rig, rig_packet(&t.rig, (int)t.sent.n, frame, n, &m, 0, 0), 0);
	if (csum == PKT_CSUM_PARTIAL) {
		/* As the wire would have had it. */
		s.csum = PKT_CSUM_GOOD;
		n = pkt_build(&s, frame);
	}
	remember(frame, n);
}

static void deliver(void)
{
	rig_flush(&t.rig, UINT64_MAX);
	t.port->ops->deliver(t.port->queue[0], &t.rig.pool, t.rig.head, t.rig.out.n);
	t.rig.out.n = 0;
	/* All chunks came back. */
	assert_null(rig_account(&t.rig));
	assert_int_equal(t.rig.pool.nfree, t.rig.pool.nchunks);
}

/* The frame, cut again, is the packets from @first on. Return: their number */
static unsigned int check_segments(struct received *r, unsigned int first)
{
	struct iovec iov = { r->data, r->len };
	const struct gso_frame f = { .vh = r->vh, .iov = &iov, .niov = 1, .len = r->len };
	struct keep k;
	unsigned int n;

	keep_init(&k, KEEP_MAX);
	assert_true(gso_segment(&f, PORT_MAX_FRAME, 0, &k.sink) > 0);
	n = k.n;
	assert_true(first + n <= t.sent.n);
	for (unsigned int i = 0; i < n; i++) {
		assert_int_equal(k.frame[i].len, t.sent.frame[first + i].len);
		assert_memory_equal(k.frame[i].data, t.sent.frame[first + i].data,
				    k.frame[i].len);
	}
	keep_fini(&k);
	return n;
}

/* The frame is a packet as it was sent, with nothing said about it. */
static void check_plain(const struct received *r, unsigned int i)
{
	static const struct virtio_net_hdr_v1 none;

	assert_memory_equal(&r->vh, &none,
			    offsetof(struct virtio_net_hdr_v1, num_buffers));
	assert_int_equal(r->len, t.sent.frame[i].len);
	assert_memory_equal(r->data, t.sent.frame[i].data, r->len);
}

static struct received got;

static void merges(uint64_t features)
{
	unsigned int nbufs;

	up(features);
	assert_int_equal(t.port->gso, GN_INSTANCE_TSO4 | GN_INSTANCE_TSO6);
	assert_int_equal(t.changes, 1);
	post(NBUFS, 1);
	driver_want(&t.f.rx, true, 1);
	for (int i = 0; i < 10; i++)
		push_segment(1460, PKT_CSUM_GOOD, false);
	deliver();
	assert_true(receive(&got, 1, &nbufs));
	assert_int_equal(got.len, 54 + 10 * 1460);
	assert_int_equal(got.vh.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
	assert_int_equal(got.vh.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	assert_int_equal(le16toh(got.vh.gso_size), 1460);
	assert_int_equal(nbufs, (HDR + got.len + BUF - 1) / BUF);
	assert_int_equal(check_segments(&got, 0), 10);
	assert_false(receive(&got, 1, NULL));
	assert_int_equal(front_count(t.f.call[0]), 1);
	assert_int_equal(STAT(calls), 1);
	assert_int_equal(STAT(rx_packets), 10);
	assert_int_equal(STAT(rx_frames), 1);
	assert_int_equal(STAT(rx_bytes), 54 + 10 * 1460);
	assert_int_equal(STAT(rx_dropped), 0);
}

static void test_merges_split(void **state)
{
	merges(MRG | TSO);
}

static void test_merges_packed(void **state)
{
	merges(MRG | TSO | BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_F_IN_ORDER));
}

static void test_merges_event_idx(void **state)
{
	merges(MRG | TSO | BIT(VIRTIO_RING_F_EVENT_IDX));
}

/* A guest that does not want interrupts gets none. */
static void test_no_interrupts(void **state)
{
	up(MRG);
	post(NBUFS, 1);
	driver_want(&t.f.rx, false, 1);
	push_segment(100, PKT_CSUM_GOOD, false);
	deliver();
	assert_true(receive(&got, 1, NULL));
	assert_int_equal(front_count(t.f.call[0]), 0);
	assert_int_equal(STAT(calls_saved), 1);
}

/* Big buffers instead of merged ones. */
static void test_one_big_chain(void **state)
{
	up(V1 | TSO);
	post(1, 33);
	for (int i = 0; i < 40; i++)
		push_segment(1460, PKT_CSUM_GOOD, false);
	deliver();
	assert_true(receive(&got, 33, NULL));
	assert_int_equal(got.len, 54 + 40 * 1460);
	assert_int_equal(le16toh(got.vh.num_buffers), 1);
	assert_int_equal(check_segments(&got, 0), 40);
}

/* A guest without offloads gets each packet as it was, also of chains that were merged
 * before it said so. */
static void test_plain(void **state)
{
	up(MRG);
	assert_int_equal(t.port->gso, 0);
	post(NBUFS, 1);
	t.port->gso = GN_INSTANCE_TSO4;
	for (int i = 0; i < 10; i++)
		push_segment(i < 9 ? 1000 : 77, PKT_CSUM_GOOD, false);
	rig_flush(&t.rig, UINT64_MAX);
	assert_int_equal(t.rig.out.n, 1);
	deliver();
	for (unsigned int i = 0; i < 10; i++) {
		assert_true(receive(&got, 1, NULL));
		check_plain(&got, i);
	}
	assert_false(receive(&got, 1, NULL));
	assert_int_equal(STAT(rx_frames), 10);
	assert_int_equal(STAT(rx_packets), 10);
	t.port->gso = 0;
}

/* A local sender left the checksum to hardware: so do we for a guest that can, and for
 * one that cannot it is completed. */
static void test_partial_checksum(void **state)
{
	up(MRG);
	post(NBUFS, 1);
	push_segment(500, PKT_CSUM_PARTIAL, false);
	deliver();
	assert_true(receive(&got, 1, NULL));
	check_plain(&got, 0);
	assert_true(keep_good(got.data, got.len));
}

static void test_partial_checksum_kept(void **state)
{
	up(MRG | TSO);
	post(NBUFS, 1);
	push_segment(500, PKT_CSUM_PARTIAL, false);
	deliver();
	assert_true(receive(&got, 1, NULL));
	assert_int_equal(got.vh.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	assert_false(keep_good(got.data, got.len));
	assert_int_equal(check_segments(&got, 0), 1);
}

/* A chain that begins with CWR needs GUEST_ECN. */
static void ecn(uint64_t features, unsigned int frames)
{
	up(features);
	post(NBUFS, 1);
	push_segment(1000, PKT_CSUM_GOOD, true);
	for (int i = 0; i < 4; i++)
		push_segment(1000, PKT_CSUM_GOOD, false);
	deliver();
	for (unsigned int i = 0; i < frames; i++) {
		assert_true(receive(&got, 1, NULL));
		if (frames > 1)
			check_plain(&got, i);
		else
			assert_int_equal(got.vh.gso_type, VIRTIO_NET_HDR_GSO_TCPV4 |
								  VIRTIO_NET_HDR_GSO_ECN);
	}
	assert_false(receive(&got, 1, NULL));
}

static void test_ecn(void **state)
{
	ecn(MRG | TSO, 1);
}

static void test_no_ecn(void **state)
{
	ecn((MRG | TSO) & ~BIT(VIRTIO_NET_F_GUEST_ECN), 5);
}

/* What does not fit is dropped as a whole; what comes after it may fit. */
static void test_full(void **state)
{
	up(MRG | TSO);
	post(4, 1);
	for (int i = 0; i < 10; i++)
		push_segment(1460, PKT_CSUM_GOOD, false);
	deliver();
	assert_false(receive(&got, 1, NULL));
	assert_int_equal(STAT(rx_dropped), 1);
	assert_int_equal(STAT(rx_frames), 0);
	for (int i = 0; i < 5; i++)
		push_segment(1460, PKT_CSUM_GOOD, false);
	deliver();
	assert_true(receive(&got, 1, NULL));
	assert_int_equal(check_segments(&got, 10), 5);
	assert_false(receive(&got, 1, NULL));
}

static void test_nobody_there(void **state)
{
	assert_int_equal(open_port(1, false), 0);
	front_init(&t.f, t.loop, MRG);
	push_segment(100, PKT_CSUM_GOOD, false);
	deliver();
	assert_int_equal(STAT(rx_dropped), 1);
}

/* ---- after a stop nothing is written -------------------------------------------------
 */

static void test_stopped_ring(void **state)
{
	struct {
		uint32_t hdr[3];
		struct vhost_vring_state s;
	} r;

	up(MRG);
	post(NBUFS, 1);
	push_segment(100, PKT_CSUM_GOOD, false);
	deliver();
	front_state(&t.f, VU_GET_VRING_BASE, 0, 0);
	assert_int_equal(front_reply(&t.f, &r, sizeof(r)), sizeof(r));
	assert_int_equal(r.s.num, 1);
	push_segment(100, PKT_CSUM_GOOD, false);
	deliver();
	assert_true(receive(&got, 1, NULL));
	check_plain(&got, 0);
	assert_false(receive(&got, 1, NULL));
	assert_int_equal(STAT(rx_dropped), 1);
}

static void test_disabled_ring(void **state)
{
	up(MRG);
	post(NBUFS, 1);
	front_state(&t.f, VU_SET_VRING_ENABLE, 0, 0);
	push_segment(100, PKT_CSUM_GOOD, false);
	deliver();
	assert_false(receive(&got, 1, NULL));
	front_state(&t.f, VU_SET_VRING_ENABLE, 0, 1);
	push_segment(100, PKT_CSUM_GOOD, false);
	deliver();
	assert_true(receive(&got, 1, NULL));
	check_plain(&got, 1);
}

/* ---- from the guest
 * -------------------------------------------------------------------- */

/* The guest makes a frame available: header and bytes in one buffer, or in several. */
static void transmit(const uint8_t *frame, uint32_t len, unsigned int first, uint64_t id)
{
	static const uint8_t hdr[HDR];
	const uint64_t at = TX_DATA + id * 0x1000;
	const struct driver_buf buf[2] = { { at, HDR + first },
					   { at + HDR + first, len - first } };

	guest_write(&t.f.guest, at, hdr, HDR);
	guest_write(&t.f.guest, at + HDR, frame, len);
	assert_int_equal(driver_add(&t.f.tx, buf, first < len ? 2 : 1, 0, 0, id), 0);
}

static void kick(void)
{
	const uint64_t one = 1;

	if (driver_should_kick(&t.f.tx))
		assert_int_equal(write(t.f.kick[1], &one, 8), 8);
}

static bool readable(void)
{
	struct pollfd p = { .fd = t.port->queue[0]->fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

static int fetch(struct gso_frame *f)
{
	return t.port->ops->fetch(t.port->queue[0], f);
}

/* Nothing is left, and the next kick will be seen. */
static void drain(void)
{
	struct gso_frame f;

	assert_int_equal(fetch(&f), 0);
	assert_false(readable());
}

static uint32_t gather(const struct gso_frame *f, uint8_t *buf)
{
	uint32_t n = 0;

	for (unsigned int i = 0; i < f->niov; i++) {
		memcpy(buf + n, f->iov[i].iov_base, f->iov[i].iov_len);
		n += (uint32_t)f->iov[i].iov_len;
	}
	assert_int_equal(n, f->len);
	return n;
}

static void sends(uint64_t features)
{
	static uint8_t frame[1514], out[PKT_MAX], other[64];
	struct gso_frame f;
	uint64_t cookie;
	uint32_t len;

	up(features);
	assert_true(readable()); /* a ring may hold something when it starts */
	drain();
	for (unsigned int round = 0; round < 3; round++) {
		for (unsigned int i = 0; i < 20; i++) {
			keep_fill(frame, sizeof(frame), round * 20 + i);
			transmit(frame, sizeof(frame), i * 75, i);
		}
		kick();
		assert_true(readable());
		for (unsigned int i = 0; i < 20; i++) {
			assert_int_equal(fetch(&f), 1);
			keep_fill(frame, sizeof(frame), round * 20 + i);
			/* What has been seen does not change under its reader. */
			memset(other, 0x55, sizeof(other));
			guest_write(&t.f.guest, TX_DATA + i * 0x1000 + HDR, other,
				    sizeof(other));
			assert_int_equal(gather(&f, out), sizeof(frame));
			assert_memory_equal(out, frame, sizeof(frame));
			/* And is the device's until the next call. */
			assert_false(driver_get(&t.f.tx, &cookie, &len) && cookie == i);
		}
		assert_true(readable());
		drain();
		for (unsigned int i = 0; i < 20; i++) {
			assert_int_equal(driver_get(&t.f.tx, &cookie, &len), 1);
			assert_int_equal(cookie, i);
		}
		assert_int_equal(driver_get(&t.f.tx, &cookie, &len), 0);
	}
	assert_int_equal(STAT(tx_bad), 0);
}

static void test_sends_split(void **state)
{
	sends(MRG);
}

static void test_sends_packed(void **state)
{
	sends(MRG | BIT(VIRTIO_F_RING_PACKED));
}

static void test_sends_event_idx(void **state)
{
	sends(MRG | BIT(VIRTIO_RING_F_EVENT_IDX));
}

/* The guest's word on what it verified, and what it cannot know, is dropped. */
static void test_transmit_header(void **state)
{
	struct virtio_net_hdr_v1 vh = { .flags = 0xff, .gso_type = 1, .gso_size = 9 };
	const struct driver_buf buf = { TX_DATA, HDR + 100 };
	struct gso_frame f;

	up(MRG);
	guest_write(&t.f.guest, TX_DATA, &vh, HDR);
	assert_int_equal(driver_add(&t.f.tx, &buf, 1, 0, 0, 0), 0);
	assert_int_equal(fetch(&f), 1);
	assert_int_equal(f.vh.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	assert_int_equal(f.vh.gso_size, 9);
	assert_int_equal(f.len, 100);
	drain();
}

/* Shorter than an Ethernet header, longer than any frame, with a part to be written:
 * counted, and what follows goes on. */
static void test_malformed(void **state)
{
	const struct driver_buf tiny = { TX_DATA, HDR + 13 };
	const struct driver_buf huge[2] = { { TX_DATA, 0x10000 }, { TX_DATA, 0x1000 } };
	const struct driver_buf both[2] = { { TX_DATA, 100 }, { TX_DATA + 0x1000, 100 } };
	static uint8_t frame[60];
	struct gso_frame f;
	uint64_t cookie;
	uint32_t len;

	up(MRG);
	assert_int_equal(driver_add(&t.f.tx, &tiny, 1, 0, 0, 0), 0);
	assert_int_equal(driver_add(&t.f.tx, huge, 2, 0, 0, 1), 0);
	assert_int_equal(driver_add(&t.f.tx, both, 1, 1, 0, 2), 0);
	transmit(frame, sizeof(frame), 60, 3);
	assert_int_equal(fetch(&f), 1);
	assert_int_equal(f.len, sizeof(frame));
	drain();
	assert_int_equal(STAT(tx_bad), 3);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(driver_get(&t.f.tx, &cookie, &len), 1);
}

/* Frames of a disabled ring are used up and go nowhere. */
static void test_disabled_transmit(void **state)
{
	static uint8_t frame[60];
	struct gso_frame f;
	uint64_t cookie;
	uint32_t len;

	up(MRG);
	front_state(&t.f, VU_SET_VRING_ENABLE, 1, 0);
	for (unsigned int i = 0; i < 5; i++)
		transmit(frame, sizeof(frame), 60, i);
	kick();
	drain();
	assert_int_equal(STAT(tx_disabled), 5);
	for (unsigned int i = 0; i < 5; i++)
		assert_int_equal(driver_get(&t.f.tx, &cookie, &len), 1);
	front_state(&t.f, VU_SET_VRING_ENABLE, 1, 1);
	transmit(frame, sizeof(frame), 60, 0);
	kick();
	assert_int_equal(fetch(&f), 1);
	drain();
}

/* A stop while a frame is out: it is put back where the guest finds it. */
static void test_stop_puts_held(void **state)
{
	static uint8_t frame[60];
	struct gso_frame f;
	uint64_t cookie;
	uint32_t len;

	up(MRG);
	transmit(frame, sizeof(frame), 60, 0);
	assert_int_equal(fetch(&f), 1);
	assert_int_equal(driver_get(&t.f.tx, &cookie, &len), 0);
	front_state(&t.f, VU_GET_VRING_BASE, 1, 0);
	assert_int_equal(driver_get(&t.f.tx, &cookie, &len), 1);
	assert_int_equal(fetch(&f), 0);
}

static void test_rarp(void **state)
{
	const uint8_t mac[8] = { 2, 0, 0, 0, 0, 0x11 };
	static uint8_t out[PKT_MAX];
	struct gso_frame f;

	up(MRG);
	drain();
	front_send(&t.f, VU_SEND_RARP, mac, 8, NULL, 0);
	assert_true(readable());
	assert_int_equal(fetch(&f), 1);
	assert_int_equal(gather(&f, out), 60);
	assert_int_equal(out[0] & out[5], 0xff);
	assert_memory_equal(out + 6, guest_mac, 6);
	assert_int_equal(pkt_get16(out + 12), 0x8035); /* RFC 903 */
	assert_int_equal(pkt_get16(out + 20), 3);
	assert_memory_equal(out + 22, guest_mac, 6);
	assert_memory_equal(out + 32, guest_mac, 6);
	drain();
}

/* ---- local frames
 * -------------------------------------------------------------------------- */

/* A guest's super-frame for another guest: kept where that one takes it, else cut. */
static void inject(uint64_t features, bool whole)
{
	static uint8_t payload[4000], frame[PKT_MAX];
	struct iovec iov = { frame, 0 };
	struct gso_frame f = { .iov = &iov, .niov = 1 };
	struct pkt_spec s;
	uint32_t sum;

	up(features);
	post(NBUFS, 1);
	pkt_default(&s);
	keep_fill(payload, sizeof(payload), 1);
	s.payload = payload;
	s.len = sizeof(payload);
	s.csum = PKT_CSUM_PARTIAL;
	f.len = pkt_build(&s, frame);
	iov.iov_len = f.len;
	f.vh.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	f.vh.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
	f.vh.gso_size = htole16(1000);
	f.vh.csum_start = htole16(34);
	f.vh.csum_offset = htole16(16);
	t.port->ops->inject(t.port->queue[0], &f);
	for (unsigned int i = 0; i < (whole ? 1 : 4); i++) {
		assert_true(receive(&got, 1, NULL));
		assert_int_equal(got.len, whole ? f.len : 1054);
		assert_int_equal(got.vh.gso_type, whole);
		sum = got.vh.flags;
		assert_int_equal(sum, whole ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0);
		if (!whole) {
			assert_true(keep_good(got.data, got.len));
			assert_memory_equal(got.data + 54, payload + i * 1000, 1000);
		}
	}
	assert_false(receive(&got, 1, NULL));
}

static void test_inject_kept(void **state)
{
	inject(MRG | TSO, true);
}

static void test_inject_cut(void **state)
{
	inject(MRG, false);
}

/* ---- what breaks
 * ------------------------------------------------------------------------------ */

/* The port has hung up, said so in its counter, and takes the next front end. */
static void check_recovers(void)
{
	char c;

	front_pump(&t.f);
	assert_int_equal(front_reply(&t.f, &c, 1), 0);
	assert_int_equal(STAT(faults), 1);
	assert_int_equal(t.port->gso, 0);
	front_disconnect(&t.f);
	front_rings(&t.f, MRG);
	assert_int_equal(front_connect(&t.f, t.path), 0);
	front_up(&t.f, MRG);
	post(NBUFS, 1);
	push_segment(100, PKT_CSUM_GOOD, false);
	deliver();
	assert_true(receive(&got, 1, NULL));
	assert_int_equal(STAT(faults), 1);
}

static void test_receive_ring_breaks(void **state)
{
	const struct driver_buf nowhere = { 0x7777777000ULL, 100 };

	up(MRG | TSO);
	assert_int_equal(driver_add(&t.f.rx, &nowhere, 0, 1, 0, 0), 0);
	push_segment(100, PKT_CSUM_GOOD, false);
	deliver();
	assert_int_equal(STAT(rx_dropped), 1);
	check_recovers();
}

static void test_transmit_ring_breaks(void **state)
{
	const struct driver_buf nowhere = { 0x7777777000ULL, 100 };
	struct gso_frame f;

	up(MRG);
	assert_int_equal(driver_add(&t.f.tx, &nowhere, 1, 0, 0, 0), 0);
	assert_int_equal(fetch(&f), 0);
	check_recovers();
}

/* A receive buffer with nothing to write into, or too small for the header. */
static void test_useless_buffers(void **state)
{
	const struct driver_buf small = { GUEST_DATA, HDR - 1 };

	up(MRG);
	assert_int_equal(driver_add(&t.f.rx, &small, 0, 1, 0, 0), 0);
	push_segment(100, PKT_CSUM_GOOD, false);
	deliver();
	check_recovers();
}

static void test_memory_goes_away(void **state)
{
	int fd;

	up(MRG);
	post(NBUFS, 1);
	fd = t.f.guest.region[0].fd;
	assert_int_equal(ftruncate(fd, 0), 0);
	push_segment(100, PKT_CSUM_GOOD, false);
	deliver();
	assert_int_equal(ftruncate(fd, (off_t)t.f.guest.region[0].size), 0);
	check_recovers();
}

static void test_bad_messages(void **state)
{
	static const struct {
		uint32_t hdr[3];
		unsigned int nfds;
	} bad[] = {
		{ { 99, VU_VERSION, 0 }, 0 },
		{ { VU_GET_FEATURES, 3, 0 }, 0 },
		{ { VU_SET_MEM_TABLE, VU_VERSION, 100000 }, 0 },
		{ { VU_SET_OWNER, VU_VERSION, 0 }, 1 },
		{ { VU_SET_MEM_TABLE, VU_VERSION, 8 }, 12 },
	};

	assert_int_equal(open_port(1, false), 0);
	front_init(&t.f, t.loop, MRG);
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int fd[12];
		char c;

		for (unsigned int k = 0; k < 12; k++)
			fd[k] = t.f.tick;
		assert_int_equal(front_connect(&t.f, t.path), 0);
		if (bad[i].nfds)
			front_send(&t.f, bad[i].hdr[0], bad, bad[i].hdr[2], fd,
				   bad[i].nfds);
		else
			assert_int_equal(send(t.f.sock, bad[i].hdr, 12, MSG_NOSIGNAL),
					 12);
		front_pump(&t.f);
		assert_int_equal(front_reply(&t.f, &c, 1), 0);
		assert_int_equal(STAT(faults), i + 1);
		front_disconnect(&t.f);
	}
}

/* Byte by byte, and two at once. */
static void test_partial_messages(void **state)
{
	const uint32_t ask[6] = { VU_GET_FEATURES,  VU_VERSION, 0,
				  VU_GET_QUEUE_NUM, VU_VERSION, 0 };
	uint32_t reply[10];

	assert_int_equal(open_port(1, false), 0);
	front_init(&t.f, t.loop, MRG);
	assert_int_equal(front_connect(&t.f, t.path), 0);
	for (size_t i = 0; i < 12; i++) {
		assert_int_equal(front_reply(&t.f, reply, sizeof(reply)), -EAGAIN);
		assert_int_equal(send(t.f.sock, (const char *)ask + i, 1, MSG_NOSIGNAL),
				 1);
		front_pump(&t.f);
	}
	assert_int_equal(front_reply(&t.f, reply, sizeof(reply)), 20);
	assert_int_equal(send(t.f.sock, ask, sizeof(ask), MSG_NOSIGNAL), sizeof(ask));
	front_pump(&t.f);
	assert_int_equal(front_reply(&t.f, reply, sizeof(reply)), 40);
	assert_int_equal(STAT(faults), 0);
}

/* Half a message with a descriptor, and then nothing more. */
static void test_leaves_half_way(void **state)
{
	const uint64_t number = 0;
	int fds = 0;
	DIR *d;

	assert_int_equal(open_port(1, false), 0);
	front_init(&t.f, t.loop, MRG);
	for (int i = 0; i < 20; i++) {
		DIR *before = i ? NULL : opendir("/proc/self/fd");

		while (before && readdir(before))
			fds++;
		if (before)
			closedir(before);
		assert_int_equal(front_connect(&t.f, t.path), 0);
		/* The size promises more than there is. */
		front_send(&t.f, VU_GET_FEATURES, &number, 0, NULL, 0);
		front_send(&t.f, VU_SET_VRING_CALL, &number, 8, &t.f.call[0], 1);
		front_disconnect(&t.f);
		front_pump(&t.f);
	}
	d = opendir("/proc/self/fd");
	while (readdir(d))
		fds--;
	closedir(d);
	assert_int_equal(fds, 0);
	assert_int_equal(STAT(faults), 0);
}

/* ---- sockets
 * ------------------------------------------------------------------------------------ */

static void test_socket_file(void **state)
{
	struct port *first;
	struct stat st;

	assert_int_equal(open_port(1, false), 0);
	front_init(&t.f, t.loop, MRG);
	assert_int_equal(stat(t.path, &st), 0);
	assert_int_equal(st.st_mode, S_IFSOCK | 0600);
	first = t.port;
	assert_int_equal(open_port(1, false), -EADDRINUSE);
	t.port = first;
	t.port->ops->close(t.port);
	assert_int_equal(stat(t.path, &st), -1);
	t.port = NULL;
	/* A file that is no socket stays. */
	close(open(t.path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	assert_int_equal(open_port(1, false), -EEXIST);
	t.port = NULL;
	assert_int_equal(unlink(t.path), 0);
}

static int listen_at(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	strncpy(sun.sun_path, path, sizeof(sun.sun_path) - 1);
	assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(listen(fd, 1), 0);
	return fd;
}

static void test_stale_socket(void **state)
{
	front_init(&t.f, t.loop, MRG);
	close(listen_at(t.path));
	assert_int_equal(open_port(1, false), 0);
	assert_int_equal(front_connect(&t.f, t.path), 0);
	front_up(&t.f, MRG);
}

/* A front end that listens: it is found when it comes, and again after it left. */
static void test_client(void **state)
{
	struct timespec now, end;
	int lfd;

	assert_int_equal(open_port(1, true), 0);
	front_init(&t.f, t.loop, MRG);
	front_pump(&t.f);
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += 20;
	for (int round = 0; round < 2; round++) {
		lfd = listen_at(t.path);
		do {
			front_pump(&t.f);
			t.f.sock = accept4(lfd, NULL, NULL, SOCK_CLOEXEC);
			clock_gettime(CLOCK_MONOTONIC, &now);
			assert_true(now.tv_sec < end.tv_sec);
		} while (t.f.sock < 0);
		front_rings(&t.f, MRG);
		front_up(&t.f, MRG);
		post(NBUFS, 1);
		push_segment(100, PKT_CSUM_GOOD, false);
		deliver();
		assert_true(receive(&got, 1, NULL));
		close(lfd);
		unlink(t.path);
		front_disconnect(&t.f);
		front_pump(&t.f);
	}
	assert_int_equal(STAT(faults), 0);
}

/* The next one waits until the first is gone. */
static void test_second_front_end(void **state)
{
	uint32_t reply[10];
	int first;

	up(MRG);
	first = t.f.sock;
	assert_int_equal(front_connect(&t.f, t.path), 0);
	front_send(&t.f, VU_GET_FEATURES, NULL, 0, NULL, 0);
	assert_int_equal(front_reply(&t.f, reply, sizeof(reply)), -EAGAIN);
	close(first);
	front_pump(&t.f); /* gone */
	front_pump(&t.f); /* accepted */
	front_pump(&t.f);
	assert_int_equal(front_reply(&t.f, reply, sizeof(reply)), 20);
}

/* One ring pair, several workers: each receives into it; one of them sends. */
static void test_more_workers_than_rings(void **state)
{
	struct gso_frame f;
	static uint8_t frame[60];
	unsigned int fetched = 0;

	assert_int_equal(open_port(3, false), 0);
	front_init(&t.f, t.loop, MRG);
	assert_int_equal(front_connect(&t.f, t.path), 0);
	front_up(&t.f, MRG);
	post(NBUFS, 1);
	for (unsigned int q = 0; q < 3; q++) {
		push_segment(100, PKT_CSUM_GOOD, false);
		rig_flush(&t.rig, UINT64_MAX);
		t.port->ops->deliver(t.port->queue[q], &t.rig.pool, t.rig.head,
				     t.rig.out.n);
		t.rig.out.n = 0;
		assert_true(receive(&got, 1, NULL));
		check_plain(&got, q);
	}
	transmit(frame, sizeof(frame), 60, 0);
	for (unsigned int q = 0; q < 3; q++)
		fetched += t.port->ops->fetch(t.port->queue[q], &f) == 1;
	assert_int_equal(fetched, 1);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_merges_split),
		TEST(test_merges_packed),
		TEST(test_merges_event_idx),
		TEST(test_no_interrupts),
		TEST(test_one_big_chain),
		TEST(test_plain),
		TEST(test_partial_checksum),
		TEST(test_partial_checksum_kept),
		TEST(test_ecn),
		TEST(test_no_ecn),
		TEST(test_full),
		TEST(test_nobody_there),
		TEST(test_stopped_ring),
		TEST(test_disabled_ring),
		TEST(test_sends_split),
		TEST(test_sends_packed),
		TEST(test_sends_event_idx),
		TEST(test_transmit_header),
		TEST(test_malformed),
		TEST(test_disabled_transmit),
		TEST(test_stop_puts_held),
		TEST(test_rarp),
		TEST(test_inject_kept),
		TEST(test_inject_cut),
		TEST(test_receive_ring_breaks),
		TEST(test_transmit_ring_breaks),
		TEST(test_useless_buffers),
		TEST(test_memory_goes_away),
		TEST(test_bad_messages),
		TEST(test_partial_messages),
		TEST(test_leaves_half_way),
		TEST(test_socket_file),
		TEST(test_stale_socket),
		TEST(test_client),
		TEST(test_second_front_end),
		TEST(test_more_workers_than_rings),
	};

	log_set_level(LOG_LVL_ERROR);
	return cmocka_run_group_tests_name("port_vhost", tests, NULL, NULL);
}
