// SPDX-License-Identifier: BSD-2-Clause
/* lib_dial: an application thread's way to an owner. Contract in lib_conn_int.h. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "lib_conn_int.h"

/* One request of the handshake and its reply. */
static int ask(struct lib_conn *c, struct gm_hdr *h, const void *payload, void *reply)
{
	uint8_t raw[GM_HDR_SIZE];
	struct iovec iov[2] = { { raw, sizeof(raw) }, { (void *)payload, h->len } };
	uint8_t op = h->op;
	int err;

	h->seq = ++c->seq;
	gm_hdr_encode(h, raw);
	err = net_send_all(&c->nc, iov, 2, c->timeout_ms);
	if (!err)
		err = net_recv_all(&c->nc, raw, sizeof(raw), c->timeout_ms);
	if (!err)
		err = gm_hdr_decode(raw, h);
	if (err)
		return err;
	if (h->op != op || !(h->flags & GM_F_REPLY) || h->seq != c->seq)
		return -EPROTO;
	if (h->status)
		return h->status;
	return h->len ? net_recv_all(&c->nc, reply, h->len, c->timeout_ms) : 0;
}

static int handshake(struct lib_conn *c)
{
	struct ghostmem_region *r = c->region;
	struct gm_hello hello = { .role = GM_ROLE_OPS, .incarnation = c->id };
	uint8_t nonce[GM_NONCE_SIZE];
	struct gm_attached was = { 0 };
	struct gm_attach at;
	struct gm_hdr h = { .op = GM_OP_HELLO, .len = sizeof(hello) };
	int err;

	memcpy(hello.node, r->node, sizeof(hello.node));
	err = ask(c, &h, &hello, nonce);
	if (err)
		return err;
	c->session = h.session;
	err = gm_key_proof(&r->key, nonce, c->session, r->bus, r->node, at.proof);
	if (err)
		return err;
	h = (struct gm_hdr){ .op = GM_OP_ATTACH,
			     .len = sizeof(at),
			     .session = c->session,
			     .bus = r->bus,
			     .epoch = c->epoch };
	err = ask(c, &h, &at, &was);
	if (err)
		return err;
	if (h.arg != r->size)
		return -EPROTO;
	c->known = h.flags & GM_F_SHARED && h.len;
	c->done = le64toh(was.done);
	c->last = le64toh(was.old);
	c->key_id = h.key_id;
	c->epoch = h.epoch;
	return 0;
}

static int make_direct(struct lib_conn *c)
{
	struct timeval tv = { .tv_sec = c->timeout_ms / 1000,
			      .tv_usec = c->timeout_ms % 1000 * 1000 };
	int flags = fcntl(c->nc.fd, F_GETFL);

	if (c->nc.ops->recv)
		return 0;
	if (flags < 0 || fcntl(c->nc.fd, F_SETFL, flags & ~O_NONBLOCK) ||
	    setsockopt(c->nc.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)))
		return -errno;
	c->direct = true;
	return 0;
}

int lib_conn_dial(struct lib_conn *c, int timeout_ms)
{
	struct ghostmem_region *r = c->region;
	const char *spin = getenv("GHOSTMEM_SPIN_US");
	const struct net_tls *tls;
	char addr[NET_ADDR_MAX];
	int err = lib_tls_get(r->g, &tls);

	if (err)
		return err;
	pthread_mutex_lock(&r->lock);
	memcpy(addr, r->addr, sizeof(addr));
	c->epoch = r->epoch;
	pthread_mutex_unlock(&r->lock);
	c->direct = false;
	c->timeout_ms = timeout_ms;
	c->spin_ns = spin ? strtoull(spin, NULL, 10) * 1000 : 0;
	c->seq = 0;
	c->rx_at = c->rx_fill = c->tx_fill = 0;
	err = net_connect(addr, tls, timeout_ms, &c->nc);
	if (err)
		return err;
	err = handshake(c);
	c->timeout_ms = lib_limit_ms(r);
	if (!err)
		err = make_direct(c);
	if (err)
		net_close(&c->nc);
	return err;
}
