// SPDX-License-Identifier: BSD-2-Clause
/*
 * vhost-user port: the instance is a VM, whose VMM connects to a UNIX socket and shares
 * the guest's memory. This is the control side: sockets, messages, and which worker
 * serves which ring. The protocol is in vu_proto.c, packets in port_vhost_path.c.
 *
 * One front end at a time; others wait in the socket's backlog. When it leaves, its
 * rings, memory and descriptors go, and the port waits for the next one or, as a client,
 * connects again. A guest or front end that breaks a rule is closed the same way, with
 * one message; workers find out about rings and report through trouble_fd.
 *
 * Contract in port.h; control thread.
 */
#include <errno.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "port_vhost.h"
#include "stat.h"
#include "../lib/log.h"

#define RETRY_MIN_MS  50
#define RETRY_MAX_MS  2000
#define MSG_BUDGET    64 /* messages handled before others get their turn */
#define BIT(n)	      (1ULL << (n))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static void wait_for_front_end(struct vhost_port *vp);

static struct vhost_queue *queue_of(const struct vhost_port *vp, unsigned int i)
{
	return (struct vhost_queue *)vp->p.queue[i];
}

/* ---- workers ------------------------------------------------------------------- */

static void do_quiet(void *arg)
{
	struct vhost_queue *vq = arg;

	vhost_settle(vq);
	__atomic_store_n(&vq->quiet, true, __ATOMIC_RELAXED);
}

/* vu_dev_ops.quiet(): the kicks go too, before their descriptors may be closed; an epoll
 * entry outlives one that the front end keeps open. */
static void quiet(void *owner)
{
	struct vhost_port *vp = owner;

	for (unsigned int i = 0; i < vp->p.nqueues; i++) {
		struct vhost_queue *vq = queue_of(vp, i);

		if (vp->closing || __atomic_load_n(&vq->quiet, __ATOMIC_ACQUIRE))
			do_quiet(vq);
		else
			vp->env->call(vp->env->owner, i, do_quiet, vq);
		for (unsigned int t = 0; t < vq->ntx; t++)
			epoll_ctl(vq->q.fd, EPOLL_CTL_DEL, vq->tx[t].kick, NULL);
		vq->nrx = vq->ntx = 0;
	}
}

static struct vhost_offloads offloads(const struct vu_dev *d)
{
	uint64_t f = d->features;
	struct vhost_offloads o = {
		.mergeable = f & BIT(VIRTIO_NET_F_MRG_RXBUF),
		.csum = f & BIT(VIRTIO_NET_F_GUEST_CSUM),
	};

	/* virtio 1.2, 5.1.6.1: num_buffers is there in both cases */
	o.hdr_len = o.mergeable || f & BIT(VIRTIO_F_VERSION_1) ? 12 : 10;
	if (o.csum) {
		o.tso4 = f & BIT(VIRTIO_NET_F_GUEST_TSO4);
		o.tso6 = f & BIT(VIRTIO_NET_F_GUEST_TSO6);
		o.ecn = f & BIT(VIRTIO_NET_F_GUEST_ECN);
		o.uso4 = f & VU_F_GUEST_USO4;
		o.uso6 = f & VU_F_GUEST_USO6;
	}
	return o;
}

static uint32_t gso_flags(const struct vhost_offloads *o)
{
	return (o->tso4 ? GN_INSTANCE_TSO4 : 0) | (o->tso6 ? GN_INSTANCE_TSO6 : 0) |
	       (o->uso4 && o->uso6 ? GN_INSTANCE_USO : 0);
}

static void add_tx(struct vhost_port *vp, struct vhost_queue *vq, const struct vu_ring *r)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };

	if (epoll_ctl(vq->q.fd, EPOLL_CTL_ADD, r->kick, &ev) && errno != EEXIST) {
		log_err("%s %s: kicks cannot be waited for: %s", vp->p.ops->name,
			vp->conf.arg, strerror(errno));
		return;
	}
	vq->tx[vq->ntx++] = (struct vhost_ring){
		.vring = r->vring,
		.kick = r->kick,
		.call = r->call,
		.deliver = vu_ring_enabled(&vp->dev, r),
	};
}

/*
 * Who serves which ring. Transmit rings go round the workers. So do receive rings,
 * or, if there are fewer of them than workers, workers go round the rings.
 */
static void plan(struct vhost_port *vp)
{
	struct vu_dev *d = &vp->dev;
	struct vhost_ring rx[VU_MAX_PAIRS] = { { .vring = NULL } };
	unsigned int nrx = 0, ntx = 0, n = vp->p.nqueues;

	for (unsigned int p = 0; p < VU_MAX_PAIRS; p++) {
		struct vu_ring *r = &d->ring[2 * p], *t = r + 1;

		if (r->vring && vu_ring_enabled(d, r))
			rx[nrx++] = (struct vhost_ring){
				.vring = r->vring,
				.kick = r->kick,
				.call = r->call,
				.deliver = true,
				.lock = &vp->rx_lock[p],
			};
		if (r->vring)
			vring_set_wakeup(r->vring, false);
		if (t->vring)
			add_tx(vp, queue_of(vp, ntx++ % n), t);
	}
	for (unsigned int i = 0; i < nrx || (nrx && i < n); i++) {
		struct vhost_queue *vq = queue_of(vp, i % n);
		struct vhost_ring *r = &vq->rx[vq->nrx++];

		*r = rx[i % nrx];
		if (nrx >= n)
			r->lock = NULL;
	}
}

static void write_event(int fd)
{
	const uint64_t one = 1;

	if (fd >= 0 && write(fd, &one, sizeof(one)) < 0)
		log_debug("event pending already");
}

/* vu_dev_ops.go() */
static void go(void *owner)
{
	struct vhost_port *vp = owner;
	struct vhost_offloads o = offloads(&vp->dev);

	plan(vp);
	for (unsigned int i = 0; i < VU_MAX_RINGS; i++) {
		struct vu_ring *r = &vp->dev.ring[i];

		if (r->signal)
			write_event(r->call);
		r->signal = false;
	}
	for (unsigned int i = 0; i < vp->p.nqueues; i++) {
		struct vhost_queue *vq = queue_of(vp, i);

		vq->off = o;
		vq->tx_at = 0;
		vq->trouble = NULL;
		__atomic_store_n(&vq->quiet, false, __ATOMIC_RELEASE);
		/* Chains that were there before need no kick of the guest's. */
		write_event(vq->poke);
	}
	if (vp->p.gso != gso_flags(&o)) {
		vp->p.gso = gso_flags(&o);
		if (!vp->closing)
			vp->env->changed(vp->env->owner);
	}
}

/* A reverse ARP request for its own address, as QEMU announces a migrated guest. */
static void rarp(void *owner, const uint8_t mac[6])
{
	static const uint8_t arp[] = { 0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3 };
	struct vhost_queue *vq = queue_of(owner, 0);
	uint8_t *f = vq->rarp_frame;

	memset(f, 0, sizeof(vq->rarp_frame));
	memset(f, 0xff, 6);
	memcpy(f + 6, mac, 6);
	memcpy(f + 12, arp, sizeof(arp));
	memcpy(f + 22, mac, 6); /* sender */
	memcpy(f + 32, mac, 6); /* target */
	vq->rarp = true;
}

static const struct vu_dev_ops dev_ops = { .quiet = quiet, .go = go, .rarp = rarp };

/* ---- messages --------------------------------------------------------------------- */

static void hang_up(struct vhost_port *vp)
{
	loop_unwatch(vp->env->loop, vp->conn_watch);
	vp->conn_watch = NULL;
	if (vp->conn_fd >= 0)
		close(vp->conn_fd);
	vp->conn_fd = -1;
	vu_msg_close(&vp->msg);
	vp->got = 0;
	quiet(vp);
	vu_dev_reset(&vp->dev);
	go(vp);
}

/* Front ends of one port do not silence those of another. */
static void say(struct vhost_port *vp, enum log_level level, const char *what,
		const char *why)
{
	uint32_t held;

	if (!log_limit_ok(&vp->limit, &held))
		return;
	if (held)
		log_msg(level, "vhost-user %s: %s %s (%u messages more)", vp->conf.arg,
			what, why, held);
	else
		log_msg(level, "vhost-user %s: %s %s", vp->conf.arg, what, why);
}

/* The front end left. */
static void left(struct vhost_port *vp)
{
	say(vp, LOG_LVL_INFO, "front end", "disconnected");
	vp->retry_ms = RETRY_MIN_MS;
	hang_up(vp);
	wait_for_front_end(vp);
}

/* It, or its guest, broke a rule. */
static void fault(struct vhost_port *vp, const char *why)
{
	say(vp, LOG_LVL_ERROR, "closed its front end:", why);
	/* One that comes back at once with the same fault is not asked at once again. */
	vp->retry_ms *= 2;
	for (unsigned int i = 0; i < VU_MAX_RINGS; i++) {
		const struct vu_ring *r = &vp->dev.ring[i];

		if (r->vring && vring_broken(r->vring))
			write_event(r->err);
	}
	hang_up(vp);
	/* The control thread is this counter's writer. */
	stat_add(&vp->p.queue[0]->stats.faults, 1);
	wait_for_front_end(vp);
}

static void on_trouble(void *arg, uint32_t events)
{
	struct vhost_port *vp = arg;
	const char *why;
	uint64_t n;

	if (read(vp->trouble_fd, &n, sizeof(n)) < 0 || vp->conn_fd < 0)
		return;
	quiet(vp);
	why = vu_dev_broken(&vp->dev);
	for (unsigned int i = 0; !why && i < vp->p.nqueues; i++)
		why = queue_of(vp, i)->trouble;
	/* The front end that had it may have left since, and another one come. */
	if (why)
		fault(vp, why);
	else
		go(vp);
}

/* Descriptors that came with a part of the message. Return: false: more than can be */
static bool take_fds(struct vu_msg *m, struct msghdr *msg)
{
	bool ok = !(msg->msg_flags & MSG_CTRUNC);

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		unsigned int n =
			(unsigned int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (unsigned int i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (m->nfds < VU_MAX_FDS) {
				m->fd[m->nfds++] = fd;
			} else {
				close(fd);
				ok = false;
			}
		}
	}
	return ok;
}

/*
 * Read what there is of the message, and no byte of the next one: its descriptors
 * would come along. Return: 1: complete, 0: not yet, -errno; -ENODATA: the end
 */
static int read_message(struct vhost_port *vp)
{
	for (;;) {
		bool in_hdr = vp->got < VU_HDR_SIZE;
		uint32_t want = in_hdr ? VU_HDR_SIZE : VU_HDR_SIZE + vp->msg.size;
		union {
			char buf[CMSG_SPACE(VU_MAX_FDS * sizeof(int))];
			struct cmsghdr align;
		} control;
		struct iovec iov = {
			.iov_base = in_hdr ? vp->hdr + vp->got
					   : vp->msg.payload + (vp->got - VU_HDR_SIZE),
			.iov_len = want - vp->got,
		};
		struct msghdr msg = {
			.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control.buf,
			.msg_controllen = sizeof(control.buf),
		};
		ssize_t n;

		if (vp->got == want)
			return 1;
		n = recvmsg(vp->conn_fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		if (!take_fds(&vp->msg, &msg)) {
			strcpy(vp->dev.why, "more descriptors than a message can have");
			return -EPROTO;
		}
		if (!n)
			return -ENODATA;
		vp->got += (uint32_t)n;
		if (in_hdr && vp->got == VU_HDR_SIZE) {
			int err = vu_msg_header(&vp->dev, &vp->msg, vp->hdr);

			if (err)
				return err;
		}
	}
}

static int send_reply(struct vhost_port *vp, const struct vu_reply *r)
{
	if (!r->len || send(vp->conn_fd, r->buf, r->len, MSG_DONTWAIT | MSG_NOSIGNAL) ==
			       (ssize_t)r->len)
		return 0;
	strcpy(vp->dev.why, "it does not read replies");
	return -EIO;
}

static void on_message(void *arg, uint32_t events)
{
	struct vhost_port *vp = arg;
	int err = 1;

	for (unsigned int i = 0; i < MSG_BUDGET; i++) {
		struct vu_reply r;

		vp->dev.why[0] = '\0';
		err = read_message(vp);
		if (err <= 0)
			break;
		vp->got = 0;
		err = vu_handle(&vp->dev, &vp->msg, &r);
		if (!err && vp->dev.why[0])
			say(vp, LOG_LVL_WARN, "refused", vp->dev.why);
		if (!err)
			err = send_reply(vp, &r);
		if (err)
			break;
	}
	if (err == -ENODATA || err == -ECONNRESET)
		left(vp);
	else if (err < 0)
		fault(vp, vp->dev.why[0] ? vp->dev.why : strerror(-err));
}

/* ---- sockets ------------------------------------------------------------------------
 */

static void connected(struct vhost_port *vp, int fd)
{
	int err;

	vp->conn_fd = fd;
	vp->got = 0;
	err = loop_watch(vp->env->loop, fd, EPOLLIN, on_message, vp, &vp->conn_watch);
	if (err) {
		fault(vp, strerror(-err));
		return;
	}
	say(vp, LOG_LVL_INFO, "front end", "connected");
}

static void on_listen(void *arg, uint32_t events)
{
	struct vhost_port *vp = arg;
	int fd = accept4(vp->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	loop_unwatch(vp->env->loop, vp->listen_watch);
	vp->listen_watch = NULL;
	connected(vp, fd);
}

static void arm(struct vhost_port *vp, unsigned int ms)
{
	const struct itimerspec t = { .it_value = { .tv_sec = ms / 1000,
						    .tv_nsec = ms % 1000 * 1000000L } };

	timerfd_settime(vp->timer_fd, 0, &t, NULL);
}

static void on_timer(void *arg, uint32_t events)
{
	struct vhost_port *vp = arg;
	uint64_t n;
	int fd;

	if (read(vp->timer_fd, &n, sizeof(n)) < 0 || vp->conn_fd >= 0)
		return;
	if (!vhost_sock_connect(vp->conf.arg, &fd)) {
		connected(vp, fd);
		return;
	}
	vp->retry_ms = vp->retry_ms * 2 < RETRY_MAX_MS ? vp->retry_ms * 2 : RETRY_MAX_MS;
	arm(vp, vp->retry_ms);
}

/* Nobody is connected. */
static void wait_for_front_end(struct vhost_port *vp)
{
	int err;

	if (vp->conf.client) {
		if (vp->retry_ms > RETRY_MAX_MS)
			vp->retry_ms = RETRY_MAX_MS;
		arm(vp, vp->retry_ms);
		return;
	}
	err = loop_watch(vp->env->loop, vp->listen_fd, EPOLLIN, on_listen, vp,
			 &vp->listen_watch);
	if (err)
		log_err("vhost-user %s: takes no front end any more: %s", vp->conf.arg,
			strerror(-err));
}

/* ---- open, close
 * ------------------------------------------------------------------------ */

static void vhost_close(struct port *p)
{
	struct vhost_port *vp = (struct vhost_port *)p;
	struct loop *l = vp->env->loop;
	const int fds[] = { vp->listen_fd, vp->timer_fd, vp->trouble_fd };

	vp->closing = true;
	if (p->queue)
		hang_up(vp);
	vu_dev_fini(&vp->dev);
	loop_unwatch(l, vp->listen_watch);
	loop_unwatch(l, vp->timer_watch);
	loop_unwatch(l, vp->trouble_watch);
	if (vp->listen_fd >= 0)
		unlink(vp->conf.arg);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	for (unsigned int i = 0; i < p->nqueues; i++) {
		struct vhost_queue *vq = queue_of(vp, i);

		if (vq->q.fd >= 0)
			close(vq->q.fd);
		if (vq->poke >= 0)
			close(vq->poke);
		free(vq);
	}
	free(p->queue);
	for (unsigned int i = 0; i < VU_MAX_PAIRS; i++)
		pthread_mutex_destroy(&vp->rx_lock[i]);
	free(vp);
}

static int open_queue(struct vhost_port *vp)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };
	struct vhost_queue *vq = calloc(1, sizeof(*vq));

	if (!vq)
		return -ENOMEM;
	vp->p.queue[vp->p.nqueues++] = &vq->q;
	vq->q.port = &vp->p;
	vq->vp = vp;
	vq->vec = (struct vring_vec){ 0, VHOST_VEC, vq->vec_iov, vq->vec_gpa };
	vq->rx_vec = (struct vring_vec){ 0, VHOST_VEC, vq->rx_iov, vq->rx_gpa };
	vq->poke = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	vq->q.fd = epoll_create1(EPOLL_CLOEXEC);
	if (vq->poke < 0 || vq->q.fd < 0 ||
	    epoll_ctl(vq->q.fd, EPOLL_CTL_ADD, vq->poke, &ev))
		return -errno;
	return 0;
}

static int open_socket(struct vhost_port *vp)
{
	struct loop *l = vp->env->loop;
	int err;

	vp->trouble_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (vp->trouble_fd < 0)
		return -errno;
	err = loop_watch(l, vp->trouble_fd, EPOLLIN, on_trouble, vp, &vp->trouble_watch);
	if (err)
		return err;
	if (!vp->conf.client)
		return vhost_sock_listen(vp->conf.arg, &vp->listen_fd);
	vp->retry_ms = RETRY_MIN_MS;
	vp->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (vp->timer_fd < 0)
		return -errno;
	return loop_watch(l, vp->timer_fd, EPOLLIN, on_timer, vp, &vp->timer_watch);
}

static const char *open_remedy(int err)
{
	switch (-err) {
	case ENOENT: return "does its directory exist?";
	case EEXIST:
		return "a file that is no socket is there; remove it or use another path";
	case EADDRINUSE: return "another process serves it; use another path";
	case EACCES: return "this user may not create it there";
	default: return "see unix(7)";
	}
}

static int vhost_open(const struct port_conf *conf, const struct port_env *env,
		      unsigned int nqueues, struct port **out)
{
	struct vhost_port *vp = calloc(1, sizeof(*vp));
	int err = vu_mem_guard();

	if (!vp)
		return -ENOMEM;
	vp->p.ops = &port_vhost_ops;
	vp->env = env;
	vp->conf = *conf;
	vp->listen_fd = vp->conn_fd = vp->timer_fd = vp->trouble_fd = -1;
	vu_dev_init(&vp->dev, &dev_ops, vp, conf->mtu);
	for (unsigned int i = 0; i < VU_MAX_PAIRS; i++)
		pthread_mutex_init(&vp->rx_lock[i], NULL);
	vp->p.queue = calloc(nqueues, sizeof(struct port_queue *));
	if (!vp->p.queue)
		err = -ENOMEM;
	for (unsigned int i = 0; !err && i < nqueues; i++)
		err = open_queue(vp);
	if (!err)
		err = open_socket(vp);
	if (err) {
		log_err("vhost-user %s: %s; %s", conf->arg, strerror(-err),
			open_remedy(err));
		vhost_close(&vp->p);
		return err;
	}
	wait_for_front_end(vp);
	*out = &vp->p;
	return 0;
}

static struct dma_log *vhost_dma_log(struct port *p, uint64_t *pages)
{
	struct vhost_port *vp = (struct vhost_port *)p;
	const struct vu_mem *m = &vp->dev.mem;

	*pages = 0;
	if (m->nregions) {
		const struct vu_region *last = &m->region[m->nregions - 1];

		*pages = ((last->gpa + last->size - 1) >> DMA_LOG_PAGE_SHIFT) + 1;
	}
	return &vp->dev.log;
}

static void settle_queue(struct port_queue *q)
{
	vhost_settle((struct vhost_queue *)q);
}

const struct port_ops port_vhost_ops = {
	.name = "vhost-user",
	.open = vhost_open,
	.close = vhost_close,
	.deliver = vhost_deliver,
	.inject = vhost_inject,
	.fetch = vhost_fetch,
	.dma_log = vhost_dma_log,
	.settle = settle_queue,
};
