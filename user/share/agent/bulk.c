// SPDX-License-Identifier: BSD-2-Clause
/* bulk: pages ahead of their faults. Theory and contract in bulk.h; agent's thread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "bulk.h"
#include "peer_int.h"
#include "../../lib/log.h"

#define BULK_FLIGHTS 16
#define CHUNK	     (256u << 10) /* bytes that are received, and mapped, at a time */
#define LOW	     (64 << 10)	  /* the same while somebody waits */
#define IOVS	     32

struct flight {
	uint64_t page;
	uint32_t n;
	uint32_t clients,
		waiting; /* masks: to map it for; of these, who waits for some */
	bool marker;
	uint64_t gone[GM_READ_PAGES / 64];   /* void */
	uint64_t waited[GM_READ_PAGES / 64]; /* a thread stands at it */
};

struct bulk {
	struct peer *peer;
	struct net_conn conn;
	struct loop_watch *watch;
	uint64_t session, seq;
	struct flight flights[BULK_FLIGHTS]; /* ring: replies come in this order */
	unsigned int head, count;
	uint8_t raw[GM_HDR_SIZE];
	size_t got;		/* bytes of the message that comes in */
	uint32_t granted;	/* pages of it */
	uint32_t done;		/* of these, received and looked at */
	int low_water;		/* SO_RCVLOWAT as it is set */
	bool busy;		/* readable() is on the stack: it frees */
	uint8_t scratch[16384]; /* nobody reads what comes here */
};

static bool get_bit(const uint64_t *map, uint32_t i)
{
	return map[i / 64] >> (i % 64) & 1;
}

static void set_bit(uint64_t *map, uint32_t i)
{
	map[i / 64] |= 1ull << (i % 64);
}

/* The flight that covers @page, unless it is void there. */
static struct flight *find(const struct peer *p, uint64_t page)
{
	struct bulk *b = p->bulk;

	for (unsigned int i = 0; b && i < b->count; i++) {
		struct flight *f = &b->flights[(b->head + i) % BULK_FLIGHTS];

		if (page - f->page < f->n &&
		    !get_bit(f->gone, (uint32_t)(page - f->page)))
			return f;
	}
	return NULL;
}

bool bulk_has(const struct peer *p, uint64_t page)
{
	return find(p, page) != NULL;
}

/* Does a thread stand at a page that has not come yet? */
static bool awaited(const struct bulk *b)
{
	const struct flight *f = &b->flights[b->head];

	for (uint32_t i = b->done; f->waiting && i < f->n; i += 64 - i % 64)
		if (f->waited[i / 64] >> (i % 64))
			return true;
	return false;
}

/* Wake up for a whole chunk, or for less if somebody waits. */
static void set_low_water(struct bulk *b)
{
	size_t left = GM_HDR_SIZE - b->got;
	int want;

	/* What a layer above the socket has taken out of it is not counted. */
	if (b->conn.ops->pending)
		return;
	if (b->got >= GM_HDR_SIZE)
		left += (size_t)b->granted << b->peer->desc.page_shift;
	want = left < CHUNK ? (int)left : (int)CHUNK;
	if (b->got < GM_HDR_SIZE)
		want = 1;
	else if (want > LOW && awaited(b))
		want = LOW;
	if (want == b->low_water)
		return;
	b->low_water = want;
	setsockopt(b->conn.fd, SOL_SOCKET, SO_RCVLOWAT, &want, sizeof(want));
}

bool bulk_wait(struct peer *p, uint64_t page, uint32_t clients)
{
	struct flight *f = find(p, page);

	if (!f)
		return false;
	set_bit(f->waited, (uint32_t)(page - f->page));
	f->clients |= clients;
	f->waiting |= clients;
	set_low_water(p->bulk);
	return true;
}

void bulk_void(struct peer *p, uint64_t page)
{
	struct bulk *b = p->bulk;

	for (unsigned int i = 0; b && i < b->count; i++) {
		struct flight *f = &b->flights[(b->head + i) % BULK_FLIGHTS];

		if (page - f->page < f->n)
			set_bit(f->gone, (uint32_t)(page - f->page));
	}
}

void bulk_detach(struct peer *p, int client)
{
	struct bulk *b = p->bulk;

	for (unsigned int i = 0; b && i < b->count; i++) {
		struct flight *f = &b->flights[(b->head + i) % BULK_FLIGHTS];

		f->clients &= ~(1u << client);
		f->waiting &= ~(1u << client);
	}
}

uint32_t bulk_ask(struct peer *p, uint64_t page, uint32_t n, uint32_t clients,
		  bool marker)
{
	struct bulk *b = p->bulk;
	struct gm_hdr h = { .op = GM_OP_READ,
			    .bus = dir_page_bus(&p->desc, page),
			    .size = n << p->desc.page_shift,
			    .key_id = p->key_id,
			    .epoch = p->desc.epoch };
	uint8_t raw[GM_HDR_SIZE];
	struct iovec iov = { raw, sizeof(raw) };

	if (!b || b->count == BULK_FLIGHTS || !window_stage(p->win))
		return 0;
	h.session = b->session;
	h.seq = ++b->seq;
	gm_hdr_encode(&h, raw);
	/* So few and small that the socket has always room. */
	if (net_send(&b->conn, &iov, 1) != sizeof(raw)) {
		bulk_close(p);
		return 0;
	}
	b->flights[(b->head + b->count++) % BULK_FLIGHTS] = (struct flight){
		.page = page, .n = n, .clients = clients, .marker = marker
	};
	return n;
}

/* ---- what comes in ------------------------------------------------------------------
 */

static bool wanted(const struct bulk *b, const struct flight *f, uint32_t i)
{
	return !get_bit(f->gone, i) && b->peer->held[f->page + i] == ABSENT;
}

/* Where the next bytes of the message go, @most of them. */
static int targets(struct bulk *b, const struct flight *f, size_t most, struct iovec *iov)
{
	size_t at = b->got - GM_HDR_SIZE, end = at + most;
	const struct peer *p = b->peer;
	int n = 0;

	while (at < end) {
		uint32_t i = (uint32_t)(at >> p->desc.page_shift);
		size_t in = at & (dir_page_size(&p->desc) - 1),
		       len = dir_page_size(&p->desc) - in;
		bool here = wanted(b, f, i);
		uint8_t *to = here ? window_page(p->win, f->page + i) + in : b->scratch;

		if (!here && len > sizeof(b->scratch))
			len = sizeof(b->scratch);
		if (len > end - at)
			len = end - at;
		if (n && here &&
		    (uint8_t *)iov[n - 1].iov_base + iov[n - 1].iov_len == to)
			iov[n - 1].iov_len += len;
		else if (n == IOVS)
			break;
		else
			iov[n++] = (struct iovec){ to, len };
		at += len;
	}
	return n;
}

static void map(struct bulk *b, const struct flight *f, uint32_t from, uint32_t to)
{
	if (from < to)
		window_map(b->peer->win, f->page + from, to - from, f->clients, false);
}

/* Pages up to @end are in the memfd: hold them, show them. */
static void take(struct bulk *b, struct flight *f, uint32_t end)
{
	struct peer *p = b->peer;
	uint32_t from = b->done, i;

	for (i = b->done; i < end; i++) {
		bool waited = get_bit(f->waited, i);

		counters.streamed++;
		if (wanted(b, f, i)) {
			p->held[f->page + i] = READ;
			counters.pages_in++;
			counters.prefetched += !waited;
			if (i || !f->marker || waited)
				continue;
		} else {
			counters.voided++;
			if (waited)
				peer_need(p, f->page + i, f->waiting);
		}
		map(b, f, from, i);
		from = i + 1;
	}
	map(b, f, from, end);
	b->done = end;
}

/* The reply is complete; what it did not grant has to be asked for. */
static void land(struct bulk *b)
{
	struct flight *f = &b->flights[b->head];
	struct peer *p = b->peer;
	struct flight over = *f;

	b->head = (b->head + 1) % BULK_FLIGHTS;
	b->count--;
	for (uint32_t i = b->granted; i < over.n; i++)
		if (get_bit(over.waited, i))
			peer_need(p, over.page + i, over.waiting);
	b->got = 0;
	b->granted = b->done = 0;
	ahead_pump(p);
}

static int begin(struct bulk *b)
{
	const struct flight *f = &b->flights[b->head];
	struct gm_hdr h;
	int err = gm_hdr_decode(b->raw, &h);

	if (err)
		return err;
	if (h.op != GM_OP_READ || !(h.flags & GM_F_REPLY) || h.session != b->session ||
	    !b->count || h.bus != dir_page_bus(&b->peer->desc, f->page) ||
	    (!h.status && h.size % dir_page_size(&b->peer->desc)))
		return -EBADMSG;
	b->granted = h.status ? 0 : h.size >> b->peer->desc.page_shift;
	return b->granted > f->n ? -EBADMSG : 0;
}

/* Is there more that poll() does not show? */
static bool pending(struct bulk *b)
{
	return b->conn.ops->pending && b->conn.ops->pending(&b->conn);
}

static int receive(struct bulk *b, size_t *got)
{
	struct iovec iov[IOVS];
	unsigned int shift = b->peer->desc.page_shift;
	size_t total = GM_HDR_SIZE + ((size_t)b->granted << shift), want = 0;
	int n = 1, err;
	ssize_t r;

	if (b->got >= GM_HDR_SIZE)
		n = targets(b, &b->flights[b->head],
			    total - b->got < CHUNK ? total - b->got : CHUNK, iov);
	else
		iov[0] = (struct iovec){ b->raw + b->got, GM_HDR_SIZE - b->got };
	for (int i = 0; i < n; i++)
		want += iov[i].iov_len;
	r = net_recv(&b->conn, iov, n);
	if (r == -EINTR)
		return 0;
	if (r <= 0)
		return r ? (int)r : -ECONNRESET;
	b->got += (size_t)r;
	*got += (size_t)r;
	if (b->got == GM_HDR_SIZE) {
		err = begin(b);
		if (err)
			return err;
		total = GM_HDR_SIZE + ((size_t)b->granted << shift);
	} else if (b->got > GM_HDR_SIZE) {
		take(b, &b->flights[b->head],
		     (uint32_t)((b->got - GM_HDR_SIZE) >> shift));
	}
	if (b->got == total)
		land(b);
	if (b->peer->bulk != b || (size_t)r == want)
		return 0;
	/* A short read has emptied the socket. */
	return pending(b) ? 0 : -EAGAIN;
}

static void readable(void *arg, uint32_t events)
{
	struct bulk *b = arg;
	size_t got = 0;
	int err = 0;

	if (peer_over(b->peer))
		return;
	b->busy = true;
	/* A chunk at a time: faults have their turn in between. */
	while (!err && b->peer->bulk == b && (got < CHUNK || pending(b)))
		err = receive(b, &got);
	b->busy = false;
	if (b->peer->bulk != b) {
		free(b);
		return;
	}
	if (!err || err == -EAGAIN) {
		set_low_water(b);
		return;
	}
	log_limited(LOG_LVL_WARN, "region %s: bulk connection to %s lost: %s",
		    b->peer->desc.name, b->peer->desc.node, strerror(-err));
	bulk_close(b->peer);
}

/* ---- it comes and goes ---------------------------------------------------------------
 */

int bulk_open(struct peer *p, const struct net_conn *conn, uint64_t session)
{
	struct bulk *b;
	int err;

	bulk_close(p);
	b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->peer = p;
	b->conn = *conn;
	b->session = session;
	b->seq = DIAL_SEQ;
	err = loop_watch(p->loop, b->conn.fd, EPOLLIN, readable, b, &b->watch);
	if (err)
		free(b);
	else
		p->bulk = b;
	return err;
}

void bulk_close(struct peer *p)
{
	struct bulk *b = p->bulk;

	dial_cancel(p->bulk_dial);
	p->bulk_dial = NULL;
	if (!b)
		return;
	p->bulk = NULL;
	loop_unwatch(p->loop, b->watch);
	net_close(&b->conn);
	for (unsigned int k = 0; k < b->count; k++) {
		const struct flight *f = &b->flights[(b->head + k) % BULK_FLIGHTS];

		for (uint32_t i = k ? 0 : b->done; i < f->n; i++)
			if (f->waiting && get_bit(f->waited, i))
				peer_need(p, f->page + i, f->waiting);
	}
	if (!b->busy)
		free(b);
}
