/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * xsk: one AF_XDP socket with its own umem and four rings.
 *
 * Kernel: Documentation/networking/af_xdp.rst. libxdp maps the rings; binding
 * tries zero copy with multi-buffer first and takes less step by step, so a
 * driver or kernel that lacks something still works and the result says which.
 *
 * Thread: created by the control thread, then used by one worker.
 */
#ifndef GN_XSK_H
#define GN_XSK_H

#include <stdbool.h>
#include <xdp/xsk.h>

#include "mbuf.h"
#include "umem.h"

/* Kernel 6.6 names that Debian 12's headers lack; af_xdp.rst, "XDP_USE_SG". */
#ifndef XDP_USE_SG
#define XDP_USE_SG (1 << 4)
#endif
#ifndef XDP_PKT_CONTD
#define XDP_PKT_CONTD (1 << 0)
#endif

/* Ring entries, powers of two. A TCP sender's whole default window, 6 MiB, fits behind a
 * worker that is away for a moment. */
#define XSK_RX_SIZE 4096
/* Buffers that circulate, at the least, of a worker that leaves the packets alone; its
 * ports may want more (port.h, rx_depth). A power of two, as those are. */
#define XSK_RX_DEPTH 512
#define XSK_TX_SIZE  2048

/* X(field, meaning): written by the worker. */
#define XSK_COUNTERS(X)                                                                  \
	X(rx_descs, "buffers received")                                                  \
	X(tx_descs, "buffers sent")                                                      \
	X(tx_full, "frames not sent: transmit ring full or no chunk")                    \
	X(wakeups, "system calls to start transmission or refilling")                    \
	X(fill_low, "times no free chunk was left for the fill ring")

struct xsk_stats {
#define XSK_FIELD(f, help) uint64_t f;
	XSK_COUNTERS(XSK_FIELD)
#undef XSK_FIELD
};

struct xsk {
	struct xsk_socket *sock;
	struct xsk_umem *umem;
	struct xsk_ring_cons rx, comp;
	struct xsk_ring_prod tx, fill;
	struct mbuf_pool *pool;
	int fd;
	bool zerocopy;
	bool multi_buffer;
	bool need_kick;	   /* tx descriptors await a wakeup */
	bool stalled;	   /* the last wakeup failed: the link is down */
	uint32_t least;	   /* depth never goes below: what the worker's ports want */
	uint32_t depth;	   /* buffers that circulate, a power of two: xsk_rx_pending() */
	uint32_t peak;	   /* most that waited since depth was set */
	uint32_t rounds;   /* bursts since then */
	uint32_t rx_out;   /* chunks given for reception and not seen again */
	uint32_t tx_out;   /* chunks that are not back from sending */
	uint32_t tx_held;  /* of these not queued yet: each has its place in the ring */
	uint32_t tx_limit; /* most chunks transmission may hold */
	struct xsk_stats stats;
};

/**
 * xsk_open() - create, register @u, bind; the socket receives nothing yet
 * @x:		uninitialised
 * @ifname:	interface
 * @queue:	hardware queue
 * @u:		memory; not owned
 * @pool:	its mbufs; not owned
 *
 * Return: 0 or -errno, logged with its remedy (busy queue, missing capability)
 */
int xsk_open(struct xsk *x, const char *ifname, uint32_t queue, struct umem *u,
	     struct mbuf_pool *pool);

/** xsk_close() - the caller has removed it from the XSKMAP. Zeroed @x is fine. */
void xsk_close(struct xsk *x);

/**
 * xsk_rx_pending() - buffers in the RX ring; sets how deep the fill ring is kept
 *
 * The kernel writes the buffers of the fill ring in turn, all of them, before it writes
 * the first one again. 2,048 frames are more than a core's cache holds, 512 are not, and
 * the difference is a tenth of all frames a second; with 256 a worker that is held up for
 * a tenth of a millisecond loses frames at half the rate. So while this thread polls and
 * the ring never holds much, few buffers circulate; a ring that fills to half the depth
 * doubles it.
 */
uint32_t xsk_rx_pending(struct xsk *x);

/**
 * xsk_rx_deep() - full depth, before the thread sleeps: who is woken may come milliseconds
 * late, and the ring has to last
 *
 * Costs the next XSK_RX_SIZE frames their warm buffers, at a load that leaves time to sleep.
 */
void xsk_rx_deep(struct xsk *x);

/** xsk_rx_release() - done with the @n oldest entries of the RX ring; their chunks are the
 * caller's */
static inline void xsk_rx_release(struct xsk *x, uint32_t n)
{
	xsk_ring_cons__release(&x->rx, n);
	x->rx_out -= n;
}

/**
 * xsk_refill() - give free chunks to the kernel until it has as many as are to circulate
 *
 * Each place of the fill ring has a chunk of its own, its home: place p has chunk p mod
 * depth. When the chunks of a turn have come back, the next turn finds in every slot
 * what is to stand there already. A slot that is not written stays in the cache of the
 * kernel's CPU, and its copies go through memory in order.
 *
 * A chunk that is not back yet, as a slow port keeps it, never holds up the ring: another
 * one takes its place for this turn, whichever was freed last. The home has its
 * place again in the first turn that finds it free.
 */
void xsk_refill(struct xsk *x);

/** xsk_tx_room() - will xsk_tx_get() give @n chunks, if the pool has them? Neither the
 * share of transmission nor the ring, whichever is smaller, is used up by then. */
static inline bool xsk_tx_room(struct xsk *x, uint32_t n)
{
	return x->tx_out + n <= x->tx_limit &&
	       xsk_prod_nb_free(&x->tx, x->tx_held + n) >= x->tx_held + n;
}

/**
 * xsk_tx_get() - chunk to build a frame in, of at most UMEM_FRAME_ROOM() bytes
 * Return: mbuf whose addr is set, or NULL: ring full or too many chunks out
 */
struct mbuf *xsk_tx_get(struct xsk *x);

/** xsk_tx_put() - queue @m, @m->len bytes at @m->addr; @more: its frame goes on */
void xsk_tx_put(struct xsk *x, struct mbuf *m, bool more);

/** xsk_tx_cancel() - give back an unused chunk of xsk_tx_get() */
void xsk_tx_cancel(struct xsk *x, struct mbuf *m);

/**
 * xsk_tx_kick() - make the kernel send what is queued, and reap what it sent
 *
 * Copy mode sends a small batch a system call: repeats until the ring is
 * drained or the kernel makes no progress.
 */
void xsk_tx_kick(struct xsk *x);

/** xsk_kernel_stats() - the kernel's own drop counters. Return: 0, -errno */
int xsk_kernel_stats(const struct xsk *x, struct xdp_statistics *st);

#endif
