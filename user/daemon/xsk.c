// SPDX-License-Identifier: BSD-2-Clause
/*
 * xsk: AF_XDP socket and rings. Contract in xsk.h; one worker.
 *
 * Transmission takes chunks from the same pool as reception, at most tx_limit
 * at a time, so that neither direction can starve the other.
 */
#include <errno.h>
#include <linux/if_link.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "xsk.h"
#include "stat.h"
#include "../lib/log.h"

#define COMP_BATCH    64  /* completions reaped at once */
#define DEPTH_ROUNDS  256 /* bursts to look at before the fill ring gets shallower */
#define BIND_TRIES    20  /* while the queue is busy: 2 s in all */
#define BIND_RETRY_NS 100000000

/* Best first. Copy mode with multi-buffer before zero copy without it would cost
 * speed; the other way round it would cost jumbo frames, which the MTU decides. */
static const uint16_t bind_flags[] = {
	XDP_ZEROCOPY | XDP_USE_SG | XDP_USE_NEED_WAKEUP,
	XDP_ZEROCOPY | XDP_USE_NEED_WAKEUP,
	XDP_COPY | XDP_USE_SG | XDP_USE_NEED_WAKEUP,
	XDP_COPY | XDP_USE_NEED_WAKEUP,
};

static int open_with(struct xsk *x, const char *ifname, uint32_t queue, struct umem *u,
		     uint16_t flags)
{
	const struct xsk_umem_config ucfg = {
		.fill_size = XSK_RX_SIZE,
		.comp_size = XSK_TX_SIZE,
		.frame_size = u->chunk_size,
	};
	const struct xsk_socket_config scfg = {
		.rx_size = XSK_RX_SIZE,
		.tx_size = XSK_TX_SIZE,
		.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
		.bind_flags = flags,
	};
	int err;

	err = xsk_umem__create(&x->umem, u->base, u->size, &x->fill, &x->comp, &ucfg);
	if (err)
		return err;
	err = xsk_socket__create(&x->sock, ifname, queue, x->umem, &x->rx, &x->tx, &scfg);
	if (err) {
		x->sock = NULL;
		xsk_umem__delete(x->umem);
		x->umem = NULL;
	}
	return err;
}

/* The best mode that works; @mode: its index in bind_flags. */
static int open_best(struct xsk *x, const char *ifname, uint32_t queue, struct umem *u,
		     unsigned int *mode)
{
	int err = -EINVAL;

	for (*mode = 0; *mode < sizeof(bind_flags) / sizeof(bind_flags[0]); ++*mode) {
		err = open_with(x, ifname, queue, u, bind_flags[*mode]);
		if (!err || err == -EBUSY || err == -EPERM)
			break;
	}
	return err;
}

static const char *open_remedy(int err)
{
	switch (-err) {
	case EBUSY: return "another AF_XDP socket has this queue: stop its program";
	case EPERM: return "run it as root, or with CAP_NET_RAW and CAP_NET_ADMIN";
	case EINVAL: return "does the interface have that queue?";
	case ENOBUFS:
	case ENOMEM: return "lower --chunks, or raise the limit of locked memory";
	default: return "see the kernel's message";
	}
}

int xsk_open(struct xsk *x, const char *ifname, uint32_t queue, struct umem *u,
	     struct mbuf_pool *pool)
{
	struct xdp_options opts;
	socklen_t len = sizeof(opts);
	unsigned int i = 0;
	int err = 0;

	memset(x, 0, sizeof(*x));
	/* A killed daemon's sockets outlive it for a moment. */
	for (unsigned int try = 0; try < BIND_TRIES; try++) {
		if (try)
			nanosleep(&(struct timespec){ .tv_nsec = BIND_RETRY_NS }, NULL);
		err = open_best(x, ifname, queue, u, &i);
		if (err != -EBUSY)
			break;
	}
	if (err) {
		log_err("%s: no AF_XDP socket on queue %u: %s; %s", ifname, queue,
			strerror(-err), open_remedy(err));
		return err;
	}
	x->fd = xsk_socket__fd(x->sock);
	x->pool = pool;
	x->tx_limit = pool->nchunks / 4;
	x->least = XSK_RX_DEPTH;
	x->multi_buffer = bind_flags[i] & XDP_USE_SG;
	x->zerocopy = !getsockopt(x->fd, SOL_XDP, XDP_OPTIONS, &opts, &len) &&
		      opts.flags & XDP_OPTIONS_ZEROCOPY;
	xsk_rx_deep(x);
	xsk_refill(x);
	return 0;
}

void xsk_close(struct xsk *x)
{
	if (x->sock)
		xsk_socket__delete(x->sock);
	if (x->umem)
		xsk_umem__delete(x->umem);
	memset(x, 0, sizeof(*x));
}

uint32_t xsk_rx_pending(struct xsk *x)
{
	uint32_t n = xsk_cons_nb_avail(&x->rx, XSK_RX_SIZE);

	if (n > x->peak)
		x->peak = n;
	if (n >= x->depth / 2 && x->depth < XSK_RX_SIZE) {
		x->depth *= 2;
		x->peak = x->rounds = 0;
	} else if (++x->rounds == DEPTH_ROUNDS) {
		while (x->depth > x->least && x->depth > 4 * x->peak)
			x->depth /= 2;
		x->peak = x->rounds = 0;
	}
	return n;
}

void xsk_rx_deep(struct xsk *x)
{
	x->depth = XSK_RX_SIZE;
	x->peak = x->rounds = 0;
}

/*
 * Buffers that the kernel has for frames to come. In copy mode these are all that were
 * given and did not come back, full ones that wait in the RX ring too: so a burst is
 * replaced by as many, and the line of the kernel's position in the fill ring, which
 * its CPU writes after each burst, need not be read. A driver without copy moves chunks on
 * to a ring of its own; what counts there is what it has not moved yet.
 */
static uint32_t rx_level(struct xsk *x)
{
	return x->zerocopy ? XSK_RX_SIZE - xsk_prod_nb_free(&x->fill, XSK_RX_SIZE)
			   : x->rx_out;
}

#define AWAY UINT64_MAX /* in a slot, before the kernel may look: its home is in use */

/* @n free chunks into the fill ring; there are as many, and there is room. */
static void fill(struct xsk *x, uint32_t n)
{
	struct mbuf_pool *p = x->pool;
	uint32_t idx, away = 0;

	if (xsk_ring_prod__reserve(&x->fill, n, &idx) != n)
		return;
	for (uint32_t i = idx; i != idx + n; i++) {
		__u64 *slot = xsk_ring_prod__fill_addr(&x->fill, i), addr;
		uint32_t home = i & (x->depth - 1);

		addr = (__u64)home << p->chunk_shift;
		if (!mbuf_take(p, home)) {
			addr = AWAY;
			away++;
		}
		if (*slot != addr)
			*slot = addr;
	}
	/* Only now, so that none of these is the home of a place behind it. */
	for (uint32_t i = idx; away; i++) {
		__u64 *slot = xsk_ring_prod__fill_addr(&x->fill, i);

		if (*slot != AWAY)
			continue;
		*slot = (__u64)mbuf_index(p, mbuf_alloc(p)) << p->chunk_shift;
		away--;
	}
	xsk_ring_prod__submit(&x->fill, n);
	x->rx_out += n;
}

void xsk_refill(struct xsk *x)
{
	struct mbuf_pool *p = x->pool;
	/* What transmission may still take stays out of the ring: a pool smaller than
	 * the ring would end in it whole, and nothing could be sent any more. */
	uint32_t keep = x->tx_limit - x->tx_out;
	uint32_t avail = p->nfree > keep ? p->nfree - keep : 0;
	uint32_t level = rx_level(x);
	uint32_t n = level < x->depth ? x->depth - level : 0, room;

	if (n > avail) {
		if (!avail)
			stat_add(&x->stats.fill_low, 1);
		n = avail;
	}
	/* The kernel shows a frame before it shows that it took the chunk: for that
	 * moment a ring of full depth has less room than came back. */
	room = n ? xsk_prod_nb_free(&x->fill, n) : 0;
	if (n > room)
		n = room;
	if (n)
		fill(x, n);
	if (xsk_ring_prod__needs_wakeup(&x->fill)) {
		recvfrom(x->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
		stat_add(&x->stats.wakeups, 1);
	}
}

/* Take back the chunks that the kernel has sent. */
static void reap(struct xsk *x)
{
	uint32_t idx, n;

	while (x->tx_out && (n = xsk_ring_cons__peek(&x->comp, COMP_BATCH, &idx))) {
		for (uint32_t i = 0; i < n; i++)
			mbuf_free(x->pool, mbuf_of(x->pool, *xsk_ring_cons__comp_addr(
								    &x->comp, idx + i)));
		xsk_ring_cons__release(&x->comp, n);
		x->tx_out -= n;
	}
}

struct mbuf *xsk_tx_get(struct xsk *x)
{
	struct mbuf *m;

	if (!xsk_tx_room(x, 1))
		xsk_tx_kick(x);
	if (!xsk_tx_room(x, 1) || !(m = mbuf_alloc(x->pool))) {
		stat_add(&x->stats.tx_full, 1);
		return NULL;
	}
	x->tx_out++;
	x->tx_held++;
	m->addr = ((uint64_t)mbuf_index(x->pool, m) << x->pool->chunk_shift) +
		  UMEM_HEADROOM;
	m->next = MBUF_NONE;
	return m;
}

void xsk_tx_cancel(struct xsk *x, struct mbuf *m)
{
	mbuf_free(x->pool, m);
	x->tx_out--;
	x->tx_held--;
}

void xsk_tx_put(struct xsk *x, struct mbuf *m, bool more)
{
	uint32_t idx;

	/* Cannot fail: xsk_tx_get() kept a place for each chunk that is held. */
	if (xsk_ring_prod__reserve(&x->tx, 1, &idx) != 1) {
		xsk_tx_cancel(x, m);
		return;
	}
	x->tx_held--;
	*xsk_ring_prod__tx_desc(&x->tx, idx) = (struct xdp_desc){
		.addr = m->addr,
		.len = m->len,
		.options = more ? XDP_PKT_CONTD : 0,
	};
	xsk_ring_prod__submit(&x->tx, 1);
	x->need_kick = true;
	stat_add(&x->stats.tx_descs, 1);
}

void xsk_tx_kick(struct xsk *x)
{
	uint32_t before;

	reap(x);
	/* The consumer index is the kernel's; acquire pairs with its release after it
	 * has read the descriptors (net/xdp/xsk_queue.h). */
	while (x->need_kick) {
		before = __atomic_load_n(x->tx.consumer, __ATOMIC_ACQUIRE);
		if (before == *x->tx.producer) {
			x->need_kick = false;
			break;
		}
		if (xsk_ring_prod__needs_wakeup(&x->tx)) {
			ssize_t r = sendto(x->fd, NULL, 0, MSG_DONTWAIT, NULL, 0);

			stat_add(&x->stats.wakeups, 1);
			/* EAGAIN: a batch was sent and there is more. */
			x->stalled = r < 0 && errno != EAGAIN && errno != EBUSY;
			if (x->stalled)
				break;
		}
		reap(x);
		if (__atomic_load_n(x->tx.consumer, __ATOMIC_ACQUIRE) == before)
			break;
	}
}

int xsk_kernel_stats(const struct xsk *x, struct xdp_statistics *st)
{
	socklen_t len = sizeof(*st);

	memset(st, 0, sizeof(*st));
	return getsockopt(x->fd, SOL_XDP, XDP_STATISTICS, st, &len) ? -errno : 0;
}
