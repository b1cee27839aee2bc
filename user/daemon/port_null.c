// SPDX-License-Identifier: BSD-2-Clause
/*
 * null port: receives everything, sends nothing. For measuring.
 *
 * With "copy" every chain is finished and copied into one buffer of the queue, its
 * checksums verified in the same pass, which is the work that a VM's receive ring would
 * cost. Contract in port.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "chain.h"
#include "port.h"
#include "stat.h"
#include "../lib/csum.h"

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
	p->reads = conf->copy;
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

/* The same of a claimed chain, its checksums verified in that pass. Return: false: one is
 * bad, and the chain is as it was */
static bool copy_claimed(const struct null_queue *nq, struct mbuf_pool *pool,
			 struct mbuf *head)
{
	uint8_t *frame = nq->copy + sizeof(struct virtio_net_hdr_v1);
	uint8_t *dst = frame + mbuf_hdr_len(head);

	for (const struct mbuf *m = head; m; m = mbuf_next(pool, m)) {
		uint32_t len;
		const uint8_t *payload = chain_payload(pool, head, m, &len);

		if (!csum_equal(csum_copy(dst, payload, len), m->meta.payload_sum))
			return false;
		dst += len;
	}
	chain_good(head);
	gso_finish(pool, head, (struct virtio_net_hdr_v1 *)nq->copy);
	memcpy(frame, mbuf_data(pool, head), mbuf_hdr_len(head));
	return true;
}

/* What a burst has come to: counters are written once for it. */
struct tally {
	uint64_t packets, frames, bytes;
};

/* Take @head, which is not claimed and not copied yet if @copy. */
static void take(const struct null_queue *nq, struct mbuf_pool *pool, struct mbuf *head,
		 bool copy, struct tally *t)
{
	t->packets += head->nsegs;
	t->frames++;
	t->bytes += head->total;
	/* A malformed frame may be longer than any real one; it is not copied. */
	if (copy && head->total <= PORT_MAX_FRAME)
		copy_chain(nq, pool, head);
	mbuf_free_chain(pool, head);
}

/* One of its packets is bad: that one alone, what was merged with it without it. */
static void take_split(struct null_queue *nq, struct mbuf_pool *pool, struct mbuf *head,
		       struct tally *t)
{
	struct mbuf *part[AGG_MAX_BUFS];
	unsigned int bad, n = chain_split(pool, head, part, &bad);

	stat_add(&nq->q.stats.rx_bad_csum, bad);
	for (unsigned int i = 0; i < n; i++)
		take(nq, pool, part[i], true, t);
}

static void null_deliver(struct port_queue *q, struct mbuf_pool *pool, struct mbuf **head,
			 unsigned int n)
{
	struct null_queue *nq = (struct null_queue *)q;
	struct tally t = { 0 };

	for (unsigned int i = 0; i < n; i++) {
		if (!(head[i]->flags & MBUF_CLAIMED))
			take(nq, pool, head[i], nq->copy, &t);
		else if (copy_claimed(nq, pool, head[i]))
			take(nq, pool, head[i], false, &t);
		else
			take_split(nq, pool, head[i], &t);
	}
	stat_add(&q->stats.rx_packets, t.packets);
	stat_add(&q->stats.rx_frames, t.frames);
	stat_add(&q->stats.rx_bytes, t.bytes);
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
