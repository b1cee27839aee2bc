// SPDX-License-Identifier: BSD-2-Clause
/* vhost_rig: see vhost_rig.h. */
#include <endian.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "vhost_rig.h"

const uint8_t vh_mac[6] = { 2, 0, 0, 0, 0, 0x11 };

struct vhost_rig vh;
struct vh_frame vh_got;

static void on_call(void *owner, unsigned int queue, void (*fn)(void *arg), void *arg)
{
	char c;

	assert_ptr_equal(owner, &vh);
	vh.calls++;
	/* A worker may write until it has been called: no front end is told before. */
	if (vh.f.sock > 0)
		assert_int_not_equal(recv(vh.f.sock, &c, 1, MSG_DONTWAIT | MSG_PEEK), 0);
	fn(arg);
}

static void on_changed(void *owner)
{
	vh.changes++;
}

int vh_open_port(unsigned int nqueues, bool client)
{
	struct port_conf conf = { .kind = "vhost-user", .mtu = VH_MTU, .client = client };

	strcpy(conf.arg, vh.path);
	memcpy(conf.mac, vh_mac, 6);
	return port_find("vhost-user")->open(&conf, &vh.env, nqueues, &vh.port);
}

int vh_setup(void **state)
{
	const struct agg_conf agg = { .checksum = AGG_VERIFY,
				      .trust_partial = true,
				      .max_held = 1024 };

	memset(&vh, 0, sizeof(vh));
	strcpy(vh.dir, "/tmp/test_port_vhost.XXXXXX");
	assert_non_null(mkdtemp(vh.dir));
	snprintf(vh.path, sizeof(vh.path), "%s/vm", vh.dir);
	assert_int_equal(loop_create(&vh.loop), 0);
	vh.env = (struct port_env){
		.loop = vh.loop, .owner = &vh, .call = on_call, .changed = on_changed
	};
	assert_int_equal(rig_init(&vh.rig, 256, &agg), 0);
	agg_later(&vh.rig.agg, 0, true);
	keep_init(&vh.sent, KEEP_MAX);
	return 0;
}

int vh_teardown(void **state)
{
	front_fini(&vh.f);
	if (vh.port)
		vh.port->ops->close(vh.port);
	loop_destroy(vh.loop);
	keep_fini(&vh.sent);
	rig_fini(&vh.rig);
	assert_int_equal(rmdir(vh.dir), 0); /* the socket is gone */
	return 0;
}

void vh_up(uint64_t features)
{
	assert_int_equal(vh_open_port(1, false), 0);
	front_init(&vh.f, vh.loop, features);
	assert_int_equal(front_connect(&vh.f, vh.path), 0);
	front_up(&vh.f, features);
}

uint64_t vh_stat(size_t off)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < vh.port->nqueues; i++)
		sum += *(uint64_t *)((char *)&vh.port->queue[i]->stats + off);
	return sum;
}

void vh_post(unsigned int n, unsigned int per)
{
	for (unsigned int i = 0; i < n; i++) {
		struct driver_buf buf[FRONT_RING_SIZE];

		for (unsigned int k = 0; k < per; k++)
			buf[k] = (struct driver_buf){
				GUEST_DATA + (i * per + k) * (VH_BUF + 8), VH_BUF
			};
		assert_int_equal(driver_add(&vh.f.rx, buf, 0, per, 0, i), 0);
	}
}

bool vh_receive(struct vh_frame *r, unsigned int per, unsigned int *nbufs)
{
	static uint8_t raw[PKT_MAX + VH_HDR + VH_BUF];
	uint32_t total = 0, len;
	unsigned int n = 1;
	uint64_t cookie;

	for (unsigned int i = 0; i < n; i++) {
		if (!driver_get(&vh.f.rx, &cookie, &len)) {
			assert_int_equal(i, 0);
			return false;
		}
		for (uint32_t off = 0; off < len; off += VH_BUF) {
			uint32_t part = len - off < VH_BUF ? len - off : VH_BUF;

			guest_read(&vh.f.guest,
				   GUEST_DATA +
					   (cookie * per + off / VH_BUF) * (VH_BUF + 8),
				   raw + total + off, part);
		}
		total += len;
		if (!i) {
			assert_true(len > VH_HDR);
			memcpy(&r->vh, raw, VH_HDR);
			n = le16toh(r->vh.num_buffers);
			assert_true(n >= 1 && n <= FRONT_RING_SIZE);
		}
	}
	r->len = total - VH_HDR;
	memcpy(r->data, raw + VH_HDR, r->len);
	if (nbufs)
		*nbufs = n;
	return true;
}

static void remember(const uint8_t *frame, uint32_t len)
{
	memcpy(vh.sent.sink.get(&vh.sent.sink, len), frame, len);
}

/* @by is added to the payload's word at @at of what was built. */
static void push_segment(uint32_t len, enum pkt_csum csum, bool cwr, uint32_t at,
			 uint16_t by)
{
	static uint8_t payload[1460], frame[PKT_MAX];
	uint32_t gso = vh.port->gso, n;
	struct pkt_spec s;
	struct gn_meta m;

	pkt_default(&s);
	memcpy(s.dst, vh_mac, 6);
	keep_fill(payload, len, vh.seq + 1);
	s.payload = payload;
	s.len = len;
	s.seq = vh.seq;
	s.id = (uint16_t)vh.sent.n;
	s.csum = csum;
	if (cwr)
		s.flags |= PKT_CWR;
	vh.seq += len;
	n = pkt_build(&s, frame);
	at += n - len;
	pkt_put16(frame + at, (uint16_t)(pkt_get16(frame + at) + by));
	pkt_meta(frame, n, 0, gso, &m);
	rig_push(&vh.rig, rig_packet(&vh.rig, (int)vh.sent.n, frame, n, &m, 0, 0), 0);
	if (csum == PKT_CSUM_PARTIAL) {
		/* As the wire would have had it. */
		s.csum = PKT_CSUM_GOOD;
		n = pkt_build(&s, frame);
	}
	remember(frame, n);
}

void vh_push_segment(uint32_t len, enum pkt_csum csum, bool cwr)
{
	push_segment(len, csum, cwr, 0, 0);
}

void vh_push_altered(uint32_t len, uint32_t at, uint16_t by)
{
	push_segment(len, PKT_CSUM_GOOD, false, at, by);
}

void vh_deliver(void)
{
	rig_flush(&vh.rig, UINT64_MAX);
	vh.port->ops->deliver(vh.port->queue[0], &vh.rig.pool, vh.rig.head, vh.rig.out.n);
	vh.rig.out.n = 0;
	/* All chunks came back. */
	assert_null(rig_account(&vh.rig));
	assert_int_equal(vh.rig.pool.nfree, vh.rig.pool.nchunks);
}

unsigned int vh_check_segments(struct vh_frame *r, unsigned int first)
{
	struct iovec iov = { r->data, r->len };
	const struct gso_frame f = { .vh = r->vh, .iov = &iov, .niov = 1, .len = r->len };
	struct keep k;
	unsigned int n;

	keep_init(&k, KEEP_MAX);
	assert_true(gso_segment(&f, PORT_MAX_FRAME, 0, &k.sink) > 0);
	n = k.n;
	assert_true(first + n <= vh.sent.n);
	for (unsigned int i = 0; i < n; i++) {
		assert_int_equal(k.frame[i].len, vh.sent.frame[first + i].len);
		assert_memory_equal(k.frame[i].data, vh.sent.frame[first + i].data,
				    k.frame[i].len);
	}
	keep_fini(&k);
	return n;
}

void vh_check_plain(const struct vh_frame *r, unsigned int i)
{
	static const struct virtio_net_hdr_v1 none;

	assert_memory_equal(&r->vh, &none,
			    offsetof(struct virtio_net_hdr_v1, num_buffers));
	assert_int_equal(r->len, vh.sent.frame[i].len);
	assert_memory_equal(r->data, vh.sent.frame[i].data, r->len);
}

void vh_transmit(const uint8_t *frame, uint32_t len, unsigned int first, uint64_t id)
{
	static const uint8_t hdr[VH_HDR];
	const uint64_t at = VH_TX_DATA + id * 0x1000;
	const struct driver_buf buf[2] = { { at, VH_HDR + first },
					   { at + VH_HDR + first, len - first } };

	guest_write(&vh.f.guest, at, hdr, VH_HDR);
	guest_write(&vh.f.guest, at + VH_HDR, frame, len);
	assert_int_equal(driver_add(&vh.f.tx, buf, first < len ? 2 : 1, 0, 0, id), 0);
}

void vh_kick(void)
{
	const uint64_t one = 1;

	if (driver_should_kick(&vh.f.tx))
		assert_int_equal(write(vh.f.kick[1], &one, 8), 8);
}

bool vh_readable(void)
{
	struct pollfd p = { .fd = vh.port->queue[0]->fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

int vh_fetch(struct gso_frame *f)
{
	return vh.port->ops->fetch(vh.port->queue[0], f);
}

void vh_drain(void)
{
	struct gso_frame f;

	assert_int_equal(vh_fetch(&f), 0);
	assert_false(vh_readable());
}

uint32_t vh_gather(const struct gso_frame *f, uint8_t *buf)
{
	uint32_t n = 0;

	for (unsigned int i = 0; i < f->niov; i++) {
		memcpy(buf + n, f->iov[i].iov_base, f->iov[i].iov_len);
		n += (uint32_t)f->iov[i].iov_len;
	}
	assert_int_equal(n, f->len);
	return n;
}
