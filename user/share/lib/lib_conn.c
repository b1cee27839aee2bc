// SPDX-License-Identifier: BSD-2-Clause
/*
 * lib_conn: connections of application threads to owners. Contract in lib.h.
 *
 * Found by the thread's own cache of (region id, connection), which may outlive the
 * region: ids are never used twice. The region's list, under its lock, owns them. TCP and
 * UNIX sockets block, with a receive timeout: a small get costs one send and one receive.
 * TLS does not block (net.h).
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib_conn_int.h"
#include "../../lib/clock.h"

#define CACHE 8

unsigned int lib_generation;

static uint64_t next_thread;
static __thread uint64_t this_thread;
static __thread unsigned int this_generation;
static __thread struct {
	uint64_t region;
	struct lib_conn *conn;
} cache[CACHE];

/* ---- whose it is ------------------------------------------------------------------ */

static pthread_key_t exit_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Regions with connections, so that a thread that ends takes its own along. */
static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static struct lib_conn **all;
static size_t all_n, all_room;

/* On its parent's connections a forked child says nothing, not even good-bye: by TLS its
 * words would be counted as its parent's. */
static void conn_free(struct lib_conn *c)
{
	if (c->generation == lib_generation)
		net_close(&c->nc);
	else if (c->nc.fd >= 0)
		close(c->nc.fd);
	free(c);
}

static void forget(struct lib_conn *c)
{
	for (size_t i = 0; i < all_n; i++)
		if (all[i] == c) {
			all[i] = all[--all_n];
			break;
		}
}

static void unlink_conn(struct lib_conn *c)
{
	struct lib_conn **p;

	pthread_mutex_lock(&c->region->lock);
	for (p = &c->region->conns; *p != c; p = &(*p)->next)
		;
	*p = c->next;
	pthread_mutex_unlock(&c->region->lock);
}

static void thread_exit(void *arg)
{
	uint64_t me = (uint64_t)(uintptr_t)arg;

	pthread_mutex_lock(&all_lock);
	for (size_t i = 0; i < all_n;) {
		struct lib_conn *c = all[i];

		if (c->thread != me) {
			i++;
			continue;
		}
		all[i] = all[--all_n];
		unlink_conn(c);
		conn_free(c);
	}
	pthread_mutex_unlock(&all_lock);
}

static void in_child(void)
{
	lib_generation++;
}

static void init(void)
{
	pthread_key_create(&exit_key, thread_exit);
	pthread_atfork(NULL, NULL, in_child);
}

void lib_conns_init(void)
{
	pthread_once(&once, init);
}

/* A forked child's only thread is a new one: its parent's connections stay untouched. */
static void know_thread(void)
{
	if (this_thread && this_generation == lib_generation)
		return;
	this_thread = __atomic_add_fetch(&next_thread, 1, __ATOMIC_RELAXED);
	this_generation = lib_generation;
	memset(cache, 0, sizeof(cache));
	pthread_setspecific(exit_key, (void *)(uintptr_t)this_thread);
}

struct lib_conn *lib_conn_find(struct ghostmem_region *r)
{
	unsigned int at = (unsigned int)r->id % CACHE;
	struct lib_conn *c;

	know_thread();
	if (cache[at].region == r->id)
		return cache[at].conn;
	pthread_mutex_lock(&r->lock);
	for (c = r->conns; c && c->thread != this_thread; c = c->next)
		;
	pthread_mutex_unlock(&r->lock);
	if (c) {
		cache[at].region = r->id;
		cache[at].conn = c;
	}
	return c;
}

void lib_conns_close(struct ghostmem_region *r)
{
	pthread_mutex_lock(&all_lock);
	while (r->conns) {
		struct lib_conn *c = r->conns;

		r->conns = c->next;
		forget(c);
		conn_free(c);
	}
	pthread_mutex_unlock(&all_lock);
}

/* ---- receiving -------------------------------------------------------------------- */

static ssize_t recv_direct(struct lib_conn *c, struct iovec *iov, int n)
{
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = (size_t)n };
	uint64_t start = clock_ns(), end = start + (uint64_t)c->timeout_ms * 1000000;
	int flags = 0, err;
	ssize_t r;

	if (c->spin_ns) {
		do {
			r = recvmsg(c->nc.fd, &mh, MSG_DONTWAIT);
		} while (r < 0 && (errno == EAGAIN || errno == EINTR) &&
			 clock_ns() < start + c->spin_ns);
		if (r >= 0 || (errno != EAGAIN && errno != EINTR))
			return r > 0 ? r : r ? -errno : -ECONNRESET;
	}
	/* A signal ends the socket's own timeout, and the next call would begin it anew. */
	while ((r = recvmsg(c->nc.fd, &mh, flags)) < 0 &&
	       (errno == EINTR || (flags && errno == EAGAIN))) {
		flags = MSG_DONTWAIT;
		err = net_wait(c->nc.fd, POLLIN, end);
		if (err)
			return err;
	}
	if (r < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	return r ? r : -ECONNRESET;
}

/* Bytes of the stream, first those that are here. */
static int take(struct lib_conn *c, uint8_t *to, size_t len)
{
	size_t have = c->rx_fill - c->rx_at;

	if (have > len)
		have = len;
	if (have) {
		memcpy(to, c->rx + c->rx_at, have);
		c->rx_at += have;
	}
	if (have == len)
		return 0;
	if (!c->direct)
		return net_recv_all(&c->nc, to + have, len - have, c->timeout_ms);
	while (have < len) {
		struct iovec iov = { to + have, len - have };
		ssize_t n = recv_direct(c, &iov, 1);

		if (n < 0)
			return (int)n;
		have += (size_t)n;
	}
	return 0;
}

/*
 * A header, and with it whatever else there is. If only one get is under way, all bytes
 * that can follow its header are its own, and go to where they belong without a copy.
 * *got: how many did.
 */
static int take_hdr(struct lib_conn *c, struct gm_hdr *h, struct lib_req *only,
		    size_t *got)
{
	uint8_t raw[GM_HDR_SIZE];
	int err;

	*got = 0;
	if (!c->direct) {
		err = take(c, raw, sizeof(raw));
		return err ? err : gm_hdr_decode(raw, h);
	}
	if (c->rx_at == c->rx_fill)
		c->rx_at = c->rx_fill = 0;
	if (RX_SIZE - c->rx_at < GM_HDR_SIZE) {
		memmove(c->rx, c->rx + c->rx_at, c->rx_fill - c->rx_at);
		c->rx_fill -= c->rx_at;
		c->rx_at = 0;
	}
	while (c->rx_fill - c->rx_at < GM_HDR_SIZE) {
		size_t need = GM_HDR_SIZE - (c->rx_fill - c->rx_at);
		struct iovec iov[2] = { { c->rx + c->rx_fill, RX_SIZE - c->rx_fill } };
		ssize_t n;

		if (only) {
			iov[0].iov_len = need;
			iov[1].iov_base = only->buf;
			iov[1].iov_len = only->size;
		}
		n = recv_direct(c, iov, only ? 2 : 1);
		if (n < 0)
			return (int)n;
		if (only && (size_t)n > need) {
			*got = (size_t)n - need;
			n = (ssize_t)need;
		}
		c->rx_fill += (size_t)n;
	}
	err = gm_hdr_decode(c->rx + c->rx_at, h);
	c->rx_at += GM_HDR_SIZE;
	return err;
}

/* ---- requests --------------------------------------------------------------------- */

static void finish(struct lib_conn *c, struct pending *p, int status)
{
	if (status && !p->q.a->status)
		p->q.a->status = status;
	p->q.a->token--;
	p->seq = 0;
	c->n--;
	c->bytes -= p->q.size;
}

void lib_conn_lose(struct lib_conn *c, struct ghostmem_async *a, int status)
{
	struct ghostmem_async **p = &c->lost;

	if (a->status)
		return;
	a->status = status;
	if (!a->op)
		return;
	while (*p)
		p = &(*p)->next;
	a->next = NULL;
	*p = a;
}

struct ghostmem_async *lib_conn_lost(struct lib_conn *c, const struct ghostmem_async *a)
{
	struct ghostmem_async **p = &c->lost, *found;

	while (a && *p && *p != a)
		p = &(*p)->next;
	found = *p;
	if (found)
		*p = found->next;
	return found;
}

static int fail(struct lib_conn *c, int err)
{
	c->err = err;
	/* In the order in which they were sent */
	for (uint64_t seq = c->seq + 1; seq <= c->seq + LIB_DEPTH; seq++) {
		struct pending *p = &c->pending[seq % LIB_DEPTH];

		if (!p->seq)
			continue;
		lib_conn_lose(c, p->q.a, -ECONNRESET);
		finish(c, p, 0);
	}
	for (unsigned int i = 0; i < c->nredo; i++) {
		lib_conn_lose(c, c->redo[i].a, -EREMCHG);
		c->redo[i].a->token--;
	}
	c->nredo = 0;
	c->tx_fill = 0;
	net_close(&c->nc);
	return err;
}

unsigned int lib_conn_busy(const struct lib_conn *c)
{
	return c->n + c->nredo;
}

int lib_conn_failed(const struct lib_conn *c)
{
	return c->err;
}

int lib_conn_settle(struct lib_conn *c, uint64_t *old)
{
	if (!c->known || c->done - c->before > 1)
		return -EIO;
	if (c->done == c->before)
		return 0;
	if (old)
		*old = c->last;
	return 1;
}

static bool is_atomic(uint8_t op)
{
	return op == GM_OP_FADD || op == GM_OP_SWAP || op == GM_OP_CAS;
}

int lib_conn_flush(struct lib_conn *c)
{
	struct iovec iov = { c->tx, c->tx_fill };
	int err;

	if (c->err || !c->tx_fill)
		return c->err;
	err = net_send_all(&c->nc, &iov, 1, c->timeout_ms);
	c->tx_fill = 0;
	return err ? fail(c, err) : 0;
}

static struct pending *next_pending(struct lib_conn *c)
{
	return &c->pending[(c->seq + 1) % LIB_DEPTH];
}

int lib_conn_submit(struct lib_conn *c, const struct lib_req *q)
{
	struct pending *p;
	struct gm_hdr h;

	/* What waits for the next owner goes there first. A reap may end with another
	 * connection, which counts anew. */
	while (!c->err && (c->nredo || next_pending(c)->seq ||
			   (c->n && c->bytes + q->size > LIB_INFLIGHT)))
		lib_conn_reap(c);
	if (c->err)
		return c->err;
	p = next_pending(c);
	h = (struct gm_hdr){ .op = q->op,
			     .len = q->op == GM_OP_PUT ? q->size : 0,
			     .seq = ++c->seq,
			     .session = c->session,
			     .bus = q->bus,
			     .size = q->size,
			     .key_id = c->key_id,
			     .epoch = c->epoch,
			     .arg = q->arg,
			     .arg2 = q->arg2 };
	if (c->tx_fill == sizeof(c->tx) && lib_conn_flush(c))
		return c->err;
	gm_hdr_encode(&h, c->tx + c->tx_fill);
	c->tx_fill += GM_HDR_SIZE;
	if (h.len) {
		struct iovec iov[2] = { { c->tx, c->tx_fill }, { q->buf, q->size } };
		int err = net_send_all(&c->nc, iov, 2, c->timeout_ms);

		c->tx_fill = 0;
		if (err)
			return fail(c, err);
	}
	if (is_atomic(q->op))
		c->before = c->done;
	*p = (struct pending){ h.seq, *q };
	q->a->token++;
	c->n++;
	c->bytes += q->size;
	return 0;
}

static struct lib_req *only_get(struct lib_conn *c)
{
	struct pending *p = &c->pending[c->seq % LIB_DEPTH];

	return c->n == 1 && p->seq && p->q.op == GM_OP_GET ? &p->q : NULL;
}

/* Everything under way is answered, some of it by -EREMCHG: to the new owner with that.
 * The old one stays connected until all it has done has been heard of. */
static int follow(struct lib_conn *c)
{
	int limit_ms = lib_limit_ms(c->region);
	unsigned int n = c->nredo;
	struct lib_req redo[LIB_DEPTH];
	int err = -EREMCHG;
	uint64_t asked = 0;

	net_close(&c->nc);
	c->nc.fd = -1;
	c->err = -ENOTCONN;
	do {
		if (!lib_again(c->region, err, c->redo_ns, &asked))
			return fail(c, err);
		err = lib_conn_dial(c, limit_ms);
	} while (err);
	c->err = 0;
	memcpy(redo, c->redo, n * sizeof(*redo));
	c->nredo = 0;
	for (unsigned int i = 0; i < n; i++) {
		redo[i].a->token--;
		/* Nothing of it was sent, unless it is a put. */
		if (lib_conn_submit(c, &redo[i]))
			lib_conn_lose(c, redo[i].a, -EREMCHG);
	}
	return c->err;
}

int lib_conn_reap(struct lib_conn *c)
{
	struct pending *p;
	struct gm_hdr h;
	size_t got;
	int err;

	if (lib_conn_flush(c))
		return c->err;
	err = take_hdr(c, &h, only_get(c), &got);
	if (err)
		return fail(c, err);
	if (h.op == GM_OP_EVENT && !got)
		return 0; /* the keeper hears of it too */
	p = &c->pending[h.seq % LIB_DEPTH];
	if (!(h.flags & GM_F_REPLY) || !p->seq || p->seq != h.seq || p->q.op != h.op ||
	    h.session != c->session || got > h.len ||
	    (h.len && (h.op != GM_OP_GET || h.len != p->q.size)))
		return fail(c, -EPROTO);
	if (h.len) {
		err = take(c, (uint8_t *)p->q.buf + got, h.len - got);
		if (err)
			return fail(c, err);
	}
	if (h.status == -EREMCHG && p->q.op != GM_OP_FENCE) {
		if (!c->nredo)
			c->redo_ns = clock_ns();
		c->redo[c->nredo++] = p->q;
		p->seq = 0;
		c->n--;
		c->bytes -= p->q.size;
	} else {
		if (p->q.old && !h.status)
			*p->q.old = h.arg;
		c->done += is_atomic(h.op) && !h.status;
		/* The thread that made the page whole may load from it next. */
		if (h.op == GM_OP_PUT && !h.status && h.arg)
			lib_renew(c->region, p->q.bus - c->region->bus, p->q.size);
		finish(c, p, h.status);
	}
	return c->nredo && !c->n ? follow(c) : 0;
}

/* ---- connecting ------------------------------------------------------------------- */

int lib_conn_get(struct ghostmem_region *r, int timeout_ms, struct lib_conn **out)
{
	struct lib_conn *c = lib_conn_find(r);
	struct lib_conn **grown;

	if (!c) {
		c = calloc(1, sizeof(*c));
		if (!c || getrandom(&c->id, sizeof(c->id), 0) != sizeof(c->id)) {
			free(c);
			return -ENOMEM;
		}
		c->region = r;
		c->thread = this_thread;
		c->generation = lib_generation;
		c->nc.fd = -1;
		c->err = -ENOTCONN;
		pthread_mutex_lock(&all_lock);
		if (all_n == all_room) {
			grown = realloc(all,
					(2 * all_room + 8) * sizeof(struct lib_conn *));
			if (!grown) {
				pthread_mutex_unlock(&all_lock);
				free(c);
				return -ENOMEM;
			}
			all = grown;
			all_room = 2 * all_room + 8;
		}
		all[all_n++] = c;
		pthread_mutex_lock(&r->lock);
		c->next = r->conns;
		r->conns = c;
		pthread_mutex_unlock(&r->lock);
		pthread_mutex_unlock(&all_lock);
		cache[r->id % CACHE].region = r->id;
		cache[r->id % CACHE].conn = c;
	}
	if (c->err) {
		int err = lib_conn_dial(c, timeout_ms);

		if (err)
			return err;
		c->err = 0;
	}
	*out = c;
	return 0;
}
