// SPDX-License-Identifier: BSD-2-Clause
/*
 * TAP port: the instance is the network stack behind a TAP device: a container's,
 * a namespace's, the host's, or a VM's whose bridge the device is in.
 *
 * Frames carry a virtio-net header both ways (IFF_VNET_HDR), so a chain is one write
 * with GSO and the stack's own super-frames come out unsegmented. One queue per
 * worker (IFF_MULTI_QUEUE). A device that exists is attached to, otherwise it is created
 * and lives as long as the port. Kernel: Documentation/networking/tuntap.rst.
 * Contract in port.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "port.h"
#include "stat.h"
#include "../lib/log.h"

/* Kernel 6.2 names that Debian 12's headers lack. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

struct tap_queue {
	struct port_queue q;
	struct iovec iov; /* frame of the last fetch */
	uint8_t frame[PORT_MAX_FRAME];
};

static void tap_close(struct port *p)
{
	for (unsigned int i = 0; i < p->nqueues; i++) {
		if (!p->queue[i])
			continue;
		if (p->queue[i]->fd >= 0)
			close(p->queue[i]->fd);
		free(p->queue[i]);
	}
	free(p->queue);
	free(p);
}

/* Open one queue of the device. Return: descriptor or -errno; @uso: it takes USO */
static int queue_open(const char *dev, bool multi, bool *uso)
{
	const int vnet_hdr = sizeof(struct virtio_net_hdr_v1);
	const unsigned int offloads =
		TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	if (multi)
		ifr.ifr_flags |= IFF_MULTI_QUEUE;
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%.15s", dev);
	if (ioctl(fd, TUNSETIFF, &ifr) || ioctl(fd, TUNSETVNETHDRSZ, &vnet_hdr)) {
		err = -errno;
		close(fd);
		return err;
	}
	*uso = !ioctl(fd, TUNSETOFFLOAD, offloads | TUN_F_USO4 | TUN_F_USO6);
	if (!*uso && ioctl(fd, TUNSETOFFLOAD, offloads)) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

/* The stack behind the device must own the instance's address. */
static int device_setup(int fd, const char *dev, const struct port_conf *conf)
{
	struct ifreq ifr = { .ifr_hwaddr.sa_family = ARPHRD_ETHER };
	int sock, err = 0;

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%.15s", dev);
	memcpy(ifr.ifr_hwaddr.sa_data, conf->mac, 6);
	if (ioctl(fd, SIOCSIFHWADDR, &ifr))
		return -errno;
	sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	ifr.ifr_mtu = (int)conf->mtu;
	if (ioctl(sock, SIOCSIFMTU, &ifr))
		err = -errno;
	close(sock);
	return err;
}

static const char *open_remedy(int err)
{
	switch (-err) {
	case ENOENT: return "is the tun driver there (modprobe tun)?";
	case EBUSY: return "another program has the device";
	case EPERM:
	case EACCES: return "CAP_NET_ADMIN is needed, or a device owned by this user";
	case EINVAL:
		return "is the name valid, and a device of this name a TAP with as many "
		       "queues?";
	default: return "see tuntap in the kernel's documentation";
	}
}

static int tap_open(const struct port_conf *conf, const struct port_env *env,
		    unsigned int nqueues, struct port **out)
{
	struct port *p = calloc(1, sizeof(*p));
	bool uso = true;
	int err = -ENOMEM;

	if (!p)
		return -ENOMEM;
	if (!conf->arg[0] || strlen(conf->arg) >= IFNAMSIZ) {
		err = -EINVAL;
		goto fail;
	}
	p->ops = &port_tap_ops;
	p->rx_depth = PORT_RX_SHARES;
	p->queue = calloc(nqueues, sizeof(struct port_queue *));
	if (!p->queue)
		goto fail;
	p->nqueues = nqueues;
	for (unsigned int i = 0; i < nqueues; i++) {
		struct tap_queue *tq = calloc(1, sizeof(*tq));

		if (!tq)
			goto fail;
		p->queue[i] = &tq->q;
		tq->q.port = p;
		tq->q.fd = queue_open(conf->arg, nqueues > 1, &uso);
		if (tq->q.fd < 0) {
			err = tq->q.fd;
			goto fail;
		}
	}
	err = device_setup(p->queue[0]->fd, conf->arg, conf);
	if (err)
		goto fail;
	p->gso = GN_INSTANCE_TSO4 | GN_INSTANCE_TSO6 | (uso ? GN_INSTANCE_USO : 0);
	*out = p;
	return 0;
fail:
	log_err("tap %s: %s; %s", conf->arg, strerror(-err), open_remedy(err));
	tap_close(p);
	return err;
}

/* One frame into the device. The kernel takes it whole or not at all. */
static void put(struct port_queue *q, const struct iovec *iov, unsigned int niov,
		unsigned int packets)
{
	ssize_t n = writev(q->fd, iov, (int)niov);

	if (n < 0) {
		stat_add(&q->stats.rx_dropped, 1);
		return;
	}
	stat_add(&q->stats.rx_packets, packets);
	stat_add(&q->stats.rx_frames, 1);
	stat_add(&q->stats.rx_bytes, (uint64_t)n - sizeof(struct virtio_net_hdr_v1));
}

static void tap_deliver(struct port_queue *q, struct mbuf_pool *pool, struct mbuf **head,
			unsigned int n)
{
	struct virtio_net_hdr_v1 vh;
	struct iovec iov[PORT_MAX_IOV] = { { &vh, sizeof(vh) } };

	for (unsigned int i = 0; i < n; i++) {
		unsigned int niov;

		gso_finish(pool, head[i], &vh);
		niov = mbuf_iov(pool, head[i], iov + 1, PORT_MAX_IOV - 1);
		put(q, iov, niov + 1, head[i]->nsegs);
		mbuf_free_chain(pool, head[i]);
	}
}

static void tap_inject(struct port_queue *q, const struct gso_frame *f)
{
	struct iovec iov[PORT_MAX_IOV] = { { (void *)&f->vh, sizeof(f->vh) } };

	if (f->niov > PORT_MAX_IOV - 1) {
		stat_add(&q->stats.rx_dropped, 1);
		return;
	}
	memcpy(iov + 1, f->iov, f->niov * sizeof(*iov));
	put(q, iov, f->niov + 1, 0);
}

static int tap_fetch(struct port_queue *q, struct gso_frame *f)
{
	struct tap_queue *tq = (struct tap_queue *)q;
	struct iovec iov[2] = { { &f->vh, sizeof(f->vh) },
				{ tq->frame, sizeof(tq->frame) } };
	ssize_t n = readv(q->fd, iov, 2);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n < (ssize_t)sizeof(f->vh))
		return -EIO;
	f->len = (uint32_t)n - sizeof(f->vh);
	tq->iov = (struct iovec){ tq->frame, f->len };
	f->iov = &tq->iov;
	f->niov = 1;
	return 1;
}

const struct port_ops port_tap_ops = {
	.name = "tap",
	.open = tap_open,
	.close = tap_close,
	.deliver = tap_deliver,
	.inject = tap_inject,
	.fetch = tap_fetch,
};
