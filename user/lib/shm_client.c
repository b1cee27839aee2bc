// SPDX-License-Identifier: BSD-2-Clause
/*
 * shm_client: the other end of a shared-memory port. See ghostnic.h; shm_abi.h says what
 * is shared.
 *
 * The daemon is trusted, but not to be of our version or in good health: what it writes
 * is bounded before it becomes an address. Needs the C library only.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "fds.h"
#include "ghostnic.h"
#include "shm_abi.h"

#define MAX_QUEUES 64
#define TX_ALIGN   16U

_Static_assert(GHOSTNIC_PORT_MAX_IOV == GN_SHM_MAX_SEGS, "pieces of a packet");
_Static_assert(GHOSTNIC_PORT_MAX_FRAME == GN_SHM_MAX_FRAME, "longest frame");
/* NOLINTBEGIN(misc-redundant-expression): bits that two headers define alike */
_Static_assert(GHOSTNIC_PACKET_OUT == GN_SHM_PKT_OUT, "direction");
_Static_assert(GHOSTNIC_CAPTURE_SEGMENTS == GN_SHM_OPEN_SEGMENTS, "flags");
/* NOLINTEND(misc-redundant-expression) */

struct queue {
	struct gn_shm_queue layout;
	struct gn_shm_ctl *ctl; /* the mapping's start */
	const struct gn_shm_pkt *pkts;
	const struct gn_shm_seg *segs;
	uint32_t *rets;
	const uint8_t *data;
	uint8_t *tx;
	const uint8_t *umem;
	uint32_t mask;
	uint32_t rx_cons, seg_cons, ret_prod; /* positions */
	uint32_t tx_prod;		      /* written, */
	uint32_t tx_flushed;		      /* published, */
	uint32_t tx_cons; /* and what the daemon was seen to have read */
	int bell;
} __attribute__((aligned(GN_SHM_CACHE_LINE))); /* queues are different threads' */

struct ghostnic_port {
	struct ghostnic_port_info info;
	int conn;
	struct queue *queue; /* [info.queues] */
};

/* ---- connecting ----------------------------------------------------------------- */

static int open_conn(const char *path, int timeout_ms)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct timeval tv;
	int fd, err;

	if (timeout_ms < 0)
		timeout_ms = GHOSTNIC_TIMEOUT_MS;
	tv = (struct timeval){ timeout_ms / 1000, timeout_ms % 1000 * 1000 + 1 };
	if (strlen(path) >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	strcpy(sun.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	if (!connect(fd, (struct sockaddr *)&sun, sizeof(sun)))
		return fd;
	err = errno == EAGAIN ? -ETIMEDOUT : -errno;
	close(fd);
	return err;
}

/* One message, with at most @nfds descriptors. Return: their number, -errno */
static int recv_msg(int conn, void *msg, size_t len, int *fd, unsigned int nfds)
{
	struct fds l = { .fd = fd, .max = nfds };
	ssize_t got;

	do {
		got = fds_recv(conn, msg, len, &l, MSG_WAITALL);
	} while (got == -EINTR);
	if (got < 0)
		return got == -EAGAIN	    ? -ETIMEDOUT
		       : got == -ECONNRESET ? -EPIPE
					    : (int)got;
	if (got == (ssize_t)len && !l.lost)
		return (int)l.n;
	fds_close(&l);
	return got == 0 ? -EPIPE : -EPROTO;
}

static bool inside(const struct gn_shm_queue *l, uint64_t off, uint64_t size)
{
	return off <= l->map_size && size <= l->map_size - off && off % 8 == 0;
}

static bool valid_layout(const struct gn_shm_queue *l, int memfd, int umem)
{
	struct stat st;
	uint64_t n = l->ring_size;

	if (!n || n & (n - 1) || l->tx_size & (l->tx_size - 1) ||
	    (l->tx_size && l->tx_size < GN_SHM_MAX_FRAME + 2 * TX_ALIGN) ||
	    fstat(memfd, &st) || (uint64_t)st.st_size != l->map_size ||
	    l->map_size < sizeof(struct gn_shm_ctl) ||
	    !inside(l, l->pkts_off, n * sizeof(struct gn_shm_pkt)) ||
	    !inside(l, l->segs_off, n * sizeof(struct gn_shm_seg)) ||
	    !inside(l, l->rets_off, n * sizeof(uint32_t)) ||
	    !inside(l, l->data_off, l->data_size) || !inside(l, l->tx_off, l->tx_size))
		return false;
	return !l->umem_size ||
	       (umem >= 0 && !fstat(umem, &st) && (uint64_t)st.st_size == l->umem_size);
}

static int map_queue(struct queue *q, int memfd, int umem)
{
	const struct gn_shm_queue *l = &q->layout;
	uint8_t *map;
	void *mem;

	map = mmap(NULL, l->map_size, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	if (map == MAP_FAILED)
		return -errno;
	q->ctl = (void *)map;
	q->pkts = (void *)(map + l->pkts_off);
	q->segs = (void *)(map + l->segs_off);
	q->rets = (void *)(map + l->rets_off);
	q->data = map + l->data_off;
	q->tx = map + l->tx_off;
	q->mask = l->ring_size - 1;
	if (!l->umem_size)
		return 0;
	mem = mmap(NULL, l->umem_size, PROT_READ, MAP_SHARED | MAP_POPULATE, umem, 0);
	if (mem == MAP_FAILED)
		return -errno;
	q->umem = mem;
	return 0;
}

static int recv_queue(int conn, struct queue *q)
{
	int fd[GN_SHM_QUEUE_FDS] = { -1, -1, -1 };
	int n = recv_msg(conn, &q->layout, sizeof(q->layout), fd, GN_SHM_QUEUE_FDS), err;

	if (n < 0)
		return n;
	q->bell = fd[1];
	err = n >= 2 && valid_layout(&q->layout, fd[0], fd[2])
		      ? map_queue(q, fd[0], fd[2])
		      : -EPROTO;
	if (fd[0] >= 0)
		close(fd[0]);
	if (fd[2] >= 0)
		close(fd[2]);
	return err;
}

/* The daemon's answer, from hello on. @conn is taken over. */
static int enter(int conn, struct ghostnic_port **out)
{
	struct ghostnic_port *p = calloc(1, sizeof(*p));
	struct gn_shm_hello hello;
	void *queue;
	int err = -ENOMEM;

	if (!p) {
		close(conn);
		return err;
	}
	p->conn = conn;
	err = recv_msg(conn, &hello, sizeof(hello), NULL, 0);
	if (err < 0)
		goto fail;
	if (hello.magic != GN_SHM_MAGIC || hello.abi != GN_SHM_ABI || hello.error < 0 ||
	    (!hello.error && (!hello.nqueues || hello.nqueues > MAX_QUEUES))) {
		err = -EPROTO;
		goto fail;
	}
	if (hello.error) {
		err = -hello.error;
		goto fail;
	}
	if (posix_memalign(&queue, GN_SHM_CACHE_LINE,
			   hello.nqueues * sizeof(*p->queue))) {
		err = -ENOMEM;
		goto fail;
	}
	memset(queue, 0, hello.nqueues * sizeof(*p->queue));
	p->queue = queue;
	p->info.mtu = hello.mtu;
	p->info.vlan = hello.vlan;
	p->info.max_iov = GHOSTNIC_PORT_MAX_IOV;
	memcpy(p->info.mac, hello.mac, sizeof(p->info.mac));
	for (unsigned int i = 0; i < hello.nqueues; i++) {
		p->queue[i].bell = -1;
		p->info.queues++;
		err = recv_queue(conn, &p->queue[i]);
		if (err)
			goto fail;
	}
	*out = p;
	return 0;
fail:
	ghostnic_port_close(p);
	return err;
}

int ghostnic_port_connect(const char *path, int timeout_ms, struct ghostnic_port **port)
{
	int conn = open_conn(path, timeout_ms);

	return conn < 0 ? conn : enter(conn, port);
}

int ghostnic_capture(const char *ctl, const char *iface, const char *instance,
		     uint32_t snaplen, unsigned int flags, int timeout_ms,
		     struct ghostnic_port **port)
{
	struct gn_shm_open req = {
		.magic = GN_SHM_MAGIC,
		.abi = GN_SHM_ABI,
		.snaplen = snaplen,
		.flags = flags,
	};
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	int conn, n;

	n = snprintf(path, sizeof(path), "%s%s", ghostnic_socket(ctl), GN_SHM_CAPTURE);
	if (n < 0 || (size_t)n >= sizeof(path))
		return -ENAMETOOLONG;
	iface = iface ? iface : "";
	if (!snaplen || strlen(iface) >= sizeof(req.iface) ||
	    strlen(instance) >= sizeof(req.instance))
		return -EINVAL;
	strcpy(req.iface, iface);
	strcpy(req.instance, instance);
	conn = open_conn(path, timeout_ms);
	if (conn < 0)
		return conn;
	if (send(conn, &req, sizeof(req), MSG_NOSIGNAL) != (ssize_t)sizeof(req)) {
		close(conn);
		return -EPIPE;
	}
	return enter(conn, port);
}

void ghostnic_port_close(struct ghostnic_port *p)
{
	if (!p)
		return;
	for (unsigned int i = 0; i < p->info.queues; i++) {
		struct queue *q = &p->queue[i];

		if (q->ctl)
			munmap(q->ctl, q->layout.map_size);
		if (q->umem)
			munmap((void *)q->umem, q->layout.umem_size);
		if (q->bell >= 0)
			close(q->bell);
	}
	free(p->queue);
	close(p->conn);
	free(p);
}

const struct ghostnic_port_info *ghostnic_port_get_info(const struct ghostnic_port *p)
{
	return &p->info;
}

/* ---- receiving ------------------------------------------------------------------ */

/* Address list of a packet. Return: false: it points outside */
static bool list(const struct queue *q, bool data, unsigned int nsegs, struct iovec *iov)
{
	const uint8_t *base = data ? q->data : q->umem;
	uint64_t size = data ? q->layout.data_size : q->layout.umem_size;

	for (unsigned int i = 0; i < nsegs; i++) {
		const struct gn_shm_seg s = q->segs[(q->seg_cons + i) & q->mask];

		if ((uint64_t)s.off + s.len > size)
			return false;
		iov[i] = (struct iovec){ (void *)(base + s.off), s.len };
	}
	return true;
}

int ghostnic_port_receive(struct ghostnic_port *port, unsigned int queue,
			  struct ghostnic_packet *pkt, unsigned int n, struct iovec *iov,
			  unsigned int niov)
{
	struct queue *q = &port->queue[queue];
	/* Acquire pairs with the daemon's release: entries and packets are complete. */
	uint32_t left = __atomic_load_n(&q->ctl->rx_prod, __ATOMIC_ACQUIRE) - q->rx_cons;
	unsigned int got = 0;

	if (left > q->mask + 1)
		return -EPROTO;
	for (; left && got < n; left--, got++) {
		const struct gn_shm_pkt *s = &q->pkts[q->rx_cons & q->mask];
		unsigned int nsegs = s->nsegs;

		if (nsegs > niov)
			return got ? (int)got : -ENOBUFS;
		if (!list(q, s->flags & GN_SHM_PKT_DATA, nsegs, iov))
			return -EPROTO;
		pkt[got] = (struct ghostnic_packet){
			.iov = iov,
			.niov = nsegs,
			.len = s->len,
			.wire_len = s->wire_len,
			.id = s->id,
			.flow = s->flow,
			.time_ns = s->time_ns,
			.vh = s->vh,
			.packets = s->packets,
			.flags = s->flags & GN_SHM_PKT_OUT,
		};
		iov += nsegs;
		niov -= nsegs;
		q->seg_cons += nsegs;
		q->rx_cons++;
	}
	return (int)got;
}

/* Wake the daemon if it waits for @what. Full: it has not taken the last ring yet. */
static void ring(struct queue *q, uint32_t what)
{
	/* Full barrier pairs with the one in the daemon's shm_ring_sleep(): it sees what
	 * we published before, or we see that it sleeps. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!(__atomic_load_n(&q->ctl->daemon_sleeps, __ATOMIC_RELAXED) & what))
		return;
	__atomic_fetch_and(&q->ctl->daemon_sleeps, ~what, __ATOMIC_RELAXED);
	if (send(q->bell, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return;
}

void ghostnic_port_release(struct ghostnic_port *port, unsigned int queue,
			   const struct ghostnic_packet *pkt, unsigned int n)
{
	struct queue *q = &port->queue[queue];

	if (!n)
		return;
	for (unsigned int i = 0; i < n; i++)
		q->rets[q->ret_prod++ & q->mask] = pkt[i].id;
	/* Release pairs with the daemon's acquire: our reads of the packets are done. */
	__atomic_store_n(&q->ctl->ret_prod, q->ret_prod, __ATOMIC_RELEASE);
	ring(q, GN_SHM_WAKE_RET);
}

/* ---- waiting -------------------------------------------------------------------- */

int ghostnic_port_fd(const struct ghostnic_port *port, unsigned int queue)
{
	return port->queue[queue].bell;
}

int ghostnic_port_arm(struct ghostnic_port *port, unsigned int queue)
{
	struct queue *q = &port->queue[queue];
	char buf[256];
	ssize_t n = recv(q->bell, buf, sizeof(buf), MSG_DONTWAIT);

	if (!n || (n < 0 && errno != EAGAIN && errno != EINTR))
		return -EPIPE;
	__atomic_store_n(&q->ctl->client_sleeps, 1, __ATOMIC_RELAXED);
	/* Full barrier pairs with the one in the daemon's shm_ring_publish(). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&q->ctl->rx_prod, __ATOMIC_RELAXED) == q->rx_cons)
		return 0;
	__atomic_store_n(&q->ctl->client_sleeps, 0, __ATOMIC_RELAXED);
	return 1;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int ghostnic_port_wait(struct ghostnic_port *port, unsigned int queue, int timeout_ms)
{
	struct pollfd p = { .fd = port->queue[queue].bell, .events = POLLIN };
	int64_t end = timeout_ms > 0 ? now_ms() + timeout_ms : 0;

	/* A ring without a packet is possible, so what counts is the ring memory. */
	for (;;) {
		int r = ghostnic_port_arm(port, queue), left = timeout_ms;

		if (r || !timeout_ms)
			return r;
		if (timeout_ms > 0) {
			int64_t l = end - now_ms();

			if (l <= 0)
				return 0;
			left = (int)l;
		}
		if (poll(&p, 1, left) < 0)
			return -errno;
	}
}

uint64_t ghostnic_port_lost(const struct ghostnic_port *port)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < port->info.queues; i++)
		sum += __atomic_load_n(&port->queue[i].ctl->lost, __ATOMIC_RELAXED);
	return sum;
}

/* ---- sending -------------------------------------------------------------------- */

static void tx_write(struct queue *q, uint32_t pos, const void *src, size_t n)
{
	uint32_t at = pos & (q->layout.tx_size - 1);
	size_t part = q->layout.tx_size - at;

	if (part > n)
		part = n;
	memcpy(q->tx + at, src, part);
	memcpy(q->tx, (const uint8_t *)src + part, n - part);
}

int ghostnic_port_send(struct ghostnic_port *port, unsigned int queue,
		       const struct virtio_net_hdr_v1 *vh, const struct iovec *iov,
		       unsigned int niov)
{
	struct queue *q = &port->queue[queue];
	struct gn_shm_tx h = { .len = 0 };
	uint32_t need, pos = q->tx_prod + (uint32_t)sizeof(h);
	size_t len = 0;

	if (!q->layout.tx_size)
		return -EOPNOTSUPP;
	for (unsigned int i = 0; i < niov && len <= GHOSTNIC_PORT_MAX_FRAME; i++)
		len += iov[i].iov_len;
	if (!len || len > GHOSTNIC_PORT_MAX_FRAME)
		return -EMSGSIZE;
	need = (uint32_t)(sizeof(h) + (len + TX_ALIGN - 1) / TX_ALIGN * TX_ALIGN);
	if (q->tx_prod - q->tx_cons > q->layout.tx_size - need) {
		/* Acquire pairs with the daemon's release: it has read what was there. */
		q->tx_cons = __atomic_load_n(&q->ctl->tx_cons, __ATOMIC_ACQUIRE);
		if (q->tx_prod - q->tx_cons > q->layout.tx_size)
			return -EPROTO;
		if (q->tx_prod - q->tx_cons > q->layout.tx_size - need)
			return -EAGAIN;
	}
	h.len = (uint32_t)len;
	if (vh)
		h.vh = *vh;
	tx_write(q, q->tx_prod, &h, sizeof(h));
	for (unsigned int i = 0; i < niov; i++) {
		tx_write(q, pos, iov[i].iov_base, iov[i].iov_len);
		pos += (uint32_t)iov[i].iov_len;
	}
	q->tx_prod += need;
	return 0;
}

void ghostnic_port_flush(struct ghostnic_port *port, unsigned int queue)
{
	struct queue *q = &port->queue[queue];

	if (q->tx_flushed == q->tx_prod)
		return;
	q->tx_flushed = q->tx_prod;
	/* Release pairs with the daemon's acquire: the frames are complete. */
	__atomic_store_n(&q->ctl->tx_prod, q->tx_prod, __ATOMIC_RELEASE);
	ring(q, GN_SHM_WAKE_TX);
}
