// SPDX-License-Identifier: BSD-2-Clause
/*
 * null port: receives everything, sends nothing. For measuring.
 *
 * With "copy" every chain is finished and copied into one buffer of the queue, which
 * is the work that a VM's receive ring would cost. Contract in port.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "port.h"
#include "stat.h"

struct null_queue {
	struct port_queue q;
	uint8_t *copy; /* [sizeof(virtio_net_hdr_v1) + PORT_MAX_FRAME] or NULL */
};

static void null_close(struct port *p)
{
	for (unsigned int i = 0; i < p->nqueues; i++) {
		struct null_queue *nq = (struct null_queue *)p->queue[i];

		if (nq)
			free(nq->copy);
		free(nq);
	}
	free(p->queue);
	free(p);
}

static int null_open(const struct port_conf *conf, const struct port_env *env,
		     unsigned int nqueues, struct port **out)
{
	struct port *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->ops = &port_null_ops;
	p->rx_depth = conf->copy ? PORT_RX_COPIES : 0;
	p->gso = GN_INSTANCE_TSO4 | GN_INSTANCE_TSO6 | GN_INSTANCE_USO;
	p->queue = calloc(nqueues, sizeof(struct port_queue *));
	if (!p->queue)
		goto fail;
	p->nqueues = nqueues;
	for (unsigned int i = 0; i < nqueues; i++) {
		struct null_queue *nq = calloc(1, sizeof(*nq));

		if (!nq)
			goto fail;
		p->queue[i] = &nq->q;
		nq->q.port = p;
		nq->q.fd = -1;
		if (!conf->copy)
			continue;
		nq->copy = malloc(sizeof(struct virtio_net_hdr_v1) + PORT_MAX_FRAME);
		if (!nq->copy)
			goto fail;
	}
	*out = p;
	return 0;
fail:
	null_close(p);
	return -ENOMEM;
}

static void copy_chain(const struct null_queue *nq, struct mbuf_pool *pool,
		       struct mbuf *head)
{
	uint8_t *dst = nq->copy + sizeof(struct virtio_net_hdr_v1);

	gso_finish(pool, head, (struct virtio_net_hdr_v1 *)nq->copy);
	for (const struct mbuf *m = head; m; m = mbuf_next(pool, m)) {
		memcpy(dst, mbuf_data(pool, m), m->len);
		dst += m->len;
	}
}

static void null_deliver(struct port_queue *q, struct mbuf_pool *pool, struct mbuf **head,
			 unsigned int n)
{
	const struct null_queue *nq = (const struct null_queue *)q;
	uint64_t packets = 0, bytes = 0;

	for (unsigned int i = 0; i < n; i++) {
		packets += head[i]->nsegs;
		bytes += head[i]->total;
		/* A malformed frame may be longer than any real one; it is not copied. */
		if (nq->copy && head[i]->total <= PORT_MAX_FRAME)
			copy_chain(nq, pool, head[i]);
		mbuf_free_chain(pool, head[i]);
	}
	stat_add(&q->stats.rx_packets, packets);
	stat_add(&q->stats.rx_frames, n);
	stat_add(&q->stats.rx_bytes, bytes);
}

static void null_inject(struct port_queue *q, const struct gso_frame *f)
{
	stat_add(&q->stats.rx_frames, 1);
	stat_add(&q->stats.rx_bytes, f->len);
}

const struct port_ops port_null_ops = {
	.name = "null",
	.open = null_open,
	.close = null_close,
	.deliver = null_deliver,
	.inject = null_inject,
};
