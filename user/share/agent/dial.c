// SPDX-License-Identifier: BSD-2-Clause
/* dial: connections, step by step. Contract in dial.h; agent's thread. */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "dial.h"
#include "../../lib/clock.h"

enum dial_state { BEGIN, CONNECT, HELLO, ATTACH };

struct dial {
	struct loop *loop;
	struct dial_to to;
	char addrs[2 * NET_ADDR_MAX], node[GM_NAME_MAX], peer[GM_NAME_MAX];
	const char *rest; /* addresses that were not tried; NULL: none */
	int timeout_ms;
	uint64_t end_ns;
	void (*done)(void *arg, int err, struct dial_done *d);
	void *arg;
	enum dial_state state;
	struct loop_watch *watch;
	uint32_t watched; /* events */
	int soon;	  /* eventfd: the first step; -1: over */
	int err;	  /* of the last address */
	struct dial_done got;
	/* The message that goes out, or comes in */
	uint8_t out[GM_HDR_SIZE + sizeof(struct gm_hello)];
	size_t out_len, out_at;
	uint8_t in[GM_HDR_SIZE + GM_NONCE_SIZE];
	size_t in_at;
};
_Static_assert(sizeof(struct gm_attach) <= sizeof(struct gm_hello), "fits into out");

static void on_event(void *arg, uint32_t events);

static void unwatch(struct dial *d)
{
	loop_unwatch(d->loop, d->watch);
	d->watch = NULL;
	d->watched = 0;
	if (d->soon >= 0)
		close(d->soon);
	d->soon = -1;
}

static int watch(struct dial *d, short events)
{
	uint32_t want = events & POLLOUT ? EPOLLOUT : EPOLLIN;
	int err;

	if (d->watched == want)
		return 0;
	unwatch(d);
	err = loop_watch(d->loop, d->got.conn.fd, want, on_event, d, &d->watch);
	if (!err)
		d->watched = want;
	return err;
}

void dial_cancel(struct dial *d)
{
	if (!d)
		return;
	unwatch(d);
	if (d->got.conn.fd >= 0)
		net_close(&d->got.conn);
	free(d);
}

static void end(struct dial *d, int err)
{
	void (*done)(void *arg, int err, struct dial_done *d) = d->done;
	struct dial_done got = d->got;
	void *arg = d->arg;

	if (!err)
		d->got.conn.fd = -1;
	dial_cancel(d);
	done(arg, err, err ? NULL : &got);
}

static void put(struct dial *d, struct gm_hdr *h, const void *payload)
{
	gm_hdr_encode(h, d->out);
	memcpy(d->out + GM_HDR_SIZE, payload, h->len);
	d->out_len = GM_HDR_SIZE + h->len;
	d->out_at = d->in_at = 0;
	d->end_ns = clock_boot_ns() + (uint64_t)d->timeout_ms * 1000000;
}

static void put_hello(struct dial *d)
{
	struct gm_hello hello = { .role = (uint8_t)d->to.role,
				  .incarnation = htole64(d->to.incarnation) };
	struct gm_hdr h = { .op = GM_OP_HELLO,
			    .len = sizeof(hello),
			    .seq = DIAL_SEQ - 1 };

	memcpy(hello.node, d->node, sizeof(hello.node));
	put(d, &h, &hello);
	d->state = HELLO;
}

static int put_attach(struct dial *d, const uint8_t *nonce)
{
	struct gm_attach at;
	struct gm_hdr h = { .op = GM_OP_ATTACH,
			    .len = sizeof(at),
			    .seq = DIAL_SEQ,
			    .session = d->got.session,
			    .bus = d->to.bus,
			    .epoch = d->to.epoch };
	int err = gm_key_proof(d->to.key, nonce, d->got.session, d->to.bus, d->node,
			       at.proof);

	if (err)
		return err;
	put(d, &h, &at);
	d->got.asked_ns = clock_boot_ns();
	d->state = ATTACH;
	return 0;
}

/* The reply is there. Return: 0: all of them are; -EAGAIN: the next one; -errno */
static int replied(struct dial *d, const struct gm_hdr *h)
{
	int err;

	if (h->op != (d->state == HELLO ? GM_OP_HELLO : GM_OP_ATTACH) ||
	    !(h->flags & GM_F_REPLY))
		return -EBADMSG;
	if (h->status)
		return h->status;
	if (d->state == ATTACH) {
		d->got.attach = *h;
		return 0;
	}
	if (h->len != GM_NONCE_SIZE)
		return -EBADMSG;
	d->got.session = h->session;
	err = put_attach(d, d->in + GM_HDR_SIZE);
	return err ? err : -EAGAIN;
}

static int send_out(struct dial *d, short *events)
{
	while (d->out_at < d->out_len) {
		struct iovec iov = { d->out + d->out_at, d->out_len - d->out_at };
		ssize_t n = net_send(&d->got.conn, &iov, 1);

		if (n == -EINTR)
			continue;
		if (n < 0) {
			*events = POLLOUT;
			return (int)n;
		}
		d->out_at += (size_t)n;
	}
	return 0;
}

/* No byte more than the reply has: what follows is the caller's. */
static int recv_in(struct dial *d, struct gm_hdr *h)
{
	size_t want = GM_HDR_SIZE;

	for (;;) {
		struct iovec iov;
		ssize_t n;
		int err;

		if (d->in_at >= GM_HDR_SIZE) {
			err = gm_hdr_decode(d->in, h);
			if (err)
				return err;
			if (h->len > GM_NONCE_SIZE)
				return -EBADMSG;
			want = GM_HDR_SIZE + h->len;
		}
		if (d->in_at == want)
			return 0;
		iov = (struct iovec){ d->in + d->in_at, want - d->in_at };
		n = net_recv(&d->got.conn, &iov, 1);
		if (n == -EINTR)
			continue;
		if (n <= 0)
			return n ? (int)n : -ECONNRESET;
		d->in_at += (size_t)n;
	}
}

/* As far as it goes now. Return: 0: done; -EAGAIN: when there is *@events; -errno */
static int go(struct dial *d, short *events)
{
	struct gm_hdr h;
	int err;

	if (d->state == CONNECT) {
		err = net_connect_step(&d->got.conn, events);
		if (!err)
			err = net_check_peer(&d->got.conn, d->peer);
		if (err || !d->to.role)
			return err;
		put_hello(d);
	}
	for (;;) {
		err = send_out(d, events);
		if (err)
			return err;
		*events = POLLIN;
		err = recv_in(d, &h);
		if (!err)
			err = replied(d, &h);
		if (err != -EAGAIN || d->out_at == d->out_len)
			return err;
	}
}

/* The next address. Return: 0, -errno: there is none, and why */
static int next(struct dial *d)
{
	while (d->rest) {
		char one[NET_ADDR_MAX];

		d->err = net_addr_next(&d->rest, one);
		if (!d->err)
			d->err = net_connect_start(one, d->to.tls, &d->got.conn);
		if (d->err == -EINVAL)
			return d->err;
		if (!d->err) {
			d->state = CONNECT;
			d->end_ns = clock_boot_ns() + (uint64_t)d->timeout_ms * 1000000;
			return 0;
		}
		d->got.conn.fd = -1;
	}
	return d->err;
}

static void step(struct dial *d)
{
	short events = POLLIN;
	int err = d->state == BEGIN ? next(d) : 0;

	while (!err) {
		enum dial_state at = d->state;

		err = go(d, &events);
		if (err == -EAGAIN) {
			err = watch(d, events);
			if (!err)
				return;
		}
		/* One that nobody listens at; what an owner says is final. */
		if (!err || at != CONNECT || d->state != CONNECT || err == -ETIMEDOUT ||
		    !d->rest)
			break;
		d->err = err;
		unwatch(d);
		net_close(&d->got.conn);
		d->got.conn.fd = -1;
		err = next(d);
	}
	end(d, err);
}

static void on_event(void *arg, uint32_t events)
{
	step(arg);
}

void dial_tick(struct dial *d)
{
	if (d && d->state != BEGIN && clock_boot_ns() >= d->end_ns)
		end(d, -ETIMEDOUT);
}

int dial_start(struct loop *l, const struct dial_to *to, int timeout_ms,
	       void (*done)(void *arg, int err, struct dial_done *d), void *arg,
	       struct dial **out)
{
	struct dial *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	d->loop = l;
	d->to = *to;
	strncpy(d->addrs, to->addr, sizeof(d->addrs) - 1);
	if (to->node)
		strncpy(d->node, to->node, sizeof(d->node) - 1);
	strncpy(d->peer, to->peer, sizeof(d->peer) - 1);
	d->rest = d->addrs;
	d->timeout_ms = timeout_ms;
	d->done = done;
	d->arg = arg;
	d->got.conn.fd = -1;
	/* From the loop: the caller may be in the middle of something. */
	d->soon = eventfd(1, EFD_CLOEXEC);
	if (d->soon < 0 || loop_watch(l, d->soon, EPOLLIN, on_event, d, &d->watch)) {
		dial_cancel(d);
		return -ENOMEM;
	}
	*out = d;
	return 0;
}
