/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Inside of the vhost-user port: what its control side (port_vhost.c,
 * port_vhost_conn.c) and its packet path (port_vhost_path.c, port_vhost_deliver.c)
 * share.
 *
 * The control side owns the socket and struct vu_dev. A worker owns its vhost_queue,
 * and the rings that the plan gives it. The plan is made anew after each message that
 * changes something, while every queue is quiet: quiet is set on the worker, between two
 * bursts, after it has put and published all it held, and cleared by the control
 * thread (release) when the plan is complete (acquire).
 */
#ifndef GN_PORT_VHOST_H
#define GN_PORT_VHOST_H

#include <pthread.h>
#include <unistd.h>

#include "../../lib/log.h"
#include "../port.h"
#include "vu_proto.h"

#define VHOST_MAX_MERGE	 64  /* receive buffers of one frame: 64 KiB in 1 KiB each */
#define VHOST_VEC	 512 /* entries of their buffers together */
#define VHOST_HEAD	 256 /* first bytes of a guest's frame, kept in private memory */
#define VHOST_BATCH	 32  /* transmitted chains put before they are published */
#define VHOST_RARP_FRAME 60  /* bytes */

/* What the guest accepts, from the negotiated features. */
struct vhost_offloads {
	uint8_t hdr_len; /* of the virtio-net header, bytes: 10 or 12 */
	bool mergeable;	 /* VIRTIO_NET_F_MRG_RXBUF */
	bool csum;	 /* partial checksums, and what needs them: */
	bool tso4, tso6, ecn, uso4, uso6;
};

/* A ring in a worker's plan. */
struct vhost_ring {
	struct vring *vring;
	pthread_mutex_t *lock;	  /* receive: NULL: no other worker uses the ring */
	int kick, call;		  /* eventfds; call -1: the guest polls */
	unsigned int unpublished; /* transmit: chains put since vring_publish() */
	bool deliver;		  /* transmit: false: disabled, frames are thrown away */
	bool left;		  /* transmit: there may be more to throw away */
	bool armed;		  /* transmit: the guest was asked to kick */
	bool quietly;		  /* receive: published to without a notification */
};

struct vhost_queue {
	struct port_queue q; /* fd: epoll instance with the kicks of tx[] and poke */
	struct vhost_port *vp;
	bool quiet; /* atomic; the plan may change */
	int poke;   /* eventfd: look at the rings */

	/* The plan. */
	struct vhost_offloads off;
	struct vhost_ring rx[VU_MAX_PAIRS], tx[VU_MAX_PAIRS];
	unsigned int nrx, ntx;
	bool rarp; /* send the frame below first */
	uint8_t rarp_frame[VHOST_RARP_FRAME];

	/* Worker. */
	const char *trouble;	  /* what broke, the plan is not used; NULL: nothing */
	unsigned int tx_at;	  /* ring to look at next */
	struct vhost_ring *held;  /* whose chain the last fetch() returned, or NULL */
	struct vring_chain chain; /* that chain */
	struct vring_vec vec;	  /* its buffers */
	struct iovec vec_iov[VHOST_VEC];
	uint64_t vec_gpa[VHOST_VEC];
	struct vring_vec rx_vec;
	struct iovec rx_iov[VHOST_VEC];
	uint64_t rx_gpa[VHOST_VEC];
	struct vring_chain rx_chain[VHOST_MAX_MERGE];
	struct iovec frame[VHOST_VEC + 1]; /* of the last fetch() */
	uint8_t head[VHOST_HEAD];
	uint8_t scratch[PORT_MAX_FRAME + 2]; /* where a segment is built */
};

struct vhost_port {
	struct port p;
	const struct port_env *env;
	struct port_conf conf;
	struct vu_dev dev;
	pthread_mutex_t rx_lock[VU_MAX_PAIRS];
	bool closing; /* no worker knows the port */

	int listen_fd, conn_fd, timer_fd, trouble_fd; /* -1 */
	struct loop_watch *listen_watch, *conn_watch, *timer_watch, *trouble_watch;
	unsigned int retry_ms;
	int retry_err;		/* why the last try failed, as the log has it */
	struct log_limit limit; /* of what this front end can make us say */

	/* The message that is being read. */
	uint8_t hdr[VU_HDR_SIZE];
	uint32_t got; /* bytes of it, header included */
	struct vu_msg msg;
};

static inline struct vhost_queue *vhost_queue_of(const struct vhost_port *vp,
						 unsigned int i)
{
	return (struct vhost_queue *)vp->p.queue[i];
}

/* Signal an eventfd; -1: nobody waits. */
static inline void vhost_signal(int fd)
{
	const uint64_t one = 1;

	if (fd >= 0 && write(fd, &one, sizeof(one)) < 0)
		log_debug("event pending already");
}

/** vhost_quiet() - vu_dev_ops.quiet() of a struct vhost_port */
void vhost_quiet(void *owner);

/** vhost_go() - vu_dev_ops.go() of a struct vhost_port */
void vhost_go(void *owner);

/**
 * vhost_conn_open() - listen, or look for a front end that does
 * Return: 0, -errno; after failure vhost_conn_close() is due all the same
 */
int vhost_conn_open(struct vhost_port *vp);

/** vhost_conn_close() - hang up, and take no other */
void vhost_conn_close(struct vhost_port *vp);

/** vhost_link() - port_ops.link() */
void vhost_link(struct port *p, bool up);

void vhost_deliver(struct port_queue *q, struct mbuf_pool *pool, struct mbuf **head,
		   unsigned int n);
void vhost_inject(struct port_queue *q, const struct gso_frame *f);
int vhost_fetch(struct port_queue *q, struct gso_frame *f);

/** vhost_usable() - on the worker: do the plan and its rings stand? */
bool vhost_usable(const struct vhost_queue *vq);

/** vhost_trouble() - on the worker: a ring or the memory is broken; the plan is left
 * alone, and the control thread told */
void vhost_trouble(struct vhost_queue *vq, const char *why);

/** vhost_notify() - one interrupt for all that was published since the last one, if it is
 * wanted */
void vhost_notify(struct vhost_queue *vq, const struct vhost_ring *r);

/** vhost_publish() - what was put becomes visible, then vhost_notify() */
void vhost_publish(struct vhost_queue *vq, const struct vhost_ring *r);

static inline void vhost_lock(struct vhost_ring *r)
{
	if (r->lock)
		pthread_mutex_lock(r->lock);
}

static inline void vhost_unlock(struct vhost_ring *r)
{
	if (r->lock)
		pthread_mutex_unlock(r->lock);
}

/** vhost_settle() - on the worker: put and publish what it holds, notify of all */
void vhost_settle(struct vhost_queue *vq);

#endif
