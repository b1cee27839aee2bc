// SPDX-License-Identifier: BSD-2-Clause
/* chan: framing and queueing. Contract in chan.h; one thread. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "chan.h"
#include "../lib/clock.h"

#define RX_SIZE	  (GM_HDR_SIZE + GM_PAYLOAD_MAX) /* until something longer comes */
#define QUEUE_MAX (128u << 20) /* a peer that takes no replies is cut off */
#define RX_TURN	  (1u << 20)   /* bytes that are received before others have their turn */
#define TX_KEEP	  (8u << 20)   /* more than that is given back when it is sent */

/* A message whose payload is not ours. */
struct ref {
	uint8_t raw[GM_HDR_SIZE];
	const uint8_t *payload;
	size_t len, sent; /* header included */
};

struct chan {
	struct loop *loop;
	struct net_conn conn;
	const struct chan_ops *ops;
	void *arg;
	struct loop_watch *in, *out;
	int out_fd; /* duplicate of the socket: epoll takes a descriptor once */
	uint8_t *rx;
	size_t rx_room, fill;
	uint8_t *tx;
	size_t tx_head, tx_tail, tx_room;
	struct ref *refs; /* ring of CHAN_REFS, behind what is in tx; NULL: none yet */
	unsigned int ref_head, nrefs;
	int err;
	bool failed, busy, closing;
};

static void chan_free(struct chan *c)
{
	loop_unwatch(c->loop, c->in);
	loop_unwatch(c->loop, c->out);
	if (c->out_fd >= 0)
		close(c->out_fd);
	net_close(&c->conn);
	free(c->rx);
	free(c->tx);
	free(c->refs);
	free(c);
}

/* After a callback, or outside one: carry out what was asked for. */
static void settle(struct chan *c)
{
	if (c->busy)
		return;
	if (c->failed && !c->closing) {
		c->closing = true;
		c->busy = true;
		c->ops->closed(c->arg, c->err);
		c->busy = false;
	}
	if (c->closing)
		chan_free(c);
}

/* A message of @n bytes begins, which is longer than any before. Return: 0, -errno */
static int make_room(struct chan *c, const struct gm_hdr *h, size_t n)
{
	uint8_t *rx;

	if (!c->ops->fits || !c->ops->fits(c->arg, h))
		return -EBADMSG;
	rx = realloc(c->rx, n);
	if (!rx)
		return -ENOMEM;
	c->rx = rx;
	c->rx_room = n;
	return 0;
}

static void deliver(struct chan *c)
{
	size_t at = 0;

	while (!c->failed && !c->closing && c->fill - at >= GM_HDR_SIZE) {
		struct gm_hdr h;
		int err = gm_hdr_decode(c->rx + at, &h);

		if (!err && GM_HDR_SIZE + h.len > c->rx_room)
			err = make_room(c, &h, GM_HDR_SIZE + h.len);
		if (err) {
			c->failed = true;
			c->err = err;
			return;
		}
		if (c->fill - at < GM_HDR_SIZE + h.len)
			break;
		c->ops->msg(c->arg, &h, c->rx + at + GM_HDR_SIZE);
		at += GM_HDR_SIZE + h.len;
	}
	if (at) {
		memmove(c->rx, c->rx + at, c->fill - at);
		c->fill -= at;
	}
}

/* Is there more that poll() does not show? */
static bool pending(struct chan *c)
{
	return c->conn.ops->pending && c->conn.ops->pending(&c->conn);
}

/* c->busy is set. */
static void receive(struct chan *c)
{
	size_t got = 0;

	while (!c->failed && !c->closing && (got < RX_TURN || pending(c))) {
		struct iovec iov = { c->rx + c->fill, c->rx_room - c->fill };
		ssize_t n = net_recv(&c->conn, &iov, 1);

		if (n == -EAGAIN || n == -EINTR)
			break;
		if (n <= 0) {
			c->failed = true;
			c->err = (int)n;
			break;
		}
		c->fill += (size_t)n;
		got += (size_t)n;
		deliver(c);
		/* A short read has emptied the socket: spare the call that says so. */
		if ((size_t)n < iov.iov_len && !pending(c))
			break;
	}
}

static void readable(void *arg, uint32_t events)
{
	struct chan *c = arg;

	c->busy = true;
	receive(c);
	c->busy = false;
	settle(c);
}

static void unkick(struct chan *c)
{
	loop_unwatch(c->loop, c->out);
	c->out = NULL;
	if (c->out_fd >= 0)
		close(c->out_fd);
	c->out_fd = -1;
}

/* A slice of what waits by reference. Return: 0; -EAGAIN: some is left; -errno */
static int send_refs(struct chan *c)
{
	size_t budget = CHAN_SLICE;

	while (c->nrefs) {
		struct ref *r = &c->refs[c->ref_head];
		struct iovec iov[2] = { { r->raw + r->sent, sizeof(r->raw) - r->sent } };
		size_t at = r->sent > sizeof(r->raw) ? r->sent - sizeof(r->raw) : 0;
		size_t n = r->len - sizeof(r->raw) - at;
		int first = r->sent >= sizeof(r->raw);
		ssize_t sent;

		if (!budget)
			return -EAGAIN;
		iov[1].iov_base = (uint8_t *)r->payload + at;
		iov[1].iov_len = n < budget ? n : budget;
		sent = net_send(&c->conn, iov + first, n ? 2 - first : 1);
		if (sent == -EINTR)
			continue;
		if (sent < 0)
			return (int)sent;
		r->sent += (size_t)sent;
		budget -= (size_t)sent < budget ? (size_t)sent : budget;
		if (r->sent == r->len) {
			c->ref_head = (c->ref_head + 1) % CHAN_REFS;
			c->nrefs--;
		}
	}
	return 0;
}

static void all_sent(struct chan *c)
{
	c->tx_head = c->tx_tail = 0;
	if (c->tx_room <= TX_KEEP)
		return;
	free(c->tx);
	c->tx = NULL;
	c->tx_room = 0;
}

static void writable(void *arg, uint32_t events)
{
	struct chan *c = arg;
	int err;

	if (c->failed || c->closing)
		return;
	while (c->tx_head < c->tx_tail) {
		struct iovec iov = { c->tx + c->tx_head, c->tx_tail - c->tx_head };
		ssize_t n = net_send(&c->conn, &iov, 1);

		if (n == -EAGAIN || n == -EINTR)
			return;
		if (n < 0) {
			chan_fail(c, (int)n);
			return;
		}
		c->tx_head += (size_t)n;
	}
	all_sent(c);
	err = send_refs(c);
	if (err == -EAGAIN)
		return;
	if (err) {
		chan_fail(c, err);
		return;
	}
	unkick(c);
}

/* An event of the loop, soon: @ready, whatever the socket has */
static int kick(struct chan *c, void (*ready)(void *arg, uint32_t events))
{
	int err;

	c->out_fd = eventfd(1, EFD_CLOEXEC);
	if (c->out_fd < 0)
		return -errno;
	err = loop_watch(c->loop, c->out_fd, EPOLLIN, ready, c, &c->out);
	if (err) {
		close(c->out_fd);
		c->out_fd = -1;
	}
	return err;
}

static int watch_out(struct chan *c)
{
	int err;

	c->out_fd = dup(c->conn.fd);
	if (c->out_fd < 0)
		return -errno;
	err = loop_watch(c->loop, c->out_fd, EPOLLOUT, writable, c, &c->out);
	if (err) {
		close(c->out_fd);
		c->out_fd = -1;
	}
	return err;
}

/* The transport has received, with the handshake, what poll() will not show. */
static void kicked(void *arg, uint32_t events)
{
	struct chan *c = arg;

	unkick(c);
	if ((c->tx_head < c->tx_tail || c->nrefs) && watch_out(c))
		chan_fail(c, -ENOMEM);
	else
		readable(c, EPOLLIN);
}

int chan_create(struct loop *l, struct net_conn *conn, const struct chan_ops *ops,
		void *arg, struct chan **out)
{
	struct chan *c = calloc(1, sizeof(*c));
	int err = -ENOMEM;

	if (!c)
		return -ENOMEM;
	c->loop = l;
	c->ops = ops;
	c->arg = arg;
	c->out_fd = -1;
	c->rx = malloc(RX_SIZE);
	c->rx_room = RX_SIZE;
	if (c->rx)
		err = loop_watch(l, conn->fd, EPOLLIN, readable, c, &c->in);
	c->conn = *conn;
	if (!err && pending(c))
		err = kick(c, kicked);
	if (err) {
		loop_unwatch(l, c->in);
		free(c->rx);
		free(c);
		return err;
	}
	*out = c;
	return 0;
}

void chan_close(struct chan *c)
{
	if (!c)
		return;
	c->closing = true;
	settle(c);
}

static void fail_soon(void *arg, uint32_t events)
{
	settle(arg);
}

void chan_fail(struct chan *c, int err)
{
	if (c->failed || c->closing)
		return;
	c->failed = true;
	c->err = err;
	if (c->busy)
		return;
	/* The caller may be in the middle of something with us: from the loop, then. */
	unkick(c);
	kick(c, fail_soon);
}

static int queue(struct chan *c, const void *p, size_t n)
{
	size_t have = c->tx_tail - c->tx_head;

	/* A queue that never gets empty moves back once what was sent is half of it. */
	if (c->tx_tail + n > c->tx_room && c->tx_head && c->tx_head >= have) {
		memmove(c->tx, c->tx + c->tx_head, have);
		c->tx_head = 0;
		c->tx_tail = have;
	}
	if (c->tx_tail + n > c->tx_room) {
		size_t room = 2 * (c->tx_tail + n);
		uint8_t *tx;

		if (have + n > QUEUE_MAX)
			return -ENOBUFS;
		tx = realloc(c->tx, room);
		if (!tx)
			return -ENOMEM;
		c->tx = tx;
		c->tx_room = room;
	}
	memcpy(c->tx + c->tx_tail, p, n);
	c->tx_tail += n;
	return 0;
}

void chan_send_ref(struct chan *c, const struct gm_hdr *h, const void *payload)
{
	struct ref *r;
	int err;

	if (c->failed || c->closing)
		return;
	if (!c->refs)
		c->refs = calloc(CHAN_REFS, sizeof(*c->refs));
	if (!c->refs || c->nrefs == CHAN_REFS) {
		chan_fail(c, -ENOBUFS);
		return;
	}
	r = &c->refs[(c->ref_head + c->nrefs++) % CHAN_REFS];
	gm_hdr_encode(h, r->raw);
	r->payload = payload;
	r->len = sizeof(r->raw) + h->len;
	r->sent = 0;
	if (c->out)
		return;
	err = send_refs(c);
	if (err == -EAGAIN)
		err = watch_out(c);
	if (err)
		chan_fail(c, err);
}

bool chan_has_refs(const struct chan *c)
{
	return c->nrefs;
}

void chan_send(struct chan *c, const struct gm_hdr *h, const void *payload)
{
	uint8_t raw[GM_HDR_SIZE];
	struct iovec iov[2] = { { raw, sizeof(raw) }, { (void *)payload, h->len } };
	ssize_t n = 0;
	int err = 0;

	if (c->failed || c->closing)
		return;
	if (c->nrefs) {
		if (h->len)
			chan_fail(c, -EPROTO);
		else
			chan_send_ref(c, h, NULL);
		return;
	}
	gm_hdr_encode(h, raw);
	if (c->tx_head == c->tx_tail) {
		n = net_send(&c->conn, iov, h->len ? 2 : 1);
		if (n == -EAGAIN || n == -EINTR)
			n = 0;
		if (n < 0) {
			chan_fail(c, (int)n);
			return;
		}
		if ((size_t)n == sizeof(raw) + h->len)
			return;
	}
	if ((size_t)n < sizeof(raw)) {
		err = queue(c, raw + n, sizeof(raw) - (size_t)n);
		n = 0;
	} else {
		n -= sizeof(raw);
	}
	if (!err && h->len)
		err = queue(c, (const uint8_t *)payload + n, h->len - (size_t)n);
	if (!err && !c->out)
		err = watch_out(c);
	if (err)
		chan_fail(c, err);
}

/* Wait, @timeout_ms for each progress, until what waits for the socket is in it. Return: 0,
 * -errno: connection has failed */
static int drain(struct chan *c, int timeout_ms)
{
	while (!c->failed && !c->closing && c->tx_head < c->tx_tail) {
		struct iovec iov = { c->tx + c->tx_head, c->tx_tail - c->tx_head };
		int err = net_send_all(&c->conn, &iov, 1, timeout_ms);

		if (err) {
			chan_fail(c, err);
			return err;
		}
		c->tx_head = c->tx_tail;
	}
	return c->failed ? c->err : 0;
}

int chan_wait(struct chan *c, const bool *done, int timeout_ms)
{
	uint64_t end = clock_ns() + (uint64_t)timeout_ms * 1000000;
	int err = drain(c, timeout_ms);
	bool busy = c->busy;

	c->busy = true;
	while (!err && !*done) {
		struct pollfd p = { .fd = c->conn.fd, .events = POLLIN };
		uint64_t now = clock_ns();

		if (now >= end) {
			err = -ETIMEDOUT;
			break;
		}
		poll(&p, 1, (int)((end - now) / 1000000) + 1);
		receive(c);
		if (c->failed || c->closing)
			err = c->err ? c->err : -ECONNRESET;
		else
			err = drain(c, timeout_ms);
	}
	c->busy = busy;
	settle(c);
	return err;
}

int chan_check_peer(struct chan *c, const char *node)
{
	return net_check_peer(&c->conn, node);
}

const char *chan_peer(const struct chan *c)
{
	return c->conn.peer;
}
