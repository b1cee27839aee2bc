// SPDX-License-Identifier: BSD-2-Clause
/*
 * shm port: the instance is a process on this host that reads its packets where they lie.
 *
 * The client gets the umem of each worker, which nobody but the daemon can map writable
 * (umem.h), and a ring of address lists; a packet's chunks stay out of the pool until
 * the client gives it back, or until it loses the port. It may hold so many chunks and no
 * more: what does not fit is dropped and counted, and a client that then gives back
 * nothing for STALL_NS, breaks a rule of the rings, or goes away, is disconnected and its
 * chunks are taken back. It may read them on, and with them what comes next: whoever may
 * connect is trusted with all traffic of these queues. It is not trusted with anything
 * else.
 *
 * Control thread: socket and connection. Worker: its queue's channel, from attach() to
 * detach(), or until it gives the channel up itself. Contract in port.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "port.h"
#include "shm_conn.h"
#include "stat.h"
#include "../lib/log.h"

#define HOLD_SHARE  4	   /* of the pool, if the user does not say */
#define LOCAL_SLOTS 512	   /* for frames of other instances: 1 MiB a queue */
#define TX_SIZE	    262144 /* bytes a queue */
#define STALL_NS    1000000000ULL
#define BATCH	    64 /* packets taken back at once */

_Static_assert(PORT_MAX_FRAME == GN_SHM_MAX_FRAME, "longest frame");
_Static_assert(AGG_MAX_BUFS == GN_SHM_MAX_SEGS, "longest address list");

struct shm_queue {
	struct port_queue q; /* fd: epoll of again_fd and the client's doorbell */
	struct mbuf_pool *pool;
	struct shm_chan *chan;	 /* NULL: no client */
	int again_fd;		 /* eventfd: fetch() has more, although nobody rang */
	uint64_t stalled_ns;	 /* CLOCK_MONOTONIC of the first drop since... */
	uint64_t stall_returned; /* ...the client had given back so many packets */
	struct iovec iov;	 /* frame of the last fetch */
	uint8_t frame[PORT_MAX_FRAME];
};

struct shm_port {
	struct port port;
	const struct port_env *env;
	struct port_conf conf;
	struct shm_ring_conf ring;
	struct shm_client *client;
	struct loop_watch *watch;
	int listen_fd;
	bool promised; /* ring.hold is in every pool's account */
};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* ---- worker --------------------------------------------------------------------- */

static void free_packets(struct shm_queue *sq, const uint32_t *head, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		mbuf_free_chain(sq->pool, &sq->pool->mbufs[head[i]]);
}

/* No more client: all it has is taken back. */
static void let_go(struct shm_queue *sq)
{
	uint32_t head[BATCH];
	unsigned int n;

	if (!sq->chan)
		return;
	epoll_ctl(sq->q.fd, EPOLL_CTL_DEL, sq->chan->bell, NULL);
	while ((n = shm_ring_drain(&sq->chan->ring, head, BATCH)))
		free_packets(sq, head, n);
	sq->chan = NULL;
}

static void give_up(struct shm_queue *sq, const char *why)
{
	shm_chan_break(sq->chan, why);
	let_go(sq);
}

static void reclaim(struct shm_queue *sq)
{
	uint32_t head[BATCH];
	int n;

	do {
		n = shm_ring_reclaim(&sq->chan->ring, head, BATCH);
		if (n < 0) {
			give_up(sq, sq->chan->ring.broken);
			return;
		}
		free_packets(sq, head, (unsigned int)n);
	} while (n == BATCH);
}

static void drop(struct shm_queue *sq, const struct mbuf *head)
{
	stat_add(&sq->q.stats.rx_dropped, 1);
	mbuf_free_chain(sq->pool, head);
}

/* The client has no room: since when, and does it do anything about it? */
static void check_stall(struct shm_queue *sq)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC), returned = sq->chan->ring.returned;

	if (!sq->stalled_ns || returned != sq->stall_returned) {
		sq->stalled_ns = now;
		sq->stall_returned = returned;
	} else if (now - sq->stalled_ns > STALL_NS) {
		give_up(sq, "it holds all it may and gives nothing back");
	}
}

static bool put(struct shm_ring *r, struct mbuf_pool *pool, struct mbuf *head,
		uint64_t time_ns)
{
	struct gn_shm_pkt *pkt = shm_ring_put(r, mbuf_index(pool, head), head->nbufs);
	struct virtio_net_hdr_v1 vh;

	if (!pkt)
		return false;
	gso_finish(pool, head, &vh);
	pkt->time_ns = time_ns;
	pkt->flow = head->meta.flow;
	pkt->len = pkt->wire_len = head->total;
	pkt->vh = vh;
	pkt->packets = head->nsegs;
	for (const struct mbuf *m = head; m; m = mbuf_next(pool, m))
		shm_ring_seg(r, (uint32_t)m->addr, m->len);
	return true;
}

static void shm_deliver(struct port_queue *q, struct mbuf_pool *pool, struct mbuf **head,
			unsigned int n)
{
	struct shm_queue *sq = (struct shm_queue *)q;
	uint64_t packets = 0, bytes = 0, lost = 0, now;
	struct shm_ring *r;
	unsigned int frames = 0;

	if (sq->chan)
		reclaim(sq);
	if (!sq->chan) {
		for (unsigned int i = 0; i < n; i++)
			drop(sq, head[i]);
		return;
	}
	r = &sq->chan->ring;
	now = clock_ns(CLOCK_REALTIME);
	for (unsigned int i = 0; i < n; i++) {
		if (!put(r, pool, head[i], now)) {
			lost += head[i]->nsegs;
			drop(sq, head[i]);
			continue;
		}
		frames++;
		packets += head[i]->nsegs;
		bytes += head[i]->total;
	}
	stat_add(&q->stats.rx_packets, packets);
	stat_add(&q->stats.rx_frames, frames);
	stat_add(&q->stats.rx_bytes, bytes);
	if (lost)
		shm_ring_lose(r, lost);
	/* So that chunks come back when traffic pauses, too. */
	if (r->held > r->hold / 4 * 3)
		shm_ring_sleep(r, GN_SHM_WAKE_RET);
	if (shm_ring_publish(r))
		shm_chan_ring(sq->chan);
	if (lost)
		check_stall(sq);
}

static void shm_inject(struct port_queue *q, const struct gso_frame *f)
{
	struct shm_queue *sq = (struct shm_queue *)q;
	struct gn_shm_pkt *pkt = NULL;

	if (sq->chan)
		reclaim(sq);
	if (sq->chan)
		pkt = shm_ring_copy(&sq->chan->ring, f->iov, f->niov, f->len);
	if (!pkt) {
		stat_add(&q->stats.rx_dropped, 1);
		if (sq->chan)
			shm_ring_lose(&sq->chan->ring, 1);
		return;
	}
	pkt->time_ns = clock_ns(CLOCK_REALTIME);
	pkt->flow = 0;
	pkt->wire_len = f->len;
	pkt->vh = f->vh;
	pkt->packets = 0;
	stat_add(&q->stats.rx_frames, 1);
	stat_add(&q->stats.rx_bytes, f->len);
	if (shm_ring_publish(&sq->chan->ring))
		shm_chan_ring(sq->chan);
}

/*
 * Doorbells are level-triggered work for the worker, so they are taken only when tx is
 * found empty; then the client is asked to ring, and tx is looked at once more. What that
 * finds nobody will ring for: again_fd does.
 */
static int shm_fetch(struct port_queue *q, struct gso_frame *f)
{
	struct shm_queue *sq = (struct shm_queue *)q;
	uint64_t count = 1;
	int n;

	if (!sq->chan)
		goto nothing;
	reclaim(sq);
	if (!sq->chan)
		goto nothing;
	n = shm_ring_fetch(&sq->chan->ring, &f->vh, sq->frame);
	if (!n) {
		if (!shm_chan_hush(sq->chan)) {
			give_up(sq, shm_left);
			goto nothing;
		}
		if (read(sq->again_fd, &count, sizeof(count)) < 0)
			count = 1; /* was not set */
		shm_ring_sleep(&sq->chan->ring, GN_SHM_WAKE_TX);
		n = shm_ring_fetch(&sq->chan->ring, &f->vh, sq->frame);
		count = 1;
		if (n > 0 && write(sq->again_fd, &count, sizeof(count)) < 0)
			log_debug("shm: set already");
	}
	if (n < 0) {
		give_up(sq, sq->chan->ring.broken);
		goto nothing;
	}
	if (!n)
		return 0;
	f->len = (uint32_t)n;
	sq->iov = (struct iovec){ sq->frame, f->len };
	f->iov = &sq->iov;
	f->niov = 1;
	return 1;
nothing:
	if (read(sq->again_fd, &count, sizeof(count)) < 0)
		return 0;
	return 0;
}

struct attach {
	struct shm_queue *sq;
	struct shm_chan *chan;
	int err;
};

static void attach(void *arg)
{
	struct attach *a = arg;
	struct epoll_event ev = { .events = EPOLLIN };

	if (epoll_ctl(a->sq->q.fd, EPOLL_CTL_ADD, a->chan->bell, &ev)) {
		a->err = -errno;
		return;
	}
	a->sq->stalled_ns = 0;
	a->sq->chan = a->chan;
	/* Until the first frame nobody calls fetch(). */
	shm_ring_sleep(&a->chan->ring, GN_SHM_WAKE_TX);
}

static void detach(void *arg)
{
	let_go(arg);
}

/* ---- control thread --------------------------------------------------------------- */

static void disconnect(struct shm_port *p)
{
	if (!p->client)
		return;
	for (unsigned int i = 0; i < p->port.nqueues; i++)
		p->env->call(p->env->owner, i, detach, p->port.queue[i]);
	shm_client_destroy(p->client);
	p->client = NULL;
}

static void on_gone(void *arg, const char *why)
{
	struct shm_port *p = arg;

	if (why)
		log_limited(LOG_LVL_WARN, "shm %s: client pid %d loses the port: %s",
			    p->conf.arg, (int)p->client->pid, why);
	else
		log_limited(LOG_LVL_INFO, "shm %s: client pid %d left", p->conf.arg,
			    (int)p->client->pid);
	disconnect(p);
}

static int welcome(struct shm_port *p)
{
	struct gn_shm_hello hello = { .mtu = p->conf.mtu, .vlan = p->conf.vlan };
	const struct umem *umem[GN_MAX_QUEUES];
	struct mbuf_pool *pool;

	memcpy(hello.mac, p->conf.mac, sizeof(hello.mac));
	for (unsigned int i = 0; i < p->port.nqueues; i++) {
		struct attach a = {
			.sq = (struct shm_queue *)p->port.queue[i],
			.chan = &p->client->chan[i],
		};

		p->env->mem(p->env->owner, i, &pool, &umem[i]);
		p->env->call(p->env->owner, i, attach, &a);
		if (a.err)
			return a.err;
	}
	return shm_client_welcome(p->client, &hello, umem);
}

static void on_listen(void *arg, uint32_t events)
{
	struct shm_port *p = arg;
	char who[48];
	pid_t pid;
	int conn =
		shm_accept(p->env->loop, p->watch, p->conf.arg, &pid, who, sizeof(who));
	int err;

	if (conn < 0)
		return;
	if (p->client) {
		log_limited(LOG_LVL_WARN, "shm %s: %s refused: pid %d has the port",
			    p->conf.arg, who, (int)p->client->pid);
		shm_refuse(conn, -EBUSY, "another client has the port");
		return;
	}
	err = shm_client_create(p->env->loop, conn, pid, p->port.nqueues, &p->ring,
				on_gone, p, &p->client);
	if (err) {
		log_limited(LOG_LVL_ERROR, "shm %s: %s refused: %s", p->conf.arg, who,
			    strerror(-err));
		shm_refuse(conn, err, "the daemon has no memory or descriptors left");
		return;
	}
	err = welcome(p);
	if (err) {
		log_limited(LOG_LVL_WARN, "shm %s: %s gone at once: %s", p->conf.arg, who,
			    strerror(-err));
		disconnect(p);
		return;
	}
	log_limited(LOG_LVL_INFO, "shm %s: client %s", p->conf.arg, who);
}

static void shm_close(struct port *port)
{
	struct shm_port *p = (struct shm_port *)port;

	disconnect(p);
	loop_unwatch(p->env->loop, p->watch);
	shm_unlisten(p->listen_fd, p->conf.arg);
	for (unsigned int i = 0; i < port->nqueues; i++) {
		struct shm_queue *sq = (struct shm_queue *)port->queue[i];

		if (!sq)
			continue;
		if (p->promised)
			sq->pool->promised -= p->ring.hold;
		if (sq->q.fd >= 0)
			close(sq->q.fd);
		if (sq->again_fd >= 0)
			close(sq->again_fd);
		free(sq);
	}
	free(port->queue);
	free(p);
}

static int queue_open(struct shm_port *p, unsigned int i)
{
	struct shm_queue *sq = calloc(1, sizeof(*sq));
	struct epoll_event ev = { .events = EPOLLIN };
	const struct umem *umem;

	if (!sq)
		return -ENOMEM;
	p->port.queue[i] = &sq->q;
	sq->q.port = &p->port;
	p->env->mem(p->env->owner, i, &sq->pool, &umem);
	sq->q.fd = epoll_create1(EPOLL_CLOEXEC);
	sq->again_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (sq->q.fd < 0 || sq->again_fd < 0 ||
	    epoll_ctl(sq->q.fd, EPOLL_CTL_ADD, sq->again_fd, &ev))
		return -errno;
	return 0;
}

/* How much the client may hold: what was asked for, or what is there. */
static int promise(struct shm_port *p)
{
	uint32_t left = UINT32_MAX, hold = UINT32_MAX;

	for (unsigned int i = 0; i < p->port.nqueues; i++) {
		const struct mbuf_pool *pool =
			((struct shm_queue *)p->port.queue[i])->pool;
		uint32_t l = MBUF_PROMISE(pool->nchunks) - pool->promised;

		left = l < left ? l : left;
		hold = pool->nchunks / HOLD_SHARE < hold ? pool->nchunks / HOLD_SHARE
							 : hold;
	}
	if (p->conf.hold)
		hold = p->conf.hold;
	else if (hold > left)
		hold = left;
	if (hold > left || hold < AGG_MAX_BUFS) {
		log_err("shm %s: of the chunks that clients may hold %u are left, %u are "
			"needed: raise --chunks, or lower hold= here or elsewhere",
			p->conf.arg, left, hold < AGG_MAX_BUFS ? AGG_MAX_BUFS : hold);
		return -ENOSPC;
	}
	for (unsigned int i = 0; i < p->port.nqueues; i++)
		((struct shm_queue *)p->port.queue[i])->pool->promised += hold;
	p->promised = true;
	p->ring = (struct shm_ring_conf){ hold, LOCAL_SLOTS, TX_SIZE };
	return 0;
}

static int shm_open_port(const struct port_conf *conf, const struct port_env *env,
			 unsigned int nqueues, struct port **out)
{
	struct shm_port *p = calloc(1, sizeof(*p));
	int err = 0;

	if (!p)
		return -ENOMEM;
	p->port.ops = &port_shm_ops;
	p->port.rx_depth = PORT_RX_COPIES;
	p->port.gso = GN_INSTANCE_TSO4 | GN_INSTANCE_TSO6 | GN_INSTANCE_USO;
	p->env = env;
	p->conf = *conf;
	p->listen_fd = -1;
	p->port.queue = calloc(nqueues, sizeof(struct port_queue *));
	if (!p->port.queue) {
		err = -ENOMEM;
		goto fail;
	}
	p->port.nqueues = nqueues;
	for (unsigned int i = 0; !err && i < nqueues; i++)
		err = queue_open(p, i);
	if (err) {
		log_err("shm %s: %s", conf->arg, strerror(-err));
		goto fail;
	}
	err = promise(p);
	if (err)
		goto fail;
	p->listen_fd = shm_listen(conf->arg);
	if (p->listen_fd < 0) {
		err = p->listen_fd;
		goto fail;
	}
	err = loop_watch(env->loop, p->listen_fd, EPOLLIN, on_listen, p, &p->watch);
	if (err)
		goto fail;
	*out = &p->port;
	return 0;
fail:
	shm_close(&p->port);
	return err;
}

const struct port_ops port_shm_ops = {
	.name = "shm",
	.open = shm_open_port,
	.close = shm_close,
	.deliver = shm_deliver,
	.inject = shm_inject,
	.fetch = shm_fetch,
};
